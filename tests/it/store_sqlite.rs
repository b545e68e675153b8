//! The SQLite store over files that the tests make.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringViewArray};
use datafusion::arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use lookaside::pg_type::PgType;
use lookaside::store::sqlite::{SqliteConfig, SqliteConnection, SqliteStore};
use lookaside::store::{Conditions, ScanRequest, SqlTable, Store, StoreError, contract};
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

use crate::store_postgres::{request, table, texts};
use crate::support::lookaside::Lookaside;
use crate::support::raw::DEADLINE;

/// A database in a folder of its own.
struct Database {
    folder: TempDir,
}

impl Database {
    fn with(sql: &str) -> Database {
        let database = Database { folder: tempfile::tempdir().unwrap() };
        database.open().execute_batch(sql).unwrap();
        database
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("reference.db")
    }

    /// For writing, as its owner does.
    fn open(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn connection(&self, max_connections: usize) -> Arc<SqliteConnection> {
        SqliteConnection::try_new("local", &SqliteConfig { path: self.path(), max_connections }).unwrap()
    }

    async fn store(&self, table: &SqlTable) -> SqliteStore {
        SqliteStore::connect(self.connection(4), table).await.unwrap()
    }
}

fn bigints(values: impl IntoIterator<Item = i64>) -> Vec<ArrayRef> {
    vec![Arc::new(Int64Array::from_iter_values(values))]
}

fn strings<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Vec<ArrayRef> {
    vec![Arc::new(StringViewArray::from_iter_values(values))]
}

#[tokio::test]
async fn contract_holds_with_an_index_and_without() {
    let columns = "id bigint, region text, name text, note text";
    let database = Database::with(&format!(
        "CREATE TABLE plain ({columns}); CREATE TABLE indexed ({columns}); CREATE INDEX i ON indexed (id, region);
         CREATE TABLE \"we\"\"ird; DROP TABLE plain; --\" ({columns})"
    ));
    let rows = contract::table().unwrap();
    let names = ["plain", "indexed", "we\"ird; DROP TABLE plain; --"];
    let mut writer = database.open();
    let transaction = writer.transaction().unwrap();
    for name in names {
        let insert = format!("INSERT INTO \"{}\" VALUES (?, ?, ?, ?)", name.replace('"', "\"\""));
        let mut insert = transaction.prepare(&insert).unwrap();
        for row in 0..rows.num_rows() {
            let id = rows.column(0).as_primitive::<Int64Type>();
            let id = if id.is_null(row) { Value::Null } else { Value::Integer(id.value(row)) };
            let text = |column: usize| {
                let texts = rows.column(column).as_string_view();
                if texts.is_null(row) { Value::Null } else { Value::Text(texts.value(row).to_string()) }
            };
            insert.execute([id, text(1), text(2), text(3)]).unwrap();
        }
    }
    transaction.commit().unwrap();
    for name in names {
        contract::check(&database.store(&table(name)).await, contract::RowOrder::Any).await.unwrap();
    }
    let indexed = database.store(&table("indexed")).await;
    assert_eq!(indexed.indexed_columns().await.unwrap(), Some(vec![0]));
    assert_eq!(database.store(&table("plain")).await.indexed_columns().await.unwrap(), Some(vec![]));
}

/// Declared type, what is put in, and how it is shown; the key finds its row too, where it may be a key.
const VALUES: [(&str, &[(&str, &str)]); 16] = [
    ("INTEGER", &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")]),
    ("smallint", &[("7", "7")]),
    ("REAL", &[("0.1", "0.1"), ("-5e-324", "-5e-324"), ("3", "3.0")]),
    ("VARCHAR(3)", &[("'longer than three'", "longer than three"), ("''", "")]),
    ("TEXT", &[("'Ω 漢字 🦀'", "Ω 漢字 🦀"), ("'12'", "12")]),
    ("BLOB", &[("x'00ff27'", "00ff27"), ("x''", "")]),
    ("BOOLEAN", &[("1", "true"), ("0", "false"), ("TRUE", "true")]),
    ("DECIMAL(12,2)", &[("12.5", "12.50"), ("7", "7.00"), ("-0.01", "-0.01")]),
    ("numeric(40,5) ", &[("12.5", "12.50000")]),
    ("DATE", &[("'2024-02-29'", "2024-02-29")]),
    ("TIME", &[("'12:34:56.789'", "12:34:56.789")]),
    ("DATETIME", &[("'2024-02-29 12:34:56'", "2024-02-29T12:34:56")]),
    ("timestamptz", &[("'2024-02-29 12:34:56+00'", "2024-02-29T12:34:56Z")]),
    ("uuid", &[("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")]),
    ("JSON", &[("'{\"a\": [1]}'", "{\"a\": [1]}"), ("'7'", "7"), ("'1.5'", "1.5")]),
    ("jsonb", &[("'[1]'", "[1]")]),
];

#[tokio::test]
async fn values_of_every_type_come_as_they_are_and_find_their_rows() {
    for (declared, values) in VALUES {
        let database = Database::with(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared})"));
        for (id, (value, _)) in values.iter().enumerate() {
            database.open().execute_batch(&format!("INSERT INTO t VALUES ({id}, {value})")).unwrap();
        }
        database.open().execute_batch("INSERT INTO t VALUES (99, NULL)").unwrap();
        let store = database.store(&table("t")).await;
        assert_eq!(store.primary_key(), [0]);
        let ids = (0..values.len() as i64).chain([99]);
        let answer = store.lookup(&request(&[0], &[1], &[], bigints(ids))).await.unwrap();
        let shown = values.iter().map(|(_, shown)| *shown).chain(["NULL"]).enumerate();
        let shown = shown.map(|(id, shown)| format!("{id}: {shown}")).collect::<Vec<_>>();
        assert_eq!(texts(&answer), shown, "{declared}");
        if store.key_equality(1).check_key("v").is_err() {
            continue;
        }
        let keys = answer.rows.column(0).slice(0, values.len());
        let found = store.lookup(&request(&[1], &[0], &[], vec![keys])).await.unwrap();
        let expected = (0..values.len()).map(|id| format!("{id}: {id}")).collect::<Vec<_>>();
        if declared != "BOOLEAN" {
            assert_eq!(texts(&found), expected, "{declared}");
        }
    }
}

#[tokio::test]
async fn a_value_of_another_kind_than_its_column_is_an_error_with_its_name() {
    let columns = "id INTEGER PRIMARY KEY, i INTEGER, f REAL, t TEXT, b BLOB, d DATE, o BOOLEAN, j JSON";
    let database = Database::with(&format!(
        "CREATE TABLE t ({columns});
         INSERT INTO t VALUES (1, 'seven', 'x', x'ff', 'text', 'yesterday', 2, '{{'), (2, 1.5, x'00', 'ok', 5, 20240229, 'maybe', 7)"
    ));
    let store = database.store(&table("t")).await;
    for id in [1, 2] {
        for (column, name) in [(1, "i"), (2, "f"), (4, "b"), (5, "d"), (6, "o"), (7, "j")] {
            if (id, name) == (2, "j") {
                // A number is JSON.
                continue;
            }
            let error = store.lookup(&request(&[0], &[column], &[], bigints([id]))).await.unwrap_err();
            assert!(error.is_about_keys(), "{name}: {error:?}");
            let error = error.into_error("t");
            assert!(error.message().starts_with(&format!("column \"{name}\": ")), "{error}");
        }
    }
    let error = store.lookup(&request(&[0], &[3], &[], bigints([1]))).await.unwrap_err().into_error("t");
    assert_eq!(error.message(), "column \"t\": a blob cannot be read as type text: 1 bytes");
}

#[tokio::test]
async fn columns_whose_type_cannot_be_told_must_be_declared() {
    let database = Database::with(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, place POINT, bare); INSERT INTO t VALUES (1, 'here', 5);
         CREATE VIEW v AS SELECT id, id * 2 AS double FROM t",
    );
    let connect = async |table: &SqlTable| SqliteStore::connect(database.connection(1), table).await;
    let refused = async |table: &SqlTable| connect(table).await.unwrap_err().into_error("t");
    let error = refused(&table("t")).await;
    assert_eq!(error.message(), "column \"place\" of table \"t\" has the unknown type \"POINT\"");
    assert!(error.hint().unwrap().contains("types = { place = \"text\" }"), "{error:?}");
    let types = vec![("place".to_string(), PgType::Text), ("bare".to_string(), PgType::Int8)];
    let store = connect(&SqlTable { types, ..table("t") }).await.unwrap();
    let answer = store.lookup(&request(&[0], &[1, 2], &[], bigints([1]))).await.unwrap();
    assert_eq!(texts(&answer), ["0: here | 5"]);
    let only = connect(&SqlTable { columns: Some(vec!["id".to_string()]), ..table("t") }).await.unwrap();
    assert_eq!(only.schema().fields().len(), 1);
    let error = refused(&table("v")).await;
    assert_eq!(error.message(), "column \"double\" of table \"v\" has no declared type");
    let error = refused(&table("nothing")).await;
    assert_eq!((error.sqlstate(), error.message()), ("42P01", "table \"nothing\" does not exist"));
    let error = refused(&SqlTable { columns: Some(vec!["idd".to_string()]), ..table("t") }).await;
    assert_eq!((error.sqlstate(), error.message()), ("42703", "column \"idd\" of table \"t\" does not exist"));
}

#[tokio::test]
async fn hostile_keys_are_plain_values() {
    let pieces =
        ["'", "\"", ";", "--", "\\", "{id}", "{{", "}}", "%", "%s", "\r\n", "$1", "?1", ":a", "@b", "NULL", "Ω"];
    let mut hostile = (0..10_000)
        .map(|i: usize| format!("{}{i}{}{}", pieces[i % 17], pieces[i / 17 % 17], pieces[i / 289 % 17]))
        .collect::<Vec<_>>();
    hostile.push("x".repeat(64 << 10));
    let database = Database::with("CREATE TABLE t (id INTEGER, name TEXT)");
    let mut writer = database.open();
    let transaction = writer.transaction().unwrap();
    for (id, name) in hostile.iter().enumerate() {
        transaction.execute("INSERT INTO t VALUES (?, ?)", (id as i64, name)).unwrap();
    }
    // A zero byte, which SQLite's texts may hold and PostgreSQL's may not.
    transaction.execute("INSERT INTO t VALUES (-1, ?)", ["no\0thing"]).unwrap();
    transaction.commit().unwrap();
    let schema = || -> Vec<String> {
        let reader = database.open();
        let mut statement = reader.prepare("SELECT sql FROM sqlite_schema").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let before = (schema(), std::fs::read(database.path()).unwrap());
    let store = database.store(&table("t")).await;
    for chunk in [1, 7, 5_000] {
        for (start, keys) in hostile.chunks(chunk).enumerate().take(2_000) {
            let answer = store.lookup(&request(&[1], &[0, 1], &[], strings(keys))).await.unwrap();
            assert_eq!(answer.rows.num_rows(), keys.len());
            for (row, key) in answer.key_of_row.values().iter().enumerate() {
                let id = answer.rows.column(0).as_primitive::<Int64Type>().value(row);
                assert_eq!(id as usize, start * chunk + *key as usize);
                assert_eq!(answer.rows.column(1).as_string_view().value(row), keys[*key as usize]);
            }
        }
    }
    assert!((schema(), std::fs::read(database.path()).unwrap()) == before, "the file is as it was");
    let zero = store.lookup(&request(&[1], &[0], &[], strings(["no\0thing"]))).await.unwrap();
    assert_eq!(texts(&zero), ["0: -1"]);
    let error = store.lookup(&request(&[0], &[1], &[], bigints([-1]))).await.unwrap_err().into_error("t");
    assert!(error.message().starts_with("column \"name\": "), "{error}");
}

#[tokio::test]
async fn wide_rows_and_big_values_come_whole_or_not_at_all() {
    let columns = (0..500).map(|i| format!("c{i} TEXT")).collect::<Vec<_>>().join(", ");
    let values = (0..500).map(|i| format!("'v{i}'")).collect::<Vec<_>>().join(", ");
    let database = Database::with(&format!(
        "CREATE TABLE wide (id INTEGER PRIMARY KEY, {columns}); INSERT INTO wide VALUES (1, {values});
         CREATE TABLE big (id INTEGER PRIMARY KEY, v BLOB); INSERT INTO big VALUES (1, zeroblob(10000000)), (2, x'01')"
    ));
    let store = database.store(&table("wide")).await;
    let all = (1..501).collect::<Vec<_>>();
    let answer = store.lookup(&request(&[0], &all, &[], bigints([1]))).await.unwrap();
    assert_eq!(answer.rows.column(499).as_string_view().value(0), "v499");
    let store = database.store(&table("big")).await;
    let mut asked = request(&[0], &[1], &[], bigints([1, 2]));
    let answer = store.lookup(&asked).await.unwrap();
    assert_eq!(answer.rows.column(0).as_binary::<i32>().value(0).len(), 10_000_000);
    asked.max_answer_bytes = 1 << 20;
    let error = store.lookup(&asked).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }) && error.is_about_keys(), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_gone_replaced_or_locked_is_used_again() {
    let database =
        Database::with("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'old')");
    let store = database.store(&table("t")).await;
    let find = async || store.lookup(&request(&[0], &[1], &[], bigints([1]))).await;
    assert_eq!(texts(&find().await.unwrap()), ["0: old"]);
    // Another file in its place, as a build of reference data puts it there.
    let other = Database::with("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'new')");
    std::fs::rename(other.path(), database.path()).unwrap();
    assert_eq!(texts(&find().await.unwrap()), ["0: new"]);
    database.open().execute_batch("UPDATE t SET name = 'newer'").unwrap();
    assert_eq!(texts(&find().await.unwrap()), ["0: newer"]);

    let writer = database.open();
    writer.execute_batch("BEGIN EXCLUSIVE; UPDATE t SET name = 'written'").unwrap();
    let error = find().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(texts(&find().await.unwrap()), ["0: written"]);

    let elsewhere = database.folder.path().join("elsewhere.db");
    std::fs::rename(database.path(), &elsewhere).unwrap();
    let error = find().await.unwrap_err();
    assert!(error.is_transient() && error.into_error("t").message().contains("reference.db"));
    std::fs::write(
        database.path(),
        "this is no database, but it is long enough to be one of some hundred bytes".repeat(20),
    )
    .unwrap();
    let error = find().await.unwrap_err();
    assert!(!error.is_transient(), "{error:?}");
    std::fs::rename(&elsewhere, database.path()).unwrap();
    assert_eq!(texts(&find().await.unwrap()), ["0: written"]);
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_stopped() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS id FROM n";
    let database = Database::with(&format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1); CREATE VIEW endless AS {endless}"
    ));
    let connection = database.connection(1);
    let endless = SqlTable { types: vec![("id".to_string(), PgType::Int8)], ..table("endless") };
    let endless = SqliteStore::connect(Arc::clone(&connection), &endless).await.unwrap();
    let store = SqliteStore::connect(connection, &table("t")).await.unwrap();
    for _ in 0..3 {
        let running = tokio::time::timeout(Duration::from_millis(50), async {
            endless.lookup(&request(&[0], &[0], &[], bigints([1]))).await
        });
        assert!(running.await.is_err(), "it does not end by itself");
        // The only connection is free again.
        let asked = request(&[0], &[0], &[], bigints([1]));
        let answer = tokio::time::timeout(DEADLINE, store.lookup(&asked)).await;
        assert_eq!(texts(&answer.expect("a connection in time").unwrap()), ["0: 1"]);
    }
    // A scan that is dropped half-way, too.
    let everything = ScanRequest { columns: vec![0], filters: Conditions::default(), limit: None };
    let mut rows = endless.scan(&everything).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), rows.try_next()).await.is_err());
    drop(rows);
    let rows =
        tokio::time::timeout(DEADLINE, async { store.scan(&everything).await.unwrap().try_collect::<Vec<_>>().await });
    assert_eq!(rows.await.expect("a connection in time").unwrap()[0].num_rows(), 1);
}

#[tokio::test]
async fn joins_read_cache_and_scan_a_table_of_the_catalog() {
    let database = Database::with(
        "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE);
         INSERT INTO customers VALUES (1, 'Ann'), (2, 'bob'), (3, 'Bob')",
    );
    let catalog = format!(
        "[connection.local]\ntype = \"sqlite\"\npath = \"{}\"\n\
         [lookup.customers]\nconnection = \"local\"\ntable = \"customers\"\ncache = {{ mode = \"partial\" }}\n\
         [lookup.whole]\nconnection = \"local\"\ntable = \"customers\"\ncache = {{ mode = \"full\" }}\n",
        database.path().display()
    );
    let server = Lookaside::start(&catalog).await;
    let client = server.connect().await;
    for table in ["customers", "whole"] {
        let by_name = format!(
            "SELECT c.id FROM (VALUES ('Bob'), ('ann')) AS k (name) LEFT LOOKUP JOIN {table} AS c ON c.name = k.name"
        );
        let rows = client.query(&by_name, &[]).await.unwrap();
        let found = rows.iter().map(|row| row.get::<_, Option<i64>>(0)).collect::<Vec<_>>();
        assert_eq!(found, [Some(3), None], "equal as PostgreSQL has it, in {table}");
        let all = client.query_one(&format!("SELECT count(*), min(name) FROM {table}"), &[]).await.unwrap();
        assert_eq!((all.get::<_, i64>(0), all.get::<_, String>(1)), (3, "Ann".to_string()));
    }
}

#[tokio::test]
async fn the_example_catalog_does_what_it_says() {
    let project = crate::support::lookaside::project();
    let text = std::fs::read_to_string(project.join("catalogs/sqlite.toml")).unwrap();
    // What its first lines say to run.
    let line = text.lines().find(|line| line.contains("sqlite3 reference.db")).unwrap();
    let database = Database::with(line.split('"').nth(1).unwrap());
    let path = database.path().display().to_string();
    let server = Lookaside::start(&text.replace("${REFERENCE_DB:-reference.db}", &path)).await;
    let client = server.connect().await;
    let view = std::fs::read_to_string(project.join("sql/sqlite.sql")).unwrap();
    client.batch_execute(&view).await.unwrap();
    let insert = text.lines().find_map(|line| line.strip_prefix("#   INSERT")).unwrap();
    client.batch_execute(&format!("INSERT{insert}")).await.unwrap();
    let enriched = view.split_once("AS\n").unwrap().1.replace("orders AS o", "orders AS o WITH (start = 'earliest')");
    let row = client.query_one(&format!("{} LIMIT 1", enriched.trim().trim_end_matches(';')), &[]).await.unwrap();
    let row = (row.get::<_, &str>("name").to_string(), row.get::<_, chrono::NaiveDate>("since").to_string());
    assert_eq!(row, ("Ann".to_string(), "2024-02-29".to_string()));
}
