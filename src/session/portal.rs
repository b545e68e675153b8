//! A statement that is bound to its parameters, or a result that is read in parts: what Bind and DECLARE open.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::catalog::running::QueryEntry;
use crate::engine::Rows;
use crate::error::{Error, Result};
use crate::notice::Notices;
use crate::session::Prepared;
use crate::sql::cursor::CursorPosition;

/// What Bind or DECLARE has opened.
pub struct Portal {
    /// The format of each column as Bind sends it: 0 text, 1 binary; none: all text, one: for all.
    pub formats: Vec<i16>,
    pub content: Content,
    /// Which portal of the session it is, counted from 1.
    pub(super) number: u64,
}

/// What is behind a portal's name.
pub enum Content {
    /// A statement that runs at Execute.
    Statement { prepared: Box<Prepared>, values: Vec<ScalarValue> },
    /// A result on its way.
    Rows(RowReader),
    /// A statement that has run and has no rows.
    Done,
}

impl Portal {
    /// A portal for a statement that runs when it is executed.
    pub fn of_statement(prepared: Prepared, values: Vec<ScalarValue>, formats: Vec<i16>) -> Self {
        Portal { formats, number: 0, content: Content::Statement { prepared: Box::new(prepared), values } }
    }

    /// A portal for a result that has begun, with the word of its command tag.
    pub fn of_rows(rows: Rows, tag: &'static str, formats: Vec<i16>) -> Self {
        let mut portal = Portal { formats, number: 0, content: Content::Done };
        portal.put_back(RowReader::new(rows, tag));
        portal
    }

    /// Keeps the rows of which no more are asked for now.
    pub fn put_back(&mut self, reader: RowReader) {
        if let Some(query) = &reader.query {
            query.suspend();
        }
        self.content = Content::Rows(reader);
    }

    /// What DECLARE opens.
    pub fn of_cursor(rows: Rows, binary: bool) -> Self {
        Self::of_rows(rows, "FETCH", vec![i16::from(binary)])
    }
}

/// What a result says next.
pub enum Told {
    /// `None` at the end.
    Rows(Result<Option<RecordBatch>>),
    Notice(Error),
}

/// Rows in the portions that a client asks for.
pub struct RowReader {
    schema: SchemaRef,
    tag: &'static str,
    /// `None` once it has ended: everything behind it is released then.
    stream: Option<SendableRecordBatchStream>,
    pending: Option<RecordBatch>,
    notices: Notices,
    /// Its entry among the queries that run, if it is one and has not ended.
    query: Option<QueryEntry>,
    position: CursorPosition,
}

impl RowReader {
    pub fn new(rows: Rows, tag: &'static str) -> Self {
        let position = CursorPosition { rows: 0, at_end: false };
        let Rows { schema, stream, notices, query, .. } = rows;
        RowReader { schema, tag, stream: Some(stream), pending: None, notices, query, position }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The word of the command tag.
    pub fn tag(&self) -> &'static str {
        self.tag
    }

    /// Where it stands.
    pub fn position(&self) -> CursorPosition {
        self.position
    }

    /// Waits for rows, at most `max_rows` of them; `None` at the end. Nothing is lost when the future is dropped.
    pub async fn next(&mut self, max_rows: usize) -> Option<Result<RecordBatch>> {
        if let Some(query) = &self.query {
            query.resume();
        }
        loop {
            if let Some(batch) = self.pending.take() {
                let rows = batch.num_rows().min(max_rows);
                self.position.rows += rows as u64;
                if let Some(query) = &self.query {
                    query.count_rows_out(rows);
                }
                if rows < batch.num_rows() {
                    self.pending = Some(batch.slice(rows, batch.num_rows() - rows));
                    return Some(Ok(batch.slice(0, rows)));
                }
                return Some(Ok(batch));
            }
            let Some(stream) = &mut self.stream else {
                self.position.at_end = true;
                return None;
            };
            match stream.next().await {
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => self.pending = Some(batch),
                Some(Err(error)) => {
                    self.end();
                    return Some(Err(error.into()));
                }
                None => self.end(),
            }
        }
    }

    /// As [`RowReader::next`], or a notice if one comes before rows do.
    pub async fn next_or_notice(&mut self, max_rows: usize) -> Told {
        let notices = self.notices.clone();
        tokio::select! {
            biased;
            notice = notices.next() => Told::Notice(notice),
            rows = self.next(max_rows) => Told::Rows(rows.transpose()),
        }
    }

    /// A notice that is there already.
    pub fn notice(&self) -> Option<Error> {
        futures::FutureExt::now_or_never(self.notices.next())
    }

    fn end(&mut self) {
        self.stream = None;
        self.query = None;
    }

    /// Rows that are there already, without waiting; `None` if there are none at this moment, or none any more.
    pub fn next_ready(&mut self, max_rows: usize) -> Option<Result<RecordBatch>> {
        futures::FutureExt::now_or_never(self.next(max_rows)).flatten()
    }
}
