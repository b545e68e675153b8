//! Values in PostgreSQL's binary form, as its `recv` functions read them.

use std::borrow::Cow;

use datafusion::arrow::datatypes::IntervalMonthDayNano;

use crate::error::Code;
use crate::format::fields::utf8;
use crate::format::text::{Value, ValueError};
use crate::format::{literal, number};
use crate::pg_type::PgType;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// From 1970-01-01, where Arrow begins to count, to 2000-01-01, where PostgreSQL does.
const DAYS_TO_2000: i32 = 10_957;
const MICROS_TO_2000: i64 = DAYS_TO_2000 as i64 * MICROS_PER_DAY;

/// Reads the binary form of a value of `pg_type`.
///
/// # Errors
/// 22P03 for bytes of another form, 22003 and 22008 for what Arrow cannot hold, 0A000 for arrays of more than one
/// dimension.
pub(crate) fn parse<'a>(pg_type: &PgType, bytes: &'a [u8]) -> Result<Value<'a>, ValueError> {
    Ok(match pg_type {
        PgType::Bool => Value::Bool(fixed::<1>(bytes)? != [0]),
        PgType::Int2 => Value::Int2(i16::from_be_bytes(fixed(bytes)?)),
        PgType::Int4 => Value::Int4(i32::from_be_bytes(fixed(bytes)?)),
        PgType::Int8 => Value::Int8(i64::from_be_bytes(fixed(bytes)?)),
        PgType::Oid => Value::Oid(u32::from_be_bytes(fixed(bytes)?)),
        PgType::Float4 => Value::Float4(f32::from_be_bytes(fixed(bytes)?)),
        PgType::Float8 => Value::Float8(f64::from_be_bytes(fixed(bytes)?)),
        PgType::Numeric { precision, scale } if *precision <= 38 => {
            Value::Decimal128(number::decimal128(&numeric(bytes)?, *precision, *scale)?)
        }
        PgType::Numeric { precision, scale } => {
            Value::Decimal256(number::decimal256(&numeric(bytes)?, *precision, *scale)?)
        }
        PgType::Text | PgType::Char => Value::Text(Cow::Borrowed(literal::text(utf8(bytes)?)?)),
        PgType::Name => Value::Text(Cow::Borrowed(literal::name(utf8(bytes)?)?)),
        PgType::Bytea => Value::Bytes(bytes.to_vec()),
        PgType::Date => match i32::from_be_bytes(fixed(bytes)?) {
            i32::MIN | i32::MAX => return Err(infinite("date")),
            days => Value::Date(days.checked_add(DAYS_TO_2000).ok_or_else(|| out_of_range("date"))?),
        },
        PgType::Time => match i64::from_be_bytes(fixed(bytes)?) {
            micros @ 0..MICROS_PER_DAY => Value::Time(micros),
            _ => return Err(out_of_range("time")),
        },
        PgType::Timestamp | PgType::Timestamptz => match i64::from_be_bytes(fixed(bytes)?) {
            i64::MIN | i64::MAX => return Err(infinite("timestamp")),
            micros => Value::Timestamp(micros.checked_add(MICROS_TO_2000).ok_or_else(|| out_of_range("timestamp"))?),
        },
        PgType::Interval => {
            let value = i128::from_be_bytes(fixed(bytes)?);
            let (micros, days, months) = ((value >> 64) as i64, (value >> 32) as i32, value as i32);
            let nanos = micros.checked_mul(1000).ok_or_else(|| out_of_range("interval"))?;
            Value::Interval(IntervalMonthDayNano::new(months, days, nanos))
        }
        PgType::Uuid => {
            let uuid = uuid::Uuid::from_bytes(fixed(bytes)?);
            Value::Text(Cow::Owned(uuid.hyphenated().to_string()))
        }
        PgType::Json => Value::Text(Cow::Borrowed(literal::json(utf8(bytes)?)?)),
        PgType::Jsonb => match bytes.split_first() {
            Some((1, json)) => Value::Text(Cow::Borrowed(literal::json(utf8(json)?)?)),
            Some((version, _)) => {
                let message = format!("unsupported jsonb version number {version}");
                return Err(ValueError::new(Code::InvalidBinaryRepresentation, message));
            }
            None => return Err(malformed()),
        },
        PgType::Array(element) => Value::List(
            array(bytes, element)?
                .into_iter()
                .map(|item| item.map(|item| parse(element, item)).transpose())
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// Exactly `N` bytes.
fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ValueError> {
    bytes.try_into().map_err(|_| malformed())
}

fn malformed() -> ValueError {
    ValueError::new(Code::InvalidBinaryRepresentation, "incorrect binary data format")
}

fn out_of_range(type_name: &str) -> ValueError {
    ValueError::new(Code::DatetimeOverflow, format!("{type_name} out of range"))
}

/// For PostgreSQL's infinities, which Arrow lacks.
fn infinite(type_name: &str) -> ValueError {
    ValueError::new(Code::DatetimeOverflow, format!("infinity is not supported for type {type_name}"))
}

/// A numeric's digits, in the text form that [`number`] reads.
fn numeric(bytes: &[u8]) -> Result<String, ValueError> {
    const NEGATIVE: u16 = 0x4000;
    let words: Vec<u16> =
        bytes.chunks(2).map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u16::from(*byte))).collect();
    let [count, weight, sign, _scale, digits @ ..] = words.as_slice() else { return Err(malformed()) };
    if !bytes.len().is_multiple_of(2) || digits.len() != usize::from(*count) || digits.iter().any(|digit| *digit > 9999)
    {
        return Err(malformed());
    }
    let sign = match *sign {
        0 => "",
        NEGATIVE => "-",
        0xc000 => return Ok("NaN".to_string()),
        0xd000 => return Ok("Infinity".to_string()),
        0xf000 => return Ok("-Infinity".to_string()),
        _ => return Err(malformed()),
    };
    let whole: String = digits.iter().map(|digit| format!("{digit:04}")).collect();
    // Four decimal digits each; the first one counts ten thousand to the power of the weight.
    let exponent = 4 * (i64::from(*weight as i16) + 1 - i64::from(*count));
    Ok(format!("{sign}{}e{exponent}", if whole.is_empty() { "0" } else { &whole }))
}

/// The elements of an array: dimensions, flags and type, then bounds, and each element with its length before it.
pub(crate) fn array<'a>(bytes: &'a [u8], element: &PgType) -> Result<Vec<Option<&'a [u8]>>, ValueError> {
    let mut rest = bytes;
    let word = |rest: &mut &'a [u8]| -> Result<i32, ValueError> {
        let (first, after) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        *rest = after;
        Ok(i32::from_be_bytes(*first))
    };
    let (dimensions, _has_nulls, oid) = (word(&mut rest)?, word(&mut rest)?, word(&mut rest)?);
    // Text has several numbers (varchar, bpchar), all with the same form.
    let sent = u32::try_from(oid).ok().and_then(PgType::of_oid);
    if sent.is_none_or(|sent| sent.oid() != element.oid()) {
        let message = format!("binary data has array element type {oid} instead of expected {}", element.oid());
        return Err(ValueError::new(Code::DatatypeMismatch, message));
    }
    let count = match dimensions {
        0 => 0,
        1 => {
            let (count, _lower_bound) = (word(&mut rest)?, word(&mut rest)?);
            count
        }
        _ => {
            let message = "arrays of more than one dimension are not supported";
            return Err(ValueError::new(Code::FeatureNotSupported, message));
        }
    };
    let mut items = vec![];
    for _ in 0..count {
        let Ok(length) = usize::try_from(word(&mut rest)?) else {
            items.push(None);
            continue;
        };
        let (item, after) = rest.split_at_checked(length).ok_or_else(malformed)?;
        items.push(Some(item));
        rest = after;
    }
    if rest.is_empty() { Ok(items) } else { Err(malformed()) }
}
