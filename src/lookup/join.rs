//! From rows and the answers to their keys to joined batches. Pure: no waiting here.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use datafusion::arrow::compute::{interleave, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;

use super::keys::{NO_KEY, as_true};
use super::{JoinKind, LookupJoin};
use crate::error::{Error, Result};

/// Most rows in one batch that leaves, however many rows a key finds.
pub(super) const MOST_ROWS: usize = 8192;

/// Rows of the stream with what is known of their keys.
pub(super) struct LeftRows {
    pub batch: RecordBatch,
    /// For each row the position of its key in `matches`, or [`NO_KEY`].
    pub key_of_row: Vec<u32>,
    pub matches: Vec<KeyMatch>,
    /// Where the rows that were found are.
    pub sources: Vec<RecordBatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyMatch {
    Pending,
    /// Rows `start..start + rows` of `sources[source]`; none, if the key was not found.
    Found {
        source: u32,
        start: u32,
        rows: u32,
    },
    /// The lookup failed; which error it was, the queue knows.
    Failed(u32),
    /// The lookup failed, and rows of this key are dropped.
    Skipped,
}

impl KeyMatch {
    pub const NONE: KeyMatch = KeyMatch::Found { source: 0, start: 0, rows: 0 };

    /// The same, `sources` sources further on.
    pub fn moved_by(self, sources: u32) -> KeyMatch {
        match self {
            KeyMatch::Found { source, start, rows } => KeyMatch::Found { source: source + sources, start, rows },
            KeyMatch::Pending | KeyMatch::Failed(_) | KeyMatch::Skipped => self,
        }
    }

    /// Whether rows of this key may leave the stage, joined or not.
    pub fn is_final(self) -> bool {
        match self {
            KeyMatch::Found { .. } | KeyMatch::Skipped => true,
            KeyMatch::Pending | KeyMatch::Failed(_) => false,
        }
    }
}

impl LeftRows {
    /// What is known of a row's key; a row without a key finds nothing.
    pub fn match_of(&self, row: u32) -> KeyMatch {
        match self.key_of_row[row as usize] {
            NO_KEY => KeyMatch::NONE,
            key => self.matches[key as usize],
        }
    }
}

/// Some rows of a batch, in the order in which they leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowSet {
    Range(Range<u32>),
    List(Vec<u32>),
}

impl RowSet {
    pub fn len(&self) -> usize {
        match self {
            RowSet::Range(range) => range.len(),
            RowSet::List(rows) => rows.len(),
        }
    }

    pub fn get(&self, at: usize) -> u32 {
        match self {
            RowSet::Range(range) => range.start + at as u32,
            RowSet::List(rows) => rows[at],
        }
    }
}

/// How far a set of rows has been joined.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    at: usize,
    /// How many matches of the row at `at` have been seen.
    matches: u32,
    /// Whether one of these passed the residual condition.
    kept: bool,
}

/// Joins rows with their matches.
pub(super) struct Joiner {
    kind: JoinKind,
    schema: SchemaRef,
    input_columns: usize,
    projection: Vec<usize>,
    table: SchemaRef,
    residual: Option<Residual>,
}

/// A condition over the columns that it needs, which are gathered for it alone.
struct Residual {
    condition: Arc<dyn PhysicalExpr>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

pub(super) const PAD: (u32, u32) = (u32::MAX, 0);

/// Which row of the stream stands beside which row of the table (source and row there), or beside [`PAD`].
#[derive(Default)]
struct Pairs {
    left: Vec<u32>,
    right: Vec<(u32, u32)>,
}

impl Pairs {
    fn push(&mut self, left: u32, right: (u32, u32)) {
        self.left.push(left);
        self.right.push(right);
    }
}

/// Input fields followed by table fields, which LEFT makes nullable; projected.
pub(super) fn joined_schema(join: &LookupJoin, input: &Schema, table: &Schema) -> Result<SchemaRef> {
    let table_fields = table.fields().iter().map(|field| match join.kind {
        JoinKind::Inner => Arc::clone(field),
        JoinKind::Left => Arc::new(field.as_ref().clone().with_nullable(true)),
    });
    let all = Schema::new(input.fields().iter().cloned().chain(table_fields).collect::<Vec<_>>());
    Ok(Arc::new(all.project(&join.projection)?))
}

impl Joiner {
    /// `table` has the columns of the shape.
    ///
    /// # Errors
    /// XX000 for a projection or a residual condition that names columns which are not there.
    pub fn try_new(join: &LookupJoin, input: &SchemaRef, table: &SchemaRef) -> Result<Self> {
        let residual = join.residual.as_ref().map(|residual| Residual::try_new(residual, input, table)).transpose()?;
        Ok(Joiner {
            kind: join.kind,
            schema: joined_schema(join, input, table)?,
            input_columns: input.fields().len(),
            projection: join.projection.clone(),
            table: Arc::clone(table),
            residual,
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch of the join of `rows`, or `None` at their end.
    ///
    /// # Errors
    /// What evaluating the residual condition fails with.
    pub fn next_batch(&self, left: &LeftRows, rows: &RowSet, cursor: &mut Cursor) -> Result<Option<RecordBatch>> {
        while cursor.at < rows.len() {
            let mut pairs = self.pair(left, rows, cursor)?;
            if let Some(residual) = &self.residual {
                pairs = self.filter(residual, left, pairs, cursor)?;
            }
            if !pairs.left.is_empty() {
                return self.gather(left, &pairs).map(Some);
            }
        }
        Ok(None)
    }

    fn pair(&self, left: &LeftRows, rows: &RowSet, cursor: &mut Cursor) -> Result<Pairs> {
        let mut pairs = Pairs::default();
        while cursor.at < rows.len() && pairs.left.len() < MOST_ROWS {
            let row = rows.get(cursor.at);
            let (source, start, count) = match left.match_of(row) {
                KeyMatch::Found { source, start, rows } => (source, start, rows),
                KeyMatch::Skipped => {
                    cursor.at += 1;
                    continue;
                }
                KeyMatch::Pending | KeyMatch::Failed(_) => {
                    return Err(Error::internal("a row without an answer was to leave a lookup join"));
                }
            };
            if count == 0 && self.kind == JoinKind::Left {
                pairs.push(row, PAD);
            }
            let room = u32::try_from(MOST_ROWS - pairs.left.len().min(MOST_ROWS)).unwrap_or(u32::MAX);
            let until = count.min(cursor.matches.saturating_add(room));
            for nth in cursor.matches..until {
                pairs.push(row, (source, start + nth));
            }
            if until < count {
                cursor.matches = until;
                break;
            }
            cursor.matches = 0;
            cursor.at += 1;
        }
        Ok(pairs)
    }

    /// Drops the matches that the condition does not keep; LEFT pads a row that has lost all of them.
    fn filter(&self, residual: &Residual, left: &LeftRows, pairs: Pairs, cursor: &mut Cursor) -> Result<Pairs> {
        let passes = residual.evaluate(self, left, &pairs)?;
        let mut kept = Pairs::default();
        for (at, (row, right)) in pairs.left.iter().zip(&pairs.right).enumerate() {
            if *right == PAD || passes.value(at) {
                kept.push(*row, *right);
                cursor.kept = true;
            }
            let is_last = match pairs.left.get(at + 1) {
                Some(next) => next != row,
                None => cursor.matches == 0,
            };
            if !is_last {
                continue;
            }
            if !cursor.kept && self.kind == JoinKind::Left {
                kept.push(*row, PAD);
            }
            cursor.kept = false;
        }
        Ok(kept)
    }

    /// Whether each match leaves, without a condition.
    pub fn is_plain(&self) -> bool {
        self.residual.is_none()
    }

    /// Joins each row with the one row of `source` that it has there.
    pub fn join_found(&self, batch: &RecordBatch, source: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
        let rows = UInt32Array::from(rows);
        let columns = self.projection.iter().map(|column| match column.checked_sub(self.input_columns) {
            None => Ok(Arc::clone(batch.column(*column))),
            Some(column) => Ok(take(source.column(column), &rows, None)?),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// Joins rows with at most one match each: where it is, or [`PAD`]. `None` if no row leaves.
    pub fn join_each(
        &self,
        batch: &RecordBatch,
        sources: &[RecordBatch],
        right: Vec<(u32, u32)>,
    ) -> Result<Option<RecordBatch>> {
        let rows = 0..right.len() as u32;
        let pairs = match self.kind {
            JoinKind::Left => Pairs { left: rows.collect(), right },
            JoinKind::Inner => {
                let found = rows.zip(right).filter(|(_, right)| *right != PAD);
                let (left, right) = found.unzip();
                Pairs { left, right }
            }
        };
        if pairs.left.is_empty() {
            return Ok(None);
        }
        self.gather_columns(&self.projection, &self.schema, (batch, sources), &pairs).map(Some)
    }

    fn gather(&self, left: &LeftRows, pairs: &Pairs) -> Result<RecordBatch> {
        self.gather_columns(&self.projection, &self.schema, (&left.batch, &left.sources), pairs)
    }

    fn gather_columns(
        &self,
        columns: &[usize],
        schema: &SchemaRef,
        (batch, sources): (&RecordBatch, &[RecordBatch]),
        pairs: &Pairs,
    ) -> Result<RecordBatch> {
        let from_left = LeftGather::new(&pairs.left);
        let from_right = RightGather::new(sources, &pairs.right);
        let mut arrays = Vec::with_capacity(columns.len());
        for column in columns {
            arrays.push(match column.checked_sub(self.input_columns) {
                None => from_left.column(batch.column(*column))?,
                Some(column) => from_right.column(column, self.table.field(column))?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(pairs.left.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
    }
}

impl Residual {
    fn try_new(condition: &Arc<dyn PhysicalExpr>, input: &Schema, table: &Schema) -> Result<Self> {
        let mut columns: Vec<usize> = collect_columns(condition).iter().map(Column::index).collect();
        columns.sort_unstable();
        columns.dedup();
        // Padded rows are gathered with the others, though the condition is not evaluated for them.
        let all: Vec<Field> = input.fields().iter().chain(table.fields()).map(|f| f.as_ref().clone()).collect();
        let schema = Schema::new(all).project(&columns)?;
        let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let renumbered = Arc::clone(condition).transform(|part| {
            let place = part.downcast_ref::<Column>().and_then(|column| {
                columns.binary_search(&column.index()).ok().map(|place| Column::new(column.name(), place))
            });
            Ok(match place {
                Some(column) => Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>),
                None => Transformed::no(part),
            })
        })?;
        Ok(Residual { condition: renumbered.data, columns, schema: Arc::new(Schema::new(fields)) })
    }

    fn evaluate(&self, joiner: &Joiner, left: &LeftRows, pairs: &Pairs) -> Result<BooleanArray> {
        let batch = joiner.gather_columns(&self.columns, &self.schema, (&left.batch, &left.sources), pairs)?;
        let matched: BooleanArray = pairs.right.iter().map(|right| Some(*right != PAD)).collect();
        let value = self.condition.evaluate_selection(&batch, &matched)?.into_array(batch.num_rows())?;
        as_true(&value)
    }
}

/// Rows of a batch, which may have no columns.
pub(super) fn take_rows(batch: &RecordBatch, rows: &UInt32Array) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| take(column, rows, None)).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// `take` leaves views pointing into the buffers they came from.
pub(super) fn compacted(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    });
    Ok(match batch.num_columns() {
        0 => batch.clone(),
        _ => RecordBatch::try_new(batch.schema(), columns.collect())?,
    })
}

/// Takes columns of the stream's batch; where its rows follow one another, without copying.
struct LeftGather {
    run: Option<(usize, usize)>,
    rows: UInt32Array,
}

impl LeftGather {
    fn new(rows: &[u32]) -> Self {
        match run_of(rows.iter().copied()) {
            Some(run) => LeftGather { run: Some(run), rows: UInt32Array::from(Vec::<u32>::new()) },
            None => LeftGather { run: None, rows: UInt32Array::from(rows.to_vec()) },
        }
    }

    fn column(&self, column: &ArrayRef) -> Result<ArrayRef> {
        Ok(match self.run {
            Some((start, rows)) => column.slice(start, rows),
            None => take(column, &self.rows, None)?,
        })
    }
}

/// Takes columns of what was found, from wherever it is, NULLs for pads.
enum RightGather<'a> {
    Nulls(usize),
    Run { source: &'a RecordBatch, start: usize, rows: usize },
    One { source: &'a RecordBatch, rows: UInt32Array },
    Many { sources: Vec<&'a RecordBatch>, rows: Vec<(usize, usize)> },
}

impl<'a> RightGather<'a> {
    fn new(sources: &'a [RecordBatch], pairs: &[(u32, u32)]) -> Self {
        let Some((first, _)) = pairs.iter().find(|pair| **pair != PAD) else { return RightGather::Nulls(pairs.len()) };
        if pairs.iter().all(|pair| pair.0 == *first || *pair == PAD) {
            let source = &sources[*first as usize];
            let run = if pairs.contains(&PAD) { None } else { run_of(pairs.iter().map(|pair| pair.1)) };
            return match run {
                Some((start, rows)) => RightGather::Run { source, start, rows },
                None => {
                    let rows = pairs.iter().map(|pair| (*pair != PAD).then_some(pair.1)).collect();
                    RightGather::One { source, rows }
                }
            };
        }
        // The one row of NULLs that stands for pads comes first.
        let rows = pairs.iter().map(|pair| if *pair == PAD { (0, 0) } else { (pair.0 as usize + 1, pair.1 as usize) });
        RightGather::Many { sources: sources.iter().collect(), rows: rows.collect() }
    }

    fn column(&self, column: usize, field: &Field) -> Result<ArrayRef> {
        Ok(match self {
            RightGather::Nulls(rows) => new_null_array(field.data_type(), *rows),
            RightGather::Run { source, start, rows } => source.column(column).slice(*start, *rows),
            RightGather::One { source, rows } => take(source.column(column), rows, None)?,
            RightGather::Many { sources, rows } => {
                let pad = new_null_array(field.data_type(), 1);
                let sources = sources.iter().map(|source| source.column(column).as_ref());
                let arrays: Vec<&dyn Array> = std::iter::once(pad.as_ref()).chain(sources).collect();
                interleave(&arrays, rows)?
            }
        })
    }
}

/// Start and length, if the rows follow one another.
fn run_of(mut rows: impl Iterator<Item = u32>) -> Option<(usize, usize)> {
    let start = rows.next()?;
    let mut length = 1;
    for row in rows {
        if row != start + length {
            return None;
        }
        length += 1;
    }
    Some((start as usize, length as usize))
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
