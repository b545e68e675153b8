//! The lookup stage: rows come in, wait for what a store knows of their keys, and leave joined with it.
//!
//! Read it in the order in which a row travels: [`exec`] shows the stage to DataFusion, `stream` reads, waits and emits.
//! On the way in `admit` asks what is known of a batch: `l1` (by `l1_index`) knows the rows that come again and again, in
//! columns; of the others `keys` finds the distinct keys, `known` looks for them in the `cache` of `answer`s that all
//! queries share, and `flight` has the rest asked for, one request per key for all queries: `board` and `lane` keep its
//! books, `request` is the task that carries keys to the store, `mailbox` brings the answers back. `refresh` asks anew
//! for what grows old, `invalidate` forgets, also what the store says has changed, which `hearing` hears. `queue` holds the rows that wait and decides which may leave; `join` makes
//! the batches that do. `keys` and `join` know no waiting; `flight`, `queue` and `stream` know no values. `key_type` says
//! what may be a key, and [`scan`] reads a table without one. A [`table::LookupTable`] owns what all queries over one
//! table share: cache, flights, slots, counters.

mod admit;
mod again;
mod answer;
mod board;
mod cache;
pub mod exec;
mod flight;
mod hearing;
mod invalidate;
mod join;
mod key_lines;
pub mod key_type;
mod keys;
mod known;
mod l1;
mod l1_index;
mod lane;
mod mailbox;
mod metric;
pub mod policy;
#[cfg(test)]
mod property_tests;
mod queue;
mod refresh;
mod request;
pub mod scan;
#[cfg(test)]
mod scripted;
mod size;
mod skip;
mod stream;
pub mod table;
mod variant;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;

pub use self::exec::LookupExec;
pub use self::hearing::Heard;
pub use self::stream::ROWS_WAITING;
pub use self::table::{LastError, LookupCounters, LookupTable};
use crate::error::Result;
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

impl LookupJoin {
    /// The same join with other columns leaving: `projection` holds positions in `input_columns` input columns
    /// followed by the store's. Columns of the store that neither leave nor decide are not asked for.
    ///
    /// # Errors
    /// Internal, when the residual condition names a column that is not there.
    pub fn with_projection(&self, input_columns: usize, projection: Vec<usize>) -> Result<Self> {
        let mut used: BTreeSet<usize> = projection.iter().copied().filter(|column| *column >= input_columns).collect();
        if let Some(residual) = &self.residual {
            used.extend(collect_columns(residual).iter().map(Column::index).filter(|column| *column >= input_columns));
        }
        let moved: HashMap<usize, usize> =
            used.iter().enumerate().map(|(place, column)| (*column, input_columns + place)).collect();
        let place = |column: usize| moved.get(&column).copied().unwrap_or(column);
        let residual = self.residual.as_ref().map(|residual| {
            let moved = Arc::clone(residual).transform(|node| match node.downcast_ref::<Column>() {
                Some(column) => Ok(Transformed::yes(Arc::new(Column::new(column.name(), place(column.index()))) as _)),
                None => Ok(Transformed::no(node)),
            });
            moved.data()
        });
        let columns = used.iter().map(|column| self.shape.columns[column - input_columns]).collect();
        Ok(LookupJoin {
            residual: residual.transpose()?,
            shape: Arc::new(LookupShape { columns, ..self.shape.as_ref().clone() }),
            projection: projection.into_iter().map(place).collect(),
            ..self.clone()
        })
    }
}

/// What happens to a row without a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum JoinKind {
    /// It is dropped.
    Inner,
    /// It leaves with NULLs for the table's columns.
    Left,
}
