//! What `[server]` means.

use super::access::{ListenDefinition, ServerDefinition, TlsDefinition};
use super::problem::Complaint;
use super::section::Section;

/// Reads the section; what is wrong with a key is told, and the key then has its default.
pub(super) fn read_server(section: &Section) -> ServerDefinition {
    section.check_keys();
    let defaults = ServerDefinition::default();
    let tls = read_tls(section);
    let require_tls = section.flag("require_tls");
    if require_tls == Some(true) && !section.has("tls_certificate") {
        let complaint = Complaint::new("require_tls = true in [server] lets nobody in without a certificate");
        section.complain_of("require_tls", complaint.with_hint("Write tls_certificate and tls_key as well."));
    }
    ServerDefinition {
        listen: read_listen(section),
        tls,
        require_tls,
        max_connections: section.count("max_connections").unwrap_or(defaults.max_connections),
        login_timeout: section.duration("login_timeout").unwrap_or(defaults.login_timeout),
        idle_timeout: section.duration("idle_timeout").filter(|timeout| !timeout.is_zero()),
        open_metrics: section.flag("open_metrics").unwrap_or_default(),
        open_health: section.flag("open_health").unwrap_or_default(),
        let_other_machines_in_unprotected: section.flag("let_other_machines_in_unprotected").unwrap_or_default(),
    }
}

fn read_listen(section: &Section) -> Option<ListenDefinition> {
    let listen = section.text("listen")?;
    let is_address =
        listen.value.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !is_address {
        let message = format!("\"{}\" in [server] is not an address to listen on", listen.shown);
        section.complain_of("listen", Complaint::new(message).with_hint("Write HOST:PORT, as \"127.0.0.1:7432\"."));
    }
    Some(ListenDefinition { address: listen.value, origin: listen.origin })
}

fn read_tls(section: &Section) -> Option<TlsDefinition> {
    for (key, other) in
        [("tls_certificate", "tls_key"), ("tls_key", "tls_certificate"), ("tls_client_ca", "tls_certificate")]
    {
        if section.has(key) && !section.has(other) {
            let message = format!("\"{key}\" in [server] has no effect without \"{other}\"");
            section.complain_of(key, Complaint::new(message));
        }
    }
    let (certificate, key) = (section.path("tls_certificate"), section.path("tls_key"));
    let client_ca = section.path("tls_client_ca");
    Some(TlsDefinition { certificate: certificate?, key: key?, client_ca })
}
