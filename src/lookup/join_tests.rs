//! CONFORMANCE, keys and joins, through the whole stage.

use datafusion::arrow::array::{AsArray, Int64Array, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{binary, lit};
use futures::StreamExt;

use super::super::policy::{CachePolicy, LookupPolicy, Ordering, PartialCache};
use super::super::scripted::*;
use super::super::{JoinKind, LookupExec, LookupTable};
use super::*;
use crate::pg_type::PgType;
use crate::store::file::{FileStore, ReadRows};
use crate::store::{Conditions, LookupShape};

fn at_once() -> Arc<ScriptedStore> {
    ScriptedStore::new(|_| Reply::Backwards)
}

fn policy() -> LookupPolicy {
    LookupPolicy { batch_size: 1000.try_into().unwrap(), ..super::super::scripted::policy(Ordering::Ordered) }
}

/// The rows of `join` over one batch of these keys, and the requests made.
async fn joined(join: LookupJoin, keys: &[Option<i64>]) -> (Vec<String>, Vec<Vec<i64>>) {
    let store = at_once();
    let table = table(&store, &join.policy);
    let (mut feed, mut rows) = run(&table, join);
    feed.send(keys.iter().copied()).end();
    let (rows, error) = drain(&mut rows).await;
    assert_eq!(error, None);
    (rows, store.requests())
}

fn view(text: &str) -> Arc<dyn PhysicalExpr> {
    lit(datafusion::scalar::ScalarValue::Utf8View(Some(text.to_string())))
}

fn compare(left: (&str, usize), operator: Operator, right: Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
    let types = [("n", DataType::Int64), ("k", DataType::Int64), ("id", DataType::Int64), ("name", DataType::Utf8View)];
    let schema = Schema::new(types.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec());
    Some(binary(column(left.0, left.1), operator, right, &schema).unwrap())
}

#[tokio::test(start_paused = true)]
async fn null_keys_find_nothing_and_cost_no_request() {
    let keys = [None, Some(1), None];
    assert_eq!(
        joined(left_join(policy()), &keys).await,
        (vec!["0:-".into(), "1:1/0".into(), "2:-".into()], vec![vec![1]])
    );
    let inner = LookupJoin { kind: JoinKind::Inner, ..left_join(policy()) };
    assert_eq!(joined(inner, &keys).await, (vec!["1:1/0".into()], vec![vec![1]]));
    assert_eq!(joined(left_join(policy()), &[None]).await.1, Vec::<Vec<i64>>::new());
}

#[tokio::test(start_paused = true)]
async fn null_in_any_part_of_a_composite_key_finds_nothing() {
    let mut join = left_join(policy());
    join.shape = Arc::new(LookupShape { key_columns: vec![0, 0], columns: vec![1], filters: Conditions::default() });
    join.keys = vec![column("n", 0), column("k", 1)];
    join.projection = vec![0, 2];
    // Keys are (0, 5), (1, NULL), (2, 5), (3, 5); the store looks at the first part only.
    let (rows, requests) = joined(join, &[Some(5), None, Some(5), Some(5)]).await;
    assert_eq!((rows.len(), rows[1].as_str(), requests), (4, "1:-", vec![vec![0, 2, 3]]));
}

#[tokio::test(start_paused = true)]
async fn gate_spares_requests_and_key_evaluation() {
    let mut join = left_join(policy());
    join.gate = compare(("k", 1), Operator::NotEq, lit(0_i64));
    let schema = input_schema();
    join.keys = vec![binary(lit(100_i64), Operator::Divide, column("k", 1), &schema).unwrap()];
    let keys = [Some(0), Some(50), None];
    assert_eq!(joined(join.clone(), &keys).await, (vec!["0:-".into(), "1:2/0".into(), "2:-".into()], vec![vec![2]]));
    join.kind = JoinKind::Inner;
    assert_eq!(joined(join.clone(), &keys).await.0, ["1:2/0"]);

    join.gate = None;
    let store = at_once();
    let table = table(&store, &join.policy);
    let (mut feed, mut rows) = run(&table, join);
    feed.send([50]).send([0]);
    let (rows, error) = drain(&mut rows).await;
    assert_eq!(rows, ["0:2/0"], "rows before the failing batch leave first");
    assert_eq!(error.unwrap().sqlstate(), "22012");
}

#[tokio::test(start_paused = true)]
async fn several_matches_come_in_the_stores_order_before_the_next_row() {
    let (rows, requests) = joined(left_join(policy()), &[Some(3000), Some(-1), Some(2000), Some(3000)]).await;
    let expected = "0:3000/0 0:3000/1 0:3000/2 1:- 2:2000/0 2:2000/1 3:3000/0 3:3000/1 3:3000/2";
    assert_eq!(rows.join(" "), expected);
    assert_eq!(requests, [[-1, 2000, 3000]]);
}

#[tokio::test(start_paused = true)]
async fn residual_applies_to_each_match_before_left_pads() {
    let mut join = left_join(policy());
    join.residual = compare(("name", 3), Operator::NotEq, view("3000/0"));
    join.residual = Some(
        binary(
            join.residual.unwrap(),
            Operator::And,
            compare(("n", 0), Operator::Lt, lit(2_i64)).unwrap(),
            &Schema::new(vec![Field::new("n", DataType::Int64, true); 4]),
        )
        .unwrap(),
    );
    let keys = [Some(3000), Some(-5), Some(7), None];
    assert_eq!(joined(join.clone(), &keys).await.0.join(" "), "0:3000/1 0:3000/2 1:- 2:- 3:-");
    join.kind = JoinKind::Inner;
    assert_eq!(joined(join, &keys).await.0.join(" "), "0:3000/1 0:3000/2");
}

#[tokio::test(start_paused = true)]
async fn matched_row_of_nulls_is_a_match() {
    let ids = Arc::new(Int64Array::from(vec![Some(1), Some(2), None]));
    let names = Arc::new(StringViewArray::from(vec![None, Some("two"), Some("none")]));
    let fields = [PgType::Int8.field("id", true), PgType::Text.field("name", true)];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let people = RecordBatch::try_new(Arc::clone(&schema), vec![ids, names]).unwrap();
    let read: ReadRows = Arc::new(move || Ok(vec![people.clone()]));
    let store = Arc::new(FileStore::try_new("people".to_string(), None, schema, read).unwrap());
    for (cache, kind, expected) in [
        (CachePolicy::None, JoinKind::Inner, "0:- 1:two"),
        (CachePolicy::None, JoinKind::Left, "0:- 1:two 2:- 3:-"),
        (CachePolicy::Partial(PartialCache::default()), JoinKind::Inner, "0:- 1:two"),
    ] {
        let policy = LookupPolicy { cache, ..policy() };
        let table = LookupTable::new("people".to_string(), Arc::clone(&store) as _, policy.clone());
        let mut join = LookupJoin { kind, projection: vec![0, 2], ..left_join(policy) };
        join.shape = Arc::new(LookupShape { key_columns: vec![0], columns: vec![1], filters: Conditions::default() });
        for _ in 0..2 {
            let (mut feed, mut rows) = run(&table, join.clone());
            feed.send([Some(1), Some(2), Some(3), None]).end();
            let (rows, error) = drain(&mut rows).await;
            assert_eq!((rows.join(" ").as_str(), error), (expected, None));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_matches_leave_in_bounded_batches() {
    let key = (MOST_ROWS as i64 * 2 + 5) * 1000;
    for with_residual in [false, true] {
        let mut join = left_join(policy());
        if with_residual {
            // Only the very last match of the long row stays, and none of the other's.
            let last = format!("{key}/{}", MOST_ROWS * 2 + 4);
            join.residual = compare(("name", 3), Operator::Eq, view(&last));
        }
        let store = at_once();
        let table = table(&store, &join.policy);
        let (mut feed, mut stream) = run(&table, join);
        feed.send([key, 5]).end();
        let mut sizes = Vec::new();
        let mut last = String::new();
        while let Some(batch) = stream.next().await {
            let batch = batch.unwrap();
            sizes.push(batch.num_rows());
            last = shown(&batch).pop().unwrap();
        }
        match with_residual {
            false => assert_eq!((sizes, last.as_str()), (vec![MOST_ROWS, MOST_ROWS, 6], "1:5/0")),
            true => assert_eq!((sizes, last.as_str()), (vec![2], "1:-")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn projection_may_reorder_repeat_and_drop_columns() {
    let mut join = left_join(policy());
    join.shape = Arc::new(LookupShape { key_columns: vec![0], columns: vec![1], filters: Conditions::default() });
    join.projection = vec![1, 1, 0, 2];
    let store = at_once();
    let table = table(&store, &join.policy);
    let (mut feed, mut stream) = run(&table, join);
    feed.send([8]).end();
    let batch = stream.next().await.unwrap().unwrap();
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["k", "k", "n", "name"]);
    assert_eq!(batch.column(2).as_primitive::<Int64Type>().value(0), 0);
    assert_eq!(batch.column(3).as_string_view().value(0), "8/0");
}

#[tokio::test(start_paused = true)]
async fn joins_without_columns_still_count_their_rows() {
    for ordering in Ordering::ALL {
        let mut join = left_join(LookupPolicy { ordering, ..policy() });
        join.kind = JoinKind::Inner;
        join.shape =
            Arc::new(LookupShape { key_columns: vec![0], columns: Vec::new(), filters: Conditions::default() });
        join.projection = Vec::new();
        let store = at_once();
        let table = table(&store, &join.policy);
        let (mut feed, mut stream) = run(&table, join);
        feed.send([1, -1, 2000, 1]).end();
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            rows += batch.unwrap().num_rows();
        }
        assert_eq!(rows, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn same_rows_in_both_orders_at_every_batch_size() {
    let keys: Vec<Option<i64>> =
        (0..300).map(|n| (n % 7 != 0).then_some([n % 40 - 5, 2000 + n % 3][n as usize % 2])).collect();
    let mut all = Vec::new();
    for (ordering, batch_size) in
        Ordering::ALL.into_iter().flat_map(|ordering| [1, 7, 1000].map(|size| (ordering, size)))
    {
        let policy = LookupPolicy { ordering, batch_size: batch_size.try_into().unwrap(), ..policy() };
        let store = ScriptedStore::new(|keys| Reply::After(milliseconds(keys[0].unsigned_abs() % 13)));
        let table = table(&store, &policy);
        let (mut feed, mut rows) = run(&table, left_join(policy));
        keys.chunks(37).for_each(|chunk| {
            feed.send(chunk.iter().copied());
        });
        feed.end();
        let (mut rows, error) = drain(&mut rows).await;
        assert_eq!(error, None);
        let position = |row: &String| row.split(':').next().unwrap().parse::<i64>().unwrap();
        if ordering == Ordering::Ordered {
            assert!(rows.is_sorted_by_key(position));
        }
        rows.sort();
        all.push(rows);
    }
    assert!(all[0].len() > 300 && all.iter().all(|rows| *rows == all[0]));
}

#[test]
fn joins_that_name_what_is_not_there_are_refused() {
    let store = at_once();
    let table = table(&store, &policy());
    let refused = |join: LookupJoin| {
        let (_feed, input) = Feed::new();
        LookupExec::try_new(input, Arc::clone(&table), join).map(|_| ()).unwrap_err().code()
    };
    use crate::error::Code::Internal;
    assert_eq!(refused(LookupJoin { projection: vec![4], ..left_join(policy()) }), Internal);
    assert_eq!(refused(LookupJoin { keys: Vec::new(), ..left_join(policy()) }), Internal);
    let residual = Some(column("nothing", 9));
    assert_eq!(refused(LookupJoin { residual, ..left_join(policy()) }), Internal);
    let shape = Arc::new(LookupShape { key_columns: vec![2], columns: vec![], filters: Conditions::default() });
    assert_eq!(refused(LookupJoin { shape, ..left_join(policy()) }), Internal);
}
