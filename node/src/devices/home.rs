//! Shows the devices of the home to adapters that pass them on to somebody else, and takes the wishes that come back.

use device_adapters::{
    Directive, Event, Shown,
    model::{Availability, Change as Wanted, ColorMode, DeviceId},
};
use tokio::sync::{mpsc::error::TrySendError, oneshot};

use super::{Devices, described::description, table::Device};
use crate::{
    api::ports::{By, Change, Color, CommandRequest, Power},
    automation::events::is_internal,
    service::ObjectView,
};

/// How long what somebody else wishes may take, in milliseconds.
const WISH_MS: u32 = 5_000;
/// Events that wait for a slow adapter.
const MAX_UNTOLD: usize = 64;

impl Devices {
    /// A device changed: it is shown to whoever wants to see it.
    pub(super) fn show(&mut self, id: &DeviceId) {
        for slot in self.slots.values_mut().filter(|slot| slot.shows_home()) {
            slot.unshown.insert(id.clone());
        }
    }

    /// An adapter that begins is shown everything.
    pub(super) fn show_all(&mut self, adapter: &str) {
        let Some(slot) = self.slots.get_mut(adapter).filter(|slot| slot.shows_home()) else { return };
        slot.unshown = self.devices.keys().cloned().collect();
    }

    /// Shows what waits to be shown, as far as there is room.
    pub(super) fn show_on(&mut self) {
        for slot in self.slots.values_mut().filter(|slot| !slot.unshown.is_empty()) {
            let Some((to, _)) = &slot.running else {
                slot.unshown.clear(); // its next run is shown everything
                continue;
            };
            while let Some(id) = slot.unshown.pop_first() {
                let known = self.devices.get(&id).and_then(shown);
                let directive = match known {
                    Some(shown) => Directive::Show(Box::new(shown)),
                    None => Directive::Hide { device: id.clone() },
                };
                if to.try_send(directive).is_err() {
                    slot.unshown.insert(id);
                    break;
                }
            }
        }
    }

    /// Something happened: it is told to whoever shows the home. Where that is slow the oldest are forgotten.
    pub(super) fn hear(&mut self, event: &ObjectView) {
        let Some(event) = told(event) else { return };
        for slot in self.slots.values_mut().filter(|slot| slot.shows_home()) {
            if slot.untold.len() >= MAX_UNTOLD {
                slot.untold.pop_front();
            }
            slot.untold.push_back(event.clone());
        }
    }

    /// Tells what waits to be told, as far as there is room.
    pub(super) fn tell_on(&mut self) {
        for slot in self.slots.values_mut().filter(|slot| !slot.untold.is_empty()) {
            let Some((to, _)) = &slot.running else {
                slot.untold.clear(); // nobody keeps what happened
                continue;
            };
            while let Some(event) = slot.untold.pop_front() {
                if let Err(TrySendError::Full(Directive::Tell(event))) = to.try_send(Directive::Tell(event)) {
                    slot.untold.push_front(event);
                    break;
                }
            }
        }
    }

    /// An adapter says that something happened.
    pub(super) fn publish(&self, adapter: &str, event: Event) {
        let (happenings, adapter) = (self.happenings.clone(), adapter.to_owned());
        tokio::spawn(async move {
            let Event { topic, data } = event;
            if let Err(refused) = happenings.publish(topic, data).await {
                tracing::debug!(%adapter, %refused, "what an adapter said that happened is not told");
            }
        });
    }

    /// Somebody else wants a device changed. What becomes of it shows in the device.
    pub(super) fn wish(&mut self, adapter: &str, id: &DeviceId, change: &Wanted) {
        let Some(device) = self.devices.get(id).filter(|device| device.is_known) else {
            return tracing::debug!(adapter, device = %id, "a wish for a device that is not there");
        };
        let (change, by) = (from_model(change), By::name(format!("adapter:{adapter}")));
        let request =
            CommandRequest { device: device.object.clone(), change, key: None, deadline_ms: WISH_MS, by };
        let (reply, answer) = oneshot::channel();
        self.submit(request, reply);
        let (adapter, device) = (adapter.to_owned(), id.clone());
        tokio::spawn(async move {
            if let Ok(Err(refused)) = answer.await {
                tracing::warn!(%adapter, %device, %refused, "what was wished through an adapter cannot be done");
            }
        });
    }
}

/// An event as somebody else may hear it; none of what nodes tell one another.
fn told(event: &ObjectView) -> Option<Event> {
    let (topic, _) = event.id.name().rsplit_once(':').filter(|(topic, _)| !is_internal(topic))?;
    let field = event.fields.values().next()?;
    Some(Event { topic: topic.to_owned(), data: crate::json::from_value(&field.value) })
}

/// A device as somebody else may see it; none before its object is complete.
fn shown(device: &Device) -> Option<Shown> {
    let mut seen = device.is_known.then(|| description(&device.id, &device.described)).flatten()?;
    if let Some(name) = device.name.as_ref().filter(|name| !name.is_empty()) {
        seen.name.clone_from(name);
    }
    Some(Shown {
        device: seen,
        area: device.area.clone(),
        state: device.reported.as_ref().map(|reported| reported.value.clone()),
        measured: device.readings.iter().map(|(key, taken)| (key.clone(), taken.value.clone())).collect(),
        availability: device.available.as_ref().map_or(Availability::Stale, |available| available.state),
    })
}

/// A change as the owner of the commands takes it.
fn from_model(change: &Wanted) -> Change {
    let power = |on: bool| if on { Power::On } else { Power::Off };
    match change {
        Wanted::Press => Change { press: true, ..Change::default() },
        Wanted::Switch { on } => Change { on: Some(power(*on)), ..Change::default() },
        Wanted::Light(light) => Change {
            press: false,
            on: light.on.map(power),
            brightness: light.brightness,
            color: light.color.and_then(|color| match color {
                ColorMode::None => None,
                ColorMode::Temperature { kelvin } => Some(Color::Temperature(kelvin)),
                ColorMode::Color(xy) => Some(Color::Xy(xy.x, xy.y)),
            }),
            effect: light.effect.clone(),
            palette: light.palette.clone(),
            zones: None, // nobody to whom the home is shown knows of zones
            transition_ms: light.transition_ms,
        },
    }
}
