//! Expected values and messages are those of PostgreSQL 15.

use std::sync::Arc;

use bytes::BytesMut;
use chrono_tz::Tz;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;

use super::*;
use crate::pg_type::PLAIN_NUMERIC;
use crate::server::encode::RowEncoder;

fn read(text: &str, type_name: &str) -> Result<ScalarValue> {
    let pg_type = PgType::parse(type_name).unwrap();
    decode_parameter(Some(text.as_bytes()), Format::Text, &pg_type, ValueSettings::default())
}

/// A value written by the encoder, as a result's only column.
fn write(value: &ScalarValue, pg_type: &PgType, format: Format, settings: ValueSettings) -> Vec<u8> {
    let array = value.to_array().unwrap();
    // A numeric has a precision and a scale of its own.
    let field = pg_type.field("c", true).with_data_type(array.data_type().clone());
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
    let mut encoder = RowEncoder::try_new(&batch.schema(), &[format]).unwrap().with_settings(settings);
    let mut out = BytesMut::new();
    encoder.encode(&batch, 0..1, &mut out).unwrap();
    out[11..].to_vec()
}

#[test]
fn what_is_written_is_read_back_in_both_forms() {
    let cases = [
        ("boolean", "t"),
        ("boolean", "f"),
        ("smallint", "-32768"),
        ("integer", "2147483647"),
        ("bigint", "-9223372036854775808"),
        ("real", "1.1"),
        ("real", "1e-45"),
        ("double precision", "-Infinity"),
        ("double precision", "1.7976931348623157e+308"),
        ("numeric", "12345.6700"),
        ("numeric", "-0.00012"),
        ("numeric", "0.00"),
        ("numeric", "100000000.5"),
        ("numeric", "-1234567890123456789012345678901234567890123456789.01234567"),
        ("numeric(12,2)", "1.50"),
        ("text", "é\t\"x\" \\ {}"),
        ("text", ""),
        ("bytea", "\\x00deadff"),
        ("date", "0044-03-15 BC"),
        ("date", "2024-02-29"),
        ("date", "12345-01-02"),
        ("time", "01:02:03.000004"),
        ("timestamp", "0044-03-15 12:00:00.5 BC"),
        ("timestamp", "2024-02-29 12:34:56.789012"),
        ("timestamptz", "2024-02-29 18:04:56.789012+05:30"),
        ("timestamptz", "12345-01-02 00:00:00+05:30"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("json", "{\"a\" : [1, null]}"),
        ("jsonb", "{\"a\" : [1, null]}"),
        ("bigint[]", "{1,NULL,-3}"),
        ("bigint[]", "{}"),
        ("text[]", r#"{"a b",NULL,"","null","a\"b","a\\b","{x}","x,y",plain,é," x"}"#),
        ("numeric[]", "{1.50,NULL,-22.25}"),
        ("uuid[]", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}"),
        ("jsonb[]", r#"{"{\"a\": 1}"}"#),
        ("bytea[]", r#"{"\\x00","\\xdead"}"#),
        ("timestamptz[]", r#"{"2024-01-01 05:30:00+05:30"}"#),
        ("boolean[]", "{t,f,NULL}"),
        ("date[]", "{2024-02-29}"),
    ];
    let settings = ValueSettings { time_zone: Tz::Asia__Kolkata, ..ValueSettings::default() };
    for (type_name, text) in cases {
        let pg_type = PgType::parse(type_name).unwrap();
        let value = decode_parameter(Some(text.as_bytes()), Format::Text, &pg_type, settings).unwrap();
        let written = write(&value, &pg_type, Format::Text, settings);
        assert_eq!(String::from_utf8(written).unwrap(), text, "{type_name}");
        let binary = write(&value, &pg_type, Format::Binary, settings);
        let from_binary = decode_parameter(Some(&binary), Format::Binary, &pg_type, settings).unwrap();
        assert_eq!(from_binary, value, "{type_name} {text}");
    }
}

#[test]
fn intervals_are_read_back_in_both_forms() {
    let settings = ValueSettings::default();
    for text in [
        "00:00:00",
        "1 year 2 mons 3 days 04:05:06.789",
        "-1 years -2 mons +1 day",
        "-1 mons -2 days -00:00:00.000001",
        "1000000:00:00",
    ] {
        let value = decode_text(text, &PgType::Interval, settings).unwrap();
        assert_eq!(write(&value, &PgType::Interval, Format::Text, settings), text.as_bytes());
        let binary = write(&value, &PgType::Interval, Format::Binary, settings);
        assert_eq!(decode_binary(&binary, &PgType::Interval).unwrap(), value);
    }
    let shown = [
        ("1 week", "7 days"),
        ("1.5 hours", "01:30:00"),
        ("1.5 years", "1 year 6 mons"),
        ("10 ms", "00:00:00.01"),
        ("5", "00:00:05"),
        ("1 y 2 h 3 m", "1 year 02:03:00"),
    ];
    for (text, shown) in shown {
        let value = decode_text(text, &PgType::Interval, settings).unwrap();
        assert_eq!(write(&value, &PgType::Interval, Format::Text, settings), shown.as_bytes());
    }
    for wrong in ["", "1 foo", "x", "1:2:3:4", "1 day day"] {
        assert_eq!(decode_text(wrong, &PgType::Interval, settings).unwrap_err().sqlstate(), "22007", "{wrong}");
    }
}

#[test]
fn input_that_is_not_how_it_would_be_shown() {
    let settings = ValueSettings { time_zone: Tz::America__New_York, ..ValueSettings::default() };
    let cases = [
        ("boolean", " TRUE ", "t"),
        ("boolean", "of", "f"),
        ("boolean", "y", "t"),
        ("integer", " +12 ", "12"),
        ("double precision", "inf", "Infinity"),
        ("double precision", ".5", "0.5"),
        ("numeric", " 1.50e-3 ", "0.00150"),
        ("numeric", "1.5e3", "1500"),
        ("numeric", "1.50e1", "15.0"),
        ("numeric", ".5", "0.5"),
        ("numeric", "5.", "5"),
        ("bytea", r"a\\b\001", "\\x615c6201"),
        ("bytea", r"\x de ad", "\\xdead"),
        ("date", "2024-1-3", "2024-01-03"),
        ("date", "20240103", "2024-01-03"),
        ("date", "2024-01-03 10:00:00", "2024-01-03"),
        ("time", "10:11", "10:11:00"),
        ("time", "10:11:12.1234567", "10:11:12.123457"),
        ("time", "1:2:3", "01:02:03"),
        ("timestamp", "2024-01-01T10:11:12Z", "2024-01-01 10:11:12"),
        ("timestamp", "2024-01-01 10:11+05", "2024-01-01 10:11:00"),
        ("timestamp", "2024-01-01", "2024-01-01 00:00:00"),
        // A time that clocks skipped, and one that they showed twice.
        ("timestamptz", "2024-03-10 02:30", "2024-03-10 03:30:00-04"),
        ("timestamptz", "2024-11-03 01:30", "2024-11-03 01:30:00-05"),
        ("timestamptz", "2024-01-01 10:11+0530", "2023-12-31 23:41:00-05"),
        ("timestamptz", "2024-01-01 10:11 Europe/Berlin", "2024-01-01 04:11:00-05"),
        ("timestamptz", "2024-01-01 10:11:12.5 UTC", "2024-01-01 05:11:12.5-05"),
        ("uuid", "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("uuid", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("text[]", r#"{ a b , "c,d" , null, "null" , \"x}"#, r#"{"a b","c,d",NULL,"null","\"x"}"#),
        ("integer[]", " { } ", "{}"),
    ];
    for (type_name, text, shown) in cases {
        let pg_type = PgType::parse(type_name).unwrap();
        let value = decode_parameter(Some(text.as_bytes()), Format::Text, &pg_type, settings).unwrap();
        let written = write(&value, &pg_type, Format::Text, settings);
        assert_eq!(String::from_utf8(written).unwrap(), shown, "{type_name} {text}");
    }
}

#[test]
fn wrong_text_is_refused_in_the_words_of_postgres() {
    let cases = [
        ("integer", "abc", "22P02", "invalid input syntax for type integer: \"abc\""),
        ("integer", "", "22P02", "invalid input syntax for type integer: \"\""),
        ("integer", "99999999999", "22003", "value \"99999999999\" is out of range for type integer"),
        ("smallint", "40000", "22003", "value \"40000\" is out of range for type smallint"),
        ("double precision", "abc", "22P02", "invalid input syntax for type double precision: \"abc\""),
        ("double precision", "1e400", "22003", "\"1e400\" is out of range for type double precision"),
        ("double precision", "1e-400", "22003", "\"1e-400\" is out of range for type double precision"),
        ("real", "1e40", "22003", "\"1e40\" is out of range for type real"),
        ("numeric", ".", "22P02", "invalid input syntax for type numeric: \".\""),
        ("numeric", "1e", "22P02", "invalid input syntax for type numeric: \"1e\""),
        ("numeric", "1e200000", "22003", "value overflows numeric format"),
        ("numeric", "1e76", "22003", "value overflows numeric format"),
        ("numeric", "NaN", "22003", "value \"NaN\" is not supported for type numeric"),
        ("boolean", "o", "22P02", "invalid input syntax for type boolean: \"o\""),
        ("bytea", "\\xzz", "22023", "invalid hexadecimal digit: \"z\""),
        ("bytea", "\\x123", "22023", "invalid hexadecimal data: odd number of digits"),
        ("bytea", "a\\9", "22P02", "invalid input syntax for type bytea"),
        ("date", "x", "22007", "invalid input syntax for type date: \"x\""),
        ("date", "2024-02-30", "22008", "date/time field value out of range: \"2024-02-30\""),
        ("date", "6000000-01-01", "22008", "date out of range: \"6000000-01-01\""),
        ("date", "infinity", "22008", "infinity is not supported for type date"),
        ("time", "25:00", "22008", "date/time field value out of range: \"25:00\""),
        ("time", "10:61", "22008", "date/time field value out of range: \"10:61\""),
        ("timestamp", "300000-01-01", "22008", "timestamp out of range: \"300000-01-01\""),
        ("timestamptz", "2024-01-01 10:11 Foo/Bar", "22023", "time zone \"foo/bar\" not recognized"),
        (
            "timestamptz",
            "2024-01-01 10:11 foo",
            "22007",
            "invalid input syntax for type timestamp with time zone: \"2024-01-01 10:11 foo\"",
        ),
        ("uuid", "x", "22P02", "invalid input syntax for type uuid: \"x\""),
        ("json", "{a", "22P02", "invalid input syntax for type json"),
        ("integer[]", "{1,2", "22P02", "malformed array literal: \"{1,2\""),
        ("integer[]", "1,2", "22P02", "malformed array literal: \"1,2\""),
        ("integer[]", "{1,,2}", "22P02", "malformed array literal: \"{1,,2}\""),
        ("integer[]", "{1}x", "22P02", "malformed array literal: \"{1}x\""),
        ("text[]", "{\"a\"b}", "22P02", "malformed array literal: \"{\"a\"b}\""),
        ("text[]", "{a,}", "22P02", "malformed array literal: \"{a,}\""),
        ("integer[]", "{1,a}", "22P02", "invalid input syntax for type integer: \"a\""),
        ("integer[]", "{{1},{2}}", "0A000", "arrays of more than one dimension are not supported"),
        ("text", "a\0b", "22021", "invalid byte sequence for encoding \"UTF8\": 0x00"),
    ];
    for (type_name, text, sqlstate, message) in cases {
        let error = read(text, type_name).unwrap_err();
        assert_eq!((error.sqlstate(), error.message()), (sqlstate, message), "{type_name} {text}");
    }
    let error = decode_parameter(Some(b"a\xff"), Format::Text, &PgType::Text, ValueSettings::default()).unwrap_err();
    assert_eq!(error.message(), "invalid byte sequence for encoding \"UTF8\": 0xff");
}

#[test]
fn wrong_binary_is_refused() {
    let refused = |bytes: &[u8], type_name: &str| {
        let pg_type = PgType::parse(type_name).unwrap();
        decode_parameter(Some(bytes), Format::Binary, &pg_type, ValueSettings::default()).unwrap_err().sqlstate()
    };
    for type_name in [
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "real",
        "double precision",
        "numeric",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "uuid",
        "jsonb",
        "bigint[]",
    ] {
        assert_eq!(refused(&[], type_name), "22P03", "{type_name}");
        let sqlstate = match type_name {
            // Read as the version and an invalid text, or as an element's oid.
            "jsonb" => "22P02",
            "bigint[]" => "42804",
            _ => "22P03",
        };
        assert_eq!(refused(&[1; 17], type_name), sqlstate, "{type_name}");
    }
    assert_eq!(refused(&[2, b'1'], "jsonb"), "22P03");
    assert_eq!(refused(&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10], "numeric"), "22P03");
    assert_eq!(refused(&[0, 0, 0, 0, 0xc0, 0, 0, 0], "numeric"), "22003");
    assert_eq!(refused(&i32::MAX.to_be_bytes(), "date"), "22008");
    assert_eq!(refused(&i64::MAX.to_be_bytes(), "timestamp"), "22008");
    assert_eq!(refused(&(i64::MAX - 1).to_be_bytes(), "timestamptz"), "22008");
    assert_eq!(refused(&86_400_000_001_i64.to_be_bytes(), "time"), "22008");
    let integers = write(
        &read("{1}", "integer[]").unwrap(),
        &PgType::parse("integer[]").unwrap(),
        Format::Binary,
        ValueSettings::default(),
    );
    assert_eq!(refused(&integers, "bigint[]"), "42804");
    assert_eq!(refused(&integers[..integers.len() - 1], "integer[]"), "22P03");
    let mut two_dimensions = integers.clone();
    two_dimensions[3] = 2;
    assert_eq!(refused(&two_dimensions, "integer[]"), "0A000");
    // A count that no message could hold reserves nothing.
    let mut endless = integers;
    endless[12..16].copy_from_slice(&i32::MAX.to_be_bytes());
    assert_eq!(refused(&endless, "integer[]"), "22P03");
}

#[test]
fn numerics_take_a_type_that_holds_them_exactly() {
    let decimal = |value, precision, scale| ScalarValue::Decimal128(Some(value), precision, scale);
    assert_eq!(read("1.5", "numeric").unwrap(), decimal(15, 2, 1));
    assert_eq!(read("0", "numeric").unwrap(), decimal(0, 1, 0));
    assert_eq!(read("0.001", "numeric").unwrap(), decimal(1, 3, 3));
    assert_eq!(read("1.5", "numeric(12,2)").unwrap(), decimal(150, 12, 2));
    assert_eq!(read("1.005", "numeric(12,2)").unwrap(), decimal(1005, 4, 3));
    assert_eq!(read("12345678901", "numeric(12,2)").unwrap(), decimal(12345678901, 11, 0));
    let wide = "1".repeat(39);
    assert!(matches!(read(&wide, "numeric").unwrap(), ScalarValue::Decimal256(Some(_), 39, 0)));
    let list = read("{1,22.25}", "numeric[]").unwrap();
    let element = PgType::Numeric { precision: 4, scale: 2 };
    assert_eq!(list.data_type(), PgType::Array(Box::new(element)).arrow());
}

#[test]
fn null_has_the_type_of_the_parameter() {
    for pg_type in [PgType::Int8, PgType::Timestamptz, PLAIN_NUMERIC, PgType::Array(Box::new(PgType::Text))] {
        let null = decode_parameter(None, Format::Binary, &pg_type, ValueSettings::default()).unwrap();
        assert!(null.is_null());
        assert_eq!(null.data_type(), pg_type.arrow());
    }
}
