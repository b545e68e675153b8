//! Finds the rows of a table in memory by some of its columns, with PostgreSQL's `=`.

use std::sync::Arc;

use ahash::RandomState;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;

use crate::error::{Error, Result};
use crate::pg_type::PgType;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;
/// As PostgreSQL counts them when it compares intervals.
const DAYS_PER_MONTH: i64 = 30;

/// Rows by key; rows of one key in the order of the table. A NULL in a key finds nothing and is not found.
pub(super) struct FileIndex {
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

impl FileIndex {
    /// # Errors
    /// 0A000 for a type whose equality is not that of its bytes here: json, jsonb, arrays.
    pub(super) fn try_new(table: &RecordBatch, key_columns: &[usize]) -> Result<FileIndex> {
        let mut columns = Vec::with_capacity(key_columns.len());
        for &position in key_columns {
            let schema = table.schema();
            check_key_field(schema.field(position))?;
            columns.push(comparable(table.column(position)));
        }
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        let keys = converter.convert_columns(&columns)?;
        let mut index = FileIndex {
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
        let columns = keys.iter().map(comparable).collect::<Vec<_>>();
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

    fn key_of(&self, group: u32) -> &[u8] {
        self.keys.row(self.row_of_group[group as usize] as usize).data()
    }

    fn group_for(&mut self, row: u32) -> u32 {
        let FileIndex { hasher, keys, groups, row_of_group, .. } = self;
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

/// # Errors
/// 0A000 for a column of a type whose equality is not that of its bytes here: json, jsonb, arrays.
pub(super) fn check_key_field(field: &Field) -> Result<()> {
    let pg_type = PgType::of_field(field)?;
    if matches!(pg_type, PgType::Json | PgType::Jsonb | PgType::Array(_)) {
        return Err(Error::unsupported(format!("column \"{}\" of type {pg_type} cannot be a key", field.name())));
    }
    Ok(())
}

/// The values in a form whose equal bytes are PostgreSQL's equal values: -0 is 0, every NaN the same, a month 30 days.
pub(super) fn comparable(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
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
        _ => Arc::clone(column),
    }
}
