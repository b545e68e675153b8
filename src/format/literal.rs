//! Booleans, text, bytes, uuids, JSON and array literals, as PostgreSQL reads them.

use serde::de::IgnoredAny;

use crate::error::Code;
use crate::format::number::trim;
use crate::format::text::{ValueError, excerpt};

/// Any unique beginning of true, false, yes, no, on and off, and 1 and 0.
pub(crate) fn boolean(text: &str) -> Result<bool, ValueError> {
    let word = trim(text);
    let begins = |full: &str, least: usize| {
        word.len() >= least && full.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    if word == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        return Ok(true);
    }
    if word == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        return Ok(false);
    }
    Err(ValueError::syntax("boolean", text))
}

/// Any text but one with a zero byte, which no client of PostgreSQL expects.
pub(crate) fn text(text: &str) -> Result<&str, ValueError> {
    if text.as_bytes().contains(&0) {
        return Err(ValueError::new(
            Code::InvalidTextRepresentation,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    Ok(text)
}

/// As text, cut to the 63 bytes that PostgreSQL keeps of a name, never inside of a character.
pub(crate) fn name(input: &str) -> Result<&str, ValueError> {
    const MAX_NAME_BYTES: usize = 63;
    text(input).map(|whole| &whole[..whole.floor_char_boundary(MAX_NAME_BYTES)])
}

/// The first character, if it is one byte long; a backslash and three octal digits stay as they are.
///
/// # Errors
/// 22P02 for a character that one byte cannot hold in UTF-8.
pub(crate) fn single_byte(input: &str) -> Result<&str, ValueError> {
    let is_octal = input.len() == 4 && input.starts_with('\\') && input[1..].bytes().all(|b| matches!(b, b'0'..=b'7'));
    match input.chars().next() {
        _ if is_octal => Ok(input),
        Some(first) if !first.is_ascii() => Err(ValueError::syntax("\"char\"", input)),
        _ => text(&input[..input.len().min(1)]),
    }
}

/// `\x00ff`, or PostgreSQL's older form with backslashes and octal numbers.
pub(crate) fn bytea(text: &str) -> Result<Vec<u8>, ValueError> {
    match text.strip_prefix("\\x") {
        Some(digits) => hexadecimal(digits),
        None => escaped_bytes(text),
    }
}

fn hexadecimal(text: &str) -> Result<Vec<u8>, ValueError> {
    let invalid = |message: String| ValueError::new(Code::InvalidTextRepresentation, message);
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut characters = text.chars();
    let nibble = |c: char| {
        c.to_digit(16).map(|digit| digit as u8).ok_or_else(|| invalid(format!("invalid hexadecimal digit: \"{c}\"")))
    };
    while let Some(first) = characters.next() {
        if matches!(first, ' ' | '\t' | '\n' | '\r') {
            continue;
        }
        let high = nibble(first)?;
        let second =
            characters.next().ok_or_else(|| invalid("invalid hexadecimal data: odd number of digits".into()))?;
        bytes.push(high << 4 | nibble(second)?);
    }
    Ok(bytes)
}

fn escaped_bytes(text: &str) -> Result<Vec<u8>, ValueError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return Ok(bytes),
            [b'\\', b'\\', tail @ ..] => {
                bytes.push(b'\\');
                tail
            }
            [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', tail @ ..] => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                tail
            }
            [b'\\', ..] => {
                return Err(ValueError::new(Code::InvalidTextRepresentation, "invalid input syntax for type bytea"));
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                tail
            }
        };
    }
}

/// Hexadecimal digits with optional braces around them and hyphens after any four; in lower case with hyphens.
pub(crate) fn uuid(text: &str) -> Result<String, ValueError> {
    let invalid = || ValueError::syntax("uuid", text);
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(invalid)?,
        None => text,
    };
    let mut value: u128 = 0;
    let mut digits = 0;
    let mut after_hyphen = true;
    for c in inner.chars() {
        if c == '-' && !after_hyphen && digits % 4 == 0 && digits < 32 {
            after_hyphen = true;
            continue;
        }
        let digit = c.to_digit(16).filter(|_| digits < 32).ok_or_else(invalid)?;
        value = value << 4 | u128::from(digit);
        digits += 1;
        after_hyphen = false;
    }
    if digits != 32 {
        return Err(invalid());
    }
    Ok(uuid::Uuid::from_u128(value).hyphenated().to_string())
}

/// Any JSON value; it is kept as it came in.
pub(crate) fn json(text: &str) -> Result<&str, ValueError> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(ValueError::syntax("json", text)),
    }
}

/// The elements of `{1,"two",NULL}`, without quotes and backslashes.
///
/// # Errors
/// 22P02 for what is no array literal, 0A000 for one of more than one dimension.
pub(crate) fn array(text: &str) -> Result<Vec<Option<String>>, ValueError> {
    let malformed =
        || ValueError::new(Code::InvalidTextRepresentation, format!("malformed array literal: \"{}\"", excerpt(text)));
    let inner = trim(text).strip_prefix('{').ok_or_else(malformed)?;
    if trim(inner) == "}" {
        return Ok(Vec::new());
    }
    let mut elements = Vec::new();
    let mut rest = inner;
    loop {
        let (element, tail) = array_element(rest)?.ok_or_else(malformed)?;
        elements.push(element);
        match tail.strip_prefix(',') {
            Some(tail) => rest = tail,
            None if tail == "}" => return Ok(elements),
            None => return Err(malformed()),
        }
    }
}

/// The element that `text` begins with and what follows it, from the comma or brace on; `None` where it is malformed.
fn array_element(text: &str) -> Result<Option<(Option<String>, &str)>, ValueError> {
    let text = trim_start(text);
    if let Some(quoted) = text.strip_prefix('"') {
        return Ok(quoted_element(quoted).map(|(element, tail)| (Some(element), trim_start(tail))));
    }
    let mut element = String::new();
    // Blanks after this many bytes belong to the element only if more of it follows, or if they were escaped.
    let mut kept = 0;
    let mut escaped = false;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            ',' | '}' => {
                element.truncate(kept);
                if element.is_empty() {
                    return Ok(None);
                }
                let is_null = !escaped && element.eq_ignore_ascii_case("null");
                return Ok(Some(((!is_null).then_some(element), &text[at..])));
            }
            '{' => {
                return Err(ValueError::new(
                    Code::FeatureNotSupported,
                    "arrays of more than one dimension are not supported",
                ));
            }
            '"' => return Ok(None),
            '\\' => {
                let Some((_, next)) = characters.next() else { return Ok(None) };
                element.push(next);
                kept = element.len();
                escaped = true;
            }
            _ => {
                element.push(c);
                if !trim_start(&text[at..at + c.len_utf8()]).is_empty() {
                    kept = element.len();
                }
            }
        }
    }
    Ok(None)
}

fn quoted_element(text: &str) -> Option<(String, &str)> {
    let mut element = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((element, &text[at + 1..])),
            '\\' => element.push(characters.next()?.1),
            _ => element.push(c),
        }
    }
    None
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}
