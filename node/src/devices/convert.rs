//! Between the device model and the values of objects, one way and back.
//!
//! A field holds exactly what the model's own serialisation says, so that clients read in objects
//! what the model documents: brightness 0 to 65 535, kelvin, xy scaled to 65 535.

use std::collections::BTreeMap;

use device_adapters::model::{Availability, Change, CommandId, Source, State};
use mesh_proto::Value;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

use crate::api::ports::MAX_TRANSITION_MS;

/// Longest time that a command may take, its transition apart, in milliseconds: ten minutes.
pub(super) const MAX_DEADLINE_MS: u32 = 600_000;

/// Longest text taken over from hardware or an adapter, in characters.
const MAX_TEXT: usize = 240;

/// The field `desired`: what a device should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Desired {
    /// The command that asked for it.
    pub(super) command: CommandId,
    /// What is asked for, with what older commands asked for that had not ended.
    pub(super) change: Change,
    /// When it was asked, in milliseconds since 1970 by its writer's clock.
    pub(super) at: u64,
    /// When it times out, by the same clock.
    pub(super) deadline_ms: u64,
    /// Who gave the command. Its own object says so, too, and may come later than this one, or not at all: it is in memory alone,
    /// and whoever carries it out after a restart is to know. None where an older version wrote the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<String>,
}

/// The field `reported`: what a device is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Reported {
    /// Its state.
    pub(super) value: State,
    /// The newest command that it follows.
    #[serde(default)]
    pub(super) command: Option<CommandId>,
    /// How it is known.
    pub(super) source: Source,
}

/// The field `availability`: whether a device answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Available {
    /// Whether it does.
    pub(super) state: Availability,
    /// Why, for people.
    pub(super) reason: String,
    /// Since when, in milliseconds since 1970.
    pub(super) since: u64,
}

/// The value of anything that serialises to JSON of whole numbers, texts, lists and maps.
pub(crate) fn encode<T: Serialize>(what: &T) -> Value {
    serde_json::to_value(what).map_or(Value::Null, from_json)
}

/// How long a command may take, in milliseconds, by the two times of the field that asks for it.
/// No node writes more than its longest deadline and transition, and none is believed to.
pub(super) fn within_ms(at: u64, deadline_ms: u64) -> u64 {
    deadline_ms.saturating_sub(at).min(u64::from(MAX_DEADLINE_MS) + u64::from(MAX_TRANSITION_MS))
}

/// Reads back what [`encode`] wrote; none for what does not fit the type.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(to_json(value)).ok()
}

/// A text of hardware, cut to a length that every part can carry.
pub(super) fn clipped(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

/// A text as a value, cut.
pub(super) fn text(text: &str) -> Value {
    Value::Text(clipped(text).into())
}

/// A map as a value.
pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// Milliseconds as a value.
pub(super) fn millis(ms: u64) -> Value {
    Value::Int(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// JSON as a value.
pub(super) fn from_json(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => number.as_f64().map_or(Value::Null, Value::Float),
        },
        Json::String(text) => Value::Text(text.into()),
        Json::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        Json::Object(items) => {
            let items: BTreeMap<Box<str>, Value> =
                items.into_iter().map(|(name, item)| (name.into_boxed_str(), from_json(item))).collect();
            Value::Map(items)
        }
    }
}

/// A value as JSON.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::Text(text) => Json::from(&**text),
        Value::Bytes(bytes) => Json::from(bytes.to_vec()),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(items) => {
            Json::Object(items.iter().map(|(name, item)| (name.to_string(), to_json(item))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use device_adapters::model::{
        Capabilities, ColorMode, Gamut, KelvinRange, LightCapabilities, LightChange, LightState, Xy,
    };
    use proptest::prelude::*;

    use super::*;

    fn color() -> impl Strategy<Value = ColorMode> {
        prop_oneof![
            Just(ColorMode::None),
            any::<u16>().prop_map(|kelvin| ColorMode::Temperature { kelvin }),
            any::<(u16, u16)>().prop_map(|(x, y)| ColorMode::Color(Xy { x, y })),
        ]
    }

    proptest! {
        #[test]
        fn a_state_and_a_change_come_back_as_they_were(
            on in any::<bool>(), brightness in any::<u16>(), color in color(), id in any::<[u8; 16]>(),
            asked in any::<(Option<bool>, Option<u16>, u32)>(), at in 0..u64::from(u32::MAX),
        ) {
            let value = State::Light(LightState::plain(on, brightness, color));
            let reported = Reported { value, command: Some(CommandId(id)), source: Source::ReadBack };
            let encoded = encode(&reported);
            prop_assert!(encoded.encode().is_ok());
            prop_assert_eq!(decode::<Reported>(&encoded).unwrap(), reported);
            let change = LightChange {
                on: asked.0, brightness: asked.1, color: Some(color), transition_ms: asked.2, ..LightChange::default()
            };
            let change = Change::Light(change);
            let by = on.then(|| "token:3f2a".to_owned());
            let desired = Desired { command: CommandId(id), change, at, deadline_ms: at + 5_000, by };
            prop_assert_eq!(decode::<Desired>(&encode(&desired)).unwrap(), desired);
        }
    }

    #[test]
    fn fields_hold_what_the_model_documents() {
        let value = LightState::plain(true, 65_535, ColorMode::Temperature { kelvin: 2700 });
        let value = State::Light(value);
        let reported = encode(&Reported { value, command: None, source: Source::Assumed });
        assert_eq!(reported.get("source").unwrap().as_text(), Some("assumed"));
        let value = reported.get("value").unwrap();
        assert_eq!(value.get("brightness").unwrap().as_int(), Some(65_535));
        assert_eq!(value.get("color").unwrap().get("kelvin").unwrap().as_int(), Some(2700));
    }

    #[test]
    fn capabilities_fit_a_field_and_come_back() {
        let can = Capabilities::Light(LightCapabilities {
            brightness: true,
            color_temperature: Some(KelvinRange { min_k: 1500, max_k: 9000 }),
            color: Some(Gamut::SRGB),
            effects: vec!["breathe".into()],
            transition: true,
            ..LightCapabilities::default()
        });
        let value = encode(&can);
        assert_eq!(value.get("kind").unwrap().as_text(), Some("light"));
        assert!(value.encode().is_ok());
        assert_eq!(decode::<Capabilities>(&value).unwrap(), can);
    }

    #[test]
    fn no_command_may_take_for_ever() {
        assert_eq!(within_ms(1_000, 6_000), 5_000);
        assert_eq!(within_ms(6_000, 1_000), 0);
        assert_eq!(within_ms(0, 9_000_000_000_000_000), 4_200_000, "ten minutes and an hour");
    }

    #[test]
    fn what_does_not_fit_is_none_and_never_a_panic() {
        for bad in [Value::Null, Value::Int(-1), map([("value", text("on"))]), Value::List(vec![Value::Null])]
        {
            assert!(decode::<Reported>(&bad).is_none(), "{bad:?}");
            assert!(decode::<Desired>(&bad).is_none(), "{bad:?}");
        }
        assert_eq!(clipped(&"ä\n".repeat(1_000)).chars().count(), MAX_TEXT);
    }
}
