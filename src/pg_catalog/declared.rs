//! What every PostgreSQL has in its schemas `pg_catalog` and `information_schema`: relations with their columns
//! (`relations.txt`), and the rows that are the same in each (`builtin.txt`). Both files hold the facts of version 15.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::pg_type::PgType;

/// The schema of what tools ask, which stands before all others in the search path.
pub const PG_CATALOG: &str = "pg_catalog";
/// The standard's schema of the same.
pub const INFORMATION_SCHEMA: &str = "information_schema";

/// A relation of one of the two schemas.
#[derive(Debug)]
pub struct DeclaredRelation {
    pub schema: &'static str,
    pub name: &'static str,
    pub oid: u32,
    /// `r` or `v`.
    pub kind: &'static str,
    pub columns: Vec<DeclaredColumn>,
}

#[derive(Debug)]
pub struct DeclaredColumn {
    pub name: &'static str,
    /// As `pg_type.typname` has it.
    pub type_name: &'static str,
    pub not_null: bool,
}

impl DeclaredColumn {
    /// The type in which the column's values reach a client: the nearest of those that we have.
    pub fn wire_type(&self) -> PgType {
        wire_type(self.type_name)
    }
}

/// All relations, in the order of their names within each schema.
pub static RELATIONS: LazyLock<Vec<DeclaredRelation>> =
    LazyLock::new(|| include_str!("relations.txt").lines().filter_map(read_relation).collect());

/// The rows of a table that are the same everywhere.
#[derive(Debug)]
pub struct BuiltinRows {
    pub columns: Vec<&'static str>,
    /// `None` is NULL.
    pub rows: Vec<Vec<Option<&'static str>>>,
}

/// Rows by their table's name.
pub static BUILTIN: LazyLock<BTreeMap<&'static str, BuiltinRows>> = LazyLock::new(|| {
    let mut tables = BTreeMap::new();
    for part in include_str!("builtin.txt").split("= ").skip(1) {
        let mut lines = part.lines();
        let mut heading = lines.next().unwrap_or_default().split(' ');
        let name = heading.next().unwrap_or_default();
        let columns: Vec<_> = heading.collect();
        let count = columns.len();
        let value = |text| (text != "\\N").then_some(text);
        let rows = lines.map(|line| line.splitn(count, ' ').map(value).collect()).collect();
        tables.insert(name, BuiltinRows { columns, rows });
    }
    tables
});

/// The relation with this name in one of the two schemas.
pub fn relation(schema: &str, name: &str) -> Option<&'static DeclaredRelation> {
    RELATIONS.iter().find(|relation| relation.name == name && relation.schema == schema)
}

/// Whether the name alone, without a schema, is one of `pg_catalog`.
pub fn is_catalog_relation(name: &str) -> bool {
    relation(PG_CATALOG, name).is_some()
}

/// The type of a column of `pg_catalog`; those of one name are of one type.
pub fn catalog_column_type(name: &str) -> Option<PgType> {
    let columns = RELATIONS.iter().filter(|relation| relation.schema == PG_CATALOG).flat_map(|known| &known.columns);
    columns.into_iter().find(|column| column.name == name).map(DeclaredColumn::wire_type)
}

/// `pg_class 1259 r oid:oid! relname:name! …`; a relation of the other schema has it before its name.
fn read_relation(line: &'static str) -> Option<DeclaredRelation> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let (schema, name) = name.split_once('.').unwrap_or((PG_CATALOG, name));
    let oid = words.next()?.parse().ok()?;
    let kind = words.next()?;
    let column = |word: &'static str| {
        let (name, type_name) = word.split_once(':')?;
        let (type_name, not_null) = type_name.strip_suffix('!').map_or((type_name, false), |bare| (bare, true));
        Some(DeclaredColumn { name, type_name, not_null })
    };
    Some(DeclaredRelation { schema, name, oid, kind, columns: words.filter_map(column).collect() })
}

fn wire_type(type_name: &str) -> PgType {
    let of_items = |item: &str| PgType::Array(Box::new(wire_type(item)));
    match type_name {
        "bool" => PgType::Bool,
        "bytea" => PgType::Bytea,
        "int2" => PgType::Int2,
        "int4" => PgType::Int4,
        "int8" | "xid" => PgType::Int8,
        "oid" | "regproc" | "regtype" => PgType::Oid,
        "name" => PgType::Name,
        "char" => PgType::Char,
        "float4" => PgType::Float4,
        "float8" => PgType::Float8,
        "numeric" => PgType::Numeric { precision: 38, scale: 18 },
        "timestamptz" => PgType::Timestamptz,
        "interval" => PgType::Interval,
        "int2vector" => of_items("int2"),
        "oidvector" => of_items("oid"),
        other => match other.strip_prefix('_') {
            Some(item) => of_items(item),
            None => PgType::Text,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_facts_is_read() {
        assert_eq!(RELATIONS.len(), include_str!("relations.txt").lines().count());
        assert!(RELATIONS.iter().all(|relation| !relation.columns.is_empty()));
        for (name, builtin) in BUILTIN.iter() {
            let table = relation(PG_CATALOG, name).unwrap();
            for column in &builtin.columns {
                assert!(table.columns.iter().any(|known| known.name == *column), "{name}.{column}");
            }
            assert!(!builtin.rows.is_empty(), "{name}");
            assert!(builtin.rows.iter().all(|row| row.len() == builtin.columns.len()), "{name}");
        }
    }

    #[test]
    fn a_name_alone_is_of_the_catalog_and_not_of_the_standards_schema() {
        assert!(is_catalog_relation("pg_class"));
        assert!(!is_catalog_relation("columns"));
        assert_eq!(relation(INFORMATION_SCHEMA, "columns").unwrap().kind, "v");
    }
}
