//! How many bytes values take in Arrow's arrays: what `max_answer_bytes` bounds. Bits that say which values are NULL
//! do not count.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use datafusion::arrow::datatypes::DataType;

use super::StoreError;

/// What a row costs beside its columns: the position of its key.
pub(super) const POSITION_BYTES: u64 = 4;
/// What tells where a value of variable length ends.
pub(super) const OFFSET_BYTES: u64 = 4;
/// A text's length, its beginning, and where the rest is.
const VIEW_BYTES: u64 = 16;
/// Texts up to this length stand in their view.
const INLINE_BYTES: usize = 12;

/// A text of so many bytes.
pub(super) fn text_bytes(length: usize) -> u64 {
    VIEW_BYTES + if length > INLINE_BYTES { length as u64 } else { 0 }
}

/// A bytea of so many bytes.
pub(super) fn bytea_bytes(length: usize) -> u64 {
    OFFSET_BYTES + length as u64
}

/// What the values of `column` in `rows` will take in an array of their own.
pub(super) fn rows_bytes(column: &ArrayRef, rows: &[u32]) -> u64 {
    match width(column.data_type()) {
        Some(bits) => (rows.len() as u64 * bits).div_ceil(8),
        None => rows.iter().map(|&row| value_bytes(column, row as usize)).sum(),
    }
}

/// What all values of `column` take.
pub(super) fn column_bytes(column: &ArrayRef) -> u64 {
    range_bytes(column, 0, column.len())
}

/// Room for an answer, which its rows take.
#[derive(Debug)]
pub(super) struct AnswerRoom {
    left: u64,
    max_answer_bytes: u64,
}

impl AnswerRoom {
    pub(super) fn new(max_answer_bytes: u64) -> Self {
        AnswerRoom { left: max_answer_bytes, max_answer_bytes }
    }

    /// # Errors
    /// Too large, when there is not so much left.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), StoreError> {
        let max_answer_bytes = self.max_answer_bytes;
        self.left = self.left.checked_sub(bytes).ok_or(StoreError::TooLarge { max_answer_bytes })?;
        Ok(())
    }
}

/// Bits of a value whose type has one size for all.
fn width(data_type: &DataType) -> Option<u64> {
    match data_type {
        DataType::Null => Some(0),
        DataType::Boolean => Some(1),
        other => other.primitive_width().map(|bytes| bytes as u64 * 8),
    }
}

fn value_bytes(column: &ArrayRef, row: usize) -> u64 {
    match column.data_type() {
        // The lower half of a view is the length.
        DataType::Utf8View => text_bytes(column.as_string_view().views()[row] as u32 as usize),
        DataType::BinaryView => text_bytes(column.as_binary_view().views()[row] as u32 as usize),
        DataType::Utf8 => OFFSET_BYTES + length(column.as_string::<i32>().value_length(row)),
        DataType::LargeUtf8 => 2 * OFFSET_BYTES + length(column.as_string::<i64>().value_length(row)),
        DataType::Binary => OFFSET_BYTES + length(column.as_binary::<i32>().value_length(row)),
        DataType::LargeBinary => 2 * OFFSET_BYTES + length(column.as_binary::<i64>().value_length(row)),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let start = list.value_offsets()[row] as usize;
            OFFSET_BYTES + range_bytes(list.values(), start, list.value_length(row) as usize)
        }
        // No type of ours is stored otherwise; a file's may be, and is counted by its share.
        _ => (column.get_array_memory_size() / column.len().max(1)) as u64,
    }
}

fn range_bytes(values: &ArrayRef, start: usize, count: usize) -> u64 {
    match width(values.data_type()) {
        Some(bits) => (count as u64 * bits).div_ceil(8),
        None => (start..start + count).map(|row| value_bytes(values, row)).sum(),
    }
}

fn length(length: impl OffsetSizeTrait) -> u64 {
    length.as_usize() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        BinaryArray, BooleanArray, Decimal128Array, Int32Array, ListArray, StringArray, StringViewArray,
    };
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn bytes_are_those_that_arrays_hold() {
        let long = "x".repeat(13);
        let lists = [Some(vec![Some(1), None, Some(3)]), None, Some(vec![])];
        let columns: [(ArrayRef, u64); 7] = [
            (Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])), 3 * 4),
            (Arc::new(BooleanArray::from(vec![true, false, true])), 1),
            (Arc::new(Decimal128Array::from(vec![1, 2, 3])), 3 * 16),
            (Arc::new(StringViewArray::from(vec![Some(long.as_str()), None, Some("twelve bytes")])), 3 * 16 + 13),
            (Arc::new(StringArray::from(vec!["", "ab", "abc"])), 3 * 4 + 5),
            (Arc::new(BinaryArray::from_vec(vec![b"", b"ab", b"abc"])), 3 * 4 + 5),
            (Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)), 3 * 4 + 3 * 4),
        ];
        for (column, expected) in columns {
            assert_eq!(rows_bytes(&column, &[0, 1, 2]), expected, "{}", column.data_type());
            let twice = rows_bytes(&column, &[2, 0, 1, 1, 0, 2]);
            assert!((expected * 2 - 1..=expected * 2).contains(&twice), "{}: {twice}", column.data_type());
        }
    }

    #[test]
    fn lists_of_texts_count_their_texts() {
        let texts = StringViewArray::from(vec!["short", "longer than twelve"]);
        let list = datafusion::common::utils::SingleRowListArrayBuilder::new(Arc::new(texts)).build_list_array();
        let list: ArrayRef = Arc::new(list);
        assert_eq!(rows_bytes(&list, &[0]), 4 + 2 * 16 + 18);
    }

    #[test]
    fn room_is_taken_until_there_is_none() {
        let mut room = AnswerRoom::new(10);
        assert!(room.take(10).is_ok());
        assert!(room.take(0).is_ok());
        assert!(matches!(room.take(1), Err(StoreError::TooLarge { max_answer_bytes: 10 })));
    }
}
