//! What do a store's latency and the share of hits do to throughput and to a row's wait: row by row, batched, and batched
//! with eight requests in flight?
//!
//! `cargo bench --bench matrix` prints the table, writes it into benches/README.md and draws benches/matrix.svg. The store
//! is the simulated one, so the numbers say what the lookup stage makes of a store that never tires.

use std::fmt::Write;
use std::num::{NonZeroU64, NonZeroUsize};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::arrow::array::{AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{Stream, StreamExt};
use lookaside::error::{Error, Result};
use lookaside::lookup::policy::{CachePolicy, LookupPolicy, Ordering, PartialCache};
use lookaside::lookup::{JoinKind, LookupExec, LookupJoin, LookupTable};
use lookaside::pg_type::PgType;
use lookaside::store::simulated::{Behaviour, Latency, SimulatedConfig, SimulatedStore};
use lookaside::store::{Conditions, LookupShape};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LATENCIES_MS: [u64; 4] = [0, 1, 10, 50];
const HIT_PERCENTS: [u32; 4] = [0, 50, 95, 99];
const ORDERINGS: [Ordering; 2] = [Ordering::Ordered, Ordering::Unordered];
/// Name, batch_size, max_in_flight.
const MODES: [(&str, usize, usize); 3] =
    [("row by row", 1, 1), ("batched", 1000, 1), ("batched, 8 in flight", 1000, 8)];
/// Keys that are in the cache before the clock starts.
const HOT_KEYS: i64 = 1000;
const BATCH_ROWS: usize = 1000;
/// Rows a second at which a row's wait is measured, unless the stage cannot carry twice as many.
const CALM_RATE: f64 = 1000.0;

struct Cell {
    latency_ms: u64,
    hit_percent: u32,
    ordering: Ordering,
    mode: (&'static str, usize, usize),
    rows_per_second: f64,
    wait_p50_ms: f64,
    wait_p99_ms: f64,
}

impl Cell {
    /// What the store allows: keys that it can be asked for in a second, and the hits between them.
    fn ceiling(&self) -> Option<f64> {
        let (_, batch_size, in_flight) = self.mode;
        let keys = (self.latency_ms > 0).then(|| (batch_size * in_flight) as f64 * 1e3 / self.latency_ms as f64);
        keys.map(|keys| keys / (1.0 - f64::from(self.hit_percent) / 100.0))
    }
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(error.to_string()))?;
    let mut cells = Vec::new();
    for latency_ms in LATENCIES_MS {
        for mode in MODES {
            for ordering in ORDERINGS {
                for hit_percent in HIT_PERCENTS {
                    let cell = runtime.block_on(measure(latency_ms, hit_percent, ordering, mode))?;
                    eprintln!(
                        "{latency_ms} ms, {hit_percent} % hits, {ordering}, {}: {:.0} rows/s, wait {:.2} ms, {:.2} ms",
                        mode.0, cell.rows_per_second, cell.wait_p50_ms, cell.wait_p99_ms
                    );
                    cells.push(cell);
                }
            }
        }
    }
    let table = table_of(&cells);
    println!("{table}");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let written = std::fs::write(folder.join("matrix.svg"), picture_of(&cells))
        .and_then(|()| std::fs::read_to_string(folder.join("README.md")))
        .and_then(|readme| std::fs::write(folder.join("README.md"), with_table(&readme, &table)));
    written.map_err(|error| Error::internal(format!("benches/README.md: {error}")))
}

async fn measure(
    latency_ms: u64,
    hit_percent: u32,
    ordering: Ordering,
    mode: (&'static str, usize, usize),
) -> Result<Cell> {
    let count = |number: usize| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
    let policy = LookupPolicy {
        ordering,
        timeout: None,
        batch_size: count(mode.1),
        max_in_flight: count(mode.2),
        cache: CachePolicy::Partial(PartialCache { max_rows: NonZeroU64::new(100_000), ..PartialCache::default() }),
        ..LookupPolicy::default()
    };
    let latency = Duration::from_millis(latency_ms);
    let config = SimulatedConfig {
        seed: 1,
        key: vec![("id".to_string(), PgType::Int8)],
        columns: vec![("name".to_string(), "'customer ' || id".to_string())],
        behaviour: Behaviour { latency: Latency::Fixed(latency), ..Behaviour::default() },
    };
    let store = Arc::new(SimulatedStore::try_new("customers".to_string(), config)?);
    let table = LookupTable::new("customers".to_string(), store, policy.clone());
    let warm = LookupPolicy { batch_size: count(1000), max_in_flight: count(8), ..policy.clone() };
    let mut hot = run(&table, &warm, Batches::of(futures::stream::iter([batch(0, 0..HOT_KEYS)])))?;
    while let Some(rows) = hot.next().await {
        rows?;
    }
    let mut keys = Keys { random: StdRng::seed_from_u64(7), hit_percent, next_cold: HOT_KEYS };
    let rows_per_second = throughput(&table, &policy, latency, &mut keys).await?;
    let (wait_p50_ms, wait_p99_ms) = waits(&table, &policy, rows_per_second, &mut keys).await?;
    Ok(Cell { latency_ms, hit_percent, ordering, mode, rows_per_second, wait_p50_ms, wait_p99_ms })
}

/// Hot keys by chance, the others new ones each time.
struct Keys {
    random: StdRng,
    hit_percent: u32,
    next_cold: i64,
}

impl Keys {
    fn next(&mut self) -> i64 {
        if self.random.random_ratio(self.hit_percent, 100) {
            return self.random.random_range(0..HOT_KEYS);
        }
        self.next_cold += 1;
        self.next_cold
    }
}

/// Rows a second once the first answers have come, with input as fast as it is asked for.
async fn throughput(
    table: &Arc<LookupTable>,
    policy: &LookupPolicy,
    latency: Duration,
    keys: &mut Keys,
) -> Result<f64> {
    let mut made = Keys { random: StdRng::seed_from_u64(11), hit_percent: keys.hit_percent, next_cold: keys.next_cold };
    let endless = futures::stream::repeat_with(move || batch(0, (0..BATCH_ROWS).map(|_| made.next())));
    let mut rows = run(table, policy, Batches::of(endless))?;
    let start = Instant::now();
    let (from, until) = (start + latency * 3, start + (latency * 12).max(Duration::from_millis(300)));
    let (mut count, mut last) = (0, from);
    // The deadline is looked at here as well: a stream that is always ready never lets its timer be polled.
    while last < until
        && let Ok(batch) = tokio::time::timeout_at(until, rows.next()).await
    {
        let Some(batch) = batch else { break };
        let batch = batch?;
        last = Instant::now().max(from);
        if last > from {
            count += batch.num_rows();
        }
    }
    let took = last.max(until) - from;
    // The next run must not find its cold keys in the cache.
    keys.next_cold += 1_000_000_000;
    Ok(count as f64 / took.as_secs_f64())
}

/// Median and 99th percentile of a row's wait, in milliseconds, at a rate that the stage carries with ease.
async fn waits(
    table: &Arc<LookupTable>,
    policy: &LookupPolicy,
    rows_per_second: f64,
    keys: &mut Keys,
) -> Result<(f64, f64)> {
    let rate = CALM_RATE.min(rows_per_second / 2.0).max(1.0);
    let count = (rate * 0.5).clamp(10.0, 500.0) as usize;
    let came: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let numbered: Vec<RecordBatch> = (0..count).map(|n| batch(n as i64, [keys.next()])).collect();
    let (start, seen) = (Instant::now(), Arc::clone(&came));
    let paced = futures::stream::iter(numbered).enumerate().then(move |(n, batch)| {
        let seen = Arc::clone(&seen);
        async move {
            tokio::time::sleep_until(start + Duration::from_secs_f64(n as f64 / rate)).await;
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            batch
        }
    });
    let mut rows = run(table, policy, Batches::of(paced))?;
    let mut waited = Vec::with_capacity(count);
    while let Some(batch) = rows.next().await {
        let (batch, now) = (batch?, Instant::now());
        let came = came.lock().unwrap_or_else(PoisonError::into_inner);
        waited.extend(
            batch
                .column(0)
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .map(|n| (now - came[*n as usize]).as_secs_f64() * 1e3),
        );
    }
    waited.sort_by(f64::total_cmp);
    let at = |share: f64| waited.get(((waited.len() as f64 * share) as usize).min(waited.len() - 1)).copied();
    Ok((at(0.5).unwrap_or(f64::NAN), at(0.99).unwrap_or(f64::NAN)))
}

fn run(table: &Arc<LookupTable>, policy: &LookupPolicy, input: Arc<Batches>) -> Result<SendableRecordBatchStream> {
    let plan = StreamingTableExec::try_new(input_schema(), vec![input], None, [], true, None)?;
    let join = LookupJoin {
        kind: JoinKind::Left,
        keys: vec![Arc::new(Column::new("k", 1))],
        shape: Arc::new(LookupShape { key_columns: vec![0], columns: vec![1], filters: Conditions::default() }),
        gate: None,
        residual: None,
        projection: vec![0, 1, 2],
        policy: policy.clone(),
    };
    let stage = LookupExec::try_new(Arc::new(plan), Arc::clone(table), join)?;
    Ok(stage.execute(0, Arc::default())?)
}

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("k", DataType::Int64, false)]))
}

fn batch(first: i64, keys: impl IntoIterator<Item = i64>) -> RecordBatch {
    let keys: Int64Array = keys.into_iter().map(Some).collect();
    let numbers: Int64Array = (first..).take(datafusion::arrow::array::Array::len(&keys)).map(Some).collect();
    let columns = vec![Arc::new(numbers) as _, Arc::new(keys) as _];
    RecordBatch::try_new(input_schema(), columns).unwrap_or_else(|_| RecordBatch::new_empty(input_schema()))
}

type Incoming = Pin<Box<dyn Stream<Item = RecordBatch> + Send>>;

/// An input that is read once.
struct Batches(Mutex<Option<Incoming>>, SchemaRef);

impl Batches {
    fn of(batches: impl Stream<Item = RecordBatch> + Send + 'static) -> Arc<Self> {
        Arc::new(Batches(Mutex::new(Some(Box::pin(batches))), input_schema()))
    }
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batches")
    }
}

impl PartitionStream for Batches {
    fn schema(&self) -> &SchemaRef {
        &self.1
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let batches = batches.unwrap_or_else(|| Box::pin(futures::stream::empty()));
        Box::pin(RecordBatchStreamAdapter::new(input_schema(), batches.map(Ok)))
    }
}

fn table_of(cells: &[Cell]) -> String {
    let mut table = String::from("| store | | ordering |");
    HIT_PERCENTS.iter().for_each(|percent| table.push_str(&format!(" {percent} % hits |")));
    table.push_str("\n|---|---|---|---|---|---|---|\n");
    for row in cells.chunks(HIT_PERCENTS.len()) {
        let Cell { latency_ms, mode, ordering, .. } = &row[0];
        let _ = write!(table, "| {latency_ms} ms | {} | {ordering} |", mode.0);
        for cell in row {
            let ceiling = cell.ceiling().map_or_else(|| "–".to_string(), short);
            let (p50, p99) = (cell.wait_p50_ms, cell.wait_p99_ms);
            let _ = write!(table, " **{}** of {ceiling}; {p50:.1}, {p99:.1} ms |", short(cell.rows_per_second));
        }
        table.push('\n');
    }
    table
}

/// Three digits and k or M.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e7 => format!("{:.0} M", n / 1e6),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.0} k", n / 1e3),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

const BEGIN: &str = "<!-- matrix begins -->";
const END: &str = "<!-- matrix ends -->";

/// The README with the table between its marks, or behind everything where there are none.
fn with_table(readme: &str, table: &str) -> String {
    let (before, after) = match (readme.find(BEGIN), readme.find(END)) {
        (Some(begin), Some(end)) if begin < end => (&readme[..begin], &readme[end + END.len()..]),
        _ => (readme, "\n"),
    };
    format!("{before}{BEGIN}\n{table}\n![the matrix](matrix.svg)\n{END}{after}")
}

/// A field for each cell: darker is faster, on a scale of powers of ten.
fn picture_of(cells: &[Cell]) -> String {
    const WIDTH: usize = 150;
    const HEIGHT: usize = 22;
    const LEFT: usize = 300;
    const TOP: usize = 40;
    let rows = cells.len() / HIT_PERCENTS.len();
    let (width, height) = (LEFT + WIDTH * HIT_PERCENTS.len() + 10, TOP + HEIGHT * rows + 10);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"16\">rows per second, by share of hits; in brackets the share of batch_size × max_in_flight / latency</text>\n"
    );
    for (column, percent) in HIT_PERCENTS.iter().enumerate() {
        let x = LEFT + WIDTH * column + WIDTH / 2;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"34\" text-anchor=\"middle\">{percent} % hits</text>");
    }
    for (at, cell) in cells.iter().enumerate() {
        let (row, column) = (at / HIT_PERCENTS.len(), at % HIT_PERCENTS.len());
        let (x, y) = (LEFT + WIDTH * column, TOP + HEIGHT * row);
        if column == 0 {
            let text = format!("{} ms, {}, {}", cell.latency_ms, cell.mode.0, cell.ordering);
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{text}</text>", LEFT - 8, y + 15);
        }
        // From ten rows a second, white, to a hundred million.
        let share = ((cell.rows_per_second.max(10.0).log10() - 1.0) / 7.0).min(1.0);
        let light = (95.0 - share * 60.0) as u32;
        let ink = if light < 60 { "white" } else { "black" };
        let of_ceiling = cell.ceiling().map_or_else(String::new, |ceiling| {
            format!(" ({:.0} %)", (cell.rows_per_second / ceiling * 100.0).min(999.0))
        });
        let text = format!("{}{of_ceiling}", short(cell.rows_per_second));
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"hsl(210,60%,{light}%)\"/>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"{ink}\">{text}</text>",
            WIDTH - 2,
            HEIGHT - 2,
            x + WIDTH / 2,
            y + 15
        );
    }
    svg.push_str("</svg>\n");
    svg
}
