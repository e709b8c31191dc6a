//! The board as a state machine: time is an argument, so nothing waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::board::{Action, Board};
use super::*;
use crate::adapter::{Directive, Reading};
use crate::model::{Availability, Capabilities, CommandId, SensorDescription, Sensors, Stage};

const HARDWARE: &str = "60019423b441";

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn id() -> DeviceId {
    DeviceId::new(format!("wled-{HARDWARE}")).unwrap()
}

fn address(host: &str, configured: bool) -> Address {
    Address { origin: Origin::plain(host, 80), configured }
}

struct Rig {
    board: Board,
    now: Instant,
    seen: Vec<Reading>,
}

impl Rig {
    fn new(sleeps: Option<Duration>) -> Self {
        let now = Instant::now();
        let timing = Timing { poll: Duration::from_secs(10), discover: Duration::from_secs(60) };
        let identity = Identity { hardware: HARDWARE.to_owned(), fingerprint: "1".to_owned() };
        let mut board = Board::new(identity, address("192.0.2.1", false), timing, now);
        board.directive(now, Directive::Own { device: id(), owned: true });
        assert_eq!(board.next(now).1, Action::Describe);
        board.described(now, Ok(Layout { devices: vec![device()], sleeps, provisional: false }));
        let mut rig = Self { board, now, seen: Vec::new() };
        rig.read(false);
        rig
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.board.expire(self.now);
    }

    fn read(&mut self, on: bool) {
        self.board.read(self.now, self.now, Ok(shown(on)));
    }

    fn fail(&mut self) {
        self.board.read(self.now, self.now, Err(Fault::Failed("nothing came".to_owned())));
    }

    /// It says who it is.
    fn identify(&mut self) {
        assert_eq!(self.board.next(self.now).1, Action::Identify);
        let identity = Identity { hardware: HARDWARE.to_owned(), fingerprint: "1".to_owned() };
        self.board.identified(self.now, Ok(identity));
    }

    fn command(&mut self, number: u8, on: bool) {
        let deadline = self.now + Duration::from_secs(5);
        let change = Change::Switch { on };
        let command = CommandId([number; 16]);
        self.board.directive(
            self.now,
            Directive::Command { device: id(), command, change, by: String::new(), deadline },
        );
    }

    /// Tells what is to be told now.
    fn tell(&mut self, answer: Result<(), Fault>) -> Change {
        let (_, action) = self.board.next(self.now);
        self.board.asking(&action);
        let Action::Tell(device, command, change) = action else { panic!("{action:?} is next") };
        self.board.changed(self.now, &device, command, answer);
        change
    }

    fn take(&mut self) -> Vec<Reading> {
        let readings: Vec<_> = std::iter::from_fn(|| self.board.poll_reading()).collect();
        self.seen.extend(readings.clone());
        readings
    }

    fn stages(&mut self, number: u8) -> Vec<Stage> {
        self.take();
        let of = |reading: &Reading| match reading {
            Reading::Progress { command, stage, .. } if *command == CommandId([number; 16]) => {
                Some(stage.clone())
            }
            _ => None,
        };
        self.seen.iter().filter_map(of).collect()
    }
}

fn device() -> Description {
    let power = SensorDescription::numeric("Power", Some("power"), "W", 1);
    Description {
        id: id(),
        adapter: "wled".to_owned(),
        name: String::new(),
        manufacturer: String::new(),
        model: "A board".to_owned(),
        firmware: None,
        address: None,
        capabilities: Capabilities::Switch,
        sensors: Sensors::from([("power".to_owned(), power)]),
        note: None,
    }
}

fn shown(on: bool) -> Snapshot {
    Snapshot {
        states: BTreeMap::from([(id(), State::Switch { on })]),
        measured: BTreeMap::from([(id(), BTreeMap::from([("power".to_owned(), Measurement::Number(1.0))]))]),
        is_whole: true,
        ..Snapshot::default()
    }
}

fn availability(readings: &[Reading]) -> Option<(Availability, String)> {
    readings.iter().rev().find_map(|reading| match reading {
        Reading::Availability { availability, reason, .. } => Some((*availability, reason.clone())),
        _ => None,
    })
}

fn is_report(reading: &Reading, wanted: bool) -> bool {
    matches!(reading, Reading::Reported { state: State::Switch { on }, .. } if *on == wanted)
}

#[test]
fn an_acknowledgement_is_no_confirmation_and_a_read_after_it_is() {
    let mut rig = Rig::new(None);
    rig.command(1, true);
    rig.tell(Ok(()));
    assert_eq!(rig.stages(1), [Stage::Sent, Stage::Acknowledged]);
    assert_eq!(rig.board.next(rig.now).1, Action::Read);
    rig.read(false);
    assert_eq!(rig.stages(1).len(), 2, "the state before the command proves nothing");
    rig.pass(ms(400));
    rig.read(true);
    assert_eq!(rig.stages(1).last(), Some(&Stage::Confirmed));
    assert!(!rig.seen.iter().skip(4).any(|reading| is_report(reading, false)), "{:?}", rig.seen);
}

#[test]
fn a_board_that_lies_is_told_again_and_times_out_with_what_it_shows() {
    let mut rig = Rig::new(None);
    rig.command(1, true);
    let mut told = 0;
    for _ in 0..60 {
        let (at, action) = rig.board.next(rig.now);
        if at > rig.now {
            rig.pass(ms(100));
        } else if action == Action::Read {
            rig.read(false);
        } else {
            rig.tell(Ok(()));
            told += 1;
        }
    }
    rig.pass(Duration::from_secs(5));
    let Some(Stage::TimedOut { reason }) = rig.stages(1).last().cloned() else { panic!() };
    assert!(told > 1 && reason.contains("reads back off instead of on"), "{told} {reason}");
}

#[test]
fn a_newer_command_takes_over_at_once() {
    let mut rig = Rig::new(None);
    rig.command(1, true);
    rig.command(2, false);
    rig.command(2, false);
    assert_eq!(rig.stages(1), [Stage::Superseded]);
    assert_eq!(rig.tell(Ok(())), Change::Switch { on: false });
    rig.read(false);
    assert_eq!(rig.stages(2), [Stage::Sent, Stage::Acknowledged, Stage::Confirmed]);
}

#[test]
fn what_comes_by_itself_never_confirms_and_is_not_believed_soon_after_a_command() {
    let mut rig = Rig::new(None);
    rig.board.tells(rig.now, true);
    rig.command(1, true);
    rig.tell(Ok(()));
    rig.board.told(rig.now, Ok(shown(true)));
    assert_eq!(rig.stages(1).len(), 2);
    rig.read(true);
    rig.take();
    rig.pass(ms(100));
    rig.board.told(rig.now, Ok(shown(false))); // was on its way before the command
    assert!(!rig.take().iter().any(|reading| is_report(reading, false)));
    assert!(rig.board.next(rig.now).0 <= rig.now + ms(300), "it is read instead");
    rig.pass(Duration::from_secs(2));
    rig.board.told(rig.now, Ok(shown(false)));
    assert!(rig.take().iter().any(|reading| is_report(reading, false)));
}

#[test]
fn three_requests_in_vain_are_offline_with_the_reason_and_one_answer_is_online() {
    let mut rig = Rig::new(None);
    rig.take();
    for failures in 1..=3 {
        assert_eq!(availability(&rig.take()), None, "after {failures} requests");
        rig.pass(Duration::from_secs(4));
        rig.fail();
    }
    let (is, why) = availability(&rig.take()).unwrap();
    assert_eq!(is, Availability::Offline);
    assert!(
        why.contains("192.0.2.1:80") && why.contains("12 s ago") && why.contains("nothing came"),
        "{why}"
    );
    rig.read(true);
    assert_eq!(availability(&rig.take()).unwrap().0, Availability::Online);
}

#[test]
fn noise_that_comes_by_itself_is_no_sign_of_life() {
    let mut rig = Rig::new(None);
    (0..3).for_each(|_| rig.fail());
    rig.take();
    rig.board.told(rig.now, Ok(Snapshot::default()));
    assert_eq!(availability(&rig.take()), None);
    rig.board.told(rig.now, Ok(Snapshot { is_whole: false, ..shown(true) }));
    assert_eq!(availability(&rig.take()).unwrap().0, Availability::Online);
}

#[test]
fn a_board_that_is_silent_for_long_is_lost_and_found_again() {
    let mut rig = Rig::new(None);
    for _ in 0..4 {
        rig.pass(Duration::from_secs(60));
        rig.fail();
    }
    assert!(rig.take().iter().any(|reading| matches!(reading, Reading::Lost { .. })));
    assert!(!rig.board.is_gone(rig.now), "it is owned: it is asked as long as that is so");
    rig.identify();
    rig.read(true);
    assert_eq!(rig.board.next(rig.now).1, Action::Describe);
    rig.board.described(rig.now, Ok(Layout { devices: vec![device()], ..Layout::default() }));
    assert!(rig.take().iter().any(|reading| matches!(reading, Reading::Found { .. })));
}

#[test]
fn a_sleeper_is_online_until_it_missed_two_wakings() {
    let hour = Duration::from_secs(3_600);
    let mut rig = Rig::new(Some(hour));
    rig.take();
    for _ in 0..7 {
        rig.pass(hour / 4);
        rig.fail();
    }
    assert_eq!(availability(&rig.take()), None);
    assert!(rig.board.wants_address(), "it is asked as soon as it announces itself");
    rig.pass(hour / 4);
    rig.fail();
    assert_eq!(availability(&rig.take()).unwrap().0, Availability::Offline);
}

#[test]
fn a_locked_board_is_offline_and_fails_commands_at_once_with_the_way_out() {
    let mut rig = Rig::new(None);
    rig.command(1, true);
    let locked = Fault::Locked("set \"password\"".to_owned());
    rig.tell(Err(locked.clone()));
    assert_eq!(rig.stages(1).last(), Some(&Stage::Failed { reason: locked.to_string() }));
    assert_eq!(availability(&rig.seen).unwrap(), (Availability::Offline, locked.to_string()));
    assert!(rig.board.next(rig.now).0 >= rig.now + Duration::from_secs(60), "nobody is locked out by us");
    assert!(!rig.board.listens());
    rig.read(true);
    assert!(rig.board.listens());
}

const OTHER: &str = "000000000000";

fn other() -> Fault {
    Fault::Other(OTHER.to_owned())
}

#[test]
fn after_a_failure_a_board_says_who_it_is_before_it_is_told_anything() {
    let mut rig = Rig::new(None);
    rig.command(1, true);
    rig.tell(Err(Fault::Failed("nothing came".to_owned())));
    let (at, action) = rig.board.next(rig.now);
    assert!(action == Action::Identify && at <= rig.now + ms(250), "{action:?}");
    rig.pass(ms(250));
    rig.identify();
    rig.tell(Ok(()));
    rig.read(true);
    assert_eq!(rig.stages(1).last(), Some(&Stage::Confirmed));
}

#[test]
fn a_board_whose_address_another_has_is_offline_at_once_and_told_nothing_until_it_is_found() {
    let by_read = |rig: &mut Rig| rig.board.read(rig.now, rig.now, Err(other()));
    let by_itself = |rig: &mut Rig| rig.board.told(rig.now, Err(other()));
    let by_description = |rig: &mut Rig| rig.board.described(rig.now, Err(other()));
    let by_name = |rig: &mut Rig| rig.board.identified(rig.now, Err(other()));
    let by_command = |rig: &mut Rig| rig.board.changed(rig.now, &id(), CommandId([1; 16]), Err(other()));
    let noticed: [fn(&mut Rig); 5] = [by_read, by_itself, by_description, by_name, by_command];
    for notice in noticed {
        let mut rig = Rig::new(None);
        rig.take();
        rig.command(1, true);
        notice(&mut rig);
        let (is, why) = availability(&rig.take()).unwrap();
        assert_eq!(is, Availability::Offline);
        assert!(why.contains(OTHER) && why.contains("192.0.2.1:80"), "{why}");
        assert!(rig.board.is_sought() && !rig.board.is_sought(), "it is looked for, once");
        assert!(rig.board.wants_address() && !rig.board.listens());
        assert_eq!(rig.board.moves(rig.now), None);
        for _ in 0..3 {
            rig.pass(Duration::from_secs(1));
            assert_eq!(rig.board.next(rig.now).1, Action::Identify);
            rig.board.identified(rig.now, Err(other()));
        }
        let new = address("192.0.2.9", false);
        rig.board.seen(rig.now, new.clone());
        assert_eq!(rig.board.moves(rig.now), Some(new));
        rig.identify();
        rig.tell(Ok(()));
        rig.read(true);
        assert_eq!(rig.stages(1).last(), Some(&Stage::Confirmed));
        assert_eq!(
            availability(&rig.seen).unwrap(),
            (Availability::Online, "192.0.2.9:80 answers".to_owned())
        );
        assert_eq!(rig.board.next(rig.now).1, Action::Describe, "the address is a part of the description");
    }
}

#[test]
fn a_command_to_a_board_that_is_not_found_says_who_has_its_address() {
    let mut rig = Rig::new(None);
    rig.board.read(rig.now, rig.now, Err(other()));
    rig.command(1, true);
    for _ in 0..3 {
        rig.board.identified(rig.now, Err(other()));
        rig.pass(Duration::from_secs(2));
    }
    let Some(Stage::TimedOut { reason }) = rig.stages(1).last().cloned() else { panic!() };
    assert!(reason.contains(OTHER), "{reason}");
}

#[test]
fn a_board_that_is_seen_elsewhere_is_asked_whether_it_left() {
    let mut rig = Rig::new(None);
    rig.command(1, true);
    rig.board.seen(rig.now, address("192.0.2.9", false));
    assert_eq!(rig.board.moves(rig.now), None, "it answers at both, as far as is known");
    rig.identify();
    assert!(matches!(rig.board.next(rig.now).1, Action::Tell(..)));
    rig.fail();
    assert_eq!(rig.board.moves(rig.now), None, "where it was seen long ago is nothing to go by");
    let mut rig = Rig::new(None);
    rig.board.seen(rig.now, address("192.0.2.9", false));
    rig.board.identified(rig.now, Err(other()));
    assert_eq!(rig.board.moves(rig.now), Some(address("192.0.2.9", false)));
}

#[test]
fn what_ends_a_connection_may_be_that_the_board_left() {
    let mut rig = Rig::new(None);
    rig.board.tells(rig.now, true);
    rig.read(false);
    rig.board.tells(rig.now, false);
    rig.command(1, true);
    rig.identify();
    assert!(matches!(rig.board.next(rig.now).1, Action::Tell(..)));
}

#[test]
fn an_address_that_a_person_named_goes_before_one_that_was_announced() {
    let mut rig = Rig::new(None);
    let named = address("shelf.example", true);
    rig.board.seen(rig.now, named.clone());
    assert_eq!(rig.board.moves(rig.now), Some(named));
    rig.identify();
    rig.read(true);
    let announced = address("192.0.2.1", false);
    rig.board.seen(rig.now, announced.clone());
    assert_eq!(rig.board.moves(rig.now), None);
    // One request in vain is no reason to leave it, for there alone a password is proven.
    for failures in 1..=3 {
        rig.fail();
        rig.board.seen(rig.now, announced.clone());
        let moved = rig.board.moves(rig.now);
        assert_eq!(moved, (failures == 3).then(|| announced.clone()), "{failures} in vain");
    }
}

#[test]
fn a_sleeper_whose_address_another_has_is_not_offline_for_it() {
    let mut rig = Rig::new(Some(Duration::from_secs(3_600)));
    rig.take();
    rig.board.identified(rig.now, Err(other()));
    assert_eq!(availability(&rig.take()), None);
    assert_eq!(rig.board.next(rig.now).1, Action::Identify);
}

#[test]
fn a_board_that_says_its_name_and_nothing_else_is_asked_more_and_more_rarely() {
    let mut rig = Rig::new(None);
    rig.board.directive(rig.now, Directive::Own { device: id(), owned: false });
    rig.board
        .identified(rig.now, Ok(Identity { hardware: HARDWARE.to_owned(), fingerprint: "2".to_owned() }));
    let began = rig.now;
    let mut asked = 0;
    while rig.now < began + Duration::from_secs(150) {
        let (at, action) = rig.board.next(rig.now);
        rig.now = rig.now.max(at);
        match action {
            Action::Identify => rig.identify(),
            Action::Describe => rig.board.described(rig.now, Err(Fault::Failed("noise".to_owned()))),
            other => panic!("{other:?}"),
        }
        asked += 1;
    }
    assert!(asked < 24, "{asked} requests in 150 s");
}

#[test]
fn the_first_board_that_a_client_meets_is_the_one_it_speaks_to() {
    let at = Origin::plain("192.0.2.1", 80);
    let mut caller = client::Caller::new(&Route::default(), &at, ms(1));
    assert_eq!(caller.meets(HARDWARE), Ok(()));
    assert_eq!(caller.meets(OTHER), Err(other()));
    caller.move_to(Origin::plain("192.0.2.9", 80));
    assert_eq!((caller.meets(OTHER), caller.meets(HARDWARE)), (Err(other()), Ok(())));
}

#[test]
fn a_board_of_another_node_whose_address_another_has_is_lost() {
    let mut rig = Rig::new(None);
    rig.board.directive(rig.now, Directive::Own { device: id(), owned: false });
    for _ in 0..4 {
        rig.pass(Duration::from_secs(60));
        rig.board.identified(rig.now, Err(other()));
    }
    let lost = rig.take().into_iter().find_map(|reading| match reading {
        Reading::Lost { reason, .. } => Some(reason),
        _ => None,
    });
    assert!(lost.unwrap().contains("another device, 000000000000"));
    assert!(rig.board.is_gone(rig.now));
}

#[test]
fn a_device_not_owned_is_asked_for_nothing_but_who_it_is() {
    let mut rig = Rig::new(None);
    rig.board.directive(rig.now, Directive::Own { device: id(), owned: false });
    assert_eq!(rig.board.next(rig.now).1, Action::Identify);
    rig.command(1, true);
    assert!(
        matches!(rig.stages(1).as_slice(), [Stage::Failed { reason }] if reason.contains("does not own"))
    );
}

#[test]
fn a_sensor_that_tells_nothing_is_unknown() {
    let mut rig = Rig::new(None);
    rig.take();
    let silent = Snapshot { measured: BTreeMap::new(), ..shown(false) };
    rig.board.read(rig.now, rig.now, Ok(silent));
    let readings = rig.take();
    let [Reading::Measured { values, .. }] = readings.as_slice() else { panic!("{readings:?}") };
    assert!(matches!(values["power"], Measurement::Unknown(_)));
}

#[test]
fn ids_lead_to_their_board() {
    let of = |id: &str| hardware_of(&DeviceId::new(id).unwrap(), "shelly");
    assert_eq!(of("shelly-a8032ab12345-switch-0").as_deref(), Some("a8032ab12345"));
    assert_eq!(of("shelly-a8032ab12345").as_deref(), Some("a8032ab12345"));
    for other in ["wled-a8032ab12345", "shelly-a8032ab1234", "shelly", "shelly-a8032ab12345z"] {
        assert_eq!(of(other), None, "{other}");
    }
    assert_eq!(hardware("A8:03:2A:B1:23:45").as_deref(), Some("a8032ab12345"));
}

#[test]
fn addresses_are_hosts_and_nothing_else() {
    let parse = |text: &str| {
        let settings = serde_json::json!({ "addresses": [text] });
        (crate::find("wled").unwrap().build)(&settings).map(|_| ()).map_err(|error| error.to_string())
    };
    for good in ["192.0.2.1", "192.0.2.1:8080", "shelf.local", "2001:db8::1", "[2001:db8::1]:80"] {
        assert_eq!(parse(good), Ok(()), "{good}");
    }
    for bad in ["", "http://a", "a/b", "me:pass@a", "a:0", "a b", "a?x=1"] {
        assert!(parse(bad).is_err(), "{bad} was taken");
    }
}
