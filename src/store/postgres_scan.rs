//! A table of PostgreSQL read without a key: one statement, whose rows are handed on while they come.

use std::pin::Pin;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use tokio_postgres::{Row, RowStream};

use super::memory_table::batch_of;
use super::postgres_connection::{Failure, PostgresConnection, Request};
use super::postgres_decode::{ColumnDecoder, cells};
use super::postgres_encode::Parameter;
use super::postgres_schema::PostgresColumn;
use super::{RowBatches, StoreError};
use crate::error::Result;

/// A batch is handed over when it has as many rows or bytes.
const ROWS_PER_BATCH: usize = 1024;
const BYTES_PER_BATCH: usize = 1 << 20;

/// What the rows of a statement are.
pub(super) struct ScanDecoder {
    pub(super) columns: Vec<PostgresColumn>,
    pub(super) schema: SchemaRef,
}

/// The rows of a statement. It holds one connection from the first row asked for to the last; dropped before, it cancels.
pub(super) fn rows(
    connection: Arc<PostgresConnection>,
    statement: String,
    parameters: Vec<Parameter>,
    decoder: ScanDecoder,
) -> RowBatches {
    let read = async move {
        let (first, scan) = Scan::begin(&connection, &statement, &parameters).await?;
        let decoder = Arc::new(decoder);
        let decode = Arc::clone(&decoder);
        let rest = futures::stream::try_unfold(scan, move |mut scan| {
            let decode = Arc::clone(&decode);
            async move {
                let rows = scan.next().await?;
                if rows.is_empty() { Ok(None) } else { Ok(Some((decode.decode(&rows)?, scan))) }
            }
        });
        let first = (!first.is_empty()).then(|| decoder.decode(&first).map_err(StoreError::from));
        Ok::<_, StoreError>(futures::stream::iter(first).chain(rest))
    };
    futures::stream::once(read).try_flatten().boxed()
}

/// A statement whose rows come in. The rows go first when it is dropped: then the request cancels.
struct Scan {
    /// `None`: all rows have come.
    rows: Option<Pin<Box<RowStream>>>,
    request: Request,
    connection: Arc<PostgresConnection>,
}

impl Scan {
    /// Sends the statement and waits for the first rows.
    async fn begin(
        connection: &Arc<PostgresConnection>,
        statement: &str,
        parameters: &[Parameter],
    ) -> Result<(Vec<Row>, Scan), StoreError> {
        let request = connection.take().await?;
        let reused = request.is_reused();
        let failure = match Scan::send(connection, request, statement, parameters).await {
            Ok(begun) => return Ok(begun),
            // The server went away while the connection lay idle. What else lies idle is as old: begin afresh, once.
            Err(Failure::ConnectionLost { rows_came: false, .. }) if reused => {
                connection.forget_idle();
                let request = connection.take().await?;
                Scan::send(connection, request, statement, parameters).await
            }
            Err(failure) => Err(failure),
        };
        failure.map_err(|failure| in_words(connection, failure))
    }

    async fn send(
        connection: &Arc<PostgresConnection>,
        mut request: Request,
        statement: &str,
        parameters: &[Parameter],
    ) -> Result<(Vec<Row>, Scan), Failure> {
        // Asked once: a prepared statement would only take a place.
        let rows = request.rows(false, statement, parameters).await?;
        let mut scan = Scan { rows: Some(Box::pin(rows)), request, connection: Arc::clone(connection) };
        let first = scan.read(false).await?;
        Ok((first, scan))
    }

    /// The next rows; none at the end.
    async fn next(&mut self) -> Result<Vec<Row>, StoreError> {
        let rows = self.read(true).await;
        rows.map_err(|failure| in_words(&self.connection, failure))
    }

    async fn read(&mut self, rows_came: bool) -> Result<Vec<Row>, Failure> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let Some(rows) = &mut self.rows else { return Ok(batch) };
        while batch.len() < ROWS_PER_BATCH && bytes < BYTES_PER_BATCH {
            match rows.try_next().await {
                Ok(Some(row)) => {
                    bytes += row.raw_size_bytes();
                    batch.push(row);
                }
                Ok(None) => {
                    self.rows = None;
                    self.request.end();
                    break;
                }
                Err(error) => return Err(self.request.fail(&error, rows_came || !batch.is_empty())),
            }
        }
        Ok(batch)
    }
}

fn in_words(connection: &PostgresConnection, failure: Failure) -> StoreError {
    match failure {
        Failure::Store(error) => error,
        Failure::ConnectionLost { message, .. } => connection.unavailable(message),
    }
}

impl ScanDecoder {
    fn decode(&self, rows: &[Row]) -> Result<RecordBatch> {
        let columns = self.columns.iter().enumerate().map(|(position, column)| {
            let mut decoder = ColumnDecoder::new(&column.name, &column.pg_type, column.nullable);
            decoder.append(&cells(rows, position)?)?;
            decoder.finish()
        });
        batch_of(Arc::clone(&self.schema), columns.collect::<Result<Vec<_>>>()?, rows.len())
    }
}
