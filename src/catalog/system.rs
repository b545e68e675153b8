//! The schema `lookaside`: what the server tells of itself. A view's rows are those of the moment at which it is read.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::running::RunningQuery;
use super::{Catalog, Lookup, Relation, Stream, Viewer};
use crate::error::{Error, Result};
use crate::lookup::LookupCounters;
use crate::pg_type::{PgType, UTC};
use crate::source::progress::Progress;

/// The schema's name, which is part of the names of views and functions.
pub const SYSTEM_SCHEMA: &str = "lookaside";

/// The views' names and columns.
///
/// # Errors
/// Internal only.
pub fn system_views() -> Result<Vec<(&'static str, SchemaRef)>> {
    SystemView::ALL.into_iter().map(|view| Ok((view.name(), view.schema()?))).collect()
}

/// The views of one catalog.
#[derive(Debug)]
pub(super) struct SystemSchema {
    pub catalog: Arc<Catalog>,
}

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SystemView {
    Streams,
    Lookups,
    Queries,
}

impl SystemView {
    const ALL: [SystemView; 3] = [SystemView::Streams, SystemView::Lookups, SystemView::Queries];

    fn name(self) -> &'static str {
        match self {
            SystemView::Streams => "streams",
            SystemView::Lookups => "lookups",
            SystemView::Queries => "queries",
        }
    }

    fn of_name(name: &str) -> Option<SystemView> {
        SystemView::ALL.into_iter().find(|view| view.name() == name)
    }

    fn schema(self) -> Result<SchemaRef> {
        let empty = match self {
            SystemView::Streams => streams(&[]),
            SystemView::Lookups => lookups(&[]),
            SystemView::Queries => queries(&[]),
        };
        Ok(empty?.schema())
    }

    /// What the viewer may see: of queries his own, unless he is an administrator.
    fn rows(self, catalog: &Catalog, viewer: &Viewer) -> Result<RecordBatch> {
        let rights = &viewer.rights;
        match self {
            SystemView::Streams => {
                let of_streams = catalog.relations().filter_map(|(name, relation)| match relation {
                    Relation::Stream(stream) if rights.may_see(name) => Some(stream.as_ref()),
                    Relation::Stream(_) | Relation::Lookup(_) => None,
                });
                streams(&of_streams.collect::<Vec<_>>())
            }
            SystemView::Lookups => {
                let visible = catalog.lookups().filter(|lookup| rights.may_see(&lookup.definition().name));
                lookups(&visible.collect::<Vec<_>>())
            }
            SystemView::Queries => {
                let mut running = catalog.running().snapshot();
                running.retain(|query| rights.admin || query.user == viewer.user);
                queries(&running)
            }
        }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        SystemView::ALL.iter().map(|view| view.name().to_string()).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let Some(view) = SystemView::of_name(name) else { return Ok(None) };
        let (catalog, schema) = (Arc::clone(&self.catalog), view.schema()?);
        Ok(Some(Arc::new(SystemTable { catalog, view, schema })))
    }

    fn table_exist(&self, name: &str) -> bool {
        SystemView::of_name(name).is_some()
    }
}

/// Whether a provider is one of these views.
pub fn is_system_view(provider: &Arc<dyn TableProvider>) -> bool {
    provider.downcast_ref::<SystemTable>().is_some()
}

struct SystemTable {
    catalog: Arc<Catalog>,
    view: SystemView,
    schema: SchemaRef,
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTable").field("view", &self.view).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    /// Operators are made anew for each execution, so this is the moment at which the view is read.
    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let viewer = Viewer::of(session.config_options()).ok_or_else(|| Error::internal("a view read by nobody"))?;
        let rows = vec![vec![self.view.rows(&self.catalog, viewer)?]];
        Ok(MemorySourceConfig::try_new_exec(&rows, self.schema(), projection.cloned())?)
    }
}

/// Columns in the order in which they are added, so that a view's names, types and values stand in one place.
#[derive(Default)]
struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn add(&mut self, name: &str, pg_type: PgType, nullable: bool, array: ArrayRef) {
        self.fields.push(pg_type.field(name, nullable));
        self.arrays.push(array);
    }

    fn text(&mut self, name: &str, values: impl Iterator<Item = String>) {
        self.add(name, PgType::Text, false, Arc::new(StringViewArray::from_iter_values(values)));
    }

    fn text_or_null(&mut self, name: &str, values: impl Iterator<Item = Option<String>>) {
        self.add(name, PgType::Text, true, Arc::new(values.collect::<StringViewArray>()));
    }

    fn count(&mut self, name: &str, values: impl Iterator<Item = u64>) {
        self.add(name, PgType::Int8, false, Arc::new(Int64Array::from_iter_values(values.map(to_bigint))));
    }

    fn count_or_null(&mut self, name: &str, values: impl Iterator<Item = Option<u64>>) {
        let values = values.map(|value| value.map(to_bigint));
        self.add(name, PgType::Int8, true, Arc::new(values.collect::<Int64Array>()));
    }

    fn number_or_null(&mut self, name: &str, values: impl Iterator<Item = Option<f64>>) {
        self.add(name, PgType::Float8, true, Arc::new(values.collect::<Float64Array>()));
    }

    fn moment_or_null(&mut self, name: &str, values: impl Iterator<Item = Option<DateTime<Utc>>>) {
        let microseconds = values.map(|value| value.map(|moment| moment.timestamp_micros()));
        let array = microseconds.collect::<TimestampMicrosecondArray>().with_timezone(UTC);
        self.add(name, PgType::Timestamptz, true, Arc::new(array));
    }

    fn finish(self) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays)?)
    }
}

fn to_bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn streams(streams: &[&Stream]) -> Result<RecordBatch> {
    let all = || streams.iter();
    let mut columns = Columns::default();
    columns.text("name", all().map(|stream| stream.name.clone()));
    columns.text("type", all().map(|stream| stream.type_name.to_string()));
    let known = |stream: &&&Stream| stream.known_source().map(|source| shown_columns(&source.schema()));
    columns.text_or_null("columns", all().map(|stream| known(&stream)));
    let progress: Vec<_> = all().map(|stream| stream.progress()).collect();
    let count = |of: fn(&Progress) -> u64| progress.iter().map(move |progress| progress.map_or(0, |told| of(told)));
    columns.text("state", progress.iter().map(|told| told.map_or("idle", |told| told.state_name()).to_string()));
    columns.count("rows_read", count(Progress::rows_read));
    columns.count("rows_skipped", count(Progress::rows_skipped));
    columns.number_or_null("rows_per_second", progress.iter().map(|told| told.map(|told| told.rows_per_second())));
    columns.count_or_null("retained_rows", all().map(|stream| stream.push.as_ref().map(|push| push.retained_rows())));
    columns.count("readers", count(Progress::readers));
    columns.count_or_null("lag", all().map(|stream| lag_of(stream)));
    let errors: Vec<_> = all().map(|stream| stream.last_error()).collect();
    columns.text_or_null("last_error", errors.iter().map(|error| error.as_ref().map(|(_, message)| message.clone())));
    columns.moment_or_null("last_error_at", errors.iter().map(|error| error.as_ref().map(|(at, _)| *at)));
    columns.finish()
}

/// Messages or rows that the reader who is furthest behind has not come to.
pub fn lag_of(stream: &Stream) -> Option<u64> {
    match &stream.push {
        Some(push) => push.unread_rows(),
        None => stream.progress()?.lag(),
    }
}

/// `order_id bigint not null, note text`.
pub fn shown_columns(schema: &Schema) -> String {
    let shown = schema.fields().iter().map(|field| {
        let type_name =
            PgType::of_field(field).map_or_else(|_| field.data_type().to_string(), |pg_type| pg_type.to_string());
        let null = if field.is_nullable() { "" } else { " not null" };
        format!("{} {type_name}{null}", field.name())
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn lookups(lookups: &[&Lookup]) -> Result<RecordBatch> {
    let all = || lookups.iter();
    let tables = || all().map(|lookup| lookup.connected_table());
    let counters: Vec<_> =
        tables().map(|table| table.map_or_else(LookupCounters::default, |table| table.counters())).collect();
    let latencies: Vec<_> = tables().map(|table| table.map(|table| table.latency()).unwrap_or_default()).collect();
    let errors: Vec<_> = all().map(|lookup| lookup.last_error()).collect();

    let mut columns = Columns::default();
    columns.text("name", all().map(|lookup| lookup.definition().name.clone()));
    columns.text_or_null("store", all().map(|lookup| lookup.shown_store()));
    columns.text("state", tables().map(|table| state_of(table.is_some()).to_string()));
    columns.text("ordering", all().map(|lookup| lookup.definition().policy.ordering.to_string()));
    columns.text("cache", all().map(|lookup| lookup.definition().policy.cache.name().to_string()));
    let mut count = |name, of: fn(&LookupCounters) -> u64| columns.count(name, counters.iter().map(of));
    count("rows", |counters| counters.rows);
    count("hits", |counters| counters.hits);
    count("misses", |counters| counters.misses);
    count("requests", |counters| counters.requests);
    count("keys", |counters| counters.keys);
    columns.number_or_null("keys_per_request", counters.iter().map(LookupCounters::keys_per_request));
    let mut count = |name, of: fn(&LookupCounters) -> u64| columns.count(name, counters.iter().map(of));
    count("failures", |counters| counters.failures);
    count("timeouts", |counters| counters.timeouts);
    count("retries", |counters| counters.retries);
    count("skipped", |counters| counters.skipped);
    count("stale", |counters| counters.stale);
    count("refreshes", |counters| counters.refreshes);
    count("cached_rows", |counters| counters.cached_rows);
    count("cached_bytes", |counters| counters.cached_bytes);
    count("in_flight", |counters| counters.in_flight);
    let heard: Vec<_> = tables().map(|table| table?.heard()).collect();
    columns.text_or_null("hears_by", heard.iter().map(|heard| heard.as_ref().map(|heard| heard.by.clone())));
    columns.moment_or_null("hears_since", heard.iter().map(|heard| heard.as_ref()?.since));
    columns.moment_or_null("heard_at", heard.iter().map(|heard| heard.as_ref()?.last));
    columns.moment_or_null("loaded_at", tables().map(|table| table?.full_state()?.loaded_at));
    for (name, quantile) in [("latency_p50_ms", 0.5), ("latency_p99_ms", 0.99)] {
        let in_milliseconds = |microseconds: u64| microseconds as f64 / 1000.0;
        columns.number_or_null(name, latencies.iter().map(|seen| seen.quantile(quantile).map(in_milliseconds)));
    }
    columns.text_or_null("breaker", tables().map(|table| table?.breaker_state().map(str::to_string)));
    columns.text_or_null("last_error", errors.iter().map(|error| error.as_ref().map(|(_, message)| message.clone())));
    columns.moment_or_null("last_error_at", errors.iter().map(|error| error.as_ref().map(|(at, _)| *at)));
    columns.finish()
}

/// Whether the store has been reached since the server started.
fn state_of(connected: bool) -> &'static str {
    if connected { "connected" } else { "not connected" }
}

fn queries(queries: &[Arc<RunningQuery>]) -> Result<RecordBatch> {
    let all = || queries.iter();
    let mut columns = Columns::default();
    let pids = all().map(|query| query.pid).collect::<Int32Array>();
    columns.add("pid", PgType::Int4, true, Arc::new(pids));
    columns.text("user", all().map(|query| query.user.clone()));
    columns.text("sql", all().map(|query| query.sql.clone()));
    columns.text("state", all().map(|query| query.state().to_string()));
    columns.moment_or_null("started", all().map(|query| Some(query.started)));
    columns.count("rows_in", all().map(|query| query.rows_in()));
    columns.count("rows_out", all().map(|query| query.rows_out()));
    columns.count("rows_waiting", all().map(|query| query.rows_waiting()));
    columns.finish()
}
