//! Which server of a cluster has which keys.

use redis::{ServerError, Value};

use super::redis_node::Address;

const SLOTS: usize = 16_384;
/// In place of a master's number: nobody has the slot.
const NOBODY: u16 = u16::MAX;

/// The masters of a cluster and their slots, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// Sorted.
    pub masters: Vec<Address>,
    /// For each slot a position in `masters`.
    master_of_slot: Vec<u16>,
}

impl Topology {
    /// Reads the answer to CLUSTER SLOTS that `asked` gave; `None` if it is none.
    pub(super) fn parse(answer: &Value, asked: &Address) -> Option<Topology> {
        let Value::Array(ranges) = answer else { return None };
        let ranges = ranges.iter().map(|range| parse_range(range, asked)).collect::<Option<Vec<_>>>()?;
        let mut masters = ranges.iter().map(|(_, _, master)| master.clone()).collect::<Vec<_>>();
        masters.sort();
        masters.dedup();
        let mut master_of_slot = vec![NOBODY; SLOTS];
        for (first, last, master) in &ranges {
            let number = masters.binary_search(master).ok()? as u16;
            master_of_slot.get_mut(*first..=*last)?.fill(number);
        }
        Some(Topology { masters, master_of_slot })
    }

    /// The server that has the key; `None` if no server has its slot.
    pub(super) fn master_of(&self, key: &str) -> Option<&Address> {
        self.master_of_slot.get(slot_of(key.as_bytes())).and_then(|master| self.masters.get(usize::from(*master)))
    }
}

/// The first slot, the last, and who has them.
fn parse_range(range: &Value, asked: &Address) -> Option<(usize, usize, Address)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else { return None };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) if !host.is_empty() && host != b"?" => String::from_utf8(host.clone()).ok()?,
        // It does not know its own name: we do.
        _ => asked.host.clone(),
    };
    Some((
        usize::try_from(*first).ok()?,
        usize::try_from(*last).ok()?,
        Address { host, port: u16::try_from(*port).ok()? },
    ))
}

/// Where a server that was asked sends us.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Redirect {
    pub to: Address,
    /// Whether only this once, as the slot is on its way there.
    pub is_asking: bool,
}

impl Redirect {
    /// What the error of `asked` says of it; `None` if it is another error.
    pub(super) fn of(error: &ServerError, asked: &Address) -> Option<Redirect> {
        let is_asking = match error.code() {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let (_, address) = error.details()?.split_once(' ')?;
        let (host, port) = address.trim().rsplit_once(':')?;
        let host = if host.is_empty() { asked.host.clone() } else { host.to_string() };
        Some(Redirect { to: Address { host, port: port.parse().ok()? }, is_asking })
    }
}

/// The slot of a key: of what stands between its first braces, if anything does, else of all of it.
fn slot_of(key: &[u8]) -> usize {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        let close = behind.iter().position(|byte| *byte == b'}')?;
        Some(&behind[..close]).filter(|tag| !tag.is_empty())
    });
    usize::from(crc16(tag.unwrap_or(key))) % SLOTS
}

/// CRC16 as the specification of Redis Cluster has it (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address { host: "10.0.0.1".to_string(), port }
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let server = |port| {
            Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString(b"id".to_vec())])
        };
        Value::Array(vec![Value::Int(first), Value::Int(last), server(port), server(port + 1000)])
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // What CLUSTER KEYSLOT of a server says.
        let slots =
            [("123456789", 12_739), ("foo", 12_182), ("{user1000}.following", 3_443), ("{user1000}.followers", 3_443)];
        for (key, slot) in slots {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{}{bar}"), usize::from(crc16(b"foo{}{bar}")) % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), usize::from(crc16(b"{bar")) % SLOTS);
        assert_eq!(slot_of(b"foo{bar"), usize::from(crc16(b"foo{bar")) % SLOTS);
    }

    #[test]
    fn answer_of_cluster_slots_is_read() {
        let answer = Value::Array(vec![range(0, 8_000, "", 2), range(8_002, 16_383, "10.0.0.9", 1)]);
        let topology = Topology::parse(&answer, &address(7)).unwrap();
        assert_eq!(topology.masters, [address(2), Address { host: "10.0.0.9".to_string(), port: 1 }]);
        assert_eq!(topology.master_of("{user1000}"), Some(&address(2)));
        assert_eq!(topology.master_of("foo"), Some(&topology.masters[1]));
        assert_eq!(topology.master_of_slot[8_001], NOBODY);
        for wrong in [Value::Nil, Value::Array(vec![Value::Int(1)]), Value::Array(vec![range(0, 99_999, "a", 1)])] {
            assert_eq!(Topology::parse(&wrong, &address(7)), None);
        }
    }
}
