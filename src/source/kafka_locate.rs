//! Where in a topic a reading begins and ends: asked of the brokers before it starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::kafka_connection::{CONNECT_TIMEOUT, Consumer, KafkaConnection};
use super::kafka_health::{Health, ReaderContext};
use super::{Range, Start, Until};
use crate::error::{Code, Error, Result};

/// How long the library waits for one answer, so that a query that was cancelled meanwhile is noticed.
const ATTEMPT: Duration = Duration::from_millis(500);

/// How long the library may say what it has to between two attempts.
const SERVED: Duration = Duration::from_millis(20);

/// Part of a partition, by offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: i64,
    /// Behind the last message to read.
    pub(super) end: i64,
}

impl Span {
    pub(super) fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// The partitions of a topic.
///
/// # Errors
/// HV00N where the cluster does not answer in time, HV000 where there is no such topic or it may not be read.
pub(super) async fn partitions(
    connection: &Arc<KafkaConnection>,
    topic: &str,
    consumer: &Arc<Consumer>,
    health: &Arc<Health>,
) -> Result<Vec<i32>> {
    let topic = topic.to_string();
    ask(connection, consumer, health, move |question| question.partitions(&topic)).await
}

/// The topic's partitions if the brokers tell them at once; `None` if they say that there is no such topic.
pub(super) async fn partitions_now(topic: &str, consumer: &Arc<Consumer>) -> Result<Option<Vec<i32>>, KafkaError> {
    let (topic, consumer) = (topic.to_string(), Arc::clone(consumer));
    let asked = SpawnedTask::spawn_blocking(move || match consumer.client() {
        Ok(client) => partitions_of(client, &topic),
        Err(_) => Err(KafkaError::Canceled),
    });
    asked.await.unwrap_or(Err(KafkaError::Canceled))
}

/// Where partitions end at this moment, if all of their brokers tell it at once.
pub(super) async fn ends_now(
    topic: &str,
    partitions: Vec<i32>,
    consumer: &Arc<Consumer>,
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let (topic, consumer) = (topic.to_string(), Arc::clone(consumer));
    let asked = SpawnedTask::spawn_blocking(move || match consumer.client() {
        Ok(client) => offsets_of(client, &topic, &partitions, Offset::End),
        Err(_) => Err(KafkaError::Canceled),
    });
    asked.await.unwrap_or(Err(KafkaError::Canceled))
}

/// Where the range begins and ends in each partition.
///
/// # Errors
/// As [`partitions`]; 22023 for offsets that do not name the topic's partitions.
pub(super) async fn spans(
    connection: &Arc<KafkaConnection>,
    topic: &str,
    range: &Range,
    consumer: &Arc<Consumer>,
    health: &Arc<Health>,
) -> Result<BTreeMap<i32, Span>> {
    let (topic, range) = (topic.to_string(), range.clone());
    ask(connection, consumer, health, move |question| question.spans(&topic, &range)).await
}

/// The partitions with where to read them from, as the library wants it.
///
/// # Errors
/// XX000 for what no topic has.
pub(super) fn assignment(topic: &str, starts: impl Iterator<Item = (i32, i64)>) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, start) in starts {
        let added = list.add_partition_offset(topic, partition, Offset::Offset(start));
        added
            .map_err(|error| Error::internal(format!("partition {partition} cannot be read from {start}: {error}")))?;
    }
    Ok(list)
}

pub(super) fn no_topic(connection: &KafkaConnection, topic: &str) -> Error {
    let message = format!("topic \"{topic}\" does not exist at connection \"{}\"", connection.name());
    Error::new(Code::StoreFailed, message)
}

/// Asks on a thread that may wait; whoever drops this ends it.
async fn ask<T: Send + 'static>(
    connection: &Arc<KafkaConnection>,
    consumer: &Arc<Consumer>,
    health: &Arc<Health>,
    question: impl Fn(&Question) -> Result<T> + Send + 'static,
) -> Result<T> {
    let dropped = Dropped::default();
    let asking = Question {
        connection: Arc::clone(connection),
        consumer: Arc::clone(consumer),
        health: Arc::clone(health),
        dropped: Arc::clone(&dropped.0),
        deadline: Instant::now() + CONNECT_TIMEOUT,
        runtime: Handle::current(),
    };
    let asked = SpawnedTask::spawn_blocking(move || question(&asking));
    asked.await.map_err(|error| Error::internal(format!("asking Kafka did not end: {error}")))?
}

/// Tells a thread that nobody waits for it any more.
#[derive(Default)]
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A question to the brokers, asked until it is answered or there is no time left.
struct Question {
    connection: Arc<KafkaConnection>,
    consumer: Arc<Consumer>,
    health: Arc<Health>,
    dropped: Arc<AtomicBool>,
    deadline: Instant,
    runtime: Handle,
}

impl Question {
    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        match self.until_answered(|client| partitions_of(client, topic))? {
            Some(partitions) => Ok(partitions),
            None => Err(no_topic(&self.connection, topic)),
        }
    }

    fn spans(&self, topic: &str, range: &Range) -> Result<BTreeMap<i32, Span>> {
        let partitions = self.partitions(topic)?;
        let ask = |offset: Offset| self.until_answered(|client| offsets_of(client, topic, &partitions, offset));
        // Before anything else is asked: what comes meanwhile is behind them.
        let ends = ask(Offset::End)?;
        let starts = match &range.start {
            Start::Latest => ends.clone(),
            Start::Earliest => ask(Offset::Beginning)?,
            Start::Timestamp(microseconds) => {
                // Rounded up: a message of the millisecond before is older.
                let milliseconds = microseconds.div_euclid(1000) + i64::from(microseconds.rem_euclid(1000) > 0);
                ask(Offset::Offset(milliseconds.max(0)))?
            }
            Start::Offsets(offsets) => {
                let named = named_offsets(topic, &partitions, offsets)?;
                check_offsets(topic, &named, &ask(Offset::Beginning)?, &ends)?;
                named
            }
        };
        let span = |partition: &i32| {
            let high = ends.get(partition).copied();
            let high = high.ok_or_else(|| Error::internal(format!("partition {partition} of {topic} has no end")))?;
            // Partitions that have nothing so new begin at their end.
            let start = starts.get(partition).copied().unwrap_or(high);
            let end = if range.until == Until::Latest { high } else { i64::MAX };
            Ok((*partition, Span { start, end }))
        };
        partitions.iter().map(span).collect()
    }

    fn until_answered<T>(
        &self,
        question: impl Fn(&StreamConsumer<ReaderContext>) -> Result<T, KafkaError>,
    ) -> Result<T> {
        let client = self.consumer.client()?;
        // The demand for a token comes first.
        if self.connection.tokens().is_some() && self.is_refused(client) {
            return Err(self.connection.unavailable(&self.health.reason()));
        }
        loop {
            if self.dropped.load(Relaxed) {
                return Err(self.connection.timed_out(""));
            }
            let error = match question(client) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
                let message = format!("connection \"{}\" may not read the topic", self.connection.name());
                return Err(Error::new(Code::StoreFailed, message));
            }
            if self.is_refused(client) || is_refusal(&error) {
                return Err(self.connection.unavailable(&self.health.reason()));
            }
            if Instant::now() >= self.deadline {
                return Err(self.connection.timed_out(&self.health.reason()));
            }
        }
    }

    /// Serves what the library has to say for a moment, the demand for a token among it. Whether it says that it is not let
    /// in, which trying again would not change.
    fn is_refused(&self, client: &StreamConsumer<ReaderContext>) -> bool {
        let mut told = client.stream();
        let refused = async {
            while let Some(told) = told.next().await {
                if told.is_err_and(|error| is_refusal(&error)) {
                    return;
                }
            }
        };
        // On a thread that may wait.
        self.runtime.block_on(tokio::time::timeout(SERVED, refused)).is_ok()
    }
}

fn is_refusal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Authentication, SSL, SaslAuthenticationFailed};
    matches!(error.rdkafka_error_code(), Some(Authentication | SaslAuthenticationFailed | SSL))
}

fn partitions_of(client: &StreamConsumer<ReaderContext>, topic: &str) -> Result<Option<Vec<i32>>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), ATTEMPT)?;
    let Some(told) = metadata.topics().iter().find(|told| told.name() == topic) else { return Ok(None) };
    match told.error().map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(KafkaError::MetadataFetch(code)),
        None => {}
    }
    let mut partitions: Vec<i32> = told.partitions().iter().map(|partition| partition.id()).collect();
    partitions.sort_unstable();
    Ok((!partitions.is_empty()).then_some(partitions))
}

/// What the brokers say of `offset` in each partition: the end, the beginning, or the first message that is not older than
/// so many milliseconds since 1970. Partitions without such are left out.
fn offsets_of(
    client: &StreamConsumer<ReaderContext>,
    topic: &str,
    partitions: &[i32],
    offset: Offset,
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition_offset(topic, *partition, offset)?;
    }
    let told = client.offsets_for_times(asked, ATTEMPT)?;
    let known = told.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => Some((element.partition(), offset)),
        _ => None,
    });
    Ok(known.collect())
}

/// # Errors
/// 22023 for an offset that a partition does not have.
fn check_offsets(
    topic: &str,
    named: &BTreeMap<i32, i64>,
    beginnings: &BTreeMap<i32, i64>,
    ends: &BTreeMap<i32, i64>,
) -> Result<()> {
    for (partition, offset) in named {
        let low = beginnings.get(partition).copied().unwrap_or(0);
        let high = ends.get(partition).copied().unwrap_or(low);
        if !(low..=high).contains(offset) {
            let message = format!("partition {partition} of topic {topic} has no offset {offset}");
            let hint = format!("It has those from {low} to {high}, which comes next.");
            return Err(Error::new(Code::InvalidParameterValue, message).with_hint(hint));
        }
    }
    Ok(())
}

/// Every partition has to be named: of one that is not, nobody could tell whether it was forgotten.
fn named_offsets(topic: &str, partitions: &[i32], offsets: &[(i32, i64)]) -> Result<BTreeMap<i32, i64>> {
    let named: BTreeMap<i32, i64> = offsets.iter().copied().collect();
    let wrong = |message: String| {
        let all = partitions.iter().map(|partition| format!("{partition}:{}", named.get(partition).unwrap_or(&0)));
        let hint = format!("Name each partition once: start = '{}'.", all.collect::<Vec<_>>().join(","));
        Err(Error::new(Code::InvalidParameterValue, message).with_hint(hint))
    };
    if let Some(stranger) = named.keys().find(|partition| !partitions.contains(partition)) {
        return wrong(format!("topic {topic} has no partition {stranger}"));
    }
    match partitions.iter().find(|partition| !named.contains_key(partition)) {
        Some(missing) => wrong(format!("\"start\" names no offset for partition {missing} of topic {topic}")),
        None => Ok(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_name_every_partition_and_no_other() {
        assert_eq!(named_offsets("t", &[0, 1], &[(1, 7), (0, 5)]).unwrap(), BTreeMap::from([(0, 5), (1, 7)]));
        let missing = named_offsets("t", &[0, 1, 2], &[(1, 7)]).unwrap_err();
        assert_eq!(missing.message(), "\"start\" names no offset for partition 0 of topic t");
        assert_eq!(missing.hint(), Some("Name each partition once: start = '0:0,1:7,2:0'."));
        let stranger = named_offsets("t", &[0], &[(0, 1), (3, 7)]).unwrap_err();
        assert_eq!((stranger.sqlstate(), stranger.message()), ("22023", "topic t has no partition 3"));
    }

    #[test]
    fn a_span_without_messages_is_empty() {
        assert!(Span { start: 5, end: 5 }.is_empty());
        assert!(Span { start: 7, end: 5 }.is_empty());
        assert!(!Span { start: 4, end: 5 }.is_empty());
    }
}
