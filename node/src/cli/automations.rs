//! `hearth automation`.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::args::AutomationCommand;
use super::client::segment;
use super::exit::{Exit, Failure};
use super::model::{moment, read_list, show_moment};
use super::output::{Done, printable};
use super::schedules::{list, text};
use super::table::{Table, Tint};
use super::{Session, program};

const AUTOMATIONS: &str = "/api/v1/automations";

impl Session {
    pub(super) async fn automation(&self, command: &AutomationCommand) -> Done<Exit> {
        match command {
            AutomationCommand::List => {
                let answer = self.client.get(AUTOMATIONS).await?;
                let automations: Vec<Value> = read_list(&answer, "automations")?;
                let alone = list(&answer, "circuits").iter().map(left_alone);
                let shown =
                    || std::iter::once(all(&automations, self.out.colour)).chain(alone).collect::<Vec<_>>();
                self.out.either(&answer, || shown().join("\n"))?;
                Ok(Exit::Ok)
            }
            AutomationCommand::Show { name, toml: true } => self.print_program(name).await,
            AutomationCommand::Show { name, toml: false } => {
                let answer = self.client.get(&path(name)).await?;
                self.out.either(&answer, || one(&answer))?;
                Ok(Exit::Ok)
            }
            AutomationCommand::Set { name, file } => {
                let body = Value::Object(program::read(file)?);
                let answer = self.client.call(Method::PUT, &path(name), Some(&body)).await?;
                self.tell_stored(&answer, &format!("{name} is stored"))
            }
            AutomationCommand::Webhook { name, revoke } => self.webhook(name, *revoke).await,
            AutomationCommand::Test { name } => {
                let answer = self.client.get(&format!("{}/test", path(name))).await?;
                self.out.either(&answer, || rehearsal(&answer))?;
                Ok(Exit::Ok)
            }
            AutomationCommand::Start { name } => {
                let answer = self.client.call(Method::POST, &format!("{}/start", path(name)), None).await?;
                self.done(answer, format!("{name} is started: `hearth automation show {name}` has its run"))
            }
            AutomationCommand::Enable { name } => self.enable_automation(name, true).await,
            AutomationCommand::Disable { name } => self.enable_automation(name, false).await,
            AutomationCommand::Remove { name } => {
                let answer = self.client.call(Method::DELETE, &path(name), None).await?;
                self.done(answer, format!("{name} is deleted"))
            }
        }
    }

    async fn enable_automation(&self, name: &str, enabled: bool) -> Done<Exit> {
        let answer = self.client.call(Method::PATCH, &path(name), Some(&json!({"enabled": enabled}))).await?;
        self.tell_stored(&answer, &format!("{name} is {}", if enabled { "on" } else { "off" }))
    }

    /// Tells what an automation is now; nothing comes of one that is not understood.
    fn tell_stored(&self, automation: &Value, note: &str) -> Done<Exit> {
        if self.out.json {
            self.out.document(automation)?;
        }
        if text(automation, "state") != "invalid" {
            self.out.note(note);
            return Ok(Exit::Ok);
        }
        let detail = format!("{note}, and nothing comes of it: {}", text(automation, "reason"));
        let failure =
            Failure::new(Exit::Refused, detail, "set it again, mended: docs/automation.md has the forms");
        // In JSON the automation tells the same.
        if self.out.json { Ok(failure.exit) } else { Err(failure.into()) }
    }

    async fn print_program(&self, name: &str) -> Done<Exit> {
        let answer = self.client.get(&path(name)).await?;
        let Some(text) = program::to_toml(&whole(&answer)) else {
            let detail = format!("{name} has a null in it, and TOML has no word for that");
            let fix = format!("take `program` of: hearth automation show {name} --json");
            return Err(Failure::new(Exit::Failure, detail, fix).into());
        };
        self.out.either(&json!({"toml": text}), || text.trim_end().to_owned())?;
        Ok(Exit::Ok)
    }
}

fn path(name: &str) -> String {
    format!("{AUTOMATIONS}/{}", segment(name))
}

/// The program with what says whether it is on: what `set` takes.
fn whole(automation: &Value) -> Map<String, Value> {
    let mut program = automation.get("program").and_then(Value::as_object).cloned().unwrap_or_default();
    program.extend(automation.get("enabled").map(|enabled| ("enabled".to_owned(), enabled.clone())));
    program
}

/// A device that the automations of the node that was asked do not command for a while.
fn left_alone(circuit: &Value) -> String {
    let number = |name: &str| circuit.get(name).and_then(Value::as_u64).unwrap_or_default();
    let again = match number("again_in_s") {
        0 => "the next command tries it".to_owned(),
        seconds => format!("it is tried again in {seconds} s"),
    };
    let (device, reason) = (text(circuit, "device"), text(circuit, "reason"));
    let failed = number("failed");
    printable(&format!(
        "{device} is left alone: {failed} commands failed, the last one because {reason}; {again}"
    ))
}

fn all(automations: &[Value], colour: bool) -> String {
    if automations.is_empty() {
        return "there is no automation: docs/automation.md shows how to write one".to_owned();
    }
    let mut table = Table::new(&["NAME", "STATE", "BY", "LAST RUN", "WHY"]);
    for automation in automations {
        let state = text(automation, "state");
        let tint = match state {
            "running" => Tint::Good,
            "held" => Tint::Warn,
            "invalid" | "tripped" => Tint::Bad,
            _ => Tint::Plain,
        };
        let last = list(automation, "runs").first();
        let why = match (text(automation, "reason"), last) {
            ("", Some(run)) => text(run, "end"),
            (reason, _) => reason,
        };
        let last = last.map(|run| {
            format!("{} {}", run.get("at").map(show_moment).unwrap_or_default(), text(run, "state"))
        });
        let plain = |text: &str| (text.to_owned(), Tint::Plain);
        table.row([
            plain(text(automation, "name")),
            (state.to_owned(), tint),
            plain(text(automation, "by")),
            plain(&last.unwrap_or_default()),
            plain(why),
        ]);
    }
    table.render(colour)
}

/// An automation as it is written, and its runs, the latest first.
fn one(automation: &Value) -> String {
    let mut head = format!("{}  ({}", text(automation, "name"), text(automation, "state"));
    for (word, member) in [(": ", "reason"), (", by ", "by")] {
        if !text(automation, member).is_empty() {
            head.push_str(&format!("{word}{}", text(automation, member)));
        }
    }
    let program = whole(automation);
    let written = program::to_toml(&program).unwrap_or_else(|| Value::Object(program).to_string());
    let written = printable(written.trim_end()).replace('\n', "\n  ");
    let runs: String = list(automation, "runs").iter().map(run).collect();
    // Of an empty line nothing is left.
    format!("{})\n  {written}{runs}", printable(&head)).replace("\n  \n", "\n\n")
}

/// A run, with its trace.
fn run(run: &Value) -> String {
    let at = run.get("at").unwrap_or(&Value::Null);
    let mut head = format!("\n\n{}  {}", show_moment(at), text(run, "state"));
    if let Some(time) = run.get("ended").and_then(|ended| since(ended, at)) {
        head.push_str(&format!(" after {time} ms"));
    }
    head.push_str(&format!(" by {}: {}", text(run, "node"), text(run, "why")));
    if !text(run, "end").is_empty() {
        head.push_str(&format!("; {}", text(run, "end")));
    }
    let mut trace = Table::new(&[">WHEN", "STEP", "WHAT", "OUTCOME", ">TOOK"]);
    for line in list(run, "trace") {
        let when = line.get("at").and_then(|line| since(line, at));
        let took = line.get("took_ms").and_then(Value::as_u64).filter(|_| !text(line, "outcome").is_empty());
        trace.plain([
            when.map(|ms| format!("+{ms} ms")).unwrap_or_default(),
            text(line, "step").to_owned(),
            text(line, "what").to_owned(),
            text(line, "outcome").to_owned(),
            took.map(|ms| format!("{ms} ms")).unwrap_or_default(),
        ]);
    }
    let mut shown = printable(&head);
    if !trace.is_empty() {
        shown.push_str(&format!("\n  {}", trace.render(false).replace('\n', "\n  ")));
    }
    match run.get("left_out").and_then(Value::as_u64) {
        None | Some(0) => {}
        Some(count) => shown.push_str(&format!("\n  {count} lines are left out of its middle")),
    }
    shown
}

/// The milliseconds between two moments.
fn since(at: &Value, first: &Value) -> Option<i64> {
    Some(moment(at)?.as_millisecond().saturating_sub(moment(first)?.as_millisecond()))
}

/// What an automation would do now.
fn rehearsal(told: &Value) -> String {
    let mut lines = Vec::new();
    for condition in list(told, "conditions") {
        let index = condition.get("index").and_then(Value::as_u64).unwrap_or_default();
        let holds = match condition.get("holds").and_then(Value::as_bool) {
            Some(true) => "holds".to_owned(),
            Some(false) => "does not hold".to_owned(),
            None => format!("nobody can say: {}", text(condition, "reason")),
        };
        lines.push(format!("conditions[{index}]  {holds}"));
    }
    lines.extend(list(told, "steps").iter().filter_map(Value::as_str).map(str::to_owned));
    lines.push(text(told, "end").to_owned());
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn automation() -> Value {
        json!({
            "name": "bell", "enabled": true, "state": "tripped", "reason": "it runs away", "by": "kitchen",
            "program": {"triggers": [{"event": "bell"}], "conditions": [], "mode": "", "max": null,
                "actions": [{"device": "Hall", "change": {"on": true}}, {"device": "Attic", "change": {"on": true}}]},
            "runs": [{"why": "event bell", "at": "2026-11-29T20:00:00.000Z", "state": "failed", "node": "cellar",
                "end": "Attic: no device", "ended": "2026-11-29T20:00:02.500Z", "left_out": 3, "trace": [
                    {"at": "2026-11-29T20:00:00.010Z", "step": "0", "what": "\"Hall\" {\"on\":true}", "outcome": "ok", "took_ms": 120},
                    {"at": "2026-11-29T20:00:00.140Z", "step": "1", "what": "\"Attic\" {\"on\":true}", "outcome": "", "took_ms": 0}]}],
        })
    }

    #[test]
    fn an_automation_tells_how_it_is_written_and_what_its_runs_did() {
        assert_eq!(
            one(&automation()),
            "bell  (tripped: it runs away, by kitchen)\n  [[triggers]]\n  event = \"bell\"\n\n  \
             [[actions]]\n  device = \"Hall\"\n  change = { on = true }\n\n  \
             [[actions]]\n  device = \"Attic\"\n  change = { on = true }\n\n\
             2026-11-29T20:00:00.000Z  failed after 2500 ms by cellar: event bell; Attic: no device\n  \
             \u{20}  WHEN  STEP  WHAT                 OUTCOME    TOOK\n  \
             \u{20}+10 ms  0     \"Hall\" {\"on\":true}   ok       120 ms\n  \
             +140 ms  1     \"Attic\" {\"on\":true}  -             -\n  \
             3 lines are left out of its middle"
        );
    }

    #[test]
    fn a_list_has_a_line_for_each_with_the_last_run() {
        let shown = all(&[automation()], false);
        let row: Vec<&str> = shown.lines().nth(1).unwrap().split("  ").collect();
        assert_eq!(row, ["bell", "tripped", "kitchen", "2026-11-29T20:00:00.000Z failed", "it runs away"]);
        assert!(all(&[], false).contains("docs/automation.md"));
        let circuit = json!({"device": "device/x", "state": "open", "failed": 3, "reason": "no answer", "again_in_s": 30});
        let shown = "device/x is left alone: 3 commands failed, the last one because no answer; it is tried again in 30 s";
        assert_eq!(left_alone(&circuit), shown);
    }

    #[test]
    fn a_rehearsal_tells_what_holds_and_what_would_be_done() {
        let told = json!({
            "conditions": [{"index": 0, "holds": true}, {"index": 1, "holds": false},
                {"index": 2, "holds": null, "reason": "there is no device `attic`"}],
            "steps": ["\"hall\" {\"on\":true}", "waits 2m"], "end": "it comes to its end",
        });
        assert_eq!(
            rehearsal(&told),
            "conditions[0]  holds\nconditions[1]  does not hold\n\
             conditions[2]  nobody can say: there is no device `attic`\n\
             \"hall\" {\"on\":true}\nwaits 2m\nit comes to its end"
        );
    }
}
