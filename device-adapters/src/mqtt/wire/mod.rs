//! What travels over MQTT, as pure functions: announcements, states and commands.

pub(crate) mod abbreviations;
pub(crate) mod body;
pub(crate) mod colors;
pub(crate) mod discovery;
pub(crate) mod fields;
pub(crate) mod incoming;
pub(crate) mod light;
