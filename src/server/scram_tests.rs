use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::password::scram_sha_256;
use ring::pbkdf2;

use super::*;

const UNBOUND: Channel = Channel { is_bound: false, end_point: None };

/// A verifier made of a password by the book (RFC 5802, section 3).
fn verifier(password: &str, salt: &[u8], iterations: u32) -> Verifier {
    let iterations = NonZeroU32::new(iterations).unwrap();
    let mut salted = [0; HASH_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
    let sign = |text: &[u8]| hmac::sign(&key(&salted), text).as_ref().try_into().unwrap();
    let client_key: [u8; HASH_BYTES] = sign(b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, &client_key).as_ref().try_into().unwrap();
    Verifier { iterations, salt: salt.to_vec(), stored_key, server_key: sign(b"Server Key") }
}

/// RFC 7677, section 3.
#[test]
fn the_exchange_of_the_rfc_goes_word_for_word() {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let verifier = verifier("pencil", &salt, 4096);
    let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let challenge = begin(first, UNBOUND, (verifier, true), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
    let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    assert_eq!(challenge.message, expected);
    let last =
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let answer = challenge.finish(last).unwrap();
    assert_eq!(answer.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
}

/// The outcome for a client that has this password and knows this much of the channel.
fn exchange(
    verifier: (Verifier, bool),
    password: &str,
    binding: ChannelBinding,
    channel: Channel,
) -> Result<Option<String>> {
    let mut client = ScramSha256::new(password.as_bytes(), binding);
    let challenge = begin(client.message(), channel, verifier, &new_nonce()?)?;
    client.update(challenge.message.as_bytes()).unwrap();
    let answer = challenge.finish(client.message())?;
    if let Some(answer) = &answer {
        client.finish(answer.as_bytes()).unwrap();
    }
    Ok(answer)
}

fn made_of(password: &str) -> Verifier {
    Verifier::parse(&scram_sha_256(password.as_bytes())).unwrap()
}

#[test]
fn only_the_right_password_of_a_known_user_is_let_in() {
    let unsupported = ChannelBinding::unsupported;
    let is_in = |verifier, password| exchange(verifier, password, unsupported(), UNBOUND).unwrap().is_some();
    let good = made_of("sesame");
    assert!(is_in((good.clone(), true), "sesame"));
    assert!(!is_in((good.clone(), true), "Sesame"));
    assert!(!is_in((good, false), "sesame"), "a decoy that happens to fit");
    // SASLprep: a soft hyphen is nothing, a wide blank is a blank.
    assert!(is_in((made_of("I\u{ad}X \u{aa}"), true), "IX\u{3000}a"));
}

#[test]
fn a_bound_channel_must_be_the_servers_own() {
    let good = || (made_of("sesame"), true);
    let bound = Channel { is_bound: true, end_point: Some(b"certificate") };
    let with = |data: &[u8]| ChannelBinding::tls_server_end_point(data.to_vec());
    assert!(exchange(good(), "sesame", with(b"certificate"), bound).unwrap().is_some());
    let error = exchange(good(), "sesame", with(b"another"), bound).unwrap_err();
    assert_eq!((error.sqlstate(), error.message()), ("28000", "SCRAM channel binding check failed"));
    // 'y': the client could, and believes that the server cannot.
    let offered = Channel { is_bound: false, end_point: Some(b"certificate") };
    let error = exchange(good(), "sesame", ChannelBinding::unrequested(), offered).unwrap_err();
    assert_eq!((error.sqlstate(), error.message()), ("28000", "SCRAM channel binding negotiation error"));
    assert!(exchange(good(), "sesame", ChannelBinding::unrequested(), UNBOUND).unwrap().is_some());
    assert!(exchange(good(), "sesame", ChannelBinding::unsupported(), offered).unwrap().is_some());
}

#[test]
fn what_is_no_message_is_refused() {
    let bound = Channel { is_bound: true, end_point: Some(b"x") };
    for (message, channel, expected) in [
        ("", UNBOUND, "08P01"),
        ("n", UNBOUND, "08P01"),
        ("n,", UNBOUND, "08P01"),
        ("n,,", UNBOUND, "08P01"),
        ("n,,n=", UNBOUND, "08P01"),
        ("n,,r=abc", UNBOUND, "08P01"),
        ("n,,n=,r=", UNBOUND, "08P01"),
        ("n,,n=,r=a b", UNBOUND, "08P01"),
        ("z,,n=,r=abc", UNBOUND, "08P01"),
        ("n,a=admin,n=,r=abc", UNBOUND, "0A000"),
        ("n,,m=x,n=,r=abc", UNBOUND, "0A000"),
        ("n,,n=,r=abc", bound, "08P01"),
        ("y,,n=,r=abc", bound, "08P01"),
        ("p=tls-unique,,n=,r=abc", bound, "08P01"),
        ("p=tls-server-end-point,,n=,r=abc", UNBOUND, "08P01"),
    ] {
        let error = begin(message.as_bytes(), channel, (made_of("x"), true), "nonce").unwrap_err();
        assert_eq!(error.sqlstate(), expected, "{message}");
    }
    assert!(begin(b"n,,n=\xff,r=abc", UNBOUND, (made_of("x"), true), "nonce").is_err());
    let challenge = begin(b"n,,n=,r=abc", UNBOUND, (made_of("x"), true), "nonce").unwrap();
    let proof = STANDARD.encode([0; 32]);
    assert_eq!(challenge.finish(format!("c=biws,r=abcnonce,p={proof}").as_bytes()).unwrap(), None);
    for message in [
        String::new(),
        "c=biws,r=abcnonce".to_string(),
        "c=biws,r=abcnonce,p=AAAA".to_string(),
        format!("c=biws,r=abcnonc,p={proof}"),
        format!("c=eSws,r=abcnonce,p={proof}"),
        format!("r=abcnonce,p={proof}"),
    ] {
        assert_eq!(challenge.finish(message.as_bytes()).unwrap_err().sqlstate(), "08P01", "{message}");
    }
}

#[test]
fn a_name_that_nobody_has_looks_like_any_other_each_time() {
    let users = [made_of("a"), made_of("b")];
    let decoy = Decoy::new(users.iter());
    let (first, again) = (decoy.verifier("eve"), Decoy::new(users.iter()).verifier("eve"));
    assert_eq!(first, again, "a restart changes nothing");
    assert_ne!(first.salt, decoy.verifier("eva").salt);
    assert_eq!((first.salt.len(), first.iterations.get()), (16, 4096));
    let long = Verifier { salt: vec![1; 70], ..made_of("a") };
    let salt = Decoy::new([&long].into_iter()).verifier("eve").salt;
    assert_eq!(salt.len(), 70);
    assert_ne!(salt[..32], salt[32..64]);
}
