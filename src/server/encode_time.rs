//! Dates, times and intervals as PostgreSQL shows them with `DateStyle` ISO and `IntervalStyle` postgres.
//!
//! Arrow counts from 1970, PostgreSQL's binary forms from 2000.

use bytes::{BufMut, BytesMut};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::arrow::datatypes::TimeUnit;

use crate::error::{Code, Error, Result};
use crate::format::time_zone::with_known_rules;
use crate::server::encode_text::write_integer;

pub(super) const MICROS_PER_DAY: i64 = 86_400_000_000;
/// From 1970-01-01 to 2000-01-01.
pub(super) const DAYS_TO_2000: i64 = 10_957;
const MICROS_TO_2000: i64 = DAYS_TO_2000 * MICROS_PER_DAY;

/// Parts as PostgreSQL keeps them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

pub(super) fn out_of_range(what: &str) -> Error {
    Error::new(Code::DatetimeOverflow, format!("{what} out of range"))
}

/// `None` where microseconds overflow. Parts of a microsecond are dropped towards the past.
pub(super) fn to_micros(unit: TimeUnit, value: i64) -> Option<i64> {
    match unit {
        TimeUnit::Second => value.checked_mul(1_000_000),
        TimeUnit::Millisecond => value.checked_mul(1000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond => Some(value.div_euclid(1000)),
    }
}

/// Days since 1970 to those since 2000.
pub(super) fn date_since_2000(days: i64) -> Result<i32> {
    i32::try_from(days - DAYS_TO_2000).map_err(|_| out_of_range("date"))
}

/// Microseconds since 1970 to those since 2000.
pub(super) fn micros_since_2000(micros: i64) -> Result<i64> {
    micros.checked_sub(MICROS_TO_2000).ok_or_else(|| out_of_range("timestamp"))
}

/// A day of the proleptic Gregorian calendar; year 0 is 1 BC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
}

impl Civil {
    /// From days since 1970: `civil_from_days` of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
    pub(super) fn of_days(days: i64) -> Civil {
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
        }
    }

    /// `YYYY-MM-DD`, with as many digits as the year needs, four at least. The caller adds [`Civil::write_era`].
    fn write(self, out: &mut BytesMut) {
        let year = if self.year > 0 { self.year } else { 1 - self.year };
        if year < 10_000 {
            write_pair(year / 100, out);
            write_pair(year % 100, out);
        } else {
            write_integer(year, out);
        }
        out.put_u8(b'-');
        write_pair(self.month, out);
        out.put_u8(b'-');
        write_pair(self.day, out);
    }

    fn write_era(self, out: &mut BytesMut) {
        if self.year <= 0 {
            out.put_slice(b" BC");
        }
    }
}

/// Two digits of a number below 100.
pub(super) fn write_pair(number: i64, out: &mut BytesMut) {
    out.put_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
}

/// `days` since 1970.
pub(super) fn write_date(days: i64, out: &mut BytesMut) {
    let date = Civil::of_days(days);
    date.write(out);
    date.write_era(out);
}

/// `micros` since midnight.
pub(super) fn write_time(micros: i64, out: &mut BytesMut) {
    let seconds = micros / 1_000_000;
    write_hours(seconds / 3600, out);
    write_minutes_and_seconds(seconds, micros % 1_000_000, out);
}

/// `micros` since 1970.
pub(super) fn write_timestamp(micros: i64, out: &mut BytesMut) {
    write_local(micros, None, out);
}

/// `micros` since 1970, shown in `zone` with its distance from UTC.
pub(super) fn write_timestamptz(micros: i64, zone: Tz, out: &mut BytesMut) -> Result<()> {
    let offset = utc_offset(micros, zone);
    let local = micros.checked_add(offset * 1_000_000).ok_or_else(|| out_of_range("timestamp"))?;
    write_local(local, Some(offset), out);
    Ok(())
}

fn write_local(micros: i64, offset: Option<i64>, out: &mut BytesMut) {
    let date = Civil::of_days(micros.div_euclid(MICROS_PER_DAY));
    date.write(out);
    out.put_u8(b' ');
    write_time(micros.rem_euclid(MICROS_PER_DAY), out);
    if let Some(offset) = offset {
        write_offset(offset, out);
    }
    date.write_era(out);
}

/// `+05:30`: minutes and seconds only where there are any.
fn write_offset(offset: i64, out: &mut BytesMut) {
    out.put_u8(if offset < 0 { b'-' } else { b'+' });
    let offset = offset.abs();
    write_pair(offset / 3600, out);
    if offset % 3600 != 0 {
        out.put_u8(b':');
        write_pair(offset / 60 % 60, out);
    }
    if offset % 60 != 0 {
        out.put_u8(b':');
        write_pair(offset % 60, out);
    }
}

/// Seconds east of UTC in `zone` at `micros` since 1970.
pub(super) fn utc_offset(micros: i64, zone: Tz) -> i64 {
    if zone == Tz::UTC {
        return 0;
    }
    offset_in(micros, zone).map_or(0, |offset| i64::from(offset.fix().local_minus_utc()))
}

/// What clocks in `zone` show at `micros` since 1970.
pub(super) fn offset_in(micros: i64, zone: Tz) -> Option<<Tz as TimeZone>::Offset> {
    let instant = DateTime::from_timestamp_micros(with_known_rules(micros));
    instant.map(|instant| zone.offset_from_utc_datetime(&instant.naive_utc()))
}

/// Two digits at least.
fn write_hours(hours: i64, out: &mut BytesMut) {
    if hours < 100 {
        write_pair(hours, out);
    } else {
        write_integer(hours, out);
    }
}

/// `:MM:SS` and the fraction of a second without trailing zeros.
pub(super) fn write_minutes_and_seconds(seconds: i64, micros: i64, out: &mut BytesMut) {
    out.put_u8(b':');
    write_pair(seconds / 60 % 60, out);
    out.put_u8(b':');
    write_pair(seconds % 60, out);
    if micros == 0 {
        return;
    }
    out.put_u8(b'.');
    write_pair(micros / 10_000, out);
    write_pair(micros / 100 % 100, out);
    write_pair(micros % 100, out);
    while out.last() == Some(&b'0') {
        out.truncate(out.len() - 1);
    }
}

/// `EncodeInterval` of PostgreSQL: a part's sign is shown with `+` after a negative part.
pub(super) fn write_interval(interval: Interval, out: &mut BytesMut) {
    let parts =
        [(interval.months / 12, &b" year"[..]), (interval.months % 12, &b" mon"[..]), (interval.days, &b" day"[..])];
    let mut is_first = true;
    let mut after_negative = false;
    for (value, unit) in parts.into_iter().filter(|(value, _)| *value != 0) {
        if !is_first {
            out.put_u8(b' ');
        }
        if after_negative && value > 0 {
            out.put_u8(b'+');
        }
        write_integer(value.into(), out);
        out.put_slice(unit);
        if value != 1 {
            out.put_u8(b's');
        }
        is_first = false;
        after_negative = value < 0;
    }
    if interval.micros == 0 && !is_first {
        return;
    }
    if !is_first {
        out.put_u8(b' ');
    }
    if interval.micros < 0 {
        out.put_u8(b'-');
    } else if after_negative {
        out.put_u8(b'+');
    }
    let micros = interval.micros.unsigned_abs();
    let seconds = (micros / 1_000_000) as i64;
    write_hours(seconds / 3600, out);
    write_minutes_and_seconds(seconds, (micros % 1_000_000) as i64, out);
}
