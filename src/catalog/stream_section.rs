//! What `[stream.X]` means.

use std::num::{NonZeroU64, NonZeroUsize};

use super::columns::{read_columns, read_generator_columns};
use super::connection_section::Connections;
use super::definition::{
    ColumnDefinition, FileFormat, FileStreamRows, OnMalformed, SlowReader, StreamDefinition, StreamKind,
};
use super::kafka_section::read_kafka_stream;
use super::message_section::{Carrier, MessageWord, read_metadata, read_payload};
use super::problem::Complaint;
use super::section::Section;

const RETAIN_ROWS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
const RETAIN_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy)]
enum Type {
    Generator,
    Push,
    File,
}

/// Reads the section of the stream `name`; `None` if it is too wrong to tell what it would be. `connections` are those of
/// all files; what is wrong with the one that it names is complained of here.
pub(super) fn read_stream(name: &str, section: &Section, connections: &Connections) -> Option<StreamDefinition> {
    let kind = match section.has("connection") {
        true => read_connected(section, connections)?,
        false => read_unconnected(section, connections)?,
    };
    let on_malformed = section.choice("on_malformed", &[("fail", OnMalformed::Fail), ("skip", OnMalformed::Skip)]);
    let on_malformed = on_malformed.unwrap_or(OnMalformed::Fail);
    if matches!((&kind, on_malformed), (StreamKind::Generator { .. }, OnMalformed::Skip)) {
        let complaint = Complaint::new(format!("on_malformed = \"skip\" in {} has no effect", section.title));
        section.complain_of("on_malformed", complaint.with_hint("A generator makes no malformed rows: leave it out."));
    }
    let comment = section.comment();
    Some(StreamDefinition { name: name.to_string(), origin: section.origin.clone(), comment, on_malformed, kind })
}

/// A stream whose rows come from a server.
fn read_connected(section: &Section, connections: &Connections) -> Option<StreamKind> {
    let connection = section.text("connection")?;
    let Some(of) = connections.type_of(section, &connection) else {
        // What the section would be is not known, so only keys that belong nowhere can be told.
        section.check_keys();
        return None;
    };
    if of != "kafka" {
        let message = format!("a connection of type \"{of}\" gives no streams");
        section.complain_of("connection", Complaint::new(message).with_hint("One of type \"kafka\" does."));
        return None;
    }
    if section.has("type") && !section.is_text("type", of) {
        let message = format!("\"type\" in {} is not that of its connection, \"{of}\"", section.title);
        section.complain_of("type", Complaint::new(message).with_hint("Leave it out."));
        return None;
    }
    read_kafka_stream(&section.of_type(of), connection.value, connections)
}

fn read_unconnected(section: &Section, connections: &Connections) -> Option<StreamKind> {
    if !section.has("type") {
        let complaint = Complaint::new(format!("{} lacks \"type\"", section.title));
        section.complain(
            complaint.with_hint("Write connection = \"…\" for a topic of Kafka, or type = \"push\" and the like."),
        );
        section.check_keys();
        return None;
    }
    if section.is_text("type", "kafka") {
        let complaint = Complaint::new(format!("{} lacks \"connection\"", section.title));
        section.complain(complaint.with_hint("Declare the brokers as [connection.NAME] with type = \"kafka\"."));
        return None;
    }
    let types = [("generator", Type::Generator), ("push", Type::Push), ("file", Type::File)];
    Some(match section.choice("type", &types)? {
        Type::Generator => read_generator(&section.of_type("generator")),
        Type::Push => read_push(&section.of_type("push")),
        Type::File => read_file(&section.of_type("file"), connections)?,
    })
}

fn read_generator(section: &Section) -> StreamKind {
    section.require("rows_per_second");
    StreamKind::Generator {
        rows_per_second: section.number("rows_per_second").unwrap_or_default(),
        rows: section.whole("rows").unwrap_or_default(),
        seed: section.whole("seed").unwrap_or_default(),
        columns: read_generator_columns(section),
    }
}

fn read_push(section: &Section) -> StreamKind {
    let slow_readers = [("fail", SlowReader::Fail), ("wait", SlowReader::Wait)];
    StreamKind::Push {
        columns: read_columns(section),
        retain_rows: section.count("retain_rows").unwrap_or(RETAIN_ROWS),
        retain_bytes: section.size("retain_bytes").map_or(RETAIN_BYTES, NonZeroU64::get),
        slow_reader: section.choice("slow_reader", &slow_readers).unwrap_or(SlowReader::Fail),
    }
}

/// A format of the files of streams.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileWord {
    /// Below a header.
    Csv,
    Messages(MessageWord),
    Parquet,
    Avro,
}

const FILE_STREAM_FORMATS: [(&str, FileWord); 6] = [
    ("json", FileWord::Messages(MessageWord::Json)),
    ("csv", FileWord::Csv),
    ("parquet", FileWord::Parquet),
    ("avro", FileWord::Avro),
    ("debezium", FileWord::Messages(MessageWord::Debezium)),
    ("raw", FileWord::Messages(MessageWord::Raw)),
];

fn read_file(section: &Section, connections: &Connections) -> Option<StreamKind> {
    section.require("path");
    section.require("format");
    let path = section.path("path");
    let follow = section.flag("follow").unwrap_or(false);
    let word = section.choice("format", &FILE_STREAM_FORMATS);
    let rows = match word {
        Some(FileWord::Messages(word)) => {
            let payload = read_payload(section, Some(word), connections);
            let metadata = read_metadata(section, Carrier::File, payload.as_ref());
            FileStreamRows::Messages(payload?, metadata)
        }
        other => {
            read_payload(section, None, connections);
            refuse_metadata(section);
            match other? {
                FileWord::Csv => FileStreamRows::Csv(read_columns(section)),
                FileWord::Parquet => of_whole_file(section, follow, FileStreamRows::Parquet),
                FileWord::Avro => of_whole_file(section, follow, FileStreamRows::Avro),
                FileWord::Messages(_) => return None,
            }
        }
    };
    Some(StreamKind::File { path: path?, rows, follow })
}

/// Complains of what does not go with a file that is written whole and names its columns.
fn of_whole_file(section: &Section, follow: bool, rows: FileStreamRows) -> FileStreamRows {
    read_format(section);
    if follow {
        let format = if rows == FileStreamRows::Avro { "avro" } else { "parquet" };
        let complaint =
            Complaint::new(format!("follow = true in {} does not go with format = \"{format}\"", section.title));
        section.complain_of("follow", complaint.with_hint("Only lines are read as a file grows."));
    }
    rows
}

fn refuse_metadata(section: &Section) {
    if section.has("metadata") && section.section("metadata", "metadata").is_some() {
        let message = format!("\"metadata\" in {} goes with format = \"debezium\" alone", section.title);
        section.complain_of("metadata", Complaint::new(message));
    }
}

/// The formats of files, as the catalog names them.
pub(super) const FILE_FORMATS: [(&str, FileFormat); 4] = [
    ("json", FileFormat::Json),
    ("csv", FileFormat::Csv),
    ("parquet", FileFormat::Parquet),
    ("avro", FileFormat::Avro),
];

/// The keys `format` and `columns` of a file.
pub(super) fn read_format(section: &Section) -> Option<(FileFormat, Vec<ColumnDefinition>)> {
    section.require("format");
    let format = section.choice("format", &FILE_FORMATS)?;
    let (name, file) = match format {
        FileFormat::Json | FileFormat::Csv => return Some((format, read_columns(section))),
        FileFormat::Parquet => ("parquet", "A parquet file"),
        FileFormat::Avro => ("avro", "An avro file"),
    };
    if section.has("columns") {
        let inner = section.title_of("columns");
        let complaint = Complaint::new(format!("{inner} does not go with format = \"{name}\""));
        let hint = format!("{file} names its columns and their types itself.");
        section.complain_of("columns", complaint.with_hint(hint));
    }
    Some((format, Vec::new()))
}
