//! `lookaside.warm(table, key, …)` and `lookaside.warm(table, query)`: fills a cache ahead of the rows that will need it.

use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use futures::StreamExt;

use super::Engine;
use super::arguments::{Call, administrator, cached_table, calls, check_types, signature};
use crate::catalog::Viewer;
use crate::error::{Code, Error, Result};
use crate::format::settings::ValueSettings;
use crate::lookup::policy::OnFailure;
use crate::lookup::{JoinKind, LookupExec, LookupJoin, LookupTable};
use crate::notice::Notices;
use crate::pg_type::PgType;
use crate::sql::cast::cast_array;
use crate::sql::{self, StatementKind};
use crate::store::{Conditions, LookupShape};

const NAME: &str = "lookaside.warm";

/// Asks the store for all columns of keys, as any query would; gives the number of keys that were found.
#[derive(Debug)]
pub(super) struct Warm {
    engine: Weak<Engine>,
    signature: Signature,
}

impl Warm {
    pub fn new(engine: Weak<Engine>) -> Self {
        Warm { engine, signature: signature() }
    }

    async fn warm(&self, call: &Call, viewer: &Viewer) -> Result<Option<i64>> {
        let engine = self.engine.upgrade().ok_or_else(|| Error::internal("the engine has gone"))?;
        let Some(name) = &call.table else { return Ok(None) };
        let table = cached_table(engine.catalog(), name)?.table().await?;
        let keys = match query_text(&call.keys)? {
            Some(query) => keys_of_query(&engine, &table, &query, viewer).await?,
            None => keys_of_values(&table, &call.keys)?,
        };
        Ok(Some(find(&engine, &table, keys, viewer).await? as i64))
    }
}

/// The only argument, if it is a query and no key.
fn query_text(arguments: &[ArrayRef]) -> Result<Option<String>> {
    let [argument] = arguments else { return Ok(None) };
    if !matches!(argument.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return Ok(None);
    }
    let text = datafusion::scalar::ScalarValue::try_from_array(argument, 0)?;
    let text = text.try_as_str().flatten().unwrap_or_default();
    let word = text.trim_start().split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    let begins_a_query = ["select", "with", "values"].iter().any(|known| known.eq_ignore_ascii_case(word));
    Ok((begins_a_query && text.trim() != word).then(|| text.to_string()))
}

/// Keys of the table's first column.
fn keys_of_values(table: &LookupTable, values: &[ArrayRef]) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = table.store().schema();
    let field = schema.fields().first().ok_or_else(|| Error::internal("a table without columns"))?;
    let target = PgType::of_field(field)?;
    if values.is_empty() {
        return Err(Error::new(Code::UndefinedFunction, format!("{NAME} needs keys, or a query that gives them"))
            .with_hint(format!("Write {NAME}('{}', 'SELECT … AS {}').", table.name(), field.name())));
    }
    let mut keys = vec![];
    for value in values {
        if let DataType::Struct(_) = value.data_type() {
            let error = format!("{NAME} takes values of the column \"{}\" as keys, not rows", field.name());
            return Err(Error::unsupported(error)
                .with_hint("Give keys of several columns by a query whose columns are named as the table's."));
        }
        keys.push(cast_array(value, &target, ValueSettings::default())?);
    }
    let keys = concat(&keys.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?;
    let schema = Arc::new(Schema::new(vec![target.field(field.name(), true)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![keys])?;
    Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None)?)
}

/// Keys of the columns that the query's columns are named after.
async fn keys_of_query(
    engine: &Engine,
    table: &LookupTable,
    text: &str,
    viewer: &Viewer,
) -> Result<Arc<dyn ExecutionPlan>> {
    let in_keys = |error: Error| error.with_context("in the query for keys");
    let mut statements = sql::parse(text).map_err(in_keys)?;
    let (Some(StatementKind::Query(query)), true) = (statements.pop().map(|only| only.kind), statements.is_empty())
    else {
        return Err(Error::new(Code::SyntaxError, format!("{NAME} needs one query that gives keys")));
    };
    // The query stands inside of another that is being executed, and may hold a call of this function.
    let planned = Box::pin(engine.plan(&query, &[], viewer)).await.map_err(in_keys)?;
    if !planned.parameters.is_empty() {
        return Err(in_keys(Error::new(Code::UndefinedParameter, "there is no parameter $1")));
    }
    if planned.endless {
        return Err(Error::unsupported(format!("{NAME} with keys from an endless query would never end"))
            .with_hint("Put a LIMIT behind the query."));
    }
    let physical = Box::pin(engine.physical_plan(&planned, vec![], viewer)).await.map_err(in_keys)?;
    let columns = planned.schema.fields().iter().enumerate();
    let casts = columns.map(|(position, field)| as_key(table, position, field.name(), &physical));
    Ok(Arc::new(ProjectionExec::try_new(casts.collect::<Result<Vec<_>>>()?, physical)?))
}

/// One column of the query, of the type of the table's column.
fn as_key(table: &LookupTable, position: usize, name: &str, input: &Arc<dyn ExecutionPlan>) -> Result<ProjectionExpr> {
    let schema = table.store().schema();
    let Ok(field) = schema.field_with_name(name) else {
        return Err(Error::new(
            Code::UndefinedColumn,
            format!("column \"{name}\" of lookup table \"{}\" does not exist", table.name()),
        )
        .with_hint("The names of the query's columns say which columns of the table are the key."));
    };
    let input_schema = input.schema();
    let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(input_schema.field(position).name(), position));
    let target = PgType::of_field(field)?.arrow();
    let expr = match input_schema.field(position).data_type() == &target {
        true => column,
        false => Arc::new(CastExpr::new(column, target, None)),
    };
    Ok(ProjectionExpr { expr, alias: name.to_string() })
}

/// Looks keys up by the ordinary stage, which fills the cache; `keys` has columns of the table, by name.
async fn find(engine: &Engine, table: &Arc<LookupTable>, keys: Arc<dyn ExecutionPlan>, viewer: &Viewer) -> Result<u64> {
    let schema = table.store().schema();
    let key_schema = keys.schema();
    let mut key_columns = vec![];
    for field in key_schema.fields() {
        key_columns.push(schema.index_of(field.name())?);
    }
    if key_columns.iter().collect::<BTreeSet<_>>().len() < key_columns.len() {
        return Err(Error::new(Code::DuplicateColumn, "a column of the key is specified more than once"));
    }
    let columns = key_schema.fields().iter().enumerate();
    let join = LookupJoin {
        kind: JoinKind::Inner,
        keys: columns.map(|(position, field)| Arc::new(Column::new(field.name(), position)) as _).collect(),
        shape: Arc::new(LookupShape {
            key_columns,
            columns: (0..schema.fields().len()).collect(),
            filters: Conditions::default(),
        }),
        gate: None,
        residual: None,
        projection: (0..key_schema.fields().len()).collect(),
        policy: crate::lookup::policy::LookupPolicy { on_failure: OnFailure::Fail, ..table.policy().clone() },
    };
    let types = key_schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
    let converter = RowConverter::new(types.collect())?;
    let stage = LookupExec::try_new(keys, Arc::clone(table), join)?;
    let mut rows = Box::pin(engine.execute(Arc::new(stage), viewer, &Notices::default())).await?;
    let mut found: HashSet<OwnedRow> = HashSet::new();
    while let Some(batch) = rows.next().await {
        found.extend(converter.convert_columns(batch?.columns())?.iter().map(|row| row.owned()));
    }
    Ok(found.len() as u64)
}

/// There is one such function for each engine.
impl PartialEq for Warm {
    fn eq(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.engine, &other.engine)
    }
}

impl Eq for Warm {}

impl Hash for Warm {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl ScalarUDFImpl for Warm {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        check_types(NAME, types)?;
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Err(Error::unsupported(format!("{NAME} cannot be called here"))
            .with_hint(format!("Write SELECT {NAME}(…)."))
            .into())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Warm {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let viewer = administrator(NAME, &args)?;
        let mut found = vec![];
        for call in calls(&args)? {
            found.push(self.warm(&call, viewer).await?);
        }
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(found))))
    }
}
