//! How a reading of Kafka is: what its client is told of errors, and how far it has come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::kafka_token::TokenSource;
use super::progress::Reader;
use crate::error::{Code, Error};
use crate::notice::Notices;

/// How many offsets behind the last message are taken for marks of transactions, where the broker has said that there is
/// nothing more.
const MARKS: i64 = 10;

/// Whether a reading has its brokers, and what it is told of them.
pub(super) struct Health {
    stream: String,
    /// As the catalog names them.
    brokers: String,
    reader: Reader,
    notices: Notices,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of what the client was told that it is gone, and not yet that it is back.
    awaited: Option<Awaited>,
    /// What the library said last.
    reason: String,
    /// The offset to be read next of each partition; beyond the last message there may be marks of transactions.
    positions: BTreeMap<i32, Position>,
}

/// What a reading cannot go on without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Broker,
    Registry,
}

impl Awaited {
    fn name(self) -> &'static str {
        match self {
            Awaited::Broker => "broker",
            Awaited::Registry => "schema registry",
        }
    }
}

#[derive(Clone, Copy)]
struct Position {
    next: i64,
    /// Whether the broker has said that there is nothing behind.
    at_end: bool,
}

impl Health {
    pub(super) fn new(stream: &str, brokers: &str, reader: Reader, notices: Notices) -> Arc<Self> {
        let (stream, brokers) = (stream.to_string(), brokers.to_string());
        Arc::new(Health { stream, brokers, reader, notices, state: Mutex::default() })
    }

    /// Takes note of what ended the reading.
    pub(super) fn note(&self, error: &Error) {
        self.reader.progress().note(error);
    }

    /// What the library said last; empty if nothing.
    pub(super) fn reason(&self) -> String {
        self.state().reason.clone()
    }

    /// Takes note of where the partitions are read from.
    pub(super) fn begins(&self, positions: impl IntoIterator<Item = (i32, i64)>) {
        let mut state = self.state();
        state
            .positions
            .extend(positions.into_iter().map(|(partition, next)| (partition, Position { next, at_end: false })));
    }

    /// Takes note of how far the reading has come, by partition.
    pub(super) fn read_up_to(&self, positions: &BTreeMap<i32, i64>) {
        let mut state = self.state();
        for (partition, next) in positions {
            if let Some(position) = state.positions.get_mut(partition).filter(|position| position.next < *next) {
                *position = Position { next: *next, at_end: false };
            }
        }
    }

    /// The broker has nothing more of this partition for now.
    pub(super) fn at_end(&self, partition: i32) {
        if let Some(position) = self.state().positions.get_mut(&partition) {
            position.at_end = true;
        }
    }

    /// A broker is gone. Told once until it is back.
    pub(super) fn lost(&self, error: &KafkaError) {
        let told = self.reason();
        let reason = match (told.is_empty(), error.rdkafka_error_code()) {
            (false, _) => told,
            (true, Some(RDKafkaErrorCode::AllBrokersDown)) => format!("{}: the connection is down", self.brokers),
            (true, Some(code)) => format!("{}: {code}", self.brokers),
            (true, None) => format!("{}: {error}", self.brokers),
        };
        self.waits_for(Awaited::Broker, &reason);
    }

    /// The registry of schemas does not answer. Told once until it does.
    pub(super) fn lost_registry(&self, reason: &str) {
        self.waits_for(Awaited::Registry, reason);
    }

    fn waits_for(&self, awaited: Awaited, reason: &str) {
        if self.state().awaited.replace(awaited) == Some(awaited) {
            return;
        }
        let message = format!("stream \"{}\" waits for its {}: {reason}", self.stream, awaited.name());
        tracing::warn!("{message}");
        self.reader.set_waiting(true);
        self.reader.progress().note(&Error::new(Code::StoreUnavailable, reason));
        let hint = format!("Rows go on where they stopped when the {} is back.", awaited.name());
        self.notices.tell(Error::new(Code::Notice, message).with_hint(hint));
    }

    /// The registry has answered.
    pub(super) fn found_registry(&self) {
        self.has_back(Awaited::Registry);
    }

    fn has_back(&self, awaited: Awaited) {
        let mut state = self.state();
        if state.awaited != Some(awaited) {
            return;
        }
        state.awaited = None;
        state.reason.clear();
        drop(state);
        let message = format!("stream \"{}\" has its {} back", self.stream, awaited.name());
        tracing::info!("{message}");
        self.reader.set_waiting(false);
        self.notices.tell(Error::new(Code::Notice, message));
    }

    /// Every broker that is read from has told where its partitions end: so all are there, and what is left is known.
    pub(super) fn ends(&self, ends: &BTreeMap<i32, i64>) {
        let state = self.state();
        let behind = state.positions.iter().map(|(partition, position)| match ends.get(partition) {
            Some(end) if position.at_end && end - position.next <= MARKS => 0,
            Some(end) => (end - position.next).max(0) as u64,
            None => 0,
        });
        let lag = behind.sum();
        drop(state);
        self.reader.set_lag(Some(lag));
        self.has_back(Awaited::Broker);
    }

    /// Whether a broker is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.state().awaited == Some(Awaited::Broker)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the library calls back.
pub(super) struct ReaderContext {
    pub(super) health: Arc<Health>,
    pub(super) tokens: Option<Arc<TokenSource>>,
}

impl ClientContext for ReaderContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(stream = self.health.stream, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That the last of them is gone says less than why; the end of a partition is no failure.
        let says_nothing =
            matches!(error, KafkaError::Global(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::PartitionEOF));
        if !says_nothing {
            self.health.state().reason = plain(reason);
        }
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let tokens = self.tokens.as_ref().ok_or("no tokens are declared")?;
        Ok(tokens.current().ok_or("there is no token that has not expired")?)
    }
}

impl ConsumerContext for ReaderContext {}

/// What the library says, without what only its authors can use: `GroupCoordinator: 127.0.0.1:9092: Connect to
/// ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)`.
fn plain(reason: &str) -> String {
    let reason = reason.strip_prefix("GroupCoordinator: ").unwrap_or(reason);
    let reason = reason.rsplit_once(" (after ").map_or(reason, |(plain, _)| plain);
    reason.replace("ipv4#", "").replace("ipv6#", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_without_the_librarys_own_words() {
        let reason = "GroupCoordinator: 127.0.0.1:9092: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)";
        assert_eq!(plain(reason), "127.0.0.1:9092: Connect to 127.0.0.1:9092 failed: Connection refused");
        assert_eq!(plain("1/1 brokers are down"), "1/1 brokers are down");
    }
}
