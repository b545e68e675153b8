//! Where a key's values go in a text that names rows: `customer:{id}`, `/v1/prices/{sku}`.
//!
//! `{name}` stands for the column `name`, `{{` and `}}` for braces. A value's text is that of PostgreSQL's cast to text, so that
//! equal keys have one text and different keys have different ones; what a store must do so that a text
//! does not leave its place, it does when the template is rendered.

use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder};
use datafusion::arrow::datatypes::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};

use super::memory_index::comparable;
use crate::error::{Code, Error, Result};
use crate::format::text::ColumnBuilder;
use crate::pg_type::PgType;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// From 0001-01-01, where chrono counts from with 1, to 1970-01-01.
const DAYS_TO_1970: i64 = 719_163;

/// Literal text and columns, in turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    parts: Vec<Part>,
    columns: Vec<String>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Not empty; no two stand beside each other.
    Literal(String),
    /// A position in [`Template::columns`].
    Column(usize),
}

impl Template {
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The columns named, each once, in the order in which they first stand there. There may be none.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What every text begins with.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            Some(Part::Column(_)) | None => "",
        }
    }

    /// The text for `values`, one for each of [`Template::columns`]; `escape` appends a value as it may stand there.
    pub fn render(&self, values: &[&str], mut escape: impl FnMut(&str, &mut String)) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Column(column) => escape(values.get(*column).copied().unwrap_or_default(), &mut text),
            }
        }
        text
    }

    /// The value that [`Template::render`] made `text` of, without escapes, where one column stands there once. `None`
    /// where it cannot have been made so, or more columns stand there, whose ends no text tells.
    pub fn value_in<'t>(&self, text: &'t str) -> Option<&'t str> {
        let (before, after) = match self.parts.as_slice() {
            [Part::Column(_)] => ("", ""),
            [Part::Literal(before), Part::Column(_)] => (before.as_str(), ""),
            [Part::Column(_), Part::Literal(after)] => ("", after.as_str()),
            [Part::Literal(before), Part::Column(_), Part::Literal(after)] => (before.as_str(), after.as_str()),
            _ => return None,
        };
        text.strip_prefix(before)?.strip_suffix(after)
    }
}

impl FromStr for Template {
    type Err = String;

    /// # Errors
    /// In words, beginning with the quoted text.
    fn from_str(text: &str) -> Result<Template, String> {
        let wrong = |reason: &str| format!("\"{text}\" is not a template: {reason}");
        let mut template = Template { parts: Vec::new(), columns: Vec::new() };
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let from_brace = &rest[at..];
            if let Some(behind) = from_brace.strip_prefix("{{").or_else(|| from_brace.strip_prefix("}}")) {
                literal.push_str(&from_brace[..1]);
                rest = behind;
                continue;
            }
            let inside =
                from_brace.strip_prefix('{').ok_or_else(|| wrong("a } closes nothing; write }} for a brace"))?;
            let (name, behind) =
                inside.split_once('}').ok_or_else(|| wrong("a { is not closed; write {{ for a brace"))?;
            if name.is_empty() || name.contains('{') {
                return Err(wrong("a column is {name}; write {{ and }} for braces"));
            }
            template.push_literal(&mut literal);
            template.push_column(name);
            rest = behind;
        }
        literal.push_str(rest);
        template.push_literal(&mut literal);
        Ok(template)
    }
}

impl Template {
    fn push_literal(&mut self, literal: &mut String) {
        if !literal.is_empty() {
            self.parts.push(Part::Literal(std::mem::take(literal)));
        }
    }

    fn push_column(&mut self, name: &str) {
        let position = self.columns.iter().position(|column| column == name).unwrap_or_else(|| {
            self.columns.push(name.to_string());
            self.columns.len() - 1
        });
        self.parts.push(Part::Column(position));
    }
}

/// As it was written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Column(column) => write!(f, "{{{}}}", self.columns[*column]),
        })
    }
}

/// Why no text can stand for the values of this type; `None` where one can.
pub fn key_objection(pg_type: &PgType) -> Option<String> {
    match pg_type {
        PgType::Json | PgType::Jsonb | PgType::Array(_) | PgType::Interval => {
            Some(format!("equal values of type {pg_type} need not have the same text"))
        }
        PgType::Bool
        | PgType::Int2
        | PgType::Int4
        | PgType::Int8
        | PgType::Float4
        | PgType::Float8
        | PgType::Numeric { .. }
        | PgType::Text
        | PgType::Bytea
        | PgType::Date
        | PgType::Time
        | PgType::Timestamp
        | PgType::Timestamptz
        | PgType::Uuid
        | PgType::Name
        | PgType::Char
        | PgType::Oid => None,
    }
}

/// The texts of keys of this type, as PostgreSQL casts them to text: moments in UTC, floats with as few digits as tell
/// them apart, -0 as 0.
///
/// # Errors
/// 0A000 for a type that [`key_objection`] objects to; 22008 for a date beyond the year 262142; 22P02 for a uuid that is none.
pub fn key_texts(keys: &ArrayRef, pg_type: &PgType) -> Result<StringViewArray> {
    let keys = comparable(keys, pg_type)?;
    let mut texts = StringViewBuilder::with_capacity(keys.len());
    for row in 0..keys.len() {
        if keys.is_null(row) {
            texts.append_null();
            continue;
        }
        texts.append_value(key_text(&keys, row, pg_type)?);
    }
    Ok(texts.finish())
}

/// The value of a key's text, as an array of one. `None` for a text that [`key_texts`] does not make of any value.
pub fn key_of_text(text: &str, pg_type: &PgType) -> Option<ArrayRef> {
    let mut column = ColumnBuilder::new(pg_type);
    column.append(text).ok()?;
    let value = column.finish();
    let again = key_texts(&value, pg_type).ok()?;
    (again.value(0) == text).then_some(value)
}

fn key_text(keys: &ArrayRef, row: usize, pg_type: &PgType) -> Result<String> {
    Ok(match pg_type {
        PgType::Bool => keys.as_boolean().value(row).to_string(),
        PgType::Int2 => keys.as_primitive::<Int16Type>().value(row).to_string(),
        PgType::Int4 => keys.as_primitive::<Int32Type>().value(row).to_string(),
        PgType::Int8 => keys.as_primitive::<Int64Type>().value(row).to_string(),
        PgType::Oid => keys.as_primitive::<UInt32Type>().value(row).to_string(),
        PgType::Float4 => {
            let value = keys.as_primitive::<Float32Type>().value(row);
            float_text(&format!("{value:e}"), f64::from(value), 6)
        }
        PgType::Float8 => {
            let value = keys.as_primitive::<Float64Type>().value(row);
            float_text(&format!("{value:e}"), value, 15)
        }
        PgType::Numeric { precision, .. } if *precision <= 38 => {
            keys.as_primitive::<Decimal128Type>().value_as_string(row)
        }
        PgType::Numeric { .. } => keys.as_primitive::<Decimal256Type>().value_as_string(row),
        PgType::Text | PgType::Uuid | PgType::Name | PgType::Char => keys.as_string_view().value(row).to_string(),
        PgType::Bytea => {
            let bytes = keys.as_binary::<i32>().value(row).iter();
            bytes.fold("\\x".to_string(), |text, byte| text + &format!("{byte:02x}"))
        }
        PgType::Date => {
            let (date, era) = date_text(i64::from(keys.as_primitive::<Date32Type>().value(row)))?;
            date + era
        }
        PgType::Time => time_text(keys.as_primitive::<Time64MicrosecondType>().value(row)),
        PgType::Timestamp => moment_text(keys.as_primitive::<TimestampMicrosecondType>().value(row), "")?,
        PgType::Timestamptz => moment_text(keys.as_primitive::<TimestampMicrosecondType>().value(row), "+00")?,
        PgType::Json | PgType::Jsonb | PgType::Interval | PgType::Array(_) => {
            return Err(Error::unsupported(key_objection(pg_type).unwrap_or_default()));
        }
    })
}

/// `shortest` is like `-1.5e-7`. PostgreSQL writes an exponent below -4 and from `digits` on, with two digits at least.
fn float_text(shortest: &str, value: f64, digits: i32) -> String {
    if value.is_nan() {
        return "NaN".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_string();
    }
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..digits).contains(&exponent) {
        // Written out, the shortest digits stay what they are.
        let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
        let figures = mantissa.replace('.', "");
        return format!("{sign}{}", with_point(&figures, exponent));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Figures of which the first counts 10 to the power of `exponent`.
fn with_point(figures: &str, exponent: i32) -> String {
    match usize::try_from(exponent) {
        Err(_) => format!("0.{}{figures}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
        Ok(whole) if figures.len() <= whole + 1 => format!("{figures}{}", "0".repeat(whole + 1 - figures.len())),
        Ok(whole) => format!("{}.{}", &figures[..=whole], &figures[whole + 1..]),
    }
}

/// Days since 1970, and what goes behind: the era, where it is not ours.
fn date_text(days: i64) -> Result<(String, &'static str)> {
    let date = i32::try_from(days + DAYS_TO_1970).ok().and_then(NaiveDate::from_num_days_from_ce_opt);
    let date = date.ok_or_else(|| Error::new(Code::DatetimeOverflow, "date out of range for a key's text"))?;
    let (year, era) = if date.year() > 0 { (date.year(), "") } else { (1 - date.year(), " BC") };
    Ok((format!("{year:04}-{:02}-{:02}", date.month(), date.day()), era))
}

/// Microseconds since midnight.
fn time_text(micros: i64) -> String {
    let (seconds, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction {
        0 => text,
        fraction => format!("{text}.{}", format!("{fraction:06}").trim_end_matches('0')),
    }
}

/// Microseconds since 1970.
fn moment_text(micros: i64, zone: &str) -> Result<String> {
    let (date, era) = date_text(micros.div_euclid(MICROS_PER_DAY))?;
    Ok(format!("{date} {}{zone}{era}", time_text(micros.rem_euclid(MICROS_PER_DAY))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of_texts(texts: &[&str], pg_type: &PgType) -> ArrayRef {
        let mut column = ColumnBuilder::new(pg_type);
        texts.iter().for_each(|text| column.append(text).unwrap());
        column.finish()
    }

    fn escaped(template: &str, values: &[&str]) -> String {
        let template = template.parse::<Template>().unwrap();
        template.render(values, |value, text| text.push_str(&format!("<{value}>")))
    }

    #[test]
    fn values_stand_where_their_columns_do() {
        assert_eq!(escaped("customer:{id}", &["7"]), "customer:<7>");
        assert_eq!(escaped("{a}/{b}?again={a}", &["1", "2"]), "<1>/<2>?again=<1>");
        assert_eq!(escaped("{{{id}}}:}}{{", &["{id}"]), "{<{id}>}:}{");
        assert_eq!(escaped("no column", &[]), "no column");
    }

    #[test]
    fn columns_are_named_once_and_templates_are_shown_as_written() {
        let text = "a{{b}}{tier}:{id}:{tier}";
        let template = text.parse::<Template>().unwrap();
        assert_eq!((template.columns(), template.prefix()), (&["tier".to_string(), "id".to_string()][..], "a{b}"));
        assert_eq!(template.to_string(), text);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["{", "}", "{}", "a{b", "a}b", "{a{b}}", "{{a}"] {
            let reason = text.parse::<Template>().unwrap_err();
            assert!(reason.starts_with(&format!("\"{text}\" is not a template: ")), "{reason}");
        }
    }

    #[test]
    fn a_value_is_found_again_where_one_column_stands_once() {
        for (template, text, expected) in [
            ("customer:{id}", "customer:7", Some("7")),
            ("customer:{id}", "order:7", None),
            ("{id}", "7", Some("7")),
            ("{id}:x", "7:x", Some("7")),
            ("a:{id}:x", "a::x", Some("")),
            ("a:{id}:x", "a:x", None),
            ("{a}:{b}", "1:2", None),
            ("constant", "constant", None),
        ] {
            let template = template.parse::<Template>().unwrap();
            assert_eq!(template.value_in(text), expected, "{template} in {text}");
        }
    }

    /// Texts as PostgreSQL 15 casts them.
    #[test]
    fn texts_are_those_of_a_cast_in_postgresql() {
        for (pg_type, texts) in [
            ("boolean", &["true", "false"][..]),
            ("smallint", &["-32768"]),
            ("integer", &["2147483647"]),
            ("bigint", &["-9223372036854775808"]),
            ("oid", &["4294967295"]),
            ("numeric(12,2)", &["0.05", "-0.05", "9999999999.99", "7.00"]),
            ("numeric(50,3)", &["12345678901234567890123456789012345678901.125"]),
            (
                "double precision",
                &["0", "1.5", "-0.0001", "1e-05", "123456789012345", "1e+15", "1.25e+300", "NaN", "-Infinity"],
            ),
            ("real", &["100000", "1e+06", "0.1", "3.4028235e+38"]),
            ("text", &["", "O'Brien \u{1f980} \n"]),
            ("bytea", &["\\x", "\\x00ff5c"]),
            ("date", &["1969-12-31", "0044-03-15 BC", "10000-01-01"]),
            ("time", &["00:00:00", "23:59:59.5", "12:00:00.000001"]),
            ("timestamp", &["1969-12-31 23:59:59.999999", "0001-01-01 00:00:00 BC"]),
            ("timestamptz", &["2024-02-29 10:00:00+00", "0044-03-15 01:02:03+00 BC"]),
            ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        ] {
            let pg_type = PgType::parse(pg_type).unwrap();
            assert_eq!(key_objection(&pg_type), None);
            let keys = keys_of_texts(texts, &pg_type);
            let found = key_texts(&keys, &pg_type).unwrap();
            assert_eq!(found.iter().map(Option::unwrap).collect::<Vec<_>>(), texts, "{pg_type}");
            for (row, text) in texts.iter().enumerate() {
                assert_eq!(key_of_text(text, &pg_type).unwrap().as_ref(), keys.slice(row, 1).as_ref(), "{text}");
            }
        }
    }

    #[test]
    fn a_text_that_no_value_has_is_no_key() {
        for (pg_type, text) in
            [("bigint", "07"), ("bigint", "x"), ("boolean", "t"), ("date", "1.2.2003"), ("uuid", "A0")]
        {
            assert_eq!(key_of_text(text, &PgType::parse(pg_type).unwrap()), None, "{pg_type} {text}");
        }
    }

    #[test]
    fn types_whose_equal_values_differ_in_text_are_refused() {
        for pg_type in ["json", "jsonb", "interval", "bigint[]"] {
            let pg_type = PgType::parse(pg_type).unwrap();
            let objection = key_objection(&pg_type).unwrap();
            assert_eq!(objection, format!("equal values of type {pg_type} need not have the same text"));
        }
    }
}
