//! Keys and certificates: the node's own raw key for the mesh, the local authority's
//! certificate for browsers and scripts.

pub mod acme;
pub mod alpn_challenge;
pub mod authority;
pub mod identity;
pub mod local_ca;
pub mod resolver;

pub use identity::{IdentityError, NodeIdentity};
pub use local_ca::{LocalCa, LocalCaError, WallClock, WebNames};
pub use resolver::WebResolver;
