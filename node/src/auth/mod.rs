//! Who may take part: invites, the exchange in which a new node redeems one, bearer tokens and
//! the setup code.

pub mod admission;
pub mod exchange;
pub mod invite;
pub mod join;
mod secret;
pub mod setup;
pub mod token;
pub mod tokens;

#[cfg(test)]
mod tests;

pub use admission::{AdmitRequest, InviteDesk, JoinCounters, serve_joins};
pub use exchange::Refusal;
pub use invite::{BookError, InviteBook, InviteError, InviteInfo};
pub use join::{JoinError, Joined, join};
pub use secret::Secret;
use secret::random;
pub use token::{InviteToken, TokenError, TokenId};
