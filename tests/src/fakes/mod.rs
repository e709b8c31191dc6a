//! Devices and services that speak the public protocols, and misbehave when they are told to.

pub mod mosquitto;
pub mod sysfs;
pub mod zigbee;
