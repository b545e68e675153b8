//! What `[lookup.X]` means; its policy stands in `policy_section`.

use super::columns::read_types;
use super::definition::{LookupDefinition, LookupKind};
use super::policy_section::{read_cache, read_policy};
use super::problem::Complaint;
use super::reading::Text;
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

/// Reads the section of the lookup table `name`; `None` if it is too wrong to tell what it would be. The connection
/// that it names stands beside it, for the caller to look for.
pub(super) fn read_lookup(name: &str, section: &Section) -> (Option<LookupDefinition>, Option<Text>) {
    let (kind, connection, policy) = match (section.has("type"), section.has("connection")) {
        (true, true) => {
            let message = format!("{} has both \"type\" and \"connection\"", section.title);
            let hint = "Write type = \"file\" for a file, or connection = \"…\" for a table in a store.";
            section.complain_of("type", Complaint::new(message).with_hint(hint));
            return (None, None);
        }
        (false, false) => {
            let message = format!("{} lacks \"connection\"", section.title);
            let hint = "Write connection = \"…\" for a table in a store, or type = \"file\" for a file.";
            section.complain(Complaint::new(message).with_hint(hint));
            section.check_keys();
            return (None, None);
        }
        (true, false) => match section.choice("type", &[("file", Type::File), ("simulated", Type::Simulated)]) {
            None => return (None, None),
            Some(Type::File) => {
                let section = section.of_type("file");
                refuse_file_cache(&section);
                (read_file(&section), None, read_policy(&section, CachePolicy::None))
            }
            Some(Type::Simulated) => {
                let section = section.of_type("simulated");
                let kind = LookupKind::Simulated(read_simulated(&section));
                (Some(kind), None, read_policy(&section, read_cache(&section, "simulated")))
            }
        },
        (false, true) => {
            let section = section.of_type("postgres");
            let connection = section.text("connection");
            let kind = read_postgres(&section, connection.as_ref());
            (kind, connection, read_policy(&section, read_cache(&section, "postgres")))
        }
    };
    let origin = section.origin.clone();
    let comment = section.comment();
    (kind.map(|kind| LookupDefinition { name: name.to_string(), origin, comment, policy, kind }), connection)
}

fn read_postgres(section: &Section, connection: Option<&Text>) -> Option<LookupKind> {
    section.require("table");
    let table = section.text("table");
    let columns = section.text_list("columns");
    let types = read_types(section);
    if let Some(columns) = &columns {
        refuse_hidden_types(section, columns, &types);
    }
    Some(LookupKind::Postgres {
        connection: connection?.value.clone(),
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
