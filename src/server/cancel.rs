//! Cancel requests: who may stop which statement.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The running statements of all connections, by the number and secret that each client was given.
#[derive(Debug, Default)]
pub struct CancelRegistry {
    connections: Mutex<HashMap<i32, Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: i32,
    /// Of the statement that runs; a cancel that comes when none runs has nothing to stop.
    statement: Option<CancellationToken>,
}

/// A connection's place in the registry, given up when dropped.
#[derive(Debug)]
pub struct CancelKey {
    registry: Arc<CancelRegistry>,
    pub pid: i32,
    pub secret: i32,
}

impl CancelRegistry {
    /// A number and a secret for a new connection.
    pub fn register(self: &Arc<Self>) -> CancelKey {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        // Every RandomState has keys of its own, taken from the system's source of randomness.
        let random = || RandomState::new().hash_one(0_u8) as i32;
        let pid = loop {
            let pid = random() & i32::MAX;
            if pid != 0 && !connections.contains_key(&pid) {
                break pid;
            }
        };
        let secret = random();
        connections.insert(pid, Entry { secret, statement: None });
        CancelKey { registry: Arc::clone(self), pid, secret }
    }

    /// Clients that have logged in.
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Stops the statement that this connection runs; whether the secret was right is not told.
    pub fn cancel(&self, pid: i32, secret: i32) {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = connections.get(&pid).filter(|entry| entry.secret == secret)
            && let Some(statement) = &entry.statement
        {
            statement.cancel();
        }
    }
}

impl CancelKey {
    /// A token for the statement that begins now.
    pub fn begin_statement(&self) -> CancellationToken {
        let token = CancellationToken::new();
        self.set(Some(token.clone()));
        token
    }

    /// From here on a cancel stops nothing.
    pub fn end_statement(&self) {
        self.set(None);
    }

    fn set(&self, statement: Option<CancellationToken>) {
        let mut connections = self.registry.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = connections.get_mut(&self.pid) {
            entry.statement = statement;
        }
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        self.registry.connections.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_stops_a_running_statement() {
        let registry = Arc::new(CancelRegistry::default());
        let key = registry.register();
        registry.cancel(key.pid, key.secret);
        let token = key.begin_statement();
        assert!(!token.is_cancelled(), "a cancel from before the statement");
        registry.cancel(key.pid, key.secret.wrapping_add(1));
        assert!(!token.is_cancelled());
        registry.cancel(key.pid, key.secret);
        assert!(token.is_cancelled());
    }

    #[test]
    fn closed_connections_leave_nothing_behind() {
        let registry = Arc::new(CancelRegistry::default());
        drop(registry.register());
        assert!(registry.connections.lock().unwrap().is_empty());
    }
}
