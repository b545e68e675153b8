//! A file as a store: loaded whole, found by hash, loaded again when it changes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::memory_index::key_equality;
use super::memory_table::{MemoryTable, blocking};
use super::{Answer, KeyEquality, LookupRequest, RowBatches, ScanRequest, Store, StoreError};
use crate::error::{Error, Result};

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
    contents: std::sync::RwLock<Arc<MemoryTable>>,
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

impl FileStore {
    /// Reads the file: blocks. `name` is for people; `path` is watched for changes.
    ///
    /// # Errors
    /// Those of `read`; 54000 for more rows than 2³² − 1.
    pub fn try_new(name: String, path: Option<PathBuf>, schema: SchemaRef, read: ReadRows) -> Result<FileStore> {
        // Before reading: what changes meanwhile is read again.
        let seen = path.as_deref().and_then(stamp);
        let contents = std::sync::RwLock::new(Arc::new(MemoryTable::try_new(&schema, &read()?)?));
        let watch = Arc::new(AsyncMutex::new(Watch { checked: Instant::now(), seen }));
        let file = WatchedFile { name, path, schema: Arc::clone(&schema), read, contents, watch };
        Ok(FileStore { schema, file: Arc::new(file) })
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

    fn key_equality(&self, column: usize) -> KeyEquality {
        self.schema
            .fields()
            .get(column)
            .map_or_else(|| KeyEquality::unknown_column(column), |field| key_equality(field))
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        self.file.reload_if_changed().await?;
        self.file.contents()?.lookup(request).await
    }

    fn can_scan(&self) -> bool {
        true
    }

    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError> {
        self.file.reload_if_changed().await?;
        Ok(self.file.contents()?.scan(request)?)
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
    fn contents(&self) -> Result<Arc<MemoryTable>> {
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
        let fresh = Arc::new(MemoryTable::try_new(&self.schema, &(self.read)()?)?);
        let rows = fresh.rows();
        *self.contents.write().map_err(|_| Error::internal("a reload of a file panicked"))? = fresh;
        Ok(rows)
    }
}

/// `None` for a file that is not there.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len() })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
