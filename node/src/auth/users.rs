//! Users: people who sign in by name and password, kept as objects `user/NAME`.
//!
//! What an admin decides of somebody is one field, `account`, so that no mix of two decisions can come about when two
//! nodes take one each. The `password` is another, since its owner changes it: in one field with the role, a changed password
//! could bring back the role that an admin took away at the same time elsewhere. It names the account that it was made
//! for, by the account's random id: of two people who were given the same name at once one is left, and when
//! the other's password is, it opens nothing.
//!
//! Both carry a random `epoch`, and so does the object as a whole. A session counts while all three are those that it was
//! begun under: a change of role, scope or password and a sign-out everywhere end it without a clock being asked,
//! and a user who was deleted and made again inherits none.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use mesh_proto::{FieldName, ObjectId, Value};
use thiserror::Error;

use super::{
    Scope,
    passwords::{HashError, PasswordHash, PasswordRule},
    random,
    tokens::Role,
};
use crate::service::{ObjectView, Op, ServiceError};

/// So many users can be made; more that come from other nodes are still known, to a bound.
pub const MAX_USERS: usize = 256;
/// Users held in memory at most; those beyond cannot sign in.
pub(super) const MAX_HELD: usize = 1_024;
/// Longest name.
pub const MAX_NAME_BYTES: usize = 32;
/// What a person may be.
const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];
/// Entries of a scope at most, the longest of them in bytes, and all of them: an account is one value.
const MAX_SCOPE: (usize, usize, usize) = (64, 129, 2_048);

/// A user as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserView {
    /// The name.
    pub name: String,
    /// What the person may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// Whether the person may sign in.
    pub enabled: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Sessions that count now.
    pub sessions: usize,
}

/// What of a user is to be other than it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserChange {
    /// What the person may do.
    pub role: Option<Role>,
    /// Where.
    pub scope: Option<Scope>,
    /// Whether the person may sign in.
    pub enabled: Option<bool>,
}

/// Why nothing was done for or about a user; nothing has changed, except as [`ServiceError`] says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UserError {
    /// A name that breaks its rule.
    #[error("a user's name has 1 to {MAX_NAME_BYTES} of a-z, 0-9, `.`, `_` and `-`")]
    Name,
    /// A role that people do not have.
    #[error("a person is viewer, operator or admin")]
    Role,
    /// A scope that breaks a rule.
    #[error("{0}")]
    Scope(&'static str),
    /// A password that breaks a rule.
    #[error(transparent)]
    Password(#[from] PasswordRule),
    /// The name is taken.
    #[error("there is a user of that name")]
    Taken,
    /// The bound is reached.
    #[error("there are {MAX_USERS} users already")]
    TooMany,
    /// No such user.
    #[error("there is no user of that name")]
    NotFound,
    /// No such session.
    #[error("there is no session of that id")]
    NoSession,
    /// Nobody could administer the home over the network any more.
    #[error("this is the last admin who can sign in")]
    LastAdmin,
    /// The wrong name, the wrong password, or an account that is disabled: nobody is told which.
    #[error("the name or the password is wrong")]
    Wrong,
    /// Too many wrong passwords.
    #[error("too many wrong passwords were tried")]
    Paced {
        /// Seconds until the next try may come.
        retry_after_s: u64,
    },
    /// The password was not hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The event loop says no.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// Refuses what is no name for a user.
///
/// # Errors
/// [`UserError::Name`].
pub fn check_name(name: &str) -> Result<(), UserError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let good = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed);
    if good { Ok(()) } else { Err(UserError::Name) }
}

/// Refuses a role that people do not have, and a scope that is too long or does not go with the role.
///
/// # Errors
/// [`UserError::Role`], [`UserError::Scope`].
pub fn check_grant(role: Role, scope: &Scope) -> Result<(), UserError> {
    if !ROLES.contains(&role) {
        return Err(UserError::Role);
    }
    if role == Role::Admin && !scope.is_whole() {
        return Err(UserError::Scope("an admin is not confined to a part of the home"));
    }
    let (most, longest, in_all) = MAX_SCOPE;
    let good = |text: &&String| (1..=longest).contains(&text.len()) && !text.chars().any(char::is_control);
    let entries = || [&scope.prefixes, &scope.areas, &scope.devices].into_iter().flatten();
    if entries().count() <= most
        && entries().all(|e| good(&e))
        && entries().map(String::len).sum::<usize>() <= in_all
    {
        return Ok(());
    }
    Err(UserError::Scope(
        "a scope has at most 64 entries of 1 to 129 bytes, 2048 in all, without control characters",
    ))
}

/// Eight random bytes in hexadecimal.
///
/// # Errors
/// [`HashError::NoRandomness`].
pub(super) fn nonce() -> Result<String, HashError> {
    random::<8>().map(|bytes| HEXLOWER.encode(&bytes)).ok_or(HashError::NoRandomness)
}

/// What an admin decided of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// Random: another person of the same name has another.
    pub(super) id: String,
    pub(super) role: Role,
    pub(super) scope: Scope,
    pub(super) enabled: bool,
    pub(super) created_ms: u64,
    epoch: String,
}

impl Account {
    pub(super) fn new(role: Role, scope: Scope, created_ms: u64) -> Result<Self, HashError> {
        Ok(Self { id: nonce()?, role, scope, enabled: true, created_ms, epoch: nonce()? })
    }

    /// The same with what is to be other; what was begun under the old one counts no more.
    pub(super) fn changed(&self, change: UserChange) -> Result<Self, HashError> {
        let UserChange { role, scope, enabled } = change;
        Ok(Self {
            role: role.unwrap_or(self.role),
            scope: scope.unwrap_or_else(|| self.scope.clone()),
            enabled: enabled.unwrap_or(self.enabled),
            epoch: nonce()?,
            ..self.clone()
        })
    }

    fn to_value(&self) -> Value {
        let texts =
            |list: &[String]| Value::List(list.iter().map(|text| Value::from(text.as_str())).collect());
        map([
            ("id", Value::from(self.id.as_str())),
            ("role", Value::from(self.role.as_str())),
            ("prefixes", texts(&self.scope.prefixes)),
            ("areas", texts(&self.scope.areas)),
            ("devices", texts(&self.scope.devices)),
            ("enabled", Value::from(self.enabled)),
            ("created", Value::Int(i64::try_from(self.created_ms).unwrap_or(i64::MAX))),
            ("epoch", Value::from(self.epoch.as_str())),
        ])
    }

    /// None of what this version does not understand: an account opens what it says, or nothing.
    fn read(value: &Value) -> Option<Self> {
        let Value::Map(map) = value else { return None };
        let texts = |name: &str| -> Option<Vec<String>> {
            let Value::List(list) = map.get(name)? else { return None };
            list.iter().map(|text| text.as_text().map(str::to_owned)).collect()
        };
        let scope =
            Scope { prefixes: texts("prefixes")?, areas: texts("areas")?, devices: texts("devices")? };
        let role = map.get("role")?.as_text()?.parse().ok()?;
        check_grant(role, &scope).ok()?;
        Some(Self {
            id: text(map, "id")?,
            role,
            scope,
            enabled: *map.get("enabled")? == Value::from(true),
            created_ms: map.get("created")?.as_int().and_then(|ms| u64::try_from(ms).ok())?,
            epoch: text(map, "epoch")?,
        })
    }
}

/// The password of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credential {
    /// Of which account.
    account: String,
    epoch: String,
    hash: PasswordHash,
}

impl Credential {
    pub(super) fn new(account: &Account, hash: PasswordHash) -> Result<Self, HashError> {
        Ok(Self { account: account.id.clone(), epoch: nonce()?, hash })
    }

    fn to_value(&self) -> Value {
        map([
            ("id", Value::from(self.account.as_str())),
            ("epoch", Value::from(self.epoch.as_str())),
            ("hash", Value::from(self.hash.to_text().as_str())),
        ])
    }

    fn read(value: &Value) -> Option<Self> {
        let Value::Map(map) = value else { return None };
        let hash = PasswordHash::parse(map.get("hash")?.as_text()?)?;
        Some(Self { account: text(map, "id")?, epoch: text(map, "epoch")?, hash })
    }
}

/// Somebody who may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) account: Account,
    /// None opens nothing.
    credential: Option<Credential>,
    /// The same password, hashed anew as is usual today. A field of its own, so that it can never bring back
    /// a password that was changed elsewhere meanwhile.
    rehashed: Option<Credential>,
    /// Another after each sign-out everywhere.
    epoch: String,
}

impl User {
    pub(super) fn new(account: Account, credential: Credential) -> Result<Self, HashError> {
        Ok(Self { account, credential: Some(credential), rehashed: None, epoch: nonce()? })
    }

    pub(super) fn read(object: &ObjectView) -> Option<Self> {
        let field = |name: &str| object.fields.get(&FieldName::new(name).ok()?).map(|field| &field.value);
        let account = Account::read(field("account")?)?;
        let credential = field("password").and_then(Credential::read);
        let credential = credential.filter(|found| found.account == account.id);
        let rehashed = field("rehashed").and_then(Credential::read);
        let rehashed = rehashed.filter(|found| {
            credential
                .as_ref()
                .is_some_and(|set| (&set.account, &set.epoch) == (&found.account, &found.epoch))
        });
        let epoch = field("epoch").and_then(Value::as_text).unwrap_or_default().to_owned();
        Some(Self { account, credential, rehashed, epoch })
    }

    /// What a password is compared with, if the person may sign in.
    pub(super) fn hash(&self) -> Option<&PasswordHash> {
        let set = self.credential.as_ref()?;
        Some(self.rehashed.as_ref().map_or(&set.hash, |rehashed| &rehashed.hash))
    }

    pub(super) fn can_sign_in(&self) -> bool {
        self.account.enabled && self.credential.is_some()
    }

    /// The writes of all of it.
    pub(super) fn ops(&self, name: &str) -> Vec<Op> {
        let mut ops = self.account_ops(name);
        if let Some(credential) = &self.credential {
            ops.extend(set(name, "password", credential.to_value()));
        }
        ops.extend(set(name, "epoch", Value::from(self.epoch.as_str())));
        ops
    }

    pub(super) fn account_ops(&self, name: &str) -> Vec<Op> {
        set(name, "account", self.account.to_value()).into_iter().collect()
    }

    pub(super) fn set_password(&mut self, name: &str, hash: PasswordHash) -> Result<Vec<Op>, HashError> {
        let credential = Credential::new(&self.account, hash)?;
        let ops = set(name, "password", credential.to_value());
        (self.credential, self.rehashed) = (Some(credential), None);
        Ok(ops.into_iter().collect())
    }

    /// The same password under a new hash.
    pub(super) fn rehash(&mut self, name: &str, hash: PasswordHash) -> Vec<Op> {
        let Some(set_by_person) = &self.credential else { return Vec::new() };
        let rehashed = Credential { hash, ..set_by_person.clone() };
        let ops = set(name, "rehashed", rehashed.to_value());
        self.rehashed = Some(rehashed);
        ops.into_iter().collect()
    }

    /// Ends every session, also those that this node has not heard of.
    pub(super) fn sign_out(&mut self, name: &str) -> Result<Vec<Op>, HashError> {
        self.epoch = nonce()?;
        Ok(set(name, "epoch", Value::from(self.epoch.as_str())).into_iter().collect())
    }

    /// What a session of now is begun under.
    pub(super) fn basis(&self) -> Option<String> {
        let credential = self.credential.as_ref().filter(|_| self.account.enabled)?;
        let parts = [&self.account.id, &self.account.epoch, &credential.epoch, &self.epoch];
        let mut hasher = blake3::Hasher::new_derive_key("hearth 2026-11 basis of a session");
        for part in parts {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Some(hasher.finalize().to_hex().to_string())
    }
}

pub(super) fn object(name: &str) -> Option<ObjectId> {
    ObjectId::new(&format!("user/{name}")).ok()
}

fn set(name: &str, field: &str, value: Value) -> Option<Op> {
    Some(Op::Set(object(name)?, FieldName::new(field).ok()?, value))
}

fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn text<K: Ord + std::borrow::Borrow<str>>(map: &BTreeMap<K, Value>, name: &str) -> Option<String> {
    map.get(name)?.as_text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::service::FieldView;

    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$4444444444444444444444444444444444444444444";

    fn hash() -> PasswordHash {
        PasswordHash::parse(HASH).unwrap()
    }

    fn user(role: Role) -> User {
        let account = Account::new(role, Scope::default(), 5).unwrap();
        let credential = Credential::new(&account, hash()).unwrap();
        User::new(account, credential).unwrap()
    }

    /// The object after these writes.
    fn written(ops: &[Op]) -> ObjectView {
        let mut fields = BTreeMap::new();
        for op in ops {
            let Op::Set(_, field, value) = op else { panic!("{op:?}") };
            let view = FieldView { value: value.clone(), at_ms: 1, by: String::new(), durable: true };
            fields.insert(field.clone(), view);
        }
        ObjectView { id: object("ann").unwrap(), fields, complete: true }
    }

    #[test]
    fn names_and_scopes_have_rules() {
        for good in ["a", "ann", "ann.b-c_9", &"x".repeat(32)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "Ann", "a b", "a/b", "ä", "a:b", &"x".repeat(33), "a\n"] {
            assert_eq!(check_name(bad), Err(UserError::Name), "{bad}");
        }
        let scope = |text: &str| Scope { areas: vec![text.into()], ..Scope::default() };
        assert!(check_grant(Role::Viewer, &scope("hall")).is_ok());
        for (role, bad) in [(Role::Admin, "hall"), (Role::Viewer, ""), (Role::Viewer, "a\nb")] {
            assert!(matches!(check_grant(role, &scope(bad)), Err(UserError::Scope(_))), "{bad:?}");
        }
        let long = Scope { devices: vec!["x".into(); 65], ..Scope::default() };
        assert!(matches!(check_grant(Role::Viewer, &long), Err(UserError::Scope(_))));
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_understood_opens_nothing() {
        let ann = user(Role::Operator);
        let object = written(&ann.ops("ann"));
        assert_eq!(User::read(&object), Some(ann.clone()));
        assert!(ann.can_sign_in() && ann.basis().is_some());
        for (member, value) in [
            ("role", Value::from("king")),
            ("role", Value::Int(3)),
            ("areas", Value::from("hall")),
            ("id", Value::Null),
            ("created", Value::Int(-1)),
        ] {
            let mut wrong = object.clone();
            let account = wrong.fields.get_mut(&FieldName::new("account").unwrap()).unwrap();
            let Value::Map(map) = &mut account.value else { panic!() };
            map.insert(member.into(), value);
            assert_eq!(User::read(&wrong), None, "{member}");
        }
        let costly = HASH.replace("m=19456", "m=4194304");
        let mut wrong = object;
        let password = wrong.fields.get_mut(&FieldName::new("password").unwrap()).unwrap();
        let Value::Map(map) = &mut password.value else { panic!() };
        map.insert("hash".into(), Value::from(costly.as_str()));
        assert!(!User::read(&wrong).unwrap().can_sign_in());
    }

    #[test]
    fn fields_of_two_people_of_one_name_do_not_mix() {
        let (ann, other) = (user(Role::Admin), user(Role::Viewer));
        let mut ops = ann.ops("ann");
        ops[1] = other.ops("ann")[1].clone();
        let mixed = User::read(&written(&ops)).unwrap();
        assert!(!mixed.can_sign_in() && mixed.hash().is_none() && mixed.basis().is_none());
    }

    #[test]
    fn each_change_ends_the_sessions_and_a_rehash_does_not() {
        let mut ann = user(Role::Operator);
        let mut seen = vec![ann.basis().unwrap()];
        let mut is_new = |user: &User| {
            let basis = user.basis().unwrap();
            let new = !seen.contains(&basis);
            seen.push(basis);
            new
        };
        let role = |role| UserChange { role: Some(role), ..UserChange::default() };
        ann.account = ann.account.changed(role(Role::Viewer)).unwrap();
        assert!(is_new(&ann));
        ann.account = ann.account.changed(role(Role::Operator)).unwrap();
        assert!(is_new(&ann), "what was ended stays so when the role comes back");
        ann.set_password("ann", hash()).unwrap();
        assert!(is_new(&ann));
        ann.sign_out("ann").unwrap();
        assert!(is_new(&ann));
        ann.rehash("ann", hash());
        assert!(!is_new(&ann));
        let off = UserChange { enabled: Some(false), ..UserChange::default() };
        ann.account = ann.account.changed(off).unwrap();
        assert!(ann.basis().is_none() && !ann.can_sign_in());
    }

    #[test]
    fn a_late_rehash_does_not_bring_an_old_password_back() {
        let mut here = user(Role::Viewer);
        let mut ops = here.ops("ann");
        let old = here.rehash("ann", hash());
        let new = PasswordHash::parse(&HASH.replace("c2Fsd", "d2Fsd")).unwrap();
        ops[1] = here.set_password("ann", new.clone()).unwrap().remove(0);
        ops.extend(old);
        assert_eq!(User::read(&written(&ops)).unwrap().hash(), Some(&new));
    }
}
