//! An HTTP service with JSON answers as a store: a GET for each key, several at once, or a POST for a batch of keys.
//!
//! `http_request.rs` makes targets and bodies of keys, `http_connection.rs` sends them, `http_hosts.rs` says where to,
//! `document.rs` makes rows of the answers.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use futures::{StreamExt, TryStreamExt};
use reqwest::Method;

use super::document::{DocumentColumn, DocumentColumns, DocumentRows, Matching};
pub(crate) use super::http_connection::{BodyRoom, Failure, HttpAnswer, HttpMessage};
pub use super::http_connection::{HttpConfig, HttpConnection, url_with};
pub use super::http_hosts::{AllowedHost, AllowedHosts, Lookup};
pub use super::http_request::{GetTarget, HttpRequest};
use super::http_request::{json_keys, rows_of, texts_of_keys};
use super::{Answer, DeclaredTable, KeyEquality, LookupRequest, RowBatches, ScanRequest, Store, StoreError};
use crate::error::{Error, Result};
use crate::format::json_path::JsonPath;
use crate::format::text::excerpt;
use crate::pg_type::PgType;

/// The client cannot send longer ones.
const MAX_URL_BYTES: usize = 65_534;

/// A `[lookup.X]` over an HTTP service, as the catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTable {
    pub request: HttpRequest,
    /// The request as the catalog file has it, references unreplaced: what messages may show.
    pub shown: String,
    /// Whether references in it were replaced, by what may be secret.
    pub is_substituted: bool,
    pub columns: Vec<DocumentColumn>,
    /// Positions of the key's columns: those of the target, in its order, or the one whose values the body holds.
    pub key: Vec<usize>,
    /// Where in an answer the array of rows stands; `None`: an answer is one row.
    pub rows: Option<JsonPath>,
    /// How many keys of one batch are asked for at once, with GET.
    pub requests_at_once: NonZeroUsize,
}

/// A table over a service that need not have been reached.
#[derive(Debug)]
pub struct HttpDeclared {
    pub connection: Arc<HttpConnection>,
    pub table: HttpTable,
}

#[async_trait]
impl DeclaredTable for HttpDeclared {
    /// The service cannot be asked what it has, so what was declared is believed.
    async fn connect(&self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(HttpStore::new(Arc::clone(&self.connection), self.table.clone())))
    }

    fn shown(&self) -> String {
        format!("http {} of {}", self.table.shown, self.connection)
    }
}

/// A table over a service.
#[derive(Debug)]
pub struct HttpStore {
    connection: Arc<HttpConnection>,
    table: HttpTable,
    columns: DocumentColumns,
    /// Of the key's columns.
    key_types: Vec<PgType>,
}

impl HttpStore {
    pub fn new(connection: Arc<HttpConnection>, table: HttpTable) -> HttpStore {
        let columns = DocumentColumns::new(&table.columns, table.key.clone());
        let key_types = table.key.iter().map(|&column| table.columns[column].pg_type.clone()).collect();
        HttpStore { connection, table, columns, key_types }
    }

    /// A GET for each key, `requests_at_once` of them at a time.
    async fn get(&self, target: &GetTarget, request: &LookupRequest) -> Result<Answer, StoreError> {
        let texts = texts_of_keys(&self.columns.keys(request)?, &self.key_types)?;
        let room = BodyRoom::new(request.max_answer_bytes);
        let mut rows = DocumentRows::try_new(&self.columns, request, Matching::ByCaller)?;
        let of_key = |position: usize| {
            let values = texts.iter().map(|texts| texts.value(position).to_string()).collect::<Vec<_>>();
            let room = &room;
            async move { Ok::<_, StoreError>((position, self.get_one(target, &values, room, request).await?)) }
        };
        let answers = futures::stream::iter((0..request.len()).map(of_key));
        let mut answers = std::pin::pin!(answers.buffer_unordered(self.table.requests_at_once.get()));
        while let Some((position, answer)) = answers.try_next().await? {
            let Some(answer) = answer else { continue };
            let values = texts.iter().map(|texts| texts.value(position));
            let shown = || self.shown_get(&values.clone().collect::<Vec<_>>());
            for document in self.documents(&answer, shown())? {
                let appended = rows.append(position as u32, document.get());
                appended.map_err(|error| in_answer(error, &shown()))?;
            }
        }
        rows.finish()
    }

    /// `None`: there is nothing for this key.
    async fn get_one(
        &self,
        target: &GetTarget,
        values: &[String],
        room: &BodyRoom,
        request: &LookupRequest,
    ) -> Result<Option<String>, StoreError> {
        let values = values.iter().map(String::as_str).collect::<Vec<_>>();
        let Some(target) = target.of_key(&values) else { return Ok(None) };
        let message = HttpMessage {
            method: Method::GET,
            url: self.connection.url_of(&target)?,
            body: None,
            may_quote: !self.table.is_substituted,
        };
        let sent = match message.url.as_str().len() {
            0..=MAX_URL_BYTES => self.connection.send(&message, room).await,
            bytes => {
                Err(Failure::AboutKeys(format!("cannot be sent: its url has {bytes} bytes, more than {MAX_URL_BYTES}")))
            }
        };
        match sent {
            Ok(HttpAnswer::Json(answer)) => Ok(Some(answer)),
            Ok(HttpAnswer::Nothing | HttpAnswer::NotFound) => Ok(None),
            Err(failure) => Err(failure.into_error(&self.shown_get(&values), request.max_answer_bytes)),
        }
    }

    /// One POST with all keys.
    async fn post(&self, target: &str, body_keys: &JsonPath, request: &LookupRequest) -> Result<Answer, StoreError> {
        let mut rows = DocumentRows::try_new(&self.columns, request, Matching::ByValue)?;
        let keys = self.columns.keys(request)?;
        let (Some(keys), Some(pg_type)) = (keys.first(), self.key_types.first()) else {
            return Err(Error::internal("a POST without a key").into());
        };
        let Some(keys) = json_keys(keys, pg_type)? else { return rows.finish() };
        let body = body_keys.document_with(&keys);
        let body = body.ok_or_else(|| Error::internal(format!("no body has {body_keys} alone")))?;
        let url = self.connection.url_of(target)?;
        let may_quote = !self.table.is_substituted;
        let message = HttpMessage { method: Method::POST, url, body: Some(Bytes::from(body)), may_quote };
        let shown = &self.table.shown;
        let answer = self.connection.send(&message, &BodyRoom::new(request.max_answer_bytes)).await;
        let answer = answer.and_then(|answer| match answer {
            HttpAnswer::Json(answer) => Ok(Some(answer)),
            HttpAnswer::Nothing => Ok(None),
            HttpAnswer::NotFound => {
                Err(Failure::Failed("answered that there is no such path (404 or 410)".to_string()))
            }
        });
        let answer = answer.map_err(|failure| failure.into_error(shown, request.max_answer_bytes))?;
        for document in self.documents(&answer.unwrap_or_else(|| "null".to_string()), shown.clone())? {
            rows.append(0, document.get()).map_err(|error| in_answer(error, shown))?;
        }
        rows.finish()
    }

    fn documents<'a>(
        &self,
        answer: &'a str,
        shown: String,
    ) -> Result<Vec<&'a serde_json::value::RawValue>, StoreError> {
        let documents = rows_of(answer, self.table.rows.as_ref());
        documents.map_err(|reason| StoreError::Failed { message: format!("{shown} {reason}"), sqlstate: None })
    }

    /// What names a GET in messages.
    fn shown_get(&self, values: &[&str]) -> String {
        let columns = self.table.key.iter().map(|&column| &self.table.columns[column].name);
        let key = columns.zip(values).map(|(name, value)| format!("{name} = {}", excerpt(value)));
        format!("{} ({})", self.table.shown, key.collect::<Vec<_>>().join(", "))
    }
}

/// The error with what was asked in front.
fn in_answer(error: StoreError, shown: &str) -> StoreError {
    match error {
        StoreError::Invalid(error) => StoreError::Invalid(error.with_context(format!("answer to {shown}"))),
        StoreError::Unavailable { .. }
        | StoreError::Failed { .. }
        | StoreError::KeyRefused { .. }
        | StoreError::TooLarge { .. }
        | StoreError::BreakerOpen { .. } => error,
    }
}

#[async_trait]
impl Store for HttpStore {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.schema())
    }

    /// Conditions are applied where those of other tables are.
    fn can_filter(&self, _: &Expr) -> bool {
        false
    }

    fn key_equality(&self, column: usize) -> KeyEquality {
        self.columns.key_equality(column)
    }

    fn check_keys(&self, key_columns: &[usize]) -> Result<()> {
        self.columns.check_keys(key_columns)
    }

    async fn lookup(&self, request: &LookupRequest) -> Result<Answer, StoreError> {
        match &self.table.request {
            HttpRequest::Get { target } => self.get(target, request).await,
            HttpRequest::Post { target, body_keys } => self.post(target, body_keys, request).await,
        }
    }

    /// A service answers keys.
    fn can_scan(&self) -> bool {
        false
    }

    async fn scan(&self, _: &ScanRequest) -> Result<RowBatches, StoreError> {
        Err(Error::unsupported(format!("{} cannot be read without a key", self.table.shown)).into())
    }
}

impl fmt::Display for HttpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http {} of {}", self.table.shown, self.connection)
    }
}
