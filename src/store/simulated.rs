//! A store for experiments: rows computed from their key, after a delay, with the faults that were ordered.
//!
//! Which keys are missing, doubled or bad depends on key and seed: it is always the same ones. Which requests are slow,
//! fail or stall depends on seed and the number of the request. Time is tokio's, so that tests can pause it.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use datafusion::arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array,
};
use datafusion::arrow::compute::kernels::cmp::eq;
use datafusion::arrow::compute::{and, concat_batches, filter, filter_record_batch, take};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::Expr;
use tokio::time::Instant;

use super::memory_index::{comparable, key_equality};
use super::simulated_chance::{Chance, Roll};
pub use super::simulated_chance::{Latency, SimulatedError};
use super::size::{AnswerRoom, POSITION_BYTES, column_bytes};
use super::{Answer, KeyEquality, LookupRequest, RowBatches, ScanRequest, Store, StoreError};
use crate::error::{Code, Error, Result};
use crate::expression::{ColumnExpression, ExpressionPlanner, Subject};
use crate::pg_type::PgType;

/// The number of a row among those of its key, in expressions; from 1.
const ROW_OF_KEY: &str = "n";
/// Rows made at once. An answer beyond its bytes is not made to the end.
const CHUNK_ROWS: usize = 8192;

/// A simulated table as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedConfig {
    /// What chance depends on, beside keys and requests.
    pub seed: u64,
    /// The columns that lookups are by, all of them.
    pub key: Vec<(String, PgType)>,
    /// The other columns: names and SQL expressions over the key's columns and `n`, the row's number among those of its key.
    pub columns: Vec<(String, String)>,
    pub behaviour: Behaviour,
}

/// What the store does beside answering. Shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// How long a request takes, whatever becomes of it.
    pub latency: Latency,
    /// The share of requests that fail, with `error`.
    pub errors: f64,
    pub error: SimulatedError,
    /// The share of requests that are never answered.
    pub stalls: f64,
    /// The share of keys that have no row.
    pub misses: f64,
    /// The share of keys for which a request fails with a data error (SQLSTATE 22P02).
    pub bad_keys: f64,
    /// Rows of a key that is not missing.
    pub rows_per_key: NonZeroUsize,
    /// The share of keys that have one row more.
    pub duplicates: f64,
    /// When the store refuses requests, counted from when it was made. What is under way then fails as well.
    pub outages: Vec<Range<Duration>>,
}

/// A store that answers at once and never fails: each key has one row.
impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            latency: Latency::Fixed(Duration::ZERO),
            errors: 0.0,
            error: SimulatedError::Unavailable,
            stalls: 0.0,
            misses: 0.0,
            bad_keys: 0.0,
            rows_per_key: NonZeroUsize::MIN,
            duplicates: 0.0,
            outages: Vec::new(),
        }
    }
}

/// Made-up rows.
pub struct SimulatedStore {
    name: String,
    schema: SchemaRef,
    /// How many columns the key has; they stand first.
    key_columns: usize,
    subject: Subject,
    columns: Vec<ColumnExpression>,
    converter: RowConverter,
    chance: Chance,
    behaviour: Behaviour,
    began: Instant,
    requests: AtomicU64,
    running: AtomicU64,
}

impl SimulatedStore {
    /// `name` is the lookup table's in the catalog.
    ///
    /// # Errors
    /// 42P10 without a key, 42701 for a name that is taken, 0A000 for a key of a type without an order; what is wrong
    /// with an expression, naming column and table.
    pub fn try_new(name: String, config: SimulatedConfig) -> Result<Self> {
        let in_table = |error: Error| error.with_context(format!("lookup table \"{name}\""));
        check_names(&config).map_err(in_table)?;
        let mut fields: Vec<_> = config.key.iter().map(|(column, pg_type)| pg_type.field(column, false)).collect();
        let sorted = config.key.iter().map(|(_, pg_type)| {
            let compared = comparable(&new_empty_array(&pg_type.arrow()), pg_type)?;
            Ok(SortField::new(compared.data_type().clone()))
        });
        let converter = RowConverter::new(sorted.collect::<Result<_>>()?)?;
        let names = config.key.iter().map(|(column, _)| column.as_str()).collect::<Vec<_>>().join(", ");
        let subject = Subject {
            maker: "a simulated table",
            hint: format!("Write an expression over the key ({names}) and n, the row's number among those of its key."),
            columns: fields.iter().cloned().chain([PgType::Int8.field(ROW_OF_KEY, false)]).collect(),
        };
        let planner = ExpressionPlanner::try_new(subject.clone(), config.seed)?;
        let mut columns = Vec::with_capacity(config.columns.len());
        for (position, (column, sql)) in config.columns.iter().enumerate() {
            let planned = planner.plan(position, column, sql);
            columns.push(planned.map_err(|error| in_table(error.with_context(format!("column \"{column}\""))))?);
        }
        let key_columns = fields.len();
        fields.extend(columns.iter().map(|column| column.field().clone()));
        Ok(SimulatedStore {
            schema: Arc::new(Schema::new(fields)),
            name,
            key_columns,
            subject,
            columns,
            converter,
            chance: Chance::new(config.seed),
            behaviour: config.behaviour,
            began: Instant::now(),
            requests: AtomicU64::new(0),
            running: AtomicU64::new(0),
        })
    }

    /// How many requests came.
    pub fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    /// How many requests have come and have neither been answered nor dropped.
    pub fn running(&self) -> u64 {
        self.running.load(SeqCst)
    }

    /// What a request is answered with that meets no fault but those of its keys.
    ///
    /// # Errors
    /// 22P02 for a bad key; what evaluating a column says of a key; too large.
    pub fn answer(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let keys = self.keys_in_order(request)?;
        let hashes = self.hashes(&keys)?;
        if let Some(bad) =
            hashes.iter().position(|hash| self.chance.meets(Roll::BadKey, *hash, self.behaviour.bad_keys))
        {
            let message = format!("key {bad} of the request is one of the simulated bad keys");
            return Err(StoreError::Failed { message, sqlstate: Some("22P02".to_string()) });
        }
        let rows_of = |key: usize| (1..=self.rows_of_key(hashes[key])).map(move |nth| (key as u32, nth));
        let mut rows = (0..hashes.len()).flat_map(rows_of);
        let mut room = AnswerRoom::new(request.max_answer_bytes);
        let schema = Arc::new(self.schema.project(&request.shape.columns).map_err(Error::from)?);
        let (mut batches, mut key_of_row) = (Vec::new(), Vec::new());
        loop {
            let chunk: Vec<(u32, i64)> = rows.by_ref().take(CHUNK_ROWS).collect();
            if chunk.is_empty() {
                break;
            }
            let chunk = self.make(&schema, request, &keys, &hashes, &chunk)?;
            room.take(chunk.key_of_row.len() as u64 * POSITION_BYTES)?;
            chunk.rows.columns().iter().try_for_each(|column| room.take(column_bytes(column)))?;
            key_of_row.extend_from_slice(chunk.key_of_row.values());
            batches.push(chunk.rows);
        }
        let rows = match batches.as_slice() {
            [] => RecordBatch::new_empty(schema),
            [all] => all.clone(),
            batches => concat_batches(&schema, batches).map_err(Error::from)?,
        };
        Ok(Answer { rows, key_of_row: UInt32Array::from(key_of_row) })
    }

    fn rows_of_key(&self, hash: u64) -> i64 {
        let Behaviour { misses, duplicates, rows_per_key, .. } = &self.behaviour;
        if self.chance.meets(Roll::Miss, hash, *misses) {
            return 0;
        }
        rows_per_key.get() as i64 + i64::from(self.chance.meets(Roll::Duplicate, hash, *duplicates))
    }

    /// The rows of `chunk`, each the number of a key and the row's number among those of that key; without those in
    /// which a column that is compared as well has another value.
    fn make(
        &self,
        schema: &SchemaRef,
        request: &LookupRequest,
        keys: &[ArrayRef],
        hashes: &[u64],
        chunk: &[(u32, i64)],
    ) -> Result<Answer> {
        let shape = &request.shape;
        let key_of_row = UInt32Array::from_iter_values(chunk.iter().map(|(key, _)| *key));
        let keys = keys.iter().map(|column| take(column, &key_of_row, None)).collect::<Result<Vec<_>, _>>()?;
        let nth: ArrayRef = Arc::new(Int64Array::from_iter_values(chunk.iter().map(|(_, nth)| *nth)));
        let numbers = chunk.iter().map(|(key, nth)| hashes[*key as usize].wrapping_add(*nth as u64) as i64);
        let inputs = keys.iter().cloned().chain([nth]).collect();
        let input = self.subject.rows(inputs, Int64Array::from_iter_values(numbers), Utc::now().timestamp_micros())?;
        let value_of = |column: usize| match keys.get(column) {
            Some(key) => Ok(Arc::clone(key)),
            None => {
                let expression = &self.columns[column - self.key_columns];
                let name = expression.field().name();
                expression.evaluate(&input).map_err(|error| error.with_context(format!("column \"{name}\"")))
            }
        };
        let columns = shape.columns.iter().map(|&column| value_of(column)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(chunk.len()));
        let mut answer = Answer {
            rows: RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?,
            key_of_row: key_of_row.clone(),
        };
        let compared = shape.key_columns.iter().zip(&request.keys).filter(|(column, _)| **column >= self.key_columns);
        let mut matches: Option<BooleanArray> = None;
        for (&column, wanted) in compared {
            let wanted = take(wanted, &key_of_row, None)?;
            let pg_type = PgType::of_field(self.schema.field(column))?;
            let equal = eq(&comparable(&value_of(column)?, &pg_type)?, &comparable(&wanted, &pg_type)?)?;
            matches = Some(matches.map_or(Ok(equal.clone()), |matches| and(&matches, &equal))?);
        }
        if let Some(matches) = matches {
            answer.rows = filter_record_batch(&answer.rows, &matches)?;
            answer.key_of_row = filter(&key_of_row, &matches)?.as_primitive().clone();
        }
        Ok(answer)
    }

    /// The request's keys in the order of this table's columns.
    fn keys_in_order(&self, request: &LookupRequest) -> Result<Vec<ArrayRef>> {
        let shape = &request.shape;
        let columns = self.schema.fields().len();
        if let Some(column) = shape.columns.iter().find(|&&column| column >= columns) {
            return Err(Error::internal(format!("column {column} was asked of a table with {columns} columns")));
        }
        if let Some(filter) = shape.filters.first() {
            return Err(Error::internal(format!("a simulated table cannot apply {filter}")));
        }
        self.check_keys(&shape.key_columns)?;
        let key = |column| {
            let place = shape.key_columns.iter().position(|&of| of == column);
            place.and_then(|place| request.keys.get(place)).cloned()
        };
        let keys = (0..self.key_columns).map(key).collect::<Option<Vec<_>>>();
        keys.ok_or_else(|| Error::internal("a lookup needs an array of keys for each key column"))
    }

    /// A number for each key, the same for keys that are equal.
    fn hashes(&self, keys: &[ArrayRef]) -> Result<Vec<u64>> {
        let fields = self.schema.fields().iter();
        let compared = keys.iter().zip(fields).map(|(key, field)| comparable(key, &PgType::of_field(field)?));
        let keys = compared.collect::<Result<Vec<_>>>()?;
        Ok(self.converter.convert_columns(&keys)?.iter().map(|key| self.chance.of_bytes(key.as_ref())).collect())
    }

    fn refuse_in_outage(&self) -> Result<(), StoreError> {
        let since = self.began.elapsed();
        match self.behaviour.outages.iter().any(|outage| outage.contains(&since)) {
            true => Err(StoreError::Unavailable { message: "simulated outage".to_string() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Store for SimulatedStore {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn primary_key(&self) -> Vec<usize> {
        match self.behaviour.rows_per_key == NonZeroUsize::MIN && self.behaviour.duplicates == 0.0 {
            true => (0..self.key_columns).collect(),
            false => vec![],
        }
    }

    /// Conditions are applied where those of other tables are.
    fn can_filter(&self, _: &Expr) -> bool {
        false
    }

    /// Rows are computed from their whole key.
    fn check_keys(&self, key_columns: &[usize]) -> Result<()> {
        let fields = self.schema.fields();
        if let Some(missing) = (0..self.key_columns).find(|column| !key_columns.contains(column)) {
            let (name, column) = (&self.name, fields[missing].name());
            let message = format!("column \"{column}\" of the key of simulated table \"{name}\" is not compared");
            return Err(Error::unsupported(message).with_hint("Its rows are computed from the whole key."));
        }
        Ok(())
    }

    fn key_equality(&self, column: usize) -> KeyEquality {
        let field = self.schema.fields().get(column);
        field.map_or_else(|| KeyEquality::unknown_column(column), |field| key_equality(field))
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        let _running = Running::new(&self.running);
        let number = self.requests.fetch_add(1, SeqCst);
        self.refuse_in_outage()?;
        let Behaviour { latency, errors, error, stalls, .. } = &self.behaviour;
        if self.chance.meets(Roll::Stall, number, *stalls) {
            std::future::pending::<()>().await;
        }
        let latency = self.chance.latency(latency, number);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
            self.refuse_in_outage()?;
        }
        if self.chance.meets(Roll::Error, number, *errors) {
            return Err(error.to_store_error());
        }
        self.answer(request)
    }

    /// There is a row for whatever key somebody asks for.
    fn can_scan(&self) -> bool {
        false
    }

    async fn scan(&self, _: &ScanRequest) -> Result<RowBatches, StoreError> {
        Err(Error::unsupported(format!("simulated table \"{}\" cannot be read without a key", self.name)).into())
    }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedStore").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Counts a request for as long as somebody waits for it.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn new(running: &'a AtomicU64) -> Self {
        running.fetch_add(1, SeqCst);
        Running(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn check_names(config: &SimulatedConfig) -> Result<()> {
    if config.key.is_empty() {
        return Err(Error::new(Code::InvalidColumnReference, "a simulated table needs a key"));
    }
    let mut names: Vec<&str> = vec![];
    for name in config.key.iter().map(|(name, _)| name).chain(config.columns.iter().map(|(name, _)| name)) {
        if names.contains(&name.as_str()) {
            return Err(Error::new(Code::DuplicateColumn, format!("column \"{name}\" is declared twice")));
        }
        names.push(name);
    }
    for (name, pg_type) in &config.key {
        if name == ROW_OF_KEY {
            let message = format!("a key column cannot be called \"{ROW_OF_KEY}\"");
            return Err(Error::new(Code::DuplicateColumn, message)
                .with_hint("In expressions, n is the row's number among those of its key."));
        }
        key_equality(&pg_type.field(name, false)).check_key(name)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "simulated_tests.rs"]
mod tests;
