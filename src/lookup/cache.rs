//! The answers that a table remembers: one bound for all its joins, entries that know until when they may serve.
//!
//! Moka does the bounding and the choosing of what to keep. Expiry is ours: moka's clock cannot be paused by tests, and
//! what may serve once it is stale must not be deleted.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::row::Rows;
use hashbrown::Equivalent;
use moka::sync::Cache;
use tokio::time::Instant;

use super::join::KeyMatch;
use super::keys::BatchKeys;
use super::variant::Variant;
use crate::error::Result;

pub(super) struct AnswerCache {
    entries: Cache<CacheKey, Arc<CachedAnswer>, RandomState>,
    expire_after_write: Option<Duration>,
    expire_misses_after: Option<Duration>,
}

/// What the store knew of one key, held as bytes of its own: it pins no batch.
pub(super) struct CachedAnswer {
    /// Zero for a key that was not found.
    rows: u32,
    bytes: Box<[u8]>,
    /// Where each row but the last ends in `bytes`.
    ends: Box<[u32]>,
    /// `None`: until it is evicted.
    expires: Option<Instant>,
    generation: u64,
}

impl CachedAnswer {
    /// How many rows the key has.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The bytes of each row, see [`Variant::decode_rows`].
    pub fn encoded_rows(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.rows as usize).map(|row| {
            let end_of = |row: usize| self.ends.get(row).map_or(self.bytes.len(), |end| *end as usize);
            let start = row.checked_sub(1).map_or(0, end_of);
            let end = end_of(row);
            &self.bytes[start..end]
        })
    }
}

/// A key as the cache is asked for it. `hash` is that of [`Variant::hash_key`].
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub variant: &'a Arc<Variant>,
    pub hash: u64,
    pub key: &'a [u8],
}

impl AnswerCache {
    pub fn new(max_rows: u64, expire_after_write: Option<Duration>, expire_misses_after: Option<Duration>) -> Self {
        let entries = Cache::builder()
            .max_capacity(max_rows)
            .weigher(|_: &CacheKey, answer: &Arc<CachedAnswer>| answer.rows.max(1))
            .build_with_hasher(RandomState::new());
        AnswerCache { entries, expire_after_write, expire_misses_after }
    }

    /// The answer, unless it has expired or was asked for in another generation.
    pub fn get(&self, probe: Probe<'_>, generation: u64, now: Instant) -> Option<Arc<CachedAnswer>> {
        let answer = self.entries.get(&probe)?;
        let alive = answer.generation == generation && answer.expires.is_none_or(|expires| now < expires);
        alive.then_some(answer)
    }

    /// Remembers one key's rows, which stand at `start` in `encoded`, or that there are none.
    /// `generation` is that from before the request.
    pub fn put(&self, probe: Probe<'_>, encoded: Option<&Rows>, start: u32, rows: u32, generation: u64) {
        let lifetime = match (rows, self.expire_misses_after) {
            (0, None) => return,
            (0, Some(lifetime)) => Some(lifetime),
            (_, _) => self.expire_after_write,
        };
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        if let Some(encoded) = encoded {
            for row in start..start + rows {
                bytes.extend_from_slice(encoded.row(row as usize).data());
                ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            }
            // An answer of 4 GiB has no place in the cache.
            if ends.last() == Some(&u32::MAX) {
                return;
            }
            ends.pop();
        }
        let expires = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
        let answer =
            CachedAnswer { rows, bytes: bytes.into_boxed_slice(), ends: ends.into_boxed_slice(), expires, generation };
        let key = CacheKey { variant: Arc::clone(probe.variant), hash: probe.hash, key: probe.key.into() };
        self.entries.insert(key, Arc::new(answer));
    }

    /// Brings the bound into force after many [`AnswerCache::put`]s; moka itself would wait for a better moment.
    pub fn settle(&self) {
        self.entries.run_pending_tasks();
    }

    /// The number of entries forgotten.
    pub fn clear(&self) -> u64 {
        self.settle();
        let entries = self.entries.entry_count();
        self.entries.invalidate_all();
        entries
    }

    /// Whether there was an entry.
    pub fn forget(&self, probe: Probe<'_>) -> bool {
        self.entries.remove(&probe).is_some()
    }

    /// Rows held now, a remembered miss counting as one.
    pub fn rows(&self) -> u64 {
        self.entries.weighted_size()
    }
}

/// What the cache knows of the keys of a slice.
pub(super) struct Known<'a> {
    cache: Option<&'a AnswerCache>,
    variant: &'a Arc<Variant>,
    keys: &'a BatchKeys,
    generation: u64,
    now: Instant,
    matches: Vec<KeyMatch>,
    hits: Vec<Arc<CachedAnswer>>,
    rows: u32,
}

impl<'a> Known<'a> {
    pub fn new(
        cache: Option<&'a AnswerCache>,
        variant: &'a Arc<Variant>,
        keys: &'a BatchKeys,
        (generation, now): (u64, Instant),
    ) -> Self {
        let matches = vec![KeyMatch::Pending; keys.len()];
        Known { cache, variant, keys, generation, now, matches, hits: Vec::new(), rows: 0 }
    }

    /// Whether the key is known, now or from before.
    pub fn probe(&mut self, position: u32) -> bool {
        let Some(cache) = self.cache else { return false };
        let hash = self.keys.hashes[position as usize];
        let probe = Probe { variant: self.variant, hash, key: self.keys.key(position).data() };
        let Some(answer) = cache.get(probe, self.generation, self.now) else { return false };
        self.matches[position as usize] = KeyMatch::Found { source: 0, start: self.rows, rows: answer.rows() };
        if answer.rows() > 0 {
            self.rows += answer.rows();
            self.hits.push(answer);
        }
        true
    }

    /// All rows from the cache become one batch, the first source.
    pub fn into_matches(self) -> Result<(Vec<KeyMatch>, Vec<RecordBatch>)> {
        if self.hits.is_empty() {
            return Ok((self.matches, Vec::new()));
        }
        let rows = self.hits.iter().flat_map(|answer| answer.encoded_rows());
        let source = self.variant.decode_rows(self.rows as usize, rows)?;
        Ok((self.matches, vec![source]))
    }
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
