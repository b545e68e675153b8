//! Functions of the schema `lookaside`, by the names under which the planner knows them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, Query, VisitMut, VisitorMut};

use crate::catalog::system::SYSTEM_SCHEMA;
use crate::sql_name::fold_ident;

/// Folds `Lookaside.INVALIDATE(…)` as PostgreSQL does; the planner takes names with a schema as they are written.
pub fn fold_system_functions(query: &mut Query) {
    struct Folder;
    impl VisitorMut for Folder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr {
                let parts: Vec<String> =
                    function.name.0.iter().filter_map(|part| part.as_ident().map(fold_ident)).collect();
                if let [.., schema, name] = parts.as_slice()
                    && schema == SYSTEM_SCHEMA
                {
                    function.name = ObjectName::from(vec![Ident::new(schema), Ident::new(name)]);
                }
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Folder);
}
