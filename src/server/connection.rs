//! One client's connection: the loop over its messages, once it has logged in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pgwire::messages::PgWireFrontendMessage;
use pgwire::messages::startup::ParameterStatus;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::catalog::backends::{Backend, BackendState, Backends};
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::server::accounts::Accounts;
use crate::server::doorway::Doorway;
use crate::server::login::{LoggedIn, log_in};
use crate::server::stop::Stop;
use crate::server::tls::Tls;
use crate::server::wire::{Broken, Request, Wire};
use crate::session::setting::{Report, Settings};
use crate::session::{Session, TransactionStatus};

/// What all connections share.
#[derive(Clone)]
pub struct Shared {
    pub engine: Arc<Engine>,
    pub cancels: Arc<Backends>,
    pub accounts: Arc<Accounts>,
    /// `None`: no TLS.
    pub tls: Option<Tls>,
    /// Log-ins under way.
    pub doorway: Arc<Doorway>,
    /// For clients that have logged in.
    pub places: Arc<Semaphore>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}

impl Shared {
    pub fn catalog(&self) -> &Catalog {
        self.engine.catalog()
    }
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
    /// How long the server lets any client say nothing.
    idle_timeout: Option<Duration>,
    _place: OwnedSemaphorePermit,
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
pub async fn serve(socket: TcpStream, address: IpAddr, shared: Shared) {
    let client = socket.peer_addr().ok();
    let Some(LoggedIn { wire, mut session, backend, place }) = log_in(socket, address, &shared).await else { return };
    // It ends with the server, or alone.
    let shutdown = shared.shutdown.child_token();
    let viewer = session.viewer();
    backend.log_in(&viewer.user, &viewer.database, client, shutdown.clone());
    backend.rests(BackendState::Idle, session.settings().application_name());
    session.settings_mut().keep_as_initial();
    let reported = session.settings().clone();
    let (statement, deadline) = (None, None);
    let idle_timeout = shared.catalog().server().idle_timeout;
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
        idle_timeout,
        _place: place,
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

fn shutdown_error() -> Error {
    Error::new(Code::AdminShutdown, "terminating connection due to administrator command")
}

/// Tells a client why the connection ends. One that does not read its last message is not waited for.
pub async fn farewell(wire: &mut Wire, error: &Error) -> Result<(), Broken> {
    wire.send_failure("FATAL", error)?;
    tokio::time::timeout(Duration::from_secs(1), wire.finish()).await.unwrap_or(Ok(()))
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
        let of_session = self.session.settings().idle_timeout(in_transaction);
        let of_server = self.idle_timeout.filter(|_| !in_transaction);
        let limit = of_session.into_iter().chain(of_server).min();
        (in_transaction, limit.filter(|_| self.is_idle))
    }

    /// What has ended the statement, a cancel or its time-out, does not end what is left to do as well.
    pub(super) fn forget_stop(&mut self) {
        (self.statement, self.deadline) = (None, None);
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
        if !session.has_rows_to_publish() {
            // There is nothing to wait for, and so nothing that could still be stopped.
            session.end_message().await?;
            return self.ready().await;
        }
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
        let error =
            Error::unsupported("function calls by message are not supported").with_hint("Write SELECT function(…).");
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
        let stop = Stop { shutdown: self.shutdown.clone(), statement: self.statement.clone(), deadline: self.deadline };
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
        true => Error::new(Code::IdleInTransactionTimeout, "terminating connection due to idle-in-transaction timeout"),
        false => Error::new(Code::IdleSessionTimeout, "terminating connection due to idle-session timeout"),
    }
}
