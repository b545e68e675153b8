//! What the Redis store does when the server is not there, is slow, or refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use lookaside::store::postgres::SslMode;
use lookaside::store::redis::{
    Address, RedisConfig, RedisConnection, RedisServers, RedisStore, RedisTable, RedisValue,
};
use lookaside::store::{Store, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::store_postgres::request;
use crate::store_redis::{bigints, config, connection, failure, found, store, table};
use crate::support::certificate::Certificates;
use crate::support::lookaside::Lookaside;
use crate::support::redis::RedisServer;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// Shorter than anything that waits.
const SHORT: Duration = Duration::from_millis(200);

fn names(prefix: &str) -> RedisTable {
    table(&format!("{prefix}:{{id}}"), RedisValue::Text, &[("id", "bigint"), ("name", "text")])
}

fn unavailable(error: StoreError) -> String {
    match error {
        StoreError::Unavailable { message } => message,
        other => panic!("expected that the store is not available, found {other:?}"),
    }
}

async fn ann(store: &RedisStore) {
    assert_eq!(found(store, &[1], bigints(&[1])).await, ["0: Ann"]);
}

#[tokio::test]
async fn killed_server_is_unavailable_and_used_again_when_it_is_back() {
    let server = RedisServer::start();
    server.run(&["SET", "p:1", "Ann"]).await;
    let store = store(&server, names("p")).await;
    ann(&store).await;
    for _ in 0..3 {
        server.stop();
        let message = unavailable(failure(&store, &[1], bigints(&[1])).await);
        assert!(message.starts_with(&format!("127.0.0.1:{}: ", server.port())), "{message}");
        server.start_again();
        server.run(&["SET", "p:1", "Ann"]).await;
        ann(&store).await;
    }
}

#[tokio::test]
async fn frozen_server_holds_nobody_up_and_its_connections_are_replaced() {
    let server = RedisServer::start();
    server.run(&["SET", "p:1", "Ann"]).await;
    let config = RedisConfig { max_connections: 1, ..config(&server) };
    let connection = RedisConnection::try_new("cache".to_string(), config).unwrap();
    let store = RedisStore::connect(connection, names("p")).await.unwrap();
    server.freeze();
    for _ in 0..3 {
        let asked = request(&[0], &[1], &[], vec![bigints(&[2])]);
        assert!(tokio::time::timeout(SHORT, store.lookup(&asked)).await.is_err(), "dropping a lookup waits for nobody");
    }
    server.thaw();
    // An answer to what was dropped would be no match.
    ann(&store).await;
}

#[tokio::test]
async fn slow_server_is_waited_for_and_dropped_requests_mix_no_answers() {
    let server = RedisServer::start();
    let mut load = redis::Pipeline::new();
    (0..1000).for_each(|i| {
        load.cmd("SET").arg(format!("p:{i}")).arg(format!("name {i}")).ignore();
    });
    load.exec_async(&mut server.connect().await).await.unwrap();
    let store = Arc::new(store(&server, names("p")).await);
    server.run(&["CLIENT", "PAUSE", "400", "ALL"]).await;
    assert_eq!(found(&store, &[1], bigints(&[3])).await, ["0: name 3"], "it was waited for");
    for i in 0..200 {
        let asked = request(&[0], &[1], &[], vec![bigints(&(0..1000).collect::<Vec<_>>())]);
        let _ = tokio::time::timeout(Duration::from_micros(50 * i), store.lookup(&asked)).await;
        let id = i as i64 % 1000;
        assert_eq!(found(&store, &[1], bigints(&[id])).await, [format!("0: name {id}")]);
    }
}

#[tokio::test]
async fn rows_time_out_while_the_server_is_frozen_and_are_found_after() {
    let server = RedisServer::start();
    server.run(&["HSET", "sql:customer:7", "name", "Ann"]).await;
    let lookaside = Lookaside::start(&crate::store_redis::catalog(&server, "timeout = \"300ms\"")).await;
    let client = lookaside.connect().await;
    let query = "SELECT name FROM (VALUES (7::bigint)) AS o (id) LOOKUP JOIN customers c ON o.id = c.id";
    assert_eq!(client.query(query, &[]).await.unwrap().len(), 1);
    server.freeze();
    let error = tokio::time::timeout(LONG, client.query(query, &[])).await.unwrap().unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "lookup in \"customers\" timed out after 300ms");
    server.thaw();
    assert_eq!(client.query(query, &[]).await.unwrap().len(), 1);
    lookaside.stop().await;
}

#[tokio::test]
async fn half_an_answer_is_no_answer() {
    let server = RedisServer::start();
    let big = "x".repeat(100_000);
    server.run(&["SET", "p:1", &big]).await;
    let proxy = Proxy::start(server.port()).await;
    let mut config = config(&server);
    config.servers =
        RedisServers::One { address: Address { host: "127.0.0.1".to_string(), port: proxy.port }, database: 0 };
    let connection = RedisConnection::try_new("cache".to_string(), config).unwrap();
    let store = RedisStore::connect(connection, names("p")).await.unwrap();
    assert_eq!(found(&store, &[1], bigints(&[1])).await, [format!("0: {big}")]);
    proxy.bytes_left.store(50_000, SeqCst);
    unavailable(failure(&store, &[1], bigints(&[1])).await);
    proxy.bytes_left.store(usize::MAX, SeqCst);
    assert_eq!(found(&store, &[1], bigints(&[1])).await, [format!("0: {big}")]);
}

/// Passes bytes on, and closes connections once it has handed back so many.
struct Proxy {
    port: u16,
    bytes_left: Arc<AtomicUsize>,
    _task: SpawnedTask<()>,
}

impl Proxy {
    async fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let bytes_left = Arc::new(AtomicUsize::new(usize::MAX));
        let left = Arc::clone(&bytes_left);
        let task = SpawnedTask::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                connections.spawn(pass(client, server, Arc::clone(&left)));
            }
        });
        Proxy { port, bytes_left, _task: task }
    }
}

async fn pass(client: TcpStream, server: TcpStream, left: Arc<AtomicUsize>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let back = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let allowed = count.min(left.load(SeqCst));
            if to_client.write_all(&buffer[..allowed]).await.is_err() || allowed < count {
                return;
            }
            left.fetch_sub(allowed, SeqCst);
        }
    };
    tokio::select! {
        () = back => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}

#[tokio::test]
async fn refused_users_are_told_why_and_the_password_to_nobody() {
    let server = RedisServer::start();
    for user in [
        &["ACL", "SETUSER", "reader", "on", ">s3cret-word", "~p:*", "+@read", "+ping", "+select"][..],
        &["ACL", "SETUSER", "blind", "on", ">s3cret-word", "~p:*", "+ping", "+get"],
        &["ACL", "SETUSER", "elsewhere", "on", ">s3cret-word", "~q:*", "+@all"],
        &["SET", "p:1", "Ann"],
        &["CONFIG", "SET", "requirepass", "s3cret-default"],
    ] {
        redis::cmd(user[0]).arg(&user[1..]).exec_async(&mut server.connect().await).await.unwrap();
    }
    let with = |user: Option<&str>, password: Option<&str>| {
        let config =
            RedisConfig { user: user.map(String::from), password: password.map(String::from), ..config(&server) };
        assert!(!format!("{config:?}").contains("s3cret"));
        let connection = RedisConnection::try_new("cache".to_string(), config).unwrap();
        assert!(!format!("{connection} {connection:?}").contains("s3cret"));
        RedisStore::connect(connection, names("p"))
    };
    ann(&with(Some("reader"), Some("s3cret-word")).await.unwrap()).await;
    ann(&with(None, Some("s3cret-default")).await.unwrap()).await;
    let refused = [
        (None, None, "28P01", "NOAUTH Authentication required."),
        (None, Some("s3cret-wrong"), "28P01", "WRONGPASS invalid username-password pair or user is disabled."),
        (Some("nobody"), Some("s3cret-word"), "28P01", "WRONGPASS invalid username-password pair or user is disabled."),
        (Some("blind"), Some("s3cret-word"), "42501", "'type' command"),
        (Some("elsewhere"), Some("s3cret-word"), "42501", "NOPERM"),
    ];
    for (user, password, state, text) in refused {
        let error = with(user, password).await.unwrap_err();
        assert!(!error.is_transient());
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        match error {
            StoreError::Failed { message, sqlstate } => {
                assert_eq!(sqlstate.as_deref(), Some(state), "{message}");
                assert!(message.contains(text), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    let tracking = with(Some("reader"), Some("s3cret-word")).await.unwrap().with_tracking().await.unwrap_err();
    assert!(format!("{tracking:?}").contains("NOPERM"), "{tracking:?}");
}

#[tokio::test]
async fn server_that_is_full_or_gone_is_unavailable() {
    let server = RedisServer::start();
    let mut raw = server.connect().await;
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec_async(&mut raw).await.unwrap();
    unavailable(RedisStore::connect(connection(&server), names("p")).await.unwrap_err());
    drop(raw);
    server.stop();
    let gone = unavailable(RedisStore::connect(connection(&server), names("p")).await.unwrap_err());
    assert!(gone.contains("refused"), "{gone}");
}

#[tokio::test]
async fn tls_talks_to_nobody_but_the_certified_host() {
    let certificates = Certificates::make();
    let (server, port) = RedisServer::start_with_tls(&certificates);
    server.run(&["SET", "p:1", "Ann"]).await;
    let connect = |host: &str, authority: &Certificates| {
        let address = Address { host: host.to_string(), port };
        let servers = RedisServers::One { address, database: 0 };
        let sslrootcert = Some(authority.path("ca.crt"));
        let config = RedisConfig { servers, sslmode: SslMode::VerifyFull, sslrootcert, ..config(&server) };
        RedisStore::connect(RedisConnection::try_new("cache".to_string(), config).unwrap(), names("p"))
    };
    ann(&connect("localhost", &certificates).await.unwrap()).await;
    ann(&connect("127.0.0.1", &certificates).await.unwrap().with_tracking().await.unwrap()).await;
    let elsewhere = unavailable(connect("127.0.0.2", &certificates).await.unwrap_err());
    assert!(elsewhere.contains("refused") || elsewhere.contains("not valid for name"), "{elsewhere}");
    let distrusted = unavailable(connect("localhost", &Certificates::make()).await.unwrap_err());
    assert!(distrusted.contains("invalid peer certificate"), "{distrusted}");
}
