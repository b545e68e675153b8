//! CONFORMANCE, cache: how long an answer serves, what is asked anew, what is forgotten; on the paused clock.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use datafusion::arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray};

use super::super::policy::{CachePolicy, LookupPolicy, OnFailure, Ordering, PartialCache};
use super::super::scripted::*;
use super::super::{LookupJoin, LookupTable};
use super::*;
use crate::store::{Conditions, LookupShape, StoreError};

fn caching(cache: PartialCache) -> LookupPolicy {
    LookupPolicy {
        cache: CachePolicy::Partial(cache),
        batch_size: 1000.try_into().unwrap(),
        timeout: Some(Duration::from_secs(5)),
        ..policy(Ordering::Ordered)
    }
}

/// Answers after a time that can be changed, or fails if it is `None`.
fn changeable(delay: u64) -> (Arc<ScriptedStore>, Arc<Mutex<Option<Duration>>>) {
    let delay = Arc::new(Mutex::new(Some(milliseconds(delay))));
    let current = Arc::clone(&delay);
    let store = ScriptedStore::new(move |_| match *current.lock().unwrap() {
        Some(delay) => Reply::After(delay),
        None => {
            let error = StoreError::Failed { message: "no".into(), sqlstate: Some("XX001".into()) };
            Reply::Fail(Duration::ZERO, error)
        }
    });
    (store, delay)
}

async fn query(table: &Arc<LookupTable>, keys: &[i64]) -> Vec<String> {
    query_with(table, left_join(table.policy().clone()), keys).await
}

async fn query_with(table: &Arc<LookupTable>, join: LookupJoin, keys: &[i64]) -> Vec<String> {
    let (mut feed, mut rows) = run(table, join);
    feed.send(keys.iter().copied()).end();
    let (rows, error) = drain(&mut rows).await;
    assert_eq!(error.map(|error| error.message().to_string()), None);
    rows
}

async fn settled() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn entries_written_together_expire_one_after_the_other_and_never_late() {
    let store = ScriptedStore::new(|_| Reply::After(Duration::ZERO));
    let table = table(
        &store,
        &caching(PartialCache { expire_after_write: Some(Duration::from_secs(100)), ..PartialCache::default() }),
    );
    let keys: Vec<i64> = (1..101).collect();
    query(&table, &keys).await;
    let mut expired = Vec::new();
    seconds(89).await;
    for _ in 0..12 {
        query(&table, &keys).await;
        expired.push(store.requests().iter().skip(1).map(Vec::len).sum::<usize>());
        seconds(1).await;
    }
    assert_eq!((expired[0], expired[11]), (0, 100), "{expired:?}");
    assert!(expired.iter().any(|count| (20..80).contains(count)), "{expired:?}");
}

#[tokio::test(start_paused = true)]
async fn entry_that_is_asked_for_lives_on_and_one_that_is_not_expires() {
    let (store, _) = changeable(0);
    let table = table(
        &store,
        &caching(PartialCache { expire_after_access: Some(Duration::from_secs(10)), ..PartialCache::default() }),
    );
    query(&table, &[1, 2]).await;
    for _ in 0..5 {
        seconds(8).await;
        query(&table, &[1]).await;
    }
    assert_eq!(store.requests(), [[1, 2]]);
    query(&table, &[2]).await;
    assert_eq!(store.requests().len(), 2);
    seconds(10).await;
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn old_row_serves_while_one_refresh_is_behind_it() {
    let (store, delay) = changeable(0);
    let table = table(
        &store,
        &caching(PartialCache { refresh_after: Some(Duration::from_secs(10)), ..PartialCache::default() }),
    );
    query(&table, &[1, 2]).await;
    seconds(10).await;
    *delay.lock().unwrap() = Some(milliseconds(100));
    for _ in 0..5 {
        let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
        feed.send([1, 1]);
        assert_eq!(ready(&mut rows).await, ["0:1/0", "1:1/0"], "at once");
    }
    assert_eq!((store.requests(), store.running()), (vec![vec![1, 2], vec![1]], 1));
    tokio::time::sleep(milliseconds(200)).await;
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 2, "the new answer serves");
    let counters = table.counters();
    assert_eq!((counters.refreshes, counters.hits, counters.misses), (1, 11, 2));
    assert_eq!((table.tasks(), table.flights.busy(), table.flights.entries()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn failed_refresh_leaves_the_old_entry_until_its_expiry() {
    let (store, delay) = changeable(0);
    let table = table(
        &store,
        &caching(PartialCache {
            refresh_after: Some(Duration::from_secs(10)),
            expire_after_write: Some(Duration::from_secs(100)),
            ..PartialCache::default()
        }),
    );
    query(&table, &[1]).await;
    *delay.lock().unwrap() = None;
    for second in [10, 15, 20, 89] {
        tokio::time::sleep_until(table.cache.as_ref().unwrap().started + Duration::from_secs(second)).await;
        assert_eq!(query(&table, &[1]).await, ["0:1/0"]);
        settled().await;
    }
    assert_eq!(store.requests().len(), 4, "a failed refresh is tried again after refresh_after, not at once");
    seconds(11).await;
    let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
    feed.send([1]);
    assert!(drain(&mut rows).await.1.is_some());
}

#[tokio::test(start_paused = true)]
async fn refresh_that_hangs_is_given_up_with_the_tables_timeout() {
    let store = ScriptedStore::new({
        let first = AtomicBool::new(true);
        move |_| if first.swap(false, SeqCst) { Reply::After(Duration::ZERO) } else { Reply::Hang }
    });
    let table = table(
        &store,
        &caching(PartialCache { refresh_after: Some(Duration::from_secs(10)), ..PartialCache::default() }),
    );
    query(&table, &[1]).await;
    seconds(10).await;
    assert_eq!(query(&table, &[1]).await, ["0:1/0"]);
    settled().await;
    assert_eq!((store.running(), table.flights.busy()), (1, 1));
    seconds(6).await;
    assert_eq!((store.running(), store.dropped()), (0, 1));
    assert_eq!((table.tasks(), table.flights.busy(), table.flights.entries()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn refresh_that_never_gets_a_slot_leaves_nothing_behind() {
    let store = ScriptedStore::new(|keys| if keys == [7] { Reply::Hang } else { Reply::After(Duration::ZERO) });
    let policy = caching(PartialCache { refresh_after: Some(Duration::from_secs(10)), ..PartialCache::default() });
    let table = table(&store, &LookupPolicy { max_in_flight: 1.try_into().unwrap(), ..policy });
    query(&table, &[1]).await;
    seconds(10).await;
    let forever = LookupPolicy { timeout: None, ..table.policy().clone() };
    let (mut feed, mut rows) = run(&table, left_join(forever));
    feed.send([7]);
    ready(&mut rows).await;
    assert_eq!(query(&table, &[1]).await, ["0:1/0"]);
    seconds(6).await;
    drop(rows);
    settled().await;
    assert_eq!(store.requests(), [[1], [7]]);
    assert_eq!((table.tasks(), table.flights.busy(), table.flights.entries()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn expired_answers_serve_when_the_store_fails_and_no_longer_than_laid_down() {
    for on_failure in OnFailure::ALL {
        let (store, delay) = changeable(0);
        let policy = caching(PartialCache {
            expire_after_write: Some(Duration::from_secs(10)),
            serve_stale_for: Duration::from_secs(20),
            told_by: None,
            ..PartialCache::default()
        });
        let table = table(&store, &LookupPolicy { on_failure, ..policy });
        query(&table, &[1, -1]).await;
        seconds(10).await;
        *delay.lock().unwrap() = None;
        assert_eq!(query(&table, &[1, -1, 1]).await, ["0:1/0", "1:-", "2:1/0"]);
        *delay.lock().unwrap() = Some(Duration::from_secs(60));
        assert_eq!(query(&table, &[1]).await, ["0:1/0"], "a time-out is a failure as well");
        let counters = table.counters();
        assert_eq!((counters.stale, counters.misses, counters.timeouts), (4, 6, 1));
        *delay.lock().unwrap() = Some(Duration::ZERO);
        assert_eq!(query(&table, &[1]).await, ["0:1/0"]);
        assert_eq!(table.counters().stale, 4, "a store that answers is believed");
        seconds(31).await;
        *delay.lock().unwrap() = None;
        let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
        feed.send([1]).end();
        let (_, error) = drain(&mut rows).await;
        assert_eq!((error.is_some(), table.counters().stale), (on_failure == OnFailure::Fail, 4));
    }
}

#[tokio::test(start_paused = true)]
async fn forgotten_answers_do_not_serve_when_the_store_fails() {
    let (store, delay) = changeable(0);
    let table = table(
        &store,
        &caching(PartialCache {
            expire_after_write: Some(Duration::from_secs(10)),
            serve_stale_for: Duration::from_secs(100),
            told_by: None,
            ..PartialCache::default()
        }),
    );
    for by_key in [true, false] {
        *delay.lock().unwrap() = Some(Duration::ZERO);
        query(&table, &[1]).await;
        *delay.lock().unwrap() = None;
        seconds(10).await;
        match by_key {
            true => assert_eq!(table.invalidate_keys(&[Arc::new(Int64Array::from(vec![1]))]).unwrap(), 1),
            false => assert_eq!(table.invalidate_all(), 1),
        }
        let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
        feed.send([1]);
        assert!(drain(&mut rows).await.1.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn entry_with_more_columns_serves_fewer_and_never_the_other_way_round() {
    let (store, _) = changeable(0);
    let table = table(&store, &caching(PartialCache::default()));
    let narrow = || LookupJoin {
        shape: Arc::new(LookupShape { key_columns: vec![0], columns: vec![1], filters: Conditions::default() }),
        projection: vec![0, 2],
        ..left_join(table.policy().clone())
    };
    assert_eq!(query_with(&table, narrow(), &[1, 2]).await, ["0:1/0", "1:2/0"]);
    assert_eq!(query(&table, &[2, 2003, -1]).await, ["0:2/0", "1:2003/0", "1:2003/1", "2:-"]);
    let expected = ["0:2003/0", "0:2003/1", "1:1/0", "2:2/0", "3:-"];
    assert_eq!(query_with(&table, narrow(), &[2003, 1, 2, -1]).await, expected);
    assert_eq!(store.requests(), [vec![1, 2], vec![-1, 2, 2003]]);
}

#[tokio::test(start_paused = true)]
async fn forgotten_keys_are_asked_for_again_and_the_others_stay() {
    let (store, _) = changeable(0);
    let table = table(&store, &caching(PartialCache::default()));
    query(&table, &[1, 2, 3]).await;
    let cases: [(ArrayRef, u64); 4] = [
        (Arc::new(Int32Array::from(vec![Some(1), None, Some(9)])), 1),
        (Arc::new(StringArray::from(vec!["2", "no number"])), 1),
        (Arc::new(Int64Array::from(vec![1, 2])), 0),
        (Arc::new(Int64Array::from(Vec::<i64>::new())), 0),
    ];
    for (keys, forgotten) in cases {
        assert_eq!(table.invalidate_keys(&[keys]).unwrap(), forgotten);
    }
    query(&table, &[1, 2, 3]).await;
    assert_eq!(store.requests(), [vec![1, 2, 3], vec![1, 2]]);
    assert_eq!(table.invalidate_all(), 3);
    assert_eq!((table.counters().cached_rows, table.counters().cached_bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn answers_to_forgotten_keys_under_way_are_neither_kept_nor_joined() {
    let (store, _) = changeable(50);
    let table = table(&store, &caching(PartialCache::default()));
    let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
    feed.send([1, 2]).end();
    ready(&mut rows).await;
    tokio::time::sleep(milliseconds(10)).await;
    assert_eq!(table.invalidate_keys(&[Arc::new(Int64Array::from(vec![1]))]).unwrap(), 0);
    let (mut later_feed, mut later) = run(&table, left_join(table.policy().clone()));
    later_feed.send([1, 2]).end();
    ready(&mut later).await;
    assert_eq!(store.requests(), [vec![1, 2], vec![1]], "only the other key's flight is joined");
    assert_eq!(drain(&mut rows).await.0, ["0:1/0", "1:2/0"]);
    assert_eq!(table.counters().cached_rows, 1);
    assert_eq!(drain(&mut later).await.0, ["0:1/0", "1:2/0"]);
    query(&table, &[1, 2]).await;
    assert_eq!((store.requests().len(), table.counters().cached_rows), (2, 2));
    assert_eq!((table.tasks(), table.flights.entries()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn both_bounds_hold_and_an_entry_larger_than_one_is_served_and_not_kept() {
    let store = ScriptedStore::new(|_| Reply::After(Duration::ZERO));
    let bounds = |rows, bytes| PartialCache {
        max_rows: NonZeroU64::new(rows),
        max_bytes: NonZeroU64::new(bytes),
        ..PartialCache::default()
    };
    for (rows, bytes) in [(50, 1 << 30), (1 << 40, 20_000), (50, 20_000), (0, 20_000)] {
        let table = table(&store, &caching(bounds(rows, bytes)));
        for start in 0..10 {
            query(&table, &(start * 100..start * 100 + 100).collect::<Vec<_>>()).await;
            let counters = table.counters();
            let most_rows = if rows == 0 { u64::MAX } else { rows };
            assert!(counters.cached_rows <= most_rows && counters.cached_bytes <= bytes, "{counters:?}");
        }
        assert!(table.counters().cached_rows >= 20, "{:?}", table.counters());
        for _ in 0..2 {
            let before = store.requests().len();
            assert_eq!(query(&table, &[1_000_000]).await.len(), 1000);
            assert_eq!(store.requests().len(), before + 1, "1000 rows exceed both bounds");
        }
    }
}

#[test]
fn an_entry_weighs_its_larger_share() {
    let bounds = |rows, bytes| Bounds::new(NonZeroU64::new(rows), NonZeroU64::new(bytes));
    let both = bounds(100, 10_000);
    assert_eq!((both.weight(1, 50), both.weight(1, 500), both.capacity), (100, 500, 10_000));
    assert_eq!(bounds(100, 0).weight(0, u32::MAX), 1, "a remembered miss is a row");
    let huge = bounds(0, 1 << 50);
    assert_eq!((huge.capacity, huge.weight(1, 1), huge.weight(1, 1 << 31)), (1 << 31, 1, 1 << 12));
    assert!(!both.admit(101, 1) && !both.admit(1, 10_001) && both.admit(100, 10_000));
}
