//! From a new connection to a session: TLS, who it is, whether he is let in, and his settings.
//!
//! Until the end of it, nothing is answered but the log-in's own messages, and these are small and have to come in time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, SecretKey, Startup};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::catalog::Rights;
use crate::error::{Code, Error, Result};
use crate::server::cancel::CancelKey;
use crate::server::connection::{Ended, Shared, farewell, send_reports};
use crate::server::opening::Opening;
use crate::server::sasl;
use crate::server::scram::{self, Channel, SCRAM, SCRAM_PLUS};
use crate::server::tls::{POSTGRESQL_ALPN, TLS_HANDSHAKE, Tls};
use crate::server::wire::{Broken, Wire};
use crate::session::Session;

/// A client that may begin to ask.
pub struct LoggedIn {
    pub wire: Wire,
    pub session: Session,
    pub cancel_key: CancelKey,
    /// Its place among the clients that may be connected.
    pub place: OwnedSemaphorePermit,
}

/// `None` for a client that was not let in and has been told why, and for one that only came to cancel a statement.
pub async fn log_in(socket: TcpStream, address: IpAddr, shared: &Shared) -> Option<LoggedIn> {
    let doorway = shared.doorway.enter();
    let entering = async {
        let speaks_tls = shared.tls.is_some() && begins_with_tls(&socket).await;
        let mut entry = Entry { wire: Wire::new(socket), address, shared, is_encrypted: false };
        match entry.log_in(speaks_tls).await {
            Ok(granted) => {
                let Granted { session, cancel_key, place } = granted?;
                Some(LoggedIn { wire: entry.wire, session, cancel_key, place })
            }
            Err(Ended::Failed(error) | Ended::Broken(Broken::Protocol(error))) => {
                tracing::debug!(%error, %address, "log-in refused");
                let _ = farewell(&mut entry.wire, &error).await;
                None
            }
            Err(Ended::Broken(Broken::Gone) | Ended::Shutdown) => None,
        }
    };
    tokio::select! {
        entered = tokio::time::timeout(shared.catalog().server().login_timeout, entering) => entered.ok().flatten(),
        () = doorway.displaced() => {
            tracing::debug!(%address, "too many log-ins under way: the oldest was dropped");
            None
        }
        () = shared.shutdown.cancelled() => None,
    }
}

/// Clients of PostgreSQL 17 and later may begin without asking.
async fn begins_with_tls(socket: &TcpStream) -> bool {
    let mut first = [0];
    matches!(socket.peek(&mut first).await, Ok(1)) && first[0] == TLS_HANDSHAKE
}

/// A log-in under way.
struct Entry<'a> {
    wire: Wire,
    address: IpAddr,
    shared: &'a Shared,
    is_encrypted: bool,
}

/// What a client has in the end.
struct Granted {
    session: Session,
    cancel_key: CancelKey,
    place: OwnedSemaphorePermit,
}

impl Entry<'_> {
    async fn log_in(&mut self, speaks_tls: bool) -> Result<Option<Granted>, Ended> {
        if let (true, Some(tls)) = (speaks_tls, &self.shared.tls) {
            let protocol = self.encrypt(tls).await?;
            // Without it, a server of another protocol could have been meant.
            if protocol.as_deref() != Some(POSTGRESQL_ALPN) {
                let message = "received direct SSL connection request without ALPN protocol negotiation extension";
                return Err(Error::new(Code::ProtocolViolation, message).into());
            }
        }
        let Some(startup) = self.startup().await? else { return Ok(None) };
        negotiate_version(&mut self.wire, &startup)?;
        let (user, database) = client_of(&startup.parameters)?;
        self.check_encryption(user)?;
        let rights = self.authenticate(user).await?;
        self.begin_session(user, database, rights, &startup.parameters).await.map(Some)
    }

    /// The startup message; `None` if all that was wanted was a cancel.
    async fn startup(&mut self) -> Result<Option<Startup>, Ended> {
        let (mut may_ask_for_tls, mut may_ask_for_gss) = (!self.is_encrypted, !self.is_encrypted);
        loop {
            match self.wire.next_opening().await? {
                Opening::Tls if may_ask_for_tls => {
                    may_ask_for_tls = false;
                    match &self.shared.tls {
                        Some(tls) => {
                            self.wire.send(&SslResponse::Accept)?;
                            self.wire.flush().await?;
                            self.encrypt(tls).await?;
                            may_ask_for_gss = false;
                        }
                        None => {
                            self.wire.send(&SslResponse::Refuse)?;
                            self.wire.flush().await?;
                        }
                    }
                }
                Opening::Gss if may_ask_for_gss => {
                    may_ask_for_gss = false;
                    self.wire.send(&GssEncResponse::Refuse)?;
                    self.wire.flush().await?;
                }
                Opening::Tls | Opening::Gss => {
                    return Err(Error::new(Code::ProtocolViolation, "expected a startup message").into());
                }
                Opening::Cancel(request) => {
                    self.cancel(&request);
                    return Ok(None);
                }
                Opening::Startup(startup) => return Ok(Some(startup)),
            }
        }
    }

    fn cancel(&self, request: &CancelRequest) {
        if let Some(secret) = request.secret_key.as_i32() {
            self.shared.cancels.cancel(request.pid, secret);
        }
    }

    /// Goes on with TLS over the socket; what protocol the client has named.
    async fn encrypt(&mut self, tls: &Tls) -> Result<Option<Vec<u8>>, Ended> {
        let plain = self.wire.take_socket()?;
        let stream = tls.postgresql.accept(plain).await.map_err(|error| {
            tracing::debug!(%error, address = %self.address, "no TLS");
            Broken::Gone
        })?;
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        self.wire = Wire::new(stream);
        self.is_encrypted = true;
        Ok(protocol)
    }

    /// # Errors
    /// 28000 for a client without TLS that must have it.
    fn check_encryption(&self, user: &str) -> Result<()> {
        let from_outside = self.shared.tls.is_some() && !self.address.to_canonical().is_loopback();
        let is_required = self.shared.catalog().server().require_tls.unwrap_or(from_outside);
        if self.is_encrypted || !is_required {
            return Ok(());
        }
        let message = format!("user \"{user}\" may not connect from \"{}\", no encryption", self.address);
        Err(Error::new(Code::InvalidAuthorization, message).with_hint("Connect with sslmode=require or better."))
    }

    /// What the client may do, once it has proved that it knows the user's password.
    async fn authenticate(&mut self, user: &str) -> Result<Arc<Rights>, Ended> {
        let accounts = &self.shared.accounts;
        if accounts.are_open() {
            return Ok(Arc::new(Rights::all()));
        }
        let account = accounts.account(user);
        let tls = self.shared.tls.as_ref().filter(|_| self.is_encrypted);
        let end_point = tls.and_then(|tls| tls.end_point.as_deref());
        let offered: &[&str] = if end_point.is_some() { &[SCRAM_PLUS, SCRAM] } else { &[SCRAM] };
        self.wire.send(&Authentication::SASL(offered.iter().map(ToString::to_string).collect()))?;
        self.wire.flush().await?;
        let first = self.wire.next_password().await?;
        let (mechanism, message) = sasl::initial_response(&first)?;
        if !offered.contains(&mechanism) {
            let message = "client selected an invalid SASL authentication mechanism";
            return Err(Error::new(Code::ProtocolViolation, message).into());
        }
        let channel = Channel { is_bound: mechanism == SCRAM_PLUS, end_point };
        let verifier = (account.verifier, account.rights.is_some());
        let challenge = scram::begin(message, channel, verifier, &scram::new_nonce()?)?;
        self.wire.send(&Authentication::SASLContinue(challenge.message.clone().into()))?;
        self.wire.flush().await?;
        let last = self.wire.next_password().await?;
        let turn = accounts.throttle.turn(self.address).await;
        let answer = challenge.finish(&last)?;
        let (Some(answer), Some(rights)) = (answer, account.rights) else {
            tracing::warn!(user, address = %self.address, "password authentication failed");
            accounts.throttle.note_failure(self.address);
            drop(turn);
            let message = format!("password authentication failed for user \"{user}\"");
            return Err(Error::new(Code::InvalidPassword, message).into());
        };
        self.wire.send(&Authentication::SASLFinal(answer.into()))?;
        Ok(rights)
    }

    async fn begin_session(
        &mut self,
        user: &str,
        database: &str,
        rights: Arc<Rights>,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Granted, Ended> {
        let mut session = Session::new(Arc::clone(&self.shared.engine));
        session.set_client(user, database, rights);
        take_settings(&mut session, parameters)?;
        let Ok(place) = Arc::clone(&self.shared.places).try_acquire_owned() else {
            tracing::warn!(max_connections = self.shared.catalog().server().max_connections, "a client was refused");
            return Err(Error::new(Code::TooManyConnections, "sorry, too many clients already").into());
        };
        let cancel_key = self.shared.cancels.register();
        session.set_pid(cancel_key.pid);
        self.wire.send(&Authentication::Ok)?;
        send_reports(&mut self.wire, session.settings().reported())?;
        self.wire.send(&BackendKeyData::new(cancel_key.pid, SecretKey::I32(cancel_key.secret)))?;
        self.wire.send_ready(session.transaction_status())?;
        self.wire.flush().await?;
        self.wire.allow_long_messages();
        Ok(Granted { session, cancel_key, place })
    }
}

/// Clients that ask for a newer minor version, or for its options, are told that this is 3.0.
fn negotiate_version(wire: &mut Wire, startup: &Startup) -> Result<(), Broken> {
    let options: Vec<String> = startup.parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    if startup.protocol_number_minor > 0 || !options.is_empty() {
        wire.send(&NegotiateProtocolVersion::new(3 << 16, options))?;
    }
    Ok(())
}

/// The user and the database that are asked for.
fn client_of(parameters: &BTreeMap<String, String>) -> Result<(&str, &str)> {
    let Some(user) = parameters.get("user").filter(|user| !user.is_empty()) else {
        return Err(Error::new(Code::InvalidAuthorization, "no PostgreSQL user name specified in startup packet"));
    };
    Ok((user, parameters.get("database").filter(|database| !database.is_empty()).unwrap_or(user)))
}

fn take_settings(session: &mut Session, parameters: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" => {}
            "replication" if matches!(value.as_str(), "false" | "off" | "0" | "no") => {}
            "replication" => return Err(Error::unsupported("replication connections are not supported")),
            "options" => {
                for (name, value) in command_line_settings(value)? {
                    session.settings_mut().set(&name, Some(&value), false)?;
                }
            }
            name if name.starts_with("_pq_.") => {}
            name => {
                session.settings_mut().set(name, Some(value), false)?;
            }
        }
    }
    Ok(())
}

/// `-c name=value` and `--name=value`, blanks in values behind a backslash, as PostgreSQL takes them in `options`.
fn command_line_settings(options: &str) -> Result<Vec<(String, String)>> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => words.last_mut().into_iter().for_each(|word| word.extend(characters.next())),
            ' ' => words.push(String::new()),
            other => words.last_mut().into_iter().for_each(|word| word.push(other)),
        }
    }
    let mut settings = vec![];
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--") {
            Some(assignment) => Some(assignment.to_string()),
            None if word == "-c" => words.next(),
            None => word.strip_prefix("-c").map(str::to_string),
        };
        let pair = assignment.as_ref().and_then(|assignment| assignment.split_once('='));
        let Some((name, value)) = pair else {
            return Err(Error::new(
                Code::SyntaxError,
                format!("invalid command-line argument for server process: {word}"),
            ));
        };
        settings.push((name.replace('-', "_"), value.to_string()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_as_postgresql_takes_them() {
        let settings = command_line_settings("-c application_name=a\\ b --time-zone=UTC -csearch_path=public").unwrap();
        let expected = [("application_name", "a b"), ("time_zone", "UTC"), ("search_path", "public")];
        assert_eq!(settings, expected.map(|(name, value)| (name.to_string(), value.to_string())));
        assert_eq!(command_line_settings("-x").unwrap_err().sqlstate(), "42601");
    }
}
