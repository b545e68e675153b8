//! Subqueries over the system's catalogs that DataFusion cannot turn into joins: each is run for itself, once for every
//! combination of the values that it takes from the query around it. Catalogs are small, and tools ask so.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_nested::expr_fn::array_has;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::expr::{Case, Exists, InSubquery, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::Engine;
use super::known::{Known, parameters, with_values};
use super::sort::{sort_by_columns, waits};
use crate::catalog::Viewer;
use crate::error::{Code, Error};
use crate::pg_catalog::is_system_source;
use crate::sql::cast::only_value;
use crate::sql::catalog_query::ARRAY_FUNCTION;

/// The last analyzer rule: DataFusion checks behind it whether it could run what is left.
#[derive(Debug)]
pub(super) struct RunSubqueries {
    pub engine: Weak<Engine>,
}

impl AnalyzerRule for RunSubqueries {
    /// Subqueries within a subquery that is run for itself are met when that is planned.
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_down(|node| {
            let in_filter = matches!(node, LogicalPlan::Filter(_));
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let replaced = expr.transform_down(|expr| self.replace(expr, in_filter))?;
                Ok(match replaced.transformed {
                    true => Transformed::yes(name.restore(replaced.data)),
                    false => replaced,
                })
            })?;
            match node.data {
                LogicalPlan::Sort(sort) if node.transformed => Ok(Transformed::yes(sort_by_columns(sort)?)),
                data => Ok(Transformed { data, ..node }),
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "run_subqueries"
    }
}

impl RunSubqueries {
    fn replace(&self, expr: Expr, in_filter: bool) -> Result<Transformed<Expr>> {
        let (subquery, wanted, negated) = match &expr {
            Expr::Case(case) => return self.replace_behind_conditions(case.clone()),
            Expr::ScalarFunction(function) if function.name() == ARRAY_FUNCTION => match function.args.as_slice() {
                [Expr::ScalarSubquery(subquery)] => (subquery, Wanted::Array, false),
                _ => return Ok(Transformed::no(expr)),
            },
            Expr::ScalarSubquery(subquery) if !outer_columns(&subquery.subquery)?.is_empty() => {
                (subquery, Wanted::Value, false)
            }
            Expr::InSubquery(within) if !in_filter && is_over_catalogs(&within.subquery.subquery)? => {
                return Ok(Transformed::new(self.membership(within)?, true, TreeNodeRecursion::Jump));
            }
            // Beneath a WHERE, DataFusion makes a join of it.
            Expr::Exists(Exists { subquery, negated }) if !in_filter => (subquery, Wanted::Existence, *negated),
            _ => return Ok(Transformed::no(expr)),
        };
        if !is_over_catalogs(&subquery.subquery)? {
            return Ok(Transformed::no(expr));
        }
        let call = self.call(&subquery.subquery, wanted, None)?;
        let call = if negated { Expr::Not(Box::new(call)) } else { call };
        Ok(Transformed::new(call, true, TreeNodeRecursion::Jump))
    }

    /// `CASE WHEN condition THEN (SELECT …)` runs the subquery for the rows of the condition only.
    fn replace_behind_conditions(&self, mut case: Case) -> Result<Transformed<Expr>> {
        let mut replaced = false;
        if case.expr.is_none() {
            for (condition, value) in &mut case.when_then_expr {
                let Expr::ScalarSubquery(subquery) = value.as_ref() else { continue };
                // One call that has to be waited for cannot be the argument of another.
                if has_subquery(condition)? || waits(condition)? {
                    continue;
                }
                if is_over_catalogs(&subquery.subquery)? && !outer_columns(&subquery.subquery)?.is_empty() {
                    let call = self.call(&subquery.subquery, Wanted::Value, Some(condition.as_ref().clone()))?;
                    **value = call;
                    replaced = true;
                }
            }
        }
        let case = Expr::Case(case);
        Ok(if replaced { Transformed::yes(case) } else { Transformed::no(case) })
    }

    /// `value IN (SELECT …)`: whether the array of all values has it.
    fn membership(&self, within: &InSubquery) -> Result<Expr> {
        let values = self.call(&within.subquery.subquery, Wanted::Array, None)?;
        let found = array_has(values, within.expr.as_ref().clone());
        Ok(if within.negated { Expr::Not(Box::new(found)) } else { found })
    }

    /// The subquery as a call, which is made for the rows of a condition only.
    fn call(&self, plan: &Arc<LogicalPlan>, wanted: Wanted, condition: Option<Expr>) -> Result<Expr> {
        let outer = outer_columns(plan)?;
        let is_conditional = condition.is_some();
        let parameters = parameters(plan)?;
        let given = outer.iter().cloned().map(Expr::Column).chain(parameters.iter().cloned().map(Expr::Placeholder));
        let arguments = given.chain(condition).collect();
        let parameters = parameters.into_iter().map(|parameter| parameter.id).collect();
        let value = plan.schema().fields().first().cloned();
        let value = value.ok_or_else(|| DataFusionError::Plan("a subquery without columns".into()))?;
        let gives = match wanted {
            Wanted::Value => {
                Field::new(value.name(), value.data_type().clone(), true).with_metadata(value.metadata().clone())
            }
            Wanted::Existence => Field::new("exists", DataType::Boolean, true),
            Wanted::Array => {
                // As the mark that stood here has told the plan.
                let item = Field::new("item", value.data_type().clone(), true);
                Field::new("array", DataType::List(Arc::new(item)), true)
            }
        };
        let function = SubqueryFunction {
            engine: self.engine.clone(),
            plan: Arc::clone(plan),
            outer,
            parameters,
            is_conditional,
            wanted,
            gives: Arc::new(gives),
            signature: Signature::one_of(
                vec![TypeSignature::VariadicAny, TypeSignature::Nullary],
                Volatility::Volatile,
            ),
        };
        let function = Arc::new(AsyncScalarUDF::new(Arc::new(function)).into_scalar_udf());
        Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, arguments)))
    }
}

/// What the query around wants of a subquery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    /// The value of its only row, or NULL.
    Value,
    /// Whether it has rows.
    Existence,
    /// All values.
    Array,
}

/// The columns that a subquery takes from the query around it.
fn outer_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = vec![];
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::OuterReferenceColumn(_, column) = expr
                    && !columns.contains(column)
                {
                    columns.push(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    // What a subquery within takes from this one is none of the query's around.
    let own = all_columns(plan)?;
    columns.retain(|column| !own.contains(column));
    Ok(columns)
}

/// The columns of all inputs of a plan.
fn all_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut columns = vec![];
    plan.apply(|node| {
        columns.extend(node.schema().columns());
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(columns)
}

fn is_over_catalogs(plan: &LogicalPlan) -> Result<bool> {
    let mut others = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let own_rows = scan.source.downcast_ref::<DefaultTableSource>();
            let is_recursion = own_rows.is_some_and(|own| own.table_provider.downcast_ref::<CteWorkTable>().is_some());
            others |= !is_recursion && !is_system_source(&scan.source);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(!others)
}

/// The subquery as a function of the columns that it takes.
#[derive(Debug)]
struct SubqueryFunction {
    engine: Weak<Engine>,
    plan: Arc<LogicalPlan>,
    outer: Vec<Column>,
    /// Parameters of the query, whose values come behind those of the columns.
    parameters: Vec<String>,
    /// Whether the last argument says for which rows there is anything to do.
    is_conditional: bool,
    wanted: Wanted,
    gives: FieldRef,
    signature: Signature,
}

impl PartialEq for SubqueryFunction {
    fn eq(&self, other: &Self) -> bool {
        self.wanted == other.wanted && self.is_conditional == other.is_conditional && self.plan == other.plan
    }
}

impl Eq for SubqueryFunction {}

impl Hash for SubqueryFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.wanted, &self.plan).hash(state);
    }
}

impl ScalarUDFImpl for SubqueryFunction {
    fn name(&self) -> &str {
        "subquery"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.gives.data_type().clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&self.gives))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::unsupported("a subquery cannot stand here").into())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for SubqueryFunction {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let viewer = Viewer::of(&args.config_options).ok_or_else(|| Error::internal("a call by nobody"))?;
        let mut columns = vec![];
        for value in &args.args {
            columns.push(value.to_array(args.number_rows)?);
        }
        let condition = if self.is_conditional { columns.pop() } else { None };
        let mut answers: HashMap<Vec<ScalarValue>, ScalarValue> = HashMap::new();
        let mut results = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            if condition.as_ref().is_some_and(|rows| !is_true(rows, row)) {
                results.push(ScalarValue::try_from(self.gives.data_type())?);
                continue;
            }
            let values = columns.iter().map(|column| ScalarValue::try_from_array(column, row));
            let values = values.collect::<Result<Vec<_>>>()?;
            let answer = match answers.get(&values) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = Box::pin(self.answer(&values, viewer)).await?;
                    answers.insert(values, answer.clone());
                    answer
                }
            };
            results.push(answer);
        }
        if results.is_empty() {
            return Ok(ColumnarValue::Array(datafusion::arrow::array::new_empty_array(self.gives.data_type())));
        }
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(results)?))
    }
}

impl SubqueryFunction {
    async fn answer(&self, values: &[ScalarValue], viewer: &Viewer) -> Result<ScalarValue> {
        let engine = self.engine.upgrade().ok_or_else(|| Error::internal("the engine has gone"))?;
        let known = Known {
            columns: self.outer.iter().zip(values).collect(),
            parameters: self.parameters.iter().map(String::as_str).zip(values.iter().skip(self.outer.len())).collect(),
        };
        let plan = with_values(self.plan.as_ref().clone(), &known)?;
        let batches = engine.rows_of(&plan, viewer).await?;
        let value = first_column(&batches, self.value_type())?;
        match self.wanted {
            Wanted::Existence => Ok(ScalarValue::Boolean(Some(batches.iter().any(|batch| batch.num_rows() > 0)))),
            Wanted::Value if value.len() > 1 => Err(Error::new(
                Code::CardinalityViolation,
                "more than one row returned by a subquery used as an expression",
            )
            .into()),
            Wanted::Value if value.is_empty() => ScalarValue::try_from(self.gives.data_type()),
            Wanted::Value => only_value(&value),
            Wanted::Array => {
                let DataType::List(item) = self.gives.data_type() else {
                    return Err(Error::internal("an array that is none").into());
                };
                let offsets = datafusion::arrow::buffer::OffsetBuffer::from_lengths([value.len()]);
                let list = datafusion::arrow::array::ListArray::try_new(Arc::clone(item), offsets, value, None)?;
                Ok(ScalarValue::List(Arc::new(list)))
            }
        }
    }

    fn value_type(&self) -> DataType {
        match (self.wanted, self.gives.data_type()) {
            (Wanted::Array, DataType::List(item)) => item.data_type().clone(),
            (_, own) => own.clone(),
        }
    }
}

fn has_subquery(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_))))
}

/// NULL is not.
fn is_true(condition: &ArrayRef, row: usize) -> bool {
    condition.as_boolean_opt().is_some_and(|values| values.is_valid(row) && values.value(row))
}

/// The first column of all rows, of a type that planning may have made another meanwhile.
fn first_column(batches: &[RecordBatch], data_type: DataType) -> Result<ArrayRef> {
    let mut arrays = vec![];
    for batch in batches {
        if let Some(column) = batch.columns().first() {
            arrays.push(cast(column, &data_type)?);
        }
    }
    if arrays.is_empty() {
        return Ok(datafusion::arrow::array::new_empty_array(&data_type));
    }
    Ok(concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?)
}
