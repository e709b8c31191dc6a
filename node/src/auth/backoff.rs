//! The pace of sign-ins: each wrong password makes the next try wait, from one second up to a quarter of an hour.
//!
//! Three things are counted: what is tried on a user, what an address tries, and what an address from which a user has
//! signed in before tries on that user. The last has an allowance of its own: whatever strangers try on somebody's name,
//! the person gets in at once from where they usually do. Tries on a user from networks of the home and from elsewhere are counted
//! apart: what the internet guesses keeps nobody at home out. A try counts as wrong before its password is looked at, and is
//! taken back when it was right, so that many at once gain nothing.
//!
//! The counts outlive a restart in a small file that is written five seconds after a change at the latest, and at
//! the end: who can kill the daemon wins back what was tried in its last five seconds, no more. The file holds no name and no
//! address, only hashes of them. Each node counts for itself.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::setup::is_near;
use crate::{origin::origin, state_dir::SIGN_INS_FILE};

/// The name of the file within the state folder.
pub const FILE: &str = "sign-ins";
/// Longest wait after a wrong password.
pub const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// What was quiet for so long starts anew.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// An address from which a user has not signed in for so long is a stranger's again.
const KNOWN_FOR: Duration = Duration::from_secs(90 * 24 * 3_600);
/// Pairs of user and address that are remembered at most.
const MAX_KNOWN: usize = 512;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Of {
    /// Tries on a user from wherever that user is not known.
    User,
    /// Tries from an address, or a /64 of IPv6.
    Address,
    /// Tries on a user from an address from which that user has signed in.
    Pair,
}

impl Of {
    /// Wrong tries that cost no wait. Several people may share an address.
    const fn free(self) -> u32 {
        match self {
            Self::User | Self::Pair => 2,
            Self::Address => 5,
        }
    }

    /// How many are remembered at most.
    const fn bound(self) -> usize {
        match self {
            Self::User => 256,
            Self::Address => 1_024,
            Self::Pair => MAX_KNOWN,
        }
    }

    /// The wait after so many wrong tries.
    fn wait(self, failures: u32) -> Duration {
        match failures.checked_sub(self.free() + 1) {
            None => Duration::ZERO,
            Some(doublings) => LONGEST_WAIT.min(Duration::from_secs(1 << doublings.min(16))),
        }
    }
}

/// A hash of a name, an address or both: nobody's password that was typed into the wrong box is kept.
type Key = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    failures: u32,
    /// In milliseconds since the daemon started; before that when it was read.
    last: i64,
}

/// A try that was let through.
#[derive(Debug)]
pub struct Attempt {
    counted: [(Of, Key); 2],
    pair: Key,
}

/// The counts.
#[derive(Debug)]
pub struct Backoff {
    start: Instant,
    counts: BTreeMap<(Of, Key), Count>,
    /// When a user last signed in from an address.
    known: BTreeMap<Key, i64>,
    changed: bool,
}

/// The content of the file. Published: another form is another version of the file.
#[derive(Serialize, Deserialize)]
struct Saved {
    /// When it was written, in seconds since 1970.
    at_s: u64,
    /// What, its key, its failures, and how many seconds ago the last was.
    counts: Vec<(Of, Key, u32, u32)>,
    known: Vec<(Key, u32)>,
}

impl Backoff {
    /// Nothing was tried yet.
    pub fn new(now: Instant) -> Self {
        Self { start: now, counts: BTreeMap::new(), known: BTreeMap::new(), changed: false }
    }

    /// What a file held; nothing, if it is of another form.
    pub fn read(bytes: &[u8], now: Instant, wall_s: u64) -> Self {
        let mut read = Self::new(now);
        let Ok(saved) = postcard::from_bytes::<Saved>(bytes) else { return read };
        // A clock that was set back is no reason to forget anything.
        let stopped_s = wall_s.saturating_sub(saved.at_s);
        let ago = |s: u32| -i64::try_from(stopped_s.saturating_add(s.into())).unwrap_or(i64::MAX / 1_000);
        let ago = |s: u32| ago(s).saturating_mul(1_000);
        for (of, key, failures, s) in saved.counts {
            read.counts.insert((of, key), Count { failures, last: ago(s) });
        }
        read.known = saved.known.into_iter().map(|(key, s)| (key, ago(s))).collect();
        read.tidy(now);
        read
    }

    /// What is to be written, if it has changed since it was asked for last.
    pub fn save(&mut self, now: Instant, wall_s: u64) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.tidy(now);
        let at = self.at(now);
        let ago = |last: i64| u32::try_from(at.saturating_sub(last) / 1_000).unwrap_or(0);
        let counts =
            self.counts.iter().map(|((of, key), count)| (*of, *key, count.failures, ago(count.last)));
        let known = self.known.iter().map(|(key, last)| (*key, ago(*last)));
        let saved = Saved { at_s: wall_s, counts: counts.collect(), known: known.collect() };
        postcard::to_allocvec(&saved).ok().filter(|bytes| bytes.len() <= SIGN_INS_FILE.max_bytes)
    }

    /// Whether there is something to be written.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// What was to be written could not be: it is tried again.
    pub fn not_saved(&mut self) {
        self.changed = true;
    }

    /// Lets a try on a user from an address pass, which counts as wrong from now on.
    ///
    /// # Errors
    /// How many seconds it has to wait. That it came too early counts for nothing.
    pub fn begin(&mut self, user: &str, address: Option<IpAddr>, now: Instant) -> Result<Attempt, u64> {
        let pair = pair_key(user, address);
        let is_known = self.known.get(&pair).is_some_and(|last| self.is_within(*last, KNOWN_FOR, now));
        let of_address = (Of::Address, address_key(address));
        let (counted, decisive) = if is_known {
            // Its address counts, but what others on it tried does not hold this one up.
            ([(Of::Pair, pair), of_address], 1)
        } else {
            ([(Of::User, user_key(user, address)), of_address], 2)
        };
        let left = counted.iter().take(decisive).map(|(of, key)| self.left(*of, *key, now)).max();
        match left.unwrap_or_default() {
            Duration::ZERO => {}
            left => return Err(u64::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)),
        }
        for (of, key) in counted {
            self.count(of, key, now);
        }
        Ok(Attempt { counted, pair })
    }

    /// It was right.
    pub fn succeeded(&mut self, attempt: &Attempt, now: Instant) {
        self.take_back(attempt);
        self.counts.remove(&(Of::Pair, attempt.pair));
        if !self.known.contains_key(&attempt.pair) && self.known.len() >= MAX_KNOWN {
            let oldest = self.known.iter().min_by_key(|(_, last)| **last).map(|(key, _)| *key);
            oldest.and_then(|key| self.known.remove(&key));
        }
        self.known.insert(attempt.pair, self.at(now));
    }

    /// Its password was not looked at.
    pub fn take_back(&mut self, attempt: &Attempt) {
        self.changed = true;
        for place in attempt.counted {
            if let Some(count) = self.counts.get_mut(&place) {
                count.failures = count.failures.saturating_sub(1);
                if count.failures == 0 {
                    self.counts.remove(&place);
                }
            }
        }
    }

    fn left(&self, of: Of, key: Key, now: Instant) -> Duration {
        let Some(count) = self.counts.get(&(of, key)) else { return Duration::ZERO };
        let passed = u64::try_from(self.at(now).saturating_sub(count.last)).unwrap_or(0);
        of.wait(count.failures).saturating_sub(Duration::from_millis(passed))
    }

    fn count(&mut self, of: Of, key: Key, now: Instant) {
        self.changed = true;
        let at = self.at(now);
        self.make_room(of, key);
        let is_forgotten =
            self.counts.get(&(of, key)).is_some_and(|old| !self.is_within(old.last, FORGET_AFTER, now));
        let count = self.counts.entry((of, key)).or_insert(Count { failures: 0, last: at });
        if is_forgotten {
            count.failures = 0;
        }
        *count = Count { failures: count.failures.saturating_add(1), last: at };
    }

    /// The one with the fewest wrong tries goes, then the oldest: a flood of names or addresses forgets itself.
    fn make_room(&mut self, of: Of, key: Key) {
        let range = (of, Key::MIN)..=(of, Key::MAX);
        if self.counts.contains_key(&(of, key)) || self.counts.range(range.clone()).count() < of.bound() {
            return;
        }
        let least = self.counts.range(range).min_by_key(|(_, count)| (count.failures, count.last));
        let least = least.map(|(place, _)| *place);
        least.and_then(|place| self.counts.remove(&place));
    }

    fn tidy(&mut self, now: Instant) {
        let at = self.at(now);
        let within = |last: i64, time: Duration| at.saturating_sub(last) < millis(time);
        self.counts.retain(|_, count| count.failures > 0 && within(count.last, FORGET_AFTER));
        self.known.retain(|_, last| within(*last, KNOWN_FOR));
        for of in [Of::User, Of::Address, Of::Pair] {
            while self.counts.range((of, Key::MIN)..=(of, Key::MAX)).count() > of.bound() {
                let first = self.counts.range((of, Key::MIN)..).next().map(|(place, _)| *place);
                first.and_then(|place| self.counts.remove(&place));
            }
        }
        while self.known.len() > MAX_KNOWN {
            self.known.pop_first();
        }
    }

    fn is_within(&self, last: i64, time: Duration, now: Instant) -> bool {
        self.at(now).saturating_sub(last) < millis(time)
    }

    fn at(&self, now: Instant) -> i64 {
        millis(now.saturating_duration_since(self.start))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn address_key(address: Option<IpAddr>) -> Key {
    hash(&[b"address", text(address.map(origin)).as_bytes()])
}

/// One for the home and one for everybody else. The board's own socket is at home.
fn user_key(user: &str, address: Option<IpAddr>) -> Key {
    let place: &[u8] = if address.is_none_or(is_near) { b"near" } else { b"far" };
    hash(&[b"user", user.as_bytes(), place])
}

/// A machine with IPv6 changes its address within its /64 every day.
fn pair_key(user: &str, address: Option<IpAddr>) -> Key {
    let address = text(address.map(origin));
    hash(&[b"pair", user.as_bytes(), address.as_bytes()])
}

fn text(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "socket".to_owned(), |address| address.to_string())
}

fn hash(parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("hearth 2026-11 pace of sign-ins");
    for part in parts {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    let mut key = [0; 8];
    hasher.finalize_xof().fill(&mut key);
    Key::from_le_bytes(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const DESK: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const STRANGER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)));

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// Wrong tries as soon as each may come; the waits.
    fn guess(
        backoff: &mut Backoff,
        user: &str,
        address: Option<IpAddr>,
        now: &mut Instant,
        n: usize,
    ) -> Vec<u64> {
        let mut waits = Vec::new();
        while waits.len() < n {
            let wait = backoff.begin(user, address, *now).err().unwrap_or(0);
            *now += seconds(wait);
            if wait > 0 {
                backoff.begin(user, address, *now).unwrap();
            }
            waits.push(wait);
        }
        waits
    }

    #[test]
    fn the_wait_doubles_from_a_second_to_a_quarter_of_an_hour() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        let waits = guess(&mut backoff, "ann", STRANGER, &mut now, 15);
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        // Whoever comes too early does not wait longer for it.
        for _ in 0..50 {
            assert_eq!(backoff.begin("ann", STRANGER, now).unwrap_err(), 900);
        }
        now += seconds(900);
        assert!(backoff.begin("ann", STRANGER, now).is_ok());
        now += FORGET_AFTER;
        assert_eq!(
            guess(&mut backoff, "ann", STRANGER, &mut now, 4),
            [0, 0, 0, 1],
            "a quiet day starts anew"
        );
    }

    #[test]
    fn a_user_is_guarded_from_many_addresses_and_an_address_over_many_users() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        for n in 0..3u8 {
            backoff.begin("ann", Some(IpAddr::from([192, 0, 2, n])), now).unwrap();
        }
        assert_eq!(backoff.begin("ann", STRANGER, now).unwrap_err(), 1);
        assert!(backoff.begin("ben", STRANGER, now).is_ok(), "another user is not held up");
        for n in 0..5 {
            backoff.begin(&format!("name{n}"), STRANGER, now).unwrap();
        }
        assert_eq!(backoff.begin("name9", STRANGER, now).unwrap_err(), 1);
        let network = |n: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]));
        for n in 0..6 {
            backoff.begin(&format!("other{n}"), network(n), now).unwrap();
        }
        assert_eq!(backoff.begin("other9", network(9), now).unwrap_err(), 1, "a /64 is one sender");
        now += seconds(1);
        assert!(backoff.begin("other9", network(9), now).is_ok());
    }

    #[test]
    fn who_has_signed_in_from_an_address_is_not_locked_out_by_strangers_there_or_elsewhere() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        let attempt = backoff.begin("ann", DESK, now).unwrap();
        backoff.succeeded(&attempt, now);
        guess(&mut backoff, "ann", STRANGER, &mut now, 12);
        guess(&mut backoff, "ben", DESK, &mut now, 12);
        assert!(backoff.begin("ann", STRANGER, now).is_err() && backoff.begin("ben", DESK, now).is_err());
        let attempt = backoff.begin("ann", DESK, now).unwrap();
        backoff.succeeded(&attempt, now);
        assert!(backoff.begin("ann", STRANGER, now).is_err(), "the strangers gained nothing by it");
        // Where she is known her own allowance holds.
        assert_eq!(guess(&mut backoff, "ann", DESK, &mut now, 5), [0, 0, 0, 1, 2]);
        now += KNOWN_FOR;
        assert_eq!(guess(&mut backoff, "ann", DESK, &mut now, 1), [0]);
        let of_her = (Of::User, user_key("ann", DESK));
        assert_eq!(backoff.counts[&of_her].failures, 1, "she is a stranger again");
    }

    #[test]
    fn what_the_internet_tries_holds_up_nobody_at_home_and_an_ipv6_network_is_one_place() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        guess(&mut backoff, "ann", STRANGER, &mut now, 12);
        assert!(backoff.begin("ann", STRANGER, now).is_err());
        assert!(backoff.begin("ann", Some(IpAddr::from([203, 0, 113, 77])), now).is_err());
        // She has never signed in from there.
        for near in ["10.0.0.1", "192.168.7.7", "127.0.0.1", "fe80::1", "fd00::1", "::ffff:10.0.0.2"] {
            let attempt = backoff.begin("ann", Some(near.parse().unwrap()), now).unwrap();
            backoff.take_back(&attempt);
        }
        guess(&mut backoff, "ann", DESK, &mut now, 12);
        assert!(
            backoff.begin("ann", Some(IpAddr::from([10, 0, 0, 2])), now).is_err(),
            "nor are guesses from there free"
        );
        let network = |n: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]));
        now += LONGEST_WAIT;
        let attempt = backoff.begin("ann", network(1), now).unwrap();
        backoff.succeeded(&attempt, now);
        guess(&mut backoff, "ann", STRANGER, &mut now, 12);
        assert!(backoff.begin("ann", network(2), now).is_ok(), "her address of today");
    }

    #[test]
    fn a_right_password_and_one_that_was_not_looked_at_are_taken_back_and_many_at_once_are_not_free() {
        let now = Instant::now();
        let mut backoff = Backoff::new(now);
        for _ in 0..20 {
            let attempt = backoff.begin("ann", DESK, now).unwrap();
            backoff.take_back(&attempt);
        }
        let attempts: Vec<_> = (0..20).filter_map(|_| backoff.begin("ann", DESK, now).ok()).collect();
        assert_eq!(attempts.len(), 3);
        backoff.succeeded(&attempts[0], now);
        assert_eq!(backoff.counts.values().map(|count| count.failures).max(), Some(2));
    }

    #[test]
    fn a_restart_forgets_nothing_not_even_when_the_clock_was_set_back() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        let attempt = backoff.begin("ann", DESK, now).unwrap();
        backoff.succeeded(&attempt, now);
        guess(&mut backoff, "ann", STRANGER, &mut now, 9);
        let wait = backoff.begin("ann", STRANGER, now).unwrap_err();
        assert_eq!(wait, 64);
        let bytes = backoff.save(now, 1_000_000).unwrap();
        assert_eq!(backoff.save(now, 1_000_000), None, "only what has changed is written");
        backoff.not_saved();
        assert!(backoff.save(now, 1_000_000).is_some());
        assert!(!String::from_utf8_lossy(&bytes).contains("ann"));
        for (wall, expected) in [(1_000_000, 64), (1_000_010, 54), (0, 64)] {
            let mut again = Backoff::read(&bytes, now, wall);
            assert_eq!(again.begin("ann", STRANGER, now).unwrap_err(), expected, "{wall}");
            assert!(again.begin("ann", DESK, now).is_ok());
        }
        let mut later = Backoff::read(&bytes, now, 1_000_000 + FORGET_AFTER.as_secs());
        assert!(later.begin("ann", STRANGER, now).is_ok());
        for senseless in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"v1"] {
            assert!(Backoff::read(senseless, now, 0).counts.is_empty());
        }
    }

    #[test]
    fn a_flood_of_names_and_addresses_costs_a_bounded_table_and_frees_nobody() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(now);
        guess(&mut backoff, "ann", STRANGER, &mut now, 8);
        for n in 0..5_000u32 {
            let address = Some(IpAddr::from(n.to_be_bytes()));
            let attempt = backoff.begin(&format!("name{n}"), address, now).unwrap();
            if n % 2 == 0 {
                backoff.succeeded(&attempt, now);
            }
        }
        let of = |wanted| backoff.counts.keys().filter(|(of, _)| *of == wanted).count();
        assert_eq!((of(Of::User), of(Of::Address)), (Of::User.bound(), Of::Address.bound()));
        assert_eq!(backoff.known.len(), MAX_KNOWN);
        assert!(backoff.begin("ann", STRANGER, now).is_err(), "the guesses on her are still counted");
        let bytes = backoff.save(now, 5).unwrap();
        assert!(bytes.len() < SIGN_INS_FILE.max_bytes, "{}", bytes.len());
        assert_eq!(Backoff::read(&bytes, now, 5).counts.len(), backoff.counts.len());
    }
}
