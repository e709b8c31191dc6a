//! Who may take part: invites, and the exchange in which a new node redeems one.

pub mod admission;
pub mod exchange;
pub mod invite;
pub mod join;
pub mod token;

#[cfg(test)]
mod tests;

pub use admission::{AdmitRequest, InviteDesk, JoinCounters, serve_joins};
pub use exchange::Refusal;
pub use invite::{BookError, InviteBook, InviteError, InviteInfo};
pub use join::{JoinError, Joined, join};
pub use token::{InviteToken, TokenError, TokenId};
