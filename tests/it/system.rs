//! What the server tells of itself over the wire: views, functions over caches, EXPLAIN (ANALYZE, DURATION …).

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::lookaside::Lookaside;
use crate::support::postgres::PostgresServer;
use crate::support::process::{psql, run};
use crate::support::raw::{DEADLINE, Messages, RawClient};

/// Customers in a table of this PostgreSQL, in a cache.
pub fn catalog(postgres: &PostgresServer, table: &str) -> String {
    format!(
        r#"
[connection.shop]
type = "postgres"
url = "{}"
[stream.inbox]
type = "push"
[stream.inbox.columns]
id = "bigint not null"
customer_id = "bigint"
[stream.clicks]
type = "generator"
rows_per_second = 1000
[stream.clicks.columns]
n = "n"
customer_id = "n % 3"
[lookup.customers]
connection = "shop"
table = "public.{table}"
[lookup.customers.cache]
mode = "partial"
"#,
        postgres.url()
    )
}

/// A server over a table of the shared PostgreSQL with Ann and Bob, and a client of each.
pub async fn start(table: &str) -> (Lookaside, Client, Client) {
    let postgres = PostgresServer::shared();
    let create = format!(
        "CREATE TABLE {table} (id bigint PRIMARY KEY, name text); INSERT INTO {table} VALUES (1, 'Ann'), (2, 'Bob')"
    );
    postgres.execute(&create).await;
    let (store, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await.unwrap();
    std::mem::forget(datafusion::common::runtime::SpawnedTask::spawn(connection));
    let server = Lookaside::start(&catalog(postgres, table)).await;
    let client = server.connect().await;
    (server, client, store)
}

/// The first value of each row, as text.
async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_string()),
        _ => None,
    });
    rows.collect()
}

async fn text(client: &Client, sql: &str) -> String {
    texts(client, sql).await.join(",")
}

/// The SQLSTATE that a statement fails with.
async fn failure(client: &Client, sql: &str) -> String {
    let error = client.simple_query(sql).await.expect_err(sql);
    error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_string()
}

/// Asks until the answer is this one.
async fn until(client: &Client, sql: &str, expected: &str) {
    let started = Instant::now();
    loop {
        let seen = text(client, sql).await;
        if seen == expected {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{sql} stays {seen} and does not become {expected}");
    }
}

/// The names of customers 1 and 2, looked up with all columns of the table, as `warm` looks them up.
async fn names(client: &Client) -> [String; 2] {
    let name = |key: i32| {
        format!("SELECT c.* FROM (SELECT CAST({key} AS bigint) AS k) v LOOKUP JOIN customers c ON c.id = v.k")
    };
    let mut names = [const { String::new() }; 2];
    for (key, name_of_key) in (1..).zip(&mut names) {
        let messages = client.simple_query(&name(key)).await.unwrap();
        let Some(SimpleQueryMessage::Row(row)) = messages.get(1) else { panic!("{messages:?}") };
        *name_of_key = row.get(1).unwrap().to_string();
    }
    names
}

#[tokio::test]
async fn warm_fills_the_cache_and_invalidate_empties_it() {
    let (server, client, store) = start("system_warm").await;
    assert_eq!(text(&client, "SELECT lookaside.warm('customers', 1, '2', 99, NULL)").await, "2");
    let counters = "SELECT concat(requests, ' ', keys, ' ', misses) FROM lookaside.lookups";
    assert_eq!(text(&client, counters).await, "1 3 3");
    store.simple_query("UPDATE system_warm SET name = upper(name)").await.unwrap();
    assert_eq!(names(&client).await, ["Ann", "Bob"]);
    let name = "SELECT c.name FROM (SELECT CAST(2 AS bigint) AS k) v LOOKUP JOIN customers c ON c.id = v.k";
    assert_eq!(text(&client, name).await, "Bob", "what holds all columns serves who needs one");
    assert_eq!(text(&client, counters).await, "1 3 3", "the cache has answered");

    // Neither planning nor EXPLAIN forgets anything.
    client.prepare("SELECT lookaside.invalidate('customers')").await.unwrap();
    client.simple_query("EXPLAIN SELECT lookaside.invalidate('customers')").await.unwrap();
    assert_eq!(names(&client).await, ["Ann", "Bob"]);
    assert_eq!(text(&client, "SELECT lookaside.invalidate('customers', 1, 77)").await, "1");
    assert_eq!(names(&client).await, ["ANN", "Bob"]);
    let row = client.query_one("SELECT lookaside.invalidate($1, $2::bigint)", &[&"customers", &2_i64]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    assert_eq!(names(&client).await, ["ANN", "BOB"]);
    store.simple_query("UPDATE system_warm SET name = lower(name)").await.unwrap();
    // Two customers and the remembered miss.
    let psql = run(psql(server.port, &["-At", "-c", "SELECT lookaside.invalidate('customers')"])).await;
    assert_eq!((psql.stdout.as_str(), psql.stderr.as_str()), ("3\n", ""));
    assert_eq!(names(&client).await, ["ann", "bob"]);
}

#[tokio::test]
async fn warm_takes_a_query_whose_columns_are_named_as_the_key() {
    let (_server, client, _store) = start("system_warm_query").await;
    let warm = |query: &str| format!("SELECT lookaside.warm('customers', '{query}')");
    assert_eq!(text(&client, &warm("SELECT n AS id FROM clicks LIMIT 5")).await, "2");
    assert_eq!(text(&client, &warm("SELECT 1 AS id, ''Ann'' AS name")).await, "1");
    assert_eq!(text(&client, "SELECT lookaside.invalidate('customers', ROW(1, 'Ann'), ROW(1, 'Bob'))").await, "1");
    assert_eq!(failure(&client, &warm("SELECT n AS id FROM clicks")).await, "0A000");
    assert_eq!(failure(&client, &warm("SELECT 1 AS number")).await, "42703");
    assert_eq!(failure(&client, &warm("SELECT (1")).await, "42601");
    assert_eq!(failure(&client, "SELECT lookaside.warm('customers', 'Ann')").await, "22P02");
    assert_eq!(failure(&client, "SELECT lookaside.warm('customers', ROW(1, 'Ann'))").await, "0A000");
    assert_eq!(failure(&client, "SELECT lookaside.warm('customers')").await, "42883");
}

#[tokio::test]
async fn queries_are_seen_while_they_run_and_not_after() {
    let (server, client, store) = start("system_queries").await;
    // From here on the store is connected, and then its table is locked.
    assert_eq!(text(&client, "SELECT lookaside.warm('customers', 99)").await, "0");
    store.batch_execute("BEGIN; LOCK TABLE system_queries").await.unwrap();
    let sql = "SELECT i.id, c.name FROM inbox i LOOKUP JOIN customers c ON i.customer_id = c.id";
    let mut reader = RawClient::connect(server.port).await;
    reader.send(Messages::default().query(sql)).await;
    assert_eq!(reader.next().await.unwrap(), "T id:20,name:25");
    client.simple_query("INSERT INTO inbox VALUES (1, 1), (2, 2), (3, NULL)").await.unwrap();
    let pid = reader.pid;
    let of_reader = |columns: &str| format!("SELECT {columns} FROM lookaside.queries WHERE pid = {pid}");
    until(&client, &of_reader("concat(rows_in, ' ', rows_out, ' ', rows_waiting)"), "3 0 3").await;
    assert_eq!(
        text(&client, &of_reader("concat(\"user\", ' ', state, ' ', sql)")).await,
        format!("tests running {sql}")
    );
    assert_eq!(text(&client, &of_reader("started BETWEEN now() - INTERVAL '1 minute' AND now()")).await, "t");
    assert_eq!(text(&client, "SELECT in_flight FROM lookaside.lookups").await, "1");
    store.batch_execute("COMMIT").await.unwrap();
    assert_eq!(reader.take(2).await, ["D 1|Ann", "D 2|Bob"]);
    until(&client, &of_reader("concat(rows_in, ' ', rows_out, ' ', rows_waiting)"), "3 2 0").await;

    let shown = client.query("SHOW QUERIES", &[]).await.unwrap();
    assert_eq!(shown.last().unwrap().get::<_, &str>("sql"), "SHOW QUERIES");

    // However a query ends, it is gone: its client goes, a limit is reached, an error, a cancel.
    let count = "SELECT count(*) FROM lookaside.queries";
    drop(reader);
    until(&client, count, "1").await;
    text(&client, "SELECT n FROM clicks LIMIT 2").await;
    assert_eq!(text(&client, count).await, "1");
    assert_eq!(failure(&client, "SELECT 1 / (n - 2) FROM clicks").await, "22012");
    assert_eq!(text(&client, count).await, "1");
    let other = server.connect().await;
    let endless = other.simple_query("SELECT id FROM inbox");
    let canceled = async {
        until(&client, count, "2").await;
        other.cancel_token().cancel_query(NoTls).await.unwrap();
    };
    let (ended, ()) = tokio::join!(endless, canceled);
    assert_eq!(ended.unwrap_err().code().unwrap().code(), "57014");
    assert_eq!(text(&client, count).await, "1");
}

#[tokio::test]
async fn what_goes_wrong_is_seen_with_its_time_and_without_secrets() {
    let (_server, client, store) = start("system_errors").await;
    let error = "SELECT concat(state, ' ', failures, ' ', last_error, ' ', last_error_at > now() - INTERVAL '1 minute') \
        FROM lookaside.lookups";
    assert_eq!(text(&client, "SELECT lookaside.warm('customers', 1)").await, "1");
    assert_eq!(text(&client, error).await, "connected 0  ");
    store.simple_query("DROP TABLE system_errors").await.unwrap();
    assert_eq!(failure(&client, "SELECT lookaside.warm('customers', 2)").await, "HV000");
    let told = text(&client, error).await;
    assert!(told.starts_with("connected 1 lookup in \"customers\" failed: ") && told.ends_with(" true"), "{told}");

    // A store that cannot be reached has failed no request, but says why.
    let nowhere = "[connection.shop]\ntype = \"postgres\"\nurl = \"postgres://me:not-a-secret@127.0.0.1:1/shop\"\n\
        [lookup.customers]\nconnection = \"shop\"\ntable = \"customers\"\n";
    let server = Lookaside::start(nowhere).await;
    let client = server.connect().await;
    assert_eq!(failure(&client, "SELECT * FROM customers WHERE id = 1").await, "HV00N");
    let told = text(&client, error).await;
    assert!(told.starts_with("not connected 0 store of lookup table \"customers\" is not available: "), "{told}");
    assert!(told.ends_with(" true") && !told.contains("not-a-secret"), "{told}");
}

#[tokio::test]
async fn malformed_rows_that_are_skipped_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.csv");
    std::fs::write(&path, "id\n1\nnot a number\n3\n").unwrap();
    let catalog = format!(
        "[stream.orders]\ntype = \"file\"\npath = \"{}\"\nformat = \"csv\"\non_malformed = \"skip\"\n\
        [stream.orders.columns]\nid = \"bigint\"\n",
        path.display()
    );
    let server = Lookaside::start(&catalog).await;
    let client = server.connect().await;
    assert_eq!(text(&client, "SELECT id FROM orders").await, "1,3");
    assert_eq!(text(&client, "SELECT concat(rows_read, ' ', rows_skipped) FROM lookaside.streams").await, "2 1");
}

#[tokio::test]
async fn a_cursor_is_a_query_as_long_as_it_is_open() {
    let server =
        Lookaside::start("[stream.n]\ntype = \"generator\"\nrows_per_second = 0\n[stream.n.columns]\nn = \"n\"\n")
            .await;
    let client = server.connect().await;
    let sql = "DECLARE c CURSOR FOR SELECT n FROM n";
    client.simple_query(&format!("BEGIN; {sql}")).await.unwrap();
    let of_cursor = "SELECT concat(sql, ' ', state, ' ', rows_out) FROM lookaside.queries WHERE state <> 'running'";
    assert_eq!(text(&client, of_cursor).await, format!("{sql} suspended 0"));
    assert_eq!(text(&client, "FETCH 2 FROM c").await, "1,2");
    assert_eq!(text(&client, of_cursor).await, format!("{sql} suspended 2"));
    client.simple_query("CLOSE c").await.unwrap();
    assert_eq!(text(&client, "SELECT count(*) FROM lookaside.queries").await, "1");
}

#[tokio::test]
async fn explain_analyze_runs_as_long_as_it_is_told_and_shows_the_stage() {
    let (server, client, _store) = start("system_explain").await;
    let join = "SELECT k.n, c.name FROM clicks k LEFT LOOKUP JOIN customers c ON k.customer_id = c.id";
    let started = Instant::now();
    let plan = texts(&client, &format!("EXPLAIN (DURATION '300ms', ANALYZE) {join}")).await;
    let elapsed = started.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&elapsed), "{elapsed:?}");
    let stage = plan.iter().find(|line| line.contains("LookupExec")).unwrap_or_else(|| panic!("{plan:?}"));
    let metric = |name: &str| {
        let (_, rest) = stage.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name} in {stage}"));
        rest.split([',', ']']).next().unwrap().to_string()
    };
    assert_eq!((metric("retries").as_str(), metric("timeouts").as_str()), ("0", "0"));
    for name in ["rows", "hits", "misses", "requests"] {
        assert_ne!(metric(name), "0", "{name}");
    }
    assert!(metric("keys_per_request").parse::<f64>().unwrap() >= 1.0, "{stage}");
    assert!(metric("wait").starts_with("p50 ") && !metric("wait").contains("p99 0"), "{stage}");
    assert_eq!(text(&client, "SELECT count(*) FROM lookaside.queries").await, "1");

    // A query that ends first is not waited for.
    let short = "EXPLAIN (ANALYZE ON, VERBOSE, DURATION '1h') SELECT n FROM clicks LIMIT 1";
    assert!(text(&client, short).await.contains("output_rows=1"));
    let endless = server.connect().await;
    let sql = format!("EXPLAIN (ANALYZE, DURATION '1h') {join}");
    let explained = endless.simple_query(&sql);
    let canceled = async {
        until(&client, "SELECT state FROM lookaside.queries WHERE rows_out > 0 AND rows_in > 0", "running").await;
        endless.cancel_token().cancel_query(NoTls).await.unwrap();
    };
    let (ended, ()) = tokio::join!(explained, canceled);
    assert_eq!(ended.unwrap_err().code().unwrap().code(), "57014");
}
