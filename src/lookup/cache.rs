//! The answers that a table remembers: bounds for all its joins together, entries that know until when they may serve.
//!
//! Moka does the bounding and the choosing of what to keep. Expiry is ours: moka's clock cannot be paused by tests, and
//! what may serve once it is stale must not be deleted.

use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use ahash::RandomState;
use datafusion::arrow::row::Rows;
use hashbrown::Equivalent;
use moka::sync::Cache;
use tokio::time::Instant;

use super::answer::{AnswerRows, CachedAnswer, Held, NEVER, Term, Tick};
use super::policy::PartialCache;
use super::variant::Variant;

pub(super) struct AnswerCache {
    entries: Cache<CacheKey, Arc<CachedAnswer>, RandomState>,
    bounds: Bounds,
    started: Instant,
    expire_after_write: Option<Duration>,
    expire_after_access: Option<Duration>,
    expire_misses_after: Option<Duration>,
    refresh_after: Option<Duration>,
    serve_stale_for: Duration,
    /// Held for reading while answers go in, for writing while some are forgotten: so no answer that was asked for
    /// before comes in after. What is kept here is new after each forgetting of everything.
    held: RwLock<Arc<Held>>,
}

/// A key as the cache is asked for it. `hash` is that of [`Variant::hash_key`].
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub variant: &'a Arc<Variant>,
    pub hash: u64,
    pub key: &'a [u8],
}

/// Answers go in while this is held; nothing is forgotten meanwhile.
pub(super) struct Filling<'a> {
    cache: &'a AnswerCache,
    held: RwLockReadGuard<'a, Arc<Held>>,
}

impl AnswerCache {
    pub fn new(policy: &PartialCache) -> Self {
        let bounds = Bounds::new(policy.max_rows, policy.max_bytes);
        let entries = Cache::builder()
            .max_capacity(bounds.capacity)
            .weigher(move |_: &CacheKey, answer: &Arc<CachedAnswer>| bounds.weight(answer.rows(), answer.held_bytes()))
            .eviction_listener(|_, answer, _| answer.leave())
            .build_with_hasher(RandomState::new());
        AnswerCache {
            entries,
            bounds,
            started: Instant::now(),
            expire_after_write: policy.expire_after_write,
            expire_after_access: policy.expire_after_access,
            expire_misses_after: policy.expire_misses_after,
            refresh_after: policy.refresh_after,
            serve_stale_for: policy.serve_stale_for,
            held: RwLock::default(),
        }
    }

    pub fn tick(&self, now: Instant) -> Tick {
        nanoseconds(now.saturating_duration_since(self.started))
    }

    /// The answer, unless it has expired or was asked for in another generation, of the table or of its variant.
    pub fn get(&self, probe: Probe<'_>, generation: u64, now: Tick) -> Option<Arc<CachedAnswer>> {
        let answer = self.entries.get(&probe)?;
        if answer.generation() != generation + probe.variant.generation() || now >= answer.expires() {
            return None;
        }
        answer.touch(now);
        Some(answer)
    }

    /// The answer, expired or not, for as long as it may serve when the store fails.
    pub fn get_stale(&self, probe: Probe<'_>, generation: u64, now: Tick) -> Option<Arc<CachedAnswer>> {
        let until = |answer: &CachedAnswer| answer.expires().saturating_add(nanoseconds(self.serve_stale_for));
        let generation = generation + probe.variant.generation();
        self.entries.get(&probe).filter(|answer| answer.generation() == generation && now < until(answer))
    }

    /// Whether an expired answer may serve at all.
    pub fn serves_stale(&self) -> bool {
        !self.serve_stale_for.is_zero()
    }

    /// Whether the caller is to ask for this answer anew.
    pub fn claims_refresh(&self, answer: &CachedAnswer, now: Tick) -> bool {
        self.refresh_after.is_some_and(|after| answer.claims_refresh(now, nanoseconds(after)))
    }

    pub fn fill(&self) -> Filling<'_> {
        Filling { cache: self, held: self.held.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Forgets everything, and returns how much that was. `mark` says so to those whose answers are still to come.
    pub fn forget_all(&self, mark: impl FnOnce()) -> u64 {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        mark();
        let forgotten = std::mem::take(&mut *held).entries.load(Relaxed);
        self.entries.invalidate_all();
        drop(held);
        self.entries.run_pending_tasks();
        forgotten
    }

    /// Forgets these keys, and returns how many there were. `mark` is as in [`AnswerCache::forget_all`].
    pub fn forget<'a>(&self, mark: impl FnOnce(), keys: impl Iterator<Item = Probe<'a>>) -> u64 {
        let held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        mark();
        let forgotten = keys.filter(|key| self.entries.remove(key).is_some()).count();
        drop(held);
        self.entries.run_pending_tasks();
        forgotten as u64
    }

    /// Lets what is known of one variant serve no more; it makes room in the course of time. `mark` says so to those
    /// whose answers are still to come.
    pub fn forget_variant(&self, mark: impl FnOnce()) {
        let held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        mark();
        drop(held);
    }

    /// Rows held now, a remembered miss counting as one.
    pub fn rows(&self) -> u64 {
        self.held.read().unwrap_or_else(PoisonError::into_inner).rows.load(Relaxed)
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.held.read().unwrap_or_else(PoisonError::into_inner).bytes.load(Relaxed)
    }

    /// How long an answer of `rows` rows may serve; `None`: not at all. Lifetimes are cut by up to a tenth, by key, so
    /// that what was written together does not expire together.
    fn term(&self, rows: u32, hash: u64, generation: u64) -> Option<Term> {
        let lifetime = if rows == 0 { Some(self.expire_misses_after?) } else { self.expire_after_write };
        let jittered = |lifetime: Duration| {
            let lifetime = nanoseconds(lifetime);
            lifetime - ((u128::from(lifetime / 10) * u128::from(hash >> 32)) >> 32) as u64
        };
        let written = self.tick(Instant::now());
        Some(Term {
            written,
            until: lifetime.map_or(NEVER, |lifetime| written.saturating_add(jittered(lifetime))),
            after_access: self.expire_after_access.map_or(NEVER, jittered),
            refresh_at: self.refresh_after.map_or(NEVER, |after| written.saturating_add(nanoseconds(after))),
            generation,
        })
    }
}

impl Filling<'_> {
    /// Remembers one key's rows, which stand at `start` in `encoded`, or that there are none; what was known before is
    /// forgotten in any case. `generation` is that from before the request.
    pub fn put(&self, probe: Probe<'_>, encoded: Option<&Rows>, start: u32, count: u32, generation: u64) {
        let entries = &self.cache.entries;
        match self.entry(probe, encoded, start, count, generation) {
            Some(answer) => {
                let key = CacheKey { variant: Arc::clone(probe.variant), hash: probe.hash, key: probe.key.into() };
                entries.insert(key, Arc::new(answer));
            }
            None => entries.invalidate(&probe),
        }
    }

    /// `None` for what is not to be remembered, or is larger than a bound.
    fn entry(
        &self,
        probe: Probe<'_>,
        encoded: Option<&Rows>,
        start: u32,
        count: u32,
        generation: u64,
    ) -> Option<CachedAnswer> {
        let term = self.cache.term(count, probe.hash, generation)?;
        let rows = AnswerRows::copied(encoded, start, count)?;
        let held_bytes = entry_bytes(probe.key, &rows)?;
        let fits = self.cache.bounds.admit(count, held_bytes);
        fits.then(|| CachedAnswer::new(rows, held_bytes, term, Arc::clone(&self.held)))
    }

    /// Brings the bounds into force after many [`Filling::put`]s; moka itself would wait for a better moment.
    pub fn settle(self) {
        self.cache.entries.run_pending_tasks();
    }
}

/// What an entry takes beside its key and rows: our part of it, moka's nodes, hash table and frequency sketch, and
/// what allocators round up and hold back while requests are under way. From the resident memory of a server through whose
/// cache ten million keys went: `tests/soak/run memory`.
const ENTRY_BYTES: usize = 576;

/// All that an entry takes; `None` for 4 GiB and more.
fn entry_bytes(key: &[u8], rows: &AnswerRows) -> Option<u32> {
    let [bytes, ends] = rows.allocated();
    let allocated: usize = [key.len(), bytes, ends].map(|size| size.next_multiple_of(16)).iter().sum();
    u32::try_from(ENTRY_BYTES + allocated).ok()
}

/// Both bounds as one: an entry weighs its share of rows or of bytes, whichever is larger.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    max_rows: u64,
    max_bytes: u64,
    /// What all entries together may weigh.
    capacity: u64,
}

impl Bounds {
    /// Moka's weights have 32 bits. So fine a scale hides nothing: no entry weighs less than one.
    const FINEST: u64 = 1 << 31;

    fn new(max_rows: Option<NonZeroU64>, max_bytes: Option<NonZeroU64>) -> Self {
        let (max_rows, max_bytes) = (max_rows.map(NonZeroU64::get), max_bytes.map(NonZeroU64::get));
        let finest = [max_rows, max_bytes].into_iter().flatten().max().unwrap_or(u64::MAX);
        Bounds {
            max_rows: max_rows.unwrap_or(u64::MAX),
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            capacity: finest.min(Self::FINEST),
        }
    }

    fn admit(&self, rows: u32, bytes: u32) -> bool {
        u64::from(rows) <= self.max_rows && u64::from(bytes) <= self.max_bytes
    }

    fn weight(&self, rows: u32, bytes: u32) -> u32 {
        let share = |part: u32, of: u64| (u128::from(part) * u128::from(self.capacity)).div_ceil(u128::from(of));
        let weight = share(rows.max(1), self.max_rows).max(share(bytes, self.max_bytes));
        u32::try_from(weight).unwrap_or(u32::MAX)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

struct CacheKey {
    variant: Arc<Variant>,
    hash: u64,
    key: Box<[u8]>,
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.variant.id() == other.variant.id() && self.key == other.key
    }
}

impl Eq for CacheKey {}

impl Hash for Probe<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<CacheKey> for Probe<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        self.hash == key.hash && self.variant.id() == key.variant.id() && *self.key == *key.key
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "cache_life_tests.rs"]
mod life_tests;

#[cfg(test)]
#[path = "cache_model_tests.rs"]
mod model_tests;
