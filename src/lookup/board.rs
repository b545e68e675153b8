//! The books of [`Flights`](super::flight::Flights): asks, flights, requests. No waiting, no locking.
//!
//! A flight is *waiting* (in its lane, no request yet), *requested*, or *resting* before another attempt. It ends when
//! its request is completed for good, when nobody waits for any key of its request any more, or, without a request, when
//! nobody waits for it. What is asked for once more stands in `again`, what nobody waits for in `refresh`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use ahash::RandomState;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::flight::{Completion, Epoch, KeyResult, Patience, Question, Request, RequestKey};
use super::lane::{Flight, Lane, Place, Waiter};
use super::mailbox::{Cost, DeliveredKey, Delivery, Mailbox};
use super::variant::Variant;

pub(super) struct Board {
    /// Requests that may be at the store at once, and that are.
    pub slots: usize,
    pub busy: usize,
    pub epoch: Epoch,
    next_id: u64,
    pub asks: HashMap<u64, AskState, RandomState>,
    pub flights: Slab<Flight>,
    /// By variant.
    pub lanes: HashMap<u64, Lane, RandomState>,
    /// Lanes with waiting keys, in the order in which they get the next slot.
    pub turns: VecDeque<u64>,
    /// Flights that rest, by when they have rested.
    pub resting: BTreeSet<(Instant, usize)>,
    /// When the timekeeper wakes; `None`: there is none.
    pub alarm: Option<Instant>,
    pub requests: HashMap<u64, RequestState, RandomState>,
}

pub(super) struct AskState {
    mailbox: Arc<Mailbox>,
    slice: u64,
    pub deadline: Option<Instant>,
    keys: Vec<AskedKey>,
    /// How many of `keys` are not delivered yet.
    pub open: usize,
    /// Nobody waits, see `refresh`.
    pub is_detached: bool,
    /// Keys of the delivery that is being put together.
    outbox: Vec<DeliveredKey>,
}

/// `flight` may have ended and its place may be another's by now: it counts only while the ask is among its waiters.
#[derive(Clone, Copy)]
struct AskedKey {
    flight: usize,
    position: u32,
}

pub(super) struct RequestState {
    flights: Vec<usize>,
    /// How many of `flights` somebody waits for.
    wanted: usize,
    /// The table's and the variant's together.
    pub generation: u64,
    pub variant: Arc<Variant>,
    answered_at: Option<Instant>,
    abandoned: Arc<Notify>,
}

impl Board {
    pub fn new(max_in_flight: NonZeroUsize) -> Self {
        Board {
            slots: max_in_flight.get(),
            busy: 0,
            epoch: Epoch { completions: 0, generation: 0 },
            next_id: 0,
            asks: HashMap::default(),
            flights: Slab::new(),
            lanes: HashMap::default(),
            turns: VecDeque::new(),
            resting: BTreeSet::new(),
            alarm: None,
            requests: HashMap::default(),
        }
    }

    pub fn has_flight(&self, question: &Question<'_>, position: u32) -> bool {
        self.lanes.get(&question.variant.id()).is_some_and(|lane| self.joinable(lane, question, position).is_some())
    }

    /// Joins or starts a flight for each missing key.
    pub fn register(&mut self, question: Question<'_>) -> u64 {
        let id = self.new_id();
        let ripe_at = Instant::now() + question.batch_delay;
        let variant = question.variant;
        let mut lane = self.lanes.remove(&variant.id()).unwrap_or_else(|| Lane::new(Arc::clone(variant)));
        let had_turn = !lane.waiting.is_empty();
        let mut keys = Vec::with_capacity(question.missing.len());
        let mut to_start = Vec::new();
        for position in question.missing.iter().copied() {
            match self.joinable(&lane, &question, position) {
                Some(flight) => {
                    self.join(&mut lane, flight, Waiter { ask: id, position }, question.fills_cache);
                    keys.push(AskedKey { flight, position });
                }
                None => to_start.push(position),
            }
        }
        let mut chunk = variant.no_keys(to_start.len());
        to_start.iter().for_each(|position| chunk.push(question.keys.key(*position)));
        let chunk = Arc::new(chunk);
        for (row, position) in to_start.into_iter().enumerate() {
            let flight = Flight {
                variant: variant.id(),
                hash: question.keys.hashes[position as usize],
                chunk: Arc::clone(&chunk),
                row: row as u32,
                batch_size: question.batch_size,
                fills_cache: question.fills_cache,
                waiters: vec![Waiter { ask: id, position }],
                ripe_at,
                attempts: 0,
                place: Place::Waiting,
            };
            keys.push(AskedKey { flight: self.start(&mut lane, flight), position });
        }
        if !had_turn && !lane.waiting.is_empty() {
            self.turns.push_back(variant.id());
        }
        self.lanes.insert(variant.id(), lane);
        let ask = AskState {
            mailbox: Arc::clone(question.mailbox),
            slice: question.slice,
            deadline: question.deadline,
            open: keys.len(),
            is_detached: false,
            keys,
            outbox: Vec::new(),
        };
        self.asks.insert(id, ask);
        id
    }

    /// The oldest waiting keys of the lane whose turn it is, as many as fit into one request. Lanes that wait for
    /// company are passed over.
    pub fn take_request(&mut self) -> Option<Request> {
        let now = Instant::now();
        self.wake_rested(now);
        for _ in 0..self.turns.len() {
            let Some(id) = self.turns.pop_front() else { break };
            let Some(mut lane) = self.lanes.remove(&id) else { continue };
            if lane.ripe_at(&self.flights, now).is_some_and(|ripe_at| ripe_at > now) {
                self.turns.push_back(id);
                self.lanes.insert(id, lane);
                continue;
            }
            let keys = self.take_keys(&mut lane, now);
            let generation = self.generation_of(&lane.variant);
            let request = (!keys.is_empty()).then(|| self.new_request(Arc::clone(&lane.variant), generation, keys));
            if !lane.waiting.is_empty() {
                self.turns.push_back(id);
            }
            if !lane.is_empty() {
                self.lanes.insert(id, lane);
            }
            if request.is_some() {
                return request;
            }
        }
        None
    }

    /// As many requests as there are free slots, which they take.
    pub fn take_requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        while self.busy < self.slots {
            let Some(request) = self.take_request() else { break };
            self.busy += 1;
            requests.push(request);
        }
        requests
    }

    pub fn answered(&mut self, request: u64, at: Instant) {
        if let Some(request) = self.requests.get_mut(&request) {
            request.answered_at = Some(at);
        }
    }

    /// Puts the answer into the mailboxes of those who wait, and returns the mailboxes to be woken. Keys that are to be
    /// asked for again rest.
    pub fn complete(&mut self, request: u64, keys: &[RequestKey], completion: &Completion<'_>) -> Vec<Arc<Mailbox>> {
        self.epoch.completions += 1;
        if self.requests.remove(&request).is_none() {
            return Vec::new();
        }
        let mut touched = Vec::new();
        for (key, result) in keys.iter().zip(completion.results) {
            let (waiters, (start, rows)) = match result {
                KeyResult::Rows { start, rows } => {
                    (self.remove_flight(key.flight).map_or_else(Vec::new, |flight| flight.waiters), (*start, *rows))
                }
                KeyResult::Again => (self.rest(key.flight, completion.variant, completion.rest_until), (0, 0)),
            };
            for waiter in waiters {
                let Some(ask) = self.asks.get_mut(&waiter.ask) else { continue };
                if ask.outbox.is_empty() {
                    touched.push(waiter.ask);
                }
                ask.outbox.push(DeliveredKey { position: waiter.position, start, rows });
            }
        }
        let retries = keys.iter().map(|key| key.attempt as usize - 1).sum();
        self.deliver((request, Cost { keys: keys.len(), retries }), touched, completion)
    }

    /// Sends what the outboxes of these asks hold.
    fn deliver(
        &mut self,
        (request, cost): (u64, Cost),
        touched: Vec<u64>,
        completion: &Completion<'_>,
    ) -> Vec<Arc<Mailbox>> {
        let mut to_wake = Vec::with_capacity(touched.len());
        for id in touched {
            let Some(ask) = self.asks.get_mut(&id) else { continue };
            let keys = std::mem::take(&mut ask.outbox);
            ask.open -= keys.len();
            let (answered_at, outcome) = (completion.at, completion.outcome.clone());
            ask.mailbox.put(Delivery { slice: ask.slice, request, cost, answered_at, outcome, keys });
            to_wake.push(Arc::clone(&ask.mailbox));
            if ask.open == 0 {
                self.asks.remove(&id);
            }
        }
        to_wake
    }

    /// Ends an ask. With a deadline, it stays for the keys whose request the store has answered by then; their positions
    /// are returned.
    pub fn stop_waiting(&mut self, ask: u64, deadline: Option<Instant>) -> Vec<u32> {
        let Some(mut state) = self.asks.remove(&ask) else { return Vec::new() };
        let mut kept = Vec::new();
        for key in std::mem::take(&mut state.keys) {
            let waiter = Waiter { ask, position: key.position };
            match deadline.is_some_and(|deadline| self.is_answered(key.flight, waiter, deadline)) {
                true => kept.push(key),
                false => self.remove_waiter(key.flight, waiter),
            }
        }
        let positions = kept.iter().map(|key| key.position).collect();
        if !kept.is_empty() {
            state.open = kept.len();
            state.keys = kept;
            self.asks.insert(ask, state);
        }
        positions
    }

    pub fn patience(&mut self, request: u64, now: Instant) -> Patience {
        let Some(state) = self.requests.get(&request) else { return Patience::Over };
        let mut latest = now;
        for flight in &state.flights {
            for waiter in &self.flights[*flight].waiters {
                match self.asks.get(&waiter.ask).map(|ask| ask.deadline) {
                    Some(None) => return Patience::Forever,
                    Some(Some(deadline)) => latest = latest.max(deadline),
                    None => {}
                }
            }
        }
        if latest > now {
            return Patience::Until(latest);
        }
        self.abandon(request);
        Patience::Over
    }

    #[cfg(test)]
    pub fn entries(&self) -> usize {
        let queued = self.turns.len() + self.resting.len();
        self.asks.len() + self.flights.len() + self.lanes.len() + self.requests.len() + queued
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The flight of a key, unless it left in an older generation.
    fn joinable(&self, lane: &Lane, question: &Question<'_>, position: u32) -> Option<usize> {
        let key = question.keys.key(position);
        let hash = question.keys.hashes[position as usize];
        let same = |id: &usize| {
            let flight = &self.flights[*id];
            flight.hash == hash && flight.chunk.row(flight.row as usize).data() == key.data() && self.is_current(flight)
        };
        lane.index.find(hash, same).copied()
    }

    fn is_current(&self, flight: &Flight) -> bool {
        self.request_of(flight).is_none_or(|request| request.generation == self.generation_of(&request.variant))
    }

    pub fn generation_of(&self, variant: &Variant) -> u64 {
        self.epoch.generation + variant.generation()
    }

    fn request_of(&self, flight: &Flight) -> Option<&RequestState> {
        match flight.place {
            Place::Requested(request) => self.requests.get(&request),
            Place::Waiting | Place::Resting(_) => None,
        }
    }

    fn join(&mut self, lane: &mut Lane, id: usize, waiter: Waiter, fills_cache: bool) {
        let flight = &mut self.flights[id];
        flight.fills_cache |= fills_cache;
        if flight.waiters.is_empty() {
            match flight.place {
                Place::Requested(request) => {
                    if let Some(request) = self.requests.get_mut(&request) {
                        request.wanted += 1;
                    }
                }
                Place::Waiting => lane.unwanted -= 1,
                // Nobody rests whom nobody waits for.
                Place::Resting(_) => {}
            }
        }
        flight.waiters.push(waiter);
    }

    fn start(&mut self, lane: &mut Lane, flight: Flight) -> usize {
        let (hash, ripe_at) = (flight.hash, flight.ripe_at);
        let id = self.flights.insert(flight);
        lane.index.insert_unique(hash, id, |other| self.flights[*other].hash);
        lane.push(id, ripe_at);
        id
    }

    fn take_keys(&mut self, lane: &mut Lane, now: Instant) -> Vec<RequestKey> {
        let mut keys = Vec::new();
        let mut most = usize::MAX;
        while let Some(id) = lane.waiting.front().copied() {
            let flight = &self.flights[id];
            if !self.is_wanted(flight, now) {
                lane.waiting.pop_front();
                lane.unwanted -= usize::from(flight.waiters.is_empty());
                lane.unlist(id, flight.hash);
                let flight = self.flights.remove(id);
                self.release_detached(&flight.waiters);
                continue;
            }
            most = most.min(flight.batch_size.get());
            if keys.len() >= most {
                break;
            }
            lane.waiting.pop_front();
            let Flight { row, hash, fills_cache, attempts, .. } = *flight;
            let chunk = Arc::clone(&flight.chunk);
            keys.push(RequestKey { flight: id, chunk, row, hash, fills_cache, attempt: attempts + 1 });
        }
        lane.count_ripe(&self.flights, now);
        keys
    }

    /// Whether somebody waits whose deadline has not passed.
    fn is_wanted(&self, flight: &Flight, now: Instant) -> bool {
        flight.waiters.iter().any(|waiter| match self.asks.get(&waiter.ask) {
            Some(ask) => ask.deadline.is_none_or(|deadline| deadline > now),
            None => false,
        })
    }

    pub fn new_request(&mut self, variant: Arc<Variant>, generation: u64, keys: Vec<RequestKey>) -> Request {
        let id = self.new_id();
        let mut wanted = 0;
        for key in &keys {
            let flight = &mut self.flights[key.flight];
            flight.place = Place::Requested(id);
            flight.attempts = key.attempt;
            wanted += usize::from(!flight.waiters.is_empty());
        }
        let abandoned = Arc::new(Notify::new());
        let state = RequestState {
            flights: keys.iter().map(|key| key.flight).collect(),
            wanted,
            generation,
            variant: Arc::clone(&variant),
            answered_at: None,
            abandoned: Arc::clone(&abandoned),
        };
        self.requests.insert(id, state);
        Request { id, variant, keys, generation, abandoned }
    }

    /// Whether the store had answered by then and the answer is not delivered yet.
    fn is_answered(&self, flight: usize, waiter: Waiter, by: Instant) -> bool {
        let Some(flight) = self.flights.get(flight).filter(|flight| flight.waiters.contains(&waiter)) else {
            return false;
        };
        self.request_of(flight).and_then(|request| request.answered_at).is_some_and(|at| at <= by)
    }

    fn remove_waiter(&mut self, id: usize, waiter: Waiter) {
        let Some(flight) = self.flights.get_mut(id) else { return };
        let Some(at) = flight.waiters.iter().position(|other| *other == waiter) else { return };
        flight.waiters.swap_remove(at);
        if !flight.waiters.is_empty() {
            return;
        }
        let request = match flight.place {
            Place::Requested(request) => request,
            Place::Waiting => {
                let variant = flight.variant;
                return self.drop_unwanted(variant);
            }
            Place::Resting(until) => {
                self.resting.remove(&(until, id));
                if let Some(lane) = self.lanes.get_mut(&flight.variant) {
                    lane.resting -= 1;
                }
                self.remove_flight(id);
                return;
            }
        };
        let Some(state) = self.requests.get_mut(&request) else { return };
        state.wanted -= 1;
        if state.wanted == 0 {
            self.abandon(request);
        }
    }

    /// One more waiting flight of the lane is unwanted. They are swept when they are half of all: cheap, and bounded.
    fn drop_unwanted(&mut self, variant: u64) {
        let Some(lane) = self.lanes.get_mut(&variant) else { return };
        lane.unwanted += 1;
        if lane.unwanted * 2 < lane.waiting.len() {
            return;
        }
        lane.sweep(&mut self.flights);
        if lane.waiting.is_empty() {
            self.turns.retain(|turn| *turn != variant);
        }
        if lane.is_empty() {
            self.lanes.remove(&variant);
        }
    }

    /// Nobody waits for any key of the request: its flights end, and its task gives up.
    fn abandon(&mut self, request: u64) {
        let Some(state) = self.requests.remove(&request) else { return };
        for flight in state.flights {
            let waiters = self.remove_flight(flight).map_or_else(Vec::new, |flight| flight.waiters);
            self.release_detached(&waiters);
        }
        state.abandoned.notify_one();
    }

    pub fn remove_flight(&mut self, id: usize) -> Option<Flight> {
        let flight = self.flights.try_remove(id)?;
        if let Some(lane) = self.lanes.get_mut(&flight.variant) {
            lane.unlist(id, flight.hash);
            if lane.is_empty() {
                self.lanes.remove(&flight.variant);
            }
        }
        Some(flight)
    }
}
