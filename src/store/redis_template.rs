//! The template of a table's keys in Redis, `customer:{id}`: how values make a key, and how a key is read back.
//!
//! A key is asked for only if the template reads the very same values out of it. So no value escapes its place, and two
//! rows of different values never share a key; values are not quoted, as whoever wrote the keys did not quote them.

use std::fmt;
use std::str::FromStr;

/// Text with places for columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    prefix: String,
    /// At least one.
    places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    column: String,
    /// The text up to the next place: not empty. Behind the last one it may be.
    behind: String,
}

impl KeyTemplate {
    /// The text before the first place: what all keys begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The columns of the places, in their order; none twice.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|place| place.column.as_str())
    }

    /// The key that these values make, one for each place; `None` if other values would be read out of it.
    pub fn write(&self, values: &[&str]) -> Option<String> {
        let length = values.iter().map(|value| value.len()).sum::<usize>();
        let fixed = self.prefix.len() + self.places.iter().map(|place| place.behind.len()).sum::<usize>();
        let mut key = String::with_capacity(length + fixed);
        key.push_str(&self.prefix);
        for (value, place) in values.iter().zip(&self.places) {
            key.push_str(value);
            key.push_str(&place.behind);
        }
        // With one place there is only one way to read it.
        let is_plain = values.len() == 1 && self.places.len() == 1;
        (is_plain || self.read(&key).is_some_and(|read| read == values)).then_some(key)
    }

    /// The values of the places in this key; `None` if the template makes no such key.
    pub fn read<'k>(&self, key: &'k str) -> Option<Vec<&'k str>> {
        let mut rest = key.strip_prefix(self.prefix.as_str())?;
        let (last, others) = self.places.split_last()?;
        let mut values = Vec::with_capacity(self.places.len());
        for place in others {
            let (value, behind) = rest.split_once(place.behind.as_str())?;
            values.push(value);
            rest = behind;
        }
        values.push(rest.strip_suffix(last.behind.as_str())?);
        Some(values)
    }
}

impl FromStr for KeyTemplate {
    type Err = String;

    /// # Errors
    /// In words, beginning with the quoted template.
    fn from_str(text: &str) -> Result<KeyTemplate, String> {
        let wrong = |reason: String| format!("\"{text}\" is not a template of keys: {reason}");
        let mut template = KeyTemplate { prefix: String::new(), places: Vec::new() };
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            if let Some(behind) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
                template.push(character);
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix('{') {
                let (column, behind) = behind.split_once('}').ok_or_else(|| wrong("a { is not closed".to_string()))?;
                template.add_place(column).map_err(wrong)?;
                rest = behind;
            } else if character == '}' {
                return Err(wrong("a } closes nothing; a brace of the key is written twice, }}".to_string()));
            } else {
                template.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
        match template.places.is_empty() {
            true => Err(wrong("it names no column, as {id} does".to_string())),
            false => Ok(template),
        }
    }
}

impl KeyTemplate {
    fn push(&mut self, character: char) {
        match self.places.last_mut() {
            Some(place) => place.behind.push(character),
            None => self.prefix.push(character),
        }
    }

    fn add_place(&mut self, column: &str) -> Result<(), String> {
        if column.is_empty() || column.contains('{') {
            return Err(format!("{{{column}}} names no column"));
        }
        if self.columns().any(|earlier| earlier == column) {
            return Err(format!("column \"{column}\" stands in it twice"));
        }
        if let Some(place) = self.places.last().filter(|place| place.behind.is_empty()) {
            let columns = format!("{{{}}} and {{{column}}}", place.column);
            return Err(format!("nothing stands between {columns}, so nobody could tell their values apart"));
        }
        self.places.push(Place { column: column.to_string(), behind: String::new() });
        Ok(())
    }
}

/// As the catalog has it.
impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doubled = |text: &str| text.replace('{', "{{").replace('}', "}}");
        f.write_str(&doubled(&self.prefix))?;
        self.places.iter().try_for_each(|place| write!(f, "{{{}}}{}", place.column, doubled(&place.behind)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn template(text: &str) -> KeyTemplate {
        text.parse().unwrap()
    }

    #[test]
    fn values_stand_in_their_places() {
        let cases = [
            ("customer:{id}", vec!["7"], "customer:7"),
            ("customer:{id}", vec![""], "customer:"),
            ("customer:{id}", vec!["{x}:*?[a]\r\n"], "customer:{x}:*?[a]\r\n"),
            ("{id}", vec!["é"], "é"),
            ("a:{x}:{y}:z", vec!["1", "2:3:z"], "a:1:2:3:z:z"),
            ("{{{user}}}:{id}", vec!["ann", "7"], "{ann}:7"),
            ("{{users}}:{id}", vec!["7"], "{users}:7"),
        ];
        for (text, values, key) in cases {
            assert_eq!(template(text).write(&values).as_deref(), Some(key), "{text}");
            assert_eq!(template(text).read(key), Some(values), "{text}");
            assert_eq!(template(text).to_string(), text);
        }
        assert_eq!(template("customer:{id}").prefix(), "customer:");
        assert_eq!(template("{{u}}:{b}:{a}").columns().collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn values_that_leave_their_place_make_no_key() {
        assert_eq!(template("a:{x}:{y}").write(&["1:2", "3"]), None);
        assert_eq!(template("a:{x}:{y}").write(&["1", "2:3"]).as_deref(), Some("a:1:2:3"));
        // The separator begins inside of the value.
        assert_eq!(template("{x}::{y}").write(&["a:", "b"]), None);
        assert_eq!(template("{x}::{y}").write(&["a", ":b"]).as_deref(), Some("a:::b"));
        assert_eq!(template("a:{x}:{y}").write(&["1"]), None);
    }

    #[test]
    fn different_values_never_share_a_key() {
        let parts = ["", ":", "::", "a", "a:", ":a", "a:a", "}", "{x}"];
        for text in ["{x}:{y}", "{x}::{y}", "p{x}:{y}:", "{x}a{y}:{z}"] {
            let template = template(text);
            let mut seen = HashMap::new();
            for x in parts {
                for y in parts {
                    let values = [x, y, "z"];
                    let values = &values[..template.columns().count()];
                    let Some(key) = template.write(values) else { continue };
                    assert_eq!(template.read(&key).as_deref(), Some(values));
                    assert_eq!(seen.insert(key, values.to_vec()), None, "{text}");
                }
            }
        }
    }

    #[test]
    fn keys_of_others_are_not_read() {
        for key in ["customer", "Customer:7", "customer:7:plan", "order:7:x"] {
            assert_eq!(template("customer:{id}:x").read(key), None, "{key}");
        }
    }

    #[test]
    fn wrong_templates_say_why() {
        let cases = [
            ("customer", "it names no column, as {id} does"),
            ("customer:{{id}}", "it names no column, as {id} does"),
            ("customer:{id", "a { is not closed"),
            ("customer:id}", "a } closes nothing; a brace of the key is written twice, }}"),
            ("customer:{}", "{} names no column"),
            ("{a}:{a}", "column \"a\" stands in it twice"),
            ("{a}{b}", "nothing stands between {a} and {b}, so nobody could tell their values apart"),
        ];
        for (text, reason) in cases {
            let expected = format!("\"{text}\" is not a template of keys: {reason}");
            assert_eq!(text.parse::<KeyTemplate>(), Err(expected));
        }
    }
}
