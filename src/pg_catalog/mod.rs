//! The schemas `pg_catalog` and `information_schema`, which tools ask what there is.
//!
//! `declared.rs` knows which relations PostgreSQL has there, with their columns and the rows that are the same
//! everywhere; `snapshot.rs` is what our own catalog holds in the eyes of who asks; `rows.rs` and `standard.rs` make
//! the rows of the two schemas of it, `table.rs` shows them to DataFusion. Tables that neither file fills are empty:
//! we have nothing of what they tell of. `function.rs` lists the functions that tools call, the `function_*` files say
//! what they do, `expand.rs` and `json.rs` those whose arguments are no texts,
//! `keyword.rs` the words of SQL. `cell.rs` is how all of them write values, `type_name.rs` how types are called.

mod activity;
mod cell;
mod declared;
mod expand;
mod function;
mod function_body;
mod json;
mod keyword;
mod oids;
mod privilege;
mod registered;
mod rows;
mod snapshot;
mod standard;
mod table;
mod type_name;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::catalog::{CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::TableSource;

use crate::catalog::system::is_system_view;
use crate::catalog::{CATALOG_NAME, Catalog, View};
pub use declared::{INFORMATION_SCHEMA, PG_CATALOG, catalog_column_type, is_catalog_relation};
pub use function::functions;
pub use oids::Oids;
use table::SystemRelation;

/// The number of a table of `pg_catalog`, by its name.
pub fn relation_oid(name: &str) -> Option<u32> {
    declared::relation(PG_CATALOG, name).map(|relation| relation.oid)
}

/// Whether a scan reads a relation of the system, here or in the schema `lookaside`.
pub fn is_system_source(source: &Arc<dyn TableSource>) -> bool {
    let provider = source.downcast_ref::<DefaultTableSource>().map(|source| &source.table_provider);
    provider.is_some_and(|provider| provider.downcast_ref::<SystemRelation>().is_some() || is_system_view(provider))
}

/// Tells the columns of a view, which only a planner knows.
#[async_trait]
pub trait ViewColumns: Debug + Send + Sync {
    /// `None` where they cannot be told without waiting for a store, or at all.
    async fn columns(&self, view: &View) -> Option<SchemaRef>;
}

/// What the tables and functions of both schemas share.
#[derive(Debug)]
pub struct SystemCatalog {
    catalog: Arc<Catalog>,
    views: Arc<dyn ViewColumns>,
    oids: Oids,
}

impl SystemCatalog {
    pub fn new(catalog: Arc<Catalog>, views: Arc<dyn ViewColumns>) -> Arc<Self> {
        Arc::new(SystemCatalog { catalog, views, oids: Oids::default() })
    }

    /// Puts both schemas beside those of the catalog.
    pub fn register(self: &Arc<Self>, catalogs: &dyn CatalogProviderList) {
        let Some(database) = catalogs.catalog(CATALOG_NAME) else { return };
        for name in [PG_CATALOG, INFORMATION_SCHEMA] {
            // Nothing else has these names.
            let _ = database.register_schema(name, Arc::new(SystemSchema { name, system: Arc::clone(self) }));
        }
    }
}

/// One of the two schemas.
#[derive(Debug)]
struct SystemSchema {
    name: &'static str,
    system: Arc<SystemCatalog>,
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        let own = declared::RELATIONS.iter().filter(|relation| relation.schema == self.name);
        own.map(|relation| relation.name.to_string()).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let relation = declared::relation(self.name, name);
        Ok(relation.map(|relation| Arc::new(SystemRelation::new(relation, Arc::clone(&self.system))) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        declared::relation(self.name, name).is_some()
    }
}
