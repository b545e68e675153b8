//! From bytes to record batches, with the position of what is malformed.
//!
//! `record.rs` finds where records end, `fields.rs` takes them apart, and `json.rs`, `csv.rs` and `copy.rs` read rows
//! (`copy_binary.rs` with `binary.rs`) with `text.rs`, which knows PostgreSQL's input syntax (`number.rs`, `datetime.rs` with `time_zone.rs`, `interval.rs`, `literal.rs`). `settings.rs` is what a session says
//! of both. `avro.rs` reads Avro's messages with the other `avro_*.rs`, beginning with `avro_schema.rs`. `row.rs` collects the rows, `lines.rs` reads them out of pieces that come one by one, `message.rs` reads messages one by one, among them the changes that `debezium.rs` knows, and `file.rs`, `parquet_file.rs` and `avro_file.rs` read whole files that way. Everything here blocks: callers that must
//! not wait put it on a thread of its own.

pub mod avro;
pub mod avro_column;
mod avro_default;
mod avro_file;
mod avro_json;
mod avro_parser;
mod avro_plan;
mod avro_resolve;
pub mod avro_schema;
mod avro_value;
mod avro_wire;
pub(crate) mod binary;
pub mod copy;
pub mod copy_binary;
pub mod copy_options;
pub mod csv;
mod datetime;
pub mod debezium;
pub(crate) mod fields;
mod file;
pub(crate) mod interval;
pub mod json;
pub mod json_path;
pub mod lines;
pub(crate) mod literal;
pub mod message;
pub(crate) mod number;
mod parquet_file;
mod record;
mod row;
pub mod settings;
pub mod text;
pub(crate) mod time_zone;

use std::fmt;
use std::path::PathBuf;

pub use file::{FileRows, file_schema, read_all, read_bytes, read_rows, schema_of_bytes};

/// How a file's or a message's bytes hold rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON object a line.
    Json,
    /// With a header line.
    Csv,
    Parquet,
    /// An object container file.
    Avro,
}

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileData {
    Path(PathBuf),
    /// In the binary: only the demo's. Never changes.
    Embedded(&'static str),
}

/// What becomes of a row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMalformed {
    /// The query ends with the error.
    Fail,
    /// It is dropped, counted and logged.
    Skip,
}

/// The words for a row that cannot be read, wherever it came from; `position` is like `line 7`.
pub(crate) fn malformed_row(name: &str, position: impl fmt::Display, reason: &str) -> String {
    format!("malformed row in \"{name}\" at {position}: {reason}")
}
