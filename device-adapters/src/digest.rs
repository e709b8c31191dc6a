//! Digest access authentication with SHA-256 (RFC 7616), as a client.
//!
//! Only what devices of today ask for: `SHA-256` and the quality of protection `auth`. MD5 is refused.

use std::fmt;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::adapter::Secret;
use crate::model::device::Hex;

/// The longest challenge that is read, in bytes.
const MOST_CHALLENGE: usize = 2_048;

/// Why a challenge cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DigestError {
    /// It is not a challenge of this scheme.
    #[error("the challenge is not one of Digest (RFC 7616)")]
    NotDigest,
    /// A part of it is missing.
    #[error("the challenge has no {0}")]
    Missing(&'static str),
    /// Another algorithm.
    #[error("the challenge asks for {0:?}: only SHA-256 is spoken here")]
    Algorithm(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Who asks.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) user: &'static str,
    pub(crate) password: Secret,
}

/// What a server wants to have answered.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) realm: String,
    pub(crate) nonce: String,
    pub(crate) opaque: Option<String>,
    /// How many requests used this nonce.
    count: u32,
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge").field("realm", &self.realm).finish_non_exhaustive()
    }
}

impl Challenge {
    /// A challenge of these parts.
    pub(crate) fn new(realm: String, nonce: String) -> Self {
        Self { realm, nonce, opaque: None, count: 0 }
    }

    /// Reads the header `WWW-Authenticate` (section 3.3).
    pub(crate) fn parse(header: &str) -> Result<Self, DigestError> {
        let scheme = header.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("digest "));
        if scheme.is_none() || header.len() > MOST_CHALLENGE {
            return Err(DigestError::NotDigest);
        }
        let parameters = parameters(header.get(7..).unwrap_or_default());
        let value = |name: &str| {
            parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        match value("algorithm") {
            Some(algorithm) if algorithm.eq_ignore_ascii_case("SHA-256") => {}
            other => return Err(DigestError::Algorithm(other.unwrap_or_else(|| "MD5".to_owned()))),
        }
        let qop = value("qop").ok_or(DigestError::Missing("qop"))?;
        if !qop.split(',').any(|offer| offer.trim() == "auth") {
            return Err(DigestError::Missing("qop \"auth\""));
        }
        let realm = value("realm").ok_or(DigestError::Missing("realm"))?;
        let nonce = value("nonce").ok_or(DigestError::Missing("nonce"))?;
        Ok(Self { realm, nonce, opaque: value("opaque"), count: 0 })
    }

    /// The header `Authorization` of the next request (section 3.4).
    pub(crate) fn authorize(
        &mut self,
        method: &str,
        uri: &str,
        by: &Credentials,
    ) -> Result<String, DigestError> {
        self.count = self.count.saturating_add(1);
        Ok(self.header(method, uri, by, &cnonce()?))
    }

    fn header(&self, method: &str, uri: &str, by: &Credentials, cnonce: &str) -> String {
        let count = format!("{:08x}", self.count);
        let response = self.response(by, &count, cnonce, &format!("{method}:{uri}"));
        let opaque =
            self.opaque.as_ref().map(|opaque| format!(", opaque=\"{}\"", quoted(opaque))).unwrap_or_default();
        format!(
            "Digest username=\"{}\", realm=\"{}\", uri=\"{}\", algorithm=SHA-256, nonce=\"{}\", nc={count}, \
             cnonce=\"{}\", qop=auth, response=\"{response}\"{opaque}",
            quoted(by.user),
            quoted(&self.realm),
            quoted(uri),
            quoted(&self.nonce),
            quoted(cnonce)
        )
    }

    /// The response (section 3.4.1) where what is asked for is `subject`: of HTTP the method and the URI.
    pub(crate) fn response(&self, by: &Credentials, count: &str, cnonce: &str, subject: &str) -> String {
        let secret = hash(&format!("{}:{}:{}", by.user, self.realm, by.password.0));
        hash(&format!("{secret}:{}:{count}:{cnonce}:auth:{}", self.nonce, hash(subject)))
    }
}

/// A random number of the client.
pub(crate) fn cnonce() -> Result<String, DigestError> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| DigestError::Random)?;
    Ok(Hex(&random).to_string())
}

fn hash(text: &str) -> String {
    Hex(digest(&SHA256, text.as_bytes()).as_ref()).to_string()
}

/// The inside of a quoted string (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// `name=value` and `name="value"` with commas between them.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while rest.peek().is_some() {
        let name: String = std::iter::from_fn(|| rest.next_if(|c| *c != '=')).collect();
        rest.next();
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let mut value = String::new();
        if rest.next_if_eq(&'"').is_some() {
            while let Some(c) = rest.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(rest.next()),
                    c => value.push(c),
                }
            }
        } else {
            value.extend(std::iter::from_fn(|| rest.next_if(|c| *c != ',')));
        }
        found.push((name, value.trim().to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// RFC 7616, section 3.9.1.
    const HEADER: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
        nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
        opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
    const CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

    fn mufasa() -> Credentials {
        Credentials { user: "Mufasa", password: Secret("Circle of Life".to_owned()) }
    }

    #[test]
    fn the_example_of_the_standard_is_answered_as_there() {
        let mut challenge = Challenge::parse(HEADER).unwrap();
        challenge.count = 1;
        let header = challenge.header("GET", "/dir/index.html", &mufasa(), CNONCE);
        for part in [
            "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\"",
            "response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\"",
            "nc=00000001",
            "opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
        ] {
            assert!(header.contains(part), "{part} is not in {header}");
        }
        assert!(!header.contains("Circle"));
    }

    #[test]
    fn each_request_counts_and_has_a_random_number_of_its_own() {
        let mut challenge = Challenge::parse(HEADER).unwrap();
        let first = challenge.authorize("GET", "/", &mufasa()).unwrap();
        let second = challenge.authorize("GET", "/", &mufasa()).unwrap();
        assert!(first.contains("nc=00000001") && second.contains("nc=00000002"));
        assert_ne!(cnonce().unwrap(), cnonce().unwrap());
    }

    #[test]
    fn what_cannot_be_answered_is_refused_with_the_reason() {
        let refused = |header: &str| Challenge::parse(header).unwrap_err();
        assert_eq!(refused("Basic realm=\"a\""), DigestError::NotDigest);
        assert_eq!(refused("Digest realm=\"a\", nonce=\"b\""), DigestError::Algorithm("MD5".to_owned()));
        let weak = "Digest realm=\"a\", nonce=\"b\", algorithm=MD5";
        assert_eq!(refused(weak), DigestError::Algorithm("MD5".to_owned()));
        let bare = "Digest algorithm=SHA-256, qop=\"auth\", realm=\"a\"";
        assert_eq!(refused(bare), DigestError::Missing("nonce"));
        let whole = "Digest algorithm=SHA-256, qop=\"auth-int\", realm=\"a\", nonce=\"b\"";
        assert_eq!(refused(whole), DigestError::Missing("qop \"auth\""));
        assert_eq!(refused(&format!("Digest {}", "a".repeat(MOST_CHALLENGE))), DigestError::NotDigest);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in ".{0,80}") {
            let _ = Challenge::parse(&format!("Digest {header}"));
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[ -~]{0,20}") {
            let header = format!("Digest algorithm=SHA-256, qop=\"auth\", nonce=\"n\", realm=\"{}\"", quoted(&value));
            prop_assert_eq!(Challenge::parse(&header).unwrap().realm, value.trim());
        }
    }
}
