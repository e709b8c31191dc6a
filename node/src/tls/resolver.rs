//! The API's certificate, swapped while connections go on.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use rustls::{
    server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions},
    sign::CertifiedKey,
};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    acme::Domain,
    local_ca::{LocalCa, LocalCaError, WallClock, WebLeaf, WebNames},
};

/// The only ALPN that the API speaks. A client without ALPN is taken for the same.
pub const ALPN_WEB: &[u8] = b"http/1.1";
/// How often the certificate is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// Sessions that clients may resume.
const SESSIONS: usize = 256;

/// Gives every new connection the present certificate for the name that the client asks for; running ones keep theirs.
#[derive(Debug)]
pub struct WebResolver {
    present: RwLock<Present>,
}

#[derive(Debug)]
struct Present {
    /// The local authority's, for whatever the public one does not cover.
    local: Arc<CertifiedKey>,
    public: Option<Public>,
    /// A session that is resumed shows no certificate: those begun under another one are not.
    sessions: Arc<dyn StoresServerSessions>,
}

#[derive(Debug)]
struct Public {
    key: Arc<CertifiedKey>,
    names: Vec<Domain>,
}

impl Present {
    fn public_for(&self, name: &str) -> Option<&Public> {
        self.public.as_ref().filter(|public| public.names.iter().any(|domain| domain.covers(name)))
    }

    fn forget_sessions(&mut self) {
        self.sessions = ServerSessionMemoryCache::new(SESSIONS);
    }
}

impl WebResolver {
    /// Starts with the certificate of the local authority.
    pub fn new(first: Arc<CertifiedKey>) -> Arc<Self> {
        let present =
            Present { local: first, public: None, sessions: ServerSessionMemoryCache::new(SESSIONS) };
        Arc::new(Self { present: RwLock::new(present) })
    }

    /// Uses another certificate of the local authority from now on.
    pub fn swap(&self, next: Arc<CertifiedKey>) {
        self.change(|present| present.local = next);
    }

    /// Shows a public certificate from now on to whoever asks for one of these names; it is up to the caller that the
    /// certificate holds for them. No names: the local authority's certificate is shown to everybody.
    pub fn set_public(&self, key: Arc<CertifiedKey>, names: Vec<Domain>) {
        self.change(|present| present.public = (!names.is_empty()).then_some(Public { key, names }));
    }

    /// Whether the host, without a port, is shown a public certificate.
    pub fn is_public(&self, host: &str) -> bool {
        self.read().public_for(host).is_some()
    }

    fn change(&self, change: impl FnOnce(&mut Present)) {
        // A poisoned lock still holds whole certificates: each is replaced in one step.
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut present);
        present.forget_sessions();
    }

    fn read(&self) -> RwLockReadGuard<'_, Present> {
        self.present.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> Arc<dyn StoresServerSessions> {
        self.read().sessions.clone()
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
        config.session_storage = Arc::new(Sessions(self.clone()));
        Ok(config)
    }
}

impl ResolvesServerCert for WebResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let present = self.read();
        let public = hello.server_name().and_then(|name| present.public_for(name));
        Some(public.map_or(&present.local, |public| &public.key).clone())
    }
}

/// The sessions of the present certificates.
#[derive(Debug)]
struct Sessions(Arc<WebResolver>);

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.sessions().put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.sessions().get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.sessions().take(key)
    }

    fn can_cache(&self) -> bool {
        true
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

#[cfg(test)]
pub(crate) mod testing {
    //! A client that leaves it to the test to look at certificates.

    use std::sync::Arc;

    use rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::CryptoProvider,
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    /// Takes any certificate: this library understands no challenge's, and would refuse its signature.
    #[derive(Debug)]
    pub(crate) struct AnyCertificate(pub(crate) Arc<CryptoProvider>);

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken".into()))
        }

        fn verify_tls13_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests;
