use super::*;

fn reason(json: &str) -> String {
    AvroSchema::parse(json).unwrap_err().message().to_string()
}

fn record(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "R", "namespace": "n", "fields": [{fields}]}}"#)
}

#[test]
fn what_is_wrong_with_a_schema_is_said() {
    for (json, expected) in [
        ("{", "it is no JSON: EOF while parsing an object at line 1 column 1"),
        ("\"string\"", "it is no record but of type string"),
        ("7", "7 is no type"),
        ("{}", "a type has no \"type\""),
        ("[]", "a union has no branches"),
        ("[[\"int\"]]", "a union stands directly in a union"),
        ("\"strng\"", "type \"strng\" is used before it is declared"),
        (r#"{"type": "record", "fields": []}"#, "a type has no name"),
        (r#"{"type": "record", "name": "R"}"#, "record \"R\" has no \"fields\""),
        (&record("{}"), "a field of record \"n.R\" has no name"),
        (&record(r#"{"name": "a"}"#), "field \"a\" of record \"n.R\": it has no type"),
        (
            &record(r#"{"name": "a", "type": "int"}, {"name": "a", "type": "int"}"#),
            "field \"a\" of record \"n.R\": it is declared twice",
        ),
        (
            &record(r#"{"name": "a", "type": {"type": "record", "name": "R", "fields": []}}"#),
            "field \"a\" of record \"n.R\": type \"n.R\" is declared twice",
        ),
        (
            &record(r#"{"name": "a", "type": {"type": "fixed", "name": "F", "size": -1}}"#),
            "field \"a\" of record \"n.R\": fixed \"n.F\" has no size that can be read",
        ),
        (
            &record(r#"{"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}}"#),
            "field \"a\" of record \"n.R\": enum \"n.E\" has a default that is none of its symbols",
        ),
        (
            &record(r#"{"name": "a", "type": {"type": "array"}}"#),
            "field \"a\" of record \"n.R\": an array has no \"items\"",
        ),
    ] {
        assert_eq!(reason(json), format!("invalid Avro schema: {expected}"), "{json}");
    }
    let deep = format!("{}\"int\"{}", r#"{"type": "array", "items": "#.repeat(100_000), "}".repeat(100_000));
    assert!(reason(&deep).contains("recursion limit exceeded"));
}

#[test]
fn attributes_that_nobody_knows_are_passed_over() {
    // apache-avro panics on these.
    let inner = r#"{"type": "record", "name": "B", "fields": [], "precision": "x", "symbols": 3, "size": []}"#;
    AvroSchema::parse(&record(&format!(r#"{{"name": "f", "type": {inner}, "default": 5}}"#))).unwrap();
}

#[test]
fn names_are_found_in_their_namespace() {
    let schema = AvroSchema::parse(&record(
        r#"{"name": "a", "type": {"type": "enum", "name": "x.E", "symbols": ["A"], "aliases": ["D", "y.C"]}},
           {"name": "b", "type": "x.E"}, {"name": "c", "type": ["null", "n.R"]}, {"name": "d", "type": ["null", "R"]}"#,
    ))
    .unwrap();
    assert_eq!(schema.name(), "n.R");
    let AvroType::Record(record) = schema.get(schema.root()) else { panic!("no record") };
    assert_eq!(record.fields[0].avro_type, record.fields[1].avro_type);
    let AvroType::Scalar(scalar) = schema.get(record.fields[0].avro_type) else { panic!("no enum") };
    let names = scalar.names.clone().unwrap();
    assert_eq!((names.full.as_str(), names.aliases), ("x.E", vec!["x.D".to_string(), "y.C".to_string()]));
}

#[test]
fn a_schema_may_use_the_names_of_those_that_it_refers_to() {
    let customer = r#"{"type": "record", "name": "shop.Customer", "fields": [{"name": "id", "type": "long"}]}"#;
    let order = r#"{"type": "record", "name": "shop.Order", "fields": [{"name": "by", "type": "Customer"}]}"#;
    assert_eq!(AvroSchema::parse_with_references(order, &[customer]).unwrap().name(), "shop.Order");
    assert!(reason(order).ends_with("type \"Customer\" is used before it is declared"));
    let error = AvroSchema::parse_with_references(order, &["nonsense"]).unwrap_err();
    assert!(error.message().starts_with("invalid Avro schema: a schema that it refers to: it is no JSON"));
}

#[test]
fn logical_types_that_do_not_fit_are_passed_over() {
    for (json, shown) in [
        (r#"{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}"#, "bytes (decimal(9,2))"),
        (r#"{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 10}"#, "bytes"),
        (r#"{"type": "bytes", "logicalType": "decimal"}"#, "bytes"),
        (r#"{"type": "string", "logicalType": "date"}"#, "string"),
        (r#"{"type": "int", "logicalType": "date"}"#, "int (date)"),
        (r#"{"type": "long", "logicalType": "local-timestamp-micros"}"#, "long (local-timestamp-micros)"),
        (r#"{"type": "fixed", "name": "D", "size": 11, "logicalType": "duration"}"#, "fixed of 11 bytes"),
        (r#"{"type": "string", "logicalType": 7}"#, "string"),
    ] {
        let schema = AvroSchema::parse(&record(&format!(r#"{{"name": "a", "type": {json}}}"#))).unwrap();
        let AvroType::Record(record) = schema.get(schema.root()) else { panic!("no record") };
        assert_eq!(schema.describe(record.fields[0].avro_type), shown, "{json}");
    }
}
