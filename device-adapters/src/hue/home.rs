//! All that a bridge tells: its resources, and the devices of the model that they make. Pure.
//!
//! A light, a plug, a button and the lights of a room or zone each become a device, named by the UUID of that resource. Sensors
//! belong to the light or the button beside which they sit in one housing, else they become a device named by the UUID of the
//! housing (the resource `device`).

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Availability, ButtonCapabilities, Capabilities, Change, Description, DeviceId, LightCapabilities,
    Measurement, Sensors, State,
};

use super::ID;
use super::resource::{Kind, Ref, Resource, Rid};
use super::view;
use super::wire::{Event, Happening, MOST_RESOURCES, text};

/// The most devices of a bridge; it holds 50 lights (150 on the largest) and 12 switches.
const MOST_DEVICES: usize = 1_024;
/// The most services of a housing, and children of a room.
const MOST_REFERENCES: usize = 256;
/// The events of buttons that tell none
/// (<https://developers.meethue.com/develop/hue-api-v2/api-reference/#resource_button_get>).
const PRESSES: [&str; 6] =
    ["initial_press", "repeat", "short_release", "long_press", "long_release", "double_short_release"];
/// The most events of a button, and the longest name of one.
const MOST_PRESSES: usize = 16;
const MOST_PRESS_NAME: usize = 32;

/// What a device of the model is on the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// A light.
    Light(Rid),
    /// A plug, which is a light that only switches.
    Plug(Rid),
    /// The lights of a room or a zone.
    Group {
        /// The `grouped_light`.
        rid: Rid,
        /// Its lights.
        members: Vec<Member>,
    },
    /// A button.
    Button(Rid),
    /// A housing with sensors.
    Sensor,
}

/// A light of a room or zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    light: Rid,
    connection: Option<Rid>,
}

/// A device of the model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Role {
    /// What it is on the bridge.
    pub(crate) part: Part,
    /// What it is for people.
    pub(crate) description: Description,
    sensors: Vec<Rid>,
    /// How the bridge reaches it; that of a group is that of its lights.
    connection: Option<Rid>,
}

impl Role {
    /// The resource that a `PUT` changes, and its kind in the path.
    pub(crate) fn target(&self) -> Option<(&'static str, Rid)> {
        match self.part {
            Part::Light(rid) | Part::Plug(rid) => Some(("light", rid)),
            Part::Group { rid, .. } => Some(("grouped_light", rid)),
            Part::Button(_) | Part::Sensor => None,
        }
    }

    /// Whether a change of that resource may change the state.
    pub(crate) fn shows(&self, resource: Rid) -> bool {
        match &self.part {
            Part::Light(rid) | Part::Plug(rid) | Part::Button(rid) => *rid == resource,
            Part::Group { rid, members } => {
                *rid == resource || members.iter().any(|member| member.light == resource)
            }
            Part::Sensor => false,
        }
    }
}

/// A press of a button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Press {
    pub(crate) device: DeviceId,
    pub(crate) event: String,
}

/// What events changed.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The resources that were touched.
    pub(crate) touched: BTreeSet<Rid>,
    /// What people pressed, oldest first.
    pub(crate) presses: Vec<Press>,
    /// Resources came or went, or one is unknown: all must be read again.
    pub(crate) is_incomplete: bool,
}

/// All that a bridge tells.
#[derive(Debug, Default)]
pub(crate) struct Home {
    resources: BTreeMap<Rid, Resource>,
    roles: BTreeMap<DeviceId, Role>,
    /// The moment of the last press that was told of each button, as the bridge wrote it.
    pressed: BTreeMap<Rid, String>,
}

impl Home {
    /// Takes all resources, and says whether one that was known shows what no event told; `host` is where the bridge is, for people.
    pub(crate) fn replace(&mut self, resources: Vec<Resource>, host: &str) -> bool {
        let newer = resources.into_iter().map(|resource| (resource.id, resource)).collect();
        let older = std::mem::replace(&mut self.resources, newer);
        self.pressed.retain(|button, _| self.resources.contains_key(button));
        self.roles = self.build(host);
        older.iter().any(|(rid, older)| self.resources.get(rid).is_some_and(|newer| newer.differs(older)))
    }

    /// Takes some resources as they were read.
    pub(crate) fn lay(&mut self, resources: Vec<Resource>) -> BTreeSet<Rid> {
        let mut touched = BTreeSet::new();
        for newer in resources {
            touched.insert(newer.id);
            if let Some(known) = self.resources.get_mut(&newer.id).filter(|known| known.kind == newer.kind) {
                known.update(newer);
            }
        }
        touched
    }

    /// Takes events, in order.
    pub(crate) fn apply(&mut self, events: Vec<Event>) -> Applied {
        let mut applied = Applied::default();
        for event in events {
            match event.happening {
                Happening::Update => {
                    for resource in event.data {
                        self.update(resource, &mut applied);
                    }
                }
                Happening::Add | Happening::Delete => applied.is_incomplete |= !event.data.is_empty(),
                Happening::Other => {}
            }
        }
        applied
    }

    /// All devices.
    pub(crate) fn roles(&self) -> &BTreeMap<DeviceId, Role> {
        &self.roles
    }

    /// The state of a device, but of a button, which has none that lasts.
    pub(crate) fn state(&self, role: &Role) -> Option<State> {
        match &role.part {
            Part::Light(rid) => self.resources.get(rid).map(|light| State::Light(view::state(light))),
            Part::Plug(rid) => {
                let on = self.resources.get(rid)?.on?.on;
                Some(State::Switch { on })
            }
            Part::Group { rid, members } => {
                let (reached, others): (Vec<_>, Vec<_>) = members.iter().partition(|one| self.reaches(one));
                self.group_state(*rid, reached.into_iter().chain(others))
            }
            Part::Button(_) | Part::Sensor => None,
        }
    }

    /// What a button told last before anybody listened, if it did.
    pub(crate) fn last_press(&self, role: &Role) -> Option<String> {
        let Part::Button(rid) = role.part else { return None };
        let button = self.resources.get(&rid)?.button.as_ref()?;
        let report = button.button_report.as_ref().map(|report| &report.event);
        report.or(button.last_event.as_ref()).cloned().filter(|event| knows(role, event))
    }

    /// What the sensors of a device yield.
    pub(crate) fn measured(&self, role: &Role) -> BTreeMap<String, Measurement> {
        let sensors = role.sensors.iter().filter_map(|rid| view::sensor(self.resources.get(rid)?));
        sensors.map(|(key, _, measured)| (key.to_owned(), measured)).collect()
    }

    /// Whether the bridge reaches a device, and why not.
    pub(crate) fn availability(&self, role: &Role) -> (Availability, String) {
        let (who, status) = match &role.part {
            Part::Group { members, .. } => {
                let cut_off: Option<Vec<&str>> =
                    members.iter().map(|member| self.cut_off(member.connection)).collect();
                ("any of its lights", cut_off.and_then(|statuses| statuses.first().copied()))
            }
            // Battery sensors of other makers only speak: "unidirectional_incoming" is all they ever are.
            Part::Button(_) | Part::Sensor => {
                ("it", self.cut_off(role.connection).filter(|status| *status != "unidirectional_incoming"))
            }
            Part::Light(_) | Part::Plug(_) => ("it", self.cut_off(role.connection)),
        };
        match status.map(text) {
            Some(status) => {
                let why = format!(
                    "the bridge does not reach {who} ({status}): without power, or too far from other lights"
                );
                (Availability::Offline, why)
            }
            None => (Availability::Online, "the bridge reaches it".to_owned()),
        }
    }

    /// What a device shows, or why nothing that is told of it proves that it is so: bridges show what a lamp was told last, whether
    /// it heard that or not.
    pub(crate) fn evidence(&self, device: &DeviceId) -> Result<State, String> {
        let untold = || "the bridge does not tell its state".to_owned();
        let role = self.roles.get(device).ok_or_else(untold)?;
        if let (Availability::Offline, why) = self.availability(role) {
            return Err(why);
        }
        let state = match &role.part {
            Part::Group { rid, members } => {
                self.group_state(*rid, members.iter().filter(|one| self.reaches(one)))
            }
            _ => self.state(role),
        };
        state.ok_or_else(untold)
    }

    /// Whether the bridge is known to reach some lights of a group and not others.
    pub(crate) fn is_reached_in_part(&self, device: &DeviceId) -> bool {
        let Some(Part::Group { members, .. }) = self.roles.get(device).map(|role| &role.part) else {
            return false;
        };
        let reached = members.iter().filter(|member| self.reaches(member)).count();
        (1..members.len()).contains(&reached)
    }

    /// The change as it will show; see [`view::attainable`].
    pub(crate) fn attainable(&self, role: &Role, change: Change) -> Change {
        let light = role.target().and_then(|(_, rid)| self.resources.get(&rid));
        match light {
            Some(light) => view::attainable(change, light),
            None => change,
        }
    }

    fn update(&mut self, newer: Resource, applied: &mut Applied) {
        let rid = newer.id;
        let report = newer.button.as_ref().and_then(|button| button.button_report.clone());
        let Some(known) = self.resources.get_mut(&rid).filter(|known| known.kind == newer.kind) else {
            applied.is_incomplete = true;
            return;
        };
        // A name, a room or a firmware that changed changes descriptions.
        applied.is_incomplete |= newer.metadata.is_some()
            || newer.product_data.is_some()
            || newer.services.is_some()
            || newer.children.is_some();
        known.update(newer);
        applied.touched.insert(rid);
        let Some(report) = report else { return };
        let Some((device, role)) = self.roles.iter().find(|(_, role)| role.part == Part::Button(rid)) else {
            return;
        };
        let is_repeated = !report.updated.is_empty() && self.pressed.get(&rid) == Some(&report.updated);
        if knows(role, &report.event) && !is_repeated {
            self.pressed.insert(rid, text(&report.updated));
            applied.presses.push(Press { device: device.clone(), event: report.event });
        }
    }

    /// The status of a connection by which the bridge cannot tell anybody anything; none if it can, or says nothing of it.
    fn cut_off(&self, connection: Option<Rid>) -> Option<&str> {
        let status = self.resources.get(&connection?)?.status.as_deref()?;
        (status != "connected").then_some(status)
    }

    fn reaches(&self, member: &Member) -> bool {
        self.cut_off(member.connection).is_none()
    }

    /// Whether it is on and how bright, as the bridge tells; groups tell no colour, so it is that of the first of these lights that is
    /// on.
    fn group_state<'a>(&self, rid: Rid, members: impl Iterator<Item = &'a Member>) -> Option<State> {
        let group = self.resources.get(&rid)?;
        group.on?;
        let has_color = |light: &&Resource| light.color.is_some() || light.color_temperature.is_some();
        let lights = members.filter_map(|member| self.resources.get(&member.light)).filter(has_color);
        let shown = lights.min_by_key(|light| light.on.is_none_or(|on| !on.on));
        let mut state = view::state(group);
        if let Some(light) = shown {
            state.color = view::color_mode(light);
        }
        Some(State::Light(state))
    }

    fn build(&self, host: &str) -> BTreeMap<DeviceId, Role> {
        let mut roles = BTreeMap::new();
        for resource in self.resources.values().take(MOST_RESOURCES) {
            let made = match resource.kind {
                Kind::Device => self.housing(resource, host),
                Kind::Room | Kind::Zone => self.group(resource, host).into_iter().collect(),
                _ => Vec::new(),
            };
            for role in made {
                if roles.len() < MOST_DEVICES {
                    roles.insert(role.description.id.clone(), role);
                }
            }
        }
        roles
    }

    /// The devices of one housing.
    fn housing(&self, housing: &Resource, host: &str) -> Vec<Role> {
        let services: Vec<&Resource> = self.resolved(housing.services.as_deref());
        let of = |kind: Kind| services.iter().copied().filter(move |service| service.kind == kind);
        let measuring: Vec<&Resource> =
            services.iter().copied().filter(|service| view::sensor(service).is_some()).collect();
        let is_own =
            measuring.iter().any(|service| !matches!(service.kind, Kind::DevicePower | Kind::Tamper));
        let (lights, buttons) = (of(Kind::Light).count(), of(Kind::Button).count());
        let mut sensors: Vec<Rid> = measuring.iter().map(|service| service.id).collect();
        let mut roles = Vec::new();
        for light in of(Kind::Light) {
            let is_plug = light.dimming.is_none() && is_plug(housing, light);
            let (part, capabilities) = if is_plug {
                (Part::Plug(light.id), Capabilities::Switch)
            } else {
                (Part::Light(light.id), Capabilities::Light(view::capabilities(light)))
            };
            let name = if lights > 1 { name_of(light) } else { name_of(housing) };
            roles.extend(self.role(housing, part, light.id, name, capabilities, &mut sensors, host));
        }
        if lights == 0 && is_own {
            let (part, name) = (Part::Sensor, name_of(housing));
            roles.extend(self.role(
                housing,
                part,
                housing.id,
                name,
                Capabilities::Sensor,
                &mut sensors,
                host,
            ));
        }
        for (index, button) in of(Kind::Button).enumerate() {
            let number = button.metadata.as_ref().and_then(|metadata| metadata.control_id);
            let number = number.filter(|number| (0.0..100.0).contains(number));
            let number = number.map_or_else(|| (index + 1).to_string(), |number| format!("{number:.0}"));
            let name = match buttons {
                1 => name_of(housing),
                _ => format!("{} {number}", name_of(housing)),
            };
            let capabilities = Capabilities::Button(presses(button));
            roles.extend(self.role(
                housing,
                Part::Button(button.id),
                button.id,
                name,
                capabilities,
                &mut sensors,
                host,
            ));
        }
        let connection = self.connection(housing);
        roles.iter_mut().for_each(|role| role.connection = connection);
        roles
    }

    fn connection(&self, housing: &Resource) -> Option<Rid> {
        let services = self.resolved(housing.services.as_deref());
        let connection = services.into_iter().find(|service| service.kind == Kind::ZigbeeConnectivity);
        connection.map(|connection| connection.id)
    }

    /// The lights of a room or zone as one.
    fn group(&self, group: &Resource, host: &str) -> Option<Role> {
        let grouped = self.resolved(group.services.as_deref());
        let grouped = grouped.into_iter().find(|service| service.kind == Kind::GroupedLight)?;
        // A room holds housings, a zone lights.
        let mut members = Vec::new();
        for child in self.resolved(group.children.as_deref()) {
            let (housing, services) = match child.kind {
                Kind::Device => (Some(child), self.resolved(child.services.as_deref())),
                _ => (child.owner.and_then(|owner| self.resources.get(&owner.rid)), vec![child]),
            };
            let connection = housing.and_then(|housing| self.connection(housing));
            let lights = services.into_iter().filter(|service| service.kind == Kind::Light);
            members.extend(lights.map(|light| (light, connection)));
        }
        let abilities = view::union(members.iter().map(|(light, _)| view::capabilities(light)));
        let capabilities =
            LightCapabilities { brightness: abilities.brightness || grouped.dimming.is_some(), ..abilities };
        let members =
            members.into_iter().map(|(light, connection)| Member { light: light.id, connection }).collect();
        let part = Part::Group { rid: grouped.id, members };
        let (name, capabilities) = (name_of(group), Capabilities::Light(capabilities));
        let mut role = self.role(group, part, grouped.id, name, capabilities, &mut Vec::new(), host)?;
        role.description.model = if group.kind == Kind::Room { "Room" } else { "Zone" }.to_owned();
        Some(role)
    }

    #[allow(clippy::too_many_arguments)]
    fn role(
        &self,
        housing: &Resource,
        part: Part,
        named_by: Rid,
        name: String,
        capabilities: Capabilities,
        sensors: &mut Vec<Rid>,
        host: &str,
    ) -> Option<Role> {
        let product = housing.product_data.clone().unwrap_or_default();
        let described: Sensors = sensors
            .iter()
            .filter_map(|rid| view::sensor(self.resources.get(rid)?))
            .map(|(key, description, _)| (key.to_owned(), description))
            .collect();
        let model =
            [&product.product_name, &product.model_id].into_iter().find(|name| !name.trim().is_empty());
        let maker = if product.manufacturer_name.is_empty() { "Signify" } else { &product.manufacturer_name };
        let description = Description {
            id: device_id(named_by)?,
            adapter: ID.to_owned(),
            name,
            manufacturer: text(maker),
            model: model.map_or_else(|| "unknown".to_owned(), |model| text(model)),
            firmware: (!product.software_version.is_empty()).then(|| text(&product.software_version)),
            address: Some(host.to_owned()),
            capabilities,
            sensors: described,
            note: None,
        };
        let sensors = std::mem::take(sensors); // only the first of a housing has them
        Some(Role { part, description, sensors, connection: None })
    }

    fn resolved(&self, references: Option<&[Ref]>) -> Vec<&Resource> {
        let references = references.unwrap_or_default().iter().take(MOST_REFERENCES);
        references
            .filter_map(|reference| {
                self.resources.get(&reference.rid).filter(|one| one.kind == reference.rtype)
            })
            .collect()
    }
}

/// The id of the device that a resource becomes.
pub(crate) fn device_id(rid: Rid) -> Option<DeviceId> {
    DeviceId::from_hardware(ID, &rid.bytes()).ok()
}

fn name_of(resource: &Resource) -> String {
    resource.metadata.as_ref().map(|metadata| text(&metadata.name)).unwrap_or_default()
}

fn is_plug(housing: &Resource, light: &Resource) -> bool {
    let product = housing.product_data.as_ref().map(|product| product.product_archetype.as_str());
    let chosen =
        [housing, light].map(|one| one.metadata.as_ref().map(|metadata| metadata.archetype.as_str()));
    product == Some("plug") || chosen.contains(&Some("plug"))
}

fn presses(button: &Resource) -> ButtonCapabilities {
    let told = button.button.as_ref().and_then(|button| button.event_values.clone()).unwrap_or_default();
    let fits = |event: &String| !event.is_empty() && event.len() <= MOST_PRESS_NAME;
    let told: Vec<String> =
        told.iter().filter(|event| fits(event)).take(MOST_PRESSES).map(|event| text(event)).collect();
    let events = if told.is_empty() { PRESSES.map(str::to_owned).to_vec() } else { told };
    ButtonCapabilities { press: false, events }
}

fn knows(role: &Role, event: &str) -> bool {
    match &role.description.capabilities {
        Capabilities::Button(button) => button.events.iter().any(|known| known == event),
        _ => false,
    }
}
