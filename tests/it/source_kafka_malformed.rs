//! Messages that are no rows: `skip` gives every good row and counts each bad message, `fail` stops at the first and says
//! where it is and what is wrong.
//!
//! 10,000 messages here; `tests/soak/run kafka` reads a million. `SOAK_MESSAGES` says how many.

use futures::StreamExt;
use tokio::time::{Instant, timeout};

use crate::source_kafka::{catalog, live, shown};
use crate::support::kafka::KafkaBroker;
use crate::support::kafka_producer::{PythonProducer, Sent, producer, send};
use crate::support::lookaside::Lookaside;
use crate::support::raw::DEADLINE;

const PARTITIONS: i64 = 4;
/// One message in so many is bad.
const BAD_EVERY: i64 = 100;
/// As many of the large ones are sent, whatever the number of the others.
const LARGE_MESSAGES: i64 = 3;
/// What is said of a message may quote it, but not all of it.
const MOST_SAID: usize = 500;

/// A kind of bad message of JSON, and what is said of it.
struct Bad {
    kind: &'static str,
    value: Option<Vec<u8>>,
    reason: &'static str,
}

impl Bad {
    fn new(kind: &'static str, value: impl Into<Vec<u8>>, reason: &'static str) -> Bad {
        Bad { kind, value: Some(value.into()), reason }
    }

    fn message(&self) -> Sent {
        self.value.as_ref().map_or_else(Sent::tombstone, |value| Sent::value(value.clone()))
    }
}

/// All kinds; the large one stands last.
fn kinds() -> Vec<Bad> {
    let nested = |depth: usize| format!(r#"{{"n": {}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    vec![
        Bad::new("truncated", r#"{"n": 17, "note": "tr"#, "invalid JSON"),
        Bad::new("wrong_type", r#"{"n": "seventeen"}"#, "column \"n\": a JSON string cannot be read as type bigint"),
        Bad::new("wrong_shape", r#"[{"n": 17}]"#, "expected a JSON object"),
        Bad::new("not_utf8", b"{\"n\": 17, \"note\": \"\xe9\"}", "invalid byte sequence for encoding \"UTF8\": 0xe9"),
        Bad::new("empty", "", "expected a JSON object, found \"\""),
        Bad { kind: "tombstone", value: None, reason: "the message has no value (a tombstone)" },
        Bad::new("nested", nested(100_000), ""),
        Bad::new("nothing", r#"{"note": "no n"}"#, "null value in column \"n\" violates not-null constraint"),
        Bad::new("out_of_range", r#"{"n": 9223372036854775808}"#, "is out of range for type bigint"),
        Bad::new("two_rows", r#"{"n": 1}{"n": 2}"#, "invalid JSON"),
        Bad::new("large", format!(r#"{{"n": 17, "note": "{}"#, "x".repeat(10_000_000)), ""),
    ]
}

fn stream(name: &str, topic: &str, on_malformed: &str) -> String {
    format!(
        "[stream.{name}]\nconnection = \"kafka\"\ntopic = \"{topic}\"\nformat = \"json\"\non_malformed = \"{on_malformed}\"\n\
         [stream.{name}.columns]\nn = \"bigint not null\"\nnote = \"text\"\n[stream.{name}.metadata]\nat = \"offset\"\n"
    )
}

fn good(n: i64) -> Sent {
    Sent::value(format!(r#"{{"n": {n}, "note": "n\u00f6te {n}"}}"#))
}

/// The last of members that are there twice counts, as in PostgreSQL's jsonb.
fn good_twice(n: i64) -> Sent {
    Sent::value(format!(r#"{{"n": -1, "note": 1, "n": {n}, "note": "n\u00f6te {n}"}}"#))
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_stops_at_the_first_bad_message_and_skip_goes_on() {
    let broker = KafkaBroker::shared();
    let mut streams = String::new();
    for bad in kinds() {
        let topic = format!("bad_{}", bad.kind);
        broker.create_topic(&topic, 2);
        let messages = [good(1), bad.message(), good_twice(2), bad.message()].map(|message| message.partition(1));
        send(&producer(broker.client()), &topic, &messages);
        streams += &(stream(&format!("stops_{}", bad.kind), &topic, "fail")
            + &stream(&format!("skips_{}", bad.kind), &topic, "skip"));
    }
    let server = Lookaside::start(&catalog(&broker.address(), &streams)).await;
    for Bad { kind, reason, .. } in kinds() {
        let (stops, skips) = (format!("stops_{kind}"), format!("skips_{kind}"));
        let client = server.connect().await;
        let all =
            |stream: &str| format!("SELECT n, note, at FROM {stream} WITH (start = 'earliest', until = 'latest')");
        let mut rows = live(&client, &all(&stops)).await;
        let first =
            timeout(DEADLINE, rows.next()).await.unwrap().unwrap().unwrap_or_else(|error| panic!("{kind}: {error:?}"));
        assert_eq!(first, "1\tn\u{f6}te 1\t0\n".as_bytes(), "{kind}: what stands before it is read");
        let error = timeout(DEADLINE, rows.next()).await.unwrap().unwrap().unwrap_err();
        let error = error.as_db_error().unwrap_or_else(|| panic!("{kind}: {error:?}"));
        let begin = format!("malformed row in \"{stops}\" at partition 1 offset 1 of topic bad_{kind}: ");
        assert_eq!(error.code().code(), "22P02", "{kind}");
        assert!(error.message().starts_with(&begin) && error.message().contains(reason), "{kind}: {}", error.message());
        assert!(error.message().len() < MOST_SAID, "{kind}: {} bytes are said of it", error.message().len());

        assert_eq!(shown(server.port, &all(&skips)).await, ["1|n\u{f6}te 1|0", "2|n\u{f6}te 2|2"], "{kind}");
        let sql = "SELECT rows_read, rows_skipped, last_error FROM lookaside.streams WHERE name";
        let told = shown(server.port, &format!("{sql} = '{skips}'")).await;
        assert!(told[0].starts_with("2|2|malformed row in") && told[0].contains("offset 3"), "{kind}: {told:?}");
        assert!(told[0].len() < MOST_SAID, "{kind}: {} bytes are said of it", told[0].len());
        let told = shown(server.port, &format!("{sql} = '{stops}'")).await;
        assert!(told[0].starts_with("1|0|malformed row in"), "{kind}: {told:?}");
    }
}

/// The nth message of many: its place among the bad ones if it is one of them.
fn bad_place(n: i64) -> Option<i64> {
    (n % BAD_EVERY == BAD_EVERY - 1).then_some(n / BAD_EVERY)
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_gives_every_good_row_of_many_and_counts_the_bad_ones() {
    let count = std::env::var("SOAK_MESSAGES").map_or(10_000, |text| text.parse::<i64>().unwrap());
    let broker = KafkaBroker::start();
    broker.create_topic("many", PARTITIONS as i32);
    let kinds = kinds();
    let (large, small) = kinds.split_last().unwrap();
    let message = |n: i64| {
        let message = match bad_place(n) {
            Some(place) if place < LARGE_MESSAGES => large.message(),
            Some(place) => small[place as usize % small.len()].message(),
            None if n % 7 == 0 => good_twice(n),
            None => good(n),
        };
        message.partition((n % PARTITIONS) as i32)
    };
    let messages = (0..count).map(message).collect::<Vec<_>>();
    let sent = PythonProducer::new(&broker.address(), "many").compression("lz4").send(&messages).await;
    assert_eq!(sent.count, count as u64);

    let server = Lookaside::start(&catalog(&broker.address(), &stream("many", "many", "skip"))).await;
    let client = server.connect().await;
    let sql = "SELECT o.n, o.note, o.at, c.name FROM many AS o WITH (start = 'earliest', until = 'latest')
               LOOKUP JOIN customers AS c ON o.n = c.id";
    let started = Instant::now();
    let mut rows = live(&client, sql).await;
    let mut seen = vec![false; count as usize];
    while let Some(row) = timeout(DEADLINE, rows.next()).await.expect("a row in time") {
        let row = String::from_utf8(row.unwrap().to_vec()).unwrap();
        let n = row.split('\t').next().unwrap().parse::<i64>().unwrap();
        // Messages went to the partitions in turn.
        assert_eq!(row, format!("{n}\tn\u{f6}te {n}\t{}\tcustomer {n}\n", n / PARTITIONS));
        assert!(!std::mem::replace(&mut seen[n as usize], true), "{n} comes twice");
    }
    let elapsed = started.elapsed();
    let missing = (0..count).find(|n| seen[*n as usize] == bad_place(*n).is_some());
    assert_eq!(missing, None, "all good messages are rows, and no others");
    let bad = (0..count).filter(|n| bad_place(*n).is_some()).count() as i64;
    let told = shown(server.port, "SELECT rows_read, rows_skipped FROM lookaside.streams WHERE name = 'many'").await;
    assert_eq!(told, [format!("{}|{bad}", count - bad)]);
    println!("kafka malformed: {count} messages in {elapsed:?}, {bad} of them bad and skipped, all others read");
}
