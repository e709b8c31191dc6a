//! `hearth adapter`.

use std::io::BufRead as _;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::Session;
use super::args::{AdapterCommand, AdapterSetArgs};
use super::client::segment;
use super::exit::{Exit, Failure};
use super::model::read_list;
use super::output::Done;
use super::table::{Table, Tint};
use super::values::{self, Assignment};

/// The longest secret that is read from stdin, in bytes.
const MAX_SECRET: usize = 4_096;

impl Session {
    pub(super) async fn adapter(&self, command: &AdapterCommand) -> Done<Exit> {
        match command {
            AdapterCommand::List => {
                let answer = self.client.get("/api/v1/adapters").await?;
                let adapters: Vec<Value> = read_list(&answer, "adapters")?;
                self.out.either(&answer, || table(&adapters, self.out.colour))?;
                Ok(Exit::Ok)
            }
            AdapterCommand::Show { id } => {
                let answer = self.client.get(&path(id)).await?;
                self.out.either(&answer, || whole(&answer, self.out.colour))?;
                Ok(Exit::Ok)
            }
            AdapterCommand::Set(args) => {
                self.change_adapter(&args.id, change(args)?, "is changed; where it runs it starts anew").await
            }
            AdapterCommand::Enable { id } => self.change_adapter(id, json!({"enabled": true}), "is on").await,
            AdapterCommand::Disable { id } => {
                self.change_adapter(id, json!({"enabled": false}), "is off").await
            }
            AdapterCommand::Restart { id } => {
                self.change_adapter(id, json!({"restart": true}), "starts anew and looks around").await
            }
            AdapterCommand::Pair { id, within } => {
                let body = json!({"seconds": within.as_secs().max(1)});
                let answer =
                    self.client.call(Method::POST, &format!("{}/pair", path(id)), Some(&body)).await?;
                let note = format!(
                    "{id} waits {} s for a button to be pressed; `hearth adapter show {id}` tells how it goes",
                    within.as_secs().max(1)
                );
                self.done(answer, note)
            }
            AdapterCommand::Forget { id } => {
                let answer = self.client.call(Method::DELETE, &path(id), None).await?;
                self.done(answer, format!("{id} is off, and its settings and devices are forgotten"))
            }
        }
    }

    async fn change_adapter(&self, id: &str, body: Value, what: &str) -> Done<Exit> {
        let answer = self.client.call(Method::PATCH, &path(id), Some(&body)).await?;
        self.done(answer, format!("{id} {what}"))
    }
}

fn path(id: &str) -> String {
    format!("/api/v1/adapters/{}", segment(id))
}

/// The body of a change of settings.
fn change(args: &AdapterSetArgs) -> Result<Value, Failure> {
    let mut settings = Map::new();
    for assignment in &args.settings {
        match assignment {
            Assignment::Field(key, Value::String(dash)) if dash == "-" => {
                settings.insert(key.as_str().to_owned(), Value::String(from_stdin(key.as_str())?));
            }
            Assignment::Field(key, value) => drop(settings.insert(key.as_str().to_owned(), value.clone())),
            Assignment::Stdin => {
                let detail = "`-` alone names no setting";
                return Err(Failure::new(Exit::Usage, detail, "write key=- to read one from stdin"));
            }
        }
    }
    for key in &args.unset {
        if settings.insert(key.as_str().to_owned(), Value::Null).is_some() {
            return Err(Failure::new(Exit::Usage, format!("`{key}` is both set and unset"), "give it once"));
        }
    }
    let mut body = Map::from_iter([("settings".to_owned(), Value::Object(settings))]);
    if args.all_nodes || !args.nodes.is_empty() {
        body.insert("nodes".to_owned(), json!(args.nodes));
    }
    Ok(Value::Object(body))
}

/// One line of stdin.
fn from_stdin(key: &str) -> Result<String, Failure> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let fix = format!("give it on one line: hearth adapter set ID {key}=- < file");
    match read {
        Ok(_) if line.len() > MAX_SECRET => Err(Failure::new(
            Exit::Usage,
            format!("the value of `{key}` is longer than {MAX_SECRET} bytes"),
            fix,
        )),
        Ok(read) if read > 0 => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        _ => Err(Failure::new(Exit::Usage, format!("stdin holds no value for `{key}`"), fix)),
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn table(adapters: &[Value], colour: bool) -> String {
    let mut table = Table::new(&["ADAPTER", "NAME", "NODE", "STATE", "REASON"]);
    for adapter in adapters {
        let on = list(adapter, "on");
        for node in on {
            table.row([
                (text(adapter, "id").to_owned(), Tint::Plain),
                (text(adapter, "name").to_owned(), Tint::Plain),
                (text(node, "name").to_owned(), Tint::Plain),
                (text(node, "state").to_owned(), tint(text(node, "state"))),
                (text(node, "reason").to_owned(), Tint::Plain),
            ]);
        }
        if on.is_empty() {
            let cells = [text(adapter, "id"), text(adapter, "name"), "", "", ""];
            table.plain(cells.map(str::to_owned));
        }
    }
    table.render(colour)
}

fn tint(state: &str) -> Tint {
    match state {
        "running" => Tint::Good,
        "failed" | "refused" => Tint::Bad,
        "waiting" => Tint::Warn,
        _ => Tint::Plain,
    }
}

/// An adapter with all its settings.
fn whole(adapter: &Value, colour: bool) -> String {
    let mut lines = vec![format!("{}: {}", text(adapter, "id"), text(adapter, "name"))];
    if adapter.get("enabled") == Some(&Value::Bool(false)) {
        lines.push("switched off for the household".to_owned());
    }
    let nodes = list(adapter, "nodes");
    if !nodes.is_empty() {
        let nodes: Vec<&str> = nodes.iter().filter_map(Value::as_str).collect();
        lines.push(format!("only {} may run it", nodes.join(", ")));
    }
    let pairing = text(adapter, "pairing");
    if !pairing.is_empty() {
        lines.push(format!("pairing: {pairing}"));
    }
    let lines: Vec<String> = lines.iter().map(|line| super::output::printable(line)).collect();
    let places = table(std::slice::from_ref(adapter), colour);
    format!("{}\n\n{places}\n\n{}", lines.join("\n"), settings(adapter))
}

fn settings(adapter: &Value) -> String {
    let mut table = Table::new(&["SETTING", "VALUE", "FROM", "MEANING"]);
    let secrets: Vec<&str> = list(adapter, "secrets").iter().filter_map(Value::as_str).collect();
    let properties = adapter.pointer("/schema/properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flatten() {
        let of = |place: &str| adapter.get(place).and_then(|settings| settings.get(key));
        let (value, from) = match (of("local"), of("settings"), property.get("default")) {
            _ if secrets.contains(&key.as_str()) => ("(secret)".to_owned(), "set"),
            (Some(value), ..) => (values::show(value), "this node"),
            (None, Some(value), _) => (values::show(value), "household"),
            (None, None, Some(value)) => (values::show(value), "default"),
            (None, None, None) => (String::new(), "-"),
        };
        table.plain([key.clone(), value, from.to_owned(), text(property, "description").to_owned()]);
    }
    if table.is_empty() { "it has no settings".to_owned() } else { table.render(false) }
}

/// The devices' side of `hearth devices`: what a device measures, in one cell.
pub(super) fn readings(readings: Option<&Value>, sensors: Option<&Value>) -> String {
    let Some(Value::Object(readings)) = readings else { return String::new() };
    let one = |(key, reading): (&String, &Value)| {
        let sensor = sensors.and_then(|sensors| sensors.get(key));
        // What tells of the device itself is shown by `hearth device show`.
        if sensor.and_then(|sensor| sensor.get("diagnostic")) == Some(&Value::Bool(true)) {
            return None;
        }
        Some(format!("{key} {}", reading_of(reading, sensor)))
    };
    readings.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

/// A reading with its unit, or why there is none.
pub(super) fn reading_of(reading: &Value, sensor: Option<&Value>) -> String {
    let unit = sensor.map(|sensor| text(sensor, "unit")).unwrap_or_default();
    match reading.get("value") {
        None | Some(Value::Null) => format!("unknown: {}", text(reading, "reason")),
        Some(value) if unit.is_empty() => values::show(value),
        Some(value) => format!("{} {unit}", values::show(value)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_say_where_they_come_from_and_secrets_stay_hidden() {
        let adapter = json!({
            "id": "mqtt", "name": "MQTT", "enabled": true, "nodes": ["kitchen"], "settings": {"broker": "a"},
            "local": {"interface": "eth0"}, "secrets": ["password"], "on": [], "pairing": null,
            "schema": {"properties": {
                "broker": {"description": "Where it is."}, "interface": {"description": "Through."},
                "password": {"description": "Secret."}, "port": {"description": "Port.", "default": 1883}
            }}
        });
        let shown = whole(&adapter, false);
        for part in ["only kitchen may run it", "household", "this node", "(secret)", "1883", "default"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn readings_have_their_units_and_those_of_the_device_itself_are_left_out() {
        let sensors = json!({"temperature": {"unit": "°C"}, "signal": {"unit": "dBm", "diagnostic": true}, "motion": {}});
        let given = json!({"temperature": {"value": 21.5}, "signal": {"value": -60}, "motion": {"value": null, "reason": "dead"}});
        assert_eq!(readings(Some(&given), Some(&sensors)), "motion unknown: dead, temperature 21.5 °C");
        assert_eq!(readings(None, None), "");
    }
}
