//! HTTP/1: `/metrics`, `/health` and `/ready` for who watches the server, and `/streams/NAME` for who brings rows.
//!
//! Where users are declared, it is one of them who asks (Basic), unless the catalog opens the page.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::Shared;
use super::http_push::{self, Intake};
use super::http_upload::Upload;
use super::metrics::metrics_text;
use super::wire::Transport;
use super::{ACCEPT_PAUSE, Server, bind, local_address, log_panic};
use crate::catalog::Rights;
use crate::error::Result;

/// Connections that may be open at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 100;
/// How long a client may take for the head of a request, and may keep an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers under way may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// Answers requests about one server.
pub struct HttpServer {
    listener: TcpListener,
    site: Site,
}

/// What all connections share.
#[derive(Clone)]
struct Site {
    shared: Shared,
    intake: Arc<Intake>,
}

impl HttpServer {
    /// Listens at `HOST:PORT`; port 0 picks a free one.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn bind(server: &Server, listen: &str) -> Result<HttpServer> {
        let listener = bind(listen, server.shared.catalog()).await?;
        let site = Site { shared: server.shared.clone(), intake: Arc::new(Intake::new(listen)) };
        Ok(HttpServer { listener, site })
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> Result<SocketAddr> {
        local_address(&self.listener)
    }

    /// Answers until `stop` is cancelled, and returns when answers under way have been sent.
    pub async fn run(self, stop: CancellationToken) {
        let mut clients = JoinSet::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (self.listener.accept().await, place)
            };
            tokio::select! {
                (accepted, place) = accepted => match accepted {
                    Ok((socket, address)) => {
                        let (site, stop) = (self.site.clone(), stop.clone());
                        clients.spawn(async move {
                            serve(socket, address.ip(), site, stop).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an HTTP client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = clients.join_next() => log_panic(ended),
                () = stop.cancelled() => break,
            }
        }
        drop(self.listener);
        let all_gone = async {
            while let Some(ended) = clients.join_next().await {
                log_panic(ended)
            }
        };
        // Who does not read its answer is not waited for.
        let _ = tokio::time::timeout(STOP_TIMEOUT, all_gone).await;
    }
}

/// With TLS, if the server has a certificate: then there is nothing without.
async fn serve(socket: TcpStream, address: IpAddr, site: Site, stop: CancellationToken) {
    let Some(tls) = &site.shared.tls else { return serve_requests(socket, address, site, stop).await };
    match tokio::time::timeout(HEAD_TIMEOUT, tls.http.accept(socket)).await {
        Ok(Ok(socket)) => serve_requests(socket, address, site, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, %address, "no TLS"),
        Err(_) => {}
    }
}

async fn serve_requests(socket: impl Transport, address: IpAddr, site: Site, stop: CancellationToken) {
    let service = service_fn(|request: Request<Incoming>| {
        let site = &site;
        async move {
            let (head, body) = request.into_parts();
            let mut upload = Upload::new(&head, body);
            let answer = answer(site, address, &head, &mut upload).await;
            if answer.status() != StatusCode::REQUEST_TIMEOUT && !site.shared.shutdown.is_cancelled() {
                upload.drain().await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// What there is to ask for.
#[derive(Clone, Copy)]
enum Page {
    Metrics,
    Health,
    Ready,
}

impl Page {
    fn at(path: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page::Metrics),
            "/health" => Some(Page::Health),
            "/ready" => Some(Page::Ready),
            _ => None,
        }
    }

    /// Whether nobody has to say who he is.
    fn is_open(self, shared: &Shared) -> bool {
        let server = shared.catalog().server();
        shared.accounts.are_open()
            || match self {
                Page::Metrics => server.open_metrics,
                Page::Health | Page::Ready => server.open_health,
            }
    }
}

async fn answer(site: &Site, address: IpAddr, head: &Parts, upload: &mut Upload<Incoming>) -> Response<Full<Bytes>> {
    let shared = &site.shared;
    let page = Page::at(head.uri.path());
    let open = page.is_some_and(|page| page.is_open(shared)) || shared.accounts.are_open();
    let rights = match visitor(shared, address, &head.headers).await {
        Some(rights) => Some(rights),
        None if open => None,
        None => return unauthorized(),
    };
    if let Some(stream) = http_push::stream_name(head.uri.path()) {
        // It is no page that the catalog could open: nobody has said who he is only where nobody has to.
        let rights = rights.unwrap_or_else(|| Arc::new(Rights::all()));
        return http_push::answer(&site.intake, shared, &rights, &stream, (head, upload)).await;
    }
    let Some(page) = page else { return response(StatusCode::NOT_FOUND, TEXT, "not found\n".into()) };
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "method not allowed\n".into());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match page {
        Page::Metrics => {
            let rights = match (rights, shared.catalog().server().open_metrics) {
                (Some(rights), false) => rights,
                // A page that is open is open whole.
                _ => Arc::new(Rights::all()),
            };
            let text = metrics_text(shared.catalog(), shared.cancels.connections(), &rights);
            response(StatusCode::OK, METRICS_TEXT, text)
        }
        Page::Ready => {
            let everybody = Arc::new(Rights::all());
            readiness(shared, rights.or_else(|| shared.accounts.are_open().then_some(everybody)).as_deref())
        }
        Page::Health => response(StatusCode::OK, TEXT, "ok\n".into()),
    }
}

/// Who asks, as far as he says so and proves it.
async fn visitor(shared: &Shared, address: IpAddr, headers: &HeaderMap) -> Option<Arc<Rights>> {
    if shared.accounts.are_open() {
        return None;
    }
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (user, password) = credentials.split_once(':')?;
    let checked = shared.accounts.check_password(address, user, password.to_string()).await;
    checked.unwrap_or_else(|error| {
        tracing::error!(%error, "a password could not be checked");
        None
    })
}

fn unauthorized() -> Response<Full<Bytes>> {
    let mut refused = response(StatusCode::UNAUTHORIZED, TEXT, "unauthorized\n".into());
    let challenge = HeaderValue::from_static("Basic realm=\"lookaside\", charset=\"UTF-8\"");
    refused.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    refused
}

/// Ready: clients are let in, and the store of each lookup table has been reached at least once. Which has not is told to
/// who may see the table; `None` is somebody who did not say who he is.
fn readiness(shared: &Shared, rights: Option<&Rights>) -> Response<Full<Bytes>> {
    let catalog = shared.catalog();
    let missing = catalog.lookups().filter(|lookup| lookup.connected_table().is_none());
    let missing: Vec<_> = missing.collect();
    let stopping = shared.shutdown.is_cancelled();
    let ready = missing.is_empty() && !stopping;
    let visible =
        missing.iter().filter(|lookup| rights.is_some_and(|rights| rights.may_see(&lookup.definition().name)));
    let visible = visible.map(|lookup| {
        let last_error = lookup.last_error().map(|(_, message)| message);
        serde_json::json!({
            "lookup": lookup.definition().name, "store": lookup.shown_store(), "last_error": last_error,
        })
    });
    let visible: Vec<_> = visible.collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let told = serde_json::json!({ "ready": ready, "stopping": stopping, "not_reached": visible });
    response(status, JSON, format!("{told}\n"))
}

pub(super) fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
