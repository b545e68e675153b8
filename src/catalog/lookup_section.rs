//! What `[lookup.X]` means; its policy stands in `policy_section`.

use super::columns::read_types;
use super::connection_section::Connections;
use super::definition::{LookupDefinition, LookupKind, SqlTable};
use super::files_section::read_files_table;
use super::http_section::read_http_table;
use super::policy_section::{read_cache, read_policy};
use super::problem::Complaint;
use super::reading::Text;
use super::redis_section::read_redis_table;
use super::section::Section;
use super::simulated_section::read_simulated;
use super::stream_section::read_format;
use crate::lookup::policy::CachePolicy;
use crate::pg_type::PgType;

#[derive(Clone, Copy)]
enum Type {
    File,
    Simulated,
}

/// Reads the section of the lookup table `name`; `None` if it is too wrong to tell what it would be. `connections` are
/// those of all files; what is wrong with the one that it names is complained of here.
pub(super) fn read_lookup(name: &str, section: &Section, connections: &Connections) -> Option<LookupDefinition> {
    let (kind, connection, policy) = match (section.has("type"), section.has("connection")) {
        (true, true) => {
            let message = format!("{} has both \"type\" and \"connection\"", section.title);
            let hint = "Write type = \"file\" for a file, or connection = \"…\" for a table in a store.";
            section.complain_of("type", Complaint::new(message).with_hint(hint));
            return None;
        }
        (false, false) => {
            let message = format!("{} lacks \"connection\"", section.title);
            let hint = "Write connection = \"…\" for a table in a store, or type = \"file\" for a file.";
            section.complain(Complaint::new(message).with_hint(hint));
            section.check_keys();
            return None;
        }
        (true, false) => match section.choice("type", &[("file", Type::File), ("simulated", Type::Simulated)])? {
            Type::File => {
                let section = section.of_type("file");
                refuse_file_cache(&section);
                (read_file(&section), None, read_policy(&section, CachePolicy::None))
            }
            Type::Simulated => {
                let section = section.of_type("simulated");
                let kind = LookupKind::Simulated(read_simulated(&section));
                (Some(kind), None, read_policy(&section, read_cache(&section, "simulated")))
            }
        },
        (false, true) => {
            let connection = section.text("connection");
            let Some(of) = connection.as_ref().and_then(|name| connections.type_of(section, name)) else {
                // What the section would be is not known, so only keys that belong nowhere can be told.
                section.check_keys();
                return None;
            };
            if of == "kafka" {
                let message = format!("a connection of type \"{of}\" holds no lookup tables");
                section.complain_of("connection", Complaint::new(message));
                return None;
            }
            let section = section.of_type(of);
            let policy = read_policy(&section, read_cache(&section, of));
            (read_stored(&section, of), connection, policy)
        }
    };
    let connection = connection.map(|connection| connection.value);
    let (origin, comment) = (section.origin.clone(), section.comment());
    Some(LookupDefinition { name: name.to_string(), origin, comment, connection, policy, kind: kind? })
}

/// A table in a store of the type `of`.
fn read_stored(section: &Section, of: &'static str) -> Option<LookupKind> {
    match of {
        "postgres" => read_sql_table(section).map(LookupKind::Postgres),
        "sqlite" => read_sql_table(section).map(LookupKind::Sqlite),
        "redis" => read_redis_table(section).map(LookupKind::Redis),
        "mysql" => read_sql_table(section).map(LookupKind::Mysql),
        "http" => read_http_table(section).map(LookupKind::Http),
        "files" => read_files_table(section).map(LookupKind::Files),
        _ => None,
    }
}

/// A table of a database that knows its columns.
fn read_sql_table(section: &Section) -> Option<SqlTable> {
    section.require("table");
    let table = section.text("table");
    let columns = section.text_list("columns");
    let types = read_types(section);
    if let Some(columns) = &columns {
        refuse_hidden_types(section, columns, &types);
    }
    Some(SqlTable {
        table: table?.value,
        columns: columns.map(|columns| columns.into_iter().map(|column| column.value).collect()),
        types: types.into_iter().map(|(name, _, pg_type)| (name, pg_type)).collect(),
    })
}

/// A type for a column that is not exposed would change nothing.
fn refuse_hidden_types(section: &Section, columns: &[Text], types: &[(String, Text, PgType)]) {
    for (name, text, _) in types {
        if !columns.iter().any(|column| column.value == *name) {
            let message = format!("\"{name}\" in \"types\" of {} is not among its \"columns\"", section.title);
            section.reading.complain(&text.origin, Complaint::new(message));
        }
    }
}

fn read_file(section: &Section) -> Option<LookupKind> {
    section.require("path");
    let data = section.file("path");
    let (format, columns) = read_format(section)?;
    Some(LookupKind::File { data: data?, format, columns })
}

/// A file is always held whole, so its cache has nothing to set.
fn refuse_file_cache(lookup: &Section) {
    let Some(section) = lookup.section("cache", "lookup.X.cache") else { return };
    let is_full_alone = section.entries().count() == 1 && section.is_text("mode", "full");
    if !is_full_alone {
        let message = format!("{} does not go with type \"file\"", section.title);
        section.complain(Complaint::new(message).with_hint(
            "A file is always held whole, as with mode = \"full\", and read again when it changes: leave the section out.",
        ));
    }
}
