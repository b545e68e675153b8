//! What `[connection.X]` means.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::Path;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode as ClientSslMode};

use super::definition::{ConnectionDefinition, ConnectionKind, PostgresConnection, SqliteConfig, SslMode};
use super::files_section::read_files_connection;
use super::http_section::read_http_connection;
use super::kafka_section::read_kafka_connection;
use super::mysql_section::read_mysql;
use super::problem::{Complaint, nearest};
use super::reading::Text;
use super::redis_section::read_redis_connection;
use super::section::Section;
use super::substitute::without_line_end;

pub(super) const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// The types of connections, as keys name them.
const TYPES: [(&str, &str); 7] = [
    ("postgres", "postgres"),
    ("mysql", "mysql"),
    ("sqlite", "sqlite"),
    ("redis", "redis"),
    ("http", "http"),
    ("files", "files"),
    ("kafka", "kafka"),
];

/// The connections of all files: of wrong ones too, so that one mistake is not reported as two.
#[derive(Default)]
pub(super) struct Connections {
    /// With their type, where that much is right.
    known: Vec<(String, Option<&'static str>)>,
    /// A file that is not TOML may declare any.
    pub is_partial: bool,
}

impl Connections {
    /// Reads the section of the connection `name`; `None` if it is too wrong to tell what it would be.
    pub fn read(&mut self, name: &str, section: &Section) -> Option<ConnectionDefinition> {
        section.require("type");
        let of = if section.has("type") { section.choice("type", &TYPES) } else { None };
        self.known.push((name.to_string(), of));
        let Some(of) = of else {
            // Of what sort the keys of an unknown type are, nobody knows.
            if !section.has("type") {
                section.check_keys();
            }
            return None;
        };
        let kind = read_kind(&section.of_type(of), of)?;
        let comment = section.comment();
        Some(ConnectionDefinition { name: name.to_string(), origin: section.origin.clone(), comment, kind })
    }

    /// The type of the connection that `section` names; `None`, with a complaint, where there is no such connection, and
    /// without one where something else has been complained of.
    pub fn type_of(&self, section: &Section, name: &Text) -> Option<&'static str> {
        if let Some((_, of)) = self.known.iter().find(|(known, _)| *known == name.value) {
            return *of;
        }
        if !self.is_partial {
            let hint = match nearest(&name.value, self.known.iter().map(|(known, _)| known.as_str())) {
                Some(nearest) => format!("Perhaps you meant \"{nearest}\"."),
                None => "Declare it as [connection.NAME].".to_string(),
            };
            let complaint = Complaint::new(format!("connection \"{}\" does not exist", name.shown)).with_hint(hint);
            section.reading.complain(&name.origin, complaint);
        }
        None
    }
}

fn read_kind(section: &Section, of: &str) -> Option<ConnectionKind> {
    match of {
        "postgres" => read_postgres(section).map(ConnectionKind::Postgres),
        "sqlite" => read_sqlite(section).map(ConnectionKind::Sqlite),
        "redis" => read_redis_connection(section).map(ConnectionKind::Redis),
        "mysql" => read_mysql(section).map(ConnectionKind::Mysql),
        "http" => read_http_connection(section).map(ConnectionKind::Http),
        "files" => read_files_connection(section).map(ConnectionKind::Files),
        "kafka" => read_kafka_connection(section).map(ConnectionKind::Kafka),
        _ => None,
    }
}

fn read_postgres(section: &Section) -> Option<PostgresConnection> {
    let max_connections = section.count("max_connections").unwrap_or(MAX_CONNECTIONS);
    let prepare = section.flag("prepare").unwrap_or(true);
    let chosen = read_sslmode(section);
    let sslrootcert = section.path("sslrootcert");
    let config = if section.has("url") { read_url(section) } else { read_parts(section) };
    let mut config = config?;
    let sslmode = chosen.unwrap_or(if is_local(&config) { SslMode::Disable } else { SslMode::VerifyFull });
    refuse_useless_certificates(section, sslmode);
    // The client's own default would go on in the clear where the server has no TLS.
    config.ssl_mode(match sslmode {
        SslMode::Disable => ClientSslMode::Disable,
        SslMode::VerifyFull => ClientSslMode::Require,
    });
    Some(PostgresConnection { config, sslmode, sslrootcert, max_connections, prepare })
}

fn read_sqlite(section: &Section) -> Option<SqliteConfig> {
    const SQLITE_CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
    section.require("path");
    let max_connections = section.count("max_connections").unwrap_or(SQLITE_CONNECTIONS).get();
    Some(SqliteConfig { path: section.path("path")?, max_connections })
}

/// The `url` key. No complaint shows any part of it, since it may hold a password.
fn read_url(section: &Section) -> Option<Config> {
    refuse_parts_beside_url(section);
    let url = section.text("url")?;
    let complain = |message: &str, hint: &str| {
        let message = format!("\"url\" in {} {message}", section.title);
        section.reading.complain(&url.origin, Complaint::new(message).with_hint(hint));
    };
    if !(url.value.starts_with("postgres://") || url.value.starts_with("postgresql://")) {
        complain("is not a url of PostgreSQL", "Write postgres://USER:PASSWORD@HOST:PORT/DATABASE.");
        return None;
    }
    if url.value.contains("sslmode=") || url.value.contains("sslrootcert=") {
        complain("sets how TLS is used", "Write sslmode and sslrootcert as keys beside the url.");
        return None;
    }
    let Ok(config) = url.value.parse::<Config>() else {
        complain(
            "cannot be read",
            "Write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password as %XX.",
        );
        return None;
    };
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        complain("names no host", "Write postgres://USER@HOST:PORT/DATABASE.");
        return None;
    }
    Some(config)
}

/// What a url says is not said twice.
pub(super) fn refuse_parts_beside_url(section: &Section) {
    for key in ["host", "port", "database", "user", "password", "password_file"].into_iter().filter(|k| section.has(k))
    {
        let message = format!("\"{key}\" in {} does not go with \"url\"", section.title);
        section.complain_of(key, Complaint::new(message).with_hint("Write it into the url, or leave the url out."));
    }
}

/// `port`, if it is there and right.
pub(super) fn read_port(section: &Section) -> Option<u16> {
    let port = section.whole("port")?;
    let read = u16::try_from(port).ok();
    if read.is_none() {
        section.complain_of("port", Complaint::new(format!("port {port} is beyond 65535")));
    }
    read
}

/// Certificates without TLS would be a mistake of whoever believes that there is TLS.
pub(super) fn refuse_useless_certificates(section: &Section, sslmode: SslMode) {
    if sslmode == SslMode::Disable && section.has("sslrootcert") {
        let complaint = Complaint::new(format!("\"sslrootcert\" in {} has no effect without TLS", section.title));
        section.complain_of("sslrootcert", complaint.with_hint("Write sslmode = \"verify-full\" as well."));
    }
}

/// The `sslmode` key.
pub(super) fn read_sslmode(section: &Section) -> Option<SslMode> {
    section.choice("sslmode", &[("disable", SslMode::Disable), ("verify-full", SslMode::VerifyFull)])
}

/// `host`, `port`, `database`, `user`, `password` or `password_file`.
fn read_parts(section: &Section) -> Option<Config> {
    let mut config = Config::new();
    if !section.has("host") {
        let complaint = Complaint::new(format!("{} lacks \"url\"", section.title));
        section.complain(complaint.with_hint("Write url = \"postgres://USER@HOST:PORT/DATABASE\", or host = \"…\"."));
    }
    let host = section.text("host");
    if let Some(port) = read_port(section) {
        config.port(port);
    }
    if let Some(database) = section.text("database") {
        config.dbname(database.value);
    }
    if let Some(user) = section.text("user") {
        config.user(user.value);
    }
    if let Some(password) = read_password(section) {
        config.password(password);
    }
    config.host(host?.value);
    Some(config)
}

/// `password` or `password_file`.
pub(super) fn read_password(section: &Section) -> Option<String> {
    if section.has("password") && section.has("password_file") {
        let message = format!("\"password_file\" in {} does not go with \"password\"", section.title);
        section.complain_of("password_file", Complaint::new(message));
    }
    if section.has("password") {
        return section.text("password").map(|password| password.value);
    }
    let path = section.path("password_file")?;
    read_password_file(section, &path)
}

fn read_password_file(section: &Section, path: &Path) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(without_line_end(text)),
        Err(error) => {
            let message = format!("cannot read \"password_file\" in {}: {error}", section.title);
            section.complain_of("password_file", Complaint::new(message));
            None
        }
    }
}

/// Whether nothing leaves this machine: sockets and loopback addresses only.
fn is_local(config: &Config) -> bool {
    let addresses = config.get_hostaddrs();
    if !addresses.is_empty() {
        return addresses.iter().all(IpAddr::is_loopback);
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    })
}
