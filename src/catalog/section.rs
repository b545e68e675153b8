//! Reads one section of a catalog file: checks its keys against `keys`, gives values in the type that the key has.
//!
//! A getter answers `None` both for a key that is not there and for one with a wrong value; the mistake is then in the
//! list of problems, which no definition survives, so the caller may go on with the default.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::definition::{FileData, Origin};
use super::keys::{self, Key, Kind, quoted};
use super::problem::{Complaint, nearest};
use super::reading::{Reading, Text, wrong_type};
use crate::quantity::{parse_duration, parse_size};

/// A table of the file, such as `[lookup.customers.cache]`.
#[derive(Clone)]
pub(super) struct Section<'a> {
    pub reading: &'a Reading<'a>,
    /// Where the section's keys stand in `keys`: `lookup.X.cache`.
    pub kind: &'static str,
    /// As the user wrote it, in brackets.
    pub title: String,
    pub origin: Origin,
    table: &'a DeTable<'a>,
    of: Option<&'static str>,
}

impl<'a> Section<'a> {
    /// The top of a file.
    pub fn root(reading: &'a Reading<'a>, table: &'a DeTable<'a>) -> Section<'a> {
        let title = "the catalog".to_string();
        Section { reading, kind: "", title, origin: reading.source.origin(0), table, of: None }
    }

    /// This section as one of an object of type `of`; complains of every key that such an object does not have.
    pub fn of_type(&self, of: &'static str) -> Self {
        let section = Section { of: Some(of), ..self.clone() };
        section.check_keys();
        section
    }

    /// Complains of every key that does not belong here.
    pub fn check_keys(&self) {
        for (name, _) in self.table {
            let origin = self.reading.source.origin(name.span().start);
            if let Some(complaint) = self.objection(name.get_ref()) {
                self.reading.complain(&origin, complaint);
            }
        }
    }

    fn objection(&self, name: &str) -> Option<Complaint> {
        match keys::find(self.kind, name, self.of) {
            Some(Key { kind: Kind::Later, .. }) => {
                return Some(Complaint::new(format!("\"{name}\" in {} is not available yet", self.title)));
            }
            Some(_) => return None,
            None => {}
        }
        let others: Vec<&str> = keys::named(self.kind, name).flat_map(|key| key.of).copied().collect();
        if let (Some(of), false) = (self.of, others.is_empty()) {
            return Some(
                Complaint::new(format!("{} does not go with type \"{of}\"", self.what(name)))
                    .with_hint(format!("It goes with type {}.", alternatives(&others))),
            );
        }
        let offered = keys::offered(self.kind, self.of);
        let hint = match nearest(name, offered.iter().copied()) {
            Some(nearest) => format!("Perhaps you meant \"{nearest}\"."),
            None => format!("Keys here are {}.", quoted(&offered)),
        };
        Some(Complaint::new(format!("unknown key {}", self.what(name))).with_hint(hint))
    }

    pub fn complain(&self, complaint: Complaint) {
        self.reading.complain(&self.origin, complaint);
    }

    /// Complains at the value of `name`, or at the section where there is none.
    pub fn complain_of(&self, name: &str, complaint: Complaint) {
        let origin = self.get(name).map(|value| self.reading.source.origin(value.span().start));
        self.reading.complain(origin.as_ref().unwrap_or(&self.origin), complaint);
    }

    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Whether the value of `name` is this very string.
    pub fn is_text(&self, name: &str, text: &str) -> bool {
        self.get(name).is_some_and(|value| value.get_ref().as_str() == Some(text))
    }

    /// Whether the value of `name` is a table.
    pub fn is_section(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.get_ref().as_table().is_some())
    }

    /// Complains unless the key is there.
    pub fn require(&self, name: &str) {
        if !self.has(name) {
            self.complain(Complaint::new(format!("{} lacks \"{name}\"", self.title)));
        }
    }

    pub fn text(&self, name: &str) -> Option<Text> {
        let value = self.get(name)?;
        let text = self.reading.text(value, &self.what(name))?;
        if text.value.is_empty() {
            self.reading.complain(&text.origin, Complaint::new(format!("{} is empty", self.what(name))));
            return None;
        }
        Some(text)
    }

    /// The words for people that any object may have.
    pub fn comment(&self) -> Option<String> {
        self.text("comment").map(|text| text.value)
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|text| self.reading.resolve(&text.value))
    }

    /// The file that `name` names, on disk or in the binary.
    pub fn file(&self, name: &str) -> Option<FileData> {
        let text = self.text(name)?;
        let Some(embedded) = self.reading.embedded else {
            return Some(FileData::Path(self.reading.resolve(&text.value)));
        };
        let found = embedded.iter().find(|(path, _)| *path == text.value);
        if found.is_none() {
            self.reading.complain(&text.origin, Complaint::new(format!("no file \"{}\" is embedded", text.shown)));
        }
        found.map(|(_, contents)| FileData::Embedded(contents))
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.complain_of(name, wrong_type(&self.what(name), "true or false", value.get_ref()));
        }
        flag
    }

    /// A whole number that is not below what `keys` says for this key.
    pub fn whole(&self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        let DeValue::Integer(written) = value.get_ref() else {
            self.complain_of(name, wrong_type(&self.what(name), "a whole number", value.get_ref()));
            return None;
        };
        let least = match self.key_kind(name) {
            Some(Kind::Whole { least }) => least,
            _ => 0,
        };
        let number = non_negative(value.get_ref()).filter(|number| *number >= least);
        if number.is_none() {
            let message = format!("{} must be from {least} to {}, not {written}", self.what(name), i64::MAX);
            self.complain_of(name, Complaint::new(message));
        }
        number
    }

    /// As [`Section::whole`], for a key that `keys` lets begin at 1.
    pub fn count(&self, name: &str) -> Option<NonZeroUsize> {
        self.whole(name).and_then(|number| usize::try_from(number).ok()).and_then(NonZeroUsize::new)
    }

    /// As [`Section::whole`], up to `u32::MAX`.
    pub fn small(&self, name: &str) -> Option<u32> {
        let number = self.whole(name)?;
        let small = u32::try_from(number).ok();
        if small.is_none() {
            let message = format!("{} must be at most {}, not {number}", self.what(name), u32::MAX);
            self.complain_of(name, Complaint::new(message));
        }
        small
    }

    /// A number that is not negative, with or without a fraction.
    pub fn number(&self, name: &str) -> Option<f64> {
        let value = self.get(name)?;
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(_) => non_negative(value.get_ref()).map(|number| number as f64),
            other => {
                self.complain_of(name, wrong_type(&self.what(name), "a number", other));
                return None;
            }
        };
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            let message =
                format!("{} must be a number from 0, not {}", self.what(name), number_as_written(value.get_ref()));
            self.complain_of(name, Complaint::new(message));
        }
        number
    }

    /// A number from 0 to 1.
    pub fn share(&self, name: &str) -> Option<f64> {
        let number = self.number(name)?;
        if number > 1.0 {
            let message = format!("{} must be a number from 0 to 1, not {number}", self.what(name));
            self.complain_of(name, Complaint::new(message));
            return None;
        }
        Some(number)
    }

    pub fn duration(&self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        let duration = self.parsed(name, &text, parse_duration)?;
        if duration.is_zero() && self.key_kind(name) == Some(Kind::PositiveDuration) {
            let complaint = Complaint::new(format!("{} must not be zero", self.what(name)))
                .with_hint("Leave it out for its default.");
            self.reading.complain(&text.origin, complaint);
            return None;
        }
        Some(duration)
    }

    /// Bytes, at least 1.
    pub fn size(&self, name: &str) -> Option<NonZeroU64> {
        let text = self.text(name)?;
        let size = NonZeroU64::new(self.parsed(name, &text, parse_size)?);
        if size.is_none() {
            self.reading.complain(&text.origin, Complaint::new(format!("{} must not be zero", self.what(name))));
        }
        size
    }

    /// The value that `choices` has for the word; its words are those that `keys` lists as available.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*choice);
        }
        let later = match self.key_kind(name) {
            Some(Kind::Word { later, .. }) => later,
            _ => &[],
        };
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let complaint = match later.contains(&text.value.as_str()) {
            true => Complaint::new(format!("{name} = \"{}\" in {} is not available yet", text.shown, self.title)),
            false => Complaint::new(format!("unknown value \"{}\" for {}", text.shown, self.what(name))),
        };
        self.reading.complain(&text.origin, complaint.with_hint(format!("It may be {}.", alternatives(&words))));
        None
    }

    /// Strings, none empty, none twice; at least one.
    pub fn text_list(&self, name: &str) -> Option<Vec<Text>> {
        let value = self.get(name)?;
        let Some(items) = value.get_ref().as_array() else {
            self.complain_of(name, wrong_type(&self.what(name), "a list of strings", value.get_ref()));
            return None;
        };
        if items.is_empty() {
            self.complain_of(name, Complaint::new(format!("{} is empty", self.what(name))));
            return None;
        }
        let mut texts: Vec<Text> = Vec::with_capacity(items.len());
        for item in items.iter() {
            let text = self.reading.text(item, &format!("each item of {}", self.what(name)))?;
            if text.value.is_empty() {
                let message = format!("{} has an empty name", self.what(name));
                self.reading.complain(&text.origin, Complaint::new(message));
                return None;
            }
            if texts.iter().any(|earlier| earlier.value == text.value) {
                let message = format!("\"{}\" stands twice in {}", text.shown, self.what(name));
                self.reading.complain(&text.origin, Complaint::new(message));
                return None;
            }
            texts.push(text);
        }
        Some(texts)
    }

    /// The section `name` inside this one. `kind` is its path in `keys`.
    pub fn section(&self, name: &str, kind: &'static str) -> Option<Section<'a>> {
        let (key, value) = self.table.get_key_value(name)?;
        Section::of_value(self.reading, kind, self.title_of(name), key, value)
    }

    /// The title of the section `name` inside this one.
    pub fn title_of(&self, name: &str) -> String {
        match self.title.strip_suffix(']') {
            Some(outer) => format!("{outer}.{}]", bare_or_quoted(name)),
            None => format!("[{}]", bare_or_quoted(name)),
        }
    }

    /// `value`, which must be a table, as a section.
    pub fn of_value(
        reading: &'a Reading<'a>,
        kind: &'static str,
        title: String,
        key: &Spanned<DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<Section<'a>> {
        let origin = reading.source.origin(key.span().start);
        let Some(table) = value.get_ref().as_table() else {
            reading.complain(&origin, wrong_type(&title, "a table", value.get_ref()));
            return None;
        };
        Some(Section { reading, kind, title, origin, table, of: None })
    }

    /// The names in this section with their values, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> + use<'a> {
        self.table.iter()
    }

    /// What `parse` makes of the text; its complaint begins with the quoted text.
    fn parsed<T>(&self, name: &str, text: &Text, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let message = match parse(&text.value) {
            Ok(value) => return Some(value),
            Err(message) => message,
        };
        let wrong = message.strip_prefix(&format!("\"{}\"", text.value)).unwrap_or(" is not valid");
        self.reading.complain(&text.origin, Complaint::new(format!("{}: \"{}\"{wrong}", self.what(name), text.shown)));
        None
    }

    fn get(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(name)
    }

    fn key_kind(&self, name: &str) -> Option<Kind> {
        keys::find(self.kind, name, self.of).map(|key| key.kind)
    }

    fn what(&self, name: &str) -> String {
        format!("\"{name}\" in {}", self.title)
    }
}

/// A name as TOML wants it between dots.
fn bare_or_quoted(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { name.to_string() } else { format!("{name:?}") }
}

/// `"a", "b" or "c"`.
fn alternatives(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or \"{last}\"", quoted(first)),
        words => quoted(words),
    }
}

fn number_as_written(value: &DeValue) -> String {
    match value {
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.as_str().to_string(),
        _ => value.type_str().to_string(),
    }
}

fn non_negative(value: &DeValue) -> Option<u64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|number| u64::try_from(number).ok())
}
