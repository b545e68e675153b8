//! Messages on their way from the client library to who decodes them: copied out, so that the library is polled on.

use std::collections::BTreeMap;
use std::ops::Range;

use rdkafka::message::{BorrowedMessage, Message};

use super::kafka_rows::MessageField;
use crate::format::text::{Value, ValueError};

/// Most messages that are gathered: one that waits for more delays its row by their time.
const MAX_MESSAGES: usize = 2048;
/// And their bytes, unless one alone has more.
const MAX_BYTES: usize = 1024 * 1024;

/// Messages in the order in which they came.
#[derive(Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    messages: Vec<Placed>,
    /// Partitions that had nothing more behind these.
    ended: Vec<i32>,
    is_to_be_sent: bool,
}

/// A message's place, and what is asked for of what Kafka says of it.
pub(super) struct Placed {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Where its bytes are; `None`: it has no value.
    value: Option<Range<usize>>,
    pub(super) metadata: Result<Vec<Option<Value<'static>>>, ValueError>,
}

impl Gathered {
    /// Room for as much as another one held.
    pub(super) fn like(other: &Gathered) -> Self {
        let (bytes, messages) = (Vec::with_capacity(other.bytes.len()), Vec::with_capacity(other.messages.len()));
        Gathered { bytes, messages, ended: vec![], is_to_be_sent: false }
    }

    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>, fields: &[MessageField]) {
        let value = message.payload().map(|payload| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(payload);
            start..self.bytes.len()
        });
        let metadata = fields.iter().map(|field| Ok(field.value(message)?.map(Value::into_owned))).collect();
        let (partition, offset) = (message.partition(), message.offset());
        self.messages.push(Placed { partition, offset, value, metadata });
    }

    /// The broker has nothing more of a partition, so what is there goes before more comes.
    pub(super) fn end(&mut self, partition: i32) {
        self.ended.push(partition);
        self.is_to_be_sent = true;
    }

    /// What is there goes before more comes.
    pub(super) fn send_soon(&mut self) {
        self.is_to_be_sent = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.ended.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_to_be_sent || self.messages.len() >= MAX_MESSAGES || self.bytes.len() >= MAX_BYTES
    }

    pub(super) fn messages(&self) -> &[Placed] {
        &self.messages
    }

    pub(super) fn value_of(&self, message: &Placed) -> Option<&[u8]> {
        message.value.clone().and_then(|range| self.bytes.get(range))
    }

    pub(super) fn ended(&self) -> &[i32] {
        &self.ended
    }

    /// The offset behind the last message of each partition.
    pub(super) fn positions(&self) -> BTreeMap<i32, i64> {
        self.messages.iter().map(|message| (message.partition, message.offset + 1)).collect()
    }
}
