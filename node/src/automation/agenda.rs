//! What is to be done about a schedule now, from what every node can know. Pure.
//!
//! An occurrence is settled when a record of it says that it was carried out or passed over. The winner of the rendezvous hash
//! among the nodes that live settles what is due; when it dies before it has, the next winner does. So an occurrence comes once
//! while its node lives or its record arrived, and at least once otherwise: on both sides of a cut, or where the record of a node that died
//! went with it.

use std::collections::{BTreeMap, BTreeSet};

use device_adapters::schedule::{Home, Occurrence, Rule, RuleError};
use jiff::{SignedDuration, Timestamp};
use mesh_proto::ShortId;

use super::{
    record::{Record, State},
    spec::Missed,
};
use crate::devices::ownership::winner;

/// An occurrence that is begun later than that is one that was missed: long enough for another node to notice that
/// the one that was to carry it out died.
pub(super) const ON_TIME: SignedDuration = SignedDuration::from_secs(30);
/// The clocks of the nodes differ by less: what is said to be later than now by more comes from a clock that was wrong.
const AHEAD: SignedDuration = SignedDuration::from_mins(10);
/// Occurrences that were passed over are counted up to here.
const COUNTED: u32 = 1_000;
/// Nobody is at an occurrence that was begun longer ago: the longest transition, the longest deadline, and some more.
const LONGEST_RUN: SignedDuration = SignedDuration::from_mins(75);

/// A schedule, as far as its next step depends on it.
pub(super) struct Standing<'a> {
    pub(super) object: &'a str,
    pub(super) rule: &'a Rule,
    pub(super) missed: Missed,
    /// Only what comes after that counts.
    pub(super) since: Timestamp,
    /// What each node did last.
    pub(super) records: &'a BTreeMap<ShortId, Record>,
}

/// The moment of the decision.
pub(super) struct Moment<'a> {
    pub(super) now: Timestamp,
    pub(super) home: &'a Home,
    /// Since when the home is there, with that clock. What came before it came by another clock and another sun.
    pub(super) home_since: Timestamp,
    pub(super) me: ShortId,
    pub(super) living: &'a BTreeSet<ShortId>,
    /// Whether this node, if it wins, has won for so long that every other one has seen the same nodes live.
    pub(super) has_settled: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing before that.
    Wait(Occurrence),
    /// Nothing any more.
    Over,
    /// Another node has begun, or is to begin.
    Theirs,
    /// Carry it out.
    Run(Due),
    /// Note that it is passed over.
    PassOver(Due),
    /// A wrong clock wrote of the future: take these records out, and let what comes from now on count.
    PutRight(Vec<ShortId>),
}

impl Step {
    /// Whether something is to be done at once.
    pub(super) fn acts(&self) -> bool {
        matches!(self, Self::Run(_) | Self::PassOver(_) | Self::PutRight(_))
    }
}

/// An occurrence that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Timestamp,
    /// How many came before it while nobody could carry them out.
    pub(super) passed_over: u32,
    /// How many came before it while the one before them was under way.
    pub(super) under_way: u32,
    /// Whether a node had begun that died, or was started anew.
    pub(super) again: bool,
}

/// The next step of a schedule.
///
/// # Errors
/// [`RuleError::NoPlace`].
pub(super) fn step(schedule: &Standing<'_>, moment: &Moment<'_>) -> Result<Step, RuleError> {
    let is_winner =
        moment.has_settled && winner(moment.living.iter().copied(), schedule.object) == Some(moment.me);
    let wrong = schedule.ahead_of(moment.now);
    if !wrong.is_empty() || schedule.since > moment.now + AHEAD {
        return Ok(if is_winner { Step::PutRight(wrong) } else { Step::Theirs });
    }
    if schedule.is_spent() {
        return Ok(Step::Over);
    }
    let latest = schedule.latest();
    let is_open = latest.is_some_and(|at| !schedule.is_settled(at));
    let is_mine = match latest.filter(|_| is_open).and_then(|at| schedule.who_is_at(at, moment)) {
        // If that is this node it was started anew since, or it would not ask; it ends what it began.
        Some(node) => node == moment.me,
        None => is_winner,
    };
    let settled = latest.unwrap_or(schedule.since);
    // One that was left half done is due again.
    let after = if is_open { settled - SignedDuration::from_secs(1) } else { settled };
    let after = after.max(moment.home_since_known());
    let due =
        schedule.rule.last(after, moment.now, moment.home)?.map(|due| due.at).max(latest.filter(|_| is_open));
    let Some(at) = due else {
        return Ok(schedule.rule.next(after.max(moment.now), moment.home)?.map_or(Step::Over, Step::Wait));
    };
    if !is_mine {
        return Ok(Step::Theirs);
    }
    let (under_way, passed_over) = schedule.count(after, at, moment.home)?;
    let due = Due { at, passed_over, under_way, again: is_open && latest == Some(at) };
    let late = moment.now.duration_since(at);
    let runs = late <= ON_TIME
        || match schedule.missed {
            Missed::Skip => false,
            Missed::RunOnceIfWithin(limit) => late <= limit,
            Missed::RunLatest => true,
        };
    Ok(if runs { Step::Run(due) } else { Step::PassOver(due) })
}

impl Moment<'_> {
    /// A clock that was wrong may have written of the future when the home was changed: that says nothing.
    fn home_since_known(&self) -> Timestamp {
        if self.home_since > self.now + AHEAD { Timestamp::MIN } else { self.home_since }
    }
}

impl Standing<'_> {
    /// Whether it comes once and that has been, whatever the clock of the home says of it since.
    pub(super) fn is_spent(&self) -> bool {
        self.rule.comes_once() && self.latest().is_some_and(|at| self.is_settled(at))
    }

    fn ahead_of(&self, now: Timestamp) -> Vec<ShortId> {
        self.records.iter().filter(|(_, record)| record.at > now + AHEAD).map(|(node, _)| *node).collect()
    }

    /// The latest occurrence of which anything is recorded.
    fn latest(&self) -> Option<Timestamp> {
        self.records.values().map(|record| record.at).filter(|at| *at > self.since).max()
    }

    fn of(&self, at: Timestamp) -> impl Iterator<Item = (&ShortId, &Record)> {
        self.records.iter().filter(move |(_, record)| record.at == at)
    }

    fn is_settled(&self, at: Timestamp) -> bool {
        self.of(at).any(|(_, record)| record.state != State::Started)
    }

    /// The node that is at it: the one that began last, if it lives. One that began before was started anew since.
    fn who_is_at(&self, at: Timestamp, moment: &Moment<'_>) -> Option<ShortId> {
        let (node, record) = self.of(at).max_by_key(|(node, record)| (record.began, **node))?;
        let is_at_it = moment.living.contains(node) && moment.now.duration_since(record.began) <= LONGEST_RUN;
        is_at_it.then_some(*node)
    }

    /// How many occurrences there are between two moments, the ends not included: while the latest of which anything is recorded was
    /// under way, and after it.
    fn count(&self, after: Timestamp, before: Timestamp, home: &Home) -> Result<(u32, u32), RuleError> {
        let ended = self.latest().and_then(|at| self.of(at).filter_map(|(_, record)| record.ended).max());
        let (mut under_way, mut missed, mut at) = (0, 0, after);
        while under_way + missed < COUNTED
            && let Some(next) = self.rule.next(at, home)?.filter(|next| next.at < before)
        {
            at = next.at;
            let count = if ended.is_some_and(|ended| at <= ended) { &mut under_way } else { &mut missed };
            *count += 1;
        }
        Ok((under_way, missed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use device_adapters::schedule::zone;

    use super::*;

    const A: ShortId = ShortId(1);
    const B: ShortId = ShortId(2);
    const C: ShortId = ShortId(3);

    fn at(text: &str) -> Timestamp {
        format!("2026-06-01T{text}Z").parse().unwrap()
    }

    /// A schedule at each full hour since half past six, and what is recorded of it.
    struct Case {
        when: &'static str,
        missed: Missed,
        records: BTreeMap<ShortId, Record>,
        living: Vec<ShortId>,
        has_settled: bool,
        zone: &'static str,
        home_since: Timestamp,
    }

    impl Default for Case {
        fn default() -> Self {
            Self {
                when: "cron 0 * * * *",
                missed: Missed::Skip,
                records: BTreeMap::new(),
                living: vec![A, B, C],
                has_settled: true,
                zone: "UTC",
                home_since: Timestamp::UNIX_EPOCH,
            }
        }
    }

    impl Case {
        fn step(&self, me: ShortId, now: &str) -> Step {
            let rule = Rule::daily(self.when.parse().unwrap());
            let home = Home { zone: zone(self.zone).unwrap(), place: None };
            let living = self.living.iter().copied().collect();
            let moment = Moment {
                now: at(now),
                home: &home,
                home_since: self.home_since,
                me,
                living: &living,
                has_settled: self.has_settled,
            };
            let standing = Standing {
                object: "schedule/x",
                rule: &rule,
                missed: self.missed,
                since: at("06:30:00"),
                records: &self.records,
            };
            step(&standing, &moment).unwrap()
        }

        /// The steps of all that live; every other one must wait for the winner.
        fn winner(&self, now: &str) -> (ShortId, Step) {
            let mut mine: Vec<_> = self
                .living
                .iter()
                .map(|me| (*me, self.step(*me, now)))
                .filter(|(_, step)| *step != Step::Theirs)
                .collect();
            assert_eq!(mine.len(), 1, "{mine:?}");
            mine.pop().unwrap()
        }

        fn record(mut self, node: ShortId, time: &str, state: State) -> Self {
            self.records.insert(node, Record::new(at(time), state, at(time)));
            self
        }

        /// It began the seven o'clock one at that time, and has not said more.
        fn began(mut self, node: ShortId, time: &str) -> Self {
            self.records.insert(node, Record::new(at("07:00:00"), State::Started, at(time)));
            self
        }

        fn on(mut self, living: &[ShortId]) -> Self {
            self.living = living.to_vec();
            self
        }
    }

    fn due(time: &str, passed_over: u32, again: bool) -> Due {
        Due { at: at(time), passed_over, under_way: 0, again }
    }

    #[test]
    fn everybody_waits_for_the_next_and_one_of_them_runs_it() {
        let case = Case::default();
        for me in [A, B, C] {
            let Step::Wait(next) = case.step(me, "06:59:59") else { panic!() };
            assert_eq!(next.at, at("07:00:00"));
        }
        assert_eq!(case.winner("07:00:00").1, Step::Run(due("07:00:00", 0, false)));
    }

    #[test]
    fn what_is_recorded_by_anybody_is_not_done_again_and_what_is_under_way_is_left_alone() {
        for state in [State::Done, State::Failed, State::PassedOver] {
            let case = Case::default().record(C, "07:00:00", state);
            assert!(
                [A, B, C].iter().all(|me| matches!(case.step(*me, "07:00:01"), Step::Wait(_))),
                "{state:?}"
            );
        }
        let case = Case::default().record(C, "07:00:00", State::Started);
        assert!([A, B].iter().all(|me| case.step(*me, "07:00:01") == Step::Theirs));
        let both = Case::default().record(C, "07:00:00", State::Started).record(A, "07:00:00", State::Done);
        assert!(matches!(both.step(B, "07:00:01"), Step::Wait(_)));
    }

    #[test]
    fn the_run_of_a_node_that_died_is_taken_over_once() {
        let mut case = Case::default().record(C, "07:00:00", State::Started);
        case.living = vec![A, B];
        let (heir, step) = case.winner("07:00:05");
        assert_eq!(step, Step::Run(due("07:00:00", 0, true)));
        let case = case.record(heir, "07:00:00", State::Done);
        assert!([A, B].iter().all(|me| matches!(case.step(*me, "07:00:06"), Step::Wait(_))));
        // One that was started anew itself, alone.
        let mut alone = Case::default().record(A, "07:00:00", State::Started);
        alone.living = vec![A];
        assert_eq!(alone.step(A, "07:00:05"), Step::Run(due("07:00:00", 0, true)));
        assert_eq!(
            alone.step(A, "07:40:00"),
            Step::PassOver(due("07:00:00", 0, true)),
            "half an hour later is too late"
        );
    }

    #[test]
    fn what_was_left_half_done_is_never_left_to_each_other() {
        // Whoever began it, died and is back ends it, be it the winner or not.
        for who in [A, B, C] {
            let case = Case::default().began(who, "07:00:00");
            assert_eq!(case.winner("07:00:05"), (who, Step::Run(due("07:00:00", 0, true))));
        }
        // Of several the last one: the others were started anew after it had begun.
        let case = Case::default().began(B, "07:00:00").began(C, "07:00:04").began(A, "07:00:02");
        assert_eq!(case.winner("07:00:06"), (C, Step::Run(due("07:00:00", 0, true))));
        // When that one is gone the winner does, whoever of the others had begun before.
        let case = case.on(&[A, B]);
        let (heir, step) = case.winner("07:00:06");
        assert_eq!(step, Step::Run(due("07:00:00", 0, true)));
        assert_eq!(case.began(heir, "07:00:06").winner("07:00:07").0, heir);
        // The next one comes all the same.
        let case = Case::default().began(B, "07:00:00");
        assert_eq!(case.winner("08:00:00"), (B, Step::Run(due("08:00:00", 1, false))));
    }

    #[test]
    fn nobody_waits_for_ever_for_one_that_hangs() {
        let case = Case { missed: Missed::RunLatest, when: "cron 0 7 * * *", ..Case::default() };
        let case = case.began(B, "07:00:00");
        assert_eq!(case.step(A, "08:14:59"), Step::Theirs);
        assert_eq!(case.step(C, "08:14:59"), Step::Theirs);
        assert_eq!(case.winner("08:15:01").1, Step::Run(due("07:00:00", 0, true)));
    }

    #[test]
    fn who_wins_only_since_a_moment_leaves_it_to_whom_the_others_may_still_see_win() {
        let case = Case { has_settled: false, ..Case::default() };
        assert!([A, B, C].iter().all(|me| case.step(*me, "07:00:00") == Step::Theirs));
        let Step::Wait(next) = case.step(A, "06:59:00") else { panic!() };
        assert_eq!(next.at, at("07:00:00"));
        let begun = Case { has_settled: false, ..Case::default() }.began(B, "07:00:00");
        assert_eq!(begun.winner("07:00:01").0, B, "it knows itself what it began");
    }

    #[test]
    fn what_a_newer_version_says_of_an_occurrence_settles_it() {
        let case = Case::default().record(C, "07:00:00", State::Other);
        assert!([A, B, C].iter().all(|me| matches!(case.step(*me, "07:00:01"), Step::Wait(_))));
    }

    #[test]
    fn what_was_missed_goes_by_the_policy_and_is_counted() {
        let of = |missed, now| Case { missed, ..Case::default() }.winner(now).1;
        assert_eq!(of(Missed::Skip, "09:00:29"), Step::Run(due("09:00:00", 2, false)), "on time");
        assert_eq!(of(Missed::Skip, "09:00:31"), Step::PassOver(due("09:00:00", 2, false)));
        let within = Missed::RunOnceIfWithin(SignedDuration::from_mins(10));
        assert_eq!(of(within, "09:10:00"), Step::Run(due("09:00:00", 2, false)));
        assert_eq!(of(within, "09:10:01"), Step::PassOver(due("09:00:00", 2, false)));
        assert_eq!(of(Missed::RunLatest, "09:59:59"), Step::Run(due("09:00:00", 2, false)));
    }

    #[test]
    fn a_clock_that_jumps_over_a_thousand_runs_one() {
        let case = Case { when: "cron * * * * * *", missed: Missed::RunLatest, ..Case::default() };
        assert_eq!(case.winner("23:59:59").1, Step::Run(due("23:59:59", COUNTED, false)));
    }

    #[test]
    fn what_a_wrong_clock_wrote_of_the_future_is_put_right_and_a_small_step_back_repeats_nothing() {
        let case = Case::default().record(A, "20:00:00", State::Done).record(B, "07:00:00", State::Done);
        assert_eq!(case.winner("07:30:00").1, Step::PutRight(vec![A]));
        let early = Case::default().record(A, "07:00:00", State::Done);
        let Step::Wait(next) = early.step(A, "06:55:00") else { panic!() };
        assert_eq!(next.at, at("08:00:00"), "07:00 has been");
        let before = Case::default();
        let rule = Rule::daily("cron 0 * * * *".parse().unwrap());
        let home = Home { zone: zone("UTC").unwrap(), place: None };
        let living = BTreeSet::from([A]);
        let (now, home_since) = (at("01:00:00"), Timestamp::UNIX_EPOCH);
        let moment = Moment { now, home: &home, home_since, me: A, living: &living, has_settled: true };
        let since = at("06:30:00");
        let standing = Standing {
            object: "schedule/x",
            rule: &rule,
            missed: before.missed,
            since,
            records: &before.records,
        };
        assert_eq!(step(&standing, &moment).unwrap(), Step::PutRight(vec![]), "it was made in the future");
    }

    #[test]
    fn one_that_is_past_is_over() {
        let case = Case { when: "at 2026-06-01 07:00", ..Case::default() }.record(B, "07:00:00", State::Done);
        assert_eq!(case.step(A, "07:00:10"), Step::Over);
    }

    #[test]
    fn one_that_came_does_not_come_again_where_the_clock_of_the_home_goes_back() {
        // Seven o'clock was seven o'clock in Berlin; by the clock of New York it is still to come.
        let came = Case { when: "at 2026-06-01 09:00", ..Case::default() }.record(B, "07:00:00", State::Done);
        let came = Case { zone: "America/New_York", home_since: at("07:30:00"), ..came };
        for now in ["07:30:01", "13:00:00", "13:00:01"] {
            assert!([A, B, C].iter().all(|me| came.step(*me, now) == Step::Over), "{now}");
        }
        // One that had not come comes by the new clock.
        let case = Case {
            when: "at 2026-06-01 09:00",
            zone: "America/New_York",
            home_since: at("06:45:00"),
            ..Case::default()
        };
        assert_eq!(case.winner("13:00:00").1, Step::Run(due("13:00:00", 0, false)));
        // One that a dead node left half done is ended, wherever the home is by then.
        let begun = Case { living: vec![A, B], ..came }.began(C, "07:00:00");
        let begun =
            Case { records: begun.records.into_iter().filter(|(node, _)| *node == C).collect(), ..begun };
        assert_eq!(begun.winner("07:30:01").1, Step::PassOver(due("07:00:00", 0, true)));
    }

    #[test]
    fn what_would_have_come_had_the_home_been_there_is_not_made_up_for() {
        // It is 07:10 in UTC; before the move it was 09:10 in Berlin, so seven o'clock never was.
        let moved = |home_since| Case {
            when: "cron 0 7 * * *",
            missed: Missed::RunLatest,
            home_since,
            ..Case::default()
        };
        let Step::Wait(next) = moved(at("07:10:00")).step(A, "07:10:01") else { panic!() };
        assert_eq!(next.at, at("07:00:00") + SignedDuration::from_hours(24));
        assert_eq!(moved(at("06:59:59")).winner("07:10:01").1, Step::Run(due("07:00:00", 0, false)));
        // What a wrong clock said of the future holds nothing up.
        assert_eq!(moved(at("20:00:00")).winner("07:10:01").1, Step::Run(due("07:00:00", 0, false)));
    }

    #[test]
    fn what_came_while_the_one_before_was_under_way_is_told_from_what_nobody_could_carry_out() {
        let mut case = Case { when: "cron * * * * *", ..Case::default() };
        let slow = Record::new(at("07:00:00"), State::Started, at("07:00:00"));
        case.records.insert(B, slow.ended(&[], Some(at("07:03:10"))));
        let Step::Run(soon) = case.winner("07:03:10").1 else { panic!() };
        assert_eq!((soon.at, soon.under_way, soon.passed_over), (at("07:03:00"), 2, 0));
        let Step::Run(later) = case.winner("07:06:00").1 else { panic!() };
        assert_eq!((later.at, later.under_way, later.passed_over), (at("07:06:00"), 3, 2));
    }
}
