//! What is said differently to DataFusion than the user has said it: casts, names of columns.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query,
    SelectItem, SetExpr, TrimWhereField, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;
use crate::sql::catalog_query::{ARRAY_FUNCTION, TYPE_ARRAY_OUTPUT};
use crate::sql::catalog_type::Registered;
use crate::sql::dialect::LookasideDialect;
use crate::sql::parameter::parameter_number;
use crate::sql_name::{fold_ident, relation_name};

/// The function that casts text to the types which DataFusion's own CAST does not know: `pg_cast(value, 'uuid')`.
pub const CAST_FUNCTION: &str = "pg_cast";

/// Stands between a column's name and what makes it unique inside a plan; no user can type it by accident.
const UNIQUE_MARK: char = '\u{1}';

/// Turns casts to types that DataFusion's CAST does not know into calls of [`CAST_FUNCTION`], and collects the
/// types that casts tell of parameters: `CAST($1 AS int)`.
///
/// # Errors
/// 42704 and 0A000 for types that do not exist here.
pub fn rewrite_casts(query: &mut Query) -> Result<Vec<(usize, PgType)>> {
    let mut rewriter = CastRewriter { parameters: vec![], error: None };
    let _ = query.visit(&mut rewriter);
    match rewriter.error {
        Some(error) => Err(error),
        None => Ok(rewriter.parameters),
    }
}

struct CastRewriter {
    parameters: Vec<(usize, PgType)>,
    error: Option<Error>,
}

impl VisitorMut for CastRewriter {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let (inner, data_type) = match expr {
            Expr::Cast { expr: inner, data_type, format: None, .. } => (inner.as_mut(), data_type.clone()),
            Expr::TypedString(typed) => {
                let value = Expr::Value(typed.value.clone());
                let data_type = typed.data_type.clone();
                let Ok(pg_type) = pg_type_of(&data_type) else { return ControlFlow::Continue(()) };
                if needs_function(&pg_type) || is_read_by_function(&pg_type) {
                    *expr = cast_call(value, &pg_type);
                }
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        let pg_type = match pg_type_of(&data_type) {
            Ok(pg_type) => pg_type,
            // varchar(10), char(3) and the like are DataFusion's to plan or to refuse.
            Err(_)
                if matches!(
                    data_type,
                    ast::DataType::Varchar(_) | ast::DataType::Char(_) | ast::DataType::CharacterVarying(_)
                ) =>
            {
                return ControlFlow::Continue(());
            }
            Err(error) => {
                self.error = Some(error);
                return ControlFlow::Break(());
            }
        };
        if let Some(number) = parameter_number(inner) {
            self.parameters.push((number, pg_type.clone()));
        }
        if needs_function(&pg_type) || (is_read_by_function(&pg_type) && is_text_constant(inner)) {
            let inner = std::mem::replace(inner, null());
            *expr = cast_call(inner, &pg_type);
        }
        ControlFlow::Continue(())
    }
}

/// PostgreSQL's type for a type as the parser has read it.
///
/// # Errors
/// 42704 and 0A000 for types that do not exist here.
pub fn pg_type_of(data_type: &ast::DataType) -> Result<PgType> {
    PgType::parse(&data_type.to_string())
}

/// The type of a parameter as the parser would have read it; what PostgreSQL tells apart and Arrow does not is text.
///
/// # Errors
/// Internal, when a type's own name cannot be read again.
pub fn parameter_type(pg_type: &PgType) -> Result<ast::DataType> {
    match pg_type {
        PgType::Uuid | PgType::Json | PgType::Jsonb | PgType::Name | PgType::Char => type_in_sql(&PgType::Text),
        other => type_in_sql(other),
    }
}

/// A type as the parser would have read it.
///
/// # Errors
/// Internal, when a type's own name cannot be read again.
pub fn type_in_sql(pg_type: &PgType) -> Result<ast::DataType> {
    let dialect = LookasideDialect::default();
    let parsed =
        Parser::new(&dialect).try_with_sql(&pg_type.to_string()).and_then(|mut parser| parser.parse_data_type());
    parsed.map_err(|error| Error::internal(format!("type {pg_type} cannot be read: {error}")))
}

/// `VALUES (CAST(argument AS type), …)`.
///
/// # Errors
/// 42601 when the arguments cannot stand in VALUES.
pub fn values_query(arguments: &[Expr], types: &[PgType]) -> Result<Query> {
    let texts = arguments.iter().zip(types).map(|(argument, pg_type)| format!("CAST({argument} AS {pg_type})"));
    let text = format!("VALUES ({})", texts.collect::<Vec<_>>().join(", "));
    let dialect = LookasideDialect::default();
    let parsed = Parser::new(&dialect).try_with_sql(&text).and_then(|mut parser| parser.parse_query());
    Ok(*parsed.map_err(|error| Error::new(Code::SyntaxError, format!("bad arguments of EXECUTE: {error}")))?)
}

fn needs_function(pg_type: &PgType) -> bool {
    match pg_type {
        PgType::Bytea
        | PgType::Uuid
        | PgType::Json
        | PgType::Jsonb
        | PgType::Interval
        | PgType::Name
        | PgType::Char
        | PgType::Oid
        | PgType::Array(_) => true,
        PgType::Bool
        | PgType::Int2
        | PgType::Int4
        | PgType::Int8
        | PgType::Float4
        | PgType::Float8
        | PgType::Numeric { .. }
        | PgType::Text
        | PgType::Date
        | PgType::Time
        | PgType::Timestamp
        | PgType::Timestamptz => false,
    }
}

/// Whether a constant's text is read by our function: as the session's `DateStyle` and `TimeZone` say, of which DataFusion's
/// CAST knows nothing, and floats that are out of range with an error.
fn is_read_by_function(pg_type: &PgType) -> bool {
    matches!(
        pg_type,
        PgType::Date | PgType::Time | PgType::Timestamp | PgType::Timestamptz | PgType::Float4 | PgType::Float8
    )
}

fn is_text_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => {
            matches!(value.value, Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_))
        }
        Expr::Nested(inner) => is_text_constant(inner),
        _ => false,
    }
}

fn null() -> Expr {
    Expr::Value(ValueWithSpan { value: Value::Null, span: Span::empty() })
}

/// `value` cast to a type by our function.
pub fn cast_call(value: Expr, pg_type: &PgType) -> Expr {
    let name =
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(pg_type.to_string()), span: Span::empty() });
    call(CAST_FUNCTION, vec![value, name])
}

/// A call of a function.
pub fn call(function: &str, arguments: Vec<Expr>) -> Expr {
    let arguments = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// Gives the columns of the outermost SELECT the names that PostgreSQL gives them, each made unique for the plan;
/// [`shown_name`] takes off again what makes them unique.
pub fn name_columns(query: &mut Query) {
    let mut body = query.body.as_mut();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(inner) => body = inner.body.as_mut(),
            SetExpr::SetOperation { left, .. } => body = left.as_mut(),
            _ => return,
        }
    };
    let mut seen: Vec<(String, Option<String>)> = vec![];
    for (position, item) in select.projection.iter_mut().enumerate() {
        let (name, expr) = match item {
            SelectItem::UnnamedExpr(expr) => (column_name(expr), expr.clone()),
            SelectItem::ExprWithAlias { expr, alias } => (fold_ident(alias), expr.clone()),
            _ => continue,
        };
        let is_plain = matches!(item, SelectItem::ExprWithAlias { .. })
            || matches!(&expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
        // Two of different relations may share a name; `o.id` and, behind USING, `id` are one column.
        let qualifier = match item {
            SelectItem::UnnamedExpr(expr) => qualifier(expr),
            _ => None,
        };
        let shares_name = |(other_name, other): &(String, Option<String>)| {
            *other_name == name && (*other == qualifier || other.is_none() || qualifier.is_none())
        };
        let is_first = !seen.iter().any(shares_name);
        seen.push((name.clone(), qualifier));
        if is_first && is_plain {
            continue;
        }
        let unique = if is_first { name } else { format!("{name}{UNIQUE_MARK}{position}") };
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', unique) };
    }
}

/// A column's name as users see it.
pub fn shown_name(name: &str) -> &str {
    name.split(UNIQUE_MARK).next().unwrap_or(name)
}

/// The relation that a column is said to be of.
fn qualifier(expr: &Expr) -> Option<String> {
    match expr {
        Expr::CompoundIdentifier(parts) => parts.iter().rev().nth(1).map(fold_ident),
        _ => None,
    }
}

/// The name that PostgreSQL gives to a column of this expression.
fn column_name(expr: &Expr) -> String {
    const NO_NAME: &str = "?column?";
    let or_type = |inner: &Expr, data_type: String| if names_itself(inner) { column_name(inner) } else { data_type };
    match expr {
        Expr::Identifier(ident) => fold_ident(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold_ident).unwrap_or_default(),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => column_name(inner),
        Expr::Cast { expr: inner, data_type, .. } => or_type(inner, internal_type_name(data_type)),
        Expr::TypedString(typed) => internal_type_name(&typed.data_type),
        Expr::Function(function) if function.name.to_string() == CAST_FUNCTION => cast_name(function, or_type),
        Expr::Function(function) => {
            let name = relation_name(&function.name).unwrap_or_else(|| NO_NAME.to_string());
            match (Registered::of_function(&name), first_argument(function)) {
                (Some(registered), Some(argument)) => or_type(argument, registered.type_name().to_string()),
                (_, Some(argument)) if name == TYPE_ARRAY_OUTPUT => or_type(argument, "text".into()),
                _ if name == ARRAY_FUNCTION => "array".into(),
                _ => name,
            }
        }
        Expr::Case { else_result: Some(last), .. } if names_itself(last) => column_name(last),
        Expr::Case { .. } => "case".into(),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::UnnamedExpr(expr)) => column_name(expr),
                Some(SelectItem::ExprWithAlias { alias, .. }) => fold_ident(alias),
                _ => NO_NAME.into(),
            },
            _ => NO_NAME.into(),
        },
        Expr::Exists { .. } => "exists".into(),
        Expr::Extract { .. } => "extract".into(),
        Expr::Array(_) => "array".into(),
        Expr::Substring { .. } => "substring".into(),
        Expr::Trim { trim_where, .. } => match trim_where {
            Some(TrimWhereField::Leading) => "ltrim".into(),
            Some(TrimWhereField::Trailing) => "rtrim".into(),
            Some(TrimWhereField::Both) | None => "btrim".into(),
        },
        // `names[1]` is called as the array is.
        Expr::CompoundFieldAccess { root, access_chain }
            if access_chain.iter().all(|access| matches!(access, AccessExpr::Subscript(_))) =>
        {
            column_name(root)
        }
        Expr::Position { .. } => "position".into(),
        Expr::Ceil { .. } => "ceil".into(),
        Expr::Floor { .. } => "floor".into(),
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => "bool".into(),
        _ => NO_NAME.into(),
    }
}

/// Whether an expression, its casts taken off, is a column or a call, whose names are stronger than those of what is around.
fn names_itself(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Subquery(_)
        | Expr::Exists { .. }
        | Expr::Array(_)
        | Expr::Extract { .. }
        | Expr::Substring { .. }
        | Expr::Trim { .. }
        | Expr::Position { .. }
        | Expr::Ceil { .. }
        | Expr::Floor { .. } => true,
        Expr::CompoundFieldAccess { root, .. } => names_itself(root),
        Expr::Case { else_result: Some(last), .. } => names_itself(last),
        Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::Collate { expr, .. } => names_itself(expr),
        Expr::Function(function) => match relation_name(&function.name) {
            Some(name)
                if name == CAST_FUNCTION || name == TYPE_ARRAY_OUTPUT || Registered::of_function(&name).is_some() =>
            {
                first_argument(function).is_some_and(names_itself)
            }
            _ => true,
        },
        _ => false,
    }
}

fn first_argument(function: &Function) -> Option<&Expr> {
    match &function.args {
        FunctionArguments::List(list) => match list.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => Some(expr),
            _ => None,
        },
        FunctionArguments::None | FunctionArguments::Subquery(_) => None,
    }
}

fn cast_name(function: &Function, or_type: impl Fn(&Expr, String) -> String) -> String {
    if let FunctionArguments::List(list) = &function.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(value)), FunctionArg::Unnamed(FunctionArgExpr::Expr(name))] =
            list.args.as_slice()
        && let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(name), .. }) = name
    {
        let name =
            PgType::parse(name.trim_end_matches("[]")).map_or_else(|_| name.clone(), |pg_type| internal_name(&pg_type));
        return or_type(value, name);
    }
    CAST_FUNCTION.to_string()
}

/// The name of a type in PostgreSQL's own tables, which is what it calls the column of a cast.
fn internal_type_name(data_type: &ast::DataType) -> String {
    match pg_type_of(data_type) {
        Ok(pg_type) => internal_name(&pg_type),
        Err(_) => data_type.to_string().split('(').next().unwrap_or_default().trim().to_lowercase(),
    }
}

fn internal_name(pg_type: &PgType) -> String {
    let internal = match pg_type {
        PgType::Bool => "bool",
        PgType::Int2 => "int2",
        PgType::Int4 => "int4",
        PgType::Int8 => "int8",
        PgType::Float4 => "float4",
        PgType::Float8 => "float8",
        PgType::Numeric { .. } => "numeric",
        PgType::Time => "time",
        PgType::Timestamp => "timestamp",
        PgType::Timestamptz => "timestamptz",
        PgType::Char => "char",
        other => return other.to_string(),
    };
    internal.to_string()
}
