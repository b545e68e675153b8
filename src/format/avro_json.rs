//! Values of Avro as JSON, for the types that only jsonb holds.
//!
//! As PostgreSQL's `to_json` writes the columns of such types: numbers with all of their digits, times in ISO 8601, NaN and the
//! infinities as strings. Records and maps are objects; a union is its value, without the name of its type, as Flink
//! and Kafka Connect write it, and unlike Avro's own JSON. As they do, bytes are in base64.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, NaiveTime};
use datafusion::arrow::datatypes::i256;

use crate::error::Code;
use crate::format::avro_resolve::{Node, NodeId, RecordNode, Resolved, check_depth};
use crate::format::avro_value::Leaf;
use crate::format::avro_wire::{Cursor, malformed};
use crate::format::literal;
use crate::format::text::{Value, ValueError};

/// How long one value may become; names of fields and defaults are in no message.
const MAX_JSON_BYTES: usize = 64 * 1024 * 1024;

/// Reads a value and writes it down.
///
/// # Errors
/// 22P02 if it is malformed, the codes of its scalars, 54000 if it becomes longer than 64 MiB.
pub(crate) fn json_of(resolved: &Resolved, node: NodeId, cursor: &mut Cursor<'_>) -> Result<String, ValueError> {
    let mut writer = JsonWriter { resolved, text: String::new() };
    writer.write(node, cursor, 0)?;
    Ok(writer.text)
}

struct JsonWriter<'r> {
    resolved: &'r Resolved,
    text: String,
}

impl JsonWriter<'_> {
    fn write(&mut self, id: NodeId, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), ValueError> {
        check_depth(depth)?;
        if self.text.len() > MAX_JSON_BYTES {
            return Err(ValueError::new(Code::ProgramLimitExceeded, "a value comes to more than 64 MiB of JSON"));
        }
        let resolved = self.resolved;
        match resolved.get(id) {
            Node::Null => self.text.push_str("null"),
            Node::Scalar(leaf) => self.scalar(leaf, cursor)?,
            Node::Array(items) => self.items(*items, ('[', ']'), cursor, depth)?,
            Node::Map(values) => self.items(*values, ('{', '}'), cursor, depth)?,
            Node::Union(branches) => {
                let branch = branches[cursor.index(branches.len())?];
                self.write(branch, cursor, depth + 1)?;
            }
            Node::Record(record) => {
                cursor.count_record()?;
                self.record(record, cursor, depth)?;
            }
            Node::Unreadable { reason, .. } => return Err(malformed(reason)),
        }
        Ok(())
    }

    /// Of an array, or of a map, whose values have keys.
    fn items(
        &mut self,
        inner: NodeId,
        (open, close): (char, char),
        cursor: &mut Cursor<'_>,
        depth: usize,
    ) -> Result<(), ValueError> {
        self.text.push(open);
        let start = self.text.len();
        while let Some(block) = cursor.block()? {
            for _ in 0..block.items {
                self.comma(start);
                if open == '{' {
                    let key = cursor.text()?;
                    self.quoted(key)?;
                    self.text.push(':');
                }
                self.write(inner, cursor, depth + 1)?;
                cursor.count_item()?;
            }
        }
        self.text.push(close);
        Ok(())
    }

    /// In the reader's order, so that one record has one text whoever wrote it.
    fn record(&mut self, record: &RecordNode, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), ValueError> {
        self.text.push('{');
        let start = self.text.len();
        // Where each member's value is written, or was.
        let mut places = vec![None; if record.is_in_order { 0 } else { record.members.len() }];
        for field in &record.fields {
            let Some(member) = field.member else {
                self.resolved.skip(field.node, cursor, depth + 1)?;
                continue;
            };
            if record.is_in_order {
                self.key(record, member, start);
                self.write(field.node, cursor, depth + 1)?;
                continue;
            }
            let from = self.text.len();
            self.write(field.node, cursor, depth + 1)?;
            places[member] = Some(from..self.text.len());
        }
        if !record.is_in_order {
            let written = self.text.split_off(start);
            for (member, place) in places.into_iter().enumerate() {
                self.key(record, member, start);
                let value = place.map(|place| &written[place.start - start..place.end - start]);
                let value = value.or(record.members[member].default.as_deref());
                self.text.push_str(value.unwrap_or("null"));
            }
        }
        self.text.push('}');
        Ok(())
    }

    fn key(&mut self, record: &RecordNode, member: usize, start: usize) {
        self.comma(start);
        self.text.push_str(&record.members[member].key);
    }

    fn comma(&mut self, start: usize) {
        if self.text.len() > start {
            self.text.push(',');
        }
    }

    fn quoted(&mut self, text: &str) -> Result<(), ValueError> {
        literal::text(text)?;
        // A text is always JSON.
        self.text.push_str(&serde_json::Value::from(text).to_string());
        Ok(())
    }

    fn scalar(&mut self, leaf: &Leaf, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        let out_of_range = || ValueError::new(Code::DatetimeOverflow, "date out of range for JSON");
        let value = leaf.read(cursor)?;
        let text = &mut self.text;
        match value {
            Value::Bool(value) => text.push_str(if value { "true" } else { "false" }),
            Value::Int4(value) => text.push_str(itoa::Buffer::new().format(value)),
            Value::Int8(value) => text.push_str(itoa::Buffer::new().format(value)),
            Value::Float4(value) => number(f64::from(value), serde_json::to_string(&value), text),
            Value::Float8(value) => number(value, serde_json::to_string(&value), text),
            Value::Decimal128(value) => decimal(i256::from_i128(value), leaf.scale(), text),
            Value::Decimal256(value) => decimal(value, leaf.scale(), text),
            Value::Text(value) => self.quoted(&value)?,
            Value::Bytes(value) => {
                text.push('"');
                STANDARD.encode_string(value, text);
                text.push('"');
            }
            Value::Date(days) => {
                let date = NaiveDate::from_epoch_days(days).ok_or_else(out_of_range)?;
                quote(date.format("%Y-%m-%d"), text);
            }
            Value::Time(micros) => {
                let seconds = u32::try_from(micros / 1_000_000).ok();
                let nanos = (micros % 1_000_000) as u32 * 1000;
                let time = seconds.and_then(|seconds| NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos));
                quote(time.ok_or_else(out_of_range)?.format("%H:%M:%S%.f"), text);
            }
            Value::Timestamp(micros) => {
                let time = DateTime::from_timestamp_micros(micros).ok_or_else(out_of_range)?;
                let form = if leaf.has_zone() { "%Y-%m-%dT%H:%M:%S%.f+00:00" } else { "%Y-%m-%dT%H:%M:%S%.f" };
                quote(time.format(form), text);
            }
            Value::Interval(interval) => {
                let (months, days, nanos) = (interval.months, interval.days, interval.nanoseconds);
                let seconds = nanos as f64 / 1e9;
                quote(format_args!("P{months}M{days}DT{seconds}S"), text);
            }
            Value::Int2(_) | Value::Oid(_) | Value::List(_) => {
                return Err(ValueError::new(Code::Internal, "a scalar of Avro became what none becomes"));
            }
        }
        Ok(())
    }
}

fn quote(shown: impl std::fmt::Display, text: &mut String) {
    // Writing to a String does not fail.
    let _ = write!(text, "\"{shown}\"");
}

fn number(value: f64, json: serde_json::Result<String>, text: &mut String) {
    match json {
        Ok(json) if value.is_finite() => text.push_str(&json),
        _ if value.is_nan() => text.push_str("\"NaN\""),
        _ if value > 0.0 => text.push_str("\"Infinity\""),
        _ => text.push_str("\"-Infinity\""),
    }
}

/// `scale` digits stand behind the point.
fn decimal(number: i256, scale: u8, text: &mut String) {
    let shown = number.to_string();
    let (sign, digits) = match shown.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", shown.as_str()),
    };
    let digits = format!("{digits:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let point = if fraction.is_empty() { "" } else { "." };
    let _ = write!(text, "{sign}{whole}{point}{fraction}");
}
