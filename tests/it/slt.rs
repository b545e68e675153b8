//! Runs every file under `tests/slt` twice: in process, and over the wire.

use std::fmt;
use std::sync::Arc;

use lookaside::error::{Code, Error};
use lookaside::server::print::{OutputFormat, Printer};
use lookaside::session::portal::RowReader;
use lookaside::session::{Outcome, Session};
use lookaside::sql;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::lookaside::{Lookaside, engine, project};

#[tokio::test(flavor = "multi_thread")]
async fn statements_answer_the_same_in_process_and_over_the_wire() {
    let folder = project().join("tests/slt");
    let catalog = std::fs::read_to_string(folder.join("catalog.toml")).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(!files.is_empty());
    let mut failures = vec![];
    for file in files {
        // Each run has a catalog of its own: views and rows of one are not seen by the other.
        let in_process = engine(&catalog);
        let mut runner = Runner::new(|| {
            let session = Session::new(Arc::clone(&in_process));
            async move { Ok(InProcess(session)) }
        });
        if let Err(error) = runner.run_file_async(&file).await {
            failures.push(format!("in process: {error}"));
        }
        let server = Lookaside::start(&catalog).await;
        let mut runner = Runner::new(|| async { Ok(OverTheWire(server.connect().await)) });
        if let Err(error) = runner.run_file_async(&file).await {
            failures.push(format!("over the wire: {error}"));
        }
        drop(runner);
        server.stop().await;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// An error as the files name it: SQLSTATE, message, hint.
#[derive(Debug)]
struct Shown(String);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Shown {}

impl From<Error> for Shown {
    fn from(error: Error) -> Self {
        let hint = error.hint().map(|hint| format!(" HINT {hint}")).unwrap_or_default();
        Shown(format!("{} {error}{hint}", error.sqlstate()))
    }
}

impl From<tokio_postgres::Error> for Shown {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(error) => {
                let hint = error.hint().map(|hint| format!(" HINT {hint}")).unwrap_or_default();
                Shown(format!("{} {}{hint}", error.code().code(), error.message()))
            }
            None => Shown(error.to_string()),
        }
    }
}

struct InProcess(Session);

impl InProcess {
    async fn rows(&mut self, text: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let mut output = DBOutput::StatementComplete(0);
        for statement in sql::parse(text)? {
            let prepared = self.0.prepare(statement, &[]).await?;
            output = match self.0.execute(&prepared, vec![]).await?.outcome {
                Outcome::Done { .. } => DBOutput::StatementComplete(0),
                Outcome::Rows { rows, tag } => {
                    let mut reader = RowReader::new(rows, tag);
                    let printer = Printer::try_new(reader.schema(), OutputFormat::Csv)?;
                    let columns = reader.schema().fields().len();
                    let mut all = vec![];
                    while let Some(batch) = reader.next(usize::MAX).await {
                        all.extend(printer.texts(&batch?)?.into_iter().map(|row| row.into_iter().map(shown).collect()));
                    }
                    DBOutput::Rows { types: vec![DefaultColumnType::Text; columns], rows: all }
                }
                _ => return Err(Error::new(Code::FeatureNotSupported, "not a statement for these files")),
            };
        }
        Ok(output)
    }
}

#[async_trait::async_trait]
impl AsyncDB for InProcess {
    type Error = Shown;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Shown> {
        let output = self.rows(sql).await;
        if output.is_err() {
            self.0.fail_transaction();
        }
        Ok(output?)
    }

    async fn shutdown(&mut self) {}
}

struct OverTheWire(Client);

#[async_trait::async_trait]
impl AsyncDB for OverTheWire {
    type Error = Shown;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Shown> {
        let mut columns = None;
        let mut rows = vec![];
        for message in self.0.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(description) => columns = Some(description.len()),
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|column| shown(row.get(column).map(str::to_string))).collect());
                }
                _ => {}
            }
        }
        Ok(match columns {
            Some(columns) => DBOutput::Rows { types: vec![DefaultColumnType::Text; columns], rows },
            None => DBOutput::StatementComplete(0),
        })
    }

    async fn shutdown(&mut self) {}
}

fn shown(value: Option<String>) -> String {
    match value {
        None => "NULL".to_string(),
        Some(text) if text.is_empty() => "(empty)".to_string(),
        Some(text) => text,
    }
}
