//! The columns of an SQLite table, and what their declared types stand for.
//!
//! SQLite keeps declared types as words and lets any column hold any value. Here a column has the type that the word
//! says, and a value that is not of it is an error when it is read.

use rusqlite::Connection;

use super::sqlite_connection::failure;
use super::{KeyEquality, SqlTable, StoreError};
use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;

/// A column that is exposed.
#[derive(Clone, Debug)]
pub(super) struct SqliteColumn {
    pub name: String,
    pub pg_type: PgType,
}

/// A column as SQLite has it.
struct Known {
    name: String,
    declared: String,
    /// From 1, its place in the primary key; 0 if it is not part of it.
    key_place: i64,
}

impl SqliteColumn {
    pub(super) fn key_equality(&self) -> KeyEquality {
        /// Up to so many digits, numbers that differ are different floats, as SQLite may hold them.
        const FLOAT_DIGITS: u8 = 15;
        match &self.pg_type {
            pg_type @ (PgType::Json | PgType::Jsonb | PgType::Array(_) | PgType::Interval) => {
                KeyEquality::None { reason: format!("equal values of type {pg_type} need not look the same") }
            }
            PgType::Numeric { precision, .. } if *precision > FLOAT_DIGITS => {
                KeyEquality::OfStore { reason: "SQLite may hold it as a float".to_string() }
            }
            PgType::Float4 => KeyEquality::OfStore { reason: "SQLite holds it with double precision".to_string() },
            _ => KeyEquality::ByValue,
        }
    }
}

/// The way in which names get into statements.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The exposed columns in their order, and which of them are the primary key.
pub(super) fn read_table(
    database: &Connection,
    table: &SqlTable,
) -> Result<(Vec<SqliteColumn>, Vec<usize>), StoreError> {
    let known = read_known(database, &table.table)?;
    let undefined = |name: &str| {
        let message = format!("column \"{name}\" of table \"{}\" does not exist", table.table);
        Error::new(Code::UndefinedColumn, message)
    };
    if let Some((name, _)) = table.types.iter().find(|(name, _)| !known.iter().any(|column| column.name == *name)) {
        return Err(undefined(name).into());
    }
    let exposed = match &table.columns {
        None => known.iter().collect::<Vec<_>>(),
        Some(names) => {
            let find = |name: &String| known.iter().find(|column| column.name == *name).ok_or_else(|| undefined(name));
            names.iter().map(find).collect::<Result<Vec<_>>>()?
        }
    };
    let type_of = |column: &Known| match table.types.iter().find(|(name, _)| *name == column.name) {
        Some((_, pg_type)) => Ok(pg_type.clone()),
        None => declared_type(&column.declared).ok_or_else(|| untold(&table.table, column)),
    };
    let columns =
        exposed.iter().map(|column| Ok(SqliteColumn { name: column.name.clone(), pg_type: type_of(column)? }));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let mut key = known.iter().filter(|column| column.key_place > 0).collect::<Vec<_>>();
    key.sort_by_key(|column| column.key_place);
    let place = |column: &&Known| columns.iter().position(|exposed| exposed.name == column.name);
    let primary_key = key.iter().map(place).collect::<Option<Vec<_>>>().unwrap_or_default();
    Ok((columns, primary_key))
}

fn untold(table: &str, column: &Known) -> Error {
    let message = match column.declared.as_str() {
        "" => format!("column \"{}\" of table \"{table}\" has no declared type", column.name),
        declared => format!("column \"{}\" of table \"{table}\" has the unknown type \"{declared}\"", column.name),
    };
    Error::unsupported(message).with_hint(format!(
        "Say what it is, as in types = {{ {} = \"text\" }}, or leave it out with columns = […].",
        column.name
    ))
}

fn read_known(database: &Connection, table: &str) -> Result<Vec<Known>, StoreError> {
    let read = || -> rusqlite::Result<Vec<Known>> {
        // Hidden columns of virtual tables are no columns to users; generated ones (2, 3) are.
        let sql = "SELECT name, type, pk FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1";
        let mut statement = database.prepare(sql)?;
        let rows = statement
            .query_map([table], |row| Ok(Known { name: row.get(0)?, declared: row.get(1)?, key_place: row.get(2)? }))?;
        rows.collect()
    };
    let known = read().map_err(|error| failure(&error))?;
    match known.is_empty() {
        true => Err(Error::new(Code::UndefinedTable, format!("table \"{table}\" does not exist")).into()),
        false => Ok(known),
    }
}

/// The positions in `columns` of those that lead an index, or are the row's own number.
pub(super) fn read_indexed(
    database: &Connection,
    table: &str,
    columns: &[SqliteColumn],
) -> Result<Option<Vec<usize>>, StoreError> {
    let read = || -> rusqlite::Result<Vec<String>> {
        // Collations other than BINARY do not serve, as keys are compared by their bytes.
        let sql = "SELECT c.name FROM pragma_index_list(?1, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS c \
                   WHERE c.seqno = 0 AND c.coll = 'BINARY' AND c.name IS NOT NULL AND NOT i.partial \
                   UNION SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE pk = 1 AND upper(type) = 'INTEGER'";
        database.prepare(sql)?.query_map([table], |row| row.get(0))?.collect()
    };
    let is_view = || -> rusqlite::Result<bool> {
        let sql = "SELECT count(*) FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type = 'table'";
        database.query_row(sql, [table], |row| row.get::<_, i64>(0)).map(|count| count == 0)
    };
    if is_view().map_err(|error| failure(&error))? {
        return Ok(None);
    }
    let leading = read().map_err(|error| failure(&error))?;
    let positions = columns.iter().enumerate().filter(|(_, column)| leading.contains(&column.name));
    Ok(Some(positions.map(|(position, _)| position).collect()))
}

/// What a declared type stands for: the words of SQLite's own manual, and PostgreSQL's names.
fn declared_type(declared: &str) -> Option<PgType> {
    let lower = declared.trim().to_lowercase();
    let (word, arguments) = match lower.split_once('(') {
        Some((word, rest)) => (word.trim(), rest.trim_end_matches(')')),
        None => (lower.as_str(), ""),
    };
    match word {
        // SQLite's INTEGER has 64 bits, as have all of its like.
        "integer" | "int" | "mediumint" | "tinyint" | "int2" | "int4" | "int8" | "smallint" | "bigint"
        | "unsigned big int" => Some(PgType::Int8),
        "character" | "varchar" | "varying character" | "nchar" | "native character" | "nvarchar" | "clob" | "char"
        | "character varying" | "text" | "string" => Some(PgType::Text),
        "real" | "double" | "double precision" | "float" => Some(PgType::Float8),
        "datetime" => Some(PgType::Timestamp),
        "blob" => Some(PgType::Bytea),
        "decimal" | "numeric" if arguments.is_empty() => PgType::parse("numeric").ok(),
        "decimal" | "numeric" => PgType::parse(&format!("numeric({arguments})")).ok(),
        _ => PgType::parse(&lower).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_stand_for_what_their_words_say() {
        for (declared, expected) in [
            ("INTEGER", "bigint"),
            ("int", "bigint"),
            ("UNSIGNED BIG INT", "bigint"),
            ("VARCHAR(255)", "text"),
            ("CLOB", "text"),
            ("REAL", "double precision"),
            ("DECIMAL(10,5)", "numeric(10,5)"),
            ("BLOB", "bytea"),
            ("DATETIME", "timestamp"),
            ("timestamptz", "timestamptz"),
            ("Boolean", "boolean"),
            ("DATE", "date"),
            ("uuid", "uuid"),
            ("JSON", "json"),
        ] {
            assert_eq!(declared_type(declared), PgType::parse(expected).ok(), "{declared}");
            assert!(declared_type(declared).is_some(), "{declared}");
        }
        for unknown in ["", "POINT", "geometry(3)", "decimal(x)"] {
            assert_eq!(declared_type(unknown), None, "{unknown}");
        }
    }
}
