//! One client's connection: the loop over its messages, once it has logged in.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pgwire::messages::PgWireFrontendMessage;
use pgwire::messages::startup::ParameterStatus;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::server::accounts::Accounts;
use crate::server::cancel::{CancelKey, CancelRegistry};
use crate::server::doorway::Doorway;
use crate::server::login::{LoggedIn, log_in};
use crate::server::tls::Tls;
use crate::server::wire::{Broken, Wire};
use crate::session::setting::Report;
use crate::session::{Session, TransactionStatus};

/// What all connections share.
#[derive(Clone)]
pub struct Shared {
    pub engine: Arc<Engine>,
    pub cancels: Arc<CancelRegistry>,
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
    cancel_key: CancelKey,
    /// Of the statement that runs.
    statement: Option<CancellationToken>,
    /// After an error in the extended protocol messages are skipped up to Sync.
    pub(super) skip_to_sync: bool,
    idle_timeout: Option<Duration>,
    /// Whether the client was told that the next statement may come, and has sent nothing since.
    is_idle: bool,
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
    let Some(LoggedIn { wire, session, cancel_key, place }) = log_in(socket, address, &shared).await else { return };
    let idle_timeout = shared.catalog().server().idle_timeout;
    let shutdown = shared.shutdown.clone();
    let mut connection = Connection {
        wire,
        session,
        shutdown,
        cancel_key,
        statement: None,
        skip_to_sync: false,
        idle_timeout,
        is_idle: true,
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

/// Returns after this time; never, if there is none.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn idle_error() -> Error {
    Error::new(Code::IdleSessionTimeout, "terminating connection due to idle-session timeout")
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
        let may_rest = !self.is_idle || self.session.transaction_status() != TransactionStatus::Idle;
        let rest = self.idle_timeout.filter(|_| !may_rest);
        let message = tokio::select! {
            message = self.wire.next_message() => message?,
            () = self.shutdown.cancelled() => return Err(Ended::Shutdown),
            () = after(rest) => return Err(Ended::Broken(Broken::Protocol(idle_error()))),
        };
        self.is_idle = false;
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
        self.is_idle = true;
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
