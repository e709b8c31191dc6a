//! What devices announce, for the adapters that want to hear of it: also of what was announced before they ran.

use tokio::sync::watch;

use super::adapters::{Slot, Slots};
use crate::discovery::Announced;

/// What is announced, as far as it was looked at.
pub(super) struct Hints {
    announced: watch::Receiver<Announced>,
    known: Announced,
}

impl Hints {
    pub(super) fn new(announced: watch::Receiver<Announced>) -> Self {
        Self { announced, known: Announced::new() }
    }

    /// Returns when something else is announced; an error when nothing ever will be.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.announced.changed().await
    }

    /// Looks at what is announced now: each adapter is to hear of what is new to it.
    pub(super) fn look(&mut self, slots: &mut Slots) {
        let now = self.announced.borrow_and_update().clone();
        for (key, _) in now.iter().filter(|(key, hint)| self.known.get(key) != Some(hint)) {
            for slot in slots.values_mut().filter(|slot| wants(slot, &key.0)) {
                slot.unhinted.insert(key.clone());
            }
        }
        self.known = now;
    }

    /// An adapter that begins is to hear of everything.
    pub(super) fn begin(&self, slot: &mut Slot) {
        slot.unhinted = self.known.keys().filter(|(service, _)| wants(slot, service)).cloned().collect();
    }

    /// Tells those that run what they are to hear, as far as there is room.
    pub(super) fn tell(&self, slots: &mut Slots) {
        for slot in slots.values_mut().filter(|slot| !slot.unhinted.is_empty()) {
            let Some((_, to)) = &slot.running else {
                slot.unhinted.clear(); // its next run hears of everything
                continue;
            };
            while let Some(key) = slot.unhinted.pop_first() {
                let Some(hint) = self.known.get(&key) else { continue };
                if to.try_send(hint.clone()).is_err() {
                    slot.unhinted.insert(key);
                    break;
                }
            }
        }
    }
}

fn wants(slot: &Slot, service: &str) -> bool {
    slot.registration.descriptor.mdns.contains(&service)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use device_adapters::Hint;
    use tokio::sync::mpsc;

    use super::*;
    use crate::devices::adapters::slots;

    fn announce(announced: &watch::Sender<Announced>, names: &[&str]) {
        let hint = |name: &&str| {
            let (service, name) = ("_wled._tcp".to_owned(), (*name).to_owned());
            let key = (service.clone(), name.clone());
            (key, Hint { service, name, addresses: Vec::new(), port: 80, txt: BTreeMap::new() })
        };
        announced.send_replace(names.iter().map(hint).collect());
    }

    /// A run of the adapter begins, with room for so many hints.
    fn run(hints: &Hints, slots: &mut Slots, room: usize) -> mpsc::Receiver<Hint> {
        let (to, heard) = mpsc::channel(room);
        let slot = slots.get_mut("wled").unwrap();
        slot.running = Some((mpsc::channel(1).0, to));
        hints.begin(slot);
        heard
    }

    fn heard(hints: &Hints, slots: &mut Slots, from: &mut mpsc::Receiver<Hint>) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            hints.tell(slots);
            match from.try_recv() {
                Ok(hint) => all.push(hint.name),
                Err(_) => return all,
            }
        }
    }

    #[test]
    fn an_adapter_hears_of_what_is_announced_now_and_of_nothing_that_is_gone() {
        let (announced, receiver) = watch::channel(Announced::new());
        let mut slots = slots(device_adapters::registry(), &BTreeMap::new());
        let mut hints = Hints::new(receiver);
        let mut from = run(&hints, &mut slots, 1);
        announce(&announced, &["desk", "hall", "shelf"]);
        hints.look(&mut slots);
        assert_eq!(heard(&hints, &mut slots, &mut from), ["desk", "hall", "shelf"], "with room for one");
        announce(&announced, &["hall", "shelf", "stairs"]);
        hints.look(&mut slots);
        assert_eq!(heard(&hints, &mut slots, &mut from), ["stairs"]);
        let mut from = run(&hints, &mut slots, 4);
        assert_eq!(heard(&hints, &mut slots, &mut from), ["hall", "shelf", "stairs"]);
        assert!(slots.values().all(|slot| slot.unhinted.is_empty()), "others do not wait for it");
    }
}
