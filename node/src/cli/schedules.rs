//! `hearth schedule` and `hearth home`.

use clap::Parser as _;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::Session;
use super::args::{
    HomeCommand, HomeSetArgs, Later, LaterCommand, SceneActivateArgs, ScheduleCommand, ScheduleSetArgs,
};
use super::client::segment;
use super::exit::{Exit, Failure};
use super::model::read_list;
use super::output::{Done, printable};
use super::{devices, light, values};

const SCHEDULES: &str = "/api/v1/schedules";
const HOME: &str = "/api/v1/home";

impl Session {
    pub(super) async fn schedule(&self, command: &ScheduleCommand) -> Done<Exit> {
        match command {
            ScheduleCommand::List => {
                let answer = self.client.get(SCHEDULES).await?;
                let schedules: Vec<Value> = read_list(&answer, "schedules")?;
                self.out.either(&answer, || all(&schedules))?;
                Ok(Exit::Ok)
            }
            ScheduleCommand::Show { name } => {
                let answer = self.client.get(&path(name)).await?;
                self.out.either(&answer, || one(&answer))?;
                Ok(Exit::Ok)
            }
            ScheduleCommand::Set(args) => {
                let answer = self.client.call(Method::PUT, &path(&args.name), Some(&body(args)?)).await?;
                self.out.either(&answer, || one(&answer))?;
                Ok(Exit::Ok)
            }
            ScheduleCommand::Enable { name } => self.enable_schedule(name, true).await,
            ScheduleCommand::Disable { name } => self.enable_schedule(name, false).await,
            ScheduleCommand::Remove { name } => {
                let answer = self.client.call(Method::DELETE, &path(name), None).await?;
                self.done(answer, format!("{name} is deleted"))
            }
        }
    }

    async fn enable_schedule(&self, name: &str, enabled: bool) -> Done<Exit> {
        let answer = self.client.call(Method::PATCH, &path(name), Some(&json!({"enabled": enabled}))).await?;
        self.done(answer, format!("{name} is {}", if enabled { "on" } else { "off" }))
    }

    pub(super) async fn home(&self, command: Option<&HomeCommand>) -> Done<Exit> {
        let answer = match command {
            None => self.client.get(HOME).await?,
            Some(HomeCommand::Set(HomeSetArgs { zone, place, allow_http, deny_http })) => {
                let mut body = Map::new();
                body.extend(zone.iter().map(|zone| ("zone".to_owned(), json!(zone))));
                if let Some((latitude, longitude)) = place {
                    body.insert("latitude".to_owned(), json!(latitude));
                    body.insert("longitude".to_owned(), json!(longitude));
                }
                body.insert("allow_http".to_owned(), json!(allow_http));
                body.insert("deny_http".to_owned(), json!(deny_http));
                self.client.call(Method::PATCH, HOME, Some(&Value::Object(body))).await?
            }
        };
        self.out.either(&answer, || home(&answer))?;
        Ok(Exit::Ok)
    }
}

fn path(name: &str) -> String {
    format!("{SCHEDULES}/{}", segment(name))
}

fn body(args: &ScheduleSetArgs) -> Result<Value, Failure> {
    let commands: Vec<Value> =
        args.commands.split(|word| word == "--").map(later).collect::<Result<_, _>>()?;
    Ok(json!({
        "when": args.when, "only": args.only, "except": args.except, "missed": args.missed,
        "do": commands, "enabled": !args.disabled,
    }))
}

/// A command that is given later, from the words in which it would be given now.
fn later(words: &[String]) -> Result<Value, Failure> {
    let parsed = Later::try_parse_from(words).map_err(|error| {
        let detail = format!("`{}` is no command of a schedule: {}", words.join(" "), super::detail(&error));
        Failure::new(
            Exit::Usage,
            detail,
            "write it as for `hearth` itself, such as: -- light hall on --brightness 40",
        )
    })?;
    let (mut command, manner) = match &parsed.command {
        LaterCommand::Light(args) => {
            (json!({"device": args.name, "change": light::change(args)}), &args.manner)
        }
        LaterCommand::Switch(args) => {
            (json!({"device": args.name, "change": {"on": devices::power(args.power)}}), &args.manner)
        }
        LaterCommand::Press(args) => (json!({"device": args.name, "change": {"press": true}}), &args.manner),
        LaterCommand::Scene(args) => (scene(args), &args.manner),
    };
    if manner.wait || manner.no_wait || manner.key.is_some() {
        let detail =
            format!("`{}`: --wait, --no-wait and --key are for a command that is given now", words.join(" "));
        let fix = "leave them out: a schedule waits for the end of each command, and has a key for each";
        return Err(Failure::new(Exit::Usage, detail, fix));
    }
    if words.iter().any(|word| word.starts_with("--deadline"))
        && let Some(members) = command.as_object_mut()
    {
        members.insert("deadline_ms".to_owned(), light::millis(manner.deadline));
    }
    Ok(command)
}

fn scene(args: &SceneActivateArgs) -> Value {
    match args.transition {
        Some(time) => json!({"scene": args.name, "transition_ms": light::millis(time)}),
        None => json!({"scene": args.name}),
    }
}

pub(super) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn all(schedules: &[Value]) -> String {
    if schedules.is_empty() {
        return "there is no schedule: hearth schedule set evening 'sunset - 30m' -- light hall on"
            .to_owned();
    }
    schedules.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// A schedule, when it comes next and why, and what became of the last.
fn one(schedule: &Value) -> String {
    let state = match text(schedule, "reason") {
        "" => text(schedule, "state").to_owned(),
        reason => format!("{}: {reason}", text(schedule, "state")),
    };
    let mut lines = vec![format!("{}  {}  ({state})", text(schedule, "name"), text(schedule, "when"))];
    for (word, member) in [("only on", "only"), ("not on", "except")] {
        if !text(schedule, member).is_empty() {
            lines.push(format!("  {word} {}", text(schedule, member)));
        }
    }
    lines.extend(list(schedule, "do").iter().map(|command| format!("  does  {}", shown_command(command))));
    let by = text(schedule, "by");
    for (index, next) in list(schedule, "next").iter().enumerate() {
        let word = if index == 0 { "next  " } else { "      " };
        let by = if index == 0 && !by.is_empty() { format!(", by {by}") } else { String::new() };
        lines.push(format!("  {word}{}  {}{by}", moment(next), text(next, "why")));
    }
    if !text(schedule, "note").is_empty() {
        lines.push(format!("  note  {}", text(schedule, "note")));
    }
    lines.extend(list(schedule, "last").iter().map(shown_last));
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

/// `2026-11-29T15:24:10+01:00` as people read it.
fn moment(value: &Value) -> String {
    text(value, "local").replace('T', " ").replace('+', " +")
}

fn shown_command(command: &Value) -> String {
    match (text(command, "scene"), command.get("transition_ms")) {
        ("", _) => {
            let change = command.get("change").map(values::show_change).unwrap_or_default();
            format!("{}: {change}", text(command, "device"))
        }
        (scene, None) => format!("scene {scene}"),
        (scene, Some(ms)) => format!("scene {scene}: transition_ms {ms}"),
    }
}

fn shown_last(last: &Value) -> String {
    let mut line = format!(
        "  last  {}  {} by {}",
        moment(last),
        text(last, "state").replace('_', " "),
        text(last, "node")
    );
    if last.get("again") == Some(&Value::Bool(true)) {
        line.push_str(", again: a node that had begun died");
    }
    for (member, words) in
        [("under_way", "came while the one before was under way"), ("passed_over", "before it missed")]
    {
        match last.get(member).and_then(Value::as_u64) {
            None | Some(0) => {}
            Some(count) => line.push_str(&format!(", {count} {words}")),
        }
    }
    for failed in list(last, "failed").iter().filter_map(Value::as_str) {
        line.push_str(&format!("\n        {failed}"));
    }
    line
}

fn home(answer: &Value) -> String {
    let zone = match text(answer, "zone") {
        "" => "not set: hearth home set --zone Europe/Berlin".to_owned(),
        zone => zone.to_owned(),
    };
    let degrees = |member: &str| answer.get(member).and_then(Value::as_f64);
    let place = match degrees("latitude").zip(degrees("longitude")) {
        Some((latitude, longitude)) => format!("{latitude}, {longitude}"),
        None => "not set, and schedules by the sun need it: hearth home set --place 52.52,13.40".to_owned(),
    };
    let hosts: Vec<&str> = list(answer, "allowed_http").iter().filter_map(Value::as_str).collect();
    let hosts = if hosts.is_empty() {
        "no host may be called by automations: hearth home set --allow-http HOST".to_owned()
    } else {
        hosts.join(", ")
    };
    format!("zone   {}\nplace  {place}\nhttp   {}", printable(&zone), printable(&hosts))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_home_shows_whom_its_automations_may_call() {
        let shown = |hosts: Value| home(&json!({"zone": "UTC", "allowed_http": hosts}));
        assert!(shown(json!([])).contains("http   no host may be called"), "{}", shown(json!([])));
        assert!(shown(json!(["a", "b:81"])).ends_with("http   a, b:81"));
    }

    #[test]
    fn a_later_command_is_written_as_one_that_is_given_now() {
        let light = later(&words("light hall on --brightness 40 --transition 2s")).unwrap();
        assert_eq!(
            light,
            json!({"device": "hall", "change": {"on": true, "brightness": 40.0, "transition_ms": 2_000}})
        );
        assert_eq!(
            later(&words("switch heater off")).unwrap(),
            json!({"device": "heater", "change": {"on": false}})
        );
        let patient = later(&words("press gate --deadline 1m")).unwrap();
        assert_eq!(patient, json!({"device": "gate", "change": {"press": true}, "deadline_ms": 60_000}));
        let scene = later(&words("scene evening --transition 2s --deadline 1m")).unwrap();
        assert_eq!(scene, json!({"scene": "evening", "transition_ms": 2_000, "deadline_ms": 60_000}));
        assert_eq!(later(&words("scene evening")).unwrap(), json!({"scene": "evening"}));
        let refused = later(&words("lite hall on")).unwrap_err();
        assert!(refused.detail.contains("lite hall on"), "{}", refused.detail);
    }

    #[test]
    fn what_says_nothing_of_a_later_command_is_refused_and_not_dropped() {
        for option in ["--key once", "--no-wait", "--wait"] {
            for command in ["light hall on", "switch heater off", "press gate", "scene evening"] {
                let refused = later(&words(&format!("{command} {option}"))).unwrap_err();
                assert!(
                    refused.detail.contains("given now") && refused.detail.contains(option),
                    "{}",
                    refused.detail
                );
                assert!(refused.fix.is_some_and(|fix| fix.contains("leave them out")));
            }
        }
    }

    #[test]
    fn a_schedule_tells_when_it_comes_why_and_what_became_of_the_last() {
        let shown = one(&json!({
            "name": "evening", "when": "sunset - 30m", "only": "", "except": "12-24", "state": "waiting", "reason": null,
            "do": [{"device": "device/lifx-1", "change": {"on": true}}, {"scene": "cosy", "transition_ms": 2_000}],
            "by": "kitchen",
            "next": [{"local": "2026-11-29T15:24:10+01:00", "why": "30m before sunset at 15:54:10"},
                {"local": "2026-11-30T15:23:31+01:00", "why": "30m before sunset at 15:53:31"}],
            "last": [{"local": "2026-11-28T15:24:55+01:00", "state": "failed", "node": "cellar", "again": true,
                "passed_over": 2, "under_way": 3, "failed": ["device/lifx-1: no answer"]}],
            "note": "it comes often",
        }));
        for part in [
            "evening  sunset - 30m  (waiting)",
            "not on 12-24",
            "does  device/lifx-1: on true",
            "does  scene cosy: transition_ms 2000",
            "next  2026-11-29 15:24:10 +01:00  30m before sunset at 15:54:10, by kitchen",
            "      2026-11-30 15:23:31 +01:00",
            "  note  it comes often",
            "failed by cellar, again: a node that had begun died, 3 came while the one before was under way, 2 before it missed",
            "device/lifx-1: no answer",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
