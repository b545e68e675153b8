//! What is asked of an HTTP service: a GET for each key, or a POST for many.

use std::fmt;

use datafusion::arrow::array::{Array, ArrayRef, StringViewArray};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;

use super::template::{Template, key_texts};
use crate::error::{Error, Result};
use crate::format::json_path::JsonPath;
use crate::pg_type::PgType;

/// All but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The `request` of a lookup table.
#[derive(Clone, PartialEq, Eq)]
pub enum HttpRequest {
    /// One request a key.
    Get { target: GetTarget },
    /// One request for all keys of a batch.
    Post {
        /// Path and query.
        target: String,
        /// Where in the body the array of keys stands.
        body_keys: JsonPath,
    },
}

/// The path and query of a GET, with the key's columns in it.
#[derive(Clone, PartialEq, Eq)]
pub struct GetTarget {
    template: Template,
    /// Empty segments that the template itself has.
    empty_segments: usize,
}

impl GetTarget {
    /// `template` begins with a slash.
    pub fn new(template: Template) -> GetTarget {
        let empty_segments = empty_segments(&example(&template));
        GetTarget { template, empty_segments }
    }

    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The target with a plain letter in place of each column.
    pub fn example(&self) -> String {
        example(&self.template)
    }

    /// The target for a key's texts. `None` where a segment of the path would be empty, `.` or `..`: that leads to another
    /// resource than one of this key, however it is encoded.
    pub(super) fn of_key(&self, values: &[&str]) -> Option<String> {
        let target = self.template.render(values, |value, text| text.extend(utf8_percent_encode(value, RESERVED)));
        let path = target.split('?').next().unwrap_or_default();
        let climbs = path
            .split('/')
            .any(|segment| matches!(segment.replace("%2e", ".").replace("%2E", ".").as_str(), "." | ".."));
        (!climbs && empty_segments(&target) == self.empty_segments).then_some(target)
    }
}

fn example(template: &Template) -> String {
    template.render(&[], |_, text| text.push('x'))
}

fn empty_segments(target: &str) -> usize {
    let path = target.split('?').next().unwrap_or_default();
    path.split('/').filter(|segment| segment.is_empty()).count()
}

/// Without the target, which may hold a secret.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.method()).finish_non_exhaustive()
    }
}

impl HttpRequest {
    /// As it stands in the catalog.
    pub fn method(&self) -> &'static str {
        match self {
            HttpRequest::Get { .. } => "GET",
            HttpRequest::Post { .. } => "POST",
        }
    }

    /// The columns that stand in the target.
    pub fn target_columns(&self) -> &[String] {
        match self {
            HttpRequest::Get { target } => target.template.columns(),
            HttpRequest::Post { .. } => &[],
        }
    }
}

/// The keys as a JSON array: numbers and booleans as such, all else as strings. `None` where no key can be written so:
/// NaN and the infinities are no numbers there.
pub(super) fn json_keys(keys: &ArrayRef, pg_type: &PgType) -> Result<Option<String>> {
    let is_plain = matches!(
        pg_type,
        PgType::Bool
            | PgType::Int2
            | PgType::Int4
            | PgType::Int8
            | PgType::Oid
            | PgType::Float4
            | PgType::Float8
            | PgType::Numeric { .. }
    );
    let texts = key_texts(keys, pg_type)?;
    let mut items = Vec::with_capacity(keys.len());
    for text in texts.iter().flatten() {
        match is_plain {
            true if matches!(text, "NaN" | "Infinity" | "-Infinity") => {}
            true => items.push(text.to_string()),
            false => items.push(serde_json::Value::from(text).to_string()),
        }
    }
    Ok((!items.is_empty()).then(|| format!("[{}]", items.join(","))))
}

/// The rows that an answer holds: the array at `rows`, or, without it, the answer itself as one.
///
/// # Errors
/// In words that follow what names the request.
pub(super) fn rows_of<'a>(answer: &'a str, rows: Option<&JsonPath>) -> Result<Vec<&'a RawValue>, String> {
    let answer = answer.strip_prefix('\u{feff}').unwrap_or(answer);
    let wrong = |error: serde_json::Error| format!("answered with what is not JSON: {error}");
    let Some(path) = rows else {
        return serde_json::from_str::<&RawValue>(answer).map(|row| vec![row]).map_err(wrong);
    };
    let found = path.find(answer).map_err(wrong)?;
    let found = found.ok_or_else(|| format!("answered with JSON that has nothing at {path}"))?;
    if found.get() == "null" {
        return Ok(Vec::new());
    }
    if !found.get().starts_with('[') {
        return Err(format!("answered with JSON that has no array at {path}"));
    }
    serde_json::from_str(found.get()).map_err(wrong)
}

/// The texts of all parts of keys, by part.
pub(super) fn texts_of_keys(keys: &[&ArrayRef], types: &[PgType]) -> Result<Vec<StringViewArray>> {
    if keys.len() != types.len() {
        return Err(Error::internal("a key of another width than its template"));
    }
    keys.iter().zip(types).map(|(keys, pg_type)| key_texts(keys, pg_type)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Float64Array, Int64Array};

    use super::*;

    fn target(template: &str) -> GetTarget {
        GetTarget::new(template.parse().unwrap())
    }

    #[test]
    fn no_value_leaves_its_place() {
        let path = target("/v1/prices/{sku}/now");
        for (value, expected) in [
            ("a/b?c=d&e#f", "/v1/prices/a%2Fb%3Fc%3Dd%26e%23f/now"),
            ("../../admin", "/v1/prices/..%2F..%2Fadmin/now"),
            ("%2e%2e", "/v1/prices/%252e%252e/now"),
            ("a b+c", "/v1/prices/a%20b%2Bc/now"),
            ("\r\nHost: evil\0", "/v1/prices/%0D%0AHost%3A%20evil%00/now"),
            ("漢\\", "/v1/prices/%E6%BC%A2%5C/now"),
            ("...", "/v1/prices/.../now"),
        ] {
            assert_eq!(path.of_key(&[value]).as_deref(), Some(expected), "{value}");
        }
        let query = target("/v1/prices/?sku={sku}&all={sku}");
        for (value, expected) in [("", "/v1/prices/?sku=&all="), ("..", "/v1/prices/?sku=..&all=..")] {
            assert_eq!(query.of_key(&[value]).as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn a_key_that_would_lead_to_another_resource_is_not_asked_for() {
        for (template, value) in [
            ("/v1/prices/{sku}", ""),
            ("/v1/prices/{sku}", "."),
            ("/v1/prices/{sku}", ".."),
            ("/v1/{sku}/x", ".."),
            ("/v1/.{sku}/x", "."),
            ("/v1/%2e{sku}", "."),
            ("/v1/{sku}?x={sku}", ""),
        ] {
            assert_eq!(target(template).of_key(&[value]), None, "{template} {value}");
        }
        assert!(target("/v1/{a}{b}").of_key(&["", "x"]).is_some());
        assert!(target("/v1/{a}{b}").of_key(&[".", "."]).is_none());
    }

    #[test]
    fn keys_of_a_body_are_json_of_their_type() {
        let json = |keys: ArrayRef, pg_type: &str| json_keys(&keys, &PgType::parse(pg_type).unwrap()).unwrap();
        let bigints = json(Arc::new(Int64Array::from(vec![i64::MAX, -1])), "bigint");
        assert_eq!(bigints.as_deref(), Some("[9223372036854775807,-1]"));
        let floats = json(Arc::new(Float64Array::from(vec![f64::NAN, 1.5, f64::INFINITY])), "double precision");
        assert_eq!(floats.as_deref(), Some("[1.5]"));
        assert_eq!(json(Arc::new(Float64Array::from(vec![f64::NAN])), "double precision"), None);
        let texts = json(Arc::new(StringViewArray::from(vec!["\"],\"x\":[\"", "\0\r\n"])), "text");
        assert_eq!(texts.as_deref(), Some("[\"\\\"],\\\"x\\\":[\\\"\",\"\\u0000\\r\\n\"]"));
    }

    #[test]
    fn rows_stand_where_the_path_says() {
        let rows = |answer: &str, path: Option<&str>| {
            let path = path.map(|path| path.parse::<JsonPath>().unwrap());
            let rows = rows_of(answer, path.as_ref());
            rows.map(|rows| rows.into_iter().map(|row| row.get().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(rows(" {\"a\": 1} ", None).unwrap(), ["{\"a\": 1}"]);
        assert_eq!(rows("{\"a\": {\"b\": [{}, {\"c\": 1}]}}", Some("$.a.b")).unwrap(), ["{}", "{\"c\": 1}"]);
        assert_eq!(rows("[{}]", Some("$")).unwrap(), ["{}"]);
        assert!(rows("{\"a\": null}", Some("$.a")).unwrap().is_empty());
        for (answer, path, reason) in [
            ("{\"a\": 1", None, "answered with what is not JSON: "),
            ("{\"a\": 1} x", None, "answered with what is not JSON: "),
            ("", Some("$.a"), "answered with what is not JSON: "),
            ("{}", Some("$.a"), "answered with JSON that has nothing at $.a"),
            ("{\"a\": {}}", Some("$.a"), "answered with JSON that has no array at $.a"),
        ] {
            let error = rows(answer, path).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
