//! COPY FROM STDIN over the protocol.

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
        self.wire.send(&CopyInResponse::new(0, columns as i16, vec![0; columns]))?;
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
                _ => {
                    let error = Error::new(Code::ProtocolViolation, "unexpected message during COPY from stdin");
                    return Err(copy.with_count(error).into());
                }
            }
        }
    }
}
