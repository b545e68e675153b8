//! A lookup join in the logical plan: [`LookupJoinNode`], between stream and lookup scan.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore, build_join_schema};

use crate::catalog::LookupProvider;
use crate::lookup::JoinKind;
use crate::plan::provider_of;

/// The rows of `left`, each with what the lookup table on the `right` has for its keys.
///
/// `right` is the scan of a [`LookupProvider`], under aliases and renamings alone; it is a child so that the
/// optimizer prunes its columns, and is never executed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LookupJoinNode {
    pub left: LogicalPlan,
    pub right: LogicalPlan,
    pub kind: JoinKind,
    pub keys: Vec<LookupKey>,
    /// Over `left` alone: rows for which it is not true are not looked up.
    pub gate: Option<Expr>,
    /// Over both: what a match must satisfy beside its keys.
    pub residual: Option<Expr>,
    schema: DFSchemaRef,
}

/// One equality between the table and the stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct LookupKey {
    /// Over the left side, of the column's type.
    pub value: Expr,
    /// The column's position in the table's whole schema.
    pub column: usize,
}

impl LookupJoinNode {
    /// `keys` holds at least one key, and no column twice.
    ///
    /// # Errors
    /// When both sides have a column of the same qualified name.
    pub fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        kind: JoinKind,
        keys: Vec<LookupKey>,
        conditions: (Option<Expr>, Option<Expr>),
    ) -> Result<Self> {
        let join_type = match kind {
            JoinKind::Inner => JoinType::Inner,
            JoinKind::Left => JoinType::Left,
        };
        let schema = build_join_schema(left.schema(), right.schema(), &join_type)?;
        let (gate, residual) = conditions;
        Ok(LookupJoinNode { left, right, kind, keys, gate, residual, schema: Arc::new(schema) })
    }

    /// The scan on the right: its provider, and for each column of the right side its position in the table's schema.
    ///
    /// # Errors
    /// Internal, when the optimizer has put there what is no scan under aliases.
    pub fn scan(&self) -> Result<(&LookupProvider, Vec<usize>)> {
        scan_under_aliases(&self.right).ok_or_else(|| {
            DataFusionError::Internal(format!(
                "lookup join over something else than a lookup table: {}",
                self.right.display()
            ))
        })
    }

    /// The same join with another kind and residual.
    pub fn with_kind_and_residual(&self, kind: JoinKind, residual: Option<Expr>) -> Result<Self> {
        Self::try_new(self.left.clone(), self.right.clone(), kind, self.keys.clone(), (self.gate.clone(), residual))
    }

    /// The same join over other rows.
    pub fn with_left(&self, left: LogicalPlan) -> Result<Self> {
        let conditions = (self.gate.clone(), self.residual.clone());
        Self::try_new(left, self.right.clone(), self.kind, self.keys.clone(), conditions)
    }
}

/// The lookup table that a plan scans, if it does nothing else but rename it and its columns.
pub fn scan_under_aliases(plan: &LogicalPlan) -> Option<(&LookupProvider, Vec<usize>)> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => scan_under_aliases(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (provider, columns) = scan_under_aliases(&projection.input)?;
            let schema = projection.input.schema();
            let renamed =
                projection.expr.iter().map(|expr| column_position(schema, expr).map(|position| columns[position]));
            Some((provider, renamed.collect::<Option<_>>()?))
        }
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() => {
            let provider = provider_of::<LookupProvider>(&scan.source)?;
            let all = || (0..scan.source.schema().fields().len()).collect();
            Some((provider, scan.projection.clone().unwrap_or_else(all)))
        }
        _ => None,
    }
}

fn column_position(schema: &DFSchema, expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_position(schema, &alias.expr),
        _ => None,
    }
}

/// Schemas have no order; they follow from the rest.
impl PartialOrd for LookupJoinNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let fields = |node: &Self| (node.kind, node.keys.clone(), node.gate.clone(), node.residual.clone());
        match fields(self).partial_cmp(&fields(other)) {
            Some(Ordering::Equal) => match self.left.partial_cmp(&other.left) {
                Some(Ordering::Equal) => self.right.partial_cmp(&other.right),
                different => different,
            },
            different => different,
        }
    }
}

impl UserDefinedLogicalNodeCore for LookupJoinNode {
    fn name(&self) -> &str {
        "LookupJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// The keys' values, then the gate, then the residual; a key's column is not among them, so that it is
    /// fetched only where it is used.
    fn expressions(&self) -> Vec<Expr> {
        let keys = self.keys.iter().map(|key| key.value.clone());
        keys.chain(self.gate.clone()).chain(self.residual.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(|key| format!("{} = #{}", key.value, key.column)).collect();
        write!(f, "LookupJoin: {:?} [{}]", self.kind, keys.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut inputs = inputs.into_iter();
        let (Some(left), Some(right)) = (inputs.next(), inputs.next()) else {
            return Err(DataFusionError::Internal("a lookup join has two inputs".into()));
        };
        // Optimizer rules give changed expressions the names of the old ones.
        let mut exprs = exprs.into_iter().map(|expr| expr.unalias_nested().data);
        let keys =
            self.keys.iter().zip(exprs.by_ref()).map(|(key, value)| LookupKey { value, column: key.column }).collect();
        let gate = self.gate.as_ref().and_then(|_| exprs.next());
        let residual = self.residual.as_ref().and_then(|_| exprs.next());
        Self::try_new(left, right, self.kind, keys, (gate, residual))
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let left_columns = self.left.schema().fields().len();
        let left = output_columns.iter().copied().filter(|column| *column < left_columns).collect();
        let right = output_columns
            .iter()
            .filter(|column| **column >= left_columns)
            .map(|column| column - left_columns)
            .collect();
        Some(vec![left, right])
    }
}

/// A column of a schema as an expression names it.
pub fn column_at(schema: &DFSchema, position: usize) -> Column {
    Column::from(schema.qualified_field(position))
}
