//! What the home does at a time: two nodes, a bulb, and whichever of the two lives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hearth_tests::{
    daemon::{Daemon, Launch, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator, Fault, Link},
};
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

const SERIAL: &str = "d073d5000001";
const BULB: &str = "device/lifx-d073d5000001";

fn config(bulb: SocketAddr) -> String {
    format!(
        "[adapters.lifx]\naddresses = [\"{bulb}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n"
    )
}

/// A node that knows the time.
fn plan(name: &str, emulator: &Emulator) -> Plan {
    Plan::new(name).config(config(emulator.address())).variable("HEARTH_CLOCK", "trusted")
}

async fn reaches_the_bulb(node: &Daemon) {
    let reach = format!("reach.{}", &node.id().await.unwrap()[..16]);
    let there = wait_until("the bulb is there", PATIENCE, async || {
        Ok(node
            .fields(BULB)
            .await
            .is_ok_and(|bulb| bulb["availability"]["state"] == "online" && !bulb[&reach].is_null()))
    });
    there.await.unwrap();
}

async fn shows(emulator: &Emulator, what: &str, percent: f64) {
    let done = wait_until(what, PATIENCE, async || {
        let brightness = emulator.device(SERIAL).await?["color"]["brightness"].as_f64().unwrap_or(0.0);
        Ok((brightness / 65_535.0 * 100.0 - percent).abs() < 1.0)
    });
    done.await.unwrap();
}

async fn schedule(node: &Daemon, name: &str) -> Value {
    node.json(&["schedule", "show", name]).await.unwrap()
}

/// Makes a schedule for a bulb that comes once, so many seconds from now, or a little later: a moment that passes before the node
/// looks at it is refused.
async fn once(node: &Daemon, name: &str, seconds: i64, percent: &str) -> Timestamp {
    for late in 0..30 {
        let at = Timestamp::from_second(Timestamp::now().as_second() + seconds + late).unwrap();
        let words = [
            "schedule",
            "set",
            name,
            &format!("at {at}"),
            "--",
            "light",
            SERIAL_NAME,
            "on",
            "--brightness",
            percent,
        ];
        let said = node.cli(&words).await.unwrap();
        if !said.stderr.contains("the moment has passed") {
            said.ok().unwrap();
            return at;
        }
    }
    panic!("{name}: whatever moment is told has passed")
}

/// What the bulb is called where nobody named it.
const SERIAL_NAME: &str = "lifx-d073d5000001";

#[tokio::test]
async fn a_schedule_is_carried_out_once_at_its_time_by_one_node_and_both_know() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let one = plan("one", &emulator).start().await.unwrap();
    let two = one.joined_by(plan("two", &emulator)).await.unwrap();
    for node in [&one, &two] {
        reaches_the_bulb(node).await;
    }
    one.cli(&["home", "set", "--zone", "Europe/Berlin"]).await.unwrap().ok().unwrap();
    let at = once(&two, "wake", 15, "37").await;
    wait_until("the other knows it", PATIENCE, async || {
        Ok(one.json(&["schedule", "show", "wake"]).await.is_ok())
    })
    .await
    .unwrap();
    let waiting = schedule(&one, "wake").await;
    assert_eq!(
        (&waiting["state"], &waiting["next"][0]["at"]),
        (&"waiting".into(), &at.to_string().into()),
        "{waiting}"
    );
    assert_eq!(waiting["do"][0]["device"], BULB, "it may be renamed");
    shows(&emulator, "the bulb is at 37 %", 37.0).await;
    for node in [&one, &two] {
        let over = wait_until("it is recorded", PATIENCE, async || {
            let shown = schedule(node, "wake").await;
            Ok(shown["state"] == "over" && shown["last"][0]["state"] == "done")
        });
        over.await.unwrap();
        let last = schedule(node, "wake").await["last"].clone();
        assert_eq!(last.as_array().unwrap().len(), 1, "{last}");
        assert_eq!((&last[0]["at"], &last[0]["node"]), (&at.to_string().into(), &waiting["by"]), "{last}");
        assert_eq!((&last[0]["again"], &last[0]["failed"]), (&false.into(), &json!([])));
    }
}

#[tokio::test]
async fn when_the_node_that_is_to_carry_it_out_dies_another_does() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let one = plan("one", &emulator).start().await.unwrap();
    let two = one.joined_by(plan("two", &emulator)).await.unwrap();
    for node in [&one, &two] {
        reaches_the_bulb(node).await;
    }
    one.cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
    let at = once(&one, "wake", 20, "42").await;
    let shown = schedule(&one, "wake").await;
    let (mut dies, lives) = if shown["by"] == "one" { (one, two) } else { (two, one) };
    let known = wait_until("the other knows it", PATIENCE, async || {
        Ok(lives.json(&["schedule", "show", "wake"]).await.is_ok())
    });
    known.await.unwrap();
    dies.kill().await.unwrap();
    shows(&emulator, "the bulb is at 42 %", 42.0).await;
    let over =
        wait_until(
            "it is recorded",
            PATIENCE,
            async || Ok(schedule(&lives, "wake").await["state"] == "over"),
        );
    over.await.unwrap();
    let last = schedule(&lives, "wake").await["last"].clone();
    assert_eq!((&last[0]["at"], &last[0]["node"]), (&at.to_string().into(), &lives.name().into()), "{last}");
    // Whoever comes back hears of it and does nothing.
    emulator
        .set(SERIAL, &json!({"color": {"hue": 0, "saturation": 0, "brightness": 65_535, "kelvin": 3_500}}))
        .await
        .unwrap();
    dies.start().await.unwrap();
    reaches_the_bulb(&dies).await;
    let heard = wait_until("it hears of it", PATIENCE, async || {
        let shown = dies.json(&["schedule", "show", "wake"]).await?;
        Ok(shown["state"] == "over" && shown["last"][0]["state"] == "done")
    });
    heard.await.unwrap();
    shows(&emulator, "nothing was done again", 100.0).await;
}

#[tokio::test]
async fn nothing_comes_before_the_time_is_known_and_what_was_missed_goes_by_the_policy() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let node = Plan::new("alone").config(config(emulator.address())).start().await.unwrap();
    reaches_the_bulb(&node).await;
    node.cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
    once(&node, "wake", 1, "21").await;
    node.cli(&[
        "schedule",
        "set",
        "never",
        &format!("at {}", Timestamp::now() + 20.seconds()),
        "--missed",
        "skip",
        "--",
        "light",
        SERIAL_NAME,
        "--brightness",
        "99",
    ])
    .await
    .unwrap()
    .ok()
    .unwrap();
    let held = schedule(&node, "wake").await;
    assert_eq!(held["state"], "held", "{held}");
    assert!(held["reason"].as_str().unwrap().contains("hearth time set"), "{held}");
    let ahead = (Timestamp::now() + 5.minutes()).to_string();
    node.cli(&["time", "set", &ahead]).await.unwrap().ok().unwrap();
    shows(&emulator, "the bulb is at 21 %", 21.0).await;
    let passed = wait_until("the other is passed over", PATIENCE, async || {
        Ok(schedule(&node, "never").await["last"][0]["state"] == "passed_over")
    });
    passed.await.unwrap();
    shows(&emulator, "nothing else was done", 21.0).await;
}

#[tokio::test]
async fn what_is_held_comes_when_a_node_is_met_that_knows_the_time() {
    const SCHEDULES: usize = 16;
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let lost = Plan::new("lost").config(config(emulator.address())).start().await.unwrap();
    reaches_the_bulb(&lost).await;
    lost.cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
    // So many that each of the two nodes has its share of them.
    for number in 0..SCHEDULES {
        once(&lost, &format!("n{number}"), 1, "21").await;
    }
    let often = json!({"triggers": [{"at": "cron */5 * * * * *"}], "actions": [{"event": "tick"}]});
    lost.client().send("PUT", "/api/v1/automations/often", Some(&often)).await.unwrap().success().unwrap();
    let automation =
        async || lost.client().get("/api/v1/automations/often").await.unwrap().success().unwrap();
    let schedules = async || {
        let list = lost.json(&["schedule", "list"]).await.unwrap();
        list["schedules"].as_array().unwrap().clone()
    };
    let held =
        wait_until("the automation is held", PATIENCE, async || Ok(automation().await["state"] == "held"));
    held.await.unwrap();
    let waiting = schedules().await;
    assert!(waiting.len() == SCHEDULES && waiting.iter().all(|it| it["state"] == "held"), "{waiting:?}");
    assert_eq!(automation().await["runs"], json!([]));

    let right = lost.joined_by(Plan::new("right").variable("HEARTH_CLOCK", "trusted")).await.unwrap();
    let over = wait_until("all are carried out", PATIENCE, async || {
        Ok(schedules().await.iter().all(|it| it["state"] == "over" && it["last"][0]["state"] == "done"))
    });
    over.await.unwrap();
    assert_eq!(lost.json(&["time"]).await.unwrap()["rests_on"], "peer");
    shows(&emulator, "the bulb is at 21 %", 21.0).await;
    let by = |node: &Daemon, shown: &[Value]| {
        shown.iter().filter(|it| it["last"][0]["node"] == node.name()).count()
    };
    let shown = schedules().await;
    assert_eq!(by(&lost, &shown) + by(&right, &shown), SCHEDULES, "{shown:?}");
    assert!(by(&lost, &shown) > 0, "the node that did not know the time did its own: {shown:?}");
    let ran = wait_until("the automation is started by the clock", PATIENCE, async || {
        Ok(automation().await["runs"][0]["state"] == "done")
    });
    ran.await.unwrap();
}

#[tokio::test]
async fn what_is_held_comes_after_a_start_by_a_battery_clock() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let mut node = Plan::new("alone").config(config(emulator.address())).start().await.unwrap();
    reaches_the_bulb(&node).await;
    node.cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
    once(&node, "wake", 1, "21").await;
    assert_eq!(schedule(&node, "wake").await["state"], "held");
    assert_eq!(node.stop().await.unwrap(), Some(0));
    // A clock by which the kernel set the time, in place of those of this machine.
    let battery = Launch::new().variable("HEARTH_CLOCK", "ask").mounts(
        "mount -t tmpfs -o mode=755 tmpfs /run && mount -t tmpfs -o mode=755 tmpfs /sys/class && \
         mkdir -p /sys/class/rtc/rtc0 && echo 1 > /sys/class/rtc/rtc0/hctosys",
    );
    let again = Daemon::on(node.state_dir(), &battery).await.unwrap();
    shows(&emulator, "the bulb is at 21 %", 21.0).await;
    let rests_on = again.json(&["time"]).await.unwrap()["rests_on"].clone();
    // The machine of the tests may answer for its own clock.
    assert!(rests_on == "went_on" || rests_on == "wall_clock", "{rests_on}");
    let over = wait_until("it is recorded", PATIENCE, async || {
        let shown = schedule(&again, "wake").await;
        Ok(shown["state"] == "over" && shown["last"][0]["state"] == "done")
    });
    over.await.unwrap();
}

#[tokio::test]
async fn what_can_never_be_is_refused_in_words() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let node = plan("alone", &emulator).start().await.unwrap();
    reaches_the_bulb(&node).await;
    let refused = async |words: &[&str], part: &str| {
        let said = node.cli(words).await.unwrap();
        assert!(said.code != 0 && said.stderr.contains(part), "{words:?}: {} {}", said.code, said.stderr);
    };
    let light = ["--", "light", SERIAL_NAME, "on"];
    let set = |when: &'static str| [&["schedule", "set", "x", when][..], &light[..]].concat();
    refused(&["home", "set", "--zone", "Europe/Nowhere"], "no time zone `Europe/Nowhere`").await;
    refused(&["home", "set", "--place", "91,0"], "latitude").await;
    node.cli(&["home", "set", "--zone", "Europe/Oslo"]).await.unwrap().ok().unwrap();
    refused(&set("sunset - 30m"), "the place of the home").await;
    node.cli(&["home", "set", "--place", "69.65,18.96"]).await.unwrap().ok().unwrap();
    refused(&set("cron 0 0 30 2 *"), "never comes").await;
    refused(&set("cron 61 * * * *"), "no cron pattern").await;
    refused(&set("at 2020-01-01 10:00"), "never comes").await;
    refused(&set("noon"), "`noon` says no time").await;
    refused(
        &[&["schedule", "set", "x", "sunset", "--only", "06-10..06-20"][..], &light[..]].concat(),
        "never comes",
    )
    .await;
    refused(
        &[&["schedule", "set", "x", "sunset", "--missed", "often"][..], &light[..]].concat(),
        "run_latest",
    )
    .await;
    refused(&[&["schedule", "set", "X y", "sunset"][..], &light[..]].concat(), "a-z").await;
    refused(&["schedule", "set", "x", "sunset", "--", "light", "attic", "on"], "attic").await;
    refused(&["schedule", "set", "x", "sunset", "--", "dance"], "dance").await;
    refused(&["schedule", "set", "x", "sunset", "--", "light", SERIAL_NAME, "toggle"], "undo itself").await;
    refused(&["schedule", "show", "x"], "no such schedule").await;
    refused(&["schedule", "remove", "x"], "schedule `x`").await;
    assert!(node.json(&["schedule", "list"]).await.unwrap()["schedules"].as_array().unwrap().is_empty());

    node.cli(&set("sunset - 30m")).await.unwrap().ok().unwrap();
    let shown = schedule(&node, "x").await;
    assert_eq!(shown["next"].as_array().unwrap().len(), 5);
    assert!(shown["next"][0]["why"].as_str().unwrap().starts_with("30m before sunset at "), "{shown}");
    let text = node.cli(&["schedule", "list"]).await.unwrap().ok().unwrap();
    assert!(text.stdout.contains("x  sunset - 30m  (waiting)"), "{}", text.stdout);
    node.cli(&["schedule", "disable", "x"]).await.unwrap().ok().unwrap();
    assert_eq!(schedule(&node, "x").await["state"], "off");
    node.cli(&["schedule", "enable", "x"]).await.unwrap().ok().unwrap();
    node.cli(&["schedule", "remove", "x"]).await.unwrap().ok().unwrap();
    refused(&["put", "schedule/y", "when=sunset"], "only nodes write it").await;
}

/// Two nodes and a bulb that takes what it is told and does not do it: a run stays under way.
struct Stuck {
    emulator: Emulator,
    link: Link,
    /// Which is at it.
    runs: Daemon,
    other: Daemon,
}

impl Stuck {
    async fn new() -> Self {
        let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
        let link = Link::to(emulator.address(), 3).await.unwrap();
        let plan = |name| Plan::new(name).config(config(link.address())).variable("HEARTH_CLOCK", "trusted");
        let one = plan("one").start().await.unwrap();
        let two = one.joined_by(plan("two")).await.unwrap();
        for node in [&one, &two] {
            reaches_the_bulb(node).await;
        }
        one.cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
        link.set(Fault { ignore_sets: true, ..Fault::default() });
        once(&one, "wake", 4, "42").await;
        for node in [&one, &two] {
            let begun = wait_until("it is under way", PATIENCE, async || {
                Ok(node.json(&["schedule", "show", "wake"]).await?["last"][0]["state"] == "started")
            });
            begun.await.unwrap();
        }
        let is_one = schedule(&two, "wake").await["last"][0]["node"] == "one";
        let (runs, other) = if is_one { (one, two) } else { (two, one) };
        Self { emulator, link, runs, other }
    }

    /// What a node that has taken it over says of it, by now.
    async fn taken_over(&self) -> Value {
        let last = schedule(&self.other, "wake").await["last"].clone();
        last.as_array()
            .unwrap()
            .iter()
            .find(|last| last["node"] == self.other.name())
            .cloned()
            .unwrap_or_default()
    }

    /// The other takes it over, and once the bulb does what it is told it comes to its end.
    async fn comes_to_its_end(&self) {
        let begun =
            wait_until("it is taken over", PATIENCE, async || Ok(self.taken_over().await["again"] == true));
        begun.await.unwrap();
        assert_eq!(self.taken_over().await["state"], "started");
        self.link.set(Fault::default());
        shows(&self.emulator, "the bulb is at 42 %", 42.0).await;
        let ended =
            wait_until("it has ended", PATIENCE, async || Ok(self.taken_over().await["state"] != "started"));
        ended.await.unwrap();
        let ended = self.taken_over().await;
        assert_eq!((&ended["state"], &ended["failed"]), (&"done".into(), &json!([])), "{ended}");
        let counted = wait_until("it is counted", PATIENCE, async || {
            let metrics = self.other.client().get("/metrics").await?.body;
            Ok(metrics.lines().any(|line| line == "hearth_schedule_again_total 1"))
        });
        counted.await.unwrap();
    }
}

#[tokio::test]
async fn the_run_of_a_node_that_is_killed_comes_to_its_end_on_another() {
    let mut stuck = Stuck::new().await;
    stuck.runs.kill().await.unwrap();
    stuck.comes_to_its_end().await;
    // Whoever comes back leaves it alone.
    let node = stuck.runs.name().to_owned();
    stuck.runs.start().await.unwrap();
    let over = wait_until("it hears of it", PATIENCE, async || {
        Ok(schedule(&stuck.runs, "wake").await["state"] == "over")
    });
    over.await.unwrap();
    let last = schedule(&stuck.runs, "wake").await["last"].clone();
    let began = last.as_array().unwrap().iter().find(|last| last["node"] == node.as_str()).unwrap();
    assert_eq!((&began["state"], &began["again"]), (&"started".into(), &false.into()), "{last}");
}

#[tokio::test]
async fn the_run_of_a_node_that_is_stopped_comes_to_its_end_on_another() {
    let mut stuck = Stuck::new().await;
    assert_eq!(stuck.runs.stop().await.unwrap(), Some(0));
    stuck.comes_to_its_end().await;
}

#[tokio::test]
async fn what_a_jump_of_a_day_makes_due_at_once_is_carried_out_or_passed_over_and_clients_are_answered() {
    const SCHEDULES: usize = 102;
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let one = Plan::new("one").config(config(emulator.address())).start().await.unwrap();
    let two = one.joined_by(Plan::new("two").config(config(emulator.address()))).await.unwrap();
    for node in [&one, &two] {
        reaches_the_bulb(node).await;
    }
    one.cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
    let tomorrow = Timestamp::from_second(Timestamp::now().as_second()).unwrap() + 24.hours();
    let early = tomorrow - 8.hours();
    // On time after the jump; too late; late, and made up for.
    let kinds = [(tomorrow, "skip", "done"), (early, "skip", "passed_over"), (early, "run_latest", "done")];
    for number in 0..SCHEDULES {
        let (at, missed, _) = kinds[number % kinds.len()];
        let (name, when) = (format!("n{number:03}"), format!("at {at}"));
        let words = ["schedule", "set", &name, &when, "--missed", missed, "--", "light", SERIAL_NAME, "on"];
        one.cli(&words).await.unwrap().ok().unwrap();
    }
    let known = wait_until("the other knows them", PATIENCE, async || {
        Ok(two.json(&["schedule", "list"]).await?["schedules"].as_array().unwrap().len() == SCHEDULES)
    });
    known.await.unwrap();
    let jump = (tomorrow + 1.seconds()).to_string();
    one.cli(&["time", "set", &jump]).await.unwrap().ok().unwrap();
    for node in [&one, &two] {
        let (mut slowest, mut schedules) = (Duration::ZERO, Vec::new());
        let settled = wait_until("all are settled", PATIENCE * 2, async || {
            let asked = Instant::now();
            node.status().await?;
            schedules = node.json(&["schedule", "list"]).await?["schedules"].as_array().unwrap().clone();
            slowest = slowest.max(asked.elapsed());
            Ok(schedules.iter().all(|schedule| schedule["state"] == "over"))
        });
        settled.await.unwrap();
        assert!(slowest < Duration::from_secs(10), "a client waited {slowest:?}");
        assert_eq!(schedules.len(), SCHEDULES);
        for (number, schedule) in schedules.iter().enumerate() {
            let last = &schedule["last"];
            assert_eq!(last.as_array().unwrap().len(), 1, "{schedule}");
            assert_eq!(
                (&last[0]["state"], &last[0]["failed"]),
                (&kinds[number % 3].2.into(), &json!([])),
                "{schedule}"
            );
        }
    }
}

#[tokio::test]
async fn what_was_exported_of_a_home_is_there_again_on_a_fresh_node() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let old = plan("old", &emulator).start().await.unwrap();
    reaches_the_bulb(&old).await;
    old.cli(&["home", "set", "--zone", "Europe/Berlin", "--place", "52.52,13.40"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    old.cli(&["scene", "save", "cosy", SERIAL_NAME, "--transition", "2s"]).await.unwrap().ok().unwrap();
    let dusk =
        ["schedule", "set", "dusk", "sunset - 30m", "--except", "12-24", "--missed", "skip", "--disabled"];
    let words = [&dusk[..], &["--", "scene", "cosy", "--", "light", SERIAL_NAME, "off"]].concat();
    old.cli(&words).await.unwrap().ok().unwrap();
    // One that came, and would come again were it taken for one that was missed.
    once(&old, "wake", 1, "37").await;
    shows(&emulator, "the bulb is at 37 %", 37.0).await;
    let over =
        wait_until("it is over", PATIENCE, async || Ok(schedule(&old, "wake").await["state"] == "over"));
    over.await.unwrap();
    let program = json!({"triggers": [{"kind": "event", "topic": "door"}], "actions": [{"delay": "1s"}], "enabled": false});
    let put = old.client().send("PUT", "/api/v1/automations/door", Some(&program)).await.unwrap();
    put.success().unwrap();
    let file = old.state_dir().join("home.ndjson");
    let file = file.to_str().unwrap();
    old.cli(&["export", file]).await.unwrap().ok().unwrap();

    let new = plan("new", &emulator).start().await.unwrap();
    let tried = new.json(&["import", file, "--dry-run"]).await.unwrap();
    assert_eq!(tried["refused"], json!([]), "{tried}");
    assert_eq!(
        new.json(&["schedule", "list"]).await.unwrap()["schedules"],
        json!([]),
        "a dry run writes nothing"
    );
    let imported = new.cli(&["import", file]).await.unwrap().ok().unwrap();
    assert!(imported.stdout.contains(" 0 refused"), "{imported:?}");
    assert!(imported.text().contains("no export holds API tokens"), "{imported:?}");

    let decided = |view: &Value, members: &[&str]| -> Vec<Value> {
        members.iter().map(|member| view[*member].clone()).collect()
    };
    for name in ["dusk", "wake"] {
        let members = ["when", "only", "except", "missed", "do", "enabled"];
        let (was, is) = (schedule(&old, name).await, schedule(&new, name).await);
        assert_eq!(decided(&was, &members), decided(&is, &members));
        assert_eq!(is["last"], json!([]), "it did nothing here");
    }
    assert_eq!(new.json(&["home"]).await.unwrap(), old.json(&["home"]).await.unwrap());
    let members = ["transition_ms", "set.lifx-d073d5000001"];
    let scene = |fields: &Value| decided(fields, &members);
    let kept = scene(&new.fields("scene/cosy").await.unwrap());
    assert!(kept.iter().all(|value| !value.is_null()), "{kept:?}");
    assert_eq!(kept, scene(&old.fields("scene/cosy").await.unwrap()));
    let automation = async |node: &Daemon| {
        let answer = node.client().get("/api/v1/automations/door").await.unwrap();
        decided(&answer.success().unwrap(), &["program", "enabled", "state", "reason"])
    };
    assert_eq!(automation(&new).await, automation(&old).await);
    // It is a home that lives: what was switched off is switched on again, and comes.
    new.cli(&["schedule", "enable", "dusk"]).await.unwrap().ok().unwrap();
    let next = schedule(&new, "dusk").await["next"].clone();
    assert_eq!(next.as_array().unwrap().len(), 5, "{next}");
}
