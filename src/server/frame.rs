//! Where a message ends, and whether it holds what its type says: the decoders behind this rely on it.

use bytes::{Buf, BytesMut};

use crate::error::{Code, Error, Result};

/// Most bytes of one message, as in PostgreSQL.
pub const MAX_MESSAGE_BYTES: usize = 0x3fff_ffff;
/// A message's type and length.
pub const MESSAGE_HEAD_BYTES: usize = 5;

/// Takes the next message off the input, with its type and length; `None` until all of it is there.
///
/// # Errors
/// 08P01 for a length that no message has or that is beyond `most` bytes, and for a body that does not fit its type.
pub fn take_message(input: &mut BytesMut, most: usize) -> Result<Option<BytesMut>> {
    let Some(mut length) = input.get(1..5) else { return Ok(None) };
    let length = length.get_u32() as usize;
    if !(4..=most).contains(&length) {
        return Err(Error::new(Code::ProtocolViolation, "invalid message length"));
    }
    if input.len() <= length {
        return Ok(None);
    }
    let message = input.split_to(length + 1);
    match is_whole(message[0], &message[5..]) {
        true => Ok(Some(message)),
        false => Err(Error::new(Code::ProtocolViolation, "invalid message format")),
    }
}

fn is_whole(letter: u8, body: &[u8]) -> bool {
    let mut body = Body(body);
    let read = match letter {
        b'Q' | b'f' => body.string(),
        b'P' => body.string().and_then(|()| body.string()).and_then(|()| body.counted(4)),
        b'B' => body.bind(),
        b'C' | b'D' => body.skip(1).and_then(|()| body.string()),
        b'E' => body.string().and_then(|()| body.skip(4)),
        // Those that are all data, and those that have none; unknown ones are found out later.
        _ => return true,
    };
    read.is_some() && body.0.is_empty()
}

/// What of a message has not been looked at.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn bind(&mut self) -> Option<()> {
        self.string()?;
        self.string()?;
        self.counted(2)?;
        for _ in 0..self.count()? {
            let length = i32::from_be_bytes(*self.0.first_chunk()?);
            self.skip(4)?;
            // NULL has the length -1.
            self.skip(usize::try_from(length).unwrap_or(0))?;
        }
        self.counted(2)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        self.skip(end + 1)
    }

    fn count(&mut self) -> Option<u16> {
        let count = u16::from_be_bytes(*self.0.first_chunk()?);
        self.skip(2)?;
        Some(count)
    }

    /// A count and so many items of this size.
    fn counted(&mut self, bytes: usize) -> Option<()> {
        let count = self.count()?;
        self.skip(usize::from(count) * bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_or_not_at_all() {
        let mut input = BytesMut::from(&b"Q\0\0\0\x06a\0S\0\0\0\x04Q\0\0"[..]);
        assert_eq!(take_message(&mut input, 100).unwrap().unwrap(), &b"Q\0\0\0\x06a\0"[..]);
        assert_eq!(take_message(&mut input, 100).unwrap().unwrap(), &b"S\0\0\0\x04"[..]);
        assert_eq!(take_message(&mut input, 100).unwrap(), None);
        assert_eq!(input, &b"Q\0\0"[..]);
        let bind = b"B\0\0\0\x19a\0b\0\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x01x\0\0";
        assert!(take_message(&mut BytesMut::from(&bind[..]), 100).unwrap().is_some());
    }

    #[test]
    fn bodies_that_do_not_fit_their_type_are_refused() {
        for bytes in [
            &b"Q\0\0\0\x03"[..],
            b"Q\xff\xff\xff\xff",
            b"Q\0\0\0\x65",
            b"Q\0\0\0\x05a",
            b"Q\0\0\0\x07a\0b",
            b"P\0\0\0\x08a\0\0\x01",
            b"B\0\0\0\x07a\0b",
            b"B\0\0\0\x10\0\0\0\0\0\x01\0\0\0\x05x\0",
            b"C\0\0\0\x05S",
            b"E\0\0\0\x06\0\0",
        ] {
            let error = take_message(&mut BytesMut::from(bytes), 100).unwrap_err();
            assert_eq!(error.sqlstate(), "08P01", "{bytes:?}");
        }
    }
}
