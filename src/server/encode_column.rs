//! Prepares, once for a batch, what writes one column's values: the downcast and the choice of form happen here, not per row.

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{Array, ArrowPrimitiveType, AsArray, GenericListArray, OffsetSizeTrait};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::error::{Error, Result};
use crate::pg_type::PgType;
use crate::server::encode::{Format, ValueSettings, write_sized};
use crate::server::encode_column_time::{dates, intervals, times, timestamps};
use crate::server::encode_text::{write_array_element, write_hex, write_integer};
use crate::server::float::{write_float4, write_float8};
use crate::server::numeric::Digits;

/// Appends the value in a row.
pub(super) type Write<'a> = Box<dyn Fn(usize, &mut BytesMut) -> Result<()> + 'a>;

/// Writes the values of one column of one batch.
pub(super) struct ColumnWriter<'a> {
    nulls: Option<NullBuffer>,
    write: Write<'a>,
}

impl<'a> ColumnWriter<'a> {
    pub(super) fn try_new(
        array: &'a dyn Array,
        pg_type: &'a PgType,
        format: Format,
        settings: ValueSettings,
    ) -> Result<Self> {
        // Logical: those of a dictionary's values and of the type Null count too.
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        Ok(ColumnWriter { nulls, write: value_writer(array, pg_type, format, settings)? })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the value in `row`, which is not NULL.
    pub(super) fn write(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        (self.write)(row, out)
    }
}

fn value_writer<'a>(
    array: &'a dyn Array,
    pg_type: &'a PgType,
    format: Format,
    settings: ValueSettings,
) -> Result<Write<'a>> {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        if dictionary.values().is_empty() {
            return Ok(never_called());
        }
        let keys = dictionary.normalized_keys();
        let write = value_writer(dictionary.values().as_ref(), pg_type, format, settings)?;
        return Ok(Box::new(move |row, out| write(keys[row], out)));
    }
    if array.data_type() == &DataType::Null {
        return Ok(never_called());
    }
    match pg_type {
        PgType::Bool => booleans(array, format),
        PgType::Int2 | PgType::Int4 | PgType::Int8 => integers(array, pg_type, format),
        PgType::Float4 | PgType::Float8 => floats(array, format),
        PgType::Numeric { .. } => numerics(array, format),
        PgType::Oid => oids(array, format),
        PgType::Text | PgType::Json | PgType::Name | PgType::Char => bytes(array, |value, out| {
            out.put_slice(value);
            Ok(())
        }),
        PgType::Jsonb => bytes(array, move |value, out| {
            if format == Format::Binary {
                // The version of jsonb's binary form.
                out.put_u8(1);
            }
            out.put_slice(value);
            Ok(())
        }),
        PgType::Uuid => uuids(array, format),
        PgType::Bytea => bytes(array, move |value, out| {
            match format {
                Format::Text => write_hex(value, out),
                Format::Binary => out.put_slice(value),
            }
            Ok(())
        }),
        PgType::Date => dates(array, format),
        PgType::Time => times(array, format),
        PgType::Timestamp | PgType::Timestamptz => timestamps(array, pg_type, format, settings),
        PgType::Interval => intervals(array, format),
        PgType::Array(element) => lists(array, element, format, settings),
    }
}

/// For columns in which every value is NULL.
fn never_called<'a>() -> Write<'a> {
    Box::new(|row, _| Err(Error::internal(format!("row {row} of a column without values was asked for"))))
}

fn mismatch(array: &dyn Array, expected: &str) -> Error {
    Error::internal(format!("an array of {} cannot be written as {expected}", array.data_type()))
}

pub(super) fn values<T: ArrowPrimitiveType>(array: &dyn Array) -> Result<&[T::Native]> {
    match array.as_primitive_opt::<T>() {
        Some(array) => Ok(array.values()),
        None => Err(mismatch(array, &T::DATA_TYPE.to_string())),
    }
}

fn booleans(array: &dyn Array, format: Format) -> Result<Write<'_>> {
    let array = array.as_boolean_opt().ok_or_else(|| mismatch(array, "boolean"))?;
    Ok(match format {
        Format::Text => Box::new(|row, out| {
            out.put_u8(if array.value(row) { b't' } else { b'f' });
            Ok(())
        }),
        Format::Binary => Box::new(|row, out| {
            out.put_u8(u8::from(array.value(row)));
            Ok(())
        }),
    })
}

fn integers<'a>(array: &'a dyn Array, pg_type: &PgType, format: Format) -> Result<Write<'a>> {
    match array.data_type() {
        DataType::Int8 => integers_of::<Int8Type>(array, pg_type, format),
        DataType::Int16 => integers_of::<Int16Type>(array, pg_type, format),
        DataType::Int32 => integers_of::<Int32Type>(array, pg_type, format),
        DataType::Int64 => integers_of::<Int64Type>(array, pg_type, format),
        DataType::UInt8 => integers_of::<UInt8Type>(array, pg_type, format),
        DataType::UInt16 => integers_of::<UInt16Type>(array, pg_type, format),
        DataType::UInt32 => integers_of::<UInt32Type>(array, pg_type, format),
        _ => Err(mismatch(array, "an integer")),
    }
}

fn integers_of<'a, T>(array: &'a dyn Array, pg_type: &PgType, format: Format) -> Result<Write<'a>>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    let values = values::<T>(array)?;
    if format == Format::Text {
        return Ok(Box::new(|row, out| {
            write_integer(values[row].into(), out);
            Ok(())
        }));
    }
    let bytes = usize::try_from(pg_type.byte_len())
        .ok()
        .filter(|bytes| matches!(bytes, 2 | 4 | 8))
        .ok_or_else(|| mismatch(array, "an integer"))?;
    Ok(Box::new(move |row, out| {
        // The Arrow type is never wider than PostgreSQL's, so the bytes left out hold but the sign.
        out.put_int(values[row].into(), bytes);
        Ok(())
    }))
}

fn oids(array: &dyn Array, format: Format) -> Result<Write<'_>> {
    let values = values::<UInt32Type>(array)?;
    Ok(match format {
        Format::Text => Box::new(|row, out| {
            write_integer(values[row].into(), out);
            Ok(())
        }),
        Format::Binary => Box::new(|row, out| {
            out.put_u32(values[row]);
            Ok(())
        }),
    })
}

fn floats(array: &dyn Array, format: Format) -> Result<Write<'_>> {
    match array.data_type() {
        DataType::Float16 => {
            let values = values::<Float16Type>(array)?;
            float4_writer(move |row| values[row].to_f32(), format)
        }
        DataType::Float32 => {
            let values = values::<Float32Type>(array)?;
            float4_writer(move |row| values[row], format)
        }
        _ => {
            let values = values::<Float64Type>(array)?;
            Ok(match format {
                Format::Text => Box::new(|row, out| write_float8(values[row], out)),
                Format::Binary => Box::new(|row, out| {
                    out.put_f64(values[row]);
                    Ok(())
                }),
            })
        }
    }
}

fn float4_writer<'a>(value: impl Fn(usize) -> f32 + 'a, format: Format) -> Result<Write<'a>> {
    Ok(match format {
        Format::Text => Box::new(move |row, out| write_float4(value(row), out)),
        Format::Binary => Box::new(move |row, out| {
            out.put_f32(value(row));
            Ok(())
        }),
    })
}

fn numerics(array: &dyn Array, format: Format) -> Result<Write<'_>> {
    match array.data_type() {
        DataType::UInt64 => {
            let values = values::<UInt64Type>(array)?;
            numeric_writer(move |row| Ok(Digits::of_i128(values[row].into())), 0, format)
        }
        DataType::Decimal32(_, scale) => {
            let values = values::<Decimal32Type>(array)?;
            numeric_writer(move |row| Ok(Digits::of_i128(values[row].into())), *scale, format)
        }
        DataType::Decimal64(_, scale) => {
            let values = values::<Decimal64Type>(array)?;
            numeric_writer(move |row| Ok(Digits::of_i128(values[row].into())), *scale, format)
        }
        DataType::Decimal128(_, scale) => {
            let values = values::<Decimal128Type>(array)?;
            numeric_writer(move |row| Ok(Digits::of_i128(values[row])), *scale, format)
        }
        DataType::Decimal256(_, scale) => {
            let values = values::<Decimal256Type>(array)?;
            numeric_writer(move |row| Digits::of_i256(values[row]), *scale, format)
        }
        _ => Err(mismatch(array, "numeric")),
    }
}

fn numeric_writer<'a>(digits: impl Fn(usize) -> Result<Digits> + 'a, scale: i8, format: Format) -> Result<Write<'a>> {
    Ok(match format {
        Format::Text => Box::new(move |row, out| {
            digits(row)?.write_text(scale, out);
            Ok(())
        }),
        Format::Binary => Box::new(move |row, out| {
            digits(row)?.write_binary(scale, out);
            Ok(())
        }),
    })
}

fn bytes<'a>(array: &'a dyn Array, write: impl Fn(&[u8], &mut BytesMut) -> Result<()> + 'a) -> Result<Write<'a>> {
    macro_rules! of {
        ($downcast:expr, $bytes:expr) => {{
            let array = $downcast.ok_or_else(|| mismatch(array, "bytes"))?;
            Ok(Box::new(move |row, out| write($bytes(array.value(row)), out)))
        }};
    }
    match array.data_type() {
        DataType::Utf8 => of!(array.as_string_opt::<i32>(), str::as_bytes),
        DataType::LargeUtf8 => of!(array.as_string_opt::<i64>(), str::as_bytes),
        DataType::Utf8View => of!(array.as_string_view_opt(), str::as_bytes),
        DataType::Binary => of!(array.as_binary_opt::<i32>(), std::convert::identity),
        DataType::LargeBinary => of!(array.as_binary_opt::<i64>(), std::convert::identity),
        DataType::BinaryView => of!(array.as_binary_view_opt(), std::convert::identity),
        _ => of!(array.as_fixed_size_binary_opt(), std::convert::identity),
    }
}

fn uuids(array: &dyn Array, format: Format) -> Result<Write<'_>> {
    let is_text = matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    bytes(array, move |value, out| {
        if is_text && format == Format::Text {
            out.put_slice(value);
            return Ok(());
        }
        let uuid = if is_text { uuid::Uuid::try_parse_ascii(value) } else { uuid::Uuid::from_slice(value) };
        let uuid = uuid.map_err(|error| Error::internal(format!("a column of uuid holds something else: {error}")))?;
        match format {
            Format::Text => {
                out.put_slice(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
            }
            Format::Binary => out.put_slice(uuid.as_bytes()),
        }
        Ok(())
    })
}

fn lists<'a>(array: &'a dyn Array, element: &'a PgType, format: Format, settings: ValueSettings) -> Result<Write<'a>> {
    fn offsets<O: OffsetSizeTrait>(array: &GenericListArray<O>, row: usize) -> (usize, usize) {
        let offsets = array.value_offsets();
        (offsets[row].as_usize(), offsets[row + 1].as_usize())
    }
    match array.data_type() {
        DataType::List(_) => {
            let array = array.as_list_opt::<i32>().ok_or_else(|| mismatch(array, "an array"))?;
            let elements = ColumnWriter::try_new(array.values().as_ref(), element, format, settings)?;
            list_writer(elements, element, move |row| offsets(array, row), format)
        }
        DataType::LargeList(_) => {
            let array = array.as_list_opt::<i64>().ok_or_else(|| mismatch(array, "an array"))?;
            let elements = ColumnWriter::try_new(array.values().as_ref(), element, format, settings)?;
            list_writer(elements, element, move |row| offsets(array, row), format)
        }
        _ => {
            let array = array.as_fixed_size_list_opt().ok_or_else(|| mismatch(array, "an array"))?;
            let elements = ColumnWriter::try_new(array.values().as_ref(), element, format, settings)?;
            let size = usize::try_from(array.value_length()).map_err(|_| mismatch(array, "an array"))?;
            // `values` of a sliced array are sliced too.
            list_writer(elements, element, move |row| (row * size, (row + 1) * size), format)
        }
    }
}

fn list_writer<'a>(
    elements: ColumnWriter<'a>,
    element: &PgType,
    range: impl Fn(usize) -> (usize, usize) + 'a,
    format: Format,
) -> Result<Write<'a>> {
    let oid = element.oid();
    Ok(match format {
        Format::Text => Box::new(move |row, out| {
            let (start, end) = range(row);
            out.put_u8(b'{');
            for position in start..end {
                if position > start {
                    out.put_u8(b',');
                }
                if elements.is_null(position) {
                    out.put_slice(b"NULL");
                } else {
                    write_array_element(out, |out| elements.write(position, out))?;
                }
            }
            out.put_u8(b'}');
            Ok(())
        }),
        Format::Binary => Box::new(move |row, out| {
            let (start, end) = range(row);
            let length = i32::try_from(end - start).map_err(|_| Error::internal("an array of too many elements"))?;
            let has_nulls = (start..end).any(|position| elements.is_null(position));
            out.put_i32(i32::from(length > 0));
            out.put_i32(i32::from(has_nulls));
            out.put_u32(oid);
            if length > 0 {
                out.put_i32(length);
                // The lower bound.
                out.put_i32(1);
            }
            for position in start..end {
                if elements.is_null(position) {
                    out.put_i32(-1);
                } else {
                    write_sized(out, |out| elements.write(position, out))?;
                }
            }
            Ok(())
        }),
    })
}
