//! Prepares, once for a batch, what writes one column's values: the downcast and the choice of form happen here, not per row.

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{Array, ArrowPrimitiveType, AsArray, GenericListArray, OffsetSizeTrait};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType,
    IntervalUnit, IntervalYearMonthType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::error::{Error, Result};
use crate::pg_type::PgType;
use crate::server::encode::{Format, ValueSettings, write_sized};
use crate::server::encode_text::{write_array_element, write_float4, write_float8, write_hex, write_integer};
use crate::server::encode_time::{
    Interval, date_since_2000, micros_since_2000, out_of_range, to_micros, write_date, write_interval, write_time,
    write_timestamp, write_timestamptz,
};
use crate::server::numeric::Digits;

type Write<'a> = Box<dyn Fn(usize, &mut BytesMut) -> Result<()> + 'a>;

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
        PgType::Text | PgType::Json => bytes(array, |value, out| {
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

fn values<T: ArrowPrimitiveType>(array: &dyn Array) -> Result<&[T::Native]> {
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

fn dates(array: &dyn Array, format: Format) -> Result<Write<'_>> {
    const MILLISECONDS_PER_DAY: i64 = 86_400_000;
    if array.data_type() == &DataType::Date64 {
        let values = values::<Date64Type>(array)?;
        return date_writer(move |row| values[row].div_euclid(MILLISECONDS_PER_DAY), format);
    }
    let values = values::<Date32Type>(array)?;
    date_writer(move |row| values[row].into(), format)
}

fn date_writer<'a>(days: impl Fn(usize) -> i64 + 'a, format: Format) -> Result<Write<'a>> {
    Ok(match format {
        Format::Text => Box::new(move |row, out| {
            write_date(days(row), out);
            Ok(())
        }),
        Format::Binary => Box::new(move |row, out| {
            out.put_i32(date_since_2000(days(row))?);
            Ok(())
        }),
    })
}

fn times(array: &dyn Array, format: Format) -> Result<Write<'_>> {
    match array.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            let values = values::<Time32SecondType>(array)?;
            time_writer(move |row| i64::from(values[row]) * 1_000_000, format)
        }
        DataType::Time32(_) => {
            let values = values::<Time32MillisecondType>(array)?;
            time_writer(move |row| i64::from(values[row]) * 1000, format)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let values = values::<Time64MicrosecondType>(array)?;
            time_writer(move |row| values[row], format)
        }
        _ => {
            let values = values::<Time64NanosecondType>(array)?;
            time_writer(move |row| values[row].div_euclid(1000), format)
        }
    }
}

fn time_writer<'a>(micros: impl Fn(usize) -> i64 + 'a, format: Format) -> Result<Write<'a>> {
    Ok(match format {
        Format::Text => Box::new(move |row, out| {
            write_time(micros(row), out);
            Ok(())
        }),
        Format::Binary => Box::new(move |row, out| {
            out.put_i64(micros(row));
            Ok(())
        }),
    })
}

fn timestamps<'a>(
    array: &'a dyn Array,
    pg_type: &PgType,
    format: Format,
    settings: ValueSettings,
) -> Result<Write<'a>> {
    let (unit, values) = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => (TimeUnit::Second, values::<TimestampSecondType>(array)?),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            (TimeUnit::Millisecond, values::<TimestampMillisecondType>(array)?)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            (TimeUnit::Nanosecond, values::<TimestampNanosecondType>(array)?)
        }
        _ => (TimeUnit::Microsecond, values::<TimestampMicrosecondType>(array)?),
    };
    let micros = move |row: usize| to_micros(unit, values[row]).ok_or_else(|| out_of_range("timestamp"));
    if format == Format::Binary {
        return Ok(Box::new(move |row, out| {
            out.put_i64(micros_since_2000(micros(row)?)?);
            Ok(())
        }));
    }
    if *pg_type == PgType::Timestamptz {
        return Ok(Box::new(move |row, out| write_timestamptz(micros(row)?, settings.time_zone, out)));
    }
    Ok(Box::new(move |row, out| {
        write_timestamp(micros(row)?, out);
        Ok(())
    }))
}

fn intervals(array: &dyn Array, format: Format) -> Result<Write<'_>> {
    let duration = |unit: TimeUnit, values: &'_ [i64], row: usize| match to_micros(unit, values[row]) {
        Some(micros) => Ok(Interval { months: 0, days: 0, micros }),
        None => Err(out_of_range("interval")),
    };
    match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            let values = values::<IntervalYearMonthType>(array)?;
            interval_writer(move |row| Ok(Interval { months: values[row], days: 0, micros: 0 }), format)
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let values = values::<IntervalDayTimeType>(array)?;
            interval_writer(
                move |row| {
                    let micros = i64::from(values[row].milliseconds) * 1000;
                    Ok(Interval { months: 0, days: values[row].days, micros })
                },
                format,
            )
        }
        DataType::Duration(TimeUnit::Second) => {
            let values = values::<DurationSecondType>(array)?;
            interval_writer(move |row| duration(TimeUnit::Second, values, row), format)
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            let values = values::<DurationMillisecondType>(array)?;
            interval_writer(move |row| duration(TimeUnit::Millisecond, values, row), format)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            let values = values::<DurationMicrosecondType>(array)?;
            interval_writer(move |row| duration(TimeUnit::Microsecond, values, row), format)
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            let values = values::<DurationNanosecondType>(array)?;
            interval_writer(move |row| duration(TimeUnit::Nanosecond, values, row), format)
        }
        _ => {
            let values = values::<IntervalMonthDayNanoType>(array)?;
            interval_writer(
                move |row| {
                    let value = values[row];
                    Ok(Interval { months: value.months, days: value.days, micros: value.nanoseconds / 1000 })
                },
                format,
            )
        }
    }
}

fn interval_writer<'a>(interval: impl Fn(usize) -> Result<Interval> + 'a, format: Format) -> Result<Write<'a>> {
    Ok(match format {
        Format::Text => Box::new(move |row, out| {
            write_interval(interval(row)?, out);
            Ok(())
        }),
        Format::Binary => Box::new(move |row, out| {
            let Interval { months, days, micros } = interval(row)?;
            out.put_i64(micros);
            out.put_i32(days);
            out.put_i32(months);
            Ok(())
        }),
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
