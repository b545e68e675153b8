//! One client's conversation: its statements, settings, transaction, prepared statements and cursors.
//!
//! [`Session::execute`] is where a statement meets everything it needs. `insert.rs` and `copy.rs` put rows into
//! push streams, at COMMIT if `transaction.rs` says so; `portal.rs` is a result that is read in parts, `setting.rs`
//! what SET and SHOW (`set.rs`) know (`setting_table.rs`); `prepared.rs` is PREPARE and EXECUTE, `explain.rs` and `view.rs` are the statements of these names.

mod copy;
mod explain;
mod insert;
pub mod portal;
mod prepared;
mod set;
pub mod setting;
mod setting_table;
mod transaction;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;

use crate::catalog::running::QueryEntry;
use crate::catalog::{CATALOG_NAME, Rights, Viewer};
use crate::engine::{Engine, Planned, Rows};
use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;
use crate::source::push::PushStream;
use crate::sql::cursor::Fetch;
use crate::sql::{Statement, StatementKind};
pub use copy::CopyIn;
use portal::Portal;
pub use set::SHOW_ALL_COLUMNS;
use setting::Settings;
use transaction::Transaction;
pub use transaction::TransactionStatus;

/// One client's conversation.
pub struct Session {
    engine: Arc<Engine>,
    /// The connection's number; `None` in process.
    pid: Option<i32>,
    database: String,
    rights: Arc<Rights>,
    settings: Settings,
    transaction: Transaction,
    statements: HashMap<String, Prepared>,
    portals: HashMap<String, Portal>,
    /// How many there have been.
    portals_opened: u64,
}

/// A statement that has been read and planned.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub statement: Arc<Statement>,
    /// The plan of the query in it, if there is one.
    pub planned: Option<Arc<Planned>>,
    /// The types of its parameters.
    pub parameters: Vec<PgType>,
    /// The types that the client gave to parameters, by position; 0 where it left that to us.
    declared_oids: Vec<u32>,
}

impl Prepared {
    /// Keeps what the client called the types of its parameters.
    pub fn with_declared_oids(self, declared_oids: Vec<u32>) -> Self {
        Prepared { declared_oids, ..self }
    }

    /// The types of its parameters as the client called them: drivers want to hear `varchar` again, which is text here.
    pub fn parameter_oids(&self) -> Vec<u32> {
        let declared = self.declared_oids.iter().copied().chain(std::iter::repeat(0));
        let own = self.parameters.iter().map(PgType::oid);
        own.zip(declared).map(|(own, declared)| if matches!(declared, 0 | 705) { own } else { declared }).collect()
    }
}

/// What a statement comes to.
pub enum Outcome {
    /// Rows to be sent, and the word of the command tag.
    Rows { rows: Rows, tag: &'static str },
    /// Rows of a cursor.
    Fetch(Fetch),
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
    /// Warnings and notices, as PostgreSQL sends them before the outcome.
    pub notices: Vec<Error>,
}

impl Executed {
    fn done(tag: impl Into<String>) -> Self {
        Executed { outcome: Outcome::Done { tag: tag.into() }, notices: vec![] }
    }

    fn with_notice(mut self, code: Code, message: &str) -> Self {
        self.notices.push(Error::new(code, message));
        self
    }
}

impl From<Outcome> for Executed {
    fn from(outcome: Outcome) -> Self {
        Executed { outcome, notices: vec![] }
    }
}

impl Session {
    pub fn new(engine: Arc<Engine>) -> Self {
        Session {
            engine,
            pid: None,
            database: CATALOG_NAME.to_string(),
            rights: Arc::new(Rights::all()),
            settings: Settings::default(),
            transaction: Transaction::Idle,
            statements: HashMap::new(),
            portals: HashMap::new(),
            portals_opened: 0,
        }
    }

    /// Remembers who has connected, to which database, and what he may do.
    pub fn set_client(&mut self, user: &str, database: &str, rights: Arc<Rights>) {
        self.settings.set_user(user);
        self.database = database.to_string();
        self.rights = rights;
    }

    /// The session as catalogs and functions see it at this moment.
    pub fn viewer(&self) -> Viewer {
        Viewer {
            user: self.settings.user().to_string(),
            database: self.database.clone(),
            pid: self.pid,
            rights: Arc::clone(&self.rights),
            settings: self.settings.all(),
        }
    }

    /// Gives the session the number that its client was given.
    pub fn set_pid(&mut self, pid: i32) {
        self.pid = Some(pid);
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// For what a client sends when it connects.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Plans a statement. `declared` are the types that the client gave to parameters, by position.
    ///
    /// # Errors
    /// Whatever is wrong with it, with its position in the text; 25P02 inside a failed transaction.
    pub async fn prepare(&mut self, statement: Statement, declared: &[Option<PgType>]) -> Result<Prepared> {
        self.refuse_in_failed_transaction(&statement)?;
        self.refuse_dump()?;
        let planned = match &statement.kind {
            StatementKind::Query(query)
            | StatementKind::ShowRelation { query }
            | StatementKind::Explain { query, .. }
            | StatementKind::CopyOut { query, .. }
            | StatementKind::Declare { query, .. } => Some(self.engine.plan(query, declared, &self.viewer()).await?),
            StatementKind::Insert { stream, columns, source } => {
                let stream = self.writable(stream)?;
                let query = insert::source_query(&stream, columns, source)?;
                let planned = self.engine.plan(&query, declared, &self.viewer()).await?;
                insert::refuse_endless(&planned)?;
                Some(planned)
            }
            _ => None,
        };
        let parameters = planned.as_ref().map(|planned| planned.parameters.clone()).unwrap_or_default();
        let planned = planned.map(Arc::new);
        Ok(Prepared { statement: Arc::new(statement), planned, parameters, declared_oids: vec![] })
    }

    /// pg_dump would lock tables and read what only PostgreSQL keeps; its first statement says no in words of ours.
    fn refuse_dump(&self) -> Result<()> {
        match self.settings.application_name() {
            name @ ("pg_dump" | "pg_dumpall") => Err(Error::unsupported(format!("{name} is not supported"))
                .with_hint("What there is stands in the catalog files; COPY (SELECT …) TO STDOUT reads rows.")),
            _ => Ok(()),
        }
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
            StatementKind::ShowRelation { .. } => {
                Ok(Outcome::Rows { rows: self.run(prepared, values).await?, tag: "SHOW" }.into())
            }
            StatementKind::Explain { options, .. } => {
                let rows = self.explain(prepared, values, options).await?;
                Ok(Outcome::Rows { rows, tag: "EXPLAIN" }.into())
            }
            StatementKind::CopyOut { options, .. } => {
                Ok(Outcome::CopyOut { rows: self.run(prepared, values).await?, options: options.clone() }.into())
            }
            StatementKind::CopyIn { stream, columns, options } => {
                self.refuse_read_only("COPY FROM")?;
                let settings = self.settings.values();
                let copy = CopyIn::try_new(self.writable(stream)?, columns, options, settings)?;
                Ok(Outcome::CopyIn(Box::new(copy)).into())
            }
            StatementKind::Insert { stream, columns, .. } => {
                self.refuse_read_only("INSERT")?;
                let rows = self.run(prepared, values).await?;
                let stream = self.writable(stream)?;
                let batch = insert::collect(&stream, columns, rows).await?;
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
            StatementKind::Fetch(fetch) => {
                self.cursor(&fetch.cursor)?;
                Ok(Outcome::Fetch(fetch.clone()).into())
            }
            StatementKind::Close { cursor } => self.close_cursor(cursor.as_deref()),
            StatementKind::Begin { modes } => self.begin(modes),
            StatementKind::Commit => self.commit().await,
            StatementKind::Rollback => Ok(self.rollback()),
            StatementKind::Savepoint { name } => self.savepoint(name),
            StatementKind::Release { name } => self.release(name),
            StatementKind::RollbackTo { name } => self.rollback_to(name),
            StatementKind::SetTransaction { modes, session } => self.set_transaction(modes, *session),
            StatementKind::Prepare { name, types, statement } => {
                self.prepare_named(name, types, statement).await?;
                Ok(Executed::done("PREPARE"))
            }
            StatementKind::Execute { name, parameters } => self.execute_named(name, parameters).await,
            StatementKind::Deallocate { name } => self.deallocate(name.as_deref()),
            StatementKind::Unlisten => Ok(Executed::done("UNLISTEN")),
            StatementKind::Set { name, value, local } => self.set(name, value.as_deref(), *local),
            StatementKind::Reset { name } => {
                match name {
                    Some(name) => self.settings.set(name, None, false)?,
                    None => self.settings.reset_all(),
                }
                Ok(Executed::done("RESET"))
            }
            StatementKind::Show { name } => self.show(name),
            StatementKind::Discard { what } => self.discard(what),
        }
    }

    /// The open result with this name, as the protocol names it.
    ///
    /// # Errors
    /// 34000 when there is none.
    pub fn portal(&mut self, name: &str) -> Result<&mut Portal> {
        self.portals
            .get_mut(name)
            .ok_or_else(|| Error::new(Code::UndefinedCursor, format!("portal \"{name}\" does not exist")))
    }

    /// The open result with this name, as SQL names it.
    ///
    /// # Errors
    /// 34000 when there is none.
    pub fn cursor(&mut self, name: &str) -> Result<&mut Portal> {
        self.portals
            .get_mut(name)
            .ok_or_else(|| Error::new(Code::UndefinedCursor, format!("cursor \"{name}\" does not exist")))
    }

    /// Opens a result under a name; one without a name replaces the last such.
    ///
    /// # Errors
    /// 42P03 when the name is taken.
    pub fn open_portal(&mut self, name: &str, mut portal: Portal) -> Result<()> {
        if !name.is_empty() && self.portals.contains_key(name) {
            return Err(Error::new(Code::DuplicateCursor, format!("cursor \"{name}\" already exists")));
        }
        self.portals_opened += 1;
        portal.number = self.portals_opened;
        self.portals.insert(name.to_string(), portal);
        Ok(())
    }

    /// Closes a result and lets go of all it holds; no error if there is none.
    pub fn close_portal(&mut self, name: &str) {
        self.portals.remove(name);
    }

    /// The stream with this name, for rows to be put into.
    fn writable(&self, stream: &ast::ObjectName) -> Result<Arc<PushStream>> {
        self.engine.catalog().push_stream(stream, &self.rights)
    }

    async fn run(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Rows> {
        match &prepared.planned {
            Some(planned) => self.engine.run(planned, values, &self.viewer(), self.enter(prepared)).await,
            None => Err(Error::internal("a query without a plan")),
        }
    }

    /// An entry among the queries that run, for as long as this one does.
    fn enter(&self, prepared: &Prepared) -> QueryEntry {
        let user = self.settings.user().to_string();
        self.engine.catalog().running().enter(self.pid, user, prepared.statement.text.clone())
    }

    fn declare(&mut self, cursor: &str, binary: bool, rows: Rows) -> Result<()> {
        self.require_transaction("DECLARE CURSOR")?;
        self.open_portal(cursor, Portal::of_cursor(rows, binary))
    }

    fn close_cursor(&mut self, cursor: Option<&str>) -> Result<Executed> {
        match cursor {
            Some(name) => {
                self.cursor(name)?;
                self.close_portal(name);
                Ok(Executed::done("CLOSE CURSOR"))
            }
            None => {
                self.portals.clear();
                Ok(Executed::done("CLOSE CURSOR ALL"))
            }
        }
    }
}
