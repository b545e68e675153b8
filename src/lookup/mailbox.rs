//! How answers come back to a query: one mailbox for each stage of each query, one delivery for each request and slice.

use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use datafusion::arrow::array::RecordBatch;
use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::error::Error;

#[derive(Default)]
pub(super) struct Mailbox {
    deliveries: Mutex<Vec<Delivery>>,
    waker: AtomicWaker,
}

/// What one request says to one slice of rows.
pub(super) struct Delivery {
    /// The name that the asker gave the slice.
    pub slice: u64,
    pub request: u64,
    pub cost: Cost,
    /// When the store answered, which may be long before somebody reads this.
    pub answered_at: Instant,
    pub outcome: Outcome,
    pub keys: Vec<DeliveredKey>,
}

/// What a request took, for all who asked for its keys.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub keys: usize,
    /// Attempts beyond the first of each key.
    pub retries: usize,
}

/// Where the rows of one key stand in [`Outcome::Answered`].
#[derive(Clone, Copy)]
pub(super) struct DeliveredKey {
    /// The position of the key among the slice's.
    pub position: u32,
    pub start: u32,
    pub rows: u32,
}

#[derive(Clone)]
pub(super) enum Outcome {
    Answered(RecordBatch),
    Failed(Error),
}

impl Mailbox {
    /// Who is to be woken by the next delivery. Register first, then [`Mailbox::take`], or one may be missed.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.deliveries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn put(&self, delivery: Delivery) {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    }

    pub fn wake(&self) {
        self.waker.wake();
    }
}
