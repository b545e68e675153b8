//! Results of PostgreSQL, in its binary format, straight into Arrow arrays: column by column, never rounded.

use std::sync::Arc;

use datafusion::arrow::array::builder::{BinaryBuilder, BooleanBuilder, PrimitiveBuilder, StringViewBuilder};
use datafusion::arrow::array::{ArrayRef, ListArray, NullBufferBuilder};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes as arrow;
use datafusion::arrow::datatypes::{ArrowPrimitiveType, Field, IntervalMonthDayNano};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

use super::postgres_encode::{EPOCH_DAYS, EPOCH_MICROS};
use super::postgres_numeric::Decimal;
use super::size::{OFFSET_BYTES, bytea_bytes, text_bytes};
use crate::error::{Code, Error, Result};
use crate::pg_type::{PgType, UTC};

/// Microseconds of a day: PostgreSQL has 24:00:00, Arrow has not.
const DAY_MICROS: i64 = 86_400_000_000;

/// A value as it came, of whatever type.
struct Cell<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Cell(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The bytes of one column of `rows`.
pub(super) fn cells(rows: &[Row], column: usize) -> Result<Vec<Option<&[u8]>>> {
    let cell = |row| match Row::try_get::<_, Option<Cell<'_>>>(row, column) {
        Ok(cell) => Ok(cell.map(|cell| cell.0)),
        Err(error) => Err(Error::internal(format!("PostgreSQL's answer lacks column {column}: {error}"))),
    };
    rows.iter().map(cell).collect()
}

/// A big-endian bigint, as ordinality comes.
pub(super) fn bigint(cell: Option<&[u8]>) -> Result<i64> {
    let bytes = cell.and_then(|bytes| bytes.try_into().ok());
    bytes.map(i64::from_be_bytes).ok_or_else(|| Error::internal("PostgreSQL's answer lacks a row's ordinality"))
}

/// Collects one column of an answer.
pub(super) struct ColumnDecoder {
    /// For errors.
    name: String,
    nullable: bool,
    values: Values,
}

enum Values {
    Bool(BooleanBuilder),
    Int2(PrimitiveBuilder<arrow::Int16Type>),
    Int4(PrimitiveBuilder<arrow::Int32Type>),
    Int8(PrimitiveBuilder<arrow::Int64Type>),
    Oid(PrimitiveBuilder<arrow::UInt32Type>),
    Float4(PrimitiveBuilder<arrow::Float32Type>),
    Float8(PrimitiveBuilder<arrow::Float64Type>),
    Numeric(Decimal<arrow::Decimal128Type>, PrimitiveBuilder<arrow::Decimal128Type>),
    WideNumeric(Decimal<arrow::Decimal256Type>, PrimitiveBuilder<arrow::Decimal256Type>),
    Text(StringViewBuilder),
    Jsonb(StringViewBuilder),
    Uuid(StringViewBuilder),
    Bytea(BinaryBuilder),
    Date(PrimitiveBuilder<arrow::Date32Type>),
    Time(PrimitiveBuilder<arrow::Time64MicrosecondType>),
    Timestamp(PrimitiveBuilder<arrow::TimestampMicrosecondType>),
    Interval(PrimitiveBuilder<arrow::IntervalMonthDayNanoType>),
    List(Box<ListValues>),
}

struct ListValues {
    field: Arc<Field>,
    lengths: Vec<usize>,
    nulls: NullBufferBuilder,
    items: Values,
}

impl ColumnDecoder {
    pub(super) fn new(name: &str, pg_type: &PgType, nullable: bool) -> Self {
        ColumnDecoder { name: name.to_string(), nullable, values: Values::new(pg_type) }
    }

    /// Returns the bytes that the values take in an array.
    ///
    /// # Errors
    /// 22003 or 22008 for a value that Arrow cannot hold, 0A000 for an array of several dimensions, all naming the column.
    pub(super) fn append(&mut self, cells: &[Option<&[u8]>]) -> Result<u64> {
        if !self.nullable && cells.iter().any(Option::is_none) {
            return Err(Error::new(
                Code::NotNullViolation,
                format!("column \"{}\" holds a null value, but was declared not null when it was read", self.name),
            )
            .with_hint("The table was altered: restart the server to read its columns again."));
        }
        self.values.append(&self.name, cells)
    }

    pub(super) fn finish(self) -> Result<ArrayRef> {
        self.values.finish()
    }
}

impl Values {
    fn new(pg_type: &PgType) -> Self {
        match pg_type {
            PgType::Bool => Values::Bool(BooleanBuilder::new()),
            PgType::Int2 => Values::Int2(PrimitiveBuilder::new()),
            PgType::Int4 => Values::Int4(PrimitiveBuilder::new()),
            PgType::Int8 => Values::Int8(PrimitiveBuilder::new()),
            PgType::Float4 => Values::Float4(PrimitiveBuilder::new()),
            PgType::Float8 => Values::Float8(PrimitiveBuilder::new()),
            PgType::Numeric { precision, scale } if *precision <= 38 => Values::Numeric(
                Decimal::new(*precision, *scale),
                PrimitiveBuilder::new().with_data_type(pg_type.arrow()),
            ),
            PgType::Numeric { precision, scale } => Values::WideNumeric(
                Decimal::new(*precision, *scale),
                PrimitiveBuilder::new().with_data_type(pg_type.arrow()),
            ),
            PgType::Oid => Values::Oid(PrimitiveBuilder::new()),
            PgType::Text | PgType::Json | PgType::Name | PgType::Char => Values::Text(StringViewBuilder::new()),
            PgType::Jsonb => Values::Jsonb(StringViewBuilder::new()),
            PgType::Uuid => Values::Uuid(StringViewBuilder::new()),
            PgType::Bytea => Values::Bytea(BinaryBuilder::new()),
            PgType::Date => Values::Date(PrimitiveBuilder::new()),
            PgType::Time => Values::Time(PrimitiveBuilder::new()),
            PgType::Timestamp => Values::Timestamp(PrimitiveBuilder::new()),
            PgType::Timestamptz => Values::Timestamp(PrimitiveBuilder::new().with_timezone(UTC)),
            PgType::Interval => Values::Interval(PrimitiveBuilder::new()),
            PgType::Array(element) => Values::List(Box::new(ListValues {
                field: Arc::new(element.field("item", true)),
                lengths: Vec::new(),
                nulls: NullBufferBuilder::new(0),
                items: Values::new(element),
            })),
        }
    }

    fn append(&mut self, column: &str, cells: &[Option<&[u8]>]) -> Result<u64> {
        match self {
            Values::Bool(builder) => {
                for cell in cells {
                    builder.append_option(cell.map(|bytes| bytes.first() == Some(&1)));
                }
                Ok((cells.len() as u64).div_ceil(8))
            }
            Values::Int2(builder) => fixed(builder, cells, |bytes| Ok(i16::from_be_bytes(bytes))),
            Values::Int4(builder) => fixed(builder, cells, |bytes| Ok(i32::from_be_bytes(bytes))),
            Values::Int8(builder) => fixed(builder, cells, |bytes| Ok(i64::from_be_bytes(bytes))),
            Values::Oid(builder) => fixed(builder, cells, |bytes| Ok(u32::from_be_bytes(bytes))),
            Values::Float4(builder) => fixed(builder, cells, |bytes| Ok(f32::from_be_bytes(bytes))),
            Values::Float8(builder) => fixed(builder, cells, |bytes| Ok(f64::from_be_bytes(bytes))),
            Values::Numeric(decimal, builder) => {
                each(builder, cells, |bytes| decimal.decode(bytes).map_err(|cause| cause.of_column(column)))
            }
            Values::WideNumeric(decimal, builder) => {
                each(builder, cells, |bytes| decimal.decode(bytes).map_err(|cause| cause.of_column(column)))
            }
            Values::Text(builder) => texts(builder, column, cells, 0),
            // The format's version stands in front of the text.
            Values::Jsonb(builder) => texts(builder, column, cells, 1),
            Values::Uuid(builder) => uuids(builder, cells),
            Values::Bytea(builder) => {
                for cell in cells {
                    builder.append_option(*cell);
                }
                Ok(cells.iter().map(|cell| bytea_bytes(cell.map_or(0, <[u8]>::len))).sum())
            }
            Values::Date(builder) => fixed(builder, cells, |bytes| date(column, i32::from_be_bytes(bytes))),
            Values::Time(builder) => fixed(builder, cells, |bytes| time(column, i64::from_be_bytes(bytes))),
            Values::Timestamp(builder) => fixed(builder, cells, |bytes| timestamp(column, i64::from_be_bytes(bytes))),
            Values::Interval(builder) => fixed(builder, cells, |bytes: [u8; 16]| interval(column, &bytes)),
            Values::List(list) => list.append(column, cells),
        }
    }

    fn finish(self) -> Result<ArrayRef> {
        Ok(match self {
            Values::Bool(mut builder) => Arc::new(builder.finish()),
            Values::Int2(mut builder) => Arc::new(builder.finish()),
            Values::Int4(mut builder) => Arc::new(builder.finish()),
            Values::Int8(mut builder) => Arc::new(builder.finish()),
            Values::Oid(mut builder) => Arc::new(builder.finish()),
            Values::Float4(mut builder) => Arc::new(builder.finish()),
            Values::Float8(mut builder) => Arc::new(builder.finish()),
            Values::Numeric(_, mut builder) => Arc::new(builder.finish()),
            Values::WideNumeric(_, mut builder) => Arc::new(builder.finish()),
            Values::Text(mut builder) | Values::Jsonb(mut builder) | Values::Uuid(mut builder) => {
                Arc::new(builder.finish())
            }
            Values::Bytea(mut builder) => Arc::new(builder.finish()),
            Values::Date(mut builder) => Arc::new(builder.finish()),
            Values::Time(mut builder) => Arc::new(builder.finish()),
            Values::Timestamp(mut builder) => Arc::new(builder.finish()),
            Values::Interval(mut builder) => Arc::new(builder.finish()),
            Values::List(list) => list.finish()?,
        })
    }
}

impl ListValues {
    fn append(&mut self, column: &str, cells: &[Option<&[u8]>]) -> Result<u64> {
        let mut bytes = 0;
        for cell in cells {
            self.nulls.append(cell.is_some());
            let items = match cell {
                Some(bytes) => array_items(column, bytes)?,
                None => Vec::new(),
            };
            self.lengths.push(items.len());
            bytes += OFFSET_BYTES + self.items.append(column, &items)?;
        }
        Ok(bytes)
    }

    fn finish(mut self) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Ok(Arc::new(ListArray::try_new(self.field, offsets, self.items.finish()?, self.nulls.finish())?))
    }
}

/// Appends what `decode` makes of each value.
fn each<T: ArrowPrimitiveType>(
    builder: &mut PrimitiveBuilder<T>,
    cells: &[Option<&[u8]>],
    mut decode: impl FnMut(&[u8]) -> Result<T::Native>,
) -> Result<u64> {
    for cell in cells {
        match cell {
            Some(bytes) => builder.append_value(decode(bytes)?),
            None => builder.append_null(),
        }
    }
    Ok((cells.len() * size_of::<T::Native>()) as u64)
}

/// As [`each`], for types of `N` bytes.
fn fixed<T: ArrowPrimitiveType, const N: usize>(
    builder: &mut PrimitiveBuilder<T>,
    cells: &[Option<&[u8]>],
    mut decode: impl FnMut([u8; N]) -> Result<T::Native>,
) -> Result<u64> {
    each(builder, cells, |bytes| {
        let bytes = bytes.try_into();
        decode(bytes.map_err(|_| Error::internal(format!("PostgreSQL sent a value of other than {N} bytes")))?)
    })
}

fn texts(builder: &mut StringViewBuilder, column: &str, cells: &[Option<&[u8]>], skip: usize) -> Result<u64> {
    let mut size = 0;
    for cell in cells {
        let Some(bytes) = cell else {
            builder.append_null();
            size += text_bytes(0);
            continue;
        };
        let text = std::str::from_utf8(bytes.get(skip..).unwrap_or_default()).map_err(|_| {
            Error::new(Code::DataException, format!("column \"{column}\" holds text that is not valid UTF-8"))
        })?;
        builder.append_value(text);
        size += text_bytes(text.len());
    }
    Ok(size)
}

fn uuids(builder: &mut StringViewBuilder, cells: &[Option<&[u8]>]) -> Result<u64> {
    let mut buffer = Uuid::encode_buffer();
    let mut size = 0;
    for cell in cells {
        let Some(bytes) = cell else {
            builder.append_null();
            size += text_bytes(0);
            continue;
        };
        let uuid =
            Uuid::from_slice(bytes).map_err(|error| Error::internal(format!("PostgreSQL sent no uuid: {error}")))?;
        let text = uuid.hyphenated().encode_lower(&mut buffer);
        builder.append_value(&*text);
        size += text_bytes(text.len());
    }
    Ok(size)
}

fn date(column: &str, days: i32) -> Result<i32> {
    match days {
        i32::MAX | i32::MIN => Err(out_of_range(column, "an infinite date")),
        _ => days.checked_add(EPOCH_DAYS).ok_or_else(|| out_of_range(column, "a date that is too late")),
    }
}

fn time(column: &str, micros: i64) -> Result<i64> {
    if micros < DAY_MICROS { Ok(micros) } else { Err(out_of_range(column, "the time 24:00:00")) }
}

fn timestamp(column: &str, micros: i64) -> Result<i64> {
    match micros {
        i64::MAX | i64::MIN => Err(out_of_range(column, "an infinite timestamp")),
        _ => micros.checked_add(EPOCH_MICROS).ok_or_else(|| out_of_range(column, "a timestamp that is too late")),
    }
}

fn interval(column: &str, bytes: &[u8; 16]) -> Result<IntervalMonthDayNano> {
    let value = i128::from_be_bytes(*bytes);
    let (micros, days, months) = ((value >> 64) as i64, (value >> 32) as i32, value as i32);
    let nanos = micros.checked_mul(1000).ok_or_else(|| out_of_range(column, "an interval that is too long"))?;
    Ok(IntervalMonthDayNano::new(months, days, nanos))
}

fn out_of_range(column: &str, what: &str) -> Error {
    Error::new(Code::DatetimeOverflow, format!("column \"{column}\" holds {what}, which cannot be represented"))
}

/// The elements of an array: header of dimensions, flags and type, then each element with its length in front.
fn array_items<'a>(column: &str, bytes: &'a [u8]) -> Result<Vec<Option<&'a [u8]>>> {
    let malformed = || Error::internal(format!("PostgreSQL sent a malformed array for column \"{column}\""));
    let (dimensions, rest) = split_i32(bytes).ok_or_else(malformed)?;
    if dimensions == 0 {
        return Ok(Vec::new());
    }
    if dimensions > 1 {
        return Err(Error::unsupported(format!(
            "column \"{column}\" holds an array of {dimensions} dimensions, which is not supported"
        )));
    }
    let (count, mut rest) = rest.get(8..).and_then(split_i32).ok_or_else(malformed)?;
    rest = rest.get(4..).ok_or_else(malformed)?;
    let mut items = Vec::new();
    for _ in 0..count {
        let (length, value) = split_i32(rest).ok_or_else(malformed)?;
        rest = value;
        let Ok(length) = usize::try_from(length) else {
            items.push(None);
            continue;
        };
        let (item, behind) = value.split_at_checked(length).ok_or_else(malformed)?;
        items.push(Some(item));
        rest = behind;
    }
    Ok(items)
}

fn split_i32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*word), rest))
}
