//! One client's connection: log-in, then the loop over its messages.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey, Startup,
};
use pgwire::messages::{PgWireFrontendMessage, SslNegotiationMetaMessage};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::catalog::Rights;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::server::cancel::{CancelKey, CancelRegistry};
use crate::server::wire::{Broken, Transport, Wire};
use crate::session::Session;
use crate::session::setting::Report;

/// How long a client may take from connecting to the end of its log-in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub engine: Arc<Engine>,
    pub cancels: Arc<CancelRegistry>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}

/// A client that has logged in.
pub struct Connection {
    pub(super) wire: Wire,
    pub(super) session: Session,
    pub(super) shutdown: CancellationToken,
    cancel_key: CancelKey,
    /// Of the statement that runs.
    statement: Option<CancellationToken>,
    /// After an error in the extended protocol messages are skipped up to Sync.
    pub(super) skip_to_sync: bool,
}

/// Why a statement has ended without its result.
pub enum Ended {
    /// The client is told, and the connection goes on.
    Failed(Error),
    /// The connection is over.
    Broken(Broken),
    /// The server stops; the client is told, and the connection is over.
    Shutdown,
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Failed(error)
    }
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        Ended::Broken(broken)
    }
}

/// Serves one client until it goes or the server stops.
pub async fn serve(socket: impl Transport + 'static, shared: Shared) {
    let mut wire = Wire::new(socket);
    let login = tokio::time::timeout(LOGIN_TIMEOUT, log_in(&mut wire, &shared));
    let logged_in = tokio::select! {
        logged_in = login => logged_in,
        () = shared.shutdown.cancelled() => return,
    };
    let (session, cancel_key) = match logged_in {
        Ok(Ok(Some(logged_in))) => logged_in,
        Ok(Err(Ended::Failed(error))) | Ok(Err(Ended::Broken(Broken::Protocol(error)))) => {
            tracing::debug!(error = %error, "log-in refused");
            let _ = farewell(&mut wire, &error).await;
            return;
        }
        _ => return,
    };
    let shutdown = shared.shutdown.clone();
    let mut connection = Connection { wire, session, shutdown, cancel_key, statement: None, skip_to_sync: false };
    match connection.run().await {
        Ended::Broken(Broken::Gone) => {}
        Ended::Broken(Broken::Protocol(error)) | Ended::Failed(error) => {
            tracing::debug!(error = %error, "connection ended");
            let _ = farewell(&mut connection.wire, &error).await;
        }
        Ended::Shutdown => {
            let _ = farewell(&mut connection.wire, &shutdown_error()).await;
        }
    }
}

/// Tells a client why it is not let in.
pub async fn refuse(socket: TcpStream, error: Error) {
    let _ = farewell(&mut Wire::new(socket), &error).await;
}

fn shutdown_error() -> Error {
    Error::new(Code::AdminShutdown, "terminating connection due to administrator command")
}

/// A client that does not read its last message is not waited for.
async fn farewell(wire: &mut Wire, error: &Error) -> Result<(), Broken> {
    wire.send_failure("FATAL", error)?;
    tokio::time::timeout(Duration::from_secs(1), wire.flush()).await.unwrap_or(Ok(()))
}

/// `None` for a client that came only to cancel another's statement.
async fn log_in(wire: &mut Wire, shared: &Shared) -> Result<Option<(Session, CancelKey)>, Ended> {
    let startup = loop {
        match wire.next_message().await? {
            PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::PostgresSsl(_)) => {
                wire.send(&SslResponse::Refuse)?;
                wire.flush().await?;
            }
            PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::PostgresGss(_)) => {
                wire.send(&GssEncResponse::Refuse)?;
                wire.flush().await?;
            }
            PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::None) => wire.expect(false, true),
            PgWireFrontendMessage::CancelRequest(request) => {
                if let Some(secret) = request.secret_key.as_i32() {
                    shared.cancels.cancel(request.pid, secret);
                }
                return Ok(None);
            }
            PgWireFrontendMessage::Startup(startup) => break startup,
            _ => return Err(Error::new(Code::ProtocolViolation, "expected a startup message").into()),
        }
    };
    wire.expect(false, false);
    negotiate_version(wire, &startup)?;
    let mut session = Session::new(Arc::clone(&shared.engine));
    take_startup_parameters(&mut session, &startup.parameters)?;
    let cancel_key = shared.cancels.register();
    session.set_pid(cancel_key.pid);
    wire.send(&Authentication::Ok)?;
    send_reports(wire, session.settings().reported())?;
    wire.send(&BackendKeyData::new(cancel_key.pid, SecretKey::I32(cancel_key.secret)))?;
    wire.send_ready(session.transaction_status())?;
    wire.flush().await?;
    Ok(Some((session, cancel_key)))
}

/// Clients that ask for a newer minor version, or for its options, are told that this is 3.0.
fn negotiate_version(wire: &mut Wire, startup: &Startup) -> Result<(), Ended> {
    if startup.protocol_number_major != 3 {
        let version = format!("{}.{}", startup.protocol_number_major, startup.protocol_number_minor);
        return Err(Error::unsupported(format!("unsupported frontend protocol {version}: server supports 3.0")).into());
    }
    let options: Vec<String> = startup.parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    if startup.protocol_number_minor > 0 || !options.is_empty() {
        wire.send(&NegotiateProtocolVersion::new(3 << 16, options))?;
    }
    Ok(())
}

fn take_startup_parameters(session: &mut Session, parameters: &BTreeMap<String, String>) -> Result<()> {
    let Some(user) = parameters.get("user").filter(|user| !user.is_empty()) else {
        return Err(Error::new(Code::InvalidAuthorization, "no PostgreSQL user name specified in startup packet"));
    };
    let database = parameters.get("database").filter(|database| !database.is_empty()).unwrap_or(user);
    session.set_client(user, database, Arc::new(Rights::all()));
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

/// Tells the client of settings.
pub fn send_reports(wire: &mut Wire, reports: Vec<Report>) -> Result<(), Broken> {
    for (name, value) in reports {
        wire.send(&ParameterStatus::new(name.to_string(), value))?;
    }
    Ok(())
}

impl Connection {
    /// Answers messages until the connection is over.
    async fn run(&mut self) -> Ended {
        loop {
            match self.answer_next().await {
                Ok(()) => {}
                Err(Ended::Failed(error)) => {
                    self.session.fail_transaction();
                    if let Err(broken) = self.wire.send_failure("ERROR", &error) {
                        return broken.into();
                    }
                    // A client that has sent Flush and waits is answered, though what follows an error is skipped.
                    if let Err(ended) = self.flush().await {
                        return ended;
                    }
                }
                Err(ended) => return ended,
            }
        }
    }

    async fn answer_next(&mut self) -> Result<(), Ended> {
        let message = tokio::select! {
            message = self.wire.next_message() => message?,
            () = self.shutdown.cancelled() => return Err(Ended::Shutdown),
        };
        self.statement = Some(self.cancel_key.begin_statement());
        let answered = self.answer(message).await;
        self.cancel_key.end_statement();
        answered
    }

    async fn answer(&mut self, message: PgWireFrontendMessage) -> Result<(), Ended> {
        match message {
            PgWireFrontendMessage::Query(query) if !self.skip_to_sync => self.simple_query(&query.query).await,
            PgWireFrontendMessage::Terminate(_) => Err(Broken::Gone.into()),
            PgWireFrontendMessage::Sync(_) => {
                self.skip_to_sync = false;
                self.session.end_statement();
                self.ready().await
            }
            // The rest of a COPY that has failed.
            PgWireFrontendMessage::CopyData(_)
            | PgWireFrontendMessage::CopyDone(_)
            | PgWireFrontendMessage::CopyFail(_) => Ok(()),
            _ if self.skip_to_sync => Ok(()),
            message => {
                let answered = self.extended_query(message).await;
                if let Err(Ended::Failed(_)) = &answered {
                    self.skip_to_sync = true;
                }
                answered
            }
        }
    }

    /// Tells that the next statement may come.
    pub(super) async fn ready(&mut self) -> Result<(), Ended> {
        self.wire.send_ready(self.session.transaction_status())?;
        self.flush().await
    }

    /// Writes what there is, unless the server stops meanwhile.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        let (wire, _, stop) = self.parts();
        stop.flush(wire).await
    }

    /// What a running statement needs, apart, so that it may borrow the session and still be stopped.
    pub(super) fn parts(&mut self) -> (&mut Wire, &mut Session, Stop) {
        let stop = Stop { shutdown: self.shutdown.clone(), statement: self.statement.clone() };
        (&mut self.wire, &mut self.session, stop)
    }
}

/// What may stop a statement from outside.
pub struct Stop {
    shutdown: CancellationToken,
    statement: Option<CancellationToken>,
}

impl Stop {
    /// Whether the statement has been cancelled.
    ///
    /// # Errors
    /// 57014 if so, and the server's own stop.
    pub fn check(&self) -> Result<(), Ended> {
        if self.shutdown.is_cancelled() {
            return Err(Ended::Shutdown);
        }
        match &self.statement {
            Some(statement) if statement.is_cancelled() => Err(cancelled_error().into()),
            _ => Ok(()),
        }
    }

    /// The client's next message, unless the statement is cancelled or the server stops first.
    pub async fn next_message(&self, wire: &mut Wire) -> Result<PgWireFrontendMessage, Ended> {
        let cancelled = self.statement.clone().unwrap_or_default();
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Ended::Shutdown),
            () = cancelled.cancelled() => Err(cancelled_error().into()),
            message = wire.next_message() => Ok(message?),
        }
    }

    /// Writes what there is, unless the server stops meanwhile. A cancel waits until the client has read what was
    /// begun, as it must read that before the answer to the cancel.
    pub async fn flush(&self, wire: &mut Wire) -> Result<(), Ended> {
        tokio::select! {
            biased;
            flushed = wire.flush() => Ok(flushed?),
            () = self.shutdown.cancelled() => Err(Ended::Shutdown),
        }
    }

    pub async fn guard<T>(&self, wire: &mut Wire, work: impl Future<Output = T>) -> Result<T, Ended> {
        guard(wire, &self.shutdown, self.statement.as_ref(), work).await
    }
}

async fn guard<T>(
    wire: &mut Wire,
    shutdown: &CancellationToken,
    statement: Option<&CancellationToken>,
    work: impl Future<Output = T>,
) -> Result<T, Ended> {
    let cancelled = statement.cloned().unwrap_or_default();
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Ended::Shutdown),
        () = cancelled.cancelled() => Err(cancelled_error().into()),
        done = work => Ok(done),
        () = wire.until_gone() => Err(Broken::Gone.into()),
    }
}

fn cancelled_error() -> Error {
    Error::new(Code::QueryCanceled, "canceling statement due to user request")
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
