//! A whole table in memory, found by the columns that lookups use: what a file and a full cache hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use futures::StreamExt;

use super::memory_index::MemoryIndex;
use super::size::{AnswerRoom, POSITION_BYTES, column_bytes, rows_bytes};
use super::{Answer, LookupRequest, LookupShape, RowBatches, ScanRequest, StoreError};
use crate::error::{Code, Error, Result};

/// Rows that a scan hands over at once.
const ROWS_PER_BATCH: usize = 8192;

/// Built by whoever needs it first; those who need it meanwhile wait.
type IndexPlace = Arc<OnceLock<Result<MemoryIndex>>>;

/// The rows as of one moment, with an index for each set of key columns that was used.
pub(super) struct MemoryTable {
    rows: RecordBatch,
    row_bytes: u64,
    indexes: Mutex<HashMap<Vec<usize>, IndexPlace>>,
}

impl MemoryTable {
    /// # Errors
    /// 54000 for more rows than 2³² − 1.
    pub(super) fn try_new(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<MemoryTable> {
        let rows = concat_batches(schema, batches)?;
        if u32::try_from(rows.num_rows()).is_err() {
            let message = "a table of more than 4294967295 rows cannot be held in memory";
            return Err(Error::new(Code::ProgramLimitExceeded, message));
        }
        Ok(MemoryTable { row_bytes: rows.columns().iter().map(column_bytes).sum(), rows, indexes: Mutex::default() })
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// What rows and indexes take in memory.
    pub(super) fn bytes(&self) -> u64 {
        let indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let built = indexes.values().filter_map(|index| index.get()).filter_map(|index| index.as_ref().ok());
        self.row_bytes + built.map(|index| index.bytes() as u64).sum::<u64>()
    }

    /// The sets of columns that lookups have used.
    pub(super) fn key_sets(&self) -> Vec<Vec<usize>> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Builds an index, unless it is there. Computes for long.
    ///
    /// # Errors
    /// Those of [`MemoryIndex::try_new`].
    pub(super) fn build_index(&self, key_columns: &[usize]) -> Result<()> {
        let index = self.index(key_columns);
        let built = index.get_or_init(|| MemoryIndex::try_new(&self.rows, key_columns));
        built.as_ref().map(|_| ()).map_err(Error::clone)
    }

    /// # Errors
    /// Those of an index over the request's key columns; internal for a request that the planner should not have made.
    pub(super) async fn lookup(self: &Arc<Self>, request: &LookupRequest) -> Result<Answer, StoreError> {
        self.check(request)?;
        let key_columns = &request.shape.key_columns;
        let index = self.index(key_columns);
        if index.get().is_none() {
            let (table, key_columns) = (Arc::clone(self), key_columns.clone());
            blocking(move || table.build_index(&key_columns)).await?;
        }
        match index.get() {
            Some(Ok(index)) => {
                let (positions, rows) = index.find(&request.keys)?;
                self.check_size(&rows, request)?;
                Ok(self.answer(positions, rows, &request.shape)?)
            }
            Some(Err(error)) => Err(error.clone().into()),
            None => Err(Error::internal("the index of a table in memory was not built").into()),
        }
    }

    /// The rows in their order.
    ///
    /// # Errors
    /// Internal for a request that the planner should not have made.
    pub(super) fn scan(self: &Arc<Self>, request: &ScanRequest) -> Result<RowBatches> {
        if let Some(filter) = request.filters.first() {
            return Err(Error::internal(format!("a table in memory cannot apply {filter}")));
        }
        let rows = self.rows.project(&request.columns)?;
        let wanted = request.limit.map_or(rows.num_rows(), |limit| limit.min(rows.num_rows()));
        let starts = (0..wanted).step_by(ROWS_PER_BATCH);
        let batches = starts.map(move |start| Ok(rows.slice(start, ROWS_PER_BATCH.min(wanted - start))));
        Ok(futures::stream::iter(batches).boxed())
    }

    /// A request that the planner should not have made is an error, not a panic.
    fn check(&self, request: &LookupRequest) -> Result<()> {
        let shape = &request.shape;
        let columns = self.rows.num_columns();
        if let Some(column) = shape.key_columns.iter().chain(&shape.columns).find(|&&column| column >= columns) {
            return Err(Error::internal(format!("column {column} was asked of a table with {columns} columns")));
        }
        if shape.key_columns.is_empty() || shape.key_columns.len() != request.keys.len() {
            return Err(Error::internal("a lookup needs an array of keys for each key column"));
        }
        match shape.filters.first() {
            Some(filter) => Err(Error::internal(format!("a table in memory cannot apply {filter}"))),
            None => Ok(()),
        }
    }

    /// The place for an index, which may not be there yet.
    fn index(&self, key_columns: &[usize]) -> IndexPlace {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(indexes.entry(key_columns.to_vec()).or_default())
    }

    /// Whether these rows may be copied.
    fn check_size(&self, rows: &[u32], request: &LookupRequest) -> Result<(), StoreError> {
        let mut room = AnswerRoom::new(request.max_answer_bytes);
        room.take(rows.len() as u64 * POSITION_BYTES)?;
        request.shape.columns.iter().try_for_each(|&column| room.take(rows_bytes(self.rows.column(column), rows)))
    }

    fn answer(&self, positions: Vec<u32>, rows: Vec<u32>, shape: &LookupShape) -> Result<Answer> {
        let rows = UInt32Array::from(rows);
        let columns = shape.columns.iter().map(|&column| copy_rows(self.rows.column(column), &rows));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(self.rows.schema().project(&shape.columns)?);
        let rows = batch_of(schema, columns, rows.len())?;
        Ok(Answer { rows, key_of_row: UInt32Array::from(positions) })
    }
}

/// Columns as a batch, which may have rows and no column.
pub(super) fn batch_of(schema: Arc<Schema>, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// The rows, with texts of their own: an answer that is kept must not keep the whole table's old texts.
fn copy_rows(column: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef> {
    Ok(compact(&take(column, rows, None)?))
}

/// The same values; texts hold no bytes of others.
pub(super) fn compact(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        _ => Arc::clone(column),
    }
}

/// Runs what computes or reads for long where no other task waits for the thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("filling a table in memory: {error}")))?
}
