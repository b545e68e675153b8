//! Random streams over a random store, under random policies, on the paused clock: no row is lost, doubled, matched
//! wrongly, out of order or late, and nothing is left over.
//!
//! `LOOKASIDE_SEED=n` plays one seed, `LOOKASIDE_SEEDS=10000` plays so many. A failing seed prints itself.

use std::collections::HashMap;
use std::future::Future;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion::arrow::array::{AsArray, Int64Array};
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::policy::{CachePolicy, LookupPolicy, OnFailure, Ordering, PartialCache, RetryPolicy};
use super::scripted::*;
use super::{JoinKind, LookupTable};
use crate::error::Error;
use crate::pg_type::PgType;
use crate::store::simulated::{Behaviour, Latency, SimulatedConfig, SimulatedError, SimulatedStore};
use crate::store::{Conditions, LookupRequest, LookupShape, Store, StoreError};

/// Seeds that the tests play unless told otherwise.
const SEEDS: u64 = 100;
const TICK: Duration = Duration::from_millis(1);
/// More than any time-out, rest, delay and latency together.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn rows_are_right_whatever_the_store_does() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("LOOKASIDE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LOOKASIDE_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let played = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(play(seed))));
        if let Err(panic) = played {
            eprintln!("LOOKASIDE_SEED={seed} fails");
            std::panic::resume_unwind(panic);
        }
    }
}

async fn play(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let policy = random_policy(&mut random);
    let may_hang = policy.timeout.is_some();
    let world = match random.random_bool(0.5) {
        true => simulated(&mut random, may_hang),
        false => scripted(&mut random, may_hang),
    };
    let table = LookupTable::new("customers".to_string(), Arc::clone(&world.store), policy.clone());
    let count = random.random_range(1..=3);
    let queries: Vec<Query> = (0..count).map(|_| Query::new(&mut random, &table, &world)).collect();
    let shown: Vec<String> = queries.iter().map(Query::shown).collect();
    let played = futures::future::join_all(queries.into_iter().map(Query::play));
    let played = tokio::time::timeout(LONG, AssertUnwindSafe(played).catch_unwind()).await;
    if !matches!(played, Ok(Ok(_))) {
        eprintln!("{policy:?}\n{}", shown.join("\n"));
    }
    if let Err(panic) = played.expect("a query does not end") {
        std::panic::resume_unwind(panic);
    }
    tokio::time::sleep(LONG).await;
    assert_eq!((table.tasks(), table.flights.busy(), table.flights.entries()), (0, 0, 0), "left over: {policy:?}");
    (world.check)(&policy);
}

/// A store and what is known of it.
struct World {
    store: Arc<dyn Store>,
    /// It never fails nor hangs.
    is_faultless: bool,
    /// The names of a key's rows.
    names: Names,
    /// What must hold once all is over.
    check: Box<dyn Fn(&LookupPolicy)>,
}

type Names = Arc<dyn Fn(i64) -> Vec<String>>;

/// A simulated store with any behaviour.
fn simulated(random: &mut StdRng, may_hang: bool) -> World {
    let is_faultless = random.random_bool(0.4);
    let share = |random: &mut StdRng, shares: &[f64]| if is_faultless { 0.0 } else { *pick(random, shares) };
    let (fast, slow) = (milliseconds(random.random_range(0..10)), milliseconds(random.random_range(10..300)));
    let latencies = [
        Latency::Fixed(fast),
        Latency::Uniform { from: fast, to: slow },
        Latency::Exponential { mean: fast + TICK },
        Latency::LogNormal { p50: fast + TICK, p99: slow + TICK },
    ];
    let behaviour = Behaviour {
        latency: *pick(random, &latencies),
        errors: share(random, &[0.0, 0.1, 0.5, 1.0]),
        error: *pick(random, &SimulatedError::ALL),
        stalls: if may_hang { share(random, &[0.0, 0.05, 0.3]) } else { 0.0 },
        misses: *pick(random, &[0.0, 0.1, 0.9]),
        bad_keys: share(random, &[0.0, 0.0, 0.05]),
        rows_per_key: NonZeroUsize::new(*pick(random, &[1, 1, 3])).unwrap(),
        duplicates: *pick(random, &[0.0, 0.3]),
        outages: match share(random, &[0.0, 1.0]) > 0.0 {
            true => vec![milliseconds(20)..milliseconds(random.random_range(21..200))],
            false => Vec::new(),
        },
    };
    let config = SimulatedConfig {
        seed: random.random(),
        key: vec![("id".to_string(), PgType::Int8)],
        columns: vec![("name".to_string(), "id || '/' || n".to_string())],
        behaviour: behaviour.clone(),
    };
    let store = Arc::new(SimulatedStore::try_new("customers".to_string(), config.clone()).unwrap());
    let good_keys = SimulatedConfig { behaviour: Behaviour { bad_keys: 0.0, ..behaviour }, ..config };
    let twin = SimulatedStore::try_new("customers".to_string(), good_keys).unwrap();
    let names = move |key| {
        let shape = LookupShape { key_columns: vec![0], columns: vec![1], filters: Conditions::default() };
        let keys = vec![Arc::new(Int64Array::from(vec![key])) as _];
        let answer = twin.answer(&LookupRequest { shape: Arc::new(shape), keys, max_answer_bytes: u64::MAX }).unwrap();
        let names: Vec<String> = answer.rows.column(0).as_string_view().iter().flatten().map(str::to_string).collect();
        assert!(names.iter().all(|name| name.starts_with(&format!("{key}/"))), "{names:?}");
        names
    };
    let seen = Arc::clone(&store);
    let check = move |_: &LookupPolicy| assert_eq!(seen.running(), 0, "requests at the store");
    World { store, is_faultless, names: Arc::new(names), check: Box::new(check) }
}

/// A store whose answers take their time, fail and, if it may, hang by chance, also backwards.
fn scripted(random: &mut StdRng, may_hang: bool) -> World {
    let most_latency = *pick(random, &[0, 0, 1, 5, 30, 300]);
    let is_faultless = random.random_bool(0.4);
    let (errors, stalls) = match is_faultless {
        true => (0.0, 0.0),
        false => (*pick(random, &[0.0, 0.1, 0.5, 1.0]), *pick(random, &[0.0, 0.05, 0.3])),
    };
    let stalls = if may_hang { stalls } else { 0.0 };
    // Keys whose mere presence spoils a request.
    let has_bad_keys = !is_faultless && random.random_bool(0.3);
    let dice = Mutex::new(StdRng::seed_from_u64(random.random()));
    let store = ScriptedStore::new(move |keys| {
        let mut dice = dice.lock().unwrap();
        let latency = milliseconds(dice.random_range(0..=most_latency));
        if has_bad_keys && keys.iter().any(|key| key % 10 == 3) {
            return Reply::Fail(latency, failed("22P02"));
        }
        if dice.random_bool(stalls) {
            return Reply::Hang;
        }
        match dice.random_bool(errors) {
            true if dice.random_bool(0.7) => Reply::Fail(latency, failed("57P03")),
            true => Reply::Fail(latency, failed("42P01")),
            false if dice.random_bool(0.1) => Reply::Backwards,
            false => Reply::After(latency),
        }
    });
    let seen = Arc::clone(&store);
    let check = move |policy: &LookupPolicy| {
        assert!(seen.most_running() <= policy.max_in_flight.get(), "more requests than max_in_flight");
        assert_eq!(seen.running(), 0, "requests at the store");
    };
    World { store, is_faultless, names: Arc::new(names_of), check: Box::new(check) }
}

fn failed(sqlstate: &str) -> StoreError {
    StoreError::Failed { message: "by chance".to_string(), sqlstate: Some(sqlstate.to_string()) }
}

fn random_policy(random: &mut StdRng) -> LookupPolicy {
    let duration = |random: &mut StdRng, most| milliseconds(random.random_range(1..=most));
    let maybe = |random: &mut StdRng, most| random.random_bool(0.5).then(|| duration(random, most));
    let cache = match random.random_bool(0.5) {
        true => CachePolicy::None,
        false => CachePolicy::Partial(PartialCache {
            max_rows: NonZeroU64::new(*pick(random, &[1, 10, 1000])),
            max_bytes: random.random_bool(0.3).then(|| NonZeroU64::new(5000).unwrap()),
            expire_after_write: maybe(random, 100),
            expire_after_access: maybe(random, 50),
            expire_misses_after: maybe(random, 50),
            refresh_after: maybe(random, 30),
            serve_stale_for: maybe(random, 200).unwrap_or_default(),
            told_by: None,
        }),
    };
    let size = |random: &mut StdRng, sizes: &[usize]| NonZeroUsize::new(*pick(random, sizes)).unwrap();
    LookupPolicy {
        ordering: *pick(random, &Ordering::ALL),
        timeout: random.random_bool(0.7).then(|| duration(random, 400)),
        on_failure: *pick(random, &OnFailure::ALL),
        capacity: size(random, &[1, 2, 7, 100, 10_000]),
        capacity_bytes: NonZeroU64::new(*pick(random, &[1, 1000, 1 << 26])).unwrap(),
        batch_size: size(random, &[1, 3, 1000]),
        batch_delay: maybe(random, 20).unwrap_or_default(),
        max_in_flight: size(random, &[1, 2, 8]),
        retry: RetryPolicy {
            max_attempts: NonZeroU32::new(random.random_range(1..=4)).unwrap(),
            delay: duration(random, 50),
            max_delay: duration(random, 100),
            on_miss: random.random_bool(0.3),
        },
        cache,
        ..LookupPolicy::default()
    }
}

fn pick<'a, T>(random: &mut StdRng, choices: &'a [T]) -> &'a T {
    &choices[random.random_range(0..choices.len())]
}

/// One query over the table, and what it is to give.
struct Query {
    policy: LookupPolicy,
    kind: JoinKind,
    is_faultless: bool,
    names: Names,
    feed: Feed,
    rows: SendableRecordBatchStream,
    random: StdRng,
    batches: Vec<Vec<Option<i64>>>,
    /// A reader that pauses makes rows wait longer than their time-out allows.
    reader_pauses: bool,
    /// After so many batches the query is dropped.
    dropped_after: Option<usize>,
    /// The key of each row, and when it was read from the stream.
    keys: Vec<Option<i64>>,
    read_at: Vec<Instant>,
    /// The names that came with each row, and when the last one did.
    seen: HashMap<usize, (Vec<String>, Instant)>,
    order: Vec<usize>,
}

impl Query {
    fn new(random: &mut StdRng, table: &Arc<LookupTable>, world: &World) -> Self {
        let policy = LookupPolicy {
            ordering: *pick(random, &Ordering::ALL),
            on_failure: *pick(random, &OnFailure::ALL),
            cache: if random.random_bool(0.2) { CachePolicy::None } else { table.policy().cache.clone() },
            ..table.policy().clone()
        };
        let kind = *pick(random, &[JoinKind::Left, JoinKind::Inner]);
        let (feed, rows) = run(table, super::LookupJoin { kind, ..left_join(policy.clone()) });
        let most_keys = *pick(random, &[1, 5, 40, 2000]);
        let batches = (0..random.random_range(0..30)).map(|_| {
            let rows = *pick(random, &[1, 1, 2, 20]);
            (0..rows).map(|_| random_key(random, most_keys)).collect()
        });
        Query {
            batches: batches.collect(),
            is_faultless: world.is_faultless && policy.timeout.is_none(),
            names: Arc::clone(&world.names),
            policy,
            kind,
            feed,
            rows,
            reader_pauses: random.random_bool(0.2),
            dropped_after: random.random_bool(0.15).then(|| random.random_range(0..20)),
            random: StdRng::seed_from_u64(random.random()),
            keys: Vec::new(),
            read_at: Vec::new(),
            seen: HashMap::new(),
            order: Vec::new(),
        }
    }

    fn shown(&self) -> String {
        let Query { policy, kind, is_faultless, reader_pauses, batches, .. } = self;
        let LookupPolicy { ordering, on_failure, cache, .. } = policy;
        let cache = cache.name();
        format!("{kind:?} {ordering} {on_failure} {cache} {is_faultless} {reader_pauses} {batches:?}")
    }

    /// Sends the batches and reads, a tick at a time, until the query ends.
    async fn play(mut self) {
        let mut to_send = std::mem::take(&mut self.batches).into_iter();
        let mut sent = 0;
        let mut is_open = true;
        let error = loop {
            if self.dropped_after.is_some_and(|after| sent >= after) {
                return;
            }
            if is_open && self.random.random_bool(0.5) {
                match to_send.next() {
                    Some(keys) => {
                        self.feed.send(keys.iter().copied());
                        self.keys.extend(keys);
                        sent += 1;
                    }
                    None => {
                        self.feed.end();
                        is_open = false;
                    }
                }
            }
            if !(self.reader_pauses && self.random.random_bool(0.5))
                && let Some(end) = self.read().await
            {
                break end;
            }
            tokio::time::sleep(TICK).await;
        };
        self.check(error, is_open);
    }

    /// Takes what is ready. `Some` at the end, with the error if there was one.
    async fn read(&mut self) -> Option<Option<Error>> {
        // Tasks of the table run while this one yields.
        for _ in 0..3 {
            loop {
                let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(self.rows.poll_next_unpin(cx))).await;
                self.read_at.resize(self.keys.len().min(self.rows_read()), Instant::now());
                match polled {
                    std::task::Poll::Ready(Some(Ok(batch))) => self.take(&shown(&batch)),
                    std::task::Poll::Ready(Some(Err(error))) => return Some(Some(error.into())),
                    std::task::Poll::Ready(None) => return Some(None),
                    std::task::Poll::Pending => break,
                }
            }
            tokio::task::yield_now().await;
        }
        None
    }

    fn rows_read(&self) -> usize {
        self.feed.rows_in(self.feed.read())
    }

    fn take(&mut self, rows: &[String]) {
        let now = Instant::now();
        for row in rows {
            let (number, name) = row.split_once(':').unwrap();
            let number = number.parse().unwrap();
            let (names, at) = self.seen.entry(number).or_insert_with(|| (Vec::new(), now));
            names.push(name.to_string());
            *at = now;
            self.order.push(number);
        }
    }

    fn check(&self, error: Option<Error>, is_open: bool) {
        match &error {
            Some(error) => {
                assert!(!self.is_faultless, "{error}");
                assert_eq!(self.policy.on_failure, OnFailure::Fail, "{error}");
            }
            None => assert!(!is_open, "the query ended before its input"),
        }
        self.check_order();
        let whole = match (&error, self.policy.ordering) {
            (None, _) => self.keys.len(),
            // All before the row that failed have left; of the last one that did, not all matches need have.
            (Some(_), Ordering::Ordered) => self.order.last().copied().unwrap_or(0),
            (Some(_), _) => 0,
        };
        for number in 0..self.keys.len() {
            self.check_row(number, number < whole);
        }
    }

    fn check_row(&self, number: usize, must_be_there: bool) {
        let key = self.keys[number];
        let (names, at) = match self.seen.get(&number) {
            Some((names, at)) => (names.as_slice(), Some(*at)),
            None => ([].as_slice(), None),
        };
        let expected = key.map_or_else(Vec::new, |key| (self.names)(key));
        let padded = ["-".to_string()];
        let nothing_found: &[String] = if self.kind == JoinKind::Left { &padded } else { &[] };
        let right = if expected.is_empty() { nothing_found } else { &expected };
        let may_fail = key.is_some() && !self.is_faultless;
        let is_allowed = names == right
            || (!must_be_there && right.starts_with(names))
            || (may_fail && self.policy.on_failure == OnFailure::NoMatch && names == nothing_found)
            || (may_fail && self.policy.on_failure == OnFailure::Skip && names.is_empty());
        assert!(is_allowed, "row {number} with key {key:?} came with {names:?}");
        // Of a batch that is admitted in slices, the later ones may wait for places.
        let is_timed = self.policy.capacity.get() > 1000 && self.policy.capacity_bytes.get() > 1 << 20;
        if let (Some(at), Some(timeout), true, false) = (at, self.policy.timeout, is_timed, self.reader_pauses) {
            let waited = at - self.read_at[number];
            assert!(waited <= timeout + 2 * TICK, "row {number} waited {waited:?} of {timeout:?}");
        }
    }

    fn check_order(&self) {
        let sorted = |numbers: &[usize]| numbers.is_sorted();
        match self.policy.ordering {
            Ordering::Ordered => assert!(sorted(&self.order), "{:?}", self.order),
            Ordering::KeyOrdered => {
                let mut by_key: HashMap<Option<i64>, Vec<usize>> = HashMap::new();
                for number in &self.order {
                    by_key.entry(self.keys[*number]).or_default().push(*number);
                }
                for (key, numbers) in by_key {
                    assert!(sorted(&numbers), "{key:?}: {numbers:?}");
                }
            }
            Ordering::Unordered => {}
        }
    }
}

/// Some are NULL, some are not to be found, some have several rows.
fn random_key(random: &mut StdRng, most: i64) -> Option<i64> {
    match random.random_range(0..10) {
        0 => None,
        1 => Some(-random.random_range(1..=most)),
        2 => Some(1000 * random.random_range(2..5) + random.random_range(0..most.min(900))),
        _ => Some(random.random_range(1..=most.min(999))),
    }
}

/// What [`ScriptedStore`] knows of a key.
fn names_of(key: i64) -> Vec<String> {
    let rows = if key < 0 { 0 } else { (key / 1000).max(1) };
    (0..rows).map(|nth| format!("{key}/{nth}")).collect()
}

/// The harness would be worth nothing if it did not notice.
#[test]
fn wrong_rows_are_noticed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let notices = |spoil: fn(&mut Query)| {
        let played: Box<dyn Future<Output = ()>> = Box::new(async move {
            let world = scripted(&mut StdRng::seed_from_u64(1), false);
            let store = Arc::clone(&world.store);
            let table = LookupTable::new("customers".to_string(), store, policy(Ordering::Ordered));
            let mut query = Query::new(&mut StdRng::seed_from_u64(1), &table, &world);
            query.policy = policy(Ordering::Ordered);
            (query.kind, query.is_faultless) = (JoinKind::Left, true);
            query.keys = vec![Some(1), None];
            query.take(&["0:1/0".to_string(), "1:-".to_string()]);
            spoil(&mut query);
            query.check(None, false);
        });
        std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(Box::into_pin(played)))).is_err()
    };
    assert!(!notices(|_| {}));
    assert!(notices(|query| drop(query.seen.remove(&1))), "a lost row");
    assert!(notices(|query| query.take(&["1:-".to_string()])), "a doubled row");
    assert!(notices(|query| query.keys[0] = Some(2)), "a wrong match");
    assert!(notices(|query| query.order.reverse()), "an order broken");
}
