//! `hearth light`, and how every command to devices is sent and its life shown as it goes.

use std::time::Duration;

use hyper::Method;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::args::{LightArgs, Manner};
use super::client::{garbled, segment};
use super::exit::{Exit, Failure};
use super::model::{Command, is_final, read};
use super::output::Done;
use super::{Session, devices, show};
use crate::api::ports::MAX_TRANSITION_MS;

/// How often the life of the command is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long after its deadline a command may take to be ended by the node.
const GRACE: Duration = Duration::from_secs(5);

impl Session {
    pub(super) async fn light(&self, args: &LightArgs) -> Done<Exit> {
        let transition = args.transition.unwrap_or_default();
        self.send_command(&args.name, change(args), &args.manner, transition).await
    }

    /// Sends a command, and follows it to its end unless that is not wanted.
    pub(super) async fn send_command(
        &self,
        name: &str,
        change: Value,
        manner: &Manner,
        transition: Duration,
    ) -> Done<Exit> {
        let body = devices::body(name, &change, manner);
        let answer = self.client.call(Method::POST, "/api/v1/commands", Some(&body)).await?;
        if answer.get("commands").is_some() {
            return self.follow_all(&answer, "group", manner, transition).await;
        }
        let (ended, failure) = self.follow_command(answer, manner, transition).await?;
        self.tell_end(&ended, failure)
    }

    /// Follows the commands of a group or a scene, as the API answers with them, to their ends.
    pub(super) async fn follow_all(
        &self,
        answer: &Value,
        of: &str,
        manner: &Manner,
        transition: Duration,
    ) -> Done<Exit> {
        let listed = |member: &str| answer.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
        let refused = listed("refused");
        let (mut ended, mut worst) = (Vec::new(), self.tell_refused(&refused));
        for command in listed("commands") {
            if !self.out.json {
                self.out.note(command.get("device").and_then(Value::as_str).unwrap_or_default());
            }
            let (command, failure) = self.follow_command(command, manner, transition).await?;
            ended.push(command);
            if let Some(failure) = failure {
                self.tell_one(&failure);
                worst.get_or_insert(failure.exit);
            }
        }
        if self.out.json {
            self.out.document(&json!({of: answer.get(of), "commands": ended, "refused": refused}))?;
        }
        Ok(worst.unwrap_or(Exit::Ok))
    }

    /// Tells which devices were refused, and why.
    pub(super) fn tell_refused(&self, refused: &[Value]) -> Option<Exit> {
        for refused in refused {
            let said = |member: &str| refused.get(member).and_then(Value::as_str).unwrap_or_default();
            let fix = "`hearth devices` shows what each device is and can do";
            self.tell_one(&Failure::new(
                Exit::Refused,
                format!("{}: {}", said("device"), said("detail")),
                fix,
            ));
        }
        (!refused.is_empty()).then_some(Exit::Refused)
    }

    /// Follows a command to its end unless that is not wanted: what it is then, and why it failed if it did.
    async fn follow_command(
        &self,
        mut answer: Value,
        manner: &Manner,
        transition: Duration,
    ) -> Done<(Value, Option<Failure>)> {
        let mut command: Command = read(&answer)?;
        if command.id.is_empty() {
            return Err(garbled("its answer has no `id` of the command".into()).into());
        }
        let mut shown = 0;
        self.show_life(&command, &mut shown)?;
        let deadline = Instant::now() + patience(manner, transition);
        while !manner.no_wait && !has_ended(&command) {
            if Instant::now() >= deadline {
                let detail =
                    format!("command {} has not ended {} s after its deadline", command.id, GRACE.as_secs());
                let fix = format!("look at it with: hearth get command/{}", command.id);
                return Err(Failure::new(Exit::TimedOut, detail, fix).into());
            }
            sleep(LOOK).await;
            answer = self.client.get(&format!("/api/v1/commands/{}", segment(&command.id))).await?;
            command = read(&answer)?;
            self.show_life(&command, &mut shown)?;
        }
        if !has_ended(&command) {
            self.out.note(format!("command {}", command.id));
            return Ok((answer, None));
        }
        Ok((answer, outcome(&command)))
    }

    /// The end of the one command that was given.
    fn tell_end(&self, ended: &Value, failure: Option<Failure>) -> Done<Exit> {
        if self.out.json {
            self.out.document(ended)?;
        }
        match failure {
            None => Ok(Exit::Ok),
            // The command itself is the JSON answer; its state tells the same.
            Some(failure) if self.out.json => Ok(failure.exit),
            Some(failure) => Err(failure.into()),
        }
    }

    /// One failure of several; in JSON the answer tells it.
    fn tell_one(&self, failure: &Failure) {
        if !self.out.json {
            self.out.failure(failure);
        }
    }

    /// Prints the steps that have not been shown yet.
    fn show_life(&self, command: &Command, shown: &mut usize) -> Done {
        if self.out.json || self.out.quiet {
            return Ok(());
        }
        let first = command.life.first().map_or(&command.at, |step| &step.at);
        for step in command.life.iter().skip(*shown) {
            self.out.line(show::step(&step.state, &step.at, first))?;
        }
        *shown = command.life.len().max(*shown);
        Ok(())
    }
}

/// How long the command may take until the node has ended it. The node adds the transition to the
/// deadline, because nothing can be confirmed before the light has arrived; it takes none that is
/// longer than an hour.
fn patience(manner: &Manner, transition: Duration) -> Duration {
    let longest = Duration::from_millis(MAX_TRANSITION_MS.into());
    manner.deadline + transition.min(longest) + GRACE
}

/// The member `change` of the body of `POST /api/v1/commands`.
pub(super) fn change(args: &LightArgs) -> Value {
    let mut change = Map::new();
    let transition = args.transition.map(millis);
    let members = [
        ("on", args.power.map(devices::power)),
        ("brightness", args.brightness.map(|percent| json!(percent))),
        ("kelvin", args.kelvin.map(|kelvin| json!(kelvin))),
        ("color", args.color.as_ref().map(|color| color.to_json())),
        ("effect", args.effect.as_ref().map(|effect| json!(effect))),
        ("palette", args.palette.as_ref().map(|palette| json!(palette))),
        ("zones", (!args.zones.is_empty()).then(|| json!(args.zones))),
        ("transition_ms", transition),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            change.insert(name.into(), value);
        }
    }
    Value::Object(change)
}

/// A time as the API takes it.
pub(super) fn millis(time: Duration) -> Value {
    json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn has_ended(command: &Command) -> bool {
    is_final(&command.state)
}

/// What an ended command that was not confirmed comes to.
fn outcome(command: &Command) -> Option<Failure> {
    let reason = command.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let device = &command.device;
    let (exit, what, fix) = match command.state.as_str() {
        "confirmed" | "assumed" => return None,
        "timed_out" => (
            Exit::TimedOut,
            "did not confirm in time",
            "see with `hearth devices` whether it is online; a slow one needs a longer --deadline",
        ),
        "superseded" => {
            (Exit::Refused, "was given another command meanwhile", "nothing to do, or send it again")
        }
        _ => (Exit::Failure, "could not be commanded", "see with `hearth devices` whether it is online"),
    };
    Some(Failure::new(exit, format!("{device} {what}{reason}"), fix))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::cli::args::{Cli, Command as Parsed};
    use clap::Parser;

    fn parsed(line: &[&str]) -> LightArgs {
        let mut all = vec!["hearth", "light"];
        all.extend(line);
        let Parsed::Light(args) = Cli::try_parse_from(all).unwrap().command else { panic!("not a light") };
        args
    }

    fn body(line: &[&str]) -> Value {
        let args = parsed(line);
        devices::body(&args.name, &change(&args), &args.manner)
    }

    fn waits(line: &[&str]) -> Duration {
        let args = parsed(line);
        patience(&args.manner, args.transition.unwrap_or_default())
    }

    #[test]
    fn a_slow_transition_is_waited_for() {
        assert_eq!(waits(&["desk", "on"]), Duration::from_secs(10));
        let slow = waits(&["desk", "--brightness", "40", "--transition", "30s", "--deadline", "2s"]);
        assert_eq!(slow, Duration::from_secs(37), "the node ends it 32 s after it took it");
        assert!(waits(&["desk", "on", "--transition", "365d"]) < Duration::from_secs(3_700));
    }

    #[test]
    fn a_command_says_only_what_was_asked() {
        assert_eq!(
            body(&["desk", "toggle"]),
            json!({"device": "desk", "change": {"on": "toggle"}, "deadline_ms": 5000, "wait": false})
        );
        assert_eq!(
            body(&["desk", "--brightness", "40", "--kelvin", "2700", "--transition", "500ms", "--key", "k"]),
            json!({"device": "desk", "change": {"brightness": 40.0, "kelvin": 2700, "transition_ms": 500},
                "deadline_ms": 5000, "wait": false, "key": "k"})
        );
        assert_eq!(
            body(&["strip", "--zones", "10:red@50,4:2700K"])["change"]["zones"],
            json!([{"count": 10, "color": "red", "brightness": 50.0}, {"count": 4, "kelvin": 2700, "brightness": 100.0}])
        );
        assert_eq!(
            body(&["desk", "on", "--color", "0.4,0.3"])["change"]["color"],
            json!({"x": 0.4, "y": 0.3})
        );
    }

    #[test]
    fn each_end_has_its_exit_code() {
        for (state, exit) in [
            ("confirmed", None),
            ("assumed", None),
            ("timed_out", Some(Exit::TimedOut)),
            ("superseded", Some(Exit::Refused)),
            ("failed", Some(Exit::Failure)),
        ] {
            let command = Command { state: state.into(), reason: Some("why".into()), ..Command::default() };
            assert!(has_ended(&command));
            let failure = outcome(&command);
            assert_eq!(failure.as_ref().map(|failure| failure.exit), exit);
            assert!(failure.is_none_or(|failure| failure.detail.ends_with(": why")));
        }
        assert!(!has_ended(&Command { state: "acknowledged".into(), ..Command::default() }));
    }
}
