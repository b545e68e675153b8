//! Rows of JSON lines, or of csv with a header, out of bytes that come in pieces cut anywhere.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Code, Error, Result};
use crate::format::csv::CsvDecoder;
use crate::format::malformed_row;
use crate::format::message::{MessageDecoder, MessageFailure, MessageFormat};
use crate::format::record::{LineEnds, RecordSplitter, Syntax};
use crate::format::text::ValueError;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How lines hold rows.
#[derive(Clone, Debug)]
pub enum LineFormat {
    /// With a header line.
    Csv,
    /// A message each.
    Messages(MessageFormat),
}

impl LineFormat {
    /// One JSON object a line, whose members have the columns' names.
    pub fn json(schema: &SchemaRef) -> Self {
        LineFormat::Messages(MessageFormat::json(schema))
    }
}

/// Reads rows as the columns of a schema. Whoever drives it gives input with [`LineDecoder::push`], and then calls
/// [`LineDecoder::read`] until it needs more.
pub struct LineDecoder {
    schema: SchemaRef,
    syntax: Syntax,
    splitter: RecordSplitter,
    /// `None` until the header of a csv has come.
    rows: Option<RowDecoder>,
    line: u64,
}

/// How far [`LineDecoder::read`] has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// All complete lines have been read.
    NeedsInput,
    /// A batch is full, and should be taken before more rows come.
    Full,
    /// A row cannot be read. Reading may go on behind it.
    Malformed(MalformedRow),
}

/// A row that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct MalformedRow {
    /// On which it begins, counted from 1.
    pub line: u64,
    pub reason: ValueError,
}

impl MalformedRow {
    /// For somebody who sent the row to `stream` himself: with the SQLSTATE that an INSERT of it would get.
    pub fn into_error(self, stream: &str) -> Error {
        let code = match self.reason.code {
            // What COPY calls bad format is a malformed row in a body.
            Code::BadCopyFormat => Code::InvalidTextRepresentation,
            code => code,
        };
        Error::new(code, malformed_row(stream, format_args!("line {}", self.line), &self.reason.message))
    }
}

impl LineDecoder {
    /// # Errors
    /// 0A000 for a column of an Arrow type that no type of PostgreSQL stands for.
    pub fn try_new(schema: &SchemaRef, format: &LineFormat) -> Result<Self> {
        let (syntax, rows) = match format {
            LineFormat::Messages(format) => {
                (Syntax::Lines, Some(RowDecoder::Messages(Box::new(MessageDecoder::try_new(format, schema)?))))
            }
            LineFormat::Csv => (Syntax::Csv { quote: b'"', escape: b'"' }, None),
        };
        let splitter = RecordSplitter::new(syntax, LineEnds::Newline);
        Ok(LineDecoder { schema: schema.clone(), syntax, splitter, rows, line: 1 })
    }

    /// Takes more input.
    pub fn push(&mut self, bytes: &[u8]) {
        self.splitter.push(bytes);
    }

    /// Takes input of csv up to its header alone, where the rows behind that are not wanted: lines are counted from what is
    /// pushed next. Nothing is done where there is a header.
    ///
    /// # Errors
    /// As [`LineDecoder::read`].
    pub fn read_header(&mut self, bytes: &[u8]) -> Result<()> {
        if self.has_header() {
            return Ok(());
        }
        self.splitter.push(bytes);
        let Some(record) = self.splitter.next_record()? else { return Ok(()) };
        let header = record.bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(record.bytes);
        self.rows = Some(RowDecoder::Csv(CsvDecoder::try_new(&self.schema, header)?));
        self.splitter = RecordSplitter::new(self.syntax, LineEnds::Newline);
        Ok(())
    }

    /// No more input comes: the last line is a row even if no newline ends it.
    pub fn finish(&mut self) {
        self.splitter.finish();
    }

    /// Reads on until there is something to be done.
    ///
    /// # Errors
    /// 54000 for a line of more than 64 MiB, and for csv what is wrong with its header; [`LineDecoder::line`] says where.
    pub fn read(&mut self) -> Result<Step> {
        loop {
            self.line = self.splitter.next_line();
            let Some(record) = self.splitter.next_record()? else { return Ok(Step::NeedsInput) };
            let mut bytes = record.bytes;
            if record.first_line == 1 {
                bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
            }
            let Some(rows) = &mut self.rows else {
                self.rows = Some(RowDecoder::Csv(CsvDecoder::try_new(&self.schema, bytes)?));
                continue;
            };
            if rows.is_blank(bytes) {
                continue;
            }
            if let Err(reason) = rows.append(bytes) {
                return Ok(Step::Malformed(MalformedRow { line: record.first_line, reason }));
            }
            if rows.is_full() {
                return Ok(Step::Full);
            }
        }
    }

    /// The line that is read, or is to be read next.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether rows can come: of csv, not before its header has.
    pub fn has_header(&self) -> bool {
        self.rows.is_some()
    }

    /// Whether there is something to take.
    pub fn has_rows(&self) -> bool {
        self.rows.as_ref().is_some_and(|rows| !rows.is_empty())
    }

    /// The rows since the last call, if there are any.
    ///
    /// # Errors
    /// XX000 if they make no batch.
    pub fn take(&mut self) -> Result<Option<RecordBatch>> {
        match &mut self.rows {
            Some(rows) if !rows.is_empty() => rows.finish().map(Some),
            _ => Ok(None),
        }
    }
}

enum RowDecoder {
    Messages(Box<MessageDecoder>),
    Csv(CsvDecoder),
}

impl RowDecoder {
    fn append(&mut self, record: &[u8]) -> Result<(), ValueError> {
        match self {
            RowDecoder::Messages(decoder) => match decoder.append(Some(record)) {
                Ok(_) => Ok(()),
                Err(MessageFailure::Malformed(error)) => Err(error),
                Err(MessageFailure::UnknownSchema(id)) => {
                    Err(ValueError::new(Code::Internal, format!("no line is written with schema {id}")))
                }
            },
            RowDecoder::Csv(decoder) => decoder.append(record),
        }
    }

    fn is_blank(&self, record: &[u8]) -> bool {
        match self {
            RowDecoder::Messages(decoder) => decoder.is_blank(record),
            RowDecoder::Csv(decoder) => decoder.is_blank(record),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            RowDecoder::Messages(decoder) => decoder.is_empty(),
            RowDecoder::Csv(decoder) => decoder.is_empty(),
        }
    }

    fn is_full(&self) -> bool {
        match self {
            RowDecoder::Messages(decoder) => decoder.is_full(),
            RowDecoder::Csv(decoder) => decoder.is_full(),
        }
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        match self {
            RowDecoder::Messages(decoder) => decoder.finish(),
            RowDecoder::Csv(decoder) => decoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{Int64Type, Schema};

    use super::*;
    use crate::pg_type::PgType;

    fn decoder(is_csv: bool) -> LineDecoder {
        let fields = vec![PgType::Int8.field("id", false), PgType::Text.field("note", true)];
        let schema = Arc::new(Schema::new(fields));
        let format = if is_csv { LineFormat::Csv } else { LineFormat::json(&schema) };
        LineDecoder::try_new(&schema, &format).unwrap()
    }

    /// The ids, and the lines and reasons of what is malformed, of input that comes in pieces of `size`.
    fn read(is_csv: bool, input: &[u8], size: usize) -> (Vec<i64>, Vec<(u64, String)>) {
        let mut decoder = decoder(is_csv);
        let (mut ids, mut malformed) = (vec![], vec![]);
        let mut pieces = input.chunks(size);
        loop {
            let piece = pieces.next();
            match piece {
                Some(piece) => decoder.push(piece),
                None => decoder.finish(),
            }
            loop {
                match decoder.read().unwrap() {
                    Step::Malformed(row) => malformed.push((row.line, row.reason.message)),
                    Step::Full => unreachable!("so few rows fill no batch"),
                    Step::NeedsInput => break,
                }
            }
            if piece.is_none() {
                break;
            }
        }
        if let Some(batch) = decoder.take().unwrap() {
            ids.extend(batch.column(0).as_primitive::<Int64Type>().values());
        }
        (ids, malformed)
    }

    #[test]
    fn rows_do_not_depend_on_where_input_is_cut() {
        let json = "\u{feff}{\"id\": 1, \"note\": \"é\"}\r\n\n{\"id\": 2}\n{\"id\": \"x\"}\n{\"id\": 4}".as_bytes();
        let csv = "\u{feff}note,id\r\n\"é\n\",1\r\n\nlast,2\nx,x\n,4".as_bytes();
        for size in 1..json.len() {
            let (ids, malformed) = read(false, json, size);
            assert_eq!((ids, malformed[0].0), (vec![1, 2, 4], 4), "json in pieces of {size}");
            let (ids, malformed) = read(true, csv, size);
            let reason = "column \"id\": invalid input syntax for type bigint: \"x\"";
            assert_eq!((ids, malformed), (vec![1, 2, 4], vec![(6, reason.to_string())]), "csv in pieces of {size}");
        }
    }

    #[test]
    fn a_header_that_will_not_do_is_an_error_on_its_line() {
        let mut decoder = decoder(true);
        decoder.push(b"note\n");
        let error = decoder.read().unwrap_err();
        assert_eq!(error.message(), "the header has no column \"id\", which is not null");
        assert_eq!((error.sqlstate(), decoder.line(), decoder.has_header()), ("42703", 1, false));
    }

    #[test]
    fn what_a_writer_is_told_names_stream_line_and_reason() {
        let told = |input: &str| {
            let mut decoder = decoder(true);
            decoder.push(format!("id,note\n1,a\n{input}\n").as_bytes());
            let Step::Malformed(row) = decoder.read().unwrap() else { panic!("{input} was read") };
            let error = row.into_error("orders");
            (error.sqlstate(), error.message().to_string())
        };
        let message = |reason: &str| format!("malformed row in \"orders\" at line 3: {reason}");
        assert_eq!(told("2"), ("22P02", message("expected 2 fields as in the header, found 1")));
        let null = "null value in column \"id\" violates not-null constraint";
        assert_eq!(told(",b"), ("23502", message(null)));
        let range = "column \"id\": value \"9999999999999999999\" is out of range for type bigint";
        assert_eq!(told("9999999999999999999,b"), ("22003", message(range)));
    }
}
