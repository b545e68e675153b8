//! What the cache knows of the keys of a slice, decoded into batches.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use tokio::time::Instant;

use super::answer::{CachedAnswer, Tick};
use super::cache::{AnswerCache, Probe};
use super::join::KeyMatch;
use super::keys::BatchKeys;
use super::table::LookupTable;
use super::variant::Variant;
use crate::error::Result;

/// Gathers what is known, key by key.
pub(super) struct Known<'a> {
    table: &'a LookupTable,
    cache: Option<&'a AnswerCache>,
    keys: &'a BatchKeys,
    generation: u64,
    now: Tick,
    matches: Vec<KeyMatch>,
    /// First those of the join's own variant, then those with more columns, once one was needed.
    sources: Vec<Source>,
    looked_for_wider: bool,
    leases: Vec<Lease>,
    /// Positions of keys that are to be asked for anew, with the variant of the answer that serves meanwhile.
    refresh: Vec<(Arc<Variant>, u32)>,
}

/// Until when the answer to a key, of one row or none, serves without being looked at again.
pub(super) struct Lease {
    /// Of the key in the slice.
    pub position: u32,
    pub until: Tick,
    pub written: Tick,
}

/// The answers of one variant.
struct Source {
    variant: Arc<Variant>,
    /// Positions of the join's columns among the variant's; `None`: they are the same.
    columns: Option<Vec<usize>>,
    hits: Vec<Arc<CachedAnswer>>,
    rows: u32,
}

impl<'a> Known<'a> {
    pub fn new(
        table: &'a LookupTable,
        cache: Option<&'a AnswerCache>,
        variant: &Arc<Variant>,
        keys: &'a BatchKeys,
        (generation, now): (u64, Instant),
    ) -> Self {
        let own = Source { variant: Arc::clone(variant), columns: None, hits: Vec::new(), rows: 0 };
        Known {
            table,
            cache,
            keys,
            generation,
            now: cache.map_or(0, |cache| cache.tick(now)),
            matches: vec![KeyMatch::Pending; keys.len()],
            sources: vec![own],
            looked_for_wider: false,
            leases: Vec::new(),
            refresh: Vec::new(),
        }
    }

    /// Whether the key is known, now or from before.
    pub fn probe(&mut self, position: u32) -> bool {
        let Some(cache) = self.cache else { return false };
        let (generation, now) = (self.generation, self.now);
        let Some((source, answer)) = self.find(position, |probe| cache.get(probe, generation, now)) else {
            return false;
        };
        if cache.claims_refresh(&answer, now) {
            self.refresh.push((Arc::clone(&self.sources[source].variant), position));
        }
        let until = answer.lease(now);
        if answer.rows() <= 1 && until > now {
            self.leases.push(Lease { position, until, written: answer.written() });
        }
        self.settle(position, source, answer);
        true
    }

    /// The leases of the keys that are known by now.
    pub fn take_leases(&mut self) -> Vec<Lease> {
        std::mem::take(&mut self.leases)
    }

    /// Whether an answer that may have expired can serve, because the store has failed.
    pub fn probe_stale(&mut self, position: u32) -> bool {
        let Some(cache) = self.cache else { return false };
        let (generation, now) = (self.generation, self.now);
        match self.find(position, |probe| cache.get_stale(probe, generation, now)) {
            Some((source, answer)) => {
                self.settle(position, source, answer);
                true
            }
            None => false,
        }
    }

    /// The first answer that `get` gives, and which of `sources` it is of.
    fn find(
        &mut self,
        position: u32,
        get: impl Fn(Probe<'_>) -> Option<Arc<CachedAnswer>>,
    ) -> Option<(usize, Arc<CachedAnswer>)> {
        let hash = self.keys.hashes[position as usize];
        let key = self.keys.key(position);
        let probe = |source: &Source| get(Probe { variant: &source.variant, hash, key: key.data() });
        if let Some(answer) = probe(&self.sources[0]) {
            return Some((0, answer));
        }
        if !self.looked_for_wider {
            self.looked_for_wider = true;
            let wider = self.table.wider(&self.sources[0].variant);
            self.sources.extend(wider.into_iter().map(|(variant, columns)| Source {
                variant,
                columns: Some(columns),
                hits: Vec::new(),
                rows: 0,
            }));
        }
        (1..self.sources.len()).find_map(|source| Some((source, probe(&self.sources[source])?)))
    }

    fn settle(&mut self, position: u32, at: usize, answer: Arc<CachedAnswer>) {
        let source = &mut self.sources[at];
        self.matches[position as usize] =
            KeyMatch::Found { source: at as u32, start: source.rows, rows: answer.rows() };
        if answer.rows() > 0 {
            source.rows += answer.rows();
            source.hits.push(answer);
        }
    }

    /// Keys that are to be asked for anew, each variant's together.
    pub fn take_refreshes(&mut self) -> Vec<(Arc<Variant>, Vec<u32>)> {
        let mut by_variant: Vec<(Arc<Variant>, Vec<u32>)> = Vec::new();
        for (variant, position) in std::mem::take(&mut self.refresh) {
            match by_variant.iter_mut().find(|(other, _)| other.id() == variant.id()) {
                Some((_, positions)) => positions.push(position),
                None => by_variant.push((variant, vec![position])),
            }
        }
        by_variant
    }

    /// What is known of each key, and the rows: a batch for each variant that knew some.
    pub fn into_matches(self) -> Result<(Vec<KeyMatch>, Vec<RecordBatch>)> {
        if self.sources.iter().all(|source| source.hits.is_empty()) {
            return Ok((self.matches, Vec::new()));
        }
        let own = Arc::clone(self.sources[0].variant.schema());
        let sources = self.sources.iter().map(|source| {
            let rows = source.hits.iter().flat_map(|answer| answer.encoded_rows());
            let batch = source.variant.decode_rows(source.rows as usize, rows)?;
            let Some(columns) = &source.columns else { return Ok(batch) };
            let columns: Vec<ArrayRef> = columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&own), columns, &options)?)
        });
        Ok((self.matches, sources.collect::<Result<_>>()?))
    }
}
