use datafusion::arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, IntervalMonthDayNanoArray, StringViewArray,
    UInt32Array,
};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{IntervalMonthDayNano, Schema};

use super::super::{Conditions, LookupShape, contract};
use super::*;
use crate::error::Code;
use crate::pg_type::PgType;

fn embedded(rows: RecordBatch) -> FileStore {
    let schema = rows.schema();
    let read: ReadRows = Arc::new(move || Ok(vec![rows.clone()]));
    FileStore::try_new("people".to_string(), None, schema, read).unwrap()
}

fn request(key_columns: &[usize], columns: &[usize], keys: Vec<ArrayRef>) -> LookupRequest {
    let shape =
        LookupShape { key_columns: key_columns.to_vec(), columns: columns.to_vec(), filters: Conditions::default() };
    LookupRequest { shape: Arc::new(shape), keys, max_answer_bytes: u64::MAX }
}

#[tokio::test]
async fn contract_holds() {
    contract::check(&embedded(contract::table().unwrap()), contract::RowOrder::AsLoaded).await.unwrap();
}

#[tokio::test]
async fn contract_notices_a_store_that_breaks_it() {
    let rows = contract::table().unwrap();
    let last = rows.num_rows() - 1;
    let error = contract::check(&embedded(rows.slice(0, last)), contract::RowOrder::AsLoaded).await.unwrap_err();
    assert!(error.message().starts_with("a large request is answered by position: expected"), "{error}");
    let order = UInt32Array::from_iter_values((0..rows.num_rows() as u32).rev());
    let columns = rows.columns().iter().map(|column| take(column, &order, None).unwrap()).collect();
    let reversed = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let error = contract::check(&embedded(reversed), contract::RowOrder::AsLoaded).await.unwrap_err();
    assert!(error.message().starts_with("all rows of a key come: expected"), "{error}");
}

#[tokio::test]
async fn keys_compare_as_in_postgresql() {
    let odd_nan = f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 1);
    let interval = |months, days| IntervalMonthDayNano::new(months, days, 0);
    let schema = Schema::new(vec![
        PgType::Int4.field("id", false),
        PgType::Float8.field("f", true),
        PgType::Interval.field("i", true),
        PgType::Numeric { precision: 9, scale: 2 }.field("n", true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![0, 1, 2])),
        Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), None])),
        Arc::new(IntervalMonthDayNanoArray::from(vec![Some(interval(1, 0)), Some(interval(0, 31)), None])),
        Arc::new(Decimal128Array::from(vec![150, 0, -1]).with_precision_and_scale(9, 2).unwrap()),
    ];
    let store = embedded(RecordBatch::try_new(Arc::new(schema), columns).unwrap());
    let cases: [(usize, ArrayRef, &[u32]); 3] = [
        (1, Arc::new(Float64Array::from(vec![odd_nan, 5.0, 0.0])), &[0, 2]),
        (2, Arc::new(IntervalMonthDayNanoArray::from(vec![interval(0, 30), interval(1, 1), interval(1, -1)])), &[0, 1]),
        (3, Arc::new(Decimal128Array::from(vec![15, -1]).with_precision_and_scale(9, 2).unwrap()), &[1]),
    ];
    for (column, keys, expected) in cases {
        let answer = store.lookup(&request(&[column], &[0], vec![keys])).await.unwrap();
        assert_eq!(answer.key_of_row.values(), expected, "column {column}");
    }
}

#[tokio::test]
async fn json_and_arrays_are_refused_as_keys() {
    let schema = Arc::new(Schema::new(vec![PgType::Jsonb.field("document", true)]));
    let store = embedded(RecordBatch::new_empty(schema));
    let keys: ArrayRef = Arc::new(StringViewArray::from_iter_values(["{}"]));
    let error = store.lookup(&request(&[0], &[0], vec![keys])).await.unwrap_err().into_error("t");
    let message =
        "column \"document\" cannot be the key of a lookup: equal values of type jsonb need not look the same";
    assert_eq!(error.message(), message);
}

/// A file whose lines are its rows' only column, all of key "k"; a line "bad" cannot be read.
fn lines_store(path: &Path) -> FileStore {
    let text = |name| PgType::Text.field(name, false);
    let schema = Arc::new(Schema::new(vec![text("key"), text("line")]));
    let (file, of_rows) = (path.to_path_buf(), Arc::clone(&schema));
    let read: ReadRows = Arc::new(move || {
        let text = std::fs::read_to_string(&file).map_err(|error| Error::internal(error.to_string()))?;
        if text.contains("bad") {
            return Err(Error::new(Code::InvalidTextRepresentation, "a bad line"));
        }
        let lines = StringViewArray::from_iter_values(text.lines());
        let keys = StringViewArray::from_iter_values(text.lines().map(|_| "k"));
        Ok(vec![RecordBatch::try_new(Arc::clone(&of_rows), vec![Arc::new(keys), Arc::new(lines)])?])
    });
    FileStore::try_new(path.display().to_string(), Some(path.to_path_buf()), schema, read).unwrap()
}

async fn lines(store: &FileStore) -> Vec<String> {
    let keys: ArrayRef = Arc::new(StringViewArray::from_iter_values(["k"]));
    let answer = store.lookup(&request(&[0], &[1], vec![keys])).await.unwrap();
    answer.rows.column(0).as_string_view().iter().map(|line| line.unwrap().to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn changed_file_is_read_again_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    let store = lines_store(&path);
    assert_eq!(lines(&store).await, ["one", "two"]);

    std::fs::write(&path, "three\n").unwrap();
    assert_eq!(lines(&store).await, ["one", "two"], "not looked at more than once a second");
    tokio::time::advance(CHECK_EVERY).await;
    assert_eq!(lines(&store).await, ["three"]);

    for broken in [Some("a bad line\n"), None] {
        match broken {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        tokio::time::advance(CHECK_EVERY).await;
        assert_eq!(lines(&store).await, ["three"], "the old contents stay");
    }
    std::fs::write(&path, "four\nfive\nsix\n").unwrap();
    tokio::time::advance(CHECK_EVERY).await;
    assert_eq!(lines(&store).await, ["four", "five", "six"]);
}

#[tokio::test]
async fn missing_file_is_an_error_at_start() {
    let read: ReadRows = Arc::new(|| Err(Error::new(Code::UndefinedObject, "no such file")));
    let schema = Arc::new(Schema::empty());
    let error = FileStore::try_new("lost".to_string(), Some("lost".into()), schema, read).unwrap_err();
    assert_eq!(error.message(), "no such file");
}

#[tokio::test]
async fn answer_beyond_max_answer_bytes_is_refused_before_it_is_copied() {
    let schema = Schema::new(vec![PgType::Int4.field("id", false), PgType::Text.field("wide", true)]);
    let wide = "w".repeat(100);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![1, 1, 2])),
        Arc::new(StringViewArray::from(vec![Some(wide.as_str()), Some("short"), None])),
    ];
    let store = embedded(RecordBatch::try_new(Arc::new(schema), columns).unwrap());
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    // Two positions, two texts of 16 bytes, one of which has its 100 bytes elsewhere.
    let enough = 2 * 4 + 2 * 16 + 100;
    let mut request = request(&[0], &[1], vec![ids]);
    request.max_answer_bytes = enough;
    assert_eq!(store.lookup(&request).await.unwrap().rows.num_rows(), 2);
    request.max_answer_bytes = enough - 1;
    match store.lookup(&request).await {
        Err(StoreError::TooLarge { max_answer_bytes }) => assert_eq!(max_answer_bytes, enough - 1),
        other => panic!("{other:?}"),
    }
    // Rows without a column count as well.
    request.shape = Arc::new(LookupShape { columns: vec![], ..request.shape.as_ref().clone() });
    request.max_answer_bytes = 7;
    assert!(matches!(store.lookup(&request).await, Err(StoreError::TooLarge { .. })));
}
