//! What MariaDB or MySQL says of a table: its columns, their types, its indexes.

use std::sync::Arc;

use mysql_async::prelude::FromValue;
use mysql_async::{Row, Value};

use super::mysql_column::{MysqlColumn, StoredColumn};
use super::mysql_connection::MysqlConnection;
use super::{SqlTable, StoreError};
use crate::error::{Code, Error, Result};

/// A table or view, found.
pub(super) struct Relation {
    pub(super) database: String,
    pub(super) name: String,
    pub(super) is_view: bool,
    pub(super) is_mariadb: bool,
    /// What the server takes of one request.
    pub(super) max_packet_bytes: u64,
}

/// An index's columns, those that its order begins with first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    is_primary: bool,
    /// Whether it finds rows by its first columns alone.
    is_ordered: bool,
    columns: Vec<String>,
}

const RELATION: &str = "\
SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE LIKE '%VIEW', VERSION() LIKE '%MariaDB%', @@max_allowed_packet
FROM information_schema.TABLES WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?";

const COLUMNS: &str = "\
SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, IS_NULLABLE = 'YES', DATA_TYPE, COLUMN_TYPE, NUMERIC_PRECISION, NUMERIC_SCALE,
  CHARACTER_SET_NAME, COLLATION_NAME
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";

/// The conditions on single columns: MariaDB's type json is a longtext with one. MySQL has a type of its own.
const CHECKS: &str = "\
SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?";

const INDEXES: &str = "\
SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, INDEX_TYPE FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND INDEX_TYPE IN ('BTREE', 'HASH') ORDER BY INDEX_NAME, SEQ_IN_INDEX";

/// The one way in which names get into statements.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Finds the table that `name` stands for: `customers`, `erp.customers`, `` `erp`.`any name` ``.
pub(super) async fn read_relation(connection: &Arc<MysqlConnection>, name: &str) -> Result<Relation, StoreError> {
    let (database, table) = split_name(name)?;
    let parameters = vec![Value::from(database), Value::from(table.clone())];
    let rows = connection.query_all(RELATION, parameters).await?;
    let mut found = Vec::new();
    for row in rows {
        found.push(Relation {
            database: get(&row, 0)?,
            name: get(&row, 1)?,
            is_view: get(&row, 2)?,
            is_mariadb: get(&row, 3)?,
            max_packet_bytes: get(&row, 4)?,
        });
    }
    // Where names differ by their capitals, the very name; where the server folds them, the only one.
    let exact = found.iter().position(|relation| relation.name == table);
    let only = (found.len() == 1).then_some(0);
    match exact.or(only) {
        Some(position) => Ok(found.swap_remove(position)),
        None => Err(invalid(
            Error::new(Code::UndefinedTable, format!("table \"{name}\" does not exist in the store"))
                .with_hint("Write the database if it is not the connection's, as in erp.customers, and backquotes around what is not a word."),
        )),
    }
}

/// The columns to expose, in the order of `table.columns` if that is given, with the types of `table.types` instead of the store's.
pub(super) async fn read_columns(
    connection: &Arc<MysqlConnection>,
    relation: &Relation,
    table: &SqlTable,
) -> Result<Vec<MysqlColumn>, StoreError> {
    let json_columns = read_json_columns(connection, relation).await?;
    let mut all = Vec::new();
    for row in relation.rows(connection, COLUMNS).await? {
        let name: String = get(&row, 2)?;
        all.push(StoredColumn {
            nullable: get(&row, 3)?,
            data_type: get::<String>(&row, 4)?.to_ascii_lowercase(),
            declared: get(&row, 5)?,
            precision: get(&row, 6)?,
            scale: get(&row, 7)?,
            charset: get(&row, 8)?,
            collation: get(&row, 9)?,
            is_checked_json: json_columns.contains(&name),
            name,
        });
    }
    for (name, _) in &table.types {
        find(&all, name, relation)?;
    }
    let chosen = match &table.columns {
        None => all.iter().collect(),
        Some(names) => names.iter().map(|name| find(&all, name, relation)).collect::<Result<Vec<_>, _>>()?,
    };
    let expose = |stored: &&StoredColumn| {
        let wanted = table.types.iter().find(|(name, _)| *name == stored.name).map(|(_, pg_type)| pg_type);
        stored.expose(relation.is_view, wanted).map_err(invalid)
    };
    chosen.iter().map(expose).collect()
}

async fn read_json_columns(connection: &Arc<MysqlConnection>, relation: &Relation) -> Result<Vec<String>, StoreError> {
    if !relation.is_mariadb {
        return Ok(vec![]);
    }
    let mut columns = vec![];
    for row in relation.rows(connection, CHECKS).await? {
        let clause: String = get(&row, 2)?;
        let quoted = clause.strip_prefix("json_valid(`").and_then(|rest| rest.strip_suffix("`)"));
        columns.extend(quoted.map(|name| name.replace("``", "`")));
    }
    Ok(columns)
}

/// The indexes that may help to find rows; none of a view, of which that cannot be told.
pub(super) async fn read_indexes(
    connection: &Arc<MysqlConnection>,
    relation: &Relation,
) -> Result<Vec<Index>, StoreError> {
    let mut indexes: Vec<(String, Index)> = Vec::new();
    for row in relation.rows(connection, INDEXES).await? {
        let (name, column, kind): (String, Option<String>, String) = (get(&row, 2)?, get(&row, 3)?, get(&row, 4)?);
        // What MySQL computes has no name, and is no column of ours.
        let column = column.unwrap_or_default();
        match indexes.last_mut().filter(|(last, _)| *last == name) {
            Some((_, index)) => index.columns.push(column),
            None => {
                let (is_primary, is_ordered) = (name == "PRIMARY", kind == "BTREE");
                indexes.push((name, Index { is_primary, is_ordered, columns: vec![column] }));
            }
        }
    }
    Ok(indexes.into_iter().map(|(_, index)| index).collect())
}

impl Index {
    /// Whether rows are found by it when these columns are known.
    pub(super) fn helps(&self, known: &[&str]) -> bool {
        let is_known = |column: &String| known.contains(&column.as_str());
        if self.is_ordered { self.columns.first().is_some_and(is_known) } else { self.columns.iter().all(is_known) }
    }

    /// The columns of the primary key, if it is that.
    pub(super) fn primary_key(&self) -> Option<&[String]> {
        self.is_primary.then_some(&self.columns)
    }
}

impl Relation {
    /// Quoted, with its database.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.database), quote_identifier(&self.name))
    }

    /// What a table of `information_schema` says of this one. It compares names without regard to capitals, so each of its
    /// rows begins with the names that it is about.
    async fn rows(&self, connection: &Arc<MysqlConnection>, statement: &str) -> Result<Vec<Row>, StoreError> {
        let parameters = vec![Value::from(self.database.as_str()), Value::from(self.name.as_str())];
        let mut own = Vec::new();
        for row in connection.query_all(statement, parameters).await? {
            let (database, name): (String, String) = (get(&row, 0)?, get(&row, 1)?);
            if database == self.database && name == self.name {
                own.push(row);
            }
        }
        Ok(own)
    }
}

/// The database, if it is named, and the table.
fn split_name(name: &str) -> Result<(Option<String>, String)> {
    let malformed = || {
        Error::new(Code::SyntaxError, format!("\"{name}\" is not the name of a table")).with_hint(
            "Write customers or erp.customers, and backquotes around what is not a word: `erp`.`old customers`.",
        )
    };
    let mut parts = Vec::new();
    let mut rest = name.trim();
    loop {
        let (part, behind) = split_part(rest).filter(|(part, _)| !part.is_empty()).ok_or_else(malformed)?;
        parts.push(part);
        match behind.strip_prefix('.') {
            Some(next) => rest = next,
            None if behind.is_empty() => break,
            None => return Err(malformed()),
        }
    }
    let table = parts.pop().ok_or_else(malformed)?;
    let database = parts.pop();
    if parts.is_empty() { Ok((database, table)) } else { Err(malformed()) }
}

/// The name that `text` begins with, and what stands behind it.
fn split_part(text: &str) -> Option<(String, &str)> {
    let Some(mut quoted) = text.strip_prefix('`') else {
        let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        let end = text.find(|c| !is_of_word(c)).unwrap_or(text.len());
        return Some((text[..end].to_string(), &text[end..]));
    };
    let mut part = String::new();
    loop {
        let (inside, behind) = quoted.split_once('`')?;
        part.push_str(inside);
        match behind.strip_prefix('`') {
            Some(more) => {
                part.push('`');
                quoted = more;
            }
            None => return Some((part, behind)),
        }
    }
}

fn find<'a>(all: &'a [StoredColumn], name: &str, relation: &Relation) -> Result<&'a StoredColumn, StoreError> {
    // As the server compares names of columns; a file writes them as the table does.
    if let Some(column) = all.iter().find(|column| column.name == name) {
        return Ok(column);
    }
    let error = Error::new(
        Code::UndefinedColumn,
        format!("column \"{name}\" of table \"{}.{}\" does not exist", relation.database, relation.name),
    );
    let nearest = all.iter().min_by_key(|column| strsim::damerau_levenshtein(&column.name, name));
    Err(invalid(match nearest {
        Some(column) if strsim::damerau_levenshtein(&column.name, name) <= 3 => {
            error.with_hint(format!("Perhaps you meant \"{}\".", column.name))
        }
        _ => error,
    }))
}

fn get<T: FromValue>(row: &Row, column: usize) -> Result<T, StoreError> {
    let value = row.get_opt(column).and_then(std::result::Result::ok);
    value.ok_or_else(|| invalid(Error::internal(format!("information_schema gave no value in column {column}"))))
}

fn invalid(error: Error) -> StoreError {
    StoreError::Invalid(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &str) -> Option<(Option<String>, String)> {
        split_name(name).ok()
    }

    #[test]
    fn names_of_tables_are_read_as_the_server_reads_them() {
        let pair = |database: &str, table: &str| Some((Some(database.to_string()), table.to_string()));
        assert_eq!(split("customers"), Some((None, "customers".to_string())));
        assert_eq!(split("erp.customers"), pair("erp", "customers"));
        assert_eq!(split("`a.b`.`c``d '; --`"), pair("a.b", "c`d '; --"));
        for wrong in ["", "a.", ".a", "a b", "`a", "`a`b", "a.b.c", "``", "a;b"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_index_helps_where_its_first_column_is_known() {
        let index = |is_ordered, columns: &[&str]| Index {
            is_primary: false,
            is_ordered,
            columns: columns.iter().map(ToString::to_string).collect(),
        };
        assert!(index(true, &["a", "b"]).helps(&["a"]));
        assert!(!index(true, &["a", "b"]).helps(&["b"]));
        assert!(!index(false, &["a", "b"]).helps(&["a"]));
        assert!(index(false, &["a", "b"]).helps(&["b", "a"]));
    }
}
