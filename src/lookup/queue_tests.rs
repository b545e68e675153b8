//! key_ordered, skipped rows, and the bound in bytes, on the paused clock.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::super::policy::{LookupPolicy, OnFailure, Ordering};
use super::super::scripted::*;
use super::*;
use crate::store::StoreError;

fn by_key() -> Arc<ScriptedStore> {
    ScriptedStore::new(|keys| Reply::After(milliseconds(keys[0].unsigned_abs() % 1000)))
}

#[tokio::test(start_paused = true)]
async fn key_ordered_rows_overtake_only_rows_of_other_keys() {
    let store = by_key();
    let policy = policy(Ordering::KeyOrdered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([Some(30), Some(20), None, Some(30)]).send([Some(10), None, Some(30)]);
    assert_eq!(ready(&mut rows).await, ["2:-", "5:-"], "NULL keys leave at once");
    tokio::time::sleep(milliseconds(10)).await;
    feed.send([20]).end();
    assert_eq!(ready(&mut rows).await, ["4:10/0"]);
    tokio::time::sleep(milliseconds(10)).await;
    assert_eq!(ready(&mut rows).await, ["1:20/0", "7:20/0"]);
    assert_eq!(drain(&mut rows).await.0, ["0:30/0", "3:30/0", "6:30/0"]);
    assert_eq!(store.requests(), [[30], [20], [10]], "rows of one key share its flight");
}

#[tokio::test(start_paused = true)]
async fn key_ordered_holds_back_an_answer_that_came_before_an_older_one() {
    let seen = AtomicUsize::new(0);
    let store = ScriptedStore::new(move |_| match seen.fetch_add(1, SeqCst) {
        0 => Reply::After(milliseconds(100)),
        _ => Reply::After(milliseconds(10)),
    });
    let policy = policy(Ordering::KeyOrdered);
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([7]);
    ready(&mut rows).await;
    // From here on nobody joins the flight that is under way.
    table.invalidate_all();
    feed.send([7, 8]).send([8, 7]).end();
    ready(&mut rows).await;
    tokio::time::sleep(milliseconds(10)).await;
    assert_eq!(ready(&mut rows).await, ["2:8/0", "3:8/0"], "row 1 is answered and waits for row 0");
    assert_eq!(store.requests().len(), 3);
    tokio::time::sleep(milliseconds(89)).await;
    assert!(ready(&mut rows).await.is_empty());
    assert_eq!(drain(&mut rows).await.0, ["0:7/0", "1:7/0", "4:7/0"]);
}

#[tokio::test(start_paused = true)]
async fn key_ordered_row_that_timed_out_lets_those_behind_it_go() {
    let seen = AtomicUsize::new(0);
    let store = ScriptedStore::new(move |_| match seen.fetch_add(1, SeqCst) {
        0 => Reply::Hang,
        _ => Reply::After(milliseconds(1)),
    });
    let policy = LookupPolicy {
        timeout: Some(milliseconds(50)),
        on_failure: OnFailure::NoMatch,
        ..policy(Ordering::KeyOrdered)
    };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([7]);
    ready(&mut rows).await;
    table.invalidate_all();
    feed.send([7]).end();
    tokio::time::sleep(milliseconds(20)).await;
    assert!(ready(&mut rows).await.is_empty());
    assert_eq!(drain(&mut rows).await, (vec!["0:-".to_string(), "1:7/0".to_string()], None));
}

#[tokio::test(start_paused = true)]
async fn skipped_rows_are_dropped_and_counted_and_others_go_on() {
    for ordering in Ordering::ALL {
        let store = ScriptedStore::new(|keys| match keys[0] {
            13 => Reply::Fail(milliseconds(5), StoreError::Unavailable { message: "gone".to_string() }),
            0 => Reply::Hang,
            _ => Reply::After(milliseconds(1)),
        });
        let policy = LookupPolicy { on_failure: OnFailure::Skip, timeout: Some(milliseconds(20)), ..policy(ordering) };
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        feed.send([Some(13), Some(1), Some(13), Some(0), None, Some(-5)]).end();
        let (mut all, error) = drain(&mut rows).await;
        all.sort();
        assert_eq!((all, error), (["1:1/0", "4:-", "5:-"].map(String::from).to_vec(), None), "{ordering}");
        let counted = table.counters();
        assert_eq!((counted.skipped, counted.timeouts, counted.failures), (3, 1, 1), "{ordering}");
    }
}

#[tokio::test(start_paused = true)]
async fn row_larger_than_the_bound_in_bytes_waits_alone() {
    for ordering in Ordering::ALL {
        let store = by_key();
        let policy = LookupPolicy { capacity_bytes: NonZeroU64::MIN, ..policy(ordering) };
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        feed.send([10, 11, 12]).send([13]).end();
        ready(&mut rows).await;
        assert_eq!((store.requests(), feed.read()), (vec![vec![10]], 1), "{ordering}");
        let (all, error) = drain(&mut rows).await;
        assert_eq!((all.len(), error), (4, None));
        assert_eq!(store.most_running(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_count_towards_the_bound_in_bytes() {
    let store = by_key();
    let bound = 2_000_000;
    let policy = LookupPolicy { capacity_bytes: NonZeroU64::new(bound).unwrap(), ..policy(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    // A thousand rows each; the first key hangs for a second, so that nothing leaves.
    feed.send([1_000_999]);
    for _ in 0..30 {
        feed.send([1_000_001]);
        feed.send(1_000_002..1_000_100);
        ready(&mut rows).await;
        tokio::time::sleep(milliseconds(20)).await;
    }
    let asked = store.requests().len() as u64;
    // What one answer of a thousand rows takes: id, view, and a name of up to 12 bytes, or a little more.
    assert!(asked * 24_000 < 2 * bound + 1000 * 24_000 / 10, "{asked} answers were asked for");
    feed.end();
    let (all, error) = drain(&mut rows).await;
    assert_eq!((all.len(), error), ((1 + 30 * 99) * 1000, None));
}
