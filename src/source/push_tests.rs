use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray};
use datafusion::arrow::datatypes::{Int64Type, Schema};
use futures::{FutureExt, StreamExt};

use super::*;
use crate::pg_type::PgType;
use crate::source::open_now;

fn stream(retain_rows: usize, slow_reader: SlowReader) -> PushStream {
    let fields = vec![PgType::Int8.field("order_id", false), PgType::Text.field("note", true)];
    PushStream::new("orders".into(), Arc::new(Schema::new(fields)), retain_rows, 64 << 20, slow_reader)
}

/// Rows as INSERT makes them: any column may be NULL until the stream has looked.
fn rows(ids: impl IntoIterator<Item = Option<i64>>) -> RecordBatch {
    let ids: Int64Array = ids.into_iter().collect();
    let notes = StringViewArray::from_iter((0..ids.len()).map(|_| Some("a note that is too long for its view")));
    RecordBatch::try_from_iter([("order_id", Arc::new(ids) as ArrayRef), ("note", Arc::new(notes) as ArrayRef)])
        .unwrap()
}

fn batch(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    rows(ids.into_iter().map(Some))
}

/// What the reader has without waiting: ids, an error's message, or nothing.
fn poll(reader: &mut SendableRecordBatchStream) -> Option<Result<Vec<i64>, String>> {
    let polled = reader.next().now_or_never()?;
    let batch = polled.expect("a push stream does not end by itself");
    Some(match batch {
        Ok(batch) => Ok(batch.column(0).as_primitive::<Int64Type>().values().to_vec()),
        Err(error) => Err(Error::from(error).message().to_string()),
    })
}

fn open(stream: &PushStream, start: Start) -> SendableRecordBatchStream {
    open_now(stream, start, &[0]).unwrap()
}

#[tokio::test]
async fn latest_sees_what_comes_after_it_was_opened_and_earliest_what_is_retained() {
    let stream = stream(3, SlowReader::Fail);
    assert_eq!(stream.append(batch(0..5)).await, Ok(5));
    let (mut latest, mut earliest) = (open(&stream, Start::Latest), open(&stream, Start::Earliest));
    assert_eq!(poll(&mut latest), None);
    assert_eq!(poll(&mut earliest), Some(Ok(vec![2, 3, 4])));
    stream.append(batch([5])).await.unwrap();
    assert_eq!(poll(&mut latest), Some(Ok(vec![5])));
    assert_eq!(poll(&mut earliest), Some(Ok(vec![5])));
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_the_append() {
    let stream = stream(10, SlowReader::Fail);
    let mut reader = open(&stream, Start::Latest);
    let mut waiting = by_hand(reader.next());
    assert!(waiting.poll().is_none());
    assert!(!waiting.is_woken());
    stream.append(batch([1])).await.unwrap();
    assert!(waiting.is_woken());
    assert_eq!(waiting.poll().unwrap().unwrap().unwrap().num_rows(), 1);
}

#[tokio::test]
async fn a_null_where_none_may_be_keeps_all_rows_out() {
    let stream = stream(10, SlowReader::Fail);
    let mut reader = open(&stream, Start::Latest);
    let error = stream.append(rows([Some(1), None])).await.unwrap_err();
    assert_eq!(error.code(), Code::NotNullViolation);
    assert_eq!(error.message(), "null value in column \"order_id\" of stream \"orders\" violates not-null constraint");
    assert_eq!(stream.check(&rows([None])).unwrap_err(), error);
    assert_eq!(stream.check(&rows([Some(1)])), Ok(()));
    assert_eq!(poll(&mut reader), None);
}

#[tokio::test]
async fn rows_of_other_columns_are_refused() {
    let stream = stream(10, SlowReader::Fail);
    let error = stream.append(batch([1]).project(&[1, 0]).unwrap()).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test]
async fn a_reader_that_fell_behind_ends_with_the_number_of_rows_it_lost() {
    let stream = stream(10, SlowReader::Fail);
    let (mut slow, mut quick) = (open(&stream, Start::Latest), open(&stream, Start::Latest));
    stream.append(batch(0..8)).await.unwrap();
    assert_eq!(poll(&mut quick), Some(Ok((0..8).collect())));
    stream.append(batch(8..13)).await.unwrap();
    assert_eq!(poll(&mut quick), Some(Ok((8..13).collect())));
    assert_eq!(poll(&mut slow), Some(Err("reader of stream \"orders\" fell behind and lost 3 rows".into())));
    assert!(slow.next().await.is_none(), "nothing comes after the error");
}

#[tokio::test]
async fn many_small_appends_are_handed_over_as_few_batches() {
    let stream = stream(100_000, SlowReader::Fail);
    let mut reader = open(&stream, Start::Latest);
    for id in 0..10_000 {
        stream.append(batch([id])).await.unwrap();
    }
    assert_eq!(poll(&mut reader), Some(Ok((0..8192).collect())));
    assert_eq!(poll(&mut reader), Some(Ok((8192..10_000).collect())));
    assert_eq!(poll(&mut reader), None);
}

#[tokio::test]
async fn a_projection_may_turn_columns_around_or_leave_none() {
    let stream = stream(10, SlowReader::Fail);
    stream.append(batch([1, 2])).await.unwrap();
    let mut turned = open_now(&stream, Start::Earliest, &[1, 0]).unwrap();
    let turned_batch = turned.next().await.unwrap().unwrap();
    assert_eq!(turned_batch.schema(), turned.schema());
    assert_eq!(turned_batch.schema().field(0).name(), "note");
    let empty = open_now(&stream, Start::Earliest, &[]).unwrap().next().await.unwrap().unwrap();
    assert_eq!((empty.num_columns(), empty.num_rows()), (0, 2));
    assert!(open_now(&stream, Start::Earliest, &[2]).is_err());
}

#[tokio::test]
async fn a_writer_waits_for_the_slowest_reader_and_no_row_is_lost() {
    let stream = stream(4, SlowReader::Wait);
    let (mut slow, mut quick) = (open(&stream, Start::Latest), open(&stream, Start::Latest));
    stream.append(batch(0..3)).await.unwrap();
    assert_eq!(poll(&mut quick), Some(Ok(vec![0, 1, 2])));
    let mut append = by_hand(stream.append(batch(3..5)));
    assert!(append.poll().is_none());
    assert_eq!(poll(&mut quick), None, "rows of a writer that waits are not there yet");
    assert!(append.poll().is_none());
    assert_eq!(poll(&mut slow), Some(Ok(vec![0, 1, 2])));
    assert!(append.is_woken());
    assert_eq!(append.poll(), Some(Ok(2)));
    assert_eq!(poll(&mut slow), Some(Ok(vec![3, 4])));
    assert_eq!(poll(&mut quick), Some(Ok(vec![3, 4])));
}

#[tokio::test]
async fn a_reader_that_is_dropped_releases_the_writers() {
    let stream = stream(2, SlowReader::Wait);
    let reader = open(&stream, Start::Latest);
    stream.append(batch([1, 2])).await.unwrap();
    let mut append = by_hand(stream.append(batch([3])));
    assert!(append.poll().is_none());
    drop(reader);
    assert!(append.is_woken());
    assert_eq!(append.poll(), Some(Ok(1)));
}

#[tokio::test]
async fn writers_that_wait_come_in_turn_and_one_that_gives_up_puts_nothing_in() {
    let stream = stream(3, SlowReader::Wait);
    let mut reader = open(&stream, Start::Latest);
    stream.append(batch([1, 2, 3])).await.unwrap();
    let mut first = by_hand(stream.append(batch([4, 5, 6])));
    let mut second = by_hand(stream.append(batch([7])));
    let mut third = by_hand(stream.append(batch([8])));
    assert!(first.poll().is_none() && second.poll().is_none() && third.poll().is_none());
    drop(second);
    assert_eq!(poll(&mut reader), Some(Ok(vec![1, 2, 3])));
    assert!(third.poll().is_none(), "the third overtook the first");
    assert_eq!(first.poll(), Some(Ok(3)));
    assert_eq!(poll(&mut reader), Some(Ok(vec![4, 5, 6])));
    assert_eq!(third.poll(), Some(Ok(1)));
    assert_eq!(poll(&mut reader), Some(Ok(vec![8])));
}

#[tokio::test]
async fn with_wait_a_batch_beyond_the_bounds_comes_whole_to_readers_that_are_there() {
    let stream = stream(2, SlowReader::Wait);
    let mut reader = open(&stream, Start::Latest);
    stream.append(batch(0..5)).await.unwrap();
    assert_eq!(poll(&mut reader), Some(Ok(vec![0, 1, 2, 3, 4])));
    assert_eq!(poll(&mut open(&stream, Start::Earliest)), Some(Ok(vec![3, 4])), "once read, the bounds hold");
}

#[tokio::test]
async fn without_readers_no_writer_waits() {
    let stream = stream(2, SlowReader::Wait);
    stream.append(batch(0..5)).await.unwrap();
    assert_eq!(stream.append(batch([5])).now_or_never(), Some(Ok(1)));
    assert_eq!(poll(&mut open(&stream, Start::Earliest)), Some(Ok(vec![4, 5])));
}

#[tokio::test]
async fn readers_that_go_leave_no_place_behind() {
    let stream = stream(10, SlowReader::Fail);
    let reader = open(&stream, Start::Latest);
    assert_eq!(stream.shared.state().positions.len(), 1);
    drop(reader);
    assert!(stream.shared.state().positions.is_empty());
}

#[tokio::test]
async fn one_lost_row_is_a_row() {
    let stream = stream(1, SlowReader::Fail);
    let mut reader = open(&stream, Start::Latest);
    stream.append(batch([1])).await.unwrap();
    stream.append(batch([2])).await.unwrap();
    assert_eq!(poll(&mut reader), Some(Err("reader of stream \"orders\" fell behind and lost 1 row".into())));
}

/// A future polled by hand, which knows whether it was woken since.
struct Task<F> {
    future: std::pin::Pin<Box<F>>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl futures::task::ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

fn by_hand<F: Future>(future: F) -> Task<F> {
    Task { future: Box::pin(future), woken: Arc::default() }
}

impl<F: Future> Task<F> {
    fn poll(&mut self) -> Option<F::Output> {
        self.woken.0.store(false, std::sync::atomic::Ordering::SeqCst);
        let waker = futures::task::waker(Arc::clone(&self.woken));
        match self.future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Rows of about a million bytes each, in a text column.
fn large(ids: std::ops::Range<i64>) -> RecordBatch {
    let notes = StringViewArray::from_iter(ids.clone().map(|_| Some("x".repeat(1_000_000))));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("order_id", ids), ("note", Arc::new(notes) as ArrayRef)]).unwrap()
}

fn stream_of_bytes(retain_bytes: u64, slow_reader: SlowReader) -> PushStream {
    PushStream::new("orders".into(), stream(1, slow_reader).schema(), 10_000, retain_bytes, slow_reader)
}

#[tokio::test]
async fn the_bytes_of_text_count_against_what_is_retained() {
    let stream = stream_of_bytes(3_500_000, SlowReader::Fail);
    for id in 0..10 {
        stream.append(large(id..id + 1)).await.unwrap();
    }
    assert_eq!(poll(&mut open(&stream, Start::Earliest)), Some(Ok(vec![7, 8, 9])));
}

#[tokio::test]
async fn with_wait_a_batch_of_too_many_bytes_loses_nothing_for_readers_that_are_there() {
    let stream = stream_of_bytes(3_500_000, SlowReader::Wait);
    let mut reader = open(&stream, Start::Latest);
    stream.append(large(0..10)).await.unwrap();
    let mut rows = vec![];
    while let Some(read) = poll(&mut reader) {
        rows.extend(read.unwrap());
    }
    assert_eq!(rows, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn with_wait_fixed_width_rows_beyond_the_bytes_lose_nothing_either() {
    let stream = stream_of_bytes(100, SlowReader::Wait);
    let mut reader = open(&stream, Start::Latest);
    stream.append(batch(0..1000)).await.unwrap();
    assert_eq!(poll(&mut reader), Some(Ok((0..1000).collect())));
}

#[tokio::test]
async fn rows_of_one_call_are_seen_together_or_not_at_all() {
    let stream = stream(4, SlowReader::Wait);
    let mut reader = open(&stream, Start::Latest);
    stream.append(batch([0])).await.unwrap();
    let mut append = by_hand(stream.append(batch(1..10)));
    assert!(append.poll().is_none());
    assert_eq!(poll(&mut reader), Some(Ok(vec![0])));
    assert!(append.poll().is_some());
    assert_eq!(poll(&mut reader), Some(Ok((1..10).collect())));
}

#[tokio::test]
async fn a_writer_that_gives_up_halfway_leaves_nothing_in_the_stream() {
    let stream = stream(4, SlowReader::Wait);
    let mut reader = open(&stream, Start::Latest);
    stream.append(batch([0])).await.unwrap();
    let mut append = by_hand(stream.append(batch(1..10)));
    assert!(append.poll().is_none());
    drop(append);
    assert_eq!(poll(&mut reader), Some(Ok(vec![0])));
    assert_eq!(poll(&mut reader), None);
}
