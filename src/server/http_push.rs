//! `POST /streams/NAME`: the body's rows go into a push stream, all of them or none, before the answer is sent.

use std::time::Duration;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::connection::Shared;
use super::http::{JSON, response};
use super::http_refusal::Refusal;
use super::http_site::{check_host, check_origin, host_of};
use super::http_upload::Upload;
use crate::catalog::Rights;
use crate::error::{Code, Error, Result};
use crate::format::lines::{LineDecoder, LineFormat, MalformedRow, Step};
use crate::source::Source;
use crate::source::push::PushStream;

/// Requests that bring rows may be under way at once; they leave connections to who watches the server.
const MAX_REQUESTS: usize = 64;
/// Requests that hold more than [`SMALL_BYTES`], of body or of rows, at once; others wait, and their bodies are not read.
const MAX_LARGE_REQUESTS: usize = 2;
const SMALL_BYTES: u64 = 4 << 20;
/// How long a request may wait to become a large one.
const LARGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The rows of one request in memory, which may be larger than its body.
const MAX_ROWS_BYTES: u64 = 256 << 20;

const CONTENT_TYPES: &str = "application/x-ndjson, application/jsonl, application/json, text/csv";

/// What all requests that bring rows share.
#[derive(Debug)]
pub(super) struct Intake {
    /// Where we listen, as it was written.
    listen_host: String,
    requests: Semaphore,
    large_requests: Semaphore,
}

impl Intake {
    pub(super) fn new(listen: &str) -> Self {
        Intake {
            listen_host: host_of(listen).to_string(),
            requests: Semaphore::new(MAX_REQUESTS),
            large_requests: Semaphore::new(MAX_LARGE_REQUESTS),
        }
    }

    async fn large_request(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        match timeout(LARGE_TIMEOUT, self.large_requests.acquire()).await {
            Ok(place) => Ok(place.map_err(|_| Error::internal("there are no places for large requests"))?),
            Err(_) => Err(busy()),
        }
    }
}

/// The stream that a path names.
pub(super) fn stream_name(path: &str) -> Option<String> {
    let name = path.strip_prefix("/streams/").filter(|name| !name.is_empty() && !name.contains('/'))?;
    percent_decode_str(name).decode_utf8().ok().map(Into::into)
}

/// Takes the rows of a request from somebody with these rights.
pub(super) async fn answer(
    intake: &Intake,
    shared: &Shared,
    rights: &Rights,
    stream: &str,
    request: (&Parts, &mut Upload<Incoming>),
) -> Response<Full<Bytes>> {
    let taken = tokio::select! {
        biased;
        taken = take(intake, shared, rights, stream, request) => taken,
        () = shared.shutdown.cancelled() => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Error::new(Code::AdminShutdown, "terminating connection due to administrator command"),
        )),
    };
    match taken {
        Ok(rows) => response(StatusCode::OK, JSON, format!("{{\"rows\":{rows}}}\n")),
        Err(refusal) => refusal.into_response(),
    }
}

/// Everything that can be refused without the body is looked at before it.
async fn take(
    intake: &Intake,
    shared: &Shared,
    rights: &Rights,
    stream: &str,
    (head, upload): (&Parts, &mut Upload<Incoming>),
) -> Result<u64, Refusal> {
    if shared.accounts.are_open() {
        check_host(head, &intake.listen_host)?;
    }
    check_origin(head)?;
    if head.method != Method::POST {
        let error = Error::unsupported(format!("streams take no {}", head.method)).with_hint("POST rows to them.");
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error).with_header(ALLOW, "POST"));
    }
    let stream = shared.catalog().push_stream_named(stream, rights)?;
    let format = line_format(&head.headers, &stream.schema())?;
    check_encoding(&head.headers)?;
    let _place = intake.requests.try_acquire().map_err(|_| busy())?;
    let mut rows = Rows::try_new(&stream, &format)?;
    let mut large = None;
    while let Some(piece) = upload.next().await? {
        rows.push(&piece)?;
        if large.is_none() && upload.received().max(rows.bytes) > SMALL_BYTES {
            large = Some(intake.large_request().await?);
        }
    }
    match rows.finish()? {
        // Who goes away while readers are waited for drops this, and then no row is in the stream.
        Some(batch) => Ok(stream.append(batch).await?),
        None => Ok(0),
    }
}

fn busy() -> Refusal {
    let error = Error::new(Code::TooManyConnections, "too many requests bring rows at once").with_hint("Try again.");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error).with_header(RETRY_AFTER, "1")
}

/// What the body says it is.
fn line_format(headers: &HeaderMap, schema: &SchemaRef) -> Result<LineFormat, Refusal> {
    let refuse = |message: String| {
        let error = Error::unsupported(message).with_hint(
            "Send application/x-ndjson (or application/jsonl, application/json), one JSON object a line, or text/csv with a header line.",
        );
        Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error).with_header(ACCEPT, CONTENT_TYPES))
    };
    let mut declared = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (declared.next(), declared.next()) else {
        return refuse("the request does not declare one content type".to_string());
    };
    let content_type = String::from_utf8_lossy(content_type.as_bytes());
    let mut parts = content_type.split(';').map(str::trim);
    let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        // Who sends one object, or lines of them, often calls it JSON.
        "application/x-ndjson" | "application/jsonl" | "application/json" => LineFormat::json(schema),
        "text/csv" => LineFormat::Csv,
        other => return refuse(format!("content type \"{other}\" is not accepted")),
    };
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim_matches('"').to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "charset" if value != "utf-8" && value != "utf8" => {
                return refuse(format!("charset \"{value}\" is not accepted"));
            }
            "header" if value != "present" => return refuse("csv without a header line is not accepted".to_string()),
            _ => {}
        }
    }
    Ok(format)
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .find(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        Some(encoding) => {
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            let error = Error::unsupported(format!("content encoding \"{encoding}\" is not accepted"))
                .with_hint("Send the body as it is.");
            let refused = Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error);
            Err(refused.with_header(ACCEPT_ENCODING, "identity"))
        }
        None => Ok(()),
    }
}

/// The rows of a body as far as it has come; nobody sees them before all are there.
struct Rows<'a> {
    stream: &'a PushStream,
    decoder: LineDecoder,
    batches: Vec<RecordBatch>,
    /// Of the batches.
    bytes: u64,
}

impl<'a> Rows<'a> {
    fn try_new(stream: &'a PushStream, format: &LineFormat) -> Result<Self> {
        let decoder = LineDecoder::try_new(&stream.schema(), format)?;
        Ok(Rows { stream, decoder, batches: vec![], bytes: 0 })
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.decoder.push(piece);
        self.read()
    }

    /// All rows as one batch; `None` where there are none.
    fn finish(mut self) -> Result<Option<RecordBatch>, Refusal> {
        self.decoder.finish();
        self.read()?;
        self.take()?;
        match self.batches.is_empty() {
            true => Ok(None),
            false => Ok(Some(concat_batches(&self.stream.schema(), &self.batches).map_err(Error::from)?)),
        }
    }

    fn read(&mut self) -> Result<(), Refusal> {
        loop {
            match self.decoder.read() {
                Ok(Step::NeedsInput) => return Ok(()),
                Ok(Step::Full) => self.take()?,
                Ok(Step::Malformed(row)) => return Err(self.malformed(row)),
                Err(error) => {
                    let error = error.with_context(format_args!("rows for stream \"{}\"", self.stream.name()));
                    return Err(refuse_body(error, self.decoder.line()));
                }
            }
        }
    }

    fn malformed(&self, row: MalformedRow) -> Refusal {
        let line = row.line;
        refuse_body(row.into_error(self.stream.name()), line)
    }

    fn take(&mut self) -> Result<(), Refusal> {
        let Some(batch) = self.decoder.take()? else { return Ok(()) };
        self.bytes += batch.get_array_memory_size() as u64;
        self.batches.push(batch);
        if self.bytes <= MAX_ROWS_BYTES {
            return Ok(());
        }
        let error = Error::new(Code::ProgramLimitExceeded, "the rows of the body take more than 256 MiB of memory")
            .with_hint("Send them in several requests, or by COPY.");
        Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error))
    }
}

fn refuse_body(error: Error, line: u64) -> Refusal {
    let error = error.with_detail("None of the request's rows was taken.");
    Refusal::new(StatusCode::BAD_REQUEST, error).with_line(line)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn few_requests_are_large_at_once() {
        let intake = Intake::new("127.0.0.1:0");
        let first = intake.large_request().await.unwrap();
        let _second = intake.large_request().await.unwrap();
        let began = Instant::now();
        let refusal = intake.large_request().await.unwrap_err();
        assert_eq!((refusal.status.as_u16(), began.elapsed()), (503, LARGE_TIMEOUT));
        assert_eq!(refusal.error.message(), "too many requests bring rows at once");
        drop(first);
        assert!(intake.large_request().await.is_ok());
    }

    #[test]
    fn a_path_names_one_stream() {
        let name = |path: &str| stream_name(path);
        assert_eq!(name("/streams/a%20%C3%A9%2Fb").as_deref(), Some("a é/b"));
        for path in ["/streams", "/streams/", "/streams/a/", "/streams/a/b", "/streams/%ff", "/stream/a", "streams/a"] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
