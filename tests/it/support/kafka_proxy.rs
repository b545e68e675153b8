//! A proxy between clients and a broker of Kafka's protocol, that can cut, hold and count what goes through it, speak TLS
//! and ask for a password ([`Login`]), neither of which the broker behind it does.
//!
//! A request is a length, the number of what it asks (its API key), a version, a number that its answer begins with, and the rest.
//! Brokers tell clients where brokers are: in those answers the broker's address is replaced by the proxy's.
//!
//! The broker that tests use does not wait when there is nothing to fetch, as clients ask it to, and these ask again at
//! once, 40,000 times a second: so short answers to fetches are kept for a moment here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::support::kafka_login::Login;

/// Numbers of requests.
pub mod api_key {
    pub const FETCH: i16 = 1;
    pub const METADATA: i16 = 3;
    pub const OFFSET_COMMIT: i16 = 8;
    pub const FIND_COORDINATOR: i16 = 10;
    pub const JOIN_GROUP: i16 = 11;
    pub const SASL_HANDSHAKE: i16 = 17;
    pub const API_VERSIONS: i16 = 18;
    pub const SASL_AUTHENTICATE: i16 = 36;
    pub const DESCRIBE_CLUSTER: i16 = 60;
}

/// Those whose answers say where brokers are.
const NAMING_BROKERS: [i16; 3] = [api_key::METADATA, api_key::FIND_COORDINATOR, api_key::DESCRIBE_CLUSTER];

/// An answer to a fetch that is no longer than this has few messages or none, and so long it is kept.
const SHORT_ANSWER_BYTES: usize = 1000;
const SHORT_ANSWER_DELAY: Duration = Duration::from_millis(5);

/// How clients get in.
#[derive(Clone, Default)]
pub struct Door {
    pub tls: Option<TlsAcceptor>,
    pub login: Option<Login>,
}

/// A proxy that runs while this lives. Its end ends all its connections.
pub struct KafkaProxy {
    port: u16,
    road: Arc<Road>,
    _serving: SpawnedTask<()>,
    /// Dropped, it ends the thread, if the proxy has one.
    _thread_end: Option<oneshot::Sender<()>>,
}

/// What the connections share.
struct Road {
    /// The broker's port, and the proxy's own.
    ports: [u16; 2],
    door: Door,
    traffic: watch::Sender<Traffic>,
    cut: Mutex<CancellationToken>,
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Default)]
struct Traffic {
    is_refused: bool,
    is_stalled: bool,
    /// Before each answer.
    delay: Duration,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    open: usize,
    requests: BTreeMap<i16, usize>,
}

impl KafkaProxy {
    /// Before the broker at this port.
    pub async fn start(broker_port: u16) -> KafkaProxy {
        Self::start_with(broker_port, Door::default()).await
    }

    pub async fn start_with(broker_port: u16, door: Door) -> KafkaProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let road = Arc::new(Road {
            ports: [broker_port, port],
            door,
            traffic: watch::Sender::default(),
            cut: Mutex::default(),
            counts: Mutex::default(),
        });
        let serving = SpawnedTask::spawn(serve(listener, Arc::clone(&road)));
        KafkaProxy { port, road, _serving: serving, _thread_end: None }
    }

    /// On a thread of its own, whatever becomes of the runtime of the caller.
    pub fn start_on_thread(broker_port: u16) -> KafkaProxy {
        let (give, take) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                give.send(KafkaProxy::start(broker_port).await).unwrap();
                let _ = ended.await;
            });
        });
        KafkaProxy { _thread_end: Some(end), ..take.recv().unwrap() }
    }

    /// As clients are told of it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Closes all connections; new ones are served.
    pub fn cut(&self) {
        std::mem::take(&mut *self.road.cut.lock().unwrap()).cancel();
    }

    /// Closes new connections at once.
    pub fn refuse(&self) {
        self.road.traffic.send_modify(|traffic| traffic.is_refused = true);
    }

    /// Serves new connections again.
    pub fn accept(&self) {
        self.road.traffic.send_modify(|traffic| traffic.is_refused = false);
    }

    /// Keeps what comes, in both directions; connections stay open.
    pub fn stall(&self) {
        self.road.traffic.send_modify(|traffic| traffic.is_stalled = true);
    }

    /// Passes on what was kept.
    pub fn resume(&self) {
        self.road.traffic.send_modify(|traffic| traffic.is_stalled = false);
    }

    /// Waits so long before each answer.
    pub fn delay(&self, delay: Duration) {
        self.road.traffic.send_modify(|traffic| traffic.delay = delay);
    }

    /// How many connections were ever made.
    pub fn connections(&self) -> usize {
        self.road.counts.lock().unwrap().connections
    }

    /// How many connections there are.
    pub fn open_connections(&self) -> usize {
        self.road.counts.lock().unwrap().open
    }

    /// How many requests of this [`api_key`] there were.
    pub fn requests(&self, key: i16) -> usize {
        self.road.counts.lock().unwrap().requests.get(&key).copied().unwrap_or_default()
    }
}

async fn serve(listener: TcpListener, road: Arc<Road>) {
    let mut clients = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let cut = road.cut.lock().unwrap().clone();
        road.counts.lock().unwrap().connections += 1;
        if road.traffic.borrow().is_refused {
            continue;
        }
        let road = Arc::clone(&road);
        clients.spawn(async move {
            road.counts.lock().unwrap().open += 1;
            // Whatever ends it, an error is the end of a connection.
            let _ = cut.run_until_cancelled(road.admit(socket)).await;
            road.counts.lock().unwrap().open -= 1;
        });
        while clients.try_join_next().is_some() {}
    }
}

impl Road {
    async fn admit(&self, socket: TcpStream) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        match &self.door.tls {
            None => self.carry(socket).await,
            Some(tls) => self.carry(tls.accept(socket).await?).await,
        }
    }

    async fn carry(&self, mut client: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
        self.passes().await;
        let mut broker = TcpStream::connect(("127.0.0.1", self.ports[0])).await?;
        broker.set_nodelay(true)?;
        if let Some(login) = &self.door.login {
            login.admit(&mut client, &mut broker, |key| self.count(key)).await?;
        }
        let (from_client, to_client) = tokio::io::split(client);
        let (from_broker, to_broker) = broker.into_split();
        let asked = Mutex::default();
        tokio::select! {
            done = self.carry_requests(from_client, to_broker, &asked) => done,
            done = self.carry_answers(from_broker, to_client, &asked) => done,
        }
    }

    /// `asked` gets what each request asks, by its number.
    async fn carry_requests(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        asked: &Mutex<HashMap<[u8; 4], i16>>,
    ) -> std::io::Result<()> {
        loop {
            let request = read_frame(&mut from).await?;
            self.passes().await;
            let (key, number) = head(&request);
            self.count(key);
            asked.lock().unwrap().insert(number, key);
            write_frame(&mut to, &request).await?;
        }
    }

    async fn carry_answers(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        asked: &Mutex<HashMap<[u8; 4], i16>>,
    ) -> std::io::Result<()> {
        loop {
            let mut answer = read_frame(&mut from).await?;
            let key = asked.lock().unwrap().remove(&answer[..4]);
            let delay = match key {
                Some(api_key::FETCH) if answer.len() < SHORT_ANSWER_BYTES => SHORT_ANSWER_DELAY,
                _ => Duration::ZERO,
            };
            let delay = delay.max(self.traffic.borrow().delay);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.passes().await;
            if key.is_some_and(|key| NAMING_BROKERS.contains(&key)) {
                self.replace_address(&mut answer);
            }
            write_frame(&mut to, &answer).await?;
        }
    }

    async fn passes(&self) {
        let _ = self.traffic.subscribe().wait_for(|traffic| !traffic.is_stalled).await;
    }

    fn count(&self, key: i16) {
        *self.counts.lock().unwrap().requests.entry(key).or_default() += 1;
    }

    /// A broker's address is its host and then its port.
    fn replace_address(&self, answer: &mut [u8]) {
        let [broker, own] = self.ports.map(|port| [b"127.0.0.1".as_slice(), &i32::from(port).to_be_bytes()].concat());
        for start in 0..answer.len().saturating_sub(broker.len() - 1) {
            if answer[start..].starts_with(&broker) {
                answer[start..start + own.len()].copy_from_slice(&own);
            }
        }
    }
}

/// A request's API key, and the number that its answer begins with.
pub fn head(request: &[u8]) -> (i16, [u8; 4]) {
    (i16::from_be_bytes([request[0], request[1]]), [request[4], request[5], request[6], request[7]])
}

/// A request or an answer, without its length.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut frame = vec![0; length as usize];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> std::io::Result<()> {
    to.write_u32(frame.len() as u32).await?;
    to.write_all(frame).await?;
    to.flush().await
}
