//! The rows of `pg_catalog` that our own catalog makes.

use chrono::{Offset, TimeZone, Utc};
use chrono_tz::OffsetComponents;
use chrono_tz::OffsetName;

use super::SystemCatalog;
use super::activity;
use super::cell::{Cell, TableRows};
use super::oids::{DATABASE, Kind, NAMESPACE_LOOKASIDE, OWNER, PG_CLASS, PG_FOREIGN_SERVER, PG_TYPE, POSTGRES_WRAPPER};
use super::snapshot::{NAMESPACES, OWNER_NAME, RelationFacts, Snapshot};
use super::type_name::{type_by_oid, type_descriptions};
use crate::catalog::{Connection, Viewer};
use crate::error::Result;

/// The number of the index kind that a key is shown as.
const BTREE: u32 = 403;

/// Adds to `rows` what the table `name` of `pg_catalog` tells of us.
pub(super) async fn fill(name: &str, system: &SystemCatalog, viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    match name {
        "pg_namespace" => namespaces(rows),
        "pg_database" => database(viewer, rows),
        "pg_settings" => settings(viewer, rows),
        "pg_proc" => functions(system, rows),
        "pg_stat_activity" => activity::fill(system, viewer, rows),
        "pg_timezone_names" => time_zones(rows),
        "pg_class" => {
            let snapshot = system.snapshot(viewer).await?;
            snapshot.relations.iter().try_for_each(|relation| class(system, relation, rows))
        }
        "pg_attribute" => {
            let snapshot = system.snapshot(viewer).await?;
            snapshot.relations.iter().try_for_each(|relation| attributes(system, relation, rows))
        }
        _ => {
            let snapshot = system.snapshot_without_view_columns(viewer)?;
            of_relations(name, system, &snapshot, rows)
        }
    }
}

fn of_relations(name: &str, system: &SystemCatalog, snapshot: &Snapshot, rows: &mut TableRows) -> Result<()> {
    let mut relations = snapshot.relations.iter();
    match name {
        "pg_description" => {
            relations.try_for_each(|relation| description(relation, rows))?;
            type_descriptions().try_for_each(|(oid, of_type)| {
                rows.push(&[("objoid", oid.into()), ("classoid", PG_TYPE.into()), ("description", of_type.into())])
            })?;
            connection_descriptions(system, &snapshot.viewer, rows)
        }
        "pg_foreign_server" => connections(system, &snapshot.viewer).try_for_each(|connection| {
            rows.push(&[
                ("oid", system.oids.of(Kind::Connection, &connection.name).into()),
                ("srvname", text(&connection.name)),
                ("srvowner", OWNER.into()),
                ("srvfdw", POSTGRES_WRAPPER.into()),
            ])
        }),
        "pg_foreign_data_wrapper" => {
            rows.push(&[("oid", POSTGRES_WRAPPER.into()), ("fdwname", "postgres".into()), ("fdwowner", OWNER.into())])
        }
        "pg_index" => relations.try_for_each(|relation| index(system, relation, rows)),
        "pg_constraint" => relations.try_for_each(|relation| constraint(system, relation, rows)),
        "pg_tables" => relations.filter(|relation| relation.kind == "r").try_for_each(|relation| {
            rows.push(&[
                ("schemaname", text(&relation.schema)),
                ("tablename", text(&relation.name)),
                ("tableowner", OWNER_NAME.into()),
                ("hasindexes", (!relation.key.is_empty()).into()),
                ("hasrules", false.into()),
                ("hastriggers", false.into()),
                ("rowsecurity", false.into()),
            ])
        }),
        "pg_views" => relations.filter(|relation| relation.kind == "v").try_for_each(|relation| {
            rows.push(&[
                ("schemaname", text(&relation.schema)),
                ("viewname", text(&relation.name)),
                ("viewowner", OWNER_NAME.into()),
                ("definition", relation.definition.clone().into()),
            ])
        }),
        "pg_indexes" => relations.filter(|relation| !relation.key.is_empty()).try_for_each(|relation| {
            rows.push(&[
                ("schemaname", text(&relation.schema)),
                ("tablename", text(&relation.name)),
                ("indexname", relation.key_name().into()),
                ("indexdef", index_definition(relation).into()),
            ])
        }),
        "pg_authid" | "pg_roles" | "pg_user" | "pg_shadow" => roles(name, snapshot, rows),
        // We have nothing of what the other tables tell of.
        _ => Ok(()),
    }
}

fn text(name: &str) -> Cell {
    name.to_string().into()
}

fn namespaces(rows: &mut TableRows) -> Result<()> {
    NAMESPACES.iter().try_for_each(|(oid, name)| {
        rows.push(&[("oid", (*oid).into()), ("nspname", (*name).into()), ("nspowner", OWNER.into())])
    })
}

fn database(viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    rows.push(&[
        ("oid", DATABASE.into()),
        ("datname", text(&viewer.database)),
        ("datdba", OWNER.into()),
        // UTF8.
        ("encoding", 6.into()),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1).into()),
        ("dattablespace", 1663.into()),
        // Text is ordered by code point.
        ("datcollate", "C".into()),
        ("datctype", "C".into()),
    ])
}

fn settings(viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    viewer.settings.iter().try_for_each(|(name, value)| {
        rows.push(&[
            ("name", (*name).into()),
            ("setting", text(value)),
            ("category", "Settings".into()),
            ("short_desc", "A setting of the session.".into()),
            ("context", "user".into()),
            ("vartype", "string".into()),
            ("source", "session".into()),
            ("reset_val", text(value)),
            ("boot_val", text(value)),
            ("pending_restart", false.into()),
        ])
    })
}

fn time_zones(rows: &mut TableRows) -> Result<()> {
    let now = Utc::now().naive_utc();
    chrono_tz::TZ_VARIANTS.iter().try_for_each(|zone| {
        let offset = zone.offset_from_utc_datetime(&now);
        let seconds = offset.fix().local_minus_utc();
        let sign = if seconds < 0 { "-" } else { "" };
        let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
        rows.push(&[
            ("name", zone.name().into()),
            ("abbrev", offset.abbreviation().unwrap_or_default().to_string().into()),
            ("utc_offset", format!("{sign}{hours:02}:{minutes:02}:00").into()),
            ("is_dst", (!offset.dst_offset().is_zero()).into()),
        ])
    })
}

/// The functions of the schema `lookaside`.
fn functions(system: &SystemCatalog, rows: &mut TableRows) -> Result<()> {
    // text and "any": a table and any number of keys.
    ["invalidate", "warm"].into_iter().try_for_each(|name| {
        rows.push(&[
            ("oid", system.oids.of(Kind::Function, name).into()),
            ("proname", name.into()),
            ("pronamespace", NAMESPACE_LOOKASIDE.into()),
            ("proowner", OWNER.into()),
            ("prolang", 12.into()),
            ("provariadic", 2276.into()),
            ("prokind", "f".into()),
            ("provolatile", "v".into()),
            ("proparallel", "u".into()),
            ("pronargs", 2.into()),
            ("prorettype", 20.into()),
            ("proargtypes", "{25,2276}".into()),
            ("proargmodes", "{i,v}".into()),
            ("proargnames", "{table_name,keys}".into()),
            ("prosrc", name.into()),
        ])
    })
}

fn class(system: &SystemCatalog, relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    let has_key = !relation.key.is_empty();
    rows.push(&[
        ("oid", relation.oid.into()),
        ("relname", text(&relation.name)),
        ("relnamespace", relation.namespace().into()),
        ("relowner", OWNER.into()),
        ("relfilenode", if relation.kind == "r" { relation.oid.into() } else { 0.into() }),
        ("reltuples", "-1".into()),
        ("relhasindex", has_key.into()),
        ("relpersistence", "p".into()),
        ("relkind", relation.kind.into()),
        ("relnatts", relation.columns.len().into()),
        ("relhasrules", (relation.kind == "v").into()),
        ("relispopulated", true.into()),
        ("relreplident", if relation.is_system() || relation.kind == "v" { "n".into() } else { "d".into() }),
    ])?;
    if !has_key {
        return Ok(());
    }
    rows.push(&[
        ("oid", system.oids.of(Kind::KeyIndex, &relation.name).into()),
        ("relname", relation.key_name().into()),
        ("relnamespace", relation.namespace().into()),
        ("relowner", OWNER.into()),
        ("relam", BTREE.into()),
        ("relpersistence", "p".into()),
        ("relkind", "i".into()),
        ("relnatts", relation.key.len().into()),
        ("relispopulated", true.into()),
        ("relreplident", "n".into()),
    ])
}

fn attributes(system: &SystemCatalog, relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    for position in 0..relation.columns.len() {
        attribute(relation.oid, relation, position, position + 1, rows)?;
    }
    let index = system.oids.of(Kind::KeyIndex, &relation.name);
    for (number, position) in relation.key.iter().enumerate() {
        attribute(index, relation, *position, number + 1, rows)?;
    }
    Ok(())
}

/// The column at `position` as the one with this number of the table or index `of`.
fn attribute(of: u32, relation: &RelationFacts, position: usize, number: usize, rows: &mut TableRows) -> Result<()> {
    let (Some(column), Some(facts)) = (
        relation.columns.get(position),
        relation.columns.get(position).and_then(|column| type_by_oid(column.type_oid)),
    ) else {
        return Ok(());
    };
    rows.push(&[
        ("attrelid", of.into()),
        ("attname", text(&column.name)),
        ("atttypid", column.type_oid.into()),
        ("attstattarget", (-1).into()),
        ("attlen", facts.length.into()),
        ("attnum", number.into()),
        ("attndims", if facts.is_array { 1.into() } else { 0.into() }),
        ("attcacheoff", (-1).into()),
        ("atttypmod", column.type_modifier.into()),
        ("attbyval", facts.by_value.into()),
        ("attalign", facts.align.into()),
        ("attstorage", facts.storage.into()),
        ("attnotnull", column.not_null.into()),
        ("attislocal", true.into()),
        ("attcollation", collation_of(relation, facts.collation).into()),
    ])
}

/// PostgreSQL's own tables order their texts by code point, whatever the database does: collation "C".
fn collation_of(relation: &RelationFacts, of_type: &'static str) -> &'static str {
    match (relation.schema.as_ref(), relation.kind, of_type) {
        ("pg_catalog", "r", "100") => "950",
        _ => of_type,
    }
}

fn description(relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    let Some(comment) = &relation.comment else { return Ok(()) };
    rows.push(&[("objoid", relation.oid.into()), ("classoid", PG_CLASS.into()), ("description", text(comment))])
}

/// The connections to stores, of which only an administrator is told.
fn connections<'a>(system: &'a SystemCatalog, viewer: &Viewer) -> impl Iterator<Item = &'a Connection> {
    let told = viewer.rights.admin;
    system.catalog.connections().iter().filter(move |_| told)
}

fn connection_descriptions(system: &SystemCatalog, viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    connections(system, viewer).filter(|connection| connection.comment.is_some()).try_for_each(|connection| {
        rows.push(&[
            ("objoid", system.oids.of(Kind::Connection, &connection.name).into()),
            ("classoid", PG_FOREIGN_SERVER.into()),
            ("description", connection.comment.clone().into()),
        ])
    })
}

fn key_numbers(relation: &RelationFacts) -> Cell {
    Cell::numbers(relation.key.iter().map(|position| *position as i64 + 1))
}

fn index(system: &SystemCatalog, relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    if relation.key.is_empty() {
        return Ok(());
    }
    let zeros = Cell::numbers(relation.key.iter().map(|_| 0));
    rows.push(&[
        ("indexrelid", system.oids.of(Kind::KeyIndex, &relation.name).into()),
        ("indrelid", relation.oid.into()),
        ("indnatts", relation.key.len().into()),
        ("indnkeyatts", relation.key.len().into()),
        ("indisunique", true.into()),
        ("indisprimary", true.into()),
        ("indimmediate", true.into()),
        ("indisvalid", true.into()),
        ("indisready", true.into()),
        ("indislive", true.into()),
        ("indkey", key_numbers(relation)),
        ("indcollation", zeros.clone()),
        ("indclass", zeros.clone()),
        ("indoption", zeros),
    ])
}

fn constraint(system: &SystemCatalog, relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    if relation.key.is_empty() {
        return Ok(());
    }
    rows.push(&[
        ("oid", system.oids.of(Kind::KeyConstraint, &relation.name).into()),
        ("conname", relation.key_name().into()),
        ("connamespace", relation.namespace().into()),
        ("contype", "p".into()),
        ("convalidated", true.into()),
        ("conrelid", relation.oid.into()),
        ("conindid", system.oids.of(Kind::KeyIndex, &relation.name).into()),
        ("confupdtype", " ".into()),
        ("confdeltype", " ".into()),
        ("confmatchtype", " ".into()),
        ("conislocal", true.into()),
        ("connoinherit", true.into()),
        ("conkey", key_numbers(relation)),
    ])
}

fn roles(table: &str, snapshot: &Snapshot, rows: &mut TableRows) -> Result<()> {
    snapshot.roles.iter().try_for_each(|(oid, name)| {
        let is_super = *oid == OWNER;
        if matches!(table, "pg_user" | "pg_shadow") {
            return rows.push(&[
                ("usename", text(name)),
                ("usesysid", (*oid).into()),
                ("usecreatedb", false.into()),
                ("usesuper", is_super.into()),
                ("userepl", false.into()),
                ("usebypassrls", is_super.into()),
            ]);
        }
        rows.push(&[
            ("oid", (*oid).into()),
            ("rolname", text(name)),
            ("rolsuper", is_super.into()),
            ("rolinherit", true.into()),
            ("rolcreaterole", false.into()),
            ("rolcreatedb", false.into()),
            ("rolcanlogin", true.into()),
            ("rolreplication", false.into()),
            ("rolbypassrls", is_super.into()),
            ("rolconnlimit", (-1).into()),
        ])
    })
}

/// What PostgreSQL's `pg_get_indexdef` says of a key.
pub(super) fn index_definition(relation: &RelationFacts) -> String {
    let columns: Vec<&str> = relation.key_columns().collect();
    format!(
        "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
        relation.key_name(),
        relation.schema,
        relation.name,
        columns.join(", ")
    )
}
