//! EXPLAIN, and results that are nothing but text.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use super::{Prepared, Session};
use crate::catalog::running::QueryEntry;
use crate::engine::Rows;
use crate::error::{Error, Result};
use crate::notice::Notices;
use crate::pg_type::PgType;
use crate::sql::explain::ExplainOptions;

impl Session {
    pub(super) async fn explain(
        &mut self,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
        options: &ExplainOptions,
    ) -> Result<Rows> {
        let Some(planned) = &prepared.planned else { return Err(Error::internal("EXPLAIN without a plan")) };
        if options.analyze && planned.endless && options.duration.is_none() {
            return Err(Error::unsupported("EXPLAIN ANALYZE over an endless query would never end").with_hint(
                "Say how long it is to run: EXPLAIN (ANALYZE, DURATION '5s') …, or put a LIMIT behind the query.",
            ));
        }
        let query = self.enter(prepared);
        let physical = self.engine.physical_plan(planned, values, &self.viewer()).await?;
        if options.analyze {
            query.runs(&physical);
            let rows = self.engine.execute(Arc::clone(&physical), &self.viewer(), &Notices::default()).await?;
            match options.duration {
                None => drain(rows, &query).await?,
                // When the time is over, the query is cancelled as by its client.
                Some(duration) => tokio::time::timeout(duration, drain(rows, &query)).await.unwrap_or(Ok(()))?,
            }
        }
        let plan = match options.analyze {
            true => DisplayableExecutionPlan::with_metrics(physical.as_ref()),
            false => displayable(physical.as_ref()),
        };
        let text = plan.indent(options.verbose).to_string();
        Ok(texts_rows(["QUERY PLAN"], text.lines().map(|line| [line.replace('\u{1}', "_")])))
    }
}

async fn drain(mut rows: SendableRecordBatchStream, query: &QueryEntry) -> Result<()> {
    while let Some(batch) = rows.next().await {
        query.count_rows_out(batch?.num_rows());
    }
    Ok(())
}

/// A result of columns of text that is all there.
pub(super) fn texts_rows<const N: usize>(names: [&str; N], lines: impl IntoIterator<Item = [String; N]>) -> Rows {
    let schema = Arc::new(Schema::new(names.map(|name| PgType::Text.field(name, false)).to_vec()));
    let lines: Vec<[String; N]> = lines.into_iter().collect();
    let column = |at: usize| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(lines.iter().map(|line| line[at].as_str())))
    };
    let batch = RecordBatch::try_new(Arc::clone(&schema), (0..N).map(column).collect()).map_err(Into::into);
    let stream = futures::stream::iter([batch]);
    Rows {
        schema: Arc::clone(&schema),
        stream: Box::pin(RecordBatchStreamAdapter::new(schema, stream)),
        endless: false,
        notices: Notices::default(),
        query: None,
    }
}
