//! CONFORMANCE on the paused clock: queue, time-out, errors.

use std::num::NonZeroU64;

use futures::StreamExt;
use tokio::time::Instant;

use super::super::policy::{CachePolicy, LookupPolicy, OnFailure, Ordering, PartialCache};
use super::super::scripted::*;
use super::super::{JoinKind, LookupTable};
use super::*;
use crate::store::StoreError;

/// A key's answer takes as many milliseconds as the key says; 0 hangs.
fn by_key() -> Arc<ScriptedStore> {
    ScriptedStore::new(|keys| match keys[0] {
        0 => Reply::Hang,
        key => Reply::After(milliseconds(key.unsigned_abs() % 1000)),
    })
}

fn left(count: i64) -> impl Iterator<Item = i64> {
    1..count + 1
}

/// No task, slot, ask, flight or request is left over.
async fn assert_nothing_left(table: &Arc<LookupTable>) {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!((table.tasks(), table.flights.busy(), table.flights.entries()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn ordered_rows_leave_as_they_came() {
    let store = by_key();
    let policy = policy(Ordering::Ordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([30]).send([20, 10]);
    assert!(ready(&mut rows).await.is_empty());
    tokio::time::sleep(milliseconds(25)).await;
    assert!(ready(&mut rows).await.is_empty(), "answered rows waited for the first");
    tokio::time::sleep(milliseconds(10)).await;
    assert_eq!(ready(&mut rows).await, ["0:30/0", "1:20/0", "2:10/0"]);
    drop(rows);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn ordered_emits_the_longest_answered_prefix_of_a_batch() {
    let store = by_key();
    let policy = policy(Ordering::Ordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([10, 10, 50, 10]);
    ready(&mut rows).await;
    tokio::time::sleep(milliseconds(11)).await;
    assert_eq!(ready(&mut rows).await, ["0:10/0", "1:10/0"]);
    tokio::time::sleep(milliseconds(40)).await;
    assert_eq!(ready(&mut rows).await, ["2:50/0", "3:10/0"]);
}

#[tokio::test(start_paused = true)]
async fn unordered_rows_leave_when_their_answer_is_there() {
    let store = by_key();
    let policy = policy(Ordering::Unordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([Some(30), Some(20), None]).send([10, 20]);
    assert_eq!(ready(&mut rows).await, ["2:-"], "a NULL key leaves at once");
    for expected in [vec!["3:10/0"], vec!["1:20/0", "4:20/0"], vec!["0:30/0"]] {
        tokio::time::sleep(milliseconds(10)).await;
        assert_eq!(ready(&mut rows).await, expected);
    }
    feed.end();
    assert_eq!(drain(&mut rows).await, (vec![], None));
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn full_queue_stops_reading_input() {
    for ordering in Ordering::ALL {
        let store = by_key();
        let policy = LookupPolicy { capacity: 2.try_into().unwrap(), ..policy(ordering) };
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        feed.send([10]).send([20]).send([30]).send([40]);
        ready(&mut rows).await;
        assert_eq!((feed.read(), store.requests()), (2, vec![vec![10], vec![20]]), "{ordering}");
        tokio::time::sleep(milliseconds(10)).await;
        assert_eq!(ready(&mut rows).await, ["0:10/0"]);
        assert_eq!((feed.read(), store.requests().len()), (3, 3), "{ordering}");
        feed.end();
        assert_eq!(drain(&mut rows).await.0.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn batch_larger_than_capacity_is_admitted_in_slices() {
    for ordering in Ordering::ALL {
        let store = by_key();
        let policy = LookupPolicy { capacity: 3.try_into().unwrap(), ..policy(ordering) };
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        feed.send(left(10)).end();
        ready(&mut rows).await;
        assert_eq!(store.requests().len(), 3);
        let (all, error) = drain(&mut rows).await;
        assert_eq!((all.len(), error), (10, None));
        assert!(store.most_running() <= 3);
    }
}

#[tokio::test(start_paused = true)]
async fn end_of_input_awaits_what_is_in_flight() {
    for ordering in Ordering::ALL {
        let store = by_key();
        let policy = policy(ordering);
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        feed.send([20, 10]).end();
        let (mut all, error) = drain(&mut rows).await;
        if ordering != Ordering::Ordered {
            all.sort();
        }
        assert_eq!((all, error), (vec!["0:20/0".to_string(), "1:10/0".to_string()], None));
        assert!(rows.next().await.is_none());
        assert_nothing_left(&table).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_input_ends_the_stream_after_the_rows_before_it() {
    let store = by_key();
    let policy = policy(Ordering::Ordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([20]).fail(Error::new(Code::InvalidTextRepresentation, "malformed"));
    let (all, error) = drain(&mut rows).await;
    assert_eq!((all, error.unwrap().message()), (vec!["0:20/0".to_string()], "malformed"));
}

#[tokio::test(start_paused = true)]
async fn chains_do_not_stall_at_small_capacities() {
    for (ordering, capacity) in Ordering::ALL.into_iter().flat_map(|ordering| [1, 2, 6].map(|c| (ordering, c))) {
        let store = ScriptedStore::new(|keys| Reply::After(milliseconds(1 + keys[0] as u64 % 7)));
        let policy = LookupPolicy {
            capacity: capacity.try_into().unwrap(),
            batch_size: 3.try_into().unwrap(),
            max_in_flight: 2.try_into().unwrap(),
            ..policy(ordering)
        };
        let table = table(&store, &policy);
        let (mut feed, input) = Feed::new();
        let first = super::super::LookupExec::try_new(input, Arc::clone(&table), left_join(policy.clone())).unwrap();
        let second = super::super::LookupExec::try_new(Arc::new(first), Arc::clone(&table), {
            let mut join = left_join(policy);
            join.projection = vec![0, 3, 5];
            join
        });
        use datafusion::physical_plan::ExecutionPlan;
        let mut rows = second.unwrap().execute(0, Arc::default()).unwrap();
        feed.send(left(20)).send(left(20)).end();
        let (mut all, error) = drain(&mut rows).await;
        assert_eq!(error, None);
        let expected: Vec<String> = (0..40).map(|n| format!("{n}:{}/0", n % 20 + 1)).collect();
        if ordering != Ordering::Ordered {
            all.sort_by_key(|row| row.split(':').next().unwrap().parse::<i64>().unwrap());
        }
        assert_eq!(all, expected, "{ordering} {capacity}");
        assert_nothing_left(&table).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_reader_makes_no_false_timeouts() {
    for ordering in Ordering::ALL {
        // While the reader is away after the first answers, the others come.
        let store = ScriptedStore::new(|keys| Reply::After(milliseconds(if keys[0] % 2 == 0 { 45 } else { 5 })));
        let policy = LookupPolicy {
            timeout: Some(milliseconds(100)),
            max_in_flight: 8.try_into().unwrap(),
            capacity: 8.try_into().unwrap(),
            ..policy(ordering)
        };
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        left(40).for_each(|key| {
            feed.send([key]);
        });
        feed.end();
        let mut all = Vec::new();
        while let Some(batch) = rows.next().await {
            all.extend(shown(&batch.unwrap()));
            tokio::time::sleep(milliseconds(200)).await;
        }
        assert_eq!((all.len(), table.counters().timeouts), (40, 0), "{ordering}");
    }
}

#[tokio::test(start_paused = true)]
async fn timed_out_row_ends_the_query_after_the_rows_before_it() {
    for (ordering, expected) in [(Ordering::Ordered, vec!["0:10/0"]), (Ordering::Unordered, vec!["0:10/0", "2:20/0"])] {
        let store = by_key();
        let policy = LookupPolicy { timeout: Some(milliseconds(500)), ..policy(ordering) };
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        feed.send([10, 0, 20]);
        let start = Instant::now();
        let (all, error) = drain(&mut rows).await;
        let error = error.unwrap();
        assert_eq!(all, expected);
        assert_eq!(error.message(), "lookup in \"customers\" timed out after 500ms");
        assert_eq!(error.sqlstate(), "HV000");
        assert_eq!(start.elapsed().as_millis(), 500);
        assert!(rows.next().await.is_none() && feed.is_closed());
        assert_nothing_left(&table).await;
        assert_eq!((store.running(), store.dropped()), (0, 1), "the request was not cancelled");
    }
}

#[tokio::test(start_paused = true)]
async fn unordered_delivers_answers_that_came_before_a_timeout_was_noticed() {
    let store = by_key();
    let policy = LookupPolicy { timeout: Some(milliseconds(100)), ..policy(Ordering::Unordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([0]).send([50]);
    ready(&mut rows).await;
    tokio::time::sleep(milliseconds(300)).await;
    let (all, error) = drain(&mut rows).await;
    assert_eq!((all, error.map(|error| error.code())), (vec!["1:50/0".to_string()], Some(Code::StoreFailed)));
}

#[tokio::test(start_paused = true)]
async fn timed_out_row_is_no_match_if_the_policy_says_so() {
    for (kind, expected) in [(JoinKind::Left, vec!["0:-", "1:20/0"]), (JoinKind::Inner, vec!["1:20/0"])] {
        let store = by_key();
        let policy = LookupPolicy {
            timeout: Some(milliseconds(100)),
            on_failure: OnFailure::NoMatch,
            ..policy(Ordering::Ordered)
        };
        let table = table(&store, &policy);
        let mut join = left_join(policy);
        join.kind = kind;
        let (mut feed, mut rows) = run(&table, join);
        feed.send([0, 20]).end();
        let (all, error) = drain(&mut rows).await;
        assert_eq!((all, error), (expected.iter().map(ToString::to_string).collect(), None));
        assert_eq!(table.counters().timeouts, 1);
        assert_nothing_left(&table).await;
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_slot_counts_and_waiting_for_neighbours_does_not() {
    let store = by_key();
    let slow = LookupPolicy {
        timeout: Some(milliseconds(100)),
        max_in_flight: 1.try_into().unwrap(),
        on_failure: OnFailure::NoMatch,
        ..policy(Ordering::Ordered)
    };
    let table = table(&store, &slow);
    let (mut feed, mut rows) = run(&table, left_join(slow));
    // 80 ms at the store; then 30 ms more, which ends at 110.
    feed.send([80]).send([30]).end();
    assert_eq!(drain(&mut rows).await.0, ["0:80/0", "1:-"]);

    let store = by_key();
    let neighbours = LookupPolicy { timeout: Some(milliseconds(100)), ..policy(Ordering::Ordered) };
    let table = super::super::scripted::table(&store, &neighbours);
    let (mut feed, mut rows) = run(&table, left_join(neighbours));
    feed.send([90, 10]);
    ready(&mut rows).await;
    tokio::time::sleep(milliseconds(5000)).await;
    assert_eq!(ready(&mut rows).await, ["0:90/0", "1:10/0"]);
    assert_eq!(table.counters().timeouts, 0);
}

#[tokio::test(start_paused = true)]
async fn clock_starts_with_the_place_and_runs_while_waiting_for_company() {
    let limits = LookupPolicy {
        timeout: Some(milliseconds(100)),
        capacity: 1.try_into().unwrap(),
        on_failure: OnFailure::NoMatch,
        ..policy(Ordering::Ordered)
    };
    // The second row has its place after 80 ms, and its answer 80 ms later.
    let store = by_key();
    let one_place = table(&store, &limits);
    let (mut feed, mut rows) = run(&one_place, left_join(limits.clone()));
    feed.send([80, 1080]).end();
    assert_eq!(drain(&mut rows).await.0, ["0:80/0", "1:1080/0"]);

    // 60 ms without company and 50 ms at the store.
    let store = by_key();
    let company = LookupPolicy { batch_size: 9.try_into().unwrap(), batch_delay: milliseconds(60), ..limits };
    let patient = table(&store, &company);
    let (mut feed, mut rows) = run(&patient, left_join(company));
    feed.send([50]).end();
    assert_eq!(drain(&mut rows).await.0, ["0:-"]);
    assert_eq!((store.requests().len(), patient.counters().timeouts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn answer_after_the_timeout_is_ignored_and_never_emitted_twice() {
    // Two queries wait for the same key: one gives up at 50 ms, the other gets the answer at 80.
    let store = by_key();
    let hasty =
        LookupPolicy { timeout: Some(milliseconds(50)), on_failure: OnFailure::NoMatch, ..policy(Ordering::Unordered) };
    let table = table(&store, &hasty);
    let (mut feed, mut rows) = run(&table, left_join(hasty));
    let (mut other_feed, mut other) = run(&table, left_join(policy(Ordering::Ordered)));
    feed.send([80]);
    other_feed.send([80]).end();
    ready(&mut rows).await;
    assert_eq!(drain(&mut other).await.0, ["0:80/0"]);
    feed.end();
    assert_eq!(drain(&mut rows).await.0, ["0:-"], "polled after the answer, but the answer was late");
    assert_eq!((store.requests().len(), store.dropped()), (1, 0));
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_outlast_everybody_free_their_slots_while_nobody_polls() {
    let store = ScriptedStore::new(|keys| if keys[0] < 8 { Reply::Hang } else { Reply::After(milliseconds(1)) });
    let policy = LookupPolicy {
        timeout: Some(milliseconds(100)),
        max_in_flight: 2.try_into().unwrap(),
        on_failure: OnFailure::NoMatch,
        ..policy(Ordering::Ordered)
    };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy.clone()));
    feed.send(left(5));
    ready(&mut rows).await;
    assert_eq!(store.running(), 2);
    tokio::time::sleep(milliseconds(101)).await;
    // Nobody has polled `rows` since, and yet another query gets a slot.
    let (mut other_feed, mut other) = run(&table, left_join(policy));
    other_feed.send([9]).end();
    assert_eq!(drain(&mut other).await.0, ["0:9/0"]);
    feed.end();
    assert_eq!(drain(&mut rows).await.0.len(), 5);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_after_many_timeouts() {
    let store = ScriptedStore::new(|_| Reply::Hang);
    let policy = LookupPolicy {
        timeout: Some(milliseconds(20)),
        on_failure: OnFailure::NoMatch,
        capacity: 50.try_into().unwrap(),
        max_in_flight: 3.try_into().unwrap(),
        batch_size: 7.try_into().unwrap(),
        ..policy(Ordering::Unordered)
    };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send(left(2000));
    let mut count = 0;
    while count < 2000 {
        count += rows.next().await.unwrap().unwrap().num_rows();
    }
    assert_nothing_left(&table).await;
    assert_eq!((table.counters().timeouts, store.running()), (2000, 0));
    assert!(store.most_running() <= 3);
}

#[tokio::test(start_paused = true)]
async fn store_error_takes_the_place_of_its_row() {
    let broken = || {
        ScriptedStore::new(|keys| match keys[0] {
            5 => Reply::Fail(milliseconds(5), StoreError::Unavailable { message: "connection refused".to_string() }),
            key => Reply::After(milliseconds(key as u64)),
        })
    };
    let policy = policy(Ordering::Ordered);
    let store = broken();
    let failing = table(&store, &policy);
    let (mut feed, mut rows) = run(&failing, left_join(policy.clone()));
    feed.send([20, 5, 30]);
    let (all, error) = drain(&mut rows).await;
    let error = error.unwrap();
    assert_eq!(all, ["0:20/0"]);
    assert_eq!(error.message(), "store of lookup table \"customers\" is not available: connection refused");
    assert_eq!(error.sqlstate(), "HV00N");
    assert_nothing_left(&failing).await;

    let policy = LookupPolicy { on_failure: OnFailure::NoMatch, ..policy };
    let store = broken();
    let forgiving = table(&store, &policy);
    let (mut feed, mut rows) = run(&forgiving, left_join(policy));
    feed.send([20, 5, 30]).end();
    assert_eq!(drain(&mut rows).await.0, ["0:20/0", "1:-", "2:30/0"]);
    assert_eq!(forgiving.counters().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn panic_in_a_store_ends_the_query_and_not_the_table() {
    let store = ScriptedStore::new(|keys| if keys[0] == 5 { Reply::Panic } else { Reply::After(milliseconds(1)) });
    let policy = LookupPolicy { max_in_flight: 1.try_into().unwrap(), ..policy(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy.clone()));
    feed.send([5]);
    let error = drain(&mut rows).await.1.unwrap();
    assert_eq!(error.message(), "the store of lookup table \"customers\" panicked");
    assert_eq!((error.sqlstate(), error.detail()), ("XX000", Some("boom.")));
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([6]).end();
    assert_eq!(drain(&mut rows).await.0, ["0:6/0"]);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn foreign_row_is_an_error_of_the_store() {
    let store = ScriptedStore::new(|_| Reply::Foreign);
    let policy = policy(Ordering::Ordered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([5]).end();
    let error = drain(&mut rows).await.1.unwrap();
    assert_eq!(error.message(), "lookup in \"customers\" failed: the store gave a row for key 1 of 1");
    assert_eq!(error.sqlstate(), "HV000");
}

#[tokio::test(start_paused = true)]
async fn answers_out_of_order_reach_their_own_keys() {
    let store = ScriptedStore::new(|_| Reply::Backwards);
    let policy = LookupPolicy { batch_size: 100.try_into().unwrap(), ..policy(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([5, -1, 2000, 5, 3]).end();
    assert_eq!(drain(&mut rows).await.0, ["0:5/0", "1:-", "2:2000/0", "2:2000/1", "3:5/0", "4:3/0"]);
    assert_eq!(store.requests(), [[-1, 3, 5, 2000]], "distinct and sorted");
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_stops_its_requests_and_no_others() {
    let store = by_key();
    let policy = LookupPolicy { max_in_flight: 2.try_into().unwrap(), ..policy(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy.clone()));
    let (mut other_feed, mut other) = run(&table, left_join(policy));
    feed.send([0, 50, 60, 70]);
    ready(&mut rows).await;
    other_feed.send([50, 70]).end();
    ready(&mut other).await;
    drop(rows);
    assert_eq!(drain(&mut other).await.0, ["0:50/0", "1:70/0"]);
    assert_eq!(store.requests(), [[0], [50], [70]], "nobody wanted 60 any more");
    assert_eq!(store.dropped(), 1);
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_leaves_a_request_that_others_wait_for() {
    let store = by_key();
    let policy = LookupPolicy {
        max_in_flight: 1.try_into().unwrap(),
        batch_size: 2.try_into().unwrap(),
        ..policy(Ordering::Ordered)
    };
    let table = table(&store, &policy);
    let (mut blocker, mut blocked) = run(&table, left_join(policy.clone()));
    let (mut feed, mut rows) = run(&table, left_join(policy.clone()));
    let (mut other_feed, mut other) = run(&table, left_join(policy));
    blocker.send([10]).end();
    ready(&mut blocked).await;
    feed.send([20]);
    ready(&mut rows).await;
    other_feed.send([30]).end();
    ready(&mut other).await;
    assert_eq!(drain(&mut blocked).await.0, ["0:10/0"]);
    ready(&mut other).await;
    assert_eq!(store.requests(), [vec![10], vec![20, 30]]);
    drop(rows);
    assert_eq!(drain(&mut other).await.0, ["0:30/0"]);
    assert_eq!((store.requests().len(), store.dropped()), (2, 0));
    assert_nothing_left(&table).await;
}

#[tokio::test(start_paused = true)]
async fn cache_policy_of_the_join_decides_about_the_table_cache() {
    let cached = LookupPolicy {
        cache: CachePolicy::Partial(PartialCache {
            max_rows: NonZeroU64::new(10),
            expire_misses_after: None,
            ..PartialCache::default()
        }),
        ..policy(Ordering::Ordered)
    };
    let store = by_key();
    let table = table(&store, &cached);
    for (cache, requests) in
        [(CachePolicy::None, 1), (cached.cache.clone(), 2), (cached.cache.clone(), 2), (CachePolicy::None, 3)]
    {
        let (mut feed, mut rows) = run(&table, left_join(LookupPolicy { cache, ..cached.clone() }));
        feed.send([10]).end();
        assert_eq!(drain(&mut rows).await.0, ["0:10/0"]);
        assert_eq!(store.requests().len(), requests);
    }
}
