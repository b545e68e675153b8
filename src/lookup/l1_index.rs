//! Which key has which row of the L1: open addressing, one look into memory for most keys, nothing ever deleted.

use ahash::RandomState;

/// In place of a row: the key is not here, or not any more.
pub(super) const ABSENT: u32 = u32::MAX;
/// In place of a row: the table has none for the key.
pub(super) const NOTHING: u32 = u32::MAX - 1;

/// What is known of one key. `lease` is when it ceases to be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub row: u32,
    pub lease: u32,
}

const FREE: Entry = Entry { row: ABSENT, lease: 0 };

impl Entry {
    fn row_at(self, now: u32) -> u32 {
        if now < self.lease { self.row } else { ABSENT }
    }
}

/// Keys of a fixed width, all of them as 64 bits.
pub(super) struct NumberIndex {
    slots: Vec<(i64, Entry)>,
    used: usize,
    seed: u64,
}

impl NumberIndex {
    pub fn new() -> Self {
        NumberIndex { slots: vec![(0, FREE); FIRST_SLOTS], used: 0, seed: RandomState::new().hash_one(0) }
    }

    pub fn row(&self, key: i64, now: u32) -> u32 {
        self.slots[self.slot(key)].1.row_at(now)
    }

    /// The entry of the key, whether its lease is over or not.
    pub fn entry(&self, key: i64) -> Option<Entry> {
        Some(self.slots[self.slot(key)].1).filter(|entry| entry.row != ABSENT)
    }

    pub fn set(&mut self, key: i64, entry: Entry) {
        let slot = self.slot(key);
        self.used += usize::from(self.slots[slot].1.row == ABSENT);
        self.slots[slot] = (key, entry);
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
    }

    pub fn len(&self) -> usize {
        self.used
    }

    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.slots)
    }

    /// Where the key is, or the free place where it would be.
    fn slot(&self, key: i64) -> usize {
        let last = self.slots.len() - 1;
        // Both halves of the product: who does not know the seed cannot choose keys that meet.
        let product = u128::from(key as u64 ^ self.seed) * 0x9E37_79B9_7F4A_7C15;
        let mut at = ((product >> 64) as u64 ^ product as u64) as usize & last;
        while self.slots[at].0 != key && self.slots[at].1.row != ABSENT {
            at = (at + 1) & last;
        }
        at
    }

    fn grow(&mut self) {
        let doubled = vec![(0, FREE); self.slots.len() * 2];
        for (key, entry) in std::mem::replace(&mut self.slots, doubled) {
            if entry.row != ABSENT {
                let slot = self.slot(key);
                self.slots[slot] = (key, entry);
            }
        }
    }
}

/// Keys of any length, their bytes held in one piece.
pub(super) struct BytesIndex {
    slots: Vec<BytesSlot>,
    used: usize,
    keys: Vec<u8>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct BytesSlot {
    /// The half of the hash that does not say where the key stands.
    tag: u32,
    start: u32,
    length: u32,
    entry: Entry,
}

const FREE_BYTES: BytesSlot = BytesSlot { tag: 0, start: 0, length: 0, entry: FREE };

impl BytesIndex {
    pub fn new() -> Self {
        BytesIndex { slots: vec![FREE_BYTES; FIRST_SLOTS], used: 0, keys: Vec::new(), hasher: RandomState::new() }
    }

    pub fn row(&self, key: &[u8], now: u32) -> u32 {
        self.slots[self.slot(key, self.hasher.hash_one(key))].entry.row_at(now)
    }

    pub fn entry(&self, key: &[u8]) -> Option<Entry> {
        let entry = self.slots[self.slot(key, self.hasher.hash_one(key))].entry;
        Some(entry).filter(|entry| entry.row != ABSENT)
    }

    pub fn set(&mut self, key: &[u8], entry: Entry) {
        let hash = self.hasher.hash_one(key);
        let slot = self.slot(key, hash);
        if self.slots[slot].entry.row != ABSENT {
            self.slots[slot].entry = entry;
            return;
        }
        let (Ok(start), Ok(length)) = (u32::try_from(self.keys.len()), u32::try_from(key.len())) else { return };
        self.keys.extend_from_slice(key);
        self.slots[slot] = BytesSlot { tag: (hash >> 32) as u32, start, length, entry };
        self.used += 1;
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
    }

    pub fn len(&self) -> usize {
        self.used
    }

    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.slots) + self.keys.capacity()
    }

    fn slot(&self, key: &[u8], hash: u64) -> usize {
        let last = self.slots.len() - 1;
        let tag = (hash >> 32) as u32;
        let mut at = hash as usize & last;
        loop {
            let slot = &self.slots[at];
            if slot.entry.row == ABSENT || (slot.tag == tag && self.key(slot) == key) {
                return at;
            }
            at = (at + 1) & last;
        }
    }

    fn key(&self, slot: &BytesSlot) -> &[u8] {
        &self.keys[slot.start as usize..slot.start as usize + slot.length as usize]
    }

    fn grow(&mut self) {
        let doubled = vec![FREE_BYTES; self.slots.len() * 2];
        let last = doubled.len() - 1;
        for slot in std::mem::replace(&mut self.slots, doubled) {
            if slot.entry.row == ABSENT {
                continue;
            }
            let mut at = self.hasher.hash_one(self.key(&slot)) as usize & last;
            while self.slots[at].entry.row != ABSENT {
                at = (at + 1) & last;
            }
            self.slots[at] = slot;
        }
    }
}

const FIRST_SLOTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_value_however_many_there_are() {
        let mut numbers = NumberIndex::new();
        let mut texts = BytesIndex::new();
        let entry = |row| Entry { row, lease: 10 };
        for row in 0..10_000_u32 {
            numbers.set(i64::from(row) << 32, entry(row));
            texts.set(format!("key {row}").as_bytes(), entry(row));
        }
        for row in 0..10_000_u32 {
            assert_eq!(numbers.row(i64::from(row) << 32, 9), row);
            assert_eq!(texts.row(format!("key {row}").as_bytes(), 9), row);
        }
        assert_eq!((numbers.row(1, 0), texts.row(b"key", 0), texts.row(b"", 0)), (ABSENT, ABSENT, ABSENT));
        assert_eq!((numbers.row(0, 0), numbers.row(0, 10)), (0, ABSENT), "a lease ends");
        numbers.set(0, Entry { row: NOTHING, lease: 20 });
        texts.set(b"key 1", Entry { row: 7, lease: 20 });
        assert_eq!((numbers.row(0, 19), texts.row(b"key 1", 19)), (NOTHING, 7));
        assert_eq!((numbers.entry(0).map(|entry| entry.lease), numbers.entry(3)), (Some(20), None));
        assert_eq!((texts.entry(b"key 2"), texts.entry(b"2")), (Some(entry(2)), None));
    }

    #[test]
    fn zero_and_the_empty_text_are_keys_like_others() {
        let (mut numbers, mut texts) = (NumberIndex::new(), BytesIndex::new());
        assert_eq!((numbers.row(0, 0), texts.row(b"", 0)), (ABSENT, ABSENT));
        numbers.set(0, Entry { row: 3, lease: 1 });
        texts.set(b"", Entry { row: 4, lease: 1 });
        assert_eq!((numbers.row(0, 0), texts.row(b"", 0)), (3, 4));
    }
}
