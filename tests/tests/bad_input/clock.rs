//! Clocks that are wrong by decades or by a year.

use hearth_tests::hostile::{Daemon, Folder, Home, Launch, peer::now_ms, wait_until};
use serde_json::{Value as Json, json};

const YEAR_MS: u64 = 365 * 86_400_000;

/// When a field was written, in milliseconds since 1970, as a node tells it.
fn written_at(daemon: &Daemon, object: &str, field: &str) -> Option<u64> {
    let (status, body) = daemon.http("GET", &format!("/api/v1/objects/{object}"), &Json::Null);
    let at = body["meta"][field]["at"].as_str().filter(|_| status == 200)?;
    // 2026-11-22T06:00:00.123Z
    let number = |range: std::ops::Range<usize>| at.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days since 1970 by the civil calendar (Howard Hinnant, "chrono-compatible date algorithms").
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    Some(seconds * 1_000)
}

fn is_about_now(at: Option<u64>) -> bool {
    at.is_some_and(|at| at.abs_diff(now_ms()) < 180_000)
}

#[test]
fn a_node_that_boots_in_1970_joins_and_takes_the_time_of_its_peers() {
    let launch = Launch::new().clock("@1970-01-01 00:00:10");
    let home = Home::with(&Launch::new().synchronised(), &launch);
    home.b.put("note/old", "text", &json!("from 1970"));
    wait_until("its write is read by the others", || {
        home.a.field("note/old", "text") == Some(json!("from 1970"))
    });
    assert!(is_about_now(written_at(&home.a, "note/old", "text")));
    // A write that is really later wins, from either side.
    home.a.put("note/old", "text", &json!("from today"));
    wait_until("the later write wins", || home.b.field("note/old", "text") == Some(json!("from today")));
    home.b.put("note/old", "text", &json!("from 1970 again"));
    wait_until("the latest write wins", || {
        home.a.field("note/old", "text") == Some(json!("from 1970 again"))
    });
    assert_eq!(home.a.counter("writes_quarantined"), 0);
    // It took the time of its peer, says that it cannot know better, and what would mend that.
    home.b.wait_counter("clock_adopted", 1);
    let doctor = home.b.cli(&["doctor"]);
    assert!(doctor.text().contains("not known to be right"), "{}", doctor.text());
    assert!(doctor.text().contains("timedatectl set-ntp true"), "{}", doctor.text());
    // Its own API answers over TLS: the certificate holds although the clock does not.
    assert_eq!(home.b.https("GET", "/healthz", b"").0, 200);
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn a_node_a_year_ahead_overrules_nobody_once_it_is_corrected() {
    let folder = Folder::new().expect("a temp folder");
    let a = Daemon::start(&folder.join("a"), &Launch::new().synchronised());
    let before = a.rss_kib();
    let token = a.invite("member", 900);
    let right = Daemon::start(&folder.join("b"), &Launch::new().with(&["--join", &token]));
    let home = Home::of(a, right, folder, before);
    home.is_served();
    home.a.put("note/x", "text", &json!("before"));
    let (a, b, folder) = home.split();
    wait_until("both hold it", || b.field("note/x", "text") == Some(json!("before")));
    let at = a.address;
    b.stop();
    a.stop();

    // Alone, with a clock a year ahead, it acknowledges writes.
    let b = Daemon::start(&folder.join("b"), &Launch::new().clock("+365d"));
    b.put("note/x", "text", &json!("from next year"));
    b.put("note/only-b", "text", &json!("acknowledged"));
    let ahead = written_at(&b, "note/x", "text").expect("it was written");
    assert!(ahead > now_ms() + YEAR_MS / 2, "{ahead}");

    // A peer whose clock is right comes back: b adopts its time and closes its generation.
    let a = Daemon::start(&folder.join("a"), &Launch::new().synchronised().listen(at));
    b.wait_counter("clock_corrections", 1);
    assert!(b.said().contains("the clock was ahead and has been set back"), "{}", b.said());
    wait_until("what b acknowledged is everywhere, under today's date", || {
        a.field("note/only-b", "text") == Some(json!("acknowledged"))
            && is_about_now(written_at(&a, "note/only-b", "text"))
            && is_about_now(written_at(&b, "note/only-b", "text"))
            && a.status()["quarantined"] == 0
    });
    // A normal write on the right node wins everywhere, at once and not in a year.
    a.put("note/x", "text", &json!("from today"));
    wait_until("the later write wins", || {
        [&a, &b].iter().all(|daemon| daemon.field("note/x", "text") == Some(json!("from today")))
    });
    assert!(is_about_now(written_at(&b, "note/x", "text")));
    // And after a restart of either it still does.
    b.stop();
    let b = Daemon::start(&folder.join("b"), &Launch::new().clock("+365d"));
    wait_until("it still wins", || b.field("note/x", "text") == Some(json!("from today")));
    let home = Home::of(a, b, folder, before);
    home.is_served();
    home.memory_is_bounded();
}

/// Nobody knows the time: the household follows the clock that is furthest ahead, and what is
/// written later wins all the same.
#[test]
fn a_node_a_year_ahead_among_nodes_that_know_no_better_overrules_no_later_write() {
    let home = Home::with(&Launch::new(), &Launch::new().clock("+365d"));
    home.a.wait_counter("clock_adopted", 1);
    for round in 0..3 {
        for (writer, reader) in [(&home.b, &home.a), (&home.a, &home.b)] {
            let text = json!(format!("{round} by {}", writer.pid()));
            writer.put("note/x", "text", &text);
            wait_until("the later write wins", || reader.field("note/x", "text") == Some(text.clone()));
            assert_eq!(writer.field("note/x", "text"), Some(text));
        }
    }
    assert_eq!(home.a.status()["quarantined"], 0);
    home.is_served();
    home.memory_is_bounded();
}
