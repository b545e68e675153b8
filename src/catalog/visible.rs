//! The catalog in the eyes of one user: what he may neither read nor write is not there, and so gets the very error of what
//! does not exist.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result as DataFusionResult;

use super::SCHEMA_NAME;
use super::viewer::{Reach, Rights};
use crate::error::{Code, Error};

/// All that queries may name, for somebody with these rights.
pub fn visible_to(catalogs: &Arc<dyn CatalogProviderList>, rights: &Arc<Rights>) -> Arc<dyn CatalogProviderList> {
    match rights.read {
        Reach::Everything => Arc::clone(catalogs),
        Reach::Only(_) => Arc::new(Visible { whole: Arc::clone(catalogs), rights: Arc::clone(rights) }),
    }
}

/// Something of which only a part is visible.
struct Visible<T: ?Sized> {
    whole: Arc<T>,
    rights: Arc<Rights>,
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for Visible<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visible").field("whole", &self.whole).finish_non_exhaustive()
    }
}

impl CatalogProviderList for Visible<dyn CatalogProviderList> {
    fn register_catalog(&self, name: String, catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        self.whole.register_catalog(name, catalog)
    }

    fn catalog_names(&self) -> Vec<String> {
        self.whole.catalog_names()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let whole = self.whole.catalog(name)?;
        Some(Arc::new(Visible { whole, rights: Arc::clone(&self.rights) }))
    }
}

impl CatalogProvider for Visible<dyn CatalogProvider> {
    fn schema_names(&self) -> Vec<String> {
        self.whole.schema_names()
    }

    /// The other schemas know themselves who may see what of their rows.
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let whole = self.whole.schema(name)?;
        match name {
            SCHEMA_NAME => Some(Arc::new(Visible { whole, rights: Arc::clone(&self.rights) })),
            _ => Some(whole),
        }
    }
}

#[async_trait]
impl SchemaProvider for Visible<dyn SchemaProvider> {
    fn table_names(&self) -> Vec<String> {
        self.whole.table_names().into_iter().filter(|name| self.rights.may_see(name)).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if self.rights.read.contains(name) {
            return self.whole.table(name).await;
        }
        match self.table_exist(name) {
            // He may write it, so it is there.
            true => Err(Error::new(Code::InsufficientPrivilege, format!("permission denied for stream {name}")).into()),
            false => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.rights.may_see(name) && self.whole.table_exist(name)
    }
}
