//! Who is taken for a bridge, and where bridges are looked for.

use std::net::IpAddr;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;
use crate::adapter::Hint;
use crate::http::Origin;
use crate::hue::keys::BridgeId;
use crate::hue::places::{Known, Places};
use crate::hue::tls::{Identity, RefusedCertificate, Verifier, common_name, identify};

const BRIDGE: &str = "001788fffe123456";

fn bridge(id: &str) -> BridgeId {
    BridgeId::parse(id).unwrap()
}

fn certificate(names: &[(DnType, &str)]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, name) in names {
        params.distinguished_name.push(kind.clone(), *name);
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn of_bridge(id: &str) -> CertificateDer<'static> {
    certificate(&[
        (DnType::CountryName, "NL"),
        (DnType::OrganizationName, "Philips Hue"),
        (DnType::CommonName, id),
    ])
}

fn let_in(verifier: &Verifier, certificate: &CertificateDer<'_>) -> Result<(), String> {
    let name = ServerName::try_from(BRIDGE).unwrap();
    let verified =
        verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::since_unix_epoch(ms(0)));
    verified.map(|_| ()).map_err(|error| match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(why)) => why.0.to_string(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn the_common_name_is_the_bridge_id() {
    let certificate = of_bridge(BRIDGE);
    let identity = identify(&certificate).unwrap();
    assert_eq!(identity.id, bridge(BRIDGE));
    assert_eq!(identify(&of_bridge("Philips hue")), Err(RefusedCertificate::NoBridge));
    assert_eq!(identify(&certificate_without_name()), Err(RefusedCertificate::NoBridge));
    let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
    assert!(matches!(identify(&garbage), Err(RefusedCertificate::Unreadable(_))));
}

fn certificate_without_name() -> CertificateDer<'static> {
    certificate(&[(DnType::OrganizationName, BRIDGE)])
}

#[test]
fn two_common_names_or_a_broken_name_are_none() {
    let attribute = |text: &[u8]| {
        let value = [&[0x0c, u8::try_from(text.len()).unwrap()], text].concat();
        let inside = [&[0x06, 3, 0x55, 4, 3], value.as_slice()].concat();
        let sequence = [&[0x30, u8::try_from(inside.len()).unwrap()], inside.as_slice()].concat();
        [&[0x31, u8::try_from(sequence.len()).unwrap()], sequence.as_slice()].concat()
    };
    let one = attribute(BRIDGE.as_bytes());
    assert_eq!(common_name(&one), Some(BRIDGE));
    assert_eq!(common_name(&[one.clone(), one.clone()].concat()), None);
    for length in 0..one.len() {
        assert_eq!(common_name(&one[..length]), None, "cut to {length}");
    }
    for message in contract::hostile_messages(&[one]) {
        let _ = common_name(&message);
    }
}

#[test]
fn the_first_key_is_kept_and_another_refused_with_the_way_out() {
    let (first, other) = (of_bridge(BRIDGE), of_bridge(BRIDGE));
    let verifier = Verifier::new(Some(bridge(BRIDGE)), None);
    let_in(&verifier, &first).unwrap();
    let_in(&verifier, &first).unwrap();
    let why = let_in(&verifier, &other).unwrap_err();
    assert!(why.contains("pair again") && why.contains(BRIDGE), "{why}");
    let Identity { pin, .. } = verifier.seen().unwrap();
    let pinned = Verifier::new(Some(bridge(BRIDGE)), Some(pin));
    assert!(let_in(&pinned, &other).is_err());
    assert_eq!(pinned.seen(), None, "who is refused leaves nothing behind");
    let_in(&pinned, &first).unwrap();
}

#[test]
fn another_bridge_is_refused() {
    let verifier = Verifier::new(Some(bridge(BRIDGE)), None);
    let why = let_in(&verifier, &of_bridge("001788fffe999999")).unwrap_err();
    assert!(why.contains("001788fffe999999") && why.contains(BRIDGE), "{why}");
}

fn hint(address: &str, txt: &[(&str, &str)]) -> Hint {
    Hint {
        service: "_hue._tcp".into(),
        name: "Hue Bridge - 123456".into(),
        addresses: vec![address.parse::<IpAddr>().unwrap()],
        port: 443,
        txt: txt.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

#[test]
fn bridges_are_looked_for_where_they_are_announced() {
    let now = Instant::now();
    let nobody = BTreeSet::new();
    let mut places = Places::new(&[], now);
    assert!(places.is_empty());
    places.hint(&hint("192.0.2.7", &[("bridgeid", BRIDGE), ("modelid", "BSB001")]), now);
    places.hint(&hint("fe80::1", &[]), now);
    assert!(places.is_empty(), "the first generation, and an address that says nothing");
    places.hint(&hint("192.0.2.7", &[("bridgeid", BRIDGE), ("modelid", "BSB002")]), now);
    let probe = places.poll(now, &nobody).unwrap();
    assert_eq!((probe.place.as_str(), probe.expected), ("192.0.2.7:443", Some(bridge(BRIDGE))));
    assert_eq!(places.poll(now, &nobody), None, "it is being asked");
    let identity = identify(&of_bridge(BRIDGE)).unwrap();
    let known = Known { id: identity.id, pin: identity.pin, name: "Hall".into(), origin: probe.origin };
    places.answered(now, &probe.place, Some(known));
    assert_eq!(places.known().len(), 1);
    let served = BTreeSet::from([bridge(BRIDGE)]);
    assert_eq!(places.poll(now + ms(60_000), &served), None, "who is spoken to is not asked who he is");
    assert!(places.poll(now + ms(60_000), &nobody).is_some());
    places.answered(now, &probe.place, None);
    assert_eq!(places.known().len(), 0, "nobody is there any more");
}

#[test]
fn any_number_of_announcements_is_kept_small() {
    let now = Instant::now();
    let configured = Origin { tls: true, ..Origin::plain("192.0.2.1", 443) };
    let mut places = Places::new(&[configured], now);
    for number in 0..=255_u8 {
        places.hint(&hint(&format!("198.51.100.{number}"), &[]), now);
    }
    let asked: Vec<_> = std::iter::from_fn(|| places.poll(now, &BTreeSet::new())).collect();
    assert_eq!(asked.len(), 64);
    for probe in &asked {
        places.answered(now, &probe.place, None);
    }
    places.hint(&hint("203.0.113.1", &[]), now);
    let next = places.poll(now, &BTreeSet::new()).unwrap();
    assert_eq!(next.place, "203.0.113.1:443", "it takes the place of one that nobody stands behind");
    assert!(
        places.poll(now + ms(60_000), &BTreeSet::new()).is_some_and(|probe| probe.place == "192.0.2.1:443")
    );
}
