//! A file's rows, in batches: whole for lookup tables, piece by piece for streams.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Code, Error, Result};
use crate::format::avro_file::{avro_schema, read_avro};
use crate::format::lines::{LineDecoder, LineFormat, Step};
use crate::format::parquet_file::{parquet_schema, read_parquet};
use crate::format::{FileData, FileFormat, OnMalformed, malformed_row};

/// How much of a file is read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// How a file's bytes hold the columns of a stream or lookup table.
#[derive(Clone, Debug)]
pub enum FileRows {
    Lines(LineFormat),
    Parquet,
    /// An object container file.
    Avro,
}

impl FileRows {
    /// Of columns that go by their names.
    pub fn of(format: FileFormat, schema: &SchemaRef) -> Self {
        match format {
            FileFormat::Json => FileRows::Lines(LineFormat::json(schema)),
            FileFormat::Csv => FileRows::Lines(LineFormat::Csv),
            FileFormat::Parquet => FileRows::Parquet,
            FileFormat::Avro => FileRows::Avro,
        }
    }
}

/// Reads all rows of `data` as the columns of `schema`, in batches of at most 8192 rows. Blocks.
///
/// # Errors
/// 22P02 for a malformed row, with `name` (of the lookup table or stream), line and reason; 22000 for a file that
/// cannot be read; 54000 for a line of more than 64 MiB; 42703 for a column that the file must have and has not.
pub fn read_all(name: &str, data: &FileData, format: FileFormat, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let skipped = AtomicU64::new(0);
    let mut send = |batch| {
        batches.push(batch);
        true
    };
    match data {
        FileData::Path(path) => {
            read_rows(name, path, &FileRows::of(format, schema), schema, OnMalformed::Fail, &skipped, &mut send)?;
        }
        FileData::Embedded(text) => {
            let mut reading = Reading {
                name,
                file: "the embedded data".to_string(),
                on_malformed: OnMalformed::Fail,
                skipped: &skipped,
                skipped_here: 0,
                send: &mut send,
            };
            let FileRows::Lines(format) = FileRows::of(format, schema) else {
                return Err(Error::unsupported(format!("{} has no lines of text", reading.file)));
            };
            reading.lines(text.as_bytes(), &format, schema)?;
        }
    }
    Ok(batches)
}

/// As [`read_all`], of a file whose bytes are here; `file` is its name for people.
///
/// # Errors
/// The same.
pub fn read_bytes(
    name: &str,
    file: &str,
    bytes: Bytes,
    format: FileFormat,
    schema: &SchemaRef,
) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let mut send = |batch| {
        batches.push(batch);
        true
    };
    let skipped = AtomicU64::new(0);
    let on_malformed = OnMalformed::Fail;
    let mut reading =
        Reading { name, file: file.to_string(), on_malformed, skipped: &skipped, skipped_here: 0, send: &mut send };
    match FileRows::of(format, schema) {
        FileRows::Parquet => read_parquet(&mut reading, bytes, schema)?,
        FileRows::Avro => read_avro(&mut reading, bytes.as_ref(), schema)?,
        FileRows::Lines(format) => reading.lines(bytes.as_ref(), &format, schema)?,
    }
    Ok(batches)
}

/// Reads the file at `path` and hands batches of at most 8192 rows to `send` until that says false. Blocks.
/// Rows that are skipped are counted in `skipped` and logged.
///
/// # Errors
/// As [`read_all`]; malformed rows only under [`OnMalformed::Fail`].
#[expect(clippy::too_many_arguments, reason = "what a file source knows of its file, and where rows and counts go")]
pub fn read_rows(
    name: &str,
    path: &Path,
    rows: &FileRows,
    schema: &SchemaRef,
    on_malformed: OnMalformed,
    skipped: &AtomicU64,
    send: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<()> {
    let file = open(path)?;
    let mut reading = Reading { name, file: path.display().to_string(), on_malformed, skipped, skipped_here: 0, send };
    let result = match rows {
        FileRows::Parquet => read_parquet(&mut reading, file, schema),
        FileRows::Avro => read_avro(&mut reading, BufReader::new(file), schema),
        FileRows::Lines(format) => reading.lines(file, format, schema),
    };
    if reading.skipped_here > 0 {
        tracing::warn!(name, file = %reading.file, rows = reading.skipped_here, "malformed rows were skipped");
    }
    result
}

/// The columns of the file at `path`, of a format whose files name them. Blocks.
///
/// # Errors
/// 22000 for a file that cannot be read, 0A000 for a column without a type in PostgreSQL, naming it.
pub fn file_schema(path: &Path, format: FileFormat) -> Result<SchemaRef> {
    let name = path.display().to_string();
    match format {
        FileFormat::Parquet => parquet_schema(&name, open(path)?),
        FileFormat::Avro => avro_schema(&name, BufReader::new(open(path)?)),
        FileFormat::Json | FileFormat::Csv => Err(names_no_columns(&name)),
    }
}

/// As [`file_schema`], of a file whose bytes are here; `name` is its name for people.
///
/// # Errors
/// The same.
pub fn schema_of_bytes(name: &str, bytes: Bytes, format: FileFormat) -> Result<SchemaRef> {
    match format {
        FileFormat::Parquet => parquet_schema(name, bytes),
        FileFormat::Avro => avro_schema(name, bytes.as_ref()),
        FileFormat::Json | FileFormat::Csv => Err(names_no_columns(name)),
    }
}

fn names_no_columns(name: &str) -> Error {
    Error::internal(format!("file \"{name}\" was asked for columns, which its format does not name"))
}

/// # Errors
/// 22000 with the path and what the system says.
pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| {
        Error::new(Code::DataException, format!("could not open file \"{}\": {error}", path.display()))
    })
}

/// One pass over a file.
pub(crate) struct Reading<'a> {
    name: &'a str,
    pub(crate) file: String,
    pub(crate) on_malformed: OnMalformed,
    skipped: &'a AtomicU64,
    skipped_here: u64,
    pub(crate) send: &'a mut dyn FnMut(RecordBatch) -> bool,
}

impl Reading<'_> {
    /// What becomes of a row that cannot be read; `position` is like `line 7`.
    ///
    /// # Errors
    /// 22P02 under [`OnMalformed::Fail`].
    pub(crate) fn malformed(&mut self, position: impl fmt::Display, reason: &str) -> Result<()> {
        let message = malformed_row(self.name, format_args!("{position} of {}", self.file), reason);
        if self.on_malformed == OnMalformed::Fail {
            return Err(Error::new(Code::InvalidTextRepresentation, message));
        }
        self.skipped.fetch_add(1, Ordering::Relaxed);
        self.skipped_here += 1;
        if self.skipped_here == 1 {
            tracing::warn!(name = self.name, "{message}; it is skipped");
        }
        Ok(())
    }

    /// Counts rows that went with a malformed one.
    pub(crate) fn left_out(&mut self, rows: u64) {
        self.skipped.fetch_add(rows, Ordering::Relaxed);
        self.skipped_here += rows;
    }

    fn lines(&mut self, mut input: impl Read, format: &LineFormat, schema: &SchemaRef) -> Result<()> {
        let mut decoder = LineDecoder::try_new(schema, format)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut is_finished = false;
        while !is_finished {
            let length = self.read(&mut input, &mut piece)?;
            is_finished = length == 0;
            if is_finished {
                decoder.finish();
            }
            decoder.push(&piece[..length]);
            if !self.read_lines(&mut decoder)? {
                return Ok(());
            }
        }
        if !decoder.has_header() {
            return Err(Error::new(Code::BadCopyFormat, format!("{} has no header line", self.file)));
        }
        if let Some(batch) = decoder.take()? {
            (self.send)(batch);
        }
        Ok(())
    }

    /// Reads what the decoder holds. False: nobody wants more.
    fn read_lines(&mut self, decoder: &mut LineDecoder) -> Result<bool> {
        loop {
            match decoder.read().map_err(|error| error.with_context(&self.file))? {
                Step::NeedsInput => return Ok(true),
                Step::Malformed(row) => self.malformed(format_args!("line {}", row.line), &row.reason.message)?,
                Step::Full => {
                    let batch = decoder.take()?;
                    if !batch.is_none_or(|batch| (self.send)(batch)) {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn read(&self, input: &mut impl Read, piece: &mut [u8]) -> Result<usize> {
        loop {
            match input.read(piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => {
                    return read.map_err(|error| {
                        Error::new(Code::DataException, format!("could not read file \"{}\": {error}", self.file))
                    });
                }
            }
        }
    }
}
