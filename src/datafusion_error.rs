//! DataFusion's and Arrow's errors as PostgreSQL would have put them: its SQLSTATE, and its words where they are known.

use datafusion::arrow::error::ArrowError;
use datafusion::common::{Diagnostic, SchemaError};
use datafusion::error::DataFusionError;

use crate::error::{Code, Error};

/// Longer messages of the planner are about itself and not about the query.
const MAX_PLAN_MESSAGE: usize = 300;

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        let position = error.diagnostic().and_then(position_of);
        let ours = from_root(error.find_root());
        match position {
            Some((line, column)) if ours.position().is_none() => ours.with_place(line, column),
            _ => ours,
        }
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        from_arrow(&error)
    }
}

fn position_of(diagnostic: &Diagnostic) -> Option<(u64, u64)> {
    diagnostic.span.map(|span| (span.start.line, span.start.column))
}

fn from_root(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(nested) => from_root(nested.find_root()),
                None => Error::internal(inner.to_string()),
            },
        },
        DataFusionError::ArrowError(error, _) => from_arrow(error),
        DataFusionError::SchemaError(error, _) => from_schema(error),
        DataFusionError::SQL(error, _) => Error::new(Code::SyntaxError, format!("syntax error: {error}")),
        DataFusionError::NotImplemented(message) => Error::unsupported(sentence(message)),
        DataFusionError::ResourcesExhausted(message) => Error::new(Code::OutOfMemory, sentence(message)),
        DataFusionError::Plan(message) => from_plan(message),
        DataFusionError::Execution(message) => from_execution(message),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => from_root(first.find_root()),
            None => Error::internal("an empty list of errors"),
        },
        DataFusionError::Shared(shared) => from_root(shared.find_root()),
        DataFusionError::Context(_, inner) => from_root(inner.find_root()),
        DataFusionError::Diagnostic(_, inner) => from_root(inner.find_root()),
        other => Error::internal(sentence(&other.strip_backtrace())),
    }
}

fn from_arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(nested) => from_root(nested.find_root()),
            None => match inner.downcast_ref::<Error>() {
                Some(ours) => ours.clone(),
                None => Error::internal(inner.to_string()),
            },
        },
        ArrowError::DivideByZero => Error::new(Code::DivisionByZero, "division by zero"),
        ArrowError::ArithmeticOverflow(message) => Error::new(Code::NumericOutOfRange, overflow(message)),
        ArrowError::CastError(message) | ArrowError::ParseError(message) => from_cast(message),
        ArrowError::InvalidArgumentError(message) if message.contains("too large to store in a Decimal") => {
            Error::new(Code::NumericOutOfRange, "numeric field overflow").with_detail(capitalised(message))
        }
        ArrowError::InvalidArgumentError(message)
            if message.contains("is too large") || message.contains("out of range") =>
        {
            Error::new(Code::NumericOutOfRange, sentence(message))
        }
        ArrowError::NotYetImplemented(message) => Error::unsupported(sentence(message)),
        other => Error::internal(sentence(&other.to_string())),
    }
}

fn overflow(message: &str) -> String {
    // "Overflow happened on: 9223372036854775807 + 1"
    match message.split_once("Overflow happened on: ") {
        Some((_, operation)) => format!("integer out of range: {operation}"),
        None => sentence(message),
    }
}

/// `Cannot cast string 'abc' to value of Int32 type` and its likes.
fn from_cast(message: &str) -> Error {
    let quoted = message.split_once('\'').and_then(|(_, rest)| rest.rsplit_once('\'')).map(|(value, _)| value);
    let target = message.rsplit_once("to value of ").map(|(_, rest)| rest.trim_end_matches(" type"));
    if let (Some(value), Some(target)) = (quoted, target) {
        if target.starts_with("Decimal") {
            return Error::new(
                Code::InvalidTextRepresentation,
                format!("invalid input syntax for type numeric: \"{value}\""),
            );
        }
        let type_name = shown_type(target);
        let is_number = value.trim().parse::<i128>().is_ok();
        return match is_number && matches!(type_name, "smallint" | "integer" | "bigint") {
            true => {
                Error::new(Code::NumericOutOfRange, format!("value \"{value}\" is out of range for type {type_name}"))
            }
            false => Error::new(
                Code::InvalidTextRepresentation,
                format!("invalid input syntax for type {type_name}: \"{value}\""),
            ),
        };
    }
    if let Some(value) = quoted.filter(|_| message.contains("timestamp") || message.contains("date")) {
        return Error::new(
            Code::InvalidTextRepresentation,
            format!("invalid input syntax for type timestamp: \"{value}\""),
        );
    }
    if message.contains("Can't cast value") || message.contains("overflow") || message.contains("out of range") {
        return Error::new(Code::NumericOutOfRange, out_of_range(message));
    }
    Error::new(Code::InvalidTextRepresentation, sentence(message))
}

/// `Can't cast value 3000000000 to type Int32`.
fn out_of_range(message: &str) -> String {
    match message.rsplit_once(" to type ") {
        Some((_, target)) => format!("{} out of range", shown_type(target)),
        None => sentence(message),
    }
}

fn shown_type(arrow_name: &str) -> &str {
    match arrow_name {
        "Int8" | "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Boolean" => "boolean",
        "Date32" | "Date64" => "date",
        name if name.starts_with("Timestamp") => "timestamp",
        name if name.starts_with("Time") => "time",
        name if name.starts_with("Interval") => "interval",
        other => other,
    }
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error = Error::new(Code::UndefinedColumn, format!("column \"{}\" does not exist", field.flat_name()));
            let nearest = valid_fields
                .iter()
                .map(|valid| (strsim::damerau_levenshtein(valid.name(), field.name()), valid))
                .min_by_key(|(distance, _)| *distance);
            match nearest {
                Some((distance, valid)) if distance <= 2 => {
                    error.with_hint(format!("Perhaps you meant to reference the column \"{}\".", valid.flat_name()))
                }
                _ => error,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(Code::AmbiguousColumn, format!("column reference \"{}\" is ambiguous", field.name()))
        }
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            Error::new(Code::DuplicateAlias, format!("table name \"{qualifier}\" specified more than once"))
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(Code::AmbiguousColumn, format!("column reference \"{name}\" is ambiguous"))
        }
    }
}

fn from_plan(message: &str) -> Error {
    if let Some(name) = between(message, "table '", "' not found") {
        let name = name.rsplit('.').next().unwrap_or(name);
        return Error::new(Code::UndefinedTable, format!("relation \"{name}\" does not exist"));
    }
    if let Some(name) = between(message, "Invalid function '", "'") {
        let error = Error::new(Code::UndefinedFunction, format!("function {name}() does not exist"));
        return match between(message, "Did you mean '", "'") {
            Some(hint) => error.with_hint(format!("Perhaps you meant {hint}().")),
            None => error,
        };
    }
    if let Some((one, other)) = message.split_once("Projections require unique expression names") {
        let _ = (one, other);
        return Error::new(Code::AmbiguousColumn, "two columns of a subquery have the same name")
            .with_hint("Give one of them another name with AS.");
    }
    // What the planner has to say of itself, with everything in it that it knows.
    if message.len() > MAX_PLAN_MESSAGE {
        let start: String = message.chars().take(MAX_PLAN_MESSAGE).collect();
        return Error::internal(format!("the query could not be planned: {start} …"));
    }
    if message.contains("GROUP BY") && message.contains("must") {
        return Error::new(Code::GroupingError, sentence(message));
    }
    let is_type = ["coerce", "Cannot infer common", "cannot be converted", "operator", "type"]
        .iter()
        .any(|w| message.contains(w));
    match is_type {
        true => Error::new(Code::DatatypeMismatch, sentence(message)),
        false => Error::new(Code::SyntaxError, sentence(message)),
    }
}

fn from_execution(message: &str) -> Error {
    if message.contains("cast") || message.contains("parse") {
        return from_cast(message);
    }
    if message.to_lowercase().contains("overflow") {
        return Error::new(Code::NumericOutOfRange, sentence(message));
    }
    Error::new(Code::DataException, sentence(message))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// Lower case at the start and no full stop, as PostgreSQL writes its messages.
fn sentence(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    let mut characters = message.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(characters).collect(),
        _ => message.to_string(),
    }
}

fn capitalised(message: &str) -> String {
    format!("{}.", message.trim_end_matches('.'))
}
