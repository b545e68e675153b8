//! The queries that run now, for `lookaside.queries`. An entry goes with what runs, however that ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use chrono::{DateTime, Utc};
use datafusion::physical_plan::ExecutionPlan;

use crate::lookup::{LookupExec, ROWS_WAITING};
use crate::source::exec::SourceExec;

/// All queries of one process that run now.
#[derive(Debug, Default)]
pub struct RunningQueries {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: BTreeMap<u64, Arc<RunningQuery>>,
    next_id: u64,
}

/// A query, from the moment at which it is told to run.
#[derive(Debug)]
pub struct RunningQuery {
    /// The connection's number, as a cancel request names it; `None` within a process of its own.
    pub pid: Option<i32>,
    pub user: String,
    /// The statement as the client wrote it.
    pub sql: String,
    pub started: DateTime<Utc>,
    suspended: AtomicBool,
    rows_out: AtomicU64,
    /// `None` while it is being planned.
    plan: OnceLock<Arc<dyn ExecutionPlan>>,
}

/// The place of a query among those that run, given up when dropped.
#[derive(Debug)]
pub struct QueryEntry {
    queries: Arc<RunningQueries>,
    id: u64,
    query: Arc<RunningQuery>,
}

impl RunningQueries {
    /// Enters a query of the client `pid`, who is `user`.
    pub fn enter(self: &Arc<Self>, pid: Option<i32>, user: String, sql: String) -> QueryEntry {
        let query = Arc::new(RunningQuery {
            pid,
            user,
            sql,
            started: Utc::now(),
            suspended: AtomicBool::new(false),
            rows_out: AtomicU64::new(0),
            plan: OnceLock::new(),
        });
        let mut entries = self.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        entries.by_id.insert(id, Arc::clone(&query));
        drop(entries);
        QueryEntry { queries: Arc::clone(self), id, query }
    }

    /// Those that run at this moment, oldest first.
    pub fn snapshot(&self) -> Vec<Arc<RunningQuery>> {
        self.lock().by_id.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningQuery {
    /// `running`, or `suspended` while nobody asks for its rows, as a cursor between two FETCHes.
    pub fn state(&self) -> &'static str {
        if self.suspended.load(Relaxed) { "suspended" } else { "running" }
    }

    /// Rows that its streams have given it.
    pub fn rows_in(&self) -> u64 {
        self.sum(&|operator| {
            let metrics = operator.downcast_ref::<SourceExec>()?.metrics()?;
            metrics.output_rows()
        })
    }

    /// Rows that it has given to who asked for them.
    pub fn rows_out(&self) -> u64 {
        self.rows_out.load(Relaxed)
    }

    /// Rows that have places in its lookup stages.
    pub fn rows_waiting(&self) -> u64 {
        self.sum(&|operator| {
            let metrics = operator.downcast_ref::<LookupExec>()?.metrics()?;
            Some(metrics.sum_by_name(ROWS_WAITING)?.as_usize())
        })
    }

    fn sum(&self, of_operator: &dyn Fn(&dyn ExecutionPlan) -> Option<usize>) -> u64 {
        self.plan.get().map_or(0, |plan| sum_over(plan.as_ref(), of_operator))
    }
}

fn sum_over(operator: &dyn ExecutionPlan, of_operator: &dyn Fn(&dyn ExecutionPlan) -> Option<usize>) -> u64 {
    let below: u64 = operator.children().into_iter().map(|child| sum_over(child.as_ref(), of_operator)).sum();
    below + of_operator(operator).unwrap_or(0) as u64
}

impl QueryEntry {
    /// What runs. Its metrics are read from now on.
    pub fn runs(&self, plan: &Arc<dyn ExecutionPlan>) {
        // A query is planned once.
        let _ = self.query.plan.set(Arc::clone(plan));
    }

    /// Somebody asks for rows.
    pub fn resume(&self) {
        self.query.suspended.store(false, Relaxed);
    }

    /// Nobody asks for rows until [`QueryEntry::resume`].
    pub fn suspend(&self) {
        self.query.suspended.store(true, Relaxed);
    }

    pub fn count_rows_out(&self, rows: usize) {
        self.query.rows_out.fetch_add(rows as u64, Relaxed);
    }
}

impl Drop for QueryEntry {
    fn drop(&mut self) {
        self.queries.lock().by_id.remove(&self.id);
    }
}
