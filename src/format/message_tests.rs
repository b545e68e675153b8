use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::util::pretty::pretty_format_batches;

use super::*;

fn schema(columns: &[(&str, &str, bool)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, pg_type, nullable)| PgType::parse(pg_type).unwrap().field(name, *nullable));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The rows of messages, and the reasons against those that have none.
fn read(format: &MessageFormat, schema: &SchemaRef, messages: &[Option<&[u8]>]) -> (Vec<String>, Vec<String>) {
    let mut decoder = MessageDecoder::try_new(format, schema).unwrap();
    let appended = messages.iter().map(|message| decoder.append(*message));
    let reasons = appended.filter_map(|appended| match appended {
        Ok(_) => None,
        Err(MessageFailure::Malformed(error)) => Some(error.message),
        Err(MessageFailure::UnknownSchema(id)) => Some(format!("schema {id}")),
    });
    let reasons = reasons.collect();
    let shown = pretty_format_batches(&[decoder.finish().unwrap()]).unwrap().to_string();
    assert!(decoder.is_empty());
    let cells =
        |line: &str| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" ");
    (shown.lines().skip(3).filter(|line| line.starts_with('|')).map(cells).collect(), reasons)
}

#[test]
fn json_columns_stand_where_their_paths_lead() {
    let schema = schema(&[("id", "bigint", false), ("city", "text", true)]);
    let format = MessageFormat::Json { paths: vec![JsonPath::member("id"), "$.to.city".parse().unwrap()] };
    let messages: [Option<&[u8]>; 6] = [
        Some(br#"{"to": {"city": "Bonn", "zip": 1}, "id": 9223372036854775807}"#),
        None,
        Some(b""),
        Some(b"{\"id\": \xff}"),
        Some(br#"{"id": 9223372036854775808}"#),
        Some(br#"{"to": {"city": "Ulm"}}"#),
    ];
    let (rows, reasons) = read(&format, &schema, &messages);
    assert_eq!(rows, ["9223372036854775807 Bonn"]);
    let expected = [
        "the message has no value (a tombstone)",
        "expected a JSON object, found \"\"",
        "invalid byte sequence for encoding \"UTF8\": 0xff",
        "column \"id\": value \"9223372036854775808\" is out of range for type bigint",
        "null value in column \"id\" violates not-null constraint",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn a_message_of_csv_is_one_record_in_the_order_of_the_columns() {
    let schema = schema(&[("id", "bigint", false), ("note", "text", true)]);
    let messages: [Option<&[u8]>; 8] = [
        Some(b"1,one\r\n"),
        Some(b"2,"),
        Some(b"3,\"a\nb\""),
        Some(b"4"),
        Some(b"5,five,more"),
        Some(b"6,six\n7,seven"),
        Some(b"\n"),
        Some(b"8,\"open"),
    ];
    let (rows, reasons) = read(&MessageFormat::Csv, &schema, &messages);
    assert_eq!(rows[..2], ["1 one", "2"]);
    assert!(rows[2].starts_with("3 a"), "{rows:?}");
    let expected = [
        "expected 2 fields, found 1",
        "expected 2 fields, found 3",
        "the message has more than one line",
        "the message is empty",
        "unterminated CSV quoted field",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn a_raw_message_is_its_one_column() {
    let text = schema(&[("line", "text", true)]);
    let messages: [Option<&[u8]>; 4] = [Some(b"any {thing"), None, Some(b"\xff\x00"), Some(b"a\x00b")];
    let (rows, reasons) = read(&MessageFormat::Raw, &text, &messages);
    assert_eq!(rows, ["any {thing", ""]);
    let expected =
        ["invalid byte sequence for encoding \"UTF8\": 0xff", "invalid byte sequence for encoding \"UTF8\": 0x00"];
    assert_eq!(reasons, expected);
    let bytes = schema(&[("bytes", "bytea", false)]);
    let (rows, reasons) = read(&MessageFormat::Raw, &bytes, &messages);
    assert_eq!(rows, ["616e79207b7468696e67", "ff00", "610062"]);
    assert_eq!(reasons, ["null value in column \"bytes\" violates not-null constraint"]);
}

#[test]
fn a_tombstone_behind_a_delete_makes_no_row() {
    let schema = schema(&[("id", "bigint", false)]);
    let paths = vec![JsonPath::member("id")];
    let format = MessageFormat::Debezium { paths, deletes: Deletes::Before, envelope: vec![] };
    let messages: [Option<&[u8]>; 3] =
        [Some(br#"{"op": "d", "before": {"id": 1}}"#), None, Some(br#"{"op": "c", "after": {"id": 2}}"#)];
    assert_eq!(read(&format, &schema, &messages), (vec!["1".to_string(), "2".to_string()], vec![]));
}

#[test]
fn messages_of_avro_are_read_once_their_schema_is_known() {
    let json = r#"{"type": "record", "name": "order", "fields": [{"name": "id", "type": "long"}]}"#;
    let reader = Arc::new(AvroSchema::parse(json).unwrap());
    let schema = Arc::new(Schema::new(reader.columns().unwrap()));
    let format = MessageFormat::Avro { reader: Arc::clone(&reader), columns: vec![], framing: Framing::Confluent };
    let mut decoder = MessageDecoder::try_new(&format, &schema).unwrap();
    let message: &[u8] = &[0, 0, 0, 0, 7, 84];
    assert_eq!(decoder.append(Some(message)), Err(MessageFailure::UnknownSchema(7)));
    decoder.add_writer(7, &reader);
    assert_eq!(decoder.append(Some(message)), Ok(true));
    assert!(decoder.append(None).is_err());
    let shown = pretty_format_batches(&[decoder.finish().unwrap()]).unwrap().to_string();
    assert!(shown.contains("| 42 |"), "{shown}");
}
