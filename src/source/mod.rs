//! Where a stream's rows come from: one file a source, all behind [`Source`]. `registry.rs` is where the schemas of
//! messages come from.

pub mod exec;
pub mod file;
pub mod generator;
pub mod push;
pub mod registry;
mod ring;

use std::fmt::{Debug, Display};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;

use crate::error::Result;

/// Rows that arrive. One source serves any number of readers, each of which is independent.
pub trait Source: Debug + Display + Send + Sync {
    /// The columns as declared, with the metadata of `pg_type`.
    fn schema(&self) -> SchemaRef;

    /// Whether reading ends by itself.
    fn is_bounded(&self) -> bool;

    /// Malformed rows that were left out, of all readers.
    fn rows_skipped(&self) -> u64;

    /// The values that `WITH (start = …)` may have here; empty if the source has no such choice. The first is the default.
    fn starts(&self) -> &'static [Start];

    /// Begins to read. Where `start` is, is fixed before this returns. `projection` holds positions in [`Source::schema`];
    /// batches have those columns in that order. Batches are small enough to come at once: a row that is
    /// there is not held back for another. Dropping the stream ends the reading.
    fn open(&self, start: Start, projection: &[usize]) -> Result<SendableRecordBatchStream>;
}

/// Where in a stream to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum Start {
    /// With the next row that arrives.
    Latest,
    /// With the oldest row that is still there.
    Earliest,
}

impl Start {
    /// The word that users write.
    pub fn name(self) -> &'static str {
        match self {
            Start::Latest => "latest",
            Start::Earliest => "earliest",
        }
    }
}
