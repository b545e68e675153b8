//! A cluster of Kafka's, and clients of it: one for each reading, which joins no group and commits nothing.

use std::fmt;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::StreamConsumer;
use tokio::runtime::Handle;

use super::kafka_health::{Health, ReaderContext};
use super::kafka_token::{TokenConfig, TokenSource};
use crate::error::{Code, Error, Result};
use crate::quantity::show_duration;
use crate::store::postgres::SslMode;
use crate::store::postgres_tls::trusted_certificates;

/// How long a query waits for a cluster that does not answer when it begins.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a reading's client may hold of messages that were fetched and not read yet.
const FETCHED_KILOBYTES: &str = "16384";

/// How a cluster is reached.
#[derive(Clone, PartialEq)]
pub struct KafkaConfig {
    /// `HOST:PORT`, several with commas between them.
    pub brokers: String,
    pub sslmode: SslMode,
    /// Certificates to trust instead of the system's.
    pub sslrootcert: Option<PathBuf>,
    /// The client's own certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub sasl: Option<Sasl>,
}

/// How a client says who it is.
#[derive(Clone, PartialEq)]
pub enum Sasl {
    Password { mechanism: PasswordMechanism, user: String, password: String },
    OAuthBearer(TokenConfig),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl PasswordMechanism {
    /// SASL's own name, which is the catalog's as well.
    pub fn name(self) -> &'static str {
        match self {
            PasswordMechanism::Plain => "PLAIN",
            PasswordMechanism::ScramSha256 => "SCRAM-SHA-256",
            PasswordMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Without secrets.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

/// A cluster that need not have been reached.
pub struct KafkaConnection {
    name: String,
    brokers: String,
    client: ClientConfig,
    tokens: Option<Arc<TokenSource>>,
}

impl KafkaConnection {
    /// # Errors
    /// 22023 for certificates that cannot be read, and for what the client library does not take.
    pub fn try_new(name: String, config: KafkaConfig) -> Result<Arc<Self>> {
        let mut client = ClientConfig::new();
        // Its lines are told as debug of our own log: what matters comes as an error.
        client.set_log_level(RDKafkaLogLevel::Warning);
        client.set("bootstrap.servers", &config.brokers).set("client.id", "lookaside");
        without_traces(&mut client);
        for (key, value) in READER_SETTINGS {
            client.set(key, value);
        }
        encrypt(&mut client, &config)?;
        let tokens = match &config.sasl {
            Some(Sasl::Password { mechanism, user, password }) => {
                client.set("sasl.mechanism", mechanism.name());
                client.set("sasl.username", user).set("sasl.password", password);
                None
            }
            Some(Sasl::OAuthBearer(token)) => {
                client.set("sasl.mechanism", "OAUTHBEARER");
                Some(TokenSource::try_new(token.clone())?)
            }
            None => None,
        };
        let connection = KafkaConnection { name, brokers: config.brokers, client, tokens };
        // What is wrong with a setting is told when the catalog is read.
        connection.client.create_native_config().map_err(|error| connection.refused(&error))?;
        Ok(Arc::new(connection))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// As the catalog names them.
    pub(super) fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Where the tokens come from that clients show, if they show tokens.
    pub(super) fn tokens(&self) -> Option<&Arc<TokenSource>> {
        self.tokens.as_ref()
    }

    /// A client of its own for a reading. Connects by itself, some time after this returns.
    ///
    /// # Errors
    /// HV00N where no token is to be had; 22023 for what the client library does not take.
    pub(super) async fn consumer(&self, health: &Arc<Health>) -> Result<Arc<Consumer>> {
        if let Some(tokens) = &self.tokens {
            let ready = tokio::time::timeout(CONNECT_TIMEOUT, tokens.ready()).await;
            ready.unwrap_or(Err("no token in time".to_string())).map_err(|reason| self.unavailable(&reason))?;
        }
        let context = ReaderContext { health: Arc::clone(health), tokens: self.tokens.clone() };
        let (config, runtime) = (self.client.clone(), Handle::current());
        // It reads certificates and starts threads.
        let made = SpawnedTask::spawn_blocking(move || {
            let _runtime = runtime.enter();
            config.create_with_context::<_, StreamConsumer<ReaderContext>>(context)
        });
        match made.join().await.map_err(|error| Error::internal(format!("no client of Kafka's was made: {error}")))? {
            Ok(client) => Ok(Arc::new(Consumer { client: Some(client) })),
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// HV00N with the reason.
    pub(super) fn unavailable(&self, reason: &str) -> Error {
        let mut message = format!("kafka at {} (connection \"{}\") is not available", self.brokers, self.name);
        if !reason.is_empty() {
            // A String takes all that is written.
            let _ = write!(message, ": {reason}");
        }
        Error::new(Code::StoreUnavailable, message)
    }

    pub(super) fn timed_out(&self, reason: &str) -> Error {
        match reason {
            "" => self.unavailable(&format!("no answer within {}", show_duration(CONNECT_TIMEOUT))),
            reason => self.unavailable(reason),
        }
    }

    fn refused(&self, error: &rdkafka::error::KafkaError) -> Error {
        let message = format!("connection \"{}\" cannot be set up: {error}", self.name);
        Error::new(Code::InvalidParameterValue, message)
    }
}

impl fmt::Debug for KafkaConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConnection").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How messages are fetched: as soon as there is one, with a bound, and from nowhere but where the reading stands.
const READER_SETTINGS: [(&str, &str); 10] = [
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    ("isolation.level", "read_committed"),
    ("fetch.wait.max.ms", "500"),
    ("fetch.queue.backoff.ms", "10"),
    ("queued.max.messages.kbytes", FETCHED_KILOBYTES),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    // A connection on which nothing comes back is given up, so that another is tried.
    ("socket.timeout.ms", "10000"),
];

/// The library assigns partitions by hand only to clients that have a group's name. It is never joined, and nothing is
/// committed under it.
fn without_traces(client: &mut ClientConfig) {
    client.set("group.id", "lookaside");
    client.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    client.set("allow.auto.create.topics", "false");
}

fn encrypt(client: &mut ClientConfig, config: &KafkaConfig) -> Result<()> {
    let protocol = match (config.sslmode, &config.sasl) {
        (SslMode::Disable, None) => "plaintext",
        (SslMode::Disable, Some(_)) => "sasl_plaintext",
        (SslMode::VerifyFull, None) => "ssl",
        (SslMode::VerifyFull, Some(_)) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if config.sslmode == SslMode::Disable {
        return Ok(());
    }
    client.set("ssl.endpoint.identification.algorithm", "https");
    if let Some(path) = &config.sslrootcert {
        // Read once here, so that a mistake is told as that of any other connection.
        trusted_certificates(Some(path))?;
        client.set("ssl.ca.location", path.display().to_string());
    }
    if let Some((certificate, key)) = &config.certificate {
        client.set("ssl.certificate.location", certificate.display().to_string());
        client.set("ssl.key.location", key.display().to_string());
    }
    Ok(())
}

/// The client of one reading. Its end may take a moment, so it is left to a thread that may wait.
pub(super) struct Consumer {
    /// There until it is dropped.
    client: Option<StreamConsumer<ReaderContext>>,
}

impl Consumer {
    /// # Errors
    /// XX000 for one that has ended, which nobody holds.
    pub(super) fn client(&self) -> Result<&StreamConsumer<ReaderContext>> {
        self.client.as_ref().ok_or_else(|| Error::internal("a client of Kafka's was used after its end"))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let client = self.client.take();
        match Handle::try_current() {
            Ok(runtime) => {
                // Nobody has to wait for its threads to end.
                drop(runtime.spawn_blocking(move || drop(client)));
            }
            Err(_) => drop(client),
        }
    }
}
