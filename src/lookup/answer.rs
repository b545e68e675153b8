//! One key's answer as the cache keeps it: its rows as bytes, and until when they may serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use datafusion::arrow::row::Rows;

/// A moment as the cache keeps it: nanoseconds since the cache was made, so that atomics can hold it.
pub(super) type Tick = u64;

pub(super) const NEVER: Tick = Tick::MAX;

/// What the store knew of one key, held as bytes of its own: it pins no batch.
pub(super) struct CachedAnswer {
    rows: AnswerRows,
    held_bytes: u32,
    term: Term,
    /// When somebody last asked for it; kept only where that prolongs its life.
    accessed: AtomicU64,
    refresh_at: AtomicU64,
    held: Arc<Held>,
}

/// The rows of one key; none, if it was not found.
pub(super) struct AnswerRows {
    count: u32,
    bytes: Box<[u8]>,
    /// Where each row but the last ends in `bytes`.
    ends: Box<[u32]>,
}

/// How long an answer may serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    pub written: Tick,
    pub until: Tick,
    /// And how long after it was last asked for.
    pub after_access: Tick,
    /// From when on it is to be asked for anew.
    pub refresh_at: Tick,
    /// The table's generation from before the request.
    pub generation: u64,
}

/// What the answers of one cache hold together.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub entries: AtomicU64,
    /// A remembered miss counts as one.
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
}

impl AnswerRows {
    /// Copies `count` rows from `start`; `None` for 4 GiB and more, which have no place in a cache.
    pub fn copied(encoded: Option<&Rows>, start: u32, count: u32) -> Option<Self> {
        let rows = start as usize..(start as usize + count as usize);
        let row = |row: usize| encoded.map_or(&[][..], |encoded| encoded.row(row).data());
        let mut bytes = Vec::with_capacity(rows.clone().map(|at| row(at).len()).sum());
        let mut ends = Vec::with_capacity(rows.len().saturating_sub(1));
        for at in rows.clone() {
            if at > rows.start {
                ends.push(u32::try_from(bytes.len()).ok()?);
            }
            bytes.extend_from_slice(row(at));
        }
        u32::try_from(bytes.len()).ok()?;
        Some(AnswerRows { count, bytes: bytes.into_boxed_slice(), ends: ends.into_boxed_slice() })
    }

    /// The sizes of what is allocated for them.
    pub fn allocated(&self) -> [usize; 2] {
        [self.bytes.len(), std::mem::size_of_val(&*self.ends)]
    }

    fn row(&self, nth: usize) -> &[u8] {
        let end_of = |row: usize| self.ends.get(row).map_or(self.bytes.len(), |end| *end as usize);
        let start = nth.checked_sub(1).map_or(0, end_of);
        &self.bytes[start..end_of(nth)]
    }
}

impl CachedAnswer {
    /// `held_bytes` is what the entry takes in all, its place in the cache included. From here on it counts as held,
    /// until [`CachedAnswer::leave`].
    pub fn new(rows: AnswerRows, held_bytes: u32, term: Term, held: Arc<Held>) -> Self {
        held.entries.fetch_add(1, Relaxed);
        held.rows.fetch_add(u64::from(rows.count.max(1)), Relaxed);
        held.bytes.fetch_add(u64::from(held_bytes), Relaxed);
        let (accessed, refresh_at) = (AtomicU64::new(term.written), AtomicU64::new(term.refresh_at));
        CachedAnswer { rows, held_bytes, term, accessed, refresh_at, held }
    }

    /// How many rows the key has.
    pub fn rows(&self) -> u32 {
        self.rows.count
    }

    pub fn held_bytes(&self) -> u32 {
        self.held_bytes
    }

    pub fn generation(&self) -> u64 {
        self.term.generation
    }

    /// The bytes of each row, see [`super::variant::Variant::decode_rows`].
    pub fn encoded_rows(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.rows.count as usize).map(|nth| self.rows.row(nth))
    }

    /// From when on it may not serve any more, unless the store fails.
    pub fn expires(&self) -> Tick {
        match self.term.after_access {
            NEVER => self.term.until,
            after => self.term.until.min(self.accessed.load(Relaxed).saturating_add(after)),
        }
    }

    /// Somebody has asked for it.
    pub fn touch(&self, now: Tick) {
        if self.term.after_access != NEVER {
            self.accessed.fetch_max(now, Relaxed);
        }
    }

    pub fn written(&self) -> Tick {
        self.term.written
    }

    /// Until when it can serve without being looked at here: neither its expiry nor its refresh may be missed, and it
    /// must be touched often enough to stay alive. Once a refresh is due, another answer may come at any moment.
    pub fn lease(&self, now: Tick) -> Tick {
        let touch_by = now.saturating_add(self.term.after_access / 2);
        self.expires().min(self.term.refresh_at).min(touch_by)
    }

    /// Whether the caller is to ask for it anew. Whoever asks next is told so only after another `refresh_after`:
    /// by then the answer has been replaced, or the refresh has failed and may be tried again.
    pub fn claims_refresh(&self, now: Tick, refresh_after: Tick) -> bool {
        let due = self.refresh_at.load(Relaxed);
        let again = now.saturating_add(refresh_after.max(1));
        due <= now && self.refresh_at.compare_exchange(due, again, Relaxed, Relaxed).is_ok()
    }

    /// The cache has let go of it.
    pub fn leave(&self) {
        self.held.entries.fetch_sub(1, Relaxed);
        self.held.rows.fetch_sub(u64::from(self.rows.count.max(1)), Relaxed);
        self.held.bytes.fetch_sub(u64::from(self.held_bytes), Relaxed);
    }
}
