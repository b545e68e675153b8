//! What the store over an HTTP service does when the service fails, and where it does not go.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Int64Array, StringViewArray};
use lookaside::store::Store;
use lookaside::store::StoreError;
use lookaside::store::http::{HttpConfig, HttpConnection, HttpStore, HttpTable};
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use crate::store_http::{Led, ask, column, config, config_of, get_table, post_table, store};
use crate::store_postgres::request;
use crate::support::certificate::Certificates;
use crate::support::http_service::{Asked, HttpService, Told};

const ROW: &str = "{\"name\": \"Ann\"}";

fn table() -> HttpTable {
    get_table("/rows/{id}", &[column("id", "bigint"), column("region", "text"), column("name", "text")])
}

/// A table whose requests give up soon.
fn hasty(service: &HttpService) -> HttpStore {
    let mut config = config_of(service);
    config.request_timeout = Duration::from_millis(300);
    store(config, table())
}

async fn lookup(store: &HttpStore, id: i64) -> StoreError {
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![id]));
    store.lookup(&request(&[0], &[2], &[], vec![keys])).await.unwrap_err()
}

#[tokio::test]
async fn statuses_are_misses_errors_or_worth_another_attempt() {
    let service = HttpService::start(|asked| {
        let status = asked.target.strip_prefix("/rows/").unwrap().parse().unwrap();
        Told::status(status).with_body("no\r\n such\x07 luck ")
    })
    .await;
    let store = store(config_of(&service), table());
    for status in [204, 205, 404, 410] {
        assert_eq!(ask(&store, status).await.unwrap(), Vec::<String>::new(), "{status}");
    }
    for (status, transient, about_keys) in [
        (400, false, true),
        (422, false, true),
        (401, false, false),
        (403, false, false),
        (405, false, false),
        (304, false, false),
        (408, true, false),
        (429, true, false),
        (500, true, false),
        (502, true, false),
        (503, true, false),
    ] {
        let error = lookup(&store, status).await;
        assert_eq!((error.is_transient(), error.is_about_keys()), (transient, about_keys), "{status}: {error:?}");
        let error = error.into_error("prices");
        let start = format!("GET /rows/{{id}} (id = {status}) answered {status} ");
        assert!(error.message().contains(&start), "{error}");
        assert!(status == 304 || error.message().ends_with(": no such luck"), "{error}");
        assert_eq!(error.sqlstate(), if transient { "HV00N" } else { "HV000" });
    }
}

#[tokio::test]
async fn a_post_has_no_misses_by_status() {
    let service = HttpService::start(|_| Told::status(404)).await;
    let error = lookup(&store(config_of(&service), post_table(&table().columns)), 1).await;
    assert!(!error.is_transient() && !error.is_about_keys(), "{error:?}");
    assert!(error.into_error("prices").message().contains("POST /rows answered that there is no such path"));
}

#[tokio::test]
async fn one_bad_key_is_told_from_its_neighbours_by_splitting() {
    let service = HttpService::start(|asked| match asked.target.as_str() {
        "/v1/prices/A-4" => Told::status(422),
        _ => Told::json("{\"price\": 1}"),
    })
    .await;
    let server = crate::support::lookaside::Lookaside::start(&format!(
        "[connection.api]\ntype = \"http\"\nurl = \"http://127.0.0.1:{}\"\nallow_hosts = [\"127.0.0.1\"]\n\
         [lookup.prices]\nconnection = \"api\"\nrequest = \"GET /v1/prices/{{sku}}\"\non_failure = \"no_match\"\n\
         [lookup.prices.columns]\nsku = \"text\"\nprice = \"int\"\n",
        service.port
    ))
    .await;
    let client = server.connect().await;
    let rows = client
        .query(
            "SELECT CAST(o.n AS int), p.price FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8)) AS o (n) \
             LEFT LOOKUP JOIN prices AS p ON p.sku = 'A-' || CAST(o.n AS text)",
            &[],
        )
        .await
        .unwrap();
    let missing = rows.iter().filter(|row| row.get::<_, Option<i32>>(1).is_none()).map(|row| row.get::<_, i32>(0));
    assert_eq!((rows.len(), missing.collect::<Vec<_>>()), (8, vec![4]));
}

#[tokio::test]
async fn answers_that_are_none_are_errors_with_the_reason() {
    for (answer, reason) in [
        (Told::json("{\"name\": \"Ann\""), "answered with what is not JSON: EOF"),
        (Told::json("<html>"), "answered with what is not JSON"),
        (Told::json(""), "answered with what is not JSON"),
        (Told::json("{\"name\": 7}"), "column \"name\": a JSON number cannot be read as type text: 7"),
        (Told::json("[]"), "expected a JSON object, found"),
        (Told::json(ROW).with_header("content-encoding", "gzip"), "in a content encoding, which was not asked for"),
    ] {
        let service = HttpService::start(move |_| answer.clone()).await;
        let error = lookup(&store(config_of(&service), table()), 1).await;
        assert!(!error.is_transient(), "{error:?}");
        let error = error.into_error("prices");
        assert!(error.message().contains(reason) && error.message().contains("(id = 1)"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_is_read_no_further_than_it_may_be_large() {
    let service = HttpService::start(|_| Told::json(format!("{{\"name\": \"{}\"}}", "x".repeat(100_000)))).await;
    let store = store(config_of(&service), table());
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let mut asked = request(&[0], &[2], &[], vec![keys]);
    asked.max_answer_bytes = 250_000;
    assert_eq!(store.lookup(&asked).await.unwrap().rows.num_rows(), 2);
    asked.max_answer_bytes = 150_000;
    assert!(matches!(store.lookup(&asked).await, Err(StoreError::TooLarge { max_answer_bytes: 150_000 })));
    // An answer whose end never comes.
    let endless = HttpService::saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n400\r\n", false).await;
    let error = lookup(&hasty(&endless), 1).await;
    assert!(error.into_error("prices").message().contains("was not answered within request_timeout (300ms)"));
}

#[tokio::test]
async fn half_answers_are_worth_another_attempt() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"name\":"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"name\":\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"",
        b"220 this is no HTTP\r\n",
    ] {
        let service = HttpService::saying(bytes, true).await;
        let error = lookup(&store(config_of(&service), table()), 1).await;
        assert!(error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn a_frozen_service_times_out_and_one_that_is_back_is_used_again() {
    let frozen = HttpService::saying(b"", false).await;
    let error = lookup(&hasty(&frozen), 1).await;
    assert!(error.is_transient(), "{error:?}");
    let service = HttpService::start(|_| Told::json(ROW)).await;
    let port = service.port;
    let store = store(config_of(&service), table());
    assert_eq!(ask(&store, 1).await.unwrap(), ["0: Ann"]);
    drop(service);
    let gone = lookup(&store, 1).await;
    assert!(gone.is_transient(), "{gone:?}");
    let _again = HttpService::start_at(port, None, |_| Told::json("{\"name\": \"Bea\"}")).await;
    assert_eq!(ask(&store, 1).await.unwrap(), ["0: Bea"]);
}

#[tokio::test]
async fn a_service_that_asks_to_be_left_alone_is() {
    for status in [429, 503] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let service = HttpService::start(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Told::status(status).with_header("retry-after", "1"),
            1 => Told::json(ROW),
            _ => Told::status(status).with_header("retry-after", "3600"),
        })
        .await;
        let store = store(config_of(&service), table());
        let began = Instant::now();
        let error = lookup(&store, 1).await;
        assert!(error.is_transient(), "{error:?}");
        assert!(error.into_error("prices").message().contains("asks to be left alone for 1 s"));
        // The next request waits until then, however often it is asked for.
        assert_eq!(ask(&store, 1).await.unwrap(), ["0: Ann"]);
        assert!(began.elapsed() >= Duration::from_millis(990), "{:?}", began.elapsed());
        // Longer than a request may take nobody waits: it fails at once, and the service is not asked.
        lookup(&store, 1).await;
        for _ in 0..3 {
            let error = lookup(&store, 1).await;
            assert!(error.is_transient(), "{error:?}");
            assert!(error.into_error("prices").message().contains("was not sent: the service asks to be left alone"));
        }
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }
}

/// A service that sends everybody there.
async fn leading_to(status: u16, location: String) -> HttpService {
    HttpService::start(move |_| Told::status(status).with_header("location", location.clone())).await
}

#[tokio::test]
async fn redirects_are_followed_inside_the_allowed_hosts_without_our_headers() {
    let target = HttpService::start(|_| Told::json(ROW)).await;
    for status in [301, 302, 303, 307, 308] {
        let service = leading_to(status, format!("http://127.0.0.1:{}/elsewhere", target.port)).await;
        let url = format!("http://127.0.0.1:{}", service.port);
        let mut config = config(&url, &["127.0.0.1", &format!("127.0.0.1:{}", target.port)]);
        config.headers.insert("x-key", HeaderValue::from_static("k3y"));
        assert_eq!(ask(&store(config.clone(), table()), 1).await.unwrap(), ["0: Ann"]);
        assert_eq!(service.asked()[0].header("x-key"), Some("k3y"));
        let asked = target.asked();
        assert_eq!((asked[0].target.as_str(), asked[0].header("x-key")), ("/elsewhere", None));
        // A POST stays a POST or is not sent again.
        let error = lookup(&store(config, post_table(&table().columns)), 1).await;
        match status {
            307 | 308 => assert_eq!(target.asked()[0].method, "POST"),
            _ => assert!(error.into_error("prices").message().contains("which would make a GET of it")),
        }
    }
    let circle = HttpService::start(|_| Told::status(302).with_header("location", "/rows/1")).await;
    let error = lookup(&store(config_of(&circle), table()), 1).await;
    assert!(error.into_error("prices").message().ends_with("was redirected more than 5 times"));
    assert_eq!(circle.asked().len(), 6);
}

#[tokio::test]
async fn redirects_out_of_the_allowed_hosts_are_refused_and_nobody_there_is_asked() {
    let elsewhere = HttpService::start(|_| Told::json(ROW)).await;
    let port = elsewhere.port;
    for location in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://0x7f000001:{port}/"),
        format!("http://evil.example:{port}/"),
        format!("//evil.example:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_string(),
        "http://[fe80::1]/".to_string(),
        "http://[::1]/".to_string(),
        "https://10.0.0.1/".to_string(),
    ] {
        let service = leading_to(302, location.clone()).await;
        let error = lookup(&store(config_of(&service), table()), 1).await;
        assert!(!error.is_transient(), "{location}: {error:?}");
        assert!(error.into_error("prices").message().contains("which is not in allow_hosts"), "{location}");
    }
    for location in [format!("file:///etc/passwd?{port}"), format!("http://me:pw@127.0.0.1:{port}/")] {
        let service = leading_to(302, location.clone()).await;
        let error = lookup(&store(config_of(&service), table()), 1).await.into_error("prices");
        assert!(!error.message().contains("pw@"), "{error}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let plain = HttpService::start(|_| Told::json(ROW)).await;
    let (port, location) = (plain.port, format!("http://localhost:{}/", plain.port));
    let certificates = Certificates::make();
    let leading = move |_: &Asked| Told::status(302).with_header("location", location.clone());
    let secured = HttpService::start_at(0, Some(&certificates), leading).await;
    let url = format!("https://localhost:{}", secured.port);
    let mut config = config(&url, &["localhost", &format!("localhost:{port}")]);
    config.sslrootcert = Some(certificates.path("ca.crt"));
    let error = lookup(&store(config, table()), 1).await;
    assert!(error.into_error("prices").message().contains("which leads from https to http"));
    assert_eq!((secured.asked().len(), plain.connections()), (1, 0));
}

/// A connection whose names lead to `address`.
fn led_to(address: &str, config: HttpConfig) -> HttpStore {
    let address: IpAddr = address.parse().unwrap();
    let led = Led(vec![("prices.example.com", address), ("localhost", address)]);
    HttpStore::new(HttpConnection::with_lookup("tests".to_string(), config, Arc::new(led)).unwrap(), table())
}

#[tokio::test]
async fn a_name_that_leads_to_an_address_that_is_not_public_is_refused_and_nobody_there_is_asked() {
    let service = HttpService::start(|_| Told::json(ROW)).await;
    let url = format!("http://prices.example.com:{}", service.port);
    let name = format!("prices.example.com:{}", service.port);
    for address in
        ["127.0.0.1", "::ffff:127.0.0.1", "127.0.0.53", "10.0.0.1", "169.254.169.254", "fe80::1", "::1", "0.0.0.0"]
    {
        let error = lookup(&led_to(address, config(&url, &[&name])), 1).await;
        assert!(!error.is_transient(), "{error:?}");
        let expected = format!("\"prices.example.com\" leads to {address}, which is not a public address");
        assert!(error.clone().into_error("prices").message().contains(&expected), "{error:?}");
    }
    // So is one that a redirect names.
    let redirecting = leading_to(302, format!("{url}/")).await;
    let own = format!("http://127.0.0.1:{}", redirecting.port);
    let error = lookup(
        &led_to("127.0.0.1", config(&own, &["127.0.0.1:1", &name, &format!("127.0.0.1:{}", redirecting.port)])),
        1,
    )
    .await;
    assert!(error.into_error("prices").message().contains("which is not a public address"));
    assert_eq!(service.connections(), 0);
    // Where the address is named, it is as public as any.
    for named in ["127.0.0.1", "127.0.0.0/8"] {
        let store = led_to("127.0.0.1", config(&url, &[&name, named]));
        assert_eq!(ask(&store, 1).await.unwrap(), ["0: Ann"], "{named}");
    }
    let local = config(&format!("http://localhost:{}", service.port), &["localhost"]);
    assert_eq!(ask(&led_to("127.0.0.1", local.clone()), 1).await.unwrap(), ["0: Ann"]);
    assert!(lookup(&led_to("10.0.0.1", local), 1).await.into_error("x").message().contains("not a public address"));
}

#[tokio::test]
async fn nothing_shows_what_is_secret() {
    let service = HttpService::start(|asked| {
        Told::status(403).with_body(&format!("no such key: {}", asked.header("authorization").unwrap()))
    })
    .await;
    let mut config = config(&format!("http://127.0.0.1:{}/hooks/pa55w0rd", service.port), &["127.0.0.1"]);
    let mut value = HeaderValue::from_static("Bearer t0ken-of-tests");
    value.set_sensitive(true);
    config.headers.insert("authorization", value);
    let store = store(config.clone(), table());
    let error = lookup(&store, 1).await;
    for shown in [format!("{config:?}"), format!("{store:?}"), store.to_string(), format!("{error:?}")] {
        assert!(!shown.contains("t0ken") && !shown.contains("pa55w0rd"), "{shown}");
    }
    assert!(service.asked()[0].target.starts_with("/hooks/pa55w0rd/rows/"));
    // What a service says may repeat what was put into the request.
    let echo = HttpService::start(|asked| Told::status(403).with_body(&asked.target)).await;
    for is_substituted in [false, true] {
        let error =
            lookup(&crate::store_http::store(config_of(&echo), HttpTable { is_substituted, ..table() }), 1).await;
        let error = error.into_error("prices");
        assert_eq!(error.message().ends_with("answered 403 Forbidden"), is_substituted, "{error}");
    }
}

#[tokio::test]
async fn only_so_many_requests_are_under_way_at_once() {
    let service = HttpService::saying(b"", false).await;
    let mut config = config_of(&service);
    config.max_connections = std::num::NonZeroUsize::new(3).unwrap();
    config.request_timeout = Duration::from_millis(300);
    let store = store(config, get_table("/{sku}", &[column("sku", "text")]));
    let keys: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..100).map(|i| i.to_string())));
    store.lookup(&request(&[0], &[], &[], vec![keys])).await.unwrap_err();
    assert_eq!(service.connections(), 3);
}
