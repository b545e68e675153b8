//! How near does a whole query with an uncached lookup join come to what a client of MariaDB can do that asks for the same keys?
//!
//! `cargo bench --bench stores_mysql`; it starts a private MariaDB, whose programs must be installed. `BENCH_ROWS` (1000000) is
//! the number of rows of each run, for a quick look at less. Each line is one number: `name  value unit`. README.md beside
//! this file says what they mean.

use std::collections::BTreeSet;
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
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::mariadb::MariadbServer;
use tokio::time::Instant;

#[path = "../tests/it/support"]
#[expect(dead_code, clippy::unwrap_used, clippy::panic, reason = "the tests' own: they use all of it")]
mod support {
    pub mod certificate;
    pub mod mariadb;
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CUSTOMERS: u64 = 1_000_000;
const CONNECTIONS: u64 = 4;
/// Keys in one request.
const BATCH_KEYS: u64 = 1000;
const REPEATS: usize = 3;

const CUSTOMERS_TABLE: [&str; 3] = [
    "CREATE TABLE customers (id bigint PRIMARY KEY, name text, country text, tier int, credit double)",
    "INSERT INTO customers SELECT seq, CONCAT('customer-', seq), ELT(1 + seq % 8, 'FR', 'DE', 'US', 'GB', 'JP', 'IN', 'BR', 'ES'),
        seq % 5, (seq % 10000) * 1.25 FROM seq_1_to_1000000",
    "ANALYZE TABLE customers",
];

/// The ways of a client to ask for many keys: as literals, which are parsed anew each time; as parameters; and as we do.
#[derive(Clone, Copy)]
enum Way {
    In,
    Parameters,
    Json,
}

const CATALOG: &str = r#"
[connection.erp]
type = "mysql"
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
connection = "erp"
table = "customers"
max_in_flight = 4
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
    let server = MariadbServer::start_with(&["--innodb-buffer-pool-size=1G".to_string()]);
    server.execute(&CUSTOMERS_TABLE).await;
    let ways = [Way::In, Way::Parameters, Way::Json];
    let (mut limits, mut ours) = (ways.map(|_| vec![]), vec![]);
    // The first round warms up.
    for round in 0..=REPEATS {
        let (rows, seed) = (if round == 0 { rows / 4 } else { rows }, round as u64);
        let mut rates = vec![];
        for way in ways {
            rates.push(limit(&server, way, rows, seed).await?);
        }
        let own = rows as f64 / query(&server, rows, seed).await?.as_secs_f64();
        if round > 0 {
            limits.iter_mut().zip(rates).for_each(|(limits, rate)| limits.push(rate));
            ours.push(own);
        }
    }
    let [literals, parameters, json] = limits.map(median);
    let (limit, ours) = (literals.max(parameters).max(json), median(ours));
    show("mysql_limit_in", literals / 1e6, "Mkeys/s");
    show("mysql_limit_parameters", parameters / 1e6, "Mkeys/s");
    show("mysql_limit_json_table", json / 1e6, "Mkeys/s");
    show("mysql_uncached_1m_keys", ours / 1e6, "Mrows/s");
    show("mysql_uncached_of_limit", 100.0 * ours / limit, "%");
    Ok(())
}

/// Keys a second of a client that does nothing but ask, in one way, on all connections at once.
async fn limit(server: &MariadbServer, way: Way, keys: u64, seed: u64) -> Result<f64> {
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
                let keys = (0..BATCH_KEYS).map(|_| random.random_range(1..=CUSTOMERS)).collect::<BTreeSet<_>>();
                ask(&mut connection, way, &keys).await?;
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
async fn ask(connection: &mut Conn, way: Way, keys: &BTreeSet<u64>) -> Result<()> {
    const COLUMNS: &str = "SELECT t.name, t.country, t.tier, t.credit";
    let list = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let rows: Vec<Row> = match way {
        Way::In => connection.query(format!("{COLUMNS} FROM customers AS t WHERE t.id IN ({list})")).await,
        Way::Parameters => {
            // One statement for all, so that it is prepared once: what is left over is NULL.
            let marks = vec!["?"; BATCH_KEYS as usize].join(",");
            let nulls = std::iter::repeat(Value::NULL);
            let values = keys.iter().map(|key| Value::from(*key)).chain(nulls).take(BATCH_KEYS as usize).collect();
            let statement = format!("{COLUMNS} FROM customers AS t WHERE t.id IN ({marks})");
            connection.exec(statement, Params::Positional(values)).await
        }
        Way::Json => {
            let statement = format!(
                "{COLUMNS} FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS k STRAIGHT_JOIN customers AS t ON t.id = k.id"
            );
            connection.exec(statement, (format!("[{list}]"),)).await
        }
    }
    .map_err(internal)?;
    let is_whole = |row: &&Row| (0..4).all(|column| row.as_ref(column).is_some_and(|value| *value != Value::NULL));
    let found = rows.iter().filter(is_whole).count();
    match found == keys.len() {
        true => Ok(()),
        false => Err(Error::internal(format!("{} keys found {found} rows", keys.len()))),
    }
}

/// Runs the query and tells how long it took, planning included.
async fn query(server: &MariadbServer, expected: u64, seed: u64) -> Result<Duration> {
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

fn engine(server: &MariadbServer, rows: u64, seed: u64) -> Result<Arc<Engine>> {
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
