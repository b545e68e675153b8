//! What a client sends after COPY … FROM STDIN, as PostgreSQL reads it.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;

use crate::error::{Code, Error, Result};
use crate::format::copy_options::{CopyFormat, CopyOptions};
use crate::format::fields::{CsvDialect, Fields};
use crate::format::record::{LineEnds, RecordSplitter, Syntax};
use crate::format::row::RowBuilder;
use crate::format::settings::ValueSettings;
use crate::format::text::{self, ValueError, excerpt};
use crate::pg_type::PgType;

/// Reads rows out of bytes that come in pieces cut anywhere.
pub struct CopyDecoder {
    options: CopyOptions,
    settings: ValueSettings,
    dialect: CsvDialect,
    stream: String,
    splitter: RecordSplitter,
    fields: Fields,
    rows: RowBuilder,
    full: VecDeque<RecordBatch>,
    skips_header: bool,
    /// `\.` or an error was met: what follows is dropped.
    is_ended: bool,
}

impl CopyDecoder {
    /// `columns` and `names` are the column list of the COPY into `stream`.
    ///
    /// # Errors
    /// 0A000 for a column whose type cannot be held.
    pub fn try_new(options: CopyOptions, columns: Vec<PgType>, names: Vec<String>, stream: String) -> Result<Self> {
        let fields: Vec<_> = columns.iter().zip(&names).map(|(column, name)| column.field(name, true)).collect();
        let syntax = match options.format {
            CopyFormat::Text => Syntax::Text,
            CopyFormat::Csv => Syntax::Csv { quote: options.quote, escape: options.escape },
            CopyFormat::Binary => {
                return Err(Error::internal("COPY's binary format has no lines to be read"));
            }
        };
        Ok(CopyDecoder {
            dialect: CsvDialect {
                delimiter: options.delimiter,
                quote: options.quote,
                escape: options.escape,
                null: options.null.clone(),
            },
            stream,
            splitter: RecordSplitter::new(syntax, LineEnds::AsFirst),
            fields: Fields::default(),
            rows: RowBuilder::try_new(&Arc::new(Schema::new(fields)))?,
            full: VecDeque::new(),
            skips_header: options.header,
            is_ended: false,
            options,
            settings: ValueSettings::default(),
        })
    }

    /// Reads values as a session with these settings does.
    pub fn with_settings(mut self, settings: ValueSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Reads the rows that `bytes` complete.
    ///
    /// # Errors
    /// 22P02, 22003, 22008 or 22P04 with the line and column in the detail; the rows before it can still be taken.
    /// 54000 for a line of more than 64 MiB. What is pushed afterwards is dropped.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_ended {
            return Ok(());
        }
        self.splitter.push(bytes);
        self.read_records().inspect_err(|_| self.is_ended = true)
    }

    /// The last line is a row even if no newline ended it.
    ///
    /// # Errors
    /// As [`CopyDecoder::push`].
    pub fn finish(&mut self) -> Result<()> {
        if self.is_ended {
            return Ok(());
        }
        self.splitter.finish();
        self.read_records().inspect_err(|_| self.is_ended = true)
    }

    /// The next rows that are complete, at most 8192, with a column for each of the column list.
    /// `None` where there are none; to be called until then.
    ///
    /// # Errors
    /// XX000 if the rows do not make a batch.
    pub fn take_batch(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.full.pop_front() {
            return Ok(Some(batch));
        }
        if self.rows.len() == 0 {
            return Ok(None);
        }
        self.rows.finish().map(Some)
    }

    fn read_records(&mut self) -> Result<()> {
        loop {
            let line = self.splitter.next_line();
            let next = self.splitter.next_record();
            let record = next.map_err(|error| error.with_detail(format!("COPY {}, line {line}", self.stream)))?;
            let Some(record) = record else { return Ok(()) };
            if std::mem::take(&mut self.skips_header) {
                continue;
            }
            if self.options.format == CopyFormat::Text && record.bytes == b"\\." {
                self.is_ended = true;
                return Ok(());
            }
            let row = read_row(
                &self.options,
                &self.dialect,
                record.bytes,
                (&mut self.fields, &mut self.rows, &self.settings),
            );
            row.map_err(|failure| failure.into_error(&self.stream, record.last_line, record.bytes))?;
            if self.rows.is_full() {
                self.full.push_back(self.rows.finish()?);
            }
        }
    }
}

/// What is wrong with a row, and where in it.
enum Failure {
    Line(ValueError),
    Column { name: String, value: String, error: ValueError },
}

impl Failure {
    fn into_error(self, stream: &str, line: u64, record: &[u8]) -> Error {
        match self {
            Failure::Line(error) => {
                let record = String::from_utf8_lossy(record);
                Error::from(error).with_detail(format!("COPY {stream}, line {line}: \"{}\"", excerpt(&record)))
            }
            Failure::Column { name, value, error } => Error::from(error)
                .with_detail(format!("COPY {stream}, line {line}, column {name}: \"{}\"", excerpt(&value))),
        }
    }
}

fn read_row(
    options: &CopyOptions,
    dialect: &CsvDialect,
    record: &[u8],
    (fields, rows, settings): (&mut Fields, &mut RowBuilder, &ValueSettings),
) -> Result<(), Failure> {
    let read = match options.format {
        // Binary has been refused when the decoder was made.
        CopyFormat::Text | CopyFormat::Binary => fields.read_text(record, options.delimiter, &options.null),
        CopyFormat::Csv => fields.read_csv(record, dialect),
    };
    read.map_err(Failure::Line)?;
    let malformed = |message: String| Failure::Line(ValueError::new(Code::BadCopyFormat, message));
    if fields.len() > rows.types().len() {
        return Err(malformed("extra data after last expected column".to_string()));
    }
    let mut values = Vec::with_capacity(fields.len());
    for (at, (pg_type, field)) in rows.types().iter().zip(rows.schema().fields()).enumerate() {
        if at >= fields.len() {
            return Err(malformed(format!("missing data for column \"{}\"", field.name())));
        }
        let text = fields.get(at).map_err(Failure::Line)?;
        let value = text.map(|text| text::parse(pg_type, text, settings)).transpose().map_err(|error| {
            Failure::Column { name: field.name().clone(), value: text.unwrap_or_default().to_string(), error }
        })?;
        values.push(value);
    }
    rows.append(values, record.len()).map_err(Failure::Line)
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
