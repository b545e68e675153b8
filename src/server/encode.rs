//! From record batches to the rows of a result: RowDescription and DataRow messages, in text and in binary form.
//!
//! A batch's columns are downcast once; then runs of rows are written a column at a time and put together
//! (`encode_rows.rs`).

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use chrono_tz::Tz;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;
use crate::server::encode_column::ColumnWriter;
use crate::server::encode_rows::{Layout, Row, RowAssembler};
use crate::server::encode_slot::SLOT_BYTES;

/// How a value stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Text,
    Binary,
}

impl Format {
    /// The format of this number in a message.
    ///
    /// # Errors
    /// 22023 for a number other than 0 (text) and 1 (binary).
    pub fn of_code(code: i16) -> Result<Format> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(Error::new(Code::InvalidParameterValue, format!("unsupported format code: {other}"))),
        }
    }

    /// The format's number in messages.
    pub fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }

    /// A format for each of `columns` result columns from the list of a Bind message: none is text for
    /// all, one is for all, else one for each.
    ///
    /// # Errors
    /// 08P01 if the list fits none of these, 22023 for an unknown code.
    pub fn expand(codes: &[i16], columns: usize) -> Result<Vec<Format>> {
        match codes {
            [] => Ok(vec![Format::Text; columns]),
            [one] => Ok(vec![Format::of_code(*one)?; columns]),
            each if each.len() == columns => each.iter().map(|code| Format::of_code(*code)).collect(),
            other => Err(Error::new(
                Code::ProtocolViolation,
                format!("bind message has {} result formats but query has {columns} columns", other.len()),
            )),
        }
    }
}

/// The settings of a session that change how values are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueSettings {
    /// In which `timestamptz` is shown, and read where it names no zone.
    pub time_zone: Tz,
}

impl Default for ValueSettings {
    fn default() -> Self {
        ValueSettings { time_zone: Tz::UTC }
    }
}

/// Writes the rows of batches of one schema as DataRow messages.
#[derive(Clone, Debug)]
pub struct RowEncoder {
    columns: Columns,
    assembler: RowAssembler,
}

impl RowEncoder {
    /// `formats` has one entry for each column of `schema`: see [`Format::expand`].
    ///
    /// # Errors
    /// 0A000 for a column whose type PostgreSQL lacks, 54000 for more columns than a message can hold.
    pub fn try_new(schema: &SchemaRef, formats: &[Format]) -> Result<Self> {
        Ok(RowEncoder { columns: Columns::try_new(schema, formats)?, assembler: RowAssembler::default() })
    }

    pub fn with_settings(mut self, settings: ValueSettings) -> Self {
        self.columns.settings = settings;
        self
    }

    /// Appends a DataRow message for each of `rows` to `out`. After an error `out` ends with the last whole message.
    ///
    /// # Errors
    /// 22008 for a date or time that PostgreSQL cannot hold, 54000 for a row that no message can hold.
    pub fn encode(&mut self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<()> {
        self.encode_some(batch, rows, usize::MAX, out).map(|_| ())
    }

    /// As [`RowEncoder::encode`], but not more rows once `out` has `enough` bytes; tells how many rows there were.
    ///
    /// # Errors
    /// As [`RowEncoder::encode`].
    pub fn encode_some(
        &mut self,
        batch: &RecordBatch,
        rows: Range<usize>,
        enough: usize,
        out: &mut BytesMut,
    ) -> Result<usize> {
        let values = self.columns.values(batch, &rows)?;
        let mut layout = DataRow { columns: self.columns.count };
        self.assembler.assemble(&values, rows, &mut layout, enough, out)
    }
}

/// A message a row, of values that each have their length before them.
struct DataRow {
    columns: u16,
}

impl Layout for DataRow {
    fn overhead(&self, columns: usize) -> usize {
        7 + 4 * columns
    }

    fn bound(&self, value: &[u8]) -> usize {
        value.len()
    }

    fn begin(&mut self, row: &mut Row<'_>) {
        row.put_array([b'D', 0, 0, 0, 0]);
        row.put_array(self.columns.to_be_bytes());
    }

    fn null(&mut self, _column: usize, row: &mut Row<'_>) {
        row.put_array((-1_i32).to_be_bytes());
    }

    fn short(&mut self, _column: usize, value: &[u8; SLOT_BYTES], length: usize, row: &mut Row<'_>) {
        row.put_array((length as u32).to_be_bytes());
        row.put_slot(value, length);
    }

    /// A value of more bytes than its length can tell makes its row too long as well.
    fn long(&mut self, _column: usize, value: &[u8], row: &mut Row<'_>) {
        row.put_array((value.len() as u32).to_be_bytes());
        row.put_slice(value);
    }

    fn end(&mut self, start: usize, row: &mut Row<'_>) -> Result<()> {
        row.put_length(start + 1)
    }
}

/// The columns of a result: what encoders of rows and of COPY have in common.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    schema: SchemaRef,
    pub(super) types: Vec<PgType>,
    pub(super) formats: Vec<Format>,
    /// As messages count them.
    pub(super) count: u16,
    pub(super) settings: ValueSettings,
}

impl Columns {
    pub(super) fn try_new(schema: &SchemaRef, formats: &[Format]) -> Result<Self> {
        if formats.len() != schema.fields().len() {
            let message = format!("{} formats for {} columns", formats.len(), schema.fields().len());
            return Err(Error::internal(message));
        }
        let types = schema.fields().iter().map(|field| PgType::of_field(field)).collect::<Result<Vec<_>>>()?;
        let count = column_count(schema)?;
        let settings = ValueSettings::default();
        Ok(Columns { schema: schema.clone(), types, formats: formats.to_vec(), count, settings })
    }

    /// Whether `batch` is one of these columns and has these rows.
    pub(super) fn check(&self, batch: &RecordBatch, rows: &Range<usize>) -> Result<()> {
        if rows.start > rows.end || rows.end > batch.num_rows() || batch.num_columns() != self.types.len() {
            return Err(Error::internal(format!(
                "rows {rows:?} of {} columns asked of a batch of {} rows and {} columns",
                self.types.len(),
                batch.num_rows(),
                batch.num_columns()
            )));
        }
        for (position, column) in batch.columns().iter().enumerate() {
            let field = self.schema.field(position);
            if column.data_type() != field.data_type() {
                return Err(Error::internal(format!(
                    "column \"{}\" was declared as {} and came as {}",
                    field.name(),
                    field.data_type(),
                    column.data_type()
                )));
            }
        }
        Ok(())
    }

    /// One writer for each column of `batch`, for who wants single values.
    pub(super) fn writers<'a>(&'a self, batch: &'a RecordBatch) -> Result<Vec<ColumnWriter<'a>>> {
        self.check(batch, &(0..batch.num_rows()))?;
        let columns = batch.columns().iter().zip(&self.types).zip(&self.formats);
        let writers = columns
            .map(|((array, pg_type), format)| ColumnWriter::try_new(array.as_ref(), pg_type, *format, self.settings));
        writers.collect()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }
}

/// Appends a RowDescription message.
///
/// # Errors
/// 0A000 for a column whose type PostgreSQL lacks, 54000 for more columns than a message can hold.
pub fn row_description(schema: &SchemaRef, formats: &[Format], out: &mut BytesMut) -> Result<()> {
    let columns = Columns::try_new(schema, formats)?;
    out.put_u8(b'T');
    write_message_body(out, |out| {
        out.put_u16(columns.count);
        for ((name, pg_type), format) in columns.names().zip(&columns.types).zip(&columns.formats) {
            // A zero byte would end the name early and shift all that follows.
            out.put_slice(name.split('\0').next().unwrap_or_default().as_bytes());
            out.put_u8(0);
            // No table, no column of one.
            out.put_u32(0);
            out.put_i16(0);
            out.put_u32(pg_type.oid());
            out.put_i16(pg_type.byte_len());
            out.put_i32(type_modifier(pg_type));
            out.put_i16(format.code());
        }
        Ok(())
    })
}

/// `atttypmod` of a column: precision and scale of numeric, -1 for all else.
fn type_modifier(pg_type: &PgType) -> i32 {
    match pg_type {
        PgType::Numeric { precision, scale } => {
            // Eleven bits of two's complement hold the scale: `make_numeric_typmod` of PostgreSQL.
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
        }
        PgType::Array(element) => type_modifier(element),
        _ => -1,
    }
}

fn column_count(schema: &SchemaRef) -> Result<u16> {
    // PostgreSQL's own bound for a result.
    const MAX_COLUMNS: usize = 1664;
    match u16::try_from(schema.fields().len()) {
        Ok(count) if usize::from(count) <= MAX_COLUMNS => Ok(count),
        _ => {
            Err(Error::new(Code::ProgramLimitExceeded, format!("target lists can have at most {MAX_COLUMNS} entries")))
        }
    }
}

/// Appends what `write` appends, with its length in four bytes before it.
pub(super) fn write_sized(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
    write_counted(out, 0, write)
}

/// As [`write_sized`], but the length counts itself, as those of messages do.
pub(super) fn write_message_body(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
    write_counted(out, 4, write)
}

fn write_counted(out: &mut BytesMut, extra: usize, write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
    let at = out.len();
    out.put_i32(0);
    write(out)?;
    let length = out.len() - at - 4 + extra;
    let length = i32::try_from(length)
        .map_err(|_| Error::new(Code::ProgramLimitExceeded, format!("a row of {length} bytes fits no message")))?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
