//! TLS with a bridge, which no public authority vouches for.
//!
//! A bridge's certificate names the bridge id as its common name, and is issued by Signify's private authority, or by the
//! bridge itself on old firmware (<https://developers.meethue.com/develop/application-design-guidance/using-https/>). That
//! authority's certificate is third-party material and is not part of Hearth; nor would it do for the self-signed ones. What
//! holds instead is the pin: whoever presses the button of a bridge sees to it that this bridge, and no other machine,
//! answers in that moment, and the public key that it shows then is kept beside the application key. Nobody without the
//! bridge's private key gets past the handshake from then on, whoever signed his certificate. Before the pin exists (the
//! discovery, and a key that somebody wrote in by hand) the first one to answer is believed, as with SSH: it learns no key
//! by that, except the one written by hand.

use std::sync::{Arc, OnceLock};

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring::default_provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use webpki::EndEntityCert;

use super::keys::{BridgeId, Pin};

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// By the common name of its certificate.
    pub(crate) id: BridgeId,
    /// Its public key.
    pub(crate) pin: Pin,
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedCertificate {
    /// It cannot be read.
    #[error("its certificate cannot be read: {0}")]
    Unreadable(String),
    /// It names no bridge.
    #[error("its certificate names no bridge id as its common name: this is no Hue bridge")]
    NoBridge,
    /// It names another bridge.
    #[error("its certificate is that of the bridge {found}, not of {expected}")]
    OtherBridge {
        /// The one it names.
        found: BridgeId,
        /// The one that was expected.
        expected: BridgeId,
    },
    /// It has another key than before.
    #[error(
        "it calls itself {id}, but shows another public key than the one that was paired with: if the bridge was replaced or \
         reset, take its part out of the setting \"keys\" and pair again by its button; if not, another machine poses as it"
    )]
    OtherKey {
        /// The bridge.
        id: BridgeId,
    },
}

/// What a connection must show, and what it showed.
#[derive(Debug)]
pub(crate) struct Verifier {
    expected: Option<BridgeId>,
    pin: Option<Pin>,
    /// The first one that was let in: all later connections must show the same.
    seen: OnceLock<Identity>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// For a bridge of that id, with that key; none takes the first.
    pub(crate) fn new(expected: Option<BridgeId>, pin: Option<Pin>) -> Arc<Self> {
        let algorithms = default_provider().signature_verification_algorithms;
        Arc::new(Self { expected, pin, seen: OnceLock::new(), algorithms })
    }

    /// Who was let in.
    pub(crate) fn seen(&self) -> Option<Identity> {
        self.seen.get().copied()
    }

    /// The TLS that asks this verifier. TLS 1.2 is among it, for bridges of the second generation speak nothing newer.
    pub(crate) fn tls(self: &Arc<Self>) -> Result<Arc<ClientConfig>, String> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(self.clone())
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), RefusedCertificate> {
        let found = identify(certificate)?;
        if let Some(expected) = self.expected.filter(|expected| *expected != found.id) {
            return Err(RefusedCertificate::OtherBridge { found: found.id, expected });
        }
        if self.pin.is_some_and(|pin| pin != found.pin) || *self.seen.get_or_init(|| found) != found {
            return Err(RefusedCertificate::OtherKey { id: found.id });
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Its dates are not looked at: a board that just booted does not know the time, and a key does not age.
        self.check(end_entity).map(|()| ServerCertVerified::assertion()).map_err(|why| {
            Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(Arc::new(why))))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whose certificate it is, and which key is in it.
pub(crate) fn identify(certificate: &CertificateDer<'_>) -> Result<Identity, RefusedCertificate> {
    let unreadable = |error: webpki::Error| RefusedCertificate::Unreadable(error.to_string());
    let parsed = EndEntityCert::try_from(certificate).map_err(unreadable)?;
    let hash = digest(&SHA256, parsed.subject_public_key_info().as_ref());
    let pin = Pin(hash.as_ref().try_into().map_err(|_| RefusedCertificate::NoBridge)?);
    let id = common_name(parsed.subject()).and_then(BridgeId::parse).ok_or(RefusedCertificate::NoBridge)?;
    Ok(Identity { id, pin })
}

/// The common name (2.5.4.3) of the inside of a Name (RFC 5280, section 4.1.2.4), of which there must be one.
pub(crate) fn common_name(mut name: &[u8]) -> Option<&str> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let mut found = None;
    while !name.is_empty() {
        let (mut relative, rest) = element(name, SET)?;
        name = rest;
        while !relative.is_empty() {
            let (attribute, rest) = element(relative, SEQUENCE)?;
            relative = rest;
            let (kind, value) = element(attribute, OBJECT_IDENTIFIER)?;
            if kind == COMMON_NAME {
                // PrintableString or UTF8String: for hexadecimal digits the bytes are the same.
                let (text, rest) = element(value, 0x13).or_else(|| element(value, 0x0c))?;
                if !rest.is_empty() || found.is_some() {
                    return None;
                }
                found = Some(std::str::from_utf8(text).ok()?);
            }
        }
    }
    found
}

/// The content of the first element of DER (X.690), which must have that tag, and what follows it. Lengths of one byte, or of one
/// more: a name has no longer parts.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (_, rest) = der.split_first().filter(|(first, _)| **first == tag)?;
    let (length, rest) = match rest.split_first()? {
        (0x81, rest) => rest.split_first().filter(|(length, _)| **length >= 0x80)?,
        (0x80.., _) => return None,
        short => short,
    };
    rest.split_at_checked(usize::from(*length))
}
