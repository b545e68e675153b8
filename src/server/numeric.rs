//! Decimals as PostgreSQL's `numeric`: as text, and in binary as digits of base 10,000.

use bytes::{BufMut, BytesMut};
use datafusion::arrow::datatypes::i256;

use crate::error::{Error, Result};

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
