//! WHERE and lookup joins: what can be asked of the stream before the lookup, what with it, and what only after it.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::utils::is_restrict_null_predicate;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::lookup::JoinKind;
use crate::plan::lookup_node::LookupJoinNode;

/// Stands right behind `push_down_filter`, which leaves a filter above every node that it does not know.
#[derive(Debug)]
pub struct PushFilterThroughLookup;

impl OptimizerRule for PushFilterThroughLookup {
    fn name(&self) -> &str {
        "push_filter_through_lookup"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::Extension(extension) = filter.input.as_ref() else { return Ok(Transformed::no(plan)) };
        let Some(lookup) = extension.node.as_any().downcast_ref::<LookupJoinNode>() else {
            return Ok(Transformed::no(plan));
        };
        push_through(&filter.predicate, lookup).map(|pushed| match pushed {
            Some(new_plan) => Transformed::yes(new_plan),
            None => Transformed::no(plan),
        })
    }
}

fn push_through(predicate: &Expr, lookup: &LookupJoinNode) -> Result<Option<LogicalPlan>> {
    let mut for_stream = vec![];
    let mut for_lookup = vec![];
    let mut stay = vec![];
    let mut kind = lookup.kind;
    for conjunct in split_conjunction_owned(predicate.clone()) {
        match side_of(&conjunct, lookup) {
            Side::Stream => for_stream.push(conjunct),
            Side::Lookup if kind == JoinKind::Left && drops_padded_rows(&conjunct)? => {
                kind = JoinKind::Inner;
                for_lookup.push(conjunct);
            }
            Side::Lookup | Side::Both if kind == JoinKind::Inner => for_lookup.push(conjunct),
            Side::Lookup | Side::Both | Side::Neither => stay.push(conjunct),
        }
    }
    if for_stream.is_empty() && for_lookup.is_empty() {
        return Ok(None);
    }
    let mut node = lookup.clone();
    if let Some(condition) = conjunction(for_stream) {
        node = node.with_left(LogicalPlanBuilder::from(node.left.clone()).filter(condition)?.build()?)?;
    }
    // An inner join has no gate: its condition on the stream becomes a filter of its own below.
    if kind == JoinKind::Inner
        && let Some(gate) = node.gate.take()
    {
        node = node.with_left(LogicalPlanBuilder::from(node.left.clone()).filter(gate)?.build()?)?;
    }
    let residual = conjunction(node.residual.clone().into_iter().chain(for_lookup));
    let node = node.with_kind_and_residual(kind, residual)?;
    let joined = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    Ok(Some(match conjunction(stay) {
        Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(joined))?),
        None => joined,
    }))
}

enum Side {
    Stream,
    Lookup,
    Both,
    /// Volatile: what it says may differ from row to row, so it stays where it was written.
    Neither,
}

fn side_of(conjunct: &Expr, lookup: &LookupJoinNode) -> Side {
    if conjunct.is_volatile() {
        return Side::Neither;
    }
    let columns = conjunct.column_refs();
    let left = columns.iter().any(|column| lookup.left.schema().has_column(column));
    let right = columns.iter().any(|column| lookup.right.schema().has_column(column));
    match (left, right) {
        (_, false) => Side::Stream,
        (false, true) => Side::Lookup,
        (true, true) => Side::Both,
    }
}

/// Whether a row that LEFT has padded can never satisfy the condition.
fn drops_padded_rows(conjunct: &Expr) -> Result<bool> {
    is_restrict_null_predicate(conjunct.clone(), conjunct.column_refs())
}
