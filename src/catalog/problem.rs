//! What is wrong with a catalog, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use super::definition::Origin;

/// One mistake. Lines and columns count from 1, columns in characters; line 0: the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub message: String,
    /// A sentence that says what to do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        write!(f, " {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Message and hint of a mistake whose place somebody else knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub message: String,
    pub hint: Option<String>,
}

impl Complaint {
    pub fn new(message: impl Into<String>) -> Self {
        Complaint { message: message.into(), hint: None }
    }

    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Complaint { hint: Some(hint.into()), ..self }
    }

    pub fn at(self, origin: &Origin) -> Problem {
        Problem {
            file: origin.file.clone(),
            line: origin.line,
            column: origin.column,
            message: self.message,
            hint: self.hint,
        }
    }
}

/// A catalog file's text, which can say on which line a byte stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceText<'a> {
    pub path: &'a Path,
    pub text: &'a str,
}

impl SourceText<'_> {
    /// The place of the byte at `offset`; past the end, the end.
    pub fn origin(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin {
            file: self.path.to_path_buf(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// The candidate most like `name`, if any is like enough to be what was meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 2).clamp(1, 3);
    let distance = |candidate: &str| strsim::damerau_levenshtein(&candidate.to_lowercase(), &name.to_lowercase());
    let best = candidates.into_iter().map(|candidate| (distance(candidate), candidate)).min_by_key(|(d, _)| *d);
    best.filter(|(distance, _)| *distance <= limit).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let source = SourceText { path: Path::new("a.toml"), text: "x = 1\nä = \"ö\" # z\n" };
        let place = |offset| {
            let origin = source.origin(offset);
            (origin.line, origin.column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(source.text.find('\u{f6}').unwrap()), (2, 6));
        assert_eq!(place(source.text.find('z').unwrap()), (2, 11));
        assert_eq!(place(source.text.len()), (3, 1));
    }

    #[test]
    fn nearest_knows_when_nothing_is_near() {
        assert_eq!(nearest("batchsize", ["capacity", "batch_size"]), Some("batch_size"));
        assert_eq!(nearest("URL", ["host", "url"]), Some("url"));
        assert_eq!(nearest("colour", ["host", "url"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
