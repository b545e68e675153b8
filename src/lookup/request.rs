//! The task that carries requests to the store: one for each busy slot, alive while there are keys to carry.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datafusion::arrow::array::{Array, RecordBatch, UInt32Array};
use futures::FutureExt;
use tokio::time::Instant;

use super::cache::Probe;
use super::flight::{Completion, KeyResult, Patience, Request, RequestKey};
use super::join::take_rows;
use super::mailbox::Outcome;
use super::table::LookupTable;
use super::variant::Variant;
use crate::error::{Code, Error, Result};
use crate::store::{Answer, LookupRequest, StoreError};

/// Holds one slot: carries `first`, then whatever keys have gathered, and gives the slot back.
pub(super) async fn serve(table: Arc<LookupTable>, first: Request) {
    let mut slot = Slot { table, requests: vec![first] };
    loop {
        while let Some(request) = slot.requests.last_mut() {
            let error = run(&slot.table, request).await;
            let Some(request) = slot.requests.pop() else { break };
            if let Some(error) = error {
                slot.requests.extend(settle_failure(&slot.table, request, error));
            }
        }
        let next = slot.table.flights.next_request();
        slot.table.keep_time();
        let Some(next) = next else { return };
        slot.requests.push(next);
    }
}

/// Wakes when keys have waited long enough for company, or have rested, and sends them.
pub(super) async fn keep_time(table: Arc<LookupTable>) {
    loop {
        if !table.flights.sleep().await {
            continue;
        }
        let (requests, goes_on) = table.flights.ring();
        table.spawn(requests);
        if !goes_on {
            return;
        }
    }
}

/// A task may be ended from outside, with the runtime or by a panic: then the slot must not stay busy.
struct Slot {
    table: Arc<LookupTable>,
    /// The last one is at the store, or next.
    requests: Vec<Request>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.requests.is_empty() {
            let error = Error::internal(format!("the request to lookup table \"{}\" was ended", self.table.name()));
            self.table.flights.give_up_slot(&self.requests, &error);
        }
    }
}

/// Carries one request. An error is returned if the store did not answer.
async fn run(table: &LookupTable, request: &mut Request) -> Option<StoreError> {
    // Stores find keys faster in their own order.
    request.keys.sort_unstable_by(|a, b| a.row().cmp(&b.row()));
    let answer = match ask_store(table, request).await? {
        Ok(answer) => answer,
        Err(error) => return Some(error),
    };
    let at = Instant::now();
    let asks_again = |key: &RequestKey| table.policy().retry.on_miss && has_attempts(table, key);
    // Where keys may be asked for again, it is not known yet which of them are answered.
    if !request.keys.iter().any(asks_again) {
        table.flights.answered(request.id, at);
    }
    let answered = ByKey::try_new(table.name(), &request.variant, request.keys.len(), answer).and_then(|answer| {
        fill_cache(table, request, &answer, &asks_again)?;
        Ok(answer)
    });
    let answer = match answered {
        Ok(answer) => answer,
        Err(error) => return Some(StoreError::Invalid(error)),
    };
    let results = request.keys.iter().zip(&answer.rows_of_key).map(|(key, (start, rows))| match rows {
        0 if asks_again(key) => KeyResult::Again,
        rows => KeyResult::Rows { start: *start, rows: *rows },
    });
    complete(table, request, &results.collect::<Vec<_>>(), &Outcome::Answered(answer.rows), at);
    None
}

/// What becomes of a request that the store did not answer: others in its place, another attempt, or the error.
fn settle_failure(table: &LookupTable, request: Request, error: StoreError) -> Vec<Request> {
    if error.is_about_keys() && request.keys.len() > 1 {
        return table.flights.split(request);
    }
    table.count.failures.fetch_add(1, Relaxed);
    let is_transient = error.is_transient();
    let results = request.keys.iter().map(|key| match is_transient && has_attempts(table, key) {
        true => KeyResult::Again,
        false => KeyResult::Rows { start: 0, rows: 0 },
    });
    let results: Vec<KeyResult> = results.collect();
    let error = error.into_error(table.name());
    table.count.last_error.note(&error);
    complete(table, &request, &results, &Outcome::Failed(error), Instant::now());
    Vec::new()
}

fn has_attempts(table: &LookupTable, key: &RequestKey) -> bool {
    key.attempt < table.policy().retry.max_attempts.get()
}

fn complete(table: &LookupTable, request: &Request, results: &[KeyResult], outcome: &Outcome, at: Instant) {
    let again = request.keys.iter().zip(results).filter(|(_, result)| **result == KeyResult::Again);
    let attempt = again.clone().map(|(key, _)| key.attempt).max().unwrap_or(1);
    table.count.retries.fetch_add(again.count() as u64, Relaxed);
    let rest_until = at + table.policy().retry.rest_after(attempt, request.id);
    table.flights.complete(
        request.id,
        &request.keys,
        &Completion { variant: &request.variant, results, outcome, at, rest_until },
    );
}

/// `None`: nobody waits any more, and the request was dropped.
async fn ask_store(table: &LookupTable, request: &Request) -> Option<Result<Answer, StoreError>> {
    let keys = match request.variant.decode_keys(request.keys.iter().map(|key| key.row())) {
        Ok(keys) => keys,
        Err(error) => return Some(Err(StoreError::Invalid(error))),
    };
    let started = Instant::now();
    table.count.requests.fetch_add(1, Relaxed);
    table.count.keys.fetch_add(request.keys.len() as u64, Relaxed);
    table.count.batch_keys.observe(request.keys.len() as u64);
    let to_store = LookupRequest {
        shape: Arc::clone(request.variant.shape()),
        keys,
        max_answer_bytes: table.policy().max_answer_bytes.get(),
    };
    let answer = AssertUnwindSafe(async { table.store().lookup(&to_store).await }).catch_unwind();
    tokio::pin!(answer);
    loop {
        let patience = table.flights.patience(request.id, Instant::now());
        let impatience = async {
            match patience {
                Patience::Forever => std::future::pending().await,
                Patience::Until(deadline) => tokio::time::sleep_until(deadline).await,
                Patience::Over => {}
            }
        };
        tokio::select! {
            biased;
            answer = &mut answer => {
                table.count.latency.observe(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
                return Some(read_outcome(table.name(), answer));
            }
            () = request.abandoned.notified() => return None,
            () = impatience => if patience == Patience::Over { return None },
        }
    }
}

fn read_outcome(table: &str, outcome: std::thread::Result<Result<Answer, StoreError>>) -> Result<Answer, StoreError> {
    match outcome {
        Ok(answer) => answer,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
            let error = Error::internal(format!("the store of lookup table \"{table}\" panicked"));
            Err(error.with_detail(format!("{text}.")).into())
        }
    }
}

/// An answer whose rows stand together by key.
struct ByKey {
    rows: RecordBatch,
    /// Of each key of the request: where its rows start, and how many there are.
    rows_of_key: Vec<(u32, u32)>,
}

impl ByKey {
    /// # Errors
    /// HV000 if the store answers what was not asked.
    fn try_new(table: &str, variant: &Variant, keys: usize, answer: Answer) -> Result<Self> {
        let Answer { rows, key_of_row } = answer;
        let wrong = |what: String| Error::new(Code::StoreFailed, format!("lookup in \"{table}\" failed: {what}"));
        if key_of_row.len() != rows.num_rows() || key_of_row.null_count() > 0 {
            let (positions, rows) = (key_of_row.len() - key_of_row.null_count(), rows.num_rows());
            return Err(wrong(format!("the store gave {positions} key positions for {rows} rows")));
        }
        let types = |batch: &RecordBatch| batch.columns().iter().map(|c| c.data_type().clone()).collect::<Vec<_>>();
        let expected: Vec<_> = variant.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        if types(&rows) != expected {
            return Err(wrong(format!("the store gave columns of other types than {expected:?}")));
        }
        let mut rows_of_key = vec![(0_u32, 0_u32); keys];
        for key in key_of_row.values() {
            match rows_of_key.get_mut(*key as usize) {
                Some((_, count)) => *count += 1,
                None => return Err(wrong(format!("the store gave a row for key {key} of {keys}"))),
            }
        }
        let mut start = 0;
        for (key_start, count) in &mut rows_of_key {
            *key_start = start;
            start += *count;
        }
        let rows = match key_of_row.values().is_sorted() {
            true => rows,
            false => take_rows(&rows, &order_by_key(&key_of_row, &rows_of_key))?,
        };
        Ok(ByKey { rows, rows_of_key })
    }
}

/// The rows of each key together, in the store's order.
fn order_by_key(key_of_row: &UInt32Array, rows_of_key: &[(u32, u32)]) -> UInt32Array {
    let mut next: Vec<u32> = rows_of_key.iter().map(|(start, _)| *start).collect();
    let mut order = vec![0_u32; key_of_row.len()];
    for (row, key) in key_of_row.values().iter().enumerate() {
        let place = &mut next[*key as usize];
        order[*place as usize] = row as u32;
        *place += 1;
    }
    UInt32Array::from(order)
}

/// Before the flights end, so that a key is always in the cache or in flight. A miss is remembered only after the last
/// attempt.
fn fill_cache(
    table: &LookupTable,
    request: &Request,
    answer: &ByKey,
    asks_again: &impl Fn(&RequestKey) -> bool,
) -> Result<()> {
    let Some(cache) = &table.cache else { return Ok(()) };
    if !request.keys.iter().any(|key| key.fills_cache) {
        return Ok(());
    }
    let encoded = request.variant.encode_rows(&answer.rows)?;
    let filling = cache.fill();
    let cacheable = table.flights.cacheable(request);
    for ((key, (start, rows)), _) in
        request.keys.iter().zip(&answer.rows_of_key).zip(cacheable).filter(|(_, cacheable)| *cacheable)
    {
        if *rows == 0 && asks_again(key) {
            continue;
        }
        let probe = Probe { variant: &request.variant, hash: key.hash, key: key.row().data() };
        filling.put(probe, encoded.as_ref(), *start, *rows, request.generation);
    }
    filling.settle();
    Ok(())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
