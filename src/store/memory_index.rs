//! Finds the rows of a table in memory by some of its columns, with PostgreSQL's `=`.

use std::sync::Arc;

use ahash::RandomState;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;

use super::KeyEquality;
use crate::error::Result;
use crate::format::literal;
use crate::pg_type::PgType;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;
/// As PostgreSQL counts them when it compares intervals.
const DAYS_PER_MONTH: i64 = 30;

/// Rows by key; rows of one key in the order of the table. A NULL in a key finds nothing and is not found.
pub(super) struct MemoryIndex {
    types: Vec<PgType>,
    converter: RowConverter,
    hasher: RandomState,
    /// The keys of all rows of the table.
    keys: Rows,
    /// A number for each distinct key.
    groups: HashTable<u32>,
    /// Any row of each group: where its key stands.
    row_of_group: Vec<u32>,
    /// Where in `rows` each group begins, and where the last one ends.
    starts: Vec<u32>,
    /// All rows with a key, group by group.
    rows: Vec<u32>,
}

impl MemoryIndex {
    /// # Errors
    /// 0A000 for a type that [`key_equality`] refuses; 22P02 for a uuid that is none.
    pub(super) fn try_new(table: &RecordBatch, key_columns: &[usize]) -> Result<MemoryIndex> {
        let mut columns = Vec::with_capacity(key_columns.len());
        let mut types = Vec::with_capacity(key_columns.len());
        for &position in key_columns {
            let schema = table.schema();
            key_equality(schema.field(position)).check_key(schema.field(position).name())?;
            let pg_type = PgType::of_field(schema.field(position))?;
            columns.push(comparable(table.column(position), &pg_type)?);
            types.push(pg_type);
        }
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        let keys = converter.convert_columns(&columns)?;
        let mut index = MemoryIndex {
            types,
            converter,
            hasher: RandomState::new(),
            keys,
            groups: HashTable::new(),
            row_of_group: Vec::new(),
            starts: Vec::new(),
            rows: Vec::new(),
        };
        let group_of_row = (0..table.num_rows()).map(|row| match columns.iter().any(|column| column.is_null(row)) {
            true => None,
            false => Some(index.group_for(row as u32)),
        });
        let group_of_row = group_of_row.collect::<Vec<_>>();
        index.sort_into_groups(&group_of_row);
        Ok(index)
    }

    /// For each key in turn, its rows: pairs of the key's position and the row's.
    pub(super) fn find(&self, keys: &[ArrayRef]) -> Result<(Vec<u32>, Vec<u32>)> {
        let columns = keys.iter().zip(&self.types).map(|(keys, pg_type)| comparable(keys, pg_type));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let wanted = self.converter.convert_columns(&columns)?;
        let (mut positions, mut rows) = (Vec::new(), Vec::new());
        for (position, key) in wanted.iter().enumerate() {
            if columns.iter().any(|column| column.is_null(position)) {
                continue;
            }
            let bytes = key.as_ref();
            let found = self.groups.find(self.hasher.hash_one(bytes), |&group| self.key_of(group) == bytes);
            let Some(&group) = found else { continue };
            let (start, end) = (self.starts[group as usize], self.starts[group as usize + 1]);
            let of_key = &self.rows[start as usize..end as usize];
            positions.resize(positions.len() + of_key.len(), position as u32);
            rows.extend_from_slice(of_key);
        }
        Ok((positions, rows))
    }

    /// What the index takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let numbers = self.row_of_group.capacity() + self.starts.capacity() + self.rows.capacity();
        self.keys.size() + self.groups.allocation_size() + numbers * size_of::<u32>()
    }

    fn key_of(&self, group: u32) -> &[u8] {
        self.keys.row(self.row_of_group[group as usize] as usize).data()
    }

    fn group_for(&mut self, row: u32) -> u32 {
        let MemoryIndex { hasher, keys, groups, row_of_group, .. } = self;
        let key_of = |group: &u32| keys.row(row_of_group[*group as usize] as usize).data();
        let bytes = keys.row(row as usize).data();
        if let Some(&group) = groups.find(hasher.hash_one(bytes), |group| key_of(group) == bytes) {
            return group;
        }
        let group = row_of_group.len() as u32;
        groups.insert_unique(hasher.hash_one(bytes), group, |group| hasher.hash_one(key_of(group)));
        row_of_group.push(row);
        group
    }

    fn sort_into_groups(&mut self, group_of_row: &[Option<u32>]) {
        let mut starts = vec![0_u32; self.row_of_group.len() + 1];
        for group in group_of_row.iter().flatten() {
            starts[*group as usize + 1] += 1;
        }
        for group in 1..starts.len() {
            starts[group] += starts[group - 1];
        }
        let mut next = starts.clone();
        self.rows = vec![0; starts.last().copied().unwrap_or_default() as usize];
        for (row, group) in group_of_row.iter().enumerate() {
            let Some(group) = group else { continue };
            self.rows[next[*group as usize] as usize] = row as u32;
            next[*group as usize] += 1;
        }
        self.starts = starts;
    }
}

/// How a table in memory compares a column of this type with keys.
pub(super) fn key_equality(field: &Field) -> KeyEquality {
    match PgType::of_field(field) {
        Ok(pg_type @ (PgType::Json | PgType::Jsonb | PgType::Array(_))) => {
            KeyEquality::None { reason: format!("equal values of type {pg_type} need not look the same") }
        }
        Ok(_) => KeyEquality::ByValue,
        Err(error) => KeyEquality::None { reason: error.to_string() },
    }
}

/// The values in a form whose equal bytes are PostgreSQL's equal values: -0 is 0, every NaN the same, a month 30 days,
/// a uuid without capitals.
///
/// # Errors
/// 22P02 for a uuid that is none.
pub(crate) fn comparable(column: &ArrayRef, pg_type: &PgType) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Float32 => {
            let column = column.as_primitive::<Float32Type>();
            Arc::new(column.unary::<_, Float32Type>(|value| if value.is_nan() { f32::NAN } else { value + 0.0 }))
        }
        DataType::Float64 => {
            let column = column.as_primitive::<Float64Type>();
            Arc::new(column.unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value + 0.0 }))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let column = column.as_primitive::<IntervalMonthDayNanoType>();
            let nanos = column.iter().map(|value| {
                let value = value?;
                let days = i64::from(value.months) * DAYS_PER_MONTH + i64::from(value.days);
                Some(i128::from(days) * NANOS_PER_DAY + i128::from(value.nanoseconds))
            });
            Arc::new(nanos.collect::<Decimal128Array>())
        }
        DataType::Utf8View if *pg_type == PgType::Uuid => {
            let texts = column.as_string_view().iter();
            let uuids = texts.map(|text| text.map(literal::uuid).transpose()).collect::<Result<Vec<_>, _>>()?;
            Arc::new(StringViewArray::from_iter(uuids))
        }
        _ => Arc::clone(column),
    })
}
