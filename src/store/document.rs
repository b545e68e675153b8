//! Rows made of JSON documents that a store found by key: columns by their paths, those of the key from the request.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::kernels::cmp::eq;
use datafusion::arrow::compute::{and, concat_batches, filter, filter_record_batch, take};
use datafusion::arrow::datatypes::{Schema, SchemaRef};

use super::memory_index::{MemoryIndex, comparable, key_equality};
use super::memory_table::batch_of;
use super::size::{AnswerRoom, POSITION_BYTES, column_bytes};
use super::{Answer, KeyEquality, LookupRequest, StoreError};
use crate::error::{Error, Result};
use crate::format::json::JsonDecoder;
use crate::format::json_path::JsonPath;
use crate::pg_type::PgType;

/// A declared column of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentColumn {
    pub name: String,
    pub pg_type: PgType,
    pub nullable: bool,
    /// Where in a document its value stands.
    pub path: JsonPath,
}

/// The columns of a table of documents.
#[derive(Clone, Debug)]
pub(super) struct DocumentColumns {
    schema: SchemaRef,
    paths: Vec<JsonPath>,
    /// Positions of the columns whose values every request has.
    key: Vec<usize>,
}

impl DocumentColumns {
    pub(super) fn new(columns: &[DocumentColumn], key: Vec<usize>) -> Self {
        let fields = columns.iter().map(|column| column.pg_type.field(&column.name, column.nullable));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        DocumentColumns { schema, paths: columns.iter().map(|column| column.path.clone()).collect(), key }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Refuses a lookup that does not compare the whole key.
    pub(super) fn check_keys(&self, key_columns: &[usize]) -> Result<()> {
        let Some(missing) = self.key.iter().find(|column| !key_columns.contains(column)) else { return Ok(()) };
        let names = self.key.iter().map(|&column| format!("\"{}\"", self.schema.field(column).name()));
        let names = names.collect::<Vec<_>>().join(", ");
        let message = format!("column \"{}\" of the key is not compared", self.schema.field(*missing).name());
        Err(Error::unsupported(message).with_hint(format!("The store finds rows by {names} alone.")))
    }

    /// Values are compared here, as PostgreSQL compares them.
    pub(super) fn key_equality(&self, column: usize) -> KeyEquality {
        let field = self.schema.fields().get(column);
        field.map_or_else(|| KeyEquality::unknown_column(column), |field| key_equality(field))
    }

    /// The request's keys, in the order of this table's key.
    ///
    /// # Errors
    /// Internal for a request that the planner should not have made.
    pub(super) fn keys<'r>(&self, request: &'r LookupRequest) -> Result<Vec<&'r ArrayRef>> {
        let shape = &request.shape;
        let columns = self.schema.fields().len();
        if let Some(column) = shape.columns.iter().chain(&shape.key_columns).find(|&&column| column >= columns) {
            return Err(Error::internal(format!("column {column} was asked of a table with {columns} columns")));
        }
        if let Some(filter) = shape.filters.first() {
            return Err(Error::internal(format!("a store of documents cannot apply {filter}")));
        }
        self.check_keys(&shape.key_columns)?;
        let key = |column| shape.key_columns.iter().position(|&of| of == column).and_then(|at| request.keys.get(at));
        let keys = self.key.iter().map(|&column| key(column)).collect::<Option<Vec<_>>>();
        keys.ok_or_else(|| Error::internal("a lookup needs an array of keys for each key column"))
    }
}

impl DocumentColumns {
    /// The columns that a store which was asked by the key must give for this request.
    pub(super) fn beside_key(&self, request: &LookupRequest) -> Vec<usize> {
        asked_columns(request).into_iter().filter(|column| !self.key.contains(column)).collect()
    }

    /// The answer made of rows that were found by the key: `rows` has the columns `read`, those of the key come from the
    /// request. Columns that are compared as well are compared here.
    pub(super) fn answer(
        &self,
        request: &LookupRequest,
        read: &[usize],
        rows: &RecordBatch,
        key_of_row: &UInt32Array,
    ) -> Result<Answer> {
        let shape = &request.shape;
        let asked = |column: usize| {
            let place = shape.key_columns.iter().position(|&of| of == column);
            let keys = place.and_then(|place| request.keys.get(place));
            keys.ok_or_else(|| Error::internal(format!("column {column} is neither read nor a key")))
        };
        let value_of = |column: usize| -> Result<ArrayRef> {
            match read.iter().position(|&of| of == column) {
                Some(place) => Ok(Arc::clone(rows.column(place))),
                None => Ok(take(asked(column)?, key_of_row, None)?),
            }
        };
        let mut matches: Option<BooleanArray> = None;
        // The store was asked by the others.
        for &column in shape.key_columns.iter().filter(|column| !self.key.contains(column)) {
            let pg_type = PgType::of_field(self.schema.field(column))?;
            let wanted = take(asked(column)?, key_of_row, None)?;
            let equal = eq(&comparable(&value_of(column)?, &pg_type)?, &comparable(&wanted, &pg_type)?)?;
            matches = Some(matches.map_or(Ok(equal.clone()), |matches| and(&matches, &equal))?);
        }
        let columns = shape.columns.iter().map(|&column| value_of(column)).collect::<Result<Vec<_>>>()?;
        let rows = batch_of(Arc::new(self.schema.project(&shape.columns)?), columns, key_of_row.len())?;
        Ok(match matches {
            None => Answer { rows, key_of_row: key_of_row.clone() },
            Some(matches) => Answer {
                rows: filter_record_batch(&rows, &matches)?,
                key_of_row: filter(key_of_row, &matches)?.as_primitive().clone(),
            },
        })
    }
}

/// The columns of a request's answer and of its keys, each once.
fn asked_columns(request: &LookupRequest) -> Vec<usize> {
    let mut asked: Vec<usize> = Vec::new();
    for &column in request.shape.columns.iter().chain(&request.shape.key_columns) {
        if !asked.contains(&column) {
            asked.push(column);
        }
    }
    asked
}

/// How documents say which key they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matching {
    /// Each was found by a key, which the caller knows.
    ByCaller,
    /// By the values of the key's columns in the document.
    ByValue,
}

/// Documents on their way into an answer.
pub(super) struct DocumentRows<'r> {
    request: &'r LookupRequest,
    columns: &'r DocumentColumns,
    matching: Matching,
    /// Which columns are read from documents, by their positions in the table.
    read: Vec<usize>,
    decoder: JsonDecoder,
    key_of_row: Vec<u32>,
    room: AnswerRoom,
    done: Vec<Answer>,
}

impl<'r> DocumentRows<'r> {
    /// For a request whose keys [`DocumentColumns::keys`] gave.
    pub(super) fn try_new(
        columns: &'r DocumentColumns,
        request: &'r LookupRequest,
        matching: Matching,
    ) -> Result<DocumentRows<'r>> {
        let read = match matching {
            Matching::ByCaller => columns.beside_key(request),
            Matching::ByValue => asked_columns(request),
        };
        let schema = Arc::new(columns.schema.project(&read)?);
        let paths = read.iter().map(|&column| columns.paths[column].clone()).collect::<Vec<_>>();
        Ok(DocumentRows {
            request,
            columns,
            matching,
            read,
            decoder: JsonDecoder::with_paths(&schema, &paths)?,
            key_of_row: Vec::new(),
            room: AnswerRoom::new(request.max_answer_bytes),
            done: Vec::new(),
        })
    }

    /// Takes a document in; `key` is the position of its key under [`Matching::ByCaller`].
    ///
    /// # Errors
    /// 22P02 and the like for a value that is not of its column's type; too large.
    pub(super) fn append(&mut self, key: u32, document: &str) -> Result<(), StoreError> {
        self.decoder.append(document).map_err(Error::from)?;
        self.key_of_row.push(key);
        if self.decoder.is_full() { self.flush() } else { Ok(()) }
    }

    /// The rows of all documents.
    ///
    /// # Errors
    /// Too large.
    pub(super) fn finish(mut self) -> Result<Answer, StoreError> {
        self.flush()?;
        let shape = &self.request.shape;
        let schema = Arc::new(self.columns.schema.project(&shape.columns).map_err(Error::from)?);
        let rows = match self.done.as_slice() {
            [] => RecordBatch::new_empty(schema),
            [all] => all.rows.clone(),
            done => concat_batches(&schema, done.iter().map(|part| &part.rows)).map_err(Error::from)?,
        };
        let keys = self.done.iter().flat_map(|part| part.key_of_row.values().iter().copied());
        Ok(Answer { rows, key_of_row: UInt32Array::from_iter_values(keys) })
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.decoder.is_empty() {
            return Ok(());
        }
        let read = self.decoder.finish()?;
        let key_of_row = std::mem::take(&mut self.key_of_row);
        let part = match self.matching {
            Matching::ByCaller => {
                self.columns.answer(self.request, &self.read, &read, &UInt32Array::from(key_of_row))?
            }
            Matching::ByValue => self.matched_by_value(&read)?,
        };
        self.room.take(part.key_of_row.len() as u64 * POSITION_BYTES)?;
        part.rows.columns().iter().try_for_each(|column| self.room.take(column_bytes(column)))?;
        self.done.push(part);
        Ok(())
    }

    /// Rows of keys that were not asked for are left out.
    fn matched_by_value(&self, read: &RecordBatch) -> Result<Answer> {
        let shape = &self.request.shape;
        let place = |column: &usize| {
            let place = self.read.iter().position(|of| of == column);
            place.ok_or_else(|| Error::internal(format!("column {column} was not read")))
        };
        let key_places = shape.key_columns.iter().map(place).collect::<Result<Vec<_>>>()?;
        let (positions, rows) = MemoryIndex::try_new(read, &key_places)?.find(&self.request.keys)?;
        let rows = UInt32Array::from(rows);
        let columns = shape.columns.iter().map(|column| Ok(take(read.column(place(column)?), &rows, None)?));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(self.columns.schema.project(&shape.columns)?);
        Ok(Answer { rows: batch_of(schema, columns, rows.len())?, key_of_row: UInt32Array::from(positions) })
    }
}
