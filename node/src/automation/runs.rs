//! A run of an automation as it is stored: the field `run.NODE.PLACE` of the automation's object, written over in place.
//!
//! It is flushed before each step, so that after a power cut or the death of its node somebody goes on where it was. A run that was taken
//! over stands in two fields; the one that was written there later counts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mesh_proto::{FieldName, ShortId, Value, value::MAX_DEPTH};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{course::Course, sentry::Firing};
use crate::devices::{decode, encode};

/// Runs that a node keeps of an automation: those under way, and the last ones that ended.
pub(crate) const PLACES: u8 = 8;
/// Lines of a trace that are kept: the first ones, and the latest.
const MAX_LINES: usize = 24;
/// Of them the first ones.
const FIRST_LINES: usize = 4;
/// Longest text in a trace, in bytes.
const MAX_TEXT: usize = 96;
/// Longest data of what started it, as JSON in bytes: what an event carries, with what is said of the event.
const MAX_DATA: usize = 1_100;
const MAX_DATA_DEPTH: usize = MAX_DEPTH - 2;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It goes on.
    Running,
    /// It waits for its turn.
    Queued,
    /// It came to its end.
    Done,
    /// What it waited for did not come, or somebody ended it.
    Stopped,
    /// A step failed; what could be taken back was.
    Failed,
    /// Its conditions did not hold.
    Refused,
    /// A word that a newer version writes.
    #[serde(other)]
    Other,
}

impl State {
    /// Whether it is not over.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Queued)
    }
}

/// A line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When, in milliseconds since 1970.
    pub(crate) at: i64,
    /// The step's path, such as `2.0.1`; empty for the run as a whole.
    #[serde(default)]
    pub(crate) step: String,
    /// What was done, or why.
    pub(crate) what: String,
    /// How it went, when that is known: `ok`, or what failed.
    #[serde(default)]
    pub(crate) outcome: String,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub(crate) took: u32,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Of what started it.
    pub(crate) id: u64,
    pub(crate) state: State,
    /// Why it was started, for people, and what expressions see as `trigger`.
    pub(crate) why: String,
    pub(crate) data: Json,
    /// When it was started, in milliseconds since 1970, and when this node took it.
    pub(crate) at: i64,
    pub(crate) took: i64,
    #[serde(default)]
    pub(crate) ended: Option<i64>,
    /// How it ended, for people.
    #[serde(default)]
    pub(crate) end: String,
    /// The program that it follows, hashed: another one cannot be followed from the middle.
    pub(crate) program: u64,
    #[serde(default)]
    pub(crate) course: Course,
    #[serde(default)]
    pub(crate) trace: Vec<Line>,
    /// Lines that were left out of the middle of the trace.
    #[serde(default)]
    pub(crate) left_out: u32,
}

impl Run {
    pub(crate) fn new(firing: &Firing, program: u64, now: Timestamp) -> Self {
        let fits = firing.data.to_string().len() <= MAX_DATA && depth(&firing.data) <= MAX_DATA_DEPTH;
        let data = if fits { firing.data.clone() } else { Json::Null };
        let mut run = Self {
            id: firing.id,
            state: State::Running,
            why: clipped(&firing.why),
            data,
            at: firing.at.as_millisecond(),
            took: now.as_millisecond(),
            ended: None,
            end: String::new(),
            program,
            course: Course::default(),
            trace: Vec::new(),
            left_out: 0,
        };
        if !fits {
            run.note(now, &[], "what started it said more than is kept", "`trigger` is empty", 0);
        }
        run
    }

    /// None for what does not fit.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        decode(value)
    }

    /// As it is stored. What does not fit a field loses lines from the middle of its trace.
    pub(crate) fn to_value(&self) -> Value {
        let mut run = self.clone();
        loop {
            let value = encode(&run);
            if value.encode().is_ok() || run.trace.len() <= FIRST_LINES {
                return value;
            }
            run.trace.remove(FIRST_LINES);
            run.left_out = run.left_out.saturating_add(1);
        }
    }

    /// Adds a line to the trace; in the middle of a long one some are left out.
    pub(crate) fn note(&mut self, at: Timestamp, step: &[u16], what: &str, outcome: &str, took_ms: u32) {
        if self.trace.len() >= MAX_LINES {
            self.trace.remove(FIRST_LINES);
            self.left_out = self.left_out.saturating_add(1);
        }
        let step = step.iter().map(u16::to_string).collect::<Vec<_>>().join(".");
        let (what, outcome) = (clipped(what), clipped(outcome));
        self.trace.push(Line { at: at.as_millisecond(), step, what, outcome, took: took_ms });
    }

    /// What its last line waits for is over.
    pub(crate) fn has_waited(&mut self, now: Timestamp) {
        if let Some(line) = self.trace.last_mut() {
            line.outcome = "over".to_owned();
            line.took = u32::try_from(now.as_millisecond().saturating_sub(line.at)).unwrap_or_default();
        }
    }

    /// Ends it.
    pub(crate) fn end(&mut self, state: State, why: &str, now: Timestamp) {
        (self.state, self.end, self.ended) = (state, clipped(why), Some(now.as_millisecond()));
    }
}

/// How many lists and objects stand in one another.
fn depth(json: &Json) -> usize {
    match json {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A text cut to a length in bytes.
pub(crate) fn clipped(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_TEXT).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

/// The runs of an automation, by who wrote them and where.
pub(crate) type Runs<'r> = BTreeMap<(ShortId, u8), &'r Run>;

/// The field of a run.
pub(crate) fn run_field(node: ShortId, place: u8) -> Option<FieldName> {
    FieldName::new(&format!("run.{node}.{place}")).ok()
}

/// Who wrote a field of a run, and where.
pub(crate) fn place_of(field: &str) -> Option<(ShortId, u8)> {
    let (node, place) = field.strip_prefix("run.")?.split_once('.')?;
    Some((node.parse().ok()?, place.parse().ok()?))
}

/// The place for one more run of this node: a free one, else that of the run that ended first; none when all are open. What was refused
/// takes the place of what was refused before, so that it does not push out what was done.
pub(crate) fn free_place(runs: &Runs<'_>, me: ShortId, state: State) -> Option<u8> {
    let of = |place: u8| runs.get(&(me, place));
    let refused = (0..PLACES).find(|place| of(*place).is_some_and(|run| run.state == State::Refused));
    refused.filter(|_| state == State::Refused).or_else(|| {
        (0..PLACES)
            .filter(|place| of(*place).is_none_or(|run| !run.state.is_open()))
            .min_by_key(|place| of(*place).map(|run| run.ended.unwrap_or(run.at)))
    })
}

/// Whether something that started the automation was acted upon by anybody.
pub(crate) fn is_known(runs: &Runs<'_>, id: u64) -> bool {
    runs.values().any(|run| run.id == id)
}

/// Whether somebody took over a run later.
pub(crate) fn is_taken_over(runs: &Runs<'_>, at: (ShortId, u8)) -> bool {
    let Some(run) = runs.get(&at) else { return false };
    runs.iter().any(|(other, later)| later.id == run.id && (later.took, *other) > (run.took, at))
}

/// The runs that are not over. The record of a node that died still says so of one that another node took over.
pub(crate) fn open_runs<'r>(runs: &Runs<'r>) -> Runs<'r> {
    let is_open = |at: &(ShortId, u8), run: &Run| run.state.is_open() && !is_taken_over(runs, *at);
    runs.iter().filter(|(at, run)| is_open(at, run)).map(|(at, run)| (*at, *run)).collect()
}

/// The open runs that this node is to go on with: its own from before it was started anew, and, if it wins, those of nodes that do
/// not live. What somebody took over later is not among them.
pub(crate) fn orphans(
    runs: &Runs<'_>,
    me: ShortId,
    is_winner: bool,
    lives: impl Fn(ShortId) -> bool,
) -> Vec<(ShortId, u8)> {
    let is_mine = |node: ShortId| node == me || (is_winner && !lives(node));
    open_runs(runs).into_keys().filter(|(node, _)| is_mine(*node)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use serde_json::json;

    use super::*;

    const A: ShortId = ShortId(1);
    const B: ShortId = ShortId(2);

    fn second(at: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + at).unwrap()
    }

    fn run(id: u64, took: i64) -> Run {
        let firing =
            Firing { id, trigger: 0, at: second(0), why: "door".to_owned(), data: json!({"kind": "event"}) };
        Run::new(&firing, 7, second(took))
    }

    #[test]
    fn a_run_comes_back_as_it_was_and_the_longest_fits_a_field() {
        let mut longest = run(u64::MAX >> 1, 0);
        longest.data = json!("x".repeat(MAX_DATA - 2));
        longest.why = clipped(&"ä".repeat(500));
        for step in 0..1_000_u16 {
            longest.note(
                second(step.into()),
                &[step, 1, 2, 3, 4, 5, 6],
                &"w".repeat(500),
                &"ö".repeat(500),
                5,
            );
        }
        longest.end(State::Failed, &"x".repeat(500), second(9));
        assert_eq!(longest.trace.len(), MAX_LINES);
        assert_eq!((longest.left_out, &longest.trace[0].step[..2]), (1_000 - 24, "0."));
        longest.course = serde_json::from_value(json!({
            "at": [63, 9, 63, 9, 63, 9, 63], "turns": [1000, 1000, 1000], "until": i64::MAX, "tries": 10,
            "done": vec![[63, 9, 63, 9, 63, 9, 63]; 16], "failed": "x".repeat(96), "undone": 63, "steps": 10_000, "turn": 10_000
        }))
        .unwrap();
        let value = longest.to_value();
        value.encode().unwrap();
        let read = Run::read(&value).unwrap();
        assert!(
            read.trace.len() > FIRST_LINES && read.trace.last() == longest.trace.last(),
            "{}",
            read.trace.len()
        );
        assert_eq!((read.course, read.end), (longest.course, longest.end));
        let of_data = |data: Json| Firing { id: 1, trigger: 0, at: second(0), why: String::new(), data };
        for depth in 0..12 {
            let data = (0..depth).fold(json!(1), |inner, _| json!({ "x": inner }));
            let kept = Run::new(&of_data(data.clone()), 7, second(0));
            kept.to_value().encode().unwrap();
            assert_eq!((kept.data == data, kept.trace.is_empty()), (depth <= 6, depth <= 6), "{depth}");
        }
        let short = run(3, 0);
        assert_eq!(Run::read(&short.to_value()).unwrap(), short);
        assert!(Run::read(&Value::Int(1)).is_none());
        assert_eq!(place_of(run_field(A, 3).unwrap().as_str()), Some((A, 3)));
    }

    fn view(runs: &BTreeMap<(ShortId, u8), Run>) -> Runs<'_> {
        runs.iter().map(|(at, run)| (*at, run)).collect()
    }

    #[test]
    fn places_are_used_again_the_one_that_ended_first_before_the_others() {
        let mut runs = BTreeMap::new();
        let free = |runs: &BTreeMap<_, _>, node, state| free_place(&view(runs), node, state);
        assert_eq!(free(&runs, A, State::Running), Some(0));
        for place in 0..PLACES {
            runs.insert((A, place), run(place.into(), 0));
        }
        assert_eq!(free(&runs, A, State::Running), None);
        runs.get_mut(&(A, 5)).unwrap().end(State::Done, "", second(3));
        runs.get_mut(&(A, 2)).unwrap().end(State::Refused, "", second(4));
        assert_eq!(free(&runs, A, State::Queued), Some(5));
        assert_eq!(free(&runs, A, State::Refused), Some(2), "what was done stays to be seen");
        assert_eq!(free(&runs, B, State::Running), Some(0));
    }

    #[test]
    fn an_open_run_has_one_node_that_goes_on_with_it() {
        let mut runs = BTreeMap::from([((A, 0), run(1, 0)), ((A, 1), run(2, 0)), ((B, 0), run(3, 0))]);
        runs.get_mut(&(A, 1)).unwrap().end(State::Done, "", second(1));
        let left = |runs: &_, me, wins, living: &[ShortId]| {
            orphans(&view(runs), me, wins, |node| living.contains(&node))
        };
        assert_eq!(left(&runs, B, true, &[A, B]), [(B, 0)], "A is at its own");
        assert_eq!(left(&runs, B, true, &[B]), [(A, 0), (B, 0)]);
        assert_eq!(left(&runs, B, false, &[B]), [(B, 0)]);
        // B took it over; A comes back.
        runs.insert((B, 1), run(1, 5));
        assert_eq!(left(&runs, A, true, &[A, B]), [], "B is at it");
        assert_eq!(left(&runs, B, true, &[A, B]), [(B, 0), (B, 1)]);
        assert_eq!(open_runs(&view(&runs)).into_keys().collect::<Vec<_>>(), [(B, 0), (B, 1)]);
        runs.get_mut(&(B, 1)).unwrap().end(State::Done, "", second(6));
        assert_eq!(
            open_runs(&view(&runs)).into_keys().collect::<Vec<_>>(),
            [(B, 0)],
            "what A says of it is old"
        );
        assert!(is_taken_over(&view(&runs), (A, 0)) && !is_taken_over(&view(&runs), (B, 1)));
        assert!(is_known(&view(&runs), 1) && !is_known(&view(&runs), 9));
    }
}
