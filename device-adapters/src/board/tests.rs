//! The bookkeeping of a board's devices in simulated time, and what its files may hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::keeper::{HANGS, Job, Keeper, Outcome, Task};
use super::{
    Applied, Attribute, AttributeError, Event, Fault, Found, Listing, Sample, board_id, entries, slug,
};
use crate::adapter::{Directive, Reading};
use crate::model::{
    Availability, Capabilities, Change, CommandId, Description, DeviceId, Measurement, SensorDescription,
    Sensors, Stage, State,
};

const POLL: Duration = Duration::from_secs(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn device(number: u8) -> DeviceId {
    board_id("test_bench", "0000000000000000", &number.to_string()).unwrap()
}

fn found(number: u8, lane: &str) -> Found<u8> {
    let sensor = SensorDescription::numeric("Temperature", Some("temperature"), "°C", 1);
    let description = Description {
        id: device(number),
        adapter: "test_bench".to_owned(),
        name: String::new(),
        manufacturer: String::new(),
        model: "switch".to_owned(),
        firmware: None,
        address: Some(format!("bench/{number}")),
        capabilities: Capabilities::Switch,
        sensors: Sensors::from([("temperature".to_owned(), sensor)]),
        note: None,
    };
    Found { description, lane: lane.to_owned(), place: number }
}

fn sample(on: bool, celsius: f64) -> Sample {
    let values = BTreeMap::from([("temperature".to_owned(), Measurement::Number(celsius))]);
    Sample { state: Some(State::Switch { on }), values }
}

/// A board with switches, whose time passes as the test says.
struct Bench {
    now: Instant,
    keeper: Keeper<u8>,
    there: Vec<(u8, &'static str)>,
    /// What each switch shows.
    on: BTreeMap<u8, bool>,
    /// Switches that do what they are told.
    obeys: bool,
    /// Whether jobs come back.
    hangs: bool,
    failing: Option<&'static str>,
    /// Jobs that did not come back yet.
    open: Vec<Job<u8>>,
    done: Vec<String>,
    readings: Vec<Reading>,
}

impl Bench {
    fn new(there: &[(u8, &'static str)]) -> Self {
        let now = Instant::now();
        Self {
            now,
            keeper: Keeper::new("test_bench", POLL, now),
            there: there.to_vec(),
            on: BTreeMap::new(),
            obeys: true,
            hangs: false,
            failing: None,
            open: Vec::new(),
            done: Vec::new(),
            readings: Vec::new(),
        }
    }

    fn owning(there: &[(u8, &'static str)]) -> Self {
        let mut bench = Self::new(there);
        for (number, _) in there {
            bench.direct(Directive::Own { device: device(*number), owned: true });
        }
        bench.run(ms(1));
        bench
    }

    fn direct(&mut self, directive: Directive) {
        self.keeper.handle_directive(self.now, directive);
        self.work();
    }

    fn switch(&mut self, number: u8, command: u8, on: bool, patience: Duration) {
        self.direct(Directive::Command {
            device: device(number),
            command: CommandId([command; 16]),
            change: Change::Switch { on },
            by: String::new(),
            deadline: self.now + patience,
        });
    }

    /// Lets time pass, to what is due in between.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.work();
            let due = self.keeper.poll_timeout().unwrap_or(end).min(end);
            assert!(due > self.now || due == end, "what is due stays due");
            self.now = due.max(self.now);
            if self.now >= end {
                return self.work();
            }
        }
    }

    fn work(&mut self) {
        self.keeper.handle_timeout(self.now);
        while let Some(job) = self.keeper.poll_job(self.now) {
            assert!(self.open.iter().all(|open| open.lane != job.lane), "two jobs on {}", job.lane);
            self.open.push(job);
            if !self.hangs {
                self.come_back();
            }
        }
        while let Some(reading) = self.keeper.poll_reading() {
            self.readings.push(reading);
        }
    }

    /// All that was begun comes back.
    fn come_back(&mut self) {
        for job in std::mem::take(&mut self.open) {
            let outcome = self.perform(job.task);
            self.keeper.handle_done(self.now, &job.lane, outcome);
        }
    }

    fn perform(&mut self, task: Task<u8>) -> Outcome<u8> {
        match task {
            Task::List { .. } => {
                self.done.push("list".to_owned());
                let found = self.there.iter().map(|(number, lane)| found(*number, lane)).collect();
                Outcome::Listed(Ok(Listing { found, ..Listing::default() }))
            }
            Task::Read { device, place, .. } => {
                self.done.push(format!("read {place}"));
                let on = self.on.get(&place).copied().unwrap_or_default();
                let result = self.failing.map_or_else(|| Ok(sample(on, 20.04)), |why| Err(why.to_owned()));
                Outcome::Read { device, result }
            }
            Task::Apply { device, command, place, change, .. } => {
                self.done.push(format!("apply {place}"));
                if self.obeys {
                    self.on.insert(place, change.on().unwrap());
                }
                let on = self.on.get(&place).copied().unwrap_or_default();
                let applied = Applied { sample: sample(on, 20.0), follows: change.on() == Some(on) };
                let result = self.failing.map_or(Ok(applied), |why| Err(Fault::Failed(why.to_owned())));
                Outcome::Applied { device, command, result }
            }
        }
    }

    fn life_of(&self, number: u8) -> Vec<Stage> {
        let stages = self.readings.iter().filter_map(|reading| match reading {
            Reading::Progress { command, stage, .. } if command.0 == [number; 16] => Some(stage.clone()),
            _ => None,
        });
        stages.collect()
    }

    fn availabilities(&self) -> Vec<(Availability, String)> {
        let all = self.readings.iter().filter_map(|reading| match reading {
            Reading::Availability { availability, reason, .. } => Some((*availability, reason.clone())),
            _ => None,
        });
        all.collect()
    }
}

#[test]
fn only_what_is_owned_is_read_and_all_that_is_there_is_found() {
    let mut bench = Bench::new(&[(1, "a"), (2, "b")]);
    bench.run(Duration::from_secs(4));
    assert_eq!(bench.done, ["list"]);
    assert_eq!(bench.readings.iter().filter(|r| matches!(r, Reading::Found { .. })).count(), 2);
    bench.direct(Directive::Own { device: device(1), owned: true });
    assert_eq!(bench.done, ["list", "read 1"]);
    assert_eq!(bench.availabilities(), [(Availability::Online, "it answers".to_owned())]);
}

#[test]
fn what_does_not_change_is_told_once_and_again_when_asked_for() {
    let mut bench = Bench::owning(&[(1, "a")]);
    bench.run(Duration::from_secs(20));
    let told = |bench: &Bench| {
        bench
            .readings
            .iter()
            .filter(|r| matches!(r, Reading::Reported { .. } | Reading::Measured { .. }))
            .count()
    };
    assert_eq!(told(&bench), 2);
    bench.direct(Directive::Refresh { device: device(1) });
    assert_eq!(told(&bench), 4);
    // Somebody else turns it on: the next poll sees that.
    bench.on.insert(1, true);
    bench.run(POLL);
    assert_eq!(told(&bench), 5);
}

#[test]
fn a_command_goes_out_at_once_and_is_confirmed_by_what_is_read_back() {
    let mut bench = Bench::owning(&[(1, "a")]);
    bench.switch(1, 1, true, POLL);
    assert_eq!(bench.life_of(1), [Stage::Sent, Stage::Acknowledged, Stage::Confirmed]);
    let followed = bench.readings.iter().any(|reading| {
        matches!(reading, Reading::Reported { command: Some(id), state: State::Switch { on: true }, .. } if id.0 == [1; 16])
    });
    assert!(followed, "{:?}", bench.readings);
}

#[test]
fn a_device_that_does_not_obey_is_told_again_until_the_deadline() {
    let mut bench = Bench::owning(&[(1, "a")]);
    bench.obeys = false;
    bench.switch(1, 1, true, POLL);
    bench.run(POLL);
    let life = bench.life_of(1);
    assert!(
        matches!(&life[..], [Stage::Sent, Stage::Acknowledged, Stage::TimedOut { reason }] if reason.contains("it shows off")),
        "{life:?}"
    );
    assert!(
        (5..=8).contains(&bench.done.iter().filter(|done| *done == "apply 1").count()),
        "{:?}",
        bench.done
    );
}

#[test]
fn a_slider_writes_twenty_times_a_second_and_the_last_one_counts() {
    let mut bench = Bench::owning(&[(1, "a")]);
    for number in 1..=100 {
        bench.switch(1, number, number % 2 == 0, POLL);
        bench.run(ms(10));
    }
    assert_eq!(bench.life_of(100).last(), Some(&Stage::Confirmed));
    assert!((1..100).all(|n| bench.life_of(n).last().is_some_and(Stage::is_final)));
    let applied = bench.done.iter().filter(|done| done.starts_with("apply")).count();
    assert!((15..=22).contains(&applied), "{applied}");
}

#[test]
fn a_read_that_hangs_holds_up_its_bus_alone() {
    let mut bench = Bench::owning(&[(1, "a"), (2, "b")]);
    bench.hangs = true;
    bench.run(POLL);
    let stuck = bench.open.iter().position(|job| job.lane == "a").unwrap();
    let stuck = bench.open.remove(stuck);
    bench.hangs = false;
    bench.come_back();
    bench.switch(1, 1, true, ms(500));
    bench.switch(2, 2, true, ms(500));
    bench.run(Duration::from_secs(1));
    assert!(
        matches!(bench.life_of(1).as_slice(), [Stage::TimedOut { reason }] if reason.contains("its bus")),
        "{:?}",
        bench.life_of(1)
    );
    assert_eq!(bench.life_of(2).last(), Some(&Stage::Confirmed));
    bench.run(HANGS);
    let offline = bench.availabilities().pop().unwrap();
    assert!(offline.0 == Availability::Offline && offline.1.contains("a for 10 s"), "{offline:?}");
    let outcome = bench.perform(stuck.task);
    bench.keeper.handle_done(bench.now, "a", outcome);
    bench.work();
    assert_eq!(bench.availabilities().pop().unwrap().0, Availability::Online);
}

#[test]
fn one_miss_is_none_and_two_are_told_with_their_reason() {
    let mut bench = Bench::owning(&[(1, "a")]);
    bench.failing = Some("no such file");
    bench.run(POLL);
    assert_eq!(bench.availabilities().len(), 1, "one miss");
    bench.run(POLL);
    let told = bench.availabilities().pop().unwrap();
    assert_eq!(told, (Availability::Offline, "no such file, 2 times in a row".to_owned()));
    bench.failing = None;
    bench.run(POLL);
    assert_eq!(bench.availabilities().pop().unwrap().0, Availability::Online);
}

#[test]
fn what_is_pulled_is_lost_with_its_commands_and_found_again_as_owned() {
    let mut bench = Bench::owning(&[(1, "a")]);
    bench.there.clear();
    bench.obeys = false;
    bench.switch(1, 1, true, Duration::from_secs(60));
    bench.run(Duration::from_secs(6));
    assert!(matches!(bench.life_of(1).last(), Some(Stage::Failed { reason }) if reason.contains("bench/1")));
    assert!(matches!(bench.readings.last(), Some(Reading::Lost { .. })), "{:?}", bench.readings.last());
    bench.switch(1, 2, true, POLL);
    assert!(
        matches!(bench.life_of(2).as_slice(), [Stage::Failed { reason }] if reason.contains("not wired"))
    );
    bench.there.push((1, "a"));
    bench.run(Duration::from_secs(6));
    assert_eq!(bench.availabilities().pop().unwrap().0, Availability::Online, "still owned");
}

#[test]
fn what_is_not_owned_takes_no_commands_and_tells_nothing() {
    let mut bench = Bench::owning(&[(1, "a")]);
    bench.hangs = true;
    bench.switch(1, 1, true, POLL);
    bench.direct(Directive::Own { device: device(1), owned: false });
    assert!(matches!(bench.life_of(1).last(), Some(Stage::Failed { .. })));
    bench.switch(1, 2, true, POLL);
    assert!(
        matches!(bench.life_of(2).as_slice(), [Stage::Failed { reason }] if reason.contains("does not own"))
    );
    let before = bench.readings.len();
    bench.keeper.handle_event(bench.now, Event::Sampled { device: device(1), sample: sample(true, 1.0) });
    bench.come_back();
    bench.work();
    assert_eq!(bench.readings.len(), before, "{:?}", bench.readings);
}

#[test]
fn what_a_device_tells_while_it_is_read_is_newer_than_what_the_read_yields() {
    let mut bench = Bench::owning(&[(1, "a")]);
    let shown = |bench: &Bench| {
        let states = bench.readings.iter().rev().find_map(|reading| match reading {
            Reading::Reported { state, .. } => state.is_on(),
            _ => None,
        });
        states.unwrap()
    };
    bench.hangs = true;
    bench.direct(Directive::Refresh { device: device(1) });
    bench.keeper.handle_event(bench.now, Event::Sampled { device: device(1), sample: sample(true, 20.0) });
    bench.come_back(); // with what it showed before
    bench.work();
    assert!(shown(&bench));
    // The next read begins after that, and counts.
    bench.hangs = false;
    bench.run(POLL);
    assert!(!shown(&bench));
}

#[test]
fn a_folder_that_cannot_be_listed_keeps_what_was_in_it() {
    let mut bench = Bench::owning(&[(1, "a")]);
    bench.keeper.handle_done(bench.now, "", Outcome::Listed(Err(io::Error::other("I/O error"))));
    bench.switch(1, 1, true, POLL);
    assert_eq!(bench.life_of(1).last(), Some(&Stage::Confirmed));
    assert!(!bench.readings.iter().any(|reading| matches!(reading, Reading::Lost { .. })));
}

#[test]
fn a_device_of_which_nobody_knows_whether_it_is_there_stays() {
    let mut bench = Bench::owning(&[(1, "a"), (2, "b")]);
    let listing = Listing { unsure: BTreeSet::from([device(1), device(3)]), ..Listing::default() };
    bench.keeper.handle_done(bench.now, "", Outcome::Listed(Ok(listing)));
    bench.work();
    let lost: Vec<_> = bench
        .readings
        .iter()
        .filter_map(|reading| match reading {
            Reading::Lost { device, .. } => Some(device.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [device(2)]);
    bench.switch(1, 1, true, POLL);
    assert_eq!(bench.life_of(1).last(), Some(&Stage::Confirmed));
}

proptest! {
    #[test]
    fn every_command_ends_once_and_in_time(steps in prop::collection::vec((0_u8..8, 1_u8..4, 0_u64..900), 1..60)) {
        let mut bench = Bench::owning(&[(1, "a"), (2, "a"), (3, "b")]);
        let mut commands = 0;
        for (step, number, pause) in steps {
            match step {
                0 => bench.hangs = !bench.hangs,
                1 => { bench.come_back(); bench.work(); }
                2 => bench.obeys = !bench.obeys,
                3 => bench.failing = bench.failing.is_none().then_some("I/O error"),
                4 => bench.direct(Directive::Own { device: device(number), owned: pause % 2 == 0 }),
                5 => bench.there.truncate(usize::from(number)),
                _ => {
                    commands += 1;
                    bench.switch(number, commands, pause % 2 == 0, ms(pause));
                }
            }
            bench.run(ms(pause));
        }
        bench.run(Duration::from_secs(2));
        for command in 1..=commands {
            let life = bench.life_of(command);
            let finals = life.iter().filter(|stage| stage.is_final()).count();
            prop_assert!(finals == 1 && life.last().is_some_and(Stage::is_final), "{command}: {life:?}");
        }
    }

    #[test]
    fn any_text_makes_a_part_of_an_id(text in ".{0,80}") {
        let slug = slug(&text);
        prop_assert!(!slug.starts_with('-') && !slug.ends_with('-') && !slug.contains("--"));
        prop_assert!(board_id("sysfs_led", "0123456789abcdef", &text).is_ok());
    }
}

#[test]
fn an_attribute_is_bounded_and_says_what_is_wrong_with_it() {
    let folder = Folder::new();
    let attribute = |text: &[u8]| {
        std::fs::write(folder.0.join("value"), text).unwrap();
        Attribute::of(&folder.0, "value")
    };
    assert_eq!(attribute(b"42\n").integer().unwrap(), 42);
    assert_eq!(attribute(b"-7").integer().unwrap(), -7);
    assert_eq!(attribute(b"21.5\n").number().unwrap(), 21.5);
    for bad in [&b""[..], b"\n", b"NaN", b"inf", b"1e999", b"0x10", b"1 2", b"\xff\xfe\x00"] {
        let error = attribute(bad).number().unwrap_err();
        assert!(matches!(error, AttributeError::Strange { .. }) && error.is_strange(), "{bad:?}: {error}");
    }
    assert!(matches!(attribute(&[b'1'; 5_000]).text(), Err(AttributeError::TooLong { most: 4_096, .. })));
    assert_eq!(attribute(&[b'1'; 5_000]).list().unwrap().len(), 5_000);
    let missing = Attribute::of(&folder.0, "missing").text().unwrap_err();
    assert!(missing.is_missing() && missing.to_string().contains("cannot read"), "{missing}");
    let directory =
        Attribute::of(folder.0.parent().unwrap(), folder.0.file_name().unwrap().to_str().unwrap());
    assert!(matches!(directory.text(), Err(AttributeError::Read { .. })));
    assert!(directory.write("1").is_err());
    let all = |_: &str| true;
    assert_eq!(entries(&folder.0.join("nowhere"), all).unwrap(), Vec::<String>::new());
    assert!(entries(&folder.0.join("value"), all).unwrap_err().to_string().contains("cannot list"));
}

#[test]
fn of_a_folder_with_too_many_names_the_first_that_fit_are_taken() {
    let folder = Folder::new();
    for number in 0..1_500 {
        folder.file(&format!("tty{number:04}"), "");
    }
    folder.file("zigbee0", "");
    assert_eq!(entries(&folder.0, |name| name.starts_with("zigbee")).unwrap(), ["zigbee0"]);
    let first: Vec<String> = (0..1_024).map(|number| format!("tty{number:04}")).collect();
    assert_eq!(entries(&folder.0, |_| true).unwrap(), first);
}

/// A folder that is gone when it is dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hearth-board-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Makes a file and the folders that it is in.
    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
