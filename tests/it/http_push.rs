//! Rows that come by `POST /streams/NAME`.

use bytes::Bytes;
use futures::stream;
use postgres_protocol::password::scram_sha_256;
use reqwest::{Body, Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::SimpleQueryMessage;

use crate::support::certificate::Certificates;
use crate::support::lookaside::Lookaside;
use crate::support::raw::DEADLINE;

const JSON_LINES: &str = "application/x-ndjson";

const CATALOG: &str = r#"
[stream.inbox]
type = "push"
columns = { id = "bigint not null", note = "text", amount = "numeric(6,2)" }
[stream.narrow]
type = "push"
retain_rows = 1
slow_reader = "wait"
columns = { id = "bigint" }
[stream.made]
type = "generator"
rows_per_second = 0
columns = { id = "n" }
[lookup.customers]
type = "simulated"
key = { id = "bigint" }
columns = { name = "'customer ' || id" }
"#;

fn post(server: &Lookaside, stream: &str, content_type: &str, body: impl Into<Body>) -> RequestBuilder {
    let url = format!("http://127.0.0.1:{}/streams/{stream}", server.http_port);
    Client::new().post(url).header("content-type", content_type).body(body)
}

/// The status and what the body says.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = tokio::time::timeout(DEADLINE, request.send()).await.expect("an answer in time").unwrap();
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

async fn rows(client: &tokio_postgres::Client, sql: &str) -> Vec<String> {
    let messages = tokio::time::timeout(DEADLINE, client.simple_query(sql)).await.expect("rows in time").unwrap();
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let values: Vec<_> = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL")).collect();
            Some(values.join(" "))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

async fn retained(server: &Lookaside, stream: &str) -> String {
    let sql = format!("SELECT retained_rows FROM lookaside.streams WHERE name = '{stream}'");
    rows(&server.connect().await, &sql).await.remove(0)
}

#[tokio::test]
async fn rows_are_in_the_stream_when_the_answer_is_there() {
    let server = Lookaside::start(CATALOG).await;
    let client = server.connect().await;
    client.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM inbox").await.unwrap();
    let lines = "{\"id\": 1, \"note\": \"é\", \"amount\": 1.50}\r\n\n{\"amount\":\"2\", \"more\": [1], \"id\": 2}";
    assert_eq!(answer(post(&server, "inbox", JSON_LINES, lines)).await, (200, json!({"rows": 2})));
    assert_eq!(rows(&client, "FETCH 2 FROM c").await, ["1 é 1.50", "2 NULL 2.00"]);
    let csv = "note,id,more\r\n\"a,\nb\",3,x\r\n,4,\r\n";
    assert_eq!(answer(post(&server, "inbox", "text/csv; charset=UTF-8", csv)).await, (200, json!({"rows": 2})));
    assert_eq!(rows(&client, "FETCH 2 FROM c").await, ["3 a,\nb NULL", "4 NULL NULL"]);
    for (content_type, body) in [(JSON_LINES, ""), (JSON_LINES, "\n \n"), ("text/csv", ""), ("text/csv", "id\n")] {
        assert_eq!(answer(post(&server, "inbox", content_type, body)).await, (200, json!({"rows": 0})));
    }
    assert_eq!(retained(&server, "inbox").await, "4");
}

#[tokio::test]
async fn chunks_may_be_cut_anywhere() {
    let server = Lookaside::start(CATALOG).await;
    let body = "\u{feff}{\"id\": 1, \"note\": \"é€\"}\n{\"id\": 2}".as_bytes();
    let chunks: Vec<_> = body.chunks(1).map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk))).collect();
    let request = post(&server, "inbox", JSON_LINES, Body::wrap_stream(stream::iter(chunks)));
    assert_eq!(answer(request).await, (200, json!({"rows": 2})));
    let sql = "SELECT note FROM inbox WITH (start = 'earliest') LIMIT 2";
    assert_eq!(rows(&server.connect().await, sql).await, ["é€", "NULL"]);
}

#[tokio::test]
async fn a_bad_row_keeps_all_rows_out() {
    let server = Lookaside::start(CATALOG).await;
    // More than a batch is good.
    let good: String = (1..=20_000).map(|id| format!("{{\"id\": {id}}}\n")).collect();
    let refused = |line: u64, sqlstate: &str, reason: &str| {
        let error = format!("malformed row in \"inbox\" at line {line}: {reason}");
        let detail = "None of the request's rows was taken.";
        (400, json!({ "error": error, "sqlstate": sqlstate, "line": line, "detail": detail }))
    };
    let null = "null value in column \"id\" violates not-null constraint";
    for (row, sqlstate, reason) in [
        ("{\"id\": \"x\"}", "22P02", "column \"id\": a JSON string cannot be read as type bigint: \"x\""),
        ("{\"id\": 1", "22P02", "invalid JSON at byte 8: EOF while parsing an object"),
        ("[1]", "22P02", "expected a JSON object, found \"[1]\""),
        ("{\"id\": 1, \"amount\": 12345.6}", "22003", "column \"amount\": numeric field overflow"),
        ("{}", "23502", null),
    ] {
        let (status, told) = answer(post(&server, "inbox", JSON_LINES, format!("{good}{row}\n{good}"))).await;
        assert_eq!((status, told), refused(20_001, sqlstate, reason), "{row}");
    }
    let csv = |body: &'static str| answer(post(&server, "inbox", "text/csv", body));
    assert_eq!(csv("id,note\n1,a\n2\n").await, refused(3, "22P02", "expected 2 fields as in the header, found 1"));
    assert_eq!(csv("id,note\n1,\"a\n").await, refused(2, "22P02", "unterminated CSV quoted field"));
    let (status, told) = csv("note\na\n").await;
    assert_eq!(
        (status, &told["error"], &told["sqlstate"], &told["line"]),
        (
            400,
            &json!("rows for stream \"inbox\": the header has no column \"id\", which is not null"),
            &json!("42703"),
            &json!(1)
        )
    );
    let not_text = post(&server, "inbox", JSON_LINES, b"{\"id\": 1}\n{\"id\": 1, \"note\": \"\xff\"}".as_slice());
    let reason = "invalid byte sequence for encoding \"UTF8\": 0xff";
    assert_eq!(answer(not_text).await, refused(2, "22P02", reason));
    assert_eq!(retained(&server, "inbox").await, "0");
}

#[tokio::test]
async fn a_request_says_what_it_is_and_to_whom() {
    let server = Lookaside::start(CATALOG).await;
    let refusals: &[(&str, &str, &str, u16, &str, &str)] = &[
        ("nonesuch", "content-type", JSON_LINES, 404, "42P01", "relation \"nonesuch\" does not exist"),
        ("INBOX", "content-type", JSON_LINES, 404, "42P01", "relation \"INBOX\" does not exist"),
        ("made", "content-type", JSON_LINES, 409, "0A000", "cannot insert into generator stream \"made\""),
        ("customers", "content-type", JSON_LINES, 409, "0A000", "cannot insert into lookup table \"customers\""),
        ("inbox", "x-nothing", "", 415, "0A000", "the request does not declare one content type"),
        ("inbox", "content-type", "text/plain", 415, "0A000", "content type \"text/plain\" is not accepted"),
        ("inbox", "content-type", "application/xml", 415, "0A000", "content type \"application/xml\" is not accepted"),
        ("inbox", "content-type", "text/csv; charset=latin1", 415, "0A000", "charset \"latin1\" is not accepted"),
        ("inbox", "content-type", "text/csv;header=absent", 415, "0A000", "csv without a header line is not accepted"),
        ("inbox", "content-encoding", "gzip", 415, "0A000", "content encoding \"gzip\" is not accepted"),
        ("inbox", "host", "evil.example:7480", 421, "42501", "this server is not \"evil.example\""),
        ("inbox", "origin", "http://evil.example", 403, "42501", "requests of other sites' pages are refused"),
        ("inbox", "sec-fetch-site", "cross-site", 403, "42501", "requests of other sites' pages are refused"),
    ];
    for (stream, header, value, status, sqlstate, error) in refusals {
        let url = format!("http://127.0.0.1:{}/streams/{stream}", server.http_port);
        let mut request = Client::new().post(url).body("{\"id\": 1}").header(*header, *value);
        if !["content-type", "x-nothing"].contains(header) {
            request = request.header("content-type", JSON_LINES);
        }
        let (got, told) = answer(request).await;
        assert_eq!((got, &told["sqlstate"], &told["error"]), (*status, &json!(sqlstate), &json!(error)), "{value}");
    }
    let hint = "Send application/x-ndjson (or application/jsonl, application/json), one JSON object a line, or text/csv with a header line.";
    assert_eq!(answer(post(&server, "inbox", "text/plain", "")).await.1["hint"], hint);
    for method in ["GET", "PUT", "DELETE"] {
        let url = format!("http://127.0.0.1:{}/streams/inbox", server.http_port);
        let refused = Client::new().request(method.parse().unwrap(), url).send().await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.headers()["allow"].as_bytes()), (405, b"POST".as_slice()));
    }
    for path in ["", "a/b", "%ff"] {
        assert_eq!(post(&server, path, JSON_LINES, "").send().await.unwrap().status().as_u16(), 404, "{path}");
    }
    assert_eq!(retained(&server, "inbox").await, "0");
    // A name may be written in percents, and the same page may send.
    let own = format!("http://127.0.0.1:{}", server.http_port);
    let request = post(&server, "%69nbox", "Application/JSONL; charset=\"utf-8\"", "{\"id\": 1}").header("origin", own);
    assert_eq!(answer(request.header("content-encoding", "identity")).await, (200, json!({"rows": 1})));
    let one = post(&server, "inbox", "application/json", "{\"id\": 2}");
    assert_eq!(answer(one).await, (200, json!({"rows": 1})));
}

#[tokio::test]
async fn a_body_may_have_64_mib() {
    let server = Lookaside::start(CATALOG).await;
    let row = |bytes: usize| format!("{{\"id\": 1, \"note\": \"{}\"}}\n", "x".repeat(bytes - 22));
    let whole = row(64 << 20);
    assert_eq!(whole.len(), 64 << 20);
    let too_large = json!({
        "error": "the body has more than 64 MiB",
        "sqlstate": "54000",
        "hint": "Send it in several requests, or by COPY.",
    });
    assert_eq!(answer(post(&server, "inbox", JSON_LINES, format!("{whole}\n"))).await, (413, too_large.clone()));
    let pieces = (0..65).map(move |_| Ok::<_, std::io::Error>(row(1 << 20)));
    let chunked = post(&server, "inbox", JSON_LINES, Body::wrap_stream(stream::iter(pieces)));
    assert_eq!(answer(chunked).await, (413, too_large));
    assert_eq!(retained(&server, "inbox").await, "0");
    assert_eq!(answer(post(&server, "inbox", JSON_LINES, whole)).await, (200, json!({"rows": 1})));
}

/// A request by hand, of which `body` is sent.
async fn raw_post(server: &Lookaside, stream: &str, length: usize, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", server.http_port)).await.unwrap();
    let head = format!(
        "POST /streams/{stream} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON_LINES}\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    // What is answered here has been sent later, so that the server knows of the other by now.
    let health = Client::new().get(format!("http://127.0.0.1:{}/health", server.http_port)).send().await.unwrap();
    assert_eq!(health.status().as_u16(), 200);
    socket
}

#[tokio::test]
async fn half_a_body_puts_nothing_in() {
    let server = Lookaside::start(CATALOG).await;
    drop(raw_post(&server, "inbox", 1000, "{\"id\": 1}\n{\"id\": 2}\n").await);
    assert_eq!(answer(post(&server, "inbox", JSON_LINES, "{\"id\": 3}")).await, (200, json!({"rows": 1})));
    let sql = "SELECT id FROM inbox WITH (start = 'earliest') LIMIT 1";
    assert_eq!(rows(&server.connect().await, sql).await, ["3"]);
}

#[tokio::test]
async fn who_goes_away_while_readers_are_waited_for_puts_nothing_in() {
    let server = Lookaside::start(CATALOG).await;
    let client = server.connect().await;
    client.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM narrow").await.unwrap();
    assert_eq!(answer(post(&server, "narrow", JSON_LINES, "{\"id\": 1}")).await.0, 200);
    drop(raw_post(&server, "narrow", 9, "{\"id\": 2}").await);
    let (third, fetched) = tokio::join!(answer(post(&server, "narrow", JSON_LINES, "{\"id\": 3}")), async {
        [rows(&client, "FETCH 1 FROM c").await, rows(&client, "FETCH 1 FROM c").await].concat()
    });
    assert_eq!((third, fetched), ((200, json!({"rows": 1})), vec!["1".to_string(), "3".to_string()]));
}

#[tokio::test]
async fn who_waits_is_told_that_the_server_stops() {
    let server = Lookaside::start(CATALOG).await;
    let client = server.connect().await;
    client.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM narrow").await.unwrap();
    assert_eq!(answer(post(&server, "narrow", JSON_LINES, "{\"id\": 1}")).await.0, 200);
    let mut waiting = raw_post(&server, "narrow", 9, "{\"id\": 2}").await;
    server.stop().await;
    let mut told = String::new();
    tokio::time::timeout(DEADLINE, waiting.read_to_string(&mut told)).await.expect("an end in time").unwrap();
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("\"sqlstate\":\"57P01\""), "{told}");
}

fn guarded(server_lines: &str) -> String {
    let verifier = scram_sha_256(b"sesame");
    format!(
        "[server]\n{server_lines}\n[user.ana]\npassword = \"{verifier}\"\nroles = [\"clerk\"]\n[role.clerk]\n\
         read = [\"orders\"]\nwrite = [\"inbox\"]\n[stream.inbox]\ntype = \"push\"\ncolumns = {{ id = \"bigint\" }}\n\
         [stream.orders]\ntype = \"push\"\ncolumns = {{ id = \"bigint\" }}\n[stream.salaries]\ntype = \"push\"\n\
         columns = {{ id = \"bigint\" }}\n"
    )
}

#[tokio::test]
async fn who_writes_has_the_right_to() {
    let server = Lookaside::start(&guarded("")).await;
    let ask = |stream: &str| post(&server, stream, JSON_LINES, "{\"id\": 1}");
    for stream in ["inbox", "nonesuch"] {
        for request in [ask(stream), ask(stream).basic_auth("ana", Some("open"))] {
            assert_eq!(request.send().await.unwrap().status().as_u16(), 401, "{stream}");
        }
    }
    let ana = |stream: &str| answer(ask(stream).basic_auth("ana", Some("sesame")));
    assert_eq!(ana("inbox").await, (200, json!({"rows": 1})));
    let denied = json!({"error": "permission denied for stream orders", "sqlstate": "42501"});
    assert_eq!(ana("orders").await, (403, denied));
    for missing in ["salaries", "nonesuch"] {
        let error = format!("relation \"{missing}\" does not exist");
        assert_eq!(ana(missing).await, (404, json!({ "error": error, "sqlstate": "42P01" })));
    }
    // A browser has no password for a name that only seems to be ours, but may have one for us.
    let named = ask("inbox").basic_auth("ana", Some("sesame")).header("host", "lookaside.example");
    assert_eq!(answer(named).await.0, 200);
    let page = ask("inbox").basic_auth("ana", Some("sesame")).header("origin", "http://evil.example");
    assert_eq!(answer(page).await.0, 403);
}

#[tokio::test]
async fn rows_come_over_tls_where_the_server_has_a_certificate() {
    let certificates = Certificates::make();
    let server = Lookaside::start(&guarded(&certificates.server_lines())).await;
    let ca = std::fs::read(certificates.path("ca.crt")).unwrap();
    let ca = reqwest::Certificate::from_pem(&ca).unwrap();
    let client = Client::builder().add_root_certificate(ca).build().unwrap();
    let request = |scheme: &str| {
        let url = format!("{scheme}://127.0.0.1:{}/streams/inbox", server.http_port);
        let request = client.post(url).basic_auth("ana", Some("sesame"));
        request.header("content-type", JSON_LINES).body("{\"id\": 1}")
    };
    assert_eq!(answer(request("https")).await, (200, json!({"rows": 1})));
    assert!(request("http").send().await.is_err());
}
