//! This node's idea of the time of day, and its stamps.

use serde::{Deserialize, Serialize};

use crate::{
    hlc::{Clock, Hlc, MAX_AHEAD_MS},
    id::NodeId,
};

/// A reading of the caller's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub mono_ms: u64,
    /// The wall clock, in milliseconds since 1970; may be wrong and may jump.
    pub wall_ms: u64,
}

/// Clocks that differ by less than this are left alone, in milliseconds.
const TOLERANCE_MS: u64 = 1_000;
/// How long a synchronised clock that went back is not believed while nobody else knows the time, in milliseconds.
const SUSPICION_MS: u64 = 120_000;
/// How often peers are told the time of day again, in milliseconds: crystals drift by seconds a day.
const TELL_MS: u64 = 600_000;
/// How long after this software was built a time may be that a person says, in milliseconds: 20 years. A slip of the finger costs
/// more than a day: stamps never go back.
const SAID_WITHIN_MS: u64 = 20 * 366 * 86_400_000;
const CENTURY_MS: u64 = 100 * 366 * 86_400_000;
/// The stratum of a board whose own clock is known to be right.
pub const SYNCHRONISED: u8 = 1;
/// The stratum of a board that knows of no right clock.
pub const UNSYNCHRONISED: u8 = 16;

/// A time of day as nodes tell it each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOfDay {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// How far the right clock is on which it rests, as the strata of NTP (RFC 5905): 1 the sender's own, one more
    /// for each node in between, 16 none.
    pub stratum: u8,
    /// Where no right clock is near, the latest word on the time leads, and counts up: a right clock was lost and its time goes on,
    /// a battery clock went on (the first word there can be), or a person said it. 0 is no word at all. It is told in a message of its
    /// own, which older nodes skip.
    #[serde(skip)]
    pub word: u32,
}

impl TimeOfDay {
    /// Whether it rests on a clock, or on somebody's word.
    pub fn is_trusted(self) -> bool {
        self.stratum < UNSYNCHRONISED || self.word > 0
    }
}

/// What is known of the wall clock at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WallClock {
    /// It is kept right.
    Right,
    /// A battery clock went on while the board was off.
    Battery,
    /// Nothing: it may show any time.
    Unknown,
}

/// What the time of day rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The wall clock, which is kept right.
    WallClock,
    /// The time of this peer, which is nearer to a right clock.
    Peer(NodeId),
    /// What a person said here.
    Person,
    /// A clock that was right, or a battery's, and went on since.
    WentOn,
    /// The word of another node that knows of no right clock either.
    Told,
    /// Nothing: it only goes on.
    Nothing,
}

/// Why the time of day was not set. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetTimeError {
    /// A right clock is near.
    #[error("the time is known already, from a clock that is kept right")]
    Known,
    /// No clock is right then.
    #[error("the time lies before this software was built, or more than 20 years after")]
    Implausible,
}

/// Whose word the time rests on while there is no right clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    None,
    Person,
    WentOn,
    Told,
}

/// Wall clock, correction and stamps.
#[derive(Debug)]
pub struct TimeKeeper {
    clock: Clock,
    /// When this software was built, in milliseconds since 1970.
    build_ms: u64,
    /// Whether the wall clock is said to be right.
    synchronised: bool,
    /// Since when it is not believed all the same, on the monotonic clock: it went back, so it is wrong now or was before.
    suspected: Option<u64>,
    /// Both clocks when the wall clock was last looked at and believed.
    seen: Now,
    /// The stratum of the time taken from peers; 16 of none.
    stratum: u8,
    /// The peer whose time this node follows, forth and back.
    source: Option<NodeId>,
    /// The latest word on the time, see [`TimeOfDay::word`], and whose it is.
    word: u32,
    whose: Word,
    /// While the wall clock is not known to be right, its steps mean nothing: the time of day
    /// is counted from here, (monotonic, time of day).
    anchor: (u64, u64),
    /// What peers were told last, and when on the monotonic clock.
    told: (u64, TimeOfDay),
}

impl TimeKeeper {
    /// Boots at the latest of the wall clock, the persisted ceiling and the build time, unless
    /// the wall clock is known to be right. A battery clock that is behind them has run down.
    pub fn new(now: Now, ceiling: Hlc, build_ms: u64, wall: WallClock) -> Self {
        let at_least = ceiling.ms().max(build_ms);
        let synchronised = wall == WallClock::Right;
        let has_gone_on = wall == WallClock::Battery && now.wall_ms.saturating_add(TOLERANCE_MS) >= at_least;
        let anchor = (now.mono_ms, at_least.max(now.wall_ms));
        let told = (now.mono_ms, TimeOfDay { ms: 0, stratum: UNSYNCHRONISED, word: 0 });
        let went_back = synchronised && now.wall_ms.saturating_add(TOLERANCE_MS) < at_least;
        let mut time = Self {
            clock: Clock::new(ceiling),
            build_ms,
            synchronised,
            suspected: went_back.then_some(now.mono_ms),
            seen: now,
            stratum: UNSYNCHRONISED,
            source: None,
            word: u32::from(has_gone_on),
            whose: if has_gone_on { Word::WentOn } else { Word::None },
            anchor,
            told,
        };
        time.tell(now);
        time
    }

    /// The time of day, in milliseconds since 1970.
    pub fn time_ms(&self, now: Now) -> u64 {
        if self.is_synchronised() {
            return now.wall_ms;
        }
        self.anchor.1.saturating_add(now.mono_ms.saturating_sub(self.anchor.0))
    }

    /// The time of day with what it rests on.
    pub fn time_of_day(&self, now: Now) -> TimeOfDay {
        let stratum = if self.is_synchronised() { SYNCHRONISED } else { self.stratum };
        let word = if stratum < UNSYNCHRONISED { 0 } else { self.word };
        TimeOfDay { ms: self.time_ms(now), stratum, word }
    }

    /// Whether the time of day is the wall clock's, which is known to be right.
    pub fn is_synchronised(&self) -> bool {
        self.synchronised && self.suspected.is_none()
    }

    /// What the time of day rests on.
    pub fn basis(&self) -> Basis {
        match (self.is_synchronised(), self.source, self.whose) {
            (true, ..) => Basis::WallClock,
            (false, Some(peer), _) => Basis::Peer(peer),
            (false, None, Word::Person) => Basis::Person,
            (false, None, Word::WentOn) => Basis::WentOn,
            (false, None, Word::Told) => Basis::Told,
            (false, None, Word::None) => Basis::Nothing,
        }
    }

    /// Takes the time of day from a person, unless a clock that is kept right is near. `heard` is the highest word of any peer:
    /// this one is the last.
    ///
    /// # Errors
    /// [`SetTimeError`]; nothing has changed.
    pub fn set_by_person(&mut self, now: Now, ms: u64, heard: u32) -> Result<(), SetTimeError> {
        if self.is_synchronised() || self.source.is_some() {
            return Err(SetTimeError::Known);
        }
        if !(self.build_ms..=self.build_ms.saturating_add(SAID_WITHIN_MS)).contains(&ms) {
            return Err(SetTimeError::Implausible);
        }
        self.anchor = (now.mono_ms, ms);
        (self.word, self.whose) = (self.word.max(heard).saturating_add(1), Word::Person);
        Ok(())
    }

    /// Notes whether the wall clock is said to be right. Where it lies behind a time that rests on another right clock, it
    /// is suspected.
    pub fn set_synchronised(&mut self, now: Now, synchronised: bool) {
        if synchronised == self.synchronised {
            return;
        }
        if self.is_synchronised() {
            self.count_on(now);
        }
        let is_behind = now.wall_ms.saturating_add(TOLERANCE_MS) < self.time_ms(now);
        let contradicts = is_behind && self.follows_a_clock();
        self.suspected = (synchronised && contradicts).then_some(now.mono_ms);
        (self.synchronised, self.seen) = (synchronised, now);
    }

    /// Notices a synchronised clock that went back. It is believed again when it agrees with the time counted on from
    /// before or taken from peers, or when after a while there is no better time.
    pub fn watch_wall(&mut self, now: Now) {
        if !self.synchronised {
            return;
        }
        let Some(since) = self.suspected else {
            if now.wall_ms.saturating_add(TOLERANCE_MS) < self.steady_ms(now) {
                self.count_on(now);
                self.suspected = Some(now.mono_ms);
            } else {
                self.seen = now;
            }
            return;
        };
        let agrees = self.time_ms(now).abs_diff(now.wall_ms) <= 2 * TOLERANCE_MS;
        let alone = !self.follows_a_clock() && now.mono_ms >= since + SUSPICION_MS;
        if agrees || alone {
            (self.suspected, self.seen) = (None, now);
        }
    }

    /// Whether the time is that of a peer whose own clock is right.
    fn follows_a_clock(&self) -> bool {
        self.source.is_some() && self.stratum == SYNCHRONISED + 1
    }

    /// Notes that a peer is out of reach, or no nearer to a right clock: its time is followed no more. The time counted
    /// on is worth less than that of whoever still follows one.
    pub fn lose(&mut self, peer: NodeId) {
        if self.source.take_if(|source| *source == peer).is_some() {
            self.go_on();
        }
    }

    /// A time that was right goes on by itself: that is newer than any word before.
    fn go_on(&mut self) {
        (self.stratum, self.source) = (UNSYNCHRONISED, None);
        (self.word, self.whose) = (self.word.saturating_add(1), Word::WentOn);
    }

    /// What the wall clock shows if it went on steadily since it was last believed: what made it unsure may have set it
    /// before anybody looked.
    fn steady_ms(&self, now: Now) -> u64 {
        self.seen.wall_ms.saturating_add(now.mono_ms.saturating_sub(self.seen.mono_ms))
    }

    /// Leaves the wall clock: time goes on steadily, not behind this node's own stamps.
    fn count_on(&mut self, now: Now) {
        let own = if self.is_synchronised() { self.steady_ms(now) } else { self.time_ms(now) };
        self.anchor = (now.mono_ms, own.max(self.clock.last().ms()));
        self.go_on();
    }

    /// Compares with a peer. A node follows, forth and back, a peer that is nearer to a right clock
    /// than itself; of two that know of none it takes the time of the one with the higher word; of two that are equally
    /// far, the one behind adopts the other's time. Returns
    /// whether the own time changed.
    pub fn compare(&mut self, now: Now, peer: NodeId, theirs: TimeOfDay) -> bool {
        if self.is_synchronised() || !self.is_plausible(theirs.ms) {
            return false;
        }
        let theirs = TimeOfDay { stratum: theirs.stratum.clamp(SYNCHRONISED, UNSYNCHRONISED), ..theirs };
        // Of several that are equally near, the first is followed until it is lost: time would step between them.
        let leads = self.source.is_none_or(|source| source == peer) || theirs.stratum + 1 < self.stratum;
        let is_nearer = theirs.stratum < self.stratum && leads;
        if is_nearer {
            self.source = Some(peer);
            self.stratum = self.stratum.min(theirs.stratum + 1);
        } else {
            self.lose(peer);
        }
        let knows_none = self.stratum == UNSYNCHRONISED && theirs.stratum == UNSYNCHRONISED;
        let has_the_word = knows_none && theirs.word > self.word;
        if has_the_word {
            (self.word, self.whose) = (theirs.word, Word::Told);
        }
        let own = self.time_ms(now);
        let is_even = theirs.stratum == self.stratum && theirs.word == self.word;
        let is_behind = self.source.is_none() && is_even && theirs.ms > own;
        let is_nearer = is_nearer || has_the_word;
        let adopts = own.abs_diff(theirs.ms) > TOLERANCE_MS && (is_nearer || is_behind);
        if adopts {
            self.anchor = (now.mono_ms, theirs.ms);
        }
        adopts
    }

    /// Whether a time of day may be right: not before this software was built, and not more than a century after.
    pub fn is_plausible(&self, ms: u64) -> bool {
        (self.build_ms..=self.build_ms.saturating_add(CENTURY_MS)).contains(&ms)
    }

    /// Whether peers are to be told the time of day: it stepped, it rests on something else, or it was told long ago.
    pub fn is_untold(&self, now: Now) -> bool {
        let (at, told) = self.told;
        let (own, since) = (self.time_of_day(now), now.mono_ms.saturating_sub(at));
        let stepped = own.ms.abs_diff(told.ms.saturating_add(since)) > TOLERANCE_MS;
        stepped || (own.stratum, own.word) != (told.stratum, told.word) || since >= TELL_MS
    }

    /// The time of day to tell all peers now.
    pub fn tell(&mut self, now: Now) -> TimeOfDay {
        self.told = (now.mono_ms, self.time_of_day(now));
        self.told.1
    }

    /// When there is something to do next, on the monotonic clock.
    pub fn poll_timeout(&self) -> u64 {
        let alone = self.suspected.filter(|_| !self.follows_a_clock());
        let believed = alone.map_or(u64::MAX, |since| since + SUSPICION_MS);
        believed.min(self.told.0 + TELL_MS)
    }

    /// A new stamp.
    pub fn issue(&mut self, now: Now) -> Hlc {
        self.clock.issue(self.time_ms(now))
    }

    /// Notes a stamp that took effect.
    pub fn merge(&mut self, stamp: Hlc) {
        self.clock.merge(stamp);
    }

    /// The highest stamp issued or merged.
    pub fn last(&self) -> Hlc {
        self.clock.last()
    }

    /// Whether the stamps run so far ahead of a time of day that whoever goes by it holds them back.
    pub fn is_ahead_of(&self, time_ms: u64) -> bool {
        self.clock.is_ahead(time_ms.saturating_add(TOLERANCE_MS))
    }

    /// The latest stamp that surely took effect at a time of day, whatever the small differences of the clocks:
    /// above it lies what is void when stamps were ahead.
    pub fn closing(time_ms: u64) -> Hlc {
        Hlc::from_ms(time_ms.saturating_add(MAX_AHEAD_MS - TOLERANCE_MS))
    }

    /// Sets the stamps back, to go on after the given one: the highest that is still in effect.
    pub fn reset(&mut self, to: Hlc) {
        self.clock.reset(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_790_000_000_000;
    const A: NodeId = NodeId::from_bytes([1; 32]);
    const B: NodeId = NodeId::from_bytes([2; 32]);

    fn at(mono_ms: u64, wall_ms: u64) -> Now {
        Now { mono_ms, wall_ms }
    }

    fn time(ms: u64, stratum: u8) -> TimeOfDay {
        TimeOfDay { ms, stratum, word: 0 }
    }

    /// A time without a right clock that has this word.
    fn word(ms: u64, word: u32) -> TimeOfDay {
        TimeOfDay { ms, stratum: UNSYNCHRONISED, word }
    }

    fn keeper(now: Now, synchronised: bool) -> TimeKeeper {
        let wall = if synchronised { WallClock::Right } else { WallClock::Unknown };
        TimeKeeper::new(now, Hlc::ZERO, 0, wall)
    }

    #[test]
    fn a_right_clock_is_followed_forth_and_back() {
        let mut own = keeper(at(0, T - 70_000), false);
        assert_eq!(own.time_of_day(at(0, 0)), time(T - 70_000, UNSYNCHRONISED));
        own.compare(at(0, 0), A, time(T, SYNCHRONISED));
        assert_eq!(own.time_of_day(at(500, 0)), time(T + 500, 2));
        own.compare(at(1_000, 0), A, time(T - 40_000, SYNCHRONISED));
        assert_eq!(own.time_of_day(at(1_000, 0)), time(T - 40_000, 2));
        own.compare(at(1_000, 0), B, time(T, 3));
        assert_eq!(own.time_of_day(at(1_000, 0)), time(T - 40_000, 2), "B rests on more nodes");
        own.compare(at(1_000, 0), B, time(T - 40_500, SYNCHRONISED));
        assert_eq!(own.time_of_day(at(1_000, 0)), time(T - 40_000, 2), "half a second is left alone");
    }

    #[test]
    fn of_two_that_know_no_right_clock_the_one_behind_follows() {
        let mut own = keeper(at(0, T), false);
        own.compare(at(0, T), A, time(T - 9_000, UNSYNCHRONISED));
        assert_eq!(own.time_ms(at(0, T)), T);
        own.compare(at(0, T), A, time(T + 9_000, UNSYNCHRONISED));
        assert_eq!(own.time_of_day(at(10, T)), time(T + 9_010, UNSYNCHRONISED));
    }

    #[test]
    fn the_time_of_a_source_that_lost_its_clock_goes_on_and_leads_who_knows_no_better() {
        let mut own = keeper(at(0, 0), false);
        own.compare(at(0, 0), A, time(T, SYNCHRONISED));
        own.compare(at(5_000, 0), A, time(T + 60_000, UNSYNCHRONISED));
        assert_eq!(own.time_of_day(at(5_000, 0)), word(T + 5_000, 1));
        own.compare(at(5_000, 0), B, time(u64::MAX >> 16, 1));
        assert_eq!(own.time_of_day(at(5_000, 0)), word(T + 5_000, 1), "no clock is right in the year 10889");
        let mut other = keeper(at(0, 0), false);
        assert!(other.compare(at(0, 0), A, own.time_of_day(at(5_000, 0))));
        assert_eq!((other.basis(), other.time_of_day(at(0, 0))), (Basis::Told, word(T + 5_000, 1)));
        own.compare(at(5_000, 0), B, time(T + 90_000, 0));
        assert_eq!(own.time_of_day(at(5_000, 0)), time(T + 90_000, 2), "a stratum of 0 counts as 1");
    }

    #[test]
    fn who_follows_a_right_clock_is_not_led_astray_by_who_does_too() {
        let mut own = keeper(at(0, 0), false);
        own.compare(at(0, 0), A, time(T + 30_000, SYNCHRONISED));
        for _ in 0..3 {
            own.compare(at(10, 0), A, time(T, SYNCHRONISED));
            own.compare(at(10, 0), B, time(T + 30_000, 2));
        }
        assert_eq!(own.time_of_day(at(10, 0)), time(T, 2), "A was set back, B has not heard of it");
    }

    #[test]
    fn of_two_right_clocks_that_differ_the_first_is_followed_until_it_is_lost() {
        let mut own = keeper(at(0, 0), false);
        assert!(own.compare(at(0, 0), A, time(T, SYNCHRONISED)));
        for _ in 0..3 {
            assert!(!own.compare(at(10, 0), B, time(T + 5_000, SYNCHRONISED)));
            assert!(!own.compare(at(10, 0), A, time(T + 10, SYNCHRONISED)));
        }
        own.lose(B);
        assert_eq!(own.time_of_day(at(10, 0)), time(T + 10, 2));
        own.lose(A);
        assert!(own.compare(at(10, 0), B, time(T + 5_000, SYNCHRONISED)));
        assert_eq!(own.time_of_day(at(10, 0)), time(T + 5_000, 2));
    }

    #[test]
    fn steps_and_new_trust_are_told_and_the_time_again_after_a_while() {
        let mut own = keeper(at(0, T), true);
        assert!(!own.is_untold(at(400, T + 400)) && !own.is_untold(at(400, T + 1_300)));
        assert!(own.is_untold(at(400, T + 1_500)), "a step");
        assert_eq!(own.tell(at(400, T + 1_500)), time(T + 1_500, SYNCHRONISED));
        assert!(!own.is_untold(at(400, T + 1_500)));
        assert!(own.is_untold(at(400 + TELL_MS, T + 1_500 + TELL_MS)));
        own.tell(at(700_000, T + 701_100));
        own.set_synchronised(at(700_000, T + 701_100), false);
        assert!(own.is_untold(at(700_000, T + 701_100)));
    }

    #[test]
    fn a_clock_that_goes_back_is_believed_when_another_agrees() {
        let mut own = keeper(at(0, T), true);
        own.watch_wall(at(1_000, T + 1_000));
        let back = at(2_000, T - 18_000);
        own.watch_wall(back);
        assert_eq!(own.time_of_day(back), word(T + 2_000, 1), "it counts on");
        own.compare(back, A, time(T + 2_200, SYNCHRONISED));
        own.watch_wall(at(2_000 + SUSPICION_MS, T - 18_000 + SUSPICION_MS));
        assert!(!own.is_synchronised(), "A's clock says otherwise");
        let set_right = at(300_000, T + 300_000);
        own.watch_wall(set_right);
        assert_eq!(own.time_of_day(set_right), time(T + 300_000, SYNCHRONISED));

        let mut wrong = keeper(at(0, T + 20_000), true);
        let corrected = at(1_000, T + 1_000);
        wrong.watch_wall(corrected);
        wrong.compare(corrected, A, time(T + 1_000, SYNCHRONISED));
        wrong.watch_wall(corrected);
        assert_eq!(wrong.time_of_day(corrected), time(T + 1_000, SYNCHRONISED), "A agrees with the new time");
    }

    #[test]
    fn alone_it_is_believed_after_a_while() {
        let mut own = keeper(at(0, T), true);
        own.watch_wall(at(1_000, T - 30_000));
        assert_eq!(own.poll_timeout(), 1_000 + SUSPICION_MS);
        own.watch_wall(at(own.poll_timeout() - 1, T));
        assert!(!own.is_synchronised());
        own.watch_wall(at(own.poll_timeout(), T));
        assert!(own.is_synchronised());
        assert_eq!(own.poll_timeout(), TELL_MS, "nothing else is waited for");
    }

    #[test]
    fn a_clock_behind_its_own_ceiling_is_suspected_at_the_start() {
        let ceiling = Hlc::from_ms(T + 365 * 86_400_000);
        let mut own = TimeKeeper::new(at(0, T), ceiling, 0, WallClock::Right);
        assert_eq!(own.time_of_day(at(0, T)), time(ceiling.ms(), UNSYNCHRONISED));
        own.compare(at(0, T), A, time(T, SYNCHRONISED));
        own.watch_wall(at(0, T));
        assert_eq!(own.time_of_day(at(0, T)), time(T, SYNCHRONISED));
        assert!(own.is_ahead_of(T));
        own.reset(TimeKeeper::closing(T));
        assert!(!own.is_ahead_of(T));
        assert!(own.issue(at(0, T)) > TimeKeeper::closing(T));
    }

    #[test]
    fn who_becomes_synchronised_is_believed_unless_a_right_clock_contradicts() {
        let mut alone = keeper(at(0, T + 500_000), false);
        alone.set_synchronised(at(0, T), true);
        assert_eq!(alone.time_of_day(at(0, T)), time(T, SYNCHRONISED));
        let mut led = keeper(at(0, T), false);
        led.compare(at(0, T), A, time(T + 20_000, SYNCHRONISED));
        led.set_synchronised(at(0, T), true);
        assert_eq!(led.time_of_day(at(0, T)), time(T + 20_000, 2));
        led.lose(A);
        led.watch_wall(at(SUSPICION_MS, T + SUSPICION_MS));
        assert!(led.is_synchronised(), "nobody contradicts any more");
    }

    #[test]
    fn a_battery_clock_counts_until_something_better_is_heard_and_not_when_it_ran_down() {
        let mut own = TimeKeeper::new(at(0, T), Hlc::from_ms(T - 5_000), 0, WallClock::Battery);
        assert_eq!((own.basis(), own.time_of_day(at(9, T))), (Basis::WentOn, word(T + 9, 1)));
        own.compare(at(10, T), A, time(T + 60_000, SYNCHRONISED));
        assert_eq!((own.basis(), own.time_ms(at(10, T))), (Basis::Peer(A), T + 60_000));
        own.lose(A);
        let gone_on = own.time_of_day(at(20, T));
        assert_eq!(
            (own.basis(), gone_on),
            (Basis::WentOn, word(T + 60_010, 2)),
            "that is newer than the battery's"
        );
        let run_down = TimeKeeper::new(at(0, 1_000), Hlc::from_ms(T), 0, WallClock::Battery);
        assert_eq!((run_down.basis(), run_down.time_of_day(at(0, 1_000))), (Basis::Nothing, word(T, 0)));
    }

    #[test]
    fn the_last_word_of_people_leads_forth_and_back_until_a_right_clock_is_heard() {
        let battery = || TimeKeeper::new(at(0, T), Hlc::ZERO, T - 900_000, WallClock::Battery);
        let (mut a, mut b) = (battery(), battery());
        assert_eq!(a.set_by_person(at(0, T), T - 1_000_000, 0), Err(SetTimeError::Implausible));
        assert_eq!(a.set_by_person(at(0, T), T + CENTURY_MS / 2, 0), Err(SetTimeError::Implausible));
        assert_eq!(a.set_by_person(at(0, T), T + 600_000, 1), Ok(()));
        assert_eq!((a.basis(), a.time_of_day(at(7, T))), (Basis::Person, word(T + 600_007, 2)));
        assert!(a.is_untold(at(7, T)) && a.time_of_day(at(7, T)).is_trusted());
        assert!(b.compare(at(7, T), A, a.time_of_day(at(7, T))));
        // It was a slip, and is said again at the other board: earlier.
        assert_eq!(b.set_by_person(at(8, T), T - 300_000, 2), Ok(()));
        assert!(!b.compare(at(8, T), A, a.time_of_day(at(8, T))), "what was said before does not come back");
        assert!(a.compare(at(9, T), B, b.time_of_day(at(9, T))));
        assert_eq!((a.basis(), a.time_of_day(at(9, T))), (Basis::Told, word(T - 299_999, 3)));
        a.compare(at(9, T), B, time(T, SYNCHRONISED));
        assert_eq!((a.basis(), a.time_ms(at(9, T))), (Basis::Peer(B), T));
        assert_eq!(a.set_by_person(at(9, T), T - 600_000, 3), Err(SetTimeError::Known));
        assert_eq!(keeper(at(0, T), true).set_by_person(at(0, T), T + 5_000, 0), Err(SetTimeError::Known));
    }
}
