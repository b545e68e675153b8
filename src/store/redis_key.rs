//! Values of key columns as keys of Redis, and back.

use datafusion::arrow::array::{Array, ArrayRef, new_empty_array};
use datafusion::arrow::compute::concat;

use super::redis_template::KeyTemplate;
use super::template::{key_of_text, key_texts};
use crate::error::Result;
use crate::pg_type::PgType;

/// A key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AskedKey {
    /// Its position in the request.
    pub position: u32,
    pub text: String,
}

/// The keys that `columns` make, an array for each column of the template. Values that it cannot hold make none.
///
/// # Errors
/// As [`key_texts`].
pub(super) fn write_keys(template: &KeyTemplate, columns: &[&ArrayRef], types: &[PgType]) -> Result<Vec<AskedKey>> {
    let texts = columns.iter().zip(types).map(|(column, pg_type)| key_texts(column, pg_type));
    let texts = texts.collect::<Result<Vec<_>>>()?;
    let count = texts.first().map_or(0, |column| column.len());
    let mut keys = Vec::with_capacity(count);
    let mut values: Vec<&str> = Vec::with_capacity(columns.len());
    for position in 0..count {
        values.clear();
        values.extend(texts.iter().map(|column| column.value(position)));
        keys.extend(template.write(&values).map(|text| AskedKey { position: position as u32, text }));
    }
    Ok(keys)
}

/// The values that keys hold, an array for each column of the template; keys that belong to no row are passed over.
///
/// # Errors
/// Internal alone.
pub(super) fn read_keys<'k>(
    template: &KeyTemplate,
    types: &[PgType],
    keys: impl Iterator<Item = &'k [u8]>,
) -> Result<Vec<ArrayRef>> {
    let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::new(); types.len()];
    for key in keys {
        let Some(texts) = std::str::from_utf8(key).ok().and_then(|key| template.read(key)) else { continue };
        let values = texts.iter().zip(types).map(|(text, pg_type)| key_of_text(text, pg_type));
        let Some(values) = values.collect::<Option<Vec<_>>>() else { continue };
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let joined = columns.iter().zip(types).map(|(values, pg_type)| match values.is_empty() {
        true => Ok(new_empty_array(&pg_type.arrow())),
        false => Ok(concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>())?),
    });
    joined.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{AsArray, Int64Array, StringViewArray};
    use datafusion::arrow::datatypes::Int64Type;

    use super::*;

    const TYPES: [PgType; 2] = [PgType::Int8, PgType::Text];

    #[test]
    fn keys_lead_back_to_the_values_that_made_them() {
        let template: KeyTemplate = "k:{a}:{b}".parse().unwrap();
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, 7, 8]));
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["x:y", "a\0b", ""]));
        let keys = write_keys(&template, &[&numbers, &texts], &TYPES).unwrap();
        let shown = keys.iter().map(|key| (key.position, key.text.as_str())).collect::<Vec<_>>();
        assert_eq!(shown, [(0, "k:-9223372036854775808:x:y"), (2, "k:8:")]);
        let read = read_keys(&template, &TYPES, keys.iter().map(|key| key.text.as_bytes())).unwrap();
        assert_eq!(write_keys(&template, &[&read[0], &read[1]], &TYPES).unwrap()[0].text, keys[0].text);
        assert_eq!(read[0].as_primitive::<Int64Type>().values(), &[i64::MIN, 8]);
    }

    #[test]
    fn keys_that_are_no_rows_are_passed_over() {
        let template: KeyTemplate = "k:{a}".parse().unwrap();
        let keys = [&b"k:7"[..], b"k:x", b"k:007", b"j:8", b"k:9", b"k:\xff"];
        let read = read_keys(&template, &[PgType::Int8], keys.into_iter()).unwrap();
        assert_eq!(read[0].as_primitive::<Int64Type>().values(), &[7, 9]);
        let none = read_keys(&template, &TYPES[..1], std::iter::empty()).unwrap();
        assert_eq!(none[0].len(), 0);
    }
}
