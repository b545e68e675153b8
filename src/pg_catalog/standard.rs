//! The rows of `information_schema`.

use super::SystemCatalog;
use super::cell::{Cell, TableRows};
use super::snapshot::{ColumnFacts, NAMESPACES, OWNER_NAME, RelationFacts, Snapshot};
use super::type_name::{format_type, type_by_oid};
use crate::catalog::Viewer;
use crate::error::Result;

/// Adds to `rows` what the view `name` of `information_schema` tells of us.
pub(super) async fn fill(name: &str, system: &SystemCatalog, viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    let snapshot = match name {
        "columns" => system.snapshot(viewer).await?,
        _ => system.snapshot_without_view_columns(viewer)?,
    };
    let mut relations = snapshot.relations.iter();
    match name {
        "information_schema_catalog_name" => rows.push(&[("catalog_name", text(&viewer.database))]),
        "schemata" => schemata(viewer, rows),
        "character_sets" => character_sets(viewer, rows),
        "enabled_roles" => snapshot.roles.iter().try_for_each(|(_, role)| rows.push(&[("role_name", text(role))])),
        "tables" => relations.try_for_each(|relation| table(viewer, relation, rows)),
        "columns" => relations.try_for_each(|relation| {
            let mut columns = relation.columns.iter().enumerate();
            columns.try_for_each(|(position, facts)| column(viewer, relation, position + 1, facts, rows))
        }),
        "views" => relations.filter(|relation| relation.kind == "v").try_for_each(|relation| {
            rows.push(&[
                ("table_catalog", text(&viewer.database)),
                ("table_schema", text(&relation.schema)),
                ("table_name", text(&relation.name)),
                ("view_definition", relation.definition.clone().into()),
                ("check_option", "NONE".into()),
                ("is_updatable", "NO".into()),
                ("is_insertable_into", "NO".into()),
                ("is_trigger_updatable", "NO".into()),
                ("is_trigger_deletable", "NO".into()),
                ("is_trigger_insertable_into", "NO".into()),
            ])
        }),
        "table_constraints" => keyed(&snapshot).try_for_each(|relation| constraint(viewer, relation, rows)),
        "key_column_usage" | "constraint_column_usage" => {
            keyed(&snapshot).try_for_each(|relation| key_columns(name, viewer, relation, rows))
        }
        "table_privileges" | "role_table_grants" => {
            relations.try_for_each(|relation| privileges(viewer, relation, rows))
        }
        "routines" => routines(viewer, rows),
        _ => Ok(()),
    }
}

fn text(name: &str) -> Cell {
    name.to_string().into()
}

fn yes(value: bool) -> Cell {
    if value { "YES".into() } else { "NO".into() }
}

fn keyed(snapshot: &Snapshot) -> impl Iterator<Item = &RelationFacts> {
    snapshot.relations.iter().filter(|relation| !relation.key.is_empty())
}

fn schemata(viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    NAMESPACES.iter().try_for_each(|(_, name)| {
        rows.push(&[
            ("catalog_name", text(&viewer.database)),
            ("schema_name", (*name).into()),
            ("schema_owner", OWNER_NAME.into()),
        ])
    })
}

fn character_sets(viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    rows.push(&[
        ("character_set_name", "UTF8".into()),
        ("character_repertoire", "UCS".into()),
        ("form_of_use", "UTF8".into()),
        ("default_collate_catalog", text(&viewer.database)),
        ("default_collate_schema", "pg_catalog".into()),
        ("default_collate_name", "C".into()),
    ])
}

fn table(viewer: &Viewer, relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    rows.push(&[
        ("table_catalog", text(&viewer.database)),
        ("table_schema", text(&relation.schema)),
        ("table_name", text(&relation.name)),
        ("table_type", if relation.kind == "v" { "VIEW".into() } else { "BASE TABLE".into() }),
        ("is_insertable_into", yes(relation.takes_rows)),
        ("is_typed", "NO".into()),
    ])
}

fn column(
    viewer: &Viewer,
    relation: &RelationFacts,
    number: usize,
    column: &ColumnFacts,
    rows: &mut TableRows,
) -> Result<()> {
    let Some(facts) = type_by_oid(column.type_oid) else { return Ok(()) };
    let data_type = if facts.is_array { "ARRAY".to_string() } else { format_type(facts.oid, -1) };
    let (precision, radix, scale) = digits(facts.name, column.type_modifier);
    let second_digits: Cell = match facts.name {
        "date" => 0.into(),
        "time" | "timestamp" | "timestamptz" | "interval" => 6.into(),
        _ => Cell::NULL,
    };
    rows.push(&[
        ("table_catalog", text(&viewer.database)),
        ("table_schema", text(&relation.schema)),
        ("table_name", text(&relation.name)),
        ("column_name", text(&column.name)),
        ("ordinal_position", number.into()),
        ("is_nullable", yes(!column.not_null)),
        ("data_type", data_type.into()),
        ("character_octet_length", (facts.name == "text").then_some(1_073_741_824).into()),
        ("numeric_precision", precision.into()),
        ("numeric_precision_radix", radix.into()),
        ("numeric_scale", scale.into()),
        ("datetime_precision", second_digits),
        ("udt_catalog", text(&viewer.database)),
        ("udt_schema", "pg_catalog".into()),
        ("udt_name", facts.name.into()),
        ("dtd_identifier", number.into()),
        ("is_self_referencing", "NO".into()),
        ("is_identity", "NO".into()),
        ("identity_cycle", "NO".into()),
        ("is_generated", "NEVER".into()),
        ("is_updatable", yes(relation.takes_rows)),
    ])
}

/// Precision, its radix, and scale, as the standard has them for numbers.
fn digits(type_name: &str, modifier: i32) -> (Option<i32>, Option<i32>, Option<i32>) {
    match type_name {
        "int2" => (Some(16), Some(2), Some(0)),
        "int4" => (Some(32), Some(2), Some(0)),
        "int8" => (Some(64), Some(2), Some(0)),
        "float4" => (Some(24), Some(2), None),
        "float8" => (Some(53), Some(2), None),
        "numeric" if modifier >= 0 => (Some(((modifier - 4) >> 16) & 0xffff), Some(10), Some((modifier - 4) & 0x7ff)),
        "numeric" => (None, Some(10), None),
        _ => (None, None, None),
    }
}

fn constraint(viewer: &Viewer, relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    rows.push(&[
        ("constraint_catalog", text(&viewer.database)),
        ("constraint_schema", text(&relation.schema)),
        ("constraint_name", relation.key_name().into()),
        ("table_catalog", text(&viewer.database)),
        ("table_schema", text(&relation.schema)),
        ("table_name", text(&relation.name)),
        ("constraint_type", "PRIMARY KEY".into()),
        ("is_deferrable", "NO".into()),
        ("initially_deferred", "NO".into()),
        ("enforced", "YES".into()),
    ])
}

fn key_columns(view: &str, viewer: &Viewer, relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    for (position, column) in relation.key_columns().enumerate() {
        let mut cells = vec![
            ("constraint_catalog", text(&viewer.database)),
            ("constraint_schema", text(&relation.schema)),
            ("constraint_name", relation.key_name().into()),
            ("table_catalog", text(&viewer.database)),
            ("table_schema", text(&relation.schema)),
            ("table_name", text(&relation.name)),
            ("column_name", text(column)),
        ];
        if view == "key_column_usage" {
            cells.push(("ordinal_position", (position + 1).into()));
        }
        rows.push(&cells)?;
    }
    Ok(())
}

/// What the viewer may do with a relation.
fn privileges(viewer: &Viewer, relation: &RelationFacts, rows: &mut TableRows) -> Result<()> {
    let may_write = relation.takes_rows && viewer.rights.write.contains(&relation.name);
    let may_read = relation.is_system() || viewer.rights.read.contains(&relation.name);
    let held = [("SELECT", may_read), ("INSERT", may_write)];
    held.into_iter().filter(|(_, held)| *held).try_for_each(|(privilege, _)| {
        rows.push(&[
            ("grantor", OWNER_NAME.into()),
            ("grantee", text(&viewer.user)),
            ("table_catalog", text(&viewer.database)),
            ("table_schema", text(&relation.schema)),
            ("table_name", text(&relation.name)),
            ("privilege_type", privilege.into()),
            ("is_grantable", "NO".into()),
            ("with_hierarchy", yes(privilege == "SELECT")),
        ])
    })
}

fn routines(viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    ["invalidate", "warm"].into_iter().try_for_each(|name| {
        rows.push(&[
            ("specific_catalog", text(&viewer.database)),
            ("specific_schema", "lookaside".into()),
            ("specific_name", name.into()),
            ("routine_catalog", text(&viewer.database)),
            ("routine_schema", "lookaside".into()),
            ("routine_name", name.into()),
            ("routine_type", "FUNCTION".into()),
            ("data_type", "bigint".into()),
            ("type_udt_catalog", text(&viewer.database)),
            ("type_udt_schema", "pg_catalog".into()),
            ("type_udt_name", "int8".into()),
            ("routine_body", "EXTERNAL".into()),
            ("external_language", "INTERNAL".into()),
        ])
    })
}
