//! Objects by their names and numbers: what PostgreSQL's types `regclass`, `regtype`, `regproc` and the like do.

use super::declared::BUILTIN;
use super::function::Call;
use super::oids::Kind;
use super::snapshot::NAMESPACES;
use super::type_name::type_by_written_name;
use crate::error::{Code, Error, Result};
use crate::sql_name::fold;

type Answer = Result<Option<String>>;

/// The schema, if there is one, and the name, each folded: `public."Orders"`.
fn parts(written: &str) -> (Option<String>, String) {
    let mut parts = all_parts(written).into_iter().rev();
    let name = parts.next().unwrap_or_default();
    (parts.next(), name)
}

/// `parse_ident(name [, whether it is strict])`.
pub(super) fn parsed_name(call: &Call) -> Answer {
    let written = call.text(0);
    let parts = all_parts(written);
    if parts.iter().any(String::is_empty) {
        let error = format!("string is not a valid identifier: \"{written}\"");
        return Err(Error::new(Code::InvalidParameterValue, error));
    }
    let quoted = |part: &String| format!("\"{}\"", part.replace('\\', "\\\\").replace('"', "\\\""));
    Ok(Some(format!("{{{}}}", parts.iter().map(quoted).collect::<Vec<_>>().join(","))))
}

/// A name cut at its points, each part folded unless it is quoted.
fn all_parts(written: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut is_quoted = vec![false];
    for character in written.trim().chars() {
        match character {
            '"' => {
                quoted = !quoted;
                if let Some(last) = is_quoted.last_mut() {
                    *last = true;
                }
            }
            '.' if !quoted => {
                parts.push(String::new());
                is_quoted.push(false);
            }
            other => {
                if let Some(last) = parts.last_mut() {
                    last.push(other);
                }
            }
        }
    }
    parts.iter().zip(is_quoted).map(|(part, quoted)| fold(part, quoted)).collect()
}

/// A name as it must be written in SQL.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = name.chars().enumerate().all(|(position, character)| {
        character == '_' || character.is_ascii_lowercase() || (position > 0 && character.is_ascii_digit())
    });
    let is_word = ["all", "and", "any", "as", "case", "end", "from", "order", "select", "table", "user", "where"];
    match is_plain && !name.is_empty() && !is_word.contains(&name) {
        true => name.to_string(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// The number of the relation in the first argument, which may be a number already.
///
/// # Errors
/// 42P01 when there is none of that name.
pub(super) fn relation(call: &Call) -> Result<String> {
    relation_oid(call, call.text(0)).map(|oid| oid.to_string())
}

/// # Errors
/// 42P01 when there is none of that name.
pub(super) fn relation_oid(call: &Call, written: &str) -> Result<u32> {
    if let Ok(oid) = written.parse() {
        return Ok(oid);
    }
    let (schema, name) = parts(written);
    let snapshot = call.moment.snapshot()?;
    if let Some(found) = snapshot.relation_named(schema.as_deref(), &name) {
        return Ok(found.oid);
    }
    let mut keyed = snapshot.relations.iter().filter(|relation| !relation.key.is_empty());
    match keyed.find(|relation| relation.key_name() == name) {
        Some(table) => Ok(call.moment.system().oids.of(Kind::KeyIndex, &table.name)),
        None => Err(Error::new(Code::UndefinedTable, format!("relation \"{written}\" does not exist"))),
    }
}

/// The name of the relation with this number, with its schema unless that is searched.
pub(super) fn relation_name(call: &Call) -> Answer {
    let oid = relation_oid(call, call.text(0))?;
    let snapshot = call.moment.snapshot()?;
    if let Some(found) = snapshot.relation(oid) {
        let name = quoted(&found.name);
        return Ok(Some(match found.schema.as_ref() {
            "public" | "pg_catalog" => name,
            schema => format!("{schema}.{name}"),
        }));
    }
    let system = call.moment.system();
    let mut keyed = snapshot.relations.iter().filter(|relation| !relation.key.is_empty());
    let of_index = keyed.find(|relation| system.oids.of(Kind::KeyIndex, &relation.name) == oid);
    Ok(Some(
        of_index.map_or_else(|| if oid == 0 { "-".into() } else { oid.to_string() }, |table| quoted(&table.key_name())),
    ))
}

/// # Errors
/// 42704 when there is none of that name.
pub(super) fn type_oid(call: &Call) -> Result<String> {
    let written = call.text(0);
    if written.parse::<u32>().is_ok() {
        return Ok(written.to_string());
    }
    let found = type_by_written_name(written);
    let unknown = || Error::new(Code::UndefinedObject, format!("type \"{written}\" does not exist"));
    found.map(|found| found.oid.to_string()).ok_or_else(unknown)
}

/// Rows of the built-in functions: number and name.
fn builtin_functions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = BUILTIN.get("pg_proc").into_iter().flat_map(|table| &table.rows);
    rows.filter_map(|row| Some((row.first().copied().flatten()?, row.get(1).copied().flatten()?)))
}

const OWN_FUNCTIONS: [&str; 2] = ["invalidate", "warm"];

/// # Errors
/// 42883 when there is none of that name.
pub(super) fn function(call: &Call) -> Result<String> {
    let written = call.text(0);
    if written.parse::<u32>().is_ok() {
        return Ok(written.to_string());
    }
    let (schema, name) = parts(written);
    let builtin = builtin_functions().find(|(_, known)| *known == name).map(|(oid, _)| oid.to_string());
    let own = || {
        let known = OWN_FUNCTIONS.contains(&name.as_str()) && schema.as_deref() == Some("lookaside");
        known.then(|| call.moment.system().oids.of(Kind::Function, &name).to_string())
    };
    let unknown = || Error::new(Code::UndefinedFunction, format!("function \"{written}\" does not exist"));
    builtin.or_else(own).ok_or_else(unknown)
}

fn own_function(call: &Call) -> Option<&'static str> {
    let oid = call.oid(0).ok()?;
    OWN_FUNCTIONS.into_iter().find(|name| call.moment.system().oids.of(Kind::Function, name) == oid)
}

pub(super) fn function_name(call: &Call) -> Answer {
    let written = call.text(0);
    let builtin = builtin_functions().find(|(oid, _)| *oid == written).map(|(_, name)| name.to_string());
    let own = || own_function(call).map(|name| format!("lookaside.{name}"));
    Ok(Some(builtin.or_else(own).unwrap_or_else(|| if written == "0" { "-".into() } else { written.to_string() })))
}

/// `fact`, if the first argument is the number of a function of ours.
pub(super) fn of_own_function(call: &Call, fact: &str) -> Answer {
    Ok(own_function(call).map(|_| fact.to_string()))
}

/// # Errors
/// 3F000 is what PostgreSQL says; here it is 42704, when there is none of that name.
pub(super) fn namespace(call: &Call) -> Result<String> {
    let written = call.text(0);
    if written.parse::<u32>().is_ok() {
        return Ok(written.to_string());
    }
    let (_, name) = parts(written);
    let found = NAMESPACES.iter().find(|(_, known)| *known == name);
    let unknown = || Error::new(Code::UndefinedObject, format!("schema \"{written}\" does not exist"));
    found.map(|(oid, _)| oid.to_string()).ok_or_else(unknown)
}

pub(super) fn namespace_name(call: &Call) -> Answer {
    let written = call.text(0);
    let found = NAMESPACES.iter().find(|(oid, _)| oid.to_string() == written);
    Ok(Some(found.map_or_else(|| written.to_string(), |(_, name)| (*name).to_string())))
}

/// # Errors
/// 42704 when there is none of that name.
pub(super) fn role(call: &Call) -> Result<String> {
    let written = call.text(0);
    if written.parse::<u32>().is_ok() {
        return Ok(written.to_string());
    }
    let (_, name) = parts(written);
    let found = call.moment.snapshot()?.roles.iter().find(|(_, known)| *known == name);
    let unknown = || Error::new(Code::UndefinedObject, format!("role \"{written}\" does not exist"));
    found.map(|(oid, _)| oid.to_string()).ok_or_else(unknown)
}

pub(super) fn role_name(call: &Call) -> Answer {
    let written = call.text(0);
    let found = written.parse().ok().and_then(|oid| call.moment.snapshot().ok()?.role_name(oid));
    Ok(Some(found.map_or_else(|| written.to_string(), quoted)))
}

/// `current_setting(name [, whether a missing one is NULL])`.
pub(super) fn setting(call: &Call) -> Answer {
    let name = call.text(0);
    let settings = &call.moment.viewer.settings;
    let found = settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    match found {
        Some((_, value)) => Ok(Some(value.clone())),
        None if call.is_true(1) => Ok(None),
        None => Err(Error::new(Code::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))),
    }
}

/// `format('%I.%s', …)`: %I quotes a name, %L a literal.
pub(super) fn formatted(call: &Call) -> Answer {
    let mut next = 1;
    let mut text = String::new();
    let mut characters = call.text(0).chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let kind = characters.next();
        if kind == Some('%') {
            text.push('%');
            continue;
        }
        if next >= call.arguments.len() {
            return Err(Error::new(Code::InvalidParameterValue, "too few arguments for format()"));
        }
        let argument = call.text(next);
        next += 1;
        match kind {
            Some('s') => text.push_str(argument),
            Some('I') => text.push_str(&quoted(argument)),
            Some('L') => text.push_str(&format!("'{}'", argument.replace('\'', "''"))),
            _ => return Err(Error::unsupported("format() knows %s, %I, %L and %% here")),
        }
    }
    Ok(Some(text))
}

/// `set_config(name, value, whether for the transaction only)`, as far as nothing has to change for it.
pub(super) fn keep_setting(call: &Call) -> Answer {
    let (name, value) = (call.text(0), call.text(1));
    let settings = &call.moment.viewer.settings;
    match settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((_, kept)) if kept.eq_ignore_ascii_case(value) => Ok(Some(kept.clone())),
        Some(_) => Err(Error::unsupported(format!("set_config() cannot change \"{name}\" here"))
            .with_hint(format!("Write SET {name} TO '{value}'."))),
        None => Err(Error::new(Code::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_points_and_folded_unless_quoted() {
        assert_eq!(parts("Orders"), (None, "orders".into()));
        assert_eq!(parts("public.\"My.Orders\""), (Some("public".into()), "My.Orders".into()));
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(quoted("orders"), "orders");
        assert_eq!(quoted("Orders"), "\"Orders\"");
        assert_eq!(quoted("user"), "\"user\"");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
