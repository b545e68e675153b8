//! PostgreSQL's binary numeric into Arrow's decimals: exact, or an error.

use std::fmt;
use std::marker::PhantomData;

use datafusion::arrow::array::ArrowNativeTypeOp;
use datafusion::arrow::datatypes::{ArrowNativeType, DecimalType};

use crate::error::{Code, Error};

/// Decimal digits in each of PostgreSQL's "digits".
const GROUP_DIGITS: i32 = 4;
const NAN: u16 = 0xC000;
const NEGATIVE: u16 = 0x4000;
const INFINITIES: [u16; 2] = [0xD000, 0xF000];

/// A decimal type of Arrow: digits in all and behind the point.
pub(super) struct Decimal<T> {
    precision: u8,
    scale: i8,
    native: PhantomData<T>,
}

/// Why a numeric has no exact place in a decimal.
pub(super) struct Misfit {
    what: &'static str,
    precision: u8,
    scale: i8,
}

impl Misfit {
    pub(super) fn of_column(self, column: &str) -> Error {
        Error::new(Code::NumericOutOfRange, format!("column \"{column}\" holds {self}"))
            .with_hint(format!("Give \"{column}\" another type in \"types\" of the lookup table."))
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, which numeric({},{}) cannot hold", self.what, self.precision, self.scale)
    }
}

impl<T: DecimalType> Decimal<T>
where
    T::Native: ArrowNativeTypeOp,
{
    pub(super) fn new(precision: u8, scale: i8) -> Self {
        Decimal { precision, scale, native: PhantomData }
    }

    /// The value times ten to the power of the scale. `bytes` hold four words (count of base-10000 digits, weight of
    /// the first, sign, digits to display), then the digits; see `numeric_send` in PostgreSQL's `numeric.c`.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<T::Native, Misfit> {
        let word = |i: usize| bytes.get(2 * i..2 * i + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]));
        let (count, weight, sign) = (usize::from(word(0)), i32::from(word(1) as i16), word(2));
        if sign == NAN {
            return Err(self.misfit("NaN"));
        }
        if INFINITIES.contains(&sign) {
            return Err(self.misfit("an infinite value"));
        }
        let mut value = T::Native::ZERO;
        let mut exponent = 0;
        for i in 0..count {
            exponent = GROUP_DIGITS * (weight - i as i32) + i32::from(self.scale);
            value = self.add_group(value, usize::from(word(4 + i)), exponent)?;
        }
        // Trailing zeros are not sent.
        if count > 0 && exponent > 0 {
            value = self.shift(value, exponent)?;
        }
        if sign == NEGATIVE {
            value = value.neg_wrapping();
        }
        match T::validate_decimal_precision(value, self.precision, self.scale) {
            Ok(()) => Ok(value),
            Err(_) => Err(self.misfit("a value")),
        }
    }

    /// Appends four decimal digits, the last of which counts ten to the power of `exponent`; those below one must be zeros.
    fn add_group(&self, value: T::Native, group: usize, exponent: i32) -> Result<T::Native, Misfit> {
        let below = (-exponent).clamp(0, GROUP_DIGITS);
        let divisor = 10_usize.pow(below as u32);
        if !group.is_multiple_of(divisor) {
            return Err(self.misfit("a value with more digits behind the point"));
        }
        let digits = T::Native::usize_as(group / divisor);
        let value = self.shift(value, GROUP_DIGITS - below)?;
        value.add_checked(digits).map_err(|_| self.misfit("a value"))
    }

    fn shift(&self, mut value: T::Native, digits: i32) -> Result<T::Native, Misfit> {
        if value.is_zero() {
            return Ok(value);
        }
        let mut left = digits;
        while left > 0 {
            let step = left.min(GROUP_DIGITS);
            let factor = T::Native::usize_as(10_usize.pow(step as u32));
            value = value.mul_checked(factor).map_err(|_| self.misfit("a value"))?;
            left -= step;
        }
        Ok(value)
    }

    fn misfit(&self, what: &'static str) -> Misfit {
        Misfit { what, precision: self.precision, scale: self.scale }
    }
}
