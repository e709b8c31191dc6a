//! Hearth's mesh protocol as pure state machines.
//!
//! Nothing here opens a socket, reads a clock, spawns a task or draws from a global source
//! of randomness: the caller passes in time and input, and takes out frames, records to
//! persist and events. The same inputs give the same outputs, byte for byte.
#![no_std]

extern crate alloc;

pub mod error;
pub mod hlc;
pub mod id;
pub mod liveness;
pub mod roster;
pub mod value;

pub use hlc::Hlc;
pub use id::{Dot, FieldName, HouseholdId, Key, NodeId, ObjectId, Origin, ShortId};
pub use value::Value;
