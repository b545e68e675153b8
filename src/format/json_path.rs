//! Paths into a JSON document, `$.plan.tiers[0]`: members and items, nothing that searches.
//!
//! The grammar is that of RFC 9535 as far as it goes: `$`, then `.name`, `['any name']`, `["any name"]` or `[0]`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Where in a document a value stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Member(String),
    /// From 0.
    Item(usize),
}

impl JsonPath {
    /// The member `name` of the document.
    pub fn member(name: &str) -> JsonPath {
        JsonPath { steps: vec![Step::Member(name.to_string())] }
    }

    /// The names of the members on the way; `None` for a path through items.
    pub(crate) fn members(&self) -> Option<Vec<&str>> {
        let names = self.steps.iter().map(|step| match step {
            Step::Member(name) => Some(name.as_str()),
            Step::Item(_) => None,
        });
        names.collect()
    }

    /// A document that has this JSON there and nothing else; `None` for a path through items, which come in numbers.
    pub fn document_with(&self, json: &str) -> Option<String> {
        let mut document = json.to_string();
        for step in self.steps.iter().rev() {
            let Step::Member(name) = step else { return None };
            document = format!("{{{}:{document}}}", serde_json::Value::from(name.as_str()));
        }
        Some(document)
    }

    /// The text of what stands there; `None` where nothing does.
    ///
    /// # Errors
    /// What is wrong with the document.
    pub fn find<'d>(&self, document: &'d str) -> serde_json::Result<Option<&'d RawValue>> {
        Ok(Selection::new([self]).select(document)?.pop().flatten())
    }
}

impl FromStr for JsonPath {
    type Err = String;

    /// # Errors
    /// In words, beginning with the quoted path.
    fn from_str(text: &str) -> Result<JsonPath, String> {
        let wrong = |reason: &str| format!("\"{text}\" is not a path of members and items: {reason}");
        let mut rest = text.strip_prefix('$').ok_or_else(|| wrong("it does not begin with $"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = next_step(rest).map_err(wrong)?;
            steps.push(step);
            rest = behind;
        }
        Ok(JsonPath { steps })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Member(name) if is_plain(name) => write!(f, ".{name}"),
            Step::Member(name) => write!(f, "['{}']", name.replace('\\', "\\\\").replace('\'', "\\'")),
            Step::Item(position) => write!(f, "[{position}]"),
        })
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

fn next_step(text: &str) -> Result<(Step, &str), &'static str> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        return match is_plain(name) {
            true => Ok((Step::Member(name.to_string()), behind)),
            false => Err("a member is .name, or ['name'] with any characters"),
        };
    }
    let rest = text.strip_prefix('[').ok_or("a step is .name, ['name'] or [0]")?;
    if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let (name, behind) = quoted(&rest[1..], quote).ok_or("a quote is not closed")?;
        let behind = behind.strip_prefix(']').ok_or("a bracket is not closed")?;
        return Ok((Step::Member(name), behind));
    }
    let (digits, behind) = rest.split_once(']').ok_or("a bracket is not closed")?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let position = digits.parse().ok().filter(|_| is_number).ok_or("an item is a whole number from 0")?;
    Ok((Step::Item(position), behind))
}

/// The text up to the quote, with `\` before a quote or itself taken away, and what follows the quote.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next()?.1),
            character if character == quote => return Some((name, &text[at + character.len_utf8()..])),
            character => name.push(character),
        }
    }
    None
}

/// Several paths as one tree, so that a document is read through once a level.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    root: Node,
    paths: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Which paths end here.
    ends: Vec<usize>,
    members: HashMap<String, Node, ahash::RandomState>,
    items: HashMap<usize, Node, ahash::RandomState>,
}

impl Selection {
    pub(crate) fn new<'p>(paths: impl IntoIterator<Item = &'p JsonPath>) -> Selection {
        let mut selection = Selection::default();
        for path in paths {
            let mut node = &mut selection.root;
            for step in &path.steps {
                node = match step {
                    Step::Member(name) => node.members.entry(name.clone()).or_default(),
                    Step::Item(position) => node.items.entry(*position).or_default(),
                };
            }
            node.ends.push(selection.paths);
            selection.paths += 1;
        }
        selection
    }

    /// The text of what stands at each path. Of a member that is there twice the last counts; in a value that is no
    /// object there are no members, and in one that is no array no items.
    ///
    /// # Errors
    /// What is wrong with the document.
    pub(crate) fn select<'d>(&self, document: &'d str) -> serde_json::Result<Vec<Option<&'d RawValue>>> {
        let mut found = vec![None; self.paths];
        if self.root.ends.is_empty() {
            let mut deserializer = serde_json::Deserializer::from_str(document);
            self.root.descend(document, &mut deserializer, &mut found)?;
            deserializer.end()?;
        } else {
            self.root.take(serde_json::from_str(document)?, &mut found)?;
        }
        Ok(found)
    }
}

impl Node {
    fn take<'d>(&self, value: &'d RawValue, found: &mut [Option<&'d RawValue>]) -> serde_json::Result<()> {
        // An earlier member of the same name counts no more, nor does what was found in it.
        self.forget(found);
        self.ends.iter().for_each(|&path| found[path] = Some(value));
        if self.members.is_empty() && self.items.is_empty() {
            return Ok(());
        }
        self.descend(value.get(), &mut serde_json::Deserializer::from_str(value.get()), found)
    }

    fn forget(&self, found: &mut [Option<&RawValue>]) {
        self.ends.iter().for_each(|&path| found[path] = None);
        self.members.values().chain(self.items.values()).for_each(|node| node.forget(found));
    }

    fn descend<'d, D: Deserializer<'d, Error = serde_json::Error>>(
        &self,
        text: &str,
        deserializer: D,
        found: &mut [Option<&'d RawValue>],
    ) -> serde_json::Result<()> {
        match text.trim_start().as_bytes().first() {
            Some(b'{') if !self.members.is_empty() => deserializer.deserialize_map(Inside { node: self, found }),
            Some(b'[') if !self.items.is_empty() => deserializer.deserialize_seq(Inside { node: self, found }),
            _ if self.ends.is_empty() => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            // It has been read already.
            _ => Ok(()),
        }
    }
}

/// Visits an object or an array for what a node wants of it.
struct Inside<'n, 'f, 'd> {
    node: &'n Node,
    found: &'f mut [Option<&'d RawValue>],
}

impl<'d> Visitor<'d> for Inside<'_, '_, 'd> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object or array")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(node) = map.next_key_seed(Name { members: &self.node.members })? {
            match node {
                Some(node) => node.take(map.next_value()?, self.found).map_err(A::Error::custom)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut items: A) -> Result<(), A::Error> {
        for position in 0.. {
            match self.node.items.get(&position) {
                Some(node) => match items.next_element()? {
                    Some(value) => node.take(value, self.found).map_err(A::Error::custom)?,
                    None => break,
                },
                None if items.next_element::<IgnoredAny>()?.is_none() => break,
                None => {}
            }
        }
        Ok(())
    }
}

/// Looks a member's name up without copying it.
struct Name<'n> {
    members: &'n HashMap<String, Node, ahash::RandomState>,
}

impl<'d, 'n> DeserializeSeed<'d> for Name<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.members.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, document: &str) -> Option<String> {
        let path = path.parse::<JsonPath>().unwrap();
        path.find(document).unwrap().map(|value| value.get().to_string())
    }

    #[test]
    fn paths_lead_to_members_and_items() {
        let document = r#" {"a": {"b": [1, {"c d": "x"}], "a.b": 7, "": 8, "it's": 9}, "n": null} "#;
        for (path, expected) in [
            ("$.a.b[0]", Some("1")),
            ("$.a.b[1]['c d']", Some("\"x\"")),
            ("$['a']['a.b']", Some("7")),
            ("$.a[\"\"]", Some("8")),
            ("$.a['it\\'s']", Some("9")),
            ("$.n", Some("null")),
            ("$.a.b[2]", None),
            ("$.a.b.c", None),
            ("$.a[0]", None),
            ("$.n.m", None),
        ] {
            assert_eq!(found(path, document).as_deref(), expected, "{path}");
            let shown = path.parse::<JsonPath>().unwrap().to_string();
            assert_eq!(found(&shown, document).as_deref(), expected, "{path} shown as {shown}");
        }
        assert_eq!(found("$", " [1] ").as_deref(), Some("[1]"));
        assert_eq!(found("$[1][0]", "[1, [2]]").as_deref(), Some("2"));
    }

    #[test]
    fn a_document_is_made_around_what_stands_at_a_path() {
        let document = |path: &str| path.parse::<JsonPath>().unwrap().document_with("[1]");
        assert_eq!(document("$").as_deref(), Some("[1]"));
        assert_eq!(document("$.a['\"b']").as_deref(), Some("{\"a\":{\"\\\"b\":[1]}}"));
        assert_eq!(document("$.a[0]"), None);
    }

    #[test]
    fn of_repeated_members_the_last_counts_with_all_that_is_in_it() {
        assert_eq!(found("$.a.b", r#"{"a": {"b": 1}, "a": {"b": 2}}"#).as_deref(), Some("2"));
        assert_eq!(found("$.a.b", r#"{"a": {"b": 1}, "a": {"c": 2}}"#), None);
        assert_eq!(found("$.a.b", r#"{"a": {"b": 1}, "a": 3}"#), None);
    }

    #[test]
    fn a_document_is_read_to_its_end() {
        for document in ["", "{", "{\"a\": 1} x", "{\"a\": 1, \"b\": tru}", "[1, 2", "{\"a\": [1, }"] {
            for path in ["$", "$.a", "$.z", "$[0]"] {
                let path = path.parse::<JsonPath>().unwrap();
                assert!(path.find(document).is_err(), "{path} in {document}");
            }
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in
            ["", "a", "$a", "$.", "$..a", "$.a b", "$[", "$[1", "$[-1]", "$[+1]", "$['a", "$['a'", "$[*]", "$.*"]
        {
            assert!(path.parse::<JsonPath>().is_err(), "{path}");
        }
    }
}
