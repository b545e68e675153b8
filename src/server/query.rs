//! Statements over the protocol: the simple and the extended query, and how what they come to is sent.

use datafusion::arrow::datatypes::SchemaRef;
use pgwire::messages::PgWireFrontendMessage;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};

use crate::engine::Rows;
use crate::error::{Code, Error};
use crate::format::copy_options::CopyOptions;
use crate::pg_type::PgType;
use crate::server::connection::{Connection, Ended, Stop, send_reports};
use crate::server::decode::decode_parameter;
use crate::server::encode::{Format, RowEncoder, ValueSettings, row_description};
use crate::server::encode_copy::CopyEncoder;
use crate::server::wire::{FLUSH_BYTES, Wire};
use crate::session::portal::{Content, Portal, RowReader};
use crate::session::{Executed, Outcome, Prepared, Session};
use crate::sql::{self, FetchCount, Statement, StatementKind};

/// The application name of psql, which shows no row of a plain query before the last has come.
const PSQL: &str = "psql";

impl Connection {
    /// All statements of one Query message.
    pub(super) async fn simple_query(&mut self, text: &str) -> Result<(), Ended> {
        let answered = self.run_all(text).await;
        if let Err(Ended::Failed(error)) = &answered {
            self.session.fail_transaction();
            self.wire.send_failure("ERROR", error)?;
        } else {
            answered?;
        }
        self.session.end_statement();
        self.ready().await
    }

    async fn run_all(&mut self, text: &str) -> Result<(), Ended> {
        let statements = sql::parse(text)?;
        if statements.is_empty() {
            return Ok(self.wire.send(&EmptyQueryResponse::new())?);
        }
        for statement in statements {
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
    fn announce(&mut self, executed: Executed) -> Result<Outcome, Ended> {
        if self.session.settings().wants_notices() {
            for notice in &executed.notices {
                let severity = if notice.code() == Code::Notice { "NOTICE" } else { "WARNING" };
                self.wire.send_failure(severity, notice)?;
            }
        }
        send_reports(&mut self.wire, executed.reports)?;
        Ok(executed.outcome)
    }

    async fn send_simple(&mut self, outcome: Outcome) -> Result<(), Ended> {
        match outcome {
            Outcome::Rows { rows, tag } => {
                self.notice_of_endless_rows(&rows)?;
                let mut reader = RowReader::new(rows, tag);
                self.send_result(&mut reader, &[], u64::MAX).await
            }
            Outcome::Fetch { portal, count } => self.fetch(&portal, count, None).await,
            other => self.send_rowless(other).await,
        }
    }

    async fn send_rowless(&mut self, outcome: Outcome) -> Result<(), Ended> {
        match outcome {
            Outcome::CopyOut { rows, options } => self.copy_out(rows, &options).await,
            Outcome::CopyIn(copy) => self.copy_in(*copy).await,
            Outcome::Done { tag } => Ok(self.wire.send(&CommandComplete::new(tag))?),
            Outcome::Rows { .. } | Outcome::Fetch { .. } => Err(Error::internal("rows without a description").into()),
        }
    }

    fn notice_of_endless_rows(&mut self, rows: &Rows) -> Result<(), Ended> {
        let settings = self.session.settings();
        if rows.endless && settings.application_name() == PSQL && settings.wants_notices() {
            let notice = Error::new(Code::Notice, "the rows of this query never end, and psql may show none of them")
                .with_hint("Type \\set FETCH_COUNT 1 first (before psql 17 the statement must begin with SELECT or VALUES), or use COPY (query) TO STDOUT.");
            self.wire.send_failure("NOTICE", &notice)?;
        }
        Ok(())
    }

    /// A whole result with its description.
    async fn send_result(&mut self, reader: &mut RowReader, formats: &[i16], limit: u64) -> Result<(), Ended> {
        let formats = Format::expand(formats, reader.schema().fields().len())?;
        row_description(reader.schema(), &formats, &mut self.wire.output)?;
        let tag = reader.tag();
        let rows = self.send_rows(reader, &formats, limit).await?;
        Ok(self.wire.send(&CommandComplete::new(command_tag(tag, rows)))?)
    }

    /// FETCH: `formats` are those of the Bind of an extended query, which has been described already.
    async fn fetch(&mut self, name: &str, count: FetchCount, formats: Option<&[i16]>) -> Result<(), Ended> {
        let limit = match count {
            FetchCount::Rows(rows) => rows,
            FetchCount::All => u64::MAX,
        };
        let portal = self.session.portal(name)?;
        let own_formats =
            formats.filter(|formats| !formats.is_empty()).map_or_else(|| portal.formats.clone(), <[i16]>::to_vec);
        let Content::Rows(reader) = std::mem::replace(&mut portal.content, Content::Done) else {
            return Err(Error::new(Code::UndefinedCursor, format!("cursor \"{name}\" has no rows")).into());
        };
        let mut reader = reader;
        let sent = match formats {
            None => self.send_result(&mut reader, &own_formats, limit).await,
            Some(_) => self.send_described(&mut reader, &own_formats, limit).await,
        };
        if let Ok(portal) = self.session.portal(name) {
            portal.put_back(reader);
        }
        sent
    }

    async fn send_described(&mut self, reader: &mut RowReader, formats: &[i16], limit: u64) -> Result<(), Ended> {
        let formats = Format::expand(formats, reader.schema().fields().len())?;
        let rows = self.send_rows(reader, &formats, limit).await?;
        Ok(self.wire.send(&CommandComplete::new(command_tag("FETCH", rows)))?)
    }

    /// Sends rows as they come, at most `limit`; tells how many there were.
    async fn send_rows(&mut self, reader: &mut RowReader, formats: &[Format], limit: u64) -> Result<u64, Ended> {
        let settings = self.value_settings();
        let mut encoder = RowEncoder::try_new(reader.schema(), formats)?.with_settings(settings);
        let mut sent = 0;
        let (wire, _, stop) = self.parts();
        while sent < limit {
            let most = usize::try_from(limit - sent).unwrap_or(usize::MAX);
            let Some(batch) = next_batch(wire, &stop, reader, most).await? else { break };
            let mut first = 0;
            while first < batch.num_rows() {
                first += encoder.encode_some(&batch, first..batch.num_rows(), FLUSH_BYTES, &mut wire.output)?;
                flush_when_full(wire, &stop).await?;
            }
            sent += batch.num_rows() as u64;
        }
        Ok(sent)
    }

    async fn copy_out(
        &mut self,
        rows: Rows,
        options: &[datafusion::sql::sqlparser::ast::CopyOption],
    ) -> Result<(), Ended> {
        let options = CopyOptions::try_from_parsed(options)?;
        let settings = self.value_settings();
        let mut encoder = CopyEncoder::try_new(&rows.schema, options)?.with_settings(settings);
        encoder.begin(&mut self.wire.output)?;
        let mut reader = RowReader::new(rows, "COPY");
        let mut sent = 0_u64;
        let (wire, _, stop) = self.parts();
        while let Some(batch) = next_batch(wire, &stop, &mut reader, usize::MAX).await? {
            let mut first = 0;
            while first < batch.num_rows() {
                first += encoder.encode_some(&batch, first..batch.num_rows(), FLUSH_BYTES, &mut wire.output)?;
                flush_when_full(wire, &stop).await?;
            }
            sent += batch.num_rows() as u64;
        }
        encoder.finish(&mut self.wire.output)?;
        Ok(self.wire.send(&CommandComplete::new(format!("COPY {sent}")))?)
    }

    /// One message of the extended protocol.
    pub(super) async fn extended_query(&mut self, message: PgWireFrontendMessage) -> Result<(), Ended> {
        match message {
            PgWireFrontendMessage::Parse(parse) => self.parse(parse).await,
            PgWireFrontendMessage::Bind(bind) => self.bind(bind).await,
            PgWireFrontendMessage::Describe(describe) => self.describe(&describe),
            PgWireFrontendMessage::Execute(execute) => self.execute(execute).await,
            PgWireFrontendMessage::Close(close) => self.close(close),
            PgWireFrontendMessage::Flush(_) => self.flush().await,
            _ => Err(Error::new(Code::ProtocolViolation, "unexpected message").into()),
        }
    }

    async fn parse(&mut self, parse: Parse) -> Result<(), Ended> {
        let name = parse.name.unwrap_or_default();
        let mut statements = sql::parse(&parse.query)?;
        if statements.len() > 1 {
            return Err(
                Error::new(Code::SyntaxError, "cannot insert multiple commands into a prepared statement").into()
            );
        }
        let statement = statements.pop().unwrap_or(Statement { kind: StatementKind::Empty, text: String::new() });
        let declared = parse.type_oids.iter().map(|oid| declared_type(*oid)).collect::<Result<Vec<_>, _>>()?;
        let (wire, session, stop) = self.parts();
        let prepared = stop
            .guard(wire, session.prepare(statement, &declared))
            .await?
            .map_err(|error| error.locate(&parse.query))?;
        self.session.keep_statement(&name, prepared.with_declared_oids(parse.type_oids))?;
        Ok(self.wire.send(&ParseComplete::new())?)
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), Ended> {
        let name = bind.statement_name.unwrap_or_default();
        let prepared = self.session.statement(&name)?.clone();
        let expected = prepared.parameters.len();
        if bind.parameters.len() != expected {
            let given = bind.parameters.len();
            let message = format!(
                "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {expected}"
            );
            return Err(Error::new(Code::ProtocolViolation, message).into());
        }
        let formats = Format::expand(&bind.parameter_format_codes, expected)
            .map_err(|_| Error::new(Code::ProtocolViolation, "bind message has a wrong number of parameter formats"))?;
        let settings = self.value_settings();
        let mut values = vec![];
        for ((bytes, format), pg_type) in bind.parameters.iter().zip(formats).zip(&prepared.parameters) {
            values.push(decode_parameter(bytes.as_deref(), format, pg_type, settings)?);
        }
        let codes = bind.result_column_format_codes;
        let portal = match (&prepared.statement.kind, prepared.planned.is_some()) {
            // A query begins here: what arrives from now on is in it.
            (StatementKind::Query(_) | StatementKind::ShowRelation { .. }, true) => {
                if let Some(schema) = result_schema(&mut self.session, &prepared)? {
                    Format::expand(&codes, schema.fields().len())?;
                }
                let (wire, session, stop) = self.parts();
                let executed = stop.guard(wire, session.execute(&prepared, values)).await??;
                match self.announce(executed)? {
                    Outcome::Rows { rows, tag } => Portal::of_rows(rows, tag, codes),
                    _ => return Err(Error::internal("a query without rows").into()),
                }
            }
            _ => Portal::of_statement(prepared, values, codes),
        };
        self.session.open_portal(&bind.portal_name.unwrap_or_default(), portal)?;
        Ok(self.wire.send(&BindComplete::new())?)
    }

    fn describe(&mut self, describe: &Describe) -> Result<(), Ended> {
        let name = describe.name.as_deref().unwrap_or_default();
        if describe.target_type == b'S' {
            let prepared = self.session.statement(name)?.clone();
            self.wire.send(&ParameterDescription::new(prepared.parameter_oids()))?;
            let schema = result_schema(&mut self.session, &prepared)?;
            return self.send_description(schema, &[]);
        }
        let portal = self.session.portal(name)?;
        let formats = portal.formats.clone();
        let schema = match &portal.content {
            Content::Rows(reader) => Some(reader.schema().clone()),
            Content::Done => None,
            Content::Statement { prepared, .. } => {
                let prepared = prepared.as_ref().clone();
                result_schema(&mut self.session, &prepared)?
            }
        };
        self.send_description(schema, &formats)
    }

    fn send_description(&mut self, schema: Option<SchemaRef>, codes: &[i16]) -> Result<(), Ended> {
        match schema {
            Some(schema) => {
                let formats = Format::expand(codes, schema.fields().len())?;
                Ok(row_description(&schema, &formats, &mut self.wire.output)?)
            }
            None => Ok(self.wire.send(&NoData::new())?),
        }
    }

    async fn execute(&mut self, execute: Execute) -> Result<(), Ended> {
        let name = execute.name.unwrap_or_default();
        let limit = u64::try_from(execute.max_rows).ok().filter(|rows| *rows > 0).unwrap_or(u64::MAX);
        let portal = self.session.portal(&name)?;
        let formats = portal.formats.clone();
        match std::mem::replace(&mut portal.content, Content::Done) {
            Content::Statement { prepared, values } => {
                if let StatementKind::Empty = prepared.statement.kind {
                    return Ok(self.wire.send(&EmptyQueryResponse::new())?);
                }
                let (wire, session, stop) = self.parts();
                let executed = stop.guard(wire, session.execute(&prepared, values)).await??;
                match self.announce(executed)? {
                    Outcome::Rows { rows, tag } => {
                        self.execute_rows(&name, RowReader::new(rows, tag), &formats, limit).await
                    }
                    Outcome::Fetch { portal, count } => self.fetch(&portal, count, Some(&formats)).await,
                    other => self.send_rowless(other).await,
                }
            }
            Content::Rows(reader) => self.execute_rows(&name, reader, &formats, limit).await,
            Content::Done => Ok(self.wire.send(&CommandComplete::new("SELECT 0".to_string()))?),
        }
    }

    async fn execute_rows(
        &mut self,
        name: &str,
        mut reader: RowReader,
        codes: &[i16],
        limit: u64,
    ) -> Result<(), Ended> {
        let formats = Format::expand(codes, reader.schema().fields().len())?;
        let tag = reader.tag();
        let sent = self.send_rows(&mut reader, &formats, limit).await?;
        if sent < limit {
            return Ok(self.wire.send(&CommandComplete::new(command_tag(tag, sent)))?);
        }
        if let Ok(portal) = self.session.portal(name) {
            portal.put_back(reader);
        }
        Ok(self.wire.send(&PortalSuspended::new())?)
    }

    fn close(&mut self, close: Close) -> Result<(), Ended> {
        let name = close.name.unwrap_or_default();
        match close.target_type {
            b'S' => self.session.forget_statement(&name),
            _ => self.session.close_portal(&name),
        }
        Ok(self.wire.send(&CloseComplete::new())?)
    }

    fn value_settings(&self) -> ValueSettings {
        ValueSettings { time_zone: self.session.settings().time_zone() }
    }
}

/// The next rows. Those that are there already are taken without a write in between; before waiting, all is written.
async fn next_batch(
    wire: &mut Wire,
    stop: &Stop,
    reader: &mut RowReader,
    most: usize,
) -> Result<Option<datafusion::arrow::array::RecordBatch>, Ended> {
    stop.check()?;
    if let Some(batch) = reader.next_ready(most) {
        return Ok(Some(batch?));
    }
    stop.flush(wire).await?;
    Ok(stop.guard(wire, reader.next(most)).await?.transpose()?)
}

async fn flush_when_full(wire: &mut Wire, stop: &Stop) -> Result<(), Ended> {
    if wire.output.len() < FLUSH_BYTES {
        return Ok(());
    }
    stop.flush(wire).await?;
    stop.check()
}

fn command_tag(word: &str, rows: u64) -> String {
    match word {
        "EXPLAIN" | "SHOW" => word.to_string(),
        word => format!("{word} {rows}"),
    }
}

fn declared_type(oid: u32) -> Result<Option<PgType>, Error> {
    match oid {
        // Unspecified, and what drivers send for a string that may be anything.
        0 | 705 => Ok(None),
        oid => match PgType::of_oid(oid) {
            Some(pg_type) => Ok(Some(pg_type)),
            None => Err(Error::unsupported(format!("parameters of the type with OID {oid} are not supported"))),
        },
    }
}

/// The columns of what a statement answers, without running it.
fn result_schema(session: &mut Session, prepared: &Prepared) -> Result<Option<SchemaRef>, Error> {
    let text = |column: &str| {
        let field = PgType::Text.field(column, false);
        Some(SchemaRef::new(datafusion::arrow::datatypes::Schema::new(vec![field])))
    };
    Ok(match &prepared.statement.kind {
        StatementKind::Query(_) | StatementKind::ShowRelation { .. } => {
            prepared.planned.as_ref().map(|planned| planned.schema.clone())
        }
        StatementKind::Explain { .. } => text("QUERY PLAN"),
        StatementKind::Show { name } => text(&session.settings().get(name)?.0.to_lowercase()),
        StatementKind::Fetch { cursor, .. } => match &session.portal(cursor)?.content {
            Content::Rows(reader) => Some(reader.schema().clone()),
            _ => None,
        },
        StatementKind::Execute { name, .. } => {
            let inner = session.statement(name)?.clone();
            result_schema(session, &inner)?
        }
        _ => None,
    })
}
