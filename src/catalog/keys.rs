//! Every key that a catalog file may hold, with its kind: what the reader checks and what `catalogs/README.md` documents.

use std::collections::HashSet;
use std::fmt;

/// One key of one kind of section.
#[derive(Debug)]
pub(super) struct Key {
    /// The section's path, with `X` for the user's own name: `lookup.X.cache`; empty for the top of the file.
    pub section: &'static str,
    pub name: &'static str,
    /// The types of the section's object that have this key; empty: all.
    pub of: &'static [&'static str],
    pub kind: Kind,
}

/// What a key's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Relative to the catalog file.
    Path,
    /// Text that no message may show.
    Secret,
    Flag,
    Whole {
        least: u64,
    },
    /// Not negative, with or without a fraction.
    Number,
    /// A number from 0 to 1.
    Share,
    Duration,
    /// Not zero.
    PositiveDuration,
    /// Not zero.
    Size,
    /// One of `now`; of the words in `later` the error says that they will come.
    Word {
        now: &'static [&'static str],
        later: &'static [&'static str],
    },
    TextList,
    Section,
    DurationOrSection,
    /// Part of the interface, but not of this version.
    Later,
}

/// The words of the README's column "value".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Text => f.write_str("string"),
            Kind::Path => f.write_str("path"),
            Kind::Secret => f.write_str("secret string"),
            Kind::Flag => f.write_str("true or false"),
            Kind::Whole { least: 0 } => f.write_str("whole number"),
            Kind::Whole { least } => write!(f, "whole number from {least}"),
            Kind::Number => f.write_str("number"),
            Kind::Share => f.write_str("number from 0 to 1"),
            Kind::Duration => f.write_str("duration"),
            Kind::PositiveDuration => f.write_str("duration above zero"),
            Kind::Size => f.write_str("size"),
            Kind::Word { now, .. } => f.write_str(&quoted(now)),
            Kind::TextList => f.write_str("list of strings"),
            Kind::Section => f.write_str("section"),
            Kind::DurationOrSection => f.write_str("duration or section"),
            Kind::Later => f.write_str("not available yet"),
        }
    }
}

/// `"a", "b"`.
pub(super) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// The key called `name` in a section of that kind, for an object of type `of` (`None`: not known, any will do).
pub(super) fn find(section: &str, name: &str, of: Option<&str>) -> Option<&'static Key> {
    named(section, name).find(|key| match of {
        Some(of) => key.of.is_empty() || key.of.contains(&of),
        None => true,
    })
}

/// The keys called `name` of any type.
pub(super) fn named<'a>(section: &'a str, name: &'a str) -> impl Iterator<Item = &'static Key> + 'a {
    KEYS.iter().filter(move |key| key.section == section && key.name == name)
}

/// The names to offer to somebody who mistyped one: those that work.
pub(super) fn offered(section: &str, of: Option<&str>) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter(|key| key.section == section && key.kind != Kind::Later)
        .filter(|key| of.is_none_or(|of| key.of.is_empty() || key.of.contains(&of)))
        .map(|key| key.name)
        .collect();
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(*name));
    names
}

const fn key(section: &'static str, name: &'static str, of: &'static [&'static str], kind: Kind) -> Key {
    Key { section, name, of, kind }
}

const ALL: &[&str] = &[];
const GENERATOR: &[&str] = &["generator"];
const PUSH: &[&str] = &["push"];
const FILE: &[&str] = &["file"];
const POSTGRES: &[&str] = &["postgres"];
const SIMULATED: &[&str] = &["simulated"];
const SQLITE: &[&str] = &["sqlite"];
const REDIS: &[&str] = &["redis"];
const HTTP: &[&str] = &["http"];
const FILES: &[&str] = &["files"];
const KAFKA: &[&str] = &["kafka"];
/// Streams whose rows may come as messages.
const MESSAGES: &[&str] = &["file", "kafka"];
/// Servers of databases.
const DATABASES: &[&str] = &["postgres", "mysql"];
/// Databases that know their tables' columns.
const SQL: &[&str] = &["postgres", "mysql", "sqlite"];
/// Tables in stores that connections lead to.
const STORED: &[&str] = &["postgres", "mysql", "sqlite", "redis", "http", "files"];
/// What a url leads to.
const BY_URL: &[&str] = &["postgres", "mysql", "redis", "http", "files"];
const OVER_HTTP: &[&str] = &["http", "files"];
/// Tables that may be held in memory, whole or in part.
const HELD: &[&str] = &["postgres", "mysql", "sqlite", "redis", "http", "files", "simulated"];
/// Tables in stores that may be held whole.
const WHOLE: &[&str] = &["postgres", "mysql", "sqlite", "files"];
/// Tables whose rows are found by keys alone.
const BY_KEY: &[&str] = &["redis", "http", "simulated"];
/// Connections to servers with users.
const LOG_IN: &[&str] = &["postgres", "mysql", "redis", "kafka"];
/// Connections to servers that may speak TLS.
const SERVERS: &[&str] = &["postgres", "mysql", "redis", "http", "kafka"];
/// Connections that are bounded in number.
const CONNECTED: &[&str] = &["postgres", "mysql", "sqlite", "redis", "http"];
/// Tables that are asked row by row, and so may be cached.
const STORES: &[&str] = &["postgres", "mysql", "sqlite", "redis", "http", "simulated"];
const ANY_WHOLE: Kind = Kind::Whole { least: 0 };
const FROM_ONE: Kind = Kind::Whole { least: 1 };

pub(super) const KEYS: &[Key] = &[
    key("", "server", ALL, Kind::Section),
    key("", "connection", ALL, Kind::Section),
    key("", "stream", ALL, Kind::Section),
    key("", "lookup", ALL, Kind::Section),
    key("", "user", ALL, Kind::Section),
    key("", "role", ALL, Kind::Section),
    key("server", "listen", ALL, Kind::Text),
    key("server", "tls_certificate", ALL, Kind::Path),
    key("server", "tls_key", ALL, Kind::Path),
    key("server", "tls_client_ca", ALL, Kind::Path),
    key("server", "require_tls", ALL, Kind::Flag),
    key("server", "max_connections", ALL, FROM_ONE),
    key("server", "login_timeout", ALL, Kind::PositiveDuration),
    key("server", "idle_timeout", ALL, Kind::Duration),
    key("server", "open_metrics", ALL, Kind::Flag),
    key("server", "open_health", ALL, Kind::Flag),
    key("server", "let_other_machines_in_unprotected", ALL, Kind::Flag),
    key("user.X", "password", ALL, Kind::Secret),
    key("user.X", "roles", ALL, Kind::TextList),
    key("role.X", "read", ALL, Kind::TextList),
    key("role.X", "write", ALL, Kind::TextList),
    key("role.X", "admin", ALL, Kind::Flag),
    key(
        "connection.X",
        "type",
        ALL,
        Kind::Word { now: &["postgres", "mysql", "sqlite", "redis", "http", "files", "kafka"], later: &["simulated"] },
    ),
    key("connection.X", "url", BY_URL, Kind::Secret),
    key("connection.X", "allow_hosts", HTTP, Kind::TextList),
    key("connection.X", "headers", HTTP, Kind::Section),
    key("connection.X", "request_timeout", OVER_HTTP, Kind::PositiveDuration),
    key("connection.X", "access_key_id", FILES, Kind::Text),
    key("connection.X", "secret_access_key", FILES, Kind::Secret),
    key("connection.X", "session_token", FILES, Kind::Secret),
    key("connection.X", "region", FILES, Kind::Text),
    key("connection.X", "endpoint", FILES, Kind::Text),
    key("connection.X", "path_style", FILES, Kind::Flag),
    key("connection.X", "service_account", FILES, Kind::Path),
    key("connection.X", "account", FILES, Kind::Text),
    key("connection.X", "access_key", FILES, Kind::Secret),
    key("connection.X", "anonymous", FILES, Kind::Flag),
    key("connection.X", "allow_http", FILES, Kind::Flag),
    key("connection.X", "path", SQLITE, Kind::Path),
    key("connection.X", "host", DATABASES, Kind::Text),
    key("connection.X", "port", DATABASES, FROM_ONE),
    key("connection.X", "database", DATABASES, Kind::Text),
    key("connection.X", "cluster", REDIS, Kind::TextList),
    key("connection.X", "user", LOG_IN, Kind::Text),
    key("connection.X", "password", LOG_IN, Kind::Secret),
    key("connection.X", "password_file", LOG_IN, Kind::Path),
    key(
        "connection.X",
        "sslmode",
        LOG_IN,
        Kind::Word { now: &["disable", "verify-full"], later: &["require", "verify-ca"] },
    ),
    key("connection.X", "sslrootcert", SERVERS, Kind::Path),
    key("connection.X", "brokers", KAFKA, Kind::Text),
    key("connection.X", "sslcert", KAFKA, Kind::Path),
    key("connection.X", "sslkey", KAFKA, Kind::Path),
    key(
        "connection.X",
        "sasl_mechanism",
        KAFKA,
        Kind::Word { now: &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"], later: &[] },
    ),
    key("connection.X", "token_url", KAFKA, Kind::Text),
    key("connection.X", "client_id", KAFKA, Kind::Text),
    key("connection.X", "client_secret", KAFKA, Kind::Secret),
    key("connection.X", "scope", KAFKA, Kind::Text),
    key("connection.X", "max_connections", CONNECTED, FROM_ONE),
    key("connection.X", "prepare", POSTGRES, Kind::Flag),
    key("connection.X", "comment", ALL, Kind::Text),
    key("stream.X", "type", ALL, Kind::Word { now: &["generator", "push", "file", "kafka"], later: &[] }),
    key("stream.X", "columns", ALL, Kind::Section),
    key("stream.X", "on_malformed", ALL, Kind::Word { now: &["fail", "skip"], later: &[] }),
    key("stream.X", "rows_per_second", GENERATOR, Kind::Number),
    key("stream.X", "rows", GENERATOR, ANY_WHOLE),
    key("stream.X", "seed", GENERATOR, ANY_WHOLE),
    key("stream.X", "retain_rows", PUSH, FROM_ONE),
    key("stream.X", "retain_bytes", PUSH, Kind::Size),
    key("stream.X", "slow_reader", PUSH, Kind::Word { now: &["fail", "wait"], later: &[] }),
    key("stream.X", "path", FILE, Kind::Path),
    key(
        "stream.X",
        "format",
        FILE,
        Kind::Word { now: &["json", "csv", "parquet", "avro", "debezium", "raw"], later: &[] },
    ),
    key("stream.X", "follow", FILE, Kind::Flag),
    key("stream.X", "connection", KAFKA, Kind::Text),
    key("stream.X", "topic", KAFKA, Kind::Text),
    key("stream.X", "format", KAFKA, Kind::Word { now: &["json", "csv", "avro", "debezium", "raw"], later: &[] }),
    key("stream.X", "schema", KAFKA, Kind::Path),
    key("stream.X", "schema_registry", KAFKA, Kind::Text),
    key("stream.X", "subject", KAFKA, Kind::Text),
    key("stream.X", "deletes", MESSAGES, Kind::Word { now: &["skip", "before"], later: &[] }),
    key("stream.X", "metadata", MESSAGES, Kind::Section),
    key("stream.X", "discover_every", KAFKA, Kind::PositiveDuration),
    key("stream.X.columns.Y", "type", ALL, Kind::Text),
    key("stream.X.columns.Y", "path", ALL, Kind::Text),
    key("stream.X", "comment", ALL, Kind::Text),
    key("lookup.X", "type", ALL, Kind::Word { now: &["file", "simulated"], later: &[] }),
    key("lookup.X", "connection", STORED, Kind::Text),
    key("lookup.X", "table", SQL, Kind::Text),
    key("lookup.X", "columns", SQL, Kind::TextList),
    key("lookup.X", "types", SQL, Kind::Section),
    key("lookup.X", "key", REDIS, Kind::Text),
    key("lookup.X", "value", REDIS, Kind::Word { now: &["hash", "json", "string"], later: &[] }),
    key("lookup.X", "columns", REDIS, Kind::Section),
    key("lookup.X", "request", HTTP, Kind::Text),
    key("lookup.X", "body_keys", HTTP, Kind::Text),
    key("lookup.X", "rows", HTTP, Kind::Text),
    key("lookup.X", "key", HTTP, Kind::Text),
    key("lookup.X", "columns", HTTP, Kind::Section),
    key("lookup.X", "requests_at_once", HTTP, FROM_ONE),
    key("lookup.X", "path", FILE, Kind::Path),
    key("lookup.X", "format", FILE, Kind::Word { now: &["json", "csv", "parquet", "avro"], later: &[] }),
    key("lookup.X", "columns", FILE, Kind::Section),
    key("lookup.X", "path", FILES, Kind::Text),
    key("lookup.X", "format", FILES, Kind::Word { now: &["json", "csv", "parquet", "avro"], later: &[] }),
    key("lookup.X", "columns", FILES, Kind::Section),
    key("lookup.X", "partitions", FILES, Kind::Section),
    key("lookup.X", "key", SIMULATED, Kind::Section),
    key("lookup.X", "columns", SIMULATED, Kind::Section),
    key("lookup.X", "seed", SIMULATED, ANY_WHOLE),
    key("lookup.X", "latency", SIMULATED, Kind::DurationOrSection),
    key("lookup.X", "errors", SIMULATED, Kind::Share),
    key("lookup.X", "error", SIMULATED, Kind::Word { now: &["unavailable", "failed"], later: &[] }),
    key("lookup.X", "stalls", SIMULATED, Kind::Share),
    key("lookup.X", "misses", SIMULATED, Kind::Share),
    key("lookup.X", "bad_keys", SIMULATED, Kind::Share),
    key("lookup.X", "rows_per_key", SIMULATED, FROM_ONE),
    key("lookup.X", "duplicates", SIMULATED, Kind::Share),
    key("lookup.X", "outages", SIMULATED, Kind::TextList),
    key("lookup.X.latency", "p50", SIMULATED, Kind::PositiveDuration),
    key("lookup.X.latency", "p99", SIMULATED, Kind::PositiveDuration),
    key("lookup.X.latency", "from", SIMULATED, Kind::Duration),
    key("lookup.X.latency", "to", SIMULATED, Kind::Duration),
    key("lookup.X.latency", "mean", SIMULATED, Kind::PositiveDuration),
    key("lookup.X.columns.Y", "type", ALL, Kind::Text),
    key("lookup.X.columns.Y", "path", ALL, Kind::Text),
    key("lookup.X", "ordering", ALL, Kind::Word { now: &["ordered", "unordered", "key_ordered"], later: &[] }),
    key("lookup.X", "timeout", ALL, Kind::Duration),
    key("lookup.X", "on_failure", ALL, Kind::Word { now: &["fail", "no_match", "skip"], later: &[] }),
    key("lookup.X", "capacity", ALL, FROM_ONE),
    key("lookup.X", "capacity_bytes", ALL, Kind::Size),
    key("lookup.X", "batch_size", ALL, FROM_ONE),
    key("lookup.X", "batch_delay", ALL, Kind::Duration),
    key("lookup.X", "max_in_flight", ALL, FROM_ONE),
    key("lookup.X", "max_answer_bytes", ALL, Kind::Size),
    key("lookup.X", "rate_limit", ALL, ANY_WHOLE),
    key("lookup.X", "retry", ALL, Kind::Section),
    key("lookup.X", "circuit_breaker", ALL, Kind::Section),
    key("lookup.X", "cache", ALL, Kind::Section),
    key("lookup.X", "comment", ALL, Kind::Text),
    key("lookup.X.retry", "max_attempts", ALL, FROM_ONE),
    key("lookup.X.retry", "delay", ALL, Kind::Duration),
    key("lookup.X.retry", "max_delay", ALL, Kind::Duration),
    key("lookup.X.retry", "on_miss", ALL, Kind::Flag),
    key("lookup.X.circuit_breaker", "failures", ALL, FROM_ONE),
    key("lookup.X.circuit_breaker", "open_for", ALL, Kind::PositiveDuration),
    key("lookup.X.cache", "mode", SQL, Kind::Word { now: &["none", "partial", "full"], later: &[] }),
    key("lookup.X.cache", "mode", BY_KEY, Kind::Word { now: &["none", "partial"], later: &[] }),
    key("lookup.X.cache", "mode", FILE, Kind::Word { now: &["full"], later: &[] }),
    key("lookup.X.cache", "mode", FILES, Kind::Word { now: &["full"], later: &[] }),
    key("lookup.X.cache", "max_rows", HELD, FROM_ONE),
    key("lookup.X.cache", "max_bytes", HELD, Kind::Size),
    key("lookup.X.cache", "expire_after_write", STORES, Kind::PositiveDuration),
    key("lookup.X.cache", "expire_after_access", STORES, Kind::PositiveDuration),
    key("lookup.X.cache", "expire_misses_after", STORES, Kind::Duration),
    key("lookup.X.cache", "refresh_after", STORES, Kind::PositiveDuration),
    key("lookup.X.cache", "serve_stale_for", STORES, Kind::Duration),
    key("lookup.X.cache", "listen", POSTGRES, Kind::Text),
    key("lookup.X.cache", "tracking", REDIS, Kind::Flag),
    key("lookup.X.cache", "reload_every", WHOLE, Kind::PositiveDuration),
    key("lookup.X.cache", "load_timeout", WHOLE, Kind::PositiveDuration),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Section, key, types, value.
    type Row = (String, String, String, String);

    fn documented() -> Vec<Row> {
        let readme = include_str!("../../catalogs/README.md");
        let mut section = None;
        let mut rows = Vec::new();
        for line in readme.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                section = match heading.trim_matches(['`', '[', ']']) {
                    "The top of a file" => Some(String::new()),
                    name if heading.starts_with("`[") => Some(name.to_string()),
                    _ => None,
                };
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if let (Some(section), ["", key, of, value, ..]) = (&section, cells.as_slice())
                && key.starts_with('`')
            {
                rows.push((section.clone(), key.trim_matches('`').to_string(), of.to_string(), value.to_string()));
            }
        }
        rows
    }

    #[test]
    fn the_readme_documents_exactly_the_keys_that_there_are() {
        let rows = documented();
        let documented: BTreeSet<Row> = rows.iter().cloned().collect();
        assert_eq!(rows.len(), documented.len(), "a key is documented twice");
        let of = |key: &Key| if key.of.is_empty() { "all".to_string() } else { key.of.join(", ") };
        let row = |key: &Key| (key.section.to_string(), key.name.to_string(), of(key), key.kind.to_string());
        let known: BTreeSet<Row> = KEYS.iter().map(row).collect();
        let undocumented: Vec<_> = known.difference(&documented).collect();
        let unknown: Vec<_> = documented.difference(&known).collect();
        assert!(
            undocumented.is_empty() && unknown.is_empty(),
            "not in the README: {undocumented:#?}\nnot in the code: {unknown:#?}"
        );
    }

    #[test]
    fn the_readme_names_the_words_that_will_come() {
        let readme = include_str!("../../catalogs/README.md");
        for key in KEYS {
            if let Kind::Word { later, .. } = key.kind
                && !later.is_empty()
            {
                let promise = format!("Not available yet: {}", quoted(later));
                assert!(
                    readme
                        .lines()
                        .any(|line| line.starts_with(&format!("| `{}`", key.name)) && line.contains(&promise)),
                    "{}: {promise}",
                    key.name
                );
            }
        }
    }
}
