//! Tables with options: how DataFusion plans what the marks and `WITH ( … )` behind a name ask for.

use std::sync::Arc;

use datafusion::arrow::datatypes::FieldRef;
use datafusion::catalog::default_table_source::{DefaultTableSource, provider_as_source};
use datafusion::common::TableReference;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning, TypePlanner,
};
use datafusion::logical_expr::{LogicalPlanBuilder, TableSource};
use datafusion::sql::sqlparser::ast::{
    DataType as SqlType, Expr, Ident, ObjectName, TableAlias, TableAliasColumnDef, TableFactor,
};

use crate::catalog::{LookupProvider, StreamProvider};
use crate::error::{Error, Result as OurResult};
use crate::sql::lookup_join::is_marked;
use crate::sql::options::{lookup_overrides, stream_range};
use crate::sql::rewrite::pg_type_of;

/// Plans tables that carry hints; all others are DataFusion's.
#[derive(Debug)]
pub struct HintedRelations;

impl RelationPlanner for HintedRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, alias, with_hints, args: None, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let renames = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
        if with_hints.is_empty() && !renames {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let reference = context.object_name_to_table_reference(name.clone())?;
        let plan = |source: Arc<dyn TableSource>| {
            let table = TableReference::bare(reference.table().to_string());
            LogicalPlanBuilder::scan(table, source, None)?.build()
        };
        // What is not in the catalog may be a WITH query, which is DataFusion's to find.
        let source = match context.context_provider().get_table_source(reference.clone()) {
            Ok(source) => source,
            Err(_) if with_hints.is_empty() => return Ok(RelationPlanning::Original(Box::new(relation))),
            Err(error) => return Err(at(name, error.into()).into()),
        };
        let alias = alias.clone().map(|alias| with_all_columns(alias, &source));
        let source = if with_hints.is_empty() { source } else { with_options(reference.table(), &source, with_hints)? };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan(source)?, alias))))
    }
}

/// The error with the place of the name that it is about.
fn at(name: &ObjectName, error: Error) -> Error {
    match name.0.first().and_then(|part| part.as_ident()) {
        Some(ident) => error.with_place(ident.span.start.line, ident.span.start.column),
        None => error,
    }
}

/// Fewer names than columns rename the first ones, as in PostgreSQL.
fn with_all_columns(mut alias: TableAlias, source: &Arc<dyn TableSource>) -> TableAlias {
    let schema = source.schema();
    if !alias.columns.is_empty() {
        let rest = schema.fields().iter().skip(alias.columns.len());
        alias.columns.extend(
            rest.map(|field| TableAliasColumnDef { name: Ident::with_quote('"', field.name()), data_type: None }),
        );
    }
    alias
}

fn with_options(name: &str, source: &Arc<dyn TableSource>, hints: &[Expr]) -> OurResult<Arc<dyn TableSource>> {
    let provider = source.downcast_ref::<DefaultTableSource>().map(|source| &source.table_provider);
    let lookup = provider.and_then(|provider| provider.downcast_ref::<LookupProvider>());
    let stream = provider.and_then(|provider| provider.downcast_ref::<StreamProvider>());
    match (lookup, stream, is_marked(hints)) {
        (Some(lookup), _, true) => {
            let overrides = lookup_overrides(hints)?;
            Ok(provider_as_source(Arc::new(LookupProvider::for_join(Arc::clone(lookup.table()), overrides))))
        }
        (_, Some(stream), false) => {
            let range = stream_range(name, hints, stream.choice())?;
            Ok(provider_as_source(Arc::new(stream.with_range(range))))
        }
        (Some(_), _, false) => Err(Error::unsupported(format!("\"{name}\" is a lookup table and takes options only in a LOOKUP JOIN"))
            .with_hint("Write LOOKUP JOIN, with the stream on its left.")),
        (None, _, true) => Err(Error::unsupported(format!("\"{name}\" is not a lookup table"))
            .with_hint("The right side of a LOOKUP JOIN is a lookup table of the catalog. If \"lookup\" is meant as an alias, write AS lookup.")),
        (None, None, false) => Err(Error::unsupported(format!("\"{name}\" takes no options"))),
    }
}

/// PostgreSQL's types for the types in SQL text: `timestamp` counts microseconds, `numeric` is numeric(38,18).
#[derive(Debug)]
pub struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        Ok(pg_type_of(sql_type).ok().map(|pg_type| Arc::new(pg_type.field("", true))))
    }
}
