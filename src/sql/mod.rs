//! From text to [`Statement`]s: what a client may say, sorted by what the session does with it.
//!
//! `lookup_join.rs` is the clause that the parser lacks, `options.rs` the typed options behind `WITH`, `parameter.rs` what tells parameters' types,
//! `cursor.rs` FETCH and MOVE, `dialect.rs` PostgreSQL's dialect with Flink's time travel, `view.rs` the queries behind views' names, `rewrite.rs`
//! and `function.rs` what is said differently to DataFusion; `catalog_query.rs`, `catalog_function.rs` and `catalog_type.rs` the same of what only
//! questions to the system's catalogs say.

pub mod cast;
mod catalog_function;
pub mod catalog_query;
mod catalog_type;
mod classify;
pub mod cursor;
pub mod dialect;
pub mod explain;
pub mod function;
pub mod lookup_join;
pub mod options;
pub mod parameter;
pub mod relation;
pub mod rewrite;
pub mod star;
pub mod system_time;
pub mod view;

use datafusion::sql::sqlparser::ast::{self, Expr, Ident, ObjectName, Query};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError};

use crate::error::{Code, Error, Result};
use dialect::LookasideDialect;

/// How deep expressions and queries may nest.
const RECURSION_LIMIT: usize = 80;

/// One statement, with the text it was read from.
#[derive(Clone, Debug)]
pub struct Statement {
    pub kind: StatementKind,
    /// As the client wrote it, without the semicolon.
    pub text: String,
}

/// What a client may ask for. Queries hold marks of lookup joins (see [`lookup_join`]).
#[derive(Clone, Debug)]
pub enum StatementKind {
    /// Nothing but blanks and comments.
    Empty,
    /// SELECT, WITH, VALUES.
    Query(Box<Query>),
    /// SHOW STREAMS and its likes: a query of a system view.
    ShowRelation {
        query: Box<Query>,
    },
    /// EXPLAIN of a query.
    Explain {
        query: Box<Query>,
        options: explain::ExplainOptions,
    },
    /// COPY (query) TO STDOUT.
    CopyOut {
        query: Box<Query>,
        options: Vec<ast::CopyOption>,
    },
    /// COPY stream FROM STDIN.
    CopyIn {
        stream: ObjectName,
        columns: Vec<Ident>,
        options: Vec<ast::CopyOption>,
    },
    /// INSERT INTO stream.
    Insert {
        stream: ObjectName,
        columns: Vec<Ident>,
        source: Box<Query>,
    },
    CreateView {
        name: ObjectName,
        or_replace: bool,
        columns: Vec<Ident>,
        query: Box<Query>,
    },
    DropView {
        names: Vec<ObjectName>,
        if_exists: bool,
    },
    Declare {
        cursor: String,
        binary: bool,
        query: Box<Query>,
    },
    /// FETCH and MOVE.
    Fetch(cursor::Fetch),
    /// CLOSE of one cursor, or of all.
    Close {
        cursor: Option<String>,
    },
    Begin {
        modes: TransactionModes,
    },
    Commit,
    Rollback,
    Savepoint {
        name: String,
    },
    /// RELEASE SAVEPOINT.
    Release {
        name: String,
    },
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo {
        name: String,
    },
    /// SET TRANSACTION, or with `session` SET SESSION CHARACTERISTICS.
    SetTransaction {
        modes: TransactionModes,
        session: bool,
    },
    Prepare {
        name: String,
        types: Vec<ast::DataType>,
        statement: Box<Statement>,
    },
    Execute {
        name: String,
        parameters: Vec<Expr>,
    },
    /// DEALLOCATE of one prepared statement, or of all.
    Deallocate {
        name: Option<String>,
    },
    /// UNLISTEN: nobody can listen, so there is nothing to end.
    Unlisten,
    /// SET; `None` is DEFAULT.
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    /// RESET of one setting, or of all.
    Reset {
        name: Option<String>,
    },
    /// SHOW of one setting.
    Show {
        name: String,
    },
    /// DISCARD of what the word says: ALL forgets settings and prepared statements as well.
    Discard {
        what: &'static str,
    },
}

/// What BEGIN and SET TRANSACTION say of a transaction: settings without what stands before their names.
pub type TransactionModes = Vec<(&'static str, String)>;

/// Reads all statements of a text; one that cannot be read fails them all, as in PostgreSQL.
///
/// # Errors
/// 42601 with the position in `text`; 0A000 for statements that only PostgreSQL has.
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    let tokens = Tokenizer::new(&LookasideDialect::default(), text)
        .tokenize_with_location()
        .map_err(|error| tokenizer_error(text, &error))?;
    let mut statements = vec![];
    for tokens in tokens.split(|token| token.token == Token::SemiColon) {
        let is_meaningful = |token: &&TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::EOF);
        let Some(first) = tokens.iter().find(is_meaningful) else { continue };
        let Some(last) = tokens.iter().rfind(is_meaningful) else { continue };
        let start = byte_offset(text, first.span.start.line, first.span.start.column);
        let end = byte_offset(text, last.span.end.line, last.span.end.column);
        let statement_text = text.get(start..end).unwrap_or(text).trim().to_string();
        statements.push(parse_one(text, statement_text, tokens.to_vec())?);
    }
    Ok(statements)
}

fn parse_one(whole: &str, text: String, tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let (tokens, lookup_tables) = lookup_join::take_lookup_words(tokens);
    if let Some(kind) = cursor::parse_fetch(&tokens)? {
        return Ok(Statement { kind, text });
    }
    let dialect = LookasideDialect::default();
    let mut parser = Parser::new(&dialect).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
    let mut statement = parser.parse_statement().map_err(|error| parser_error(whole, &error))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(syntax_error(whole, &next));
    }
    lookup_join::mark_lookup_tables(&mut statement, &lookup_tables)?;
    Ok(Statement { kind: classify::classify(statement)?, text })
}

fn syntax_error(text: &str, token: &TokenWithSpan) -> Error {
    Error::new(Code::SyntaxError, format!("syntax error at or near \"{}\"", token.token))
        .with_position(character_position(text, token.span.start.line, token.span.start.column))
}

fn tokenizer_error(text: &str, error: &TokenizerError) -> Error {
    Error::new(Code::SyntaxError, format!("syntax error: {}", lower_first(&error.message)))
        .with_position(character_position(text, error.location.line, error.location.column))
}

/// The parser tells positions only in words: `… at Line: 1, Column: 8`.
fn parser_error(text: &str, error: &ParserError) -> Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return Error::new(Code::ProgramLimitExceeded, "the statement is nested too deeply");
        }
    };
    let Some((words, place)) = message.rsplit_once(" at Line: ") else {
        return Error::new(Code::SyntaxError, format!("syntax error: {}", lower_first(message)));
    };
    let mut numbers = place.split(", Column: ").filter_map(|number| number.trim().parse::<u64>().ok());
    let words = match words.split_once(", found: ") {
        Some((expected, found)) => {
            format!("syntax error at or near \"{found}\" (expected {})", expected.trim_start_matches("Expected: "))
        }
        None => format!("syntax error: {}", lower_first(words)),
    };
    let error = Error::new(Code::SyntaxError, words);
    match (numbers.next(), numbers.next()) {
        (Some(line), Some(column)) if line > 0 => error.with_position(character_position(text, line, column)),
        _ => error,
    }
}

/// The place of a line and column (both from 1) in a text, in characters from 1.
pub fn character_position(text: &str, line: u64, column: u64) -> usize {
    let before: usize =
        text.split_inclusive('\n').take(line.saturating_sub(1) as usize).map(|l| l.chars().count()).sum();
    before + column.max(1) as usize
}

fn byte_offset(text: &str, line: u64, column: u64) -> usize {
    let position = character_position(text, line, column);
    text.char_indices().nth(position - 1).map_or(text.len(), |(offset, _)| offset)
}

fn lower_first(text: &str) -> String {
    let mut characters = text.trim_start_matches("sql parser error: ").chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}
