use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Decimal128Type, Int32Type};
use datafusion::arrow::util::display::array_value_to_string;

use super::*;

/// The array's first value as Arrow shows it.
fn read(type_name: &str, text: &str) -> Result<String, ValueError> {
    let pg_type = PgType::parse(type_name).unwrap();
    let mut builder = ColumnBuilder::new(&pg_type);
    builder.append(text)?;
    let array = builder.finish();
    assert_eq!(array.data_type(), &pg_type.arrow());
    Ok(array_value_to_string(&array, 0).unwrap())
}

fn assert_refused(type_name: &str, text: &str, sqlstate: &str, message: &str) {
    let error = read(type_name, text).expect_err(text);
    assert_eq!((error.code.sqlstate(), error.message.as_str()), (sqlstate, message), "{text}");
}

#[test]
fn integers_allow_blanks_and_know_their_range() {
    assert_eq!(read("integer", " -42 ").unwrap(), "-42");
    assert_eq!(read("smallint", "+32767").unwrap(), "32767");
    assert_refused("integer", "99999999999", "22003", "value \"99999999999\" is out of range for type integer");
    assert_refused("bigint", "abc", "22P02", "invalid input syntax for type bigint: \"abc\"");
    assert_refused("bigint", "1.0", "22P02", "invalid input syntax for type bigint: \"1.0\"");
    assert_refused("bigint", "", "22P02", "invalid input syntax for type bigint: \"\"");
}

#[test]
fn an_error_quotes_at_most_a_hundred_characters() {
    let (short, long) = ("é".repeat(100), "é".repeat(101));
    assert_refused("bigint", &long, "22P02", &format!("invalid input syntax for type bigint: \"{short}...\""));
    assert_refused("bigint", &short, "22P02", &format!("invalid input syntax for type bigint: \"{short}\""));
}

#[test]
fn floats_read_special_values_and_refuse_what_they_cannot_hold() {
    assert_eq!(read("double precision", "NaN").unwrap(), "NaN");
    assert_eq!(read("double precision", "-Infinity").unwrap(), "-inf");
    assert_eq!(read("real", " inf ").unwrap(), "inf");
    assert_eq!(read("real", "-0").unwrap(), "-0.0");
    assert_refused("double precision", "1e400", "22003", "\"1e400\" is out of range for type double precision");
    assert_refused("real", "1e-60", "22003", "\"1e-60\" is out of range for type real");
    assert_refused("real", "1,5", "22P02", "invalid input syntax for type real: \"1,5\"");
}

#[test]
fn numerics_are_exact_or_refused() {
    assert_eq!(read("numeric(12,2)", "19.90").unwrap(), "19.90");
    assert_eq!(read("numeric(12,2)", "-0.5000").unwrap(), "-0.50");
    assert_eq!(read("numeric(12,2)", "1e3").unwrap(), "1000.00");
    assert_eq!(read("numeric(12,2)", "1200e-3").unwrap(), "1.20");
    assert_eq!(read("numeric(3,0)", "0000999.").unwrap(), "999");
    assert_eq!(read("numeric(3,0)", "0e999999999999999999999").unwrap(), "0");
    let widest = "9".repeat(76);
    assert_eq!(read("numeric(76,0)", &format!("-{widest}")).unwrap(), format!("-{widest}"));
    assert_eq!(read("numeric(38,0)", &"9".repeat(38)).unwrap(), "9".repeat(38));
    for (type_name, text) in [
        ("numeric(12,2)", "1.005"),
        ("numeric(12,2)", "1255e-3"),
        ("numeric(4,2)", "100"),
        ("numeric(4,2)", "NaN"),
        ("numeric(4,2)", "-Infinity"),
        ("numeric(76,0)", "1e76"),
        ("numeric(76,0)", "1e9999999999999999999"),
    ] {
        assert_refused(type_name, text, "22003", "numeric field overflow");
    }
    for text in ["", ".", "1e", "1.2.3", "--1", "1 2"] {
        assert_refused("numeric(4,2)", text, "22P02", &format!("invalid input syntax for type numeric: \"{text}\""));
    }
}

#[test]
fn booleans_are_any_unique_beginning() {
    for text in ["t", "TRUE", "y", "yes", "on", "1", " tr "] {
        assert_eq!(read("boolean", text).unwrap(), "true", "{text}");
    }
    for text in ["f", "fals", "n", "no", "of", "off", "0"] {
        assert_eq!(read("boolean", text).unwrap(), "false", "{text}");
    }
    for text in ["o", "", "2", "truely", "é"] {
        assert_refused("boolean", text, "22P02", &format!("invalid input syntax for type boolean: \"{text}\""));
    }
}

#[test]
fn dates_and_times_are_read_to_the_microsecond() {
    assert_eq!(read("date", "2024-02-29").unwrap(), "2024-02-29");
    assert_eq!(read("date", "0044-03-15 BC").unwrap(), "-0043-03-15");
    assert_eq!(read("date", "10000-01-01").unwrap(), "+10000-01-01");
    assert_eq!(read("time", "12:34").unwrap(), "12:34:00");
    assert_eq!(read("time", "12:34:56.7").unwrap(), "12:34:56.700");
    assert_eq!(read("timestamp", "2024-02-29").unwrap(), "2024-02-29T00:00:00");
    assert_eq!(read("timestamp", "2024-02-29T24:00").unwrap(), "2024-03-01T00:00:00");
    assert_eq!(read("timestamp", "2024-02-29 12:34:56.789012+02").unwrap(), "2024-02-29T12:34:56.789012");
    assert_eq!(read("timestamp", "2024-02-29 12:34:56.9999999").unwrap(), "2024-02-29T12:34:57");
    assert_eq!(read("timestamp", "2024-02-29 12:34:56.0000005").unwrap(), "2024-02-29T12:34:56");
    assert_refused("date", "2024-02-30", "22008", "date/time field value out of range: \"2024-02-30\"");
    assert_refused("date", "0000-01-01", "22008", "date/time field value out of range: \"0000-01-01\"");
    assert_refused("date", "infinity", "22008", "date out of range: \"infinity\"");
    assert_refused("date", "12:00", "22P02", "invalid input syntax for type date: \"12:00\"");
    assert_refused("time", "25:00", "22008", "date/time field value out of range: \"25:00\"");
    assert_refused("time", "24:00", "22008", "date/time field value out of range: \"24:00\"");
    assert_refused("timestamp", "-infinity", "22008", "timestamp out of range: \"-infinity\"");
    assert_refused("timestamp", "2024-02-29x", "22P02", "invalid input syntax for type timestamp: \"2024-02-29x\"");
    assert_refused("timestamp", "294248-01-01", "22008", "timestamp out of range: \"294248-01-01\"");
    assert_eq!(read("date", "4714-11-24 BC").unwrap(), "-4713-11-24");
    assert_refused("date", "4714-11-23 BC", "22008", "date out of range: \"4714-11-23 BC\"");
    assert_refused("date", "5874898-06-03", "22008", "date out of range: \"5874898-06-03\"");
    assert!(ColumnBuilder::new(&PgType::Date).append("5874897-12-31").is_ok());
    assert!(ColumnBuilder::new(&PgType::Timestamp).append("294246-12-31 23:59:59.999999").is_ok());
}

#[test]
fn zones_count_from_utc() {
    let noon = "2024-02-29T12:00:00Z";
    for text in [
        "2024-02-29 12:00:00",
        "2024-02-29 12:00:00+00",
        "2024-02-29T12:00:00Z",
        "2024-02-29 14:00:00+02",
        "2024-02-29 14:30+02:30",
        "2024-02-29 14:30:00+0230",
        "2024-02-29 06:30:00 -05:30",
        "2024-02-29 12:00:00 UTC",
    ] {
        assert_eq!(read("timestamptz", text).unwrap(), noon, "{text}");
    }
    let text = "2024-02-29 12:00:00+16";
    assert_refused("timestamptz", text, "22008", &format!("time zone displacement out of range: \"{text}\""));
    for text in ["2024-02-29 12:00:00+", "2024-02-29 12:00:00+02:3", "2024-02-29 12:00 Mars", "now-ish"] {
        let message = format!("invalid input syntax for type timestamp with time zone: \"{text}\"");
        assert_refused("timestamptz", text, "22P02", &message);
    }
}

#[test]
fn uuids_are_held_in_their_canonical_form() {
    let canonical = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    for text in [
        canonical,
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
    ] {
        assert_eq!(read("uuid", text).unwrap(), canonical);
    }
    for text in [
        "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
        "a0",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
    ] {
        assert_refused("uuid", text, "22P02", &format!("invalid input syntax for type uuid: \"{text}\""));
    }
}

#[test]
fn bytes_come_in_both_forms() {
    assert_eq!(read("bytea", "\\x00Ff 10").unwrap(), "00ff10");
    assert_eq!(read("bytea", "a\\\\b\\001").unwrap(), "615c6201");
    assert_refused("bytea", "\\x0", "22P02", "invalid hexadecimal data: odd number of digits");
    assert_refused("bytea", "\\x0g", "22P02", "invalid hexadecimal digit: \"g\"");
    assert_refused("bytea", "\\9", "22P02", "invalid input syntax for type bytea");
}

#[test]
fn json_is_checked_and_kept_as_it_came() {
    assert_eq!(read("jsonb", " {\"b\": 1.0,\"a\":2} ").unwrap(), " {\"b\": 1.0,\"a\":2} ");
    assert_refused("json", "{a: 1}", "22P02", "invalid input syntax for type json: \"{a: 1}\"");
    assert_refused("json", "1 2", "22P02", "invalid input syntax for type json: \"1 2\"");
    assert_refused("text", "a\0", "22P02", "invalid byte sequence for encoding \"UTF8\": 0x00");
}

#[test]
fn arrays_have_quotes_backslashes_and_nulls() {
    let mut builder = ColumnBuilder::new(&PgType::Array(Box::new(PgType::Text)));
    builder.append("{a b , \"NULL\",null,\"x\\\"y,}\",\\ z\\ ,\"\"}").unwrap();
    builder.append_null();
    builder.append(" { } ").unwrap();
    let array = builder.finish();
    let list = array.as_list::<i32>();
    let first: Vec<_> = list.value(0).as_string_view().iter().map(|v| v.map(str::to_string)).collect();
    let expected = [Some("a b"), Some("NULL"), None, Some("x\"y,}"), Some(" z "), Some("")];
    assert_eq!(first, expected.map(|v| v.map(str::to_string)));
    assert!(list.is_null(1));
    assert_eq!((list.is_null(2), list.value_length(2)), (false, 0));
    assert!(builder.is_empty());
    for text in ["1,2", "{1", "{1,}", "{,1}", "{1}x", "{\"a\"b}", "{a\"b\"}", "{1\\", ""] {
        assert_refused("text[]", text, "22P02", &format!("malformed array literal: \"{text}\""));
    }
    assert_refused("integer[]", "{{1}}", "0A000", "arrays of more than one dimension are not supported");
}

#[test]
fn a_refused_value_leaves_no_trace() {
    let mut builder = ColumnBuilder::new(&PgType::Array(Box::new(PgType::Int4)));
    builder.append("{1}").unwrap();
    let error = builder.append("{2,x}").unwrap_err();
    assert_eq!(error.message, "invalid input syntax for type integer: \"x\"");
    builder.append("{3,NULL}").unwrap();
    let array = builder.finish();
    let list = array.as_list::<i32>();
    assert_eq!(list.len(), 2);
    assert_eq!(list.values().as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(1), Some(3), None]);
}

#[test]
fn nulls_and_reuse_keep_the_type() {
    let pg_type = PgType::Numeric { precision: 5, scale: 1 };
    let mut builder = ColumnBuilder::new(&pg_type);
    builder.append_null();
    assert_eq!(builder.finish().null_count(), 1);
    builder.append("1.5").unwrap();
    let array = builder.finish();
    assert_eq!(array.data_type(), &pg_type.arrow());
    assert_eq!(array.as_primitive::<Decimal128Type>().value(0), 15);
}

#[test]
fn types_of_catalogs_are_read_as_postgresql_reads_them() {
    let long = "x".repeat(70);
    assert_eq!(parse(&PgType::Name, &long).unwrap(), Value::Text(long[..63].into()));
    assert_eq!(parse(&PgType::Char, "abc").unwrap(), Value::Text("a".into()));
    assert_eq!(parse(&PgType::Oid, " 4294967295 ").unwrap(), Value::Oid(u32::MAX));
    assert_eq!(parse(&PgType::Oid, "-1").unwrap(), Value::Oid(u32::MAX));
    assert_eq!(parse(&PgType::Oid, "4294967296").unwrap_err().code, Code::NumericOutOfRange);
    assert_eq!(parse(&PgType::Char, "é").unwrap_err().code, Code::InvalidTextRepresentation);
}
