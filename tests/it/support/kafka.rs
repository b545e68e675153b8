//! Private brokers that speak Kafka's protocol (noida-db, which tests/run installs) on free ports, each in a directory of
//! its own, which go with the test process.
//!
//! Clients reach it through a proxy, unless they go to its own port: it does not wait for messages when it has none, and when
//! it is told to stop it acknowledges what it does not keep. The proxy does the former, and sees to the latter by
//! closing connections first.
//!
//! How this broker differs from Kafka, as far as tests meet it: it keeps everything in memory and writes it to a file
//! within a second and when it is told to stop, so that [`KafkaBroker::kill`] takes back the newest messages; it answers
//! a fetch with all there is up to the end, whatever the client asked for, so that a client that is more than 100 MB behind
//! gets nothing (compressed messages count as such); it forgets the sequences of producers when it is started again,
//! which ends idempotent ones; of a producer that has aborted a transaction, it tells readers that stand behind that to leave
//! out the next one too.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::clients::installed;
use crate::support::kafka_proxy::KafkaProxy;
use crate::support::raw::DEADLINE;

/// A broker that runs while this lives.
pub struct KafkaBroker {
    directory: PathBuf,
    port: u16,
    server: Mutex<Child>,
    front: KafkaProxy,
    guard: Child,
    /// Its end of file tells the guard to clean up: also if the test process is killed.
    guard_input: Option<ChildStdin>,
}

/// A message as a consumer of librdkafka reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// Waits for the end of its input, then kills the broker of `$1` and deletes it.
const GUARD: &str = r#"
read -r _
if [ -f "$1/pid" ]; then kill -KILL "$(cat "$1/pid")"; fi 2>/dev/null
rm -rf "$1"
"#;

impl KafkaBroker {
    /// The broker for all tests that leave it as it is. Topics are the tests' own: each names them after itself.
    pub fn shared() -> &'static KafkaBroker {
        static SHARED: OnceLock<KafkaBroker> = OnceLock::new();
        SHARED.get_or_init(KafkaBroker::start)
    }

    pub fn start() -> KafkaBroker {
        let directory = tempfile::Builder::new().prefix("lookaside-kafka-").tempdir().unwrap().keep();
        // Somebody else may take the port between the question and its use: ask again.
        let started = (0..5).find_map(|_| {
            let port = free_port();
            let mut server = spawn(&directory, port);
            is_up(&mut server, port).then_some((port, Mutex::new(server)))
        });
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        let (port, server) = started.unwrap_or_else(|| panic!("the broker does not start: {}", log()));
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let guard_input = guard.stdin.take();
        let front = KafkaProxy::start_on_thread(port);
        KafkaBroker { directory, port, server, front, guard, guard_input }
    }

    /// Its own, for a proxy of the tests'.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As clients are told of it.
    pub fn address(&self) -> String {
        self.front.address()
    }

    /// Stops it as an administrator does: it keeps all that it has acknowledged to clients at [`KafkaBroker::address`].
    pub fn stop(&self) {
        self.front.refuse();
        self.front.cut();
        // What had come until then is seen to before this.
        let own = client_of(&format!("127.0.0.1:{}", self.port)).create::<BaseConsumer>().unwrap();
        own.fetch_metadata(None, DEADLINE).unwrap();
        self.signal("-TERM");
        self.server.lock().unwrap().wait().unwrap();
    }

    /// Kills it, as a power cut would. What it has acknowledged within the last second may be gone, and its offsets are
    /// given anew.
    pub fn kill(&self) {
        let mut server = self.server.lock().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Starts again what was stopped, on the same port. It answers when it has read what it holds.
    pub fn start_again(&self) {
        let mut server = self.server.lock().unwrap();
        *server = spawn(&self.directory, self.port);
        assert!(is_up(&mut server, self.port), "the broker does not start again");
        self.front.accept();
    }

    /// Stops it from running; connections stay open and unanswered.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen broker run again.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.server.lock().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// A topic that keeps its messages however old they say they are, and takes them of up to 20 MB.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = topic.set("retention.ms", "-1").set("max.message.bytes", "20000000");
        let made = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
    }

    /// Makes partitions until there are this many.
    pub fn add_partitions(&self, topic: &str, count: usize) {
        let partitions = NewPartitions::new(topic, count);
        let made = block_on(self.admin().create_partitions([&partitions], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
    }

    pub fn delete_topic(&self, name: &str) {
        let gone = block_on(self.admin().delete_topics(&[name], &AdminOptions::new())).unwrap();
        gone.into_iter().for_each(|gone| drop(gone.unwrap()));
    }

    /// The names of all consumer groups that it knows.
    pub fn groups(&self) -> Vec<String> {
        let list = self.consumer("tests").fetch_group_list(None, DEADLINE).unwrap();
        list.groups().iter().map(|group| group.name().to_string()).collect()
    }

    /// What a group has committed in each partition of a topic.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(topic, 0, self.partitions(topic) - 1);
        let told = self.consumer(group).committed_offsets(asked, DEADLINE).unwrap();
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        told.elements().iter().map(offset).collect()
    }

    fn partitions(&self, topic: &str) -> i32 {
        let metadata = self.consumer("tests").fetch_metadata(Some(topic), DEADLINE).unwrap();
        metadata.topics()[0].partitions().len() as i32
    }

    /// The offset that the next message gets, in each partition of a topic.
    pub fn ends(&self, topic: &str) -> Vec<i64> {
        let consumer = self.consumer("tests");
        let end = |partition| consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap().1;
        (0..self.partitions(topic)).map(end).collect()
    }

    /// All messages of a topic, by partition and offset: those of aborted transactions are not among them.
    pub fn received(&self, topic: &str) -> Vec<Received> {
        let consumer = self.consumer("tests");
        let mut left = self.ends(topic).into_iter().map(|end| end > 0).collect::<Vec<_>>();
        let mut assigned = TopicPartitionList::new();
        for partition in (0..).zip(&left).filter_map(|(partition, has_any)| has_any.then_some(partition)) {
            assigned.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&assigned).unwrap();
        let mut all = vec![];
        while left.contains(&true) {
            match consumer.poll(DEADLINE).expect("a message in time") {
                Ok(message) => all.push(Received {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                }),
                Err(rdkafka::error::KafkaError::PartitionEOF(partition)) => left[partition as usize] = false,
                Err(error) => panic!("{error}"),
            }
        }
        all.sort();
        all
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.create().unwrap()
    }

    /// The settings of a client of this broker.
    pub fn client(&self) -> ClientConfig {
        client_of(&self.address())
    }
}

/// The settings of a client of a broker or of a proxy.
pub fn client_of(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("reconnect.backoff.max.ms", "200").set("log_level", "0");
    config.set("topic.metadata.refresh.interval.ms", "500");
    config
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        drop(self.guard_input.take());
        let _ = self.guard.wait();
        let _ = self.server.get_mut().map(Child::wait);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The broker's program is in the package; the Python that has the package knows where.
fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let ask = "import importlib.resources; print(importlib.resources.files('noida_db') / 'noida-db')";
        let output = Command::new(installed("LOOKASIDE_TEST_PYTHON")).args(["-c", ask]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "noida-db is missing, which tests/run installs: {errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    })
}

fn spawn(directory: &Path, port: u16) -> Child {
    let log = fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = Command::new(program());
    command.args(["start", "--only", "kafka", "--kafka-port", &port.to_string(), "--data-dir"]);
    command.arg(directory.join("data"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let server = command.spawn().unwrap();
    // For the guard.
    fs::write(directory.join("pid"), server.id().to_string()).unwrap();
    server
}

/// Waits until it listens; false if it has ended instead.
fn is_up(server: &mut Child, port: u16) -> bool {
    loop {
        if server.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1)).is_ok() {
            return true;
        }
        std::thread::yield_now();
    }
}
