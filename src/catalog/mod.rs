//! What the user declares: streams, lookup tables, connections; and views, which are created while the server runs.
//!
//! `file` turns catalog files into a [`definition::CatalogDefinition`] or into a list of everything that is wrong with
//! them; `section` checks one section against `keys`, the table of every key there is; the `*_section` files say what each
//! kind means; `access` and `verifier` are who may come in. `demo` is the catalog inside the binary. `open` and `open_stream` make sources and stores of the definitions, and
//! `provider` shows them to DataFusion; `plain_scan` and `point_keys` plan what is read of a lookup table outside of a
//! lookup join; `system` shows what all of them do, and what runs (`running`) on which connections (`backends`). `viewer`
//! is who asks, `visible` what is there for him.

mod access;
pub mod backends;
mod columns;
mod connection_section;
pub mod definition;
pub mod demo;
pub mod file;
mod files_section;
mod http_section;
mod kafka_section;
mod keys;
mod lookup_section;
mod message_section;
mod mysql_section;
mod open;
mod open_stream;
mod plain_scan;
mod point_keys;
mod policy_section;
pub mod problem;
mod provider;
mod reading;
mod redis_section;
pub mod running;
mod section;
mod server_section;
mod simulated_section;
mod stream_section;
mod substitute;
pub mod system;
mod user_section;
pub mod verifier;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use datafusion::catalog::memory::MemoryCatalogProvider;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider,
};
use datafusion::error::Result as DataFusionResult;
use datafusion::sql::sqlparser::ast::ObjectName;

use crate::error::{Code, Error, Result};
use crate::source::push::PushStream;
use crate::sql_name::relation_name;
use backends::Backends;
use definition::{GrantDefinition, ServerDefinition, UserDefinition};
pub use open::Lookup;
pub use provider::{LookupProvider, Stream, StreamProvider, StreamSource};
use running::RunningQueries;
use system::{SYSTEM_SCHEMA, SystemSchema};
pub use view::{StoredView, View};
pub use viewer::{Reach, Rights, Viewer};
pub use visible::visible_to;

mod view;
mod viewer;
mod visible;

/// The one database there is.
pub const CATALOG_NAME: &str = "lookaside";
/// The schema of streams, lookup tables and views.
pub const SCHEMA_NAME: &str = "public";

/// All that queries may name.
pub struct Catalog {
    relations: BTreeMap<String, Relation>,
    connections: Vec<Connection>,
    views: RwLock<BTreeMap<String, StoredView>>,
    running: Arc<RunningQueries>,
    backends: Arc<Backends>,
    /// Another name of the schema of streams and lookup tables, for the tables in views: see [`Catalog::view_schema`].
    view_schema: String,
    server: ServerDefinition,
    users: Vec<UserDefinition>,
    grants: Vec<GrantDefinition>,
}

/// A connection as tools are told of it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub name: String,
    pub comment: Option<String>,
}

/// A stream or a lookup table.
pub enum Relation {
    Stream(Arc<Stream>),
    Lookup(Arc<Lookup>),
}

impl Catalog {
    /// Everything but what has to be asked of a store, which is not done before it is needed.
    ///
    /// # Errors
    /// Whatever is wrong with a definition beside its form: a generator's expression, a file that is not there.
    pub fn open(mut definition: definition::CatalogDefinition) -> Result<Arc<Self>, Vec<problem::Problem>> {
        let server = std::mem::take(&mut definition.server);
        let users = std::mem::take(&mut definition.users);
        let grants = std::mem::take(&mut definition.grants);
        let told = |connection: &definition::ConnectionDefinition| Connection {
            name: connection.name.clone(),
            comment: connection.comment.clone(),
        };
        let connections = definition.connections.iter().map(told).collect();
        let relations = open::open(definition)?;
        let (views, running, backends) = (RwLock::default(), Arc::default(), Arc::default());
        // Every RandomState has keys of its own, taken from the system's source of randomness.
        let random = |number: u8| RandomState::new().hash_one(number);
        let view_schema = format!("view {:016x}{:016x}", random(0), random(1));
        let catalog = Catalog { relations, connections, views, running, backends, view_schema, server, users, grants };
        Ok(Arc::new(catalog))
    }

    /// A schema with the streams and lookup tables, whoever asks: what a view names is read with the rights of who made the
    /// view. Nobody can write its name, which is by chance and never shown.
    pub fn view_schema(&self) -> &str {
        &self.view_schema
    }

    /// Where and how clients are served.
    pub fn server(&self) -> &ServerDefinition {
        &self.server
    }

    /// Who may log in; none: everybody.
    pub fn users(&self) -> &[UserDefinition] {
        &self.users
    }

    /// Rights over what is neither declared nor, by now, a view: most likely slips.
    pub fn idle_grants(&self) -> Vec<problem::Problem> {
        let views = self.views.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = || self.relations.keys().chain(views.keys()).map(String::as_str);
        let idle = self.grants.iter().filter(|grant| !views.contains_key(&grant.relation));
        idle.map(|grant| {
            let message = format!(
                "\"{}\" in {} is no stream, lookup table or view, so nothing is allowed by it",
                grant.relation, grant.role
            );
            let complaint = problem::Complaint::new(message);
            match problem::nearest(&grant.relation, known()) {
                Some(nearest) => complaint.with_hint(format!("Perhaps you meant \"{nearest}\".")),
                None => complaint,
            }
            .at(&grant.origin)
        })
        .collect()
    }

    /// Streams and lookup tables in the order of their names.
    pub fn relations(&self) -> impl Iterator<Item = (&str, &Relation)> {
        self.relations.iter().map(|(name, relation)| (name.as_str(), relation))
    }

    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// Lookup tables in the order of their names.
    pub fn lookups(&self) -> impl Iterator<Item = &Lookup> {
        self.relations.values().filter_map(|relation| match relation {
            Relation::Lookup(lookup) => Some(lookup.as_ref()),
            Relation::Stream(_) => None,
        })
    }

    /// The lookup table with this name, folded as in SQL unless it is there as it is written.
    ///
    /// # Errors
    /// 42P01 when there is no such table.
    pub fn lookup(&self, name: &str) -> Result<&Lookup> {
        let name = name.strip_prefix("public.").unwrap_or(name);
        let relation = self.relations.get(name).or_else(|| self.relations.get(&name.to_lowercase()));
        match relation {
            Some(Relation::Lookup(lookup)) => Ok(lookup),
            Some(Relation::Stream(_)) | None => {
                Err(Error::new(Code::UndefinedTable, format!("lookup table \"{name}\" does not exist")))
            }
        }
    }

    /// The queries that run now.
    pub fn running(&self) -> &Arc<RunningQueries> {
        &self.running
    }

    /// The connections of clients.
    pub fn backends(&self) -> &Arc<Backends> {
        &self.backends
    }

    /// The push stream with this name, for somebody who wants to put rows into it.
    ///
    /// # Errors
    /// 42P01 when there is no such stream for him, 42501 when he may only read it, 0A000 when it takes no rows.
    pub fn push_stream(&self, name: &ObjectName, rights: &Rights) -> Result<Arc<PushStream>> {
        self.push_stream_named(&relation_name(name).unwrap_or_default(), rights)
    }

    /// As [`Catalog::push_stream`], by the name as the catalog has it.
    ///
    /// # Errors
    /// The same.
    pub fn push_stream_named(&self, name: &str, rights: &Rights) -> Result<Arc<PushStream>> {
        let missing = || Err(Error::new(Code::UndefinedTable, format!("relation \"{name}\" does not exist")));
        if !rights.may_see(name) {
            return missing();
        }
        let refuse = |what: &str| {
            Err(Error::unsupported(format!("cannot insert into {what} \"{name}\""))
                .with_hint("Rows can be put into streams of type \"push\"."))
        };
        match self.relations.get(name) {
            Some(Relation::Stream(stream)) => match &stream.push {
                Some(push) if rights.write.contains(name) => Ok(Arc::clone(push)),
                Some(_) => Err(Error::new(Code::InsufficientPrivilege, format!("permission denied for stream {name}"))),
                None => refuse(&format!("{} stream", stream.type_name)),
            },
            Some(Relation::Lookup(_)) => refuse("lookup table"),
            None if self.view(name).is_some() => refuse("view"),
            None => missing(),
        }
    }

    /// The view with this name.
    pub fn view(&self, name: &str) -> Option<View> {
        let views = self.views.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        views.get(name).map(|stored| stored.view.clone())
    }

    /// All views, in the order of their names.
    pub fn views(&self) -> Vec<(String, StoredView)> {
        let views = self.views.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        views.iter().map(|(name, stored)| (name.clone(), stored.clone())).collect()
    }

    /// Keeps a view.
    ///
    /// # Errors
    /// 42P07 when the name is taken.
    pub fn create_view(&self, name: &str, view: StoredView, or_replace: bool) -> Result<()> {
        let mut views = self.views.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.relations.contains_key(name) || (!or_replace && views.contains_key(name)) {
            return Err(Error::new(Code::DuplicateObject, format!("relation \"{name}\" already exists")));
        }
        views.insert(name.to_string(), view);
        Ok(())
    }

    /// Whether there was such a view.
    pub fn drop_view(&self, name: &str) -> bool {
        self.views.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(name).is_some()
    }

    /// The catalog in DataFusion's form.
    pub fn as_catalog_list(self: Arc<Self>) -> Arc<dyn CatalogProviderList> {
        let database = MemoryCatalogProvider::new();
        // A new list has no schema and no catalog that these could clash with.
        let _ = database.register_schema(SYSTEM_SCHEMA, Arc::new(SystemSchema { catalog: Arc::clone(&self) }));
        let _ = database.register_schema(&self.view_schema, Arc::clone(&self) as _);
        let _ = database.register_schema(SCHEMA_NAME, self);
        let list = MemoryCatalogProviderList::new();
        let _ = list.register_catalog(CATALOG_NAME.to_string(), Arc::new(database));
        Arc::new(list)
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("relations", &self.relations.keys()).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for Catalog {
    fn table_names(&self) -> Vec<String> {
        self.relations.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        Ok(match self.relations.get(name) {
            Some(Relation::Stream(stream)) => {
                let source = Arc::clone(stream.source().await?);
                Some(Arc::new(StreamProvider::of_whole(stream.name.clone(), source)))
            }
            Some(Relation::Lookup(lookup)) => Some(Arc::new(LookupProvider::new(lookup.table().await?))),
            None => None,
        })
    }

    fn table_exist(&self, name: &str) -> bool {
        self.relations.contains_key(name)
    }
}
