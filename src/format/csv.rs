//! The lines of a CSV file with a header, as rows of declared columns.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Code, Error, Result};
use crate::format::fields::{CsvDialect, Fields};
use crate::format::json::in_column;
use crate::format::row::RowBuilder;
use crate::format::settings::ValueSettings;
use crate::format::text::{self, ValueError};

/// Reads RFC 4180: an empty field without quotes is NULL, a quoted one the empty string.
pub struct CsvDecoder {
    rows: RowBuilder,
    dialect: CsvDialect,
    fields: Fields,
    /// Where each column's field is; `None` for a column that the file lacks, which is NULL.
    positions: Vec<Option<usize>>,
    header_len: usize,
    has_header: bool,
}

impl CsvDecoder {
    /// Finds the columns of `schema` by name in the file's first record; others in the file are passed over.
    ///
    /// # Errors
    /// 22P04 for a header that cannot be read or repeats a name, 42703 for one without a column that is `not null`,
    /// 0A000 for a column of an Arrow type that no type of PostgreSQL stands for.
    pub fn try_new(schema: &SchemaRef, header: &[u8]) -> Result<Self> {
        let dialect = CsvDialect::default();
        let mut fields = Fields::default();
        fields.read_csv(header, &dialect)?;
        let mut names = Vec::with_capacity(fields.len());
        for at in 0..fields.len() {
            let name = fields.get(at)?.unwrap_or_default();
            if names.contains(&name) {
                return Err(Error::new(
                    Code::BadCopyFormat,
                    format!("the header has column \"{name}\" more than once"),
                ));
            }
            names.push(name);
        }
        let mut positions = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let position = names.iter().position(|name| name == field.name());
            if position.is_none() && !field.is_nullable() {
                return Err(Error::new(
                    Code::UndefinedColumn,
                    format!("the header has no column \"{}\", which is not null", field.name()),
                ));
            }
            positions.push(position);
        }
        let header_len = names.len();
        let rows = RowBuilder::try_new(schema)?;
        Ok(CsvDecoder { rows, dialect, fields, positions, header_len, has_header: true })
    }

    /// Records have the columns of `schema` in their order.
    ///
    /// # Errors
    /// 0A000 for a column of an Arrow type that no type of PostgreSQL stands for.
    pub fn positional(schema: &SchemaRef) -> Result<Self> {
        let (dialect, fields, header_len) = (CsvDialect::default(), Fields::default(), schema.fields().len());
        let positions = (0..header_len).map(Some).collect();
        let rows = RowBuilder::try_new(schema)?;
        Ok(CsvDecoder { rows, dialect, fields, positions, header_len, has_header: false })
    }

    /// Appends the row that `record`, without its line's end, holds.
    ///
    /// # Errors
    /// The reason, with the name of the column; nothing has been appended then.
    pub fn append(&mut self, record: &[u8]) -> Result<(), ValueError> {
        self.fields.read_csv(record, &self.dialect)?;
        if self.fields.len() != self.header_len {
            let as_in = if self.has_header { " as in the header" } else { "" };
            let message = format!("expected {} fields{as_in}, found {}", self.header_len, self.fields.len());
            return Err(ValueError::new(Code::BadCopyFormat, message));
        }
        let mut values = Vec::with_capacity(self.positions.len());
        let columns = self.rows.types().iter().zip(self.rows.schema().fields());
        for (position, (pg_type, field)) in self.positions.iter().zip(columns) {
            let text = match position {
                Some(position) => self.fields.get(*position),
                None => Ok(None),
            };
            let value = text
                .and_then(|text| text.map(|text| text::parse(pg_type, text, &ValueSettings::default())).transpose());
            values.push(value.map_err(|error| in_column(field.name(), error))?);
        }
        self.rows.append(values, record.len())
    }

    /// Rows since the last [`CsvDecoder::finish`].
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the batch should be taken before more rows come: it holds 8192 rows, or 16 MiB of input.
    pub fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// The rows since the last call; the decoder can be used again.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        self.rows.finish()
    }

    /// An empty line is a row only where there is one column: with more it cannot be one.
    pub(crate) fn is_blank(&self, record: &[u8]) -> bool {
        record.is_empty() && self.header_len > 1
    }
}
