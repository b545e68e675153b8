//! A table, view or foreign table of PostgreSQL as a store.
//!
//! One request is one statement with the distinct keys as array parameters. PostgreSQL compares keys with rows, by
//! the column's own `=`; which key a row belongs to is told by the key's ordinality, never by its value.
//! The rest stands in `postgres_connection.rs` (pool, cancel, errors), `postgres_schema.rs` (columns and how to
//! compare them), `sql_filter.rs` and `postgres_filter.rs` (conditions), `postgres_encode.rs` and `postgres_decode.rs`
//! (values), `postgres_listen.rs` and `postgres_trigger.rs` (changes).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::{sort_to_indices, take};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::Expr;
use tokio_postgres::Row;

pub use super::postgres_connection::{PostgresConfig, PostgresConnection};
use super::postgres_decode::{ColumnDecoder, bigint, cells};
use super::postgres_encode::Parameter;
use super::postgres_filter::PostgresDialect;
use super::postgres_listen::Listener;
use super::postgres_scan::{self, ScanDecoder};
use super::postgres_schema::{
    PostgresColumn, Relation, RelationKind, get, quote_identifier, read_columns, read_relation,
};
pub use super::postgres_tls::SslMode;
use super::postgres_trigger;
use super::size::{AnswerRoom, POSITION_BYTES};
use super::sql_filter::{can_filter, where_clause};
use super::{
    Answer, Changes, DeclaredTable, KeyEquality, LookupRequest, LookupShape, RowBatches, ScanRequest, SqlTable, Store,
    StoreError,
};
use crate::error::{Code, Error, Result};

/// A table whose columns have not been read yet.
#[derive(Debug)]
pub struct PostgresDeclared {
    pub connection: Arc<PostgresConnection>,
    pub table: SqlTable,
    /// The channel on which changes are told.
    pub listen: Option<String>,
}

#[async_trait]
impl DeclaredTable for PostgresDeclared {
    async fn connect(&self) -> Result<Arc<dyn Store>, StoreError> {
        let store = PostgresStore::connect(Arc::clone(&self.connection), &self.table).await?;
        Ok(Arc::new(store.listening(self.listen.clone())))
    }

    fn shown(&self) -> String {
        format!("postgres {} at {}", self.table.table, self.connection)
    }

    async fn trigger(&self) -> Result<String, StoreError> {
        let Some(channel) = &self.listen else {
            let error = Error::new(Code::InvalidParameterValue, "the lookup table names no channel to tell changes on");
            return Err(error.with_hint("Write listen = \"…\" into its cache section.").into());
        };
        let store = PostgresStore::connect(Arc::clone(&self.connection), &self.table).await?;
        Ok(store.trigger(channel)?)
    }
}

/// A relation whose columns have been read.
#[derive(Debug)]
pub struct PostgresStore {
    connection: Arc<PostgresConnection>,
    /// Schema and name.
    name: (String, String),
    /// Quoted, with its schema.
    relation: String,
    kind: RelationKind,
    columns: Vec<PostgresColumn>,
    /// Positions in `columns`; empty unless there is one and all of it is exposed.
    primary_key: Vec<usize>,
    schema: SchemaRef,
    listen: Option<String>,
}

/// An index's columns: those that its order begins with first.
const INDEXES: &str = "\
SELECT i.indkey::int2[], i.indnkeyatts, i.indisunique
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am AS a ON a.oid = c.relam
WHERE i.indrelid = pg_catalog.to_regclass($1) AND i.indisvalid AND i.indpred IS NULL AND a.amname IN ('btree', 'hash')";

/// The columns of the primary key, in its order.
const PRIMARY_KEY: &str = "\
SELECT i.indkey::int2[], i.indnkeyatts FROM pg_catalog.pg_index AS i
WHERE i.indrelid = pg_catalog.to_regclass($1) AND i.indisprimary AND i.indisvalid";

/// The positions in `columns` of the relation's primary key.
async fn primary_key(
    connection: &Arc<PostgresConnection>,
    relation: &str,
    columns: &[PostgresColumn],
) -> Result<Vec<usize>, StoreError> {
    let rows = connection.query_once(PRIMARY_KEY, &[Parameter::text(relation)]).await?;
    let Some(row) = rows.first() else { return Ok(vec![]) };
    let (mut numbers, key_count): (Vec<i16>, i16) = (get(row, 0)?, get(row, 1)?);
    // What INCLUDE adds is no part of the key.
    numbers.truncate(usize::try_from(key_count).unwrap_or_default());
    let position = |number: &i16| columns.iter().position(|column| column.number == *number);
    Ok(numbers.iter().map(position).collect::<Option<_>>().unwrap_or_default())
}

impl PostgresStore {
    /// Reads the table's columns and types.
    ///
    /// # Errors
    /// Unavailable if the store is; 42P01 for an unknown table, 42703 for an unknown column, 0A000 for a type that we lack.
    pub async fn connect(connection: Arc<PostgresConnection>, table: &SqlTable) -> Result<Self, StoreError> {
        let relation = read_relation(&connection, &table.table).await?;
        let columns = read_columns(&connection, &relation, table.columns.as_deref(), &table.types).await?;
        let Relation { schema, name, kind, .. } = relation;
        let fields = columns.iter().map(|column| column.pg_type.field(&column.name, column.nullable));
        let schema_ref = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let relation = format!("{}.{}", quote_identifier(&schema), quote_identifier(&name));
        let primary_key = primary_key(&connection, &relation, &columns).await?;
        Ok(PostgresStore {
            connection,
            name: (schema, name),
            relation,
            kind,
            columns,
            primary_key,
            schema: schema_ref,
            listen: None,
        })
    }

    /// The same store, which tells of the changes that it hears of on `channel`.
    pub fn listening(self, channel: Option<String>) -> Self {
        PostgresStore { listen: channel, ..self }
    }

    /// The statements that make a trigger which tells of changes on `channel`.
    ///
    /// # Errors
    /// 0A000 for what can have no such trigger: a view, a foreign table.
    pub fn trigger(&self, channel: &str) -> Result<String> {
        if self.kind != RelationKind::Table {
            return Err(Error::unsupported(format!(
                "{} is not a table, so no trigger can tell of changes",
                self.relation
            ))
            .with_hint(format!("Let triggers of the tables behind it run NOTIFY {}.", quote_identifier(channel))));
        }
        let key = self.primary_key.iter().map(|&position| self.columns[position].name.as_str()).collect::<Vec<_>>();
        Ok(postgres_trigger::statements((&self.name.0, &self.name.1), channel, &key))
    }

    /// Whether an index helps to find rows by these columns (positions in the schema): one that leads with them, in any
    /// order, or a unique one that needs no others. True for views and foreign tables, of which that cannot be told.
    pub async fn key_index_exists(&self, key_columns: &[usize]) -> Result<bool, StoreError> {
        if self.kind != RelationKind::Table {
            return Ok(true);
        }
        let keys = key_columns.iter().filter_map(|&i| self.columns.get(i)).map(|c| c.number).collect::<Vec<_>>();
        for row in self.connection.query_once(INDEXES, &[Parameter::text(&self.relation)]).await? {
            let (mut columns, key_count, unique): (Vec<i16>, i16, bool) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
            columns.truncate(usize::try_from(key_count).unwrap_or_default());
            let leads = columns.len() >= keys.len() && columns[..keys.len()].iter().all(|column| keys.contains(column));
            if leads || (unique && columns.iter().all(|column| keys.contains(column))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The statement for a shape, and the texts that its conditions send after the keys.
    fn statement(&self, shape: &LookupShape) -> Result<(String, Vec<String>)> {
        let mut select = vec!["k.ordinality".to_string()];
        for &position in &shape.columns {
            select.push(self.column(position)?.value.clone());
        }
        let (mut arrays, mut names, mut joins) = (Vec::new(), Vec::new(), Vec::new());
        for (i, &position) in shape.key_columns.iter().enumerate() {
            let (column, number) = (self.column(position)?, i + 1);
            arrays.push(format!("${number}::{}", column.keys));
            names.push(format!("k{number}"));
            joins.push(column.equals(&format!("k.k{number}")));
        }
        let (condition, texts) =
            where_clause(&PostgresDialect(&self.columns), &shape.filters, shape.key_columns.len())?;
        let statement = format!(
            "SELECT {} FROM unnest({}) WITH ORDINALITY AS k({}, ordinality) JOIN {} AS t ON {}{condition}",
            select.join(", "),
            arrays.join(", "),
            names.join(", "),
            self.relation,
            joins.join(" AND "),
        );
        Ok((statement, texts))
    }

    /// The statement that reads the table, and the texts that its conditions send.
    fn scan_statement(&self, request: &ScanRequest) -> Result<(String, Vec<String>)> {
        let values = request.columns.iter().map(|&position| Ok(self.column(position)?.value.clone()));
        let values = values.collect::<Result<Vec<_>>>()?.join(", ");
        let (condition, texts) = where_clause(&PostgresDialect(&self.columns), &request.filters, 0)?;
        let limit = request.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        Ok((format!("SELECT {values} FROM {} AS t{condition}{limit}", self.relation), texts))
    }

    fn column(&self, position: usize) -> Result<&PostgresColumn> {
        let count = self.columns.len();
        let missing = || Error::internal(format!("column {position} was asked of a table with {count} columns"));
        self.columns.get(position).ok_or_else(missing)
    }

    /// The keys as array parameters, in the order of `order`.
    fn parameters(&self, request: &LookupRequest, order: &UInt32Array) -> Result<Vec<Parameter>> {
        let mut parameters = Vec::with_capacity(request.keys.len());
        for (&position, keys) in request.shape.key_columns.iter().zip(&request.keys) {
            let keys = take(keys, order, None)?;
            parameters.push(Parameter::keys(&keys, &self.column(position)?.pg_type)?);
        }
        Ok(parameters)
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn primary_key(&self) -> Vec<usize> {
        self.primary_key.clone()
    }

    async fn indexed_columns(&self) -> Result<Option<Vec<usize>>, StoreError> {
        let mut indexed = vec![];
        for position in 0..self.columns.len() {
            if self.key_index_exists(&[position]).await? {
                indexed.push(position);
            }
        }
        Ok(Some(indexed))
    }

    fn changes(&self) -> Option<Changes> {
        let channel = self.listen.clone()?;
        let key = self.primary_key.clone();
        Some(Listener::new(Arc::clone(&self.connection), channel, &self.schema, key).changes())
    }

    fn can_filter(&self, filter: &Expr) -> bool {
        can_filter(&PostgresDialect(&self.columns), filter)
    }

    fn key_equality(&self, column: usize) -> KeyEquality {
        let unknown = || KeyEquality::unknown_column(column);
        self.columns.get(column).map_or_else(unknown, |column| column.key_equality.clone())
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let shape = &request.shape;
        let (statement, texts) = self.statement(shape)?;
        let Some(first) = request.keys.first() else {
            return Err(Error::internal("a lookup without a key").into());
        };
        // Neighbouring keys share pages of the index: sorted, a request is a fifth faster.
        let order = sort_to_indices(first, None, None).map_err(Error::from)?;
        let mut parameters = self.parameters(request, &order)?;
        parameters.extend(texts.iter().map(|text| Parameter::text(text)));
        let mut answer = AnswerDecoder::new(shape.columns.iter().map(|&i| self.column(i)).collect::<Result<_>>()?);
        let mut room = AnswerRoom::new(request.max_answer_bytes);
        self.connection.query(&statement, &parameters, |rows| room.take(answer.append(rows)?)).await?;
        Ok(answer.finish(&self.schema, &shape.columns, &order)?)
    }

    fn can_scan(&self) -> bool {
        true
    }

    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError> {
        let (statement, texts) = self.scan_statement(request)?;
        let columns = request.columns.iter().map(|&position| Ok(self.column(position)?.clone()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(self.schema.project(&request.columns).map_err(Error::from)?);
        let parameters = texts.iter().map(|text| Parameter::text(text)).collect();
        Ok(postgres_scan::rows(Arc::clone(&self.connection), statement, parameters, ScanDecoder { columns, schema }))
    }
}

impl fmt::Display for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres {} at {}", self.relation, self.connection)
    }
}

/// Rows of an answer on their way into arrays.
struct AnswerDecoder {
    ordinalities: Vec<i64>,
    columns: Vec<ColumnDecoder>,
}

impl AnswerDecoder {
    fn new(columns: Vec<&PostgresColumn>) -> Self {
        let decoder = |column: &&PostgresColumn| ColumnDecoder::new(&column.name, &column.pg_type, column.nullable);
        AnswerDecoder { ordinalities: Vec::new(), columns: columns.iter().map(decoder).collect() }
    }

    /// Returns the bytes that the rows take in the answer.
    fn append(&mut self, rows: &[Row]) -> Result<u64> {
        for cell in cells(rows, 0)? {
            self.ordinalities.push(bigint(cell)?);
        }
        let mut bytes = rows.len() as u64 * POSITION_BYTES;
        for (i, column) in self.columns.iter_mut().enumerate() {
            bytes += column.append(&cells(rows, i + 1)?)?;
        }
        Ok(bytes)
    }

    /// `order` says which key of the request had which ordinality.
    fn finish(self, schema: &SchemaRef, columns: &[usize], order: &UInt32Array) -> Result<Answer> {
        let mut key_of_row = Vec::with_capacity(self.ordinalities.len());
        for ordinality in self.ordinalities {
            let position = usize::try_from(ordinality - 1).ok().and_then(|i| order.values().get(i));
            key_of_row.push(*position.ok_or_else(|| Error::internal(format!("no key has ordinality {ordinality}")))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(key_of_row.len()));
        let arrays = self.columns.into_iter().map(ColumnDecoder::finish).collect::<Result<Vec<_>>>()?;
        let rows = RecordBatch::try_new_with_options(Arc::new(schema.project(columns)?), arrays, &options)?;
        Ok(Answer { rows, key_of_row: UInt32Array::from(key_of_row) })
    }
}
