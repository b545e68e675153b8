//! Decimals as PostgreSQL's `numeric`: as text, and in binary as digits of base 10,000.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, i256};
use datafusion::scalar::ScalarValue;

use crate::error::{Code, Error, Result};
use crate::format::number::trim;
use crate::pg_type::{PLAIN_NUMERIC, PgType};

pub(super) const SIGN_POSITIVE: u16 = 0x0000;
pub(super) const SIGN_NEGATIVE: u16 = 0x4000;

/// The decimal digits of a number, the most significant first and not zero; of zero there is one.
pub(super) struct Digits {
    bytes: [u8; Digits::MAX],
    count: usize,
    is_negative: bool,
}

impl Digits {
    /// 2^255 has 77.
    const MAX: usize = 77;

    pub(super) fn of_i128(value: i128) -> Digits {
        let mut digits = Digits { bytes: [b'0'; Digits::MAX], count: 0, is_negative: value < 0 };
        match u64::try_from(value.unsigned_abs()) {
            Ok(small) => digits.push(itoa::Buffer::new().format(small), 0),
            Err(_) => digits.push(itoa::Buffer::new().format(value.unsigned_abs()), 0),
        }
        digits
    }

    pub(super) fn of_i256(value: i256) -> Result<Digits> {
        if let Some(value) = value.to_i128() {
            return Ok(Digits::of_i128(value));
        }
        const LOW_DIGITS: usize = 38;
        let unit = i256::from_i128(10i128.pow(LOW_DIGITS as u32));
        // Remainders have the sign of the number; none of the parts is so large that its own would overflow.
        let parts = value.checked_div(unit).zip(value.checked_rem(unit));
        let parts = parts.and_then(|(high, low)| high.to_i128().zip(low.to_i128()));
        let (high, low) = parts.ok_or_else(|| Error::internal(format!("the decimal {value} is too wide")))?;
        let mut digits = Digits { bytes: [b'0'; Digits::MAX], count: 0, is_negative: value < i256::ZERO };
        digits.push(itoa::Buffer::new().format(high.unsigned_abs()), 0);
        digits.push(itoa::Buffer::new().format(low.unsigned_abs()), LOW_DIGITS);
        Ok(digits)
    }

    /// Appends digits, with zeros before them up to `width`.
    fn push(&mut self, text: &str, width: usize) {
        self.count += width.saturating_sub(text.len());
        self.bytes[self.count..self.count + text.len()].copy_from_slice(text.as_bytes());
        self.count += text.len();
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.count]
    }

    fn is_zero(&self) -> bool {
        self.as_bytes() == b"0"
    }

    /// Writes the number divided by ten to the `scale`, with exactly `scale` digits after the point.
    pub(super) fn write_text(&self, scale: i8, out: &mut BytesMut) {
        let digits = self.as_bytes();
        if self.is_negative {
            out.put_u8(b'-');
        }
        if scale <= 0 {
            out.put_slice(digits);
            if !self.is_zero() {
                out.put_bytes(b'0', usize::from(scale.unsigned_abs()));
            }
            return;
        }
        let scale = usize::from(scale.unsigned_abs());
        match digits.len().checked_sub(scale) {
            Some(whole) if whole > 0 => {
                out.put_slice(&digits[..whole]);
                out.put_u8(b'.');
                out.put_slice(&digits[whole..]);
            }
            _ => {
                out.put_slice(b"0.");
                out.put_bytes(b'0', scale - digits.len());
                out.put_slice(digits);
            }
        }
    }

    /// Writes the binary form of `numeric_send`: count of digits, weight of the first, sign, scale, digits.
    pub(super) fn write_binary(&self, scale: i8, out: &mut BytesMut) {
        let shown_scale = i16::from(scale.max(0));
        if self.is_zero() {
            out.put_i16(0);
            out.put_i16(0);
            out.put_u16(SIGN_POSITIVE);
            out.put_i16(shown_scale);
            return;
        }
        let digits = self.as_bytes();
        // The power of ten that the first decimal digit stands for. Groups of four are counted from the point.
        let first = digits.len() as i16 - i16::from(scale) - 1;
        let at = out.len();
        out.put_i16(0);
        out.put_i16(first.div_euclid(4));
        out.put_u16(if self.is_negative { SIGN_NEGATIVE } else { SIGN_POSITIVE });
        out.put_i16(shown_scale);
        let mut rest = digits;
        let mut width = first.rem_euclid(4) as usize + 1;
        let mut groups = 0u16;
        let mut end = out.len();
        let mut count = 0;
        while !rest.is_empty() {
            let (group, after) = rest.split_at(width.min(rest.len()));
            let missing = (width - group.len()) as u32;
            let number = group.iter().fold(0u16, |number, digit| number * 10 + u16::from(digit - b'0'));
            let number = number * 10u16.pow(missing);
            out.put_u16(number);
            groups += 1;
            // Groups of zero at the end are left out.
            if number != 0 {
                end = out.len();
                count = groups;
            }
            rest = after;
            width = 4;
        }
        out.truncate(end);
        out[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
}

/// A number as a client sent it: `digits` divided by ten to the `scale`.
pub(super) struct ParsedNumeric {
    is_negative: bool,
    /// In ASCII, without zeros before them; none for zero.
    digits: String,
    /// Not negative.
    scale: usize,
}

impl ParsedNumeric {
    /// More than a decimal can hold, so that malicious exponents end here.
    const MAX_EXPONENT: i64 = 1000;

    /// # Errors
    /// 22P02 for what is no number, 22003 for NaN, infinities and exponents that no decimal has.
    pub(super) fn of_text(text: &str) -> Result<Self> {
        let invalid = || {
            let message = format!("invalid input syntax for type numeric: \"{text}\"");
            Error::new(Code::InvalidTextRepresentation, message)
        };
        let trimmed = trim(text);
        let unsigned = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
        if ["nan", "inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
            return Err(not_finite(text));
        }
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !is_number(whole) || !is_number(fraction) {
            return Err(invalid());
        }
        let exponent = match exponent {
            None => 0,
            Some(exponent) => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !is_number(digits) {
                    return Err(invalid());
                }
                exponent.parse::<i64>().ok().filter(|e| e.abs() <= Self::MAX_EXPONENT).ok_or_else(too_wide)?
            }
        };
        let digits = format!("{whole}{fraction}");
        let last = exponent - i64::try_from(fraction.len()).map_err(|_| too_wide())?;
        Ok(Self::new(trimmed.starts_with('-'), digits, last))
    }

    /// # Errors
    /// 22P03 for bytes that are not of this form, 22003 for NaN and infinities.
    pub(super) fn of_binary(bytes: &[u8]) -> Result<Self> {
        let malformed = |what: &str| {
            Error::new(Code::InvalidBinaryRepresentation, format!("invalid {what} in external \"numeric\" value"))
        };
        let (words, rest) = bytes.as_chunks::<2>();
        let [count, weight, sign, scale, digits @ ..] = words else { return Err(malformed("length")) };
        if !rest.is_empty() || digits.len() != usize::from(u16::from_be_bytes(*count)) {
            return Err(malformed("length"));
        }
        let is_negative = match u16::from_be_bytes(*sign) {
            SIGN_POSITIVE => false,
            SIGN_NEGATIVE => true,
            0xc000 => return Err(not_finite("NaN")),
            0xd000 => return Err(not_finite("Infinity")),
            0xf000 => return Err(not_finite("-Infinity")),
            _ => return Err(malformed("sign")),
        };
        let scale = u16::from_be_bytes(*scale);
        if scale > 0x3fff {
            return Err(malformed("scale"));
        }
        let mut text = String::with_capacity(digits.len() * 4);
        for digit in digits {
            let digit = u16::from_be_bytes(*digit);
            if digit > 9999 {
                return Err(malformed("digit"));
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{digit:04}");
        }
        // The power of ten of the last digit that was sent.
        let last = (i64::from(i16::from_be_bytes(*weight)) - digits.len() as i64 + 1) * 4;
        if last.abs() > Self::MAX_EXPONENT * 4 && !text.is_empty() {
            return Err(too_wide());
        }
        let last = if text.is_empty() { 0 } else { last };
        Ok(Self::new(is_negative, text, last).with_scale(usize::from(scale)))
    }

    /// `digits` times ten to the `last`.
    fn new(is_negative: bool, mut digits: String, last: i64) -> Self {
        if last > 0 {
            digits.extend(std::iter::repeat_n('0', last.unsigned_abs() as usize));
        }
        digits.drain(..digits.len() - digits.trim_start_matches('0').len());
        ParsedNumeric { is_negative, digits, scale: (-last).max(0).unsigned_abs() as usize }
    }

    /// With zeros at the end left out or put in, as far as the value allows: the binary form sends digits by fours.
    fn with_scale(mut self, scale: usize) -> Self {
        while self.scale > scale && (self.digits.is_empty() || self.digits.ends_with('0')) {
            self.digits.pop();
            self.scale -= 1;
        }
        if self.scale < scale && !self.digits.is_empty() {
            self.digits.extend(std::iter::repeat_n('0', scale - self.scale));
        }
        self.scale = self.scale.max(scale);
        self
    }

    /// Digits before the point.
    fn whole_digits(&self) -> usize {
        self.digits.len().saturating_sub(self.scale)
    }

    /// The type that holds all of `values` exactly: `wanted` if it does and is not the plain numeric.
    ///
    /// # Errors
    /// 22003 if that takes more than 76 digits.
    pub(super) fn common_type<'a>(values: impl Iterator<Item = &'a Self>, wanted: &PgType) -> Result<PgType> {
        let (mut whole, mut scale) = (0, 0);
        for value in values {
            whole = whole.max(value.whole_digits());
            scale = scale.max(value.scale);
        }
        if let PgType::Numeric { precision, scale: wanted_scale } = wanted
            && *wanted != PLAIN_NUMERIC
            && let Ok(wanted_scale) = usize::try_from(*wanted_scale)
            && scale <= wanted_scale
            && whole + wanted_scale <= usize::from(*precision)
        {
            return Ok(wanted.clone());
        }
        let precision = (whole + scale).max(1);
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(precision), Ok(scale)) if precision <= DECIMAL256_MAX_PRECISION => {
                Ok(PgType::Numeric { precision, scale })
            }
            _ => Err(too_wide()),
        }
    }

    /// As a decimal of the type that [`Self::common_type`] gives.
    pub(super) fn into_scalar(self, wanted: &PgType) -> Result<ScalarValue> {
        let pg_type = Self::common_type([&self].into_iter(), wanted)?;
        self.into_scalar_of(&pg_type)
    }

    /// As a decimal of `pg_type`, which holds the value exactly.
    pub(super) fn into_scalar_of(self, pg_type: &PgType) -> Result<ScalarValue> {
        let PgType::Numeric { precision, scale } = *pg_type else {
            return Err(Error::internal(format!("a numeric cannot be read as {pg_type}")));
        };
        let is_negative = self.is_negative;
        let digits = self.with_scale(scale.unsigned_abs().into()).digits;
        let text = format!("{}{}", if is_negative { "-" } else { "" }, if digits.is_empty() { "0" } else { &digits });
        if precision <= DECIMAL128_MAX_PRECISION {
            let value = text.parse::<i128>().map_err(|_| too_wide())?;
            return Ok(ScalarValue::Decimal128(Some(value), precision, scale));
        }
        let value = i256::from_string(&text).ok_or_else(too_wide)?;
        Ok(ScalarValue::Decimal256(Some(value), precision, scale))
    }
}

fn too_wide() -> Error {
    Error::new(Code::NumericOutOfRange, "value overflows numeric format")
        .with_detail(format!("A numeric has at most {DECIMAL256_MAX_PRECISION} digits."))
}

fn not_finite(text: &str) -> Error {
    Error::new(Code::NumericOutOfRange, format!("value \"{text}\" is not supported for type numeric"))
}
