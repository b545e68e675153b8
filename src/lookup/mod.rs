//! The lookup stage.

pub mod policy;

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;

use crate::store::LookupShape;

/// One lookup join, as the planner hands it to the operator.
#[derive(Clone, Debug)]
pub struct LookupJoin {
    pub kind: JoinKind,
    /// For each of `shape.key_columns` the value to look for: an expression over the input, of the column's type.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// What is asked of the store.
    pub shape: Arc<LookupShape>,
    /// A condition over the input alone: rows for which it is not true are not looked up and match nothing.
    pub gate: Option<Arc<dyn PhysicalExpr>>,
    /// A condition over input columns followed by `shape.columns`, applied to each match before LEFT pads.
    pub residual: Option<Arc<dyn PhysicalExpr>>,
    /// The columns that leave, as positions in input columns followed by `shape.columns`.
    pub projection: Vec<usize>,
    /// The table's policy with the overrides of this join.
    pub policy: policy::LookupPolicy,
}

/// What happens to a row without a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum JoinKind {
    /// It is dropped.
    Inner,
    /// It leaves with NULLs for the table's columns.
    Left,
}
