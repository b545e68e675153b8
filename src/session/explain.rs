//! EXPLAIN, and results of one column of text.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use super::{Prepared, Session};
use crate::engine::Rows;
use crate::error::{Error, Result};
use crate::pg_type::PgType;

impl Session {
    pub(super) async fn explain(
        &mut self,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
        analyze: bool,
    ) -> Result<Rows> {
        let Some(planned) = &prepared.planned else { return Err(Error::internal("EXPLAIN without a plan")) };
        if analyze && planned.endless {
            return Err(Error::unsupported("EXPLAIN ANALYZE over an endless query would never end")
                .with_hint("EXPLAIN (ANALYZE, DURATION '5s') is not available yet; put a LIMIT behind the query."));
        }
        let physical = self.engine.physical_plan(planned, values).await?;
        let text = if analyze {
            let mut stream =
                datafusion::physical_plan::execute_stream(Arc::clone(&physical), self.engine.task_context())?;
            while let Some(batch) = stream.next().await {
                batch?;
            }
            DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(false).to_string()
        } else {
            displayable(physical.as_ref()).indent(false).to_string()
        };
        Ok(text_rows("QUERY PLAN", text.lines().map(|line| line.replace('\u{1}', "_"))))
    }
}

/// A result of one column of text that is all there.
pub(super) fn text_rows(column: &str, lines: impl IntoIterator<Item = String>) -> Rows {
    let schema = Arc::new(Schema::new(vec![PgType::Text.field(column, false)]));
    let lines: StringViewArray = lines.into_iter().map(Some).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(lines)]).map_err(Into::into);
    let stream = futures::stream::iter([batch]);
    Rows {
        schema: Arc::clone(&schema),
        stream: Box::pin(RecordBatchStreamAdapter::new(schema, stream)),
        endless: false,
        query: None,
    }
}
