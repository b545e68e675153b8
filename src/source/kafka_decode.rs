//! The other half of a reading of Kafka: messages as they were gathered in, batches of rows out.
//!
//! It is a task of its own, so that the client library is polled while messages are decoded.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use tokio::sync::mpsc::{Receiver, Sender};

use super::kafka::KafkaStream;
use super::kafka_gather::Gathered;
use super::kafka_health::Health;
use super::kafka_rows::MessageRows;
use super::registry::RegistryError;
use crate::error::{Code, Error, Result};
use crate::format::avro_schema::AvroSchema;
use crate::format::message::malformed;

/// How long a registry that does not answer is left alone.
const REGISTRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) type Batches = Sender<Result<RecordBatch, DataFusionError>>;

/// Decodes what a reading gathers.
pub(super) struct KafkaDecoding {
    pub(super) stream: Arc<KafkaStream>,
    pub(super) health: Arc<Health>,
    pub(super) rows: MessageRows,
    pub(super) batches: Batches,
}

/// Whether somebody wants more.
#[derive(PartialEq, Eq)]
enum Next {
    Read,
    End,
}

impl KafkaDecoding {
    /// Decodes until nothing more is gathered or nobody wants more. An error comes behind the rows before it.
    pub(super) async fn run(mut self, mut gathered: Receiver<Result<Gathered>>) {
        while let Some(next) = gathered.recv().await {
            let decoded = match next {
                Ok(messages) => self.decode(&messages).await,
                Err(error) => Err(error),
            };
            match decoded {
                Ok(Next::Read) => {}
                Ok(Next::End) => return,
                Err(error) => {
                    self.health.note(&error);
                    // What a task returns may overtake what it has sent.
                    let _ = self.batches.send(Err(error.into())).await;
                    return;
                }
            }
        }
    }

    async fn decode(&mut self, gathered: &Gathered) -> Result<Next> {
        let decoded = self.rows_of(gathered).await;
        // What stands before an error is sent before it.
        if self.send().await? == Next::End || decoded? == Next::End {
            return Ok(Next::End);
        }
        self.health.read_up_to(&gathered.positions());
        gathered.ended().iter().for_each(|partition| self.health.at_end(*partition));
        Ok(Next::Read)
    }

    async fn rows_of(&mut self, gathered: &Gathered) -> Result<Next> {
        for message in gathered.messages() {
            let value = gathered.value_of(message);
            while let Some(id) = self.rows.append(message, value)? {
                // What was read before goes on, however long the registry takes.
                if self.send().await? == Next::End {
                    return Ok(Next::End);
                }
                match self.schema(id).await? {
                    Ok(schema) => self.rows.add_writer(id, &schema),
                    Err(reason) => {
                        self.rows.refuse(message, &malformed(reason))?;
                        break;
                    }
                }
            }
            if self.rows.is_full() && self.send().await? == Next::End {
                return Ok(Next::End);
            }
        }
        Ok(Next::Read)
    }

    /// Sends the rows there are, when there is room for them.
    async fn send(&mut self) -> Result<Next> {
        let Some(batch) = self.rows.finish()? else { return Ok(Next::Read) };
        match self.batches.send(Ok(batch)).await {
            Ok(()) => Ok(Next::Read),
            Err(_) => Ok(Next::End),
        }
    }

    /// The schema of that number, or why messages that name it cannot be read. A registry that is not there is waited for,
    /// as a broker is.
    ///
    /// # Errors
    /// HV000 for a registry that does not let us ask.
    async fn schema(&self, id: u32) -> Result<Result<Arc<AvroSchema>, String>> {
        let Some(registry) = &self.stream.registry else {
            return Ok(Err(format!("the message names schema {id}, and no registry is declared")));
        };
        loop {
            match registry.by_id(id).await {
                Ok(Some(schema)) => {
                    self.health.found_registry();
                    return Ok(Ok(schema));
                }
                Ok(None) => return Ok(Err(format!("schema {id} is not known to the registry"))),
                Err(RegistryError::Failed { message }) => return Ok(Err(message)),
                Err(RegistryError::Refused { message }) => {
                    let message = format!("stream \"{}\" has no schema: {message}", self.stream.name);
                    return Err(Error::new(Code::StoreFailed, message));
                }
                Err(RegistryError::Unavailable { message }) => {
                    self.health.lost_registry(&message);
                    tokio::time::sleep(REGISTRY_PAUSE).await;
                }
            }
        }
    }
}
