//! A file as a store: loaded whole, found by hash, loaded again when it changes.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::logical_expr::Expr;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::file_index::{FileIndex, check_key_field};
use super::size::{AnswerRoom, POSITION_BYTES, rows_bytes};
use super::{Answer, LookupRequest, LookupShape, Store, StoreError};
use crate::error::{Code, Error, Result};

/// How often a lookup looks whether the file has changed. A change must be seen within five seconds.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Reads all rows; called again, off the async threads, when the file has changed.
pub type ReadRows = Arc<dyn Fn() -> Result<Vec<RecordBatch>> + Send + Sync>;

/// A table in memory that follows a file.
pub struct FileStore {
    schema: SchemaRef,
    file: Arc<WatchedFile>,
}

/// What reloading needs, apart from the store, so that a reload outlives the lookup that found it due.
struct WatchedFile {
    /// For people: the path, or what is embedded.
    name: String,
    /// The file to watch; `None` for what cannot change.
    path: Option<PathBuf>,
    schema: SchemaRef,
    read: ReadRows,
    contents: std::sync::RwLock<Arc<Contents>>,
    watch: Arc<AsyncMutex<Watch>>,
}

/// What was last seen of the file. Whoever holds the lock checks and reloads; others go on with what there is.
struct Watch {
    checked: Instant,
    seen: Option<Stamp>,
}

/// Changes when the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// Built by whoever needs it first; those who need it meanwhile wait.
type IndexPlace = Arc<OnceLock<Result<FileIndex>>>;

/// The file as of one moment, with an index for each set of key columns that was used.
struct Contents {
    rows: RecordBatch,
    indexes: std::sync::Mutex<HashMap<Vec<usize>, IndexPlace>>,
}

impl FileStore {
    /// Reads the file: blocks. `name` is for people; `path` is watched for changes.
    ///
    /// # Errors
    /// Those of `read`; 54000 for more rows than 2³² − 1.
    pub fn try_new(name: String, path: Option<PathBuf>, schema: SchemaRef, read: ReadRows) -> Result<FileStore> {
        // Before reading: what changes meanwhile is read again.
        let seen = path.as_deref().and_then(stamp);
        let contents = std::sync::RwLock::new(Arc::new(Contents::try_new(&schema, &read()?)?));
        let watch = Arc::new(AsyncMutex::new(Watch { checked: Instant::now(), seen }));
        let file = WatchedFile { name, path, schema: Arc::clone(&schema), read, contents, watch };
        Ok(FileStore { schema, file: Arc::new(file) })
    }

    /// A request that the planner should not have made is an error, not a panic.
    fn check(&self, request: &LookupRequest) -> Result<()> {
        let shape = &request.shape;
        let columns = self.schema.fields().len();
        if let Some(column) = shape.key_columns.iter().chain(&shape.columns).find(|&&column| column >= columns) {
            return Err(Error::internal(format!("column {column} was asked of a file with {columns} columns")));
        }
        if shape.key_columns.is_empty() || shape.key_columns.len() != request.keys.len() {
            return Err(Error::internal("a lookup needs an array of keys for each key column"));
        }
        match shape.filters.first() {
            Some(filter) => Err(Error::internal(format!("a file cannot apply {filter}"))),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Store for FileStore {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Rows are here already: conditions are applied where those of other tables are.
    fn can_filter(&self, _: &Expr) -> bool {
        false
    }

    fn check_keys(&self, key_columns: &[usize]) -> Result<()> {
        key_columns.iter().filter_map(|&column| self.schema.fields().get(column)).try_for_each(|f| check_key_field(f))
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        self.check(request)?;
        self.file.reload_if_changed().await?;
        let contents = self.file.contents()?;
        let index = contents.index(&request.shape.key_columns)?;
        if index.get().is_none() {
            let (contents, index) = (Arc::clone(&contents), Arc::clone(&index));
            let key_columns = request.shape.key_columns.clone();
            blocking(move || {
                index.get_or_init(|| FileIndex::try_new(&contents.rows, &key_columns));
                Ok(())
            })
            .await?;
        }
        match index.get() {
            Some(Ok(index)) => {
                let (positions, rows) = index.find(&request.keys)?;
                contents.check_size(&rows, request)?;
                Ok(contents.answer(positions, rows, &request.shape)?)
            }
            Some(Err(error)) => Err(error.clone().into()),
            None => Err(Error::internal("the index of a file was not built").into()),
        }
    }
}

impl fmt::Display for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.file.name)
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("name", &self.file.name).finish_non_exhaustive()
    }
}

impl WatchedFile {
    fn contents(&self) -> Result<Arc<Contents>> {
        let contents = self.contents.read().map_err(|_| Error::internal("a reload of a file panicked"))?;
        Ok(Arc::clone(&contents))
    }

    /// Returns when the file's newest contents are there, or when somebody else is already reading them.
    async fn reload_if_changed(self: &Arc<Self>) -> Result<()> {
        if self.path.is_none() {
            return Ok(());
        }
        let Ok(mut watch) = Arc::clone(&self.watch).try_lock_owned() else { return Ok(()) };
        if watch.checked.elapsed() < CHECK_EVERY {
            return Ok(());
        }
        watch.checked = Instant::now();
        let file = Arc::clone(self);
        blocking(move || {
            let now = file.path.as_deref().and_then(stamp);
            if now == watch.seen {
                return Ok(());
            }
            // Also if it cannot be read: it is said once, and tried again when the file changes again.
            watch.seen = now;
            match file.reload() {
                Ok(rows) => tracing::info!("file \"{}\" has changed and was read again: {rows} rows", file.name),
                Err(error) => tracing::error!("file \"{}\" has changed and the old rows stay: {error}", file.name),
            }
            Ok(())
        })
        .await
    }

    /// The number of rows.
    fn reload(&self) -> Result<usize> {
        let fresh = Arc::new(Contents::try_new(&self.schema, &(self.read)()?)?);
        let rows = fresh.rows.num_rows();
        *self.contents.write().map_err(|_| Error::internal("a reload of a file panicked"))? = fresh;
        Ok(rows)
    }
}

impl Contents {
    fn try_new(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Contents> {
        let rows = concat_batches(schema, batches)?;
        if u32::try_from(rows.num_rows()).is_err() {
            return Err(Error::new(
                Code::ProgramLimitExceeded,
                "a file of more than 4294967295 rows cannot be looked up in",
            ));
        }
        Ok(Contents { rows, indexes: std::sync::Mutex::default() })
    }

    /// The place for an index, which may not be there yet.
    fn index(&self, key_columns: &[usize]) -> Result<IndexPlace> {
        let mut indexes = self.indexes.lock().map_err(|_| Error::internal("the list of indexes is poisoned"))?;
        Ok(Arc::clone(indexes.entry(key_columns.to_vec()).or_default()))
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
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(Answer { rows, key_of_row: UInt32Array::from(positions) })
    }
}

/// The rows, with texts of their own: an answer that is kept must not keep the whole file's old texts.
fn copy_rows(column: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef> {
    let taken = take(column, rows, None)?;
    Ok(match taken.data_type() {
        DataType::Utf8View => Arc::new(taken.as_string_view().gc()),
        _ => taken,
    })
}

/// `None` for a file that is not there.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len() })
}

/// Runs what computes or reads for long where no other task waits for the thread.
async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("reading a file: {error}")))?
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
