//! Columns of made-up rows: SQL over what tells one row from another, planned once and evaluated for many rows.
//!
//! `now()` would be folded into a constant by DataFusion's planner, and `random()` would differ from run to run.
//! Both are replaced before planning: `now()` by a hidden column with the moment at which the rows are made,
//! `random()` by a function of seed, column and the row's number, a hidden column as well.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, cast::as_primitive_array};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{self, BinaryExpr};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::DataType as SqlType;

use crate::error::{Code, Error, Result};
use crate::pg_type::{PgType, UTC};

/// The hidden columns. No expression can name them: they are not there yet when expressions are parsed.
const MADE_AT: &str = "now()";
const ROW_NUMBER: &str = "random()";

/// What expressions are over, and how messages call it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What makes the rows: "a generator".
    pub maker: &'static str,
    /// For whom writes something else: "Write an expression over n, the number of the row.".
    pub hint: String,
    /// The columns that expressions may name.
    pub columns: Vec<Field>,
}

impl Subject {
    /// Rows for expressions to be evaluated over: `columns` as declared, all made at `made_at` (microseconds since 1970).
    /// On `numbers` depends what is random in a row.
    ///
    /// # Errors
    /// XX000 if the columns are not those declared.
    pub fn rows(&self, mut columns: Vec<ArrayRef>, numbers: Int64Array, made_at: i64) -> Result<RecordBatch> {
        columns.push(Arc::new(TimestampMicrosecondArray::from_value(made_at, numbers.len()).with_timezone(UTC)));
        columns.push(Arc::new(numbers));
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }

    fn schema(&self) -> SchemaRef {
        let hidden = [PgType::Timestamptz.field(MADE_AT, false), PgType::Int8.field(ROW_NUMBER, false)];
        Arc::new(Schema::new(self.columns.iter().cloned().chain(hidden).collect::<Vec<_>>()))
    }
}

/// One column, ready to be evaluated.
#[derive(Clone, Debug)]
pub struct ColumnExpression {
    expression: Arc<dyn PhysicalExpr>,
    field: Field,
}

impl ColumnExpression {
    /// The column as its readers see it.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The column's values for `input`, which is of [`Subject::rows`].
    ///
    /// # Errors
    /// What PostgreSQL would refuse in a row too, such as 22003 or 22012.
    pub fn evaluate(&self, input: &RecordBatch) -> Result<ArrayRef> {
        Ok(self.expression.evaluate(input).and_then(|value| value.into_array(input.num_rows()))?)
    }
}

/// Plans expressions with DataFusion's functions in PostgreSQL's dialect.
pub struct ExpressionPlanner {
    state: SessionState,
    subject: Subject,
    parsed_over: DFSchema,
    planned_over: DFSchema,
    seed: u64,
}

impl ExpressionPlanner {
    /// # Errors
    /// XX000 if DataFusion refuses the schema of what expressions are over.
    pub fn try_new(subject: Subject, seed: u64) -> Result<Self> {
        let config = SessionConfig::new()
            .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
            .set_str("datafusion.sql_parser.dialect", "postgres");
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_type_planner(Arc::new(PostgresTypes { maker: subject.maker }))
            .build();
        let planned_over = DFSchema::try_from(subject.schema())?;
        let parsed_over = DFSchema::try_from(Arc::new(Schema::new(subject.columns.clone())))?;
        Ok(ExpressionPlanner { state, subject, parsed_over, planned_over, seed })
    }

    /// The expression `sql` of the column `name`, which is the maker's number `position`.
    ///
    /// # Errors
    /// What is wrong with the expression; 0A000 for subqueries, functions that give other values
    /// each time and types that no client can read, 42803 for aggregates.
    pub fn plan(&self, position: usize, name: &str, sql: &str) -> Result<ColumnExpression> {
        let parsed = self.state.sql_to_expr_with_alias(sql, &self.state.config_options().sql_parser.dialect)?;
        if let Some(alias) = &parsed.alias {
            let message = format!("an expression cannot be followed by \"{alias}\" in {}", self.subject.maker);
            return Err(Error::new(Code::SyntaxError, message));
        }
        let expr = self.state.create_logical_expr_from_sql_expr(parsed, &self.parsed_over)?;
        // DataFusion gives names of its own to what it rewrites, such as current_timestamp.
        let expr = expr.unalias_nested().data;
        expr.apply(|node| self.refuse(node).map_err(Into::into).map(|()| TreeNodeRecursion::Continue))?;
        let expr = self.replace_functions(position, expr)?;
        let planned = checked(&self.state.create_physical_expr(expr, &self.planned_over)?)?;
        let schema = self.planned_over.as_arrow();
        let planned_field = planned.return_field(schema)?;
        let pg_type = PgType::of_field(&planned_field.as_ref().clone().with_name(name))?;
        let field = pg_type.field(name, planned_field.is_nullable());
        let expression = expressions::cast(planned, schema, pg_type.arrow())?;
        Ok(ColumnExpression { expression, field })
    }

    /// Refuses what has no meaning for one row alone, or would not give the same rows again.
    fn refuse(&self, expr: &Expr) -> Result<()> {
        let what = match expr {
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_) => "a subquery",
            Expr::AggregateFunction(function) => {
                let message =
                    format!("aggregate function {} is not allowed in {}", function.func.name(), self.subject.maker);
                return Err(Error::new(Code::GroupingError, message));
            }
            Expr::WindowFunction(_) => "a window function",
            Expr::Alias(_) => "an alias",
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => "a parameter",
            Expr::Unnest(_) => "a function that gives several rows",
            Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => "a lambda",
            Expr::OuterReferenceColumn(..) | Expr::GroupingSet(_) => "a reference to another query",
            Expr::ScalarFunction(function) => return self.refuse_unpredictable(&function.func),
            #[expect(deprecated, reason = "it must be named to be refused")]
            Expr::Wildcard { .. } => "a star",
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::BinaryExpr(_)
            | Expr::Like(_)
            | Expr::SimilarTo(_)
            | Expr::Not(_)
            | Expr::IsNotNull(_)
            | Expr::IsNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::InList(_) => return Ok(()),
        };
        Err(Error::unsupported(format!("{what} is not supported in {}'s expression", self.subject.maker))
            .with_hint(self.subject.hint.clone()))
    }

    fn refuse_unpredictable(&self, function: &ScalarUDF) -> Result<()> {
        let is_replaced = matches!(function.name(), "now" | "current_date" | "current_time" | "random");
        if is_replaced || function.signature().volatility == Volatility::Immutable {
            return Ok(());
        }
        let message = format!("function {}() is not supported in {}'s expression", function.name(), self.subject.maker);
        Err(Error::unsupported(message)
            .with_hint("What is to differ from row to row can be made of its columns and random()."))
    }

    fn replace_functions(&self, position: usize, expr: Expr) -> DataFusionResult<Expr> {
        let mut calls_of_random = 0;
        let hidden = |name| Expr::Column(Column::new_unqualified(name));
        let made_at = || hidden(MADE_AT);
        expr.transform_up(|node| {
            let Expr::ScalarFunction(ScalarFunction { func, args }) = &node else { return Ok(Transformed::no(node)) };
            if !args.is_empty() {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(match func.name() {
                "now" => made_at(),
                "current_date" => cast(made_at(), DataType::Date32),
                "current_time" => cast(made_at(), DataType::Time64(TimeUnit::Microsecond)),
                "random" => {
                    calls_of_random += 1;
                    let random = SeededRandom::new(self.seed, position as u64, calls_of_random);
                    ScalarUDF::from(random).call(vec![hidden(ROW_NUMBER)])
                }
                _ => return Ok(Transformed::no(node)),
            }))
        })
        .data()
    }
}

/// Integers overflow with an error, as PostgreSQL's do; DataFusion's own arithmetic wraps.
fn checked(expression: &Arc<dyn PhysicalExpr>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
    let expression = Arc::clone(expression).transform_up(|node| match node.downcast_ref::<BinaryExpr>() {
        Some(binary) if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) => {
            let binary = BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()));
            Ok(Transformed::yes(Arc::new(binary.with_fail_on_overflow(true)) as _))
        }
        _ => Ok(Transformed::no(node)),
    });
    expression.data()
}

/// PostgreSQL's types for the types in casts: `timestamp` counts microseconds, `numeric` is numeric(38,18).
#[derive(Debug)]
struct PostgresTypes {
    maker: &'static str,
}

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> DataFusionResult<Option<FieldRef>> {
        let pg_type = PgType::parse(&sql_type.to_string())?;
        match pg_type {
            // DataFusion's cast to the type that holds them would let anything through.
            PgType::Bytea
            | PgType::Uuid
            | PgType::Json
            | PgType::Jsonb
            | PgType::Name
            | PgType::Char
            | PgType::Oid
            | PgType::Array(_) => {
                let message = format!("a cast to {pg_type} is not available yet in {}'s expression", self.maker);
                Err(Error::unsupported(message).into())
            }
            _ => Ok(Some(Arc::new(pg_type.field("", true)))),
        }
    }
}

/// `random()`: a number in [0, 1) that seed, column, call and the row's number tell.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SeededRandom {
    key: u64,
    signature: Signature,
}

impl SeededRandom {
    fn new(seed: u64, column: u64, call: u64) -> Self {
        let key = mix(mix(seed.wrapping_add(mix(column))).wrapping_add(call));
        SeededRandom { key, signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable) }
    }

    /// The upper 53 bits, as many as a double has.
    fn value(&self, row_number: i64) -> f64 {
        let bits = mix(self.key.wrapping_add(mix(row_number as u64)));
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl ScalarUDFImpl for SeededRandom {
    fn name(&self) -> &str {
        "random"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Float64)
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), DataType::Float64, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [numbers] = args.args.as_slice() else {
            return Err(Error::internal(format!("random() of {} arguments", args.args.len())).into());
        };
        let numbers = numbers.to_array(args.number_rows)?;
        let numbers = as_primitive_array::<Int64Type>(&numbers)?;
        let values = Float64Array::from_iter_values(numbers.values().iter().map(|number| self.value(*number)));
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}

/// SplitMix64: every bit of the input turns each bit of the output with a chance of a half
/// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array, AsArray};
    use datafusion::arrow::datatypes::Float64Type;
    use datafusion::arrow::util::display::array_value_to_string;

    use super::*;

    /// 2024-02-29 12:34:56.789012 UTC.
    const MADE_AT_MICROSECONDS: i64 = 1_709_210_096_789_012;

    /// As a generator has it.
    fn subject() -> Subject {
        let hint = "Write an expression over n, the number of the row.".to_string();
        Subject { maker: "a generator", hint, columns: vec![PgType::Int8.field("n", false)] }
    }

    fn input(numbers: std::ops::RangeInclusive<i64>, made_at: i64) -> Result<RecordBatch> {
        let numbers = Int64Array::from_iter_values(numbers);
        subject().rows(vec![Arc::new(numbers.clone())], numbers, made_at)
    }

    fn plan(sql: &str) -> Result<ColumnExpression> {
        ExpressionPlanner::try_new(subject(), 42).unwrap().plan(0, "a", sql)
    }

    /// The values for rows 1 to 3.
    fn values(sql: &str) -> Vec<String> {
        let column = plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let array = column.evaluate(&input(1..=3, MADE_AT_MICROSECONDS).unwrap()).unwrap();
        assert_eq!(array.data_type(), column.field().data_type(), "{sql}");
        (0..array.len()).map(|row| array_value_to_string(&array, row).unwrap()).collect()
    }

    #[test]
    fn types_come_from_the_expressions_as_postgres_types() {
        let cases = [
            ("n", PgType::Int8),
            ("n % 1000", PgType::Int8),
            ("'order ' || n", PgType::Text),
            ("CAST(n AS text)", PgType::Text),
            ("CAST(n AS numeric(12,2))", PgType::Numeric { precision: 12, scale: 2 }),
            ("n::integer", PgType::Int4),
            ("n::smallint", PgType::Int2),
            ("n > 2", PgType::Bool),
            ("n * 1.5e0::double precision", PgType::Float8),
            ("random()", PgType::Float8),
            ("now()", PgType::Timestamptz),
            ("current_timestamp", PgType::Timestamptz),
            ("now() - interval '1 hour'", PgType::Timestamptz),
            ("current_date", PgType::Date),
            ("current_time", PgType::Time),
            ("timestamp '2024-02-29 12:34:56'", PgType::Timestamp),
            ("date '2024-02-29'", PgType::Date),
            ("character_length('abc')", PgType::Int4),
            ("NULL", PgType::Text),
        ];
        for (sql, pg_type) in cases {
            let column = plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(column.field().data_type(), &pg_type.arrow(), "{sql}");
            assert_eq!(PgType::of_field(column.field()).unwrap(), pg_type, "{sql}");
            values(sql);
        }
    }

    #[test]
    fn values_are_those_of_the_row() {
        assert_eq!(values("n * 2 + 1"), ["3", "5", "7"]);
        assert_eq!(values("'order ' || n"), ["order 1", "order 2", "order 3"]);
        assert_eq!(values("CASE WHEN n = 2 THEN NULL ELSE n END"), ["1", "", "3"]);
        assert_eq!(values("CAST(n / 4.0 AS numeric(12,2))"), ["0.25", "0.50", "0.75"]);
        assert_eq!(values("now()"), ["2024-02-29T12:34:56.789012Z"; 3]);
        assert_eq!(values("current_date"), ["2024-02-29"; 3]);
        assert_eq!(values("current_time"), ["12:34:56.789012"; 3]);
    }

    #[test]
    fn only_what_cannot_be_null_is_declared_so() {
        for (sql, nullable) in [("n", false), ("random() * 2", false), ("now()", false), ("nullif(n, 2)", true)] {
            assert_eq!(plan(sql).unwrap().field().is_nullable(), nullable, "{sql}");
        }
    }

    #[test]
    fn random_depends_on_seed_column_call_and_row_alone() {
        let random = |seed: u64, position: usize, sql: &str| {
            let column = ExpressionPlanner::try_new(subject(), seed).unwrap().plan(position, "a", sql).unwrap();
            let array = column.evaluate(&input(1..=1000, 0).unwrap()).unwrap();
            array.as_primitive::<Float64Type>().values().to_vec()
        };
        let base = random(42, 0, "random()");
        assert_eq!(base, random(42, 0, "random()"));
        assert_ne!(base, random(43, 0, "random()"));
        assert_ne!(base, random(42, 1, "random()"));
        assert!(random(42, 0, "random() - random()").iter().all(|difference| *difference != 0.0));
        let later = plan("random()").unwrap().evaluate(&input(501..=1000, 0).unwrap()).unwrap();
        assert_eq!(
            later.as_primitive::<Float64Type>().values().to_vec(),
            base[500..],
            "how rows are batched is no matter"
        );

        assert!(base.iter().all(|value| (0.0..1.0).contains(value)));
        let mean = base.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }

    #[test]
    fn what_has_no_meaning_for_one_row_is_refused() {
        let cases = [
            ("sum(n)", Code::GroupingError, "aggregate function sum is not allowed in a generator"),
            ("(SELECT 1)", Code::FeatureNotSupported, "a subquery is not supported"),
            ("n IN (SELECT 1)", Code::FeatureNotSupported, "a subquery is not supported"),
            ("row_number() OVER ()", Code::FeatureNotSupported, "a window function is not supported"),
            ("$1 + n", Code::FeatureNotSupported, "a parameter is not supported"),
            ("n AS m", Code::SyntaxError, "an expression cannot be followed by \"m\""),
            ("uuid()", Code::FeatureNotSupported, "function uuid() is not supported"),
            ("'{}'::jsonb", Code::FeatureNotSupported, "a cast to jsonb is not available yet"),
            ("n::bigit", Code::UndefinedObject, "type \"bigit\" does not exist"),
        ];
        for (sql, code, message) in cases {
            let error = plan(sql).expect_err(sql);
            assert!(error.message().starts_with(message), "{sql}: {}", error.message());
            assert_eq!(error.code(), code, "{sql}");
        }
    }

    #[test]
    fn what_does_not_exist_or_does_not_parse_is_named() {
        let cases = [
            ("m + 1", Code::UndefinedColumn, "column \"m\" does not exist"),
            ("no_such(n)", Code::UndefinedFunction, "function no_such() does not exist"),
            ("n +", Code::SyntaxError, ""),
            ("n n n", Code::SyntaxError, ""),
            ("", Code::SyntaxError, ""),
        ];
        for (sql, code, message) in cases {
            let error = plan(sql).expect_err(sql);
            assert!(error.message().starts_with(message), "{sql}: {}", error.message());
            assert_eq!(error.code(), code, "{sql}");
        }
    }

    #[test]
    fn hidden_columns_cannot_be_named() {
        assert!(plan("\"now()\"").is_err());
        assert!(plan("\"random()\"").is_err());
    }

    #[test]
    fn integers_overflow_and_zero_divides_with_postgres_errors() {
        let cases = [
            ("9223372036854775807 + n", Code::NumericOutOfRange),
            ("n * 9223372036854775807", Code::NumericOutOfRange),
            ("-9223372036854775807 - n - 1", Code::NumericOutOfRange),
            ("1 / (n - 2)", Code::DivisionByZero),
        ];
        for (sql, code) in cases {
            let error = plan(sql).unwrap().evaluate(&input(1..=3, 0).unwrap()).expect_err(sql);
            assert_eq!(error.code(), code, "{sql}: {}", error.message());
        }
    }
}
