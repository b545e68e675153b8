//! Topics whose messages are written in Avro by schemas of a registry: the registry is asked for the columns.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::kafka::{KafkaSource, KafkaStream};
use super::kafka_connection::KafkaConnection;
use super::kafka_rows::{MetadataColumn, RowShape};
use super::registry::{RegistryError, SchemaRegistry};
use super::{DeclaredSource, Source};
use crate::error::{Code, Error, Result};
use crate::format::OnMalformed;
use crate::format::avro::Framing;
use crate::format::avro_column::AvroColumn;
use crate::format::avro_schema::AvroSchema;
use crate::format::message::MessageFormat;

/// A topic as declared, before its columns are known.
pub struct KafkaAvroDeclared {
    pub connection: Arc<KafkaConnection>,
    pub registry: Arc<SchemaRegistry>,
    /// The stream's in the catalog.
    pub name: String,
    pub topic: String,
    pub subject: String,
    /// Empty: all of the schema's fields.
    pub columns: Vec<AvroColumn>,
    pub metadata: Vec<MetadataColumn>,
    pub on_malformed: OnMalformed,
    pub discover_every: std::time::Duration,
}

impl fmt::Debug for KafkaAvroDeclared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaAvroDeclared")
            .field("name", &self.name)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl DeclaredSource for KafkaAvroDeclared {
    async fn connect(&self) -> Result<Arc<dyn Source>> {
        let latest = self.registry.latest(&self.subject).await.map_err(|error| self.without_schema(error))?;
        let found = format!("subject {} version {} (id {})", self.subject, latest.version, latest.id);
        let reader = Arc::clone(&latest.schema);
        let shape = avro_shape(&reader, &self.columns, &self.metadata, Framing::Confluent)
            .map_err(|error| error.with_context(&found))?;
        let stream = KafkaStream {
            name: self.name.clone(),
            topic: self.topic.clone(),
            shape,
            on_malformed: self.on_malformed,
            discover_every: self.discover_every,
            registry: Some(Arc::clone(&self.registry)),
            schema_found: Some(found),
        };
        Ok(Arc::new(KafkaSource::new(Arc::clone(&self.connection), stream)))
    }
}

impl KafkaAvroDeclared {
    fn without_schema(&self, error: RegistryError) -> Error {
        let (code, message) = match error {
            RegistryError::Unavailable { message } => (Code::StoreUnavailable, message),
            RegistryError::Refused { message } | RegistryError::Failed { message } => (Code::StoreFailed, message),
        };
        Error::new(code, format!("stream \"{}\" has no schema: {message}", self.name))
    }
}

/// The columns of messages in Avro: those that are declared, or, if none is, all fields of the reader's schema.
///
/// # Errors
/// As [`AvroSchema::columns`] and [`AvroSchema::columns_of`]; 42701 for metadata that has the name of a field.
pub fn avro_shape(
    reader: &Arc<AvroSchema>,
    declared: &[AvroColumn],
    metadata: &[MetadataColumn],
    framing: Framing,
) -> Result<RowShape> {
    let columns = if declared.is_empty() { reader.columns()? } else { reader.columns_of(declared)? };
    for MetadataColumn { name, .. } in metadata {
        if columns.iter().any(|column| column.name() == name) {
            let message = format!("metadata column \"{name}\" has the name of a field of the schema");
            return Err(Error::new(Code::DuplicateColumn, message));
        }
    }
    let format = MessageFormat::Avro { reader: Arc::clone(reader), columns: declared.to_vec(), framing };
    Ok(RowShape::new(format, columns, metadata.to_vec()))
}
