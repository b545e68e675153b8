//! The body of a request: how large it may be, and how long it may take.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use tokio::time::{Instant, timeout, timeout_at};

use super::http_refusal::Refusal;
use crate::error::{Code, Error};

/// As much as a transaction may hold.
const MAX_BODY_BYTES: u64 = 64 << 20;
/// From one piece to the next.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// From the first piece to the end.
const BODY_TIMEOUT: Duration = Duration::from_secs(300);
/// What a client that was refused may still take to send what it has begun to.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A body that is being read.
pub(super) struct Upload<B> {
    body: B,
    received: u64,
    deadline: Option<Instant>,
    /// Whether the client sends. One that asks first (`Expect: 100-continue`) does once the body is read.
    is_sent: bool,
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    pub(super) fn new(head: &Parts, body: B) -> Self {
        Upload { body, received: 0, deadline: None, is_sent: !head.headers.contains_key(EXPECT) }
    }

    /// Bytes that have come.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// 413 for a body of more than 64 MiB, 408 for one that comes too slowly, 400 for one that breaks off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        // Before anything of it is asked for.
        self.check_size(self.body.size_hint().lower())?;
        self.is_sent = true;
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + BODY_TIMEOUT);
        loop {
            let piece_deadline = Instant::now() + PIECE_TIMEOUT;
            let Ok(frame) = timeout_at(deadline.min(piece_deadline), self.body.frame()).await else {
                let message = match piece_deadline < deadline {
                    true => format!("nothing more of the body came within {} s", PIECE_TIMEOUT.as_secs()),
                    false => format!("the body took longer than {} s", BODY_TIMEOUT.as_secs()),
                };
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, Error::new(Code::QueryCanceled, message)));
            };
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| {
                let error = Error::new(Code::ProtocolViolation, format!("the body cannot be read: {error}"));
                Refusal::new(StatusCode::BAD_REQUEST, error)
            })?;
            // What is no data is a trailer.
            if let Ok(piece) = frame.into_data() {
                self.check_size(piece.len() as u64)?;
                self.received += piece.len() as u64;
                return Ok(Some(piece));
            }
        }
    }

    /// Reads past what a client still sends that was refused meanwhile: it could not read why from a connection that is
    /// closed with unread bytes.
    pub(super) async fn drain(&mut self) {
        if !self.is_sent {
            return;
        }
        let mut left = MAX_BODY_BYTES;
        let rest = async {
            while let Some(Ok(frame)) = self.body.frame().await {
                left = left.saturating_sub(frame.into_data().map_or(0, |piece| piece.len() as u64));
                if left == 0 {
                    return;
                }
            }
        };
        // Who has not got there by then is not waited for.
        let _ = timeout(DRAIN_TIMEOUT, rest).await;
    }

    fn check_size(&self, more: u64) -> Result<(), Refusal> {
        if self.received.saturating_add(more) <= MAX_BODY_BYTES {
            return Ok(());
        }
        let error = Error::new(Code::ProgramLimitExceeded, "the body has more than 64 MiB")
            .with_hint("Send it in several requests, or by COPY.");
        Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;

    use futures::{FutureExt, StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::Request;
    use hyper::body::Frame;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/streams/a");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn piece(bytes: &'static [u8]) -> Result<Frame<Bytes>, Infallible> {
        Ok(Frame::data(Bytes::from_static(bytes)))
    }

    /// A body with a piece each `pause`, without end.
    fn dripping(pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let pieces = stream::repeat(()).then(move |()| async move {
            tokio::time::sleep(pause).await;
            piece(b"x")
        });
        StreamBody::new(Box::pin(pieces))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up() {
        let body = StreamBody::new(stream::iter([piece(b"x")]).chain(stream::pending()));
        let mut upload = Upload::new(&head(&[]), body);
        assert_eq!(upload.next().await.unwrap().as_deref(), Some(b"x".as_slice()));
        let began = Instant::now();
        let refusal = upload.next().await.unwrap_err();
        assert_eq!((refusal.status.as_u16(), began.elapsed()), (408, PIECE_TIMEOUT));
        assert_eq!(refusal.error.message(), "nothing more of the body came within 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up() {
        let mut upload = Upload::new(&head(&[]), dripping(Duration::from_secs(29)));
        let began = Instant::now();
        let refusal = loop {
            if let Err(refusal) = upload.next().await {
                break refusal;
            }
        };
        assert_eq!((refusal.status.as_u16(), began.elapsed()), (408, BODY_TIMEOUT));
        assert_eq!(refusal.error.message(), "the body took longer than 300 s");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_refused_client_still_sends_is_read_for_a_while() {
        let began = Instant::now();
        Upload::new(&head(&[]), dripping(Duration::from_secs(1))).drain().await;
        assert_eq!(began.elapsed(), DRAIN_TIMEOUT);
        // One that waits for our word is not told to send.
        let mut waiting = Upload::new(&head(&[("expect", "100-continue")]), dripping(Duration::from_secs(1)));
        assert!(pin!(waiting.drain()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_body_of_more_than_64_mib_is_refused_before_it_is_read() {
        const MEBIBYTE: &[u8] = &[b'x'; 1 << 20];
        let mut upload = Upload::new(&head(&[]), StreamBody::new(stream::repeat_with(|| piece(MEBIBYTE))));
        for _ in 0..64 {
            assert!(upload.next().await.is_ok());
        }
        assert_eq!((upload.received(), upload.next().await.unwrap_err().status.as_u16()), (64 << 20, 413));
    }
}
