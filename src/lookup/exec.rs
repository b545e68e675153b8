//! The lookup stage as DataFusion sees it: properties, EXPLAIN, metrics. The work is in `stream`.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, apply_expression_roots,
};

use futures::FutureExt;

use super::join::{Joiner, joined_schema};
use super::policy::CachePolicy;
use super::stream::LookupStream;
use super::table::LookupTable;
use super::variant::Variant;
use super::{JoinKind, LookupJoin};
use crate::error::{Error, Result};
use crate::quantity::show_duration;

/// Joins each row of its input with what a lookup table knows of its key when the row arrives.
#[derive(Debug)]
pub struct LookupExec {
    input: Arc<dyn ExecutionPlan>,
    table: Arc<LookupTable>,
    join: LookupJoin,
    variant: Arc<Variant>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LookupExec {
    /// # Errors
    /// XX000 for a join that names columns which are not there, 0A000 for types that cannot be held.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, table: Arc<LookupTable>, join: LookupJoin) -> Result<Self> {
        if join.keys.len() != join.shape.key_columns.len() {
            let (keys, columns) = (join.keys.len(), join.shape.key_columns.len());
            return Err(Error::internal(format!("a lookup of {keys} keys in {columns} columns was planned")));
        }
        let variant = table.variant(&join.shape)?;
        let schema = joined_schema(&join, &input.schema(), variant.schema())?;
        // A mistake in the residual condition is to show now, not when the first row comes.
        Joiner::try_new(&join, &input.schema(), variant.schema())?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Ok(LookupExec {
            input,
            table,
            join,
            variant,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    pub fn table(&self) -> &Arc<LookupTable> {
        &self.table
    }

    pub fn join(&self) -> &LookupJoin {
        &self.join
    }

    /// The same stage with each of its expressions changed; `change` keeps their types.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map_expressions(
        &self,
        change: impl Fn(&Arc<dyn PhysicalExpr>) -> DataFusionResult<Arc<dyn PhysicalExpr>>,
    ) -> DataFusionResult<Self> {
        let mut join = self.join.clone();
        join.keys = join.keys.iter().map(&change).collect::<DataFusionResult<_>>()?;
        join.gate = join.gate.as_ref().map(&change).transpose()?;
        join.residual = join.residual.as_ref().map(&change).transpose()?;
        Ok(Self::try_new(Arc::clone(&self.input), Arc::clone(&self.table), join)?)
    }

    /// The same stage with fewer columns, if that is all that the projection does: then the store is asked for
    /// nothing that nobody uses.
    fn with_projection(&self, projection: &ProjectionExec) -> DataFusionResult<Option<Self>> {
        let mut positions = vec![];
        for (projected, field) in projection.expr().iter().zip(projection.schema().fields()) {
            match projected.expr.downcast_ref::<Column>() {
                Some(column) if column.name() == field.name() => positions.push(self.join.projection[column.index()]),
                _ => return Ok(None),
            }
        }
        let join = self.join.with_projection(self.input.schema().fields().len(), positions)?;
        Ok(Some(Self::try_new(Arc::clone(&self.input), Arc::clone(&self.table), join)?))
    }

    fn fmt_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LookupJoin { kind, keys, shape, gate, residual, policy, .. } = &self.join;
        let schema = self.table.store().schema();
        let on = keys
            .iter()
            .zip(&shape.key_columns)
            .map(|(key, column)| format!("{key} = {}", schema.field(*column).name()));
        let pushed: Vec<String> = shape.filters.iter().map(ToString::to_string).collect();
        let kind = match kind {
            JoinKind::Inner => "Inner",
            JoinKind::Left => "Left",
        };
        let on = on.collect::<Vec<_>>().join(", ");
        write!(f, "LookupExec: table={}, type={kind}, on=[{on}], ordering={}", self.table.name(), policy.ordering)?;
        write!(f, ", pushed=[{}], residual=[{}]", pushed.join(", "), shown(residual))?;
        if gate.is_some() {
            write!(f, ", gate=[{}]", shown(gate))?;
        }
        write!(f, ", batch_size={}, max_in_flight={}", policy.batch_size, self.table.policy().max_in_flight)?;
        let timeout = policy.timeout.map_or_else(|| "none".to_string(), show_duration);
        write!(f, ", capacity={}, timeout={timeout}, on_failure={}", policy.capacity, policy.on_failure)?;
        write!(f, ", cache={}", shown_cache(&policy.cache))
    }
}

impl DisplayAs for LookupExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => self.fmt_line(f),
            DisplayFormatType::TreeRender => writeln!(f, "table={}", self.table.name()),
        }
    }
}

impl ExecutionPlan for LookupExec {
    fn name(&self) -> &'static str {
        "LookupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
        Ok(self.with_projection(projection)?.map(|stage| Arc::new(stage) as _))
    }

    /// Rows of a stream leave as they came, or each when it is ready: no repartitioning gains anything.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        let LookupJoin { keys, gate, residual, .. } = &self.join;
        apply_expression_roots(keys.iter().chain(gate).chain(residual).cloned(), visit)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[_; 1]>::try_from(children) else {
            return Err(Error::internal("a lookup join has one input").into());
        };
        Ok(Arc::new(LookupExec::try_new(input, Arc::clone(&self.table), self.join.clone())?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let input = after_load(&self.table, self.input.execute(partition, context)?);
        let (table, variant) = (Arc::clone(&self.table), Arc::clone(&self.variant));
        Ok(Box::pin(LookupStream::try_new(input, table, variant, &self.join, (&self.metrics, partition))?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Unknown
    }
}

/// A table that is held whole is loaded before the first row takes its place: its wait is for an answer, not for a load.
/// What a failed load means for a row is decided when the row is looked up.
fn after_load(table: &LookupTable, input: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let Some(full) = table.full.clone() else { return input };
    let schema = input.schema();
    let loaded = async move {
        let _ = full.load().await;
        input
    };
    Box::pin(RecordBatchStreamAdapter::new(schema, loaded.flatten_stream()))
}

fn shown(expression: &Option<Arc<dyn PhysicalExpr>>) -> String {
    expression.as_ref().map_or_else(String::new, ToString::to_string)
}

fn shown_cache(cache: &CachePolicy) -> String {
    match cache {
        CachePolicy::None => cache.name().to_string(),
        CachePolicy::Partial(partial) => {
            let bounds = [("max_rows", partial.max_rows), ("max_bytes", partial.max_bytes)];
            let times = [
                ("expire_after_write", partial.expire_after_write),
                ("expire_after_access", partial.expire_after_access),
                ("expire_misses_after", partial.expire_misses_after),
                ("refresh_after", partial.refresh_after),
                ("serve_stale_for", Some(partial.serve_stale_for).filter(|time| !time.is_zero())),
            ];
            let told_by = partial.told_by.as_ref().map(|told_by| format!(", told_by={told_by}")).unwrap_or_default();
            format!("{}({}{told_by})", cache.name(), shown_options(&bounds, &times))
        }
        CachePolicy::Full(full) => {
            let bounds = [("max_rows", full.max_rows), ("max_bytes", full.max_bytes)];
            let times = [("reload_every", full.reload_every), ("load_timeout", Some(full.load_timeout))];
            format!("{}({})", cache.name(), shown_options(&bounds, &times))
        }
    }
}

fn shown_options(bounds: &[(&str, Option<NonZeroU64>)], times: &[(&str, Option<Duration>)]) -> String {
    let bounds = bounds.iter().filter_map(|(name, bound)| bound.map(|bound| format!("{name}={bound}")));
    let times = times.iter().filter_map(|(name, time)| time.map(|time| format!("{name}={}", show_duration(time))));
    bounds.chain(times).collect::<Vec<_>>().join(", ")
}
