//! Dates and times in the forms that PostgreSQL reads, exact to the microsecond.
//!
//! A text is cut into words, and each word tells what it is: `2024-02-29`, `29.02.2024`, `Feb`, `12:34:56.7`, `+02`, `CET`,
//! `Europe/Berlin`, `BC`. `DateStyle` says which number of an ambiguous date is the month.

use crate::error::Code;
use crate::format::number::trim;
use crate::format::settings::{DateOrder, ValueSettings};
use crate::format::text::{ValueError, excerpt};
use crate::format::time_zone::{self, Zone};

const MICROS_PER_SECOND: i64 = 1_000_000;
pub(crate) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// PostgreSQL's first day, 4714-11-24 BC, in days since 1970-01-01.
pub(crate) const FIRST_DAY: i64 = -2_440_588;
/// PostgreSQL's `DATE_END_JULIAN`, 5874898-06-03: the first day that is no date.
pub(crate) const END_OF_DATES: i64 = 2_145_042_906;

/// Days since 1970-01-01. A time of day is read and dropped, as PostgreSQL does.
pub(crate) fn date(text: &str, settings: &ValueSettings) -> Result<i32, ValueError> {
    let reader = Reader { type_name: "date", text, settings };
    let day = reader.fields()?.day.ok_or_else(|| reader.invalid())?;
    if !(FIRST_DAY..END_OF_DATES).contains(&day) {
        return Err(reader.out_of_range("date out of range"));
    }
    i32::try_from(day).map_err(|_| reader.out_of_range("date out of range"))
}

/// Microseconds since midnight. A zone is read and dropped, as PostgreSQL does.
///
/// # Errors
/// 22P02, and 22008 also for 24:00:00, which PostgreSQL has and Arrow has not.
pub(crate) fn time(text: &str, settings: &ValueSettings) -> Result<i64, ValueError> {
    let reader = Reader { type_name: "time", text, settings };
    let micros = reader.fields()?.micros.ok_or_else(|| reader.invalid())?;
    if micros >= MICROS_PER_DAY {
        return Err(reader.out_of_range("date/time field value out of range"));
    }
    Ok(micros)
}

/// Microseconds since 1970-01-01 00:00. A zone is read and dropped, as PostgreSQL does.
pub(crate) fn timestamp(text: &str, settings: &ValueSettings) -> Result<i64, ValueError> {
    let reader = Reader { type_name: "timestamp", text, settings };
    reader.local_micros(&reader.fields()?)
}

/// Microseconds since 1970-01-01 00:00 UTC. Without a zone it is of the session's.
pub(crate) fn timestamptz(text: &str, settings: &ValueSettings) -> Result<i64, ValueError> {
    let reader = Reader { type_name: "timestamp with time zone", text, settings };
    let fields = reader.fields()?;
    let local = reader.local_micros(&fields)?;
    let zone = fields.zone.unwrap_or(Zone::Named(settings.time_zone));
    let micros = zone.offset_of_local(local).and_then(|seconds| local.checked_sub(seconds * MICROS_PER_SECOND));
    reader.in_calendar(micros)
}

/// What the words of a text have told so far.
#[derive(Default)]
struct Fields {
    /// Since 1970-01-01.
    day: Option<i64>,
    /// Since midnight; up to and with 24:00.
    micros: Option<i64>,
    zone: Option<Zone>,
}

/// The parts of a date as they are written, before it is known which is which.
#[derive(Default)]
struct DateParts<'a> {
    month: Option<i64>,
    /// In the order of the text; with a month's name there are two, else three.
    numbers: Vec<&'a str>,
    is_before_christ: bool,
}

struct Reader<'a> {
    type_name: &'a str,
    text: &'a str,
    settings: &'a ValueSettings,
}

impl<'a> Reader<'a> {
    fn invalid(&self) -> ValueError {
        ValueError { code: Code::InvalidDatetimeFormat, ..ValueError::syntax(self.type_name, self.text) }
    }

    fn out_of_range(&self, what: &str) -> ValueError {
        ValueError::new(Code::DatetimeOverflow, format!("{what}: \"{}\"", excerpt(self.text)))
    }

    fn field_out_of_range(&self) -> ValueError {
        self.out_of_range("date/time field value out of range")
    }

    fn local_micros(&self, fields: &Fields) -> Result<i64, ValueError> {
        let day = fields.day.ok_or_else(|| self.invalid())?;
        self.in_calendar(
            day.checked_mul(MICROS_PER_DAY).and_then(|start| start.checked_add(fields.micros.unwrap_or(0))),
        )
    }

    /// Counted from 1970, 64 bits end in 294247; PostgreSQL counts from 2000 and ends thirty years earlier.
    fn in_calendar(&self, micros: Option<i64>) -> Result<i64, ValueError> {
        micros
            .filter(|micros| *micros >= FIRST_DAY * MICROS_PER_DAY)
            .ok_or_else(|| self.out_of_range("timestamp out of range"))
    }

    fn fields(&self) -> Result<Fields, ValueError> {
        let trimmed = trim(self.text);
        let unsigned = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
        if self.type_name != "time" && ["infinity", "inf"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
            let kind = if self.type_name == "date" { "date" } else { "timestamp" };
            let message = format!("infinity is not supported for type {kind}");
            return Err(ValueError::new(Code::DatetimeOverflow, message));
        }
        if trimmed.eq_ignore_ascii_case("epoch") {
            return Ok(Fields { day: Some(0), micros: Some(0), zone: Some(Zone::Offset(0)) });
        }
        let mut fields = Fields::default();
        let mut date = DateParts::default();
        for word in trimmed.split([' ', '\t', '\n', '\r', '\x0b', '\x0c', ',']).filter(|word| !word.is_empty()) {
            self.read_word(word, &mut fields, &mut date)?;
        }
        fields.day = self.day(&date)?;
        Ok(fields)
    }

    fn read_word(&self, word: &'a str, fields: &mut Fields, date: &mut DateParts<'a>) -> Result<(), ValueError> {
        let begins_with_digit = word.starts_with(|c: char| c.is_ascii_digit());
        // `2024-02-29T12:34`
        if begins_with_digit
            && let Some((left, right)) = word.split_once(['T', 't'])
            && right.starts_with(|c: char| c.is_ascii_digit())
            && left.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
        {
            self.read_word(left, fields, date)?;
            return self.read_word(right, fields, date);
        }
        if begins_with_digit && word.contains(':') {
            return self.read_time(word, fields);
        }
        if begins_with_digit {
            return self.read_date(word, date);
        }
        if word.starts_with(['+', '-']) {
            return self.read_zone(word, fields);
        }
        self.read_name(word, fields, date)
    }

    /// A time of day and what may be written close behind it: a zone, AM or PM.
    fn read_time(&self, word: &str, fields: &mut Fields) -> Result<(), ValueError> {
        if fields.micros.is_some() {
            return Err(self.invalid());
        }
        let end = word.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.'))).unwrap_or(word.len());
        let (clock, rest) = word.split_at(end);
        fields.micros = Some(self.time_of_day(clock)?);
        match rest.bytes().next() {
            None => Ok(()),
            Some(b'+' | b'-') => self.read_zone(rest, fields),
            Some(_) => self.read_name(rest, fields, &mut DateParts::default()),
        }
    }

    /// `12:34`, `12:34:56`, `12:34:56.789012`, as microseconds since midnight.
    fn time_of_day(&self, text: &str) -> Result<i64, ValueError> {
        let mut parts = text.split(':');
        let (Some(hour), Some(minute)) = (parts.next(), parts.next()) else { return Err(self.invalid()) };
        let (second, fraction) = match parts.next() {
            Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "")),
            None => ("0", ""),
        };
        if parts.next().is_some() {
            return Err(self.invalid());
        }
        let (hour, minute, second) = (self.number(hour)?, self.number(minute)?, self.number(second)?);
        let micros = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + self.fraction_micros(fraction)?;
        // A second of 60 is the next minute's first, as in PostgreSQL.
        if hour > 24 || minute > 59 || second > 60 || micros > MICROS_PER_DAY {
            return Err(self.field_out_of_range());
        }
        Ok(micros)
    }

    /// PostgreSQL rounds in floating point, so that we must as well to come to the same microsecond.
    fn fraction_micros(&self, digits: &str) -> Result<i64, ValueError> {
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.invalid());
        }
        let fraction: f64 = format!("0.{digits}0").parse().map_err(|_| self.invalid())?;
        Ok((fraction * MICROS_PER_SECOND as f64).round_ties_even() as i64)
    }

    /// `2024-02-29`, `02/29/2024`, `29.02.2024`, `29-Feb-2024`, `20240229`, or a lone number beside a month's name.
    fn read_date(&self, word: &'a str, date: &mut DateParts<'a>) -> Result<(), ValueError> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number(word) && word.len() == 8 && date.numbers.is_empty() && date.month.is_none() {
            date.numbers.extend([&word[..4], &word[4..6], &word[6..]]);
            return Ok(());
        }
        for part in word.split(['-', '/', '.']) {
            if is_number(part) {
                date.numbers.push(part);
            } else {
                let month = month_of_name(part).filter(|_| date.month.is_none()).ok_or_else(|| self.invalid())?;
                date.month = Some(month);
            }
        }
        Ok(())
    }

    fn read_zone(&self, word: &str, fields: &mut Fields) -> Result<(), ValueError> {
        // A zone belongs to a time of day.
        if fields.micros.is_none() || fields.zone.is_some() {
            return Err(self.invalid());
        }
        let offset = time_zone::offset_seconds(word).map_err(|error| match error {
            time_zone::OffsetError::Syntax => self.invalid(),
            time_zone::OffsetError::Range => ValueError {
                code: Code::InvalidTimeZoneDisplacement,
                ..self.out_of_range("time zone displacement out of range")
            },
        })?;
        fields.zone = Some(Zone::Offset(offset));
        Ok(())
    }

    fn read_name(&self, word: &str, fields: &mut Fields, date: &mut DateParts<'_>) -> Result<(), ValueError> {
        if let (None, Some(month)) = (date.month, month_of_name(word)) {
            date.month = Some(month);
            return Ok(());
        }
        match word.to_ascii_lowercase().as_str() {
            "bc" => {
                date.is_before_christ = true;
                return Ok(());
            }
            "ad" => return Ok(()),
            meridiem @ ("am" | "pm") => {
                fields.micros = Some(self.of_half_day(fields.micros, meridiem == "pm")?);
                return Ok(());
            }
            word if is_day_of_week(word) => return Ok(()),
            _ => {}
        }
        if fields.micros.is_none() || fields.zone.is_some() {
            return Err(self.invalid());
        }
        match Zone::of_name(word) {
            Some(zone) => fields.zone = Some(zone),
            None if word.contains('/') => {
                let message = format!("time zone \"{}\" not recognized", word.to_ascii_lowercase());
                return Err(ValueError::new(Code::InvalidParameterValue, message));
            }
            None => return Err(self.invalid()),
        }
        Ok(())
    }

    /// The time of day for a clock of twelve hours.
    fn of_half_day(&self, micros: Option<i64>, is_afternoon: bool) -> Result<i64, ValueError> {
        const HALF: i64 = MICROS_PER_DAY / 2;
        let micros = micros.ok_or_else(|| self.invalid())?;
        match (micros / (HALF / 12), is_afternoon) {
            (hours, _) if hours > 12 => Err(self.field_out_of_range()),
            (12, false) => Ok(micros - HALF),
            (12, true) | (_, false) => Ok(micros),
            (_, true) => Ok(micros + HALF),
        }
    }

    /// Days since 1970-01-01; `None` where no date was written.
    fn day(&self, date: &DateParts<'_>) -> Result<Option<i64>, ValueError> {
        if date.numbers.is_empty() && date.month.is_none() && !date.is_before_christ {
            return Ok(None);
        }
        let is_year = |text: &str| text.len() >= 3;
        let order = self.settings.date_style.order;
        let (year, month, day) = match (date.month, date.numbers.as_slice()) {
            (Some(month), [year, day]) if is_year(year) => (*year, month, self.number(day)?),
            (Some(month), [year, day]) if order == DateOrder::YearMonthDay && !is_year(day) => {
                (*year, month, self.number(day)?)
            }
            (Some(month), [day, year]) => (*year, month, self.number(day)?),
            (None, [year, month, day]) if is_year(year) => (*year, self.number(month)?, self.number(day)?),
            (None, [first, second, third]) => match order {
                DateOrder::YearMonthDay => (*first, self.number(second)?, self.number(third)?),
                DateOrder::MonthDayYear => (*third, self.number(first)?, self.number(second)?),
                DateOrder::DayMonthYear => (*third, self.number(second)?, self.number(first)?),
            },
            _ => return Err(self.invalid()),
        };
        let written = self.number(year)?;
        // Two digits are of the years 1970 to 2069.
        let year = match (written, year.len() <= 2 && !date.is_before_christ) {
            (0..70, true) => written + 2000,
            (70..100, true) => written + 1900,
            (year, _) => year,
        };
        let year_is_valid = year > 0;
        let year = if date.is_before_christ { 1 - year } else { year };
        if !year_is_valid || !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
            return Err(self.field_out_of_range());
        }
        Ok(Some(days_since_1970(year, month, day)))
    }

    fn number(&self, digits: &str) -> Result<i64, ValueError> {
        const MOST_DIGITS: usize = 7;
        if digits.is_empty() || digits.len() > MOST_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.invalid());
        }
        digits.parse().map_err(|_| self.invalid())
    }
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// A month by its name or the three letters that it begins with.
fn month_of_name(word: &str) -> Option<i64> {
    let word = word.to_ascii_lowercase();
    let position = MONTHS
        .iter()
        .position(|month| *month == word || month[..3] == word || (word == "sept" && *month == "september"));
    position.map(|position| position as i64 + 1)
}

/// Which says nothing that the date does not.
fn is_day_of_week(word: &str) -> bool {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    word.len() >= 3 && DAYS.iter().any(|day| *day == word || day[..3] == *word)
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

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;

    fn read(text: &str, date_style: &str, zone: Tz) -> Result<i64, ValueError> {
        let default = ValueSettings::default();
        let date_style = default.date_style.with(date_style).unwrap();
        timestamptz(text, &ValueSettings { time_zone: zone, date_style, ..default })
    }

    #[test]
    fn every_style_reads_what_it_shows() {
        // 2003-01-02 12:34:56.5 in Berlin
        let moment = read("2003-01-02 11:34:56.5Z", "ISO", Tz::UTC).unwrap();
        for (style, text) in [
            ("ISO, MDY", "2003-01-02 12:34:56.5+01"),
            ("SQL, DMY", "02/01/2003 12:34:56.5 CET"),
            ("SQL, MDY", "01/02/2003 12:34:56.5 CET"),
            ("Postgres, MDY", "Thu Jan 02 12:34:56.5 2003 CET"),
            ("Postgres, DMY", "Thu 02 Jan 12:34:56.5 2003 CET"),
            ("German, DMY", "02.01.2003 12:34:56.5 CET"),
            ("ISO, MDY", "Jan 2, 2003 12:34:56.5"),
            ("ISO, DMY", "2-jan-03 12:34:56.5 Europe/Berlin"),
            ("ISO, MDY", "20030102 11:34:56.5 Z"),
            ("ISO, YMD", "03-01-02 12:34:56.5 pm"),
        ] {
            assert_eq!(read(text, style, Tz::Europe__Berlin), Ok(moment), "{style}: {text}");
        }
        assert_eq!(read("2003-01-02 11:34:56.5", "ISO", Tz::UTC), Ok(moment), "of the session's zone");
        // Summer is summer in ten thousand years.
        let summer = read("12000-06-01 04:00:00Z", "ISO", Tz::UTC);
        assert_eq!(read("12000-06-01 00:00:00", "ISO", Tz::America__New_York), summer);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for text in
            ["2003-01-02 12:34 12:35", "12:34", "2003-01 12:34", "Jan 2003", "2003-01-02 CET", "2003-13-01x", "1 2 3 4"]
        {
            assert_eq!(read(text, "ISO", Tz::UTC).unwrap_err().code, Code::InvalidDatetimeFormat, "{text}");
        }
        for text in ["13/12/2003", "2003-00-01", "2003-01-02 13:00 pm", "2003-02-29"] {
            assert_eq!(read(text, "ISO, MDY", Tz::UTC).unwrap_err().code, Code::DatetimeOverflow, "{text}");
        }
    }
}
