//! `pg_stat_activity`: what the connections of clients do, as far as the viewer may know.

use chrono::{DateTime, Utc};

use super::SystemCatalog;
use super::cell::{Cell, TableRows};
use super::oids::{DATABASE, Kind};
use crate::catalog::Viewer;
use crate::catalog::backends::{Activity, HIDDEN_QUERY, SeenActivity};
use crate::error::Result;

pub(super) fn fill(system: &SystemCatalog, viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    system.catalog.backends().seen_by(viewer).iter().try_for_each(|seen| connection(system, seen, rows))
}

fn connection(system: &SystemCatalog, seen: &SeenActivity, rows: &mut TableRows) -> Result<()> {
    let SeenActivity { pid, activity, is_hidden } = seen;
    let mut cells: Vec<(&str, Cell)> = vec![
        ("datid", DATABASE.into()),
        ("datname", activity.database.clone().into()),
        ("pid", (*pid).into()),
        ("usesysid", system.oids.of(Kind::Role, &activity.user).into()),
        ("usename", activity.user.clone().into()),
        ("application_name", activity.application_name.clone().into()),
    ];
    match is_hidden {
        true => cells.push(("query", HIDDEN_QUERY.into())),
        false => cells.extend(told_to_the_owner(activity)),
    }
    rows.push(&cells)
}

fn told_to_the_owner(activity: &Activity) -> [(&'static str, Cell); 9] {
    [
        ("client_addr", activity.client.map(|client| client.ip().to_string()).into()),
        ("client_port", activity.client.map(|client| i32::from(client.port())).into()),
        ("backend_start", moment(activity.started).into()),
        ("xact_start", activity.transaction_since.map(moment).into()),
        ("query_start", activity.query_since.map(moment).into()),
        ("state_change", moment(activity.state_since).into()),
        ("state", activity.state.name().into()),
        ("query", activity.query.clone().into()),
        ("backend_type", "client backend".into()),
    ]
}

fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}
