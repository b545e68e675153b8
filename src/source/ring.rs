//! The newest rows of a push stream, bounded in rows and in bytes. Pure: who waits for what is `push`'s.
//!
//! Every row has a number, counted from the stream's beginning; a reader's position is the number of the row it
//! reads next. Rows leave at the old end only, so a position below [`Ring::first_row`] tells what was lost.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take};
use datafusion::arrow::datatypes::DataType;

use crate::error::{Error, Result};

/// Most rows in one piece of what a reader takes.
pub(super) const MAX_BATCH_ROWS: usize = 8192;

/// Rows as they were appended, oldest first.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    /// The oldest row that can be read. The front entry may begin before it.
    first_row: u64,
    /// The row that comes next.
    next_row: u64,
    /// The bytes of all entries there ever were.
    bytes_before_next: u64,
    retain_rows: u64,
    retain_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    first_row: u64,
    /// The bytes of all entries before this one, so that the bytes between two entries are a difference.
    bytes_before: u64,
    batch: RecordBatch,
}

impl Entry {
    fn end_row(&self) -> u64 {
        self.first_row + self.batch.num_rows() as u64
    }
}

impl Ring {
    /// Retains at most `retain_rows` rows and `retain_bytes` bytes, but always the newest row.
    pub(super) fn new(retain_rows: usize, retain_bytes: u64) -> Self {
        Ring {
            entries: VecDeque::new(),
            first_row: 0,
            next_row: 0,
            bytes_before_next: 0,
            retain_rows: (retain_rows as u64).max(1),
            retain_bytes,
        }
    }

    /// The oldest row that can be read.
    pub(super) fn first_row(&self) -> u64 {
        self.first_row
    }

    /// The row that comes next.
    pub(super) fn next_row(&self) -> u64 {
        self.next_row
    }

    /// Whether `batch` fits beside all rows from `position` on. A reader that has read all has room for anything:
    /// else a batch beyond the bounds could never come in.
    pub(super) fn has_room(&self, position: u64, batch: &RecordBatch) -> bool {
        let unread_rows = self.next_row.saturating_sub(position);
        let rows = unread_rows.saturating_add(batch.num_rows() as u64);
        let bytes = self.bytes_from(position).saturating_add(batch.get_array_memory_size() as u64);
        unread_rows == 0 || (rows <= self.retain_rows && bytes <= self.retain_bytes)
    }

    /// Takes rows in. They stay beyond the bounds until [`Ring::trim`].
    pub(super) fn push(&mut self, batch: RecordBatch) {
        let (rows, bytes) = (batch.num_rows() as u64, batch.get_array_memory_size() as u64);
        if rows == 0 {
            return;
        }
        self.entries.push_back(Entry { first_row: self.next_row, bytes_before: self.bytes_before_next, batch });
        self.next_row += rows;
        self.bytes_before_next += bytes;
    }

    /// Drops the oldest rows until the bounds hold, but none from `floor` on.
    ///
    /// # Errors
    /// XX000 if what stays cannot be copied.
    pub(super) fn trim(&mut self, floor: u64) -> Result<()> {
        let by_rows = self.next_row.saturating_sub(self.retain_rows);
        let first_row = by_rows.max(self.first_row_within_bytes()).min(floor);
        self.first_row = self.first_row.max(first_row);
        while self.entries.front().is_some_and(|entry| entry.end_row() <= self.first_row) {
            self.entries.pop_front();
        }
        self.compact_front()
    }

    /// The rows from `position` on, at most [`MAX_BATCH_ROWS`], in as many pieces as they came. `position` is no
    /// less than [`Ring::first_row`].
    pub(super) fn read(&self, position: u64) -> Vec<RecordBatch> {
        let mut pieces = vec![];
        let (mut position, mut room) = (position, MAX_BATCH_ROWS);
        let begin = self.entries.partition_point(|entry| entry.end_row() <= position);
        for entry in self.entries.range(begin..) {
            let offset = (position - entry.first_row) as usize;
            let rows = (entry.batch.num_rows() - offset).min(room);
            if rows == 0 {
                break;
            }
            pieces.push(entry.batch.slice(offset, rows));
            position += rows as u64;
            room -= rows;
        }
        pieces
    }

    fn bytes_from(&self, position: u64) -> u64 {
        let begin = self.entries.partition_point(|entry| entry.end_row() <= position);
        self.entries.get(begin).map_or(0, |entry| self.bytes_before_next - entry.bytes_before)
    }

    /// The first row of the longest tail that holds within `retain_bytes`.
    fn first_row_within_bytes(&self) -> u64 {
        let bytes_from = |entry: &Entry| self.bytes_before_next - entry.bytes_before;
        let begin = self.entries.partition_point(|entry| bytes_from(entry) > self.retain_bytes);
        if let Some(entry) = self.entries.get(begin) {
            return entry.first_row;
        }
        // The newest entry alone is too large: its share of newest rows stays.
        self.entries.back().map_or(self.next_row, |entry| {
            let rows = u128::from(entry.end_row() - entry.first_row);
            let kept = rows * u128::from(self.retain_bytes) / u128::from(bytes_from(entry).max(1));
            entry.end_row() - (kept as u64).max(1)
        })
    }

    /// Copies what stays of the front entry once most of it has gone, so that it does not hold what nobody can
    /// read; not each time, so that a row is copied a bounded number of times.
    fn compact_front(&mut self) -> Result<()> {
        let end_bytes = self.entries.get(1).map_or(self.bytes_before_next, |second| second.bytes_before);
        let Some(front) = self.entries.front_mut() else { return Ok(()) };
        let gone = self.first_row.saturating_sub(front.first_row) as usize;
        if gone * 2 <= front.batch.num_rows() {
            return Ok(());
        }
        front.batch = compact(&front.batch.slice(gone, front.batch.num_rows() - gone))?;
        front.first_row += gone as u64;
        front.bytes_before = end_bytes.saturating_sub(front.batch.get_array_memory_size() as u64);
        Ok(())
    }
}

/// A copy that shares no memory with anything: neither a larger array nor a builder's spare room.
///
/// # Errors
/// XX000 for what Arrow cannot copy.
pub(super) fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    map_columns(batch, |column| without_spare_views(&copied(column)?))
}

/// Pieces as one batch, the strings of all of them in one buffer. `pieces` have one schema and are not empty.
///
/// # Errors
/// XX000 for no pieces, or what Arrow cannot join.
pub(super) fn merge(mut pieces: Vec<RecordBatch>) -> Result<RecordBatch> {
    let Some(last) = pieces.pop() else { return Err(Error::internal("no rows to merge")) };
    if pieces.is_empty() {
        return Ok(last);
    }
    pieces.push(last);
    let merged = concat_batches(&pieces[0].schema(), &pieces)?;
    map_columns(&merged, without_spare_views)
}

fn map_columns(batch: &RecordBatch, change: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(change).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn copied(column: &ArrayRef) -> Result<ArrayRef> {
    let all: UInt32Array = (0..column.len() as u32).collect();
    let mut taken = take(column, &all, None)?;
    taken.shrink_to_fit();
    Ok(taken)
}

/// `take` and `concat` leave strings where they are and collect the buffers that hold them: one for each small
/// batch, and each of them whole.
fn without_spare_views(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        DataType::List(field) => {
            let list = column.as_list::<i32>();
            let values = without_spare_views(list.values())?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, nulls)?)
        }
        _ => Arc::clone(column),
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, StringViewArray};
    use datafusion::arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    const ALL: u64 = u64::MAX;

    fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        let array: ArrayRef = Arc::new(values.into_iter().collect::<Int64Array>());
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true)]);
        compact(&RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap()).unwrap()
    }

    fn read(ring: &Ring, position: u64) -> Vec<i64> {
        let values = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        ring.read(position).iter().flat_map(values).collect()
    }

    #[test]
    fn exactly_the_newest_rows_stay() {
        let mut ring = Ring::new(3, ALL);
        for value in 0..10 {
            ring.push(numbers([value]));
            ring.trim(ALL).unwrap();
        }
        assert_eq!((ring.first_row(), ring.next_row()), (7, 10));
        assert_eq!(read(&ring, 7), [7, 8, 9]);
        ring.push(numbers(10..15));
        ring.trim(ALL).unwrap();
        assert_eq!(read(&ring, ring.first_row()), [12, 13, 14]);
    }

    #[test]
    fn the_front_batch_is_cut_and_does_not_hold_what_is_gone() {
        let mut ring = Ring::new(1000, ALL);
        ring.push(numbers(0..1000));
        let whole = ring.bytes_from(0);
        ring.push(numbers(1000..1900));
        ring.trim(ALL).unwrap();
        assert_eq!(read(&ring, 900)[..3], [900, 901, 902]);
        assert_eq!(ring.entries[0].batch.num_rows(), 100);
        assert!(ring.bytes_from(900) < 2 * whole, "{} of {whole}", ring.bytes_from(900));
    }

    #[test]
    fn bytes_bound_the_ring_as_rows_do() {
        let one = numbers([0]).get_array_memory_size() as u64;
        let mut ring = Ring::new(1000, 3 * one);
        for value in 0..10 {
            ring.push(numbers([value]));
            ring.trim(ALL).unwrap();
        }
        assert_eq!(read(&ring, ring.first_row()), [7, 8, 9]);
    }

    #[test]
    fn a_batch_beyond_the_bytes_leaves_its_newest_rows_and_always_one() {
        let batch = numbers(0..1000);
        let mut ring = Ring::new(10_000, (batch.get_array_memory_size() as u64).div_ceil(10));
        ring.push(batch);
        ring.trim(ALL).unwrap();
        assert_eq!((ring.first_row(), ring.next_row()), (900, 1000));

        let mut ring = Ring::new(10_000, 1);
        ring.push(numbers(0..1000));
        ring.trim(ALL).unwrap();
        assert_eq!(read(&ring, ring.first_row()), [999]);
    }

    #[test]
    fn nothing_is_dropped_from_the_floor_on() {
        let mut ring = Ring::new(2, 1);
        ring.push(numbers(0..10));
        ring.trim(4).unwrap();
        assert_eq!(read(&ring, ring.first_row()), [4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn room_counts_what_the_slowest_reader_has_not_read() {
        let mut ring = Ring::new(4, ALL);
        ring.push(numbers(0..3));
        assert!(ring.has_room(0, &numbers([3])));
        assert!(!ring.has_room(0, &numbers([3, 4])));
        assert!(ring.has_room(1, &numbers([3, 4])));
        assert!(ring.has_room(3, &numbers(0..100)), "a reader that has read all has room for anything");
    }

    #[test]
    fn a_read_takes_at_most_a_batch_full() {
        let mut ring = Ring::new(100_000, ALL);
        ring.push(numbers(0..5));
        ring.push(numbers(5..20_000));
        assert_eq!(read(&ring, 2), (2..2 + MAX_BATCH_ROWS as i64).collect::<Vec<_>>());
        assert_eq!(read(&ring, 19_999), [19_999]);
        assert!(ring.read(20_000).is_empty());
    }

    #[test]
    fn a_compact_copy_holds_none_of_the_larger_batch() {
        let long = "a text that is too long to stand in its view";
        let strings: ArrayRef = Arc::new(StringViewArray::from(vec![long; 1000]));
        let batch = RecordBatch::try_from_iter([("a", strings)]).unwrap();
        let slice = batch.slice(10, 1);
        let copy = compact(&slice).unwrap();
        assert_eq!(copy, slice);
        assert!(slice.get_array_memory_size() > 10_000);
        assert!(copy.get_array_memory_size() < 1000, "{}", copy.get_array_memory_size());
    }

    #[test]
    fn merged_pieces_keep_their_order_and_share_one_buffer() {
        let long = |number: usize| format!("a text that is too long to stand in its view: {number}");
        let piece = |number: usize| {
            let strings: ArrayRef = Arc::new(StringViewArray::from(vec![long(number)]));
            RecordBatch::try_from_iter([("a", strings)]).unwrap()
        };
        let merged = merge((0..100).map(piece).collect()).unwrap();
        let strings = merged.column(0).as_string_view();
        assert!(strings.iter().enumerate().all(|(number, text)| text == Some(long(number).as_str())));
        assert_eq!(strings.data_buffers().len(), 1);
        assert_eq!(merge(vec![]).unwrap_err().message(), "no rows to merge");
    }
}
