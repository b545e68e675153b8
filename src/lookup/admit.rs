//! Admission: rows that the cache knows take the short way out, the others their places in the queue.
//!
//! The short way is open for rows with one match at most, where nothing waits that has to leave before them: then no
//! row is looked at but by kernels. It leads through the L1 first; what that does not know is looked up key by key.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::buffer::NullBuffer;
use tokio::time::Instant;

use super::cache::AnswerCache;
use super::flight::{Epoch, Question};
use super::join::{KeyMatch, LeftRows, MOST_ROWS, PAD, take_rows};
use super::keys::{KeyColumns, NO_KEY};
use super::known::Known;
use super::l1::HotRows;
use super::l1_index::{ABSENT, NOTHING};
use super::policy::{CachePolicy, Ordering};
use super::queue::{Slice, Weight};
use super::stream::LookupStream;
use crate::error::Result;

/// A slice that is being admitted.
struct Arrival {
    batch: RecordBatch,
    columns: KeyColumns,
    at: Instant,
    /// All from before the cache was looked into.
    seen: Epoch,
    invalidations: u64,
}

impl LookupStream {
    pub(super) fn admit_slice(&mut self, batch: RecordBatch) -> Result<()> {
        let columns = self.finder.evaluate(&batch)?;
        let (invalidations, seen) = (self.table.invalidations(), self.table.flights.epoch());
        let arrival = Arrival { batch, columns, at: Instant::now(), seen, invalidations };
        let hot = self.look_into_l1(&arrival)?;
        if let Some(hot) = hot.as_ref().filter(|hot| hot.absent == 0)
            && self.may_leave_at_once(&arrival)
        {
            self.count_rows(arrival.columns.count(arrival.batch.num_rows()), 0);
            self.ready = match hot.all_found {
                true => Some(self.joiner.join_found(&arrival.batch, &hot.arena, hot.rows.clone())?),
                false => self.joiner.join_each(&arrival.batch, std::slice::from_ref(&hot.arena), hot.pairs())?,
            };
            return Ok(());
        }
        self.look_into_cache(arrival, hot)
    }

    /// `None` if the L1 is not to be used. In `key_ordered`, rows without a key in the books could overtake others of
    /// their key.
    fn look_into_l1(&mut self, arrival: &Arrival) -> Result<Option<HotRows>> {
        let must_see_keys = self.policy.ordering == Ordering::KeyOrdered && !self.may_leave_at_once(arrival);
        let (Some(l1), Some(cache), false) = (&mut self.l1, &self.table.cache, must_see_keys) else { return Ok(None) };
        let hot = l1.probe(&arrival.columns, arrival.invalidations, cache.tick(arrival.at))?;
        let is_partial = hot.absent > 0 && hot.absent < arrival.batch.num_rows();
        let is_useless = is_partial && self.policy.ordering == Ordering::KeyOrdered;
        Ok(Some(hot).filter(|hot| hot.absent < arrival.batch.num_rows() && !is_useless))
    }

    /// Whether rows with one match at most have nothing to wait for.
    fn may_leave_at_once(&self, arrival: &Arrival) -> bool {
        let is_first = match self.policy.ordering {
            Ordering::Unordered => true,
            Ordering::Ordered | Ordering::KeyOrdered => self.queue.is_empty(),
        };
        is_first && self.joiner.is_plain() && arrival.batch.num_rows() <= MOST_ROWS
    }

    /// Looks for what the L1 does not know in the cache, and has the rest asked for.
    fn look_into_cache(&mut self, arrival: Arrival, hot: Option<HotRows>) -> Result<()> {
        let rest = hot.as_ref().map(|hot| arrival.columns.take(&hot.absent_rows())).transpose()?;
        let columns = rest.as_ref().unwrap_or(&arrival.columns);
        let mut keys = self.finder.find(columns)?;
        let deadline = self.policy.timeout.and_then(|timeout| arrival.at.checked_add(timeout));
        let uses_cache = self.policy.cache != CachePolicy::None && self.table.trusts_cache();
        let table = Arc::clone(&self.table);
        let cache = table.cache.as_ref().filter(|_| uses_cache);
        let mut known = Known::new(&table, cache, &self.variant, &keys, (arrival.seen.generation, arrival.at));
        let missing = (0..keys.len() as u32).filter(|key| !known.probe(*key)).collect();
        let question = Question {
            variant: &self.variant,
            mailbox: &self.mailbox,
            slice: self.queue.next_slice(),
            keys: &keys,
            missing,
            deadline,
            batch_size: self.policy.batch_size,
            batch_delay: self.policy.batch_delay,
            fills_cache: uses_cache,
            seen: arrival.seen,
        };
        let (ask, requests) = match question.missing.is_empty() {
            true => (None, Vec::new()),
            false => table.flights.ask(question, |key| known.probe(key)),
        };
        table.send(requests);
        table.refresh(&keys, known.take_refreshes(), self.policy.batch_size);
        let leases = known.take_leases();
        let (matches, mut sources) = known.into_matches()?;
        if let (Some(l1), Some(cache), false) = (&mut self.l1, cache, leases.is_empty()) {
            l1.admit((&keys, columns), &leases, (&matches, &sources), cache.tick(arrival.at))?;
        }
        let key_of_row = std::mem::take(&mut keys.key_of_row);
        let pairs = match ask.is_none() && self.may_leave_at_once(&arrival) {
            true => pairs_of(&key_of_row, &matches, hot.as_ref(), sources.len()),
            false => None,
        };
        if let Some(pairs) = pairs {
            self.count_rows(arrival.columns.count(arrival.batch.num_rows()), 0);
            sources.extend(hot.map(|hot| hot.arena));
            self.ready = self.joiner.join_each(&arrival.batch, &sources, pairs)?;
            return Ok(());
        }
        let pending = matches.iter().filter(|known| **known == KeyMatch::Pending).count() as u64;
        let weight = Weight {
            left_bytes: self.row_bytes * arrival.batch.num_rows() as u64,
            expected_bytes: self.answers.bytes_per_key() * pending,
        };
        let mut left = LeftRows { batch: arrival.batch, key_of_row, matches, sources };
        if let Some(hot) = hot {
            left = hot.merge_into(left, arrival.columns.valid.as_ref())?;
        }
        self.count_left(&left);
        let may_serve_stale = ask.is_some() && cache.is_some_and(AnswerCache::serves_stale);
        let mut slice = Slice::new(left, ask, deadline, weight);
        let keys = Arc::new(keys);
        slice.keys = may_serve_stale.then(|| Arc::clone(&keys));
        self.queue.admit(slice, &keys);
        Ok(())
    }

    /// Counts the rows of a slice that takes its places: those with a key are hits or misses.
    fn count_left(&self, left: &LeftRows) {
        let with_key = left.key_of_row.iter().filter(|key| **key != NO_KEY);
        let (mut rows, mut misses) = (0, 0);
        for key in with_key {
            rows += 1;
            misses += usize::from(left.matches[*key as usize] == KeyMatch::Pending);
        }
        self.count_rows(rows, misses);
    }

    fn count_rows(&self, rows: usize, misses: usize) {
        let hits = rows - misses;
        self.metrics.rows.add(rows);
        self.metrics.hits.add(hits);
        self.metrics.misses.add(misses);
        self.table.count.rows.fetch_add(rows as u64, Relaxed);
        self.table.count.hits.fetch_add(hits as u64, Relaxed);
        self.table.count.misses.fetch_add(misses as u64, Relaxed);
    }
}

impl HotRows {
    fn absent_rows(&self) -> UInt32Array {
        let absent = self.rows.iter().zip(0_u32..).filter(|(row, _)| **row == ABSENT);
        UInt32Array::from_iter_values(absent.map(|(_, at)| at))
    }

    /// The arena as the only source.
    fn pairs(&self) -> Vec<(u32, u32)> {
        self.rows.iter().map(|row| if *row == NOTHING { PAD } else { (0, *row) }).collect()
    }

    /// Adds the rows that the L1 knows to `rest`, whose keys are those of the other rows. They are copied out of
    /// the arena: a row that waits must not pin it.
    fn merge_into(&self, rest: LeftRows, valid: Option<&NullBuffer>) -> Result<LeftRows> {
        let LeftRows { batch, key_of_row, mut matches, mut sources } = rest;
        let found = self.rows.iter().filter(|row| **row != ABSENT && **row != NOTHING).copied();
        let source = sources.len() as u32;
        sources.push(take_rows(&self.arena, &UInt32Array::from_iter_values(found))?);
        let nothing = matches.len() as u32;
        matches.push(KeyMatch::NONE);
        let mut rest = key_of_row.into_iter();
        let mut start = 0;
        let key_of_row = self.rows.iter().enumerate().map(|(at, row)| match *row {
            ABSENT => rest.next().unwrap_or(NO_KEY),
            NOTHING if valid.is_some_and(|valid| valid.is_null(at)) => NO_KEY,
            NOTHING => nothing,
            _ => {
                matches.push(KeyMatch::Found { source, start, rows: 1 });
                start += 1;
                matches.len() as u32 - 1
            }
        });
        let key_of_row = key_of_row.collect();
        Ok(LeftRows { batch, key_of_row, matches, sources })
    }
}

/// Where each row's match is; `None` if one has several. Rows that the L1 knows have theirs in its arena, the source
/// that follows the `sources` others.
fn pairs_of(
    key_of_row: &[u32],
    matches: &[KeyMatch],
    hot: Option<&HotRows>,
    sources: usize,
) -> Option<Vec<(u32, u32)>> {
    let mut rest = key_of_row.iter().map(|key| match *key {
        NO_KEY => Some(PAD),
        key => match matches[key as usize] {
            KeyMatch::Found { rows: 0, .. } => Some(PAD),
            KeyMatch::Found { source, start, rows: 1 } => Some((source, start)),
            KeyMatch::Found { .. } | KeyMatch::Pending | KeyMatch::Failed(_) | KeyMatch::Skipped => None,
        },
    });
    let Some(hot) = hot else { return rest.collect() };
    let pair = |row: &u32| match *row {
        ABSENT => rest.next().flatten(),
        NOTHING => Some(PAD),
        row => Some((sources as u32, row)),
    };
    hot.rows.iter().map(pair).collect()
}
