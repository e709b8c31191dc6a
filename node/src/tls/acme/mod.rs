//! Public certificates by ACME (RFC 8555): each gateway node orders its own, with its own key.

pub mod answers;
pub mod der;
pub mod dns;
pub mod names;

pub use names::Domain;
