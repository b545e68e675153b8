//! The log of rows that `on_failure = 'skip'` dropped: the first at once, then what gathered in each second.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct SkipLog {
    table: String,
    logged_at: Option<Instant>,
    /// Rows since then.
    rows: usize,
    reason: String,
}

impl SkipLog {
    pub fn new(table: &str) -> Self {
        SkipLog { table: table.to_string(), logged_at: None, rows: 0, reason: String::new() }
    }

    pub fn note(&mut self, rows: usize, error: &Error) {
        if rows == 0 {
            return;
        }
        self.rows += rows;
        self.reason = error.message().to_string();
        let now = Instant::now();
        if self.logged_at.is_none_or(|at| now.duration_since(at) >= PAUSE) {
            self.logged_at = Some(now);
            self.write();
        }
    }

    fn write(&mut self) {
        let SkipLog { table, rows, reason, .. } = self;
        tracing::warn!("{rows} rows were skipped whose lookup in \"{table}\" failed: {reason}");
        self.rows = 0;
    }
}

/// What has gathered since the last line is not lost.
impl Drop for SkipLog {
    fn drop(&mut self) {
        if self.rows > 0 {
            self.write();
        }
    }
}
