//! Connections to one MariaDB or MySQL: a bounded pool, one request a connection, TLS, and errors without secrets.
//!
//! The pool is our own and not the driver's: a connection whose request was given up is killed at the server and closed,
//! never drained, and keeps its place until then.

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Opts, OptsBuilder, Params, Row, SslOpts, Value};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::StoreError;
use super::mysql_error::{Meaning, describe};
use super::postgres_tls::{SslMode, trusted_certificates};
use crate::error::Result;

/// How long a connection may take to be there, handshakes included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long killing a connection may take before it is closed without that.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Rows handed over at once while an answer comes in, and their bytes: the reader may want no more.
const ROWS_PER_CHUNK: usize = 1024;
const BYTES_PER_CHUNK: usize = 256 << 10;
/// Statements that a connection keeps prepared; past that it forgets those used longest ago.
const PREPARED_STATEMENTS: usize = 128;

/// What a session must not inherit from the server's configuration, since it changes what statements mean or give.
const SESSION: &str = "SET NAMES utf8mb4 COLLATE utf8mb4_bin, sql_mode = '', time_zone = '+00:00', autocommit = 1, \
    sql_select_limit = 18446744073709551615, sql_big_selects = 1, sql_auto_is_null = 0, net_write_timeout = 600";
const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY";

/// A `[connection.X]` of type mysql, whole and checked.
#[derive(Clone, PartialEq, Eq)]
pub struct MysqlConfig {
    /// A name, an address, or the path of a socket.
    pub host: String,
    pub port: u16,
    /// Where tables are whose names have no database.
    pub database: Option<String>,
    pub user: String,
    pub password: Option<String>,
    pub sslmode: SslMode,
    /// The certificates (PEM) to trust instead of the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Connections at once.
    pub max_connections: NonZeroUsize,
}

impl MysqlConfig {
    fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    fn target(&self) -> String {
        if self.is_socket() { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    fn opts(&self) -> Result<Opts> {
        let builder = OptsBuilder::default()
            .user(Some(&self.user))
            .pass(self.password.as_ref())
            .db_name(self.database.as_ref())
            // Else the driver would leave TCP, and with it TLS, for a socket that the server names.
            .prefer_socket(Some(false))
            .tcp_keepalive(Some(KEEPALIVE))
            .stmt_cache_size(PREPARED_STATEMENTS)
            .connect_attribute("program_name", "lookaside")
            // The last one is run first.
            .setup(vec![READ_ONLY, SESSION]);
        let builder = match self.is_socket() {
            true => builder.socket(Some(&self.host)),
            false => builder.ip_or_hostname(&self.host).tcp_port(self.port),
        };
        let builder = match self.sslmode {
            SslMode::Disable => builder,
            SslMode::VerifyFull => {
                let certificates = trusted_certificates(self.sslrootcert.as_deref())?.into_iter();
                let certificates = certificates.map(|certificate| certificate.to_vec().into());
                builder.ssl_opts(
                    SslOpts::default().with_root_certs(certificates.collect()).with_disable_built_in_roots(true),
                )
            }
        };
        Ok(builder.into())
    }
}

impl fmt::Debug for MysqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlConfig")
            .field("target", &self.target())
            .field("database", &self.database)
            .field("user", &self.user)
            .field("sslmode", &self.sslmode)
            .field("sslrootcert", &self.sslrootcert)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// A pool of connections that all lookup tables of a `[connection.X]` share. Nothing connects before it is asked.
pub struct MysqlConnection {
    name: String,
    target: String,
    opts: Opts,
    /// One for each connection that there may be.
    places: Arc<Semaphore>,
    /// Those that carry no request; the one used last is taken first.
    idle: Mutex<Vec<Conn>>,
    tasks: TaskTracker,
}

impl MysqlConnection {
    /// `name` is the catalog's.
    ///
    /// # Errors
    /// 22023 if no certificate to trust can be read.
    pub fn try_new(name: String, config: &MysqlConfig) -> Result<Arc<Self>> {
        let opts = config.opts().map_err(|error| error.with_context(format!("connection \"{name}\"")))?;
        Ok(Arc::new(MysqlConnection {
            name,
            target: config.target(),
            opts,
            places: Arc::new(Semaphore::new(config.max_connections.get())),
            idle: Mutex::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Runs one statement, prepared once a connection, and hands its rows to `sink` as they come.
    ///
    /// Dropping the future ends the statement at the server.
    pub(super) async fn query(
        self: &Arc<Self>,
        statement: &str,
        parameters: Vec<Value>,
        sink: &mut impl RowSink,
    ) -> Result<(), StoreError> {
        let request = self.take().await?;
        let reused = request.reused;
        match request.run(statement, parameters.clone(), sink).await {
            Ok(()) => return Ok(()),
            Err(Failure::Store(error)) => return Err(error),
            // The server went away while the connection lay idle. What else lies idle is as old: begin afresh, once.
            Err(Failure::ConnectionLost { rows_came: false, .. }) if reused => self.forget_idle(),
            Err(Failure::ConnectionLost { message, .. }) => return Err(self.unavailable(&message)),
        }
        match self.take().await?.run(statement, parameters, sink).await {
            Ok(()) => Ok(()),
            Err(Failure::Store(error)) => Err(error),
            Err(Failure::ConnectionLost { message, .. }) => Err(self.unavailable(&message)),
        }
    }

    /// As [`MysqlConnection::query`], all rows at the end: for few.
    pub(super) async fn query_all(
        self: &Arc<Self>,
        statement: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let mut all = All(Vec::new());
        self.query(statement, parameters, &mut all).await?;
        Ok(all.0)
    }

    async fn take(self: &Arc<Self>) -> Result<Request, StoreError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| self.unavailable("its connections were closed"))?;
        let idle = self.idle().pop();
        let reused = idle.is_some();
        let conn = match idle {
            Some(conn) => conn,
            None => self.connect().await.map_err(|message| self.unavailable(&message))?,
        };
        Ok(Request { connection: Arc::clone(self), conn: Some(conn), place: Some(place), reused })
    }

    async fn connect(&self) -> Result<Conn, String> {
        match tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(self.opts.clone())).await {
            Ok(connected) => connected.map_err(|error| describe(&error)),
            Err(_) => Err("no answer in time".to_string()),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        idle.into_iter().for_each(close);
    }

    fn unavailable(&self, message: &str) -> StoreError {
        StoreError::Unavailable { message: format!("{}: {message}", self.target) }
    }

    /// Kills the connection at the server, and with it the statement that it runs, then closes it. Until then it keeps
    /// its place. Killing the statement alone would stop nothing if it came to the server before the statement.
    fn give_up(self: &Arc<Self>, conn: Conn, place: OwnedSemaphorePermit) {
        let Ok(runtime) = Handle::try_current() else {
            return close(conn);
        };
        let this = Arc::clone(self);
        let kill = async move {
            let killed = async {
                let mut killer = Conn::new(this.opts.clone()).await?;
                killer.query_drop(format!("KILL CONNECTION {}", conn.id())).await?;
                killer.disconnect().await
            };
            match tokio::time::timeout(KILL_TIMEOUT, killed).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a connection could not be killed: {}", describe(&error)),
                Err(_) => tracing::debug!("a connection could not be killed in time"),
            }
            close(conn);
            drop(place);
        };
        self.tasks.spawn_on(kill, &runtime);
    }
}

impl fmt::Display for MysqlConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target)
    }
}

impl fmt::Debug for MysqlConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlConnection")
            .field("name", &self.name)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Takes the rows of an answer as they come.
pub(super) trait RowSink: Send {
    /// # Errors
    /// Ends the statement.
    fn take(&mut self, rows: Vec<Row>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

struct All(Vec<Row>);

impl RowSink for All {
    async fn take(&mut self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.0.extend(rows);
        Ok(())
    }
}

/// Why a request on a connection had no answer.
enum Failure {
    ConnectionLost { message: String, rows_came: bool },
    Store(StoreError),
}

/// A connection while it carries a request. Dropped before the answer is complete, it is killed.
struct Request {
    connection: Arc<MysqlConnection>,
    conn: Option<Conn>,
    place: Option<OwnedSemaphorePermit>,
    /// Whether the connection was open before this request came.
    reused: bool,
}

/// Who ended an answer before its end.
enum Stop {
    Server { error: mysql_async::Error, rows_came: bool },
    Reader(StoreError),
}

impl Request {
    async fn run(mut self, statement: &str, parameters: Vec<Value>, sink: &mut impl RowSink) -> Result<(), Failure> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        match exchange(conn, statement, parameters, sink).await {
            Ok(()) => {
                self.end();
                Ok(())
            }
            // The server goes on sending: dropping `self` stops it.
            Err(Stop::Reader(error)) => Err(Failure::Store(error)),
            Err(Stop::Server { error, rows_came }) => {
                let failure = self.connection.failure(&error, rows_came);
                // An error that the server sends ends its answer: only then is the connection as before.
                match (&error, &failure) {
                    (mysql_async::Error::Server(_), Failure::Store(_)) => self.end(),
                    (_, _) => self.conn.take().into_iter().for_each(close),
                }
                Err(failure)
            }
        }
    }

    /// The answer is complete: others may have the connection.
    fn end(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.connection.idle().push(conn);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let (Some(conn), Some(place)) = (self.conn.take(), self.place.take()) {
            self.connection.give_up(conn, place);
        }
    }
}

async fn exchange(
    conn: &mut Conn,
    statement: &str,
    parameters: Vec<Value>,
    sink: &mut impl RowSink,
) -> Result<(), Stop> {
    let mut rows_came = false;
    let prepared = conn.prep(statement).await.map_err(|error| Stop::Server { error, rows_came })?;
    let parameters = if parameters.is_empty() { Params::Empty } else { Params::Positional(parameters) };
    let sent = conn.exec_iter(&prepared, parameters).await;
    let mut rows = sent.map_err(|error| Stop::Server { error, rows_came })?;
    let (mut chunk, mut chunk_bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().await.map_err(|error| Stop::Server { error, rows_came })? {
        rows_came = true;
        chunk_bytes += row_bytes(&row);
        chunk.push(row);
        if chunk.len() == ROWS_PER_CHUNK || chunk_bytes >= BYTES_PER_CHUNK {
            sink.take(std::mem::take(&mut chunk)).await.map_err(Stop::Reader)?;
            chunk_bytes = 0;
        }
    }
    rows.drop_result().await.map_err(|error| Stop::Server { error, rows_came })?;
    if chunk.is_empty() { Ok(()) } else { sink.take(chunk).await.map_err(Stop::Reader) }
}

fn row_bytes(row: &Row) -> usize {
    let bytes = |column: usize| match row.as_ref(column) {
        Some(Value::Bytes(bytes)) => bytes.len(),
        _ => size_of::<i64>(),
    };
    (0..row.len()).map(bytes).sum()
}

/// Closes the socket without waiting: the driver would read an answer to its end first, however long that is.
fn close(conn: Conn) {
    let _ = conn.disconnect().now_or_never();
}

impl MysqlConnection {
    fn failure(&self, error: &mysql_async::Error, rows_came: bool) -> Failure {
        let message = describe(error);
        match error {
            mysql_async::Error::Server(answer) => match Meaning::of(answer) {
                Meaning::ConnectionLost => Failure::ConnectionLost { message, rows_came },
                Meaning::Unavailable => Failure::Store(self.unavailable(&message)),
                Meaning::Failed(sqlstate) => {
                    Failure::Store(StoreError::Failed { message, sqlstate: Some(sqlstate.to_string()) })
                }
            },
            mysql_async::Error::Io(_)
            | mysql_async::Error::Driver(DriverError::ConnectionClosed | DriverError::PacketOutOfOrder) => {
                Failure::ConnectionLost { message, rows_came }
            }
            mysql_async::Error::Driver(_) | mysql_async::Error::Other(_) | mysql_async::Error::Url(_) => {
                Failure::Store(StoreError::Failed { message, sqlstate: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_configuration_hides_the_password() {
        let config = MysqlConfig {
            host: "db.example.com".to_string(),
            port: 3306,
            database: Some("erp".to_string()),
            user: "reader".to_string(),
            password: Some("not-a-secret".to_string()),
            sslmode: SslMode::VerifyFull,
            sslrootcert: None,
            max_connections: NonZeroUsize::MIN,
        };
        let shown = format!("{config:?}");
        assert!(shown.contains("db.example.com:3306") && !shown.contains("not-a-secret"), "{shown}");
    }
}
