//! An answer as an object `challenge/HASH`, and what the gateways say of themselves and of it.
//!
//! The name is a hash of the challenge, so that it is bounded, valid, and the same for the same challenge.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use mesh_proto::{FieldName, ObjectId, ShortId, Value};

use super::{Answer, owner::Serves};
use crate::{
    service::{Change, ObjectView, Op},
    tls::acme::Domain,
};

/// What the names of answers begin with.
pub(super) const ANSWERS: &str = "challenge/";
/// What the names of the objects begin with that nodes have for their certificates.
pub(super) const GATEWAYS: &str = "certificate/";
/// Longest token; authorities send 22 to 43 letters.
const MAX_TOKEN_BYTES: usize = 256;
/// Longest key authorization: a token, a dot and a thumbprint of SHA-256.
const MAX_AUTHORIZATION_BYTES: usize = MAX_TOKEN_BYTES + 64;
/// Bytes of the hash that are in the name.
const NAME_BYTES: usize = 16;

/// An answer as the household has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub answer: Answer,
    /// Who made it.
    pub by: ShortId,
    /// When it counts no more, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl Entry {
    /// The object's name and what is written to it; none for what no authority may ask.
    pub(super) fn write(&self) -> Option<(ObjectId, Vec<Op>)> {
        let object = is_sound(&self.answer).then(|| name(&self.answer))??;
        let op = Op::Set(object.clone(), FieldName::new("answer").ok()?, self.value());
        Some((object, vec![op]))
    }

    fn value(&self) -> Value {
        let text = |text: &str| Value::from(text);
        let mut fields: BTreeMap<Box<str>, Value> = BTreeMap::from([
            ("challenge".into(), text(self.answer.challenge())),
            ("domain".into(), text(&self.answer.domain().to_string())),
            ("by".into(), text(&self.by.to_string())),
            ("expires".into(), moment(self.expires_ms)),
        ]);
        match &self.answer {
            Answer::Http { token, key_authorization, .. } => {
                fields.insert("token".into(), text(token));
                fields.insert("key_authorization".into(), text(key_authorization));
            }
            Answer::TlsAlpn { digest, .. } => {
                fields.insert("digest".into(), Value::Bytes(digest.as_slice().into()));
            }
        }
        Value::Map(fields)
    }

    /// Reads an object; none for what this version does not know, or what is not called after what it holds.
    pub(super) fn read(object: &ObjectView) -> Option<Self> {
        let value = &object.fields.get(&FieldName::new("answer").ok()?)?.value;
        let text = |name: &str| value.get(name).and_then(Value::as_text);
        let domain: Domain = text("domain")?.parse().ok()?;
        let answer = match text("challenge")? {
            "http-01" => Answer::Http {
                domain,
                token: text("token")?.to_owned(),
                key_authorization: text("key_authorization")?.to_owned(),
            },
            "tls-alpn-01" => {
                let Some(Value::Bytes(digest)) = value.get("digest") else { return None };
                Answer::TlsAlpn { domain, digest: (&**digest).try_into().ok()? }
            }
            _ => return None,
        };
        let expires_ms = u64::try_from(value.get("expires")?.as_int()?).ok()?;
        let is_called_so = is_sound(&answer) && name(&answer).as_ref() == Some(&object.id);
        is_called_so.then_some(Self { answer, by: text("by")?.parse().ok()?, expires_ms })
    }

    /// By this a gateway acknowledges this publication of the answer, and no earlier one.
    pub(super) fn acknowledgement(&self, object: &ObjectId, by: ShortId) -> Option<Op> {
        Some(Op::Set(object.clone(), FieldName::new(&format!("ack.{by}")).ok()?, moment(self.expires_ms)))
    }
}

/// The gateways, and who of them has acknowledged an answer.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    serve: BTreeMap<ShortId, Serves>,
    acknowledged: BTreeSet<ShortId>,
}

impl Gateways {
    /// Takes in a change of the answer's object or of a gateway's.
    pub(super) fn take(&mut self, change: Change, answer: &ObjectId, entry: &Entry) {
        if change.id == *answer {
            let wanted = moment(entry.expires_ms);
            let fields = change.object.into_iter().flat_map(|object| object.fields);
            let said = fields.filter(|(_, field)| field.value == wanted);
            self.acknowledged =
                said.filter_map(|(name, _)| name.as_str().strip_prefix("ack.")?.parse().ok()).collect();
        } else if let Ok(gateway) = change.id.name().parse() {
            let serves = change.object.as_ref().and_then(Serves::read);
            match serves {
                Some(serves) => self.serve.insert(gateway, serves),
                None => self.serve.remove(&gateway),
            };
        }
    }

    /// The gateways that live and answer such challenges and have not acknowledged; none when nobody answers such.
    pub(super) fn missing(&self, lives: impl Fn(ShortId) -> bool, entry: &Entry) -> Option<Vec<ShortId>> {
        let lives =
            |(gateway, serves): &(&ShortId, &Serves)| lives(**gateway) && serves.answers(&entry.answer);
        let mut wanted = self.serve.iter().filter(lives).map(|(gateway, _)| *gateway).peekable();
        wanted.peek()?;
        Some(wanted.filter(|gateway| !self.acknowledged.contains(gateway)).collect())
    }
}

/// The object of an answer.
pub(super) fn name(answer: &Answer) -> Option<ObjectId> {
    let mut hash = blake3::Hasher::new();
    // Neither a challenge nor a domain holds a zero byte.
    for part in [answer.challenge(), answer.domain().base()] {
        hash.update(part.as_bytes()).update(&[0]);
    }
    match answer {
        Answer::Http { token, .. } => hash.update(token.as_bytes()),
        Answer::TlsAlpn { digest, .. } => hash.update(digest),
    };
    let bytes = hash.finalize();
    let name = HEXLOWER.encode(bytes.as_bytes().get(..NAME_BYTES)?);
    ObjectId::new(&format!("{ANSWERS}{name}")).ok()
}

/// Whether an authority may ask for it: both challenges are for one name, and a token is base64url.
fn is_sound(answer: &Answer) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = match answer {
        Answer::Http { token, key_authorization, .. } => {
            (1..=MAX_TOKEN_BYTES).contains(&token.len())
                && token.bytes().all(is_base64url)
                && key_authorization.len() <= MAX_AUTHORIZATION_BYTES
                && key_authorization.bytes().all(|byte| is_base64url(byte) || byte == b'.')
        }
        Answer::TlsAlpn { .. } => true,
    };
    fits && !answer.domain().is_wildcard()
}

fn moment(ms: u64) -> Value {
    Value::Int(i64::try_from(ms).unwrap_or(i64::MAX))
}
