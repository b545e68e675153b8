//! A store that tells of changes by a test's word, on the paused clock.

use std::num::NonZeroU64;

use datafusion::arrow::array::{ArrayRef, Int64Array, StringViewArray};
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::SendableRecordBatchStream;
use tokio::sync::mpsc;

use super::super::policy::{CachePolicy, LookupPolicy, Ordering, PartialCache, ToldBy};
use super::super::scripted::*;
use super::super::{LookupJoin, LookupTable};
use super::*;
use crate::store::{Conditions, LookupShape};

type Teller = mpsc::UnboundedSender<Result<Change, StoreError>>;

fn hearing() -> LookupPolicy {
    let told_by = Some(ToldBy::Listen { channel: "c".to_string() });
    let cache = PartialCache { max_rows: NonZeroU64::new(1000), told_by, ..PartialCache::default() };
    LookupPolicy {
        cache: CachePolicy::Partial(cache),
        batch_size: 1000.try_into().unwrap(),
        ..policy(Ordering::Ordered)
    }
}

/// A table that has heard that all is told from now on, and the one who tells it.
async fn listening(store: &Arc<ScriptedStore>) -> (Arc<LookupTable>, Teller) {
    let table = table(store, &hearing());
    let teller = next_teller(store).await;
    tell(&teller, Change::Begun).await;
    (table, teller)
}

/// The table has begun to listen, perhaps after a pause.
async fn next_teller(store: &Arc<ScriptedStore>) -> Teller {
    loop {
        match store.take_teller() {
            Some(teller) => return teller,
            None => tokio::time::sleep(milliseconds(1)).await,
        }
    }
}

async fn tell(teller: &Teller, change: Change) {
    teller.send(Ok(change)).unwrap();
    settled().await;
}

async fn settled() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn ids(values: &[i64]) -> Change {
    Change::Keys { columns: vec![0], keys: vec![Arc::new(Int64Array::from(values.to_vec())) as ArrayRef] }
}

async fn query(table: &Arc<LookupTable>, keys: &[i64]) {
    query_with(table, left_join(table.policy().clone()), keys).await;
}

async fn query_with(table: &Arc<LookupTable>, join: LookupJoin, keys: &[i64]) {
    let (mut feed, mut rows) = run(table, join);
    feed.send(keys.iter().copied()).end();
    assert!(drain(&mut rows).await.1.is_none());
}

/// The names of the rows that leave within two milliseconds.
async fn ready_soon(rows: &mut SendableRecordBatchStream) -> Vec<String> {
    let mut left = ready(rows).await;
    tokio::time::sleep(milliseconds(2)).await;
    left.extend(ready(rows).await);
    left.iter().filter_map(|row| row.split_once(':')).map(|(_, name)| name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn keys_that_have_changed_are_asked_for_again_and_the_others_stay() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(1)));
    let (table, teller) = listening(&store).await;
    query(&table, &[1, 2, -3]).await;
    query(&table, &[1, 2, -3]).await;
    assert_eq!(store.requests(), [vec![-3, 1, 2]], "misses are cached as well");
    tell(&teller, ids(&[2, -3, 99])).await;
    query(&table, &[1, 2, -3]).await;
    assert_eq!(store.requests()[1..], [vec![-3, 2]]);
    tell(&teller, Change::Everything).await;
    query(&table, &[1, 2, -3]).await;
    assert_eq!(store.requests()[2..], [vec![-3, 1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_runs_on_sees_what_has_changed() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(1)));
    let (table, teller) = listening(&store).await;
    let (mut feed, mut rows) = run(&table, left_join(table.policy().clone()));
    // A key goes into the operator's own copy with its second hit.
    for _ in 0..5 {
        feed.send([7]);
        assert_eq!(ready_soon(&mut rows).await, ["7/0"]);
    }
    assert_eq!(store.requests().len(), 1);
    for told in 1..4 {
        tell(&teller, ids(&[7])).await;
        feed.send([7]);
        assert_eq!(ready_soon(&mut rows).await, ["7/0"]);
        assert_eq!(store.requests().len(), 1 + told);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_under_way_when_its_key_changes_is_neither_kept_nor_joined() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(100)));
    let (table, teller) = listening(&store).await;
    for (change, asked_again) in [(ids(&[1]), vec![1]), (Change::Everything, vec![1, 2])] {
        let before = store.requests().len();
        let first = SpawnedTask::spawn({
            let table = Arc::clone(&table);
            async move { query(&table, &[1, 2]).await }
        });
        tokio::time::sleep(milliseconds(50)).await;
        tell(&teller, change).await;
        // While the old answer is still to come, and after it.
        query(&table, &[1]).await;
        first.join().await.unwrap();
        query(&table, &[1, 2]).await;
        let all = store.requests()[before..].concat();
        let mut expected = [vec![1, 2], asked_again].concat();
        expected.sort_unstable();
        let mut all = all;
        all.sort_unstable();
        assert_eq!(all, expected);
        table.invalidate_all();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_by_other_columns_is_emptied() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(1)));
    let (table, teller) = listening(&store).await;
    query(&table, &[1]).await;
    // The primary key is the name: which ids have changed cannot be told.
    let names: ArrayRef = Arc::new(StringViewArray::from(vec!["5/0"]));
    tell(&teller, Change::Keys { columns: vec![1], keys: vec![Arc::clone(&names)] }).await;
    query(&table, &[1]).await;
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 2);
    // A part of a key does not tell either.
    let keys = vec![Arc::new(Int64Array::from(vec![9])) as ArrayRef, names];
    tell(&teller, Change::Keys { columns: vec![0, 1], keys }).await;
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_under_way_to_other_columns_is_neither_kept_nor_joined() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(100)));
    let (table, teller) = listening(&store).await;
    let first = SpawnedTask::spawn({
        let table = Arc::clone(&table);
        async move { query(&table, &[1]).await }
    });
    tokio::time::sleep(milliseconds(50)).await;
    let names: ArrayRef = Arc::new(StringViewArray::from(vec!["5/0"]));
    tell(&teller, Change::Keys { columns: vec![1], keys: vec![names] }).await;
    query(&table, &[1]).await;
    first.join().await.unwrap();
    assert_eq!(store.requests().len(), 2, "not joined");
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 2, "the second answer is kept");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_store_compares_in_its_own_way_empties_all_that_is_cached_by_it() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(1)));
    store.compares_in_its_own_way();
    let (table, teller) = listening(&store).await;
    query(&table, &[1, 2]).await;
    tell(&teller, ids(&[5])).await;
    query(&table, &[1, 2]).await;
    assert_eq!(store.requests(), [vec![1, 2], vec![1, 2]], "5 may be what the store takes for 1");
}

#[tokio::test(start_paused = true)]
async fn all_columns_that_are_asked_for_by_the_key_are_forgotten() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(1)));
    let (table, teller) = listening(&store).await;
    let narrow = |table: &LookupTable| {
        let shape = LookupShape { key_columns: vec![0], columns: vec![1], filters: Conditions::default() };
        LookupJoin { shape: Arc::new(shape), projection: vec![0, 1, 2], ..left_join(table.policy().clone()) }
    };
    query_with(&table, narrow(&table), &[1]).await;
    query(&table, &[1]).await;
    tell(&teller, ids(&[1])).await;
    query_with(&table, narrow(&table), &[1]).await;
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_cached_while_changes_are_not_told() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(1)));
    let table = table(&store, &hearing());
    let teller = next_teller(&store).await;
    query(&table, &[1]).await;
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 2, "nobody listens yet");
    tell(&teller, Change::Begun).await;
    query(&table, &[1]).await;
    query(&table, &[1]).await;
    assert_eq!(store.requests().len(), 3);
    assert!(table.heard().unwrap().since.is_some());

    let mut teller = Some(teller);
    let broken = StoreError::Unavailable { message: "broken".to_string() };
    for lost in [Some(broken), None] {
        let (before, last) = (store.requests().len(), teller.take().unwrap());
        if let Some(error) = lost {
            last.send(Err(error)).unwrap();
        }
        drop(last);
        settled().await;
        assert_eq!((table.counters().cached_rows, table.heard().unwrap().since), (0, None));
        query(&table, &[1]).await;
        query(&table, &[1]).await;
        assert_eq!(store.requests().len(), before + 2, "a message may have been missed");
        assert_eq!(table.counters().cached_rows, 0);
        let next = next_teller(&store).await;
        tell(&next, Change::Begun).await;
        query(&table, &[1]).await;
        query(&table, &[1]).await;
        assert_eq!((store.requests().len(), table.counters().cached_rows), (before + 3, 1));
        teller = Some(next);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_tell_is_asked_again_less_and_less_often() {
    let store = ScriptedStore::new(|_| Reply::After(milliseconds(1)));
    let table = table(&store, &hearing());
    let started = tokio::time::Instant::now();
    let mut at = Vec::new();
    for _ in 0..8 {
        drop(next_teller(&store).await);
        at.push(started.elapsed().as_millis() / 100);
    }
    let pauses: Vec<u128> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 20, 20]);
    // The task ends with the table.
    drop(table);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(store.take_teller().is_none());
}
