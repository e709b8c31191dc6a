//! What the fuzz target `lan` runs of this adapter; built with `--cfg fuzzing`, and for the tests.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;

use crate::model::Change;

use super::parts::Parts;
use super::wire::{self, Answer, Info};

/// Takes what a device says: who it is, its configuration, its status, and then what it tells, a line for each.
///
/// # Panics
/// When a rule is broken: that is what is looked for.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    let info: Info = serde_json::from_str(next()).unwrap_or_default();
    let mut value = || serde_json::from_str::<Value>(next()).unwrap_or_default();
    let (config, status) = (value(), value());
    let _ = wire::sleeps(&status);
    let Ok((mut parts, devices)) = Parts::of(&info, &config, &status, "192.0.2.1") else { return };
    let _ = parts.take(&status, true);
    for line in lines {
        let snapshot = match wire::read(line) {
            Some(Answer::Status { status, is_whole }) => parts.take(&status, is_whole),
            Some(Answer::Events(events)) => Some(parts.events(&events)),
            _ => None,
        };
        let Some(snapshot) = snapshot else { continue };
        let events = snapshot.events.iter().map(|(device, _)| device);
        for device in snapshot.states.keys().chain(snapshot.measured.keys()).chain(events) {
            assert!(
                devices.iter().any(|described| described.id == *device),
                "{device} is shown and not described"
            );
        }
    }
    for device in &devices {
        let _ = parts.change(&device.id, &Change::Switch { on: true });
    }
}
