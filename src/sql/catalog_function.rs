//! Functions and operators of questions to the system's catalogs: those that DataFusion calls differently, or has
//! only as functions of arrays.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    Query, TableAlias, TableFactor,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::pg_catalog::{INFORMATION_SCHEMA, PG_CATALOG};
use crate::sql::catalog_query::ARRAY_FUNCTION;
use crate::sql::dialect::LookasideDialect;
use crate::sql::rewrite::call;
use crate::sql_name::{fold_ident, relation_name};

/// PostgreSQL counts the entries of these columns from 0, and only of them.
const VECTORS: [&str; 6] = ["indkey", "indclass", "indcollation", "indoption", "proargtypes", "partattrs"];

/// Functions of the system are known without their schema.
pub(super) fn strip_schema(name: &mut ObjectName) {
    if let [schema, _] = name.0.as_slice()
        && let Some(schema) = schema.as_ident().map(fold_ident)
        && (schema == PG_CATALOG || schema == INFORMATION_SCHEMA)
    {
        name.0.remove(0);
    }
}

/// What a function is called, or is made of, here; `None` if it stays as it is, its schema taken off.
pub(super) fn rewrite_function(function: &mut Function) -> Option<Expr> {
    strip_schema(&mut function.name);
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_mut_slice() else { return None };
    match fold_ident(name).as_str() {
        "array_upper" => *name = Ident::new("array_length"),
        "generate_subscripts" => return subscripts(function),
        "_pg_expandarray" => {
            *name = Ident::new("pg_expandarray");
            return Some(call("unnest", vec![Expr::Function(function.clone())]));
        }
        "array" => return array_of_subquery(function),
        _ => {}
    }
    // `current_user` and its likes are called without parentheses.
    matches!(function.args, FunctionArguments::None).then(|| call(&function.name.to_string().to_lowercase(), vec![]))
}

/// `ARRAY(SELECT …)` marks its subquery.
fn array_of_subquery(function: &Function) -> Option<Expr> {
    match &function.args {
        FunctionArguments::Subquery(query) => Some(call(ARRAY_FUNCTION, vec![Expr::Subquery(query.clone())])),
        FunctionArguments::None | FunctionArguments::List(_) => None,
    }
}

/// The arguments that are plain expressions.
pub(super) fn arguments(function: &Function) -> Vec<Expr> {
    let FunctionArguments::List(list) = &function.args else { return vec![] };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().filter_map(plain).collect()
}

/// `generate_subscripts(array, 1)`: a row for each entry.
fn subscripts(function: &Function) -> Option<Expr> {
    let array = arguments(function).into_iter().next()?;
    let (first, less) = if is_vector(&array) { (0, 1) } else { (1, 0) };
    expression(&format!("unnest(generate_series({first}, CAST(array_length({array}) AS bigint) - {less}))"))
}

/// Whether an expression is a column whose entries are counted from 0.
pub(super) fn is_vector(expr: &Expr) -> bool {
    let column = match expr {
        Expr::Identifier(ident) => fold_ident(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold_ident).unwrap_or_default(),
        _ => return false,
    };
    VECTORS.contains(&column.as_str())
}

pub(super) fn is_vector_name(ident: &Ident) -> bool {
    VECTORS.contains(&fold_ident(ident).as_str())
}

fn expression(text: &str) -> Option<Expr> {
    let dialect = LookasideDialect::default();
    Parser::new(&dialect).try_with_sql(text).and_then(|mut parser| parser.parse_expr()).ok()
}

/// `FROM generate_series(…) AS s` over what is no constant, `FROM unnest(…) AS t(x)` and `FROM now() AS t` as a subquery
/// of one column, and the functions of the system that give whole rows as one of theirs.
pub(super) fn rewrite_table_function(factor: &TableFactor) -> Option<TableFactor> {
    let (function, series, alias) = match factor {
        TableFactor::Table { name, alias, args: Some(arguments), .. } if name.0.len() == 1 => {
            let is_plain = |argument: &FunctionArg| matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(_)));
            if !arguments.args.iter().all(is_plain) {
                return None;
            }
            let arguments: Vec<String> = arguments.args.iter().map(ToString::to_string).collect();
            let arguments = arguments.join(", ");
            let function = relation_name(name)?;
            let series = match function.as_str() {
                "generate_series" | "range" if is_constant(&arguments) => return None,
                "generate_series" => format!("unnest(generate_series({arguments}))"),
                "unnest" => format!("unnest({arguments})"),
                "pg_get_keywords" => return derived(KEYWORDS.to_string(), &function, alias),
                "pg_options_to_table" => return derived(options_query(&arguments), &function, alias),
                _ => format!("{name}({arguments})"),
            };
            (function, series, alias)
        }
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality: false, .. } => {
            match array_exprs.as_slice() {
                [array] => ("unnest".to_string(), format!("unnest({array})"), alias),
                _ => return None,
            }
        }
        _ => return None,
    };
    let name = alias.as_ref().map_or_else(|| Ident::with_quote('"', &function), |alias| alias.name.clone());
    let column = alias.as_ref().and_then(|alias| alias.columns.first()).map_or(&name, |column| &column.name);
    derived(format!("SELECT {series} AS {column}"), &function, alias)
}

/// `pg_get_keywords()`.
const KEYWORDS: &str = "SELECT word, catcode, barelabel = 't' AS barelabel, catdesc, baredesc FROM (SELECT \
    unnest(pg_keywords('word')) AS word, unnest(pg_keywords('catcode')) AS catcode, \
    unnest(pg_keywords('barelabel')) AS barelabel, unnest(pg_keywords('catdesc')) AS catdesc, \
    unnest(pg_keywords('baredesc')) AS baredesc) AS keywords";

/// `pg_options_to_table(array)`: `{a=1,b=2}` by name and value.
fn options_query(array: &str) -> String {
    format!(
        "SELECT split_part(option, '=', 1) AS option_name, \
         CASE WHEN strpos(option, '=') > 0 THEN substr(option, strpos(option, '=') + 1) END AS option_value \
         FROM (SELECT unnest({array}) AS option) AS options"
    )
}

/// A subquery in the place of a function of this name.
fn derived(text: String, function: &str, alias: &Option<TableAlias>) -> Option<TableFactor> {
    let name = alias.as_ref().map_or_else(|| Ident::with_quote('"', function), |alias| alias.name.clone());
    let alias = TableAlias { explicit: true, name, columns: vec![], at: None };
    let subquery = Box::new(query(&text)?);
    Some(TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None })
}

/// Only digits, signs and commas.
fn is_constant(arguments: &str) -> bool {
    arguments.chars().all(|character| character.is_ascii_digit() || ", -".contains(character))
}

fn query(text: &str) -> Option<Query> {
    let dialect = LookasideDialect::default();
    let parsed = Parser::new(&dialect).try_with_sql(text).and_then(|mut parser| parser.parse_query());
    parsed.ok().map(|query| *query)
}

/// `OPERATOR(pg_catalog.~)`.
pub(super) fn rewrite_operator(operator: &mut BinaryOperator) {
    let BinaryOperator::PGCustomBinaryOperator(parts) = operator else { return };
    let Some(symbol) = parts.last() else { return };
    *operator = match symbol.as_str() {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "||" => BinaryOperator::StringConcat,
        _ => return,
    };
}
