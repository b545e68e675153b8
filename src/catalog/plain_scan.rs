//! A lookup table outside of a lookup join: by key where WHERE names keys, else read whole.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExecBuilder;

use super::point_keys::PointKeys;
use crate::error::Result;
use crate::lookup::policy::{LookupPolicy, OnFailure};
use crate::lookup::scan::StoreScanExec;
use crate::lookup::{JoinKind, LookupExec, LookupJoin, LookupTable};
use crate::store::{LookupShape, ScanRequest};

/// What a query reads of a lookup table. Filters name its columns without a relation.
pub(super) struct PlainScan<'a> {
    pub table: &'a Arc<LookupTable>,
    /// The columns to give, as positions in the table's.
    pub projection: Vec<usize>,
    pub filters: &'a [Expr],
    pub limit: Option<usize>,
}

/// What the keys leave of a WHERE.
struct Rest {
    /// For the store.
    filters: Vec<Expr>,
    /// For us, over all columns of the table.
    residual: Option<Arc<dyn PhysicalExpr>>,
}

impl PlainScan<'_> {
    /// # Errors
    /// 0A000 where the store can neither be asked by key nor be read whole.
    pub fn plan(&self, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let mut conditions: Vec<Expr> = self.filters.iter().cloned().flat_map(split_conjunction_owned).collect();
        let keys = PointKeys::take(&mut conditions, self.table.store().as_ref())?;
        let rest = self.divide(conditions, session)?;
        match keys {
            Some(keys) => {
                self.table.store().check_keys(&keys.columns)?;
                self.by_key(keys, rest)
            }
            None => self.whole(rest),
        }
    }

    fn divide(&self, conditions: Vec<Expr>, session: &dyn Session) -> Result<Rest> {
        let store = self.table.store();
        let (filters, residuals): (Vec<_>, Vec<_>) =
            conditions.into_iter().partition(|condition| store.can_filter(condition));
        let schema = DFSchema::try_from(store.schema())?;
        let residual =
            conjunction(residuals).map(|residual| session.create_physical_expr(residual, &schema)).transpose()?;
        Ok(Rest { filters, residual })
    }

    /// A lookup join of the keys with the table, which gives the table's columns alone.
    fn by_key(&self, keys: PointKeys, rest: Rest) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.table.store().schema();
        if keys.values.iter().any(|values| values.is_empty()) {
            return Ok(Arc::new(EmptyExec::new(Arc::new(schema.project(&self.projection)?))));
        }
        self.table.store().check_keys(&keys.columns)?;
        let width = keys.columns.len();
        let names = keys.columns.iter().map(|&column| schema.field(column).name());
        let expressions = names.enumerate().map(|(place, name)| Arc::new(Column::new(name, place)) as _);
        let join = LookupJoin {
            kind: JoinKind::Inner,
            keys: expressions.collect(),
            shape: Arc::new(LookupShape {
                key_columns: keys.columns.clone(),
                columns: (0..schema.fields().len()).collect(),
                filters: rest.filters.into(),
            }),
            gate: None,
            residual: rest.residual.map(|residual| moved(&residual, |column| column + width)).transpose()?,
            projection: vec![],
            // There is no row of a stream to be saved: less than the whole answer would be a wrong one.
            policy: LookupPolicy { on_failure: OnFailure::Fail, ..self.table.policy().clone() },
        };
        let join = join.with_projection(width, self.projection.iter().map(|column| column + width).collect())?;
        Ok(Arc::new(LookupExec::try_new(rows_of(keys, &schema)?, Arc::clone(self.table), join)?))
    }

    fn whole(&self, rest: Rest) -> Result<Arc<dyn ExecutionPlan>> {
        let mut columns = self.projection.clone();
        let used = rest.residual.iter().flat_map(collect_columns).map(|column| column.index());
        for column in used {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let limit = self.limit.filter(|_| rest.residual.is_none());
        let place = |wanted: usize| columns.iter().position(|column| *column == wanted).unwrap_or(wanted);
        let residual = rest.residual.map(|residual| moved(&residual, place)).transpose()?;
        let request = ScanRequest { columns: columns.clone(), filters: rest.filters.into(), limit };
        let scan = Arc::new(StoreScanExec::try_new(Arc::clone(self.table), request)?);
        let Some(residual) = residual else { return Ok(scan) };
        let filter = FilterExecBuilder::new(residual, scan);
        Ok(Arc::new(filter.apply_projection(Some((0..self.projection.len()).collect()))?.build()?))
    }
}

/// The same condition over other places of its columns.
fn moved(condition: &Arc<dyn PhysicalExpr>, place: impl Fn(usize) -> usize) -> Result<Arc<dyn PhysicalExpr>> {
    let moved = Arc::clone(condition).transform(|node| match node.downcast_ref::<Column>() {
        Some(column) => Ok(Transformed::yes(Arc::new(Column::new(column.name(), place(column.index()))) as _)),
        None => Ok(Transformed::no(node)),
    });
    Ok(moved.data()?)
}

/// The keys as an input.
fn rows_of(keys: PointKeys, schema: &Schema) -> Result<Arc<dyn ExecutionPlan>> {
    let fields = keys.columns.iter().map(|&column| schema.field(column).clone().with_nullable(false));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
    let values: Vec<ArrayRef> = keys.values;
    let batch = RecordBatch::try_new(Arc::clone(&schema), values)?;
    Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None)?)
}
