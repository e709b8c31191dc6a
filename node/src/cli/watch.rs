//! `hearth watch`: prints objects and commands as they change, through restarts of the node.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::args::WatchArgs;
use super::client::{broken_off, garbled};
use super::exit::{Exit, Failure};
use super::model::{Command, Object, Step, is_final, moment, read};
use super::output::{Done, Stop};
use super::{Session, show};

/// How long a node that is gone is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two attempts.
const RETRY: Duration = Duration::from_millis(500);
/// Objects whose last value is remembered to show only what changed; beyond that whole objects
/// are shown, so that memory stays bounded.
const MAX_REMEMBERED: usize = 20_000;

impl Session {
    pub(super) async fn watch(&self, args: &WatchArgs) -> Done<Exit> {
        let end = args.timeout.map(|time| Instant::now() + time);
        let mut viewer = Viewer::new(args);
        let watching = self.watch_on(&mut viewer);
        let Some(end) = end else { return watching.await };
        tokio::select! {
            done = watching => done,
            () = sleep_until(end) => Ok(if args.count.is_some() { Exit::TimedOut } else { Exit::Ok }),
        }
    }

    /// Goes on where it was when the node comes back. A node that is not there at first is an error.
    async fn watch_on(&self, viewer: &mut Viewer) -> Done<Exit> {
        let mut socket = self.client.watch().await?;
        loop {
            let failure = match self.follow(&mut socket, viewer).await {
                Ok(()) => return Ok(Exit::Ok),
                Err(Stop::Failed(failure)) if failure.exit == Exit::Unreachable => failure,
                Err(stop) => return Err(stop),
            };
            self.out.note(format!("{}; waiting for it to come back…", failure.detail));
            let deadline = Instant::now() + PATIENCE;
            socket = loop {
                sleep(RETRY).await;
                match self.client.watch().await {
                    Ok(socket) => break socket,
                    Err(failure) if failure.exit != Exit::Unreachable || Instant::now() >= deadline => {
                        return Err(failure.into());
                    }
                    Err(_) => {}
                }
            };
        }
    }

    /// Prints until the count is reached; an error when the node breaks off.
    async fn follow(&self, socket: &mut WebSocketStream<UnixStream>, viewer: &mut Viewer) -> Done {
        let gone = |error: tokio_tungstenite::tungstenite::Error| broken_off(&error.to_string());
        socket.send(Message::text(viewer.subscription().to_string())).await.map_err(gone)?;
        while let Some(message) = socket.next().await {
            let text = match message.map_err(gone)? {
                Message::Text(text) => text,
                Message::Close(_) => break,
                _ => continue,
            };
            let message = serde_json::from_str(&text).map_err(|error| garbled(error.to_string()))?;
            if viewer.hides(&message) {
                continue;
            }
            let lines = viewer.lines(&message)?;
            let lines = if self.out.json { vec![message.to_string()] } else { lines };
            for line in lines {
                self.out.line(line)?;
                if viewer.counted() {
                    let _ = socket.close(None).await;
                    return Ok(());
                }
            }
        }
        Err(broken_off("the connection was closed").into())
    }
}

/// What the viewer has seen, and what it wants to see.
struct Viewer {
    prefixes: Vec<String>,
    only_changes: bool,
    passes_by: bool,
    left: Option<u64>,
    resume: Option<String>,
    in_snapshot: bool,
    subscribed_before: bool,
    known: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Viewer {
    fn new(args: &WatchArgs) -> Self {
        let prefixes = if args.prefixes.is_empty() { vec![String::new()] } else { args.prefixes.clone() };
        Self {
            prefixes,
            only_changes: args.changes,
            passes_by: args.passes_by,
            left: args.count,
            resume: None,
            in_snapshot: false,
            subscribed_before: false,
            known: BTreeMap::new(),
        }
    }

    fn subscription(&self) -> Value {
        let mut message = json!({"type": "subscribe", "prefixes": self.prefixes});
        if let (Some(resume), Some(message)) = (&self.resume, message.as_object_mut()) {
            message.insert("resume".into(), json!(resume));
        }
        message
    }

    /// Keeps the resume token; tells whether the message is not for the user.
    fn hides(&mut self, message: &Value) -> bool {
        let kind = message.get("type").and_then(Value::as_str).unwrap_or_default();
        if let Some(resume) = message.get("resume").and_then(Value::as_str) {
            self.resume = Some(resume.to_owned());
        }
        match kind {
            "snapshot_begin" => self.in_snapshot = true,
            "snapshot_end" => {
                self.in_snapshot = false;
                self.subscribed_before = true;
            }
            "gone" => return self.passes_by,
            "error" | "command" => return false,
            // What changed while the node was away is a change; the first snapshot is not.
            "object" => {
                let hidden = self.only_changes && self.in_snapshot && !self.subscribed_before;
                if hidden && let Some(object) = message.get("object").and_then(|object| read(object).ok()) {
                    self.remember(&object);
                }
                return hidden;
            }
            _ => {}
        }
        true
    }

    /// Counts a line; whether it was the last one.
    fn counted(&mut self) -> bool {
        let Some(left) = &mut self.left else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }

    /// A message as text, in local time.
    fn lines(&mut self, message: &Value) -> Result<Vec<String>, Failure> {
        let member = |name: &str| message.get(name).unwrap_or(&Value::Null);
        Ok(match message.get("type").and_then(Value::as_str) {
            Some("object") => self.object(&read(member("object"))?),
            Some("gone") => {
                let id = member("id").as_str().unwrap_or_default();
                self.known.remove(id);
                vec![format!("{}  {} is gone", clock(None), super::output::printable(id))]
            }
            Some("command") => {
                let command: Command = read(member("command"))?;
                let at = command.life.last().map_or(&command.at, |step| &step.at);
                vec![format!("{}  {}", clock(moment(at)), show::command(&command))]
            }
            Some("error") => {
                let problem = member("problem").clone();
                let status =
                    problem.get("status").and_then(Value::as_u64).and_then(|s| u16::try_from(s).ok());
                return Err(Failure::from_problem(status.unwrap_or(400), problem));
            }
            _ => Vec::new(),
        })
    }

    /// What is new of an object.
    fn object(&mut self, object: &Object) -> Vec<String> {
        let lines = self.command(object).unwrap_or_else(|| self.changed_fields(object).into_iter().collect());
        self.remember(object);
        lines
    }

    /// The steps that a command took since it was shown last, one a line; none for what is no command.
    fn command(&self, object: &Object) -> Option<Vec<String>> {
        let id = object.id.strip_prefix("command/")?;
        let steps = life(&object.fields)?;
        let before = self.known.get(&object.id).and_then(life).unwrap_or_default();
        let shown = steps.iter().zip(&before).take_while(|(now, before)| now.state == before.state).count();
        let request = object.fields.get("request")?;
        let device = request.get("device")?.as_str()?.to_owned();
        let by = request.get("who").and_then(Value::as_str).map(str::to_owned);
        let line = |step: Step| {
            let at = clock(moment(&step.at));
            let Step { state, reason, .. } = step;
            let (id, device, by) = (id.to_owned(), device.clone(), by.clone());
            let command = Command { id, device, state, reason, by, ..Command::default() };
            format!("{at}  {}", show::command(&command))
        };
        Some(steps.into_iter().skip(shown).map(line).collect())
    }

    /// The fields that differ from what was shown before; nothing when none does.
    fn changed_fields(&self, object: &Object) -> Option<String> {
        let before = self.known.get(&object.id);
        let changed = object
            .fields
            .iter()
            .filter(|(name, value)| before.is_none_or(|before| before.get(*name) != Some(value)));
        let changed: Vec<(&String, &Value)> = changed.collect();
        let removed = before.into_iter().flat_map(|before| before.keys());
        let removed: Vec<&String> = removed.filter(|name| !object.fields.contains_key(*name)).collect();
        if before.is_some() && changed.is_empty() && removed.is_empty() {
            return None;
        }
        let at = changed.iter().filter_map(|(name, _)| moment(&object.meta.get(*name)?.at)).max();
        let mut parts = vec![show::fields(changed)];
        parts.extend(removed.iter().map(|name| format!("-{name}")));
        parts.retain(|part| !part.is_empty());
        let line = format!("{}  {}  {}", clock(at), object.id, parts.join(" "));
        Some(super::output::printable(line.trim_end()).replace('\n', " "))
    }

    fn remember(&mut self, object: &Object) {
        if self.known.len() < MAX_REMEMBERED || self.known.contains_key(&object.id) {
            self.known.insert(object.id.clone(), object.fields.clone());
        }
    }
}

/// The life of a command as its object tells it. The owner of the device writes `life`; before it does, and when it
/// ended without having told the end, `request` of the node that took the command says what is known.
fn life(fields: &BTreeMap<String, Value>) -> Option<Vec<Step>> {
    let request = fields.get("request")?;
    let mut steps: Vec<Step> = match fields.get("life") {
        Some(life) => read(life).ok()?,
        None => vec![Step { state: "accepted".into(), at: request.get("at")?.clone(), reason: None }],
    };
    let is_open = steps.last().is_none_or(|step| !is_final(&step.state));
    let ended = request.get("ended").filter(|_| is_open).and_then(|ended| read::<Step>(ended).ok());
    steps.extend(ended);
    Some(steps)
}

/// The time of day here with milliseconds.
fn clock(at: Option<Timestamp>) -> String {
    let at = at.unwrap_or_else(Timestamp::now).to_zoned(TimeZone::system());
    at.strftime("%H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn viewer(changes: bool) -> Viewer {
        Viewer::new(&WatchArgs {
            prefixes: Vec::new(),
            changes,
            count: Some(2),
            timeout: None,
            passes_by: false,
        })
    }

    fn object(fields: Value) -> Value {
        json!({"type": "object", "object": {"id": "note/x", "fields": fields}})
    }

    /// The line without its time.
    fn tail(lines: &[String]) -> &str {
        lines[0].split_once("  ").unwrap().1
    }

    #[test]
    fn only_what_changed_is_shown() {
        let mut viewer = viewer(false);
        assert_eq!(tail(&viewer.lines(&object(json!({"a": 1, "b": "x"}))).unwrap()), "note/x  a=1 b=x");
        assert_eq!(tail(&viewer.lines(&object(json!({"a": 2, "b": "x"}))).unwrap()), "note/x  a=2");
        assert!(viewer.lines(&object(json!({"a": 2, "b": "x"}))).unwrap().is_empty());
        assert_eq!(tail(&viewer.lines(&object(json!({"a": 2}))).unwrap()), "note/x  -b");
        assert_eq!(tail(&viewer.lines(&json!({"type": "gone", "id": "note/x"})).unwrap()), "note/x is gone");
        assert_eq!(tail(&viewer.lines(&object(json!({"a": 2}))).unwrap()), "note/x  a=2", "it is new again");
    }

    #[test]
    fn commands_show_each_state_and_why_they_failed() {
        let mut viewer = viewer(false);
        let message = json!({"type": "command", "command": {"id": "c1", "device": "device/lifx-1", "state": "failed",
            "reason": "offline", "life": [{"state": "accepted", "at": 1}, {"state": "failed", "at": 2}]}});
        assert_eq!(tail(&viewer.lines(&message).unwrap()), "device/lifx-1 failed c1: offline");
    }

    #[test]
    fn the_life_of_a_command_is_shown_step_by_step() {
        let mut viewer = viewer(false);
        let mut shown = |fields: Value| -> Vec<String> {
            let message = json!({"type": "object", "object": {"id": "command/c1", "fields": fields}});
            let lines = viewer.lines(&message).unwrap();
            lines.iter().map(|line| line.split_once("  ").unwrap().1.to_owned()).collect()
        };
        let step = |state: &str| json!({"state": state, "at": 2});
        let request = json!({"device": "device/lifx-1", "at": 1, "change": {"on": true}});
        assert_eq!(shown(json!({"request": request})), ["device/lifx-1 accepted c1"]);
        let life = json!([step("accepted"), step("sent"), step("acknowledged")]);
        let expected = ["device/lifx-1 sent c1", "device/lifx-1 acknowledged c1"];
        assert_eq!(shown(json!({"request": request, "life": life})), expected);
        assert!(shown(json!({"request": request, "life": life})).is_empty(), "nothing is said twice");
        // The owner is gone: the node that took the command says how it ended.
        let mut ended = request.clone();
        ended["ended"] = json!({"state": "timed_out", "at": 3, "reason": "no node reaches the device"});
        let expected = ["device/lifx-1 timed_out c1: no node reaches the device"];
        assert_eq!(shown(json!({"request": ended, "life": life})), expected);
        // Yet the owner had told another end.
        let life = json!([step("accepted"), step("sent"), step("acknowledged"), step("confirmed")]);
        assert_eq!(shown(json!({"request": ended, "life": life})), ["device/lifx-1 confirmed c1"]);
        // What another version writes is shown as any object.
        assert!(shown(json!({"request": request, "life": "new"}))[0].starts_with("command/c1  life=new"));
    }

    #[test]
    fn the_first_snapshot_can_be_left_out_but_not_what_came_while_away() {
        let mut viewer = viewer(true);
        assert!(viewer.hides(&json!({"type": "snapshot_begin", "reset": true})));
        assert!(viewer.hides(&object(json!({"a": 1}))));
        assert!(viewer.hides(&json!({"type": "snapshot_end", "resume": "r1"})));
        assert!(!viewer.hides(&object(json!({"a": 2}))));
        assert!(viewer.hides(&json!({"type": "mark", "resume": "r2"})));
        assert_eq!(viewer.subscription(), json!({"type": "subscribe", "prefixes": [""], "resume": "r2"}));
        assert!(viewer.hides(&json!({"type": "snapshot_begin", "reset": true})));
        assert!(!viewer.hides(&object(json!({"a": 3}))), "a snapshot after a restart holds changes");
    }

    #[test]
    fn the_count_ends_it_and_problems_are_failures() {
        let mut viewer = viewer(false);
        assert!(!viewer.counted());
        assert!(viewer.counted());
        let error = json!({"type": "error", "problem": {"status": 403, "detail": "no", "fix": "ask"}});
        let failure = viewer.lines(&error).unwrap_err();
        assert_eq!((failure.exit, failure.detail.as_str()), (Exit::NotPermitted, "no"));
    }
}
