//! How near does a whole query over a topic of Kafka come to the client library alone, and to decoding alone? How much
//! later than the library's own consumer does a client have a row? And what does a session cost?
//!
//! `cargo bench --bench kafka`; it starts librdkafka's mock cluster for throughput, a private broker (noida-db, which
//! tests/run installs) for the rest, and the server.
//! `BENCH_ROWS` (400000) is the number of messages. Each line is one number, a median: `name  value unit`.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use datafusion::arrow::datatypes::Schema;
use lookaside::error::{Error, Result};
use lookaside::format::json_path::JsonPath;
use lookaside::format::message::{MessageDecoder, MessageFormat};
use lookaside::pg_type::PgType;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Message, Offset, TopicPartitionList};
use support::kafka::{KafkaBroker, client_of};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// What the tests' support of brokers asks of the tests.
mod clients {
    pub fn installed(variable: &str) -> String {
        std::env::var(variable).unwrap_or_else(|_| "target/drivers/bin/python".to_string())
    }
}

#[path = "../tests/it/support/mod.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the tests' own: they use all of it"
)]
mod support;

const REPEATS: usize = 5;
const PARTITIONS: i32 = 4;
/// The cluster keeps 5 MB of a partition.
const ORDER_PARTITIONS: i32 = 16;
/// Messages of the run that measures latency, and how many of them a second.
const PACED: usize = 10_000;
const PACED_PER_SECOND: u64 = 1_000;
const SESSIONS: usize = 100;

const CATALOG: &str = r#"
[connection.kafka]
type = "kafka"
brokers = "CLUSTER"

[connection.paced]
type = "kafka"
brokers = "BROKER"

[stream.orders]
connection = "kafka"
topic = "orders"
format = "json"
[stream.orders.columns]
order_id    = "bigint not null"
customer_id = "bigint"
product_id  = "bigint"
amount      = "numeric(12,2)"
quantity    = "int"
note        = "text"
express     = "boolean"
placed_at   = "timestamptz"

[stream.paced]
connection = "paced"
topic = "paced"
format = "json"
[stream.paced.columns]
sent        = "bigint not null"
customer_id = "bigint"

[lookup.customers]
type = "simulated"
key = { id = "bigint" }
columns = { name = "concat('customer ', id)" }
cache = { mode = "partial", max_rows = 20000 }
"#;

const JOINED: &str = "SELECT o.order_id, o.customer_id, o.product_id, o.amount, o.quantity, o.note, o.express, o.placed_at, c.name \
    FROM orders AS o WITH (start = 'earliest', until = 'latest') LOOKUP JOIN customers AS c ON o.customer_id = c.id";
const PACED_JOIN: &str = "SELECT p.sent, c.name FROM paced AS p LOOKUP JOIN customers AS c ON p.customer_id = c.id";

fn main() -> Result<()> {
    let rows = match std::env::var("BENCH_ROWS") {
        Ok(text) => text.parse().map_err(|error| Error::internal(format!("BENCH_ROWS={text}: {error}")))?,
        Err(_) => 400_000,
    };
    let broker = KafkaBroker::start();
    broker.create_topic("paced", PARTITIONS);
    // The other broker answers a fetch with the whole topic, so that nothing can be done beside fetching.
    let cluster = MockCluster::new(1).map_err(internal)?;
    cluster.create_topic("orders", ORDER_PARTITIONS, 1).map_err(internal)?;
    let cluster = cluster.bootstrap_servers();
    let messages: Vec<String> = (0..rows).map(order).collect();
    produce(&cluster, "orders", &messages)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
    let (server, port, _folder) = runtime.block_on(start(&cluster, &broker))?;
    throughput(&runtime, &cluster, port, &messages)?;
    latency(&runtime, &broker, port)?;
    sessions(&runtime, &server, port)
}

/// A message of eight fields.
fn order(n: usize) -> String {
    format!(
        "{{\"order_id\": {}, \"customer_id\": {}, \"product_id\": {}, \"amount\": {}.{:02}, \"quantity\": {}, \"note\": \"order number {n}\", \
         \"express\": {}, \"placed_at\": \"2026-02-28T12:{:02}:{:02}.{:03}Z\"}}",
        1_000_000 + n,
        n * 7919 % 10_000,
        n * 31 % 500,
        n % 1000,
        n % 100,
        1 + n % 9,
        n.is_multiple_of(2),
        n / 60 % 60,
        n % 60,
        n % 1000,
    )
}

/// The library's own consumer, decoding, and the whole query, by turns, so that what else the machine does meets all.
fn throughput(runtime: &tokio::runtime::Runtime, cluster: &str, port: u16, messages: &[String]) -> Result<()> {
    let rows = messages.len() as f64;
    let mut client = runtime.block_on(Client::connect(port))?;
    let mut rates: [Vec<f64>; 4] = Default::default();
    // The first round warms up, and fills the cache.
    for round in 0..=REPEATS {
        let begun = Instant::now();
        let read = consume(cluster, "orders")?;
        let consumed = begun.elapsed();
        let begun = Instant::now();
        let decoded = decode(messages)?;
        let decoding = begun.elapsed();
        let copied = runtime.block_on(client.time(&format!("COPY ({JOINED}) TO STDOUT")))?;
        let selected = runtime.block_on(client.time(JOINED))?;
        for counted in [read, decoded, copied.0, selected.0] {
            if counted != messages.len() as u64 {
                return Err(Error::internal(format!("{counted} rows instead of {rows}")));
            }
        }
        if round > 0 {
            let times = [consumed, decoding, copied.1, selected.1];
            rates.iter_mut().zip(times).for_each(|(rates, time)| rates.push(rows / time.as_secs_f64()));
        }
    }
    let [consumer, decoding, copied, selected] = rates.map(median);
    let slower = consumer.min(decoding);
    show("kafka_consumer_alone", consumer / 1e6, "Mmessages/s");
    show("json_decoding_alone", decoding / 1e6, "Mrows/s");
    show("kafka_join_copied", copied / 1e6, "Mrows/s");
    show("kafka_join_selected", selected / 1e6, "Mrows/s");
    show("kafka_join_copied_of_slower", 100.0 * copied / slower, "%");
    show("kafka_join_selected_of_slower", 100.0 * selected / slower, "%");
    Ok(())
}

/// All messages of a topic, by the library's own consumer; their number.
fn consume(cluster: &str, topic: &str) -> Result<u64> {
    let consumer = consumer(cluster)?;
    let mut assigned = TopicPartitionList::new();
    let mut left = 0;
    for partition in 0..ORDER_PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, partition, support::raw::DEADLINE).map_err(internal)?;
        left += high - low;
        assigned.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(internal)?;
    }
    consumer.assign(&assigned).map_err(internal)?;
    let (mut count, mut bytes) = (0, 0);
    while left > 0 {
        let Some(message) = consumer.poll(support::raw::DEADLINE) else {
            return Err(Error::internal("no message in time"));
        };
        bytes += message.map_err(internal)?.payload().map_or(0, <[u8]>::len);
        count += 1;
        left -= 1;
    }
    std::hint::black_box(bytes);
    Ok(count)
}

fn consumer(address: &str) -> Result<BaseConsumer> {
    let mut config = client_of(address);
    config.set("group.id", "bench").set("enable.auto.commit", "false");
    // As ours: else it rests for a second whenever it has fetched enough.
    config.set("fetch.queue.backoff.ms", "10");
    config.create().map_err(internal)
}

/// The rows of all messages, which are in memory; their number.
fn decode(messages: &[String]) -> Result<u64> {
    let columns = [
        ("order_id", "bigint"),
        ("customer_id", "bigint"),
        ("product_id", "bigint"),
        ("amount", "numeric(12,2)"),
        ("quantity", "int"),
        ("note", "text"),
        ("express", "boolean"),
        ("placed_at", "timestamptz"),
    ];
    let fields = columns.iter().map(|(name, pg_type)| Ok(PgType::parse(pg_type)?.field(name, true)));
    let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
    let paths = columns.iter().map(|(name, _)| JsonPath::member(name)).collect();
    let mut decoder = MessageDecoder::try_new(&MessageFormat::Json { paths }, &schema)?;
    let mut rows = 0;
    for message in messages {
        decoder.append(Some(message.as_bytes())).map_err(|failure| Error::internal(format!("{failure:?}")))?;
        if decoder.is_full() {
            rows += decoder.finish()?.num_rows();
        }
    }
    Ok((rows + decoder.finish()?.num_rows()) as u64)
}

/// From the call that sends a message to its receipt, by the library's own consumer and by a client of the server, both
/// of the same messages.
fn latency(runtime: &tokio::runtime::Runtime, broker: &KafkaBroker, port: u16) -> Result<()> {
    let producer = producer(broker)?;
    let is_ready = AtomicBool::new(false);
    let mut client = runtime.block_on(Client::connect(port))?;
    let (mut theirs, mut ours) = std::thread::scope(|scope| {
        let listening = scope.spawn(|| listen(broker, &is_ready));
        let ours = runtime.block_on(async {
            client.ask(PACED_JOIN).await?;
            while !is_ready.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let sending = scope.spawn(|| send_paced(&producer));
            let ours = client.latencies(PACED).await;
            sending.join().map_err(|_| Error::internal("the producer failed"))??;
            ours
        })?;
        let theirs = listening.join().map_err(|_| Error::internal("the consumer failed"))??;
        Ok::<_, Error>((theirs, ours))
    })?;
    for (name, p) in [("p50", 0.5), ("p99", 0.99)] {
        let (theirs, ours) = (quantile(&mut theirs, p), quantile(&mut ours, p));
        show(&format!("kafka_consumer_latency_{name}"), theirs, "ms");
        show(&format!("kafka_join_latency_{name}"), ours, "ms");
        show(&format!("kafka_join_latency_more_{name}"), ours - theirs, "ms");
    }
    Ok(())
}

/// Sends messages at a steady rate, each with the moment at which it is sent.
fn send_paced(producer: &ThreadedProducer<DefaultProducerContext>) -> Result<()> {
    let begun = Instant::now();
    for n in 0..PACED {
        let due = Duration::from_micros(n as u64 * 1_000_000 / PACED_PER_SECOND);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        let message = format!("{{\"sent\": {}, \"customer_id\": {}}}", now(), n % 1000);
        producer.send(BaseRecord::<(), _>::to("paced").payload(&message)).map_err(|(error, _)| internal(error))?;
    }
    producer.flush(support::raw::DEADLINE).map_err(internal)
}

fn listen(broker: &KafkaBroker, is_ready: &AtomicBool) -> Result<Vec<f64>> {
    let consumer = consumer(&broker.address())?;
    let mut assigned = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let (_, high) = consumer.fetch_watermarks("paced", partition, support::raw::DEADLINE).map_err(internal)?;
        assigned.add_partition_offset("paced", partition, Offset::Offset(high)).map_err(internal)?;
    }
    consumer.assign(&assigned).map_err(internal)?;
    // Nothing comes yet; it connects meanwhile.
    let _ = consumer.poll(Duration::from_secs(1));
    is_ready.store(true, Relaxed);
    let mut waits = Vec::with_capacity(PACED);
    while waits.len() < PACED {
        let Some(message) = consumer.poll(support::raw::DEADLINE) else {
            return Err(Error::internal("no message in time"));
        };
        let now = now();
        let message = message.map_err(internal)?;
        let text = message.payload().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        let sent = text.strip_prefix("{\"sent\": ").and_then(|rest| rest.split(',').next()?.parse::<i64>().ok());
        waits.push((now - sent.ok_or_else(|| Error::internal(format!("sent when? {text}")))?) as f64 / 1e3);
    }
    Ok(waits)
}

/// Sessions that wait for rows of one topic: threads and memory for each, and what is left of them.
fn sessions(runtime: &tokio::runtime::Runtime, server: &Child, port: u16) -> Result<()> {
    let process = server.id().ok_or_else(|| Error::internal("the server has gone"))?;
    let before = held(process)?;
    let mut clients = Vec::with_capacity(SESSIONS);
    for _ in 0..SESSIONS {
        let mut client = runtime.block_on(Client::connect(port))?;
        runtime.block_on(client.ask(PACED_JOIN))?;
        clients.push(client);
    }
    std::thread::sleep(Duration::from_secs(3));
    let during = held(process)?;
    drop(clients);
    let deadline = Instant::now() + support::raw::DEADLINE;
    while held(process)?.0 > before.0 + 2.0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let after = held(process)?;
    show("kafka_session_threads", (during.0 - before.0) / SESSIONS as f64, "each");
    show("kafka_session_memory", (during.1 - before.1) / SESSIONS as f64, "MiB each");
    show("kafka_sessions_threads_left", after.0 - before.0, "of all");
    show("kafka_sessions_memory_left", after.1 - before.1, "MiB of all");
    Ok(())
}

/// Threads and resident memory, in MiB.
fn held(process: u32) -> Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).map_err(internal)?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN)
    };
    Ok((number("Threads:"), number("VmRSS:") / 1024.0))
}

fn producer(broker: &KafkaBroker) -> Result<ThreadedProducer<DefaultProducerContext>> {
    let mut config = broker.client();
    config.set("linger.ms", "0").set("queue.buffering.max.messages", "1000000");
    config.create().map_err(internal)
}

fn produce(cluster: &str, topic: &str, messages: &[String]) -> Result<()> {
    let mut config = client_of(cluster);
    config.set("linger.ms", "20").set("batch.num.messages", "10000").set("queue.buffering.max.messages", "2000000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().map_err(internal)?;
    for (partition, message) in (0..ORDER_PARTITIONS).cycle().zip(messages) {
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(message);
        producer.send(record).map_err(|(error, _)| internal(error))?;
    }
    producer.flush(Duration::from_secs(120)).map_err(internal)
}

async fn start(cluster: &str, broker: &KafkaBroker) -> Result<(Child, u16, tempfile::TempDir)> {
    let folder = tempfile::tempdir().map_err(internal)?;
    let path: PathBuf = folder.path().join("catalog.toml");
    std::fs::write(&path, CATALOG.replace("CLUSTER", cluster).replace("BROKER", &broker.address()))
        .map_err(internal)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookaside"));
    command.arg("serve").arg(&path).args(["--listen", "127.0.0.1:0"]);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = command.spawn().map_err(internal)?;
    let stdout = child.stdout.take().ok_or_else(|| Error::internal("the server has no stdout"))?;
    let line = BufReader::new(stdout).lines().next_line().await.map_err(internal)?.unwrap_or_default();
    let port = line.rsplit(':').next().and_then(|port| port.parse().ok());
    Ok((child, port.ok_or_else(|| Error::internal(format!("the server's first line is {line:?}")))?, folder))
}

/// A client that counts rows.
struct Client {
    socket: TcpStream,
    input: BytesMut,
}

impl Client {
    async fn connect(port: u16) -> Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(internal)?;
        socket.set_nodelay(true).map_err(internal)?;
        let mut client = Client { socket, input: BytesMut::with_capacity(1 << 20) };
        let parameters = "user\0bench\0database\0bench\0\0";
        let mut message = BytesMut::new();
        message.put_u32(8 + parameters.len() as u32);
        message.put_u32(3 << 16);
        message.put_slice(parameters.as_bytes());
        client.socket.write_all(&message).await.map_err(internal)?;
        while client.message().await?.0 != b'Z' {}
        Ok(client)
    }

    /// Sends a query whose rows never end, and waits until it has begun.
    async fn ask(&mut self, query: &str) -> Result<()> {
        self.send(query).await?;
        while self.message().await?.0 != b'T' {}
        Ok(())
    }

    async fn send(&mut self, query: &str) -> Result<()> {
        let mut message = BytesMut::new();
        message.put_u8(b'Q');
        message.put_u32(5 + query.len() as u32);
        message.put_slice(query.as_bytes());
        message.put_u8(0);
        self.socket.write_all(&message).await.map_err(internal)
    }

    /// The number of rows of a query, and its time from being sent to its end.
    async fn time(&mut self, query: &str) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        self.send(query).await?;
        let mut rows = 0;
        loop {
            match self.message().await?.0 {
                b'D' | b'd' => rows += 1,
                b'Z' => return Ok((rows, begun.elapsed())),
                _ => {}
            }
        }
    }

    /// How long ago the moment in the first column was, of each row.
    async fn latencies(&mut self, rows: usize) -> Result<Vec<f64>> {
        let mut waits = Vec::with_capacity(rows);
        while waits.len() < rows {
            let (kind, body) = self.message().await?;
            if kind != b'D' {
                continue;
            }
            let now = now();
            let length = (&body[2..6]).get_u32() as usize;
            let sent = body.get(6..6 + length).and_then(|text| std::str::from_utf8(text).ok()?.parse::<i64>().ok());
            waits.push((now - sent.ok_or_else(|| Error::internal("a row without a moment"))?) as f64 / 1e3);
        }
        Ok(waits)
    }

    /// The next message: its kind, and what is in it.
    async fn message(&mut self) -> Result<(u8, BytesMut)> {
        loop {
            if let Some(head) = self.input.get(..5) {
                let (kind, length) = (head[0], (&head[1..]).get_u32() as usize + 1);
                if self.input.len() >= length {
                    let mut message = self.input.split_to(length);
                    let body = message.split_off(5);
                    if kind == b'E' {
                        return Err(Error::internal(String::from_utf8_lossy(&body).into_owned()));
                    }
                    return Ok((kind, body));
                }
            }
            self.input.reserve(1 << 20);
            if self.socket.read_buf(&mut self.input).await.map_err(internal)? == 0 {
                return Err(Error::internal("the server has closed the connection"));
            }
        }
    }
}

/// Microseconds since 1970.
fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

fn show(name: &str, value: f64, unit: &str) {
    println!("{name}  {value:.3} {unit}");
}

fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

fn quantile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(((values.len() as f64 - 1.0) * p).round() as usize).copied().unwrap_or(f64::NAN)
}

fn internal(error: impl Display) -> Error {
    Error::internal(error.to_string())
}
