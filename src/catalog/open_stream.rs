//! From the definitions of streams to their sources.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};

use super::definition::{
    ColumnDefinition, FileStreamRows, KafkaTopic, MetadataColumn, MetadataField, PayloadDefinition, PayloadFormat,
    StreamDefinition, StreamKind,
};
use super::open::{Connection, schema_of};
use super::provider::{Stream, StreamSource};
use crate::error::{Code, Error, Result};
use crate::format::FileRows;
use crate::format::avro::Framing;
use crate::format::avro_column::AvroColumn;
use crate::format::avro_schema::AvroSchema;
use crate::format::lines::LineFormat;
use crate::format::message::MessageFormat;
use crate::source::file::{FileSource, FollowedSource};
use crate::source::follow::FollowedFile;
use crate::source::generator::{GeneratorConfig, GeneratorSource};
use crate::source::kafka::{KafkaSource, KafkaStream};
use crate::source::kafka_avro::{KafkaAvroDeclared, avro_shape};
use crate::source::kafka_connection::KafkaConnection;
use crate::source::kafka_rows::RowShape;
use crate::source::push::PushStream;
use crate::source::registry::SchemaRegistry;

/// Connections by their names, and what stands behind some of them.
pub(super) struct Connected<'c> {
    pub connections: &'c BTreeMap<String, Connection>,
    /// Of connections of type http, for those that are registries of schemas: one for all streams.
    pub registries: BTreeMap<String, Arc<SchemaRegistry>>,
}

impl Connected<'_> {
    fn kafka(&self, name: &str) -> Result<Arc<KafkaConnection>> {
        match self.connections.get(name) {
            Some(Connection::Kafka(connection)) => Ok(Arc::clone(connection)),
            _ => Err(Error::internal(format!("connection \"{name}\" is of another type"))),
        }
    }

    fn registry(&mut self, name: &str) -> Result<Arc<SchemaRegistry>> {
        let Some(Connection::Http(connection)) = self.connections.get(name) else {
            return Err(Error::internal(format!("connection \"{name}\" is of another type")));
        };
        let registry = self.registries.entry(name.to_string());
        Ok(Arc::clone(registry.or_insert_with(|| Arc::new(SchemaRegistry::new(Arc::clone(connection))))))
    }
}

/// Opens all that needs nobody to be asked.
pub(super) fn open_stream(definition: &StreamDefinition, connected: &mut Connected) -> Result<Stream> {
    let name = definition.name.clone();
    let (type_name, source) = match definition.kind.clone() {
        StreamKind::Generator { rows_per_second, rows, seed, columns } => {
            let columns = columns.into_iter().map(|column| (column.name, column.expression)).collect();
            let config = GeneratorConfig { rows_per_second, rows, seed, columns };
            ("generator", StreamSource::Known(Arc::new(GeneratorSource::try_new(name, config)?)))
        }
        StreamKind::Push { columns, retain_rows, retain_bytes, slow_reader } => {
            let schema = schema_of(&columns);
            let push = PushStream::new(name, schema, retain_rows.get(), retain_bytes, slow_reader);
            ("push", StreamSource::Push(Arc::new(push)))
        }
        StreamKind::File { path, rows, follow } => {
            let (schema, rows) = file_rows(rows)?;
            let on_malformed = definition.on_malformed;
            let source = match (follow, rows) {
                (true, FileRows::Lines(format)) => {
                    let file = FollowedFile { name, path, format, schema, on_malformed };
                    StreamSource::Known(Arc::new(FollowedSource::new(file)))
                }
                (_, rows) => {
                    StreamSource::Known(Arc::new(FileSource::try_new(name, path, rows, schema, on_malformed)?))
                }
            };
            ("file", source)
        }
        StreamKind::Kafka(topic) => ("kafka", open_topic(definition, topic, connected)?),
    };
    Ok(Stream::new(definition, type_name, source))
}

/// The columns of a file's lines, and how they are read; of files that name their columns none.
fn file_rows(rows: FileStreamRows) -> Result<(SchemaRef, FileRows)> {
    Ok(match rows {
        FileStreamRows::Csv(columns) => (schema_of(&columns), FileRows::Lines(LineFormat::Csv)),
        FileStreamRows::Parquet => (Arc::new(Schema::empty()), FileRows::Parquet),
        FileStreamRows::Avro => (Arc::new(Schema::empty()), FileRows::Avro),
        FileStreamRows::Messages(payload, metadata) => {
            let format = message_format(&payload, &metadata)?;
            let shape = RowShape::new(format, fields_of(&payload.columns), metadata);
            (Arc::clone(shape.schema()), FileRows::Lines(LineFormat::Messages(shape.format)))
        }
    })
}

fn open_topic(definition: &StreamDefinition, topic: KafkaTopic, connected: &mut Connected) -> Result<StreamSource> {
    let connection = connected.kafka(&topic.connection)?;
    let KafkaTopic { topic, payload, metadata, discover_every, .. } = topic;
    let (name, on_malformed) = (definition.name.clone(), definition.on_malformed);
    let (shape, registry) = match &payload.format {
        PayloadFormat::Avro { schema } => {
            let reader = read_schema(schema)?;
            (avro_shape(&reader, &avro_columns(&payload.columns), &metadata, Framing::Plain)?, None)
        }
        PayloadFormat::AvroOfRegistry { registry, schema: Some(schema), .. } => {
            let reader = read_schema(schema)?;
            let shape = avro_shape(&reader, &avro_columns(&payload.columns), &metadata, Framing::Confluent)?;
            (shape, Some(connected.registry(registry)?))
        }
        PayloadFormat::AvroOfRegistry { registry, subject, schema: None } => {
            return Ok(StreamSource::Declared(Arc::new(KafkaAvroDeclared {
                connection,
                registry: connected.registry(registry)?,
                name,
                subject: subject.clone().unwrap_or_else(|| format!("{topic}-value")),
                topic,
                columns: avro_columns(&payload.columns),
                metadata,
                on_malformed,
                discover_every,
            })));
        }
        PayloadFormat::Json | PayloadFormat::Csv | PayloadFormat::Raw | PayloadFormat::Debezium { .. } => {
            let format = message_format(&payload, &metadata)?;
            (RowShape::new(format, fields_of(&payload.columns), metadata), None)
        }
    };
    let stream = KafkaStream { name, topic, shape, on_malformed, discover_every, registry, schema_found: None };
    Ok(StreamSource::Known(Arc::new(KafkaSource::new(connection, stream))))
}

/// Of formats that need no schema.
fn message_format(payload: &PayloadDefinition, metadata: &[MetadataColumn]) -> Result<MessageFormat> {
    let paths = || payload.columns.iter().map(ColumnDefinition::json_path).collect();
    Ok(match payload.format {
        PayloadFormat::Json => MessageFormat::Json { paths: paths() },
        PayloadFormat::Csv => MessageFormat::Csv,
        PayloadFormat::Raw => MessageFormat::Raw,
        PayloadFormat::Debezium { deletes } => {
            let envelope = metadata.iter().filter_map(|column| match column.of {
                MetadataField::Envelope(field) => Some(field),
                MetadataField::Message(_) => None,
            });
            MessageFormat::Debezium { paths: paths(), deletes, envelope: envelope.collect() }
        }
        PayloadFormat::Avro { .. } | PayloadFormat::AvroOfRegistry { .. } => {
            return Err(Error::internal("Avro is read by a schema"));
        }
    })
}

fn fields_of(columns: &[ColumnDefinition]) -> Vec<datafusion::arrow::datatypes::Field> {
    columns.iter().map(|column| column.pg_type.field(&column.name, column.nullable)).collect()
}

fn avro_columns(columns: &[ColumnDefinition]) -> Vec<AvroColumn> {
    let column = |column: &ColumnDefinition| AvroColumn {
        name: column.name.clone(),
        path: column.path.clone(),
        pg_type: Some(column.pg_type.clone()),
        nullable: column.nullable,
    };
    columns.iter().map(column).collect()
}

fn read_schema(path: &Path) -> Result<Arc<AvroSchema>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::new(Code::DataException, format!("could not read schema \"{shown}\": {error}")))?;
    AvroSchema::parse(&text).map(Arc::new).map_err(|error| error.with_context(format!("schema \"{shown}\"")))
}
