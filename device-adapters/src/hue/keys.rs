//! The keys of bridges as one secret setting, and what a bridge is known by.

use std::collections::BTreeMap;
use std::fmt;

use crate::adapter::Secret;
use crate::model::device::Hex;

/// The most bridges of a home.
pub(crate) const MOST_BRIDGES: usize = 16;
/// The longest application key; bridges give 40 characters.
const MOST_KEY: usize = 128;

/// What people must write in the setting `keys`.
pub(crate) const RULE: &str = "a text of BRIDGEID=KEY or BRIDGEID=KEY@PIN, with spaces between several: BRIDGEID has 16 \
                               hexadecimal digits, KEY letters, digits, '-' and '_', PIN 64 hexadecimal digits";

/// The id of a bridge: the EUI-64 of its network card, which is also the common name of its certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BridgeId(u64);

impl BridgeId {
    /// Of 16 hexadecimal digits of either case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for BridgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for BridgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BridgeId({self})")
    }
}

/// The SHA-256 of a bridge's public key (its SubjectPublicKeyInfo, RFC 5280 section 4.1): a pin as in RFC 7469.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin(pub(crate) [u8; 32]);

impl Pin {
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let is_one = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_one {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// What opens one bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The application key.
    pub(crate) key: Secret,
    /// The public key that the bridge had when it gave the key; none where somebody wrote the key by hand, until the
    /// bridge is first spoken to.
    pub(crate) pin: Option<Pin>,
}

/// The keys of all bridges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keyring(BTreeMap<BridgeId, Entry>);

impl Keyring {
    /// Of the setting; none if any part of it breaks [`RULE`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut keys = BTreeMap::new();
        for pair in text.split_ascii_whitespace() {
            let (id, rest) = pair.split_once('=')?;
            let (key, pin) = match rest.split_once('@') {
                Some((key, pin)) => (key, Some(Pin::parse(pin)?)),
                None => (rest, None),
            };
            let entry = Entry { key: Secret(is_key(key).then(|| key.to_owned())?), pin };
            let is_new = keys.insert(BridgeId::parse(id)?, entry).is_none();
            if !is_new || keys.len() > MOST_BRIDGES {
                return None;
            }
        }
        Some(Self(keys))
    }

    /// As the setting; [`Keyring::parse`] reads it back.
    pub(crate) fn to_secret(&self) -> Secret {
        let pairs = self.0.iter().map(|(id, entry)| match entry.pin {
            Some(pin) => format!("{id}={}@{pin}", entry.key.0),
            None => format!("{id}={}", entry.key.0),
        });
        Secret(pairs.collect::<Vec<_>>().join(" "))
    }

    /// Of one bridge.
    pub(crate) fn get(&self, id: BridgeId) -> Option<&Entry> {
        self.0.get(&id)
    }

    /// The bridges that there is a key of.
    pub(crate) fn bridges(&self) -> impl Iterator<Item = BridgeId> {
        self.0.keys().copied()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds or replaces; false when there are too many.
    pub(crate) fn insert(&mut self, id: BridgeId, entry: Entry) -> bool {
        let fits = self.0.len() < MOST_BRIDGES || self.0.contains_key(&id);
        if fits {
            self.0.insert(id, entry);
        }
        fits
    }
}

/// Whether a text can be an application key: bridges give letters, digits and `-`.
pub(crate) fn is_key(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MOST_KEY).contains(&text.len()) && text.bytes().all(allowed)
}
