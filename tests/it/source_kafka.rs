//! Streams over topics of Kafka, as psql and other clients read them: metadata, where a reading begins
//! and ends, transactions, and what it leaves at the broker.

use futures::StreamExt;
use rdkafka::producer::Producer as _;
use tokio_postgres::{Client, CopyOutStream};

use crate::support::kafka::KafkaBroker;
use crate::support::kafka_producer::{PythonProducer, Sent, producer, send};
use crate::support::kafka_proxy::{KafkaProxy, api_key};
use crate::support::lookaside::Lookaside;
use crate::support::process::{psql, run};
use crate::support::raw::DEADLINE;

/// What streams are joined with.
const LOOKUPS: &str = r#"
[lookup.customers]
type = "simulated"
[lookup.customers.key]
id = "bigint"
[lookup.customers.columns]
name = "'customer ' || id"

[lookup.words]
type = "simulated"
[lookup.words.key]
word = "text"
[lookup.words.columns]
name = "'customer ' || word"
"#;

/// A catalog of streams over a connection `kafka` to this address.
pub fn catalog(address: &str, streams: &str) -> String {
    catalog_with(address, "", streams)
}

/// As [`catalog`], with further lines of the connection.
pub fn catalog_with(address: &str, lines: &str, streams: &str) -> String {
    format!("[connection.kafka]\ntype = \"kafka\"\nbrokers = \"{address}\"\n{lines}{LOOKUPS}{streams}")
}

/// A stream of JSON messages with a number `n` over the topic of its name.
pub fn numbers(name: &str) -> String {
    format!(
        "[stream.{name}]\nconnection = \"kafka\"\ntopic = \"{name}\"\nformat = \"json\"\ndiscover_every = \"1s\"\n\
         [stream.{name}.columns]\nn = \"bigint not null\"\n\
         [stream.{name}.metadata]\nkafka_partition = \"partition\"\nkafka_offset = \"offset\"\n"
    )
}

/// Messages for [`numbers`] in this partition.
pub fn numbered(partition: i32, numbers: impl IntoIterator<Item = i64>) -> Vec<Sent> {
    numbers.into_iter().map(|n| Sent::value(format!(r#"{{"n": {n}}}"#)).partition(partition)).collect()
}

/// What psql shows of a statement, row by row.
pub async fn shown(port: u16, sql: &str) -> Vec<String> {
    let finished = run(psql(port, &["-At", "-c", sql])).await;
    assert_eq!((finished.status.success(), finished.stderr.as_str()), (true, ""), "{sql}");
    finished.stdout.lines().map(str::to_string).collect()
}

/// Rows as they come, of a statement that has begun: where it begins is settled when this returns.
pub async fn live(client: &Client, sql: &str) -> std::pin::Pin<Box<CopyOutStream>> {
    let begun = tokio::time::timeout(DEADLINE, client.copy_out(&format!("COPY ({sql}) TO STDOUT"))).await;
    Box::pin(begun.expect("it begins in time").unwrap())
}

/// The next row of [`live`].
pub async fn next(rows: &mut std::pin::Pin<Box<CopyOutStream>>) -> String {
    let row = tokio::time::timeout(DEADLINE, rows.next()).await.expect("a row in time").expect("no end").unwrap();
    String::from_utf8(row.to_vec()).unwrap().trim_end().to_string()
}

/// The SQLSTATE and message that a statement fails with.
pub async fn failure(client: &Client, sql: &str) -> String {
    let error = client.simple_query(sql).await.expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    format!("{} {}", error.code().code(), error.message())
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_columns_say_where_a_message_is_from() {
    let broker = KafkaBroker::shared();
    broker.create_topic("told", 2);
    let message = |n: i64| Sent::value(format!(r#"{{"n": {n}}}"#)).timestamp(1_767_225_600_123 + n);
    let messages = [
        message(1).partition(0),
        message(2).partition(1).key("k\u{e9}y").header("who", Some(b"ana \"a\"")).header("none", None),
        message(3).partition(1).key("").header("bytes", Some(b"\xff\x00")),
    ];
    send(&producer(broker.client()), "told", &messages);
    let streams = "[stream.told]\nconnection = \"kafka\"\ntopic = \"told\"\nformat = \"json\"\n[stream.told.columns]\nn = \"bigint\"\n\
         [stream.told.metadata]\nkey = \"key\"\nbytes = \"key_bytes\"\nplace = \"partition\"\nnumber = \"offset\"\n\
         at = \"timestamp\"\nheaders = \"headers\"\ntopic = \"topic\"\n";
    let server = Lookaside::start(&catalog(&broker.address(), streams)).await;
    let rows = shown(server.port, "SELECT * FROM told WITH (start = 'earliest', until = 'latest')").await;
    let mut rows = rows.iter().map(String::as_str).collect::<Vec<_>>();
    rows.sort_unstable();
    let expected = [
        "1|||0|0|2026-01-01 00:00:00.124+00|{}|told",
        r#"2|kéy|\x6bc3a979|1|0|2026-01-01 00:00:00.125+00|{"who": "ana \"a\"", "none": null}|told"#,
        r#"3||\x|1|1|2026-01-01 00:00:00.126+00|{"bytes": "\\xff00"}|told"#,
    ];
    assert_eq!(rows, expected);
    // What nobody asks for is not in the way.
    let sql = "SELECT topic, number FROM told WITH (start = 'earliest', until = 'latest') WHERE place = 1";
    assert_eq!(shown(server.port, sql).await, ["told|0", "told|1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_starts_and_ends_where_it_is_told() {
    let broker = KafkaBroker::shared();
    broker.create_topic("ranges", 2);
    let (begin, producer) = (1_767_225_600_000_i64, producer(broker.client()));
    for partition in [0, 1] {
        let at = |(n, message): (i64, Sent)| message.timestamp(begin + 1000 * n);
        let messages = (0..5).zip(numbered(partition, (0..5).map(|n| 10 * i64::from(partition) + n))).map(at);
        send(&producer, "ranges", &messages.collect::<Vec<_>>());
    }
    let server = Lookaside::start(&catalog(&broker.address(), &numbers("ranges"))).await;
    for (start, expected) in [
        ("earliest", vec![0, 1, 2, 3, 4, 10, 11, 12, 13, 14]),
        ("latest", vec![]),
        ("0:3,1:1", vec![3, 4, 11, 12, 13, 14]),
        ("0:5,1:4", vec![14]),
        ("2026-01-01 00:00:03+00", vec![3, 4, 13, 14]),
        ("2026-01-01 00:00:03.001+00", vec![4, 14]),
        ("2020-01-01 00:00:00+00", vec![0, 1, 2, 3, 4, 10, 11, 12, 13, 14]),
        ("2026-01-01 00:00:05+00", vec![]),
    ] {
        let sql = format!("SELECT n FROM ranges WITH (start = '{start}', until = 'latest')");
        let mut rows = shown(server.port, &sql).await.iter().map(|n| n.parse::<i64>().unwrap()).collect::<Vec<_>>();
        rows.sort_unstable();
        assert_eq!(rows, expected, "{start}");
    }
    let client = server.connect().await;
    for (start, refusal) in [
        ("0:6,1:0", "22023 partition 0 of topic ranges has no offset 6"),
        ("0:1", "22023 "),
        ("0:1,1:1,2:1", "22023 "),
        ("yesterday", "22"),
    ] {
        let told = failure(&client, &format!("SELECT n FROM ranges WITH (start = '{start}', until = 'latest')")).await;
        assert!(told.starts_with(refusal), "{start}: {told}");
    }

    // Without a start, what comes from now on; without an end, for ever.
    let mut rows = live(&client, "SELECT n FROM ranges").await;
    send(&producer, "ranges", &numbered(1, [20]));
    assert_eq!(next(&mut rows).await, "20");
    send(&producer, "ranges", &numbered(0, [21]));
    assert_eq!(next(&mut rows).await, "21");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_goes_on_growing_ends_where_it_was() {
    let broker = KafkaBroker::shared();
    broker.create_topic("growing", 1);
    let server = Lookaside::start(&catalog(&broker.address(), &numbers("growing"))).await;
    let sql = "SELECT count(*) FROM growing WITH (start = 'earliest', until = 'latest')";
    assert_eq!(shown(server.port, sql).await, ["0"], "an empty topic is read to its end as well");
    let sending = PythonProducer::new(&broker.address(), "growing").messages_per_second(2000);
    let mut sending = sending.start(0, 6000);
    let mut last = 0;
    for seen in [1000, 2000, 3000] {
        sending.until(seen).await;
        let count = shown(server.port, sql).await[0].parse::<u64>().unwrap();
        assert!(count >= seen && count > last, "{count} of {seen}");
        last = count;
    }
    assert_eq!(sending.finish().await.count, 6000);
    assert_eq!(shown(server.port, sql).await, ["6000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_read_from_their_beginning() {
    let broker = KafkaBroker::shared();
    broker.create_topic("widened", 1);
    let sent = |messages: &[Sent]| send(&producer(broker.client()), "widened", messages);
    let server = Lookaside::start(&catalog(&broker.address(), &numbers("widened"))).await;
    let client = server.connect().await;
    let mut rows = live(&client, "SELECT n, kafka_partition, kafka_offset FROM widened").await;
    sent(&numbered(0, [1]));
    assert_eq!(next(&mut rows).await, "1\t0\t0");
    broker.add_partitions("widened", 3);
    sent(&numbered(2, [2, 3]));
    assert_eq!(next(&mut rows).await, "2\t2\t0");
    assert_eq!(next(&mut rows).await, "3\t2\t1");
    sent(&numbered(1, [4]));
    assert_eq!(next(&mut rows).await, "4\t1\t0");
    sent(&numbered(0, [5]));
    assert_eq!(next(&mut rows).await, "5\t0\t1");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_leaves_no_trace_at_the_broker() {
    let broker = KafkaBroker::start();
    broker.create_topic("untraced", 2);
    let producer = producer(broker.client());
    send(&producer, "untraced", &numbered(1, [1]));
    let proxy = KafkaProxy::start(broker.port()).await;
    let server = Lookaside::start(&catalog(&proxy.address(), &numbers("untraced"))).await;
    let sql = "SELECT n FROM untraced WITH (start = 'earliest', until = 'latest')";
    assert_eq!(shown(server.port, sql).await, ["1"]);
    let client = server.connect().await;
    let mut rows = live(&client, "SELECT n FROM untraced").await;
    send(&producer, "untraced", &numbered(0, [2]));
    assert_eq!(next(&mut rows).await, "2");
    assert!(proxy.open_connections() > 0 && proxy.requests(api_key::FETCH) > 0);
    client.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
    while let Some(Ok(_)) = tokio::time::timeout(DEADLINE, rows.next()).await.expect("an end in time") {}

    let closed = async {
        while proxy.open_connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.expect("the client's connections end with its query");
    assert!(broker.groups().is_empty());
    assert_eq!(broker.committed("lookaside", "untraced"), [None, None]);
    let asked = [api_key::JOIN_GROUP, api_key::OFFSET_COMMIT].map(|key| proxy.requests(key));
    assert_eq!(asked, [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_transactions_are_seen_when_they_are_committed() {
    let broker = KafkaBroker::shared();
    broker.create_topic("transacted", 1);
    let plain = producer(broker.client());
    let begin = |name: &str| {
        let mut client = broker.client();
        let transacted = producer(client.set("transactional.id", name).clone());
        transacted.init_transactions(DEADLINE).unwrap();
        transacted.begin_transaction().unwrap();
        transacted
    };
    let server = Lookaside::start(&catalog(&broker.address(), &numbers("transacted"))).await;
    let client = server.connect().await;
    let mut rows = live(&client, "SELECT n FROM transacted").await;
    let sql = "SELECT n FROM transacted WITH (start = 'earliest', until = 'latest')";

    let transacted = begin("aborted");
    send(&transacted, "transacted", &numbered(0, [1, 2]));
    assert_eq!(shown(server.port, sql).await, [""; 0], "a transaction is open");
    transacted.abort_transaction(DEADLINE).unwrap();
    assert_eq!(shown(server.port, sql).await, [""; 0], "what was aborted is read over to the end");

    send(&plain, "transacted", &numbered(0, [3]));
    assert_eq!(next(&mut rows).await, "3");
    let transacted = begin("committed");
    send(&transacted, "transacted", &numbered(0, [4, 5]));
    send(&plain, "transacted", &numbered(0, [6]));
    assert_eq!(shown(server.port, sql).await, ["3"], "what stands behind an open transaction waits for its end");
    transacted.commit_transaction(DEADLINE).unwrap();
    for n in ["4", "5", "6"] {
        assert_eq!(next(&mut rows).await, n);
    }
    assert_eq!(shown(server.port, sql).await, ["3", "4", "5", "6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told() {
    let broker = KafkaBroker::start();
    let server = Lookaside::start(&catalog(&broker.address(), &numbers("nowhere"))).await;
    let client = server.connect().await;
    let sql = "SELECT n FROM nowhere";
    assert_eq!(failure(&client, sql).await, "HV000 topic \"nowhere\" does not exist at connection \"kafka\"");
    broker.stop();
    let told = failure(&client, sql).await;
    assert!(told.starts_with("HV00N ") && told.contains("\"kafka\""), "{told}");
    broker.start_again();
    broker.create_topic("nowhere", 1);
    let mut rows = live(&client, sql).await;
    send(&producer(broker.client()), "nowhere", &numbered(0, [1]));
    assert_eq!(next(&mut rows).await, "1");
}
