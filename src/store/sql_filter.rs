//! Conditions that a database applies with the very meaning they have here, as SQL.
//!
//! What is common to all databases is told here: which expressions have a meaning that they share, and that both sides
//! of a comparison must be of one kind. How values are written, and which columns compare as their values do here, each
//! database's [`Dialect`] says. Left out: floats (NaN), the order of texts (collations), casts, patterns, functions.

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::arrow::datatypes::{Decimal128Type, Decimal256Type, DecimalType};
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result};
use crate::pg_type::PgType;

/// What two sides of a comparison must share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Bool,
    Integer,
    Numeric,
    /// Equality alone, by bytes. Uuids, which are held as text, are compared as such.
    Text,
    Date,
    Timestamp,
    Timestamptz,
}

/// A constant other than a text; those are sent as parameters. No character of these is to be feared in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    Bool(bool),
    Integer(i64),
    /// Digits with a point, as in `-12.50`.
    Numeric(String),
    /// As in `2024-02-29`, of the years 1 to 9999.
    Date(String),
    /// As in `2024-02-29 12:00:00.000001`, of the years 1 to 9999.
    Timestamp(String),
    /// The same, in UTC.
    Timestamptz(String),
}

/// How one database is asked. Columns are named as in [`super::Store::schema`].
pub(super) trait Dialect {
    /// SQL for a column that compares as its values do here, with the family that it belongs to; `None` for any other.
    fn comparable(&self, column: &str) -> Option<(Family, String)>;

    /// SQL that is NULL where the column's value is.
    fn nullable(&self, column: &str) -> Option<String>;

    /// SQL for a constant; `None` where the database cannot hold it.
    fn constant(&self, constant: &Constant) -> Option<String>;

    /// SQL for the text that is the statement's parameter of this number, from 1, as it compares with a column of [`Family::Text`].
    fn text(&self, parameter: usize) -> String;
}

/// Renders conditions over a table's columns. Texts become parameters.
pub(super) struct FilterWriter<'a, D> {
    dialect: &'a D,
    /// Parameters that the statement has before this filter's.
    first_parameter: usize,
    texts: Vec<String>,
}

struct Operand {
    family: Family,
    sql: String,
}

/// WHERE with all of `filters`, or nothing; and the texts to send behind `parameters` others.
///
/// # Errors
/// Internal for a condition of which [`can_filter`] said that it cannot be applied.
pub(super) fn where_clause(
    dialect: &impl Dialect,
    filters: &[Expr],
    parameters: usize,
) -> Result<(String, Vec<String>)> {
    let mut writer = FilterWriter::new(dialect, parameters);
    let mut conditions = Vec::new();
    for filter in filters {
        let condition = writer.condition(filter);
        conditions.push(condition.ok_or_else(|| Error::internal(format!("the store cannot apply {filter}")))?);
    }
    let condition = if conditions.is_empty() { "" } else { " WHERE " };
    Ok((format!("{condition}{}", conditions.join(" AND ")), writer.texts))
}

/// Whether the database applies `filter` with the meaning that it has here.
pub(super) fn can_filter(dialect: &impl Dialect, filter: &Expr) -> bool {
    FilterWriter::new(dialect, 0).condition(filter).is_some()
}

impl<'a, D: Dialect> FilterWriter<'a, D> {
    /// `parameters` stand in the statement already.
    fn new(dialect: &'a D, parameters: usize) -> Self {
        FilterWriter { dialect, first_parameter: parameters + 1, texts: Vec::new() }
    }

    /// The condition as SQL, or `None` if the database might see it otherwise.
    fn condition(&mut self, filter: &Expr) -> Option<String> {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                Some(format!("({} {op} {})", self.condition(left)?, self.condition(right)?))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.comparison(left, *op, right),
            Expr::Not(inner) => Some(format!("(NOT {})", self.condition(inner)?)),
            Expr::IsNull(inner) => Some(format!("({} IS NULL)", self.any_column(inner)?)),
            Expr::IsNotNull(inner) => Some(format!("({} IS NOT NULL)", self.any_column(inner)?)),
            Expr::IsTrue(inner) => Some(format!("({} IS TRUE)", self.condition(inner)?)),
            Expr::IsFalse(inner) => Some(format!("({} IS FALSE)", self.condition(inner)?)),
            Expr::IsNotTrue(inner) => Some(format!("({} IS NOT TRUE)", self.condition(inner)?)),
            Expr::IsNotFalse(inner) => Some(format!("({} IS NOT FALSE)", self.condition(inner)?)),
            // Not every database knows the word UNKNOWN.
            Expr::IsUnknown(inner) => Some(format!("({} IS NULL)", self.condition(inner)?)),
            Expr::IsNotUnknown(inner) => Some(format!("({} IS NOT NULL)", self.condition(inner)?)),
            Expr::InList(list) => self.in_list(list),
            Expr::Between(between) => self.between(between),
            Expr::Column(_) | Expr::Literal(..) => {
                let operand = self.operand(filter)?;
                (operand.family == Family::Bool).then_some(operand.sql)
            }
            _ => None,
        }
    }

    fn comparison(&mut self, left: &Expr, op: Operator, right: &Expr) -> Option<String> {
        let (left, right) = (self.operand(left)?, self.operand(right)?);
        let sql_op = match op {
            Operator::Eq => "=",
            Operator::NotEq => "<>",
            Operator::Lt if left.family.has_order() => "<",
            Operator::LtEq if left.family.has_order() => "<=",
            Operator::Gt if left.family.has_order() => ">",
            Operator::GtEq if left.family.has_order() => ">=",
            _ => return None,
        };
        (left.family == right.family).then(|| format!("({} {sql_op} {})", left.sql, right.sql))
    }

    fn in_list(&mut self, list: &InList) -> Option<String> {
        let value = self.operand(&list.expr)?;
        let mut items = Vec::with_capacity(list.list.len());
        for item in &list.list {
            let item = self.operand(item)?;
            if item.family != value.family {
                return None;
            }
            items.push(item.sql);
        }
        let not = if list.negated { "NOT " } else { "" };
        (!items.is_empty()).then(|| format!("({} {not}IN ({}))", value.sql, items.join(", ")))
    }

    fn between(&mut self, between: &Between) -> Option<String> {
        let value = self.operand(&between.expr)?;
        let (low, high) = (self.operand(&between.low)?, self.operand(&between.high)?);
        let same = value.family == low.family && value.family == high.family && value.family.has_order();
        let not = if between.negated { "NOT " } else { "" };
        same.then(|| format!("({} {not}BETWEEN {} AND {})", value.sql, low.sql, high.sql))
    }

    fn operand(&mut self, expr: &Expr) -> Option<Operand> {
        match expr {
            Expr::Column(column) => {
                let (family, sql) = self.dialect.comparable(&column.name)?;
                Some(Operand { family, sql })
            }
            Expr::Literal(value, _) => self.literal(value),
            _ => None,
        }
    }

    /// A column of any type, for tests that do not look at its value.
    fn any_column(&self, expr: &Expr) -> Option<String> {
        let Expr::Column(column) = expr else { return None };
        self.dialect.nullable(&column.name)
    }

    fn literal(&mut self, value: &ScalarValue) -> Option<Operand> {
        let constant = match value {
            ScalarValue::Boolean(Some(value)) => Constant::Bool(*value),
            ScalarValue::Int8(Some(value)) => Constant::Integer(i64::from(*value)),
            ScalarValue::Int16(Some(value)) => Constant::Integer(i64::from(*value)),
            ScalarValue::Int32(Some(value)) => Constant::Integer(i64::from(*value)),
            ScalarValue::Int64(Some(value)) => Constant::Integer(*value),
            ScalarValue::Decimal128(Some(value), precision, scale) => {
                Constant::Numeric(Decimal128Type::format_decimal(*value, *precision, *scale))
            }
            ScalarValue::Decimal256(Some(value), precision, scale) => {
                Constant::Numeric(Decimal256Type::format_decimal(*value, *precision, *scale))
            }
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                return self.text(text);
            }
            ScalarValue::Date32(Some(days)) => Constant::Date(date(*days)?),
            ScalarValue::TimestampMicrosecond(Some(micros), None) => Constant::Timestamp(moment(*micros)?),
            ScalarValue::TimestampMicrosecond(Some(micros), Some(_)) => Constant::Timestamptz(moment(*micros)?),
            _ => return None,
        };
        Some(Operand { family: constant.family(), sql: self.dialect.constant(&constant)? })
    }

    fn text(&mut self, text: &str) -> Option<Operand> {
        if text.contains('\0') {
            return None;
        }
        let parameter = self.first_parameter + self.texts.len();
        self.texts.push(text.to_string());
        Some(Operand { family: Family::Text, sql: self.dialect.text(parameter) })
    }
}

impl Constant {
    fn family(&self) -> Family {
        match self {
            Constant::Bool(_) => Family::Bool,
            Constant::Integer(_) => Family::Integer,
            Constant::Numeric(_) => Family::Numeric,
            Constant::Date(_) => Family::Date,
            Constant::Timestamp(_) => Family::Timestamp,
            Constant::Timestamptz(_) => Family::Timestamptz,
        }
    }
}

impl Family {
    /// Of a column with values of this type.
    pub(super) fn of(pg_type: &PgType) -> Option<Family> {
        Some(match pg_type {
            PgType::Bool => Family::Bool,
            PgType::Int2 | PgType::Int4 | PgType::Int8 => Family::Integer,
            PgType::Numeric { .. } => Family::Numeric,
            PgType::Text | PgType::Uuid | PgType::Name => Family::Text,
            PgType::Date => Family::Date,
            PgType::Timestamp => Family::Timestamp,
            PgType::Timestamptz => Family::Timestamptz,
            PgType::Float4
            | PgType::Float8
            | PgType::Bytea
            | PgType::Time
            | PgType::Interval
            | PgType::Json
            | PgType::Jsonb
            | PgType::Char
            | PgType::Oid
            | PgType::Array(_) => return None,
        })
    }

    fn has_order(self) -> bool {
        self != Family::Text
    }
}

/// A day of the years 1 to 9999, which every reader of dates understands alike.
fn date(days: i32) -> Option<String> {
    let date = NaiveDate::from_epoch_days(days)?;
    (1..=9999).contains(&date.year()).then(|| date.format("%Y-%m-%d").to_string())
}

fn moment(micros: i64) -> Option<String> {
    let moment = DateTime::from_timestamp_micros(micros)?.naive_utc();
    (1..=9999).contains(&moment.year()).then(|| moment.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
}
