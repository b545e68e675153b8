//! What tests of logging in to Kafka stand on: librdkafka gets through the proxy's TLS and its passwords, and nobody else does.

use std::error::Error;
use std::sync::{Arc, Mutex};

use rdkafka::client::OAuthToken;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext};
use tokio::time::Instant;

use crate::support::certificate::Certificates;
use crate::support::kafka::{KafkaBroker, client_of};
use crate::support::kafka_login::{Login, ScramHash, token_endpoint};
use crate::support::kafka_proxy::{Door, KafkaProxy, api_key};
use crate::support::raw::DEADLINE;

/// In the year 2100.
const FAR_FUTURE_MS: i64 = 4_102_444_800_000;

/// Keeps what went wrong, and has a token to show.
struct Ana {
    errors: Arc<Mutex<Vec<String>>>,
    token: &'static str,
}

impl ClientContext for Ana {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.lock().unwrap().push(format!("{error}: {reason}"));
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        Ok(OAuthToken { token: self.token.to_string(), principal_name: "ana".to_string(), lifetime_ms: FAR_FUTURE_MS })
    }
}

impl ConsumerContext for Ana {}

/// Gets as far as the broker's metadata; otherwise what went wrong first.
fn enter(client: &ClientConfig, token: &'static str) -> Result<(), String> {
    let errors = Arc::default();
    let ana = Ana { errors: Arc::clone(&errors), token };
    let consumer: BaseConsumer<Ana> = BaseConsumer::from_config_and_context(client, ana).unwrap();
    let end = Instant::now() + DEADLINE;
    loop {
        // Errors and tokens come by polling.
        let _ = consumer.poll(std::time::Duration::from_millis(10));
        if consumer.fetch_metadata(None, std::time::Duration::from_millis(200)).is_ok() {
            return Ok(());
        }
        if let Some(error) = errors.lock().unwrap().first() {
            return Err(error.clone());
        }
        assert!(Instant::now() < end, "neither in nor refused");
    }
}

fn password(proxy: &KafkaProxy, mechanism: &str, user: &str, password: &str) -> ClientConfig {
    let mut client = client_of(&proxy.address());
    client.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", mechanism);
    client.set("sasl.username", user).set("sasl.password", password);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn right_password_gets_in_and_a_wrong_one_does_not() {
    let plain = Login::Plain { user: "ana", password: "sesame" };
    let scram = |hash| Login::Scram { hash, user: "ana", password: "sesame" };
    let invalid = |mechanism| {
        format!(
            "Authentication failed during authentication due to invalid credentials with SASL mechanism {mechanism}"
        )
    };
    for (login, refusal) in [
        (plain, "Authentication failed: Invalid username or password".to_string()),
        (scram(ScramHash::Sha256), invalid("SCRAM-SHA-256")),
        (scram(ScramHash::Sha512), invalid("SCRAM-SHA-512")),
    ] {
        let mechanism = login.mechanism();
        let door = Door { login: Some(login), ..Door::default() };
        let proxy = KafkaProxy::start_with(KafkaBroker::shared().port(), door).await;
        assert_eq!(enter(&password(&proxy, mechanism, "ana", "sesame"), ""), Ok(()), "{mechanism}");
        assert!(proxy.requests(api_key::METADATA) > 0 && proxy.requests(api_key::SASL_AUTHENTICATE) > 0);
        for (user, wrong) in [("ana", "open"), ("eve", "sesame")] {
            let error = enter(&password(&proxy, mechanism, user, wrong), "").unwrap_err();
            assert!(error.contains(&refusal), "{mechanism}: {error}");
        }
        let other = if mechanism == "PLAIN" { "SCRAM-SHA-256" } else { "PLAIN" };
        let error = enter(&password(&proxy, other, "ana", "sesame"), "").unwrap_err();
        assert!(error.contains("mechanism"), "{error}");
        assert!(enter(&client_of(&proxy.address()), "").is_err(), "who says nothing of passwords stays outside");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn right_token_gets_in_and_a_wrong_one_does_not() {
    let door = Door { login: Some(Login::OAuthBearer { token: "a.b.c" }), ..Door::default() };
    let proxy = KafkaProxy::start_with(KafkaBroker::shared().port(), door).await;
    let mut client = client_of(&proxy.address());
    client.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", "OAUTHBEARER");
    assert_eq!(enter(&client, "a.b.c"), Ok(()));
    let error = enter(&client, "d.e.f").unwrap_err();
    assert!(error.contains("invalid_token"), "{error}");
}

#[tokio::test]
async fn tokens_are_given_to_the_known_client() {
    let endpoint = token_endpoint("lookaside", "s3cret", "a.b.c", 60).await;
    let ask = async |form: &str| {
        let request = reqwest::Client::new().post(format!("http://127.0.0.1:{}/token", endpoint.port));
        let answer = request.body(form.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, body) = ask("grant_type=client_credentials&client_id=lookaside&client_secret=s3cret").await;
    assert_eq!((status, body.as_str()), (200, r#"{"access_token":"a.b.c","expires_in":60,"token_type":"Bearer"}"#));
    assert_eq!(ask("grant_type=client_credentials&client_id=lookaside&client_secret=guess").await.0, 401);
    assert_eq!(ask("grant_type=password").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_and_without_certificates_of_clients() {
    let certificates = Certificates::make();
    let path = |name: &str| certificates.path(name).display().to_string();
    let start = |tls| {
        let login = Some(Login::Plain { user: "ana", password: "sesame" });
        KafkaProxy::start_with(KafkaBroker::shared().port(), Door { tls: Some(tls), login })
    };
    let proxy = start(certificates.acceptor()).await;
    let mut client = password(&proxy, "PLAIN", "ana", "sesame");
    assert!(enter(&client, "").is_err(), "TLS is asked for");
    client.set("security.protocol", "sasl_ssl");
    let error = enter(&client, "").unwrap_err();
    assert!(error.contains("certificate verify failed"), "{error}");
    client.set("ssl.ca.location", path("ca.crt"));
    assert_eq!(enter(&client, ""), Ok(()));

    let proxy = start(certificates.acceptor_of_known_clients()).await;
    client.set("bootstrap.servers", proxy.address());
    assert!(enter(&client, "").is_err(), "a certificate is asked for");
    client.set("ssl.certificate.location", path("client.crt")).set("ssl.key.location", path("client.key"));
    assert_eq!(enter(&client, ""), Ok(()));
}
