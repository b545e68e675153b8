//! What the user has laid down for a lookup table, and for one join over it.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

/// A lookup table's options, whole and checked. Catalog keys, SQL options and fields share their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LookupPolicy {
    pub ordering: Ordering,
    /// How long a row may wait for its answer from when it took its place; `None`: for ever.
    pub timeout: Option<Duration>,
    pub on_failure: OnFailure,
    /// Rows that may wait at once.
    pub capacity: NonZeroUsize,
    /// Most distinct keys in one request.
    pub batch_size: NonZeroUsize,
    /// Requests to the store at once, all queries together.
    pub max_in_flight: NonZeroUsize,
    pub cache: CachePolicy,
}

/// The defaults of the interface.
impl Default for LookupPolicy {
    fn default() -> Self {
        LookupPolicy {
            ordering: Ordering::Ordered,
            timeout: Some(Duration::from_secs(5)),
            on_failure: OnFailure::Fail,
            capacity: NonZeroUsize::MIN.saturating_add(9_999),
            batch_size: NonZeroUsize::MIN.saturating_add(999),
            max_in_flight: NonZeroUsize::MIN.saturating_add(7),
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
}

impl Ordering {
    pub const ALL: [Ordering; 2] = [Ordering::Ordered, Ordering::Unordered];

    /// The word in catalog files and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Ordering::Ordered => "ordered",
            Ordering::Unordered => "unordered",
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
}

impl OnFailure {
    pub const ALL: [OnFailure; 2] = [OnFailure::Fail, OnFailure::NoMatch];

    /// The word in catalog files and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            OnFailure::Fail => "fail",
            OnFailure::NoMatch => "no_match",
        }
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a lookup table remembers of its store's answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CachePolicy {
    /// Nothing.
    None,
    /// The answers that were asked for, within bounds.
    Partial {
        /// Rows kept, remembered misses counting as one each.
        max_rows: u64,
        /// How long an answer may serve; `None`: until it is evicted.
        expire_after_write: Option<Duration>,
        /// How long a key that was not found is remembered; `None`: not at all.
        expire_misses_after: Option<Duration>,
    },
}

impl CachePolicy {
    /// The word in catalog files and in EXPLAIN.
    pub fn name(&self) -> &'static str {
        match self {
            CachePolicy::None => "none",
            CachePolicy::Partial { .. } => "partial",
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
    /// Neither read nor fill the cache.
    pub bypass_cache: bool,
}

impl LookupPolicy {
    /// This policy with what one join lays down instead.
    pub fn with_overrides(&self, overrides: &LookupOverrides) -> LookupPolicy {
        LookupPolicy {
            ordering: overrides.ordering.unwrap_or(self.ordering),
            timeout: overrides.timeout.unwrap_or(self.timeout),
            on_failure: overrides.on_failure.unwrap_or(self.on_failure),
            capacity: overrides.capacity.unwrap_or(self.capacity),
            batch_size: overrides.batch_size.unwrap_or(self.batch_size),
            max_in_flight: self.max_in_flight,
            cache: if overrides.bypass_cache { CachePolicy::None } else { self.cache.clone() },
        }
    }
}
