//! Avro's object container files: a header with the schema, then blocks of rows, each perhaps compressed.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Once};

use apache_avro::{Codec, DeflateSettings, ZstandardSettings};
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::datatypes::{Schema, SchemaRef};

use crate::error::{Code, Error, Result};
use crate::format::avro::{AvroDecoder, Framing};
use crate::format::avro_schema::AvroSchema;
use crate::format::avro_wire::Cursor;
use crate::format::file::Reading;
use crate::format::text::excerpt;

/// The most bytes of a header, and of a block before and after it is compressed.
const MAX_BLOCK_BYTES: usize = 64 * 1024 * 1024;
/// Rows of a block beyond its bytes; only rows without columns have no bytes.
const SPARE_ROWS: usize = 1024;
const MARKER_BYTES: usize = 16;

/// The columns of the file; `name` is its name for people.
///
/// # Errors
/// 22000 for a file that cannot be read, 0A000 for a column without a type in PostgreSQL, naming it.
pub(crate) fn avro_schema(name: &str, input: impl Read) -> Result<SchemaRef> {
    let container = Container::try_new(name, input)?;
    let columns = container.schema.columns().map_err(|error| error.with_context(format_args!("file \"{name}\"")))?;
    Ok(Arc::new(Schema::new(columns)))
}

/// Reads the columns of `schema` by name; one that the file lacks is NULL.
pub(crate) fn read_avro(reading: &mut Reading<'_>, input: impl Read, schema: &SchemaRef) -> Result<()> {
    let mut container = Container::try_new(&reading.file, input)?;
    let mut wanted = Vec::new();
    for (position, field) in schema.fields().iter().enumerate() {
        if container.schema.has_field(field.name()) {
            wanted.push(position);
        } else if !field.is_nullable() {
            let message = format!("{} has no column \"{}\", which is not null", reading.file, field.name());
            return Err(Error::new(Code::UndefinedColumn, message));
        }
    }
    let decoder =
        AvroDecoder::try_new(&Arc::new(schema.project(&wanted)?), Arc::clone(&container.schema), &[], Framing::Plain);
    let decoder = decoder.map_err(|error| error.with_context(&reading.file))?;
    let mut rows = Rows { reading, decoder, schema, wanted };
    while let Some(block) = container.next_block()? {
        if !rows.block(block, container.codec)? {
            return Ok(());
        }
    }
    rows.flush().map(drop)
}

/// Where the rows of a file go.
struct Rows<'r, 'a, 's> {
    reading: &'r mut Reading<'a>,
    decoder: AvroDecoder,
    schema: &'s SchemaRef,
    /// The columns that the file has, by their positions.
    wanted: Vec<usize>,
}

impl Rows<'_, '_, '_> {
    /// False: nobody wants more.
    fn block(&mut self, block: Block, codec: Codec) -> Result<bool> {
        let Block { number, rows, mut bytes } = block;
        if let Err(error) = codec.decompress(&mut bytes) {
            self.reading.malformed(format_args!("block {number}"), &error.to_string())?;
            return Ok(true);
        }
        let Some(count) = usize::try_from(rows).ok().filter(|rows| *rows <= bytes.len() + SPARE_ROWS) else {
            let reason = format!("{rows} rows should be in {} bytes", bytes.len());
            self.reading.malformed(format_args!("block {number}"), &reason)?;
            return Ok(true);
        };
        let mut left = bytes.as_slice();
        for row in 1..=count {
            let (next, result) = self.decoder.append_first(left);
            if let Err(error) = result {
                self.reading.malformed(format_args!("row {row} of block {number}"), &error.message)?;
            }
            let Some(next) = next else {
                // Without the end of a row the others of its block cannot be found.
                self.reading.left_out((count - row) as u64);
                return Ok(true);
            };
            left = &left[next..];
            if self.decoder.is_full() && !self.flush()? {
                return Ok(false);
            }
        }
        if !left.is_empty() {
            let reason = format!("{} bytes are left over behind its rows", left.len());
            self.reading.malformed(format_args!("block {number}"), &reason)?;
        }
        Ok(true)
    }

    /// False: nobody wants more.
    fn flush(&mut self) -> Result<bool> {
        if self.decoder.is_empty() {
            return Ok(true);
        }
        let read = self.decoder.finish()?;
        let mut arrays = Vec::with_capacity(self.schema.fields().len());
        for (position, field) in self.schema.fields().iter().enumerate() {
            arrays.push(match self.wanted.iter().position(|wanted| *wanted == position) {
                Some(place) => Arc::clone(read.column(place)),
                None => new_null_array(field.data_type(), read.num_rows()),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(read.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(self.schema), arrays, &options)?;
        Ok((self.reading.send)(batch))
    }
}

/// A file whose header has been read.
struct Container<R> {
    file: String,
    input: R,
    schema: Arc<AvroSchema>,
    codec: Codec,
    /// Stands behind each block.
    marker: [u8; MARKER_BYTES],
    blocks: u64,
}

/// Rows as they stand in the file.
struct Block {
    /// From 1.
    number: u64,
    rows: i64,
    bytes: Vec<u8>,
}

impl<R: Read> Container<R> {
    /// # Errors
    /// 22000, 22023 for a schema that cannot be read, 0A000 for an unknown codec.
    fn try_new(file: &str, mut input: R) -> Result<Container<R>> {
        let unreadable =
            |reason: String| Error::new(Code::DataException, format!("could not read file \"{file}\": {reason}"));
        let mut start = Vec::new();
        (&mut input).take(4).read_to_end(&mut start).map_err(|error| unreadable(error.to_string()))?;
        if start != *b"Obj\x01" {
            return Err(unreadable("it is no object container file of Avro".to_string()));
        }
        let attributes = attributes(&mut input).map_err(|reason| unreadable(format!("in its header {reason}")))?;
        let schema = attributes.get("avro.schema").and_then(|schema| std::str::from_utf8(schema).ok());
        let schema = schema.ok_or_else(|| unreadable("its header has no schema".to_string()))?;
        let schema = AvroSchema::parse(schema).map_err(|error| error.with_context(format_args!("file \"{file}\"")))?;
        let codec = match attributes.get("avro.codec").map(Vec::as_slice) {
            None | Some(b"null" | b"") => Codec::Null,
            Some(b"deflate") => Codec::Deflate(DeflateSettings::default()),
            Some(b"snappy") => Codec::Snappy,
            Some(b"zstandard") => Codec::Zstandard(ZstandardSettings::default()),
            Some(other) => {
                let other = String::from_utf8_lossy(other).into_owned();
                let message = format!("file \"{file}\" is compressed with \"{}\"", excerpt(&other));
                return Err(Error::unsupported(message).with_hint("Codecs are null, deflate, snappy and zstandard."));
            }
        };
        bound_decompression();
        let marker = bytes(&mut input, MARKER_BYTES).map_err(|reason| unreadable(format!("in its header {reason}")))?;
        let marker = marker.try_into().map_err(|_| Error::internal("a marker has 16 bytes"))?;
        Ok(Container { file: file.to_string(), input, schema: Arc::new(schema), codec, marker, blocks: 0 })
    }

    /// `None` at the end of the file.
    ///
    /// # Errors
    /// 22P02 for a block that ends nowhere: what follows cannot be found.
    fn next_block(&mut self) -> Result<Option<Block>> {
        let Some(first) = first_byte(&mut self.input).map_err(|reason| self.broken(&reason))? else { return Ok(None) };
        self.blocks += 1;
        let block = self.block(first).map_err(|reason| self.broken(&reason))?;
        Ok(Some(block))
    }

    fn block(&mut self, first: u8) -> Result<Block, String> {
        let rows = long_behind(first, &mut self.input)?;
        let length = length(&mut self.input)?;
        let block = Block { number: self.blocks, rows, bytes: bytes(&mut self.input, length)? };
        match bytes(&mut self.input, MARKER_BYTES)? == self.marker {
            true => Ok(block),
            false => Err("it does not end with the marker of its file".to_string()),
        }
    }

    fn broken(&self, reason: &str) -> Error {
        let message = format!("block {} of {} is malformed: {reason}", self.blocks, self.file);
        Error::new(Code::InvalidTextRepresentation, message)
    }
}

/// What a header says, by its names.
fn attributes(input: &mut impl Read) -> Result<HashMap<String, Vec<u8>>, String> {
    let mut attributes = HashMap::new();
    let mut room = MAX_BLOCK_BYTES;
    loop {
        let count = long(input)?;
        if count == 0 {
            return Ok(attributes);
        }
        if count < 0 {
            long(input)?;
        }
        for _ in 0..count.unsigned_abs() {
            let (name, value) = (sized(input)?, sized(input)?);
            let used = name.len() + value.len() + 1;
            room = room.checked_sub(used).ok_or_else(|| format!("more than {MAX_BLOCK_BYTES} bytes stand"))?;
            attributes.insert(String::from_utf8_lossy(&name).into_owned(), value);
        }
    }
}

fn sized(input: &mut impl Read) -> Result<Vec<u8>, String> {
    let length = length(input)?;
    bytes(input, length)
}

fn length(input: &mut impl Read) -> Result<usize, String> {
    let long = long(input)?;
    let length = usize::try_from(long).ok().filter(|length| *length <= MAX_BLOCK_BYTES);
    length.ok_or_else(|| format!("a length of {long} bytes stands, where at most {MAX_BLOCK_BYTES} are read"))
}

/// Sets no more aside than comes.
fn bytes(input: &mut impl Read, length: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    input.take(length as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(format!("the file ends, where {} more bytes should follow", length - bytes.len())),
    }
}

fn first_byte(input: &mut impl Read) -> Result<Option<u8>, String> {
    let mut byte = Vec::new();
    input.take(1).read_to_end(&mut byte).map_err(|error| error.to_string())?;
    Ok(byte.first().copied())
}

fn long(input: &mut impl Read) -> Result<i64, String> {
    let first = first_byte(input)?.ok_or("the file ends, where a number should follow")?;
    long_behind(first, input)
}

/// The number that begins with `first`.
fn long_behind(first: u8, input: &mut impl Read) -> Result<i64, String> {
    let mut number = vec![first];
    while number.len() < 10 && number.last().is_some_and(|byte| *byte >= 0x80) {
        number.push(first_byte(input)?.ok_or("the file ends in a number")?);
    }
    Cursor::new(&number).long().map_err(|error| error.message)
}

/// The crate that decompresses asks a limit of the whole process, which is set once.
fn bound_decompression() {
    static BOUND: Once = Once::new();
    BOUND.call_once(|| {
        apache_avro::util::max_allocation_bytes(MAX_BLOCK_BYTES);
    });
}

#[cfg(test)]
#[path = "avro_file_tests.rs"]
mod tests;
