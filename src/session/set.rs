//! SET, SHOW and DISCARD.

use super::explain::texts_rows;
use super::{Executed, Outcome, Session};
use crate::error::{Code, Error, Result};
use crate::sql::TransactionModes;

/// The columns of SHOW ALL.
pub const SHOW_ALL_COLUMNS: [&str; 3] = ["name", "setting", "description"];

impl Session {
    pub(super) fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Executed> {
        if local && !self.is_in_transaction() {
            // As in PostgreSQL, the value is checked and has no effect.
            self.settings.clone().set(name, value, true)?;
            return Ok(Executed::done("SET")
                .with_notice(Code::NoActiveTransaction, "SET LOCAL can only be used in transaction blocks"));
        }
        self.settings.set(name, value, local)?;
        Ok(Executed::done("SET"))
    }

    pub(super) fn set_transaction(&mut self, modes: &TransactionModes, session: bool) -> Result<Executed> {
        if session {
            for (name, value) in modes {
                self.settings.set(&format!("default_transaction_{name}"), Some(value), false)?;
            }
        } else if self.is_in_transaction() {
            self.set_modes(modes)?;
        } else {
            return Ok(Executed::done("SET")
                .with_notice(Code::NoActiveTransaction, "SET TRANSACTION can only be used in transaction blocks"));
        }
        Ok(Executed::done("SET"))
    }

    pub(super) fn show(&self, name: &str) -> Result<Executed> {
        let rows = match name {
            "all" => {
                let lines = self.settings.described().map(|(name, value, use_)| [name.into(), value, use_.into()]);
                texts_rows(SHOW_ALL_COLUMNS, lines)
            }
            name => {
                let (name, value) = self.settings.get(name)?;
                texts_rows([name], [[value]])
            }
        };
        Ok(Outcome::Rows { rows, tag: "SHOW" }.into())
    }

    pub(super) fn discard(&mut self, what: &str) -> Result<Executed> {
        if what == "ALL" {
            if self.is_in_transaction() {
                return Err(Error::new(Code::ActiveTransaction, "DISCARD ALL cannot run inside a transaction block"));
            }
            self.portals.clear();
            self.statements.clear();
            self.settings.reset_all();
        }
        Ok(Executed::done(format!("DISCARD {what}")))
    }
}
