//! From a batch to its distinct keys. Pure: no waiting here.
//!
//! What makes two keys the same here decides only what is asked once: whether a row of the table equals a key is the store's
//! decision.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::take;
use datafusion::arrow::row::{Row, Rows};
use datafusion::physical_expr::PhysicalExpr;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::LookupJoin;
use super::variant::Variant;
use crate::error::{Error, Result};

/// In place of a key's position: the row has nothing to look up.
pub(super) const NO_KEY: u32 = u32::MAX;

/// The keys of one batch; a key is named by its position among the distinct ones, in order of first appearance.
pub(super) struct BatchKeys {
    /// For each row the position of its key, or [`NO_KEY`].
    pub key_of_row: Vec<u32>,
    /// Of each distinct key, see [`Variant::hash_key`].
    pub hashes: Vec<u64>,
    first_row: Vec<u32>,
    encoded: Rows,
}

impl BatchKeys {
    /// How many distinct keys there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// A row that has the key.
    pub fn first_row(&self, position: u32) -> usize {
        self.first_row[position as usize] as usize
    }

    pub fn key(&self, position: u32) -> Row<'_> {
        self.encoded.row(self.first_row[position as usize] as usize)
    }
}

/// The keys of some rows, column by column.
pub(super) struct KeyColumns {
    pub columns: Vec<ArrayRef>,
    /// Which rows have a key to look up; `None`: all.
    pub valid: Option<NullBuffer>,
}

impl KeyColumns {
    /// Those of some of the rows, all of which have a key.
    pub fn take(&self, rows: &UInt32Array) -> Result<KeyColumns> {
        let columns = self.columns.iter().map(|column| Ok(take(column, rows, None)?));
        Ok(KeyColumns { columns: columns.collect::<Result<_>>()?, valid: None })
    }

    /// How many of `rows` rows have a key.
    pub fn count(&self, rows: usize) -> usize {
        rows - self.valid.as_ref().map_or(0, NullBuffer::null_count)
    }
}

/// Finds keys batch after batch.
pub(super) struct KeyFinder {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    gate: Option<Arc<dyn PhysicalExpr>>,
    variant: Arc<Variant>,
    /// Positions of the batch's keys by hash; kept for its memory.
    seen: HashTable<u32>,
}

impl KeyFinder {
    pub fn new(join: &LookupJoin, variant: Arc<Variant>) -> Self {
        KeyFinder { keys: join.keys.clone(), gate: join.gate.clone(), variant, seen: HashTable::new() }
    }

    /// # Errors
    /// What evaluating a key or the gate fails with.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<KeyColumns> {
        let open = self.gate.as_ref().map(|gate| evaluate_gate(gate, batch)).transpose()?;
        let keys = self.evaluate_keys(batch, open.as_ref())?;
        let closed = open.map(|open| NullBuffer::new(open.values().clone()));
        let valid =
            keys.iter().fold(closed, |valid, key| NullBuffer::union(valid.as_ref(), key.logical_nulls().as_ref()));
        let valid = valid.filter(|valid| valid.null_count() > 0);
        Ok(KeyColumns { columns: keys, valid })
    }

    /// The distinct ones of these keys.
    pub fn find(&mut self, keys: &KeyColumns) -> Result<BatchKeys> {
        let encoded = self.variant.encode_keys(&keys.columns)?;
        Ok(self.distinct(encoded, keys.valid.as_ref()))
    }

    /// A row that the gate keeps out gets NULL, so that its key is not evaluated: that might fail.
    fn evaluate_keys(&self, batch: &RecordBatch, open: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let evaluate = |key: &Arc<dyn PhysicalExpr>| {
            let value = match open {
                Some(open) => key.evaluate_selection(batch, open)?,
                None => key.evaluate(batch)?,
            };
            Ok(value.into_array(batch.num_rows())?)
        };
        self.keys.iter().map(evaluate).collect()
    }

    fn distinct(&mut self, encoded: Rows, valid: Option<&NullBuffer>) -> BatchKeys {
        let rows = encoded.num_rows();
        let mut key_of_row = Vec::with_capacity(rows);
        let mut first_row: Vec<u32> = Vec::new();
        let mut hashes: Vec<u64> = Vec::new();
        self.seen.clear();
        for row in 0..rows {
            if valid.is_some_and(|valid| valid.is_null(row)) {
                key_of_row.push(NO_KEY);
                continue;
            }
            let key = encoded.row(row);
            let hash = self.variant.hash_key(key.data());
            let same = |known: &u32| {
                let known = *known as usize;
                hashes[known] == hash && encoded.row(first_row[known] as usize).data() == key.data()
            };
            let position = match self.seen.entry(hash, same, |known| hashes[*known as usize]) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(free) => {
                    let position = first_row.len() as u32;
                    free.insert(position);
                    first_row.push(row as u32);
                    hashes.push(hash);
                    position
                }
            };
            key_of_row.push(position);
        }
        BatchKeys { key_of_row, hashes, first_row, encoded }
    }
}

/// True where the condition is true; neither false nor NULL lets a row through.
fn evaluate_gate(gate: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<BooleanArray> {
    let value = gate.evaluate(batch)?.into_array(batch.num_rows())?;
    as_true(&value)
}

/// Where a condition is true, as an array without NULLs.
pub(super) fn as_true(condition: &ArrayRef) -> Result<BooleanArray> {
    let condition = condition.as_any().downcast_ref::<BooleanArray>().ok_or_else(|| {
        Error::internal(format!("a condition of a lookup join has the type {}", condition.data_type()))
    })?;
    Ok(match condition.nulls() {
        Some(nulls) => BooleanArray::new(condition.values() & nulls.inner(), None),
        None => condition.clone(),
    })
}
