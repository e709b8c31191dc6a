//! Which devices the components of one physical device make. Pure.

use std::collections::BTreeMap;

use crate::model::sensor::{MOST_SENSORS, sensor_key};
use crate::model::{ButtonCapabilities, Capabilities, Description, Sensors};
use crate::mqtt::ID;
use crate::mqtt::wire::discovery::Slot;

use super::entity::{Entity, Kind, Sensor};
use super::physical::device_id;

/// A device that is to be made.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    /// What it is.
    pub(crate) description: Description,
    /// The component that acts.
    pub(crate) actuator: Option<Slot>,
    /// The components that measure, by key.
    pub(crate) sensors: BTreeMap<String, Slot>,
}

impl Plan {
    /// All its components.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.actuator.iter().chain(self.sensors.values())
    }
}

/// The devices that these components make: one for each that acts; what measures belongs to the only one of them, or
/// else to one more.
pub(crate) fn plan<'a>(broker: &str, parts: impl Iterator<Item = (&'a Slot, &'a Entity)>) -> Vec<Plan> {
    let (mut acting, mut measuring) = (Vec::new(), Vec::new());
    for (slot, entity) in parts {
        match &entity.kind {
            Kind::Light(light) => acting.push((slot, entity, Capabilities::Light(light.can.clone()))),
            Kind::Switch(_) => acting.push((slot, entity, Capabilities::Switch)),
            Kind::Button(_) => {
                let can = ButtonCapabilities { press: true, events: Vec::new() };
                acting.push((slot, entity, Capabilities::Button(can)));
            }
            Kind::Sensor(sensor) => measuring.push((slot, entity, &**sensor)),
        }
    }
    let named = |(slot, entity, sensor): &(&Slot, &Entity, &Sensor)| {
        (sensor.description.diagnostic, slot.name().to_owned(), entity.unique.clone())
    };
    // What tells of the home comes first, should there be too many.
    measuring.sort_by_cached_key(named);
    let is_alone = acting.len() == 1;
    let mut plans = Vec::new();
    for (slot, entity, can) in acting {
        let mut plan = describe(broker, entity, &entity.unique, can);
        if let Some(plan) = &mut plan {
            plan.actuator = Some(slot.clone());
            if let Some(name) = &entity.name {
                plan.description.name = format!("{} {name}", entity.physical.name);
            }
            if is_alone {
                attach(plan, &measuring);
            }
        }
        plans.extend(plan);
    }
    if !is_alone && let Some((_, first, _)) = measuring.first() {
        let mut plan = describe(broker, first, &first.physical.key, Capabilities::Sensor);
        plan.iter_mut().for_each(|plan| attach(plan, &measuring));
        plans.extend(plan);
    }
    plans
}

fn describe(broker: &str, entity: &Entity, unique: &str, capabilities: Capabilities) -> Option<Plan> {
    let physical = &entity.physical;
    let description = Description {
        id: device_id(unique)?,
        adapter: ID.to_owned(),
        name: physical.name.clone(),
        manufacturer: physical.manufacturer.clone(),
        model: physical.model.clone(),
        firmware: physical.firmware.clone(),
        address: Some(broker.to_owned()),
        capabilities,
        sensors: Sensors::new(),
        note: None,
    };
    Some(Plan { description, actuator: None, sensors: BTreeMap::new() })
}

fn attach(plan: &mut Plan, measuring: &[(&Slot, &Entity, &Sensor)]) {
    let prefix = common_prefix(measuring);
    for (slot, _, sensor) in measuring.iter().take(MOST_SENSORS) {
        let name = slot.name();
        let short = name.get(prefix..).filter(|short| !short.is_empty()).unwrap_or(name);
        let key = sensor_key(short).or_else(|| sensor_key(name)).unwrap_or_else(|| "sensor".to_owned());
        let mut free = key.clone();
        let mut number = 2;
        while plan.sensors.contains_key(&free) {
            let cut: String = key.chars().take(44).collect();
            free = format!("{cut}_{number}");
            number += 1;
        }
        plan.description.sensors.insert(free.clone(), sensor.description.clone());
        plan.sensors.insert(free, (*slot).clone());
    }
    let more = measuring.len().saturating_sub(MOST_SENSORS);
    if more > 0 {
        plan.description.note =
            Some(format!("{more} more sensors of it are not shown: a device has at most {MOST_SENSORS}"));
    }
}

/// How many bytes of the names, up to a `_`, are the same in all, so that a key does not begin with a serial number.
fn common_prefix(measuring: &[(&Slot, &Entity, &Sensor)]) -> usize {
    let names: Vec<&str> = measuring.iter().map(|(slot, _, _)| slot.name()).collect();
    let [first, others @ ..] = &names[..] else { return 0 };
    if others.is_empty() {
        return 0;
    }
    let same = first.bytes().enumerate();
    let same = same
        .take_while(|(at, byte)| others.iter().all(|name| name.as_bytes().get(*at) == Some(byte)))
        .count();
    first.get(..same).and_then(|same| same.rfind('_')).map_or(0, |at| at + 1)
}
