//! Streams and lookup tables as DataFusion sees them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::plain_scan::PlainScan;
use crate::lookup::LookupTable;
use crate::lookup::policy::LookupOverrides;
use crate::source::exec::SourceExec;
use crate::source::push::PushStream;
use crate::source::{Source, Start};

/// A stream of the catalog.
#[derive(Debug)]
pub struct Stream {
    pub name: String,
    pub comment: Option<String>,
    /// The type in the catalog file.
    pub type_name: &'static str,
    pub source: Arc<dyn Source>,
    /// What rows may be put in by clients; `None` for streams that read on their own.
    pub push: Option<Arc<PushStream>>,
    /// Rows that all readers were given.
    pub rows_read: Arc<AtomicU64>,
}

impl Stream {
    /// A stream that reads on its own and takes no rows.
    pub fn reading(name: String, type_name: &'static str, source: Arc<dyn Source>) -> Self {
        Stream { name, comment: None, type_name, source, push: None, rows_read: Arc::default() }
    }
}

/// A stream to be read from a place that the query has chosen.
#[derive(Debug)]
pub struct StreamProvider {
    stream: Arc<Stream>,
    start: Start,
}

impl StreamProvider {
    pub fn new(stream: Arc<Stream>, start: Start) -> Self {
        StreamProvider { stream, start }
    }

    /// The stream from where it starts unless a query says otherwise.
    pub fn of_whole(stream: Arc<Stream>) -> Self {
        let start = stream.source.starts().first().copied().unwrap_or(Start::Earliest);
        Self::new(stream, start)
    }

    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub fn is_bounded(&self) -> bool {
        self.stream.source.is_bounded()
    }
}

#[async_trait]
impl TableProvider for StreamProvider {
    fn schema(&self) -> SchemaRef {
        self.stream.source.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let all = || (0..self.schema().fields().len()).collect();
        let projection = projection.cloned().unwrap_or_else(all);
        let source = Arc::clone(&self.stream.source);
        let exec = SourceExec::new(self.stream.name.clone(), source, self.start, projection);
        Ok(Arc::new(exec.with_rows_read(Arc::clone(&self.stream.rows_read))))
    }
}

/// A lookup table, on the right of a lookup join or elsewhere.
pub struct LookupProvider {
    table: Arc<LookupTable>,
    overrides: LookupOverrides,
    in_lookup_join: bool,
}

impl LookupProvider {
    /// The table as it is named anywhere in a query.
    pub fn new(table: Arc<LookupTable>) -> Self {
        LookupProvider { table, overrides: LookupOverrides::default(), in_lookup_join: false }
    }

    /// The table as the right side of a lookup join.
    pub fn for_join(table: Arc<LookupTable>, overrides: LookupOverrides) -> Self {
        LookupProvider { table, overrides, in_lookup_join: true }
    }

    pub fn table(&self) -> &Arc<LookupTable> {
        &self.table
    }

    pub fn table_name(&self) -> &str {
        self.table.name()
    }

    pub fn overrides(&self) -> &LookupOverrides {
        &self.overrides
    }

    pub fn in_lookup_join(&self) -> bool {
        self.in_lookup_join
    }
}

impl fmt::Debug for LookupProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupProvider").field("table", &self.table.name()).field("overrides", &self.overrides).finish()
    }
}

#[async_trait]
impl TableProvider for LookupProvider {
    fn schema(&self) -> SchemaRef {
        self.table.store().schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Outside of a lookup join the scan applies conditions itself; in one, they are the join's.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.in_lookup_join || filter.is_volatile() {
            true => TableProviderFilterPushDown::Unsupported,
            false => TableProviderFilterPushDown::Exact,
        };
        Ok(filters.iter().map(support).collect())
    }

    /// In a lookup join it is a child of the join's node in the logical plan and has no life of its own.
    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let projection = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        if self.in_lookup_join {
            return Ok(Arc::new(EmptyExec::new(Arc::new(schema.project(&projection)?))));
        }
        Ok(PlainScan { table: &self.table, projection, filters, limit }.plan(session)?)
    }
}
