//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside the strings of a catalog file; `$${` is a literal `${`.
//!
//! It happens after TOML was parsed, so that no value can become more than a string. What was put in may be a secret
//! and is never part of a complaint.

use super::problem::Complaint;

/// Where values come from.
pub(super) struct Values<'a> {
    /// The variable of that name, if it is set.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file, or why it cannot be read.
    pub file: &'a dyn Fn(&str) -> std::io::Result<String>,
}

/// `text` with its references replaced; `None` if there is none.
pub(super) fn substitute(text: &str, values: &Values) -> Result<Option<String>, Complaint> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let before = &rest[..start];
        let after = &rest[start + 2..];
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = after;
            continue;
        }
        result.push_str(before);
        let end = after.find('}').ok_or_else(|| {
            Complaint::new("\"${\" without a closing \"}\"").with_hint("Write \"$${\" for a literal \"${\".")
        })?;
        result.push_str(&value_of(&after[..end], values)?);
        rest = &after[end + 1..];
    }
    result.push_str(rest);
    Ok(Some(result))
}

fn value_of(reference: &str, values: &Values) -> Result<String, Complaint> {
    if let Some(path) = reference.strip_prefix("file:") {
        return match (values.file)(path) {
            Ok(text) => Ok(without_line_end(text)),
            Err(error) => Err(Complaint::new(format!("cannot read \"{path}\": {error}"))),
        };
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    // Complaints show the name alone: a default may hold a password.
    if !is_variable_name(name) {
        return Err(Complaint::new(format!("\"{name}\" is not the name of a variable"))
            .with_hint("Write ${NAME}, ${NAME:-default} or ${file:PATH}, and \"$${\" for a literal \"${\"."));
    }
    if default.is_some_and(|default| default.contains("${")) {
        let message = format!("the default of \"{name}\" holds another reference, which is not supported");
        return Err(Complaint::new(message));
    }
    let value = (values.variable)(name);
    match (value, default) {
        // As a shell does: with a default, an empty variable is an unset one.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_string()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_string()),
        (None, None) => Err(Complaint::new(format!("environment variable \"{name}\" is not set"))
            .with_hint(format!("Set it, or write a default: ${{{name}:-value}}."))),
    }
}

/// A secret's file as editors write it: the line end is not part of the secret.
pub(super) fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Option<String>, Complaint> {
        let variable = |name: &str| match name {
            "HOST" => Some("db1".to_string()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST} \" = 1".to_string()),
            _ => None,
        };
        let file = |path: &str| match path {
            "secret.txt" => Ok("s3cret\r\n".to_string()),
            _ => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no such file")),
        };
        substitute(text, &Values { variable: &variable, file: &file })
    }

    #[test]
    fn references_are_replaced_once_and_everything_else_stays() {
        for (text, expected) in [
            ("${HOST}", "db1"),
            ("a-${HOST}-${HOST}.x", "a-db1-db1.x"),
            ("${PORT:-5432}", "5432"),
            ("${PORT:-}", ""),
            ("${EMPTY:-full}", "full"),
            ("${EMPTY}", ""),
            ("${HOST:-other}", "db1"),
            ("${URL:-postgres://a:b@c/d?x=y-z}", "postgres://a:b@c/d?x=y-z"),
            ("${NESTED}", "${HOST} \" = 1"),
            ("[${file:secret.txt}]", "[s3cret]"),
            ("$${HOST} ${HOST}", "${HOST} db1"),
            ("$$${HOST}", "$${HOST}"),
        ] {
            assert_eq!(run(text), Ok(Some(expected.to_string())), "{text}");
        }
        assert_eq!(run("cost: $5 {x} $$"), Ok(None));
    }

    #[test]
    fn bad_references_say_what_is_wrong() {
        for (text, message) in [
            ("${PORT}", "environment variable \"PORT\" is not set"),
            ("${HOST", "\"${\" without a closing \"}\""),
            ("${}", "\"\" is not the name of a variable"),
            ("${1A:-s3cret}", "\"1A\" is not the name of a variable"),
            ("${a b}", "\"a b\" is not the name of a variable"),
            ("${A:-s3cret${B}}", "the default of \"A\" holds another reference, which is not supported"),
            ("${file:gone.txt}", "cannot read \"gone.txt\": no such file"),
        ] {
            assert_eq!(run(text).unwrap_err().message, message, "{text}");
        }
        assert_eq!(run("${PORT}").unwrap_err().hint.unwrap(), "Set it, or write a default: ${PORT:-value}.");
    }
}
