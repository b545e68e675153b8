//! What the user has laid down for a lookup table, and for one join over it.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::quantity::show_duration;
pub use crate::store::breaker::BreakerPolicy;
pub use crate::store::full::FullCache;

/// A lookup table's options, whole and checked. Catalog keys, SQL options and fields share their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LookupPolicy {
    pub ordering: Ordering,
    /// How long a row may wait for its answer from when it took its place; `None`: for ever.
    pub timeout: Option<Duration>,
    pub on_failure: OnFailure,
    /// Rows that may wait at once.
    pub capacity: NonZeroUsize,
    /// And their bytes, what was found for them included.
    pub capacity_bytes: NonZeroU64,
    /// Most distinct keys in one request.
    pub batch_size: NonZeroUsize,
    /// The longest that a key may wait for company while a request could leave.
    pub batch_delay: Duration,
    /// Requests to the store at once, all queries together.
    pub max_in_flight: NonZeroUsize,
    /// Bytes that the answer to one request may have.
    pub max_answer_bytes: NonZeroU64,
    /// Requests per second; `None`: as many as there are.
    pub rate_limit: Option<NonZeroU32>,
    pub retry: RetryPolicy,
    pub circuit_breaker: Option<BreakerPolicy>,
    pub cache: CachePolicy,
}

const MIB: u64 = 1 << 20;

/// The defaults of the interface.
impl Default for LookupPolicy {
    fn default() -> Self {
        LookupPolicy {
            ordering: Ordering::Ordered,
            timeout: Some(Duration::from_secs(5)),
            on_failure: OnFailure::Fail,
            capacity: NonZeroUsize::MIN.saturating_add(9_999),
            capacity_bytes: NonZeroU64::MIN.saturating_add(64 * MIB - 1),
            batch_size: NonZeroUsize::MIN.saturating_add(999),
            batch_delay: Duration::ZERO,
            max_in_flight: NonZeroUsize::MIN.saturating_add(7),
            max_answer_bytes: NonZeroU64::MIN.saturating_add(64 * MIB - 1),
            rate_limit: None,
            retry: RetryPolicy::default(),
            circuit_breaker: None,
            cache: CachePolicy::None,
        }
    }
}

/// In which order rows leave the lookup stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ordering {
    /// As they came.
    Ordered,
    /// Each when its answer is there.
    Unordered,
    /// Rows of the same key as they came, others each when its answer is there.
    KeyOrdered,
}

impl Ordering {
    pub const ALL: [Ordering; 3] = [Ordering::Ordered, Ordering::Unordered, Ordering::KeyOrdered];

    /// The word in catalog files and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Ordering::Ordered => "ordered",
            Ordering::Unordered => "unordered",
            Ordering::KeyOrdered => "key_ordered",
        }
    }
}

impl fmt::Display for Ordering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What becomes of a row whose lookup failed or timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OnFailure {
    /// The query ends with the error.
    Fail,
    /// As if the store had no such key.
    NoMatch,
    /// It is dropped, counted and logged.
    Skip,
}

impl OnFailure {
    pub const ALL: [OnFailure; 3] = [OnFailure::Fail, OnFailure::NoMatch, OnFailure::Skip];

    /// The word in catalog files and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            OnFailure::Fail => "fail",
            OnFailure::NoMatch => "no_match",
            OnFailure::Skip => "skip",
        }
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often the store is asked again after a failure that may pass. Delays double and carry jitter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    /// Attempts in all: 1 is no retry.
    pub max_attempts: NonZeroU32,
    /// Before the second attempt.
    pub delay: Duration,
    pub max_delay: Duration,
    /// Whether keys that were not found are asked for again.
    pub on_miss: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: NonZeroU32::MIN.saturating_add(2),
            delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(1),
            on_miss: false,
        }
    }
}

impl RetryPolicy {
    /// How long to rest after the given attempt, which counts from 1. The second half of a rest is jitter, which
    /// `random` decides.
    pub fn rest_after(&self, attempt: u32, random: u64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let rest = self.delay.saturating_mul(1 << doublings).min(self.max_delay);
        // Fibonacci hashing spreads neighbouring numbers (Knuth, The Art of Computer Programming 6.4).
        let share = (random.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as f64 / f64::from(u32::MAX);
        rest.mul_f64(0.5 + share / 2.0)
    }
}

/// What a lookup table remembers of its store's answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CachePolicy {
    /// Nothing.
    None,
    /// The answers that were asked for, within bounds.
    Partial(PartialCache),
    /// The whole table, loaded at first use.
    Full(FullCache),
}

/// Bounds and lifetimes of a partial cache. At least one of the bounds is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartialCache {
    /// Rows kept, remembered misses counting as one each.
    pub max_rows: Option<NonZeroU64>,
    /// Bytes kept, keys and book-keeping included.
    pub max_bytes: Option<NonZeroU64>,
    /// How long an answer may serve; `None`: until it is evicted.
    pub expire_after_write: Option<Duration>,
    /// How long an answer that nobody asks for may serve.
    pub expire_after_access: Option<Duration>,
    /// How long a key that was not found is remembered; `None`: not at all.
    pub expire_misses_after: Option<Duration>,
    /// The age from which an answer is asked for anew while it still serves.
    pub refresh_after: Option<Duration>,
    /// How long past its expiry an answer may serve when the store fails; zero: not at all.
    pub serve_stale_for: Duration,
    /// How the store tells of changes; `None`: it does not.
    pub told_by: Option<ToldBy>,
}

/// How a store tells of changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToldBy {
    /// PostgreSQL, by notifications on this channel.
    Listen { channel: String },
    /// Redis, by client-side caching.
    Tracking,
}

impl fmt::Display for ToldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToldBy::Listen { channel } => write!(f, "listen {channel}"),
            ToldBy::Tracking => f.write_str("tracking"),
        }
    }
}

impl Default for PartialCache {
    fn default() -> Self {
        PartialCache {
            max_rows: Some(NonZeroU64::MIN.saturating_add(99_999)),
            max_bytes: None,
            expire_after_write: None,
            expire_after_access: None,
            expire_misses_after: Some(Duration::from_secs(10)),
            refresh_after: None,
            serve_stale_for: Duration::ZERO,
            told_by: None,
        }
    }
}

impl CachePolicy {
    /// The word in catalog files and in EXPLAIN.
    pub fn name(&self) -> &'static str {
        match self {
            CachePolicy::None => "none",
            CachePolicy::Partial(_) => "partial",
            CachePolicy::Full(_) => "full",
        }
    }
}

/// What `WITH ( … )` of one join lays down instead of the table's options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd)]
pub struct LookupOverrides {
    pub ordering: Option<Ordering>,
    pub timeout: Option<Option<Duration>>,
    pub on_failure: Option<OnFailure>,
    pub capacity: Option<NonZeroUsize>,
    pub batch_size: Option<NonZeroUsize>,
    pub batch_delay: Option<Duration>,
    /// Neither read nor fill the cache.
    pub bypass_cache: bool,
}

impl LookupPolicy {
    /// This policy with what one join lays down instead.
    ///
    /// # Errors
    /// 22023 when a key would wait for company until its row has timed out.
    pub fn try_with_overrides(&self, overrides: &LookupOverrides) -> Result<LookupPolicy> {
        let policy = LookupPolicy {
            ordering: overrides.ordering.unwrap_or(self.ordering),
            timeout: overrides.timeout.unwrap_or(self.timeout),
            on_failure: overrides.on_failure.unwrap_or(self.on_failure),
            capacity: overrides.capacity.unwrap_or(self.capacity),
            batch_size: overrides.batch_size.unwrap_or(self.batch_size),
            batch_delay: overrides.batch_delay.unwrap_or(self.batch_delay),
            cache: if overrides.bypass_cache { CachePolicy::None } else { self.cache.clone() },
            ..self.clone()
        };
        match policy.timeout {
            Some(timeout) if policy.batch_delay >= timeout => {
                let (delay, timeout) = (show_duration(policy.batch_delay), show_duration(timeout));
                let message = format!("batch_delay ({delay}) is not below timeout ({timeout})");
                let hint = "A row that waits so long for company has timed out before its key is asked for.";
                Err(Error::new(Code::InvalidParameterValue, message).with_hint(hint))
            }
            Some(_) | None => Ok(policy),
        }
    }
}
