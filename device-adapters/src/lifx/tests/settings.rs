//! The contract of every adapter, and the settings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    let settings = json!({ "bind": "127.0.0.1", "broadcast": [], "addresses": ["127.0.0.1:9"] });
    contract::shutdown(&REGISTRATION, &settings, ms(50)).await.unwrap();
}

#[test]
fn settings_name_the_key_the_value_and_the_rule() {
    let parse = |value| Config::parse(&REGISTRATION.descriptor, &value);
    let refused = |value| parse(value).unwrap_err().to_string();
    assert_eq!(
        parse(json!({ "poll": 1 })).unwrap_err(),
        SettingsError::UnknownKey {
            adapter: "lifx",
            key: "poll".into(),
            known: "addresses, bind, broadcast, clean_minutes, discover_s, interfaces, poll_s".into()
        }
    );
    assert_eq!(
        refused(json!({ "poll_s": 0 })),
        "setting \"poll_s\" of lifx is 0: it must be a number of seconds from 0.5 to 3600"
    );
    assert!(refused(json!({ "clean_minutes": 1_441 })).contains("a whole number from 0 to 1440"));
    assert_eq!(parse(json!({ "clean_minutes": 90 })).unwrap().clean, Duration::from_secs(5_400));
    assert!(refused(json!({ "addresses": ["kitchen"] })).contains("\"kitchen\""));
    assert!(refused(json!({ "addresses": ["10.0.0.1:0"] })).contains("IPv4"));
    assert!(refused(json!({ "addresses": vec!["10.0.0.1"; 257] })).contains("at most 256"));
    for bad in ["", "sixteen-bytes-xx", "a b", "a/b"] {
        assert!(refused(json!({ "interfaces": [bad] })).contains("such as eth0"), "{bad}");
    }
    assert!(refused(json!({ "interfaces": vec!["eth0"; 17] })).contains("at most 16"));
    assert_eq!(parse(json!({ "interfaces": ["eth0", "wlan0"] })).unwrap().interfaces, ["eth0", "wlan0"]);
    let config = parse(json!({ "addresses": ["10.0.0.1", "10.0.0.2:1"], "bind": "10.0.0.9" })).unwrap();
    let addresses: Vec<SocketAddr> = ["10.0.0.1:56700", "10.0.0.2:1"].map(|a| a.parse().unwrap()).into();
    assert_eq!((config.addresses, config.bind), (addresses, "10.0.0.9:0".parse().unwrap()));
    assert_eq!(config.broadcast, ["255.255.255.255:56700".parse().unwrap()]);
}

#[tokio::test]
async fn an_interface_that_is_not_there_is_named() {
    let settings = json!({ "bind": "127.0.0.1", "broadcast": [], "interfaces": ["nowhere0"] });
    let config = Config::parse(&REGISTRATION.descriptor, &settings).unwrap();
    let reason = super::super::sockets::Sockets::open(&config).await.err().unwrap().to_string();
    assert!(reason.contains("nowhere0"), "{reason}");
}
