//! Views: their queries in the place of their names.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectName, Query, TableAlias, TableFactor, VisitMut, VisitorMut,
};

use crate::catalog::system::SYSTEM_SCHEMA;
use crate::catalog::{Reach, SCHEMA_NAME, View};
use crate::error::{Code, Error, Result};
use crate::pg_catalog::{INFORMATION_SCHEMA, PG_CATALOG, is_catalog_relation};
use crate::sql_name::{fold_ident, relation_name};

/// How deep views may refer to views.
const MAX_VIEW_DEPTH: usize = 32;

/// Where views are found, and whose rights hold.
pub struct ViewScope<'a> {
    /// The view with this name.
    pub view: &'a dyn Fn(&str) -> Option<View>,
    /// What the query itself may read. Views read with the rights of who made them.
    pub readable: &'a Reach,
    /// The schema in which tables of views are found, whatever the query may read.
    pub view_schema: &'a str,
}

/// Puts the queries of views in the place of their names. A view that may not be read is none.
///
/// # Errors
/// 0A000 for options on a view, 54000 for views that refer to each other without end.
pub fn inline_views(query: &mut Query, scope: &ViewScope) -> Result<()> {
    let mut inliner = ViewInliner { scope, shadowed: BTreeSet::new(), depth: 0, view_depths: vec![], error: None };
    let _ = query.visit(&mut inliner);
    inliner.error.map_or(Ok(()), Err)
}

struct ViewInliner<'a> {
    scope: &'a ViewScope<'a>,
    /// Names of WITH queries, which hide views.
    shadowed: BTreeSet<String>,
    depth: usize,
    /// The depths of the views' queries around this place.
    view_depths: Vec<usize>,
    error: Option<Error>,
}

impl VisitorMut for ViewInliner<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.shadowed.insert(fold_ident(&table.alias.name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { .. } = factor {
            self.depth += 1;
        }
        let TableFactor::Table { name, alias, with_hints, args: None, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(view_name) = relation_name(name)
            .filter(|view_name| name.0.len() > 1 || !self.shadowed.contains(view_name))
            .filter(|_| !is_system_name(name))
        else {
            return ControlFlow::Continue(());
        };
        let is_readable = !self.view_depths.is_empty() || self.scope.readable.contains(&view_name);
        let Some(view) = (self.scope.view)(&view_name).filter(|_| is_readable) else {
            if !self.view_depths.is_empty() && *self.scope.readable != Reach::Everything {
                move_to_schema(name, self.scope.view_schema);
            }
            return ControlFlow::Continue(());
        };
        if let Some(hint) = with_hints.first() {
            self.error = Some(options_on_view(&view_name, hint));
            return ControlFlow::Break(());
        }
        if self.depth >= MAX_VIEW_DEPTH {
            self.error =
                Some(Error::new(Code::ProgramLimitExceeded, format!("views are nested too deeply at \"{view_name}\"")));
            return ControlFlow::Break(());
        }
        let alias = alias.take().unwrap_or_else(|| TableAlias {
            explicit: true,
            name: Ident::with_quote('"', view_name),
            columns: vec![],
            at: None,
        });
        let columns = match alias.columns.is_empty() {
            true => view.columns.into_iter().map(|name| ast::TableAliasColumnDef { name, data_type: None }).collect(),
            false => alias.columns,
        };
        self.depth += 1;
        self.view_depths.push(self.depth);
        *factor = TableFactor::Derived {
            lateral: false,
            subquery: view.query,
            alias: Some(TableAlias { columns, ..alias }),
            sample: None,
        };
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { .. } = factor {
            self.view_depths.pop_if(|view| *view == self.depth);
            self.depth -= 1;
        }
        ControlFlow::Continue(())
    }
}

/// Has a table of a view's query, which names its schema, found in another one.
fn move_to_schema(name: &mut ObjectName, schema: &str) {
    let position = name.0.len().checked_sub(2);
    if let Some(part) = position.and_then(|position| name.0.get_mut(position))
        && part.as_ident().is_some_and(|written| fold_ident(written) == SCHEMA_NAME)
    {
        *part = ast::ObjectNamePart::Identifier(Ident::with_quote('"', schema));
    }
}

/// Whether the name is in one of the system's own schemas, where nobody makes views.
fn is_system_name(name: &ObjectName) -> bool {
    let schema = name.0.iter().rev().nth(1).and_then(|part| part.as_ident());
    schema.is_some_and(|schema| [SYSTEM_SCHEMA, PG_CATALOG, INFORMATION_SCHEMA].contains(&fold_ident(schema).as_str()))
}

fn options_on_view(view: &str, hint: &Expr) -> Error {
    match crate::sql::lookup_join::is_mark(hint) {
        true => Error::unsupported(format!("\"{view}\" is a view and cannot stand on the right of a LOOKUP JOIN"))
            .with_hint("Only lookup tables of the catalog can be looked up."),
        false => Error::unsupported(format!("\"{view}\" is a view and takes no options"))
            .with_hint("Write the options behind the stream in the view's query."),
    }
}

/// Names every table of a view's query so that no WITH query around its later use can hide it.
pub fn qualify_tables(query: &mut Query) {
    let mut qualifier = Qualifier { own: BTreeSet::new() };
    let _ = query.visit(&mut qualifier);
}

struct Qualifier {
    own: BTreeSet<String>,
}

impl VisitorMut for Qualifier {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.own.insert(fold_ident(&table.alias.name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return ControlFlow::Continue(()) };
        let Some(table) = relation_name(name).filter(|table| name.0.len() == 1 && !self.own.contains(table)) else {
            return ControlFlow::Continue(());
        };
        if alias.is_none() {
            let name = Ident::with_quote('"', table);
            *alias = Some(TableAlias { explicit: true, name, columns: vec![], at: None });
        }
        let schema =
            if is_catalog_relation(&relation_name(name).unwrap_or_default()) { PG_CATALOG } else { SCHEMA_NAME };
        name.0.insert(0, ast::ObjectNamePart::Identifier(Ident::new(schema)));
        ControlFlow::Continue(())
    }
}
