//! Dates and times as clients write them in parameters: ISO 8601 and the forms in which we show them.

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use crate::error::{Code, Error, Result};
use crate::server::decode_text::trim;
use crate::server::encode_time::{Civil, MICROS_PER_DAY};

/// Why a text is no date or time: not of the form, or a field beyond its bounds.
enum Refusal {
    Syntax,
    FieldRange,
    TypeRange,
    Infinite,
    Zone(String),
}

impl Refusal {
    fn into_error(self, type_name: &str, text: &str) -> Error {
        match self {
            Refusal::Syntax => Error::new(
                Code::InvalidTextRepresentation,
                format!("invalid input syntax for type {type_name}: \"{text}\""),
            ),
            Refusal::FieldRange => {
                Error::new(Code::DatetimeOverflow, format!("date/time field value out of range: \"{text}\""))
            }
            Refusal::TypeRange => {
                let name = type_name.split(' ').next().unwrap_or_default();
                Error::new(Code::DatetimeOverflow, format!("{name} out of range: \"{text}\""))
            }
            Refusal::Infinite => infinite(type_name),
            Refusal::Zone(zone) => {
                Error::new(Code::InvalidParameterValue, format!("time zone \"{zone}\" not recognized"))
            }
        }
    }
}

/// For PostgreSQL's infinities, which Arrow lacks.
pub(super) fn infinite(type_name: &str) -> Error {
    Error::new(Code::DatetimeOverflow, format!("infinity is not supported for type {type_name}"))
}

/// Days since 1970.
pub(super) fn date(text: &str) -> Result<i64> {
    let moment = Moment::parse(trim(text)).map_err(|refusal| refusal.into_error("date", text))?;
    Ok(moment.days)
}

/// Microseconds since midnight.
pub(super) fn time(text: &str) -> Result<i64> {
    time_of_day(trim(text)).map_err(|refusal| refusal.into_error("time", text))
}

/// Microseconds since 1970. As in PostgreSQL, a zone is read and has no effect.
pub(super) fn timestamp(text: &str) -> Result<i64> {
    Moment::parse(trim(text))
        .and_then(|moment| moment.local_micros())
        .map_err(|refusal| refusal.into_error("timestamp without time zone", text))
}

/// Microseconds since 1970 in UTC, from a time in `time_zone` unless the text names another.
pub(super) fn timestamptz(text: &str, time_zone: Tz) -> Result<i64> {
    Moment::parse(trim(text))
        .and_then(|moment| moment.utc_micros(time_zone))
        .map_err(|refusal| refusal.into_error("timestamp with time zone", text))
}

enum Zone {
    /// Seconds east of UTC.
    Offset(i64),
    Named(Tz),
}

struct Moment {
    /// Since 1970.
    days: i64,
    /// Since midnight.
    micros: i64,
    zone: Option<Zone>,
}

impl Moment {
    /// `2024-02-29[( |T)12:34:56.789[zone]][ BC]`
    fn parse(text: &str) -> Result<Moment, Refusal> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        if ["infinity", "inf"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
            return Err(Refusal::Infinite);
        }
        if text.eq_ignore_ascii_case("epoch") {
            return Ok(Moment { days: 0, micros: 0, zone: Some(Zone::Offset(0)) });
        }
        let (text, before_christ) = era(text);
        let end = text.find(|c: char| c == 'T' || c == 't' || c.is_ascii_whitespace()).unwrap_or(text.len());
        let days = days(&text[..end], before_christ)?;
        let rest = trim(text[end..].trim_start_matches(['T', 't']));
        if rest.is_empty() {
            return if text[end..].trim().is_empty() {
                Ok(Moment { days, micros: 0, zone: None })
            } else {
                Err(Refusal::Syntax)
            };
        }
        let is_of_time = |c: char| c.is_ascii_digit() || matches!(c, ':' | '.');
        let end = rest.find(|c: char| !is_of_time(c)).unwrap_or(rest.len());
        Ok(Moment { days, micros: time_of_day(&rest[..end])?, zone: zone(trim(&rest[end..]))? })
    }

    fn local_micros(&self) -> Result<i64, Refusal> {
        let micros = self.days.checked_mul(MICROS_PER_DAY).and_then(|start| start.checked_add(self.micros));
        micros.ok_or(Refusal::TypeRange)
    }

    fn utc_micros(&self, time_zone: Tz) -> Result<i64, Refusal> {
        let local = self.local_micros()?;
        let offset = match self.zone {
            Some(Zone::Offset(seconds)) => seconds,
            Some(Zone::Named(zone)) => offset_of_local(local, zone)?,
            None => offset_of_local(local, time_zone)?,
        };
        local.checked_sub(offset * 1_000_000).ok_or(Refusal::TypeRange)
    }
}

fn era(text: &str) -> (&str, bool) {
    let suffix = |word: &str| {
        let start = text.len().checked_sub(word.len())?;
        let (before, last) = text.split_at_checked(start)?;
        last.eq_ignore_ascii_case(word).then(|| trim(before))
    };
    match (suffix(" BC"), suffix(" AD")) {
        (Some(before), _) => (before, true),
        (None, Some(before)) => (before, false),
        (None, None) => (text, false),
    }
}

fn number(text: &str, longest: usize) -> Result<i64, Refusal> {
    if text.is_empty() || text.len() > longest || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Syntax);
    }
    text.parse().map_err(|_| Refusal::Syntax)
}

fn days(text: &str, before_christ: bool) -> Result<i64, Refusal> {
    // The last days that PostgreSQL's date and ours can hold; its calendar begins in 4714 BC.
    const MAX_YEAR: i64 = 5_874_897;
    const MIN_YEAR: i64 = -4713;
    let mut parts = text.split('-');
    let (year, month, day) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(year), Some(month), Some(day), None) if year.len() >= 3 => (year, month, day),
        (Some(whole), None, ..) if whole.len() == 8 && whole.is_ascii() => (&whole[..4], &whole[4..6], &whole[6..]),
        _ => return Err(Refusal::Syntax),
    };
    let (year, month, day) = (number(year, 9)?, number(month, 2)?, number(day, 2)?);
    if year == 0 || !(1..=12).contains(&month) {
        return Err(Refusal::FieldRange);
    }
    let year = if before_christ { 1 - year } else { year };
    if !(MIN_YEAR..=MAX_YEAR).contains(&year) {
        return Err(Refusal::TypeRange);
    }
    let date = Civil { year, month, day };
    let days = date.days();
    // A day that the month lacks leads to another date.
    match day > 0 && Civil::of_days(days) == date {
        true => Ok(days),
        false => Err(Refusal::FieldRange),
    }
}

/// `12:34[:56[.789]]`, at most `24:00:00`; microseconds.
fn time_of_day(text: &str) -> Result<i64, Refusal> {
    let mut parts = text.split(':');
    let (Some(hours), Some(minutes)) = (parts.next(), parts.next()) else { return Err(Refusal::Syntax) };
    let seconds = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return Err(Refusal::Syntax);
    }
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let (hours, minutes, seconds) = (number(hours, 9)?, number(minutes, 9)?, number(seconds, 9)?);
    let micros = (hours * 3600 + minutes * 60 + seconds) * 1_000_000 + micros_of_fraction(fraction)?;
    // A sixtieth second is the next minute's first, as in PostgreSQL.
    if hours > 24 || minutes > 59 || seconds > 60 || micros > MICROS_PER_DAY {
        return Err(Refusal::FieldRange);
    }
    Ok(micros)
}

/// Rounded to microseconds, half to even, as PostgreSQL does.
fn micros_of_fraction(digits: &str) -> Result<i64, Refusal> {
    if digits.is_empty() {
        return Ok(0);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Syntax);
    }
    let fraction: f64 = format!("0.{digits}").parse().map_err(|_| Refusal::Syntax)?;
    Ok((fraction * 1e6).round_ties_even() as i64)
}

fn zone(text: &str) -> Result<Option<Zone>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    if ["Z", "UTC", "GMT"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return Ok(Some(Zone::Offset(0)));
    }
    if let Some(digits) = text.strip_prefix('+') {
        return Ok(Some(Zone::Offset(offset(digits)?)));
    }
    if let Some(digits) = text.strip_prefix('-') {
        return Ok(Some(Zone::Offset(-offset(digits)?)));
    }
    match chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(text)) {
        Some(zone) => Ok(Some(Zone::Named(*zone))),
        None if text.contains('/') => Err(Refusal::Zone(text.to_ascii_lowercase())),
        None => Err(Refusal::Syntax),
    }
}

/// `05`, `05:30`, `0530`, `05:30:15`; seconds.
fn offset(text: &str) -> Result<i64, Refusal> {
    let mut parts = text.split(':');
    let (hours, minutes) = match (parts.next(), parts.next()) {
        (Some(both), None) if both.len() == 4 && both.is_ascii() => (&both[..2], &both[2..]),
        (Some(hours), minutes) => (hours, minutes.unwrap_or("0")),
        (None, _) => return Err(Refusal::Syntax),
    };
    let seconds = number(parts.next().unwrap_or("0"), 2)?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    if parts.next().is_some() {
        return Err(Refusal::Syntax);
    }
    // PostgreSQL's MAX_TZDISP_HOUR.
    if hours > 15 || minutes > 59 || seconds > 59 {
        return Err(Refusal::FieldRange);
    }
    Ok(hours * 3600 + minutes * 60 + seconds)
}

/// Seconds east of UTC at a time shown by clocks in `zone`. Of a time that is shown twice it is the later; one that
/// clocks skip is read with the offset from before.
fn offset_of_local(micros: i64, zone: Tz) -> Result<i64, Refusal> {
    if zone == Tz::UTC {
        return Ok(0);
    }
    let local = DateTime::from_timestamp_micros(micros).ok_or(Refusal::TypeRange)?.naive_utc();
    let seconds = |local: NaiveDateTime| match zone.offset_from_local_datetime(&local) {
        LocalResult::Single(offset) => Some(i64::from(offset.fix().local_minus_utc())),
        LocalResult::Ambiguous(_, later) => Some(i64::from(later.fix().local_minus_utc())),
        LocalResult::None => None,
    };
    // No zone ever skipped more than a day.
    let before = || local.checked_sub_signed(TimeDelta::days(1)).and_then(seconds);
    seconds(local).or_else(before).ok_or(Refusal::TypeRange)
}
