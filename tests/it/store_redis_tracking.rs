//! What Redis tells of changes: as a stream, and as a cache hears of it.

use std::time::Duration;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use futures::StreamExt;
use lookaside::store::redis::{
    Address, RedisConfig, RedisConnection, RedisServers, RedisStore, RedisTable, RedisValue,
};
use lookaside::store::{Change, Changes, Store, StoreError};

use crate::store_redis::{catalog, config, store, table};
use crate::support::lookaside::Lookaside;
use crate::support::redis::{RedisCluster, RedisServer};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

fn customers() -> RedisTable {
    table("t:{region}:{id}", RedisValue::Hash, &[("name", "text"), ("id", "bigint"), ("region", "text")])
}

async fn next(changes: &mut Changes) -> Option<Result<Change, StoreError>> {
    tokio::time::timeout(LONG, changes.next()).await.expect("news in time")
}

async fn begin(store: &RedisStore) -> Changes {
    let mut changes = store.changes().expect("a store that tells of changes");
    assert!(matches!(next(&mut changes).await, Some(Ok(Change::Begun))));
    changes
}

/// The ids that are told next, some at once or one after the other, until there are as many.
async fn told(changes: &mut Changes, count: usize) -> Vec<i64> {
    let mut ids = Vec::new();
    while ids.len() < count {
        match next(changes).await {
            Some(Ok(Change::Keys { columns, keys })) => {
                assert_eq!(columns, [2, 1]);
                assert!(keys[0].as_string_view().iter().all(|region| region == Some("eu")));
                ids.extend_from_slice(keys[1].as_primitive::<Int64Type>().values());
            }
            other => panic!("expected keys, found {other:?}"),
        }
    }
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn written_deleted_and_expired_keys_are_told_and_no_others() {
    let server = RedisServer::start();
    let store = store(&server, customers()).await.with_tracking().await.unwrap();
    let mut changes = begin(&store).await;
    // Not of this table: another prefix, another form, no number.
    for key in ["other:eu:1", "t:eu", "t:eu:one", "t:eu:007"] {
        server.run(&["SET", key, "x"]).await;
    }
    server.run(&["HSET", "t:eu:1", "name", "Ann"]).await;
    assert_eq!(told(&mut changes, 1).await, [1]);
    server.run(&["HSET", "t:eu:1", "name", "Bob"]).await;
    assert_eq!(told(&mut changes, 1).await, [1], "again, though nobody has asked since");
    server.run(&["DEL", "t:eu:1"]).await;
    assert_eq!(told(&mut changes, 1).await, [1]);
    server.run(&["SET", "t:eu:2", "x", "PX", "50"]).await;
    assert_eq!(told(&mut changes, 2).await, [2, 2], "written, expired");
    let mut many = redis::Pipeline::new();
    (0..5000).for_each(|id| {
        many.cmd("SET").arg(format!("t:eu:{id}")).arg("x").ignore();
    });
    many.exec_async(&mut server.connect().await).await.unwrap();
    assert_eq!(told(&mut changes, 5000).await, (0..5000).collect::<Vec<_>>());
    server.run(&["FLUSHALL"]).await;
    assert!(matches!(next(&mut changes).await, Some(Ok(Change::Everything))));
}

#[tokio::test]
async fn broken_connection_ends_the_news_and_others_can_be_asked_for() {
    let server = RedisServer::start();
    let store = store(&server, customers()).await.with_tracking().await.unwrap();
    for _ in 0..3 {
        let mut changes = begin(&store).await;
        server.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        assert!(matches!(next(&mut changes).await, Some(Err(StoreError::Unavailable { .. }))));
        assert!(next(&mut changes).await.is_none());
    }
    server.stop();
    let mut changes = store.changes().unwrap();
    assert!(matches!(next(&mut changes).await, Some(Err(StoreError::Unavailable { .. }))));
    server.start_again();
    drop(begin(&store).await);
    assert!(crate::store_redis::store(&server, customers()).await.changes().is_none(), "not asked to");
}

#[tokio::test]
async fn server_that_says_nothing_to_a_ping_ends_the_news() {
    let server = RedisServer::start();
    let store = store(&server, customers()).await.with_tracking().await.unwrap();
    let mut changes = begin(&store).await;
    server.freeze();
    match next(&mut changes).await {
        Some(Err(StoreError::Unavailable { message })) => {
            assert!(message.ends_with("no answer to a ping"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    server.thaw();
}

#[tokio::test]
async fn every_master_of_a_cluster_tells() {
    let cluster = RedisCluster::start();
    let address = |port| Address { host: "127.0.0.1".to_string(), port };
    let seeds = vec![address(cluster.servers[0].port())];
    let config = RedisConfig { servers: RedisServers::Cluster(seeds), ..config(&cluster.servers[0]) };
    let connection = RedisConnection::try_new("cache".to_string(), config).unwrap();
    let store = RedisStore::connect(connection, customers()).await.unwrap().with_tracking().await.unwrap();
    let mut changes = begin(&store).await;
    let mut write = cluster.connect().await;
    for id in 0..100 {
        redis::cmd("SET").arg(format!("t:eu:{id}")).arg("x").exec_async(&mut write).await.unwrap();
    }
    assert_eq!(told(&mut changes, 100).await, (0..100).collect::<Vec<_>>());
    cluster.servers[2].stop();
    assert!(matches!(next(&mut changes).await, Some(Err(StoreError::Unavailable { .. }))));
}

#[tokio::test]
async fn what_is_written_is_seen_by_the_next_row_though_the_cache_lasts_an_hour() {
    let server = RedisServer::start();
    let cache =
        "cache = { mode = \"partial\", expire_after_write = \"1h\", expire_misses_after = \"1h\", tracking = true }";
    let lookaside = Lookaside::start(&catalog(&server, cache)).await;
    let client = lookaside.connect().await;
    let query = "SELECT c.name FROM (VALUES (7::bigint)) AS o (id) LEFT LOOKUP JOIN customers c ON o.id = c.id";
    let name = async || client.query_one(query, &[]).await.unwrap().get::<_, Option<String>>(0);
    assert_eq!(name().await, None);
    let hears = "SELECT hears_since IS NOT NULL FROM lookaside.lookups WHERE name = 'customers'";
    while !client.query_one(hears, &[]).await.unwrap().get::<_, bool>(0) {}
    let mut late = 0;
    for round in 0..100 {
        let written = format!("name {round}");
        server.run(&["HSET", "sql:customer:7", "name", &written]).await;
        let since = tokio::time::Instant::now();
        while name().await.as_ref() != Some(&written) {
            assert!(since.elapsed() < LONG, "{written} was never seen");
        }
        late += usize::from(since.elapsed() > Duration::from_millis(100));
    }
    assert!(late <= 1, "{late} of 100 were seen later than after 100 ms");
    let hits = "SELECT hits FROM lookaside.lookups WHERE name = 'customers'";
    assert_eq!(name().await.as_deref(), Some("name 99"));
    let before = client.query_one(hits, &[]).await.unwrap().get::<_, i64>(0);
    name().await;
    assert_eq!(client.query_one(hits, &[]).await.unwrap().get::<_, i64>(0), before + 1, "and is cached all the same");
    lookaside.stop().await;
}
