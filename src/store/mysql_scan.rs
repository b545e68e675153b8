//! A table of MariaDB or MySQL read without a key: one statement, whose rows are handed on while they come.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use mysql_async::{Row, Value};
use tokio::sync::mpsc::{Sender, channel};

use super::memory_table::batch_of;
use super::mysql_column::MysqlColumn;
use super::mysql_connection::{MysqlConnection, RowSink};
use super::mysql_decode::ColumnDecoder;
use super::{RowBatches, StoreError};
use crate::error::{Error, Result};

/// What the rows of a statement are.
pub(super) struct ScanDecoder {
    pub(super) columns: Vec<MysqlColumn>,
    pub(super) schema: SchemaRef,
}

/// The rows of a statement. A task holds one connection from the first row asked for to the last, one batch ahead of the
/// reader; dropped before, the statement is ended.
pub(super) fn rows(
    connection: Arc<MysqlConnection>,
    statement: String,
    parameters: Vec<Value>,
    decoder: ScanDecoder,
) -> RowBatches {
    let read = async move {
        let (sender, receiver) = channel(1);
        let mut sink = Batches { decoder, sender };
        let task = SpawnedTask::spawn(async move {
            if let Err(error) = connection.query(&statement, parameters, &mut sink).await {
                // Nobody reads any more, so nobody need know.
                let _ = sink.sender.send(Err(error)).await;
            }
        });
        futures::stream::unfold((receiver, task), |(mut receiver, task)| async move {
            let batch = receiver.recv().await?;
            Some((batch, (receiver, task)))
        })
    };
    futures::stream::once(read).flatten().boxed()
}

struct Batches {
    decoder: ScanDecoder,
    sender: Sender<Result<RecordBatch, StoreError>>,
}

impl RowSink for Batches {
    async fn take(&mut self, rows: Vec<Row>) -> Result<(), StoreError> {
        let batch = self.decoder.decode(rows)?;
        let gone = |_| StoreError::Invalid(Error::internal("nobody reads the rows of a scan"));
        self.sender.send(Ok(batch)).await.map_err(gone)
    }
}

impl ScanDecoder {
    fn decode(&self, rows: Vec<Row>) -> Result<RecordBatch> {
        let rows = rows.into_iter().map(Row::unwrap_raw).collect::<Vec<_>>();
        let columns = self.columns.iter().enumerate().map(|(position, column)| {
            let mut decoder = ColumnDecoder::new(&column.name, &column.pg_type, column.nullable);
            decoder.append(&rows, position)?;
            Ok(decoder.finish())
        });
        batch_of(Arc::clone(&self.schema), columns.collect::<Result<Vec<_>>>()?, rows.len())
    }
}
