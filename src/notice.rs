//! What a query tells its client while it runs, beside its rows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::error::Error;

/// Notices that wait for a client who does not take them; of more, the newest stay.
const MAX_WAITING: usize = 16;

/// From what runs to whoever reads its rows. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<VecDeque<Error>>,
    told: Notify,
}

impl Notices {
    /// Says something, which is sent when the client waits for rows the next time.
    pub fn tell(&self, notice: Error) {
        let mut waiting = self.waiting();
        if waiting.len() == MAX_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(notice);
        drop(waiting);
        self.shared.told.notify_one();
    }

    /// The next notice. Nothing is lost when the future is dropped.
    pub async fn next(&self) -> Error {
        loop {
            let told = self.shared.told.notified();
            if let Some(notice) = self.waiting().pop_front() {
                return notice;
            }
            told.await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Error>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::error::Code;

    fn notice(number: usize) -> Error {
        Error::new(Code::Notice, format!("notice {number}"))
    }

    #[tokio::test]
    async fn notices_come_in_their_order_and_wake_who_waits() {
        let notices = Notices::default();
        assert!(notices.next().now_or_never().is_none());
        let (told, ()) = tokio::join!(notices.next(), async { notices.tell(notice(1)) });
        assert_eq!(told, notice(1));
        notices.tell(notice(2));
        notices.clone().tell(notice(3));
        assert_eq!((notices.next().await, notices.next().await), (notice(2), notice(3)));
        assert!(notices.next().now_or_never().is_none());
    }

    #[test]
    fn of_many_notices_that_nobody_takes_the_newest_stay() {
        let notices = Notices::default();
        (0..MAX_WAITING + 2).for_each(|number| notices.tell(notice(number)));
        assert_eq!(notices.next().now_or_never(), Some(notice(2)));
        assert_eq!(notices.waiting().len(), MAX_WAITING - 1);
    }
}
