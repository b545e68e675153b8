//! `json_build_object`, in which tools ask for several facts at once.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use serde_json::Value;

use crate::error::{Code, Error};
use crate::pg_type::PgType;

/// Of names and values in turn makes an object.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct JsonBuildObject {
    signature: Signature,
}

impl JsonBuildObject {
    pub fn new() -> Self {
        let any = TypeSignature::OneOf(vec![TypeSignature::VariadicAny, TypeSignature::Nullary]);
        JsonBuildObject { signature: Signature::new(any, Volatility::Stable) }
    }
}

const NAME: &str = "json_build_object";

impl ScalarUDFImpl for JsonBuildObject {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(PgType::Json.arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if args.arg_fields.len() % 2 == 1 {
            let error = "argument list must have even number of elements";
            return Err(Error::new(Code::InvalidParameterValue, error)
                .with_hint("The arguments of json_build_object() must consist of alternating keys and values.")
                .into());
        }
        Ok(Arc::new(PgType::Json.field(NAME, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut columns = vec![];
        for value in &args.args {
            let array = value.to_array(args.number_rows)?;
            let is_bare = array.data_type().is_numeric() || array.data_type() == &DataType::Boolean;
            columns.push((cast(&array, &DataType::Utf8)?, is_bare));
        }
        let mut objects = StringViewBuilder::new();
        for row in 0..args.number_rows {
            let mut members = vec![];
            for pair in columns.chunks(2) {
                let [(names, _), (values, is_bare)] = pair else { continue };
                if names.is_null(row) {
                    return Err(Error::new(Code::InvalidParameterValue, "null value not allowed for object key").into());
                }
                let name = Value::from(names.as_string::<i32>().value(row));
                members.push(format!("{name} : {}", written(values, *is_bare, row)));
            }
            objects.append_value(format!("{{{}}}", members.join(", ")));
        }
        Ok(ColumnarValue::Array(Arc::new(objects.finish())))
    }
}

fn written(values: &ArrayRef, is_bare: bool, row: usize) -> String {
    if values.is_null(row) {
        return "null".to_string();
    }
    let text = values.as_string::<i32>().value(row);
    if is_bare { text.to_string() } else { Value::from(text).to_string() }
}
