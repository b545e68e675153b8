//! The `LOOKUP JOIN` clause: the parser has no place for it, so the word is taken out of the tokens and
//! the table behind it is found again in the syntax tree, by where it stands in the text.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, ObjectNamePart, Statement, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use crate::error::{Error, Result};

/// The name of the hint that marks a table as the right side of a lookup join. No user can write it: it is not
/// what an identifier without quotes may look like, and hints are only read as names without quotes.
pub const MARK: &str = "lookup join";

/// Where the tables named behind `LOOKUP JOIN` begin.
pub type LookupTables = BTreeSet<(u64, u64)>;

/// Takes the word LOOKUP out of each `LOOKUP JOIN`, and tells where the tables behind stand.
pub fn take_lookup_words(tokens: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, LookupTables) {
    let meaningful: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let mut dropped = BTreeSet::new();
    let mut tables = LookupTables::new();
    for (place, index) in meaningful.iter().enumerate() {
        let next = |distance: usize| meaningful.get(place + distance).map(|index| &tokens[*index]);
        let follows_as = place > 0 && is_keyword(&tokens[meaningful[place - 1]].token, Keyword::AS);
        let is_join = next(1).is_some_and(|token| is_keyword(&token.token, Keyword::JOIN));
        if !is_word(&tokens[*index].token, "lookup") || follows_as || !is_join {
            continue;
        }
        if let Some(table) = next(2) {
            dropped.insert(*index);
            tables.insert(key(table.span.start));
        }
    }
    let kept = tokens.into_iter().enumerate().filter(|(index, _)| !dropped.contains(index));
    (kept.map(|(_, token)| token).collect(), tables)
}

/// Marks the tables of lookup joins in the syntax tree.
///
/// # Errors
/// 42601 where what stands behind `LOOKUP JOIN` is not the name of a table.
pub fn mark_lookup_tables(statement: &mut Statement, tables: &LookupTables) -> Result<()> {
    let mut marker = Marker { tables, found: LookupTables::new() };
    let _ = statement.visit(&mut marker);
    match tables.difference(&marker.found).next() {
        None => Ok(()),
        Some(_) => Err(Error::new(
            crate::error::Code::SyntaxError,
            "LOOKUP JOIN must be followed by the name of a lookup table",
        )
        .with_hint("The stream, a subquery or a view stands on the left: FROM stream AS s LOOKUP JOIN table AS t ON s.key = t.key.")),
    }
}

/// Whether this table is the right side of a lookup join.
pub fn is_marked(hints: &[Expr]) -> bool {
    hints.iter().any(is_mark)
}

/// Whether this hint is the mark, and not an option of the user's.
pub fn is_mark(hint: &Expr) -> bool {
    matches!(hint, Expr::Identifier(ident) if ident.value == MARK && ident.quote_style.is_none())
}

struct Marker<'a> {
    tables: &'a LookupTables,
    found: LookupTables,
}

impl VisitorMut for Marker<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, with_hints, version, args: None, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(start) = name.0.first().and_then(start_of) else { return ControlFlow::Continue(()) };
        if self.tables.contains(&key(start)) {
            self.found.insert(key(start));
            with_hints.push(Expr::Identifier(Ident::new(MARK)));
        } else if version.is_some() {
            with_hints.push(Expr::Identifier(Ident::new(MARK)));
        }
        ControlFlow::Continue(())
    }
}

/// A hint `name = value` as an option: its name in lower case and its value as text.
///
/// # Errors
/// 42601 for anything else.
pub fn option_of_hint(hint: &Expr) -> Result<(String, String)> {
    if let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = hint
        && let Expr::Identifier(name) = left.as_ref()
        && let Some(value) = literal(right)
    {
        return Ok((name.value.to_ascii_lowercase(), value));
    }
    Err(Error::new(crate::error::Code::SyntaxError, format!("WITH takes options, not \"{hint}\""))
        .with_hint("Write WITH (option = 'value', …)."))
}

fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
            Value::Number(number, _) => Some(number.clone()),
            Value::Boolean(value) => Some(value.to_string()),
            _ => None,
        },
        Expr::Identifier(word) if word.quote_style.is_none() => Some(word.value.to_ascii_lowercase()),
        _ => None,
    }
}

fn start_of(part: &ObjectNamePart) -> Option<Location> {
    match part {
        ObjectNamePart::Identifier(ident) if ident.span != Span::empty() => Some(ident.span.start),
        _ => None,
    }
}

fn key(location: Location) -> (u64, u64) {
    (location.line, location.column)
}

fn is_keyword(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword && word.quote_style.is_none())
}

fn is_word(token: &Token, text: &str) -> bool {
    matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(text) && word.quote_style.is_none())
}
