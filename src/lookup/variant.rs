//! What all joins of one shape over a table share: how its keys and rows are held as bytes.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use ahash::RandomState;
use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::arrow::row::{Row, RowConverter, Rows, SortField};

use crate::error::{Error, Result};
use crate::store::LookupShape;

/// Arrow's row format holds keys (equal bytes are equal keys, and bytes sort as values do) and cached rows.
#[derive(Debug)]
pub(super) struct Variant {
    id: u64,
    shape: Arc<LookupShape>,
    schema: SchemaRef,
    keys: Arc<KeyFormat>,
    rows: RowConverter,
    /// How often all that is known of it was forgotten.
    generation: AtomicU64,
}

/// Variants that differ in nothing but the columns that they ask for share it, and so can read each other's keys.
#[derive(Debug)]
struct KeyFormat {
    types: Vec<DataType>,
    converter: RowConverter,
    hasher: RandomState,
}

impl Variant {
    /// `relatives` are the other variants of the table.
    ///
    /// # Errors
    /// XX000 for a shape that names columns which the store lacks, 0A000 for a type that has no row format.
    pub fn try_new(shape: Arc<LookupShape>, store: &Schema, relatives: &[Arc<Variant>]) -> Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        if shape.key_columns.is_empty() {
            return Err(Error::internal("a lookup without a key column was planned"));
        }
        let schema = Arc::new(store.project(&shape.columns)?);
        let keys = match relatives.iter().find(|other| same_keys(&other.shape, &shape)) {
            Some(relative) => Arc::clone(&relative.keys),
            None => Arc::new(KeyFormat::try_new(&store.project(&shape.key_columns)?)?),
        };
        let rows = row_converter(&schema)?;
        Ok(Variant { id: NEXT_ID.fetch_add(1, Relaxed), shape, schema, keys, rows, generation: AtomicU64::new(0) })
    }

    /// Where this variant's columns stand in `other`, if an answer to `other` answers this one as well.
    pub fn columns_in(&self, other: &Variant) -> Option<Vec<usize>> {
        if self.id == other.id || !same_keys(&self.shape, &other.shape) {
            return None;
        }
        let place = |column: &usize| other.shape.columns.iter().position(|other| other == column);
        self.shape.columns.iter().map(place).collect()
    }

    pub fn key_types(&self) -> &[DataType] {
        &self.keys.types
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn shape(&self) -> &Arc<LookupShape> {
        &self.shape
    }

    /// Rises when all that is known of it is forgotten. The generation of an answer is this and the table's together.
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    pub fn next_generation(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    /// The columns that are asked of the store.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn encode_keys(&self, keys: &[ArrayRef]) -> Result<Rows> {
        Ok(self.keys.converter.convert_columns(keys)?)
    }

    pub fn no_keys(&self, capacity: usize) -> Rows {
        self.keys.converter.empty_rows(capacity, 0)
    }

    pub fn decode_keys<'a>(&self, keys: impl IntoIterator<Item = Row<'a>>) -> Result<Vec<ArrayRef>> {
        Ok(self.keys.converter.convert_rows(keys)?)
    }

    pub fn hash_key(&self, key: &[u8]) -> u64 {
        self.keys.hasher.hash_one(key)
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

impl KeyFormat {
    fn try_new(columns: &Schema) -> Result<Self> {
        let types = columns.fields().iter().map(|field| field.data_type().clone()).collect();
        Ok(KeyFormat { types, converter: row_converter(columns)?, hasher: RandomState::new() })
    }
}

fn same_keys(one: &LookupShape, other: &LookupShape) -> bool {
    one.key_columns == other.key_columns && one.filters == other.filters
}

fn row_converter(schema: &Schema) -> Result<RowConverter> {
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    RowConverter::new(fields)
        .map_err(|error| Error::unsupported(format!("a lookup cannot hold such a column: {error}")))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array, Float64Array, StringViewArray, new_null_array};
    use datafusion::arrow::compute::concat;
    use datafusion::arrow::datatypes::Field;
    use datafusion::scalar::ScalarValue;

    use super::*;
    use crate::pg_type::PgType;
    use crate::store::Conditions;

    fn variant(store: &Schema) -> Variant {
        let columns = (0..store.fields().len()).collect();
        let shape = LookupShape { key_columns: vec![0], columns, filters: Conditions::default() };
        Variant::try_new(Arc::new(shape), store, &[]).unwrap()
    }

    fn round_trip(batch: &RecordBatch) -> RecordBatch {
        let variant = variant(&batch.schema());
        let encoded = variant.encode_rows(batch).unwrap().unwrap();
        let rows: Vec<Box<[u8]>> = encoded.iter().map(|row| row.data().into()).collect();
        variant.decode_rows(rows.len(), rows.iter().map(|row| &**row)).unwrap()
    }

    #[test]
    fn cached_rows_come_back_as_they_were_in_every_type() {
        let names = "boolean smallint integer bigint real float8 numeric(12,2) numeric(60,3) text bytea date time \
            timestamp timestamptz uuid json jsonb bigint[] text[] numeric(50,1)[] timestamptz[]";
        for name in names.split_whitespace() {
            let field = PgType::parse(name).unwrap().field("c", true);
            let value = ScalarValue::new_default(field.data_type()).unwrap().to_array().unwrap();
            let null = new_null_array(field.data_type(), 1);
            let column = concat(&[value.as_ref(), null.as_ref(), value.as_ref()]).unwrap();
            let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap();
            assert_eq!(round_trip(&batch), batch, "{name}");
        }
    }

    #[test]
    fn odd_floats_and_strings_are_kept_to_the_bit() {
        let floats = Float64Array::from(vec![-0.0, 0.0, f64::NAN, -f64::NAN, f64::MIN_POSITIVE, f64::NEG_INFINITY]);
        let strings = ["", "\0", "a\0b", "ÿ", "a string that is longer than twelve bytes", "'; drop table"];
        let fields = vec![Field::new("f", floats.data_type().clone(), true), PgType::Text.field("s", true)];
        let columns: Vec<ArrayRef> =
            vec![Arc::new(floats.clone()), Arc::new(StringViewArray::from_iter_values(strings))];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let back = round_trip(&batch);
        assert_eq!(back.column(1), batch.column(1));
        let bits = |column: &ArrayRef| -> Vec<u64> {
            let floats = column.as_any().downcast_ref::<Float64Array>().unwrap();
            floats.values().iter().map(|value| value.to_bits()).collect()
        };
        assert_eq!(bits(back.column(0)), bits(batch.column(0)));
        let variant = variant(&batch.schema());
        let keys = variant.encode_keys(&[Arc::new(floats)]).unwrap();
        let keys = variant.decode_keys(keys.iter()).unwrap();
        assert_eq!(bits(&keys[0]), bits(batch.column(0)), "a key reaches the store as it came");
    }

    #[test]
    fn shape_without_a_key_or_with_unknown_columns_is_refused() {
        let store = Schema::new(vec![PgType::Int8.field("id", false)]);
        for (key_columns, columns) in [(vec![], vec![0]), (vec![1], vec![0]), (vec![0], vec![1])] {
            let shape = LookupShape { key_columns, columns, filters: Conditions::default() };
            assert!(Variant::try_new(Arc::new(shape), &store, &[]).is_err());
        }
    }
}
