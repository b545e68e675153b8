//! Expected lines and messages were printed by PostgreSQL 15.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int32Array, StringArray};

use super::*;

/// Names and values of options; an empty value is none.
type Options = &'static [(&'static str, &'static str)];

fn options(given: &[(&'static str, &'static str)]) -> Result<CopyOptions> {
    CopyOptions::try_new(given.iter().map(|(name, value)| (*name, (!value.is_empty()).then_some(*value))))
}

/// What a client that writes the data of each CopyData message to a file gets; each message ends a line.
fn copied(columns: Vec<(&str, ArrayRef)>, given: &[(&'static str, &'static str)]) -> String {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut encoder = CopyEncoder::try_new(&batch.schema(), options(given).unwrap()).unwrap();
    let mut out = BytesMut::new();
    encoder.begin(&mut out).unwrap();
    encoder.encode(&batch, 0..batch.num_rows(), &mut out).unwrap();
    encoder.finish(&mut out).unwrap();
    let mut lines = String::new();
    let mut rest = &out[..];
    let mut types = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let data = std::str::from_utf8(&rest[5..1 + length]).unwrap();
        types.push(rest[0]);
        if rest[0] == b'd' {
            assert!(data.ends_with('\n'));
            lines += data;
        }
        rest = &rest[1 + length..];
    }
    assert_eq!((types.first(), types.last()), (Some(&b'H'), Some(&b'c')));
    lines
}

fn hostile() -> Vec<(&'static str, ArrayRef)> {
    let a = vec![Some(""), Some("a\tb\\c\nd\re\x08f\x0cg\x0bh\x01"), Some("x,y"), Some("é'z")];
    let b = vec![None, Some("\\."), Some("q\"q"), Some(" lead")];
    vec![("a", Arc::new(StringArray::from(a))), ("b", Arc::new(StringArray::from(b)))]
}

#[test]
fn text_escapes_what_would_end_a_value_or_a_line() {
    let expected = "\t\\N\na\\tb\\\\c\\nd\\re\\bf\\fg\\vh\x01\t\\\\.\nx,y\tq\"q\né'z\t lead\n";
    assert_eq!(copied(hostile(), &[]), expected);
    let expected = "a|b\n|NULL\na\\tb\\\\c\\nd\\re\\bf\\fg\\vh\x01|\\\\.\nx,y|q\"q\né'z| lead\n";
    assert_eq!(copied(hostile(), &[("header", ""), ("delimiter", "|"), ("null", "NULL")]), expected);
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a,b"]));
    assert_eq!(copied(vec![("c", column)], &[("delimiter", ",")]), "a\\,b\n");
}

#[test]
fn csv_quotes_only_what_needs_it() {
    let expected = "\"\",\n\"a\tb\\c\nd\re\x08f\x0cg\x0bh\x01\",\\.\n\"x,y\",\"q\"\"q\"\né'z, lead\n";
    assert_eq!(copied(hostile(), &[("format", "csv")]), expected);
    let given =
        [("format", "csv"), ("header", "true"), ("null", "x,y"), ("quote", "'"), ("escape", "\\"), ("delimiter", ";")];
    let expected = "a;b\n;x,y\n'a\tb\\\\c\nd\re\x08f\x0cg\x0bh\x01';\\.\n'x,y';q\"q\n'é\\'z'; lead\n";
    assert_eq!(copied(hostile(), &given), expected);
}

#[test]
fn csv_of_one_column_quotes_the_end_of_data_mark() {
    let column: ArrayRef = Arc::new(StringArray::from(vec![Some("\\."), Some(""), None]));
    let lines = copied(vec![("a\"b", column)], &[("format", "csv"), ("header", "on")]);
    assert_eq!(lines, "\"a\"\"b\"\n\"\\.\"\n\"\"\n\n");
}

#[test]
fn binary_has_signature_counts_and_trailer() {
    let column: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let batch = RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap();
    let mut encoder = CopyEncoder::try_new(&batch.schema(), options(&[("format", "binary")]).unwrap()).unwrap();
    let mut out = BytesMut::new();
    encoder.begin(&mut out).unwrap();
    encoder.encode(&batch, 0..2, &mut out).unwrap();
    encoder.finish(&mut out).unwrap();
    let expected = [
        &b"H\0\0\0\x09\x01\0\x01\0\x01"[..],
        b"d\0\0\0\x21PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0",
        b"\0\x01\0\0\0\x04\0\0\0\x01",
        b"d\0\0\0\x0a\0\x01\xff\xff\xff\xff",
        b"d\0\0\0\x06\xff\xff",
        b"c\0\0\0\x04",
    ];
    assert_eq!(out, expected.concat());

    // Without a row the signature comes with the end.
    let encoder = CopyEncoder::try_new(&batch.schema(), options(&[("format", "binary")]).unwrap()).unwrap();
    let mut out = BytesMut::new();
    encoder.finish(&mut out).unwrap();
    assert_eq!(out, [&b"d\0\0\0\x19PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff"[..], b"c\0\0\0\x04"].concat());
}

#[test]
fn options_are_checked_as_postgres_checks_them() {
    let cases: [(Options, &str, &str); 24] = [
        (&[("format", "foo")], "22023", "COPY format \"foo\" not recognized"),
        (&[("foo", "bar")], "42601", "option \"foo\" not recognized"),
        (&[("format", "csv"), ("format", "text")], "42601", "conflicting or redundant options"),
        (&[("format", "binary"), ("delimiter", ",")], "42601", "cannot specify DELIMITER in BINARY mode"),
        (&[("format", "binary"), ("null", ",")], "42601", "cannot specify NULL in BINARY mode"),
        (&[("format", "binary"), ("header", "")], "0A000", "cannot specify HEADER in BINARY mode"),
        (&[("delimiter", ",,")], "0A000", "COPY delimiter must be a single one-byte character"),
        (&[("delimiter", "é")], "0A000", "COPY delimiter must be a single one-byte character"),
        (&[("delimiter", "\n")], "22023", "COPY delimiter cannot be newline or carriage return"),
        (&[("null", "a\n")], "22023", "COPY null representation cannot use newline or carriage return"),
        (&[("delimiter", "a")], "22023", "COPY delimiter cannot be \"a\""),
        (&[("quote", "a")], "0A000", "COPY quote available only in CSV mode"),
        (&[("escape", "a")], "0A000", "COPY escape available only in CSV mode"),
        (&[("format", "csv"), ("quote", "aa")], "0A000", "COPY quote must be a single one-byte character"),
        (&[("format", "csv"), ("quote", ",")], "22023", "COPY delimiter and quote must be different"),
        (&[("format", "csv"), ("escape", "aa")], "0A000", "COPY escape must be a single one-byte character"),
        (&[("format", "csv"), ("null", "a,b")], "0A000", "COPY delimiter must not appear in the NULL specification"),
        (
            &[("format", "csv"), ("null", "a\"b")],
            "0A000",
            "CSV quote character must not appear in the NULL specification",
        ),
        (&[("header", "foo")], "42601", "header requires a Boolean value or \"match\""),
        (&[("header", "match")], "0A000", "COPY option \"header\" does not support \"match\""),
        (&[("format", "csv"), ("force_quote", "*")], "0A000", "COPY option \"force_quote\" is not supported"),
        (&[("freeze", "")], "0A000", "COPY option \"freeze\" is not supported"),
        (&[("encoding", "latin1")], "0A000", "COPY encoding \"latin1\" is not supported"),
        (&[("delimiter", "")], "42601", "delimiter requires a parameter"),
    ];
    for (given, sqlstate, message) in cases {
        let error = options(given).unwrap_err();
        assert_eq!((error.sqlstate(), error.message()), (sqlstate, message));
    }
    let accepted = options(&[("FORMAT", "CSV"), ("encoding", "UTF8"), ("delimiter", "a")]).unwrap();
    assert_eq!((accepted.format(), accepted.delimiter(), accepted.null()), (CopyFormat::Csv, b'a', ""));
    assert_eq!((accepted.header(), accepted.quote(), accepted.escape()), (false, b'"', b'"'));
}
