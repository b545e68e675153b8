//! The MySQL store when MariaDB is killed, frozen, altered, slow, or cut off in the middle of an answer.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lookaside::store::mysql::{MysqlConfig, MysqlConnection, MysqlStore};
use lookaside::store::postgres::SslMode;
use lookaside::store::{Answer, Store, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::store_mysql::{config, connection, store};
use crate::store_postgres::{ints, request, table, texts};
use crate::support::certificate::Certificates;
use crate::support::mariadb::{MariadbServer, PASSWORD};

/// Longer than anything here takes, shorter than a hanging test is let hang.
const LONG: Duration = Duration::from_secs(20);
/// Long enough for a request to be on its way.
const SHORT: Duration = Duration::from_millis(200);

async fn lookup(store: &MysqlStore) -> Result<Answer, StoreError> {
    let asked = request(&[0], &[1], &[], vec![ints(&[1])]);
    tokio::time::timeout(LONG, store.lookup(&asked)).await.expect("an answer in time")
}

fn unavailable(error: StoreError) -> String {
    match error {
        StoreError::Unavailable { message } => message,
        other => panic!("expected unavailable, found {other:?}"),
    }
}

const PEOPLE: [&str; 2] =
    ["CREATE TABLE people (id int NOT NULL, name text NOT NULL)", "INSERT INTO people VALUES (1, 'Ann')"];

#[tokio::test]
async fn killed_server_is_unavailable_and_serves_again_once_started() {
    let server = MariadbServer::start();
    server.execute(&PEOPLE).await;
    let store = store(&server, "people").await;
    let (one, other) = tokio::join!(lookup(&store), lookup(&store));
    assert_eq!(texts(&one.unwrap()), texts(&other.unwrap()));

    server.stop();
    for _ in 0..2 {
        let message = unavailable(lookup(&store).await.unwrap_err());
        assert!(message.starts_with(&format!("127.0.0.1:{}: ", server.port())), "{message}");
        assert!(!message.contains(PASSWORD), "{message}");
    }
    server.start_again();
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);

    // Both connections lie idle while the server goes and comes: nobody notices.
    let (one, other) = tokio::join!(lookup(&store), lookup(&store));
    assert!(one.is_ok() && other.is_ok());
    server.stop();
    server.start_again();
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
    // Nor when the server closes what lies idle.
    let ours = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'tests' AND ID <> CONNECTION_ID()";
    for row in server.query(ours).await {
        server.execute(&[&format!("KILL CONNECTION {}", row[0].as_ref().unwrap())]).await;
    }
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
}

#[tokio::test]
async fn connection_that_the_server_closed_for_its_idleness_is_replaced() {
    let server = MariadbServer::start();
    server.execute(&PEOPLE).await;
    server.execute(&["SET GLOBAL wait_timeout = 1"]).await;
    let store = MysqlStore::connect(connection(&server, 1), &table("people")).await.unwrap();
    let ours = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE USER = 'tests' AND ID <> CONNECTION_ID()";
    while server.query(ours).await[0][0].as_deref() != Some("0") {}
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
}

#[tokio::test]
async fn lookup_on_a_frozen_server_is_given_up_at_once() {
    let server = MariadbServer::start();
    server.execute(&PEOPLE).await;
    let store = MysqlStore::connect(connection(&server, 1), &table("people")).await.unwrap();
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

/// The view sleeps for an hour; the table beneath it answers at once.
const SLEEPERS: [&str; 3] = [
    "CREATE TABLE sleepers (id int, seconds double)",
    "INSERT INTO sleepers VALUES (1, 0), (2, 3600)",
    "CREATE VIEW slow_view AS SELECT id, CONCAT(SLEEP(seconds)) AS slept FROM sleepers",
];

#[tokio::test]
async fn dropped_lookup_is_ended_at_the_server() {
    let server = MariadbServer::shared();
    server.execute(&SLEEPERS).await;
    dropped_lookup_ends(server, connection(server, 1)).await;
}

/// `connection` is the only one of its pool.
async fn dropped_lookup_ends(server: &MariadbServer, connection: Arc<MysqlConnection>) {
    let store = MysqlStore::connect(Arc::clone(&connection), &table("slow_view")).await.unwrap();
    let quick = MysqlStore::connect(connection, &table("sleepers")).await.unwrap();
    let asked = request(&[0], &[1], &[], vec![ints(&[2])]);
    tokio::select! {
        answer = store.lookup(&asked) => panic!("it sleeps for an hour: {answer:?}"),
        () = server.until_running("%JSON_TABLE%slow_view%", 1) => {}
    }
    assert_eq!(texts(&lookup(&quick).await.unwrap()), ["0: 0.0"], "the connection's place is free again");
    let ended = server.until_running("%JSON_TABLE%slow_view%", 0);
    tokio::time::timeout(LONG, ended).await.expect("the statement was ended");
}

#[tokio::test]
async fn answer_beyond_max_answer_bytes_is_refused_without_reading_it_to_the_end() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE narrow (id int NOT NULL, name text NOT NULL)",
            "INSERT INTO narrow VALUES (1, 'Ann')",
            // A million rows of one key, each of more than a thousand bytes.
            "CREATE VIEW wide AS SELECT 1 AS id, CONCAT(REPEAT('w', 1000), seq) AS filling FROM seq_1_to_1000000",
        ])
        .await;
    let connection = connection(server, 1);
    let wide = MysqlStore::connect(Arc::clone(&connection), &table("wide")).await.unwrap();
    let narrow = MysqlStore::connect(connection, &table("narrow")).await.unwrap();
    let id = wide.schema().field(0).data_type().clone();
    let key = datafusion::arrow::compute::cast(&ints(&[1]), &id).unwrap();
    let mut asked = request(&[0], &[1], &[], vec![key]);
    asked.max_answer_bytes = 1 << 20;
    let sent = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'BYTES_SENT'";
    let bytes_sent = async || server.query(sent).await[0][0].as_ref().unwrap().parse::<u64>().unwrap();
    let before = bytes_sent().await;
    let answer = tokio::time::timeout(LONG, wide.lookup(&asked)).await.expect("an answer in time");
    assert!(matches!(answer, Err(StoreError::TooLarge { max_answer_bytes: 1_048_576 })), "{answer:?}");
    assert_eq!(texts(&lookup(&narrow).await.unwrap()), ["0: Ann"], "the connection's place is free again");
    server.until_running("%JSON_TABLE%wide%", 0).await;
    // What the answer may have, what lies between the server and us, and what other tests were sent meanwhile.
    let answered = bytes_sent().await - before;
    assert!(answered < 300 << 20, "the server sent {answered} bytes of a gigabyte");
}

#[tokio::test]
async fn bytes_of_an_answer_are_those_of_its_arrays() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE sizes (id int, name text, short text, raw blob, flag bit(1), ref uuid, missing text, none blob)",
            "INSERT INTO sizes VALUES (1, repeat('x', 20), 'short', 'bytes', b'1', uuid(), NULL, NULL)",
        ])
        .await;
    let store = store(server, "sizes").await;
    let mut asked = request(&[0], &[0, 1, 2, 3, 4, 5, 6, 7], &[], vec![ints(&[1])]);
    // The position, then column by column.
    let bytes = 4 + 4 + (16 + 20) + 16 + (4 + 5) + 1 + (16 + 36) + 16 + 4;
    asked.max_answer_bytes = bytes;
    assert_eq!(store.lookup(&asked).await.unwrap().rows.num_rows(), 1);
    asked.max_answer_bytes = bytes - 1;
    assert!(matches!(store.lookup(&asked).await, Err(StoreError::TooLarge { .. })));
}

#[tokio::test]
async fn altered_table_is_read_as_declared_or_refused() {
    let server = MariadbServer::shared();
    server.execute(&["CREATE TABLE altered (id int, v int NOT NULL)", "INSERT INTO altered VALUES (1, 7)"]).await;
    let store = store(server, "altered").await;
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: 7"]);
    server.execute(&["ALTER TABLE altered MODIFY v bigint NOT NULL, MODIFY id bigint"]).await;
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: 7"]);
    server.execute(&["UPDATE altered SET v = 5000000000"]).await;
    let error = lookup(&store).await.unwrap_err().into_error("altered");
    assert_eq!(
        (error.sqlstate(), error.message()),
        ("22003", "column \"v\" holds a value that is out of range for type integer")
    );
    server.execute(&["ALTER TABLE altered MODIFY v bigint", "UPDATE altered SET v = NULL"]).await;
    let error = lookup(&store).await.unwrap_err().into_error("altered");
    assert_eq!(
        (error.sqlstate(), error.message()),
        ("23502", "column \"v\" holds a null value, but was declared not null when it was read")
    );
    server.execute(&["ALTER TABLE altered DROP COLUMN v"]).await;
    match lookup(&store).await.unwrap_err() {
        StoreError::Failed { message, sqlstate } => {
            assert_eq!((message.as_str(), sqlstate.as_deref()), ("Unknown column 't.v' in 'SELECT'", Some("42S22")));
        }
        other => panic!("expected the store's own error, found {other:?}"),
    }
    server.execute(&["ALTER TABLE altered ADD COLUMN v int DEFAULT 8"]).await;
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: 8"]);
}

/// What lies between us and the server: each connection is cut after so many bytes of answers.
async fn cutting_proxy(port: u16, limit: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_port = listener.local_addr().unwrap().port();
    let serving = datafusion::common::runtime::SpawnedTask::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let relay = datafusion::common::runtime::SpawnedTask::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let mut answers = from_server.take(limit);
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                    _ = tokio::io::copy(&mut answers, &mut to_client) => {}
                }
                let _ = to_client.shutdown().await;
            });
            std::mem::forget(relay);
        }
    });
    std::mem::forget(serving);
    own_port
}

#[tokio::test]
async fn half_an_answer_is_no_answer() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE halves (id int, filling text)",
            "INSERT INTO halves SELECT 1, REPEAT('h', 1000) FROM seq_1_to_2000",
        ])
        .await;
    let port = cutting_proxy(server.port(), 1 << 20).await;
    let cut = MysqlConfig { port, ..config(server, 1) };
    let connection = MysqlConnection::try_new("erp".to_string(), &cut).unwrap();
    let store = MysqlStore::connect(connection, &table("halves")).await.unwrap();
    for _ in 0..2 {
        let message = unavailable(lookup(&store).await.unwrap_err());
        assert!(message.starts_with(&format!("127.0.0.1:{port}: ")), "{message}");
    }
}

#[tokio::test]
async fn locks_and_kills_have_the_sqlstates_that_say_what_may_be_done() {
    let server = MariadbServer::start();
    server.execute(&PEOPLE).await;
    server.execute(&SLEEPERS).await;
    let slow = MysqlStore::connect(connection(&server, 1), &table("slow_view")).await.unwrap();
    let asked = request(&[0], &[1], &[], vec![ints(&[2])]);
    let kill = async {
        server.until_running("%JSON_TABLE%slow_view%", 1).await;
        let running = "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Execute'";
        let id = server.query(running).await[0][0].clone().unwrap();
        server.execute(&[&format!("KILL QUERY {id}")]).await;
    };
    match tokio::join!(slow.lookup(&asked), kill).0 {
        // MariaDB may give the sleep a value and end the statement with it.
        Err(StoreError::Failed { sqlstate, .. }) => assert_eq!(sqlstate.as_deref(), Some("57014")),
        Ok(answer) => assert_eq!(texts(&answer), ["0: 1.0"]),
        other => panic!("{other:?}"),
    }
    let store = MysqlStore::connect(connection(&server, 1), &table("people")).await.unwrap();
    let mut locker = server.connect().await;
    mysql_async::prelude::Queryable::query_drop(&mut locker, "LOCK TABLES people WRITE").await.unwrap();
    server.execute(&["SET GLOBAL lock_wait_timeout = 1"]).await;
    let fresh = MysqlConnection::try_new("erp".to_string(), &config(&server, 1)).unwrap();
    let error = MysqlStore::connect(fresh, &table("people")).await;
    drop(locker);
    // Reading what the server says of the table may wait for the lock as well.
    if let Err(error) = error {
        assert!(error.is_transient(), "{error:?}");
    }
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
}

#[tokio::test]
async fn refused_connections_say_where_and_why_and_keep_the_password() {
    let server = MariadbServer::shared();
    let try_connect = async |config: MysqlConfig| {
        let connection = MysqlConnection::try_new("erp".to_string(), &config).unwrap();
        assert!(!format!("{connection} {connection:?} {config:?}").contains(PASSWORD));
        unavailable(MysqlStore::connect(connection, &table("people")).await.unwrap_err())
    };
    let target = format!("127.0.0.1:{}", server.port());
    let nowhere = MysqlConfig { database: Some("nowhere".to_string()), ..config(server, 1) };
    assert_eq!(try_connect(nowhere).await, format!("{target}: Unknown database 'nowhere'"));
    let wrong = MysqlConfig { password: Some("wrong".to_string()), ..config(server, 1) };
    let message = try_connect(wrong).await;
    assert!(message.starts_with(&format!("{target}: Access denied for user 'tests'@")), "{message}");
    let certificates = Certificates::make();
    let secure = MysqlConfig {
        sslmode: SslMode::VerifyFull,
        sslrootcert: Some(certificates.path("ca.crt")),
        ..config(server, 1)
    };
    assert_eq!(try_connect(secure).await, format!("{target}: server does not support TLS"));
    let lost = MysqlConfig {
        sslmode: SslMode::VerifyFull,
        sslrootcert: Some("/nowhere/root.crt".into()),
        ..config(server, 1)
    };
    let error = MysqlConnection::try_new("erp".to_string(), &lost).unwrap_err();
    let expected = "connection \"erp\": sslrootcert \"/nowhere/root.crt\" cannot be read: ";
    assert!(error.message().starts_with(expected), "{error}");
}

#[tokio::test]
async fn server_without_room_is_unavailable() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE crowded (id int NOT NULL, name text NOT NULL)",
            "INSERT INTO crowded VALUES (1, 'Ann')",
            &format!("CREATE USER plain@'127.0.0.1' IDENTIFIED BY '{PASSWORD}' WITH MAX_USER_CONNECTIONS 1"),
            "GRANT SELECT ON shop.* TO plain@'127.0.0.1'",
        ])
        .await;
    let plain = || {
        let config = MysqlConfig { user: "plain".to_string(), ..config(server, 1) };
        MysqlConnection::try_new("erp".to_string(), &config).unwrap()
    };
    let store = MysqlStore::connect(plain(), &table("crowded")).await.unwrap();
    let message = unavailable(MysqlStore::connect(plain(), &table("crowded")).await.unwrap_err());
    assert!(message.contains("max_user_connections"), "{message}");
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"], "who has a connection is served");
}

#[tokio::test]
async fn verify_full_talks_to_nobody_but_the_certified_host() {
    let certificates = Certificates::make();
    let server = MariadbServer::start_with_tls(&certificates);
    server.execute(&PEOPLE).await;
    server.execute(&SLEEPERS).await;
    let secure = |authority: &Certificates, host: &str| {
        let config = MysqlConfig {
            host: host.to_string(),
            sslmode: SslMode::VerifyFull,
            sslrootcert: Some(authority.path("ca.crt")),
            max_connections: NonZeroUsize::MIN,
            ..config(&server, 1)
        };
        MysqlConnection::try_new("erp".to_string(), &config).unwrap()
    };
    server.execute(&["ALTER USER tests@'127.0.0.1' REQUIRE SSL"]).await;
    let trusted = secure(&certificates, "127.0.0.1");
    let store = MysqlStore::connect(Arc::clone(&trusted), &table("people")).await.unwrap();
    // The user is let in over TLS alone.
    assert_eq!(texts(&lookup(&store).await.unwrap()), ["0: Ann"]);
    let clear = MysqlConnection::try_new("erp".to_string(), &config(&server, 1)).unwrap();
    let message = unavailable(MysqlStore::connect(clear, &table("people")).await.unwrap_err());
    assert!(message.contains("Access denied"), "{message}");

    let elsewhere = secure(&certificates, "127.0.0.2");
    let message = unavailable(MysqlStore::connect(elsewhere, &table("people")).await.unwrap_err());
    assert!(message.contains("not valid for name"), "{message}");
    let distrusted = secure(&Certificates::make(), "127.0.0.1");
    let message = unavailable(MysqlStore::connect(distrusted, &table("people")).await.unwrap_err());
    assert!(message.contains("invalid peer certificate"), "{message}");
}

/// Keys of 64 kB each: more than the server takes at once is an error that splits a batch, and no connection is lost by it.
#[tokio::test]
async fn request_beyond_max_allowed_packet_is_about_its_keys() {
    let server = MariadbServer::start();
    server
        .execute(&[
            "SET GLOBAL max_allowed_packet = 1048576",
            "CREATE TABLE big (name mediumtext, id int)",
            "INSERT INTO big VALUES (REPEAT('x', 65536), 1), (CONCAT(REPEAT('x', 65535), '\\n'), 2)",
        ])
        .await;
    let store = MysqlStore::connect(connection(&server, 1), &table("big")).await.unwrap();
    let keys = |count: usize| {
        let others = (0..count).map(|i| format!("{i}{}", "y".repeat(65_000)));
        let all = [format!("{}\n", "x".repeat(65_535)), "x".repeat(65_536)].into_iter().chain(others);
        Arc::new(datafusion::arrow::array::StringViewArray::from_iter_values(all)) as _
    };
    let answer = store.lookup(&request(&[0], &[1], &[], vec![keys(10)])).await.unwrap();
    assert_eq!(texts(&answer), ["0: 2", "1: 1"]);
    let error = store.lookup(&request(&[0], &[1], &[], vec![keys(20)])).await.unwrap_err();
    assert!(error.is_about_keys() && !error.is_transient(), "{error:?}");
    assert!(format!("{error:?}").contains("exceeds the store's max_allowed_packet"), "{error:?}");
}
