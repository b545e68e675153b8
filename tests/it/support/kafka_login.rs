//! Logging in to a broker of Kafka's protocol, as the proxy asks for it: SASL with PLAIN, SCRAM and OAUTHBEARER, and where tokens
//! of the latter come from.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::support::http_service::{HttpService, Told, decoded};
use crate::support::kafka_proxy::{api_key, head, read_frame, write_frame};

const UNSUPPORTED_MECHANISM: i16 = 33;
const AUTHENTICATION_FAILED: i16 = 58;
const ITERATIONS: u32 = 4096;
const SALT: &[u8] = b"salt of tests";

/// Whom to let in.
#[derive(Clone)]
pub enum Login {
    Plain {
        user: &'static str,
        password: &'static str,
    },
    Scram {
        hash: ScramHash,
        user: &'static str,
        password: &'static str,
    },
    /// With this token.
    OAuthBearer {
        token: &'static str,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ScramHash {
    Sha256,
    Sha512,
}

/// Why somebody is not let in, in Kafka's words.
type Refusal = String;

impl Login {
    /// As `sasl_mechanism` names it.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Login::Plain { .. } => "PLAIN",
            Login::Scram { hash: ScramHash::Sha256, .. } => "SCRAM-SHA-256",
            Login::Scram { hash: ScramHash::Sha512, .. } => "SCRAM-SHA-512",
            Login::OAuthBearer { .. } => "OAUTHBEARER",
        }
    }

    /// Talks with a client until it has logged in; what comes before that and is no login is the broker's to answer.
    /// `seen` is told of each request.
    ///
    /// # Errors
    /// When the connection ends, when the client is refused, and when it asks for something without having logged in.
    pub async fn admit(
        &self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        broker: &mut (impl AsyncRead + AsyncWrite + Unpin),
        seen: impl Fn(i16),
    ) -> std::io::Result<()> {
        let mut exchange = Exchange::Begin;
        loop {
            let request = read_frame(client).await?;
            let (key, number) = head(&request);
            seen(key);
            let (answer, next) = match key {
                api_key::API_VERSIONS => {
                    write_frame(broker, &request).await?;
                    write_frame(client, &read_frame(broker).await?).await?;
                    continue;
                }
                api_key::SASL_HANDSHAKE => self.shake_hands(body(&request)),
                api_key::SASL_AUTHENTICATE => self.authenticate(exchange, &request),
                _ => return Err(std::io::Error::other("a request of somebody who has not logged in")),
            };
            write_frame(client, &[number.as_slice(), &answer].concat()).await?;
            match next {
                Ok(Exchange::Done) => return Ok(()),
                Ok(next) => exchange = next,
                Err(refusal) => return Err(std::io::Error::other(refusal)),
            }
        }
    }

    /// Answers with the mechanisms that there are: this one.
    fn shake_hands(&self, request: &[u8]) -> (Vec<u8>, Result<Exchange, Refusal>) {
        let mechanism = self.mechanism();
        let is_known = &request[2..] == mechanism.as_bytes();
        let error = if is_known { 0 } else { UNSUPPORTED_MECHANISM };
        let answer = [&error.to_be_bytes()[..], &1_u32.to_be_bytes(), &short_text(mechanism)].concat();
        let next = if is_known { Ok(Exchange::Begin) } else { Err("another mechanism".to_string()) };
        (answer, next)
    }

    /// `request` is the whole of it: its version says how the answer ends.
    fn authenticate(&self, exchange: Exchange, request: &[u8]) -> (Vec<u8>, Result<Exchange, Refusal>) {
        let said = &body(request)[4..];
        let next = self.step(exchange, said);
        let mut answer = vec![];
        let bytes = match &next {
            Ok((bytes, _)) => {
                answer.extend(0_i16.to_be_bytes());
                answer.extend((-1_i16).to_be_bytes());
                bytes.as_slice()
            }
            Err(refusal) => {
                answer.extend(AUTHENTICATION_FAILED.to_be_bytes());
                answer.extend(short_text(refusal));
                &[]
            }
        };
        answer.extend((bytes.len() as u32).to_be_bytes());
        answer.extend(bytes);
        let version = request[3];
        assert!(version < 2, "version {version} of SaslAuthenticate, which nobody has needed yet");
        if version == 1 {
            // The login holds for ever.
            answer.extend(0_i64.to_be_bytes());
        }
        (answer, next.map(|(_, next)| next))
    }

    /// What is answered to a message of the mechanism's, and what comes then.
    fn step(&self, exchange: Exchange, said: &[u8]) -> Result<(Vec<u8>, Exchange), Refusal> {
        match (self, exchange) {
            (Login::Plain { user, password }, _) => {
                let right = format!("\0{user}\0{password}");
                let is_right = said.strip_prefix(user.as_bytes()).unwrap_or(said) == right.as_bytes();
                let refusal = || "Authentication failed: Invalid username or password".to_string();
                is_right.then(|| (vec![], Exchange::Done)).ok_or_else(refusal)
            }
            (Login::Scram { hash, user, password }, Exchange::Begin) => Ok(Scram::begin(*hash, user, password, said)),
            (Login::Scram { .. }, Exchange::Scram(scram)) => {
                let refusal = || {
                    let mechanism = self.mechanism();
                    format!(
                        "Authentication failed during authentication due to invalid credentials with SASL mechanism {mechanism}"
                    )
                };
                scram.finish(said).map(|last| (last, Exchange::Done)).ok_or_else(refusal)
            }
            (Login::OAuthBearer { token }, Exchange::Begin) => {
                let right = format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}");
                let told = r#"{"status":"invalid_token"}"#.as_bytes().to_vec();
                Ok(if said == right.as_bytes() { (vec![], Exchange::Done) } else { (told, Exchange::Refused) })
            }
            // The client has been told, and says that it knows.
            (Login::OAuthBearer { .. }, Exchange::Refused) => Err(r#"{"status":"invalid_token"}"#.to_string()),
            (Login::Scram { .. } | Login::OAuthBearer { .. }, _) => Err("a message out of turn".to_string()),
        }
    }
}

/// How far a client has come.
enum Exchange {
    Begin,
    Scram(Scram),
    /// A bearer of a wrong token, who has been told.
    Refused,
    Done,
}

/// RFC 5802: what the server must know for the second message.
struct Scram {
    hash: ScramHash,
    salted: Vec<u8>,
    is_known: bool,
    nonce: String,
    /// The client's first message without its header, and the server's first.
    said: String,
}

impl Scram {
    fn begin(hash: ScramHash, user: &str, password: &str, said: &[u8]) -> (Vec<u8>, Exchange) {
        let said = std::str::from_utf8(said).unwrap();
        let bare = said.strip_prefix("n,,").expect("no channel is bound");
        let (name, nonce) = bare.split_once(",r=").expect("a name and a nonce");
        let nonce = format!("{nonce}nonce-of-tests");
        let answer = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(SALT));
        let mut salted = vec![0; hash.digest().output_len()];
        let iterations = ITERATIONS.try_into().unwrap();
        pbkdf2::derive(hash.pbkdf2(), iterations, SALT, password.as_bytes(), &mut salted);
        let is_known = name.strip_prefix("n=") == Some(user);
        (
            answer.clone().into_bytes(),
            Exchange::Scram(Scram { hash, salted, is_known, nonce, said: format!("{bare},{answer}") }),
        )
    }

    /// The server's last message; `None` for a wrong password.
    fn finish(&self, said: &[u8]) -> Option<Vec<u8>> {
        let said = std::str::from_utf8(said).unwrap();
        let (without_proof, proof) = said.rsplit_once(",p=").expect("a proof");
        assert_eq!(without_proof, format!("c=biws,r={}", self.nonce));
        let all = format!("{},{without_proof}", self.said);
        let client_key = self.sign(&self.salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), &client_key);
        let signature = self.sign(stored_key.as_ref(), all.as_bytes());
        let right = client_key.iter().zip(signature).map(|(key, byte)| key ^ byte).collect::<Vec<_>>();
        let server_key = self.sign(&self.salted, b"Server Key");
        let last = format!("v={}", STANDARD.encode(self.sign(&server_key, all.as_bytes())));
        (self.is_known && STANDARD.encode(right) == proof).then(|| last.into_bytes())
    }

    fn sign(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hash.hmac(), key), message).as_ref().to_vec()
    }
}

impl ScramHash {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            ScramHash::Sha256 => &digest::SHA256,
            ScramHash::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            ScramHash::Sha256 => hmac::HMAC_SHA256,
            ScramHash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            ScramHash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// What follows a request's head: its key, version and number, and the client's name.
fn body(request: &[u8]) -> &[u8] {
    let name_bytes = i16::from_be_bytes([request[8], request[9]]).max(0);
    &request[10 + name_bytes as usize..]
}

fn short_text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Gives this token to who asks as RFC 6749 says for clients of their own (`client_credentials`), for `seconds`.
pub async fn token_endpoint(
    client: &'static str,
    secret: &'static str,
    token: &'static str,
    seconds: u64,
) -> HttpService {
    HttpService::start(move |asked| {
        let form = asked.body.split('&').filter_map(|pair| pair.split_once('='));
        let form = form.map(|(name, value)| (decoded(name), decoded(value))).collect::<Vec<_>>();
        let said = |name: &str| form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        // The client's name stands in a header or in the form: RFC 6749, section 2.3.1.
        let in_header = format!("Basic {}", STANDARD.encode(format!("{client}:{secret}")));
        let is_known = asked.header("authorization") == Some(&in_header)
            || (said("client_id"), said("client_secret")) == (Some(client), Some(secret));
        match (asked.method.as_str(), said("grant_type")) {
            ("POST", Some("client_credentials")) if is_known => Told::json(
                serde_json::json!({"access_token": token, "token_type": "Bearer", "expires_in": seconds}).to_string(),
            ),
            ("POST", Some("client_credentials")) => Told { status: 401, ..Told::json(r#"{"error":"invalid_client"}"#) },
            _ => Told { status: 400, ..Told::json(r#"{"error":"unsupported_grant_type"}"#) },
        }
    })
    .await
}
