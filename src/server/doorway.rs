//! Log-ins under way: so many that a burst of clients gets in, and when they are more, the one that has been at it
//! longest makes room. So connections that never say anything keep nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Log-ins that may be under way at once, all addresses together.
const PLACES: usize = 1000;

/// Where clients stand until they have logged in.
#[derive(Debug)]
pub struct Doorway {
    places: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_number: BTreeMap<u64, CancellationToken>,
    next_number: u64,
}

/// A place in the doorway, given up when dropped.
#[derive(Debug)]
pub struct DoorwayPlace {
    doorway: Arc<Doorway>,
    number: u64,
    displaced: CancellationToken,
}

impl Default for Doorway {
    fn default() -> Self {
        Doorway { places: PLACES, entries: Mutex::default() }
    }
}

impl Doorway {
    /// A place for a client that has just connected.
    pub fn enter(self: &Arc<Self>) -> DoorwayPlace {
        let displaced = CancellationToken::new();
        let mut entries = self.lock();
        if entries.by_number.len() >= self.places {
            entries.drop_oldest();
        }
        let number = entries.next_number;
        entries.next_number += 1;
        entries.by_number.insert(number, displaced.clone());
        drop(entries);
        DoorwayPlace { doorway: Arc::clone(self), number, displaced }
    }

    /// Sends away who has been at it longest: the system has no more sockets to give.
    pub fn make_room(&self) {
        self.lock().drop_oldest();
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn drop_oldest(&mut self) {
        if let Some((_, oldest)) = self.by_number.pop_first() {
            oldest.cancel();
        }
    }
}

impl DoorwayPlace {
    /// Returns when others need the place more.
    pub async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for DoorwayPlace {
    fn drop(&mut self) {
        self.doorway.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_log_in_makes_room() {
        let doorway = Arc::new(Doorway { places: 2, entries: Mutex::default() });
        let (first, second) = (doorway.enter(), doorway.enter());
        assert!(!first.displaced.is_cancelled());
        let third = doorway.enter();
        assert!(first.displaced.is_cancelled());
        assert!(!second.displaced.is_cancelled() && !third.displaced.is_cancelled());
        drop(second);
        let fourth = doorway.enter();
        assert!(!third.displaced.is_cancelled(), "a place was free");
        drop((first, third, fourth));
        assert!(doorway.lock().by_number.is_empty());
    }
}
