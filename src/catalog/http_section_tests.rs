use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::super::definition::{CatalogDefinition, ConnectionKind, LookupKind};
use super::super::file::read_text;
use crate::store::http::HttpRequest;

/// What is read, or the first complaint, without its place.
fn read(text: &str) -> Result<CatalogDefinition, String> {
    let secret = |name: &str| match name {
        "BAD" => Some("s3cr\net".to_string()),
        "KEY" => Some("k3y".to_string()),
        _ => None,
    };
    read_text(&[(PathBuf::from("a.toml"), text.to_string())], &secret).map_err(|problems| problems[0].message.clone())
}

const CONNECTION: &str = "type = \"http\"\nurl = \"https://a.example/api\"\nallow_hosts = [\"a.example\"]\n";
const COLUMNS: &str =
    "[lookup.t.columns]\nsku = \"text\"\nprice = { type = \"int\", path = \"$.p[0]\" }\ntags = \"text[]\"\n";

fn connection(lines: &str) -> Result<CatalogDefinition, String> {
    read(&format!("[connection.c]\n{lines}"))
}

fn table(lines: &str) -> Result<CatalogDefinition, String> {
    read(&format!("[connection.c]\n{CONNECTION}[lookup.t]\nconnection = \"c\"\n{lines}\n{COLUMNS}"))
}

fn assert_complaint(read: Result<CatalogDefinition, String>, expected: &str) {
    assert_eq!(read.map(|catalog| format!("{catalog:?}")), Err(expected.to_string()));
}

#[test]
fn every_option_of_an_http_connection_is_kept() {
    let text = format!(
        "{CONNECTION}headers = {{ Authorization = \"Bearer x1\", x-key = \"k2\" }}\nrequest_timeout = \"2s\"\n\
         max_connections = 3\nsslrootcert = \"ca.pem\""
    );
    let catalog = connection(&text).unwrap();
    let ConnectionKind::Http(http) = &catalog.connections[0].kind else { panic!("{catalog:?}") };
    assert_eq!(http.url.as_str(), "https://a.example/api");
    assert_eq!(http.headers["authorization"], "Bearer x1");
    assert!(http.headers.values().all(|value| value.is_sensitive()));
    assert_eq!((http.headers.len(), http.request_timeout), (2, Duration::from_secs(2)));
    assert_eq!((http.max_connections.get(), &http.sslrootcert), (3, &Some(PathBuf::from("ca.pem"))));
    let shown = format!("{catalog:?}");
    assert!(!shown.contains("x1") && !shown.contains("/api"), "{shown}");
    let catalog = connection(CONNECTION).unwrap();
    let ConnectionKind::Http(http) = &catalog.connections[0].kind else { panic!("{catalog:?}") };
    assert_eq!((http.request_timeout, http.max_connections.get()), (Duration::from_secs(10), 32));
}

#[test]
fn every_option_of_an_http_table_is_kept() {
    let only = |lines: &str| match table(lines).unwrap().lookups.remove(0).kind {
        LookupKind::Http(table) => table,
        other => panic!("{other:?}"),
    };
    let get = only("request = \"GET /p/{sku}?x={sku}\"\nrows = \"$.items\"\nrequests_at_once = 2");
    assert_eq!((get.request.target_columns(), &get.key[..]), (&["sku".to_string()][..], &[0][..]));
    assert_eq!(
        (get.rows.unwrap().to_string(), get.requests_at_once),
        ("$.items".to_string(), NonZeroUsize::new(2).unwrap())
    );
    assert_eq!((get.columns[1].path.to_string(), get.columns[0].path.to_string()), ("$.p[0]".into(), "$.sku".into()));
    let post = only("request = \"POST /p\"\nbody_keys = \"$.a\"\nrows = \"$\"\nkey = \"price\"");
    assert_eq!((post.key, post.shown.as_str()), (vec![1], "POST /p"));
    assert!(!post.is_substituted);
    let HttpRequest::Post { target, body_keys } = post.request else { panic!() };
    assert_eq!((target.as_str(), body_keys.to_string().as_str()), ("/p", "$.a"));
    assert_eq!(only("request = \"POST /p\"\nbody_keys = \"$\"\nrows = \"$\"").key, [0]);
}

#[test]
fn what_is_put_into_a_request_is_not_shown() {
    let catalog = table("request = \"GET /p?key=${KEY}&sku={sku}\"").unwrap();
    let LookupKind::Http(http) = &catalog.lookups[0].kind else { panic!("{catalog:?}") };
    let HttpRequest::Get { target } = &http.request else { panic!("{catalog:?}") };
    assert_eq!((target.example().as_str(), http.is_substituted), ("/p?key=k3y&sku=x", true));
    assert_eq!(http.shown, "GET /p?key=${KEY}&sku={sku}");
    assert!(!format!("{catalog:?}").contains("k3y"), "{catalog:?}");
}

#[test]
fn mistakes_of_an_http_connection_are_told_without_secrets() {
    let with =
        |url: &str, hosts: &str| connection(&format!("type = \"http\"\nurl = \"{url}\"\nallow_hosts = [{hosts}]"));
    let named = "\"a.example\"";
    assert_complaint(with("https://", named), "\"url\" in [connection.c] cannot be read");
    assert_complaint(with("ftp://a.example", named), "\"url\" in [connection.c] is not a url of HTTP");
    assert_complaint(with("https://me:s3cret@a.example", named), "\"url\" in [connection.c] holds a user");
    assert_complaint(with("https://a.example?key=s3cret", named), "\"url\" in [connection.c] has a query");
    assert_complaint(with("https://b.example", named), "the host of \"url\" in [connection.c] is not in allow_hosts");
    assert_complaint(
        with("https://a.example", "\"https://a.example\""),
        "\"allow_hosts\" in [connection.c]: \"https://a.example\" is not a host: a block is ADDRESS/BITS",
    );
    assert_complaint(
        connection("type = \"http\"\nurl = \"https://a.example\""),
        "[connection.c] lacks \"allow_hosts\"",
    );
    let header = |line: &str| connection(&format!("{CONNECTION}headers = {{ {line} }}"));
    assert_complaint(header("Host = \"x\""), "header \"Host\" in [connection.c.headers] cannot be set");
    assert_complaint(
        header("Content-Length = \"0\""),
        "header \"Content-Length\" in [connection.c.headers] cannot be set",
    );
    assert_complaint(header("\"a b\" = \"x\""), "\"a b\" in [connection.c.headers] is not the name of a header");
    assert_complaint(header("x = \"${BAD}\""), "the value of \"x\" in [connection.c.headers] cannot stand in a header");
    assert_complaint(header("x-a = \"1\", X-A = \"2\""), "header \"X-A\" stands twice in [connection.c.headers]");
}

#[test]
fn mistakes_of_an_http_table_are_told() {
    for (lines, complaint) in [
        ("", "[lookup.t] lacks \"request\""),
        ("request = \"PUT /p/{sku}\"", "\"request\" in [lookup.t] is neither a GET nor a POST: \"PUT /p/{sku}\""),
        ("request = \"GET p/{sku}\"", "\"request\" in [lookup.t] has a path that is none: \"GET p/{sku}\""),
        ("request = \"GET /../{sku}\"", "\"request\" in [lookup.t] has a path that is none: \"GET /../{sku}\""),
        ("request = \"GET /p q/{sku}\"", "\"request\" in [lookup.t] has a path that is none: \"GET /p q/{sku}\""),
        ("request = \"GET /p#{sku}\"", "\"request\" in [lookup.t] has a path that is none: \"GET /p#{sku}\""),
        ("request = \"GET /p/{sku\"", "\"request\" in [lookup.t] cannot be read: \"GET /p/{sku\""),
        (
            "request = \"GET /p\"",
            "\"request\" in [lookup.t] names no column, so that no key can be asked for: \"GET /p\"",
        ),
        ("request = \"GET /p/{skv}\"", "[lookup.t] has no column \"skv\", which is its key"),
        ("request = \"GET /p/{price}\"", "column \"price\" of [lookup.t] is the key and has a path"),
        (
            "request = \"GET /p/{tags}\"",
            "column \"tags\" of [lookup.t] cannot be the key: equal values of type text[] need not have the same text",
        ),
        ("request = \"GET /p/{sku}\"\nkey = \"sku\"", "\"key\" in [lookup.t] does not go with GET"),
        (
            "request = \"POST /p/{sku}\"",
            "\"request\" in [lookup.t] has a column in its path, where a POST holds many keys: \"POST /p/{sku}\"",
        ),
        ("request = \"POST /p\"\nrows = \"$\"", "[lookup.t] lacks \"body_keys\""),
        ("request = \"POST /p\"\nbody_keys = \"$\"", "[lookup.t] lacks \"rows\""),
        (
            "request = \"POST /p\"\nrows = \"$\"\nbody_keys = \"$.a[0]\"",
            "\"body_keys\" in [lookup.t] leads through an item: \"$.a[0]\"",
        ),
        (
            "request = \"POST /p\"\nrows = \"$\"\nbody_keys = \"$\"\nrequests_at_once = 2",
            "\"requests_at_once\" in [lookup.t] does not go with POST",
        ),
        (
            "request = \"GET /p/{sku}\"\ncache = { mode = \"full\" }",
            "mode = \"full\" in [lookup.t.cache] does not go with type \"http\"",
        ),
    ] {
        assert_complaint(table(lines), complaint);
    }
}
