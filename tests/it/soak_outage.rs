//! A store that refuses everything for a while, under ten queries and a circuit breaker: it is left alone while it is
//! down, and used at full rate once it is back.
//!
//! Short here; `tests/soak/run outage` keeps the store down for 30 s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use futures::{TryStreamExt, pin_mut};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::lookaside::{Lookaside, connect_to};
use crate::support::postgres::PostgresServer;

const QUERIES: u64 = 10;
const ROWS_PER_SECOND: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn store_that_is_down_is_probed_once_in_open_for_and_used_again_when_it_is_back() {
    let down_for = std::env::var("SOAK_SECONDS").map_or(6, |text| text.parse().unwrap());
    let open_for = 2;
    let postgres = PostgresServer::start();
    postgres
        .execute("CREATE TABLE customers (id bigint PRIMARY KEY, name text); INSERT INTO customers SELECT g, 'c' || g FROM generate_series(1, 1000) AS g")
        .await;
    let catalog = format!(
        r#"
[connection.shop]
type = "postgres"
url = "{}"
max_connections = 4

[stream.orders]
type = "generator"
rows_per_second = {ROWS_PER_SECOND}
[stream.orders.columns]
n = "n"
customer_id = "1 + n % 1000"

[lookup.customers]
connection = "shop"
table = "customers"
on_failure = "no_match"
circuit_breaker = {{ failures = 5, open_for = "{open_for}s" }}
"#,
        postgres.url()
    );
    let server = Lookaside::start(&catalog).await;
    let (found, missed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let port = server.port;
    let readers: Vec<_> =
        (0..QUERIES).map(|_| SpawnedTask::spawn(read(port, Arc::clone(&found), Arc::clone(&missed)))).collect();
    until(|| found.load(SeqCst) > QUERIES * ROWS_PER_SECOND).await;

    postgres.stop();
    // Whoever knocks at the store's door is counted and sent away.
    let knocks = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind(("127.0.0.1", postgres.port())).await.unwrap();
    let door = {
        let knocks = Arc::clone(&knocks);
        SpawnedTask::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                knocks.fetch_add(1, SeqCst);
                drop(stream);
            }
        })
    };
    let missed_before = missed.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (open, since) = (knocks.load(SeqCst), Instant::now());
    tokio::time::sleep(Duration::from_secs(down_for - 2)).await;
    let (probes, passed) = (knocks.load(SeqCst) - open, since.elapsed().as_secs_f64());
    let most = (passed / f64::from(open_for)).ceil() as u64 + 1;
    println!(
        "outage: {open} attempts until the breaker was open, then {probes} in {passed:.1} s with open_for {open_for} s"
    );
    assert!(probes <= most, "{probes} attempts in {passed} s");
    let rows = missed.load(SeqCst) - missed_before;
    assert!(rows > QUERIES * ROWS_PER_SECOND * (down_for - 2) / 2, "rows went on without a match: {rows}");

    drop(door);
    postgres.start_again();
    let back = Instant::now();
    // Full rate: in half a second, nine rows of ten are found, and as many as are due.
    let mut window = VecDeque::from([(found.load(SeqCst), missed.load(SeqCst))]);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        window.push_back((found.load(SeqCst), missed.load(SeqCst)));
        let first = if window.len() > 10 { window.pop_front().unwrap() } else { continue };
        let last = window[window.len() - 1];
        let (found, missed) = (last.0 - first.0, last.1 - first.1);
        if missed == 0 && found >= QUERIES * ROWS_PER_SECOND / 2 * 9 / 10 {
            break;
        }
        assert!(back.elapsed() < Duration::from_secs(60), "{found} found and {missed} not in half a second");
    }
    println!("outage: full rate {:.1} s after the store's return", back.elapsed().as_secs_f64());
    assert!(back.elapsed() < Duration::from_secs(5) + Duration::from_secs(3), "{:?}", back.elapsed());
    for reader in readers {
        drop(reader);
    }
    server.stop().await;
}

async fn read(port: u16, found: Arc<AtomicU64>, missed: Arc<AtomicU64>) {
    let client = connect_to(port, "outage").await;
    let sql = "SELECT o.n, c.name FROM orders AS o LEFT LOOKUP JOIN customers AS c ON o.customer_id = c.id";
    let rows = client.query_raw(sql, Vec::<i64>::new()).await.unwrap();
    pin_mut!(rows);
    let mut last = 0;
    while let Some(row) = rows.try_next().await.unwrap() {
        let n: i64 = row.get(0);
        assert_eq!(n, last + 1, "rows are complete and in order throughout");
        last = n;
        match row.get::<_, Option<&str>>(1) {
            Some(_) => found.fetch_add(1, SeqCst),
            None => missed.fetch_add(1, SeqCst),
        };
    }
}

async fn until(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
