//! A lookup table: the store behind it and all that its queries share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::task::TaskTracker;

use super::cache::AnswerCache;
use super::flight::{Flights, Request};
use super::policy::{CachePolicy, LookupPolicy};
use super::request;
use super::variant::Variant;
use crate::error::Result;
use crate::store::{LookupShape, Store};
use crate::telemetry::{Distribution, Histogram};

/// One declared lookup table. Cache, flights, slots and counters are the table's: all queries share them.
pub struct LookupTable {
    name: String,
    store: Arc<dyn Store>,
    policy: LookupPolicy,
    pub(super) cache: Option<AnswerCache>,
    pub(super) flights: Arc<Flights>,
    pub(super) count: Counts,
    variants: Mutex<HashMap<Arc<LookupShape>, Weak<Variant>>>,
    requests: TaskTracker,
    /// How often something was forgotten, see [`LookupTable::invalidations`].
    pub(super) invalidations: AtomicU64,
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
}

impl LookupTable {
    pub fn new(name: String, store: Arc<dyn Store>, policy: LookupPolicy) -> Arc<Self> {
        let cache = match &policy.cache {
            CachePolicy::None | CachePolicy::Full(_) => None,
            CachePolicy::Partial(cache) => Some(AnswerCache::new(cache)),
        };
        Arc::new(LookupTable {
            name,
            store,
            flights: Flights::new(policy.max_in_flight),
            policy,
            cache,
            count: Counts::default(),
            variants: Mutex::default(),
            requests: TaskTracker::new(),
            invalidations: AtomicU64::new(0),
        })
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
            cached_bytes: self.cache.as_ref().map_or(0, AnswerCache::bytes),
            cached_rows: self.cache.as_ref().map_or(0, AnswerCache::rows),
            in_flight: self.flights.busy() as u64,
        }
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

impl fmt::Debug for LookupTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupTable").field("name", &self.name).field("store", &self.store).finish_non_exhaustive()
    }
}
