//! JSON objects, one a line, as rows of declared columns.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use serde_json::value::RawValue;

use crate::error::{Code, Result};
use crate::format::json_path::{JsonPath, Selection};
use crate::format::row::RowBuilder;
use crate::format::settings::ValueSettings;
use crate::format::text::{self, Value, ValueError, excerpt};
use crate::pg_type::PgType;

/// Reads objects by the names of their fields: unknown ones are passed over, of repeated ones the last counts,
/// missing ones are NULL. Numbers keep all of their digits, as they are read from their text.
pub struct JsonDecoder {
    rows: RowBuilder,
    selection: Selection,
}

impl JsonDecoder {
    /// Each column is the field of its name.
    ///
    /// # Errors
    /// 0A000 for a column of an Arrow type that no type of PostgreSQL stands for.
    pub fn try_new(schema: &SchemaRef) -> Result<Self> {
        let paths = schema.fields().iter().map(|field| JsonPath::member(field.name())).collect::<Vec<_>>();
        JsonDecoder::with_paths(schema, &paths)
    }

    /// Each column is what its path leads to.
    ///
    /// # Errors
    /// As [`JsonDecoder::try_new`].
    pub fn with_paths(schema: &SchemaRef, paths: &[JsonPath]) -> Result<Self> {
        Ok(JsonDecoder { rows: RowBuilder::try_new(schema)?, selection: Selection::new(paths) })
    }

    /// Appends the row that `line` holds.
    ///
    /// # Errors
    /// The reason, with the name of the column; nothing has been appended then.
    pub fn append(&mut self, line: &str) -> Result<(), ValueError> {
        let raw = self.fields(line)?;
        let mut values = Vec::with_capacity(raw.len());
        for ((raw, pg_type), field) in raw.iter().zip(self.rows.types()).zip(self.rows.schema().fields()) {
            let value = match raw {
                Some(raw) => value(pg_type, raw.get()).map_err(|error| in_column(field.name(), error))?,
                None => None,
            };
            values.push(value);
        }
        self.rows.append(values, line.len())
    }

    /// Rows since the last [`JsonDecoder::finish`].
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the batch should be taken before more rows come: it holds 8192 rows, or 16 MiB of input.
    pub fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// The rows since the last call; the decoder can be used again.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        self.rows.finish()
    }

    fn fields<'a>(&self, line: &'a str) -> Result<Vec<Option<&'a RawValue>>, ValueError> {
        let malformed = |message: String| ValueError::new(Code::InvalidTextRepresentation, message);
        if !line.trim_start().starts_with('{') {
            return Err(malformed(format!("expected a JSON object, found \"{}\"", excerpt(line.trim()))));
        }
        self.selection.select(line).map_err(|error| {
            // serde_json counts lines too, and ours is always its first.
            let text = error.to_string();
            let reason = text.split(" at line ").next().unwrap_or(&text);
            malformed(format!("invalid JSON at byte {}: {reason}", error.column()))
        })
    }
}

pub(crate) fn in_column(name: &str, error: ValueError) -> ValueError {
    // A malformed row is 22P02, whatever is malformed in it.
    let code = match error.code {
        Code::InvalidDatetimeFormat => Code::InvalidTextRepresentation,
        code => code,
    };
    ValueError { code, message: format!("column \"{name}\": {}", error.message) }
}

/// The value of a JSON value's text, which is known to be well formed. `None` is NULL.
fn value<'a>(pg_type: &PgType, raw: &'a str) -> Result<Option<Value<'a>>, ValueError> {
    if raw == "null" {
        return Ok(None);
    }
    let kind = match raw.as_bytes().first() {
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "boolean",
        _ => "number",
    };
    let value = match (pg_type, kind) {
        (PgType::Json | PgType::Jsonb, _) => parse(pg_type, raw)?,
        (PgType::Bool, "boolean") => Value::Bool(raw == "true"),
        (
            PgType::Int2
            | PgType::Int4
            | PgType::Int8
            | PgType::Oid
            | PgType::Float4
            | PgType::Float8
            | PgType::Numeric { .. },
            "number",
        ) => parse(pg_type, raw)?,
        (
            PgType::Text
            | PgType::Name
            | PgType::Char
            | PgType::Numeric { .. }
            | PgType::Date
            | PgType::Time
            | PgType::Timestamp
            | PgType::Timestamptz
            | PgType::Uuid
            | PgType::Bytea
            | PgType::Interval,
            "string",
        ) => string_value(pg_type, raw)?,
        (PgType::Array(element), "array") => array_value(element, raw)?,
        _ => {
            return Err(ValueError::new(
                Code::InvalidTextRepresentation,
                format!("a JSON {kind} cannot be read as type {pg_type}: {}", excerpt(raw)),
            ));
        }
    };
    Ok(Some(value))
}

/// Files say nothing of settings: times without a zone are of UTC.
fn parse<'a>(pg_type: &PgType, text: &'a str) -> Result<Value<'a>, ValueError> {
    text::parse(pg_type, text, &ValueSettings::default())
}

fn string_value<'a>(pg_type: &PgType, raw: &'a str) -> Result<Value<'a>, ValueError> {
    if !raw.contains('\\') {
        return parse(pg_type, raw.trim_matches('"'));
    }
    let unescaped = serde_json::from_str::<String>(raw).map_err(|_| not_text(raw))?;
    Ok(parse(pg_type, &unescaped)?.into_owned())
}

fn array_value<'a>(element: &PgType, raw: &'a str) -> Result<Value<'a>, ValueError> {
    let elements = serde_json::from_str::<Vec<&RawValue>>(raw).map_err(|_| not_text(raw))?;
    Ok(Value::List(elements.into_iter().map(|raw| value(element, raw.get())).collect::<Result<_, _>>()?))
}

/// JSON's grammar allows escapes that stand for no character: half of a surrogate pair.
fn not_text(raw: &str) -> ValueError {
    ValueError::new(Code::InvalidTextRepresentation, format!("invalid escape in the JSON text {}", excerpt(raw)))
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
