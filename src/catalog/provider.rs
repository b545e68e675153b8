//! Streams and lookup tables as DataFusion sees them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use tokio::sync::OnceCell;

use super::definition::{Origin, StreamDefinition};
use super::plain_scan::PlainScan;
use crate::error::{Error, Result};
use crate::lookup::policy::LookupOverrides;
use crate::lookup::{LastError, LookupTable};
use crate::source::exec::SourceExec;
use crate::source::progress::Progress;
use crate::source::push::PushStream;
use crate::source::{DeclaredSource, Range, RangeChoice, Source};

/// A stream of the catalog.
pub struct Stream {
    pub name: String,
    pub comment: Option<String>,
    pub origin: Origin,
    /// The type in the catalog file.
    pub type_name: &'static str,
    source: OnceCell<Arc<dyn Source>>,
    /// `None` where nothing need be asked: `source` is there then.
    declared: Option<Arc<dyn DeclaredSource>>,
    /// What rows may be put in by clients; `None` for streams that read on their own.
    pub push: Option<Arc<PushStream>>,
    /// Of connecting.
    last_error: LastError,
}

/// Where a stream's rows come from.
pub enum StreamSource {
    /// Columns and all.
    Known(Arc<dyn Source>),
    /// Clients put the rows in.
    Push(Arc<PushStream>),
    /// Somebody else knows the columns.
    Declared(Arc<dyn DeclaredSource>),
}

impl Stream {
    pub fn new(definition: &StreamDefinition, type_name: &'static str, source: StreamSource) -> Self {
        let (source, declared, push) = match source {
            StreamSource::Known(source) => (Some(source), None, None),
            StreamSource::Push(push) => (Some(Arc::clone(&push) as Arc<dyn Source>), None, Some(push)),
            StreamSource::Declared(declared) => (None, Some(declared), None),
        };
        Stream {
            name: definition.name.clone(),
            comment: definition.comment.clone(),
            origin: definition.origin.clone(),
            type_name,
            source: OnceCell::new_with(source),
            declared,
            push,
            last_error: LastError::default(),
        }
    }

    /// The source, with its columns; the same for all.
    ///
    /// # Errors
    /// As [`DeclaredSource::connect`]. The next call tries again.
    pub async fn source(&self) -> Result<&Arc<dyn Source>> {
        let connect = || async {
            match &self.declared {
                Some(declared) => declared.connect().await,
                None => Err(Error::internal(format!("stream \"{}\" was not opened", self.name))),
            }
        };
        self.source.get_or_try_init(connect).await.inspect_err(|error| self.last_error.note(error))
    }

    /// The source, if its columns are known already.
    pub fn known_source(&self) -> Option<&Arc<dyn Source>> {
        self.source.get()
    }

    /// What is told of its readings, if there can have been any.
    pub fn progress(&self) -> Option<&Arc<Progress>> {
        self.known_source().map(|source| source.progress())
    }

    /// What went wrong last, and when: with reading, or, before there was any, with asking for the columns.
    pub fn last_error(&self) -> Option<(DateTime<Utc>, String)> {
        self.progress().and_then(|progress| progress.last_error()).or_else(|| self.last_error.get())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A stream of which a query has chosen what to read.
#[derive(Debug)]
pub struct StreamProvider {
    name: String,
    source: Arc<dyn Source>,
    range: Range,
}

impl StreamProvider {
    /// What is read of a stream unless a query says otherwise.
    pub fn of_whole(name: String, source: Arc<dyn Source>) -> Self {
        let range = source.choice().default_range();
        StreamProvider { name, source, range }
    }

    /// The same stream with another choice.
    pub fn with_range(&self, range: Range) -> Self {
        StreamProvider { name: self.name.clone(), source: Arc::clone(&self.source), range }
    }

    /// What may be chosen.
    pub fn choice(&self) -> RangeChoice {
        self.source.choice()
    }

    pub fn is_bounded(&self) -> bool {
        self.source.is_bounded(&self.range)
    }
}

#[async_trait]
impl TableProvider for StreamProvider {
    fn schema(&self) -> SchemaRef {
        self.source.schema()
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
        let source = Arc::clone(&self.source);
        Ok(Arc::new(SourceExec::new(self.name.clone(), source, self.range.clone(), projection)))
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
