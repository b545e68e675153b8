//! The messages that a connection begins with. They have no letter, and nobody knows yet who sends them.

use bytes::{Buf, BytesMut};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::{GssEncRequest, SslRequest, Startup};
use pgwire::messages::{DecodeContext, Message, ProtocolVersion};

use crate::error::{Code, Error, Result};

/// Most bytes of a message before the end of the log-in, as of PostgreSQL's startup packet.
pub const MAX_OPENING_BYTES: usize = 10_000;
/// A length and a code.
const HEAD_BYTES: usize = 8;

/// How a client begins.
#[derive(Debug)]
pub enum Opening {
    /// It asks for TLS.
    Tls,
    /// It asks for encryption by GSSAPI.
    Gss,
    Cancel(CancelRequest),
    Startup(Startup),
}

/// Takes such a message off the input; `None` until all of it is there.
///
/// # Errors
/// 08P01 for what is none, 0A000 for another protocol.
pub fn take_opening(input: &mut BytesMut) -> Result<Option<Opening>> {
    let Some(mut head) = input.get(..4) else { return Ok(None) };
    let length = head.get_u32() as usize;
    if !(HEAD_BYTES..=MAX_OPENING_BYTES).contains(&length) {
        return Err(Error::new(Code::ProtocolViolation, "invalid length of startup packet"));
    }
    if input.len() < length {
        return Ok(None);
    }
    let mut packet = input.split_to(length);
    if SslRequest::is_ssl_request_packet(&packet) {
        return Ok(Some(Opening::Tls));
    }
    if GssEncRequest::is_gss_enc_request_packet(&packet) {
        return Ok(Some(Opening::Gss));
    }
    let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    let wrong = || Error::new(Code::ProtocolViolation, "invalid startup packet layout");
    if CancelRequest::is_cancel_request_packet(&packet) {
        let request = CancelRequest::decode(&mut packet, &context).ok().flatten();
        return request.map(|request| Some(Opening::Cancel(request))).ok_or_else(wrong);
    }
    let mut version = &packet[4..HEAD_BYTES];
    let (major, minor) = (version.get_u16(), version.get_u16());
    if major != 3 {
        let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
        return Err(Error::unsupported(message));
    }
    if length == HEAD_BYTES || packet.last() != Some(&0) {
        return Err(Error::new(
            Code::ProtocolViolation,
            "invalid startup packet layout: expected terminator as last byte",
        ));
    }
    let startup = Startup::decode(&mut packet, &context).ok().flatten();
    startup.map(|startup| Some(Opening::Startup(startup))).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8]) -> Result<Option<Opening>> {
        take_opening(&mut BytesMut::from(bytes))
    }

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        let length = (HEAD_BYTES + rest.len()) as u32;
        [&length.to_be_bytes(), &code.to_be_bytes(), rest].concat()
    }

    const VERSION_3: u32 = 3 << 16;

    #[test]
    fn openings_are_taken_whole_and_leave_what_follows() {
        let mut input = BytesMut::from(packet(80_877_103, b"").as_slice());
        input.extend_from_slice(&packet(VERSION_3, b"user\0me\0\0"));
        input.extend_from_slice(b"p");
        assert!(matches!(take_opening(&mut input), Ok(Some(Opening::Tls))));
        let Ok(Some(Opening::Startup(startup))) = take_opening(&mut input) else { panic!("no startup") };
        assert_eq!(startup.parameters["user"], "me");
        assert_eq!(input, &b"p"[..]);
        let whole = packet(80_877_102, &[0, 0, 0, 1, 0, 0, 0, 2]);
        for length in 0..whole.len() {
            assert!(matches!(take(&whole[..length]), Ok(None)), "{length} bytes");
        }
        let Ok(Some(Opening::Cancel(request))) = take(&whole) else { panic!("no cancel") };
        assert_eq!((request.pid, request.secret_key.as_i32()), (1, Some(2)));
        assert!(matches!(take(&packet(80_877_104, b"")), Ok(Some(Opening::Gss))));
    }

    #[test]
    fn what_is_none_is_refused_before_it_is_read() {
        for (bytes, sqlstate) in [
            (vec![0, 0, 0, 7], "08P01"),
            (10_001_u32.to_be_bytes().to_vec(), "08P01"),
            (vec![0x16, 3, 1, 2], "08P01"),
            (b"GET / HTTP/1.1".to_vec(), "08P01"),
            (packet(VERSION_3, b""), "08P01"),
            (packet(VERSION_3, b"user\0me"), "08P01"),
            (packet(2 << 16, b"\0"), "0A000"),
            (packet(80_877_102, b"\0\0\0\x01"), "08P01"),
            (packet(80_877_102, &[0; 400]), "08P01"),
        ] {
            assert_eq!(take(&bytes).unwrap_err().sqlstate(), sqlstate, "{bytes:?}");
        }
    }
}
