//! Devices by the names that people have for them, alone or in groups and areas.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use mesh_proto::{FieldName, ObjectId, Value as Stored};
use serde_json::{Value, json};

use super::{
    ApiContext, access::Principal, extract::Named, json::from_object, objects::MAX_PAGE, problem::Problem,
    scoped::outside,
};
use crate::{
    auth::Scope,
    service::{ObjectView, Service, ServiceError},
};

/// Most devices that are looked through.
const MAX_DEVICES: usize = 4_096;

pub(super) async fn devices(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Problem> {
    let devices = devices_within(&context.service, &principal.scope).await?;
    Ok(Json(json!({ "devices": devices.iter().map(from_object).collect::<Vec<_>>() })))
}

pub(super) async fn device(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(given): Named,
) -> Result<Json<Value>, Problem> {
    Ok(Json(from_object(&find_device(&context.service, &principal.scope, &given).await?)))
}

/// What a command is for.
pub(crate) enum Target {
    /// One device.
    Device(ObjectView),
    /// All devices of a group or an area.
    Many {
        /// `group/NAME` or `area NAME`.
        name: String,
        devices: Vec<ObjectView>,
    },
}

/// What a person means: a device, else a group by its name or object, else an area. Of a group or an area all that is there must be
/// within the scope.
pub(crate) async fn find_target(service: &Service, scope: &Scope, given: &str) -> Result<Target, Problem> {
    let no_device = match find_device(service, scope, given).await {
        Ok(device) => return Ok(Target::Device(device)),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => problem,
        Err(problem) => return Err(problem),
    };
    let devices = all_devices(service).await?;
    let name = given.strip_prefix("group/").unwrap_or(given).to_lowercase();
    if let Some(id) = ObjectId::new(&format!("group/{name}")).ok()
        && let Some(group) = service.get(id).await?
    {
        let is_member = |device: &&ObjectView| {
            let field = FieldName::new(&format!("member.{}", device.id.name())).ok();
            field.is_some_and(|field| group.fields.contains_key(&field))
        };
        let members: Vec<_> = devices.iter().filter(is_member).cloned().collect();
        // Of a group out of the scope only that is known which is within.
        let is_within = !members.is_empty() && members.iter().all(|device| scope.sees(device));
        if is_within || scope.sees(&group) {
            return many(group.id.as_str().to_owned(), members, scope);
        }
    }
    let area = given.to_lowercase();
    let of_area: Vec<ObjectView> = devices
        .into_iter()
        .filter(|device| text(device, "area").to_lowercase() == area && can_be_told(device))
        .collect();
    if area.is_empty() || !of_area.iter().any(|device| scope.sees(device)) {
        Err(no_device)
    } else {
        many(format!("area {given}"), of_area, scope)
    }
}

/// Several devices, all of them within the scope.
fn many(name: String, devices: Vec<ObjectView>, scope: &Scope) -> Result<Target, Problem> {
    if !devices.iter().all(|device| scope.sees(device)) {
        return Err(outside(&format!("{name} reaches beyond it: name the devices that are meant")));
    }
    if devices.is_empty() {
        let detail = format!("{name} has no device that is there");
        let fix = "put devices into it: `hearth group add GROUP DEVICE…`";
        return Err(Problem::new(StatusCode::CONFLICT, "empty-group", "The group is empty", detail, fix));
    }
    Ok(Target::Many { name, devices })
}

/// Whether it is a light or switch: what only measures is in an area without being commanded with it.
fn can_be_told(device: &ObjectView) -> bool {
    let field = FieldName::new("capabilities").ok().and_then(|field| device.fields.get(&field));
    let kind = field.and_then(|field| field.value.get("kind")).and_then(Stored::as_text);
    matches!(kind, Some("light" | "switch"))
}

pub(super) fn text(device: &ObjectView, field: &str) -> String {
    let field = FieldName::new(field).ok().and_then(|field| device.fields.get(&field));
    field.and_then(|field| field.value.as_text()).unwrap_or_default().to_owned()
}

/// Every complete device, page by page.
pub(crate) async fn all_devices(service: &Service) -> Result<Vec<ObjectView>, ServiceError> {
    let mut devices: Vec<ObjectView> = Vec::new();
    loop {
        let after = devices.last().map(|device| device.id.clone());
        let page = service.list("device/", after, MAX_PAGE, false).await?;
        let last = page.len() < MAX_PAGE;
        devices.extend(page);
        if last || devices.len() >= MAX_DEVICES {
            return Ok(devices);
        }
    }
}

/// Every complete device within a scope.
async fn devices_within(service: &Service, scope: &Scope) -> Result<Vec<ObjectView>, ServiceError> {
    let mut devices = all_devices(service).await?;
    devices.retain(|device| scope.sees(device));
    Ok(devices)
}

/// The device within a scope that a person means: its object (`device/NAME`), the name they gave it, the name of
/// the object alone, or the label in the hardware; then name or label whatever their case.
pub(crate) async fn find_device(
    service: &Service,
    scope: &Scope,
    given: &str,
) -> Result<ObjectView, Problem> {
    if let Some(id) = ObjectId::new(given).ok().filter(|id| id.kind() == "device") {
        let device = service.get(id).await?.filter(|device| device.complete && scope.sees(device));
        return device.ok_or_else(|| no_device(given, &[]));
    }
    let devices = devices_within(service, scope).await?;
    let lower = given.to_lowercase();
    let by_name = |device: &ObjectView| text(device, "name") == given;
    let by_object = |device: &ObjectView| device.id.name() == given;
    let by_label = |device: &ObjectView| text(device, "label") == given;
    let by_any_case = |device: &ObjectView| {
        [text(device, "name"), text(device, "label")].iter().any(|text| text.to_lowercase() == lower)
    };
    let ways: [&dyn Fn(&ObjectView) -> bool; 4] = [&by_name, &by_object, &by_label, &by_any_case];
    for way in ways.iter().filter(|_| !given.is_empty()) {
        let mut found: Vec<_> = devices.iter().filter(|device| way(device)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(device), true) => return Ok(device.clone()),
            (Some(device), false) => {
                found.push(device);
                return Err(ambiguous(given, &found));
            }
            (None, _) => {}
        }
    }
    Err(no_device(given, &devices))
}

fn no_device(given: &str, devices: &[ObjectView]) -> Problem {
    let shown: String = given.chars().filter(|c| !c.is_control()).take(64).collect();
    Problem::not_found(&format!("device `{shown}`"), "`hearth devices` lists them")
        .with_candidates(devices.iter().map(|device| device.id.as_str().to_owned()))
}

fn ambiguous(given: &str, found: &[&ObjectView]) -> Problem {
    let (status, detail) = (StatusCode::CONFLICT, format!("`{given}` names {} devices", found.len()));
    let fix = "use the id of the one that is meant, or give them different names";
    Problem::new(status, "ambiguous-device", "Several devices have that name", detail, fix)
        .with_candidates(found.iter().map(|device| device.id.as_str().to_owned()))
}
