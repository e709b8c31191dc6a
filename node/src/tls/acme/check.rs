//! What a new certificate must pass before it is served: the old one is served until then.

use std::{sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::ring as provider,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject as _,
    },
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use thiserror::Error;

use super::Domain;
use super::der::{Certificate, DerError};

/// The longest chain; authorities give two or three.
const MAX_CHAIN: usize = 10;

/// How far the clock of an authority that signs for the present moment may be ahead of this node's, in seconds.
const SKEW_S: u64 = 60;

/// Why a certificate is not served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckError {
    /// It is no chain in PEM.
    #[error("what the authority gave is no chain of certificates in PEM: {0}")]
    Pem(String),
    /// A part of it is no certificate.
    #[error("certificate {place} of the chain cannot be read: {reason}")]
    Der {
        /// Which, from 1.
        place: usize,
        /// Why.
        reason: DerError,
    },
    /// It was made for another key.
    #[error("the certificate is not for the key that was asked for")]
    Key,
    /// A name is missing in it.
    #[error("the certificate does not hold for {0}")]
    Name(String),
    /// It holds at another time.
    #[error("the certificate holds from {from} to {to}, and it is {now} (seconds since 1970)")]
    Time {
        /// From when.
        from: u64,
        /// Until when.
        to: u64,
        /// What the clock shows.
        now: u64,
    },
    /// The next one is not who signed it.
    #[error("certificate {0} of the chain was not signed by the one behind it")]
    Order(usize),
    /// Its signatures do not lead to its end.
    #[error("the chain does not hold: {0}")]
    Chain(String),
    /// It does not lead to an authority that this system trusts.
    #[error("no authority that this system trusts vouches for the chain: {0}")]
    Untrusted(String),
}

/// A certificate that has passed.
#[derive(Debug, Clone)]
pub struct Checked {
    /// For TLS.
    pub key: Arc<CertifiedKey>,
    /// From when and until when it is valid, in seconds since 1970.
    pub validity: (u64, u64),
    /// Its own, without the rest of the chain.
    pub leaf: CertificateDer<'static>,
}

/// Checks a chain for these names and this key, at this time. With `roots`, it must also lead to one of them.
///
/// # Errors
/// [`CheckError`], none of which holds anything of the key.
pub fn check(
    chain: &str,
    key: &[u8],
    domains: &[Domain],
    now: u64,
    roots: Option<&RootCertStore>,
) -> Result<Checked, CheckError> {
    let certificates = read(chain)?;
    let leaf = certificates.first().ok_or_else(|| CheckError::Pem("there is none in it".into()))?.clone();
    let validity = follow(&certificates)?;
    let now = if validity.0 <= now.saturating_add(SKEW_S) { now.max(validity.0) } else { now };
    if !(validity.0..=validity.1).contains(&now) {
        return Err(CheckError::Time { from: validity.0, to: validity.1, now });
    }
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
    let private = provider::sign::any_supported_type(&private).map_err(|_| CheckError::Key)?;
    let certified = CertifiedKey::new(certificates.clone(), private);
    certified.keys_match().map_err(|_| CheckError::Key)?;
    let parsed = ParsedCertificate::try_from(&leaf).map_err(|error| CheckError::Chain(error.to_string()))?;
    holds_for(&parsed, domains)?;
    let others = certificates.get(1..).unwrap_or_default();
    leads_to_its_end(&parsed, others, now)?;
    if let Some(roots) = roots {
        verify(&parsed, roots, others, now).map_err(|error| CheckError::Untrusted(error.to_string()))?;
    }
    Ok(Checked { key: Arc::new(certified), validity, leaf })
}

fn read(chain: &str) -> Result<Vec<CertificateDer<'static>>, CheckError> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).take(MAX_CHAIN + 1).collect();
    let certificates = certificates.map_err(|error| CheckError::Pem(error.to_string()))?;
    if certificates.len() > MAX_CHAIN {
        return Err(CheckError::Pem(format!("it has more than {MAX_CHAIN} certificates")));
    }
    Ok(certificates)
}

/// Whether each is signed, as it says, by the next; with the validity of the first.
fn follow(certificates: &[CertificateDer<'_>]) -> Result<(u64, u64), CheckError> {
    let mut validity = (0, 0);
    let mut awaited: Option<Vec<u8>> = None;
    for (at, der) in certificates.iter().enumerate() {
        let read = Certificate::read(der).map_err(|reason| CheckError::Der { place: at + 1, reason })?;
        if awaited.is_some_and(|issuer| issuer != read.subject) {
            return Err(CheckError::Order(at));
        }
        if at == 0 {
            validity = (read.not_before, read.not_after);
        }
        awaited = Some(read.issuer.to_vec());
    }
    Ok(validity)
}

/// Whether it holds for every name, a wildcard by a name below it.
fn holds_for(certificate: &ParsedCertificate<'_>, domains: &[Domain]) -> Result<(), CheckError> {
    for domain in domains {
        let host = match domain.is_wildcard() {
            true => format!("any.{}", domain.base()),
            false => domain.base().to_owned(),
        };
        let missing = || CheckError::Name(domain.to_string());
        let name = ServerName::try_from(host).map_err(|_| missing())?;
        verify_server_name(certificate, &name).map_err(|_| missing())?;
    }
    Ok(())
}

/// Whether the signatures lead from the first to the last, which is taken for an authority. One alone has no rest to check:
/// its authority is one that clients know.
fn leads_to_its_end(
    leaf: &ParsedCertificate<'_>,
    others: &[CertificateDer<'static>],
    now: u64,
) -> Result<(), CheckError> {
    let Some((last, between)) = others.split_last() else { return Ok(()) };
    let wrong = |error: rustls::Error| CheckError::Chain(error.to_string());
    let mut roots = RootCertStore::empty();
    roots.add(last.clone()).map_err(wrong)?;
    verify(leaf, &roots, between, now).map_err(wrong)
}

fn verify(
    leaf: &ParsedCertificate<'_>,
    roots: &RootCertStore,
    between: &[CertificateDer<'_>],
    now: u64,
) -> Result<(), rustls::Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let algorithms = provider::default_provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(leaf, roots, between, now, algorithms.all)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
        Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
    };

    use super::*;

    const NOW: u64 = 1_800_000_000;

    pub(in crate::tls::acme) fn authority_named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        params
    }

    /// A root, one that it signed, and one that this signed for these names; with the key of the last.
    struct Chain {
        root: rcgen::Certificate,
        middle: String,
        leaf: String,
        key: Vec<u8>,
    }

    fn chain(names: &[&str], from: (i32, u8, u8), to: (i32, u8, u8)) -> Chain {
        let root_key = KeyPair::generate().unwrap();
        let root_params = authority_named("root");
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let middle_key = KeyPair::generate().unwrap();
        let middle_params = authority_named("middle");
        let middle = middle_params.signed_by(&middle_key, &root_issuer).unwrap().pem();
        let middle_issuer = Issuer::new(middle_params, middle_key);
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        let leaf = params.signed_by(&key, &middle_issuer).unwrap().pem();
        Chain { root, middle, leaf, key: key.serialize_der() }
    }

    fn good() -> Chain {
        chain(&["a.example.org", "*.b.example.org"], (2026, 12, 1), (2027, 3, 1))
    }

    fn domains(names: &[&str]) -> Vec<Domain> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    const NAMES: [&str; 2] = ["a.example.org", "*.b.example.org"];

    #[test]
    fn a_good_chain_passes_with_and_without_its_root() {
        let Chain { root, middle, leaf, key } = good();
        let names = domains(&NAMES);
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        for text in [format!("{leaf}{middle}"), format!("{leaf}\n{middle}\n{}", root.pem())] {
            let checked = check(&text, &key, &names, NOW, Some(&roots)).unwrap();
            assert_eq!(checked.validity, (1_796_083_200, 1_803_859_200));
            assert_eq!(checked.key.cert.len(), text.matches("BEGIN").count());
        }
        assert!(check(&leaf, &key, &names, NOW, None).is_ok(), "one alone, signed by a known root");
    }

    #[test]
    fn another_key_other_names_and_another_time_are_refused() {
        let Chain { middle, leaf, key, .. } = good();
        let text = format!("{leaf}{middle}");
        let refused =
            |key: &[u8], names: &[&str], now| check(&text, key, &domains(names), now, None).unwrap_err();
        assert_eq!(refused(&KeyPair::generate().unwrap().serialize_der(), &NAMES, NOW), CheckError::Key);
        assert_eq!(refused(b"no key", &NAMES, NOW), CheckError::Key);
        assert_eq!(
            refused(&key, &["a.example.org", "c.example.org"], NOW),
            CheckError::Name("c.example.org".into())
        );
        assert_eq!(refused(&key, &["*.a.example.org"], NOW), CheckError::Name("*.a.example.org".into()));
        assert!(matches!(refused(&key, &NAMES, 1_803_859_201), CheckError::Time { .. }), "expired");
        assert!(matches!(refused(&key, &NAMES, 1_796_083_139), CheckError::Time { .. }), "not yet");
        check(&text, &key, &domains(&NAMES), 1_796_083_140, None).unwrap();
    }

    #[test]
    fn a_broken_chain_is_refused() {
        let (one, other) = (good(), good());
        let refused = |text: &str| check(text, &one.key, &domains(&NAMES), NOW, None).unwrap_err();
        assert!(matches!(refused(""), CheckError::Pem(_)));
        assert!(matches!(
            refused("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
            CheckError::Pem(_)
        ));
        let root = one.root.pem();
        assert_eq!(refused(&format!("{}{root}", one.leaf)), CheckError::Order(1), "one is missing between");
        // Of the same name, by another key.
        assert!(matches!(refused(&format!("{}{}", one.leaf, other.middle)), CheckError::Chain(_)));
        assert!(matches!(
            refused(&format!("{}{}{}", one.leaf, one.middle, other.root.pem())),
            CheckError::Chain(_)
        ));
        let long = format!("{}{}", one.leaf, one.middle.repeat(MAX_CHAIN));
        assert!(matches!(refused(&long), CheckError::Pem(_)));
        let truncated = {
            let der = CertificateDer::from_pem_slice(one.middle.as_bytes()).unwrap();
            let text = data_encoding::BASE64.encode(&der[..der.len() - 5]);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        assert!(matches!(refused(&format!("{}{truncated}", one.leaf)), CheckError::Der { place: 2, .. }));
    }

    #[test]
    fn a_chain_to_nobody_who_is_trusted_is_refused_where_that_is_asked() {
        let (one, other) = (good(), good());
        let mut roots = RootCertStore::empty();
        roots.add(other.root.der().clone()).unwrap();
        let text = format!("{}{}", one.leaf, one.middle);
        let refused = check(&text, &one.key, &domains(&NAMES), NOW, Some(&roots)).unwrap_err();
        assert!(matches!(refused, CheckError::Untrusted(_)), "{refused}");
    }
}
