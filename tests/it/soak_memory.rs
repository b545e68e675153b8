//! Memory under what is larger than it: more keys than the cache holds, more rows than anybody could keep, a key with
//! more rows than an answer may have.
//!
//! Small here; `tests/soak/run memory` does it at full size, best with `LOOKASIDE_PROGRAM=target/release/lookaside`.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::lookaside::connect_to;
use crate::support::postgres::PostgresServer;
use crate::support::process::{Process, catalog_file};

const MIB: u64 = 1 << 20;

fn size(variable: &str, small: u64) -> u64 {
    std::env::var(variable).map_or(small, |text| text.parse().unwrap())
}

fn catalog(rows: u64, cache: &str) -> String {
    format!(
        r#"
[stream.orders]
type = "generator"
rows_per_second = 0
rows = {rows}
[stream.orders.columns]
n = "n"
hot = "1 + n % 10000"

[lookup.customers]
type = "simulated"
[lookup.customers.key]
id = "bigint"
[lookup.customers.columns]
name = "'customer ' || id"
tier = "id % 5"
[lookup.customers.cache]
mode = "partial"
{cache}
"#
    )
}

/// Runs a statement whose rows are many and whose answer is one, and samples the server's memory meanwhile.
async fn watch(server: &Process, port: u16, sql: &str) -> (i64, Duration, Vec<u64>) {
    let client = connect_to(port, "soak").await;
    let begin = Instant::now();
    let answer = client.query_one(sql, &[]);
    tokio::pin!(answer);
    let mut samples = vec![];
    let mut seconds = tokio::time::interval(Duration::from_millis(200));
    let row = loop {
        tokio::select! {
            row = &mut answer => break row.unwrap(),
            _ = seconds.tick() => samples.push(server.resident_kib()),
        }
    };
    samples.push(server.resident_kib());
    (row.get(0), begin.elapsed(), samples)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_the_cache_holds_need_no_more_than_its_bound() {
    let keys = size("SOAK_KEYS", 300_000);
    let bound = size("SOAK_CACHE_MIB", 8);
    let (_folder, path) = catalog_file(&catalog(keys, &format!("max_bytes = \"{bound}MiB\"")));
    let (server, port) = Process::serve(&path, &[]).await;
    // What planning and running a query takes is not the cache's.
    let warm_up = "SELECT count(*) FROM (SELECT * FROM orders LIMIT 20000) AS o
                   LOOKUP JOIN customers AS c WITH (cache = 'bypass') ON o.n = c.id";
    watch(&server, port, warm_up).await;
    let idle = server.resident_kib();
    let sql =
        "SELECT count(*) FROM orders AS o LOOKUP JOIN customers AS c ON o.n = c.id WHERE c.name LIKE 'customer %'";
    let (count, took, samples) = watch(&server, port, sql).await;
    assert_eq!(count as u64, keys);
    let most = samples.iter().max().unwrap();
    let grown = most.saturating_sub(idle) * 1024;
    println!(
        "memory: {keys} distinct keys through a cache of {bound} MiB in {took:.1?}: idle {} MiB, most {} MiB, {:.2} of the bound",
        idle / 1024,
        most / 1024,
        grown as f64 / (bound * MIB) as f64
    );
    // Requests and batches under way are small beside a cache of the full size, not beside the small one.
    let room = bound * MIB * 13 / 10 + 24 * MIB * u64::from(bound < 64);
    assert!(grown <= room, "{grown} bytes for a cache of {bound} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_at_full_speed_need_flat_memory() {
    let rows = size("SOAK_ROWS", 1_000_000);
    let (_folder, path) = catalog_file(&catalog(rows, "max_rows = 100000"));
    let (server, port) = Process::serve(&path, &[]).await;
    let sql = "SELECT count(*) FROM orders AS o LOOKUP JOIN customers AS c ON o.hot = c.id";
    let (count, took, samples) = watch(&server, port, sql).await;
    assert_eq!(count as u64, rows);
    let (warm, most) = (samples[samples.len() / 3], *samples.iter().max().unwrap());
    println!(
        "memory: {rows} rows in {took:.1?}, {:.2} Mrows/s: after a third {} MiB, most {} MiB",
        rows as f64 / took.as_secs_f64() / 1e6,
        warm / 1024,
        most / 1024
    );
    assert!(most <= warm + warm / 10 + 16 * 1024, "from {warm} to {most} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_with_a_million_wide_rows_is_refused_by_name_or_served() {
    let rows = size("SOAK_WIDE_ROWS", 100_000);
    let postgres = PostgresServer::shared();
    let fill = format!(
        "CREATE TABLE wide (id bigint, note text);
         INSERT INTO wide SELECT 1, repeat(md5(g::text), 16) FROM generate_series(1, {rows}) AS g;
         INSERT INTO wide VALUES (2, 'narrow');
         CREATE INDEX ON wide (id)"
    );
    postgres.execute(&fill).await;
    let bytes = rows * 512;
    let table = |name: &str, most: u64| {
        format!(
            "[lookup.{name}]\nconnection = \"shop\"\ntable = \"wide\"\ntimeout = \"0s\"\nmax_answer_bytes = \"{most}B\"\n\
             capacity_bytes = \"1MiB\"\n"
        )
    };
    let catalog = format!(
        "[connection.shop]\ntype = \"postgres\"\nurl = \"{}\"\n{}{}",
        postgres.url(),
        table("bounded", bytes / 10),
        table("roomy", bytes * 2)
    );
    let (_folder, path) = catalog_file(&catalog);
    let (server, port) = Process::serve(&path, &[]).await;
    let client = connect_to(port, "soak").await;
    let join = |table: &str, options: &str| {
        format!(
            "SELECT count(c.note) FROM (VALUES (CAST(2 AS bigint)), (CAST(1 AS bigint))) AS o (id) LEFT LOOKUP JOIN {table} AS c {options} ON o.id = c.id"
        )
    };
    client.query_one(&join("bounded", "WITH (on_failure = 'no_match')"), &[]).await.unwrap();
    let idle = server.resident_kib();
    let error = client.query_one(&join("bounded", ""), &[]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "HV000");
    assert!(error.message().contains("max_answer_bytes") && error.message().contains("\"bounded\""), "{error}");
    let (count, _, _) = watch(&server, port, &join("bounded", "WITH (on_failure = 'no_match')")).await;
    assert_eq!(count, 1, "the other key of the request has its answer");
    let refused = server.resident_kib();
    let (count, took, samples) = watch(&server, port, &join("roomy", "")).await;
    assert_eq!(count as u64, rows + 1);
    let most = *samples.iter().max().unwrap();
    println!(
        "memory: a key of {rows} rows and {} MiB: idle {} MiB, refused {} MiB, served in {took:.1?} with {} MiB at most",
        bytes / MIB,
        idle / 1024,
        refused / 1024,
        most / 1024
    );
    assert!((refused.saturating_sub(idle)) * 1024 < bytes / 5 + 32 * MIB, "refused: from {idle} to {refused} KiB");
    assert!((most - idle) * 1024 < bytes * 4 + 64 * MIB, "served: from {idle} to {most} KiB");
    assert!(fs::metadata(&path).is_ok());
}
