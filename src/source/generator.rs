//! Rows that are made up: each column a SQL expression over the row's number `n`.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, cast::as_int64_array};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, col, lit,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionConfig;
use tokio::time::Instant;

use super::{Source, Start};
use crate::error::{Error, Result};
use crate::pg_type::{PgType, UTC};

/// Most rows made at once.
const MAX_BATCH_ROWS: u64 = 8192;
/// The column that holds the moment at which a row is made; no user's expression can name it by accident.
const NOW_COLUMN: &str = "now()";

/// A generator as it is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorConfig {
    /// 0: as fast as asked for.
    pub rows_per_second: f64,
    /// 0: endless.
    pub rows: u64,
    pub seed: u64,
    /// Names and SQL expressions over `n`, a bigint that counts from 1.
    pub columns: Vec<(String, String)>,
}

/// Makes rows; each reader has a run of its own, from the first row on.
pub struct GeneratorSource {
    schema: SchemaRef,
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    pace: Pace,
}

/// When rows are due, and how many there are.
#[derive(Clone, Copy)]
struct Pace {
    rows_per_second: f64,
    rows: u64,
}

impl GeneratorSource {
    /// # Errors
    /// Whatever is wrong with an expression, naming stream and column.
    pub fn try_new(name: String, config: GeneratorConfig) -> Result<Self> {
        let planner = Planner::try_new(config.seed)?;
        let mut fields = vec![];
        let mut expressions = vec![];
        for (position, (column, text)) in config.columns.iter().enumerate() {
            let in_words = |error: Error| error.with_context(format!("column \"{column}\" of stream \"{name}\""));
            let (field, expression) = planner.plan(column, text, position as u64).map_err(in_words)?;
            fields.push(field);
            expressions.push(expression);
        }
        let pace = Pace { rows_per_second: config.rows_per_second, rows: config.rows };
        Ok(GeneratorSource { schema: Arc::new(Schema::new(fields)), expressions, pace })
    }
}

impl Source for GeneratorSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn is_bounded(&self) -> bool {
        self.pace.rows > 0
    }

    fn starts(&self) -> &'static [Start] {
        &[]
    }

    fn open(&self, _start: Start, projection: &[usize]) -> Result<SendableRecordBatchStream> {
        let schema = Arc::new(self.schema.project(projection)?);
        let run = Run {
            schema: Arc::clone(&schema),
            input: input_schema(),
            expressions: projection.iter().map(|column| Arc::clone(&self.expressions[*column])).collect(),
            pace: self.pace,
            started: Instant::now(),
            next: 1,
        };
        let batches = futures::stream::unfold(Some(run), |run| async move {
            let mut run = run?;
            let count = run.wait_for_rows().await?;
            match run.make(count) {
                Ok(batch) => Some((Ok(batch), Some(run))),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

impl fmt::Display for GeneratorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("generator")
    }
}

impl fmt::Debug for GeneratorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratorSource").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Pace {
    /// When row `n` is due, counted from the start.
    fn due(&self, n: u64) -> Duration {
        match self.rows_per_second > 0.0 {
            true => Duration::try_from_secs_f64((n - 1) as f64 / self.rows_per_second).unwrap_or(Duration::MAX),
            false => Duration::ZERO,
        }
    }

    /// The number of the last row that is due by then.
    fn last_due(&self, elapsed: Duration) -> u64 {
        let due = match self.rows_per_second > 0.0 {
            // A hair more than the quotient: the row that was waited for must not be missed by rounding.
            true => (elapsed.as_secs_f64() * self.rows_per_second + 1e-6) as u64 + 1,
            false => u64::MAX,
        };
        if self.rows > 0 { due.min(self.rows) } else { due }
    }
}

/// One reader's run.
struct Run {
    schema: SchemaRef,
    input: SchemaRef,
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    pace: Pace,
    started: Instant,
    next: u64,
}

impl Run {
    /// Waits until rows are due and tells how many; `None` at the end.
    async fn wait_for_rows(&self) -> Option<u64> {
        if self.pace.rows > 0 && self.next > self.pace.rows {
            return None;
        }
        let due = self.pace.due(self.next);
        if self.started.elapsed() < due {
            match self.started.checked_add(due) {
                Some(moment) => tokio::time::sleep_until(moment).await,
                None => std::future::pending().await,
            }
        }
        let last = self.pace.last_due(self.started.elapsed()).max(self.next);
        Some((last - self.next).saturating_add(1).min(MAX_BATCH_ROWS))
    }

    fn make(&mut self, count: u64) -> Result<RecordBatch> {
        let numbers = Int64Array::from_iter_values((self.next..self.next + count).map(|n| n as i64));
        let now = chrono::Utc::now().timestamp_micros();
        let moments = TimestampMicrosecondArray::from_value(now, count as usize).with_timezone(UTC);
        let input = RecordBatch::try_new(Arc::clone(&self.input), vec![Arc::new(numbers), Arc::new(moments)])?;
        let columns = self.expressions.iter().zip(self.schema.fields()).map(|(expression, field)| {
            let value = expression.evaluate(&input)?.into_array(input.num_rows())?;
            Ok(if value.data_type() == field.data_type() { value } else { cast(&value, field.data_type())? })
        });
        let columns = columns.collect::<DataFusionResult<Vec<ArrayRef>>>()?;
        self.next += count;
        let options = RecordBatchOptions::new().with_row_count(Some(count as usize));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// What expressions are evaluated over: the row's number and the moment it is made.
fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), PgType::Timestamptz.field(NOW_COLUMN, false)]))
}

/// Makes expressions of SQL text.
struct Planner {
    state: SessionState,
    schema: DFSchema,
    seed: u64,
}

impl Planner {
    fn try_new(seed: u64) -> Result<Self> {
        let config = SessionConfig::new()
            .set_str("datafusion.sql_parser.dialect", "postgres")
            .set_bool("datafusion.sql_parser.parse_float_as_decimal", true);
        let state = SessionStateBuilder::new().with_default_features().with_config(config).build();
        let schema = DFSchema::try_from(input_schema())?;
        Ok(Planner { state, schema, seed })
    }

    fn plan(&self, column: &str, text: &str, position: u64) -> Result<(Field, Arc<dyn PhysicalExpr>)> {
        let expr = self.state.create_logical_expr(text, &self.schema)?;
        let expr = self.take_over(expr, position)?;
        let nullable = expr.nullable(&self.schema)?;
        let (_, field) = expr.to_field(&self.schema)?;
        let pg_type = PgType::of_field(&field)?;
        let physical = self.state.create_physical_expr(expr, &self.schema)?;
        Ok((pg_type.field(column, nullable), physical))
    }

    /// `now()` is the moment at which a row is made, and `random()` follows from seed, column and row.
    fn take_over(&self, expr: Expr, position: u64) -> Result<Expr> {
        let mut occurrence = 0_u64;
        let mut refused = None;
        expr.apply(|node| {
            refused = refused.take().or(match node {
                Expr::AggregateFunction(_) | Expr::WindowFunction(_) => Some("an aggregate or window function"),
                Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
                    Some("a subquery")
                }
                Expr::Placeholder(_) => Some("a parameter"),
                _ => None,
            });
            Ok(TreeNodeRecursion::Continue)
        })?;
        if let Some(what) = refused {
            return Err(Error::unsupported(format!("{what} has no meaning in a generator's expression")));
        }
        let taken = expr.transform_up(|node| {
            let Expr::ScalarFunction(function) = &node else { return Ok(Transformed::no(node)) };
            Ok(match function.name() {
                "now" | "current_timestamp" => Transformed::yes(col(format!("\"{NOW_COLUMN}\""))),
                "random" => {
                    occurrence += 1;
                    let salt = mix(mix(self.seed, position), occurrence);
                    let random = ScalarUDF::from(SeededRandom::new());
                    Transformed::yes(random.call(vec![col("n"), lit(salt as i64)]))
                }
                _ => Transformed::no(node),
            })
        })?;
        Ok(taken.data)
    }
}

/// `random()` of a row: a double from 0 up to 1, from the row's number and a salt.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SeededRandom {
    signature: Signature,
}

impl SeededRandom {
    fn new() -> Self {
        SeededRandom { signature: Signature::exact(vec![DataType::Int64, DataType::Int64], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for SeededRandom {
    fn name(&self) -> &str {
        "seeded_random"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (numbers, salts) = (as_int64_array(&arrays[0])?, as_int64_array(&arrays[1])?);
        let values = (0..numbers.len()).map(|row| {
            let bits = mix(salts.value(row) as u64, numbers.value(row) as u64);
            // The 53 bits that a double holds exactly.
            (bits >> 11) as f64 / (1_u64 << 53) as f64
        });
        Ok(ColumnarValue::Array(Arc::new(Float64Array::from_iter_values(values))))
    }
}

/// One number from two, with every bit of either in it; the same on every machine.
fn mix(one: u64, other: u64) -> u64 {
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    hasher.write_u64(one);
    hasher.write_u64(other);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{Float64Type, Int64Type};
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn source(rows_per_second: f64, rows: u64, columns: &[(&str, &str)]) -> Result<GeneratorSource> {
        let columns = columns.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        GeneratorSource::try_new("orders".into(), GeneratorConfig { rows_per_second, rows, seed: 7, columns })
    }

    fn numbers(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn rows_come_when_they_are_due_and_late_ones_at_once() {
        let source = source(20.0, 0, &[("id", "n")]).unwrap();
        let mut stream = source.open(Start::Earliest, &[0]).unwrap();
        assert_eq!(numbers(&stream.next().await.unwrap().unwrap()), [1]);
        assert!(stream.next().now_or_never().is_none(), "the second row is not due yet");
        let before = Instant::now();
        assert_eq!(numbers(&stream.next().await.unwrap().unwrap()), [2]);
        assert_eq!(before.elapsed().as_millis(), 50);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(numbers(&stream.next().await.unwrap().unwrap()), (3..=12).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounded_run_ends_after_its_rows_and_each_reader_has_its_own() {
        let source = source(0.0, 10_000, &[("id", "n")]).unwrap();
        assert!(source.is_bounded());
        for _ in 0..2 {
            let batches: Vec<_> =
                source.open(Start::Earliest, &[0]).unwrap().map(|batch| batch.unwrap()).collect().await;
            assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [8192, 1808]);
            assert_eq!(numbers(&batches[1])[0], 8193);
        }
    }

    #[tokio::test]
    async fn random_depends_on_seed_column_and_row_alone() {
        let source = source(0.0, 1000, &[("a", "random()"), ("b", "random()"), ("c", "random() - random()")]).unwrap();
        let read = async || source.open(Start::Earliest, &[0, 1, 2]).unwrap().next().await.unwrap().unwrap();
        let (one, other) = (read().await, read().await);
        assert_eq!(one, other);
        let values = one.column(0).as_primitive::<Float64Type>().values().to_vec();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert_ne!(one.column(0), one.column(1));
        assert!(one.column(2).as_primitive::<Float64Type>().values().iter().all(|value| *value != 0.0));
    }

    #[tokio::test]
    async fn types_follow_from_the_expressions() {
        let columns = [
            ("price", "CAST(n % 100 AS numeric(12,2))"),
            ("label", "concat('row ', n)"),
            ("at", "now()"),
            ("maybe", "CASE WHEN n % 2 = 0 THEN n END"),
        ];
        let source = source(0.0, 2, &columns).unwrap();
        let types: Vec<_> =
            source.schema().fields().iter().map(|field| PgType::of_field(field).unwrap().to_string()).collect();
        assert_eq!(types, ["numeric(12,2)", "text", "timestamp with time zone", "bigint"]);
        assert!(source.schema().field(3).is_nullable());
        let batch = source.open(Start::Earliest, &[3, 1]).unwrap().next().await.unwrap().unwrap();
        assert_eq!(batch.column(0).null_count(), 1);
        assert_eq!(batch.column(1).as_string_view().value(1), "row 2");
    }

    #[test]
    fn wrong_expressions_name_stream_and_column() {
        let message = |text| source(1.0, 0, &[("id", text)]).unwrap_err().message().to_string();
        assert_eq!(message("m + 1"), "column \"id\" of stream \"orders\": column \"m\" does not exist");
        assert_eq!(message("no_such(n)"), "column \"id\" of stream \"orders\": function no_such() does not exist");
        assert!(message("count(n)").contains("has no meaning in a generator"), "{}", message("count(n)"));
        assert!(message("n +").starts_with("column \"id\" of stream \"orders\": "), "{}", message("n +"));
    }
}
