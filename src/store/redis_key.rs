//! Values of key columns as the text that stands in keys of Redis, and back.

use std::borrow::Cow;

use chrono::{Datelike, NaiveDate};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Int16Type, Int32Type, Int64Type,
};

use super::redis_template::KeyTemplate;
use crate::error::{Error, Result};
use crate::format::literal;
use crate::format::settings::ValueSettings;
use crate::format::text::{ColumnBuilder, parse};
use crate::pg_type::PgType;

/// Days from the first day that chrono counts to 1970-01-01.
const EPOCH_DAY: i32 = 719_163;

/// Whether values of this type have one text each, by which keys can be told.
pub fn can_be_in_key(pg_type: &PgType) -> bool {
    match pg_type {
        PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Text | PgType::Uuid | PgType::Date => true,
        PgType::Numeric { scale, .. } => *scale == 0,
        // Time zones, digits behind the point, spellings of true: writers of keys have written them in many ways.
        PgType::Bool
        | PgType::Float4
        | PgType::Float8
        | PgType::Bytea
        | PgType::Time
        | PgType::Timestamp
        | PgType::Timestamptz
        | PgType::Interval
        | PgType::Json
        | PgType::Jsonb
        | PgType::Name
        | PgType::Char
        | PgType::Oid
        | PgType::Array(_) => false,
    }
}

/// A key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AskedKey {
    /// Its position in the request.
    pub position: u32,
    pub text: String,
}

/// The keys that `columns` make, an array for each place of the template. Values that the template cannot hold, and texts
/// with a zero byte, which no text in PostgreSQL has, make none.
pub(super) fn write_keys(template: &KeyTemplate, columns: &[(&ArrayRef, &PgType)]) -> Result<Vec<AskedKey>> {
    let mut texts = Vec::with_capacity(columns.len());
    for (column, pg_type) in columns {
        texts.push(key_texts(column, pg_type)?);
    }
    let count = texts.first().map_or(0, Vec::len);
    let mut keys = Vec::with_capacity(count);
    let mut values: Vec<&str> = Vec::with_capacity(columns.len());
    for position in 0..count {
        values.clear();
        values.extend(texts.iter().filter_map(|texts| texts[position].as_deref()));
        if values.len() < columns.len() {
            continue;
        }
        keys.extend(template.write(&values).map(|text| AskedKey { position: position as u32, text }));
    }
    Ok(keys)
}

/// The values that keys hold, an array for each place of the template; keys that are no row's are passed over.
pub(super) fn read_keys<'k>(
    template: &KeyTemplate,
    types: &[PgType],
    keys: impl Iterator<Item = &'k [u8]>,
) -> Result<Vec<ArrayRef>> {
    let mut builders = types.iter().map(ColumnBuilder::new).collect::<Vec<_>>();
    let settings = ValueSettings::default();
    for key in keys {
        let Some(values) = std::str::from_utf8(key).ok().and_then(|key| template.read(key)) else { continue };
        let parsed = values.iter().zip(types).map(|(value, pg_type)| parse(pg_type, value, &settings).ok());
        let Some(parsed) = parsed.collect::<Option<Vec<_>>>() else { continue };
        for (builder, value) in builders.iter_mut().zip(parsed) {
            builder.push(Some(value))?;
        }
    }
    Ok(builders.iter_mut().map(ColumnBuilder::finish).collect())
}

fn key_texts<'a>(column: &'a ArrayRef, pg_type: &PgType) -> Result<Vec<Option<Cow<'a, str>>>> {
    Ok(match pg_type {
        PgType::Int2 => primitive_texts::<Int16Type>(column, |value| Some(value.to_string())),
        PgType::Int4 => primitive_texts::<Int32Type>(column, |value| Some(value.to_string())),
        PgType::Int8 => primitive_texts::<Int64Type>(column, |value| Some(value.to_string())),
        PgType::Numeric { precision, scale: 0 } if *precision <= 38 => {
            primitive_texts::<Decimal128Type>(column, |value| Some(value.to_string()))
        }
        PgType::Numeric { scale: 0, .. } => {
            primitive_texts::<Decimal256Type>(column, |value| Some(value.to_string()))
        }
        PgType::Date => primitive_texts::<Date32Type>(column, date_text),
        PgType::Text => string_texts(column, |text| (!text.contains('\0')).then_some(Cow::Borrowed(text))),
        PgType::Uuid => string_texts(column, |text| literal::uuid(text).ok().map(Cow::Owned)),
        other => return Err(Error::internal(format!("a key of Redis holds a column of type {other}"))),
    })
}

fn primitive_texts<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    text: impl Fn(T::Native) -> Option<String>,
) -> Vec<Option<Cow<'_, str>>> {
    column.as_primitive::<T>().iter().map(|value| text(value?).map(Cow::Owned)).collect()
}

fn string_texts<'a>(
    column: &'a ArrayRef,
    text: impl Fn(&'a str) -> Option<Cow<'a, str>>,
) -> Vec<Option<Cow<'a, str>>> {
    column.as_string_view().iter().map(|value| text(value?)).collect()
}

/// `2026-11-21`; none for years that are not written with four digits.
fn date_text(days: i32) -> Option<String> {
    let date = NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_DAY)?)?;
    (1..=9999).contains(&date.year()).then(|| date.format("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Date32Array, Decimal128Array, Int64Array, StringViewArray};

    use super::*;

    fn written(template: &str, columns: &[(&ArrayRef, &PgType)]) -> Vec<(u32, String)> {
        let keys = write_keys(&template.parse().unwrap(), columns).unwrap();
        keys.into_iter().map(|key| (key.position, key.text)).collect()
    }

    #[test]
    fn each_type_has_the_text_that_postgresql_gives_it() {
        let numeric = PgType::Numeric { precision: 20, scale: 0 };
        let decimals = Decimal128Array::from(vec![18_446_744_073_709_551_615, -7]).with_precision_and_scale(20, 0);
        let cases: [(ArrayRef, &PgType, [&str; 2]); 4] = [
            (Arc::new(Int64Array::from(vec![i64::MIN, 7])), &PgType::Int8, ["-9223372036854775808", "7"]),
            (Arc::new(decimals.unwrap()), &numeric, ["18446744073709551615", "-7"]),
            (Arc::new(Date32Array::from(vec![0, 20_778])), &PgType::Date, ["1970-01-01", "2026-11-21"]),
            (
                Arc::new(StringViewArray::from(vec![
                    "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                    "00000000-0000-0000-0000-000000000000",
                ])),
                &PgType::Uuid,
                ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"],
            ),
        ];
        for (column, pg_type, texts) in cases {
            let expected = [(0, format!("k:{}", texts[0])), (1, format!("k:{}", texts[1]))];
            assert_eq!(written("k:{a}", &[(&column, pg_type)]), expected);
            let keys = expected.iter().map(|(_, key)| key.as_bytes());
            let read = read_keys(&"k:{a}".parse().unwrap(), std::slice::from_ref(pg_type), keys).unwrap();
            assert_eq!(written("k:{a}", &[(&read[0], pg_type)]), expected);
        }
    }

    #[test]
    fn values_without_a_text_of_their_own_make_no_key() {
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["a\0b", "ok"]));
        assert_eq!(written("k:{a}", &[(&texts, &PgType::Text)]), [(1, "k:ok".to_string())]);
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX, 0, -800_000]));
        assert_eq!(written("k:{a}", &[(&dates, &PgType::Date)]), [(1, "k:1970-01-01".to_string())]);
    }

    #[test]
    fn keys_that_are_no_rows_are_passed_over() {
        let keys = ["k:7", "k:x", "j:8", "k:9"].map(str::as_bytes);
        let keys = keys.into_iter().chain([&b"k:\xff"[..]]);
        let read = read_keys(&"k:{a}".parse().unwrap(), &[PgType::Int8], keys).unwrap();
        assert_eq!(read[0].as_primitive::<Int64Type>().values(), &[7, 9]);
    }
}
