//! Tables of PostgreSQL read without a key.

use std::time::Duration;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::logical_expr::{Expr, col, lit};
use futures::{StreamExt, TryStreamExt};
use lookaside::store::postgres::PostgresStore;
use lookaside::store::{Conditions, KeyEquality, ScanRequest, Store, StoreError};

use crate::store_postgres::{OPTIONS, Options, connection, store, table};
use crate::support::postgres::PostgresServer;

/// Longer than anything here takes, shorter than a hanging test is let hang.
const LONG: Duration = Duration::from_secs(20);

fn all(columns: &[usize]) -> ScanRequest {
    ScanRequest { columns: columns.to_vec(), filters: Conditions::default(), limit: None }
}

async fn read(store: &PostgresStore, request: &ScanRequest) -> Vec<RecordBatch> {
    assert!(store.can_scan());
    let batches = store.scan(request).await.unwrap().try_collect();
    tokio::time::timeout(LONG, batches).await.expect("rows in time").unwrap()
}

fn bigints(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn scan_gives_the_columns_and_rows_asked_for_in_small_batches() {
    let server = PostgresServer::shared();
    server.execute("CREATE TABLE scanned AS SELECT n AS id, 'row ' || n AS name, repeat('x', 2000) AS wide FROM generate_series(1, 5000) AS n; ALTER TABLE scanned ALTER COLUMN id TYPE int8").await;
    let store = store(server, "scanned").await;
    let batches = read(&store, &all(&[0, 2])).await;
    assert_eq!(bigints(&batches), (1..=5000).collect::<Vec<i64>>());
    assert!(batches.iter().all(|batch| batch.num_rows() <= 1024 && batch.num_columns() == 2));
    let widest = batches.iter().map(RecordBatch::num_rows).max().unwrap();
    assert!((500..600).contains(&widest), "a mebibyte of wide rows is a batch, found {widest} rows");

    let filter: Expr = col("id").gt(lit(4990_i64)).and(col("name").not_eq(lit("row 4995")));
    assert!(store.can_filter(&filter));
    let request = ScanRequest { filters: vec![filter].into(), ..all(&[0]) };
    assert_eq!(bigints(&read(&store, &request).await), [4991, 4992, 4993, 4994, 4996, 4997, 4998, 4999, 5000]);
    assert_eq!(read(&store, &ScanRequest { limit: Some(7), ..all(&[]) }).await[0].num_rows(), 7);
    assert!(read(&store, &ScanRequest { limit: Some(0), ..all(&[0]) }).await.is_empty());
}

#[tokio::test]
async fn dropped_scan_is_cancelled_at_the_server_and_frees_its_connection() {
    let server = PostgresServer::shared();
    server.execute("CREATE VIEW endless_scan AS SELECT generate_series(1, 1000000000000) AS n").await;
    let connection = connection(server, Options { max_connections: 1, ..OPTIONS });
    let endless = PostgresStore::connect(connection, &table("endless_scan")).await.unwrap();
    let mut rows = endless.scan(&all(&[0])).await.unwrap();
    assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 1024);
    drop(rows);
    // The only connection of the pool is free again, and nothing runs on the server.
    let first = tokio::time::timeout(LONG, read(&endless, &ScanRequest { limit: Some(1), ..all(&[0]) })).await;
    assert_eq!(bigints(&first.expect("a connection in time")), [1]);
    let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%endless_scan%' AND pid <> pg_backend_pid()";
    let ended = async { while server.query(active).await[0][0].as_deref() != Some("0") {} };
    tokio::time::timeout(LONG, ended).await.expect("the statement was cancelled");
}

#[tokio::test]
async fn scan_of_a_killed_server_ends_with_unavailable_and_the_next_one_works() {
    let server = PostgresServer::start();
    server.execute("CREATE VIEW endless AS SELECT generate_series(1, 1000000000000) AS n").await;
    let store = store(&server, "endless").await;
    let mut rows = store.scan(&all(&[0])).await.unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    server.stop();
    let error = loop {
        match tokio::time::timeout(LONG, rows.next()).await.expect("an end in time") {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the scan ended as if it were complete"),
        }
    };
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    server.start_again();
    assert_eq!(bigints(&read(&store, &ScanRequest { limit: Some(2), ..all(&[0]) }).await), [1, 2]);
    // A connection that was lost while it lay idle is not noticed.
    server.stop();
    server.start_again();
    assert_eq!(bigints(&read(&store, &ScanRequest { limit: Some(2), ..all(&[0]) }).await), [1, 2]);
}

#[tokio::test]
async fn columns_with_an_equality_of_postgresqls_own_are_known() {
    let server = PostgresServer::shared();
    server
        .execute(
            "CREATE COLLATION free (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE DOMAIN free_text AS text COLLATE free;
             CREATE TABLE equality_kinds (id int8, name text, padded char(4), doc jsonb, free text COLLATE free,
                domained free_text, raw json, tags text[], ref uuid, seen varchar(10) COLLATE \"C\")",
        )
        .await;
    let store = store(server, "equality_kinds").await;
    let kinds = (0..10).map(|column| match store.key_equality(column) {
        KeyEquality::ByValue => "value".to_string(),
        KeyEquality::OfStore { reason } => format!("store: {reason}"),
        KeyEquality::None { reason } => format!("none: {reason}"),
    });
    let collation = "store: its collation holds different texts for equal";
    let expected = [
        "value",
        "value",
        "store: its type character(4) has an equality of its own",
        "store: equal values of type jsonb need not look the same",
        collation,
        collation,
        "none: type json has no equality",
        "none: keys of type text[] are not supported",
        "value",
        "value",
    ];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    assert!(matches!(store.key_equality(10), KeyEquality::None { .. }));
}
