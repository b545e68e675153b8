//! The settings of a session that say how values are written and read as text.

use std::fmt;

use chrono_tz::Tz;

/// What `DateStyle` and its kin come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueSettings {
    /// In which `timestamptz` is shown, and read where it names no zone.
    pub time_zone: Tz,
    pub date_style: DateStyle,
    pub interval_style: IntervalStyle,
    pub bytea_output: ByteaOutput,
    /// From -15 to 3: above 0 floats are shown with the fewest digits that read back as the same float.
    pub extra_float_digits: i8,
}

/// How dates are shown, and which number of an ambiguous one is the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateStyle {
    pub form: DateForm,
    pub order: DateOrder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateForm {
    Iso,
    Sql,
    Postgres,
    German,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateOrder {
    MonthDayYear,
    DayMonthYear,
    YearMonthDay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalStyle {
    Postgres,
    PostgresVerbose,
    SqlStandard,
    Iso8601,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteaOutput {
    Hex,
    Escape,
}

impl Default for ValueSettings {
    fn default() -> Self {
        ValueSettings {
            time_zone: Tz::UTC,
            date_style: DateStyle { form: DateForm::Iso, order: DateOrder::MonthDayYear },
            interval_style: IntervalStyle::Postgres,
            bytea_output: ByteaOutput::Hex,
            extra_float_digits: 1,
        }
    }
}

impl ValueSettings {
    /// From the values of settings by their names; those that are not there have their defaults.
    pub fn of<'a>(value: impl Fn(&'static str) -> Option<&'a str>) -> Self {
        let default = ValueSettings::default();
        let zone = value("TimeZone").and_then(|name| name.parse().ok());
        let date_style = value("DateStyle").and_then(|text| default.date_style.with(text));
        ValueSettings {
            time_zone: zone.unwrap_or(default.time_zone),
            date_style: date_style.unwrap_or(default.date_style),
            interval_style: value("IntervalStyle").and_then(IntervalStyle::parse).unwrap_or(default.interval_style),
            bytea_output: match value("bytea_output") {
                Some("escape") => ByteaOutput::Escape,
                _ => ByteaOutput::Hex,
            },
            extra_float_digits: value("extra_float_digits")
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(default.extra_float_digits),
        }
    }
}

impl DateStyle {
    /// This style with what `text` says of form and order, in any order: `sql, dmy`; `None` for what PostgreSQL
    /// would not take.
    pub fn with(self, text: &str) -> Option<DateStyle> {
        let (mut form, mut order) = (None, None);
        for word in text.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            let (new_form, new_order) = match word.as_str() {
                "iso" => (Some(DateForm::Iso), None),
                "sql" => (Some(DateForm::Sql), None),
                "german" => (Some(DateForm::German), None),
                word if word.starts_with("postgres") => (Some(DateForm::Postgres), None),
                "ymd" => (None, Some(DateOrder::YearMonthDay)),
                "dmy" => (None, Some(DateOrder::DayMonthYear)),
                word if word.starts_with("euro") => (None, Some(DateOrder::DayMonthYear)),
                "mdy" | "us" => (None, Some(DateOrder::MonthDayYear)),
                word if word.starts_with("noneuro") => (None, Some(DateOrder::MonthDayYear)),
                "default" => (Some(DateForm::Iso), Some(DateOrder::MonthDayYear)),
                _ => return None,
            };
            let conflicts = new_form.is_some_and(|new| form.is_some_and(|old| old != new))
                || new_order.is_some_and(|new| order.is_some_and(|old| old != new));
            if conflicts {
                return None;
            }
            (form, order) = (new_form.or(form), new_order.or(order));
        }
        let implied = form.filter(|form| *form == DateForm::German).map(|_| DateOrder::DayMonthYear);
        Some(DateStyle { form: form.unwrap_or(self.form), order: order.or(implied).unwrap_or(self.order) })
    }
}

/// As SHOW shows it.
impl fmt::Display for DateStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self.form {
            DateForm::Iso => "ISO",
            DateForm::Sql => "SQL",
            DateForm::Postgres => "Postgres",
            DateForm::German => "German",
        };
        let order = match self.order {
            DateOrder::MonthDayYear => "MDY",
            DateOrder::DayMonthYear => "DMY",
            DateOrder::YearMonthDay => "YMD",
        };
        write!(f, "{form}, {order}")
    }
}

impl IntervalStyle {
    pub fn parse(text: &str) -> Option<IntervalStyle> {
        Some(match text {
            "postgres" => IntervalStyle::Postgres,
            "postgres_verbose" => IntervalStyle::PostgresVerbose,
            "sql_standard" => IntervalStyle::SqlStandard,
            "iso_8601" => IntervalStyle::Iso8601,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_styles_are_read_as_postgresql_reads_them() {
        let iso = ValueSettings::default().date_style;
        for (text, shown) in [
            ("German", "German, DMY"),
            ("german, mdy", "German, MDY"),
            ("SQL", "SQL, MDY"),
            ("dmy", "ISO, DMY"),
            ("European, Postgres", "Postgres, DMY"),
            ("ISO,YMD", "ISO, YMD"),
            ("postgresql", "Postgres, MDY"),
        ] {
            assert_eq!(iso.with(text).map(|style| style.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in ["ISO, SQL", "DMY, MDY", "roman", ""] {
            assert_eq!(iso.with(text), None, "{text}");
        }
        let german = iso.with("German").unwrap();
        assert_eq!(german.with("ISO").unwrap().to_string(), "ISO, DMY", "the order stays");
    }
}
