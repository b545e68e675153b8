//! What Redis tells of changes: client-side caching, for all keys that begin as a template does.
//!
//! A connection of its own to each master, which speaks RESP3. What it says unasked are keys that were changed, expired or
//! evicted, or that all were (FLUSHALL). The stream ends when one of the connections breaks, or says nothing to a ping, or
//! when the cluster has other masters: whatever changed meanwhile was told to nobody.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream;
use redis::{Pipeline, PushInfo, PushKind, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};

use super::redis_connection::RedisConnection;
use super::redis_key::read_keys;
use super::redis_node::{Link, Node};
use super::redis_template::KeyTemplate;
use super::{Change, Changes, StoreError};
use crate::pg_type::PgType;

/// How often a connection that says nothing is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that may wait to be taken in. When there are more, everything counts as changed.
const MESSAGES: usize = 10_000;
/// Changes that may wait for whoever listens.
const CHANGES: usize = 100;

/// Who wants to know of changes.
pub(super) struct Tracker {
    pub connection: Arc<RedisConnection>,
    pub template: KeyTemplate,
    /// Positions of the template's columns in the table, and their types.
    pub columns: Vec<usize>,
    pub types: Vec<PgType>,
}

/// What a connection says unasked.
#[derive(Clone)]
struct Messages {
    sender: mpsc::Sender<PushInfo>,
    /// Whether some found no room.
    is_lossy: Arc<AtomicBool>,
}

impl Tracker {
    /// Whether the servers would tell of changes.
    ///
    /// # Errors
    /// What they say otherwise.
    pub(super) async fn try_out(&self) -> Result<(), StoreError> {
        let (sender, _messages) = mpsc::channel(1);
        let messages = Messages { sender, is_lossy: Arc::default() };
        self.begin(&messages).await.map(|_| ())
    }

    /// The stream of [`super::Store::changes`].
    pub(super) fn changes(self) -> Changes {
        let begun = async move {
            let (news, changes) = mpsc::channel(CHANGES);
            let task = SpawnedTask::spawn(async move {
                let Err(error) = self.listen(&news).await;
                // Nobody may be there any more.
                let _ = news.send(Err(error)).await;
            });
            stream::unfold((changes, task), |(mut changes, task)| async move {
                let change = changes.recv().await?;
                Some((change, (changes, task)))
            })
        };
        stream::once(begun).flatten().boxed()
    }

    async fn listen(&self, news: &mpsc::Sender<Result<Change, StoreError>>) -> Result<Infallible, StoreError> {
        let mut masters = self.connection.watch_masters();
        let (sender, messages) = mpsc::channel(MESSAGES);
        let lossy = Messages { sender, is_lossy: Arc::default() };
        let links = self.begin(&lossy).await?;
        masters.mark_unchanged();
        self.tell(news, Change::Begun).await?;
        tokio::select! {
            ended = self.take_in(messages, &lossy.is_lossy, news) => ended,
            ended = self.keep_asking(links) => ended,
            changed = masters.changed() => {
                // The sender lives as long as the connection does.
                let _ = changed;
                Err(self.ended("the cluster has other masters than before"))
            }
        }
    }

    /// A connection to each master that tells of changes from now on.
    async fn begin(&self, messages: &Messages) -> Result<Vec<(Arc<Node>, Link)>, StoreError> {
        let masters = self.connection.current_masters().await?;
        try_join_all(masters.into_iter().map(|node| async move {
            let messages = messages.clone();
            let mut link = node
                .listen(move |message| {
                    let sent = messages.sender.try_send(message);
                    sent.map_err(|_| messages.is_lossy.store(true, SeqCst))
                })
                .await?;
            let mut commands = Pipeline::new();
            commands.cmd("CLIENT").arg("SETNAME").arg("lookaside-changes");
            commands.cmd("CLIENT").arg("TRACKING").arg("ON").arg("BCAST");
            let prefix = self.template.prefix();
            if !prefix.is_empty() {
                commands.arg("PREFIX").arg(prefix);
            }
            let begun = timeout(PING_TIMEOUT, link.send(&commands)).await;
            let begun = begun.map_err(|_| node.unavailable("no answer in time"))?;
            let answers = begun.map_err(|error| node.unavailable(error))?;
            // A name is for people: that it cannot be set is no harm.
            answers.iter().skip(1).try_for_each(|answer| node.refuse_error(answer))?;
            Ok((node, link))
        }))
        .await
    }

    async fn take_in(
        &self,
        mut messages: mpsc::Receiver<PushInfo>,
        is_lossy: &AtomicBool,
        news: &mpsc::Sender<Result<Change, StoreError>>,
    ) -> Result<Infallible, StoreError> {
        while let Some(message) = messages.recv().await {
            // What found no room came after what had filled it.
            if is_lossy.swap(false, SeqCst) {
                self.tell(news, Change::Everything).await?;
            }
            match message.kind {
                PushKind::Invalidate => self.tell(news, self.change(&message.data)?).await?,
                PushKind::Disconnection => return Err(self.ended("connection closed")),
                // Of other subscriptions, which there are none of.
                _ => {}
            }
        }
        Err(self.ended("connection closed"))
    }

    fn change(&self, data: &[Value]) -> Result<Change, StoreError> {
        let [Value::Array(keys)] = data else { return Ok(Change::Everything) };
        let keys = keys.iter().filter_map(|key| match key {
            Value::BulkString(key) => Some(key.as_slice()),
            _ => None,
        });
        let keys = read_keys(&self.template, &self.types, keys)?;
        Ok(Change::Keys { columns: self.columns.clone(), keys })
    }

    /// Asks now and then whether all are still there, and still the masters.
    async fn keep_asking(&self, mut links: Vec<(Arc<Node>, Link)>) -> Result<Infallible, StoreError> {
        let mut ticks = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        loop {
            ticks.tick().await;
            for (node, link) in &mut links {
                let answer = timeout(PING_TIMEOUT, link.send(&ping)).await;
                let answer = answer.map_err(|_| node.unavailable("no answer to a ping"))?;
                answer.map_err(|error| node.unavailable(error))?;
            }
            // Whether they are others is told to whoever watches them.
            let _ = self.connection.current_masters().await;
        }
    }

    async fn tell(&self, news: &mpsc::Sender<Result<Change, StoreError>>, change: Change) -> Result<(), StoreError> {
        news.send(Ok(change)).await.map_err(|_| self.ended("nobody listens"))
    }

    fn ended(&self, reason: &str) -> StoreError {
        StoreError::Unavailable { message: format!("{}: {reason}", self.connection) }
    }
}
