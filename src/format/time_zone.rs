//! Time zones as they stand in dates and times: distances from UTC, abbreviations, and names.

use chrono::{DateTime, Datelike, LocalResult, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// What a text says of where its clock hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Seconds east of UTC.
    Offset(i64),
    Named(Tz),
}

pub(crate) enum OffsetError {
    Syntax,
    Range,
}

/// Those of PostgreSQL's default set that are in wide use, with their hours east of UTC. A name that means several things,
/// as IST, means what it does there.
const ABBREVIATIONS: [(&str, f64); 42] = [
    ("acst", 9.5),
    ("acdt", 10.5),
    ("adt", -3.0),
    ("aedt", 11.0),
    ("aest", 10.0),
    ("akdt", -8.0),
    ("akst", -9.0),
    ("ast", -4.0),
    ("awst", 8.0),
    ("brt", -3.0),
    ("bst", 1.0),
    ("cdt", -5.0),
    ("cest", 2.0),
    ("cet", 1.0),
    ("cst", -6.0),
    ("edt", -4.0),
    ("eest", 3.0),
    ("eet", 2.0),
    ("est", -5.0),
    ("gmt", 0.0),
    ("hkt", 8.0),
    ("hst", -10.0),
    ("idt", 3.0),
    ("ist", 2.0),
    ("jst", 9.0),
    ("kst", 9.0),
    ("mdt", -6.0),
    ("mest", 2.0),
    ("met", 1.0),
    ("msk", 3.0),
    ("mst", -7.0),
    ("ndt", -2.5),
    ("nst", -3.5),
    ("nzdt", 13.0),
    ("nzst", 12.0),
    ("pdt", -7.0),
    ("pst", -8.0),
    ("utc", 0.0),
    ("west", 1.0),
    ("wet", 0.0),
    ("z", 0.0),
    ("zulu", 0.0),
];

impl Zone {
    /// An abbreviation or a name, in any case.
    pub(crate) fn of_name(name: &str) -> Option<Zone> {
        if let Some((_, hours)) = ABBREVIATIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Some(Zone::Offset((hours * 3600.0) as i64));
        }
        chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name)).map(|zone| Zone::Named(*zone))
    }

    /// Seconds east of UTC at a time shown by clocks in the zone, in microseconds since 1970. Of a time that is shown
    /// twice it is the later; one that clocks skip is read with the offset from before.
    pub(crate) fn offset_of_local(self, micros: i64) -> Option<i64> {
        let zone = match self {
            Zone::Offset(seconds) => return Some(seconds),
            Zone::Named(Tz::UTC) => return Some(0),
            Zone::Named(zone) => zone,
        };
        let local = DateTime::from_timestamp_micros(with_known_rules(micros))?.naive_utc();
        let seconds = |local: NaiveDateTime| match zone.offset_from_local_datetime(&local) {
            LocalResult::Single(offset) => Some(i64::from(offset.fix().local_minus_utc())),
            LocalResult::Ambiguous(_, later) => Some(i64::from(later.fix().local_minus_utc())),
            LocalResult::None => None,
        };
        // No zone ever skipped more than a day.
        let before = || local.checked_sub_signed(TimeDelta::days(1)).and_then(seconds);
        seconds(local).or_else(before)
    }
}

/// A moment of a year whose rules are known, with the same day of the week, month and day: for moments so late that tables of
/// zones have ended, as today's rules go on for ever.
pub(crate) fn with_known_rules(micros: i64) -> i64 {
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    /// In which the calendar repeats itself.
    const DAYS_OF_400_YEARS: i64 = 146_097;
    /// The year in which they are taken to end.
    const END_OF_TABLES: i32 = 2100;
    /// Every kind of year is among 28.
    const MODEL_YEARS: std::ops::Range<i32> = 2010..2038;
    let day = micros.div_euclid(MICROS_PER_DAY);
    let cycles = (day / DAYS_OF_400_YEARS - 1).max(0);
    let new_year = |year: i32| NaiveDate::from_ymd_opt(year, 1, 1);
    let Some(date) = NaiveDate::from_epoch_days((day - cycles * DAYS_OF_400_YEARS) as i32) else { return micros };
    let year = date.year() + 400 * cycles as i32;
    let model = MODEL_YEARS.filter_map(new_year).find(|model| {
        new_year(date.year())
            .is_some_and(|begin| begin.weekday() == model.weekday() && begin.leap_year() == model.leap_year())
    });
    match (model, new_year(date.year())) {
        (Some(model), Some(begin)) if year >= END_OF_TABLES => {
            let days = begin.signed_duration_since(model).num_days() + cycles * DAYS_OF_400_YEARS;
            micros - days * MICROS_PER_DAY
        }
        _ => micros,
    }
}

/// `+02`, `+02:30`, `+0230`, `-02:30:15`: seconds east of UTC.
pub(crate) fn offset_seconds(text: &str) -> Result<i64, OffsetError> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits = text.get(1..).unwrap_or_default();
    let number = |text: &str, lengths: std::ops::RangeInclusive<usize>| match text.parse::<i64>() {
        Ok(number) if lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(OffsetError::Syntax),
    };
    let (hours, minutes, seconds) = match digits.split(':').collect::<Vec<_>>().as_slice() {
        [both] if both.len() == 4 && both.is_ascii() => (number(&both[..2], 2..=2)?, number(&both[2..], 2..=2)?, 0),
        [hours] => (number(hours, 1..=2)?, 0, 0),
        [hours, minutes] => (number(hours, 1..=2)?, number(minutes, 2..=2)?, 0),
        [hours, minutes, seconds] => (number(hours, 1..=2)?, number(minutes, 2..=2)?, number(seconds, 2..=2)?),
        _ => return Err(OffsetError::Syntax),
    };
    // PostgreSQL's MAX_TZDISP_HOUR.
    if hours > 15 || minutes > 59 || seconds > 59 {
        return Err(OffsetError::Range);
    }
    Ok(sign * ((hours * 60 + minutes) * 60 + seconds))
}
