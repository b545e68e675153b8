//! Which slices hold rows of the same key, for `key_ordered`: rows of one key leave as they came.

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::keys::BatchKeys;

/// A key of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SliceKey {
    pub slice: u64,
    /// The key's position among the slice's.
    pub position: u32,
}

/// A line for each key of which some rows wait. Who is not at the head of its line is held back.
#[derive(Default)]
pub(super) struct KeyLines {
    lines: HashTable<Line>,
}

struct Line {
    hash: u64,
    key: Box<[u8]>,
    members: VecDeque<SliceKey>,
}

impl KeyLines {
    /// Lines up a key of a slice that is being admitted. True: it is held back by rows that came before.
    pub fn join(&mut self, keys: &BatchKeys, member: SliceKey, is_pending: bool) -> bool {
        let hash = keys.hashes[member.position as usize];
        let key = keys.key(member.position).data();
        let entry = self.lines.entry(hash, |line| line.hash == hash && *line.key == *key, |line| line.hash);
        match entry {
            Entry::Occupied(mut line) => {
                line.get_mut().members.push_back(member);
                true
            }
            Entry::Vacant(free) => {
                if is_pending {
                    free.insert(Line { hash, key: key.into(), members: VecDeque::from([member]) });
                }
                false
            }
        }
    }

    /// The rows of a key have left: who stands behind them is held back no longer.
    pub fn leave(&mut self, hash: u64, member: SliceKey) -> Option<SliceKey> {
        let mut line = self.lines.find_entry(hash, |line| line.members.front() == Some(&member)).ok()?;
        line.get_mut().members.pop_front();
        let next = line.get().members.front().copied();
        if next.is_none() {
            line.remove();
        }
        next
    }
}
