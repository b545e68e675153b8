//! A table or view of an SQLite database as a store.
//!
//! One request is one statement: the keys go into a temporary table, which the connection has beside the database, and
//! are joined with the rows there; which key a row belongs to is told by the key's number. SQLite works in the calling
//! thread, so all of it runs off the async threads. The rest stands in `sqlite_connection.rs` (connections, stopping,
//! errors), `sqlite_schema.rs` (columns) and `sqlite_value.rs` (values).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::Expr;
use futures::StreamExt;
use rusqlite::types::{Value as Stored, ValueRef};
use rusqlite::{Connection, params_from_iter};
use tokio::sync::mpsc;

use super::size::{AnswerRoom, POSITION_BYTES};
pub use super::sqlite_connection::SqliteConnection;
use super::sqlite_connection::failure;
use super::sqlite_schema::{SqliteColumn, quote_identifier, read_indexed, read_table};
use super::sqlite_value::{RowDecoder, stored_keys};
use super::{
    Answer, DeclaredTable, KeyEquality, LookupRequest, LookupShape, RowBatches, ScanRequest, SqlTable, Store,
    StoreError,
};
use crate::error::{Error, Result};

/// Rows that a scan hands over at once, and how many such batches wait to be taken.
const ROWS_PER_BATCH: usize = 8192;
const BATCHES_WAITING: usize = 2;

/// A `[connection.X]` of type sqlite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    pub path: PathBuf,
    /// Requests at once, at least 1.
    pub max_connections: usize,
}

/// A table whose columns have not been read yet.
#[derive(Debug)]
pub struct SqliteDeclared {
    pub connection: Arc<SqliteConnection>,
    pub table: SqlTable,
}

#[async_trait]
impl DeclaredTable for SqliteDeclared {
    async fn connect(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(SqliteStore::connect(Arc::clone(&self.connection), &self.table).await?))
    }

    fn shown(&self) -> String {
        format!("sqlite {} in {}", self.table.table, self.connection)
    }
}

/// A table whose columns have been read.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Arc<SqliteConnection>,
    table: String,
    columns: Arc<Vec<SqliteColumn>>,
    /// Positions in `columns`.
    primary_key: Vec<usize>,
    schema: SchemaRef,
}

impl SqliteStore {
    /// Reads the table's columns and types.
    ///
    /// # Errors
    /// Unavailable if the file cannot be opened; 42P01 for an unknown table, 42703 for an unknown column, 0A000 for a
    /// column whose type cannot be told.
    pub async fn connect(connection: Arc<SqliteConnection>, table: &SqlTable) -> Result<Self, StoreError> {
        let declared = table.clone();
        let (columns, primary_key) = connection.run(move |database| read_table(database, &declared)).await?;
        let fields = columns.iter().map(|column| column.pg_type.field(&column.name, true)).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        Ok(SqliteStore { connection, table: table.table.clone(), columns: Arc::new(columns), primary_key, schema })
    }

    fn columns(&self, positions: &[usize]) -> Result<Vec<SqliteColumn>> {
        let column = |position: &usize| self.columns.get(*position).cloned();
        let columns = positions.iter().map(column).collect::<Option<Vec<_>>>();
        columns.ok_or_else(|| Error::internal("a column was asked of a table that has fewer"))
    }

    /// The statement for a shape. The keys' table comes first, whatever SQLite thinks of that (CROSS JOIN): else it might
    /// read the whole table for a few keys.
    fn statement(&self, shape: &LookupShape) -> Result<String> {
        let values = self.columns(&shape.columns)?;
        let values = values.iter().map(|column| format!(", t.{}", quote_identifier(&column.name))).collect::<String>();
        let keys = self.columns(&shape.key_columns)?;
        let equal = |(number, column): (usize, &SqliteColumn)| {
            // Whatever the column's own collation: equal are texts of the same bytes.
            format!("t.{} = k.k{number} COLLATE BINARY", quote_identifier(&column.name))
        };
        let equal = keys.iter().enumerate().map(equal).collect::<Vec<_>>().join(" AND ");
        let (keys, table) = (keys_table(shape.key_columns.len()), quote_identifier(&self.table));
        Ok(format!("SELECT k.number{values} FROM temp.{keys} AS k CROSS JOIN main.{table} AS t ON {equal}"))
    }
}

/// The name of the temporary table for keys of so many columns.
fn keys_table(columns: usize) -> String {
    format!("lookaside_keys_{columns}")
}

fn write_keys(database: &Connection, keys: &[Vec<Stored>], count: usize) -> rusqlite::Result<()> {
    let table = keys_table(keys.len());
    let names = (0..keys.len()).map(|number| format!(", k{number}")).collect::<String>();
    let holes = vec![", ?"; keys.len()].concat();
    database.execute_batch(&format!(
        "CREATE TEMP TABLE IF NOT EXISTS {table} (number INTEGER PRIMARY KEY{names}); DELETE FROM temp.{table}"
    ))?;
    let mut insert = database.prepare(&format!("INSERT INTO temp.{table} VALUES (?{holes})"))?;
    for row in 0..count {
        let number = Stored::Integer(row as i64);
        let values = std::iter::once(&number).chain(keys.iter().map(|column| &column[row]));
        insert.execute(params_from_iter(values))?;
    }
    Ok(())
}

/// The answer, read in one transaction, so that all of it is of one moment.
fn answer(
    database: &mut Connection,
    statement: &str,
    keys: &[Vec<Stored>],
    request: &LookupRequest,
    mut decoder: RowDecoder,
) -> Result<Answer, StoreError> {
    let transaction = database.transaction().map_err(|error| failure(&error))?;
    write_keys(&transaction, keys, request.len()).map_err(|error| failure(&error))?;
    let mut statement = transaction.prepare(statement).map_err(|error| failure(&error))?;
    let mut rows = statement.query([]).map_err(|error| failure(&error))?;
    let mut room = AnswerRoom::new(request.max_answer_bytes);
    let mut key_of_row = Vec::new();
    while let Some(row) = rows.next().map_err(|error| failure(&error))? {
        let number = match row.get_ref(0).map_err(|error| failure(&error))? {
            ValueRef::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        };
        key_of_row.push(number.ok_or_else(|| Error::internal("SQLite gave a key another number"))?);
        room.take(POSITION_BYTES + decoder.append(row, 1)?)?;
    }
    let rows = decoder.finish(key_of_row.len())?;
    Ok(Answer { rows, key_of_row: UInt32Array::from(key_of_row) })
}

#[async_trait]
impl Store for SqliteStore {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn primary_key(&self) -> Vec<usize> {
        self.primary_key.clone()
    }

    async fn indexed_columns(&self) -> Result<Option<Vec<usize>>, StoreError> {
        let (columns, table) = (Arc::clone(&self.columns), self.table.clone());
        self.connection.run(move |database| read_indexed(database, &table, &columns)).await
    }

    /// Any column may hold values of any kind, which SQLite compares in a way of its own.
    fn can_filter(&self, _: &Expr) -> bool {
        false
    }

    fn key_equality(&self, column: usize) -> KeyEquality {
        self.columns.get(column).map_or_else(|| KeyEquality::unknown_column(column), SqliteColumn::key_equality)
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        if let Some(filter) = request.shape.filters.first() {
            return Err(Error::internal(format!("the store cannot apply {filter}")).into());
        }
        let statement = self.statement(&request.shape)?;
        let key_columns = self.columns(&request.shape.key_columns)?;
        let keys = key_columns.iter().zip(&request.keys).map(|(column, keys)| stored_keys(keys, &column.pg_type));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let decoder = RowDecoder::new(self.columns(&request.shape.columns)?, &self.schema, &request.shape.columns)?;
        let request = request.clone();
        self.connection.run(move |database| answer(database, &statement, &keys, &request, decoder)).await
    }

    fn can_scan(&self) -> bool {
        true
    }

    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError> {
        let columns = self.columns(&request.columns)?;
        let values = columns.iter().map(|column| quote_identifier(&column.name)).collect::<Vec<_>>();
        let values = if values.is_empty() { "1".to_string() } else { values.join(", ") };
        let limit = request.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let statement = format!("SELECT {values} FROM main.{}{limit}", quote_identifier(&self.table));
        let decoder = RowDecoder::new(columns, &self.schema, &request.columns)?;
        let (sender, mut batches) = mpsc::channel(BATCHES_WAITING);
        let connection = Arc::clone(&self.connection);
        let reading = async move {
            let last = sender.clone();
            let read = connection.run(move |database| read_all(database, &statement, decoder, &sender)).await;
            if let Err(error) = read {
                // Whoever reads no more does not want to know.
                let _ = last.send(Err(error)).await;
            }
        };
        // The reading is stopped with the stream.
        let mut task = tokio::task::JoinSet::new();
        task.spawn(reading);
        let batches = futures::stream::poll_fn(move |context| {
            let _task = &task;
            batches.poll_recv(context)
        });
        Ok(batches.boxed())
    }
}

type BatchSender = mpsc::Sender<Result<RecordBatch, StoreError>>;

fn read_all(
    database: &mut Connection,
    statement: &str,
    mut decoder: RowDecoder,
    sender: &BatchSender,
) -> Result<(), StoreError> {
    let mut statement = database.prepare(statement).map_err(|error| failure(&error))?;
    let mut rows = statement.query([]).map_err(|error| failure(&error))?;
    let mut count = 0;
    loop {
        let row = rows.next().map_err(|error| failure(&error))?;
        if let Some(row) = row {
            decoder.append(row, 0)?;
            count += 1;
        }
        if count == ROWS_PER_BATCH || (row.is_none() && count > 0) {
            let batch = decoder.finish(count)?;
            count = 0;
            if sender.blocking_send(Ok(batch)).is_err() {
                return Ok(());
            }
        }
        if row.is_none() {
            return Ok(());
        }
    }
}

impl fmt::Display for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite {} in {}", self.table, self.connection)
    }
}
