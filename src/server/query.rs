//! Statements over the protocol: the simple query, and how what statements come to is sent.

use datafusion::arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast::CopyOption;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use tokio::time::Instant;

use crate::engine::Rows;
use crate::error::{Code, Error};
use crate::format::copy_options::CopyOptions;
use crate::server::connection::{Connection, Ended};
use crate::server::encode::{Format, RowEncoder, ValueSettings, row_description};
use crate::server::encode_copy::CopyEncoder;
use crate::server::stop::Stop;
use crate::server::wire::{FLUSH_BYTES, Wire};
use crate::session::portal::{Content, RowReader, Told};
use crate::session::setting::Settings;
use crate::session::{Executed, Outcome};
use crate::sql;
use crate::sql::cursor::{Fetch, Steps};

/// The application name of psql, which shows no row of a plain query before the last has come.
const PSQL: &str = "psql";

impl Connection {
    /// All statements of one Query message.
    pub(super) async fn simple_query(&mut self, text: &str) -> Result<(), Ended> {
        self.backend.runs(text);
        match self.run_all(text).await {
            Err(Ended::Failed(error)) => {
                self.session.fail_transaction();
                self.wire.send_failure("ERROR", &error)?;
                self.forget_stop();
            }
            answered => answered?,
        }
        self.end_message().await
    }

    async fn run_all(&mut self, text: &str) -> Result<(), Ended> {
        let statements = sql::parse(text)?;
        if statements.is_empty() {
            return Ok(self.wire.send(&EmptyQueryResponse::new())?);
        }
        let are_several = statements.len() > 1;
        for statement in statements {
            if are_several {
                self.session.begin_message();
            }
            self.begin_deadline();
            let (wire, session, stop) = self.parts();
            let prepared =
                stop.guard(wire, session.prepare(statement, &[])).await?.map_err(|error| error.locate(text))?;
            if !prepared.parameters.is_empty() {
                return Err(Error::new(Code::UndefinedParameter, "there is no parameter $1").into());
            }
            let executed = stop.guard(wire, session.execute(&prepared, vec![])).await??;
            let outcome = self.announce(executed)?;
            self.send_simple(outcome).await?;
        }
        Ok(())
    }

    /// Sends what comes before a statement's own answer.
    pub(super) fn announce(&mut self, executed: Executed) -> Result<Outcome, Ended> {
        for notice in &executed.notices {
            self.notify(notice)?;
        }
        Ok(executed.outcome)
    }

    /// Sends a notice or a warning, unless the client does not want it.
    fn notify(&mut self, notice: &Error) -> Result<(), Ended> {
        send_notice(&mut self.wire, self.session.settings(), notice)
    }

    async fn send_simple(&mut self, outcome: Outcome) -> Result<(), Ended> {
        match outcome {
            Outcome::Rows { rows, tag } => {
                self.notice_of_endless_rows(&rows)?;
                let mut reader = RowReader::new(rows, tag);
                self.send_result(&mut reader, &[], u64::MAX).await
            }
            Outcome::Fetch(fetch) => self.fetch(&fetch, None).await,
            other => self.send_rowless(other).await,
        }
    }

    pub(super) async fn send_rowless(&mut self, outcome: Outcome) -> Result<(), Ended> {
        match outcome {
            Outcome::CopyOut { rows, options } => self.copy_out(rows, &options).await,
            Outcome::CopyIn(copy) => self.copy_in(*copy).await,
            Outcome::Done { tag } => Ok(self.wire.send(&CommandComplete::new(tag))?),
            Outcome::Rows { .. } | Outcome::Fetch(_) => Err(Error::internal("rows without a description").into()),
        }
    }

    fn notice_of_endless_rows(&mut self, rows: &Rows) -> Result<(), Ended> {
        if !rows.endless || self.session.settings().application_name() != PSQL {
            return Ok(());
        }
        self.notify(
            &Error::new(Code::Notice, "the rows of this query never end, and psql may show none of them")
                .with_hint("Type \\set FETCH_COUNT 1 first (before psql 17 the statement must begin with SELECT or VALUES), or use COPY (query) TO STDOUT."),
        )
    }

    /// A whole result with its description.
    async fn send_result(&mut self, reader: &mut RowReader, formats: &[i16], limit: u64) -> Result<(), Ended> {
        let formats = Format::expand(formats, reader.schema().fields().len())?;
        row_description(reader.schema(), &formats, &mut self.wire.output)?;
        let tag = reader.tag();
        let rows = self.send_rows(reader, &formats, limit, None).await?;
        Ok(self.wire.send(&CommandComplete::new(command_tag(tag, rows)))?)
    }

    /// FETCH and MOVE: `formats` are those of the Bind of an extended query, which has been described already.
    pub(super) async fn fetch(&mut self, fetch: &Fetch, formats: Option<&[i16]>) -> Result<(), Ended> {
        let name = &fetch.cursor;
        let portal = self.session.cursor(name)?;
        let own_formats =
            formats.filter(|formats| !formats.is_empty()).map_or_else(|| portal.formats.clone(), <[i16]>::to_vec);
        let steps = match &portal.content {
            Content::Rows(reader) => fetch.motion.steps(reader.position(), fetch.is_move)?,
            Content::Statement { .. } | Content::Done => {
                return Err(Error::new(Code::ObjectNotReady, format!("portal \"{name}\" cannot be run")).into());
            }
        };
        let Content::Rows(mut reader) = std::mem::replace(&mut portal.content, Content::Done) else {
            return Err(Error::internal("a cursor has lost its rows").into());
        };
        let moved = self.take_steps(&mut reader, steps, fetch, (&own_formats, formats.is_none())).await;
        if let Ok(portal) = self.session.cursor(name) {
            portal.put_back(reader);
        }
        let word = if fetch.is_move { "MOVE" } else { "FETCH" };
        let tag = command_tag(word, moved?);
        Ok(self.wire.send(&CommandComplete::new(tag))?)
    }

    /// The number of rows that were fetched or moved over.
    async fn take_steps(
        &mut self,
        reader: &mut RowReader,
        steps: Steps,
        fetch: &Fetch,
        (codes, is_to_be_described): (&[i16], bool),
    ) -> Result<u64, Ended> {
        let formats = Format::expand(codes, reader.schema().fields().len())?;
        if is_to_be_described && !fetch.is_move {
            row_description(reader.schema(), &formats, &mut self.wire.output)?;
        }
        let Steps::Read { skip, take } = steps else { return Ok(1) };
        let deadline = fetch.timeout.map(|timeout| Instant::now() + timeout);
        if self.skip_rows(reader, skip, deadline).await? < skip {
            return Ok(0);
        }
        match fetch.is_move {
            true => self.skip_rows(reader, take, deadline).await,
            false => self.send_rows(reader, &formats, take, deadline).await,
        }
    }

    /// Passes over rows, at most `limit`; tells how many there were.
    async fn skip_rows(&mut self, reader: &mut RowReader, limit: u64, deadline: Option<Instant>) -> Result<u64, Ended> {
        let mut skipped = 0;
        let mut outlet = self.outlet();
        while skipped < limit {
            let most = usize::try_from(limit - skipped).unwrap_or(usize::MAX);
            let Some(batch) = outlet.next_batch(reader, most, deadline).await? else { break };
            skipped += batch.num_rows() as u64;
            if is_past(deadline) {
                break;
            }
        }
        Ok(skipped)
    }

    /// Sends rows as they come, at most `limit`, and none that come after `deadline`; tells how many there were.
    pub(super) async fn send_rows(
        &mut self,
        reader: &mut RowReader,
        formats: &[Format],
        limit: u64,
        deadline: Option<Instant>,
    ) -> Result<u64, Ended> {
        let settings = self.value_settings();
        let mut encoder = RowEncoder::try_new(reader.schema(), formats)?.with_settings(settings);
        let mut sent = 0;
        let mut outlet = self.outlet();
        while sent < limit {
            let most = usize::try_from(limit - sent).unwrap_or(usize::MAX);
            let Some(batch) = outlet.next_batch(reader, most, deadline).await? else { break };
            let mut first = 0;
            while first < batch.num_rows() {
                first += encoder.encode_some(&batch, first..batch.num_rows(), FLUSH_BYTES, &mut outlet.wire.output)?;
                outlet.flush_when_full().await?;
            }
            sent += batch.num_rows() as u64;
            if is_past(deadline) {
                break;
            }
        }
        Ok(sent)
    }

    async fn copy_out(&mut self, rows: Rows, options: &[CopyOption]) -> Result<(), Ended> {
        let options = CopyOptions::try_from_parsed(options)?;
        let settings = self.value_settings();
        let mut encoder = CopyEncoder::try_new(&rows.schema, options)?.with_settings(settings);
        encoder.begin(&mut self.wire.output)?;
        let mut reader = RowReader::new(rows, "COPY");
        let mut sent = 0_u64;
        let mut outlet = self.outlet();
        while let Some(batch) = outlet.next_batch(&mut reader, usize::MAX, None).await? {
            let mut first = 0;
            while first < batch.num_rows() {
                first += encoder.encode_some(&batch, first..batch.num_rows(), FLUSH_BYTES, &mut outlet.wire.output)?;
                outlet.flush_when_full().await?;
            }
            sent += batch.num_rows() as u64;
        }
        encoder.finish(&mut self.wire.output)?;
        Ok(self.wire.send(&CommandComplete::new(format!("COPY {sent}")))?)
    }

    fn outlet(&mut self) -> Outlet<'_> {
        let (wire, session, stop) = self.parts();
        Outlet { wire, stop, settings: session.settings() }
    }

    pub(super) fn value_settings(&self) -> ValueSettings {
        self.session.settings().values()
    }
}

/// Sends a notice or a warning, unless the client does not want it.
fn send_notice(wire: &mut Wire, settings: &Settings, notice: &Error) -> Result<(), Ended> {
    if settings.wants(notice) {
        let severity = if notice.code() == Code::Notice { "NOTICE" } else { "WARNING" };
        wire.send_failure(severity, notice)?;
    }
    Ok(())
}

/// Where rows are sent.
struct Outlet<'c> {
    wire: &'c mut Wire,
    stop: Stop,
    settings: &'c Settings,
}

impl Outlet<'_> {
    /// The next rows; `None` when there are no more, or none before `deadline`. Those that are there already are taken
    /// without a write in between; before waiting, all is written. Notices that come meanwhile are sent.
    async fn next_batch(
        &mut self,
        reader: &mut RowReader,
        most: usize,
        deadline: Option<Instant>,
    ) -> Result<Option<RecordBatch>, Ended> {
        self.stop.check()?;
        if let Some(batch) = reader.next_ready(most) {
            // What explains an error is said before it.
            while batch.is_err()
                && let Some(notice) = reader.notice()
            {
                send_notice(self.wire, self.settings, &notice)?;
            }
            return Ok(Some(batch?));
        }
        loop {
            self.stop.flush(self.wire).await?;
            let told = match deadline {
                None => self.stop.guard(self.wire, reader.next_or_notice(most)).await?,
                Some(deadline) => {
                    let in_time = tokio::time::timeout_at(deadline, reader.next_or_notice(most));
                    self.stop.guard(self.wire, in_time).await?.unwrap_or(Told::Rows(Ok(None)))
                }
            };
            match told {
                Told::Rows(rows) => return Ok(rows?),
                Told::Notice(notice) => send_notice(self.wire, self.settings, &notice)?,
            }
        }
    }

    async fn flush_when_full(&mut self) -> Result<(), Ended> {
        if self.wire.output.len() < FLUSH_BYTES {
            return Ok(());
        }
        self.stop.flush(self.wire).await?;
        self.stop.check()
    }
}

/// Whether rows are not to be waited for any more, though they never cease to be ready.
fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

pub(super) fn command_tag(word: &str, rows: u64) -> String {
    match word {
        "EXPLAIN" | "SHOW" => word.to_string(),
        word => format!("{word} {rows}"),
    }
}
