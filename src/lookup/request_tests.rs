//! CONFORMANCE on the paused clock: retries, requests that are split, keys that wait for company.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::super::policy::{CachePolicy, LookupPolicy, OnFailure, Ordering, PartialCache, RetryPolicy};
use super::super::scripted::run;
use super::super::scripted::*;
use super::*;

fn attempts(max_attempts: u32) -> RetryPolicy {
    RetryPolicy { max_attempts: NonZeroU32::new(max_attempts).unwrap(), ..RetryPolicy::default() }
}

fn batched(ordering: Ordering) -> LookupPolicy {
    LookupPolicy { batch_size: 1000.try_into().unwrap(), retry: attempts(3), ..policy(ordering) }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { message: "gone".to_string() }
}

fn store_error(sqlstate: &str) -> StoreError {
    StoreError::Failed { message: "no".to_string(), sqlstate: Some(sqlstate.to_string()) }
}

/// Fails the first `times` requests at once, then answers at once.
fn failing(times: usize, error: StoreError) -> Arc<ScriptedStore> {
    let seen = AtomicUsize::new(0);
    ScriptedStore::new(move |_| match seen.fetch_add(1, SeqCst) < times {
        true => Reply::Fail(Duration::ZERO, error.clone()),
        false => Reply::After(Duration::ZERO),
    })
}

async fn assert_nothing_left(table: &Arc<LookupTable>) {
    // The timekeeper ends when its alarm goes off and nothing rests.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((table.tasks(), table.flights.busy(), table.flights.entries()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn failure_that_passes_is_retried_after_a_growing_rest() {
    let store = failing(2, unavailable());
    let policy = batched(Ordering::Ordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    let started = Instant::now();
    feed.send([1, 2]).end();
    assert_eq!(drain(&mut rows).await, (vec!["0:1/0".to_string(), "1:2/0".to_string()], None));
    let took = started.elapsed();
    assert!((milliseconds(75)..=milliseconds(152)).contains(&took), "rests of 25 to 50 and 50 to 100 ms, not {took:?}");
    assert_eq!(store.requests(), [[1, 2], [1, 2], [1, 2]]);
    let counted = table.counters();
    assert_eq!((counted.requests, counted.retries, counted.failures), (3, 4, 2));
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_it_is_an_error_and_no_miss() {
    let store = failing(usize::MAX, unavailable());
    let policy = batched(Ordering::Ordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1]);
    let (none, error) = drain(&mut rows).await;
    assert_eq!((none.len(), error.unwrap().code()), (0, Code::StoreUnavailable));
    assert_eq!(store.requests().len(), 3, "attempts in all");
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_retried() {
    for (error, requests) in [
        (store_error("08006"), 3),
        (store_error("40001"), 3),
        (store_error("53200"), 3),
        (store_error("57P03"), 3),
        (store_error("55P03"), 3),
        (store_error("57014"), 1),
        (store_error("42P01"), 1),
        (store_error("22P02"), 1),
        (StoreError::Failed { message: "no".to_string(), sqlstate: None }, 1),
        (StoreError::BreakerOpen { message: "open".to_string() }, 1),
    ] {
        let store = failing(usize::MAX, error.clone());
        let policy = batched(Ordering::Ordered);
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        feed.send([1]);
        assert!(drain(&mut rows).await.1.is_some());
        assert_eq!(store.requests().len(), requests, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_follows_the_time_out() {
    let store = failing(usize::MAX, unavailable());
    let retry = RetryPolicy { delay: milliseconds(200), ..attempts(100) };
    let policy = LookupPolicy { timeout: Some(milliseconds(90)), retry, ..batched(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    let started = Instant::now();
    feed.send([1]);
    let error = drain(&mut rows).await.1.unwrap();
    assert_eq!(error.message(), "lookup in \"customers\" timed out after 90ms");
    assert!(started.elapsed() <= milliseconds(91), "{:?}", started.elapsed());
    assert_nothing_left(&table).await;
    assert_eq!(store.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_follows_the_time_out_though_nobody_polls() {
    let store = failing(usize::MAX, unavailable());
    let retry = RetryPolicy { delay: milliseconds(200), ..attempts(100) };
    let policy = LookupPolicy { timeout: Some(milliseconds(90)), retry, ..batched(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1]);
    ready(&mut rows).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.requests().len(), 1);
    assert_eq!(drain(&mut rows).await.1.unwrap().message(), "lookup in \"customers\" timed out after 90ms");
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn key_that_rests_holds_no_slot_and_no_other_row() {
    let store = ScriptedStore::new(|keys| match keys.contains(&1) {
        true => Reply::Fail(Duration::ZERO, unavailable()),
        false => Reply::After(Duration::ZERO),
    });
    let policy = LookupPolicy { max_in_flight: 1.try_into().unwrap(), ..batched(Ordering::Unordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1]);
    ready(&mut rows).await;
    feed.send([2]);
    assert_eq!(ready(&mut rows).await, ["1:2/0"]);
    assert_eq!(table.flights.busy(), 0);
}

#[tokio::test(start_paused = true)]
async fn row_of_another_query_joins_a_key_that_rests() {
    let store = failing(1, unavailable());
    let policy = batched(Ordering::Ordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy.clone()));
    let (mut other_feed, mut other_rows) = run(&table, left_join(policy));
    feed.send([1]).end();
    assert!(ready(&mut rows).await.is_empty());
    other_feed.send([1]).end();
    assert_eq!(drain(&mut other_rows).await.0, ["0:1/0"]);
    assert_eq!(drain(&mut rows).await.0, ["0:1/0"]);
    assert_eq!(store.requests(), [[1], [1]]);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn key_that_was_forgotten_while_it_failed_is_still_asked_again() {
    let seen = AtomicUsize::new(0);
    let store = ScriptedStore::new(move |_| match seen.fetch_add(1, SeqCst) {
        0 => Reply::Fail(milliseconds(20), unavailable()),
        _ => Reply::After(Duration::ZERO),
    });
    let cache = CachePolicy::Partial(PartialCache::default());
    let policy = LookupPolicy { cache, ..batched(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1]).end();
    ready(&mut rows).await;
    let keys: datafusion::arrow::array::ArrayRef = Arc::new(datafusion::arrow::array::Int64Array::from(vec![1]));
    table.invalidate_keys(&[keys]).unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(1), drain(&mut rows)).await;
    assert_eq!(answered.unwrap().0, ["0:1/0"]);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn query_that_ends_while_its_key_rests_leaves_nothing() {
    let store = failing(usize::MAX, unavailable());
    let policy = batched(Ordering::Ordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1]);
    assert!(ready(&mut rows).await.is_empty());
    drop(rows);
    assert_nothing_left(&table).await;
    assert_eq!(store.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_on_miss_only_the_missed_keys_are_asked_again() {
    let store = ScriptedStore::new(|_| Reply::After(Duration::ZERO));
    let retry = RetryPolicy { on_miss: true, ..attempts(3) };
    let cache = CachePolicy::Partial(PartialCache::default());
    let policy = LookupPolicy { retry, cache, ..batched(Ordering::Unordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy.clone()));
    feed.send([5, -6]).end();
    assert_eq!(ready(&mut rows).await, ["0:5/0"], "a found key does not wait for a missed one");
    let (mut other_feed, mut other_rows) = run(&table, left_join(policy.clone()));
    other_feed.send([5, -6]).end();
    assert_eq!(ready(&mut other_rows).await, ["0:5/0"], "a miss is not remembered before the last attempt");
    assert_eq!(drain(&mut rows).await, (vec!["1:-".to_string()], None));
    assert_eq!(drain(&mut other_rows).await, (vec!["1:-".to_string()], None));
    assert_eq!(store.requests(), [vec![-6, 5], vec![-6], vec![-6]]);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([-6]).end();
    assert_eq!(drain(&mut rows).await.0, ["0:-"]);
    assert_eq!(store.requests().len(), 3, "now it is remembered");
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn batch_with_one_bad_key_is_split_until_it_stands_alone() {
    let store = ScriptedStore::new(|keys| match keys.contains(&7) {
        true => Reply::Fail(milliseconds(1), store_error("22P02")),
        false => Reply::After(milliseconds(1)),
    });
    let policy = LookupPolicy { on_failure: OnFailure::NoMatch, retry: attempts(1), ..batched(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send(1..=9).end();
    let (rows, error) = drain(&mut rows).await;
    let expected: Vec<String> =
        (1..=9).map(|key| if key == 7 { "6:-".to_string() } else { format!("{}:{key}/0", key - 1) }).collect();
    assert_eq!((rows, error), (expected, None));
    let alone = store.requests().iter().filter(|keys| **keys == [7]).count();
    assert_eq!((alone, table.counters().retries, table.counters().failures), (1, 0, 1));
    assert!(store.requests().len() <= 9, "{:?}", store.requests());
    assert_eq!(store.most_running(), 1, "the halves share the slot");
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn split_is_no_attempt() {
    let seen = AtomicUsize::new(0);
    let store = ScriptedStore::new(move |keys| match keys {
        [_, _, ..] => Reply::Fail(Duration::ZERO, store_error("22P02")),
        [_] if seen.fetch_add(1, SeqCst) == 0 => Reply::Fail(Duration::ZERO, unavailable()),
        _ => Reply::After(Duration::ZERO),
    });
    let policy = LookupPolicy { retry: attempts(2), ..batched(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1, 2, 3, 4]).end();
    let expected = ["0:1/0", "1:2/0", "2:3/0", "3:4/0"].map(String::from).to_vec();
    assert_eq!(drain(&mut rows).await, (expected, None), "an attempt is left to each key");
    assert_eq!(table.counters().retries, 1);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn half_that_nobody_waits_for_is_not_asked() {
    let store = ScriptedStore::new(|keys| match keys.len() > 1 {
        true => Reply::Fail(milliseconds(20), StoreError::TooLarge { max_answer_bytes: 10 }),
        false => Reply::After(milliseconds(1)),
    });
    let policy = LookupPolicy { max_in_flight: 1.try_into().unwrap(), ..batched(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut blocker, mut blocked) = run(&table, left_join(policy.clone()));
    let (mut feed, mut rows) = run(&table, left_join(policy.clone()));
    let (mut other_feed, mut other_rows) = run(&table, left_join(policy));
    blocker.send([9]).end();
    ready(&mut blocked).await;
    feed.send([1]);
    ready(&mut rows).await;
    other_feed.send([2]).end();
    ready(&mut other_rows).await;
    tokio::time::sleep(milliseconds(10)).await;
    drop(rows);
    assert_eq!(drain(&mut other_rows).await.0, ["0:2/0"]);
    assert_eq!(store.requests(), [vec![9], vec![1, 2], vec![2]]);
    drop(blocked);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn keys_wait_for_company_as_long_as_they_may() {
    let store = ScriptedStore::new(|_| Reply::After(Duration::ZERO));
    let policy = LookupPolicy { batch_delay: milliseconds(10), ..batched(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1]);
    assert!(ready(&mut rows).await.is_empty());
    tokio::time::sleep(milliseconds(6)).await;
    feed.send([2]);
    assert!(ready(&mut rows).await.is_empty());
    assert!(store.requests().is_empty());
    tokio::time::sleep(milliseconds(4)).await;
    assert_eq!(ready(&mut rows).await, ["0:1/0", "1:2/0"]);
    assert_eq!(store.requests(), [[1, 2]]);
    feed.send([3]);
    ready(&mut rows).await;
    tokio::time::sleep(milliseconds(10)).await;
    assert_eq!(ready(&mut rows).await, ["2:3/0"], "and once more");
    drop(rows);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn whole_request_needs_no_more_company() {
    let store = ScriptedStore::new(|_| Reply::After(Duration::ZERO));
    let two = 2.try_into().unwrap();
    let policy = LookupPolicy { batch_delay: Duration::from_secs(1), batch_size: two, ..batched(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1, 2, 3]);
    assert_eq!(ready(&mut rows).await, ["0:1/0", "1:2/0"]);
    feed.send([4]);
    assert_eq!(ready(&mut rows).await, ["2:3/0", "3:4/0"]);
    assert_eq!(store.requests(), [[1, 2], [3, 4]]);
}

#[tokio::test(start_paused = true)]
async fn earlier_alarm_is_not_missed_behind_a_later_one() {
    let store = ScriptedStore::new(|_| Reply::After(Duration::ZERO));
    let patient = LookupPolicy { batch_delay: Duration::from_secs(1), ..batched(Ordering::Ordered) };
    let hasty = LookupPolicy { batch_delay: milliseconds(5), ..patient.clone() };
    let table = table(&store, &patient);
    let (mut feed, mut rows) = run(&table, left_join(patient));
    let (mut hasty_feed, mut hasty_rows) = run(&table, left_join(hasty));
    feed.send([1]);
    ready(&mut rows).await;
    hasty_feed.send([2]);
    ready(&mut hasty_rows).await;
    tokio::time::sleep(milliseconds(5)).await;
    assert_eq!(ready(&mut hasty_rows).await, ["0:2/0"]);
    assert_eq!(ready(&mut rows).await, ["0:1/0"], "they share the request");
}

#[tokio::test(start_paused = true)]
async fn many_rows_of_one_key_make_one_request_and_hot_keys_are_asked_for_once() {
    for cache in [CachePolicy::None, CachePolicy::Partial(PartialCache::default())] {
        let store = ScriptedStore::new(|_| Reply::After(milliseconds(50)));
        let policy = LookupPolicy { cache, ..batched(Ordering::Ordered) };
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        // In batches of one row, as a live stream has them.
        for _ in 0..1000 {
            feed.send([7]);
        }
        ready(&mut rows).await;
        assert_eq!(store.requests(), [[7]], "1,000 equal keys that are missing at once make one request");
        for n in 0..1000 {
            feed.send([n % 10 + 20]);
        }
        feed.end();
        let (all, error) = drain(&mut rows).await;
        assert_eq!((all.len(), error), (2000, None));
        let keys: usize = store.requests().iter().map(Vec::len).sum();
        assert_eq!(keys, 1 + 10, "1,000 rows over 10 hot keys ask the store for 10 keys");
    }
}

#[test]
fn rests_grow_to_their_bound_and_vary() {
    let retry = attempts(9);
    let rests = |attempt| (0..100).map(move |random| RetryPolicy::default().rest_after(attempt, random));
    for (attempt, most) in [(1, 50), (2, 100), (5, 800), (6, 1000), (100, 1000)] {
        let most = milliseconds(most);
        assert!(rests(attempt).all(|rest| rest >= most / 2 && rest <= most), "{attempt}");
    }
    let distinct: std::collections::HashSet<Duration> = rests(1).collect();
    assert!(distinct.len() > 90, "{}", distinct.len());
    assert_eq!(retry.rest_after(1, 7), retry.rest_after(1, 7));
    assert_eq!(RetryPolicy { delay: Duration::ZERO, ..retry }.rest_after(3, 1), Duration::ZERO);
}
