//! Connections to one SQLite file: opened for reading, used off the async threads, stopped when nobody waits.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags};
use tokio::sync::Semaphore;

use super::StoreError;
use super::sqlite::SqliteConfig;
use crate::error::{Code, Error, Result};

/// How long a request waits for somebody who writes; then it is tried again, as the retry policy has it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections that all lookup tables of a `[connection.X]` share. Nothing is opened before it is asked.
pub struct SqliteConnection {
    path: PathBuf,
    slots: Arc<Semaphore>,
    idle: Arc<Mutex<Idle>>,
}

/// Open connections that nobody uses, all to the same file.
#[derive(Default)]
struct Idle {
    file: Option<FileId>,
    connections: Vec<Connection>,
}

/// Changes when another file is put in the place of one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl SqliteConnection {
    /// `name` is the catalog's.
    ///
    /// # Errors
    /// 22023 if `max_connections` is 0.
    pub fn try_new(name: &str, config: &SqliteConfig) -> Result<Arc<Self>> {
        if config.max_connections == 0 {
            let message = format!("connection \"{name}\": max_connections must be at least 1");
            return Err(Error::new(Code::InvalidParameterValue, message));
        }
        let slots = Arc::new(Semaphore::new(config.max_connections));
        Ok(Arc::new(SqliteConnection { path: config.path.clone(), slots, idle: Arc::default() }))
    }

    /// Runs `work` on a thread that may wait, with a connection that nobody else has. Dropping the future stops the statement.
    ///
    /// # Errors
    /// Those of `work`; unavailable if the file cannot be opened.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| Error::internal("the connections to SQLite were closed"))?;
        let (path, idle) = (self.path.clone(), Arc::clone(&self.idle));
        let stop = Arc::new(Stop::default());
        let stopped = StopOnDrop(Arc::clone(&stop));
        let running = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let (mut connection, file) = take(&path, &idle)?;
            if !stop.begin(connection.get_interrupt_handle()) {
                return Err(Error::internal("nobody waits for this request").into());
            }
            let outcome = work(&mut connection);
            stop.end();
            // After an error it may be in any state, and errors are rare.
            if outcome.is_ok() {
                give_back(&idle, connection, file);
            }
            outcome
        });
        let outcome = running.await.map_err(|error| Error::internal(format!("reading SQLite: {error}")))?;
        drop(stopped);
        outcome
    }
}

/// What stops a statement: its connection's handle, while it runs.
#[derive(Default)]
struct Stop(Mutex<Stopping>);

#[derive(Default)]
enum Stopping {
    #[default]
    NotBegun,
    Running(InterruptHandle),
    Over,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, Stopping> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if nobody waits any more.
    fn begin(&self, handle: InterruptHandle) -> bool {
        let mut state = self.lock();
        let waits = matches!(*state, Stopping::NotBegun);
        if waits {
            *state = Stopping::Running(handle);
        }
        waits
    }

    fn end(&self) {
        *self.lock() = Stopping::Over;
    }
}

struct StopOnDrop(Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Stopping::Running(handle) = &*state {
            handle.interrupt();
        }
        *state = Stopping::Over;
    }
}

/// An idle connection to the file that stands there now, or a new one.
fn take(path: &Path, idle: &Mutex<Idle>) -> Result<(Connection, Option<FileId>), StoreError> {
    let file = file_id(path).map_err(|error| unavailable(path, &error.to_string()))?;
    let mut kept = idle.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.file != file {
        *kept = Idle { file, connections: Vec::new() };
    }
    if let Some(connection) = kept.connections.pop() {
        return Ok((connection, file));
    }
    drop(kept);
    let opened = open(path).map_err(|error| match failure(&error) {
        StoreError::Unavailable { message } => unavailable(path, &message),
        other => other,
    });
    Ok((opened?, file))
}

fn give_back(idle: &Mutex<Idle>, connection: Connection, file: Option<FileId>) {
    let mut kept = idle.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.file == file {
        kept.connections.push(connection);
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A file from elsewhere must not run functions of its choice in views. Keys stay in memory.
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY")?;
    Ok(connection)
}

#[cfg(unix)]
fn file_id(path: &Path) -> std::io::Result<Option<FileId>> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path)?;
    Ok(Some(FileId { device: metadata.dev(), inode: metadata.ino() }))
}

#[cfg(not(unix))]
fn file_id(path: &Path) -> std::io::Result<Option<FileId>> {
    std::fs::metadata(path).map(|_| None)
}

fn unavailable(path: &Path, message: &str) -> StoreError {
    StoreError::Unavailable { message: format!("{}: {message}", path.display()) }
}

/// Why SQLite did not answer.
pub(super) fn failure(error: &rusqlite::Error) -> StoreError {
    let message = error.to_string();
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure
            | ErrorCode::SchemaChanged,
        ) => StoreError::Unavailable { message },
        _ => StoreError::Failed { message, sqlstate: None },
    }
}

impl fmt::Display for SqliteConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl fmt::Debug for SqliteConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteConnection").field("path", &self.path).finish_non_exhaustive()
    }
}
