//! What there is at this moment, in the eyes of who asks: streams, lookup tables, views, and the system's own.

use std::borrow::Cow;
use std::sync::LazyLock;

use datafusion::arrow::datatypes::Schema;

use super::SystemCatalog;
use super::declared::{DeclaredColumn, INFORMATION_SCHEMA, RELATIONS};
use super::oids::{
    Kind, NAMESPACE_INFORMATION_SCHEMA, NAMESPACE_LOOKASIDE, NAMESPACE_PG_CATALOG, NAMESPACE_PUBLIC, OWNER,
};
use super::type_name::type_by_name;
use crate::catalog::system::{SYSTEM_SCHEMA, system_views};
use crate::catalog::{Relation, StoredView, Viewer};
use crate::error::Result;
use crate::pg_type::PgType;

/// The role that everything belongs to.
pub const OWNER_NAME: &str = "lookaside";

/// A relation as the catalogs tell of it.
#[derive(Clone, Debug)]
pub struct RelationFacts {
    pub oid: u32,
    pub schema: Cow<'static, str>,
    pub name: Cow<'static, str>,
    /// `r` or `v`.
    pub kind: &'static str,
    /// Empty while nobody knows: a lookup table whose store has not been reached.
    pub columns: Vec<ColumnFacts>,
    pub comment: Option<String>,
    /// The positions of the columns, from 0, by which a row is found; empty if no such are known.
    pub key: Vec<usize>,
    /// The query of a view, as it was written.
    pub definition: Option<String>,
    /// Whether rows can be put in.
    pub takes_rows: bool,
}

#[derive(Clone, Debug)]
pub struct ColumnFacts {
    pub name: Cow<'static, str>,
    pub type_oid: u32,
    /// Digits of a numeric, as PostgreSQL packs them; -1 for none.
    pub type_modifier: i32,
    pub not_null: bool,
}

impl RelationFacts {
    pub fn namespace(&self) -> u32 {
        namespace_oid(&self.schema)
    }

    pub fn is_system(&self) -> bool {
        self.schema != "public"
    }

    /// The name that PostgreSQL would give to its primary key.
    pub fn key_name(&self) -> String {
        format!("{}_pkey", self.name)
    }

    /// The names of the key's columns.
    pub fn key_columns(&self) -> impl Iterator<Item = &str> {
        self.key.iter().filter_map(|position| self.columns.get(*position)).map(|column| column.name.as_ref())
    }
}

/// The schemas with their numbers.
pub const NAMESPACES: [(u32, &str); 4] = [
    (NAMESPACE_PG_CATALOG, "pg_catalog"),
    (NAMESPACE_PUBLIC, "public"),
    (NAMESPACE_INFORMATION_SCHEMA, INFORMATION_SCHEMA),
    (NAMESPACE_LOOKASIDE, SYSTEM_SCHEMA),
];

fn namespace_oid(schema: &str) -> u32 {
    NAMESPACES.iter().find(|(_, name)| *name == schema).map_or(0, |(oid, _)| *oid)
}

/// The relations that PostgreSQL itself has.
static DECLARED: LazyLock<Vec<RelationFacts>> = LazyLock::new(|| {
    let column = |column: &DeclaredColumn| ColumnFacts {
        name: column.name.into(),
        type_oid: type_by_name(column.type_name).map_or(25, |found| found.oid),
        type_modifier: -1,
        not_null: column.not_null,
    };
    let relation = |relation: &super::declared::DeclaredRelation| RelationFacts {
        oid: relation.oid,
        schema: relation.schema.into(),
        name: relation.name.into(),
        kind: relation.kind,
        columns: relation.columns.iter().map(column).collect(),
        comment: None,
        key: vec![],
        definition: None,
        takes_rows: false,
    };
    RELATIONS.iter().map(relation).collect()
});

/// All relations that exist for somebody, and the users that he may know of.
pub struct Snapshot {
    pub viewer: Viewer,
    pub relations: Vec<RelationFacts>,
    /// Roles with their numbers; the first owns everything.
    pub roles: Vec<(u32, String)>,
}

impl SystemCatalog {
    /// Everything with its columns.
    ///
    /// # Errors
    /// Internal only.
    pub(super) async fn snapshot(&self, viewer: &Viewer) -> Result<Snapshot> {
        let mut snapshot = self.snapshot_without_view_columns(viewer)?;
        for (name, stored) in self.visible_views(viewer) {
            let Some(schema) = self.views.columns(&stored.view).await else { continue };
            let oid = self.oids.of(Kind::Relation, &name);
            let facts = snapshot.relations.iter_mut().find(|relation| relation.oid == oid);
            if let Some(relation) = facts {
                relation.columns = columns_of(&schema);
            }
        }
        Ok(snapshot)
    }

    /// Everything but the columns of views, which take planning.
    ///
    /// # Errors
    /// Internal only.
    pub(super) fn snapshot_without_view_columns(&self, viewer: &Viewer) -> Result<Snapshot> {
        let mut relations = vec![];
        for (name, relation) in self.catalog.relations().filter(|(name, _)| viewer.rights.may_see(name)) {
            relations.push(self.facts_of(name, relation));
        }
        for (name, stored) in self.visible_views(viewer) {
            relations.push(RelationFacts {
                oid: self.oids.of(Kind::Relation, &name),
                schema: "public".into(),
                name: name.into(),
                kind: "v",
                columns: vec![],
                comment: None,
                key: vec![],
                definition: Some(query_of(&stored.text).to_string()),
                takes_rows: false,
            });
        }
        for (name, schema) in system_views()? {
            relations.push(RelationFacts {
                oid: self.oids.of(Kind::SystemView, name),
                schema: SYSTEM_SCHEMA.into(),
                name: name.into(),
                kind: "v",
                columns: columns_of(&schema),
                comment: None,
                key: vec![],
                definition: None,
                takes_rows: false,
            });
        }
        relations.extend(DECLARED.iter().cloned());
        let mut roles = vec![(OWNER, OWNER_NAME.to_string())];
        let others = self.catalog.users().iter().map(|user| &user.name).filter(|_| viewer.rights.admin);
        for name in std::iter::once(&viewer.user).chain(others) {
            if roles.iter().all(|(_, known)| known != name) {
                roles.push((self.oids.of(Kind::Role, name), name.clone()));
            }
        }
        Ok(Snapshot { viewer: viewer.clone(), relations, roles })
    }

    fn visible_views(&self, viewer: &Viewer) -> Vec<(String, StoredView)> {
        self.catalog.views().into_iter().filter(|(name, _)| viewer.rights.may_see(name)).collect()
    }

    fn facts_of(&self, name: &str, relation: &Relation) -> RelationFacts {
        let (columns, key, comment) = match relation {
            Relation::Stream(stream) => {
                let columns = stream.known_source().map(|source| columns_of(&source.schema()));
                (columns.unwrap_or_default(), vec![], &stream.comment)
            }
            Relation::Lookup(lookup) => {
                let store = lookup.connected_table().map(|table| table.store());
                let columns = store.map(|store| columns_of(&store.schema())).unwrap_or_default();
                let key = store.map(|store| store.primary_key()).unwrap_or_default();
                (columns, key, &lookup.definition().comment)
            }
        };
        let takes_rows = matches!(relation, Relation::Stream(stream) if stream.push.is_some());
        RelationFacts {
            oid: self.oids.of(Kind::Relation, name),
            schema: "public".into(),
            name: name.to_string().into(),
            kind: "r",
            columns,
            comment: comment.clone(),
            key,
            definition: None,
            takes_rows,
        }
    }
}

impl Snapshot {
    pub fn relation(&self, oid: u32) -> Option<&RelationFacts> {
        self.relations.iter().find(|relation| relation.oid == oid)
    }

    /// The relation that a name means, with or without its schema: `orders`, `pg_catalog.pg_class`.
    pub fn relation_named(&self, schema: Option<&str>, name: &str) -> Option<&RelationFacts> {
        let schemas = match schema {
            Some(schema) => vec![schema],
            None => vec!["pg_catalog", "public"],
        };
        schemas.into_iter().find_map(|schema| {
            self.relations.iter().find(|relation| relation.name == name && relation.schema == schema)
        })
    }

    pub fn role_name(&self, oid: u32) -> Option<&str> {
        self.roles.iter().find(|(known, _)| *known == oid).map(|(_, name)| name.as_str())
    }
}

fn columns_of(schema: &Schema) -> Vec<ColumnFacts> {
    let facts = |field: &datafusion::arrow::datatypes::FieldRef| {
        // What has no counterpart is refused when it is read.
        let pg_type = PgType::of_field(field).unwrap_or(PgType::Text);
        ColumnFacts {
            name: field.name().clone().into(),
            type_oid: pg_type.oid(),
            type_modifier: type_modifier(&pg_type),
            not_null: !field.is_nullable(),
        }
    };
    schema.fields().iter().map(facts).collect()
}

fn type_modifier(pg_type: &PgType) -> i32 {
    match pg_type {
        PgType::Numeric { precision, scale } => ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4,
        PgType::Array(element) => type_modifier(element),
        _ => -1,
    }
}

/// The query in `CREATE VIEW name AS query`, as its writer wrote it.
fn query_of(statement: &str) -> &str {
    let mut depth = 0_i32;
    let mut words = statement.char_indices().peekable();
    let mut start = None;
    let mut quoted = false;
    while let Some((at, character)) = words.next() {
        match character {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        if quoted || !character.is_alphanumeric() && character != '_' {
            start = None;
            continue;
        }
        let begin = *start.get_or_insert(at);
        let ends = words.peek().is_none_or(|(_, next)| !next.is_alphanumeric() && *next != '_');
        let end = at + character.len_utf8();
        if ends && depth == 0 && statement[begin..end].eq_ignore_ascii_case("as") {
            return statement[end..].trim();
        }
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_views_query_begins_behind_as() {
        assert_eq!(query_of("CREATE VIEW v AS SELECT 1 AS a"), "SELECT 1 AS a");
        assert_eq!(query_of("create or replace view \"as \" (as_of)\nas\n  select 1"), "select 1");
        assert_eq!(query_of("CREATE VIEW has_as (a) AS(SELECT 1)"), "(SELECT 1)");
    }

    #[test]
    fn digits_of_numerics_are_packed_as_postgres_packs_them() {
        assert_eq!(type_modifier(&PgType::Numeric { precision: 12, scale: 2 }), 786_438);
        assert_eq!(type_modifier(&PgType::Text), -1);
    }
}
