//! What a parameter's place tells of its type.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, LimitClause, Query, Value, Visit, Visitor};

use crate::pg_type::PgType;

/// The number of the parameter that an expression is.
pub fn parameter_number(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
            _ => None,
        },
        Expr::Nested(inner) => parameter_number(inner),
        _ => None,
    }
}

/// The parameters behind LIMIT and OFFSET, which are bigint.
pub fn limit_parameters(query: &Query) -> Vec<(usize, PgType)> {
    #[derive(Default)]
    struct Finder(Vec<usize>);
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                let counts = limit.iter().chain(offset.iter().map(|offset| &offset.value));
                self.0.extend(counts.filter_map(parameter_number));
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder::default();
    let _ = query.visit(&mut finder);
    finder.0.into_iter().map(|number| (number, PgType::Int8)).collect()
}
