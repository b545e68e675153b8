//! From messages of Kafka's to batches of rows: what a message holds, and what Kafka says of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::kafka::KafkaStream;
use super::kafka_gather::Placed;
use super::progress::Progress;
use crate::error::{Code, Error, Result};
use crate::format::avro_schema::AvroSchema;
use crate::format::debezium::EnvelopeField;
use crate::format::fields::utf8;
use crate::format::message::{MessageDecoder, MessageFailure, MessageFormat, malformed};
use crate::format::text::{ColumnBuilder, Value, ValueError};
use crate::format::{OnMalformed, malformed_row};
use crate::pg_type::PgType;

/// How many of the malformed messages of one reading are logged each.
const LOGGED_SKIPS: u64 = 10;

/// What Kafka says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageField {
    /// As text.
    Key,
    KeyBytes,
    Partition,
    Offset,
    /// When it was produced, or, as the topic is set, appended.
    Timestamp,
    /// A JSON object; of values that are no text the bytes as `\x…`.
    Headers,
    Topic,
}

impl MessageField {
    pub const ALL: [(&'static str, MessageField); 7] = [
        ("key", MessageField::Key),
        ("key_bytes", MessageField::KeyBytes),
        ("partition", MessageField::Partition),
        ("offset", MessageField::Offset),
        ("timestamp", MessageField::Timestamp),
        ("headers", MessageField::Headers),
        ("topic", MessageField::Topic),
    ];

    fn pg_type(self) -> PgType {
        match self {
            MessageField::Key | MessageField::Topic => PgType::Text,
            MessageField::KeyBytes => PgType::Bytea,
            MessageField::Partition => PgType::Int4,
            MessageField::Offset => PgType::Int8,
            MessageField::Timestamp => PgType::Timestamptz,
            MessageField::Headers => PgType::Jsonb,
        }
    }

    /// The column for it.
    pub fn column(self, name: &str) -> Field {
        let nullable = matches!(self, MessageField::Key | MessageField::KeyBytes | MessageField::Timestamp);
        self.pg_type().field(name, nullable)
    }

    pub(super) fn value<'m>(self, message: &'m BorrowedMessage<'_>) -> Result<Option<Value<'m>>, ValueError> {
        Ok(match self {
            MessageField::Key => match message.key().map(utf8) {
                Some(Err(error)) => {
                    return Err(malformed(format!(
                        "the key is no text: {}; declare it as \"key_bytes\"",
                        error.message
                    )));
                }
                Some(Ok(key)) => Some(Value::Text(key.into())),
                None => None,
            },
            MessageField::KeyBytes => message.key().map(|key| Value::Bytes(key.to_vec())),
            MessageField::Partition => Some(Value::Int4(message.partition())),
            MessageField::Offset => Some(Value::Int8(message.offset())),
            MessageField::Timestamp => {
                let microseconds = message.timestamp().to_millis().and_then(|time| time.checked_mul(1000));
                microseconds.map(Value::Timestamp)
            }
            MessageField::Headers => {
                // The client library panics at a header whose name is no text.
                let headers = std::panic::catch_unwind(AssertUnwindSafe(|| headers_json(message)));
                Some(Value::Text(headers.map_err(|_| malformed("the name of a header is no text"))?.into()))
            }
            MessageField::Topic => Some(Value::Text(message.topic().into())),
        })
    }
}

/// The headers in their order. One that is there twice stands twice in the object, as jsonb keeps what was written.
fn headers_json(message: &BorrowedMessage<'_>) -> String {
    let headers = message.headers();
    let members = headers.into_iter().flat_map(|headers| headers.iter()).map(|header| {
        let value = match header.value.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
            None => serde_json::Value::Null,
            Some((Ok(text), _)) => text.into(),
            Some((Err(_), bytes)) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("\\x{digits}").into()
            }
        };
        format!("{}: {value}", serde_json::Value::from(header.key))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

/// The columns of a stream, and what each is made of.
#[derive(Clone, Debug)]
pub struct RowShape {
    pub format: MessageFormat,
    /// What the format makes of a message's value.
    payload: SchemaRef,
    fields: Vec<MessageField>,
    /// All columns; each is one of the payload's or, behind those, one of `fields`.
    schema: SchemaRef,
    columns: Vec<usize>,
}

/// A column beside those of the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataColumn {
    pub name: String,
    pub of: MetadataField,
}

/// Who says what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataField {
    Message(MessageField),
    /// The format makes it, as the next behind the payload's own columns.
    Envelope(EnvelopeField),
}

impl RowShape {
    /// `columns` are the payload's; `metadata` stands behind them in its own order.
    pub fn new(format: MessageFormat, columns: Vec<Field>, metadata: Vec<MetadataColumn>) -> Self {
        let of_format = metadata.iter().filter_map(|column| match column.of {
            MetadataField::Envelope(field) => Some(field.column(&column.name)),
            MetadataField::Message(_) => None,
        });
        let payload: Vec<Field> = columns.iter().cloned().chain(of_format).collect();
        let mut positions: Vec<usize> = (0..columns.len()).collect();
        let (mut next_payload, mut fields, mut all) = (columns.len(), vec![], columns);
        for MetadataColumn { name, of } in metadata {
            match of {
                MetadataField::Envelope(field) => {
                    positions.push(next_payload);
                    next_payload += 1;
                    all.push(field.column(&name));
                }
                MetadataField::Message(field) => {
                    positions.push(payload.len() + fields.len());
                    all.push(field.column(&name));
                    fields.push(field);
                }
            }
        }
        let (payload, schema) = (Arc::new(Schema::new(payload)), Arc::new(Schema::new(all)));
        RowShape { format, payload, fields, schema, columns: positions }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

/// Collects the rows of one reading.
pub(super) struct MessageRows {
    stream: Arc<KafkaStream>,
    decoder: MessageDecoder,
    /// Of the fields that are asked for, in the order of [`MessageRows::fields`].
    metadata: Vec<ColumnBuilder>,
    fields: Vec<MessageField>,
    /// Where each column of the output is: in the payload, or behind it in `metadata`.
    columns: Vec<usize>,
    schema: SchemaRef,
    progress: Arc<Progress>,
    skipped: u64,
}

impl MessageRows {
    /// `projection` holds positions in the stream's schema.
    pub(super) fn try_new(stream: &Arc<KafkaStream>, projection: &[usize], progress: &Arc<Progress>) -> Result<Self> {
        let shape = &stream.shape;
        let payload = shape.payload.fields().len();
        let (mut metadata, mut fields, mut columns) = (vec![], vec![], vec![]);
        for position in projection {
            let column = *shape.columns.get(*position).ok_or_else(|| Error::internal("a column that is not there"))?;
            match column.checked_sub(payload) {
                None => columns.push(column),
                Some(field) => {
                    let field = shape.fields[field];
                    columns.push(payload + metadata.len());
                    metadata.push(ColumnBuilder::new(&field.pg_type()));
                    fields.push(field);
                }
            }
        }
        Ok(MessageRows {
            stream: Arc::clone(stream),
            decoder: MessageDecoder::try_new(&shape.format, &shape.payload)?,
            metadata,
            fields,
            columns,
            schema: Arc::new(shape.schema.project(projection)?),
            progress: Arc::clone(progress),
            skipped: 0,
        })
    }

    /// Reads a message. One that is malformed is skipped, counted and logged if the stream is declared so. `Some` is the
    /// number of a schema that must be added before the message can be read; then nothing has happened.
    ///
    /// # Errors
    /// 22P02 for a malformed message otherwise, with its place.
    pub(super) fn append(&mut self, message: &Placed, value: Option<&[u8]>) -> Result<Option<u32>> {
        match self.read(message, value) {
            Ok(()) => Ok(None),
            Err(MessageFailure::UnknownSchema(id)) => Ok(Some(id)),
            Err(MessageFailure::Malformed(error)) => self.refuse(message, &error).map(|()| None),
        }
    }

    /// What is asked for of what Kafka says of messages.
    pub(super) fn fields(&self) -> &[MessageField] {
        &self.fields
    }

    /// Messages with this number in front were written with this schema.
    pub(super) fn add_writer(&mut self, id: u32, writer: &AvroSchema) {
        self.decoder.add_writer(id, writer);
    }

    fn read(&mut self, message: &Placed, value: Option<&[u8]>) -> Result<(), MessageFailure> {
        let metadata = message.metadata.as_ref().map_err(Clone::clone)?;
        if self.decoder.append(value)? {
            for (value, column) in metadata.iter().zip(&mut self.metadata) {
                column.push(value.clone())?;
            }
        }
        Ok(())
    }

    /// Takes a message for malformed.
    ///
    /// # Errors
    /// As [`MessageRows::append`].
    pub(super) fn refuse(&mut self, message: &Placed, error: &ValueError) -> Result<()> {
        if error.code == Code::Internal {
            return Err(Error::internal(error.message.clone()));
        }
        let KafkaStream { name, topic, on_malformed, .. } = self.stream.as_ref();
        let (partition, offset, reason) = (message.partition, message.offset, &error.message);
        let position = format_args!("partition {partition} offset {offset} of topic {topic}");
        let error = Error::new(Code::InvalidTextRepresentation, malformed_row(name, position, reason));
        if *on_malformed == OnMalformed::Fail {
            return Err(error);
        }
        self.progress.skipped().fetch_add(1, Relaxed);
        self.progress.note(&error);
        self.skipped += 1;
        match self.skipped {
            ..=LOGGED_SKIPS => tracing::warn!("{}; it is skipped", error.message()),
            _ => tracing::debug!("{}; it is skipped", error.message()),
        }
        Ok(())
    }

    /// Whether the batch should be taken before more messages come.
    pub(super) fn is_full(&self) -> bool {
        self.decoder.is_full()
    }

    /// The rows since the last call; `None` if there are none.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if self.decoder.is_empty() {
            return Ok(None);
        }
        let payload = self.decoder.finish()?;
        let metadata: Vec<ArrayRef> = self.metadata.iter_mut().map(ColumnBuilder::finish).collect();
        let column = |position: &usize| match position.checked_sub(payload.num_columns()) {
            None => Arc::clone(payload.column(*position)),
            Some(position) => Arc::clone(&metadata[position]),
        };
        let columns = self.columns.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(payload.num_rows()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }
}
