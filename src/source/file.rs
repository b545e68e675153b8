//! A file, read whole from its beginning by each reader, off the async threads.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;

use super::{Source, Start};
use crate::error::{Code, Error, Result};
use crate::format::{FileFormat, OnMalformed, file_schema, read_rows};

/// Batches that are read ahead.
const READ_AHEAD: usize = 2;

/// A file of rows.
pub struct FileSource {
    file: Arc<File>,
}

struct File {
    name: String,
    path: PathBuf,
    format: FileFormat,
    schema: SchemaRef,
    on_malformed: OnMalformed,
    /// Malformed rows that were left out, of all readers.
    skipped: AtomicU64,
}

impl FileSource {
    /// `schema` holds the declared columns; `None` for parquet and avro, whose files know their own.
    ///
    /// # Errors
    /// When the file is not there, or is not what it is declared to be.
    pub fn try_new(
        name: String,
        path: PathBuf,
        format: FileFormat,
        schema: Option<SchemaRef>,
        on_malformed: OnMalformed,
    ) -> Result<Self> {
        if let Err(error) = std::fs::metadata(&path) {
            let message = format!("file {} of stream \"{name}\" cannot be read: {error}", path.display());
            return Err(Error::new(Code::DataException, message));
        }
        let schema = match schema {
            Some(schema) => schema,
            None => file_schema(&path, format)?,
        };
        let skipped = AtomicU64::new(0);
        Ok(FileSource { file: Arc::new(File { name, path, format, schema, on_malformed, skipped }) })
    }
}

impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.file.schema)
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn rows_skipped(&self) -> u64 {
        self.file.skipped.load(Relaxed)
    }

    fn starts(&self) -> &'static [Start] {
        &[]
    }

    fn open(&self, _start: Start, projection: &[usize]) -> Result<SendableRecordBatchStream> {
        let schema = Arc::new(self.file.schema.project(projection)?);
        let mut builder = RecordBatchReceiverStreamBuilder::new(schema, READ_AHEAD);
        let sender = builder.tx();
        let file = Arc::clone(&self.file);
        let projection = projection.to_vec();
        builder.spawn_blocking(move || {
            let mut send = |batch: datafusion::arrow::array::RecordBatch| {
                let projected = batch.project(&projection).map_err(DataFusionError::from);
                // A reader that has gone ends the reading.
                sender.blocking_send(projected).is_ok()
            };
            let File { name, path, format, schema, on_malformed, skipped } = file.as_ref();
            read_rows(name, path, *format, schema, *on_malformed, skipped, &mut send).map_err(DataFusionError::from)
        });
        Ok(builder.build())
    }
}

impl fmt::Display for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("file")
    }
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource")
            .field("name", &self.file.name)
            .field("path", &self.file.path)
            .finish_non_exhaustive()
    }
}
