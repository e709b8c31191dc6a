//! The time of day: what it rests on, a person who says it, and boards that follow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hearth_tests::{
    daemon::{self, PATIENCE, Plan},
    emulator::{COLOR_BULB, Emulator},
    hostile::{Daemon, Folder, Home, Launch, wait_until},
};
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

const BULB: &str = "device/lifx-d073d5000001";

fn time(daemon: &Daemon) -> Value {
    serde_json::from_str(&daemon.cli(&["time", "--json"]).stdout).expect("the time as JSON")
}

fn say(daemon: &Daemon, time: &str) {
    let said = daemon.cli(&["time", "set", time]);
    assert_eq!(said.code, 0, "{}", said.text());
}

/// Whether the time that is shown is that one, or up to ten minutes after it.
fn is_about(shown: &Value, expected: &str) -> bool {
    let [shown, expected] =
        [shown["time"].as_str().unwrap(), expected].map(|at| at.parse::<Timestamp>().unwrap());
    (0..600).contains(&(shown.as_second() - expected.as_second()))
}

#[test]
fn where_no_clock_is_right_the_last_word_of_people_counts_on_every_board() {
    let wrong = || Launch::new().clock("@2026-01-01 00:00:10");
    let home = Home::with(&wrong(), &wrong());
    for board in [&home.a, &home.b] {
        let shown = time(board);
        assert_eq!((&shown["trusted"], &shown["rests_on"]), (&false.into(), &"nothing".into()), "{shown}");
        assert!(board.cli(&["time"]).text().contains("hearth time set"));
    }
    say(&home.a, "2027-05-01T10:00:00+02:00");
    assert_eq!(time(&home.a)["rests_on"], "person");
    let follows = |board: &Daemon, expected: &str| {
        let shown = time(board);
        shown["rests_on"] == "told" && shown["trusted"] == true && is_about(&shown, expected)
    };
    wait_until("the other board follows", || follows(&home.b, "2027-05-01T08:00:00Z"));
    // It was a slip: it is said again at the other board, earlier.
    say(&home.b, "2027-05-01T06:30:00Z");
    assert!(is_about(&time(&home.b), "2027-05-01T06:30:00Z"), "{}", time(&home.b));
    wait_until("the first board follows now", || follows(&home.a, "2027-05-01T06:30:00Z"));
    for (writer, reader) in [(&home.b, &home.a), (&home.a, &home.b)] {
        let text: Value = format!("by {}", writer.pid()).into();
        writer.put("note/x", "text", &text);
        wait_until("writes go on", || reader.field("note/x", "text") == Some(text.clone()));
    }
    home.is_served();
}

#[tokio::test]
async fn lights_obey_after_the_time_was_set_back() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    let node = Plan::new("alone").config(&config).start().await.unwrap();
    daemon::wait_until("the bulb is there", PATIENCE, async || {
        Ok(node.fields(BULB).await.is_ok_and(|bulb| bulb["availability"]["state"] == "online"))
    })
    .await
    .unwrap();
    for (hours, on) in [(0_i32, true), (3, false), (1, true)] {
        let said = Timestamp::now() + hours.hours();
        node.cli(&["time", "set", &said.to_string()]).await.unwrap().ok().unwrap();
        let body = json!({"device": BULB, "change": {"on": on}, "deadline_ms": 30_000, "wait": true});
        let command =
            node.client().send("POST", "/api/v1/commands", Some(&body)).await.unwrap().success().unwrap();
        assert_eq!(command["state"], "confirmed", "{hours} hours ahead: {command}");
    }
}

#[test]
fn what_is_no_time_is_refused_and_a_right_clock_goes_before_a_person() {
    let folder = Folder::new().expect("a temp folder");
    let right = Daemon::start(&folder.join("right"), &Launch::new().synchronised());
    let shown = time(&right);
    assert_eq!((&shown["rests_on"], &shown["ahead_of_wall_clock_ms"]), (&"wall_clock".into(), &0.into()));
    let refused = right.cli(&["time", "set", "now"]);
    assert_eq!(refused.code, 6, "{}", refused.text());
    assert!(refused.text().contains("a clock that is kept right"), "{}", refused.text());
    let alone = Daemon::start(&folder.join("alone"), &Launch::new());
    for (given, code) in [
        ("noon", 2),
        ("2026-02-30 10:00", 2),
        ("2062-11-29 10:00", 6),
        ("1999-12-31 23:59", 6),
        ("2199-01-01 00:00", 6),
    ] {
        let refused = alone.cli(&["time", "set", given]);
        assert_eq!(refused.code, code, "{given}: {}", refused.text());
    }
    assert_eq!(time(&alone)["trusted"], false, "nothing was taken");
    assert_eq!(alone.cli(&["time", "set", "now"]).code, 0);
    assert_eq!(time(&alone)["rests_on"], "person");
}
