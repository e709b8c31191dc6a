//! The shared part against a service without sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod answers;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::config::{Config, Defaults, Place, schema};
use super::fetch::{Fault, Freshness, Outcome, judge, redirect};
use super::station::Station;
use super::*;
use crate::adapter::{Descriptor, Directive, Reading, Scope};
use crate::http::{Origin, Response};
use crate::model::{Availability, Change, CommandId, Hour, Measurement, Stage};

/// A moment at the beginning of an hour: 2020-06-10T13:00:00Z.
const T: i64 = 1_591_794_000;
const REFRESH: Duration = Duration::from_secs(600);

const ABOUT: About = About {
    adapter: "thermometer",
    device: "thermometer-home",
    maker: "nobody",
    product: "T",
    attribution: "nobody",
    sensors: &["temperature", "humidity"],
};

/// A service whose answer is a number, the temperature of each hour.
struct Thermometer {
    key: Secret,
}

impl Service for Thermometer {
    type Answer = f64;

    fn request(&self) -> Request {
        Request::get("/")
    }

    fn read(&self, body: &[u8]) -> Result<f64, BodyError> {
        Ok(serde_json::from_slice(body)?)
    }

    fn refusal(&self, _: StatusCode, body: &[u8]) -> Option<String> {
        String::from_utf8(body.to_vec()).ok().filter(|text| !text.is_empty())
    }

    fn view(&self, answer: &f64, now: i64) -> View {
        let mut view = View::default();
        view.number("temperature", Some(*answer));
        let at = now - now.rem_euclid(3_600);
        view.forecast.hourly = vec![
            Hour {
                at,
                condition: None,
                temperature: Some(*answer),
                precipitation: None,
                wind_speed: None
            };
            100
        ];
        view
    }

    fn zone(&self, _: &f64) -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(1))
    }

    fn secret(&self) -> Option<&Secret> {
        Some(&self.key)
    }
}

fn service() -> Thermometer {
    Thermometer { key: Secret("geheim".into()) }
}

fn description() -> Description {
    ABOUT.describe(None, &origin()).unwrap()
}

fn origin() -> Origin {
    Origin::plain("weather.example", 80)
}

fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    Response { status: StatusCode::from_u16(status).unwrap(), headers: map, body: body.to_vec() }
}

fn judged(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Outcome<f64> {
    judge(&service(), &origin(), &response(status, headers, body), true, T)
}

fn fault(outcome: Outcome<f64>) -> Fault {
    match outcome {
        Outcome::Failed(fault) => fault,
        other => panic!("{other:?}"),
    }
}

fn fresh(answer: f64) -> Outcome<f64> {
    Outcome::Fresh(
        answer,
        Freshness {
            date: Some(T),
            last_modified: Some("Wed, 10 Jun 2020 13:00:00 GMT".into()),
            ..Freshness::default()
        },
    )
}

fn silence(is_unreachable: bool) -> Outcome<f64> {
    let words = "no answer from weather.example:80".to_owned();
    Outcome::Failed(Fault { words, is_unreachable, is_futile: false, retry_after: None })
}

/// A station with a clock, and what it said.
struct Rig {
    station: Station<Thermometer>,
    now: Instant,
    seen: Vec<Reading>,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            station: Station::new("thermometer", Arc::new(service()), description(), REFRESH, 7, now),
            now,
            seen: Vec::new(),
        }
    }

    fn owning() -> Self {
        let mut rig = Self::new();
        rig.own(true);
        rig
    }

    fn own(&mut self, owned: bool) -> Vec<Reading> {
        let device = description().id;
        self.directive(Directive::Own { device, owned })
    }

    fn refresh(&mut self) -> Vec<Reading> {
        self.directive(Directive::Refresh { device: description().id })
    }

    fn directive(&mut self, directive: Directive) -> Vec<Reading> {
        self.station.handle_directive(self.now, directive);
        self.said()
    }

    /// Lets time pass until a request is due, and answers it.
    fn answer(&mut self, outcome: Outcome<f64>) -> Vec<Reading> {
        while !self.station.is_due(self.now) {
            self.now = self.station.poll_timeout(false).unwrap();
            self.station.handle_timeout(self.now);
        }
        self.station.handle_outcome(self.now, T, outcome);
        self.said()
    }

    fn said(&mut self) -> Vec<Reading> {
        let said: Vec<_> = std::iter::from_fn(|| self.station.poll_reading()).collect();
        self.seen.extend(said.clone());
        said
    }
}

fn availability(said: &[Reading]) -> Option<(Availability, &str)> {
    said.iter().rev().find_map(|reading| match reading {
        Reading::Availability { availability, reason, .. } => Some((*availability, reason.as_str())),
        _ => None,
    })
}

fn temperature(said: &[Reading]) -> Option<&Measurement> {
    said.iter().rev().find_map(|reading| match reading {
        Reading::Measured { values, .. } => values.get("temperature"),
        _ => None,
    })
}

#[test]
fn a_service_is_found_at_once_and_asked_only_when_owned() {
    let mut rig = Rig::new();
    assert!(matches!(&rig.said()[..], [Reading::Found { .. }]));
    assert!(!rig.station.is_due(rig.now) && rig.station.poll_timeout(false).is_none());
    assert_eq!(rig.own(true), []);
    assert!(rig.station.is_due(rig.now));
    rig.own(false);
    assert!(!rig.station.is_due(rig.now));
}

#[test]
fn an_answer_is_told_and_not_told_again() {
    let mut rig = Rig::owning();
    let said = rig.answer(fresh(20.04));
    assert_eq!(availability(&said), Some((Availability::Online, "the service answers")));
    assert_eq!(temperature(&said), Some(&Measurement::Number(20.0)));
    let Some(Reading::Measured { values, .. }) =
        said.iter().find(|reading| matches!(reading, Reading::Measured { .. }))
    else {
        panic!()
    };
    assert!(matches!(&values["humidity"], Measurement::Unknown(why) if why.contains("does not tell")));
    let hours = said.iter().find_map(|reading| match reading {
        Reading::Forecast { forecast, .. } => Some(forecast.hourly.len()),
        _ => None,
    });
    assert_eq!(hours, Some(48), "no more than the model allows");
    // The same hour, the same answer: nothing is news.
    rig.station.handle_outcome(rig.now, T, fresh(20.04));
    assert_eq!(rig.said(), []);
}

#[test]
fn what_is_unchanged_is_kept_and_asked_for_with_its_own_date() {
    let mut rig = Rig::owning();
    assert_eq!(rig.station.last_modified(), None);
    rig.answer(fresh(20.0));
    assert_eq!(rig.station.last_modified().unwrap(), "Wed, 10 Jun 2020 13:00:00 GMT");
    rig.answer(silence(false));
    let said = rig.answer(Outcome::Unchanged(Freshness { date: Some(T + 1_200), ..Freshness::default() }));
    assert_eq!(availability(&said), Some((Availability::Online, "the service answers")));
    assert_eq!(rig.station.last_modified().unwrap(), "Wed, 10 Jun 2020 13:00:00 GMT");
}

#[test]
fn a_failure_makes_the_last_answer_stale_and_offline_only_without_one() {
    let mut rig = Rig::owning();
    let said = rig.answer(silence(false));
    let (is, why) = availability(&said).unwrap();
    assert!(is == Availability::Offline && why.starts_with("no answer yet: no answer from"), "{why}");
    rig.answer(fresh(20.0));
    let said = rig.answer(silence(false));
    let (is, why) = availability(&said).unwrap();
    assert_eq!(is, Availability::Stale);
    assert_eq!(why, "last answer of 14:00, now: no answer from weather.example:80");
    assert_eq!(temperature(&said), None, "what was measured stays");
    // The same trouble again is no news; asked for, the last answer is told again, and nobody is asked.
    assert_eq!(availability(&rig.answer(silence(false))), None);
    let due = rig.station.poll_timeout(false);
    assert_eq!(temperature(&rig.refresh()), Some(&Measurement::Number(20.0)));
    assert_eq!(rig.station.poll_timeout(false), due);
    let said = rig.answer(fresh(21.0));
    assert_eq!(availability(&said).unwrap().0, Availability::Online);
    assert_eq!(temperature(&said), Some(&Measurement::Number(21.0)));
}

#[test]
fn the_day_of_an_old_answer_is_told() {
    let mut rig = Rig::owning();
    rig.answer(fresh(20.0));
    rig.now += Duration::from_secs(30 * 3_600);
    let (_, why) = availability(&rig.answer(silence(false))).map(|(is, why)| (is, why.to_owned())).unwrap();
    assert!(why.starts_with("last answer of 2020-06-10 14:00, now:"), "{why}");
}

#[test]
fn an_old_answer_tells_nothing_of_now_while_the_service_fails() {
    let mut rig = Rig::owning();
    rig.answer(fresh(20.0));
    rig.answer(silence(false));
    let begun = rig.now;
    let said = loop {
        rig.now = rig.station.poll_timeout(true).unwrap();
        assert!(rig.now - begun < Duration::from_secs(5 * 3_600), "it never ages");
        rig.station.handle_timeout(rig.now);
        let said = rig.said();
        if temperature(&said).is_some() {
            break said;
        }
    };
    let hours = (rig.now - begun).as_secs() / 3_600;
    assert!((2..4).contains(&hours), "after {hours} hours");
    let why = "the last answer is of 14:00: too old to tell what is now";
    assert_eq!(temperature(&said), Some(&Measurement::Unknown(why.to_owned())));
    let expects = |reading: &Reading| matches!(reading, Reading::Forecast { forecast, .. } if !forecast.hourly.is_empty());
    assert!(said.iter().any(expects), "what it expected is still told");
    assert_eq!(temperature(&rig.answer(fresh(21.0))), Some(&Measurement::Number(21.0)));
    // An answer of the same age is as new as somebody wants it, where nothing failed.
    rig.now += Duration::from_secs(5 * 3_600);
    assert_eq!(temperature(&rig.refresh()), Some(&Measurement::Number(21.0)));
}

#[test]
fn who_goes_on_after_giving_up_asks_as_seldom_as_before() {
    let mut rig = Rig::owning();
    for _ in 0..3 {
        rig.answer(silence(true));
    }
    assert!(rig.station.gives_up(rig.now).is_some());
    let Rig { station, now, .. } = rig;
    let trouble = station.into_trouble().unwrap();
    let mut rig = Rig { now, ..Rig::new() };
    rig.station.go_on_from(trouble.clone());
    let said = rig.own(true);
    assert_eq!(availability(&said).unwrap().0, Availability::Offline, "why is told before anybody is asked");
    assert!(rig.station.gives_up(now).is_none());
    rig.answer(silence(true));
    assert!(rig.now == trouble.next_request && rig.now - now >= REFRESH * 4 / 10);
    let next = rig.station.poll_timeout(false).unwrap();
    assert!(next - rig.now >= REFRESH * 8 / 10, "the pause after it was {:?}", next - rig.now);
}

#[test]
fn a_board_that_reaches_nothing_lets_another_try_but_never_throws_a_young_answer_away() {
    let mut rig = Rig::owning();
    for _ in 0..2 {
        rig.answer(silence(true));
        assert!(rig.station.gives_up(rig.now).is_none());
    }
    rig.answer(silence(true));
    let error = rig.station.gives_up(rig.now).unwrap().to_string();
    assert!(error.contains("thermometer: asked 3 times: no answer from"), "{error}");
    rig.answer(fresh(20.0));
    for _ in 0..4 {
        rig.answer(silence(true));
        assert!(rig.station.gives_up(rig.now).is_none());
    }
    rig.now += Duration::from_secs(4 * 3_600);
    assert!(rig.station.gives_up(rig.now).is_some());
    // One that answers, and refuses, would refuse every board.
    let mut rig = Rig::owning();
    for _ in 0..20 {
        rig.answer(silence(false));
    }
    assert!(rig.station.gives_up(rig.now).is_none());
}

#[test]
fn with_each_hour_what_was_expected_becomes_now() {
    let mut rig = Rig::owning();
    rig.answer(Outcome::Fresh(
        20.0,
        Freshness { date: Some(T + 3_590), holds: Some(Duration::from_secs(3_600)), ..Freshness::default() },
    ));
    let next = rig.station.poll_timeout(false).unwrap();
    assert_eq!(next - rig.now, Duration::from_secs(10));
    rig.now = next;
    rig.station.handle_timeout(rig.now);
    assert!(
        matches!(&rig.said()[..], [Reading::Forecast { forecast, .. }] if forecast.hourly[0].at == T + 3_600)
    );
    assert!(rig.station.poll_timeout(true).unwrap() > rig.now);
}

#[test]
fn requests_keep_their_distance() {
    let mut rig = Rig::owning();
    let mut last: Option<Instant> = None;
    for round in 0..50 {
        let outcome = if round % 7 == 3 { silence(false) } else { fresh(f64::from(round)) };
        rig.refresh();
        rig.own(false);
        rig.own(true);
        rig.answer(outcome);
        if let Some(last) = last {
            assert!(rig.now - last >= REFRESH / 10, "round {round} came after {:?}", rig.now - last);
        }
        last = Some(rig.now);
    }
}

#[test]
fn who_owns_it_again_is_told_all_again() {
    let mut rig = Rig::owning();
    rig.answer(fresh(20.0));
    assert_eq!(rig.own(false), []);
    assert_eq!(rig.own(true).len(), 3);
}

#[test]
fn every_command_fails_with_words() {
    let mut rig = Rig::new();
    rig.said();
    let command = |device: &str, number: u8| Directive::Command {
        device: DeviceId::new(device).unwrap(),
        command: CommandId([number; 16]),
        change: Change::Switch { on: true },
        by: String::new(),
        deadline: Instant::now(),
    };
    let reason = |said: Vec<Reading>| match &said[..] {
        [Reading::Progress { stage: Stage::Failed { reason }, .. }] => reason.clone(),
        other => panic!("{other:?}"),
    };
    assert!(reason(rig.directive(command("thermometer-home", 1))).contains("does not own"));
    rig.own(true);
    assert!(reason(rig.directive(command("thermometer-home", 2))).contains("weather service"));
    assert!(reason(rig.directive(command("thermometer-there", 3))).contains("no device"));
}

#[test]
fn a_slow_node_stops_directives_and_not_memory() {
    let mut rig = Rig::owning();
    for number in 0..200 {
        if rig.station.has_room() {
            rig.station.handle_directive(
                rig.now,
                Directive::Command {
                    device: description().id,
                    command: CommandId([number; 16]),
                    change: Change::Press,
                    by: String::new(),
                    deadline: rig.now,
                },
            );
        }
    }
    assert!(!rig.station.has_room());
    assert_eq!(std::iter::from_fn(|| rig.station.poll_reading()).count(), 64);
}

#[test]
fn a_deprecated_product_is_noted_once() {
    let mut rig = Rig::owning();
    let old = || judged(203, &[("date", "Wed, 10 Jun 2020 13:00:00 GMT")], b"20.0");
    let notes = |said: &[Reading]| {
        said.iter()
            .filter_map(|reading| match reading {
                Reading::Found { device } => Some(device.note.clone()),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let said = rig.answer(old());
    assert!(matches!(&notes(&said)[..], [Some(note)] if note.contains("update Hearth")), "{said:?}");
    assert_eq!(temperature(&said), Some(&Measurement::Number(20.0)));
    assert_eq!(notes(&rig.answer(old())), []);
    assert_eq!(notes(&rig.answer(fresh(20.0))), [None]);
}

#[test]
fn a_place_has_four_decimals() {
    let text = |latitude, longitude| {
        let place = Place::new(latitude, longitude);
        (place.latitude(), place.longitude())
    };
    assert_eq!(text(59.913_868, 10.752_245), ("59.9139".into(), "10.7522".into()));
    assert_eq!(text(-33.0, -0.000_04), ("-33".into(), "0".into()));
    assert_eq!(text(90.0, -180.0), ("90".into(), "-180".into()));
}

const DESCRIPTOR: Descriptor = Descriptor {
    id: "thermometer",
    name: "Thermometer",
    scope: Scope::Single,
    mdns: &[],
    shows_home: false,
    settings_schema: || schema(&DEFAULTS, json!({})),
};
const DEFAULTS: Defaults =
    Defaults { url: "https://weather.example", domain: "weather.example", refresh: 15.0, least: 5.0 };

#[test]
fn the_public_service_is_spared_however_its_address_is_written() {
    let parse = |url| {
        let settings = json!({ "url": url, "refresh_minutes": 1 });
        Config::parse(&DESCRIPTOR, &DEFAULTS, &settings).map_err(|error| error.to_string())
    };
    for public in [
        DEFAULTS.url,
        "https://WEATHER.example/v2",
        "http://weather.example:8080",
        "https://weather.example.",
        "https://customers.weather.example",
    ] {
        let refused = parse(public).unwrap_err();
        assert!(refused.contains("from 5 to 1440"), "{public}: {refused}");
    }
    for own in ["http://127.0.0.1", "https://myweather.example", "https://weather.example.lan"] {
        assert!(parse(own).is_ok(), "{own}");
    }
}

#[test]
fn settings_name_the_key_the_value_and_the_rule() {
    let parse = |value| Config::parse(&DESCRIPTOR, &DEFAULTS, &value);
    let refused = |value| parse(value).unwrap_err().to_string();
    assert_eq!(
        refused(json!({ "latitude": 91 })),
        "setting \"latitude\" of thermometer is 91: it must be a number of degrees from -90 to 90"
    );
    assert!(refused(json!({ "longitude": "east" })).contains("degrees"));
    assert!(refused(json!({ "refresh_minutes": 1 })).contains("from 5 to 1440"));
    assert!(refused(json!({ "url": "http://me:secret@a/" })).contains("without a password"));
    assert!(refused(json!({ "contact": "ho ho\nho" })).contains("e-mail"));
    assert!(refused(json!({ "contact": "Grüße@example.org" })).contains("ASCII"));
    assert!(refused(json!({ "interface": "a/b" })).contains("such as eth0"));
    assert!(refused(json!({ "name": "" })).contains("printable"));
    let own = parse(json!({ "url": "http://127.0.0.1:8080/w/", "refresh_minutes": 1 })).unwrap();
    assert_eq!(own.refresh, Duration::from_secs(60));
    assert_eq!(own.server.unwrap().1, "/w");
    assert_eq!(parse(json!({})).unwrap().refresh, Duration::from_secs(900));
}

#[test]
fn a_place_that_is_not_set_is_asked_for() {
    let place = |value| Config::parse(&DESCRIPTOR, &DEFAULTS, &value).unwrap().place("thermometer");
    let missing = |value| place(value).unwrap_err().to_string();
    assert!(missing(json!({})).contains("latitude and longitude are not set"));
    assert!(missing(json!({ "latitude": 1 })).contains("longitude is not set"));
    assert!(
        missing(json!({ "longitude": 1 }))
            .contains("latitude is not set: give the place in degrees, such as")
    );
    assert!(missing(json!({})).contains("`hearth adapter set thermometer latitude=52.52 longitude=13.405`"));
    assert_eq!(place(json!({ "latitude": 1, "longitude": 2 })).unwrap(), Place::new(1.0, 2.0));
}

proptest! {
    /// No answer, whatever its headers and its body, ends in a panic or in words without a bound.
    #[test]
    fn any_answer_is_judged(
        status in 100_u16..999,
        body in proptest::collection::vec(any::<u8>(), 0..200),
        name in prop::sample::select(vec!["date", "expires", "retry-after", "last-modified", "content-encoding", "location"]),
        value in "[ -~]{0,80}",
        was_conditional: bool,
        now: i64,
    ) {
        let response = response(status, &[(name, &value)], &body);
        if let Outcome::Failed(fault) = judge(&service(), &origin(), &response, was_conditional, now) {
            prop_assert!(fault.words.len() < 1_500);
        }
        redirect(&origin(), &response);
    }

    /// Whatever a service claims of the time, the station goes on, and asks no sooner than it may.
    #[test]
    fn any_claim_of_the_time_is_survived(date: Option<i64>, holds: Option<u64>, retry: Option<u64>, fails: bool) {
        let mut rig = Rig::owning();
        for _ in 0..3 {
            let before = rig.now;
            let outcome = if fails {
                let retry_after = retry.map(Duration::from_secs);
                Outcome::Failed(Fault { words: String::new(), is_unreachable: false, is_futile: false, retry_after })
            } else {
                let holds = holds.map(Duration::from_secs);
                Outcome::Fresh(1.0, Freshness { date, holds, ..Freshness::default() })
            };
            rig.station.handle_outcome(rig.now, T, outcome);
            rig.said();
            while !rig.station.is_due(rig.now) {
                let next = rig.station.poll_timeout(false).unwrap();
                prop_assert!(next > rig.now);
                rig.now = next;
                rig.station.handle_timeout(rig.now);
            }
            prop_assert!(rig.now - before >= REFRESH / 10);
        }
    }
}
