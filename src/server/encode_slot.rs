//! Values that are short whatever they are, a column at a time: each in a slot of one size, so that putting rows
//! together copies a fixed number of bytes instead of asking how many.

use std::ops::Range;

use datafusion::arrow::buffer::NullBuffer;

use crate::error::{Error, Result};

/// Room for the longest: an i128 with a sign, a point and a zero before it has 42.
pub(super) const SLOT_BYTES: usize = 48;

/// The length of NULL.
const NULL: u8 = u8::MAX;

/// "00" to "99".
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// The values of one column for a run of rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    bytes: Vec<[u8; SLOT_BYTES]>,
    lengths: Vec<u8>,
}

/// Fills slots with the values of rows, up to one that has no form; tells how many, and why not more.
pub(super) type FillSlots<'a> = Box<dyn Fn(Range<usize>, &mut Slots) -> (usize, Option<Error>) + 'a>;

/// Fills slots by `write`, which is called for rows that are not NULL.
pub(super) fn fill_each<'a>(
    nulls: Option<NullBuffer>,
    write: impl Fn(usize, &mut Slot<'_>) -> Result<()> + 'a,
) -> FillSlots<'a> {
    Box::new(move |rows, slots| {
        slots.bytes.resize(rows.len().max(slots.bytes.len()), [0; SLOT_BYTES]);
        slots.lengths.resize(rows.len().max(slots.lengths.len()), NULL);
        let count = rows.len();
        for (index, row) in rows.enumerate() {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                slots.lengths[index] = NULL;
                continue;
            }
            let mut slot = Slot { bytes: &mut slots.bytes[index], length: 0 };
            if let Err(error) = write(row, &mut slot) {
                return (index, Some(error));
            }
            slots.lengths[index] = slot.length as u8;
        }
        (count, None)
    })
}

impl Slots {
    /// A value with what lies behind it in its slot, and its length; `None` for NULL.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8; SLOT_BYTES], usize)> {
        match self.lengths[index] {
            NULL => None,
            length => Some((&self.bytes[index], usize::from(length))),
        }
    }
}

/// One value that is being written.
pub(super) struct Slot<'a> {
    bytes: &'a mut [u8; SLOT_BYTES],
    length: usize,
}

impl Slot<'_> {
    pub(super) fn put(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    pub(super) fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.length..self.length + N].copy_from_slice(&bytes);
        self.length += N;
    }

    pub(super) fn put_slice(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Two digits of a number below 100.
    pub(super) fn put_pair(&mut self, number: u64) {
        self.put_array(PAIRS[number as usize]);
    }

    pub(super) fn put_integer(&mut self, value: i64) {
        if value < 0 {
            self.put(b'-');
        }
        self.put_unsigned(value.unsigned_abs());
    }

    pub(super) fn put_unsigned(&mut self, value: u64) {
        let digits = value.checked_ilog10().unwrap_or(0) as usize + 1;
        self.put_digits(value, digits);
    }

    /// The lowest `digits` digits of a number, with zeros before it.
    pub(super) fn put_digits(&mut self, mut value: u64, digits: usize) {
        let start = self.length;
        self.length += digits;
        let room = &mut self.bytes[start..start + digits];
        let mut pairs = room.rchunks_exact_mut(2);
        for pair in &mut pairs {
            pair.copy_from_slice(&PAIRS[(value % 100) as usize]);
            value /= 100;
        }
        if let [first] = pairs.into_remainder() {
            *first = b'0' + (value % 10) as u8;
        }
    }

    /// All digits of a number of any size.
    pub(super) fn put_wide(&mut self, value: u128) {
        const LOW_DIGITS: u32 = 19;
        let unit = 10_u128.pow(LOW_DIGITS);
        match u64::try_from(value) {
            Ok(value) => self.put_unsigned(value),
            Err(_) => {
                // Not deeper than twice: 2^128 has 39 digits.
                self.put_wide(value / unit);
                self.put_digits((value % unit) as u64, LOW_DIGITS as usize);
            }
        }
    }

    /// A number divided by ten to the `scale`, with exactly `scale` digits behind the point.
    pub(super) fn put_decimal(&mut self, value: i128, scale: u32) {
        if value < 0 {
            self.put(b'-');
        }
        let value = value.unsigned_abs();
        if scale == 0 {
            return self.put_wide(value);
        }
        if let (Ok(value), true) = (u64::try_from(value), scale < 19) {
            let unit = 10_u64.pow(scale);
            self.put_unsigned(value / unit);
            self.put(b'.');
            return self.put_digits(value % unit, scale as usize);
        }
        let unit = 10_u128.pow(scale);
        self.put_wide(value / unit);
        self.put(b'.');
        let fraction = value % unit;
        let high_digits = scale.saturating_sub(19);
        let low_unit = 10_u128.pow(scale - high_digits);
        self.put_digits((fraction / low_unit) as u64, high_digits as usize);
        self.put_digits((fraction % low_unit) as u64, (scale - high_digits) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Slot<'_>)) -> String {
        let mut bytes = [0; SLOT_BYTES];
        let mut slot = Slot { bytes: &mut bytes, length: 0 };
        write(&mut slot);
        let length = slot.length;
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn numbers_of_every_length_are_written_as_the_standard_library_does() {
        for digits in 0..19 {
            for value in
                [10_i64.pow(digits) - 1, 10_i64.pow(digits), 7 * 10_i64.pow(digits).min(10_i64.pow(17)), i64::MAX]
            {
                assert_eq!(written(|slot| slot.put_integer(value)), value.to_string());
                assert_eq!(written(|slot| slot.put_integer(-value)), (-value).to_string());
            }
        }
        assert_eq!(written(|slot| slot.put_integer(i64::MIN)), i64::MIN.to_string());
        for value in [0, u128::from(u64::MAX), u128::from(u64::MAX) + 1, 10_u128.pow(19), 10_u128.pow(38), u128::MAX] {
            assert_eq!(written(|slot| slot.put_wide(value)), value.to_string());
        }
    }

    #[test]
    fn the_longest_decimals_fit() {
        assert_eq!(written(|slot| slot.put_decimal(-12345, 2)), "-123.45");
        assert_eq!(written(|slot| slot.put_decimal(5, 2)), "0.05");
        assert_eq!(written(|slot| slot.put_decimal(0, 0)), "0");
        assert_eq!(written(|slot| slot.put_decimal(i128::MIN, 38)), "-1.70141183460469231731687303715884105728");
        assert_eq!(written(|slot| slot.put_decimal(-1, 38)), format!("-0.{:0>38}", 1));
        assert_eq!(written(|slot| slot.put_decimal(208_840_000_000_000_000_000, 18)), "208.840000000000000000");
        assert_eq!(written(|slot| slot.put_decimal(10_i128.pow(38), 19)), "10000000000000000000.0000000000000000000");
    }
}
