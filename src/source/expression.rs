//! A generator's columns: SQL over the row number `n`, planned once and evaluated for many rows.
//!
//! `now()` would be folded into a constant by DataFusion's planner, and `random()` would differ from run to run.
//! Both are replaced before planning: `now()` by a hidden column with the moment at which the rows are made,
//! `random()` by a function of seed, column and `n`.

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
    Volatility, cast, col,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{self, BinaryExpr};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::DataType as SqlType;

use crate::error::{Code, Error, Result};
use crate::pg_type::{PgType, UTC};

/// The row number in expressions.
const ROW_NUMBER: &str = "n";
/// The hidden column. No expression can name it: it is not there yet when expressions are parsed.
const MADE_AT: &str = "now()";

/// One column, ready to be evaluated.
#[derive(Clone, Debug)]
pub(super) struct ColumnExpression {
    expression: Arc<dyn PhysicalExpr>,
    field: Field,
}

impl ColumnExpression {
    /// The column as its readers see it.
    pub(super) fn field(&self) -> &Field {
        &self.field
    }

    /// The column's values for `input`, which is of [`input`].
    ///
    /// # Errors
    /// What PostgreSQL would refuse in a row too, such as 22003 or 22012.
    pub(super) fn evaluate(&self, input: &RecordBatch) -> Result<ArrayRef> {
        Ok(self.expression.evaluate(input).and_then(|value| value.into_array(input.num_rows()))?)
    }
}

/// What expressions are evaluated over: a row for each of `numbers`, all made at `made_at` (microseconds since 1970).
///
/// # Errors
/// XX000 if Arrow refuses what we made.
pub(super) fn input(numbers: std::ops::RangeInclusive<i64>, made_at: i64) -> Result<RecordBatch> {
    let numbers: Int64Array = Int64Array::from_iter_values(numbers);
    let moments = TimestampMicrosecondArray::from_value(made_at, numbers.values().len()).with_timezone(UTC);
    Ok(RecordBatch::try_new(input_schema(), vec![Arc::new(numbers), Arc::new(moments)])?)
}

/// Plans expressions with DataFusion's functions in PostgreSQL's dialect.
pub(super) struct ExpressionPlanner {
    state: SessionState,
    parsed_over: DFSchema,
    planned_over: DFSchema,
    seed: u64,
}

impl ExpressionPlanner {
    /// # Errors
    /// XX000 if DataFusion refuses the schema of what expressions are over.
    pub(super) fn try_new(seed: u64) -> Result<Self> {
        let config = SessionConfig::new()
            .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
            .set_str("datafusion.sql_parser.dialect", "postgres");
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_type_planner(Arc::new(PostgresTypes))
            .build();
        let planned_over = DFSchema::try_from(input_schema())?;
        let parsed_over = DFSchema::try_from(Arc::new(input_schema().project(&[0])?))?;
        Ok(ExpressionPlanner { state, parsed_over, planned_over, seed })
    }

    /// The expression `sql` of the column `name`, which is the generator's number `position`.
    ///
    /// # Errors
    /// What is wrong with the expression; 0A000 for subqueries, functions that give other values
    /// each time and types that no client can read, 42803 for aggregates.
    pub(super) fn plan(&self, position: usize, name: &str, sql: &str) -> Result<ColumnExpression> {
        let parsed = self.state.sql_to_expr_with_alias(sql, &self.state.config_options().sql_parser.dialect)?;
        if let Some(alias) = &parsed.alias {
            let message = format!("an expression cannot be followed by \"{alias}\" in a generator");
            return Err(Error::new(Code::SyntaxError, message));
        }
        let expr = self.state.create_logical_expr_from_sql_expr(parsed, &self.parsed_over)?;
        // DataFusion gives names of its own to what it rewrites, such as current_timestamp.
        let expr = expr.unalias_nested().data;
        expr.apply(|node| refuse(node).map_err(Into::into).map(|()| TreeNodeRecursion::Continue))?;
        let expr = self.replace_functions(position, expr)?;
        let planned = checked(&self.state.create_physical_expr(expr, &self.planned_over)?)?;
        let schema = self.planned_over.as_arrow();
        let planned_field = planned.return_field(schema)?;
        let pg_type = PgType::of_field(&planned_field.as_ref().clone().with_name(name))?;
        let field = pg_type.field(name, planned_field.is_nullable());
        let expression = expressions::cast(planned, schema, pg_type.arrow())?;
        Ok(ColumnExpression { expression, field })
    }

    fn replace_functions(&self, position: usize, expr: Expr) -> DataFusionResult<Expr> {
        let mut calls_of_random = 0;
        let made_at = || Expr::Column(Column::new_unqualified(MADE_AT));
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
                    ScalarUDF::from(random).call(vec![col(ROW_NUMBER)])
                }
                _ => return Ok(Transformed::no(node)),
            }))
        })
        .data()
    }
}

fn input_schema() -> SchemaRef {
    let fields = [PgType::Int8.field(ROW_NUMBER, false), PgType::Timestamptz.field(MADE_AT, false)];
    Arc::new(Schema::new(fields.to_vec()))
}

/// Refuses what has no meaning for one row alone, or would not give the same rows again.
fn refuse(expr: &Expr) -> Result<()> {
    let what = match expr {
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_) => "a subquery",
        Expr::AggregateFunction(function) => {
            let message = format!("aggregate function {} is not allowed in a generator", function.func.name());
            return Err(Error::new(Code::GroupingError, message));
        }
        Expr::WindowFunction(_) => "a window function",
        Expr::Alias(_) => "an alias",
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => "a parameter",
        Expr::Unnest(_) => "a function that gives several rows",
        Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => "a lambda",
        Expr::OuterReferenceColumn(..) | Expr::GroupingSet(_) => "a reference to another query",
        Expr::ScalarFunction(function) => return refuse_unpredictable(&function.func),
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
    Err(Error::unsupported(format!("{what} is not supported in a generator's expression"))
        .with_hint("Write an expression over n, the number of the row."))
}

fn refuse_unpredictable(function: &ScalarUDF) -> Result<()> {
    let is_replaced = matches!(function.name(), "now" | "current_date" | "current_time" | "random");
    if is_replaced || function.signature().volatility == Volatility::Immutable {
        return Ok(());
    }
    let message = format!("function {}() is not supported in a generator's expression", function.name());
    Err(Error::unsupported(message).with_hint("What is to differ from row to row can be made of n and random()."))
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
struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> DataFusionResult<Option<FieldRef>> {
        let pg_type = PgType::parse(&sql_type.to_string())?;
        match pg_type {
            // DataFusion's cast to the type that holds them would let anything through.
            PgType::Bytea | PgType::Uuid | PgType::Json | PgType::Jsonb | PgType::Array(_) => {
                let message = format!("a cast to {pg_type} is not available yet in a generator's expression");
                Err(Error::unsupported(message).into())
            }
            _ => Ok(Some(Arc::new(pg_type.field("", true)))),
        }
    }
}

/// `random()`: a number in [0, 1) that seed, column, call and row number tell.
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
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
#[path = "expression_tests.rs"]
mod tests;
