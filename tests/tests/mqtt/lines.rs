//! Brokers that refuse, fall silent, go away and come back.

use super::*;
use hearth_tests::fakes::zigbee::STATE;

#[tokio::test]
async fn a_wrong_password_is_refused_and_the_right_one_is_let_in() {
    let broker = Mosquitto::with_password("hearth", "right").await.unwrap();
    for settings in [json!({}), json!({ "username": "hearth", "password": "wrong-secret" })] {
        let error = start(&broker, settings).ends().await.unwrap_err();
        let AdapterError::Refused { what, .. } = &error else { panic!("{error:?}") };
        assert!(
            what.contains(&broker.address()) && what.contains("`password`") && !what.contains("wrong-secret"),
            "{what}"
        );
    }
    let rig =
        start(&broker, json!({ "username": "hearth", "password": "right", "topic_prefix": "home/one" }));
    // It is there when it says so: to whoever else may come in.
    let mut probe = broker_says(&broker, "home/one/status").await;
    assert_eq!(probe.recv().await.as_deref(), Some("online"));
    rig.stop().await;
    assert_eq!(probe.recv().await.as_deref(), Some("offline"));
}

/// What is told at a topic of a broker with a password.
async fn broker_says(broker: &Mosquitto, topic: &str) -> tokio::sync::mpsc::Receiver<String> {
    let port = broker.address().rsplit(':').next().unwrap().to_owned();
    let mut options =
        rumqttc::MqttOptions::new("probe", rumqttc::Broker::tcp("127.0.0.1", port.parse().unwrap()));
    options.set_credentials("hearth", "right");
    let (client, mut connection) = rumqttc::AsyncClient::builder(options).capacity(8).build();
    client.subscribe(topic, rumqttc::QoS::AtLeastOnce).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        let _client = client;
        while let Ok(event) = connection.poll().await {
            if let rumqttc::Event::Incoming(rumqttc::Incoming::Publish(publish)) = event
                && sender.send(String::from_utf8_lossy(&publish.payload).into_owned()).await.is_err()
            {
                return;
            }
        }
    });
    receiver
}

#[tokio::test]
async fn a_broker_that_is_away_for_a_moment_makes_all_stale_and_then_well_again() {
    let mut broker = Mosquitto::start().await.unwrap();
    let zigbee = Bulb::start(&broker).await.unwrap();
    let mut rig = start(&broker, json!({}));
    rig.found(&bulb()).await;
    rig.own(&bulb(), true).await;
    rig.available(&bulb(), Availability::Online).await;

    broker.stop().await.unwrap();
    let reason = rig.available(&bulb(), Availability::Stale).await;
    assert!(reason.contains(&broker.address()), "{reason}");
    let waiting = rig.command(&bulb(), light(json!({ "on": true })), WITHIN).await;
    broker.again().await.unwrap();
    rig.available(&bulb(), Availability::Online).await;
    // Zigbee2MQTT comes back as well, maybe later, and says so.
    zigbee.announce().await.unwrap();
    assert_eq!(rig.end_of(waiting).await, Stage::Confirmed, "it waited for the broker");
    assert_eq!(zigbee.state()["state"], "ON");
    rig.stop().await;
}

#[tokio::test]
async fn a_broker_that_stays_away_ends_the_run_and_every_command_with_it() {
    let mut broker = Mosquitto::start().await.unwrap();
    let _zigbee = Bulb::start(&broker).await.unwrap();
    let mut rig = start(&broker, json!({}));
    rig.found(&bulb()).await;
    rig.own(&bulb(), true).await;
    rig.available(&bulb(), Availability::Online).await;
    broker.stop().await.unwrap();
    rig.available(&bulb(), Availability::Stale).await;
    let command = rig.command(&bulb(), light(json!({ "on": true })), IN_VAIN).await;
    let stage = rig.end_of(command).await;
    assert!(matches!(&stage, Stage::TimedOut { reason } if reason.contains("no connection")), "{stage:?}");
    let error = rig.ends().await.unwrap_err();
    let AdapterError::Unreachable { what, .. } = &error else { panic!("{error:?}") };
    assert!(what.contains(&broker.address()), "{what}");
}

#[tokio::test]
async fn a_broker_that_hangs_is_noticed() {
    let broker = Mosquitto::start().await.unwrap();
    let zigbee = Bulb::start(&broker).await.unwrap();
    let mut rig = start(&broker, json!({}));
    rig.found(&bulb()).await;
    rig.own(&bulb(), true).await;
    rig.available(&bulb(), Availability::Online).await;
    broker.hold(true).unwrap();
    let command = rig.command(&bulb(), light(json!({ "on": true })), IN_VAIN).await;
    let stage = rig.end_of(command).await;
    assert!(matches!(&stage, Stage::TimedOut { reason } if reason.contains("did not take")), "{stage:?}");
    rig.available(&bulb(), Availability::Stale).await;
    broker.hold(false).unwrap();
    rig.available(&bulb(), Availability::Online).await;
    zigbee.say(STATE, r#"{"state":"OFF"}"#).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn nobody_at_the_address_ends_the_run_with_the_address() {
    let mut broker = Mosquitto::start().await.unwrap();
    broker.stop().await.unwrap();
    let error = start(&broker, json!({})).ends().await.unwrap_err();
    let AdapterError::Unreachable { what, .. } = &error else { panic!("{error:?}") };
    assert!(what.contains(&broker.address()) && what.contains("refused"), "{what}");
    let error = start(&broker, json!({ "broker": broker.address(), "interface": "no-such-link" }))
        .ends()
        .await
        .unwrap_err();
    assert!(matches!(&error, AdapterError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn over_tls_only_the_broker_whose_certificate_is_trusted_is_spoken_to() {
    let broker = Mosquitto::with_tls().await.unwrap();
    let address = format!("mqtts://{}", broker.address());
    let trusted = json!({ "broker": address, "ca": broker.certificate() });
    let mut somebody = broker.client().await.unwrap();
    somebody.subscribe("hearth/status").await.unwrap();
    let rig = start(&broker, trusted);
    assert_eq!(somebody.at("hearth/status").await.unwrap(), "online");
    rig.stop().await;
    assert_eq!(somebody.at("hearth/status").await.unwrap(), "offline");

    let error = start(&broker, json!({ "broker": address })).ends().await.unwrap_err();
    let AdapterError::Unreachable { what, .. } = &error else { panic!("{error:?}") };
    assert!(
        what.contains("certificate") || what.contains("Certificate") || what.contains("UnknownIssuer"),
        "{what}"
    );
    let error =
        start(&broker, json!({ "broker": address, "ca": "/no/such/file.pem" })).ends().await.unwrap_err();
    assert!(
        matches!(&error, AdapterError::Io { what, .. } if what.contains("/no/such/file.pem")),
        "{error:?}"
    );
}
