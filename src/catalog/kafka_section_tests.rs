use std::path::PathBuf;
use std::time::Duration;

use crate::catalog::definition::{
    ConnectionKind, Deletes, EnvelopeField, FileStreamRows, KafkaConfig, KafkaTopic, MessageField, MetadataField,
    PayloadFormat, SslMode, StreamKind,
};
use crate::catalog::file::read_text;
use crate::source::kafka_connection::{PasswordMechanism, Sasl};

const CONNECTION: &str = "[connection.kafka]\ntype = \"kafka\"\nbrokers = \"127.0.0.1:9092\"\n";

fn problems(text: &str) -> Vec<String> {
    let read = read_text(&[(PathBuf::from("a.toml"), text.to_string())], &|_| None);
    let problems = read.err().unwrap_or_else(|| panic!("{text} is read"));
    problems.into_iter().map(|problem| problem.message).collect()
}

fn connection(lines: &str) -> String {
    format!("[connection.kafka]\ntype = \"kafka\"\n{lines}\n")
}

fn config(lines: &str) -> KafkaConfig {
    let read = read_text(&[(PathBuf::from("a.toml"), connection(lines))], &|_| None);
    match read.unwrap_or_else(|problems| panic!("{problems:#?}")).connections.remove(0).kind {
        ConnectionKind::Kafka(config) => config,
        other => panic!("{other:?}"),
    }
}

fn stream(lines: &str) -> String {
    format!("{CONNECTION}[stream.orders]\nconnection = \"kafka\"\n{lines}\n")
}

fn topic(lines: &str) -> KafkaTopic {
    let read = read_text(&[(PathBuf::from("a.toml"), stream(lines))], &|_| None);
    match read.unwrap_or_else(|problems| panic!("{problems:#?}")).streams.remove(0).kind {
        StreamKind::Kafka(topic) => topic,
        other => panic!("{other:?}"),
    }
}

#[test]
fn brokers_say_whether_with_tls_unless_the_catalog_does() {
    let local = config("brokers = \"localhost:9092, [::1]:9093\"");
    assert_eq!((local.brokers.as_str(), local.sslmode), ("localhost:9092,[::1]:9093", SslMode::Disable));
    assert!(local.sasl.is_none());
    assert_eq!(config("brokers = \"127.0.0.1:9092,kafka.example.com:9092\"").sslmode, SslMode::VerifyFull);
    assert_eq!(config("brokers = \"kafka.example.com:9092\"\nsslmode = \"disable\"").sslmode, SslMode::Disable);
}

#[test]
fn who_logs_in_says_how() {
    let lines = "brokers = \"127.0.0.1:1\"\nsasl_mechanism = \"SCRAM-SHA-512\"\nuser = \"ana\"\npassword = \"s3cret\"";
    let config = config(lines);
    assert!(!format!("{config:?}").contains("s3cret"));
    let (mechanism, user, password) = (PasswordMechanism::ScramSha512, "ana".to_string(), "s3cret".to_string());
    assert!(config.sasl == Some(Sasl::Password { mechanism, user, password }));
}

#[test]
fn tokens_are_asked_for_where_secrets_may_be_sent() {
    let lines = |url: &str| {
        format!(
            "brokers = \"127.0.0.1:1\"\nsasl_mechanism = \"OAUTHBEARER\"\ntoken_url = \"{url}\"\nclient_id = \"a\"\nclient_secret = \"s3cret\"\nscope = \"kafka\""
        )
    };
    for url in ["https://login.example.com/token", "http://127.0.0.1:8080/token", "http://[::1]/token"] {
        let Some(Sasl::OAuthBearer(token)) = config(&lines(url)).sasl else { panic!("{url}") };
        assert_eq!((token.token_url.as_str(), token.scope.as_deref()), (url, Some("kafka")));
        assert!(!format!("{token:?}").contains("s3cret"));
    }
    for url in ["http://login.example.com/token", "https://me:pw@login.example.com/", "login"] {
        let expected = "\"token_url\" in [connection.kafka] is not a url to send a secret to";
        assert_eq!(problems(&connection(&lines(url))), [expected], "{url}");
    }
}

#[test]
fn mistakes_in_a_connection_are_told() {
    for (lines, expected) in [
        ("", "[connection.kafka] lacks \"brokers\""),
        ("brokers = \"kafka\"", "\"brokers\" in [connection.kafka] is not HOST:PORT"),
        ("brokers = \"a:1,:2\"", "\"brokers\" in [connection.kafka] is not HOST:PORT"),
        ("brokers = \"a:0\"", "\"brokers\" in [connection.kafka] is not HOST:PORT"),
        (
            "brokers = \"127.0.0.1:1\"\nuser = \"a\"",
            "\"user\" in [connection.kafka] has no effect without \"sasl_mechanism\"",
        ),
        (
            "brokers = \"127.0.0.1:1\"\nsasl_mechanism = \"PLAIN\"\nuser = \"a\"",
            "[connection.kafka] has a user without a password",
        ),
        (
            "brokers = \"127.0.0.1:1\"\nsasl_mechanism = \"PLAIN\"\nuser = \"a\"\npassword = \"b\"\nscope = \"c\"",
            "\"scope\" in [connection.kafka] goes with sasl_mechanism = \"OAUTHBEARER\" alone",
        ),
        (
            "brokers = \"127.0.0.1:1\"\nsasl_mechanism = \"GSSAPI\"",
            "unknown value \"GSSAPI\" for \"sasl_mechanism\" in [connection.kafka]",
        ),
        (
            "brokers = \"127.0.0.1:1\"\nsslrootcert = \"ca.pem\"",
            "\"sslrootcert\" in [connection.kafka] has no effect without TLS",
        ),
        ("brokers = \"a:1\"\nsslkey = \"/dev/null\"", "[connection.kafka] has \"sslkey\" without \"sslcert\""),
        ("brokers = \"a:1\"\nurl = \"kafka://a\"", "\"url\" in [connection.kafka] does not go with type \"kafka\""),
    ] {
        assert_eq!(problems(&connection(lines)), [expected], "{lines}");
    }
}

#[test]
fn a_topic_has_a_format_columns_and_what_is_said_of_messages() {
    let topic = topic(
        "type = \"kafka\"\ntopic = \"shop.orders\"\nformat = \"debezium\"\ndeletes = \"before\"\ndiscover_every = \"5s\"\n\
         columns = { id = \"bigint not null\", city = { type = \"text\", path = \"$.to.city\" } }\n\
         metadata = { op = \"op\", at = \"offset\" }",
    );
    assert_eq!((topic.connection.as_str(), topic.topic.as_str()), ("kafka", "shop.orders"));
    assert_eq!(topic.payload.format, PayloadFormat::Debezium { deletes: Deletes::Before });
    assert_eq!(topic.discover_every, Duration::from_secs(5));
    let paths = topic.payload.columns.iter().map(|column| column.json_path().to_string()).collect::<Vec<_>>();
    assert_eq!(paths, ["$.id", "$.to.city"]);
    let kinds: Vec<_> = topic.metadata.iter().map(|column| (column.name.as_str(), column.of)).collect();
    let expected =
        [("op", MetadataField::Envelope(EnvelopeField::Op)), ("at", MetadataField::Message(MessageField::Offset))];
    assert_eq!(kinds, expected);
}

#[test]
fn mistakes_in_a_stream_of_messages_are_told() {
    let json = "topic = \"t\"\nformat = \"json\"\n";
    for (lines, expected) in [
        ("format = \"json\"\ncolumns = { a = \"int\" }".to_string(), "[stream.orders] lacks \"topic\""),
        ("topic = \"t\"\ncolumns = { a = \"int\" }".to_string(), "[stream.orders] lacks \"format\""),
        (
            "topic = \"a b\"\nformat = \"json\"\ncolumns = { a = \"int\" }".to_string(),
            "\"a b\" in [stream.orders] cannot be the name of a topic",
        ),
        (
            "topic = \"t\"\nformat = \"xml\"\ncolumns = { a = \"int\" }".to_string(),
            "unknown value \"xml\" for \"format\" in [stream.orders]",
        ),
        (json.to_string(), "[stream.orders] declares no columns"),
        (
            format!("{json}columns = {{ a = {{ type = \"int\", path = \"a\" }} }}"),
            "path of column \"a\": \"a\" is not a path of members and items: it does not begin with $",
        ),
        (
            format!("{json}columns = {{ a = {{ type = \"int\", at = \"$.a\" }} }}"),
            "unknown key \"at\" in [stream.orders.columns.a]",
        ),
        (
            format!("{json}columns = {{ a = \"int\" }}\ndeletes = \"skip\""),
            "\"deletes\" in [stream.orders] goes with format = \"debezium\" alone",
        ),
        (
            format!("{json}columns = {{ a = \"int\" }}\nmetadata = {{ a = \"offset\" }}"),
            "\"a\" in [stream.orders.metadata] is a column of the stream already",
        ),
        (
            format!("{json}columns = {{ a = \"int\" }}\nmetadata = {{ o = \"ofset\" }}"),
            "no metadata is called \"ofset\"",
        ),
        (
            format!("{json}columns = {{ a = \"int\" }}\nmetadata = {{ o = \"op\" }}"),
            "\"op\" goes with format = \"debezium\" alone",
        ),
        (
            "topic = \"t\"\nformat = \"raw\"\ncolumns = { a = \"int\" }".to_string(),
            "[stream.orders] with format = \"raw\" has one column, of type text or bytea",
        ),
        (
            "topic = \"t\"\nformat = \"csv\"\ncolumns = { a = { type = \"int\", path = \"$.a\" } }".to_string(),
            "\"a\" in [stream.orders.columns] is declared by a table, which does not go here",
        ),
        (
            format!("{json}columns = {{ a = \"int\" }}\npath = \"x\""),
            "\"path\" in [stream.orders] does not go with type \"kafka\"",
        ),
        (
            format!("type = \"push\"\n{json}columns = {{ a = \"int\" }}"),
            "\"type\" in [stream.orders] is not that of its connection, \"kafka\"",
        ),
    ] {
        assert_eq!(problems(&stream(&lines)), [expected], "{lines}");
    }
}

#[test]
fn avro_has_a_schema_or_a_registry_that_is_an_http_service() {
    let avro = |lines: &str| format!("topic = \"t\"\nformat = \"avro\"\n{lines}");
    let registry =
        "[connection.registry]\ntype = \"http\"\nurl = \"http://127.0.0.1:1\"\nallow_hosts = [\"127.0.0.1\"]\n";
    let of_registry = topic(&format!("{}\n{registry}", avro("schema_registry = \"registry\"\nsubject = \"s\"")));
    let (name, subject) = ("registry".to_string(), Some("s".to_string()));
    let expected = PayloadFormat::AvroOfRegistry { registry: name, subject, schema: None };
    assert_eq!((of_registry.payload.format, of_registry.payload.columns.len()), (expected, 0));
    let bare = topic(&avro("schema = \"/a.avsc\"\ncolumns = { city = { type = \"text\", path = \"$.to.city\" } }"));
    assert_eq!(bare.payload.format, PayloadFormat::Avro { schema: "/a.avsc".into() });
    for (lines, expected) in [
        ("", "[stream.orders] lacks \"schema\""),
        ("schema_registry = \"kafka\"", "connection \"kafka\" is of type \"kafka\", and no registry of schemas"),
        ("schema_registry = \"regsitry\"", "connection \"regsitry\" does not exist"),
        ("schema = \"a\"\nsubject = \"s\"", "[stream.orders] has \"subject\" without \"schema_registry\""),
        ("schema = \"a\"\ndeletes = \"skip\"", "\"deletes\" in [stream.orders] goes with format = \"debezium\" alone"),
    ] {
        assert_eq!(problems(&stream(&avro(lines))), [expected], "{lines}");
    }
    let json = "topic = \"t\"\nformat = \"json\"\nschema = \"a\"\ncolumns = { a = \"int\" }";
    assert_eq!(problems(&stream(json)), ["\"schema\" in [stream.orders] goes with format = \"avro\" alone"]);
}

#[test]
fn lines_of_files_hold_messages_as_well() {
    let file = |lines: &str| format!("[stream.log]\ntype = \"file\"\npath = \"x\"\n{lines}\n");
    let read =
        |lines: &str| read_text(&[(PathBuf::from("a.toml"), file(lines))], &|_| None).unwrap().streams.remove(0).kind;
    let debezium = read("format = \"debezium\"\nfollow = true\ncolumns = { a = \"int\" }\nmetadata = { op = \"op\" }");
    let StreamKind::File { rows: FileStreamRows::Messages(payload, metadata), follow: true, .. } = debezium else {
        panic!("{debezium:?}")
    };
    assert_eq!((payload.format, metadata.len()), (PayloadFormat::Debezium { deletes: Deletes::Skip }, 1));
    for (lines, expected) in [
        (
            "format = \"debezium\"\ncolumns = { a = \"int\" }\nmetadata = { o = \"offset\" }",
            "\"offset\" goes with a topic of Kafka alone",
        ),
        (
            "format = \"csv\"\ncolumns = { a = \"int\" }\nmetadata = { o = \"op\" }",
            "\"metadata\" in [stream.log] goes with format = \"debezium\" alone",
        ),
        ("format = \"avro\"\nfollow = true", "follow = true in [stream.log] does not go with format = \"avro\""),
    ] {
        assert_eq!(problems(&file(lines)), [expected], "{lines}");
    }
}

#[test]
fn a_stream_says_where_its_rows_come_from() {
    let no_connection = "[stream.orders]\ntype = \"kafka\"\ntopic = \"t\"\n";
    assert_eq!(problems(no_connection), ["[stream.orders] lacks \"connection\""]);
    let redis =
        "[connection.cache]\ntype = \"redis\"\nurl = \"redis://127.0.0.1\"\n[stream.orders]\nconnection = \"cache\"\n";
    assert_eq!(problems(redis), ["a connection of type \"redis\" gives no streams"]);
    let lookup = format!("{CONNECTION}[lookup.orders]\nconnection = \"kafka\"\n");
    assert_eq!(problems(&lookup), ["a connection of type \"kafka\" holds no lookup tables"]);
    let typo =
        "[connection.kafka]\ntype = \"kafka\"\nbrokers = \"127.0.0.1:1\"\n[stream.orders]\nconnection = \"kafak\"\n";
    assert_eq!(problems(typo), ["connection \"kafak\" does not exist"]);
}
