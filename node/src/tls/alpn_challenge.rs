//! The certificate by which a challenge TLS-ALPN-01 is answered (RFC 8737, section 3).

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use super::{acme::Domain, local_ca::LocalCaError};

/// The only protocol of a client that checks such a challenge.
pub const ALPN_ACME: &[u8] = b"acme-tls/1";
/// id-pe-acmeIdentifier.
const ACME_IDENTIFIER: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 31];
/// An OCTET STRING of 32 bytes in DER.
const OCTETS: [u8; 2] = [0x04, 32];

/// Makes the certificate, signed by itself, with a key of its own.
///
/// # Errors
/// [`LocalCaError`] when a library fails, for lack of randomness mostly.
pub fn certificate(domain: &Domain, digest: &[u8; 32]) -> Result<Arc<CertifiedKey>, LocalCaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut identifier = CustomExtension::from_oid_content(&ACME_IDENTIFIER, [&OCTETS[..], digest].concat());
    identifier.set_criticality(true);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Hearth ACME challenge");
    params.subject_alt_names = vec![SanType::DnsName(domain.base().try_into()?)];
    params.custom_extensions = vec![identifier];
    let made = params.self_signed(&key)?;
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(CertifiedKey::new(vec![made.der().clone()], any_supported_type(&secret)?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn openssl_reads_what_rfc_8737_asks_for() {
        let made = certificate(&"home.example.org".parse().unwrap(), &[0xa5; 32]).unwrap();
        let mut child = Command::new("openssl")
            .args(["x509", "-inform", "DER", "-noout", "-text"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        child.stdin.take().unwrap().write_all(&made.cert[0]).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert!(lines.contains(&"DNS:home.example.org"), "{text}");
        assert!(lines.contains(&"1.3.6.1.5.5.7.1.31: critical"), "{text}");
        // Nothing but that name: the digest as an OCTET STRING of 32 bytes stands in the bytes.
        let whole = [&OCTETS[..], &[0xa5; 32]].concat();
        assert_eq!(made.cert[0].windows(whole.len()).filter(|part| *part == whole).count(), 1);
        let other = certificate(&"home.example.org".parse().unwrap(), &[0xa5; 32]).unwrap();
        assert_ne!(made.cert[0], other.cert[0], "each has a key of its own");
    }
}
