//! Scalars of Avro as values of PostgreSQL's types.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{IntervalMonthDayNano, i256};
use uuid::Uuid;

use crate::error::Code;
use crate::format::avro_column::scalar_type;
use crate::format::avro_schema::{AvroScalar, Logical, Unit, Wire};
use crate::format::avro_wire::{Cursor, malformed};
use crate::format::datetime::{END_OF_DATES, FIRST_DAY, MICROS_PER_DAY};
use crate::format::literal;
use crate::format::text::{Value, ValueError};
use crate::pg_type::PgType;

/// How a scalar that one schema wrote is read as another has it.
#[derive(Debug)]
pub(crate) struct Leaf {
    wire: Wire,
    meaning: Meaning,
    /// The reader's.
    logical: Option<Logical>,
}

#[derive(Debug, PartialEq)]
enum Meaning {
    Bool,
    Int4,
    Int8,
    Float4,
    Float8,
    Bytes,
    Text,
    /// The reader's symbol for each of the writer's; `None` where it has none.
    Symbols(Vec<Option<Arc<str>>>),
    Decimal {
        precision: u8,
        /// By how many places the writer has fewer after the point.
        shift: u32,
    },
    UuidText,
    UuidBytes,
    Date,
    Time(Unit),
    /// With or without a zone.
    Timestamp(Unit),
    Interval,
    /// No type here holds the values: they can be passed over alone.
    Unheld,
}

impl Leaf {
    /// # Errors
    /// Why the reader's type does not read the writer's.
    pub(crate) fn resolve(writer: &AvroScalar, reader: &AvroScalar) -> Result<Leaf, String> {
        let differ = || format!("a value written as {writer} cannot be read as {reader}");
        let meaning = match (writer.logical, reader.logical) {
            (Some(written), Some(read)) => logical_meaning(written, read, writer).ok_or_else(differ)?,
            (None, Some(read)) if is_promoted(writer, reader) => {
                logical_meaning(read, read, writer).ok_or_else(differ)?
            }
            // Who reads no logical type wants what lies under it.
            (_, None) if is_promoted(writer, reader) => plain_meaning(&writer.wire, &reader.wire),
            _ => return Err(differ()),
        };
        let meaning = if scalar_type(reader).is_err() { Meaning::Unheld } else { meaning };
        Ok(Leaf { wire: writer.wire.clone(), meaning, logical: reader.logical })
    }

    /// Digits after the point, of a decimal.
    pub(crate) fn scale(&self) -> u8 {
        match self.logical {
            Some(Logical::Decimal { scale, .. }) => u8::try_from(scale).unwrap_or(u8::MAX),
            _ => 0,
        }
    }

    /// Whether a timestamp is a moment, and not what a clock somewhere shows.
    pub(crate) fn has_zone(&self) -> bool {
        matches!(self.logical, Some(Logical::Timestamp(_)))
    }

    pub(crate) fn skip(&self, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        match &self.wire {
            Wire::Boolean => cursor.boolean().map(drop),
            Wire::Int => cursor.int().map(drop),
            Wire::Long => cursor.long().map(drop),
            Wire::Float => cursor.take(4).map(drop),
            Wire::Double => cursor.take(8).map(drop),
            Wire::Bytes => cursor.bytes().map(drop),
            Wire::String => cursor.text().map(drop),
            Wire::Fixed(size) => cursor.take(*size).map(drop),
            Wire::Enum { symbols, .. } => cursor.index(symbols.len()).map(drop),
        }
    }

    /// # Errors
    /// 22P02 for what is malformed, 22003, 22008 and 22015 for what is out of the type's range.
    pub(crate) fn read<'a, 'm: 'a>(&'a self, cursor: &mut Cursor<'m>) -> Result<Value<'a>, ValueError> {
        match &self.wire {
            Wire::Boolean => Ok(Value::Bool(cursor.boolean()?)),
            Wire::Int => self.of_integer(cursor.int()?.into()),
            Wire::Long => self.of_integer(cursor.long()?),
            Wire::Float => self.of_float(f32::from_le_bytes(cursor.array()?)),
            Wire::Double => Ok(Value::Float8(f64::from_le_bytes(cursor.array()?))),
            Wire::Bytes => self.of_bytes(cursor.bytes()?),
            Wire::String => match &self.meaning {
                Meaning::Bytes => Ok(Value::Bytes(cursor.text()?.as_bytes().to_vec())),
                _ => self.of_text(cursor.text()?),
            },
            Wire::Fixed(size) => self.of_bytes(cursor.take(*size)?),
            Wire::Enum { symbols, .. } => {
                let index = cursor.index(symbols.len())?;
                match (&self.meaning, symbols.get(index)) {
                    (Meaning::Symbols(read), Some(symbol)) => {
                        let read = read.get(index).and_then(Option::as_deref);
                        let read = read.ok_or_else(|| malformed(format!("the reader has no symbol \"{symbol}\"")))?;
                        Ok(Value::Text(Cow::Borrowed(read)))
                    }
                    _ => Err(self.mismatch()),
                }
            }
        }
    }

    fn of_integer<'a>(&self, number: i64) -> Result<Value<'a>, ValueError> {
        Ok(match &self.meaning {
            Meaning::Int4 => Value::Int4(i32::try_from(number).map_err(|_| self.mismatch())?),
            Meaning::Int8 => Value::Int8(number),
            Meaning::Float4 => Value::Float4(number as f32),
            Meaning::Float8 => Value::Float8(number as f64),
            Meaning::Date => {
                let day = Some(number).filter(|day| (FIRST_DAY..END_OF_DATES).contains(day));
                let day = day.and_then(|day| i32::try_from(day).ok());
                Value::Date(day.ok_or_else(|| {
                    ValueError::new(Code::DatetimeOverflow, format!("date out of range: {number} days from 1970-01-01"))
                })?)
            }
            Meaning::Time(unit) => {
                let micros = micros(number, *unit).filter(|micros| (0..MICROS_PER_DAY).contains(micros));
                Value::Time(micros.ok_or_else(|| {
                    ValueError::new(Code::DatetimeOverflow, format!("time out of range: {number} {unit} from midnight"))
                })?)
            }
            Meaning::Timestamp(unit) => {
                let micros = micros(number, *unit).filter(|micros| *micros >= FIRST_DAY * MICROS_PER_DAY);
                Value::Timestamp(micros.ok_or_else(|| {
                    let message = format!("timestamp out of range: {number} {unit} from 1970-01-01");
                    ValueError::new(Code::DatetimeOverflow, message)
                })?)
            }
            _ => return Err(self.mismatch()),
        })
    }

    fn of_float<'a>(&self, number: f32) -> Result<Value<'a>, ValueError> {
        match &self.meaning {
            Meaning::Float4 => Ok(Value::Float4(number)),
            Meaning::Float8 => Ok(Value::Float8(number.into())),
            _ => Err(self.mismatch()),
        }
    }

    fn of_text<'a>(&self, text: &'a str) -> Result<Value<'a>, ValueError> {
        match &self.meaning {
            Meaning::Text => Ok(Value::Text(Cow::Borrowed(literal::text(text)?))),
            Meaning::UuidText => Ok(Value::Text(Cow::Owned(literal::uuid(text)?))),
            _ => Err(self.mismatch()),
        }
    }

    fn of_bytes<'a>(&self, bytes: &'a [u8]) -> Result<Value<'a>, ValueError> {
        match &self.meaning {
            Meaning::Bytes => Ok(Value::Bytes(bytes.to_vec())),
            Meaning::Text | Meaning::UuidText => {
                self.of_text(std::str::from_utf8(bytes).map_err(|_| malformed("bytes read as text are not UTF-8"))?)
            }
            Meaning::UuidBytes => {
                let uuid = Uuid::from_slice(bytes).map_err(|_| self.mismatch())?;
                Ok(Value::Text(Cow::Owned(uuid.hyphenated().to_string())))
            }
            Meaning::Decimal { precision, shift } => decimal(bytes, *precision, *shift),
            Meaning::Interval => interval(bytes).ok_or_else(|| {
                ValueError::new(Code::IntervalOverflow, "interval out of range: more than 2147483647 months or days")
            }),
            _ => Err(self.mismatch()),
        }
    }

    /// What [`Leaf::resolve`] does not let happen.
    fn mismatch(&self) -> ValueError {
        let message = format!("Avro's {:?} was to be read as {:?}", self.wire, self.meaning);
        ValueError::new(Code::Internal, message)
    }
}

/// Whether Avro's rules let the reader's bytes be read from the writer's, logical types aside.
fn is_promoted(writer: &AvroScalar, reader: &AvroScalar) -> bool {
    let names_agree = || match (&writer.names, &reader.names) {
        (Some(written), Some(read)) => read.read(written),
        _ => false,
    };
    match (&writer.wire, &reader.wire) {
        (Wire::Enum { .. }, Wire::Enum { .. }) => names_agree(),
        (Wire::Fixed(written), Wire::Fixed(read)) => written == read && names_agree(),
        (Wire::Int, Wire::Long | Wire::Float | Wire::Double) => true,
        (Wire::Long, Wire::Float | Wire::Double) => true,
        (Wire::Float, Wire::Double) => true,
        (Wire::String, Wire::Bytes) | (Wire::Bytes, Wire::String) => true,
        (written, read) => written == read,
    }
}

fn plain_meaning(writer: &Wire, reader: &Wire) -> Meaning {
    match (writer, reader) {
        (Wire::Enum { symbols: written, .. }, Wire::Enum { symbols: read, default }) => {
            let symbol = |written: &String| read.iter().find(|read| *read == written).or(default.as_ref());
            Meaning::Symbols(written.iter().map(|written| symbol(written).map(|read| read.as_str().into())).collect())
        }
        (_, Wire::Boolean) => Meaning::Bool,
        (_, Wire::Int) => Meaning::Int4,
        (_, Wire::Long) => Meaning::Int8,
        (_, Wire::Float) => Meaning::Float4,
        (_, Wire::Double) => Meaning::Float8,
        (_, Wire::Bytes | Wire::Fixed(_)) => Meaning::Bytes,
        (_, Wire::String | Wire::Enum { .. }) => Meaning::Text,
    }
}

/// What a writer's logical type means to a reader's of the same family, without any loss; `None` for another family.
fn logical_meaning(written: Logical, read: Logical, writer: &AvroScalar) -> Option<Meaning> {
    Some(match (written, read) {
        (Logical::Decimal { scale: written, .. }, Logical::Decimal { precision, scale }) if written <= scale => {
            let shift = u32::try_from(scale - written).ok()?;
            Meaning::Decimal { precision: u8::try_from(precision).unwrap_or(u8::MAX), shift }
        }
        (Logical::Uuid, Logical::Uuid) if matches!(writer.wire, Wire::Fixed(_)) => Meaning::UuidBytes,
        (Logical::Uuid, Logical::Uuid) => Meaning::UuidText,
        (Logical::Date, Logical::Date) => Meaning::Date,
        (Logical::Time(unit), Logical::Time(_)) => Meaning::Time(unit),
        (Logical::Timestamp(written), Logical::Timestamp(read))
        | (Logical::LocalTimestamp(written), Logical::LocalTimestamp(read))
            if written != Unit::Nanos || read == Unit::Nanos =>
        {
            Meaning::Timestamp(written)
        }
        (Logical::Duration, Logical::Duration) => Meaning::Interval,
        (Logical::BigDecimal, Logical::BigDecimal) => Meaning::Unheld,
        _ => return None,
    })
}

fn micros(number: i64, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Millis => number.checked_mul(1000),
        Unit::Micros => Some(number),
        Unit::Nanos => None,
    }
}

/// Of a whole number in two's complement, the highest byte first.
fn decimal<'a>(bytes: &[u8], precision: u8, shift: u32) -> Result<Value<'a>, ValueError> {
    let overflow = || ValueError::new(Code::NumericOutOfRange, "numeric field overflow");
    let sign = match bytes.first() {
        Some(first) if *first >= 0x80 => 0xff,
        Some(_) => 0,
        None => return Err(malformed("a decimal has no bytes")),
    };
    let start = bytes.len().saturating_sub(32);
    if bytes[..start].iter().any(|byte| *byte != sign) {
        return Err(overflow());
    }
    let significant = &bytes[start..];
    // Without the bytes that only repeat the sign, the highest bit must still be the sign.
    if start > 0 && significant.first().is_some_and(|first| (first ^ sign) & 0x80 != 0) {
        return Err(overflow());
    }
    let mut whole = [sign; 32];
    whole[32 - significant.len()..].copy_from_slice(significant);
    scaled(i256::from_be_bytes(whole), precision, shift).ok_or_else(overflow)
}

/// `number` times ten to the `shift`, if it has no more digits than `precision`.
pub(crate) fn scaled<'a>(number: i256, precision: u8, shift: u32) -> Option<Value<'a>> {
    let ten = i256::from_i128(10);
    let limit = ten.checked_pow(precision.into())?;
    let number = match number == i256::ZERO {
        true => number,
        false => number.checked_mul(ten.checked_pow(shift)?)?,
    };
    if number <= -limit || number >= limit {
        return None;
    }
    match precision {
        ..=38 => number.to_i128().map(Value::Decimal128),
        _ => Some(Value::Decimal256(number)),
    }
}

/// Months, days and milliseconds.
fn interval<'a>(bytes: &[u8]) -> Option<Value<'a>> {
    let part = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (months, days) = (i32::try_from(part(0)?).ok()?, i32::try_from(part(4)?).ok()?);
    Some(Value::Interval(IntervalMonthDayNano::new(months, days, i64::from(part(8)?) * 1_000_000)))
}

/// A value of the type `from` as one of the type `to`, which holds all of them.
pub(crate) fn widened<'a>(value: Value<'a>, from: &PgType, to: &PgType) -> Result<Value<'a>, ValueError> {
    if from == to {
        return Ok(value);
    }
    let shift = |from: i8, to: i8| u32::try_from(i16::from(to) - i16::from(from)).ok();
    let wide = match (value, from, to) {
        (Value::Int4(number), _, PgType::Int8) => Some(Value::Int8(number.into())),
        (Value::Int4(number), _, PgType::Float8) => Some(Value::Float8(number.into())),
        (Value::Float4(number), _, PgType::Float8) => Some(Value::Float8(number.into())),
        (Value::Int4(number), _, PgType::Numeric { precision, scale }) => {
            shift(0, *scale).and_then(|shift| scaled(i256::from_i128(number.into()), *precision, shift))
        }
        (Value::Int8(number), _, PgType::Numeric { precision, scale }) => {
            shift(0, *scale).and_then(|shift| scaled(i256::from_i128(number.into()), *precision, shift))
        }
        (Value::Decimal128(number), PgType::Numeric { scale: old, .. }, PgType::Numeric { precision, scale }) => {
            shift(*old, *scale).and_then(|shift| scaled(i256::from_i128(number), *precision, shift))
        }
        (Value::Decimal256(number), PgType::Numeric { scale: old, .. }, PgType::Numeric { precision, scale }) => {
            shift(*old, *scale).and_then(|shift| scaled(number, *precision, shift))
        }
        (Value::List(items), PgType::Array(from), PgType::Array(to)) => {
            let items = items.into_iter().map(|item| item.map(|item| widened(item, from, to)).transpose());
            Some(Value::List(items.collect::<Result<_, _>>()?))
        }
        (value @ Value::Text(_), PgType::Jsonb, PgType::Json) => Some(value),
        _ => None,
    };
    wide.ok_or_else(|| ValueError::new(Code::Internal, format!("a value of type {from} does not widen to {to}")))
}

#[cfg(test)]
#[path = "avro_value_tests.rs"]
mod tests;
