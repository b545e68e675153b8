//! `[stream.X.columns]` and their like: names with a string each, in the order of the file.

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::definition::{ColumnDefinition, GeneratorColumn, JsonPath};
use super::problem::Complaint;
use super::reading::Text;
use super::section::Section;
use crate::pg_type::PgType;

/// The columns with types that `[….columns]` inside `parent` declares; it must be there and hold at least one.
pub(super) fn read_columns(parent: &Section) -> Vec<ColumnDefinition> {
    read_columns_of(parent, "columns")
}

/// As [`read_columns`], from the section `name` inside `parent`.
pub(super) fn read_columns_of(parent: &Section, name: &'static str) -> Vec<ColumnDefinition> {
    let Some(section) = columns_section(parent, name) else { return Vec::new() };
    named_texts(&section).into_iter().filter_map(|(name, text)| column(&section, name, text, None)).collect()
}

/// Whose columns of documents are declared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentsOf {
    Lookup,
    Stream,
}

/// As [`read_columns`], where a column may also be a table, `{ type = "int", path = "$.plan.tier" }`, that says where in
/// a JSON document it stands.
pub(super) fn read_document_columns(parent: &Section, of: DocumentsOf) -> Vec<ColumnDefinition> {
    let kind = match of {
        DocumentsOf::Lookup => "lookup.X.columns.Y",
        DocumentsOf::Stream => "stream.X.columns.Y",
    };
    let Some(section) = columns_section(parent, "columns") else { return Vec::new() };
    let mut columns = Vec::new();
    for (key, value) in section.entries() {
        let name = key.get_ref().to_string();
        if !matches!(value.get_ref(), DeValue::Table(_)) || name.is_empty() {
            columns
                .extend(named_text(&section, key, value).and_then(|(name, text)| column(&section, name, text, None)));
            continue;
        }
        let Some(inner) = section.section(&name, kind) else { continue };
        inner.check_keys();
        inner.require("type");
        let path = inner.text("path").map(|text| (text.value.parse::<JsonPath>(), text));
        if let Some((Err(reason), text)) = &path {
            inner.reading.complain(&text.origin, Complaint::new(format!("path of column \"{name}\": {reason}")));
        }
        let path = path.and_then(|(path, _)| path.ok());
        columns.extend(inner.text("type").and_then(|text| column(&section, name, text, path)));
    }
    columns
}

fn column(section: &Section, name: String, text: Text, path: Option<JsonPath>) -> Option<ColumnDefinition> {
    let (pg_type, nullable) = parsed(section, &text, nullable_type)?;
    Some(ColumnDefinition { name, pg_type, nullable, path, origin: text.origin })
}

/// The columns of a generator; as [`read_columns`].
pub(super) fn read_generator_columns(parent: &Section) -> Vec<GeneratorColumn> {
    let Some(section) = columns_section(parent, "columns") else { return Vec::new() };
    let columns = named_texts(&section).into_iter();
    columns.map(|(name, text)| GeneratorColumn { name, expression: text.value, origin: text.origin }).collect()
}

/// `[….types]` inside `parent`, if it is there.
pub(super) fn read_types(parent: &Section) -> Vec<(String, Text, PgType)> {
    let Some(section) = parent.section("types", "types") else { return Vec::new() };
    named_texts(&section)
        .into_iter()
        .filter_map(|(name, text)| {
            let pg_type = parsed(&section, &text, parse_type)?;
            Some((name, text, pg_type))
        })
        .collect()
}

fn columns_section<'a>(parent: &Section<'a>, name: &'static str) -> Option<Section<'a>> {
    if !parent.has(name) {
        let inner = parent.title_of(name);
        let complaint = Complaint::new(format!("{} declares no columns", parent.title));
        parent.complain(complaint.with_hint(format!("Declare them in {inner}.")));
        return None;
    }
    let section = parent.section(name, "columns")?;
    if section.entries().next().is_none() {
        section.complain(Complaint::new(format!("{} is empty", section.title)));
    }
    Some(section)
}

pub(super) fn named_texts(section: &Section) -> Vec<(String, Text)> {
    section.entries().filter_map(|(key, value)| named_text(section, key, value)).collect()
}

fn named_text(section: &Section, key: &Spanned<DeString>, value: &Spanned<DeValue>) -> Option<(String, Text)> {
    let name = key.get_ref().to_string();
    let origin = section.reading.source.origin(key.span().start);
    if name.is_empty() {
        section.reading.complain(&origin, Complaint::new(format!("a column in {} has no name", section.title)));
        return None;
    }
    if matches!(value.get_ref(), DeValue::Table(_)) {
        let message = format!("\"{name}\" in {} is declared by a table, which does not go here", section.title);
        let hint = format!("Write a string: {name} = \"…\". A path goes with columns of JSON documents.");
        section.reading.complain(&origin, Complaint::new(message).with_hint(hint));
        return None;
    }
    section.text(&name).map(|text| (name, text))
}

/// What `parse` makes of `text`. What was put in for a reference is kept out of the complaint.
fn parsed<T>(section: &Section, text: &Text, parse: impl Fn(&str) -> Result<T, Complaint>) -> Option<T> {
    let complaint = match parse(&text.value) {
        Ok(value) => return Some(value),
        Err(_) if text.is_substituted() => Complaint::new(format!("\"{}\" is not the name of a type", text.shown)),
        Err(complaint) => complaint,
    };
    section.reading.complain(&text.origin, complaint);
    None
}

fn nullable_type(text: &str) -> Result<(PgType, bool), Complaint> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [rest @ .., not, null] if not.eq_ignore_ascii_case("not") && null.eq_ignore_ascii_case("null") => {
            Ok((parse_type(&rest.join(" "))?, false))
        }
        words => Ok((parse_type(&words.join(" "))?, true)),
    }
}

fn parse_type(text: &str) -> Result<PgType, Complaint> {
    PgType::parse(text)
        .map_err(|error| Complaint { message: error.message().to_string(), hint: error.hint().map(str::to_string) })
}
