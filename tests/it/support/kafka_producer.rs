//! What sends messages to a broker: librdkafka from Rust, and the program `tests/clients/kafka_produce.py`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::ClientConfig;
use rdkafka::message::Header;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use crate::clients::installed;
use crate::support::lookaside::project;
use crate::support::process::Process;
use crate::support::raw::DEADLINE;

/// A message to send. What is not said is null, or the producer's choice.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

impl Sent {
    pub fn value(value: impl Into<Vec<u8>>) -> Sent {
        Sent { value: Some(value.into()), ..Sent::tombstone() }
    }

    /// Without a value.
    pub fn tombstone() -> Sent {
        Sent::default()
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Sent {
        self.key = Some(key.into());
        self
    }

    pub fn header(mut self, name: &str, value: Option<&[u8]>) -> Sent {
        self.headers.push((name.to_string(), value.map(<[u8]>::to_vec)));
        self
    }

    pub fn partition(mut self, partition: i32) -> Sent {
        self.partition = Some(partition);
        self
    }

    /// In milliseconds since 1970.
    pub fn timestamp(mut self, timestamp: i64) -> Sent {
        self.timestamp = Some(timestamp);
        self
    }

    fn line(&self) -> String {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
        let headers = self.headers.iter().map(|(name, value)| json!([name, text(value)])).collect::<Vec<_>>();
        let (key, value) = (text(&self.key), text(&self.value));
        let (partition, timestamp) = (self.partition, self.timestamp);
        let line =
            json!({"key": key, "value": value, "headers": headers, "partition": partition, "timestamp": timestamp});
        line.to_string() + "\n"
    }
}

/// A producer of librdkafka's for these settings, with what takes many and large messages.
pub fn producer(mut client: ClientConfig) -> BaseProducer {
    client.set("linger.ms", "5").set("message.max.bytes", "20000000").set("queue.buffering.max.messages", "1000000");
    client.create().unwrap()
}

/// Sends them and waits until all are acknowledged.
pub fn send(producer: &BaseProducer, topic: &str, messages: &[Sent]) {
    for message in messages {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic);
        (record.key, record.payload) = (message.key.as_deref(), message.value.as_deref());
        (record.partition, record.timestamp) = (message.partition, message.timestamp);
        for (key, value) in &message.headers {
            let headers = record.headers.take().unwrap_or_default();
            record.headers = Some(headers.insert(Header { key, value: value.as_ref() }));
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
}

/// What a producer was told by the broker.
#[derive(Debug, Deserialize)]
pub struct Acknowledged {
    pub count: u64,
    /// By partition.
    pub last_offsets: BTreeMap<i32, i64>,
    pub errors: Vec<String>,
}

/// The command of the producer in Python.
pub struct PythonProducer {
    command: Command,
}

impl PythonProducer {
    /// `address` is the broker's.
    pub fn new(address: &str, topic: &str) -> PythonProducer {
        let mut command = Command::new(installed("LOOKASIDE_TEST_PYTHON"));
        command.arg(project().join("tests/clients/kafka_produce.py"));
        command.args(["--brokers", address, "--topic", topic]);
        PythonProducer { command }
    }

    /// `gzip`, `snappy`, `lz4`, `zstd`; without this there is none.
    pub fn compression(self, codec: &str) -> PythonProducer {
        self.option("--compression", codec)
    }

    /// Sends all messages in a transaction, at whose end this is done: `commit` or `abort`.
    pub fn transaction(self, end: &str) -> PythonProducer {
        self.option("--transaction", end)
    }

    /// Without this, as fast as it goes.
    pub fn messages_per_second(self, rate: u64) -> PythonProducer {
        self.option("--rate", &rate.to_string())
    }

    fn option(mut self, name: &str, value: &str) -> PythonProducer {
        self.command.args([name, value]);
        self
    }

    /// Sends these and waits until all are acknowledged.
    pub async fn send(self, messages: &[Sent]) -> Acknowledged {
        let mut process = Process::start(self.command);
        process.write(&messages.iter().map(Sent::line).collect::<String>()).await;
        process.close_stdin();
        Producing::new(process).finish().await
    }

    /// Starts to send messages numbered from `first` on, with the key "n" and the value `{"n": n, "customer_id": n % 100}`.
    pub fn start(self, first: u64, count: u64) -> Producing {
        let command = self.option("--first", &first.to_string()).option("--count", &count.to_string()).command;
        Producing::new(Process::start(command))
    }
}

/// A producer at work.
pub struct Producing {
    process: Process,
    /// As it told last.
    acknowledged: u64,
    /// What it said at its end.
    told: Option<Acknowledged>,
}

impl Producing {
    fn new(process: Process) -> Producing {
        Producing { process, acknowledged: 0, told: None }
    }

    /// Waits until this many messages are acknowledged.
    pub async fn until(&mut self, count: u64) {
        while self.acknowledged < count {
            self.hear().await;
        }
    }

    /// Waits until all are sent, and asserts that all were acknowledged.
    pub async fn finish(mut self) -> Acknowledged {
        while self.told.is_none() {
            self.hear().await;
        }
        let told = self.told.take().unwrap();
        assert!(told.errors.is_empty(), "{told:?}");
        told
    }

    /// Takes the next line.
    async fn hear(&mut self) {
        let line = self.process.line().await;
        let line = line.unwrap_or_else(|| panic!("the producer ended: {}", self.process.stderr()));
        if let Some(number) = line.strip_prefix("acknowledged ") {
            self.acknowledged = number.parse().unwrap();
            return;
        }
        let told: Acknowledged = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.acknowledged = told.count;
        self.told = Some(told);
    }
}
