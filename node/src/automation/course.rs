//! The course of a run: where it is in its program, what it waits for, and what is to be taken back should it fail. Pure.
//!
//! All of it is stored before each step, so that another node goes on where this one died. What is done is absolute and has a key of
//! its own, so doing the step that was under way once more does no harm.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    program::{Action, Condition, Deed, Program, Waiting},
    runs::clipped,
};

/// Steps of one run; a run beyond turns in circles.
const MAX_STEPS: u32 = 10_000;
/// Steps that are looked at in one go: each may have conditions that cost time, and others wait meanwhile.
const AT_ONCE: u32 = 16;
/// Deeds of a run that can be taken back; the oldest are forgotten first.
const MAX_UNDO: usize = 16;

/// Where an action stands: its index in the outermost list, then of the branch and in the list within, and so on.
pub(crate) type Path = Vec<u16>;

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Course {
    /// The action that is next.
    #[serde(default)]
    at: Path,
    /// Of each repetition around it, from the outermost in: how many turns are left, this one among them.
    #[serde(default)]
    turns: Vec<u16>,
    /// Until when it waits, in milliseconds since 1970.
    #[serde(default)]
    until: Option<i64>,
    /// How often the action was tried in vain.
    #[serde(default)]
    tries: u8,
    /// What was done and can be taken back, in its order.
    #[serde(default)]
    done: Vec<Path>,
    /// Why it failed, while it is being taken back.
    #[serde(default)]
    failed: Option<String>,
    /// Of the deed that is being taken back: which of its undo steps is next.
    #[serde(default)]
    undone: u16,
    #[serde(default)]
    steps: u32,
    /// How many tries have ended.
    #[serde(default)]
    turn: u32,
}

/// What a run does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Move<'p> {
    /// This, and then [`Course::did`] is told how that went.
    Do { deed: &'p Deed, path: Path },
    /// Nothing before that moment, unless what is waited for comes first.
    Wait { until: Timestamp, waiting: Option<&'p Waiting> },
    /// More of the same: it was looked at many steps, and the next one is to be asked for.
    Again,
    /// Nothing any more.
    End(End),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It came to its end.
    Done,
    /// It waited in vain, which is no failure.
    Stopped(String),
    /// A step failed, and what could be taken back was.
    Failed(String),
}

/// What a run sees of the world.
pub(crate) trait World {
    /// Whether a condition holds.
    ///
    /// # Errors
    /// Why nobody can say.
    fn holds(&self, condition: &Condition) -> Result<bool, String>;
}

impl Course {
    /// The next move. What it decides on the way (a branch, a turn) is part of the course from then on.
    pub(crate) fn next<'p>(&mut self, program: &'p Program, world: &impl World, now: Timestamp) -> Move<'p> {
        if self.failed.is_some() {
            return self.next_undo(program);
        }
        if self.at.is_empty() {
            self.at.push(0);
        }
        for _ in 0..AT_ONCE {
            // To look again at what is waited for is no step more.
            self.steps += u32::from(self.until.is_none());
            if self.steps > MAX_STEPS {
                self.fail(format!("it took more than {MAX_STEPS} steps: it turns in circles"));
                return self.next_undo(program);
            }
            let Some(action) = find(&program.actions, &self.at) else {
                if self.at.len() == 1 {
                    return Move::End(End::Done);
                }
                if let Err(why) = self.leave(program, world) {
                    self.fail(why);
                    return self.next_undo(program);
                }
                continue;
            };
            match self.enter(action, world, now) {
                Ok(None) => {}
                Ok(Some(next)) => return next,
                Err(why) => {
                    self.fail(why);
                    return self.next_undo(program);
                }
            }
        }
        Move::Again
    }

    /// What an action comes to; none when there is another one to look at.
    fn enter<'p>(
        &mut self,
        action: &'p Action,
        world: &impl World,
        now: Timestamp,
    ) -> Result<Option<Move<'p>>, String> {
        match action {
            Action::Do(deed) => return Ok(Some(Move::Do { deed, path: self.at.clone() })),
            Action::Delay(time) => {
                let until = self.wait_until(now, *time);
                if now < until {
                    return Ok(Some(Move::Wait { until, waiting: None }));
                }
                self.step_on();
            }
            Action::Wait(waiting) => {
                let until = self.wait_until(now, waiting.timeout);
                let is_so = !waiting.until.is_empty() && all(&waiting.until, world)?;
                if !is_so && now < until {
                    return Ok(Some(Move::Wait { until, waiting: Some(waiting) }));
                }
                if !is_so && !waiting.goes_on {
                    return Ok(Some(Move::End(End::Stopped("what it waited for did not come".to_owned()))));
                }
                self.step_on();
            }
            Action::Choose { branches, .. } => {
                let mut chosen = branches.len();
                for (index, branch) in branches.iter().enumerate() {
                    if all(&branch.conditions, world)? {
                        chosen = index;
                        break;
                    }
                }
                self.at.extend([u16::try_from(chosen).unwrap_or(u16::MAX), 0]);
            }
            Action::Repeat { times, conditions, .. } => {
                if all(conditions, world)? {
                    self.turns.push(*times);
                    self.at.extend([0, 0]);
                } else {
                    self.step_on();
                }
            }
        }
        Ok(None)
    }

    /// The end of a list within: a repetition begins its next turn, or the action around it is over.
    fn leave(&mut self, program: &Program, world: &impl World) -> Result<(), String> {
        self.at.truncate(self.at.len().saturating_sub(2));
        if let Some(Action::Repeat { conditions, .. }) = find(&program.actions, &self.at) {
            let left = self.turns.pop().unwrap_or(0).saturating_sub(1);
            if left > 0 && all(conditions, world)? {
                self.turns.push(left);
                self.at.extend([0, 0]);
                return Ok(());
            }
        }
        self.step_on();
        Ok(())
    }

    /// The action after this one.
    fn step_on(&mut self) {
        (self.until, self.tries) = (None, 0);
        if let Some(last) = self.at.last_mut() {
            *last = last.saturating_add(1);
        }
    }

    fn wait_until(&mut self, now: Timestamp, time: std::time::Duration) -> Timestamp {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        let begun = || now.checked_add(time).unwrap_or(Timestamp::MAX).as_millisecond();
        let until = *self.until.get_or_insert_with(begun);
        Timestamp::from_millisecond(until).unwrap_or(Timestamp::MAX)
    }

    /// The clock was set by so much; whether that moves a moment that is waited for.
    pub(crate) fn shift(&mut self, by: SignedDuration) -> bool {
        let moved = self.until.map(|until| until.saturating_add(i64::try_from(by.as_millis()).unwrap_or(0)));
        self.until = moved;
        moved.is_some()
    }

    /// Hears an event; whether it is the one that is waited for.
    pub(crate) fn hear(&mut self, program: &Program, topic: &str) -> bool {
        let waits = match find(&program.actions, &self.at) {
            Some(Action::Wait(waiting)) if self.failed.is_none() && self.until.is_some() => {
                waiting.event.as_ref().is_some_and(|event| event.takes(topic))
            }
            _ => false,
        };
        if waits {
            self.step_on();
        }
        waits
    }

    /// Where it is.
    pub(crate) fn at(&self) -> &[u16] {
        &self.at
    }

    /// A number that is another one for each step and each try, and the same for one that is done once more after a restart.
    pub(crate) fn turn(&self) -> u32 {
        self.turn
    }

    /// How the last [`Move::Do`] went; what failed is tried again as often as it says, and then everything is taken back.
    pub(crate) fn did(&mut self, program: &Program, outcome: Result<(), String>) {
        self.turn = self.turn.wrapping_add(1);
        if self.failed.is_some() {
            // What takes back is done as far as it can be; the trace has the rest.
            self.undone = self.undone.saturating_add(1);
            return;
        }
        let Some(Action::Do(deed)) = find(&program.actions, &self.at) else { return };
        match outcome {
            Ok(()) => {
                self.remember(deed);
                self.step_on();
            }
            Err(_) if self.tries < deed.retry => self.tries += 1,
            // One that failed may have been carried out in part.
            Err(why) => {
                self.remember(deed);
                self.fail(why);
            }
        }
    }

    /// What was done is to be taken back should a later step fail.
    fn remember(&mut self, deed: &Deed) {
        if deed.undo.is_empty() {
            return;
        }
        if self.done.len() >= MAX_UNDO {
            self.done.remove(0);
        }
        self.done.push(self.at.clone());
    }

    fn fail(&mut self, why: String) {
        (self.failed, self.undone) = (Some(clipped(&why)), 0);
    }

    /// Takes back what was done last, and so on.
    fn next_undo<'p>(&mut self, program: &'p Program) -> Move<'p> {
        while let Some(path) = self.done.last() {
            if let Some(Action::Do(deed)) = find(&program.actions, path)
                && let Some(undo) = deed.undo.get(usize::from(self.undone))
            {
                return Move::Do { deed: undo, path: path.clone() };
            }
            self.done.pop();
            self.undone = 0;
        }
        Move::End(End::Failed(self.failed.clone().unwrap_or_default()))
    }
}

/// The action at a path.
pub(crate) fn find<'p>(actions: &'p [Action], path: &[u16]) -> Option<&'p Action> {
    let (index, rest) = path.split_first()?;
    let action = actions.get(usize::from(*index))?;
    let Some((branch, within)) = rest.split_first() else { return Some(action) };
    let branch = usize::from(*branch);
    match action {
        Action::Choose { branches, otherwise } => find(
            branches.get(branch).map_or(otherwise.as_slice(), |branch| branch.actions.as_slice()),
            within,
        ),
        Action::Repeat { actions, .. } => find(actions, within),
        Action::Do(_) | Action::Delay(_) | Action::Wait(_) => None,
    }
}

fn all(conditions: &[Condition], world: &impl World) -> Result<bool, String> {
    for condition in conditions {
        if !world.holds(condition)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::cell::Cell;

    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::automation::program::{ProgramText, What};

    /// A world in which the conditions on these devices hold.
    struct So(Vec<&'static str>);

    impl World for So {
        fn holds(&self, condition: &Condition) -> Result<bool, String> {
            match condition {
                Condition::State(what, _) if what.device == "nobody" => {
                    Err("there is no device `nobody`".to_owned())
                }
                Condition::State(what, _) => Ok(self.0.contains(&what.device.as_str())),
                other => panic!("{other:?}"),
            }
        }
    }

    fn program(actions: Json) -> Program {
        let text = json!({"triggers": [{"event": "x"}], "actions": actions});
        serde_json::from_value::<ProgramText>(text).unwrap().parse().unwrap()
    }

    fn second(at: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + at).unwrap()
    }

    /// Runs to its end; what was done, with the time. What is called `bad` fails. The course goes through its stored form at each step.
    fn run(program: &Program, world: &So) -> (Vec<String>, End) {
        let (mut course, mut now, mut done) = (Course::default(), 0, Vec::new());
        loop {
            course = serde_json::from_str(&serde_json::to_string(&course).unwrap()).unwrap();
            match course.next(program, world, second(now)) {
                Move::Do { deed, .. } => {
                    let What::Event { topic, .. } = &deed.what else { panic!() };
                    done.push(format!("{topic}@{now}"));
                    course.did(
                        program,
                        if topic.starts_with("bad") { Err(format!("{topic} failed")) } else { Ok(()) },
                    );
                }
                Move::Wait { until, .. } => now = until.as_second() - second(0).as_second(),
                Move::Again => {}
                Move::End(end) => return (done, end),
            }
            assert!(done.len() < 2_000, "it never ends");
        }
    }

    fn event(topic: &str) -> Json {
        json!({"event": topic})
    }

    #[test]
    fn steps_follow_one_another_with_delays_branches_and_turns() {
        let program = program(json!([
            event("a"),
            {"delay": "2m"},
            {"choose": [
                {"if": [{"state": "door", "is": true}], "do": [event("open")]},
                {"if": [{"state": "window", "is": true}], "do": [event("b"), {"delay": "1s"}, event("c")]}
            ], "else": [event("closed")]},
            {"repeat": 2, "do": [{"repeat": 3, "do": [event("tick"), {"delay": "1s"}]}, event("tock")]},
            event("z")
        ]));
        let (done, end) = run(&program, &So(vec!["window"]));
        assert_eq!(
            done,
            [
                "a@0", "b@120", "c@121", "tick@121", "tick@122", "tick@123", "tock@124", "tick@124",
                "tick@125", "tick@126", "tock@127", "z@127"
            ]
        );
        assert_eq!(end, End::Done);
        assert_eq!(run(&program, &So(vec![])).0[1], "closed@120");
    }

    #[test]
    fn what_is_waited_for_is_taken_when_it_comes_and_missed_when_it_does_not() {
        let until = |otherwise: &str| {
            program(
                json!([{"wait": [{"state": "door", "is": true}], "timeout": "30s", "otherwise": otherwise}, event("a")]),
            )
        };
        assert_eq!(run(&until("stop"), &So(vec!["door"])), (vec!["a@0".to_owned()], End::Done));
        assert!(matches!(run(&until("stop"), &So(vec![])), (done, End::Stopped(_)) if done.is_empty()));
        assert_eq!(run(&until("go_on"), &So(vec![])).0, ["a@30"]);
        let event = program(json!([{"wait": {"event": "bell"}, "timeout": "30s"}, event("a")]));
        let mut course = Course::default();
        let Move::Wait { waiting: Some(waiting), .. } = course.next(&event, &So(vec![]), second(0)) else {
            panic!()
        };
        assert!(waiting.event.as_ref().unwrap().takes("bell"));
        assert!(!course.hear(&event, "door") && course.hear(&event, "bell") && !course.hear(&event, "bell"));
        assert!(matches!(course.next(&event, &So(vec![]), second(5)), Move::Do { .. }));
    }

    #[test]
    fn a_failure_takes_back_what_was_done_the_last_first() {
        let program = program(json!([
            {"event": "one", "undo": [event("undo1"), event("undo1b")]},
            event("two"),
            {"repeat": 2, "do": [{"event": "three", "undo": [event("bad.undo3")]}]},
            {"event": "bad", "retry": 2, "undo": [event("undo4")]},
            event("never")
        ]));
        let (done, end) = run(&program, &So(vec![]));
        assert_eq!(
            done.iter().map(|done| done.trim_end_matches("@0")).collect::<Vec<_>>(),
            [
                "one",
                "two",
                "three",
                "three",
                "bad",
                "bad",
                "bad",
                "undo4",
                "bad.undo3",
                "bad.undo3",
                "undo1",
                "undo1b"
            ]
        );
        assert_eq!(end, End::Failed("bad failed".to_owned()));
    }

    #[test]
    fn a_condition_that_nobody_can_judge_fails_the_run_in_words() {
        let program = program(json!([
            {"event": "one", "undo": [event("undo1")]},
            {"choose": [{"if": [{"state": "nobody", "is": 1}], "do": []}]}
        ]));
        let (done, end) = run(&program, &So(vec![]));
        assert_eq!(done, ["one@0", "undo1@0"]);
        assert_eq!(end, End::Failed("there is no device `nobody`".to_owned()));
    }

    #[test]
    fn one_that_turns_in_circles_ends() {
        let program = program(
            json!([{"repeat": 1000, "do": [{"repeat": 1000, "do": [{"choose": [{"if": [], "do": []}]}]}]}]),
        );
        let (_, end) = run(&program, &So(vec![]));
        assert!(matches!(end, End::Failed(why) if why.contains("10000 steps")));
    }

    /// A part of a program, before its events are numbered.
    #[derive(Debug, Clone)]
    enum Part {
        Deed { retry: u8, undo: usize },
        Delay,
        Wait { goes_on: bool },
        Choose(Vec<Vec<Part>>, Vec<Part>),
        Repeat { times: u16, looks: bool, parts: Vec<Part> },
    }

    impl Part {
        /// As it is written. Each deed has another number, and what takes it back has that too.
        fn text(&self, number: &mut usize) -> Json {
            let list = |parts: &[Self], number: &mut usize| {
                parts.iter().map(|part| part.text(number)).collect::<Vec<_>>()
            };
            let holds = json!([{"state": "door", "is": true}]);
            match self {
                Self::Deed { retry, undo } => {
                    *number += 1;
                    let undo: Vec<Json> =
                        (0..*undo).map(|index| event(&format!("u{number}.{index}"))).collect();
                    json!({"event": format!("d{number}"), "retry": retry, "undo": undo})
                }
                Self::Delay => json!({"delay": "3s"}),
                Self::Wait { goes_on } => {
                    let otherwise = if *goes_on { "go_on" } else { "stop" };
                    json!({"wait": holds, "timeout": "5s", "otherwise": otherwise})
                }
                Self::Choose(branches, otherwise) => {
                    let branches: Vec<Json> = branches
                        .iter()
                        .map(|parts| json!({"if": holds, "do": list(parts, number)}))
                        .collect();
                    json!({"choose": branches, "else": list(otherwise, number)})
                }
                Self::Repeat { times, looks, parts } => {
                    let r#while = if *looks { holds } else { json!([]) };
                    json!({"repeat": times, "while": r#while, "do": list(parts, number)})
                }
            }
        }
    }

    fn any_program() -> impl Strategy<Value = Program> {
        let leaf = prop_oneof![
            4 => (0..3_u8, 0..3_usize).prop_map(|(retry, undo)| Part::Deed { retry, undo }),
            1 => Just(Part::Delay),
            1 => any::<bool>().prop_map(|goes_on| Part::Wait { goes_on }),
        ];
        let part = leaf.prop_recursive(3, 24, 4, |inner| {
            let list = vec(inner, 1..4);
            prop_oneof![
                (vec(list.clone(), 1..3), list.clone())
                    .prop_map(|(branches, otherwise)| Part::Choose(branches, otherwise)),
                (1..5_u16, any::<bool>(), list).prop_map(|(times, looks, parts)| Part::Repeat {
                    times,
                    looks,
                    parts
                }),
            ]
        });
        vec(part, 1..6).prop_filter_map("it has too many actions", |parts| {
            let actions: Vec<Json> = parts.iter().scan(0, |number, part| Some(part.text(number))).collect();
            let text = json!({"triggers": [{"event": "x"}], "actions": actions});
            serde_json::from_value::<ProgramText>(text).ok()?.parse().ok()
        })
    }

    /// A world that answers as a list says, over and over; now and then nobody can say.
    struct Said(Vec<u8>, Cell<usize>);

    impl Said {
        fn next(&self) -> u8 {
            let at = self.1.get();
            self.1.set(at + 1);
            self.0[at % self.0.len()]
        }
    }

    impl World for Said {
        fn holds(&self, _: &Condition) -> Result<bool, String> {
            match self.next() {
                0 => Err("nobody knows".to_owned()),
                said => Ok(said % 2 == 0),
            }
        }
    }

    #[derive(Debug, Clone, PartialEq)]
    struct Step {
        path: Path,
        /// Which of the undo steps it is.
        undo: Option<usize>,
        turn: u32,
        is_ok: bool,
    }

    /// Runs a program to its end; all it did.
    fn course(program: &Program, said: &[u8], is_stored: bool) -> (Vec<Step>, End) {
        let (world, mut course, mut now) = (Said(said.to_vec(), Cell::new(0)), Course::default(), 0);
        let mut steps = Vec::new();
        for _ in 0..2 * MAX_STEPS {
            if is_stored {
                course = serde_json::from_value(serde_json::to_value(&course).unwrap()).unwrap();
            }
            match course.next(program, &world, second(now)) {
                Move::Do { deed, path } => {
                    let Some(Action::Do(around)) = find(&program.actions, &path) else { panic!("{path:?}") };
                    let undo = around.undo.iter().position(|undo| undo == deed);
                    assert!(undo.is_some() || around == deed);
                    let is_ok = world.next() > 20;
                    let turn = course.turn();
                    steps.push(Step { path: path.clone(), undo, turn, is_ok });
                    course.did(program, if is_ok { Ok(()) } else { Err("it failed".to_owned()) });
                }
                Move::Wait { until, .. } => now = (until.as_second() - second(0).as_second()).min(now + 2),
                Move::Again => {}
                Move::End(end) => {
                    let again = course.next(program, &world, second(now));
                    assert!(again == Move::End(end.clone()) || end != End::Done, "{again:?}");
                    return (steps, end);
                }
            }
        }
        panic!("it never ends: {program:?}");
    }

    proptest! {
        #[test]
        fn any_course_ends_and_takes_back_once_what_was_done_the_last_first(
            program in any_program(),
            said in vec(any::<u8>(), 1..40),
        ) {
            let (steps, end) = course(&program, &said, false);
            prop_assert_eq!(&course(&program, &said, true), &(steps.clone(), end.clone()));
            let first_undo = steps.iter().position(|step| step.undo.is_some()).unwrap_or(steps.len());
            let (done, undone) = steps.split_at(first_undo);
            prop_assert!(undone.iter().all(|step| step.undo.is_some()), "it goes back and not on again");
            let turns: Vec<u32> = steps.iter().map(|step| step.turn).collect();
            prop_assert!(turns.windows(2).all(|two| two[0] < two[1]), "each try has a key of its own");
            // What went well, and what failed for good, is taken back; of what is tried again the last try counts.
            let failed = matches!(end, End::Failed(_));
            let counts = |(at, step): &(usize, &Step)| step.is_ok || (failed && at + 1 == done.len());
            let mut expected = Vec::new();
            for (_, step) in done.iter().enumerate().filter(counts) {
                let Some(Action::Do(deed)) = find(&program.actions, &step.path) else { panic!() };
                if !deed.undo.is_empty() {
                    expected.push((step.path.clone(), deed.undo.len()));
                }
            }
            let latest = expected.split_off(expected.len().saturating_sub(MAX_UNDO));
            let expected: Vec<_> = latest
                .iter()
                .rev()
                .flat_map(|(path, undo)| (0..*undo).map(|index| (path.clone(), Some(index))))
                .collect();
            let undone: Vec<_> = undone.iter().map(|step| (step.path.clone(), step.undo)).collect();
            prop_assert_eq!(undone, if failed { expected } else { Vec::new() });
        }
    }
}
