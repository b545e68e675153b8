//! Keys that are asked for once more: after a rest, or in a smaller request.

use std::sync::Arc;

use tokio::time::Instant;

use super::board::Board;
use super::flight::Request;
use super::lane::{Lane, Place, Waiter};
use super::variant::Variant;

impl Board {
    /// When a request may leave that may not now, provided that there is a slot.
    pub fn next_alarm(&self) -> Option<Instant> {
        let now = Instant::now();
        let lanes = self.turns.iter().filter_map(|id| self.lanes.get(id)?.ripe_at(&self.flights, now));
        let ripening = lanes.filter(|ripe_at| *ripe_at > now);
        ripening.chain(self.resting.first().map(|(until, _)| *until)).min()
    }

    /// Two requests instead of one whose answer some keys have spoilt. Those that nobody waits for end here.
    pub fn split(&mut self, request: Request) -> Vec<Request> {
        let Some(state) = self.requests.remove(&request.id) else { return Vec::new() };
        let Request { variant, mut keys, .. } = request;
        let second = keys.split_off(keys.len() / 2);
        let mut halves = Vec::new();
        for keys in [keys, second] {
            if keys.iter().any(|key| self.flights.get(key.flight).is_some_and(|flight| !flight.waiters.is_empty())) {
                halves.push(self.new_request(Arc::clone(&variant), state.generation, keys));
            } else {
                keys.iter().for_each(|key| drop(self.remove_flight(key.flight)));
            }
        }
        halves
    }

    /// Lays a flight aside until another attempt may be made. Those whose time is over are not kept waiting: they are
    /// returned.
    pub fn rest(&mut self, id: usize, variant: &Arc<Variant>, until: Instant) -> Vec<Waiter> {
        let now = Instant::now();
        let Some(flight) = self.flights.get_mut(id) else { return Vec::new() };
        let is_late = |waiter: &Waiter| match self.asks.get(&waiter.ask) {
            Some(ask) => ask.deadline.is_some_and(|deadline| deadline <= now),
            None => true,
        };
        let (late, patient): (Vec<Waiter>, Vec<Waiter>) = flight.waiters.drain(..).partition(is_late);
        flight.waiters = patient;
        if flight.waiters.is_empty() {
            self.remove_flight(id);
        } else {
            flight.place = Place::Resting(until);
            self.resting.insert((until, id));
            // The lane may have ended while its last flight, whose key was forgotten, was at the store.
            self.lanes.entry(variant.id()).or_insert_with(|| Lane::new(Arc::clone(variant))).resting += 1;
        }
        late
    }

    /// Flights that have rested wait for a request again.
    pub fn wake_rested(&mut self, now: Instant) {
        while let Some((until, id)) = self.resting.first().copied() {
            if until > now {
                return;
            }
            self.resting.pop_first();
            let Some(flight) = self.flights.get_mut(id) else { continue };
            flight.place = Place::Waiting;
            flight.ripe_at = now;
            let variant = flight.variant;
            let Some(lane) = self.lanes.get_mut(&variant) else { continue };
            lane.resting -= 1;
            if lane.waiting.is_empty() {
                self.turns.push_back(variant);
            }
            lane.push_rested(id, now);
        }
    }
}
