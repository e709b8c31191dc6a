//! Devices and services that speak the public protocols and cannot run here, and misbehave when they are told to; each is
//! proved by a client of somebody else. They listen on loopback and on a free port.

pub mod hue;
pub mod mosquitto;
pub mod name_server;
pub mod running;
pub mod shelly;
pub mod sysfs;
pub mod weather;
pub mod web;
pub mod wled;
pub mod zigbee;
