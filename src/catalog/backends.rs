//! The connections of clients: what each does at this moment, and who may stop what.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::Viewer;
use crate::error::{Code, Error, Result};

/// Bytes of a statement's text that are shown of it, as PostgreSQL's `track_activity_query_size`.
const MAX_SHOWN_BYTES: usize = 1024;

/// All connections of one server, by the number and secret that each client was given.
#[derive(Debug, Default)]
pub struct Backends {
    backends: Mutex<BTreeMap<i32, Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: i32,
    /// Of the statement that runs; a cancel that comes when none runs has nothing to stop.
    statement: Option<CancellationToken>,
    /// Ends the connection.
    end: CancellationToken,
    /// `None` until the client has logged in.
    activity: Option<Activity>,
}

/// What a connection does, as `pg_stat_activity` tells it.
#[derive(Clone, Debug)]
pub struct Activity {
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub client: Option<SocketAddr>,
    pub started: DateTime<Utc>,
    pub state: BackendState,
    /// Since when it is in this state.
    pub state_since: DateTime<Utc>,
    /// Of the transaction that is open.
    pub transaction_since: Option<DateTime<Utc>>,
    /// Of the statement that runs or ran last.
    pub query: String,
    pub query_since: Option<DateTime<Utc>>,
}

/// A connection as somebody sees it.
#[derive(Clone, Debug)]
pub struct SeenActivity {
    pub pid: i32,
    pub activity: Activity,
    /// Somebody else's: but for database, user and application nothing may be told, and of the statement only
    /// [`HIDDEN_QUERY`].
    pub is_hidden: bool,
}

/// What PostgreSQL shows of a statement that is not for who asks.
pub const HIDDEN_QUERY: &str = "<insufficient privilege>";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    Active,
    Idle,
    IdleInTransaction,
    IdleInFailedTransaction,
}

impl BackendState {
    /// PostgreSQL's name of it.
    pub fn name(self) -> &'static str {
        match self {
            BackendState::Active => "active",
            BackendState::Idle => "idle",
            BackendState::IdleInTransaction => "idle in transaction",
            BackendState::IdleInFailedTransaction => "idle in transaction (aborted)",
        }
    }
}

/// What [`Backends::signal`] does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ends the statement that runs.
    Cancel,
    /// Ends the connection.
    Terminate,
}

/// A connection's place among all, given up when dropped.
#[derive(Debug)]
pub struct Backend {
    backends: Arc<Backends>,
    pub pid: i32,
    pub secret: i32,
}

impl Backends {
    /// A number and a secret for a new connection.
    pub fn register(self: &Arc<Self>) -> Backend {
        let mut backends = self.lock();
        // Every RandomState has keys of its own, taken from the system's source of randomness.
        let random = || RandomState::new().hash_one(0_u8) as i32;
        let pid = loop {
            let pid = random() & i32::MAX;
            if pid != 0 && !backends.contains_key(&pid) {
                break pid;
            }
        };
        let secret = random();
        backends.insert(pid, Entry { secret, statement: None, end: CancellationToken::new(), activity: None });
        Backend { backends: Arc::clone(self), pid, secret }
    }

    /// Clients that have logged in or are about to.
    pub fn connections(&self) -> usize {
        self.lock().len()
    }

    /// What every client that has logged in does, with its connection's number.
    pub fn snapshot(&self) -> Vec<(i32, Activity)> {
        self.lock().iter().filter_map(|(pid, entry)| Some((*pid, entry.activity.clone()?))).collect()
    }

    /// What `viewer` sees of [`Backends::snapshot`].
    pub fn seen_by(&self, viewer: &Viewer) -> Vec<SeenActivity> {
        let see = |(pid, activity): (i32, Activity)| {
            let is_hidden = !viewer.rights.admin && activity.user != viewer.user;
            SeenActivity { pid, activity, is_hidden }
        };
        self.snapshot().into_iter().map(see).collect()
    }

    /// Stops the statement that this connection runs; whether the secret was right is not told.
    pub fn cancel(&self, pid: i32, secret: i32) {
        let backends = self.lock();
        if let Some(entry) = backends.get(&pid).filter(|entry| entry.secret == secret)
            && let Some(statement) = &entry.statement
        {
            statement.cancel();
        }
    }

    /// Cancels or ends on behalf of `viewer`; false when there is no such connection.
    ///
    /// # Errors
    /// 42501 for the connection of somebody else, unless the viewer is an administrator.
    pub fn signal(&self, pid: i32, signal: Signal, viewer: &Viewer) -> Result<bool> {
        let backends = self.lock();
        let Some((entry, activity)) = backends.get(&pid).and_then(|entry| Some((entry, entry.activity.as_ref()?)))
        else {
            return Ok(false);
        };
        if !viewer.rights.admin && activity.user != viewer.user {
            let message = match signal {
                Signal::Cancel => "permission denied to cancel the statement of another user",
                Signal::Terminate => "permission denied to end the session of another user",
            };
            return Err(Error::new(Code::InsufficientPrivilege, message)
                .with_hint("Only a user with a role of admin = true may do so."));
        }
        match (signal, &entry.statement) {
            (Signal::Terminate, _) => entry.end.cancel(),
            (Signal::Cancel, Some(statement)) => statement.cancel(),
            (Signal::Cancel, None) => {}
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Entry>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    /// The client has logged in. `end` is what ends its connection.
    pub fn log_in(&self, user: &str, database: &str, client: Option<SocketAddr>, end: CancellationToken) {
        let now = Utc::now();
        let activity = Activity {
            user: user.to_string(),
            database: database.to_string(),
            application_name: String::new(),
            client,
            started: now,
            state: BackendState::Idle,
            state_since: now,
            transaction_since: None,
            query: String::new(),
            query_since: None,
        };
        self.change(|entry| {
            entry.activity = Some(activity);
            entry.end = end;
        });
    }

    /// A token for what begins to run now.
    pub fn begin_statement(&self) -> CancellationToken {
        let token = CancellationToken::new();
        self.change(|entry| entry.statement = Some(token.clone()));
        token
    }

    /// From here on a cancel stops nothing.
    pub fn end_statement(&self) {
        self.change(|entry| entry.statement = None);
    }

    /// The statement with this text begins to run.
    pub fn runs(&self, text: &str) {
        let now = Utc::now();
        self.change_activity(|activity| {
            activity.query = text[..text.floor_char_boundary(MAX_SHOWN_BYTES)].to_string();
            activity.query_since = Some(now);
            activity.transaction_since.get_or_insert(now);
            activity.state = BackendState::Active;
            activity.state_since = now;
        });
    }

    /// Nothing runs any more.
    pub fn rests(&self, state: BackendState, application_name: &str) {
        let now = Utc::now();
        self.change_activity(|activity| {
            if activity.state != state {
                activity.state = state;
                activity.state_since = now;
            }
            if state == BackendState::Idle {
                activity.transaction_since = None;
            }
            if activity.application_name != application_name {
                activity.application_name = application_name.to_string();
            }
        });
    }

    fn change_activity(&self, change: impl FnOnce(&mut Activity)) {
        self.change(|entry| {
            if let Some(activity) = &mut entry.activity {
                change(activity);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.backends.lock().get_mut(&self.pid) {
            change(entry);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.backends.lock().remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reach, Rights};
    use super::*;

    fn somebody(user: &str) -> Viewer {
        let rights = Rights { read: Reach::Everything, write: Reach::Everything, admin: false };
        Viewer { user: user.to_string(), rights: Arc::new(rights), ..Viewer::owner() }
    }

    #[test]
    fn only_the_right_secret_stops_a_running_statement() {
        let backends = Arc::new(Backends::default());
        let backend = backends.register();
        backends.cancel(backend.pid, backend.secret);
        let token = backend.begin_statement();
        assert!(!token.is_cancelled(), "a cancel from before the statement");
        backends.cancel(backend.pid, backend.secret.wrapping_add(1));
        assert!(!token.is_cancelled());
        backends.cancel(backend.pid, backend.secret);
        assert!(token.is_cancelled());
    }

    #[test]
    fn closed_connections_leave_nothing_behind() {
        let backends = Arc::new(Backends::default());
        drop(backends.register());
        assert_eq!(backends.connections(), 0);
    }

    #[test]
    fn others_are_signalled_by_administrators_alone() {
        let backends = Arc::new(Backends::default());
        let backend = backends.register();
        let end = CancellationToken::new();
        assert!(!backends.signal(backend.pid, Signal::Terminate, &Viewer::owner()).unwrap(), "not logged in yet");
        backend.log_in("ana", "shop", None, end.clone());
        let token = backend.begin_statement();
        let refused = backends.signal(backend.pid, Signal::Cancel, &somebody("bob")).unwrap_err();
        assert_eq!(refused.sqlstate(), "42501");
        let hidden = |viewer: &Viewer| backends.seen_by(viewer)[0].is_hidden;
        assert!(hidden(&somebody("bob")) && !hidden(&somebody("ana")) && !hidden(&Viewer::owner()));
        assert!(!token.is_cancelled());
        assert!(backends.signal(backend.pid, Signal::Cancel, &somebody("ana")).unwrap());
        assert!(token.is_cancelled() && !end.is_cancelled());
        assert!(backends.signal(backend.pid, Signal::Terminate, &Viewer::owner()).unwrap());
        assert!(end.is_cancelled());
        assert!(!backends.signal(backend.pid.wrapping_add(1), Signal::Cancel, &Viewer::owner()).unwrap());
    }

    #[test]
    fn states_tell_since_when() {
        let backends = Arc::new(Backends::default());
        let backend = backends.register();
        backend.log_in("ana", "shop", None, CancellationToken::new());
        backend.runs(&"é".repeat(1000));
        let (_, active) = backends.snapshot().remove(0);
        assert_eq!((active.state, active.query.len()), (BackendState::Active, MAX_SHOWN_BYTES));
        assert_eq!(active.transaction_since, active.query_since);
        backend.rests(BackendState::IdleInTransaction, "tool");
        let (_, idle) = backends.snapshot().remove(0);
        assert_eq!((idle.transaction_since, idle.application_name.as_str()), (active.query_since, "tool"));
        backend.rests(BackendState::Idle, "tool");
        assert_eq!(backends.snapshot()[0].1.transaction_since, None);
    }
}
