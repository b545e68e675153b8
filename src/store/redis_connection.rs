//! A Redis, one server or a cluster, that all lookup tables of a `[connection.X]` share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{join_all, select_ok, try_join_all};
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::StoreError;
use super::postgres_tls::{SslMode, client_tls};
use super::redis_cluster::{Redirect, Topology};
pub use super::redis_node::Address;
use super::redis_node::{Login, Node, refusal};
use crate::error::{Code, Error, Result};

/// How often the keys of a request may be sent on to another server of a cluster.
const MAX_REDIRECTS: usize = 5;

/// A `[connection.X]` of type redis, whole and checked.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    pub servers: RedisServers,
    pub user: Option<String>,
    pub password: Option<String>,
    pub sslmode: SslMode,
    /// The certificates (PEM) to trust instead of the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Connections to each server at once, at least 1.
    pub max_connections: usize,
}

/// Where a `[connection.X]` of type redis leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    One {
        address: Address,
        database: i64,
    },
    /// Some servers of a cluster, at least one: they know the others.
    Cluster(Vec<Address>),
}

impl fmt::Display for RedisServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisServers::One { address, database: 0 } => write!(f, "{address}"),
            RedisServers::One { address, database } => write!(f, "{address}/{database}"),
            RedisServers::Cluster(seeds) => {
                f.write_str(&seeds.iter().map(Address::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// Without the password.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("servers", &self.servers)
            .field("user", &self.user)
            .field("sslmode", &self.sslmode)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// Pools of connections. Nothing connects before it is asked.
pub struct RedisConnection {
    name: String,
    servers: RedisServers,
    login: Arc<Login>,
    nodes: Mutex<BTreeMap<Address, Arc<Node>>>,
    /// Of a cluster; `None` until it is asked, and again once it seems to be out of date.
    topology: Mutex<Option<Arc<Topology>>>,
    masters: watch::Sender<Vec<Address>>,
}

/// The commands that are sent for a key, always as many.
pub(super) struct KeyCommands<'a> {
    pub count: usize,
    pub write: &'a (dyn Fn(&mut Pipeline, &str) + Send + Sync),
}

impl RedisConnection {
    /// `name` is the catalog's.
    ///
    /// # Errors
    /// 22023 if `max_connections` is 0, a cluster has no address, or no certificate to trust can be read.
    pub fn try_new(name: String, config: RedisConfig) -> Result<Arc<Self>> {
        let in_connection = |error: Error| error.with_context(format!("connection \"{name}\""));
        if config.max_connections == 0 {
            let error = Error::new(Code::InvalidParameterValue, "max_connections must be at least 1");
            return Err(in_connection(error));
        }
        let tls = match config.sslmode {
            SslMode::Disable => None,
            SslMode::VerifyFull => {
                let config = client_tls(config.sslrootcert.as_deref()).map_err(in_connection)?;
                Some(TlsConnector::from(Arc::new(config)))
            }
        };
        if matches!(&config.servers, RedisServers::Cluster(seeds) if seeds.is_empty()) {
            return Err(in_connection(Error::new(
                Code::InvalidParameterValue,
                "a cluster needs an address to begin with",
            )));
        }
        let database = match &config.servers {
            RedisServers::One { database, .. } => *database,
            RedisServers::Cluster(_) => 0,
        };
        let RedisConfig { servers, user, password, max_connections, .. } = config;
        Ok(Arc::new(RedisConnection {
            name,
            servers,
            login: Arc::new(Login { user, password, database, tls, max_connections }),
            nodes: Mutex::default(),
            topology: Mutex::default(),
            masters: watch::Sender::new(Vec::new()),
        }))
    }

    /// The answers to the commands of each key, key after key. One round trip: a pipeline for each server that has some
    /// of the keys, all at once. Errors of single commands are among the answers.
    pub(super) async fn ask(&self, keys: &[&str], commands: &KeyCommands<'_>) -> Result<Vec<Value>, StoreError> {
        match &self.servers {
            RedisServers::One { address, .. } => {
                let mut pipeline = Pipeline::with_capacity(keys.len() * commands.count);
                keys.iter().for_each(|key| (commands.write)(&mut pipeline, key));
                self.node(address).send(&pipeline).await
            }
            RedisServers::Cluster(_) => {
                let answers = self.ask_cluster(keys, commands).await;
                if answers.as_ref().is_err_and(StoreError::is_transient) {
                    // Perhaps another server has taken over.
                    self.forget_topology();
                }
                answers
            }
        }
    }

    async fn ask_cluster(&self, keys: &[&str], commands: &KeyCommands<'_>) -> Result<Vec<Value>, StoreError> {
        let topology = self.topology().await?;
        let mut ways: BTreeMap<Redirect, Vec<usize>> = BTreeMap::new();
        for (position, key) in keys.iter().enumerate() {
            let to = topology.master_of(key).cloned();
            let to =
                to.ok_or_else(|| self.unavailable(format!("no server of the cluster has the slot of key \"{key}\"")))?;
            ways.entry(Redirect { to, is_asking: false }).or_default().push(position);
        }
        let mut answers = vec![Value::Nil; keys.len() * commands.count];
        for _ in 0..=MAX_REDIRECTS {
            let sent = ways.iter().map(|(way, positions)| self.ask_on(way, positions, keys, commands));
            let came = try_join_all(sent).await?;
            let mut further: BTreeMap<Redirect, Vec<usize>> = BTreeMap::new();
            for ((way, positions), came) in ways.iter().zip(came) {
                let mut came = came.into_iter();
                for &position in positions {
                    let own = came.by_ref().take(commands.count).collect::<Vec<_>>();
                    match own.iter().find_map(|answer| redirect_of(answer, &way.to)) {
                        Some(redirect) => further.entry(redirect).or_default().push(position),
                        None => answers[position * commands.count..].iter_mut().zip(own).for_each(|(a, b)| *a = b),
                    }
                }
            }
            if further.is_empty() {
                return Ok(answers);
            }
            if further.keys().any(|redirect| !redirect.is_asking) {
                self.forget_topology();
            }
            ways = further;
        }
        Err(self.unavailable("servers of the cluster send each other's keys around".to_string()))
    }

    /// The answers of one server to the commands of these keys.
    async fn ask_on(
        &self,
        way: &Redirect,
        positions: &[usize],
        keys: &[&str],
        commands: &KeyCommands<'_>,
    ) -> Result<Vec<Value>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(positions.len() * commands.count);
        positions.iter().for_each(|&position| (commands.write)(&mut pipeline, keys[position]));
        if !way.is_asking {
            return self.node(&way.to).send(&pipeline).await;
        }
        // What is said before a command holds for that one alone.
        let mut asking = Pipeline::with_capacity(2 * pipeline.len());
        for command in pipeline.cmd_iter() {
            asking.cmd("ASKING").add_command(command.clone());
        }
        let answers = self.node(&way.to).send(&asking).await?;
        Ok(answers.into_iter().skip(1).step_by(2).collect())
    }

    /// Whether every server answers.
    ///
    /// # Errors
    /// Of those that do not.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        let masters = self.current_masters().await?;
        let answers = join_all(masters.iter().map(|node| node.send(&ping))).await;
        for (node, answer) in masters.iter().zip(answers) {
            answer?.iter().try_for_each(|answer| node.refuse_error(answer))?;
        }
        Ok(())
    }

    /// The server, or the masters of the cluster as it is now.
    pub(super) async fn current_masters(&self) -> Result<Vec<Arc<Node>>, StoreError> {
        match &self.servers {
            RedisServers::One { address, .. } => Ok(vec![self.node(address)]),
            RedisServers::Cluster(_) => {
                self.forget_topology();
                Ok(self.topology().await?.masters.iter().map(|address| self.node(address)).collect())
            }
        }
    }

    /// Tells of the masters of the cluster, whenever others were found.
    pub(super) fn watch_masters(&self) -> watch::Receiver<Vec<Address>> {
        self.masters.subscribe()
    }

    async fn topology(&self) -> Result<Arc<Topology>, StoreError> {
        let known = lock(&self.topology).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let RedisServers::Cluster(seeds) = &self.servers else {
            return Err(Error::internal("one server of Redis has no topology").into());
        };
        let mut candidates = seeds.clone();
        candidates.extend(lock(&self.nodes).keys().cloned());
        candidates.sort();
        candidates.dedup();
        // The first that answers counts: others may be gone, or frozen.
        let asked = candidates.into_iter().map(|address| self.ask_topology(address).boxed());
        let (topology, _) = select_ok(asked).await?;
        let topology = Arc::new(topology);
        lock(&self.nodes).retain(|address, _| topology.masters.contains(address));
        self.masters.send_if_modified(|masters| {
            let is_other = *masters != topology.masters;
            masters.clone_from(&topology.masters);
            is_other
        });
        *lock(&self.topology) = Some(Arc::clone(&topology));
        Ok(topology)
    }

    async fn ask_topology(&self, address: Address) -> Result<Topology, StoreError> {
        let mut slots = Pipeline::new();
        slots.cmd("CLUSTER").arg("SLOTS");
        let node = self.node(&address);
        let answers = node.send(&slots).await?;
        answers.iter().try_for_each(|answer| node.refuse_error(answer))?;
        let topology = answers.first().and_then(|answer| Topology::parse(answer, &address));
        let topology = topology.filter(|topology| !topology.masters.is_empty());
        topology.ok_or_else(|| node.unavailable("it says of no server which slots it has"))
    }

    fn forget_topology(&self) {
        *lock(&self.topology) = None;
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        let new = || Arc::new(Node::new(address.clone(), Arc::clone(&self.login)));
        Arc::clone(lock(&self.nodes).entry(address.clone()).or_insert_with(new))
    }

    fn unavailable(&self, message: String) -> StoreError {
        StoreError::Unavailable { message: format!("{self}: {message}") }
    }

    /// What an error among the answers for a key means that is not about the key.
    pub(super) fn refusal(&self, error: &redis::ServerError) -> StoreError {
        if error.code() == "MOVED" {
            let message =
                format!("{self} is part of a cluster: declare the connection with cluster = [\"{self}\"], not url");
            return StoreError::Failed { message, sqlstate: None };
        }
        refusal(self, error)
    }
}

fn redirect_of(answer: &Value, asked: &Address) -> Option<Redirect> {
    match answer {
        Value::ServerError(error) => Redirect::of(error, asked),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.servers.fmt(f)
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection")
            .field("name", &self.name)
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}
