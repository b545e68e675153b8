//! `generator`: rows made of SQL expressions over their number, at a steady rate.
//!
//! Row n is due (n − 1) / rate after the start. A reader that comes late gets all rows that are due at once; no row
//! is ever made before it is due. Each reading is a run of its own, from row 1.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use datafusion::arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use tokio::time::{Instant, sleep_until};

use crate::error::{Code, Error, Result};
use crate::expression::{ColumnExpression, ExpressionPlanner, Subject};
use crate::pg_type::PgType;
use crate::source::progress::{Progress, Reader};
use crate::source::{Range, RangeChoice, Reading, Source};

/// Most rows made at once.
const MAX_BATCH_ROWS: i64 = 8192;

/// A generator as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorConfig {
    /// 0: as fast as asked for.
    pub rows_per_second: f64,
    /// 0: endless.
    pub rows: u64,
    /// What `random()` depends on, beside column and row.
    pub seed: u64,
    /// Names and SQL expressions over `n`, which counts from 1.
    pub columns: Vec<(String, String)>,
}

/// A stream of made-up rows.
#[derive(Debug)]
pub struct GeneratorSource {
    name: String,
    rows_per_second: f64,
    rows: u64,
    columns: Vec<ColumnExpression>,
    schema: SchemaRef,
    progress: Arc<Progress>,
    /// The wall clock that `now()` reads: microseconds since 1970.
    clock: fn() -> i64,
}

impl GeneratorSource {
    /// `name` is the stream's in the catalog.
    ///
    /// # Errors
    /// 22023 for a rate that is none; what is wrong with an expression, naming column and stream.
    pub fn try_new(name: String, config: GeneratorConfig) -> Result<Self> {
        let rows_per_second = config.rows_per_second;
        if !(rows_per_second.is_finite() && rows_per_second >= 0.0) {
            return Err(Error::new(
                Code::InvalidParameterValue,
                format!("rows_per_second of stream \"{name}\" is {rows_per_second}, which is no rate"),
            )
            .with_hint("Write 0 or more; 0 makes rows as fast as they are asked for."));
        }
        let planner = ExpressionPlanner::try_new(subject(), config.seed)?;
        let columns = config.columns.iter().enumerate();
        let columns: Vec<ColumnExpression> = columns
            .map(|(position, (column, sql))| {
                planner.plan(position, column, sql).map_err(|error| in_column(&name, column, error))
            })
            .collect::<Result<_>>()?;
        let fields: Vec<_> = columns.iter().map(|column| column.field().clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let clock = || Utc::now().timestamp_micros();
        let progress = Arc::default();
        Ok(GeneratorSource { name, rows_per_second, rows: config.rows, columns, schema, progress, clock })
    }
}

/// The stream's type, as in the catalog file.
impl fmt::Display for GeneratorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("generator")
    }
}

#[async_trait]
impl Source for GeneratorSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// A run always begins with row 1.
    fn choice(&self) -> RangeChoice {
        RangeChoice::NONE
    }

    fn is_bounded(&self, _range: &Range) -> bool {
        self.rows != 0
    }

    fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    async fn found(&self) -> Result<String> {
        Ok(self.to_string())
    }

    async fn open(&self, reading: Reading) -> Result<SendableRecordBatchStream> {
        let Reading { projection, reader, .. } = reading;
        let schema = Arc::new(self.schema.project(&projection)?);
        let columns = projection.iter().filter_map(|position| self.columns.get(*position)).cloned().collect();
        // One row less than there are numbers, so that the number behind the last row is one.
        let most = (i64::MAX - 1) as u64;
        let last = match self.rows {
            0 => most,
            rows => rows.min(most),
        };
        let run = Run {
            stream: self.name.clone(),
            columns,
            schema: Arc::clone(&schema),
            pace: Pace { started: Instant::now(), rows_per_second: self.rows_per_second },
            next: 1,
            last: last as i64,
            clock: self.clock,
            _reader: reader,
        };
        let batches = stream::try_unfold(run, |mut run| async move {
            let batch = run.next_batch().await.map_err(DataFusionError::from)?;
            Ok(batch.map(|batch| (batch, run)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// One reading.
struct Run {
    stream: String,
    columns: Vec<ColumnExpression>,
    schema: SchemaRef,
    pace: Pace,
    /// The number of the row to make next.
    next: i64,
    last: i64,
    clock: fn() -> i64,
    _reader: Reader,
}

impl Run {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        if self.next > self.last {
            return Ok(None);
        }
        self.pace.wait_for(self.next).await;
        let most = self.next.saturating_add(MAX_BATCH_ROWS - 1).min(self.last);
        let through = self.pace.due_through().clamp(self.next, most);
        let batch = self.make(through);
        self.next = through + 1;
        batch.map(Some)
    }

    fn make(&self, through: i64) -> Result<RecordBatch> {
        let numbers = Int64Array::from_iter_values(self.next..=through);
        let input = subject().rows(vec![Arc::new(numbers.clone())], numbers, (self.clock)())?;
        let columns = self.columns.iter().map(|column| {
            column.evaluate(&input).map_err(|error| in_column(&self.stream, column.field().name(), error))
        });
        let columns = columns.collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(input.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// What a generator's expressions are over.
fn subject() -> Subject {
    Subject {
        maker: "a generator",
        hint: "Write an expression over n, the number of the row.".to_string(),
        columns: vec![PgType::Int8.field("n", false)],
    }
}

fn in_column(stream: &str, column: &str, error: Error) -> Error {
    error.with_context(format!("column \"{column}\" of stream \"{stream}\""))
}

/// When rows are due.
struct Pace {
    started: Instant,
    rows_per_second: f64,
}

impl Pace {
    /// Waits until `row` is due: for ever, if that is beyond what clocks can tell.
    async fn wait_for(&self, row: i64) {
        if self.rows_per_second == 0.0 {
            return;
        }
        let after = Duration::try_from_secs_f64((row - 1) as f64 / self.rows_per_second).ok();
        match after.and_then(|after| self.started.checked_add(after)) {
            Some(due) if due <= Instant::now() => {}
            Some(due) => sleep_until(due).await,
            None => futures::future::pending().await,
        }
    }

    /// The last row that is due by now. Rounding may put it one off, which the next look mends.
    fn due_through(&self) -> i64 {
        if self.rows_per_second == 0.0 {
            return i64::MAX;
        }
        // Conversion from a float saturates.
        let elapsed = self.started.elapsed().as_secs_f64();
        ((elapsed * self.rows_per_second).floor() as i64).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use futures::{FutureExt, StreamExt};
    use tokio::time::advance;

    use super::*;
    use crate::source::{Start, open_now};

    fn generator(rows_per_second: f64, rows: u64, sql: &str) -> Result<GeneratorSource> {
        let columns = vec![("a".to_string(), "n".to_string()), ("b".to_string(), sql.to_string())];
        GeneratorSource::try_new("orders".into(), GeneratorConfig { rows_per_second, rows, seed: 42, columns })
    }

    fn open(generator: &GeneratorSource) -> SendableRecordBatchStream {
        open_now(generator, Start::Earliest, &[0]).unwrap()
    }

    fn numbers(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    async fn next(rows: &mut SendableRecordBatchStream) -> Vec<i64> {
        numbers(&rows.next().await.unwrap().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_row_comes_when_it_is_due() {
        let mut rows = open(&generator(10.0, 0, "n").unwrap());
        let started = Instant::now();
        assert_eq!(next(&mut rows).await, [1]);
        assert_eq!(started.elapsed(), Duration::ZERO);
        for number in 2..=31 {
            assert!(rows.next().now_or_never().is_none(), "row {number} before it is due");
            assert_eq!(next(&mut rows).await, [number]);
            assert_eq!(started.elapsed(), Duration::from_millis(100) * (number as u32 - 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn late_rows_come_at_once() {
        let mut rows = open(&generator(10.0, 0, "n").unwrap());
        advance(Duration::from_millis(1050)).await;
        assert_eq!(rows.next().now_or_never().map(|batch| numbers(&batch.unwrap().unwrap())), Some((1..=11).collect()));
        assert!(rows.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_far_behind_gets_batches_of_bounded_size() {
        let mut rows = open(&generator(1000.0, 0, "n").unwrap());
        advance(Duration::from_secs(10)).await;
        assert_eq!(next(&mut rows).await, (1..=8192).collect::<Vec<_>>());
        assert_eq!(next(&mut rows).await, (8193..=10_001).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_never_comes_to_the_second_row_waits_and_does_not_panic() {
        let mut rows = open(&generator(f64::MIN_POSITIVE, 0, "n").unwrap());
        assert_eq!(next(&mut rows).await, [1]);
        assert!(rows.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn without_a_rate_rows_come_as_fast_as_asked_for_and_end_with_the_last() {
        let generator = generator(0.0, 10_000, "n").unwrap();
        assert!(generator.is_bounded(&Range::default()));
        let mut rows = open(&generator);
        assert_eq!(next(&mut rows).await.len(), 8192);
        assert_eq!(next(&mut rows).await, (8193..=10_000).collect::<Vec<_>>());
        assert!(rows.next().await.is_none());
        assert_eq!(next(&mut open(&generator)).await[0], 1, "each reading is a run of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn now_is_the_moment_at_which_the_row_is_made() {
        let mut generator = generator(1.0, 0, "now()").unwrap();
        static MICROSECONDS: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
        generator.clock = || MICROSECONDS.load(std::sync::atomic::Ordering::SeqCst);
        let mut rows = open_now(&generator, Start::Earliest, &[1]).unwrap();
        for moment in [1_000_000, 5_000_000] {
            MICROSECONDS.store(moment, std::sync::atomic::Ordering::SeqCst);
            let batch = rows.next().await.unwrap().unwrap();
            assert_eq!(batch.column(0).as_primitive::<TimestampMicrosecondType>().value(0), moment);
            assert_eq!(batch.schema(), rows.schema());
        }
    }

    #[tokio::test]
    async fn a_reading_without_columns_still_counts_rows() {
        let generator = generator(0.0, 3, "n").unwrap();
        let batch = open_now(&generator, Start::Earliest, &[]).unwrap().next().await.unwrap().unwrap();
        assert_eq!((batch.num_columns(), batch.num_rows()), (0, 3));
        assert!(open_now(&generator, Start::Earliest, &[2]).is_err());
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_made_ends_the_run_naming_stream_and_column() {
        let mut rows = open_now(&generator(0.0, 0, "9223372036854775800 + n").unwrap(), Start::Earliest, &[1]).unwrap();
        let error = Error::from(rows.next().await.unwrap().unwrap_err());
        assert!(error.message().starts_with("column \"b\" of stream \"orders\": "), "{}", error.message());
        assert_eq!(error.code(), Code::NumericOutOfRange);
        assert!(rows.next().await.is_none());
    }

    #[test]
    fn a_mistake_names_stream_and_column() {
        let error = generator(1.0, 0, "customer + 1").err().unwrap();
        assert!(error.message().starts_with("column \"b\" of stream \"orders\": "), "{}", error.message());
        assert!(error.message().contains("customer"), "{}", error.message());
    }

    #[test]
    fn a_rate_that_is_none_is_refused() {
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            let error = generator(wrong, 0, "n").err().unwrap();
            assert_eq!(error.code(), Code::InvalidParameterValue);
            assert!(error.message().starts_with("rows_per_second of stream \"orders\" is "), "{}", error.message());
        }
    }
}
