//! What PostgreSQL says of a table: its columns, their types, and how to compare and read each.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use super::postgres_connection::PostgresConnection;
use super::postgres_encode::Parameter;
use super::{KeyEquality, StoreError};
use crate::error::{Code, Error, Result};
use crate::pg_type::{PLAIN_NUMERIC, PgType};

/// A relation, found.
pub(super) struct Relation {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: RelationKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelationKind {
    /// Also partitioned ones and materialized views: what may have indexes.
    Table,
    View,
    ForeignTable,
}

/// A column that lookups may read and compare.
#[derive(Clone, Debug)]
pub(super) struct PostgresColumn {
    pub(super) name: String,
    pub(super) pg_type: PgType,
    pub(super) nullable: bool,
    /// `pg_attribute.attnum`.
    pub(super) number: i16,
    /// SQL for its value as users see it; the table is `t`.
    pub(super) value: String,
    /// What to cast the parameter of its keys to.
    pub(super) keys: String,
    pub(super) equality: Equality,
    /// Whether values seen here compare as PostgreSQL's do: not so for char(n), whose padding `=` ignores.
    pub(super) can_filter: bool,
    /// Whether `equality` can be told from values as users see them.
    pub(super) key_equality: KeyEquality,
}

/// How PostgreSQL compares a column with a key.
#[derive(Clone, Debug)]
pub(super) enum Equality {
    /// By the column's own `=`.
    Native,
    /// By the `=` of this schema (quoted), which need not be in the search path.
    OperatorOf(String),
    /// As a value of this enum (quoted). A text that is no label of it finds nothing.
    Enum(String),
    /// By the value as users see it, where that is of another type than the column.
    Value,
}

impl PostgresColumn {
    /// SQL that is true where the column equals `key`.
    pub(super) fn equals(&self, key: &str) -> String {
        let column = format!("t.{}", quote_identifier(&self.name));
        match &self.equality {
            Equality::Native => format!("{column} = {key}"),
            Equality::OperatorOf(schema) => format!("{column} OPERATOR({schema}.=) {key}"),
            Equality::Enum(name) => {
                format!("{column} = CASE WHEN {key} = ANY (enum_range(NULL::{name})::text[]) THEN {key}::{name} END")
            }
            Equality::Value => format!("{} = {key}", self.value),
        }
    }
}

/// The one way in which names get into statements.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const RELATION: &str = "\
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass($1)";

/// Domains are followed to what they are made of; an array's element is followed once. That a collation may be
/// nondeterministic is told by its row as a whole: before version 12 there was no such column.
const COLUMNS: &str = "\
WITH RECURSIVE typed AS (
  SELECT a.attnum, a.attname, a.attnotnull, a.attcollation AS collation, a.atttypid AS type, a.atttypmod AS typmod,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS declared
  FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT d.attnum, d.attname, d.attnotnull, d.collation, t.typbasetype, t.typtypmod, d.declared
  FROM typed AS d JOIN pg_catalog.pg_type AS t ON t.oid = d.type WHERE t.typtype = 'd'
)
SELECT c.attnum, c.attname::text, c.attnotnull, c.declared, t.typcategory = 'A' AND t.typelem <> 0,
  CASE WHEN e.typtype = 'd' THEN e.typtypmod ELSE c.typmod END,
  b.oid::int8, b.typtype::text, b.typname::text, n.nspname::text,
  COALESCE(pg_catalog.to_jsonb(o) ->> 'collisdeterministic' = 'false', false)
FROM typed AS c
JOIN pg_catalog.pg_type AS t ON t.oid = c.type
LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND t.typcategory = 'A'
JOIN pg_catalog.pg_type AS b ON b.oid = CASE WHEN e.typtype = 'd' THEN e.typbasetype WHEN e.oid IS NOT NULL THEN e.oid ELSE t.oid END
JOIN pg_catalog.pg_namespace AS n ON n.oid = b.typnamespace
LEFT JOIN pg_catalog.pg_collation AS o ON o.oid = c.collation
WHERE t.typtype <> 'd' ORDER BY c.attnum";

/// Finds the relation that `name` stands for, by PostgreSQL's own rules for names.
pub(super) async fn read_relation(connection: &Arc<PostgresConnection>, name: &str) -> Result<Relation, StoreError> {
    let rows = connection.query_once(RELATION, &[Parameter::text(name)]).await?;
    let Some(row) = rows.first() else {
        return Err(invalid(
            Error::new(Code::UndefinedTable, format!("relation \"{name}\" does not exist in the store"))
                .with_hint("Write the schema if it is not in the search path, and double quotes around capitals."),
        ));
    };
    let kind = match get::<String>(row, 3)?.as_str() {
        "r" | "p" | "m" => RelationKind::Table,
        "v" => RelationKind::View,
        "f" => RelationKind::ForeignTable,
        _ => {
            return Err(invalid(Error::new(Code::DatatypeMismatch, format!("\"{name}\" is not a table or view"))));
        }
    };
    Ok(Relation { oid: get(row, 0)?, schema: get(row, 1)?, name: get(row, 2)?, kind })
}

/// The columns to expose, in the order of `only` if that is given, with the types of `types` instead of the store's.
pub(super) async fn read_columns(
    connection: &Arc<PostgresConnection>,
    relation: &Relation,
    only: Option<&[String]>,
    types: &[(String, PgType)],
) -> Result<Vec<PostgresColumn>, StoreError> {
    let rows = connection.query_once(COLUMNS, &[Parameter::bigint(relation.oid)]).await?;
    let all = rows.iter().map(StoredColumn::try_new).collect::<Result<Vec<_>, _>>()?;
    for (name, _) in types {
        find(&all, name, relation)?;
    }
    let chosen = match only {
        None => all.iter().collect(),
        Some(names) => names.iter().map(|name| find(&all, name, relation)).collect::<Result<Vec<_>, _>>()?,
    };
    let mut columns = Vec::with_capacity(chosen.len());
    for stored in chosen {
        let wanted = types.iter().find(|(name, _)| *name == stored.name).map(|(_, pg_type)| pg_type);
        columns.push(stored.expose(relation, wanted).map_err(invalid)?);
    }
    Ok(columns)
}

fn find<'a>(all: &'a [StoredColumn], name: &str, relation: &Relation) -> Result<&'a StoredColumn, StoreError> {
    if let Some(column) = all.iter().find(|column| column.name == name) {
        return Ok(column);
    }
    let error = Error::new(
        Code::UndefinedColumn,
        format!("column \"{name}\" of relation \"{}.{}\" does not exist", relation.schema, relation.name),
    );
    let nearest = all.iter().min_by_key(|column| strsim::damerau_levenshtein(&column.name, name));
    Err(invalid(match nearest {
        Some(column) if strsim::damerau_levenshtein(&column.name, name) <= 3 => {
            error.with_hint(format!("Perhaps you meant \"{}\".", column.name))
        }
        _ => error,
    }))
}

/// A column as the catalog of PostgreSQL has it; the type is what domains and arrays are made of.
struct StoredColumn {
    number: i16,
    name: String,
    not_null: bool,
    declared: String,
    is_array: bool,
    typmod: i32,
    type_oid: i64,
    type_kind: String,
    type_name: String,
    type_schema: String,
    is_collated_freely: bool,
}

impl StoredColumn {
    fn try_new(row: &Row) -> Result<Self, StoreError> {
        Ok(StoredColumn {
            number: get(row, 0)?,
            name: get(row, 1)?,
            not_null: get(row, 2)?,
            declared: get(row, 3)?,
            is_array: get(row, 4)?,
            typmod: get(row, 5)?,
            type_oid: get(row, 6)?,
            type_kind: get(row, 7)?,
            type_name: get(row, 8)?,
            type_schema: get(row, 9)?,
            is_collated_freely: get(row, 10)?,
        })
    }

    fn expose(&self, relation: &Relation, wanted: Option<&PgType>) -> Result<PostgresColumn> {
        let own = match (self.element_type(), wanted) {
            (Ok(element), _) if self.is_array => Some(PgType::Array(Box::new(element))),
            (Ok(element), _) => Some(element),
            (Err(_), Some(_)) => None,
            (Err(error), None) => return Err(error),
        };
        let pg_type = match (wanted, &own) {
            (Some(wanted), _) => wanted.clone(),
            (None, Some(own)) => own.clone(),
            (None, None) => return Err(self.unsupported()),
        };
        let is_own = own.as_ref().is_some_and(|own| same_family(own, &pg_type));
        let column = format!("t.{}", quote_identifier(&self.name));
        let (keys, equality) = if is_own { self.comparison(&pg_type) } else { (keys_of(&pg_type), Equality::Value) };
        let padded = is_own && self.type_oid == BPCHAR;
        let cast = if padded { "bpchar".to_string() } else { plain_name(&pg_type) };
        let cast = if padded && self.is_array { "bpchar[]".to_string() } else { cast };
        let is_read_as_text = is_own && self.is_address();
        Ok(PostgresColumn {
            name: self.name.clone(),
            // Nobody enforces what is declared of a foreign table.
            nullable: !self.not_null || relation.kind == RelationKind::ForeignTable,
            number: self.number,
            // Without effect where the type is this one already; otherwise the answer is still what we read.
            value: match self.type_oid {
                // Its cast to text shows a mask where its output does not.
                INET if is_own => format!("pg_catalog.textin(pg_catalog.inet_out({column}))"),
                _ => format!("{column}::{cast}"),
            },
            keys,
            equality,
            can_filter: !padded && !is_read_as_text,
            key_equality: self.key_equality(&pg_type, is_own),
            pg_type,
        })
    }

    fn key_equality(&self, pg_type: &PgType, is_own: bool) -> KeyEquality {
        let of_store = |reason: String| KeyEquality::OfStore { reason };
        match pg_type {
            PgType::Json => KeyEquality::None { reason: "type json has no equality".to_string() },
            PgType::Array(_) => KeyEquality::None { reason: format!("keys of type {pg_type} are not supported") },
            PgType::Jsonb => of_store("equal values of type jsonb need not look the same".to_string()),
            _ if is_own && (self.type_oid == BPCHAR || self.is_citext() || self.is_address()) => {
                of_store(format!("its type {} has an equality of its own", self.declared))
            }
            _ if is_own && self.is_collated_freely => {
                of_store("its collation holds different texts for equal".to_string())
            }
            _ => KeyEquality::ByValue,
        }
    }

    /// The parameter's cast and the comparison for a key of the column's own type.
    fn comparison(&self, pg_type: &PgType) -> (String, Equality) {
        let type_name = format!("{}.{}", quote_identifier(&self.type_schema), quote_identifier(&self.type_name));
        match self.type_oid {
            // Without a length: nothing is cut off, and `=` ignores the padding.
            BPCHAR => ("text[]::bpchar[]".to_string(), Equality::Native),
            // A cast would cut the key to its first byte.
            CHAR => (keys_of(pg_type), Equality::Value),
            _ if self.is_address() => (format!("text[]::pg_catalog.{}[]", self.type_name), Equality::Native),
            _ if self.type_kind == "e" => (keys_of(pg_type), Equality::Enum(type_name)),
            _ if self.is_citext() => {
                (format!("text[]::{type_name}[]"), Equality::OperatorOf(quote_identifier(&self.type_schema)))
            }
            _ => (keys_of(pg_type), Equality::Native),
        }
    }

    /// Of a network: shown as text, and compared as what it says.
    fn is_address(&self) -> bool {
        matches!(self.type_oid, INET | CIDR | MACADDR | MACADDR8)
    }

    fn is_citext(&self) -> bool {
        self.type_oid >= FIRST_USER_OID && self.type_kind == "b" && self.type_name == "citext"
    }

    fn element_type(&self) -> Result<PgType> {
        if self.type_kind == "e" || self.is_citext() {
            return Ok(PgType::Text);
        }
        match self.type_oid {
            CHAR | NAME | VARCHAR | BPCHAR | CIDR | MACADDR | MACADDR8 => Ok(PgType::Text),
            // Casts of its arrays to text write what its own values do not show.
            INET if !self.is_array => Ok(PgType::Text),
            NUMERIC => self.numeric(),
            // What of_oid takes for text or plain numeric stands above.
            705 | 0 => Err(self.unsupported()),
            oid => match u32::try_from(oid).ok().and_then(PgType::of_oid) {
                Some(PgType::Array(_)) | None => Err(self.unsupported()),
                Some(pg_type) => Ok(pg_type),
            },
        }
    }

    /// From the type's modifier: precision in the upper half, scale in eleven bits with sign; see `numeric.c`.
    fn numeric(&self) -> Result<PgType> {
        if self.typmod < 0 {
            return Ok(PLAIN_NUMERIC);
        }
        let modifier = self.typmod - 4;
        let (precision, scale) = ((modifier >> 16) & 0xffff, ((modifier & 0x7ff) ^ 1024) - 1024);
        // A negative scale rounds before the point; one above the precision means leading zeros behind it.
        let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(precision), Ok(scale)) if precision <= 76 => Ok(PgType::Numeric { precision, scale }),
            _ => Err(self.unsupported()),
        }
    }

    fn unsupported(&self) -> Error {
        Error::unsupported(format!("column \"{}\" has the type {}, which is not supported", self.name, self.declared))
            .with_hint(format!(
                "Leave it out: name the columns to expose in \"columns\". Or read it as another type: types = {{ {} = \"text\" }}.",
                self.name
            ))
    }
}

const CHAR: i64 = 18;
const NAME: i64 = 19;
const BPCHAR: i64 = 1042;
const VARCHAR: i64 = 1043;
const NUMERIC: i64 = 1700;
const INET: i64 = 869;
const CIDR: i64 = 650;
const MACADDR: i64 = 829;
const MACADDR8: i64 = 774;
/// `FirstNormalObjectId`: what users and extensions make.
const FIRST_USER_OID: i64 = 16384;

/// Whether a value of one is read as the other without a cast.
fn same_family(one: &PgType, other: &PgType) -> bool {
    match (one, other) {
        (PgType::Numeric { .. }, PgType::Numeric { .. }) => true,
        (PgType::Array(one), PgType::Array(other)) => same_family(one, other),
        (one, other) => one == other,
    }
}

/// The type's name without precision and scale, to which a cast never rounds.
fn plain_name(pg_type: &PgType) -> String {
    match pg_type {
        PgType::Numeric { .. } => "numeric".to_string(),
        PgType::Array(element) => format!("{}[]", plain_name(element)),
        other => other.to_string(),
    }
}

/// What a parameter with keys of this type is cast to; see [`Parameter::keys`].
fn keys_of(pg_type: &PgType) -> String {
    match pg_type {
        PgType::Numeric { .. } | PgType::Jsonb => format!("text[]::{}[]", plain_name(pg_type)),
        other => format!("{other}[]"),
    }
}

pub(super) fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| invalid(Error::internal(format!("catalog of PostgreSQL: {error}"))))
}

fn invalid(error: Error) -> StoreError {
    StoreError::Invalid(error)
}
