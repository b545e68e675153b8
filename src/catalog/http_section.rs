//! What `[connection.X]` of type http means, and `[lookup.X]` over it.

use std::num::NonZeroUsize;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::columns::{DocumentsOf, read_document_columns};
use super::definition::{ColumnDefinition, HttpConfig, HttpTable, JsonPath};
use super::problem::{Complaint, nearest};
use super::reading::Text;
use super::section::Section;
use crate::store::document::DocumentColumn;
use crate::store::http::{AllowedHost, AllowedHosts, GetTarget, HttpRequest, url_with};
use crate::store::template::{Template, key_objection};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);
const REQUESTS_AT_ONCE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// Headers that belong to the connection or to the body, and are ours to set.
const OUR_HEADERS: [&str; 13] = [
    "host",
    "connection",
    "keep-alive",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "accept-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "range",
];

pub(super) fn read_http_connection(section: &Section) -> Option<HttpConfig> {
    section.require("url");
    section.require("allow_hosts");
    let url = section.text("url");
    let read = url.as_ref().and_then(|url| read_url(section, url));
    let hosts = read_hosts(section);
    let headers = read_headers(section);
    let request_timeout = section.duration("request_timeout").unwrap_or(REQUEST_TIMEOUT);
    let max_connections = section.count("max_connections").unwrap_or(MAX_CONNECTIONS);
    let sslrootcert = section.path("sslrootcert");
    let (url, read) = (url?, read?);
    if sslrootcert.is_some() && read.scheme() != "https" {
        let complaint = Complaint::new(format!("\"sslrootcert\" in {} has no effect without TLS", section.title));
        section.complain_of("sslrootcert", complaint.with_hint("Write https:// in the url."));
    }
    let allow_hosts = AllowedHosts::new(hosts?, &read);
    if let Err(reason) = allow_hosts.check(&read) {
        let message = format!("the host of \"url\" in {} {reason}", section.title);
        let hint = "Name every host that may be asked, with :PORT where it is not that of the url.";
        section.reading.complain(&url.origin, Complaint::new(message).with_hint(hint));
    }
    Some(HttpConfig { url: read, allow_hosts, headers, request_timeout, max_connections, sslrootcert })
}

/// No complaint shows any part of the url, since it may hold a secret.
fn read_url(section: &Section, text: &Text) -> Option<Url> {
    let complain = |message: &str, hint: &str| {
        let message = format!("\"url\" in {} {message}", section.title);
        section.reading.complain(&text.origin, Complaint::new(message).with_hint(hint));
        None
    };
    let Ok(url) = text.value.parse::<Url>() else {
        return complain("cannot be read", "Write https://HOST, with :PORT and /PATH if need be.");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return complain("is not a url of HTTP", "Write https://HOST, with :PORT and /PATH if need be.");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return complain("holds a user", "Write it as a header: headers = { authorization = \"Basic ${…}\" }.");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return complain("has a query", "Write the query into the request of each lookup table.");
    }
    Some(url)
}

fn read_hosts(section: &Section) -> Option<Vec<AllowedHost>> {
    let texts = section.text_list("allow_hosts")?;
    let read = |text: &Text| match text.value.parse::<AllowedHost>() {
        Ok(host) => Some(host),
        Err(_) if text.is_substituted() => {
            let message = format!("\"{}\" in \"allow_hosts\" of {} is not a host", text.shown, section.title);
            section.reading.complain(&text.origin, Complaint::new(message));
            None
        }
        Err(reason) => {
            let message = format!("\"allow_hosts\" in {}: {reason}", section.title);
            section.reading.complain(&text.origin, Complaint::new(message));
            None
        }
    };
    let hosts = texts.iter().map(read).collect::<Vec<_>>();
    hosts.into_iter().collect()
}

fn read_headers(connection: &Section) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(section) = connection.section("headers", "connection.X.headers") else { return headers };
    for (key, _) in section.entries() {
        let name = key.get_ref().to_string();
        let Some(text) = section.text(&name) else { continue };
        let complain = |message: String, hint: &str| {
            section.reading.complain(&text.origin, Complaint::new(message).with_hint(hint));
        };
        let Ok(header) = name.parse::<HeaderName>() else {
            complain(
                format!("\"{name}\" in {} is not the name of a header", section.title),
                "Write letters, digits and -.",
            );
            continue;
        };
        if OUR_HEADERS.contains(&header.as_str()) || header.as_str().starts_with("proxy-") {
            let message = format!("header \"{name}\" in {} cannot be set", section.title);
            complain(message, "It belongs to the connection or to the body: leave it out.");
            continue;
        }
        let Ok(mut value) = HeaderValue::from_str(&text.value) else {
            let message = format!("the value of \"{name}\" in {} cannot stand in a header", section.title);
            complain(message, "Write visible characters of ASCII on one line.");
            continue;
        };
        // What is shown of it is that it is there.
        value.set_sensitive(true);
        if headers.insert(header, value).is_some() {
            complain(format!("header \"{name}\" stands twice in {}", section.title), "Headers do not know capitals.");
        }
    }
    headers
}

/// A table over an HTTP service.
pub(super) fn read_http_table(section: &Section) -> Option<HttpTable> {
    section.require("request");
    let columns = read_document_columns(section, DocumentsOf::Lookup);
    let rows = read_json_path(section, "rows");
    let request = section.text("request").and_then(|text| Some((read_request(section, &text)?, text)));
    let requests_at_once = section.count("requests_at_once").unwrap_or(REQUESTS_AT_ONCE);
    let (body_keys, body_key) = (read_json_path(section, "body_keys"), section.text("key"));
    let (request, text) = request?;
    let (request, key) = match request {
        Written::Get(template) => {
            for name in ["body_keys", "key"].into_iter().filter(|name| section.has(name)) {
                let message = format!("\"{name}\" in {} does not go with GET", section.title);
                section.complain_of(name, Complaint::new(message).with_hint("It belongs to a POST with many keys."));
            }
            let key = read_target_columns(section, &text, &template, &columns)?;
            (HttpRequest::Get { target: GetTarget::new(template) }, key)
        }
        Written::Post(target) => {
            if section.has("requests_at_once") {
                let message = format!("\"requests_at_once\" in {} does not go with POST", section.title);
                let hint = "A batch of keys is one POST; max_in_flight says how many there may be.";
                section.complain_of("requests_at_once", Complaint::new(message).with_hint(hint));
            }
            section.require("body_keys");
            section.require("rows");
            let key = read_body_key(section, body_key.as_ref(), &columns)?;
            (HttpRequest::Post { target, body_keys: body_keys? }, vec![key])
        }
    };
    let document = |column: ColumnDefinition| DocumentColumn {
        path: column.json_path(),
        name: column.name,
        pg_type: column.pg_type,
        nullable: column.nullable,
    };
    let columns = columns.into_iter().map(document).collect();
    Some(HttpTable {
        request,
        is_substituted: text.is_substituted(),
        shown: text.shown,
        columns,
        key,
        rows,
        requests_at_once,
    })
}

enum Written {
    Get(Template),
    Post(String),
}

/// `GET /path/{column}?query={column}`, or `POST /path`.
fn read_request(section: &Section, text: &Text) -> Option<Written> {
    let complain = |reason: &str, hint: &str| {
        let message = format!("\"request\" in {} {reason}: \"{}\"", section.title, text.shown);
        section.reading.complain(&text.origin, Complaint::new(message).with_hint(hint));
        None
    };
    let Some((method, target)) = text.value.split_once(' ').filter(|(method, _)| matches!(*method, "GET" | "POST"))
    else {
        return complain("is neither a GET nor a POST", "Write \"GET /path/{column}\" or \"POST /path\".");
    };
    let template = match target.parse::<Template>() {
        Ok(template) => template,
        Err(_) if text.is_substituted() => return complain("is not a template", "Write {{ and }} for braces."),
        Err(reason) => return complain("cannot be read", &format!("{reason}.")),
    };
    let target = GetTarget::new(template);
    let any_host = Url::parse("http://host");
    if !target.example().starts_with('/') || !any_host.is_ok_and(|url| url_with(&url, &target.example()).is_some()) {
        return complain(
            "has a path that is none",
            "Write a path that begins with /, perhaps with a query behind ?, other characters as %XX.",
        );
    }
    match (method, target.template().columns()) {
        ("GET", []) => {
            complain("names no column, so that no key can be asked for", "Write a column in braces: /path/{sku}.")
        }
        ("GET", _) => Some(Written::Get(target.template().clone())),
        (_, []) => Some(Written::Post(target.example())),
        (_, _) => complain(
            "has a column in its path, where a POST holds many keys",
            "Write body_keys, which says where in the body they go.",
        ),
    }
}

/// The positions of the columns in the target.
fn read_target_columns(
    section: &Section,
    request: &Text,
    template: &Template,
    columns: &[ColumnDefinition],
) -> Option<Vec<usize>> {
    let positions = template.columns().iter().map(|name| {
        let position = position(section, request, name, columns)?;
        let column = &columns[position];
        if column.path.is_some() {
            let message = format!("column \"{name}\" of {} is the key and has a path", section.title);
            let hint = "Its value is that which was asked for: leave the path out.";
            section.reading.complain(&column.origin, Complaint::new(message).with_hint(hint));
        }
        Some(position)
    });
    positions.collect::<Vec<_>>().into_iter().collect()
}

/// The position of the column whose values a POST holds: `key`, else the first one.
fn read_body_key(section: &Section, key: Option<&Text>, columns: &[ColumnDefinition]) -> Option<usize> {
    let first = columns.first()?;
    match key {
        Some(key) => position(section, key, &key.value, columns),
        None => {
            refuse_key_type(section, first);
            Some(0)
        }
    }
}

fn position(section: &Section, text: &Text, name: &str, columns: &[ColumnDefinition]) -> Option<usize> {
    // Without any columns that much has been complained of.
    columns.first()?;
    let Some(position) = columns.iter().position(|column| column.name == name) else {
        let message = format!("{} has no column \"{name}\", which is its key", section.title);
        let complaint = Complaint::new(message);
        section.reading.complain(
            &text.origin,
            match nearest(name, columns.iter().map(|column| column.name.as_str())) {
                Some(nearest) => complaint.with_hint(format!("Perhaps you meant \"{nearest}\".")),
                None => complaint.with_hint(format!("Declare it in {}.", section.title_of("columns"))),
            },
        );
        return None;
    };
    refuse_key_type(section, &columns[position]);
    Some(position)
}

fn refuse_key_type(section: &Section, column: &ColumnDefinition) {
    if let Some(reason) = key_objection(&column.pg_type) {
        let message = format!("column \"{}\" of {} cannot be the key: {reason}", column.name, section.title);
        section.reading.complain(&column.origin, Complaint::new(message));
    }
}

fn read_json_path(section: &Section, name: &str) -> Option<JsonPath> {
    let text = section.text(name)?;
    let path = match text.value.parse::<JsonPath>() {
        Ok(path) => path,
        Err(reason) => {
            let message = format!("\"{name}\" in {}: {reason}", section.title);
            section.reading.complain(&text.origin, Complaint::new(message));
            return None;
        }
    };
    if name == "body_keys" && path.document_with("[]").is_none() {
        let message = format!("\"{name}\" in {} leads through an item: \"{}\"", section.title, text.shown);
        section.reading.complain(&text.origin, Complaint::new(message).with_hint("Write members alone: $.skus."));
        return None;
    }
    Some(path)
}

#[cfg(test)]
#[path = "http_section_tests.rs"]
mod tests;
