//! From an ordinary join with a lookup scan to a [`LookupJoinNode`]: which equalities are keys, and what is left.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinConstraint, JoinType, NullEquality};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, TryCast};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, Join, LogicalPlan, LogicalPlanBuilder, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::error::{Code, Error, Result};
use crate::lookup::JoinKind;
use crate::plan::lookup_node::{LookupJoinNode, LookupKey, column_at, scan_under_aliases};
use crate::plan::{SYSTEM_TIME_FUNCTION, key_type};

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
        refuse_other_scans(&plan.data)?;
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

/// Refuses lookup tables that stand elsewhere than on the right of a lookup join.
fn refuse_other_scans(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = node
            && let Some(lookup) = extension.node.as_any().downcast_ref::<LookupJoinNode>()
        {
            refused = refused.take().or(refuse_other_scans(&lookup.left).err());
            return Ok(TreeNodeRecursion::Jump);
        }
        if let LogicalPlan::Join(join) = node {
            for side in [&join.left, &join.right] {
                if let Some((provider, _)) = scan_under_aliases(side) {
                    refused = Some(plain_join(provider.table_name()));
                    return Ok(TreeNodeRecursion::Stop);
                }
            }
        }
        if let Some((provider, _)) = scan_under_aliases(node) {
            refused = Some(plain_scan(provider.table_name()));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    refused.map_or(Ok(()), Err)
}

fn plain_join(table: &str) -> Error {
    Error::unsupported(format!("\"{table}\" is a lookup table and cannot be joined with a plain JOIN"))
        .with_hint(format!("Write LOOKUP JOIN {table}, with the stream on its left."))
}

fn plain_scan(table: &str) -> Error {
    Error::unsupported(format!("reading lookup table \"{table}\" outside of a lookup join is not available yet"))
        .with_hint(format!("Write FROM (VALUES (1), (2)) AS k (key) LOOKUP JOIN {table} AS t ON t.column = k.key."))
}
