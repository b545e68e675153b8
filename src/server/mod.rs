//! The PostgreSQL protocol: what clients send and what they get.
//!
//! [`Server`] accepts clients and stops them; `connection.rs` is one client, from log-in to its last message;
//! `query.rs` runs its statements and sends what they come to, `extended.rs` does what the extended protocol asks for,
//! `copy_in.rs` takes rows from it; `wire.rs` is its socket, `frame.rs` finds the ends of messages, and `stop.rs` is all
//! that may stop a statement from outside.
//!
//! `http.rs` answers what monitoring asks, with the numbers of `metrics.rs`.
//!
//! Values on the wire: `encode.rs` makes DataRow messages of record batches (`encode_column.rs` prepares one
//! writer a column; `encode_text.rs`, `encode_time.rs`, `float.rs` and `numeric.rs` write single values), `encode_copy.rs`
//! does the same for COPY, and `decode.rs` reads the parameters of Bind (`decode_array.rs`). `encode_style.rs`
//! is for sessions that want values in other styles than the usual ones.

mod connection;
mod copy_in;
pub mod decode;
mod decode_array;
pub mod encode;
mod encode_column;
mod encode_column_time;
pub mod encode_copy;
mod encode_style;
mod encode_text;
mod encode_time;
mod extended;
mod float;
mod frame;
pub mod http;
mod metrics;
mod numeric;
pub mod print;
mod query;
mod stop;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use connection::Shared;

/// Clients that may be connected at once.
const MAX_CONNECTIONS: usize = 1000;
/// How long clients may take to go when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients and serves each in a task of its own.
pub struct Server {
    listener: TcpListener,
    shared: Shared,
}

impl Server {
    /// Listens at `HOST:PORT`; port 0 picks a free one.
    ///
    /// # Errors
    /// 0A000 for an address that others than this machine can reach, 22023 for one that cannot be listened at.
    pub async fn bind(engine: Arc<Engine>, listen: &str) -> Result<Server> {
        let listener = bind_loopback(listen).await?;
        let cancels = Arc::clone(engine.catalog().backends());
        let shared = Shared { engine, cancels, shutdown: CancellationToken::new() };
        Ok(Server { listener, shared })
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> Result<SocketAddr> {
        local_address(&self.listener)
    }

    /// Serves until `stop` is cancelled; then tells the clients and returns when they have gone, or after three seconds.
    pub async fn run(self, stop: CancellationToken) {
        let mut clients = JoinSet::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => self.admit(socket, &places, &mut clients),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = clients.join_next() => log_panic(ended),
                () = stop.cancelled() => break,
            }
        }
        drop(self.listener);
        self.shared.shutdown.cancel();
        let all_gone = async {
            while let Some(ended) = clients.join_next().await {
                log_panic(ended)
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, all_gone).await.is_err() {
            tracing::warn!("clients that did not go were dropped");
        }
    }

    fn admit(&self, socket: TcpStream, places: &Arc<Semaphore>, clients: &mut JoinSet<()>) {
        // Rows are written when they are ready: the system must not hold them back for more.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "client left at once");
            return;
        }
        let shared = self.shared.clone();
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => {
                clients.spawn(async move {
                    connection::serve(socket, shared).await;
                    drop(place);
                });
            }
            Err(_) => {
                tracing::warn!("more than {MAX_CONNECTIONS} clients: one was refused");
                clients.spawn(connection::refuse(
                    socket,
                    Error::new(Code::TooManyConnections, "sorry, too many clients already"),
                ));
            }
        }
    }
}

/// # Errors
/// 0A000 for an address that others than this machine can reach, 22023 for one that cannot be listened at.
async fn bind_loopback(listen: &str) -> Result<TcpListener> {
    let failed =
        |reason: String| Error::new(Code::InvalidParameterValue, format!("cannot listen on \"{listen}\": {reason}"));
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(listen).await.map_err(|error| failed(error.to_string()))?.collect();
    if let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(Error::unsupported(format!("refusing to listen on {address}, which other machines can reach"))
            .with_hint("Users, passwords and TLS are not available yet; until they are, listen on 127.0.0.1 or ::1."));
    }
    TcpListener::bind(addresses.as_slice()).await.map_err(|error| failed(error.to_string()))
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::internal(format!("the socket has no address: {error}")))
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended by a fault of the server");
    }
}
