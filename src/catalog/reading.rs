//! The reading of one catalog file: where its strings and paths get their values, and where its problems go.

use std::cell::RefCell;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::definition::Origin;
use super::problem::{Complaint, Problem, SourceText};
use super::substitute::{Values, substitute};

/// The reading of one file.
pub(super) struct Reading<'a> {
    pub source: SourceText<'a>,
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Files inside the binary by the path that the catalog names them with; `None`: they are on disk.
    pub embedded: Option<&'a [(&'a str, &'static str)]>,
    pub problems: &'a RefCell<Vec<Problem>>,
}

/// A string of the file with its references replaced.
#[derive(Clone)]
pub(super) struct Text {
    pub value: String,
    pub origin: Origin,
    /// What a message may show: the string as it stands in the file, references unreplaced.
    pub shown: String,
}

impl Text {
    /// Whether something was put in, which messages must not show.
    pub fn is_substituted(&self) -> bool {
        self.value != self.shown
    }
}

impl<'a> Reading<'a> {
    pub fn complain(&self, origin: &Origin, complaint: Complaint) {
        self.problems.borrow_mut().push(complaint.at(origin));
    }

    /// A path of the catalog: relative ones start at the catalog file's folder.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.source.path.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// The string behind `what`, such as `"table" in [lookup.customers]`.
    pub fn text(&self, value: &Spanned<DeValue>, what: &str) -> Option<Text> {
        let origin = self.source.origin(value.span().start);
        let DeValue::String(written) = value.get_ref() else {
            self.complain(&origin, wrong_type(what, "a string", value.get_ref()));
            return None;
        };
        let read_file = |path: &str| std::fs::read_to_string(self.resolve(path));
        match substitute(written, &Values { variable: self.environment, file: &read_file }) {
            Ok(None) => Some(Text { value: written.to_string(), origin, shown: written.to_string() }),
            Ok(Some(value)) => Some(Text { value, origin, shown: written.to_string() }),
            Err(complaint) => {
                let message = format!("{what}: {}", complaint.message);
                self.complain(&origin, Complaint { message, ..complaint });
                None
            }
        }
    }
}

/// The complaint that `found` is not what `what` wants.
pub(super) fn wrong_type(what: &str, expected: &str, found: &DeValue) -> Complaint {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Complaint::new(format!("{what} must be {expected}, not {found}"))
}
