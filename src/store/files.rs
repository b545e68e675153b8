//! Files in an object store, or in a folder, as one table: read whole, again when one of them has changed.
//!
//! This store only reads: `full.rs` around it holds the rows and asks whether they are still those of the files.
//! `files_connection.rs` says where the files are, `files_pattern.rs` which of them belong to the table.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::logical_expr::Expr;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::files_connection::failure_of;
pub use super::files_connection::{FilesConfig, FilesConnection, FilesLocation, S3Options};
pub use super::files_pattern::FilesPattern;
use super::files_pattern::Partitions;
use super::memory_index::key_equality;
use super::memory_table::{batch_of, blocking};
use super::{Answer, DeclaredTable, KeyEquality, LookupRequest, RowBatches, ScanRequest, Store, StoreError};
use crate::error::{Code, Error, Result};
use crate::format::text::ColumnBuilder;
use crate::format::{self, FileFormat};
use crate::pg_type::PgType;

/// Files that are fetched at once; they are held in memory while they are read.
const FILES_AT_ONCE: usize = 4;

/// A `[lookup.X]` over files, as the catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub struct FilesTable {
    pub pattern: FilesPattern,
    pub format: FileFormat,
    /// Name, type, and whether NULL may be; empty for parquet and avro, whose files name their columns.
    pub columns: Vec<(String, PgType, bool)>,
    /// Types of columns that stand in folders' names, for parquet and avro; those that are not here are text.
    pub partitions: Vec<(String, PgType)>,
}

/// Files that have not been looked at yet.
#[derive(Debug)]
pub struct FilesDeclared {
    /// The lookup table's.
    pub name: String,
    pub connection: Arc<FilesConnection>,
    pub table: FilesTable,
}

#[async_trait]
impl DeclaredTable for FilesDeclared {
    /// Reads the columns of the first file where the files name them.
    async fn connect(&self) -> Result<Arc<dyn Store>, StoreError> {
        let FilesDeclared { name, connection, table } = self;
        let schema = match table.columns.is_empty() {
            true => schema_of_first(name, connection, table).await?,
            false => {
                let fields = table.columns.iter().map(|(name, pg_type, nullable)| pg_type.field(name, *nullable));
                Arc::new(Schema::new(fields.collect::<Vec<_>>()))
            }
        };
        let store = FilesStore { name: name.clone(), connection: Arc::clone(connection), table: table.clone(), schema };
        Ok(Arc::new(store))
    }

    fn shown(&self) -> String {
        format!("files {} of {}", self.table.pattern, self.connection)
    }
}

/// The columns of the first file, and those that stand in its folders' names.
async fn schema_of_first(
    name: &str,
    connection: &FilesConnection,
    table: &FilesTable,
) -> Result<SchemaRef, StoreError> {
    let store = connection.store()?;
    let files = list(store.as_ref(), name, connection, table).await?;
    let Some((first, partitions)) = files.into_iter().next() else { return Err(no_files(name, connection, table)) };
    let bytes = fetch(store.as_ref(), &first).await?;
    let file = first.location.to_string();
    let file_format = table.format;
    let schema = blocking(move || format::schema_of_bytes(&file, bytes, file_format)).await?;
    let in_folders = |field: &FieldRef| partitions.iter().any(|(name, _)| name == field.name());
    let mut fields: Vec<FieldRef> = schema.fields().iter().filter(|field| !in_folders(field)).cloned().collect();
    for (name, _) in &partitions {
        let declared = table.partitions.iter().find(|(declared, _)| declared == name);
        fields.push(Arc::new(declared.map_or(PgType::Text, |(_, pg_type)| pg_type.clone()).field(name, true)));
    }
    if let Some((missing, _)) = table.partitions.iter().find(|(name, _)| !partitions.iter().any(|(of, _)| of == name)) {
        let message = format!("no folder above file \"{}\" is called {missing}=…", first.location);
        return Err(Error::new(Code::UndefinedColumn, message).into());
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn no_files(name: &str, connection: &FilesConnection, table: &FilesTable) -> StoreError {
    let message = format!("no file of {connection} is \"{}\", of which lookup table \"{name}\" is made", table.pattern);
    StoreError::Failed { message, sqlstate: None }
}

/// The table's files in the order of their paths, each with what its folders' names say.
async fn list(
    store: &dyn ObjectStore,
    name: &str,
    connection: &FilesConnection,
    table: &FilesTable,
) -> Result<Vec<(ObjectMeta, Partitions)>, StoreError> {
    let mut files = Vec::new();
    if let Some(path) = table.pattern.only_file() {
        let found = store.head(&connection.path(path)?).await.map_err(|error| failure_of(&error))?;
        files.push((found, table.pattern.partitions(path)?));
        return Ok(files);
    }
    let folder = connection.path(table.pattern.folder())?;
    let mut listed = store.list(Some(&folder));
    while let Some(file) = listed.try_next().await.map_err(|error| failure_of(&error))? {
        let Some(relative) = connection.relative(&file.location) else { continue };
        if table.pattern.matches(&relative) {
            let partitions = table.pattern.partitions(&relative)?;
            files.push((file, partitions));
        }
    }
    if files.is_empty() {
        return Err(no_files(name, connection, table));
    }
    files.sort_by(|(a, _), (b, _)| a.location.cmp(&b.location));
    Ok(files)
}

/// The file's bytes, if it is still the one that was listed.
async fn fetch(store: &dyn ObjectStore, file: &ObjectMeta) -> Result<Bytes, StoreError> {
    let options = object_store::GetOptions { if_match: file.e_tag.clone(), ..Default::default() };
    let got = store.get_opts(&file.location, options).await.map_err(|error| failure_of(&error))?;
    // Without an etag size and time must do.
    if got.meta.size != file.size || (file.e_tag.is_none() && got.meta.last_modified != file.last_modified) {
        let message = format!("file \"{}\" changed while it was read", file.location);
        return Err(StoreError::Unavailable { message });
    }
    let bytes = got.bytes().await.map_err(|error| failure_of(&error))?;
    if bytes.len() as u64 != file.size {
        let message = format!("of file \"{}\" came {} bytes of {}", file.location, bytes.len(), file.size);
        return Err(StoreError::Unavailable { message });
    }
    Ok(bytes)
}

/// Files whose columns are known.
#[derive(Debug)]
pub struct FilesStore {
    name: String,
    connection: Arc<FilesConnection>,
    table: FilesTable,
    schema: SchemaRef,
}

impl FilesStore {
    /// Reads the rows of one file.
    async fn read(
        &self,
        store: &dyn ObjectStore,
        file: &ObjectMeta,
        partitions: Partitions,
    ) -> Result<Vec<RecordBatch>, StoreError> {
        let bytes = fetch(store, file).await?;
        let (name, path) = (self.name.clone(), file.location.to_string());
        let (format, schema) = (self.table.format, Arc::clone(&self.schema));
        Ok(blocking(move || {
            let in_file = schema.fields().iter().filter(|field| !partitions.iter().any(|(of, _)| of == field.name()));
            let in_file = Arc::new(Schema::new(in_file.cloned().collect::<Vec<_>>()));
            let batches = format::read_bytes(&name, &path, bytes, format, &in_file)?;
            let constants = partition_values(&schema, &partitions)
                .map_err(|error| error.with_context(format!("file \"{path}\"")))?;
            batches.iter().map(|batch| with_partitions(batch, &schema, &constants)).collect::<Result<Vec<_>>>()
        })
        .await?)
    }
}

/// For each column of the schema the one value that its folders' names give it, as an array.
fn partition_values(schema: &SchemaRef, partitions: &Partitions) -> Result<Vec<Option<ArrayRef>>> {
    let value_of = |field: &FieldRef| -> Result<Option<ArrayRef>> {
        let Some((name, text)) = partitions.iter().find(|(name, _)| name == field.name()) else { return Ok(None) };
        let mut column = ColumnBuilder::new(&PgType::of_field(field)?);
        match text {
            Some(text) => {
                column.append(text).map_err(|error| Error::from(error).with_context(format!("folder {name}=…")))?;
            }
            None if field.is_nullable() => column.append_null(),
            None => {
                let message = format!("null value in column \"{name}\" violates not-null constraint");
                return Err(Error::new(Code::NotNullViolation, message));
            }
        }
        Ok(Some(column.finish()))
    };
    schema.fields().iter().map(value_of).collect()
}

fn with_partitions(batch: &RecordBatch, schema: &SchemaRef, constants: &[Option<ArrayRef>]) -> Result<RecordBatch> {
    let repeated = UInt32Array::from(vec![0; batch.num_rows()]);
    let mut in_file = batch.columns().iter();
    let mut columns = Vec::with_capacity(constants.len());
    for constant in constants {
        columns.push(match constant {
            Some(value) => take(value, &repeated, None)?,
            None => Arc::clone(in_file.next().ok_or_else(|| Error::internal("a file lacks a column that was read"))?),
        });
    }
    batch_of(Arc::clone(schema), columns, batch.num_rows())
}

#[async_trait]
impl Store for FilesStore {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn can_filter(&self, _: &Expr) -> bool {
        false
    }

    fn key_equality(&self, column: usize) -> KeyEquality {
        let field = self.schema.fields().get(column);
        field.map_or_else(|| KeyEquality::unknown_column(column), |field| key_equality(field))
    }

    /// Changes with the set of files, their sizes, times and etags.
    async fn version(&self) -> Result<Option<u64>, StoreError> {
        let store = self.connection.store()?;
        let mut hasher = DefaultHasher::new();
        for (file, _) in list(store.as_ref(), &self.name, &self.connection, &self.table).await? {
            (file.location.as_ref(), file.size, file.last_modified, &file.e_tag).hash(&mut hasher);
        }
        Ok(Some(hasher.finish()))
    }

    /// The catalog lets such a table only be held whole, so keys are looked up in what was read.
    async fn lookup(&self, _: &LookupRequest) -> Result<Answer, StoreError> {
        Err(Error::internal(format!("files of lookup table \"{}\" were asked for a key", self.name)).into())
    }

    fn can_scan(&self) -> bool {
        true
    }

    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError> {
        if let Some(filter) = request.filters.first() {
            return Err(Error::internal(format!("files cannot apply {filter}")).into());
        }
        let store = self.connection.store()?;
        let files = list(store.as_ref(), &self.name, &self.connection, &self.table).await?;
        let reader = Arc::new(FilesStore {
            name: self.name.clone(),
            connection: Arc::clone(&self.connection),
            table: self.table.clone(),
            schema: Arc::clone(&self.schema),
        });
        let read = move |(file, partitions): (ObjectMeta, Partitions)| {
            let (reader, store) = (Arc::clone(&reader), Arc::clone(&store));
            async move { reader.read(store.as_ref(), &file, partitions).await }
        };
        let batches = futures::stream::iter(files).map(read).buffered(FILES_AT_ONCE);
        let batches = batches.map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok))).try_flatten();
        let (columns, mut left) = (request.columns.clone(), request.limit);
        Ok(batches
            .map(move |batch: Result<RecordBatch, StoreError>| {
                let batch = batch?.project(&columns).map_err(Error::from)?;
                let rows = left.map_or(batch.num_rows(), |left| left.min(batch.num_rows()));
                left = left.map(|left| left - rows);
                Ok(batch.slice(0, rows))
            })
            .boxed())
    }
}

impl fmt::Display for FilesStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files {} of {}", self.table.pattern, self.connection)
    }
}
