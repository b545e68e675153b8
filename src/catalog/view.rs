//! A query with a name.

use datafusion::sql::sqlparser::ast::{Ident, Query};

/// A view's columns (empty: as its query names them) and query.
#[derive(Clone, Debug)]
pub struct View {
    pub columns: Vec<Ident>,
    pub query: Box<Query>,
}

/// A view with the statement that made it.
#[derive(Clone, Debug)]
pub struct StoredView {
    pub view: View,
    pub text: String,
}
