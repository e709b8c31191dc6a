//! The settings, and the adapter as the node builds it.

use super::*;
use crate::adapter::{AdapterError, Context, SettingsError};
use crate::contract;
use crate::mqtt::config::Broker;

#[test]
fn the_adapter_passes_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn without_a_broker_it_says_what_to_set() {
    let (context, _handle) = Context::channel(8, 8);
    let ended = (REGISTRATION.build)(&json!({})).unwrap().run(context).await;
    let Err(AdapterError::Unconfigured { what, .. }) = ended else { panic!("{ended:?}") };
    assert!(what.contains("`broker`"), "{what}");
}

#[tokio::test]
async fn it_stops_in_time_while_a_broker_does_not_answer() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = json!({ "broker": silent.local_addr().unwrap().to_string() });
    contract::shutdown(&REGISTRATION, &settings, ms(300)).await.unwrap();
}

#[test]
fn a_broker_is_written_in_many_ways() {
    let parse = |text: &str| {
        let config = Config::parse(&REGISTRATION.descriptor, &json!({ "broker": text }));
        config.map(|config| config.broker.unwrap())
    };
    let broker = |tls: bool, host: &str, port: u16| Broker { tls, host: host.to_owned(), port };
    for (text, expected) in [
        ("192.168.1.2", broker(false, "192.168.1.2", 1_883)),
        ("broker.local:1884", broker(false, "broker.local", 1_884)),
        ("mqtt://broker.local/", broker(false, "broker.local", 1_883)),
        ("mqtts://broker.local", broker(true, "broker.local", 8_883)),
        ("mqtts://[2001:db8::1]:9000", broker(true, "2001:db8::1", 9_000)),
        ("2001:db8::1", broker(false, "2001:db8::1", 1_883)),
    ] {
        assert_eq!(parse(text).unwrap(), expected, "{text}");
    }
    assert_eq!(broker(false, "2001:db8::1", 1).to_string(), "[2001:db8::1]:1");
    for bad in ["", "http://x", "mqtt://me:secret@x", "x:0", "x:y", "x y", "[::1", "x/y"] {
        assert!(matches!(parse(bad), Err(SettingsError::Invalid { .. })), "{bad:?} was taken");
    }
}

#[test]
fn a_password_is_never_shown() {
    let config = Config::parse(&REGISTRATION.descriptor, &json!({ "password": "hunter2" })).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let wrong = Config::parse(&REGISTRATION.descriptor, &json!({ "password": ["hunter2"] })).unwrap_err();
    assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
    let long =
        Config::parse(&REGISTRATION.descriptor, &json!({ "password": "hunter2".repeat(1_000) })).unwrap_err();
    assert!(!long.to_string().contains("hunter2"), "{long}");
}

#[test]
fn prefixes_are_topics() {
    for bad in ["", "/a", "a/", "a/#", "a/+/b", "$SYS"] {
        let parsed = Config::parse(&REGISTRATION.descriptor, &json!({ "topic_prefix": bad }));
        assert!(parsed.is_err(), "{bad:?} was taken");
    }
}
