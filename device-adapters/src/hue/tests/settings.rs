//! The contract of every adapter, the settings, and the keys in them.

use proptest::prelude::*;

use super::*;
use crate::adapter::Secret;
use crate::hue::config::Config;
use crate::hue::keys::{BridgeId, Entry, Keyring, Pin};

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    contract::shutdown(&REGISTRATION, &json!({}), ms(50)).await.unwrap();
    contract::shutdown(&REGISTRATION, &json!({ "addresses": ["127.0.0.1:9"] }), ms(50)).await.unwrap();
}

#[test]
fn settings_name_the_key_the_value_and_the_rule() {
    let parse = |value: Value| Config::parse(&REGISTRATION.descriptor, &value);
    let refused = |value: Value| parse(value).unwrap_err().to_string();
    assert!(refused(json!({ "addresses": ["a b"] })).contains("192.168.1.7"));
    assert!(refused(json!({ "addresses": ["me:secret@bridge"] })).contains("IP address"));
    assert!(refused(json!({ "addresses": ["bridge/path"] })).contains("bridge/path"));
    assert!(refused(json!({ "name": "a name that is far too long" })).contains("1 to 19"));
    assert!(refused(json!({ "poll_s": 0 })).contains("from 1 to 3600"));
    assert!(refused(json!({ "interface": "a/b" })).contains("eth0"));
    let config = parse(json!({ "addresses": ["bridge", "192.0.2.7:8443", "2001:db8::1"] })).unwrap();
    let shown: Vec<String> = config.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["bridge:443", "192.0.2.7:8443", "[2001:db8::1]:443"]);
}

#[test]
fn a_wrong_key_is_refused_and_never_shown() {
    let id = "001788fffe000001";
    let pin = "ab".repeat(32);
    let wrong = [
        "SECRET".to_owned(),
        format!("{id}="),
        format!("{id}=SECRET@{}", &pin[1..]),
        format!("{id}=SECRET@"),
        format!("{id}=SECRET {id}=SECRET"),
        "001788fffe00000=SECRET".to_owned(),
        format!("{id}=SEC/RET"),
        format!("{id}={}", "SECRET".repeat(22)),
        (0..17).map(|n| format!("{n:016x}=SECRET")).collect::<Vec<_>>().join(" "),
    ];
    for keys in wrong {
        let error = Config::parse(&REGISTRATION.descriptor, &json!({ "keys": keys })).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("BRIDGEID=KEY@PIN") && !text.contains("SECRET"), "{text}");
    }
    let keys = format!("  001788FFFE000001=SECRET@{pin}\n{:016x}=other-KEY_1 ", 2);
    let config = Config::parse(&REGISTRATION.descriptor, &json!({ "keys": keys })).unwrap();
    let entry = config.keys.get(BridgeId::parse(id).unwrap()).unwrap();
    assert_eq!(entry, &Entry { key: Secret("SECRET".into()), pin: Some(Pin([0xab; 32])) });
    assert!(!format!("{config:?}").contains("SECRET"));
}

proptest! {
    #[test]
    fn keys_come_back(ids in proptest::collection::btree_map(any::<u64>(), ("[A-Za-z0-9-]{1,40}", any::<Option<[u8; 32]>>()), 0..16)) {
        let mut keys = Keyring::default();
        for (id, (key, pin)) in ids {
            let id = BridgeId::parse(&format!("{id:016X}")).unwrap();
            let fits = keys.insert(id, Entry { key: Secret(key), pin: pin.map(Pin) });
            prop_assert!(fits);
        }
        prop_assert_eq!(Keyring::parse(&keys.to_secret().0), Some(keys));
    }

    #[test]
    fn any_text_is_keys_or_refused(text: String) {
        let _ = Keyring::parse(&text);
    }
}
