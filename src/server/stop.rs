//! What may stop a statement from outside: a cancel request, its time-out, a client that has gone, the end of the
//! connection or of the server.

use std::future::Future;

use pgwire::messages::PgWireFrontendMessage;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Error};
use crate::server::connection::Ended;
use crate::server::wire::{Broken, Wire};

/// What may stop the statement that runs.
pub struct Stop {
    /// Of the connection: the server stops, or an administrator has ended it.
    pub shutdown: CancellationToken,
    pub statement: Option<CancellationToken>,
    /// When its time-out is over.
    pub deadline: Option<Instant>,
}

impl Stop {
    /// Whether the statement is to end.
    ///
    /// # Errors
    /// 57014 if so, and the end of the connection.
    pub fn check(&self) -> Result<(), Ended> {
        if self.shutdown.is_cancelled() {
            return Err(Ended::Shutdown);
        }
        match &self.statement {
            Some(statement) if statement.is_cancelled() => return Err(cancelled_error().into()),
            _ => {}
        }
        match self.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(timeout_error().into()),
            _ => Ok(()),
        }
    }

    /// The client's next message, unless the statement is stopped first.
    pub async fn next_message(&self, wire: &mut Wire) -> Result<PgWireFrontendMessage, Ended> {
        tokio::select! {
            biased;
            ended = self.stopped() => Err(ended),
            message = wire.next_message() => Ok(message?),
        }
    }

    /// Writes what there is, unless the connection ends meanwhile. A cancel waits until the client has read what was
    /// begun, as it must read that before the answer to the cancel.
    pub async fn flush(&self, wire: &mut Wire) -> Result<(), Ended> {
        tokio::select! {
            biased;
            flushed = wire.flush() => Ok(flushed?),
            () = self.shutdown.cancelled() => Err(Ended::Shutdown),
        }
    }

    /// What `work` comes to, unless the statement is stopped first: then it is dropped.
    pub async fn guard<T>(&self, wire: &mut Wire, work: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            biased;
            ended = self.stopped() => Err(ended),
            done = work => Ok(done),
            () = wire.until_gone() => Err(Broken::Gone.into()),
        }
    }

    /// Waits for whatever stops the statement; for ever, if nothing does.
    async fn stopped(&self) -> Ended {
        let cancelled = async {
            match &self.statement {
                Some(statement) => statement.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let timed_out = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Ended::Shutdown,
            () = cancelled => cancelled_error().into(),
            () = timed_out => timeout_error().into(),
        }
    }
}

fn cancelled_error() -> Error {
    Error::new(Code::QueryCanceled, "canceling statement due to user request")
}

fn timeout_error() -> Error {
    Error::new(Code::QueryCanceled, "canceling statement due to statement timeout")
}
