//! BEGIN, COMMIT, ROLLBACK: rows for streams are held back, and settings put back.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;

use super::{Executed, Session, Settings};
use crate::error::{Code, Error, Result};
use crate::source::push::PushStream;
use crate::sql::{Statement, StatementKind};

/// Bytes that a transaction may hold back for its COMMIT.
const MAX_TRANSACTION_BYTES: usize = 64 << 20;

/// Where a session stands between BEGIN and COMMIT.
pub(super) enum Transaction {
    Idle,
    Open {
        /// What ROLLBACK puts back.
        settings: Settings,
        rows: Vec<(Arc<PushStream>, RecordBatch)>,
        bytes: usize,
        failed: bool,
    },
}

/// What ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    Open,
    Failed,
}

impl Session {
    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            Transaction::Idle => TransactionStatus::Idle,
            Transaction::Open { failed: true, .. } => TransactionStatus::Failed,
            Transaction::Open { failed: false, .. } => TransactionStatus::Open,
        }
    }

    /// Marks the transaction, if there is one, as failed: until its end every statement is refused.
    pub fn fail_transaction(&mut self) {
        if let Transaction::Open { failed, .. } = &mut self.transaction {
            *failed = true;
        }
    }

    /// Puts rows into a stream: at once, or at COMMIT.
    ///
    /// # Errors
    /// 23502 for a NULL where none may be, 54000 when the transaction holds too much.
    pub async fn take_rows(&mut self, stream: &Arc<PushStream>, batch: RecordBatch) -> Result<()> {
        match &mut self.transaction {
            Transaction::Idle => {
                stream.append(batch).await?;
            }
            Transaction::Open { rows, bytes, .. } => {
                stream.check(&batch)?;
                *bytes += batch.get_array_memory_size();
                if *bytes > MAX_TRANSACTION_BYTES {
                    return Err(Error::new(
                        Code::ProgramLimitExceeded,
                        "the transaction holds more than 64 MiB of rows",
                    )
                    .with_hint("COMMIT more often, or insert outside of a transaction."));
                }
                rows.push((Arc::clone(stream), batch));
            }
        }
        Ok(())
    }

    pub(super) fn refuse_in_failed_transaction(&self, statement: &Statement) -> Result<()> {
        let ends = matches!(statement.kind, StatementKind::Commit | StatementKind::Rollback);
        if self.transaction_status() == TransactionStatus::Failed && !ends {
            return Err(Error::new(
                Code::FailedTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    pub(super) fn begin(&mut self) -> Executed {
        if let Transaction::Open { .. } = self.transaction {
            return Executed::done("BEGIN")
                .with_notice(Code::ActiveTransaction, "there is already a transaction in progress");
        }
        self.transaction = Transaction::Open { settings: self.settings.clone(), rows: vec![], bytes: 0, failed: false };
        Executed::done("BEGIN")
    }

    pub(super) async fn commit(&mut self) -> Result<Executed> {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Idle => {
                Ok(Executed::done("COMMIT")
                    .with_notice(Code::NoActiveTransaction, "there is no transaction in progress"))
            }
            Transaction::Open { settings, failed: true, .. } => Ok(self.roll_back_to(settings)),
            Transaction::Open { rows, .. } => {
                self.portals.clear();
                for (stream, batch) in rows {
                    stream.append(batch).await?;
                }
                Ok(Executed { reports: self.settings.end_transaction(), ..Executed::done("COMMIT") })
            }
        }
    }

    pub(super) fn rollback(&mut self) -> Executed {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Idle => {
                Executed::done("ROLLBACK").with_notice(Code::NoActiveTransaction, "there is no transaction in progress")
            }
            Transaction::Open { settings, .. } => self.roll_back_to(settings),
        }
    }

    pub(super) fn roll_back_to(&mut self, settings: Settings) -> Executed {
        self.portals.clear();
        let before = std::mem::replace(&mut self.settings, settings);
        Executed { reports: self.settings.differences(&before), ..Executed::done("ROLLBACK") }
    }
}
