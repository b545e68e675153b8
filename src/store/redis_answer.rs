//! What is asked of each key of Redis, and rows made of what it answers.

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use redis::{Pipeline, ServerError, Value};

use super::document::{DocumentColumns, DocumentRows, Matching};
use super::redis_connection::RedisConnection;
use super::redis_key::AskedKey;
use super::redis_node::server_text;
use super::size::{AnswerRoom, POSITION_BYTES, column_bytes};
use super::{Answer, LookupRequest, StoreError};
use crate::error::{Code, Error, Result};
use crate::format::json::in_column;
use crate::format::text::{self, ColumnBuilder, ValueError, excerpt};
use crate::pg_type::PgType;

/// What is asked of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// These fields of a hash; and its length, which tells a hash that has none of them from no hash.
    Fields(Vec<String>),
    /// Whether there is such a hash.
    Hash,
    /// The string.
    Text,
    /// Whether there is such a string.
    Presence,
}

impl Question {
    /// How many commands it takes.
    pub(super) fn commands(&self) -> usize {
        match self {
            Question::Fields(_) => 2,
            Question::Hash | Question::Text | Question::Presence => 1,
        }
    }

    pub(super) fn write(&self, pipeline: &mut Pipeline, key: &str) {
        match self {
            Question::Fields(fields) => {
                pipeline.cmd("HMGET").arg(key).arg(fields).cmd("HLEN").arg(key);
            }
            Question::Hash => {
                pipeline.cmd("HLEN").arg(key);
            }
            Question::Text => {
                pipeline.cmd("GET").arg(key);
            }
            Question::Presence => {
                pipeline.cmd("TYPE").arg(key);
            }
        }
    }

    /// What kind of value a key must have.
    fn kind(&self) -> &'static str {
        match self {
            Question::Fields(_) | Question::Hash => "hash",
            Question::Text | Question::Presence => "string",
        }
    }

    /// What stands under a key, by the answers to its commands: a value for each column that is read, or the string;
    /// `None`: there is no such key.
    fn found<'v>(&self, answers: &'v [Value]) -> Result<Option<&'v [Value]>, Refusal<'v>> {
        for answer in answers {
            match answer {
                Value::ServerError(error) if error.code() == "WRONGTYPE" => {
                    return Err(Refusal::Kind(server_text(error)));
                }
                Value::ServerError(error) => return Err(Refusal::Server(error)),
                _ => {}
            }
        }
        match (self, answers) {
            (Question::Fields(_), [Value::Array(fields), Value::Int(length)]) => {
                let is_there = *length > 0 || fields.iter().any(|field| *field != Value::Nil);
                Ok(is_there.then_some(fields.as_slice()))
            }
            (Question::Hash, [Value::Int(length)]) => Ok((*length > 0).then_some(&[][..])),
            (Question::Text, [Value::Nil]) => Ok(None),
            (Question::Text, [value]) => Ok(Some(std::slice::from_ref(value))),
            (Question::Presence, [Value::SimpleString(kind)]) => match kind.as_str() {
                "none" => Ok(None),
                "string" => Ok(Some(&[])),
                kind => Err(Refusal::Kind(format!("it is of type {kind}"))),
            },
            (_, answers) => Err(Refusal::Unknown(answers)),
        }
    }
}

/// Why a key has no answer.
enum Refusal<'v> {
    /// The value is of another kind.
    Kind(String),
    Server(&'v ServerError),
    /// Nothing that Redis answers.
    Unknown(&'v [Value]),
}

/// Makes the answer to a request: `answers` holds those to the commands of each key, key after key; `read` are the columns
/// that were asked for, in their order.
pub(super) struct AnswerReader<'a> {
    pub connection: &'a RedisConnection,
    pub columns: &'a DocumentColumns,
    pub request: &'a LookupRequest,
    pub read: &'a [usize],
    pub question: &'a Question,
}

impl AnswerReader<'_> {
    /// A column for each field, or for the string.
    pub(super) fn fields(&self, keys: &[AskedKey], answers: &[Value]) -> Result<Answer, StoreError> {
        let schema = self.columns.schema();
        let fields = self.read.iter().map(|&column| schema.field(column)).collect::<Vec<_>>();
        let types = fields.iter().map(|field| PgType::of_field(field)).collect::<Result<Vec<_>>>()?;
        let mut builders = types.iter().map(ColumnBuilder::new).collect::<Vec<_>>();
        let mut key_of_row = Vec::with_capacity(keys.len());
        self.each(keys, answers, |key, values| {
            for (((builder, pg_type), field), value) in builders.iter_mut().zip(&types).zip(&fields).zip(values) {
                let appended = append(builder, pg_type, value).map_err(|error| in_column(field.name(), error));
                appended.map_err(|error| in_key(Error::from(error), key))?;
                if *value == Value::Nil && !field.is_nullable() {
                    let message = format!("column \"{}\" holds no value, but is declared not null", field.name());
                    return Err(StoreError::KeyRefused { message: format!("{}: {message}", shown(key)) });
                }
            }
            key_of_row.push(key.position);
            Ok(())
        })?;
        let arrays = builders.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(key_of_row.len()));
        let schema = schema.project(self.read).map_err(Error::from)?;
        let rows = RecordBatch::try_new_with_options(schema.into(), arrays, &options).map_err(Error::from)?;
        let answer = self.columns.answer(self.request, self.read, &rows, &UInt32Array::from(key_of_row))?;
        let mut room = AnswerRoom::new(self.request.max_answer_bytes);
        room.take(answer.key_of_row.len() as u64 * POSITION_BYTES)?;
        answer.rows.columns().iter().try_for_each(|column| room.take(column_bytes(column)))?;
        Ok(answer)
    }

    /// Columns by their paths in a JSON document.
    pub(super) fn documents(&self, keys: &[AskedKey], answers: &[Value]) -> Result<Answer, StoreError> {
        let mut rows = DocumentRows::try_new(self.columns, self.request, Matching::ByCaller)?;
        self.each(keys, answers, |key, values| {
            let Some(Value::BulkString(document)) = values.first() else {
                return Err(unknown(key, values));
            };
            let document = std::str::from_utf8(document).map_err(|_| in_key(not_utf8(), key))?;
            rows.append(key.position, document).map_err(|error| match error {
                StoreError::Invalid(error) if error.code() == Code::NotNullViolation => {
                    StoreError::KeyRefused { message: format!("{}: {}", shown(key), error.message()) }
                }
                StoreError::Invalid(error) => in_key(error, key),
                other => other,
            })
        })?;
        rows.finish()
    }

    /// Hands on what stands under each key that is there.
    fn each(
        &self,
        keys: &[AskedKey],
        answers: &[Value],
        mut take: impl FnMut(&AskedKey, &[Value]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for (key, answers) in keys.iter().zip(answers.chunks(self.question.commands())) {
            match self.question.found(answers) {
                Ok(Some(values)) => take(key, values)?,
                Ok(None) => {}
                Err(Refusal::Kind(reason)) => {
                    let message = format!("the value of {} is no {}: {reason}", shown(key), self.question.kind());
                    return Err(StoreError::KeyRefused { message });
                }
                Err(Refusal::Server(error)) => return Err(self.connection.refusal(error)),
                Err(Refusal::Unknown(answers)) => return Err(unknown(key, answers)),
            }
        }
        Ok(())
    }
}

/// Text is read as PostgreSQL reads it; a bytea is the bytes themselves, as Redis knows nothing else.
fn append(builder: &mut ColumnBuilder, pg_type: &PgType, value: &Value) -> Result<(), ValueError> {
    let bytes = match value {
        Value::BulkString(bytes) => bytes,
        Value::Nil => {
            builder.append_null();
            return Ok(());
        }
        other => return Err(ValueError::new(Code::StoreFailed, format!("unexpected value {other:?}"))),
    };
    match pg_type {
        PgType::Bytea => builder.push(Some(text::Value::Bytes(bytes.clone()))),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => builder.append(text),
            Err(_) => Err(ValueError::new(Code::CharacterNotInRepertoire, NOT_UTF8)),
        },
    }
}

const NOT_UTF8: &str = "invalid byte sequence for encoding \"UTF8\"";

fn not_utf8() -> Error {
    Error::new(Code::CharacterNotInRepertoire, NOT_UTF8)
}

fn in_key(error: Error, key: &AskedKey) -> StoreError {
    StoreError::Invalid(error.with_context(shown(key)))
}

fn unknown(key: &AskedKey, answers: &[Value]) -> StoreError {
    let kinds = answers.len();
    StoreError::Failed {
        message: format!("{} was answered with {kinds} values that Redis does not give", shown(key)),
        sqlstate: None,
    }
}

fn shown(key: &AskedKey) -> String {
    format!("key \"{}\"", excerpt(&key.text))
}
