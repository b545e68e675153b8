//! Sorting by what has to be waited for: DataFusion waits for calls in projections and filters only.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Sort, col};

/// Whether an expression calls what has to be waited for.
pub(super) fn waits(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| Ok(matches!(expr, Expr::ScalarFunction(function) if function.func.as_async().is_some())))
}

/// Makes columns of what has to be waited for, which are taken off again behind the sort.
pub(super) fn sort_by_columns(sort: Sort) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = sort.input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut projected = columns.clone();
    let mut order = vec![];
    for (position, mut key) in sort.expr.into_iter().enumerate() {
        if waits(&key.expr)? {
            let name = format!("sort_key_{position}");
            projected.push(key.expr.alias(&name));
            key.expr = col(name);
        }
        order.push(key);
    }
    let input = LogicalPlanBuilder::from(Arc::unwrap_or_clone(sort.input)).project(projected)?;
    input.sort_with_limit(order, sort.fetch)?.project(columns)?.build()
}
