use futures::future::join_all;

use super::super::contract;
use super::super::told::{ToldStore, ask, contract_store};
use super::*;
use crate::error::{Code, Error};

const OPEN_FOR: Duration = Duration::from_secs(10);

fn policy(failures: u32) -> BreakerPolicy {
    BreakerPolicy { failures: NonZeroU32::new(failures).unwrap(), open_for: OPEN_FOR }
}

fn broken(failures: u32) -> (BreakerStore, Arc<ToldStore>) {
    let told = ToldStore::new();
    (BreakerStore::new(Arc::clone(&told) as _, policy(failures)), told)
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { message: "db:5432: connection refused".to_string() }
}

fn failed(state: Option<&str>) -> StoreError {
    StoreError::Failed { message: "it says no".to_string(), sqlstate: state.map(str::to_string) }
}

/// Lets a request meet `errors`, one after the other; `None` is success.
async fn meet(store: &BreakerStore, told: &ToldStore, errors: impl IntoIterator<Item = Option<StoreError>>) {
    for error in errors {
        told.tell(Duration::ZERO, error.clone());
        let met = ask(store).await.err();
        assert_eq!(format!("{met:?}"), format!("{error:?}"), "the store's own answer is passed on");
    }
}

async fn message(store: &BreakerStore) -> String {
    match ask(store).await {
        Err(StoreError::BreakerOpen { message }) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn contract_holds() {
    let store = BreakerStore::new(contract_store(), policy(1));
    contract::check(&store, contract::RowOrder::AsLoaded).await.unwrap();
    assert!(!store.can_filter(&datafusion::prelude::lit(true)), "what the store says of conditions is passed on");
    let (store, _) = broken(1);
    assert!(store.can_filter(&datafusion::prelude::lit(true)));
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_the_store_is_left_alone() {
    let (store, told) = broken(3);
    meet(&store, &told, [Some(unavailable()), Some(unavailable()), None]).await;
    meet(&store, &told, [Some(unavailable()), Some(failed(None))]).await;
    assert_eq!(store.breaker().state(), "closed", "success begins the row anew");
    meet(&store, &told, [Some(unavailable())]).await;
    assert_eq!(store.breaker().state(), "open");
    let asked = told.asked().len();
    assert_eq!(
        message(&store).await,
        "circuit breaker is open for another 10s; the last failure: db:5432: connection refused"
    );
    tokio::time::advance(Duration::from_micros(7_999_900)).await;
    assert_eq!(
        message(&store).await,
        "circuit breaker is open for another 2001ms; the last failure: db:5432: connection refused"
    );
    assert_eq!(told.asked().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn errors_about_keys_and_errors_of_ours_do_not_count() {
    let (store, told) = broken(2);
    let invalid = StoreError::Invalid(Error::new(Code::NumericOutOfRange, "out of range"));
    let uncounted = [failed(Some("22P02")), StoreError::TooLarge { max_answer_bytes: 1 }, invalid];
    for _ in 0..3 {
        meet(&store, &told, uncounted.clone().map(Some)).await;
    }
    assert_eq!(store.breaker().state(), "closed");
    // They do not begin the row anew either.
    meet(&store, &told, [Some(failed(Some("42P01")))]).await;
    meet(&store, &told, uncounted.map(Some)).await;
    meet(&store, &told, [Some(failed(Some("40001")))]).await;
    assert_eq!(store.breaker().state(), "open");
}

#[tokio::test(start_paused = true)]
async fn cancelled_requests_do_not_count() {
    let (store, told) = broken(1);
    told.tell(Duration::from_secs(60), Some(unavailable()));
    assert!(tokio::time::timeout(Duration::from_secs(1), ask(&store)).await.is_err());
    assert_eq!((store.breaker().state(), told.asked().len()), ("closed", 1));
}

#[tokio::test(start_paused = true)]
async fn exactly_one_attempt_probes_and_its_success_closes_it() {
    let (store, told) = broken(1);
    meet(&store, &told, [Some(unavailable())]).await;
    tokio::time::advance(OPEN_FOR).await;
    assert_eq!(store.breaker().state(), "half-open");
    told.tell(Duration::from_secs(1), None);
    let probe = async {
        let answer = ask(&store).await;
        (answer.is_ok(), store.breaker().state())
    };
    let others = async {
        let messages = join_all((0..3).map(|_| message(&store))).await;
        (messages, store.breaker().state())
    };
    let (probe, (messages, meanwhile)) = tokio::join!(probe, others);
    assert_eq!((probe, meanwhile), ((true, "closed"), "half-open"));
    assert_eq!(
        messages,
        ["circuit breaker is open until the attempt that is under way succeeds; the last failure: db:5432: connection refused";
            3]
    );
    assert_eq!(told.asked().len(), 2);
    meet(&store, &told, [None]).await;
}

#[tokio::test(start_paused = true)]
async fn failed_probe_opens_it_for_as_long_again() {
    let (store, told) = broken(3);
    meet(&store, &told, [Some(unavailable()), Some(unavailable()), Some(unavailable())]).await;
    for _ in 0..3 {
        tokio::time::advance(OPEN_FOR).await;
        meet(&store, &told, [Some(failed(Some("53200")))]).await;
        assert_eq!(message(&store).await, "circuit breaker is open for another 10s; the last failure: it says no");
        tokio::time::advance(OPEN_FOR - Duration::from_millis(1)).await;
        assert_eq!(message(&store).await, "circuit breaker is open for another 1ms; the last failure: it says no");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(store.breaker().state(), "half-open");
        told.tell(Duration::ZERO, Some(unavailable()));
        assert!(ask(&store).await.is_err());
    }
    // An error about a key is an answer of the store.
    tokio::time::advance(OPEN_FOR).await;
    meet(&store, &told, [Some(failed(Some("22012")))]).await;
    assert_eq!(store.breaker().state(), "closed");
}

#[tokio::test(start_paused = true)]
async fn dropped_probe_lets_the_next_attempt_probe() {
    let (store, told) = broken(1);
    meet(&store, &told, [Some(unavailable())]).await;
    tokio::time::advance(OPEN_FOR).await;
    told.tell(Duration::from_secs(60), None);
    assert!(tokio::time::timeout(Duration::from_secs(1), ask(&store)).await.is_err());
    assert_eq!(store.breaker().state(), "half-open");
    meet(&store, &told, [None]).await;
    assert_eq!(store.breaker().state(), "closed");
}

#[tokio::test(start_paused = true)]
async fn attempts_from_before_it_opened_neither_close_it_nor_keep_it_open() {
    let (store, told) = broken(1);
    for error in [None, Some(unavailable())] {
        let opened = store.breaker().lock().turns;
        told.tell(Duration::from_secs(12), error);
        told.tell(Duration::from_secs(1), Some(unavailable()));
        let slow = ask(&store);
        let opening = async {
            assert!(ask(&store).await.is_err());
            assert_eq!(store.breaker().state(), "open");
            // Since 1 s: at 11 s a probe begins, which is still under way when the slow attempt ends.
            tokio::time::sleep(OPEN_FOR).await;
            told.tell(Duration::from_secs(3), None);
            let (probed, seen) = tokio::join!(ask(&store), async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                store.breaker().state()
            });
            assert!(probed.is_ok());
            assert_eq!(seen, "half-open");
        };
        let _ = tokio::join!(slow, opening);
        assert_eq!(store.breaker().state(), "closed");
        assert_eq!(store.breaker().lock().turns, opened + 3, "opened, probed, closed");
    }
}
