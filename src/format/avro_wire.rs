//! Bytes in Avro's binary encoding, read from front to back; whatever they claim, no more is read than there is.

use crate::error::Code;
use crate::format::text::ValueError;

/// Items of arrays and maps that one value may have beyond the bytes that it had so far. Only items without any bytes get
/// there: nulls, and records without fields.
const SPARE_ITEMS: usize = 1024;
/// Records that one value may have for each byte that it had so far. Only records that hold nothing but records get there.
const RECORDS_PER_BYTE: usize = 100;

/// 22P02.
pub(crate) fn malformed(reason: impl Into<String>) -> ValueError {
    ValueError::new(Code::InvalidTextRepresentation, reason)
}

#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    message: &'a [u8],
    at: usize,
    /// Items of arrays and maps so far.
    items: usize,
    /// Records so far.
    records: usize,
}

/// A part of an array or a map.
pub(crate) struct Block {
    pub(crate) items: usize,
    /// Of all its items, where the writer says so.
    pub(crate) bytes: Option<usize>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Cursor<'a> {
        Cursor { message, at: 0, items: 0, records: 0 }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.message.len() - self.at
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], ValueError> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.message.len());
        let end = end.ok_or_else(|| {
            let (at, left) = (self.at, self.left());
            malformed(format!("{bytes} bytes should follow at byte {at}, where {left} are left"))
        })?;
        let taken = &self.message[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, ValueError> {
        let at = self.at;
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(malformed(format!("byte {at} is {other} and no boolean"))),
        }
    }

    /// Of variable length, with the sign in the lowest bit.
    pub(crate) fn long(&mut self) -> Result<i64, ValueError> {
        let start = self.at;
        let mut bits = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let value = u64::from(byte & 0x7f);
            // Of the tenth byte only the lowest bit has room.
            if shift == 63 && value > 1 {
                break;
            }
            bits |= value << shift;
            if byte < 0x80 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(malformed(format!("the number at byte {start} has more than 64 bits")))
    }

    pub(crate) fn int(&mut self) -> Result<i32, ValueError> {
        let start = self.at;
        let long = self.long()?;
        i32::try_from(long).map_err(|_| malformed(format!("the int at byte {start} is {long}")))
    }

    /// The position of a branch or a symbol among `count`.
    pub(crate) fn index(&mut self, count: usize) -> Result<usize, ValueError> {
        let start = self.at;
        let long = self.long()?;
        let index = usize::try_from(long).ok().filter(|index| *index < count);
        index.ok_or_else(|| malformed(format!("at byte {start} is chosen number {long} of {count}")))
    }

    /// Bytes with their length in front.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], ValueError> {
        let start = self.at;
        let long = self.long()?;
        let length = usize::try_from(long).map_err(|_| malformed(format!("the length at byte {start} is {long}")))?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, ValueError> {
        let start = self.at;
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| malformed(format!("the string at byte {start} is not UTF-8")))
    }

    /// Counts a record, which may have no bytes of its own.
    pub(crate) fn count_record(&mut self) -> Result<(), ValueError> {
        self.records += 1;
        match self.records / RECORDS_PER_BYTE > self.at + SPARE_ITEMS {
            true => Err(malformed(format!("there are more records than the {} bytes before them can hold", self.at))),
            false => Ok(()),
        }
    }

    /// Counts an item of an array or a map once it has been read; it may have had no bytes.
    pub(crate) fn count_item(&mut self) -> Result<(), ValueError> {
        self.items += 1;
        match self.items > self.at + SPARE_ITEMS {
            true => Err(malformed(format!("there are more items than the {} bytes before them can hold", self.at))),
            false => Ok(()),
        }
    }

    /// The next part of an array or a map; `None` at its end.
    pub(crate) fn block(&mut self) -> Result<Option<Block>, ValueError> {
        let start = self.at;
        let count = self.long()?;
        let bytes = match count {
            0 => return Ok(None),
            1.. => None,
            _ => Some(self.long()?),
        };
        let most = self.left() + SPARE_ITEMS;
        let items = usize::try_from(count.unsigned_abs()).ok().filter(|items| *items <= most);
        let items = items.ok_or_else(|| {
            let (count, left) = (count.unsigned_abs(), self.left());
            malformed(format!("{count} items should follow at byte {start}, where {left} bytes are left"))
        })?;
        let bytes = bytes.map(|bytes| {
            usize::try_from(bytes).map_err(|_| malformed(format!("the items at byte {start} have {bytes} bytes")))
        });
        Ok(Some(Block { items, bytes: bytes.transpose()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason<T: std::fmt::Debug>(read: Result<T, ValueError>) -> String {
        read.unwrap_err().message
    }

    #[test]
    fn numbers_are_read_to_their_limits() {
        for (bytes, expected) in [
            (&[0][..], 0),
            (&[1], -1),
            (&[0x80, 0x01], 64),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MAX),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], i64::MIN),
        ] {
            assert_eq!(Cursor::new(bytes).long().unwrap(), expected);
        }
        assert_eq!(reason(Cursor::new(&[0xff; 10]).long()), "the number at byte 0 has more than 64 bits");
        assert_eq!(reason(Cursor::new(&[0x80; 3]).long()), "1 bytes should follow at byte 3, where 0 are left");
        assert_eq!(reason(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).int()), "the int at byte 0 is 2147483648");
    }

    #[test]
    fn claims_beyond_the_message_are_refused_before_anything_is_set_aside() {
        let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
        let expected = "1152921504606846976 bytes should follow at byte 9, where 0 are left";
        assert_eq!(reason(Cursor::new(&huge).bytes()), expected);
        assert_eq!(reason(Cursor::new(&[1]).bytes()), "the length at byte 0 is -1");
        assert_eq!(reason(Cursor::new(&[2, 0xff]).text()), "the string at byte 0 is not UTF-8");
        assert_eq!(reason(Cursor::new(&[2]).boolean()), "byte 0 is 2 and no boolean");
        let block = |bytes: &[u8]| Cursor::new(bytes).block().map(|block| block.map(|block| block.items));
        let expected = "1152921504606846976 items should follow at byte 0, where 0 bytes are left";
        assert_eq!(reason(block(&huge)), expected);
        let lowest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0];
        assert!(reason(block(&lowest)).starts_with("9223372036854775808 items should follow"));
    }
}
