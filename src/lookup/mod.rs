//! The lookup stage: rows come in, wait for what a store knows of their keys, and leave joined with it.
//!
//! Read it in the order in which a row travels: [`exec`] shows the stage to DataFusion, `stream` admits rows, waits
//! and emits. On the way in `keys` finds the distinct keys of a batch, `cache` knows some of them, and `flight` has the
//! others asked for, one request per key for all queries: `board` and `lane` keep its books, `request` is the task that
//! carries keys to the store, `mailbox` brings the answers back. `queue` holds the rows that wait and decides which may
//! leave; `join` makes the batches that do. `keys` and `join` know no waiting; `flight`, `queue` and `stream` know no
//! values. A [`table::LookupTable`] owns what all queries over one table share: cache, flights, slots, counters.

mod board;
mod cache;
pub mod exec;
mod flight;
mod join;
mod keys;
mod lane;
mod mailbox;
pub mod policy;
mod queue;
mod request;
#[cfg(test)]
mod scripted;
mod stream;
pub mod table;
mod variant;

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;

pub use self::exec::LookupExec;
pub use self::table::{LookupCounters, LookupTable};
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
