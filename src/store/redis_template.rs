//! The template of a table's keys in Redis, `customer:{id}`: how values make a key, and how a key is read back.
//!
//! A key is asked for only if the template reads the very same values out of it. So no value escapes its place, and two
//! rows of different values never share a key; values are not quoted, as whoever wrote the keys did not quote them.

use std::fmt;
use std::str::FromStr;

use super::template::{Part, Template};

/// A template in whose texts the values of all columns can be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    /// Each column stands in it once, with text between two.
    template: Template,
}

impl KeyTemplate {
    /// The text before the first column: what all keys begin with.
    pub fn prefix(&self) -> &str {
        self.template.prefix()
    }

    /// The columns in the order of their places; at least one.
    pub fn columns(&self) -> &[String] {
        self.template.columns()
    }

    /// The key that these values make, one for each column; `None` if other values would be read out of it, or one has a
    /// zero byte, which no text in PostgreSQL has.
    pub fn write(&self, values: &[&str]) -> Option<String> {
        if values.iter().any(|value| value.contains('\0')) {
            return None;
        }
        let key = self.template.render(values, |value, key| key.push_str(value));
        // With one place there is only one way to read it.
        let is_plain = values.len() == 1 && self.columns().len() == 1;
        (is_plain || self.read(&key).is_some_and(|read| read == values)).then_some(key)
    }

    /// The values of the columns in this key; `None` if the template makes no such key. A value ends where the text behind
    /// its place begins for the first time.
    pub fn read<'k>(&self, key: &'k str) -> Option<Vec<&'k str>> {
        let mut rest = key.strip_prefix(self.prefix())?;
        let mut values = Vec::with_capacity(self.columns().len());
        let parts = self.template.parts();
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| matches!(part, Part::Column(_))) {
            let (value, behind) = match (part, parts.get(at + 1)) {
                (_, None) => (rest, ""),
                (_, Some(Part::Literal(literal))) if at + 2 == parts.len() => {
                    (rest.strip_suffix(literal.as_str())?, "")
                }
                (_, Some(Part::Literal(literal))) => rest.split_once(literal.as_str())?,
                (_, Some(Part::Column(_))) => return None,
            };
            values.push(value);
            rest = behind;
        }
        Some(values)
    }
}

impl FromStr for KeyTemplate {
    type Err = String;

    /// # Errors
    /// In words, beginning with the quoted template.
    fn from_str(text: &str) -> Result<KeyTemplate, String> {
        let template = text.parse::<Template>()?;
        let wrong = |reason: &str| Err(format!("\"{text}\" is not a template of keys: {reason}"));
        let places = template.parts().iter().filter(|part| matches!(part, Part::Column(_))).count();
        if places == 0 {
            return wrong("it names no column, as {id} does");
        }
        if places > template.columns().len() {
            return wrong("a column stands in it twice");
        }
        if template.parts().windows(2).any(|two| matches!(two, [Part::Column(_), Part::Column(_)])) {
            return wrong("nothing stands between two columns, so nobody could tell their values apart");
        }
        Ok(KeyTemplate { template })
    }
}

/// As the catalog has it.
impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.template.fmt(f)
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
        assert_eq!(template("{{u}}:{b}:{a}").columns(), ["b", "a"]);
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
                    let values = &values[..template.columns().len()];
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
    fn templates_that_nobody_could_read_are_refused() {
        let cases = [
            ("customer", "it names no column, as {id} does"),
            ("customer:{{id}}", "it names no column, as {id} does"),
            ("{a}:{a}", "a column stands in it twice"),
            ("{a}{b}", "nothing stands between two columns, so nobody could tell their values apart"),
        ];
        for (text, reason) in cases {
            let expected = format!("\"{text}\" is not a template of keys: {reason}");
            assert_eq!(text.parse::<KeyTemplate>(), Err(expected));
        }
    }

    #[test]
    fn zero_byte_makes_no_key() {
        assert_eq!(template("k:{a}").write(&["a\0b"]), None);
    }
}
