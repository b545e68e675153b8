//! Certificates for tests of TLS: an authority, a server for localhost and 127.0.0.1, and a client.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use tokio_rustls::TlsAcceptor;

/// Files that live as long as this.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Certificates {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of another name than what it signs, which would seem to have signed itself.
        authority.distinguished_name.push(DnType::CommonName, "authority of tests");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let certificates = Certificates { folder };
        std::fs::write(certificates.path("ca.crt"), authority.pem()).unwrap();
        for (name, hosts) in [("server", vec!["localhost", "127.0.0.1"]), ("client", vec!["client"])] {
            let hosts: Vec<String> = hosts.into_iter().map(str::to_string).collect();
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(hosts).unwrap().signed_by(&key, &authority).unwrap();
            std::fs::write(certificates.path(&format!("{name}.crt")), certificate.pem()).unwrap();
            let path = certificates.path(&format!("{name}.key"));
            std::fs::write(&path, key.serialize_pem()).unwrap();
            // psql refuses a key that others may read.
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, private).unwrap();
        }
        certificates
    }

    /// `ca.crt`, `server.crt`, `server.key`, `client.crt`, `client.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The lines of `[server]` for TLS.
    pub fn server_lines(&self) -> String {
        let (certificate, key) = (self.path("server.crt"), self.path("server.key"));
        format!("tls_certificate = \"{}\"\ntls_key = \"{}\"\n", certificate.display(), key.display())
    }

    /// A client that trusts the authority and offers these protocols.
    pub fn client(&self, protocols: &[&str]) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(self.authority()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    /// A server that asks clients for nothing.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.serve_with(server().with_no_client_auth())
    }

    /// A server that lets in who has a certificate of the authority's.
    pub fn acceptor_of_known_clients(&self) -> TlsAcceptor {
        let roots = Arc::new(self.authority());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
        self.serve_with(server().with_client_cert_verifier(verifier))
    }

    fn serve_with(&self, builder: ConfigBuilder<ServerConfig, WantsServerCert>) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_file(self.path("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
    }

    fn authority(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
        roots
    }
}

fn server() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
