//! `COPY (query) TO STDOUT`: its options, and rows as CopyData messages in text, csv and binary form.

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::format::copy_options::{CopyFormat, CopyOptions};
use crate::server::copy_lines::CopyLines;
use crate::server::encode::{Columns, Format, ValueSettings, write_message_body};
use crate::server::encode_rows::{Layout, Row, RowAssembler};
use crate::server::encode_slot::SLOT_BYTES;

/// Writes a result as the messages of COPY OUT: [`CopyEncoder::begin`], rows, [`CopyEncoder::finish`].
#[derive(Clone, Debug)]
pub struct CopyEncoder {
    columns: Columns,
    options: CopyOptions,
    /// Whether the binary signature is still to be written.
    signature_due: bool,
    assembler: RowAssembler,
}

impl CopyEncoder {
    /// # Errors
    /// 0A000 for a column whose type PostgreSQL lacks, 54000 for more columns than a message can hold.
    pub fn try_new(schema: &SchemaRef, options: CopyOptions) -> Result<Self> {
        let format = match options.format() {
            CopyFormat::Text | CopyFormat::Csv => Format::Text,
            CopyFormat::Binary => Format::Binary,
        };
        let columns = Columns::try_new(schema, &vec![format; schema.fields().len()])?;
        let signature_due = format == Format::Binary;
        Ok(CopyEncoder { columns, options, signature_due, assembler: RowAssembler::default() })
    }

    pub fn with_settings(mut self, settings: ValueSettings) -> Self {
        self.columns.settings = settings;
        self
    }

    /// Appends the CopyOutResponse message and the line of names, if one is wanted.
    ///
    /// # Errors
    /// 54000 for names that no message can hold.
    pub fn begin(&self, out: &mut BytesMut) -> Result<()> {
        let code =
            if self.options.format() == CopyFormat::Binary { Format::Binary.code() } else { Format::Text.code() };
        out.put_u8(b'H');
        write_message_body(out, |out| {
            out.put_i8(code as i8);
            out.put_u16(self.columns.count);
            for _ in 0..self.columns.count {
                out.put_i16(code);
            }
            Ok(())
        })?;
        if !self.options.header() || self.options.format() == CopyFormat::Binary {
            return Ok(());
        }
        out.extend_from_slice(&CopyLines::new(&self.options, self.columns.count).line(self.columns.names())?);
        Ok(())
    }

    /// Appends a CopyData message for each of `rows`. After an error `out` ends with the last whole message.
    ///
    /// # Errors
    /// 22008 for a date or time that PostgreSQL cannot hold, 54000 for a row that no message can hold.
    pub fn encode(&mut self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<()> {
        self.encode_some(batch, rows, usize::MAX, out).map(|_| ())
    }

    /// As [`CopyEncoder::encode`], but not more rows once `out` has `enough` bytes; tells how many rows there were.
    ///
    /// # Errors
    /// As [`CopyEncoder::encode`].
    pub fn encode_some(
        &mut self,
        batch: &RecordBatch,
        rows: Range<usize>,
        enough: usize,
        out: &mut BytesMut,
    ) -> Result<usize> {
        let values = self.columns.values(batch, &rows)?;
        if self.options.format() == CopyFormat::Binary {
            let mut layout = CopyBinary { columns: self.columns.count, signature_due: self.signature_due };
            let written = self.assembler.assemble(&values, rows, &mut layout, enough, out);
            self.signature_due = layout.signature_due;
            return written;
        }
        let mut layout = CopyLines::new(&self.options, self.columns.count);
        self.assembler.assemble(&values, rows, &mut layout, enough, out)
    }

    /// Appends the binary trailer, if there is one, and the CopyDone message.
    ///
    /// # Errors
    /// None in practice: the messages are short.
    pub fn finish(&self, out: &mut BytesMut) -> Result<()> {
        if self.options.format() == CopyFormat::Binary {
            copy_data(out, |out| {
                self.write_signature(out);
                out.put_i16(-1);
                Ok(())
            })?;
        }
        out.put_u8(b'c');
        write_message_body(out, |_| Ok(()))
    }

    /// In one message with what follows it first, as PostgreSQL sends it: drivers rely on that.
    fn write_signature(&self, out: &mut BytesMut) {
        if self.signature_due {
            out.put_slice(&SIGNATURE);
        }
    }
}

/// What binary data begin with. There are no flags, and no further header.
const SIGNATURE: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Rows of COPY in binary form: as in the protocol's own, but in messages of data.
struct CopyBinary {
    columns: u16,
    signature_due: bool,
}

impl Layout for CopyBinary {
    fn overhead(&self, columns: usize) -> usize {
        7 + SIGNATURE.len() + 4 * columns
    }

    fn bound(&self, value: &[u8]) -> usize {
        value.len()
    }

    fn begin(&mut self, row: &mut Row<'_>) {
        row.put_array([b'd', 0, 0, 0, 0]);
        if self.signature_due {
            row.put_array(SIGNATURE);
        }
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
        row.put_length(start + 1)?;
        self.signature_due = false;
        Ok(())
    }
}

fn copy_data(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
    out.put_u8(b'd');
    write_message_body(out, write)
}

#[cfg(test)]
#[path = "encode_copy_tests.rs"]
mod tests;
