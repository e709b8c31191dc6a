//! The API's certificate, swapped while connections go on.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;
use tracing::{info, warn};

use super::local_ca::{LocalCa, LocalCaError, WallClock, WebLeaf, WebNames};

/// The only ALPN that the API speaks. A client without ALPN is taken for the same.
pub const ALPN_WEB: &[u8] = b"http/1.1";
/// How often the certificate is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// Gives every new connection the present certificate; running ones keep theirs.
#[derive(Debug)]
pub struct WebResolver {
    present: RwLock<Arc<CertifiedKey>>,
}

impl WebResolver {
    /// Starts with one certificate.
    pub fn new(first: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self { present: RwLock::new(first) })
    }

    /// Uses another certificate from now on.
    pub fn swap(&self, next: Arc<CertifiedKey>) {
        // A poisoned lock still holds a whole certificate: replacing it is one step.
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// TLS for the API: TLS 1.3, this resolver, no client certificates.
    ///
    /// # Errors
    /// When the library has no TLS 1.3.
    pub fn web_tls(self: &Arc<Self>) -> Result<rustls::ServerConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![ALPN_WEB.to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for WebResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.present.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Keeps the local authority's certificate fresh: hourly, and when the names change.
#[derive(Debug)]
pub struct WebRenewal<C> {
    ca: LocalCa,
    names: watch::Receiver<WebNames>,
    clock: C,
    resolver: Arc<WebResolver>,
    leaf: WebLeaf,
}

impl<C: Fn() -> WallClock> WebRenewal<C> {
    /// Makes the first certificate.
    ///
    /// # Errors
    /// [`LocalCaError`] when it cannot be made.
    pub fn new(ca: LocalCa, mut names: watch::Receiver<WebNames>, clock: C) -> Result<Self, LocalCaError> {
        let leaf = ca.issue(&names.borrow_and_update(), clock())?;
        let resolver = WebResolver::new(leaf.key.clone());
        Ok(Self { ca, names, clock, resolver, leaf })
    }

    /// Where the certificate is served from.
    pub fn resolver(&self) -> Arc<WebResolver> {
        self.resolver.clone()
    }

    /// Renews until the sender of the names is gone.
    pub async fn run(mut self) {
        loop {
            let renamed = tokio::select! {
                changed = self.names.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = (self.clock)();
            if !renamed && !self.leaf.is_due(now) {
                continue;
            }
            let made = self.ca.issue(&self.names.borrow_and_update(), now);
            match made {
                Ok(leaf) => {
                    info!(until = leaf.validity.1, renamed, "the API has a new certificate");
                    self.resolver.swap(leaf.key.clone());
                    self.leaf = leaf;
                }
                Err(error) => warn!(%error, "the API keeps its old certificate, trying again in an hour"),
            }
        }
    }
}
