//! The circuit breaker: a store around a store that leaves it alone while it keeps failing.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::{Answer, Changes, KeyEquality, LookupRequest, RowBatches, ScanRequest, Store, StoreError};
use crate::error::Result;
use crate::quantity::show_duration;

/// When a store that keeps failing is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BreakerPolicy {
    /// Failed attempts in a row that open the breaker.
    pub failures: NonZeroU32,
    /// How long it stays open before one attempt may probe.
    pub open_for: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        BreakerPolicy { failures: NonZeroU32::MIN.saturating_add(4), open_for: Duration::from_secs(10) }
    }
}

/// A store whose failures are counted. Every call of [`Store::lookup`] is an attempt.
pub struct BreakerStore {
    store: Arc<dyn Store>,
    breaker: Arc<Breaker>,
}

impl BreakerStore {
    pub fn new(store: Arc<dyn Store>, policy: BreakerPolicy) -> Self {
        let state = Mutex::new(State { phase: Phase::Closed { failed: 0 }, turns: 0 });
        BreakerStore { store, breaker: Arc::new(Breaker { policy, state }) }
    }

    /// What the store's state can be read from.
    pub fn breaker(&self) -> Arc<Breaker> {
        Arc::clone(&self.breaker)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for BreakerStore {
    fn schema(&self) -> SchemaRef {
        self.store.schema()
    }

    fn primary_key(&self) -> Vec<usize> {
        self.store.primary_key()
    }

    async fn indexed_columns(&self) -> Result<Option<Vec<usize>>, StoreError> {
        self.store.indexed_columns().await
    }

    async fn version(&self) -> Result<Option<u64>, StoreError> {
        self.store.version().await
    }

    fn changes(&self) -> Option<Changes> {
        self.store.changes()
    }

    fn can_filter(&self, filter: &Expr) -> bool {
        self.store.can_filter(filter)
    }

    fn check_keys(&self, key_columns: &[usize]) -> Result<()> {
        self.store.check_keys(key_columns)
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let attempt = self.breaker.admit()?;
        let answer = self.store.lookup(request).await;
        attempt.ended(answer.as_ref().err());
        answer
    }

    fn key_equality(&self, column: usize) -> KeyEquality {
        self.store.key_equality(column)
    }

    fn can_scan(&self) -> bool {
        self.store.can_scan()
    }

    /// The attempt has succeeded when the first rows are there.
    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError> {
        let attempt = self.breaker.admit()?;
        let first = match self.store.scan(request).await {
            Ok(mut batches) => batches.try_next().await.map(|first| (first, batches)),
            Err(error) => Err(error),
        };
        attempt.ended(first.as_ref().err());
        let (first, rest) = first?;
        Ok(futures::stream::iter(first.map(Ok)).chain(rest).boxed())
    }
}

impl fmt::Display for BreakerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for BreakerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerStore").field("store", &self.store).field("state", &self.breaker.state()).finish()
    }
}

/// Closed until `failures` attempts in a row have failed, then open for `open_for`, then half-open: one attempt probes.
/// Its success closes the breaker, its failure opens it again.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// How often the phase has changed. An attempt that was let in during an earlier phase says nothing of this one.
    turns: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    Closed { failed: u32 },
    Open { until: Instant, cause: String },
    Probing { cause: String },
}

impl Breaker {
    /// "closed", "open" or "half-open": the next attempt probes, or one does already.
    pub fn state(&self) -> &'static str {
        match &self.lock().phase {
            Phase::Closed { .. } => "closed",
            Phase::Open { until, .. } if Instant::now() < *until => "open",
            Phase::Open { .. } | Phase::Probing { .. } => "half-open",
        }
    }

    fn admit(&self) -> Result<Attempt<'_>, StoreError> {
        let mut state = self.lock();
        match state.phase.clone() {
            Phase::Closed { .. } => Ok(Attempt { breaker: self, turn: state.turns, probed: None }),
            Phase::Open { until, cause } => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    let left = show_duration(Duration::from_millis(left.as_micros().div_ceil(1000) as u64));
                    return Err(refused(&format!("for another {left}"), &cause));
                }
                let turn = state.turn_to(Phase::Probing { cause: cause.clone() });
                Ok(Attempt { breaker: self, turn, probed: Some(cause) })
            }
            Phase::Probing { cause } => Err(refused("until the attempt that is under way succeeds", &cause)),
        }
    }

    /// An attempt came to an end; `failure` says what failed if that counts.
    fn ended(&self, turn: u64, failure: Option<&StoreError>) {
        let mut state = self.lock();
        if state.turns != turn {
            return;
        }
        let cause = failure.and_then(counted);
        let next = match (&state.phase, cause) {
            (Phase::Closed { failed }, Some(cause)) => {
                let failed = failed.saturating_add(1);
                match failed >= self.policy.failures.get() {
                    true => self.open(cause),
                    false => {
                        state.phase = Phase::Closed { failed };
                        return;
                    }
                }
            }
            // Of an error that does not count, the row of failures knows nothing.
            (Phase::Closed { .. }, None) => {
                if failure.is_none() {
                    state.phase = Phase::Closed { failed: 0 };
                }
                return;
            }
            (Phase::Probing { .. }, Some(cause)) => self.open(cause),
            // The store has answered, if only that a key is bad.
            (Phase::Probing { .. }, None) => Phase::Closed { failed: 0 },
            (Phase::Open { .. }, _) => return,
        };
        state.turn_to(next);
    }

    fn open(&self, cause: String) -> Phase {
        Phase::Open { until: Instant::now() + self.policy.open_for, cause }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn turn_to(&mut self, phase: Phase) -> u64 {
        self.phase = phase;
        self.turns += 1;
        self.turns
    }
}

/// An attempt that was let in. Dropped before its end, it does not count.
struct Attempt<'a> {
    breaker: &'a Breaker,
    turn: u64,
    /// For a probe the failure that opened the breaker.
    probed: Option<String>,
}

impl Attempt<'_> {
    fn ended(mut self, failure: Option<&StoreError>) {
        self.probed = None;
        self.breaker.ended(self.turn, failure);
    }
}

/// A probe that nobody waited for to its end lets the next attempt probe.
impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Some(cause) = self.probed.take() else { return };
        let mut state = self.breaker.lock();
        if state.turns == self.turn {
            state.turn_to(Phase::Open { until: Instant::now(), cause });
        }
    }
}

/// What failed, of a failure that is the store's: errors about keys and errors of ours are not.
fn counted(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Unavailable { message } => Some(message.clone()),
        StoreError::Failed { message, .. } if !error.is_about_keys() => Some(message.clone()),
        StoreError::Failed { .. }
        | StoreError::KeyRefused { .. }
        | StoreError::Invalid(_)
        | StoreError::TooLarge { .. }
        | StoreError::BreakerOpen { .. } => None,
    }
}

fn refused(how_long: &str, cause: &str) -> StoreError {
    StoreError::BreakerOpen { message: format!("circuit breaker is open {how_long}; the last failure: {cause}") }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
