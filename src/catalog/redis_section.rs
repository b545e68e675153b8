//! What `[connection.X]` of type redis means, and `[lookup.X]` over it.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::columns::{DocumentsOf, read_document_columns};
use super::connection_section::read_password;
use super::definition::{ColumnDefinition, RedisConfig, RedisTable, SslMode};
use super::problem::{Complaint, nearest};
use super::reading::Text;
use super::section::Section;
use crate::store::document::DocumentColumn;
use crate::store::redis::{Address, KeyTemplate, RedisServers, RedisValue};
use crate::store::template::key_objection;

const DEFAULT_PORT: u16 = 6379;
/// As many as there are requests at once by default.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// Where to connect, and as whom.
struct Target {
    servers: RedisServers,
    user: Option<String>,
    password: Option<String>,
    /// What the scheme of a url says of TLS.
    sslmode: Option<SslMode>,
}

pub(super) fn read_redis_connection(section: &Section) -> Option<RedisConfig> {
    let max_connections = section.count("max_connections").unwrap_or(MAX_CONNECTIONS);
    let chosen = section.choice("sslmode", &[("disable", SslMode::Disable), ("verify-full", SslMode::VerifyFull)]);
    let sslrootcert = section.path("sslrootcert");
    let target = if section.has("cluster") { read_cluster(section) } else { read_url(section) };
    let Target { servers, user, password, sslmode: of_url } = target?;
    if let (Some(chosen), Some(of_url)) = (chosen, of_url)
        && chosen != of_url
    {
        let message = format!("\"sslmode\" in {} does not agree with \"url\"", section.title);
        let hint = "A url with rediss:// speaks TLS, one with redis:// does not.";
        section.complain_of("sslmode", Complaint::new(message).with_hint(hint));
    }
    let default = if is_local(&servers) { SslMode::Disable } else { SslMode::VerifyFull };
    let sslmode = of_url.or(chosen).unwrap_or(default);
    if sslmode == SslMode::Disable && section.has("sslrootcert") {
        let complaint = Complaint::new(format!("\"sslrootcert\" in {} has no effect without TLS", section.title));
        section.complain_of(
            "sslrootcert",
            complaint.with_hint("Write rediss:// in the url, or sslmode = \"verify-full\"."),
        );
    }
    if user.is_some() && password.is_none() {
        let complaint = Complaint::new(format!("{} has a user without a password", section.title));
        section.complain(complaint.with_hint("Redis knows who somebody is by his password."));
    }
    Some(RedisConfig { servers, user, password, sslmode, sslrootcert, max_connections: max_connections.get() })
}

/// The `url` key. No complaint shows any part of it, since it may hold a password.
fn read_url(section: &Section) -> Option<Target> {
    for key in ["user", "password", "password_file"].into_iter().filter(|key| section.has(key)) {
        let message = format!("\"{key}\" in {} does not go with \"url\"", section.title);
        section.complain_of(key, Complaint::new(message).with_hint("Write it into the url."));
    }
    if !section.has("url") {
        let complaint = Complaint::new(format!("{} lacks \"url\"", section.title));
        section
            .complain(complaint.with_hint("Write url = \"redis://HOST:PORT/DATABASE\", or cluster = [\"HOST:PORT\"]."));
    }
    let text = section.text("url")?;
    let complain = |message: &str| {
        let complaint = Complaint::new(format!("\"url\" in {} {message}", section.title));
        let hint = "Write redis://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password as %XX; rediss:// for TLS.";
        section.reading.complain(&text.origin, complaint.with_hint(hint));
        None
    };
    let Ok(url) = text.value.parse::<Url>() else { return complain("cannot be read") };
    let sslmode = match url.scheme() {
        "redis" => SslMode::Disable,
        "rediss" => SslMode::VerifyFull,
        _ => return complain("is not a url of Redis"),
    };
    if url.query().is_some() || url.fragment().is_some() {
        return complain("has options, which are keys beside it here");
    }
    let host = match url.host() {
        // A scheme that is not of the web leaves names as they are written.
        Some(Host::Domain(name)) if !name.is_empty() => name.to_string(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(Host::Domain(_)) | None => return complain("names no host"),
    };
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => match number.parse::<u32>() {
            Ok(number) => i64::from(number),
            Err(_) => return complain("has a database that is no number"),
        },
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
    let Some(user) = decoded(url.username()) else { return complain("cannot be read") };
    let password = match url.password().map(decoded) {
        Some(None) => return complain("cannot be read"),
        Some(password) => password.filter(|password| !password.is_empty()),
        None => None,
    };
    let address = Address { host, port: url.port().unwrap_or(DEFAULT_PORT) };
    let user = Some(user).filter(|user| !user.is_empty());
    Some(Target { servers: RedisServers::One { address, database }, user, password, sslmode: Some(sslmode) })
}

/// `cluster`, with `user` and `password` or `password_file`.
fn read_cluster(section: &Section) -> Option<Target> {
    if section.has("url") {
        let complaint = Complaint::new(format!("{} has both \"url\" and \"cluster\"", section.title));
        section
            .complain_of("url", complaint.with_hint("Write the servers of a cluster as cluster = [\"HOST:PORT\", …]."));
    }
    let seeds = section.text_list("cluster")?;
    let read = |text: &Text| {
        let address = read_address(&text.value);
        if address.is_none() {
            let message = format!("\"{}\" in \"cluster\" of {} is not HOST:PORT", text.shown, section.title);
            section.reading.complain(&text.origin, Complaint::new(message));
        }
        address
    };
    let seeds = seeds.iter().map(read).collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()?;
    let user = section.text("user").map(|user| user.value);
    Some(Target { servers: RedisServers::Cluster(seeds), user, password: read_password(section), sslmode: None })
}

fn read_address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_host = !bare.is_empty() && !bare.contains(['/', '@', ' ']);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host.then(|| Address { host: bare.to_string(), port })
}

/// Whether nothing leaves this machine.
fn is_local(servers: &RedisServers) -> bool {
    let is_loopback = |address: &Address| {
        address.host == "localhost" || address.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    };
    match servers {
        RedisServers::One { address, .. } => is_loopback(address),
        RedisServers::Cluster(seeds) => seeds.iter().all(is_loopback),
    }
}

/// A table over Redis.
pub(super) fn read_redis_table(section: &Section) -> Option<RedisTable> {
    section.require("key");
    section.require("value");
    let value = section.choice("value", &RedisValue::ALL.map(|value| (value.name(), value)));
    let columns = read_document_columns(section, DocumentsOf::Lookup);
    let text = section.text("key");
    let template = text.as_ref().and_then(|text| read_template(section, text));
    let (value, text, template) = (value?, text?, template?);
    let key = template.columns().iter().map(|name| key_column(section, &text, name, &columns));
    let key = key.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>();
    check_columns(section, value, &template, &columns);
    let columns = columns.iter().map(|column| DocumentColumn {
        name: column.name.clone(),
        pg_type: column.pg_type.clone(),
        nullable: column.nullable,
        path: column.json_path(),
    });
    Some(RedisTable { template, key: key?, value, columns: columns.collect() })
}

fn read_template(section: &Section, text: &Text) -> Option<KeyTemplate> {
    match text.value.parse::<KeyTemplate>() {
        Ok(template) => Some(template),
        Err(reason) => {
            let reason = match text.is_substituted() {
                true => format!("\"{}\" is not a template of keys", text.shown),
                false => reason,
            };
            let complaint = Complaint::new(format!("\"key\" in {}: {reason}", section.title));
            section.reading.complain(&text.origin, complaint.with_hint("Write key = \"customer:{id}\"."));
            None
        }
    }
}

/// The position of the column that a template names.
fn key_column(section: &Section, text: &Text, name: &str, columns: &[ColumnDefinition]) -> Option<usize> {
    let Some(position) = columns.iter().position(|column| column.name == *name) else {
        if !columns.is_empty() {
            let message = format!("column \"{name}\" in \"key\" of {} is not declared", section.title);
            let hint = match nearest(name, columns.iter().map(|column| column.name.as_str())) {
                Some(nearest) => format!("Perhaps you meant \"{nearest}\"."),
                None => format!("Declare it in {}.", section.title_of("columns")),
            };
            section.reading.complain(&text.origin, Complaint::new(message).with_hint(hint));
        }
        return None;
    };
    let column = &columns[position];
    if let Some(reason) = key_objection(&column.pg_type) {
        let message = format!("column \"{name}\" cannot be part of a key: {reason}");
        section.reading.complain(&column.origin, Complaint::new(message));
    }
    if column.path.is_some() {
        let message = format!("column \"{name}\" is part of the key, so it has no path");
        section.reading.complain(&column.origin, Complaint::new(message));
    }
    Some(position)
}

/// Paths lead into documents; a string is one value.
fn check_columns(section: &Section, value: RedisValue, template: &KeyTemplate, columns: &[ColumnDefinition]) {
    let is_key = |column: &&ColumnDefinition| template.columns().contains(&column.name);
    let others = columns.iter().filter(|column| !is_key(column)).collect::<Vec<_>>();
    if value != RedisValue::Json {
        for column in others.iter().filter(|column| column.path.is_some()) {
            let message =
                format!("column \"{}\" has a path, which does not go with value = \"{}\"", column.name, value.name());
            let hint = "A path leads into a JSON document: value = \"json\".";
            section.reading.complain(&column.origin, Complaint::new(message).with_hint(hint));
        }
    }
    if value == RedisValue::Text && others.len() != 1 && !columns.is_empty() {
        let message =
            format!("{} with value = \"string\" has one column beside the key, not {}", section.title, others.len());
        section.complain_of("columns", Complaint::new(message));
    }
}

#[cfg(test)]
#[path = "redis_section_tests.rs"]
mod tests;
