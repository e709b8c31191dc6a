//! The invite as people paste it: one line of text, or a QR code.
//!
//! `hearth1-` and then, in base32 (RFC 4648 without padding; either case, spaces ignored): the
//! length of the body in two bytes, the body in postcard, four bytes of BLAKE3 over both. The
//! length tells a token that was cut off from one that was mistyped.

use std::{fmt, net::SocketAddr, str::FromStr};

use data_encoding::BASE32_NOPAD;
use mesh_proto::{HouseholdId, NodeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const NAME: &str = "hearth";
const VERSION: &str = "1";
/// Longest body, in bytes: room for sixteen addresses and more.
const MAX_BODY: usize = 1_024;
const LENGTH_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;
/// Most addresses in a token: the QR code must stay readable.
pub const MAX_TOKEN_ADDRESSES: usize = 8;

/// The public name of an invite, 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 16]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(TokenError::NotAnId)
    }
}

/// 256 random bits that only the issuer and the invited know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub(crate) [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Everything a new node needs to find the household and to be let in, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteToken {
    /// The household, by its root key.
    pub household: HouseholdId,
    /// The node that made the invite and the only one that redeems it.
    pub issuer: NodeId,
    /// Where the issuer was when it made the invite.
    pub addresses: Vec<SocketAddr>,
    /// Which invite this is.
    pub id: TokenId,
    /// What the joiner proves to know; it never travels.
    pub(crate) secret: Secret,
    /// When it ends, in Unix seconds by the issuer's clock.
    pub expires: u64,
    /// The roles that the new node gets: a set of bits, as the roster defines them.
    pub roles: u8,
}

/// Why a text is not a usable invite.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It does not start as one.
    #[error("this is not an invite: an invite starts with `hearth1-`; `hearth invite` prints one")]
    NotAToken,
    /// It was made by a newer Hearth.
    #[error("this invite was made by a newer version of Hearth (`{0}`): update this node, then try again")]
    NewerVersion(String),
    /// Its end is missing.
    #[error("the invite is cut off: {found} of {expected} characters are here; copy all of it")]
    Truncated {
        /// Characters present after the prefix.
        found: usize,
        /// Characters that belong there.
        expected: usize,
    },
    /// A character in it is wrong.
    #[error("the invite is mistyped: its checksum does not match; copy it again")]
    Checksum,
    /// Not the name of an invite.
    #[error("not an invite's id: write its 32 hexadecimal digits, as `hearth invite list` shows them")]
    NotAnId,
}

/// The text form, secret included: print it for the user, never log it.
impl fmt::Display for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = postcard::to_allocvec(self).map_err(|_| fmt::Error)?;
        let length = u16::try_from(body.len()).map_err(|_| fmt::Error)?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        write!(f, "{NAME}{VERSION}-{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for InviteToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text: String = text
            .chars()
            .filter(|c| !c.is_whitespace())
            // One more than can be used shows that there is too much.
            .take(4 * MAX_BODY)
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let digits = digits_of(&text)?;
        let total = total_bytes(digits)?;
        let expected = BASE32_NOPAD.encode_len(total);
        if digits.len() < expected {
            return Err(TokenError::Truncated { found: digits.len(), expected });
        }
        let bytes = BASE32_NOPAD.decode(digits.as_bytes()).map_err(|_| TokenError::Checksum)?;
        let (signed, sum) = bytes.split_at_checked(total - CHECKSUM_BYTES).ok_or(TokenError::Checksum)?;
        if checksum(signed) != sum {
            return Err(TokenError::Checksum);
        }
        let body = signed.get(LENGTH_BYTES..).ok_or(TokenError::Checksum)?;
        let token: Self = postcard::from_bytes(body).map_err(|_| TokenError::Checksum)?;
        if token.addresses.len() > MAX_TOKEN_ADDRESSES { Err(TokenError::Checksum) } else { Ok(token) }
    }
}

/// What follows the prefix, which is checked.
fn digits_of(text: &str) -> Result<&str, TokenError> {
    let rest = text.strip_prefix("HEARTH").ok_or(TokenError::NotAToken)?;
    let (version, digits) = match rest.split_once('-') {
        Some(parts) => parts,
        None if rest.is_empty() || rest == VERSION => (VERSION, ""),
        None => return Err(TokenError::NotAToken),
    };
    if version == VERSION {
        Ok(digits)
    } else if version.parse::<u16>().is_ok_and(|version| version > 1) {
        Err(TokenError::NewerVersion(format!("{NAME}{version}")))
    } else {
        Err(TokenError::NotAToken)
    }
}

/// How many bytes the token says it has: length, body and checksum.
fn total_bytes(digits: &str) -> Result<usize, TokenError> {
    let minimum = BASE32_NOPAD.encode_len(LENGTH_BYTES + CHECKSUM_BYTES);
    let Some(head) = digits.get(..8) else {
        return Err(TokenError::Truncated { found: digits.len(), expected: minimum });
    };
    let head = BASE32_NOPAD.decode(head.as_bytes()).map_err(|_| TokenError::Checksum)?;
    let length = head.first_chunk::<LENGTH_BYTES>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let length = usize::from(length);
    if length > MAX_BODY { Err(TokenError::Checksum) } else { Ok(LENGTH_BYTES + length + CHECKSUM_BYTES) }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(bytes);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn token() -> InviteToken {
        InviteToken {
            household: HouseholdId::from_bytes([1; 32]),
            issuer: NodeId::from_bytes([2; 32]),
            addresses: vec!["192.168.1.20:7433".parse().unwrap(), "[fe80::1]:7433".parse().unwrap()],
            id: TokenId([3; 16]),
            secret: Secret([0xa5; 32]),
            expires: 1_800_000_000,
            roles: 1,
        }
    }

    #[test]
    fn text_round_trips_in_any_case_and_with_line_breaks() {
        let text = token().to_string();
        assert!(text.len() < 300, "{}", text.len());
        assert_eq!(text.parse::<InviteToken>().unwrap(), token());
        let (first, second) = text.split_at(100);
        let wrapped = format!("  {}\n   {}\r\n", first.to_uppercase(), second);
        assert_eq!(wrapped.parse::<InviteToken>().unwrap(), token());
    }

    #[test]
    fn every_cut_is_named_as_one() {
        let text = token().to_string();
        for length in 8..text.len() {
            let error = text[..length].parse::<InviteToken>().unwrap_err();
            assert!(matches!(error, TokenError::Truncated { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn every_wrong_character_is_noticed() {
        let text = token().to_string();
        for index in 8..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[index] = if wrong[index] == b'b' { b'c' } else { b'b' };
            let wrong = String::from_utf8(wrong).unwrap();
            let error = wrong.parse::<InviteToken>().unwrap_err();
            // A wrong length may look like a cut; nothing wrong is ever taken.
            assert!(matches!(error, TokenError::Checksum | TokenError::Truncated { .. }), "{index}: {error}");
        }
        assert_eq!(format!("{text}a").parse::<InviteToken>(), Err(TokenError::Checksum));
    }

    #[test]
    fn other_texts_are_named() {
        for text in ["", "hello", "hearth", "hearthx-abc", "https://example.com/", "h\u{e4}arth1-"] {
            let error = text.parse::<InviteToken>().unwrap_err();
            assert!(matches!(error, TokenError::NotAToken | TokenError::Truncated { .. }), "{text}: {error}");
        }
        let newer = token().to_string().replace("hearth1", "hearth2");
        assert_eq!(newer.parse::<InviteToken>(), Err(TokenError::NewerVersion("hearth2".into())));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_harm(text in "(hearth1-)?\\PC{0,200}") {
            prop_assert!(text.parse::<InviteToken>().is_err());
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let text = format!("{:?}", token());
        assert!(text.contains("(secret)") && !text.contains("165, 165"), "{text}");
    }
}
