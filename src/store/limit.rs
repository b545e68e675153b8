//! The rate limit: a store around a store that is asked so often a second and no more.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Answer, Changes, KeyEquality, LookupRequest, RowBatches, ScanRequest, Store, StoreError};
use crate::error::Result;

/// How far a request may be behind its place without moving the places after it: timers wake milliseconds late, and a
/// high rate must not suffer from that.
const LATENESS: Duration = Duration::from_millis(5);

/// A store whose requests leave evenly spaced, in the order in which they came.
pub struct LimitStore {
    store: Arc<dyn Store>,
    interval: Duration,
    /// When the next request may leave. Whoever holds the lock is first in the queue; tokio's lock is fair.
    next: Mutex<Instant>,
}

impl LimitStore {
    pub fn new(store: Arc<dyn Store>, requests_per_second: NonZeroU32) -> Self {
        let interval = Duration::from_secs(1) / requests_per_second.get();
        LimitStore { store, interval, next: Mutex::new(Instant::now()) }
    }

    /// Waits for this request's place. Dropped before, it takes none.
    async fn wait(&self) {
        let mut next = self.next.lock().await;
        tokio::time::sleep_until(*next).await;
        let now = Instant::now();
        let left = if now.duration_since(*next) > LATENESS { now } else { *next };
        *next = left + self.interval;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for LimitStore {
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
        self.wait().await;
        self.store.lookup(request).await
    }

    fn key_equality(&self, column: usize) -> KeyEquality {
        self.store.key_equality(column)
    }

    fn can_scan(&self) -> bool {
        self.store.can_scan()
    }

    async fn scan(&self, request: &ScanRequest) -> Result<RowBatches, StoreError> {
        self.wait().await;
        self.store.scan(request).await
    }
}

impl fmt::Display for LimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for LimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitStore").field("store", &self.store).field("interval", &self.interval).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::join_all;

    use super::super::contract;
    use super::super::told::{ToldStore, ask, contract_store};
    use super::*;

    fn limited(requests_per_second: u32) -> (LimitStore, Arc<ToldStore>) {
        let told = ToldStore::new();
        (LimitStore::new(Arc::clone(&told) as _, NonZeroU32::new(requests_per_second).unwrap()), told)
    }

    #[tokio::test(start_paused = true)]
    async fn contract_holds() {
        let store = LimitStore::new(contract_store(), NonZeroU32::new(10).unwrap());
        contract::check(&store, contract::RowOrder::AsLoaded).await.unwrap();
        assert!(!store.can_filter(&datafusion::prelude::lit(true)), "what the store says of conditions is passed on");
        assert!(limited(1).0.can_filter(&datafusion::prelude::lit(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_leave_evenly_spaced() {
        let (store, told) = limited(10);
        // Slow ones do not hold those behind them up.
        (0..5).for_each(|_| told.tell(Duration::from_secs(3), None));
        join_all((0..5).map(|_| ask(&store))).await;
        assert_eq!(told.asked(), [0, 100, 200, 300, 400]);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_asked_is_not_saved_up() {
        let (store, told) = limited(10);
        ask(&store).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let asked = [ask(&store), ask(&store), ask(&store)];
        join_all(asked).await;
        assert_eq!(told.asked(), [0, 1000, 1100, 1200]);
    }

    #[tokio::test(start_paused = true)]
    async fn first_come_is_first_served() {
        let (store, _) = limited(10);
        let order = std::sync::Mutex::new(vec![]);
        let asks = (0..20).map(|nth| {
            let (store, order) = (&store, &order);
            async move {
                ask(store).await.unwrap();
                order.lock().unwrap().push(nth);
            }
        });
        join_all(asks).await;
        assert_eq!(order.into_inner().unwrap(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_request_takes_no_place() {
        let (store, told) = limited(1);
        ask(&store).await.unwrap();
        let mut dropped = (0..10).map(|_| Box::pin(ask(&store))).collect::<Vec<_>>();
        for waiting in dropped.iter_mut() {
            assert!(waiting.now_or_never().is_none());
        }
        let mut first = Box::pin(ask(&store));
        assert!((&mut first).now_or_never().is_none());
        let waits = tokio::time::timeout(Duration::from_millis(500), join_all(dropped)).await;
        assert!(waits.is_err());
        first.await.unwrap();
        assert_eq!(told.asked(), [0, 1000], "neither the first in the queue nor those behind it cost anything");
    }

    #[tokio::test(start_paused = true)]
    async fn high_rate_is_kept_though_timers_tick_in_milliseconds() {
        let (store, told) = limited(5000);
        join_all((0..1000).map(|_| ask(&store))).await;
        let last = *told.asked().last().unwrap();
        assert!((195..=205).contains(&last), "{last} ms");
    }
}
