//! From definitions to sources and stores.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use tokio::sync::OnceCell;

use crate::catalog::Relation;
use crate::catalog::definition::{
    CatalogDefinition, ColumnDefinition, ConnectionKind, LookupDefinition, LookupKind, Origin, StreamDefinition,
    StreamKind,
};
use crate::catalog::problem::Problem;
use crate::catalog::provider::Stream;
use crate::error::{Error, Result};
use crate::format::{self, FileData, FileFormat};
use crate::lookup::policy::CachePolicy;
use crate::lookup::{LastError, LookupTable};
use crate::source::Source;
use crate::source::file::FileSource;
use crate::source::generator::{GeneratorConfig, GeneratorSource};
use crate::source::push::PushStream;
use crate::store::Store;
use crate::store::file::FileStore;
use crate::store::postgres::{PostgresConfig, PostgresConnection, PostgresStore, PostgresTable};
use crate::store::simulated::SimulatedStore;

/// A lookup table whose store is asked for its columns when they are first needed.
pub struct Lookup {
    definition: LookupDefinition,
    connection: Option<Arc<PostgresConnection>>,
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

    /// The store as users see it; `None` where only the store itself knows, and has not been reached.
    pub fn shown_store(&self) -> Option<String> {
        match (self.connected_table(), &self.definition.kind, &self.connection) {
            (Some(table), _, _) => Some(table.store().to_string()),
            (None, LookupKind::Postgres { table, .. }, Some(connection)) => {
                Some(format!("postgres {table} at {connection}"))
            }
            (None, _, _) => None,
        }
    }

    /// For `check`: the columns that lead some index of the store; `None` where the store needs no index, or is not
    /// asked by key because its table is held whole.
    ///
    /// # Errors
    /// As [`Lookup::table`].
    pub async fn indexed_columns(&self) -> Result<Option<Vec<String>>> {
        if matches!(self.definition.policy.cache, CachePolicy::Full(_)) {
            return Ok(None);
        }
        let (LookupKind::Postgres { table, columns, types, .. }, Some(connection)) =
            (&self.definition.kind, &self.connection)
        else {
            return Ok(None);
        };
        let name = &self.definition.name;
        let table = PostgresTable { table: table.clone(), columns: columns.clone(), types: types.clone() };
        let in_words = |error: crate::store::StoreError| error.into_error(name);
        let store = PostgresStore::connect(Arc::clone(connection), table).await.map_err(in_words)?;
        let mut indexed = vec![];
        for (position, field) in store.schema().fields().iter().enumerate() {
            if store.key_index_exists(&[position]).await.map_err(in_words)? {
                indexed.push(field.name().clone());
            }
        }
        Ok(Some(indexed))
    }

    async fn connect(&self) -> Result<Arc<LookupTable>> {
        let name = &self.definition.name;
        let store: Arc<dyn Store> = match (&self.definition.kind, &self.connection) {
            (LookupKind::Postgres { table, columns, types, .. }, Some(connection)) => {
                let table = PostgresTable { table: table.clone(), columns: columns.clone(), types: types.clone() };
                let store = PostgresStore::connect(Arc::clone(connection), table).await;
                Arc::new(store.map_err(|error| error.into_error(name))?)
            }
            (LookupKind::Postgres { connection, .. }, None) => {
                return Err(Error::internal(format!(
                    "connection \"{connection}\" of lookup table \"{name}\" is missing"
                )));
            }
            (LookupKind::File { data, format, columns }, _) => {
                let declared = (!columns.is_empty()).then(|| schema_of(columns));
                Arc::new(open_file(name.clone(), data.clone(), *format, declared).await?)
            }
            (LookupKind::Simulated(_), _) => {
                return Err(Error::internal(format!("simulated lookup table \"{name}\" was not opened")));
            }
        };
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
        let ConnectionKind::Postgres(postgres) = connection.kind;
        let config = PostgresConfig {
            config: postgres.config,
            sslmode: postgres.sslmode,
            sslrootcert: postgres.sslrootcert,
            max_connections: postgres.max_connections.get(),
            prepare: postgres.prepare,
        };
        match PostgresConnection::try_new(connection.name.clone(), config) {
            Ok(opened) => {
                connections.insert(connection.name, opened);
            }
            Err(error) => problems.push(problem(&error, &connection.origin)),
        }
    }
    for stream in definition.streams {
        let origin = stream.origin.clone();
        match open_stream(stream) {
            Ok(stream) => {
                relations.insert(stream.name.clone(), Relation::Stream(Arc::new(stream)));
            }
            Err(error) => problems.push(problem(&error, &origin)),
        }
    }
    for lookup in definition.lookups {
        let name = lookup.name.clone();
        let (connection, table) = match &lookup.kind {
            LookupKind::Postgres { connection, .. } => (connections.get(connection).cloned(), None),
            LookupKind::File { .. } => (None, None),
            LookupKind::Simulated(config) => match SimulatedStore::try_new(name.clone(), config.clone()) {
                Ok(store) => (None, Some(LookupTable::new(name.clone(), Arc::new(store), lookup.policy.clone()))),
                Err(error) => {
                    problems.push(problem(&error, &lookup.origin));
                    continue;
                }
            },
        };
        let table = OnceCell::new_with(table);
        let lookup = Lookup { definition: lookup, connection, table, last_error: LastError::default() };
        relations.insert(name, Relation::Lookup(Arc::new(lookup)));
    }
    if problems.is_empty() { Ok(relations) } else { Err(problems) }
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
            (None, Some(path)) => format::parquet_schema(path)?,
            (None, None) => return Err(Error::internal("an embedded file without columns")),
        };
        let shown = path.as_ref().map_or_else(|| name.clone(), |path| path.display().to_string());
        let columns = Arc::clone(&schema);
        let read = Arc::new(move || format::read_all(&name, &data, file_format, &columns));
        FileStore::try_new(shown, path, schema, read)
    });
    opened.await.map_err(|error| Error::internal(format!("reading a file did not end: {error}")))?
}

fn open_stream(definition: StreamDefinition) -> Result<Stream> {
    let StreamDefinition { name, comment, .. } = definition;
    let reading = |stream: Stream| Ok(Stream { comment: comment.clone(), ..stream });
    let (source, push): (Arc<dyn Source>, _) = match definition.kind {
        StreamKind::Generator { rows_per_second, rows, seed, columns } => {
            let columns = columns.into_iter().map(|column| (column.name, column.expression)).collect();
            let config = GeneratorConfig { rows_per_second, rows, seed, columns };
            let source = Arc::new(GeneratorSource::try_new(name.clone(), config)?);
            return reading(Stream::reading(name, "generator", source));
        }
        StreamKind::Push { columns, retain_rows, retain_bytes, slow_reader } => {
            let schema = schema_of(&columns);
            let push = Arc::new(PushStream::new(name.clone(), schema, retain_rows.get(), retain_bytes, slow_reader));
            (Arc::clone(&push) as _, Some(push))
        }
        StreamKind::File { path, format, columns } => {
            let schema = (!columns.is_empty()).then(|| schema_of(&columns));
            let source = FileSource::try_new(name.clone(), path, format, schema, definition.on_malformed)?;
            return reading(Stream::reading(name, "file", Arc::new(source)));
        }
    };
    Ok(Stream { name, comment, type_name: "push", source, push, rows_read: Arc::default() })
}

fn schema_of(columns: &[ColumnDefinition]) -> SchemaRef {
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
