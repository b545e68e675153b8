//! The races that a stream cannot be brought into on one thread, played by hand.

use std::time::Duration;

use datafusion::arrow::array::{Int64Array, RecordBatch};

use super::super::keys::KeyFinder;
use super::super::mailbox::Delivery;
use super::super::policy::{LookupPolicy, Ordering};
use super::super::scripted::*;
use super::*;

/// Flights with one slot, and somebody who asks.
struct Asker {
    flights: Arc<Flights>,
    variant: Arc<Variant>,
    mailbox: Arc<Mailbox>,
}

impl Asker {
    fn new() -> Self {
        let table = table(&ScriptedStore::new(|_| Reply::Hang), &LookupPolicy::default());
        let variant = table.variant(&left_join(LookupPolicy::default()).shape).unwrap();
        Asker { flights: Flights::new(NonZeroUsize::MIN), variant, mailbox: Arc::default() }
    }

    fn ask(
        &self,
        keys: &[i64],
        timeout: Option<Duration>,
        seen: Epoch,
        cached: impl FnMut(u32) -> bool,
    ) -> (Option<Ask>, Vec<Request>) {
        let column = Arc::new(Int64Array::from(keys.to_vec()));
        let batch = RecordBatch::try_new(input_schema(), vec![Arc::clone(&column) as _, column]).unwrap();
        let mut finder = KeyFinder::new(&left_join(LookupPolicy::default()), Arc::clone(&self.variant));
        let keys = finder.find(&finder.evaluate(&batch).unwrap()).unwrap();
        let question = Question {
            variant: &self.variant,
            mailbox: &self.mailbox,
            slice: 0,
            missing: (0..keys.len() as u32).collect(),
            keys: &keys,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            batch_size: 2.try_into().unwrap(),
            batch_delay: Duration::ZERO,
            fills_cache: false,
            seen,
        };
        self.flights.ask(question, cached)
    }

    fn complete(&self, request: &Request) {
        self.complete_with(request, KeyResult::Rows { start: 0, rows: 0 });
    }

    fn complete_with(&self, request: &Request, result: KeyResult) {
        let results = vec![result; request.keys.len()];
        let outcome = Outcome::Failed(Error::internal("done"));
        let at = Instant::now();
        let (variant, rest_until) = (&self.variant, at + milliseconds(50));
        let completion = Completion { variant, results: &results, outcome: &outcome, at, rest_until };
        self.flights.complete(request.id, &request.keys, &completion);
    }

    fn delivered(&self) -> Vec<u32> {
        self.mailbox.take().iter().flat_map(|Delivery { keys, .. }| keys.iter().map(|key| key.position)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn answer_in_time_that_is_still_being_delivered_is_not_a_timeout() {
    let asker = Asker::new();
    let limit = milliseconds(100);
    let (ask, requests) = asker.ask(&[1, 2, 3], Some(limit), asker.flights.epoch(), |_| false);
    let (ask, request) = (ask.unwrap(), &requests[0]);
    let deadline = Instant::now() + limit;
    asker.flights.answered(request.id, deadline);
    tokio::time::sleep(milliseconds(200)).await;
    assert_eq!(ask.time_out(deadline), [0, 1], "the third has waited for a slot");
    asker.complete(request);
    assert_eq!(asker.delivered(), [0, 1]);
    assert!(asker.flights.next_request().is_none());
    assert_eq!((asker.flights.entries(), asker.flights.busy()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn answer_after_the_deadline_is_a_timeout_and_abandons_the_request() {
    let asker = Asker::new();
    let (ask, requests) = asker.ask(&[1], Some(milliseconds(100)), asker.flights.epoch(), |_| false);
    let deadline = Instant::now() + milliseconds(100);
    asker.flights.answered(requests[0].id, deadline + milliseconds(1));
    assert!(ask.unwrap().time_out(deadline).is_empty());
    requests[0].abandoned.notified().await;
    asker.complete(&requests[0]);
    assert!(asker.delivered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn key_that_came_into_the_cache_meanwhile_is_not_asked_again() {
    let asker = Asker::new();
    let seen = asker.flights.epoch();
    let (_ask, requests) = asker.ask(&[1], None, seen, |_| unreachable!("nothing has changed"));
    asker.complete(&requests[0]);
    let mut looked = Vec::new();
    let (ask, requests) = asker.ask(&[1, 2], None, seen, |key| {
        looked.push(key);
        true
    });
    assert!(ask.is_none() && requests.is_empty());
    assert_eq!(looked, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn waiting_keys_end_with_those_who_wait_for_them() {
    let asker = Asker::new();
    let never = |_| false;
    let (first, requests) = asker.ask(&[1, 2], None, asker.flights.epoch(), never);
    let empty = asker.flights.entries();
    let (second, none) = asker.ask(&[3, 4, 5], None, asker.flights.epoch(), never);
    let (third, _) = asker.ask(&[5, 6], None, asker.flights.epoch(), never);
    assert!(none.is_empty());
    drop(second);
    asker.complete(&requests[0]);
    let next = asker.flights.next_request().unwrap();
    assert_eq!(next.keys.len(), 2, "5 and 6");
    drop((first, third));
    next.abandoned.notified().await;
    let (again, _) = asker.ask(&[7], None, asker.flights.epoch(), never);
    assert!(asker.flights.entries() <= empty + 1);
    drop(again);
    assert_eq!(asker.flights.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_keys_whose_time_is_over_get_no_slot() {
    let asker = Asker::new();
    let (_first, requests) = asker.ask(&[1], None, asker.flights.epoch(), |_| false);
    let (second, _) = asker.ask(&[2], Some(milliseconds(10)), asker.flights.epoch(), |_| false);
    tokio::time::sleep(milliseconds(20)).await;
    asker.complete(&requests[0]);
    assert!(asker.flights.next_request().is_none());
    drop(second);
    assert_eq!(asker.flights.entries(), 0);
}

#[test]
fn query_does_not_hang_when_the_runtime_of_its_requests_ends() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = ScriptedStore::new(|_| Reply::Hang);
    let policy = LookupPolicy { max_in_flight: NonZeroUsize::MIN, ..policy(Ordering::Ordered) };
    let table = table(&store, &policy);
    let (mut feed, mut rows) = run(&table, left_join(policy));
    feed.send([1, 2]);
    let first = runtime();
    assert!(first.block_on(ready(&mut rows)).is_empty());
    drop(first);
    let error = runtime().block_on(drain(&mut rows)).1.unwrap();
    assert_eq!(error.message(), "the request to lookup table \"customers\" was ended");
    assert_eq!((table.flights.busy(), table.flights.entries()), (0, 0));
}
