//! Keys of Redis as a store: a table is all keys that a template makes, a row is the hash, the JSON document or the string
//! under a key.
//!
//! One request is one pipeline, for each server of a cluster one, all at once. The rest stands in `redis_template.rs` and
//! `redis_key.rs` (what a key is called), `redis_answer.rs` (what is asked of it, and rows of that), `redis_connection.rs`,
//! `redis_node.rs` and `redis_cluster.rs` (whom to ask), `redis_tracking.rs` (changes).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use redis::{Pipeline, Value};

use super::document::{DocumentColumn, DocumentColumns};
use super::redis_answer::{AnswerReader, Question};
use super::redis_connection::KeyCommands;
pub use super::redis_connection::{Address, RedisConfig, RedisConnection, RedisServers};
use super::redis_key::write_keys;
pub use super::redis_template::KeyTemplate;
use super::redis_tracking::Tracker;
use super::{Answer, Changes, DeclaredTable, KeyEquality, LookupRequest, RowBatches, ScanRequest, Store, StoreError};
use crate::error::{Error, Result};
use crate::pg_type::PgType;

/// A `[lookup.X]` over Redis, as the catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisTable {
    pub template: KeyTemplate,
    /// Positions in `columns` of the template's columns, in its order.
    pub key: Vec<usize>,
    pub value: RedisValue,
    pub columns: Vec<DocumentColumn>,
}

/// What stands under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisValue {
    /// A hash: each column is the field of its name.
    Hash,
    /// A string that is a JSON document: each column is what its path leads to.
    Json,
    /// A string: the one column beside the key.
    Text,
}

impl RedisValue {
    pub const ALL: [RedisValue; 3] = [RedisValue::Hash, RedisValue::Json, RedisValue::Text];

    /// As the catalog has it.
    pub fn name(self) -> &'static str {
        match self {
            RedisValue::Hash => "hash",
            RedisValue::Json => "json",
            RedisValue::Text => "string",
        }
    }
}

/// A table whose server need not have been reached.
#[derive(Debug)]
pub struct RedisDeclared {
    pub connection: Arc<RedisConnection>,
    pub table: RedisTable,
    /// Whether Redis is to tell of changes.
    pub tracking: bool,
}

#[async_trait]
impl DeclaredTable for RedisDeclared {
    async fn connect(&self) -> Result<Arc<dyn Store>, StoreError> {
        let store = RedisStore::connect(Arc::clone(&self.connection), self.table.clone()).await?;
        Ok(match self.tracking {
            true => Arc::new(store.with_tracking().await?),
            false => Arc::new(store),
        })
    }

    fn shown(&self) -> String {
        format!("redis {} at {}", self.table.template, self.connection)
    }
}

/// A table whose server answers.
#[derive(Debug)]
pub struct RedisStore {
    connection: Arc<RedisConnection>,
    table: RedisTable,
    columns: DocumentColumns,
    /// Of the template's columns.
    key_types: Vec<PgType>,
    is_tracking: bool,
}

impl RedisStore {
    /// Tries out all that requests will need. What stands under the keys is believed to be as declared.
    ///
    /// # Errors
    /// Unavailable if the server is; what it says where the user may not do what is needed.
    pub async fn connect(connection: Arc<RedisConnection>, table: RedisTable) -> Result<Self, StoreError> {
        let columns = DocumentColumns::new(&table.columns, table.key.clone());
        let key_types = table.key.iter().map(|&column| table.columns[column].pg_type.clone()).collect();
        let store = RedisStore { connection, table, columns, key_types, is_tracking: false };
        store.connection.ping().await?;
        store.try_out().await?;
        Ok(store)
    }

    /// The store with changes that Redis tells of.
    ///
    /// # Errors
    /// As [`RedisStore::connect`], where Redis would not tell.
    pub async fn with_tracking(self) -> Result<Self, StoreError> {
        self.tracker().try_out().await?;
        Ok(RedisStore { is_tracking: true, ..self })
    }

    /// Asks for a key, whether it is there or not: whoever may not ask learns of it here.
    async fn try_out(&self) -> Result<(), StoreError> {
        let template = &self.table.template;
        let key = template.write(&vec!["0"; template.columns().len()]);
        let key = key.unwrap_or_else(|| template.prefix().to_string());
        let all = (0..self.table.columns.len()).filter(|column| !self.table.key.contains(column)).collect::<Vec<_>>();
        for question in [self.question(&all), self.question(&[])] {
            for answer in self.ask(&[key.as_str()], &question).await? {
                match answer {
                    // Whatever it holds is none of our rows.
                    Value::ServerError(error) if error.code() == "WRONGTYPE" => {}
                    Value::ServerError(error) => return Err(self.connection.refusal(&error)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What to ask of each key for these columns, none of which is the key's.
    fn question(&self, read: &[usize]) -> Question {
        match (self.table.value, read) {
            (RedisValue::Hash, []) => Question::Hash,
            (RedisValue::Hash, read) => {
                Question::Fields(read.iter().map(|&column| self.table.columns[column].name.clone()).collect())
            }
            (RedisValue::Json | RedisValue::Text, []) => Question::Presence,
            (RedisValue::Json | RedisValue::Text, _) => Question::Text,
        }
    }

    async fn ask(&self, keys: &[&str], question: &Question) -> Result<Vec<Value>, StoreError> {
        let write = |pipeline: &mut Pipeline, key: &str| question.write(pipeline, key);
        self.connection.ask(keys, &KeyCommands { count: question.commands(), write: &write }).await
    }

    fn tracker(&self) -> Tracker {
        Tracker {
            connection: Arc::clone(&self.connection),
            template: self.table.template.clone(),
            columns: self.table.key.clone(),
            types: self.key_types.clone(),
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.schema())
    }

    fn primary_key(&self) -> Vec<usize> {
        self.table.key.clone()
    }

    /// Conditions are applied where those of other tables are.
    fn can_filter(&self, _: &Expr) -> bool {
        false
    }

    fn check_keys(&self, key_columns: &[usize]) -> Result<()> {
        self.columns.check_keys(key_columns)
    }

    fn key_equality(&self, column: usize) -> KeyEquality {
        self.columns.key_equality(column)
    }

    fn changes(&self) -> Option<Changes> {
        self.is_tracking.then(|| self.tracker().changes())
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let keys = write_keys(&self.table.template, &self.columns.keys(request)?, &self.key_types)?;
        let read = self.columns.beside_key(request);
        let question = self.question(&read);
        let answers = match keys.is_empty() {
            true => Vec::new(),
            false => self.ask(&keys.iter().map(|key| key.text.as_str()).collect::<Vec<_>>(), &question).await?,
        };
        let reader = AnswerReader {
            connection: &self.connection,
            columns: &self.columns,
            request,
            read: &read,
            question: &question,
        };
        match (self.table.value, read.is_empty()) {
            (RedisValue::Json, false) => reader.documents(&keys, &answers),
            (RedisValue::Hash | RedisValue::Text, _) | (RedisValue::Json, true) => reader.fields(&keys, &answers),
        }
    }

    /// Redis has keys and no tables.
    fn can_scan(&self) -> bool {
        false
    }

    async fn scan(&self, _: &ScanRequest) -> Result<RowBatches, StoreError> {
        Err(Error::unsupported(format!("{self} cannot be read without a key")).into())
    }
}

impl fmt::Display for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis {} at {}", self.table.template, self.connection)
    }
}
