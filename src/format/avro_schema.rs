//! Avro schemas: the JSON that declares them, read into types that know each other by number.
//!
//! `avro_parser.rs` reads the JSON, `avro_column.rs` finds the columns, `avro_resolve.rs` joins a writer's schema with a
//! reader's.

use std::fmt;

use serde_json::Value as Json;

use crate::error::{Code, Error, Result};
use crate::format::avro_parser::AvroParser;

/// A type's position among those of its schema. Types that name each other may form circles.
pub(crate) type TypeId = usize;

/// A record as Avro declares it, by which messages are written and read.
pub struct AvroSchema {
    types: Vec<AvroType>,
    root: TypeId,
}

#[derive(Debug)]
pub(crate) enum AvroType {
    Null,
    Scalar(AvroScalar),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Record(AvroRecord),
}

/// A type whose values have no types within.
#[derive(Clone, Debug)]
pub(crate) struct AvroScalar {
    pub(crate) wire: Wire,
    pub(crate) logical: Option<Logical>,
    /// Of an enum or a fixed.
    pub(crate) names: Option<Names>,
}

/// How a scalar's bytes are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum {
        symbols: Vec<String>,
        /// The symbol for those of a writer that are not among these.
        default: Option<String>,
    },
}

/// What a scalar means beyond its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logical {
    Decimal { precision: u64, scale: u64 },
    BigDecimal,
    Uuid,
    Date,
    Time(Unit),
    Timestamp(Unit),
    LocalTimestamp(Unit),
    Duration,
}

/// What times are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Millis,
    Micros,
    Nanos,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// With its namespace.
    pub(crate) full: String,
    /// With their namespaces.
    pub(crate) aliases: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct AvroRecord {
    pub(crate) names: Names,
    pub(crate) fields: Vec<AvroField>,
}

#[derive(Debug)]
pub(crate) struct AvroField {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) avro_type: TypeId,
    /// What readers take for it from writers that lack it.
    pub(crate) default: Option<Json>,
}

impl Names {
    /// The name without its namespace.
    pub(crate) fn short(&self) -> &str {
        short(&self.full)
    }

    /// Whether a reader that has these names may read what was written under `writer`.
    pub(crate) fn read(&self, writer: &Names) -> bool {
        self.short() == writer.short() || self.aliases.contains(&writer.full)
    }
}

pub(crate) fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

impl AvroSchema {
    /// # Errors
    /// 22023 for what is no schema of a record, with what is wrong in it.
    pub fn parse(json: &str) -> Result<AvroSchema> {
        Self::parse_with_references::<&str>(json, &[])
    }

    /// As [`AvroSchema::parse`]; `references` are schemas whose names it may use, each behind those that it uses itself.
    ///
    /// # Errors
    /// The same.
    pub fn parse_with_references<R: AsRef<str>>(json: &str, references: &[R]) -> Result<AvroSchema> {
        let mut parser = AvroParser::default();
        for reference in references {
            let reference = reference.as_ref();
            parser.parse(reference).map_err(|reason| invalid(format!("a schema that it refers to: {reason}")))?;
        }
        let root = parser.parse(json).map_err(invalid)?;
        let schema = AvroSchema { types: parser.into_types(), root };
        match schema.get(root) {
            AvroType::Record(_) => Ok(schema),
            _ => Err(invalid(format!("it is no record but of type {}", schema.describe(root)))),
        }
    }

    /// The record's name, with its namespace.
    pub fn name(&self) -> &str {
        match self.get(self.root) {
            AvroType::Record(record) => &record.names.full,
            _ => "",
        }
    }

    pub(crate) fn has_field(&self, name: &str) -> bool {
        match self.get(self.root) {
            AvroType::Record(record) => record.fields.iter().any(|field| field.name == name),
            _ => false,
        }
    }

    pub(crate) fn root(&self) -> TypeId {
        self.root
    }

    pub(crate) fn get(&self, id: TypeId) -> &AvroType {
        // All numbers were given by the parser, for types that it has.
        self.types.get(id).unwrap_or(&AvroType::Null)
    }

    /// The type as messages name it.
    pub(crate) fn describe(&self, id: TypeId) -> String {
        match self.get(id) {
            AvroType::Null => "null".to_string(),
            AvroType::Scalar(scalar) => scalar.to_string(),
            AvroType::Array(_) => "array".to_string(),
            AvroType::Map(_) => "map".to_string(),
            AvroType::Union(_) => "union".to_string(),
            AvroType::Record(record) => format!("record \"{}\"", record.names.full),
        }
    }
}

impl fmt::Debug for AvroSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AvroSchema").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl fmt::Display for AvroScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wire {
            Wire::Boolean => f.write_str("boolean"),
            Wire::Int => f.write_str("int"),
            Wire::Long => f.write_str("long"),
            Wire::Float => f.write_str("float"),
            Wire::Double => f.write_str("double"),
            Wire::Bytes => f.write_str("bytes"),
            Wire::String => f.write_str("string"),
            Wire::Fixed(size) => write!(f, "fixed of {size} bytes"),
            Wire::Enum { .. } => match &self.names {
                Some(names) => write!(f, "enum \"{}\"", names.full),
                None => f.write_str("enum"),
            },
        }?;
        match &self.logical {
            Some(logical) => write!(f, " ({logical})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Logical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Logical::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Logical::BigDecimal => f.write_str("big-decimal"),
            Logical::Uuid => f.write_str("uuid"),
            Logical::Date => f.write_str("date"),
            Logical::Time(unit) => write!(f, "time-{unit}"),
            Logical::Timestamp(unit) => write!(f, "timestamp-{unit}"),
            Logical::LocalTimestamp(unit) => write!(f, "local-timestamp-{unit}"),
            Logical::Duration => f.write_str("duration"),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Millis => "millis",
            Unit::Micros => "micros",
            Unit::Nanos => "nanos",
        })
    }
}

fn invalid(reason: String) -> Error {
    Error::new(Code::InvalidParameterValue, format!("invalid Avro schema: {reason}"))
}

#[cfg(test)]
#[path = "avro_schema_tests.rs"]
mod tests;
