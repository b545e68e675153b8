//! How near does a whole query with an uncached lookup join come to what a client of Redis can do that asks the same keys the same way?
//!
//! `cargo bench --bench stores_redis`; it starts a private Redis, whose programs must be installed. `BENCH_ROWS` (1000000) is
//! the number of rows of each run, for a quick look at less. Each line is one number: `name  value unit`. README.md beside
//! this file says what they mean.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use lookaside::catalog::{Catalog, file};
use lookaside::engine::Engine;
use lookaside::error::{Error, Result};
use lookaside::session::{Outcome, Session};
use lookaside::sql;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use support::redis::RedisServer;
use tokio::time::Instant;

#[path = "../tests/it/support"]
#[expect(dead_code, clippy::unwrap_used, clippy::panic, reason = "the tests' own: they use all of it")]
mod support {
    pub mod certificate;
    pub mod redis;
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CUSTOMERS: u64 = 1_000_000;
const CONNECTIONS: u64 = 4;
/// Keys in one request.
const BATCH_KEYS: u64 = 1000;
const REPEATS: usize = 3;
const FIELDS: [&str; 4] = ["name", "country", "tier", "credit"];

const CATALOG: &str = r#"
[connection.cache]
type = "redis"
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

[lookup.customers]
connection = "cache"
key = "customer:{id}"
value = "hash"
max_in_flight = 4
[lookup.customers.columns]
id = "bigint"
name = "text"
country = "text"
tier = "int"
credit = "double precision"
"#;

const UNCACHED: &str = "SELECT o.n, c.name, c.country, c.tier, c.credit FROM orders AS o \
    LOOKUP JOIN customers AS c WITH (capacity = 16384) ON o.customer_id = c.id";

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(internal)?;
    // As in the server, queries run on the runtime's workers and not on the thread that waits for them.
    runtime.block_on(async { SpawnedTask::spawn(measure()).join().await.map_err(internal)? })
}

/// Lookaside and the driver's limit by turns, so that what else the machine does meets both.
async fn measure() -> Result<()> {
    let rows = match std::env::var("BENCH_ROWS") {
        Ok(text) => text.parse().map_err(|error| Error::internal(format!("BENCH_ROWS={text}: {error}")))?,
        Err(_) => 1_000_000,
    };
    let server = RedisServer::start();
    load(&server).await?;
    let (mut limits, mut ours) = (vec![], vec![]);
    // The first round warms up.
    for round in 0..=REPEATS {
        let (rows, seed) = (if round == 0 { rows / 4 } else { rows }, round as u64);
        let rates = (limit(&server, rows, seed).await?, rows as f64 / query(&server, rows, seed).await?.as_secs_f64());
        if round > 0 {
            limits.push(rates.0);
            ours.push(rates.1);
        }
    }
    let (limit, ours) = (median(limits), median(ours));
    show("redis_limit", limit / 1e6, "Mkeys/s");
    show("redis_uncached_1m_keys", ours / 1e6, "Mrows/s");
    show("redis_uncached_of_limit", 100.0 * ours / limit, "%");
    Ok(())
}

async fn load(server: &RedisServer) -> Result<()> {
    let mut connection = server.connect().await;
    for first in (1..=CUSTOMERS).step_by(10_000) {
        let mut pipeline = Pipeline::new();
        for id in first..first + 10_000 {
            let country = ["FR", "DE", "US", "GB", "JP", "IN", "BR", "ES"][(id % 8) as usize];
            let values =
                [format!("customer-{id}"), country.to_string(), (id % 5).to_string(), (id % 10_000).to_string()];
            let fields = FIELDS.iter().zip(values).collect::<Vec<_>>();
            pipeline.cmd("HSET").arg(format!("customer:{id}")).arg(fields).ignore();
        }
        pipeline.exec_async(&mut connection).await.map_err(internal)?;
    }
    Ok(())
}

/// Keys a second of a client that does nothing but ask, with the commands of the store, on all connections at once.
async fn limit(server: &RedisServer, keys: u64, seed: u64) -> Result<f64> {
    let mut connections = vec![];
    for _ in 0..CONNECTIONS {
        connections.push(server.connect().await);
    }
    let begin = Instant::now();
    let left = Arc::new(AtomicU64::new(keys.div_ceil(BATCH_KEYS)));
    let tasks = connections.into_iter().enumerate().map(|(number, mut connection)| {
        let left = Arc::clone(&left);
        SpawnedTask::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed * CONNECTIONS + number as u64);
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                let keys = (0..BATCH_KEYS).map(|_| random.random_range(1..=CUSTOMERS)).collect::<Vec<_>>();
                ask(&mut connection, &keys).await?;
            }
            Ok::<(), Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.join().await.map_err(internal)??;
    }
    Ok(keys as f64 / begin.elapsed().as_secs_f64())
}

/// Asks for keys and looks at every value of the answer.
async fn ask(connection: &mut MultiplexedConnection, keys: &[u64]) -> Result<()> {
    let mut pipeline = Pipeline::with_capacity(2 * keys.len());
    for key in keys {
        let key = format!("customer:{key}");
        pipeline.cmd("HMGET").arg(&key).arg(&FIELDS).cmd("HLEN").arg(&key);
    }
    let answers = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await.map_err(internal)?;
    let is_whole = |answer: &&[Value]| match answer {
        [Value::Array(fields), Value::Int(4)] => {
            fields.iter().all(|field| matches!(field, Value::BulkString(text) if !text.is_empty()))
        }
        _ => false,
    };
    let found = answers.chunks(2).filter(is_whole).count();
    match found == keys.len() {
        true => Ok(()),
        false => Err(Error::internal(format!("{} keys found {found} hashes", keys.len()))),
    }
}

/// Runs the query and tells how long it took, planning included.
async fn query(server: &RedisServer, expected: u64, seed: u64) -> Result<Duration> {
    let engine = engine(server, expected, seed)?;
    let begin = Instant::now();
    let mut session = Session::new(engine);
    let statement = sql::parse(UNCACHED)?.pop().ok_or_else(|| Error::internal("no statement"))?;
    let prepared = session.prepare(statement, &[]).await?;
    let Outcome::Rows { mut rows, .. } = session.execute(&prepared, vec![]).await?.outcome else {
        return Err(Error::internal("a query without rows"));
    };
    let mut count = 0;
    while let Some(batch) = rows.stream.next().await {
        count += batch?.num_rows() as u64;
    }
    match count == expected {
        true => Ok(begin.elapsed()),
        false => Err(Error::internal(format!("{count} rows instead of {expected}"))),
    }
}

fn engine(server: &RedisServer, rows: u64, seed: u64) -> Result<Arc<Engine>> {
    let text = CATALOG.replace("ROWS", &rows.to_string()).replace("SEED", &seed.to_string());
    let variable = |name: &str| (name == "URL").then(|| server.url());
    let opened = file::read_text(&[(PathBuf::from("catalog.toml"), text)], &variable).and_then(Catalog::open);
    let catalog = opened.map_err(|problems| match problems.first() {
        Some(problem) => internal(problem),
        None => Error::internal("the catalog is not accepted"),
    })?;
    Ok(Engine::new(catalog))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn show(name: &str, value: f64, unit: &str) {
    println!("{name}  {value:.3} {unit}");
}

fn internal(error: impl Display) -> Error {
    Error::internal(error.to_string())
}
