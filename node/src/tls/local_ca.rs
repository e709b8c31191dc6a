//! The local certificate authority: makes the API's certificate until a public one exists.
//!
//! People import its certificate into their browsers, so it must be worthless to a thief:
//! its name constraints (RFC 5280, section 4.2.1.10, critical) let it vouch for names and
//! addresses of a home network only.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring as provider,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject as _,
    },
    sign::CertifiedKey,
};
use thiserror::Error;

const DAY: u64 = 24 * 3_600;
/// How long before now a certificate begins: clients whose clocks are behind accept it.
const BACKDATED: u64 = 7 * DAY;
/// Life of a certificate made by a clock that is right.
const LIFE: u64 = 90 * DAY;
/// Life of one made by a clock that may be far behind, as of a board without a battery. From
/// its beginning to its end it stays under 398 days, the most that some clients take.
const LIFE_UNTRUSTED: u64 = 390 * DAY;
/// A certificate is renewed when this much of its life is left.
const RENEW_BEFORE: u64 = 30 * DAY;
/// The last second that is put into a certificate: the end of 2099.
const LAST: u64 = 4_102_444_799;

const PERMITTED_NAMES: [&str; 3] = ["local", "home.arpa", "localhost"];
const PERMITTED_V4: [([u8; 4], u8); 5] = [
    ([127, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
    ([169, 254, 0, 0], 16),
];
const PERMITTED_V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::LOCALHOST, 128),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// The authority or a certificate could not be made or read.
#[derive(Debug, Error)]
pub enum LocalCaError {
    /// The library refused.
    #[error("the local certificate authority failed: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS refused the certificate.
    #[error("the local certificate does not work: {0}")]
    Tls(#[from] rustls::Error),
    /// The saved files are no authority.
    #[error(
        "the saved certificate authority cannot be read ({0}): restore both files, or remove both to make a new one, which every browser must import again"
    )]
    Saved(String),
}

/// What the node believes the time to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClock {
    /// Unix seconds.
    pub unix: u64,
    /// Whether something vouches for it; a board without a battery starts with the time at
    /// which it was built or last ran.
    pub trusted: bool,
}

/// Under which names and addresses the API is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebNames {
    /// The host's name; only its first label counts.
    pub hostname: String,
    /// Addresses of its interfaces. Those outside home ranges are left out of the certificate:
    /// the authority cannot vouch for them.
    pub addresses: Vec<IpAddr>,
}

/// One certificate with its key, ready for TLS.
#[derive(Clone)]
pub struct WebLeaf {
    /// For the resolver.
    pub key: Arc<CertifiedKey>,
    /// From when and until when it is valid, in Unix seconds.
    pub validity: (u64, u64),
    trusted: bool,
}

impl fmt::Debug for WebLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebLeaf").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl WebLeaf {
    /// Whether it is time for another: its end is near, its beginning lies ahead (the clock
    /// went back), or the clock has become trusted since.
    pub fn is_due(&self, clock: WallClock) -> bool {
        let (begins, ends) = self.validity;
        clock.unix < begins || clock.unix + RENEW_BEFORE > ends || (clock.trusted && !self.trusted)
    }
}

/// The authority.
pub struct LocalCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalCa")
    }
}

impl LocalCa {
    /// Makes a new authority with a new ECDSA P-256 key. It vouches for `hostname` besides
    /// the names and addresses that every home network has.
    ///
    /// # Errors
    /// [`LocalCaError::Make`] when the library fails, for lack of randomness mostly.
    pub fn generate(hostname: &str) -> Result<Self, LocalCaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority(&key);
        params.name_constraints = Some(constraints(first_label(hostname).as_deref()));
        let made = params.self_signed(&key)?;
        let (certificate, pem) = (made.der().clone(), made.pem());
        Ok(Self { issuer: Issuer::new(params, key), certificate, pem })
    }

    /// Reads the two files of [`LocalCa::ca_pem`] and [`LocalCa::key_pem`].
    ///
    /// # Errors
    /// [`LocalCaError::Saved`] when they are damaged or do not belong together.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, LocalCaError> {
        let saved = |what: String| LocalCaError::Saved(what);
        // Neither library says anything about the key's bytes in its errors.
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(key_pem, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| saved("the key is not ECDSA P-256 in PKCS #8".into()))?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| saved(format!("the certificate is not PEM: {error}")))?;
        let ca = Self { issuer: Issuer::new(authority(&key), key), certificate, pem: certificate_pem.into() };
        let probe = ca.sign(&[SanType::DnsName("localhost".try_into()?)], (0, LAST))?;
        ca.check(&probe.0, "localhost", LAST / 2)
            .map_err(|error| saved(format!("certificate and key do not belong together: {error}")))?;
        Ok(ca)
    }

    /// The authority's certificate for `hearth ca export`: what people import.
    pub fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// The authority's private key, for a file of mode 0600 and nothing else.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes a certificate, with a new key, for the names under which the API is reached.
    ///
    /// It begins a week ago and ends in 90 days. While the clock is not trusted it ends in
    /// 390 days instead: such a clock is behind, so the wide window is more likely to hold the
    /// client's now. Older beginnings do not help, since browsers refuse long windows.
    ///
    /// # Errors
    /// [`LocalCaError`] when the library fails.
    pub fn issue(&self, names: &WebNames, clock: WallClock) -> Result<WebLeaf, LocalCaError> {
        let life = if clock.trusted { LIFE } else { LIFE_UNTRUSTED };
        let now = clock.unix.min(LAST);
        let validity = (now.saturating_sub(BACKDATED), now.saturating_add(life).min(LAST));
        let host = first_label(&names.hostname);
        let mut sans = vec![SanType::DnsName("localhost".try_into()?)];
        if let Some(host) = &host {
            sans.push(SanType::DnsName(format!("{host}.local").try_into()?));
        }
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let mut addresses: Vec<IpAddr> = names.addresses.iter().map(IpAddr::to_canonical).collect();
        addresses.extend(loopback);
        addresses.sort_unstable();
        addresses.dedup();
        sans.extend(addresses.into_iter().filter(may_vouch_for).map(SanType::IpAddress));
        // The bare name comes last and goes when the authority was made under another one.
        if let Some(host) = &host {
            let mut with_host = sans.clone();
            with_host.push(SanType::DnsName(host.as_str().try_into()?));
            let leaf = self.sign(&with_host, validity)?;
            if self.check(&leaf.0, host, now).is_ok() {
                return leaf_key(leaf, validity, clock.trusted);
            }
        }
        let leaf = self.sign(&sans, validity)?;
        self.check(&leaf.0, "localhost", now)?;
        leaf_key(leaf, validity, clock.trusted)
    }

    /// Signs a certificate for any names; whether clients take it is for the constraints.
    fn sign(
        &self,
        sans: &[SanType],
        (begins, ends): (u64, u64),
    ) -> Result<(CertificateDer<'static>, KeyPair), LocalCaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(begins);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(ends);
        params.subject_alt_names = sans.to_vec();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Hearth");
        let made = params.signed_by(&key, &self.issuer)?;
        Ok((made.der().clone(), key))
    }

    /// Whether a client that trusts this authority would take the certificate for `name`.
    pub(crate) fn check(&self, leaf: &CertificateDer<'_>, name: &str, at: u64) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(provider::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let name = ServerName::try_from(name).map_err(|error| rustls::Error::General(error.to_string()))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
        verifier.verify_server_cert(leaf, &[], &name, &[], now).map(|_| ())
    }
}

/// What of the authority follows from its key alone.
fn authority(key: &KeyPair) -> CertificateParams {
    let hash = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
    let mark: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Hearth local CA {mark}"));
    // An anchor that is trusted by hand has no reason to end; it begins before any clock.
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(2099, 12, 31);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Names and addresses of a home. A bare host name may also be a public domain's ending
/// (`kitchen` is one), so everything below it is excluded.
fn constraints(host: Option<&str>) -> NameConstraints {
    let names = PERMITTED_NAMES.into_iter().chain(host).map(|name| GeneralSubtree::DnsName(name.into()));
    let v4 = PERMITTED_V4.iter().map(|(net, bits)| CidrSubnet::from_v4_prefix(*net, *bits));
    let v6 = PERMITTED_V6.iter().map(|(net, bits)| CidrSubnet::from_v6_prefix(net.octets(), *bits));
    let excluded = host.filter(|host| !PERMITTED_NAMES.contains(host));
    NameConstraints {
        permitted_subtrees: names.chain(v4.chain(v6).map(GeneralSubtree::IpAddress)).collect(),
        excluded_subtrees: excluded
            .map(|host| GeneralSubtree::DnsName(format!(".{host}")))
            .into_iter()
            .collect(),
    }
}

/// Whether clients believe the authority a certificate for this address: one of a home network.
pub fn may_vouch_for(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let within = |net: [u8; 4], bits: u8| {
                (u32::from(*v4) ^ u32::from_be_bytes(net)).checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
            };
            PERMITTED_V4.iter().any(|(net, bits)| within(*net, *bits))
        }
        IpAddr::V6(v6) => {
            let within = |net: &Ipv6Addr, bits: u8| {
                (u128::from(*v6) ^ u128::from(*net)).checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
            };
            PERMITTED_V6.iter().any(|(net, bits)| within(net, *bits))
        }
    }
}

/// The first label of a host name, if it is one that a certificate can hold.
pub(crate) fn first_label(hostname: &str) -> Option<String> {
    let label = hostname.split('.').next()?.to_ascii_lowercase();
    let good = (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
        // All digits would be taken for an address.
        && !label.bytes().all(|b| b.is_ascii_digit())
        && label != "localhost";
    good.then_some(label)
}

fn leaf_key(
    (certificate, key): (CertificateDer<'static>, KeyPair),
    validity: (u64, u64),
    trusted: bool,
) -> Result<WebLeaf, LocalCaError> {
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = provider::sign::any_supported_type(&secret)?;
    Ok(WebLeaf { key: Arc::new(CertifiedKey::new(vec![certificate], signer)), validity, trusted })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use std::{path::PathBuf, process::Command};

    const NOW: WallClock = WallClock { unix: 1_800_000_000, trusted: true };

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hearth-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn pem(der: &[u8]) -> String {
        let body = data_encoding::BASE64.encode(der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    fn names() -> WebNames {
        WebNames {
            hostname: "Kitchen.fritz.box".into(),
            addresses: vec![
                "192.168.1.20".parse().unwrap(),
                "8.8.8.8".parse().unwrap(),
                "fe80::1".parse().unwrap(),
            ],
        }
    }

    /// What `openssl verify` says about a certificate for one name.
    fn openssl(ca: &LocalCa, leaf: &[u8], name: &str) -> Result<(), String> {
        let folder = Folder::new(&format!("ca-{}", name.replace([':', '.'], "-")));
        let root = folder.write("ca.pem", ca.ca_pem());
        let leaf = folder.write("leaf.pem", &pem(leaf));
        let flag = if name.parse::<IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
        let at = NOW.unix.to_string();
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-attime", &at, flag, name, "-CAfile"])
            .arg(root)
            .arg(leaf)
            .output()
            .expect("these tests need the openssl program");
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    #[test]
    fn its_certificates_are_taken_by_rustls_and_by_openssl() {
        let ca = LocalCa::generate("kitchen").unwrap();
        let leaf = ca.issue(&names(), NOW).unwrap();
        let der = &leaf.key.cert[0];
        for name in ["kitchen", "kitchen.local", "localhost", "127.0.0.1", "::1", "192.168.1.20", "fe80::1"] {
            ca.check(der, name, NOW.unix).unwrap_or_else(|error| panic!("{name}: {error}"));
            openssl(&ca, der, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for name in ["8.8.8.8", "cellar.local", "example.com"] {
            assert!(ca.check(der, name, NOW.unix).is_err(), "{name}");
        }
    }

    #[test]
    fn a_stolen_authority_vouches_for_no_other_name() {
        let ca = LocalCa::generate("kitchen").unwrap();
        for name in ["example.com", "www.kitchen", "locals", "8.8.8.8", "172.32.0.1", "2001:db8::1"] {
            let san = match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into().unwrap()),
            };
            let (der, _) = ca.sign(&[san], (NOW.unix - 1, NOW.unix + DAY)).unwrap();
            let error = ca.check(&der, name, NOW.unix).unwrap_err().to_string();
            assert!(error.contains("NameConstraint"), "{name}: {error}");
            let error = openssl(&ca, &der, name).unwrap_err();
            let named =
                error.contains("permitted subtree violation") || error.contains("excluded subtree violation");
            assert!(named, "{name}: {error}");
        }
    }

    #[test]
    fn it_survives_a_restart_and_a_new_host_name() {
        let ca = LocalCa::generate("kitchen").unwrap();
        let again = LocalCa::from_pem(ca.ca_pem(), &ca.key_pem()).unwrap();
        let leaf = again.issue(&names(), NOW).unwrap();
        ca.check(&leaf.key.cert[0], "kitchen", NOW.unix).unwrap();
        let renamed = again.issue(&WebNames { hostname: "cellar".into(), addresses: vec![] }, NOW).unwrap();
        ca.check(&renamed.key.cert[0], "cellar.local", NOW.unix).unwrap();
        assert!(ca.check(&renamed.key.cert[0], "cellar", NOW.unix).is_err());
        let odd = again.issue(&WebNames { hostname: "k\u{fc}che".into(), addresses: vec![] }, NOW).unwrap();
        ca.check(&odd.key.cert[0], "localhost", NOW.unix).unwrap();
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_without_showing_the_key() {
        let (ca, other) = (LocalCa::generate("a").unwrap(), LocalCa::generate("b").unwrap());
        let key = ca.key_pem();
        for (certificate, key) in [
            (other.ca_pem(), key.as_str()),
            ("", key.as_str()),
            (ca.ca_pem(), "-----BEGIN"),
            (ca.ca_pem(), &key[..90]),
        ] {
            let error = LocalCa::from_pem(certificate, key).unwrap_err();
            assert!(matches!(error, LocalCaError::Saved(_)), "{error}");
            assert!(!error.to_string().contains(&ca.key_pem()[40..60]));
        }
        assert_eq!(format!("{ca:?}"), "LocalCa");
    }

    #[test]
    fn renewal_is_due_near_the_end_and_when_the_clock_moves() {
        let ca = LocalCa::generate("kitchen").unwrap();
        let leaf = ca.issue(&names(), NOW).unwrap();
        let at = |unix| WallClock { unix, trusted: true };
        assert!(!leaf.is_due(NOW));
        assert!(!leaf.is_due(at(NOW.unix + 59 * DAY)));
        assert!(leaf.is_due(at(NOW.unix + 61 * DAY)));
        assert!(leaf.is_due(at(NOW.unix - 8 * DAY)));
        let unsure = WallClock { trusted: false, ..NOW };
        let leaf = ca.issue(&names(), unsure).unwrap();
        assert!(!leaf.is_due(unsure) && leaf.is_due(NOW));
        let (begins, ends) = leaf.validity;
        assert!(ends - begins <= 398 * DAY);
        // A clock at 1970, and one far ahead.
        for unix in [0, u64::MAX / 2] {
            ca.issue(&names(), WallClock { unix, trusted: false }).unwrap();
        }
    }
}
