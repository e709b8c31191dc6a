//! Sessions: what a browser has after a sign-in, 256 random bits behind `hths_` in a cookie, kept as objects `session/ID`
//! that hold a hash only, so that every node of the household honours it.
//!
//! A session ends when it was not used for thirty days, ninety days after its beginning, when it is signed out, and
//! when its user is no longer who it was begun as: see [`super::users`]. One that was begun more than a day from now does not count
//! either: by a clock that is years ahead somewhere it would last for years.

use data_encoding::BASE32_NOPAD;
use mesh_proto::{FieldName, ObjectId, Value};

use super::{Secret, clock::written_ms, passwords::HashError, random, users::nonce};
use crate::service::{ObjectView, Op};

/// What every session's secret starts with.
pub const PREFIX: &str = "hths_";
/// A session that was not used for so long is over, in milliseconds.
pub const IDLE_MS: u64 = 30 * DAY_MS;
/// A session is over so long after its beginning, in milliseconds.
pub const ABSOLUTE_MS: u64 = 90 * DAY_MS;
/// Sessions of one user; the one that was not used for longest makes room.
pub const MAX_PER_USER: usize = 16;
/// Sessions of all users: beyond that the one of anybody that was not used for longest makes room.
pub const MAX_SESSIONS: usize = 1_024;
/// Sessions held in memory at most; those beyond are not honoured.
pub(super) const MAX_HELD: usize = 4_096;
/// That a session is used is written this often at most, in milliseconds.
pub(super) const SEEN_EVERY_MS: u64 = 600_000;
/// What is over is deleted so long after, by which time no clock of the home differs about it.
const GRACE_MS: u64 = DAY_MS;
const DAY_MS: u64 = 24 * 3_600_000;

/// A session as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its id, not secret.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last seen used, in milliseconds since 1970; up to twenty minutes late.
    pub seen_ms: u64,
    /// When it is over at the latest, in milliseconds since 1970.
    pub expires_ms: u64,
    /// From which address it was begun.
    pub from: String,
}

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    hash: blake3::Hash,
    pub(super) user: String,
    /// What its user was when it was begun.
    pub(super) basis: String,
    pub(super) created_ms: u64,
    pub(super) from: String,
    pub(super) seen_ms: u64,
}

impl Session {
    /// A new one: its id, its secret, which is shown this once, and what is kept of it.
    pub(super) fn begin(
        user: &str,
        basis: String,
        from: String,
        now_ms: u64,
    ) -> Result<(String, Secret, Self), HashError> {
        let bits = random::<32>().ok_or(HashError::NoRandomness)?;
        let secret = Secret::new(format!("{PREFIX}{}", BASE32_NOPAD.encode(&bits).to_ascii_lowercase()));
        let (user, hash) = (user.to_owned(), hash(&secret));
        Ok((nonce()?, secret, Self { hash, user, basis, created_ms: now_ms, from, seen_ms: now_ms }))
    }

    /// None of what lacks something: the rest may still be on its way.
    pub(super) fn read(object: &ObjectView) -> Option<Self> {
        let field = |name: &str| object.fields.get(&FieldName::new(name).ok()?).map(|field| &field.value);
        let text = |name: &str| field(name).and_then(Value::as_text).map(str::to_owned);
        let instant = |name: &str| field(name).and_then(Value::as_int).and_then(|ms| u64::try_from(ms).ok());
        let Value::Bytes(hash) = field("hash")? else { return None };
        let created_ms = instant("created")?;
        Some(Self {
            hash: blake3::Hash::from_bytes((&**hash).try_into().ok()?),
            user: text("user")?,
            basis: text("basis")?,
            created_ms,
            from: text("from").unwrap_or_default(),
            seen_ms: instant("seen").unwrap_or(0).max(created_ms),
        })
    }

    pub(super) fn ops(&self, id: &str) -> Vec<Op> {
        let fields = [
            ("hash", Value::Bytes(self.hash.as_bytes().as_slice().into())),
            ("user", Value::from(self.user.as_str())),
            ("basis", Value::from(self.basis.as_str())),
            ("created", instant(self.created_ms)),
            ("from", Value::from(self.from.as_str())),
        ];
        fields.into_iter().filter_map(|(name, value)| set(id, name, value)).collect()
    }

    /// Takes in that it is used; the write, if that is worth one.
    pub(super) fn used(&mut self, id: &str, now_ms: u64) -> Option<Op> {
        if now_ms < self.seen_ms.saturating_add(SEEN_EVERY_MS) {
            return None;
        }
        self.seen_ms = now_ms;
        set(id, "seen", instant(now_ms))
    }

    /// Compared in constant time.
    pub(super) fn is_of(&self, hash: &blake3::Hash) -> bool {
        self.hash == *hash
    }

    /// When it is over, unless it is used before.
    pub(super) fn expires_ms(&self) -> u64 {
        self.seen_ms.saturating_add(IDLE_MS).min(self.created_ms.saturating_add(ABSOLUTE_MS))
    }

    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms() || self.created_ms > now_ms.saturating_add(GRACE_MS)
    }

    /// Whether it has been over for so long that nobody disagrees.
    pub(super) fn is_waste(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(GRACE_MS) >= self.expires_ms()
    }

    pub(super) fn view(&self, id: &str) -> SessionView {
        SessionView {
            id: id.to_owned(),
            user: self.user.clone(),
            created_ms: self.created_ms,
            seen_ms: self.seen_ms,
            expires_ms: self.expires_ms(),
            from: self.from.clone(),
        }
    }
}

/// What is kept of a secret.
pub(super) fn hash(secret: &Secret) -> blake3::Hash {
    blake3::hash(secret.expose().as_bytes())
}

pub(super) fn object(id: &str) -> Option<ObjectId> {
    ObjectId::new(&format!("session/{id}")).ok()
}

/// Whether an object that is no session is a leftover: somebody noted its use after it was deleted elsewhere.
pub(super) fn is_leftover(object: &ObjectView, now_ms: u64) -> bool {
    !object.complete && written_ms(object).saturating_add(GRACE_MS) <= now_ms
}

fn instant(ms: u64) -> Value {
    Value::Int(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn set(id: &str, field: &str, value: Value) -> Option<Op> {
    Some(Op::Set(object(id)?, FieldName::new(field).ok()?, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::service::FieldView;

    const NOW: u64 = 1_800_000_000_000;

    fn session() -> (String, Secret, Session) {
        Session::begin("ann", "basis".into(), "10.0.0.1".into(), NOW).unwrap()
    }

    fn written(id: &str, ops: Vec<Op>) -> ObjectView {
        let mut fields = BTreeMap::new();
        for op in ops {
            let Op::Set(_, field, value) = op else { panic!("{op:?}") };
            fields.insert(field, FieldView { value, at_ms: NOW, by: String::new(), durable: true });
        }
        let complete = fields.contains_key(&FieldName::new("hash").unwrap());
        ObjectView { id: object(id).unwrap(), fields, complete }
    }

    #[test]
    fn only_a_hash_of_the_secret_is_kept() {
        let (id, secret, session) = session();
        assert!(secret.expose().starts_with(PREFIX) && secret.expose().len() == PREFIX.len() + 52);
        let object = written(&id, session.ops(&id));
        assert!(!format!("{object:?}{session:?}").contains(&secret.expose()[PREFIX.len()..]));
        let read = Session::read(&object).unwrap();
        assert_eq!(read, session);
        assert!(read.is_of(&hash(&secret)) && !read.is_of(&hash(&Secret::new("hths_other"))));
        for lacks in ["hash", "user", "basis", "created"] {
            let mut part = object.clone();
            part.fields.remove(&FieldName::new(lacks).unwrap());
            assert_eq!(Session::read(&part), None, "{lacks}");
        }
    }

    #[test]
    fn it_ends_by_disuse_and_by_age_and_its_use_is_written_every_ten_minutes() {
        let (id, _, mut session) = session();
        assert!(!session.is_over(NOW + IDLE_MS - 1) && session.is_over(NOW + IDLE_MS));
        assert!(session.used(&id, NOW + SEEN_EVERY_MS - 1).is_none());
        let mut now = NOW;
        while now < NOW + ABSOLUTE_MS {
            assert!(!session.is_over(now));
            assert!(now == NOW || session.used(&id, now).is_some());
            now += IDLE_MS / 2;
        }
        assert!(session.is_over(NOW + ABSOLUTE_MS));
        assert!(!session.is_waste(NOW + ABSOLUTE_MS) && session.is_waste(NOW + ABSOLUTE_MS + GRACE_MS));
        assert!(
            !session.is_over(NOW - GRACE_MS) && session.is_over(NOW - GRACE_MS - 1),
            "nobody began it tomorrow"
        );
        assert!(!session.is_waste(0), "a clock that is not set yet deletes nothing");
    }

    #[test]
    fn what_was_noted_after_a_deletion_is_a_leftover_and_what_is_on_its_way_is_not() {
        let (id, _, mut session) = session();
        let seen = written(&id, session.used(&id, NOW + SEEN_EVERY_MS).into_iter().collect());
        assert!(!is_leftover(&seen, NOW) && is_leftover(&seen, NOW + GRACE_MS));
        assert!(!is_leftover(&written(&id, session.ops(&id)), NOW + 2 * GRACE_MS));
    }
}
