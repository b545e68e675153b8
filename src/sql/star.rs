//! `SELECT *` over `LOOKUP JOIN … USING`: the column once, first, with the left value, as PostgreSQL has it.
//! DataFusion would keep the side whose name sorts first, which is NULL for rows without a match.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::FieldRef;
use datafusion::common::{DFSchema, TableReference};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableFactor, TableWithJoins, Visit, VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions,
};

use crate::error::{Error, Result};
use crate::sql::lookup_join::is_marked;
use crate::sql_name::{fold_ident, relation_name};

/// # Errors
/// 0A000 for NATURAL LOOKUP JOIN.
pub fn refuse_natural_lookup_joins(query: &Query) -> Result<()> {
    let mut finder = NaturalFinder(false);
    let _ = query.visit(&mut finder);
    match finder.0 {
        true => Err(Error::unsupported("NATURAL LOOKUP JOIN is not supported")
            .with_hint("Name the columns: LOOKUP JOIN table USING (column, …).")),
        false => Ok(()),
    }
}

struct NaturalFinder(bool);

impl Visitor for NaturalFinder {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let joins = select.from.iter().flat_map(|from| &from.joins);
        self.0 |= joins
            .filter(|join| is_lookup(&join.relation))
            .any(|join| matches!(constraint(&join.join_operator), Some(JoinConstraint::Natural)));
        ControlFlow::Continue(())
    }
}

/// For each SELECT that has a bare star over a lookup join with USING: a query of the same FROM whose input's
/// columns [`expand`] needs. They come in the order in which [`expand`] goes through the query.
pub fn selects_to_expand(query: &Query) -> Vec<Query> {
    struct Collector {
        with: Vec<datafusion::sql::sqlparser::ast::With>,
        found: Vec<Query>,
        template: Query,
    }
    impl Visitor for Collector {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.with.extend(query.with.clone());
            ControlFlow::Continue(())
        }
        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            if needs_expansion(select) {
                let mut probe = self.template.clone();
                probe.with = merged(&self.with);
                let mut bare = select.clone();
                bare.selection = None;
                bare.projection.retain(|item| matches!(item, SelectItem::Wildcard(_)));
                bare.projection.truncate(1);
                probe.body = Box::new(SetExpr::Select(Box::new(bare)));
                self.found.push(probe);
            }
            ControlFlow::Continue(())
        }
    }
    let mut template = query.clone();
    template.with = None;
    template.order_by = None;
    template.limit_clause = None;
    template.fetch = None;
    let mut collector = Collector { with: vec![], found: vec![], template };
    let _ = query.visit(&mut collector);
    // The outermost may change what the ones inside look like to nobody; one at a time is expanded.
    collector.found
}

fn merged(with: &[datafusion::sql::sqlparser::ast::With]) -> Option<datafusion::sql::sqlparser::ast::With> {
    let mut all = with.first()?.clone();
    for more in &with[1..] {
        all.cte_tables.extend(more.cte_tables.clone());
    }
    Some(all)
}

/// Replaces the star of the first SELECT that needs it by the columns of its FROM, which `input` holds.
pub fn expand(query: &mut Query, input: &DFSchema) {
    struct Expander<'a>(&'a DFSchema);
    impl VisitorMut for Expander<'_> {
        type Break = ();
        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            if !needs_expansion(select) {
                return ControlFlow::Continue(());
            }
            let columns = columns_in_order(&select.from[0], self.0);
            let items = std::mem::take(&mut select.projection);
            for item in items {
                match item {
                    SelectItem::Wildcard(_) => select.projection.extend(columns.iter().map(Column::item)),
                    other => select.projection.push(other),
                }
            }
            ControlFlow::Break(())
        }
    }
    let _ = query.visit(&mut Expander(input));
}

/// A query whose input's columns [`expand_outermost`] needs, if the outermost SELECT has a star beside other items, as in
/// `SELECT n.oid, n.*`: only columns with names of their own can be there twice.
pub fn outermost_to_expand(query: &Query) -> Option<Query> {
    let mut probe = query.clone();
    probe.order_by = None;
    probe.limit_clause = None;
    probe.fetch = None;
    let SetExpr::Select(select) = probe.body.as_mut() else { return None };
    if select.projection.len() < 2 || !select.projection.iter().any(is_plain_star) || select.from.is_empty() {
        return None;
    }
    // The columns of USING are in a bare star once.
    let merges_columns = select.from.iter().flat_map(|from| &from.joins).any(|join| {
        let is_natural = matches!(constraint(&join.join_operator), Some(JoinConstraint::Natural));
        is_natural || !using_columns(&join.join_operator).is_empty()
    });
    if merges_columns && select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_))) {
        return None;
    }
    select.distinct = None;
    select.selection = None;
    select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    Some(probe)
}

/// Replaces the stars of the outermost SELECT by the columns of its FROM, which `input` holds.
pub fn expand_outermost(query: &mut Query, input: &DFSchema) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let columns = all_columns(input);
    let items = std::mem::take(&mut select.projection);
    for item in items {
        let relation = match &item {
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => relation_name(name),
            _ => None,
        };
        match item {
            SelectItem::Wildcard(_) if is_plain_star(&item) => {
                select.projection.extend(columns.iter().map(Column::item))
            }
            _ if relation.is_some() && is_plain_star(&item) => {
                let own = columns.iter().filter(|column| column.qualifier == relation);
                let before = select.projection.len();
                select.projection.extend(own.map(Column::item));
                if select.projection.len() == before {
                    // Of what is not there: the planner tells.
                    select.projection.push(item);
                }
            }
            other => select.projection.push(other),
        }
    }
}

/// `*` or `relation.*`, without EXCEPT or the like.
fn is_plain_star(item: &SelectItem) -> bool {
    match item {
        SelectItem::Wildcard(options)
        | SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), options) => {
            options.opt_ilike.is_none()
                && options.opt_exclude.is_none()
                && options.opt_except.is_none()
                && options.opt_replace.is_none()
                && options.opt_rename.is_none()
        }
        _ => false,
    }
}

#[derive(Clone, PartialEq)]
struct Column {
    qualifier: Option<String>,
    name: String,
}

impl Column {
    fn item(&self) -> SelectItem {
        let name = Ident::with_quote('"', &self.name);
        SelectItem::UnnamedExpr(match &self.qualifier {
            Some(qualifier) => Expr::CompoundIdentifier(vec![Ident::with_quote('"', qualifier), name]),
            None => Expr::Identifier(name),
        })
    }
}

fn all_columns(input: &DFSchema) -> Vec<Column> {
    let column = |(qualifier, field): (Option<&TableReference>, &FieldRef)| Column {
        qualifier: qualifier.map(|qualifier| qualifier.table().to_string()),
        name: field.name().clone(),
    };
    input.iter().map(column).collect()
}

/// PostgreSQL's order: for each join the columns of USING, the rest of the left, the rest of the right.
fn columns_in_order(from: &TableWithJoins, input: &DFSchema) -> Vec<Column> {
    let all = all_columns(input);
    let right_names: Vec<Option<String>> = from.joins.iter().map(|join| name_of(&join.relation)).collect();
    let (mut rest, mut columns): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|column| column.qualifier.is_some() && right_names.contains(&column.qualifier));
    for (join, right_name) in from.joins.iter().zip(&right_names) {
        let (right, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|column| &column.qualifier == right_name);
        rest = others;
        let using = using_columns(&join.join_operator);
        let (shared, left): (Vec<_>, Vec<_>) =
            columns.into_iter().partition(|column: &Column| using.contains(&column.name));
        let mut shared_in_order: Vec<Column> = vec![];
        for name in &using {
            shared_in_order.extend(shared.iter().filter(|column| &column.name == name).cloned());
        }
        let right = right.into_iter().filter(|column| !using.contains(&column.name));
        columns = shared_in_order.into_iter().chain(left).chain(right).collect();
    }
    columns.into_iter().chain(rest).collect()
}

fn needs_expansion(select: &Select) -> bool {
    let has_star = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    // `SELECT o.id, *` has the column twice, which only columns with names of their own can.
    let shares_names = select.projection.len() > 1;
    let [from] = select.from.as_slice() else { return false };
    has_star
        && from
            .joins
            .iter()
            .any(|join| is_lookup(&join.relation) && (shares_names || !using_columns(&join.join_operator).is_empty()))
}

fn is_lookup(relation: &TableFactor) -> bool {
    matches!(relation, TableFactor::Table { with_hints, .. } if is_marked(with_hints))
}

fn name_of(relation: &TableFactor) -> Option<String> {
    match relation {
        TableFactor::Table { name, alias, .. } => {
            alias.as_ref().map(|alias| fold_ident(&alias.name)).or_else(|| relation_name(name))
        }
        TableFactor::Derived { alias, .. } => alias.as_ref().map(|alias| fold_ident(&alias.name)),
        _ => None,
    }
}

fn using_columns(operator: &JoinOperator) -> Vec<String> {
    match constraint(operator) {
        Some(JoinConstraint::Using(names)) => names.iter().filter_map(relation_name).collect(),
        _ => vec![],
    }
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}
