//! Clients in great number, that cancel, are killed, come and go, stop reading or never log in: afterwards the server's
//! tasks, descriptors, slots, queries and memory are where they were, and others have noticed nothing.
//!
//! Small here; `tests/soak/run connections` does it at full size.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use datafusion::common::runtime::{JoinSet, SpawnedTask};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::support::lookaside::connect_to;
use crate::support::postgres::PostgresServer;
use crate::support::process::{Process, catalog_file, psql};
use crate::support::raw::{DEADLINE, Messages, RawClient};

/// Clients that are there at once.
const AT_ONCE: u64 = 20;
/// What resident memory may grow by while clients come and go: two kilobytes for each of ten thousand would show.
const GROWTH_KIB: u64 = 16 << 10;
/// Connections to the store: those of the catalog, and one that cancels a request on each.
const STORE_CONNECTIONS: u64 = 8;

const CATALOG: &str = r#"
[connection.shop]
type = "postgres"
url = "${URL}"
max_connections = 4

[stream.clicks]
type = "generator"
rows_per_second = 0
[stream.clicks.columns]
n = "n"
pad = "repeat('x', 100)"

[stream.ticks]
type = "generator"
rows_per_second = 500
[stream.ticks.columns]
n = "n"
due = "now()"
pad = "repeat('x', 4000)"

[stream.inbox]
type = "push"
[stream.inbox.columns]
id = "bigint"

[lookup.customers]
type = "simulated"
latency = "1ms"
[lookup.customers.key]
id = "bigint"
[lookup.customers.columns]
name = "'customer ' || id"

[lookup.locked]
connection = "shop"
table = "soak_locked"
timeout = "0s"
"#;

/// Of each kind that a client may leave in the middle: rows faster than they are read, no rows at all, rows that wait for a
/// store that never answers.
const ENDLESS: [&str; 4] = [
    "SELECT n, pad FROM clicks",
    "SELECT id FROM inbox",
    "COPY (SELECT c.n, l.name FROM clicks AS c LEFT LOOKUP JOIN customers AS l ON c.n % 1000 = l.id) TO STDOUT",
    "SELECT c.n, l.name FROM clicks AS c LEFT LOOKUP JOIN locked AS l ON c.n % 100 = l.id",
];

/// A number that `tests/soak/run` sets.
fn size(variable: &str, small: u64) -> u64 {
    std::env::var(variable).map_or(small, |text| text.parse().unwrap())
}

/// A second is promised; beside other tests a machine needs longer.
fn promised() -> Duration {
    Duration::from_millis(size("SOAK_PROMISED_MS", 5000))
}

/// A server as a process, with what it holds to be seen from outside. There is one at a time: they share a table that
/// one test locks, and each counts what is left over.
struct Soaked {
    process: Process,
    port: u16,
    http_port: u16,
    _folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// What a server holds.
#[derive(Debug)]
struct Held {
    tasks: u64,
    descriptors: u64,
    connections: u64,
    queries: u64,
    readers: u64,
    in_flight: u64,
}

impl Held {
    /// Whether nothing is left over, but for what connections to the store take: a pool opens and closes them as it likes.
    fn is_no_more_than(&self, before: &Held) -> bool {
        let pairs = [
            (self.tasks, before.tasks + STORE_CONNECTIONS),
            (self.descriptors, before.descriptors + STORE_CONNECTIONS),
            (self.connections, before.connections),
            (self.queries, before.queries),
            (self.readers, before.readers),
            (self.in_flight, before.in_flight),
        ];
        pairs.iter().all(|(now, before)| now <= before)
    }
}

impl Soaked {
    async fn start() -> Soaked {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let postgres = PostgresServer::shared();
        static FILLED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        let fill =
            "CREATE TABLE soak_locked (id bigint PRIMARY KEY, name text); INSERT INTO soak_locked VALUES (1, 'one')";
        FILLED.get_or_init(|| postgres.execute(fill)).await;
        let (folder, path) = catalog_file(&CATALOG.replace("${URL}", &postgres.url()));
        let (mut process, port) = Process::serve(&path, &["--http", "127.0.0.1:0"]).await;
        let http = process.line().await.expect("where metrics are");
        let http_port = http.rsplit_once(':').unwrap().1.parse().unwrap();
        let soaked = Soaked { process, port, http_port, _folder: folder, _turn: turn };
        // From here on the store is connected.
        let found =
            connect_to(port, "soak").await.query_one("SELECT name FROM locked WHERE id = 1", &[]).await.unwrap();
        assert_eq!(found.get::<_, &str>(0), "one");
        soaked
    }

    async fn metrics(&self) -> HashMap<String, f64> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.http_port)).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, socket.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
        let samples = answer.lines().filter(|line| line.starts_with("lookaside_"));
        let samples = samples.filter_map(|line| line.rsplit_once(' '));
        samples.filter_map(|(name, value)| Some((name.to_string(), value.parse().ok()?))).collect()
    }

    async fn held(&self) -> Held {
        let metrics = self.metrics().await;
        let sum = |name: &str| {
            let samples =
                metrics.iter().filter(|(sample, _)| sample.split('{').next() == Some(name)).collect::<Vec<_>>();
            assert!(!samples.is_empty(), "/metrics has no {name}");
            samples.into_iter().map(|(_, value)| *value as u64).sum::<u64>()
        };
        Held {
            tasks: sum("lookaside_tasks"),
            descriptors: self.process.descriptors(),
            connections: sum("lookaside_connections"),
            queries: sum("lookaside_queries_running"),
            readers: sum("lookaside_stream_readers"),
            in_flight: sum("lookaside_lookup_in_flight"),
        }
    }

    /// Waits until the server holds no more than it held before.
    async fn settles(&self, before: &Held) {
        let asked = Instant::now();
        let mut held = self.held().await;
        while !held.is_no_more_than(before) {
            assert!(asked.elapsed() < DEADLINE, "before {before:?}, now {held:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            held = self.held().await;
        }
    }

    /// Has `count` clients do something, a tenth of them before anything is measured, and enough of them that memory is
    /// what so many at once take.
    async fn survives<F: Future<Output = ()> + Send + 'static>(
        &self,
        what: &str,
        count: u64,
        client: impl Fn(u64) -> F + Clone + Send + 'static,
    ) {
        let first = (count / 10).max(2 * AT_ONCE);
        self.run(0..first, client.clone()).await;
        let before = self.held_at_rest().await;
        let memory = self.process.resident_kib();
        let begin = Instant::now();
        self.run(first..count, client).await;
        let took = begin.elapsed();
        self.settles(&before).await;
        let after = self.process.resident_kib();
        println!(
            "soak {count} {what} in {:.1} s; before and after {before:?}; memory {} -> {} MiB",
            took.as_secs_f64(),
            memory >> 10,
            after >> 10
        );
        assert!(after <= memory + GROWTH_KIB, "{what}: memory grew from {memory} to {after} KiB");
    }

    async fn run<F: Future<Output = ()> + Send + 'static>(
        &self,
        numbers: std::ops::Range<u64>,
        client: impl Fn(u64) -> F + Clone + Send + 'static,
    ) {
        let next = Arc::new(AtomicU64::new(numbers.start));
        let mut workers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (next, client, end) = (Arc::clone(&next), client.clone(), numbers.end);
            workers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= end {
                        break;
                    }
                    client(number).await;
                }
            });
        }
        while let Some(worked) = workers.join_next().await {
            worked.unwrap();
        }
    }

    /// What the server holds when no client is there.
    async fn held_at_rest(&self) -> Held {
        let asked = Instant::now();
        loop {
            let held = self.held().await;
            if (held.connections, held.queries, held.readers, held.in_flight) == (0, 0, 0, 0) {
                return held;
            }
            assert!(asked.elapsed() < DEADLINE, "{held:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A client for whom the system keeps little of what it has not read yet.
async fn narrow_client(port: u16) -> RawClient {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut client = RawClient::over(socket.connect(([127, 0, 0, 1], port).into()).await.unwrap());
    let answers = client.log_in(&[("user", "soak")]).await;
    assert_eq!(answers.last().map(String::as_str), Some("Z I"), "{answers:?}");
    client
}

async fn cancel(port: u16, client: &RawClient) {
    let mut messages = Messages::default();
    frontend::cancel_request(client.pid, client.secret, &mut messages.0);
    let mut other = RawClient::open(port).await;
    other.send(messages).await;
    assert_eq!(other.next().await, None, "a cancel request is answered by the end of its connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_statements_leave_nothing() {
    let server = Soaked::start().await;
    let postgres = PostgresServer::shared();
    let (locker, connection) = tokio_postgres::connect(&postgres.url(), tokio_postgres::NoTls).await.unwrap();
    let _connection = SpawnedTask::spawn(connection);
    locker.batch_execute("BEGIN; LOCK TABLE soak_locked IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let port = server.port;
    let slowest = Arc::new(AtomicU64::new(0));
    let longest = Arc::clone(&slowest);
    let client = move |number: u64| {
        let longest = Arc::clone(&longest);
        async move {
            let sql = ENDLESS[number as usize % ENDLESS.len()];
            let mut client = narrow_client(port).await;
            client.send(Messages::default().query(sql)).await;
            client.next().await;
            let asked = Instant::now();
            cancel(port, &client).await;
            // Rows that were sent before the cancel come before its answer.
            let mut answer = client.next_message().await.unwrap();
            while matches!(answer.0, b'D' | b'd') {
                answer = client.next_message().await.unwrap();
            }
            longest.fetch_max(asked.elapsed().as_millis() as u64, Relaxed);
            let told = String::from_utf8_lossy(&answer.1);
            assert!(answer.0 == b'E' && told.contains("C57014\0"), "{sql}: {told}");
            assert_eq!(client.until_ready().await, ["Z I"]);
            assert_eq!(client.query("SELECT 1 AS a").await[2], "C SELECT 1");
        }
    };
    server.survives("cancels", size("SOAK_CANCELS", 100), client).await;
    let slowest = Duration::from_millis(slowest.load(Relaxed));
    println!("soak cancels: the slowest took {slowest:?}");
    assert!(slowest < promised(), "a cancel took {slowest:?}");
    // Nor does anything wait on at the store.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%soak_locked%'";
    let deadline = Instant::now() + DEADLINE;
    while postgres.query(waiting).await != [[Some("0".to_string())]] {
        assert!(Instant::now() < deadline, "a statement waits on at the store");
    }
    locker.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_clients_leave_nothing() {
    let server = Soaked::start().await;
    let port = server.port;
    let client = move |number: u64| async move {
        // Where the store's table is not locked, its rows come as well.
        let sql = ENDLESS[number as usize % ENDLESS.len()];
        if number.is_multiple_of(10) {
            let mut killed = Process::start(psql(port, &["-At", "-v", "FETCH_COUNT=10", "-c", "SELECT n FROM clicks"]));
            killed.line().await;
            killed.signal("KILL");
            assert!(!killed.finish().await.status.success());
            return;
        }
        let mut client = RawClient::connect(port).await;
        client.send(Messages::default().query(sql)).await;
        client.next().await;
        // A process that is killed has its socket reset where it has not read all, and else closed.
        if number.is_multiple_of(2) {
            client.socket.set_zero_linger().unwrap();
        }
    };
    server.survives("killed clients", size("SOAK_KILLS", 100), client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_come_and_go_leave_nothing() {
    let server = Soaked::start().await;
    let port = server.port;
    let client = move |number: u64| async move {
        let mut client = RawClient::connect(port).await;
        match number % 4 {
            // In the middle of a transaction with a cursor.
            0 => drop(client.query("BEGIN; DECLARE c CURSOR FOR SELECT n FROM clicks; FETCH 1 FROM c").await),
            // With a prepared statement and a portal that is suspended.
            1 => {
                let open = Messages::default().parse("s", "SELECT n FROM clicks").bind("", "s", &[], &[]);
                client.send(open.execute("", 1).flush()).await;
                assert_eq!(client.take(4).await, ["1", "2", "D 1", "s"]);
            }
            2 => assert_eq!(client.query("SELECT 1 AS a").await[1], "D 1"),
            _ => {}
        }
        if number.is_multiple_of(3) {
            client.send(Messages::default().bytes(b"X\0\0\0\x04")).await;
        }
    };
    server.survives("connects", size("SOAK_CONNECTS", 500), client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_killed_on_an_idle_stream_is_noticed() {
    let server = Soaked::start().await;
    let witness = connect_to(server.port, "soak").await;
    let reading = "SELECT count(*) FROM lookaside.queries WHERE sql LIKE '%FROM inbox%' AND sql NOT LIKE '%queries%'";
    let count = async || witness.query_one(reading, &[]).await.unwrap().get::<_, i64>(0);
    for sql in ["SELECT id FROM inbox", "COPY (SELECT id FROM inbox) TO STDOUT"] {
        for fetch_count in ["0", "1"] {
            let fetch_count = format!("FETCH_COUNT={fetch_count}");
            let reader = Process::start(psql(server.port, &["-v", &fetch_count, "-c", sql]));
            let begun = Instant::now();
            while count().await == 0 {
                assert!(begun.elapsed() < DEADLINE, "{sql} does not begin: {}", reader.stderr());
            }
            reader.signal("KILL");
            let killed = Instant::now();
            while count().await > 0 {
                assert!(killed.elapsed() < promised(), "{sql} with {fetch_count} runs on after {:?}", killed.elapsed());
            }
            println!("soak idle stream: {sql} with {fetch_count}: noticed after {:?}", killed.elapsed());
            reader.finish().await;
        }
    }
}

/// Reads rows of `ticks` for so long; tells how late the latest came, measured against the stream's pace from the first on.
async fn read_ticks(port: u16, lasting: Duration) -> Duration {
    let mut client = RawClient::connect(port).await;
    client.send(Messages::default().query(TICKS)).await;
    client.next_message().await.unwrap();
    let begin = Instant::now();
    let (mut lag, mut rows) = (Duration::ZERO, 0_u32);
    while begin.elapsed() < lasting {
        let (letter, body) = tokio::time::timeout(DEADLINE, client.next_message()).await.unwrap().unwrap();
        assert_eq!(letter as char, 'D');
        assert_row_is(&body, rows + 1);
        lag = lag.max(begin.elapsed().saturating_sub(Duration::from_millis(2) * rows));
        rows += 1;
    }
    lag
}

/// 500 rows a second of four kilobytes each, through a lookup table that all share.
const TICKS: &str = "SELECT t.n, t.pad, c.name FROM ticks AS t LEFT LOOKUP JOIN customers AS c ON t.n % 1000 = c.id";

/// The first value of a DataRow is this number.
fn assert_row_is(body: &[u8], number: u32) {
    let length = u32::from_be_bytes(body[2..6].try_into().unwrap()) as usize;
    assert_eq!(std::str::from_utf8(&body[6..6 + length]).unwrap(), number.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_that_stops_costs_no_memory_and_holds_up_nobody() {
    const GROWTH_MIB: u64 = 64;
    let stall = Duration::from_secs(size("SOAK_STALL_SECONDS", 3));
    let server = Soaked::start().await;
    // Ten readers that read, so that what ten readers need is no growth.
    let alone = read_all(server.port, 10, Duration::from_secs(2)).await;
    let before = server.held_at_rest().await;

    let mut stopped = narrow_client(server.port).await;
    stopped.send(Messages::default().query(TICKS)).await;
    stopped.next_message().await.unwrap();
    let memory = server.process.resident_kib();
    let begin = Instant::now();
    let lag = read_all(server.port, 9, stall).await;
    let grown = server.process.resident_kib().saturating_sub(memory);
    println!(
        "soak slow reader: away for {:?}: memory grew by {} MiB; nine others at most {lag:?} late, {alone:?} when alone",
        begin.elapsed(),
        grown >> 10
    );
    assert!(grown < GROWTH_MIB << 10, "memory grew by {grown} KiB");
    let most = (alone * 2).max(promised() / 4);
    assert!(lag < most, "while one did not read, another's row was {lag:?} late; {alone:?} when all read");
    // Nothing is lost to who reads on.
    for number in 1..=(stall.as_secs() as u32 * 500) {
        let (_, body) = tokio::time::timeout(DEADLINE, stopped.next_message()).await.unwrap().unwrap();
        assert_row_is(&body, number);
    }
    drop(stopped);
    server.settles(&before).await;
}

async fn read_all(port: u16, readers: u64, lasting: Duration) -> Duration {
    let readers = (0..readers).map(|_| SpawnedTask::spawn(read_ticks(port, lasting)));
    let lags = futures::future::join_all(readers).await;
    lags.into_iter().map(Result::unwrap).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_log_in_keep_nobody_out() {
    let server = Soaked::start().await;
    let before = server.held_at_rest().await;
    let mut half_open = vec![];
    for number in 0..500 {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        // Silent, after the question for TLS, or in the middle of the startup message.
        match number % 3 {
            0 => {}
            1 => {
                socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
                assert_eq!(socket.read_u8().await.unwrap(), b'N');
            }
            _ => socket.write_all(&[0, 0, 0, 50, 0, 3, 0, 0, b'u']).await.unwrap(),
        }
        half_open.push(socket);
    }
    let asked = Instant::now();
    let client = connect_to(server.port, "soak").await;
    assert_eq!(client.query_one("SELECT CAST(1 AS int)", &[]).await.unwrap().get::<_, i32>(0), 1);
    let took = asked.elapsed();
    println!("soak 500 half-open connections: a log-in and a query took {took:?}");
    assert!(took < promised(), "a log-in took {took:?}");
    drop((client, half_open));
    server.settles(&before).await;
}
