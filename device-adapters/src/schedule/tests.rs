#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;

use super::*;

fn home(name: &str) -> Home {
    Home { zone: zone(name).unwrap(), place: None }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn rule(when: &str) -> Rule {
    Rule::daily(when.parse().unwrap())
}

fn within(rule: &Rule, home: &Home, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let next = |at: &Timestamp| rule.next(*at, home).unwrap().map(|next| next.at);
    std::iter::successors(next(&from), next).take_while(|at| *at <= until).collect()
}

#[test]
fn the_table_of_transitions_holds() {
    let rows = include_str!("../../../docs/time.md").lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        (cells.len() == 7 && cells[2].ends_with('Z')).then_some(cells)
    });
    let (mut zones, mut count) = (BTreeSet::new(), 0);
    for cells in rows {
        let (name, jump, when, comes) = (cells[1], cells[2], cells[4].trim_matches('`'), cells[5]);
        let (home, jump) = (home(name), at(&jump.replace('Z', ":00Z")));
        let before = home.zone.to_offset(jump.checked_sub(1.second()).unwrap());
        assert_ne!(before, home.zone.to_offset(jump), "{name} does not jump at {jump}");
        let found = within(&rule(when), &home, jump - 3.hours(), jump + 3.hours());
        let found: Vec<_> = found.iter().map(|at| at.strftime("%H:%M").to_string()).collect();
        assert_eq!(found.join(" "), comes, "{name} {jump} {when}");
        zones.insert(name.to_owned());
        count += 1;
    }
    assert!(zones.len() >= 10 && count >= 30, "{count} rows of {zones:?} were read");
}

#[test]
fn an_occurrence_says_why_it_is_then() {
    let berlin = home("Europe/Berlin");
    let why = |when: &str, after: &str| rule(when).next(at(after), &berlin).unwrap().unwrap().why.to_string();
    assert_eq!(why("cron 30 2 * * *", "2027-03-28T00:59:00Z"), "the clock skips 02:30:00: when it jumps");
    assert_eq!(why("cron 30 2 * * *", "2027-10-31T00:00:00Z"), "the clock shows the time twice: the first");
    assert_eq!(
        why("cron 30 * * * *", "2027-10-31T00:30:00Z"),
        "the clock shows the time twice, the hour is left open: the second"
    );
    assert_eq!(why("cron 30 7 * * *", "2027-06-01T00:00:00Z"), "the clock shows the time");
    let there = Home { place: Place::new(52.52, 13.405), ..berlin };
    let sunset = rule("sunset - 30m").next(at("2026-06-21T12:00:00Z"), &there).unwrap().unwrap();
    assert!(sunset.why.to_string().starts_with("30m before sunset at 2026-06-21T19:3"), "{}", sunset.why);
}

#[test]
fn seconds_names_and_nicknames_of_cron() {
    let utc = home("UTC");
    let next = |when: &str, after: &str| rule(when).next(at(after), &utc).unwrap().unwrap().at.to_string();
    assert_eq!(next("cron */20 * * * * *", "2026-01-01T00:00:00Z"), "2026-01-01T00:00:20Z");
    assert_eq!(next("cron 0 7 * * mon-fri", "2026-01-02T08:00:00Z"), "2026-01-05T07:00:00Z");
    assert_eq!(next("cron 0 0 L * *", "2026-02-01T00:00:00Z"), "2026-02-28T00:00:00Z");
    assert_eq!(next("cron @hourly", "2026-02-01T00:00:00.5Z"), "2026-02-01T01:00:00Z");
    assert_eq!(next("CRON  0 0 29 2 *", "2096-03-01T00:00:00Z"), "2104-02-29T00:00:00Z");
    assert_eq!(rule("CRON  0  0 29 2 * ").when.to_string(), "cron 0 0 29 2 *");
}

#[test]
fn dates_narrow_every_form() {
    let utc = Home { zone: zone("UTC").unwrap(), place: Place::new(51.5, 0.0) };
    let with = |when: &str, only: &str, except: &str| Rule {
        when: when.parse().unwrap(),
        only: only.parse().unwrap(),
        except: except.parse().unwrap(),
    };
    let days = |rule: &Rule, from: &str, count: usize| -> Vec<String> {
        let next = |at: &Timestamp| rule.next(*at, &utc).unwrap().map(|next| next.at);
        let found = std::iter::successors(next(&at(from)), next).take(count);
        found.map(|at| at.strftime("%F").to_string()).collect()
    };
    let christmas = with("cron 0 17 * * *", "12-24..01-01", "12-26..12-30");
    assert_eq!(
        days(&christmas, "2026-12-25T00:00:00Z", 5),
        ["2026-12-25", "2026-12-31", "2027-01-01", "2027-12-24", "2027-12-25"]
    );
    let summer = with("sunset", "2027-07-01..2027-07-03", "2027-07-02");
    assert_eq!(days(&summer, "2026-01-01T00:00:00Z", 9), ["2027-07-01", "2027-07-03"]);
    let once = with("at 2027-07-02 10:00", "", "2027-07-02");
    assert!(days(&once, "2026-01-01T00:00:00Z", 1).is_empty());
    let open = with("cron @daily", "2027-01-01..", "..2027-01-03, 2027-01-05");
    assert_eq!(days(&open, "2020-01-01T00:00:00Z", 3), ["2027-01-04", "2027-01-06", "2027-01-07"]);
    assert_eq!(open.except.to_string(), "..2027-01-03, 2027-01-05");
    assert_eq!(christmas.only.to_string(), "12-24..01-01");
    let leap = with("cron @daily", "02-29", "");
    assert_eq!(days(&leap, "2027-01-01T00:00:00Z", 2), ["2028-02-29", "2032-02-29"]);
}

#[test]
fn the_sun_is_where_the_almanac_says() {
    // Times of the almanac are whole minutes, and the air bends light as it likes.
    let known = [
        ("sunset", 52.52, 13.405, "2026-06-21T19:33:00Z"),
        ("sunrise", 51.5074, -0.1278, "2026-12-21T08:04:00Z"),
        ("sunset", 51.5074, -0.1278, "2026-12-21T15:53:00Z"),
        ("sunset", -33.8688, 151.2093, "2026-12-21T09:05:00Z"),
        ("sunrise", 40.7128, -74.006, "2026-03-20T10:59:00Z"),
        ("dusk", 40.7128, -74.006, "2026-03-20T23:35:00Z"),
    ];
    for (event, latitude, longitude, expected) in known {
        let home = Home { zone: zone("UTC").unwrap(), place: Place::new(latitude, longitude) };
        let expected = at(expected);
        let found = rule(event).next(expected - 10.hours(), &home).unwrap().unwrap().at;
        let off = found.duration_since(expected).abs();
        assert!(off.as_secs() <= 120, "{event} at {latitude} {longitude}: {found}, expected {expected}");
    }
}

#[test]
fn where_the_sun_stays_up_or_down_the_next_event_is_the_first_after_it() {
    let tromso = Home { zone: zone("Europe/Oslo").unwrap(), place: Place::new(69.6492, 18.9553) };
    let next = |event: &str, after: &str| {
        let next = rule(event).next(at(after), &tromso).unwrap().unwrap().at;
        next.to_zoned(tromso.zone.clone()).date().to_string()
    };
    let midsummer = next("sunset", "2026-06-01T00:00:00Z");
    assert!(("2026-07-25".."2026-07-29").contains(&&*midsummer), "{midsummer}");
    let midwinter = next("sunrise", "2026-12-10T00:00:00Z");
    assert!(("2027-01-13".."2027-01-17").contains(&&*midwinter), "{midwinter}");
    // It dawns there in midwinter all the same.
    assert_eq!(next("dawn", "2026-12-20T12:00:00Z"), "2026-12-21");
    let never = Rule { only: "06-01..06-30".parse().unwrap(), ..rule("sunset") };
    assert_eq!(
        never.check(at("2026-01-01T00:00:00Z"), &tromso).unwrap_err().to_string(),
        "it never comes: there is no sunset at the home on these dates"
    );
    let pole = Home { zone: zone("UTC").unwrap(), place: Place::new(90.0, 0.0) };
    let rise = rule("sunrise").next(at("2026-04-01T00:00:00Z"), &pole).unwrap().unwrap().at;
    assert!(rise > at("2027-03-15T00:00:00Z") && rise < at("2027-03-25T00:00:00Z"), "{rise}");
}

#[test]
fn the_last_of_very_many_is_found_at_once() {
    let berlin = home("Europe/Berlin");
    let each_second = Rule { except: "2026-06-01..2026-06-20".parse().unwrap(), ..rule("cron * * * * * *") };
    let last = each_second.last(at("2020-01-01T00:00:00Z"), at("2026-06-10T12:00:00Z"), &berlin).unwrap();
    assert_eq!(last.unwrap().at, at("2026-05-31T21:59:59Z"));
    assert_eq!(each_second.last(at("2026-05-31T21:59:59Z"), at("2026-06-10T12:00:00Z"), &berlin), Ok(None));
    let now = at("2026-05-31T21:00:00Z");
    assert_eq!(each_second.last(now, now, &berlin), Ok(None));
}

#[test]
fn what_is_no_rule_is_refused_in_words() {
    for (text, expected) in [
        ("", "`` says no time"),
        ("noon", "`noon` says no time"),
        ("cron", "`` is no cron pattern"),
        ("cron 61 * * * *", "`61 * * * *` is no cron pattern"),
        ("cron * * * *", "`* * * *` is no cron pattern"),
        ("cron 0 0 * * * * 2027", "is no cron pattern"),
        ("sunset 30m", "`30m` is no offset"),
        ("sunset - 13h", "`- 13h` is no offset"),
        ("sunset - soon", "`- soon` is no offset"),
        ("sunset - -5m", "`- -5m` is no offset"),
        ("at noon", "`noon` is no moment"),
        ("at 2026-02-30 10:00", "`2026-02-30 10:00` is no moment"),
        ("at 2026-02-03 10:00[Europe/Berlin]", "is no moment"),
    ] {
        let error = text.parse::<When>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert_eq!("x".repeat(300).parse::<When>(), Err(RuleError::TooLong(300)));
    for text in [
        "2026-13-01",
        "2026-12-26..2026-12-01",
        "..",
        "12-24..2026-01-01",
        "13-01",
        "2026-12-01...",
        "tomorrow",
    ] {
        assert!(text.parse::<Dates>().is_err(), "{text}");
    }
    assert!(matches!(vec!["12-24"; 65].join(",").parse::<Dates>(), Err(RuleError::TooManyRanges(65))));
    let (utc, now) = (home("UTC"), at("2026-01-01T00:00:00Z"));
    assert_eq!(rule("sunset").next(now, &utc), Err(RuleError::NoPlace));
    for never in ["cron 0 0 30 2 *", "cron 0 0 31 4,6 *", "at 2025-12-31 10:00"] {
        assert!(matches!(rule(never).check(now, &utc), Err(RuleError::Never(_))), "{never}");
    }
    assert_eq!(
        zone("Europe/Atlantis").unwrap_err().to_string(),
        "there is no time zone `Europe/Atlantis`: write a name of the IANA database, such as Europe/Berlin"
    );
    assert!(Place::new(f64::NAN, 0.0).is_none() && Place::new(0.0, 180.1).is_none());
}

#[test]
fn a_rule_as_text_is_the_same_rule() {
    for text in [
        "cron 30 7 * * mon-fri",
        "sunset - 30m",
        "dawn + 1h 15m",
        "dusk",
        "at 2026-12-24 17:00:00",
        "at 2026-12-24T16:00:00Z",
    ] {
        let when: When = text.parse().unwrap();
        assert_eq!(when.to_string(), text);
        assert_eq!(when.to_string().parse::<When>().unwrap(), when);
    }
}

const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "America/Santiago",
    "Antarctica/Troll",
    "Europe/Dublin",
    "America/Havana",
    "Pacific/Apia",
];

/// What lies between two turns of the sun, or on one side of one, at a place.
fn lies(after: &str, before: &str, now: &str, home: &Home) -> bool {
    sun_is(turn(after), turn(before), at(now), home).unwrap()
}

fn turn(text: &str) -> Option<Turn> {
    match text.parse() {
        Ok(When::Sun(event, offset)) => Some((event, offset)),
        _ => None,
    }
}

fn tromso() -> Home {
    Home { zone: zone("Europe/Oslo").unwrap(), place: Place::new(69.65, 18.96) }
}

fn longyearbyen() -> Home {
    Home { zone: zone("Arctic/Longyearbyen").unwrap(), place: Place::new(78.22, 15.65) }
}

/// Each hour of a day.
fn hours(day: &str) -> Vec<String> {
    (0..24).map(|hour| format!("{day}T{hour:02}:30:00Z")).collect()
}

/// What holds while it is night, and while it is day.
const NIGHTS: [(&str, &str); 3] = [("sunset", "sunrise"), ("sunset", ""), ("", "sunrise")];
const DAYS: [(&str, &str); 3] = [("sunrise", "sunset"), ("sunrise", ""), ("", "sunset")];

#[test]
fn it_is_night_where_the_sun_stays_below_the_horizon_and_day_where_it_stays_above() {
    // From 27 November to 15 January and from 18 May to 26 July; on Svalbard from 26 October to 16 February and 19 April to 23 August.
    let places = [
        (tromso(), ["2026-11-28", "2026-12-21", "2027-01-13"], ["2026-05-20", "2026-06-21", "2026-07-24"]),
        (
            longyearbyen(),
            ["2026-10-28", "2026-12-21", "2027-02-13"],
            ["2026-04-21", "2026-06-21", "2026-08-21"],
        ),
    ];
    for (home, winter, summer) in &places {
        for now in winter.iter().chain(summer).flat_map(|day| hours(day)) {
            let is_night = !now.starts_with("2026-0");
            for (after, before) in NIGHTS {
                assert_eq!(lies(after, before, &now, home), is_night, "{after} to {before} at {now}");
            }
            for (after, before) in DAYS {
                assert_eq!(lies(after, before, &now, home), !is_night, "{after} to {before} at {now}");
            }
            // What reaches over the one moment to which the day or the night shrinks goes on.
            let [wide, wider] = match is_night {
                true => [("sunset - 30m", "sunrise"), ("sunset - 1h", "sunrise + 1h")],
                false => [("sunrise", "sunset + 30m"), ("sunrise - 1h", "sunset + 1h")],
            };
            for (after, before) in [wide, wider] {
                assert!(lies(after, before, &now, home), "{after} to {before} at {now}");
            }
        }
    }
}

#[test]
fn the_days_between_go_over_into_one_another() {
    let home = tromso();
    let first = |event: &str, from: &str| rule(event).next(at(from), &home).unwrap().unwrap().at;
    let is_day = |now: Timestamp| lies("sunrise", "sunset", &now.to_string(), &home);
    let is_night = |now: Timestamp| lies("sunset", "sunrise", &now.to_string(), &home);
    // The last sunset of the year, the first sunrise, the last sunset before the light of summer, and the first after it.
    let dusk = rule("sunset").last(at("2026-11-01T00:00:00Z"), at("2026-12-10T00:00:00Z"), &home).unwrap();
    let light = rule("sunset").last(at("2026-05-01T00:00:00Z"), at("2026-06-10T00:00:00Z"), &home).unwrap();
    let turns = [
        (dusk.unwrap().at, true),
        (first("sunrise", "2026-12-21T00:00:00Z"), false),
        (light.unwrap().at, true),
        (first("sunset", "2026-06-21T00:00:00Z"), true),
    ];
    for (turn, sets) in turns {
        let (before, after) = (turn - 1.seconds(), turn);
        assert_eq!((is_day(before), is_day(after)), (sets, !sets), "{turn}");
        assert_eq!((is_night(before), is_night(after)), (!sets, sets), "{turn}");
    }
    // Day and night are never both, and never neither.
    let year = std::iter::successors(Some(at("2026-01-01T00:00:00Z")), |at| Some(*at + 157.minutes()));
    for now in year.take_while(|now| *now < at("2027-01-01T00:00:00Z")) {
        assert_ne!(is_day(now), is_night(now), "{now}");
    }
}

#[test]
fn twilight_comes_also_where_the_sun_does_not_rise_and_ends_where_it_stays_light() {
    let winter = tromso();
    for (after, before, now, expected) in [
        ("dawn", "sunrise", "2026-12-21T10:30:00Z", true),
        ("dawn", "sunrise", "2026-12-21T02:00:00Z", false),
        ("sunset", "dusk", "2026-12-21T11:30:00Z", true),
        ("sunset", "dusk", "2026-12-21T18:00:00Z", false),
        ("sunset", "dawn", "2026-12-21T02:00:00Z", true),
        ("sunset", "dawn", "2026-12-21T10:00:00Z", false),
        ("dawn", "sunset", "2026-12-21T02:00:00Z", false),
    ] {
        assert_eq!(lies(after, before, now, &winter), expected, "{after} to {before} at {now}");
    }
    // In Reykjavik the sun sets in June, and it does not get dark.
    let summer = Home { zone: zone("Atlantic/Reykjavik").unwrap(), place: Place::new(64.13, -21.9) };
    for (after, before, now, expected) in [
        ("sunset", "dawn", "2026-06-21T00:40:00Z", true),
        ("sunset", "dawn", "2026-06-21T12:00:00Z", false),
        ("dusk", "dawn", "2026-06-21T01:30:00Z", false),
        ("dusk", "", "2026-06-21T23:30:00Z", false),
        ("", "dusk", "2026-06-21T23:30:00Z", true),
        ("dawn", "dusk", "2026-06-21T12:00:00Z", true),
    ] {
        assert_eq!(lies(after, before, now, &summer), expected, "{after} to {before} at {now}");
    }
}

#[test]
fn at_a_pole_and_on_dates_that_nobody_computes_there_is_an_answer() {
    let pole = Home { zone: zone("UTC").unwrap(), place: Place::new(90.0, 0.0) };
    assert!(lies("sunset", "sunrise", "2026-12-21T12:00:00Z", &pole));
    assert!(lies("sunrise", "sunset", "2026-06-21T12:00:00Z", &pole));
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        for (after, before) in NIGHTS.into_iter().chain(DAYS) {
            assert!(sun_is(turn(after), turn(before), now, &pole).is_ok());
        }
    }
    let nowhere = home("UTC");
    let refused = sun_is(turn("sunset"), None, at("2026-12-21T12:00:00Z"), &nowhere);
    assert_eq!(refused, Err(RuleError::NoPlace));
}

#[test]
fn where_the_sun_rises_and_sets_each_day_the_turn_that_came_last_decides() {
    let berlin = Home { zone: zone("Europe/Berlin").unwrap(), place: Place::new(52.52, 13.405) };
    let turns =
        ["dawn - 40m", "dawn", "sunrise", "sunrise + 1h", "sunset - 2h", "sunset", "dusk", "dusk + 90m"];
    let last =
        |when: &str, now: Timestamp| rule(when).last(now - 48.hours(), now, &berlin).unwrap().unwrap().at;
    for step in 0..90 {
        let now = at("2026-01-01T00:00:00Z") + (step * 100).hours();
        let lasts = turns.map(|when| last(when, now));
        for (after, came) in turns.into_iter().zip(lasts) {
            let today = berlin.zone.to_datetime(came).date() == berlin.zone.to_datetime(now).date();
            assert_eq!(lies(after, "", &now.to_string(), &berlin), today, "after {after} at {now}");
            assert_eq!(lies("", after, &now.to_string(), &berlin), !today, "before {after} at {now}");
            for (before, went) in turns.into_iter().zip(lasts).filter(|(before, _)| *before != after) {
                let now = now.to_string();
                assert_eq!(lies(after, before, &now, &berlin), came > went, "{after} to {before} at {now}");
            }
        }
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let minute =
        prop_oneof![Just("*/7".to_owned()), (0..60_u8).prop_map(|m| m.to_string()), Just("0,30".to_owned())];
    let hour = prop_oneof![
        Just("*".to_owned()),
        Just("*/2".to_owned()),
        (0..24_u8).prop_map(|h| h.to_string()),
        Just("0-4".to_owned())
    ];
    let cron = (minute, hour).prop_map(|(minute, hour)| format!("cron {minute} {hour} * * *"));
    let event = prop::sample::select(vec!["sunrise", "sunset", "dawn", "dusk"]);
    let sun = (event, -600..600_i32).prop_map(|(event, minutes): (&str, i32)| {
        format!("{event} {} {}m", if minutes < 0 { '-' } else { '+' }, minutes.abs())
    });
    let dates = prop::sample::select(vec!["", "03-01..11-30", "12-24", "2027-01-01..2029-06-01"]);
    (prop_oneof![cron, sun], dates.clone(), dates).prop_map(|(when, only, except)| Rule {
        when: when.parse().unwrap(),
        only: only.parse().unwrap(),
        except: if only == except { Dates::default() } else { except.parse().unwrap() },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Nodes that look from different moments find the same occurrence, or they would carry it out twice.
    #[test]
    fn whoever_looks_before_it_finds_the_same_occurrence(
        rule in any_rule(),
        name in prop::sample::select(ZONES.to_vec()),
        latitude in -75.0..75.0_f64,
        longitude in -180.0..180.0_f64,
        second in 1_767_225_600..1_893_456_000_i64,
        part in 0.0..1.0_f64,
    ) {
        let home = Home { zone: zone(name).unwrap(), place: Place::new(latitude, longitude) };
        let from = Timestamp::from_second(second).unwrap();
        let Some(first) = rule.next(from, &home).unwrap() else { return Ok(()) };
        prop_assert!(first.at > from);
        let wait = (first.at.as_second() - second - 1) as f64;
        let later = Timestamp::from_second(second + (wait * part) as i64).unwrap();
        prop_assert_eq!(rule.next(later, &home).unwrap().map(|next| next.at), Some(first.at));
        prop_assert!(rule.next(first.at, &home).unwrap().is_none_or(|second| second.at > first.at));
        let last = rule.last(from, first.at, &home).unwrap();
        prop_assert_eq!(last.map(|last| last.at), Some(first.at));
    }

    #[test]
    fn garbage_is_refused_and_never_panics(text in "\\PC{0,80}", tail in "[0-9*/,LW#? -]{0,30}") {
        for text in [text.clone(), format!("cron {tail}"), format!("sunset {text}"), format!("at {tail}")] {
            if let Ok(when) = text.parse::<When>() {
                let home = Home { zone: zone("Europe/Berlin").unwrap(), place: Place::new(52.0, 13.0) };
                let _ = Rule::daily(when).next(at("2026-01-01T00:00:00Z"), &home);
            }
            let _ = text.parse::<Dates>();
        }
    }
}
