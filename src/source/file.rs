//! A file: read whole from its beginning by each reader, off the async threads, or followed as it grows.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::{RecordBatchReceiverStreamBuilder, RecordBatchStreamAdapter};
use futures::stream;

use super::follow::{FollowedFile, Follower};
use super::progress::Progress;
use super::{Range, RangeChoice, Reading, Source, Start, StartKind};
use crate::error::{Code, Error, Result};
use crate::format::{FileFormat, FileRows, OnMalformed, file_schema, read_rows};

/// Batches that are read ahead.
const READ_AHEAD: usize = 2;

/// A file of rows.
pub struct FileSource {
    file: Arc<File>,
}

struct File {
    name: String,
    path: PathBuf,
    rows: FileRows,
    schema: SchemaRef,
    on_malformed: OnMalformed,
    progress: Arc<Progress>,
}

impl FileSource {
    /// `schema` holds the columns of lines; parquet and avro files know their own.
    ///
    /// # Errors
    /// When the file is not there, or is not what it is declared to be.
    pub fn try_new(
        name: String,
        path: PathBuf,
        rows: FileRows,
        schema: SchemaRef,
        on_malformed: OnMalformed,
    ) -> Result<Self> {
        if let Err(error) = std::fs::metadata(&path) {
            let message = format!("file {} of stream \"{name}\" cannot be read: {error}", path.display());
            return Err(Error::new(Code::DataException, message));
        }
        let schema = match rows {
            FileRows::Lines(_) => schema,
            FileRows::Parquet => file_schema(&path, FileFormat::Parquet)?,
            FileRows::Avro => file_schema(&path, FileFormat::Avro)?,
        };
        let progress = Arc::default();
        Ok(FileSource { file: Arc::new(File { name, path, rows, schema, on_malformed, progress }) })
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
            let File { name, path, rows, schema, on_malformed, progress } = file.as_ref();
            let skipped = progress.skipped();
            if let Err(error) = read_rows(name, path, rows, schema, *on_malformed, skipped, &mut send) {
                progress.note(&error);
                // Behind the rows that were read before it: what a task returns may overtake them.
                let _ = sender.blocking_send(Err(error.into()));
            }
            Ok(())
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

/// A file that others append to.
pub struct FollowedSource {
    file: Arc<FollowedFile>,
    progress: Arc<Progress>,
}

impl FollowedSource {
    /// The file need not be there yet.
    pub fn new(file: FollowedFile) -> Self {
        FollowedSource { file: Arc::new(file), progress: Arc::default() }
    }
}

#[async_trait]
impl Source for FollowedSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.file.schema)
    }

    fn choice(&self) -> RangeChoice {
        RangeChoice { starts: &[StartKind::Earliest, StartKind::Latest], until: false }
    }

    fn is_bounded(&self, _range: &Range) -> bool {
        false
    }

    fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    async fn found(&self) -> Result<String> {
        Ok(match tokio::fs::metadata(&self.file.path).await {
            Ok(_) => self.to_string(),
            Err(error) => format!("{self}; warning: {}: {error}", self.file.path.display()),
        })
    }

    async fn open(&self, reading: Reading) -> Result<SendableRecordBatchStream> {
        let Reading { range, projection, reader, .. } = reading;
        let schema = Arc::new(self.schema().project(&projection)?);
        let follower = match range.start {
            Start::Latest => Follower::from_end(Arc::clone(&self.file)).await?,
            _ => Follower::from_beginning(Arc::clone(&self.file)).await?,
        };
        let batches = stream::try_unfold((follower, reader, projection), |(mut follower, reader, projection)| async {
            let progress = reader.progress();
            let batch = follower.next(progress.skipped()).await.inspect_err(|error| progress.note(error))?;
            Ok::<_, DataFusionError>(Some((batch.project(&projection)?, (follower, reader, projection))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

impl fmt::Display for FollowedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("file")
    }
}

impl fmt::Debug for FollowedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowedSource").field("file", &self.file).finish_non_exhaustive()
    }
}
