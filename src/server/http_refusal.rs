//! Why a request that brings rows is refused: one of our errors, in JSON, under the status that goes with it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::http::{JSON, response};
use crate::error::{Code, Error};

/// A refusal on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: Error,
    /// Of the body, counted from 1.
    line: Option<u64>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: Error) -> Self {
        Refusal { status, error, line: None, header: None }
    }

    pub(super) fn with_line(self, line: u64) -> Self {
        Refusal { line: Some(line), ..self }
    }

    pub(super) fn with_header(self, name: HeaderName, value: &'static str) -> Self {
        Refusal { header: Some((name, HeaderValue::from_static(value))), ..self }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut told = serde_json::json!({ "error": self.error.message(), "sqlstate": self.error.sqlstate() });
        let optional = [
            ("line", self.line.map(Into::into)),
            ("detail", self.error.detail().map(Into::into)),
            ("hint", self.error.hint().map(Into::into)),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                told[key] = value;
            }
        }
        let mut refused = response(self.status, JSON, format!("{told}\n"));
        if let Some((name, value)) = self.header {
            refused.headers_mut().insert(name, value);
        }
        refused
    }
}

/// What the catalog or a stream says of a request.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.code() {
            Code::UndefinedTable => StatusCode::NOT_FOUND,
            Code::InsufficientPrivilege => StatusCode::FORBIDDEN,
            // It is there, and takes no rows.
            Code::FeatureNotSupported => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, error)
    }
}
