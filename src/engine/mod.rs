//! From a query's syntax tree to rows: the stages between `sql` and the operators, on one screen.
//!
//! `invalidate.rs` and `warm.rs` are functions over lookup tables that queries may call, `arguments.rs` what they share;
//! `backend.rs` is functions over connections. `subquery.rs`, `known.rs`, `array.rs` and `sort.rs` run the subqueries of tools over the system's
//! catalogs; `view_columns.rs` tells these catalogs the columns of views.

mod arguments;
mod array;
mod backend;
mod invalidate;
mod known;
mod sort;
mod subquery;
mod view_columns;
mod warm;

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchemaRef, ParamValues, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::async_udf::AsyncScalarUDF;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF, Statement as PlannedStatement};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast::{self, Ident, Query, Value, ValueWithSpan, VisitMut, VisitorMut};
use futures::TryStreamExt;

use crate::catalog::backends::Signal;
use crate::catalog::running::QueryEntry;
use crate::catalog::{CATALOG_NAME, Catalog, SCHEMA_NAME, Viewer, visible_to};
use crate::error::{Code, Error, Result};
use crate::notice::Notices;
use crate::pg_catalog::{self, SystemCatalog};
use crate::pg_type::PgType;
use crate::plan::check::check_streaming;
use crate::plan::with_rules;
use crate::source::exec::open_sources;
use crate::sql::cast::PgCast;
use crate::sql::catalog_query::rewrite_catalog_names;
use crate::sql::parameter::limit_parameters;
use crate::sql::relation::{HintedRelations, PostgresTypes};
use crate::sql::system_time::SystemTime;
use crate::sql::view::{self, ViewScope};
use crate::sql::{function, rewrite, star, system_time};
use array::ArrayOf;
use backend::{SignalBackend, Sleep, UnlockAll};
use invalidate::Invalidate;
use subquery::RunSubqueries;
use view_columns::PlannedViewColumns;
use warm::Warm;

/// Most parameters of a statement, as in the protocol.
const MAX_PARAMETERS: usize = 65_535;

/// Plans and runs queries over one catalog, for all sessions.
#[derive(Debug)]
pub struct Engine {
    catalog: Arc<Catalog>,
    state: SessionState,
}

/// A query that can be run any number of times.
#[derive(Clone, Debug)]
pub struct Planned {
    plan: LogicalPlan,
    /// The parameters' types: what the client declared, else what the query tells.
    pub parameters: Vec<PgType>,
    /// The columns as the client sees them.
    pub schema: SchemaRef,
    /// Whether the rows never end by themselves.
    pub endless: bool,
    /// What the client is to be told when it runs.
    pub notices: Vec<Error>,
}

/// Rows on their way.
pub struct Rows {
    pub schema: SchemaRef,
    pub stream: SendableRecordBatchStream,
    pub endless: bool,
    /// What is said beside the rows while they come.
    pub notices: Notices,
    /// What `lookaside.queries` shows of it, as long as this lives; `None` for rows that no query makes.
    pub query: Option<QueryEntry>,
}

impl Engine {
    pub fn new(catalog: Arc<Catalog>) -> Arc<Self> {
        let config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG_NAME, SCHEMA_NAME)
            .with_create_default_catalog_and_schema(false)
            // Streams keep their order: what runs in parallel does so inside of the operators.
            .with_target_partitions(1)
            .set_bool("datafusion.sql_parser.collect_spans", true)
            .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
            .set_bool("datafusion.optimizer.enable_dynamic_filter_pushdown", false)
            .set_str("datafusion.sql_parser.dialect", "postgres");
        let catalogs = Arc::clone(&catalog).as_catalog_list();
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_catalog_list(Arc::clone(&catalogs))
            .with_type_planner(Arc::new(PostgresTypes))
            .with_relation_planners(vec![Arc::new(HintedRelations)]);
        let mut state = with_rules(state).build();
        Arc::new_cyclic(|engine| {
            let views = Arc::new(PlannedViewColumns { engine: engine.clone() });
            let system = SystemCatalog::new(Arc::clone(&catalog), views);
            system.register(catalogs.as_ref());
            state.add_analyzer_rule(Arc::new(RunSubqueries { engine: engine.clone() }));
            let functions = [
                ScalarUDF::from(PgCast::new()),
                ScalarUDF::from(SystemTime::new()),
                ScalarUDF::from(ArrayOf::new()),
                ScalarUDF::from(Invalidate::new(Arc::clone(&catalog))),
                ScalarUDF::from(SignalBackend::new(Signal::Cancel, &catalog)),
                ScalarUDF::from(SignalBackend::new(Signal::Terminate, &catalog)),
                AsyncScalarUDF::new(Arc::new(Sleep::new())).into_scalar_udf(),
                ScalarUDF::from(UnlockAll::new()),
                AsyncScalarUDF::new(Arc::new(Warm::new(engine.clone()))).into_scalar_udf(),
            ];
            let functions = functions.into_iter().chain(pg_catalog::functions(&system));
            Engine { catalog, state: with_functions(state, functions) }
        })
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The planner's state in the eyes of who asks.
    fn state_of(&self, viewer: &Viewer) -> SessionState {
        let mut state = self.state.clone();
        state.config_mut().options_mut().extensions.insert(viewer.clone());
        let visible = visible_to(state.catalog_list(), &viewer.rights);
        state.register_catalog_list(visible);
        state
    }

    /// Plans a query of `viewer`. `declared` are the types that the client gave to parameters, by position.
    ///
    /// # Errors
    /// Whatever is wrong with the query, with its place as line and column; HV00N where a store that must be asked
    /// for its columns is not available.
    pub async fn plan(&self, query: &Query, declared: &[Option<PgType>], viewer: &Viewer) -> Result<Planned> {
        let state = self.state_of(viewer);
        let mut query = query.clone();
        self.inline_views(&mut query, viewer)?;
        rewrite_catalog_names(&mut query);
        let notices = system_time::take_system_times(&mut query)?;
        star::refuse_natural_lookup_joins(&query)?;
        expand_stars(&state, &mut query).await?;
        function::fold_system_functions(&mut query);
        let mut told = rewrite::rewrite_casts(&mut query)?;
        told.extend(limit_parameters(&query));
        rewrite::name_columns(&mut query);

        let count = parameter_count(&mut query)?;
        let mut types: Vec<Option<PgType>> =
            declared.iter().cloned().chain(std::iter::repeat(None)).take(count).collect();
        for (number, pg_type) in told {
            if let Some(slot @ None) = types.get_mut(number - 1) {
                *slot = Some(pg_type);
            }
        }
        if types.iter().any(Option::is_none) {
            infer_parameters(&state, &query, &mut types).await?;
        }
        let parameters: Vec<PgType> = types.into_iter().map(|pg_type| pg_type.unwrap_or(PgType::Text)).collect();

        let plan = logical_plan(&state, query, &parameters).await?;
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        let endless = check_streaming(&plan)?;
        let schema = Arc::new(shown_schema(plan.schema().as_arrow()));
        // A type that no client could read is refused here and not at the first row.
        for field in schema.fields() {
            PgType::of_field(field)?;
        }
        Ok(Planned { plan, parameters, schema, endless, notices })
    }

    fn inline_views(&self, query: &mut Query, viewer: &Viewer) -> Result<()> {
        let scope = ViewScope {
            view: &|name| self.catalog.view(name),
            readable: &viewer.rights.read,
            view_schema: self.catalog.view_schema(),
        };
        view::inline_views(query, &scope)
    }

    /// Begins to run a planned query: from here on, `latest` is fixed and rows may come. `query` is its entry among
    /// those that run.
    ///
    /// # Errors
    /// What planning with the values finds, or a store that is not available.
    pub async fn run(
        &self,
        planned: &Planned,
        values: Vec<ScalarValue>,
        viewer: &Viewer,
        query: QueryEntry,
    ) -> Result<Rows> {
        let physical = self.physical_plan(planned, values, viewer).await?;
        query.runs(&physical);
        let notices = Notices::default();
        let stream = self.execute(physical, viewer, &notices).await?;
        let schema = Arc::clone(&planned.schema);
        Ok(Rows { schema, stream, endless: planned.endless, notices, query: Some(query) })
    }

    /// Runs operators: their streams begin to be read before this returns.
    ///
    /// # Errors
    /// HV00N where a stream's server is not available.
    pub async fn execute(
        &self,
        physical: Arc<dyn ExecutionPlan>,
        viewer: &Viewer,
        notices: &Notices,
    ) -> Result<SendableRecordBatchStream> {
        open_sources(&physical, notices).await?;
        Ok(execute_stream(physical, self.task_context(viewer))?)
    }

    /// The operators that would run.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub async fn physical_plan(
        &self,
        planned: &Planned,
        values: Vec<ScalarValue>,
        viewer: &Viewer,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut state = self.state_of(viewer);
        state.mark_start_execution();
        let plan = match values.is_empty() {
            true => planned.plan.clone(),
            false => planned.plan.clone().replace_params_with_values(&ParamValues::from(values))?,
        };
        Ok(state.create_physical_plan(&plan).await?)
    }

    /// The context that operators run in.
    pub fn task_context(&self, viewer: &Viewer) -> Arc<datafusion::execution::TaskContext> {
        self.state_of(viewer).task_ctx()
    }

    /// All rows of a plan that ends.
    async fn rows_of(&self, plan: &LogicalPlan, viewer: &Viewer) -> Result<Vec<RecordBatch>> {
        let mut state = self.state_of(viewer);
        state.mark_start_execution();
        let physical = state.create_physical_plan(plan).await?;
        Ok(execute_stream(physical, state.task_ctx())?.try_collect().await?)
    }

    /// The values of EXECUTE's arguments, each cast to its parameter's type.
    ///
    /// # Errors
    /// Whatever is wrong with an expression or its value.
    pub async fn evaluate(
        &self,
        arguments: &[ast::Expr],
        types: &[PgType],
        viewer: &Viewer,
    ) -> Result<Vec<ScalarValue>> {
        let state = self.state_of(viewer);
        let mut query = rewrite::values_query(arguments, types)?;
        rewrite::rewrite_casts(&mut query)?;
        let plan = logical_plan(&state, query, &[]).await?;
        let physical = state.create_physical_plan(&plan).await?;
        let batches: Vec<_> = execute_stream(physical, state.task_ctx())?.try_collect().await?;
        let batch = batches.first().ok_or_else(|| Error::internal("arguments without a row"))?;
        batch.columns().iter().map(|column| Ok(ScalarValue::try_from_array(column, 0)?)).collect()
    }
}

/// What a relation's columns are, for the expansion of stars.
async fn expand_stars(state: &SessionState, query: &mut Query) -> Result<()> {
    for probe in star::selects_to_expand(query) {
        let input = input_schema(state, probe).await?;
        star::expand(query, &input);
    }
    // What is wrong with the query is told when it is planned itself.
    if let Some(probe) = star::outermost_to_expand(query)
        && let Ok(input) = input_schema(state, probe).await
    {
        star::expand_outermost(query, &input);
    }
    Ok(())
}

/// The columns of what a query is from.
async fn input_schema(state: &SessionState, mut probe: Query) -> Result<DFSchemaRef> {
    rewrite::rewrite_casts(&mut probe)?;
    let plan = logical_plan(state, probe, &[]).await?;
    Ok(plan.inputs().first().map_or_else(|| Arc::clone(plan.schema()), |input| Arc::clone(input.schema())))
}

async fn infer_parameters(state: &SessionState, query: &Query, types: &mut [Option<PgType>]) -> Result<()> {
    let plan = logical_plan(state, query.clone(), &[]).await?;
    let inferred = plan.get_parameter_fields()?;
    for (position, slot) in types.iter_mut().enumerate() {
        let field = inferred.get(&format!("${}", position + 1)).cloned().flatten();
        if let (None, Some(field)) = (&slot, field) {
            *slot = Some(PgType::of_field(&field)?);
        }
    }
    Ok(())
}

/// DataFusion plans typed parameters in PREPARE only; so that is what it is given.
async fn logical_plan(state: &SessionState, query: Query, parameters: &[PgType]) -> Result<LogicalPlan> {
    let statement = ast::Statement::Query(Box::new(query));
    let statement = match parameters.is_empty() {
        true => statement,
        false => ast::Statement::Prepare {
            name: Ident::new("parameters"),
            data_types: parameters.iter().map(rewrite::parameter_type).collect::<Result<_>>()?,
            statement: Box::new(statement),
        },
    };
    let plan = state.statement_to_plan(DataFusionStatement::Statement(Box::new(statement))).await?;
    Ok(match plan {
        LogicalPlan::Statement(PlannedStatement::Prepare(prepare)) => Arc::unwrap_or_clone(prepare.input),
        plan => plan,
    })
}

fn with_functions(mut state: SessionState, functions: impl IntoIterator<Item = ScalarUDF>) -> SessionState {
    for function in functions {
        // A fresh registry has no function of this name that the registration could clash with.
        let _ = datafusion::execution::FunctionRegistry::register_udf(&mut state, Arc::new(function));
    }
    state
}

fn shown_schema(schema: &Schema) -> Schema {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_name(rewrite::shown_name(field.name())))
        .collect();
    Schema::new(fields)
}

/// The highest number of a parameter in the query.
fn parameter_count(query: &mut Query) -> Result<usize> {
    struct Highest(usize, Option<Error>);
    impl VisitorMut for Highest {
        type Break = ();
        fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
            let Value::Placeholder(name) = &value.value else { return ControlFlow::Continue(()) };
            match name.strip_prefix('$').and_then(|number| number.parse().ok()) {
                Some(number) if (1..=MAX_PARAMETERS).contains(&number) => self.0 = self.0.max(number),
                _ => self.1 = Some(Error::new(Code::SyntaxError, format!("there is no parameter {name}"))),
            }
            ControlFlow::Continue(())
        }
    }
    let mut highest = Highest(0, None);
    let _ = query.visit(&mut highest);
    match highest.1 {
        Some(error) => Err(error),
        None => Ok(highest.0),
    }
}
