//! How many rows a second does the lookup stage alone carry: from the cache, and past it from a store that answers at once?
//!
//! One thread, batches of 8192 rows `(n bigint, k bigint)`, three payload columns of the table, nothing behind the stage.
//! Each line is one number: `name  Mrows/s`, the best of five runs.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

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
use lookaside::store::{Answer, KeyEquality, LookupRequest, LookupShape, RowBatches, ScanRequest, Store, StoreError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH_ROWS: usize = 8192;
const RUNS: usize = 5;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(error.to_string()))?;
    let cached = CachePolicy::Partial(PartialCache {
        max_rows: NonZeroU64::new(2_000_000),
        expire_misses_after: None,
        ..PartialCache::default()
    });
    for ordering in Ordering::ALL {
        let policy = |cache: &CachePolicy| LookupPolicy { ordering, cache: cache.clone(), ..LookupPolicy::default() };
        let hot = runtime.block_on(measure(policy(&cached), 10_000, 200))?;
        println!("cached_10k_keys_{ordering}  {hot:.2} Mrows/s");
        let cold = runtime.block_on(measure(policy(&CachePolicy::None), 1_000_000, 50))?;
        println!("uncached_1m_keys_{ordering}  {cold:.2} Mrows/s");
    }
    Ok(())
}

/// Millions of rows a second, the best of [`RUNS`], over `batches` batches of uniform keys.
async fn measure(policy: LookupPolicy, keys: i64, batches: usize) -> Result<f64> {
    let table = LookupTable::new("bench".to_string(), Arc::new(Instantly { schema: table_schema() }), policy.clone());
    let input = Arc::new(Batches::new(keys, batches)?);
    let mut best: f64 = 0.0;
    // The first run fills the cache and does not count.
    for run in 0..=RUNS {
        let partitions = vec![Arc::clone(&input) as Arc<dyn PartitionStream>];
        let plan = StreamingTableExec::try_new(input_schema(), partitions, None, [], false, None)?;
        let stage = LookupExec::try_new(Arc::new(plan), Arc::clone(&table), join(policy.clone()))?;
        let mut stream = stage.execute(0, Arc::default())?;
        let start = Instant::now();
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            rows += batch?.num_rows();
        }
        if rows != batches * BATCH_ROWS {
            return Err(Error::internal(format!("{rows} rows left the stage, {} came in", batches * BATCH_ROWS)));
        }
        if run > 0 {
            best = best.max(rows as f64 / start.elapsed().as_secs_f64() / 1e6);
        }
    }
    Ok(best)
}

fn join(policy: LookupPolicy) -> LookupJoin {
    LookupJoin {
        kind: JoinKind::Left,
        keys: vec![Arc::new(Column::new("k", 1))],
        shape: Arc::new(LookupShape { key_columns: vec![0], columns: vec![1, 2, 3], filters: Vec::new() }),
        gate: None,
        residual: None,
        projection: vec![0, 1, 2, 3, 4],
        policy,
    }
}

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("k", DataType::Int64, true)]))
}

fn table_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8View, true),
        Field::new("tier", DataType::Int64, true),
        Field::new("credit", DataType::Int64, true),
    ]))
}

/// The same batches for every run.
#[derive(Debug)]
struct Batches {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Batches {
    fn new(keys: i64, batches: usize) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(7);
        let schema = input_schema();
        let batch = |_| {
            let numbers: ArrayRef = Arc::new((0..BATCH_ROWS as i64).map(Some).collect::<Int64Array>());
            let keys = (0..BATCH_ROWS).map(|_| Some(random.random_range(0..keys)));
            Ok(RecordBatch::try_new(input_schema(), vec![numbers, Arc::new(keys.collect::<Int64Array>())])?)
        };
        Ok(Batches { schema, batches: (0..batches).map(batch).collect::<Result<_>>()? })
    }
}

impl PartitionStream for Batches {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = futures::stream::iter(self.batches.clone().into_iter().map(Ok));
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
        let keys = request.keys[0].as_primitive::<Int64Type>();
        let names = keys.values().iter().map(|key| Some(format!("customer {key:08}")));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(names.collect::<StringViewArray>()), Arc::new(keys.clone()), Arc::new(keys.clone())];
        let schema = self.schema.project(&request.shape.columns).map_err(|error| StoreError::Invalid(error.into()))?;
        let rows =
            RecordBatch::try_new(Arc::new(schema), columns).map_err(|error| StoreError::Invalid(error.into()))?;
        Ok(Answer { rows, key_of_row: UInt32Array::from_iter_values(0..keys.len() as u32) })
    }
}
