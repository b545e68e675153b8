//! Sorts the parser's statements into [`StatementKind`], and says no to what only PostgreSQL has.

use datafusion::sql::sqlparser::ast::{
    self, CloseCursor, CopySource, CopyTarget, DiscardObject, Expr, ObjectName, ObjectType, Set, Statement as Parsed,
    TableObject, Value,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::catalog::system::SYSTEM_SCHEMA;
use crate::error::{Code, Error, Result};
use crate::sql::dialect::LookasideDialect;
use crate::sql::explain::{ExplainOptions, explain_options};
use crate::sql::{Statement, StatementKind, TransactionModes};
use crate::sql_name::fold_ident;

/// Sorts one parsed statement.
pub fn classify(parsed: Parsed) -> Result<StatementKind> {
    Ok(match parsed {
        Parsed::Query(query) => StatementKind::Query(query),
        Parsed::Explain { statement, analyze, verbose, format: None, options, .. } => {
            explain(*statement, explain_options(analyze, verbose, options.unwrap_or_default())?)?
        }
        Parsed::Copy { source, to, target, options, legacy_options, .. } => {
            copy(source, to, target, options, legacy_options)?
        }
        Parsed::Insert(insert) => insert_into(insert)?,
        Parsed::CreateView(view) => create_view(view)?,
        Parsed::Drop { object_type: ObjectType::View, if_exists, names, .. } => {
            StatementKind::DropView { names, if_exists }
        }
        Parsed::Declare { stmts } => declare(stmts)?,
        Parsed::Close { cursor } => StatementKind::Close {
            cursor: match cursor {
                CloseCursor::All => None,
                CloseCursor::Specific { name } => Some(fold_ident(&name)),
            },
        },
        Parsed::StartTransaction { modes, .. } => StatementKind::Begin { modes: transaction_modes(&modes) },
        Parsed::Commit { chain: false, .. } => StatementKind::Commit,
        Parsed::Rollback { savepoint: None, chain: false } => StatementKind::Rollback,
        Parsed::Commit { .. } | Parsed::Rollback { savepoint: None, .. } => {
            return Err(Error::unsupported("AND CHAIN is not supported").with_hint("Write BEGIN behind it."));
        }
        Parsed::Savepoint { name } => StatementKind::Savepoint { name: fold_ident(&name) },
        Parsed::ReleaseSavepoint { name } => StatementKind::Release { name: fold_ident(&name) },
        Parsed::Rollback { savepoint: Some(name), .. } => StatementKind::RollbackTo { name: fold_ident(&name) },
        Parsed::Prepare { name, data_types, statement } => StatementKind::Prepare {
            name: fold_ident(&name),
            types: data_types,
            statement: Box::new(Statement { text: statement.to_string(), kind: classify(*statement)? }),
        },
        Parsed::Execute { name: Some(name), parameters, .. } => {
            StatementKind::Execute { name: fold_name(&name)?, parameters }
        }
        // Pools send it when a connection comes back to them.
        Parsed::UNLISTEN { .. } => StatementKind::Unlisten,
        Parsed::Deallocate { name, .. } => StatementKind::Deallocate {
            name: (name.quote_style.is_some() || !name.value.eq_ignore_ascii_case("all")).then(|| fold_ident(&name)),
        },
        Parsed::Set(set) => set_statement(set)?,
        Parsed::Reset(reset) => StatementKind::Reset {
            name: match reset.reset {
                ast::Reset::ALL => None,
                ast::Reset::ConfigurationParameter(name) => Some(fold_name(&name)?),
            },
        },
        Parsed::ShowVariable { variable } => {
            let words: Vec<_> = variable.iter().map(fold_ident).collect();
            match words.join(" ").as_str() {
                "transaction isolation level" => StatementKind::Show { name: "transaction_isolation".into() },
                "time zone" => StatementKind::Show { name: "timezone".into() },
                words if words.contains(' ') => {
                    return Err(Error::new(Code::SyntaxError, format!("unknown SHOW {words}")));
                }
                name @ ("streams" | "lookups" | "queries") => show_relation(name)?,
                name => StatementKind::Show { name: name.to_string() },
            }
        }
        Parsed::Discard { object_type } => StatementKind::Discard {
            what: match object_type {
                DiscardObject::ALL => "ALL",
                DiscardObject::PLANS => "PLANS",
                DiscardObject::SEQUENCES => "SEQUENCES",
                DiscardObject::TEMP => "TEMP",
            },
        },
        other => return Err(refuse(&other)),
    })
}

/// What SHOW shows of the system view with this name: all of it.
fn show_relation(view: &str) -> Result<StatementKind> {
    let text = format!("SELECT * FROM {SYSTEM_SCHEMA}.{view}");
    let parsed = Parser::parse_sql(&LookasideDialect::default(), &text);
    match parsed.map(|mut statements| statements.pop()) {
        Ok(Some(Parsed::Query(query))) => Ok(StatementKind::ShowRelation { query }),
        other => Err(Error::internal(format!("SHOW {view} was read as {other:?}"))),
    }
}

fn refuse(statement: &Parsed) -> Error {
    let text = statement.to_string();
    let word = text.split_whitespace().next().unwrap_or_default().to_uppercase();
    Error::unsupported(format!("{word} is not supported here"))
        .with_hint("Lookaside answers queries over the streams and lookup tables of its catalog; what they hold is declared in catalog files.")
}

fn explain(statement: Parsed, options: ExplainOptions) -> Result<StatementKind> {
    match statement {
        Parsed::Query(query) => Ok(StatementKind::Explain { query, options }),
        _ => Err(Error::unsupported("EXPLAIN is for queries")),
    }
}

fn copy(
    source: CopySource,
    to: bool,
    target: CopyTarget,
    options: Vec<ast::CopyOption>,
    legacy: Vec<ast::CopyLegacyOption>,
) -> Result<StatementKind> {
    let options = [options, legacy_copy_options(legacy)?].concat();
    match (source, to, target) {
        (CopySource::Query(query), true, CopyTarget::Stdout) => Ok(StatementKind::CopyOut { query, options }),
        (CopySource::Table { table_name, columns }, false, CopyTarget::Stdin) => {
            Ok(StatementKind::CopyIn { stream: table_name, columns, options })
        }
        (CopySource::Table { table_name, .. }, true, _) => Err(Error::unsupported("COPY of a table is not supported")
            .with_hint(format!("Write COPY (SELECT * FROM {table_name}) TO STDOUT."))),
        _ => Err(Error::unsupported("COPY moves rows to STDOUT and from STDIN only")
            .with_hint("psql's \\copy reads and writes files on your side.")),
    }
}

/// The forms before PostgreSQL 9.0: `COPY … TO STDOUT CSV HEADER`.
fn legacy_copy_options(legacy: Vec<ast::CopyLegacyOption>) -> Result<Vec<ast::CopyOption>> {
    let mut options = vec![];
    for option in legacy {
        match option {
            ast::CopyLegacyOption::Binary => options.push(ast::CopyOption::Format(ast::Ident::new("binary"))),
            ast::CopyLegacyOption::Delimiter(character) => options.push(ast::CopyOption::Delimiter(character)),
            ast::CopyLegacyOption::Null(text) => options.push(ast::CopyOption::Null(text)),
            ast::CopyLegacyOption::Csv(csv) => {
                options.push(ast::CopyOption::Format(ast::Ident::new("csv")));
                for option in csv {
                    options.push(match option {
                        ast::CopyLegacyCsvOption::Header => ast::CopyOption::Header(true),
                        ast::CopyLegacyCsvOption::Quote(character) => ast::CopyOption::Quote(character),
                        ast::CopyLegacyCsvOption::Escape(character) => ast::CopyOption::Escape(character),
                        ast::CopyLegacyCsvOption::ForceQuote(columns) => ast::CopyOption::ForceQuote(columns),
                        ast::CopyLegacyCsvOption::ForceNotNull(columns) => ast::CopyOption::ForceNotNull(columns),
                    });
                }
            }
            other => return Err(Error::new(Code::SyntaxError, format!("COPY does not know the option {other}"))),
        }
    }
    Ok(options)
}

fn insert_into(insert: ast::Insert) -> Result<StatementKind> {
    let TableObject::TableName(stream) = insert.table else {
        return Err(Error::new(Code::SyntaxError, "INSERT needs the name of a stream"));
    };
    if insert.returning.is_some() {
        return Err(Error::unsupported("INSERT … RETURNING is not supported")
            .with_hint("A stream keeps rows as they were given."));
    }
    if insert.on.is_some() || insert.overwrite || insert.replace_into {
        return Err(Error::unsupported("INSERT … ON CONFLICT is not supported")
            .with_hint("A stream has no keys that could conflict."));
    }
    let source = insert.source.ok_or_else(|| {
        Error::unsupported("INSERT … DEFAULT VALUES is not supported")
            .with_hint("Streams have no defaults: write VALUES.")
    })?;
    let columns = insert.columns.iter().map(single_ident).collect::<Result<_>>()?;
    Ok(StatementKind::Insert { stream, columns, source })
}

fn create_view(view: ast::CreateView) -> Result<StatementKind> {
    if view.materialized || view.temporary || view.if_not_exists {
        return Err(Error::unsupported("only plain views are supported")
            .with_hint("Write CREATE OR REPLACE VIEW name AS SELECT …."));
    }
    Ok(StatementKind::CreateView {
        name: view.name,
        or_replace: view.or_replace,
        columns: view.columns.into_iter().map(|column| column.name).collect(),
        query: view.query,
    })
}

fn declare(statements: Vec<ast::Declare>) -> Result<StatementKind> {
    let Some(declare) = statements.into_iter().next() else {
        return Err(Error::new(Code::SyntaxError, "DECLARE needs a cursor"));
    };
    if declare.hold == Some(true) {
        return Err(Error::unsupported("cursors WITH HOLD are not supported")
            .with_hint("A cursor over a stream lives as long as its transaction."));
    }
    if declare.scroll == Some(true) {
        return Err(Error::unsupported("SCROLL cursors are not supported").with_hint("A stream is read forward only."));
    }
    match (declare.names.into_iter().next(), declare.for_query) {
        (Some(name), Some(query)) => {
            Ok(StatementKind::Declare { cursor: fold_ident(&name), binary: declare.binary == Some(true), query })
        }
        _ => Err(Error::new(Code::SyntaxError, "DECLARE needs CURSOR FOR and a query")),
    }
}

fn transaction_modes(modes: &[ast::TransactionMode]) -> TransactionModes {
    let setting = |mode: &ast::TransactionMode| match mode {
        ast::TransactionMode::AccessMode(ast::TransactionAccessMode::ReadOnly) => ("read_only", "on".to_string()),
        ast::TransactionMode::AccessMode(ast::TransactionAccessMode::ReadWrite) => ("read_only", "off".to_string()),
        ast::TransactionMode::IsolationLevel(level) => ("isolation", level.to_string().to_lowercase()),
    };
    modes.iter().map(setting).collect()
}

fn set_statement(set: Set) -> Result<StatementKind> {
    match set {
        Set::SingleAssignment { scope, variable, values, .. } => {
            let local = matches!(scope, Some(ast::ContextModifier::Local));
            Ok(StatementKind::Set { name: fold_name(&variable)?, value: setting(&values), local })
        }
        Set::SetTimeZone { local, value } => {
            Ok(StatementKind::Set { name: "timezone".into(), value: setting(std::slice::from_ref(&value)), local })
        }
        Set::SetNames { charset_name, .. } => {
            Ok(StatementKind::Set { name: "client_encoding".into(), value: Some(charset_name.value), local: false })
        }
        Set::SetNamesDefault {} => Ok(StatementKind::Set { name: "client_encoding".into(), value: None, local: false }),
        Set::SetTransaction { snapshot: Some(_), .. } => {
            Err(Error::unsupported("SET TRANSACTION SNAPSHOT is not supported"))
        }
        Set::SetTransaction { modes, session, .. } => {
            Ok(StatementKind::SetTransaction { modes: transaction_modes(&modes), session })
        }
        other => {
            Err(Error::unsupported(format!("SET {} is not supported", other.to_string().trim_start_matches("SET "))))
        }
    }
}

fn setting(values: &[Expr]) -> Option<String> {
    let texts: Vec<String> = values
        .iter()
        .map(|value| match value {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => text.clone(),
                other => other.to_string(),
            },
            Expr::Identifier(ident) => ident.value.clone(),
            other => other.to_string(),
        })
        .collect();
    match texts.as_slice() {
        [single] if single.eq_ignore_ascii_case("default") => None,
        texts => Some(texts.join(", ")),
    }
}

fn fold_name(name: &ObjectName) -> Result<String> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(fold_ident)).collect();
    if parts.is_empty() {
        return Err(Error::new(Code::SyntaxError, format!("\"{name}\" is not a name")));
    }
    Ok(parts.join("."))
}

fn single_ident(name: &ObjectName) -> Result<ast::Ident> {
    match name.0.as_slice() {
        [part] => {
            part.as_ident().cloned().ok_or_else(|| Error::new(Code::SyntaxError, format!("\"{name}\" is not a column")))
        }
        _ => Err(Error::new(Code::SyntaxError, format!("\"{name}\" is not a column of a stream"))),
    }
}
