//! Columns whose values fit slots: booleans, integers, decimals, dates, times and uuids, in their most common forms.

use std::cell::Cell;

use datafusion::arrow::array::{Array, ArrowPrimitiveType, AsArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampNanosecondType,
};

use crate::error::Result;
use crate::pg_type::PgType;
use crate::server::encode::{Format, ValueSettings};
use crate::server::encode_slot::{FillSlots, Slot, fill_each};
use crate::server::encode_time::{Civil, MICROS_PER_DAY, date_since_2000, micros_since_2000};
use crate::server::numeric::{SIGN_NEGATIVE, SIGN_POSITIVE};

/// What fills slots with the values of a column; `None` for columns that have to be written value by value.
pub(super) fn fill_slots<'a>(
    array: &'a dyn Array,
    pg_type: &PgType,
    format: Format,
    settings: ValueSettings,
) -> Option<FillSlots<'a>> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
    let is_text = format == Format::Text;
    match (pg_type, array.data_type()) {
        (PgType::Bool, DataType::Boolean) => {
            let array = array.as_boolean_opt()?;
            let forms = if is_text { *b"ft" } else { [0, 1] };
            Some(fill_each(nulls, move |row, slot| {
                slot.put(forms[usize::from(array.value(row))]);
                Ok(())
            }))
        }
        (PgType::Int8, DataType::Int64) => Some(match format {
            Format::Text => integers::<Int64Type>(array, nulls)?,
            Format::Binary => big_endian::<Int64Type, 8>(array, nulls, i64::to_be_bytes)?,
        }),
        (PgType::Int4, DataType::Int32) => Some(match format {
            Format::Text => integers::<Int32Type>(array, nulls)?,
            Format::Binary => big_endian::<Int32Type, 4>(array, nulls, i32::to_be_bytes)?,
        }),
        (PgType::Int2, DataType::Int16) => Some(match format {
            Format::Text => integers::<Int16Type>(array, nulls)?,
            Format::Binary => big_endian::<Int16Type, 2>(array, nulls, i16::to_be_bytes)?,
        }),
        (PgType::Numeric { .. }, DataType::Decimal128(_, scale)) => {
            let values = array.as_primitive_opt::<Decimal128Type>()?.values();
            let scale = u32::try_from(*scale).ok().filter(|scale| *scale <= 38)?;
            Some(match format {
                Format::Text => fill_each(nulls, move |row, slot| {
                    slot.put_decimal(values[row], scale);
                    Ok(())
                }),
                Format::Binary => fill_each(nulls, move |row, slot| {
                    put_binary_decimal(values[row], scale, slot);
                    Ok(())
                }),
            })
        }
        (PgType::Uuid, DataType::FixedSizeBinary(16)) => {
            let array = array.as_fixed_size_binary_opt()?;
            Some(fill_each(nulls, move |row, slot| {
                match (uuid::Uuid::from_slice(array.value(row)), is_text) {
                    (Ok(uuid), true) => {
                        slot.put_slice(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
                    }
                    (Ok(uuid), false) => slot.put_array(uuid.into_bytes()),
                    // The array's type says that each has sixteen bytes.
                    (Err(_), _) => {}
                }
                Ok(())
            }))
        }
        _ => moments(array, pg_type, format, settings, nulls),
    }
}

fn moments<'a>(
    array: &'a dyn Array,
    pg_type: &PgType,
    format: Format,
    settings: ValueSettings,
    nulls: Option<NullBuffer>,
) -> Option<FillSlots<'a>> {
    match (pg_type, array.data_type(), format) {
        (PgType::Date, DataType::Date32, Format::Binary) => {
            let values = array.as_primitive_opt::<Date32Type>()?.values();
            Some(fill_each(nulls, move |row, slot| {
                slot.put_array(date_since_2000(values[row].into())?.to_be_bytes());
                Ok(())
            }))
        }
        (PgType::Date, DataType::Date32, Format::Text) => {
            let values = array.as_primitive_opt::<Date32Type>()?.values();
            let last = LastDay::default();
            Some(fill_each(nulls, move |row, slot| {
                last.put(values[row].into(), slot);
                last.put_era(slot);
                Ok(())
            }))
        }
        (PgType::Time, DataType::Time64(TimeUnit::Microsecond), Format::Text) => {
            let values = array.as_primitive_opt::<Time64MicrosecondType>()?.values();
            Some(fill_each(nulls, move |row, slot| {
                put_time(values[row], slot);
                Ok(())
            }))
        }
        (PgType::Timestamp | PgType::Timestamptz, DataType::Timestamp(TimeUnit::Microsecond, _), _) => {
            let values = array.as_primitive_opt::<TimestampMicrosecondType>()?.values();
            timestamps(move |row| values[row], pg_type, format, settings, nulls)
        }
        (PgType::Timestamp | PgType::Timestamptz, DataType::Timestamp(TimeUnit::Nanosecond, _), _) => {
            let values = array.as_primitive_opt::<TimestampNanosecondType>()?.values();
            timestamps(move |row| values[row].div_euclid(1000), pg_type, format, settings, nulls)
        }
        _ => None,
    }
}

fn integers<'a, T>(array: &'a dyn Array, nulls: Option<NullBuffer>) -> Option<FillSlots<'a>>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    let values = array.as_primitive_opt::<T>()?.values();
    Some(fill_each(nulls, move |row, slot| {
        slot.put_integer(values[row].into());
        Ok(())
    }))
}

fn big_endian<'a, T: ArrowPrimitiveType, const N: usize>(
    array: &'a dyn Array,
    nulls: Option<NullBuffer>,
    bytes: fn(T::Native) -> [u8; N],
) -> Option<FillSlots<'a>> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(fill_each(nulls, move |row, slot| {
        slot.put_array(bytes(values[row]));
        Ok(())
    }))
}

/// The binary form of `numeric_send`: count of digits of base 10,000, weight of the first, sign, scale, digits.
fn put_binary_decimal(value: i128, scale: u32, slot: &mut Slot<'_>) {
    const GROUPS: usize = 11;
    let sign = if value < 0 { SIGN_NEGATIVE } else { SIGN_POSITIVE };
    // Groups of four digits are counted from the point.
    let fraction_groups = scale.div_ceil(4);
    let missing = 10_u128.pow(fraction_groups * 4 - scale);
    let value = value.unsigned_abs();
    let mut groups = [0_u16; GROUPS];
    let mut first = GROUPS;
    // The lowest group may be short of digits; what it lacks are zeros.
    let unit = 10_000 / missing;
    let mut rest = value / unit;
    groups[GROUPS - 1] = (value % unit * missing) as u16;
    if groups[GROUPS - 1] != 0 {
        first = GROUPS - 1;
    }
    let mut at = GROUPS - 1;
    while rest > 0 {
        at -= 1;
        let (group, above) = match u64::try_from(rest) {
            Ok(rest) => ((rest % 10_000) as u16, u128::from(rest / 10_000)),
            Err(_) => ((rest % 10_000) as u16, rest / 10_000),
        };
        groups[at] = group;
        rest = above;
        if group != 0 {
            first = at;
        }
    }
    let used = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let weight = if first == GROUPS { 0 } else { GROUPS as i16 - first as i16 - 1 - fraction_groups as i16 };
    let sign = if first == GROUPS { SIGN_POSITIVE } else { sign };
    slot.put_array(((used - first) as u16).to_be_bytes());
    slot.put_array(weight.to_be_bytes());
    slot.put_array(sign.to_be_bytes());
    slot.put_array((scale as u16).to_be_bytes());
    for group in &groups[first..used] {
        slot.put_array(group.to_be_bytes());
    }
}

fn timestamps<'a>(
    micros: impl Fn(usize) -> i64 + 'a,
    pg_type: &PgType,
    format: Format,
    settings: ValueSettings,
    nulls: Option<NullBuffer>,
) -> Option<FillSlots<'a>> {
    if format == Format::Binary {
        return Some(fill_each(nulls, move |row, slot| -> Result<()> {
            slot.put_array(micros_since_2000(micros(row))?.to_be_bytes());
            Ok(())
        }));
    }
    let zone = match pg_type {
        PgType::Timestamptz if settings.time_zone == chrono_tz::UTC => &b"+00"[..],
        PgType::Timestamp => b"",
        // A zone's distance from UTC depends on the moment.
        _ => return None,
    };
    let last = LastDay::default();
    Some(fill_each(nulls, move |row, slot| {
        let micros = micros(row);
        last.put(micros.div_euclid(MICROS_PER_DAY), slot);
        slot.put(b' ');
        put_time(micros.rem_euclid(MICROS_PER_DAY), slot);
        slot.put_slice(zone);
        last.put_era(slot);
        Ok(())
    }))
}

/// `HH:MM:SS` and the fraction of a second without trailing zeros; `micros` since midnight.
fn put_time(micros: i64, slot: &mut Slot<'_>) {
    let (seconds, fraction) = (micros as u64 / 1_000_000, micros as u64 % 1_000_000);
    match seconds / 3600 {
        hours @ 0..100 => slot.put_pair(hours),
        hours => slot.put_unsigned(hours),
    }
    slot.put(b':');
    slot.put_pair(seconds / 60 % 60);
    slot.put(b':');
    slot.put_pair(seconds % 60);
    if fraction == 0 {
        return;
    }
    slot.put(b'.');
    let (mut fraction, mut digits) = (fraction, 6);
    while fraction % 10 == 0 {
        fraction /= 10;
        digits -= 1;
    }
    slot.put_digits(fraction, digits);
}

/// The day that was written last: neighbours in a column are mostly of one day.
#[derive(Default)]
struct LastDay {
    /// Days since 1970, with its year, month and day.
    day: Cell<Option<(i64, Civil)>>,
}

impl LastDay {
    fn civil(&self, days: i64) -> Civil {
        match self.day.get() {
            Some((known, civil)) if known == days => civil,
            _ => {
                let civil = Civil::of_days(days);
                self.day.set(Some((days, civil)));
                civil
            }
        }
    }

    /// `YYYY-MM-DD`, with as many digits as the year needs, four at least.
    fn put(&self, days: i64, slot: &mut Slot<'_>) {
        let civil = self.civil(days);
        let year = if civil.year > 0 { civil.year } else { 1 - civil.year } as u64;
        match year < 10_000 {
            true => slot.put_digits(year, 4),
            false => slot.put_unsigned(year),
        }
        slot.put(b'-');
        slot.put_pair(civil.month as u64);
        slot.put(b'-');
        slot.put_pair(civil.day as u64);
    }

    /// Behind the day that was written last.
    fn put_era(&self, slot: &mut Slot<'_>) {
        if self.day.get().is_some_and(|(_, civil)| civil.year <= 0) {
            slot.put_slice(b" BC");
        }
    }
}
