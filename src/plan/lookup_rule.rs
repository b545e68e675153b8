//! From an ordinary join with a lookup scan to a [`LookupJoinNode`]: which equalities are keys, and what is left.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinConstraint, JoinType, NullEquality, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, InList, TryCast};
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, Join, LogicalPlan, LogicalPlanBuilder, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::catalog::{LookupProvider, StreamProvider};
use crate::error::{Code, Error, Result};
use crate::lookup::{JoinKind, key_type};
use crate::plan::lookup_node::{LookupJoinNode, LookupKey, column_at, scan_under_aliases};
use crate::plan::{SYSTEM_TIME_FUNCTION, provider_of};

/// The last analyzer rule: after type coercion, before the optimizer takes `ON` apart.
#[derive(Debug)]
pub struct PlanLookupJoins;

impl AnalyzerRule for PlanLookupJoins {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join)
                if scan_under_aliases(&join.right).is_some_and(|(provider, _)| provider.in_lookup_join()) =>
            {
                Ok(Transformed::yes(plan_join(join)?))
            }
            other => Ok(Transformed::no(other)),
        })?;
        refuse_joins_with_streams(&plan.data)?;
        Ok(plan.data)
    }

    fn name(&self) -> &str {
        "plan_lookup_joins"
    }
}

/// An analyzer rule before type coercion: refuses keys whose types PostgreSQL's `=` does not compare.
/// Afterwards a cast by the user and one by coercion look the same.
#[derive(Debug)]
pub struct CheckKeyTypes;

impl AnalyzerRule for CheckKeyTypes {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Join(join) = node
                && scan_under_aliases(&join.right).is_some_and(|(provider, _)| provider.in_lookup_join())
            {
                let equalities = join.on.iter().cloned().chain(
                    join.filter
                        .clone()
                        .map(split_conjunction_owned)
                        .unwrap_or_default()
                        .into_iter()
                        .filter_map(equality),
                );
                for (one, other) in equalities {
                    key_type::check_comparable(&one, &other, &join.schema)?;
                }
            }
            if let LogicalPlan::Filter(filter) = node
                && scan_under_aliases(&filter.input).is_some()
            {
                for condition in split_conjunction(&filter.predicate) {
                    check_constants(condition, filter.input.schema())?;
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        "check_lookup_key_types"
    }
}

fn plan_join(join: Join) -> Result<LogicalPlan> {
    let kind = match join.join_type {
        JoinType::Inner => JoinKind::Inner,
        JoinType::Left => JoinKind::Left,
        JoinType::Right | JoinType::Full => {
            return Err(Error::unsupported(format!(
                "{} LOOKUP JOIN is not supported",
                join.join_type.to_string().to_uppercase()
            ))
            .with_hint("A lookup table is asked for the stream's keys only: write LOOKUP JOIN or LEFT LOOKUP JOIN."));
        }
        other => return Err(Error::unsupported(format!("{other} LOOKUP JOIN is not supported"))),
    };
    if join.null_equality == NullEquality::NullEqualsNull {
        return Err(Error::unsupported("a lookup join whose keys match NULL is not supported"));
    }
    let table = table_name(&join.right);
    let mut conditions: Vec<Expr> = join.on.into_iter().map(|(left, right)| left.eq(right)).collect();
    conditions.extend(join.filter.map(split_conjunction_owned).unwrap_or_default());
    if conditions.is_empty() && join.join_constraint == JoinConstraint::On {
        return Err(no_key(&table));
    }

    let sides = Sides { left: join.left.schema(), right: join.right.schema() };
    let mut sorted = Conditions::default();
    // The moment of FOR SYSTEM_TIME AS OF has been resolved and typed; a lookup sees the present.
    conditions.retain(|condition| !is_system_time(condition));
    for condition in conditions {
        sorted.add(condition, &sides, &join.right)?;
    }
    if sorted.keys.is_empty() {
        return Err(no_key(&table));
    }
    let gate = conjunction(sorted.gates);
    let residual = conjunction(sorted.residuals);
    let left = (*join.left).clone();
    let right = (*join.right).clone();
    // Rows that an inner join's own condition on the stream drops need not reach the lookup at all.
    let (left, gate) = match (kind, gate) {
        (JoinKind::Inner, Some(gate)) => (LogicalPlanBuilder::from(left).filter(gate)?.build()?, None),
        (_, gate) => (left, gate),
    };
    let node = LookupJoinNode::try_new(left, right, kind, sorted.keys, (gate, residual))?;
    Ok(LogicalPlan::Extension(Extension { node: std::sync::Arc::new(node) }))
}

fn is_system_time(condition: &Expr) -> bool {
    matches!(condition, Expr::ScalarFunction(function) if function.name() == SYSTEM_TIME_FUNCTION)
}

fn no_key(table: &str) -> Error {
    Error::new(Code::InvalidColumnReference, format!("lookup join with \"{table}\" has no key")).with_hint(format!(
        "Its condition must hold at least one equality between a column of \"{table}\" and the left side."
    ))
}

/// The conjuncts of a join's condition, by what they are good for.
#[derive(Default)]
struct Conditions {
    keys: Vec<LookupKey>,
    gates: Vec<Expr>,
    residuals: Vec<Expr>,
}

struct Sides<'a> {
    left: &'a DFSchema,
    right: &'a DFSchema,
}

impl Sides<'_> {
    fn uses(schema: &DFSchema, expr: &Expr) -> bool {
        expr.column_refs().into_iter().any(|column| schema.has_column(column))
    }
}

impl Conditions {
    fn add(&mut self, condition: Expr, sides: &Sides, right: &LogicalPlan) -> Result<()> {
        if has_subquery(&condition)? {
            return Err(Error::unsupported("a subquery in the condition of a lookup join is not supported")
                .with_hint("Look the value up in a lookup join of its own, or filter in WHERE."));
        }
        if condition.is_volatile() {
            self.residuals.push(condition);
            return Ok(());
        }
        if let Some((one, other)) = equality(condition.clone()) {
            for (table_side, stream_side) in [(&one, &other), (&other, &one)] {
                if self.add_key(&condition, table_side, stream_side, sides, right)? {
                    return Ok(());
                }
            }
        }
        match Sides::uses(sides.right, &condition) {
            true => self.residuals.push(condition),
            false => self.gates.push(condition),
        }
        Ok(())
    }

    /// Whether `table_side = stream_side` has become a key.
    fn add_key(
        &mut self,
        condition: &Expr,
        table_side: &Expr,
        stream_side: &Expr,
        sides: &Sides,
        right: &LogicalPlan,
    ) -> Result<bool> {
        let Some((position, widened)) = bare_column(table_side, sides.right) else { return Ok(false) };
        if Sides::uses(sides.right, stream_side) {
            return Ok(false);
        }
        let Some((_, columns)) = scan_under_aliases(right) else { return Ok(false) };
        let column = columns[position];
        if self.keys.iter().any(|key| key.column == column) {
            return Ok(false);
        }
        let column_type = sides.right.field(position).data_type();
        let stream_type = stream_side.get_type(sides.left)?;
        if let Some(widened) = widened
            && !key_type::widens_without_loss(column_type, &widened)
        {
            return Err(key_type::mismatch(stream_side, &stream_type, &column_at(sides.right, position), column_type));
        }
        let value = if &stream_type == column_type {
            stream_side.clone()
        } else {
            // What the narrower type cannot hold is in no row of the table: TRY_CAST makes it NULL, which finds nothing.
            // Where the cast rounds, the comparison as written stands guard.
            if !key_type::casts_exactly(&stream_type, column_type) {
                self.residuals.push(condition.clone());
            }
            Expr::TryCast(TryCast::new(Box::new(stream_side.clone()), column_type.clone()))
        };
        self.keys.push(LookupKey { value, column });
        Ok(true)
    }
}

/// A column of the right side, and the type that coercion has cast it to.
fn bare_column(expr: &Expr, right: &DFSchema) -> Option<(usize, Option<DataType>)> {
    match expr {
        Expr::Column(column) => Some((right.maybe_index_of_column(column)?, None)),
        Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
            Expr::Column(column) => Some((right.maybe_index_of_column(column)?, Some(field.data_type().clone()))),
            _ => None,
        },
        _ => None,
    }
}

fn equality(expr: Expr) -> Option<(Expr, Expr)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => Some((*left, *right)),
        _ => None,
    }
}

fn has_subquery(expr: &Expr) -> Result<bool> {
    Ok(expr.exists(|node| {
        Ok(matches!(node, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)))
    })?)
}

fn table_name(right: &LogicalPlan) -> String {
    match right {
        LogicalPlan::SubqueryAlias(alias) => alias.alias.table().to_string(),
        LogicalPlan::TableScan(scan) => scan.table_name.table().to_string(),
        _ => String::new(),
    }
}

/// The same for a lookup table's columns and constants in WHERE.
fn check_constants(condition: &Expr, schema: &DFSchema) -> Result<()> {
    let (column, constants) = match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(_), constant) => (left.as_ref(), vec![constant]),
            (constant, Expr::Column(_)) => (right.as_ref(), vec![constant]),
            _ => return Ok(()),
        },
        Expr::InList(InList { expr, list, .. }) if matches!(expr.as_ref(), Expr::Column(_)) => {
            (expr.as_ref(), list.iter().collect())
        }
        _ => return Ok(()),
    };
    // A plan that was analyzed before has its quoted constants cast to the text that a uuid, for one, is held as.
    let is_quoted = |constant: &Expr| match constant {
        Expr::Cast(Cast { expr, field }) => {
            matches!(expr.as_ref(), Expr::Literal(ScalarValue::Utf8(_), _)) && field.data_type() == &DataType::Utf8View
        }
        _ => false,
    };
    let is_held_as_text = column.get_type(schema)? == DataType::Utf8View;
    let constants = constants.into_iter().filter(|constant| constant.column_refs().is_empty());
    let constants = constants.filter(|constant| !(is_held_as_text && is_quoted(constant)));
    for constant in constants {
        key_type::check_comparable(constant, column, schema)
            .map_err(|error| error.with_hint("Cast the constant to the type of the table's column."))?;
    }
    Ok(())
}

/// Refuses a plain join of a stream with a lookup table, also where it is spelled as a subquery.
fn refuse_joins_with_streams(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        let table = match node {
            LogicalPlan::Join(join) => joined_with_stream(join)?,
            other => correlated_with_stream(other)?,
        };
        refused = table.map(|table| plain_join(&table));
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    refused.map_or(Ok(()), Err)
}

/// The lookup table that is joined here with a stream. INTERSECT and EXCEPT are joins that nobody has written.
fn joined_with_stream(join: &Join) -> DataFusionResult<Option<String>> {
    if join.null_equality == NullEquality::NullEqualsNull {
        return Ok(None);
    }
    for (side, other) in [(&join.left, &join.right), (&join.right, &join.left)] {
        if let Some(table) = read_plainly(side)
            && reads_stream(other)?
        {
            return Ok(Some(table.to_string()));
        }
    }
    Ok(None)
}

/// The lookup table that a subquery here reads anew for each row of a stream.
fn correlated_with_stream(plan: &LogicalPlan) -> DataFusionResult<Option<String>> {
    let mut table = None;
    plan.apply_expressions(|expr| {
        expr.apply(|node| {
            let subquery = match node {
                Expr::Exists(exists) => &exists.subquery,
                Expr::InSubquery(inside) => &inside.subquery,
                Expr::ScalarSubquery(subquery) => subquery,
                Expr::SetComparison(comparison) => &comparison.subquery,
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            if !subquery.outer_ref_columns.is_empty() {
                table = table.take().or(plainly_scanned(&subquery.subquery)?);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    for input in plan.inputs() {
        if table.is_some() && reads_stream(input)? {
            return Ok(table);
        }
    }
    Ok(None)
}

/// The lookup table that a plan reads outside of a lookup join, if it does little else.
fn read_plainly(plan: &LogicalPlan) -> Option<&str> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => read_plainly(&alias.input),
        LogicalPlan::Projection(projection) => read_plainly(&projection.input),
        LogicalPlan::Filter(filter) => read_plainly(&filter.input),
        LogicalPlan::Subquery(subquery) => read_plainly(&subquery.subquery),
        LogicalPlan::TableScan(scan) => {
            let provider = provider_of::<LookupProvider>(&scan.source)?;
            (!provider.in_lookup_join()).then(|| provider.table_name())
        }
        _ => None,
    }
}

/// A lookup table that is read anywhere in a plan outside of a lookup join.
fn plainly_scanned(plan: &LogicalPlan) -> DataFusionResult<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        found = found.take().or(read_plainly(node).map(str::to_string));
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn reads_stream(plan: &LogicalPlan) -> DataFusionResult<bool> {
    plan.exists(|node| match node {
        LogicalPlan::TableScan(scan) => Ok(provider_of::<StreamProvider>(&scan.source).is_some()),
        _ => Ok(false),
    })
}

fn plain_join(table: &str) -> Error {
    Error::unsupported(format!("\"{table}\" is a lookup table and cannot be joined with a stream by a plain JOIN"))
        .with_hint(format!("Write LOOKUP JOIN {table}, with the stream on its left."))
}
