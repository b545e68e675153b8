//! What `[connection.X]` of type kafka means, and `[stream.X]` over it.

use std::net::IpAddr;
use std::time::Duration;

use url::Url;

use super::connection_section::{Connections, read_password, read_sslmode, refuse_useless_certificates};
use super::definition::{KafkaConfig, KafkaTopic, SslMode, StreamKind};
use super::message_section::{Carrier, MessageWord, read_metadata, read_payload};
use super::problem::Complaint;
use super::section::Section;
use crate::source::kafka_connection::{PasswordMechanism, Sasl};
use crate::source::kafka_token::TokenConfig;

const DISCOVER_EVERY: Duration = Duration::from_secs(30);
/// The longest name of a topic, by Kafka's own rule.
const MAX_TOPIC_BYTES: usize = 249;

#[derive(Clone, Copy)]
enum Mechanism {
    Password(PasswordMechanism),
    OAuthBearer,
}

const FORMATS: [(&str, MessageWord); 5] = [
    ("json", MessageWord::Json),
    ("csv", MessageWord::Csv),
    ("avro", MessageWord::Avro),
    ("debezium", MessageWord::Debezium),
    ("raw", MessageWord::Raw),
];

const MECHANISMS: [(&str, Mechanism); 4] = [
    ("PLAIN", Mechanism::Password(PasswordMechanism::Plain)),
    ("SCRAM-SHA-256", Mechanism::Password(PasswordMechanism::ScramSha256)),
    ("SCRAM-SHA-512", Mechanism::Password(PasswordMechanism::ScramSha512)),
    ("OAUTHBEARER", Mechanism::OAuthBearer),
];

pub(super) fn read_kafka_connection(section: &Section) -> Option<KafkaConfig> {
    section.require("brokers");
    let brokers = section.text("brokers");
    let chosen = read_sslmode(section);
    let sslrootcert = section.path("sslrootcert");
    let certificate = read_certificate(section);
    let sasl = read_sasl(section);
    let brokers = brokers?;
    let hosts: Option<Vec<&str>> = brokers.value.split(',').map(|broker| host_of(broker.trim())).collect();
    let Some(hosts) = hosts else {
        let complaint = Complaint::new(format!("\"brokers\" in {} is not HOST:PORT", section.title));
        let complaint = complaint.with_hint("Write brokers = \"HOST:PORT\", several with commas between them.");
        section.reading.complain(&brokers.origin, complaint);
        return None;
    };
    let is_local = hosts.iter().all(|host| is_loopback(host));
    let sslmode = chosen.unwrap_or(if is_local { SslMode::Disable } else { SslMode::VerifyFull });
    // The token's endpoint may be what the certificates are for.
    if !section.is_text("sasl_mechanism", "OAUTHBEARER") {
        refuse_useless_certificates(section, sslmode);
    }
    if sslmode == SslMode::Disable && certificate.is_some() {
        let complaint = Complaint::new(format!("\"sslcert\" in {} has no effect without TLS", section.title));
        section.complain_of("sslcert", complaint.with_hint("Write sslmode = \"verify-full\" as well."));
    }
    let brokers = brokers.value.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    Some(KafkaConfig { brokers, sslmode, sslrootcert, certificate, sasl: sasl? })
}

fn host_of(broker: &str) -> Option<&str> {
    let (host, port) = broker.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    (is_port && !bare.is_empty() && !bare.contains(['/', '@', ' '])).then_some(bare)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn read_certificate(section: &Section) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    let pair = (section.path("sslcert"), section.path("sslkey"));
    for (has, lacks) in [("sslcert", "sslkey"), ("sslkey", "sslcert")] {
        if section.has(has) && !section.has(lacks) {
            section.complain_of(has, Complaint::new(format!("{} has \"{has}\" without \"{lacks}\"", section.title)));
        }
    }
    for path in [&pair.0, &pair.1].into_iter().flatten() {
        if let Err(error) = std::fs::metadata(path) {
            let message = format!("{} of {} cannot be read: {error}", path.display(), section.title);
            section.complain(Complaint::new(message));
        }
    }
    Some((pair.0?, pair.1?))
}

/// How to log in; `None` if that is wrong.
fn read_sasl(section: &Section) -> Option<Option<Sasl>> {
    const OF_PASSWORDS: [&str; 3] = ["user", "password", "password_file"];
    const OF_TOKENS: [&str; 4] = ["token_url", "client_id", "client_secret", "scope"];
    if !section.has("sasl_mechanism") {
        refuse(section, &[&OF_PASSWORDS[..], &OF_TOKENS[..]].concat(), "has no effect without \"sasl_mechanism\"");
        return Some(None);
    }
    match section.choice("sasl_mechanism", &MECHANISMS)? {
        Mechanism::Password(mechanism) => {
            refuse(section, &OF_TOKENS, "goes with sasl_mechanism = \"OAUTHBEARER\" alone");
            section.require("user");
            if !section.has("password") && !section.has("password_file") {
                section.complain(Complaint::new(format!("{} has a user without a password", section.title)));
            }
            let (user, password) = (section.text("user"), read_password(section));
            Some(Some(Sasl::Password { mechanism, user: user?.value, password: password? }))
        }
        Mechanism::OAuthBearer => {
            refuse(section, &OF_PASSWORDS, "does not go with sasl_mechanism = \"OAUTHBEARER\"");
            ["token_url", "client_id", "client_secret"].into_iter().for_each(|key| section.require(key));
            let (client_id, client_secret) = (section.text("client_id"), section.text("client_secret"));
            let scope = section.text("scope").map(|scope| scope.value);
            let (token_url, sslrootcert) = (read_token_url(section), section.path("sslrootcert"));
            Some(Some(Sasl::OAuthBearer(TokenConfig {
                token_url: token_url?,
                client_id: client_id?.value,
                client_secret: client_secret?.value,
                scope,
                sslrootcert,
            })))
        }
    }
}

fn refuse(section: &Section, keys: &[&str], why: &str) {
    for key in keys.iter().filter(|key| section.has(key)) {
        section.complain_of(key, Complaint::new(format!("\"{key}\" in {} {why}", section.title)));
    }
}

fn read_token_url(section: &Section) -> Option<Url> {
    let text = section.text("token_url")?;
    let url = text.value.parse::<Url>().ok().filter(|url| url.username().is_empty() && url.password().is_none());
    let is_safe = |url: &Url| {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        url.scheme() == "https" || (url.scheme() == "http" && is_loopback(host))
    };
    let url = url.filter(is_safe);
    if url.is_none() {
        let complaint = Complaint::new(format!("\"token_url\" in {} is not a url to send a secret to", section.title));
        section.reading.complain(&text.origin, complaint.with_hint("Write https://HOST/PATH, without a user."));
    }
    url
}

/// A stream over a topic.
pub(super) fn read_kafka_stream(
    section: &Section,
    connection: String,
    connections: &Connections,
) -> Option<StreamKind> {
    section.require("topic");
    let topic = section.text("topic");
    section.require("format");
    let payload = read_payload(section, section.choice("format", &FORMATS), connections);
    let discover_every = section.duration("discover_every").unwrap_or(DISCOVER_EVERY);
    let metadata = read_metadata(section, Carrier::Kafka, payload.as_ref());
    let (payload, topic) = (payload?, topic?);
    let is_topic = topic.value.len() <= MAX_TOPIC_BYTES
        && topic.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !matches!(topic.value.as_str(), "." | "..");
    if !is_topic {
        let complaint =
            Complaint::new(format!("\"{}\" in {} cannot be the name of a topic", topic.shown, section.title));
        let hint = "A topic's name has letters, digits, dots, dashes and underscores, 249 of them at most.";
        section.reading.complain(&topic.origin, complaint.with_hint(hint));
    }
    Some(StreamKind::Kafka(KafkaTopic { connection, topic: topic.value, payload, metadata, discover_every }))
}

#[cfg(test)]
#[path = "kafka_section_tests.rs"]
mod tests;
