//! Which columns an Avro record gives, and which type of PostgreSQL each has.
//!
//! | Avro | PostgreSQL |
//! |---|---|
//! | boolean, int, long, float, double | boolean, integer, bigint, real, double precision |
//! | string, enum | text |
//! | bytes, fixed | bytea |
//! | decimal, uuid, date, time, duration | numeric, uuid, date, time, interval |
//! | timestamp, local-timestamp | timestamptz, timestamp |
//! | array of one of these | array |
//! | union of null and one of these | the same, with NULL |
//! | record, map, other unions, other arrays | jsonb, as `avro_json.rs` writes it |

use std::collections::HashSet;

use datafusion::arrow::datatypes::Field;

use crate::error::{Code, Error, Result};
use crate::format::avro_schema::{AvroRecord, AvroScalar, AvroSchema, AvroType, Logical, TypeId, Unit, Wire};
use crate::format::json_path::JsonPath;
use crate::pg_type::PgType;

/// The most digits of a numeric.
const MAX_PRECISION: u64 = 76;

/// A declared column of Avro records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvroColumn {
    pub name: String,
    /// Through records within records to its value; the field of its name if there is none.
    pub path: Option<JsonPath>,
    /// The type that its field has, or one that holds all values of it.
    pub pg_type: Option<PgType>,
    /// Where false, messages with a NULL there are malformed.
    pub nullable: bool,
}

/// Where in a schema a column's values stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The names of fields on the way.
    pub(crate) fields: Vec<String>,
    pub(crate) pg_type: PgType,
    pub(crate) nullable: bool,
}

impl AvroSchema {
    /// A column for each field of the record, in its order.
    ///
    /// # Errors
    /// 0A000 for a field whose values no type here holds, naming it.
    pub fn columns(&self) -> Result<Vec<Field>> {
        let AvroType::Record(record) = self.get(self.root()) else { return Ok(Vec::new()) };
        let column = |name: &String| {
            let place = self.place(name, &JsonPath::member(name))?;
            Ok(place.pg_type.field(name, place.nullable))
        };
        record.fields.iter().map(|field| column(&field.name)).collect()
    }

    /// The declared columns, each of its declared type.
    ///
    /// # Errors
    /// 42703 for a path that leads nowhere; 42804 for a type that does not hold the values there; 0A000 as
    /// [`AvroSchema::columns`].
    pub fn columns_of(&self, declared: &[AvroColumn]) -> Result<Vec<Field>> {
        let column = |column: &AvroColumn| {
            let place = self.place_of(column)?;
            let pg_type = column.pg_type.as_ref().unwrap_or(&place.pg_type);
            check_widening(&column.name, &place.pg_type, pg_type)?;
            Ok(pg_type.field(&column.name, column.nullable))
        };
        declared.iter().map(column).collect()
    }

    /// # Errors
    /// As [`AvroSchema::columns_of`].
    pub(crate) fn place_of(&self, column: &AvroColumn) -> Result<Place> {
        match &column.path {
            Some(path) => self.place(&column.name, path),
            None => self.place(&column.name, &JsonPath::member(&column.name)),
        }
    }

    fn place(&self, column: &str, path: &JsonPath) -> Result<Place> {
        let nowhere = |reason: String| {
            let message = format!("column \"{column}\": {path} leads nowhere in {}", self.describe(self.root()));
            Error::new(Code::UndefinedColumn, message).with_detail(reason)
        };
        let members = path.members().ok_or_else(|| nowhere("A path in Avro leads through records alone.".into()))?;
        let mut at = self.root();
        let mut nullable = false;
        for &member in &members {
            let (inner, is_nullable) = self.without_null(at);
            let AvroType::Record(record) = self.get(inner) else {
                let found = self.describe(inner);
                return Err(nowhere(format!("\"{member}\" would be in a value of type {found}, which is no record.")));
            };
            let field = record.fields.iter().find(|field| field.name == member);
            let field = field.ok_or_else(|| nowhere(missing(record, member)))?;
            nullable |= is_nullable;
            at = field.avro_type;
        }
        let (inner, is_nullable) = self.without_null(at);
        let pg_type = self.pg_type(inner).map_err(|reason| {
            let found = self.describe(inner);
            Error::unsupported(format!("column \"{column}\" has the Avro type {found}, which cannot be read: {reason}"))
        })?;
        let fields = members.into_iter().map(str::to_string).collect();
        Ok(Place { fields, pg_type, nullable: nullable || is_nullable })
    }

    /// The only type beside null in a union, and whether there is null. All other types are what they are.
    pub(crate) fn without_null(&self, id: TypeId) -> (TypeId, bool) {
        let AvroType::Union(branches) = self.get(id) else { return (id, matches!(self.get(id), AvroType::Null)) };
        let is_null = |branch: &&TypeId| matches!(self.get(**branch), AvroType::Null);
        let nullable = branches.iter().any(|branch| is_null(&branch));
        let mut others = branches.iter().filter(|branch| !is_null(branch));
        match (others.next(), others.next()) {
            (Some(&only), None) => (only, nullable),
            _ => (id, nullable),
        }
    }

    /// # Errors
    /// Why no type holds the values.
    fn pg_type(&self, id: TypeId) -> Result<PgType, String> {
        match self.get(id) {
            AvroType::Scalar(scalar) => scalar_type(scalar),
            AvroType::Array(items) => match self.get(self.without_null(*items).0) {
                AvroType::Scalar(scalar) => Ok(PgType::Array(Box::new(scalar_type(scalar)?))),
                _ => self.json_type(id),
            },
            // Nothing but NULL: any type would do.
            AvroType::Null => Ok(PgType::Text),
            AvroType::Map(_) | AvroType::Union(_) | AvroType::Record(_) => self.json_type(id),
        }
    }

    /// All that is within must have a form in JSON.
    fn json_type(&self, id: TypeId) -> Result<PgType, String> {
        let mut seen = HashSet::new();
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.get(id) {
                AvroType::Null => {}
                AvroType::Scalar(scalar) => {
                    scalar_type(scalar).map_err(|reason| format!("in it is the type {scalar}: {reason}"))?;
                }
                AvroType::Array(inner) | AvroType::Map(inner) => left.push(*inner),
                AvroType::Union(branches) => left.extend(branches),
                AvroType::Record(record) => left.extend(record.fields.iter().map(|field| field.avro_type)),
            }
        }
        Ok(PgType::Jsonb)
    }
}

fn missing(record: &AvroRecord, member: &str) -> String {
    let known = record.fields.iter().map(|field| field.name.as_str());
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(known, member));
    let nearest = nearest.filter(|known| strsim::damerau_levenshtein(known, member) <= 3);
    let perhaps = nearest.map(|known| format!(" Perhaps you meant \"{known}\".")).unwrap_or_default();
    format!("Record \"{}\" has no field \"{member}\".{perhaps}", record.names.full)
}

/// # Errors
/// Why no type of PostgreSQL holds the values.
pub(crate) fn scalar_type(scalar: &AvroScalar) -> Result<PgType, String> {
    Ok(match (scalar.logical, &scalar.wire) {
        (Some(Logical::Decimal { precision, scale }), _) if precision <= MAX_PRECISION => {
            PgType::Numeric { precision: precision as u8, scale: scale as i8 }
        }
        (Some(Logical::Decimal { .. }), _) => return Err(format!("numeric has at most {MAX_PRECISION} digits")),
        (Some(Logical::BigDecimal), _) => return Err("its values have no common scale".to_string()),
        (Some(Logical::Timestamp(Unit::Nanos) | Logical::LocalTimestamp(Unit::Nanos)), _) => {
            return Err("timestamps have microseconds, and nothing is rounded".to_string());
        }
        (Some(Logical::Uuid), _) => PgType::Uuid,
        (Some(Logical::Date), _) => PgType::Date,
        (Some(Logical::Time(_)), _) => PgType::Time,
        (Some(Logical::Timestamp(_)), _) => PgType::Timestamptz,
        (Some(Logical::LocalTimestamp(_)), _) => PgType::Timestamp,
        (Some(Logical::Duration), _) => PgType::Interval,
        (None, Wire::Boolean) => PgType::Bool,
        (None, Wire::Int) => PgType::Int4,
        (None, Wire::Long) => PgType::Int8,
        (None, Wire::Float) => PgType::Float4,
        (None, Wire::Double) => PgType::Float8,
        (None, Wire::Bytes | Wire::Fixed(_)) => PgType::Bytea,
        (None, Wire::String | Wire::Enum { .. }) => PgType::Text,
    })
}

/// # Errors
/// 42804 if `declared` does not hold every value of `found`.
pub(crate) fn check_widening(column: &str, found: &PgType, declared: &PgType) -> Result<()> {
    if is_wider(found, declared) {
        return Ok(());
    }
    let message =
        format!("column \"{column}\" is of type {found} in Avro, of which {declared} does not hold all values");
    Err(Error::new(Code::DatatypeMismatch, message)
        .with_hint(format!("Declare it as {found}, and cast it in queries.")))
}

fn is_wider(found: &PgType, declared: &PgType) -> bool {
    let numeric_holds = |digits: u8, scale: i8| match declared {
        PgType::Numeric { precision, scale: declared } => {
            *declared >= scale && i16::from(*precision) - i16::from(*declared) >= i16::from(digits)
        }
        _ => false,
    };
    match (found, declared) {
        _ if found == declared => true,
        (PgType::Int4, PgType::Int8 | PgType::Float8) | (PgType::Float4, PgType::Float8) => true,
        (PgType::Jsonb, PgType::Json) => true,
        (PgType::Int4, _) => numeric_holds(10, 0),
        (PgType::Int8, _) => numeric_holds(19, 0),
        (PgType::Numeric { precision, scale }, _) => {
            numeric_holds((i16::from(*precision) - i16::from(*scale)).max(0) as u8, *scale)
        }
        (PgType::Array(found), PgType::Array(declared)) => is_wider(found, declared),
        _ => false,
    }
}

#[cfg(test)]
#[path = "avro_column_tests.rs"]
mod tests;
