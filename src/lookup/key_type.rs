//! Which types a lookup's key may have: PostgreSQL's rules of `=`.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, ExprSchemable};

use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;

/// Types that `=` compares with each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    Boolean,
    Number,
    Text,
    Bytes,
    Instant,
    Time,
    Interval,
    Uuid,
    Json,
    Array,
}

/// Refuses `one = other` where PostgreSQL has no such operator. Literals and parameters without a type fit everything.
///
/// # Errors
/// 42804, naming both sides and their types.
pub fn check_comparable(one: &Expr, other: &Expr, schema: &DFSchema) -> Result<()> {
    if is_untyped(one) || is_untyped(other) {
        return Ok(());
    }
    let (_, one_field) = one.to_field(schema)?;
    let (_, other_field) = other.to_field(schema)?;
    let (one_type, other_type) = (PgType::of_field(&one_field)?, PgType::of_field(&other_field)?);
    if family(&one_type) == family(&other_type) {
        return Ok(());
    }
    Err(types_differ(&shown(one), &one_type.to_string(), &shown(other), &other_type.to_string()))
}

fn shown(expr: &Expr) -> String {
    match expr {
        Expr::Literal(value, _) => value.to_string(),
        other => other.to_string(),
    }
}

/// The same error for types that only coercion has brought together.
pub fn mismatch(stream_side: &Expr, stream_type: &DataType, column: &Column, column_type: &DataType) -> Error {
    let name = |data_type: &DataType| {
        PgType::of_field(&Field::new("", data_type.clone(), true))
            .map_or_else(|_| data_type.to_string(), |t| t.to_string())
    };
    types_differ(&stream_side.to_string(), &name(stream_type), &column.to_string(), &name(column_type))
}

fn types_differ(one: &str, one_type: &str, other: &str, other_type: &str) -> Error {
    Error::new(
        Code::DatatypeMismatch,
        format!("lookup key cannot compare {one} of type {one_type} with {other} of type {other_type}"),
    )
    .with_hint(format!("Cast the stream's side to the type of the table's column, as in CAST({one} AS {other_type})."))
}

/// Whether every value of `from` is a value of `to`, and equal values stay equal.
pub fn widens_without_loss(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    if from == to {
        return true;
    }
    let digits = |data_type: &DataType| match data_type {
        Int8 | UInt8 => Some((3, 0)),
        Int16 | UInt16 => Some((5, 0)),
        Int32 | UInt32 => Some((10, 0)),
        Int64 => Some((19, 0)),
        UInt64 => Some((20, 0)),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => Some((i16::from(*p), i16::from(*s))),
        _ => None,
    };
    match (from, to) {
        (Int8 | Int16 | Int32, Int16 | Int32 | Int64) => from.primitive_width() <= to.primitive_width(),
        (Int8 | Int16 | Int32 | Float32, Float64) | (Int8 | Int16, Float32) => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => true,
        (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => true,
        (Date32, Timestamp(..))
        | (Timestamp(_, None), Timestamp(_, Some(_)))
        | (Timestamp(_, Some(_)), Timestamp(_, None)) => true,
        (Timestamp(one, _), Timestamp(other, _)) => one <= other,
        _ => match (digits(from), digits(to)) {
            (Some((from_digits, from_scale)), Some((to_digits, to_scale))) => {
                matches!(to, Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..))
                    && to_scale >= from_scale
                    && to_digits - to_scale >= from_digits - from_scale
            }
            _ => false,
        },
    }
}

/// Whether TRY_CAST gives an equal value or NULL, never a rounded one.
pub fn casts_exactly(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let is_integer = |data_type: &DataType| data_type.is_integer();
    let is_text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    let scale = |data_type: &DataType| match data_type {
        Decimal32(_, s) | Decimal64(_, s) | Decimal128(_, s) | Decimal256(_, s) => Some(*s),
        _ => None,
    };
    match (from, to) {
        (Null, _) => true,
        (from, to) if is_integer(from) && is_integer(to) => true,
        (from, to) if is_text(from) && is_text(to) => true,
        (from, to) if is_integer(from) && scale(to).is_some() => true,
        (from, to) => match (scale(from), scale(to)) {
            (Some(from), Some(to)) => from <= to,
            _ => widens_without_loss(from, to),
        },
    }
}

fn is_untyped(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => {
            matches!(value.data_type(), DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null)
        }
        Expr::Placeholder(placeholder) => placeholder.field.is_none(),
        _ => false,
    }
}

fn family(pg_type: &PgType) -> Family {
    match pg_type {
        PgType::Bool => Family::Boolean,
        PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Float4 | PgType::Float8 | PgType::Numeric { .. } => {
            Family::Number
        }
        PgType::Oid => Family::Number,
        PgType::Text | PgType::Name | PgType::Char => Family::Text,
        PgType::Bytea => Family::Bytes,
        PgType::Date | PgType::Timestamp | PgType::Timestamptz => Family::Instant,
        PgType::Time => Family::Time,
        PgType::Interval => Family::Interval,
        PgType::Uuid => Family::Uuid,
        PgType::Json | PgType::Jsonb => Family::Json,
        PgType::Array(_) => Family::Array,
    }
}
