//! What becomes of a reading when its broker stops, when its connections are cut or held, and when it is told of errors: no
//! row is lost, none comes twice, and the order of each partition is kept.
//!
//! Three rounds here; `tests/soak/run kafka` makes twenty. `SOAK_ROUNDS` says how many.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::time::{Instant, timeout};

use crate::source_kafka::{catalog, live, next, numbered, numbers, shown};
use crate::support::kafka::{KafkaBroker, client_of};
use crate::support::kafka_producer::{PythonProducer, Sent, producer, send};
use crate::support::kafka_proxy::KafkaProxy;
use crate::support::lookaside::Lookaside;
use crate::support::process::{Process, psql};
use crate::support::raw::DEADLINE;

const PARTITIONS: i32 = 3;
const MESSAGES_PER_SECOND: u64 = 2000;
/// What is sent between one failure and the next.
const MESSAGES_PER_ROUND: u64 = 1000;
/// How long connections are held. Longer than clients wait for an answer in the long form alone.
const STALL: Duration = Duration::from_millis(300);

/// Messages of a thousand bytes, which are more than there is room for on their way.
const WAITING: usize = 60_000;

fn rounds() -> u64 {
    std::env::var("SOAK_ROUNDS").map_or(3, |text| text.parse().unwrap())
}

/// Reads a topic through a proxy while messages come, with a failure in each round.
async fn under_load(topic: &str, mut fail: impl AsyncFnMut(&KafkaBroker, &KafkaProxy)) {
    let broker = KafkaBroker::start();
    broker.create_topic(topic, PARTITIONS);
    let proxy = KafkaProxy::start(broker.port()).await;
    let server = Lookaside::start(&catalog(&proxy.address(), &numbers(topic))).await;
    let client = server.connect().await;
    let sql = format!(
        "SELECT o.kafka_partition, o.kafka_offset, o.n, c.name FROM {topic} AS o WITH (start = 'earliest')
         LOOKUP JOIN customers AS c ON o.n = c.id"
    );
    let mut rows = live(&client, &sql).await;
    let total = (rounds() + 1) * MESSAGES_PER_ROUND;
    let sending = PythonProducer::new(&broker.address(), topic).messages_per_second(MESSAGES_PER_SECOND);
    let mut sending = sending.start(0, total);
    let started = Instant::now();
    let failing = async {
        for round in 1..=rounds() {
            sending.until(round * MESSAGES_PER_ROUND).await;
            fail(&broker, &proxy).await;
        }
        sending.finish().await
    };
    // The producer sends again what was not acknowledged, so there may be more than it counts.
    let (mut read, mut count) = (BTreeMap::<i32, Vec<i64>>::new(), 0);
    let mut take = |row: String| {
        let fields = row.split('\t').map(str::to_string).collect::<Vec<_>>();
        let number = |field: usize| fields[field].parse::<i64>().unwrap();
        let partition = read.entry(number(0) as i32).or_default();
        assert_eq!(number(1), partition.len() as i64, "partition {}: {row}", number(0));
        assert_eq!(fields[3], format!("customer {}", number(2)));
        partition.push(number(2));
        count += 1;
        count
    };
    let mut failing = std::pin::pin!(failing);
    let mut taken = 0;
    let acknowledged = loop {
        tokio::select! {
            acknowledged = &mut failing => break acknowledged,
            row = next(&mut rows) => taken = take(row),
        };
    };
    assert_eq!(acknowledged.count, total);
    let there = broker.ends(topic).into_iter().sum::<i64>();
    while taken < there {
        taken = take(next(&mut rows).await);
    }
    let mut expected: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for message in broker.received(topic) {
        let value: serde_json::Value = serde_json::from_slice(&message.value.unwrap()).unwrap();
        expected.entry(message.partition).or_default().push(value["n"].as_i64().unwrap());
    }
    assert_eq!(read, expected);
    println!(
        "kafka {topic}: {there} rows over {} failures in {:?}, none lost, doubled or out of order",
        rounds(),
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_that_is_stopped_and_started_again_loses_and_doubles_nothing() {
    under_load("stopped", async |broker: &KafkaBroker, _: &KafkaProxy| {
        broker.stop();
        broker.start_again();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_lose_and_double_nothing() {
    under_load("cut", async |_: &KafkaBroker, proxy: &KafkaProxy| proxy.cut()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_held_lose_and_double_nothing() {
    under_load("stalled", async |_: &KafkaBroker, proxy: &KafkaProxy| {
        proxy.stall();
        tokio::time::sleep(STALL).await;
        proxy.resume();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_refused_for_a_while_lose_and_double_nothing() {
    under_load("refused", async |_: &KafkaBroker, proxy: &KafkaProxy| {
        let connections = proxy.connections();
        proxy.refuse();
        proxy.cut();
        let tried = async {
            while proxy.connections() < connections + 2 {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, tried).await.expect("it tries again");
        proxy.accept();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_broker_is_waited_for() {
    under_load("frozen", async |broker: &KafkaBroker, _: &KafkaProxy| {
        broker.freeze();
        tokio::time::sleep(STALL).await;
        broker.thaw();
    })
    .await;
}

/// Asks until the stream is in this state.
async fn until_state(server: &Lookaside, stream: &str, expected: &str) {
    let sql = format!("SELECT state FROM lookaside.streams WHERE name = '{stream}'");
    let client = server.connect().await;
    let reached = async { while client.query_one(&sql, &[]).await.unwrap().get::<_, String>(0) != expected {} };
    timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("{stream} does not become {expected}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn state_error_and_lag_of_a_stream_are_told() {
    let broker = KafkaBroker::start();
    broker.create_topic("watched", 2);
    let proxy = KafkaProxy::start(broker.port()).await;
    let server = Lookaside::start(&catalog(&proxy.address(), &numbers("watched"))).await;
    until_state(&server, "watched", "idle").await;
    let client = server.connect().await;
    let mut rows = live(&client, "SELECT n FROM watched").await;
    until_state(&server, "watched", "reading").await;
    send(&producer(broker.client()), "watched", &numbered(0, [1]));
    assert_eq!(next(&mut rows).await, "1");

    proxy.refuse();
    proxy.cut();
    until_state(&server, "watched", "waiting").await;
    let sql =
        "SELECT last_error, last_error_at > now() - interval '1 minute' FROM lookaside.streams WHERE name = 'watched'";
    let told = shown(server.port, sql).await;
    assert!(told[0].contains(&proxy.address()) && told[0].ends_with("|t"), "{told:?}");
    proxy.accept();
    until_state(&server, "watched", "reading").await;
    send(&producer(broker.client()), "watched", &numbered(1, [2]));
    assert_eq!(next(&mut rows).await, "2");

    // It reads as far as its reader takes rows; psql takes them as its own reader does.
    drop(rows);
    let sql = "COPY (SELECT n, repeat('x', 1000) FROM watched WITH (start = 'earliest')) TO STDOUT";
    let mut lagging = Process::start(psql(server.port, &["-c", sql]));
    assert!(lagging.line().await.is_some());
    let wide = format!(r#"{{"n": 3, "pad": "{}"}}"#, "x".repeat(1000));
    let messages = (0..WAITING).map(|_| Sent::value(wide.clone()).partition(0)).collect::<Vec<_>>();
    send(&producer(broker.client()), "watched", &messages);
    let client = server.connect().await;
    let sql = "SELECT lag FROM lookaside.streams WHERE name = 'watched'";
    let lag = async || client.query_one(sql, &[]).await.unwrap().get::<_, Option<i64>>(0);
    let reached = async { while lag().await.is_none_or(|lag| lag < 1000) {} };
    timeout(DEADLINE, reached).await.expect("a reader that does not read is behind");
    for _ in 0..WAITING + 1 {
        assert!(lagging.line().await.is_some());
    }
    let reached = async { while lag().await != Some(0) {} };
    timeout(DEADLINE, reached).await.expect("a reader that has read all is not behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_pass_and_leaders_that_move_lose_nothing() {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic("led", 1, 3).unwrap();
    cluster.partition_leader("led", 0, Some(1)).unwrap();
    let server = Lookaside::start(&catalog(&cluster.bootstrap_servers(), &numbers("led"))).await;
    let client = server.connect().await;
    let mut rows = live(&client, "SELECT n FROM led WITH (start = 'earliest')").await;
    let producer = producer(client_of(&cluster.bootstrap_servers()));
    let mut sent = 0;
    let mut send_next = || {
        sent += 1;
        send(&producer, "led", &numbered(0, [sent]));
        sent.to_string()
    };
    let first = send_next();
    assert_eq!(next(&mut rows).await, first);
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
    ] {
        cluster.request_errors(RDKafkaApiKey::Fetch, &[error, error]);
        let row = send_next();
        assert_eq!(next(&mut rows).await, row, "{error:?}");
    }
    for leader in [2, 3, 1] {
        cluster.partition_leader("led", 0, Some(leader)).unwrap();
        let row = send_next();
        assert_eq!(next(&mut rows).await, row, "the leader is {leader}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_brokers_and_long_ways_only_take_longer() {
    let broker = KafkaBroker::shared();
    broker.create_topic("far", 2);
    send(&producer(broker.client()), "far", &numbered(1, 0..100));
    let proxy = KafkaProxy::start(broker.port()).await;
    proxy.delay(Duration::from_millis(200));
    let server = Lookaside::start(&catalog(&proxy.address(), &numbers("far"))).await;
    let sql = "SELECT count(*), min(n), max(n) FROM far WITH (start = 'earliest', until = 'latest')";
    assert_eq!(shown(server.port, sql).await, ["100|0|99"]);
}
