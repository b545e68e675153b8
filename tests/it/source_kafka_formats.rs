//! What topics hold, in each format and compression, by producers that are not ours, as psql shows it.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::source_kafka::{catalog, shown};
use crate::support::kafka::KafkaBroker;
use crate::support::kafka_producer::{PythonProducer, Sent, producer, send};
use crate::support::lookaside::Lookaside;

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const ORDERS: i64 = 300;

/// How each format says the same order.
struct Format {
    name: &'static str,
    section: &'static str,
    value: fn(i64) -> String,
}

const FORMATS: [Format; 4] = [
    Format {
        name: "json",
        section: "format = \"json\"\n[stream.NAME.columns]\nid = \"bigint not null\"\n\
                  customer_id = { type = \"bigint\", path = \"$.customer.id\" }\nnote = \"text\"\n",
        value: |id| format!(r#"{{"note": {}, "customer": {{"id": {}, "x": 1}}, "id": {id}}}"#, json_note(id), id % 100),
    },
    Format {
        name: "csv",
        section: "format = \"csv\"\n[stream.NAME.columns]\nid = \"bigint not null\"\ncustomer_id = \"bigint\"\nnote = \"text\"\n",
        value: |id| {
            let note = note(id).map_or(String::new(), |note| format!("\"{}\"", note.replace('"', "\"\"")));
            format!("{id},{},{note}", id % 100)
        },
    },
    Format {
        name: "debezium",
        section: "format = \"debezium\"\n[stream.NAME.columns]\nid = \"bigint not null\"\ncustomer_id = \"bigint\"\nnote = \"text\"\n",
        value: |id| envelope(id),
    },
    Format {
        name: "debezium_with_schema",
        section: "format = \"debezium\"\n[stream.NAME.columns]\nid = \"bigint not null\"\ncustomer_id = \"bigint\"\nnote = \"text\"\n",
        value: |id| format!(r#"{{"schema": {{"type": "struct", "fields": []}}, "payload": {}}}"#, envelope(id)),
    },
];

fn note(id: i64) -> Option<String> {
    (id % 3 != 0).then(|| format!("n\u{f6}te, \"{id}\""))
}

fn json_note(id: i64) -> String {
    serde_json::json!(note(id)).to_string()
}

fn envelope(id: i64) -> String {
    let row = format!(r#"{{"id": {id}, "customer_id": {}, "note": {}}}"#, id % 100, json_note(id));
    format!(r#"{{"before": null, "after": {row}, "source": {{"ts_ms": 1767225600123}}, "op": "c", "ts_ms": 0}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_in_every_compression_gives_psql_all_rows() {
    let broker = KafkaBroker::shared();
    let mut streams = String::new();
    let mut names = vec![];
    for (format, codec) in FORMATS.iter().flat_map(|format| CODECS.map(|codec| (format, codec))) {
        let name = format!("orders_{}_{codec}", format.name);
        broker.create_topic(&name, 3);
        let messages = (0..ORDERS).map(|id| Sent::value((format.value)(id)).partition((id % 3) as i32));
        let sending = PythonProducer::new(&broker.address(), &name).compression(codec);
        assert_eq!(sending.send(&messages.collect::<Vec<_>>()).await.count, ORDERS as u64);
        let section = format.section.replace("NAME", &name);
        streams += &format!("[stream.{name}]\nconnection = \"kafka\"\ntopic = \"{name}\"\n{section}");
        names.push(name);
    }
    let server = Lookaside::start(&catalog(&broker.address(), &streams)).await;
    let row = |id: i64| format!("{id}|{}|{}|customer {}", id % 100, note(id).unwrap_or_default(), id % 100);
    for name in names {
        let sql = format!(
            "SELECT o.id, o.customer_id, o.note, c.name FROM {name} AS o WITH (start = 'earliest', until = 'latest')
             LOOKUP JOIN customers AS c ON o.customer_id = c.id"
        );
        let mut rows = shown(server.port, &sql).await;
        rows.sort_by_key(|row| row.split('|').next().unwrap().parse::<i64>().unwrap());
        assert_eq!(rows, (0..ORDERS).map(row).collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_messages_of_kcat_are_joined_as_they_are() {
    let broker = KafkaBroker::shared();
    let mut streams = String::new();
    for codec in CODECS {
        let topic = format!("raw_{codec}");
        broker.create_topic(&topic, 1);
        let address = broker.address();
        let mut kcat = Command::new("kcat");
        kcat.args(["-P", "-b", &address, "-t", &topic, "-p", "0", "-z", codec, "-K", ":", "-H", "from=kcat"]);
        let mut kcat = kcat.stdin(Stdio::piped()).spawn().expect("kcat, which tests/run installs");
        let lines = (0..ORDERS).map(|id| format!("key {id}:{id}\n")).collect::<String>();
        kcat.stdin.take().unwrap().write_all(lines.as_bytes()).await.unwrap();
        assert!(kcat.wait().await.unwrap().success());
        streams += &format!(
            "[stream.{topic}]\nconnection = \"kafka\"\ntopic = \"{topic}\"\nformat = \"raw\"\ncolumns = {{ word = \"text\" }}\n\
             metadata = {{ key = \"key\", headers = \"headers\" }}\n"
        );
    }
    let server = Lookaside::start(&catalog(&broker.address(), &streams)).await;
    for codec in CODECS {
        let sql = format!(
            "SELECT o.word, o.key, o.headers, w.name FROM raw_{codec} AS o WITH (start = 'earliest', until = 'latest')
             LOOKUP JOIN words AS w ON o.word = w.word"
        );
        let row = |id: i64| format!("{id}|key {id}|{{\"from\": \"kcat\"}}|customer {id}");
        assert_eq!(shown(server.port, &sql).await, (0..ORDERS).map(row).collect::<Vec<_>>(), "{codec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debezium_tells_changes_and_deletes() {
    let broker = KafkaBroker::shared();
    broker.create_topic("changes", 1);
    let change = |op: &str, before: &str, after: &str| {
        let source = r#"{"lsn": 7, "ts_ms": 1767225600123}"#;
        Sent::value(format!(r#"{{"before": {before}, "after": {after}, "source": {source}, "op": "{op}"}}"#)).key("1")
    };
    let (old, new) = (r#"{"id": 1, "name": "old"}"#, r#"{"id": 1, "name": "new"}"#);
    let messages = [
        change("r", "null", old),
        change("u", old, new),
        change("d", new, "null"),
        Sent::tombstone().key("1"),
        change("c", "null", r#"{"id": 2}"#),
    ];
    send(&producer(broker.client()), "changes", &messages);
    let stream = |name: &str, deletes: &str| {
        format!(
            "[stream.{name}]\nconnection = \"kafka\"\ntopic = \"changes\"\nformat = \"debezium\"\n{deletes}\n\
             [stream.{name}.columns]\nid = \"bigint not null\"\nname = \"text\"\n\
             [stream.{name}.metadata]\nop = \"op\"\nsource = \"source\"\nat = \"source_timestamp\"\nnumber = \"offset\"\n"
        )
    };
    let streams = stream("kept", "deletes = \"before\"") + &stream("skipped", "");
    let server = Lookaside::start(&catalog(&broker.address(), &streams)).await;
    let source = r#"{"lsn": 7, "ts_ms": 1767225600123}|2026-01-01 00:00:00.123+00"#;
    let rows = [
        format!("1|old|r|{source}|0"),
        format!("1|new|u|{source}|1"),
        format!("1|new|d|{source}|2"),
        format!("2||c|{source}|4"),
    ];
    let sql = |stream: &str| format!("SELECT * FROM {stream} WITH (start = 'earliest', until = 'latest')");
    assert_eq!(shown(server.port, &sql("kept")).await, rows);
    assert_eq!(shown(server.port, &sql("skipped")).await, [&rows[0], &rows[1], &rows[3]].map(String::clone));
    assert_eq!(shown(server.port, "SELECT sum(rows_skipped) FROM lookaside.streams").await, ["0"]);
}
