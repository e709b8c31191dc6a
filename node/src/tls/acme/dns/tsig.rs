//! TSIG, by which a server and its client know each other's messages (RFC 8945).

use std::fmt;
use std::str::FromStr;

use crate::config::Broken;

/// What makes the message authentication codes (RFC 8945, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256, which every server has.
    Sha256,
    /// HMAC with SHA-384.
    Sha384,
    /// HMAC with SHA-512.
    Sha512,
}

impl Algorithm {
    /// Its name, as settings and the wire have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        let text = text.trim().to_ascii_lowercase();
        let all = [Self::Sha256, Self::Sha384, Self::Sha512];
        all.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(Broken {
            rule: "hmac-sha256, hmac-sha384 or hmac-sha512, as the name server has the key",
            example: "\"hmac-sha256\"",
        })
    }
}
