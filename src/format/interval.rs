//! Intervals, in every form that PostgreSQL reads: its own, the one of the SQL standard, and ISO 8601.

use datafusion::arrow::datatypes::IntervalMonthDayNano;

use crate::error::Code;
use crate::format::number::trim;
use crate::format::text::{ValueError, excerpt};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_HOUR: i64 = 3600 * MICROS_PER_SECOND;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;
const DAYS_PER_MONTH: i64 = 30;

/// `1 year 2 mons -3 days 04:05:06.789`, `@ 1 day ago`, `1-2 3 4:05:06`, `P1Y2M3DT4H5M6S`; fractions of every unit.
///
/// # Errors
/// 22P02 for what is no interval, 22015 for parts that PostgreSQL cannot hold, 22008 for those that Arrow cannot.
pub(crate) fn interval(text: &str) -> Result<IntervalMonthDayNano, ValueError> {
    let trimmed = trim(text);
    let parts = match trimmed.strip_prefix('P') {
        Some(designated) => iso_8601(designated),
        None => worded(trimmed),
    };
    let parts = parts.map_err(|refusal| match refusal {
        Refusal::Syntax => ValueError::syntax("interval", text),
        Refusal::Overflow => {
            ValueError::new(Code::IntervalOverflow, format!("interval field value out of range: \"{}\"", excerpt(text)))
        }
    })?;
    let nanos = parts.micros.checked_mul(1000).ok_or_else(|| {
        ValueError::new(Code::DatetimeOverflow, format!("interval out of range: \"{}\"", excerpt(text)))
    })?;
    Ok(IntervalMonthDayNano::new(parts.months, parts.days, nanos))
}

enum Refusal {
    Syntax,
    Overflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
}

impl Unit {
    fn of_word(word: &str) -> Option<Unit> {
        Some(match word.to_ascii_lowercase().as_str() {
            "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" | "microsecon" => {
                Unit::Microsecond
            }
            "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" | "millisecon" => {
                Unit::Millisecond
            }
            "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
            "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
            "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
            "d" | "day" | "days" => Unit::Day,
            "w" | "week" | "weeks" => Unit::Week,
            "mon" | "mons" | "month" | "months" => Unit::Month,
            "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
            "dec" | "decs" | "decade" | "decades" => Unit::Decade,
            "c" | "cent" | "century" | "centuries" => Unit::Century,
            "mil" | "mils" | "millennia" | "millennium" => Unit::Millennium,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Default)]
struct Parts {
    months: i32,
    days: i32,
    micros: i64,
}

impl Parts {
    /// Adds a number of a unit. A fraction goes down to the next smaller parts, as PostgreSQL hands it down.
    fn add(&mut self, number: Number, unit: Unit) -> Result<(), Refusal> {
        let Number { whole, fraction } = number;
        match unit {
            Unit::Microsecond => self.add_micros(whole, fraction, 1),
            Unit::Millisecond => self.add_micros(whole, fraction, 1000),
            Unit::Second => self.add_micros(whole, fraction, MICROS_PER_SECOND),
            Unit::Minute => self.add_micros(whole, fraction, 60 * MICROS_PER_SECOND),
            Unit::Hour => self.add_micros(whole, fraction, MICROS_PER_HOUR),
            Unit::Day => {
                self.add_days(whole, 1)?;
                self.add_micros(0, fraction, MICROS_PER_DAY)
            }
            Unit::Week => {
                self.add_days(whole, 7)?;
                self.add_fraction_of_days(fraction, 7)
            }
            Unit::Month => {
                self.add_months(whole, 1)?;
                self.add_fraction_of_days(fraction, DAYS_PER_MONTH)
            }
            Unit::Year => self.add_years(whole, fraction, 1),
            Unit::Decade => self.add_years(whole, fraction, 10),
            Unit::Century => self.add_years(whole, fraction, 100),
            Unit::Millennium => self.add_years(whole, fraction, 1000),
        }
    }

    fn add_years(&mut self, whole: i64, fraction: f64, years: i64) -> Result<(), Refusal> {
        self.add_months(whole, 12 * years)?;
        self.add_months((fraction * 12.0 * years as f64).round_ties_even() as i64, 1)
    }

    fn add_months(&mut self, count: i64, months: i64) -> Result<(), Refusal> {
        let total = count.checked_mul(months).and_then(|more| more.checked_add(self.months.into()));
        self.months = narrow(total)?;
        Ok(())
    }

    fn add_days(&mut self, count: i64, days: i64) -> Result<(), Refusal> {
        let total = count.checked_mul(days).and_then(|more| more.checked_add(self.days.into()));
        self.days = narrow(total)?;
        Ok(())
    }

    fn add_fraction_of_days(&mut self, fraction: f64, days: i64) -> Result<(), Refusal> {
        let days = fraction * days as f64;
        self.add_days(days as i64, 1)?;
        self.add_micros(0, days.fract(), MICROS_PER_DAY)
    }

    fn add_micros(&mut self, count: i64, fraction: f64, micros: i64) -> Result<(), Refusal> {
        let below = (fraction * micros as f64).round_ties_even() as i64;
        let total = count.checked_mul(micros).and_then(|more| more.checked_add(below));
        self.micros = total.and_then(|more| self.micros.checked_add(more)).ok_or(Refusal::Overflow)?;
        Ok(())
    }

    fn negated(self) -> Result<Parts, Refusal> {
        let negated = || Some((self.months.checked_neg()?, self.days.checked_neg()?, self.micros.checked_neg()?));
        let (months, days, micros) = negated().ok_or(Refusal::Overflow)?;
        Ok(Parts { months, days, micros })
    }
}

fn narrow(total: Option<i64>) -> Result<i32, Refusal> {
    total.and_then(|total| i32::try_from(total).ok()).ok_or(Refusal::Overflow)
}

/// A number as it is written; both parts have its sign.
#[derive(Clone, Copy)]
struct Number {
    whole: i64,
    fraction: f64,
}

impl Number {
    fn parse(text: &str) -> Result<Number, Refusal> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return Err(Refusal::Syntax);
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().map_err(|_| Refusal::Overflow)? };
        let fraction = format!("0.{fraction}0").parse::<f64>().map_err(|_| Refusal::Syntax)?;
        let sign = if text.starts_with('-') { -1 } else { 1 };
        Ok(Number { whole: whole * sign, fraction: fraction * sign as f64 })
    }
}

/// PostgreSQL's own form and that of the SQL standard. Read from the end, as what a number counts is told behind it.
fn worded(text: &str) -> Result<Parts, Refusal> {
    let mut words = split_words(text);
    words.retain(|word| *word != "@");
    let is_ago = words.last().is_some_and(|word| word.eq_ignore_ascii_case("ago"));
    if is_ago {
        words.pop();
    }
    if words.is_empty() {
        return Err(Refusal::Syntax);
    }
    let mut parts = Parts::default();
    let mut seen: Vec<Unit> = vec![];
    // What a number without a unit counts: seconds, and days before a time of day.
    let mut unit = Unit::Second;
    let mut unit_awaits_number = false;
    for word in words.into_iter().rev() {
        if let Some(next) = Unit::of_word(word) {
            if unit_awaits_number {
                return Err(Refusal::Syntax);
            }
            (unit, unit_awaits_number) = (next, true);
            continue;
        }
        let (number, of) = if word.contains(':') {
            if unit_awaits_number {
                return Err(Refusal::Syntax);
            }
            parts.micros = parts.micros.checked_add(clock(word)?).ok_or(Refusal::Overflow)?;
            for below in [Unit::Minute, Unit::Second] {
                note(&mut seen, below)?;
            }
            unit = Unit::Day;
            note(&mut seen, Unit::Hour)?;
            continue;
        } else if let Some(months) = year_to_month(word)? {
            note(&mut seen, Unit::Year)?;
            (Number { whole: months, fraction: 0.0 }, Unit::Month)
        } else {
            (Number::parse(word)?, unit)
        };
        note(&mut seen, of)?;
        parts.add(number, of)?;
        unit_awaits_number = false;
    }
    if unit_awaits_number {
        return Err(Refusal::Syntax);
    }
    if is_ago { parts.negated() } else { Ok(parts) }
}

/// Each unit may be said once.
fn note(seen: &mut Vec<Unit>, unit: Unit) -> Result<(), Refusal> {
    if seen.contains(&unit) {
        return Err(Refusal::Syntax);
    }
    seen.push(unit);
    Ok(())
}

/// At blanks, and where a number meets its unit: `1day` is two words.
fn split_words(text: &str) -> Vec<&str> {
    let mut words = vec![];
    for word in text.split_ascii_whitespace() {
        let at = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, rest) = word.split_at(at);
        if !number.is_empty() {
            words.push(number);
        }
        // `1d2h` goes on behind its first unit.
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, more) = rest.split_at(end);
        if !unit.is_empty() {
            words.push(unit);
        }
        if !more.is_empty() {
            words.extend(split_words(more));
        }
    }
    words
}

/// `[-]HH:MM[:SS[.fraction]]` or, with a fraction, `MM:SS.fraction`; in microseconds.
fn clock(word: &str) -> Result<i64, Refusal> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let mut fields = unsigned.split(':').collect::<Vec<_>>();
    if fields.len() == 2 && fields[1].contains('.') {
        fields.insert(0, "0");
    }
    let whole = |text: &str| {
        let number = Number::parse(text)?;
        if text.contains('.') { Err(Refusal::Syntax) } else { Ok(number.whole) }
    };
    let (hours, minutes, seconds) = match fields.as_slice() {
        [hours, minutes] => (whole(hours)?, whole(minutes)?, Number { whole: 0, fraction: 0.0 }),
        [hours, minutes, seconds] => (whole(hours)?, whole(minutes)?, Number::parse(seconds)?),
        _ => return Err(Refusal::Syntax),
    };
    if minutes > 59 || seconds.whole > 60 {
        return Err(Refusal::Overflow);
    }
    let mut parts = Parts::default();
    parts.add(Number { whole: hours, fraction: 0.0 }, Unit::Hour)?;
    parts.add(Number { whole: minutes, fraction: 0.0 }, Unit::Minute)?;
    parts.add(seconds, Unit::Second)?;
    Ok(if word.starts_with('-') { -parts.micros } else { parts.micros })
}

/// `1-2`: years and months, as the SQL standard writes them; in months.
fn year_to_month(word: &str) -> Result<Option<i64>, Refusal> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let Some((years, months)) = unsigned.split_once('-') else { return Ok(None) };
    let (years, months) = (Number::parse(years)?, Number::parse(months)?);
    if !(0..12).contains(&months.whole) {
        return Err(Refusal::Overflow);
    }
    let total = years.whole.checked_mul(12).and_then(|total| total.checked_add(months.whole));
    let total = total.ok_or(Refusal::Overflow)?;
    Ok(Some(if word.starts_with('-') { -total } else { total }))
}

/// What stands behind the P: `1Y2M3W4DT5H6M7.8S`, each number with a sign of its own, or `0001-02-03T04:05:06`.
fn iso_8601(text: &str) -> Result<Parts, Refusal> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    if date.is_empty() && time.is_none_or(str::is_empty) {
        return Err(Refusal::Syntax);
    }
    let mut parts = Parts::default();
    if !date.is_empty() {
        let date_fields = date.split('-').collect::<Vec<_>>();
        if let [years, months, days] = date_fields.as_slice() {
            for (text, unit) in [(years, Unit::Year), (months, Unit::Month), (days, Unit::Day)] {
                parts.add(Number::parse(text)?, unit)?;
            }
        } else {
            designated(date, &mut parts, |letter| match letter {
                'Y' => Some(Unit::Year),
                'M' => Some(Unit::Month),
                'W' => Some(Unit::Week),
                'D' => Some(Unit::Day),
                _ => None,
            })?;
        }
    }
    match time {
        Some(time) if time.contains(':') => {
            parts.micros = parts.micros.checked_add(clock(time)?).ok_or(Refusal::Overflow)?;
        }
        Some(time) => designated(time, &mut parts, |letter| match letter {
            'H' => Some(Unit::Hour),
            'M' => Some(Unit::Minute),
            'S' => Some(Unit::Second),
            _ => None,
        })?,
        None => {}
    }
    Ok(parts)
}

fn designated(text: &str, parts: &mut Parts, unit: impl Fn(char) -> Option<Unit>) -> Result<(), Refusal> {
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or(Refusal::Syntax)?;
        let letter = rest[at..].chars().next().ok_or(Refusal::Syntax)?;
        parts.add(Number::parse(&rest[..at])?, unit(letter).ok_or(Refusal::Syntax)?)?;
        rest = &rest[at + 1..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (i32, i32, i64) {
        let read = interval(text).unwrap();
        (read.months, read.days, read.nanoseconds / 1000)
    }

    #[test]
    fn all_forms_say_the_same() {
        const TIME: i64 = 4 * MICROS_PER_HOUR + 5 * 60 * MICROS_PER_SECOND + 6_789_000;
        for text in [
            "1 year 2 mons 3 days 04:05:06.789",
            "@ 1 year 2 mons 3 days 4 hours 5 mins 6.789 secs",
            "1y2mon3d4h5m6.789s",
            "1-2 3 4:05:06.789",
            "P1Y2M3DT4H5M6.789S",
            "P0001-02-03T04:05:06.789",
        ] {
            assert_eq!(read(text), (14, 3, TIME), "{text}");
        }
        assert_eq!(read("@ 1 year 2 mons 3 days 4 hours 5 mins 6.789 secs ago"), (-14, -3, -TIME));
        assert_eq!(read("-1-2 +3 -4:05:06.789"), (-14, 3, -TIME));
        assert_eq!(read("P-1Y-2M3DT-4H-5M-6.789S"), (-14, 3, -TIME));
    }

    #[test]
    fn fractions_go_down_to_smaller_units() {
        assert_eq!(read("1.5 years"), (18, 0, 0));
        assert_eq!(read("1.5 months"), (1, 15, 0));
        assert_eq!(read("1.5 weeks"), (0, 10, MICROS_PER_DAY / 2));
        assert_eq!(read("-1.5 days"), (0, -1, -MICROS_PER_DAY / 2));
        assert_eq!(read("0.1 us"), (0, 0, 0));
        assert_eq!(read("7"), (0, 0, 7_000_000));
        assert_eq!(read("2:03.5"), (0, 0, 123_500_000));
        assert_eq!(read("1 century 1 decade"), (1320, 0, 0));
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for text in ["", "ago", "one day", "1 day 1 day", "day 1", "1:2:3:4", "P", "P1", "P1X", "1 fortnight", "5 6 s"]
        {
            assert_eq!(interval(text).unwrap_err().code, Code::InvalidTextRepresentation, "{text}");
        }
        assert_eq!(interval("3000000000 days").unwrap_err().code, Code::IntervalOverflow);
        assert_eq!(interval("1:60").unwrap_err().code, Code::IntervalOverflow);
        // PostgreSQL counts microseconds, Arrow nanoseconds.
        assert_eq!(interval("3000000 hours").unwrap_err().code, Code::DatetimeOverflow);
    }
}
