//! Rows that clients put in: a ring of the newest, and readers that follow it, each at a pace of its own.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::array::{Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use tokio::sync::Notify;

use super::{Source, Start};
use crate::error::{Code, Error, Result};

/// Most rows that a reader is handed at once.
const MAX_BATCH_ROWS: usize = 8192;

/// What happens when a reader falls behind what is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowReader {
    /// The reader ends with an error; writers are never held up.
    Fail,
    /// Writers wait for the slowest reader.
    Wait,
}

/// A stream that lives in memory.
pub struct PushStream {
    name: String,
    schema: SchemaRef,
    retain_rows: usize,
    retain_bytes: usize,
    slow_reader: SlowReader,
    ring: Arc<Ring>,
    /// Held by the writer whose turn it is: the rows of one call stay together.
    turn: tokio::sync::Mutex<()>,
}

/// What writer and readers share.
struct Ring {
    rows: Mutex<Rows>,
    /// Rows have come.
    arrived: Notify,
    /// A reader has read, or gone.
    read: Notify,
}

/// Rows are numbered from 0 as they come; `first` is the oldest that is still there.
struct Rows {
    batches: VecDeque<RecordBatch>,
    first: u64,
    end: u64,
    bytes: usize,
    /// The next row of each reader, by the reader's number.
    readers: BTreeMap<u64, u64>,
    next_reader: u64,
}

impl PushStream {
    /// The newest `retain_rows` rows and `retain_bytes` bytes stay readable, whichever is less; the newest row always does.
    pub fn new(
        name: String,
        schema: SchemaRef,
        retain_rows: usize,
        retain_bytes: u64,
        slow_reader: SlowReader,
    ) -> Self {
        let rows =
            Rows { batches: VecDeque::new(), first: 0, end: 0, bytes: 0, readers: BTreeMap::new(), next_reader: 0 };
        PushStream {
            name,
            schema,
            retain_rows: retain_rows.max(1),
            retain_bytes: usize::try_from(retain_bytes).unwrap_or(usize::MAX),
            slow_reader,
            ring: Arc::new(Ring { rows: Mutex::new(rows), arrived: Notify::new(), read: Notify::new() }),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether these rows may enter; the nullability that the batch itself claims does not matter.
    ///
    /// # Errors
    /// 23502 for a NULL where none may be.
    pub fn check(&self, batch: &RecordBatch) -> Result<()> {
        if batch.num_columns() != self.schema.fields().len() {
            return Err(Error::internal(format!("{} columns for stream \"{}\"", batch.num_columns(), self.name)));
        }
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            if field.data_type() != array.data_type() {
                let types = format!("{} for {}", array.data_type(), field.data_type());
                return Err(Error::internal(format!(
                    "{types} in column \"{}\" of stream \"{}\"",
                    field.name(),
                    self.name
                )));
            }
            if !field.is_nullable() && array.null_count() > 0 {
                let message = format!(
                    "null value in column \"{}\" of stream \"{}\" violates not-null constraint",
                    field.name(),
                    self.name
                );
                return Err(Error::new(Code::NotNullViolation, message));
            }
        }
        Ok(())
    }

    /// Puts rows at the end, all of them or, after an error, none; readers see them together.
    ///
    /// With [`SlowReader::Wait`] this waits until no reader would lose a row; rows that exceed what is retained at all
    /// then enter in parts. Dropping the future leaves out what has not entered.
    ///
    /// # Errors
    /// As [`PushStream::check`].
    pub async fn append(&self, batch: RecordBatch) -> Result<()> {
        self.check(&batch)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = compact(RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?)?;
        let _turn = self.turn.lock().await;
        match self.slow_reader {
            SlowReader::Fail => self.ring.push(batch, self.retain_rows, self.retain_bytes),
            SlowReader::Wait => {
                let mut first = 0;
                while first < batch.num_rows() {
                    let part = batch.slice(first, (batch.num_rows() - first).min(self.retain_rows));
                    first += part.num_rows();
                    self.wait_for_room(&part).await;
                    self.ring.push(part, self.retain_rows, self.retain_bytes);
                }
            }
        }
        Ok(())
    }

    async fn wait_for_room(&self, batch: &RecordBatch) {
        loop {
            let read = self.ring.read.notified();
            tokio::pin!(read);
            // From here on no reader's progress is missed.
            read.as_mut().enable();
            if self.ring.lock().has_room_for(batch, self.retain_rows, self.retain_bytes) {
                return;
            }
            read.await;
        }
    }
}

impl Ring {
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, batch: RecordBatch, retain_rows: usize, retain_bytes: usize) {
        let mut rows = self.lock();
        rows.end += batch.num_rows() as u64;
        rows.bytes += bytes_of(&batch);
        rows.batches.push_back(batch);
        rows.trim(retain_rows, retain_bytes);
        drop(rows);
        self.arrived.notify_waiters();
    }
}

impl Rows {
    fn retained(&self) -> usize {
        (self.end - self.first) as usize
    }

    /// Drops the oldest rows beyond the bounds.
    fn trim(&mut self, retain_rows: usize, retain_bytes: usize) {
        while self.retained() > retain_rows {
            let excess = self.retained() - retain_rows;
            let Some(oldest) = self.batches.pop_front() else { return };
            self.bytes -= bytes_of(&oldest);
            let dropped = excess.min(oldest.num_rows());
            self.first += dropped as u64;
            if dropped < oldest.num_rows() {
                let rest = oldest.slice(dropped, oldest.num_rows() - dropped);
                self.bytes += bytes_of(&rest);
                self.batches.push_front(rest);
            }
        }
        while self.bytes > retain_bytes && self.retained() > 1 {
            let Some(oldest) = self.batches.pop_front() else { return };
            self.bytes -= bytes_of(&oldest);
            // Half of a batch at a time: its rows differ in size, and the newest row stays.
            let dropped = if self.batches.is_empty() { oldest.num_rows() / 2 } else { oldest.num_rows() };
            self.first += dropped as u64;
            if dropped < oldest.num_rows() {
                let rest = oldest.slice(dropped, oldest.num_rows() - dropped);
                let rest = compact(rest.clone()).unwrap_or(rest);
                self.bytes += bytes_of(&rest);
                self.batches.push_front(rest);
            }
        }
    }

    /// Whether `batch` pushes out only what every reader has read.
    fn has_room_for(&self, batch: &RecordBatch, retain_rows: usize, retain_bytes: usize) -> bool {
        let Some(slowest) = self.readers.values().min() else { return true };
        let unread = (self.end - slowest) as usize;
        // A reader that has read all can be given anything.
        unread == 0
            || (unread + batch.num_rows() <= retain_rows
                && self.unread_bytes(*slowest) + bytes_of(batch) <= retain_bytes)
    }

    fn unread_bytes(&self, from: u64) -> usize {
        let mut end = self.end;
        let mut bytes = 0;
        for batch in self.batches.iter().rev() {
            if end <= from {
                break;
            }
            bytes += bytes_of(batch);
            end -= batch.num_rows() as u64;
        }
        bytes
    }

    /// The rows from number `from` on, some of them; none if they have not come yet.
    fn read_from(&self, from: u64, projection: &[usize]) -> Result<Vec<RecordBatch>> {
        let mut parts = vec![];
        let mut count = 0;
        let mut start = self.first;
        for batch in &self.batches {
            let end = start + batch.num_rows() as u64;
            if end > from && count < MAX_BATCH_ROWS {
                let skipped = from.saturating_sub(start) as usize;
                let length = (batch.num_rows() - skipped).min(MAX_BATCH_ROWS - count);
                parts.push(batch.slice(skipped, length).project(projection)?);
                count += length;
            }
            start = end;
        }
        Ok(parts)
    }
}

/// A reader's place, given up when dropped.
struct Reader {
    ring: Arc<Ring>,
    number: u64,
    stream: String,
    projection: Vec<usize>,
    schema: SchemaRef,
}

impl Reader {
    /// Waits for rows.
    async fn next(&self) -> Result<RecordBatch> {
        loop {
            let arrived = self.ring.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(batch) = self.read()? {
                return Ok(batch);
            }
            arrived.await;
        }
    }

    fn read(&self) -> Result<Option<RecordBatch>> {
        let mut rows = self.ring.lock();
        let position = rows.readers.get(&self.number).copied().unwrap_or(rows.end);
        if position < rows.first {
            let lost = rows.first - position;
            let noun = if lost == 1 { "row" } else { "rows" };
            let message = format!("reader of stream \"{}\" fell behind and lost {lost} {noun}", self.stream);
            return Err(Error::new(Code::ObjectNotReady, message)
                .with_hint("Raise the stream's retain_rows and retain_bytes, or set slow_reader = \"wait\"."));
        }
        let parts = rows.read_from(position, &self.projection)?;
        let count: usize = parts.iter().map(RecordBatch::num_rows).sum();
        if count == 0 {
            return Ok(None);
        }
        rows.readers.insert(self.number, position + count as u64);
        drop(rows);
        self.ring.read.notify_waiters();
        match parts.as_slice() {
            [one] => Ok(Some(one.clone())),
            many => Ok(Some(concat_batches(&self.schema, many)?)),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ring.lock().readers.remove(&self.number);
        self.ring.read.notify_waiters();
    }
}

impl Source for PushStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn is_bounded(&self) -> bool {
        false
    }

    fn starts(&self) -> &'static [Start] {
        &[Start::Latest, Start::Earliest]
    }

    fn open(&self, start: Start, projection: &[usize]) -> Result<SendableRecordBatchStream> {
        let schema = Arc::new(self.schema.project(projection)?);
        let mut rows = self.ring.lock();
        let position = match start {
            Start::Latest => rows.end,
            Start::Earliest => rows.first,
        };
        let number = rows.next_reader;
        rows.next_reader += 1;
        rows.readers.insert(number, position);
        drop(rows);
        let reader = Reader {
            ring: Arc::clone(&self.ring),
            number,
            stream: self.name.clone(),
            projection: projection.to_vec(),
            schema: Arc::clone(&schema),
        };
        let batches = futures::stream::unfold(Some(reader), |reader| async move {
            let reader = reader?;
            match reader.next().await {
                Ok(batch) => Some((Ok(batch), Some(reader))),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

impl fmt::Display for PushStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("push")
    }
}

impl fmt::Debug for PushStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushStream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The bytes of the rows themselves, not of the buffers that they are a slice of.
fn bytes_of(batch: &RecordBatch) -> usize {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or_default());
    sizes.sum()
}

/// Copies rows out of buffers that hold much else, so that these can go.
fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    if batch.get_array_memory_size() <= 2 * bytes_of(&batch) + (4 << 10) {
        return Ok(batch);
    }
    let all = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
    let copied = take_record_batch(&batch, &all)?;
    let columns = copied
        .columns()
        .iter()
        .map(|column| match column.as_any().downcast_ref::<datafusion::arrow::array::StringViewArray>() {
            Some(strings) => Arc::new(strings.gc()) as _,
            None => Arc::clone(column),
        })
        .collect();
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
