//! Rows for people and scripts: what `lookaside query` prints, with values as a client would get them.

use bytes::BytesMut;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::pg_type::PgType;
use crate::server::encode::{Columns, Format};

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// Columns under each other, as wide as their first rows need.
    Table,
    /// With a header line; quoted where needed; NULL is empty, and an empty text is "".
    Csv,
    /// A JSON object a line.
    Json,
}

/// Writes batches of one schema as text.
pub struct Printer {
    columns: Columns,
    types: Vec<PgType>,
    format: OutputFormat,
    /// Of a table, known from the first batch on.
    widths: Option<Vec<usize>>,
}

impl Printer {
    /// # Errors
    /// 0A000 for a column whose type PostgreSQL lacks.
    pub fn try_new(schema: &SchemaRef, format: OutputFormat) -> Result<Self> {
        let columns = Columns::try_new(schema, &vec![Format::Text; schema.fields().len()])?;
        let types = schema.fields().iter().map(|field| PgType::of_field(field)).collect::<Result<_>>()?;
        Ok(Printer { columns, types, format, widths: None })
    }

    /// What stands before the first row, as far as it is known before it has come.
    ///
    /// # Errors
    /// None in practice.
    pub fn begin(&self) -> Result<Vec<u8>> {
        match self.format {
            OutputFormat::Csv => {
                let names: Vec<_> = self.columns.names().map(|name| Some(name.to_string())).collect();
                Ok(csv_line(&names).into_bytes())
            }
            OutputFormat::Table | OutputFormat::Json => Ok(vec![]),
        }
    }

    /// The rows of a batch.
    ///
    /// # Errors
    /// 22008 for a date or time that PostgreSQL cannot hold.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let rows = self.texts(batch)?;
        let lines: String = match self.format {
            OutputFormat::Csv => rows.iter().map(|row| csv_line(row)).collect(),
            OutputFormat::Json => rows.into_iter().map(|row| self.json_line(row)).collect::<Result<_>>()?,
            OutputFormat::Table => self.table_lines(&rows),
        };
        Ok(lines.into_bytes())
    }

    /// The values of a batch as clients get them in text form.
    ///
    /// # Errors
    /// 22008 for a date or time that PostgreSQL cannot hold.
    pub fn texts(&self, batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>> {
        let writers = self.columns.writers(batch)?;
        let mut buffer = BytesMut::new();
        let mut rows = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let mut values = Vec::with_capacity(writers.len());
            for writer in &writers {
                if writer.is_null(row) {
                    values.push(None);
                    continue;
                }
                buffer.clear();
                writer.write(row, &mut buffer)?;
                values.push(Some(String::from_utf8_lossy(&buffer).into_owned()));
            }
            rows.push(values);
        }
        Ok(rows)
    }

    fn json_line(&self, row: Vec<Option<String>>) -> Result<String> {
        let failed = |error: serde_json::Error| Error::internal(format!("a value cannot be JSON: {error}"));
        let mut members = vec![];
        for ((name, pg_type), value) in self.columns.names().zip(&self.types).zip(row) {
            let name = serde_json::to_string(name).map_err(failed)?;
            let value = match value {
                None => "null".to_string(),
                Some(text) => json_value(pg_type, &text).map_err(failed)?,
            };
            members.push(format!("{name}:{value}"));
        }
        Ok(format!("{{{}}}\n", members.join(",")))
    }

    fn table_lines(&mut self, rows: &[Vec<Option<String>>]) -> String {
        let mut lines = String::new();
        let widths = match self.widths.take() {
            Some(widths) => widths,
            None => {
                let names: Vec<_> = self.columns.names().map(|name| Some(name.to_string())).collect();
                let widths = widths(&names, rows);
                lines.push_str(&self.table_line(&names, &widths, false));
                let rule: Vec<_> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
                lines.push_str(&format!("{}\n", rule.join("+")));
                widths
            }
        };
        for row in rows {
            lines.push_str(&self.table_line(row, &widths, true));
        }
        self.widths = Some(widths);
        lines
    }

    fn table_line(&self, row: &[Option<String>], widths: &[usize], align: bool) -> String {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .zip(&self.types)
            .map(|((value, width), pg_type)| {
                let text = value.as_deref().unwrap_or("");
                match align && is_number(pg_type) {
                    true => format!(" {text:>width$} "),
                    false => format!(" {text:<width$} "),
                }
            })
            .collect();
        format!("{}\n", cells.join("|").trim_end())
    }
}

fn widths(names: &[Option<String>], rows: &[Vec<Option<String>>]) -> Vec<usize> {
    let width = |column: usize, row: &[Option<String>]| row[column].as_ref().map_or(0, |text| text.chars().count());
    (0..names.len())
        .map(|column| rows.iter().map(|row| width(column, row)).fold(width(column, names), usize::max))
        .collect()
}

fn is_number(pg_type: &PgType) -> bool {
    matches!(
        pg_type,
        PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Float4 | PgType::Float8 | PgType::Numeric { .. }
    )
}

fn json_value(pg_type: &PgType, text: &str) -> Result<String, serde_json::Error> {
    match pg_type {
        PgType::Bool => Ok(if text == "t" { "true" } else { "false" }.to_string()),
        PgType::Json | PgType::Jsonb => Ok(text.replace('\n', " ")),
        // NaN and the infinities are no JSON numbers.
        pg_type if is_number(pg_type) && text.ends_with(|last: char| last.is_ascii_digit()) => Ok(text.to_string()),
        _ => serde_json::to_string(text),
    }
}

fn csv_line(row: &[Option<String>]) -> String {
    let fields: Vec<String> = row
        .iter()
        .map(|value| match value {
            None => String::new(),
            Some(text) if text.is_empty() || text.contains(['"', ',', '\n', '\r']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Some(text) => text.clone(),
        })
        .collect();
    format!("{}\n", fields.join(","))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{BooleanArray, Int64Array, StringViewArray};
    use datafusion::arrow::datatypes::Schema;

    use super::*;

    fn printed(format: OutputFormat) -> String {
        let fields =
            vec![PgType::Int8.field("id", true), PgType::Text.field("name", true), PgType::Bool.field("ok", true)];
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(Int64Array::from(vec![Some(1), None])),
                Arc::new(StringViewArray::from(vec![Some("a \"b\", c"), Some("")])),
                Arc::new(BooleanArray::from(vec![Some(true), None])),
            ],
        )
        .unwrap();
        let mut printer = Printer::try_new(&schema, format).unwrap();
        let mut bytes = printer.begin().unwrap();
        bytes.extend(printer.rows(&batch).unwrap());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn csv_tells_null_from_empty() {
        assert_eq!(printed(OutputFormat::Csv), "id,name,ok\n1,\"a \"\"b\"\", c\",t\n,\"\",\n");
    }

    #[test]
    fn json_has_the_types_of_its_values() {
        let expected = "{\"id\":1,\"name\":\"a \\\"b\\\", c\",\"ok\":true}\n{\"id\":null,\"name\":\"\",\"ok\":null}\n";
        assert_eq!(printed(OutputFormat::Json), expected);
    }

    #[test]
    fn tables_align_numbers_to_the_right() {
        let expected = " id | name     | ok\n----+----------+----\n  1 | a \"b\", c | t\n    |          |\n";
        assert_eq!(printed(OutputFormat::Table), expected);
    }
}
