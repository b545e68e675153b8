use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Decimal128Type, Int64Type, Schema};
use datafusion::arrow::util::display::array_value_to_string;

use super::*;

fn decoder(columns: &[(&str, &str)]) -> JsonDecoder {
    let fields = columns.iter().map(|(name, declared)| {
        let type_name = declared.trim_end_matches(" not null");
        PgType::parse(type_name).unwrap().field(name, type_name == *declared)
    });
    JsonDecoder::try_new(&Arc::new(Schema::new(fields.collect::<Vec<_>>()))).unwrap()
}

fn read(declared: &str, json: &str) -> Result<Option<String>, ValueError> {
    let mut decoder = decoder(&[("c", declared)]);
    decoder.append(&format!("{{\"c\": {json}}}"))?;
    let batch = decoder.finish().unwrap();
    let column = batch.column(0);
    Ok((!column.is_null(0)).then(|| array_value_to_string(column, 0).unwrap()))
}

fn assert_refused(declared: &str, json: &str, message: &str) {
    assert_eq!(read(declared, json).expect_err(json).message, message);
}

#[test]
fn numbers_keep_all_of_their_digits() {
    assert_eq!(read("bigint", "9223372036854775807").unwrap().unwrap(), "9223372036854775807");
    assert_eq!(
        read("numeric(38,2)", "123456789012345678901234567890.12").unwrap().unwrap(),
        "123456789012345678901234567890.12"
    );
    assert_eq!(read("double precision", "1e2").unwrap().unwrap(), "100.0");
    let too_large = "column \"c\": value \"9223372036854775808\" is out of range for type bigint";
    assert_refused("bigint", "9223372036854775808", too_large);
    assert_refused("bigint", "1.0", "column \"c\": invalid input syntax for type bigint: \"1.0\"");
    assert_refused("numeric(4,1)", "1.25", "column \"c\": numeric field overflow");
}

#[test]
fn strings_are_read_where_json_has_no_form_of_its_own() {
    assert_eq!(read("numeric(4,1)", "\"12.5\"").unwrap().unwrap(), "12.5");
    assert_eq!(read("timestamptz", "\"2024-02-29T12:00:00+02\"").unwrap().unwrap(), "2024-02-29T10:00:00Z");
    assert_eq!(read("bytea", "\"\\\\x0aff\"").unwrap().unwrap(), "0aff");
    assert_eq!(read("text", "\"a\\n\\u00e9\\\"\"").unwrap().unwrap(), "a\né\"");
    assert_eq!(read("text", "\"\"").unwrap().unwrap(), "");
    for type_name in ["bigint", "double precision", "boolean"] {
        assert_refused(
            type_name,
            "\"1\"",
            &format!("column \"c\": a JSON string cannot be read as type {type_name}: \"1\""),
        );
    }
    assert_refused("text", "12", "column \"c\": a JSON number cannot be read as type text: 12");
    assert_refused("bigint", "true", "column \"c\": a JSON boolean cannot be read as type bigint: true");
    assert_refused("boolean", "1", "column \"c\": a JSON number cannot be read as type boolean: 1");
    assert_refused("text", "\"\\ud800\"", "column \"c\": invalid escape in the JSON text \"\\ud800\"");
    assert_refused("date", "\"soon\"", "column \"c\": invalid input syntax for type date: \"soon\"");
}

#[test]
fn json_columns_take_any_value_as_it_came() {
    assert_eq!(read("jsonb", "{\"a\": [1, 2.50]}").unwrap().unwrap(), "{\"a\": [1, 2.50]}");
    assert_eq!(read("json", "\"x\"").unwrap().unwrap(), "\"x\"");
    assert_eq!(read("json", "null").unwrap(), None);
    assert_eq!(read("text", "true").unwrap_err().code, Code::InvalidTextRepresentation);
}

#[test]
fn arrays_are_json_arrays() {
    assert_eq!(read("bigint[]", "[1, null, 3]").unwrap().unwrap(), "[1, , 3]");
    assert_eq!(read("text[]", "[\"a\\tb\"]").unwrap().unwrap(), "[a\tb]");
    assert_refused("bigint[]", "[1, \"2\"]", "column \"c\": a JSON string cannot be read as type bigint: \"2\"");
    assert_refused("bigint[]", "\"{1}\"", "column \"c\": a JSON string cannot be read as type bigint[]: \"{1}\"");
    assert_refused("bigint[]", "[[1]]", "column \"c\": a JSON array cannot be read as type bigint: [1]");
}

#[test]
fn fields_are_found_by_name_and_rows_are_appended_whole() {
    let mut decoder = decoder(&[("id", "bigint not null"), ("amount", "numeric(4,1)")]);
    decoder.append(r#"{"amount": 1.5, "more": {"id": 7}, "id": 1, "id": 2}"#).unwrap();
    let error = decoder.append(r#"{"id": 3, "amount": "x"}"#).unwrap_err();
    assert_eq!(error.message, "column \"amount\": invalid input syntax for type numeric: \"x\"");
    let error = decoder.append(r#"{"amount": 1}"#).unwrap_err();
    assert_eq!(error.message, "null value in column \"id\" violates not-null constraint");
    assert_eq!(error.code, Code::NotNullViolation);
    decoder.append(r#" {"id": 4} "#).unwrap();
    assert_eq!(decoder.len(), 2);
    let batch = decoder.finish().unwrap();
    assert!(decoder.is_empty());
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[2, 4]);
    assert_eq!(batch.column(1).as_primitive::<Decimal128Type>().iter().collect::<Vec<_>>(), [Some(15), None]);
}

#[test]
fn what_is_no_object_is_malformed() {
    let mut decoder = decoder(&[("id", "bigint")]);
    for (line, message) in [
        ("[1]", "expected a JSON object, found \"[1]\""),
        ("", "expected a JSON object, found \"\""),
        (r#"{"id": 1"#, "invalid JSON at byte 8: EOF while parsing an object"),
        (r#"{"id": 1} x"#, "invalid JSON at byte 11: trailing characters"),
        (r#"{"id": 01}"#, "invalid JSON at byte 9: invalid number"),
    ] {
        assert_eq!(decoder.append(line).unwrap_err().message, message);
    }
    assert!(decoder.is_empty());
}
