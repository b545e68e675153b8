//! Who asks: what exists for him, and what he may do.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::error::{DataFusionError, Result as DataFusionResult};

use crate::format::settings::ValueSettings;

/// The streams, lookup tables and views that somebody may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Everything,
    Only(BTreeSet<String>),
}

impl Reach {
    pub fn contains(&self, relation: &str) -> bool {
        match self {
            Reach::Everything => true,
            Reach::Only(names) => names.contains(relation),
        }
    }
}

/// What a user may do, all his roles together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub read: Reach,
    pub write: Reach,
    /// Whether he may see and end what others do, empty and fill caches, and make views.
    pub admin: bool,
}

impl Rights {
    /// Those of everybody as long as no users are declared.
    pub fn all() -> Self {
        Rights { read: Reach::Everything, write: Reach::Everything, admin: true }
    }

    /// Whether a relation exists for him.
    pub fn may_see(&self, relation: &str) -> bool {
        self.read.contains(relation) || self.write.contains(relation)
    }
}

/// A session as the catalogs and functions that tell of it see it, at the moment at which a statement is planned or run.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub user: String,
    pub database: String,
    /// The connection's number; `None` in process.
    pub pid: Option<i32>,
    pub rights: Arc<Rights>,
    /// The values of all settings, by their names as PostgreSQL spells them.
    pub settings: BTreeMap<&'static str, String>,
}

impl Viewer {
    /// Who runs the process itself.
    pub fn owner() -> Self {
        let user = "lookaside".to_string();
        let settings = BTreeMap::new();
        Viewer { database: user.clone(), user, pid: None, rights: Arc::new(Rights::all()), settings }
    }

    /// How values are written and read in his session.
    pub fn values(&self) -> ValueSettings {
        ValueSettings::of(|name| self.settings.get(name).map(String::as_str))
    }

    /// Who asks in the session that these options belong to.
    pub fn of(options: &ConfigOptions) -> Option<&Viewer> {
        options.extensions.get::<Viewer>()
    }
}

impl ConfigExtension for Viewer {
    const PREFIX: &'static str = "lookaside_viewer";
}

/// In DataFusion's configuration, because that is what reaches both table scans and functions.
impl ExtensionOptions for Viewer {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> DataFusionResult<()> {
        Err(DataFusionError::Configuration(format!("{key} cannot be set")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        vec![]
    }
}
