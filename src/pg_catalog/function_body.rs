//! What the functions of `pg_catalog` do. Those beginning with `reg` are PostgreSQL's own for `::regclass` and its likes.

use std::ops::RangeInclusive;

use super::function::{Body, Call};
use super::keyword;
use super::oids::Kind;
use super::privilege::{may_use_column, may_use_database, may_use_function, may_use_relation, may_use_role};
use super::registered;
use super::rows::index_definition;
use super::snapshot::RelationFacts;
use super::type_name::{format_type, type_descriptions};
use crate::error::Result;
use crate::pg_type::PgType;

type Answer = Result<Option<String>>;

const fn body(
    name: &'static str,
    arguments: RangeInclusive<usize>,
    gives: fn() -> PgType,
    of: fn(&Call) -> Answer,
) -> Body {
    Body { name, arguments, nullable_from: usize::MAX, gives, of }
}

const TEXT: fn() -> PgType = || PgType::Text;
const BOOL: fn() -> PgType = || PgType::Bool;
const INT4: fn() -> PgType = || PgType::Int4;
const INT8: fn() -> PgType = || PgType::Int8;
const OID: fn() -> PgType = || PgType::Oid;
const NAME: fn() -> PgType = || PgType::Name;
const TEXTS: fn() -> PgType = || PgType::Array(Box::new(PgType::Text));

/// What nobody has said anything of here.
const UNKNOWN: fn(&Call) -> Answer = |_| Ok(None);
const YES: fn(&Call) -> Answer = |_| Ok(Some("t".into()));
const NO: fn(&Call) -> Answer = |_| Ok(Some("f".into()));

pub(super) static BODIES: &[Body] = &[
    // Who asks, and whom.
    body("version", 0..=0, TEXT, version),
    body("current_database", 0..=0, NAME, |call| Ok(Some(call.moment.viewer.database.clone()))),
    body("current_catalog", 0..=0, NAME, |call| Ok(Some(call.moment.viewer.database.clone()))),
    body("current_user", 0..=0, NAME, |call| Ok(Some(call.moment.viewer.user.clone()))),
    body("session_user", 0..=0, NAME, |call| Ok(Some(call.moment.viewer.user.clone()))),
    body("user", 0..=0, NAME, |call| Ok(Some(call.moment.viewer.user.clone()))),
    body("current_role", 0..=0, NAME, |call| Ok(Some(call.moment.viewer.user.clone()))),
    body("current_schema", 0..=0, NAME, |_| Ok(Some("public".into()))),
    body("current_schemas", 1..=1, TEXTS, |call| {
        Ok(Some(if call.is_true(0) { "{pg_catalog,public}" } else { "{public}" }.into()))
    }),
    body("pg_backend_pid", 0..=0, INT4, |call| Ok(call.moment.viewer.pid.map(|pid| pid.to_string()))),
    body("current_setting", 1..=2, TEXT, registered::setting),
    body("set_config", 3..=3, TEXT, registered::keep_setting),
    body("getdatabaseencoding", 0..=0, NAME, |_| Ok(Some("UTF8".into()))),
    body("pg_client_encoding", 0..=0, NAME, |_| Ok(Some("UTF8".into()))),
    body("pg_is_in_recovery", 0..=0, BOOL, NO),
    body("pg_is_wal_replay_paused", 0..=0, BOOL, NO),
    body("inet_server_addr", 0..=0, TEXT, UNKNOWN),
    body("inet_server_port", 0..=0, INT4, UNKNOWN),
    body("inet_client_addr", 0..=0, TEXT, UNKNOWN),
    body("inet_client_port", 0..=0, INT4, UNKNOWN),
    body("pg_my_temp_schema", 0..=0, OID, |_| Ok(Some("0".into()))),
    body("pg_is_other_temp_schema", 1..=1, BOOL, NO),
    // Names of what has a number.
    Body {
        nullable_from: 1,
        ..body("format_type", 2..=2, TEXT, |call| {
            Ok(Some(format_type(call.oid(0)?, call.text(1).parse().unwrap_or(-1))))
        })
    },
    body("pg_get_userbyid", 1..=1, NAME, |call| {
        let oid = call.oid(0)?;
        let name = call.moment.snapshot()?.role_name(oid).map(str::to_string);
        Ok(Some(name.unwrap_or_else(|| format!("unknown (OID={oid})"))))
    }),
    body("pg_encoding_to_char", 1..=1, NAME, |call| Ok(Some(if call.text(0) == "6" { "UTF8" } else { "" }.into()))),
    body("pg_char_to_encoding", 1..=1, INT4, |call| {
        Ok(Some(if call.text(0).eq_ignore_ascii_case("utf8") { "6" } else { "-1" }.into()))
    }),
    body("regclassin", 1..=1, OID, |call| registered::relation(call).map(Some)),
    body("to_regclass", 1..=1, OID, |call| Ok(registered::relation(call).ok())),
    body("regclassout", 1..=1, TEXT, registered::relation_name),
    body("regtypein", 1..=1, OID, |call| registered::type_oid(call).map(Some)),
    body("to_regtype", 1..=1, OID, |call| Ok(registered::type_oid(call).ok())),
    body("regtypeout", 1..=1, TEXT, |call| match call.oid(0) {
        Ok(oid) => Ok(Some(format_type(oid, -1))),
        Err(_) => Ok(Some(format_type(registered::type_oid(call)?.parse().unwrap_or(0), -1))),
    }),
    body("regtypearrayout", 1..=1, TEXTS, |call| {
        let oids = call.text(0).trim_matches(['{', '}']).split(',').filter_map(|oid| oid.parse().ok());
        let names: Vec<String> = oids.map(|oid| format!("\"{}\"", format_type(oid, -1).replace('"', "\\\""))).collect();
        Ok(Some(format!("{{{}}}", names.join(","))))
    }),
    body("regprocin", 1..=1, OID, |call| registered::function(call).map(Some)),
    body("regprocout", 1..=1, TEXT, registered::function_name),
    body("regoperatorin", 1..=1, OID, |call| call.oid(0).map(|oid| Some(oid.to_string()))),
    // As PostgreSQL shows a number that is no operator's.
    body("regoperatorout", 1..=1, TEXT, |call| Ok(Some(call.text(0).to_string()))),
    body("regnamespacein", 1..=1, OID, |call| registered::namespace(call).map(Some)),
    body("to_regnamespace", 1..=1, OID, |call| Ok(registered::namespace(call).ok())),
    body("regnamespaceout", 1..=1, TEXT, registered::namespace_name),
    body("regrolein", 1..=1, OID, |call| registered::role(call).map(Some)),
    body("to_regrole", 1..=1, OID, |call| Ok(registered::role(call).ok())),
    body("regroleout", 1..=1, TEXT, registered::role_name),
    // What may be named without its schema.
    body("pg_table_is_visible", 1..=1, BOOL, |call| {
        // An index is where its table is.
        let found = relation(call)?.or(keyed(call, Kind::KeyIndex)?);
        Ok(found.map(|found| matches!(found.schema.as_ref(), "public" | "pg_catalog").to_string()))
    }),
    body("pg_type_is_visible", 1..=1, BOOL, YES),
    body("pg_function_is_visible", 1..=1, BOOL, YES),
    body("pg_operator_is_visible", 1..=1, BOOL, YES),
    body("pg_opclass_is_visible", 1..=1, BOOL, YES),
    body("pg_opfamily_is_visible", 1..=1, BOOL, YES),
    body("pg_collation_is_visible", 1..=1, BOOL, YES),
    body("pg_conversion_is_visible", 1..=1, BOOL, YES),
    body("pg_statistics_obj_is_visible", 1..=1, BOOL, YES),
    body("pg_ts_config_is_visible", 1..=1, BOOL, YES),
    body("pg_ts_dict_is_visible", 1..=1, BOOL, YES),
    body("pg_ts_parser_is_visible", 1..=1, BOOL, YES),
    body("pg_ts_template_is_visible", 1..=1, BOOL, YES),
    // How things were made.
    body("pg_get_expr", 2..=3, TEXT, UNKNOWN),
    body("pg_get_viewdef", 1..=2, TEXT, view_definition),
    body("pg_get_indexdef", 1..=3, TEXT, index),
    body("pg_get_constraintdef", 1..=2, TEXT, key),
    body("pg_get_function_result", 1..=1, TEXT, |call| registered::of_own_function(call, "bigint")),
    body("pg_get_function_arguments", 1..=1, TEXT, own_arguments),
    body("pg_get_function_identity_arguments", 1..=1, TEXT, own_arguments),
    body("pg_get_functiondef", 1..=1, TEXT, UNKNOWN),
    body("pg_get_function_sqlbody", 1..=1, TEXT, UNKNOWN),
    body("pg_get_triggerdef", 1..=2, TEXT, UNKNOWN),
    body("pg_get_ruledef", 1..=2, TEXT, UNKNOWN),
    body("pg_get_partkeydef", 1..=1, TEXT, UNKNOWN),
    body("pg_get_partition_constraintdef", 1..=1, TEXT, UNKNOWN),
    body("pg_get_statisticsobjdef_columns", 1..=1, TEXT, UNKNOWN),
    body("pg_get_serial_sequence", 2..=2, TEXT, UNKNOWN),
    body("pg_get_replica_identity_index", 1..=1, OID, UNKNOWN),
    body("pg_relation_is_publishable", 1..=1, BOOL, NO),
    body("pg_tablespace_location", 1..=1, TEXT, |_| Ok(Some(String::new()))),
    body("pg_relation_is_updatable", 2..=2, INT4, |call| {
        // 8 is INSERT.
        Ok(relation(call)?.map(|found| if found.takes_rows { "8" } else { "0" }.to_string()))
    }),
    body("pg_column_is_updatable", 3..=3, BOOL, NO),
    // Comments.
    body("obj_description", 1..=2, TEXT, |call| match call.arguments.get(1) {
        Some(&"pg_type") => {
            let oid = call.oid(0)?;
            Ok(type_descriptions().find(|(known, _)| *known == oid).map(|(_, of_type)| of_type.to_string()))
        }
        None | Some(&"pg_class") => Ok(relation(call)?.and_then(|found| found.comment.clone())),
        Some(_) => Ok(None),
    }),
    body("col_description", 2..=2, TEXT, UNKNOWN),
    body("shobj_description", 2..=2, TEXT, UNKNOWN),
    // Sizes: rows live elsewhere.
    body("pg_relation_size", 1..=2, INT8, size),
    body("pg_table_size", 1..=1, INT8, size),
    body("pg_indexes_size", 1..=1, INT8, size),
    body("pg_total_relation_size", 1..=1, INT8, size),
    body("pg_database_size", 1..=1, INT8, |_| Ok(Some("0".into()))),
    body("pg_tablespace_size", 1..=1, INT8, |_| Ok(Some("0".into()))),
    body("pg_size_pretty", 1..=1, TEXT, |call| Ok(Some(pretty_size(call.text(0).parse().unwrap_or(0))))),
    // Rights.
    body("has_table_privilege", 2..=3, BOOL, may_use_relation),
    body("has_any_column_privilege", 2..=3, BOOL, may_use_relation),
    body("has_column_privilege", 3..=4, BOOL, may_use_column),
    body("has_schema_privilege", 2..=3, BOOL, may_use_function),
    body("has_database_privilege", 2..=3, BOOL, may_use_database),
    body("has_function_privilege", 2..=3, BOOL, may_use_function),
    body("has_type_privilege", 2..=3, BOOL, may_use_function),
    body("has_language_privilege", 2..=3, BOOL, NO),
    body("has_tablespace_privilege", 2..=3, BOOL, NO),
    body("has_sequence_privilege", 2..=3, BOOL, NO),
    body("has_foreign_data_wrapper_privilege", 2..=3, BOOL, NO),
    body("has_server_privilege", 2..=3, BOOL, NO),
    body("pg_has_role", 2..=3, BOOL, may_use_role),
    body("row_security_active", 1..=1, BOOL, NO),
    body("pg_stat_get_numscans", 1..=1, INT8, |_| Ok(Some("0".into()))),
    // Words.
    body("array_lower", 2..=2, INT4, |call| Ok((call.text(0) != "{}" && call.text(1) == "1").then(|| "1".to_string()))),
    body("parse_ident", 1..=2, TEXTS, registered::parsed_name),
    body("pg_keywords", 1..=1, TEXTS, keyword::column),
    Body { nullable_from: 1, ..body("format", 1..=100, TEXT, registered::formatted) },
    body("quote_ident", 1..=1, TEXT, |call| Ok(Some(registered::quoted(call.text(0))))),
    body("like_escape", 2..=2, TEXT, |call| Ok(Some(like_escape(call.text(0), call.text(1).chars().next())))),
    body("quote_literal", 1..=1, TEXT, |call| Ok(Some(format!("'{}'", call.text(0).replace('\'', "''"))))),
];

fn version(_call: &Call) -> Answer {
    Ok(Some(format!(
        "PostgreSQL 15.0 (Lookaside {}) on {}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    )))
}

/// The relation whose number is the first argument.
fn relation<'a>(call: &'a Call) -> Result<Option<&'a RelationFacts>> {
    Ok(call.moment.snapshot()?.relation(call.oid(0)?))
}

fn view_definition(call: &Call) -> Answer {
    let oid = registered::relation(call)?.parse().unwrap_or(0);
    let found = call.moment.snapshot()?.relation(oid).and_then(|found| found.definition.as_ref());
    Ok(found.map(|query| format!(" {};", query.trim_end_matches(';'))))
}

/// The table that has this number as the one of its key's index or constraint.
fn keyed<'a>(call: &'a Call, kind: Kind) -> Result<Option<&'a RelationFacts>> {
    let oid = call.oid(0)?;
    let system = call.moment.system();
    let mut tables = call.moment.snapshot()?.relations.iter().filter(|relation| !relation.key.is_empty());
    Ok(tables.find(|relation| system.oids.of(kind, &relation.name) == oid))
}

fn index(call: &Call) -> Answer {
    let column: usize = call.text(1).parse().unwrap_or(0);
    Ok(keyed(call, Kind::KeyIndex)?.and_then(|table| match column.checked_sub(1) {
        Some(position) => table.key_columns().nth(position).map(registered::quoted),
        // Written for people, it names no schema that is searched anyway.
        None if call.is_true(2) => Some(index_definition(table).replace(" ON public.", " ON ")),
        None => Some(index_definition(table)),
    }))
}

fn key(call: &Call) -> Answer {
    let columns = |table: &RelationFacts| table.key_columns().map(registered::quoted).collect::<Vec<_>>().join(", ");
    Ok(keyed(call, Kind::KeyConstraint)?.map(|table| format!("PRIMARY KEY ({})", columns(table))))
}

fn own_arguments(call: &Call) -> Answer {
    registered::of_own_function(call, "table_name text, VARIADIC keys \"any\"")
}

fn size(call: &Call) -> Answer {
    registered::relation(call).map(|_| Some("0".into()))
}

/// A pattern of LIKE whose escape character is another than the backslash, with backslashes.
fn like_escape(pattern: &str, escape: Option<char>) -> String {
    let mut written = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            escaping if Some(escaping) == escape => {
                written.push('\\');
                written.extend(characters.next());
            }
            '\\' => written.push_str("\\\\"),
            other => written.push(other),
        }
    }
    written
}

fn pretty_size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut rest = bytes as f64;
    let mut unit = 0;
    while rest.abs() >= 10_240.0 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    format!("{} {}", rest.round(), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_function_is_there_twice() {
        let mut names: Vec<&str> = BODIES.iter().map(|body| body.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn escapes_of_like_become_backslashes() {
        assert_eq!(like_escape("pg/_%", Some('/')), "pg\\_%");
        assert_eq!(like_escape("a//b\\c", Some('/')), "a\\/b\\\\c");
        assert_eq!(like_escape("a\\b", None), "a\\\\b");
    }

    #[test]
    fn sizes_are_written_as_postgres_writes_them() {
        for (bytes, expected) in [(0, "0 bytes"), (10_239, "10239 bytes"), (10_240, "10 kB"), (1_048_576, "1024 kB")] {
            assert_eq!(pretty_size(bytes), expected);
        }
    }
}
