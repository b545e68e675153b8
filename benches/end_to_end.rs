//! How near does a whole query with an uncached lookup join come to PostgreSQL's own limit? And what do cache, waiting and starting cost?
//!
//! `cargo bench --bench end_to_end`; it starts a private PostgreSQL, whose programs must be installed. `BENCH_ROWS`
//! (4000000) is the number of rows of each run, for a quick look at less. Each line is one number: `name  value unit`.
//! README.md beside this file says what they mean.

use std::fmt::Display;
use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use lookaside::catalog::{Catalog, file};
use lookaside::engine::Engine;
use lookaside::error::{Error, Result};
use lookaside::session::{Outcome, Session};
use lookaside::sql;
use postgres::PostgresServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::{Client, NoTls, Statement};

#[path = "../tests/it/support/postgres.rs"]
#[expect(dead_code, clippy::unwrap_used, clippy::panic, reason = "the tests' own: they use all of it")]
mod postgres;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CUSTOMERS: i64 = 1_000_000;
const CONNECTIONS: u64 = 4;
/// Keys in one statement.
const BATCH_KEYS: u64 = 1000;
const REPEATS: usize = 3;
/// Rows of a run that measures latency, at a thousand a second.
const PACED_ROWS: u64 = 10_000;

const SETTINGS: &str = "shared_buffers = 1GB\njit = off\nautovacuum = off\n";

const CUSTOMERS_TABLE: &str = "
CREATE TABLE customers (id bigint PRIMARY KEY, name text, country text, tier int, credit double precision);
INSERT INTO customers
    SELECT g, 'customer-' || g, (ARRAY['FR', 'DE', 'US', 'GB', 'JP', 'IN', 'BR', 'ES'])[1 + g % 8], (g % 5)::int, (g % 10000) * 1.25
    FROM generate_series(1, 1000000) AS g;";

const CATALOG: &str = r#"
[connection.shop]
type = "postgres"
url = "${URL}"
max_connections = 4

[stream.orders]
type = "generator"
rows_per_second = 0
rows = ROWS
seed = SEED
[stream.orders.columns]
n = "n"
customer_id = "1 + CAST(floor(random() * 1000000) AS bigint)"
regular_id = "1 + CAST(floor(random() * 10000) AS bigint)"

[stream.paced]
type = "generator"
rows_per_second = 1000
rows = PACED
[stream.paced.columns]
made_at = "now()"
customer_id = "1 + CAST(floor(random() * 1000000) AS bigint)"

[lookup.customers]
connection = "shop"
table = "customers"
max_in_flight = 4

[lookup.remembered]
connection = "shop"
table = "customers"
max_in_flight = 4
[lookup.remembered.cache]
mode = "partial"
max_rows = 20000
"#;

const STREAM_ALONE: &str = "SELECT o.n, o.customer_id FROM orders AS o";
const UNCACHED: &str = "SELECT o.n, c.name, c.country, c.tier, c.credit FROM orders AS o \
    LOOKUP JOIN customers AS c WITH (capacity = 16384) ON o.customer_id = c.id";
const CACHED: &str = "SELECT o.n, c.name, c.country, c.tier, c.credit FROM orders AS o \
    LOOKUP JOIN remembered AS c WITH (capacity = 16384) ON o.regular_id = c.id";
const PACED: &str = "SELECT p.made_at, c.name, c.country, c.tier, c.credit FROM paced AS p \
    LOOKUP JOIN customers AS c ON p.customer_id = c.id";

const BY_ANY: &str = "SELECT id, name, country, tier, credit FROM customers WHERE id = ANY($1)";
const BY_JOIN: &str = "SELECT c.id, c.name, c.country, c.tier, c.credit \
    FROM unnest($1::bigint[]) AS k JOIN customers AS c ON c.id = k";

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(internal)?;
    // As in the server, queries run on the runtime's workers and not on the thread that waits for them.
    runtime.block_on(async { SpawnedTask::spawn(measure_all()).join().await.map_err(internal)? })
}

async fn measure_all() -> Result<()> {
    let rows = match std::env::var("BENCH_ROWS") {
        Ok(text) => text.parse().map_err(|error| Error::internal(format!("BENCH_ROWS={text}: {error}")))?,
        Err(_) => 4_000_000,
    };
    let server = PostgresServer::start_with_settings(SETTINGS);
    server.execute(CUSTOMERS_TABLE).await;
    server.execute("VACUUM ANALYZE customers").await;
    uncached(&server, rows).await?;
    cached(&server, rows).await?;
    latency(&server).await?;
    start(&server).await
}

/// Lookaside and PostgreSQL's limit by turns, so that what else the machine does meets all of them.
async fn uncached(server: &PostgresServer, rows: u64) -> Result<()> {
    let (mut any, mut join, mut ours) = (vec![], vec![], vec![]);
    // The first round warms up caches and prepares statements.
    for round in 0..=REPEATS {
        let rows = if round == 0 { rows / 4 } else { rows };
        let rates = [
            limit(server, BY_ANY, rows, round as u64).await?,
            limit(server, BY_JOIN, rows, round as u64).await?,
            rows as f64 / query(&engine(server, rows, round as u64)?, UNCACHED, rows, |_| Ok(())).await?.as_secs_f64(),
        ];
        if round > 0 {
            any.push(rates[0]);
            join.push(rates[1]);
            ours.push(rates[2]);
        }
    }
    let (any, join, ours) = (median(any), median(join), median(ours));
    show("postgres_limit_any", any / 1e6, "Mkeys/s");
    show("postgres_limit_join", join / 1e6, "Mkeys/s");
    show("uncached_1m_keys", ours / 1e6, "Mrows/s");
    show("uncached_of_limit_any", 100.0 * ours / any, "%");
    show("uncached_of_limit_join", 100.0 * ours / join, "%");
    Ok(())
}

/// A query's stream by itself, then through a lookup join whose cache knows every key.
async fn cached(server: &PostgresServer, rows: u64) -> Result<()> {
    let engine = engine(server, rows, 7)?;
    query(&engine, CACHED, rows, |_| Ok(())).await?;
    let (mut alone, mut ours) = (vec![], vec![]);
    for _ in 0..REPEATS {
        alone.push(rows as f64 / query(&engine, STREAM_ALONE, rows, |_| Ok(())).await?.as_secs_f64());
        ours.push(rows as f64 / query(&engine, CACHED, rows, |_| Ok(())).await?.as_secs_f64());
    }
    show("stream_alone", median(alone) / 1e6, "Mrows/s");
    show("cached_10k_keys", median(ours) / 1e6, "Mrows/s");
    Ok(())
}

/// From the moment a row is made to its receipt, and one key asked of PostgreSQL directly, both a thousand times a second.
async fn latency(server: &PostgresServer) -> Result<()> {
    let mut direct = point_queries(server).await?;
    let mut waits = Vec::with_capacity(PACED_ROWS as usize);
    query(&engine(server, 0, 7)?, PACED, PACED_ROWS, |batch| {
        let now = chrono::Utc::now().timestamp_micros();
        let made = batch.column(0).as_primitive_opt::<TimestampMicrosecondType>();
        let made = made.ok_or_else(|| Error::internal("made_at is no timestamp"))?;
        waits.extend(made.values().iter().map(|made| (now - made) as f64 / 1e3));
        Ok(())
    })
    .await?;
    for (name, p) in [("p50", 0.5), ("p99", 0.99)] {
        show(&format!("postgres_latency_{name}"), quantile(&mut direct, p), "ms");
        show(&format!("uncached_latency_{name}"), quantile(&mut waits, p), "ms");
    }
    Ok(())
}

/// The program from its start to "listening on"; no store is asked before that.
async fn start(server: &PostgresServer) -> Result<()> {
    let folder = tempfile::tempdir().map_err(internal)?;
    let path = folder.path().join("catalog.toml");
    std::fs::write(&path, catalog(0, 7)).map_err(internal)?;
    let mut times = vec![];
    for _ in 0..=REPEATS {
        let begin = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lookaside"));
        command.arg("serve").arg(&path).args(["--listen", "127.0.0.1:0"]).env("URL", server.url());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(internal)?;
        let stdout = child.stdout.take().ok_or_else(|| Error::internal("the server has no stdout"))?;
        let line = BufReader::new(stdout).lines().next_line().await.map_err(internal)?.unwrap_or_default();
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        child.kill().await.map_err(internal)?;
        if !line.starts_with("listening on ") {
            return Err(Error::internal(format!("the server's first line is {line:?}")));
        }
    }
    // The first start reads the program from the disk.
    show("serve_to_listening", median(times.split_off(1)), "ms");
    Ok(())
}

fn catalog(rows: u64, seed: u64) -> String {
    let numbers = [("ROWS", rows), ("SEED", seed), ("PACED", PACED_ROWS)];
    numbers.iter().fold(CATALOG.to_string(), |text, (name, number)| text.replace(name, &number.to_string()))
}

fn engine(server: &PostgresServer, rows: u64, seed: u64) -> Result<Arc<Engine>> {
    let text = catalog(rows, seed);
    let variable = |name: &str| (name == "URL").then(|| server.url());
    let files = [(PathBuf::from("catalog.toml"), text)];
    let opened = file::read_text(&files, &variable).and_then(Catalog::open);
    let catalog = opened.map_err(|problems| match problems.first() {
        Some(problem) => internal(problem),
        None => Error::internal("the catalog is not accepted"),
    })?;
    Ok(Engine::new(catalog))
}

/// Runs a query that answers `expected` rows and tells how long it took, planning included.
async fn query(
    engine: &Arc<Engine>,
    text: &str,
    expected: u64,
    mut on_batch: impl FnMut(&RecordBatch) -> Result<()> + Send,
) -> Result<Duration> {
    let begin = Instant::now();
    let mut session = Session::new(Arc::clone(engine));
    let statement = sql::parse(text)?.pop().ok_or_else(|| Error::internal("no statement"))?;
    let prepared = session.prepare(statement, &[]).await?;
    let Outcome::Rows { mut rows, .. } = session.execute(&prepared, vec![]).await?.outcome else {
        return Err(Error::internal("a query without rows"));
    };
    let mut count = 0;
    while let Some(batch) = rows.stream.next().await {
        let batch = batch?;
        count += batch.num_rows() as u64;
        on_batch(&batch)?;
    }
    match count == expected {
        true => Ok(begin.elapsed()),
        false => Err(Error::internal(format!("{count} rows instead of {expected}: {text}"))),
    }
}

/// Keys a second of a client that does nothing but ask: sorted keys, prepared, binary, on all connections at once.
async fn limit(server: &PostgresServer, statement: &str, keys: u64, seed: u64) -> Result<f64> {
    let mut clients = vec![];
    for _ in 0..CONNECTIONS {
        let (client, connection) = connect(server).await?;
        let statement = client.prepare(statement).await.map_err(internal)?;
        // Nobody has to have planned the statement for the first time.
        ask(&client, &statement, vec![1]).await?;
        clients.push((client, statement, connection));
    }
    let begin = Instant::now();
    let left = Arc::new(AtomicU64::new(keys.div_ceil(BATCH_KEYS)));
    let tasks = clients.into_iter().enumerate().map(|(number, (client, statement, connection))| {
        let left = Arc::clone(&left);
        SpawnedTask::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed * CONNECTIONS + number as u64);
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                let mut keys: Vec<i64> = (0..BATCH_KEYS).map(|_| random.random_range(1..=CUSTOMERS)).collect();
                keys.sort_unstable();
                keys.dedup();
                ask(&client, &statement, keys).await?;
            }
            drop(connection);
            Ok::<(), Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.join().await.map_err(internal)??;
    }
    Ok(keys as f64 / begin.elapsed().as_secs_f64())
}

/// Asks for distinct keys and looks at every value of the answer.
async fn ask(client: &Client, statement: &Statement, keys: Vec<i64>) -> Result<()> {
    let rows = client.query(statement, &[&keys]).await.map_err(internal)?;
    let mut found = 0;
    for row in &rows {
        let (id, tier, credit): (i64, i32, f64) = (row.get(0), row.get(3), row.get(4));
        let (name, country): (&str, &str) = (row.get(1), row.get(2));
        found += usize::from(id > 0 && tier >= 0 && credit >= 0.0 && !name.is_empty() && !country.is_empty());
    }
    match found == keys.len() {
        true => Ok(()),
        false => Err(Error::internal(format!("{} keys found {found} rows", keys.len()))),
    }
}

/// How long one key takes, a thousand times a second, in ms.
async fn point_queries(server: &PostgresServer) -> Result<Vec<f64>> {
    let (client, _connection) = connect(server).await?;
    let statement = client.prepare(BY_ANY).await.map_err(internal)?;
    let mut random = StdRng::seed_from_u64(7);
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut times = vec![];
    for _ in 0..PACED_ROWS {
        ticks.tick().await;
        let begin = Instant::now();
        ask(&client, &statement, vec![random.random_range(1..=CUSTOMERS)]).await?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

async fn connect(server: &PostgresServer) -> Result<(Client, SpawnedTask<()>)> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.map_err(internal)?;
    Ok((client, SpawnedTask::spawn(drive(connection))))
}

/// What ends a connection, its client is told.
async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    let _ = connection.await;
}

fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

fn quantile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * p).round() as usize).copied().unwrap_or(f64::NAN)
}

fn show(name: &str, value: f64, unit: &str) {
    println!("{name}  {value:.3} {unit}");
}

fn internal(error: impl Display) -> Error {
    Error::internal(error.to_string())
}
