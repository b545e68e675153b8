//! Parquet files: their columns as PostgreSQL's types, and their rows.

use std::sync::Arc;

use arrow::compute::{CastOptions, can_cast_types, cast_with_options, concat_batches};
use datafusion::arrow::array::{Array, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;

use crate::error::{Code, Error, Result};
use crate::format::OnMalformed;
use crate::format::file::Reading;
use crate::format::row::BATCH_ROWS;
use crate::pg_type::PgType;

/// The columns of the file, each of the Arrow type that holds its PostgreSQL type; `name` is its name for people.
///
/// # Errors
/// 22000 for a file that cannot be read, 0A000 for a column without a type in PostgreSQL, naming it.
pub(crate) fn parquet_schema(name: &str, file: impl ChunkReader + 'static) -> Result<SchemaRef> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(name, error))?;
    let mut fields = Vec::with_capacity(reader.schema().fields().len());
    for field in reader.schema().fields() {
        let canonical = PgType::of_field(field)?.field(field.name(), field.is_nullable());
        if !can_cast_types(field.data_type(), canonical.data_type()) {
            return Err(Error::unsupported(format!(
                "column \"{}\" of {name} has the type {}, which cannot be read",
                field.name(),
                field.data_type()
            )));
        }
        fields.push(canonical);
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn unreadable(file: &str, error: ParquetError) -> Error {
    Error::new(Code::DataException, format!("could not read file \"{file}\": {error}"))
}

/// Reads the columns of `schema` by name; one that the file lacks is NULL.
pub(crate) fn read_parquet(
    reading: &mut Reading<'_>,
    file: impl ChunkReader + 'static,
    schema: &SchemaRef,
) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(&reading.file, error))?;
    let mut wanted = Vec::new();
    for field in schema.fields() {
        match builder.schema().index_of(field.name()) {
            Ok(at) => wanted.push(at),
            Err(_) if field.is_nullable() => {}
            Err(_) => {
                let message = format!("{} has no column \"{}\", which is not null", reading.file, field.name());
                return Err(Error::new(Code::UndefinedColumn, message));
            }
        }
    }
    let projection = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let batches = builder.with_projection(projection).with_batch_size(BATCH_ROWS).build();
    let batches = batches.map_err(|error| unreadable(&reading.file, error))?;
    let mut rows_before = 0;
    for batch in batches {
        let batch = batch.map_err(|error| unreadable(&reading.file, error.into()))?;
        let converted = match convert(&batch, schema) {
            Ok(converted) => converted,
            Err(_) => convert_each(reading, &batch, schema, rows_before)?,
        };
        rows_before += batch.num_rows();
        if converted.num_rows() > 0 && !(reading.send)(converted) {
            return Ok(());
        }
    }
    Ok(())
}

/// Row by row, where a batch as a whole does not convert: finds the rows that are at fault.
fn convert_each(
    reading: &mut Reading<'_>,
    batch: &RecordBatch,
    schema: &SchemaRef,
    rows_before: usize,
) -> Result<RecordBatch> {
    let mut good = Vec::new();
    for row in 0..batch.num_rows() {
        match convert(&batch.slice(row, 1), schema) {
            Ok(converted) => good.push(converted),
            Err(error) => {
                reading.malformed(format_args!("row {}", rows_before + row + 1), error.message())?;
            }
        }
    }
    if reading.on_malformed == OnMalformed::Fail {
        return Err(Error::internal("a batch does not convert although each of its rows does"));
    }
    Ok(concat_batches(schema, &good)?)
}

fn convert(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let mut arrays = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let array = match batch.column_by_name(field.name()) {
            Some(column) => cast_with_options(column, field.data_type(), &exact).map_err(|error| {
                Error::new(Code::InvalidTextRepresentation, format!("column \"{}\": {error}", field.name()))
            })?,
            None => new_null_array(field.data_type(), batch.num_rows()),
        };
        if !field.is_nullable() && array.null_count() > 0 {
            let message = format!("null value in column \"{}\" violates not-null constraint", field.name());
            return Err(Error::new(Code::NotNullViolation, message));
        }
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}
