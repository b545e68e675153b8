//! A value's text, in PostgreSQL's input syntax, as an entry of an Arrow array.
//!
//! [`parse`] reads one value without touching any array, so that a row is appended whole or not at all;
//! [`ColumnBuilder`] collects values into an array of exactly [`PgType::arrow`].

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray,
    NullBufferBuilder, StringViewBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt32Builder,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{FieldRef, IntervalMonthDayNano, i256};

use crate::error::{Code, Error};
use crate::format::{datetime, interval, literal, number};
use crate::pg_type::PgType;

/// The most characters of a value that an error quotes.
const QUOTED_CHARACTERS: usize = 100;

/// Why a value cannot be read, as PostgreSQL words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    pub code: Code,
    pub message: String,
}

impl ValueError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        ValueError { code, message: message.into() }
    }

    /// 22P02: `invalid input syntax for type bigint: "abc"`.
    pub(crate) fn syntax(type_name: &str, text: &str) -> Self {
        Self::new(
            Code::InvalidTextRepresentation,
            format!("invalid input syntax for type {type_name}: \"{}\"", excerpt(text)),
        )
    }
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        Error::new(error.code, error.message)
    }
}

/// The first 100 characters of `text`, with `...` where more follow.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED_CHARACTERS) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A value that has been read and belongs to no array yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Float4(f32),
    Float8(f64),
    Decimal128(i128),
    Decimal256(i256),
    /// Of text, uuid, json and jsonb.
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01 00:00, in UTC where there is a zone.
    Timestamp(i64),
    Interval(IntervalMonthDayNano),
    Oid(u32),
    List(Vec<Option<Value<'a>>>),
}

impl Value<'_> {
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::List(values) => Value::List(values.into_iter().map(|value| value.map(Value::into_owned)).collect()),
            Value::Bool(v) => Value::Bool(v),
            Value::Int2(v) => Value::Int2(v),
            Value::Int4(v) => Value::Int4(v),
            Value::Int8(v) => Value::Int8(v),
            Value::Float4(v) => Value::Float4(v),
            Value::Float8(v) => Value::Float8(v),
            Value::Decimal128(v) => Value::Decimal128(v),
            Value::Decimal256(v) => Value::Decimal256(v),
            Value::Bytes(v) => Value::Bytes(v),
            Value::Date(v) => Value::Date(v),
            Value::Time(v) => Value::Time(v),
            Value::Timestamp(v) => Value::Timestamp(v),
            Value::Interval(v) => Value::Interval(v),
            Value::Oid(v) => Value::Oid(v),
        }
    }
}

/// Reads `text` as PostgreSQL reads the input of `pg_type`.
///
/// # Errors
/// 22P02 for what is not of the type, 22003 and 22008 for what is out of its range, 0A000 for arrays of more than one
/// dimension.
pub(crate) fn parse<'a>(pg_type: &PgType, text: &'a str) -> Result<Value<'a>, ValueError> {
    Ok(match pg_type {
        PgType::Bool => Value::Bool(literal::boolean(text)?),
        PgType::Int2 => Value::Int2(number::integer("smallint", text)?),
        PgType::Int4 => Value::Int4(number::integer("integer", text)?),
        PgType::Int8 => Value::Int8(number::integer("bigint", text)?),
        PgType::Float4 => Value::Float4(number::real(text)?),
        PgType::Float8 => Value::Float8(number::double_precision(text)?),
        PgType::Numeric { precision, scale } if *precision <= 38 => {
            Value::Decimal128(number::decimal128(text, *precision, *scale)?)
        }
        PgType::Numeric { precision, scale } => Value::Decimal256(number::decimal256(text, *precision, *scale)?),
        PgType::Text => Value::Text(Cow::Borrowed(literal::text(text)?)),
        PgType::Bytea => Value::Bytes(literal::bytea(text)?),
        PgType::Date => Value::Date(datetime::date(text)?),
        PgType::Time => Value::Time(datetime::time(text)?),
        PgType::Timestamp => Value::Timestamp(datetime::timestamp(text)?),
        PgType::Timestamptz => Value::Timestamp(datetime::timestamptz(text)?),
        PgType::Uuid => Value::Text(Cow::Owned(literal::uuid(text)?)),
        PgType::Json | PgType::Jsonb => Value::Text(Cow::Borrowed(literal::json(text)?)),
        PgType::Interval => Value::Interval(interval::interval(text)?),
        PgType::Name => Value::Text(Cow::Borrowed(literal::name(text)?)),
        PgType::Char => Value::Text(Cow::Borrowed(literal::single_byte(text)?)),
        PgType::Oid => Value::Oid(number::oid(text)?),
        PgType::Array(element) => Value::List(
            literal::array(text)?
                .iter()
                .map(|item| item.as_deref().map(|item| parse(element, item).map(Value::into_owned)).transpose())
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// Collects values of one type into an array.
pub struct ColumnBuilder {
    pg_type: PgType,
    column: Column,
}

enum Column {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal128(Decimal128Builder),
    Decimal256(Decimal256Builder),
    Text(StringViewBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    Oid(UInt32Builder),
    List(ListColumn),
}

struct ListColumn {
    field: FieldRef,
    /// Where each list ends among the elements.
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
    element: Box<ColumnBuilder>,
}

impl ColumnBuilder {
    pub fn new(pg_type: &PgType) -> Self {
        let data_type = pg_type.arrow();
        let column = match pg_type {
            PgType::Bool => Column::Bool(BooleanBuilder::new()),
            PgType::Int2 => Column::Int2(Int16Builder::new()),
            PgType::Int4 => Column::Int4(Int32Builder::new()),
            PgType::Int8 => Column::Int8(Int64Builder::new()),
            PgType::Float4 => Column::Float4(Float32Builder::new()),
            PgType::Float8 => Column::Float8(Float64Builder::new()),
            PgType::Numeric { precision, .. } if *precision <= 38 => {
                Column::Decimal128(Decimal128Builder::new().with_data_type(data_type))
            }
            PgType::Numeric { .. } => Column::Decimal256(Decimal256Builder::new().with_data_type(data_type)),
            PgType::Text | PgType::Uuid | PgType::Json | PgType::Jsonb | PgType::Name | PgType::Char => {
                Column::Text(StringViewBuilder::new())
            }
            PgType::Oid => Column::Oid(UInt32Builder::new()),
            PgType::Bytea => Column::Bytes(BinaryBuilder::new()),
            PgType::Date => Column::Date(Date32Builder::new()),
            PgType::Time => Column::Time(Time64MicrosecondBuilder::new()),
            PgType::Timestamp | PgType::Timestamptz => {
                Column::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(data_type))
            }
            PgType::Interval => Column::Interval(IntervalMonthDayNanoBuilder::new()),
            PgType::Array(element) => Column::List(ListColumn {
                field: Arc::new(element.field("item", true)),
                ends: Vec::new(),
                nulls: NullBufferBuilder::new(0),
                element: Box::new(ColumnBuilder::new(element)),
            }),
        };
        ColumnBuilder { pg_type: pg_type.clone(), column }
    }

    /// Appends the value that `text` says in PostgreSQL's input syntax.
    ///
    /// # Errors
    /// 22P02, 22003, 22008 or 0A000; nothing has been appended then.
    pub fn append(&mut self, text: &str) -> Result<(), ValueError> {
        let value = parse(&self.pg_type, text)?;
        self.push(Some(value))
    }

    pub fn append_null(&mut self) {
        match &mut self.column {
            Column::Bool(builder) => builder.append_null(),
            Column::Int2(builder) => builder.append_null(),
            Column::Int4(builder) => builder.append_null(),
            Column::Int8(builder) => builder.append_null(),
            Column::Float4(builder) => builder.append_null(),
            Column::Float8(builder) => builder.append_null(),
            Column::Decimal128(builder) => builder.append_null(),
            Column::Decimal256(builder) => builder.append_null(),
            Column::Text(builder) => builder.append_null(),
            Column::Bytes(builder) => builder.append_null(),
            Column::Date(builder) => builder.append_null(),
            Column::Time(builder) => builder.append_null(),
            Column::Timestamp(builder) => builder.append_null(),
            Column::Interval(builder) => builder.append_null(),
            Column::Oid(builder) => builder.append_null(),
            Column::List(list) => {
                list.ends.push(list.element.len() as i32);
                list.nulls.append_null();
            }
        }
    }

    /// Appends what [`parse`] gave for this column's type.
    ///
    /// # Errors
    /// XX000 for a value of another type; 54000 for more elements of arrays than one batch can hold.
    pub(crate) fn push(&mut self, value: Option<Value<'_>>) -> Result<(), ValueError> {
        let Some(value) = value else {
            self.append_null();
            return Ok(());
        };
        match (&mut self.column, value) {
            (Column::Bool(builder), Value::Bool(value)) => builder.append_value(value),
            (Column::Int2(builder), Value::Int2(value)) => builder.append_value(value),
            (Column::Int4(builder), Value::Int4(value)) => builder.append_value(value),
            (Column::Int8(builder), Value::Int8(value)) => builder.append_value(value),
            (Column::Float4(builder), Value::Float4(value)) => builder.append_value(value),
            (Column::Float8(builder), Value::Float8(value)) => builder.append_value(value),
            (Column::Decimal128(builder), Value::Decimal128(value)) => builder.append_value(value),
            (Column::Decimal256(builder), Value::Decimal256(value)) => builder.append_value(value),
            (Column::Text(builder), Value::Text(value)) => builder.append_value(value),
            (Column::Bytes(builder), Value::Bytes(value)) => builder.append_value(value),
            (Column::Date(builder), Value::Date(value)) => builder.append_value(value),
            (Column::Time(builder), Value::Time(value)) => builder.append_value(value),
            (Column::Timestamp(builder), Value::Timestamp(value)) => builder.append_value(value),
            (Column::Interval(builder), Value::Interval(value)) => builder.append_value(value),
            (Column::Oid(builder), Value::Oid(value)) => builder.append_value(value),
            (Column::List(list), Value::List(values)) => return list.push(values),
            (_, value) => {
                return Err(ValueError::new(
                    Code::Internal,
                    format!("value {value:?} does not belong in a column of type {}", self.pg_type),
                ));
            }
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        match &self.column {
            Column::Bool(builder) => builder.len(),
            Column::Int2(builder) => builder.len(),
            Column::Int4(builder) => builder.len(),
            Column::Int8(builder) => builder.len(),
            Column::Float4(builder) => builder.len(),
            Column::Float8(builder) => builder.len(),
            Column::Decimal128(builder) => builder.len(),
            Column::Decimal256(builder) => builder.len(),
            Column::Text(builder) => builder.len(),
            Column::Bytes(builder) => builder.len(),
            Column::Date(builder) => builder.len(),
            Column::Time(builder) => builder.len(),
            Column::Timestamp(builder) => builder.len(),
            Column::Interval(builder) => builder.len(),
            Column::Oid(builder) => builder.len(),
            Column::List(list) => list.ends.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The array of what was appended; the builder is empty afterwards and can be used again.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.column {
            Column::Bool(builder) => Arc::new(builder.finish()),
            Column::Int2(builder) => Arc::new(builder.finish()),
            Column::Int4(builder) => Arc::new(builder.finish()),
            Column::Int8(builder) => Arc::new(builder.finish()),
            Column::Float4(builder) => Arc::new(builder.finish()),
            Column::Float8(builder) => Arc::new(builder.finish()),
            Column::Decimal128(builder) => Arc::new(builder.finish()),
            Column::Decimal256(builder) => Arc::new(builder.finish()),
            Column::Text(builder) => Arc::new(builder.finish()),
            Column::Bytes(builder) => Arc::new(builder.finish()),
            Column::Date(builder) => Arc::new(builder.finish()),
            Column::Time(builder) => Arc::new(builder.finish()),
            Column::Timestamp(builder) => Arc::new(builder.finish()),
            Column::Interval(builder) => Arc::new(builder.finish()),
            Column::Oid(builder) => Arc::new(builder.finish()),
            Column::List(list) => list.finish(),
        }
    }
}

impl ListColumn {
    fn push(&mut self, values: Vec<Option<Value<'_>>>) -> Result<(), ValueError> {
        let end = i32::try_from(self.element.len() + values.len()).map_err(|_| {
            ValueError::new(Code::ProgramLimitExceeded, "arrays of one batch have more than 2147483647 elements")
        })?;
        for value in values {
            self.element.push(value)?;
        }
        self.ends.push(end);
        self.nulls.append_non_null();
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        let offsets: ScalarBuffer<i32> = std::iter::once(0).chain(self.ends.drain(..)).collect();
        let elements = self.element.finish();
        Arc::new(ListArray::new(self.field.clone(), OffsetBuffer::new(offsets), elements, self.nulls.finish()))
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
