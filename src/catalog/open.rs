//! From definitions to sources and stores.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use tokio::sync::OnceCell;

use crate::catalog::Relation;
use crate::catalog::definition::{
    CatalogDefinition, ColumnDefinition, ConnectionKind, LookupDefinition, LookupKind, Origin,
};
use crate::catalog::open_stream::{Connected, open_stream};
use crate::catalog::problem::Problem;
use crate::error::{Error, Result};
use crate::format::{self, FileData, FileFormat};
use crate::lookup::policy::{CachePolicy, PartialCache, ToldBy};
use crate::lookup::{LastError, LookupTable};
use crate::source::kafka_connection::KafkaConnection;
use crate::store::file::FileStore;
use crate::store::files::{FilesConnection, FilesDeclared};
use crate::store::http::{HttpConnection, HttpDeclared};
use crate::store::mysql::{MysqlConnection, MysqlDeclared};
use crate::store::postgres::{PostgresConfig, PostgresConnection, PostgresDeclared};
use crate::store::redis::{RedisConnection, RedisDeclared};
use crate::store::simulated::SimulatedStore;
use crate::store::sqlite::{SqliteConnection, SqliteDeclared};
use crate::store::{DeclaredTable, Store, StoreError};

/// A lookup table whose store is asked for its columns when they are first needed.
pub struct Lookup {
    definition: LookupDefinition,
    /// `None` where nothing need be asked: `table` is there then.
    declared: Option<Arc<dyn DeclaredTable>>,
    table: OnceCell<Arc<LookupTable>>,
    /// Of connecting.
    last_error: LastError,
}

impl Lookup {
    pub fn definition(&self) -> &LookupDefinition {
        &self.definition
    }

    /// The table, connected; the same for all.
    ///
    /// # Errors
    /// HV00N when the store is not available, and what the store says of the table otherwise. The next call tries again.
    pub async fn table(&self) -> Result<Arc<LookupTable>> {
        let connected = self.table.get_or_try_init(|| self.connect()).await;
        connected.inspect_err(|error| self.last_error.note(error)).cloned()
    }

    /// The table, if its store has been reached already.
    pub fn connected_table(&self) -> Option<&Arc<LookupTable>> {
        self.table.get()
    }

    /// What went wrong last, and when: with a request, or, before there was any, with connecting.
    pub fn last_error(&self) -> Option<(DateTime<Utc>, String)> {
        self.connected_table().and_then(|table| table.last_error()).or_else(|| self.last_error.get())
    }

    /// The store as users see it; `None` for a file that has not been read.
    pub fn shown_store(&self) -> Option<String> {
        match self.connected_table() {
            Some(table) => Some(table.store().to_string()),
            None => self.definition.connection.as_ref().and(self.declared.as_ref()).map(|declared| declared.shown()),
        }
    }

    /// For `check`: the columns that lead some index of the store; `None` where the store needs no index, or is not
    /// asked by key because its table is held whole.
    ///
    /// # Errors
    /// As [`Lookup::table`].
    pub async fn indexed_columns(&self) -> Result<Option<Vec<String>>> {
        let store = Arc::clone(self.table().await?.store());
        let indexed = store.indexed_columns().await.map_err(|error| error.into_error(&self.definition.name))?;
        let schema = store.schema();
        Ok(indexed.map(|indexed| indexed.into_iter().map(|position| schema.field(position).name().clone()).collect()))
    }

    /// The statements by which the store's owner has it tell of changes.
    ///
    /// # Errors
    /// 0A000 for a store without such; what the store says otherwise.
    pub async fn trigger(&self) -> Result<String> {
        match &self.declared {
            Some(declared) => declared.trigger().await.map_err(|error| error.into_error(&self.definition.name)),
            None => Err(Error::unsupported("a simulated table does not change")),
        }
    }

    async fn connect(&self) -> Result<Arc<LookupTable>> {
        let name = &self.definition.name;
        let Some(declared) = &self.declared else {
            return Err(Error::internal(format!("lookup table \"{name}\" was not opened")));
        };
        let store = declared.connect().await.map_err(|error| error.into_error(name))?;
        Ok(LookupTable::new(name.clone(), store, self.definition.policy.clone()))
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("name", &self.definition.name).finish_non_exhaustive()
    }
}

/// Opens all that needs no store to be asked.
pub fn open(definition: CatalogDefinition) -> Result<BTreeMap<String, Relation>, Vec<Problem>> {
    let mut problems = vec![];
    let mut relations = BTreeMap::new();
    let mut connections = BTreeMap::new();
    for connection in definition.connections {
        match open_connection(&connection.name, connection.kind) {
            Ok(opened) => {
                connections.insert(connection.name, opened);
            }
            Err(error) => problems.push(problem(&error, &connection.origin)),
        }
    }
    let mut connected = Connected { connections: &connections, registries: BTreeMap::new() };
    for stream in definition.streams {
        match open_stream(&stream, &mut connected) {
            Ok(opened) => {
                relations.insert(stream.name, Relation::Stream(Arc::new(opened)));
            }
            Err(error) => problems.push(problem(&error, &stream.origin)),
        }
    }
    for lookup in definition.lookups {
        let connection = lookup.connection.as_ref().and_then(|name| connections.get(name));
        if lookup.connection.is_some() && connection.is_none() {
            // What is wrong with the connection has been said.
            continue;
        }
        match open_lookup(lookup.clone(), connection) {
            Ok(opened) => {
                relations.insert(lookup.name, Relation::Lookup(Arc::new(opened)));
            }
            Err(error) => problems.push(problem(&error, &lookup.origin)),
        }
    }
    if problems.is_empty() { Ok(relations) } else { Err(problems) }
}

/// A connection that need not have reached its store.
pub(super) enum Connection {
    Postgres(Arc<PostgresConnection>),
    Sqlite(Arc<SqliteConnection>),
    Redis(Arc<RedisConnection>),
    Mysql(Arc<MysqlConnection>),
    Http(Arc<HttpConnection>),
    Files(Arc<FilesConnection>),
    Kafka(Arc<KafkaConnection>),
}

fn open_connection(name: &str, kind: ConnectionKind) -> Result<Connection> {
    match kind {
        ConnectionKind::Postgres(postgres) => {
            let config = PostgresConfig {
                config: postgres.config,
                sslmode: postgres.sslmode,
                sslrootcert: postgres.sslrootcert,
                max_connections: postgres.max_connections.get(),
                prepare: postgres.prepare,
            };
            Ok(Connection::Postgres(PostgresConnection::try_new(name.to_string(), config)?))
        }
        ConnectionKind::Sqlite(config) => Ok(Connection::Sqlite(SqliteConnection::try_new(name, &config)?)),
        ConnectionKind::Redis(config) => Ok(Connection::Redis(RedisConnection::try_new(name.to_string(), config)?)),
        ConnectionKind::Mysql(config) => Ok(Connection::Mysql(MysqlConnection::try_new(name.to_string(), &config)?)),
        ConnectionKind::Files(config) => Ok(Connection::Files(FilesConnection::new(config))),
        ConnectionKind::Kafka(config) => Ok(Connection::Kafka(KafkaConnection::try_new(name.to_string(), config)?)),
        ConnectionKind::Http(config) => Ok(Connection::Http(HttpConnection::try_new(name.to_string(), config)?)),
    }
}

fn open_lookup(definition: LookupDefinition, connection: Option<&Connection>) -> Result<Lookup> {
    let name = definition.name.clone();
    let (declared, table): (Option<Arc<dyn DeclaredTable>>, _) = match (definition.kind.clone(), connection) {
        (LookupKind::Postgres(table), Some(Connection::Postgres(connection))) => {
            let listen = match &definition.policy.cache {
                CachePolicy::Partial(PartialCache { told_by: Some(ToldBy::Listen { channel }), .. }) => {
                    Some(channel.clone())
                }
                _ => None,
            };
            (Some(Arc::new(PostgresDeclared { connection: Arc::clone(connection), table, listen })), None)
        }
        (LookupKind::Sqlite(table), Some(Connection::Sqlite(connection))) => {
            (Some(Arc::new(SqliteDeclared { connection: Arc::clone(connection), table })), None)
        }
        (LookupKind::Redis(table), Some(Connection::Redis(connection))) => {
            let tracking = matches!(
                &definition.policy.cache,
                CachePolicy::Partial(PartialCache { told_by: Some(ToldBy::Tracking), .. })
            );
            (Some(Arc::new(RedisDeclared { connection: Arc::clone(connection), table, tracking })), None)
        }
        (LookupKind::Http(table), Some(Connection::Http(connection))) => {
            (Some(Arc::new(HttpDeclared { connection: Arc::clone(connection), table })), None)
        }
        (LookupKind::Mysql(table), Some(Connection::Mysql(connection))) => {
            (Some(Arc::new(MysqlDeclared { connection: Arc::clone(connection), table })), None)
        }
        (LookupKind::Files(table), Some(Connection::Files(connection))) => {
            (Some(Arc::new(FilesDeclared { name, connection: Arc::clone(connection), table })), None)
        }
        (LookupKind::File { data, format, columns }, _) => {
            let declared = (!columns.is_empty()).then(|| schema_of(&columns));
            (Some(Arc::new(FileDeclared { name, data, format, declared })), None)
        }
        (LookupKind::Simulated(config), _) => {
            let store = SimulatedStore::try_new(name.clone(), config)?;
            (None, Some(LookupTable::new(name, Arc::new(store), definition.policy.clone())))
        }
        (_, _) => return Err(Error::internal(format!("lookup table \"{name}\" has a connection of another type"))),
    };
    Ok(Lookup { definition, declared, table: OnceCell::new_with(table), last_error: LastError::default() })
}

/// A file that has not been read yet.
#[derive(Debug)]
struct FileDeclared {
    name: String,
    data: FileData,
    format: FileFormat,
    /// `None`: the file names its columns.
    declared: Option<SchemaRef>,
}

#[async_trait]
impl DeclaredTable for FileDeclared {
    async fn connect(&self) -> Result<Arc<dyn Store>, StoreError> {
        let store = open_file(self.name.clone(), self.data.clone(), self.format, self.declared.clone());
        Ok(Arc::new(store.await?))
    }

    fn shown(&self) -> String {
        match &self.data {
            FileData::Path(path) => format!("file {}", path.display()),
            FileData::Embedded(_) => format!("file {}", self.name),
        }
    }
}

/// Reads a lookup file whole, off the async threads.
async fn open_file(
    name: String,
    data: FileData,
    file_format: FileFormat,
    declared: Option<SchemaRef>,
) -> Result<FileStore> {
    let opened = SpawnedTask::spawn_blocking(move || {
        let path = match &data {
            FileData::Path(path) => Some(path.clone()),
            FileData::Embedded(_) => None,
        };
        let schema = match (declared, &path) {
            (Some(schema), _) => schema,
            (None, Some(path)) => format::file_schema(path, file_format)?,
            (None, None) => return Err(Error::internal("an embedded file without columns")),
        };
        let shown = path.as_ref().map_or_else(|| name.clone(), |path| path.display().to_string());
        let columns = Arc::clone(&schema);
        let read = Arc::new(move || format::read_all(&name, &data, file_format, &columns));
        FileStore::try_new(shown, path, schema, read)
    });
    opened.await.map_err(|error| Error::internal(format!("reading a file did not end: {error}")))?
}

pub(super) fn schema_of(columns: &[ColumnDefinition]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|column| column.pg_type.field(&column.name, column.nullable)).collect();
    Arc::new(Schema::new(fields))
}

fn problem(error: &Error, origin: &Origin) -> Problem {
    Problem {
        file: origin.file.clone(),
        line: origin.line,
        column: origin.column,
        message: error.message().to_string(),
        hint: error.hint().map(str::to_string),
    }
}
