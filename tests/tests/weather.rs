//! The adapters of weather services against fakes of both services: every rule that a user, or a service, would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use device_adapters::contract::{self, Ignores, Peer};
use device_adapters::model::{
    Availability, Capabilities, Change, Condition, DeviceId, Forecast, Measurement, Stage,
};
use device_adapters::{AdapterError, Reading, find};
use hearth_tests::fakes::running::{Running, until};
use hearth_tests::fakes::weather::{
    Asked, BEGIN, Mode, Service, Weather, met_norway, misbehaviour, open_meteo,
};
use hearth_tests::python::peer;
use serde_json::{Value, json};
use tokio::time::Instant;

const CONTACT: &str = "tests@hearth.example";
/// The beginning of the hour in which the fakes begin.
const HOUR_OF_BEGIN: i64 = BEGIN - 266;

fn id(service: Service) -> &'static str {
    match service {
        Service::OpenMeteo => "open_meteo",
        Service::MetNorway => "met_norway",
    }
}

fn device(service: Service) -> DeviceId {
    DeviceId::new(format!("{}-home", id(service).replace('_', "-"))).unwrap()
}

/// A place in the middle of the house, and 0.6 s between two requests.
fn settings(service: Service, url: &str) -> Value {
    let mut settings = json!({
        "latitude": 59.913_868_9, "longitude": 10.752_245_4, "name": "Oslo", "contact": CONTACT,
        "url": url, "refresh_minutes": 0.01
    });
    if service == Service::MetNorway {
        settings["time_zone"] = json!("Europe/Oslo");
    }
    settings
}

/// The adapter, and the service that it asks.
struct Rig {
    fake: Weather,
    device: DeviceId,
    running: Running,
}

impl Rig {
    async fn new(service: Service) -> Self {
        Self::with(service, json!({})).await
    }

    async fn with(service: Service, more: Value) -> Self {
        let fake = Weather::start(service).await.unwrap();
        let mut settings = settings(service, &fake.url());
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let running = Running::start(id(service), &settings);
        Self { fake, device: device(service), running }
    }

    async fn owning(service: Service) -> Self {
        let mut rig = Self::new(service).await;
        rig.own(true).await;
        rig.available(Availability::Online).await;
        rig
    }

    async fn own(&self, owned: bool) {
        self.running.own(&self.device, owned).await;
    }

    async fn available(&mut self, wanted: Availability) -> String {
        self.running.available(&self.device, wanted).await
    }

    async fn measured(&mut self) -> BTreeMap<String, Measurement> {
        self.running.measured(&self.device).await
    }

    async fn forecast(&mut self) -> Forecast {
        let pick = |reading: &Reading| match reading {
            Reading::Forecast { forecast, .. } => Some(forecast.clone()),
            _ => None,
        };
        self.running.next("a forecast", pick).await
    }

    /// Waits until the service was asked so often in all.
    async fn until_asked(&self, times: usize) {
        until(|| self.fake.asked().len() >= times).await;
    }

    /// The times between requests.
    fn gaps(&self) -> Vec<Duration> {
        self.fake.asked().windows(2).map(|two| two[1].at - two[0].at).collect()
    }
}

/// A fake as the check of every adapter wants it.
struct Checked {
    fake: Weather,
    service: Service,
}

impl Checked {
    /// Requests but those that it asked for itself, because what it has moved.
    fn first_asked(&self) -> impl Iterator<Item = Asked> {
        self.fake.asked().into_iter().filter(|asked| !asked.path.starts_with("/moved"))
    }
}

impl Peer for Checked {
    fn device(&self) -> DeviceId {
        device(self.service)
    }

    fn changes(&self) -> Vec<Change> {
        Vec::new()
    }

    async fn ignore(&mut self) -> Ignores {
        Ignores::Nothing("a weather service takes no commands")
    }

    async fn silence(&mut self) {
        self.fake.set(Mode::Silent);
    }

    async fn recover(&mut self) {
        self.fake.set(Mode::Good);
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        let mode = misbehaviour(number);
        let is_one = mode.is_some();
        self.fake.set(mode.unwrap_or(Mode::Good));
        is_one
    }

    fn asked(&self) -> Vec<Instant> {
        self.first_asked().map(|asked| asked.at).collect()
    }

    /// 0.3 s between two while all is well; 0.03 s after a failure, and then twice as long each time.
    fn most_a_second(&self) -> usize {
        6
    }

    /// It is there by its settings, so nothing needs to be asked to find it.
    fn touched(&self) -> usize {
        self.fake.asked().len()
    }
}

async fn keeps_the_contract(service: Service) {
    let mut peer = Checked { fake: Weather::start(service).await.unwrap(), service };
    let mut settings = settings(service, &peer.fake.url());
    settings["refresh_minutes"] = json!(0.005); // thirty wrong answers wait for pauses that it sets
    contract::live(find(id(service)).unwrap(), &settings, &mut peer).await.unwrap();
}

#[tokio::test]
async fn open_meteo_keeps_the_contract() {
    keeps_the_contract(Service::OpenMeteo).await;
}

#[tokio::test]
async fn met_norway_keeps_the_contract() {
    keeps_the_contract(Service::MetNorway).await;
}

#[tokio::test]
async fn the_weather_is_there_by_its_settings_and_asked_for_when_owned() {
    for service in [Service::OpenMeteo, Service::MetNorway] {
        let mut rig = Rig::new(service).await;
        let found = rig.running.found(&rig.device).await;
        assert_eq!((found.name.as_str(), found.id.clone()), ("Oslo", rig.device.clone()));
        assert_eq!(found.address, Some(rig.fake.address().to_string()));
        let Capabilities::Weather(weather) = &found.capabilities else { panic!("{found:?}") };
        assert!(weather.attribution.contains("CC BY 4.0") && weather.attribution.contains("https://"));
        let refused = rig.running.change(&rig.device, Change::Switch { on: true }).await;
        assert!(
            matches!(&refused, Stage::Failed { reason } if reason.contains("does not own")),
            "{refused:?}"
        );
        assert!(rig.fake.asked().is_empty(), "a service of another board was asked");
        rig.own(true).await;
        assert_eq!(rig.available(Availability::Online).await, "the service answers");
        let values = rig.measured().await;
        assert_eq!(values.keys().collect::<Vec<_>>(), found.sensors.keys().collect::<Vec<_>>());
        let unknown = values.values().find(|value| matches!(value, Measurement::Unknown(_)));
        assert_eq!(unknown, None);
        let forecast = rig.forecast().await;
        assert_eq!(forecast.hourly.len(), 48);
        assert_eq!(forecast.hourly[0].at, HOUR_OF_BEGIN);
        assert!(forecast.daily.len() >= 9, "{}", forecast.daily.len());
        rig.running.stop().await;
    }
}

#[tokio::test]
async fn met_norway_is_asked_as_its_terms_want_it() {
    let mut rig = Rig::with(Service::MetNorway, json!({ "altitude": 23.4 })).await;
    rig.own(true).await;
    rig.available(Availability::Online).await;
    let asked = rig.fake.asked().remove(0);
    assert_eq!(asked.path, "/locationforecast/2.0/complete?lat=59.9139&lon=10.7522&altitude=23");
    assert!(asked.headers["user-agent"].starts_with("hearth/"), "{asked:?}");
    assert!(asked.headers["user-agent"].ends_with(CONTACT), "{asked:?}");
    assert_eq!(asked.headers["accept-encoding"], "gzip");
    assert!(!asked.headers.contains_key("if-modified-since"));
    assert!(rig.fake.sent() < 20_000, "it was not compressed: {}", rig.fake.sent());
    let values = rig.measured().await;
    let air = met_norway::temperature(HOUR_OF_BEGIN);
    assert_eq!(values["temperature"], Measurement::Number(air));
    assert_eq!(values["humidity"], Measurement::Number(49.0));
    assert_eq!(values["uv_index"], Measurement::Number(4.7));
    assert_eq!(values["precipitation"], Measurement::Number(0.2));
    assert_eq!(values["condition"], Measurement::Text("rainy".into()));
    let forecast = rig.forecast().await;
    assert_eq!(forecast.hourly[1].temperature, Some(air + 0.5));
    // From local midnight, 22:00 in UTC, to the next: all hours of the day.
    let tomorrow = forecast.daily[1];
    assert_eq!(tomorrow.at, HOUR_OF_BEGIN + 9 * 3_600);
    assert_eq!((tomorrow.low, tomorrow.high), (Some(10.0), Some(21.5)));
    assert_eq!((tomorrow.precipitation, tomorrow.condition), (Some(4.8), Some(Condition::Rainy)));
    let later = forecast.daily[5];
    assert_eq!((later.low, later.high), (Some(7.0), Some(22.0)), "with what lies between the steps");
    assert_eq!(later.condition, Some(Condition::PartlyCloudy));
    rig.running.stop().await;
}

#[tokio::test]
async fn open_meteo_is_asked_for_our_units() {
    let mut rig = Rig::with(Service::OpenMeteo, json!({ "api_key": open_meteo::KEY })).await;
    rig.own(true).await;
    let values = rig.measured().await;
    let asked = rig.fake.asked().remove(0);
    assert_eq!(asked.parameter("latitude"), Some("59.9139"));
    assert_eq!(asked.parameter("longitude"), Some("10.7522"));
    assert_eq!(asked.parameter("apikey"), Some(open_meteo::KEY));
    assert_eq!(values["wind_speed"], Measurement::Number(3.0), "metres a second");
    assert_eq!(values["apparent_temperature"], Measurement::Number(12.9));
    assert_eq!(values["condition"], Measurement::Text("rainy".into()));
    let forecast = rig.forecast().await;
    assert_eq!(forecast.daily.len(), 10);
    let today = forecast.daily[0];
    assert_eq!(today.at, HOUR_OF_BEGIN - 15 * 3_600, "midnight in Berlin");
    assert_eq!((today.low, today.high, today.precipitation), (Some(12.7), Some(24.1), Some(3.2)));
    assert_eq!((today.wind_speed, today.condition), (Some(6.0), Some(Condition::Rainy)));
    rig.running.stop().await;
}

#[tokio::test]
async fn a_key_that_is_refused_is_told_without_being_shown() {
    let mut rig = Rig::with(Service::OpenMeteo, json!({ "api_key": "geheim-0815" })).await;
    rig.own(true).await;
    let reason = rig.available(Availability::Offline).await;
    assert!(reason.contains("400 (Bad Request): The supplied API key '…' is invalid."), "{reason}");
    assert!(!format!("{:?}", rig.running.seen).contains("geheim"));
    rig.running.stop().await;
}

#[tokio::test]
async fn an_answer_is_not_asked_for_before_it_expires_and_then_by_its_date() {
    let mut rig = Rig::new(Service::MetNorway).await;
    rig.fake.holds(3);
    rig.own(true).await;
    rig.measured().await;
    rig.until_asked(3).await;
    for gap in rig.gaps() {
        assert!(gap >= Duration::from_secs(3), "asked again after {gap:?}");
    }
    let asked = rig.fake.asked();
    let modified = met_norway::date(BEGIN - 60);
    assert_eq!(asked[1].headers["if-modified-since"], modified);
    rig.fake.holds(0);
    rig.fake.renew(5.0);
    // What was unchanged was no news: the next is what is new.
    let values = rig.measured().await;
    assert_eq!(values["temperature"], Measurement::Number(met_norway::temperature(HOUR_OF_BEGIN) + 5.0));
    rig.running.stop().await;
}

#[tokio::test]
async fn the_hour_is_that_of_the_service_whatever_the_clock_of_the_board() {
    let mut rig = Rig::owning(Service::MetNorway).await;
    assert_eq!(rig.forecast().await.hourly[0].at, HOUR_OF_BEGIN);
    // Its data stays, its clock moves on: only 304 comes from now on, and what was expected becomes now.
    rig.fake.pass(2 * 3_600);
    let values = rig.measured().await;
    assert_eq!(values["temperature"], Measurement::Number(met_norway::temperature(HOUR_OF_BEGIN) + 1.0));
    assert_eq!(rig.forecast().await.hourly[0].at, HOUR_OF_BEGIN + 2 * 3_600);
    rig.running.stop().await;
}

#[tokio::test]
async fn a_service_that_has_enough_is_left_alone_as_long_as_it_asks() {
    let mut rig = Rig::owning(Service::MetNorway).await;
    let before = rig.fake.asked().len();
    rig.fake.set(Mode::Status(429, vec![("Retry-After", "3".into())], String::new()));
    let reason = rig.available(Availability::Stale).await;
    // 13:04 in UTC, and summer in Oslo.
    assert!(reason.starts_with("last answer of 15:04, now: 127.0.0.1:"), "{reason}");
    assert!(reason.contains("429 (Too Many Requests): it is asked too often"), "{reason}");
    rig.fake.set(Mode::Good);
    let began = rig.fake.asked().len();
    rig.available(Availability::Online).await;
    let gap = rig.gaps()[began - 1];
    assert!(began > before && gap >= Duration::from_secs(3), "asked again after {gap:?}");
    rig.running.stop().await;
}

#[tokio::test]
async fn a_service_that_fails_is_asked_less_and_less() {
    let mut rig = Rig::owning(Service::OpenMeteo).await;
    rig.fake.set(Mode::Status(503, vec![], String::new()));
    rig.available(Availability::Stale).await;
    let began = rig.fake.asked().len();
    rig.until_asked(began + 5).await;
    let gaps = &rig.gaps()[began - 1..];
    // 60, 120, 240, 480, 960 ms, and up to a quarter more.
    for (index, gap) in gaps.iter().enumerate().take(5) {
        let least = Duration::from_millis(60 << index);
        assert!(*gap >= least, "pause {index} was {gap:?}");
    }
    rig.running.stop().await;
}

#[tokio::test]
async fn who_is_refused_asks_seldom_and_says_what_to_do() {
    let mut rig = Rig::new(Service::MetNorway).await;
    rig.fake.set(Mode::Status(403, vec![], "<html>no</html>".into()));
    rig.own(true).await;
    let reason = rig.available(Availability::Offline).await;
    assert!(
        reason.starts_with("no answer yet: 127.0.0.1:") && reason.contains("403 (Forbidden)"),
        "{reason}"
    );
    assert!(reason.contains("see that `contact` names somebody"), "{reason}");
    rig.until_asked(2).await;
    assert!(rig.gaps()[0] >= Duration::from_millis(2_400), "asked again after {:?}", rig.gaps()[0]);
    rig.running.stop().await;
}

#[tokio::test]
async fn a_reason_that_open_meteo_gives_is_shown() {
    let mut rig = Rig::new(Service::OpenMeteo).await;
    let body = json!({ "error": true, "reason": "Minutely API request limit exceeded. Please try again in one minute." });
    rig.fake.set(Mode::Status(429, vec![], body.to_string()));
    rig.own(true).await;
    let reason = rig.available(Availability::Offline).await;
    assert!(
        reason.ends_with(
            "429 (Too Many Requests): Minutely API request limit exceeded. Please try again in one minute."
        ),
        "{reason}"
    );
    rig.running.stop().await;
}

#[tokio::test]
async fn a_product_that_ends_soon_is_used_and_noted_once() {
    let mut rig = Rig::new(Service::MetNorway).await;
    assert_eq!(rig.running.found(&rig.device).await.note, None);
    rig.fake.set(Mode::As(203));
    rig.own(true).await;
    let noted = |reading: &Reading| match reading {
        Reading::Found { device } => device.note.clone(),
        _ => None,
    };
    let note = rig.running.next("a note", noted).await;
    assert!(note.contains("update Hearth"), "{note}");
    rig.measured().await;
    // Two more answers of that kind, with new data, so that there is something to wait for.
    for warmer in [1.0, 2.0] {
        rig.fake.renew(warmer);
        rig.measured().await;
    }
    let notes = rig.running.seen.iter().filter(|reading| matches!(reading, Reading::Found { .. })).count();
    assert_eq!(notes, 2);
    rig.running.stop().await;
}

#[tokio::test]
async fn half_an_answer_and_an_endless_one_leave_the_last_good_one() {
    let mut rig = Rig::owning(Service::MetNorway).await;
    let sent = rig.fake.sent();
    for (mode, words) in [
        (Mode::Truncated, "broke the protocol"),
        (Mode::Endless(100_000_000), "sent more than 262144 bytes"),
        (Mode::Slow(Duration::from_millis(20)), "no answer from"),
        (Mode::Body("<html>log in</html>".into()), "its answer is not as documented: broken JSON"),
        (Mode::Encoded("gzip", vec![0x1f, 0x8b, 8]), "its compressed answer is broken"),
    ] {
        // New data, or the answer is one line that says that nothing is new.
        rig.fake.renew(1.0);
        rig.fake.set(mode.clone());
        let reason = rig
            .running
            .next("a reason", |reading| match reading {
                Reading::Availability { availability: Availability::Stale, reason, .. } => {
                    reason.contains(words).then(|| reason.clone())
                }
                _ => None,
            })
            .await;
        assert!(reason.starts_with("last answer of "), "{mode:?}: {reason}");
    }
    assert!(
        rig.fake.sent() - sent < 20_000_000,
        "{} bytes of an endless answer were taken",
        rig.fake.sent() - sent
    );
    // Asked for, the last good answer is told.
    rig.running.refresh(&rig.device).await;
    assert_eq!(
        rig.measured().await["temperature"],
        Measurement::Number(met_norway::temperature(HOUR_OF_BEGIN))
    );
    rig.fake.set(Mode::Good);
    rig.available(Availability::Online).await;
    rig.running.stop().await;
}

#[tokio::test]
async fn whoever_looks_at_the_weather_does_not_burden_the_service() {
    let mut rig = Rig::with(Service::OpenMeteo, json!({ "refresh_minutes": 5 })).await;
    rig.own(true).await;
    rig.measured().await;
    for _ in 0..50 {
        rig.running.refresh(&rig.device).await;
        rig.measured().await;
    }
    for owned in [false, true, false, true] {
        rig.own(owned).await;
    }
    rig.forecast().await;
    assert_eq!(rig.fake.asked().len(), 1);
    rig.running.stop().await;
}

#[tokio::test]
async fn a_service_that_moves_on_its_server_is_followed() {
    for service in [Service::OpenMeteo, Service::MetNorway] {
        let mut rig = Rig::new(service).await;
        rig.fake.set(Mode::Moves);
        rig.own(true).await;
        rig.available(Availability::Online).await;
        rig.fake.set(Mode::Circles);
        let reason = rig.available(Availability::Stale).await;
        assert!(reason.contains("it has moved to /moved"), "{reason}");
        rig.running.stop().await;
    }
}

#[tokio::test]
async fn a_board_that_reaches_nothing_ends_so_that_another_can_try() {
    let fake = Weather::start(Service::OpenMeteo).await.unwrap();
    let (address, settings) = (fake.address(), settings(Service::OpenMeteo, &fake.url()));
    drop(fake);
    let device = device(Service::OpenMeteo);
    let run = async || {
        let begun = Instant::now();
        let mut running = Running::start("open_meteo", &settings);
        running.own(&device, true).await;
        let reason = running.available(&device, Availability::Offline).await;
        assert!(reason.contains(&address.to_string()), "{reason}");
        let error = running.ends().await.unwrap_err();
        assert!(matches!(&error, AdapterError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("open_meteo: asked 3 times: "), "{error}");
        begun.elapsed()
    };
    run().await;
    // Started again it asks as seldom as before: after 240, 480 and 960 ms.
    let again = run().await;
    assert!(again >= Duration::from_millis(1_680), "it asked three times within {again:?}");
}

#[tokio::test]
async fn the_fake_open_meteo_is_understood_by_a_client_of_somebody_else() {
    let fake = Weather::start(Service::OpenMeteo).await.unwrap();
    let told = peer("weather_open_meteo.py", &[&fake.url()]).await.unwrap();
    assert_eq!(told["temperature"], 13.4);
    assert!(
        (told["wind"].as_f64().unwrap() - 10.8).abs() < 1e-9,
        "kilometres an hour, where nobody asks for more"
    );
    assert_eq!(told["uv_index"], 1.5);
    assert_eq!((told["hours"].as_u64(), told["days"].as_u64()), (Some(7 * 24), Some(7)));
    assert_eq!(told["first_day"], "2020-06-10");
    assert_eq!((told["offset"].as_u64(), &told["zone"]), (Some(7_200), &json!("Europe/Berlin")));
    assert_eq!(told["refused"], "Latitude must be in range of -90 to 90°. Given: 99.0.");
}

#[tokio::test]
async fn the_fake_met_norway_is_understood_by_a_client_of_somebody_else() {
    let fake = Weather::start(Service::MetNorway).await.unwrap();
    let cache = std::env::temp_dir().join(format!("hearth-weather-{}", fake.address().port()));
    let told = peer("weather_met_norway.py", &[&fake.url(), &cache.to_string_lossy()]).await.unwrap();
    let _ = std::fs::remove_dir_all(&cache);
    assert_eq!(told["states"], json!(["Data-Modified", "Data-Not-Modified"]));
    assert_eq!(told["temperature"].as_f64(), Some(met_norway::temperature(HOUR_OF_BEGIN)));
    assert_eq!(told["symbol"], "lightrainshowers_day");
    assert_eq!((told["precipitation"].as_f64(), &told["unit"]), (Some(0.2), &json!("mm")));
    assert_eq!((told["first_hours"].as_f64(), told["last_hours"].as_f64()), (Some(1.0), Some(0.0)));
    assert_eq!(told["refused"], 403, "one that names nobody");
}
