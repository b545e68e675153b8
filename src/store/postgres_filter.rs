//! Conditions that PostgreSQL applies with the very meaning they have here, as SQL.
//!
//! Left out: floats (NaN), char(n) (padding), the order of texts (collations), casts, patterns, functions.

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::arrow::datatypes::{Decimal128Type, Decimal256Type, DecimalType};
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::scalar::ScalarValue;

use super::postgres_schema::PostgresColumn;
use crate::pg_type::PgType;

/// Renders conditions over a table's columns. Texts become parameters, everything else has no character to fear.
pub(super) struct FilterWriter<'a> {
    columns: &'a [PostgresColumn],
    /// Parameters that the statement has before this filter's.
    first_parameter: usize,
    texts: Vec<String>,
}

/// What two sides of a comparison must share.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Bool,
    Integer,
    Numeric,
    /// Equality alone, by bytes. Uuids, which are held as text, are compared as such.
    Text,
    Date,
    Timestamp,
    Timestamptz,
}

struct Operand {
    family: Family,
    sql: String,
}

impl<'a> FilterWriter<'a> {
    /// `parameters` stand in the statement already.
    pub(super) fn new(columns: &'a [PostgresColumn], parameters: usize) -> Self {
        FilterWriter { columns, first_parameter: parameters + 1, texts: Vec::new() }
    }

    /// The texts to send, in the order of their parameters.
    pub(super) fn into_texts(self) -> Vec<String> {
        self.texts
    }

    /// The condition as SQL over the table `t`, or `None` if PostgreSQL might see it otherwise.
    pub(super) fn condition(&mut self, filter: &Expr) -> Option<String> {
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
            Expr::IsUnknown(inner) => Some(format!("({} IS UNKNOWN)", self.condition(inner)?)),
            Expr::IsNotTrue(inner) => Some(format!("({} IS NOT TRUE)", self.condition(inner)?)),
            Expr::IsNotFalse(inner) => Some(format!("({} IS NOT FALSE)", self.condition(inner)?)),
            Expr::IsNotUnknown(inner) => Some(format!("({} IS NOT UNKNOWN)", self.condition(inner)?)),
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
            Expr::Column(_) => {
                let column = self.column(expr).filter(|column| column.can_filter)?;
                let family = Family::of(&column.pg_type)?;
                let sql = match family {
                    Family::Text => format!("({}::text COLLATE \"C\")", column.value),
                    _ => column.value.clone(),
                };
                Some(Operand { family, sql })
            }
            Expr::Literal(value, _) => self.literal(value),
            _ => None,
        }
    }

    /// A column of any type, for tests that do not look at its value.
    fn any_column(&self, expr: &Expr) -> Option<String> {
        self.column(expr).map(|column| column.value.clone())
    }

    fn column(&self, expr: &Expr) -> Option<&'a PostgresColumn> {
        let Expr::Column(wanted) = expr else { return None };
        self.columns.iter().find(|column| column.name == wanted.name)
    }

    fn literal(&mut self, value: &ScalarValue) -> Option<Operand> {
        let (family, sql) = match value {
            ScalarValue::Boolean(Some(value)) => (Family::Bool, value.to_string().to_uppercase()),
            ScalarValue::Int8(Some(value)) => (Family::Integer, integer(i64::from(*value))),
            ScalarValue::Int16(Some(value)) => (Family::Integer, integer(i64::from(*value))),
            ScalarValue::Int32(Some(value)) => (Family::Integer, integer(i64::from(*value))),
            ScalarValue::Int64(Some(value)) => (Family::Integer, integer(*value)),
            ScalarValue::Decimal128(Some(value), precision, scale) => {
                (Family::Numeric, format!("'{}'::numeric", Decimal128Type::format_decimal(*value, *precision, *scale)))
            }
            ScalarValue::Decimal256(Some(value), precision, scale) => {
                (Family::Numeric, format!("'{}'::numeric", Decimal256Type::format_decimal(*value, *precision, *scale)))
            }
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                return self.text(text);
            }
            ScalarValue::Date32(Some(days)) => (Family::Date, format!("'{}'::date", date(*days)?)),
            ScalarValue::TimestampMicrosecond(Some(micros), None) => {
                (Family::Timestamp, format!("'{}'::timestamp", moment(*micros)?))
            }
            ScalarValue::TimestampMicrosecond(Some(micros), Some(_)) => {
                (Family::Timestamptz, format!("'{}+00'::timestamptz", moment(*micros)?))
            }
            _ => return None,
        };
        Some(Operand { family, sql })
    }

    fn text(&mut self, text: &str) -> Option<Operand> {
        if text.contains('\0') {
            return None;
        }
        let number = self.first_parameter + self.texts.len();
        self.texts.push(text.to_string());
        Some(Operand { family: Family::Text, sql: format!("${number}::text") })
    }
}

impl Family {
    fn of(pg_type: &PgType) -> Option<Family> {
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

/// With its type, and in brackets: a minus binds less than a cast.
fn integer(value: i64) -> String {
    format!("({value})::int8")
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
