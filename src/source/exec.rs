//! Any [`Source`] as a leaf of a physical plan.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use crate::error::Error;
use crate::source::{Source, Start};

/// Reads some columns of a stream, in one partition, in the stream's order.
#[derive(Debug)]
pub struct SourceExec {
    name: String,
    source: Arc<dyn Source>,
    start: Start,
    projection: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl SourceExec {
    /// `name` is the stream's in the catalog, `projection` holds positions in the source's schema.
    pub fn new(name: String, source: Arc<dyn Source>, start: Start, projection: Vec<usize>) -> Self {
        let schema = projected(&source.schema(), &projection);
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
        SourceExec { name, source, start, projection, properties: Arc::new(properties) }
    }

    /// The stream's name in the catalog.
    pub fn stream_name(&self) -> &str {
        &self.name
    }

    fn fmt_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceExec: stream={}, type={}", self.name, self.source)?;
        if !self.source.starts().is_empty() {
            write!(f, ", start={}", self.start.name())?;
        }
        let schema = self.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", columns=[{}]", columns.join(", "))
    }
}

/// A position that is not there is left out here and an error of [`Source::open`].
fn projected(schema: &SchemaRef, projection: &[usize]) -> SchemaRef {
    let fields = projection.iter().filter_map(|position| schema.fields().get(*position)).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl DisplayAs for SourceExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => self.fmt_line(f),
            DisplayFormatType::TreeRender => writeln!(f, "stream={}", self.name),
        }
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
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match children.len() {
            0 => Ok(self),
            count => Err(Error::internal(format!("a stream has no input, and was given {count}")).into()),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    /// Opens the source here and now, not when it is first polled: so `latest` is the moment of execution.
    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        if partition != 0 {
            let name = &self.name;
            return Err(
                Error::internal(format!("stream \"{name}\" has one partition, not a number {partition}")).into()
            );
        }
        Ok(self.source.open(self.start, &self.projection)?)
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

    #[test]
    fn there_is_one_partition() {
        let plan = SourceExec::new("orders".into(), orders(), Start::Latest, vec![0]);
        let error = plan.execute(1, Arc::default()).err().unwrap();
        assert_eq!(Error::from(error).message(), "stream \"orders\" has one partition, not a number 1");
    }
}
