//! From the conditions of a WHERE to keys: equalities of a lookup table's columns with constants. Pure.

use std::collections::HashSet;

use datafusion::arrow::array::{Array, ArrayRef, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, InList};
use datafusion::logical_expr::{Expr, Operator};

use crate::error::{Error, Result};
use crate::lookup::key_type::widens_without_loss;
use crate::pg_type::PgType;
use crate::store::{KeyEquality, Store, comparable};

/// Combinations of values that are asked for by key; conditions that would make more are applied to the rows found.
const MAX_KEYS: usize = 100_000;

/// The keys that a WHERE names.
pub(super) struct PointKeys {
    /// Positions in the store's schema.
    pub columns: Vec<usize>,
    /// An array for each of `columns`; row by row each combination once, in the order of the lists.
    pub values: Vec<ArrayRef>,
}

impl PointKeys {
    /// Takes the conditions that name keys out of `conditions`; `None` if none does.
    ///
    /// # Errors
    /// 0A000 for a column that the store cannot compare with such keys, 22P02 for a uuid that is none.
    pub fn take(conditions: &mut Vec<Expr>, store: &dyn Store) -> Result<Option<PointKeys>> {
        let schema = store.schema();
        let mut keys = PointKeys { columns: Vec::new(), values: Vec::new() };
        let mut combinations = 1;
        let mut rest = Vec::new();
        for condition in std::mem::take(conditions) {
            let found = values_of(&condition, &schema).filter(|(column, _)| !keys.columns.contains(column));
            let distinct = match found {
                Some((column, values)) => distinct(column, &values, store)?.map(|values| (column, values)),
                None => None,
            };
            match distinct {
                Some((column, values)) if values.len().saturating_mul(combinations) <= MAX_KEYS => {
                    combinations *= values.len();
                    keys.columns.push(column);
                    keys.values.push(values);
                }
                _ => rest.push(condition),
            }
        }
        *conditions = rest;
        if keys.columns.is_empty() {
            return Ok(None);
        }
        keys.combine(combinations)?;
        Ok(Some(keys))
    }

    /// From the values of each column to all combinations; the last column's values change fastest.
    fn combine(&mut self, combinations: usize) -> Result<()> {
        let mut repeats = combinations;
        for values in &mut self.values {
            let count = values.len();
            repeats /= count.max(1);
            let positions = (0..combinations).map(|row| (row / repeats.max(1) % count.max(1)) as u32);
            *values = take(values, &UInt32Array::from_iter_values(positions), None)?;
        }
        Ok(())
    }
}

/// The values each once, as the store sees them. `None`: such a column is better compared here.
fn distinct(column: usize, values: &[ScalarValue], store: &dyn Store) -> Result<Option<ArrayRef>> {
    let schema = store.schema();
    let field = schema.field(column);
    let pg_type = PgType::of_field(field)?;
    let equality = store.key_equality(column);
    match &equality {
        KeyEquality::None { .. } if matches!(pg_type, PgType::Array(_)) => return Ok(None),
        KeyEquality::OfStore { reason } if values.len() > 1 => {
            let name = field.name();
            return Err(Error::unsupported(format!(
                "column \"{name}\" can be compared with one constant only: {reason}"
            ))
            .with_hint("Two constants might find the same row, which would come twice. Ask for one after the other."));
        }
        equality => equality.check_key(field.name())?,
    }
    if values.is_empty() {
        return Ok(Some(datafusion::arrow::array::new_empty_array(field.data_type())));
    }
    let values = ScalarValue::iter_to_array(values.iter().cloned())?;
    let comparable = comparable(&values, &pg_type)?;
    let converter = RowConverter::new(vec![SortField::new(comparable.data_type().clone())])?;
    let rows = converter.convert_columns(&[comparable])?;
    let mut seen = HashSet::new();
    let first = rows.iter().enumerate().filter(|(_, row)| seen.insert(row.data())).map(|(place, _)| place as u32);
    let first: UInt32Array = first.map(Some).collect();
    Ok(Some(take(&values, &first, None)?))
}

/// The column and the values, of its type, for which alone the condition is true.
fn values_of(condition: &Expr, schema: &Schema) -> Option<(usize, Vec<ScalarValue>)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (side, constant) = match (left.as_ref(), right.as_ref()) {
                (side, Expr::Literal(constant, _)) | (Expr::Literal(constant, _), side) => (side, constant),
                _ => return None,
            };
            let column = bare_column(side, schema)?;
            Some((column, value_in(schema.field(column).data_type(), constant).into_iter().collect()))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (column, mut values) = values_of(left, schema)?;
            let (other, more) = values_of(right, schema)?;
            values.extend(more);
            (column == other).then_some((column, values))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let column = bare_column(expr, schema)?;
            let mut values = Vec::with_capacity(list.len());
            for item in list {
                let Expr::Literal(constant, _) = item else { return None };
                values.extend(value_in(schema.field(column).data_type(), constant));
            }
            Some((column, values))
        }
        _ => None,
    }
}

/// A column, under a cast at most that changes no value.
fn bare_column(expr: &Expr, schema: &Schema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.index_of(column.name()).ok(),
        Expr::Cast(Cast { expr, field }) => {
            let column = bare_column(expr, schema)?;
            widens_without_loss(schema.field(column).data_type(), field.data_type()).then_some(column)
        }
        _ => None,
    }
}

/// The constant in the column's type; `None` if it is NULL or a value that the type does not have: no row equals it.
fn value_in(column_type: &DataType, constant: &ScalarValue) -> Option<ScalarValue> {
    if constant.is_null() {
        return None;
    }
    let value = constant.cast_to(column_type).ok()?;
    let back = value.cast_to(&constant.data_type()).ok()?;
    (back == *constant && !value.is_null()).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use datafusion::arrow::datatypes::SchemaRef;
    use datafusion::arrow::util::display::array_value_to_string;
    use datafusion::logical_expr::{cast, col, lit};

    use super::*;
    use crate::store::{Answer, LookupRequest, RowBatches, ScanRequest, StoreError};

    /// Has columns to compare, and nothing else.
    #[derive(Debug)]
    struct Columns(SchemaRef);

    #[async_trait]
    impl Store for Columns {
        fn schema(&self) -> SchemaRef {
            Arc::clone(&self.0)
        }

        fn can_filter(&self, _filter: &Expr) -> bool {
            false
        }

        fn key_equality(&self, column: usize) -> KeyEquality {
            match self.0.field(column).name().as_str() {
                "citext" => KeyEquality::OfStore { reason: "capitals".to_string() },
                "tags" | "doc" => KeyEquality::None { reason: "no equality".to_string() },
                _ => KeyEquality::ByValue,
            }
        }

        async fn lookup(&self, _request: &LookupRequest) -> Result<Answer, StoreError> {
            Err(Error::internal("no rows").into())
        }

        fn can_scan(&self) -> bool {
            false
        }

        async fn scan(&self, _request: &ScanRequest) -> Result<RowBatches, StoreError> {
            Err(Error::internal("no rows").into())
        }
    }

    impl std::fmt::Display for Columns {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("columns")
        }
    }

    fn store() -> Columns {
        let columns = [
            ("id", "integer"),
            ("kind", "text"),
            ("ratio", "float8"),
            ("ref", "uuid"),
            ("day", "date"),
            ("citext", "text"),
            ("tags", "text[]"),
            ("doc", "jsonb"),
        ];
        let fields = columns.map(|(name, pg_type)| PgType::parse(pg_type).unwrap().field(name, true));
        Columns(Arc::new(Schema::new(fields.to_vec())))
    }

    /// The keys, one a line, and how many conditions are left.
    fn keys(conditions: Vec<Expr>) -> Result<(Option<Vec<String>>, usize)> {
        let mut conditions = conditions;
        let keys = PointKeys::take(&mut conditions, &store())?;
        let rows = keys.map(|keys| {
            let row = |row: usize| {
                let values = keys.values.iter().map(|values| array_value_to_string(values, row).unwrap());
                values.collect::<Vec<_>>().join(" ")
            };
            (0..keys.values[0].len()).map(row).collect()
        });
        Ok((rows, conditions.len()))
    }

    fn text(value: &str) -> Expr {
        lit(ScalarValue::Utf8View(Some(value.to_string())))
    }

    #[test]
    fn equalities_with_constants_are_keys_and_each_value_once() {
        let some = |rows: &[&str]| Some(rows.iter().map(ToString::to_string).collect::<Vec<_>>());
        let wide = || cast(col("id"), DataType::Int64);
        let null = lit(ScalarValue::Int32(None));
        let cases: [(Vec<Expr>, Option<Vec<String>>, usize); 12] = [
            (vec![col("id").eq(lit(3_i32))], some(&["3"]), 0),
            (vec![lit(3_i32).eq(col("id"))], some(&["3"]), 0),
            (vec![col("id").in_list(vec![lit(3_i32), null, lit(1_i32), lit(3_i32)], false)], some(&["3", "1"]), 0),
            (vec![col("id").in_list(vec![lit(3_i32)], true)], None, 1),
            (vec![col("id").eq(lit(1_i32)).or(col("id").eq(lit(2_i32)))], some(&["1", "2"]), 0),
            (vec![col("id").eq(lit(1_i32)).or(col("kind").eq(text("a")))], None, 1),
            (vec![wide().eq(lit(3_i64))], some(&["3"]), 0),
            (vec![wide().eq(lit(5_000_000_000_i64))], some(&[]), 0),
            (vec![col("id").eq(lit(1_i32)), col("id").eq(lit(2_i32))], some(&["1"]), 1),
            (
                vec![
                    col("id").in_list(vec![lit(1_i32), lit(2_i32)], false),
                    col("kind").in_list(vec![text("a"), text("b")], false),
                ],
                some(&["1 a", "1 b", "2 a", "2 b"]),
                0,
            ),
            (vec![col("ratio").in_list(vec![lit(0.0), lit(-0.0), lit(f64::NAN)], false)], some(&["0.0", "NaN"]), 0),
            (vec![col("id").gt(lit(3_i32)), col("kind").eq(text("a"))], some(&["a"]), 1),
        ];
        for (conditions, expected, left) in cases {
            let shown = format!("{conditions:?}");
            assert_eq!(keys(conditions).unwrap(), (expected, left), "{shown}");
        }
    }

    #[test]
    fn values_that_the_column_cannot_hold_find_nothing() {
        let noon = ScalarValue::TimestampMicrosecond(Some(12 * 3_600_000_000), None);
        let midnight = ScalarValue::TimestampMicrosecond(Some(86_400_000_000), None);
        let day = || cast(col("day"), noon.data_type());
        assert_eq!(keys(vec![day().eq(lit(noon.clone()))]).unwrap(), (Some(vec![]), 0));
        assert_eq!(keys(vec![day().eq(lit(midnight))]).unwrap(), (Some(vec!["1970-01-02".to_string()]), 0));
        let decimal = ScalarValue::Decimal128(Some(15), 20, 1);
        let wide = cast(col("id"), decimal.data_type());
        assert_eq!(keys(vec![wide.eq(lit(decimal))]).unwrap(), (Some(vec![]), 0));
    }

    #[test]
    fn combinations_are_bounded() {
        let many = |count: i32| (0..count).map(lit).collect::<Vec<_>>();
        let texts = (0..1000).map(|i| text(&i.to_string())).collect();
        let (found, left) =
            keys(vec![col("id").in_list(many(1000), false), col("kind").in_list(texts, false)]).unwrap();
        assert_eq!((found.unwrap().len(), left), (1000, 1));
    }

    #[test]
    fn columns_with_an_equality_of_their_own_are_compared_by_the_store_or_not_at_all() {
        assert_eq!(keys(vec![col("citext").eq(text("A"))]).unwrap(), (Some(vec!["A".to_string()]), 0));
        let both = vec![col("citext").in_list(vec![text("A"), text("a")], false)];
        let message = "column \"citext\" can be compared with one constant only: capitals";
        assert_eq!(keys(both).unwrap_err().message(), message);
        let message = "column \"doc\" cannot be the key of a lookup: no equality";
        assert_eq!(keys(vec![col("doc").eq(text("{}"))]).unwrap_err().message(), message);
        let upper = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11";
        let twice = vec![col("ref").in_list(vec![text(upper), text(&upper.to_lowercase())], false)];
        assert_eq!(keys(twice).unwrap().0.unwrap().len(), 1);
        assert_eq!(keys(vec![col("ref").eq(text("none"))]).unwrap_err().sqlstate(), "22P02");
    }
}
