//! `COPY (query) TO STDOUT`: its options, and rows as CopyData messages in text, csv and binary form.

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Code, Error, Result};
use crate::server::encode::{Columns, Format, ValueSettings, write_fields, write_message_body};
use crate::server::encode_column::ColumnWriter;
use crate::server::encode_text::{escape_from, quote};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// What stands between the parentheses of COPY's options, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    format: CopyFormat,
    header: bool,
    delimiter: u8,
    null: String,
    quote: u8,
    escape: u8,
}

/// Options as they were written, before the format's defaults fill in the others.
#[derive(Default)]
struct Given<'a> {
    format: Option<CopyFormat>,
    header: Option<bool>,
    delimiter: Option<&'a str>,
    null: Option<&'a str>,
    quote: Option<&'a str>,
    escape: Option<&'a str>,
    encoding: Option<()>,
}

impl CopyOptions {
    /// From pairs of a name and a value, `None` where an option stands alone, as in `(FORMAT csv, HEADER)`.
    ///
    /// # Errors
    /// As PostgreSQL's: 42601 for unknown or repeated options, 22023 and 0A000 for values; 0A000 for options that are not supported.
    pub fn try_new<'a>(options: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Result<Self> {
        let mut given = Given::default();
        for (name, value) in options {
            given.add(name, value)?;
        }
        let format = given.format.unwrap_or(CopyFormat::Text);
        if format == CopyFormat::Binary {
            given.check_binary()?;
        }
        if format != CopyFormat::Csv {
            given.check_not_csv()?;
        }
        let default_delimiter = if format == CopyFormat::Csv { "," } else { "\t" };
        let default_null = if format == CopyFormat::Csv { "" } else { "\\N" };
        let quote = single_byte("quote", given.quote.unwrap_or("\""))?;
        let options = CopyOptions {
            format,
            header: given.header.unwrap_or(false),
            delimiter: single_byte("delimiter", given.delimiter.unwrap_or(default_delimiter))?,
            null: given.null.unwrap_or(default_null).to_string(),
            quote,
            escape: given.escape.map_or(Ok(quote), |escape| single_byte("escape", escape))?,
        };
        options.check()?;
        Ok(options)
    }

    pub fn format(&self) -> CopyFormat {
        self.format
    }

    /// Whether the first line holds the columns' names.
    pub fn header(&self) -> bool {
        self.header
    }

    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// What stands for NULL.
    pub fn null(&self) -> &str {
        &self.null
    }

    /// Of csv.
    pub fn quote(&self) -> u8 {
        self.quote
    }

    /// Of csv: what stands before a quote, and before itself, in a quoted value.
    pub fn escape(&self) -> u8 {
        self.escape
    }

    fn check(&self) -> Result<()> {
        let refused = |message: String| Err(Error::new(Code::InvalidParameterValue, message));
        let unsupported = |message: &str| Err(Error::unsupported(message));
        let delimiter = char::from(self.delimiter);
        if matches!(delimiter, '\n' | '\r') {
            return refused("COPY delimiter cannot be newline or carriage return".to_string());
        }
        if self.null.contains(['\n', '\r']) {
            return refused("COPY null representation cannot use newline or carriage return".to_string());
        }
        // In text, a backslash before one of these would mean something else.
        if self.format == CopyFormat::Text && matches!(delimiter, '\\' | '.' | 'a'..='z' | '0'..='9') {
            return refused(format!("COPY delimiter cannot be \"{delimiter}\""));
        }
        if self.format == CopyFormat::Csv && self.delimiter == self.quote {
            return refused("COPY delimiter and quote must be different".to_string());
        }
        if self.format != CopyFormat::Binary && self.null.contains(delimiter) {
            return unsupported("COPY delimiter must not appear in the NULL specification");
        }
        if self.format == CopyFormat::Csv && self.null.contains(char::from(self.quote)) {
            return unsupported("CSV quote character must not appear in the NULL specification");
        }
        Ok(())
    }
}

impl<'a> Given<'a> {
    fn add(&mut self, name: &str, value: Option<&'a str>) -> Result<()> {
        let name = name.to_ascii_lowercase();
        let required = || value.ok_or_else(|| Error::new(Code::SyntaxError, format!("{name} requires a parameter")));
        match name.as_str() {
            "format" => set(&mut self.format, copy_format(required()?)?),
            "header" => set(&mut self.header, header(value)?),
            "delimiter" => set(&mut self.delimiter, required()?),
            "null" => set(&mut self.null, required()?),
            "quote" => set(&mut self.quote, required()?),
            "escape" => set(&mut self.escape, required()?),
            "encoding" => set(&mut self.encoding, encoding(required()?)?),
            "freeze" | "force_quote" | "force_not_null" | "force_null" => {
                Err(Error::unsupported(format!("COPY option \"{name}\" is not supported")))
            }
            _ => Err(Error::new(Code::SyntaxError, format!("option \"{name}\" not recognized"))),
        }
    }

    fn check_binary(&self) -> Result<()> {
        let refused =
            |option: &str| Err(Error::new(Code::SyntaxError, format!("cannot specify {option} in BINARY mode")));
        if self.delimiter.is_some() {
            return refused("DELIMITER");
        }
        if self.null.is_some() {
            return refused("NULL");
        }
        match self.header {
            Some(true) => Err(Error::unsupported("cannot specify HEADER in BINARY mode")),
            _ => Ok(()),
        }
    }

    fn check_not_csv(&self) -> Result<()> {
        if self.quote.is_some() {
            return Err(Error::unsupported("COPY quote available only in CSV mode"));
        }
        match self.escape {
            Some(_) => Err(Error::unsupported("COPY escape available only in CSV mode")),
            None => Ok(()),
        }
    }
}

fn set<T>(option: &mut Option<T>, value: T) -> Result<()> {
    match option.replace(value) {
        Some(_) => Err(Error::new(Code::SyntaxError, "conflicting or redundant options")),
        None => Ok(()),
    }
}

fn copy_format(name: &str) -> Result<CopyFormat> {
    match name.to_ascii_lowercase().as_str() {
        "text" => Ok(CopyFormat::Text),
        "csv" => Ok(CopyFormat::Csv),
        "binary" => Ok(CopyFormat::Binary),
        _ => Err(Error::new(Code::InvalidParameterValue, format!("COPY format \"{name}\" not recognized"))),
    }
}

fn header(value: Option<&str>) -> Result<bool> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "on" | "1") => Ok(true),
        Some("false" | "off" | "0") => Ok(false),
        Some("match") => Err(Error::unsupported("COPY option \"header\" does not support \"match\"")),
        Some(_) => Err(Error::new(Code::SyntaxError, "header requires a Boolean value or \"match\"")),
    }
}

fn encoding(name: &str) -> Result<()> {
    if matches!(name.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode") {
        return Ok(());
    }
    Err(Error::unsupported(format!("COPY encoding \"{name}\" is not supported")).with_hint("Use UTF8."))
}

fn single_byte(option: &str, value: &str) -> Result<u8> {
    match value.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(Error::unsupported(format!("COPY {option} must be a single one-byte character"))),
    }
}

/// Writes a result as the messages of COPY OUT: [`CopyEncoder::begin`], rows, [`CopyEncoder::finish`].
#[derive(Clone, Debug)]
pub struct CopyEncoder {
    columns: Columns,
    options: CopyOptions,
}

impl CopyEncoder {
    /// # Errors
    /// 0A000 for a column whose type PostgreSQL lacks, 54000 for more columns than a message can hold.
    pub fn try_new(schema: &SchemaRef, options: CopyOptions) -> Result<Self> {
        let format = match options.format {
            CopyFormat::Text | CopyFormat::Csv => Format::Text,
            CopyFormat::Binary => Format::Binary,
        };
        let columns = Columns::try_new(schema, &vec![format; schema.fields().len()])?;
        Ok(CopyEncoder { columns, options })
    }

    pub fn with_settings(mut self, settings: ValueSettings) -> Self {
        self.columns.settings = settings;
        self
    }

    /// Appends the CopyOutResponse message and what stands before the first row: the names or the binary signature.
    ///
    /// # Errors
    /// 54000 for names that no message can hold.
    pub fn begin(&self, out: &mut BytesMut) -> Result<()> {
        let code = if self.options.format == CopyFormat::Binary { Format::Binary.code() } else { Format::Text.code() };
        out.put_u8(b'H');
        write_message_body(out, |out| {
            out.put_i8(code as i8);
            out.put_u16(self.columns.count);
            for _ in 0..self.columns.count {
                out.put_i16(code);
            }
            Ok(())
        })?;
        if self.options.format == CopyFormat::Binary {
            return copy_data(out, |out| {
                out.put_slice(b"PGCOPY\n\xff\r\n\0");
                // No flags, no further header.
                out.put_u32(0);
                out.put_u32(0);
                Ok(())
            });
        }
        if !self.options.header {
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
    pub fn encode(&self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<()> {
        let writers = self.columns.writers(batch, &rows)?;
        for row in rows {
            let start = out.len();
            let written = copy_data(out, |out| self.write_row(&writers, row, out));
            if let Err(error) = written {
                out.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Appends the binary trailer, if there is one, and the CopyDone message.
    ///
    /// # Errors
    /// None in practice: the messages are short.
    pub fn finish(&self, out: &mut BytesMut) -> Result<()> {
        if self.options.format == CopyFormat::Binary {
            copy_data(out, |out| {
                out.put_i16(-1);
                Ok(())
            })?;
        }
        out.put_u8(b'c');
        write_message_body(out, |_| Ok(()))
    }

    fn write_row(&self, writers: &[ColumnWriter<'_>], row: usize, out: &mut BytesMut) -> Result<()> {
        if self.options.format == CopyFormat::Binary {
            out.put_u16(self.columns.count);
            return write_fields(writers, row, out);
        }
        for (position, writer) in writers.iter().enumerate() {
            self.write_delimiter(position, out);
            if writer.is_null(row) {
                out.put_slice(self.options.null.as_bytes());
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
            out.put_u8(self.options.delimiter);
        }
    }

    /// Escapes or quotes the value that begins at `start`, so that it reads back as itself and not as NULL.
    fn protect(&self, start: usize, out: &mut BytesMut) {
        if self.options.format == CopyFormat::Text {
            let delimiter = self.options.delimiter;
            return escape_from(out, start, |byte| text_escape(byte, delimiter).map(|escaped| (b'\\', escaped)));
        }
        let CopyOptions { delimiter, quote: quote_byte, escape, .. } = self.options;
        let value = &out[start..];
        let is_special = |byte: &u8| *byte == delimiter || *byte == quote_byte || matches!(byte, b'\n' | b'\r');
        // Alone on its line, `\.` would be the end of the data.
        if value == self.options.null.as_bytes()
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
