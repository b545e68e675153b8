//! `information_schema._pg_expandarray`, by which drivers read the columns of a key: each entry with its number.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, StructArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;

/// `{7,9}` becomes `{(7,1),(9,2)}`, with the fields `x` and `n`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExpandArray {
    signature: Signature,
}

impl ExpandArray {
    pub fn new() -> Self {
        ExpandArray { signature: Signature::any(1, Volatility::Immutable) }
    }
}

fn fields() -> Fields {
    Fields::from(vec![Field::new("x", DataType::Int32, true), Field::new("n", DataType::Int32, true)])
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Struct(fields()), true))
}

impl ScalarUDFImpl for ExpandArray {
    fn name(&self) -> &str {
        "pg_expandarray"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(item()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.first().ok_or_else(|| Error::internal("a call without arguments"))?;
        let array = value.to_array(args.number_rows)?;
        let lists = array.as_list_opt::<i32>().ok_or_else(|| Error::internal("an array that is none"))?;
        let first = lists.value_offsets().first().copied().unwrap_or_default() as usize;
        let last = lists.value_offsets().last().copied().unwrap_or_default() as usize;
        let entries = cast(&lists.values().slice(first, last - first), &DataType::Int32)?;
        let lengths: Vec<usize> = (0..lists.len()).map(|row| lists.value_length(row) as usize).collect();
        let numbers: Int32Array = lengths.iter().flat_map(|length| 1..=*length as i32).collect();
        let pairs: Vec<ArrayRef> = vec![entries, Arc::new(numbers)];
        let pairs = StructArray::try_new(fields(), pairs, None)?;
        let offsets = datafusion::arrow::buffer::OffsetBuffer::from_lengths(lengths);
        let expanded = ListArray::try_new(item(), offsets, Arc::new(pairs), lists.nulls().cloned())?;
        Ok(ColumnarValue::Array(Arc::new(expanded)))
    }
}
