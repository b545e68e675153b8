//! Conditions that a store is to apply.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use datafusion::logical_expr::Expr;

/// Conditions of which a row must satisfy all.
///
/// They stand behind a trait: whether a future may move between threads is asked of all that it holds, and of DataFusion's
/// expressions the compiler takes seconds to tell, for each such future anew.
#[derive(Clone)]
pub struct Conditions(Arc<dyn Expressions>);

trait Expressions: Send + Sync {
    fn expressions(&self) -> &[Expr];
}

impl Expressions for Vec<Expr> {
    fn expressions(&self) -> &[Expr] {
        self
    }
}

impl Deref for Conditions {
    type Target = [Expr];

    fn deref(&self) -> &[Expr] {
        self.0.expressions()
    }
}

impl From<Vec<Expr>> for Conditions {
    fn from(conditions: Vec<Expr>) -> Self {
        Conditions(Arc::new(conditions))
    }
}

/// None.
impl Default for Conditions {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl PartialEq for Conditions {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Conditions {}

impl Hash for Conditions {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
