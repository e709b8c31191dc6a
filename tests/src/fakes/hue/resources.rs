//! What the bridge knows: two lights, a plug, a room, a motion sensor, a dimmer switch, and itself.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Reply;

/// The light of colours.
pub const LAMP: &str = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f281";
/// The light of whites.
pub const STRIP: &str = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f282";
/// The plug.
pub const PLUG: &str = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f283";
/// The lights of the room.
pub const GROUP: &str = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f284";
/// The first button of the dimmer switch.
pub const BUTTON: &str = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f285";
/// The motion sensor, as a housing.
pub const SENSOR: &str = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f286";
/// Its service that sees motion.
pub const MOTION: &str = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f287";

/// The id of the connection of a thing: its own, but for the first digit.
fn connection_of(rid: &str) -> String {
    format!("4{}", &rid[1..])
}

/// The id of the housing of a service.
fn housing_of(rid: &str) -> String {
    format!("5{}", &rid[1..])
}

/// All resources.
#[derive(Debug)]
pub(super) struct Resources {
    list: Vec<Value>,
    unplugged: BTreeSet<String>,
    presses: u32,
}

impl Resources {
    /// Of a bridge with that id.
    pub(super) fn new(id: &str) -> Self {
        let mut list = bridge(id);
        list.extend(light(LAMP, "Sofa", true));
        list.extend(light(STRIP, "Shelf", false));
        list.extend(plug());
        list.extend(room());
        list.extend(sensor());
        list.extend(dimmer());
        Self { list, unplugged: BTreeSet::new(), presses: 0 }
    }

    pub(super) fn get(&self, rid: &str) -> Option<&Value> {
        self.list.iter().find(|resource| resource["id"] == rid)
    }

    /// All, those of a kind, or one.
    pub(super) fn read(&self, path: &[&str]) -> Reply {
        match path {
            [] => Reply::data(self.list.clone()),
            [kind] => {
                let of_kind: Vec<_> = self.list.iter().filter(|one| one["type"] == *kind).cloned().collect();
                Reply::data(of_kind)
            }
            [kind, rid] => match self.get(rid).filter(|one| one["type"] == *kind) {
                Some(one) => Reply::data(vec![one.clone()]),
                None => Reply::error(404, "Not Found"),
            },
            _ => Reply::error(404, "Not Found"),
        }
    }

    /// Lays a patch over a resource, and gives what is to be told.
    pub(super) fn patch(&mut self, rid: &str, patch: &Value) -> Vec<Value> {
        let Some(resource) = self.list.iter_mut().find(|resource| resource["id"] == rid) else {
            return Vec::new();
        };
        lay(resource, patch);
        let is_light = resource["type"] == "light";
        let mut told = vec![tell(resource, patch)];
        if is_light {
            told.extend(self.sum_up());
        }
        told
    }

    /// Presses the first button of the dimmer switch.
    pub(super) fn press(&mut self, event: &str) -> Value {
        self.presses += 1;
        let updated = format!("2026-01-02T03:04:05.{:03}Z", self.presses);
        let report = json!({ "button": { "last_event": event, "button_report": { "updated": updated, "event": event } } });
        self.patch(BUTTON, &report).remove(0)
    }

    /// Carries out a `PUT`, and gives what is to be told.
    pub(super) fn put(&mut self, kind: &str, rid: &str, body: &Value) -> Result<(Reply, Vec<Value>), Reply> {
        let known = self.get(rid).filter(|one| one["type"] == kind).cloned();
        let known = known.ok_or_else(|| Reply::error(404, "Not Found"))?;
        let body = body.as_object().ok_or_else(|| Reply::error(400, "invalid json"))?;
        let taken = || json!([{ "rid": rid, "rtype": kind }]);
        match kind {
            "light" => {
                let patch = change(&known, body)?;
                let mut reply = Reply::data(taken());
                if self.is_cut_off(rid) {
                    reply.status = 207;
                    reply.body["errors"] = unreached(kind, rid);
                }
                Ok((reply, self.patch(rid, &patch)))
            }
            "grouped_light" => {
                let (mut reply, mut told) = (Reply::data(taken()), Vec::new());
                for member in [LAMP, STRIP, PLUG] {
                    if self.is_cut_off(member) {
                        reply.status = 207;
                        reply.body["errors"] = unreached(kind, rid);
                    }
                    let light = self.get(member).cloned().unwrap_or_default();
                    // A light does what it is able to.
                    let able: Map<String, Value> = body
                        .iter()
                        .filter(|(key, _)| light.get(*key).is_some())
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    told.extend(self.patch(member, &change(&light, &able)?));
                }
                Ok((reply, told))
            }
            _ => Err(Reply::error(405, "method not allowed")),
        }
    }

    pub(super) fn unplug(&mut self, rid: &str) {
        self.unplugged.insert(rid.to_owned());
    }

    fn is_cut_off(&self, rid: &str) -> bool {
        let connection = self.get(&connection_of(rid));
        let is_known = connection.is_some_and(|connection| connection["status"] != "connected");
        is_known || self.unplugged.contains(rid)
    }

    /// What the room shows now: on if one is, and the mean of those that are on.
    fn sum_up(&mut self) -> Option<Value> {
        let lights = [LAMP, STRIP, PLUG].map(|rid| self.get(rid).cloned().unwrap_or_default());
        let on = lights.iter().any(|light| light["on"]["on"] == true);
        let lit = lights.iter().filter(|light| light["on"]["on"] == true);
        let levels: Vec<f64> = lit.filter_map(|light| light["dimming"]["brightness"].as_f64()).collect();
        let count = f64::from(u8::try_from(levels.len()).unwrap_or(u8::MAX));
        let mean = if levels.is_empty() { 0.0 } else { levels.iter().sum::<f64>() / count };
        let patch = json!({ "on": { "on": on }, "dimming": { "brightness": mean } });
        let group = self.list.iter_mut().find(|resource| resource["id"] == GROUP)?;
        let before = group.clone();
        lay(group, &patch);
        (*group != before).then(|| tell(group, &patch))
    }
}

/// What a bridge objects when a lamp does not answer; it takes the command all the same.
fn unreached(kind: &str, rid: &str) -> Value {
    let why = format!("device ({kind}) {rid} has communication issues, command (.on.on) may not have effect");
    json!([{ "description": why, "error_code": "communication_error" }])
}

/// Lays the members of a patch over those of a value, and of objects in it.
pub(super) fn lay(value: &mut Value, patch: &Value) {
    match (value, patch) {
        (Value::Object(value), Value::Object(patch)) => {
            for (key, newer) in patch {
                lay(value.entry(key.clone()).or_insert(Value::Null), newer);
            }
        }
        (value, newer) => *value = newer.clone(),
    }
}

fn tell(resource: &Value, patch: &Value) -> Value {
    let mut told = json!({ "id": resource["id"], "type": resource["type"], "owner": resource["owner"] });
    lay(&mut told, patch);
    told
}

/// What a light becomes by a `PUT`.
fn change(light: &Value, body: &Map<String, Value>) -> Result<Value, Reply> {
    let wrong = |key: &str| Reply::error(400, &format!("attribute {key} is not modifiable"));
    let mut patch = json!({});
    for (key, value) in body {
        if key != "dynamics" && light.get(key).is_none() {
            return Err(wrong(key));
        }
        match key.as_str() {
            "on" => patch["on"]["on"] = value["on"].as_bool().map(Value::Bool).ok_or_else(|| wrong(key))?,
            "dimming" => {
                let brightness = value["brightness"].as_f64().filter(|level| (0.0..=100.0).contains(level));
                let brightness = brightness.ok_or_else(|| wrong(key))?;
                // Bulbs work in 254 steps, and do not go out by being dimmed.
                let steps = (brightness * 2.54).round().max(1.0);
                patch["dimming"]["brightness"] = json!((steps / 2.54 * 100.0).round() / 100.0);
            }
            "color_temperature" => {
                let mirek = value["mirek"].as_u64().filter(|mirek| (153..=500).contains(mirek));
                let mirek = mirek.ok_or_else(|| wrong(key))?;
                patch["color_temperature"] = json!({ "mirek": mirek, "mirek_valid": true });
                if light.get("color").is_some() {
                    patch["color"]["xy"] = json!({ "x": 0.4573, "y": 0.41 });
                }
            }
            "color" => {
                let xy = &value["xy"];
                if !xy["x"].is_number() || !xy["y"].is_number() {
                    return Err(wrong(key));
                }
                patch["color"]["xy"] = xy.clone();
                patch["color_temperature"] = json!({ "mirek": null, "mirek_valid": false });
            }
            "effects" => patch["effects"]["status"] = value["effect"].clone(),
            "dynamics" => {}
            _ => return Err(wrong(key)),
        }
    }
    Ok(patch)
}

fn reference(kind: &str, rid: &str) -> Value {
    json!({ "rid": rid, "rtype": kind })
}

fn housing(rid: &str, name: &str, product: &str, archetype: &str, services: Vec<Value>) -> Value {
    json!({
        "id": rid, "type": "device",
        "product_data": {
            "model_id": "FAKE01", "manufacturer_name": "Signify Netherlands B.V.", "product_name": product,
            "product_archetype": archetype, "certified": true, "software_version": "1.108.7"
        },
        "metadata": { "name": name, "archetype": archetype }, "identify": {}, "services": services
    })
}

fn connection(rid: &str, owner: &str) -> Value {
    json!({
        "id": connection_of(rid), "type": "zigbee_connectivity", "owner": reference("device", owner),
        "status": "connected", "mac_address": "00:17:88:01:02:03:04:05-0b"
    })
}

fn bridge(id: &str) -> Vec<Value> {
    let (device, bridge) = ("3f4ac4e9-d67a-4dbd-8a16-5ea7e373f2a0", "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f2a1");
    vec![
        housing(device, "Hall bridge", "Hue Bridge", "bridge_v2", vec![reference("bridge", bridge)]),
        json!({ "id": bridge, "type": "bridge", "owner": reference("device", device), "bridge_id": id,
                "time_zone": { "time_zone": "Europe/Amsterdam" } }),
    ]
}

fn light(rid: &str, name: &str, has_color: bool) -> Vec<Value> {
    let owner = housing_of(rid);
    let mut light = json!({
        "id": rid, "type": "light", "owner": reference("device", &owner), "mode": "normal", "service_id": 0,
        "metadata": { "name": name, "archetype": "sultan_bulb", "function": "mixed" },
        "on": { "on": false }, "dimming": { "brightness": 50.0, "min_dim_level": 0.2 }, "dimming_delta": {},
        "color_temperature": {
            "mirek": 366, "mirek_valid": true, "mirek_schema": { "mirek_minimum": 153, "mirek_maximum": 454 }
        },
        "color_temperature_delta": {}, "identify": {},
        "dynamics": { "status": "none", "status_values": ["none", "dynamic_palette"], "speed": 0.0, "speed_valid": false },
        "alert": { "action_values": ["breathe"] },
        "effects": {
            "status": "no_effect", "status_values": ["no_effect", "candle"], "effect_values": ["no_effect", "candle"]
        }
    });
    if has_color {
        light["color"] = json!({
            "xy": { "x": 0.4573, "y": 0.41 }, "gamut_type": "C",
            "gamut": {
                "red": { "x": 0.6915, "y": 0.3083 }, "green": { "x": 0.17, "y": 0.7 },
                "blue": { "x": 0.1532, "y": 0.0475 }
            }
        });
        light["color_temperature"]["mirek_schema"]["mirek_maximum"] = json!(500);
    }
    let product = if has_color { "Hue color lamp" } else { "Hue white lamp" };
    let services = vec![reference("light", rid), reference("zigbee_connectivity", &connection_of(rid))];
    vec![housing(&owner, name, product, "sultan_bulb", services), light, connection(rid, &owner)]
}

fn plug() -> Vec<Value> {
    let owner = housing_of(PLUG);
    vec![
        housing(
            &owner,
            "Fan",
            "Hue Smart plug",
            "plug",
            vec![reference("light", PLUG), reference("zigbee_connectivity", &connection_of(PLUG))],
        ),
        json!({ "id": PLUG, "type": "light", "owner": reference("device", &owner), "mode": "normal", "on": { "on": false },
                "metadata": { "name": "Fan", "archetype": "plug", "function": "functional" } }),
        connection(PLUG, &owner),
    ]
}

fn room() -> Vec<Value> {
    let room = housing_of(GROUP);
    let children: Vec<Value> =
        [LAMP, STRIP, PLUG].iter().map(|rid| reference("device", &housing_of(rid))).collect();
    vec![
        json!({ "id": room, "type": "room", "children": children, "services": [reference("grouped_light", GROUP)],
                "metadata": { "name": "Living room", "archetype": "living_room" } }),
        json!({ "id": GROUP, "type": "grouped_light", "owner": reference("room", &room), "on": { "on": false },
                "dimming": { "brightness": 0.0 }, "dimming_delta": {}, "color": {}, "color_temperature": {},
                "color_temperature_delta": {}, "alert": { "action_values": ["breathe"] }, "dynamics": {} }),
    ]
}

fn sensor() -> Vec<Value> {
    let (warmth, lux, battery) = (
        "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f2b0",
        "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f2b1",
        "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f2b2",
    );
    let services = vec![
        reference("motion", MOTION),
        reference("temperature", warmth),
        reference("light_level", lux),
        reference("device_power", battery),
        reference("zigbee_connectivity", &connection_of(SENSOR)),
    ];
    let owner = reference("device", SENSOR);
    let changed = "2026-01-02T03:04:05Z";
    vec![
        housing(SENSOR, "Hall sensor", "Hue motion sensor", "unknown_archetype", services),
        json!({ "id": MOTION, "type": "motion", "owner": owner, "enabled": true, "motion": {
                "motion": false, "motion_valid": true, "motion_report": { "changed": changed, "motion": false } },
                "sensitivity": { "status": "set", "sensitivity": 2, "sensitivity_max": 4 } }),
        json!({ "id": warmth, "type": "temperature", "owner": owner, "enabled": true, "temperature": {
                "temperature": 21.34, "temperature_valid": true,
                "temperature_report": { "changed": changed, "temperature": 21.34 } } }),
        json!({ "id": lux, "type": "light_level", "owner": owner, "enabled": true, "light": {
                "light_level": 20_001, "light_level_valid": true,
                "light_level_report": { "changed": changed, "light_level": 20_001 } } }),
        json!({ "id": battery, "type": "device_power", "owner": owner,
                "power_state": { "battery_state": "normal", "battery_level": 83 } }),
        connection(SENSOR, SENSOR),
    ]
}

fn dimmer() -> Vec<Value> {
    let owner = housing_of(BUTTON);
    let second = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f2c0";
    let battery = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f2c1";
    let button = |rid: &str, number: u8| {
        json!({ "id": rid, "type": "button", "owner": reference("device", &owner), "metadata": { "control_id": number },
                "button": { "repeat_interval": 800,
                            "event_values": ["initial_press", "repeat", "short_release", "long_release", "long_press"] } })
    };
    let services = vec![
        reference("button", BUTTON),
        reference("button", second),
        reference("device_power", battery),
        reference("zigbee_connectivity", &connection_of(BUTTON)),
    ];
    vec![
        housing(&owner, "Switch", "Hue dimmer switch", "unknown_archetype", services),
        button(BUTTON, 1),
        button(second, 2),
        json!({ "id": battery, "type": "device_power", "owner": reference("device", &owner),
                "power_state": { "battery_state": "normal", "battery_level": 100 } }),
        connection(BUTTON, &owner),
    ]
}
