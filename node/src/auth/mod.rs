//! Who may take part: invites, and the exchange in which a new node redeems one; bearer tokens for programs; people with
//! their passwords and sessions, and the one-time setup code that makes the first of them.

pub mod admission;
pub(crate) mod attempts;
pub mod backoff;
mod clock;
pub mod exchange;
mod follower;
pub mod invite;
pub mod join;
pub mod jwt;
pub mod passwords;
pub mod people;
pub mod role;
pub mod scope;
pub mod sessions;
pub mod setup;
pub mod token;
pub mod tokens;
pub mod users;
pub mod who;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Deserializer, de::Error as _};
use zeroize::Zeroize as _;

pub use admission::{AdmitRequest, InviteDesk, JoinCounters, serve_joins};
pub use exchange::Refusal;
pub use invite::{BookError, InviteBook, InviteError, InviteInfo, Moment};
pub use join::{JoinError, Joined, join, join_over};
pub use scope::Scope;
pub use token::{InviteToken, TokenError, TokenId};
pub use who::Who;

/// Text that must never reach a log, an error or `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; the caller answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    /// Nothing of it stays in memory that is given back.
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// The error of a wrong type does not repeat what was given.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(from)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("must be text")),
        }
    }
}

/// Random bytes from the operating system; `None` when it has none to give.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}
