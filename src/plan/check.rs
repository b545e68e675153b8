//! What can never answer over an endless input, refused before it runs, with the clause and the reason.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan};

use crate::catalog::StreamProvider;
use crate::error::{Error, Result};
use crate::plan::provider_of;

/// Whether the plan's rows never end by themselves.
///
/// # Errors
/// 0A000 for a clause that needs the end of an endless input.
pub fn check_streaming(plan: &LogicalPlan) -> Result<bool> {
    check_subqueries(plan)?;
    if let LogicalPlan::Join(join) = plan
        && let Some(clause) = set_operation(join)
    {
        // DataFusion writes these with a DISTINCT inside, which the user has not written.
        let left = match join.left.as_ref() {
            LogicalPlan::Distinct(Distinct::All(inner)) => inner.as_ref(),
            other => other,
        };
        let endless = check_streaming(left)? | check_streaming(&join.right)?;
        return if endless {
            Err(refuse(clause, "a side whose rows never end can never be compared"))
        } else {
            Ok(false)
        };
    }
    let mut endless = false;
    for input in plan.inputs() {
        endless |= check_streaming(input)?;
    }
    if let LogicalPlan::TableScan(scan) = plan {
        return Ok(provider_of::<StreamProvider>(&scan.source).is_some_and(|stream| !stream.is_bounded()));
    }
    if !endless {
        return Ok(false);
    }
    match plan {
        LogicalPlan::Limit(limit) => Ok(limit.fetch.is_none()),
        LogicalPlan::Sort(_) => Err(refuse("ORDER BY", "the last row to sort never comes")),
        LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.is_empty() => {
            Err(refuse("GROUP BY", "a group is never complete"))
        }
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
            Err(refuse(&called(&aggregate.aggr_expr), "its last row never comes"))
        }
        LogicalPlan::Aggregate(aggregate) => {
            Err(refuse(&format!("GROUP BY with {}", called(&aggregate.aggr_expr)), "a group is never complete"))
        }
        LogicalPlan::Window(_) => Err(refuse("OVER", "a window's last row never comes")),
        LogicalPlan::Distinct(Distinct::All(inner)) if matches!(inner.as_ref(), LogicalPlan::Union(_)) => {
            Err(refuse("UNION", "rows sent before would have to be remembered for ever").with_hint("Write UNION ALL."))
        }
        LogicalPlan::Distinct(_) => Err(refuse("DISTINCT", "rows sent before would have to be remembered for ever")),
        LogicalPlan::Join(_) => Err(refuse("JOIN", "it would have to remember every row for ever")
            .with_hint("Only LOOKUP JOIN joins a stream as it moves, with a lookup table on its right.")),
        LogicalPlan::RecursiveQuery(_) => Err(refuse("WITH RECURSIVE", "its first step never ends")),
        LogicalPlan::Subquery(_) => Err(refuse("LATERAL", "its rows never end")),
        _ => Ok(true),
    }
}

/// Subqueries in expressions must end, whatever the query around them does.
fn check_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply_expressions(|expression| {
        expression.apply(|node| {
            let (clause, subquery) = match node {
                Expr::Exists(exists) => ("EXISTS", &exists.subquery),
                Expr::InSubquery(inside) => ("IN", &inside.subquery),
                Expr::ScalarSubquery(subquery) => ("a scalar subquery", subquery),
                Expr::SetComparison(comparison) => ("ANY or ALL", &comparison.subquery),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            match check_streaming(&subquery.subquery) {
                Ok(false) => Ok(TreeNodeRecursion::Continue),
                Ok(true) => {
                    refused = Some(refuse(clause, "its rows never end"));
                    Ok(TreeNodeRecursion::Stop)
                }
                Err(error) => {
                    refused = Some(error);
                    Ok(TreeNodeRecursion::Stop)
                }
            }
        })
    })?;
    refused.map_or(Ok(()), Err)
}

fn refuse(clause: &str, reason: &str) -> Error {
    Error::unsupported(format!("{clause} over an endless stream can never answer: {reason}"))
        .with_hint("Limit the input in a subquery first: FROM (SELECT … LIMIT n) AS s.")
}

/// The word for a join that stands for INTERSECT or EXCEPT.
fn set_operation(join: &Join) -> Option<&'static str> {
    match (join.join_type, join.null_equality) {
        (JoinType::LeftSemi, NullEquality::NullEqualsNull) => Some("INTERSECT"),
        (JoinType::LeftAnti, NullEquality::NullEqualsNull) => Some("EXCEPT"),
        _ => None,
    }
}

fn called(expressions: &[Expr]) -> String {
    let names: Vec<_> = expressions
        .iter()
        .filter_map(|expression| match expression {
            Expr::AggregateFunction(function) => Some(format!("{}()", function.func.name())),
            Expr::Alias(alias) => Some(called(std::slice::from_ref(&alias.expr))),
            _ => None,
        })
        .collect();
    if names.is_empty() { "an aggregate".to_string() } else { names.join(", ") }
}
