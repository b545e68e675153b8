//! A relation of the system's schemas as DataFusion sees it. Its rows are those of the moment at which it is read.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::SystemCatalog;
use super::cell::{Cell, TableRows, schema_of};
use super::declared::{BUILTIN, DeclaredRelation, INFORMATION_SCHEMA};
use super::{rows, standard};
use crate::catalog::Viewer;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct SystemRelation {
    relation: &'static DeclaredRelation,
    system: Arc<SystemCatalog>,
    schema: SchemaRef,
}

impl SystemRelation {
    pub fn new(relation: &'static DeclaredRelation, system: Arc<SystemCatalog>) -> Self {
        SystemRelation { relation, system, schema: schema_of(relation) }
    }

    async fn rows(&self, viewer: &Viewer) -> Result<RecordBatch> {
        let mut rows = TableRows::new(self.relation);
        if self.relation.schema == INFORMATION_SCHEMA {
            standard::fill(self.relation.name, &self.system, viewer, &mut rows).await?;
        } else {
            add_builtin(self.relation.name, &mut rows)?;
            rows::fill(self.relation.name, &self.system, viewer, &mut rows).await?;
        }
        rows.finish()
    }
}

/// The rows that every PostgreSQL has.
fn add_builtin(name: &str, rows: &mut TableRows) -> Result<()> {
    let Some(builtin) = BUILTIN.get(name) else { return Ok(()) };
    for row in &builtin.rows {
        let values = row.iter().map(|value| value.map_or(Cell::NULL, Cell::from));
        let cells: Vec<(&str, Cell)> = builtin.columns.iter().copied().zip(values).collect();
        rows.push(&cells)?;
    }
    Ok(())
}

#[async_trait]
impl TableProvider for SystemRelation {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    /// Operators are made anew for each execution, so this is the moment at which the relation is read.
    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let viewer = Viewer::of(session.config_options()).ok_or_else(|| Error::internal("a catalog read by nobody"))?;
        let rows = vec![vec![self.rows(viewer).await?]];
        Ok(MemorySourceConfig::try_new_exec(&rows, self.schema(), projection.cloned())?)
    }
}
