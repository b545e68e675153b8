//! The plan of a subquery with values in the place of what the query around gives it.

use std::collections::HashMap;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, Placeholder};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

/// The values that a subquery is run with.
pub(super) struct Known<'a> {
    pub columns: HashMap<&'a Column, &'a ScalarValue>,
    pub parameters: HashMap<&'a str, &'a ScalarValue>,
}

/// The parameters in a plan, each once.
pub(super) fn parameters(plan: &LogicalPlan) -> Result<Vec<Placeholder>> {
    let mut found: Vec<Placeholder> = vec![];
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Placeholder(parameter) = expr
                    && found.iter().all(|known| known.id != parameter.id)
                {
                    found.push(parameter.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// The plan with values in the place of columns from around and of parameters.
pub(super) fn with_values(plan: LogicalPlan, known: &Known) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let filled = expr.transform_down(|expr| fill_in(expr, known))?;
            Ok(match filled.transformed {
                true => Transformed::yes(name.restore(filled.data)),
                false => filled,
            })
        })
    })
    .data()
}

fn fill_in(expr: Expr, known: &Known) -> Result<Transformed<Expr>> {
    let rest = |subquery: Subquery| Subquery {
        outer_ref_columns: subquery
            .outer_ref_columns
            .into_iter()
            .filter(
                |outer| !matches!(outer, Expr::OuterReferenceColumn(_, column) if known.columns.contains_key(column)),
            )
            .collect(),
        ..subquery
    };
    Ok(match expr {
        Expr::Placeholder(parameter) => match known.parameters.get(parameter.id.as_str()) {
            Some(value) => Transformed::yes(Expr::Literal((*value).clone(), None)),
            None => Transformed::no(Expr::Placeholder(parameter)),
        },
        Expr::OuterReferenceColumn(field, column) => match known.columns.get(&column) {
            Some(value) => Transformed::yes(Expr::Literal((*value).clone(), None)),
            None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
        },
        Expr::ScalarSubquery(subquery) => Transformed::yes(Expr::ScalarSubquery(rest(subquery))),
        Expr::Exists(Exists { subquery, negated }) => {
            Transformed::yes(Expr::Exists(Exists { subquery: rest(subquery), negated }))
        }
        Expr::InSubquery(mut within) => {
            within.subquery = rest(within.subquery);
            Transformed::yes(Expr::InSubquery(within))
        }
        other => Transformed::no(other),
    })
}
