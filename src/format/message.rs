//! Single messages as rows of declared columns: what every source that carries messages decodes them with.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Code, Result};
use crate::format::avro::{AvroDecoder, Framing};
use crate::format::avro_column::AvroColumn;
use crate::format::avro_schema::AvroSchema;
use crate::format::csv::CsvDecoder;
use crate::format::debezium::{Deletes, EnvelopeDecoder, EnvelopeField};
use crate::format::fields::utf8;
use crate::format::json::JsonDecoder;
use crate::format::json_path::JsonPath;
use crate::format::record::{LineEnds, RecordSplitter, Syntax};
use crate::format::row::RowBuilder;
use crate::format::text::{self, Value, ValueError};
use crate::pg_type::PgType;

/// Why a message was not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageFailure {
    /// [`MessageDecoder::add_writer`] must be called with the schema of this number first.
    UnknownSchema(u32),
    Malformed(ValueError),
}

impl From<ValueError> for MessageFailure {
    fn from(error: ValueError) -> Self {
        MessageFailure::Malformed(error)
    }
}

/// How a message's bytes hold a row.
#[derive(Clone, Debug)]
pub enum MessageFormat {
    /// A JSON object; where in it each column stands.
    Json { paths: Vec<JsonPath> },
    /// One record of CSV without a header: the columns in their order.
    Csv,
    /// The one column is the whole message, as text or bytes.
    Raw,
    /// A change as Debezium writes it in JSON; where in the row's image each column stands. The schema has the envelope's
    /// fields behind those columns.
    Debezium { paths: Vec<JsonPath>, deletes: Deletes, envelope: Vec<EnvelopeField> },
    /// A record in Avro's binary encoding, as the reader's schema has it.
    Avro { reader: Arc<AvroSchema>, columns: Vec<AvroColumn>, framing: Framing },
}

impl MessageFormat {
    /// JSON whose members have the columns' names.
    pub fn json(schema: &SchemaRef) -> Self {
        MessageFormat::Json { paths: schema.fields().iter().map(|field| JsonPath::member(field.name())).collect() }
    }
}

/// Reads messages one by one; a message makes a row or none.
pub enum MessageDecoder {
    Json(JsonDecoder),
    Csv(Box<CsvDecoder>),
    Raw(RawDecoder),
    Debezium(Box<EnvelopeDecoder>),
    Avro(Box<AvroDecoder>),
}

impl MessageDecoder {
    /// # Errors
    /// 0A000 for a column of an Arrow type that no type of PostgreSQL stands for; for Avro as [`AvroDecoder::try_new`].
    pub fn try_new(format: &MessageFormat, schema: &SchemaRef) -> Result<Self> {
        Ok(match format {
            MessageFormat::Json { paths } => MessageDecoder::Json(JsonDecoder::with_paths(schema, paths)?),
            MessageFormat::Csv => MessageDecoder::Csv(Box::new(CsvDecoder::positional(schema)?)),
            MessageFormat::Raw => MessageDecoder::Raw(RawDecoder { rows: RowBuilder::try_new(schema)? }),
            MessageFormat::Debezium { paths, deletes, envelope } => {
                MessageDecoder::Debezium(Box::new(EnvelopeDecoder::try_new(schema, paths, *deletes, envelope)?))
            }
            MessageFormat::Avro { reader, columns, framing } => {
                MessageDecoder::Avro(Box::new(AvroDecoder::try_new(schema, Arc::clone(reader), columns, *framing)?))
            }
        })
    }

    /// Appends the row that a message holds; false if by its format it holds none. `None` is a message without a value.
    ///
    /// # Errors
    /// A schema that is not known, or what is malformed; nothing has been appended then.
    pub fn append(&mut self, message: Option<&[u8]>) -> Result<bool, MessageFailure> {
        match (self, message) {
            (MessageDecoder::Raw(decoder), message) => decoder.append(message)?,
            // What Debezium sends behind a delete, so that the broker may forget the key.
            (MessageDecoder::Debezium(_), None) => return Ok(false),
            (_, None) => return Err(malformed("the message has no value (a tombstone)").into()),
            (MessageDecoder::Json(decoder), Some(bytes)) => decoder.append(utf8(bytes)?)?,
            (MessageDecoder::Csv(decoder), Some(bytes)) => decoder.append(one_record(bytes)?)?,
            (MessageDecoder::Debezium(decoder), Some(bytes)) => return Ok(decoder.append(utf8(bytes)?)?),
            (MessageDecoder::Avro(decoder), Some(bytes)) => decoder.append(bytes)?,
        }
        Ok(true)
    }

    /// Messages with this number in front were written with this schema.
    pub fn add_writer(&mut self, id: u32, writer: &AvroSchema) {
        if let MessageDecoder::Avro(decoder) = self {
            decoder.add_writer(id, writer);
        }
    }

    /// Whether a line holds nothing that could be a row. Raw ones may be empty.
    pub(crate) fn is_blank(&self, line: &[u8]) -> bool {
        !matches!(self, MessageDecoder::Raw(_)) && line.trim_ascii().is_empty()
    }

    /// Rows since the last [`MessageDecoder::finish`].
    pub fn len(&self) -> usize {
        match self {
            MessageDecoder::Json(decoder) => decoder.len(),
            MessageDecoder::Csv(decoder) => decoder.len(),
            MessageDecoder::Raw(decoder) => decoder.rows.len(),
            MessageDecoder::Debezium(decoder) => decoder.len(),
            MessageDecoder::Avro(decoder) => decoder.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the batch should be taken before more rows come: it holds 8192 rows, or 16 MiB of input.
    pub fn is_full(&self) -> bool {
        match self {
            MessageDecoder::Json(decoder) => decoder.is_full(),
            MessageDecoder::Csv(decoder) => decoder.is_full(),
            MessageDecoder::Raw(decoder) => decoder.rows.is_full(),
            MessageDecoder::Debezium(decoder) => decoder.is_full(),
            MessageDecoder::Avro(decoder) => decoder.is_full(),
        }
    }

    /// The rows since the last call; the decoder can be used again.
    ///
    /// # Errors
    /// XX000 if the rows do not make a batch.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        match self {
            MessageDecoder::Json(decoder) => decoder.finish(),
            MessageDecoder::Csv(decoder) => decoder.finish(),
            MessageDecoder::Raw(decoder) => decoder.rows.finish(),
            MessageDecoder::Debezium(decoder) => decoder.finish(),
            MessageDecoder::Avro(decoder) => decoder.finish(),
        }
    }
}

/// Messages as they are.
pub struct RawDecoder {
    rows: RowBuilder,
}

impl RawDecoder {
    fn append(&mut self, message: Option<&[u8]>) -> Result<(), ValueError> {
        let value = match (self.rows.types(), message) {
            (_, None) => None,
            ([PgType::Bytea], Some(bytes)) => Some(Value::Bytes(bytes.to_vec())),
            ([pg_type], Some(bytes)) => Some(text::parse(pg_type, utf8(bytes)?, &Default::default())?),
            _ => return Err(ValueError::new(Code::Internal, "a raw message has one column")),
        };
        self.rows.append(vec![value], message.map_or(0, <[u8]>::len))
    }
}

pub(crate) fn malformed(message: impl Into<String>) -> ValueError {
    ValueError::new(Code::InvalidTextRepresentation, message)
}

/// The one record of a message, without the line's end that it may have.
fn one_record(message: &[u8]) -> Result<&[u8], ValueError> {
    let record = message.strip_suffix(b"\n").unwrap_or(message);
    let record = record.strip_suffix(b"\r").unwrap_or(record);
    if record.is_empty() {
        return Err(malformed("the message is empty"));
    }
    if !record.contains(&b'\n') {
        return Ok(record);
    }
    // Line ends within quotes are part of their field.
    let mut splitter = RecordSplitter::new(Syntax::Csv { quote: b'"', escape: b'"' }, LineEnds::Newline);
    splitter.push(record);
    splitter.finish();
    let first = splitter.next_record().map_err(|error| malformed(error.message()))?;
    match first {
        Some(first) if first.bytes.len() == record.len() => Ok(record),
        _ => Err(malformed("the message has more than one line")),
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
