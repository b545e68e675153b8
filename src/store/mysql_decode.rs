//! Results of MariaDB and MySQL, in the binary protocol, into Arrow arrays: never rounded, and what PostgreSQL's types
//! cannot hold is an error that names the column.

use std::borrow::Cow;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use mysql_async::Value as Stored;

use super::size::{bytea_bytes, text_bytes};
use crate::error::{Code, Error, Result};
use crate::format::settings::ValueSettings;
use crate::format::text::{ColumnBuilder, Value, ValueError, parse};
use crate::pg_type::PgType;

/// The values of a row, taken out of it.
pub(super) type Cells = Vec<Option<Stored>>;

/// Collects one column of an answer.
pub(super) struct ColumnDecoder {
    /// For errors.
    name: String,
    pg_type: PgType,
    nullable: bool,
    settings: ValueSettings,
    builder: ColumnBuilder,
}

impl ColumnDecoder {
    pub(super) fn new(name: &str, pg_type: &PgType, nullable: bool) -> Self {
        ColumnDecoder {
            name: name.to_string(),
            pg_type: pg_type.clone(),
            nullable,
            settings: ValueSettings::default(),
            builder: ColumnBuilder::new(pg_type),
        }
    }

    /// Takes what stands at `position` in each row; returns the bytes that the values take in an array.
    ///
    /// # Errors
    /// 22003, 22008, 22021 or 22P02 for a value that the type cannot hold, 23502 for a NULL that was not announced.
    pub(super) fn append(&mut self, rows: &[Cells], position: usize) -> Result<u64> {
        let mut size = 0;
        for row in rows {
            let value = match row.get(position).and_then(Option::as_ref) {
                None => return Err(Error::internal(format!("the store's answer lacks column {position}"))),
                Some(Stored::NULL) => None,
                Some(stored) => Some(self.decode(stored).map_err(|cause| self.of_column(cause))?),
            };
            if value.is_none() && !self.nullable {
                return Err(Error::new(
                    Code::NotNullViolation,
                    format!("column \"{}\" holds a null value, but was declared not null when it was read", self.name),
                )
                .with_hint("The table was altered: restart the server to read its columns again."));
            }
            size += match &value {
                Some(Value::Text(text)) => text_bytes(text.len()),
                Some(Value::Bytes(bytes)) => bytea_bytes(bytes.len()),
                _ if self.pg_type == PgType::Bytea => bytea_bytes(0),
                _ => text_bytes(0),
            };
            self.builder.push(value)?;
        }
        Ok(match self.pg_type.arrow() {
            DataType::Boolean => (rows.len() as u64).div_ceil(8),
            other => other.primitive_width().map_or(size, |width| (rows.len() * width) as u64),
        })
    }

    pub(super) fn finish(mut self) -> ArrayRef {
        self.builder.finish()
    }

    fn of_column(&self, cause: ValueError) -> Error {
        Error::new(cause.code, format!("column \"{}\" holds {}", self.name, cause.message))
    }

    fn decode<'a>(&self, stored: &'a Stored) -> Result<Value<'a>, ValueError> {
        match &self.pg_type {
            PgType::Bool => self.boolean(stored),
            PgType::Int2 => integer(stored, "smallint").map(Value::Int2),
            PgType::Int4 => integer(stored, "integer").map(Value::Int4),
            PgType::Int8 => integer(stored, "bigint").map(Value::Int8),
            PgType::Numeric { scale, .. } => self.numeric(stored, *scale),
            PgType::Float4 => match stored {
                Stored::Float(value) => Ok(Value::Float4(*value)),
                stored => self.text(stored),
            },
            PgType::Float8 => match stored {
                Stored::Double(value) => Ok(Value::Float8(*value)),
                Stored::Float(value) => Ok(Value::Float8(f64::from(*value))),
                stored => self.text(stored),
            },
            PgType::Bytea => match stored {
                Stored::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
                _ => Err(unexpected(stored)),
            },
            PgType::Date => match stored {
                Stored::Date(year, month, day, 0, 0, 0, 0) => Ok(Value::Date(days(*year, *month, *day)?)),
                stored => self.text(stored),
            },
            PgType::Time => match stored {
                Stored::Time(negative, days, hours, minutes, seconds, micros) => {
                    time(*negative, *days, (*hours, *minutes, *seconds, *micros)).map(Value::Time)
                }
                stored => self.text(stored),
            },
            PgType::Timestamp | PgType::Timestamptz => match stored {
                Stored::Date(year, month, day, hour, minute, second, micro) => {
                    let days = days(*year, *month, *day)?;
                    moment(days, (*hour, *minute, *second, *micro)).map(Value::Timestamp)
                }
                stored => self.text(stored),
            },
            PgType::Text | PgType::Json | PgType::Jsonb => match stored {
                Stored::Bytes(bytes) => Ok(Value::Text(Cow::Borrowed(without_zero(utf8(bytes)?)?))),
                _ => Err(unexpected(stored)),
            },
            PgType::Uuid | PgType::Interval | PgType::Name | PgType::Char | PgType::Oid | PgType::Array(_) => {
                self.text(stored)
            }
        }
    }

    fn boolean<'a>(&self, stored: &'a Stored) -> Result<Value<'a>, ValueError> {
        match stored {
            Stored::Int(0) | Stored::UInt(0) => Ok(Value::Bool(false)),
            Stored::Int(1) | Stored::UInt(1) => Ok(Value::Bool(true)),
            Stored::Int(value) => Err(no_boolean(value)),
            Stored::UInt(value) => Err(no_boolean(value)),
            // A bit.
            Stored::Bytes(bytes) if matches!(bytes.as_slice(), [0 | 1]) => Ok(Value::Bool(bytes == &[1])),
            stored => self.text(stored),
        }
    }

    fn numeric<'a>(&self, stored: &'a Stored, scale: i8) -> Result<Value<'a>, ValueError> {
        match stored {
            Stored::Int(value) => parse(&self.pg_type, &value.to_string(), &self.settings).map(Value::into_owned),
            Stored::UInt(value) => parse(&self.pg_type, &value.to_string(), &self.settings).map(Value::into_owned),
            Stored::Bytes(bytes) => {
                let text = utf8(bytes)?;
                let behind = text.split_once('.').map_or("", |(_, behind)| behind.trim_end_matches('0'));
                // PostgreSQL's input would round.
                if i64::try_from(behind.len()).is_ok_and(|digits| digits > i64::from(scale)) {
                    let message =
                        format!("a value with more digits behind the point, which {} cannot hold", self.pg_type);
                    return Err(ValueError { code: Code::NumericOutOfRange, message });
                }
                self.text(stored)
            }
            _ => Err(unexpected(stored)),
        }
    }

    /// What was asked for as text, in PostgreSQL's input syntax.
    fn text<'a>(&self, stored: &'a Stored) -> Result<Value<'a>, ValueError> {
        match stored {
            Stored::Bytes(bytes) => parse(&self.pg_type, utf8(bytes)?, &self.settings)
                .map_err(|cause| ValueError { message: format!("a wrong value: {}", cause.message), ..cause }),
            _ => Err(unexpected(stored)),
        }
    }
}

fn integer<T: TryFrom<i64> + TryFrom<u64>>(stored: &Stored, type_name: &str) -> Result<T, ValueError> {
    let converted = match stored {
        Stored::Int(value) => T::try_from(*value).ok(),
        Stored::UInt(value) => T::try_from(*value).ok(),
        Stored::Bytes(bytes) => {
            match std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse::<i64>().ok()) {
                Some(value) => T::try_from(value).ok(),
                None => {
                    let message = format!("a value that is no {type_name}");
                    return Err(ValueError { code: Code::InvalidTextRepresentation, message });
                }
            }
        }
        _ => return Err(unexpected(stored)),
    };
    converted.ok_or_else(|| ValueError {
        code: Code::NumericOutOfRange,
        message: format!("a value that is out of range for type {type_name}"),
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(bytes).map_err(|_| ValueError {
        code: Code::CharacterNotInRepertoire,
        message: "text that is not valid UTF-8".to_string(),
    })
}

/// PostgreSQL's text holds any character but this one, and so do its clients.
fn without_zero(text: &str) -> Result<&str, ValueError> {
    if text.as_bytes().contains(&0) {
        let message = "text with a zero byte, which text cannot hold".to_string();
        return Err(ValueError { code: Code::CharacterNotInRepertoire, message });
    }
    Ok(text)
}

fn no_boolean(value: impl std::fmt::Display) -> ValueError {
    ValueError { code: Code::InvalidTextRepresentation, message: format!("{value}, which is no boolean") }
}

fn unexpected(stored: &Stored) -> ValueError {
    let kind = match stored {
        Stored::NULL => "NULL",
        Stored::Bytes(_) => "text",
        Stored::Int(_) | Stored::UInt(_) => "a whole number",
        Stored::Float(_) | Stored::Double(_) => "a floating-point number",
        Stored::Date(..) => "a date",
        Stored::Time(..) => "a time",
    };
    ValueError {
        code: Code::DatatypeMismatch,
        message: format!("{kind}, and did not when it was read: restart the server to read the table's columns again"),
    }
}

fn out_of_range(what: &str) -> ValueError {
    ValueError { code: Code::DatetimeOverflow, message: format!("{what}, which cannot be represented") }
}

/// Days since 1970-01-01.
fn days(year: u16, month: u8, day: u8) -> Result<i32, ValueError> {
    let date = NaiveDate::from_ymd_opt(i32::from(year), u32::from(month), u32::from(day));
    // The server's calendar has a year 0 and, if it is told so, days that are none.
    let date = date.filter(|_| year > 0);
    date.map(|date| date.to_epoch_days())
        .ok_or_else(|| out_of_range(&format!("the date {year:04}-{month:02}-{day:02}")))
}

/// Microseconds since 1970-01-01 00:00.
fn moment(days: i32, (hour, minute, second, micro): (u8, u8, u8, u32)) -> Result<i64, ValueError> {
    let time = NaiveTime::from_hms_micro_opt(u32::from(hour), u32::from(minute), u32::from(second), micro);
    let moment = NaiveDate::from_epoch_days(days).zip(time).map(|(date, time)| NaiveDateTime::new(date, time));
    moment.map(|moment| moment.and_utc().timestamp_micros()).ok_or_else(|| out_of_range("a wrong time of the day"))
}

/// Microseconds since midnight.
fn time(negative: bool, days: u32, (hours, minutes, seconds, micros): (u8, u8, u8, u32)) -> Result<i64, ValueError> {
    let total_hours = i64::from(days) * 24 + i64::from(hours);
    if negative || total_hours >= 24 {
        let sign = if negative { "-" } else { "" };
        return Err(out_of_range(&format!("the time {sign}{total_hours:02}:{minutes:02}:{seconds:02}")));
    }
    let seconds = (total_hours * 60 + i64::from(minutes)) * 60 + i64::from(seconds);
    Ok(seconds * 1_000_000 + i64::from(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(pg_type: PgType, stored: Stored) -> String {
        let error = ColumnDecoder::new("c", &pg_type, true).append(&[vec![Some(stored)]], 0).unwrap_err();
        format!("{} {}", error.sqlstate(), error.message())
    }

    #[test]
    fn what_a_type_cannot_hold_is_an_error_that_names_the_column() {
        let zero = Stored::Date(0, 0, 0, 0, 0, 0, 0);
        let expected = "22008 column \"c\" holds the date 0000-00-00, which cannot be represented";
        assert_eq!(error(PgType::Date, zero.clone()), expected);
        assert_eq!(error(PgType::Timestamp, zero), expected);
        let late = Stored::Time(false, 1, 2, 3, 4, 5);
        assert_eq!(
            error(PgType::Time, late),
            "22008 column \"c\" holds the time 26:03:04, which cannot be represented"
        );
        let early = Stored::Time(true, 0, 0, 0, 1, 0);
        assert_eq!(
            error(PgType::Time, early),
            "22008 column \"c\" holds the time -00:00:01, which cannot be represented"
        );
        let price = PgType::Numeric { precision: 9, scale: 2 };
        let fine = Stored::Bytes(b"1.005".to_vec());
        let expected =
            "22003 column \"c\" holds a value with more digits behind the point, which numeric(9,2) cannot hold";
        assert_eq!(error(price, fine), expected);
        let zero_byte = Stored::Bytes(b"a\0b".to_vec());
        assert_eq!(
            error(PgType::Text, zero_byte),
            "22021 column \"c\" holds text with a zero byte, which text cannot hold"
        );
        assert_eq!(error(PgType::Bool, Stored::Int(5)), "22P02 column \"c\" holds 5, which is no boolean");
        assert_eq!(
            error(PgType::Int2, Stored::Int(70_000)),
            "22003 column \"c\" holds a value that is out of range for type smallint"
        );
    }

    #[test]
    fn zeros_behind_the_point_are_no_digits() {
        let price = PgType::Numeric { precision: 9, scale: 2 };
        let mut decoder = ColumnDecoder::new("c", &price, true);
        let bytes = decoder.append(&[vec![Some(Stored::Bytes(b"1.500".to_vec()))], vec![Some(Stored::NULL)]], 0);
        assert_eq!(bytes.unwrap(), 32);
    }
}
