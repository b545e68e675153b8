//! The columns of views, for the catalogs that tools ask.

use std::ops::ControlFlow;
use std::sync::Weak;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Query, TableFactor, Visit, Visitor};

use super::Engine;
use crate::catalog::{Catalog, Relation, View, Viewer};
use crate::pg_catalog::ViewColumns;
use crate::sql_name::{fold_ident, relation_name};

/// Plans a view to see its columns, unless that would wait for a store.
#[derive(Debug)]
pub(super) struct PlannedViewColumns {
    pub engine: Weak<Engine>,
}

#[async_trait]
impl ViewColumns for PlannedViewColumns {
    async fn columns(&self, view: &View) -> Option<SchemaRef> {
        let engine = self.engine.upgrade()?;
        let mut query = view.query.as_ref().clone();
        engine.inline_views(&mut query, &Viewer::owner()).ok()?;
        if waits_for_a_store(&query, &engine.catalog) {
            return None;
        }
        // Asked for while another query is planned: the future would hold itself.
        let planned = Box::pin(engine.plan(&query, &[], &Viewer::owner())).await.ok()?;
        let fields = planned.schema.fields().iter().enumerate().map(|(position, field)| {
            let name = view.columns.get(position).map_or_else(|| field.name().clone(), fold_ident);
            // PostgreSQL keeps no NOT NULL for the columns of views.
            Field::clone(field).with_name(name).with_nullable(true)
        });
        Some(SchemaRef::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

/// Whether a query names a lookup table whose columns are not known yet.
fn waits_for_a_store(query: &Query, catalog: &Catalog) -> bool {
    struct Finder<'a>(&'a Catalog);
    impl Visitor for Finder<'_> {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            let TableFactor::Table { name, .. } = factor else { return ControlFlow::Continue(()) };
            let name = relation_name(name).unwrap_or_default();
            let is_unknown = self.0.relations().any(|(known, relation)| match relation {
                Relation::Lookup(lookup) => known == name && lookup.connected_table().is_none(),
                Relation::Stream(_) => false,
            });
            if is_unknown { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    query.visit(&mut Finder(catalog)).is_break()
}
