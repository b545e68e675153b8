use std::sync::atomic::{AtomicU64, Ordering};

use apache_avro::Writer;
use apache_avro::types::Value as Written;
use bytes::Bytes;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Int32Type, Int64Type};

use super::*;
use crate::format::{FileFormat, FileRows, OnMalformed, file_schema, read_bytes, read_rows, schema_of_bytes};
use crate::pg_type::PgType;

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "id", "type": "int"},
    {"name": "name", "type": ["null", "string"]}]}"#;

fn row(id: i32, name: Option<&str>) -> Written {
    let name = match name {
        Some(name) => Written::Union(1, Box::new(Written::String(name.to_string()))),
        None => Written::Union(0, Box::new(Written::Null)),
    };
    Written::Record(vec![("id".to_string(), Written::Int(id)), ("name".to_string(), name)])
}

/// A file of blocks, as apache-avro writes it.
fn file(codec: Codec, blocks: &[&[Written]]) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(SCHEMA).unwrap();
    let mut writer = Writer::with_codec(&schema, Vec::new(), codec).unwrap();
    for block in blocks {
        for row in *block {
            writer.append_value(row.clone()).unwrap();
        }
        writer.flush().unwrap();
    }
    writer.into_inner().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<RecordBatch>> {
    let bytes = Bytes::copy_from_slice(bytes);
    let schema = schema_of_bytes("f", bytes.clone(), FileFormat::Avro)?;
    read_bytes("t", "f", bytes, FileFormat::Avro, &schema)
}

/// The ids that are read, and how many rows and blocks were left out.
fn skipping(bytes: &[u8]) -> (Result<Vec<i32>>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.avro");
    std::fs::write(&path, bytes).unwrap();
    let (skipped, mut ids) = (AtomicU64::new(0), Vec::new());
    let mut send = |batch: RecordBatch| {
        ids.extend(batch.column(0).as_primitive::<Int32Type>().values());
        true
    };
    let schema = file_schema(&path, FileFormat::Avro).unwrap();
    let read = read_rows("t", &path, &FileRows::Avro, &schema, OnMalformed::Skip, &skipped, &mut send);
    (read.map(|()| ids), skipped.load(Ordering::Relaxed))
}

fn message(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().message().to_string()
}

#[test]
fn files_of_every_codec_are_read() {
    let many: Vec<Written> = (0..10_000).map(|id| row(id, Some("some text that repeats"))).collect();
    for codec in [
        Codec::Null,
        Codec::Deflate(DeflateSettings::default()),
        Codec::Snappy,
        Codec::Zstandard(ZstandardSettings::default()),
    ] {
        let bytes = file(codec, &[&many, &[row(-1, None)], &[]]);
        let batches = read(&bytes).unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [8192, 1809], "{codec:?}");
        let last = &batches[1];
        assert_eq!(last.column(0).as_primitive::<Int32Type>().value(1808), -1);
        assert_eq!((last.column(1).null_count(), last.schema().field(0).is_nullable()), (1, false));
    }
    assert!(read(&file(Codec::Null, &[])).unwrap().is_empty());
}

#[test]
fn columns_are_found_by_name_and_the_others_are_null() {
    let bytes = Bytes::from(file(Codec::Null, &[&[row(1, Some("a"))]]));
    let of = |columns: &[(&str, PgType, bool)]| {
        let fields = columns.iter().map(|(name, pg_type, nullable)| pg_type.field(name, *nullable));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        read_bytes("t", "f", bytes.clone(), FileFormat::Avro, &schema)
    };
    let batches = of(&[("none", PgType::Uuid, true), ("id", PgType::Int8, false)]).unwrap();
    assert_eq!(batches[0].column(0).null_count(), 1);
    assert_eq!(batches[0].column(1).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(of(&[("none", PgType::Text, true)]).unwrap()[0].num_rows(), 1);
    assert_eq!(of(&[]).unwrap()[0].num_rows(), 1);
    // A column that cannot be read is in the way of nobody who does not ask for it.
    let nanos = r#"{"type": "record", "name": "R", "fields": [{"name": "id", "type": "int"},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-nanos"}}]}"#;
    let nanos = apache_avro::Schema::parse_str(nanos).unwrap();
    let mut writer = Writer::new(&nanos, Vec::new()).unwrap();
    let row = vec![("id".to_string(), Written::Int(5)), ("t".to_string(), Written::TimestampNanos(1))];
    writer.append_value(Written::Record(row)).unwrap();
    let bytes_of = Bytes::from(writer.into_inner().unwrap());
    let schema = Arc::new(Schema::new(vec![PgType::Int4.field("id", false)]));
    assert_eq!(read_bytes("t", "f", bytes_of, FileFormat::Avro, &schema).unwrap()[0].num_rows(), 1);
    let error = of(&[("none", PgType::Text, false)]).unwrap_err();
    assert_eq!(error.message(), "f has no column \"none\", which is not null");
    let error = of(&[("name", PgType::Int4, true)]).unwrap_err();
    assert_eq!(error.code(), Code::DatatypeMismatch);
    assert!(error.message().starts_with("f: column \"name\" is of type text in Avro"), "{error}");
}

#[test]
fn a_malformed_row_is_told_with_its_place_or_left_out() {
    // Of the second block's rows the first has a text that is none.
    let mut bytes =
        file(Codec::Null, &[&[row(1, Some("a"))], &[row(2, Some("b")), row(3, Some("c"))], &[row(4, None)]]);
    let at = bytes.windows(4).position(|window| window == [4, 2, 2, b'b']).unwrap();
    bytes[at + 3] = 0;
    let reason = "column \"name\": invalid byte sequence for encoding \"UTF8\": 0x00";
    assert_eq!(message(&bytes), format!("malformed row in \"t\" at row 1 of block 2 of f: {reason}"));
    let (ids, skipped) = skipping(&bytes);
    assert_eq!((ids.unwrap(), skipped), (vec![1, 3, 4], 1));
    // A length that leads beyond the block hides the rows behind it.
    bytes[at + 2] = 100;
    let (ids, skipped) = skipping(&bytes);
    assert_eq!((ids.unwrap(), skipped), (vec![1, 4], 2));
    assert!(message(&bytes).contains("at row 1 of block 2 of f: column \"name\": 50 bytes should follow"));
}

#[test]
fn a_block_that_does_not_unpack_is_told_or_left_out() {
    for codec in
        [Codec::Deflate(DeflateSettings::default()), Codec::Snappy, Codec::Zstandard(ZstandardSettings::default())]
    {
        let many: Vec<Written> = (0..100).map(|id| row(id, Some("text"))).collect();
        let whole = file(codec, &[&many, &[row(-1, None)]]);
        let marker = whole[whole.len() - MARKER_BYTES..].to_vec();
        let start = whole.windows(MARKER_BYTES).position(|window| window == marker).unwrap() + MARKER_BYTES;
        let mut bytes = whole.clone();
        bytes[start + 8..start + 20].fill(0xff);
        assert!(message(&bytes).starts_with("malformed row in \"t\" at block 1 of f: "), "{codec:?}");
        let (ids, skipped) = skipping(&bytes);
        assert_eq!((ids.unwrap(), skipped), (vec![-1], 1), "{codec:?}");
    }
}

#[test]
fn a_block_that_unpacks_to_too_much_is_refused() {
    let mut packed = vec![0; MAX_BLOCK_BYTES + 1];
    Codec::Zstandard(ZstandardSettings::default()).compress(&mut packed).unwrap();
    assert!(packed.len() < 100_000);
    let mut bytes = file(Codec::Zstandard(ZstandardSettings::default()), &[]);
    let marker = bytes[bytes.len() - MARKER_BYTES..].to_vec();
    bytes.extend(number(1));
    bytes.extend(number(packed.len() as i64));
    bytes.extend(packed);
    bytes.extend(marker);
    assert!(message(&bytes).starts_with("malformed row in \"t\" at block 1 of f: "));
}

fn number(number: i64) -> Vec<u8> {
    let mut bits = ((number << 1) ^ (number >> 63)) as u64;
    let mut bytes = Vec::new();
    while bits >= 0x80 {
        bytes.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    bytes.push(bits as u8);
    bytes
}

#[test]
fn blocks_that_end_nowhere_end_the_reading() {
    let bytes = file(Codec::Null, &[&[row(1, Some("a"))], &[row(2, None)]]);
    let header = bytes.len() - MARKER_BYTES - 4;
    for cut in 1..MARKER_BYTES + 4 {
        let found = message(&bytes[..bytes.len() - cut]);
        assert!(found.starts_with("block 2 of f is malformed: the file ends"), "cut by {cut}: {found}");
        let (ids, _) = skipping(&bytes[..bytes.len() - cut]);
        assert_eq!(ids.unwrap_err().code(), Code::InvalidTextRepresentation);
    }
    let mut marked = bytes.clone();
    *marked.last_mut().unwrap() ^= 1;
    assert_eq!(message(&marked), "block 2 of f is malformed: it does not end with the marker of its file");
    let huge = [&bytes[..header], &number(1)[..], &number(1 << 40)].concat();
    let found = message(&huge);
    assert!(found.ends_with("a length of 1099511627776 bytes stands, where at most 67108864 are read"), "{found}");
    let rows = [&bytes[..header], &number(1 << 40)[..], &number(0), &bytes[bytes.len() - MARKER_BYTES..]].concat();
    assert!(message(&rows).ends_with("at block 2 of f: 1099511627776 rows should be in 0 bytes"));
    let more =
        [&bytes[..header], &number(1)[..], &number(3), &[2, 0, 0], &bytes[bytes.len() - MARKER_BYTES..]].concat();
    assert!(message(&more).ends_with("at block 2 of f: 1 bytes are left over behind its rows"));
}

#[test]
fn what_is_no_file_of_avro_is_refused() {
    let bytes = file(Codec::Null, &[]);
    assert_eq!(message(b"PAR1"), "could not read file \"f\": it is no object container file of Avro");
    for length in 4..bytes.len() {
        let found = message(&bytes[..length]);
        assert!(found.starts_with("could not read file \"f\": in its header the file ends"), "{length}: {found}");
    }
    let header = |attributes: &[(&str, &str)]| {
        let mut bytes = b"Obj\x01".to_vec();
        bytes.extend(number(attributes.len() as i64));
        for (name, value) in attributes {
            for text in [name, value] {
                bytes.extend(number(text.len() as i64));
                bytes.extend(text.as_bytes());
            }
        }
        bytes.extend([0; MARKER_BYTES + 1]);
        bytes
    };
    assert_eq!(message(&header(&[("a", "b")])), "could not read file \"f\": its header has no schema");
    let found = message(&header(&[("avro.schema", "\"int\"")]));
    assert_eq!(found, "file \"f\": invalid Avro schema: it is no record but of type int");
    let found = message(&header(&[("avro.schema", SCHEMA), ("avro.codec", "bzip2")]));
    assert_eq!(found, "file \"f\" is compressed with \"bzip2\"");
    let nanos = SCHEMA.replace("\"int\"", r#"{"type": "long", "logicalType": "timestamp-nanos"}"#);
    let found = message(&header(&[("avro.schema", &nanos)]));
    assert!(found.starts_with("file \"f\": column \"id\" has the Avro type long (timestamp-nanos)"), "{found}");
}
