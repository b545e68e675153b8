//! One client's connection: log-in, then the loop over its messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey, Startup,
};
use pgwire::messages::{PgWireFrontendMessage, SslNegotiationMetaMessage};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::Rights;
use crate::catalog::backends::{Backend, BackendState, Backends};
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::server::stop::Stop;
use crate::server::wire::{Broken, Request, Wire};
use crate::session::setting::{Report, Settings};
use crate::session::{Session, TransactionStatus};

/// How long a client may take from connecting to the end of its log-in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub engine: Arc<Engine>,
    pub cancels: Arc<Backends>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}

/// A client that has logged in.
pub struct Connection {
    pub(super) wire: Wire,
    pub(super) session: Session,
    pub(super) shutdown: CancellationToken,
    /// Its place among all connections.
    pub(super) backend: Backend,
    /// Of the statement that runs.
    statement: Option<CancellationToken>,
    /// When the statement that runs has taken too long.
    deadline: Option<Instant>,
    /// The settings as the client was told of them.
    reported: Settings,
    /// Whether the client has been told that it is its turn.
    is_idle: bool,
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
pub async fn serve(socket: TcpStream, shared: Shared) {
    let client = socket.peer_addr().ok();
    let mut wire = Wire::new(socket);
    let login = tokio::time::timeout(LOGIN_TIMEOUT, log_in(&mut wire, &shared));
    let logged_in = tokio::select! {
        logged_in = login => logged_in,
        () = shared.shutdown.cancelled() => return,
    };
    let (mut session, backend) = match logged_in {
        Ok(Ok(Some(logged_in))) => logged_in,
        Ok(Err(Ended::Failed(error))) | Ok(Err(Ended::Broken(Broken::Protocol(error)))) => {
            tracing::debug!(error = %error, "log-in refused");
            let _ = farewell(&mut wire, &error).await;
            return;
        }
        _ => return,
    };
    // It ends with the server, or alone.
    let shutdown = shared.shutdown.child_token();
    let viewer = session.viewer();
    backend.log_in(&viewer.user, &viewer.database, client, shutdown.clone());
    backend.rests(BackendState::Idle, session.settings().application_name());
    session.settings_mut().keep_as_initial();
    let reported = session.settings().clone();
    let (statement, deadline) = (None, None);
    let mut connection = Connection {
        wire,
        session,
        shutdown,
        backend,
        statement,
        deadline,
        reported,
        is_idle: true,
        skip_to_sync: false,
    };
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
async fn log_in(wire: &mut Wire, shared: &Shared) -> Result<Option<(Session, Backend)>, Ended> {
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
                }
                Err(ended) => return ended,
            }
        }
    }

    async fn answer_next(&mut self) -> Result<(), Ended> {
        let idle_since = Instant::now();
        let (in_transaction, limit) = self.idle_limit();
        let request = tokio::select! {
            request = self.wire.next_request() => request?,
            () = self.shutdown.cancelled() => return Err(Ended::Shutdown),
            () = at(limit.map(|limit| idle_since + limit)) => return Err(Broken::Protocol(idle_error(in_transaction)).into()),
        };
        self.is_idle = false;
        self.statement = Some(self.backend.begin_statement());
        self.begin_deadline();
        let answered = match request {
            Request::Message(message) => self.answer(message).await,
            Request::FunctionCall => self.refuse_function_call().await,
        };
        self.backend.end_statement();
        answered
    }

    /// How long the client may say nothing now, and whether a transaction is open. In the middle of a pipeline it has
    /// not been told yet that it is its turn.
    fn idle_limit(&self) -> (bool, Option<Duration>) {
        let in_transaction = self.session.transaction_status() != TransactionStatus::Idle;
        let limit = self.is_idle.then(|| self.session.settings().idle_timeout(in_transaction)).flatten();
        (in_transaction, limit)
    }

    /// From now on the time-out of the statement that begins runs.
    pub(super) fn begin_deadline(&mut self) {
        self.deadline = self.session.settings().statement_timeout().map(|timeout| Instant::now() + timeout);
    }

    async fn answer(&mut self, message: PgWireFrontendMessage) -> Result<(), Ended> {
        match message {
            PgWireFrontendMessage::Query(query) if !self.skip_to_sync => self.simple_query(&query.query).await,
            PgWireFrontendMessage::Terminate(_) => Err(Broken::Gone.into()),
            PgWireFrontendMessage::Sync(_) => {
                self.skip_to_sync = false;
                self.end_message().await
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

    /// Ends the transaction of a message or a pipeline, and tells that the next may come.
    pub(super) async fn end_message(&mut self) -> Result<(), Ended> {
        let (wire, session, stop) = self.parts();
        match stop.guard(wire, session.end_message()).await.and_then(|ended| Ok(ended?)) {
            Err(Ended::Failed(error)) => self.wire.send_failure("ERROR", &error)?,
            ended => ended?,
        }
        self.ready().await
    }

    async fn refuse_function_call(&mut self) -> Result<(), Ended> {
        if self.skip_to_sync {
            return Ok(());
        }
        self.session.fail_transaction();
        let error = Error::unsupported("function calls by message are not supported").with_hint("Write SELECT function(…).");
        self.wire.send_failure("ERROR", &error)?;
        self.end_message().await
    }

    /// Tells that the next statement may come, and which settings are others than the client knows.
    async fn ready(&mut self) -> Result<(), Ended> {
        let settings = self.session.settings();
        let reports = settings.differences(&self.reported);
        if !reports.is_empty() {
            self.reported = settings.clone();
            send_reports(&mut self.wire, reports)?;
        }
        let status = self.session.transaction_status();
        let state = match status {
            TransactionStatus::Idle => BackendState::Idle,
            TransactionStatus::Open => BackendState::IdleInTransaction,
            TransactionStatus::Failed => BackendState::IdleInFailedTransaction,
        };
        self.backend.rests(state, self.session.settings().application_name());
        self.is_idle = true;
        self.wire.send_ready(status)?;
        self.flush().await
    }

    /// Writes what there is, unless the server stops meanwhile.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        let (wire, _, stop) = self.parts();
        stop.flush(wire).await
    }

    /// What a running statement needs, apart, so that it may borrow the session and still be stopped.
    pub(super) fn parts(&mut self) -> (&mut Wire, &mut Session, Stop) {
        let stop =
            Stop { shutdown: self.shutdown.clone(), statement: self.statement.clone(), deadline: self.deadline };
        (&mut self.wire, &mut self.session, stop)
    }
}

/// Waits for a moment; for ever, if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn idle_error(in_transaction: bool) -> Error {
    match in_transaction {
        true => Error::new(
            Code::IdleInTransactionTimeout,
            "terminating connection due to idle-in-transaction timeout",
        ),
        false => Error::new(Code::IdleSessionTimeout, "terminating connection due to idle-session timeout"),
    }
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
