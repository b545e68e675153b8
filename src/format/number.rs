//! Integers, floating point and numeric, as PostgreSQL reads them: exact, or refused.

use std::num::IntErrorKind;
use std::str::FromStr;

use datafusion::arrow::datatypes::i256;

use crate::error::Code;
use crate::format::text::{ValueError, excerpt};

/// Beyond this no exponent gives a number that any numeric could hold.
const LARGEST_EXPONENT: i64 = 100_000;

/// What C's `isspace` accepts, which PostgreSQL allows around numbers and times.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

/// # Errors
/// 22P02 for what is no integer, 22003 for one that `T` cannot hold.
pub(crate) fn integer<T>(type_name: &str, text: &str) -> Result<T, ValueError>
where
    T: FromStr<Err = std::num::ParseIntError>,
{
    trim(text).parse::<T>().map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => ValueError::new(
            Code::NumericOutOfRange,
            format!("value \"{}\" is out of range for type {type_name}", excerpt(text)),
        ),
        _ => ValueError::syntax(type_name, text),
    })
}

/// A whole number of 32 bits; as in PostgreSQL a negative one stands for what it is without its sign.
///
/// # Errors
/// 22P02 for what is no integer, 22003 for one that is out of range.
pub(crate) fn oid(text: &str) -> Result<u32, ValueError> {
    let number: i64 = integer("oid", text)?;
    match (u32::try_from(number), i32::try_from(number)) {
        (Ok(oid), _) => Ok(oid),
        (_, Ok(negative)) => Ok(negative as u32),
        _ => Err(ValueError::new(
            Code::NumericOutOfRange,
            format!("value \"{}\" is out of range for type oid", excerpt(text)),
        )),
    }
}

pub(crate) fn real(text: &str) -> Result<f32, ValueError> {
    let value = floating::<f32>("real", text)?;
    in_range("real", text, value.is_infinite(), value == 0.0)?;
    Ok(value)
}

pub(crate) fn double_precision(text: &str) -> Result<f64, ValueError> {
    let value = floating::<f64>("double precision", text)?;
    in_range("double precision", text, value.is_infinite(), value == 0.0)?;
    Ok(value)
}

fn floating<T: FromStr>(type_name: &str, text: &str) -> Result<T, ValueError> {
    trim(text).parse::<T>().map_err(|_| ValueError::syntax(type_name, text))
}

/// Refuses what became infinite or zero only because the type cannot hold it.
fn in_range(type_name: &str, text: &str, is_infinite: bool, is_zero: bool) -> Result<(), ValueError> {
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let overflow = is_infinite && !text.contains(['i', 'I']);
    let underflow = is_zero && mantissa.contains(|c: char| ('1'..='9').contains(&c));
    if overflow || underflow {
        return Err(ValueError::new(
            Code::NumericOutOfRange,
            format!("\"{}\" is out of range for type {type_name}", excerpt(text)),
        ));
    }
    Ok(())
}

/// The number times ten to the `scale`, for a precision of at most 38 digits.
///
/// # Errors
/// 22P02 for what is no number; 22003 for NaN, infinities, more digits than `precision` allows, and more digits
/// after the point than `scale`: nothing is rounded.
pub(crate) fn decimal128(text: &str, precision: u8, scale: i8) -> Result<i128, ValueError> {
    let parts = Decimal::parse(text)?;
    let zeros = parts.zeros(precision, scale)?;
    let digits = parts.digits.bytes().filter(u8::is_ascii_digit).map(|digit| i128::from(digit - b'0'));
    let magnitude = digits.chain(std::iter::repeat_n(0, zeros)).fold(0, |sum, digit| sum * 10 + digit);
    Ok(if parts.is_negative { -magnitude } else { magnitude })
}

/// Like [`decimal128`], for a precision of at most 76 digits.
///
/// # Errors
/// As [`decimal128`].
pub(crate) fn decimal256(text: &str, precision: u8, scale: i8) -> Result<i256, ValueError> {
    let parts = Decimal::parse(text)?;
    let zeros = parts.zeros(precision, scale)?;
    let sign = if parts.is_negative { "-" } else { "" };
    let digits: String = parts.digits.chars().filter(char::is_ascii_digit).collect();
    i256::from_string(&format!("{sign}0{digits}{}", "0".repeat(zeros))).ok_or_else(field_overflow)
}

fn field_overflow() -> ValueError {
    ValueError::new(Code::NumericOutOfRange, "numeric field overflow")
}

/// A number's text taken apart: its value is `digits` times ten to the `exponent`.
struct Decimal<'a> {
    is_negative: bool,
    /// From the first digit that is not 0 to the last; a point may be among them.
    digits: &'a str,
    digit_count: i64,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Result<Self, ValueError> {
        let invalid = || ValueError::syntax("numeric", text);
        let trimmed = trim(text);
        let (is_negative, unsigned) = match trimmed.as_bytes().first() {
            Some(b'-') => (true, &trimmed[1..]),
            Some(b'+') => (false, &trimmed[1..]),
            _ => (false, trimmed),
        };
        if ["nan", "inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
            return Err(field_overflow());
        }
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent).ok_or_else(invalid)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
            return Err(invalid());
        }
        let tail = mantissa.trim_start_matches(['0', '.']);
        let digits = tail.trim_end_matches(['0', '.']);
        let digit_count = digits.bytes().filter(u8::is_ascii_digit).count() as i64;
        let dropped_zeros = tail[digits.len()..].bytes().filter(u8::is_ascii_digit).count() as i64;
        Ok(Decimal { is_negative, digits, digit_count, exponent: exponent - fraction.len() as i64 + dropped_zeros })
    }

    /// How many zeros follow the digits in a numeric with this `precision` and `scale`.
    fn zeros(&self, precision: u8, scale: i8) -> Result<usize, ValueError> {
        if self.digit_count == 0 {
            return Ok(0);
        }
        let zeros = usize::try_from(self.exponent + i64::from(scale)).map_err(|_| field_overflow())?;
        if self.digit_count + zeros as i64 > i64::from(precision) {
            return Err(field_overflow());
        }
        Ok(zeros)
    }
}

/// `None` for what is no exponent; one beyond all numbers is cut, which leaves it beyond them.
fn read_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse::<i64>().unwrap_or(i64::MAX).min(LARGEST_EXPONENT);
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}
