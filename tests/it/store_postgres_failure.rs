//! The PostgreSQL store when PostgreSQL is killed, frozen, altered, or slow.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lookaside::store::postgres::{PostgresConfig, PostgresConnection, PostgresStore, SslMode};
use lookaside::store::{Answer, Store, StoreError};

use crate::store_postgres::{OPTIONS, Options, connection, ints, request, store, table, texts};
use crate::support::postgres::PostgresServer;

/// Longer than anything here takes, shorter than a hanging test is let hang.
const LONG: Duration = Duration::from_secs(20);
/// Long enough for a request to be on its way.
const SHORT: Duration = Duration::from_millis(200);

async fn lookup(store: &PostgresStore) -> Result<Answer, StoreError> {
    let asked = request(&[0], &[1], &[], vec![ints(&[1])]);
    tokio::time::timeout(LONG, store.lookup(&asked)).await.expect("an answer in time")
}

fn unavailable(error: StoreError) -> String {
    match error {
        StoreError::Unavailable { message } => message,
        other => panic!("expected unavailable, found {other:?}"),
    }
}

const PEOPLE: &str = "CREATE TABLE people (id int4 NOT NULL, name text NOT NULL); INSERT INTO people VALUES (1, 'Ann')";

#[tokio::test]
async fn killed_server_is_unavailable_and_serves_again_once_started() {
    let server = PostgresServer::start();
    server.execute(PEOPLE).await;
    let store = store(&server, "people").await;
    let (one, other) = tokio::join!(lookup(&store), lookup(&store));
    assert_eq!(texts(&one.unwrap()), texts(&other.unwrap()));

    server.stop();
    for _ in 0..2 {
        let message = unavailable(lookup(&store).await.unwrap_err());
        assert!(message.starts_with(&format!("127.0.0.1:{}: ", server.port())), "{message}");
        assert!(!message.contains("not-a-secret"), "{message}");
    }
    server.start_again();
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);

    // Both connections lie idle while the server goes and comes: nobody notices.
    let (one, other) = tokio::join!(lookup(&store), lookup(&store));
    assert!(one.is_ok() && other.is_ok());
    server.stop();
    server.start_again();
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lookaside'").await;
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
}

#[tokio::test]
async fn lookup_on_a_frozen_server_is_given_up_at_once() {
    let server = PostgresServer::start();
    server.execute(PEOPLE).await;
    let connection = connection(&server, Options { max_connections: 1, ..OPTIONS });
    let store = PostgresStore::connect(connection, &table("people")).await.unwrap();
    assert!(lookup(&store).await.is_ok());

    server.freeze();
    let start = tokio::time::Instant::now();
    let asked = request(&[0], &[1], &[], vec![ints(&[1])]);
    assert!(tokio::time::timeout(SHORT, store.lookup(&asked)).await.is_err(), "a frozen server answers nothing");
    assert!(start.elapsed() < Duration::from_secs(1), "dropping a lookup waits for nobody");
    // The only connection is being given up: the next lookup waits for its place, and can be dropped as well.
    assert!(tokio::time::timeout(SHORT, store.lookup(&asked)).await.is_err());
    server.thaw();
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
}

#[tokio::test]
async fn dropped_lookup_is_cancelled_at_the_server() {
    let server = PostgresServer::shared();
    server.execute(SLEEPERS).await;
    for prepare in [true, false] {
        let connection = connection(server, Options { max_connections: 1, prepare });
        dropped_lookup_ends(server, connection).await;
    }
}

/// The view sleeps for an hour; the table beneath it answers at once.
const SLEEPERS: &str = "CREATE TABLE sleepers (id int4, seconds float8); INSERT INTO sleepers VALUES (1, 0), (2, 3600);
    CREATE VIEW slow_view AS SELECT id, pg_sleep(seconds)::text AS slept FROM sleepers";

/// `connection` is the only one of its pool.
async fn dropped_lookup_ends(server: &PostgresServer, connection: Arc<PostgresConnection>) {
    let store = PostgresStore::connect(Arc::clone(&connection), &table("slow_view")).await.unwrap();
    let quick = PostgresStore::connect(connection, &table("sleepers")).await.unwrap();
    let asked = request(&[0], &[1], &[], vec![ints(&[2])]);
    tokio::select! {
        answer = store.lookup(&asked) => panic!("it sleeps for an hour: {answer:?}"),
        () = until_running(server, "1") => {}
    }
    assert_eq!(texts(&lookup(&quick).await.unwrap()), ["0: 0.0"], "the connection's place is free again");
    tokio::time::timeout(LONG, until_running(server, "0")).await.expect("the statement was cancelled");
}

/// Asks until so many lookups of the slow view run.
async fn until_running(server: &PostgresServer, count: &str) {
    let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%WITH ORDINALITY%slow_view%' AND pid <> pg_backend_pid()";
    while server.query(active).await[0][0].as_deref() != Some(count) {}
}

/// A million rows of one key, each of more than a thousand bytes; the sequence counts those that the server has made.
const WIDE: &str = "CREATE SEQUENCE made;
    CREATE VIEW wide AS SELECT 1 AS id, repeat('w', 1000) || nextval('made') AS filling FROM generate_series(1, 1000000);
    CREATE TABLE narrow (id int4 NOT NULL, name text NOT NULL); INSERT INTO narrow VALUES (1, 'Ann')";

#[tokio::test]
async fn answer_beyond_max_answer_bytes_is_refused_without_reading_it_to_the_end() {
    let server = PostgresServer::start();
    server.execute(WIDE).await;
    for prepare in [true, false] {
        server.execute("ALTER SEQUENCE made RESTART").await;
        let connection = connection(&server, Options { max_connections: 1, prepare });
        let wide = PostgresStore::connect(Arc::clone(&connection), &table("wide")).await.unwrap();
        let narrow = PostgresStore::connect(connection, &table("narrow")).await.unwrap();
        let mut asked = request(&[0], &[1], &[], vec![ints(&[1])]);
        asked.max_answer_bytes = 1 << 20;
        let answer = tokio::time::timeout(LONG, wide.lookup(&asked)).await.expect("an answer in time");
        assert!(matches!(answer, Err(StoreError::TooLarge { max_answer_bytes: 1_048_576 })), "{answer:?}");
        assert_eq!(texts(&lookup(&narrow).await.unwrap()), ["0: Ann"], "the connection's place is free again");
        let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%WITH ORDINALITY%wide%' AND pid <> pg_backend_pid()";
        while server.query(active).await[0][0].as_deref() != Some("0") {}
        let made = server.query("SELECT last_value FROM made").await[0][0].clone().unwrap();
        // What the answer may have, and what lies between the server and us.
        assert!((1_000..100_000).contains(&made.parse().unwrap()), "the server made {made} of a million rows");
    }
}

#[tokio::test]
async fn bytes_of_an_answer_are_those_of_its_arrays() {
    let server = PostgresServer::shared();
    server
        .execute(
            "CREATE TABLE sizes (id int4, name text, short text, numbers int4[], raw bytea, flag bool, ref uuid, missing text);
            INSERT INTO sizes VALUES (1, repeat('x', 20), 'short', '{1,2,3}', 'bytes', true, gen_random_uuid(), NULL)",
        )
        .await;
    let store = store(server, "sizes").await;
    let mut asked = request(&[0], &[0, 1, 2, 3, 4, 5, 6, 7], &[], vec![ints(&[1])]);
    // The position, then column by column.
    let bytes = 4 + 4 + (16 + 20) + 16 + (4 + 3 * 4) + (4 + 5) + 1 + (16 + 36) + 16;
    asked.max_answer_bytes = bytes;
    assert_eq!(store.lookup(&asked).await.unwrap().rows.num_rows(), 1);
    asked.max_answer_bytes = bytes - 1;
    assert!(matches!(store.lookup(&asked).await, Err(StoreError::TooLarge { .. })));
}

#[tokio::test]
async fn altered_table_is_read_as_declared_or_refused() {
    let server = PostgresServer::shared();
    server.execute("CREATE TABLE altered (id int4, v int4 NOT NULL); INSERT INTO altered VALUES (1, 7)").await;
    let store = store(server, "altered").await;
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: 7"]);
    server.execute("ALTER TABLE altered ALTER COLUMN v TYPE int8, ALTER COLUMN id TYPE int8").await;
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: 7"]);
    server.execute("ALTER TABLE altered ALTER COLUMN v DROP NOT NULL; UPDATE altered SET v = NULL").await;
    let error = lookup(&store).await.unwrap_err().into_error("altered");
    assert_eq!(error.sqlstate(), "23502");
    assert_eq!(error.message(), "column \"v\" holds a null value, but was declared not null when it was read");
    server.execute("ALTER TABLE altered DROP COLUMN v").await;
    match lookup(&store).await.unwrap_err() {
        StoreError::Failed { message, sqlstate } => {
            assert_eq!((message.as_str(), sqlstate.as_deref()), ("column t.v does not exist", Some("42703")));
        }
        other => panic!("expected the store's own error, found {other:?}"),
    }
    server.execute("ALTER TABLE altered ADD COLUMN v int4 DEFAULT 8").await;
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: 8"]);
}

#[tokio::test]
async fn refused_connections_say_where_and_why_and_keep_the_password() {
    let server = PostgresServer::shared();
    let try_connect = async |config: PostgresConfig| {
        let connection = PostgresConnection::try_new("shop".to_string(), config).unwrap();
        assert!(!format!("{connection} {connection:?}").contains("not-a-secret"));
        unavailable(PostgresStore::connect(connection, &table("people")).await.unwrap_err())
    };
    let config = |url: &str, sslmode| PostgresConfig {
        config: url.parse().unwrap(),
        sslmode,
        sslrootcert: None,
        max_connections: 1,
        prepare: true,
    };
    let url = server.url();
    assert!(!format!("{:?}", config(&url, SslMode::Disable)).contains("not-a-secret"));
    let target = format!("127.0.0.1:{}", server.port());
    let message =
        try_connect(config(&url.replace("/postgres", "/nowhere").replace("//nowhere", "//postgres"), SslMode::Disable))
            .await;
    assert_eq!(message, format!("{target}: database \"nowhere\" does not exist"));
    let message = try_connect(config(&url, SslMode::VerifyFull)).await;
    assert_eq!(message, format!("{target}: server does not support TLS"));

    let none = PostgresConfig { max_connections: 0, ..config(&url, SslMode::Disable) };
    let error = PostgresConnection::try_new("shop".to_string(), none).unwrap_err();
    assert_eq!(error.message(), "connection \"shop\": max_connections must be at least 1");
    let lost = PostgresConfig { sslrootcert: Some("/nowhere/root.crt".into()), ..config(&url, SslMode::VerifyFull) };
    let error = PostgresConnection::try_new("shop".to_string(), lost).unwrap_err();
    assert!(
        error.message().starts_with("connection \"shop\": sslrootcert \"/nowhere/root.crt\" cannot be read: "),
        "{error}"
    );
}

#[tokio::test]
async fn verify_full_talks_to_nobody_but_the_certified_host() {
    let server = PostgresServer::start_with_tls();
    server.execute(PEOPLE).await;
    server.execute(SLEEPERS).await;
    let secure = |url: &str, sslrootcert: PathBuf| {
        let config = PostgresConfig {
            config: url.parse().unwrap(),
            sslmode: SslMode::VerifyFull,
            sslrootcert: Some(sslrootcert),
            max_connections: 1,
            prepare: true,
        };
        PostgresConnection::try_new("shop".to_string(), config).unwrap()
    };
    let trusted = secure(&server.url(), server.certificate());
    let store = PostgresStore::connect(Arc::clone(&trusted), &table("people")).await.unwrap();
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
    let encrypted =
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'lookaside'";
    assert_eq!(server.query(encrypted).await, [[Some("t".to_string())]]);
    dropped_lookup_ends(&server, trusted).await;

    let elsewhere = secure(&server.url().replace("127.0.0.1", "localhost"), server.certificate());
    let message = unavailable(PostgresStore::connect(elsewhere, &table("people")).await.unwrap_err());
    assert!(message.contains("not valid for name \"localhost\""), "{message}");

    let stranger = PostgresServer::start_with_tls();
    let distrusted = secure(&server.url(), stranger.certificate());
    let message = unavailable(PostgresStore::connect(distrusted, &table("people")).await.unwrap_err());
    assert!(message.contains("invalid peer certificate"), "{message}");
}
