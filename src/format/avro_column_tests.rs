use super::*;

fn schema(fields: &str) -> AvroSchema {
    AvroSchema::parse(&format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)).unwrap()
}

fn column_of(json: &str) -> Result<String> {
    let columns = schema(&format!(r#"{{"name": "a", "type": {json}}}"#)).columns()?;
    let null = if columns[0].is_nullable() { "" } else { " not null" };
    Ok(format!("{}{null}", PgType::of_field(&columns[0])?))
}

#[test]
fn each_type_of_avro_has_its_column() {
    for (json, expected) in [
        (r#""boolean""#, "boolean not null"),
        (r#""int""#, "integer not null"),
        (r#""long""#, "bigint not null"),
        (r#""float""#, "real not null"),
        (r#""double""#, "double precision not null"),
        (r#""bytes""#, "bytea not null"),
        (r#""string""#, "text not null"),
        (r#""null""#, "text"),
        (r#"["null", "long"]"#, "bigint"),
        (r#"["long", "null"]"#, "bigint"),
        (r#"["long"]"#, "bigint not null"),
        (r#"["null", "long", "string"]"#, "jsonb"),
        (r#"["long", "string"]"#, "jsonb not null"),
        (r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#, "text not null"),
        (r#"{"type": "fixed", "name": "F", "size": 3}"#, "bytea not null"),
        (r#"{"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}"#, "uuid not null"),
        (r#"{"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}"#, "interval not null"),
        (r#"{"type": "string", "logicalType": "uuid"}"#, "uuid not null"),
        (r#"{"type": "bytes", "logicalType": "decimal", "precision": 76, "scale": 2}"#, "numeric(76,2) not null"),
        (r#"{"type": "int", "logicalType": "date"}"#, "date not null"),
        (r#"{"type": "int", "logicalType": "time-millis"}"#, "time without time zone not null"),
        (r#"{"type": "long", "logicalType": "time-micros"}"#, "time without time zone not null"),
        (r#"{"type": "long", "logicalType": "timestamp-millis"}"#, "timestamp with time zone not null"),
        (r#"{"type": "long", "logicalType": "local-timestamp-micros"}"#, "timestamp without time zone not null"),
        (r#"{"type": "array", "items": "int"}"#, "integer[] not null"),
        (r#"{"type": "array", "items": ["null", "int"]}"#, "integer[] not null"),
        (r#"{"type": "array", "items": ["string", "int"]}"#, "jsonb not null"),
        (r#"{"type": "array", "items": {"type": "array", "items": "int"}}"#, "jsonb not null"),
        (r#"{"type": "map", "values": "int"}"#, "jsonb not null"),
        (r#"["null", {"type": "record", "name": "S", "fields": []}]"#, "jsonb"),
        (r#"["null", "R"]"#, "jsonb"),
    ] {
        assert_eq!(column_of(json).unwrap(), expected, "{json}");
    }
}

#[test]
fn what_no_type_holds_is_refused_with_its_reason() {
    for (json, expected) in [
        (
            r#"{"type": "bytes", "logicalType": "decimal", "precision": 77}"#,
            "bytes (decimal(77,0)), which cannot be read: numeric has at most 76 digits",
        ),
        (
            r#"{"type": "bytes", "logicalType": "big-decimal"}"#,
            "bytes (big-decimal), which cannot be read: its values have no common scale",
        ),
        (
            r#"["null", {"type": "long", "logicalType": "timestamp-nanos"}]"#,
            "long (timestamp-nanos), which cannot be read: timestamps have microseconds, and nothing is rounded",
        ),
        (
            r#"{"type": "map", "values": {"type": "long", "logicalType": "local-timestamp-nanos"}}"#,
            "map, which cannot be read: in it is the type long (local-timestamp-nanos): timestamps have microseconds, \
             and nothing is rounded",
        ),
    ] {
        let error = column_of(json).unwrap_err();
        assert_eq!(error.message(), format!("column \"a\" has the Avro type {expected}"), "{json}");
        assert_eq!(error.code(), Code::FeatureNotSupported);
    }
}

fn declared(path: Option<&str>, pg_type: Option<&str>) -> AvroColumn {
    AvroColumn {
        name: "c".to_string(),
        path: path.map(|path| path.parse().unwrap()),
        pg_type: pg_type.map(|name| PgType::parse(name).unwrap()),
        nullable: true,
    }
}

const NESTED: &str = r#"{"name": "c", "type": "int"}, {"name": "price", "type":
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}, {"name": "tags", "type":
    {"type": "array", "items": "int"}}, {"name": "customer", "type": ["null", {"type": "record", "name": "C", "fields":
    [{"name": "id", "type": "long"}]}]}, {"name": "ratio", "type": "float"}"#;

#[test]
fn declared_columns_pick_widen_and_rename() {
    let schema = schema(NESTED);
    for (path, pg_type, expected) in [
        (None, None, "integer"),
        (None, Some("bigint"), "bigint"),
        (None, Some("numeric"), "numeric(38,18)"),
        (None, Some("double precision"), "double precision"),
        (Some("$.ratio"), Some("double precision"), "double precision"),
        (Some("$.customer.id"), None, "bigint"),
        (Some("$.customer.id"), Some("numeric(19,0)"), "numeric(19,0)"),
        (Some("$.customer"), None, "jsonb"),
        (Some("$.customer"), Some("json"), "json"),
        (Some("$"), None, "jsonb"),
        (Some("$.price"), Some("numeric(40,4)"), "numeric(40,4)"),
        (Some("$.tags"), Some("bigint[]"), "bigint[]"),
    ] {
        let columns = schema.columns_of(&[declared(path, pg_type)]).unwrap();
        assert_eq!((columns[0].name().as_str(), columns[0].is_nullable()), ("c", true));
        assert_eq!(PgType::of_field(&columns[0]).unwrap().to_string(), expected, "{path:?} {pg_type:?}");
    }
    assert!(schema.place_of(&declared(Some("$.customer.id"), None)).unwrap().nullable);
    assert!(!schema.place_of(&declared(Some("$.ratio"), None)).unwrap().nullable);
}

#[test]
fn a_type_that_does_not_hold_all_values_is_refused() {
    let schema = schema(NESTED);
    for (path, pg_type) in [
        (None, "smallint"),
        (None, "text"),
        (None, "real"),
        (None, "numeric(9,0)"),
        (Some("$.customer.id"), "integer"),
        (Some("$.customer.id"), "double precision"),
        (Some("$.customer.id"), "numeric(20,2)"),
        (Some("$.customer"), "text"),
        (Some("$.price"), "numeric(9,1)"),
        (Some("$.price"), "numeric(9,3)"),
        (Some("$.tags"), "integer"),
        (Some("$.tags"), "text[]"),
    ] {
        let error = schema.columns_of(&[declared(path, Some(pg_type))]).unwrap_err();
        assert_eq!(error.code(), Code::DatatypeMismatch, "{path:?} {pg_type}");
    }
    let error = schema.columns_of(&[declared(None, Some("text"))]).unwrap_err();
    assert_eq!(error.message(), "column \"c\" is of type integer in Avro, of which text does not hold all values");
    assert_eq!(error.hint(), Some("Declare it as integer, and cast it in queries."));
}

#[test]
fn a_path_that_leads_nowhere_is_refused() {
    let schema = schema(NESTED);
    for (path, detail) in [
        ("$.custmer", "Record \"R\" has no field \"custmer\". Perhaps you meant \"customer\"."),
        ("$.customer.name", "Record \"C\" has no field \"name\"."),
        ("$.c.x", "\"x\" would be in a value of type int, which is no record."),
        ("$.tags[0]", "A path in Avro leads through records alone."),
    ] {
        let error = schema.columns_of(&[declared(Some(path), None)]).unwrap_err();
        assert_eq!(error.message(), format!("column \"c\": {path} leads nowhere in record \"R\""));
        assert_eq!((error.detail(), error.code()), (Some(detail), Code::UndefinedColumn), "{path}");
    }
}
