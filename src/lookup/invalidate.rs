//! Forgetting what the store may have changed.
//!
//! An answer to a request that was sent before is never cached after, and rows that arrive after do not join older
//! flights of what was forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::kernels::cast::{CastOptions, can_cast_types, cast_with_options};

use super::cache::Probe;
use super::table::LookupTable;
use super::variant::Variant;
use crate::error::Result;
use crate::store::KeyEquality;

impl LookupTable {
    /// Forgets every answer; returns how many keys were remembered. A table that is held whole forgets its rows, loads
    /// them again at the next use, and counts the rows.
    pub fn invalidate_all(&self) -> u64 {
        let forgotten = match (&self.cache, &self.full) {
            (Some(cache), _) => cache.forget_all(|| self.flights.next_generation()),
            (None, full) => {
                let rows = full.as_ref().map_or(0, |full| full.invalidate());
                self.flights.next_generation();
                rows
            }
        };
        self.note_invalidation();
        forgotten
    }

    /// Forgets the answers to these keys, whichever columns they are of; returns how many there were. `keys` has an
    /// array for each key column, of its type or one that can be cast to it; joins with other keys keep what they know. A table that is held whole
    /// is loaded whole: it forgets all rows.
    ///
    /// # Errors
    /// Internal, if the arrays differ in length.
    pub fn invalidate_keys(&self, keys: &[ArrayRef]) -> Result<u64> {
        if self.full.is_some() {
            return Ok(self.invalidate_all());
        }
        let mut forgotten = 0;
        for variant in self.variants() {
            if let Some(keys) = as_keys_of(&variant, keys)? {
                forgotten += self.forget_keys(&variant, &keys)?;
            }
        }
        self.note_invalidation();
        Ok(forgotten)
    }

    /// Forgets the answers to these keys of `columns` (positions in the store's schema), and all that is known by other
    /// columns, or by columns that the store compares in a way of its own: which of that has changed cannot be told.
    ///
    /// # Errors
    /// Internal, if the arrays are not of the columns' types or differ in length.
    pub(super) fn forget_changed(&self, columns: &[usize], keys: &[ArrayRef]) -> Result<()> {
        let is_by_value = columns.iter().all(|column| self.store().key_equality(*column) == KeyEquality::ByValue);
        for variant in self.variants() {
            let place = |column: &usize| columns.iter().position(|changed| changed == column);
            let key_columns = &variant.shape().key_columns;
            let places = key_columns.iter().map(place).collect::<Option<Vec<_>>>();
            match places.filter(|places| is_by_value && places.len() == columns.len()) {
                Some(places) => {
                    let keys = places.iter().map(|&place| Arc::clone(&keys[place])).collect::<Vec<_>>();
                    self.forget_keys(&variant, &keys)?;
                }
                None => match &self.cache {
                    Some(cache) => cache.forget_variant(|| variant.next_generation()),
                    None => variant.next_generation(),
                },
            }
        }
        self.note_invalidation();
        Ok(())
    }

    /// `keys` are of the variant's types; those with a NULL are none.
    fn forget_keys(&self, variant: &Arc<Variant>, keys: &[ArrayRef]) -> Result<u64> {
        let valid =
            keys.iter().fold(None, |valid, key| NullBuffer::union(valid.as_ref(), key.logical_nulls().as_ref()));
        let encoded = variant.encode_keys(keys)?;
        let is_key = |row: &usize| valid.as_ref().is_none_or(|valid| valid.is_valid(*row));
        let rows = (0..encoded.num_rows()).filter(is_key).map(|row| encoded.row(row).data());
        let probes: Vec<Probe<'_>> = rows.map(|key| Probe { variant, hash: variant.hash_key(key), key }).collect();
        let mark = || self.flights.forget(&probes);
        Ok(match &self.cache {
            Some(cache) => cache.forget(mark, probes.iter().copied()),
            None => {
                mark();
                0
            }
        })
    }

    /// Rises after something was forgotten. Who copies answers drops the copies if it has risen since before he read
    /// the first of them.
    pub(super) fn invalidations(&self) -> u64 {
        self.invalidations.load(Relaxed)
    }

    fn note_invalidation(&self) {
        self.invalidations.fetch_add(1, Relaxed);
    }
}

/// The keys in the variant's types; `None` if these are other keys than the variant's. What has no place in its type
/// becomes NULL.
fn as_keys_of(variant: &Variant, keys: &[ArrayRef]) -> Result<Option<Vec<ArrayRef>>> {
    let types = variant.key_types();
    let castable = |(key, to): (&ArrayRef, _)| can_cast_types(key.data_type(), to);
    if types.len() != keys.len() || !keys.iter().zip(types).all(castable) {
        return Ok(None);
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let keys = keys.iter().zip(types).map(|(key, to)| Ok(cast_with_options(key, to, &options)?));
    keys.collect::<Result<_>>().map(Some)
}
