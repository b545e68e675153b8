//! What `[connection.X]` of type mysql means: MariaDB and MySQL.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use url::Url;

use super::connection_section::{
    MAX_CONNECTIONS, read_password, read_port, read_sslmode, refuse_parts_beside_url, refuse_useless_certificates,
};
use super::definition::{MysqlConfig, SslMode};
use super::problem::Complaint;
use super::section::Section;

const PORT: u16 = 3306;

/// Where a server is, and as whom to log in there.
struct Target {
    host: String,
    port: u16,
    database: Option<String>,
    user: String,
    password: Option<String>,
}

pub(super) fn read_mysql(section: &Section) -> Option<MysqlConfig> {
    let max_connections = section.count("max_connections").unwrap_or(MAX_CONNECTIONS);
    let chosen = read_sslmode(section);
    let sslrootcert = section.path("sslrootcert");
    let target = if section.has("url") { read_url(section) } else { read_parts(section) };
    let Target { host, port, database, user, password } = target?;
    let sslmode = chosen.unwrap_or(if is_local(&host) { SslMode::Disable } else { SslMode::VerifyFull });
    refuse_useless_certificates(section, sslmode);
    if sslmode == SslMode::VerifyFull && host.starts_with('/') {
        let message = format!("\"sslmode\" in {} does not go with a socket", section.title);
        section.complain_of("sslmode", Complaint::new(message).with_hint("Nothing leaves this machine: leave it out."));
    }
    Some(MysqlConfig { host, port, database, user, password, sslmode, sslrootcert, max_connections })
}

/// The `url` key. No complaint shows any part of it, since it may hold a password.
fn read_url(section: &Section) -> Option<Target> {
    const FORM: &str = "Write mysql://USER:PASSWORD@HOST:PORT/DATABASE";
    refuse_parts_beside_url(section);
    let text = section.text("url")?;
    let complain = |message: &str, hint: String| {
        let message = format!("\"url\" in {} {message}", section.title);
        section.reading.complain(&text.origin, Complaint::new(message).with_hint(hint));
    };
    let url = match Url::parse(&text.value) {
        Ok(url) if url.scheme() == "mysql" => url,
        Ok(_) => {
            complain("is not a url of MariaDB or MySQL", format!("{FORM}."));
            return None;
        }
        Err(_) => {
            complain("cannot be read", format!("{FORM}, with special characters of the password as %XX."));
            return None;
        }
    };
    if url.query().is_some() || url.fragment().is_some() {
        complain(
            "has options",
            "Write sslmode and sslrootcert as keys beside the url; there are no others.".to_string(),
        );
        return None;
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let database = decoded(url.path().trim_start_matches('/'))?;
    let (host, user) = (url.host_str().unwrap_or_default(), decoded(url.username())?);
    for (what, value) in [("host", host), ("user", user.as_str())] {
        if value.is_empty() {
            complain(&format!("names no {what}"), format!("{FORM}."));
            return None;
        }
    }
    Some(Target {
        // An address of IPv6 stands in brackets in a url, and nowhere else.
        host: host.trim_start_matches('[').trim_end_matches(']').to_string(),
        port: url.port().unwrap_or(PORT),
        database: Some(database).filter(|database| !database.is_empty()),
        user,
        password: url.password().and_then(decoded),
    })
}

/// `host`, `port`, `database`, `user`, `password` or `password_file`.
fn read_parts(section: &Section) -> Option<Target> {
    if !section.has("host") {
        let complaint = Complaint::new(format!("{} lacks \"url\"", section.title));
        section.complain(complaint.with_hint("Write url = \"mysql://USER@HOST:PORT/DATABASE\", or host = \"…\"."));
    } else {
        section.require("user");
    }
    let (host, user) = (section.text("host"), section.text("user"));
    let port = read_port(section).unwrap_or(PORT);
    let database = section.text("database").map(|database| database.value);
    let password = read_password(section);
    Some(Target { host: host?.value, port, database, user: user?.value, password })
}

/// Whether nothing leaves this machine.
fn is_local(host: &str) -> bool {
    host.starts_with('/') || host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
