//! When a run is over, and why; and the steps of pairing.

use super::*;
use crate::adapter::{AdapterError, Directive};
use crate::http::Origin;
use crate::hue::config::Config;
use crate::hue::hub::{Done, Hub};
use crate::hue::keys::{BridgeId, Pin};
use crate::hue::link::{Failure, Link};
use crate::hue::places::Known;
use crate::hue::wire::Paired;

const BRIDGE: &str = "001788fffe123456";
const PLACE: &str = "192.0.2.7:443";

fn hub(settings: Value, now: Instant) -> Hub {
    Hub::new(Config::parse(&REGISTRATION.descriptor, &settings).unwrap(), now)
}

fn known() -> Known {
    Known {
        id: BridgeId::parse(BRIDGE).unwrap(),
        pin: Pin([7; 32]),
        name: "Hall".into(),
        origin: Origin { tls: true, ..Origin::plain("192.0.2.7", 443) },
    }
}

fn probed(hub: &mut Hub, now: Instant, result: Result<Known, Failure>) {
    hub.turn(now);
    hub.done(now, Done::Probed { place: PLACE.to_owned(), result });
}

fn readings(hub: &mut Hub) -> Vec<Reading> {
    std::iter::from_fn(|| hub.poll_reading()).collect()
}

#[tokio::test]
async fn without_a_key_it_stays_as_long_as_somebody_may_be_found() {
    let now = Instant::now();
    let mut nobody = hub(json!({}), now);
    assert!(nobody.verdict(now + ms(600_000)).is_none(), "an announcement may come");
    nobody.hint(now, None);
    assert!(
        matches!(nobody.verdict(now), Some(AdapterError::Unconfigured { what, .. }) if what.contains("addresses"))
    );
    let mut waiting = hub(json!({ "addresses": [PLACE] }), now);
    probed(&mut waiting, now, Ok(known()));
    assert!(waiting.verdict(now + ms(600_000)).is_none(), "a bridge waits to be paired");
}

#[tokio::test]
async fn a_bridge_that_was_set_up_and_does_not_answer_ends_it() {
    let now = Instant::now();
    for settings in [json!({ "addresses": [PLACE] }), json!({ "keys": format!("{BRIDGE}=key") })] {
        let mut hub = hub(settings, now);
        probed(&mut hub, now, Err(Failure::Broken("connection refused".into())));
        assert!(hub.verdict(now + ms(9_900)).is_none());
        let error = hub.verdict(now + ms(10_000)).unwrap();
        assert!(
            matches!(&error, AdapterError::Unreachable { .. }) && error.to_string().contains("refused"),
            "{error}"
        );
        hub.handle_directive(now, Directive::Pair { until: now + ms(30_000) });
        assert!(hub.verdict(now + ms(20_000)).is_none(), "somebody stands before the bridge");
    }
}

#[tokio::test]
async fn an_impostor_alone_ends_it_and_beside_the_bridge_does_not() {
    let now = Instant::now();
    let pin = "07".repeat(32);
    let settings = json!({ "addresses": [PLACE], "keys": format!("{BRIDGE}=key@{pin}") });
    let impostor = Known { pin: Pin([8; 32]), ..known() };
    let mut alone = hub(settings.clone(), now);
    probed(&mut alone, now, Ok(impostor.clone()));
    assert!(alone.verdict(now + ms(2_000)).is_none(), "the bridge itself may answer yet");
    let error = alone.verdict(now + ms(3_000)).unwrap();
    assert!(matches!(&error, AdapterError::Refused { what, .. } if what.contains(PLACE)), "{error}");
    let mut beside = hub(settings, now);
    probed(&mut beside, now, Ok(known()));
    beside.done(now, Done::Probed { place: PLACE.to_owned(), result: Ok(impostor) });
    assert!(beside.verdict(now + ms(5_000)).is_none());
}

#[tokio::test]
async fn a_pairing_asks_every_second_and_keeps_what_it_learnt() {
    let began = Instant::now();
    let mut hub = hub(json!({ "addresses": [PLACE] }), began);
    probed(&mut hub, began, Ok(known()));
    hub.handle_directive(began, Directive::Pair { until: began + ms(5_000) });
    let mut asked = 0;
    for step in 0..30 {
        let now = began + ms(step * 100);
        let before = hub.work.len();
        hub.turn(now);
        if hub.work.len() > before {
            asked += 1;
            hub.done(now, Done::Paired { known: known(), result: Ok(Paired::NotPressed) });
        }
    }
    assert_eq!(asked, 3);
    let said = readings(&mut hub);
    assert!(
        matches!(&said[..], [Reading::Pairing { is_over: false, detail }] if detail.contains("press the button") && detail.contains("Hall")),
        "{said:?}"
    );
    let key = crate::adapter::Secret("the-key".into());
    hub.done(began + ms(3_000), Done::Paired { known: known(), result: Ok(Paired::Key(key)) });
    let said = readings(&mut hub);
    let [Reading::Learnt { setting: "keys", value }, Reading::Pairing { is_over: true, .. }] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!(value.0, format!("{BRIDGE}=the-key@{}", "07".repeat(32)));
    assert!(hub.verdict(began + ms(6_000)).is_none());
}

#[tokio::test]
async fn a_pairing_in_vain_says_what_to_do() {
    let now = Instant::now();
    let pair = |hub: &mut Hub| {
        hub.handle_directive(now, Directive::Pair { until: now + ms(1_000) });
        hub.turn(now);
    };
    let ends_with = |hub: &mut Hub, words: &str| {
        hub.turn(now + ms(1_000));
        let said = readings(hub);
        let last = said.last();
        assert!(
            matches!(last, Some(Reading::Pairing { is_over: true, detail }) if detail.contains(words)),
            "{said:?}"
        );
    };
    let mut nobody = hub(json!({}), now);
    pair(&mut nobody);
    ends_with(&mut nobody, "\"addresses\"");
    let mut refusing = hub(json!({ "addresses": [PLACE] }), now);
    probed(&mut refusing, now, Ok(known()));
    pair(&mut refusing);
    refusing.done(now, Done::Paired { known: known(), result: Err(Failure::Broken("too many apps".into())) });
    ends_with(&mut refusing, "too many apps");
}

fn pairing(hub: &mut Hub, now: Instant) -> Vec<String> {
    hub.turn(now);
    let told = |reading| match reading {
        Reading::Pairing { detail, .. } => Some(detail),
        _ => None,
    };
    readings(hub).into_iter().filter_map(told).collect()
}

#[tokio::test]
async fn who_poses_as_a_bridge_that_is_known_is_not_paired_in_its_place() {
    let now = Instant::now();
    let settings = json!({ "addresses": [PLACE], "keys": format!("{BRIDGE}=key@{}", "07".repeat(32)) });
    let mut hub = hub(settings, now);
    probed(&mut hub, now, Ok(Known { pin: Pin([8; 32]), ..known() }));
    hub.handle_directive(now, Directive::Pair { until: now + ms(5_000) });
    let told = pairing(&mut hub, now);
    assert!(told.iter().any(|detail| detail.contains("another machine poses as it")), "{told:?}");
    let asks = hub.work.len();
    assert!(pairing(&mut hub, now + ms(1_000)).is_empty(), "it is told once");
    assert_eq!(hub.work.len(), asks, "it is asked for a key");
    // The bridge itself is back, and its key still opens it.
    probed(&mut hub, now + ms(4_000), Ok(known()));
    assert!(hub.verdict(now + ms(8_000)).is_none());
}

#[tokio::test]
async fn of_two_of_one_name_none_is_paired_unless_the_settings_say_which() {
    let now = Instant::now();
    let rival = Known {
        pin: Pin([8; 32]),
        origin: Origin { tls: true, ..Origin::plain("192.0.2.8", 443) },
        ..known()
    };
    for (addresses, first) in [(json!([]), "one of them poses"), (json!([PLACE]), "press the button")] {
        let mut hub = hub(json!({ "addresses": addresses }), now);
        for address in ["192.0.2.7", "192.0.2.8"] {
            hub.hint(now, Some(&announced(address, BRIDGE)));
        }
        probed(&mut hub, now, Ok(known()));
        hub.done(now, Done::Probed { place: "192.0.2.8:443".into(), result: Ok(rival.clone()) });
        hub.handle_directive(now, Directive::Pair { until: now + ms(5_000) });
        let told = pairing(&mut hub, now);
        assert!(told.iter().any(|detail| detail.contains(first)), "{told:?}");
        assert!(told.iter().any(|detail| detail.contains("192.0.2.8")), "{told:?}");
        // A key of one that is not believed any more is dropped.
        let key = Paired::Key(crate::adapter::Secret("the-key".into()));
        hub.done(now, Done::Paired { known: rival.clone(), result: Ok(key) });
        let said = readings(&mut hub);
        assert!(!said.iter().any(|reading| matches!(reading, Reading::Learnt { .. })), "{said:?}");
    }
}

fn announced(address: &str, bridge: &str) -> crate::adapter::Hint {
    crate::adapter::Hint {
        service: "_hue._tcp".into(),
        name: "Hue Bridge".into(),
        addresses: vec![address.parse().unwrap()],
        port: 443,
        txt: [("bridgeid".to_owned(), bridge.to_owned())].into(),
    }
}

#[tokio::test]
async fn who_answers_as_another_bridge_than_was_announced_is_not_paired() {
    let now = Instant::now();
    let mut hub = hub(json!({}), now);
    hub.hint(now, Some(&announced("192.0.2.7", "001788fffe999999")));
    probed(&mut hub, now, Ok(known()));
    hub.handle_directive(now, Directive::Pair { until: now + ms(5_000) });
    let told = pairing(&mut hub, now);
    assert!(
        told.iter().any(|detail| detail.contains("announced as the bridge 001788fffe999999")),
        "{told:?}"
    );
    hub.turn(now + ms(5_000));
    let said = readings(&mut hub);
    assert!(
        matches!(said.last(), Some(Reading::Pairing { is_over: true, detail }) if detail.contains("announced as")),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_bridge_that_refused_is_asked_again_where_it_answers() {
    let now = Instant::now();
    let elsewhere = Origin { tls: true, ..Origin::plain("192.0.2.8", 443) };
    for origin in [known().origin, elsewhere] {
        let settings = json!({ "addresses": [PLACE], "keys": format!("{BRIDGE}=key@{}", "07".repeat(32)) });
        let mut hub = hub(settings, now);
        hub.hint(now, Some(&announced("192.0.2.8", BRIDGE)));
        probed(&mut hub, now, Ok(known()));
        let (bridge, route) = (known().id, crate::net::Route::default());
        let client = Link::new(known().origin, route, Some(bridge), Some(known().pin)).unwrap().client();
        let result = Err(Failure::OtherKey("another machine poses as it".into()));
        hub.done(now, Done::Asked { bridge, number: 1, client, result });
        let error = hub.verdict(now).unwrap();
        assert!(matches!(&error, AdapterError::Refused { what, .. } if what.contains("poses")), "{error}");
        let place = origin.to_string();
        hub.done(now, Done::Probed { place, result: Ok(Known { origin, ..known() }) });
        assert!(hub.verdict(now).is_none(), "it is spoken to again");
    }
}
