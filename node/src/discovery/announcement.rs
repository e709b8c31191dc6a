//! What a node says of itself in the TXT record (RFC 6763, section 6), and what is believed of what
//! others say.

use std::fmt;

use mesh_proto::{HouseholdId, ShortId};
use thiserror::Error;

/// The keys: version of the mesh's frames, node, household.
pub const KEYS: [&str; 3] = ["v", "id", "hh"];
/// Most pairs of a record that are looked at; a record of more is refused.
pub const MOST_PAIRS: usize = 16;
/// Longest value, in bytes.
pub const MOST_VALUE_BYTES: usize = 64;
/// Separates this use of the hash from every other; it must never change.
const TAG_CONTEXT: &str = "Hearth 2026 household tag in multicast DNS v1";

/// By which nodes of one household recognise each other: the first eight bytes of a hash of the
/// household's public key. It proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HouseholdTag(u64);

impl HouseholdTag {
    /// The tag of a household.
    pub fn of(household: &HouseholdId) -> Self {
        let hash = blake3::derive_key(TAG_CONTEXT, household.as_bytes());
        Self(hash.iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte)))
    }
}

impl fmt::Display for HouseholdTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for HouseholdTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HouseholdTag({self})")
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The version of its frames. A hint is followed whatever it is: the session says why two
    /// versions do not fit.
    pub version: u16,
    /// Who it says that it is.
    pub node: ShortId,
    /// To which household it says that it belongs.
    pub household: HouseholdTag,
}

/// Why an announcement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnnouncementError {
    /// More pairs than any version of Hearth sends.
    #[error("more than {MOST_PAIRS} pairs")]
    TooManyPairs,
    /// A value of one of our keys is longer than any version of Hearth sends.
    #[error("the value of `{0}` is longer than {MOST_VALUE_BYTES} bytes")]
    TooLong(&'static str),
    /// One of our keys is missing or has no value.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The value of one of our keys is not what it must be.
    #[error("the value of `{0}` is not what Hearth writes there")]
    Malformed(&'static str),
}

impl Announcement {
    /// The pairs of the TXT record.
    pub fn pairs(&self) -> [(&'static str, String); 3] {
        let [version, node, household] = KEYS;
        [
            (version, self.version.to_string()),
            (node, self.node.to_string()),
            (household, self.household.to_string()),
        ]
    }

    /// Reads the pairs of a TXT record. Of a key that comes twice the first counts, and unknown
    /// keys are skipped, as RFC 6763 (section 6.4) says.
    ///
    /// # Errors
    /// [`AnnouncementError`].
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Self, AnnouncementError> {
        let mut found: [Option<&[u8]>; KEYS.len()] = [None; KEYS.len()];
        for (count, (key, value)) in pairs.into_iter().enumerate() {
            if count >= MOST_PAIRS {
                return Err(AnnouncementError::TooManyPairs);
            }
            for (known, place) in KEYS.iter().zip(&mut found) {
                if key.eq_ignore_ascii_case(known) && place.is_none() {
                    *place = Some(value.unwrap_or_default());
                }
            }
        }
        let [version, node, household] = found;
        let [v, id, hh] = KEYS;
        Ok(Self {
            version: decimal(v, version)?,
            node: ShortId(hexadecimal(id, node)?),
            household: HouseholdTag(hexadecimal(hh, household)?),
        })
    }
}

fn text<'a>(key: &'static str, value: Option<&'a [u8]>) -> Result<&'a str, AnnouncementError> {
    let value = value.ok_or(AnnouncementError::Missing(key))?;
    if value.len() > MOST_VALUE_BYTES {
        return Err(AnnouncementError::TooLong(key));
    }
    std::str::from_utf8(value).map_err(|_| AnnouncementError::Malformed(key))
}

fn decimal(key: &'static str, value: Option<&[u8]>) -> Result<u16, AnnouncementError> {
    let text = text(key, value)?;
    // `parse` takes a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or(AnnouncementError::Malformed(key))
}

fn hexadecimal(key: &'static str, value: Option<&[u8]>) -> Result<u64, AnnouncementError> {
    let text = text(key, value)?;
    let fits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = if fits { u64::from_str_radix(text, 16).ok() } else { None };
    number.ok_or(AnnouncementError::Malformed(key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn home() -> Announcement {
        let household = HouseholdId::from_bytes([7; 32]);
        Announcement { version: 1, node: ShortId(0xabc), household: HouseholdTag::of(&household) }
    }

    fn borrow<'a>(pairs: &'a [(&'a str, String)]) -> Vec<(&'a str, Option<&'a [u8]>)> {
        pairs.iter().map(|(key, value)| (*key, Some(value.as_bytes()))).collect()
    }

    #[test]
    fn the_tag_is_the_same_for_ever_and_shows_nothing_of_the_key() {
        let household = HouseholdId::from_bytes([7; 32]);
        let tag = HouseholdTag::of(&household).to_string();
        assert_eq!(tag, "c402ac157ead2570");
        assert!(!household.to_string().contains(&tag));
        assert_ne!(HouseholdTag::of(&household), HouseholdTag::of(&HouseholdId::from_bytes([8; 32])));
    }

    #[test]
    fn what_is_said_is_understood_whatever_else_is_said() {
        let pairs = home().pairs();
        let mut shown = borrow(&pairs);
        assert_eq!(Announcement::parse(shown.clone()).unwrap(), home());
        // Keys know no case, the first of two counts, unknown ones and switches are skipped.
        shown.extend([("id", Some(&b"0000000000000000"[..])), ("colour", None), ("é", Some(&[255]))]);
        assert_eq!(Announcement::parse(shown.clone()).unwrap(), home());
        let upper: Vec<_> = shown.iter().map(|(key, value)| (key.to_uppercase(), *value)).collect();
        let upper = upper.iter().map(|(key, value)| (key.as_str(), *value));
        assert_eq!(Announcement::parse(upper).unwrap(), home());
    }

    #[test]
    fn each_lie_has_its_name() {
        use AnnouncementError::{Malformed, Missing, TooLong, TooManyPairs};
        let long = [b'a'; MOST_VALUE_BYTES + 1];
        for (key, value, error) in [
            ("v", None, Malformed("v")),
            ("v", Some(&b"+1"[..]), Malformed("v")),
            ("v", Some(b"65536"), Malformed("v")),
            ("v", Some(&long), TooLong("v")),
            ("id", Some(b"123"), Malformed("id")),
            ("id", Some(b"+00000000000000a"), Malformed("id")),
            ("id", Some("äääääääää".as_bytes()), Malformed("id")),
            ("hh", Some(&[0xff; 16]), Malformed("hh")),
            ("hh", Some(&long), TooLong("hh")),
        ] {
            let pairs = home().pairs();
            let mut shown = borrow(&pairs);
            shown.retain(|(known, _)| *known != key);
            let without: Vec<_> = shown.clone();
            shown.push((key, value));
            assert_eq!(Announcement::parse(shown).unwrap_err(), error);
            let missing = KEYS.into_iter().find(|known| *known == key).unwrap();
            assert_eq!(Announcement::parse(without).unwrap_err(), Missing(missing));
        }
        let many = std::iter::repeat_n(("x", None), MOST_PAIRS + 1);
        assert_eq!(Announcement::parse(many).unwrap_err(), TooManyPairs);
    }

    proptest! {
        #[test]
        fn every_announcement_comes_back(version: u16, node: u64, household: u64) {
            let said = Announcement { version, node: ShortId(node), household: HouseholdTag(household) };
            let pairs = said.pairs();
            let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
            prop_assert!(bytes < 100, "one record fits every packet");
            prop_assert_eq!(Announcement::parse(borrow(&pairs)).unwrap(), said);
        }

        #[test]
        fn no_record_panics_and_none_is_believed_by_halves(
            pairs in proptest::collection::vec(
                ("(v|id|hh|V|.{0,4})", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80))),
                0..24,
            )
        ) {
            let shown = pairs.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
            if let Ok(said) = Announcement::parse(shown) {
                prop_assert!(pairs.len() <= MOST_PAIRS);
                let again = said.pairs();
                prop_assert_eq!(Announcement::parse(borrow(&again)).unwrap(), said);
            }
        }
    }
}
