//! Where a lookup table's rows live: one file a store, all behind [`Store`].
//!
//! A store knows nothing of streams, caches, batching or time-outs: it is asked for distinct keys and
//! answers with rows. `breaker.rs`, `limit.rs` and
//! `full.rs` are stores around a store. What is true for every store is tested by the suite in `contract.rs`.

pub mod breaker;
mod conditions;
pub mod contract;
mod contract_keyed;
pub mod document;
pub mod file;
pub mod files;
mod files_connection;
mod files_pattern;
pub mod full;
pub mod http;
mod http_connection;
mod http_hosts;
mod http_request;
pub mod limit;
mod memory_index;
mod memory_table;
pub mod mysql;
mod mysql_column;
mod mysql_connection;
mod mysql_decode;
mod mysql_error;
mod mysql_filter;
mod mysql_keys;
mod mysql_scan;
mod mysql_schema;
pub mod postgres;
mod postgres_connection;
mod postgres_decode;
mod postgres_encode;
mod postgres_filter;
mod postgres_listen;
mod postgres_numeric;
mod postgres_scan;
mod postgres_schema;
pub(crate) mod postgres_tls;
mod postgres_trigger;
pub mod redis;
mod redis_answer;
mod redis_cluster;
mod redis_connection;
mod redis_key;
mod redis_node;
mod redis_template;
mod redis_tracking;
pub mod simulated;
mod simulated_chance;
mod size;
mod sql_filter;
pub mod sqlite;
mod sqlite_connection;
mod sqlite_schema;
mod sqlite_value;
pub mod template;
#[cfg(test)]
mod told;

use std::fmt::{Debug, Display};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use futures::stream::BoxStream;

pub use self::conditions::Conditions;
pub(crate) use self::memory_index::comparable;
use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;

/// Answers keys with rows. Called from many tasks at once; dropping the future of [`Store::lookup`] gives up the request.
#[async_trait]
pub trait Store: Debug + Display + Send + Sync {
    /// The columns this table can give, in the order users see them, with the metadata of `pg_type`.
    fn schema(&self) -> SchemaRef;

    /// Whether the store can apply `filter` itself with PostgreSQL's meaning. `filter` names columns of
    /// [`Store::schema`] without a relation; it is given back in [`LookupShape::filters`].
    fn can_filter(&self, filter: &Expr) -> bool;

    /// How the store compares this column, a position in [`Store::schema`], with keys.
    fn key_equality(&self, column: usize) -> KeyEquality;

    /// The columns (positions in [`Store::schema`]) whose values together find one row at most, as far as the store says
    /// so by itself; empty where it does not. Only shown to tools: nothing rests on it.
    fn primary_key(&self) -> Vec<usize> {
        vec![]
    }

    /// Whether the store can be asked by these columns together (positions in [`Store::schema`]); most can by any.
    ///
    /// # Errors
    /// 0A000 if it cannot, saying by which it can.
    fn check_keys(&self, _key_columns: &[usize]) -> Result<()> {
        Ok(())
    }

    /// The columns (positions in [`Store::schema`]) that lead some index, so that lookups by them do not read the whole
    /// table; `None` where the store needs none, or cannot say.
    async fn indexed_columns(&self) -> Result<Option<Vec<usize>>, StoreError> {
        Ok(None)
    }

    /// What tells the table's present contents from others, where the store knows it without reading them: they are read
    /// again only when it is another.
    async fn version(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// What the store says of changes, if it does: the caller listens for as long as the table is used. The stream ends,
    /// at the latest with an error, when messages may have been missed; the caller then asks for another.
    fn changes(&self) -> Option<Changes> {
        None
    }

    /// Answers every key of `request`. A key without an answer has no row.
    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError>;

    /// Whether the store can be read without a key.
    fn can_scan(&self) -> bool;

    /// Reads the table, batch after batch, as of one moment if the store has such. Dropping the stream ends the reading.
    /// Asked only of stores that say they can.
    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError>;
}

/// Rows on their way from a store, in batches of bounded size.
pub type RowBatches = BoxStream<'static, Result<RecordBatch, StoreError>>;

/// News of changes, as they come.
pub type Changes = BoxStream<'static, Result<Change, StoreError>>;

/// What a store says of a change.
#[derive(Clone, Debug)]
pub enum Change {
    /// From here on every change is told. Comes first, once.
    Begun,
    /// Rows in which `columns` (positions in [`Store::schema`]) have one of these values, or had one, are not what they
    /// were. An array for each column, of its type.
    Keys { columns: Vec<usize>, keys: Vec<ArrayRef> },
    /// Any row may have changed.
    Everything,
}

/// A lookup table as declared, whose store may not have been asked yet.
#[async_trait]
pub trait DeclaredTable: Debug + Send + Sync {
    /// Asks the store for the table's columns, or checks the declared ones as far as can be.
    ///
    /// # Errors
    /// Unavailable if the store is; what it says of the table otherwise.
    async fn connect(&self) -> Result<Arc<dyn Store>, StoreError>;

    /// The store as users see it, without a secret.
    fn shown(&self) -> String;

    /// The statements by which the store's owner has it tell of changes.
    ///
    /// # Errors
    /// 0A000 where there are none; as [`DeclaredTable::connect`] otherwise.
    async fn trigger(&self) -> Result<String, StoreError> {
        Err(Error::unsupported("only a table of PostgreSQL has a trigger that tells of changes").into())
    }
}

/// A `[lookup.X]` over a connection to a database, as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlTable {
    /// As the database reads names: `customers`, `public.customers`, `"Mixed Case"`.
    pub table: String,
    /// The columns to expose, distinct, in this order; `None`: all.
    pub columns: Option<Vec<String>>,
    /// Types to use instead of what the store says.
    pub types: Vec<(String, PgType)>,
}

/// What of a table is to be read without a key. Columns are positions in [`Store::schema`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// The columns to give, in this order; may be empty.
    pub columns: Vec<usize>,
    /// Conditions for the store to apply, each of which it said it can; a row must satisfy all.
    pub filters: Conditions,
    /// How many rows are enough.
    pub limit: Option<usize>,
}

/// How a store compares a column with keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEquality {
    /// Keys are equal where this process holds their values for equal.
    ByValue,
    /// By rules of the store's own, under which different keys may find the same row.
    OfStore { reason: String },
    /// The column cannot be a key.
    None { reason: String },
}

impl KeyEquality {
    /// Of a column that is not there.
    pub fn unknown_column(column: usize) -> Self {
        KeyEquality::None { reason: format!("there is no column {column}") }
    }

    /// Refuses a column that cannot be a key.
    ///
    /// # Errors
    /// 0A000 with the reason.
    pub fn check_key(&self, column: &str) -> Result<()> {
        match self {
            KeyEquality::ByValue | KeyEquality::OfStore { .. } => Ok(()),
            KeyEquality::None { reason } => {
                Err(Error::unsupported(format!("column \"{column}\" cannot be the key of a lookup: {reason}")))
            }
        }
    }
}

/// What stays the same over all requests of a join. Columns are positions in [`Store::schema`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LookupShape {
    /// The columns that the keys are compared with; at least one, none twice.
    pub key_columns: Vec<usize>,
    /// The columns to answer with, in this order; may be empty, and need not hold the key's.
    pub columns: Vec<usize>,
    /// Conditions for the store to apply, each of which it said it can; a row must satisfy all.
    pub filters: Conditions,
}

/// Keys to be answered by one request.
#[derive(Clone, Debug)]
pub struct LookupRequest {
    pub shape: Arc<LookupShape>,
    /// One array for each of `shape.key_columns`, of that column's type and of equal length. The keys are distinct, no part is NULL.
    pub keys: Vec<ArrayRef>,
    /// Bytes of the answer beyond which the store is to stop and say [`StoreError::TooLarge`].
    pub max_answer_bytes: u64,
}

impl LookupRequest {
    /// How many keys are asked for.
    pub fn len(&self) -> usize {
        self.keys.first().map_or(0, |column| column.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The rows found. Rows of one key stand in the store's order, keys in any.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The requested columns (a batch without columns still has its row count).
    pub rows: RecordBatch,
    /// The position in the request of each row's key.
    pub key_of_row: UInt32Array,
}

/// Why a store did not answer.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// It could not be reached, dropped the connection, or is starting or stopping.
    Unavailable { message: String },
    /// It answered with an error of its own. `sqlstate` where the store has such.
    Failed { message: String, sqlstate: Option<String> },
    /// It answered with an error of its own that is about a key of the request, which `message` names.
    KeyRefused { message: String },
    /// A value that Arrow cannot hold, or something wrong with the request: the error as the client gets it.
    Invalid(Error),
    /// The answer has more bytes than [`LookupRequest::max_answer_bytes`].
    TooLarge { max_answer_bytes: u64 },
    /// The circuit breaker is open: the store was not asked. `message` says until when.
    BreakerOpen { message: String },
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        StoreError::Invalid(error)
    }
}

impl StoreError {
    /// Whether the same request may succeed later: what is retried.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Unavailable { .. } => true,
            StoreError::Failed { sqlstate: Some(state), .. } => match state.as_str() {
                "57014" => false,
                "55P03" => true,
                state => ["08", "40", "53", "57"].iter().any(|class| state.starts_with(class)),
            },
            StoreError::Failed { sqlstate: None, .. }
            | StoreError::KeyRefused { .. }
            | StoreError::Invalid(_)
            | StoreError::TooLarge { .. }
            | StoreError::BreakerOpen { .. } => false,
        }
    }

    /// Whether some of the request's keys are to blame, so that others may be answered without them.
    pub fn is_about_keys(&self) -> bool {
        match self {
            StoreError::Failed { sqlstate, .. } => sqlstate.as_ref().is_some_and(|state| state.starts_with("22")),
            StoreError::Invalid(error) => error.code().sqlstate().starts_with("22"),
            StoreError::KeyRefused { .. } | StoreError::TooLarge { .. } => true,
            StoreError::Unavailable { .. } | StoreError::BreakerOpen { .. } => false,
        }
    }

    /// The error that a query ends with; `table` is the lookup table's name.
    pub fn into_error(self, table: &str) -> Error {
        match self {
            StoreError::Unavailable { message } => Error::new(
                Code::StoreUnavailable,
                format!("store of lookup table \"{table}\" is not available: {message}"),
            ),
            StoreError::Failed { message, sqlstate } => {
                let error = Error::new(Code::StoreFailed, format!("lookup in \"{table}\" failed: {message}"));
                match sqlstate {
                    Some(state) => error.with_detail(format!("The store's SQLSTATE is {state}.")),
                    None => error,
                }
            }
            StoreError::Invalid(error) => error,
            StoreError::TooLarge { max_answer_bytes } => Error::new(
                Code::StoreFailed,
                format!("lookup in \"{table}\" failed: the rows of one key exceed max_answer_bytes ({max_answer_bytes} bytes)"),
            )
            .with_hint("Raise max_answer_bytes of the lookup table, or ask for fewer columns."),
            StoreError::KeyRefused { message } | StoreError::BreakerOpen { message } => {
                Error::new(Code::StoreFailed, format!("lookup in \"{table}\" failed: {message}"))
            }
        }
    }
}
