//! `kafka`: the messages of a topic. Each reading has a client of its own, which joins no group and commits nothing.
//!
//! `kafka_connection.rs` makes clients (`kafka_token.rs`: how some log in), `kafka_locate.rs` finds where a reading begins and
//! ends, `kafka_reading.rs` reads, `kafka_gather.rs` is what it hands to `kafka_decode.rs`, `kafka_rows.rs` makes rows of messages, and `kafka_health.rs` tells how the reading is.
//! `kafka_avro.rs` is for topics whose columns a registry of schemas knows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use rdkafka::consumer::Consumer as _;

use super::kafka_connection::KafkaConnection;
use super::kafka_decode::KafkaDecoding;
use super::kafka_health::Health;
use super::kafka_locate::{self, assignment};
use super::kafka_reading::KafkaReading;
use super::kafka_rows::{MessageRows, RowShape};
use super::progress::Progress;
use super::registry::SchemaRegistry;
use super::{Range, RangeChoice, Reading, Source, StartKind, Until};
use crate::error::Result;
use crate::format::OnMalformed;

/// Batches that are read ahead.
const READ_AHEAD: usize = 2;

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
        let unread = spans.iter().filter(|(_, span)| !span.is_empty());
        let assigned = assignment(&self.stream.topic, unread.map(|(partition, span)| (*partition, span.start)))?;
        consumer.client()?.assign(&assigned).map_err(|error| self.connection.unavailable(&error.to_string()))?;
        let schema = Arc::new(self.schema().project(&projection)?);
        let mut builder = RecordBatchReceiverStreamBuilder::new(schema, READ_AHEAD);
        let is_bounded = range.until == Until::Latest;
        let to = (&self.connection, &self.stream);
        let (gathered, decoded) = tokio::sync::mpsc::channel(1);
        let fields = rows.fields().to_vec();
        let reading = KafkaReading::new(to, (consumer, Arc::clone(&health)), fields, spans, is_bounded, gathered);
        let decoding = KafkaDecoding { stream: Arc::clone(&self.stream), health, rows, batches: builder.tx() };
        builder.spawn(async move {
            reading.run().await;
            Ok(())
        });
        builder.spawn(async move {
            decoding.run(decoded).await;
            Ok(())
        });
        Ok(builder.build())
    }
}
