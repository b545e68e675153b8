//! The L1 through the whole stage, on the paused clock. That it answers at all shows when the shared cache is emptied
//! behind its back.

use std::num::NonZeroU64;
use std::time::Duration;

use datafusion::arrow::array::Int64Array;
use datafusion::execution::SendableRecordBatchStream;

use super::super::policy::{CachePolicy, LookupPolicy, Ordering, PartialCache};
use super::super::scripted::*;
use super::super::{JoinKind, LookupJoin, LookupTable};
use super::*;
use crate::store::{Conditions, LookupShape};

fn caching(cache: PartialCache) -> LookupPolicy {
    LookupPolicy {
        cache: CachePolicy::Partial(cache),
        batch_size: 1000.try_into().unwrap(),
        ..policy(Ordering::Ordered)
    }
}

/// Key 99 takes a second, the others no time.
fn store() -> Arc<ScriptedStore> {
    ScriptedStore::new(|keys| match keys.contains(&99) {
        true => Reply::After(Duration::from_secs(1)),
        false => Reply::After(Duration::ZERO),
    })
}

async fn send(feed: &mut Feed, rows: &mut SendableRecordBatchStream, keys: &[Option<i64>]) -> Vec<String> {
    feed.send(keys.iter().copied());
    let rows = ready(rows).await;
    rows.iter().map(|row| row.split_once(':').unwrap().1.to_string()).collect()
}

/// Keys 1, 2 and -1 have been hit often enough.
async fn warm(feed: &mut Feed, rows: &mut SendableRecordBatchStream) {
    for _ in 0..4 {
        let shown = send(feed, rows, &[Some(1), Some(2), Some(-1)]).await;
        assert!(shown.starts_with(&["1/0".to_string(), "2/0".to_string()]), "{shown:?}");
    }
}

/// Without a word to those who have copies.
fn empty(table: &LookupTable) {
    table.cache.as_ref().unwrap().forget_all(|| ());
}

#[tokio::test(start_paused = true)]
async fn hot_keys_are_answered_by_the_l1_until_something_is_forgotten() {
    for by_key in [true, false] {
        let store = store();
        let table = table(&store, &caching(PartialCache::default()));
        let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
        warm(&mut feed, &mut rows).await;
        empty(&table);
        let before = table.counters();
        let shown = send(&mut feed, &mut rows, &[Some(2), None, Some(-1), Some(1), Some(2)]).await;
        assert_eq!(shown, ["2/0", "-", "-", "1/0", "2/0"]);
        let counters = table.counters();
        assert_eq!((counters.rows - before.rows, counters.hits - before.hits), (4, 4));
        assert_eq!(store.requests(), [[-1, 1, 2]]);
        match by_key {
            true => table.invalidate_keys(&[Arc::new(Int64Array::from(vec![7]))]).unwrap(),
            false => table.invalidate_all(),
        };
        assert_eq!(send(&mut feed, &mut rows, &[Some(2), Some(1)]).await, ["2/0", "1/0"]);
        assert_eq!(store.requests(), [vec![-1, 1, 2], vec![1, 2]]);
    }
}

#[tokio::test(start_paused = true)]
async fn inner_join_drops_the_rows_that_the_l1_knows_to_have_no_match() {
    let table = table(&store(), &caching(PartialCache::default()));
    let inner = LookupJoin { kind: JoinKind::Inner, ..left_join(table.policy().clone()) };
    let (mut feed, mut rows) = run(&table, inner);
    warm(&mut feed, &mut rows).await;
    empty(&table);
    let shown = send(&mut feed, &mut rows, &[Some(-1), Some(2), None, Some(1)]).await;
    assert_eq!(shown, ["2/0", "1/0"]);
    assert!(send(&mut feed, &mut rows, &[Some(-1), None]).await.is_empty());
    assert_eq!(send(&mut feed, &mut rows, &[Some(-1), Some(5), Some(1)]).await, ["5/0", "1/0"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_l1_knows_waits_its_turn_where_rows_keep_their_order() {
    let cases = [(Ordering::Ordered, 0), (Ordering::KeyOrdered, 3), (Ordering::Unordered, 3)];
    for (ordering, at_once) in cases {
        let table = table(&store(), &LookupPolicy { ordering, ..caching(PartialCache::default()) });
        let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
        warm(&mut feed, &mut rows).await;
        assert!(send(&mut feed, &mut rows, &[Some(99)]).await.is_empty());
        let mut shown = send(&mut feed, &mut rows, &[Some(1), Some(2)]).await;
        shown.extend(send(&mut feed, &mut rows, &[Some(1), Some(99)]).await);
        assert_eq!(shown.len(), at_once, "{ordering}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        feed.end();
        let (rest, _) = drain(&mut rows).await;
        let rest = rest.iter().map(|row| row.split_once(':').unwrap().1.to_string());
        let all: Vec<String> = shown.into_iter().chain(rest).collect();
        let expected = match ordering {
            Ordering::Ordered => ["99/0", "1/0", "2/0", "1/0", "99/0"],
            Ordering::KeyOrdered | Ordering::Unordered => ["1/0", "2/0", "1/0", "99/0", "99/0"],
        };
        assert_eq!(all, expected, "{ordering}");
    }
}

#[tokio::test(start_paused = true)]
async fn leases_end_with_the_expiry_and_before_a_refresh() {
    let times = [
        PartialCache { expire_after_write: Some(Duration::from_secs(5)), ..PartialCache::default() },
        PartialCache { refresh_after: Some(Duration::from_secs(5)), ..PartialCache::default() },
        PartialCache { expire_after_access: Some(Duration::from_secs(10)), ..PartialCache::default() },
    ];
    for cache in times {
        let store = store();
        let table = table(&store, &caching(cache.clone()));
        let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
        warm(&mut feed, &mut rows).await;
        empty(&table);
        tokio::time::sleep(Duration::from_secs(4)).await;
        send(&mut feed, &mut rows, &[Some(1)]).await;
        assert_eq!(store.requests().len(), 1, "{cache:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        send(&mut feed, &mut rows, &[Some(1)]).await;
        assert_eq!(store.requests().len(), 2, "the cache is looked at again: {cache:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_come_once_and_keys_of_many_rows_do_not_enter() {
    let store = store();
    let table = table(&store, &caching(PartialCache::default()));
    let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
    // The first time is the store's answer, the second the first hit.
    for _ in 0..2 {
        send(&mut feed, &mut rows, &[Some(1)]).await;
    }
    for _ in 0..4 {
        assert_eq!(send(&mut feed, &mut rows, &[Some(2000)]).await, ["2000/0", "2000/1"]);
    }
    empty(&table);
    send(&mut feed, &mut rows, &[Some(1), Some(2000)]).await;
    assert_eq!(store.requests(), [vec![1], vec![2000], vec![1, 2000]]);
}

#[tokio::test(start_paused = true)]
async fn a_full_l1_is_dropped_and_fills_again() {
    let store = store();
    let cache = PartialCache { max_rows: NonZeroU64::new(80), ..PartialCache::default() };
    let table = table(&store, &caching(cache));
    let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
    for round in 0..20 {
        for _ in 0..4 {
            let keys: Vec<Option<i64>> = (0..6).map(|key| Some(round % 10 * 6 + key)).collect();
            let expected: Vec<String> = keys.iter().map(|key| format!("{}/0", key.unwrap())).collect();
            assert_eq!(send(&mut feed, &mut rows, &keys).await, expected);
        }
    }
    assert_eq!(store.requests().len(), 10);
}

fn l1_of(key_types: &[DataType]) -> (L1, super::super::keys::KeyFinder) {
    let fields: Vec<Field> =
        key_types.iter().enumerate().map(|(at, key)| Field::new(format!("k{at}"), key.clone(), true)).collect();
    let shape =
        LookupShape { key_columns: (0..fields.len()).collect(), columns: vec![0], filters: Conditions::default() };
    let variant = Arc::new(Variant::try_new(Arc::new(shape), &Schema::new(fields), &[]).unwrap());
    let join = left_join(LookupPolicy::default());
    let l1 = L1::new(Arc::clone(&variant), &PartialCache::default());
    (l1, super::super::keys::KeyFinder::new(&join, variant))
}

#[test]
fn keys_of_every_kind_are_found_by_value() {
    let types = [
        vec![DataType::Int64],
        vec![DataType::Int32],
        vec![DataType::Int16],
        vec![DataType::Date32],
        vec![DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))],
        vec![DataType::Utf8View],
        vec![DataType::Utf8],
        vec![DataType::Decimal128(12, 2)],
        vec![DataType::Int64, DataType::Utf8View],
    ];
    for key_types in types {
        let (mut l1, mut finder) = l1_of(&key_types);
        let column = |numbers: Vec<i32>, to: &DataType| {
            let numbers = datafusion::arrow::array::Int32Array::from(numbers);
            let wide = if *to == DataType::Int32 || *to == DataType::Date32 {
                numbers.data_type().clone()
            } else {
                DataType::Int64
            };
            cast(&cast(&numbers, &wide).unwrap(), to).unwrap()
        };
        let keys = |numbers: &[i32]| KeyColumns {
            columns: key_types.iter().map(|to| column(numbers.to_vec(), to)).collect(),
            valid: None,
        };
        let known = keys(&[5, -6, 7]);
        let found = finder.find(&known).unwrap();
        let source = RecordBatch::try_from_iter([("k0", Arc::clone(&known.columns[0]))]).unwrap();
        let found_at = |start| KeyMatch::Found { source: 0, start, rows: 1 };
        let leases: Vec<Lease> =
            (0..3).map(|position| Lease { position, until: 50 * NANOSECONDS, written: 1 }).collect();
        for _ in 0..2 {
            let matches = [found_at(0), found_at(1), found_at(2)];
            l1.admit((&found, &known), &leases, (&matches, std::slice::from_ref(&source)), 0).unwrap();
        }
        l1.probe(&known, 0, 0).unwrap();
        let hot = l1.probe(&keys(&[7, 5, 8, -6]), 0, 49 * NANOSECONDS).unwrap();
        assert_eq!((&hot.rows[..], hot.absent, hot.all_found), (&[2, 0, ABSENT, 1][..], 1, false), "{key_types:?}");
        assert_eq!(hot.arena.column(0), source.column(0), "{key_types:?}");
        assert_eq!(l1.probe(&known, 0, 50 * NANOSECONDS).unwrap().absent, 3, "the leases are over");
        assert_eq!(l1.probe(&known, 1, 0).unwrap().arena.num_rows(), 0, "something was forgotten");
    }
}
