//! CREATE VIEW and DROP VIEW.

use datafusion::sql::sqlparser::ast::{self, Query};

use super::{Executed, Session};
use crate::catalog::{StoredView, View};
use crate::error::{Code, Error, Result};
use crate::sql_name::relation_name;

impl Session {
    pub(super) async fn create_view(
        &mut self,
        (name, columns): (&ast::ObjectName, &[ast::Ident]),
        query: &Query,
        or_replace: bool,
        text: &str,
    ) -> Result<Executed> {
        if !self.rights.admin {
            return Err(Error::new(Code::InsufficientPrivilege, "permission denied for schema public"));
        }
        let name = relation_name(name).ok_or_else(|| Error::new(Code::SyntaxError, "CREATE VIEW needs a name"))?;
        let mut query = query.clone();
        crate::sql::view::qualify_tables(&mut query);
        // What is wrong shows now; a store that is down is no fault of the view.
        match self.engine.plan(&query, &[], &self.viewer()).await {
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

    pub(super) fn drop_views(&self, names: &[ast::ObjectName], if_exists: bool) -> Result<Executed> {
        let mut executed = Executed::done("DROP VIEW");
        for name in names.iter().filter_map(relation_name) {
            let is_visible = self.rights.may_see(&name) && self.engine.catalog().view(&name).is_some();
            if is_visible && !self.rights.admin {
                return Err(Error::new(Code::InsufficientPrivilege, format!("must be owner of view {name}")));
            }
            if is_visible && self.engine.catalog().drop_view(&name) {
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
}
