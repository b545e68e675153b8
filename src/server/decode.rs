//! From the parameters of a Bind message, in text and in binary form, to values of DataFusion.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::scalar::ScalarValue;

use crate::error::{Code, Error, Result};
use crate::format::binary;
use crate::format::text::{self, ColumnBuilder, Value};
use crate::pg_type::PgType;
use crate::server::decode_array::{array_of_binary, array_of_text};
use crate::server::encode::{Format, ValueSettings};
use crate::server::numeric::ParsedNumeric;

/// Reads a parameter of type `pg_type`; `None` is NULL.
///
/// A numeric becomes a decimal of the type's precision and scale if that holds it exactly, else (and for
/// [`crate::pg_type::PLAIN_NUMERIC`] always) of its own.
///
/// # Errors
/// 22P02 for text that is not of the type, 22003 and 22008 for values out of range, 22P03 for binary of a wrong form.
pub fn decode_parameter(
    bytes: Option<&[u8]>,
    format: Format,
    pg_type: &PgType,
    settings: ValueSettings,
) -> Result<ScalarValue> {
    let Some(bytes) = bytes else { return Ok(ScalarValue::try_from(pg_type.arrow())?) };
    match format {
        Format::Text => decode_text(utf8(bytes)?, pg_type, settings),
        Format::Binary => decode_binary(bytes, pg_type),
    }
}

pub(super) fn decode_text(text: &str, pg_type: &PgType, settings: ValueSettings) -> Result<ScalarValue> {
    match pg_type {
        PgType::Numeric { .. } => ParsedNumeric::of_text(text)?.into_scalar(pg_type),
        PgType::Array(element) if matches!(**element, PgType::Numeric { .. }) => array_of_text(text, element),
        _ => scalar_of(text::parse(pg_type, text, &settings)?, pg_type),
    }
}

pub(super) fn decode_binary(bytes: &[u8], pg_type: &PgType) -> Result<ScalarValue> {
    match pg_type {
        PgType::Numeric { .. } => ParsedNumeric::of_binary(bytes)?.into_scalar(pg_type),
        PgType::Array(element) if matches!(**element, PgType::Numeric { .. }) => array_of_binary(bytes, element),
        _ => scalar_of(binary::parse(pg_type, bytes)?, pg_type),
    }
}

/// The one value of a column that holds nothing else.
fn scalar_of(value: Value<'_>, pg_type: &PgType) -> Result<ScalarValue> {
    let mut builder = ColumnBuilder::new(pg_type);
    builder.push(Some(value))?;
    let array = builder.finish();
    // Taken out of its array, a list would forget what its elements are.
    match array.as_list_opt::<i32>() {
        Some(list) => Ok(ScalarValue::List(Arc::new(list.clone()))),
        None => Ok(ScalarValue::try_from_array(&array, 0)?),
    }
}

/// # Errors
/// 22021 for bytes that are no UTF-8, and for the one character that PostgreSQL's text does not hold.
fn utf8(bytes: &[u8]) -> Result<&str> {
    let invalid = |byte: u8| {
        let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}");
        Error::new(Code::CharacterNotInRepertoire, message)
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|error| invalid(bytes.get(error.valid_up_to()).copied().unwrap_or_default()))?;
    match text.contains('\0') {
        true => Err(invalid(0)),
        false => Ok(text),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
