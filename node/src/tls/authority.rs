//! What the certificate of an authority says of itself, for people who are to trust it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::acme::der::{BOOLEAN, Certificate, DerError, EXTENSIONS, OBJECT, Reader, SEQUENCE};

const SET: u8 = 0x31;
/// 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.30.
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
/// `[0]` constructed.
const PERMITTED: u8 = 0xa0;
/// `[1]` constructed.
const EXCLUDED: u8 = 0xa1;
/// `[2]` primitive: a name of the DNS.
const DNS_NAME: u8 = 0x82;
/// `[7]` primitive: an address with its mask.
const ADDRESS: u8 = 0x87;

/// The certificate of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its common name.
    pub subject: String,
    /// SHA-256 of its bytes in hexadecimal, with colons, as browsers show it.
    pub fingerprint: String,
    /// From when and until when it is valid, in seconds since 1970.
    pub validity: (u64, u64),
    /// For what it may vouch; empty when nothing confines it.
    pub permitted: Vec<String>,
    /// For what it may not, though it is below what is permitted.
    pub excluded: Vec<String>,
}

impl Authority {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// [`DerError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, DerError> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| DerError::Unexpected)?;
        Self::read(&der)
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`DerError`].
    pub fn read(der: &[u8]) -> Result<Self, DerError> {
        let certificate = Certificate::read(der)?;
        let constraints = constraints(der)?;
        Ok(Self {
            subject: common_name(certificate.subject)?,
            fingerprint: fingerprint(der),
            validity: (certificate.not_before, certificate.not_after),
            permitted: subtrees(constraints, PERMITTED)?,
            excluded: subtrees(constraints, EXCLUDED)?,
        })
    }
}

/// SHA-256 in hexadecimal, with colons.
fn fingerprint(der: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, der);
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn common_name(subject: &[u8]) -> Result<String, DerError> {
    let mut parts = Reader::new(subject);
    while !parts.is_empty() {
        let mut part = Reader::new(Reader::new(parts.take(SET)?).take(SEQUENCE)?);
        if part.take(OBJECT)? == COMMON_NAME {
            return Ok(String::from_utf8_lossy(part.any()?.1).into_owned());
        }
    }
    Err(DerError::Unexpected)
}

/// What is in the extension that holds the name constraints (RFC 5280, section 4.2.1.10); nothing when there is none.
fn constraints(der: &[u8]) -> Result<&[u8], DerError> {
    let mut signed = Reader::new(Reader::new(Reader::new(der).take(SEQUENCE)?).take(SEQUENCE)?);
    while !signed.is_empty() {
        let (tag, content) = signed.any()?;
        if tag != EXTENSIONS {
            continue;
        }
        let mut list = Reader::new(Reader::new(content).take(SEQUENCE)?);
        while !list.is_empty() {
            let mut extension = Reader::new(list.take(SEQUENCE)?);
            let name = extension.take(OBJECT)?;
            let (tag, mut value) = extension.any()?;
            if tag == BOOLEAN {
                value = extension.any()?.1;
            }
            if name == NAME_CONSTRAINTS {
                return Reader::new(value).take(SEQUENCE);
            }
        }
    }
    Ok(&[])
}

fn subtrees(constraints: &[u8], wanted: u8) -> Result<Vec<String>, DerError> {
    let (mut parts, mut shown) = (Reader::new(constraints), Vec::new());
    while !parts.is_empty() {
        let (tag, content) = parts.any()?;
        let mut list = Reader::new(if tag == wanted { content } else { &[] });
        while !list.is_empty() {
            let (tag, base) = Reader::new(list.take(SEQUENCE)?).any()?;
            shown.push(match tag {
                DNS_NAME => String::from_utf8_lossy(base).into_owned(),
                ADDRESS => network(base).ok_or(DerError::Length)?,
                _ => return Err(DerError::Unexpected),
            });
        }
    }
    Ok(shown)
}

/// An address with its mask, as `ADDRESS/BITS`.
fn network(bytes: &[u8]) -> Option<String> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    let ip: IpAddr = match address.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
        _ => return None,
    };
    let bits: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    (mask.len() == address.len()).then(|| format!("{ip}/{bits}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::tls::LocalCa;

    #[test]
    fn what_the_local_authority_says_of_itself_is_read() {
        let ca = LocalCa::generate("kitchen").unwrap();
        let read = Authority::from_pem(ca.ca_pem().as_bytes()).unwrap();
        assert!(read.subject.starts_with("Hearth local CA "), "{read:?}");
        assert_eq!((read.fingerprint.len(), read.validity.0), (32 * 3 - 1, 0));
        assert!(read.validity.1 > 4_102_000_000, "the end of 2099");
        for name in ["local", "home.arpa", "localhost", "kitchen", "192.168.0.0/16", "fc00::/7", "::1/128"] {
            assert!(read.permitted.iter().any(|permitted| permitted == name), "{name}: {read:?}");
        }
        assert_eq!(read.excluded, [".kitchen"]);
    }

    #[test]
    fn an_authority_that_nothing_confines_has_no_constraints() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let read = Authority::read(&der).unwrap();
        assert!(read.permitted.is_empty() && read.excluded.is_empty());
    }

    #[test]
    fn every_cut_is_refused_and_no_flipped_byte_panics() {
        let ca = LocalCa::generate("kitchen").unwrap();
        let der = CertificateDer::from_pem_slice(ca.ca_pem().as_bytes()).unwrap().to_vec();
        for end in 0..der.len() {
            assert!(Authority::read(&der[..end]).is_err(), "cut at {end}");
        }
        for at in 0..der.len() {
            for byte in [0, 0x1f, 0x30, 0x80, 0xff] {
                let mut bad = der.clone();
                bad[at] = byte;
                let _any_answer = Authority::read(&bad);
            }
        }
        assert!(Authority::from_pem(b"nonsense").is_err());
    }
}
