//! Parameters that are arrays of numerics: their elements share a precision and a scale that is told by their values.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, ListArray, new_empty_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::scalar::ScalarValue;

use crate::error::Result;
use crate::format::{binary, literal};
use crate::pg_type::PgType;
use crate::server::numeric::ParsedNumeric;

/// `{1,NULL,2.5}`
pub(super) fn array_of_text(text: &str, element: &PgType) -> Result<ScalarValue> {
    let parse = |value: Option<String>| value.map(|value| ParsedNumeric::of_text(&value)).transpose();
    numerics_of(literal::array(text)?.into_iter().map(parse).collect::<Result<Vec<_>>>()?, element)
}

pub(super) fn array_of_binary(bytes: &[u8], element: &PgType) -> Result<ScalarValue> {
    let parse = |value: Option<&[u8]>| value.map(ParsedNumeric::of_binary).transpose();
    numerics_of(binary::array(bytes, element)?.into_iter().map(parse).collect::<Result<Vec<_>>>()?, element)
}

/// The least precision and scale that hold all of them exactly.
fn numerics_of(values: Vec<Option<ParsedNumeric>>, element: &PgType) -> Result<ScalarValue> {
    let common = ParsedNumeric::common_type(values.iter().flatten(), element)?;
    let null = ScalarValue::try_from(common.arrow())?;
    let scalar = |value: Option<ParsedNumeric>| value.map_or(Ok(null.clone()), |value| value.into_scalar_of(&common));
    let values = values.into_iter().map(scalar).collect::<Result<Vec<_>>>()?;
    let values: ArrayRef = match values.is_empty() {
        true => new_empty_array(&common.arrow()),
        false => ScalarValue::iter_to_array(values)?,
    };
    let field = Arc::new(common.field("item", true));
    let list = ListArray::try_new(field, OffsetBuffer::from_lengths([values.len()]), values, None)?;
    Ok(ScalarValue::List(Arc::new(list)))
}
