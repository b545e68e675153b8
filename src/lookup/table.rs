//! A lookup table: the store behind it and all that its queries share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use chrono::{DateTime, Utc};
use tokio_util::task::TaskTracker;

use super::cache::AnswerCache;
use super::flight::{Flights, Request};
use super::hearing::Hearing;
use super::policy::{CachePolicy, LookupPolicy, PartialCache};
use super::request;
use super::variant::Variant;
use crate::error::{Error, Result};
use crate::store::breaker::{Breaker, BreakerStore};
use crate::store::full::{FullState, FullStore};
use crate::store::limit::LimitStore;
use crate::store::{LookupShape, Store};
use crate::telemetry::{Distribution, Histogram};

/// One declared lookup table. Cache, flights, slots and counters are the table's: all queries share them.
pub struct LookupTable {
    name: String,
    store: Arc<dyn Store>,
    /// The store itself, where it is held whole.
    pub(super) full: Option<Arc<FullStore>>,
    breaker: Option<Arc<Breaker>>,
    policy: LookupPolicy,
    pub(super) cache: Option<AnswerCache>,
    pub(super) flights: Arc<Flights>,
    pub(super) count: Counts,
    variants: Mutex<HashMap<Arc<LookupShape>, Weak<Variant>>>,
    requests: TaskTracker,
    /// How often something was forgotten, see [`LookupTable::invalidations`].
    pub(super) invalidations: AtomicU64,
    /// `None` if the store tells of no changes.
    pub(super) hearing: Option<Hearing>,
}

/// What happened at a table since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupCounters {
    /// Rows that had a key to look up.
    pub rows: u64,
    /// Of these, rows that the cache answered, remembered misses included.
    pub hits: u64,
    /// Of these, rows that waited for the store.
    pub misses: u64,
    /// Requests sent to the store.
    pub requests: u64,
    /// Keys in these requests.
    pub keys: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Rows whose wait was longer than `timeout`.
    pub timeouts: u64,
    /// Attempts beyond the first, of keys that failed or were not found.
    pub retries: u64,
    /// Rows that `on_failure = 'skip'` dropped.
    pub skipped: u64,
    /// Rows that an expired answer served because the store failed.
    pub stale: u64,
    /// Keys that were asked for anew while their old answer served.
    pub refreshes: u64,
    /// Rows in the cache now, a remembered miss counting as one.
    pub cached_rows: u64,
    /// Bytes of the cache now.
    pub cached_bytes: u64,
    /// Requests at the store now.
    pub in_flight: u64,
}

impl LookupCounters {
    /// `None` before the first request.
    pub fn keys_per_request(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.keys as f64 / self.requests as f64)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub rows: AtomicU64,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub requests: AtomicU64,
    pub keys: AtomicU64,
    pub failures: AtomicU64,
    pub timeouts: AtomicU64,
    pub retries: AtomicU64,
    pub skipped: AtomicU64,
    pub stale: AtomicU64,
    pub refreshes: AtomicU64,
    /// Of requests, in microseconds, from leaving to answer or error.
    pub latency: Histogram,
    /// Keys of each request.
    pub batch_keys: Histogram,
    pub last_error: LastError,
}

/// The last thing that went wrong, and when.
#[derive(Debug, Default)]
pub struct LastError(Mutex<Option<(DateTime<Utc>, String)>>);

impl LastError {
    pub fn note(&self, error: &Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Utc::now(), error.message().to_string()));
    }

    pub fn get(&self) -> Option<(DateTime<Utc>, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LookupTable {
    /// A table over `store`, around which go the limit, the breaker and the full cache that the policy wants. Where the
    /// store is to tell of changes, a task listens from now on: there must be a runtime.
    pub fn new(name: String, store: Arc<dyn Store>, policy: LookupPolicy) -> Arc<Self> {
        let (store, breaker) = guarded(store, &policy);
        let (cache, full) = match &policy.cache {
            CachePolicy::None => (None, None),
            CachePolicy::Full(full) => {
                (None, Some(Arc::new(FullStore::new(name.clone(), Arc::clone(&store), full.clone()))))
            }
            CachePolicy::Partial(cache) => (Some(AnswerCache::new(cache)), None),
        };
        let store = full.as_ref().map_or(store, |full| Arc::clone(full) as _);
        let hearing = match &policy.cache {
            CachePolicy::Partial(PartialCache { told_by: Some(told_by), .. }) => Some(Hearing::new(told_by)),
            _ => None,
        };
        let table = Arc::new(LookupTable {
            name,
            store,
            full,
            breaker,
            flights: Flights::new(policy.max_in_flight),
            policy,
            cache,
            count: Counts::default(),
            variants: Mutex::default(),
            requests: TaskTracker::new(),
            invalidations: AtomicU64::new(0),
            hearing,
        });
        table.hearing.iter().for_each(|hearing| hearing.start(&table));
        table
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn policy(&self) -> &LookupPolicy {
        &self.policy
    }

    pub fn counters(&self) -> LookupCounters {
        let full = self.full_state().unwrap_or_default();
        LookupCounters {
            rows: self.count.rows.load(Relaxed),
            hits: self.count.hits.load(Relaxed),
            misses: self.count.misses.load(Relaxed),
            requests: self.count.requests.load(Relaxed),
            keys: self.count.keys.load(Relaxed),
            failures: self.count.failures.load(Relaxed),
            timeouts: self.count.timeouts.load(Relaxed),
            retries: self.count.retries.load(Relaxed),
            skipped: self.count.skipped.load(Relaxed),
            stale: self.count.stale.load(Relaxed),
            refreshes: self.count.refreshes.load(Relaxed),
            cached_bytes: self.cache.as_ref().map_or(full.bytes, AnswerCache::bytes),
            cached_rows: self.cache.as_ref().map_or(full.rows, AnswerCache::rows),
            in_flight: self.flights.busy() as u64,
        }
    }

    /// The last failure of a request or of a load, and when it was.
    pub fn last_error(&self) -> Option<(DateTime<Utc>, String)> {
        let of_load = self.full_state().and_then(|state| state.last_error);
        let of_load = of_load.map(|(at, error)| (at, error.message().to_string()));
        self.count.last_error.get().into_iter().chain(of_load).max_by_key(|(at, _)| *at)
    }

    /// What is held of the table and how its last load went; `None` if its cache is not full.
    pub fn full_state(&self) -> Option<FullState> {
        self.full.as_ref().map(|full| full.state())
    }

    /// "closed", "open" or "half-open"; `None` if the table has no circuit breaker.
    pub fn breaker_state(&self) -> Option<&'static str> {
        self.breaker.as_ref().map(|breaker| breaker.state())
    }

    /// How long requests took, in microseconds.
    pub fn latency(&self) -> Distribution {
        self.count.latency.distribution()
    }

    /// How many keys requests had.
    pub fn batch_keys(&self) -> Distribution {
        self.count.batch_keys.distribution()
    }

    /// What joins of this shape share. It lives as long as a join or a cached answer refers to it.
    pub(super) fn variant(&self, shape: &Arc<LookupShape>) -> Result<Arc<Variant>> {
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = variants.get(shape).and_then(Weak::upgrade) {
            return Ok(known);
        }
        variants.retain(|_, variant| variant.strong_count() > 0);
        let others: Vec<Arc<Variant>> = variants.values().filter_map(Weak::upgrade).collect();
        let variant = Arc::new(Variant::try_new(Arc::clone(shape), &self.store.schema(), &others)?);
        variants.insert(Arc::clone(shape), Arc::downgrade(&variant));
        Ok(variant)
    }

    /// All that a join or a cached answer refers to.
    pub(super) fn variants(&self) -> Vec<Arc<Variant>> {
        let variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        variants.values().filter_map(Weak::upgrade).collect()
    }

    /// Variants whose answers hold all that this one's would, with the places of its columns. Each costs a look into
    /// the cache for each key that is not known, so not more than a few are named.
    pub(super) fn wider(&self, variant: &Variant) -> Vec<(Arc<Variant>, Vec<usize>)> {
        const MOST: usize = 4;
        let all = self.variants().into_iter();
        all.filter_map(|other| variant.columns_in(&other).map(|columns| (other, columns))).take(MOST).collect()
    }

    /// Gives each request a task of the table's own, which moves while nobody polls the query.
    pub(super) fn send(self: &Arc<Self>, requests: Vec<Request>) {
        self.spawn(requests);
        self.keep_time();
    }

    pub(super) fn spawn(self: &Arc<Self>, requests: Vec<Request>) {
        for request in requests {
            self.requests.spawn(request::serve(Arc::clone(self), request));
        }
    }

    /// Keys that wait for company or rest have somebody who wakes for them.
    pub(super) fn keep_time(self: &Arc<Self>) {
        if self.flights.set_alarm() {
            self.requests.spawn(request::keep_time(Arc::clone(self)));
        }
    }

    #[cfg(test)]
    pub(super) fn tasks(&self) -> usize {
        self.requests.len()
    }
}

/// The breaker counts attempts that reached the store: those that wait for the limit have not failed.
fn guarded(store: Arc<dyn Store>, policy: &LookupPolicy) -> (Arc<dyn Store>, Option<Arc<Breaker>>) {
    let limited: Arc<dyn Store> = match policy.rate_limit {
        Some(rate) => Arc::new(LimitStore::new(store, rate)),
        None => store,
    };
    match &policy.circuit_breaker {
        Some(breaker) => {
            let guarded = BreakerStore::new(limited, breaker.clone());
            let breaker = guarded.breaker();
            (Arc::new(guarded), Some(breaker))
        }
        None => (limited, None),
    }
}

impl fmt::Debug for LookupTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupTable").field("name", &self.name).field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use datafusion::arrow::array::Int64Array;

    use super::super::policy::BreakerPolicy;
    use super::super::scripted::{Reply, ScriptedStore};
    use super::*;
    use crate::store::Conditions;
    use crate::store::{LookupRequest, StoreError};

    #[tokio::test(start_paused = true)]
    async fn breaker_stands_before_the_limit_and_its_state_can_be_read() {
        let store = ScriptedStore::new(|_| {
            Reply::Fail(Duration::ZERO, StoreError::Unavailable { message: "it is down".to_string() })
        });
        let one = NonZeroU32::MIN;
        let policy = LookupPolicy {
            rate_limit: Some(one),
            circuit_breaker: Some(BreakerPolicy { failures: one.saturating_add(1), open_for: Duration::from_secs(10) }),
            ..LookupPolicy::default()
        };
        let table = LookupTable::new("t".to_string(), Arc::clone(&store) as _, policy);
        let shape = LookupShape { key_columns: vec![0], columns: vec![], filters: Conditions::default() };
        let request = LookupRequest {
            shape: Arc::new(shape),
            keys: vec![Arc::new(Int64Array::from(vec![1]))],
            max_answer_bytes: u64::MAX,
        };
        let began = tokio::time::Instant::now();
        for nth in 0..5 {
            assert_eq!(table.breaker_state(), Some(if nth < 2 { "closed" } else { "open" }));
            assert!(table.store().lookup(&request).await.is_err());
        }
        assert_eq!(store.requests().len(), 2);
        assert_eq!(
            began.elapsed(),
            Duration::from_secs(1),
            "the second waited for its place, the others failed at once"
        );
        let unguarded = LookupTable::new("t".to_string(), store, LookupPolicy::default());
        assert_eq!(unguarded.breaker_state(), None);
    }
}
