//! From [`LookupJoinNode`] to the operator: which conditions the store applies, which columns it is asked for.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::error::Error;
use crate::lookup::policy::CachePolicy;
use crate::lookup::{LookupExec, LookupJoin};
use crate::plan::lookup_node::LookupJoinNode;
use crate::store::{LookupShape, Store};

/// DataFusion's planner with ours for the lookup join.
#[derive(Debug)]
pub struct LookasideQueryPlanner;

#[async_trait]
impl QueryPlanner for LookasideQueryPlanner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn datafusion::catalog::Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(LookupPlanner)]);
        planner.create_physical_plan(logical_plan, session).await
    }
}

struct LookupPlanner;

#[async_trait]
impl ExtensionPlanner for LookupPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn datafusion::catalog::Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(lookup) = node.as_any().downcast_ref::<LookupJoinNode>() else { return Ok(None) };
        let input = physical_inputs
            .first()
            .ok_or_else(|| DataFusionError::Internal("a lookup join needs its stream".into()))?;
        let stage = Arc::new(plan_lookup(lookup, Arc::clone(input), session)?);
        Ok(Some(with_names_of(lookup, stage)?))
    }
}

fn plan_lookup(
    lookup: &LookupJoinNode,
    input: Arc<dyn ExecutionPlan>,
    session: &dyn datafusion::catalog::Session,
) -> Result<LookupExec> {
    let (provider, columns) = lookup.scan()?;
    let table = provider.table();
    if provider.overrides().bypass_cache && matches!(table.policy().cache, CachePolicy::Full(_)) {
        let message = format!("lookup table \"{}\" is held whole: its cache cannot be bypassed", table.name());
        return Err(Error::unsupported(message).with_hint("Leave cache = 'bypass' out.").into());
    }
    let key_columns: Vec<usize> = lookup.keys.iter().map(|key| key.column).collect();
    table.store().check_keys(&key_columns)?;
    for key in &lookup.keys {
        table.store().key_equality(key.column).check_key(table.store().schema().field(key.column).name())?;
    }
    let left_schema = lookup.left.schema();
    let joined_schema = joined(lookup)?;

    let mut filters = vec![];
    let mut residuals = vec![];
    for condition in lookup.residual.clone().map(split_conjunction_owned).unwrap_or_default() {
        match for_store(&condition, lookup, &columns, table.store().as_ref())? {
            Some(filter) => filters.push(filter),
            None => residuals.push(condition),
        }
    }
    let keys = lookup.keys.iter().map(|key| session.create_physical_expr(key.value.clone(), left_schema));
    let gate = lookup.gate.clone().map(|gate| session.create_physical_expr(gate, left_schema)).transpose()?;
    let residual =
        conjunction(residuals).map(|residual| session.create_physical_expr(residual, &joined_schema)).transpose()?;
    let width = left_schema.fields().len() + columns.len();
    let join = LookupJoin {
        kind: lookup.kind,
        keys: keys.collect::<Result<_>>()?,
        shape: Arc::new(LookupShape { key_columns, columns, filters: filters.into() }),
        gate,
        residual,
        projection: (0..width).collect(),
        policy: table.policy().try_with_overrides(provider.overrides())?,
    };
    Ok(LookupExec::try_new(input, Arc::clone(table), join)?)
}

/// The columns under the names that the query gives them, as in `customers AS c (key, name)`.
fn with_names_of(lookup: &LookupJoinNode, stage: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = stage.schema();
    let names = UserDefinedLogicalNodeCore::schema(lookup).fields().iter().map(|field| field.name());
    if names.clone().eq(schema.fields().iter().map(|field| field.name())) {
        return Ok(stage);
    }
    let renamed = names.zip(schema.fields()).enumerate().map(|(position, (name, field))| ProjectionExpr {
        expr: Arc::new(PhysicalColumn::new(field.name(), position)),
        alias: name.clone(),
    });
    let renamed: Vec<_> = renamed.collect();
    Ok(Arc::new(ProjectionExec::try_new(renamed, stage)?))
}

/// Both sides' columns as the residual sees them: before LEFT pads, but all may be NULL.
fn joined(lookup: &LookupJoinNode) -> Result<DFSchema> {
    lookup.left.schema().join(lookup.right.schema())
}

/// The condition as the store is asked for it, if it touches the table alone and the store can apply it.
fn for_store(condition: &Expr, lookup: &LookupJoinNode, columns: &[usize], store: &dyn Store) -> Result<Option<Expr>> {
    let right = lookup.right.schema();
    let touches_stream = condition.column_refs().into_iter().any(|column| !right.has_column(column));
    if touches_stream || condition.is_volatile() {
        return Ok(None);
    }
    let schema = store.schema();
    let renamed = condition.clone().transform(|node| match &node {
        Expr::Column(column) => {
            let position = right.index_of_column(column)?;
            Ok(Transformed::yes(Expr::Column(Column::from_name(schema.field(columns[position]).name()))))
        }
        _ => Ok(Transformed::no(node)),
    })?;
    Ok(Some(renamed.data).filter(|filter| store.can_filter(filter)))
}
