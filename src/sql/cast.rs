//! `pg_cast(value, 'type')`: PostgreSQL's input syntax for the types that DataFusion's CAST does not know.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::catalog::Viewer;
use crate::error::{Code, Error};
use crate::format::settings::ValueSettings;
use crate::format::text::ColumnBuilder;
use crate::pg_type::PgType;
use crate::sql::rewrite::CAST_FUNCTION;

/// Casts text (and what already has the type) to bytea, uuid, json, jsonb and arrays.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PgCast {
    signature: Signature,
}

impl PgCast {
    pub fn new() -> Self {
        PgCast { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl Default for PgCast {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for PgCast {
    fn name(&self) -> &str {
        CAST_FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::Internal("pg_cast tells its type by its field".into()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let target = target(args.scalar_arguments.get(1).copied().flatten())?;
        let source = args.arg_fields.first().map_or(&DataType::Null, |field| field.data_type());
        if !is_text(source)
            && source != &DataType::Null
            && !is_of_constants(&target)
            && (target != PgType::Oid || !source.is_integer())
            && source != &target.arrow()
            && !is_list_cast(source, &target)
        {
            let source = PgType::of_field(&Field::new("", source.clone(), true))?;
            return Err(Error::new(Code::DatatypeMismatch, format!("cannot cast type {source} to {target}")).into());
        }
        Ok(Arc::new(target.field(CAST_FUNCTION, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let target = PgType::of_field(&args.return_field)?;
        let value = &args.args[0];
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let array = value.to_array(if is_scalar { 1 } else { args.number_rows })?;
        let settings = Viewer::of(&args.config_options).map(Viewer::values).unwrap_or_default();
        let result = cast_array(&array, &target, settings)?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(only_value(&result)?),
            false => ColumnarValue::Array(result),
        })
    }
}

/// Of an array with one entry. DataFusion's own way would lose which type of PostgreSQL the items of a list have.
///
/// # Errors
/// Internal only.
pub fn only_value(array: &ArrayRef) -> Result<ScalarValue> {
    match array.as_list_opt::<i32>() {
        Some(lists) => Ok(ScalarValue::List(Arc::new(lists.slice(0, 1)))),
        None => ScalarValue::try_from_array(array, 0),
    }
}

fn target(argument: Option<&ScalarValue>) -> Result<PgType> {
    match argument.and_then(|value| value.try_as_str()).flatten() {
        Some(name) => Ok(PgType::parse(name)?),
        None => Err(Error::new(Code::SyntaxError, "pg_cast needs the name of a type").into()),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Of these only constants come here, and what is no text is cast as DataFusion casts it.
fn is_of_constants(target: &PgType) -> bool {
    matches!(
        target,
        PgType::Date | PgType::Time | PgType::Timestamp | PgType::Timestamptz | PgType::Float4 | PgType::Float8
    )
}

fn is_list_cast(source: &DataType, target: &PgType) -> bool {
    matches!(source, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
        && matches!(target, PgType::Array(_))
}

/// Values of another type, texts read as PostgreSQL reads them.
///
/// # Errors
/// 22P02 and 22003 for what the type cannot be.
pub fn cast_array(array: &ArrayRef, target: &PgType, settings: ValueSettings) -> Result<ArrayRef> {
    if !is_text(array.data_type()) {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        return Ok(cast_with_options(array, &target.arrow(), &strict)?);
    }
    let text = cast(array, &DataType::Utf8View)?;
    let text = text.as_string_view();
    let mut builder = ColumnBuilder::new(target).with_settings(settings);
    for row in 0..text.len() {
        if text.is_null(row) {
            builder.append_null();
        } else {
            builder.append(text.value(row)).map_err(Error::from)?;
        }
    }
    Ok(builder.finish())
}
