//! What `[user.X]` and `[role.X]` mean, and what they come to together.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::{GrantDefinition, UserDefinition};
use super::problem::{Complaint, Problem, nearest};
use super::reading::Text;
use super::section::Section;
use super::verifier::Verifier;
use super::viewer::{Reach, Rights};

/// A user as his section says it, his roles yet to be found.
pub(super) struct WrittenUser {
    name: String,
    verifier: Verifier,
    roles: Vec<Text>,
}

/// What the users with this role may do.
pub(super) struct Role {
    name: String,
    title: String,
    read: Vec<Text>,
    write: Vec<Text>,
    admin: bool,
}

/// Reads the section of the user `name`; `None` if nobody could log in with it.
pub(super) fn read_user(name: &str, section: &Section) -> Option<WrittenUser> {
    section.check_keys();
    section.require("password");
    let roles = section.text_list("roles").unwrap_or_default();
    let password = section.text("password")?;
    let Some(verifier) = Verifier::parse(&password.value) else {
        let complaint = Complaint::new(format!("\"password\" in {} is not a SCRAM-SHA-256 verifier", section.title));
        section.complain_of(
            "password",
            complaint.with_hint("Run lookaside passwd and write what it prints: no file holds a password itself."),
        );
        return None;
    };
    Some(WrittenUser { name: name.to_string(), verifier, roles })
}

/// Reads the section of the role `name`.
pub(super) fn read_role(name: &str, section: &Section) -> Role {
    section.check_keys();
    Role {
        name: name.to_string(),
        title: section.title.clone(),
        read: section.text_list("read").unwrap_or_default(),
        write: section.text_list("write").unwrap_or_default(),
        admin: section.flag("admin").unwrap_or_default(),
    }
}

/// The users with the rights of their roles.
///
/// # Errors
/// Roles that no file declares.
pub(super) fn resolve_users(users: Vec<WrittenUser>, roles: &[Role]) -> Result<Vec<UserDefinition>, Vec<Problem>> {
    let mut problems = vec![];
    let mut resolved = vec![];
    for user in users {
        let mut own = vec![];
        for written in &user.roles {
            match roles.iter().find(|role| role.name == written.value) {
                Some(role) => own.push(role),
                None => problems.push(unknown_role(written, roles)),
            }
        }
        let rights = Arc::new(rights_of(&own));
        resolved.push(UserDefinition { name: user.name, verifier: user.verifier, rights });
    }
    if problems.is_empty() { Ok(resolved) } else { Err(problems) }
}

/// The names in `read` and `write` that are not among `declared`.
pub(super) fn grants_beside<'a>(
    roles: &'a [Role],
    declared: &'a dyn Fn(&str) -> bool,
) -> impl Iterator<Item = GrantDefinition> + 'a {
    roles.iter().flat_map(move |role| {
        let names = role.read.iter().chain(&role.write).filter(move |name| !declared(&name.value));
        names.map(|name| GrantDefinition {
            relation: name.value.clone(),
            role: role.title.clone(),
            origin: name.origin.clone(),
        })
    })
}

fn unknown_role(written: &Text, roles: &[Role]) -> Problem {
    let hint = match nearest(&written.value, roles.iter().map(|role| role.name.as_str())) {
        Some(nearest) => format!("Perhaps you meant \"{nearest}\"."),
        None => "Declare it as [role.NAME].".to_string(),
    };
    Complaint::new(format!("role \"{}\" does not exist", written.shown)).with_hint(hint).at(&written.origin)
}

fn rights_of(roles: &[&Role]) -> Rights {
    if roles.iter().any(|role| role.admin) {
        return Rights::all();
    }
    let names = |of: fn(&Role) -> &Vec<Text>| {
        let names: BTreeSet<String> = roles.iter().flat_map(|role| of(role)).map(|name| name.value.clone()).collect();
        Reach::Only(names)
    };
    Rights { read: names(|role| &role.read), write: names(|role| &role.write), admin: false }
}
