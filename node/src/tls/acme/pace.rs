//! When an order may be tried: inside what the authority grants, for the whole household together. Pure: time and chance come in.
//!
//! The limits are those of Let's Encrypt (<https://letsencrypt.org/docs/rate-limits/>), which no other authority is known to undercut:
//! 5 failed validations of a name in an hour, 5 certificates for one set of names in 7 days, 50 below one registered domain in 7
//! days, 300 orders in 3 hours. Which domain is registered only a list knows that changes, so all of the household's certificates
//! count together; so do its failed validations. Nodes that cannot see each other may go beyond these by what they did not see: for
//! failures that is why one less is used; for the rest the authority's own word, and when it wants to be asked again, stands.

use serde::{Deserialize, Serialize};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Pauses after one failure, two, and so on; the last one after all that follow.
const PAUSES: [u64; 5] = [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY];
/// The longest pause while the authority is not reached: that costs it nothing, and ends without its doing.
const MAX_LOST_PAUSE: u64 = HOUR;
/// The shortest pause after the authority said that it was too much.
const MIN_LIMITED_PAUSE: u64 = HOUR;
/// The longest pause that an authority may ask for.
const MAX_ASKED_PAUSE: u64 = 7 * DAY;
/// After so many failures in a row that say nothing of the proof, the directory for tries holds nothing back any more.
const MAX_TRIALS: u32 = 3;
/// No pause is longer.
const MAX_PAUSE: u64 = MAX_ASKED_PAUSE + DAY;
/// The clocks of two nodes differ by no more.
const MAX_AHEAD: u64 = HOUR;
/// Moments that are remembered of each kind.
const REMEMBERED: usize = 50;

/// So many in so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub most: usize,
    /// In how many seconds.
    pub within_s: u64,
    /// Of what.
    pub of: &'static str,
}

/// One less than is granted.
pub const FAILED: Limit = Limit { most: 4, within_s: HOUR, of: "failed validations in an hour" };
/// As many as are granted.
pub const SAME_NAMES: Limit =
    Limit { most: 5, within_s: 7 * DAY, of: "certificates for the same names in 7 days" };
/// Somewhat less than is granted: other services of the domain get theirs, too.
pub const ALL_NAMES: Limit = Limit { most: 40, within_s: 7 * DAY, of: "certificates in 7 days" };

/// A certificate that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// When, in seconds since 1970.
    pub at: u64,
    /// For which names, see [`set_of`].
    pub set: String,
}

/// What one node has had of an authority lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Certificates that count: those that replace another by the authority's leave (RFC 9773) do not.
    pub issued: Vec<Issued>,
    /// When validations failed, in seconds since 1970.
    pub failed: Vec<u64>,
}

impl Counted {
    /// A certificate was made.
    pub fn issue(&mut self, at: u64, set: &str) {
        self.issued.push(Issued { at, set: set.to_owned() });
        let excess = self.issued.len().saturating_sub(REMEMBERED);
        self.issued.drain(..excess);
    }

    /// What lies ahead was written by a clock that was wrong: it counts from now.
    fn mend(&mut self, now: u64) {
        let moments = self.issued.iter_mut().map(|issued| &mut issued.at).chain(&mut self.failed);
        moments.for_each(|at| *at = (*at).min(now));
    }

    /// Leaves out what another node wrote with a clock that is wrong.
    pub fn believe(&mut self, now: u64) {
        let latest = now.saturating_add(MAX_AHEAD);
        self.issued.retain(|issued| issued.at <= latest);
        self.failed.retain(|at| *at <= latest);
    }

    /// A validation failed.
    pub fn fail(&mut self, at: u64) {
        self.failed.push(at);
        let excess = self.failed.len().saturating_sub(REMEMBERED);
        self.failed.drain(..excess);
    }
}

/// A short name for a set of names, whatever their order.
pub fn set_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let hash = blake3::hash(names.join("\n").as_bytes()).to_hex();
    hash.get(..16).unwrap_or_default().to_owned()
}

/// The limit that forbids an order now, with when it no longer does.
///
/// An order that replaces a certificate by the authority's leave (`replaces`) is granted whatever was made before.
pub fn forbidden(now: u64, household: &[Counted], set: &str, replaces: bool) -> Option<(u64, Limit)> {
    let failed: Vec<u64> = household.iter().flat_map(|node| node.failed.iter().copied()).collect();
    let issued = || household.iter().flat_map(|node| &node.issued);
    let mut checks = vec![(full(now, failed, FAILED), FAILED)];
    if !replaces {
        let same = issued().filter(|issued| issued.set == set).map(|issued| issued.at).collect();
        checks.push((full(now, same, SAME_NAMES), SAME_NAMES));
        checks.push((full(now, issued().map(|issued| issued.at).collect(), ALL_NAMES), ALL_NAMES));
    }
    checks.into_iter().filter_map(|(until, limit)| Some((until?, limit))).max_by_key(|(until, _)| *until)
}

/// Until when no more of this is granted.
fn full(now: u64, mut moments: Vec<u64>, limit: Limit) -> Option<u64> {
    // What lies ahead was written by a clock that was wrong: it counts from now.
    moments.iter_mut().for_each(|at| *at = (*at).min(now));
    moments.sort_unstable_by(|a, b| b.cmp(a));
    let until = moments.get(limit.most.checked_sub(1)?)?.saturating_add(limit.within_s);
    (until > now).then_some(until)
}

/// Why an attempt failed, as far as the pace goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The authority looked, and did not find the proof.
    Validation,
    /// The authority says that it was too much.
    Limited,
    /// It is not reached, or cannot work now.
    Lost,
    /// Anything else.
    Other,
}

/// What a node tried lately; it is kept on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tries {
    /// For what: names, directory, profile and challenge. Another is tried afresh.
    pub of: String,
    /// By what means the last attempt was made: a digest of settings and files.
    pub with: String,
    /// Failures since the last certificate.
    pub failures: u32,
    /// Times in a row that the authority was not reached.
    pub lost: u32,
    /// No attempt before this, in seconds since 1970.
    pub not_before: u64,
    /// Of that, what the authority has asked for, in seconds since 1970.
    pub asked: u64,
    /// Whether the next attempt goes where it spends nothing: to the authority's directory for tries.
    pub trial: bool,
    /// Times in a row that the directory for tries failed for another reason than the proof.
    pub trials: u32,
    /// When the last certificate was made, in seconds since 1970.
    pub made: u64,
    /// What was wrong last, and when.
    pub wrong: Option<(u64, String)>,
    /// What this node has had.
    pub counted: Counted,
}

impl Tries {
    /// Other settings are tried afresh; what was had stays had.
    pub fn begin(&mut self, of: &str) {
        if self.of != of {
            *self = Self { of: of.to_owned(), counted: std::mem::take(&mut self.counted), ..Self::default() };
        }
    }

    /// Mends what a clock has written that was ahead; whether there was anything.
    pub fn mend(&mut self, now: u64) -> bool {
        let before = self.clone();
        self.not_before = self.not_before.min(now.saturating_add(MAX_PAUSE));
        self.asked = self.asked.min(self.not_before);
        self.made = self.made.min(now);
        self.counted.mend(now);
        *self != before
    }

    /// Other means than those of the last attempt end the pause that this node makes of its own accord: once, and never what the
    /// authority has asked for. Whether there was anything to end.
    pub fn lift(&mut self, with: &str) -> bool {
        // What is not known is no other.
        if self.with.is_empty() || with.is_empty() || self.with == with {
            return false;
        }
        with.clone_into(&mut self.with);
        self.not_before = self.not_before.min(self.asked);
        true
    }

    /// An attempt failed. `asked_s` is the pause that the authority asked for, `chance` any number, `has_trials` whether there is
    /// a directory for tries.
    pub fn fail(&mut self, now: u64, failure: Failure, asked_s: Option<u64>, chance: u64, has_trials: bool) {
        let count = match failure {
            Failure::Lost => {
                self.lost = self.lost.saturating_add(1);
                self.lost
            }
            _ => {
                self.lost = 0;
                self.failures = self.failures.saturating_add(1);
                self.failures
            }
        };
        let gives_up = self.give_up_trials(failure);
        if failure == Failure::Validation && has_trials {
            self.trial = true;
        }
        let step = usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
        let mut pause = PAUSES.get(step).or(PAUSES.last()).copied().unwrap_or(DAY);
        match failure {
            Failure::Lost => pause = pause.min(MAX_LOST_PAUSE),
            Failure::Limited => pause = pause.max(MIN_LIMITED_PAUSE),
            Failure::Validation | Failure::Other => {}
        }
        if gives_up {
            pause = pause.max(DAY);
        }
        // Only later, never sooner: homes whose power came back together do not come together.
        pause += chance % (pause / 4 + 1);
        let limited = if failure == Failure::Limited { MIN_LIMITED_PAUSE } else { 0 };
        let asked = asked_s.unwrap_or(0).min(MAX_ASKED_PAUSE);
        self.asked = now + asked.max(limited);
        self.not_before = now + pause.max(asked);
    }

    /// A directory for tries that is away or broken must not hold back for ever what would pass: after some failures the next
    /// attempt counts again, a day later at least, so that this spends no more than one a day.
    fn give_up_trials(&mut self, failure: Failure) -> bool {
        if !self.trial || failure == Failure::Validation {
            self.trials = 0;
            return false;
        }
        self.trials = self.trials.saturating_add(1);
        let gives_up = self.trials >= MAX_TRIALS;
        if gives_up {
            (self.trial, self.trials) = (false, 0);
        }
        gives_up
    }

    /// A try passed: the next attempt counts. The pauses stay as long as they have become.
    pub fn pass_trial(&mut self, now: u64) {
        self.trial = false;
        self.trials = 0;
        self.lost = 0;
        self.not_before = now;
    }

    /// There is a certificate.
    pub fn succeed(&mut self, now: u64) {
        *self = Self {
            of: std::mem::take(&mut self.of),
            made: now,
            counted: std::mem::take(&mut self.counted),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
    use super::*;

    const START: u64 = 1_800_000_000;

    /// Whether no window of this length holds more of these moments.
    fn within(moments: &[u64], most: usize, within_s: u64) -> bool {
        moments
            .iter()
            .all(|from| moments.iter().filter(|at| (*from..*from + within_s).contains(at)).count() <= most)
    }

    /// Chance that is the same at every run.
    fn chance(turn: &mut u64) -> u64 {
        *turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *turn >> 17
    }

    struct Month {
        /// Failures at the directory that counts.
        failed: Vec<u64>,
        issued: Vec<u64>,
        /// All attempts by node.
        tried: Vec<Vec<u64>>,
    }

    /// Thirty days in which each attempt of each node fails in this way, with one order at a time.
    fn month(nodes: usize, failure: Failure, has_trials: bool, issues: bool) -> Month {
        let mut tries = vec![Tries::default(); nodes];
        let mut month = Month { failed: vec![], issued: vec![], tried: vec![vec![]; nodes] };
        let (mut seed, mut now) = (7, START);
        while now < START + 30 * DAY {
            for node in 0..nodes {
                let household: Vec<Counted> = tries.iter().map(|tries| tries.counted.clone()).collect();
                let own = &mut tries[node];
                let counts = !own.trial;
                let free = !counts || forbidden(now, &household, "set", false).is_none();
                if now < own.not_before || !free {
                    continue;
                }
                month.tried[node].push(now);
                if counts && failure == Failure::Validation {
                    own.counted.fail(now);
                    month.failed.push(now);
                }
                if counts && issues {
                    own.counted.issue(now, "set");
                    month.issued.push(now);
                }
                own.fail(now, failure, None, chance(&mut seed), has_trials);
            }
            now += 20;
        }
        month
    }

    #[test]
    fn a_month_of_failures_stays_inside_the_limits_and_never_gives_up() {
        for nodes in [1, 5] {
            for has_trials in [true, false] {
                let month = month(nodes, Failure::Validation, has_trials, false);
                assert!(within(&month.failed, 5, HOUR), "{nodes} nodes");
                assert!(within(&month.failed, 300, 3 * HOUR));
                if has_trials {
                    assert_eq!(month.failed.len(), nodes, "then each tries where it spends nothing");
                }
                for tried in month.tried {
                    assert!(tried.len() >= 25, "{} attempts", tried.len());
                    let pause = tried.windows(2).map(|two| two[1] - two[0]).max().unwrap();
                    assert!(pause <= DAY + DAY / 4 + HOUR, "a pause of {pause} s");
                    assert!(START + 30 * DAY - tried.last().unwrap() <= DAY + DAY / 4 + HOUR, "it goes on");
                }
            }
        }
    }

    #[test]
    fn certificates_that_do_not_work_use_up_no_more_than_is_granted() {
        for nodes in [1, 5] {
            let month = month(nodes, Failure::Other, false, true);
            assert!(within(&month.issued, 5, 7 * DAY));
            assert!(month.issued.len() >= 15, "{}", month.issued.len());
        }
    }

    #[test]
    fn pauses_grow_and_a_certificate_ends_them() {
        let mut tries = Tries::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            tries.fail(START, Failure::Other, None, 0, true);
            pauses.push(tries.not_before - START);
        }
        assert_eq!(pauses, [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, DAY, DAY]);
        assert!(!tries.trial, "only a validation that failed asks for a try");
        tries.fail(START, Failure::Validation, None, u64::MAX, true);
        assert!(tries.trial && (START + DAY..=START + DAY + DAY / 4).contains(&tries.not_before));
        tries.pass_trial(START);
        assert!(!tries.trial && tries.not_before == START && tries.failures == 8);
        tries.fail(START, Failure::Validation, None, 0, true);
        assert_eq!(
            tries.not_before,
            START + DAY,
            "what passes only where it does not count begins no new row"
        );
        tries.succeed(START);
        assert_eq!((tries.failures, tries.trial, tries.not_before, tries.made), (0, false, 0, START));
    }

    #[test]
    fn a_directory_for_tries_that_is_broken_holds_nothing_back_for_ever() {
        for failure in [Failure::Lost, Failure::Limited, Failure::Other] {
            let mut tries = Tries::default();
            tries.fail(START, Failure::Validation, None, 0, true);
            for _ in 0..2 {
                tries.fail(START, failure, None, 0, true);
                assert!(tries.trial, "{failure:?}");
            }
            tries.fail(START, Failure::Validation, None, 0, true);
            for turn in 1..=3 {
                tries.fail(START, failure, None, 0, true);
                assert_eq!(tries.trial, turn < 3, "{failure:?} {turn}: in a row");
            }
            assert_eq!(tries.not_before, START + DAY, "{failure:?}");
            tries.fail(START, failure, None, 0, true);
            assert_eq!((tries.trial, tries.trials), (false, 0), "what counts is no try");
        }
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_written_is_mended_once() {
        let mut tries = Tries { not_before: START + 999 * DAY, made: START + 5, ..Tries::default() };
        tries.counted.fail(START + 9 * DAY);
        tries.counted.issue(START + 9 * DAY, "set");
        let mut others = tries.counted.clone();
        others.fail(START + HOUR);
        assert!(tries.mend(START));
        assert_eq!((tries.not_before, tries.made), (START + 8 * DAY, START));
        assert_eq!(
            (tries.counted.failed.as_slice(), tries.counted.issued[0].at),
            ([START].as_slice(), START)
        );
        assert!(!tries.mend(START + 1), "once");
        others.believe(START);
        assert_eq!((others.failed.as_slice(), others.issued.len()), ([START + HOUR].as_slice(), 0));
    }

    #[test]
    fn an_authority_that_asks_for_patience_gets_it() {
        let mut tries = Tries::default();
        tries.fail(START, Failure::Limited, None, 0, true);
        assert_eq!(tries.not_before, START + HOUR);
        tries.fail(START, Failure::Limited, Some(34 * HOUR), 0, true);
        assert_eq!(tries.not_before, START + 34 * HOUR);
        tries.fail(START, Failure::Limited, Some(u64::MAX), 0, true);
        assert_eq!(tries.not_before, START + 7 * DAY, "but not for ever");
    }

    #[test]
    fn other_means_end_a_pause_once_and_never_what_the_authority_asked_for() {
        for (failure, asked_s, until) in [
            (Failure::Other, None, START),
            (Failure::Validation, None, START),
            (Failure::Lost, Some(20), START + 20),
            (Failure::Limited, None, START + HOUR),
            (Failure::Limited, Some(34 * HOUR), START + 34 * HOUR),
        ] {
            let mut tries = Tries { with: "old".into(), failures: 4, ..Tries::default() };
            tries.fail(START, failure, asked_s, 0, true);
            let before = tries.clone();
            for same in ["old", ""] {
                assert!(!tries.lift(same) && tries == before, "{failure:?}");
            }
            assert!(tries.lift("new"), "{failure:?}");
            assert_eq!(tries.not_before, until.min(before.not_before), "{failure:?}");
            assert_eq!((tries.failures, tries.trial), (before.failures, before.trial), "the rest stays");
            assert!(!tries.lift("new"), "once");
        }
        let mut tries = Tries { not_before: START + DAY, ..Tries::default() };
        assert!(!tries.lift("new"), "what an earlier version wrote says nothing of its means");
    }

    #[test]
    fn an_authority_that_is_away_is_looked_for_at_least_every_hour_or_so() {
        let mut tries = Tries::default();
        for _ in 0..40 {
            tries.fail(START, Failure::Lost, None, 0, true);
        }
        assert_eq!((tries.not_before, tries.failures), (START + HOUR, 0));
        tries.fail(START, Failure::Validation, None, 0, false);
        assert_eq!((tries.not_before, tries.lost), (START + MINUTE, 0));
    }

    #[test]
    fn the_household_counts_together() {
        let node = |moments: &[u64], failed: &[u64]| Counted {
            issued: moments.iter().map(|at| Issued { at: *at, set: "set".into() }).collect(),
            failed: failed.to_vec(),
        };
        let household =
            [node(&[START, START + 2], &[START]), node(&[START + 1, START + 3, START + 4], &[START, START])];
        let later = START + HOUR;
        let until = Some((START + 7 * DAY, SAME_NAMES));
        assert_eq!(forbidden(later, &household, "set", false), until);
        assert_eq!(forbidden(later, &household, "set", true), None, "what replaces another is granted");
        assert_eq!(forbidden(later, &household, "other", false), None);
        assert_eq!(forbidden(START + 7 * DAY, &household, "set", false), None);
        let failing = [node(&[], &[START, START + 10]), node(&[], &[START + 20, START + 9 * DAY])];
        let until = Some((START + HOUR, FAILED));
        assert_eq!(forbidden(START + 30, &failing, "set", true), until, "also one from the future");
    }

    #[test]
    fn other_settings_are_tried_afresh_and_what_was_had_stays() {
        let mut tries = Tries::default();
        tries.begin("a");
        tries.counted.fail(START);
        tries.fail(START, Failure::Validation, None, 0, true);
        tries.begin("a");
        assert_eq!(tries.failures, 1);
        tries.begin("b");
        assert_eq!((tries.failures, tries.not_before, tries.counted.failed.len()), (0, 0, 1));
        for at in 0..200 {
            tries.counted.fail(at);
            tries.counted.issue(at, "s");
        }
        assert_eq!((tries.counted.failed.len(), tries.counted.issued.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(set_of(["b", "a"]), set_of(["a", "b", "a"]));
        assert_ne!(set_of(["a", "b"]), set_of(["a"]));
    }
}
