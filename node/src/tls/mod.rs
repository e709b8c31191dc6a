//! Keys.

pub mod identity;

pub use identity::{IdentityError, NodeIdentity};
