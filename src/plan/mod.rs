//! From syntax tree to operators, by DataFusion with our rules in between.
//!
//! In order: `lookup_rule.rs` turns a join with a lookup scan into the node of `lookup_node.rs`, `check.rs` refuses what cannot stream, `filter.rs` takes WHERE through the node,
//! `lookup_planner.rs` makes the operator, `stream_filter.rs`, `first_rows.rs`, `merge.rs`, `arithmetic.rs`, `constant.rs`,
//! `text_constant.rs` and `float.rs` put right what DataFusion does differently over a stream, or from PostgreSQL.

mod arithmetic;
pub mod check;
mod constant;
mod filter;
mod first_rows;
mod float;
mod lookup_node;
mod lookup_planner;
mod lookup_rule;
mod merge;
mod stream_filter;
mod text_constant;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::TableSource;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

/// The condition that carries the moment of `FOR SYSTEM_TIME AS OF` into the plan.
pub const SYSTEM_TIME_FUNCTION: &str = "system_time_as_of";

/// Puts our rules between DataFusion's, and our planner before its own.
pub fn with_rules(state: SessionStateBuilder) -> SessionStateBuilder {
    state
        .with_analyzer_rules(vec![
            Arc::new(ResolveGroupingFunction::new()),
            Arc::new(lookup_rule::CheckKeyTypes),
            Arc::new(float::CompareAsFloat),
            Arc::new(text_constant::ReadTextConstants),
            Arc::new(TypeCoercion::new()),
            Arc::new(constant::FoldIntegerConstants),
            Arc::new(lookup_rule::PlanLookupJoins),
        ])
        .with_optimizer_rules(optimizer_rules())
        .with_physical_optimizer_rules(physical_rules())
        .with_query_planner(Arc::new(lookup_planner::LookasideQueryPlanner))
}

fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = vec![];
    for rule in Optimizer::new().rules {
        let is_push_down = rule.name() == "push_down_filter";
        rules.push(rule);
        if is_push_down {
            rules.push(Arc::new(filter::PushFilterThroughLookup) as _);
        }
    }
    rules
}

fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let ours: [Arc<dyn PhysicalOptimizerRule + Send + Sync>; 3] = [
        Arc::new(arithmetic::CheckedArithmetic),
        Arc::new(first_rows::LimitAsRowsCome),
        Arc::new(stream_filter::FilterAsRowsCome),
    ];
    let last: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(merge::MergeAtOnce);
    ours.into_iter().chain(PhysicalOptimizer::new().rules).chain([last]).collect()
}

/// The provider behind a scan, if it is of this type.
pub fn provider_of<T: TableProvider>(source: &Arc<dyn TableSource>) -> Option<&T> {
    source.downcast_ref::<DefaultTableSource>()?.table_provider.downcast_ref::<T>()
}
