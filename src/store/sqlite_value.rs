//! Values between Arrow and SQLite, which has integers, floats, texts and blobs.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef};
use rusqlite::Row;
use rusqlite::types::{Value as Stored, ValueRef};

use super::memory_table::batch_of;
use super::size::{bytea_bytes, text_bytes};
use super::sqlite_connection::failure;
use super::sqlite_schema::SqliteColumn;
use super::template::key_texts;
use super::{StoreError, memory_index::comparable};
use crate::error::{Error, Result};
use crate::format::settings::ValueSettings;
use crate::format::text::{ColumnBuilder, Value, ValueError, excerpt, parse};
use crate::pg_type::PgType;

/// The integers that a float holds without loss.
const EXACT_INTEGERS: std::ops::RangeInclusive<i64> = -(1 << 53)..=1 << 53;

/// Keys as SQLite holds such values: what it has no kind for as PostgreSQL's text of it.
pub(super) fn stored_keys(keys: &ArrayRef, pg_type: &PgType) -> Result<Vec<Stored>> {
    if *keys.data_type() != pg_type.arrow() {
        return Err(Error::internal(format!("keys for {pg_type} came as {}", keys.data_type())));
    }
    let rows = 0..keys.len();
    Ok(match pg_type {
        PgType::Bool => rows.map(|row| Stored::Integer(keys.as_boolean().value(row).into())).collect(),
        PgType::Int2 => rows.map(|row| Stored::Integer(keys.as_primitive::<Int16Type>().value(row).into())).collect(),
        PgType::Int4 => rows.map(|row| Stored::Integer(keys.as_primitive::<Int32Type>().value(row).into())).collect(),
        PgType::Int8 => rows.map(|row| Stored::Integer(keys.as_primitive::<Int64Type>().value(row))).collect(),
        PgType::Float8 => {
            let keys = comparable(keys, pg_type)?;
            let keys = keys.as_primitive::<Float64Type>();
            // SQLite holds no NaN: it becomes NULL, which finds nothing.
            rows.map(|row| Stored::Real(keys.value(row))).collect()
        }
        PgType::Text | PgType::Name | PgType::Char => {
            let keys = keys.as_string_view();
            rows.map(|row| Stored::Text(keys.value(row).to_string())).collect()
        }
        PgType::Bytea => rows.map(|row| Stored::Blob(keys.as_binary::<i32>().value(row).to_vec())).collect(),
        _ => {
            let texts = key_texts(keys, pg_type)?;
            rows.map(|row| Stored::Text(texts.value(row).to_string())).collect()
        }
    })
}

/// Rows on their way into arrays.
pub(super) struct RowDecoder {
    columns: Vec<(SqliteColumn, ColumnBuilder)>,
    schema: SchemaRef,
}

impl RowDecoder {
    /// `positions` are those of `columns` in the table's schema.
    pub(super) fn new(columns: Vec<SqliteColumn>, schema: &SchemaRef, positions: &[usize]) -> Result<Self> {
        let builder = |column: SqliteColumn| {
            let builder = ColumnBuilder::new(&column.pg_type);
            (column, builder)
        };
        Ok(RowDecoder {
            columns: columns.into_iter().map(builder).collect(),
            schema: Arc::new(schema.project(positions)?),
        })
    }

    /// Takes the values of a row from its column `first` on; returns the bytes that they take in the answer.
    ///
    /// # Errors
    /// A data error that names the column, for a value that is not of its type.
    pub(super) fn append(&mut self, row: &Row<'_>, first: usize) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for (place, (column, builder)) in self.columns.iter_mut().enumerate() {
            let stored = row.get_ref(first + place).map_err(|error| failure(&error))?;
            bytes += stored_bytes(&stored);
            let read = value(&column.pg_type, stored).and_then(|value| builder.push(value));
            read.map_err(|error| Error::from(error).with_context(format!("column \"{}\"", column.name)))?;
        }
        Ok(bytes)
    }

    /// The rows since the last call.
    pub(super) fn finish(&mut self, rows: usize) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(|(_, builder)| builder.finish()).collect();
        batch_of(Arc::clone(&self.schema), arrays, rows)
    }
}

fn stored_bytes(stored: &ValueRef<'_>) -> u64 {
    match stored {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(text) => text_bytes(text.len()),
        ValueRef::Blob(blob) => bytea_bytes(blob.len()),
    }
}

/// The value as one of the column's type; never another one.
fn value<'a>(pg_type: &PgType, stored: ValueRef<'a>) -> Result<Option<Value<'a>>, ValueError> {
    let wrong = |kind: &str, shown: &str| {
        let message = format!("{kind} cannot be read as type {pg_type}: {}", excerpt(shown));
        ValueError::new(crate::error::Code::InvalidTextRepresentation, message)
    };
    let of_text = |text: &str| parse(pg_type, text, &ValueSettings::default()).map(Value::into_owned);
    Ok(Some(match (stored, pg_type) {
        (ValueRef::Null, _) => return Ok(None),
        (ValueRef::Integer(value), PgType::Int8) => Value::Int8(value),
        (ValueRef::Integer(value), PgType::Bool) if value == 0 || value == 1 => Value::Bool(value == 1),
        (ValueRef::Integer(value), PgType::Float8) if EXACT_INTEGERS.contains(&value) => Value::Float8(value as f64),
        // SQLite makes numbers of texts that look like them, in columns whose declared type it does not know.
        (ValueRef::Integer(value), PgType::Json | PgType::Jsonb) => Value::Text(Cow::Owned(value.to_string())),
        (ValueRef::Real(value), PgType::Json | PgType::Jsonb) if value.is_finite() => {
            Value::Text(Cow::Owned(value.to_string()))
        }
        (ValueRef::Integer(value), PgType::Int2 | PgType::Int4 | PgType::Numeric { .. } | PgType::Oid) => {
            of_text(&value.to_string())?
        }
        (ValueRef::Integer(value), _) => return Err(wrong("an integer", &value.to_string())),
        (ValueRef::Real(value), PgType::Float8) => Value::Float8(value),
        // The shortest digits that tell it apart are what was written.
        (ValueRef::Real(value), PgType::Numeric { .. } | PgType::Float4) => of_text(&value.to_string())?,
        (ValueRef::Real(value), _) => return Err(wrong("a float", &value.to_string())),
        (ValueRef::Text(text), pg_type) => {
            let text = std::str::from_utf8(text).map_err(|_| wrong("a text that is not UTF-8", ""))?;
            match pg_type {
                PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Float8 | PgType::Float4 | PgType::Bytea => {
                    return Err(wrong("a text", text));
                }
                PgType::Text if !text.contains('\0') => Value::Text(Cow::Borrowed(text)),
                _ => of_text(text)?,
            }
        }
        (ValueRef::Blob(blob), PgType::Bytea) => Value::Bytes(blob.to_vec()),
        (ValueRef::Blob(blob), _) => return Err(wrong("a blob", &format!("{} bytes", blob.len()))),
    }))
}
