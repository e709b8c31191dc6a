//! The checks that every adapter must pass. An adapter's own tests call them; so may a newcomer
//! who wants to know what is still missing.
//!
//! Each returns what is wrong as text, so that a test is one line: `contract::descriptor(&R).unwrap()`.

mod ledger;
mod live;
mod peer;
mod rules;
mod run;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::adapter::{Context, Registration, SettingsError};

pub use live::live;
pub use peer::{Ignores, Peer};

/// How long an adapter may take to stop.
pub const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);

/// Checks the id, the name and the settings schema.
///
/// # Errors
/// The first rule that is broken, with what breaks it.
pub fn descriptor(registration: &Registration) -> Result<(), String> {
    let descriptor = &registration.descriptor;
    let id = descriptor.id;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if id.is_empty() || id.len() > 16 || !id.chars().all(allowed) {
        return Err(format!("the id {id:?} must be 1 to 16 of a-z, 0-9 and '_'"));
    }
    if descriptor.name.trim().is_empty() {
        return Err(format!("{id} has no name for people"));
    }
    let schema = (descriptor.settings_schema)();
    if schema.get("type") != Some(&json!("object")) {
        return Err(format!("the settings schema of {id} must have \"type\": \"object\""));
    }
    if schema.get("additionalProperties") != Some(&json!(false)) {
        return Err(format!("the settings schema of {id} must have \"additionalProperties\": false"));
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Err(format!("the settings schema of {id} must have \"properties\""));
    };
    for (key, property) in properties {
        if property.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(format!("setting {key:?} of {id} has no description"));
        }
        if property.get("type").is_none() {
            return Err(format!("setting {key:?} of {id} has no type"));
        }
        if property
            .get("writeOnly")
            .is_some_and(|secret| secret != &json!(true) || property["type"] != "string")
        {
            return Err(format!("setting {key:?} of {id}: a secret is \"writeOnly\": true and a string"));
        }
    }
    Ok(())
}

/// Checks that an empty object is valid, that an unknown key and a value of a wrong type in any
/// known key are refused, and that each error names the key.
///
/// # Errors
/// What was taken or refused wrongly.
pub fn settings(registration: &Registration) -> Result<(), String> {
    let id = registration.descriptor.id;
    let build = |value: &Value| (registration.build)(value).map(|_| ());
    build(&json!({})).map_err(|e| format!("{id} refuses empty settings: {e}"))?;
    match build(&json!([])) {
        Err(SettingsError::NotAnObject { .. }) => {}
        other => return Err(format!("{id} answers a list instead of an object with {other:?}")),
    }
    match build(&json!({ "no_such_key": 1 })) {
        Err(SettingsError::UnknownKey { key, .. }) if key == "no_such_key" => {}
        other => return Err(format!("{id} answers an unknown key with {other:?}")),
    }
    let schema = (registration.descriptor.settings_schema)();
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in properties.keys() {
        let mut wrong = serde_json::Map::new();
        wrong.insert(name.clone(), json!({ "an object": "where none belongs" }));
        match build(&Value::Object(wrong)) {
            Err(SettingsError::Invalid { key, .. }) if key == *name => {}
            other => return Err(format!("{id} answers a wrong value of {name:?} with {other:?}")),
        }
    }
    Ok(())
}

/// Starts the adapter, lets it run for `running`, and checks that it stops within
/// [`SHUTDOWN_WITHIN`] of being told to, even though nobody reads what it reports.
///
/// # Errors
/// That it could not be built, ended by itself, failed, or did not stop in time.
pub async fn shutdown(
    registration: &Registration,
    settings: &Value,
    running: Duration,
) -> Result<(), String> {
    let id = registration.descriptor.id;
    let adapter = (registration.build)(settings).map_err(|e| e.to_string())?;
    let (context, unread) = Context::channel(1, 8);
    let mut run = adapter.run(context);
    if let Ok(ended) = timeout(running, &mut run).await {
        return Err(format!("{id} ended by itself: {ended:?}"));
    }
    unread.stop.send(true).map_err(|_| format!("{id} dropped its shutdown receiver"))?;
    match timeout(SHUTDOWN_WITHIN, run).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{id} failed while stopping: {error}")),
        Err(_) => Err(format!("{id} did not stop within {SHUTDOWN_WITHIN:?}")),
    }
}

/// Datagrams or messages that no well-behaved device sends, made from `valid` ones: cut at every
/// length, lengthened, with every byte set to 0, to 255 and flipped, and plain noise. The same
/// input gives the same list.
///
/// Feed each to the adapter's parser or state machine; a panic fails the test by itself.
#[must_use]
pub fn hostile_messages(valid: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut messages = vec![Vec::new(), vec![0; 65_507], vec![0xff; 65_507]];
    for message in valid {
        for length in 0..message.len() {
            messages.push(message.iter().copied().take(length).collect());
        }
        messages.push(message.iter().copied().chain([0]).collect());
        messages.push(message.iter().copied().cycle().take(message.len() * 2).collect());
        for position in 0..message.len() {
            for change in [|_| 0u8, |_| 0xff, |b: u8| !b, |b: u8| b ^ 1] {
                let altered = message.iter().enumerate();
                messages.push(altered.map(|(i, b)| if i == position { change(*b) } else { *b }).collect());
            }
        }
    }
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for length in (0..512).chain([1_024, 2_048]) {
        let mut next = || {
            // xorshift64: noise that is the same in every run
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()[0]
        };
        messages.push((0..length).map(|_| next()).collect());
    }
    messages
}
