//! `lookaside query`: one query in process, its rows printed as they come.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::command::stop::stop_signal;
use crate::command::{open_engine, print_problems, read_catalogs, show_error};
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
pub use crate::server::print::OutputFormat;
use crate::server::print::Printer;
use crate::session::portal::{RowReader, Told};
use crate::session::{Outcome, Session};
use crate::sql;

/// What a shell expects of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// Exit code 0 at the end of the rows or of who reads them, 1 for an error, 130 for Ctrl-C.
pub async fn run(catalogs: &[PathBuf], format: OutputFormat, file: Option<PathBuf>, text: Option<String>) -> u8 {
    let engine = match read_catalogs(catalogs).and_then(open_engine) {
        Ok(engine) => engine,
        Err(problems) => {
            print_problems(&problems);
            return 1;
        }
    };
    let text = match (file, text) {
        (Some(path), _) => match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("lookaside: cannot read {}: {error}", path.display());
                return 1;
            }
        },
        (None, text) => text.unwrap_or_default(),
    };
    let printed = tokio::select! {
        printed = print_rows(&engine, &text, format) => printed,
        () = stop_signal() => return INTERRUPTED,
    };
    match printed {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}", show_error("ERROR", &error.locate(&text)));
            1
        }
    }
}

/// Prints the rows of the one query in `text`. A reader that goes away ends it quietly.
pub async fn print_rows(engine: &Arc<Engine>, text: &str, format: OutputFormat) -> Result<()> {
    let mut statements = sql::parse(text)?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(Error::new(Code::SyntaxError, "expected one query"));
    };
    let mut session = Session::new(Arc::clone(engine));
    let prepared = session.prepare(statement, &[]).await?;
    if !prepared.parameters.is_empty() {
        return Err(Error::new(Code::UndefinedParameter, "there is no parameter $1"));
    }
    let rows = match session.execute(&prepared, vec![]).await?.outcome {
        Outcome::Rows { rows, .. } => rows,
        _ => return Err(Error::unsupported("only queries can be run here")),
    };
    let mut reader = RowReader::new(rows, "SELECT");
    let mut printer = Printer::try_new(reader.schema(), format)?;
    if write(&printer.begin()?).is_err() {
        return Ok(());
    }
    loop {
        match reader.next_or_notice(usize::MAX).await {
            Told::Notice(notice) => eprintln!("{}", show_error("NOTICE", &notice)),
            Told::Rows(rows) => match rows? {
                Some(batch) if write(&printer.rows(&batch)?).is_ok() => {}
                Some(_) | None => return Ok(()),
            },
        }
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
