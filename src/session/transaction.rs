//! BEGIN, COMMIT, ROLLBACK, savepoints: rows for streams are held back, and settings put back.
//!
//! Several statements in one message are one transaction as well, and so is all that the extended protocol says up to
//! Sync: nobody has to write BEGIN for that.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;

use super::{Executed, Session, Settings};
use crate::error::{Code, Error, Result};
use crate::source::push::PushStream;
use crate::sql::{Statement, StatementKind, TransactionModes};

/// Bytes that a transaction may hold back for its COMMIT.
const MAX_TRANSACTION_BYTES: usize = 64 << 20;
/// Savepoints that a transaction may have at once.
const MAX_SAVEPOINTS: usize = 1000;

/// Where a session stands between BEGIN and COMMIT.
pub(super) enum Transaction {
    Idle,
    Open(Box<Open>),
}

/// What COMMIT keeps and ROLLBACK drops.
pub(super) struct Open {
    block: Block,
    /// What ROLLBACK puts back.
    settings: Settings,
    rows: Vec<(Arc<PushStream>, RecordBatch)>,
    bytes: usize,
    savepoints: Vec<Savepoint>,
}

/// Who has begun a transaction, and how it is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// Begun by a message of several statements; ends with it.
    Message,
    /// Begun by the extended protocol; ends with Sync.
    Pipeline,
    /// Begun by BEGIN.
    Begun,
    /// Begun by BEGIN, and takes nothing but its end.
    Failed,
}

/// What ROLLBACK TO goes back to.
struct Savepoint {
    name: String,
    settings: Settings,
    rows: usize,
    bytes: usize,
    /// Cursors opened later than this many are closed.
    portals_opened: u64,
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
            Transaction::Open(open) => match open.block {
                Block::Message | Block::Pipeline => TransactionStatus::Idle,
                Block::Begun => TransactionStatus::Open,
                Block::Failed => TransactionStatus::Failed,
            },
        }
    }

    /// Begins the transaction that a message of several statements is, unless one is open.
    pub fn begin_message(&mut self) {
        self.begin_block(Block::Message);
    }

    /// Begins the transaction that ends with Sync, unless one is open.
    pub fn begin_pipeline(&mut self) {
        self.begin_block(Block::Pipeline);
    }

    /// Marks the transaction as failed: until its end every statement is refused. One that nobody has begun by BEGIN
    /// is rolled back at once.
    pub fn fail_transaction(&mut self) {
        let Transaction::Open(open) = &mut self.transaction else { return };
        match open.block {
            Block::Begun | Block::Failed => open.block = Block::Failed,
            Block::Message | Block::Pipeline => self.drop_transaction(),
        }
    }

    /// Ends what lives no longer than a message or a pipeline: its transaction, if nobody has begun one by BEGIN, and
    /// the results that are still open outside of one.
    ///
    /// # Errors
    /// Whatever keeps rows from entering their streams.
    pub async fn end_message(&mut self) -> Result<()> {
        match &self.transaction {
            Transaction::Open(open) if matches!(open.block, Block::Begun | Block::Failed) => Ok(()),
            _ => {
                self.portals.clear();
                self.publish().await
            }
        }
    }

    /// Whether the end of the message lets rows into their streams.
    pub fn has_rows_to_publish(&self) -> bool {
        match &self.transaction {
            Transaction::Open(open) => matches!(open.block, Block::Message | Block::Pipeline) && !open.rows.is_empty(),
            Transaction::Idle => false,
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
            Transaction::Open(open) => {
                stream.check(&batch)?;
                open.bytes += batch.get_array_memory_size();
                if open.bytes > MAX_TRANSACTION_BYTES {
                    return Err(Error::new(
                        Code::ProgramLimitExceeded,
                        "the transaction holds more than 64 MiB of rows",
                    )
                    .with_hint("COMMIT more often, or insert outside of a transaction."));
                }
                open.rows.push((Arc::clone(stream), batch));
            }
        }
        Ok(())
    }

    /// As [`Session::take_rows`], for the rows of a COPY: it publishes as it reads, unless it is part of a transaction
    /// that somebody has begun, or that holds rows which must come first.
    ///
    /// # Errors
    /// As [`Session::take_rows`].
    pub async fn take_copied_rows(&mut self, stream: &Arc<PushStream>, batch: RecordBatch) -> Result<()> {
        match &self.transaction {
            Transaction::Open(open) if open.block == Block::Pipeline && open.rows.is_empty() => {
                stream.append(batch).await?;
                Ok(())
            }
            _ => self.take_rows(stream, batch).await,
        }
    }

    /// # Errors
    /// 25P02 for a statement that does not end a transaction that has failed.
    pub fn refuse_in_failed_transaction(&self, statement: &Statement) -> Result<()> {
        let ends = matches!(
            statement.kind,
            StatementKind::Commit | StatementKind::Rollback | StatementKind::RollbackTo { .. }
        );
        if self.transaction_status() == TransactionStatus::Failed && !ends {
            return Err(Error::new(
                Code::FailedTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// # Errors
    /// 25006 in a transaction that is READ ONLY.
    pub(super) fn refuse_read_only(&self, command: &str) -> Result<()> {
        match self.settings.is_read_only() {
            true => Err(Error::new(
                Code::ReadOnlyTransaction,
                format!("cannot execute {command} in a read-only transaction"),
            )),
            false => Ok(()),
        }
    }

    /// # Errors
    /// 25P01 outside of a transaction: `command` would have no effect.
    pub(super) fn require_transaction(&self, command: &str) -> Result<()> {
        match &self.transaction {
            Transaction::Open(open) if open.block != Block::Pipeline => Ok(()),
            _ => {
                Err(Error::new(Code::NoActiveTransaction, format!("{command} can only be used in transaction blocks")))
            }
        }
    }

    /// Whether BEGIN, or a message of several statements, has begun a transaction.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.require_transaction("").is_ok()
    }

    pub(super) fn begin(&mut self, modes: &TransactionModes) -> Result<Executed> {
        let executed = match &mut self.transaction {
            Transaction::Open(open) if matches!(open.block, Block::Begun | Block::Failed) => Executed::done("BEGIN")
                .with_notice(Code::ActiveTransaction, "there is already a transaction in progress"),
            // What came before in the message or the pipeline is part of it.
            Transaction::Open(open) => {
                open.block = Block::Begun;
                Executed::done("BEGIN")
            }
            Transaction::Idle => {
                self.begin_block(Block::Begun);
                Executed::done("BEGIN")
            }
        };
        self.set_modes(modes)?;
        Ok(executed)
    }

    /// Settings of the transaction that is open; they end with it.
    pub(super) fn set_modes(&mut self, modes: &TransactionModes) -> Result<()> {
        for (name, value) in modes {
            self.settings.set(&format!("transaction_{name}"), Some(value), true)?;
        }
        Ok(())
    }

    pub(super) async fn commit(&mut self) -> Result<Executed> {
        match &self.transaction {
            Transaction::Open(open) if open.block == Block::Failed => {
                self.drop_transaction();
                Ok(Executed::done("ROLLBACK"))
            }
            Transaction::Open(open) if open.block == Block::Begun => {
                self.portals.clear();
                self.publish().await?;
                Ok(Executed::done("COMMIT"))
            }
            _ => {
                self.publish().await?;
                Ok(Executed::done("COMMIT")
                    .with_notice(Code::NoActiveTransaction, "there is no transaction in progress"))
            }
        }
    }

    pub(super) fn rollback(&mut self) -> Executed {
        let was_begun = self.transaction_status() != TransactionStatus::Idle;
        self.drop_transaction();
        match was_begun {
            true => Executed::done("ROLLBACK"),
            false => {
                Executed::done("ROLLBACK").with_notice(Code::NoActiveTransaction, "there is no transaction in progress")
            }
        }
    }

    pub(super) fn savepoint(&mut self, name: &str) -> Result<Executed> {
        self.require_transaction("SAVEPOINT")?;
        let (settings, portals_opened) = (self.settings.clone(), self.portals_opened);
        let Transaction::Open(open) = &mut self.transaction else { return Err(no_such_savepoint(name)) };
        if open.savepoints.len() >= MAX_SAVEPOINTS {
            let message = format!("the transaction has more than {MAX_SAVEPOINTS} savepoints");
            return Err(Error::new(Code::ProgramLimitExceeded, message).with_hint("RELEASE those that are done with."));
        }
        let (rows, bytes) = (open.rows.len(), open.bytes);
        open.savepoints.push(Savepoint { name: name.to_string(), settings, rows, bytes, portals_opened });
        Ok(Executed::done("SAVEPOINT"))
    }

    pub(super) fn release(&mut self, name: &str) -> Result<Executed> {
        self.require_transaction("RELEASE SAVEPOINT")?;
        let Transaction::Open(open) = &mut self.transaction else { return Err(no_such_savepoint(name)) };
        let at = open.position_of(name)?;
        open.savepoints.truncate(at);
        Ok(Executed::done("RELEASE"))
    }

    pub(super) fn rollback_to(&mut self, name: &str) -> Result<Executed> {
        self.require_transaction("ROLLBACK TO SAVEPOINT")?;
        let Transaction::Open(open) = &mut self.transaction else { return Err(no_such_savepoint(name)) };
        let at = open.position_of(name)?;
        open.savepoints.truncate(at + 1);
        let savepoint = &open.savepoints[at];
        open.rows.truncate(savepoint.rows);
        open.bytes = savepoint.bytes;
        if open.block == Block::Failed {
            open.block = Block::Begun;
        }
        self.settings = savepoint.settings.clone();
        let portals_opened = savepoint.portals_opened;
        self.portals.retain(|_, portal| portal.number <= portals_opened);
        Ok(Executed::done("ROLLBACK"))
    }

    fn begin_block(&mut self, block: Block) {
        if let Transaction::Open(_) = self.transaction {
            return;
        }
        self.transaction = Transaction::Open(Box::new(Open {
            block,
            settings: self.settings.clone(),
            rows: vec![],
            bytes: 0,
            savepoints: vec![],
        }));
    }

    /// Ends the transaction and lets its rows into their streams.
    async fn publish(&mut self) -> Result<()> {
        if let Transaction::Open(open) = std::mem::replace(&mut self.transaction, Transaction::Idle) {
            self.settings.end_transaction();
            for (stream, batch) in open.rows {
                stream.append(batch).await?;
            }
        }
        Ok(())
    }

    /// Ends the transaction and puts back what it has changed.
    fn drop_transaction(&mut self) {
        if let Transaction::Open(open) = std::mem::replace(&mut self.transaction, Transaction::Idle) {
            self.portals.clear();
            self.settings = open.settings;
        }
    }
}

impl Open {
    /// The place of the newest savepoint with this name.
    fn position_of(&self, name: &str) -> Result<usize> {
        self.savepoints.iter().rposition(|savepoint| savepoint.name == name).ok_or_else(|| no_such_savepoint(name))
    }
}

fn no_such_savepoint(name: &str) -> Error {
    Error::new(Code::UndefinedSavepoint, format!("savepoint \"{name}\" does not exist"))
}
