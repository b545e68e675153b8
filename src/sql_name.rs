//! Names in SQL as PostgreSQL folds them.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};

/// A name in lower case, unless it was quoted.
pub fn fold_ident(ident: &Ident) -> String {
    fold(&ident.value, ident.quote_style.is_some())
}

/// A word in lower case, unless it was quoted.
pub fn fold(name: &str, quoted: bool) -> String {
    if quoted { name.to_string() } else { name.to_lowercase() }
}

/// The name of a relation without its schema, which is always the same.
pub fn relation_name(name: &ObjectName) -> Option<String> {
    name.0.last().and_then(|part| part.as_ident()).map(fold_ident)
}
