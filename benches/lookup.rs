//! How many rows a second does the lookup stage alone carry: from the cache, and past it from a store that answers at once?
//!
//! One thread, batches of 8192 rows `(n bigint, k)`, three payload columns of the table, nothing behind the stage, everything
//! on: both bounds, all lifetimes. Each line is one number: `name  value unit`, the best of five runs.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;
use lookaside::error::{Error, Result};
use lookaside::lookup::policy::{CachePolicy, LookupPolicy, Ordering, PartialCache};
use lookaside::lookup::{JoinKind, LookupExec, LookupJoin, LookupTable};
use lookaside::store::{
    Answer, Conditions, KeyEquality, LookupRequest, LookupShape, RowBatches, ScanRequest, Store, StoreError,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH_ROWS: usize = 8192;
const RUNS: usize = 5;
/// How often a run repeats its batches: each run is a query of its own, which has yet to see what comes again.
const REPEATS: usize = 10;

/// Which keys come.
#[derive(Clone, Copy)]
enum Keys {
    Uniform(i64),
    /// Nine of ten rows have one of `hot` keys, the others any of `all`.
    TenthCold {
        hot: i64,
        all: i64,
    },
    /// The k-th key comes 1/k as often as the first.
    Zipf(i64),
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(error.to_string()))?;
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let hour = Some(Duration::from_secs(3600));
    let cached = CachePolicy::Partial(PartialCache {
        max_rows: NonZeroU64::new(2_000_000),
        max_bytes: NonZeroU64::new(4 << 30),
        expire_after_write: hour,
        expire_after_access: hour,
        refresh_after: hour,
        serve_stale_for: Duration::from_secs(3600),
        told_by: None,
        ..PartialCache::default()
    });
    let cases = [
        ("cached_hot_10k_bigint", DataType::Int64, Keys::Uniform(10_000), 200),
        ("cached_hot_10k_text16", DataType::Utf8View, Keys::Uniform(10_000), 200),
        ("cached_tenth_cold_1m_bigint", DataType::Int64, Keys::TenthCold { hot: 10_000, all: 1_000_000 }, 200),
        ("cached_zipf_1m_bigint", DataType::Int64, Keys::Zipf(1_000_000), 200),
        ("cached_uniform_1m_bigint", DataType::Int64, Keys::Uniform(1_000_000), 200),
    ];
    for (name, key, keys, batches) in cases {
        if wanted(name) {
            let rate = runtime.block_on(measure(ordered(&cached), &key, keys, batches))?;
            println!("{name}  {rate:.2} Mrows/s");
        }
    }
    for ordering in Ordering::ALL {
        let name = format!("uncached_1m_keys_{ordering}");
        if wanted(&name) {
            let policy = LookupPolicy { ordering, ..ordered(&CachePolicy::None) };
            let rate = runtime.block_on(measure(policy, &DataType::Int64, Keys::Uniform(1_000_000), 50))?;
            println!("{name}  {rate:.2} Mrows/s");
        }
    }
    if wanted("cache_memory") {
        runtime.block_on(measure_memory())?;
    }
    Ok(())
}

fn ordered(cache: &CachePolicy) -> LookupPolicy {
    LookupPolicy { cache: cache.clone(), ..LookupPolicy::default() }
}

/// Millions of rows a second, the best of [`RUNS`], over `batches` batches, [`REPEATS`] times.
async fn measure(policy: LookupPolicy, key: &DataType, keys: Keys, batches: usize) -> Result<f64> {
    let store = Arc::new(Instantly { schema: table_schema(key) });
    let table = LookupTable::new("bench".to_string(), store, policy.clone());
    let input = Arc::new(Batches::new(key, keys, batches)?);
    let mut best: f64 = 0.0;
    // The first run fills the cache and does not count.
    for run in 0..=RUNS {
        let rate = run_once(&table, &policy, &input).await?;
        if run > 0 {
            best = best.max(rate);
        }
    }
    Ok(best)
}

async fn run_once(table: &Arc<LookupTable>, policy: &LookupPolicy, input: &Arc<Batches>) -> Result<f64> {
    let partitions = vec![Arc::clone(input) as Arc<dyn PartitionStream>];
    let plan = StreamingTableExec::try_new(Arc::clone(&input.schema), partitions, None, [], false, None)?;
    let stage = LookupExec::try_new(Arc::new(plan), Arc::clone(table), join(policy.clone()))?;
    let mut stream = stage.execute(0, Arc::default())?;
    let start = Instant::now();
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch?.num_rows();
    }
    let expected = input.batches.len() * input.repeats * BATCH_ROWS;
    if rows != expected {
        return Err(Error::internal(format!("{rows} rows left the stage, {expected} came in")));
    }
    Ok(rows as f64 / start.elapsed().as_secs_f64() / 1e6)
}

/// Resident memory that 10 million distinct keys leave behind in a cache of 64 MiB, against what it says it holds.
async fn measure_memory() -> Result<()> {
    const BOUND: u64 = 64 << 20;
    let cache = PartialCache { max_rows: None, max_bytes: NonZeroU64::new(BOUND), ..PartialCache::default() };
    let policy = ordered(&CachePolicy::Partial(cache));
    let store = Arc::new(Instantly { schema: table_schema(&DataType::Int64) });
    let table = LookupTable::new("bench".to_string(), store, policy.clone());
    let few = Arc::new(Batches::distinct(0, 10)?);
    // What the stage needs without a cache is not the cache's.
    let uncached = ordered(&CachePolicy::None);
    run_once(&table, &uncached, &few).await?;
    let before = resident_bytes()?;
    let mut most = 0;
    for part in 0..122 {
        run_once(&table, &policy, &Arc::new(Batches::distinct(part * 10, 10)?)).await?;
        most = most.max(resident_bytes()?);
    }
    let counters = table.counters();
    let percent = |bytes: u64| bytes as f64 / BOUND as f64 * 100.0;
    println!("cache_memory_keys  {} rows", counters.cached_rows);
    println!("cache_memory_counted_of_bound  {:.0} %", percent(counters.cached_bytes));
    println!("cache_memory_resident_of_bound  {:.0} %", percent(most.saturating_sub(before)));
    Ok(())
}

/// The process's resident memory; Linux only.
fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/statm").map_err(|error| Error::internal(error.to_string()))?;
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| Error::internal("no resident memory is known"))
}

fn join(policy: LookupPolicy) -> LookupJoin {
    LookupJoin {
        kind: JoinKind::Left,
        keys: vec![Arc::new(Column::new("k", 1))],
        shape: Arc::new(LookupShape { key_columns: vec![0], columns: vec![1, 2, 3], filters: Conditions::default() }),
        gate: None,
        residual: None,
        projection: vec![0, 1, 2, 3, 4],
        policy,
    }
}

fn input_schema(key: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("k", key.clone(), true)]))
}

fn table_schema(key: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", key.clone(), false),
        Field::new("name", DataType::Utf8View, true),
        Field::new("tier", DataType::Int64, true),
        Field::new("credit", DataType::Int64, true),
    ]))
}

/// A key as a column of `key`: a text has 16 characters.
fn key_column(key: &DataType, numbers: Vec<i64>) -> ArrayRef {
    match key {
        DataType::Int64 => Arc::new(Int64Array::from(numbers)),
        _ => Arc::new(StringViewArray::from_iter_values(numbers.iter().map(|number| format!("key-{number:012}")))),
    }
}

/// The same batches for every run.
#[derive(Debug)]
struct Batches {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    repeats: usize,
}

impl Batches {
    fn new(key: &DataType, keys: Keys, batches: usize) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(7);
        let numbers = |_: usize| (0..BATCH_ROWS).map(|_| keys.draw(&mut random)).collect();
        Self::of((0..batches).map(numbers).collect(), key, REPEATS)
    }

    /// Batches `from..from + count` of keys of which each comes once.
    fn distinct(from: usize, count: usize) -> Result<Self> {
        let numbers = |batch: usize| (batch * BATCH_ROWS..(batch + 1) * BATCH_ROWS).map(|key| key as i64).collect();
        Self::of((from..from + count).map(numbers).collect(), &DataType::Int64, 1)
    }

    fn of(numbers: Vec<Vec<i64>>, key: &DataType, repeats: usize) -> Result<Self> {
        let schema = input_schema(key);
        let batch = |numbers: Vec<i64>| {
            let rows: ArrayRef = Arc::new((0..BATCH_ROWS as i64).map(Some).collect::<Int64Array>());
            Ok(RecordBatch::try_new(Arc::clone(&schema), vec![rows, key_column(key, numbers)])?)
        };
        let batches = numbers.into_iter().map(batch).collect::<Result<_>>()?;
        Ok(Batches { schema, batches, repeats })
    }
}

impl Keys {
    fn draw(self, random: &mut StdRng) -> i64 {
        match self {
            Keys::Uniform(keys) => random.random_range(0..keys),
            Keys::TenthCold { hot, .. } if random.random_bool(0.9) => random.random_range(0..hot),
            Keys::TenthCold { all, .. } => random.random_range(0..all),
            // The inverse of the harmonic series' integral: exact enough for a skew of one.
            Keys::Zipf(keys) => ((keys as f64).powf(random.random::<f64>()) as i64).min(keys - 1),
        }
    }
}

impl PartitionStream for Batches {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.batches.clone().into_iter().cycle().take(self.batches.len() * self.repeats);
        let batches = futures::stream::iter(batches.map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// A store that knows every key and takes no time but that of making its answer.
#[derive(Debug)]
struct Instantly {
    schema: SchemaRef,
}

impl fmt::Display for Instantly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("instantly")
    }
}

#[async_trait]
impl Store for Instantly {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn can_filter(&self, _filter: &Expr) -> bool {
        false
    }

    fn key_equality(&self, _column: usize) -> KeyEquality {
        KeyEquality::ByValue
    }

    fn can_scan(&self) -> bool {
        false
    }

    async fn scan(&self, _request: &ScanRequest) -> Result<RowBatches, StoreError> {
        Err(Error::internal("a scripted store has no end").into())
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let numbers: Int64Array = match request.keys[0].as_string_view_opt() {
            Some(texts) => texts.iter().map(|text| text.and_then(|text| text[4..].parse().ok())).collect(),
            None => request.keys[0].as_primitive::<Int64Type>().clone(),
        };
        let names = numbers.values().iter().map(|key| Some(format!("customer {key:08}")));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(names.collect::<StringViewArray>()), Arc::new(numbers.clone()), Arc::new(numbers.clone())];
        let schema = self.schema.project(&request.shape.columns).map_err(|error| StoreError::Invalid(error.into()))?;
        let rows =
            RecordBatch::try_new(Arc::new(schema), columns).map_err(|error| StoreError::Invalid(error.into()))?;
        Ok(Answer { rows, key_of_row: UInt32Array::from_iter_values(0..numbers.len() as u32) })
    }
}
