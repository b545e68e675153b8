//! Single values as PostgreSQL's output functions write them: integers, bytea, and what an array or COPY adds around them.

use bytes::{BufMut, BytesMut};

use crate::error::Result;

pub(super) fn write_integer(value: i64, out: &mut BytesMut) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `\x` and two digits a byte.
pub(super) fn write_hex(value: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + value.len() * 2);
    out.put_slice(b"\\x");
    for byte in value {
        out.put_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Appends what `write` appends, quoted where PostgreSQL quotes an element of an array.
pub(super) fn write_array_element(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
    let start = out.len();
    write(out)?;
    let value = &out[start..];
    let is_special =
        |byte: &u8| matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    if value.is_empty() || value.eq_ignore_ascii_case(b"NULL") || value.iter().any(is_special) {
        quote(out, start, b'"', |byte| matches!(byte, b'"' | b'\\').then_some(b'\\'));
    }
    Ok(())
}

/// Puts everything after `start` between two `quote`s, with the byte of `escape` before those that have one.
pub(super) fn quote(out: &mut BytesMut, start: usize, quote: u8, escape: impl Fn(u8) -> Option<u8>) {
    escape_from(out, start, |byte| escape(byte).map(|escape| (escape, byte)));
    out.put_slice(&[0, 0]);
    let end = out.len();
    out.copy_within(start..end - 2, start + 1);
    out[start] = quote;
    out[end - 1] = quote;
}

/// Replaces, in place, the bytes after `start` that have an escape by the two bytes of it.
pub(super) fn escape_from(out: &mut BytesMut, start: usize, escape: impl Fn(u8) -> Option<(u8, u8)>) {
    let count = out[start..].iter().filter(|byte| escape(**byte).is_some()).count();
    if count == 0 {
        return;
    }
    let mut from = out.len();
    out.put_bytes(0, count);
    let mut to = out.len();
    // From the end, so that nothing is overwritten before it is read; once both meet, the rest is in place.
    while from < to {
        from -= 1;
        let byte = out[from];
        match escape(byte) {
            Some((first, second)) => {
                to -= 2;
                out[to] = first;
                out[to + 1] = second;
            }
            None => {
                to -= 1;
                out[to] = byte;
            }
        }
    }
}
