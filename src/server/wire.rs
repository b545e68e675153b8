//! One client's socket: messages in, buffered messages out.

use std::io;

use bytes::BytesMut;
use pgwire::error::PgWireError;
use pgwire::messages::{DecodeContext, Message, PgWireFrontendMessage, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{Code, Error};
use crate::server::frame::{MAX_MESSAGE_BYTES, MESSAGE_HEAD_BYTES, take_message};
use crate::server::opening::{MAX_OPENING_BYTES, Opening, take_opening};
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

/// What carries messages: a socket, TLS over it, or a pipe in tests.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

pub struct Wire {
    socket: Box<dyn Transport>,
    context: DecodeContext,
    max_message_bytes: usize,
    input: BytesMut,
    /// Whole messages that are to be written.
    pub output: BytesMut,
}

impl Wire {
    pub fn new(socket: impl Transport + 'static) -> Self {
        let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        // What comes before a message with a letter is read by `next_opening`.
        (context.awaiting_frontend_ssl, context.awaiting_frontend_startup) = (false, false);
        let (input, output) = (BytesMut::with_capacity(8 << 10), BytesMut::with_capacity(8 << 10));
        Wire { socket: Box::new(socket), context, max_message_bytes: MAX_OPENING_BYTES, input, output }
    }

    /// The client has logged in: its messages may be as long as PostgreSQL's.
    pub fn allow_long_messages(&mut self) {
        self.max_message_bytes = MAX_MESSAGE_BYTES;
    }

    /// The socket itself, to be used another way; what is left is good for nothing.
    ///
    /// # Errors
    /// 08P01 if there is input already: it was sent before it could be encrypted, perhaps by somebody in between who wants
    /// it to be taken for the client's (CVE-2021-23222).
    pub fn take_socket(&mut self) -> Result<Box<dyn Transport>, Broken> {
        if !self.input.is_empty() {
            let error = Error::new(Code::ProtocolViolation, "received unencrypted data after SSL request").with_detail(
                "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
            );
            return Err(Broken::Protocol(error));
        }
        Ok(std::mem::replace(&mut self.socket, Box::new(tokio::io::empty())))
    }

    /// Waits for the first message of a connection, or what comes before that.
    pub async fn next_opening(&mut self) -> Result<Opening, Broken> {
        loop {
            if let Some(opening) = take_opening(&mut self.input).map_err(Broken::Protocol)? {
                return Ok(opening);
            }
            self.read().await?;
        }
    }

    /// The body of the next message, which has to be one of a log-in.
    pub async fn next_password(&mut self) -> Result<BytesMut, Broken> {
        loop {
            if let Some(mut message) = self.take_message()? {
                let letter = message[0];
                if letter != b'p' {
                    let message = format!("expected SASL response, got message type {letter}");
                    return Err(Broken::Protocol(Error::new(Code::ProtocolViolation, message)));
                }
                return Ok(message.split_off(MESSAGE_HEAD_BYTES));
            }
            self.read().await?;
        }
    }

    /// Waits for the next message. Nothing is lost when the future is dropped.
    pub async fn next_message(&mut self) -> Result<PgWireFrontendMessage, Broken> {
        loop {
            if let Some(message) = self.decode()? {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), Broken> {
        match self.socket.read_buf(&mut self.input).await? {
            0 => Err(Broken::Gone),
            _ => Ok(()),
        }
    }

    fn decode(&mut self) -> Result<Option<PgWireFrontendMessage>, Broken> {
        match self.take_message()? {
            Some(mut message) => Ok(PgWireFrontendMessage::decode(&mut message, &self.context)?),
            None => Ok(None),
        }
    }

    fn take_message(&mut self) -> Result<Option<BytesMut>, Broken> {
        take_message(&mut self.input, self.max_message_bytes).map_err(Broken::Protocol)
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

    /// As [`Wire::flush`], and then the end: no message is behind this one.
    pub async fn finish(&mut self) -> Result<(), Broken> {
        self.flush().await?;
        Ok(self.socket.shutdown().await?)
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
