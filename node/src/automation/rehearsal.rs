//! A rehearsal: what an automation would do now, told and not done.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    carry::Hands,
    course::{Course, End, Move, World},
    deeds::{shown, waited},
    program::{Action, Program, What},
};

/// Steps that are told.
const MAX_STEPS: usize = 200;

/// What an automation would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rehearsal {
    /// Whether each of its conditions holds now, or why nobody can say.
    pub conditions: Vec<Judged>,
    /// What it would do, were it started now: every step goes well, and every wait is over at its end. A step that
    /// names what is not there says so.
    pub steps: Vec<String>,
    /// How it would end.
    pub end: String,
}

/// Whether a condition holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Its place among the conditions, from 0.
    pub index: usize,
    /// Whether it holds; none when nobody can say.
    pub holds: Option<bool>,
    /// Why nobody can say.
    pub reason: Option<String>,
}

/// What is said of the steps that name what is not there: they are looked up as a run does it.
pub(super) async fn missing(program: &Program, hands: &Hands) -> Vec<(What, String)> {
    let mut missing = Vec::new();
    for what in deeds(&program.actions) {
        if let What::Command(step) | What::Scene(step) = what
            && let Err(reason) = hands.look(step).await
        {
            missing.push((what.clone(), reason));
        }
    }
    missing
}

fn deeds(actions: &[Action]) -> Vec<&What> {
    actions.iter().flat_map(deeds_of).collect()
}

fn deeds_of(action: &Action) -> Vec<&What> {
    match action {
        Action::Do(deed) => vec![&deed.what],
        Action::Choose { branches, otherwise } => {
            let branches = branches.iter().flat_map(|branch| deeds(&branch.actions));
            branches.chain(deeds(otherwise)).collect()
        }
        Action::Repeat { actions, .. } => deeds(actions),
        Action::Delay(_) | Action::Wait(_) => Vec::new(),
    }
}

/// Rehearses a program from a moment on.
pub(super) fn rehearse(
    program: &Program,
    world: &impl World,
    missing: &[(What, String)],
    now: Timestamp,
) -> Rehearsal {
    let judge = |(index, condition)| match world.holds(condition) {
        Ok(holds) => Judged { index, holds: Some(holds), reason: None },
        Err(reason) => Judged { index, holds: None, reason: Some(reason) },
    };
    let conditions = program.conditions.iter().enumerate().map(judge).collect();
    let (mut course, mut at, mut steps) = (Course::default(), now, Vec::new());
    let end = loop {
        if steps.len() >= MAX_STEPS {
            break format!("it goes on: {MAX_STEPS} steps are told");
        }
        match course.next(program, world, at) {
            Move::Do { deed, .. } => {
                steps.push(told(&deed.what, missing));
                course.did(program, Ok(()));
            }
            Move::Wait { until, waiting } => {
                steps.push(waited(until.duration_since(at), waiting));
                at = until;
            }
            Move::Again => {}
            Move::End(End::Done) => break "it comes to its end".to_owned(),
            Move::End(End::Stopped(why)) => break format!("it stops: {why}"),
            Move::End(End::Failed(why)) => break format!("it fails: {why}"),
        }
    };
    Rehearsal { conditions, steps, end }
}

/// What a step does, and why it cannot.
fn told(what: &What, missing: &[(What, String)]) -> String {
    match missing.iter().find(|(step, _)| step == what) {
        Some((_, reason)) => format!("{}: {reason}", shown(what)),
        None => shown(what),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use serde_json::json;

    use super::*;
    use crate::automation::program::{Condition, ProgramText};

    struct Nobody;

    impl World for Nobody {
        fn holds(&self, condition: &Condition) -> Result<bool, String> {
            match condition {
                Condition::Not(_) => Ok(true),
                _ => Err("there is no device `attic`".to_owned()),
            }
        }
    }

    #[test]
    fn what_it_would_do_is_told_with_what_nobody_can_judge() {
        let text = json!({
            "triggers": [{"event": "x"}],
            "conditions": [{"state": "attic", "is": 1}, {"not": {"state": "attic", "is": 1}}],
            "actions": [
                {"device": "hall", "change": {"on": true}},
                {"delay": "90s"},
                {"repeat": 2, "do": [{"event": "chime"}]},
                {"wait": {"event": "bell"}, "timeout": "1m"},
                {"http": {"url": "https://example.org/secret?x=1"}}
            ]
        });
        let program = serde_json::from_value::<ProgramText>(text).unwrap().parse().unwrap();
        let hall = deeds(&program.actions)[0].clone();
        let missing = [(hall, "there is no device `hall`".to_owned())];
        let told = rehearse(&program, &Nobody, &missing, Timestamp::UNIX_EPOCH);
        assert_eq!(
            told.steps,
            [
                r#""hall" {"on":true}: there is no device `hall`"#,
                "waits 1m 30s",
                "event chime",
                "event chime",
                "waits, at most 1m"
            ]
        );
        assert_eq!(told.end, "it stops: what it waited for did not come");
        assert_eq!(told.conditions.iter().map(|judged| judged.holds).collect::<Vec<_>>(), [None, Some(true)]);
    }
}
