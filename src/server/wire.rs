//! One client's socket: messages in, buffered messages out.

use std::io;

use bytes::BytesMut;
use pgwire::error::PgWireError;
use pgwire::messages::{DecodeContext, Message, PgWireFrontendMessage, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{Code, Error};
use crate::server::frame::take_message;
use crate::session::TransactionStatus;

/// Bytes that are gathered before they are written; rows that are alone are written at once.
pub const FLUSH_BYTES: usize = 64 << 10;
/// Bytes that a client may send ahead while a statement runs; past that it is not read until the statement has ended.
const MAX_READ_AHEAD_BYTES: usize = 1 << 20;

/// Why a connection cannot go on.
#[derive(Debug)]
pub enum Broken {
    /// The client has gone.
    Gone,
    /// The client sends what is no message.
    Protocol(Error),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Broken::Gone
    }
}

impl From<PgWireError> for Broken {
    fn from(error: PgWireError) -> Self {
        match error {
            PgWireError::IoError(_) => Broken::Gone,
            other => Broken::Protocol(Error::new(Code::ProtocolViolation, other.to_string())),
        }
    }
}

/// What a client that has logged in asks for.
pub enum Request {
    Message(PgWireFrontendMessage),
    /// The call of a function by its number.
    FunctionCall,
}

/// What carries messages: a socket, TLS over it, or a pipe in tests.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

pub struct Wire {
    socket: Box<dyn Transport>,
    context: DecodeContext,
    input: BytesMut,
    /// Whole messages that are to be written.
    pub output: BytesMut,
}

impl Wire {
    pub fn new(socket: impl Transport + 'static) -> Self {
        let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        let socket = Box::new(socket);
        Wire { socket, context, input: BytesMut::with_capacity(8 << 10), output: BytesMut::with_capacity(8 << 10) }
    }

    /// From now on messages of a log-in are expected, of a session, or the very first: see [`DecodeContext`].
    pub fn expect(&mut self, awaiting_ssl: bool, awaiting_startup: bool) {
        self.context.awaiting_frontend_ssl = awaiting_ssl;
        self.context.awaiting_frontend_startup = awaiting_startup;
    }

    /// Waits for the next message. Nothing is lost when the future is dropped.
    pub async fn next_message(&mut self) -> Result<PgWireFrontendMessage, Broken> {
        loop {
            if let Some(message) = self.decode()? {
                return Ok(message);
            }
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(Broken::Gone);
            }
        }
    }

    /// Waits for what a client asks for next. Nothing is lost when the future is dropped.
    pub async fn next_request(&mut self) -> Result<Request, Broken> {
        loop {
            // The one message that has no counterpart among the known ones.
            if self.input.first() == Some(&b'F') {
                if take_message(&mut self.input).map_err(Broken::Protocol)?.is_some() {
                    return Ok(Request::FunctionCall);
                }
            } else if let Some(message) = self.decode()? {
                return Ok(Request::Message(message));
            }
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(Broken::Gone);
            }
        }
    }

    fn decode(&mut self) -> Result<Option<PgWireFrontendMessage>, Broken> {
        if self.context.awaiting_frontend_ssl || self.context.awaiting_frontend_startup {
            return Ok(PgWireFrontendMessage::decode(&mut self.input, &self.context)?);
        }
        match take_message(&mut self.input).map_err(Broken::Protocol)? {
            Some(mut message) => Ok(PgWireFrontendMessage::decode(&mut message, &self.context)?),
            None => Ok(None),
        }
    }

    /// Returns when the client has gone. What it sends meanwhile is kept.
    pub async fn until_gone(&mut self) {
        while self.input.len() < MAX_READ_AHEAD_BYTES {
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Appends a message to what is to be written.
    pub fn send(&mut self, message: &impl Message) -> Result<(), Broken> {
        Ok(message.encode(&mut self.output)?)
    }

    /// Writes all that there is. What has been written is gone from the buffer even when the future is dropped.
    pub async fn flush(&mut self) -> Result<(), Broken> {
        while !self.output.is_empty() {
            if self.socket.write_buf(&mut self.output).await? == 0 {
                return Err(Broken::Gone);
            }
        }
        Ok(())
    }

    /// An error or a notice.
    pub fn send_failure(&mut self, severity: &str, error: &Error) -> Result<(), Broken> {
        let fields = failure_fields(severity, error);
        match severity {
            "ERROR" | "FATAL" => self.send(&pgwire::messages::response::ErrorResponse::new(fields)),
            _ => self.send(&pgwire::messages::response::NoticeResponse::new(fields)),
        }
    }

    pub fn send_ready(&mut self, status: TransactionStatus) -> Result<(), Broken> {
        use pgwire::messages::response::{ReadyForQuery, TransactionStatus as Wire};
        self.send(&ReadyForQuery::new(match status {
            TransactionStatus::Idle => Wire::Idle,
            TransactionStatus::Open => Wire::Transaction,
            TransactionStatus::Failed => Wire::Error,
        }))
    }
}

fn failure_fields(severity: &str, error: &Error) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.to_string()),
        (b'V', severity.to_string()),
        (b'C', error.sqlstate().to_string()),
        (b'M', error.message().to_string()),
    ];
    fields.extend(error.detail().map(|detail| (b'D', detail.to_string())));
    fields.extend(error.hint().map(|hint| (b'H', hint.to_string())));
    fields.extend(error.position().map(|position| (b'P', position.to_string())));
    fields
}
