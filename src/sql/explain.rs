//! `EXPLAIN ( option [ value ], … )`, as typed options.

use std::time::Duration;

use datafusion::sql::sqlparser::ast::{Expr, UtilityOption, Value};

use crate::error::{Code, Error, Result};
use crate::quantity::parse_duration;
use crate::sql_name::fold_ident;

const OPTIONS: [&str; 5] = ["analyze", "costs", "duration", "format", "verbose"];

/// What EXPLAIN is to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExplainOptions {
    /// Whether the query is run.
    pub analyze: bool,
    pub verbose: bool,
    /// How long it is run; `None`: to its end.
    pub duration: Option<Duration>,
}

/// Reads the options in brackets; `analyze` and `verbose` are those of `EXPLAIN ANALYZE VERBOSE`. Of an option that
/// is given twice the last one counts, as in PostgreSQL.
///
/// # Errors
/// 42601 for an option that does not exist or has a value of another kind, 22023 for a bad value.
pub fn explain_options(analyze: bool, verbose: bool, written: Vec<UtilityOption>) -> Result<ExplainOptions> {
    let mut options = ExplainOptions { analyze, verbose, duration: None };
    for option in written {
        let name = fold_ident(&option.name);
        let value = option.arg.as_ref();
        match name.as_str() {
            "analyze" => options.analyze = boolean(&name, value)?,
            "verbose" => options.verbose = boolean(&name, value)?,
            // Costs are not known, so there are none to show.
            "costs" => drop(boolean(&name, value)?),
            "duration" => options.duration = Some(duration(value)?),
            "format" => format(value)?,
            _ => return Err(unknown(&name)),
        }
    }
    if options.duration.is_some() && !options.analyze {
        return Err(Error::new(Code::InvalidParameterValue, "EXPLAIN option DURATION requires ANALYZE")
            .with_hint("Write EXPLAIN (ANALYZE, DURATION '5s')."));
    }
    Ok(options)
}

/// What PostgreSQL takes for a boolean: nothing at all is true.
fn boolean(name: &str, value: Option<&Expr>) -> Result<bool> {
    let Some(value) = value else { return Ok(true) };
    match word(value).to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(Error::new(Code::SyntaxError, format!("{name} requires a Boolean value"))),
    }
}

fn duration(value: Option<&Expr>) -> Result<Duration> {
    const HINT: &str = "Write DURATION '5s'.";
    let value = value.ok_or_else(|| Error::new(Code::SyntaxError, "duration requires a value").with_hint(HINT))?;
    match parse_duration(&word(value)) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => {
            let message = format!("invalid value for EXPLAIN option \"duration\": \"{}\"", word(value));
            Err(Error::new(Code::InvalidParameterValue, message).with_hint(HINT))
        }
    }
}

fn format(value: Option<&Expr>) -> Result<()> {
    match value.map(word) {
        Some(format) if format.eq_ignore_ascii_case("text") => Ok(()),
        Some(format) => Err(Error::unsupported(format!("EXPLAIN (FORMAT {format}) is not supported"))
            .with_hint("Plans are shown as text.")),
        None => Err(Error::new(Code::SyntaxError, "format requires a value")),
    }
}

fn word(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(ident) => ident.value.clone(),
        other => other.to_string(),
    }
}

fn unknown(name: &str) -> Error {
    let error = Error::new(Code::SyntaxError, format!("unrecognized EXPLAIN option \"{name}\""));
    let nearest = OPTIONS.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 2 => error.with_hint(format!("Perhaps you meant \"{known}\".")),
        _ => error.with_hint(format!("There are {}.", OPTIONS.join(", "))),
    }
}
