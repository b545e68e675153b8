//! From the parameters of a Bind message, in text and in binary form, to values of DataFusion.

use datafusion::arrow::datatypes::IntervalMonthDayNano;
use datafusion::scalar::ScalarValue;

use crate::error::{Code, Error, Result};
use crate::format::{interval, literal, number};
use crate::pg_type::{PgType, UTC};
use crate::server::decode_array::{array_of_binary, array_of_text};
use crate::server::decode_text;
use crate::server::decode_time;
use crate::server::encode::{Format, ValueSettings};
use crate::server::encode_time::{DAYS_TO_2000, Interval, MICROS_PER_DAY, micros_since_1970, out_of_range};
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
    let invalid = || decode_text::invalid(pg_type, text);
    Ok(match pg_type {
        PgType::Bool => ScalarValue::Boolean(Some(decode_text::boolean(text).ok_or_else(invalid)?)),
        PgType::Int2 => ScalarValue::Int16(Some(decode_text::integer(text, pg_type)?)),
        PgType::Int4 => ScalarValue::Int32(Some(decode_text::integer(text, pg_type)?)),
        PgType::Int8 => ScalarValue::Int64(Some(decode_text::integer(text, pg_type)?)),
        PgType::Float4 => ScalarValue::Float32(Some(decode_text::float(text, pg_type)?)),
        PgType::Float8 => ScalarValue::Float64(Some(decode_text::float(text, pg_type)?)),
        PgType::Numeric { .. } => ParsedNumeric::of_text(text)?.into_scalar(pg_type)?,
        PgType::Text => ScalarValue::Utf8View(Some(text.to_string())),
        PgType::Bytea => ScalarValue::Binary(Some(decode_text::bytea(text)?)),
        PgType::Date => date(decode_time::date(text)?)?,
        PgType::Time => ScalarValue::Time64Microsecond(Some(decode_time::time(text)?)),
        PgType::Timestamp => ScalarValue::TimestampMicrosecond(Some(decode_time::timestamp(text)?), None),
        PgType::Timestamptz => timestamptz(decode_time::timestamptz(text, settings.time_zone)?),
        PgType::Interval => ScalarValue::IntervalMonthDayNano(Some(interval::interval(text)?)),
        PgType::Uuid => ScalarValue::Utf8View(Some(decode_text::uuid(text).ok_or_else(invalid)?)),
        PgType::Json | PgType::Jsonb => ScalarValue::Utf8View(Some(decode_text::json(text, pg_type)?)),
        PgType::Name => ScalarValue::Utf8View(Some(literal::name(text)?.to_string())),
        PgType::Char => ScalarValue::Utf8View(Some(literal::single_byte(text)?.to_string())),
        PgType::Oid => ScalarValue::UInt32(Some(number::oid(text)?)),
        PgType::Array(element) => array_of_text(text, element, settings)?,
    })
}

pub(super) fn decode_binary(bytes: &[u8], pg_type: &PgType) -> Result<ScalarValue> {
    Ok(match pg_type {
        PgType::Bool => ScalarValue::Boolean(Some(fixed::<1>(bytes, pg_type)? != [0])),
        PgType::Int2 => ScalarValue::Int16(Some(i16::from_be_bytes(fixed(bytes, pg_type)?))),
        PgType::Int4 => ScalarValue::Int32(Some(i32::from_be_bytes(fixed(bytes, pg_type)?))),
        PgType::Int8 => ScalarValue::Int64(Some(i64::from_be_bytes(fixed(bytes, pg_type)?))),
        PgType::Float4 => ScalarValue::Float32(Some(f32::from_be_bytes(fixed(bytes, pg_type)?))),
        PgType::Float8 => ScalarValue::Float64(Some(f64::from_be_bytes(fixed(bytes, pg_type)?))),
        PgType::Numeric { .. } => ParsedNumeric::of_binary(bytes)?.into_scalar(pg_type)?,
        PgType::Text | PgType::Name | PgType::Char => ScalarValue::Utf8View(Some(utf8(bytes)?.to_string())),
        PgType::Oid => ScalarValue::UInt32(Some(u32::from_be_bytes(fixed(bytes, pg_type)?))),
        PgType::Bytea => ScalarValue::Binary(Some(bytes.to_vec())),
        PgType::Date => date(finite_date(i32::from_be_bytes(fixed(bytes, pg_type)?))?)?,
        PgType::Time => {
            let micros = i64::from_be_bytes(fixed(bytes, pg_type)?);
            if !(0..=MICROS_PER_DAY).contains(&micros) {
                return Err(out_of_range("time"));
            }
            ScalarValue::Time64Microsecond(Some(micros))
        }
        PgType::Timestamp => ScalarValue::TimestampMicrosecond(Some(finite_timestamp(fixed(bytes, pg_type)?)?), None),
        PgType::Timestamptz => timestamptz(finite_timestamp(fixed(bytes, pg_type)?)?),
        PgType::Interval => {
            let [a, b, c, d, e, f, g, h, days @ .., i, j, k, l] = fixed::<16>(bytes, pg_type)?;
            interval_of(Interval {
                months: i32::from_be_bytes([i, j, k, l]),
                days: i32::from_be_bytes(days),
                micros: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            })?
        }
        PgType::Uuid => {
            let uuid = uuid::Uuid::from_bytes(fixed(bytes, pg_type)?);
            ScalarValue::Utf8View(Some(uuid.hyphenated().to_string()))
        }
        PgType::Json => ScalarValue::Utf8View(Some(decode_text::json(utf8(bytes)?, pg_type)?)),
        PgType::Jsonb => match bytes.split_first() {
            Some((1, json)) => ScalarValue::Utf8View(Some(decode_text::json(utf8(json)?, pg_type)?)),
            Some((version, _)) => {
                return Err(Error::new(
                    Code::InvalidBinaryRepresentation,
                    format!("unsupported jsonb version number {version}"),
                ));
            }
            None => return Err(malformed(pg_type, bytes)),
        },
        PgType::Array(element) => array_of_binary(bytes, element)?,
    })
}

/// Exactly `N` bytes.
fn fixed<const N: usize>(bytes: &[u8], pg_type: &PgType) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| malformed(pg_type, bytes))
}

pub(super) fn malformed(pg_type: &PgType, bytes: &[u8]) -> Error {
    Error::new(Code::InvalidBinaryRepresentation, format!("incorrect binary data format for type {pg_type}"))
        .with_detail(format!("The value has {} bytes.", bytes.len()))
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    let invalid = |byte: u8| {
        let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}");
        Error::new(Code::InvalidTextRepresentation, message)
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|error| invalid(bytes.get(error.valid_up_to()).copied().unwrap_or_default()))?;
    // PostgreSQL's text holds every character but this one.
    match text.contains('\0') {
        true => Err(invalid(0)),
        false => Ok(text),
    }
}

/// From days since 1970.
fn date(days: i64) -> Result<ScalarValue> {
    let days = i32::try_from(days).map_err(|_| out_of_range("date"))?;
    Ok(ScalarValue::Date32(Some(days)))
}

fn timestamptz(micros: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(micros), Some(UTC.into()))
}

fn interval_of(interval: Interval) -> Result<ScalarValue> {
    let nanos = interval.micros.checked_mul(1000).ok_or_else(|| out_of_range("interval"))?;
    Ok(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(interval.months, interval.days, nanos))))
}

/// From days since 2000 to those since 1970. The outermost values are PostgreSQL's infinities, which Arrow lacks.
fn finite_date(days: i32) -> Result<i64> {
    match days {
        i32::MIN | i32::MAX => Err(decode_time::infinite("date")),
        days => Ok(i64::from(days) + DAYS_TO_2000),
    }
}

/// From microseconds since 2000 to those since 1970, with the same infinities.
fn finite_timestamp(bytes: [u8; 8]) -> Result<i64> {
    match i64::from_be_bytes(bytes) {
        i64::MIN | i64::MAX => Err(decode_time::infinite("timestamp")),
        micros => micros_since_1970(micros),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
