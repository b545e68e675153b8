//! INSERT INTO a push stream: the query behind it gives rows of the stream's own types.

use datafusion::arrow::array::{RecordBatch, new_null_array};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::sql::sqlparser::ast::{CastKind, Expr, Ident, Query, SetExpr, Value, ValueWithSpan};
use datafusion::sql::sqlparser::tokenizer::Span;
use futures::TryStreamExt;

use crate::engine::{Planned, Rows};
use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;
use crate::session::copy::all_nullable;
use crate::source::Source;
use crate::source::push::PushStream;
use crate::sql::rewrite;

/// The query that gives an INSERT's rows: each value of VALUES is cast to its column's type, which also tells the
/// types of parameters.
///
/// # Errors
/// 42703 and 42601 for columns and numbers of values that do not fit.
pub fn source_query(stream: &PushStream, columns: &[Ident], source: &Query) -> Result<Query> {
    let positions = column_positions(stream, columns)?;
    let schema = stream.schema();
    let types: Vec<PgType> =
        positions.iter().map(|position| PgType::of_field(schema.field(*position))).collect::<Result<_>>()?;
    let mut query = source.clone();
    let SetExpr::Values(values) = query.body.as_mut() else { return Ok(query) };
    for row in &mut values.rows {
        check_width(row.content.len(), &types, columns.is_empty())?;
        for (value, pg_type) in row.content.iter_mut().zip(&types) {
            let written = std::mem::replace(value, null());
            let is_default = matches!(&written, Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"));
            let inner = if is_default { null() } else { written };
            *value = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(inner),
                data_type: rewrite::type_in_sql(pg_type)?,
                array: false,
                format: None,
            };
        }
    }
    Ok(query)
}

/// # Errors
/// 0A000 for an INSERT that would never end.
pub fn refuse_endless(planned: &Planned) -> Result<()> {
    match planned.endless {
        true => Err(Error::unsupported("INSERT from an endless query would never end")
            .with_hint("Put a LIMIT behind the query.")),
        false => Ok(()),
    }
}

/// All rows of an INSERT as one batch of the stream's columns.
///
/// # Errors
/// Whatever the query fails with, and values that do not fit their columns.
pub async fn collect(stream: &PushStream, columns: &[Ident], rows: Rows) -> Result<RecordBatch> {
    let positions = column_positions(stream, columns)?;
    let source_schema = rows.stream.schema();
    let batches: Vec<RecordBatch> = rows.stream.try_collect().await?;
    let batch = concat_batches(&source_schema, &batches)?;
    let types: Vec<PgType> =
        positions.iter().map(|position| PgType::of_field(stream.schema().field(*position))).collect::<Result<_>>()?;
    check_width(batch.num_columns(), &types, columns.is_empty())?;
    let schema = stream.schema();
    let mut arrays: Vec<_> =
        schema.fields().iter().map(|field| new_null_array(field.data_type(), batch.num_rows())).collect();
    for (array, position) in batch.columns().iter().zip(positions) {
        arrays[position] = cast(array, schema.field(position).data_type())?;
    }
    let nullable = all_nullable(&schema);
    Ok(RecordBatch::try_new(nullable, arrays)?)
}

/// The positions of the named columns; all, if none is named.
///
/// # Errors
/// 42703 for a name that is no column, 42701 for one that is named twice.
pub fn column_positions(stream: &PushStream, columns: &[Ident]) -> Result<Vec<usize>> {
    let schema = stream.schema();
    if columns.is_empty() {
        return Ok((0..schema.fields().len()).collect());
    }
    let mut positions = vec![];
    for column in columns {
        let name = crate::sql_name::fold_ident(column);
        let position = schema.index_of(&name).map_err(|_| {
            Error::new(
                Code::UndefinedColumn,
                format!("column \"{name}\" of stream \"{}\" does not exist", stream.name()),
            )
        })?;
        if positions.contains(&position) {
            return Err(Error::new(Code::DuplicateColumn, format!("column \"{name}\" specified more than once")));
        }
        positions.push(position);
    }
    Ok(positions)
}

fn check_width(width: usize, types: &[PgType], all_columns: bool) -> Result<()> {
    if width > types.len() {
        return Err(Error::new(Code::SyntaxError, "INSERT has more expressions than target columns"));
    }
    if width < types.len() && !all_columns {
        return Err(Error::new(Code::SyntaxError, "INSERT has more target columns than expressions"));
    }
    Ok(())
}

fn null() -> Expr {
    Expr::Value(ValueWithSpan { value: Value::Null, span: Span::empty() })
}
