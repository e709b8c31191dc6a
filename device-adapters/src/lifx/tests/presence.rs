//! Which bulbs are there, whose they are, and what becomes of one that does not answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[test]
fn a_bulb_is_found_with_what_it_can_and_left_alone_until_owned() {
    let mut world = World::new();
    world.run(Duration::from_secs(20));
    let [found] = &world.found()[..] else { panic!("{:?}", world.readings) };
    assert_eq!((found.name.as_str(), found.firmware.as_deref()), ("Kitchen", Some("3.70")));
    assert_eq!((found.model.as_str(), &found.note), ("LIFX product 27", &None));
    assert!(!world.sent.iter().any(|(_, request)| *request == Request::LightGet || request.is_set()));
    world.light(1, power(false), PATIENCE);
    world.run(ms(10));
    assert!(matches!(&world.life_of(1)[..], [Stage::Failed { reason }] if reason.contains("does not own")));
    world.own(true);
    world.run(ms(100));
    assert_eq!(world.reports().len(), 1);
}

#[test]
fn an_unknown_product_is_a_full_colour_light_with_a_note() {
    let mut world = World::new();
    world.product = 9_999;
    world.run(ms(500));
    let found = world.found();
    assert!(found[0].note.as_ref().unwrap().contains("product 9999"), "{found:?}");
}

#[test]
fn what_arrives_after_ownership_is_lost_is_not_reported() {
    let mut world = World::owning();
    world.driver.handle_directive(world.now, Directive::Refresh { device: device() });
    world.own(false);
    world.run(Duration::from_secs(1));
    assert_eq!(world.reports().len(), 1);
    world.own(true);
    world.run(Duration::from_secs(1));
    assert_eq!(world.reports().len(), 2, "a new owner reports what it sees");
}

#[test]
fn silence_is_offline_with_a_reason_then_lost_and_an_answer_brings_it_back() {
    let mut world = World::owning();
    world.silent = true;
    let begun = world.now;
    world.run(Duration::from_secs(200));
    let changes = world.availabilities();
    let [(_, Availability::Online, _), (at, Availability::Offline, reason)] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert!(*at - begun < Duration::from_secs(15), "offline after {:?}", *at - begun);
    assert!(reason.contains("3 polls") && reason.contains(ADDRESS), "{reason}");
    let lost = world.readings.iter().filter(|(_, reading)| matches!(reading, Reading::Lost { .. })).count();
    assert_eq!(lost, 1);
    let late = world.now - Duration::from_secs(60);
    let probes = world.sent.iter().filter(|(at, r)| *at > late && *r == Request::LightGet).count();
    assert!((12..=48).contains(&probes), "{probes} probes in the last minute");

    world.silent = false;
    world.power = 0;
    world.run(Duration::from_secs(11));
    assert_eq!(world.availabilities().last().unwrap().1, Availability::Online);
    assert_eq!(world.found().len(), 2, "found again");
    assert!(!world.reports().last().unwrap().0.on);
}

#[test]
fn one_that_is_lost_before_polls_miss_it_is_told_online_when_it_is_back() {
    let mut world = World::with(serde_json::json!({
        "addresses": ["192.0.2.7"], "broadcast": [], "poll_s": 60, "discover_s": 1
    }));
    world.own(true);
    world.run(Duration::from_secs(2));
    world.silent = true;
    world.run(Duration::from_secs(10));
    let last = world.readings.last();
    assert!(matches!(last, Some((_, Reading::Lost { .. }))), "{last:?}");
    world.silent = false;
    world.run(Duration::from_secs(10));
    let told = world.availabilities();
    assert!(matches!(&told[..], [(_, Availability::Online, _), (_, Availability::Online, _)]), "{told:?}");
}

#[test]
fn loss_of_30_percent_alone_does_not_make_a_bulb_offline_or_lost() {
    let mut world = World::owning();
    world.loss = 0.3;
    world.run(Duration::from_secs(600));
    assert_eq!(world.availabilities().len(), 1, "{:?}", world.availabilities());
    assert!(!world.readings.iter().any(|(_, reading)| matches!(reading, Reading::Lost { .. })));
}

#[test]
fn a_bulb_that_another_node_owns_is_still_watched_for_being_reachable() {
    let mut world = World::new();
    world.loss = 0.3;
    world.run(Duration::from_secs(600));
    assert_eq!(world.readings.len(), 1, "found once, never lost: {:?}", world.readings);
    world.silent = true;
    world.run(Duration::from_secs(100));
    assert!(matches!(world.readings.last(), Some((_, Reading::Lost { .. }))));
}

#[test]
fn losing_ownership_ends_the_command_and_the_polling() {
    let mut world = World::owning();
    world.silent = true;
    world.light(1, power(false), PATIENCE);
    world.own(false);
    world.run(ms(1));
    let life = world.life_of(1);
    assert!(
        matches!(life.last(), Some(Stage::Failed { reason }) if reason.contains("another node")),
        "{life:?}"
    );
    let asked = world.sent.len();
    world.silent = false;
    world.run(Duration::from_secs(20));
    assert!(!world.sent[asked..].iter().any(|(_, r)| *r == Request::LightGet || r.is_set()));
}
