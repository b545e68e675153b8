//! Where a stream's rows come from: one file a source, all behind [`Source`].
//!
//! `exec.rs` is any of them as an operator, `progress.rs` what is told of their readers, `registry.rs` where the
//! schemas of messages come from.

pub mod exec;
pub mod file;
pub mod follow;
pub mod generator;
pub mod kafka;
pub mod kafka_avro;
pub mod kafka_connection;
mod kafka_decode;
mod kafka_gather;
mod kafka_health;
mod kafka_locate;
mod kafka_reading;
pub mod kafka_rows;
pub mod kafka_token;
pub mod progress;
pub mod push;
pub mod registry;
mod ring;
mod tail;

use std::fmt;
use std::fmt::{Debug, Display};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;

use crate::error::Result;
use crate::notice::Notices;
use progress::{Progress, Reader};

/// Rows that arrive. One source serves any number of readers, each of which is independent.
#[async_trait]
pub trait Source: Debug + Display + Send + Sync {
    /// The columns as declared, with the metadata of `pg_type`.
    fn schema(&self) -> SchemaRef;

    /// What of it may be chosen to be read.
    fn choice(&self) -> RangeChoice;

    /// Whether the reading of `range` ends by itself.
    fn is_bounded(&self, range: &Range) -> bool;

    /// What is told of all readings.
    fn progress(&self) -> &Arc<Progress>;

    /// For `check`: what it is, and what was found where its rows come from.
    ///
    /// # Errors
    /// As [`Source::open`].
    async fn found(&self) -> Result<String>;

    /// Begins to read. Where the range's ends are is fixed before this returns. Batches are small enough to come at
    /// once: a row that is there is not held back for another. Dropping the stream ends the reading.
    ///
    /// # Errors
    /// HV00N where rows come from another server that cannot be reached.
    async fn open(&self, reading: Reading) -> Result<SendableRecordBatchStream>;
}

/// A source whose columns have to be asked for.
#[async_trait]
pub trait DeclaredSource: Debug + Send + Sync {
    /// # Errors
    /// HV00N where who knows the columns cannot be reached; what is wrong with what he says otherwise.
    async fn connect(&self) -> Result<Arc<dyn Source>>;
}

/// A reading as it is asked for.
#[derive(Debug)]
pub struct Reading {
    pub range: Range,
    /// Positions in [`Source::schema`]: batches have these columns in this order.
    pub projection: Vec<usize>,
    /// Its place among the source's readings, given up when dropped.
    pub reader: Reader,
    /// Where to say what the client should know before the end.
    pub notices: Notices,
}

/// What of a stream is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub start: Start,
    pub until: Until,
}

/// Where in a stream to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the next row that arrives.
    Latest,
    /// With the oldest row that is still there.
    #[default]
    Earliest,
    /// With the first row that is not older: microseconds since 1970, UTC.
    Timestamp(i64),
    /// With this row of each partition: partition and offset.
    Offsets(Vec<(i32, i64)>),
}

/// Where in a stream to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// Where it ends itself, if it does.
    #[default]
    Never,
    /// Behind the last row that is there when the reading begins.
    Latest,
}

/// Ways to say where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartKind {
    Latest,
    Earliest,
    Timestamp,
    Offsets,
}

/// What `WITH (start = …, until = …)` may say of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeChoice {
    /// Empty if it can be read from its beginning only. The first is the default, and is latest or earliest.
    pub starts: &'static [StartKind],
    /// Whether `until = 'latest'` may end it.
    pub until: bool,
}

impl RangeChoice {
    /// For sources that are always read whole.
    pub const NONE: RangeChoice = RangeChoice { starts: &[], until: false };

    /// What is read unless a query says otherwise.
    pub fn default_range(&self) -> Range {
        let start = match self.starts.first() {
            Some(StartKind::Latest) => Start::Latest,
            _ => Start::Earliest,
        };
        Range { start, until: Until::Never }
    }
}

/// The words that users write.
impl Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Latest => f.write_str("latest"),
            Start::Earliest => f.write_str("earliest"),
            Start::Timestamp(microseconds) => match DateTime::from_timestamp_micros(*microseconds) {
                Some(moment) => write!(f, "{}", moment.format("%Y-%m-%d %H:%M:%S%.f+00")),
                None => write!(f, "{microseconds} µs"),
            },
            Start::Offsets(offsets) => {
                let shown = offsets.iter().map(|(partition, offset)| format!("{partition}:{offset}"));
                f.write_str(&shown.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// What a source gives that opens without waiting.
#[cfg(test)]
pub(crate) fn open_now(source: &dyn Source, start: Start, projection: &[usize]) -> Result<SendableRecordBatchStream> {
    let range = Range { start, until: Until::Never };
    let (projection, reader) = (projection.to_vec(), source.progress().enter());
    let opening = source.open(Reading { range, projection, reader, notices: Notices::default() });
    futures::FutureExt::now_or_never(opening).unwrap()
}
