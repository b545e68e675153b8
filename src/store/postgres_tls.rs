//! TLS towards databases: none, or with everything verified.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::{CancelToken, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Code, Error, Result};

/// What is asked of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS, with a certificate from a trusted authority for the very host.
    VerifyFull,
}

/// TLS as every connection of a pool speaks it.
#[derive(Clone)]
pub(super) enum Tls {
    Off,
    Rustls(MakeRustlsConnect),
}

impl Tls {
    pub(super) fn try_new(sslmode: SslMode, sslrootcert: Option<&Path>) -> Result<Tls> {
        if sslmode == SslMode::Disable {
            return Ok(Tls::Off);
        }
        Ok(Tls::Rustls(MakeRustlsConnect::new(client_tls(sslrootcert)?)))
    }

    /// Asks the server to stop what `token` stands for, over a connection as safe as the first.
    pub(super) async fn cancel(&self, token: &CancelToken) -> Result<(), tokio_postgres::Error> {
        match self {
            Tls::Off => token.cancel_query(NoTls).await,
            Tls::Rustls(tls) => token.cancel_query(tls.clone()).await,
        }
    }
}

/// TLS with everything verified; `sslrootcert` holds the certificates to trust instead of the system's.
pub(crate) fn client_tls(sslrootcert: Option<&Path>) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?;
    Ok(builder.with_root_certificates(roots(sslrootcert)?).with_no_client_auth())
}

/// The certificates to trust.
fn roots(sslrootcert: Option<&Path>) -> Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(trusted_certificates(sslrootcert)?);
    Ok(roots)
}

/// The certificates to trust: those of `sslrootcert`, else the system's; at least one.
///
/// # Errors
/// 22023 if there is none, or one of `sslrootcert` cannot be read.
pub(crate) fn trusted_certificates(sslrootcert: Option<&Path>) -> Result<Vec<CertificateDer<'static>>> {
    let is_usable =
        |certificate: &CertificateDer<'static>| rustls::RootCertStore::empty().add(certificate.clone()).is_ok();
    let Some(path) = sslrootcert else {
        let mut certificates = rustls_native_certs::load_native_certs().certs;
        certificates.retain(is_usable);
        if certificates.is_empty() {
            return Err(Error::new(Code::InvalidParameterValue, "the system has no certificates to trust")
                .with_hint("Name a file of them with sslrootcert."));
        }
        return Ok(certificates);
    };
    let unreadable = |error: &dyn fmt::Display| {
        Error::new(Code::InvalidParameterValue, format!("sslrootcert \"{}\" cannot be read: {error}", path.display()))
    };
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        rustls::RootCertStore::empty().add(certificate.clone()).map_err(|error| unreadable(&error))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(unreadable(&"it holds no certificate"));
    }
    Ok(certificates)
}
