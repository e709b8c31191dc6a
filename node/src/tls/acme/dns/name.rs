//! Domain names as DNS carries them (RFC 1035, sections 2.3 and 3.1).

use std::fmt;
use std::str::FromStr;

use crate::config::Broken;

/// Longest name on the wire, in bytes, its lengths and its end included.
pub(super) const MAX_BYTES: usize = 255;
/// Longest label, in bytes.
pub(super) const MAX_LABEL: usize = 63;

/// An absolute name: its wire form without compression, in lower case, so that equal names have equal bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// The name of these labels, from the left; `None` when it is too long, or a label is empty or too long.
    pub(super) fn of_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut wire = Vec::new();
        for label in labels {
            let length = u8::try_from(label.len()).ok().filter(|n| (1..=MAX_LABEL).contains(&(*n).into()))?;
            wire.push(length);
            wire.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        wire.push(0);
        (wire.len() <= MAX_BYTES).then_some(Self(wire))
    }

    /// The name on the wire.
    pub(super) fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Its labels, from the left.
    pub(super) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first().filter(|(length, _)| **length > 0)?;
            let (label, after) = after.split_at_checked((*length).into())?;
            rest = after;
            Some(label)
        })
    }

    /// This name below a further label; `None` when it becomes too long.
    pub(super) fn below(&self, label: &str) -> Option<Self> {
        Self::of_labels(std::iter::once(label.as_bytes()).chain(self.labels()))
    }

    /// The name without its first label; `None` of the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let mut labels = self.labels();
        labels.next()?;
        Self::of_labels(labels)
    }

    /// Whether it is that name, or lies below it.
    pub(super) fn is_within(&self, zone: &Name) -> bool {
        let mut at = Some(self.clone());
        while let Some(name) = at {
            if name == *zone {
                return true;
            }
            at = name.parent();
        }
        false
    }

    /// As people and programs write an absolute name: with the dot at its end.
    pub(super) fn absolute(&self) -> String {
        let text = self.to_string();
        if text == "." { text } else { format!("{text}.") }
    }
}

impl fmt::Display for Name {
    /// As in zone files (RFC 1035, section 5.1), without the dot at its end; the root is a dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= 1 {
            return f.write_str(".");
        }
        for (place, label) in self.labels().enumerate() {
            if place > 0 {
                f.write_str(".")?;
            }
            for byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                    b'!'..=b'~' => write!(f, "{}", char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Name {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        let broken = Broken {
            rule: "a DNS name of letters, digits, - and _, at most 63 in a label and 253 in all",
            example: "\"example.org\"",
        };
        let text = text.trim();
        let plain = text.strip_suffix('.').unwrap_or(text);
        let is_fit = |label: &str| label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if plain.is_empty() || !plain.split('.').all(is_fit) {
            return Err(broken);
        }
        Self::of_labels(plain.split('.').map(str::as_bytes)).ok_or(broken)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_absolute_and_in_lower_case() {
        let name: Name = "_acme-challenge.Example.ORG.".parse().unwrap();
        assert_eq!(name.wire(), b"\x0f_acme-challenge\x07example\x03org\0");
        assert_eq!(name.to_string(), "_acme-challenge.example.org");
        assert_eq!(name.absolute(), "_acme-challenge.example.org.");
        assert_eq!(name.parent().unwrap(), "example.org".parse().unwrap());
        assert_eq!("org".parse::<Name>().unwrap().below("a").unwrap().to_string(), "a.org");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(64);
        let whole = "abcdefg.".repeat(32);
        for wrong in ["", ".", "a..b", ".a", "a b", "a/b", "ä.org", "a\\.b", &long, &whole] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong:?}");
        }
        // 31 labels of 8 bytes and one of 6, with the end: 255.
        let longest = format!("{}abcde", "abcdefg.".repeat(31));
        assert_eq!(longest.parse::<Name>().unwrap().wire().len(), MAX_BYTES);
        assert!(longest.parse::<Name>().unwrap().below("a").is_none());
    }

    #[test]
    fn a_zone_holds_itself_and_what_is_below() {
        let zone: Name = "example.org".parse().unwrap();
        assert!(zone.is_within(&zone) && zone.below("a").unwrap().is_within(&zone));
        assert!(!"notexample.org".parse::<Name>().unwrap().is_within(&zone));
        assert!(!"org".parse::<Name>().unwrap().is_within(&zone));
    }

    #[test]
    fn strange_bytes_are_shown_escaped() {
        let name = Name::of_labels([b"a.b\\".as_slice(), b"\0\xff "]).unwrap();
        assert_eq!(name.to_string(), "a\\.b\\\\.\\000\\255\\032");
        assert_eq!(Name::of_labels([]).unwrap().to_string(), ".");
    }
}
