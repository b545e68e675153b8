//! The rows that wait, and which of them may leave. The orderings differ in [`Queue::next`] and nowhere else.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use tokio::time::Instant;

use super::flight::Ask;
use super::join::{KeyMatch, LeftRows, RowSet, compacted, take_rows};
use super::key_lines::{KeyLines, SliceKey};
use super::keys::{BatchKeys, NO_KEY};
use super::policy::Ordering;
use crate::error::{Error, Result};

/// Rows in slices: a slice is what was admitted at the same moment from one batch.
pub(super) struct Queue {
    ordering: Ordering,
    slices: BTreeMap<u64, Slice>,
    /// Slices with rows that may leave; only unordered needs to know.
    news: VecDeque<u64>,
    next_slice: u64,
    rows: usize,
    bytes: u64,
    /// Only key_ordered has lines.
    lines: KeyLines,
    failure: Option<Error>,
}

pub(super) struct Slice {
    pub left: LeftRows,
    /// `None` once nothing is asked any more.
    pub ask: Option<Ask>,
    pub deadline: Option<Instant>,
    /// When its rows took their places.
    pub admitted: Instant,
    /// The slice's keys, where an expired answer may have to be looked for.
    pub keys: Option<Arc<BatchKeys>>,
    /// Keys without an answer.
    pending: usize,
    /// Rows that have not left.
    rows: RowSet,
    has_news: bool,
    errors: Vec<Error>,
    /// Bytes of the stream's rows, and of what was found for them or is expected to be.
    left_bytes: u64,
    found_bytes: u64,
    expected_bytes: u64,
    /// With key_ordered, the hash of each key, and which keys are held back by rows that came before.
    hashes: Vec<u64>,
    held: HashSet<u32>,
}

/// What rows weigh when they take their places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    /// Of the stream's rows.
    pub left_bytes: u64,
    /// That what is found for them is expected to have.
    pub expected_bytes: u64,
}

/// Rows of a slice that may leave now. They hold their places until [`Queue::leave`].
pub(super) struct Departure {
    pub slice: u64,
    pub rows: RowSet,
}

pub(super) enum Next {
    Leaves(Departure),
    /// Whatever was to leave before the row that failed has left.
    Fails(Error),
    Waits,
}

impl Slice {
    pub fn new(left: LeftRows, ask: Option<Ask>, deadline: Option<Instant>, weight: Weight) -> Self {
        let pending = left.matches.iter().filter(|known| **known == KeyMatch::Pending).count();
        let rows = RowSet::Range(0..left.batch.num_rows() as u32);
        let found_bytes = left.sources.iter().map(|source| source.get_array_memory_size() as u64).sum();
        Slice {
            left,
            ask,
            deadline,
            admitted: Instant::now(),
            keys: None,
            pending,
            rows,
            has_news: false,
            errors: Vec::new(),
            left_bytes: weight.left_bytes,
            found_bytes,
            expected_bytes: weight.expected_bytes,
            hashes: Vec::new(),
            held: HashSet::new(),
        }
    }

    /// Bytes held, or about to be.
    fn bytes(&self) -> u64 {
        let expected = if self.pending > 0 { self.expected_bytes } else { 0 };
        self.left_bytes + self.found_bytes.max(expected)
    }

    pub fn is_pending(&self, key: u32) -> bool {
        self.left.matches[key as usize] == KeyMatch::Pending
    }

    /// Positions of the keys without an answer.
    pub fn pending_keys(&self) -> Vec<u32> {
        (0..self.left.matches.len() as u32).filter(|key| self.is_pending(*key)).collect()
    }

    /// How many rows that have not left wait for one of these keys.
    pub fn rows_of(&self, keys: &[u32]) -> usize {
        let has = |row: u32| keys.binary_search(&self.left.key_of_row[row as usize]).is_ok();
        (0..self.rows.len()).filter(|at| has(self.rows.get(*at))).count()
    }
}

impl Queue {
    pub fn new(ordering: Ordering) -> Self {
        Queue {
            ordering,
            slices: BTreeMap::new(),
            news: VecDeque::new(),
            next_slice: 0,
            rows: 0,
            bytes: 0,
            lines: KeyLines::default(),
            failure: None,
        }
    }

    /// Bytes of the rows that have not left, and of what was found for them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Rows that have not left.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Whether a lookup has failed for good: rows behind it need not come in any more.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The name of the slice that is admitted next.
    pub fn next_slice(&self) -> u64 {
        self.next_slice
    }

    pub fn admit(&mut self, mut slice: Slice, keys: &BatchKeys) {
        let id = self.next_slice;
        self.next_slice += 1;
        if self.ordering == Ordering::KeyOrdered {
            let members = (0..slice.left.matches.len() as u32).map(|position| SliceKey { slice: id, position });
            let lines = &mut self.lines;
            let held = members.filter(|member| lines.join(keys, *member, slice.is_pending(member.position)));
            slice.held = held.map(|member| member.position).collect();
            slice.hashes.clone_from(&keys.hashes);
        }
        self.rows += slice.rows.len();
        self.bytes += slice.bytes();
        self.slices.insert(id, slice);
        self.note_news(id);
    }

    pub fn get(&self, slice: u64) -> Option<&Slice> {
        self.slices.get(&slice)
    }

    /// Adds what was found for some keys of a slice, `bytes` of which are this slice's, and returns its name.
    pub fn add_source(&mut self, id: u64, rows: RecordBatch, bytes: u64) -> Option<u32> {
        let slice = self.slices.get_mut(&id)?;
        let before = slice.bytes();
        slice.found_bytes += bytes;
        self.bytes = self.bytes - before + slice.bytes();
        slice.left.sources.push(rows);
        Some(slice.left.sources.len() as u32 - 1)
    }

    /// The slice whose deadline comes next: deadlines rise with admission.
    pub fn next_deadline(&self) -> Option<(u64, Instant)> {
        let (id, slice) = self.slices.iter().find(|(_, slice)| slice.pending > 0)?;
        slice.deadline.map(|deadline| (*id, deadline))
    }

    /// Says what is known of a key that was pending; a second answer changes nothing.
    pub fn settle(&mut self, id: u64, key: u32, known: KeyMatch) {
        let Some(slice) = self.slices.get_mut(&id) else { return };
        if !slice.is_pending(key) {
            return;
        }
        let before = slice.bytes();
        slice.left.matches[key as usize] = known;
        slice.pending -= 1;
        self.bytes = self.bytes - before + slice.bytes();
        if slice.pending == 0 {
            slice.ask = None;
        }
        self.note_news(id);
    }

    /// The lookup of these keys failed, and so does the query once their turn has come.
    pub fn fail(&mut self, id: u64, keys: &[u32], error: Error) {
        let Some(slice) = self.slices.get_mut(&id) else { return };
        let nth = slice.errors.len() as u32;
        slice.errors.push(error.clone());
        self.failure.get_or_insert(error);
        keys.iter().for_each(|key| self.settle(id, *key, KeyMatch::Failed(nth)));
    }

    /// What may leave now. What leaves must be given back to [`Queue::leave`] before the next call.
    pub fn next(&mut self) -> Next {
        match self.ordering {
            Ordering::Ordered => self.next_ordered(),
            Ordering::Unordered | Ordering::KeyOrdered => self.next_unordered(),
        }
    }

    /// Frees the places of rows that have left.
    pub fn leave(&mut self, departure: &Departure) -> Result<()> {
        self.rows -= departure.rows.len();
        let Some(slice) = self.slices.get_mut(&departure.slice) else { return Ok(()) };
        let before = slice.bytes();
        if slice.rows.len() == 0 {
            self.bytes -= before;
            self.slices.remove(&departure.slice);
            return Ok(());
        }
        if self.ordering != Ordering::Ordered {
            slice.let_go_of_what_left()?;
            self.bytes = self.bytes - before + slice.bytes();
        }
        Ok(())
    }

    /// The longest answered prefix of the oldest slice.
    fn next_ordered(&mut self) -> Next {
        let Some((id, slice)) = self.slices.iter_mut().next() else { return Next::Waits };
        let RowSet::Range(range) = &mut slice.rows else {
            return Next::Fails(Error::internal("rows of an ordered lookup join lost their order"));
        };
        let answered = |row: &u32| slice.left.match_of(*row).is_final();
        let until = range.clone().find(|row| !answered(row)).unwrap_or(range.end);
        if until > range.start {
            let rows = RowSet::Range(range.start..until);
            range.start = until;
            return Next::Leaves(Departure { slice: *id, rows });
        }
        match slice.left.match_of(until) {
            KeyMatch::Failed(nth) => Next::Fails(slice.errors[nth as usize].clone()),
            KeyMatch::Pending | KeyMatch::Found { .. } | KeyMatch::Skipped => Next::Waits,
        }
    }

    /// Whatever is answered, one slice after the other.
    fn next_unordered(&mut self) -> Next {
        while let Some(id) = self.news.pop_front() {
            let Some(slice) = self.slices.get_mut(&id) else { continue };
            slice.has_news = false;
            let rows = slice.split_answered();
            if rows.len() > 0 {
                self.let_through_behind(id, &rows);
                return Next::Leaves(Departure { slice: id, rows });
            }
        }
        match &self.failure {
            Some(error) => Next::Fails(error.clone()),
            None => Next::Waits,
        }
    }

    /// Rows of a slice are leaving: with key_ordered, rows of the same keys may follow.
    fn let_through_behind(&mut self, id: u64, rows: &RowSet) {
        if self.ordering != Ordering::KeyOrdered {
            return;
        }
        let Some(slice) = self.slices.get(&id) else { return };
        let positions = (0..rows.len()).map(|at| slice.left.key_of_row[rows.get(at) as usize]);
        let positions: BTreeSet<u32> = positions.filter(|position| *position != NO_KEY).collect();
        let left = positions.into_iter().map(|position| (slice.hashes[position as usize], position));
        for (hash, position) in left.collect::<Vec<_>>() {
            let Some(next) = self.lines.leave(hash, SliceKey { slice: id, position }) else { continue };
            if let Some(behind) = self.slices.get_mut(&next.slice) {
                behind.held.remove(&next.position);
            }
            self.note_news(next.slice);
        }
    }

    fn note_news(&mut self, id: u64) {
        let Some(slice) = self.slices.get_mut(&id) else { return };
        if self.ordering != Ordering::Ordered && !slice.has_news {
            slice.has_news = true;
            self.news.push_back(id);
        }
    }
}

impl Slice {
    fn split_answered(&mut self) -> RowSet {
        let is_held = |row: u32| !self.held.is_empty() && self.held.contains(&self.left.key_of_row[row as usize]);
        let is_answered = |row: &u32| self.left.match_of(*row).is_final() && !is_held(*row);
        let all = (0..self.rows.len()).map(|at| self.rows.get(at));
        let (answered, waiting): (Vec<u32>, Vec<u32>) = all.partition(is_answered);
        if waiting.is_empty() {
            return std::mem::replace(&mut self.rows, RowSet::List(waiting));
        }
        self.rows = RowSet::List(waiting);
        RowSet::List(answered)
    }

    /// A few rows that wait must not hold the memory of all that came with them.
    fn let_go_of_what_left(&mut self) -> Result<()> {
        // Rows that are held back may need what was found for them.
        if !self.has_news && self.held.is_empty() {
            self.left.sources.clear();
            self.found_bytes = 0;
        }
        if self.rows.len() * 2 > self.left.batch.num_rows() {
            return Ok(());
        }
        self.left_bytes = self.left_bytes * self.rows.len() as u64 / self.left.batch.num_rows() as u64;
        let rows: UInt32Array = (0..self.rows.len()).map(|at| self.rows.get(at)).collect();
        self.left.key_of_row = rows.values().iter().map(|row| self.left.key_of_row[*row as usize]).collect();
        self.left.batch = compacted(&take_rows(&self.left.batch, &rows)?)?;
        self.rows = RowSet::Range(0..rows.len() as u32);
        Ok(())
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
