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
pub mod web;

mod board;
mod call;
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
    Adapter, AdapterError, Context, Descriptor, Directive, Event, Handle, Hint, Reading, Registration, Scope,
    Secret, SettingsError, Shown,
};
pub use call::{Target, call};

/// What the fuzz targets run, by the target's name.
#[cfg(any(fuzzing, test))]
pub mod fuzzing {
    pub use crate::hue::fuzzing::run as hue;
    pub use crate::lifx::fuzzing::run as lifx;
    pub use crate::mqtt::fuzzing::run as mqtt;
    pub use crate::onewire::fuzzing::run as onewire;

    /// What devices with a web server of their own say.
    pub fn lan(data: &[u8]) {
        crate::wled::fuzzing::run(data);
        crate::shelly::fuzzing::run(data);
    }

    /// The answers of services, after four bytes that say at which time.
    pub fn weather(data: &[u8]) {
        if let Some((now, body)) = data.split_first_chunk::<4>() {
            let now = i64::from(u32::from_le_bytes(*now));
            crate::open_meteo::fuzzing::run(now, body);
            crate::met_norway::fuzzing::run(now, body);
        }
    }
}

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
