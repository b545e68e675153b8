//! `lookaside check`: reads, connects, plans, and tells what it has found.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;

use crate::catalog::definition::LookupKind;
use crate::catalog::system::shown_columns;
use crate::catalog::{Catalog, Lookup, Reach, Relation, Rights, Stream};
use crate::command::{open_engine, print_problems, read_catalogs, run_sql_file, show_error};
use crate::engine::Engine;
use crate::error::Result;
use crate::server::tls::Tls;

/// A line for each object; exit code 1 if anything is wrong.
pub async fn run(catalogs: &[PathBuf], sql: &[PathBuf]) -> u8 {
    let engine = match read_catalogs(catalogs).and_then(open_engine) {
        Ok(engine) => engine,
        Err(problems) => {
            print_problems(&problems);
            return 1;
        }
    };
    let mut wrong = 0;
    for (name, relation) in engine.catalog().relations() {
        match relation {
            Relation::Stream(stream) => match look_at_stream(stream).await {
                Ok(found) => println!("stream {name}: {found}"),
                Err(error) => {
                    wrong += 1;
                    eprintln!("{}", show_error(&stream.origin.to_string(), &error));
                }
            },
            Relation::Lookup(lookup) => match look(lookup).await {
                Ok(found) => println!("lookup {name}: {found}"),
                Err(error) => {
                    wrong += 1;
                    let origin = &lookup.definition().origin;
                    eprintln!("{}", show_error(&origin.to_string(), &error));
                }
            },
        }
    }
    wrong += check_files(&engine, sql).await;
    wrong += check_access(engine.catalog());
    u8::from(wrong > 0)
}

async fn check_files(engine: &Arc<Engine>, sql: &[PathBuf]) -> usize {
    let mut wrong = 0;
    for path in sql {
        match run_sql_file(engine, path).await {
            Ok(()) => println!("file {}: ok", path.display()),
            Err(error) => {
                wrong += 1;
                eprintln!("{}", show_error("lookaside", &error));
            }
        }
    }
    wrong
}

/// A line for each user, and what is wrong with the files of TLS; a right over nothing is no mistake yet.
fn check_access(catalog: &Catalog) -> usize {
    for user in catalog.users() {
        println!("user {}: {}", user.name, shown_rights(&user.rights));
    }
    for problem in catalog.idle_grants() {
        eprintln!("warning: {problem}");
    }
    match catalog.server().tls.as_ref().map(Tls::try_new) {
        Some(Err(error)) => {
            eprintln!("{}", show_error("lookaside", &error));
            1
        }
        Some(Ok(_)) => {
            println!("tls: ok");
            0
        }
        None => 0,
    }
}

fn shown_rights(rights: &Rights) -> String {
    let names = |reach: &Reach| match reach {
        Reach::Everything => "everything".to_string(),
        Reach::Only(names) if names.is_empty() => "nothing".to_string(),
        Reach::Only(names) => names.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    match rights.admin {
        true => "admin".to_string(),
        false => format!("reads {}; writes {}", names(&rights.read), names(&rights.write)),
    }
}

async fn look_at_stream(stream: &Stream) -> Result<String> {
    let source = stream.source().await?;
    Ok(format!("{}, {}", source.found().await?, columns(source.schema().as_ref())))
}

async fn look(lookup: &Lookup) -> Result<String> {
    let table = lookup.table().await?;
    let schema = table.store().schema();
    let kind = match &lookup.definition().kind {
        LookupKind::Postgres(table) | LookupKind::Mysql(table) | LookupKind::Sqlite(table) => {
            format!("table {}", table.table)
        }
        LookupKind::Redis(table) => format!("keys {}, each a {}", table.template, table.value.name()),
        LookupKind::Http(table) => table.shown.clone(),
        LookupKind::Files(table) => format!("files {}", table.pattern),
        LookupKind::File { .. } => "file".to_string(),
        LookupKind::Simulated(config) => {
            let key = config.key.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
            format!("simulated, by key {}", key.join(", "))
        }
    };
    let kind = match &lookup.definition().connection {
        Some(connection) => format!("{kind} of connection \"{connection}\""),
        None => kind,
    };
    let warning = match lookup.indexed_columns().await? {
        Some(leading) if leading.is_empty() => "; warning: no index, so every lookup reads the whole table".to_string(),
        Some(leading) => {
            format!("; lookups by {} use an index, those by other columns read the whole table", leading.join(", "))
        }
        None => String::new(),
    };
    Ok(format!("{kind}, {}{warning}", columns(schema.as_ref())))
}

fn columns(schema: &Schema) -> String {
    format!("columns {}", shown_columns(schema))
}
