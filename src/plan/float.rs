//! A `double precision` compared with a `numeric`: as `double precision`, PostgreSQL's preferred type. DataFusion would
//! compare both as a decimal, which has no NaN and no large numbers.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::AnalyzerRule;

/// An analyzer rule before type coercion, which would choose the decimal.
#[derive(Debug)]
pub struct CompareAsFloat;

impl AnalyzerRule for CompareAsFloat {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| rewrite(expr, &schema))?;
                Ok(match rewritten.transformed {
                    true => Transformed::yes(name.restore(rewritten.data)),
                    false => rewritten,
                })
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "compare_as_float"
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let operands: Vec<&Expr> = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => vec![left, right],
        Expr::Between(Between { expr, low, high, .. }) => vec![expr, low, high],
        Expr::InList(InList { expr, list, .. }) => std::iter::once(expr.as_ref()).chain(list).collect(),
        _ => return Ok(Transformed::no(expr)),
    };
    // What has no type yet is told of by type coercion.
    let types: Vec<DataType> = operands.iter().filter_map(|operand| operand.get_type(schema).ok()).collect();
    if !types.iter().any(DataType::is_floating) || !types.iter().any(DataType::is_decimal) {
        return Ok(Transformed::no(expr));
    }
    expr.map_children(|operand| match operand.get_type(schema).is_ok_and(|data_type| data_type.is_decimal()) {
        true => Ok(Transformed::yes(cast(operand, DataType::Float64))),
        false => Ok(Transformed::no(operand)),
    })
}

pub(super) fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}
