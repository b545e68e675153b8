//! Logs and distributions. Logs are for people on a terminal, JSON on request; always on stderr, so that stdout holds
//! nothing but results.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Begins to log. `LOOKASIDE_LOG` says what, in the syntax of tracing's filters (`debug`, `lookaside::store=trace`);
/// `default` is what to log without it.
pub fn start(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_env("LOOKASIDE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process changes nothing.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Buckets of a [`Histogram`]: four for each doubling.
const BUCKETS: usize = 4 * 48;

/// How often which quantity was seen, in buckets that are a quarter of a doubling wide: quantiles are right to a fifth.
/// The quantity is a whole number in a unit that the owner chooses (microseconds, keys).
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }
}

/// A [`Histogram`] as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// For each bucket that was hit: its upper bound, inclusive, and how often. Bounds rise.
    pub buckets: Vec<(u64, u64)>,
    pub sum: u64,
}

impl Histogram {
    pub fn observe(&self, quantity: u64) {
        self.buckets[bucket_of(quantity)].fetch_add(1, Relaxed);
        self.sum.fetch_add(quantity, Relaxed);
    }

    /// The same quantity, so many times.
    pub fn observe_many(&self, quantity: u64, times: u64) {
        self.buckets[bucket_of(quantity)].fetch_add(times, Relaxed);
        self.sum.fetch_add(quantity.saturating_mul(times), Relaxed);
    }

    /// All that another has seen as well.
    pub fn add(&self, other: &Histogram) {
        for (own, bucket) in self.buckets.iter().zip(&other.buckets) {
            own.fetch_add(bucket.load(Relaxed), Relaxed);
        }
        self.sum.fetch_add(other.sum.load(Relaxed), Relaxed);
    }

    pub fn distribution(&self) -> Distribution {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).enumerate();
        let buckets = counts.filter(|(_, count)| *count > 0).map(|(nth, count)| (upper_bound(nth), count)).collect();
        Distribution { buckets, sum: self.sum.load(Relaxed) }
    }
}

impl Distribution {
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// How many quantities lie up to `bound`, if that is the bound of a bucket, as one less than each power of two is.
    pub fn count_up_to(&self, bound: u64) -> u64 {
        self.buckets.iter().take_while(|(upper, _)| *upper <= bound).map(|(_, count)| count).sum()
    }

    /// The bound below which a share `quantile` (0 to 1) of all quantities lies; `None` if there was none.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let rank = (self.count() as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.buckets.iter().find_map(|(bound, count)| {
            seen += count;
            (seen >= rank).then_some(*bound)
        })
    }
}

/// Quantities below 8 have a bucket each: their doublings have no quarters.
fn bucket_of(quantity: u64) -> usize {
    if quantity < 8 {
        return quantity as usize;
    }
    let doubling = quantity.ilog2() as usize;
    let quarter = (quantity >> (doubling - 2)) as usize & 3;
    (8 + (doubling - 3) * 4 + quarter).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let (doubling, quarter) = ((bucket - 8) / 4 + 3, (bucket - 8) % 4);
    (1 << doubling) + ((quarter as u64 + 1) << (doubling - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quantity_lies_in_the_bucket_whose_bounds_enclose_it() {
        for quantity in (0..5000).chain([1 << 20, (1 << 40) + 12345, (1 << 49) - 1]) {
            let bucket = bucket_of(quantity);
            assert!(quantity <= upper_bound(bucket), "{quantity}");
            assert!(bucket == 0 || quantity > upper_bound(bucket - 1), "{quantity}");
        }
    }

    #[test]
    fn what_lies_up_to_a_doubling_is_counted_exactly() {
        let histogram = Histogram::default();
        (0..5000).for_each(|quantity| histogram.observe(quantity));
        let seen = histogram.distribution();
        for power in 0..12 {
            assert_eq!(seen.count_up_to((1 << power) - 1), 1 << power);
        }
        let twice = Histogram::default();
        twice.add(&histogram);
        twice.add(&histogram);
        twice.observe_many(7, 3);
        assert_eq!((twice.distribution().count(), twice.distribution().sum), (10_003, 2 * seen.sum + 21));
    }

    #[test]
    fn quantiles_are_right_to_a_quarter() {
        let histogram = Histogram::default();
        assert_eq!(histogram.distribution().quantile(0.5), None);
        (1..=1000).for_each(|quantity| histogram.observe(quantity));
        let seen = histogram.distribution();
        assert_eq!((seen.count(), seen.sum), (1000, 500_500));
        let median = seen.quantile(0.5).unwrap();
        assert!((500..=625).contains(&median), "{median}");
        assert_eq!(seen.quantile(1.0), Some(1023));
    }
}
