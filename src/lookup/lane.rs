//! The flights of one variant: which key flies, and which keys wait for a request.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::arrow::row::Rows;
use hashbrown::HashTable;
use slab::Slab;
use tokio::time::Instant;

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
    /// From when it has waited long enough for company.
    pub ripe_at: Instant,
    /// How often it was asked for.
    pub attempts: u32,
    pub place: Place,
}

/// Where a flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its lane, for a request to take it.
    Waiting,
    /// At the store, or on the way there.
    Requested(u64),
    /// Until another attempt may be made.
    Resting(Instant),
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
    /// Flights that will wait again.
    pub resting: usize,
    /// From when some of `waiting` have waited long enough for company.
    ripe_at: Option<Instant>,
}

impl Lane {
    pub fn new(variant: Arc<Variant>) -> Self {
        Lane { variant, index: HashTable::new(), waiting: VecDeque::new(), unwanted: 0, resting: 0, ripe_at: None }
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && self.waiting.is_empty() && self.resting == 0
    }

    /// One more flight waits, behind the others.
    pub fn push(&mut self, id: usize, ripe_at: Instant) {
        self.waiting.push_back(id);
        self.ripe_at = Some(self.ripe_at.map_or(ripe_at, |other| other.min(ripe_at)));
    }

    /// A flight that has rested waits again, before the others.
    pub fn push_rested(&mut self, id: usize, now: Instant) {
        self.waiting.push_front(id);
        self.ripe_at = Some(self.ripe_at.map_or(now, |other| other.min(now)));
    }

    /// From when a request may leave; `None`: nothing waits. Enough keys for a whole request need no more company.
    pub fn ripe_at(&self, flights: &Slab<Flight>, now: Instant) -> Option<Instant> {
        let batch_size = flights[*self.waiting.front()?].batch_size.get();
        match self.waiting.len() - self.unwanted >= batch_size {
            true => Some(now),
            false => self.ripe_at,
        }
    }

    /// To be called after flights were taken from `waiting`.
    pub fn count_ripe(&mut self, flights: &Slab<Flight>, now: Instant) {
        // What is left when all is ripe, as it is without a batch_delay, need not be counted one by one.
        self.ripe_at = match self.waiting.front().map(|id| flights[*id].ripe_at) {
            Some(ripe_at) if ripe_at > now => self.waiting.iter().map(|id| flights[*id].ripe_at).min(),
            first => first,
        };
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
        self.ripe_at = self.waiting.iter().map(|id| flights[*id].ripe_at).min();
    }
}
