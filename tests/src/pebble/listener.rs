//! The certificate with which an authority listens: of another authority, made for one test.

use std::{net::IpAddr, sync::Arc};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::Trust;
use crate::daemon::client::trusting;

/// A certificate for an address, with the authority that vouches for it.
#[derive(Debug, Clone)]
pub struct Listener {
    root: String,
    certificate: String,
    key: String,
}

impl Listener {
    /// One for this address.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(address: IpAddr) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(DnType::CommonName, "An authority of the tests");
        let pem = root.self_signed(&key)?.pem();
        let issuer = Issuer::new(root, key);
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::IpAddress(address)];
        let own = KeyPair::generate()?;
        let certificate = leaf.signed_by(&own, &issuer)?.pem();
        Ok(Self { root: pem, certificate, key: own.serialize_pem() })
    }

    /// The authority to trust, in PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root
    }

    /// The certificate, in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// Its key, in PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// For clients of whoever listens with it.
    ///
    /// # Errors
    /// Never, for an authority that was made here.
    pub fn trust(&self) -> Result<Trust> {
        Ok(Trust::Tls(Arc::new(trusting(&self.root)?)))
    }

    /// For a server that listens with it.
    ///
    /// # Errors
    /// Never, for a pair that was made here.
    pub(super) fn tls(&self) -> Result<Arc<rustls::ServerConfig>> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}
