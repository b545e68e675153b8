//! COPY stream FROM STDIN: bytes in, rows into the stream as they are read.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, new_null_array};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{CopyOption, Ident};

use crate::error::{Error, Result};
use crate::format::copy::CopyDecoder;
use crate::format::copy_binary::BinaryCopyDecoder;
use crate::format::copy_options::{CopyFormat, CopyOptions};
use crate::format::settings::ValueSettings;
use crate::pg_type::PgType;
use crate::session::Session;
use crate::session::insert::column_positions;
use crate::source::Source;
use crate::source::push::PushStream;

/// A COPY that is being read.
pub struct CopyIn {
    stream: Arc<PushStream>,
    positions: Vec<usize>,
    decoder: Decoder,
    is_binary: bool,
    rows: u64,
}

enum Decoder {
    Lines(Box<CopyDecoder>),
    Binary(Box<BinaryCopyDecoder>),
}

impl Decoder {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Decoder::Lines(decoder) => decoder.push(bytes),
            Decoder::Binary(decoder) => decoder.push(bytes),
        }
    }

    fn finish(&mut self) -> Result<()> {
        match self {
            Decoder::Lines(decoder) => decoder.finish(),
            Decoder::Binary(decoder) => decoder.finish(),
        }
    }

    fn take_batch(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Decoder::Lines(decoder) => decoder.take_batch(),
            Decoder::Binary(decoder) => decoder.take_batch(),
        }
    }
}

impl CopyIn {
    /// # Errors
    /// 42703 for what does not exist, 0A000 and 22023 for options.
    pub fn try_new(
        stream: Arc<PushStream>,
        columns: &[Ident],
        options: &[CopyOption],
        settings: ValueSettings,
    ) -> Result<Self> {
        let positions = column_positions(&stream, columns)?;
        let options = CopyOptions::try_from_parsed(options)?;
        let schema = stream.schema();
        let fields = positions.iter().map(|position| schema.field(*position));
        let names: Vec<String> = fields.clone().map(|field| field.name().clone()).collect();
        let types: Vec<PgType> = fields.map(PgType::of_field).collect::<Result<_>>()?;
        let name = stream.name().to_string();
        let is_binary = options.format() == CopyFormat::Binary;
        let decoder = match is_binary {
            true => Decoder::Binary(Box::new(BinaryCopyDecoder::try_new(&types, &names, name)?)),
            false => {
                Decoder::Lines(Box::new(CopyDecoder::try_new(options, types, names, name)?.with_settings(settings)))
            }
        };
        Ok(CopyIn { stream, positions, decoder, is_binary, rows: 0 })
    }

    /// Whether the client is to send COPY's binary format.
    pub fn is_binary(&self) -> bool {
        self.is_binary
    }

    /// How many columns each line has.
    pub fn columns(&self) -> usize {
        self.positions.len()
    }

    /// Takes a piece of what the client sends, split anywhere.
    ///
    /// # Errors
    /// 22P02 and 22P04 for a malformed row, with its line and the number of rows that were taken before it.
    pub async fn take(&mut self, session: &mut Session, bytes: &[u8]) -> Result<()> {
        let read = self.decoder.push(bytes);
        self.publish(session).await?;
        read.map_err(|error| self.with_count(error))
    }

    /// The end of what the client sends; the number of rows.
    ///
    /// # Errors
    /// As [`CopyIn::take`].
    pub async fn finish(mut self, session: &mut Session) -> Result<u64> {
        let read = self.decoder.finish();
        self.publish(session).await?;
        read.map_err(|error| self.with_count(error))?;
        Ok(self.rows)
    }

    /// An error of the client's own, or of its rows, with what has come of the rows before.
    pub fn with_count(&self, error: Error) -> Error {
        let detail = error.detail().map(|detail| format!("{detail} ")).unwrap_or_default();
        error.with_detail(format!("{detail}{} rows were taken before.", self.rows))
    }

    async fn publish(&mut self, session: &mut Session) -> Result<()> {
        while let Some(batch) = self.decoder.take_batch()? {
            let count = batch.num_rows() as u64;
            let batch = self.widen(&batch)?;
            session.take_copied_rows(&self.stream, batch).await.map_err(|error| self.with_count(error))?;
            self.rows += count;
        }
        Ok(())
    }

    /// NULLs for the columns that the client does not send.
    fn widen(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = self.stream.schema();
        let mut arrays: Vec<_> =
            schema.fields().iter().map(|field| new_null_array(field.data_type(), batch.num_rows())).collect();
        for (array, position) in batch.columns().iter().zip(&self.positions) {
            arrays[*position] = Arc::clone(array);
        }
        Ok(RecordBatch::try_new(all_nullable(&schema), arrays)?)
    }
}

/// A stream may not allow the NULLs that a client leaves; it says so itself, in PostgreSQL's words.
pub fn all_nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}
