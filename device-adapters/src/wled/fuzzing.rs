//! What the fuzz target `lan` runs of this adapter; built with `--cfg fuzzing`, and for the tests.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use crate::model::{ColorMode, LightChange};

use super::names::Names;
use super::wire::{self, StateAndInfo};

/// Takes what a board says of itself.
///
/// # Panics
/// When a rule is broken: that is what is looked for.
pub(crate) fn run(data: &[u8]) {
    let Ok(both) = serde_json::from_slice::<StateAndInfo>(data) else { return };
    let names = Names::new(vec!["Solid".to_owned(), "Blink".to_owned()], vec!["Default".to_owned()]);
    let Ok(devices) = wire::describe(&both, &names, "192.0.2.1") else { return };
    let snapshot = wire::snapshot(&both, &names).expect("what can be described can be shown");
    for device in snapshot.states.keys() {
        assert!(
            devices.iter().any(|described| described.id == *device),
            "{device} is shown and not described"
        );
    }
    let change = LightChange {
        on: Some(true),
        brightness: Some(9_000),
        color: Some(ColorMode::Temperature { kelvin: 3_000 }),
        effect: Some("Blink".to_owned()),
        transition_ms: u32::MAX,
        ..LightChange::default()
    };
    for device in devices {
        let _ = wire::change(&both, &names, &device.id, &change);
    }
}
