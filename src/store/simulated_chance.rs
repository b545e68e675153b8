//! Chance as a simulated store has it: numbers that seed, subject and purpose decide.

use std::f64::consts::TAU;
use std::time::Duration;

use super::StoreError;
use crate::expression::mix;

/// How long requests take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// All as long.
    Fixed(Duration),
    /// Any time between the two is as likely.
    Uniform { from: Duration, to: Duration },
    /// Most are short, few are long: what a queue with chance arrivals gives.
    Exponential { mean: Duration },
    /// Half take no longer than `p50`, one in a hundred longer than `p99`: what services measure of themselves.
    LogNormal { p50: Duration, p99: Duration },
}

/// With what requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedError {
    /// The store cannot be reached: it is asked again.
    Unavailable,
    /// The store refuses: it is not asked again.
    Failed,
}

impl SimulatedError {
    pub const ALL: [SimulatedError; 2] = [SimulatedError::Unavailable, SimulatedError::Failed];

    /// The word in catalog files.
    pub fn name(self) -> &'static str {
        match self {
            SimulatedError::Unavailable => "unavailable",
            SimulatedError::Failed => "failed",
        }
    }

    pub(super) fn to_store_error(self) -> StoreError {
        let message = "simulated error".to_string();
        match self {
            SimulatedError::Unavailable => StoreError::Unavailable { message },
            SimulatedError::Failed => StoreError::Failed { message, sqlstate: Some("XX000".to_string()) },
        }
    }
}

/// For what a number is drawn. Each purpose has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Roll {
    Miss,
    Duplicate,
    BadKey,
    Stall,
    Error,
    Latency,
    /// A normal distribution takes two numbers.
    LatencyAngle,
}

/// The distance from the median to the 99th percentile of a normal distribution, in standard deviations.
const P99_DEVIATIONS: f64 = 2.326_347_874;

#[derive(Debug)]
pub(super) struct Chance {
    seed: u64,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Chance { seed: mix(seed) }
    }

    /// Whether `subject` is among the `share` that the purpose strikes.
    pub(super) fn meets(&self, roll: Roll, subject: u64, share: f64) -> bool {
        share > 0.0 && self.number(roll, subject) < share
    }

    /// How long the request of that number takes.
    pub(super) fn latency(&self, latency: &Latency, request: u64) -> Duration {
        let number = self.number(Roll::Latency, request);
        let seconds = match latency {
            Latency::Fixed(duration) => return *duration,
            Latency::Uniform { from, to } => from.as_secs_f64() + number * (to.as_secs_f64() - from.as_secs_f64()),
            Latency::Exponential { mean } => -(1.0 - number).ln() * mean.as_secs_f64(),
            Latency::LogNormal { p50, p99 } => {
                // Box and Muller, "A note on the generation of random normal deviates", 1958.
                let angle = TAU * self.number(Roll::LatencyAngle, request);
                let normal = (-2.0 * (1.0 - number).ln()).sqrt() * angle.cos();
                let deviation = (p99.as_secs_f64() / p50.as_secs_f64()).ln() / P99_DEVIATIONS;
                p50.as_secs_f64() * (deviation * normal).exp()
            }
        };
        // What no clock can tell is for ever.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// A number that these bytes decide.
    pub(super) fn of_bytes(&self, bytes: &[u8]) -> u64 {
        bytes.chunks(8).fold(mix(bytes.len() as u64), |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(hash ^ u64::from_le_bytes(word))
        })
    }

    /// In [0, 1), with the 53 bits that a double has.
    fn number(&self, roll: Roll, subject: u64) -> f64 {
        let bits = mix(mix(self.seed.wrapping_add(roll as u64)).wrapping_add(subject));
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Latencies of ten thousand requests in milliseconds, sorted.
    fn latencies(latency: Latency) -> Vec<f64> {
        let chance = Chance::new(42);
        let mut drawn: Vec<f64> =
            (0..10_000).map(|request| chance.latency(&latency, request).as_secs_f64() * 1000.0).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    #[track_caller]
    fn assert_near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 0.1, "{found} is not about {expected}");
    }

    #[test]
    fn latencies_are_distributed_as_declared() {
        assert_eq!(latencies(Latency::Fixed(MILLISECOND)), vec![1.0; 10_000]);
        let uniform = latencies(Latency::Uniform { from: MILLISECOND, to: 3 * MILLISECOND });
        assert!(uniform[0] >= 1.0 && uniform[9_999] < 3.0);
        assert_near(uniform[5_000], 2.0);
        let exponential = latencies(Latency::Exponential { mean: 10 * MILLISECOND });
        assert_near(exponential.iter().sum::<f64>() / 10_000.0, 10.0);
        assert_near(exponential[5_000], 6.93);
        let log_normal = latencies(Latency::LogNormal { p50: 5 * MILLISECOND, p99: 100 * MILLISECOND });
        assert_near(log_normal[5_000], 5.0);
        assert_near(log_normal[9_900], 100.0);
    }

    #[test]
    fn latencies_beyond_all_clocks_are_for_ever() {
        let years = Duration::from_secs(u64::MAX / 4);
        let drawn = latencies(Latency::LogNormal { p50: MILLISECOND, p99: years });
        assert_near(drawn[9_999], Duration::MAX.as_secs_f64() * 1000.0);
    }

    #[test]
    fn chance_strikes_its_share_and_always_the_same() {
        let (chance, other) = (Chance::new(1), Chance::new(2));
        let struck = |chance: &Chance, roll, share| -> Vec<u64> {
            (0..10_000).filter(|subject| chance.meets(roll, *subject, share)).collect()
        };
        assert_near(struck(&chance, Roll::Miss, 0.3).len() as f64, 3000.0);
        assert_eq!(struck(&chance, Roll::Miss, 0.3), struck(&chance, Roll::Miss, 0.3));
        assert_ne!(struck(&chance, Roll::Miss, 0.3), struck(&other, Roll::Miss, 0.3));
        assert_ne!(struck(&chance, Roll::Miss, 0.3), struck(&chance, Roll::Error, 0.3));
        assert_eq!(struck(&chance, Roll::Miss, 0.0).len(), 0);
        assert_eq!(struck(&chance, Roll::Miss, 1.0).len(), 10_000);
    }

    #[test]
    fn bytes_that_differ_have_other_numbers() {
        let chance = Chance::new(1);
        let texts = ["", "a", "b", "a\0", "aaaaaaaa", "aaaaaaaaa", "aaaaaaaaaaaaaaaa"];
        let numbers: std::collections::BTreeSet<u64> =
            texts.iter().map(|text| chance.of_bytes(text.as_bytes())).collect();
        assert_eq!(numbers.len(), texts.len());
    }
}
