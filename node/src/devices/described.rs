//! Between what an adapter says of a device and the fields that describe it.

use std::collections::BTreeMap;

use device_adapters::model::{Capabilities, Description, DeviceId, LightCapabilities, Sensors};
use mesh_proto::Value;

use super::convert::{clipped, decode, encode, text};

/// The fields that describe a device.
pub(super) const DESCRIBING: [&str; 8] =
    ["adapter", "model", "label", "capabilities", "effects", "palettes", "sensors", "note"];

/// What the fields of [`DESCRIBING`] hold.
pub(super) type Described = BTreeMap<&'static str, Value>;

/// The fields that describe a device, as they should be; the others of [`DESCRIBING`] it has not.
///
/// A strip knows two hundred effects: their names are fields of their own, each as long as a value may be.
pub(super) fn described(found: &Description) -> Described {
    let model = match (found.manufacturer.as_str(), found.model.as_str()) {
        ("", model) => text(model),
        (maker, model) if model.starts_with(maker) => text(model),
        (maker, model) => text(&format!("{maker} {model}")),
    };
    let mut fields = Described::from([
        ("adapter", text(&found.adapter)),
        ("model", model),
        ("label", text(&found.name)),
        ("capabilities", encode(&without_names(&found.capabilities))),
    ]);
    if let Capabilities::Light(light) = &found.capabilities {
        fields.extend(names("effects", &light.effects));
        fields.extend(names("palettes", &light.palettes));
    }
    if !found.sensors.is_empty() {
        fields.insert("sensors", encode(&found.sensors));
    }
    fields.extend(found.note.as_ref().map(|note| ("note", text(note))));
    fields
}

/// What a device can do, by its fields.
pub(super) fn capabilities(fields: &Described) -> Option<Capabilities> {
    let can = fields.get("capabilities").and_then(decode)?;
    let names = |field: &str| fields.get(field).and_then(decode).unwrap_or_default();
    Some(match can {
        Capabilities::Light(light) => Capabilities::Light(LightCapabilities {
            effects: names("effects"),
            palettes: names("palettes"),
            ..light
        }),
        other => other,
    })
}

/// What a device measures, by its fields.
pub(super) fn sensors(fields: &Described) -> Sensors {
    fields.get("sensors").and_then(decode).unwrap_or_default()
}

/// A description made of the fields, for a device that is found elsewhere.
pub(super) fn description(id: &DeviceId, fields: &Described) -> Option<Description> {
    let text = |field: &str| fields.get(field).and_then(Value::as_text).map(clipped).unwrap_or_default();
    Some(Description {
        id: id.clone(),
        adapter: text("adapter"),
        name: text("label"),
        manufacturer: String::new(),
        model: text("model"),
        firmware: None,
        address: None,
        capabilities: capabilities(fields)?,
        sensors: sensors(fields),
        note: None,
    })
}

fn without_names(can: &Capabilities) -> Capabilities {
    match can {
        Capabilities::Light(light) => Capabilities::Light(LightCapabilities {
            effects: Vec::new(),
            palettes: Vec::new(),
            ..light.clone()
        }),
        other => other.clone(),
    }
}

/// As many names as fit one value; none when there are none.
fn names(field: &'static str, names: &[String]) -> Option<(&'static str, Value)> {
    let mut fit = names.to_vec();
    while !fit.is_empty() && encode(&fit).encode().is_err() {
        fit.pop();
    }
    if fit.len() < names.len() {
        tracing::warn!(
            field,
            dropped = names.len() - fit.len(),
            "a light knows more names than fit its object"
        );
    }
    (!fit.is_empty()).then(|| (field, encode(&fit)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use device_adapters::model::SensorDescription;

    use super::*;

    fn strip(effects: Vec<String>) -> Description {
        let can = LightCapabilities { brightness: true, effects, ..LightCapabilities::default() };
        Description {
            id: DeviceId::new("wled-1").unwrap(),
            adapter: "wled".into(),
            name: "Shelf".into(),
            manufacturer: "WLED".into(),
            model: "WLED 0.15".into(),
            firmware: None,
            address: None,
            capabilities: Capabilities::Light(can),
            sensors: Sensors::from([(
                "power".into(),
                SensorDescription::numeric("Power", Some("power"), "W", 1),
            )]),
            note: None,
        }
    }

    #[test]
    fn a_description_comes_back_from_its_fields() {
        let found = strip(vec!["Rainbow".into(), "Fire 2012".into()]);
        let fields = described(&found);
        assert_eq!(fields.get("model").unwrap().as_text(), Some("WLED 0.15"));
        let back = description(&found.id, &fields).unwrap();
        assert_eq!(
            (back.capabilities, back.sensors, back.name),
            (found.capabilities, found.sensors, found.name)
        );
    }

    #[test]
    fn a_remark_for_people_is_told_and_taken_back() {
        let mut found = strip(Vec::new());
        assert_eq!(described(&found).get("note"), None);
        found.note = Some("two answer as one".into());
        assert_eq!(described(&found).get("note").unwrap().as_text(), Some("two answer as one"));
    }

    #[test]
    fn more_names_than_fit_are_cut_and_every_field_can_be_written() {
        let found = strip((0..1_000).map(|number| format!("Effect {number}")).collect());
        let fields = described(&found);
        assert!(fields.values().all(|value| value.encode().is_ok()));
        let Some(Capabilities::Light(light)) = capabilities(&fields) else { unreachable!() };
        assert!((200..1_000).contains(&light.effects.len()), "{}", light.effects.len());
    }
}
