//! What queries of the system's catalogs write as only PostgreSQL does: names without their schema, functions with it,
//! operators by name, collations, casts to `regclass` and the other types of catalogs, `ARRAY(SELECT …)`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, Expr, Ident, ObjectName, ObjectNamePart, Query, SelectItem,
    SetExpr, Subscript, TableAlias, TableFactor, TableFunctionArgs, Value, ValueWithSpan, Visit, VisitMut, Visitor,
    VisitorMut,
};

use crate::pg_catalog::{PG_CATALOG, catalog_column_type, is_catalog_relation, relation_oid};
use crate::pg_type::PgType;
use crate::sql::catalog_function::{
    arguments, is_vector, is_vector_name, rewrite_function, rewrite_operator, rewrite_table_function, strip_schema,
};
use crate::sql::catalog_type::{Registered, catalog_type};
use crate::sql::rewrite::{call, cast_call, type_in_sql};
use crate::sql_name::{fold_ident, relation_name};

/// Marks a subquery of which all rows are wanted, as one array.
pub const ARRAY_FUNCTION: &str = "pg_array";

/// The function from an array of numbers of types to their names.
pub const TYPE_ARRAY_OUTPUT: &str = "regtypearrayout";

/// Says a query's catalog names, functions, operators and casts as DataFusion knows them.
pub fn rewrite_catalog_names(query: &mut Query) {
    let mut finder = Finder::default();
    let _ = Visit::visit(query, &mut finder);
    let Finder { with_queries, about_catalogs } = finder;
    if about_catalogs {
        show_vectors(query);
    }
    show_registered(query);
    let mut rewriter = Rewriter { with_queries, about_catalogs, tables: BTreeMap::new() };
    let _ = query.visit(&mut rewriter);
    let _ = query.visit(&mut TableNumbers(rewriter.tables));
}

/// Finds the names of WITH queries, which hide catalog tables, and whether there are such tables.
#[derive(Default)]
struct Finder {
    with_queries: BTreeSet<String>,
    about_catalogs: bool,
}

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.with_queries
            .extend(query.with.iter().flat_map(|with| &with.cte_tables).map(|table| fold_ident(&table.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, .. } = factor {
            self.about_catalogs |= relation_name(name).is_some_and(|name| is_catalog_relation(&name));
        }
        ControlFlow::Continue(())
    }
}

/// A column of `regclass` or one of its likes is shown as a name.
fn show_registered(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = &mut *item else { continue };
        let Some(registered) = registered_cast(expr) else { continue };
        let shown = call(registered.output(), vec![inner_of_cast(expr)]);
        *expr = shown;
    }
}

/// A column of `int2vector` or `oidvector` is shown as its numbers with blanks between, which drivers take apart.
fn show_vectors(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    for item in &mut select.projection {
        let (expr, alias) = match &*item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), None),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Some(alias.clone())),
            _ => continue,
        };
        let column = match &expr {
            Expr::Identifier(ident) => ident.clone(),
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(column) => column.clone(),
                None => continue,
            },
            _ => continue,
        };
        if is_vector(&expr) {
            let blank = Expr::value(Value::SingleQuotedString(" ".into()));
            let alias = alias.unwrap_or(column);
            *item = SelectItem::ExprWithAlias { expr: call("array_to_string", vec![expr, blank]), alias };
        }
    }
}

fn registered_cast(expr: &Expr) -> Option<Registered> {
    match expr {
        Expr::Cast { data_type, .. } => Registered::of_type(data_type),
        Expr::Nested(inner) => registered_cast(inner),
        _ => None,
    }
}

fn inner_of_cast(expr: &Expr) -> Expr {
    match expr {
        Expr::Cast { expr, .. } => expr.as_ref().clone(),
        Expr::Nested(inner) => inner_of_cast(inner),
        other => other.clone(),
    }
}

struct Rewriter {
    with_queries: BTreeSet<String>,
    /// Whether a column's name tells its type.
    about_catalogs: bool,
    /// The catalog tables by the names under which the query knows them.
    tables: BTreeMap<String, u32>,
}

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => self.name_table(name, alias),
            // `pg_timezone_names()` is what the view of that name shows.
            TableFactor::Table { name, args, .. } if is_without_arguments(args.as_ref()) && is_view(name) => {
                *args = None
            }
            TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => strip_schema(name),
            _ => {}
        }
        if let Some(subquery) = rewrite_table_function(factor) {
            *factor = subquery;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Collate { expr: inner, .. } => *expr = inner.as_ref().clone(),
            Expr::BinaryOp { left, op, right } => {
                rewrite_operator(op);
                self.read_literal(left, right);
                self.read_literal(right, left);
            }
            Expr::Function(function) => {
                if let Some(rewritten) = rewrite_function(function) {
                    *expr = rewritten;
                }
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                escape_by_backslash(pattern, escape_char);
            }
            Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => self.read_array(left, right),
            Expr::Cast { .. } => rewrite_cast(expr),
            Expr::TypedString(typed) => typed.data_type = plain_type(&typed.data_type),
            Expr::CompoundFieldAccess { root, access_chain } => {
                count_from_one(root, access_chain);
                quote_fields(root, access_chain);
            }
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("current_schema") =>
            {
                *expr = call("current_schema", vec![]);
            }
            _ => {}
        }
        // What has become of the expression may be one of these again, as COLLATE around a cast.
        match expr {
            Expr::Collate { .. } => self.pre_visit_expr(expr),
            _ => ControlFlow::Continue(()),
        }
    }

    /// DataFusion forgets that the items of `array_agg(atttypid)` are of a type that only PostgreSQL has.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(function) = &*expr else { return ControlFlow::Continue(()) };
        if function.name.to_string().eq_ignore_ascii_case("array_agg")
            && let Some(column) = arguments(function).first()
            && let Some(PgType::Oid) = self.column_type(column)
        {
            *expr = cast_call(expr.clone(), &PgType::Array(Box::new(PgType::Oid)));
        }
        ControlFlow::Continue(())
    }
}

impl Rewriter {
    fn name_table(&mut self, name: &mut ObjectName, alias: &mut Option<TableAlias>) {
        let Some(table) = relation_name(name) else { return };
        match name.0.as_slice() {
            [_] if is_catalog_relation(&table) && !self.with_queries.contains(&table) => {
                name.0.insert(0, ObjectNamePart::Identifier(Ident::new(PG_CATALOG)));
                let alias_name = Ident::with_quote('"', table.clone());
                alias.get_or_insert(TableAlias { explicit: true, name: alias_name, columns: vec![], at: None });
            }
            [schema, _] if schema.as_ident().is_some_and(|schema| fold_ident(schema) == PG_CATALOG) => {}
            _ => return,
        }
        if let Some(oid) = relation_oid(&table) {
            let known_as = alias.as_ref().map_or(table, |alias| fold_ident(&alias.name));
            self.tables.insert(known_as, oid);
        }
    }
}

impl Rewriter {
    /// The type of the array that `column` is, or is to be found in, if the query is about catalogs.
    fn column_type(&self, column: &Expr) -> Option<PgType> {
        let name = match column {
            Expr::Identifier(ident) => fold_ident(ident),
            Expr::CompoundIdentifier(parts) => parts.last().map(fold_ident)?,
            _ => return None,
        };
        if self.about_catalogs { catalog_column_type(&name) } else { None }
    }

    /// A quoted constant beside an array or a number of a catalog is one itself: `polroles = '{0}'`.
    fn read_literal(&self, column: &Expr, literal: &mut Box<Expr>) {
        let is_literal =
            matches!(literal.as_ref(), Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
        let numeric =
            |pg_type: &PgType| matches!(pg_type, PgType::Array(_) | PgType::Int2 | PgType::Int4 | PgType::Oid);
        if is_literal && let Some(pg_type) = self.column_type(column).filter(numeric) {
            **literal = cast_call(literal.as_ref().clone(), &pg_type);
        }
    }

    /// `relkind = ANY ($1)` tells the parameter's type, and `relkind = ANY ('{r,v}')` the constant's.
    fn read_array(&self, column: &Expr, array: &mut Box<Expr>) {
        let is_untyped = |value: &Value| matches!(value, Value::Placeholder(_) | Value::SingleQuotedString(_));
        if matches!(array.as_ref(), Expr::Value(value) if is_untyped(&value.value))
            && let Some(pg_type) = self.column_type(column)
            && let Ok(data_type) = type_in_sql(&PgType::Array(Box::new(pg_type)))
        {
            **array = cast_expr(array.as_ref().clone(), data_type);
        }
    }
}

/// DataFusion's LIKE knows no other escape character.
fn escape_by_backslash(pattern: &mut Box<Expr>, escape: &mut Option<ValueWithSpan>) {
    let is_other = |value: &Value| matches!(value, Value::SingleQuotedString(text) if text != "\\");
    if let Some(character) = escape.take_if(|escape| is_other(&escape.value)) {
        **pattern = call("like_escape", vec![pattern.as_ref().clone(), Expr::Value(character)]);
    }
}

fn cast_expr(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn is_without_arguments(arguments: Option<&TableFunctionArgs>) -> bool {
    arguments.is_some_and(|arguments| arguments.args.is_empty())
}

fn is_view(name: &ObjectName) -> bool {
    relation_name(name).is_some_and(|name| is_catalog_relation(&name))
}

/// `c.tableoid`, which every table has and no list of columns shows, is the number of the table that `c` is.
struct TableNumbers(BTreeMap<String, u32>);

impl VisitorMut for TableNumbers {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, column] = parts.as_slice()
            && fold_ident(column) == "tableoid"
            && let Some(oid) = self.0.get(&fold_ident(table))
        {
            *expr = Expr::value(Value::Number(oid.to_string(), false));
        }
        ControlFlow::Continue(())
    }
}

fn rewrite_cast(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    if let Some(registered) = Registered::of_type(data_type) {
        let is_parameter = matches!(inner.as_ref(), Expr::Value(value) if matches!(value.value, Value::Placeholder(_)));
        let name = match is_parameter {
            true => cast_expr(inner.as_ref().clone(), DataType::Text),
            false => inner.as_ref().clone(),
        };
        *expr = call(registered.input(), vec![name]);
        return;
    }
    // An array of numbers of types stays one until it is shown.
    if is_type_array(data_type) {
        *expr = inner.as_ref().clone();
        return;
    }
    if data_type.to_string().to_ascii_lowercase().ends_with("text[]") && shows_types(inner) {
        *expr = call(TYPE_ARRAY_OUTPUT, vec![inner.as_ref().clone()]);
        return;
    }
    *data_type = plain_type(data_type);
    let is_text = matches!(crate::sql::rewrite::pg_type_of(data_type), Ok(PgType::Text));
    // The text of a number that stands for an object is the object's name.
    if is_text && let Some(registered) = registered_cast(inner) {
        *inner.as_mut() = call(registered.output(), vec![inner_of_cast(inner)]);
    }
}

fn is_type_array(data_type: &DataType) -> bool {
    data_type.to_string().to_ascii_lowercase().trim_start_matches("pg_catalog.") == "regtype[]"
}

/// Whether an array is one of types, by a cast in it.
fn shows_types(array: &Expr) -> bool {
    struct TypeCast;
    impl Visitor for TypeCast {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Cast { data_type, .. } if is_type_array(data_type) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    array.visit(&mut TypeCast).is_break()
}

/// The type without its schema, and for those that only catalogs have the nearest of ours.
fn plain_type(data_type: &DataType) -> DataType {
    let plain = catalog_type(&data_type.to_string());
    plain.and_then(|pg_type| type_in_sql(&pg_type).ok()).unwrap_or_else(|| data_type.clone())
}

/// `(pair).n`: a field of what is no relation is named in quotes by DataFusion.
fn quote_fields(root: &Expr, access_chain: &mut [AccessExpr]) {
    if !matches!(root, Expr::Nested(_) | Expr::Function(_)) {
        return;
    }
    for access in access_chain {
        if let AccessExpr::Dot(field) = access
            && let Expr::Identifier(ident) = &*field
        {
            *field = Expr::value(Value::SingleQuotedString(fold_ident(ident)));
        }
    }
}

/// `i.indkey[0]`: DataFusion counts from 1.
fn count_from_one(root: &Expr, access_chain: &mut [AccessExpr]) {
    // `i.indkey[0]` may be read as the entry of a field of `i`.
    let field = access_chain.iter().rev().find_map(|access| match access {
        AccessExpr::Dot(Expr::Identifier(ident)) => Some(ident),
        _ => None,
    });
    if !field.map_or_else(|| is_vector(root), is_vector_name) {
        return;
    }
    if let Some(AccessExpr::Subscript(Subscript::Index { index })) = access_chain.last_mut() {
        let counted = std::mem::replace(index, Expr::value(Value::Null));
        *index = Expr::BinaryOp {
            left: Box::new(Expr::Nested(Box::new(counted))),
            op: BinaryOperator::Plus,
            right: Box::new(Expr::value(Value::Number("1".into(), false))),
        };
    }
}
