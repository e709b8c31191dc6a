//! What of a certificate's DER (X.690, RFC 5280) this program looks at: its number, its validity, and who signed it with which key.
//!
//! The bytes come from outside, so nothing is believed: each length is checked against what is there, nothing is copied, and no
//! depth is followed but the one that a certificate has.

use jiff::{civil::DateTime, tz::TimeZone};
use thiserror::Error;

pub(in crate::tls) const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
pub(in crate::tls) const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
pub(in crate::tls) const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` constructed: the version.
const VERSION: u8 = 0xa0;
/// `[3]` constructed: the extensions.
pub(in crate::tls) const EXTENSIONS: u8 = 0xa3;
/// `[0]` primitive: the key identifier (RFC 5280, section 4.2.1.1).
const KEY_IDENTIFIER: u8 = 0x80;
/// 2.5.29.35, the authority key identifier.
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
/// The longest number of a certificate, in bytes (RFC 5280, section 4.1.2.2), with one for its sign.
const MAX_SERIAL_BYTES: usize = 21;

/// Why bytes are no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DerError {
    /// A length goes beyond the end, or is not written in the one form that DER allows.
    #[error("a length in it does not fit")]
    Length,
    /// Something else stands there.
    #[error("a part of it is missing or stands in the wrong place")]
    Unexpected,
    /// A time that no calendar has, or that is not in the form of RFC 5280, section 4.1.2.5.
    #[error("a time in it is none")]
    Time,
    /// Its number is longer than 20 bytes, or empty.
    #[error("its number is longer than 20 bytes, or empty")]
    Serial,
}

/// What is looked at of a certificate; it borrows from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Its number, as it stands there: a byte 0 before a high bit included.
    pub serial: &'a [u8],
    /// The name of who signed it, whole.
    pub issuer: &'a [u8],
    /// Its own name, whole.
    pub subject: &'a [u8],
    /// From when it is valid, in seconds since 1970.
    pub not_before: u64,
    /// Until when, that second included.
    pub not_after: u64,
    /// Which key signed it, if it says so.
    pub authority_key: Option<&'a [u8]>,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`DerError`].
    pub fn read(der: &'a [u8]) -> Result<Self, DerError> {
        let mut whole = Reader::new(der);
        let mut certificate = Reader::new(whole.take(SEQUENCE)?);
        whole.end()?;
        let mut signed = Reader::new(certificate.take(SEQUENCE)?);
        signed.take_if(VERSION)?;
        let serial = signed.take(INTEGER)?;
        if !(1..=MAX_SERIAL_BYTES).contains(&serial.len()) {
            return Err(DerError::Serial);
        }
        signed.take(SEQUENCE)?;
        let issuer = signed.take(SEQUENCE)?;
        let mut validity = Reader::new(signed.take(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = signed.take(SEQUENCE)?;
        signed.take(SEQUENCE)?;
        let authority_key = authority_key(&mut signed)?;
        Ok(Self { serial, issuer, subject, not_before, not_after, authority_key })
    }
}

/// Looks through what comes behind the key for the extension that names the key of the authority.
fn authority_key<'a>(signed: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DerError> {
    while !signed.is_empty() {
        let (tag, content) = signed.any()?;
        if tag != EXTENSIONS {
            continue;
        }
        let mut list = Reader::new(Reader::new(content).take(SEQUENCE)?);
        while !list.is_empty() {
            let mut extension = Reader::new(list.take(SEQUENCE)?);
            let name = extension.take(OBJECT)?;
            extension.take_if(BOOLEAN)?;
            let value = extension.take(OCTETS)?;
            if name == AUTHORITY_KEY_IDENTIFIER {
                let mut identifier = Reader::new(Reader::new(value).take(SEQUENCE)?);
                return identifier.take_if(KEY_IDENTIFIER);
            }
        }
    }
    Ok(None)
}

/// Reads one element after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, whatever it is: its tag and its content.
    pub(crate) fn any(&mut self) -> Result<(u8, &'a [u8]), DerError> {
        let (tag, rest) = self.rest.split_first().ok_or(DerError::Unexpected)?;
        // A tag of several bytes stands nowhere in a certificate.
        if tag & 0x1f == 0x1f {
            return Err(DerError::Unexpected);
        }
        let (length, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(length).ok_or(DerError::Length)?;
        self.rest = rest;
        Ok((*tag, content))
    }

    /// The content of the next element, which must have this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        self.take_if(tag)?.ok_or(DerError::Unexpected)
    }

    /// The content of the next element if it has this tag; else it stays.
    fn take_if(&mut self, tag: u8) -> Result<Option<&'a [u8]>, DerError> {
        if self.rest.first() != Some(&tag) {
            return Ok(None);
        }
        self.any().map(|(_, content)| Some(content))
    }

    fn end(&self) -> Result<(), DerError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DerError::Length) }
    }

    fn time(&mut self) -> Result<u64, DerError> {
        let (tag, text) = self.any()?;
        let text = std::str::from_utf8(text).map_err(|_| DerError::Time)?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2).ok_or(DerError::Time)?;
                let year = digits(year)?;
                // RFC 5280, section 4.1.2.5.1.
                (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4).ok_or(DerError::Time)?;
                (digits(year)?, rest)
            }
            _ => return Err(DerError::Time),
        };
        moment(year, rest)
    }
}

/// A length in the shortest form, of at most four bytes (X.690, section 10.1).
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), DerError> {
    let (first, rest) = bytes.split_first().ok_or(DerError::Length)?;
    if *first < 0x80 {
        return Ok((usize::from(*first), rest));
    }
    let (number, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(DerError::Length)?;
    if !(1..=4).contains(&number.len()) || number.first() == Some(&0) {
        return Err(DerError::Length);
    }
    let length = number.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    let length = usize::try_from(length).map_err(|_| DerError::Length)?;
    if length < 0x80 { Err(DerError::Length) } else { Ok((length, rest)) }
}

fn digits(text: &str) -> Result<i16, DerError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DerError::Time);
    }
    text.parse().map_err(|_| DerError::Time)
}

/// `MMDDHHMMSSZ` of a year, in seconds since 1970; what lies before is 0.
fn moment(year: i16, text: &str) -> Result<u64, DerError> {
    let text = text.strip_suffix('Z').filter(|text| text.len() == 10).ok_or(DerError::Time)?;
    let at = |from: usize| -> Result<i8, DerError> {
        let two = text.get(from..from + 2).ok_or(DerError::Time)?;
        i8::try_from(digits(two)?).map_err(|_| DerError::Time)
    };
    let civil = DateTime::new(year, at(0)?, at(2)?, at(4)?, at(6)?, at(8)?, 0);
    let zoned = civil.and_then(|civil| civil.to_zoned(TimeZone::UTC)).map_err(|_| DerError::Time)?;
    Ok(u64::try_from(zoned.timestamp().as_second()).unwrap_or(0))
}

/// For the fuzz target, and for the properties of the tests.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use super::{Certificate, MAX_SERIAL_BYTES, Reader};

    /// A certificate, and any elements whatever.
    ///
    /// # Panics
    /// When what is read is more than there is, or breaks a rule.
    pub fn run(data: &[u8]) {
        if let Ok(read) = Certificate::read(data) {
            assert!((1..=MAX_SERIAL_BYTES).contains(&read.serial.len()));
            let parts = [read.serial, read.issuer, read.subject, read.authority_key.unwrap_or_default()];
            assert!(parts.iter().all(|part| part.len() < data.len()));
        }
        let (mut reader, mut left) = (Reader::new(data), data.len());
        while let Ok((_, content)) = reader.any() {
            // A tag and a length of one byte at least stand before it.
            assert!(content.len() + 2 + reader.rest.len() <= left);
            left = reader.rest.len();
        }
        let _any_answer = Reader::new(data).time();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyIdMethod, KeyPair, SerialNumber};

    fn made() -> Vec<u8> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_identifier_method = KeyIdMethod::PreSpecified(vec![0xc0, 0xff, 0xee]);
        let authority = Issuer::new(authority, KeyPair::generate().unwrap());
        let mut leaf = CertificateParams::new(["a.example.org".to_owned()]).unwrap();
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "the leaf");
        leaf.not_before = rcgen::date_time_ymd(2026, 2, 28);
        leaf.not_after = rcgen::date_time_ymd(2051, 1, 1);
        leaf.serial_number = Some(SerialNumber::from_slice(&[0xca, 0xfe]));
        leaf.use_authority_key_identifier_extension = true;
        leaf.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap().der().to_vec()
    }

    #[test]
    fn number_validity_and_key_of_the_authority_are_read() {
        let der = made();
        let read = Certificate::read(&der).unwrap();
        assert_eq!(read.serial, [0, 0xca, 0xfe], "with the byte that keeps it positive");
        assert_eq!(read.authority_key, Some([0xc0, 0xff, 0xee].as_slice()));
        assert_eq!((read.not_before, read.not_after), (1_772_236_800, 2_556_144_000));
        assert_ne!(read.issuer, read.subject);
    }

    #[test]
    fn every_cut_is_refused_and_no_flipped_byte_panics() {
        let der = made();
        for end in 0..der.len() {
            assert!(Certificate::read(&der[..end]).is_err(), "cut at {end}");
        }
        assert!(Certificate::read(&[der.as_slice(), &[0]].concat()).is_err(), "nothing may follow");
        for at in 0..der.len() {
            for byte in [0, 0x1f, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut bad = der.clone();
                bad[at] = byte;
                let _any_answer = Certificate::read(&bad);
            }
        }
    }

    #[test]
    fn lengths_have_one_form() {
        for (bytes, wrong) in [
            (&[0x30, 0x80, 0, 0][..], "no end in sight"),
            (&[0x30, 0x81, 0x01, 0], "longer than need be"),
            (&[0x30, 0x82, 0x00, 0x80], "begins with a zero"),
            (&[0x30, 0x85, 1, 0, 0, 0, 0], "five bytes"),
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], "more than there is"),
            (&[0x30, 0xff], "as many bytes as there are not"),
            (&[0x1f, 0x81, 0x01, 0x00], "a long tag"),
            (&[], "nothing"),
        ] {
            assert!(Reader::new(bytes).any().is_err(), "{wrong}");
        }
        let long = [&[0x04, 0x81, 0x80][..], &[7; 128]].concat();
        assert_eq!(Reader::new(&long).any().unwrap().1.len(), 128);
    }

    #[test]
    fn times_are_of_the_calendar() {
        let time = |tag: u8, text: &str| {
            let der = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            Reader::new(&der).time()
        };
        assert_eq!(time(UTC_TIME, "700101000000Z"), Ok(0));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Ok(2_524_607_999));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Ok(0), "1950");
        assert_eq!(time(GENERALIZED_TIME, "20240229120000Z"), Ok(1_709_208_000));
        for wrong in [
            "230229120000Z",
            "231301000000Z",
            "230101000000",
            "2301010000Z",
            "23010100000éZ",
            "+30101000000Z",
        ] {
            assert_eq!(time(UTC_TIME, wrong), Err(DerError::Time), "{wrong}");
        }
        assert_eq!(time(GENERALIZED_TIME, "20240101000000.5Z"), Err(DerError::Time));
        assert_eq!(time(INTEGER, "700101000000Z"), Err(DerError::Time));
    }

    /// An element as X.690, section 10.1, wants it.
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let bytes = content.len().to_be_bytes();
        let short: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
        let mut der = vec![tag];
        if content.len() >= 0x80 {
            der.push(0x80 | u8::try_from(short.len()).unwrap());
            der.extend(short);
        } else {
            der.push(u8::try_from(content.len()).unwrap());
        }
        der.extend(content);
        der
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_beyond(
            tag in any::<u8>().prop_filter("a tag of one byte", |tag| tag & 0x1f != 0x1f),
            length in prop_oneof![0_usize..300, Just(0x7f), Just(0x80), Just(0xff), Just(0x100), Just(0xffff), Just(0x1_0000)],
            after in vec(any::<u8>(), 0..9),
        ) {
            let content = vec![7; length];
            let der = [element(tag, &content), after.clone()].concat();
            let mut reader = Reader::new(&der);
            prop_assert_eq!(reader.any(), Ok((tag, content.as_slice())));
            prop_assert_eq!(reader.rest, after.as_slice());
        }

        /// One that is nearly right gets further than any bytes do.
        #[test]
        fn a_damaged_certificate_is_read_or_refused(
            wounds in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<proptest::sample::Index>(),
        ) {
            static MADE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(made);
            let mut der = MADE.clone();
            for (at, byte) in wounds {
                let at = at.index(der.len());
                der[at] = byte;
            }
            super::fuzzing::run(&der);
            super::fuzzing::run(&der[..cut.index(der.len())]);
        }
    }
}
