//! A file, read whole from its beginning by each reader, off the async threads.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;

use super::progress::Progress;
use super::{Range, RangeChoice, Reading, Source};
use crate::error::{Code, Error, Result};
use crate::format::{FileFormat, OnMalformed, parquet_schema, read_rows};

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
    progress: Arc<Progress>,
}

impl FileSource {
    /// `schema` holds the declared columns; `None` for parquet, whose files know their own.
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
            None => parquet_schema(&path)?,
        };
        let progress = Arc::default();
        Ok(FileSource { file: Arc::new(File { name, path, format, schema, on_malformed, progress }) })
    }
}

#[async_trait]
impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.file.schema)
    }

    fn choice(&self) -> RangeChoice {
        RangeChoice::NONE
    }

    fn is_bounded(&self, _range: &Range) -> bool {
        true
    }

    fn progress(&self) -> &Arc<Progress> {
        &self.file.progress
    }

    async fn found(&self) -> Result<String> {
        Ok(self.to_string())
    }

    async fn open(&self, reading: Reading) -> Result<SendableRecordBatchStream> {
        let Reading { projection, reader, .. } = reading;
        let schema = Arc::new(self.file.schema.project(&projection)?);
        let mut builder = RecordBatchReceiverStreamBuilder::new(schema, READ_AHEAD);
        let sender = builder.tx();
        let file = Arc::clone(&self.file);
        builder.spawn_blocking(move || {
            let _reader = reader;
            let mut send = |batch: datafusion::arrow::array::RecordBatch| {
                let projected = batch.project(&projection).map_err(DataFusionError::from);
                // A reader that has gone ends the reading.
                sender.blocking_send(projected).is_ok()
            };
            let File { name, path, format, schema, on_malformed, progress } = file.as_ref();
            let skipped = progress.skipped();
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
