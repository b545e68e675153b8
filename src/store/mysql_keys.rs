//! Keys as one parameter: a JSON array, which the server's `JSON_TABLE` takes apart.
//!
//! A key that the column's type cannot hold (text with a zero byte, a day outside of the server's calendar) equals no value
//! of the column. It goes as null, which finds nothing, rather than fail its neighbours.

use std::io::Write;

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use datafusion::arrow::datatypes as arrow;
use uuid::Uuid;

use super::mysql_column::{KeyForm, MysqlColumn};
use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;

/// A column's keys, of its own type.
pub(super) struct Keys<'a> {
    pub(super) column: &'a MysqlColumn,
    pub(super) form: &'a KeyForm,
    pub(super) values: &'a ArrayRef,
}

impl Keys<'_> {
    /// # Errors
    /// Internal if the keys are not of the column's type.
    pub(super) fn check(&self) -> Result<()> {
        let expected = self.column.pg_type.arrow();
        if *self.values.data_type() == expected {
            return Ok(());
        }
        Err(Error::internal(format!("keys for {expected} came as {}", self.values.data_type())))
    }

    /// The most characters that one of them has as JSON's text.
    pub(super) fn longest(&self) -> usize {
        match (self.form, self.values.data_type()) {
            (KeyForm::Text { .. } | KeyForm::Native, _) => {
                // Bytes, since a character has at least one.
                self.values.as_string_view().lengths().max().unwrap_or_default() as usize
            }
            (KeyForm::Bytes, arrow::DataType::Binary) => {
                2 * self.values.as_binary::<i32>().iter().flatten().map(<[u8]>::len).max().unwrap_or_default()
            }
            // A uuid of 16 bytes, or text that is compared as bytes.
            (KeyForm::Bytes, _) => 2 * self.values.as_string_view().lengths().max().unwrap_or_default() as usize,
            (_, _) => 0,
        }
    }

    fn write(&self, row: usize, json: &mut Vec<u8>) -> Result<()> {
        let start = json.len();
        if self.put(row, json)?.is_none() {
            json.truncate(start);
            json.extend_from_slice(b"null");
        }
        Ok(())
    }

    /// `None` if the server's type cannot hold the key.
    fn put(&self, row: usize, json: &mut Vec<u8>) -> Result<Option<()>> {
        Ok(match self.form {
            KeyForm::Signed | KeyForm::Year => self.integer(row).map(|value| number(json, value)),
            KeyForm::Unsigned => {
                let digits = self.decimal(row);
                digits.and_then(|digits| digits.parse::<u64>().ok()).map(|value| number(json, value))
            }
            KeyForm::Decimal { .. } => self.decimal(row).map(|digits| quoted(json, &digits)),
            KeyForm::Float => {
                self.float(row).filter(|value| value.is_finite()).map(|value| quoted(json, &format!("{value:e}")))
            }
            KeyForm::Text { .. } | KeyForm::Native => {
                let text = self.values.as_string_view().value(row);
                return if text.contains('\0') { Ok(None) } else { string(json, text).map(Some) };
            }
            KeyForm::Bytes => {
                hexadecimal(json, &self.bytes(row)?);
                Some(())
            }
            KeyForm::Bits { bytes: expected } => {
                let bytes = self.values.as_binary::<i32>().value(row);
                let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
                (bytes.len() == *expected).then(|| number(json, value))
            }
            KeyForm::Date => {
                let days = self.values.as_primitive::<arrow::Date32Type>().value(row);
                let date = NaiveDate::from_epoch_days(days).filter(|date| (1..=9999).contains(&date.year()));
                date.map(|date| quoted(json, &date.format("%Y-%m-%d").to_string()))
            }
            KeyForm::Time => {
                let micros = self.values.as_primitive::<arrow::Time64MicrosecondType>().value(row);
                let time = DateTime::from_timestamp_micros(micros);
                time.map(|time| quoted(json, &time.format("%H:%M:%S%.6f").to_string()))
            }
            KeyForm::Moment => {
                let micros = self.values.as_primitive::<arrow::TimestampMicrosecondType>().value(row);
                let moment =
                    DateTime::from_timestamp_micros(micros).filter(|moment| (1..=9999).contains(&moment.year()));
                moment.map(|moment| quoted(json, &moment.format("%Y-%m-%d %H:%M:%S%.6f").to_string()))
            }
        })
    }

    fn integer(&self, row: usize) -> Option<i64> {
        match self.values.data_type() {
            arrow::DataType::Boolean => Some(i64::from(self.values.as_boolean().value(row))),
            arrow::DataType::Int16 => Some(i64::from(self.values.as_primitive::<arrow::Int16Type>().value(row))),
            arrow::DataType::Int32 => Some(i64::from(self.values.as_primitive::<arrow::Int32Type>().value(row))),
            arrow::DataType::Int64 => Some(self.values.as_primitive::<arrow::Int64Type>().value(row)),
            _ => None,
        }
    }

    fn decimal(&self, row: usize) -> Option<String> {
        match self.values.data_type() {
            arrow::DataType::Decimal128(_, _) => {
                Some(self.values.as_primitive::<arrow::Decimal128Type>().value_as_string(row))
            }
            arrow::DataType::Decimal256(_, _) => {
                Some(self.values.as_primitive::<arrow::Decimal256Type>().value_as_string(row))
            }
            _ => self.integer(row).map(|value| value.to_string()),
        }
    }

    /// A float of 4 bytes is what it is as one of 8, in which the server compares both.
    fn float(&self, row: usize) -> Option<f64> {
        match self.values.data_type() {
            arrow::DataType::Float32 => Some(f64::from(self.values.as_primitive::<arrow::Float32Type>().value(row))),
            arrow::DataType::Float64 => Some(self.values.as_primitive::<arrow::Float64Type>().value(row)),
            _ => None,
        }
    }

    fn bytes(&self, row: usize) -> Result<Vec<u8>> {
        match (&self.column.pg_type, self.values.data_type()) {
            (_, arrow::DataType::Binary) => Ok(self.values.as_binary::<i32>().value(row).to_vec()),
            (PgType::Uuid, _) => {
                let text = self.values.as_string_view().value(row);
                let uuid = Uuid::try_parse(text).map_err(|_| {
                    Error::new(
                        Code::InvalidTextRepresentation,
                        format!("invalid input syntax for type uuid: \"{text}\""),
                    )
                })?;
                Ok(uuid.as_bytes().to_vec())
            }
            (_, _) => Ok(self.values.as_string_view().value(row).as_bytes().to_vec()),
        }
    }
}

/// The keys in the order of `order`: of one column its values, of several a list for each key.
pub(super) fn to_json(columns: &[Keys<'_>], order: &UInt32Array) -> Result<Vec<u8>> {
    let mut json = Vec::with_capacity(order.len() * columns.len() * 12 + 2);
    json.push(b'[');
    for (i, row) in order.values().iter().enumerate() {
        if i > 0 {
            json.push(b',');
        }
        match columns {
            [keys] => keys.write(*row as usize, &mut json)?,
            columns => {
                for (column, keys) in columns.iter().enumerate() {
                    json.push(if column == 0 { b'[' } else { b',' });
                    keys.write(*row as usize, &mut json)?;
                }
                json.push(b']');
            }
        }
    }
    json.push(b']');
    Ok(json)
}

fn number(json: &mut Vec<u8>, value: impl itoa::Integer) {
    json.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A text without a character that JSON writes otherwise.
fn quoted(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}

fn string(json: &mut Vec<u8>, text: &str) -> Result<()> {
    serde_json::to_writer(json, text).map_err(|error| Error::internal(format!("a key is no JSON: {error}")))
}

fn hexadecimal(json: &mut Vec<u8>, bytes: &[u8]) {
    json.push(b'"');
    for byte in bytes {
        // Writing into memory cannot fail.
        let _ = write!(json, "{byte:02x}");
    }
    json.push(b'"');
}
