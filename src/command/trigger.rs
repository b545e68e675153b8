//! `lookaside trigger`: the SQL that has a table of PostgreSQL tell of its changes.

use std::path::PathBuf;

use crate::catalog::Relation;
use crate::command::{open_engine, print_problems, read_catalogs, show_error};
use crate::error::{Code, Error};

/// Prints the statements; nothing is changed in the store. Exit code 1 if there are none to print.
pub async fn run(catalogs: &[PathBuf], lookup: &str) -> u8 {
    let engine = match read_catalogs(catalogs).and_then(open_engine) {
        Ok(engine) => engine,
        Err(problems) => {
            print_problems(&problems);
            return 1;
        }
    };
    let statements = match engine.catalog().relations().find(|(name, _)| *name == lookup) {
        Some((_, Relation::Lookup(table))) => table.trigger().await,
        Some((_, Relation::Stream(_))) => {
            Err(Error::new(Code::UndefinedTable, format!("\"{lookup}\" is a stream, not a lookup table")))
        }
        None => Err(Error::new(Code::UndefinedTable, format!("lookup table \"{lookup}\" does not exist"))),
    };
    match statements {
        Ok(statements) => {
            print!("{statements}");
            0
        }
        Err(error) => {
            eprintln!("{}", show_error("lookaside", &error));
            1
        }
    }
}
