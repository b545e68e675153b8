//! `kafka`: the messages of a topic. Each reading has a client of its own, which joins no group and commits nothing.
//!
//! `kafka_connection.rs` makes clients, `kafka_locate.rs` finds where a reading begins and ends, `kafka_rows.rs` makes rows
//! of messages, and `kafka_health.rs` tells the client's user how it is. Here is what a reading does from its first
//! message to its last.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use futures::{FutureExt, StreamExt};
use rdkafka::consumer::{Consumer as _, MessageStream};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::kafka_connection::{Consumer, KafkaConnection};
use super::kafka_health::{Health, ReaderContext};
use super::kafka_locate::{self, Span, assignment};
use super::kafka_rows::{MessageRows, RowShape};
use super::progress::Progress;
use super::registry::{RegistryError, SchemaRegistry};
use super::{Range, RangeChoice, Reading, Source, StartKind, Until};
use crate::error::{Code, Error, Result};
use crate::format::OnMalformed;
use crate::format::avro_schema::AvroSchema;
use crate::format::message::malformed;

/// Batches that are read ahead.
const READ_AHEAD: usize = 2;
/// How often a reading looks whether it should do something else than read.
const TICK: Duration = Duration::from_secs(1);
/// How long a registry that does not answer is left alone.
const REGISTRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a topic may seem to be gone, as it does while brokers start.
const MISSING_TIMEOUT: Duration = Duration::from_secs(30);

/// A topic as declared.
pub struct KafkaStream {
    /// The stream's in the catalog.
    pub name: String,
    pub topic: String,
    /// What rows are made of.
    pub shape: RowShape,
    pub on_malformed: OnMalformed,
    /// How often to look for new partitions.
    pub discover_every: Duration,
    /// Who knows the schemas of messages, if they name one.
    pub registry: Option<Arc<SchemaRegistry>>,
    /// For people: the schema that the columns are of.
    pub schema_found: Option<String>,
}

impl fmt::Debug for KafkaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaStream").field("name", &self.name).field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The messages of a topic, as rows.
#[derive(Debug)]
pub struct KafkaSource {
    connection: Arc<KafkaConnection>,
    stream: Arc<KafkaStream>,
    progress: Arc<Progress>,
}

impl KafkaSource {
    pub fn new(connection: Arc<KafkaConnection>, stream: KafkaStream) -> Self {
        KafkaSource { connection, stream: Arc::new(stream), progress: Arc::default() }
    }
}

/// The stream's type, as in the catalog file.
impl fmt::Display for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kafka")
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.stream.shape.schema())
    }

    fn choice(&self) -> RangeChoice {
        let starts = &[StartKind::Latest, StartKind::Earliest, StartKind::Timestamp, StartKind::Offsets];
        RangeChoice { starts, until: true }
    }

    fn is_bounded(&self, range: &Range) -> bool {
        range.until == Until::Latest
    }

    fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    async fn found(&self) -> Result<String> {
        let health =
            Health::new(&self.stream.name, self.connection.brokers(), self.progress.enter(), Default::default());
        let consumer = self.connection.consumer(&health).await?;
        let partitions = kafka_locate::partitions(&self.connection, &self.stream.topic, &consumer, &health).await?;
        let noun = if partitions.len() == 1 { "partition" } else { "partitions" };
        let (topic, connection) = (&self.stream.topic, self.connection.name());
        let schema = self.stream.schema_found.as_ref().map(|schema| format!(", {schema}")).unwrap_or_default();
        Ok(format!("kafka topic {topic} of connection \"{connection}\", {} {noun}{schema}", partitions.len()))
    }

    async fn open(&self, reading: Reading) -> Result<SendableRecordBatchStream> {
        let Reading { range, projection, reader, notices } = reading;
        let health = Health::new(&self.stream.name, self.connection.brokers(), reader, notices);
        let rows = MessageRows::try_new(&self.stream, &projection, &self.progress)?;
        let consumer = self.connection.consumer(&health).await?;
        let spans = kafka_locate::spans(&self.connection, &self.stream.topic, &range, &consumer, &health).await?;
        health.begins(spans.iter().map(|(partition, span)| (*partition, span.start)));
        let unread: BTreeMap<i32, Span> = spans.iter().filter(|(_, span)| !span.is_empty()).map(copied).collect();
        let assigned = assignment(&self.stream.topic, unread.iter().map(|(partition, span)| (*partition, span.start)))?;
        consumer.client()?.assign(&assigned).map_err(|error| self.connection.unavailable(&error.to_string()))?;
        let run = Run {
            connection: Arc::clone(&self.connection),
            stream: Arc::clone(&self.stream),
            consumer,
            health,
            rows,
            known: spans.into_keys().collect(),
            unread,
            is_bounded: range.until == Until::Latest,
            missing_since: None,
        };
        let schema = Arc::new(self.schema().project(&projection)?);
        let mut builder = RecordBatchReceiverStreamBuilder::new(schema, READ_AHEAD);
        let sender = builder.tx();
        let progress = Arc::clone(&self.progress);
        builder.spawn(async move {
            if let Err(error) = run.read(&sender).await {
                progress.note(&error);
                // Behind the rows that were read before it: what a task returns may overtake them.
                let _ = sender.send(Err(error.into())).await;
            }
            Ok(())
        });
        Ok(builder.build())
    }
}

fn copied((partition, span): (&i32, &Span)) -> (i32, Span) {
    (*partition, *span)
}

type Batches = Sender<Result<RecordBatch, DataFusionError>>;

/// One reading.
struct Run {
    connection: Arc<KafkaConnection>,
    stream: Arc<KafkaStream>,
    consumer: Arc<Consumer>,
    health: Arc<Health>,
    rows: MessageRows,
    /// Partitions that are read or have been.
    known: Vec<i32>,
    /// Of a bounded reading, the partitions whose end has not been reached.
    unread: BTreeMap<i32, Span>,
    is_bounded: bool,
    missing_since: Option<Instant>,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Read,
    End,
}

impl Run {
    /// Reads until the end of the range, or until nobody wants more.
    async fn read(mut self, batches: &Batches) -> Result<()> {
        let consumer = Arc::clone(&self.consumer);
        let mut messages = consumer.client()?.stream();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut discovery = Instant::now() + self.stream.discover_every;
        while !(self.is_bounded && self.unread.is_empty()) {
            let Some(message) = next_of(&mut messages, &mut ticks).await else {
                self.tick(&mut discovery).await?;
                continue;
            };
            let taken = match self.take(message).await {
                Ok(()) => self.take_ready(&mut messages).await,
                Err(error) => Err(error),
            };
            // What was read before an error is sent before it.
            if self.send(batches).await? == Next::End {
                return Ok(());
            }
            taken?;
        }
        Ok(())
    }

    /// Takes messages that are there already, up to a batch's worth of them.
    async fn take_ready(&mut self, messages: &mut MessageStream<'_, ReaderContext>) -> Result<()> {
        while !self.rows.is_full() {
            match messages.next().now_or_never().flatten() {
                Some(message) => self.take(message).await?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn take(&mut self, message: Result<BorrowedMessage<'_>, KafkaError>) -> Result<()> {
        let message = match message {
            Ok(message) => message,
            Err(KafkaError::PartitionEOF(partition)) => {
                self.rows.send_soon();
                self.health.read_up_to(self.rows.positions());
                self.health.at_end(partition);
                self.reached(partition, i64::MAX);
                return Ok(());
            }
            Err(error) => return self.failed(&error),
        };
        self.missing_since = None;
        let (partition, offset) = (message.partition(), message.offset());
        if self.is_bounded && self.unread.get(&partition).is_none_or(|span| offset >= span.end) {
            self.reached(partition, offset);
            return Ok(());
        }
        while let Some(id) = self.rows.append(&message)? {
            match self.schema(id).await {
                Ok(schema) => self.rows.add_writer(id, &schema),
                Err(reason) => {
                    self.rows.refuse(&message, &malformed(reason))?;
                    break;
                }
            }
        }
        self.reached(partition, offset + 1);
        Ok(())
    }

    /// The schema of that number. A registry that is not there is waited for, as a broker is.
    ///
    /// # Errors
    /// Why messages that name it cannot be read.
    async fn schema(&self, id: u32) -> Result<Arc<AvroSchema>, String> {
        let Some(registry) = &self.stream.registry else {
            return Err(format!("the message names schema {id}, and no registry is declared"));
        };
        loop {
            match registry.by_id(id).await {
                Ok(Some(schema)) => {
                    self.health.found_registry();
                    return Ok(schema);
                }
                Ok(None) => return Err(format!("schema {id} is not known to the registry")),
                Err(RegistryError::Failed { message }) => return Err(message),
                Err(RegistryError::Unavailable { message }) => {
                    self.health.lost_registry(&message);
                    tokio::time::sleep(REGISTRY_PAUSE).await;
                }
            }
        }
    }

    /// Takes note that a bounded reading has come to an offset.
    fn reached(&mut self, partition: i32, next: i64) {
        if self.is_bounded && self.unread.get(&partition).is_some_and(|span| next >= span.end) {
            self.unread.remove(&partition);
        }
    }

    async fn send(&mut self, batches: &Batches) -> Result<Next> {
        self.health.read_up_to(self.rows.positions());
        let Some(batch) = self.rows.finish()? else { return Ok(Next::Read) };
        match batches.send(Ok(batch)).await {
            Ok(()) => Ok(Next::Read),
            Err(_) => Ok(Next::End),
        }
    }

    /// What the client library says instead of a message. Most of it passes: the library goes on by itself.
    fn failed(&mut self, error: &KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Rd;
        let (KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code)) = error else {
            return Err(self.ended(error));
        };
        let topic = &self.stream.topic;
        match code {
            Rd::OffsetOutOfRange | Rd::AutoOffsetReset => Err(Error::new(
                Code::ObjectNotReady,
                format!("reader of stream \"{}\" fell behind: topic {topic} does not have its next row any more", self.stream.name),
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

    /// What is done now and then.
    async fn tick(&mut self, discovery: &mut Instant) -> Result<()> {
        if let Some(tokens) = self.connection.tokens()
            && let Err(reason) = tokens.renew().await
        {
            tracing::warn!(connection = self.connection.name(), "{reason}");
        }
        let is_missing = self.missing_since.is_some();
        if self.is_bounded || (!is_missing && Instant::now() < *discovery) {
            return Ok(());
        }
        *discovery = Instant::now() + self.stream.discover_every;
        match kafka_locate::partitions_now(&self.stream.topic, &self.consumer).await {
            Ok(Some(found)) => {
                self.missing_since = None;
                self.assign_new(&found)
            }
            Ok(None) => self.is_missing(),
            // A broker that does not answer is told by the client library.
            Err(_) => Ok(()),
        }
    }

    fn is_missing(&mut self) -> Result<()> {
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        if since.elapsed() < MISSING_TIMEOUT {
            return Ok(());
        }
        Err(kafka_locate::no_topic(&self.connection, &self.stream.topic))
    }

    /// Partitions that are new are read from their beginning: all that is in them has come since.
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

/// The next message, or `None` when it is time to look at something else.
async fn next_of<'c>(
    messages: &mut MessageStream<'c, ReaderContext>,
    ticks: &mut Interval,
) -> Option<Result<BorrowedMessage<'c>, KafkaError>> {
    tokio::select! {
        message = messages.next() => message,
        _ = ticks.tick() => None,
    }
}
