//! Slows down who guesses passwords: after a few failures, each attempt from an address waits for its turn, be it right or
//! wrong, so that giving up early gains nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Failures that cost nothing: people mistype.
const FREE_FAILURES: u32 = 3;
/// The first wait; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Failures are forgotten when an address has made none for so long.
const MEMORY: Duration = Duration::from_secs(60);
/// Attempts from one address that may wait side by side.
const TURNS: usize = 4;
/// Addresses that are remembered; past that, the one that has been quiet longest is forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// Failed log-ins, by address.
#[derive(Debug, Default)]
pub struct Throttle {
    addresses: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
    turns: Arc<Semaphore>,
}

/// The right to have a password checked; `None` inside where nobody has to wait.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is held, not read")] Option<OwnedSemaphorePermit>);

impl Throttle {
    /// Waits until a password from this address may be checked. The turn is to be held until that is done.
    pub async fn turn(&self, address: IpAddr) -> Turn {
        let Some((wait, turns)) = self.wait_of(network(address)) else { return Turn(None) };
        // The semaphore is never closed.
        let turn = turns.acquire_owned().await.ok();
        tokio::time::sleep(wait).await;
        Turn(turn)
    }

    pub fn note_failure(&self, address: IpAddr) {
        let (address, now) = (network(address), Instant::now());
        let mut addresses = self.lock();
        if let Some(failures) = addresses.get_mut(&address).filter(|failures| failures.is_fresh(now)) {
            (failures.count, failures.last) = (failures.count.saturating_add(1), now);
            return;
        }
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, failures| failures.is_fresh(now));
        }
        if addresses.len() >= MAX_ADDRESSES
            && let Some(quiet) = addresses.iter().min_by_key(|(_, failures)| failures.last).map(|(address, _)| *address)
        {
            addresses.remove(&quiet);
        }
        addresses.insert(address, Failures { count: 1, last: now, turns: Arc::new(Semaphore::new(TURNS)) });
    }

    fn wait_of(&self, address: IpAddr) -> Option<(Duration, Arc<Semaphore>)> {
        let addresses = self.lock();
        let failures = addresses.get(&address).filter(|failures| failures.is_fresh(Instant::now()))?;
        let doublings = failures.count.checked_sub(FREE_FAILURES)?;
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_WAIT);
        Some((wait, Arc::clone(&failures.turns)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failures {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.last) < MEMORY
    }
}

/// Who has one address of IPv6 has the other 2^64 of its network as well.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits((address.to_bits() >> 64) << 64)),
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    async fn wait(throttle: &Throttle, address: IpAddr) -> Duration {
        let before = Instant::now();
        throttle.turn(address).await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_costs_more_until_all_is_forgotten() {
        let throttle = Throttle::default();
        let mut waits = vec![];
        for _ in 0..10 {
            waits.push(wait(&throttle, HERE).await.as_millis());
            throttle.note_failure(HERE);
        }
        assert_eq!(waits, [0, 0, 0, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(wait(&throttle, ELSEWHERE).await, Duration::ZERO);
        tokio::time::advance(MEMORY).await;
        assert_eq!(wait(&throttle, HERE).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn many_attempts_at_once_wait_behind_each_other() {
        let throttle = Throttle::default();
        (0..20).for_each(|_| throttle.note_failure(HERE));
        let before = Instant::now();
        // Each gives its turn up when its password has been checked.
        join_all((0..TURNS * 5).map(|_| async { drop(throttle.turn(HERE).await) })).await;
        assert_eq!(before.elapsed(), LONGEST_WAIT * 5);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_network_are_one_and_the_table_is_bounded() {
        let throttle = Throttle::default();
        for last in 1..=8 {
            throttle.note_failure(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last)));
        }
        assert_eq!(wait(&throttle, "2001:db8:0:1::ffff".parse().unwrap()).await, LONGEST_WAIT);
        assert_eq!(wait(&throttle, "2001:db8:0:2::1".parse().unwrap()).await, Duration::ZERO);
        for number in 0..=MAX_ADDRESSES as u32 {
            tokio::time::advance(Duration::from_micros(1)).await;
            throttle.note_failure(IpAddr::V4(std::net::Ipv4Addr::from_bits(number)));
        }
        let addresses = throttle.lock();
        assert_eq!(addresses.len(), MAX_ADDRESSES);
        assert!(
            !addresses.contains_key(&"2001:db8:0:1::".parse::<IpAddr>().unwrap()),
            "the one that was quiet longest"
        );
    }
}
