//! The answers of the API as text for people.

use serde_json::Value;

use super::model::{Certificate, Check, Command, Node, Object, Status, moment, show_moment};
use super::table::{Table, Tint};
use super::values;

/// The header and the table of `hearth status`.
pub(crate) fn status(status: &Status, colour: bool) -> String {
    let own = status.nodes.iter().find(|node| node.id == status.node);
    let name = own.map_or("?", |node| node.name.as_str());
    let mut lines = vec![
        format!("household  {}", short(&status.household)),
        format!(
            "node       {name} ({}), hearth {}, up {}",
            short(&status.node),
            status.version,
            age(status.uptime_s)
        ),
        format!("objects    {}", objects(status)),
        format!(
            "clock      {}",
            if status.clock_synchronised { "synchronised" } else { "not synchronised yet" }
        ),
    ];
    if let Some(listen) = &status.listen {
        lines.push(format!("listens    {listen} (UDP and TCP)"));
    }
    if !status.api.is_empty() {
        lines.push(format!("API        {}", status.api.join(" ")));
    }
    if !status.public.is_empty() {
        lines.push(format!("public     {}", status.public.join(" ")));
    }
    lines.extend(status.certificate.iter().flat_map(certificate));
    if let Some(discovery) = &status.discovery {
        lines.push(format!("discovery  {}: {}", discovery.state, discovery.detail));
    }
    if let Some(error) = &status.store_error {
        lines.push(format!("store      CANNOT BE WRITTEN: {error}"));
    }
    if let Some(outside) = &status.outside {
        lines.push(format!("OUTSIDE    {}", outside.detail));
        lines.push(format!("           {}", outside.fix));
    }
    for copies in &status.copies {
        lines.push(format!(
            "COPIED     two boards run under the key of {} ({}); turned away: {}",
            copies.name,
            short(&copies.id),
            copies.turned_away_at.join(", ")
        ));
    }
    if !status.held_back_by.is_empty() {
        lines.push(format!("held back  by absent nodes: {}", status.held_back_by.join(", ")));
    }
    let lines: Vec<String> = lines.iter().map(|line| super::output::printable(line)).collect();
    format!("{}\n\n{}", lines.join("\n"), nodes(status, colour))
}

/// The public certificate: for what and until when, when it is renewed, and what is wrong.
fn certificate(certificate: &Certificate) -> Vec<String> {
    let minute = |value: &Value| moment(value).map(|at| at.strftime("%F %H:%M UTC").to_string());
    let until = certificate.until.as_ref().and_then(minute);
    let until = until.map_or_else(|| "none yet".to_owned(), |until| format!("until {until}"));
    let (names, directory) = (certificate.names.join(" "), &certificate.directory);
    let mut lines = vec![format!("certificate {names}: {until}, from {directory}")];
    let next = certificate.next_try.as_ref().and_then(minute);
    if certificate.doing != "is served" {
        let next = next.map(|next| format!("; next look {next}")).unwrap_or_default();
        lines.push(format!("           {}{next}", certificate.doing));
    }
    if let Some(renewal) = &certificate.renewal {
        let at = minute(&renewal.at).filter(|at| !at.starts_with("1970"));
        lines.push(format!("           renewed {}: {}", at.as_deref().unwrap_or("now"), renewal.why));
    }
    if let Some(wrong) = &certificate.error {
        let at = minute(&wrong.at).unwrap_or_default();
        lines.push(format!("           LAST FAILURE {at}: {}", wrong.words));
    }
    lines
}

fn objects(status: &Status) -> String {
    let mut text = status.objects.to_string();
    if status.incomplete > 0 {
        text.push_str(&format!(", {} incomplete", status.incomplete));
    }
    if status.quarantined > 0 {
        text.push_str(&format!(", {} from the future held back", status.quarantined));
    }
    text
}

/// The table of nodes.
pub(crate) fn nodes(status: &Status, colour: bool) -> String {
    let mut table = Table::new(&[
        "NAME",
        "ROLE",
        "STATE",
        "ADDRESS",
        "TRANSPORT",
        ">RTT",
        "VERSION",
        ">OBJECTS",
        ">LAG",
        ">CLOCK",
    ]);
    for node in &status.nodes {
        let own = node.id == status.node;
        let objects = node.objects.or(own.then_some(status.objects));
        let version = node.version.clone().or_else(|| own.then(|| status.version.clone()));
        table.row([
            (node.name.clone(), Tint::Plain),
            (node.roles.join("+"), Tint::Plain),
            (node.state.clone(), state_tint(node)),
            (node.address.clone().unwrap_or_default(), Tint::Plain),
            (transport(node), Tint::Plain),
            (node.rtt_us.map(rtt).unwrap_or_default(), Tint::Plain),
            (version.unwrap_or_default(), Tint::Plain),
            (objects.map(|n| n.to_string()).unwrap_or_default(), Tint::Plain),
            (node.lag.map(|n| n.to_string()).unwrap_or_default(), lag_tint(node.lag)),
            (node.clock_offset_ms.map(|ms| format!("{ms:+} ms")).unwrap_or_default(), Tint::Plain),
        ]);
    }
    table.render(colour)
}

fn state_tint(node: &Node) -> Tint {
    match node.state.as_str() {
        "self" | "alive" => Tint::Good,
        "dead" | "removed" => Tint::Bad,
        _ => Tint::Warn,
    }
}

/// `quic`, or `via cellar, 2 hops` for a node that is reached through another.
fn transport(node: &Node) -> String {
    match (&node.via, node.hops) {
        (Some(via), Some(hops)) => format!("via {via}, {hops} hops"),
        (Some(via), None) => format!("via {via}"),
        (None, _) => node.transport.clone().unwrap_or_default(),
    }
}

fn lag_tint(lag: Option<u64>) -> Tint {
    if lag.is_some_and(|lag| lag > 0) { Tint::Warn } else { Tint::Plain }
}

/// A round-trip time: `85 µs`, `1.2 ms`, `140 ms`.
fn rtt(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{} ms", us / 1_000),
    }
}

/// A time that has passed, with its two largest units: `3d 4h`, `12m 5s`.
fn age(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s}s"),
        (0, _, _) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

/// The first 16 digits of a key, which name it within a household.
fn short(key: &str) -> &str {
    key.get(..16).unwrap_or(key)
}

/// An object with its fields, one a line.
pub(crate) fn object(object: &Object) -> String {
    let mut table = Table::new(&["FIELD", "VALUE", "WRITTEN", "BY", "DURABLE"]);
    for (name, value) in &object.fields {
        let meta = object.meta.get(name).cloned().unwrap_or_default();
        let durable = meta.durable.map(|durable| if durable { "yes" } else { "no" });
        table.plain([
            name.clone(),
            values::show(value),
            show_moment(&meta.at),
            meta.by,
            durable.unwrap_or_default().into(),
        ]);
    }
    let note =
        if object.complete == Some(false) { "  (incomplete: its kind requires more fields)" } else { "" };
    if table.is_empty() {
        return format!("{}{note}", object.id);
    }
    format!("{}{note}\n{}", object.id, table.render(false))
}

/// Fields on one line: `text=milk count=3`.
pub(crate) fn fields<'a>(fields: impl IntoIterator<Item = (&'a String, &'a Value)>) -> String {
    let one = |(name, value): (&String, &Value)| {
        let shown = values::show(value);
        // A text with spaces would run into the next field.
        let quoted = shown.contains(' ') && value.is_string() && !shown.starts_with('"');
        if quoted { format!("{name}={value}") } else { format!("{name}={shown}") }
    };
    super::output::printable(&fields.into_iter().map(one).collect::<Vec<_>>().join(" "))
}

/// The table of devices.
pub(crate) fn devices(objects: &[Object], colour: bool) -> String {
    let mut table = Table::new(&["NAME", "AREA", "ID", "MODEL", "STATE", "AVAILABILITY", "ADAPTER"]);
    for object in objects {
        let field = |name: &str| object.fields.get(name).map(values::show).unwrap_or_default();
        let name = [field("name"), field("label")].into_iter().find(|name| !name.is_empty());
        let (availability, tint) = availability(object.fields.get("availability"));
        table.row([
            (name.unwrap_or_default(), Tint::Plain),
            (field("area"), Tint::Plain),
            (object.id.clone(), Tint::Plain),
            (field("model"), Tint::Plain),
            (device_state(object), Tint::Plain),
            (availability, tint),
            (field("adapter"), Tint::Plain),
        ]);
    }
    table.render(colour)
}

fn availability(value: Option<&Value>) -> (String, Tint) {
    let text = |name: &str| value.and_then(|value| value.get(name)).and_then(Value::as_str);
    let state = value.and_then(Value::as_str).or_else(|| text("state")).unwrap_or_default();
    let tint = match state {
        "online" => Tint::Good,
        "offline" => Tint::Bad,
        _ => Tint::Warn,
    };
    match text("reason").filter(|reason| !reason.is_empty()) {
        Some(reason) => (format!("{state}: {reason}"), tint),
        None => (state.to_owned(), tint),
    }
}

/// What a device reports, its kind apart, and what it measures.
fn device_state(device: &Object) -> String {
    let reported = device.fields.get("reported").map(|reported| reported.get("value").unwrap_or(reported));
    let state = match reported {
        Some(Value::Object(map)) => state_of(map),
        Some(other) => values::show(other),
        None => String::new(),
    };
    let measured = super::adapters::readings(device.fields.get("readings"), device.fields.get("sensors"));
    [state, measured].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// A state as people say it: `on 40 % 2700 K`; what is not known here as it is.
fn state_of(state: &serde_json::Map<String, Value>) -> String {
    let mut said = Vec::new();
    for (name, value) in state {
        match (name.as_str(), value) {
            ("kind", _) => {}
            ("on", Value::Bool(on)) => said.insert(0, if *on { "on" } else { "off" }.to_owned()),
            ("brightness", Value::Number(number)) => {
                let percent = number.as_f64().unwrap_or_default() * 100.0 / 65_535.0;
                said.push(format!("{percent:.0} %"));
            }
            ("color", Value::Object(color)) => said.extend(color_of(color)),
            ("effect" | "palette" | "event", Value::String(text)) => said.push(format!("{name} {text}")),
            _ => said.push(format!("{name}={}", values::show(value))),
        }
    }
    super::output::printable(&said.join(" "))
}

fn color_of(color: &serde_json::Map<String, Value>) -> Option<String> {
    let part = |name: &str| color.get(name).and_then(Value::as_f64);
    match (part("kelvin"), part("x"), part("y")) {
        (Some(kelvin), ..) => Some(format!("{kelvin:.0} K")),
        (None, Some(x), Some(y)) => Some(format!("x {:.3} y {:.3}", x / 65_535.0, y / 65_535.0)),
        _ => None,
    }
}

/// One step in the life of a command, with the time since the first: `confirmed  +41 ms`.
pub(crate) fn step(state: &str, at: &Value, first: &Value) -> String {
    match (moment(at), moment(first)) {
        (Some(at), Some(first)) if at > first => {
            format!("{state:<13} +{} ms", at.as_millisecond().saturating_sub(first.as_millisecond()))
        }
        _ => format!("{state:<13} {}", show_moment(at)).trim_end().to_owned(),
    }
}

/// A command on one line, for `hearth watch`.
pub(crate) fn command(command: &Command) -> String {
    let reason = command.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let by = command.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let line = format!("{} {} {}{by}{reason}", command.device, command.state, command.id);
    super::output::printable(&line).replace('\n', " ")
}

/// The checks of the doctor, with the way out behind each that found something.
pub(crate) fn checks(checks: &[Check], colour: bool) -> String {
    let mut table = Table::new(&["CHECK", "STATUS", "DETAIL"]);
    for check in checks {
        let tint = match check.status.as_str() {
            "ok" => Tint::Good,
            "warn" => Tint::Warn,
            _ => Tint::Bad,
        };
        table.row([
            (check.name.clone(), Tint::Plain),
            (check.status.clone(), tint),
            (check.detail.clone(), Tint::Plain),
        ]);
    }
    let mut text = table.render(colour);
    for check in checks.iter().filter(|check| check.status != "ok") {
        if let Some(fix) = &check.fix {
            text.push_str(&format!("\n{}: {}", check.name, super::output::printable(fix)));
        }
    }
    text
}

/// A table of JSON objects by the names of their members.
pub(crate) fn rows<const N: usize>(items: &[Value], titles: [&'static str; N], members: [&str; N]) -> String {
    let mut table = Table::new(&titles);
    for item in items {
        table.plain(members.map(|member| match item.get(member) {
            None | Some(Value::Null) => String::new(),
            Some(Value::Array(list)) => list.iter().map(values::show).collect::<Vec<_>>().join("+"),
            Some(value) => values::show(value),
        }));
    }
    table.render(false)
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
