//! Dates and times in the ISO forms that PostgreSQL reads, exact to the microsecond.

use crate::error::Code;
use crate::format::number::trim;
use crate::format::text::{ValueError, excerpt};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// PostgreSQL's first day, 4714-11-24 BC, in days since 1970-01-01.
const FIRST_DAY: i64 = -2_440_588;
/// PostgreSQL's `DATE_END_JULIAN`, 5874898-06-03: the first day that is no date.
const END_OF_DATES: i64 = 2_145_042_906;

/// Days since 1970-01-01. A time of day is read and dropped, as PostgreSQL does.
pub(crate) fn date(text: &str) -> Result<i32, ValueError> {
    let fields = Fields::parse("date", text)?;
    let day = fields.day.ok_or_else(|| ValueError::syntax("date", text))?;
    if !(FIRST_DAY..END_OF_DATES).contains(&day) {
        return Err(out_of_range("date out of range", text));
    }
    i32::try_from(day).map_err(|_| out_of_range("date out of range", text))
}

/// Microseconds since midnight. A zone is read and dropped, as PostgreSQL does.
///
/// # Errors
/// 22P02, and 22008 also for 24:00:00, which PostgreSQL has and Arrow has not.
pub(crate) fn time(text: &str) -> Result<i64, ValueError> {
    let fields = Fields::parse("time", text)?;
    let micros = fields.micros.ok_or_else(|| ValueError::syntax("time", text))?;
    if micros >= MICROS_PER_DAY {
        return Err(out_of_range("date/time field value out of range", text));
    }
    Ok(micros)
}

/// Microseconds since 1970-01-01 00:00. A zone is read and dropped, as PostgreSQL does.
pub(crate) fn timestamp(text: &str) -> Result<i64, ValueError> {
    let fields = Fields::parse("timestamp", text)?;
    fields.timestamp("timestamp", text, 0)
}

/// Microseconds since 1970-01-01 00:00 UTC. Without a zone it is UTC.
pub(crate) fn timestamptz(text: &str) -> Result<i64, ValueError> {
    let fields = Fields::parse("timestamp with time zone", text)?;
    fields.timestamp("timestamp with time zone", text, fields.offset_seconds)
}

fn out_of_range(what: &str, text: &str) -> ValueError {
    ValueError::new(Code::DatetimeOverflow, format!("{what}: \"{}\"", excerpt(text)))
}

struct Fields {
    /// Since 1970-01-01.
    day: Option<i64>,
    /// Since midnight; up to and with 24:00.
    micros: Option<i64>,
    offset_seconds: i64,
}

impl Fields {
    fn parse(type_name: &str, text: &str) -> Result<Self, ValueError> {
        let mut rest = trim(text);
        let word = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        if type_name != "time" && ["infinity", "inf"].iter().any(|infinity| word.eq_ignore_ascii_case(infinity)) {
            let kind = if type_name == "date" { "date" } else { "timestamp" };
            return Err(out_of_range(&format!("{kind} out of range"), text));
        }
        let reader = Reader { type_name, text };
        let is_before_christ = strip_era(&mut rest, "BC");
        if !is_before_christ {
            strip_era(&mut rest, "AD");
        }
        let has_date = rest.find(['-', ':']).is_some_and(|at| rest.as_bytes()[at] == b'-' && at >= 3);
        let mut fields = Fields { day: None, micros: None, offset_seconds: 0 };
        if has_date {
            fields.day = Some(reader.day(&mut rest, is_before_christ)?);
            let separated = rest.strip_prefix(['T', 't', ' ']).map(trim_start);
            match separated {
                Some(time) => rest = time,
                None if rest.is_empty() => return Ok(fields),
                None => return Err(reader.invalid()),
            }
        } else if is_before_christ || type_name != "time" {
            return Err(reader.invalid());
        }
        fields.micros = Some(reader.time_of_day(&mut rest)?);
        fields.offset_seconds = reader.offset_seconds(trim_start(rest))?;
        Ok(fields)
    }

    fn timestamp(&self, type_name: &str, text: &str, offset_seconds: i64) -> Result<i64, ValueError> {
        let day = self.day.ok_or_else(|| ValueError::syntax(type_name, text))?;
        let within_day = self.micros.unwrap_or(0) - offset_seconds * MICROS_PER_SECOND;
        let micros = day.checked_mul(MICROS_PER_DAY).and_then(|micros| micros.checked_add(within_day));
        // Counted from 1970, 64 bits end in 294247; PostgreSQL counts from 2000 and ends thirty years later.
        micros
            .filter(|micros| *micros >= FIRST_DAY * MICROS_PER_DAY)
            .ok_or_else(|| out_of_range("timestamp out of range", text))
    }
}

/// Reads the parts of one text, and knows how to refuse it.
struct Reader<'a> {
    type_name: &'a str,
    text: &'a str,
}

impl Reader<'_> {
    fn invalid(&self) -> ValueError {
        ValueError::syntax(self.type_name, self.text)
    }

    fn field_out_of_range(&self) -> ValueError {
        out_of_range("date/time field value out of range", self.text)
    }

    /// `2024-02-29`, as days since 1970-01-01.
    fn day(&self, rest: &mut &str, is_before_christ: bool) -> Result<i64, ValueError> {
        let year = self.number(rest, 3..=7)?;
        self.expect(rest, '-')?;
        let month = self.number(rest, 1..=2)?;
        self.expect(rest, '-')?;
        let day = self.number(rest, 1..=2)?;
        let year_is_valid = year > 0;
        let year = if is_before_christ { 1 - year } else { year };
        if !year_is_valid || !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
            return Err(self.field_out_of_range());
        }
        Ok(days_since_1970(year, month, day))
    }

    /// `12:34`, `12:34:56`, `12:34:56.789012`, as microseconds since midnight.
    fn time_of_day(&self, rest: &mut &str) -> Result<i64, ValueError> {
        let hour = self.number(rest, 1..=2)?;
        self.expect(rest, ':')?;
        let minute = self.number(rest, 1..=2)?;
        let mut second = 0;
        let mut fraction = 0;
        if take(rest, ':') {
            second = self.number(rest, 1..=2)?;
            if take(rest, '.') {
                fraction = self.fraction_micros(rest)?;
            }
        }
        let micros = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + fraction;
        // A second of 60 is the next minute's first, as in PostgreSQL.
        if hour > 24 || minute > 59 || second > 60 || (hour == 24 && micros > MICROS_PER_DAY) {
            return Err(self.field_out_of_range());
        }
        Ok(micros)
    }

    /// PostgreSQL rounds in floating point, so that we must as well to come to the same microsecond.
    fn fraction_micros(&self, rest: &mut &str) -> Result<i64, ValueError> {
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, tail) = rest.split_at(length);
        *rest = tail;
        let fraction: f64 = format!("0.{digits}0").parse().map_err(|_| self.invalid())?;
        Ok((fraction * MICROS_PER_SECOND as f64).round_ties_even() as i64)
    }

    /// `Z`, `UTC`, `+02`, `+02:30`, `+0230`, `+02:30:15` or nothing: seconds east of Greenwich.
    fn offset_seconds(&self, zone: &str) -> Result<i64, ValueError> {
        if ["", "z", "utc", "gmt"].iter().any(|name| zone.eq_ignore_ascii_case(name)) {
            return Ok(0);
        }
        let sign = match zone.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.invalid()),
        };
        let mut rest = &zone[1..];
        let compact = rest.len() == 4 && !rest.contains(':');
        let hour = self.number(&mut rest, 1..=2)?;
        let minute = if compact || take(&mut rest, ':') { self.number(&mut rest, 2..=2)? } else { 0 };
        let second = if take(&mut rest, ':') { self.number(&mut rest, 2..=2)? } else { 0 };
        if !rest.is_empty() {
            return Err(self.invalid());
        }
        if hour > 15 || minute > 59 || second > 59 {
            return Err(out_of_range("time zone displacement out of range", self.text));
        }
        Ok(sign * ((hour * 60 + minute) * 60 + second))
    }

    fn number(&self, rest: &mut &str, lengths: std::ops::RangeInclusive<usize>) -> Result<i64, ValueError> {
        let available = rest.bytes().take_while(u8::is_ascii_digit).count();
        let length = available.min(*lengths.end());
        if !lengths.contains(&length) {
            return Err(self.invalid());
        }
        let (digits, tail) = rest.split_at(length);
        *rest = tail;
        digits.parse().map_err(|_| self.invalid())
    }

    fn expect(&self, rest: &mut &str, separator: char) -> Result<(), ValueError> {
        if take(rest, separator) { Ok(()) } else { Err(self.invalid()) }
    }
}

fn take(rest: &mut &str, separator: char) -> bool {
    match rest.strip_prefix(separator) {
        Some(tail) => {
            *rest = tail;
            true
        }
        None => false,
    }
}

fn strip_era(rest: &mut &str, era: &str) -> bool {
    let Some(start) = rest.len().checked_sub(era.len()) else { return false };
    match rest.get(start..) {
        Some(end) if end.eq_ignore_ascii_case(era) && rest[..start].ends_with(' ') => {
            *rest = rest[..start].trim_end_matches(' ');
            true
        }
        _ => false,
    }
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(' ')
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`: years are counted from March, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}
