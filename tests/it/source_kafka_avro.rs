//! Topics of Avro messages: bare values by a schema in a file, and values by the schemas of a registry.

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::source_kafka::{catalog, failure, shown};
use crate::support::kafka::KafkaBroker;
use crate::support::kafka_producer::{PythonProducer, Sent, producer, send};
use crate::support::lookaside::Lookaside;
use crate::support::schema_registry::SchemaRegistry;

/// What the first writers wrote, and what later ones do.
const OLD: &str = r#"{"type": "record", "name": "Order", "fields": [
    {"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"]}]}"#;
const NEW: &str = r#"{"type": "record", "name": "Order", "fields": [
    {"name": "note", "type": ["null", "string"]}, {"name": "id", "type": "long"},
    {"name": "city", "type": "string", "default": "nowhere"}]}"#;

fn note(id: i64) -> Value {
    match id % 3 {
        0 => Value::Union(0, Box::new(Value::Null)),
        _ => Value::Union(1, Box::new(Value::String(format!("n\u{f6}te {id}")))),
    }
}

/// An order by one of the schemas.
fn datum(schema: &str, id: i64) -> Vec<u8> {
    let mut fields = vec![("id".to_string(), Value::Long(id)), ("note".to_string(), note(id))];
    if schema == NEW {
        fields.rotate_left(1);
        fields.push(("city".to_string(), Value::String(format!("city {id}"))));
    }
    let schema = Schema::parse_str(schema).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    writer.write_value_to_vec(Value::Record(fields)).unwrap()
}

/// As Confluent's serializers write it: a zero, the schema's id, the value.
fn framed(schema_id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0], &schema_id.to_be_bytes()[..], datum].concat()
}

fn registered(registry: &SchemaRegistry, stream: &str, on_malformed: &str) -> String {
    format!(
        "[connection.registry]\ntype = \"http\"\nurl = \"{}\"\nallow_hosts = [\"127.0.0.1\"]\n\
         [stream.{stream}]\nconnection = \"kafka\"\ntopic = \"{stream}\"\nformat = \"avro\"\nschema_registry = \"registry\"\n\
         on_malformed = \"{on_malformed}\"\n[stream.{stream}.metadata]\nkafka_offset = \"offset\"\n",
        registry.url()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_values_are_read_by_the_schema_of_a_file() {
    let broker = KafkaBroker::shared();
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("order.avsc");
    std::fs::write(&schema, OLD).unwrap();
    let mut streams = String::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("avro_{codec}");
        broker.create_topic(&topic, 1);
        let messages = (0..300).map(|id| Sent::value(datum(OLD, id))).collect::<Vec<_>>();
        PythonProducer::new(&broker.address(), &topic).compression(codec).send(&messages).await;
        streams += &format!(
            "[stream.{topic}]\nconnection = \"kafka\"\ntopic = \"{topic}\"\nformat = \"avro\"\nschema = \"{}\"\n",
            schema.display()
        );
    }
    let server = Lookaside::start(&catalog(&broker.address(), &streams)).await;
    let row = |id: i64| {
        let note = if id % 3 == 0 { String::new() } else { format!("n\u{f6}te {id}") };
        format!("{id}|{note}|customer {id}")
    };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let sql = format!(
            "SELECT o.id, o.note, c.name FROM avro_{codec} AS o WITH (start = 'earliest', until = 'latest')
             LOOKUP JOIN customers AS c ON o.id = c.id"
        );
        assert_eq!(shown(server.port, &sql).await, (0..300).map(row).collect::<Vec<_>>(), "{codec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_old_and_new_schemas_are_read_as_the_newest() {
    let broker = KafkaBroker::shared();
    let registry = SchemaRegistry::start().await;
    broker.create_topic("evolved", 1);
    let [old, new] = [OLD, NEW].map(|schema| registry.register("evolved-value", schema));
    let messages = [framed(old, &datum(OLD, 1)), framed(new, &datum(NEW, 2)), framed(old, &datum(OLD, 3))];
    send(&producer(broker.client()), "evolved", &messages.map(Sent::value));
    let server = Lookaside::start(&catalog(&broker.address(), &registered(&registry, "evolved", "fail"))).await;
    let sql = "SELECT id, note, city, kafka_offset FROM evolved WITH (start = 'earliest', until = 'latest')";
    let rows = ["1|n\u{f6}te 1|nowhere|0", "2|n\u{f6}te 2|city 2|1", "3||nowhere|2"];
    assert_eq!(shown(server.port, sql).await, rows);
    registry.asked();
    assert_eq!(shown(server.port, sql).await, rows);
    let again = registry.asked().into_iter().filter(|asked| asked.starts_with("/schemas/ids/")).count();
    assert_eq!(again, 0, "an id's schema never changes, so it is asked for once");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_values_are_told_or_skipped() {
    let broker = KafkaBroker::shared();
    let registry = SchemaRegistry::start().await;
    for (kind, value, reason) in [
        ("unknown_id", Some(framed(99, &datum(NEW, 7))), "99"),
        ("no_magic", Some(datum(NEW, 7)), ""),
        ("truncated", Some(framed(1, &datum(NEW, 7)[..3])), ""),
        ("too_long", Some(framed(1, &[datum(NEW, 7), vec![0; 3]].concat())), ""),
        ("only_id", Some(framed(1, &[])), ""),
        ("empty", Some(vec![]), ""),
        ("tombstone", None, "tombstone"),
        ("not_utf8", Some(framed(1, &[2, 2, 0xe9, 14, 0])), "not UTF-8"),
    ] {
        let (stops, skips) = (format!("avro_stops_{kind}"), format!("avro_skips_{kind}"));
        for (topic, on_malformed) in [(&stops, "fail"), (&skips, "skip")] {
            broker.create_topic(topic, 1);
            let id = registry.register(&format!("{topic}-value"), NEW);
            let good = |n: i64| Sent::value(framed(id, &datum(NEW, n)));
            let bad = value.clone().map_or_else(Sent::tombstone, Sent::value);
            send(&producer(broker.client()), topic, &[good(1), bad, good(2)]);
            let server =
                Lookaside::start(&catalog(&broker.address(), &registered(&registry, topic, on_malformed))).await;
            let sql = format!("SELECT id, kafka_offset FROM {topic} WITH (start = 'earliest', until = 'latest')");
            if on_malformed == "fail" {
                let told = failure(&server.connect().await, &sql).await;
                let begin = format!("22P02 malformed row in \"{topic}\" at partition 0 offset 1 of topic {topic}: ");
                assert!(told.starts_with(&begin) && told.contains(reason), "{kind}: {told}");
                continue;
            }
            assert_eq!(shown(server.port, &sql).await, ["1|0", "2|2"], "{kind}");
            assert_eq!(shown(server.port, "SELECT rows_skipped FROM lookaside.streams").await, ["1"], "{kind}");
        }
    }
}
