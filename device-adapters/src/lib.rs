//! The device model, the adapter contract, and one folder for each kind of hardware.
//!
//! An adapter turns one LAN protocol, bus or web service into [`Reading`]s and carries out
//! [`Directive`]s. It knows nothing of meshes, objects or nodes: the node that runs it turns its
//! readings into objects and decides who owns what.
//!
//! CONTRIBUTING.md says how to add one in an hour.

pub mod adapter;
pub mod contract;
pub mod model;
pub mod schedule;

mod board;
mod digest;
mod ending;
mod gpio;
mod http;
mod hue;
mod iio;
mod lan;
mod lifx;
mod met_norway;
mod mqtt;
mod net;
mod onewire;
mod open_meteo;
mod press;
mod settings;
mod shelly;
mod sysfs_led;
mod weather;
mod websocket;
mod wled;
pub use adapter::{
    Adapter, AdapterError, Context, Descriptor, Directive, Handle, Hint, Reading, Registration, Scope,
    Secret, SettingsError, Shown,
};
#[cfg(any(fuzzing, test))]
pub use lifx::fuzzing as lifx_fuzzing;

/// Every adapter there is.
#[must_use]
pub fn registry() -> &'static [Registration] {
    const REGISTRY: &[Registration] = &[
        gpio::REGISTRATION,
        hue::REGISTRATION,
        iio::REGISTRATION,
        lifx::REGISTRATION,
        met_norway::REGISTRATION,
        mqtt::REGISTRATION,
        onewire::REGISTRATION,
        open_meteo::REGISTRATION,
        shelly::REGISTRATION,
        sysfs_led::REGISTRATION,
        wled::REGISTRATION,
    ];
    REGISTRY
}

/// The adapter of that id, if there is one.
#[must_use]
pub fn find(id: &str) -> Option<&'static Registration> {
    registry().iter().find(|registration| registration.descriptor.id == id)
}
