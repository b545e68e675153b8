//! The task that carries requests to the store: one for each busy slot, alive while there are keys to carry.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datafusion::arrow::array::{Array, RecordBatch, UInt32Array};
use futures::FutureExt;
use tokio::time::Instant;

use super::cache::Probe;
use super::flight::{Patience, Request};
use super::join::take_rows;
use super::mailbox::Outcome;
use super::table::LookupTable;
use super::variant::Variant;
use crate::error::{Code, Error, Result};
use crate::store::{Answer, LookupRequest, StoreError};

/// Holds one slot: carries `first`, then whatever keys have gathered, and gives the slot back.
pub(super) async fn serve(table: Arc<LookupTable>, first: Request) {
    let mut slot = Slot { table, request: Some(first) };
    while let Some(request) = &mut slot.request {
        run(&slot.table, request).await;
        slot.request = slot.table.flights.next_request();
    }
}

/// A task may be ended from outside, with the runtime or by a panic: then the slot must not stay busy.
struct Slot {
    table: Arc<LookupTable>,
    request: Option<Request>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            let error = Error::internal(format!("the request to lookup table \"{}\" was ended", self.table.name()));
            self.table.flights.give_up_slot(request, &error);
        }
    }
}

async fn run(table: &LookupTable, request: &mut Request) {
    // Stores find keys faster in their own order.
    request.keys.sort_unstable_by(|a, b| a.row().cmp(&b.row()));
    let Some(answer) = ask_store(table, request).await else { return };
    let at = Instant::now();
    table.flights.answered(request.id, at);
    let answered = answer.and_then(|answer| {
        let answer = ByKey::try_new(table.name(), &request.variant, request.keys.len(), answer)?;
        fill_cache(table, request, &answer)?;
        Ok(answer)
    });
    let (rows, outcome) = match answered {
        Ok(answer) => (answer.rows_of_key, Outcome::Answered(answer.rows)),
        Err(error) => {
            table.count.failures.fetch_add(1, Relaxed);
            (vec![(0, 0); request.keys.len()], Outcome::Failed(error))
        }
    };
    table.flights.complete(request.id, &request.keys, &rows, &outcome, at);
}

/// `None`: nobody waits any more, and the request was dropped.
async fn ask_store(table: &LookupTable, request: &Request) -> Option<Result<Answer>> {
    let keys = match request.variant.decode_keys(request.keys.iter().map(|key| key.row())) {
        Ok(keys) => keys,
        Err(error) => return Some(Err(error)),
    };
    table.count.requests.fetch_add(1, Relaxed);
    table.count.keys.fetch_add(request.keys.len() as u64, Relaxed);
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
            answer = &mut answer => return Some(read_outcome(table.name(), answer)),
            () = request.abandoned.notified() => return None,
            () = impatience => if patience == Patience::Over { return None },
        }
    }
}

fn read_outcome(table: &str, outcome: std::thread::Result<Result<Answer, StoreError>>) -> Result<Answer> {
    match outcome {
        Ok(answer) => answer.map_err(|error| error.into_error(table)),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
            Err(Error::internal(format!("the store of lookup table \"{table}\" panicked"))
                .with_detail(format!("{text}.")))
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

/// Before the flights end, so that a key is always in the cache or in flight.
fn fill_cache(table: &LookupTable, request: &Request, answer: &ByKey) -> Result<()> {
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
        let probe = Probe { variant: &request.variant, hash: key.hash, key: key.row().data() };
        filling.put(probe, encoded.as_ref(), *start, *rows, request.generation);
    }
    filling.settle();
    Ok(())
}
