//! PREPARE, EXECUTE, DEALLOCATE, and the prepared statements of the extended protocol: one list for both.

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::future::BoxFuture;

use super::{Executed, Prepared, Session};
use crate::error::{Code, Error, Result};
use crate::sql::{Statement, rewrite};

impl Session {
    /// The prepared statement with this name.
    ///
    /// # Errors
    /// 26000 when there is none.
    pub fn statement(&self, name: &str) -> Result<&Prepared> {
        self.statements.get(name).ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_string(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            Error::new(Code::UndefinedStatement, message)
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

    pub(super) async fn prepare_named(
        &mut self,
        name: &str,
        types: &[ast::DataType],
        statement: &Statement,
    ) -> Result<()> {
        let declared =
            types.iter().map(|data_type| rewrite::pg_type_of(data_type).map(Some)).collect::<Result<Vec<_>>>()?;
        let prepared = self.prepare(statement.clone(), &declared).await?;
        self.keep_statement(name, prepared)
    }

    pub(super) async fn execute_named(&mut self, name: &str, parameters: &[ast::Expr]) -> Result<Executed> {
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
            false => self.engine.evaluate(parameters, &prepared.parameters, &self.viewer()).await?,
        };
        self.execute_another(&prepared, values).await
    }

    /// A future whose type tells nothing of what it holds: one that may hold itself makes the compiler look again and again
    /// at all that is in it.
    fn execute_another<'a>(
        &'a mut self,
        prepared: &'a Prepared,
        values: Vec<ScalarValue>,
    ) -> BoxFuture<'a, Result<Executed>> {
        Box::pin(self.execute(prepared, values))
    }

    pub(super) fn deallocate(&mut self, name: Option<&str>) -> Result<Executed> {
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
}
