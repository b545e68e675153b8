//! The subcommands. Each gives the process's exit code and has told the user why it is not 0.

pub mod check;
pub mod demo;
pub mod passwd;
pub mod query;
pub mod serve;
mod stop;
pub mod trigger;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::definition::CatalogDefinition;
use crate::catalog::{Catalog, file, problem::Problem};
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::session::{Outcome, Session};
use crate::sql;

/// The definitions in catalog files; none for no files.
fn read_catalogs(paths: &[PathBuf]) -> Result<CatalogDefinition, Vec<Problem>> {
    match paths.is_empty() {
        true => Ok(CatalogDefinition::default()),
        false => file::read_files(paths),
    }
}

/// An engine over catalog files.
fn open_engine(definition: CatalogDefinition) -> Result<Arc<Engine>, Vec<Problem>> {
    Ok(Engine::new(Catalog::open(definition)?))
}

fn print_problems(problems: &[Problem]) {
    for problem in problems {
        eprintln!("{problem}");
    }
}

/// An error as psql shows it, after the word `prefix`.
fn show_error(prefix: &str, error: &Error) -> String {
    let mut text = format!("{prefix}: {error} (SQLSTATE {})", error.sqlstate());
    for (word, sentence) in [("DETAIL", error.detail()), ("HINT", error.hint())] {
        if let Some(sentence) = sentence {
            text.push_str(&format!("\n{word}:  {sentence}"));
        }
    }
    text
}

/// Runs a file of statements: those that make views, since nobody would see the rows of others.
async fn run_sql_file(engine: &Arc<Engine>, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::new(Code::InvalidParameterValue, format!("cannot read {}: {error}", path.display())))?;
    let mut session = Session::new(Arc::clone(engine));
    let in_file = |error: Error| {
        let error = error.locate(&text);
        let line =
            error.position().map_or(1, |position| 1 + text.chars().take(position - 1).filter(|c| *c == '\n').count());
        error.with_context(format!("{}:{line}", path.display()))
    };
    for statement in sql::parse(&text).map_err(in_file)? {
        let prepared = session.prepare(statement, &[]).await.map_err(in_file)?;
        match session.execute(&prepared, vec![]).await.map_err(in_file)?.outcome {
            Outcome::Done { .. } => {}
            _ => {
                let error = Error::unsupported("a statement file holds statements without rows, such as CREATE VIEW");
                return Err(in_file(error));
            }
        }
    }
    Ok(())
}
