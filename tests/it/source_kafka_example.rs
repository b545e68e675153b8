//! The README's tour of a topic of Kafka, with the producer that it names, and what many sessions on one topic cost.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{Duration, Instant, sleep};

use crate::source_kafka::{catalog, numbered, numbers};
use crate::support::kafka::KafkaBroker;
use crate::support::kafka_producer::{producer, send};
use crate::support::process::{Process, catalog_file, lookaside, psql, run};
use crate::support::raw::DEADLINE;

/// kcat, which sends these lines to the topic of the example.
async fn kcat(broker: &KafkaBroker, lines: &str) {
    let mut command = Command::new("kcat");
    command.args(["-P", "-b", &broker.address(), "-t", "orders"]).stdin(Stdio::piped());
    let mut kcat = command.spawn().unwrap();
    let mut stdin = kcat.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).await.unwrap();
    drop(stdin);
    assert!(kcat.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_reads_what_kcat_sends() {
    let broker = KafkaBroker::start();
    broker.create_topic("orders", 1);
    let lines = [
        r#"{"order_id": 1, "customer": {"id": 7}, "amount": "49.90"}"#,
        r#"{"order_id": 2, "customer": {"id": 99}, "amount": 5}"#,
        "not json",
    ];
    kcat(&broker, &(lines.join("\n") + "\n")).await;
    let with = |arguments: &[&str]| {
        let mut command = lookaside();
        command.env("KAFKA_BROKERS", broker.address()).args(arguments);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        run(command)
    };
    let checked = with(&["check", "catalogs/kafka.toml"]).await;
    let stream =
        "stream orders: kafka topic orders of connection \"kafka\", 1 partition, columns order_id bigint not null, ";
    assert!(checked.stdout.contains(stream), "{}{}", checked.stdout, checked.stderr);
    let query = ["query", "--catalog", "catalogs/kafka.toml", "--format", "csv", "-f", "sql/kafka.sql"];
    let queried = with(&query).await;
    let expected =
        "order_id,name,tier,amount,kafka_partition,kafka_offset\n1,Radia Lindqvist,bronze,49.90,0,0\n2,,,5.00,0,1\n";
    assert_eq!((queried.stdout.as_str(), queried.status.code()), (expected, Some(0)), "{}", queried.stderr);
    assert!(queried.stderr.contains("at partition 0 offset 2 of topic orders"), "{}", queried.stderr);

    broker.delete_topic("orders");
    let checked = with(&["check", "catalogs/kafka.toml"]).await;
    let gone = ":17:9: topic \"orders\" does not exist at connection \"kafka\"";
    assert!(checked.stderr.contains(gone) && checked.status.code() == Some(1), "{}", checked.stderr);
}

/// Sessions of psql on one topic: each costs some threads and memory, and they end with it.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_one_topic_leave_nothing() {
    let sessions = std::env::var("SOAK_SESSIONS").map_or(5, |count| count.parse().unwrap());
    let broker = KafkaBroker::start();
    broker.create_topic("shared", 2);
    let (_folder, path) = catalog_file(&catalog(&broker.address(), &numbers("shared")));
    let (server, port) = Process::serve(&path, &[]).await;
    let query = "SELECT c.name FROM shared s WITH (start = 'earliest') LOOKUP JOIN customers c ON s.n = c.id";
    let session = || Process::start(psql(port, &["-At", "-v", "FETCH_COUNT=1", "-c", query]));

    // What the first session brings along stays: memory of the runtime and of the libraries.
    let first = session();
    until_readers(port, 1).await;
    drop(first);
    until_readers(port, 0).await;
    let (threads, memory) = until_threads(&server, server.threads()).await;

    let mut all: Vec<_> = (0..sessions).map(|_| session()).collect();
    until_readers(port, sessions).await;
    // psql ends a line when the next one comes.
    send(&producer(broker.client()), "shared", &numbered(0, [42, 43]));
    for one in &mut all {
        assert_eq!(one.line().await.as_deref(), Some("customer 42"), "{}", one.stderr());
    }
    let (with_threads, with_memory) = (server.threads(), server.resident_kib());
    drop(all);
    until_readers(port, 0).await;
    let (after_threads, after_memory) = until_threads(&server, threads).await;
    let each = |more: u64, before: u64| (more.saturating_sub(before)) as f64 / sessions as f64;
    println!(
        "soak {sessions} sessions: {:.1} threads and {:.0} KiB each; threads {threads} -> {with_threads} -> {after_threads}, \
         memory {memory} -> {with_memory} -> {after_memory} KiB",
        each(with_threads, threads),
        each(with_memory, memory)
    );
    assert!(each(with_threads, threads) <= 8.0, "{with_threads} threads for {sessions} sessions");
}

async fn until_readers(port: u16, count: u64) {
    let sql = "SELECT readers FROM lookaside.streams WHERE name = 'shared'";
    let deadline = Instant::now() + DEADLINE;
    while run(psql(port, &["-At", "-c", sql])).await.stdout.trim() != count.to_string() {
        assert!(Instant::now() < deadline, "there are never {count} readers");
    }
}

/// Threads that may wait end when there was nothing to wait for, for ten seconds.
async fn until_threads(server: &Process, most: u64) -> (u64, u64) {
    let deadline = Instant::now() + DEADLINE;
    while server.threads() > most {
        assert!(Instant::now() < deadline, "{} threads are left, not {most}", server.threads());
        sleep(Duration::from_millis(50)).await;
    }
    (server.threads(), server.resident_kib())
}
