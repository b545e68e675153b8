//! A model of the cache: random sequences of rows, answers, errors, expiries, invalidations and refreshes, on the paused
//! clock. The store notes each request; whatever leaves the stage must be allowed by these notes, and whatever is asked
//! of the store must be necessary.
//!
//! `LOOKASIDE_MODEL_SEQUENCES` says how many sequences, `LOOKASIDE_MODEL_SEED` which is the first.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::super::policy::{CachePolicy, LookupPolicy, OnFailure, Ordering, PartialCache};
use super::super::scripted::{Feed, left_join, milliseconds, policy, ready, run};
use super::super::{LookupJoin, LookupTable};
use crate::error::Error;
use crate::store::{
    Answer, Conditions, KeyEquality, LookupRequest, LookupShape, RowBatches, ScanRequest, Store, StoreError,
};

const TIMEOUT: Duration = milliseconds(200);

/// Knows `(id, name)`: keys below zero are missing, the name of any other is the number of the request that is answered.
#[derive(Default)]
struct NotingStore {
    notes: Mutex<Vec<Note>>,
    weather: Mutex<Weather>,
}

#[derive(Clone, Copy, Default)]
struct Weather {
    fails: bool,
    delay: Duration,
}

/// What the store knows of one request.
#[derive(Clone, Debug)]
struct Note {
    keys: Vec<i64>,
    columns: Vec<usize>,
    sent: Instant,
    /// When it was answered, failed or was dropped.
    ended: Option<Instant>,
    answered: bool,
    failed: bool,
}

/// Notes the end of a request, however it comes.
struct Ending<'a>(&'a NotingStore, usize);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.notes.lock().unwrap()[self.1].ended = Some(Instant::now());
    }
}

impl fmt::Debug for NotingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotingStore")
    }
}

impl fmt::Display for NotingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("noting")
    }
}

#[async_trait]
impl Store for NotingStore {
    fn schema(&self) -> SchemaRef {
        let fields = vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8View, true)];
        Arc::new(Schema::new(fields))
    }

    fn can_filter(&self, _filter: &Expr) -> bool {
        false
    }

    fn key_equality(&self, _column: usize) -> KeyEquality {
        KeyEquality::ByValue
    }

    fn can_scan(&self) -> bool {
        false
    }

    async fn scan(&self, _request: &ScanRequest) -> Result<RowBatches, StoreError> {
        Err(Error::internal("a noting store has no end").into())
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let keys = request.keys[0].as_primitive::<Int64Type>().values().to_vec();
        let weather = *self.weather.lock().unwrap();
        let number = {
            let mut notes = self.notes.lock().unwrap();
            let (keys, columns) = (keys.clone(), request.shape.columns.clone());
            notes.push(Note { keys, columns, sent: Instant::now(), ended: None, answered: false, failed: false });
            notes.len() - 1
        };
        let _ending = Ending(self, number);
        tokio::time::sleep(weather.delay).await;
        if weather.fails {
            self.notes.lock().unwrap()[number].failed = true;
            return Err(StoreError::Failed { message: "bad weather".into(), sqlstate: Some("XX001".into()) });
        }
        self.notes.lock().unwrap()[number].answered = true;
        let found: Vec<u32> = (0..keys.len() as u32).filter(|key| keys[*key as usize] >= 0).collect();
        let columns = request.shape.columns.iter().map(|column| match column {
            0 => Arc::new(Int64Array::from_iter_values(found.iter().map(|key| keys[*key as usize]))) as ArrayRef,
            _ => Arc::new(StringViewArray::from_iter_values(found.iter().map(|_| number.to_string()))),
        });
        let schema = Arc::new(self.schema().project(&request.shape.columns).unwrap());
        let rows = RecordBatch::try_new(schema, columns.collect()).unwrap();
        Ok(Answer { rows, key_of_row: UInt32Array::from(found) })
    }
}

/// That a key was forgotten, or everything.
#[derive(Debug)]
struct Forgetting {
    key: Option<i64>,
    at: Instant,
    /// How many requests the store had seen by then: moments alone do not say what came first.
    requests: usize,
}

/// A query that stays, and the rows that it was given.
struct Query {
    feed: Feed,
    rows: SendableRecordBatchStream,
    columns: Vec<usize>,
    given: Vec<(i64, Instant)>,
}

struct Model {
    seed: u64,
    cache: PartialCache,
    store: Arc<NotingStore>,
    table: Arc<LookupTable>,
    queries: Vec<Query>,
    forgotten: Vec<Forgetting>,
    /// Requests that were judged already.
    judged: usize,
}

impl Model {
    fn new(seed: u64, random: &mut StdRng) -> Self {
        let mut one_of = |choices: [u64; 2]| Some(choices[random.random_range(0..2)]).filter(|time| *time > 0);
        let cache = PartialCache {
            max_rows: NonZeroU64::new(1000),
            max_bytes: one_of([0, 10_000_000]).and_then(NonZeroU64::new),
            expire_after_write: one_of([0, 1000]).map(milliseconds),
            expire_after_access: one_of([0, 600]).map(milliseconds),
            expire_misses_after: one_of([0, 500]).map(milliseconds),
            refresh_after: one_of([0, 400]).map(milliseconds),
            serve_stale_for: milliseconds(one_of([0, 1000]).unwrap_or(0)),
            told_by: None,
        };
        let ordering = Ordering::ALL[random.random_range(0..3)];
        let policy = LookupPolicy {
            cache: CachePolicy::Partial(cache.clone()),
            on_failure: OnFailure::NoMatch,
            timeout: Some(TIMEOUT),
            batch_size: 10.try_into().unwrap(),
            ..policy(ordering)
        };
        let store = Arc::<NotingStore>::default();
        let table = LookupTable::new("customers".to_string(), Arc::clone(&store) as Arc<dyn Store>, policy.clone());
        let wide = left_join(policy.clone());
        let narrow = LookupJoin {
            shape: Arc::new(LookupShape { key_columns: vec![0], columns: vec![1], filters: Conditions::default() }),
            projection: vec![0, 2],
            ..left_join(policy)
        };
        let queries = [wide, narrow].map(|join| {
            let columns = join.shape.columns.clone();
            let (feed, rows) = run(&table, join);
            Query { feed, rows, columns, given: Vec::new() }
        });
        Model { seed, cache, store, table, queries: queries.into(), forgotten: Vec::new(), judged: 0 }
    }

    async fn step(&mut self, random: &mut StdRng) {
        match random.random_range(0..100) {
            0..45 => {
                let query = &mut self.queries[random.random_range(0..2)];
                let keys: Vec<i64> = (0..random.random_range(1..4)).map(|_| random.random_range(-1..4)).collect();
                query.given.extend(keys.iter().map(|key| (*key, Instant::now())));
                query.feed.send(keys);
            }
            45..80 => tokio::time::sleep(milliseconds(random.random_range(1..300))).await,
            80..92 => {
                let delay = [0, 5, 50, 500][random.random_range(0..4)];
                let fails = random.random_bool(0.3);
                *self.store.weather.lock().unwrap() = Weather { fails, delay: milliseconds(delay) };
            }
            92..97 => {
                let key = random.random_range(-1..4);
                self.table.invalidate_keys(&[Arc::new(Int64Array::from(vec![key]))]).unwrap();
                self.note_forgotten(Some(key)).await;
            }
            _ => {
                self.table.invalidate_all();
                self.note_forgotten(None).await;
            }
        }
        self.look().await;
    }

    async fn note_forgotten(&mut self, key: Option<i64>) {
        let requests = self.store.notes.lock().unwrap().len();
        self.forgotten.push(Forgetting { key, at: Instant::now(), requests });
        // Rows that come later are to have a later time.
        tokio::time::sleep(milliseconds(1)).await;
    }

    /// Takes what leaves and judges it.
    async fn look(&mut self) {
        for at in 0..self.queries.len() {
            for row in ready(&mut self.queries[at].rows).await {
                let (number, name) = row.split_once(':').unwrap();
                let (key, given) = self.queries[at].given[number.parse::<usize>().unwrap()];
                self.judge_row(&self.queries[at].columns, key, given, name.parse().ok());
            }
        }
        self.judge_requests();
    }

    fn judge_row(&self, columns: &[usize], key: i64, given: Instant, request: Option<usize>) {
        let now = Instant::now();
        let notes = self.store.notes.lock().unwrap();
        let about = |note: &&Note| note.keys.contains(&key);
        let since = |note: &&Note| note.ended.is_some_and(|ended| ended >= given);
        // A row that an old answer serves may wait for its neighbours after that.
        let failures = notes.iter().filter(about).filter(since).filter(|note| note.failed);
        let failed_at = failures.filter_map(|note| note.ended).chain([given + TIMEOUT]).min();
        let failed_at = failed_at.filter(|at| *at <= now);
        let Some(request) = request else {
            return assert!(key < 0 || failed_at.is_some(), "seed {}: key {key} was lost", self.seed);
        };
        let note = &notes[request];
        let (seed, forgotten) = (self.seed, &self.forgotten);
        let what =
            format!("seed {seed}: key {key} given {given:?}, now {now:?}, got {note:?}, forgotten: {forgotten:?}");
        let ended = note.ended.unwrap();
        assert!(
            note.answered && note.keys.contains(&key) && columns.iter().all(|c| note.columns.contains(c)),
            "{what}"
        );
        assert!(note.sent >= given || !self.was_forgotten(key, request, |by| by.at < given), "forgotten: {what}");
        if ended < given && given >= self.expiry(note, key, given) {
            let until = self.expiry(note, key, given) + self.cache.serve_stale_for;
            assert!(failed_at.is_some_and(|at| at < until), "too old: {what}");
        }
    }

    /// Whether the answer to this request was forgotten by then.
    fn was_forgotten(&self, key: i64, request: usize, by_then: impl Fn(&Forgetting) -> bool) -> bool {
        let covers = |what: &&Forgetting| what.key.is_none_or(|what| what == key) && what.requests > request;
        self.forgotten.iter().filter(covers).any(by_then)
    }

    /// The latest moment until which the answer may serve somebody who asks at `now`.
    fn expiry(&self, note: &Note, key: i64, now: Instant) -> Instant {
        let ended = note.ended.unwrap();
        let far = ended + Duration::from_secs(1_000_000);
        let life = if key < 0 { self.cache.expire_misses_after } else { self.cache.expire_after_write };
        let asked = self.queries.iter().flat_map(|query| &query.given);
        let asked = asked.filter(|(asked, at)| *asked == key && *at < now).map(|(_, at)| *at);
        let touched = asked.max().map_or(ended, |asked| asked.max(ended));
        let by_access = self.cache.expire_after_access.map_or(far, |life| touched + life);
        life.map_or(far, |life| ended + life).min(by_access)
    }

    /// No key was asked for that was known or in flight.
    fn judge_requests(&mut self) {
        let notes = self.store.notes.lock().unwrap();
        for (number, note) in notes.iter().enumerate().skip(self.judged) {
            let earlier = notes[..number].iter().enumerate();
            for (key, (before, earlier)) in note.keys.iter().flat_map(|key| earlier.clone().map(move |e| (*key, e))) {
                let forgotten = self.was_forgotten(key, before, |by| by.requests <= number);
                if !earlier.keys.contains(&key) || forgotten {
                    continue;
                }
                let what = format!("seed {}: key {key} again by {note:?} after {earlier:?}", self.seed);
                let in_flight = earlier.ended.is_none_or(|ended| ended > note.sent);
                assert!(!in_flight || earlier.columns != note.columns, "in flight: {what}");
                // An old answer of a query's own columns is refreshed though another query knows more.
                let holds = match self.cache.refresh_after {
                    Some(_) => note.columns == earlier.columns,
                    None => note.columns.iter().all(|column| earlier.columns.contains(column)),
                };
                if holds && earlier.answered && earlier.ended.is_some_and(|ended| ended <= note.sent) {
                    assert!(!self.is_surely_known(earlier, key, note.sent), "known: {what}");
                }
            }
        }
        self.judged = notes.len();
    }

    /// Whether the answer is so young that no jitter excuses another request.
    fn is_surely_known(&self, note: &Note, key: i64, now: Instant) -> bool {
        let age = now - note.ended.unwrap();
        let is_kept = key >= 0 || self.cache.expire_misses_after.is_some();
        let life = if key < 0 { self.cache.expire_misses_after } else { self.cache.expire_after_write };
        let lives = life.is_none_or(|life| age < life * 9 / 10)
            && self.cache.expire_after_access.is_none_or(|life| age < life * 9 / 10);
        is_kept && lives && self.cache.refresh_after.is_none_or(|refresh| age < refresh)
    }

    async fn end(mut self) {
        self.queries.iter_mut().for_each(|query| query.feed.end());
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.look().await;
        let left = (self.table.tasks(), self.table.flights.busy(), self.table.flights.entries());
        assert_eq!(left, (0, 0, 0), "seed {}: tasks, slots or flights are left", self.seed);
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |number| number.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn no_row_is_older_than_allowed_and_no_error_is_cached() {
    let first = number_from("LOOKASIDE_MODEL_SEED", 0);
    for seed in first..first + number_from("LOOKASIDE_MODEL_SEQUENCES", 100) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut model = Model::new(seed, &mut random);
        for _ in 0..60 {
            model.step(&mut random).await;
        }
        model.end().await;
    }
}
