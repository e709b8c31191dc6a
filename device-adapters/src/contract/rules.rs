//! What the live check judges by what it saw alone.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::Registration;
use crate::model::{
    Description,
    sensor::{MOST_SENSORS, is_sensor_key},
};

/// Checks what an adapter says of a device that it found.
pub(super) fn describes(registration: &Registration, found: &Description) -> Result<(), String> {
    let id = registration.descriptor.id;
    let prefix = format!("{}-", id.replace('_', "-"));
    if found.adapter != id {
        return Err(format!("{} says that it is of {:?}", found.id, found.adapter));
    }
    if !found.id.as_str().starts_with(&prefix) {
        return Err(format!("the id {} does not begin with {prefix:?}", found.id));
    }
    if found.model.trim().is_empty() {
        return Err(format!("{} has no model", found.id));
    }
    if found.sensors.len() > MOST_SENSORS {
        return Err(format!("{} has {} sensors, more than {MOST_SENSORS}", found.id, found.sensors.len()));
    }
    match found.sensors.keys().find(|key| !is_sensor_key(key)) {
        Some(key) => Err(format!("{} has a sensor {key:?}: 1 to 48 bytes of a-z, 0-9 and '_'", found.id)),
        None => Ok(()),
    }
}

/// The most that happened in any second of these moments, oldest first.
pub(super) fn most_in_a_second(moments: &[Instant]) -> usize {
    let (mut second, mut most) = (VecDeque::new(), 0);
    for at in moments {
        second.push_back(*at);
        while second.front().is_some_and(|first| *first + Duration::from_secs(1) <= *at) {
            second.pop_front();
        }
        most = most.max(second.len());
    }
    most
}
