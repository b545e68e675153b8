//! What the server keeps of a password: enough to check it, not enough to log in with.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a SHA-256 hash.
pub const HASH_BYTES: usize = 32;

/// A SCRAM-SHA-256 verifier (RFC 5803), as PostgreSQL writes it: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub iterations: NonZeroU32,
    pub salt: Vec<u8>,
    pub stored_key: [u8; HASH_BYTES],
    pub server_key: [u8; HASH_BYTES],
}

impl Verifier {
    /// `None` for any other text.
    pub fn parse(text: &str) -> Option<Verifier> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        let iterations = iterations.parse().ok()?;
        Some(Verifier { iterations, salt, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }
}

/// Hides all of it: with a verifier, passwords can be guessed without asking the server.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_is_read_and_never_shown() {
        let verifier = Verifier::parse(GOOD).unwrap();
        assert_eq!((verifier.iterations.get(), verifier.salt.len()), (4096, 16));
        assert_eq!(format!("{verifier:?}"), "Verifier(hidden)");
    }

    #[test]
    fn anything_else_is_no_verifier() {
        let mut wrong = vec![
            String::new(),
            "secret".to_string(),
            "md5a6343a68d964ca596d9752250d54bb8a".to_string(),
            GOOD.replace("4096", "0"),
            GOOD.replace("4096", "-1"),
            GOOD.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            GOOD.replace("WG5d8", "WG5"),
            GOOD.replace("SCRAM-SHA-256", "SCRAM-SHA-512"),
        ];
        wrong.push(format!("{GOOD}x"));
        for text in wrong {
            assert_eq!(Verifier::parse(&text), None, "{text}");
        }
    }
}
