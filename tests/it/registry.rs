//! The client of a schema registry against one in this process, which says what a test has it say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use lookaside::error::{Code, Error};
use lookaside::source::registry::{RegistryError, SchemaRegistry};
use lookaside::store::http::HttpConnection;
use serde_json::json;

use crate::store_http::{config, config_of};
use crate::support::http_service::{HttpService, Told};

const ORDER: &str = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}"#;

/// A registry with an answer for each target; 404 for all others, as Confluent's says it.
async fn registry(answers: &[(&str, Told)]) -> (HttpService, SchemaRegistry) {
    let answers: HashMap<String, Told> =
        answers.iter().map(|(target, told)| (target.to_string(), told.clone())).collect();
    let service = HttpService::start(move |asked| {
        let missing = || Told::status(404).with_body(r#"{"error_code": 40403, "message": "Schema not found"}"#);
        answers.get(&asked.target).cloned().unwrap_or_else(missing)
    })
    .await;
    let client = client_of(&service);
    (service, client)
}

fn client_of(service: &HttpService) -> SchemaRegistry {
    SchemaRegistry::new(HttpConnection::try_new("registry".to_string(), config_of(service)).unwrap())
}

fn schema(text: &str) -> Told {
    Told::json(json!({ "schema": text }).to_string())
}

fn version(text: &str, id: u32, version: u32) -> Told {
    Told::json(json!({ "schema": text, "subject": "s", "id": id, "version": version }).to_string())
}

fn targets(service: &HttpService) -> Vec<String> {
    service.asked().into_iter().map(|asked| asked.target).collect()
}

/// The message, with the port that changes from run to run taken out.
fn failed(service: &HttpService, found: Result<impl std::fmt::Debug, RegistryError>) -> String {
    match found.unwrap_err() {
        RegistryError::Failed { message } => message.replace(&service.port.to_string(), "PORT"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_schema_is_asked_for_once() {
    let (service, client) = registry(&[("/schemas/ids/7", schema(ORDER))]).await;
    for _ in 0..3 {
        assert_eq!(client.by_id(7).await.unwrap().unwrap().name(), "Order");
    }
    assert_eq!(targets(&service), ["/schemas/ids/7"]);
}

#[tokio::test]
async fn a_number_without_a_schema_is_asked_for_again_after_a_while() {
    let (service, client) = registry(&[]).await;
    assert!(client.by_id(u32::MAX).await.unwrap().is_none());
    assert!(client.by_id(u32::MAX).await.unwrap().is_none());
    assert_eq!(targets(&service), ["/schemas/ids/4294967295"]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    assert!(client.by_id(u32::MAX).await.unwrap().is_none());
    assert_eq!(targets(&service).len(), 1);
}

#[tokio::test]
async fn an_outage_is_told_apart_and_not_kept() {
    let status = Arc::new(AtomicU16::new(500));
    let told = Arc::clone(&status);
    let service = HttpService::start(move |_| match told.load(Ordering::SeqCst) {
        200 => schema(ORDER),
        status => Told::status(status).with_body(r#"{"error_code": 50001, "message": "no store"}"#),
    })
    .await;
    let client = client_of(&service);
    for (told, reason) in [
        (500, "answered 500 Internal Server Error: {\"error_code\": 50001, \"message\": \"no store\"}"),
        (429, "answered 429 Too Many Requests: {\"error_code\": 50001, \"message\": \"no store\"}"),
    ] {
        status.store(told, Ordering::SeqCst);
        let error = client.by_id(7).await.unwrap_err();
        let message = format!("schema 7 of the schema registry at http://127.0.0.1:{} {reason}", service.port);
        assert_eq!(error, RegistryError::Unavailable { message });
        assert_eq!(Error::from(error).code(), Code::StoreUnavailable);
    }
    status.store(200, Ordering::SeqCst);
    assert!(client.by_id(7).await.unwrap().is_some());
    status.store(500, Ordering::SeqCst);
    assert!(client.by_id(7).await.unwrap().is_some());
}

#[tokio::test]
async fn a_registry_that_is_gone_is_unavailable() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let connection = HttpConnection::try_new("registry".to_string(), config(&url, &["127.0.0.1"])).unwrap();
    let client = SchemaRegistry::new(connection);
    assert!(matches!(client.by_id(7).await, Err(RegistryError::Unavailable { .. })));
    assert!(matches!(client.latest("orders").await, Err(RegistryError::Unavailable { .. })));
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_unavailable() {
    let service = HttpService::saying(b"", false).await;
    let mut config = config_of(&service);
    config.request_timeout = Duration::from_millis(50);
    let client = SchemaRegistry::new(HttpConnection::try_new("registry".to_string(), config).unwrap());
    let Err(RegistryError::Unavailable { message }) = client.by_id(7).await else { panic!("an answer") };
    assert!(message.ends_with("was not answered within request_timeout (50ms)"), "{message}");
}

#[tokio::test]
async fn those_who_ask_at_once_share_one_request() {
    let (service, client) = registry(&[("/schemas/ids/7", schema(ORDER)), ("/schemas/ids/8", schema(ORDER))]).await;
    let found = join_all((0..20).map(|n| client.by_id(if n < 15 { 7 } else { 8 }))).await;
    assert!(found.iter().all(|found| found.as_ref().unwrap().is_some()));
    let mut asked = targets(&service);
    asked.sort();
    assert_eq!(asked, ["/schemas/ids/7", "/schemas/ids/8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_leaves_the_others_their_answer() {
    let requests = Arc::new(AtomicUsize::new(0));
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (held, count) = (Mutex::new(held), Arc::clone(&requests));
    let service = HttpService::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        // The client runs on another thread of the runtime meanwhile.
        tokio::task::block_in_place(|| held.lock().unwrap().recv()).unwrap();
        schema(ORDER)
    });
    let service = service.await;
    let client = client_of(&service);
    let mut first = Box::pin(client.by_id(7));
    let mut second = Box::pin(client.by_id(7));
    while requests.load(Ordering::SeqCst) == 0 {
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        tokio::task::yield_now().await;
    }
    drop(first);
    release.send(()).unwrap();
    assert!(second.await.unwrap().is_some());
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_registry_that_does_not_let_us_ask_says_nothing_of_the_schema() {
    let unprocessable = Told::status(422).with_body("no such context");
    let (_service, client) =
        registry(&[("/schemas/ids/4", Told::status(401)), ("/schemas/ids/7", unprocessable)]).await;
    for (id, expected) in [(4, "answered 401 Unauthorized"), (7, "answered 422 Unprocessable Entity: no such context")]
    {
        match client.by_id(id).await.unwrap_err() {
            RegistryError::Refused { message } => assert!(message.ends_with(expected), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_avro_schema_fails_with_the_reason() {
    let (service, client) = registry(&[
        ("/schemas/ids/1", Told::json(json!({"schema": "syntax", "schemaType": "PROTOBUF"}).to_string())),
        ("/schemas/ids/2", schema("\"string\"")),
        ("/schemas/ids/3", Told::json("[]")),
        ("/schemas/ids/5", Told::status(204)),
        ("/schemas/ids/6", Told::json("x".repeat(9 * 1024 * 1024))),
    ])
    .await;
    for (id, expected) in [
        (1, "is of type PROTOBUF, and not AVRO"),
        (2, "cannot be read: invalid Avro schema: it is no record but of type string"),
        (3, "was answered with no schema: invalid length 0, expected a registered schema at line 1 column 2"),
        (5, "was answered with nothing"),
        (6, "has more than 8388608 bytes with all that it refers to"),
    ] {
        let expected = format!("schema {id} of the schema registry at http://127.0.0.1:PORT {expected}");
        assert_eq!(failed(&service, client.by_id(id).await), expected);
        // It is not asked for at each of its messages.
        assert_eq!(failed(&service, client.by_id(id).await), expected);
    }
    assert_eq!(targets(&service).len(), 5);
}

fn referring(schema: &str, references: &[(&str, i64)]) -> Told {
    let references =
        references.iter().map(|(subject, version)| json!({"name": "n", "subject": subject, "version": version}));
    Told::json(json!({"schema": schema, "references": references.collect::<Vec<_>>()}).to_string())
}

fn record(name: &str, fields: &[&str]) -> String {
    let fields = fields.iter().map(|of| json!({"name": of.to_lowercase(), "type": of})).collect::<Vec<_>>();
    json!({"type": "record", "name": name, "fields": fields}).to_string()
}

#[tokio::test]
async fn schemas_that_are_referred_to_are_fetched_once_each() {
    let (service, client) = registry(&[
        ("/schemas/ids/1", referring(&record("A", &["B", "C"]), &[("b/b", 1), ("c", 2)])),
        ("/subjects/b%2Fb/versions/1?deleted=true", referring(&record("B", &["D"]), &[("d", -1)])),
        ("/subjects/c/versions/2?deleted=true", referring(&record("C", &["D"]), &[("d", -1)])),
        ("/subjects/d/versions/-1?deleted=true", referring(&record("D", &["long"]), &[])),
    ])
    .await;
    let schema = client.by_id(1).await.unwrap().unwrap();
    assert_eq!(schema.columns().unwrap().len(), 2);
    assert_eq!(targets(&service).len(), 4);
}

#[tokio::test]
async fn references_that_lead_nowhere_or_in_circles_fail() {
    let many: Vec<(String, i64)> = (0..101).map(|n| (format!("s{n}"), 1)).collect();
    let many: Vec<(&str, i64)> = many.iter().map(|(subject, version)| (subject.as_str(), *version)).collect();
    let targets: Vec<String> = (0..101).map(|n| format!("/subjects/s{n}/versions/1?deleted=true")).collect();
    let mut answers = vec![
        ("/schemas/ids/1", referring(&record("A", &["B"]), &[("b", 1)])),
        ("/schemas/ids/2", referring(&record("A", &["C"]), &[("c", 1)])),
        ("/subjects/c/versions/1?deleted=true", referring(&record("C", &["E"]), &[("e", 1)])),
        ("/subjects/e/versions/1?deleted=true", referring(&record("E", &["C"]), &[("c", 1)])),
        ("/schemas/ids/3", referring(ORDER, &many)),
        ("/schemas/ids/4", referring(ORDER, &[("p", 1)])),
        ("/subjects/p/versions/1?deleted=true", Told::json(json!({"schema": "{}", "schemaType": "JSON"}).to_string())),
        ("/schemas/ids/5", referring(ORDER, &[("..", 1)])),
    ];
    let leaf = referring("\"int\"", &[]);
    answers.extend(targets.iter().map(|target| (target.as_str(), leaf.clone())));
    let (service, client) = registry(&answers).await;
    for (id, expected) in [
        (1, "refers to version 1 of subject \"b\", which is not there"),
        (
            2,
            "cannot be read: invalid Avro schema: a schema that it refers to: field \"c\" of record \"E\": \
             type \"C\" is used before it is declared",
        ),
        (3, "refers to more than 100 others"),
        (4, "is of type JSON, and not AVRO"),
        (5, "has a name that no url can hold"),
    ] {
        let message = failed(&service, client.by_id(id).await);
        assert_eq!(message, format!("schema {id} of the schema registry at http://127.0.0.1:PORT {expected}"));
    }
}

#[tokio::test]
async fn the_newest_version_of_a_subject_is_found_by_its_name() {
    let (service, client) = registry(&[
        ("/subjects/orders-value/versions/latest", version(ORDER, 7, 3)),
        ("/subjects/a%2Fb%20%C3%A4%25/versions/latest", version(ORDER, 8, 1)),
        ("/subjects/bare/versions/latest", schema(ORDER)),
    ])
    .await;
    let found = client.latest("orders-value").await.unwrap();
    assert_eq!((found.id, found.version, found.schema.name()), (7, 3, "Order"));
    assert_eq!(client.latest("a/b ä%").await.unwrap().id, 8);
    // Its number is known now.
    assert!(client.by_id(7).await.unwrap().is_some());
    assert_eq!(targets(&service).len(), 2);

    let of = |subject: &str| {
        format!("the newest schema of subject \"{subject}\" of the schema registry at http://127.0.0.1:PORT")
    };
    let missing = failed(&service, client.latest("none").await);
    assert_eq!(missing, format!("{} is not there: no such subject, or all of its versions are deleted", of("none")));
    let bare = failed(&service, client.latest("bare").await);
    assert_eq!(bare, format!("{} came without its id and version", of("bare")));
    let climbing = failed(&service, client.latest("..").await);
    assert_eq!(climbing, format!("{} has a name that no url can hold", of("..")));
}
