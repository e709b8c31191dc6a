//! Fakes of devices and services that cannot run here, written from their public protocols; each is proved by a client
//! of somebody else. They listen on loopback and on a free port.

pub mod weather;
