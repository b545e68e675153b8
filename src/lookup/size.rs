//! What rows and answers weigh, as far as it must be known before they are there.

use super::policy::LookupPolicy;

/// How many bytes the rows of one key have, from the answers so far. Newer answers count for more.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerSize {
    keys: u64,
    bytes: u64,
    /// Before the first answer.
    guess: u64,
}

/// Keys after which what was counted before counts half.
const MEMORY: u64 = 10_000;

/// Rows that may wait while nothing is known of answers, or four requests' worth of keys if that is more.
const FIRST_ROWS: u64 = 4096;

impl AnswerSize {
    /// Until the first answer tells more, the first rows are taken to need all of `capacity_bytes`.
    pub fn new(policy: &LookupPolicy) -> Self {
        let first_rows = FIRST_ROWS.max(4 * policy.batch_size.get() as u64);
        AnswerSize { keys: 0, bytes: 0, guess: policy.capacity_bytes.get() / first_rows }
    }

    pub fn add(&mut self, keys: usize, bytes: u64) {
        self.keys += keys as u64;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.keys > MEMORY {
            self.keys /= 2;
            self.bytes /= 2;
        }
    }

    pub fn bytes_per_key(self) -> u64 {
        self.bytes.checked_div(self.keys).unwrap_or(self.guess)
    }
}

/// What `rows` of `all` rows have of `bytes`, rounded up.
pub(super) fn share(bytes: u64, rows: u64, all: usize) -> u64 {
    let all = all.max(1) as u128;
    u64::try_from((u128::from(bytes) * u128::from(rows)).div_ceil(all)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_answers_count_for_more() {
        let mut size = AnswerSize::new(&LookupPolicy::default());
        assert_eq!(size.bytes_per_key(), (64 << 20) / 4096);
        size.add(10, 1000);
        assert_eq!(size.bytes_per_key(), 100);
        for _ in 0..10 {
            size.add(10_000, 10_000_000);
        }
        assert!(size.bytes_per_key() > 990, "{}", size.bytes_per_key());
    }

    #[test]
    fn shares_add_up_to_at_least_all() {
        assert_eq!((share(10, 1, 3), share(10, 3, 3), share(10, 0, 3), share(0, 0, 0)), (4, 10, 0, 0));
        assert_eq!(share(u64::MAX, u64::MAX, 1), u64::MAX);
    }
}
