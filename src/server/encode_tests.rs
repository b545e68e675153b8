//! Expected texts and bytes were printed by PostgreSQL 15.

use std::sync::Arc;

use datafusion::arrow::array::*;
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{
    DataType, Field, Int32Type, IntervalDayTime, IntervalMonthDayNano, Schema, TimeUnit, i256,
};

use super::*;
use crate::pg_type::UTC;

fn batch(array: ArrayRef, pg_type: Option<&PgType>) -> RecordBatch {
    let mut field = Field::new("c", array.data_type().clone(), true);
    if let Some(pg_type) = pg_type {
        field = field.with_metadata(pg_type.field("c", true).metadata().clone());
    }
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap()
}

/// The values of DataRow messages of one column.
fn fields(mut bytes: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0], b'D');
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        assert_eq!(bytes[5..7], [0, 1]);
        let field = i32::from_be_bytes(bytes[7..11].try_into().unwrap());
        fields.push((field >= 0).then(|| bytes[11..11 + field as usize].to_vec()));
        assert_eq!(length, 10 + field.max(0) as usize);
        bytes = &bytes[1 + length..];
    }
    fields
}

fn encode_in(batch: &RecordBatch, format: Format, time_zone: Tz) -> Result<Vec<Option<Vec<u8>>>> {
    let mut encoder = RowEncoder::try_new(&batch.schema(), &[format])?.with_settings(ValueSettings { time_zone });
    let mut out = BytesMut::new();
    encoder.encode(batch, 0..batch.num_rows(), &mut out)?;
    Ok(fields(&out))
}

fn texts(array: ArrayRef, pg_type: Option<&PgType>) -> Vec<String> {
    let values = encode_in(&batch(array, pg_type), Format::Text, Tz::UTC).unwrap();
    values.into_iter().map(|value| value.map_or("-".into(), |value| String::from_utf8(value).unwrap())).collect()
}

/// In hexadecimal digits.
fn binaries(array: ArrayRef, pg_type: Option<&PgType>) -> Vec<String> {
    let hex = |value: Vec<u8>| value.iter().map(|byte| format!("{byte:02x}")).collect();
    let values = encode_in(&batch(array, pg_type), Format::Binary, Tz::UTC).unwrap();
    values.into_iter().map(|value| value.map_or("-".into(), hex)).collect()
}

#[track_caller]
fn check(array: impl Array + 'static, text: &[&str], binary: &[&str]) {
    let array: ArrayRef = Arc::new(array);
    assert_eq!(texts(array.clone(), None), text);
    assert_eq!(binaries(array, None), binary);
}

#[test]
fn booleans_and_integers() {
    check(BooleanArray::from(vec![Some(true), Some(false), None]), &["t", "f", "-"], &["01", "00", "-"]);
    check(Int8Array::from(vec![-128, 7]), &["-128", "7"], &["ff80", "0007"]);
    check(UInt8Array::from(vec![255]), &["255"], &["00ff"]);
    check(Int16Array::from(vec![i16::MIN]), &["-32768"], &["8000"]);
    check(UInt16Array::from(vec![u16::MAX]), &["65535"], &["0000ffff"]);
    check(Int32Array::from(vec![Some(-1), None]), &["-1", "-"], &["ffffffff", "-"]);
    check(UInt32Array::from(vec![u32::MAX]), &["4294967295"], &["00000000ffffffff"]);
    check(Int64Array::from(vec![i64::MIN]), &["-9223372036854775808"], &["8000000000000000"]);
    check(UInt64Array::from(vec![u64::MAX]), &["18446744073709551615"], &["000500040000000007341a5802e103bb064f"]);
}

#[test]
fn floats_take_the_fewest_digits_that_read_back() {
    let values = [
        (1e14, "100000000000000"),
        (1e15, "1e+15"),
        (123456789012345.0, "123456789012345"),
        (1234567890123456.0, "1.234567890123456e+15"),
        (999999999999999.9, "999999999999999.9"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (-1.5e-7, "-1.5e-07"),
        (1e20, "1e+20"),
        (1e100, "1e+100"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (9007199254740993.0, "9.007199254740992e+15"),
        (0.1, "0.1"),
        (1.1, "1.1"),
        (0.0, "0"),
        (-0.0, "-0"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
        // Half way between two decimals of the same length, of which the even one may be another float's.
        (1.1258999068426242e15, "1.1258999068426242e+15"),
        (2f64.powi(-25), "2.9802322387695312e-08"),
        (2f64.powi(-24), "5.960464477539063e-08"),
    ];
    for (value, text) in values {
        assert_eq!(texts(Arc::new(Float64Array::from(vec![value])), None), [text]);
    }
    let values = [
        (1e5, "100000"),
        (1e6, "1e+06"),
        (123456.0, "123456"),
        (1234567.0, "1.234567e+06"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (1.1, "1.1"),
        (16777216.0, "1.6777216e+07"),
        (f32::MAX, "3.4028235e+38"),
        (1e-45, "1e-45"),
        (999999.9, "999999.9"),
        (33554432.0, "3.3554432e+07"),
        (2f32.powi(-12), "0.00024414062"),
        (-59.476562, "-59.476562"),
    ];
    for (value, text) in values {
        assert_eq!(texts(Arc::new(Float32Array::from(vec![value])), None), [text]);
    }
    assert_eq!(binaries(Arc::new(Float64Array::from(vec![1.5])), None), ["3ff8000000000000"]);
    assert_eq!(binaries(Arc::new(Float32Array::from(vec![1.5])), None), ["3fc00000"]);
}

#[test]
fn numerics_keep_their_scale() {
    let decimal = |values: Vec<i128>, precision, scale| {
        Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()
    };
    check(
        decimal(vec![123456700, -1, 0], 12, 4),
        &["12345.6700", "-0.0001", "0.0000"],
        &["0003000100000004000109291a2c", "0001ffff400000040001", "0000000000000004"],
    );
    check(decimal(vec![-10000], 5, 0), &["-10000"], &["00010001400000000001"]);
    check(decimal(vec![12], 5, 5), &["0.00012"], &["0002ffff00000005000107d0"]);
    check(decimal(vec![1000000005], 10, 1), &["100000000.5"], &["00040002000000010001000000001388"]);
    check(decimal(vec![5, 0], 3, -3), &["5000", "0"], &["00010000000000001388", "0000000000000000"]);
    let wide = i256::from_string("-123456789012345678901234567890123456789012345678901234567").unwrap();
    check(
        Decimal256Array::from(vec![wide, i256::from_i128(5)]).with_precision_and_scale(60, 8).unwrap(),
        &["-1234567890123456789012345678901234567890123456789.01234567", "0.00000005"],
        &["000f000c40000008000109291a85007b11d722c509291a85007b11d722c509291a85007b11d7", "0001fffe000000080005"],
    );
    check(
        Decimal32Array::from(vec![-150]).with_precision_and_scale(9, 2).unwrap(),
        &["-1.50"],
        &["000200004000000200011388"],
    );
    check(
        Decimal64Array::from(vec![150]).with_precision_and_scale(18, 2).unwrap(),
        &["1.50"],
        &["000200000000000200011388"],
    );
}

#[test]
fn text_and_bytes_of_every_arrow_type() {
    let values = vec![Some("é x"), None, Some("")];
    for array in [
        Arc::new(StringArray::from(values.clone())) as ArrayRef,
        Arc::new(LargeStringArray::from(values.clone())),
        Arc::new(StringViewArray::from(values.clone())),
        Arc::new(values.clone().into_iter().collect::<DictionaryArray<Int32Type>>()),
    ] {
        assert_eq!(texts(array.clone(), None), ["é x", "-", ""]);
        assert_eq!(binaries(array, None), ["c3a92078", "-", ""]);
    }
    let values = vec![Some(&b"\x00\xab"[..]), None];
    for array in [
        Arc::new(BinaryArray::from(values.clone())) as ArrayRef,
        Arc::new(LargeBinaryArray::from(values.clone())),
        Arc::new(BinaryViewArray::from(values.clone())),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 2).unwrap()),
    ] {
        assert_eq!(texts(array.clone(), None), ["\\x00ab", "-"]);
        assert_eq!(binaries(array, None), ["00ab", "-"]);
    }
}

#[test]
fn nulls_of_every_kind_are_null() {
    check(NullArray::new(2), &["-", "-"], &["-", "-"]);
    // One NULL is a key, the other one a value of the dictionary.
    let keys = Int32Array::from(vec![Some(1), Some(0), None]);
    let values = Arc::new(StringArray::from(vec![None, Some("a")]));
    check(DictionaryArray::new(keys, values), &["a", "-", "-"], &["61", "-", "-"]);
    let empty = DictionaryArray::new(Int32Array::from(vec![None]), Arc::new(StringArray::from(Vec::<&str>::new())));
    check(empty, &["-"], &["-"]);
}

#[test]
fn types_that_the_metadata_names() {
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let array: ArrayRef = Arc::new(StringViewArray::from(vec![Some(uuid), None]));
    assert_eq!(texts(array.clone(), Some(&PgType::Uuid)), [uuid, "-"]);
    assert_eq!(binaries(array, Some(&PgType::Uuid)), ["a0eebc999c0b4ef8bb6d6bb9bd380a11", "-"]);
    let bytes = uuid::Uuid::try_parse(uuid).unwrap().into_bytes();
    let array: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap());
    assert_eq!(texts(array.clone(), Some(&PgType::Uuid)), [uuid]);
    assert_eq!(binaries(array, Some(&PgType::Uuid)), ["a0eebc999c0b4ef8bb6d6bb9bd380a11"]);

    let json: ArrayRef = Arc::new(StringViewArray::from(vec![r#"{"a": 1}"#]));
    assert_eq!(texts(json.clone(), Some(&PgType::Jsonb)), [r#"{"a": 1}"#]);
    assert_eq!(binaries(json.clone(), Some(&PgType::Jsonb)), ["017b2261223a20317d"]);
    assert_eq!(binaries(json, Some(&PgType::Json)), ["7b2261223a20317d"]);

    let wrong = batch(Arc::new(StringViewArray::from(vec!["no uuid"])), Some(&PgType::Uuid));
    assert_eq!(encode_in(&wrong, Format::Binary, Tz::UTC).unwrap_err().code(), Code::Internal);
}

#[test]
fn dates_and_times() {
    check(
        Date32Array::from(vec![-735160, 3789392, -1]),
        &["0044-03-15 BC", "12345-01-02", "1969-12-31"],
        &["fff49d7b", "0039a783", "ffffd532"],
    );
    check(Date64Array::from(vec![-1]), &["1969-12-31"], &["ffffd532"]);
    check(
        Time32SecondArray::from(vec![3723, 86400]),
        &["01:02:03", "24:00:00"],
        &["00000000dde878c0", "000000141dd76000"],
    );
    check(Time32MillisecondArray::from(vec![3723004]), &["01:02:03.004"], &["00000000dde88860"]);
    check(Time64MicrosecondArray::from(vec![3723000004]), &["01:02:03.000004"], &["00000000dde878c4"]);
    check(Time64NanosecondArray::from(vec![3723000004999]), &["01:02:03.000004"], &["00000000dde878c4"]);
}

#[test]
fn timestamps_of_every_unit() {
    check(
        TimestampMicrosecondArray::from(vec![1709210096789012, -63517780799500000]),
        &["2024-02-29 12:34:56.789012", "0044-03-15 12:00:00.5 BC"],
        &["0002b58341728614", "ff1af9e8fb4e7120"],
    );
    check(
        TimestampSecondArray::from(vec![327403468800]).with_timezone(UTC),
        &["12345-01-02 00:00:00+00"],
        &["0487ceb724d62000"],
    );
    check(TimestampMillisecondArray::from(vec![946684800120]), &["2000-01-01 00:00:00.12"], &["000000000001d4c0"]);
    check(
        TimestampNanosecondArray::from(vec![946684800000001999, -1]),
        &["2000-01-01 00:00:00.000001", "1969-12-31 23:59:59.999999"],
        &["0000000000000001", "fffca2fec4c81fff"],
    );
    let overflow = batch(Arc::new(TimestampSecondArray::from(vec![0, i64::MAX])), None);
    let error = encode_in(&overflow, Format::Text, Tz::UTC).unwrap_err();
    assert_eq!((error.sqlstate(), error.message()), ("22008", "timestamp out of range"));
    let overflow = batch(Arc::new(Date32Array::from(vec![i32::MIN])), None);
    assert_eq!(encode_in(&overflow, Format::Binary, Tz::UTC).unwrap_err().message(), "date out of range");
}

#[test]
fn timestamptz_follows_the_time_zone_of_the_session() {
    let cases = [
        (Tz::Asia__Kolkata, 1709210096789000, "2024-02-29 18:04:56.789+05:30"),
        (Tz::Asia__Kolkata, -2208988800000000, "1900-01-01 05:21:10+05:21:10"),
        (Tz::America__New_York, 1719792000000000, "2024-06-30 20:00:00-04"),
        (Tz::America__New_York, -5364662400000000, "1799-12-31 19:03:58-04:56:02"),
        (Tz::Asia__Kathmandu, 1719792000000000, "2024-07-01 05:45:00+05:45"),
        // Beyond the years that chrono knows.
        (Tz::Asia__Kolkata, 9214646400000000000, "293970-07-10 05:30:00+05:30"),
    ];
    for (zone, micros, text) in cases {
        let batch = batch(Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone(UTC)), None);
        assert_eq!(encode_in(&batch, Format::Text, zone).unwrap(), [Some(text.as_bytes().to_vec())]);
    }
}

#[test]
fn intervals_in_the_style_of_postgres() {
    let of = |months: i32, days: i32, micros: i64| IntervalMonthDayNano::new(months, days, micros * 1000);
    let cases = [
        (of(12, 0, 0), "1 year"),
        (of(14, 3, 14706789000), "1 year 2 mons 3 days 04:05:06.789"),
        (of(-12, 0, 0), "-1 years"),
        (of(0, 0, 0), "00:00:00"),
        (of(0, -1, 7200000000), "-1 days +02:00:00"),
        (of(1, -1, 0), "1 mon -1 days"),
        (of(-1, -2, -1), "-1 mons -2 days -00:00:00.000001"),
        (of(0, 1, -1000000), "1 day -00:00:01"),
        (of(-14, 1, 0), "-1 years -2 mons +1 day"),
        (of(0, 0, 360000500000), "100:00:00.5"),
        (of(-11, 2, -10800000000), "-11 mons +2 days -03:00:00"),
        (of(0, 0, 3600000000000000), "1000000:00:00"),
    ];
    for (value, text) in cases {
        assert_eq!(texts(Arc::new(IntervalMonthDayNanoArray::from(vec![value])), None), [text]);
    }
    let binary = binaries(Arc::new(IntervalMonthDayNanoArray::from(vec![of(-14, 3, -14706000007)])), None);
    assert_eq!(binary, ["fffffffc93743f7900000003fffffff2"]);
    check(IntervalYearMonthArray::from(vec![14]), &["1 year 2 mons"], &["0000000000000000000000000000000e"]);
    check(
        IntervalDayTimeArray::from(vec![IntervalDayTime::new(1, 1)]),
        &["1 day 00:00:00.001"],
        &["00000000000003e80000000100000000"],
    );
    check(DurationSecondArray::from(vec![90]), &["00:01:30"], &["00000000055d4a800000000000000000"]);
    check(DurationMillisecondArray::from(vec![1]), &["00:00:00.001"], &["00000000000003e80000000000000000"]);
    check(DurationMicrosecondArray::from(vec![-1]), &["-00:00:00.000001"], &["ffffffffffffffff0000000000000000"]);
    check(DurationNanosecondArray::from(vec![1000]), &["00:00:00.000001"], &["00000000000000010000000000000000"]);
}

#[test]
fn arrays_quote_what_postgres_quotes() {
    let texts_of = StringArray::from(vec![
        Some("a b"),
        None,
        Some(""),
        Some("null"),
        Some("NULL"),
        Some("a\"b"),
        Some("a\\b"),
        Some("{x}"),
        Some("x,y"),
        Some("plain"),
        Some("tab\t"),
        Some("é"),
        Some(" x"),
    ]);
    let field = Arc::new(Field::new("item", DataType::Utf8, true));
    let offsets = OffsetBuffer::from_lengths([13]);
    check(
        ListArray::new(field.clone(), offsets, Arc::new(texts_of), None),
        &[r#"{"a b",NULL,"","null","NULL","a\"b","a\\b","{x}","x,y",plain,"tab	",é," x"}"#],
        &[concat!(
            "00000001000000010000001900",
            "00000d00000001",
            "00000003612062",
            "ffffffff",
            "00000000",
            "000000046e756c6c",
            "000000044e554c4c",
            "00000003612262",
            "00000003615c62",
            "000000037b787d",
            "00000003782c79",
            "00000005706c61696e",
            "0000000474616209",
            "00000002c3a9",
            "000000022078"
        )],
    );
    let bytes = BinaryArray::from(vec![&b"\x00"[..], b"\xde\xad"]);
    let item = Arc::new(Field::new("item", DataType::Binary, true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([2]), Arc::new(bytes), None);
    assert_eq!(texts(Arc::new(list), None), [r#"{"\\x00","\\xdead"}"#]);
}

#[test]
fn arrays_of_every_arrow_type_and_element() {
    let values = vec![Some(vec![Some(1), None, Some(3)]), None, Some(vec![])];
    let binary = [
        "00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003",
        "-",
        "000000000000000000000017",
    ];
    check(ListArray::from_iter_primitive::<Int32Type, _, _>(values.clone()), &["{1,NULL,3}", "-", "{}"], &binary);
    check(LargeListArray::from_iter_primitive::<Int32Type, _, _>(values), &["{1,NULL,3}", "-", "{}"], &binary);
    let fixed = vec![Some(vec![Some(9), Some(9)]), Some(vec![Some(1), None])];
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(fixed, 2).slice(1, 1);
    check(fixed, &["{1,NULL}"], &["00000001000000010000001700000002000000010000000400000001ffffffff"]);

    let list = |values: ArrayRef, element: PgType| {
        let field = Arc::new(element.field("item", true));
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([values.len()]), values, None)) as ArrayRef
    };
    let uuids = list(Arc::new(StringViewArray::from(vec!["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"])), PgType::Uuid);
    let uuid = "000000010000000000000b86000000010000000100000010a0eebc999c0b4ef8bb6d6bb9bd380a11";
    assert_eq!(binaries(uuids, None), [uuid]);
    let jsons = list(Arc::new(StringViewArray::from(vec![r#"{"a": 1}"#])), PgType::Jsonb);
    assert_eq!(texts(jsons, None), [r#"{"{\"a\": 1}"}"#]);
    let booleans = list(Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])), PgType::Bool);
    assert_eq!(texts(booleans, None), ["{t,f,NULL}"]);
    let times = list(Arc::new(TimestampMicrosecondArray::from(vec![1704067200000000])), PgType::Timestamp);
    assert_eq!(texts(times, None), [r#"{"2024-01-01 00:00:00"}"#]);
    let numerics = Decimal128Array::from(vec![Some(150), None]).with_precision_and_scale(5, 2).unwrap();
    let numerics = list(Arc::new(numerics), PgType::Numeric { precision: 5, scale: 2 });
    assert_eq!(texts(numerics.clone(), None), ["{1.50,NULL}"]);
    let binary = "0000000100000001000006a400000002000000010000000c000200000000000200011388ffffffff";
    assert_eq!(binaries(numerics, None), [binary]);
}

#[test]
fn rows_in_the_middle_of_sliced_columns() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>((0..9).map(|n| Some(vec![Some(n), Some(n + 1)])));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("number", Arc::new(Int64Array::from_iter((0..9).map(|n| (n % 2 == 0).then_some(n))))),
        ("text", Arc::new(StringViewArray::from_iter_values((0..9).map(|n| format!("row {n}"))))),
        ("list", Arc::new(list)),
        ("flag", Arc::new(BooleanArray::from_iter((0..9).map(|n| Some(n == 4))))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let batch = batch.slice(2, 6);
    let formats = [Format::Text, Format::Text, Format::Text, Format::Binary];
    let mut encoder = RowEncoder::try_new(&batch.schema(), &formats).unwrap();
    let mut out = BytesMut::new();
    encoder.encode(&batch, 2..4, &mut out).unwrap();
    let expected = [
        &b"D\0\0\0\x22\0\x04\0\0\0\x014\0\0\0\x05row 4\0\0\0\x05{4,5}\0\0\0\x01\x01"[..],
        b"D\0\0\0\x21\0\x04\xff\xff\xff\xff\0\0\0\x05row 5\0\0\0\x05{5,6}\0\0\0\x01\0",
    ];
    assert_eq!(out, expected.concat());
    assert_eq!(encoder.encode(&batch, 5..7, &mut out).unwrap_err().code(), Code::Internal);
}

#[test]
fn an_error_leaves_whole_messages_behind() {
    let batch = batch(Arc::new(TimestampSecondArray::from(vec![0, i64::MAX])), None);
    let mut encoder = RowEncoder::try_new(&batch.schema(), &[Format::Text]).unwrap();
    let mut out = BytesMut::new();
    encoder.encode(&batch, 0..2, &mut out).unwrap_err();
    assert_eq!(fields(&out), [Some(b"1970-01-01 00:00:00".to_vec())]);
}

#[test]
fn row_description_tells_types_and_modifiers() {
    let schema = Arc::new(Schema::new(vec![
        PgType::Numeric { precision: 12, scale: 2 }.field("a", true),
        PgType::Text.field("b", true),
        PgType::Int4.field("c", true),
    ]));
    let mut out = BytesMut::new();
    row_description(&schema, &[Format::Text, Format::Binary, Format::Text], &mut out).unwrap();
    let expected = [
        &b"T\0\0\0\x42\0\x03"[..],
        b"a\0\0\0\0\0\0\0\0\0\x06\xa4\xff\xff\0\x0c\0\x06\0\0",
        b"b\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01",
        b"c\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
    ];
    assert_eq!(out, expected.concat());
    assert_eq!(type_modifier(&PgType::Numeric { precision: 5, scale: -2 }), 329730);

    let schema = Arc::new(Schema::new(vec![Field::new(
        "nested",
        DataType::Struct(vec![Field::new("x", DataType::Timestamp(TimeUnit::Second, None), true)].into()),
        true,
    )]));
    let error = row_description(&schema, &[Format::Text], &mut BytesMut::new()).unwrap_err();
    assert_eq!(error.sqlstate(), "0A000");
    assert!(error.message().starts_with("column \"nested\" has the type"), "{error}");
}

#[test]
fn formats_are_none_one_or_one_each() {
    use Format::{Binary, Text};
    assert_eq!(Format::expand(&[], 2).unwrap(), [Text, Text]);
    assert_eq!(Format::expand(&[1], 2).unwrap(), [Binary, Binary]);
    assert_eq!(Format::expand(&[0, 1], 2).unwrap(), [Text, Binary]);
    let error = Format::expand(&[0, 1], 3).unwrap_err();
    assert_eq!(
        (error.sqlstate(), error.message()),
        ("08P01", "bind message has 2 result formats but query has 3 columns")
    );
    assert_eq!(Format::expand(&[2], 1).unwrap_err().sqlstate(), "22023");
}

/// Each value by itself, as arrays and printed tables have it, against whole rows.
#[test]
fn runs_of_rows_have_the_bytes_of_single_values() {
    use datafusion::arrow::array::{Date32Array, Decimal128Array, FixedSizeBinaryArray, Time64MicrosecondArray};
    use datafusion::arrow::array::{Int16Array, Int32Array, TimestampMicrosecondArray, TimestampNanosecondArray};
    use rand::{Rng, SeedableRng, rngs::StdRng};

    let mut random = StdRng::seed_from_u64(7);
    let count = 700;
    let wide = |random: &mut StdRng| -> Option<i128> {
        let bits = random.random_range(0..127);
        random
            .random_bool(0.9)
            .then(|| (random.random::<i128>() >> bits).clamp(-10_i128.pow(38) + 1, 10_i128.pow(38) - 1))
    };
    let mut numbers: Vec<Option<i128>> = (0..count).map(|_| wide(&mut random)).collect();
    numbers.extend([0, 1, -1, 10_000, 9_999, 99_990_000, 10_i128.pow(37), -10_i128.pow(38) + 1].map(Some));
    let count = numbers.len();
    let long = || numbers.iter().map(|n| n.map(|n| n as i64));
    // Two million years on both sides of our time, and days in a row.
    let micros = || {
        numbers.iter().enumerate().map(|(row, n)| {
            n.map(|n| if row % 3 == 0 { n as i64 % 60_000_000_000_000_000 } else { row as i64 * 7_654_321_000 })
        })
    };
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("bool".into(), Arc::new(BooleanArray::from_iter(numbers.iter().map(|n| n.map(|n| n % 2 == 0))))),
        ("int2".into(), Arc::new(Int16Array::from_iter(numbers.iter().map(|n| n.map(|n| n as i16))))),
        ("int4".into(), Arc::new(Int32Array::from_iter(numbers.iter().map(|n| n.map(|n| n as i32))))),
        ("int8".into(), Arc::new(Int64Array::from_iter(long()))),
        (
            "text".into(),
            Arc::new(StringViewArray::from_iter(numbers.iter().map(|n| n.map(|n| format!("{n}\t\\,\"x\""))))),
        ),
        ("date".into(), Arc::new(Date32Array::from_iter(micros().map(|n| n.map(|n| (n / 86_400_000_000) as i32))))),
        (
            "time".into(),
            Arc::new(Time64MicrosecondArray::from_iter(long().map(|n| n.map(|n| n.rem_euclid(86_400_000_001))))),
        ),
        ("timestamp".into(), Arc::new(TimestampMicrosecondArray::from_iter(micros()))),
        ("timestamptz".into(), Arc::new(TimestampMicrosecondArray::from_iter(micros()).with_timezone("UTC"))),
        ("nanos".into(), Arc::new(TimestampNanosecondArray::from_iter(long()))),
    ];
    for scale in [0, 1, 2, 3, 4, 7, 18, 19, 37, 38] {
        let decimals = Decimal128Array::from_iter(numbers.iter().copied()).with_precision_and_scale(38, scale).unwrap();
        columns.push((format!("numeric{scale}"), Arc::new(decimals)));
    }
    let uuids = numbers.iter().map(|n| n.map(|n| n.to_be_bytes()));
    columns.push(("uuid".into(), Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, 16).unwrap())));
    for (name, column) in columns {
        for format in [Format::Text, Format::Binary] {
            let batch = batch(Arc::clone(&column), None);
            let pg_type = PgType::of_field(batch.schema().field(0)).unwrap();
            let writer = ColumnWriter::try_new(column.as_ref(), &pg_type, format, ValueSettings::default()).unwrap();
            let single = (0..count).map(|row| {
                let mut out = BytesMut::new();
                (!writer.is_null(row)).then(|| writer.write(row, &mut out).unwrap()).map(|()| out.to_vec())
            });
            let expected: Vec<_> = single.collect();
            let rows = encode_in(&batch, format, Tz::UTC).unwrap();
            for (row, (found, expected)) in rows.iter().zip(&expected).enumerate() {
                assert_eq!(found, expected, "{name} {format:?} row {row}");
            }
        }
    }
}

#[test]
fn rows_are_given_in_portions_of_bounded_size() {
    let text = "x".repeat(300_000);
    let batch = batch(Arc::new(StringViewArray::from_iter_values((0..40).map(|_| text.as_str()))), None);
    let mut encoder = RowEncoder::try_new(&batch.schema(), &[Format::Text]).unwrap();
    let (mut first, mut rows) = (0, vec![]);
    while first < 40 {
        let mut out = BytesMut::new();
        let count = encoder.encode_some(&batch, first..40, 64 << 10, &mut out).unwrap();
        assert!(count > 0 && out.len() <= 5 * 300_020, "{count} rows, {} bytes", out.len());
        rows.extend(fields(&out));
        first += count;
    }
    assert!(rows.len() == 40 && rows.iter().all(|row| row.as_deref() == Some(text.as_bytes())));
}
