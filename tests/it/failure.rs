//! The whole server when the PostgreSQL behind a lookup table is killed, frozen, or not there yet.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;

use crate::support::lookaside::{Lookaside, connect_to};
use crate::support::postgres::PostgresServer;
use crate::support::process::{Process, catalog_file};
use crate::support::raw::{DEADLINE, Messages, RawClient};

/// The password in [`PostgresServer::url`].
const SECRET: &str = "not-a-secret";
const CUSTOMERS: &str = "CREATE TABLE customers (id bigint PRIMARY KEY, name text);
    INSERT INTO customers VALUES (1, 'Ann'), (2, 'Bob')";
const JOIN: &str = "SELECT o.id, c.name FROM orders o LEFT LOOKUP JOIN customers c ON o.customer_id = c.id";

/// Orders that clients push, customers in this PostgreSQL, without a cache: each row is asked for.
fn catalog(postgres: &PostgresServer, options: &str) -> String {
    format!(
        r#"
[connection.shop]
type = "postgres"
url = "{}"
[stream.orders]
type = "push"
[stream.orders.columns]
id = "bigint not null"
customer_id = "bigint"
[lookup.customers]
connection = "shop"
table = "public.customers"
{options}
"#,
        postgres.url()
    )
}

/// A client whose query has begun.
async fn reader(port: u16, sql: &str) -> RawClient {
    let mut reader = RawClient::connect(port).await;
    reader.send(Messages::default().query(sql)).await;
    assert_eq!(reader.next().await.unwrap(), "T id:20,name:25");
    reader
}

async fn insert(writer: &Client, id: i64) {
    writer.execute("INSERT INTO orders VALUES ($1, 1 + $1 % 2)", &[&id]).await.unwrap();
}

fn assert_unavailable(answers: &[String]) {
    let [failure, ready] = answers else { panic!("{answers:?}") };
    assert!(failure.starts_with("E ERROR HV00N ") && failure.contains("\"customers\""), "{failure}");
    assert!(!failure.contains(SECRET), "{failure}");
    assert_eq!(ready, "Z I");
}

#[tokio::test]
async fn killed_store_ends_the_query_and_serves_the_next_once_it_is_back() {
    let postgres = PostgresServer::start();
    postgres.execute(CUSTOMERS).await;
    let (_folder, path): (_, PathBuf) = catalog_file(&catalog(&postgres, ""));
    let (server, port) = Process::serve(&path, &[]).await;
    let writer = connect_to(port, "tests").await;
    let mut stream = reader(port, JOIN).await;
    insert(&writer, 1).await;
    insert(&writer, 2).await;
    assert_eq!(stream.take(2).await, ["D 1|Bob", "D 2|Ann"]);

    postgres.stop();
    insert(&writer, 3).await;
    assert_unavailable(&stream.until_ready().await);
    // A query that begins meanwhile fails as soon as it needs the store, and no other does.
    let mut stream = reader(port, JOIN).await;
    insert(&writer, 4).await;
    assert_unavailable(&stream.until_ready().await);
    assert_eq!(stream.query("SELECT 1 AS a").await[1], "D 1");

    postgres.start_again();
    let mut stream = reader(port, JOIN).await;
    insert(&writer, 5).await;
    assert_eq!(stream.next().await.unwrap(), "D 5|Bob");
    server.signal("TERM");
    let ended = server.finish().await;
    assert_eq!(ended.status.code(), Some(0));
    assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
}

#[tokio::test]
async fn frozen_store_times_rows_out_and_can_be_cancelled() {
    let postgres = PostgresServer::start();
    postgres.execute(CUSTOMERS).await;
    let server = Lookaside::start(&catalog(&postgres, "timeout = \"0s\"")).await;
    let writer = server.connect().await;
    let with = |options: &str| JOIN.replace("customers c ON", &format!("customers c WITH ({options}) ON"));
    let failing = with("timeout = '500ms'");
    let padding = with("timeout = '500ms', on_failure = 'no_match'");
    let mut failing = reader(server.port, &failing).await;
    let mut padding = reader(server.port, &padding).await;
    let mut waiting = reader(server.port, JOIN).await;
    insert(&writer, 1).await;
    for reader in [&mut failing, &mut padding, &mut waiting] {
        assert_eq!(reader.next().await.unwrap(), "D 1|Bob");
    }

    postgres.freeze();
    insert(&writer, 2).await;
    let timed_out = "E ERROR HV000 lookup in \"customers\" timed out after 500ms";
    assert_eq!(failing.until_ready().await, [timed_out, "Z I"]);
    assert_eq!(padding.next().await.unwrap(), "D 2|NULL");
    insert(&writer, 3).await;
    assert_eq!(padding.next().await.unwrap(), "D 3|NULL", "the query goes on");

    // What never times out can be cancelled.
    let asked = Instant::now();
    let mut cancel = Messages::default();
    postgres_protocol::message::frontend::cancel_request(waiting.pid, waiting.secret, &mut cancel.0);
    RawClient::open(server.port).await.send(cancel).await;
    assert_eq!(waiting.until_ready().await, ["E ERROR 57014 canceling statement due to user request", "Z I"]);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());

    postgres.thaw();
    let mut stream = reader(server.port, JOIN).await;
    insert(&writer, 4).await;
    assert_eq!(stream.next().await.unwrap(), "D 4|Ann");
}

#[tokio::test]
async fn store_that_is_down_at_the_start_is_used_once_it_is_up() {
    let postgres = PostgresServer::start();
    postgres.execute(CUSTOMERS).await;
    postgres.stop();
    let (_folder, path) = catalog_file(&catalog(&postgres, ""));
    let (server, port) = Process::serve(&path, &[]).await;
    let writer = connect_to(port, "tests").await;
    let mut client = RawClient::connect(port).await;
    assert_unavailable(&client.query(JOIN).await);
    // It says so on its own as well, without being asked.
    let deadline = Instant::now() + DEADLINE;
    while !server.stderr().contains("lookup table is not available, and is tried again every 5 s") {
        assert!(Instant::now() < deadline, "{}", server.stderr());
        tokio::task::yield_now().await;
    }
    postgres.start_again();
    let mut stream = reader(port, JOIN).await;
    insert(&writer, 2).await;
    assert_eq!(stream.next().await.unwrap(), "D 2|Ann");
    assert!(!server.stderr().contains(SECRET), "{}", server.stderr());
}
