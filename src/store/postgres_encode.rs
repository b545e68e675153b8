//! Keys as array parameters, in PostgreSQL's binary format.
//!
//! A key that the column's type cannot hold (text with a zero byte, a moment outside of PostgreSQL's calendar)
//! equals no value of the column. It goes as NULL, which finds nothing, rather than fail its neighbours.

use bytes::BytesMut;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes as arrow;
use tokio_postgres::types::{IsNull, ToSql, Type};
use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;

/// Days and microseconds from Arrow's epoch, 1970, to PostgreSQL's, 2000.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The days and moments that PostgreSQL has, from 4714-11-24 BC, counted from its epoch; see `datatype/timestamp.h`.
const DAYS: std::ops::Range<i64> = -2_451_545..2_145_031_949;
const MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// A value ready to be sent.
#[derive(Debug)]
pub(super) struct Parameter {
    array_type: Type,
    bytes: Vec<u8>,
}

impl Parameter {
    /// A single text.
    pub(super) fn text(value: &str) -> Parameter {
        Parameter { array_type: Type::TEXT, bytes: value.as_bytes().to_vec() }
    }

    /// A single bigint.
    pub(super) fn bigint(value: i64) -> Parameter {
        Parameter { array_type: Type::INT8, bytes: value.to_be_bytes().to_vec() }
    }

    /// All of `keys` as one array. Types without a simple binary form go as texts, which the statement casts.
    ///
    /// # Errors
    /// 22P02 for a uuid that is none; internal if `keys` are not of the column's type.
    pub(super) fn keys(keys: &ArrayRef, pg_type: &PgType) -> Result<Parameter> {
        if *keys.data_type() != pg_type.arrow() {
            return Err(Error::internal(format!("keys for {pg_type} came as {}", keys.data_type())));
        }
        match pg_type {
            PgType::Bool => {
                let keys = keys.as_boolean();
                array(Type::BOOL_ARRAY, Type::BOOL, keys.len(), |i, out| put(out, &[u8::from(keys.value(i))]))
            }
            PgType::Int2 => {
                let keys = keys.as_primitive::<arrow::Int16Type>().values();
                array(Type::INT2_ARRAY, Type::INT2, keys.len(), |i, out| put(out, &keys[i].to_be_bytes()))
            }
            PgType::Int4 => {
                let keys = keys.as_primitive::<arrow::Int32Type>().values();
                array(Type::INT4_ARRAY, Type::INT4, keys.len(), |i, out| put(out, &keys[i].to_be_bytes()))
            }
            PgType::Int8 => {
                let keys = keys.as_primitive::<arrow::Int64Type>().values();
                array(Type::INT8_ARRAY, Type::INT8, keys.len(), |i, out| put(out, &keys[i].to_be_bytes()))
            }
            PgType::Float4 => {
                let keys = keys.as_primitive::<arrow::Float32Type>().values();
                array(Type::FLOAT4_ARRAY, Type::FLOAT4, keys.len(), |i, out| put(out, &keys[i].to_be_bytes()))
            }
            PgType::Float8 => {
                let keys = keys.as_primitive::<arrow::Float64Type>().values();
                array(Type::FLOAT8_ARRAY, Type::FLOAT8, keys.len(), |i, out| put(out, &keys[i].to_be_bytes()))
            }
            PgType::Numeric { precision, .. } if *precision <= 38 => {
                let keys = keys.as_primitive::<arrow::Decimal128Type>();
                texts(keys.len(), |i, out| put(out, keys.value_as_string(i).as_bytes()))
            }
            PgType::Numeric { .. } => {
                let keys = keys.as_primitive::<arrow::Decimal256Type>();
                texts(keys.len(), |i, out| put(out, keys.value_as_string(i).as_bytes()))
            }
            PgType::Oid => {
                let keys = keys.as_primitive::<arrow::UInt32Type>().values();
                array(Type::OID_ARRAY, Type::OID, keys.len(), |i, out| put(out, &keys[i].to_be_bytes()))
            }
            PgType::Text | PgType::Jsonb | PgType::Name | PgType::Char => {
                let keys = keys.as_string_view();
                texts(keys.len(), |i, out| put_text(out, keys.value(i)))
            }
            PgType::Bytea => {
                let keys = keys.as_binary::<i32>();
                array(Type::BYTEA_ARRAY, Type::BYTEA, keys.len(), |i, out| put(out, keys.value(i)))
            }
            PgType::Uuid => {
                let keys = keys.as_string_view();
                array(Type::UUID_ARRAY, Type::UUID, keys.len(), |i, out| put_uuid(out, keys.value(i)))
            }
            PgType::Date | PgType::Time | PgType::Timestamp | PgType::Timestamptz | PgType::Interval => {
                moments(keys, pg_type)
            }
            PgType::Json | PgType::Array(_) => {
                Err(Error::unsupported(format!("a column of type {pg_type} cannot be a key")))
            }
        }
    }

    /// The type that the statement declares for it.
    pub(super) fn array_type(&self) -> Type {
        self.array_type.clone()
    }
}

impl ToSql for Parameter {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

/// Whether a key became a value.
enum Put {
    Value,
    Null,
}

fn moments(keys: &ArrayRef, pg_type: &PgType) -> Result<Parameter> {
    match pg_type {
        PgType::Date => {
            let keys = keys.as_primitive::<arrow::Date32Type>().values();
            array(Type::DATE_ARRAY, Type::DATE, keys.len(), |i, out| {
                let days = i64::from(keys[i]) - i64::from(EPOCH_DAYS);
                match i32::try_from(days) {
                    Ok(valid) if DAYS.contains(&days) => put(out, &valid.to_be_bytes()),
                    _ => Ok(Put::Null),
                }
            })
        }
        PgType::Time => {
            let keys = keys.as_primitive::<arrow::Time64MicrosecondType>().values();
            array(Type::TIME_ARRAY, Type::TIME, keys.len(), |i, out| put(out, &keys[i].to_be_bytes()))
        }
        PgType::Interval => {
            let keys = keys.as_primitive::<arrow::IntervalMonthDayNanoType>().values();
            array(Type::INTERVAL_ARRAY, Type::INTERVAL, keys.len(), |i, out| {
                let key = keys[i];
                if key.nanoseconds % 1000 != 0 {
                    return Ok(Put::Null);
                }
                put(out, &(key.nanoseconds / 1000).to_be_bytes())?;
                put(out, &key.days.to_be_bytes())?;
                put(out, &key.months.to_be_bytes())
            })
        }
        _ => {
            let (array_type, element) = match pg_type {
                PgType::Timestamp => (Type::TIMESTAMP_ARRAY, Type::TIMESTAMP),
                _ => (Type::TIMESTAMPTZ_ARRAY, Type::TIMESTAMPTZ),
            };
            let keys = keys.as_primitive::<arrow::TimestampMicrosecondType>().values();
            array(array_type, element, keys.len(), |i, out| match keys[i].checked_sub(EPOCH_MICROS) {
                Some(micros) if MICROS.contains(&micros) => put(out, &micros.to_be_bytes()),
                _ => Ok(Put::Null),
            })
        }
    }
}

/// The binary form of a one-dimensional array: header, then each element with its length in front (-1: NULL).
fn array(
    array_type: Type,
    element: Type,
    len: usize,
    mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<Put>,
) -> Result<Parameter> {
    const HAS_NULLS: usize = 4;
    let count = i32::try_from(len).map_err(|_| Error::internal("more keys than an array of PostgreSQL holds"))?;
    let mut bytes = Vec::with_capacity(20 + len * 12);
    for word in [1, 0, element.oid() as i32, count, 1] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    for i in 0..len {
        let start = bytes.len();
        bytes.extend_from_slice(&(-1_i32).to_be_bytes());
        match write(i, &mut bytes)? {
            Put::Null => bytes[HAS_NULLS + 3] = 1,
            Put::Value => {
                let size = i32::try_from(bytes.len() - start - 4)
                    .map_err(|_| Error::new(Code::ProgramLimitExceeded, "a key is too long for PostgreSQL"))?;
                bytes[start..start + 4].copy_from_slice(&size.to_be_bytes());
            }
        }
    }
    Ok(Parameter { array_type, bytes })
}

fn texts(len: usize, write: impl FnMut(usize, &mut Vec<u8>) -> Result<Put>) -> Result<Parameter> {
    array(Type::TEXT_ARRAY, Type::TEXT, len, write)
}

fn put(out: &mut Vec<u8>, value: &[u8]) -> Result<Put> {
    out.extend_from_slice(value);
    Ok(Put::Value)
}

fn put_text(out: &mut Vec<u8>, value: &str) -> Result<Put> {
    if value.contains('\0') { Ok(Put::Null) } else { put(out, value.as_bytes()) }
}

fn put_uuid(out: &mut Vec<u8>, value: &str) -> Result<Put> {
    let uuid = Uuid::try_parse(value).map_err(|_| {
        Error::new(Code::InvalidTextRepresentation, format!("invalid input syntax for type uuid: \"{value}\""))
    })?;
    put(out, uuid.as_bytes())
}
