//! What one query has seen of the cache more than once, in columns: rows that it answers cost no look into the cache.
//!
//! It may be dropped at any moment, and is when something was forgotten, or when it is full. Its truth is simple: an
//! entry is leased from the cached answer, until that must be looked at again. A key enters on its second hit, so that
//! keys that come once do not churn it. New rows are staged and become part of the arena in steps that pay: once the
//! hits that they could have answered outweigh the copying.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringViewArray, UInt32Array,
};
use datafusion::arrow::buffer::ScalarBuffer;
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::arrow::row::Rows;

use super::answer::Tick;
use super::join::{KeyMatch, compacted, take_rows};
use super::keys::{BatchKeys, KeyColumns};
use super::known::Lease;
use super::l1_index::{ABSENT, BytesIndex, Entry, NOTHING, NumberIndex};
use super::policy::PartialCache;
use super::variant::Variant;
use crate::error::Result;

pub(super) struct L1 {
    variant: Arc<Variant>,
    index: Index,
    schema: SchemaRef,
    arena: RecordBatch,
    staged: Vec<RecordBatch>,
    staged_rows: usize,
    staged_bytes: usize,
    /// For each row of arena and stage, when the answer was written: the same answer needs no second copy.
    written: Vec<Tick>,
    /// Rows that what is staged could have answered.
    could_have_answered: usize,
    /// Keys that were hit once, as fingerprints of which new ones push out old ones.
    seen: Vec<u32>,
    max_rows: usize,
    max_bytes: usize,
    /// See [`super::table::LookupTable::invalidations`].
    invalidations: u64,
    /// The millisecond from which leases count.
    base: u64,
}

/// How keys are looked for, by the type of a single key column; several are compared as they are encoded.
enum Index {
    Numbers(NumberIndex),
    Texts(BytesIndex),
    Encoded(BytesIndex),
}

/// What the L1 knows of a slice of rows.
pub(super) struct HotRows {
    /// For each row of the slice its row of the arena, [`NOTHING`] or [`ABSENT`].
    pub rows: Vec<u32>,
    pub arena: RecordBatch,
    /// How many rows are [`ABSENT`].
    pub absent: usize,
    /// Whether each row has a row of the arena.
    pub all_found: bool,
}

/// An answer that becomes part of the L1.
struct Entering {
    /// A row that has the key.
    key: usize,
    until: u32,
    written: Tick,
    /// Where its row is, if it has one.
    source: u32,
    start: u32,
    rows: u32,
}

/// A copied row is paid for when it could have answered a sixteenth of a row.
const COPIES_PER_HIT: usize = 16;

/// The share of the table's bounds that one query may take.
const SHARE: u64 = 8;
const MOST_BYTES: u64 = 16 << 20;

/// Longest that an answer is not looked at in the cache, which is to see that it is in use.
const LONGEST_LEASE_MILLISECONDS: u64 = 10_000;

const NANOSECONDS: u64 = 1_000_000;

impl L1 {
    pub fn new(variant: Arc<Variant>, bounds: &PartialCache) -> Self {
        let share = |bound: Option<std::num::NonZeroU64>| bound.map_or(u64::MAX, |bound| bound.get() / SHARE);
        let max_rows = share(bounds.max_rows).min(u64::from(NOTHING) / 2) as usize;
        let fields = variant.schema().fields().iter();
        let schema: SchemaRef =
            Arc::new(Schema::new(fields.map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<Field>>()));
        L1 {
            index: Index::new(variant.key_types()),
            arena: RecordBatch::new_empty(Arc::clone(&schema)),
            schema,
            variant,
            staged: Vec::new(),
            staged_rows: 0,
            staged_bytes: 0,
            written: Vec::new(),
            could_have_answered: 0,
            seen: vec![0; max_rows.next_power_of_two().clamp(1 << 10, 1 << 18)],
            max_rows,
            max_bytes: share(bounds.max_bytes).min(MOST_BYTES) as usize,
            invalidations: 0,
            base: 0,
        }
    }

    /// What is known of these keys at `now`, if nothing was forgotten since.
    ///
    /// # Errors
    /// Those of arrow's kernels.
    pub fn probe(&mut self, keys: &KeyColumns, invalidations: u64, now: Tick) -> Result<HotRows> {
        let milliseconds = now / NANOSECONDS;
        if invalidations != self.invalidations || milliseconds.saturating_sub(self.base) > u64::from(u32::MAX / 2) {
            self.clear();
            self.invalidations = invalidations;
            self.base = milliseconds;
        }
        if self.could_have_answered * COPIES_PER_HIT > self.arena.num_rows() + self.staged_rows {
            self.rebuild()?;
        }
        let now = (milliseconds - self.base) as u32;
        let mut rows = self.index.probe(&self.index.columns(keys, &self.variant)?, now);
        let visible = self.arena.num_rows() as u32;
        let is_null = |row: usize| keys.valid.as_ref().is_some_and(|valid| valid.is_null(row));
        // The whole slice at once in the one case that is to be fast.
        let all_found = rows.iter().all(|row| *row < visible) && keys.valid.is_none();
        let mut absent = 0;
        if !all_found {
            for (at, row) in rows.iter_mut().enumerate() {
                if is_null(at) {
                    *row = NOTHING;
                } else if *row >= visible && *row != NOTHING {
                    self.could_have_answered += usize::from(*row != ABSENT);
                    *row = ABSENT;
                    absent += 1;
                }
            }
        }
        Ok(HotRows { rows, arena: self.arena.clone(), absent, all_found })
    }

    /// Takes in what the cache has answered, if it is asked for again and again. The leases name positions in `keys`,
    /// whose columns are `columns`; their rows are where `matches` says, in `sources`.
    ///
    /// # Errors
    /// Those of arrow's kernels.
    pub fn admit(
        &mut self,
        (keys, columns): (&BatchKeys, &KeyColumns),
        leases: &[Lease],
        (matches, sources): (&[KeyMatch], &[RecordBatch]),
        now: Tick,
    ) -> Result<()> {
        let columns = self.index.columns(columns, &self.variant)?;
        let mut entering = self.renew(keys, &columns, leases, matches, now);
        let rows = self.written.len().max(self.index.len()) + entering.len();
        if rows > self.max_rows || self.bytes() > self.max_bytes {
            self.clear();
            entering.truncate(self.max_rows);
        }
        let mut staged: Vec<Vec<u32>> = vec![Vec::new(); sources.len()];
        // Rows are numbered as they are staged: one source after the other.
        entering.sort_by_key(|entering| entering.source);
        for Entering { key, until, written, source, start, rows } in entering {
            if rows == 0 {
                self.index.set(&columns, key, Entry { row: NOTHING, lease: until });
                continue;
            }
            self.index.set(&columns, key, Entry { row: self.written.len() as u32, lease: until });
            self.written.push(written);
            staged[source as usize].push(start);
        }
        let staged = staged.into_iter().zip(sources).filter(|(rows, _)| !rows.is_empty());
        staged.into_iter().try_for_each(|(rows, source)| self.stage(source, UInt32Array::from(rows)))
    }

    /// Renews the leases of answers that are here, and returns those that are to be.
    fn renew(
        &mut self,
        keys: &BatchKeys,
        columns: &IndexKeys,
        leases: &[Lease],
        matches: &[KeyMatch],
        now: Tick,
    ) -> Vec<Entering> {
        let longest = now.saturating_add(LONGEST_LEASE_MILLISECONDS * NANOSECONDS);
        let mut entering = Vec::new();
        for Lease { position, until, written } in leases {
            let KeyMatch::Found { source, start, rows } = matches[*position as usize] else { continue };
            let until = ((*until).min(longest) / NANOSECONDS).saturating_sub(self.base);
            let until = u32::try_from(until).unwrap_or(u32::MAX);
            let key = keys.first_row(*position);
            let known = self.index.entry(columns, key);
            if known.is_none() && !self.is_second_hit(keys.hashes[*position as usize]) {
                continue;
            }
            let is_same = |known: &Entry| match known.row {
                NOTHING => rows == 0,
                row => rows > 0 && self.written[row as usize] == *written,
            };
            match known.filter(is_same) {
                Some(known) => self.index.set(columns, key, Entry { lease: until, ..known }),
                None => entering.push(Entering { key, until, written: *written, source, start, rows }),
            }
        }
        entering
    }

    /// Copies rows out of a source, so that they pin nothing.
    fn stage(&mut self, source: &RecordBatch, rows: UInt32Array) -> Result<()> {
        let rows = compacted(&take_rows(source, &rows)?)?;
        self.staged_rows += rows.num_rows();
        self.staged_bytes += rows.get_array_memory_size();
        self.staged.push(rows);
        Ok(())
    }

    /// What is staged becomes part of the arena.
    fn rebuild(&mut self) -> Result<()> {
        let parts: Vec<&RecordBatch> = std::iter::once(&self.arena).chain(&self.staged).collect();
        let rows = self.arena.num_rows() + self.staged_rows;
        let columns = (0..self.schema.fields().len()).map(|column| {
            let arrays: Vec<&dyn Array> = parts.iter().map(|part| part.column(column).as_ref()).collect();
            Ok(concat(&arrays)?)
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let joined = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.arena = compacted(&joined)?;
        self.staged.clear();
        (self.staged_rows, self.staged_bytes, self.could_have_answered) = (0, 0, 0);
        Ok(())
    }

    /// Whether the key was hit before. That is forgotten when others have come, so that it must have been of late.
    fn is_second_hit(&mut self, hash: u64) -> bool {
        let place = hash as usize & (self.seen.len() - 1);
        let fingerprint = (hash >> 32) as u32 | 1;
        std::mem::replace(&mut self.seen[place], fingerprint) == fingerprint
    }

    fn bytes(&self) -> usize {
        self.arena.get_array_memory_size() + self.staged_bytes + self.index.bytes()
    }

    fn clear(&mut self) {
        self.index = Index::new(self.variant.key_types());
        self.arena = RecordBatch::new_empty(Arc::clone(&self.schema));
        self.staged.clear();
        self.written.clear();
        (self.staged_rows, self.staged_bytes, self.could_have_answered) = (0, 0, 0);
    }
}

/// The keys of some rows as the index compares them.
enum IndexKeys {
    Numbers(ScalarBuffer<i64>),
    Texts(StringViewArray),
    Encoded(Rows),
}

impl Index {
    fn new(types: &[DataType]) -> Self {
        use DataType::{Date32, Int16, Int32, Int64, LargeUtf8, Time64, Timestamp, Utf8, Utf8View};
        match types {
            [Int16 | Int32 | Int64 | Date32 | Time64(_) | Timestamp(_, _)] => Index::Numbers(NumberIndex::new()),
            [Utf8 | LargeUtf8 | Utf8View] => Index::Texts(BytesIndex::new()),
            _ => Index::Encoded(BytesIndex::new()),
        }
    }

    fn columns(&self, keys: &KeyColumns, variant: &Variant) -> Result<IndexKeys> {
        Ok(match (self, keys.columns.as_slice()) {
            (Index::Numbers(_), [column]) => {
                let numbers = match column.data_type() {
                    DataType::Int64 => Arc::clone(column),
                    DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?,
                    _ => cast(column, &DataType::Int64)?,
                };
                IndexKeys::Numbers(numbers.as_primitive::<Int64Type>().values().clone())
            }
            (Index::Texts(_), [column]) => IndexKeys::Texts(match column.as_string_view_opt() {
                Some(texts) => texts.clone(),
                None => cast(column, &DataType::Utf8View)?.as_string_view().clone(),
            }),
            _ => IndexKeys::Encoded(variant.encode_keys(&keys.columns)?),
        })
    }

    fn probe(&self, keys: &IndexKeys, now: u32) -> Vec<u32> {
        match (self, keys) {
            (Index::Numbers(index), IndexKeys::Numbers(keys)) => keys.iter().map(|key| index.row(*key, now)).collect(),
            (Index::Texts(index), IndexKeys::Texts(keys)) => {
                (0..keys.len()).map(|row| index.row(keys.value(row).as_bytes(), now)).collect()
            }
            (Index::Encoded(index), IndexKeys::Encoded(keys)) => {
                keys.iter().map(|key| index.row(key.data(), now)).collect()
            }
            (Index::Numbers(_) | Index::Texts(_) | Index::Encoded(_), keys) => vec![ABSENT; keys.len()],
        }
    }

    fn entry(&self, keys: &IndexKeys, row: usize) -> Option<Entry> {
        match (self, keys) {
            (Index::Numbers(index), IndexKeys::Numbers(keys)) => index.entry(keys[row]),
            (Index::Texts(index), IndexKeys::Texts(keys)) => index.entry(keys.value(row).as_bytes()),
            (Index::Encoded(index), IndexKeys::Encoded(keys)) => index.entry(keys.row(row).data()),
            (Index::Numbers(_) | Index::Texts(_) | Index::Encoded(_), _) => None,
        }
    }

    fn set(&mut self, keys: &IndexKeys, row: usize, entry: Entry) {
        match (self, keys) {
            (Index::Numbers(index), IndexKeys::Numbers(keys)) => index.set(keys[row], entry),
            (Index::Texts(index), IndexKeys::Texts(keys)) => index.set(keys.value(row).as_bytes(), entry),
            (Index::Encoded(index), IndexKeys::Encoded(keys)) => index.set(keys.row(row).data(), entry),
            (Index::Numbers(_) | Index::Texts(_) | Index::Encoded(_), _) => {}
        }
    }

    /// How many keys there are.
    fn len(&self) -> usize {
        match self {
            Index::Numbers(index) => index.len(),
            Index::Texts(index) | Index::Encoded(index) => index.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Index::Numbers(index) => index.bytes(),
            Index::Texts(index) | Index::Encoded(index) => index.bytes(),
        }
    }
}

impl IndexKeys {
    fn len(&self) -> usize {
        match self {
            IndexKeys::Numbers(keys) => keys.len(),
            IndexKeys::Texts(keys) => keys.len(),
            IndexKeys::Encoded(keys) => keys.num_rows(),
        }
    }
}

#[cfg(test)]
#[path = "l1_tests.rs"]
mod tests;
