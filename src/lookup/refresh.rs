//! Flights that nobody waits for, and flights that are not to be joined any more.
//!
//! An answer that is old enough is asked for anew while it still serves. Such an ask has nobody who could drop it, so
//! the board drops it with the last of its flights; its deadline bounds how long that takes.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::board::Board;
use super::cache::Probe;
use super::flight::{Flights, Question, Request};
use super::keys::BatchKeys;
use super::lane::{Flight, Place, Waiter};
use super::mailbox::Mailbox;
use super::table::LookupTable;
use super::variant::Variant;

impl LookupTable {
    /// Asks for these keys anew; nobody waits.
    pub(super) fn refresh(
        self: &Arc<Self>,
        keys: &BatchKeys,
        stale: Vec<(Arc<Variant>, Vec<u32>)>,
        batch_size: NonZeroUsize,
    ) {
        let now = Instant::now();
        let deadline = self.policy().timeout.and_then(|timeout| now.checked_add(timeout));
        for (variant, positions) in stale {
            self.count.refreshes.fetch_add(positions.len() as u64, Relaxed);
            let question = Question {
                variant: &variant,
                mailbox: &Arc::new(Mailbox::default()),
                slice: 0,
                keys,
                missing: positions,
                deadline,
                batch_size,
                batch_delay: self.policy().batch_delay,
                fills_cache: true,
                seen: self.flights.epoch(),
            };
            self.send(self.flights.refresh(question));
        }
    }
}

impl Flights {
    /// Starts a flight for each key that has none.
    fn refresh(&self, question: Question<'_>) -> Vec<Request> {
        let mut board = self.lock();
        let ask = board.register(question);
        board.detach(ask);
        board.take_requests()
    }

    /// Nobody joins the flights of these keys that have left already, and their answers are not cached.
    pub(super) fn forget(&self, keys: &[Probe<'_>]) {
        let mut board = self.lock();
        keys.iter().for_each(|key| board.forget(*key));
    }

    /// Which of the request's keys may go into the cache: some may have been forgotten since it was sent.
    pub(super) fn cacheable(&self, request: &Request) -> Vec<bool> {
        let board = self.lock();
        let is_current = board.is_current_request(request.id);
        request.keys.iter().map(|key| is_current && board.fills_cache(key.flight)).collect()
    }
}

impl Board {
    fn detach(&mut self, ask: u64) {
        if let Some(ask) = self.asks.get_mut(&ask) {
            ask.is_detached = true;
        }
    }

    /// A flight has ended without an answer.
    pub(super) fn release_detached(&mut self, waiters: &[Waiter]) {
        for waiter in waiters {
            let Some(ask) = self.asks.get_mut(&waiter.ask).filter(|ask| ask.is_detached) else { continue };
            ask.open -= 1;
            if ask.open == 0 {
                self.asks.remove(&waiter.ask);
            }
        }
    }

    fn forget(&mut self, probe: Probe<'_>) {
        let Some(lane) = self.lanes.get_mut(&probe.variant.id()) else { return };
        let is_key =
            |flight: &Flight| flight.hash == probe.hash && flight.chunk.row(flight.row as usize).data() == probe.key;
        // What has not left will be asked for after this. A flight of an older generation may be beside a newer one.
        let has_left = |flight: &Flight| matches!(flight.place, Place::Requested(_));
        let found = lane.index.iter_hash(probe.hash).copied();
        let found: Vec<usize> = found.filter(|id| is_key(&self.flights[*id]) && has_left(&self.flights[*id])).collect();
        for id in found {
            lane.unlist(id, probe.hash);
            self.flights[id].fills_cache = false;
        }
    }

    fn is_current_request(&self, id: u64) -> bool {
        self.requests.get(&id).is_some_and(|request| request.generation == self.generation_of(&request.variant))
    }

    fn fills_cache(&self, flight: usize) -> bool {
        self.flights.get(flight).is_some_and(|flight| flight.fills_cache)
    }
}
