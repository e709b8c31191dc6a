//! What a step does. It is checked when it is written, as far as nothing is left to an expression: what a device or a scene takes later
//! is the same as of a schedule.

use device_adapters::Target;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{
    fault::{Fault, Place},
    trigger::Topic,
};
use crate::{
    api::{commands::change_later, problem::Problem},
    automation::{expression::Expression, scenes::check_step},
    devices::encode,
};

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// A command to a device, group or area, as the API takes it.
    Command(Json),
    /// A scene is activated.
    Scene(Json),
    /// An event is published.
    Event { topic: String, data: Json },
    /// A host that the owner allowed is called.
    Http(Http),
}

/// A call over HTTP; whom it calls was checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) body: Json,
}

pub(super) fn what(place: &Place, kind: &str, members: Map<String, Json>) -> Result<What, Fault> {
    match kind {
        "device" => command(place, members),
        "scene" => scene(place, members),
        "event" => event(place, members),
        _ => http(place, members),
    }
}

fn command(place: &Place, members: Map<String, Json>) -> Result<What, Fault> {
    only(place, &members, &["device", "change"])?;
    if members.get("device").and_then(Json::as_str).is_none_or(str::is_empty) {
        return Err(place.member("device").fault("it names no device, group or area"));
    }
    let of_change = place.member("change");
    let change = members.get("change").cloned().unwrap_or_default();
    // Of what an expression will say nothing is known but that it changes something.
    let mut open = open(&change);
    if open != change
        && let Some(members) = open.as_object_mut()
        && members.get("on").is_none_or(Json::is_null)
    {
        members.insert("on".to_owned(), true.into());
    }
    let command = Json::Object(members);
    understood(place, &command)?;
    if !is_expression(&change) {
        change_later(&open).map_err(|problem| told(&of_change, &problem))?;
    }
    Ok(What::Command(command))
}

fn scene(place: &Place, members: Map<String, Json>) -> Result<What, Fault> {
    only(place, &members, &["scene", "transition_ms"])?;
    let scene = Json::Object(members);
    understood(place, &scene)?;
    let mut open = open(&scene);
    if let Some(name) = open.get_mut("scene").filter(|name| name.is_null()) {
        *name = json!("any");
    }
    check_step(&open).map_err(|problem| told(place, &problem))?;
    Ok(What::Scene(scene))
}

fn event(place: &Place, members: Map<String, Json>) -> Result<What, Fault> {
    only(place, &members, &["event", "data"])?;
    let topic = members.get("event").and_then(Json::as_str).unwrap_or_default().to_owned();
    Topic::read(place, &topic)?;
    if topic.ends_with('*') {
        return Err(
            place.fault(format!("`{topic}`: one event is published, so write the whole of its topic"))
        );
    }
    let (place, data) = (place.member("data"), members.get("data").cloned().unwrap_or_default());
    understood(&place, &data)?;
    encode(&data).encode().map_err(|rule| place.fault(rule))?;
    Ok(What::Event { topic, data })
}

fn http(place: &Place, members: Map<String, Json>) -> Result<What, Fault> {
    only(place, &members, &["http"])?;
    let Some(Json::Object(members)) = members.get("http").cloned() else {
        return Err(
            place.fault("`http` is an object with `url`, and `method` and `body` where they are needed")
        );
    };
    let place = place.member("http");
    let mut http: Http = place.read(members)?;
    Target::of(&http.url).map_err(|rule| place.member("url").fault(rule))?;
    http.method = if http.method.is_empty() { "POST".to_owned() } else { http.method.to_uppercase() };
    if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&http.method.as_str()) {
        return Err(place.fault(format!("`{}` is none of GET, POST, PUT, PATCH, DELETE", http.method)));
    }
    understood(&place.member("body"), &http.body)?;
    Ok(What::Http(http))
}

fn only(place: &Place, members: &Map<String, Json>, allowed: &[&str]) -> Result<(), Fault> {
    match members.keys().find(|name| !allowed.contains(&name.as_str())) {
        Some(other) => {
            Err(place.fault(format!("`{other}` does not belong to it: there are {}", allowed.join(", "))))
        }
        None => Ok(()),
    }
}

/// Every expression in it can be understood.
fn understood(place: &Place, value: &Json) -> Result<(), Fault> {
    filled(value, &mut |_| Ok(Json::Null)).map(drop).map_err(|rule| place.fault(rule))
}

fn told(place: &Place, problem: &Problem) -> Fault {
    place.fault(format!("{}: {}", problem.detail(), problem.fix()))
}

/// An object with null for each member that an expression has a say in.
fn open(value: &Json) -> Json {
    let Json::Object(members) = value else { return value.clone() };
    let open = |value: &Json| if has_expression(value) { Json::Null } else { value.clone() };
    Json::Object(members.iter().map(|(name, value)| (name.clone(), open(value))).collect())
}

fn has_expression(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(has_expression),
        Json::Object(members) => members.values().any(has_expression),
        plain => is_expression(plain),
    }
}

/// Whether it is `{{ … }}` alone.
pub(crate) fn is_expression(value: &Json) -> bool {
    value.as_str().and_then(inner).is_some()
}

/// A text that may hold expressions of its own, `{{ … }}` alone: the value of one.
pub(crate) fn filled(
    value: &Json,
    fill: &mut impl FnMut(&Expression) -> Result<Json, String>,
) -> Result<Json, String> {
    Ok(match value {
        Json::String(text) => match inner(text) {
            Some(expression) => fill(&expression.parse()?)?,
            None => json!(text),
        },
        Json::Array(items) => items.iter().map(|item| filled(item, fill)).collect::<Result<_, _>>()?,
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| Ok((name.clone(), filled(value, fill)?));
            Json::Object(members.iter().map(member).collect::<Result<_, String>>()?)
        }
        plain => plain.clone(),
    })
}

fn inner(text: &str) -> Option<&str> {
    text.trim().strip_prefix("{{")?.strip_suffix("}}").map(str::trim)
}
