//! Tokens for SASL's OAUTHBEARER, by OAuth 2.0's grant of client credentials (RFC 6749, section 4.4).

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use datafusion::common::runtime::SpawnedTask;
use rdkafka::client::OAuthToken;
use reqwest::{Client, Response, Url};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::store::postgres_tls::client_tls;

/// From the request to the end of its answer.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an endpoint is left alone that gave none.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How long a token is taken to last whose answer does not say.
const DEFAULT_LIFETIME_SECONDS: i64 = 300;
/// Tokens are renewed after this part of their life, in percent: before the client library asks for another, at 80.
const RENEW_AFTER_PERCENT: i64 = 60;

/// Who gives tokens, and to whom.
#[derive(Clone, PartialEq)]
pub struct TokenConfig {
    pub token_url: Url,
    pub client_id: String,
    pub client_secret: String,
    pub scope: Option<String>,
    /// Certificates to trust instead of the system's.
    pub sslrootcert: Option<PathBuf>,
}

/// Without secrets.
impl fmt::Debug for TokenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenConfig").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// The token of a connection, for all of its clients.
pub(super) struct TokenSource {
    config: TokenConfig,
    client: Client,
    state: Mutex<State>,
    /// Of those who wait for a token, one asks for it.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Milliseconds since 1970.
    renew_at: i64,
    renewal: Option<SpawnedTask<()>>,
}

#[derive(Clone)]
struct Token {
    text: String,
    /// Milliseconds since 1970.
    renew_at: i64,
    expires_at: i64,
}

/// RFC 6749, section 5.1.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<i64>,
}

impl TokenSource {
    /// # Errors
    /// 22023 for certificates that cannot be read.
    pub(super) fn try_new(config: TokenConfig) -> Result<Arc<Self>> {
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .referer(false)
            .timeout(TOKEN_TIMEOUT);
        if config.token_url.scheme() == "https" {
            builder = builder.use_preconfigured_tls(client_tls(config.sslrootcert.as_deref())?);
        }
        let client = builder.build().map_err(|error| Error::internal(format!("no HTTP client: {error}")))?;
        let (state, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Arc::new(TokenSource { config, client, state, turn }))
    }

    /// Waits until there is a token.
    ///
    /// # Errors
    /// Why there is none, without secrets.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), String> {
        if self.current().is_some() {
            self.renew_when_due();
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if self.current().is_some() {
            return Ok(());
        }
        self.renew().await
    }

    /// Has the token renewed behind those who use it, if it is time.
    pub(super) fn renew_when_due(self: &Arc<Self>) {
        let mut state = self.state();
        if now() < state.renew_at {
            return;
        }
        // Until this attempt has ended, or its time is over.
        state.renew_at = now() + TOKEN_TIMEOUT.as_millis() as i64;
        let tokens = Arc::clone(self);
        state.renewal = Some(SpawnedTask::spawn(async move {
            if let Err(reason) = tokens.renew().await {
                tracing::warn!(client_id = tokens.config.client_id, "{reason}");
            }
        }));
    }

    async fn renew(&self) -> Result<(), String> {
        let asked = self.ask().await;
        let mut state = self.state();
        match asked {
            Ok(token) => {
                state.renew_at = token.renew_at;
                state.token = Some(token);
                Ok(())
            }
            Err(reason) => {
                state.renew_at = now() + FAILURE_PAUSE.as_millis() as i64;
                Err(reason)
            }
        }
    }

    /// The token, if it has not expired.
    pub(super) fn current(&self) -> Option<OAuthToken> {
        let token = self.state().token.clone().filter(|token| now() < token.expires_at)?;
        Some(OAuthToken {
            token: token.text,
            principal_name: self.config.client_id.clone(),
            lifetime_ms: token.expires_at,
        })
    }

    async fn ask(&self) -> Result<Token, String> {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.config.scope.as_deref().map(|scope| ("scope", scope)));
        let request = self.client.post(self.config.token_url.clone()).form(&form);
        let request = request.basic_auth(&self.config.client_id, Some(&self.config.client_secret));
        // An error of the client names its url, which is no secret but may hold one.
        let response = request.send().await.map_err(|error| format!("no token: {}", error.without_url()))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("no token: token_url answered {status}"));
        }
        let answer = read(response).await.and_then(|bytes| serde_json::from_slice::<Answer>(&bytes).ok());
        let answer = answer.ok_or("no token: token_url answered without an access_token")?;
        let lifetime = answer.expires_in.unwrap_or(DEFAULT_LIFETIME_SECONDS).clamp(1, i64::from(i32::MAX)) * 1000;
        let now = now();
        Ok(Token {
            text: answer.access_token,
            renew_at: now + lifetime / 100 * RENEW_AFTER_PERCENT,
            expires_at: now + lifetime,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The whole answer, if it has a size that an answer may have.
async fn read(mut response: Response) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER_BYTES {
            return None;
        }
    }
    Some(bytes)
}

/// Milliseconds since 1970, as the client library counts.
fn now() -> i64 {
    Utc::now().timestamp_millis()
}
