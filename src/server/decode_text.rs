//! PostgreSQL's input syntax of single values: the text of one parameter.

use std::str::FromStr;

use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;

/// 22P02, as PostgreSQL words it.
pub(super) fn invalid(pg_type: &PgType, text: &str) -> Error {
    let name = match pg_type {
        PgType::Numeric { .. } => "numeric".to_string(),
        other => other.to_string(),
    };
    Error::new(Code::InvalidTextRepresentation, format!("invalid input syntax for type {name}: \"{text}\""))
}

/// What C's `isspace` takes for a space.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

/// Any beginning of a word that only that word has.
pub(super) fn boolean(text: &str) -> Option<bool> {
    let text = trim(text).to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(text.as_str());
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        return Some(true);
    }
    (begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0").then_some(false)
}

pub(super) fn integer<T: FromStr>(text: &str, pg_type: &PgType) -> Result<T> {
    let trimmed = trim(text);
    if let Ok(value) = trimmed.parse() {
        return Ok(value);
    }
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid(pg_type, text));
    }
    Err(Error::new(Code::NumericOutOfRange, format!("value \"{text}\" is out of range for type {pg_type}")))
}

pub(super) fn float<T: FromStr + Into<f64> + Copy>(text: &str, pg_type: &PgType) -> Result<T> {
    let trimmed = trim(text);
    let value: T = trimmed.parse().map_err(|_| invalid(pg_type, text))?;
    let is_number = trimmed.bytes().any(|byte| byte.is_ascii_digit());
    let mantissa = trimmed.split(['e', 'E']).next().unwrap_or_default();
    let overflows = is_number && value.into().is_infinite();
    let underflows = value.into() == 0.0 && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    if overflows || underflows {
        return Err(Error::new(Code::NumericOutOfRange, format!("\"{text}\" is out of range for type {pg_type}")));
    }
    Ok(value)
}

/// Digits after `\x`, in pairs between which spaces may stand; without `\x` the older form with its escapes.
pub(super) fn bytea(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(digits) => hex(digits),
        None => escaped(text),
    }
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let refused = |message: String| Error::new(Code::InvalidParameterValue, message);
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for character in text.chars() {
        if high.is_none() && matches!(character, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        let digit = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digit = digit.ok_or_else(|| refused(format!("invalid hexadecimal digit: \"{character}\"")))?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    match high {
        Some(_) => Err(refused("invalid hexadecimal data: odd number of digits".to_string())),
        None => Ok(bytes),
    }
}

fn escaped(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        (rest, _) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (after, bytes.push(b'\\')),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                (after, bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')))
            }
            (b'\\', _) => {
                return Err(Error::new(Code::InvalidTextRepresentation, "invalid input syntax for type bytea"));
            }
            (byte, after) => (after, bytes.push(*byte)),
        };
    }
    Ok(bytes)
}

/// In lower case with hyphens. Braces may stand around it, and hyphens after any group of four digits.
pub(super) fn uuid(text: &str) -> Option<String> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut digits = String::with_capacity(32);
    let mut after_hyphen = true;
    for character in inner.chars() {
        match character {
            '-' if !after_hyphen && digits.len().is_multiple_of(4) && digits.len() < 32 => after_hyphen = true,
            digit if digit.is_ascii_hexdigit() => {
                digits.push(digit);
                after_hyphen = false;
            }
            _ => return None,
        }
    }
    if digits.len() != 32 {
        return None;
    }
    Some(uuid::Uuid::try_parse(&digits).ok()?.hyphenated().to_string())
}

/// The same text, once it is known to be JSON.
pub(super) fn json(text: &str, pg_type: &PgType) -> Result<String> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.to_string()),
        Err(error) => {
            let message = format!("invalid input syntax for type {pg_type}");
            Err(Error::new(Code::InvalidTextRepresentation, message).with_detail(format!("Reason: {error}.")))
        }
    }
}
