//! A lookup table read without a key, as DataFusion sees it: straight from the store, past cache and flights.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::table::LookupTable;
use crate::error::{Error, Result};
use crate::store::ScanRequest;

/// Reads a lookup table from its store, in the store's order.
#[derive(Debug)]
pub struct StoreScanExec {
    table: Arc<LookupTable>,
    request: ScanRequest,
    properties: Arc<PlanProperties>,
}

impl StoreScanExec {
    /// # Errors
    /// XX000 for columns that are not there; 0A000 for a store that only answers keys.
    pub fn try_new(table: Arc<LookupTable>, request: ScanRequest) -> Result<Self> {
        let name = table.name();
        if !table.store().can_scan() {
            return Err(Error::unsupported(format!(
                "lookup table \"{name}\" cannot be read whole: its store answers keys only"
            ))
            .with_hint(
                "Say which rows in WHERE, by = or IN with constants, or write LOOKUP JOIN with the keys on its left.",
            ));
        }
        let schema = Arc::new(table.store().schema().project(&request.columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(StoreScanExec { table, request, properties: Arc::new(properties) })
    }
}

impl DisplayAs for StoreScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema();
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let pushed: Vec<_> = self.request.filters.iter().map(ToString::to_string).collect();
        write!(f, "StoreScanExec: table={}, columns=[{}]", self.table.name(), columns.join(", "))?;
        write!(f, ", pushed=[{}]", pushed.join(", "))?;
        self.request.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
    }
}

impl ExecutionPlan for StoreScanExec {
    fn name(&self) -> &'static str {
        "StoreScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => Err(Error::internal("the scan of a store has no input").into()),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        use datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(Recompute))
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let (table, request) = (Arc::clone(&self.table), self.request.clone());
        let name = table.name().to_string();
        let batches = async move { table.store().scan(&request).await }.into_stream().try_flatten();
        let batches = batches.map(move |batch| batch.map_err(|error| DataFusionError::from(error.into_error(&name))));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}
