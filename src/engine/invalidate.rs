//! `lookaside.invalidate(table)` and `lookaside.invalidate(table, key, …)`: makes a cache forget.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature};

use super::arguments::{Call, administrator, cached_table, calls, check_types, signature};
use crate::catalog::Catalog;
use crate::error::Result;

const NAME: &str = "lookaside.invalidate";

/// Forgets all that a table remembers, or what it knows of some keys; gives the number of entries forgotten.
#[derive(Debug)]
pub(super) struct Invalidate {
    catalog: Arc<Catalog>,
    signature: Signature,
}

impl Invalidate {
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Invalidate { catalog, signature: signature() }
    }

    fn invalidate(&self, call: &Call) -> Result<Option<i64>> {
        let Some(name) = &call.table else { return Ok(None) };
        let Some(table) = cached_table(&self.catalog, name)?.connected_table() else { return Ok(Some(0)) };
        if call.keys.is_empty() {
            return Ok(Some(table.invalidate_all() as i64));
        }
        let mut forgotten = 0;
        for key in &call.keys {
            let parts = key_parts(key);
            // NULL is no key, so nothing is known of it.
            if parts.iter().all(|part| part.is_valid(0)) {
                forgotten += table.invalidate_keys(&parts)?;
            }
        }
        Ok(Some(forgotten as i64))
    }
}

/// A row value is a key of several columns.
fn key_parts(key: &ArrayRef) -> Vec<ArrayRef> {
    match key.as_struct_opt() {
        Some(row) if row.is_valid(0) => row.columns().to_vec(),
        _ => vec![Arc::clone(key)],
    }
}

/// There is one such function for each engine.
impl PartialEq for Invalidate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.catalog, &other.catalog)
    }
}

impl Eq for Invalidate {}

impl Hash for Invalidate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl ScalarUDFImpl for Invalidate {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        check_types(NAME, types)?;
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        administrator(NAME, &args)?;
        let forgotten = calls(&args)?.iter().map(|call| self.invalidate(call)).collect::<Result<Int64Array>>()?;
        Ok(ColumnarValue::Array(Arc::new(forgotten)))
    }
}
