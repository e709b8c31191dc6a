//! What devices announce, for the adapters that want to hear of it: also of what was announced before they ran.

use std::collections::BTreeMap;

use device_adapters::Hint;

use super::Devices;
use crate::discovery::Announced;

/// Most announcements that are remembered; a home has a hundred devices.
const MAX_HINTS: usize = 512;

/// What is announced at the moment, by type and name.
pub(super) type Hints = BTreeMap<(String, String), Hint>;

impl Devices {
    /// A device announced itself, or is gone.
    pub(super) fn announced(&mut self, announced: Announced) {
        match announced {
            Announced::Gone { service, name } => drop(self.hints.remove(&(service, name))),
            Announced::Here(hint) => {
                let key = (hint.service.clone(), hint.name.clone());
                if self.hints.len() >= MAX_HINTS && !self.hints.contains_key(&key) {
                    return tracing::debug!(name = %hint.name, "too many devices announce themselves: one is passed over");
                }
                for slot in self.slots.values() {
                    let wants = slot.registration.descriptor.mdns.contains(&hint.service.as_str());
                    if let Some((_, hints)) = slot.running.as_ref().filter(|_| wants) {
                        // An adapter that is full hears of it at its next start, or at the next announcement.
                        let _ = hints.try_send(hint.clone());
                    }
                }
                self.hints.insert(key, hint);
            }
        }
    }

    /// An adapter that begins hears of what was announced before.
    pub(super) fn hint_all(&self, adapter: &str) {
        let Some(slot) = self.slots.get(adapter) else { return };
        let Some((_, hints)) = &slot.running else { return };
        let wanted = slot.registration.descriptor.mdns;
        for hint in self.hints.values().filter(|hint| wanted.contains(&hint.service.as_str())) {
            let _ = hints.try_send(hint.clone()); // as above
        }
    }
}
