//! The flights of one variant: which key flies, and which keys wait for a request.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::arrow::row::Rows;
use hashbrown::HashTable;
use slab::Slab;

use super::variant::Variant;

/// One key that somebody waits for, or did.
pub(super) struct Flight {
    pub variant: u64,
    pub hash: u64,
    pub chunk: Arc<Rows>,
    pub row: u32,
    pub batch_size: NonZeroUsize,
    pub fills_cache: bool,
    pub waiters: Vec<Waiter>,
    pub request: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub ask: u64,
    pub position: u32,
}

/// The flights of one variant.
pub(super) struct Lane {
    pub variant: Arc<Variant>,
    /// Flights that may be joined, by key.
    pub index: HashTable<usize>,
    /// Flights without a request, oldest first; those that nobody waits for are skipped.
    pub waiting: VecDeque<usize>,
    /// How many of `waiting` nobody waits for.
    pub unwanted: usize,
}

impl Lane {
    pub fn new(variant: Arc<Variant>) -> Self {
        Lane { variant, index: HashTable::new(), waiting: VecDeque::new(), unwanted: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && self.waiting.is_empty()
    }

    /// Nobody joins this flight any more.
    pub fn unlist(&mut self, id: usize, hash: u64) {
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }

    /// Ends the waiting flights that nobody waits for.
    pub fn sweep(&mut self, flights: &mut Slab<Flight>) {
        for id in std::mem::take(&mut self.waiting) {
            let flight = &flights[id];
            if !flight.waiters.is_empty() {
                self.waiting.push_back(id);
                continue;
            }
            self.unlist(id, flight.hash);
            flights.remove(id);
        }
        self.unwanted = 0;
    }
}
