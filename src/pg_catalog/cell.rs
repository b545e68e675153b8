//! Values of catalog tables, row by row, as PostgreSQL's texts; and the batches made of them.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};

use super::declared::DeclaredRelation;
use crate::error::{Error, Result};
use crate::format::text::ColumnBuilder;
use crate::pg_type::PgType;

/// A value in PostgreSQL's input syntax; `None` is NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell(pub Option<Cow<'static, str>>);

impl Cell {
    pub const NULL: Cell = Cell(None);

    /// `{1,2}`.
    pub fn numbers(numbers: impl IntoIterator<Item = i64>) -> Cell {
        let texts: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
        format!("{{{}}}", texts.join(",")).into()
    }
}

impl From<&'static str> for Cell {
    fn from(text: &'static str) -> Self {
        Cell(Some(Cow::Borrowed(text)))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell(Some(Cow::Owned(text)))
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        if value { "t".into() } else { "f".into() }
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        number.to_string().into()
    }
}

impl From<i32> for Cell {
    fn from(number: i32) -> Self {
        number.to_string().into()
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        number.to_string().into()
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::NULL, Into::into)
    }
}

/// The rows of one table in the making.
pub struct TableRows {
    names: Vec<&'static str>,
    columns: Vec<ColumnBuilder>,
    /// What a column holds where a row says nothing of it.
    defaults: Vec<Option<&'static str>>,
    schema: SchemaRef,
}

impl TableRows {
    pub fn new(relation: &DeclaredRelation) -> Self {
        let types: Vec<PgType> = relation.columns.iter().map(|column| column.wire_type()).collect();
        let default = |(column, pg_type): (&super::declared::DeclaredColumn, &PgType)| {
            column.not_null.then_some(empty_value(pg_type))
        };
        TableRows {
            names: relation.columns.iter().map(|column| column.name).collect(),
            columns: types.iter().map(ColumnBuilder::new).collect(),
            defaults: relation.columns.iter().zip(&types).map(default).collect(),
            schema: schema_of(relation),
        }
    }

    /// Adds a row that has these values, and elsewhere NULL, or what is nothing where NULL cannot be.
    ///
    /// # Errors
    /// Internal, for a column that the table lacks or a value that its type cannot be.
    pub fn push(&mut self, cells: &[(&str, Cell)]) -> Result<()> {
        for (name, _) in cells {
            if !self.names.contains(name) {
                return Err(Error::internal(format!("a catalog table has no column \"{name}\"")));
            }
        }
        for (position, name) in self.names.iter().enumerate() {
            let given = cells.iter().find(|(given, _)| given == name);
            let text = match given {
                Some((_, cell)) => cell.0.as_deref(),
                None => self.defaults[position],
            };
            match text {
                Some(text) => self.columns[position].append(text).map_err(Error::from)?,
                None => self.columns[position].append_null(),
            }
        }
        Ok(())
    }

    /// # Errors
    /// Internal, when a NULL stands where none can be.
    pub fn finish(mut self) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        Ok(RecordBatch::try_new(self.schema, arrays)?)
    }
}

/// The table's columns as the planner sees them.
pub fn schema_of(relation: &DeclaredRelation) -> SchemaRef {
    let field =
        |column: &super::declared::DeclaredColumn| -> Field { column.wire_type().field(column.name, !column.not_null) };
    Arc::new(Schema::new(relation.columns.iter().map(field).collect::<Vec<_>>()))
}

fn empty_value(pg_type: &PgType) -> &'static str {
    match pg_type {
        PgType::Bool => "f",
        PgType::Array(_) => "{}",
        PgType::Text | PgType::Name | PgType::Char => "",
        _ => "0",
    }
}
