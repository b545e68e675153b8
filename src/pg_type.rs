//! PostgreSQL's types as users write and see them, and the Arrow types that hold their values.
//!
//! Where one Arrow type holds several of PostgreSQL's (text, json, uuid), the field's metadata says which:
//! [`PgType::field`] writes it and [`PgType::of_field`] reads it.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};

use crate::error::{Code, Error, Result};

/// The key in a field's metadata that names a type which its Arrow type does not tell.
const METADATA_KEY: &str = "lookaside:type";

/// The time zone of every `timestamptz` array that we make.
pub const UTC: &str = "+00:00";

/// Digits and digits after the point of a `numeric` without either.
pub const PLAIN_NUMERIC: PgType = PgType::Numeric { precision: 38, scale: 18 };

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PgType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Up to 38 digits in `Decimal128`, up to 76 in `Decimal256`.
    Numeric {
        precision: u8,
        scale: i8,
    },
    Text,
    Bytea,
    Date,
    Time,
    /// Microseconds, as PostgreSQL's.
    Timestamp,
    Timestamptz,
    Interval,
    /// Held as text in lower case with hyphens, so that it compares as PostgreSQL's.
    Uuid,
    /// Held as the text that came in.
    Json,
    Jsonb,
    /// What PostgreSQL's own catalogs have: a text of at most 63 bytes.
    Name,
    /// `"char"`, of one byte: held as text.
    Char,
    /// The number of an object of PostgreSQL's catalogs.
    Oid,
    Array(Box<PgType>),
}

/// Every type that is no array; numeric stands for all of its precisions and scales.
const SCALARS: [PgType; 20] = [
    PgType::Bool,
    PgType::Int2,
    PgType::Int4,
    PgType::Int8,
    PgType::Float4,
    PgType::Float8,
    PLAIN_NUMERIC,
    PgType::Text,
    PgType::Bytea,
    PgType::Date,
    PgType::Time,
    PgType::Timestamp,
    PgType::Timestamptz,
    PgType::Interval,
    PgType::Uuid,
    PgType::Json,
    PgType::Jsonb,
    PgType::Name,
    PgType::Char,
    PgType::Oid,
];

impl PgType {
    /// Reads a type's name as it stands in a catalog file: `bigint`, `numeric(12,2)`, `text[]`.
    pub fn parse(name: &str) -> Result<PgType> {
        let name = name.trim().to_ascii_lowercase();
        if let Some(element) = name.strip_suffix("[]") {
            let element = PgType::parse(element)?;
            if matches!(element, PgType::Array(_)) {
                return Err(Error::unsupported("arrays of more than one dimension are not supported"));
            }
            return Ok(PgType::Array(Box::new(element)));
        }
        let (base, arguments) = match name.split_once('(') {
            Some((base, rest)) => {
                let rest = rest.strip_suffix(')').ok_or_else(|| unknown_type(&name))?;
                (base.trim(), Some(rest))
            }
            None => (name.as_str(), None),
        };
        let words = base.split_whitespace().collect::<Vec<_>>().join(" ");
        let pg_type = match words.as_str() {
            "bool" | "boolean" => PgType::Bool,
            "int2" | "smallint" => PgType::Int2,
            "int4" | "int" | "integer" => PgType::Int4,
            "int8" | "bigint" => PgType::Int8,
            "float4" | "real" => PgType::Float4,
            "float8" | "float" | "double precision" => PgType::Float8,
            "numeric" | "decimal" => return numeric(&name, arguments),
            "text" | "varchar" | "character varying" => PgType::Text,
            "bytea" => PgType::Bytea,
            "date" => PgType::Date,
            "time" | "time without time zone" => PgType::Time,
            "timestamp" | "timestamp without time zone" => PgType::Timestamp,
            "timestamptz" | "timestamp with time zone" => PgType::Timestamptz,
            "uuid" => PgType::Uuid,
            "json" => PgType::Json,
            "jsonb" => PgType::Jsonb,
            "interval" => PgType::Interval,
            "name" => PgType::Name,
            "\"char\"" => PgType::Char,
            "oid" => PgType::Oid,
            _ => return Err(unknown_type(&name)),
        };
        match arguments {
            Some(_) => Err(Error::unsupported(format!("type \"{name}\" takes no length or precision here"))
                .with_hint(format!("Write \"{words}\"."))),
            None => Ok(pg_type),
        }
    }

    /// The Arrow type that holds the values.
    pub fn arrow(&self) -> DataType {
        match self {
            PgType::Bool => DataType::Boolean,
            PgType::Int2 => DataType::Int16,
            PgType::Int4 => DataType::Int32,
            PgType::Int8 => DataType::Int64,
            PgType::Float4 => DataType::Float32,
            PgType::Float8 => DataType::Float64,
            PgType::Numeric { precision, scale } if *precision <= 38 => DataType::Decimal128(*precision, *scale),
            PgType::Numeric { precision, scale } => DataType::Decimal256(*precision, *scale),
            PgType::Text | PgType::Uuid | PgType::Json | PgType::Jsonb | PgType::Name | PgType::Char => {
                DataType::Utf8View
            }
            PgType::Oid => DataType::UInt32,
            PgType::Bytea => DataType::Binary,
            PgType::Date => DataType::Date32,
            PgType::Time => DataType::Time64(TimeUnit::Microsecond),
            PgType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            PgType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            PgType::Interval => DataType::Interval(datafusion::arrow::datatypes::IntervalUnit::MonthDayNano),
            PgType::Array(element) => DataType::List(Arc::new(element.field("item", true))),
        }
    }

    /// A column of this type, with what its Arrow type does not tell in its metadata.
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.arrow(), nullable);
        match self {
            PgType::Uuid | PgType::Json | PgType::Jsonb | PgType::Name | PgType::Char | PgType::Oid => {
                field.with_metadata([(METADATA_KEY.to_string(), self.to_string())].into())
            }
            _ => field,
        }
    }

    /// The type that a client sees for a column of a result.
    ///
    /// # Errors
    /// 0A000 for an Arrow type that no type of PostgreSQL stands for, naming the column.
    pub fn of_field(field: &Field) -> Result<PgType> {
        if let Some(name) = field.metadata().get(METADATA_KEY) {
            return PgType::parse(name);
        }
        Ok(match field.data_type() {
            DataType::Boolean => PgType::Bool,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => PgType::Int2,
            DataType::UInt16 | DataType::Int32 => PgType::Int4,
            DataType::UInt32 | DataType::Int64 => PgType::Int8,
            DataType::UInt64 => PgType::Numeric { precision: 20, scale: 0 },
            DataType::Float16 | DataType::Float32 => PgType::Float4,
            DataType::Float64 => PgType::Float8,
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => PgType::Numeric { precision: *precision, scale: *scale },
            // An untyped NULL is text to clients, as in PostgreSQL.
            DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => PgType::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                PgType::Bytea
            }
            DataType::Date32 | DataType::Date64 => PgType::Date,
            DataType::Time32(_) | DataType::Time64(_) => PgType::Time,
            DataType::Timestamp(_, None) => PgType::Timestamp,
            DataType::Timestamp(_, Some(_)) => PgType::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => PgType::Interval,
            DataType::Dictionary(_, values) => {
                PgType::of_field(&Field::new(field.name(), values.as_ref().clone(), true))?
            }
            DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
                match PgType::of_field(element)? {
                    PgType::Array(_) => {
                        return Err(Error::unsupported(format!(
                            "column \"{}\" is an array of more than one dimension, which is not supported",
                            field.name()
                        )));
                    }
                    element => PgType::Array(Box::new(element)),
                }
            }
            other => {
                return Err(Error::unsupported(format!(
                    "column \"{}\" has the type {other}, which has no counterpart in PostgreSQL",
                    field.name()
                ))
                .with_hint("Cast it to a type of PostgreSQL."));
            }
        })
    }

    /// The type's number in PostgreSQL's `pg_type`.
    pub fn oid(&self) -> u32 {
        match self {
            PgType::Bool => 16,
            PgType::Int2 => 21,
            PgType::Int4 => 23,
            PgType::Int8 => 20,
            PgType::Float4 => 700,
            PgType::Float8 => 701,
            PgType::Numeric { .. } => 1700,
            PgType::Text => 25,
            PgType::Bytea => 17,
            PgType::Date => 1082,
            PgType::Time => 1083,
            PgType::Timestamp => 1114,
            PgType::Timestamptz => 1184,
            PgType::Interval => 1186,
            PgType::Uuid => 2950,
            PgType::Json => 114,
            PgType::Jsonb => 3802,
            PgType::Name => 19,
            PgType::Char => 18,
            PgType::Oid => 26,
            PgType::Array(element) => match element.as_ref() {
                PgType::Bool => 1000,
                PgType::Int2 => 1005,
                PgType::Int4 => 1007,
                PgType::Int8 => 1016,
                PgType::Float4 => 1021,
                PgType::Float8 => 1022,
                PgType::Numeric { .. } => 1231,
                PgType::Text | PgType::Array(_) => 1009,
                PgType::Bytea => 1001,
                PgType::Date => 1182,
                PgType::Time => 1183,
                PgType::Timestamp => 1115,
                PgType::Timestamptz => 1185,
                PgType::Interval => 1187,
                PgType::Uuid => 2951,
                PgType::Json => 199,
                PgType::Jsonb => 3807,
                PgType::Name => 1003,
                PgType::Char => 1002,
                PgType::Oid => 1028,
            },
        }
    }

    /// The type with this number, for parameters. `None` where a client asks for one that we lack; 0 and 705 (unknown) are text.
    pub fn of_oid(oid: u32) -> Option<PgType> {
        match oid {
            // unknown, varchar, bpchar
            0 | 705 | 1043 | 1042 => return Some(PgType::Text),
            1015 | 1014 => return Some(PgType::Array(Box::new(PgType::Text))),
            _ => {}
        }
        SCALARS.into_iter().find_map(|candidate| {
            if candidate.oid() == oid {
                return Some(candidate);
            }
            let array = PgType::Array(Box::new(candidate));
            (array.oid() == oid).then_some(array)
        })
    }

    /// Bytes of a value in binary form, or -1 where that varies: `typlen` of `pg_type`.
    pub fn byte_len(&self) -> i16 {
        match self {
            PgType::Bool | PgType::Char => 1,
            PgType::Int2 => 2,
            PgType::Int4 | PgType::Float4 | PgType::Date | PgType::Oid => 4,
            PgType::Int8 | PgType::Float8 | PgType::Time | PgType::Timestamp | PgType::Timestamptz => 8,
            PgType::Uuid | PgType::Interval => 16,
            PgType::Name => 64,
            PgType::Numeric { .. } | PgType::Text | PgType::Bytea | PgType::Json | PgType::Jsonb | PgType::Array(_) => {
                -1
            }
        }
    }
}

/// The names that PostgreSQL's `format_type` gives.
impl fmt::Display for PgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PgType::Bool => "boolean",
            PgType::Int2 => "smallint",
            PgType::Int4 => "integer",
            PgType::Int8 => "bigint",
            PgType::Float4 => "real",
            PgType::Float8 => "double precision",
            PgType::Numeric { precision, scale } => return write!(f, "numeric({precision},{scale})"),
            PgType::Text => "text",
            PgType::Bytea => "bytea",
            PgType::Date => "date",
            PgType::Time => "time without time zone",
            PgType::Timestamp => "timestamp without time zone",
            PgType::Timestamptz => "timestamp with time zone",
            PgType::Interval => "interval",
            PgType::Uuid => "uuid",
            PgType::Json => "json",
            PgType::Jsonb => "jsonb",
            PgType::Name => "name",
            PgType::Char => "\"char\"",
            PgType::Oid => "oid",
            PgType::Array(element) => return write!(f, "{element}[]"),
        })
    }
}

fn numeric(name: &str, arguments: Option<&str>) -> Result<PgType> {
    let Some(arguments) = arguments else { return Ok(PLAIN_NUMERIC) };
    let mut numbers = arguments.split(',').map(|part| part.trim().parse::<i16>());
    let precision = numbers.next().and_then(|n| n.ok()).ok_or_else(|| unknown_type(name))?;
    let scale = numbers.next().unwrap_or(Ok(0)).map_err(|_| unknown_type(name))?;
    if numbers.next().is_some() {
        return Err(unknown_type(name));
    }
    if !(1..=76).contains(&precision) {
        return Err(Error::unsupported(format!("numeric precision {precision} is outside of 1 to 76")));
    }
    if !(0..=precision).contains(&scale) {
        return Err(Error::unsupported(format!("numeric scale {scale} is outside of 0 to the precision {precision}")));
    }
    Ok(PgType::Numeric { precision: precision as u8, scale: scale as i8 })
}

fn unknown_type(name: &str) -> Error {
    let known = [
        "bigint",
        "boolean",
        "bytea",
        "date",
        "double precision",
        "integer",
        "interval",
        "json",
        "jsonb",
        "numeric",
        "real",
        "smallint",
        "text",
        "time",
        "timestamp",
        "timestamptz",
        "uuid",
        "varchar",
    ];
    let error = Error::new(Code::UndefinedObject, format!("type \"{name}\" does not exist"));
    let nearest = known.iter().min_by_key(|candidate| strsim::damerau_levenshtein(candidate, name));
    match nearest.filter(|candidate| strsim::damerau_levenshtein(candidate, name) <= 3) {
        Some(nearest) => error.with_hint(format!("Perhaps you meant \"{nearest}\".")),
        None => error.with_hint(format!("Types are {}, and arrays of them.", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip_through_a_field() {
        for name in [
            "bigint",
            "numeric(12,2)",
            "numeric(76,0)",
            "uuid",
            "jsonb",
            "text[]",
            "uuid[]",
            "timestamptz",
            "double  precision",
            "interval[]",
            "name",
            "\"char\"",
            "oid[]",
        ] {
            let pg_type = PgType::parse(name).unwrap();
            assert_eq!(PgType::of_field(&pg_type.field("c", true)).unwrap(), pg_type, "{name}");
            assert_eq!(PgType::parse(&pg_type.to_string()).unwrap(), pg_type, "{name}");
        }
    }

    #[test]
    fn unknown_names_get_the_nearest_known_one() {
        let error = PgType::parse("bigit").unwrap_err();
        assert_eq!(error.message(), "type \"bigit\" does not exist");
        assert_eq!(error.hint(), Some("Perhaps you meant \"bigint\"."));
        assert!(PgType::parse("numeric(77,2)").is_err());
        assert!(PgType::parse("numeric(5,6)").is_err());
        assert!(PgType::parse("text(3").is_err());
    }

    #[test]
    fn oids_lead_back_to_their_types() {
        for pg_type in SCALARS {
            assert_eq!(PgType::of_oid(pg_type.oid()), Some(pg_type.clone()));
            let array = PgType::Array(Box::new(pg_type));
            assert_eq!(PgType::of_oid(array.oid()), Some(array));
        }
        assert_eq!(PgType::of_oid(600), None);
    }
}
