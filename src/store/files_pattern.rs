//! Which files belong to a table, and what the names of their folders say: `sales/year=2024/region=eu/1.parquet`.

use std::fmt;
use std::str::FromStr;

use glob::{MatchOptions, Pattern};
use percent_encoding::percent_decode_str;

use crate::error::{Code, Error, Result};

/// A folder's value that stands for NULL in Hive.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// What folders' names say of a file: names and values, `None` for NULL.
pub(super) type Partitions = Vec<(String, Option<String>)>;

/// The `path` of a table of files, below the connection's url.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesPattern {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File,
    /// Everything below it.
    Folder,
    Glob(Pattern),
}

impl FromStr for FilesPattern {
    type Err = String;

    /// A path, a pattern with `*`, `?`, `[…]` and `**`, or a folder with a slash at its end.
    ///
    /// # Errors
    /// In words, beginning with the quoted text.
    fn from_str(text: &str) -> Result<FilesPattern, String> {
        let wrong = |reason: &str| Err(format!("\"{text}\" is not a path of files: {reason}"));
        if text.starts_with('/') {
            return wrong("it begins with /, but is meant below the connection's url");
        }
        let segments = text.strip_suffix('/').unwrap_or(text).split('/');
        if segments.clone().any(|segment| matches!(segment, "" | "." | "..")) {
            return wrong("a folder is empty, . or ..");
        }
        let is_pattern = text.contains(['*', '?', '[']);
        let kind = match (is_pattern, text.ends_with('/')) {
            (true, true) => return wrong("a pattern is one of files, and ends with no /"),
            (false, true) => Kind::Folder,
            (false, false) => Kind::File,
            (true, false) => match Pattern::new(text) {
                Ok(pattern) => Kind::Glob(pattern),
                Err(error) => return wrong(error.msg),
            },
        };
        Ok(FilesPattern { text: text.to_string(), kind })
    }
}

impl FilesPattern {
    /// The path, where it is that of one file.
    pub(super) fn only_file(&self) -> Option<&str> {
        (self.kind == Kind::File).then_some(self.text.as_str())
    }

    /// The folder below which all files stand: as far as the path says it.
    pub(super) fn folder(&self) -> &str {
        let literal = &self.text[..self.text.find(['*', '?', '[']).unwrap_or(self.text.len())];
        literal.rfind('/').map_or("", |end| &literal[..end])
    }

    /// Whether the file at this path belongs to the table. Names that begin with a dot or an underscore are those of
    /// books that other programs keep, and belong only where the pattern writes them out.
    pub(super) fn matches(&self, path: &str) -> bool {
        let is_hidden = |segment: &str| segment.starts_with(['.', '_']);
        match &self.kind {
            Kind::File => path == self.text,
            Kind::Folder => {
                let below = path.strip_prefix(&self.text);
                below.is_some_and(|below| !below.is_empty() && !below.split('/').any(is_hidden))
            }
            Kind::Glob(pattern) => {
                let options = MatchOptions {
                    case_sensitive: true,
                    require_literal_separator: true,
                    require_literal_leading_dot: true,
                };
                let written_out = |segment: &str| self.text.split('/').any(|part| part.starts_with(&segment[..1]));
                pattern.matches_with(path, options)
                    && path.split('/').filter(|segment| is_hidden(segment)).all(written_out)
            }
        }
    }

    /// What the folders' names above a file say, in their order.
    ///
    /// # Errors
    /// 22021 for a value that is not UTF-8, 42701 for a name that stands twice.
    pub(super) fn partitions(&self, path: &str) -> Result<Partitions> {
        let mut partitions = Partitions::new();
        let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
        for (name, value) in folders.split('/').filter_map(|folder| folder.split_once('=')) {
            let (name, value) = (decoded(name, path)?, decoded(value, path)?);
            if name.is_empty() {
                continue;
            }
            if partitions.iter().any(|(known, _)| *known == name) {
                let message = format!("two folders above file \"{path}\" are called {name}=…");
                return Err(Error::new(Code::DuplicateColumn, message));
            }
            partitions.push((name, Some(value).filter(|value| value != HIVE_NULL)));
        }
        Ok(partitions)
    }
}

/// Hive writes what may not stand in a folder's name as %XX.
fn decoded(text: &str, path: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let not_text = |_| {
        let message = format!("the name of a folder above file \"{path}\" is not UTF-8");
        Error::new(Code::CharacterNotInRepertoire, message)
    };
    Ok(decoded.map_err(not_text)?.into_owned())
}

impl fmt::Display for FilesPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> FilesPattern {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match_paths_segment_by_segment() {
        for (text, path, expected) in [
            ("a/b.csv", "a/b.csv", true),
            ("a/*.csv", "a/b.csv", true),
            ("a/*.csv", "a/b/c.csv", false),
            ("a/**/*.csv", "a/b/c/d.csv", true),
            ("a/**/*.csv", "a/d.csv", true),
            ("a/**/*.csv", "b/d.csv", false),
            ("a/[bc]?.csv", "a/c1.csv", true),
            ("a/[bc]?.csv", "a/d1.csv", false),
            ("a/**/*", "a/_SUCCESS", false),
            ("a/**/*", "a/_temporary/b.csv", false),
            ("a/*", "a/.b.csv.crc", false),
            ("_a/*", "_a/b.csv", true),
            ("a/", "a/b/c.csv", true),
            ("a/", "a/_SUCCESS", false),
            ("a/", "ab/c.csv", false),
        ] {
            assert_eq!(pattern(text).matches(path), expected, "{text} {path}");
        }
    }

    #[test]
    fn the_folder_of_a_pattern_ends_where_it_becomes_one() {
        for (text, folder) in [("a/b/*.csv", "a/b"), ("a/b*/c", "a"), ("*.csv", ""), ("a/b/", "a/b"), ("a/y=*/x", "a")]
        {
            assert_eq!(pattern(text).folder(), folder, "{text}");
        }
    }

    #[test]
    fn folders_names_say_values() {
        let partitions = |path: &str| pattern("**").partitions(path);
        let found = partitions("a/year=2024/region=a%2Fb%20c/x=__HIVE_DEFAULT_PARTITION__/y=/z=1.csv").unwrap();
        let expected = [("year", Some("2024")), ("region", Some("a/b c")), ("x", None), ("y", Some(""))];
        let found = found.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect::<Vec<_>>();
        assert_eq!(found, expected);
        assert_eq!(partitions("a=1/a=2/x").unwrap_err().sqlstate(), "42701");
        assert_eq!(partitions("a=%ff/x").unwrap_err().sqlstate(), "22021");
    }

    #[test]
    fn what_is_no_path_of_files_is_refused() {
        for text in ["/a", "../a", "a//b", "a/./b", "a/**b/c", "a/[b", "a*/"] {
            assert!(text.parse::<FilesPattern>().is_err(), "{text}");
        }
    }
}
