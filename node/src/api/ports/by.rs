//! Who gives a command.

use std::net::IpAddr;

/// Who gives a command: it goes with the command to the node that carries it out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct By {
    /// As [`crate::auth::Who`] reads, or `schedule:NAME`, `automation:NAME`, `scene:NAME by WHO`, `adapter:NAME`.
    pub who: String,
    /// The address of the client; it stays on the node that took the command.
    pub from: Option<IpAddr>,
}

impl By {
    /// This one, from no address.
    pub fn name(who: impl Into<String>) -> Self {
        Self { who: who.into(), from: None }
    }

    /// The same by way of a scene.
    #[must_use]
    pub fn through(&self, scene: &str) -> Self {
        Self { who: format!("scene:{scene} by {}", self.who), from: self.from }
    }
}
