//! Parameters that are arrays, of one dimension.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, ListArray, new_empty_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::scalar::ScalarValue;

use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;
use crate::server::decode::{decode_binary, decode_text, malformed};
use crate::server::encode::ValueSettings;
use crate::server::numeric::ParsedNumeric;

/// `{1,NULL,"a b"}`
pub(super) fn array_of_text(text: &str, element: &PgType, settings: ValueSettings) -> Result<ScalarValue> {
    let texts = Elements::new(text)?.read_all()?;
    if let PgType::Numeric { .. } = element {
        let parse = |value: Option<String>| value.map(|value| ParsedNumeric::of_text(&value)).transpose();
        let numerics = texts.into_iter().map(parse).collect::<Result<Vec<_>>>()?;
        return numerics_of(numerics, element);
    }
    let null = ScalarValue::try_from(element.arrow())?;
    let scalar = |value: Option<String>| match value {
        Some(value) => decode_text(&value, element, settings),
        None => Ok(null.clone()),
    };
    let values = texts.into_iter().map(scalar).collect::<Result<Vec<_>>>()?;
    list_of(values, element)
}

/// Dimensions, whether there are NULLs, the element's oid, then bounds and elements with their lengths.
pub(super) fn array_of_binary(bytes: &[u8], element: &PgType) -> Result<ScalarValue> {
    let whole = PgType::Array(Box::new(element.clone()));
    let refused = || malformed(&whole, bytes);
    let mut rest = bytes;
    let mut next = || -> Result<i32> {
        let (first, after) = rest.split_first_chunk::<4>().ok_or_else(refused)?;
        rest = after;
        Ok(i32::from_be_bytes(*first))
    };
    let (dimensions, _has_nulls, oid) = (next()?, next()?, next()?);
    // Text has several oids (varchar, name), all with the same form.
    let sent = u32::try_from(oid).ok().and_then(PgType::of_oid);
    if sent.is_none_or(|sent| sent.oid() != element.oid()) {
        return Err(Error::new(
            Code::DatatypeMismatch,
            format!("binary data has array element type {oid} instead of expected {}", element.oid()),
        ));
    }
    let count = match dimensions {
        0 => 0,
        1 => {
            let (count, _lower_bound) = (next()?, next()?);
            usize::try_from(count).map_err(|_| refused())?
        }
        _ => return Err(more_dimensions()),
    };
    let mut values = Vec::new();
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(refused)?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            values.push(None);
            rest = after;
            continue;
        };
        let (value, after) = after.split_at_checked(length).ok_or_else(refused)?;
        values.push(Some(value));
        rest = after;
    }
    if !rest.is_empty() {
        return Err(refused());
    }
    if let PgType::Numeric { .. } = element {
        let parse = |value: Option<&[u8]>| value.map(ParsedNumeric::of_binary).transpose();
        return numerics_of(values.into_iter().map(parse).collect::<Result<Vec<_>>>()?, element);
    }
    let null = ScalarValue::try_from(element.arrow())?;
    let scalar = |value: Option<&[u8]>| value.map_or(Ok(null.clone()), |value| decode_binary(value, element));
    list_of(values.into_iter().map(scalar).collect::<Result<Vec<_>>>()?, element)
}

fn more_dimensions() -> Error {
    Error::unsupported("arrays of more than one dimension are not supported")
}

fn list_of(values: Vec<ScalarValue>, element: &PgType) -> Result<ScalarValue> {
    let values: ArrayRef = match values.is_empty() {
        true => new_empty_array(&element.arrow()),
        false => ScalarValue::iter_to_array(values)?,
    };
    let field = Arc::new(element.field("item", true));
    let list = ListArray::try_new(field, OffsetBuffer::from_lengths([values.len()]), values, None)?;
    Ok(ScalarValue::List(Arc::new(list)))
}

/// Elements of one array share a precision and a scale: the least that hold all of them exactly.
fn numerics_of(values: Vec<Option<ParsedNumeric>>, element: &PgType) -> Result<ScalarValue> {
    let common = ParsedNumeric::common_type(values.iter().flatten(), element)?;
    let null = ScalarValue::try_from(common.arrow())?;
    let scalar = |value: Option<ParsedNumeric>| value.map_or(Ok(null.clone()), |value| value.into_scalar_of(&common));
    list_of(values.into_iter().map(scalar).collect::<Result<Vec<_>>>()?, &common)
}

/// Reads the elements of an array literal.
struct Elements<'a> {
    literal: &'a str,
    rest: &'a str,
}

impl<'a> Elements<'a> {
    fn new(literal: &'a str) -> Result<Self> {
        let elements = Elements { literal, rest: literal };
        let trimmed = trim_start(literal);
        if trimmed.starts_with('[') {
            return Err(Error::unsupported("array literals with bounds are not supported"));
        }
        match trimmed.strip_prefix('{') {
            Some(rest) => Ok(Elements { rest, ..elements }),
            None => Err(elements.malformed("Array value must start with \"{\".")),
        }
    }

    fn malformed(&self, detail: &str) -> Error {
        let message = format!("malformed array literal: \"{}\"", self.literal);
        Error::new(Code::InvalidTextRepresentation, message).with_detail(detail)
    }

    fn read_all(mut self) -> Result<Vec<Option<String>>> {
        let mut values = Vec::new();
        self.rest = trim_start(self.rest);
        if let Some(after) = self.rest.strip_prefix('}') {
            self.rest = after;
        } else {
            while self.read_one(&mut values)? {}
        }
        match trim_start(self.rest).is_empty() {
            true => Ok(values),
            false => Err(self.malformed("Junk after closing right brace.")),
        }
    }

    /// Reads an element and what follows it: true after a comma, false after the closing brace.
    fn read_one(&mut self, values: &mut Vec<Option<String>>) -> Result<bool> {
        self.rest = trim_start(self.rest);
        let value = match self.rest.chars().next() {
            Some('{') => return Err(more_dimensions()),
            Some('"') => Some(self.read_quoted()?),
            _ => self.read_plain()?,
        };
        values.push(value);
        self.rest = trim_start(self.rest);
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        match next {
            Some(',') => Ok(true),
            Some('}') => Ok(false),
            Some(_) => Err(self.malformed("Unexpected array element.")),
            None => Err(self.malformed("Unexpected end of input.")),
        }
    }

    fn read_quoted(&mut self) -> Result<String> {
        let mut value = String::new();
        let mut characters = self.rest.chars();
        characters.next();
        loop {
            match characters.next() {
                Some('"') => break,
                Some('\\') => value.extend(characters.next()),
                Some(character) => value.push(character),
                None => return Err(self.malformed("Unexpected end of input.")),
            }
        }
        self.rest = characters.as_str();
        Ok(value)
    }

    /// Up to a comma or brace, without the spaces at its end unless they are escaped; `NULL` in any case is none.
    fn read_plain(&mut self) -> Result<Option<String>> {
        let mut value = String::new();
        let mut length = 0;
        let mut is_escaped = false;
        let mut characters = self.rest.chars();
        loop {
            let before = characters.as_str();
            match characters.next() {
                Some(',' | '}') => {
                    self.rest = before;
                    break;
                }
                Some('\\') => {
                    is_escaped = true;
                    value.extend(characters.next());
                    length = value.len();
                }
                Some(character @ ('"' | '{')) => {
                    return Err(self.malformed(&format!("Unexpected \"{character}\" character.")));
                }
                Some(character) => {
                    value.push(character);
                    if !is_space(character) {
                        length = value.len();
                    }
                }
                None => return Err(self.malformed("Unexpected end of input.")),
            }
        }
        value.truncate(length);
        if value.is_empty() {
            let next = self.rest.chars().next().unwrap_or('}');
            return Err(self.malformed(&format!("Unexpected \"{next}\" character.")));
        }
        Ok((is_escaped || !value.eq_ignore_ascii_case("null")).then_some(value))
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}
