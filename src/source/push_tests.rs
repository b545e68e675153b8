use datafusion::arrow::array::{AsArray, Int64Array, StringViewArray};
use datafusion::arrow::datatypes::{Int64Type, Schema};
use futures::{FutureExt, StreamExt};

use super::*;
use crate::pg_type::PgType;

fn stream(retain_rows: usize, slow_reader: SlowReader) -> PushStream {
    let fields = vec![PgType::Int8.field("id", false), PgType::Text.field("note", true)];
    PushStream::new("orders".into(), Arc::new(Schema::new(fields)), retain_rows, 1 << 20, slow_reader)
}

fn rows(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    let ids: Vec<i64> = ids.into_iter().collect();
    let notes = StringViewArray::from_iter(ids.iter().map(|id| Some(format!("note of row number {id}"))));
    let fields = vec![PgType::Int8.field("id", true), PgType::Text.field("note", true)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(Int64Array::from(ids)), Arc::new(notes)]).unwrap()
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

async fn next(stream: &mut SendableRecordBatchStream) -> Vec<i64> {
    ids(&stream.next().await.unwrap().unwrap())
}

#[tokio::test]
async fn latest_is_where_the_stream_is_when_it_is_opened_and_earliest_the_oldest_kept_row() {
    let stream = stream(3, SlowReader::Fail);
    stream.append(rows(1..=5)).await.unwrap();
    let mut latest = stream.open(Start::Latest, &[0]).unwrap();
    let mut earliest = stream.open(Start::Earliest, &[0]).unwrap();
    stream.append(rows([6])).await.unwrap();
    assert_eq!(next(&mut latest).await, [6]);
    assert!(latest.next().now_or_never().is_none());
    // Row 3 was kept when the reader came, and is not any more.
    let error = Error::from(earliest.next().await.unwrap().unwrap_err());
    assert_eq!(error.sqlstate(), "55000");
    assert_eq!(error.message(), "reader of stream \"orders\" fell behind and lost 1 row");
    assert!(earliest.next().await.is_none());
    assert_eq!(next(&mut stream.open(Start::Earliest, &[0]).unwrap()).await, [4, 5, 6]);
}

#[tokio::test]
async fn readers_wake_when_rows_come_and_get_small_appends_merged() {
    let stream = stream(100, SlowReader::Fail);
    let mut reader = stream.open(Start::Latest, &[0]).unwrap();
    let (read, ()) = tokio::join!(next(&mut reader), async { stream.append(rows([1])).await.unwrap() });
    assert_eq!(read, [1]);
    for id in 2..=50 {
        stream.append(rows([id])).await.unwrap();
    }
    assert_eq!(next(&mut reader).await, (2..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn writers_wait_for_the_slowest_reader_if_told_so() {
    let stream = stream(2, SlowReader::Wait);
    stream.append(rows(1..=9)).await.unwrap();
    let mut slow = stream.open(Start::Latest, &[0]).unwrap();
    let fast = stream.open(Start::Latest, &[0]).unwrap();
    stream.append(rows([10, 11])).await.unwrap();
    let mut blocked = Box::pin(stream.append(rows([12])));
    assert!((&mut blocked).now_or_never().is_none());
    assert_eq!(next(&mut slow).await, [10, 11]);
    assert!((&mut blocked).now_or_never().is_none(), "the other reader has read nothing");
    drop(fast);
    blocked.await.unwrap();
    assert_eq!(next(&mut slow).await, [12]);
}

#[tokio::test]
async fn an_append_that_is_given_up_while_it_waits_leaves_no_row() {
    let stream = stream(1, SlowReader::Wait);
    let mut reader = stream.open(Start::Latest, &[0]).unwrap();
    stream.append(rows([1])).await.unwrap();
    assert!(stream.append(rows([2])).now_or_never().is_none());
    assert_eq!(next(&mut reader).await, [1]);
    stream.append(rows([3])).await.unwrap();
    assert_eq!(next(&mut reader).await, [3]);
}

#[tokio::test]
async fn null_in_a_not_null_column_enters_nothing() {
    let stream = stream(10, SlowReader::Fail);
    let good = rows([1, 2]);
    let ids = Int64Array::from(vec![Some(1), None]);
    let bad = RecordBatch::try_new(good.schema(), vec![Arc::new(ids), Arc::clone(good.column(1))]).unwrap();
    let error = stream.append(bad).await.unwrap_err();
    assert_eq!(error.sqlstate(), "23502");
    assert_eq!(error.message(), "null value in column \"id\" of stream \"orders\" violates not-null constraint");
    stream.append(good).await.unwrap();
    assert_eq!(next(&mut stream.open(Start::Earliest, &[0]).unwrap()).await, [1, 2]);
}

#[tokio::test]
async fn bytes_are_bounded_too_and_the_newest_row_always_stays() {
    let fields = vec![PgType::Int8.field("id", false), PgType::Text.field("note", true)];
    let stream = PushStream::new("orders".into(), Arc::new(Schema::new(fields)), 1000, 100, SlowReader::Fail);
    stream.append(rows(1..=50)).await.unwrap();
    let kept = next(&mut stream.open(Start::Earliest, &[0]).unwrap()).await;
    assert_eq!(kept.last(), Some(&50));
    assert!(kept.len() < 5, "{kept:?}");
}

#[tokio::test]
async fn readers_that_go_leave_no_place_behind() {
    let stream = stream(10, SlowReader::Fail);
    let reader = stream.open(Start::Latest, &[0]).unwrap();
    assert_eq!(stream.ring.lock().readers.len(), 1);
    drop(reader);
    assert!(stream.ring.lock().readers.is_empty());
}
