//! The node's identity on the wire: an Ed25519 key presented as a raw public key (RFC 7250).
//!
//! There is no certificate, hence no validity period: a board whose clock says 1970 can
//! still take part. The handshake proves only that the peer holds its key; whether that key
//! belongs to the household is decided afterwards, from the roster.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use mesh_proto::NodeId;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, PeerIncompatible,
    SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature_with_raw_key,
    },
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use thiserror::Error;

/// ALPN of a link between two nodes that carries mesh frames.
pub const ALPN_MESH: &[u8] = b"hearth/1";
/// ALPN of a connection that asks for admission and may do nothing else.
pub const ALPN_JOIN: &[u8] = b"hearth-join/1";
/// The name that TLS wants from a client; it is neither sent nor checked, keys are.
pub const SERVER_NAME: &str = "hearth.local";

/// A link is lost when nothing arrives for this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A quiet link sends a ping this often.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A link is silent when nothing came for this long: a ping went out and was not answered. Another
/// way to the peer is looked for then.
pub const SILENCE: Duration = Duration::from_millis(1_250);

/// Label and context under which both sides of an admission export keying material from their TLS
/// session, the same on every transport (RFC 8446, section 7.5).
const JOIN_LABEL: &[u8] = b"EXPORTER-hearth-join-v1";
const JOIN_CONTEXT: &[u8] = b"";

/// DER before the 32 bytes of an Ed25519 SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Bytes that one peer may have in flight to us on its stream, and over the whole connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = (1 << 20) + (1 << 18);
/// Bytes that we keep for one peer until it acknowledges them.
const SEND_WINDOW: u64 = 1 << 20;
/// Datagrams kept in each direction; the oldest are dropped beyond.
const DATAGRAM_BUFFER: usize = 64 << 10;

/// The identity could not be made into a TLS configuration.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The cryptographic library refused the key or the configuration.
    #[error(
        "the node key cannot be used for TLS ({0}): restore `node.key` from a backup, or remove it to start as a new node"
    )]
    Tls(#[from] TlsError),
    /// The library was built without the cipher that QUIC starts with.
    #[error("this build lacks the cipher suite that QUIC needs (TLS13_AES_128_GCM_SHA256): {0}")]
    Cipher(#[from] NoInitialCipherSuite),
}

/// The key of this node with everything TLS derives from it. Cheap to clone.
#[derive(Clone)]
pub struct NodeIdentity {
    id: NodeId,
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    transport: Arc<quinn::TransportConfig>,
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity").field("id", &self.id).finish_non_exhaustive()
    }
}

impl NodeIdentity {
    /// The identity that belongs to an Ed25519 seed (RFC 8032, 32 random bytes). The caller
    /// keeps the seed.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] when the cryptographic library refuses the key.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, IdentityError> {
        let public = ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes();
        let id = NodeId::from_bytes(public);
        let pkcs8 = [PKCS8_PREFIX.as_slice(), seed].concat();
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
        let signer = provider::sign::any_eddsa_type(match &secret {
            PrivateKeyDer::Pkcs8(key) => key,
            _ => return Err(TlsError::General("not PKCS #8".into()).into()),
        })?;
        let spki = CertificateDer::from([SPKI_PREFIX.as_slice(), &public].concat());
        Ok(Self {
            id,
            key: Arc::new(CertifiedKey::new(vec![spki], signer)),
            provider: Arc::new(provider::default_provider()),
            transport: Arc::new(transport_config()),
        })
    }

    /// The public key.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// TLS for accepted connections: both ALPNs, mutual raw keys, no session resumption of any
    /// kind, because a resumed session would skip the verifier.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] when the library has no TLS 1.3.
    pub fn server_tls(&self) -> Result<rustls::ServerConfig, IdentityError> {
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(RawKeys::new(&self.provider)))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = vec![ALPN_MESH.to_vec(), ALPN_JOIN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// TLS for dialled connections with one ALPN, [`ALPN_MESH`] or [`ALPN_JOIN`].
    ///
    /// # Errors
    /// [`IdentityError::Tls`] when the library has no TLS 1.3.
    pub fn client_tls(&self, alpn: &[u8]) -> Result<rustls::ClientConfig, IdentityError> {
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(RawKeys::new(&self.provider)))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(config)
    }

    /// QUIC for accepted connections.
    ///
    /// # Errors
    /// As [`NodeIdentity::server_tls`].
    pub fn server_quic(&self) -> Result<quinn::ServerConfig, IdentityError> {
        let crypto = QuicServerConfig::try_from(self.server_tls()?)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        config.max_incoming(256).incoming_buffer_size(16 << 10).incoming_buffer_size_total(1 << 20);
        // Tokens for later connections would need a replay log; one round trip on a LAN is cheaper.
        let mut tokens = quinn::ValidationTokenConfig::default();
        tokens.sent(0).log(Arc::new(quinn::NoneTokenLog));
        config.validation_token_config(tokens);
        Ok(config)
    }

    /// QUIC for dialled connections with one ALPN.
    ///
    /// # Errors
    /// As [`NodeIdentity::client_tls`].
    pub fn client_quic(&self, alpn: &[u8]) -> Result<quinn::ClientConfig, IdentityError> {
        let crypto = QuicClientConfig::try_from(self.client_tls(alpn)?)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone()).token_store(Arc::new(quinn::NoneTokenStore));
        Ok(config)
    }
}

/// The limits of every QUIC connection, dialled or accepted.
fn transport_config() -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    config
        .max_idle_timeout(quinn::IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(1_u8.into())
        .max_concurrent_uni_streams(0_u8.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        // A home network: the first retransmission need not wait for a second.
        .initial_rtt(Duration::from_millis(100));
    config
}

/// What a finished handshake says about the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The peer's key, whose possession it proved.
    pub peer: NodeId,
    /// The negotiated ALPN.
    pub alpn: Vec<u8>,
}

impl Handshake {
    /// Reads the peer's key and the ALPN off a connection; `None` when either is absent,
    /// which these configurations do not allow.
    pub fn of(connection: &quinn::Connection) -> Option<Self> {
        let chain = downcast::<Vec<CertificateDer<'static>>>(connection.peer_identity()?)?;
        let data = downcast::<quinn::crypto::rustls::HandshakeData>(connection.handshake_data()?)?;
        Some(Self { peer: node_id_of_spki(chain.first()?)?, alpn: data.protocol? })
    }

    /// The same of TLS over TCP.
    pub fn of_tls<S>(stream: &tokio_rustls::TlsStream<S>) -> Option<Self> {
        let (_, session) = stream.get_ref();
        let key = session.peer_certificates()?.first()?;
        Some(Self { peer: node_id_of_spki(key)?, alpn: session.alpn_protocol()?.to_vec() })
    }
}

/// The value that binds the proof of an admission to a QUIC session; `None` when it cannot export.
pub fn join_binding_quic(connection: &quinn::Connection) -> Option<[u8; 32]> {
    let mut material = [0; 32];
    connection.export_keying_material(&mut material, JOIN_LABEL, JOIN_CONTEXT).ok()?;
    Some(material)
}

/// The same of a TLS session over TCP.
pub fn join_binding_tls<S>(stream: &tokio_rustls::TlsStream<S>) -> Option<[u8; 32]> {
    use tokio_rustls::TlsStream;
    let (material, context) = ([0; 32], Some(JOIN_CONTEXT));
    match stream {
        TlsStream::Client(stream) => stream.get_ref().1.export_keying_material(material, JOIN_LABEL, context),
        TlsStream::Server(stream) => stream.get_ref().1.export_keying_material(material, JOIN_LABEL, context),
    }
    .ok()
}

fn downcast<T: 'static>(any: Box<dyn Any>) -> Option<T> {
    any.downcast::<T>().ok().map(|boxed| *boxed)
}

/// The node that a DER SubjectPublicKeyInfo names: `None` unless it is an Ed25519 key in its
/// one DER form, a point of the curve, and not of small order (for such a key anybody can
/// make signatures).
pub fn node_id_of_spki(spki: &[u8]) -> Option<NodeId> {
    let key: [u8; 32] = spki.strip_prefix(SPKI_PREFIX.as_slice())?.try_into().ok()?;
    let point = ed25519_dalek::VerifyingKey::from_bytes(&key).ok()?;
    (!point.is_weak()).then(|| NodeId::from_bytes(key))
}

/// Accepts any sound Ed25519 raw key whose owner signs the handshake.
#[derive(Debug)]
struct RawKeys(WebPkiSupportedAlgorithms);

impl RawKeys {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }

    fn check(spki: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        if !others.is_empty() || node_id_of_spki(spki).is_none() {
            return Err(TlsError::InvalidCertificate(CertificateError::BadEncoding));
        }
        Ok(())
    }
}

/// The signature methods, which both traits of rustls name alike: TLS 1.3 by Ed25519 raw keys, nothing
/// else.
macro_rules! signatures_by_raw_keys {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _spki: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            Err(TlsError::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            spki: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
            verify_tls13_signature_with_raw_key(message, &spki, signature, &self.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Self::check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    signatures_by_raw_keys!();
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Self::check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    signatures_by_raw_keys!();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_sound_ed25519_keys_name_a_node() {
        let identity = NodeIdentity::from_seed(&[7; 32]).unwrap();
        let spki = identity.key.cert[0].to_vec();
        assert_eq!(node_id_of_spki(&spki), Some(identity.id()));
        assert_eq!(node_id_of_spki(&spki[..43]), None);
        assert_eq!(node_id_of_spki(&[spki.as_slice(), &[0]].concat()), None);
        let mut other = spki.clone();
        other[8] = 0x6e; // X25519
        assert_eq!(node_id_of_spki(&other), None);
        // The identity point: order one.
        let weak = [SPKI_PREFIX.as_slice(), &[1], &[0; 31]].concat();
        assert_eq!(node_id_of_spki(&weak), None);
    }

    #[test]
    fn debug_shows_no_key_material() {
        let seed = [0xa5; 32];
        let text = format!("{:?}", NodeIdentity::from_seed(&seed).unwrap());
        assert!(!text.contains("a5a5") && !text.contains("165, 165"), "{text}");
    }

    #[test]
    fn either_side_takes_ed25519_raw_keys_alone() {
        let keys = RawKeys::new(&provider::default_provider());
        let (server, client): (&dyn ServerCertVerifier, &dyn ClientCertVerifier) = (&keys, &keys);
        assert_eq!(server.supported_verify_schemes(), [SignatureScheme::ED25519]);
        assert_eq!(client.supported_verify_schemes(), [SignatureScheme::ED25519]);
        assert!(server.requires_raw_public_keys() && client.requires_raw_public_keys());
        assert!(client.client_auth_mandatory(), "a node without a key is nobody");
    }

    #[test]
    fn nothing_can_be_resumed() {
        let identity = NodeIdentity::from_seed(&[7; 32]).unwrap();
        let server = identity.server_tls().unwrap();
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
        assert!(!server.session_storage.can_cache());
        assert!(!identity.client_tls(ALPN_MESH).unwrap().enable_early_data);
    }
}
