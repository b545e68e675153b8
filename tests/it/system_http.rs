//! `/metrics`, `/health` and `/ready`, asked for by hand.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::password::scram_sha_256;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::SimpleQueryMessage;
use tokio_rustls::TlsConnector;

use crate::support::certificate::Certificates;
use crate::support::lookaside::Lookaside;
use crate::support::process::{Process, catalog_file};
use crate::support::raw::DEADLINE;
use crate::system::{catalog, start};

/// What came back: the status, the head in lower case, the body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

async fn request(port: u16, line: &str) -> Answer {
    request_as(TcpStream::connect(("127.0.0.1", port)).await.unwrap(), line, None).await
}

/// `user` is name and password, with a colon between.
async fn request_as(mut socket: impl AsyncRead + AsyncWrite + Unpin, line: &str, user: Option<&str>) -> Answer {
    let user = user.map(|user| format!("Authorization: Basic {}\r\n", STANDARD.encode(user))).unwrap_or_default();
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{user}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, socket.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_string() }
}

#[tokio::test]
async fn only_what_is_there_answers_and_only_to_get_and_head() {
    let server = Lookaside::start("").await;
    let port = server.http_port;
    let health = request(port, "GET /health").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    assert_eq!(request(port, "GET /health?verbose=1").await.status, 200);
    let head = request(port, "HEAD /metrics").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("content-type: text/plain; version=0.0.4"), "{}", head.head);
    for path in ["/", "/metrics/", "/healthz", "/../health"] {
        assert_eq!(request(port, &format!("GET {path}")).await.status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let refused = request(port, &format!("{method} /metrics")).await;
        assert_eq!(refused.status, 405, "{method}");
        assert!(refused.head.contains("allow: get, head"), "{}", refused.head);
    }
    let mut nonsense = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    nonsense.write_all(b"\x16\x03\x01\x02\x00 nonsense\r\n\r\n").await.unwrap();
    let mut answer = vec![];
    tokio::time::timeout(DEADLINE, nonsense.read_to_end(&mut answer)).await.expect("an end in time").unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    assert_eq!(request(port, "GET /health").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn ready_once_every_store_has_been_reached() {
    let (server, client, _store) = start("system_ready").await;
    let before = request(server.http_port, "GET /ready").await;
    assert_eq!(before.status, 503);
    let told: serde_json::Value = serde_json::from_str(&before.body).unwrap();
    assert_eq!(told["ready"], false);
    assert_eq!(told["not_reached"][0]["lookup"], "customers");
    let store = told["not_reached"][0]["store"].as_str().unwrap();
    assert!(store.starts_with("postgres public.system_ready at ") && !store.contains("not-a-secret"), "{store}");
    client.simple_query("SELECT lookaside.warm('customers', 1)").await.unwrap();
    let after = request(server.http_port, "GET /ready").await;
    assert_eq!((after.status, after.body.trim_end()), (200, r#"{"not_reached":[],"ready":true,"stopping":false}"#));
}

#[tokio::test]
async fn metrics_say_what_the_views_say() {
    let (server, client, _store) = start("system_metrics").await;
    let join =
        "SELECT c.name FROM (SELECT * FROM clicks LIMIT 9) k LEFT LOOKUP JOIN customers c ON k.customer_id = c.id";
    client.simple_query(join).await.unwrap();
    client.simple_query("INSERT INTO inbox VALUES (1, 1), (2, 2)").await.unwrap();
    let columns = [
        "rows",
        "hits",
        "misses",
        "requests",
        "keys",
        "failures",
        "timeouts",
        "retries",
        "skipped",
        "stale",
        "refreshes",
        "cached_rows",
        "cached_bytes",
        "in_flight",
    ];
    let view = format!("SELECT {} FROM lookaside.lookups", columns.join(", "));
    let messages = client.simple_query(&view).await.unwrap();
    let Some(SimpleQueryMessage::Row(row)) = messages.get(1) else { panic!("{messages:?}") };
    let page = request(server.http_port, "GET /metrics").await;
    let samples: HashMap<&str, f64> = page
        .body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').map(|(name, value)| (name, value.parse().unwrap())).unwrap())
        .collect();
    for (position, column) in columns.iter().enumerate() {
        let total = if ["cached_rows", "cached_bytes", "in_flight"].contains(column) { "" } else { "_total" };
        let sample = samples[format!("lookaside_lookup_{column}{total}{{lookup=\"customers\"}}").as_str()];
        assert_eq!(row.get(position).unwrap().parse::<f64>().unwrap(), sample, "{column}");
    }
    assert_eq!(samples["lookaside_lookup_rows_total{lookup=\"customers\"}"], 9.0);
    assert_eq!(samples["lookaside_lookup_connected{lookup=\"customers\"}"], 1.0);
    let requests = samples["lookaside_lookup_requests_total{lookup=\"customers\"}"];
    assert!(requests >= 1.0);
    for histogram in ["latency_seconds", "request_keys"] {
        let sample = |suffix: &str| samples[format!("lookaside_lookup_{histogram}_{suffix}").as_str()];
        assert_eq!(sample("count{lookup=\"customers\"}"), requests, "{histogram}");
        assert_eq!(sample("bucket{lookup=\"customers\",le=\"+Inf\"}"), requests, "{histogram}");
        assert!(sample("sum{lookup=\"customers\"}") > 0.0, "{histogram}");
    }
    assert_eq!(samples["lookaside_lookup_request_keys_bucket{lookup=\"customers\",le=\"3\"}"], requests);
    assert!(samples["lookaside_stream_rows_read_total{stream=\"clicks\"}"] >= 9.0);
    assert_eq!(samples["lookaside_stream_retained_rows{stream=\"inbox\"}"], 2.0);
    assert_eq!((samples["lookaside_connections"], samples["lookaside_queries_running"]), (1.0, 0.0));
}

#[tokio::test]
async fn serve_prints_where_http_is_and_stops_with_an_idle_client() {
    let catalog = catalog(crate::support::postgres::PostgresServer::shared(), "system_serve");
    // Nothing is asked of the store here, so its table need not be there.
    let (_folder, path) = catalog_file(&catalog);
    let (mut server, _port) = Process::serve(&path, &["--http", "127.0.0.1:0"]).await;
    let line = server.line().await.unwrap();
    let port = line.strip_prefix("http on 127.0.0.1:").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    assert_eq!(request(port, "GET /health").await.status, 200);
    // What is wrong with the store is told here, too.
    let ready = request(port, "GET /ready").await;
    assert_eq!(ready.status, 503);
    let mut idle = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut buffer = [0; 1024];
    assert!(idle.read(&mut buffer).await.unwrap() > 0);
    server.signal("TERM");
    let ended = server.finish().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(idle.read(&mut buffer).await.unwrap(), 0, "the connection is closed");
}

/// A catalog with a watcher who may read one stream of two, and whose password is "sesame".
fn watched(server_lines: &str) -> String {
    let verifier = scram_sha_256(b"sesame");
    format!(
        "[server]\n{server_lines}\n[user.watcher]\npassword = \"{verifier}\"\nroles = [\"watch\"]\n[role.watch]\n\
         read = [\"clicks\"]\n[stream.clicks]\ntype = \"push\"\ncolumns = {{ id = \"bigint\" }}\n[stream.salaries]\n\
         type = \"push\"\ncolumns = {{ id = \"bigint\" }}\n[lookup.secrets]\ntype = \"file\"\npath = \"/nowhere.csv\"\n\
         format = \"csv\"\ncolumns = {{ id = \"bigint\" }}\n"
    )
}

#[tokio::test]
async fn users_are_asked_for_and_shown_what_they_may_see() {
    let server = Lookaside::start(&watched("")).await;
    let ask = async |line: &str, user: Option<&str>| {
        let socket = TcpStream::connect(("127.0.0.1", server.http_port)).await.unwrap();
        request_as(socket, line, user).await
    };
    for path in ["/metrics", "/health", "/ready", "/nowhere"] {
        for user in [None, Some("watcher:open"), Some("nobody:sesame"), Some("watcher")] {
            let refused = ask(&format!("GET {path}"), user).await;
            assert_eq!(refused.status, 401, "{path} {user:?}");
            assert!(refused.head.contains("www-authenticate: basic realm=\"lookaside\""), "{}", refused.head);
        }
    }
    let watcher = Some("watcher:sesame");
    assert_eq!(ask("GET /health", watcher).await.status, 200);
    assert_eq!(ask("GET /nowhere", watcher).await.status, 404);
    let page = ask("GET /metrics", watcher).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("{stream=\"clicks\"}"), "{}", page.body);
    assert!(!page.body.contains("salaries") && !page.body.contains("secrets"), "{}", page.body);
    let ready = ask("GET /ready", watcher).await;
    assert_eq!((ready.status, ready.body.contains("secrets")), (503, false), "{}", ready.body);
}

#[tokio::test]
async fn pages_may_be_opened_and_tls_is_the_servers_own() {
    let certificates = Certificates::make();
    let lines = format!("{}open_metrics = true\nopen_health = true", certificates.server_lines());
    let server = Lookaside::start(&watched(&lines)).await;
    let ask = async |line: &str| {
        let socket = TcpStream::connect(("127.0.0.1", server.http_port)).await.unwrap();
        let connector = TlsConnector::from(Arc::new(certificates.client(&["http/1.1"])));
        let socket = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
        request_as(socket, line, None).await
    };
    assert_eq!(ask("GET /health").await.status, 200);
    let ready = ask("GET /ready").await;
    assert_eq!((ready.status, ready.body.trim()), (503, "{\"not_reached\":[],\"ready\":false,\"stopping\":false}"));
    let metrics = ask("GET /metrics").await;
    assert!(metrics.status == 200 && metrics.body.contains("salaries"), "{}", metrics.body);
    assert_eq!(ask("GET /nowhere").await.status, 401);
    let mut clear = TcpStream::connect(("127.0.0.1", server.http_port)).await.unwrap();
    clear.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = vec![];
    let _ = tokio::time::timeout(DEADLINE, clear.read_to_end(&mut answer)).await.expect("an end in time");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}
