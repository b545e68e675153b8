//! One flight per key for all queries: who waits for which key, which keys wait for a slot, which are at the store.
//!
//! Keys wait only while all slots are busy; whoever frees a slot takes what has gathered, so requests grow with the
//! load and no timer is needed. Only keys that wait for company (`batch_delay`) or rest before another attempt need
//! one: the *timekeeper*, a task that there is while there are such keys. The books are in `board`, under one lock that is held for moments and
//! never over an await.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datafusion::arrow::row::{Row, Rows};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::board::Board;
use super::keys::BatchKeys;
use super::mailbox::{Mailbox, Outcome};
use super::variant::Variant;
use crate::error::Error;

pub(super) struct Flights {
    board: Mutex<Board>,
    /// Tells the timekeeper that it is to wake earlier.
    earlier: Notify,
}

/// What a slice of rows asks for and how.
pub(super) struct Question<'a> {
    pub variant: &'a Arc<Variant>,
    pub mailbox: &'a Arc<Mailbox>,
    /// The asker's own name for it, given back in each delivery.
    pub slice: u64,
    pub keys: &'a BatchKeys,
    /// Positions in `keys` of those that are asked for.
    pub missing: Vec<u32>,
    /// When the rows give up; `None`: never.
    pub deadline: Option<Instant>,
    pub batch_size: NonZeroUsize,
    /// The longest that a key may wait for company.
    pub batch_delay: Duration,
    /// Whether answers may go into the cache.
    pub fills_cache: bool,
    /// From before the cache was asked for the missing keys.
    pub seen: Epoch,
}

/// What must not have changed between looking into the cache and asking for what is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    /// Requests that have been completed.
    pub completions: u64,
    /// How often the table was told to forget everything.
    pub generation: u64,
}

/// Somebody waits for keys. Dropped, it stops waiting for those that are not delivered yet.
pub(super) struct Ask {
    flights: Arc<Flights>,
    id: u64,
}

impl Ask {
    /// Stops waiting at the deadline. Returns the positions of keys that the store has answered in time and
    /// that are still being delivered; what else is not in the mailbox by now has timed out.
    pub fn time_out(&self, deadline: Instant) -> Vec<u32> {
        self.flights.lock().stop_waiting(self.id, Some(deadline))
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.flights.lock().stop_waiting(self.id, None);
    }
}

/// Keys that have a slot, to be carried to the store.
pub(super) struct Request {
    pub id: u64,
    pub variant: Arc<Variant>,
    pub keys: Vec<RequestKey>,
    /// The table's generation from before the request.
    pub generation: u64,
    /// Notified when nobody waits any more.
    pub abandoned: Arc<Notify>,
}

pub(super) struct RequestKey {
    pub flight: usize,
    pub chunk: Arc<Rows>,
    pub row: u32,
    pub hash: u64,
    pub fills_cache: bool,
    /// Counts from 1.
    pub attempt: u32,
}

/// How a request ended.
pub(super) struct Completion<'a> {
    pub variant: &'a Arc<Variant>,
    /// For each key of the request.
    pub results: &'a [KeyResult],
    pub outcome: &'a Outcome,
    /// When the store answered.
    pub at: Instant,
    /// Until when keys rest that are to be asked for again.
    pub rest_until: Instant,
}

/// What becomes of one key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyResult {
    /// Where its rows stand in the answer. None, if it was not found or failed.
    Rows { start: u32, rows: u32 },
    /// It is asked for once more.
    Again,
}

impl RequestKey {
    pub fn row(&self) -> Row<'_> {
        self.chunk.row(self.row as usize)
    }
}

/// How long a request still has somebody who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Forever,
    Until(Instant),
    /// The request was abandoned.
    Over,
}

impl Flights {
    pub fn new(max_in_flight: NonZeroUsize) -> Arc<Self> {
        Arc::new(Flights { board: Mutex::new(Board::new(max_in_flight)), earlier: Notify::new() })
    }

    pub fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    /// From here on, nobody joins a flight that has been requested already.
    pub fn next_generation(&self) {
        self.lock().epoch.generation += 1;
    }

    /// Requests that have a slot now.
    pub fn busy(&self) -> usize {
        self.lock().busy
    }

    /// Joins or starts a flight for each missing key. `cached` looks once more for a key that came into the cache
    /// meanwhile and says whether it did. Requests that may leave are returned, to be given a task each;
    /// without an ask, nothing is missing any more.
    pub fn ask(
        self: &Arc<Self>,
        mut question: Question<'_>,
        mut cached: impl FnMut(u32) -> bool,
    ) -> (Option<Ask>, Vec<Request>) {
        let mut board = self.lock();
        if board.epoch != question.seen {
            let mut missing = std::mem::take(&mut question.missing);
            missing.retain(|position| board.has_flight(&question, *position) || !cached(*position));
            question.missing = missing;
        }
        if question.missing.is_empty() {
            return (None, Vec::new());
        }
        let id = board.register(question);
        let requests = board.take_requests();
        (Some(Ask { flights: Arc::clone(self), id }), requests)
    }

    /// The store has answered: from here on, who waits cannot time out any more.
    pub fn answered(&self, request: u64, at: Instant) {
        self.lock().answered(request, at);
    }

    /// Ends the flights of a request, but for those that are to be asked for again.
    pub fn complete(&self, request: u64, keys: &[RequestKey], completion: &Completion<'_>) {
        let to_wake = self.lock().complete(request, keys, completion);
        to_wake.iter().for_each(|mailbox| mailbox.wake());
    }

    /// Two requests instead of one; fewer, where nobody waits.
    pub fn split(&self, request: Request) -> Vec<Request> {
        self.lock().split(request)
    }

    /// Sees to it that somebody wakes when a request may leave that may not leave now. True: there is nobody yet, and
    /// a timekeeper is to be started.
    pub fn set_alarm(&self) -> bool {
        let mut board = self.lock();
        let Some(next) = board.next_alarm() else { return false };
        match board.alarm {
            None => {
                board.alarm = Some(next);
                return true;
            }
            Some(alarm) if next < alarm => {
                board.alarm = Some(next);
                self.earlier.notify_one();
            }
            Some(_) => {}
        }
        false
    }

    /// The timekeeper sleeps. True once it is time for [`Flights::ring`].
    pub async fn sleep(&self) -> bool {
        let Some(alarm) = self.lock().alarm else { return true };
        tokio::select! {
            () = tokio::time::sleep_until(alarm) => true,
            () = self.earlier.notified() => false,
        }
    }

    /// The alarm has gone off: requests that may leave now, and whether the timekeeper is to sleep again.
    pub fn ring(&self) -> (Vec<Request>, bool) {
        let mut board = self.lock();
        board.wake_rested(Instant::now());
        let requests = board.take_requests();
        board.alarm = board.next_alarm();
        (requests, board.alarm.is_some())
    }

    /// The next request for a slot that has become free, or the slot is given back.
    pub fn next_request(&self) -> Option<Request> {
        let mut board = self.lock();
        let request = board.take_request();
        if request.is_none() {
            board.busy -= 1;
        }
        request
    }

    /// How long somebody waits for this request; those whose deadline has passed do not count.
    pub fn patience(&self, request: u64, now: Instant) -> Patience {
        self.lock().patience(request, now)
    }

    /// Gives back the slot of a task that was ended from outside with what it still had to carry. If it was the last
    /// one, nobody would carry the keys that wait, so they fail as well.
    pub fn give_up_slot(&self, requests: &[Request], error: &Error) {
        let fail = |request: &Request| {
            let results = vec![KeyResult::Rows { start: 0, rows: 0 }; request.keys.len()];
            let (outcome, at) = (Outcome::Failed(error.clone()), Instant::now());
            let variant = &request.variant;
            let completion = Completion { variant, results: &results, outcome: &outcome, at, rest_until: at };
            self.complete(request.id, &request.keys, &completion);
        };
        requests.iter().for_each(fail);
        loop {
            let mut board = self.lock();
            let next = if board.busy == 1 { board.take_request() } else { None };
            let Some(next) = next else {
                board.busy -= 1;
                return;
            };
            drop(board);
            fail(&next);
        }
    }

    /// Entries of all books.
    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.lock().entries()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
