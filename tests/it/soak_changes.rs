//! Random updates in PostgreSQL under a stream of lookups through a cache that hears of them: no row that is older than
//! it may be, also while the connection that listens is killed again and again.
//!
//! Short here; `tests/soak/run changes` makes 100,000 updates.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use datafusion::common::runtime::SpawnedTask;
use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, NoTls};

use crate::hearing::{KILL_LISTENERS, catalog, install_trigger, until_it_listens};
use crate::support::lookaside::Lookaside;
use crate::support::postgres::PostgresServer;

const IDS: i64 = 1000;
const WRITERS: i64 = 4;
const KILLS: u64 = 10;
/// After so long a committed change must be seen, whatever else the machine does.
const GRACE: TimeDelta = TimeDelta::seconds(2);

/// For each id, when each of its versions was committed at the latest: version 0 stands first.
type Committed = HashMap<i64, Vec<(i64, DateTime<Utc>)>>;

async fn store_client(postgres: &PostgresServer) -> Client {
    let (client, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await.unwrap();
    std::mem::forget(SpawnedTask::spawn(connection));
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_older_than_what_was_told() {
    let updates = std::env::var("SOAK_CHANGES").map_or(5_000, |text| text.parse::<u64>().unwrap());
    let postgres = Arc::new(PostgresServer::start());
    let table = "CREATE TABLE heard (id bigint PRIMARY KEY, version bigint NOT NULL)";
    postgres.execute(&format!("{table}; INSERT INTO heard SELECT i, 0 FROM generate_series(1, {IDS}) AS i")).await;
    let stream = "[stream.orders]\ntype = \"generator\"\nrows_per_second = 10000\n\
                  [stream.orders.columns]\ncustomer_id = \"1 + n * 7919 % 1000\"\nmade_at = \"now()\"\n";
    let catalog = catalog(&postgres, "heard");
    install_trigger(&postgres, &catalog).await;
    let server = Lookaside::start(&format!("{catalog}{stream}")).await;
    let client = server.connect().await;
    client
        .simple_query("SELECT c.id FROM (VALUES (1)) AS k (id) LOOKUP JOIN customers c ON c.id = k.id")
        .await
        .unwrap();
    until_it_listens(&client).await;

    let reader = SpawnedTask::spawn(read(server.connect().await));
    let done = Arc::new(AtomicU64::new(0));
    let committed: Arc<Mutex<Committed>> = Arc::default();
    let writers = (0..WRITERS).map(|writer| {
        let (done, committed, postgres) = (Arc::clone(&done), Arc::clone(&committed), Arc::clone(&postgres));
        SpawnedTask::spawn(async move { write(&postgres, writer, updates / WRITERS as u64, &done, &committed).await })
    });
    let writers = writers.collect::<Vec<_>>();
    for kill in 1..=KILLS {
        while done.load(SeqCst) < updates * kill / (KILLS + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        postgres.execute(KILL_LISTENERS).await;
    }
    for writer in writers {
        writer.join().await.unwrap();
    }
    // What was changed last is seen as well.
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.simple_query("SELECT pg_cancel_backend(pid) FROM lookaside.queries WHERE rows_in > 0").await.unwrap();
    let rows = reader.join().await.unwrap();
    let hits = client.query_one("SELECT hits FROM lookaside.lookups", &[]).await.unwrap().get::<_, i64>(0);
    report(&rows, &committed.lock().unwrap(), hits);
}

/// Rows as they come until the query is cancelled: id, version, and when the row was made, which is before its lookup.
async fn read(client: Client) -> Vec<(i64, i64, DateTime<Utc>)> {
    let sql =
        "SELECT o.customer_id, c.version, o.made_at FROM orders o LOOKUP JOIN customers c ON c.id = o.customer_id";
    let rows = client.query_raw(sql, &[] as &[i64]).await.unwrap();
    futures::pin_mut!(rows);
    let mut all = Vec::new();
    while let Ok(Some(row)) = rows.try_next().await {
        all.push((row.get(0), row.get(1), row.get(2)));
    }
    all
}

/// Raises the versions of random ids, which are this writer's own.
async fn write(postgres: &PostgresServer, writer: i64, count: u64, done: &AtomicU64, committed: &Mutex<Committed>) {
    let client = store_client(postgres).await;
    let update = client.prepare("UPDATE heard SET version = $2 WHERE id = $1").await.unwrap();
    let mut random = StdRng::seed_from_u64(writer as u64);
    for version in 1..=count as i64 {
        let id = 1 + random.random_range(0..IDS / WRITERS) * WRITERS + writer;
        client.execute(&update, &[&id, &version]).await.unwrap();
        committed.lock().unwrap().entry(id).or_default().push((version, Utc::now()));
        done.fetch_add(1, SeqCst);
    }
}

fn report(rows: &[(i64, i64, DateTime<Utc>)], committed: &Committed, hits: i64) {
    // How long before the row was made the first version that it should have had was committed.
    let late = rows.iter().filter_map(|(id, version, made_at)| {
        let newer = committed.get(id)?.iter().find(|(other, _)| other > version)?;
        Some(*made_at - newer.1).filter(|late| *late > TimeDelta::zero())
    });
    let mut late = late.collect::<Vec<_>>();
    late.sort_unstable();
    let later_than = |milliseconds| late.iter().filter(|late| **late > TimeDelta::milliseconds(milliseconds)).count();
    let longest = late.last().copied().unwrap_or_default();
    let updates = committed.values().map(Vec::len).sum::<usize>();
    println!(
        "changes: {updates} updates, {} rows looked up, {hits} of all in the cache, {} before a change was heard: {} later \
         than 10 ms, {} than 100 ms, at most {} ms",
        rows.len(),
        late.len(),
        later_than(10),
        later_than(100),
        longest.num_milliseconds(),
    );
    assert!(rows.len() > updates, "{} rows", rows.len());
    assert!(longest < GRACE, "a row was {} ms behind", longest.num_milliseconds());
}

/// How long after its commit a change is seen by the next row.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_by_the_next_row() {
    let changes = std::env::var("SOAK_CHANGES").map_or(20, |_| 100);
    let postgres = PostgresServer::start();
    postgres
        .execute("CREATE TABLE heard (id bigint PRIMARY KEY, version bigint); INSERT INTO heard VALUES (1, 0)")
        .await;
    let catalog = catalog(&postgres, "heard");
    install_trigger(&postgres, &catalog).await;
    let server = Lookaside::start(&catalog).await;
    let client = server.connect().await;
    let find = "SELECT c.version FROM (VALUES (1)) AS k (id) LOOKUP JOIN customers AS c ON c.id = k.id";
    let find = client.prepare(find).await.unwrap();
    client.query_one(&find, &[]).await.unwrap();
    until_it_listens(&client).await;
    let store = store_client(&postgres).await;
    let mut took = Vec::new();
    for version in 1..=changes {
        // It is cached.
        client.query_one(&find, &[]).await.unwrap();
        store.execute("UPDATE heard SET version = $1", &[&version]).await.unwrap();
        let committed = tokio::time::Instant::now();
        while client.query_one(&find, &[]).await.unwrap().get::<_, i64>(0) != version {
            assert!(committed.elapsed() < Duration::from_secs(20), "version {version} is not seen");
        }
        took.push(committed.elapsed());
    }
    took.sort_unstable();
    println!("changes: seen after {:?} (median), {:?} (99 of 100)", took[took.len() / 2], took[took.len() * 99 / 100]);
}
