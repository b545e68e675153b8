//! What `[stream.X]` means.

use std::num::{NonZeroU64, NonZeroUsize};

use super::columns::{read_columns, read_generator_columns};
use super::definition::{ColumnDefinition, FileFormat, OnMalformed, SlowReader, StreamDefinition, StreamKind};
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

/// Reads the section of the stream `name`; `None` if it is too wrong to tell what it would be.
pub(super) fn read_stream(name: &str, section: &Section) -> Option<StreamDefinition> {
    if !section.has("type") {
        section.require("type");
        section.check_keys();
        return None;
    }
    let types = [("generator", Type::Generator), ("push", Type::Push), ("file", Type::File)];
    let kind = match section.choice("type", &types)? {
        Type::Generator => read_generator(&section.of_type("generator")),
        Type::Push => read_push(&section.of_type("push")),
        Type::File => read_file(&section.of_type("file"))?,
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

fn read_file(section: &Section) -> Option<StreamKind> {
    if section.flag("follow") == Some(true) {
        let complaint = Complaint::new(format!("follow = true in {} is not available yet", section.title));
        section.complain_of("follow", complaint);
    }
    section.require("path");
    let path = section.path("path");
    let (format, columns) = read_format(section)?;
    Some(StreamKind::File { path: path?, format, columns })
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
