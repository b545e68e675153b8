//! Values in the styles that sessions may ask for instead of the usual ones: `DateStyle` SQL, Postgres and German,
//! the other `IntervalStyle`s, `bytea_output` escape, and floats with fewer digits than they have.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use chrono_tz::{OffsetName, Tz};

use crate::format::settings::{DateForm, DateOrder, DateStyle, IntervalStyle};
use crate::server::encode_text::write_integer;
use crate::server::encode_time::{
    Civil, Interval, MICROS_PER_DAY, offset_in, write_interval, write_minutes_and_seconds, write_pair, write_time,
};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// `EncodeDateOnly` of PostgreSQL, for every form but ISO; `days` since 1970.
pub(super) fn write_styled_date(days: i64, style: DateStyle, out: &mut BytesMut) {
    let date = Civil::of_days(days);
    write_numbers(date, style, out);
    write_era(date, out);
}

/// `EncodeDateTime` of PostgreSQL, for every form but ISO. `micros` since 1970 are those of the clock that is shown;
/// `zone` is where it hangs, with its distance from UTC.
pub(super) fn write_styled_timestamp(micros: i64, zone: Option<(Tz, i64)>, style: DateStyle, out: &mut BytesMut) {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let date = Civil::of_days(days);
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    if style.form == DateForm::Postgres {
        // 1970 began on a Thursday.
        out.put_slice(DAYS[(days + 4).rem_euclid(7) as usize].as_bytes());
        out.put_u8(b' ');
        let month = MONTHS[(date.month - 1).rem_euclid(12) as usize].as_bytes();
        if style.order == DateOrder::DayMonthYear {
            write_pair(date.day, out);
            out.put_u8(b' ');
            out.put_slice(month);
        } else {
            out.put_slice(month);
            out.put_u8(b' ');
            write_pair(date.day, out);
        }
        out.put_u8(b' ');
        write_time(of_day, out);
        out.put_u8(b' ');
        write_year(date, out);
    } else {
        write_numbers(date, style, out);
        out.put_u8(b' ');
        write_time(of_day, out);
    }
    if let Some((zone, offset)) = zone {
        write_zone(micros, zone, offset, out);
    }
    write_era(date, out);
}

/// The zone's abbreviation at that moment, or its distance from UTC where it has none.
fn write_zone(local_micros: i64, zone: Tz, offset: i64, out: &mut BytesMut) {
    out.put_u8(b' ');
    let utc_micros = local_micros.saturating_sub(offset * 1_000_000);
    match offset_in(utc_micros, zone).as_ref().and_then(OffsetName::abbreviation) {
        Some(abbreviation) => out.put_slice(abbreviation.as_bytes()),
        None => {
            // As the zone's own files have it: without a colon.
            out.put_u8(if offset < 0 { b'-' } else { b'+' });
            write_pair(offset.abs() / 3600, out);
            if offset % 3600 != 0 {
                write_pair(offset.abs() / 60 % 60, out);
            }
        }
    }
}

fn write_numbers(date: Civil, style: DateStyle, out: &mut BytesMut) {
    let separator = match style.form {
        DateForm::German => b'.',
        DateForm::Sql => b'/',
        DateForm::Postgres | DateForm::Iso => b'-',
    };
    let (first, second) = match (style.form, style.order) {
        (DateForm::German, _) | (_, DateOrder::DayMonthYear) => (date.day, date.month),
        _ => (date.month, date.day),
    };
    write_pair(first, out);
    out.put_u8(separator);
    write_pair(second, out);
    out.put_u8(separator);
    write_year(date, out);
}

fn write_year(date: Civil, out: &mut BytesMut) {
    let year = if date.year > 0 { date.year } else { 1 - date.year };
    if year < 10_000 {
        write_pair(year / 100, out);
        write_pair(year % 100, out);
    } else {
        write_integer(year, out);
    }
}

fn write_era(date: Civil, out: &mut BytesMut) {
    if date.year <= 0 {
        out.put_slice(b" BC");
    }
}

/// An interval in its parts, those of time with one sign.
struct Parts {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    micros: i64,
}

impl Parts {
    fn of(interval: Interval) -> Parts {
        let seconds = interval.micros / 1_000_000;
        Parts {
            years: i64::from(interval.months / 12),
            months: i64::from(interval.months % 12),
            days: i64::from(interval.days),
            hours: seconds / 3600,
            minutes: seconds / 60 % 60,
            seconds: seconds % 60,
            micros: interval.micros % 1_000_000,
        }
    }

    fn all(&self) -> [i64; 7] {
        [self.years, self.months, self.days, self.hours, self.minutes, self.seconds, self.micros]
    }

    /// Seconds with their fraction, without a sign.
    fn write_seconds(&self, out: &mut BytesMut) {
        write_integer(self.seconds.abs(), out);
        self.write_fraction(out);
    }

    fn write_fraction(&self, out: &mut BytesMut) {
        let micros = self.micros.abs();
        if micros == 0 {
            return;
        }
        out.put_slice(format!(".{micros:06}").trim_end_matches('0').as_bytes());
    }
}

/// `EncodeInterval` of PostgreSQL.
pub(super) fn write_styled_interval(interval: Interval, style: IntervalStyle, out: &mut BytesMut) {
    let parts = Parts::of(interval);
    match style {
        IntervalStyle::Postgres => write_interval(interval, out),
        IntervalStyle::PostgresVerbose => write_verbose(&parts, out),
        IntervalStyle::SqlStandard => write_sql_standard(interval, &parts, out),
        IntervalStyle::Iso8601 => write_iso_8601(&parts, out),
    }
}

fn write_verbose(parts: &Parts, out: &mut BytesMut) {
    out.put_u8(b'@');
    // The first part that is not zero says whether all of them lie before.
    let is_before = parts.all().into_iter().find(|part| *part != 0).is_some_and(|part| part < 0);
    let signed = |value: i64| if is_before { -value } else { value };
    let whole = [
        (parts.years, "year"),
        (parts.months, "mon"),
        (parts.days, "day"),
        (parts.hours, "hour"),
        (parts.minutes, "min"),
    ];
    for (value, unit) in whole.into_iter().filter(|(value, _)| *value != 0) {
        let value = signed(value);
        let plural = if value == 1 { "" } else { "s" };
        out.put_slice(format!(" {value} {unit}{plural}").as_bytes());
    }
    if parts.seconds != 0 || parts.micros != 0 {
        out.put_u8(b' ');
        if signed(parts.seconds) < 0 || signed(parts.micros) < 0 {
            out.put_u8(b'-');
        }
        parts.write_seconds(out);
        let is_one = parts.seconds.abs() == 1 && parts.micros == 0;
        out.put_slice(if is_one { b" sec" } else { b" secs" });
    }
    if parts.all().iter().all(|part| *part == 0) {
        out.put_slice(b" 0");
    }
    if is_before {
        out.put_slice(b" ago");
    }
}

fn write_sql_standard(interval: Interval, parts: &Parts, out: &mut BytesMut) {
    let has_negative = parts.all().iter().any(|part| *part < 0);
    let has_positive = parts.all().iter().any(|part| *part > 0);
    let has_months = interval.months != 0;
    let has_day_time = interval.days != 0 || interval.micros != 0;
    let sign = |is_negative: bool| if is_negative { b'-' } else { b'+' };
    let time = |out: &mut BytesMut| {
        write_integer(parts.hours.abs(), out);
        write_minutes_and_seconds((parts.minutes * 60 + parts.seconds).abs(), parts.micros.abs(), out);
    };
    if !has_negative && !has_positive {
        out.put_u8(b'0');
    } else if (has_negative && has_positive) || (has_months && has_day_time) {
        // The standard has no form for it: every part gets its sign.
        out.put_u8(sign(interval.months < 0));
        out.put_slice(format!("{}-{} ", parts.years.abs(), parts.months.abs()).as_bytes());
        out.put_u8(sign(interval.days < 0));
        out.put_slice(format!("{} ", parts.days.abs()).as_bytes());
        out.put_u8(sign(interval.micros < 0));
        time(out);
    } else {
        if has_negative {
            out.put_u8(b'-');
        }
        if has_months {
            out.put_slice(format!("{}-{}", parts.years.abs(), parts.months.abs()).as_bytes());
            return;
        }
        if parts.days != 0 {
            out.put_slice(format!("{} ", parts.days.abs()).as_bytes());
        }
        time(out);
    }
}

fn write_iso_8601(parts: &Parts, out: &mut BytesMut) {
    if parts.all().iter().all(|part| *part == 0) {
        out.put_slice(b"PT0S");
        return;
    }
    let write = |value: i64, unit: u8, out: &mut BytesMut| {
        if value != 0 {
            write_integer(value, out);
            out.put_u8(unit);
        }
    };
    out.put_u8(b'P');
    write(parts.years, b'Y', out);
    write(parts.months, b'M', out);
    write(parts.days, b'D', out);
    if [parts.hours, parts.minutes, parts.seconds, parts.micros].iter().all(|part| *part == 0) {
        return;
    }
    out.put_u8(b'T');
    write(parts.hours, b'H', out);
    write(parts.minutes, b'M', out);
    if parts.seconds != 0 || parts.micros != 0 {
        if parts.seconds < 0 || parts.micros < 0 {
            out.put_u8(b'-');
        }
        parts.write_seconds(out);
        out.put_u8(b'S');
    }
}

/// Printable characters of ASCII as they are, a backslash twice, all else as a backslash and three octal digits.
pub(super) fn write_escaped_bytes(value: &[u8], out: &mut BytesMut) {
    for byte in value {
        match byte {
            b'\\' => out.put_slice(b"\\\\"),
            b' '..=b'~' => out.put_u8(*byte),
            other => out.put_slice(&[b'\\', b'0' + (other >> 6), b'0' + (other >> 3 & 7), b'0' + (other & 7)]),
        }
    }
}

/// As C's `%.*g` writes a float: so many digits, those at the end that are zero left out.
pub(super) fn write_rounded_float(value: f64, digits: i32, out: &mut BytesMut) {
    if !value.is_finite() {
        let word: &[u8] = match value {
            v if v.is_nan() => b"NaN",
            v if v > 0.0 => b"Infinity",
            _ => b"-Infinity",
        };
        out.put_slice(word);
        return;
    }
    let digits = digits.max(1);
    let mut scientific = String::new();
    // Writing to a String does not fail.
    let _ = write!(scientific, "{value:.*e}", (digits - 1) as usize);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific.as_str(), "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if exponent < -4 || exponent >= digits {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.put_slice(format!("{}e{sign}{:02}", trim(mantissa), exponent.abs()).as_bytes());
    } else {
        let decimals = (digits - 1 - exponent).max(0) as usize;
        out.put_slice(trim(&format!("{value:.decimals$}")).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(interval: Interval, style: IntervalStyle) -> String {
        let mut out = BytesMut::new();
        write_styled_interval(interval, style, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn intervals_in_every_style() {
        let mixed = Interval { months: 14, days: -3, micros: 14_706_789_000 };
        assert_eq!(shown(mixed, IntervalStyle::PostgresVerbose), "@ 1 year 2 mons -3 days 4 hours 5 mins 6.789 secs");
        assert_eq!(shown(mixed, IntervalStyle::SqlStandard), "+1-2 -3 +4:05:06.789");
        assert_eq!(shown(mixed, IntervalStyle::Iso8601), "P1Y2M-3DT4H5M6.789S");
        let before = Interval { months: 0, days: -1, micros: -500_000 };
        assert_eq!(shown(before, IntervalStyle::PostgresVerbose), "@ 1 day 0.5 secs ago");
        assert_eq!(shown(before, IntervalStyle::SqlStandard), "-1 0:00:00.5");
        assert_eq!(shown(before, IntervalStyle::Iso8601), "P-1DT-0.5S");
        let none = Interval { months: 0, days: 0, micros: 0 };
        assert_eq!(shown(none, IntervalStyle::PostgresVerbose), "@ 0");
        assert_eq!(shown(none, IntervalStyle::SqlStandard), "0");
        assert_eq!(shown(none, IntervalStyle::Iso8601), "PT0S");
    }

    #[test]
    fn floats_are_rounded_as_c_rounds_them() {
        let shown = |value: f64, digits: i32| {
            let mut out = BytesMut::new();
            write_rounded_float(value, digits, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(shown(0.1 + 0.2, 15), "0.3");
        assert_eq!(shown(1e15, 15), "1e+15");
        assert_eq!(shown(123_456_789.0, 3), "1.23e+08");
        assert_eq!(shown(0.000_012_3, 15), "1.23e-05");
        assert_eq!(shown(-0.0, 15), "-0");
        assert_eq!(shown(100.0, 15), "100");
        assert_eq!(shown(9.99, 1), "1e+01");
    }
}
