//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as the server speaks it, and as PostgreSQL does: pure, so that it can be held
//! against the RFC's own exchange.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

use crate::catalog::verifier::{HASH_BYTES, Verifier};
use crate::error::{Code, Error, Result};

pub const SCRAM: &str = "SCRAM-SHA-256";
/// Bound to the server's certificate, so that who stands in between cannot pass it on.
pub const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The one kind of binding there is.
const END_POINT: &str = "tls-server-end-point";
/// Random bytes in a nonce, as many as PostgreSQL takes.
const NONCE_BYTES: usize = 18;

/// What a client that is about to prove itself has to do with the channel.
#[derive(Clone, Copy, Debug)]
pub struct Channel<'a> {
    /// Whether the client chose SCRAM-SHA-256-PLUS.
    pub is_bound: bool,
    /// The hash of the certificate; `None` where PLUS was not offered.
    pub end_point: Option<&'a [u8]>,
}

/// An exchange of which the client's first message has come.
#[derive(Debug)]
pub struct Challenge {
    verifier: Verifier,
    /// Whether the verifier is somebody's.
    is_known: bool,
    /// What the client has to repeat of its header and of the channel.
    binding: Vec<u8>,
    nonce: String,
    client_first_bare: String,
    /// The server's first message.
    pub message: String,
}

/// Answers the client's first message.
///
/// # Errors
/// 08P01 for what is no such message, 0A000 for what SCRAM has and PostgreSQL does not, 28000 for a client that was led to
/// believe that the server cannot bind channels.
pub fn begin(
    message: &[u8],
    channel: Channel,
    (verifier, is_known): (Verifier, bool),
    server_nonce: &str,
) -> Result<Challenge> {
    let message = std::str::from_utf8(message).map_err(|_| malformed("The message is not UTF-8."))?;
    let (flag, rest) = message.split_once(',').ok_or_else(|| malformed("The message has no header."))?;
    let (identity, bare) = rest.split_once(',').ok_or_else(|| malformed("The message has no header."))?;
    check_flag(flag, channel)?;
    if !identity.is_empty() {
        return Err(Error::unsupported("client uses authorization identity, but it is not supported"));
    }
    if bare.starts_with("m=") {
        return Err(Error::unsupported("client requires an unsupported SCRAM extension"));
    }
    // PostgreSQL goes by the name in the startup message and takes no notice of this one.
    let mut attributes = bare.split(',');
    if !attributes.next().is_some_and(|name| name.starts_with("n=")) {
        return Err(malformed("The message has no user name."));
    }
    let client_nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
    let client_nonce = client_nonce.filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|b| b.is_ascii_graphic()));
    let client_nonce = client_nonce.ok_or_else(|| malformed("The message has no nonce of printable characters."))?;

    let mut binding = message.as_bytes()[..message.len() - bare.len()].to_vec();
    if channel.is_bound {
        binding.extend_from_slice(channel.end_point.unwrap_or_default());
    }
    let nonce = format!("{client_nonce}{server_nonce}");
    let (salt, iterations) = (STANDARD.encode(&verifier.salt), verifier.iterations);
    let message = format!("r={nonce},s={salt},i={iterations}");
    Ok(Challenge { verifier, is_known, binding, nonce, client_first_bare: bare.to_string(), message })
}

/// What the client says of channels, held against what it chose and what it was offered.
fn check_flag(flag: &str, channel: Channel) -> Result<()> {
    match (flag, channel.is_bound) {
        ("n" | "y", true) => Err(malformed(
            "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
        )),
        // Somebody in between has taken the offer away.
        ("y", false) if channel.end_point.is_some() => {
            Err(Error::new(Code::InvalidAuthorization, "SCRAM channel binding negotiation error").with_detail(
                "The client supports SCRAM channel binding but thinks the server does not. However, this server does \
                 support channel binding.",
            ))
        }
        ("n" | "y", false) => Ok(()),
        (flag, _) => match flag.strip_prefix("p=") {
            Some(END_POINT) if channel.is_bound => Ok(()),
            Some(END_POINT) => Err(malformed(
                "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel \
                 binding data.",
            )),
            Some(kind) => Err(Error::new(
                Code::ProtocolViolation,
                format!("unsupported SCRAM channel-binding type \"{}\"", kind.escape_default()),
            )),
            None => Err(malformed("The message says nothing of channel binding.")),
        },
    }
}

impl Challenge {
    /// The server's last message, which proves that it knows the verifier; `None` for a wrong password.
    ///
    /// # Errors
    /// 08P01 for what is no such message or of another exchange, 28000 for one from another channel.
    pub fn finish(&self, message: &[u8]) -> Result<Option<String>> {
        let message = std::str::from_utf8(message).map_err(|_| malformed("The message is not UTF-8."))?;
        let (without_proof, proof) =
            message.rsplit_once(",p=").ok_or_else(|| malformed("The message has no proof."))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|binding| binding.strip_prefix("c="));
        let binding = binding.and_then(|binding| STANDARD.decode(binding).ok());
        if binding.as_ref() != Some(&self.binding) {
            return Err(self.wrong_binding());
        }
        if attributes.next().and_then(|nonce| nonce.strip_prefix("r=")) != Some(&self.nonce) {
            return Err(
                Error::new(Code::ProtocolViolation, "invalid SCRAM response").with_detail("Nonce does not match.")
            );
        }
        let proof: Option<[u8; HASH_BYTES]> = STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok());
        let proof = proof.ok_or_else(|| malformed("The proof is not of 32 bytes."))?;

        let said = format!("{},{},{without_proof}", self.client_first_bare, self.message);
        let signature = hmac::sign(&key(&self.verifier.stored_key), said.as_bytes());
        let mut client_key = proof;
        client_key.iter_mut().zip(signature.as_ref()).for_each(|(byte, other)| *byte ^= other);
        let is_right = are_equal(digest::digest(&digest::SHA256, &client_key).as_ref(), &self.verifier.stored_key);
        let server_signature = hmac::sign(&key(&self.verifier.server_key), said.as_bytes());
        let last = format!("v={}", STANDARD.encode(server_signature));
        Ok((is_right & self.is_known).then_some(last))
    }

    fn wrong_binding(&self) -> Error {
        match self.binding.starts_with(b"p=") {
            true => Error::new(Code::InvalidAuthorization, "SCRAM channel binding check failed"),
            false => Error::new(
                Code::ProtocolViolation,
                "unexpected SCRAM channel-binding attribute in client-final-message",
            ),
        }
    }
}

/// A server's part of a nonce.
///
/// # Errors
/// XX000 when the system has no randomness to give.
pub fn new_nonce() -> Result<String> {
    let mut nonce = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut nonce).map_err(|_| Error::internal("the system gives no random numbers"))?;
    Ok(STANDARD.encode(nonce))
}

/// What is shown of users that do not exist: for each name always the same, and like what is shown of those that do.
#[derive(Debug)]
pub struct Decoy {
    secret: hmac::Key,
    iterations: NonZeroU32,
    salt_bytes: usize,
}

impl Decoy {
    /// `verifiers` are those of all users. What is secret in them makes the decoys, so that a restart does not change
    /// these either, and what is not gives their form.
    pub fn new<'a>(verifiers: impl Iterator<Item = &'a Verifier>) -> Decoy {
        let mut all = digest::Context::new(&digest::SHA256);
        let mut form = None;
        for verifier in verifiers {
            all.update(&verifier.stored_key);
            form.get_or_insert((verifier.iterations, verifier.salt.len()));
        }
        let (iterations, salt_bytes) = form.unwrap_or((NonZeroU32::MIN, HASH_BYTES));
        Decoy { secret: key(all.finish().as_ref()), iterations, salt_bytes }
    }

    /// A verifier that no password fits.
    pub fn verifier(&self, user: &str) -> Verifier {
        let block = |number: usize| hmac::sign(&self.secret, format!("{number} {user}").as_bytes());
        let salt = (0..self.salt_bytes.div_ceil(HASH_BYTES)).flat_map(|number| block(number).as_ref().to_vec());
        let no_key = [0; HASH_BYTES];
        Verifier {
            iterations: self.iterations,
            salt: salt.take(self.salt_bytes).collect(),
            stored_key: no_key,
            server_key: no_key,
        }
    }
}

fn key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

/// Takes the same time whatever is compared: the comparison is of signatures, by who made them.
fn are_equal(left: &[u8], right: &[u8]) -> bool {
    let key = key(right);
    hmac::verify(&key, left, hmac::sign(&key, right).as_ref()).is_ok()
}

fn malformed(detail: &str) -> Error {
    Error::new(Code::ProtocolViolation, "malformed SCRAM message").with_detail(detail)
}

#[cfg(test)]
#[path = "scram_tests.rs"]
mod tests;
