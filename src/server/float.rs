//! Floats as PostgreSQL shows them with `extra_float_digits` 1: the fewest digits that read back as the same float.

use std::fmt::{LowerExp, Write};
use std::str::FromStr;

use bytes::{BufMut, BytesMut};

use crate::error::{Error, Result};
use crate::server::encode_text::write_integer;

pub(super) fn write_float8(value: f64, out: &mut BytesMut) -> Result<()> {
    if !value.is_finite() || value == 0.0 {
        write_special(value, out);
        return Ok(());
    }
    let bits = value.abs().to_bits();
    let fraction = bits & ((1 << 52) - 1);
    let exponent = (bits >> 52) as i32;
    let binary = match exponent {
        0 => Binary { mantissa: fraction, exponent: -1074, is_lowest: false },
        _ => {
            Binary { mantissa: fraction | 1 << 52, exponent: exponent - 1075, is_lowest: fraction == 0 && exponent > 1 }
        }
    };
    write_shortest(value, binary, 15, out)
}

pub(super) fn write_float4(value: f32, out: &mut BytesMut) -> Result<()> {
    if !value.is_finite() || value == 0.0 {
        write_special(value.into(), out);
        return Ok(());
    }
    let bits = value.abs().to_bits();
    let fraction = u64::from(bits & ((1 << 23) - 1));
    let exponent = (bits >> 23) as i32;
    let binary = match exponent {
        0 => Binary { mantissa: fraction, exponent: -149, is_lowest: false },
        _ => {
            Binary { mantissa: fraction | 1 << 23, exponent: exponent - 150, is_lowest: fraction == 0 && exponent > 1 }
        }
    };
    write_shortest(value, binary, 6, out)
}

fn write_special(value: f64, out: &mut BytesMut) {
    out.put_slice(match value {
        v if v.is_nan() => b"NaN",
        v if v == f64::INFINITY => b"Infinity",
        v if v == f64::NEG_INFINITY => b"-Infinity",
        v if v.is_sign_negative() => b"-0",
        _ => b"0",
    });
}

/// The magnitude of a float: `mantissa` times two to the `exponent`.
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// Whether the next float below is only half as far away as the next above.
    is_lowest: bool,
}

impl Binary {
    /// Whether `digits * 10^exponent` lies exactly half way from this float to a neighbour.
    fn has_boundary(&self, digits: u64, exponent: i32) -> bool {
        let below = match self.is_lowest {
            true => (4 * self.mantissa - 1, self.exponent - 2),
            false => (2 * self.mantissa - 1, self.exponent - 1),
        };
        equals(digits, exponent, 2 * self.mantissa + 1, self.exponent - 1) || equals(digits, exponent, below.0, below.1)
    }

    /// Whether this float lies exactly half way from `(digits - 1) * 10^exponent` to `digits * 10^exponent`.
    fn is_tie(&self, digits: u64, exponent: i32) -> bool {
        equals(2 * digits - 1, exponent, self.mantissa, self.exponent + 1)
    }
}

/// Whether `decimal * 10^decimal_exponent` is `binary * 2^binary_exponent`.
fn equals(decimal: u64, decimal_exponent: i32, binary: u64, binary_exponent: i32) -> bool {
    // Both sides are an odd number times a power of two. The odd ones are below 2^57, so a power of five beyond 27 is in neither.
    if decimal == 0 || binary == 0 || decimal_exponent.abs() > 27 {
        return false;
    }
    let power = |number: u64, exponent: i32| i64::from(number.trailing_zeros()) + i64::from(exponent);
    if power(decimal, decimal_exponent) != power(binary, binary_exponent) {
        return false;
    }
    let odd = |number: u64| u128::from(number >> number.trailing_zeros());
    let fives = 5u128.pow(decimal_exponent.unsigned_abs());
    let (left, right) = match decimal_exponent {
        0.. => (odd(decimal).checked_mul(fives), Some(odd(binary))),
        _ => (Some(odd(decimal)), odd(binary).checked_mul(fives)),
    };
    left.is_some() && left == right
}

/// Writes the fewest digits that read back as the same float, as PostgreSQL does since version 12.
fn write_shortest<F>(value: F, binary: Binary, max_exponent: i32, out: &mut BytesMut) -> Result<()>
where
    F: Copy + LowerExp + FromStr + PartialEq,
{
    let mut text = Scratch::default();
    let mut decimal = text.format(format_args!("{value:e}"))?;
    // Half way between two decimals of that length Rust takes the upper one, PostgreSQL the even one.
    if decimal.number() % 2 == 1 && binary.is_tie(decimal.number(), decimal.last_exponent()) {
        let precision = decimal.count - 1;
        let even = text.format(format_args!("{value:.precision$e}"))?;
        // Below a power of two floats lie closer together, and the even one may be another float's.
        if text.reads_back_as(value) {
            decimal = even;
        }
    }
    // Rust takes a decimal that lies half way to the next float, as readers round it to the even one.
    // PostgreSQL trusts no reader to do so and writes a digit more.
    while decimal.count < 17 && binary.has_boundary(decimal.number(), decimal.last_exponent()) {
        let precision = decimal.count;
        decimal = text.format(format_args!("{value:.precision$e}"))?;
    }
    decimal.write(max_exponent, out);
    Ok(())
}
/// Room for one float as Rust writes it, without an allocation.
#[derive(Default)]
struct Scratch {
    bytes: [u8; 32],
    len: usize,
}

impl Write for Scratch {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl Scratch {
    fn format(&mut self, arguments: std::fmt::Arguments<'_>) -> Result<Decimal> {
        self.len = 0;
        self.write_fmt(arguments).map_err(|_| Error::internal("a float takes more than 32 characters"))?;
        Decimal::of(&self.bytes[..self.len])
    }

    fn reads_back_as<F: FromStr + PartialEq>(&self, value: F) -> bool {
        let text = std::str::from_utf8(&self.bytes[..self.len]).ok();
        text.and_then(|text| text.parse().ok()).is_some_and(|read: F| read == value)
    }
}

/// A float in scientific notation: `digits[0].digits[1]…` times ten to the `exponent`.
struct Decimal {
    digits: [u8; 17],
    count: usize,
    exponent: i32,
    is_negative: bool,
}

impl Decimal {
    fn of(text: &[u8]) -> Result<Decimal> {
        let malformed = || Error::internal("a float was not written in scientific notation");
        let split = text.iter().position(|byte| *byte == b'e').ok_or_else(malformed)?;
        let exponent = std::str::from_utf8(&text[split + 1..]).ok().and_then(|text| text.parse().ok());
        let mut decimal = Decimal {
            digits: [0; 17],
            count: 0,
            exponent: exponent.ok_or_else(malformed)?,
            is_negative: text.first() == Some(&b'-'),
        };
        for digit in text[..split].iter().filter(|byte| byte.is_ascii_digit()) {
            *decimal.digits.get_mut(decimal.count).ok_or_else(malformed)? = *digit;
            decimal.count += 1;
        }
        Ok(decimal)
    }

    /// With an exponent below 0.0001 and from ten to the `max_exponent` on.
    fn write(&self, max_exponent: i32, out: &mut BytesMut) {
        let (exponent, digits) = (self.exponent, self.digits());
        if self.is_negative {
            out.put_u8(b'-');
        }
        if exponent < -4 || exponent >= max_exponent {
            out.put_slice(&digits[..1]);
            if digits.len() > 1 {
                out.put_u8(b'.');
                out.put_slice(&digits[1..]);
            }
            out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
            if exponent.abs() < 10 {
                out.put_u8(b'0');
            }
            write_integer(exponent.abs().into(), out);
            return;
        }
        if exponent < 0 {
            out.put_slice(b"0.");
            out.put_bytes(b'0', exponent.unsigned_abs() as usize - 1);
            out.put_slice(digits);
            return;
        }
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            out.put_slice(digits);
            out.put_bytes(b'0', whole - digits.len());
            return;
        }
        out.put_slice(&digits[..whole]);
        out.put_u8(b'.');
        out.put_slice(&digits[whole..]);
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }

    /// The power of ten of the last digit.
    fn last_exponent(&self) -> i32 {
        self.exponent + 1 - self.count as i32
    }

    fn number(&self) -> u64 {
        self.digits().iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }
}
