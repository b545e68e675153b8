//! `push`: rows that clients put in with INSERT, COPY and POST. In memory only; every reader has a position of its own.
//!
//! Two waits, each on one [`Notify`]: readers wait for `appended`, writers (only with [`SlowReader::Wait`]) for
//! `advanced`. Both enroll before they look, so that no wake-up falls between the look and the wait.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use tokio::sync::{Notify, Semaphore};

use crate::error::{Code, Error, Result};
use crate::source::progress::{Progress, Reader as Place};
use crate::source::ring::{Ring, compact, merge};
use crate::source::{Range, RangeChoice, Reading, Source, Start, StartKind, Until};

/// What becomes of a reader that does not keep up with the writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlowReader {
    /// It ends with an error once rows are gone that it has not read.
    Fail,
    /// Writers wait for the slowest reader.
    Wait,
}

/// A stream that clients write to.
#[derive(Debug)]
pub struct PushStream {
    name: String,
    schema: SchemaRef,
    progress: Arc<Progress>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    slow_reader: SlowReader,
    state: Mutex<State>,
    /// Rows have come.
    appended: Notify,
    /// A reader has read or gone.
    advanced: Notify,
    /// The turn of one writer at a time to wait for readers: first come, first served.
    turn: Semaphore,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    /// The number of the row that each reader reads next.
    positions: BTreeMap<u64, u64>,
    next_reader: u64,
}

impl PushStream {
    /// `schema` with the metadata of `pg_type`. The newest `retain_rows` rows within `retain_bytes` bytes stay
    /// readable, and always the newest one.
    pub fn new(
        name: String,
        schema: SchemaRef,
        retain_rows: usize,
        retain_bytes: u64,
        slow_reader: SlowReader,
    ) -> Self {
        let ring = Ring::new(retain_rows, retain_bytes);
        let state = State { ring, positions: BTreeMap::new(), next_reader: 0 };
        let shared = Shared {
            slow_reader,
            state: Mutex::new(state),
            appended: Notify::new(),
            advanced: Notify::new(),
            turn: Semaphore::new(1),
        };
        PushStream { name, schema, progress: Arc::default(), shared: Arc::new(shared) }
    }

    /// The stream's name in the catalog.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Rows that a reader from `earliest` would be given now.
    pub fn retained_rows(&self) -> u64 {
        let state = self.shared.state();
        state.ring.next_row() - state.ring.first_row()
    }

    /// Rows that the reader who is furthest behind has not read.
    pub fn unread_rows(&self) -> Option<u64> {
        let state = self.shared.state();
        state.slowest().map(|position| state.ring.next_row().saturating_sub(position))
    }

    /// Whether the stream takes these rows, for writers that append them later.
    ///
    /// # Errors
    /// 23502 for a NULL in a column that allows none; XX000 for other columns than the stream's.
    pub fn check(&self, batch: &RecordBatch) -> Result<()> {
        self.conform(batch).map(|_| ())
    }

    /// Puts all rows of `batch` into the stream at once, in their order, before it returns; gives their number. Only
    /// with [`SlowReader::Wait`] it waits: until readers have made room. Dropped while it waits, nothing is put in.
    ///
    /// # Errors
    /// As [`PushStream::check`]; then no row is in the stream.
    pub async fn append(&self, batch: RecordBatch) -> Result<u64> {
        let batch = compact(&self.conform(&batch)?)?;
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return Ok(0);
        }
        match self.shared.slow_reader {
            SlowReader::Fail => self.shared.push(batch)?,
            SlowReader::Wait => self.shared.push_when_there_is_room(batch).await?,
        }
        Ok(rows)
    }

    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if let Some(column) = self.first_forbidden_null(batch) {
            let name = &self.name;
            return Err(Error::new(
                Code::NotNullViolation,
                format!("null value in column \"{column}\" of stream \"{name}\" violates not-null constraint"),
            ));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), batch.columns().to_vec(), &options)
            .map_err(|error| Error::internal(format!("rows do not fit stream \"{}\": {error}", self.name)))
    }

    /// The column of the first row that has a NULL where none may be.
    fn first_forbidden_null(&self, batch: &RecordBatch) -> Option<&str> {
        let fields = self.schema.fields().iter().zip(batch.columns());
        let forbidden = fields.filter(|(field, _)| !field.is_nullable()).filter_map(|(field, column)| {
            let row = (0..column.len()).find(|row| column.is_null(*row))?;
            Some((row, field.name().as_str()))
        });
        forbidden.min_by_key(|(row, _)| *row).map(|(_, name)| name)
    }
}

/// The stream's type, as in the catalog file.
impl fmt::Display for PushStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("push")
    }
}

#[async_trait]
impl Source for PushStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn choice(&self) -> RangeChoice {
        RangeChoice { starts: &[StartKind::Latest, StartKind::Earliest], until: true }
    }

    fn is_bounded(&self, range: &Range) -> bool {
        range.until == Until::Latest
    }

    /// Nothing is skipped: what is malformed is refused to the writer.
    fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    async fn found(&self) -> Result<String> {
        Ok(self.to_string())
    }

    async fn open(&self, reading: Reading) -> Result<SendableRecordBatchStream> {
        let schema = Arc::new(self.schema.project(&reading.projection)?);
        let reader = Reader::open(&self.name, &self.shared, reading)?;
        let batches = stream::try_unfold(reader, |mut reader| async move {
            let batch = reader.next().await.map_err(DataFusionError::from)?;
            Ok(batch.map(|batch| (batch, reader)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

impl Shared {
    /// No code that holds the lock can leave the state half changed, so a panic elsewhere spoils nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, batch: RecordBatch) -> Result<()> {
        let mut state = self.state();
        state.ring.push(batch);
        let trimmed = state.trim(self.slow_reader);
        drop(state);
        self.appended.notify_waiters();
        trimmed
    }

    async fn push_when_there_is_room(&self, batch: RecordBatch) -> Result<()> {
        let closed = |_| Error::internal("the turn of writers is closed");
        let _turn = self.turn.acquire().await.map_err(closed)?;
        loop {
            let mut advanced = std::pin::pin!(self.advanced.notified());
            advanced.as_mut().enable();
            if self.state().has_room(&batch) {
                return self.push(batch);
            }
            advanced.await;
        }
    }
}

impl State {
    fn has_room(&self, batch: &RecordBatch) -> bool {
        self.slowest().is_none_or(|position| self.ring.has_room(position, batch))
    }

    fn slowest(&self) -> Option<u64> {
        self.positions.values().min().copied()
    }

    fn trim(&mut self, slow_reader: SlowReader) -> Result<()> {
        let floor = match slow_reader {
            SlowReader::Fail => None,
            SlowReader::Wait => self.slowest(),
        };
        self.ring.trim(floor.unwrap_or(u64::MAX))
    }
}

/// One reading of the stream. Dropping it releases the writers that wait for it.
struct Reader {
    stream: String,
    shared: Arc<Shared>,
    id: u64,
    position: u64,
    /// Where the reading ends, if it does.
    end: Option<u64>,
    projection: Vec<usize>,
    _place: Place,
}

impl Reader {
    fn open(stream: &str, shared: &Arc<Shared>, reading: Reading) -> Result<Self> {
        let Reading { range, projection, reader: place, .. } = reading;
        let mut state = shared.state();
        let position = match range.start {
            Start::Latest => state.ring.next_row(),
            Start::Earliest => state.ring.first_row(),
            Start::Timestamp(_) | Start::Offsets(_) => {
                return Err(Error::internal(format!("a push stream cannot start at {}", range.start)));
            }
        };
        let end = (range.until == Until::Latest).then(|| state.ring.next_row());
        let id = state.next_reader;
        state.next_reader += 1;
        state.positions.insert(id, position);
        drop(state);
        let (stream, shared) = (stream.to_string(), Arc::clone(shared));
        Ok(Reader { stream, shared, id, position, end, projection, _place: place })
    }

    /// The rows that are there, as soon as there is one; `None` at the end.
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut appended = std::pin::pin!(shared.appended.notified());
            appended.as_mut().enable();
            let pieces = self.take()?;
            if !pieces.is_empty() {
                let projected = pieces.iter().map(|piece| piece.project(&self.projection));
                return merge(projected.collect::<Result<_, _>>()?).map(Some);
            }
            if self.end.is_some_and(|end| self.position >= end) {
                return Ok(None);
            }
            appended.await;
        }
    }

    fn take(&mut self) -> Result<Vec<RecordBatch>> {
        let mut state = self.shared.state();
        let lost = state.ring.first_row().saturating_sub(self.position);
        if lost > 0 {
            let (stream, noun) = (&self.stream, if lost == 1 { "row" } else { "rows" });
            return Err(Error::new(
                Code::ObjectNotReady,
                format!("reader of stream \"{stream}\" fell behind and lost {lost} {noun}"),
            )
            .with_hint("Raise \"retain_rows\" and \"retain_bytes\", or set \"slow_reader\" to \"wait\"."));
        }
        let most = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.position));
        let pieces = first_rows(state.ring.read(self.position), most);
        let rows: usize = pieces.iter().map(RecordBatch::num_rows).sum();
        if rows > 0 {
            self.position += rows as u64;
            state.positions.insert(self.id, self.position);
            let trimmed = state.trim(self.shared.slow_reader);
            drop(state);
            self.shared.advanced.notify_waiters();
            trimmed?;
        }
        Ok(pieces)
    }
}

/// The first rows of what was read.
fn first_rows(pieces: Vec<RecordBatch>, most: u64) -> Vec<RecordBatch> {
    let mut left = usize::try_from(most).unwrap_or(usize::MAX);
    let cut = pieces.into_iter().map(|piece| {
        let rows = piece.num_rows().min(left);
        left -= rows;
        piece.slice(0, rows)
    });
    cut.filter(|piece| piece.num_rows() > 0).collect()
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.state().positions.remove(&self.id);
        self.shared.advanced.notify_waiters();
    }
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
