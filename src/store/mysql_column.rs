//! A column of MariaDB or MySQL: which type of PostgreSQL holds its values, and how keys are compared with it.

use super::KeyEquality;
use super::mysql_schema::quote_identifier;
use crate::error::{Error, Result};
use crate::pg_type::PgType;

/// A column as `information_schema` has it.
pub(super) struct StoredColumn {
    pub(super) name: String,
    pub(super) nullable: bool,
    /// The type's name alone, in lower case.
    pub(super) data_type: String,
    /// The type as it was declared, as in `int(10) unsigned`.
    pub(super) declared: String,
    pub(super) precision: Option<u64>,
    pub(super) scale: Option<u64>,
    pub(super) charset: Option<String>,
    pub(super) collation: Option<String>,
    /// Whether a condition holds its texts to be JSON.
    pub(super) is_checked_json: bool,
}

/// A column that lookups may read and compare.
#[derive(Clone, Debug)]
pub(super) struct MysqlColumn {
    pub(super) name: String,
    pub(super) pg_type: PgType,
    pub(super) nullable: bool,
    /// SQL for what is read; the table is `t`.
    pub(super) value: String,
    /// How keys are sent and compared; `None` where they cannot be.
    pub(super) keys: Option<KeyForm>,
    pub(super) key_equality: KeyEquality,
    pub(super) filter: FilterForm,
}

/// What becomes of a key on its way: a value of JSON, a column of `JSON_TABLE`, and one side of an equality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    Signed,
    Unsigned,
    Decimal {
        scale: i8,
    },
    Float,
    Text {
        charset: String,
        collation: String,
    },
    /// As hexadecimal digits.
    Bytes,
    /// Of bit(n): as the number that the bits are.
    Bits {
        bytes: usize,
    },
    /// As text, which the column's type reads in its own way.
    Native,
    /// A number of two digits would stand for another one.
    Year,
    Date,
    Time,
    Moment,
}

/// How a column stands in conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilterForm {
    /// Its own comparisons are those of its values here.
    Native,
    /// By the bytes of its text in UTF-8.
    Bytes,
    /// A bit that is a boolean.
    Bit,
    /// As [`FilterForm::Native`], but IS NULL is true of dates that are all zero.
    Moment,
    /// Not at all, but for IS NULL.
    None,
}

impl StoredColumn {
    /// # Errors
    /// 0A000 for a type that we lack.
    pub(super) fn expose(&self, is_view: bool, wanted: Option<&PgType>) -> Result<MysqlColumn> {
        let own = self.own_type();
        let pg_type = match (wanted, &own) {
            (Some(wanted), _) => wanted.clone(),
            (None, Some(own)) => own.clone(),
            (None, None) => return Err(self.unsupported()),
        };
        if let PgType::Array(_) = pg_type {
            let message =
                format!("column \"{}\" has the type {}, which cannot be read as {pg_type}", self.name, self.declared);
            return Err(Error::unsupported(message));
        }
        let is_own = own.as_ref().is_some_and(|own| *own == pg_type || (is_moment(own) && is_moment(&pg_type)));
        let keys = self.key_form(own.as_ref(), &pg_type)?;
        Ok(MysqlColumn {
            name: self.name.clone(),
            // A view may join in what is not there.
            nullable: self.nullable || is_view,
            value: self.value(own.as_ref(), &pg_type),
            key_equality: self.key_equality(keys.as_ref(), &pg_type),
            keys,
            filter: if is_own { self.filter_form(&pg_type) } else { FilterForm::None },
            pg_type,
        })
    }

    fn own_type(&self) -> Option<PgType> {
        let is_unsigned = self.declared.to_ascii_lowercase().contains("unsigned");
        Some(match (self.data_type.as_str(), is_unsigned) {
            ("tinyint", _) | ("smallint", false) => PgType::Int2,
            ("smallint", true) | ("mediumint", _) | ("int", false) | ("year", _) => PgType::Int4,
            ("int", true) | ("bigint", false) => PgType::Int8,
            ("bigint", true) => PgType::Numeric { precision: 20, scale: 0 },
            ("decimal", _) => self.decimal()?,
            ("float", _) => PgType::Float4,
            ("double", _) => PgType::Float8,
            ("bit", _) if self.bits() == 1 => PgType::Bool,
            ("bit", _) => PgType::Bytea,
            ("longtext", _) if self.is_checked_json => PgType::Jsonb,
            ("char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set", _) => PgType::Text,
            ("binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob", _) => PgType::Bytea,
            ("date", _) => PgType::Date,
            ("time", _) => PgType::Time,
            ("datetime", _) => PgType::Timestamp,
            ("timestamp", _) => PgType::Timestamptz,
            ("json", _) => PgType::Jsonb,
            ("uuid", _) => PgType::Uuid,
            ("inet4" | "inet6", _) => PgType::Text,
            _ => return None,
        })
    }

    fn decimal(&self) -> Option<PgType> {
        let precision = u8::try_from(self.precision?).ok()?;
        Some(PgType::Numeric { precision, scale: i8::try_from(self.scale?).ok()? })
    }

    fn bits(&self) -> u64 {
        self.precision.unwrap_or(1)
    }

    fn column(&self) -> String {
        format!("t.{}", quote_identifier(&self.name))
    }

    /// Numbers and bytes are read as they are; whatever else is wanted as another type is read as text, in PostgreSQL's syntax.
    fn value(&self, own: Option<&PgType>, wanted: &PgType) -> String {
        let column = self.column();
        match (own, wanted) {
            (Some(own), wanted) if own == wanted || (is_moment(own) && is_moment(wanted)) => column,
            (_, wanted) if self.data_type == "bit" && is_number(wanted) => format!("CAST({column} AS UNSIGNED)"),
            (Some(own), wanted) if is_number(own) && is_number(wanted) => column,
            (Some(PgType::Bytea), PgType::Text) => column,
            (Some(PgType::Bytea), PgType::Uuid) => format!("HEX({column})"),
            (_, PgType::Bytea) => format!("CAST({column} AS BINARY)"),
            (_, _) => format!("CAST({column} AS CHAR CHARACTER SET utf8mb4)"),
        }
    }

    fn key_form(&self, own: Option<&PgType>, wanted: &PgType) -> Result<Option<KeyForm>> {
        let Some(own) = own else { return Ok(None) };
        Ok(match (self.data_type.as_str(), own, wanted) {
            (_, own, wanted) if is_number(own) && is_number(wanted) => Some(self.number_form(own, wanted)),
            (_, PgType::Float4 | PgType::Float8, PgType::Float4 | PgType::Float8) => Some(KeyForm::Float),
            ("bit", PgType::Bytea, PgType::Bytea) => {
                Some(KeyForm::Bits { bytes: usize::try_from(self.bits().div_ceil(8)).unwrap_or_default() })
            }
            ("bit", _, _) => None,
            ("inet4" | "inet6", _, PgType::Text) | ("uuid", _, PgType::Uuid) => Some(KeyForm::Native),
            ("inet4" | "inet6" | "uuid", _, _) => None,
            (_, PgType::Text, PgType::Text | PgType::Uuid) => Some(self.text_form()?),
            (_, PgType::Bytea, PgType::Bytea | PgType::Text | PgType::Uuid) => Some(KeyForm::Bytes),
            (_, PgType::Date, PgType::Date) => Some(KeyForm::Date),
            (_, PgType::Time, PgType::Time) => Some(KeyForm::Time),
            (_, own, wanted) if is_moment(own) && is_moment(wanted) => Some(KeyForm::Moment),
            (_, _, _) => None,
        })
    }

    fn number_form(&self, own: &PgType, wanted: &PgType) -> KeyForm {
        match (own, wanted) {
            (_, _) if self.data_type == "year" => KeyForm::Year,
            (PgType::Numeric { .. }, PgType::Numeric { scale: 0, .. }) if self.data_type == "bigint" => {
                KeyForm::Unsigned
            }
            (_, PgType::Numeric { scale, .. }) => KeyForm::Decimal { scale: *scale },
            (_, _) => KeyForm::Signed,
        }
    }

    fn text_form(&self) -> Result<KeyForm> {
        let word = |name: &Option<String>| {
            let name = name.as_deref().filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
            let missing = || Error::internal(format!("column \"{}\" has a collation without a name", self.name));
            name.map(str::to_string).ok_or_else(missing)
        };
        Ok(KeyForm::Text { charset: word(&self.charset)?, collation: word(&self.collation)? })
    }

    fn key_equality(&self, keys: Option<&KeyForm>, pg_type: &PgType) -> KeyEquality {
        match keys {
            None => KeyEquality::None {
                reason: match pg_type {
                    PgType::Jsonb => "type json has no equality in the store".to_string(),
                    _ => format!("its type in the store, {}, does not compare with {pg_type}", self.declared),
                },
            },
            Some(KeyForm::Text { collation, .. }) if !is_by_bytes(collation) => {
                KeyEquality::OfStore { reason: format!("its collation {collation} holds different texts for equal") }
            }
            Some(KeyForm::Native) if *pg_type == PgType::Text => {
                KeyEquality::OfStore { reason: format!("its type {} has an equality of its own", self.declared) }
            }
            Some(_) => KeyEquality::ByValue,
        }
    }

    fn filter_form(&self, pg_type: &PgType) -> FilterForm {
        match pg_type {
            _ if self.data_type == "year" => FilterForm::None,
            PgType::Bool => FilterForm::Bit,
            PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Numeric { .. } => FilterForm::Native,
            PgType::Text | PgType::Uuid => FilterForm::Bytes,
            PgType::Date | PgType::Timestamp | PgType::Timestamptz => FilterForm::Moment,
            _ => FilterForm::None,
        }
    }

    fn unsupported(&self) -> Error {
        Error::unsupported(format!("column \"{}\" has the type {}, which is not supported", self.name, self.declared))
            .with_hint(format!(
                "Leave it out: name the columns to expose in \"columns\". Or read it as another type: types = {{ {} = \"bytea\" }}.",
                self.name
            ))
    }
}

/// Whether the server compares values of the type as numbers without a rest.
fn is_number(pg_type: &PgType) -> bool {
    matches!(pg_type, PgType::Bool | PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Numeric { .. })
}

/// Whether the type is a day with its time: in a session in UTC one with a zone is read and compared as one without.
fn is_moment(pg_type: &PgType) -> bool {
    matches!(pg_type, PgType::Timestamp | PgType::Timestamptz)
}

/// Whether texts are equal only where they are the same: all other collations ignore at least blanks at the end.
fn is_by_bytes(collation: &str) -> bool {
    collation.ends_with("_nopad_bin") || collation == "utf8mb4_0900_bin"
}

impl MysqlColumn {
    pub(super) fn column(&self) -> String {
        format!("t.{}", quote_identifier(&self.name))
    }
}

impl KeyForm {
    /// The type in `JSON_TABLE`, for keys of at most so many characters: it cuts off what is longer.
    pub(super) fn declared(&self, longest: usize) -> String {
        match self {
            KeyForm::Signed | KeyForm::Year => "BIGINT".to_string(),
            KeyForm::Unsigned | KeyForm::Bits { .. } => "BIGINT UNSIGNED".to_string(),
            KeyForm::Decimal { scale } => format!("DECIMAL(65,{scale})"),
            KeyForm::Float => "DOUBLE".to_string(),
            KeyForm::Date => "DATE".to_string(),
            KeyForm::Time => "TIME(6)".to_string(),
            KeyForm::Moment => "DATETIME(6)".to_string(),
            KeyForm::Text { charset, collation } if charset == "utf8mb4" => {
                format!("{} CHARACTER SET utf8mb4 COLLATE {collation}", text_type(longest))
            }
            KeyForm::Text { .. } | KeyForm::Bytes | KeyForm::Native => {
                format!("{} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", text_type(longest))
            }
        }
    }

    /// SQL that is true where `column` equals `key`, a column of `JSON_TABLE`.
    pub(super) fn equals(&self, column: &str, key: &str) -> String {
        match self {
            KeyForm::Year => format!("CAST({column} AS SIGNED) = {key}"),
            KeyForm::Bytes => format!("{column} = UNHEX({key})"),
            // What the column's character set lacks would become a question mark, and equal one.
            KeyForm::Text { charset, collation } if charset != "utf8mb4" => format!(
                "{column} = CONVERT({key} USING {charset}) COLLATE {collation} \
                 AND CONVERT(CONVERT({key} USING {charset}) USING utf8mb4) = {key}"
            ),
            _ => format!("{column} = {key}"),
        }
    }
}

/// One of few, so that there are few statements. The last one goes to disk at the server.
fn text_type(longest: usize) -> String {
    match [64, 255, 1024].into_iter().find(|&length| longest <= length) {
        Some(length) => format!("VARCHAR({length})"),
        None => "LONGTEXT".to_string(),
    }
}
