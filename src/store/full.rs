//! A store held whole in memory: loaded at first use, loaded again from time to time while the old rows serve.
//!
//! One load at a time. The first one is waited for, and when it fails, so do the lookups that waited; the next lookup
//! after [`RETRY_AFTER`] begins another. From then on a task of the store's own loads every `reload_every`, used or not, so
//! that no row is older than that and the time of a load; a failure leaves the old rows where they are.

use std::fmt;
use std::num::NonZeroU64;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use futures::{FutureExt, TryStreamExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::memory_index::key_equality;
use super::memory_table::{MemoryTable, blocking, compact};
use super::size::column_bytes;
use super::{Answer, Changes, Conditions, KeyEquality, LookupRequest, RowBatches, ScanRequest, Store, StoreError};
use crate::error::{Code, Error, Result};
use crate::quantity::show_duration;

/// How often a load begins anew because what it read was changed meanwhile.
const LOAD_ATTEMPTS: usize = 3;
/// How long a failed first load answers for those that come after it: a store that fails is not asked for every row.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How a table is held whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FullCache {
    /// `None`: loaded once.
    pub reload_every: Option<Duration>,
    pub load_timeout: Duration,
    pub max_rows: Option<NonZeroU64>,
    /// Bytes of rows and indexes. A reload holds the old ones beside the new ones.
    pub max_bytes: Option<NonZeroU64>,
}

impl Default for FullCache {
    fn default() -> Self {
        FullCache { reload_every: None, load_timeout: Duration::from_secs(300), max_rows: None, max_bytes: None }
    }
}

/// What is held of a table now, and how its last load went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FullState {
    /// When the rows that serve now were loaded; `None`: none are.
    pub loaded_at: Option<DateTime<Utc>>,
    /// How many there are.
    pub rows: u64,
    /// What they and their indexes take.
    pub bytes: u64,
    /// Why the last load failed, and when; `None` when it did not.
    pub last_error: Option<(DateTime<Utc>, Error)>,
}

/// The rows of another store, in memory.
pub struct FullStore {
    whole: Arc<Whole>,
    /// The task that loads and reloads; it ends with the store.
    loader: Mutex<JoinSet<()>>,
}

/// What the loading task needs, apart from the store, so that it does not keep it.
struct Whole {
    /// The lookup table's name.
    name: String,
    inner: Arc<dyn Store>,
    policy: FullCache,
    state: Mutex<State>,
    /// A load has ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    rows: Option<Arc<MemoryTable>>,
    /// What the store called the contents that `rows` are.
    version: Option<u64>,
    loaded_at: Option<DateTime<Utc>>,
    /// Whether a load is under way that lookups wait for.
    is_loading: bool,
    /// How often the rows were declared invalid: a load that began before counts no more.
    generation: u64,
    /// When the last load failed without rows to go on with.
    failed: Option<(Instant, StoreError)>,
    last_error: Option<(DateTime<Utc>, Error)>,
}

/// What a load has brought.
struct Loaded {
    rows: Arc<MemoryTable>,
    version: Option<u64>,
}

impl FullStore {
    /// `name` is the lookup table's. Nothing is loaded before it is needed.
    pub fn new(name: String, inner: Arc<dyn Store>, policy: FullCache) -> Self {
        let whole = Whole { name, inner, policy, state: Mutex::default(), ended: Notify::new() };
        FullStore { whole: Arc::new(whole), loader: Mutex::default() }
    }

    pub fn state(&self) -> FullState {
        let state = self.whole.lock();
        FullState {
            loaded_at: state.loaded_at,
            rows: state.rows.as_ref().map_or(0, |rows| rows.rows() as u64),
            bytes: state.rows.as_ref().map_or(0, |rows| rows.bytes()),
            last_error: state.last_error.clone(),
        }
    }

    /// Forgets the rows, and those of a load that is under way: the next use loads them again. How many there were.
    pub fn invalidate(&self) -> u64 {
        let mut state = self.whole.lock();
        let rows = state.rows.as_ref().map_or(0, |rows| rows.rows() as u64);
        state.generation += 1;
        state.rows = None;
        state.version = None;
        state.loaded_at = None;
        state.failed = None;
        rows
    }

    /// Waits until there are rows, or why there are none. Begins to load if nobody does.
    ///
    /// # Errors
    /// Those of the store; HV000 after `load_timeout`; 53200 for more than the bounds allow.
    pub async fn load(&self) -> Result<(), StoreError> {
        self.rows().await.map(|_| ())
    }

    async fn rows(&self) -> Result<Arc<MemoryTable>, StoreError> {
        loop {
            let ended = self.whole.ended.notified();
            tokio::pin!(ended);
            // From here on: a load that ends between the question and the wait is not missed.
            ended.as_mut().enable();
            if let Some(known) = self.known_or_begin() {
                return known;
            }
            ended.await;
        }
    }

    /// The rows or the failure, if there is one; else sees to it that a load is under way.
    fn known_or_begin(&self) -> Option<Result<Arc<MemoryTable>, StoreError>> {
        let mut state = self.whole.lock();
        if let Some(rows) = &state.rows {
            return Some(Ok(Arc::clone(rows)));
        }
        match &state.failed {
            Some((at, error)) if at.elapsed() < RETRY_AFTER => return Some(Err(error.clone())),
            _ => {}
        }
        if !state.is_loading {
            state.is_loading = true;
            let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
            // Whatever ran before belongs to rows that were declared invalid.
            *loader = JoinSet::new();
            loader.spawn(keep_loaded(Arc::clone(&self.whole), state.generation));
        }
        None
    }
}

/// Loads, and goes on loading every `reload_every` until the rows are declared invalid.
async fn keep_loaded(whole: Arc<Whole>, generation: u64) {
    loop {
        let (key_sets, known) = {
            let state = whole.lock();
            (state.rows.as_ref().map(|rows| rows.key_sets()).unwrap_or_default(), state.version)
        };
        let started = Instant::now();
        let outcome = whole.load(&key_sets, known).await;
        let goes_on = whole.take_in(outcome, generation, started.elapsed());
        whole.ended.notify_waiters();
        let Some(reload_every) = whole.policy.reload_every.filter(|_| goes_on) else { return };
        tokio::time::sleep(reload_every).await;
        if whole.lock().generation != generation {
            return;
        }
    }
}

impl Whole {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows, with an index for each of `key_sets`; `None` where they are those that `known` stands for.
    async fn load(&self, key_sets: &[Vec<usize>], known: Option<u64>) -> Result<Option<Loaded>, StoreError> {
        let loading = AssertUnwindSafe(self.read_if_changed(key_sets, known)).catch_unwind();
        match tokio::time::timeout(self.policy.load_timeout, loading).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Error::internal(format!("the store of lookup table \"{}\" panicked", self.name)).into()),
            Err(_) => {
                let message = format!(
                    "the table was not loaded within load_timeout ({})",
                    show_duration(self.policy.load_timeout)
                );
                Err(StoreError::Failed { message, sqlstate: None })
            }
        }
    }

    async fn read_if_changed(&self, key_sets: &[Vec<usize>], known: Option<u64>) -> Result<Option<Loaded>, StoreError> {
        let mut attempts = 1;
        loop {
            // Before reading: what changes meanwhile is read again.
            let version = self.inner.version().await?;
            if version.is_some() && version == known {
                return Ok(None);
            }
            match self.read(key_sets.to_vec()).await {
                Ok(rows) => return Ok(Some(Loaded { rows, version })),
                Err(error) if version.is_some() && error.is_transient() && attempts < LOAD_ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&self, key_sets: Vec<Vec<usize>>) -> Result<Arc<MemoryTable>, StoreError> {
        let schema = self.inner.schema();
        let columns = (0..schema.fields().len()).collect();
        let mut batches =
            self.inner.scan(&ScanRequest { columns, filters: Conditions::default(), limit: None }).await?;
        let (mut read, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = batches.try_next().await? {
            let columns = batch.columns().iter().map(compact).collect();
            let batch = RecordBatch::try_new(batch.schema(), columns).map_err(Error::from)?;
            rows += batch.num_rows() as u64;
            bytes += batch.columns().iter().map(column_bytes).sum::<u64>();
            self.check_bounds(rows, bytes)?;
            read.push(batch);
        }
        let build = move || {
            let table = MemoryTable::try_new(&schema, &read)?;
            key_sets.iter().try_for_each(|key_columns| table.build_index(key_columns))?;
            Ok(table)
        };
        let table = blocking(build).await?;
        self.check_bounds(rows, table.bytes())?;
        Ok(Arc::new(table))
    }

    fn check_bounds(&self, rows: u64, bytes: u64) -> Result<()> {
        let bounds = [("max_rows", self.policy.max_rows, rows), ("max_bytes", self.policy.max_bytes, bytes)];
        for (name, bound, found) in bounds {
            if let Some(bound) = bound
                && found > bound.get()
            {
                let message = format!("lookup table \"{}\" exceeds {name} ({bound}) of its full cache", self.name);
                return Err(Error::new(Code::OutOfMemory, message)
                    .with_hint(format!("Raise {name}, expose fewer columns, or let the cache be partial.")));
            }
        }
        Ok(())
    }

    /// Whether there are rows to be kept up to date.
    fn take_in(&self, outcome: Result<Option<Loaded>, StoreError>, generation: u64, took: Duration) -> bool {
        let name = &self.name;
        let mut state = self.lock();
        state.is_loading = false;
        if state.generation != generation {
            return false;
        }
        match outcome {
            Ok(None) => {
                state.last_error = None;
                true
            }
            Ok(Some(Loaded { rows, version })) => {
                tracing::info!("lookup table \"{name}\" was loaded in {took:.1?}: {} rows", rows.rows());
                let (rows, loaded_at) = (Some(rows), Some(Utc::now()));
                *state = State { rows, version, loaded_at, generation, ..State::default() };
                true
            }
            Err(error) => {
                let shown = error.clone().into_error(name);
                let has_rows = state.rows.is_some();
                let consequence = if has_rows { "the old rows stay" } else { "it has no rows" };
                tracing::error!("lookup table \"{name}\" could not be loaded and {consequence}: {shown}");
                state.last_error = Some((Utc::now(), shown));
                if !has_rows {
                    state.failed = Some((Instant::now(), error));
                }
                has_rows
            }
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for FullStore {
    fn schema(&self) -> SchemaRef {
        self.whole.inner.schema()
    }

    fn primary_key(&self) -> Vec<usize> {
        self.whole.inner.primary_key()
    }

    /// None is needed: rows are here already.
    async fn indexed_columns(&self) -> Result<Option<Vec<usize>>, StoreError> {
        Ok(None)
    }

    async fn version(&self) -> Result<Option<u64>, StoreError> {
        self.whole.inner.version().await
    }

    fn changes(&self) -> Option<Changes> {
        self.whole.inner.changes()
    }

    /// Rows are here already: conditions are applied where those of other tables are.
    fn can_filter(&self, _: &Expr) -> bool {
        false
    }

    /// Rows are found in memory by any of their columns.
    fn check_keys(&self, _: &[usize]) -> Result<()> {
        Ok(())
    }

    /// Here keys are compared as values are; where the store would do otherwise, the answer would be another one.
    fn key_equality(&self, column: usize) -> KeyEquality {
        match self.whole.inner.key_equality(column) {
            KeyEquality::ByValue => match self.schema().fields().get(column) {
                Some(field) => key_equality(field),
                None => KeyEquality::unknown_column(column),
            },
            KeyEquality::OfStore { reason } => KeyEquality::None {
                reason: format!("with cache mode \"full\" it would be compared here, but {reason}"),
            },
            KeyEquality::None { reason } => KeyEquality::None { reason },
        }
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let rows = self.rows().await?;
        let answer = rows.lookup(request).await?;
        // Its index may be one too many.
        self.whole.check_bounds(rows.rows() as u64, rows.bytes())?;
        Ok(answer)
    }

    fn can_scan(&self) -> bool {
        true
    }

    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError> {
        Ok(self.rows().await?.scan(request)?)
    }
}

impl fmt::Display for FullStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in memory", self.whole.inner)
    }
}

impl fmt::Debug for FullStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FullStore").field("inner", &self.whole.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "full_tests.rs"]
mod tests;
