//! What fuzzers and property tests call: each takes any bytes and must neither panic, nor hang, nor hold on to memory.
//!
//! `targets/` gives them to libFuzzer, `tests/it/fuzz.rs` replays the corpus beside this file and mutates it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use lookaside::catalog::{Catalog, file};
use lookaside::engine::Engine;
use lookaside::format::avro::Framing;
use lookaside::format::avro_schema::AvroSchema;
use lookaside::format::copy::CopyDecoder;
use lookaside::format::copy_options::CopyOptions;
use lookaside::format::csv::CsvDecoder;
use lookaside::format::debezium::Deletes;
use lookaside::format::json::JsonDecoder;
use lookaside::format::json_path::JsonPath;
use lookaside::format::lines::{LineDecoder, LineFormat, Step};
use lookaside::format::message::{MessageDecoder, MessageFormat};
use lookaside::pg_type::PgType;
use lookaside::server::Server;
use lookaside::server::decode::decode_parameter;
use lookaside::server::encode::{Format, RowEncoder, ValueSettings};
use lookaside::session::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// After so long, something hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Conversations before everything that they left in the catalog is dropped.
const CONVERSATIONS: usize = 500;

const CATALOG: &str = r#"
[stream.orders]
type = "generator"
rows_per_second = 1000
rows = 20
[stream.orders.columns]
order_id = "n"
customer_id = "n % 5"
amount = "CAST(n AS numeric(12,2)) / 7"
placed_at = "now()"

[stream.endless]
type = "generator"
rows_per_second = 10
[stream.endless.columns]
n = "n"

[stream.inbox]
type = "push"
retain_rows = 100
retain_bytes = "1MiB"
[stream.inbox.columns]
id = "bigint not null"
note = "text"
seen = "timestamptz"
price = "numeric(12,2)"
tags = "text[]"

[lookup.customers]
type = "simulated"
[lookup.customers.key]
id = "bigint"
[lookup.customers.columns]
name = "'customer ' || id"
tier = "id % 3"
"#;

/// The log-in of a client that speaks version 3.0.
const LOGIN: &[u8] = b"\0\0\0\x26\0\x03\0\0user\0fuzz\0database\0lookaside\0\0";

struct World {
    runtime: Runtime,
    engine: Arc<Engine>,
    /// Where the server listens.
    address: SocketAddr,
    conversations: usize,
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let files = [(PathBuf::from("catalog.toml"), CATALOG.to_string())];
        let definition = file::read_text(&files, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}"));
        let engine = runtime.block_on(async { Engine::new(Catalog::open(definition).expect("a catalog")) });
        let server = runtime.block_on(Server::bind(Arc::clone(&engine), "127.0.0.1:0")).expect("a free port");
        let address = server.local_address().expect("an address");
        // It goes with the runtime.
        drop(runtime.spawn(server.run(CancellationToken::new())));
        World { runtime, engine, address, conversations: 0 }
    }
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

fn in_world<T>(run: impl FnOnce(&World) -> T) -> T {
    WORLD.with_borrow_mut(|slot| {
        let world = slot.get_or_insert_with(World::new);
        world.conversations += 1;
        let result = run(world);
        if world.conversations >= CONVERSATIONS {
            *slot = None;
        }
        result
    })
}

/// The very first bytes of a client.
pub fn startup(bytes: &[u8]) {
    converse(bytes.to_vec());
}

/// What a client sends after its log-in. Lengths of messages are put right, unless the message's letter has its highest
/// bit set, so that inputs made by chance get past the first check.
pub fn messages(bytes: &[u8]) {
    let mut sent = LOGIN.to_vec();
    let mut rest = bytes;
    while let [letter, length @ ..] = rest {
        let Some((length, body)) = length.split_first_chunk::<4>() else { break };
        let declared = u32::from_be_bytes(*length) as usize;
        let (body, after) = body.split_at(declared.saturating_sub(4).min(body.len()));
        sent.push(*letter);
        match *letter < 0x80 {
            true => sent.extend((body.len() as u32 + 4).to_be_bytes()),
            false => sent.extend(length),
        }
        sent.extend(body);
        rest = after;
    }
    converse(sent);
}

/// A client that sends all this and goes.
fn converse(sent: Vec<u8>) {
    in_world(|world| {
        world.runtime.block_on(async {
            let client = TcpStream::connect(world.address).await.expect("the server listens");
            // A reset at the end keeps no port waiting.
            client.set_zero_linger().expect("a socket lingers");
            let (mut reader, mut writer) = client.into_split();
            let talking = async {
                // The server may close the connection before everything was said.
                let _ = writer.write_all(&sent).await;
                let _ = writer.shutdown().await;
                writer
            };
            let listening = async {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(1..) = reader.read(&mut buffer).await {}
            };
            let conversation = async { tokio::join!(talking, listening) };
            let ended = tokio::time::timeout(PATIENCE, conversation).await;
            assert!(ended.is_ok(), "the conversation hangs");
        });
    });
}

/// The text of statements, which are planned.
pub fn sql(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(statements) = lookaside::sql::parse(&text) else { return };
    in_world(|world| {
        world.runtime.block_on(async {
            let mut session = Session::new(Arc::clone(&world.engine));
            for statement in statements.into_iter().take(10) {
                let planned = tokio::time::timeout(PATIENCE, session.prepare(statement, &[])).await;
                assert!(planned.is_ok(), "planning hangs");
                if let Ok(Err(error)) = planned {
                    let _ = error.locate(&text);
                }
            }
        });
    });
}

/// The text of a catalog file.
pub fn catalog(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let environment = |name: &str| name.starts_with('A').then(|| "value".to_string());
    match file::read_text(&[(PathBuf::from("catalog.toml"), text)], &environment) {
        Ok(definition) => assert!(!format!("{definition:?}").is_empty()),
        Err(problems) => assert!(problems.iter().all(|problem| !problem.to_string().is_empty())),
    }
}

fn pg_types() -> Vec<PgType> {
    let plain = [
        PgType::Bool,
        PgType::Int2,
        PgType::Int4,
        PgType::Int8,
        PgType::Float4,
        PgType::Float8,
        PgType::Numeric { precision: 12, scale: 2 },
        PgType::Numeric { precision: 38, scale: 18 },
        PgType::Numeric { precision: 76, scale: 20 },
        PgType::Text,
        PgType::Bytea,
        PgType::Date,
        PgType::Time,
        PgType::Timestamp,
        PgType::Timestamptz,
        PgType::Interval,
        PgType::Uuid,
        PgType::Json,
        PgType::Jsonb,
    ];
    let arrays = plain.iter().map(|pg_type| PgType::Array(Box::new(pg_type.clone())));
    plain.iter().cloned().chain(arrays).collect()
}

/// Rows and values as clients and files hold them. The first byte says in which form, the second of which type.
pub fn decode(bytes: &[u8]) {
    let [form, kind, data @ ..] = bytes else { return };
    let types = pg_types();
    let pg_type = &types[usize::from(*kind) % types.len()];
    match form % 8 {
        0 => copy("text", pg_type, data),
        1 => copy("csv", pg_type, data),
        2 => copy("binary", pg_type, data),
        3 => {
            json(pg_type, data);
            lines(&LineFormat::json(&schema(pg_type)), pg_type, data);
        }
        4 => {
            csv(pg_type, data);
            lines(&LineFormat::Csv, pg_type, &[b"a,b\n", data].concat());
            lines(&LineFormat::Csv, pg_type, data);
        }
        5 => parameter(Format::Text, pg_type, data),
        6 => parameter(Format::Binary, pg_type, data),
        _ => formats_of_messages(pg_type, data),
    }
}

/// In two pieces, as they come from a socket.
fn copy(format: &str, pg_type: &PgType, data: &[u8]) {
    let Ok(options) = CopyOptions::try_new([("format", Some(format))]) else { return };
    let columns = vec![pg_type.clone(), PgType::Text];
    let names = vec!["a".to_string(), "b".to_string()];
    let Ok(mut decoder) = CopyDecoder::try_new(options, columns, names, "inbox".to_string()) else { return };
    let (first, second) = data.split_at(data.len() / 2);
    let read = decoder.push(first).and_then(|()| decoder.push(second)).and_then(|()| decoder.finish());
    while let Ok(Some(batch)) = decoder.take_batch() {
        show(&batch);
    }
    let _ = read;
}

/// As one message in each format that messages have.
fn formats_of_messages(pg_type: &PgType, data: &[u8]) {
    const AVRO: &str = r#"{"type": "record", "name": "r", "fields": [{"name": "a", "type": ["null", "long"]},
        {"name": "b", "type": "string"}, {"name": "c", "type": {"type": "array", "items": ["null", "r"]}}]}"#;
    let schema = schema(pg_type);
    let paths = || vec!["$.a.b[0]".parse().unwrap_or_default(), JsonPath::member("b")];
    let mut formats = vec![
        (Arc::clone(&schema), MessageFormat::Json { paths: paths() }),
        (Arc::clone(&schema), MessageFormat::Csv),
        (Arc::clone(&schema), MessageFormat::Debezium { paths: paths(), deletes: Deletes::Before, envelope: vec![] }),
        (Arc::new(Schema::new(vec![PgType::Text.field("a", true)])), MessageFormat::Raw),
    ];
    if let Ok(reader) = AvroSchema::parse(AVRO)
        && let Ok(columns) = reader.columns()
    {
        let format = MessageFormat::Avro { reader: Arc::new(reader), columns: vec![], framing: Framing::Plain };
        formats.push((Arc::new(Schema::new(columns)), format));
    }
    for (schema, format) in formats {
        let Ok(mut decoder) = MessageDecoder::try_new(&format, &schema) else { continue };
        let _ = decoder.append(Some(data));
        let _ = decoder.append(None);
        if let Ok(batch) = decoder.finish() {
            show(&batch);
        }
    }
}

fn schema(pg_type: &PgType) -> Arc<Schema> {
    Arc::new(Schema::new(vec![pg_type.field("a", true), PgType::Text.field("b", true)]))
}

fn json(pg_type: &PgType, data: &[u8]) {
    let Ok(mut decoder) = JsonDecoder::try_new(&schema(pg_type)) else { return };
    for line in String::from_utf8_lossy(data).lines() {
        let _ = decoder.append(line);
    }
    if let Ok(batch) = decoder.finish() {
        show(&batch);
    }
}

fn csv(pg_type: &PgType, data: &[u8]) {
    let Ok(mut decoder) = CsvDecoder::try_new(&schema(pg_type), b"a,b") else { return };
    for record in data.split(|byte| *byte == b'\n') {
        let _ = decoder.append(record);
    }
    if let Ok(batch) = decoder.finish() {
        show(&batch);
    }
}

/// In two pieces, as they come in the body of a request or in a file that grows.
fn lines(format: &LineFormat, pg_type: &PgType, data: &[u8]) {
    let Ok(mut decoder) = LineDecoder::try_new(&schema(pg_type), format) else { return };
    let (first, second) = data.split_at(data.len() / 2);
    for piece in [Some(first), Some(second), None] {
        match piece {
            Some(piece) => decoder.push(piece),
            None => decoder.finish(),
        }
        while let Ok(Step::Malformed(_) | Step::Full) = decoder.read() {
            let _ = decoder.take();
        }
    }
    if let Ok(Some(batch)) = decoder.take() {
        show(&batch);
    }
}

fn parameter(format: Format, pg_type: &PgType, data: &[u8]) {
    let Ok(value) = decode_parameter(Some(data), format, pg_type, ValueSettings::default()) else { return };
    let array = value.to_array().expect("a value is an array of one");
    // A numeric has a precision and a scale of its own.
    let field = pg_type.field("a", true).with_data_type(array.data_type().clone());
    show(&RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).expect("a batch of one value"));
}

/// What has been read can be written, or is refused.
fn show(batch: &RecordBatch) {
    for format in [Format::Text, Format::Binary] {
        let formats = vec![format; batch.num_columns()];
        if let Ok(mut encoder) = RowEncoder::try_new(&batch.schema(), &formats) {
            let _ = encoder.encode(batch, 0..batch.num_rows(), &mut BytesMut::new());
        }
    }
}
