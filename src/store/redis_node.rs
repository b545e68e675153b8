//! Connections to one server of Redis: a bounded pool, one request a connection, and its errors as ours.
//!
//! The protocol would let many requests share a connection. One that is alone can be given up by closing it, and holds
//! up no other one with a large answer; many keys share a round trip all the same, as a request is one pipeline.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, ServerError, Value,
};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::StoreError;
use crate::error::Error;

/// How long a connection may take to be there, handshakes included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the other side is still there, and the pause between its questions.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How every connection introduces itself.
pub(super) struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: i64,
    pub tls: Option<TlsConnector>,
    pub max_connections: usize,
}

/// One server and the connections to it.
pub(super) struct Node {
    pub address: Address,
    login: Arc<Login>,
    /// One for each connection that carries a request.
    places: Semaphore,
    idle: Mutex<Vec<Link>>,
}

/// A connection, which closes when it is dropped.
pub(super) struct Link {
    connection: MultiplexedConnection,
    _driver: SpawnedTask<()>,
}

impl Link {
    /// The answers to the commands, in their order; errors of single commands are among them.
    pub(super) async fn send(&mut self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.connection.send_packed_commands(commands, 0, commands.len()).await
    }
}

impl Node {
    pub(super) fn new(address: Address, login: Arc<Login>) -> Self {
        let places = Semaphore::new(login.max_connections);
        Node { address, login, places, idle: Mutex::default() }
    }

    /// Sends all commands at once over a connection of their own, and gives their answers; errors of single commands are
    /// among them. Dropping the future closes the connection.
    pub(super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let place = self.places.acquire().await;
        let _place = place.map_err(|_| StoreError::from(Error::internal("a pool of connections was closed")))?;
        let reused = self.idle().pop();
        if let Some(mut link) = reused {
            match link.send(commands).await {
                Ok(answers) => {
                    self.idle().push(link);
                    return Ok(answers);
                }
                // The server went away while the connection lay idle. What else lies idle is as old: begin afresh, once.
                Err(error) if error.is_io_error() => self.idle().clear(),
                Err(error) => return Err(self.failure(&error)),
            }
        }
        let mut link = self.connect().await?;
        let answers = link.send(commands).await.map_err(|error| self.failure(&error))?;
        self.idle().push(link);
        Ok(answers)
    }

    async fn connect(&self) -> Result<Link, StoreError> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let login = &self.login;
            // The driver would not say why a log-in was refused.
            let silent = RedisConnectionInfo::default().set_skip_set_lib_name();
            let mut link = self.open(&silent, AsyncConnectionConfig::new()).await?;
            let mut commands = Pipeline::new();
            if let Some(password) = &login.password {
                commands.cmd("AUTH").arg(login.user.as_deref()).arg(password);
            }
            if login.database != 0 {
                commands.cmd("SELECT").arg(login.database);
            }
            let count = commands.len();
            // Only so that people see who it is: an error of it is none of ours.
            commands.cmd("CLIENT").arg("SETNAME").arg("lookaside");
            let answers = link.send(&commands).await.map_err(|error| self.failure(&error))?;
            answers.iter().take(count).try_for_each(|answer| self.refuse_error(answer))?;
            Ok(link)
        });
        opened.await.unwrap_or_else(|_| Err(self.unavailable("no answer in time")))
    }

    /// A connection that speaks RESP3 and hands what the server says unasked to `on_push`, which must not wait.
    pub(super) async fn listen(
        &self,
        on_push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> Result<Link, StoreError> {
        let login = &self.login;
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name().set_protocol(ProtocolVersion::RESP3);
        info = info.set_db(login.database);
        if let Some(user) = &login.user {
            info = info.set_username(user);
        }
        if let Some(password) = &login.password {
            info = info.set_password(password);
        }
        let opened = self.open(&info, AsyncConnectionConfig::new().set_push_sender(on_push));
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opened).await;
        opened.unwrap_or_else(|_| Err(self.unavailable("no answer in time")))
    }

    async fn open(&self, info: &RedisConnectionInfo, config: AsyncConnectionConfig) -> Result<Link, StoreError> {
        // Rows have time-outs of their own.
        let config = config.set_connection_timeout(None).set_response_timeout(None);
        let Address { host, port } = &self.address;
        let lost = |error: std::io::Error| self.unavailable(error);
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(lost)?;
        let Some(tls) = &self.login.tls else { return self.talk(stream, info, config).await };
        let name = ServerName::try_from(host.clone()).map_err(|error| self.unavailable(error))?;
        self.talk(tls.connect(name, stream).await.map_err(lost)?, info, config).await
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        info: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Link, StoreError> {
        let opened = MultiplexedConnection::new_with_config(info, stream, config).await;
        let (connection, driver) = opened.map_err(|error| self.failure(&error))?;
        Ok(Link { connection, _driver: SpawnedTask::spawn(driver) })
    }

    /// # Errors
    /// Of an answer that is one.
    pub(super) fn refuse_error(&self, answer: &Value) -> Result<(), StoreError> {
        match answer {
            Value::ServerError(error) => Err(refusal(&self.address, error)),
            _ => Ok(()),
        }
    }

    fn failure(&self, error: &RedisError) -> StoreError {
        if error.is_io_error() {
            return self.unavailable(error);
        }
        let sqlstate = match error.kind() {
            redis::ErrorKind::AuthenticationFailed => Some("28P01".to_string()),
            _ => None,
        };
        StoreError::Failed { message: format!("{}: {error}", self.address), sqlstate }
    }

    pub(super) fn unavailable(&self, message: impl fmt::Display) -> StoreError {
        StoreError::Unavailable { message: format!("{}: {message}", self.address) }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error of `server` means. Its text knows no password.
pub(super) fn refusal(server: &dyn fmt::Display, error: &ServerError) -> StoreError {
    let text = server_text(error);
    let message = format!("{server}: {text}");
    let sqlstate = match error.code() {
        // It will pass: the server is starting, is busy, or another one is taking its place.
        "LOADING" | "BUSY" | "CLUSTERDOWN" | "TRYAGAIN" | "MASTERDOWN" | "READONLY" => {
            return StoreError::Unavailable { message };
        }
        "ERR" if text.contains("max number of clients") => return StoreError::Unavailable { message },
        "NOAUTH" | "WRONGPASS" => Some("28P01"),
        "NOPERM" => Some("42501"),
        _ => None,
    };
    StoreError::Failed { message, sqlstate: sqlstate.map(str::to_string) }
}

/// The error as the server wrote it.
pub(super) fn server_text(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_string(),
    }
}
