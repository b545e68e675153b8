//! What `[lookup.X]` of type simulated means.

use std::ops::Range;
use std::time::Duration;

use super::columns::{read_columns_of, read_generator_columns};
use super::definition::SimulatedConfig;
use super::problem::Complaint;
use super::reading::Text;
use super::section::Section;
use crate::quantity::{parse_duration, show_duration};
use crate::store::simulated::{Behaviour, Latency, SimulatedError};

/// Reads a simulated table. Its expressions are looked at when it is opened.
pub(super) fn read_simulated(section: &Section) -> SimulatedConfig {
    let key = read_columns_of(section, "key").into_iter().map(|column| (column.name, column.pg_type)).collect();
    let columns = if section.has("columns") { read_generator_columns(section) } else { Vec::new() };
    if section.has("error") && !section.has("errors") {
        let message = format!("\"error\" in {} has no effect without \"errors\"", section.title);
        let hint = "Write the share of requests that fail: errors = 0.01.";
        section.complain_of("error", Complaint::new(message).with_hint(hint));
    }
    let default = Behaviour::default();
    let behaviour = Behaviour {
        latency: read_latency(section).unwrap_or(default.latency),
        errors: section.share("errors").unwrap_or(default.errors),
        error: section.choice("error", &SimulatedError::ALL.map(|e| (e.name(), e))).unwrap_or(default.error),
        stalls: section.share("stalls").unwrap_or(default.stalls),
        misses: section.share("misses").unwrap_or(default.misses),
        bad_keys: section.share("bad_keys").unwrap_or(default.bad_keys),
        rows_per_key: section.count("rows_per_key").unwrap_or(default.rows_per_key),
        duplicates: section.share("duplicates").unwrap_or(default.duplicates),
        outages: read_outages(section),
    };
    SimulatedConfig {
        seed: section.whole("seed").unwrap_or_default(),
        key,
        columns: columns.into_iter().map(|column| (column.name, column.expression)).collect(),
        behaviour,
    }
}

/// `"5ms"`, `{ p50, p99 }`, `{ from, to }` or `{ mean }`.
fn read_latency(lookup: &Section) -> Option<Latency> {
    if !lookup.is_section("latency") {
        return lookup.duration("latency").map(Latency::Fixed);
    }
    let section = lookup.section("latency", "lookup.X.latency")?.of_type("simulated");
    let keys: Vec<&str> = ["p50", "p99", "from", "to", "mean"].into_iter().filter(|key| section.has(key)).collect();
    let ordered = |low: &str, high: &str| {
        let (least, most) = (section.duration(low)?, section.duration(high)?);
        if least > most {
            let (least, most) = (show_duration(least), show_duration(most));
            let message = format!("{low} ({least}) in {} is above {high} ({most})", section.title);
            section.complain_of(low, Complaint::new(message));
            return None;
        }
        Some((least, most))
    };
    match keys.as_slice() {
        ["p50", "p99"] => ordered("p50", "p99").map(|(p50, p99)| Latency::LogNormal { p50, p99 }),
        ["from", "to"] => ordered("from", "to").map(|(from, to)| Latency::Uniform { from, to }),
        ["mean"] => section.duration("mean").map(|mean| Latency::Exponential { mean }),
        keys => {
            // Values are looked at all the same, so that each mistake is told.
            for key in keys {
                let _ = section.duration(key);
            }
            let complaint = Complaint::new(format!("{} is no distribution", section.title));
            section.complain(complaint.with_hint(
                "Write a duration, { p50 = \"…\", p99 = \"…\" }, { from = \"…\", to = \"…\" } or { mean = \"…\" }.",
            ));
            None
        }
    }
}

/// `["10s..40s"]`.
fn read_outages(section: &Section) -> Vec<Range<Duration>> {
    let texts = section.text_list("outages").unwrap_or_default();
    texts.iter().filter_map(|text| read_outage(section, text)).collect()
}

fn read_outage(section: &Section, text: &Text) -> Option<Range<Duration>> {
    let ends = text.value.split_once("..");
    let ends = ends.and_then(|(from, to)| Some(parse_duration(from).ok()?..parse_duration(to).ok()?));
    let outage = ends.filter(|outage| !outage.is_empty());
    if outage.is_none() {
        let message = format!("\"{}\" in \"outages\" of {} is no span of time", text.shown, section.title);
        let complaint = Complaint::new(message).with_hint("Write when it begins and ends: \"10s..40s\".");
        section.reading.complain(&text.origin, complaint);
    }
    outage
}
