//! Requests to an HTTP service and what becomes of them: redirects, statuses, time-outs, answers of bounded size.

use std::error::Error as _;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::StoreError;
use super::http_hosts::{AllowedHosts, GuardedResolver, Lookup, Refused, SystemLookup, shown_host};
use super::postgres_tls::client_tls;
use crate::error::{Error, Result};
use crate::format::text::excerpt;
use crate::quantity::show_duration;

const MAX_REDIRECTS: usize = 5;
/// How much of an error's text is read; less is shown.
const ERROR_BYTES: usize = 1000;

/// An HTTP service and how to use it.
#[derive(Clone, PartialEq)]
pub struct HttpConfig {
    /// What all requests begin with: scheme, host, and perhaps the beginning of a path.
    pub url: Url,
    pub allow_hosts: AllowedHosts,
    /// Sent to the url's own scheme, host and port alone.
    pub headers: HeaderMap,
    /// From when a request is sent to the end of its answer.
    pub request_timeout: Duration,
    /// Requests at once, of all tables together.
    pub max_connections: NonZeroUsize,
    /// Certificates to trust instead of the system's.
    pub sslrootcert: Option<PathBuf>,
}

/// Without headers and path, which may be secret.
impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig").field("host", &shown_host(&self.url)).finish_non_exhaustive()
    }
}

/// A service that need not have been reached.
pub struct HttpConnection {
    name: String,
    config: HttpConfig,
    client: Client,
    places: Semaphore,
    /// Until when the service wants to be left alone.
    rest_until: Mutex<Option<Instant>>,
}

/// What is sent.
pub(crate) struct HttpMessage {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// JSON.
    pub(crate) body: Option<Bytes>,
    /// Whether a message may quote what the service says of a failure, which may repeat the url.
    pub(crate) may_quote: bool,
}

/// An answer of a status that is no failure.
#[derive(Debug)]
pub(crate) enum HttpAnswer {
    Json(String),
    /// 204: there is nothing to say.
    Nothing,
    /// 404 and 410.
    NotFound,
}

/// Why there is no answer. Texts follow what names the request: `answered 500 Internal Server Error`.
#[derive(Debug)]
pub(crate) enum Failure {
    Unavailable(String),
    Failed(String),
    /// The service finds fault with what was asked.
    AboutKeys(String),
    TooLarge,
}

impl Failure {
    /// `request` names what was asked.
    pub(super) fn into_error(self, request: &str, max_answer_bytes: u64) -> StoreError {
        match self {
            Failure::Unavailable(text) => StoreError::Unavailable { message: format!("{request} {text}") },
            Failure::Failed(text) => StoreError::Failed { message: format!("{request} {text}"), sqlstate: None },
            Failure::AboutKeys(text) => StoreError::KeyRefused { message: format!("{request} {text}") },
            Failure::TooLarge => StoreError::TooLarge { max_answer_bytes },
        }
    }
}

/// Bytes that the answers to one request may still have; several are read at once.
pub(crate) struct BodyRoom(AtomicU64);

impl BodyRoom {
    pub(crate) fn new(max_answer_bytes: u64) -> BodyRoom {
        BodyRoom(AtomicU64::new(max_answer_bytes))
    }

    fn take(&self, bytes: usize) -> Result<(), Failure> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes as u64));
        taken.map(|_| ()).map_err(|_| Failure::TooLarge)
    }
}

impl HttpConnection {
    /// # Errors
    /// 22023 for certificates that cannot be read.
    pub fn try_new(name: String, config: HttpConfig) -> Result<Arc<Self>> {
        Self::with_lookup(name, config, Arc::new(SystemLookup))
    }

    /// As [`HttpConnection::try_new`]; names are looked up by `lookup`.
    ///
    /// # Errors
    /// The same.
    pub fn with_lookup(name: String, config: HttpConfig, lookup: Arc<dyn Lookup>) -> Result<Arc<Self>> {
        let resolver = GuardedResolver { hosts: Arc::new(config.allow_hosts.clone()), lookup };
        let mut builder = Client::builder()
            .dns_resolver(Arc::new(resolver))
            // Followed by ourselves, each with a look at where it leads.
            .redirect(Policy::none())
            // What is set in the environment would go around the allowed hosts.
            .no_proxy()
            .http1_only()
            .referer(false)
            .connect_timeout(config.request_timeout)
            .pool_max_idle_per_host(config.max_connections.get());
        if config.url.scheme() == "https" || config.sslrootcert.is_some() {
            builder = builder.use_preconfigured_tls(client_tls(config.sslrootcert.as_deref())?);
        }
        let client = builder.build().map_err(|error| Error::internal(format!("no HTTP client: {error}")))?;
        let places = Semaphore::new(config.max_connections.get());
        Ok(Arc::new(HttpConnection { name, config, client, places, rest_until: Mutex::default() }))
    }

    /// The connection's url with `target`, a path and perhaps a query, behind it.
    ///
    /// # Errors
    /// Internal if the target would mean another path than it says.
    pub(crate) fn url_of(&self, target: &str) -> Result<Url> {
        url_with(&self.config.url, target)
            .ok_or_else(|| Error::internal("a target of HTTP means another path than it says"))
    }

    /// Sends a request when there is a place for it and the service does not rest, and reads the answer.
    pub(crate) async fn send(&self, message: &HttpMessage, room: &BodyRoom) -> Result<HttpAnswer, Failure> {
        self.rest().await?;
        let place = self.places.acquire().await;
        let _place = place.map_err(|_| Failure::Unavailable("was not sent: the connection is closed".to_string()))?;
        // While this waited for its place another may have been told to rest.
        self.rest().await?;
        let limit = self.config.request_timeout;
        let answer = tokio::time::timeout(limit, async {
            let response = self.ask(message).await?;
            self.read(response, message.may_quote, room).await
        })
        .await;
        answer.unwrap_or_else(|_| {
            let limit = show_duration(limit);
            Err(Failure::Unavailable(format!("was not answered within request_timeout ({limit})")))
        })
    }

    /// Waits as long as the service has asked for; not longer than one request may take.
    async fn rest(&self) -> Result<(), Failure> {
        let until = *self.rest_until.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = until.filter(|until| *until > Instant::now()) else { return Ok(()) };
        let left = until - Instant::now();
        if left > self.config.request_timeout {
            let seconds = left.as_secs_f64().ceil();
            return Err(Failure::Unavailable(format!(
                "was not sent: the service asks to be left alone for another {seconds} s"
            )));
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }

    /// Sends the request and follows redirects.
    async fn ask(&self, message: &HttpMessage) -> Result<Response, Failure> {
        let mut url = message.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let allowed = self.config.allow_hosts.check(&url);
            allowed.map_err(|reason| Failure::Failed(format!("leads to \"{}\", which {reason}", shown_host(&url))))?;
            let response = self.send_to(&url, message).await?;
            let status = response.status();
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            if message.method != Method::GET && !matches!(status.as_u16(), 307 | 308) {
                let text = format!("answered {status}, which would make a GET of it");
                return Err(Failure::Failed(text));
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| Failure::Failed(format!("answered {status} without a location to go to")))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Failure::Failed(format!("answered {status}, which leads from https to {}", next.scheme())));
            }
            if !next.username().is_empty() || next.password().is_some() {
                return Err(Failure::Failed(format!("answered {status}, which leads to a url with a user")));
            }
            url = next;
        }
        Err(Failure::Failed(format!("was redirected more than {MAX_REDIRECTS} times")))
    }

    async fn send_to(&self, url: &Url, message: &HttpMessage) -> Result<Response, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("lookaside/", env!("CARGO_PKG_VERSION"))));
        if url.origin() == self.config.url.origin() {
            headers.extend(self.config.headers.clone());
        }
        if message.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut request = self.client.request(message.method.clone(), url.clone()).headers(headers);
        if let Some(body) = &message.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(|error| failure_of(&error, "could not be sent"))
    }

    async fn read(&self, response: Response, may_quote: bool, room: &BodyRoom) -> Result<HttpAnswer, Failure> {
        let status = response.status();
        match status.as_u16() {
            204 | 205 => return Ok(HttpAnswer::Nothing),
            200..=299 => {}
            _ => return self.read_failure(response, may_quote).await,
        }
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(Failure::Failed(format!("answered {status} in a content encoding, which was not asked for")));
        }
        let mut response = response;
        let mut body = Vec::new();
        while let Some(chunk) = next_chunk(&mut response).await? {
            room.take(chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(body);
        text.map(HttpAnswer::Json).map_err(|_| Failure::Failed(format!("answered {status} with what is not UTF-8")))
    }

    /// What becomes of a status that is no success.
    async fn read_failure(&self, response: Response, may_quote: bool) -> Result<HttpAnswer, Failure> {
        let status = response.status();
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(HttpAnswer::NotFound);
        }
        let mut rest = String::new();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            && let Some(wait) = response.headers().get(RETRY_AFTER).and_then(retry_after)
        {
            let until = Instant::now().checked_add(wait);
            let mut rest_until = self.rest_until.lock().unwrap_or_else(PoisonError::into_inner);
            *rest_until = (*rest_until).max(until);
            rest = format!(" and asks to be left alone for {} s", wait.as_secs());
        }
        let said = if may_quote { self.error_text(response).await } else { String::new() };
        let text = format!("answered {status}{rest}{said}");
        Err(match status.as_u16() {
            408 | 425 | 429 | 500..=599 => Failure::Unavailable(text),
            400 | 422 => Failure::AboutKeys(text),
            _ => Failure::Failed(text),
        })
    }

    /// `: ` and what the service says of its failure, on one line, without our secrets; empty if it says nothing.
    async fn error_text(&self, mut response: Response) -> String {
        let mut bytes = Vec::new();
        // An error's text that breaks off is as good as a whole one.
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= ERROR_BYTES {
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
        let text = text.collect::<Vec<_>>().join(" ");
        // What a service repeats of its request may be a secret.
        if text.is_empty() || self.secrets().any(|secret| text.contains(secret)) {
            return String::new();
        }
        format!(": {}", excerpt(&text))
    }

    /// What no message may show: words of headers, and of the path that all requests begin with.
    fn secrets(&self) -> impl Iterator<Item = &str> {
        let headers = self.config.headers.values().filter_map(|value| value.to_str().ok());
        let words = headers.flat_map(str::split_whitespace).filter(|word| word.len() > 3);
        words.chain(self.config.url.path_segments().into_iter().flatten().filter(|word| word.len() > 7))
    }
}

async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>, Failure> {
    response.chunk().await.map_err(|error| failure_of(&error, "was answered in part"))
}

/// `target` behind the path of `base`; `None` if a url cannot hold it as it is.
pub fn url_with(base: &Url, target: &str) -> Option<Url> {
    let path = format!("{}{target}", base.path().trim_end_matches('/'));
    let url: Url = format!("{}{path}", base.origin().ascii_serialization()).parse().ok()?;
    (url.fragment().is_none() && url[url::Position::BeforePath..] == path).then_some(url)
}

/// An error of the connection or of TLS, told by its innermost cause and without the url.
fn failure_of(error: &reqwest::Error, what: &str) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return Failure::Failed(format!("{what}: {refused}"));
        }
    }
    let cause = match error.source() {
        Some(_) => cause.to_string(),
        None => "the connection failed".to_string(),
    };
    Failure::Unavailable(format!("{what}: {cause}"))
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    (date.with_timezone(&Utc) - Utc::now()).to_std().ok()
}

impl fmt::Display for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.config.url.origin().ascii_serialization())
    }
}

impl fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnection").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_and_seconds_say_how_long_to_wait() {
        let wait = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        let date = (Utc::now() + chrono::Duration::seconds(100)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        assert!((90..=100).contains(&wait(&date).unwrap().as_secs()), "{date}");
        for text in ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-1"] {
            assert_eq!(wait(text), None, "{text}");
        }
    }

    #[test]
    fn a_target_stands_behind_the_path_of_the_url_as_it_is() {
        let base: Url = "https://a.example/api/".parse().unwrap();
        assert_eq!(url_with(&base, "/v1?x=%2F").unwrap().as_str(), "https://a.example/api/v1?x=%2F");
        for target in ["/..", "/%2e%2E/x", "/a b", "/a\\b", "/ä", "/x#y"] {
            assert_eq!(url_with(&base, target), None, "{target}");
        }
    }
}
