//! The lookup stage at work: admit rows, wait for answers, let rows leave.
//!
//! What waits is in tasks of the table's own, so this stream only has to be polled for rows to come in and to leave.
//! A row's time is measured from the moment at which it took its place to that at which the store answered, not to
//! that at which somebody polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder};
use futures::{Stream, StreamExt};
use tokio::time::{Instant, Sleep};

use super::LookupJoin;
use super::join::{Cursor, Joiner, KeyMatch};
use super::keys::KeyFinder;
use super::known::Known;
use super::l1::L1;
use super::mailbox::{Delivery, Mailbox, Outcome};
use super::metric::{self, KeysPerRequest, WaitTimes};
use super::policy::{CachePolicy, LookupPolicy, OnFailure};
use super::queue::{Departure, Next, Queue, Slice};
use super::size::{AnswerSize, share};
use super::skip::SkipLog;
use super::table::LookupTable;
use super::variant::Variant;
use crate::error::{Code, Error, Result};
use crate::quantity::show_duration;

/// The metric of rows that have places now.
pub const ROWS_WAITING: &str = "rows_waiting";

/// Joined rows, as they become ready. Dropped, it lets go of all that it waits for.
pub(super) struct LookupStream {
    input: Input,
    pub(super) table: Arc<LookupTable>,
    pub(super) variant: Arc<Variant>,
    pub(super) policy: LookupPolicy,
    pub(super) finder: KeyFinder,
    pub(super) joiner: Joiner,
    pub(super) queue: Queue,
    pub(super) mailbox: Arc<Mailbox>,
    /// Rows that were read and have found no place yet.
    rest: Option<RecordBatch>,
    departure: Option<(Departure, Cursor)>,
    /// Rows that need no place: they leave before anything else does.
    pub(super) ready: Option<RecordBatch>,
    /// `None` without a partial cache.
    pub(super) l1: Option<L1>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Of the batch that was read last.
    pub(super) row_bytes: u64,
    pub(super) answers: AnswerSize,
    skipped: SkipLog,
    pub(super) metrics: Metrics,
}

enum Input {
    Open(SendableRecordBatchStream),
    Ended,
    /// The error is due once the rows before it have left.
    Failed(Error),
    /// And everything has left.
    Over,
}

pub(super) struct Metrics {
    baseline: BaselineMetrics,
    pub rows: Count,
    pub hits: Count,
    pub misses: Count,
    requests: Count,
    timeouts: Count,
    skipped: Count,
    retries: Count,
    keys_per_request: Arc<KeysPerRequest>,
    waits: Arc<WaitTimes>,
    rows_waiting: Gauge,
    last_request: u64,
}

impl LookupStream {
    pub fn try_new(
        input: SendableRecordBatchStream,
        table: Arc<LookupTable>,
        variant: Arc<Variant>,
        join: &LookupJoin,
        metrics: (&ExecutionPlanMetricsSet, usize),
    ) -> Result<Self> {
        let l1 = match &join.policy.cache {
            CachePolicy::Partial(bounds) => Some(L1::new(Arc::clone(&variant), bounds)),
            CachePolicy::None | CachePolicy::Full(_) => None,
        };
        Ok(LookupStream {
            skipped: SkipLog::new(table.name()),
            joiner: Joiner::try_new(join, &input.schema(), variant.schema())?,
            finder: KeyFinder::new(join, Arc::clone(&variant)),
            queue: Queue::new(join.policy.ordering),
            policy: join.policy.clone(),
            input: Input::Open(input),
            table,
            variant,
            mailbox: Arc::default(),
            rest: None,
            departure: None,
            ready: None,
            l1,
            timer: None,
            row_bytes: 0,
            answers: AnswerSize::new(&join.policy),
            metrics: Metrics::new(metrics.0, metrics.1),
        })
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if matches!(self.input, Input::Over) {
                return Poll::Ready(None);
            }
            self.receive();
            self.expire();
            match self.emit() {
                Ok(Some(batch)) => return Poll::Ready(Some(Ok(batch))),
                Ok(None) => {}
                Err(error) => return self.end_with(Some(error)),
            }
            if self.admit() {
                continue;
            }
            match self.read(cx) {
                Poll::Ready(true) => continue,
                Poll::Ready(false) => {
                    let error = match std::mem::replace(&mut self.input, Input::Over) {
                        Input::Failed(error) => Some(error),
                        Input::Open(_) | Input::Ended | Input::Over => None,
                    };
                    return self.end_with(error);
                }
                Poll::Pending => {}
            }
            if !self.poll_timer(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Takes what has come into the mailbox.
    fn receive(&mut self) {
        for delivery in self.mailbox.take() {
            self.metrics.count_request(&delivery);
            let Some(slice) = self.queue.get(delivery.slice) else { continue };
            self.metrics
                .waits
                .observe(delivery.answered_at.saturating_duration_since(slice.admitted), delivery.keys.len());
            if slice.deadline.is_some_and(|deadline| delivery.answered_at > deadline) {
                let keys = delivery.keys.iter().map(|key| key.position).collect();
                self.time_out_keys(delivery.slice, keys);
                continue;
            }
            self.settle(delivery);
        }
    }

    fn settle(&mut self, delivery: Delivery) {
        match delivery.outcome {
            Outcome::Failed(error) => {
                let mut keys: Vec<u32> = delivery.keys.iter().map(|key| key.position).collect();
                keys.sort_unstable();
                self.fail(delivery.slice, &keys, error);
            }
            Outcome::Answered(rows) => {
                let found: u64 = delivery.keys.iter().map(|key| u64::from(key.rows)).sum();
                let bytes = share(rows.get_array_memory_size() as u64, found, rows.num_rows());
                self.answers.add(delivery.keys.len(), bytes);
                let Some(source) = self.queue.add_source(delivery.slice, rows, bytes) else { return };
                for key in delivery.keys {
                    let found = KeyMatch::Found { source, start: key.start, rows: key.rows };
                    self.queue.settle(delivery.slice, key.position, found);
                }
            }
        }
    }

    fn fail(&mut self, slice: u64, keys: &[u32], error: Error) {
        let keys = &self.serve_stale(slice, keys);
        match self.policy.on_failure {
            OnFailure::Fail if keys.is_empty() => {}
            OnFailure::Fail => self.queue.fail(slice, keys, error),
            OnFailure::NoMatch => keys.iter().for_each(|key| self.queue.settle(slice, *key, KeyMatch::NONE)),
            OnFailure::Skip => {
                let rows = self.queue.get(slice).map_or(0, |slice| slice.rows_of(keys));
                self.table.count.skipped.fetch_add(rows as u64, Relaxed);
                self.metrics.skipped.add(rows);
                self.skipped.note(rows, &error);
                keys.iter().for_each(|key| self.queue.settle(slice, *key, KeyMatch::Skipped));
            }
        }
    }

    /// Lets expired answers serve, where they may, and returns the keys for which there is none.
    fn serve_stale(&mut self, id: u64, keys: &[u32]) -> Vec<u32> {
        let cache = self.table.cache.as_ref().filter(|cache| cache.serves_stale());
        let Some(slice) = self.queue.get(id) else { return keys.to_vec() };
        let (Some(cache), Some(batch_keys)) = (cache, &slice.keys) else { return keys.to_vec() };
        let seen = (self.table.flights.epoch().generation, Instant::now());
        let mut known = Known::new(&self.table, Some(cache), &self.variant, batch_keys, seen);
        let (mut served, failed): (Vec<u32>, Vec<u32>) =
            keys.iter().partition(|key| slice.is_pending(**key) && known.probe_stale(**key));
        // Rows that cannot be read fail as their lookup did.
        let Ok((matches, sources)) = known.into_matches() else { return keys.to_vec() };
        served.sort_unstable();
        self.table.count.stale.fetch_add(slice.rows_of(&served) as u64, Relaxed);
        let first = slice.left.sources.len() as u32;
        for rows in sources {
            let bytes = rows.get_array_memory_size() as u64;
            self.queue.add_source(id, rows, bytes);
        }
        for key in served {
            self.queue.settle(id, key, matches[key as usize].moved_by(first));
        }
        failed
    }

    /// Times out the slices whose deadline has passed, and sets the timer for the next one.
    fn expire(&mut self) {
        while let Some((id, deadline)) = self.queue.next_deadline() {
            if deadline > Instant::now() {
                return self.set_timer(deadline);
            }
            let ask = self.queue.get(id).and_then(|slice| slice.ask.as_ref());
            let mut in_delivery = ask.map_or_else(Vec::new, |ask| ask.time_out(deadline));
            in_delivery.sort_unstable();
            // Nothing is delivered to this slice any more but what is in delivery: what is pending now is late.
            self.receive();
            let pending = self.queue.get(id).map_or_else(Vec::new, Slice::pending_keys);
            let late = pending.into_iter().filter(|key| in_delivery.binary_search(key).is_err()).collect();
            self.time_out_keys(id, late);
            if !in_delivery.is_empty() {
                return;
            }
        }
    }

    fn time_out_keys(&mut self, id: u64, mut keys: Vec<u32>) {
        let Some(slice) = self.queue.get(id) else { return };
        keys.retain(|key| slice.is_pending(*key));
        keys.sort_unstable();
        let rows = slice.rows_of(&keys);
        if keys.is_empty() {
            return;
        }
        self.table.count.timeouts.fetch_add(rows as u64, Relaxed);
        self.metrics.timeouts.add(rows);
        let limit = show_duration(self.policy.timeout.unwrap_or_default());
        let message = format!("lookup in \"{}\" timed out after {limit}", self.table.name());
        self.fail(id, &keys, Error::new(Code::StoreFailed, message));
    }

    /// The next batch of rows that may leave.
    fn emit(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.ready.take() {
            return Ok(Some(batch));
        }
        loop {
            if self.departure.is_none() {
                match self.queue.next() {
                    Next::Leaves(departure) => self.departure = Some((departure, Cursor::default())),
                    Next::Fails(error) => return Err(error),
                    Next::Waits => return Ok(None),
                }
            }
            let Some((departure, cursor)) = &mut self.departure else { continue };
            let Some(slice) = self.queue.get(departure.slice) else {
                return Err(Error::internal("rows left a lookup join twice"));
            };
            if let Some(batch) = self.joiner.next_batch(&slice.left, &departure.rows, cursor)? {
                return Ok(Some(batch));
            }
            self.queue.leave(departure)?;
            self.departure = None;
        }
    }

    /// Gives places to rows that were read, as far as there are places. False if none took one.
    fn admit(&mut self) -> bool {
        let places = self.places();
        if places == 0 || self.queue.has_failed() {
            return false;
        }
        let Some(batch) = self.rest.take() else { return false };
        let rows = places.min(batch.num_rows());
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        if let Err(error) = self.admit_slice(batch.slice(0, rows)) {
            self.rest = None;
            self.input = Input::Failed(error);
        }
        true
    }

    /// How many more rows may wait, by their number and by their bytes. One row may, however large it is.
    fn places(&self) -> usize {
        let places = self.policy.capacity.get().saturating_sub(self.queue.rows());
        let room = self.policy.capacity_bytes.get().saturating_sub(self.queue.bytes());
        let row_bytes = (self.row_bytes + self.answers.bytes_per_key()).max(1);
        let by_bytes = usize::try_from(room / row_bytes).unwrap_or(usize::MAX);
        places.min(by_bytes.max(usize::from(self.queue.is_empty())))
    }

    /// Reads from the input if rows may come in. False once nothing will leave any more.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.queue.has_failed() {
            return Poll::Pending;
        }
        let Input::Open(input) = &mut self.input else {
            return if self.queue.is_empty() { Poll::Ready(false) } else { Poll::Pending };
        };
        let is_full = !self.queue.is_empty() && self.queue.bytes() >= self.policy.capacity_bytes.get();
        if self.rest.is_some() || is_full || self.queue.rows() >= self.policy.capacity.get() {
            return Poll::Pending;
        }
        match std::task::ready!(input.poll_next_unpin(cx)) {
            Some(Ok(batch)) if batch.num_rows() > 0 => {
                self.row_bytes = share(batch.get_array_memory_size() as u64, 1, batch.num_rows());
                self.rest = Some(batch);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => self.input = Input::Failed(error.into()),
            None => self.input = Input::Ended,
        }
        Poll::Ready(true)
    }

    fn set_timer(&mut self, deadline: Instant) {
        match &mut self.timer {
            Some(timer) if timer.deadline() == deadline => {}
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
    }

    /// Whether a deadline has passed; if not, its passing wakes this task.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        if self.queue.next_deadline().is_none() {
            self.timer = None;
        }
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    /// Nothing follows: lets go of input and answers at once, though the stream may be kept.
    fn end_with(&mut self, error: Option<Error>) -> Poll<Option<Result<RecordBatch>>> {
        self.input = Input::Over;
        self.rest = None;
        self.departure = None;
        self.ready = None;
        self.timer = None;
        self.queue = Queue::new(self.policy.ordering);
        Poll::Ready(error.map(Err))
    }
}

impl Stream for LookupStream {
    type Item = datafusion::error::Result<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.mailbox.register(cx.waker());
        let polled = this.advance(cx).map(|next| next.map(|batch| batch.map_err(Into::into)));
        this.metrics.rows_waiting.set(this.queue.rows());
        this.metrics.baseline.record_poll(polled)
    }
}

impl RecordBatchStream for LookupStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.joiner.schema())
    }
}

impl Metrics {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Metrics {
            baseline: BaselineMetrics::new(metrics, partition),
            rows: counter("rows"),
            hits: counter("hits"),
            misses: counter("misses"),
            requests: counter("requests"),
            timeouts: counter("timeouts"),
            skipped: counter("skipped"),
            retries: counter("retries"),
            keys_per_request: metric::register(metrics, "keys_per_request", partition),
            waits: metric::register(metrics, "wait", partition),
            rows_waiting: MetricBuilder::new(metrics).gauge(ROWS_WAITING, partition),
            last_request: 0,
        }
    }

    /// Deliveries of one request to several slices follow one another.
    fn count_request(&mut self, delivery: &Delivery) {
        if delivery.request != self.last_request {
            self.last_request = delivery.request;
            self.requests.add(1);
            self.keys_per_request.count(delivery.cost.keys as u64, 1);
            self.retries.add(delivery.cost.retries);
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
