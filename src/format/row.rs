//! Rows that were read whole, collected into a record batch.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Code, Result};
use crate::format::text::{ColumnBuilder, Value, ValueError};
use crate::pg_type::PgType;

/// The most rows of a batch.
pub(crate) const BATCH_ROWS: usize = 8192;
/// Once a batch was made of so much input it is full, however few its rows are.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

pub(crate) struct RowBuilder {
    schema: SchemaRef,
    types: Vec<PgType>,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    input_bytes: usize,
}

impl RowBuilder {
    /// # Errors
    /// 0A000 for a column of an Arrow type that no type of PostgreSQL stands for.
    pub(crate) fn try_new(schema: &SchemaRef) -> Result<Self> {
        let types = schema.fields().iter().map(|field| PgType::of_field(field)).collect::<Result<Vec<_>>>()?;
        let columns = types.iter().map(ColumnBuilder::new).collect();
        Ok(RowBuilder { schema: Arc::clone(schema), types, columns, rows: 0, input_bytes: 0 })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn types(&self) -> &[PgType] {
        &self.types
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.input_bytes >= BATCH_BYTES
    }

    /// Appends one row, a value for each column, that was read from `input_bytes` of input.
    ///
    /// # Errors
    /// 23502 for a NULL in a column that is `not null`; nothing has been appended then.
    pub(crate) fn append(&mut self, values: Vec<Option<Value<'_>>>, input_bytes: usize) -> Result<(), ValueError> {
        for (value, field) in values.iter().zip(self.schema.fields()) {
            if value.is_none() && !field.is_nullable() {
                return Err(ValueError::new(
                    Code::NotNullViolation,
                    format!("null value in column \"{}\" violates not-null constraint", field.name()),
                ));
            }
        }
        for (value, column) in values.into_iter().zip(&mut self.columns) {
            column.push(value)?;
        }
        self.rows += 1;
        self.input_bytes += input_bytes;
        Ok(())
    }

    /// What was appended since the last call.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.input_bytes = 0;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?)
    }
}
