//! The PostgreSQL protocol: what clients send and what they get.
//!
//! [`Server`] accepts clients and stops them; `login.rs` lets one in (`doorway.rs` bounds how many try at once, `opening.rs` and
//! `sasl.rs` read what they say, `scram.rs` checks what they know, `accounts.rs` has the users, `throttle.rs` slows guesses
//! down, `tls.rs` encrypts), and `connection.rs` is the client from there to its last message;
//! `query.rs` runs its statements and sends what they come to, `extended.rs` does what the extended protocol asks for,
//! `copy_in.rs` takes rows from it; `wire.rs` is its socket, `frame.rs` finds the ends of messages, and `stop.rs` is all
//! that may stop a statement from outside.
//!
//! `http.rs` answers what monitoring asks, with the numbers of `metrics.rs`, and `http_push.rs` takes rows: `http_site.rs`
//! tells programs from foreign pages, `http_upload.rs` reads bodies, `http_refusal.rs` says why not.
//!
//! Values on the wire: `encode.rs` makes DataRow messages of record batches (`encode_column.rs` prepares one
//! writer a column; `encode_text.rs`, `encode_time.rs`, `float.rs` and `numeric.rs` write single values), `encode_copy.rs`
//! does the same for COPY, and `decode.rs` reads the parameters of Bind (`decode_array.rs`). `encode_style.rs`
//! is for sessions that want values in other styles than the usual ones.

mod accounts;
mod connection;
mod copy_in;
mod copy_lines;
pub mod decode;
mod decode_array;
mod doorway;
pub mod encode;
mod encode_column;
mod encode_column_time;
pub mod encode_copy;
mod encode_rows;
mod encode_short;
mod encode_slot;
mod encode_style;
mod encode_text;
mod encode_time;
mod extended;
mod float;
mod frame;
pub mod http;
mod http_push;
mod http_refusal;
mod http_site;
mod http_upload;
mod listen;
mod login;
mod metrics;
mod numeric;
mod opening;
pub mod print;
mod query;
mod sasl;
mod scram;
mod stop;
mod throttle;
pub mod tls;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::{Error, Result};
use accounts::Accounts;
use connection::Shared;
use listen::{bind, keep_alive};
use tls::Tls;

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
    /// 22023 for an address that cannot be listened at, for one that others than this machine can reach while nothing
    /// protects the server, and for files of TLS that cannot be used.
    pub async fn bind(engine: Arc<Engine>, listen: &str) -> Result<Server> {
        let definition = engine.catalog().server();
        let listener = bind(listen, engine.catalog()).await?;
        let tls = definition.tls.as_ref().map(Tls::try_new).transpose()?;
        let accounts = Arc::new(Accounts::new(engine.catalog()));
        let places = Arc::new(Semaphore::new(definition.max_connections.get().min(Semaphore::MAX_PERMITS)));
        let shutdown = CancellationToken::new();
        let cancels = Arc::clone(engine.catalog().backends());
        let shared = Shared { engine, cancels, accounts, tls, doorway: Arc::default(), places, shutdown };
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
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, address)) => self.admit(socket, address, &mut clients),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a client");
                        self.shared.doorway.make_room();
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

    fn admit(&self, socket: TcpStream, address: SocketAddr, clients: &mut JoinSet<()>) {
        // Rows are written when they are ready: the system must not hold them back for more.
        if let Err(error) = socket.set_nodelay(true).and_then(|()| keep_alive(&socket)) {
            tracing::debug!(%error, "client left at once");
            return;
        }
        clients.spawn(connection::serve(socket, address.ip(), self.shared.clone()));
    }
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
