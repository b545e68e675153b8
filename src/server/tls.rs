//! TLS towards clients: the files behind it, and what a certificate binds a log-in to.

use std::path::Path;
use std::sync::Arc;

use ring::digest::{self, Algorithm};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::catalog::definition::TlsDefinition;
use crate::error::{Code, Error, Result};

/// What clients of PostgreSQL 17 and later name when they speak TLS from the first byte.
pub const POSTGRESQL_ALPN: &[u8] = b"postgresql";
/// The first byte of a client that speaks TLS.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// TLS with the server's certificate.
#[derive(Clone)]
pub struct Tls {
    pub postgresql: TlsAcceptor,
    pub http: TlsAcceptor,
    /// What SCRAM-SHA-256-PLUS binds to (tls-server-end-point, RFC 5929); `None` where the certificate's signature has no
    /// hash of its own, as Ed25519.
    pub end_point: Option<Arc<[u8]>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// 22023 for a file that cannot be read or that does not go with the others.
    pub fn try_new(definition: &TlsDefinition) -> Result<Tls> {
        let certificates = certificates("tls_certificate", &definition.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&definition.key)
            .map_err(|error| unreadable("tls_key", &definition.key, &error.to_string()))?;
        let client_ca = definition.client_ca.as_deref();
        let end_point = certificates.first().and_then(|certificate| end_point(certificate));
        let config = |protocol: &[u8]| -> Result<TlsAcceptor> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?;
            let builder = match client_ca {
                Some(path) => builder.with_client_cert_verifier(client_verifier(path)?),
                None => builder.with_no_client_auth(),
            };
            let config = builder.with_single_cert(certificates.clone(), key.clone_key());
            let mut config =
                config.map_err(|error| unreadable("tls_certificate", &definition.certificate, &error.to_string()))?;
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(TlsAcceptor::from(Arc::new(config)))
        };
        Ok(Tls { postgresql: config(POSTGRESQL_ALPN)?, http: config(b"http/1.1")?, end_point })
    }
}

fn client_verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>> {
    let unreadable = |reason: String| unreadable("tls_client_ca", path, &reason);
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls_client_ca", path)? {
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    Ok(verifier.map_err(|error| unreadable(error.to_string()))?)
}

/// All certificates of a file, at least one.
fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    let certificates: Vec<_> = certificates.map_err(|error| unreadable(key, path, &error.to_string()))?;
    match certificates.is_empty() {
        true => Err(unreadable(key, path, "it holds no certificate")),
        false => Ok(certificates),
    }
}

fn unreadable(key: &str, path: &Path, reason: &str) -> Error {
    let message = format!("{key} \"{}\" cannot be used: {reason}", path.display());
    Error::new(Code::InvalidParameterValue, message)
}

/// The hash of a certificate, by the hash function of its own signature.
fn end_point(certificate: &[u8]) -> Option<Arc<[u8]>> {
    let algorithm = signature_hash(certificate)?;
    Some(Arc::from(digest::digest(algorithm, certificate).as_ref()))
}

/// The object identifiers of signatures with RSA (PKCS #1) and with elliptic curves, without their last number.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];

/// MD5 and SHA-1 are replaced by SHA-256 (RFC 5929, section 4.1).
fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    // Certificate ::= SEQUENCE { what is signed, SEQUENCE { the algorithm's identifier, … }, the signature }
    const SEQUENCE: u8 = 0x30;
    const IDENTIFIER: u8 = 0x06;
    let (certificate, _) = der_value(certificate, SEQUENCE)?;
    let (_, rest) = der_value(certificate, SEQUENCE)?;
    let (algorithm, _) = der_value(rest, SEQUENCE)?;
    let (identifier, _) = der_value(algorithm, IDENTIFIER)?;
    match identifier.split_last()? {
        (4 | 5 | 11, RSA) | (2, ECDSA_SHA2) => Some(&digest::SHA256),
        (12, RSA) | (3, ECDSA_SHA2) => Some(&digest::SHA384),
        (13, RSA) | (4, ECDSA_SHA2) => Some(&digest::SHA512),
        _ if identifier == ECDSA_SHA1 => Some(&digest::SHA256),
        _ => None,
    }
}

/// The contents of the value of this type that `input` begins with, and what follows it.
fn der_value(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = input.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(vec!["localhost".to_string()]).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_log_in_is_bound_by_the_hash_of_the_certificates_own_signature() {
        let with_256 = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        let expected = digest::digest(&digest::SHA256, &with_256);
        assert_eq!(end_point(&with_256).as_deref(), Some(expected.as_ref()));
        let with_384 = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        let expected = digest::digest(&digest::SHA384, &with_384);
        assert_eq!(end_point(&with_384).as_deref(), Some(expected.as_ref()));
        assert_eq!(end_point(&certificate(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn what_is_no_certificate_binds_nothing() {
        let good = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for length in 0..good.len() {
            assert_eq!(end_point(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(end_point(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
        assert_eq!(end_point(&[0x30, 0x80]), None);
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let pair = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let (own, other) = (pair(), pair());
        let certificate = CertificateParams::new(vec!["localhost".to_string()]).unwrap().self_signed(&own).unwrap();
        let definition = TlsDefinition {
            certificate: write("a.crt", certificate.pem()),
            key: write("a.key", own.serialize_pem()),
            client_ca: None,
        };
        assert!(Tls::try_new(&definition).is_ok());
        let refused = |definition: &TlsDefinition| Tls::try_new(definition).map(|_| ()).unwrap_err().to_string();
        let wrong = TlsDefinition { key: write("b.key", other.serialize_pem()), ..definition.clone() };
        assert!(refused(&wrong).contains("a.crt\" cannot be used: keys may not be consistent"), "{}", refused(&wrong));
        let wrong = TlsDefinition { certificate: write("empty.crt", String::new()), ..definition.clone() };
        assert!(
            refused(&wrong).ends_with("empty.crt\" cannot be used: it holds no certificate"),
            "{}",
            refused(&wrong)
        );
        let wrong = TlsDefinition { key: folder.path().join("gone.key"), ..definition.clone() };
        assert!(refused(&wrong).contains("tls_key \"") && refused(&wrong).contains("gone.key"), "{}", refused(&wrong));
        let wrong = TlsDefinition { client_ca: Some(write("no.pem", "text".to_string())), ..definition };
        assert!(refused(&wrong).starts_with("tls_client_ca \""), "{}", refused(&wrong));
    }
}
