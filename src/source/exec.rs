//! Any [`Source`] as DataFusion sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

use super::{Source, Start};

/// Reads a stream from a chosen start.
#[derive(Debug)]
pub struct SourceExec {
    name: String,
    source: Arc<dyn Source>,
    start: Start,
    projection: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// Rows that all readers of the stream were given.
    rows_read: Arc<AtomicU64>,
}

impl SourceExec {
    /// `projection` holds positions in the source's schema.
    pub fn new(name: String, source: Arc<dyn Source>, start: Start, projection: Vec<usize>) -> Self {
        let whole = source.schema();
        let fields: Vec<_> = projection.iter().map(|position| Arc::clone(&whole.fields()[*position])).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let boundedness = match source.is_bounded() {
            true => Boundedness::Bounded,
            false => Boundedness::Unbounded { requires_infinite_memory: false },
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            boundedness,
        );
        SourceExec {
            name,
            source,
            start,
            projection,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            rows_read: Arc::default(),
        }
    }

    /// The same, which adds the rows that it reads to `rows_read`.
    pub fn with_rows_read(self, rows_read: Arc<AtomicU64>) -> Self {
        SourceExec { rows_read, ..self }
    }
}

impl DisplayAs for SourceExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SourceExec: stream={}, type={}", self.name, self.source)?;
        if !self.source.starts().is_empty() {
            write!(f, ", start={}", self.start.name())?;
        }
        let schema = self.schema();
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", columns=[{}]", columns.join(", "))
    }
}

impl ExecutionPlan for SourceExec {
    fn name(&self) -> &'static str {
        "SourceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => Err(DataFusionError::Internal("a source has no input".into())),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    /// Opens the source at once, so that the place where `latest` is does not depend on when the first row is asked for.
    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let rows_read = Arc::clone(&self.rows_read);
        let stream = self.source.open(self.start, &self.projection)?.inspect(move |batch| {
            if let Ok(batch) = batch {
                rows.add(batch.num_rows());
                rows_read.fetch_add(batch.num_rows() as u64, Relaxed);
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::physical_plan::displayable;
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::pg_type::PgType;
    use crate::source::push::{PushStream, SlowReader};

    fn orders() -> Arc<PushStream> {
        let fields = vec![PgType::Int8.field("a", true), PgType::Int8.field("b", true), PgType::Int8.field("c", true)];
        Arc::new(PushStream::new("orders".into(), Arc::new(Schema::new(fields)), 10, 1 << 20, SlowReader::Fail))
    }

    fn row(stream: &PushStream) -> RecordBatch {
        let columns = (1..=3).map(|value| Arc::new(Int64Array::from(vec![value])) as ArrayRef).collect();
        RecordBatch::try_new(stream.schema(), columns).unwrap()
    }

    #[test]
    fn explain_shows_stream_type_start_and_columns() {
        let plan = SourceExec::new("orders".into(), orders(), Start::Latest, vec![2, 0]);
        let shown = displayable(&plan).one_line().to_string();
        assert_eq!(shown.trim(), "SourceExec: stream=orders, type=push, start=latest, columns=[c, a]");
        assert!(plan.properties().boundedness.is_unbounded());
    }

    #[tokio::test]
    async fn latest_is_fixed_when_execution_starts() {
        let stream = orders();
        let plan = SourceExec::new("orders".into(), Arc::clone(&stream) as _, Start::Latest, vec![2, 0]);
        stream.append(row(&stream)).await.unwrap();
        let mut rows = plan.execute(0, Arc::default()).unwrap();
        assert!(rows.next().now_or_never().is_none(), "a row from before the start");
        stream.append(row(&stream)).await.unwrap();
        let batch = rows.next().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(batch, row(&stream).project(&[2, 0]).unwrap());
        assert_eq!(batch.schema(), plan.schema());
    }
}
