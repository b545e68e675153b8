//! Tables of MariaDB read without a key, and conditions that it applies itself.

use std::ops::Not;
use std::time::Duration;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int32Type;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use lookaside::store::mysql::MysqlStore;
use lookaside::store::{Conditions, ScanRequest, Store, StoreError};

use crate::store_mysql::{connection, store};
use crate::store_postgres::{ints, request, table, texts};
use crate::support::mariadb::MariadbServer;

/// Longer than anything here takes, shorter than a hanging test is let hang.
const LONG: Duration = Duration::from_secs(20);

fn all(columns: &[usize]) -> ScanRequest {
    ScanRequest { columns: columns.to_vec(), filters: Conditions::default(), limit: None }
}

async fn read(store: &MysqlStore, request: &ScanRequest) -> Vec<RecordBatch> {
    assert!(store.can_scan());
    let batches = store.scan(request).await.unwrap().try_collect();
    tokio::time::timeout(LONG, batches).await.expect("rows in time").unwrap()
}

fn ids(batches: &[RecordBatch]) -> Vec<i32> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn scan_gives_the_columns_and_rows_asked_for_in_small_batches() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE scanned (id int PRIMARY KEY, name text, wide text)",
            "INSERT INTO scanned SELECT seq, CONCAT('row ', seq), REPEAT('x', 2000) FROM seq_1_to_5000",
        ])
        .await;
    let store = store(server, "scanned").await;
    let batches = read(&store, &all(&[0, 2])).await;
    assert_eq!(ids(&batches), (1..=5000).collect::<Vec<i32>>());
    let widest = batches.iter().map(RecordBatch::num_rows).max().unwrap();
    assert!((100..200).contains(&widest), "a quarter of a mebibyte of wide rows is a batch, found {widest} rows");
    assert!(read(&store, &all(&[0])).await.iter().all(|batch| batch.num_rows() <= 1024));

    let filter: Expr = col("id").gt(lit(4990_i32)).and(col("name").not_eq(lit("row 4995")));
    assert!(store.can_filter(&filter));
    let request = ScanRequest { filters: vec![filter].into(), ..all(&[0]) };
    assert_eq!(ids(&read(&store, &request).await), [4991, 4992, 4993, 4994, 4996, 4997, 4998, 4999, 5000]);
    assert_eq!(read(&store, &ScanRequest { limit: Some(7), ..all(&[]) }).await[0].num_rows(), 7);
    assert!(read(&store, &ScanRequest { limit: Some(0), ..all(&[0]) }).await.is_empty());
}

#[tokio::test]
async fn dropped_scan_is_ended_at_the_server_and_frees_its_connection() {
    let server = MariadbServer::shared();
    server.execute(&["CREATE VIEW endless_scan AS SELECT CAST(seq AS INT) AS n FROM seq_1_to_1000000000000"]).await;
    let endless = MysqlStore::connect(connection(server, 1), &table("endless_scan")).await.unwrap();
    let mut rows = endless.scan(&all(&[0])).await.unwrap();
    assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 1024);
    drop(rows);
    // The only connection of the pool is free again, and nothing runs on the server.
    let first = read(&endless, &ScanRequest { limit: Some(1), ..all(&[]) }).await;
    assert_eq!(first[0].num_rows(), 1);
    let ended = server.until_running("%endless_scan%", 0);
    tokio::time::timeout(LONG, ended).await.expect("the statement was ended");
}

#[tokio::test]
async fn scan_of_a_killed_server_ends_with_unavailable_and_the_next_one_works() {
    let server = MariadbServer::start();
    server.execute(&["CREATE VIEW endless AS SELECT CAST(seq AS INT) AS n FROM seq_1_to_1000000000000"]).await;
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
    assert_eq!(read(&store, &ScanRequest { limit: Some(2), ..all(&[0]) }).await[0].num_rows(), 2);
}

/// Each condition, as an expression and as PostgreSQL would write it, selects the same rows there and here.
#[tokio::test]
async fn pushed_conditions_select_what_they_select_here() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE filtered (id int NOT NULL, n int, big bigint unsigned, m decimal(9,2), t varchar(20) COLLATE utf8mb4_general_ci,
               p char(5), l varchar(9) CHARACTER SET latin1, b bit(1), d date, dt datetime(6), ts timestamp(6) NULL, e enum('x','X') COLLATE utf8mb4_bin, u uuid)",
            "INSERT INTO filtered VALUES
               (1, 1, 0, 1.50, 'x', 'a', 'é', b'1', '2024-02-29', '2024-02-29 12:00:00.000001', '2024-02-29 12:00:00.000001', 'x', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
               (2, -1, 18446744073709551615, -1.50, 'X', 'A', 'E', b'0', '0001-01-01', '0001-01-01', '1970-01-01 00:00:01', 'X', NULL),
               (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
               (4, 0, 7, 0, 'x ', 'a', 'é', b'1', '9999-12-31', '9999-12-31 23:59:59', '2038-01-19 03:14:07', 'x', NULL),
               (5, 2147483647, 7, 1234567.89, 'é', '', '', b'0', '1970-01-01', '1970-01-01', '2000-01-01', 'x', NULL)",
        ])
        .await;
    let store = store(server, "filtered").await;
    let date = |days| lit(ScalarValue::Date32(Some(days)));
    let moment =
        |micros, zone: Option<&str>| lit(ScalarValue::TimestampMicrosecond(Some(micros), zone.map(Into::into)));
    let decimal = |value| lit(ScalarValue::Decimal128(Some(value), 9, 2));
    let leap_noon = 1_709_208_000_000_001;
    let filters = [
        col("n").gt(lit(0_i32)),
        col("n").lt_eq(lit(-1_i32)),
        col("n").gt(lit(0_i32)).not(),
        col("n").in_list(vec![lit(1_i32), lit(-1_i32)], true),
        col("n").between(lit(0_i32), lit(1_i32)),
        col("n").is_null(),
        col("n").is_not_null().and(col("n").not_eq(lit(1_i32))),
        col("n").gt(lit(0_i32)).is_unknown(),
        col("n").gt(lit(0_i32)).is_not_true(),
        col("big").gt(lit(ScalarValue::Decimal128(Some(-1), 20, 0))),
        col("big").eq(lit(ScalarValue::Decimal128(Some(18_446_744_073_709_551_615), 20, 0))),
        col("m").gt_eq(decimal(150)),
        col("m").lt(decimal(-149)),
        // The collation folds capitals and accents and ignores blanks; conditions do not.
        col("t").eq(lit("x")),
        col("t").not_eq(lit("x")),
        col("t").in_list(vec![lit("X"), lit("e")], false),
        col("t").eq(lit("é")),
        col("p").eq(lit("a")),
        col("p").eq(lit("a ")),
        col("p").eq(lit("")),
        col("l").eq(lit("é")),
        col("l").eq(lit("漢")),
        col("e").eq(lit("X")),
        col("u").eq(lit("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        col("t").eq(col("e")),
        col("b"),
        col("b").not(),
        col("b").eq(lit(false)),
        col("b").is_not_true(),
        col("d").gt_eq(date(19_782)),
        col("d").lt(date(0)),
        col("d").is_null(),
        col("dt").eq(moment(leap_noon, None)),
        col("dt").lt(moment(0, None)),
        col("ts").eq(moment(leap_noon, Some("+00:00"))),
        col("ts").gt(moment(leap_noon, Some("+00:00"))),
        col("ts").lt(moment(253_402_300_799_000_000, Some("+00:00"))),
    ];
    let keys = || vec![ints(&[1, 2, 3, 4, 5])];
    let every = (0..13).collect::<Vec<_>>();
    let answer = store.lookup(&request(&[0], &every, &[], keys())).await.unwrap();
    assert_eq!(answer.rows.num_rows(), 5);
    for filter in filters {
        assert!(store.can_filter(&filter), "{filter}");
        let frame = SessionContext::new().read_batch(answer.rows.clone()).unwrap();
        let frame = frame.filter(filter.clone()).unwrap_or_else(|error| panic!("{filter}: {error}"));
        let mut here = ids(&frame.select_columns(&["id"]).unwrap().collect().await.unwrap());
        here.sort_unstable();
        let scanned = ScanRequest { filters: vec![filter.clone()].into(), ..all(&[0]) };
        let mut there = ids(&read(&store, &scanned).await);
        there.sort_unstable();
        assert_eq!(there, here, "{filter}");
        let pushed = store.lookup(&request(&[0], &[0], std::slice::from_ref(&filter), keys())).await.unwrap();
        let expected = here.iter().map(|id| format!("{}: {id}", id - 1)).collect::<Vec<_>>();
        assert_eq!(texts(&pushed), expected, "{filter}");
    }
    let both = [col("n").gt(lit(0_i32)), col("t").not_eq(lit("é"))];
    let pushed = store.lookup(&request(&[0], &[0], &both, keys())).await.unwrap();
    assert_eq!(texts(&pushed), ["0: 1"], "several filters must all hold");
}

#[tokio::test]
async fn conditions_of_doubtful_meaning_are_applied_here() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE doubtful (t text, f double, y year, n int, d date, j json, m decimal(9,2), b blob, i inet6)",
        ])
        .await;
    let store = store(server, "doubtful").await;
    let doubtful = [
        col("t").lt(lit("x")),
        col("t").like(lit("x%")),
        col("t").eq(lit("zero\0byte")),
        col("f").gt(lit(1.0)),
        col("y").eq(lit(5_i32)),
        col("j").eq(lit("{}")),
        col("unknown").eq(lit(1)),
        (col("n") + lit(1)).eq(lit(2)),
        col("n").eq(lit("1")),
        col("m").eq(lit(1)),
        col("d").eq(lit(ScalarValue::Date32(Some(i32::MAX)))),
        col("b").eq(lit(ScalarValue::Binary(Some(vec![1])))),
        col("n").gt(lit(1)).and(col("f").gt(lit(1.0))),
        col("n").in_list(vec![], false),
    ];
    for filter in doubtful {
        assert!(!store.can_filter(&filter), "{filter}");
    }
}
