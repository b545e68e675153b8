//! Writers of columns of dates, times and intervals, from every unit that Arrow has.

use bytes::BufMut;
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Date64Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use crate::error::Result;
use crate::format::settings::{DateForm, DateStyle, IntervalStyle};
use crate::pg_type::PgType;
use crate::server::encode::{Format, ValueSettings};
use crate::server::encode_column::{Write, values};
use crate::server::encode_style::{write_styled_date, write_styled_interval, write_styled_timestamp};
use crate::server::encode_time::{
    Interval, date_since_2000, micros_since_2000, out_of_range, to_micros, utc_offset, write_date, write_time,
    write_timestamp, write_timestamptz,
};

pub(super) fn dates(array: &dyn Array, format: Format, style: DateStyle) -> Result<Write<'_>> {
    const MILLISECONDS_PER_DAY: i64 = 86_400_000;
    if array.data_type() == &DataType::Date64 {
        let values = values::<Date64Type>(array)?;
        return date_writer(move |row| values[row].div_euclid(MILLISECONDS_PER_DAY), format, style);
    }
    let values = values::<Date32Type>(array)?;
    date_writer(move |row| values[row].into(), format, style)
}

fn date_writer<'a>(days: impl Fn(usize) -> i64 + 'a, format: Format, style: DateStyle) -> Result<Write<'a>> {
    Ok(match format {
        Format::Text if style.form != DateForm::Iso => Box::new(move |row, out| {
            write_styled_date(days(row), style, out);
            Ok(())
        }),
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

pub(super) fn times(array: &dyn Array, format: Format) -> Result<Write<'_>> {
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

pub(super) fn timestamps<'a>(
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
    let style = settings.date_style;
    if style.form != DateForm::Iso {
        let zone = (*pg_type == PgType::Timestamptz).then_some(settings.time_zone);
        return Ok(Box::new(move |row, out| {
            let utc = micros(row)?;
            let zone = zone.map(|zone| (zone, utc_offset(utc, zone)));
            let local = utc.checked_add(zone.map_or(0, |(_, offset)| offset * 1_000_000));
            write_styled_timestamp(local.ok_or_else(|| out_of_range("timestamp"))?, zone, style, out);
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

pub(super) fn intervals(array: &dyn Array, format: Format, style: IntervalStyle) -> Result<Write<'_>> {
    let duration = |unit: TimeUnit, values: &'_ [i64], row: usize| match to_micros(unit, values[row]) {
        Some(micros) => Ok(Interval { months: 0, days: 0, micros }),
        None => Err(out_of_range("interval")),
    };
    match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            let values = values::<IntervalYearMonthType>(array)?;
            interval_writer(move |row| Ok(Interval { months: values[row], days: 0, micros: 0 }), format, style)
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let values = values::<IntervalDayTimeType>(array)?;
            interval_writer(
                move |row| {
                    let micros = i64::from(values[row].milliseconds) * 1000;
                    Ok(Interval { months: 0, days: values[row].days, micros })
                },
                format,
                style,
            )
        }
        DataType::Duration(TimeUnit::Second) => {
            let values = values::<DurationSecondType>(array)?;
            interval_writer(move |row| duration(TimeUnit::Second, values, row), format, style)
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            let values = values::<DurationMillisecondType>(array)?;
            interval_writer(move |row| duration(TimeUnit::Millisecond, values, row), format, style)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            let values = values::<DurationMicrosecondType>(array)?;
            interval_writer(move |row| duration(TimeUnit::Microsecond, values, row), format, style)
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            let values = values::<DurationNanosecondType>(array)?;
            interval_writer(move |row| duration(TimeUnit::Nanosecond, values, row), format, style)
        }
        _ => {
            let values = values::<IntervalMonthDayNanoType>(array)?;
            interval_writer(
                move |row| {
                    let value = values[row];
                    Ok(Interval { months: value.months, days: value.days, micros: value.nanoseconds / 1000 })
                },
                format,
                style,
            )
        }
    }
}

fn interval_writer<'a>(
    interval: impl Fn(usize) -> Result<Interval> + 'a,
    format: Format,
    style: IntervalStyle,
) -> Result<Write<'a>> {
    Ok(match format {
        Format::Text => Box::new(move |row, out| {
            write_styled_interval(interval(row)?, style, out);
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
