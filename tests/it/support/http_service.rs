//! HTTP services for tests: one that answers as a function says, and one that says whatever bytes it was given.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::certificate::Certificates;

/// A request as the service saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The values of the query, decoded.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
    }
}

/// A percent-encoded text as it was.
pub fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

/// What a service answers.
#[derive(Clone, Debug)]
pub struct Told {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Told {
    pub fn json(body: impl Into<String>) -> Told {
        Told { status: 200, headers: vec![("content-type", "application/json".to_string())], body: body.into() }
    }

    pub fn status(status: u16) -> Told {
        Told { status, headers: vec![], body: String::new() }
    }

    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Told {
        self.headers.push((name, value.into()));
        self
    }

    pub fn with_body(mut self, body: &str) -> Told {
        self.body = body.to_string();
        self
    }
}

type Answering = Arc<dyn Fn(&Asked) -> Told + Send + Sync>;

/// A service that runs while this lives. Its end ends all its connections.
pub struct HttpService {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    _serving: SpawnedTask<()>,
}

impl HttpService {
    pub async fn start(answering: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> HttpService {
        Self::start_at(0, None, answering).await
    }

    /// At this port, with TLS if there are certificates.
    pub async fn start_at(
        port: u16,
        certificates: Option<&Certificates>,
        answering: impl Fn(&Asked) -> Told + Send + Sync + 'static,
    ) -> HttpService {
        let answering: Answering = Arc::new(answering);
        let tls = certificates.map(Certificates::acceptor);
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let log = Arc::clone(&asked);
        let (port, connections, serving) = listen(port, move |socket| {
            let (answering, log, tls) = (Arc::clone(&answering), Arc::clone(&log), tls.clone());
            async move {
                match tls {
                    None => serve(socket, answering, log).await,
                    Some(tls) => {
                        if let Ok(socket) = tls.accept(socket).await {
                            serve(socket, answering, log).await;
                        }
                    }
                }
            }
        })
        .await;
        HttpService { port, asked, connections, _serving: serving }
    }

    /// Each connection is answered with these bytes when a request's head has come, and then closed, or left as it is.
    pub async fn saying(bytes: &'static [u8], closes: bool) -> HttpService {
        let (port, connections, serving) = listen(0, move |mut socket| async move {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                match socket.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let _ = socket.write_all(bytes).await;
            if !closes {
                std::future::pending::<()>().await;
            }
        })
        .await;
        HttpService { port, asked: Arc::default(), connections, _serving: serving }
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// How many connections were ever made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn listen<F: Future<Output = ()> + Send + 'static>(
    port: u16,
    serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> (u16, Arc<AtomicUsize>, SpawnedTask<()>) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let serving = SpawnedTask::spawn(async move {
        let mut clients = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            clients.spawn(serve(socket));
            while clients.try_join_next().is_some() {}
        }
    });
    (port, connections, serving)
}

async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answering: Answering,
    log: Arc<Mutex<Vec<Asked>>>,
) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (answering, log) = (Arc::clone(&answering), Arc::clone(&log));
        async move {
            let headers = request.headers().iter();
            let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_string()));
            let headers = headers.collect();
            let (method, target) = (request.method().to_string(), request.uri().to_string());
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let asked = Asked { method, target, headers, body: String::from_utf8(body.to_vec()).unwrap() };
            log.lock().unwrap().push(asked.clone());
            let told = answering(&asked);
            let mut response = Response::builder().status(told.status);
            for (name, value) in told.headers {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(told.body))).unwrap())
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
}
