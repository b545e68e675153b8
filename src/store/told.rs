//! A store that answers as a test has told it to: what the tests of stores around a store share.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::Expr;
use futures::StreamExt;
use tokio::time::Instant;

use super::{
    Answer, Conditions, KeyEquality, LookupRequest, LookupShape, RowBatches, ScanRequest, Store, StoreError, contract,
    file,
};
use crate::pg_type::PgType;

/// Answers at once that no key has a row, unless told otherwise.
#[derive(Debug)]
pub(super) struct ToldStore {
    began: Instant,
    told: Mutex<VecDeque<(Duration, Option<StoreError>)>>,
    asked: Mutex<Vec<Duration>>,
}

impl ToldStore {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(ToldStore { began: Instant::now(), told: Mutex::default(), asked: Mutex::default() })
    }

    /// The next request that has not been told of will take `delay`, and fail if there is an error.
    pub(super) fn tell(&self, delay: Duration, error: Option<StoreError>) {
        self.told.lock().unwrap().push_back((delay, error));
    }

    /// When each request came, in milliseconds since this store began.
    pub(super) fn asked(&self) -> Vec<u128> {
        self.asked.lock().unwrap().iter().map(Duration::as_millis).collect()
    }
}

#[async_trait]
impl Store for ToldStore {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![PgType::Int8.field("id", true)]))
    }

    fn can_filter(&self, _: &Expr) -> bool {
        true
    }

    fn key_equality(&self, _: usize) -> KeyEquality {
        KeyEquality::ByValue
    }

    fn can_scan(&self) -> bool {
        true
    }

    /// As a lookup: what was told, then no rows.
    async fn scan(&self, _: &ScanRequest) -> Result<RowBatches, StoreError> {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let shape = LookupShape { key_columns: vec![0], columns: vec![], filters: Conditions::default() };
        self.lookup(&LookupRequest { shape: Arc::new(shape), keys: vec![keys], max_answer_bytes: u64::MAX }).await?;
        Ok(futures::stream::empty().boxed())
    }

    async fn lookup(&self, _: &LookupRequest) -> Result<Answer, StoreError> {
        self.asked.lock().unwrap().push(self.began.elapsed());
        let told = self.told.lock().unwrap().pop_front();
        let (delay, error) = told.unwrap_or_default();
        tokio::time::sleep(delay).await;
        match error {
            Some(error) => Err(error),
            None => {
                let options = RecordBatchOptions::new().with_row_count(Some(0));
                let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
                Ok(Answer { rows, key_of_row: UInt32Array::from(Vec::<u32>::new()) })
            }
        }
    }
}

impl fmt::Display for ToldStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("told")
    }
}

/// Asks for one key, and of it no column.
pub(super) async fn ask(store: &dyn Store) -> Result<Answer, StoreError> {
    let shape = LookupShape { key_columns: vec![0], columns: vec![], filters: Conditions::default() };
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    store.lookup(&LookupRequest { shape: Arc::new(shape), keys: vec![keys], max_answer_bytes: u64::MAX }).await
}

/// The contract's rows in memory.
pub(super) fn contract_store() -> Arc<dyn Store> {
    let rows = contract::table().unwrap();
    let schema = rows.schema();
    let read: file::ReadRows = Arc::new(move || Ok(vec![rows.clone()]));
    Arc::new(file::FileStore::try_new("people".to_string(), None, schema, read).unwrap())
}
