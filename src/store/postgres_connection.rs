//! Connections to one PostgreSQL: a bounded pool, one request a connection, TLS, and errors without secrets.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, RowStream};
use tokio_util::task::TaskTracker;

use super::StoreError;
use super::postgres_encode::Parameter;
use super::postgres_tls::{SslMode, Tls};
use crate::error::{Code, Error, Result};

/// How long a connection may take to be there, handshakes included, unless the configuration says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a cancel request may take before its connection is closed without it.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// After so long a statement that still runs is cancelled once more.
const CANCEL_AGAIN: Duration = Duration::from_millis(200);
/// Silence after which the kernel asks whether the other side is still there, and the pause between its questions.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// Rows handed over at once while an answer comes in, and their bytes: the reader may want no more.
const ROWS_PER_CHUNK: usize = 1024;
const BYTES_PER_CHUNK: usize = 256 << 10;
/// Statements that a connection keeps prepared; past that it forgets all of them.
const PREPARED_STATEMENTS: usize = 128;

/// A `[connection.X]` of type postgres, whole and checked.
pub struct PostgresConfig {
    /// Host, port, database, user, password. TLS, keep-alive and time-outs are set by [`PostgresConnection::try_new`].
    pub config: Config,
    pub sslmode: SslMode,
    /// The certificates (PEM) to trust instead of the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Connections at once, at least 1.
    pub max_connections: usize,
    /// Whether statements are prepared once per connection; false behind a pooler in transaction mode.
    pub prepare: bool,
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("target", &target(&self.config))
            .field("sslmode", &self.sslmode)
            .field("max_connections", &self.max_connections)
            .field("prepare", &self.prepare)
            .finish_non_exhaustive()
    }
}

/// A pool of connections that all lookup tables of a `[connection.X]` share. Nothing connects before it is asked.
pub struct PostgresConnection {
    name: String,
    target: String,
    /// For connections that are not the pool's.
    config: Config,
    pool: Pool,
    tls: Tls,
    prepare: bool,
    tasks: TaskTracker,
}

impl PostgresConnection {
    /// `name` is the catalog's.
    ///
    /// # Errors
    /// 22023 if `max_connections` is 0, or no certificate to trust can be read.
    pub fn try_new(name: String, config: PostgresConfig) -> Result<Arc<Self>> {
        let target = target(&config.config);
        let tls = Tls::try_new(config.sslmode, config.sslrootcert.as_deref())
            .map_err(|error| error.with_context(format!("connection \"{name}\"")))?;
        if config.max_connections == 0 {
            return Err(Error::new(
                Code::InvalidParameterValue,
                format!("connection \"{name}\": max_connections must be at least 1"),
            ));
        }
        let mut pg_config = config.config;
        pg_config
            .ssl_mode(match config.sslmode {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            })
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        if pg_config.get_application_name().is_none() {
            pg_config.application_name("lookaside");
        }
        let connect_timeout = *pg_config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT);
        pg_config.connect_timeout(connect_timeout);
        let tasks = TaskTracker::new();
        let connector = Connector { tls: tls.clone(), tasks: tasks.clone() };
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_connect(pg_config.clone(), connector, manager_config))
            .max_size(config.max_connections)
            // The driver's own limit ends with the TCP handshake; a frozen server accepts and says nothing.
            .create_timeout(Some(connect_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::internal(format!("connection \"{name}\": {error}")))?;
        Ok(Arc::new(PostgresConnection { name, target, config: pg_config, pool, tls, prepare: config.prepare, tasks }))
    }

    /// The catalog's name of it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs one statement, prepared if this connection prepares, and hands its rows to `on_rows` as they come.
    ///
    /// Dropping the future cancels the statement at the server.
    pub(super) async fn query(
        self: &Arc<Self>,
        statement: &str,
        parameters: &[Parameter],
        on_rows: impl FnMut(&[Row]) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        self.query_as(self.prepare, statement, parameters, on_rows).await
    }

    /// As [`PostgresConnection::query`], for what is asked once: never prepared, all rows at the end.
    pub(super) async fn query_once(
        self: &Arc<Self>,
        statement: &str,
        parameters: &[Parameter],
    ) -> Result<Vec<Row>, StoreError> {
        let mut all = Vec::new();
        self.query_as(false, statement, parameters, |rows| {
            all.extend_from_slice(rows);
            Ok(())
        })
        .await?;
        Ok(all)
    }

    async fn query_as(
        self: &Arc<Self>,
        prepare: bool,
        statement: &str,
        parameters: &[Parameter],
        mut on_rows: impl FnMut(&[Row]) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let request = self.take().await?;
        let reused = request.is_reused();
        match request.run(prepare, statement, parameters, &mut on_rows).await {
            Ok(()) => return Ok(()),
            Err(Failure::Store(error)) => return Err(error),
            // The server went away while the connection lay idle. What else lies idle is as old: begin afresh, once.
            Err(Failure::ConnectionLost { rows_came: false, .. }) if reused => self.forget_idle(),
            Err(Failure::ConnectionLost { message, .. }) => return Err(self.unavailable(message)),
        };
        match self.take().await?.run(prepare, statement, parameters, &mut on_rows).await {
            Ok(()) => Ok(()),
            Err(Failure::Store(error)) => Err(error),
            Err(Failure::ConnectionLost { message, .. }) => Err(self.unavailable(message)),
        }
    }

    pub(super) async fn take(self: &Arc<Self>) -> Result<Request, StoreError> {
        match self.pool.get().await {
            Ok(client) => Ok(Request { connection: Arc::clone(self), client: Some(client) }),
            Err(PoolError::Backend(error)) => Err(self.unavailable(describe(&error))),
            Err(PoolError::Timeout(_)) => Err(self.unavailable("no answer in time".to_string())),
            Err(error) => Err(self.unavailable(error.to_string())),
        }
    }

    /// A connection beside the pool's, for what comes unasked: it lives while its messages are polled.
    pub(super) async fn connect_alone(&self) -> Result<(Client, Messages), StoreError> {
        let connecting = async {
            match &self.tls {
                Tls::Off => self.config.connect(NoTls).await.map(|(client, driver)| (client, messages(driver))),
                Tls::Rustls(tls) => {
                    self.config.connect(tls.clone()).await.map(|(client, driver)| (client, messages(driver)))
                }
            }
        };
        let limit = *self.config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT);
        match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|error| self.unavailable(describe(&error))),
            Err(_) => Err(self.unavailable("no answer in time".to_string())),
        }
    }

    /// Closes the connections that lie idle.
    pub(super) fn forget_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    pub(super) fn unavailable(&self, message: String) -> StoreError {
        StoreError::Unavailable { message: format!("{}: {message}", self.target) }
    }

    /// Stops the statement that `client` still runs, then closes it. Until then it keeps its place in the pool,
    /// so that the server never has more than `max_connections` of us.
    fn give_up(&self, client: Object) {
        let Ok(runtime) = Handle::try_current() else {
            drop(Object::take(client));
            return;
        };
        let (cancel, tls) = (client.cancel_token(), self.tls.clone());
        let stop = async move {
            let stopped = async {
                loop {
                    if let Err(error) = tls.cancel(&cancel).await {
                        tracing::debug!("cancel request failed: {}", describe(&error));
                    }
                    // A cancel that overtakes its statement stops nothing. This one is answered once that has ended.
                    if tokio::time::timeout(CANCEL_AGAIN, client.simple_query("")).await.is_ok() {
                        return;
                    }
                }
            };
            if tokio::time::timeout(CANCEL_TIMEOUT, stopped).await.is_err() {
                tracing::debug!("cancel request was not answered in time");
            }
            drop(Object::take(client));
        };
        self.tasks.spawn_on(stop, &runtime);
    }
}

impl fmt::Display for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target)
    }
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConnection")
            .field("name", &self.name)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// What a server says unasked, until the connection ends.
pub(super) type Messages = BoxStream<'static, Result<AsyncMessage, tokio_postgres::Error>>;

fn messages<S, T>(mut driver: tokio_postgres::Connection<S, T>) -> Messages
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    futures::stream::poll_fn(move |context| driver.poll_message(context)).boxed()
}

/// Why a request on a connection had no answer.
pub(super) enum Failure {
    ConnectionLost { message: String, rows_came: bool },
    Store(StoreError),
}

/// A connection while it carries a request. Dropped before the answer is complete, it cancels.
pub(super) struct Request {
    connection: Arc<PostgresConnection>,
    client: Option<Object>,
}

impl Request {
    /// Whether the connection was open before this request came.
    pub(super) fn is_reused(&self) -> bool {
        self.client.as_ref().is_some_and(|client| Object::metrics(client).recycle_count > 0)
    }

    async fn run(
        mut self,
        prepare: bool,
        statement: &str,
        parameters: &[Parameter],
        on_rows: &mut (impl FnMut(&[Row]) -> Result<(), StoreError> + Send),
    ) -> Result<(), Failure> {
        let rows = self.rows(prepare, statement, parameters).await?;
        match consume(rows, on_rows).await {
            Ok(()) => {
                self.end();
                Ok(())
            }
            // The server goes on sending: dropping `self` stops it.
            Err(Stop::Reader(error)) => Err(Failure::Store(error)),
            Err(Stop::Server { error, rows_came }) => Err(self.fail(&error, rows_came)),
        }
    }

    /// Sends the statement. Whoever reads the rows says how that went, by [`Request::end`] or [`Request::fail`].
    pub(super) async fn rows(
        &mut self,
        prepare: bool,
        statement: &str,
        parameters: &[Parameter],
    ) -> Result<RowStream, Failure> {
        let Some(client) = &self.client else {
            return Err(Failure::Store(StoreError::Invalid(Error::internal("a request lost its connection"))));
        };
        let sent = stream_rows(client, prepare, statement, parameters).await;
        sent.map_err(|error| self.fail(&error, false))
    }

    /// The answer is complete: others may have the connection.
    pub(super) fn end(&mut self) {
        drop(self.client.take());
    }

    /// The server has ended the answer with an error.
    pub(super) fn fail(&mut self, error: &tokio_postgres::Error, rows_came: bool) -> Failure {
        let client = self.client.take();
        if forgets_statements(error) {
            drop(client.map(Object::take));
        }
        self.connection.failure(error, rows_came)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        match self.client.take() {
            Some(client) if !client.is_closed() => self.connection.give_up(client),
            _ => {}
        }
    }
}

/// Who ended an answer before its end.
enum Stop {
    Server { error: tokio_postgres::Error, rows_came: bool },
    Reader(StoreError),
}

async fn stream_rows(
    client: &Object,
    prepare: bool,
    statement: &str,
    parameters: &[Parameter],
) -> Result<RowStream, tokio_postgres::Error> {
    if !prepare {
        let typed = parameters.iter().map(|parameter| (parameter, parameter.array_type()));
        return client.query_typed_raw(statement, typed).await;
    }
    if client.statement_cache.size() >= PREPARED_STATEMENTS {
        client.statement_cache.clear();
    }
    let types = parameters.iter().map(Parameter::array_type).collect::<Vec<_>>();
    let prepared = client.prepare_typed_cached(statement, &types).await?;
    client.query_raw(&prepared, parameters).await
}

async fn consume(
    rows: RowStream,
    on_rows: &mut (impl FnMut(&[Row]) -> Result<(), StoreError> + Send),
) -> Result<(), Stop> {
    let mut rows = std::pin::pin!(rows);
    let mut chunk = Vec::new();
    let mut chunk_bytes = 0;
    let mut rows_came = false;
    while let Some(row) = rows.try_next().await.map_err(|error| Stop::Server { error, rows_came })? {
        rows_came = true;
        chunk_bytes += row.raw_size_bytes();
        chunk.push(row);
        if chunk.len() == ROWS_PER_CHUNK || chunk_bytes >= BYTES_PER_CHUNK {
            on_rows(&chunk).map_err(Stop::Reader)?;
            chunk.clear();
            chunk_bytes = 0;
        }
    }
    if chunk.is_empty() { Ok(()) } else { on_rows(&chunk).map_err(Stop::Reader) }
}

impl PostgresConnection {
    fn failure(&self, error: &tokio_postgres::Error, rows_came: bool) -> Failure {
        let Some(answer) = error.as_db_error() else {
            let lost = error.is_closed() || source_is_io(error);
            return match lost {
                true => Failure::ConnectionLost { message: describe(error), rows_came },
                false => Failure::Store(StoreError::Failed { message: describe(error), sqlstate: None }),
            };
        };
        let message = answer.message().to_string();
        match answer.code().code() {
            "57P01" => Failure::ConnectionLost { message, rows_came },
            "57P02" | "57P03" | "53300" => Failure::Store(self.unavailable(message)),
            code if code.starts_with("08") => Failure::Store(self.unavailable(message)),
            code => Failure::Store(StoreError::Failed { message, sqlstate: Some(code.to_string()) }),
        }
    }
}

/// Whether the error says that this connection's prepared statements are of no use any more.
fn forgets_statements(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "26000" | "42P05" | "0A000"))
}

fn source_is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// The cause in the server's or the system's words; neither knows the password.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(answer), _) => answer.message().to_string(),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

/// `host:port` of each server that may be tried.
fn target(config: &Config) -> String {
    let ports = config.get_ports();
    let targets = config.get_hosts().iter().enumerate().map(|(i, host)| {
        let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(host) => format!("{host}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    targets.collect::<Vec<_>>().join(",")
}

/// Opens connections whose drivers run among this pool's own tasks.
struct Connector {
    tls: Tls,
    tasks: TaskTracker,
}

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>>;

impl Connect for Connector {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let config = config.clone();
        Box::pin(async move {
            match &self.tls {
                Tls::Off => {
                    let (client, driver) = config.connect(NoTls).await?;
                    Ok((client, self.tasks.spawn(drive(driver))))
                }
                Tls::Rustls(tls) => {
                    let (client, driver) = config.connect(tls.clone()).await?;
                    Ok((client, self.tasks.spawn(drive(driver))))
                }
            }
        })
    }
}

/// Whoever waits for an answer learns of the failure as well; here it only tells why an idle connection went.
async fn drive(driver: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = driver.await {
        tracing::debug!("connection to PostgreSQL ended: {}", describe(&error));
    }
}
