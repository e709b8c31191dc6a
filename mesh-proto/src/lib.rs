//! Hearth's mesh protocol as pure state machines.
//!
//! Nothing here opens a socket, reads a clock, spawns a task or draws from a global source
//! of randomness: the caller passes in time and input, and takes out frames, records to
//! persist and events. The same inputs give the same outputs, byte for byte.
#![no_std]

extern crate alloc;

pub mod collect;
pub mod commit;
pub mod copies;
pub mod counters;
pub mod error;
pub mod hlc;
pub mod id;
pub mod kinds;
pub mod limits;
pub mod liveness;
pub mod merge;
pub mod mesh;
pub mod outbox;
pub mod overlay;
pub mod planted;
pub mod record;
pub mod replica;
pub mod restore;
pub mod roster;
pub mod routing;
pub mod session;
pub mod sync;
pub mod time;
pub mod tree;
pub mod value;
pub mod vector;
pub mod view;
pub mod wire;

pub use hlc::Hlc;
pub use id::{Dot, FieldName, HouseholdId, Key, NodeId, ObjectId, Origin, ShortId};
pub use value::Value;
