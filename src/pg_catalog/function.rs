//! The functions of `pg_catalog` that tools call, as DataFusion sees them: by row, on texts.

use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::SystemCatalog;
use super::expand::ExpandArray;
use super::function_body::BODIES;
use super::json::JsonBuildObject;
use super::snapshot::Snapshot;
use crate::catalog::Viewer;
use crate::error::{Code, Error, Result};
use crate::format::text::ColumnBuilder;
use crate::pg_type::PgType;

/// One function: its name, how many arguments it takes, what it gives, and how.
pub(super) struct Body {
    pub name: &'static str,
    pub arguments: RangeInclusive<usize>,
    /// The position from which on an argument may be NULL, and is then an empty text.
    pub nullable_from: usize,
    pub gives: fn() -> PgType,
    pub of: fn(&Call) -> Result<Option<String>>,
}

/// One call. An argument that is NULL makes the answer NULL without a call, but where [`Body::nullable_from`] says otherwise.
pub(super) struct Call<'a> {
    /// As PostgreSQL writes them.
    pub arguments: Vec<&'a str>,
    pub moment: &'a Moment<'a>,
}

/// What all calls of a batch share.
pub(super) struct Moment<'a> {
    pub viewer: &'a Viewer,
    system: &'a SystemCatalog,
    snapshot: OnceLock<Snapshot>,
}

impl Moment<'_> {
    /// What there is, without the columns of views.
    pub fn snapshot(&self) -> Result<&Snapshot> {
        if self.snapshot.get().is_none() {
            // Nobody else fills it meanwhile: a moment belongs to one batch.
            let _ = self.snapshot.set(self.system.snapshot_without_view_columns(self.viewer)?);
        }
        self.snapshot.get().ok_or_else(|| Error::internal("a snapshot was not kept"))
    }

    pub fn system(&self) -> &SystemCatalog {
        self.system
    }
}

impl Call<'_> {
    pub fn text(&self, position: usize) -> &str {
        self.arguments.get(position).copied().unwrap_or_default()
    }

    /// # Errors
    /// 22P02 for what is no number.
    pub fn oid(&self, position: usize) -> Result<u32> {
        let text = self.text(position);
        text.parse().map_err(|_| {
            Error::new(Code::InvalidTextRepresentation, format!("invalid input syntax for type oid: \"{text}\""))
        })
    }

    pub fn is_true(&self, position: usize) -> bool {
        matches!(self.text(position), "true" | "t")
    }
}

/// All functions, over one catalog.
pub fn functions(system: &Arc<SystemCatalog>) -> Vec<ScalarUDF> {
    let by_row = BODIES.iter().map(|body| ScalarUDF::from(CatalogFunction::new(body, Arc::clone(system))));
    by_row.chain([ScalarUDF::from(ExpandArray::new()), ScalarUDF::from(JsonBuildObject::new())]).collect()
}

/// The values as PostgreSQL writes them; arrays of what needs no quotes.
fn texts(array: &ArrayRef) -> Result<ArrayRef> {
    let Some(lists) = array.as_list_opt::<i32>() else { return Ok(cast(array, &DataType::Utf8)?) };
    let mut texts = StringBuilder::new();
    for row in 0..lists.len() {
        if lists.is_null(row) {
            texts.append_null();
            continue;
        }
        let items = cast(&lists.value(row), &DataType::Utf8)?;
        let items: Vec<&str> = items.as_string::<i32>().iter().map(|item| item.unwrap_or("NULL")).collect();
        texts.append_value(format!("{{{}}}", items.join(",")));
    }
    Ok(Arc::new(texts.finish()))
}

struct CatalogFunction {
    body: &'static Body,
    system: Arc<SystemCatalog>,
    signature: Signature,
}

impl CatalogFunction {
    fn new(body: &'static Body, system: Arc<SystemCatalog>) -> Self {
        let any = TypeSignature::OneOf(vec![TypeSignature::VariadicAny, TypeSignature::Nullary]);
        CatalogFunction { body, system, signature: Signature::new(any, Volatility::Stable) }
    }
}

impl std::fmt::Debug for CatalogFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CatalogFunction").field(&self.body.name).finish()
    }
}

/// There is one such function for each engine.
impl PartialEq for CatalogFunction {
    fn eq(&self, other: &Self) -> bool {
        self.body.name == other.body.name && Arc::ptr_eq(&self.system, &other.system)
    }
}

impl Eq for CatalogFunction {}

impl Hash for CatalogFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.body.name.hash(state);
    }
}

impl ScalarUDFImpl for CatalogFunction {
    fn name(&self) -> &str {
        self.body.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok((self.body.gives)().arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let count = args.arg_fields.len();
        if !self.body.arguments.contains(&count) {
            let error = format!("function {} does not take {count} arguments", self.body.name);
            return Err(Error::new(Code::UndefinedFunction, error).into());
        }
        Ok(Arc::new((self.body.gives)().field(self.body.name, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let viewer = Viewer::of(&args.config_options).ok_or_else(|| Error::internal("a call by nobody"))?;
        let moment = Moment { viewer, system: &self.system, snapshot: OnceLock::new() };
        let is_scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let mut columns = vec![];
        for value in &args.args {
            columns.push(texts(&value.to_array(rows)?)?);
        }
        let mut results = ColumnBuilder::new(&(self.body.gives)());
        for row in 0..rows {
            if columns.iter().take(self.body.nullable_from).any(|column| column.is_null(row)) {
                results.append_null();
                continue;
            }
            let text = |column: &ArrayRef| column.as_string::<i32>().is_valid(row).then_some(row);
            let arguments = columns
                .iter()
                .map(|column| text(column).map_or("", |row| column.as_string::<i32>().value(row)))
                .collect();
            match (self.body.of)(&Call { arguments, moment: &moment })? {
                Some(text) => results.append(&text).map_err(Error::from)?,
                None => results.append_null(),
            }
        }
        let results = results.finish();
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?),
            false => ColumnarValue::Array(results),
        })
    }
}
