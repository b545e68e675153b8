//! How far the readings of a stream have come, for `lookaside.streams` and the metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::error::Error;

/// The seconds over which a rate is taken.
const RATE_SECONDS: u64 = 10;

/// All readings of one stream, those that have ended among them.
#[derive(Debug)]
pub struct Progress {
    rows_read: AtomicU64,
    rows_skipped: AtomicU64,
    state: Mutex<State>,
    born: Instant,
}

#[derive(Debug, Default)]
struct State {
    readers: BTreeMap<u64, ReaderState>,
    next_reader: u64,
    /// Rows of each of the last seconds, by the second's number modulo their count.
    rows_of_second: [(u64, u64); RATE_SECONDS as usize + 1],
    last_error: Option<(DateTime<Utc>, String)>,
}

#[derive(Debug, Default)]
struct ReaderState {
    /// Messages that it has not come to yet; `None`: not known.
    lag: Option<u64>,
    is_waiting: bool,
}

impl Default for Progress {
    fn default() -> Self {
        let (rows_read, rows_skipped) = (AtomicU64::new(0), AtomicU64::new(0));
        Progress { rows_read, rows_skipped, state: Mutex::default(), born: Instant::now() }
    }
}

impl Progress {
    /// Enters a reading.
    pub fn enter(self: &Arc<Self>) -> Reader {
        let mut state = self.state();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, ReaderState::default());
        drop(state);
        Reader { place: Arc::new(Place { progress: Arc::clone(self), id }) }
    }

    /// Takes note of rows that a reading was given.
    pub fn count_rows(&self, rows: usize) {
        self.rows_read.fetch_add(rows as u64, Relaxed);
        let second = self.second();
        let mut state = self.state();
        let slots = state.rows_of_second.len() as u64;
        let slot = &mut state.rows_of_second[(second % slots) as usize];
        *slot = if slot.0 == second { (second, slot.1 + rows as u64) } else { (second, rows as u64) };
    }

    /// Where malformed rows that were left out are counted.
    pub fn skipped(&self) -> &AtomicU64 {
        &self.rows_skipped
    }

    /// Takes note of what went wrong.
    pub fn note(&self, error: &Error) {
        self.state().last_error = Some((Utc::now(), error.message().to_string()));
    }

    /// Rows that readings were given.
    pub fn rows_read(&self) -> u64 {
        self.rows_read.load(Relaxed)
    }

    /// Malformed rows that were left out.
    pub fn rows_skipped(&self) -> u64 {
        self.rows_skipped.load(Relaxed)
    }

    /// Readings that have begun and not ended.
    pub fn readers(&self) -> u64 {
        self.state().readers.len() as u64
    }

    /// Of the reading that is furthest behind: messages it has not come to; `None` where nobody knows.
    pub fn lag(&self) -> Option<u64> {
        self.state().readers.values().filter_map(|reader| reader.lag).max()
    }

    /// `idle` without readings, `waiting` while one waits for the server its rows come from, else `reading`.
    pub fn state_name(&self) -> &'static str {
        let state = self.state();
        match (state.readers.is_empty(), state.readers.values().any(|reader| reader.is_waiting)) {
            (true, _) => "idle",
            (false, true) => "waiting",
            (false, false) => "reading",
        }
    }

    /// Rows a second that readings were given, over the last ten whole seconds.
    pub fn rows_per_second(&self) -> f64 {
        let now = self.second();
        let seconds = (now - 1).clamp(1, RATE_SECONDS);
        let state = self.state();
        let recent = state.rows_of_second.iter().filter(|(second, _)| (now - seconds..now).contains(second));
        recent.map(|(_, rows)| *rows).sum::<u64>() as f64 / seconds as f64
    }

    /// What went wrong last, and when.
    pub fn last_error(&self) -> Option<(DateTime<Utc>, String)> {
        self.state().last_error.clone()
    }

    /// Whole seconds since this was made. The first has number 1, so that the empty slots are of no second.
    fn second(&self) -> u64 {
        self.born.elapsed().as_secs() + 1
    }

    /// No code that holds the lock can leave the state half changed, so a panic elsewhere spoils nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reading's place, given up when all clones are dropped.
#[derive(Clone, Debug)]
pub struct Reader {
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    progress: Arc<Progress>,
    id: u64,
}

impl Reader {
    pub fn progress(&self) -> &Arc<Progress> {
        &self.place.progress
    }

    /// How many messages it has not come to; `None`: not known.
    pub fn set_lag(&self, lag: Option<u64>) {
        self.change(|reader| reader.lag = lag);
    }

    /// Whether it waits for the server its rows come from.
    pub fn set_waiting(&self, is_waiting: bool) {
        self.change(|reader| reader.is_waiting = is_waiting);
    }

    fn change(&self, change: impl FnOnce(&mut ReaderState)) {
        if let Some(reader) = self.place.progress.state().readers.get_mut(&self.place.id) {
            change(reader);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.progress.state().readers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Code;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_that_of_the_last_ten_whole_seconds() {
        let progress = Progress::default();
        assert_eq!(progress.rows_per_second(), 0.0);
        progress.count_rows(100);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(progress.rows_per_second(), 100.0);
        for _ in 0..20 {
            progress.count_rows(3);
            progress.count_rows(4);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(progress.rows_per_second(), 7.0);
        assert_eq!(progress.rows_read(), 240);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(progress.rows_per_second(), 0.0);
    }

    #[test]
    fn the_state_and_lag_are_those_of_the_readings_there_are() {
        let progress = Arc::new(Progress::default());
        assert_eq!((progress.state_name(), progress.readers(), progress.lag()), ("idle", 0, None));
        let (one, other) = (progress.enter(), progress.enter());
        assert_eq!((progress.state_name(), progress.readers(), progress.lag()), ("reading", 2, None));
        one.set_lag(Some(3));
        other.set_lag(Some(5));
        other.set_waiting(true);
        assert_eq!((progress.state_name(), progress.lag()), ("waiting", Some(5)));
        drop(other.clone());
        assert_eq!(progress.readers(), 2);
        drop(other);
        assert_eq!((progress.state_name(), progress.readers(), progress.lag()), ("reading", 1, Some(3)));
        drop(one);
        assert_eq!((progress.state_name(), progress.readers()), ("idle", 0));
    }

    #[test]
    fn the_last_error_stays() {
        let progress = Progress::default();
        assert_eq!(progress.last_error(), None);
        progress.note(&Error::new(Code::StoreUnavailable, "gone"));
        assert_eq!(progress.last_error().unwrap().1, "gone");
    }
}
