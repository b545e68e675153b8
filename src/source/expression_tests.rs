use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::Float64Type;
use datafusion::arrow::util::display::array_value_to_string;

use super::*;

/// 2024-02-29 12:34:56.789012 UTC.
const MADE_AT_MICROSECONDS: i64 = 1_709_210_096_789_012;

fn plan(sql: &str) -> Result<ColumnExpression> {
    ExpressionPlanner::try_new(42).unwrap().plan(0, "a", sql)
}

/// The values for rows 1 to 3.
fn values(sql: &str) -> Vec<String> {
    let column = plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let array = column.evaluate(&input(1..=3, MADE_AT_MICROSECONDS).unwrap()).unwrap();
    assert_eq!(array.data_type(), column.field().data_type(), "{sql}");
    (0..array.len()).map(|row| array_value_to_string(&array, row).unwrap()).collect()
}

#[test]
fn types_come_from_the_expressions_as_postgres_types() {
    let cases = [
        ("n", PgType::Int8),
        ("n % 1000", PgType::Int8),
        ("'order ' || n", PgType::Text),
        ("CAST(n AS text)", PgType::Text),
        ("CAST(n AS numeric(12,2))", PgType::Numeric { precision: 12, scale: 2 }),
        ("n::integer", PgType::Int4),
        ("n::smallint", PgType::Int2),
        ("n > 2", PgType::Bool),
        ("n * 1.5e0::double precision", PgType::Float8),
        ("random()", PgType::Float8),
        ("now()", PgType::Timestamptz),
        ("current_timestamp", PgType::Timestamptz),
        ("now() - interval '1 hour'", PgType::Timestamptz),
        ("current_date", PgType::Date),
        ("current_time", PgType::Time),
        ("timestamp '2024-02-29 12:34:56'", PgType::Timestamp),
        ("date '2024-02-29'", PgType::Date),
        ("character_length('abc')", PgType::Int4),
        ("NULL", PgType::Text),
    ];
    for (sql, pg_type) in cases {
        let column = plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(column.field().data_type(), &pg_type.arrow(), "{sql}");
        assert_eq!(PgType::of_field(column.field()).unwrap(), pg_type, "{sql}");
        values(sql);
    }
}

#[test]
fn values_are_those_of_the_row() {
    assert_eq!(values("n * 2 + 1"), ["3", "5", "7"]);
    assert_eq!(values("'order ' || n"), ["order 1", "order 2", "order 3"]);
    assert_eq!(values("CASE WHEN n = 2 THEN NULL ELSE n END"), ["1", "", "3"]);
    assert_eq!(values("CAST(n / 4.0 AS numeric(12,2))"), ["0.25", "0.50", "0.75"]);
    assert_eq!(values("now()"), ["2024-02-29T12:34:56.789012Z"; 3]);
    assert_eq!(values("current_date"), ["2024-02-29"; 3]);
    assert_eq!(values("current_time"), ["12:34:56.789012"; 3]);
}

#[test]
fn only_what_cannot_be_null_is_declared_so() {
    for (sql, nullable) in [("n", false), ("random() * 2", false), ("now()", false), ("nullif(n, 2)", true)] {
        assert_eq!(plan(sql).unwrap().field().is_nullable(), nullable, "{sql}");
    }
}

#[test]
fn random_depends_on_seed_column_call_and_row_alone() {
    let random = |seed: u64, position: usize, sql: &str| {
        let column = ExpressionPlanner::try_new(seed).unwrap().plan(position, "a", sql).unwrap();
        let array = column.evaluate(&input(1..=1000, 0).unwrap()).unwrap();
        array.as_primitive::<Float64Type>().values().to_vec()
    };
    let base = random(42, 0, "random()");
    assert_eq!(base, random(42, 0, "random()"));
    assert_ne!(base, random(43, 0, "random()"));
    assert_ne!(base, random(42, 1, "random()"));
    assert!(random(42, 0, "random() - random()").iter().all(|difference| *difference != 0.0));
    let later = plan("random()").unwrap().evaluate(&input(501..=1000, 0).unwrap()).unwrap();
    assert_eq!(later.as_primitive::<Float64Type>().values().to_vec(), base[500..], "how rows are batched is no matter");

    assert!(base.iter().all(|value| (0.0..1.0).contains(value)));
    let mean = base.iter().sum::<f64>() / 1000.0;
    assert!((0.45..0.55).contains(&mean), "{mean}");
}

#[test]
fn what_has_no_meaning_for_one_row_is_refused() {
    let cases = [
        ("sum(n)", Code::GroupingError, "aggregate function sum is not allowed in a generator"),
        ("(SELECT 1)", Code::FeatureNotSupported, "a subquery is not supported"),
        ("n IN (SELECT 1)", Code::FeatureNotSupported, "a subquery is not supported"),
        ("row_number() OVER ()", Code::FeatureNotSupported, "a window function is not supported"),
        ("$1 + n", Code::FeatureNotSupported, "a parameter is not supported"),
        ("n AS m", Code::SyntaxError, "an expression cannot be followed by \"m\""),
        ("uuid()", Code::FeatureNotSupported, "function uuid() is not supported"),
        ("'{}'::jsonb", Code::FeatureNotSupported, "a cast to jsonb is not available yet"),
        ("n::bigit", Code::UndefinedObject, "type \"bigit\" does not exist"),
    ];
    for (sql, code, message) in cases {
        let error = plan(sql).expect_err(sql);
        assert!(error.message().starts_with(message), "{sql}: {}", error.message());
        assert_eq!(error.code(), code, "{sql}");
    }
}

#[test]
fn what_does_not_exist_or_does_not_parse_is_named() {
    let cases = [
        ("m + 1", Code::UndefinedColumn, "column \"m\" does not exist"),
        ("no_such(n)", Code::UndefinedFunction, "function no_such() does not exist"),
        ("n +", Code::SyntaxError, ""),
        ("n n n", Code::SyntaxError, ""),
        ("", Code::SyntaxError, ""),
    ];
    for (sql, code, message) in cases {
        let error = plan(sql).expect_err(sql);
        assert!(error.message().starts_with(message), "{sql}: {}", error.message());
        assert_eq!(error.code(), code, "{sql}");
    }
}

#[test]
fn the_hidden_column_cannot_be_named() {
    assert!(plan("\"now()\"").is_err());
}

#[test]
fn integers_overflow_and_zero_divides_with_postgres_errors() {
    let cases = [
        ("9223372036854775807 + n", Code::NumericOutOfRange),
        ("n * 9223372036854775807", Code::NumericOutOfRange),
        ("-9223372036854775807 - n - 1", Code::NumericOutOfRange),
        ("1 / (n - 2)", Code::DivisionByZero),
    ];
    for (sql, code) in cases {
        let error = plan(sql).unwrap().evaluate(&input(1..=3, 0).unwrap()).expect_err(sql);
        assert_eq!(error.code(), code, "{sql}: {}", error.message());
    }
}
