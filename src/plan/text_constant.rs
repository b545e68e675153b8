//! A quoted constant beside a bytea, a uuid, a date or a time is one itself, as in PostgreSQL. DataFusion would take the
//! text's own bytes, and knows nothing of the session's `TimeZone` and `DateStyle`.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use crate::catalog::Viewer;
use crate::error::Error;
use crate::format::settings::ValueSettings;
use crate::format::text::ColumnBuilder;
use crate::pg_type::PgType;
use crate::plan::float::is_comparison;

/// An analyzer rule before type coercion, which would cast the text.
#[derive(Debug)]
pub struct ReadTextConstants;

impl AnalyzerRule for ReadTextConstants {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let settings = Viewer::of(config).map(Viewer::values).unwrap_or_default();
        plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let read = expr.transform_up(|expr| rewrite(expr, &schema, settings))?;
                Ok(match read.transformed {
                    true => Transformed::yes(name.restore(read.data)),
                    false => read,
                })
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "read_text_constants"
    }
}

fn rewrite(expr: Expr, schema: &DFSchema, settings: ValueSettings) -> Result<Transformed<Expr>> {
    let wanted = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
            kind(left, schema).or_else(|| kind(right, schema))
        }
        Expr::InList(InList { expr, .. }) => kind(expr, schema),
        _ => None,
    };
    let Some(pg_type) = wanted else { return Ok(Transformed::no(expr)) };
    expr.map_children(|operand| match &operand {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), metadata) => {
            let value = Expr::Literal(read(text, &pg_type, settings)?, metadata.clone());
            Ok(if value == operand { Transformed::no(operand) } else { Transformed::yes(value) })
        }
        _ => Ok(Transformed::no(operand)),
    })
}

/// The type, if it is one of those that this rule is for.
fn kind(expr: &Expr, schema: &DFSchema) -> Option<PgType> {
    if matches!(expr, Expr::Literal(..)) {
        return None;
    }
    // What has no type yet is told of by type coercion.
    let (_, field) = expr.to_field(schema).ok()?;
    match (field.data_type(), PgType::of_field(&field).ok()?) {
        (DataType::Binary | DataType::Utf8View, pg_type @ (PgType::Bytea | PgType::Uuid)) => Some(pg_type),
        (_, pg_type @ (PgType::Date | PgType::Time | PgType::Timestamp | PgType::Timestamptz))
            if *field.data_type() == pg_type.arrow() =>
        {
            Some(pg_type)
        }
        _ => None,
    }
}

fn read(text: &str, pg_type: &PgType, settings: ValueSettings) -> Result<ScalarValue> {
    let mut builder = ColumnBuilder::new(pg_type).with_settings(settings);
    builder.append(text).map_err(Error::from)?;
    ScalarValue::try_from_array(&builder.finish(), 0)
}
