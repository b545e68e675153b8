//! `COPY (query) TO STDOUT`: its options, and rows as CopyData messages in text, csv and binary form.

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::format::copy_options::{CopyFormat, CopyOptions};
use crate::server::encode::{Columns, Format, ValueSettings, write_fields, write_message_body};
use crate::server::encode_column::ColumnWriter;
use crate::server::encode_text::{escape_from, quote};

/// Writes a result as the messages of COPY OUT: [`CopyEncoder::begin`], rows, [`CopyEncoder::finish`].
#[derive(Clone, Debug)]
pub struct CopyEncoder {
    columns: Columns,
    options: CopyOptions,
    /// Whether the binary signature is still to be written.
    signature_due: bool,
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
        Ok(CopyEncoder { columns, options, signature_due })
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
        copy_data(out, |out| {
            for (position, name) in self.columns.names().enumerate() {
                self.write_delimiter(position, out);
                let start = out.len();
                out.put_slice(name.as_bytes());
                self.protect(start, out);
            }
            out.put_u8(b'\n');
            Ok(())
        })
    }

    /// Appends a CopyData message for each of `rows`. After an error `out` ends with the last whole message.
    ///
    /// # Errors
    /// 22008 for a date or time that PostgreSQL cannot hold, 54000 for a row that no message can hold.
    pub fn encode(&mut self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<()> {
        let writers = self.columns.writers(batch, &rows)?;
        for row in rows {
            let start = out.len();
            let written = copy_data(out, |out| {
                self.write_signature(out);
                self.write_row(&writers, row, out)
            });
            if let Err(error) = written {
                out.truncate(start);
                return Err(error);
            }
            self.signature_due = false;
        }
        Ok(())
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
            out.put_slice(b"PGCOPY\n\xff\r\n\0");
            // No flags, no further header.
            out.put_u32(0);
            out.put_u32(0);
        }
    }

    fn write_row(&self, writers: &[ColumnWriter<'_>], row: usize, out: &mut BytesMut) -> Result<()> {
        if self.options.format() == CopyFormat::Binary {
            out.put_u16(self.columns.count);
            return write_fields(writers, row, out);
        }
        for (position, writer) in writers.iter().enumerate() {
            self.write_delimiter(position, out);
            if writer.is_null(row) {
                out.put_slice(self.options.null().as_bytes());
                continue;
            }
            let start = out.len();
            writer.write(row, out)?;
            self.protect(start, out);
        }
        out.put_u8(b'\n');
        Ok(())
    }

    fn write_delimiter(&self, position: usize, out: &mut BytesMut) {
        if position > 0 {
            out.put_u8(self.options.delimiter());
        }
    }

    /// Escapes or quotes the value that begins at `start`, so that it reads back as itself and not as NULL.
    fn protect(&self, start: usize, out: &mut BytesMut) {
        if self.options.format() == CopyFormat::Text {
            let delimiter = self.options.delimiter();
            return escape_from(out, start, |byte| text_escape(byte, delimiter).map(|escaped| (b'\\', escaped)));
        }
        let (delimiter, quote_byte, escape) = (self.options.delimiter(), self.options.quote(), self.options.escape());
        let value = &out[start..];
        let is_special = |byte: &u8| *byte == delimiter || *byte == quote_byte || matches!(byte, b'\n' | b'\r');
        // Alone on its line, `\.` would be the end of the data.
        if value == self.options.null().as_bytes()
            || (self.columns.count == 1 && value == b"\\.")
            || value.iter().any(is_special)
        {
            quote(out, start, quote_byte, |byte| (byte == quote_byte || byte == escape).then_some(escape));
        }
    }
}

/// What follows the backslash in text form, for bytes that take one.
fn text_escape(byte: u8, delimiter: u8) -> Option<u8> {
    match byte {
        0x08 => Some(b'b'),
        b'\t' => Some(b't'),
        b'\n' => Some(b'n'),
        0x0b => Some(b'v'),
        0x0c => Some(b'f'),
        b'\r' => Some(b'r'),
        b'\\' => Some(b'\\'),
        _ if byte == delimiter => Some(byte),
        _ => None,
    }
}

fn copy_data(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
    out.put_u8(b'd');
    write_message_body(out, write)
}

#[cfg(test)]
#[path = "encode_copy_tests.rs"]
mod tests;
