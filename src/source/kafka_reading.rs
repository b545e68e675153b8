//! One reading of a topic, from its first message to its last.
//!
//! A task of its own polls the client library, which fetches behind it, and hands messages to who decodes them. Those that
//! are there already are taken without waiting and go together; then it waits for the next, for room, or for its clock. On
//! the clock it looks at what a reader who only waits would not notice: new partitions, how far behind it is, whether its
//! brokers are back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use futures::{FutureExt, StreamExt};
use rdkafka::consumer::{Consumer as _, MessageStream};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::kafka::KafkaStream;
use super::kafka_connection::{Consumer, KafkaConnection};
use super::kafka_gather::Gathered;
use super::kafka_health::{Health, ReaderContext};
use super::kafka_locate::{self, Span, assignment};
use super::kafka_rows::MessageField;
use crate::error::{Code, Error, Result};

/// How often a reading looks whether it should do something else than read.
const TICK: Duration = Duration::from_secs(1);
/// How often it asks how far behind it is, in ticks.
const TICKS_BETWEEN_ENDS: u32 = 5;
/// How long a topic may seem to be gone, as it does while brokers start.
const MISSING_TIMEOUT: Duration = Duration::from_secs(30);

type Asked<T> = Option<SpawnedTask<Result<T, KafkaError>>>;

/// A reading that has been located and assigned.
pub(super) struct KafkaReading {
    connection: Arc<KafkaConnection>,
    stream: Arc<KafkaStream>,
    consumer: Arc<Consumer>,
    health: Arc<Health>,
    /// What is asked for of what Kafka says of messages.
    fields: Vec<MessageField>,
    gathered: Gathered,
    /// To who decodes.
    decoding: Sender<Result<Gathered>>,
    ticks: Interval,
    /// Partitions that are read or have been.
    known: Vec<i32>,
    /// Of a bounded reading, the partitions whose end has not been reached; `None`: it does not end.
    unread: Option<BTreeMap<i32, Span>>,
    /// Unread partitions of which the brokers have nothing more. Their end may lie behind marks of transactions.
    exhausted: BTreeSet<i32>,
    ends: Asked<BTreeMap<i32, i64>>,
    ticks_to_ends: u32,
    partitions: Asked<Option<Vec<i32>>>,
    discovery: Instant,
    missing_since: Option<Instant>,
}

/// Whether somebody wants more.
#[derive(PartialEq, Eq)]
enum Next {
    Read,
    End,
}

impl KafkaReading {
    /// `spans` are those of all partitions of the topic, of which the consumer has been assigned those that are not empty.
    pub(super) fn new(
        (connection, stream): (&Arc<KafkaConnection>, &Arc<KafkaStream>),
        (consumer, health): (Arc<Consumer>, Arc<Health>),
        fields: Vec<MessageField>,
        spans: BTreeMap<i32, Span>,
        is_bounded: bool,
        decoding: Sender<Result<Gathered>>,
    ) -> Self {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let known = spans.keys().copied().collect();
        KafkaReading {
            connection: Arc::clone(connection),
            stream: Arc::clone(stream),
            consumer,
            health,
            fields,
            gathered: Gathered::default(),
            decoding,
            ticks,
            known,
            unread: is_bounded.then(|| spans.into_iter().filter(|(_, span)| !span.is_empty()).collect()),
            exhausted: BTreeSet::new(),
            ends: None,
            ticks_to_ends: 0,
            partitions: None,
            discovery: Instant::now() + stream.discover_every,
            missing_since: None,
        }
    }

    /// Reads until the end of the range, or until nobody wants more. An error comes behind the messages before it.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.read().await {
            let _ = self.decoding.send(Err(error)).await;
        }
    }

    async fn read(&mut self) -> Result<()> {
        let consumer = Arc::clone(&self.consumer);
        let mut messages = consumer.client()?.stream();
        while self.unread.as_ref().is_none_or(|unread| !unread.is_empty()) {
            // The client library knows nothing of fairness between tasks.
            tokio::task::coop::consume_budget().await;
            let message = tokio::select! {
                message = messages.next() => message,
                _ = self.ticks.tick() => None,
            };
            let Some(message) = message else {
                self.tick()?;
                continue;
            };
            let taken = match self.take(message).await {
                Ok(()) => self.take_ready(&mut messages).await,
                Err(error) => Err(error),
            };
            if self.send().await? == Next::End {
                return Ok(());
            }
            taken?;
        }
        Ok(())
    }

    /// Takes messages that are there already, up to a batch's worth of them.
    async fn take_ready(&mut self, messages: &mut MessageStream<'_, ReaderContext>) -> Result<()> {
        while !self.gathered.is_full() {
            let Some(message) = messages.next().now_or_never().flatten() else { break };
            self.take(message).await?;
        }
        Ok(())
    }

    async fn take(&mut self, message: Result<BorrowedMessage<'_>, KafkaError>) -> Result<()> {
        let message = match message {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(partition)) => return self.exhausted(partition).await,
            Err(error) => return self.failed(&error),
        };
        self.missing_since = None;
        let (partition, offset) = (message.partition(), message.offset());
        if self.is_behind_end(partition, offset) {
            self.gathered.send_soon();
            return self.reached(partition, offset);
        }
        self.gathered.push(&message, &self.fields);
        self.reached(partition, offset + 1)
    }

    fn is_behind_end(&self, partition: i32, offset: i64) -> bool {
        let end = |unread: &BTreeMap<i32, Span>| unread.get(&partition).map_or(i64::MIN, |span| span.end);
        self.unread.as_ref().is_some_and(|unread| offset >= end(unread))
    }

    /// Takes note that a bounded reading has come to an offset. What lies behind its end is not fetched any more.
    fn reached(&mut self, partition: i32, next: i64) -> Result<()> {
        let Some(unread) = &mut self.unread else { return Ok(()) };
        if unread.get(&partition).is_none_or(|span| next < span.end) {
            return Ok(());
        }
        unread.remove(&partition);
        self.exhausted.remove(&partition);
        let done = assignment(&self.stream.topic, std::iter::once((partition, next)))?;
        let left = self.consumer.client()?.incremental_unassign(&done);
        left.map_err(|error| self.ended(&error))
    }

    /// The brokers have nothing more of a partition for now.
    async fn exhausted(&mut self, partition: i32) -> Result<()> {
        self.gathered.end(partition);
        if self.unread.as_ref().is_some_and(|unread| unread.contains_key(&partition)) {
            // A broker that has just taken over may know of less than its predecessor did.
            self.exhausted.insert(partition);
            let ends = kafka_locate::ends_now(&self.stream.topic, vec![partition], &self.consumer).await;
            self.take_ends(ends)?;
        }
        Ok(())
    }

    fn take_ends(&mut self, ends: Result<BTreeMap<i32, i64>, KafkaError>) -> Result<()> {
        // Brokers that do not answer are told of by the client library.
        let Ok(ends) = ends else { return Ok(()) };
        let at_end = ends.iter().filter(|(partition, _)| self.exhausted.contains(partition));
        for (partition, end) in at_end.map(|(partition, end)| (*partition, *end)).collect::<Vec<_>>() {
            self.reached(partition, end)?;
        }
        if self.known.iter().all(|partition| ends.contains_key(partition)) {
            self.health.ends(&ends);
        }
        Ok(())
    }

    /// Hands on what was gathered. While there is no room for it nothing is read, and the client library stops to fetch.
    async fn send(&mut self) -> Result<Next> {
        if self.gathered.is_empty() {
            return Ok(Next::Read);
        }
        let next = Gathered::like(&self.gathered);
        let gathered = std::mem::replace(&mut self.gathered, next);
        let decoding = self.decoding.clone();
        let mut looked = Ok(());
        let room = loop {
            tokio::select! {
                biased;
                room = decoding.reserve() => break room,
                _ = self.ticks.tick(), if looked.is_ok() => looked = self.tick(),
            }
        };
        match room {
            Ok(room) => room.send(Ok(gathered)),
            Err(_) => return Ok(Next::End),
        }
        looked.map(|()| Next::Read)
    }

    /// What the client library says instead of a message. Most of it passes: the library goes on by itself.
    fn failed(&mut self, error: &KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Rd;
        let (KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code)) = error else {
            return Err(self.ended(error));
        };
        let (name, topic) = (&self.stream.name, &self.stream.topic);
        match code {
            Rd::OffsetOutOfRange | Rd::AutoOffsetReset => Err(Error::new(
                Code::ObjectNotReady,
                format!("reader of stream \"{name}\" fell behind: topic {topic} does not have its next row any more"),
            )
            .with_detail(self.health.reason())
            .with_hint("The broker keeps rows for a time or up to a size (retention.ms, retention.bytes). Begin anew with start = 'earliest'.")),
            Rd::TopicAuthorizationFailed => Err(Error::new(
                Code::StoreFailed,
                format!("connection \"{}\" may not read topic {topic}", self.connection.name()),
            )),
            Rd::UnknownTopicOrPartition | Rd::UnknownTopic | Rd::UnknownPartition => {
                self.missing_since.get_or_insert_with(Instant::now);
                self.health.lost(error);
                Ok(())
            }
            // No group is joined, so what is said of it does not matter.
            Rd::GroupAuthorizationFailed | Rd::CoordinatorNotAvailable | Rd::NotCoordinator => Ok(()),
            Rd::BadMessage | Rd::InvalidMessage | Rd::BadCompression | Rd::MessageSizeTooLarge => Err(self.ended(error)),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(self.ended(error)),
            _ => {
                self.health.lost(error);
                Ok(())
            }
        }
    }

    fn ended(&self, error: &KafkaError) -> Error {
        let message = format!("stream \"{}\" cannot be read: {error}", self.stream.name);
        Error::new(Code::StoreFailed, message).with_detail(self.health.reason())
    }

    /// What is done now and then. Nothing is waited for: what was asked is looked at when it is there.
    fn tick(&mut self) -> Result<()> {
        if let Some(tokens) = self.connection.tokens() {
            tokens.renew_when_due();
        }
        if let Some(ends) = answer(&mut self.ends) {
            self.take_ends(ends)?;
        }
        self.ticks_to_ends = self.ticks_to_ends.saturating_sub(1);
        let is_urgent = self.health.is_waiting() || !self.exhausted.is_empty();
        if self.ends.is_none() && (is_urgent || self.ticks_to_ends == 0) {
            self.ticks_to_ends = TICKS_BETWEEN_ENDS;
            let (stream, consumer) = (Arc::clone(&self.stream), Arc::clone(&self.consumer));
            let known = self.known.clone();
            let asked = async move { kafka_locate::ends_now(&stream.topic, known, &consumer).await };
            self.ends = Some(SpawnedTask::spawn(asked));
        }
        self.look_for_partitions()
    }

    fn look_for_partitions(&mut self) -> Result<()> {
        match answer(&mut self.partitions) {
            Some(Ok(Some(found))) => {
                self.missing_since = None;
                if self.unread.is_none() {
                    self.assign_new(&found)?;
                }
            }
            Some(Ok(None)) => self.is_missing()?,
            // A broker that does not answer is told of by the client library.
            Some(Err(_)) | None => {}
        }
        let is_due = self.unread.is_none() && Instant::now() >= self.discovery;
        if self.partitions.is_none() && (is_due || self.missing_since.is_some()) {
            self.discovery = Instant::now() + self.stream.discover_every;
            let (stream, consumer) = (Arc::clone(&self.stream), Arc::clone(&self.consumer));
            let asked = async move { kafka_locate::partitions_now(&stream.topic, &consumer).await };
            self.partitions = Some(SpawnedTask::spawn(asked));
        }
        Ok(())
    }

    fn is_missing(&mut self) -> Result<()> {
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        if since.elapsed() < MISSING_TIMEOUT {
            return Ok(());
        }
        Err(kafka_locate::no_topic(&self.connection, &self.stream.topic))
    }

    /// Partitions that are new are read from their first message: all that is in them has come since.
    fn assign_new(&mut self, found: &[i32]) -> Result<()> {
        let new: Vec<i32> = found.iter().copied().filter(|partition| !self.known.contains(partition)).collect();
        if new.is_empty() {
            return Ok(());
        }
        tracing::info!(stream = self.stream.name, partitions = ?new, "new partitions are read");
        let assigned = assignment(&self.stream.topic, new.iter().map(|partition| (*partition, 0)))?;
        let assigned = self.consumer.client()?.incremental_assign(&assigned);
        assigned.map_err(|error| self.ended(&error))?;
        self.health.begins(new.iter().map(|partition| (*partition, 0)));
        self.known.extend(new);
        Ok(())
    }
}

/// What was asked for, if the answer is there.
fn answer<T>(asked: &mut Asked<T>) -> Option<Result<T, KafkaError>> {
    let answered = asked.as_mut()?.now_or_never()?;
    *asked = None;
    Some(answered.unwrap_or(Err(KafkaError::Canceled)))
}
