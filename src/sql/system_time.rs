//! Flink's spelling: `JOIN table FOR SYSTEM_TIME AS OF moment AS alias ON …` is a lookup join.
//!
//! DataFusion would drop the moment unseen. It is taken along as one more condition of the join, so that it is
//! resolved and typed like any other expression, and left out again when the lookup join is planned.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, JoinConstraint, JoinOperator, Query, Select, TableFactor, TableVersion, TableWithJoins,
    VisitMut, VisitorMut,
};

use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;
use crate::plan::SYSTEM_TIME_FUNCTION;
use crate::sql::rewrite::call;

/// Takes the moments along; tells those for which the user is to know that they are not obeyed.
///
/// # Errors
/// 0A000 for other versions than `FOR SYSTEM_TIME AS OF`, and where no condition can carry the moment.
pub fn take_system_times(query: &mut Query) -> Result<Vec<Error>> {
    let mut taker = Taker { notices: vec![], error: None };
    let _ = query.visit(&mut taker);
    match taker.error {
        Some(error) => Err(error),
        None => Ok(taker.notices),
    }
}

struct Taker {
    notices: Vec<Error>,
    error: Option<Error>,
}

impl VisitorMut for Taker {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for from in &mut select.from {
            self.take(from);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            self.take(table_with_joins);
        }
        ControlFlow::Continue(())
    }
}

impl Taker {
    fn take(&mut self, from: &mut TableWithJoins) {
        if let TableFactor::Table { name, version: Some(_), .. } = &from.relation {
            self.error = Some(
                Error::unsupported(format!("\"{name}\" FOR SYSTEM_TIME AS OF stands on the right of a JOIN only"))
                    .with_hint("A lookup table is asked for what a stream on its left refers to."),
            );
        }
        for join in &mut from.joins {
            let TableFactor::Table { name, version, .. } = &mut join.relation else { continue };
            let Some(version) = version.take() else { continue };
            let TableVersion::ForSystemTimeAsOf(moment) = version else {
                self.error = Some(
                    Error::unsupported(format!("\"{name}\" {version} is not supported"))
                        .with_hint("Write FOR SYSTEM_TIME AS OF."),
                );
                return;
            };
            if !is_present(&moment) {
                let message =
                    format!("lookups in \"{name}\" see the store as it is when a row arrives, not as of {moment}");
                self.notices.push(Error::new(Code::Notice, message));
            }
            let condition = call(SYSTEM_TIME_FUNCTION, vec![without_proctime(moment)]);
            match on(&mut join.join_operator) {
                Some(JoinConstraint::On(on)) => {
                    let written = on.clone();
                    *on = Expr::BinaryOp {
                        left: Box::new(Expr::Nested(Box::new(written))),
                        op: BinaryOperator::And,
                        right: Box::new(condition),
                    };
                }
                _ => {
                    self.error = Some(
                        Error::unsupported("FOR SYSTEM_TIME AS OF needs a join with ON")
                            .with_hint("Write ON instead of USING."),
                    );
                }
            }
        }
    }
}

/// Whether the moment is the present in words.
fn is_present(moment: &Expr) -> bool {
    match moment {
        Expr::Function(function) => {
            let name = function.name.to_string().to_ascii_lowercase();
            matches!(name.as_str(), "now" | "proctime" | "current_timestamp" | "localtimestamp")
        }
        _ => false,
    }
}

/// `PROCTIME()` is Flink's `now()`.
fn without_proctime(moment: Expr) -> Expr {
    match &moment {
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("proctime") => call("now", vec![]),
        _ => moment,
    }
}

fn on(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
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

/// A condition that holds for every moment; what it is for is to see that its argument is one.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SystemTime {
    signature: Signature,
}

impl SystemTime {
    pub fn new() -> Self {
        SystemTime { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl Default for SystemTime {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for SystemTime {
    fn name(&self) -> &str {
        SYSTEM_TIME_FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        match types {
            [DataType::Timestamp(..)] => Ok(DataType::Boolean),
            [other] => {
                let field = datafusion::arrow::datatypes::Field::new("moment", other.clone(), true);
                let shown = PgType::of_field(&field)?;
                Err(Error::new(Code::DatatypeMismatch, format!("FOR SYSTEM_TIME AS OF needs a timestamp, not {shown}"))
                    .with_hint("Write FOR SYSTEM_TIME AS OF now(), or a column of type timestamp or timestamptz.")
                    .into())
            }
            _ => Err(Error::internal("FOR SYSTEM_TIME AS OF without a moment").into()),
        }
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
    }
}
