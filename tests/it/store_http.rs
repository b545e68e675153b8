//! The store over an HTTP service against a real one in this process: the contract, keys of every type, hostile keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::Int64Type;
use futures::future::BoxFuture;
use lookaside::format::text::ColumnBuilder;
use lookaside::pg_type::PgType;
use lookaside::store::document::DocumentColumn;
use lookaside::store::http::{
    AllowedHosts, GetTarget, HttpConfig, HttpConnection, HttpRequest, HttpStore, HttpTable, Lookup,
};
use lookaside::store::{Store, contract};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::store_postgres::{request, texts};
use crate::support::certificate::Certificates;
use crate::support::http_service::{Asked, HttpService, Told, decoded};
use crate::support::lookaside::{Lookaside, project};

/// A connection to be changed by a test.
pub fn config(url: &str, allow_hosts: &[&str]) -> HttpConfig {
    let url = url.parse().unwrap();
    HttpConfig {
        allow_hosts: AllowedHosts::new(allow_hosts.iter().map(|host| host.parse().unwrap()).collect(), &url),
        url,
        headers: HeaderMap::new(),
        request_timeout: Duration::from_secs(10),
        max_connections: NonZeroUsize::new(32).unwrap(),
        sslrootcert: None,
    }
}

/// The service, which the catalog allows.
pub fn config_of(service: &HttpService) -> HttpConfig {
    config(&format!("http://127.0.0.1:{}", service.port), &["127.0.0.1"])
}

pub fn column(name: &str, pg_type: &str) -> DocumentColumn {
    let path = format!("$['{name}']").parse().unwrap();
    DocumentColumn { name: name.to_string(), pg_type: PgType::parse(pg_type).unwrap(), nullable: true, path }
}

/// A table of `GET target`, whose key is the columns that stand there.
pub fn get_table(target: &str, columns: &[DocumentColumn]) -> HttpTable {
    let target = GetTarget::new(target.parse().unwrap());
    let place = |name: &String| columns.iter().position(|column| column.name == *name).unwrap();
    HttpTable {
        key: target.template().columns().iter().map(place).collect(),
        shown: format!("GET {}", target.template()),
        is_substituted: false,
        request: HttpRequest::Get { target },
        columns: columns.to_vec(),
        rows: None,
        requests_at_once: NonZeroUsize::new(16).unwrap(),
    }
}

/// A table of `POST /rows`, whose key is the first column.
pub fn post_table(columns: &[DocumentColumn]) -> HttpTable {
    HttpTable {
        request: HttpRequest::Post { target: "/rows".to_string(), body_keys: "$.ask.keys".parse().unwrap() },
        shown: "POST /rows".to_string(),
        is_substituted: false,
        columns: columns.to_vec(),
        key: vec![0],
        rows: Some("$.items".parse().unwrap()),
        requests_at_once: NonZeroUsize::MIN,
    }
}

pub fn store(config: HttpConfig, table: HttpTable) -> HttpStore {
    HttpStore::new(HttpConnection::try_new("tests".to_string(), config).unwrap(), table)
}

/// Names lead where a test says.
pub struct Led(pub Vec<(&'static str, IpAddr)>);

impl Lookup for Led {
    fn addresses(&self, name: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let found = self.0.iter().filter(|(known, _)| *known == name).map(|(_, address)| *address).collect();
        Box::pin(async move { Ok(found) })
    }
}

/// The contract's rows as JSON, by id and region.
fn contract_rows(key: &[usize]) -> BTreeMap<(i64, String), Value> {
    let rows: RecordBatch = contract::keyed_table(key).unwrap();
    let ids = rows.column(0).as_primitive::<Int64Type>();
    let text = |column: usize, row: usize| {
        let texts = rows.column(column).as_string_view();
        texts.is_valid(row).then(|| texts.value(row).to_string())
    };
    let row = |row: usize| {
        let id = ids.value(row);
        let value = json!({"id": id, "region": text(1, row), "name": text(2, row), "note": text(3, row), "more": [{}]});
        ((id, text(1, row).unwrap_or_default()), value)
    };
    (0..rows.num_rows()).map(row).collect()
}

fn contract_columns() -> Vec<DocumentColumn> {
    vec![column("id", "bigint"), column("region", "text"), column("name", "text"), column("note", "text")]
}

/// Answers GET by id and region, by id alone, and POST by ids.
fn contract_service() -> impl Fn(&Asked) -> Told + Send + Sync + 'static {
    let (by_both, by_id) = (contract_rows(&[0, 1]), contract_rows(&[0]));
    let by_id: BTreeMap<i64, Value> = by_id.into_iter().map(|((id, _), row)| (id, row)).collect();
    move |asked| {
        if asked.method == "POST" {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            let keys = body["ask"]["keys"].as_array().unwrap().iter();
            let items = keys.rev().filter_map(|key| by_id.get(&key.as_i64().unwrap())).collect::<Vec<_>>();
            return Told::json(json!({"items": items}).to_string());
        }
        let found = match asked.target.strip_prefix("/rows/") {
            Some(id) => by_id.get(&id.parse().unwrap()),
            None => {
                let query = asked.query();
                by_both.get(&(query[0].1.parse().unwrap(), query[1].1.clone()))
            }
        };
        found.map_or_else(|| Told::status(404), |row| Told::json(row.to_string()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_holds_with_get_and_post_plain_and_over_tls() {
    let certificates = Certificates::make();
    let plain = HttpService::start(contract_service()).await;
    let secured = HttpService::start_at(0, Some(&certificates), contract_service()).await;
    let mut over_tls = config(&format!("https://localhost:{}", secured.port), &["localhost"]);
    over_tls.sslrootcert = Some(certificates.path("ca.crt"));
    for config in [config_of(&plain), over_tls] {
        let columns = contract_columns();
        let by_both = get_table("/rows?id={id}&region={region}", &columns);
        contract::check_keyed(&store(config.clone(), by_both), &[0, 1]).await.unwrap();
        contract::check_keyed(&store(config.clone(), get_table("/rows/{id}", &columns)), &[0]).await.unwrap();
        contract::check_keyed(&store(config, post_table(&columns)), &[0]).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_of_a_stranger_is_refused() {
    let secured = HttpService::start_at(0, Some(&Certificates::make()), |_| Told::json("{}")).await;
    let mut config = config(&format!("https://localhost:{}", secured.port), &["localhost"]);
    let others = Certificates::make();
    config.sslrootcert = Some(others.path("ca.crt"));
    let error = ask(&store(config, get_table("/rows/{id}", &contract_columns())), 1).await.unwrap_err();
    assert!(error.contains("HV00N") && error.contains("certificate"), "{error}");
    assert!(secured.asked().is_empty());
}

/// Looks one id up: the names found, or SQLSTATE and message.
pub async fn ask(store: &HttpStore, id: i64) -> Result<Vec<String>, String> {
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![id]));
    match store.lookup(&request(&[0], &[2], &[], vec![keys])).await {
        Ok(answer) => Ok(texts(&answer)),
        Err(error) => {
            let error = error.into_error("prices");
            Err(format!("{} {}", error.sqlstate(), error.message()))
        }
    }
}

/// A type and texts of its values, as PostgreSQL casts them.
const TYPES: [(&str, &[&str]); 15] = [
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("oid", &["4294967295"]),
    ("numeric(12,2)", &["9999999999.99", "-0.01", "7.00"]),
    ("numeric(50,3)", &["12345678901234567890123456789012345678901.125"]),
    ("real", &["1.5", "1e+06", "3.4028235e+38"]),
    ("double precision", &["-2.5", "1e-05", "0.0001", "1.7976931348623157e+308"]),
    ("text", &["O'Brien", "a/b?c&d=e#f%41+ \\ \u{1f980}"]),
    ("bytea", &["\\x", "\\x00ff5c"]),
    ("date", &["1969-12-31", "0044-03-15 BC"]),
    ("time", &["00:00:00", "23:59:59.999999"]),
    ("timestamptz", &["2024-02-29 10:00:00.000001+00"]),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
];

/// Each key comes as its text, or as JSON of its type, and its row is found by it.
#[tokio::test]
async fn keys_of_every_type_are_asked_for_and_found() {
    let service = HttpService::start(|asked| {
        if asked.method == "POST" {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            // As it was written: a number is not read and written anew.
            let keys = asked.body.trim_start_matches("{\"ask\":{\"keys\":[").trim_end_matches("]}}").to_string();
            assert_eq!(body["ask"]["keys"].as_array().unwrap().len(), 1);
            return Told::json(format!("{{\"items\": [{{\"key\": {keys}, \"seen\": {}}}]}}", json!(keys)));
        }
        let seen = decoded(asked.target.strip_prefix("/rows/").unwrap());
        Told::json(json!({"key": "not read", "seen": seen}).to_string())
    })
    .await;
    for (name, values) in TYPES {
        let columns = [column("key", name), column("seen", "text")];
        let by_get = store(config_of(&service), get_table("/rows/{key}", &columns));
        let by_post = store(config_of(&service), post_table(&columns));
        for value in values {
            let mut keys = ColumnBuilder::new(&columns[0].pg_type);
            keys.append(value).unwrap();
            let keys = keys.finish();
            let answer = by_get.lookup(&request(&[0], &[1, 0], &[], vec![Arc::clone(&keys)])).await.unwrap();
            assert_eq!(answer.rows.column(0).as_string_view().value(0), *value, "{name}");
            assert_eq!(answer.rows.column(1).as_ref(), keys.as_ref(), "{name}");
            let answer = by_post.lookup(&request(&[0], &[1, 0], &[], vec![Arc::clone(&keys)])).await.unwrap();
            let seen = answer.rows.column(0).as_string_view().value(0);
            let is_number = ["smallint", "integer", "bigint", "oid", "numeric", "real", "double", "boolean"];
            let is_number = is_number.iter().any(|number| name.starts_with(number));
            let expected = if is_number { value.to_string() } else { json!(value).to_string() };
            assert_eq!(seen, expected, "{name}");
            assert_eq!(answer.rows.column(1).as_ref(), keys.as_ref(), "{name}");
        }
    }
}

/// Texts that mean something somewhere.
const PIECES: [&str; 26] = [
    "'",
    "\"",
    ";",
    "\0",
    "{sku}",
    "{{",
    "}",
    "\r\n",
    "\r\nHost: evil.example\r\n\r\n",
    "%",
    "%2e%2e%2f",
    "%00",
    "../",
    "..",
    ".",
    "/",
    "//",
    "\\",
    "?",
    "&sku=",
    "#",
    "@",
    ":80",
    " HTTP/1.1",
    "漢🦀",
    "a",
];

/// Distinct hostile texts, some of them long.
fn hostile_texts(count: usize) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(5);
    let mut texts: BTreeSet<String> = PIECES.iter().map(|piece| piece.to_string()).collect();
    texts.insert("x%/".repeat(65_536 / 3));
    while texts.len() < count {
        let pieces = random.random_range(1..6);
        texts.insert((0..pieces).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect());
    }
    texts.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_hostile_keys_reach_the_service_as_plain_values() {
    let service = HttpService::start(|asked| {
        if asked.method == "POST" {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            assert_eq!(body.as_object().unwrap().len(), 1);
            let keys = body["ask"]["keys"].as_array().unwrap().iter();
            // Text in PostgreSQL holds no zero byte, and no row has one.
            let keys = keys.filter(|key| !key.as_str().unwrap().contains('\0'));
            let items = keys.map(|key| json!({"sku": key, "seen": key})).collect::<Vec<_>>();
            return Told::json(json!({"items": items}).to_string());
        }
        Told::json("{\"seen\": \"yes\"}")
    })
    .await;
    let columns = [column("sku", "text"), column("seen", "text")];
    let keys = hostile_texts(10_000);
    for (target, in_path) in [("/v1/prices/{sku}", true), ("/v1/prices?sku={sku}", false)] {
        let store = store(config_of(&service), get_table(target, &columns));
        // A url holds no key of 64 kB; a path none that leads elsewhere.
        let short: Vec<_> = keys.iter().filter(|key| key.len() < 10_000).collect();
        let askable = short.iter().filter(|key| !in_path || !["", ".", ".."].contains(&key.as_str()));
        let expected: BTreeSet<String> = askable.map(|key| key.to_string()).collect();
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(&short));
        let answer = store.lookup(&request(&[0], &[1], &[], vec![array])).await.unwrap();
        assert_eq!(answer.rows.num_rows(), expected.len());
        let seen = service.asked().into_iter().map(|asked| {
            assert_eq!((asked.method.as_str(), asked.body.as_str()), ("GET", ""));
            assert_eq!(asked.header("host"), Some(format!("127.0.0.1:{}", service.port).as_str()));
            match in_path {
                true => {
                    let segments = asked.target.split('/').collect::<Vec<_>>();
                    assert_eq!((segments.len(), &segments[..3]), (4, &["", "v1", "prices"][..]), "{}", asked.target);
                    assert!(!asked.target.contains('?'), "{}", asked.target);
                    decoded(segments[3])
                }
                false => {
                    let (path, query) = asked.target.split_once('?').unwrap();
                    assert_eq!((path, query.matches(['&', '=']).count()), ("/v1/prices", 1), "{}", asked.target);
                    decoded(query.strip_prefix("sku=").unwrap())
                }
            }
        });
        assert!(seen.collect::<BTreeSet<_>>() == expected, "{target}");
    }
    let store = store(config_of(&service), post_table(&columns));
    let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(&keys));
    let answer = store.lookup(&request(&[0], &[1], &[], vec![array])).await.unwrap();
    let found = answer.rows.column(0).as_string_view();
    assert_eq!(found.len(), keys.iter().filter(|key| !key.contains('\0')).count());
    for (row, key) in answer.key_of_row.values().iter().enumerate() {
        assert_eq!(found.value(row), keys[*key as usize]);
    }
    let asked = service.asked();
    let body: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert!((asked.len(), &body["ask"]["keys"]) == (1, &json!(keys)));
}

#[tokio::test]
async fn a_key_too_long_for_a_url_is_an_error_about_that_key() {
    let service = HttpService::start(|_| Told::json("{}")).await;
    let columns = [column("sku", "text"), column("seen", "text")];
    let store = store(config_of(&service), get_table("/{sku}", &columns));
    let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(["%".repeat(65_536)]));
    let error = store.lookup(&request(&[0], &[1], &[], vec![array])).await.unwrap_err();
    assert!(error.is_about_keys(), "{error:?}");
    assert!(error.into_error("prices").message().contains("more than 65534"));
    assert!(service.asked().is_empty());
}

#[tokio::test]
async fn an_answer_may_hold_many_rows_and_rows_of_other_keys() {
    let columns = [column("sku", "text"), column("size", "int"), column("price", "numeric(12,2)")];
    let service = HttpService::start(|asked| match asked.method.as_str() {
        "POST" => Told::json(
            "{\"items\": [{\"sku\": \"b\", \"size\": 1, \"price\": 1.10}, {\"sku\": \"z\"}, {\"sku\": \"a\"}, \
             {\"sku\": null}, {\"sku\": \"b\", \"size\": 2, \"price\": \"2\"}]}",
        ),
        _ => Told::json("{\"items\": [{\"size\": 1, \"price\": 1}, {\"size\": 2}, {}]}"),
    })
    .await;
    let keys = || -> Vec<ArrayRef> { vec![Arc::new(StringViewArray::from(vec!["a", "b", "c"]))] };
    let posted = store(config_of(&service), post_table(&columns));
    let answer = posted.lookup(&request(&[0], &[0, 1, 2], &[], keys())).await.unwrap();
    assert_eq!(texts(&answer), ["0: a | NULL | NULL", "1: b | 1 | 1.10", "1: b | 2 | 2.00"]);
    let mut table = get_table("/x/{sku}", &columns);
    table.rows = Some("$.items".parse().unwrap());
    let got = store(config_of(&service), table);
    let one: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
    let answer = got.lookup(&request(&[0], &[0, 1], &[], vec![Arc::clone(&one)])).await.unwrap();
    assert_eq!(texts(&answer), ["0: a | 1", "0: a | 2", "0: a | NULL"]);
    // A column beside the key is compared here.
    let size: ArrayRef = Arc::new(datafusion::arrow::array::Int32Array::from(vec![2]));
    for store in [got, posted] {
        let keys = vec![Arc::new(StringViewArray::from(vec!["b"])) as ArrayRef, Arc::clone(&size)];
        let answer = store.lookup(&request(&[0, 1], &[1], &[], keys)).await.unwrap();
        assert_eq!(texts(&answer), ["0: 2"]);
    }
}

/// The example of `catalogs/http.toml` with the query of `sql/http.sql`.
#[tokio::test]
async fn the_example_joins_rows_of_a_service() {
    let service = HttpService::start(|asked| {
        assert_eq!(asked.header("authorization"), Some("Bearer t0ken-of-tests"));
        if asked.method == "POST" {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            let items = body["skus"].as_array().unwrap().iter().filter(|sku| **sku != json!("A-3"));
            let items = items.map(|sku| json!({"sku": sku, "price": "8.25"})).collect::<Vec<_>>();
            return Told::json(json!({"items": items}).to_string());
        }
        match asked.target.strip_prefix("/v1/prices/") {
            Some("A-3") => Told::status(404),
            _ => Told::json("{\"price\": \"9.50\", \"stock\": {\"count\": 3}}"),
        }
    })
    .await;
    let path: PathBuf = project().join("catalogs/http.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let environment = |name: &str| match name {
        "PRICES_URL" => Some(format!("http://127.0.0.1:{}", service.port)),
        "PRICES_HOST" => Some("127.0.0.1".to_string()),
        "PRICES_TOKEN" => Some("t0ken-of-tests".to_string()),
        _ => None,
    };
    let catalog = lookaside::catalog::file::read_text(&[(path, text)], &environment).unwrap();
    assert!(!format!("{catalog:?}").contains("t0ken"), "{catalog:?}");
    let catalog = lookaside::catalog::Catalog::open(catalog).unwrap();
    let server = Lookaside::serve(lookaside::engine::Engine::new(catalog)).await;
    let client = server.connect().await;
    let sql = std::fs::read_to_string(project().join("sql/http.sql")).unwrap();
    let messages = client.simple_query(&sql).await.unwrap();
    let mut rows = 0;
    for message in messages {
        let tokio_postgres::SimpleQueryMessage::Row(row) = message else { continue };
        rows += 1;
        let expected = match row.get("sku") {
            Some("A-3") => (None, None, None),
            _ => (Some("9.50"), Some("3"), Some("8.25")),
        };
        assert_eq!((row.get("price"), row.get("stock"), row.get("batch_price")), expected);
    }
    assert_eq!(rows, 20);
    let by_key = client.simple_query("SELECT sku, price FROM prices WHERE sku IN ('A-1', 'A-3')").await.unwrap();
    assert_eq!(by_key.iter().filter(|m| matches!(m, tokio_postgres::SimpleQueryMessage::Row(_))).count(), 1);
    let error = client.simple_query("SELECT * FROM prices").await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "0A000");
    let error = client
        .simple_query("SELECT 1 FROM (VALUES (3)) AS o (stock) LOOKUP JOIN prices AS p ON p.stock = o.stock")
        .await
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.message()), ("0A000", "column \"sku\" of the key is not compared"));
}
