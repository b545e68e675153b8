//! `WITH ( option = value, … )` behind a table's name, as typed options.

use std::num::NonZeroUsize;
use std::time::Duration;

use datafusion::sql::sqlparser::ast::Expr;

use crate::error::{Code, Error, Result};
use crate::format::settings::ValueSettings;
use crate::format::text::{self, Value};
use crate::lookup::policy::{LookupOverrides, OnFailure, Ordering};
use crate::pg_type::PgType;
use crate::quantity::parse_duration;
use crate::source::{Range, RangeChoice, Start, StartKind, Until};
use crate::sql::lookup_join::{is_mark, option_of_hint};

/// What a lookup join's `WITH` may hold.
const LOOKUP_OPTIONS: [&str; 7] =
    ["ordering", "timeout", "on_failure", "capacity", "batch_size", "batch_delay", "cache"];

/// Reads the options of one lookup join.
///
/// # Errors
/// 22023 for an unknown option or a bad value, 42601 for what is no option.
pub fn lookup_overrides(hints: &[Expr]) -> Result<LookupOverrides> {
    let mut overrides = LookupOverrides::default();
    let mut seen: Vec<String> = vec![];
    for hint in hints.iter().filter(|hint| !is_mark(hint)) {
        let (name, value) = option_of_hint(hint)?;
        if seen.contains(&name) {
            return Err(Error::new(Code::SyntaxError, format!("option \"{name}\" is given twice")));
        }
        match name.as_str() {
            "ordering" => overrides.ordering = Some(ordering(&value)?),
            "timeout" => overrides.timeout = Some(timeout(&value)?),
            "on_failure" => overrides.on_failure = Some(on_failure(&value)?),
            "capacity" => overrides.capacity = Some(count(&name, &value)?),
            "batch_size" => overrides.batch_size = Some(count(&name, &value)?),
            "batch_delay" => overrides.batch_delay = Some(batch_delay(&value)?),
            "cache" => match value.as_str() {
                "bypass" => overrides.bypass_cache = true,
                _ => return Err(bad_value(&name, &value, "Write cache = 'bypass', or leave the option out.")),
            },
            _ => return Err(unknown(&name, &LOOKUP_OPTIONS)),
        }
        seen.push(name);
    }
    Ok(overrides)
}

/// Reads what of a stream is to be read; `choice` is what it offers.
///
/// # Errors
/// 22023 for an unknown option, a bad value, or a stream that has no such choice; 42601 for what is no option.
pub fn stream_range(stream: &str, hints: &[Expr], choice: RangeChoice) -> Result<Range> {
    let mut range = choice.default_range();
    let mut seen: Vec<String> = vec![];
    for hint in hints {
        let (name, value) = option_of_hint(hint)?;
        if seen.contains(&name) {
            return Err(Error::new(Code::SyntaxError, format!("option \"{name}\" is given twice")));
        }
        match name.as_str() {
            "start" if choice.starts.is_empty() => {
                return Err(no_option(stream, &name).with_hint(
                    "Only streams that keep their rows can be read from another place than their beginning.",
                ));
            }
            "until" if !choice.until => {
                return Err(no_option(stream, &name)
                    .with_hint("Only streams that keep their rows can be read up to what is there now."));
            }
            "start" => range.start = start(stream, &value, choice.starts)?,
            "until" if value == "latest" => range.until = Until::Latest,
            "until" => return Err(bad_value(&name, &value, "Write until = 'latest', or leave the option out.")),
            _ => return Err(unknown(&name, &["start", "until"])),
        }
        seen.push(name);
    }
    Ok(range)
}

fn no_option(stream: &str, name: &str) -> Error {
    Error::new(Code::InvalidParameterValue, format!("stream \"{stream}\" has no option \"{name}\""))
}

fn start(stream: &str, value: &str, kinds: &[StartKind]) -> Result<Start> {
    let found = kinds.iter().find_map(|kind| match kind {
        StartKind::Latest => (value == "latest").then_some(Start::Latest),
        StartKind::Earliest => (value == "earliest").then_some(Start::Earliest),
        StartKind::Offsets => offsets(value).map(Start::Offsets),
        StartKind::Timestamp => moment(value).map(Start::Timestamp),
    });
    found.ok_or_else(|| {
        let ways = kinds.iter().map(|kind| match kind {
            StartKind::Latest => "'latest'",
            StartKind::Earliest => "'earliest'",
            StartKind::Timestamp => "a moment ('2026-01-31 12:00:00+00')",
            StartKind::Offsets => "the offset of each partition ('0:42,1:17')",
        });
        let ways = match ways.collect::<Vec<_>>().as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
            ways => ways.join(", "),
        };
        bad_value("start", value, &format!("Stream \"{stream}\" can start at {ways}."))
    })
}

/// `0:42, 1:17`, each partition once.
fn offsets(value: &str) -> Option<Vec<(i32, i64)>> {
    let mut offsets: Vec<(i32, i64)> = vec![];
    for item in value.split(',') {
        let (partition, offset) = item.split_once(':')?;
        let (partition, offset) = (partition.trim().parse().ok()?, offset.trim().parse().ok()?);
        if partition < 0 || offset < 0 || offsets.iter().any(|(earlier, _)| *earlier == partition) {
            return None;
        }
        offsets.push((partition, offset));
    }
    Some(offsets)
}

/// Microseconds since 1970 of a timestamp in PostgreSQL's syntax, in UTC where it names no zone.
fn moment(value: &str) -> Option<i64> {
    match text::parse(&PgType::Timestamptz, value, &ValueSettings::default()) {
        Ok(Value::Timestamp(microseconds)) => Some(microseconds),
        _ => None,
    }
}

fn ordering(value: &str) -> Result<Ordering> {
    let found = Ordering::ALL.into_iter().find(|ordering| ordering.name() == value);
    found.ok_or_else(|| bad_value("ordering", value, "Write 'ordered', 'unordered' or 'key_ordered'."))
}

fn on_failure(value: &str) -> Result<OnFailure> {
    let found = OnFailure::ALL.into_iter().find(|on_failure| on_failure.name() == value);
    found.ok_or_else(|| bad_value("on_failure", value, "Write 'fail', 'no_match' or 'skip'."))
}

fn timeout(value: &str) -> Result<Option<Duration>> {
    let duration = parse_duration(value).map_err(|_| {
        bad_value("timeout", value, "Write a whole number and a unit, '200ms' or '5s'; '0s' is no time-out.")
    })?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

fn batch_delay(value: &str) -> Result<Duration> {
    parse_duration(value).map_err(|_| {
        bad_value("batch_delay", value, "Write a whole number and a unit, '5ms'; '0ms' is no waiting for company.")
    })
}

fn count(name: &str, value: &str) -> Result<NonZeroUsize> {
    value.parse().map_err(|_| bad_value(name, value, "Write a whole number from 1."))
}

fn bad_value(name: &str, value: &str, hint: &str) -> Error {
    Error::new(Code::InvalidParameterValue, format!("invalid value for option \"{name}\": \"{value}\"")).with_hint(hint)
}

fn unknown(name: &str, known: &[&str]) -> Error {
    let error = Error::new(Code::InvalidParameterValue, format!("unrecognized option \"{name}\""));
    let nearest = known.iter().min_by_key(|candidate| strsim::damerau_levenshtein(candidate, name));
    match nearest.filter(|candidate| strsim::damerau_levenshtein(candidate, name) <= 3) {
        Some(nearest) => error.with_hint(format!("Perhaps you meant \"{nearest}\".")),
        None => error.with_hint(format!("Options here are {}.", known.join(", "))),
    }
}
