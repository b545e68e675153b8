//! What tests of Kafka stand on does what they take it to do: the broker, its producers, the proxy before it, the registry of
//! schemas, and librdkafka's own mock of a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::time::Instant;

use crate::support::kafka::{KafkaBroker, Received, client_of};
use crate::support::kafka_producer::{PythonProducer, Sent, producer, send};
use crate::support::kafka_proxy::{KafkaProxy, api_key};
use crate::support::raw::DEADLINE;
use crate::support::schema_registry::SchemaRegistry;

/// Shorter than anything that waits.
const SHORT: Duration = Duration::from_millis(500);

/// Partition 0 of a topic from its first message on.
fn reader(mut client: ClientConfig, topic: &str) -> BaseConsumer {
    client.set("group.id", "reader").set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&assigned).unwrap();
    consumer
}

/// The next message's value, over whatever happens to connections.
fn next(consumer: &BaseConsumer, patience: Duration) -> Option<String> {
    let end = Instant::now() + patience;
    loop {
        match consumer.poll(end.saturating_duration_since(Instant::now()))? {
            Ok(message) => return Some(String::from_utf8(message.payload().unwrap().to_vec()).unwrap()),
            Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
            )) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn values(received: &[Received]) -> Vec<String> {
    received.iter().map(|message| String::from_utf8(message.value.clone().unwrap()).unwrap()).collect()
}

#[test]
fn stopped_broker_keeps_its_messages_and_a_frozen_one_answers_later() {
    let broker = KafkaBroker::start();
    broker.create_topic("kept", 2);
    let producer = producer(broker.client());
    let messages = ["a", "b", "c"].map(|value| Sent::value(value).partition(1));
    send(&producer, "kept", &messages);
    broker.stop();
    broker.start_again();
    assert_eq!(broker.ends("kept"), [0, 3]);
    assert_eq!(values(&broker.received("kept")), ["a", "b", "c"]);
    let consumer = reader(broker.client(), "kept");
    broker.freeze();
    assert_eq!(next(&consumer, SHORT), None);
    broker.thaw();
    send(&producer, "kept", &[Sent::value("d").partition(0)]);
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("d"));
    broker.kill();
    broker.start_again();
    assert_eq!(broker.ends("kept").len(), 2);
}

#[test]
fn groups_and_what_they_commit_are_seen() {
    let broker = KafkaBroker::start();
    broker.create_topic("committed", 2);
    send(&producer(broker.client()), "committed", &[Sent::value("a").partition(0)]);
    assert!(broker.groups().is_empty());
    assert_eq!(broker.committed("reader", "committed"), [None, None]);
    let consumer = reader(broker.client(), "committed");
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("a"));
    assert!(broker.groups().is_empty(), "who only reads leaves no trace");
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    assert_eq!(broker.groups(), ["reader"]);
    assert_eq!(broker.committed("reader", "committed"), [Some(1), None]);
}

#[test]
fn topics_grow_and_go() {
    let broker = KafkaBroker::start();
    broker.create_topic("grown", 1);
    broker.add_partitions("grown", 3);
    assert_eq!(broker.ends("grown"), [0, 0, 0]);
    broker.delete_topic("grown");
    let metadata = broker.client().create::<BaseConsumer>().unwrap().fetch_metadata(None, DEADLINE).unwrap();
    assert!(metadata.topics().iter().all(|topic| topic.name() != "grown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn python_and_rust_send_the_same() {
    let broker = KafkaBroker::shared();
    let messages = [
        Sent::value("plain"),
        Sent::value([0, 255, 10]).key("k\u{e9}").header("who", Some(b"ana")).header("who", None).timestamp(1_000),
        Sent::tombstone().key("gone"),
        Sent::value(""),
    ]
    .map(|message| message.partition(0));
    for topic in ["same_rust", "same_python"] {
        broker.create_topic(topic, 1);
    }
    send(&producer(broker.client()), "same_rust", &messages);
    let told = PythonProducer::new(&broker.address(), "same_python").send(&messages).await;
    assert_eq!((told.count, told.last_offsets), (4, BTreeMap::from([(0, 3)])));
    assert_eq!(broker.received("same_rust"), broker.received("same_python"));
    for topic in ["same_rust", "same_python"] {
        let consumer = reader(broker.client(), topic);
        assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("plain"));
        let message = consumer.poll(DEADLINE).unwrap().unwrap();
        assert_eq!((message.timestamp().to_millis(), message.key()), (Some(1_000), Some("k\u{e9}".as_bytes())));
        let headers = message.headers().unwrap();
        let all = headers.iter().map(|header| (header.key, header.value)).collect::<Vec<_>>();
        assert_eq!(all, [("who", Some(b"ana".as_slice())), ("who", None)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_compresses_paces_and_keeps_to_transactions() {
    let broker = KafkaBroker::shared();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("compressed_{codec}");
        broker.create_topic(&topic, 1);
        let told = PythonProducer::new(&broker.address(), &topic).compression(codec).start(5, 100).finish().await;
        assert_eq!((told.count, told.last_offsets[&0]), (100, 99));
        let last = values(&broker.received(&topic)).pop();
        assert_eq!(last.as_deref(), Some(r#"{"n": 104, "customer_id": 4}"#), "{codec}");
    }
    broker.create_topic("paced", 1);
    let asked = Instant::now();
    let mut producing = PythonProducer::new(&broker.address(), "paced").messages_per_second(1000).start(0, 1000);
    producing.until(100).await;
    assert!(broker.ends("paced")[0] < 1000, "it goes on");
    assert_eq!(producing.finish().await.count, 1000);
    assert!(asked.elapsed() >= Duration::from_millis(990));

    broker.create_topic("transactions", 1);
    for (end, value) in [("abort", "never"), ("commit", "kept")] {
        PythonProducer::new(&broker.address(), "transactions").transaction(end).send(&[Sent::value(value)]).await;
    }
    assert_eq!(values(&broker.received("transactions")), ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_cuts_refuses_stalls_delays_and_counts() {
    let broker = KafkaBroker::shared();
    broker.create_topic("proxied", 1);
    let proxy = KafkaProxy::start(broker.port()).await;
    let producer = producer(broker.client());
    let tell = |value: &str| send(&producer, "proxied", &[Sent::value(value)]);
    let consumer = reader(client_of(&proxy.address()), "proxied");
    let named = consumer.fetch_metadata(None, DEADLINE).unwrap();
    assert_eq!(format!("127.0.0.1:{}", named.brokers()[0].port()), proxy.address());
    tell("before");
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("before"));
    assert!(proxy.requests(api_key::FETCH) > 0 && proxy.open_connections() > 0);

    let connections = proxy.connections();
    proxy.cut();
    tell("cut");
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("cut"));
    assert!(proxy.connections() > connections);

    proxy.refuse();
    proxy.cut();
    tell("refused");
    assert_eq!(next(&consumer, SHORT), None);
    assert_eq!(proxy.open_connections(), 0);
    proxy.accept();
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("refused"));

    proxy.stall();
    tell("stalled");
    let open = proxy.open_connections();
    assert_eq!(next(&consumer, SHORT), None);
    assert!(proxy.open_connections() >= open, "they stay open");
    proxy.resume();
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("stalled"));

    proxy.delay(SHORT);
    let asked = Instant::now();
    consumer.fetch_metadata(None, DEADLINE).unwrap();
    assert!(asked.elapsed() >= SHORT);
    proxy.delay(Duration::ZERO);
    // librdkafka asks for the coordinator of a group as soon as it has the group's name.
    let unwanted = [api_key::JOIN_GROUP, api_key::OFFSET_COMMIT];
    assert_eq!(unwanted.map(|key| proxy.requests(key)), [0; 2]);
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_answers_as_confluents() {
    let mut registry = SchemaRegistry::start().await;
    let ids = ["\"string\"", "\"long\""].map(|schema| registry.register("orders-value", schema));
    assert_eq!(ids, [1, 2]);
    let get = async |registry: &SchemaRegistry, path: &str| {
        let answer = reqwest::get(format!("{}{path}", registry.url())).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.unwrap()))
    };
    let latest = r#"{"id":2,"schema":"\"long\"","subject":"orders-value","version":2}"#;
    for (path, status, body) in [
        ("/schemas/ids/1", 200, r#"{"schema":"\"string\""}"#),
        ("/schemas/ids/3", 404, r#"{"error_code":40403,"message":"Schema 3 not found"}"#),
        ("/subjects/orders-value/versions/latest", 200, latest),
        ("/subjects/other/versions/latest", 404, r#"{"error_code":40401,"message":"Subject 'other' not found."}"#),
    ] {
        assert_eq!(get(&registry, path).await, Some((status, body.to_string())));
    }
    assert_eq!(registry.asked().len(), 4);
    registry.stop();
    assert_eq!(get(&registry, "/schemas/ids/1").await, None);
    registry.start_again().await;
    assert_eq!(get(&registry, "/schemas/ids/2").await.map(|(status, _)| status), Some(200));
}

#[test]
fn mock_cluster_moves_leaders_and_fails_as_told() {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic("mocked", 1, 3).unwrap();
    cluster.partition_leader("mocked", 0, Some(1)).unwrap();
    let client = client_of(&cluster.bootstrap_servers());
    let producer = producer(client.clone());
    let consumer = reader(client, "mocked");
    send(&producer, "mocked", &[Sent::value("first")]);
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("first"));
    cluster.partition_leader("mocked", 0, Some(2)).unwrap();
    send(&producer, "mocked", &[Sent::value("moved")]);
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("moved"));
    let not_leader = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    cluster.request_errors(RDKafkaApiKey::Fetch, &[not_leader, not_leader]);
    send(&producer, "mocked", &[Sent::value("despite errors")]);
    assert_eq!(next(&consumer, DEADLINE).as_deref(), Some("despite errors"));
}
