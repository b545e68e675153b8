use apache_avro::types::Value as Written;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Days, Decimal, Duration, Millis, Months};
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::util::display::array_value_to_string;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::*;
use crate::error::Code;
use crate::pg_type::PgType;

fn schema(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)
}

fn parsed(json: &str) -> Arc<AvroSchema> {
    Arc::new(AvroSchema::parse(json).unwrap())
}

/// What apache-avro writes.
fn written(schema: &str, fields: Vec<(&str, Written)>) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    let fields = fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let mut bytes = Vec::new();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    writer.write_value(&mut bytes, Written::Record(fields)).unwrap();
    bytes
}

fn framed(id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], datum].concat()
}

fn decoder_of(reader: &str, columns: &[AvroColumn], framing: Framing) -> AvroDecoder {
    let reader = parsed(reader);
    let fields = if columns.is_empty() { reader.columns().unwrap() } else { reader.columns_of(columns).unwrap() };
    AvroDecoder::try_new(&Arc::new(Schema::new(fields)), reader, columns, framing).unwrap()
}

/// The values of a batch's first row, as Arrow shows them; `-` for NULL.
fn first_row(decoder: &mut AvroDecoder) -> String {
    let batch = decoder.finish().unwrap();
    let shown = batch.columns().iter().map(|column| match column.is_null(0) {
        true => "-".to_string(),
        false => array_value_to_string(column, 0).unwrap(),
    });
    shown.collect::<Vec<_>>().join(" | ")
}

fn read(reader: &str, message: &[u8]) -> Result<String, String> {
    let mut decoder = decoder_of(reader, &[], Framing::Plain);
    match decoder.append(message) {
        Ok(()) => Ok(first_row(&mut decoder)),
        Err(MessageFailure::Malformed(error)) => Err(error.message),
        Err(MessageFailure::UnknownSchema(id)) => panic!("unknown schema {id}"),
    }
}

/// What `reader` reads of a message that `writer` wrote.
fn resolved(writer: &str, reader: &str, message: &[u8]) -> Result<String, String> {
    let mut decoder = decoder_of(reader, &[], Framing::Confluent);
    let message = framed(7, message);
    assert_eq!(decoder.append(&message), Err(MessageFailure::UnknownSchema(7)));
    decoder.add_writer(7, &parsed(writer));
    match decoder.append(&message) {
        Ok(()) => Ok(first_row(&mut decoder)),
        Err(MessageFailure::Malformed(error)) => Err(error.message),
        Err(MessageFailure::UnknownSchema(id)) => panic!("unknown schema {id}"),
    }
}

#[test]
fn every_scalar_is_read_as_another_implementation_writes_it() {
    let decimal = |number: i128| Written::Decimal(Decimal::from(number.to_be_bytes()));
    let text = |text: &str| Written::String(text.to_string());
    let uuid = apache_avro::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let shown_uuid = "01234567-89ab-cdef-0123-456789abcdef";
    for (json, value, expected) in [
        (r#""boolean""#, Written::Boolean(true), "true"),
        (r#""int""#, Written::Int(i32::MIN), "-2147483648"),
        (r#""long""#, Written::Long(i64::MAX), "9223372036854775807"),
        (r#""float""#, Written::Float(1.5), "1.5"),
        (r#""double""#, Written::Double(-0.1), "-0.1"),
        (r#""bytes""#, Written::Bytes(vec![0, 255]), "00ff"),
        (r#""string""#, text("äöü 🙂"), "äöü 🙂"),
        (r#""string""#, text(""), ""),
        (r#"{"type": "fixed", "name": "F", "size": 2}"#, Written::Fixed(2, vec![1, 2]), "0102"),
        (r#"{"type": "enum", "name": "E", "symbols": ["A", "B"]}"#, Written::Enum(1, "B".to_string()), "B"),
        (r#"{"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}"#, decimal(-1), "-0.01"),
        (
            r#"{"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0}"#,
            decimal(10i128.pow(38) - 1),
            "99999999999999999999999999999999999999",
        ),
        (
            r#"{"type": {"type": "fixed", "name": "D", "size": 16, "logicalType": "decimal", "precision": 20, "scale": 1}}"#,
            decimal(125),
            "12.5",
        ),
        (r#"{"type": "string", "logicalType": "uuid"}"#, Written::Uuid(uuid), shown_uuid),
        (r#"{"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}"#, Written::Uuid(uuid), shown_uuid),
        (r#"{"type": "int", "logicalType": "date"}"#, Written::Date(19782), "2024-02-29"),
        (r#"{"type": "int", "logicalType": "time-millis"}"#, Written::TimeMillis(1), "00:00:00.001"),
        (r#"{"type": "long", "logicalType": "time-micros"}"#, Written::TimeMicros(86_399_999_999), "23:59:59.999999"),
        (
            r#"{"type": "long", "logicalType": "timestamp-millis"}"#,
            Written::TimestampMillis(-1),
            "1969-12-31T23:59:59.999Z",
        ),
        (
            r#"{"type": "long", "logicalType": "timestamp-micros"}"#,
            Written::TimestampMicros(1),
            "1970-01-01T00:00:00.000001Z",
        ),
        (
            r#"{"type": "long", "logicalType": "local-timestamp-millis"}"#,
            Written::LocalTimestampMillis(1000),
            "1970-01-01T00:00:01",
        ),
        (
            r#"{"type": "long", "logicalType": "local-timestamp-micros"}"#,
            Written::LocalTimestampMicros(1),
            "1970-01-01T00:00:00.000001",
        ),
        (
            r#"{"type": "fixed", "name": "L", "size": 12, "logicalType": "duration"}"#,
            Written::Duration(Duration::new(Months::new(14), Days::new(3), Millis::new(1500))),
            "14 mons 3 days 1.500000000 secs",
        ),
        (r#"["null", "int"]"#, Written::Union(0, Box::new(Written::Null)), "-"),
        (r#"["null", "int"]"#, Written::Union(1, Box::new(Written::Int(7))), "7"),
        (r#"["int"]"#, Written::Union(0, Box::new(Written::Int(7))), "7"),
        (
            r#"{"type": "array", "items": ["null", "int"]}"#,
            Written::Array(vec![
                Written::Union(1, Box::new(Written::Int(1))),
                Written::Union(0, Box::new(Written::Null)),
            ]),
            "[1, ]",
        ),
        (r#"{"type": "array", "items": "string"}"#, Written::Array(vec![]), "[]"),
    ] {
        let schema = schema(&format!(r#"{{"name": "a", "type": {json}}}"#));
        let message = written(&schema, vec![("a", value)]);
        assert_eq!(read(&schema, &message).as_deref(), Ok(expected), "{json}");
        // The same once more through a writer's schema, and beside a field that is passed over.
        assert_eq!(resolved(&schema, &schema, &message).as_deref(), Ok(expected), "{json}");
        let wider = schema.replace("\"fields\": [", r#""fields": [{"name": "z", "type": "int"}, "#);
        assert_eq!(resolved(&wider, &schema, &[&[2], &message[..]].concat()).as_deref(), Ok(expected), "{json}");
        let other = r#"{"type": "record", "name": "R", "fields": [{"name": "z", "type": "int"}]}"#;
        assert_eq!(resolved(&wider, other, &[&[2], &message[..]].concat()).as_deref(), Ok("1"), "{json}");
        for length in 0..message.len() {
            assert!(read(&schema, &message[..length]).is_err(), "{json} cut to {length} bytes");
        }
        assert!(read(&schema, &[&message[..], &[0]].concat()).is_err(), "{json} with a byte behind it");
    }
}

#[test]
fn values_with_values_within_are_json() {
    let json = r#"{"name": "a", "type": ["null", {"type": "record", "name": "S", "fields": [
        {"name": "n", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 3}},
        {"name": "b", "type": "bytes"}, {"name": "q\"", "type": ["null", "string", "double"]},
        {"name": "m", "type": {"type": "map", "values": "long"}},
        {"name": "l", "type": {"type": "array", "items": {"type": "array", "items": "float"}}},
        {"name": "d", "type": {"type": "int", "logicalType": "date"}},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "u", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "o", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "i", "type": {"type": "fixed", "name": "L", "size": 12, "logicalType": "duration"}},
        {"name": "next", "type": ["null", "S"]}]}]}"#;
    let schema = schema(json);
    let inner = |text: Written, next: Written| {
        Written::Record(vec![
            ("n".to_string(), Written::Decimal(Decimal::from((-50i128).to_be_bytes()))),
            ("b".to_string(), Written::Bytes(vec![255, 254])),
            ("q\"".to_string(), text),
            ("m".to_string(), Written::Map([("k\n".to_string(), Written::Long(i64::MAX))].into())),
            ("l".to_string(), Written::Array(vec![Written::Array(vec![Written::Float(0.1)]), Written::Array(vec![])])),
            ("d".to_string(), Written::Date(0)),
            ("t".to_string(), Written::TimestampMicros(1_500_000)),
            ("u".to_string(), Written::LocalTimestampMillis(-1000)),
            ("o".to_string(), Written::TimeMillis(1)),
            ("i".to_string(), Written::Duration(Duration::new(Months::new(1), Days::new(2), Millis::new(3500)))),
            ("next".to_string(), next),
        ])
    };
    let null = || Written::Union(0, Box::new(Written::Null));
    let first = inner(Written::Union(1, Box::new(Written::String("\"x\"".to_string()))), null());
    let second = inner(Written::Union(2, Box::new(Written::Double(f64::NAN))), Written::Union(1, Box::new(first)));
    // apache-avro refuses the field's name, which is written nowhere.
    let writable = schema.replace("q\\\"", "q");
    let rename = |value: Written| match value {
        Written::Record(fields) => {
            Written::Record(fields.into_iter().map(|(name, value)| (name.replace('"', ""), value)).collect())
        }
        other => other,
    };
    let second = match rename(second) {
        Written::Record(mut fields) => {
            if let Some((_, Written::Union(1, next))) = fields.last_mut() {
                **next = rename((**next).clone());
            }
            Written::Record(fields)
        }
        other => other,
    };
    let message = written(&writable, vec![("a", Written::Union(1, Box::new(second)))]);
    let json = read(&schema, &message).unwrap();
    let tail = r#","m":{"k\n":9223372036854775807},"l":[[0.1],[]],"d":"1970-01-01","t":"1970-01-01T00:00:01.500+00:00","u":"1969-12-31T23:59:59","o":"00:00:00.001","i":"P1M2DT3.5S","next":"#;
    let head = r#"{"n":-0.050,"b":"//4=","q\"":"#;
    assert_eq!(json, format!("{head}\"NaN\"{tail}{head}\"\\\"x\\\"\"{tail}null}}}}"));
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
    assert_eq!(read(&schema, &[0]).as_deref(), Ok("-"));
}

#[test]
fn fields_are_found_by_name_alias_and_default() {
    let writer = schema(
        r#"{"name": "gone", "type": {"type": "map", "values": "string"}}, {"name": "old", "type": "int"},
           {"name": "kept", "type": "float"}"#,
    );
    let reader = schema(
        r#"{"name": "kept", "type": "double"}, {"name": "new", "type": "long", "aliases": ["older", "old"]},
           {"name": "n", "type": ["null", "string"], "default": null},
           {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}, "default": "B"},
           {"name": "b", "type": "bytes", "default": "\u00ff\u0000"},
           {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "default": "\u007d"},
           {"name": "l", "type": {"type": "array", "items": "int"}, "default": [1, 2]},
           {"name": "r", "type": {"type": "record", "name": "S", "fields": [{"name": "x", "type": "int", "default": 3}]},
            "default": {}},
           {"name": "u", "type": ["int", "string"], "default": "second"}"#,
    );
    let message = [&[2, 2, b'k', 2, b'v', 0, 84][..], &1.5f32.to_le_bytes()].concat();
    let expected = r#"1.5 | 42 | - | B | ff00 | 1.25 | [1, 2] | {"x":3} | "second""#;
    assert_eq!(resolved(&writer, &reader, &message).as_deref(), Ok(expected));
}

#[test]
fn values_are_promoted_as_the_specification_allows() {
    let enum_of = |symbols: &str| format!(r#"{{"type": "enum", "name": "E", "symbols": {symbols}}}"#);
    let defaulted = r#"{"type": "enum", "name": "E", "symbols": ["X", "B"], "default": "X"}"#;
    let long_ts = |unit: &str| format!(r#"{{"type": "long", "logicalType": "timestamp-{unit}"}}"#);
    let decimal =
        |scale: u8| format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": {scale}}}"#);
    let refused = |written: &str, read: &str| Err(format!("a value written as {written} cannot be read as {read}"));
    let ok = |shown: &str| Ok(shown.to_string());
    for (writer, reader, bytes, expected) in [
        (r#""int""#.into(), r#""long""#.into(), &[14][..], ok("7")),
        (r#""int""#.into(), r#""float""#.into(), &[14], ok("7.0")),
        (r#""long""#.into(), r#""double""#.into(), &[14], ok("7.0")),
        (r#""long""#.into(), r#""int""#.into(), &[14], refused("long", "int")),
        (r#""double""#.into(), r#""float""#.into(), &[0; 8], refused("double", "float")),
        (r#""string""#.into(), r#""bytes""#.into(), &[2, b'a'], ok("61")),
        (r#""bytes""#.into(), r#""string""#.into(), &[2, b'a'], ok("a")),
        (r#""string""#.into(), r#""int""#.into(), &[2, b'a'], refused("string", "int")),
        (r#""int""#.into(), r#"["null", "string", "long"]"#.into(), &[14], ok("7")),
        (r#"["null", "int"]"#.into(), r#""long""#.into(), &[2, 14], ok("7")),
        (
            r#"["null", "int"]"#.into(),
            r#""long""#.into(),
            &[0],
            Err("a value written as null cannot be read as long".to_string()),
        ),
        (r#"["string", "int"]"#.into(), r#"["null", "long"]"#.into(), &[2, 14], ok("7")),
        (
            r#"["string", "int"]"#.into(),
            r#"["null", "long"]"#.into(),
            &[0, 2, b'a'],
            Err("a value written as string cannot be read as any of null, long".to_string()),
        ),
        (enum_of(r#"["A", "B"]"#), enum_of(r#"["B"]"#), &[2], ok("B")),
        (enum_of(r#"["A", "B"]"#), enum_of(r#"["B"]"#), &[0], Err("the reader has no symbol \"A\"".to_string())),
        (enum_of(r#"["A", "B"]"#), defaulted.to_string(), &[0], ok("X")),
        (long_ts("millis"), long_ts("micros"), &[2], ok("1970-01-01T00:00:00.001Z")),
        (long_ts("micros"), long_ts("millis"), &[2], ok("1970-01-01T00:00:00.000001Z")),
        (r#""long""#.into(), long_ts("micros"), &[2], ok("1970-01-01T00:00:00.000001Z")),
        (long_ts("nanos"), r#""long""#.into(), &[2], ok("1")),
        (long_ts("nanos"), long_ts("micros"), &[2], refused("long (timestamp-nanos)", "long (timestamp-micros)")),
        (
            r#"{"type": "long", "logicalType": "local-timestamp-millis"}"#.into(),
            long_ts("millis"),
            &[2],
            refused("long (local-timestamp-millis)", "long (timestamp-millis)"),
        ),
        (decimal(1), decimal(2), &[2, 5], ok("0.50")),
        (decimal(2), decimal(1), &[2, 5], refused("bytes (decimal(9,2))", "bytes (decimal(9,1))")),
        (
            r#"{"type": "array", "items": "int"}"#.into(),
            r#"{"type": "array", "items": "long"}"#.into(),
            &[2, 14, 0],
            ok("[7]"),
        ),
        (r#"{"type": "map", "values": "int"}"#.into(), r#"{"type": "map", "values": "long"}"#.into(), &[0], ok("{}")),
        (r#""null""#.into(), r#"["null", "long"]"#.into(), &[], ok("-")),
    ] as [(String, String, &[u8], Result<String, String>); 27]
    {
        let record = |json: &str| schema(&format!(r#"{{"name": "a", "type": {json}}}"#));
        let (from, to) = (record(&writer), record(&reader));
        let found = resolved(&from, &to, bytes).map_err(|message| {
            let message = message.replace("schema 7 of \"R\" cannot be read as \"R\": field \"a\": ", "");
            message.replace("column \"a\": ", "")
        });
        assert_eq!(found, expected, "{writer} as {reader}");
    }
}

#[test]
fn a_record_in_a_union_is_found_by_its_name_before_its_form() {
    let record = |name: &str, field: &str| {
        format!(
            r#"{{"type": "record", "name": "{name}", "fields": [{{"name": "{field}", "type": "int", "default": 9}}]}}"#
        )
    };
    let writer = schema(&format!(r#"{{"name": "a", "type": {}}}"#, record("B", "x")));
    let union = format!(r#"{{"name": "a", "type": ["null", {}, {}]}}"#, record("A", "x"), record("B", "y"));
    assert_eq!(resolved(&writer, &schema(&union), &[14]).as_deref(), Ok(r#"{"y":9}"#));
    // With no record of its name, one of its form.
    let union = format!(r#"{{"name": "a", "type": ["null", {}]}}"#, record("A", "x"));
    assert_eq!(resolved(&writer, &schema(&union), &[14]).as_deref(), Ok(r#"{"x":7}"#));
}

#[test]
fn json_has_the_readers_order_whoever_wrote_it() {
    let inner = |fields: &str| {
        schema(&format!(r#"{{"name": "a", "type": {{"type": "record", "name": "S", "fields": [{fields}]}}}}"#))
    };
    let writer =
        inner(r#"{"name": "z", "type": "int"}, {"name": "y", "type": "string"}, {"name": "x", "type": "int"}"#);
    let reader = inner(
        r#"{"name": "x", "type": "int"}, {"name": "d", "type": "int", "default": 5}, {"name": "z", "type": "int"}"#,
    );
    assert_eq!(resolved(&writer, &reader, &[2, 2, b'a', 4]).as_deref(), Ok(r#"{"x":2,"d":5,"z":1}"#));
}

fn column(name: &str, path: &str, pg_type: Option<&str>, nullable: bool) -> AvroColumn {
    let pg_type = pg_type.map(|name| PgType::parse(name).unwrap());
    AvroColumn { name: name.to_string(), path: Some(path.parse().unwrap()), pg_type, nullable }
}

#[test]
fn columns_come_from_within_records() {
    let nested = schema(
        r#"{"name": "skipped", "type": {"type": "array", "items": "string"}},
           {"name": "customer", "type": ["null", {"type": "record", "name": "C", "fields": [
               {"name": "name", "type": "string"}, {"name": "id", "type": "int"}]}]},
           {"name": "n", "type": "int"}"#,
    );
    let columns = [
        column("id", "$.customer.id", Some("numeric(12,1)"), true),
        column("customer", "$.customer", None, true),
        column("n", "$.n", Some("bigint"), false),
        column("all", "$", None, false),
        column("n_again", "$.n", None, true),
    ];
    let mut decoder = decoder_of(&nested, &columns, Framing::Plain);
    decoder.append(&[2, 2, b'x', 0, 2, 4, b'A', b'b', 14, 16]).unwrap();
    let customer = r#"{"name":"Ab","id":7}"#;
    let expected = format!(r#"7.0 | {customer} | 8 | {{"skipped":["x"],"customer":{customer},"n":8}} | 8"#);
    assert_eq!(first_row(&mut decoder), expected);
    decoder.append(&[0, 0, 16]).unwrap();
    assert_eq!(first_row(&mut decoder), r#"- | - | 8 | {"skipped":[],"customer":null,"n":8} | 8"#);
    // A record that the writer lacks, with columns within its default.
    let reader = nested.replace(r#""id", "type": "int"}]}]"#, r#""id", "type": "int"}]}], "default": null"#);
    let mut decoder = decoder_of(&reader, &columns[..1], Framing::Confluent);
    decoder.add_writer(1, &parsed(&schema(r#"{"name": "n", "type": "int"}"#)));
    decoder.append(&framed(1, &[2])).unwrap();
    assert_eq!(first_row(&mut decoder), "-");
}

#[test]
fn null_in_a_column_that_is_not_null_is_refused() {
    let nullable = schema(r#"{"name": "a", "type": ["null", "int"]}"#);
    let mut decoder = decoder_of(&nullable, &[column("a", "$.a", None, false)], Framing::Plain);
    let Err(MessageFailure::Malformed(error)) = decoder.append(&[0]) else { panic!("NULL was taken") };
    assert_eq!(error.code, Code::NotNullViolation);
    assert_eq!(error.message, "null value in column \"a\" violates not-null constraint");
    decoder.append(&[2, 2]).unwrap();
    assert_eq!((decoder.len(), first_row(&mut decoder).as_str()), (1, "1"));
}

#[test]
fn frames_that_are_none_are_refused() {
    let mut decoder = decoder_of(&schema(r#"{"name": "a", "type": "int"}"#), &[], Framing::Confluent);
    for (message, expected) in [
        (&[][..], "a message of 0 bytes has no number of a schema in front"),
        (&[0, 0, 0, 1], "a message of 4 bytes has no number of a schema in front"),
        (b"{\"a\": 1}", "a message begins with byte 123, where 0 and the number of a schema should be"),
    ] {
        let Err(MessageFailure::Malformed(error)) = decoder.append(message) else { panic!("taken: {message:?}") };
        assert_eq!((error.message.as_str(), error.code), (expected, Code::InvalidTextRepresentation));
    }
    assert_eq!(decoder.append(&framed(u32::MAX, &[2])), Err(MessageFailure::UnknownSchema(u32::MAX)));
    assert!(decoder.is_empty());
}

#[test]
fn a_writer_that_does_not_resolve_fails_each_of_its_messages_with_the_reason() {
    let reader = schema(r#"{"name": "a", "type": "int"}"#);
    let mut decoder = decoder_of(&reader, &[], Framing::Confluent);
    decoder.add_writer(1, &parsed(&schema(r#"{"name": "b", "type": "int"}"#)));
    decoder.add_writer(2, &parsed(&reader));
    for _ in 0..2 {
        let Err(MessageFailure::Malformed(error)) = decoder.append(&framed(1, &[2])) else { panic!("it was read") };
        assert_eq!(
            error.message,
            "schema 1 of \"R\" cannot be read as \"R\": the writer has no field \"a\", which has no default"
        );
        decoder.append(&framed(2, &[2])).unwrap();
    }
    assert_eq!(decoder.len(), 2);
}

#[test]
fn a_default_that_does_not_fit_is_told() {
    let writer = schema("");
    for (json, expected) in [
        (r#"{"name": "a", "type": "int", "default": "x"}"#, "\"x\" is no int"),
        (r#"{"name": "a", "type": "int", "default": 2147483648}"#, "2147483648 is no int"),
        (r#"{"name": "a", "type": "bytes", "default": "ā"}"#, "\"ā\" is no bytes"),
        (r#"{"name": "a", "type": ["null", "int"], "default": []}"#, "[] is no null"),
        (r#"{"name": "a", "type": "R", "default": {}}"#, "it is too large"),
        (
            r#"{"name": "a", "type": {"type": "record", "name": "S", "fields": [{"name": "b", "type": "int"}]}, "default": {}}"#,
            "it lacks \"b\"",
        ),
    ] {
        let found = resolved(&writer, &schema(json), &[]).unwrap_err();
        let expected = format!(
            "schema 7 of \"R\" cannot be read as \"R\": the default of field \"a\" does not fit its type: {expected}"
        );
        assert_eq!(found, expected, "{json}");
    }
    // Nobody asks for it.
    let unread = schema(r#"{"name": "a", "type": "int", "default": "x"}"#);
    assert_eq!(read(&unread, &[2]).as_deref(), Ok("1"));
}

#[test]
fn values_out_of_range_are_refused_with_their_column() {
    let of = |json: &str| schema(&format!(r#"{{"name": "a", "type": {json}}}"#));
    let highest = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for (json, message, expected) in [
        (
            r#"{"type": "int", "logicalType": "date"}"#,
            &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
            "date out of range: -2147483648 days from 1970-01-01",
        ),
        (r#"{"type": "int", "logicalType": "time-millis"}"#, &[1], "time out of range: -1 millis from midnight"),
        (
            r#"{"type": "long", "logicalType": "timestamp-millis"}"#,
            &highest,
            "timestamp out of range: 9223372036854775807 millis from 1970-01-01",
        ),
        (r#"{"type": "bytes", "logicalType": "decimal", "precision": 2}"#, &[2, 100], "numeric field overflow"),
        (r#"{"type": "string", "logicalType": "uuid"}"#, &[2, b'x'], "invalid input syntax for type uuid: \"x\""),
        (r#""string""#, &[2, 0], "invalid byte sequence for encoding \"UTF8\": 0x00"),
        (r#""string""#, &[3], "the length at byte 0 is -2"),
        (r#"["null", "int"]"#, &[4], "at byte 0 is chosen number 2 of 2"),
    ] {
        assert_eq!(read(&of(json), message), Err(format!("column \"a\": {expected}")), "{json}");
    }
}

#[test]
fn messages_that_claim_more_than_they_have_end_at_once() {
    let circle = schema(r#"{"name": "next", "type": ["null", "R"]}"#);
    let deep = vec![2; 1_000_000];
    let too_deep = "column \"next\": values stand more than 100 levels deep in one another";
    assert_eq!(read(&circle, &deep), Err(too_deep.to_string()));
    // Passed over, and within themselves without any bytes.
    let other = schema(r#"{"name": "n", "type": "int", "default": 1}"#);
    assert_eq!(resolved(&circle, &other, &deep), Err(too_deep.replace("column \"next\": ", "")));
    let endless = schema(r#"{"name": "self", "type": {"type": "array", "items": "R"}}, {"name": "r", "type": "R"}"#);
    assert!(read(&endless, &[0; 1000]).is_err());

    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    for json in [
        r#""string""#,
        r#""bytes""#,
        r#"{"type": "array", "items": "null"}"#,
        r#"{"type": "array", "items": {"type": "record", "name": "E", "fields": []}}"#,
        r#"{"type": "map", "values": "int"}"#,
        r#"{"type": "array", "items": "long"}"#,
        r#"{"type": "fixed", "name": "F", "size": 1000000000}"#,
    ] {
        let schema = schema(&format!(r#"{{"name": "a", "type": {json}}}"#));
        assert!(read(&schema, &huge).is_err(), "{json}");
        assert!(resolved(&schema, &other, &huge).is_err(), "{json}");
    }
    // A thousand nulls in two bytes are still taken; not again and again.
    let nulls = schema(r#"{"name": "a", "type": {"type": "array", "items": {"type": "array", "items": "null"}}}"#);
    assert!(read(&nulls, &[2, 0xd0, 0x0f, 0, 0]).is_ok());
    let many = [&[0xd0, 0x0f][..], &[0xd0, 0x0f, 0].repeat(1000), &[0]].concat();
    assert!(read(&nulls, &many).unwrap_err().contains("more items than the"));
}

#[test]
fn records_that_double_at_each_level_end_at_once() {
    let mut types = String::from(r#"{"type": "record", "name": "R0", "fields": []}"#);
    for level in 1..24 {
        let below = level - 1;
        let first = std::mem::take(&mut types);
        types = format!(
            r#"{{"type": "record", "name": "R{level}", "fields": [{{"name": "a", "type": {first}, "default": {{}}}},
                {{"name": "b", "type": "R{below}", "default": {{}}}}]}}"#
        );
    }
    let doubling = schema(&format!(r#"{{"name": "a", "type": {types}, "default": {{}}}}"#));
    assert!(read(&doubling, &[]).unwrap_err().contains("more records than"));
    let other = schema(r#"{"name": "n", "type": "int", "default": 1}"#);
    assert!(resolved(&doubling, &other, &[]).unwrap_err().contains("more records than"));
    assert!(resolved(&other, &doubling, &[2]).unwrap_err().contains("it is too large"));
}

#[test]
fn schemas_too_large_to_compare_are_refused() {
    let records = |prefix: &str| {
        let records = (0..1500).map(|n| {
            format!(r#"{{"type": "record", "name": "{prefix}{n}", "fields": [{{"name": "{prefix}", "type": "int"}}]}}"#)
        });
        schema(&format!(r#"{{"name": "a", "type": [{}]}}"#, records.collect::<Vec<_>>().join(",")))
    };
    let found = resolved(&records("a"), &records("b"), &[0, 2]).unwrap_err();
    assert!(found.contains("too large to be compared") || found.contains("cannot be read as any of"), "{found}");
}

#[test]
fn a_batch_is_full_by_what_it_holds_and_not_by_what_came() {
    let long = "x".repeat((1 << 20) - 10);
    let reader = schema(&format!(r#"{{"name": "a", "type": "string", "default": "{long}"}}"#));
    let mut decoder = decoder_of(&reader, &[], Framing::Confluent);
    decoder.add_writer(1, &parsed(&schema("")));
    while !decoder.is_full() {
        decoder.append(&framed(1, &[])).unwrap();
    }
    assert_eq!(decoder.len(), 17);
}

#[test]
fn after_a_malformed_message_the_rows_are_whole() {
    let two = schema(r#"{"name": "a", "type": "int"}, {"name": "b", "type": {"type": "array", "items": "string"}}"#);
    let mut decoder = decoder_of(&two, &[], Framing::Plain);
    for number in 0..100u8 {
        decoder.append(&[number * 2 % 128, 2, 2, b'x', 0]).unwrap();
        for bad in [&[2][..], &[2, 2, 2, b'x'], &[2, 2, 2, 0xff, 0], &[2, 4, 2, b'x', 0], &[2, 0, 0]] {
            assert!(matches!(decoder.append(bad), Err(MessageFailure::Malformed(_))), "{bad:?}");
        }
    }
    assert_eq!(decoder.len(), 100);
    let batch = decoder.finish().unwrap();
    assert_eq!((batch.num_rows(), decoder.len()), (100, 0));
    assert!(batch.columns().iter().all(|column| column.null_count() == 0));
}

#[test]
fn writers_beyond_the_limit_are_asked_for_again() {
    let plain = schema(r#"{"name": "a", "type": "int"}"#);
    let mut decoder = decoder_of(&plain, &[], Framing::Confluent);
    let writer = parsed(&plain);
    (0..=MAX_WRITERS as u32).for_each(|id| decoder.add_writer(id, &writer));
    assert_eq!(decoder.append(&framed(0, &[2])), Err(MessageFailure::UnknownSchema(0)));
    decoder.append(&framed(MAX_WRITERS as u32, &[2])).unwrap();
}

/// Everything at once: a record that holds itself, unions, maps, all scalars.
fn everything() -> String {
    schema(
        r#"{"name": "a", "type": ["null", "string", {"type": "array", "items": "R"}, {"type": "map", "values": "R"}]},
           {"name": "b", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}]},
           {"name": "c", "type": {"type": "array", "items": {"type": "string", "logicalType": "uuid"}}},
           {"name": "d", "type": {"type": "long", "logicalType": "timestamp-millis"}},
           {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
           {"name": "f", "type": ["null", "float", "boolean"]},
           {"name": "g", "type": {"type": "array", "items": "null"}}"#,
    )
}

#[test]
fn any_bytes_are_read_or_refused() {
    let everything = everything();
    let narrow = schema(r#"{"name": "d", "type": {"type": "long", "logicalType": "timestamp-micros"}}"#);
    let mut whole = decoder_of(&everything, &[], Framing::Plain);
    let mut picked = decoder_of(&narrow, &[], Framing::Confluent);
    picked.add_writer(0, &parsed(&everything));
    let valid = [0, 0, 0, 2, 0, 0, 0].to_vec();
    whole.append(&valid).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut read = 0;
    for round in 0..20_000u32 {
        let mut message = vec![0; (random.next_u32() % 64) as usize];
        random.fill_bytes(&mut message);
        // Small numbers choose branches that exist, and lengths that fit.
        if round % 2 == 0 {
            message.iter_mut().for_each(|byte| *byte %= 8);
        }
        let (next, result) = whole.append_first(&message);
        if let (Some(next), Ok(())) = (next, result) {
            whole.append(&message[..next]).unwrap();
        }
        // As many zeros as the values still need.
        for _ in 0..8 {
            message.push(0);
            read += usize::from(whole.append(&message).is_ok());
            let _ = picked.append(&framed(0, &message));
        }
        if whole.is_full() {
            whole.finish().unwrap();
        }
    }
    assert!(read > 100, "only {read} messages were read");
    whole.finish().unwrap();
    picked.finish().unwrap();
}

#[test]
fn any_change_of_a_schema_is_read_or_refused() {
    let text = everything();
    let words = ["\"", "{", "}", "[", "]", "int", "R", "null", "-1", "1e99", "\"size\": 3,", "record", "", "fixed"];
    let mut random = StdRng::seed_from_u64(7);
    let mut parsed = 0;
    for _ in 0..5000 {
        let mut changed = text.clone();
        for _ in 0..=random.next_u32() % 2 {
            let at = random.next_u32() as usize % changed.len();
            let until = (at + random.next_u32() as usize % 8).min(changed.len());
            changed.replace_range(at..until, words[random.next_u32() as usize % words.len()]);
        }
        if let Ok(schema) = AvroSchema::parse(&changed) {
            parsed += 1;
            let _ = schema.columns().map(|columns| {
                let schema_of = Arc::new(Schema::new(columns));
                let mut decoder = AvroDecoder::try_new(&schema_of, Arc::new(schema), &[], Framing::Confluent).unwrap();
                decoder.add_writer(0, &super::AvroSchema::parse(&text).unwrap());
                let _ = decoder.append(&framed(0, &[0, 0, 0, 2, 0, 0, 0]));
            });
        }
    }
    assert!(parsed > 100, "only {parsed} schemas were read");
}
