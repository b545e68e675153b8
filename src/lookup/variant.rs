//! What all joins of one shape over a table share: how its keys and rows are held as bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ahash::RandomState;
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::row::{Row, RowConverter, Rows, SortField};

use crate::error::{Error, Result};
use crate::store::LookupShape;

/// Arrow's row format holds keys (equal bytes are equal keys, and bytes sort as values do) and cached rows.
#[derive(Debug)]
pub(super) struct Variant {
    id: u64,
    shape: Arc<LookupShape>,
    schema: SchemaRef,
    keys: RowConverter,
    rows: RowConverter,
    hasher: RandomState,
}

impl Variant {
    /// # Errors
    /// XX000 for a shape that names columns which the store lacks, 0A000 for a type that has no row format.
    pub fn try_new(shape: Arc<LookupShape>, store: &Schema) -> Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        if shape.key_columns.is_empty() {
            return Err(Error::internal("a lookup without a key column was planned"));
        }
        let schema = Arc::new(store.project(&shape.columns)?);
        let keys = row_converter(&store.project(&shape.key_columns)?)?;
        let rows = row_converter(&schema)?;
        Ok(Variant { id: NEXT_ID.fetch_add(1, Relaxed), shape, schema, keys, rows, hasher: RandomState::new() })
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn shape(&self) -> &Arc<LookupShape> {
        &self.shape
    }

    /// The columns that are asked of the store.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn encode_keys(&self, keys: &[ArrayRef]) -> Result<Rows> {
        Ok(self.keys.convert_columns(keys)?)
    }

    pub fn no_keys(&self, capacity: usize) -> Rows {
        self.keys.empty_rows(capacity, 0)
    }

    pub fn decode_keys<'a>(&self, keys: impl IntoIterator<Item = Row<'a>>) -> Result<Vec<ArrayRef>> {
        Ok(self.keys.convert_rows(keys)?)
    }

    pub fn hash_key(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The bytes of each row; `None` if the shape has no columns and so nothing to hold.
    pub fn encode_rows(&self, rows: &RecordBatch) -> Result<Option<Rows>> {
        if rows.num_columns() == 0 {
            return Ok(None);
        }
        Ok(Some(self.rows.convert_columns(rows.columns())?))
    }

    /// `count` rows from their bytes.
    pub fn decode_rows<'a>(&self, count: usize, rows: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let columns = match self.schema.fields().is_empty() {
            true => Vec::new(),
            false => {
                let parser = self.rows.parser();
                let parsed: Vec<Row<'_>> = rows.map(|row| parser.parse(row)).collect();
                self.rows.convert_rows(parsed)?
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

fn row_converter(schema: &Schema) -> Result<RowConverter> {
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    RowConverter::new(fields)
        .map_err(|error| Error::unsupported(format!("a lookup cannot hold such a column: {error}")))
}
