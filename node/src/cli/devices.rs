//! `hearth device`, `hearth group`, `hearth switch`, `hearth press`.

use hyper::Method;
use serde_json::{Value, json};

use super::args::{DeviceCommand, GroupCommand, Manner, Power, PressArgs, SwitchArgs};
use super::client::segment;
use super::exit::{Exit, Failure};
use super::model::{Object, read, read_list};
use super::output::Done;
use super::table::Table;
use super::{Session, adapters, show, values};

/// Longest name of a device or area, in characters.
const MAX_NAME: usize = 64;

impl Session {
    pub(super) async fn device(&self, command: &DeviceCommand) -> Done<Exit> {
        match command {
            DeviceCommand::Show { name } => {
                let answer = self.find_device(name).await?;
                let device: Object = read(&answer)?;
                self.out.either(&answer, || shown(&device, self.out.colour))?;
                Ok(Exit::Ok)
            }
            DeviceCommand::Rename { name, new } => self.set_device(name, "name", new.as_deref()).await,
            DeviceCommand::Move { name, area } => self.set_device(name, "area", area.as_deref()).await,
            DeviceCommand::Forget { name } => {
                let device: Object = read(&self.find_device(name).await?)?;
                self.client.call(Method::DELETE, &object_path(&device.id), None).await?;
                let document = json!({"id": device.id, "forgotten": true});
                self.done(document, format!("{} is forgotten", device.id))
            }
        }
    }

    pub(super) async fn switch(&self, args: &SwitchArgs) -> Done<Exit> {
        let change = json!({"on": power(args.power)});
        self.send_command(&args.name, change, &args.manner, std::time::Duration::ZERO).await
    }

    pub(super) async fn press(&self, args: &PressArgs) -> Done<Exit> {
        self.send_command(&args.name, json!({"press": true}), &args.manner, std::time::Duration::ZERO).await
    }

    pub(super) async fn group(&self, command: &GroupCommand) -> Done<Exit> {
        match command {
            GroupCommand::List => {
                let answer = self.client.get("/api/v1/objects?prefix=group/").await?;
                let groups: Vec<Object> = read_list(&answer, "objects")?;
                self.out.either(&answer, || groups_table(&groups))?;
                Ok(Exit::Ok)
            }
            GroupCommand::Add { group, devices } => {
                let mut set = serde_json::Map::new();
                for name in devices {
                    let device: Object = read(&self.find_device(name).await?)?;
                    set.insert(member(&device.id)?, json!(true));
                }
                let body = json!({"set": set});
                let answer = self
                    .client
                    .call(Method::PATCH, &format!("/api/v1/objects/group/{group}"), Some(&body))
                    .await?;
                self.done(answer, format!("group {group} has {} more", devices.len()))
            }
            GroupCommand::Remove { group, devices } if devices.is_empty() => {
                self.client.call(Method::DELETE, &format!("/api/v1/objects/group/{group}"), None).await?;
                self.done(
                    json!({"id": format!("group/{group}"), "deleted": true}),
                    format!("group {group} is deleted"),
                )
            }
            GroupCommand::Remove { group, devices } => {
                let mut unset = Vec::new();
                for name in devices {
                    // One that was forgotten is taken out by its id.
                    let id = match self.find_device(name).await {
                        Ok(found) => read::<Object>(&found)?.id,
                        Err(_) => format!("device/{name}"),
                    };
                    unset.push(member(&id)?);
                }
                let body = json!({"set": {}, "unset": unset});
                let answer = self
                    .client
                    .call(Method::PATCH, &format!("/api/v1/objects/group/{group}"), Some(&body))
                    .await?;
                self.done(answer, format!("group {group} has {} less", devices.len()))
            }
        }
    }

    async fn set_device(&self, name: &str, field: &str, value: Option<&str>) -> Done<Exit> {
        let device: Object = read(&self.find_device(name).await?)?;
        let body = match value.map(str::trim) {
            Some(value) if value.is_empty() || value.chars().count() > MAX_NAME => {
                let detail = format!("the {field} {value:?} has {} characters", value.chars().count());
                return Err(Failure::new(Exit::Usage, detail, format!("give 1 to {MAX_NAME}")).into());
            }
            Some(value) => json!({"set": {field: value}}),
            None => json!({"set": {}, "unset": [field]}),
        };
        let answer = self.client.call(Method::PATCH, &object_path(&device.id), Some(&body)).await?;
        let what = value
            .map_or_else(|| format!("has no {field} any more"), |value| format!("has the {field} {value}"));
        self.done(answer, format!("{} {what}", device.id))
    }

    /// The object of a device that a person names.
    async fn find_device(&self, name: &str) -> Done<Value> {
        Ok(self.client.get(&format!("/api/v1/devices/{}", segment(name))).await?)
    }
}

/// A power as the API takes it.
pub(super) fn power(power: Power) -> Value {
    match power {
        Power::On => json!(true),
        Power::Off => json!(false),
        Power::Toggle => json!("toggle"),
    }
}

/// The members of a command's body beside its device and change.
pub(super) fn body(name: &str, change: &Value, manner: &Manner) -> Value {
    let deadline = u64::try_from(manner.deadline.as_millis()).unwrap_or(u64::MAX);
    let mut body = json!({"device": name, "change": change, "deadline_ms": deadline, "wait": false});
    if let (Some(key), Some(body)) = (&manner.key, body.as_object_mut()) {
        body.insert("key".into(), json!(key));
    }
    body
}

fn object_path(id: &str) -> String {
    let (kind, name) = id.split_once('/').unwrap_or(("device", id));
    format!("/api/v1/objects/{}/{}", segment(kind), segment(name))
}

/// The field of a group by which a device is in it.
fn member(id: &str) -> Result<String, Failure> {
    let name = id.strip_prefix("device/").unwrap_or(id);
    let field = format!("member.{name}");
    mesh_proto::FieldName::new(&field)
        .map(|_| field)
        .map_err(|rule| Failure::new(Exit::Usage, rule.to_string(), "its id is too long for a group"))
}

fn groups_table(groups: &[Object]) -> String {
    let mut table = Table::new(&["GROUP", "MEMBERS"]);
    for group in groups {
        let members = group.fields.keys().filter_map(|field| field.strip_prefix("member."));
        let name = group.id.strip_prefix("group/").unwrap_or(&group.id);
        table.plain([name.to_owned(), members.collect::<Vec<_>>().join(", ")]);
    }
    table.render(false)
}

/// A device with all that is known of it.
fn shown(device: &Object, colour: bool) -> String {
    let mut text = show::devices(std::slice::from_ref(device), colour);
    let sensors = device.fields.get("sensors");
    if let Some(Value::Object(readings)) = device.fields.get("readings") {
        let mut table = Table::new(&["SENSOR", "VALUE", "MEASURED"]);
        for (key, reading) in readings {
            let sensor = sensors.and_then(|sensors| sensors.get(key));
            let name = sensor.and_then(|sensor| sensor.get("name")).map(values::show).unwrap_or_default();
            let at = reading.get("at").map(super::model::show_moment).unwrap_or_default();
            table.plain([format!("{key} ({name})"), adapters::reading_of(reading, sensor), at]);
        }
        text.push_str("\n\n");
        text.push_str(&table.render(false));
    }
    for field in ["note", "capabilities", "effects", "palettes", "area"] {
        if let Some(value) = device.fields.get(field) {
            text.push_str(&format!("\n{field}: {}", super::output::printable(&values::show(value))));
        }
    }
    text
}
