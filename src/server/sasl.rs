//! The message in which a client chooses how to prove itself.

use crate::error::{Code, Error, Result};

/// The mechanism that the client has chosen, and what it says by it.
///
/// # Errors
/// 08P01 for what is no SASLInitialResponse.
pub fn initial_response(body: &[u8]) -> Result<(&str, &[u8])> {
    let malformed = || Error::new(Code::ProtocolViolation, "invalid SASL response");
    let end = body.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
    let (mechanism, rest) = body.split_at(end);
    let mechanism = std::str::from_utf8(mechanism).map_err(|_| malformed())?;
    let (length, response) = rest[1..].split_first_chunk().ok_or_else(malformed)?;
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| malformed())?;
    if length != response.len() {
        return Err(malformed());
    }
    Ok((mechanism, response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_message_is_taken() {
        assert_eq!(initial_response(b"SCRAM\0\0\0\0\x03n,,").unwrap(), ("SCRAM", &b"n,,"[..]));
        for body in [
            &b""[..],
            b"SCRAM",
            b"SCRAM\0",
            b"SCRAM\0\0\0\0",
            b"SCRAM\0\0\0\0\x04n,,",
            b"SCRAM\0\0\0\0\x02n,,",
            b"SCRAM\0\xff\xff\xff\xff",
            b"\xff\0\0\0\0\x00",
            b"sesame\0",
        ] {
            assert_eq!(initial_response(body).unwrap_err().sqlstate(), "08P01", "{body:?}");
        }
    }
}
