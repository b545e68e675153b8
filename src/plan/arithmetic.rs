//! Integers overflow with an error, as PostgreSQL's do; DataFusion's own arithmetic wraps.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::lookup::LookupExec;

/// Makes the arithmetic of projections, filters and lookup joins checked.
#[derive(Debug)]
pub struct CheckedArithmetic;

impl PhysicalOptimizerRule for CheckedArithmetic {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
                let exprs = projection.expr().iter().map(|projected| {
                    Ok(ProjectionExpr { expr: checked(&projected.expr)?, alias: projected.alias.clone() })
                });
                let exprs = exprs.collect::<Result<Vec<_>>>()?;
                return Ok(Transformed::yes(
                    Arc::new(ProjectionExec::try_new(exprs, Arc::clone(projection.input()))?) as _
                ));
            }
            if let Some(filter) = node.downcast_ref::<FilterExec>() {
                let predicate = checked(filter.predicate())?;
                let filter = FilterExecBuilder::from(filter).with_predicate(predicate).build()?;
                return Ok(Transformed::yes(Arc::new(filter) as _));
            }
            if let Some(lookup) = node.downcast_ref::<LookupExec>() {
                return Ok(Transformed::yes(Arc::new(lookup.map_expressions(checked)?) as _));
            }
            Ok(Transformed::no(node))
        })
        .data()
    }

    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn checked(expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(expr)
        .transform_up(|node| match node.downcast_ref::<BinaryExpr>() {
            Some(binary) if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) => {
                let binary = BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()));
                Ok(Transformed::yes(Arc::new(binary.with_fail_on_overflow(true)) as _))
            }
            _ => Ok(Transformed::no(node)),
        })
        .data()
}
