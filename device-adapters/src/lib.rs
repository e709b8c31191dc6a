//! The device model, the adapter contract, and one folder for each kind of hardware.
//!
//! An adapter turns one LAN protocol, bus or web service into [`Reading`]s and carries out
//! [`Directive`]s. It knows nothing of meshes, objects or nodes: the node that runs it turns its
//! readings into objects and decides who owns what.
//!
//! # How to add an adapter
//!
//! 1. Make a folder `src/NAME/` with three files: `wire.rs` (the bytes; pure), a pure state machine
//!    that takes the time as an argument and yields messages, readings and its next timeout (see
//!    `src/lifx/driver.rs`), and `mod.rs` (the sockets, and nothing else).
//! 2. In `mod.rs` write the [`Descriptor`], with a JSON schema of the settings in which every key
//!    has a `description`, and a `build` function that checks the settings (`settings::Settings`
//!    does the common part and names the key that is wrong).
//! 3. Implement [`Adapter`]. The rules that are easy to get wrong:
//!    - an acknowledgement is never a confirmation: send [`Stage::Confirmed`](model::Stage) only for a
//!      state that was *asked for after* the device acknowledged the newest change, and report with
//!      [`Source::Assumed`](model::Source) where nothing reads back;
//!    - commands are absolute and may be repeated; a newer one supersedes an older one at once;
//!    - every command ends in exactly one final stage, at the latest at its deadline;
//!    - only owned devices are polled and commanded; all reachable ones are found;
//!    - what the network sends never panics, and no table grows without a bound.
//! 4. Add one line to [`registry`].
//! 5. In `tests.rs` call every check of [`contract`], test the state machine without sockets, and
//!    add an end-to-end test against the real peer to the `tests` crate.

pub mod adapter;
pub mod contract;
pub mod model;

mod http;
mod lifx;
mod net;
mod settings;

pub use adapter::{
    Adapter, AdapterError, Context, Descriptor, Directive, Handle, Hint, Reading, Registration, Scope,
    Secret, SettingsError, Shown,
};
#[cfg(any(fuzzing, test))]
pub use lifx::fuzzing as lifx_fuzzing;

/// Every adapter there is.
#[must_use]
pub fn registry() -> &'static [Registration] {
    const REGISTRY: &[Registration] = &[lifx::REGISTRATION];
    REGISTRY
}

/// The adapter of that id, if there is one.
#[must_use]
pub fn find(id: &str) -> Option<&'static Registration> {
    registry().iter().find(|registration| registration.descriptor.id == id)
}
