use datafusion::arrow::array::{Float64Array, StringViewArray};
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use futures::FutureExt;

use super::super::{Conditions, LookupShape};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// `id bigint` is the key; then `name text`, `tier bigint`, `nth bigint`, `luck double precision`.
fn customers(behaviour: Behaviour) -> SimulatedStore {
    customers_of_seed(42, behaviour)
}

fn customers_of_seed(seed: u64, behaviour: Behaviour) -> SimulatedStore {
    let columns = [("name", "'customer ' || id"), ("tier", "id % 3"), ("nth", "n"), ("luck", "random()")];
    let columns = columns.map(|(name, sql)| (name.to_string(), sql.to_string())).to_vec();
    let config = SimulatedConfig { seed, key: vec![("id".to_string(), PgType::Int8)], columns, behaviour };
    SimulatedStore::try_new("customers".to_string(), config).unwrap()
}

fn request(key_columns: &[usize], columns: &[usize], keys: Vec<ArrayRef>) -> LookupRequest {
    let shape =
        LookupShape { key_columns: key_columns.to_vec(), columns: columns.to_vec(), filters: Conditions::default() };
    LookupRequest { shape: Arc::new(shape), keys, max_answer_bytes: u64::MAX }
}

fn ids(ids: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(ids))
}

/// Asks for the name of one customer.
fn one(id: i64) -> LookupRequest {
    request(&[0], &[1], vec![ids([id])])
}

fn names(answer: &Answer) -> Vec<String> {
    let names = answer.rows.column(0).as_string_view().iter().map(|name| name.unwrap().to_string());
    names.collect()
}

/// The positions of those of the customers 0 to 9999 that have rows, once for each row.
fn found(store: &SimulatedStore) -> Vec<u32> {
    store.answer(&request(&[0], &[], vec![ids(0..10_000)])).unwrap().key_of_row.values().to_vec()
}

#[tokio::test]
async fn rows_are_computed_from_their_key() {
    let store = customers(Behaviour { rows_per_key: NonZeroUsize::new(2).unwrap(), ..Behaviour::default() });
    let answer = store.lookup(&request(&[0], &[1, 0, 3], vec![ids([7, -1])])).await.unwrap();
    assert_eq!(names(&answer), ["customer 7", "customer 7", "customer -1", "customer -1"]);
    assert_eq!(answer.rows.column(1).as_primitive::<Int64Type>().values(), &[7, 7, -1, -1]);
    assert_eq!(answer.rows.column(2).as_primitive::<Int64Type>().values(), &[1, 2, 1, 2]);
    assert_eq!(answer.key_of_row.values(), &[0, 0, 1, 1]);
    assert_eq!(answer.rows.schema().as_ref(), &store.schema().project(&[1, 0, 3]).unwrap());
    let counted = store.lookup(&request(&[0], &[], vec![ids([7])])).await.unwrap();
    assert_eq!((counted.rows.num_columns(), counted.rows.num_rows()), (0, 2));
    assert_eq!(store.requests(), 2);
}

#[tokio::test]
async fn keys_may_be_composite_and_come_in_any_order() {
    let config = SimulatedConfig {
        seed: 0,
        key: vec![("region".to_string(), PgType::Text), ("id".to_string(), PgType::Int8)],
        columns: vec![("label".to_string(), "region || '/' || id".to_string())],
        behaviour: Behaviour { misses: 0.5, ..Behaviour::default() },
    };
    let store = SimulatedStore::try_new("t".to_string(), config).unwrap();
    let regions: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..100).map(|_| "north")));
    let straight = store.lookup(&request(&[0, 1], &[2], vec![Arc::clone(&regions), ids(0..100)])).await.unwrap();
    let turned = store.lookup(&request(&[1, 0], &[2], vec![ids(0..100), regions])).await.unwrap();
    assert_eq!(names(&straight), names(&turned));
    assert!(names(&straight).len() < 100 && names(&straight).iter().all(|label| label.starts_with("north/")));
}

#[tokio::test]
async fn columns_beside_the_key_are_compared_as_well() {
    let store = customers(Behaviour::default());
    let asked = request(&[2, 0], &[1], vec![ids([1, 1, 2]), ids([4, 5, 5])]);
    let answer = store.lookup(&asked).await.unwrap();
    assert_eq!(names(&answer), ["customer 4", "customer 5"]);
    assert_eq!(answer.key_of_row.values(), &[0, 2]);
}

#[test]
fn missing_and_doubled_keys_are_always_the_same() {
    let behaviour = Behaviour { misses: 0.3, duplicates: 0.5, ..Behaviour::default() };
    let all = found(&customers(behaviour.clone()));
    assert_eq!(all, found(&customers(behaviour.clone())));
    assert_ne!(all, found(&customers_of_seed(43, behaviour.clone())));
    let one_by_one = (0..200).flat_map(|id| {
        let rows = customers(behaviour.clone()).answer(&one(id)).unwrap().rows.num_rows();
        vec![id as u32; rows]
    });
    let first: Vec<u32> = all.iter().copied().filter(|id| *id < 200).collect();
    assert_eq!(one_by_one.collect::<Vec<_>>(), first, "with whom a key is asked for is no matter");
    let distinct = all.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!((6800..7200).contains(&distinct), "{distinct}");
    assert!((10_100..10_900).contains(&all.len()), "{}", all.len());
}

#[test]
fn equal_keys_are_equal_whatever_their_bits() {
    let config = SimulatedConfig {
        seed: 0,
        key: vec![("f".to_string(), PgType::Float8)],
        columns: vec![],
        behaviour: Behaviour { misses: 0.5, ..Behaviour::default() },
    };
    let store = SimulatedStore::try_new("t".to_string(), config).unwrap();
    let rows = |value: f64| {
        let key: ArrayRef = Arc::new(Float64Array::from(vec![value]));
        store.answer(&request(&[0], &[], vec![key])).unwrap().rows.num_rows()
    };
    assert_eq!(rows(0.0), rows(-0.0));
    assert_eq!(rows(f64::NAN), rows(f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 1)));
}

#[test]
fn random_depends_on_key_and_row_alone() {
    let store = customers(Behaviour { rows_per_key: NonZeroUsize::new(2).unwrap(), ..Behaviour::default() });
    let luck = |keys: ArrayRef| {
        let answer = store.answer(&request(&[0], &[4], vec![keys])).unwrap();
        answer.rows.column(0).as_primitive::<Float64Type>().values().to_vec()
    };
    let all = luck(ids(0..100));
    assert_eq!(luck(ids([50])), all[100..102]);
    assert_ne!(all[100], all[101]);
}

#[tokio::test(start_paused = true)]
async fn answers_come_after_the_latency() {
    let store = customers(Behaviour { latency: Latency::Fixed(SECOND / 20), ..Behaviour::default() });
    let began = Instant::now();
    assert_eq!(names(&store.lookup(&one(1)).await.unwrap()), ["customer 1"]);
    assert_eq!(began.elapsed(), SECOND / 20);
    let latency = Latency::Uniform { from: SECOND, to: 2 * SECOND };
    let elapsed = |store: SimulatedStore| async move {
        let began = Instant::now();
        store.lookup(&one(1)).await.unwrap();
        began.elapsed()
    };
    let first = elapsed(customers(Behaviour { latency, ..Behaviour::default() })).await;
    let again = elapsed(customers(Behaviour { latency, ..Behaviour::default() })).await;
    assert!(first == again && (SECOND..2 * SECOND).contains(&first), "{first:?}, {again:?}");
}

#[tokio::test(start_paused = true)]
async fn errors_come_to_their_share_of_requests_as_declared() {
    for error in SimulatedError::ALL {
        let store = customers(Behaviour { errors: 0.2, error, ..Behaviour::default() });
        let mut failed = 0;
        for id in 0..1000 {
            match store.lookup(&one(id)).await {
                Ok(_) => {}
                Err(StoreError::Unavailable { .. }) if error == SimulatedError::Unavailable => failed += 1,
                Err(StoreError::Failed { .. }) if error == SimulatedError::Failed => failed += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!((150..250).contains(&failed), "{failed}");
        assert_eq!(error.to_store_error().is_transient(), error == SimulatedError::Unavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_requests_are_never_answered_and_leave_when_dropped() {
    let store = customers(Behaviour { stalls: 1.0, ..Behaviour::default() });
    let asked = one(1);
    let mut lookup = store.lookup(&asked);
    assert!((&mut lookup).now_or_never().is_none());
    assert_eq!(store.running(), 1);
    assert!(tokio::time::timeout(3600 * SECOND, lookup).await.is_err());
    assert_eq!((store.running(), store.requests()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn requests_fail_in_an_outage_and_those_under_way_with_it() {
    let behaviour = Behaviour {
        latency: Latency::Fixed(2 * SECOND),
        outages: vec![10 * SECOND..20 * SECOND, 30 * SECOND..31 * SECOND],
        ..Behaviour::default()
    };
    let store = customers(behaviour);
    let began = Instant::now();
    // When a request comes, when it ends, and whether well.
    for (at, ends, is_answered) in [(0, 2, true), (9, 11, false), (11, 11, false), (19, 19, false), (20, 22, true)] {
        tokio::time::sleep_until(began + at * SECOND).await;
        let answer = store.lookup(&one(1)).await;
        assert_eq!((began.elapsed(), answer.is_ok()), (ends * SECOND, is_answered), "at {at} s: {answer:?}");
        assert!(answer.err().is_none_or(|error| error.is_transient()));
    }
}

#[tokio::test]
async fn bad_keys_fail_whoever_asks_for_them_and_no_others() {
    let store = customers(Behaviour { bad_keys: 0.1, ..Behaviour::default() });
    let is_bad = |id: i64| store.answer(&one(id)).is_err();
    let (bad, good): (Vec<i64>, Vec<i64>) = (0..1000).partition(|id| is_bad(*id));
    assert!((60..140).contains(&bad.len()), "{}", bad.len());
    assert_eq!(store.lookup(&request(&[0], &[1], vec![ids(good.clone())])).await.unwrap().rows.num_rows(), good.len());
    let error = store.lookup(&request(&[0], &[1], vec![ids(good.into_iter().chain([bad[0]]))])).await.unwrap_err();
    assert!(error.is_about_keys() && !error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn answer_beyond_max_answer_bytes_is_refused_before_it_is_made_to_the_end() {
    let store = customers(Behaviour { rows_per_key: NonZeroUsize::new(1 << 40).unwrap(), ..Behaviour::default() });
    let mut asked = one(1);
    asked.max_answer_bytes = 1 << 20;
    assert!(matches!(store.lookup(&asked).await, Err(StoreError::TooLarge { max_answer_bytes: 1_048_576 })));
    // A position and a text of ten bytes.
    let store = customers(Behaviour::default());
    asked.max_answer_bytes = 4 + 16;
    assert!(store.lookup(&asked).await.is_ok());
    asked.max_answer_bytes -= 1;
    assert!(store.lookup(&asked).await.is_err());
}

#[test]
fn lookups_need_the_whole_key() {
    let store = customers(Behaviour::default());
    assert!(store.check_keys(&[0]).is_ok() && store.check_keys(&[2, 0]).is_ok());
    let error = store.check_keys(&[1]).unwrap_err();
    assert_eq!(error.message(), "column \"id\" of the key of simulated table \"customers\" is not compared");
    assert!(store.answer(&request(&[1], &[0], vec![ids([1])])).is_err());
    assert!(store.answer(&request(&[0], &[5], vec![ids([1])])).is_err());
}

#[test]
fn mistakes_name_table_and_column() {
    let mistake = |key: &[(&str, PgType)], columns: &[(&str, &str)]| {
        let config = SimulatedConfig {
            seed: 0,
            key: key.iter().map(|(name, pg_type)| (name.to_string(), pg_type.clone())).collect(),
            columns: columns.iter().map(|(name, sql)| (name.to_string(), sql.to_string())).collect(),
            behaviour: Behaviour::default(),
        };
        SimulatedStore::try_new("t".to_string(), config).unwrap_err()
    };
    let id = ("id", PgType::Int8);
    for (key, columns, code, message) in [
        (vec![], vec![], Code::InvalidColumnReference, "lookup table \"t\": a simulated table needs a key"),
        (
            vec![id.clone()],
            vec![("id", "1")],
            Code::DuplicateColumn,
            "lookup table \"t\": column \"id\" is declared twice",
        ),
        (
            vec![("n", PgType::Int8)],
            vec![],
            Code::DuplicateColumn,
            "lookup table \"t\": a key column cannot be called \"n\"",
        ),
        (
            vec![("j", PgType::Jsonb)],
            vec![],
            Code::FeatureNotSupported,
            "lookup table \"t\": column \"j\" cannot be the key of a lookup: equal values of type jsonb need not look the same",
        ),
        (
            vec![id.clone()],
            vec![("a", "sum(id)")],
            Code::GroupingError,
            "lookup table \"t\": column \"a\": aggregate function sum is not allowed in a simulated table",
        ),
        (
            vec![id],
            vec![("a", "uuid()")],
            Code::FeatureNotSupported,
            "lookup table \"t\": column \"a\": function uuid() is not supported in a simulated table's expression",
        ),
    ] {
        let error = mistake(&key, &columns);
        assert_eq!((error.code(), error.message()), (code, message));
    }
}

#[tokio::test]
async fn row_that_cannot_be_computed_is_an_error_about_keys() {
    let config = SimulatedConfig {
        seed: 0,
        key: vec![("id".to_string(), PgType::Int8)],
        columns: vec![("inverse".to_string(), "100 / id".to_string())],
        behaviour: Behaviour::default(),
    };
    let store = SimulatedStore::try_new("t".to_string(), config).unwrap();
    let error = store.lookup(&request(&[0], &[1], vec![ids([1, 0])])).await.unwrap_err();
    assert!(error.is_about_keys());
    assert_eq!(error.into_error("t").message(), "column \"inverse\": division by zero");
}
