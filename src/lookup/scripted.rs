//! A store that does what a test says, and an input that a test feeds: what the tests of the stage share.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, UInt32Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::policy::{CachePolicy, LookupPolicy, OnFailure, Ordering, RetryPolicy};
use super::{JoinKind, LookupExec, LookupJoin, LookupTable};
use crate::error::Error;
use crate::store::{
    Answer, Change, Changes, Conditions, KeyEquality, LookupRequest, LookupShape, RowBatches, ScanRequest, Store,
    StoreError,
};

/// What a request of these keys is to meet.
#[derive(Clone, Debug)]
pub enum Reply {
    After(Duration),
    Fail(Duration, StoreError),
    Panic,
    /// Never.
    Hang,
    /// A row for a key that was not asked for.
    Foreign,
    /// The rows of the keys in reverse order.
    Backwards,
}

type Script = Box<dyn Fn(&[i64]) -> Reply + Send + Sync>;

/// Knows `(id, name)`: key `k` below zero is missing, from a thousand on it has `k / 1000` rows, else one; the name of
/// its row `j` is `k/j`.
pub struct ScriptedStore {
    script: Script,
    requests: Mutex<Vec<Vec<i64>>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
    dropped: AtomicUsize,
    /// Of those who listen for changes, the last one's.
    teller: Mutex<Option<Teller>>,
    has_own_equality: AtomicBool,
}

/// By whom a test tells of changes.
type Teller = mpsc::UnboundedSender<Result<Change, StoreError>>;

impl ScriptedStore {
    pub fn new(script: impl Fn(&[i64]) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(ScriptedStore {
            script: Box::new(script),
            requests: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            teller: Mutex::default(),
            has_own_equality: AtomicBool::new(false),
        })
    }

    /// Whom to tell changes to, once somebody has begun to listen.
    pub fn take_teller(&self) -> Option<Teller> {
        self.teller.lock().unwrap().take()
    }

    /// From now on keys are equal by rules of the store's own.
    pub fn compares_in_its_own_way(&self) {
        self.has_own_equality.store(true, SeqCst);
    }

    /// The keys of each request, in the order in which requests came.
    pub fn requests(&self) -> Vec<Vec<i64>> {
        self.requests.lock().unwrap().clone()
    }

    pub fn most_running(&self) -> usize {
        self.most_running.load(SeqCst)
    }

    pub fn running(&self) -> usize {
        self.running.load(SeqCst)
    }

    /// Requests that were given up before they were answered.
    pub fn dropped(&self) -> usize {
        self.dropped.load(SeqCst)
    }

    fn answer(&self, request: &LookupRequest, keys: &[i64], reply: &Reply) -> Answer {
        let mut rows: Vec<(u32, i64, String)> = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            let count = if *key < 0 { 0 } else { (*key / 1000).max(1) };
            rows.extend((0..count).map(|nth| (position as u32, *key, format!("{key}/{nth}"))));
        }
        match reply {
            Reply::Backwards => rows.sort_by_key(|row| std::cmp::Reverse(row.0)),
            Reply::Foreign => rows.push((keys.len() as u32, 7, "foreign".to_string())),
            _ => {}
        }
        let columns = request.shape.columns.iter().map(|column| match column {
            0 => Arc::new(rows.iter().map(|row| Some(row.1)).collect::<Int64Array>()) as ArrayRef,
            _ => Arc::new(rows.iter().map(|row| Some(row.2.as_str())).collect::<StringViewArray>()),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let schema = Arc::new(self.schema().project(&request.shape.columns).unwrap());
        let batch = RecordBatch::try_new_with_options(schema, columns.collect(), &options).unwrap();
        Answer { rows: batch, key_of_row: UInt32Array::from_iter_values(rows.iter().map(|row| row.0)) }
    }
}

struct Running<'a>(&'a ScriptedStore, bool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
        self.0.dropped.fetch_add(usize::from(!self.1), SeqCst);
    }
}

#[async_trait]
impl Store for ScriptedStore {
    fn schema(&self) -> SchemaRef {
        let fields = vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8View, true)];
        Arc::new(Schema::new(fields))
    }

    fn can_filter(&self, _filter: &Expr) -> bool {
        false
    }

    fn key_equality(&self, _column: usize) -> KeyEquality {
        match self.has_own_equality.load(SeqCst) {
            true => KeyEquality::OfStore { reason: "a test says so".to_string() },
            false => KeyEquality::ByValue,
        }
    }

    fn changes(&self) -> Option<Changes> {
        let (teller, mut told) = mpsc::unbounded_channel();
        *self.teller.lock().unwrap() = Some(teller);
        Some(futures::stream::poll_fn(move |context| told.poll_recv(context)).boxed())
    }

    fn can_scan(&self) -> bool {
        false
    }

    async fn scan(&self, _request: &ScanRequest) -> Result<RowBatches, StoreError> {
        Err(Error::internal("a scripted store has no end").into())
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let keys: Vec<i64> = request.keys[0].as_primitive::<Int64Type>().values().to_vec();
        assert!(request.keys.iter().all(|column| column.null_count() == 0), "a NULL was asked for");
        self.requests.lock().unwrap().push(keys.clone());
        let now = self.running.fetch_add(1, SeqCst) + 1;
        self.most_running.fetch_max(now, SeqCst);
        let mut running = Running(self, false);
        let reply = (self.script)(&keys);
        match &reply {
            Reply::After(delay) => tokio::time::sleep(*delay).await,
            Reply::Fail(delay, error) => {
                tokio::time::sleep(*delay).await;
                running.1 = true;
                return Err(error.clone());
            }
            Reply::Panic => panic!("boom"),
            Reply::Hang => std::future::pending().await,
            Reply::Foreign | Reply::Backwards => {}
        }
        running.1 = true;
        Ok(self.answer(request, &keys, &reply))
    }
}

impl fmt::Debug for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedStore")
    }
}

impl fmt::Display for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scripted")
    }
}

/// An input of columns `(n, k)`: `n` counts the rows, `k` is the key.
pub struct Feed {
    sender: Option<mpsc::UnboundedSender<Result<RecordBatch, Error>>>,
    rows: i64,
    /// Rows up to the end of each batch.
    ends: Vec<usize>,
    read: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct FeedStream {
    receiver: Mutex<VecDeque<mpsc::UnboundedReceiver<Result<RecordBatch, Error>>>>,
    schema: SchemaRef,
    read: Arc<AtomicUsize>,
}

impl PartitionStream for FeedStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut receiver = self.receiver.lock().unwrap().pop_front().unwrap();
        let read = Arc::clone(&self.read);
        let batches = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(move |batch| {
            read.fetch_add(1, SeqCst);
            Ok(batch?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

impl Feed {
    pub fn new() -> (Self, Arc<dyn ExecutionPlan>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let read = Arc::new(AtomicUsize::new(0));
        let receiver = Mutex::new(VecDeque::from([receiver]));
        let stream = FeedStream { receiver, schema: input_schema(), read: Arc::clone(&read) };
        let plan = StreamingTableExec::try_new(input_schema(), vec![Arc::new(stream)], None, [], true, None).unwrap();
        (Feed { sender: Some(sender), rows: 0, ends: Vec::new(), read }, Arc::new(plan))
    }

    /// One batch with these keys.
    pub fn send(&mut self, keys: impl IntoIterator<Item = impl Into<Option<i64>>>) -> &mut Self {
        let keys: Vec<Option<i64>> = keys.into_iter().map(Into::into).collect();
        let numbers: Int64Array = (self.rows..self.rows + keys.len() as i64).map(Some).collect();
        self.rows += keys.len() as i64;
        self.ends.push(self.rows as usize);
        let batch = RecordBatch::try_new(input_schema(), vec![Arc::new(numbers), Arc::new(Int64Array::from(keys))]);
        self.sender.as_ref().unwrap().send(Ok(batch.unwrap())).unwrap();
        self
    }

    pub fn fail(&mut self, error: Error) {
        self.sender.as_ref().unwrap().send(Err(error)).unwrap();
    }

    pub fn end(&mut self) {
        self.sender = None;
    }

    /// How many rows the first `batches` batches have.
    pub fn rows_in(&self, batches: usize) -> usize {
        batches.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// Batches that the stage has read.
    pub fn read(&self) -> usize {
        self.read.load(SeqCst)
    }

    pub fn is_closed(&self) -> bool {
        self.sender.as_ref().is_some_and(mpsc::UnboundedSender::is_closed)
    }
}

pub fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("k", DataType::Int64, true)]))
}

/// LEFT, on `k = id`, all columns of both sides.
pub fn left_join(policy: LookupPolicy) -> LookupJoin {
    LookupJoin {
        kind: JoinKind::Left,
        keys: vec![column("k", 1)],
        shape: Arc::new(LookupShape { key_columns: vec![0], columns: vec![0, 1], filters: Conditions::default() }),
        gate: None,
        residual: None,
        projection: vec![0, 1, 2, 3],
        policy,
    }
}

pub fn column(name: &str, position: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(name, position))
}

/// One key a request and no time-out, so that a script's delays decide alone.
pub fn policy(ordering: Ordering) -> LookupPolicy {
    LookupPolicy {
        ordering,
        timeout: None,
        on_failure: OnFailure::Fail,
        batch_size: 1.try_into().unwrap(),
        max_in_flight: 100.try_into().unwrap(),
        retry: RetryPolicy { max_attempts: NonZeroU32::MIN, ..RetryPolicy::default() },
        cache: CachePolicy::None,
        ..LookupPolicy::default()
    }
}

pub fn table(store: &Arc<ScriptedStore>, policy: &LookupPolicy) -> Arc<LookupTable> {
    LookupTable::new("customers".to_string(), Arc::clone(store) as Arc<dyn Store>, policy.clone())
}

/// A running query and what feeds it.
pub fn run(table: &Arc<LookupTable>, join: LookupJoin) -> (Feed, SendableRecordBatchStream) {
    let (feed, input) = Feed::new();
    let exec = LookupExec::try_new(input, Arc::clone(table), join).unwrap();
    (feed, exec.execute(0, Arc::default()).unwrap())
}

/// Each row as `n:name`; `-` for a name that is NULL. The name is the last column.
pub fn shown(batch: &RecordBatch) -> Vec<String> {
    let numbers = batch.column(0).as_primitive::<Int64Type>();
    let names = batch.column(batch.num_columns() - 1).as_string_view();
    let name = |row: usize| if names.is_null(row) { "-" } else { names.value(row) };
    (0..batch.num_rows()).map(|row| format!("{}:{}", numbers.value(row), name(row))).collect()
}

/// All rows until the end, and the error if it ended with one.
pub async fn drain(stream: &mut SendableRecordBatchStream) -> (Vec<String>, Option<Error>) {
    let mut rows = Vec::new();
    while let Some(batch) = stream.next().await {
        match batch {
            Ok(batch) => rows.extend(shown(&batch)),
            Err(error) => return (rows, Some(error.into())),
        }
    }
    (rows, None)
}

/// The rows that leave without waiting for the clock.
pub async fn ready(stream: &mut SendableRecordBatchStream) -> Vec<String> {
    let mut rows = Vec::new();
    // Tasks of the table run while this one yields; the paused clock stands still meanwhile.
    for _ in 0..20 {
        while let std::task::Poll::Ready(Some(batch)) = futures::poll!(stream.next()) {
            rows.extend(shown(&batch.unwrap()));
        }
        tokio::task::yield_now().await;
    }
    rows
}

pub const fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}
