use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray};
use datafusion::arrow::datatypes::{Int64Type, Schema};
use futures::StreamExt;
use futures::future::join_all;

use super::super::told::contract_store;
use super::super::{Conditions, LookupShape, contract};
use super::*;
use crate::pg_type::PgType;

/// What a load of the table meets.
enum Load {
    /// So many rows, each of whose `version` is that of the load.
    Rows(i64),
    /// The same after a while.
    After(Duration, i64),
    Fail(&'static str),
    Hang,
    Panic,
}

/// A table `(id, version, name)` that loads as it is told; afterwards, always three rows.
struct Loads {
    told: Mutex<VecDeque<Load>>,
    begun: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    equality: KeyEquality,
}

struct Running(Arc<Loads>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

#[derive(Clone)]
struct LoadedStore(Arc<Loads>);

impl LoadedStore {
    fn new(told: impl IntoIterator<Item = Load>) -> Self {
        Self::with_equality(told, KeyEquality::ByValue)
    }

    fn with_equality(told: impl IntoIterator<Item = Load>, equality: KeyEquality) -> Self {
        LoadedStore(Arc::new(Loads {
            told: Mutex::new(told.into_iter().collect()),
            begun: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            equality,
        }))
    }

    fn begun(&self) -> usize {
        self.0.begun.load(SeqCst)
    }
}

fn rows(count: i64, version: usize) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=count));
    let versions: ArrayRef = Arc::new(Int64Array::from(vec![version as i64; count as usize]));
    let names = (1..=count).map(|id| format!("the name of number {id}"));
    RecordBatch::try_new(schema(), vec![ids, versions, Arc::new(StringViewArray::from_iter_values(names))]).unwrap()
}

fn schema() -> SchemaRef {
    let fields =
        vec![PgType::Int8.field("id", false), PgType::Int8.field("version", false), PgType::Text.field("name", true)];
    Arc::new(Schema::new(fields))
}

#[async_trait]
impl Store for LoadedStore {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn can_filter(&self, _: &Expr) -> bool {
        true
    }

    fn check_keys(&self, _: &[usize]) -> Result<()> {
        Err(Error::internal("a table that is held whole asks for no key"))
    }

    fn key_equality(&self, _: usize) -> KeyEquality {
        self.0.equality.clone()
    }

    async fn lookup(&self, _: &LookupRequest) -> Result<Answer, StoreError> {
        panic!("a table that is held whole asks for no key")
    }

    fn can_scan(&self) -> bool {
        true
    }

    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError> {
        assert_eq!((request.columns.as_slice(), request.limit), ([0, 1, 2].as_slice(), None));
        let version = self.0.begun.fetch_add(1, SeqCst) + 1;
        self.0.most_running.fetch_max(self.0.running.fetch_add(1, SeqCst) + 1, SeqCst);
        let running = Running(Arc::clone(&self.0));
        let told = self.0.told.lock().unwrap().pop_front().unwrap_or(Load::Rows(3));
        let count = match told {
            Load::Rows(count) => count,
            Load::After(delay, count) => {
                tokio::time::sleep(delay).await;
                count
            }
            Load::Fail(message) => return Err(StoreError::Unavailable { message: message.to_string() }),
            Load::Hang => std::future::pending().await,
            Load::Panic => panic!("boom"),
        };
        let batches = rows(count, version);
        let halves = [
            batches.slice(0, count as usize / 2),
            batches.slice(count as usize / 2, count as usize - count as usize / 2),
        ];
        Ok(futures::stream::iter(halves.map(Ok))
            .inspect(move |_| {
                let _ = &running;
            })
            .boxed())
    }
}

impl fmt::Debug for LoadedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoadedStore")
    }
}

impl fmt::Display for LoadedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("loaded")
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn reloading() -> FullCache {
    FullCache { reload_every: Some(MINUTE), ..FullCache::default() }
}

fn full(store: &LoadedStore, policy: FullCache) -> FullStore {
    FullStore::new("customers".to_string(), Arc::new(store.clone()), policy)
}

fn request(key_column: usize, keys: Vec<i64>) -> LookupRequest {
    let shape = LookupShape { key_columns: vec![key_column], columns: vec![1], filters: Conditions::default() };
    LookupRequest { shape: Arc::new(shape), keys: vec![Arc::new(Int64Array::from(keys))], max_answer_bytes: u64::MAX }
}

/// Which load the row of key 1 comes from.
async fn version(store: &FullStore) -> Result<i64> {
    let answer = store.lookup(&request(0, vec![1])).await.map_err(|error| error.into_error("customers"))?;
    Ok(answer.rows.column(0).as_primitive::<Int64Type>().value(0))
}

/// Lets the store's task do what it can do now.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn contract_holds() {
    let store = FullStore::new("people".to_string(), contract_store(), FullCache::default());
    contract::check(&store, contract::RowOrder::AsLoaded).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn first_use_loads_once_for_all_that_wait() {
    let inner = LoadedStore::new([Load::After(MINUTE, 3)]);
    let store = full(&inner, FullCache::default());
    assert_eq!(store.state(), FullState::default());
    settle().await;
    assert_eq!(inner.begun(), 0, "nothing is loaded before it is needed");
    let versions = join_all((0..20).map(|_| version(&store))).await;
    assert!(versions.iter().all(|version| version == &Ok(1)));
    tokio::time::sleep(100 * MINUTE).await;
    assert_eq!(version(&store).await, Ok(1));
    assert_eq!(inner.begun(), 1, "without reload_every it is loaded once");
    let state = store.state();
    assert_eq!((state.rows, state.last_error), (3, None));
    assert!(state.loaded_at.is_some() && state.bytes > 3 * 50);
}

#[tokio::test(start_paused = true)]
async fn failed_first_load_fails_who_waits_and_is_tried_again_by_the_next() {
    let inner = LoadedStore::new([Load::Fail("refused"), Load::Fail("refused again")]);
    let store = full(&inner, reloading());
    let message = "store of lookup table \"customers\" is not available: refused";
    let versions = join_all((0..20).map(|_| version(&store))).await;
    assert!(versions.iter().all(|version| version.as_ref().unwrap_err().message() == message));
    assert_eq!(version(&store).await.unwrap_err().message(), message, "not asked for every row");
    assert_eq!(inner.begun(), 1);
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(inner.begun(), 1, "nobody needs it");
    assert_eq!(store.state().last_error.unwrap().1.message(), message);
    assert!(version(&store).await.unwrap_err().message().ends_with("refused again"));
    tokio::time::sleep(RETRY_AFTER).await;
    assert_eq!(version(&store).await, Ok(3));
    assert_eq!(store.state().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn load_ends_after_load_timeout_and_a_panic_ends_it_too() {
    let inner = LoadedStore::new([Load::Hang, Load::Panic]);
    let store = full(&inner, FullCache { load_timeout: MINUTE, ..FullCache::default() });
    let began = Instant::now();
    let error = version(&store).await.unwrap_err();
    assert_eq!(error.sqlstate(), "HV000");
    assert_eq!(error.message(), "lookup in \"customers\" failed: the table was not loaded within load_timeout (1m)");
    assert_eq!(began.elapsed(), MINUTE);
    tokio::time::sleep(RETRY_AFTER).await;
    assert_eq!(version(&store).await.unwrap_err().message(), "the store of lookup table \"customers\" panicked");
    tokio::time::sleep(RETRY_AFTER).await;
    assert_eq!(version(&store).await, Ok(3));
    assert_eq!(inner.0.most_running.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn lookup_that_gives_up_does_not_end_the_load() {
    let inner = LoadedStore::new([Load::After(MINUTE, 3)]);
    let store = full(&inner, FullCache::default());
    assert!(tokio::time::timeout(Duration::from_secs(5), version(&store)).await.is_err());
    tokio::time::sleep(MINUTE).await;
    assert_eq!((store.state().rows, inner.begun()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn old_rows_serve_while_new_ones_are_loaded_and_are_replaced_at_once() {
    let inner = LoadedStore::new([Load::Rows(3), Load::After(MINUTE / 2, 5)]);
    let store = full(&inner, reloading());
    assert_eq!(version(&store).await, Ok(1));
    let from_second = async |key| store.lookup(&request(1, vec![key])).await.unwrap().rows.num_rows();
    assert_eq!(from_second(1).await, 3);
    tokio::time::sleep(MINUTE + MINUTE / 4).await;
    assert_eq!((inner.begun(), version(&store).await), (2, Ok(1)));
    tokio::time::sleep(MINUTE / 2).await;
    assert_eq!(version(&store).await, Ok(2), "without a use in between");
    assert_eq!((store.state().rows, from_second(2).await), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn failed_reload_keeps_the_old_rows_and_says_so() {
    let inner = LoadedStore::new([Load::Rows(3), Load::Fail("gone"), Load::Rows(100)]);
    let store = full(&inner, FullCache { max_rows: NonZeroU64::new(50), ..reloading() });
    assert_eq!(version(&store).await, Ok(1));
    let loaded_at = store.state().loaded_at;
    for message in [
        "store of lookup table \"customers\" is not available: gone",
        "lookup table \"customers\" exceeds max_rows (50) of its full cache",
    ] {
        tokio::time::sleep(MINUTE).await;
        settle().await;
        assert_eq!(version(&store).await, Ok(1));
        let state = store.state();
        assert_eq!((state.loaded_at, state.rows), (loaded_at, 3));
        assert_eq!(state.last_error.unwrap().1.message(), message);
    }
    tokio::time::sleep(MINUTE).await;
    settle().await;
    assert_eq!(version(&store).await, Ok(4));
    assert_eq!(store.state().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_bounds_allow_is_refused_by_name() {
    let bound = NonZeroU64::new(1000);
    let cases = [
        (FullCache { max_rows: bound, ..reloading() }, 1001, "max_rows"),
        (FullCache { max_bytes: bound, ..reloading() }, 20, "max_bytes"),
    ];
    for (policy, count, name) in cases {
        let store = full(&LoadedStore::new([Load::Rows(count)]), policy);
        let error = version(&store).await.unwrap_err();
        assert_eq!(error.sqlstate(), "53200");
        assert_eq!(error.message(), format!("lookup table \"customers\" exceeds {name} (1000) of its full cache"));
    }
    // Rows alone have room, rows and an index have not.
    let rows_alone: u64 = rows(20, 1).columns().iter().map(column_bytes).sum();
    let store =
        full(&LoadedStore::new([Load::Rows(20)]), FullCache { max_bytes: NonZeroU64::new(rows_alone), ..reloading() });
    assert!(store.load().await.is_ok());
    assert_eq!(version(&store).await.unwrap_err().sqlstate(), "53200");
    assert_eq!(version(&store).await.unwrap_err().sqlstate(), "53200", "the second time as the first");
}

#[tokio::test(start_paused = true)]
async fn invalid_rows_serve_nobody_and_a_load_from_before_does_not_count() {
    let inner = LoadedStore::new([Load::Rows(3), Load::After(MINUTE, 3), Load::After(MINUTE, 3)]);
    let store = full(&inner, reloading());
    assert_eq!(version(&store).await, Ok(1));
    assert_eq!(store.invalidate(), 3);
    settle().await;
    assert_eq!((inner.begun(), store.state().rows), (1, 0), "loaded again at next use");
    let (version, ()) = tokio::join!(version(&store), async {
        tokio::time::sleep(MINUTE / 2).await;
        assert_eq!(store.invalidate(), 0);
    });
    assert_eq!(version, Ok(3), "the second load began before");
    assert_eq!(inner.0.most_running.load(SeqCst), 1);
    // One task goes on, not three.
    tokio::time::sleep(10 * MINUTE + MINUTE / 2).await;
    assert_eq!(inner.begun(), 13);
}

#[tokio::test(start_paused = true)]
async fn dropped_store_loads_no_more() {
    for told in [Load::Rows(3), Load::Hang] {
        let inner = LoadedStore::new([told]);
        let store = full(&inner, reloading());
        let _ = tokio::time::timeout(Duration::from_secs(1), version(&store)).await;
        drop(store);
        tokio::time::sleep(10 * MINUTE).await;
        assert_eq!((inner.begun(), inner.0.running.load(SeqCst)), (1, 0));
        assert_eq!(Arc::strong_count(&inner.0), 1, "nobody holds it any more");
    }
}

#[tokio::test]
async fn scan_reads_memory_and_keys_compare_as_values_or_not_at_all() {
    let inner = LoadedStore::with_equality([Load::Rows(5)], KeyEquality::OfStore { reason: "capitals".to_string() });
    let store = full(&inner, FullCache::default());
    assert!(store.can_scan());
    let request = ScanRequest { columns: vec![0], filters: Conditions::default(), limit: Some(4) };
    let batches: Vec<RecordBatch> = store.scan(&request).await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    let error = store.key_equality(0).check_key("name").unwrap_err();
    assert_eq!(error.sqlstate(), "0A000");
    assert_eq!(
        error.message(),
        "column \"name\" cannot be the key of a lookup: with cache mode \"full\" it would be compared here, but capitals"
    );
    let plain = full(&LoadedStore::new([]), FullCache::default());
    assert_eq!(plain.key_equality(2), KeyEquality::ByValue);
}
