//! A filter that lets each batch pass as it comes: DataFusion's own holds rows back until a batch is full.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::{FilterExec, batch_filter};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

/// Puts [`StreamFilterExec`] in the place of every `FilterExec` over endless input.
#[derive(Debug)]
pub struct FilterAsRowsCome;

impl PhysicalOptimizerRule for FilterAsRowsCome {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let replaced = plan.transform_up(|node| match node.downcast_ref::<FilterExec>() {
            Some(filter)
                if filter.input().properties().boundedness.is_unbounded()
                    && filter.projection().is_none()
                    && filter.fetch().is_none() =>
            {
                let properties = Arc::clone(node.properties());
                let filter = StreamFilterExec {
                    predicate: Arc::clone(filter.predicate()),
                    input: Arc::clone(filter.input()),
                    properties,
                };
                Ok(Transformed::yes(Arc::new(filter) as Arc<dyn ExecutionPlan>))
            }
            _ => Ok(Transformed::no(node)),
        })?;
        Ok(replaced.data)
    }

    fn name(&self) -> &str {
        "filter_as_rows_come"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Lets the rows pass for which `predicate` is true, as soon as they come.
#[derive(Debug, Clone)]
pub struct StreamFilterExec {
    predicate: Arc<dyn PhysicalExpr>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for StreamFilterExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamFilterExec: {}", self.predicate)
    }
}

impl ExecutionPlan for StreamFilterExec {
    fn name(&self) -> &'static str {
        "StreamFilterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        f(&self.predicate)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(StreamFilterExec { input, ..(*self).clone() })),
            _ => Err(DataFusionError::Internal("a filter has one input".into())),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let predicate = Arc::clone(&self.predicate);
        let filtered = self.input.execute(partition, context)?.filter_map(move |batch| {
            let passed = batch.and_then(|batch| batch_filter(&batch, &predicate));
            let is_empty = matches!(&passed, Ok(batch) if batch.num_rows() == 0);
            std::future::ready((!is_empty).then_some(passed))
        });
        let schema: SchemaRef = self.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, filtered)))
    }
}
