//! Two boards of one household, and what only one of them may do at a time: when it dies, the other has taken over
//! within ten seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hearth_tests::{
    daemon::{Daemon, wait_until},
    emulator::{COLOR_BULB, Emulator},
    fakes::{
        hue::{Bridge, PLUG},
        mosquitto::Mosquitto,
        shelly::Shelly,
        weather::{Service, Weather},
        wled::Wled,
        zigbee::{Bulb, SERIAL},
    },
    takeover::{TAKEOVER, online, owner_and_heir, takes_over, two_nodes, writer},
};

/// Two nodes with this in their configuration files; one dies, and the other commands the device.
async fn by_configuration(adapter: &str, settings: &str, device: &str, reached_by: usize) {
    let (one, two) = two_nodes(&format!("[adapters.{adapter}]\n{settings}")).await.unwrap();
    dies(one, two, device, reached_by).await;
}

/// Two nodes, one of which is told the settings, and the secret on stdin; it need not be the one that dies.
async fn by_command(settings: &[&str], secret: &str, device: &str, reached_by: usize) {
    let (one, two) = two_nodes("").await.unwrap();
    let words = [&["adapter", "set"], settings].concat();
    one.cli_with(&words, secret.as_bytes()).await.unwrap().ok().unwrap();
    dies(one, two, device, reached_by).await;
}

async fn dies(one: Daemon, two: Daemon, device: &str, reached_by: usize) {
    let (owner, heir) = owner_and_heir(one, two, device, reached_by).await.unwrap();
    takes_over(owner, &heir, device).await.unwrap();
    // What nobody set up on either node is not handed to and fro.
    let rests = heir.log().matches("an adapter rests").count();
    assert!(rests < 60, "adapters came to rest {rests} times");
}

#[tokio::test]
async fn a_lifx_bulb() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let settings = format!(
        "addresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    by_configuration("lifx", &settings, "device/lifx-d073d5000001", 2).await;
}

#[tokio::test]
async fn a_wled_strip() {
    let wled = Wled::start(1, 1).await.unwrap();
    let settings = format!("addresses = [\"{}\"]\n", wled.web.address());
    by_configuration("wled", &settings, &format!("device/wled-{}", Wled::MAC), 2).await;
}

#[tokio::test]
async fn a_shelly_switch_behind_a_password_that_one_node_was_told() {
    let shelly = Shelly::start(Some("correct horse")).await.unwrap();
    let addresses = format!("addresses:=[\"{}\"]", shelly.web.address());
    let device = format!("device/shelly-{}-switch-0", Shelly::MAC);
    by_command(&["shelly", &addresses, "password=-"], "correct horse\n", &device, 2).await;
}

#[tokio::test]
async fn a_hue_plug_with_the_key_that_one_node_was_told() {
    let bridge = Bridge::start("ecb5fafffe123456").await.unwrap();
    let addresses = format!("addresses:=[\"{}\"]", bridge.address());
    let device = format!("device/hue-{}", PLUG.replace('-', ""));
    by_command(&["hue", &addresses, "keys=-"], &bridge.paired(), &device, 1).await;
}

#[tokio::test]
async fn a_bulb_at_a_broker_whose_password_one_node_was_told() {
    let broker = Mosquitto::with_password("hearth", "right").await.unwrap();
    let _bulb = Bulb::start(&broker).await.unwrap();
    let address = format!("broker={}", broker.address());
    let device = format!("device/mqtt-{SERIAL}-light-zigbee2mqtt");
    by_command(&["mqtt", &address, "username=hearth", "password=-"], "right\n", &device, 1).await;
}

/// The survivor is the one that asks the service, and tells what it says.
async fn weather_goes_on(service: Service, adapter: &str, device: &str) {
    let fake = Weather::start(service).await.unwrap();
    let settings = format!(
        "latitude = 59.9139\nlongitude = 10.7522\ncontact = \"tests@hearth.example\"\nurl = \"{}\"\nrefresh_minutes = 0.01\n",
        fake.url()
    );
    let (one, two) = two_nodes(&format!("[adapters.{adapter}]\n{settings}")).await.unwrap();
    let (mut owner, heir) = owner_and_heir(one, two, device, 1).await.unwrap();
    let id = heir.id().await.unwrap();
    let temperature =
        async || heir.fields(device).await.unwrap()["readings"]["temperature"]["value"].as_f64();
    wait_until("it tells how warm it is", TAKEOVER, async || Ok(temperature().await.is_some()))
        .await
        .unwrap();
    let before = temperature().await.unwrap();
    owner.kill().await.unwrap();
    fake.renew(5.0);
    wait_until("the survivor tells how warm it became", TAKEOVER, async || {
        let is_news = temperature().await.is_some_and(|now| now > before + 4.0);
        let is_online = heir.fields(device).await?["availability"]["state"] == "online";
        Ok(is_news && is_online && id.starts_with(&writer(&heir, device, "readings").await?))
    })
    .await
    .unwrap();
}

/// Where each node says that the weather service stands.
async fn standings(node: &Daemon) -> Vec<String> {
    let answer = node.json(&["adapter", "show", "open_meteo"]).await.unwrap();
    let on = answer["on"].as_array().into_iter().flatten();
    on.map(|node| node["state"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn settings_that_reach_one_node_after_the_other_start_one_adapter_and_ask_once() {
    let fake = Weather::start(Service::OpenMeteo).await.unwrap();
    let (one, two) = two_nodes("").await.unwrap();
    let url = format!("url={}", fake.url());
    let device = "device/open-meteo-home";
    // Whichever of them is to run it: one hears of the settings first, then the other one.
    for (round, told) in [&one, &two].into_iter().enumerate() {
        for node in [&one, &two] {
            wait_until("both have said that nobody can run it", TAKEOVER, async || {
                let standings = standings(node).await;
                Ok(standings.len() == 2 && standings.iter().all(|state| state != "running"))
            })
            .await
            .unwrap();
        }
        let place = ["adapter", "set", "open_meteo", "latitude=59.91", "longitude=10.75", &url];
        told.cli(&place).await.unwrap().ok().unwrap();
        for node in [&one, &two] {
            online(node, device).await.unwrap();
            wait_until("one runs it, and leaves the other in peace", TAKEOVER, async || {
                let mut standings = standings(node).await;
                standings.sort();
                Ok(standings == ["elsewhere", "running"])
            })
            .await
            .unwrap();
        }
        assert_eq!(fake.asked().len(), round + 1);
        let nowhere = ["adapter", "set", "open_meteo", "--unset", "latitude", "--unset", "longitude"];
        told.cli(&nowhere).await.unwrap().ok().unwrap();
    }
}

#[tokio::test]
async fn the_weather_of_open_meteo() {
    weather_goes_on(Service::OpenMeteo, "open_meteo", "device/open-meteo-home").await;
}

#[tokio::test]
async fn the_weather_of_met_norway() {
    weather_goes_on(Service::MetNorway, "met_norway", "device/met-norway-home").await;
}
