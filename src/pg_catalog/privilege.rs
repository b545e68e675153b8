//! `has_table_privilege` and its likes: what the viewer may do. Of other users nobody but an administrator is told.

use super::function::Call;
use super::registered;
use super::snapshot::{OWNER_NAME, RelationFacts};
use crate::error::Result;

type Answer = Result<Option<String>>;

fn answer(held: bool) -> Answer {
    Ok(Some(held.to_string()))
}

/// The arguments behind a user's name, which may be left out; `all` is how many there are with it.
fn behind_user<'a>(call: &'a Call, all: usize) -> &'a [&'a str] {
    match call.arguments.split_first() {
        Some((_, rest)) if call.arguments.len() == all => rest,
        _ => &call.arguments,
    }
}

/// Any of `SELECT, INSERT WITH GRANT OPTION`.
fn any_of(privileges: &str, held: impl Fn(&str) -> bool) -> bool {
    privileges.split(',').any(|privilege| {
        let privilege = privilege.trim().to_ascii_uppercase();
        !privilege.ends_with("WITH GRANT OPTION") && held(&privilege)
    })
}

fn holds(call: &Call, relation: &RelationFacts, privileges: &str) -> bool {
    let rights = &call.moment.viewer.rights;
    any_of(privileges, |privilege| match privilege {
        "SELECT" => relation.is_system() || rights.read.contains(&relation.name),
        "INSERT" => relation.takes_rows && rights.write.contains(&relation.name),
        _ => false,
    })
}

/// `([user,] relation, privilege)`.
pub(super) fn may_use_relation(call: &Call) -> Answer {
    let [relation, privileges] = behind_user(call, 3) else { return Ok(None) };
    let oid = registered::relation_oid(call, relation)?;
    let found = call.moment.snapshot()?.relation(oid);
    Ok(found.map(|found| holds(call, found, privileges).to_string()))
}

/// `([user,] relation, column, privilege)`: all columns of a relation are alike.
pub(super) fn may_use_column(call: &Call) -> Answer {
    let [relation, _, privileges] = behind_user(call, 4) else { return Ok(None) };
    let oid = registered::relation_oid(call, relation)?;
    let found = call.moment.snapshot()?.relation(oid);
    Ok(found.map(|found| holds(call, found, privileges).to_string()))
}

/// `([user,] function or schema or type, privilege)`: everybody may use all there are; only who makes views may create.
pub(super) fn may_use_function(call: &Call) -> Answer {
    let [_, privileges] = behind_user(call, 3) else { return Ok(None) };
    answer(any_of(privileges, |privilege| match privilege {
        "USAGE" | "EXECUTE" => true,
        "CREATE" => call.moment.viewer.rights.admin,
        _ => false,
    }))
}

/// `([user,] database, privilege)`.
pub(super) fn may_use_database(call: &Call) -> Answer {
    let [_, privileges] = behind_user(call, 3) else { return Ok(None) };
    answer(any_of(privileges, |privilege| privilege == "CONNECT"))
}

/// `([user,] role, privilege)`: everybody is of his own role.
pub(super) fn may_use_role(call: &Call) -> Answer {
    let [role, _] = behind_user(call, 3) else { return Ok(None) };
    let viewer = call.moment.viewer;
    let name = match role.parse() {
        Ok(oid) => call.moment.snapshot()?.role_name(oid).unwrap_or_default(),
        Err(_) => role,
    };
    answer(name == viewer.user || (name == OWNER_NAME && viewer.rights.admin))
}
