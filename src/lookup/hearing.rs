//! Hearing of changes: a task of the table's own listens to what the store tells, and forgets what has changed.
//!
//! Nothing is cached, nor read from the cache, before the store has said that from then on it tells every change, and
//! again from the moment at which it may have kept one back, because the connection broke, until it says so anew.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt;
use tokio::task::JoinSet;

use super::table::LookupTable;
use crate::store::{Change, Changes, Store, StoreError};

/// The pause before the store is asked again to tell of changes; it doubles with each attempt that comes to nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a table hears of changes, and what it heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// In words: `listen customers_changed`.
    pub by: String,
    /// Since when every change is told; `None`: it is not, and nothing is cached.
    pub since: Option<DateTime<Utc>>,
    /// When a change was told last.
    pub last: Option<DateTime<Utc>>,
}

/// The table's side of it. The task ends with it.
pub(super) struct Hearing {
    is_on: AtomicBool,
    heard: Mutex<Heard>,
    task: Mutex<JoinSet<()>>,
}

impl Hearing {
    pub fn new(by: &impl fmt::Display) -> Self {
        let heard = Heard { by: by.to_string(), since: None, last: None };
        Hearing { is_on: AtomicBool::new(false), heard: Mutex::new(heard), task: Mutex::default() }
    }

    /// Whether every change is told now.
    pub fn is_on(&self) -> bool {
        self.is_on.load(SeqCst)
    }

    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn start(&self, table: &Arc<LookupTable>) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.spawn(keep_listening(Arc::downgrade(table), Arc::clone(table.store())));
    }
}

/// Listens for as long as there is a table that wants to know.
async fn keep_listening(table: Weak<LookupTable>, store: Arc<dyn Store>) {
    let mut pause = FIRST_PAUSE;
    let mut is_lost = false;
    loop {
        let Some(mut changes) = store.changes() else { return };
        let mut began = false;
        let ended = listen(&table, &mut changes, &mut began).await;
        let Some(table) = table.upgrade() else { return };
        table.mistrust_cache();
        if began {
            (pause, is_lost) = (FIRST_PAUSE, false);
        }
        if !is_lost {
            let error = ended.into_error(table.name());
            tracing::warn!("changes of lookup table \"{}\" are not told, nothing is cached: {error}", table.name());
        }
        is_lost = true;
        drop(table);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Takes in what the store tells until it may have kept something back; returns why.
async fn listen(table: &Weak<LookupTable>, changes: &mut Changes, began: &mut bool) -> StoreError {
    let ended = || StoreError::Unavailable { message: "the store has stopped telling of changes".to_string() };
    while let Some(change) = changes.next().await {
        let Some(table) = table.upgrade() else { return ended() };
        match change {
            Ok(change) => {
                *began |= matches!(change, Change::Begun);
                table.take_in(change);
            }
            Err(error) => return error,
        }
    }
    ended()
}

impl LookupTable {
    /// How changes are told, and when they were; `None` for a table whose store tells none.
    pub fn heard(&self) -> Option<Heard> {
        self.hearing.as_ref().map(Hearing::heard)
    }

    /// Whether what is cached may serve, and answers may be cached.
    pub(super) fn trusts_cache(&self) -> bool {
        self.hearing.as_ref().is_none_or(Hearing::is_on)
    }

    fn mistrust_cache(&self) {
        let Some(hearing) = &self.hearing else { return };
        hearing.is_on.store(false, SeqCst);
        hearing.note(|heard| heard.since = None);
        self.invalidate_all();
    }

    fn take_in(&self, change: Change) {
        let Some(hearing) = &self.hearing else { return };
        match change {
            Change::Begun => {
                // What was asked for before may have missed a change.
                self.invalidate_all();
                hearing.is_on.store(true, SeqCst);
                hearing.note(|heard| heard.since = Some(Utc::now()));
                tracing::info!("changes of lookup table \"{}\" are told by {}", self.name(), hearing.heard().by);
                return;
            }
            Change::Everything => {
                self.invalidate_all();
            }
            Change::Keys { columns, keys } => {
                if let Err(error) = self.forget_changed(&columns, &keys) {
                    tracing::error!("what changed in lookup table \"{}\" cannot be told: {error}", self.name());
                    self.invalidate_all();
                }
            }
        }
        hearing.note(|heard| heard.last = Some(Utc::now()));
    }
}

#[cfg(test)]
#[path = "hearing_tests.rs"]
mod tests;
