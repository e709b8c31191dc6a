//! To which part of the home a client is confined.

/// A part of the home; by default all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Objects, by the prefixes of their names.
    pub prefixes: Vec<String>,
    /// Devices of these areas.
    pub areas: Vec<String>,
    /// Devices, by the names of their objects without `device/`.
    pub devices: Vec<String>,
}

impl Scope {
    /// Whether it is all of the home.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }
}
