//! `pg_stat_activity`: who is connected, and what each does.

use chrono::{DateTime, Utc};

use super::SystemCatalog;
use super::cell::{Cell, TableRows};
use super::oids::{DATABASE, Kind};
use crate::catalog::Viewer;
use crate::catalog::backends::{HIDDEN_QUERY, SeenActivity};
use crate::error::Result;

/// A row for each client that has logged in, as `viewer` may see it.
pub(super) fn fill(system: &SystemCatalog, viewer: &Viewer, rows: &mut TableRows) -> Result<()> {
    let seen = system.catalog.backends().seen_by(viewer);
    seen.into_iter().try_for_each(|seen| connection(system, seen, rows))
}

fn connection(system: &SystemCatalog, seen: SeenActivity, rows: &mut TableRows) -> Result<()> {
    let SeenActivity { pid, activity, is_hidden } = seen;
    let mut cells: Vec<(&str, Cell)> = vec![
        ("datid", DATABASE.into()),
        ("datname", activity.database.into()),
        ("pid", pid.into()),
        ("usesysid", system.oids.of(Kind::Role, &activity.user).into()),
        ("usename", activity.user.into()),
        ("application_name", activity.application_name.into()),
    ];
    if is_hidden {
        cells.push(("query", HIDDEN_QUERY.into()));
        return rows.push(&cells);
    }
    cells.extend([
        ("client_addr", activity.client.map(|client| client.ip().to_canonical().to_string()).into()),
        ("client_port", activity.client.map(|client| i32::from(client.port())).into()),
        ("backend_start", moment(activity.started)),
        ("xact_start", activity.transaction_since.map(moment).unwrap_or(Cell::NULL)),
        ("query_start", activity.query_since.map(moment).unwrap_or(Cell::NULL)),
        ("state_change", moment(activity.state_since)),
        ("state", activity.state.name().into()),
        ("query", activity.query.into()),
        ("backend_type", "client backend".into()),
    ]);
    rows.push(&cells)
}

fn moment(moment: DateTime<Utc>) -> Cell {
    moment.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string().into()
}
