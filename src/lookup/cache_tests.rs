//! CONFORMANCE, cache, and what queries share: through the whole stage, on the paused clock.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use datafusion::arrow::array::Int64Array;
use datafusion::logical_expr::{Expr, col};
use datafusion::physical_plan::ExecutionPlan;

use super::super::policy::{CachePolicy, LookupPolicy, Ordering, PartialCache};
use super::super::scripted::*;
use super::super::{LookupCounters, LookupExec, LookupJoin, LookupTable};
use super::*;
use crate::store::{Conditions, LookupShape, StoreError};

fn cached(max_rows: u64, rows: Option<u64>, misses: Option<u64>) -> LookupPolicy {
    LookupPolicy {
        cache: CachePolicy::Partial(PartialCache {
            max_rows: NonZeroU64::new(max_rows),
            expire_after_write: rows.map(Duration::from_secs),
            expire_misses_after: misses.map(Duration::from_secs),
            ..PartialCache::default()
        }),
        batch_size: 1000.try_into().unwrap(),
        ..policy(Ordering::Ordered)
    }
}

fn at_once() -> Arc<ScriptedStore> {
    ScriptedStore::new(|_| Reply::After(Duration::ZERO))
}

async fn query(table: &Arc<LookupTable>, keys: &[i64]) -> Vec<String> {
    let (rows, error) = try_query(table, left_join(table.policy().clone()), keys).await;
    assert_eq!(error, None);
    rows
}

async fn try_query(
    table: &Arc<LookupTable>,
    join: LookupJoin,
    keys: &[i64],
) -> (Vec<String>, Option<crate::error::Error>) {
    let (mut feed, mut rows) = run(table, join);
    feed.send(keys.iter().copied()).end();
    drain(&mut rows).await
}

#[tokio::test(start_paused = true)]
async fn hits_and_remembered_misses_cost_no_request() {
    let store = at_once();
    let table = table(&store, &cached(100, None, Some(10)));
    let expected = ["0:1/0", "1:-", "2:2000/0", "2:2000/1", "3:1/0"];
    assert_eq!(query(&table, &[1, -1, 2000, 1]).await, expected);
    assert_eq!(query(&table, &[1, -1, 2000, 1]).await, expected);
    assert_eq!(query(&table, &[1, 3]).await, ["0:1/0", "1:3/0"]);
    assert_eq!(store.requests(), [vec![-1, 1, 2000], vec![3]]);
    let cached_bytes = table.counters().cached_bytes;
    let counters = LookupCounters {
        rows: 10,
        hits: 5,
        misses: 5,
        requests: 2,
        keys: 4,
        cached_rows: 5,
        cached_bytes,
        ..Default::default()
    };
    assert_eq!(table.counters(), counters);
    assert!((1000..5000).contains(&cached_bytes), "{cached_bytes}");
}

#[tokio::test(start_paused = true)]
async fn entries_expire_after_write_and_misses_on_their_own() {
    let store = at_once();
    let table = table(&store, &cached(100, Some(60), Some(10)));
    query(&table, &[1, -1]).await;
    // Up to a tenth earlier, never later.
    for (wait, request) in [(8, None), (2, Some(vec![-1])), (43, Some(vec![-1])), (7, Some(vec![1]))] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let before = store.requests().len();
        assert_eq!(query(&table, &[1, -1]).await, ["0:1/0", "1:-"]);
        assert_eq!(store.requests().get(before).cloned(), request, "after {wait} s more");
    }
}

#[tokio::test(start_paused = true)]
async fn misses_are_not_remembered_without_a_lifetime() {
    let store = at_once();
    let table = table(&store, &cached(100, None, None));
    query(&table, &[-1, 1]).await;
    query(&table, &[-1, 1]).await;
    assert_eq!(store.requests(), [vec![-1, 1], vec![-1]]);
}

#[tokio::test(start_paused = true)]
async fn rows_are_bounded_and_a_larger_answer_is_served_but_not_kept() {
    let store = at_once();
    let table = table(&store, &cached(10, None, None));
    for start in 0..20 {
        query(&table, &(start * 50..start * 50 + 50).collect::<Vec<_>>()).await;
        assert!(table.counters().cached_rows <= 10);
    }
    assert_eq!(query(&table, &[11_000]).await.len(), 11);
    assert_eq!(query(&table, &[11_000]).await.len(), 11);
    assert_eq!(store.requests()[20..], [[11_000], [11_000]]);
}

#[tokio::test(start_paused = true)]
async fn failed_lookups_are_never_cached() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let store = ScriptedStore::new(move |_| match is_broken.load(SeqCst) {
        true => {
            Reply::Fail(Duration::ZERO, StoreError::Failed { message: "no".into(), sqlstate: Some("XX001".into()) })
        }
        false => Reply::After(Duration::ZERO),
    });
    let table = table(&store, &cached(100, None, Some(100)));
    let (rows, error) = try_query(&table, left_join(table.policy().clone()), &[1]).await;
    assert_eq!((rows, error.unwrap().message()), (vec![], "lookup in \"customers\" failed: no"));
    broken.store(false, SeqCst);
    assert_eq!(query(&table, &[1]).await, ["0:1/0"]);
}

#[tokio::test(start_paused = true)]
async fn other_columns_are_never_served_from_an_entry() {
    let store = at_once();
    let table = table(&store, &cached(100, None, None));
    let narrow = |columns: Vec<usize>, projection| LookupJoin {
        shape: Arc::new(LookupShape { key_columns: vec![0], columns, filters: Conditions::default() }),
        projection,
        ..left_join(table.policy().clone())
    };
    for (columns, projection, requests) in
        [(vec![0], vec![0], 1), (vec![1], vec![0, 2], 2), (vec![0, 1], vec![0, 3], 3), (vec![1], vec![0, 2], 3)]
    {
        let (mut feed, mut rows) = run(&table, narrow(columns, projection.clone()));
        feed.send([1]).end();
        let batch = futures::StreamExt::next(&mut rows).await.unwrap().unwrap();
        assert_eq!((batch.num_rows(), store.requests().len()), (1, requests));
        if projection.len() == 2 {
            assert_eq!(shown(&batch), ["0:1/0"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answer_under_other_conditions_is_never_served_from_an_entry() {
    let store = at_once();
    let table = table(&store, &cached(100, None, None));
    let with = |columns: Vec<usize>, filters: Vec<Expr>| LookupJoin {
        projection: (0..columns.len() + 2).collect(),
        shape: Arc::new(LookupShape { key_columns: vec![0], columns, filters: filters.into() }),
        ..left_join(table.policy().clone())
    };
    let condition = || vec![col("name").is_not_null()];
    for (join, requests) in [
        (with(vec![0, 1], condition()), 1),
        (with(vec![0, 1], Vec::new()), 2),
        (with(vec![1], vec![col("name").is_null()]), 3),
        (with(vec![1], condition()), 3),
        (with(vec![1], Vec::new()), 3),
    ] {
        assert_eq!(try_query(&table, join, &[1]).await, (vec!["0:1/0".to_string()], None));
        assert_eq!(store.requests().len(), requests);
    }
}

#[tokio::test(start_paused = true)]
async fn answer_asked_for_before_an_invalidation_is_not_kept() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(50)));
    let table = table(&store, &cached(100, None, None));
    let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
    feed.send([1]).end();
    ready(&mut rows).await;
    table.invalidate_all();
    assert_eq!(drain(&mut rows).await.0, ["0:1/0"]);
    assert_eq!(query(&table, &[1]).await, ["0:1/0"]);
    assert_eq!(store.requests(), [[1], [1]]);
}

#[tokio::test(start_paused = true)]
async fn query_that_goes_on_sees_what_was_forgotten() {
    let store = at_once();
    let table = table(&store, &cached(1000, None, None));
    let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
    for requests in 1..4 {
        for _ in 0..20 {
            feed.send([1]);
            assert_eq!(ready(&mut rows).await.len(), 1);
        }
        assert_eq!(store.requests().len(), requests);
        match requests {
            1 => assert_eq!(table.invalidate_all(), 1),
            _ => assert_eq!(table.invalidate_keys(&[Arc::new(Int64Array::from(vec![1]))]).unwrap(), 1),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_asked_for_before_an_invalidation_are_neither_kept_nor_joined() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(50)));
    let table = table(&store, &cached(100, None, None));
    query(&table, &[2]).await;
    let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
    feed.send([1]).end();
    ready(&mut rows).await;
    table.invalidate_all();
    let (mut later_feed, mut later) = run(&table, left_join(table.policy().clone()));
    later_feed.send([1]).end();
    ready(&mut later).await;
    assert_eq!(drain(&mut rows).await.0, ["0:1/0"]);
    assert_eq!(drain(&mut later).await.0, ["0:1/0"]);
    assert_eq!(query(&table, &[2]).await, ["0:2/0"]);
    assert_eq!(store.requests(), [[2], [1], [1], [2]]);
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 4, "the later answer was kept");
    assert_eq!((table.tasks(), table.flights.entries()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_key_is_one_key_in_one_request_for_all_queries() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(50)));
    let uncached = LookupPolicy { batch_size: 1000.try_into().unwrap(), ..policy(Ordering::Ordered) };
    let table = table(&store, &uncached);
    let mut queries: Vec<_> = (0..10).map(|_| run(&table, left_join(uncached.clone()))).collect();
    for (feed, rows) in &mut queries {
        feed.send([1, 2, 1]).send([2, 1]).end();
        ready(rows).await;
    }
    for (_, rows) in &mut queries {
        assert_eq!(drain(rows).await.0, ["0:1/0", "1:2/0", "2:1/0", "3:2/0", "4:1/0"]);
    }
    assert_eq!(store.requests(), [[1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn keys_gather_while_slots_are_busy_and_leave_in_full_requests() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(10)));
    let policy = LookupPolicy {
        batch_size: 3.try_into().unwrap(),
        max_in_flight: 2.try_into().unwrap(),
        ..policy(Ordering::Ordered)
    };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy.clone()));
    let (mut other_feed, mut other) = run(&table, left_join(policy));
    feed.send([9]).send([8]).send([7]).send([6]).end();
    ready(&mut rows).await;
    other_feed.send([5, 6, 4]).end();
    ready(&mut other).await;
    assert_eq!(drain(&mut rows).await.0.len(), 4);
    assert_eq!(drain(&mut other).await.0.len(), 3);
    assert_eq!(store.requests(), [vec![9], vec![8], vec![5, 6, 7], vec![4]]);
    assert_eq!(store.most_running(), 2);
}

#[tokio::test(start_paused = true)]
async fn explain_shows_the_stage_with_its_bounds() {
    let store = at_once();
    let table = table(&store, &LookupPolicy { cache: cached(9, Some(60), Some(10)).cache, ..LookupPolicy::default() });
    let (_feed, input) = Feed::new();
    let exec = LookupExec::try_new(input, Arc::clone(&table), left_join(table.policy().clone())).unwrap();
    let shown = datafusion::physical_plan::displayable(&exec).one_line().to_string();
    let expected = "LookupExec: table=customers, type=Left, on=[k@1 = id], ordering=ordered, pushed=[], residual=[], \
        batch_size=1000, max_in_flight=8, capacity=10000, timeout=5s, on_failure=fail, \
        cache=partial(max_rows=9, expire_after_write=1m, expire_misses_after=10s)";
    assert_eq!(shown.trim(), expected);
    assert!(exec.properties().boundedness.is_unbounded());
    assert!(exec.schema().field(2).is_nullable());
}

#[tokio::test(start_paused = true)]
async fn metrics_count_rows_hits_misses_and_requests() {
    let store = at_once();
    let table = table(&store, &cached(100, None, None));
    query(&table, &[5]).await;
    let (mut feed, input) = Feed::new();
    let exec = LookupExec::try_new(input, Arc::clone(&table), left_join(table.policy().clone())).unwrap();
    feed.send([Some(5), None, Some(6), Some(6)]).end();
    drain(&mut exec.execute(0, Arc::default()).unwrap()).await;
    let metrics = exec.metrics().unwrap().aggregate_by_name();
    let counted = ["rows", "hits", "misses", "requests", "timeouts"]
        .map(|name| metrics.sum_by_name(name).map_or(0, |value| value.as_usize()));
    assert_eq!((counted, metrics.output_rows()), ([3, 1, 2, 1, 0], Some(4)));
}
