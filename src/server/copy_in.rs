//! COPY FROM STDIN over the protocol.

use bytes::BytesMut;
use pgwire::messages::PgWireFrontendMessage;
use pgwire::messages::copy::CopyInResponse;
use pgwire::messages::response::CommandComplete;

use crate::error::{Code, Error};
use crate::server::connection::{Connection, Ended};
use crate::session::CopyIn;

impl Connection {
    /// Reads rows until the client says that there are no more.
    pub(super) async fn copy_in(&mut self, mut copy: CopyIn) -> Result<(), Ended> {
        let columns = copy.columns();
        let format = i8::from(copy.is_binary());
        self.wire.send(&CopyInResponse::new(format, columns as i16, vec![format.into(); columns]))?;
        self.flush().await?;
        loop {
            let (wire, session, stop) = self.parts();
            match stop.next_message(wire).await? {
                PgWireFrontendMessage::CopyData(data) => {
                    stop.guard(wire, copy.take(session, &data.data)).await??;
                }
                PgWireFrontendMessage::CopyDone(_) => {
                    let rows = stop.guard(wire, copy.finish(session)).await??;
                    return Ok(self.wire.send(&CommandComplete::new(format!("COPY {rows}")))?);
                }
                PgWireFrontendMessage::CopyFail(fail) => {
                    let error = Error::new(Code::QueryCanceled, format!("COPY from stdin failed: {}", fail.message));
                    return Err(copy.with_count(error).into());
                }
                // Clients of the extended protocol send these behind Execute before they know of the COPY.
                PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Sync(_) => {}
                other => {
                    let message = match letter(&other) {
                        Some(letter) => format!("unexpected message type 0x{letter:02X} during COPY from stdin"),
                        None => "unexpected message during COPY from stdin".to_string(),
                    };
                    return Err(copy.with_count(Error::new(Code::ProtocolViolation, message)).into());
                }
            }
        }
    }
}

/// What a message begins with.
fn letter(message: &PgWireFrontendMessage) -> Option<u8> {
    let mut encoded = BytesMut::new();
    message.encode(&mut encoded).ok()?;
    encoded.first().copied()
}
