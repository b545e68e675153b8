//! Changes as PostgreSQL's triggers tell them: notifications with the old and the new primary key.
//!
//! A message is JSON, `{"old": {"id": 7}, "new": {"id": 8}}`, either of which may be missing; whatever else comes means
//! that any row may have changed. `lookaside trigger` prints a trigger that sends such messages.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_postgres::{AsyncMessage, Client};

use super::postgres_connection::{Messages, PostgresConnection, describe};
use super::postgres_schema::quote_identifier;
use super::{Change, Changes, StoreError};
use crate::error::Result;
use crate::format::json::JsonDecoder;
use crate::format::json_path::JsonPath;

/// After so long a silence the server is asked whether it is still there.
const ASK_AFTER: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Messages that may wait to be taken in; past that, PostgreSQL keeps them.
const MAX_WAITING: usize = 4096;

/// What a table is told by.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub connection: Arc<PostgresConnection>,
    pub channel: String,
    /// Positions of the primary key in the table's schema; empty: messages cannot say what has changed.
    pub key_columns: Vec<usize>,
    /// The key's columns, none of which is NULL.
    pub key: SchemaRef,
}

impl Listener {
    pub fn new(
        connection: Arc<PostgresConnection>,
        channel: String,
        schema: &Schema,
        key_columns: Vec<usize>,
    ) -> Listener {
        let fields = key_columns.iter().map(|&position| schema.field(position).clone().with_nullable(false));
        let key = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Listener { connection, channel, key_columns, key }
    }

    /// Connects with the first poll.
    pub fn changes(self) -> Changes {
        let begin = async move {
            match self.begin().await {
                Ok(listening) => listening.changes(),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            }
        };
        futures::stream::once(begin).flatten().boxed()
    }

    async fn begin(self) -> Result<Listening, StoreError> {
        let (client, messages) = self.connection.connect_alone().await?;
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let mut driver = JoinSet::new();
        driver.spawn(pass_on(messages, sender));
        let mut listening = Listening { listener: self, client, waiting, _driver: driver, heard: Instant::now() };
        let listen = format!("LISTEN {}", quote_identifier(&listening.listener.channel));
        listening.ask(&listen).await?;
        Ok(listening)
    }

    /// What the messages say together.
    fn read(&self, messages: &[String]) -> Change {
        self.keys(messages).unwrap_or_else(|reason| {
            tracing::debug!("a notification on channel \"{}\" names no key: {reason}", self.channel);
            Change::Everything
        })
    }

    fn keys(&self, messages: &[String]) -> Result<Change, String> {
        if self.key_columns.is_empty() {
            return Err("the table has no primary key that it exposes".to_string());
        }
        let mut decoder = JsonDecoder::try_new(&self.key).map_err(|error| error.to_string())?;
        for message in messages {
            let mut is_empty = true;
            for side in ["old", "new"] {
                let row = JsonPath::member(side).find(message).map_err(|error| error.to_string())?;
                if let Some(row) = row.filter(|row| row.get() != "null") {
                    decoder.append(row.get()).map_err(|error| error.message)?;
                    is_empty = false;
                }
            }
            if is_empty {
                return Err("it has neither \"old\" nor \"new\"".to_string());
            }
        }
        let keys = decoder.finish().map_err(|error| error.to_string())?;
        Ok(Change::Keys { columns: self.key_columns.clone(), keys: keys.columns().to_vec() })
    }
}

/// A connection that listens.
struct Listening {
    listener: Listener,
    client: Client,
    waiting: mpsc::Receiver<Result<String, StoreError>>,
    /// Ends with the listening, and the connection with it.
    _driver: JoinSet<()>,
    /// When the server was last known to be there.
    heard: Instant,
}

impl Listening {
    fn changes(self) -> BoxStream<'static, Result<Change, StoreError>> {
        let begun = futures::stream::once(async { Ok(Change::Begun) });
        let changes = futures::stream::unfold(Some(self), async |listening| {
            let mut listening = listening?;
            match listening.next().await {
                Ok(change) => Some((Ok(change), Some(listening))),
                Err(error) => Some((Err(error), None)),
            }
        });
        begun.chain(changes).boxed()
    }

    /// All messages that have come, or the next one.
    async fn next(&mut self) -> Result<Change, StoreError> {
        loop {
            let mut messages = Vec::new();
            let silence = tokio::time::sleep_until(self.heard + ASK_AFTER);
            tokio::select! {
                count = self.waiting.recv_many(&mut messages, MAX_WAITING) => {
                    if count == 0 {
                        return Err(self.lost("the connection that listens was closed"));
                    }
                    self.heard = Instant::now();
                    let messages = messages.into_iter().collect::<Result<Vec<_>, _>>()?;
                    return Ok(self.listener.read(&messages));
                }
                () = silence => self.ask("").await?,
            }
        }
    }

    /// Runs a statement without rows. Messages wait meanwhile.
    async fn ask(&mut self, statement: &str) -> Result<(), StoreError> {
        match timeout(ANSWER_WITHIN, self.client.simple_query(statement)).await {
            Ok(Ok(_)) => {
                self.heard = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => Err(self.lost(&describe(&error))),
            Err(_) => Err(self.lost("no answer in time")),
        }
    }

    fn lost(&self, reason: &str) -> StoreError {
        self.listener.connection.unavailable(reason.to_string())
    }
}

/// Drives the connection, and hands over what comes unasked.
async fn pass_on(mut messages: Messages, sender: mpsc::Sender<Result<String, StoreError>>) {
    while let Some(message) = messages.next().await {
        let passed = match message {
            Ok(AsyncMessage::Notification(notification)) => Ok(notification.payload().to_string()),
            Ok(_) => continue,
            Err(error) => Err(StoreError::Unavailable { message: describe(&error) }),
        };
        if sender.send(passed).await.is_err() {
            return;
        }
    }
}
