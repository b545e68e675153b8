//! 10,000 rows a second through a lookup join, cached and not, over the wire: nothing is lost, order is kept, memory is flat.
//!
//! 20 s here; `tests/soak/run` does it for five minutes. `SOAK_SECONDS` says for how long.

use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use futures::{TryStreamExt, pin_mut};
use tokio::time::{Instant, interval};
use tokio_postgres::NoTls;

use crate::support::postgres::PostgresServer;
use crate::support::process::{Process, catalog_file};

const ROWS_PER_SECOND: u64 = 10_000;
/// Keys go from 1 to this; the table has all but the last tenth.
const KEYS: u64 = 50_000;
const CUSTOMERS: u64 = 45_000;
/// What memory may grow by once the first third has gone, and the smallest growth that counts, in KiB.
const MOST_GROWTH: f64 = 1.10;
const GROWTH_SLACK_KIB: u64 = 16 * 1024;

const CATALOG: &str = r#"
[connection.shop]
type = "postgres"
url = "${URL}"
max_connections = 4

[stream.orders]
type = "generator"
rows_per_second = 10000
rows = ROWS
seed = 3
[stream.orders.columns]
n = "n"
customer_id = "1 + CAST(floor(random() * 50000) AS bigint)"

[lookup.customers]
connection = "shop"
table = "soak_customers"

[lookup.remembered]
connection = "shop"
table = "soak_customers"
[lookup.remembered.cache]
mode = "partial"
max_rows = 20000
expire_after_write = "2s"
expire_misses_after = "1s"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rows_a_second_are_complete_and_in_order_in_flat_memory() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(20, |text| text.parse().unwrap());
    let rows = seconds * ROWS_PER_SECOND;
    let postgres = PostgresServer::shared();
    let fill = format!(
        "CREATE TABLE soak_customers (id bigint PRIMARY KEY, name text, tier int);
         INSERT INTO soak_customers SELECT g, 'customer-' || g, g % 5 FROM generate_series(1, {CUSTOMERS}) AS g;
         ANALYZE soak_customers"
    );
    postgres.execute(&fill).await;
    let text = CATALOG.replace("ROWS", &rows.to_string()).replace("${URL}", &postgres.url());
    let (_folder, path) = catalog_file(&text);
    let (server, port) = Process::serve(&path, &[]).await;
    let start = server.resident_kib();

    let readers = ["customers", "remembered"].map(|lookup| SpawnedTask::spawn(read(port, lookup, rows)));
    let readers = futures::future::join_all(readers);
    pin_mut!(readers);
    let mut seconds_passed = interval(Duration::from_secs(1));
    let mut samples = vec![];
    let reports = loop {
        tokio::select! {
            reports = &mut readers => break reports,
            _ = seconds_passed.tick() => samples.push(server.resident_kib()),
        }
    };
    samples.push(server.resident_kib());

    for report in reports {
        let Report { lookup, found, elapsed, lag } = report.unwrap();
        println!(
            "soak {lookup}: {rows} rows in {:.1} s, all there and in order, {found} found a customer, at most {:.0} ms late",
            elapsed.as_secs_f64(),
            lag.as_secs_f64() * 1e3
        );
        let most = Duration::from_secs(seconds + seconds / 4 + 10);
        assert!(elapsed < most, "{lookup}: {rows} rows took {elapsed:?}: the stream could not be kept up with");
        let share = found as f64 / rows as f64;
        assert!(
            (share - CUSTOMERS as f64 / KEYS as f64).abs() < 0.01,
            "{lookup}: {share} of the rows found a customer"
        );
    }
    let (warm, end, most) = (samples[samples.len() / 3], samples[samples.len() - 1], samples.iter().max().unwrap());
    let at_30_s = samples.get(30).map_or_else(|| "not reached".to_string(), |kib| show(*kib));
    println!(
        "soak resident memory: start {}, after 30 s {at_30_s}, after a third {}, end {}, most {}",
        show(start),
        show(warm),
        show(end),
        show(*most)
    );
    let bound = (warm as f64 * MOST_GROWTH) as u64 + GROWTH_SLACK_KIB;
    assert!(*most <= bound, "resident memory grew from {} after a third of the time to {}", show(warm), show(*most));
}

/// What a client saw.
struct Report {
    lookup: &'static str,
    found: u64,
    elapsed: Duration,
    /// How late the latest row came, measured against the stream's pace from the first row on.
    lag: Duration,
}

/// Reads all rows of a query and holds each against what it must be.
async fn read(port: u16, lookup: &'static str, rows: u64) -> Report {
    let config = format!("host=127.0.0.1 port={port} user=soak");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let connection = SpawnedTask::spawn(connection);
    let query = format!(
        "SELECT o.n, o.customer_id, c.id, c.name, c.tier FROM orders AS o
         LEFT LOOKUP JOIN {lookup} AS c ON o.customer_id = c.id"
    );
    let statement = client.prepare(&query).await.unwrap();
    let answer = client.query_raw(&statement, Vec::<i64>::new()).await.unwrap();
    pin_mut!(answer);
    let begin = Instant::now();
    let (mut count, mut found, mut lag) = (0, 0, Duration::ZERO);
    while let Some(row) = answer.try_next().await.unwrap() {
        count += 1;
        let (n, customer): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(n, count, "{lookup}: row {n} came in the place of row {count}");
        let joined: (Option<i64>, Option<&str>, Option<i32>) = (row.get(2), row.get(3), row.get(4));
        if customer <= CUSTOMERS as i64 {
            let name = format!("customer-{customer}");
            assert_eq!(joined, (Some(customer), Some(name.as_str()), Some((customer % 5) as i32)), "{lookup}: row {n}");
            found += 1;
        } else {
            assert_eq!(joined, (None, None, None), "{lookup}: row {n}");
        }
        let due = Duration::from_secs_f64((n - 1) as f64 / ROWS_PER_SECOND as f64);
        lag = lag.max(begin.elapsed().saturating_sub(due));
    }
    assert_eq!(count as u64, rows, "{lookup}: rows are lost");
    drop(connection);
    Report { lookup, found, elapsed: begin.elapsed(), lag }
}

fn show(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
