//! Any [`Source`] as DataFusion sees it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

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
use futures::{StreamExt, TryStreamExt, stream};

use super::{Range, Reading, Source, Until};
use crate::notice::Notices;

/// Reads what was chosen of a stream.
pub struct SourceExec {
    name: String,
    source: Arc<dyn Source>,
    range: Range,
    projection: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// What [`open_sources`] has begun to read.
    opened: Mutex<Option<SendableRecordBatchStream>>,
}

/// Begins to read all sources of a plan, which is to be executed next: from here on, `latest` is fixed.
///
/// # Errors
/// As [`Source::open`].
pub async fn open_sources(plan: &Arc<dyn ExecutionPlan>, notices: &Notices) -> crate::error::Result<()> {
    let mut operators = vec![Arc::clone(plan)];
    while let Some(operator) = operators.pop() {
        if let Some(source) = operator.downcast_ref::<SourceExec>() {
            let opened = source.source.open(source.reading(notices.clone())).await;
            let opened = opened.inspect_err(|error| source.source.progress().note(error))?;
            *source.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        }
        operators.extend(operator.children().into_iter().cloned());
    }
    Ok(())
}

impl SourceExec {
    /// `projection` holds positions in the source's schema.
    pub fn new(name: String, source: Arc<dyn Source>, range: Range, projection: Vec<usize>) -> Self {
        let whole = source.schema();
        let fields: Vec<_> = projection.iter().map(|position| Arc::clone(&whole.fields()[*position])).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let boundedness = match source.is_bounded(&range) {
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
            range,
            projection,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            opened: Mutex::default(),
        }
    }

    fn reading(&self, notices: Notices) -> Reading {
        let reader = self.source.progress().enter();
        Reading { range: self.range.clone(), projection: self.projection.clone(), reader, notices }
    }

    /// What was opened for this execution. Who executes a part of a plan a second time reads it anew.
    fn take_opened(&self) -> SendableRecordBatchStream {
        if let Some(opened) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return opened;
        }
        let (source, reading) = (Arc::clone(&self.source), self.reading(Notices::default()));
        let opening = async move { source.open(reading).await.map_err(DataFusionError::from) };
        Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(opening).try_flatten()))
    }
}

impl fmt::Debug for SourceExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceExec").field("name", &self.name).field("range", &self.range).finish_non_exhaustive()
    }
}

impl DisplayAs for SourceExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SourceExec: stream={}, type={}", self.name, self.source)?;
        if !self.source.choice().starts.is_empty() {
            write!(f, ", start={}", self.range.start)?;
        }
        if self.range.until == Until::Latest {
            f.write_str(", until=latest")?;
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

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let progress = Arc::clone(self.source.progress());
        let stream = self.take_opened().inspect(move |batch| {
            if let Ok(batch) = batch {
                rows.add(batch.num_rows());
                progress.count_rows(batch.num_rows());
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
    use crate::source::Start;
    use crate::source::push::{PushStream, SlowReader};

    fn latest() -> Range {
        Range { start: Start::Latest, until: Until::Never }
    }

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
        let plan = SourceExec::new("orders".into(), orders(), latest(), vec![2, 0]);
        let shown = displayable(&plan).one_line().to_string();
        assert_eq!(shown.trim(), "SourceExec: stream=orders, type=push, start=latest, columns=[c, a]");
        assert!(plan.properties().boundedness.is_unbounded());
    }

    #[tokio::test]
    async fn latest_is_fixed_when_sources_are_opened() {
        let stream = orders();
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(SourceExec::new("orders".into(), Arc::clone(&stream) as _, latest(), vec![2, 0]));
        stream.append(row(&stream)).await.unwrap();
        open_sources(&plan, &Notices::default()).await.unwrap();
        stream.append(row(&stream)).await.unwrap();
        let mut rows = plan.execute(0, Arc::default()).unwrap();
        let batch = rows.next().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(batch, row(&stream).project(&[2, 0]).unwrap());
        assert_eq!(batch.schema(), plan.schema());
        assert!(rows.next().now_or_never().is_none(), "a row from before the start");
        assert_eq!((stream.progress().rows_read(), stream.progress().readers()), (1, 1));
    }

    #[tokio::test]
    async fn what_is_executed_again_is_read_again() {
        let stream = orders();
        stream.append(row(&stream)).await.unwrap();
        let range = Range { start: Start::Earliest, until: Until::Latest };
        let plan = SourceExec::new("orders".into(), Arc::clone(&stream) as _, range, vec![0]);
        assert!(!plan.properties().boundedness.is_unbounded());
        for _ in 0..2 {
            let rows = plan.execute(0, Arc::default()).unwrap();
            assert_eq!(rows.map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>().await, [1]);
        }
        assert_eq!(stream.progress().readers(), 0);
    }
}
