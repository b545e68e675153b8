//! One client's conversation: its statements, settings, transaction, prepared statements and cursors.
//!
//! [`Session::execute`] is where a statement meets everything it needs. `insert.rs` and `copy.rs` put rows into
//! push streams, `portal.rs` is a result that is read in parts, `setting.rs` what SET and SHOW know.

mod copy;
mod insert;
pub mod portal;
pub mod setting;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast::{self, Query};
use futures::StreamExt;

use crate::catalog::{StoredView, View};
use crate::engine::{Engine, Planned, Rows};
use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;
use crate::source::push::PushStream;
use crate::sql::rewrite;
use crate::sql::{FetchCount, Statement, StatementKind};
use crate::sql_name::relation_name;
pub use copy::CopyIn;
use portal::Portal;
use setting::{Report, Settings};

/// Bytes that a transaction may hold back for its COMMIT.
const MAX_TRANSACTION_BYTES: usize = 64 << 20;

/// One client's conversation.
pub struct Session {
    engine: Arc<Engine>,
    settings: Settings,
    transaction: Transaction,
    statements: HashMap<String, Prepared>,
    portals: HashMap<String, Portal>,
}

/// Where a session stands between BEGIN and COMMIT.
enum Transaction {
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

/// A statement that has been read and planned.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub statement: Arc<Statement>,
    /// The plan of the query in it, if there is one.
    pub planned: Option<Arc<Planned>>,
    /// The types of its parameters.
    pub parameters: Vec<PgType>,
}

/// What a statement comes to.
pub enum Outcome {
    /// Rows to be sent, and the word of the command tag.
    Rows { rows: Rows, tag: &'static str },
    /// Rows of a cursor: so many of the portal with this name.
    Fetch { portal: String, count: FetchCount },
    /// COPY TO STDOUT.
    CopyOut { rows: Rows, options: Vec<ast::CopyOption> },
    /// COPY FROM STDIN.
    CopyIn(Box<CopyIn>),
    /// Nothing but a command tag.
    Done { tag: String },
}

/// An outcome with what else the client is to be told.
pub struct Executed {
    pub outcome: Outcome,
    pub reports: Vec<Report>,
    /// Warnings and notices, as PostgreSQL sends them before the outcome.
    pub notices: Vec<Error>,
}

impl Executed {
    fn done(tag: impl Into<String>) -> Self {
        Executed { outcome: Outcome::Done { tag: tag.into() }, reports: vec![], notices: vec![] }
    }

    fn with_notice(mut self, code: Code, message: &str) -> Self {
        self.notices.push(Error::new(code, message));
        self
    }
}

impl From<Outcome> for Executed {
    fn from(outcome: Outcome) -> Self {
        Executed { outcome, reports: vec![], notices: vec![] }
    }
}

impl Session {
    pub fn new(engine: Arc<Engine>) -> Self {
        Session {
            engine,
            settings: Settings::default(),
            transaction: Transaction::Idle,
            statements: HashMap::new(),
            portals: HashMap::new(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// For what a client sends when it connects.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

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

    /// Plans a statement. `declared` are the types that the client gave to parameters, by position.
    ///
    /// # Errors
    /// Whatever is wrong with it, with its position in the text; 25P02 inside a failed transaction.
    pub async fn prepare(&mut self, statement: Statement, declared: &[Option<PgType>]) -> Result<Prepared> {
        self.refuse_in_failed_transaction(&statement)?;
        let planned = match &statement.kind {
            StatementKind::Query(query)
            | StatementKind::Explain { query, .. }
            | StatementKind::CopyOut { query, .. }
            | StatementKind::Declare { query, .. } => Some(self.engine.plan(query, declared).await?),
            StatementKind::Insert { stream, columns, source } => {
                let query = insert::source_query(self.engine.catalog(), stream, columns, source)?;
                let planned = self.engine.plan(&query, declared).await?;
                insert::refuse_endless(&planned)?;
                Some(planned)
            }
            _ => None,
        };
        let parameters = planned.as_ref().map(|planned| planned.parameters.clone()).unwrap_or_default();
        Ok(Prepared { statement: Arc::new(statement), planned: planned.map(Arc::new), parameters })
    }

    /// Runs a prepared statement with the values of its parameters.
    ///
    /// # Errors
    /// Whatever goes wrong before the first row; the caller then fails the transaction.
    pub async fn execute(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Executed> {
        self.refuse_in_failed_transaction(&prepared.statement)?;
        let mut executed = self.dispatch(prepared, values).await?;
        executed.notices.extend(prepared.planned.iter().flat_map(|planned| planned.notices.iter().cloned()));
        Ok(executed)
    }

    async fn dispatch(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Executed> {
        match &prepared.statement.kind {
            StatementKind::Empty => Ok(Executed::done("")),
            StatementKind::Query(_) => {
                Ok(Outcome::Rows { rows: self.run(prepared, values).await?, tag: "SELECT" }.into())
            }
            StatementKind::Explain { analyze, .. } => {
                let rows = self.explain(prepared, values, *analyze).await?;
                Ok(Outcome::Rows { rows, tag: "EXPLAIN" }.into())
            }
            StatementKind::CopyOut { options, .. } => {
                Ok(Outcome::CopyOut { rows: self.run(prepared, values).await?, options: options.clone() }.into())
            }
            StatementKind::CopyIn { stream, columns, options } => {
                let copy = CopyIn::try_new(self.engine.catalog(), stream, columns, options)?;
                Ok(Outcome::CopyIn(Box::new(copy)).into())
            }
            StatementKind::Insert { stream, columns, .. } => {
                let rows = self.run(prepared, values).await?;
                let (stream, batch) = insert::collect(self.engine.catalog(), stream, columns, rows).await?;
                let count = batch.num_rows();
                self.take_rows(&stream, batch).await?;
                Ok(Executed::done(format!("INSERT 0 {count}")))
            }
            StatementKind::CreateView { name, or_replace, columns, query } => {
                self.create_view((name, columns), query, *or_replace, &prepared.statement.text).await
            }
            StatementKind::DropView { names, if_exists } => self.drop_views(names, *if_exists),
            StatementKind::Declare { cursor, binary, .. } => {
                let rows = self.run(prepared, values).await?;
                self.declare(cursor, *binary, rows)?;
                Ok(Executed::done("DECLARE CURSOR"))
            }
            StatementKind::Fetch { cursor, count } => {
                self.portal(cursor)?;
                Ok(Outcome::Fetch { portal: cursor.clone(), count: *count }.into())
            }
            StatementKind::Close { cursor } => self.close_cursor(cursor.as_deref()),
            StatementKind::Begin => Ok(self.begin()),
            StatementKind::Commit => self.commit().await,
            StatementKind::Rollback => Ok(self.rollback()),
            StatementKind::Prepare { name, types, statement } => {
                self.prepare_named(name, types, statement).await?;
                Ok(Executed::done("PREPARE"))
            }
            StatementKind::Execute { name, parameters } => self.execute_named(name, parameters).await,
            StatementKind::Deallocate { name } => self.deallocate(name.as_deref()),
            StatementKind::Set { name, value, local } => self.set(name, value.as_deref(), *local),
            StatementKind::Reset { name: Some(name) } => {
                let report = self.settings.set(name, None, false)?;
                Ok(Executed { reports: report.into_iter().collect(), ..Executed::done("RESET") })
            }
            StatementKind::Reset { name: None } => {
                Ok(Executed { reports: self.settings.reset_all(), ..Executed::done("RESET") })
            }
            StatementKind::Show { name } => self.show(name),
            StatementKind::Discard { all } => self.discard(*all),
        }
    }

    /// The open result with this name.
    ///
    /// # Errors
    /// 34000 when there is none.
    pub fn portal(&mut self, name: &str) -> Result<&mut Portal> {
        self.portals
            .get_mut(name)
            .ok_or_else(|| Error::new(Code::UndefinedCursor, format!("cursor \"{name}\" does not exist")))
    }

    /// Opens a result under a name; one without a name replaces the last such.
    ///
    /// # Errors
    /// 42P03 when the name is taken.
    pub fn open_portal(&mut self, name: &str, portal: Portal) -> Result<()> {
        if !name.is_empty() && self.portals.contains_key(name) {
            return Err(Error::new(Code::DuplicateCursor, format!("cursor \"{name}\" already exists")));
        }
        self.portals.insert(name.to_string(), portal);
        Ok(())
    }

    /// Closes a result and lets go of all it holds; no error if there is none.
    pub fn close_portal(&mut self, name: &str) {
        self.portals.remove(name);
    }

    /// Ends what lives no longer than a statement outside of a transaction: the results that are still open.
    pub fn end_statement(&mut self) {
        if let Transaction::Idle = self.transaction {
            self.portals.clear();
        }
    }

    /// The prepared statement with this name.
    ///
    /// # Errors
    /// 26000 when there is none.
    pub fn statement(&self, name: &str) -> Result<&Prepared> {
        self.statements.get(name).ok_or_else(|| {
            Error::new(Code::UndefinedStatement, format!("prepared statement \"{name}\" does not exist"))
        })
    }

    /// Keeps a prepared statement under a name; one without a name replaces the last such.
    ///
    /// # Errors
    /// 42P05 when the name is taken.
    pub fn keep_statement(&mut self, name: &str, prepared: Prepared) -> Result<()> {
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(Error::new(Code::DuplicateStatement, format!("prepared statement \"{name}\" already exists")));
        }
        self.statements.insert(name.to_string(), prepared);
        Ok(())
    }

    /// Forgets a prepared statement; no error if there is none.
    pub fn forget_statement(&mut self, name: &str) {
        self.statements.remove(name);
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

    fn refuse_in_failed_transaction(&self, statement: &Statement) -> Result<()> {
        let ends = matches!(statement.kind, StatementKind::Commit | StatementKind::Rollback);
        if self.transaction_status() == TransactionStatus::Failed && !ends {
            return Err(Error::new(
                Code::FailedTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    async fn run(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Rows> {
        match &prepared.planned {
            Some(planned) => self.engine.run(planned, values).await,
            None => Err(Error::internal("a query without a plan")),
        }
    }

    async fn explain(&mut self, prepared: &Prepared, values: Vec<ScalarValue>, analyze: bool) -> Result<Rows> {
        let Some(planned) = &prepared.planned else { return Err(Error::internal("EXPLAIN without a plan")) };
        if analyze && planned.endless {
            return Err(Error::unsupported("EXPLAIN ANALYZE over an endless query would never end")
                .with_hint("EXPLAIN (ANALYZE, DURATION '5s') is not available yet; put a LIMIT behind the query."));
        }
        let physical = self.engine.physical_plan(planned, values).await?;
        let text = if analyze {
            let mut stream =
                datafusion::physical_plan::execute_stream(Arc::clone(&physical), self.engine.task_context())?;
            while let Some(batch) = stream.next().await {
                batch?;
            }
            datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(physical.as_ref())
                .indent(false)
                .to_string()
        } else {
            displayable(physical.as_ref()).indent(false).to_string()
        };
        Ok(text_rows("QUERY PLAN", text.lines().map(|line| line.replace('\u{1}', "_"))))
    }

    async fn create_view(
        &mut self,
        (name, columns): (&ast::ObjectName, &[ast::Ident]),
        query: &Query,
        or_replace: bool,
        text: &str,
    ) -> Result<Executed> {
        let name = relation_name(name).ok_or_else(|| Error::new(Code::SyntaxError, "CREATE VIEW needs a name"))?;
        let mut query = query.clone();
        rewrite::qualify_tables(&mut query);
        // What is wrong shows now; a store that is down is no fault of the view.
        match self.engine.plan(&query, &[]).await {
            Ok(planned) if !planned.parameters.is_empty() => {
                return Err(Error::new(Code::SyntaxError, "a view cannot have parameters"));
            }
            Err(error) if error.code() != Code::StoreUnavailable => return Err(error),
            _ => {}
        }
        let view =
            StoredView { view: View { columns: columns.to_vec(), query: Box::new(query) }, text: text.to_string() };
        self.engine.catalog().create_view(&name, view, or_replace)?;
        Ok(Executed::done("CREATE VIEW"))
    }

    fn drop_views(&self, names: &[ast::ObjectName], if_exists: bool) -> Result<Executed> {
        let mut executed = Executed::done("DROP VIEW");
        for name in names.iter().filter_map(relation_name) {
            if self.engine.catalog().drop_view(&name) {
                continue;
            }
            let message = format!("view \"{name}\" does not exist");
            match if_exists {
                true => executed = executed.with_notice(Code::Notice, &format!("{message}, skipping")),
                false => return Err(Error::new(Code::UndefinedTable, message)),
            }
        }
        Ok(executed)
    }

    fn declare(&mut self, cursor: &str, binary: bool, rows: Rows) -> Result<()> {
        if let Transaction::Idle = self.transaction {
            return Err(Error::new(Code::NoActiveTransaction, "DECLARE CURSOR can only be used in transaction blocks"));
        }
        self.open_portal(cursor, Portal::of_cursor(rows, binary))
    }

    fn close_cursor(&mut self, cursor: Option<&str>) -> Result<Executed> {
        match cursor {
            Some(name) => {
                self.portal(name)?;
                self.close_portal(name);
                Ok(Executed::done("CLOSE CURSOR"))
            }
            None => {
                self.portals.clear();
                Ok(Executed::done("CLOSE CURSOR ALL"))
            }
        }
    }

    fn begin(&mut self) -> Executed {
        if let Transaction::Open { .. } = self.transaction {
            return Executed::done("BEGIN")
                .with_notice(Code::ActiveTransaction, "there is already a transaction in progress");
        }
        self.transaction = Transaction::Open { settings: self.settings.clone(), rows: vec![], bytes: 0, failed: false };
        Executed::done("BEGIN")
    }

    async fn commit(&mut self) -> Result<Executed> {
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

    fn rollback(&mut self) -> Executed {
        match std::mem::replace(&mut self.transaction, Transaction::Idle) {
            Transaction::Idle => {
                Executed::done("ROLLBACK").with_notice(Code::NoActiveTransaction, "there is no transaction in progress")
            }
            Transaction::Open { settings, .. } => self.roll_back_to(settings),
        }
    }

    fn roll_back_to(&mut self, settings: Settings) -> Executed {
        self.portals.clear();
        let before = std::mem::replace(&mut self.settings, settings);
        Executed { reports: self.settings.differences(&before), ..Executed::done("ROLLBACK") }
    }

    async fn prepare_named(&mut self, name: &str, types: &[ast::DataType], statement: &Statement) -> Result<()> {
        let declared =
            types.iter().map(|data_type| rewrite::pg_type_of(data_type).map(Some)).collect::<Result<Vec<_>>>()?;
        let prepared = self.prepare(statement.clone(), &declared).await?;
        self.keep_statement(name, prepared)
    }

    async fn execute_named(&mut self, name: &str, parameters: &[ast::Expr]) -> Result<Executed> {
        let prepared = self.statement(name)?.clone();
        if parameters.len() != prepared.parameters.len() {
            return Err(Error::new(
                Code::SyntaxError,
                format!("wrong number of parameters for prepared statement \"{name}\""),
            )
            .with_detail(format!(
                "Expected {} parameters but got {}.",
                prepared.parameters.len(),
                parameters.len()
            )));
        }
        let values = match parameters.is_empty() {
            true => vec![],
            false => self.engine.evaluate(parameters, &prepared.parameters).await?,
        };
        Box::pin(self.execute(&prepared, values)).await
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<Executed> {
        match name {
            Some(name) => {
                self.statement(name)?;
                self.forget_statement(name);
                Ok(Executed::done("DEALLOCATE"))
            }
            None => {
                self.statements.clear();
                Ok(Executed::done("DEALLOCATE ALL"))
            }
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Executed> {
        let in_transaction = matches!(self.transaction, Transaction::Open { .. });
        if local && !in_transaction {
            // As in PostgreSQL, the value is checked and has no effect.
            self.settings.clone().set(name, value, true)?;
            return Ok(Executed::done("SET")
                .with_notice(Code::NoActiveTransaction, "SET LOCAL can only be used in transaction blocks"));
        }
        let report = self.settings.set(name, value, local)?;
        Ok(Executed { reports: report.into_iter().collect(), ..Executed::done("SET") })
    }

    fn show(&self, name: &str) -> Result<Executed> {
        if ["streams", "lookups", "queries", "all"].contains(&name) {
            return Err(Error::unsupported(format!("SHOW {} is not available yet", name.to_uppercase())));
        }
        let (name, value) = self.settings.get(name)?;
        Ok(Outcome::Rows { rows: text_rows(&name.to_lowercase(), [value]), tag: "SHOW" }.into())
    }

    fn discard(&mut self, all: bool) -> Result<Executed> {
        if !all {
            return Ok(Executed::done("DISCARD"));
        }
        if let Transaction::Open { .. } = self.transaction {
            return Err(Error::new(Code::ActiveTransaction, "DISCARD ALL cannot run inside a transaction block"));
        }
        self.portals.clear();
        self.statements.clear();
        Ok(Executed { reports: self.settings.reset_all(), ..Executed::done("DISCARD ALL") })
    }
}

/// A result of one column of text that is all there.
fn text_rows(column: &str, lines: impl IntoIterator<Item = String>) -> Rows {
    let schema = Arc::new(Schema::new(vec![PgType::Text.field(column, false)]));
    let lines: StringViewArray = lines.into_iter().map(Some).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(lines)]).map_err(Into::into);
    let stream = futures::stream::iter([batch]);
    Rows {
        schema: Arc::clone(&schema),
        stream: Box::pin(RecordBatchStreamAdapter::new(schema, stream)),
        endless: false,
    }
}
