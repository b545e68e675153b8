//! `/metrics`, `/health` and `/ready` over HTTP/1, for who watches the server. Nothing here changes anything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::Shared;
use super::metrics::metrics_text;
use super::{ACCEPT_PAUSE, Server, bind_loopback, local_address, log_panic};
use crate::error::Result;

/// Connections that may be open at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 100;
/// How long a client may take for the head of a request, and may keep an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers under way may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// Answers requests about one server.
pub struct HttpServer {
    listener: TcpListener,
    shared: Shared,
}

impl HttpServer {
    /// Listens at `HOST:PORT`; port 0 picks a free one.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn bind(server: &Server, listen: &str) -> Result<HttpServer> {
        Ok(HttpServer { listener: bind_loopback(listen).await?, shared: server.shared.clone() })
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
                    Ok((socket, _)) => {
                        let (shared, stop) = (self.shared.clone(), stop.clone());
                        clients.spawn(async move {
                            serve(socket, shared, stop).await;
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

async fn serve(socket: TcpStream, shared: Shared, stop: CancellationToken) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&shared, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
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

fn answer(shared: &Shared, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !["/metrics", "/health", "/ready"].contains(&path) {
        return response(StatusCode::NOT_FOUND, TEXT, "not found\n".into());
    }
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "method not allowed\n".into());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => {
            let text = metrics_text(shared.engine.catalog(), shared.cancels.connections());
            response(StatusCode::OK, METRICS_TEXT, text)
        }
        "/ready" => readiness(shared),
        _ => response(StatusCode::OK, TEXT, "ok\n".into()),
    }
}

/// Ready: clients are let in, and the store of each lookup table has been reached at least once.
fn readiness(shared: &Shared) -> Response<Full<Bytes>> {
    let catalog = shared.engine.catalog();
    let missing = catalog.lookups().filter(|lookup| lookup.connected_table().is_none()).map(|lookup| {
        let last_error = lookup.last_error().map(|(_, message)| message);
        serde_json::json!({
            "lookup": lookup.definition().name, "store": lookup.shown_store(), "last_error": last_error,
        })
    });
    let missing: Vec<_> = missing.collect();
    let stopping = shared.shutdown.is_cancelled();
    let ready = missing.is_empty() && !stopping;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let told = serde_json::json!({ "ready": ready, "stopping": stopping, "not_reached": missing });
    response(status, JSON, format!("{told}\n"))
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
