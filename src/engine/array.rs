//! `ARRAY(SELECT …)` until its subquery is run for itself: tells only the type.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;
use crate::sql::catalog_query::ARRAY_FUNCTION;

/// Marks a subquery of which all rows are wanted.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ArrayOf {
    signature: Signature,
}

impl ArrayOf {
    pub fn new() -> Self {
        ArrayOf { signature: Signature::any(1, Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for ArrayOf {
    fn name(&self) -> &str {
        ARRAY_FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let item = types.first().cloned().unwrap_or(DataType::Null);
        Ok(DataType::List(Arc::new(Field::new("item", item, true))))
    }

    /// Only subqueries over the system's catalogs are run for themselves.
    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::unsupported("ARRAY(SELECT …) is supported over the system's catalogs only")
            .with_hint("Write SELECT array_agg(…).")
            .into())
    }
}
