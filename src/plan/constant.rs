//! Constant integer arithmetic, done with PostgreSQL's overflow before DataFusion does it with none.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{BinaryExpr, Cast};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::error::{Code, Error};

/// An analyzer rule after type coercion: both operands have one type then.
#[derive(Debug)]
pub struct FoldIntegerConstants;

impl AnalyzerRule for FoldIntegerConstants {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            // A folded column keeps its name.
            let names = datafusion::logical_expr::expr_rewriter::NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let folded = expr.transform_up(fold)?;
                Ok(match folded.transformed {
                    true => Transformed::yes(name.restore(folded.data)),
                    false => folded,
                })
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "fold_integer_constants"
    }
}

fn fold(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else { return Ok(Transformed::no(expr)) };
    let (Some((one, data_type)), Some((other, other_type))) = (integer(left)?, integer(right)?) else {
        return Ok(Transformed::no(expr));
    };
    if data_type != other_type {
        return Ok(Transformed::no(expr));
    }
    let result = match op {
        Operator::Plus => one.checked_add(other),
        Operator::Minus => one.checked_sub(other),
        Operator::Multiply => one.checked_mul(other),
        _ => return Ok(Transformed::no(expr)),
    };
    match result.and_then(|result| narrowed(result, &data_type)) {
        Some(value) => Ok(Transformed::yes(Expr::Literal(value, None))),
        None => Err(Error::new(Code::NumericOutOfRange, format!("integer out of range: {one} {op} {other}")).into()),
    }
}

/// The value of an integer literal, under casts between integers too, with its type.
fn integer(expr: &Expr) -> Result<Option<(i128, DataType)>> {
    let literal = match expr {
        Expr::Literal(value, _) => value.clone(),
        Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
            Expr::Literal(value, _) if field.data_type().is_signed_integer() => value.cast_to(field.data_type())?,
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(match literal {
        ScalarValue::Int16(Some(value)) => Some((value.into(), DataType::Int16)),
        ScalarValue::Int32(Some(value)) => Some((value.into(), DataType::Int32)),
        ScalarValue::Int64(Some(value)) => Some((value.into(), DataType::Int64)),
        _ => None,
    })
}

fn narrowed(value: i128, data_type: &DataType) -> Option<ScalarValue> {
    match data_type {
        DataType::Int16 => i16::try_from(value).ok().map(|value| ScalarValue::Int16(Some(value))),
        DataType::Int32 => i32::try_from(value).ok().map(|value| ScalarValue::Int32(Some(value))),
        DataType::Int64 => i64::try_from(value).ok().map(|value| ScalarValue::Int64(Some(value))),
        _ => None,
    }
}
