//! Clients that are confined to a part of the home: two nodes, two bulbs, a wall tablet for one room and a switch for one lamp.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hearth_tests::{
    daemon::{Client, Daemon, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use serde_json::{Value, json};

const BULBS: [&str; 2] = ["device/lifx-d073d5000001", "device/lifx-d073d5000002"];
const NAMES: [&str; 2] = ["lifx-d073d5000001", "lifx-d073d5000002"];

/// The first bulb is in the kitchen, the second in the hall.
struct Home {
    _emulator: Emulator,
    one: Daemon,
    two: Daemon,
}

impl Home {
    async fn new() -> Self {
        let emulator = Emulator::start(&[COLOR_BULB; 2]).await.unwrap();
        let one = plan("one", &emulator).start().await.unwrap();
        let two = one.joined_by(plan("two", &emulator)).await.unwrap();
        for node in [&one, &two] {
            for bulb in BULBS {
                let there = wait_until("the bulb is there", PATIENCE, async || {
                    let bulb = node.fields(bulb).await?;
                    Ok(bulb["availability"]["state"] == "online" && bulb["reported"].is_object())
                });
                there.await.unwrap();
            }
        }
        let home = Self { _emulator: emulator, one, two };
        for (name, area) in NAMES.into_iter().zip(["Kitchen", "Hall"]) {
            home.moves(name, area).await;
        }
        home
    }

    /// Moves a device, and waits until both nodes know.
    async fn moves(&self, name: &str, area: &str) {
        self.one.cli(&["device", "move", name, area]).await.unwrap().ok().unwrap();
        for node in [&self.one, &self.two] {
            let moved = wait_until("the device is there", PATIENCE, async || {
                Ok(node.fields(&format!("device/{name}")).await?["area"] == area)
            });
            moved.await.unwrap();
        }
    }

    /// A token that is made on the first node; clients of both nodes that know it.
    async fn token(&self, words: &[&str]) -> (Value, [Client; 2]) {
        let all: Vec<&str> = ["token", "create"].iter().chain(words).copied().collect();
        let made = self.one.json(&all).await.unwrap();
        let token = made["token"].as_str().unwrap();
        let clients = [self.one.web(Some(token)).await.unwrap(), self.two.web(Some(token)).await.unwrap()];
        let known = wait_until("the other node knows the token", PATIENCE, async || {
            Ok(clients[1].get("/api/v1/time").await?.status == 200)
        });
        known.await.unwrap();
        (made, clients)
    }
}

/// A node that knows the time.
fn plan(name: &str, emulator: &Emulator) -> Plan {
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    Plan::new(name).config(config).variable("HEARTH_CLOCK", "trusted")
}

fn ids(answer: &Value, list: &str) -> Vec<String> {
    let objects = answer[list].as_array().unwrap().iter();
    objects.map(|object| object["id"].as_str().unwrap().to_owned()).collect()
}

async fn get(client: &Client, path: &str) -> Value {
    client.get(path).await.unwrap().success().unwrap()
}

async fn refused(client: &Client, method: &str, path: &str, body: &Value) -> (u16, String) {
    let body = Some(body).filter(|body| !body.is_null());
    let answer = client.send(method, path, body).await.unwrap();
    (answer.status, answer.problem().unwrap())
}

#[tokio::test]
async fn a_wall_tablet_sees_the_lamp_of_its_room_on_every_node_and_nothing_else() {
    let home = Home::new().await;
    home.one.put("note/diary", json!({"text": "private"})).await.unwrap();
    home.two.converge("note/diary", &json!({"text": "private"})).await.unwrap();
    let words = ["--role", "viewer", "--label", "wall tablet", "--area", "kitchen", "--expires", "90d"];
    let (made, clients) = home.token(&words).await;
    assert_eq!(made["scope"], json!({"areas": ["Kitchen"], "devices": [], "prefixes": []}));
    assert!(made["expires"].is_string(), "{made}");
    for client in &clients {
        assert_eq!(ids(&get(client, "/api/v1/devices").await, "devices"), [BULBS[0]]);
        assert_eq!(ids(&get(client, "/api/v1/objects").await, "objects"), [BULBS[0]]);
        assert_eq!(get(client, &format!("/api/v1/history/{}", NAMES[0])).await["device"], BULBS[0]);
        for (list, path) in [
            ("schedules", "/api/v1/schedules"),
            ("automations", "/api/v1/automations"),
            ("scenes", "/api/v1/scenes"),
            ("adapters", "/api/v1/adapters"),
        ] {
            assert_eq!(get(client, path).await[list], json!([]), "{path}");
        }
        for path in [
            format!("/api/v1/objects/{}", BULBS[1]),
            "/api/v1/objects/note/diary".to_owned(),
            format!("/api/v1/devices/{}", NAMES[1]),
            format!("/api/v1/history/{}", NAMES[1]),
            "/api/v1/adapters/lifx".to_owned(),
        ] {
            assert_eq!(
                refused(client, "GET", &path, &Value::Null).await,
                (404, "not-found".into()),
                "{path}"
            );
        }
        for path in ["/metrics", "/api/v1/doctor", "/api/v1/tokens", "/api/v1/export", "/api/v1/backup"] {
            assert_eq!(client.get(path).await.unwrap().status, 403, "{path}");
        }
        let status = get(client, "/api/v1/status").await;
        assert!(status["nodes"].is_null() && status["api"].is_null(), "{status}");
        let command = json!({"device": BULBS[0], "change": {"on": true}});
        assert_eq!(refused(client, "POST", "/api/v1/commands", &command).await, (403, "forbidden".into()));
    }
    let listed = wait_until("its last use is shown on both nodes", PATIENCE, async || {
        let mut used = true;
        for node in [&home.one, &home.two] {
            let tokens = node.json(&["token", "list"]).await?;
            let tablet =
                tokens["tokens"].as_array().and_then(|list| list.iter().find(|t| t["id"] == made["id"]));
            used &= tablet.is_some_and(|tablet| {
                tablet["used"].is_string() && tablet["by"].as_str().is_some_and(|by| by.starts_with("socket"))
            });
        }
        Ok(used)
    });
    listed.await.unwrap();
    let shown = home.two.cli(&["token", "list"]).await.unwrap().ok().unwrap().stdout;
    assert!(shown.contains("wall tablet") && shown.contains("area Kitchen"), "{shown}");
}

#[tokio::test]
async fn an_observer_follows_its_room_through_every_move() {
    let home = Home::new().await;
    let (_, clients) = home.token(&["--role", "viewer", "--area", "KITCHEN"]).await;
    let mut observers = Vec::new();
    for client in &clients {
        let mut observer = client.watch().await.unwrap();
        let (objects, reset) = observer.subscribe(&[""], None).await.unwrap();
        assert!(reset && observer.resume.is_none());
        let seen: Vec<&Value> = objects.iter().map(|told| &told["object"]["id"]).collect();
        assert_eq!(seen, [BULBS[0]]);
        observers.push(observer);
    }
    home.one.put("note/diary", json!({"text": "private"})).await.unwrap();
    home.moves(NAMES[0], "attic").await;
    home.moves(NAMES[1], "kitchen").await;
    for observer in &mut observers {
        let mut has_left = false;
        loop {
            let told = observer.next().await.unwrap();
            assert!(
                !told.to_string().contains("note/diary") && !told.to_string().contains("command/"),
                "{told}"
            );
            assert!(
                told["object"]["id"] != BULBS[1] || told["object"]["fields"]["area"] == "kitchen",
                "{told}"
            );
            has_left |= told == json!({"type": "gone", "id": BULBS[0]});
            if told["object"]["id"] == BULBS[1] {
                break;
            }
        }
        assert!(has_left, "its lamp is gone");
    }
    for client in &clients {
        assert_eq!(ids(&get(client, "/api/v1/devices").await, "devices"), [BULBS[1]]);
    }
}

#[tokio::test]
async fn a_switch_for_one_lamp_switches_it_and_not_its_neighbour() {
    let home = Home::new().await;
    for node in ["lifx-d073d5000001", "lifx-d073d5000002"] {
        home.one.cli(&["group", "add", "all", node]).await.unwrap().ok().unwrap();
    }
    home.one.cli(&["scene", "save", "evening", "all"]).await.unwrap().ok().unwrap();
    let device = ["--role", "operator", "--label", "switch", "--device", NAMES[0], "--prefix", "scene/"];
    let (_, clients) = home.token(&device).await;
    let on =
        |device: &str| json!({"device": device, "change": {"on": true}, "deadline_ms": 20_000, "wait": true});
    for client in &clients {
        let done = client.send("POST", "/api/v1/commands", Some(&on(NAMES[0]))).await.unwrap();
        let done = done.success().unwrap();
        assert_eq!(done["state"], "confirmed", "{done}");
        for (device, status) in [(NAMES[1], 404), (BULBS[1], 404), ("all", 404), ("hall", 404)] {
            let mut command = on(device);
            command["wait"] = json!(false);
            assert_eq!(refused(client, "POST", "/api/v1/commands", &command).await.0, status, "{device}");
        }
        let mut observer = client.watch().await.unwrap();
        for (device, answer) in [(BULBS[1], "error"), (BULBS[0], "command")] {
            let command =
                json!({"type": "command", "device": device, "change": {"on": false}, "ref": device});
            observer.say(&command).await.unwrap();
            let heard = observer.until("the answer", |told| told["ref"] == device).await.unwrap();
            assert_eq!(heard["type"], answer, "{heard}");
        }
        let area = json!({"set": {"area": "Kitchen"}});
        for bulb in BULBS {
            let path = format!("/api/v1/objects/{bulb}");
            assert_eq!(refused(client, "PATCH", &path, &area).await, (403, "out-of-scope".into()));
        }
        let activate = refused(client, "POST", "/api/v1/scenes/evening/activate", &json!({})).await;
        assert_eq!(activate, (403, "out-of-scope".into()));
    }
    let other = home.one.json(&["light", NAMES[1], "on", "--deadline", "20s"]).await.unwrap();
    let id = other["id"].as_str().unwrap();
    for client in &clients {
        let path = format!("/api/v1/commands/{id}");
        assert_eq!(refused(client, "GET", &path, &Value::Null).await.0, 404);
    }
}

#[tokio::test]
async fn what_a_client_may_start_and_switch_off_is_named_by_its_prefixes() {
    let home = Home::new().await;
    let program = json!({"triggers": [{"event": "never"}], "actions": [{"event": "chime"}]});
    let schedule = json!({"when": "cron 0 7 * * *", "do": [{"device": BULBS[1], "change": {"on": true}}]});
    home.one
        .cli(&["home", "set", "--zone", "Europe/Berlin", "--place", "52.52,13.40"])
        .await
        .unwrap()
        .ok()
        .unwrap();
    let admin = home.one.client();
    for name in ["goodnight", "alarm"] {
        for (kind, body) in [("automations", &program), ("schedules", &schedule)] {
            let path = format!("/api/v1/{kind}/{name}");
            let made = admin.send("PUT", &path, Some(body)).await.unwrap();
            assert!(made.status < 300, "{made:?}");
        }
    }
    let words = ["--role", "operator", "--prefix", "automation/good", "--prefix", "schedule/good"];
    let (_, [client, _]) = home.token(&words).await;
    for kind in ["automations", "schedules"] {
        let listed = get(&client, &format!("/api/v1/{kind}")).await;
        let names: Vec<&Value> = listed[kind].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["goodnight"]);
        let hidden = client.get(&format!("/api/v1/{kind}/alarm")).await.unwrap();
        assert_eq!(
            (hidden.status, hidden.json().unwrap()["candidates"].clone()),
            (404, json!(["goodnight"]))
        );
        let switch = json!({"enabled": false});
        let path = format!("/api/v1/{kind}/goodnight");
        let off = client.send("PATCH", &path, Some(&switch)).await.unwrap().success().unwrap();
        assert_eq!(off["enabled"], false);
        let alarm = refused(&client, "PATCH", &format!("/api/v1/{kind}/alarm"), &switch).await;
        assert_eq!(alarm, (403, "out-of-scope".into()));
        let rewritten = refused(&client, "PUT", &path, &json!({})).await;
        assert_eq!(rewritten, (403, "out-of-scope".into()));
    }
    for (path, status) in [("automations/alarm/start", 403), ("automations/goodnight/webhook", 403)] {
        assert_eq!(
            refused(&client, "POST", &format!("/api/v1/{path}"), &json!({})).await.0,
            status,
            "{path}"
        );
    }
    let home_seen = get(&client, "/api/v1/home").await;
    assert_eq!((&home_seen["zone"], &home_seen["latitude"]), (&json!("Europe/Berlin"), &Value::Null));
}

#[tokio::test]
async fn a_token_ends_on_every_node_and_takes_its_observers_with_it() {
    let home = Home::new().await;
    let (made, clients) = home.token(&["--role", "viewer", "--label", "guest", "--expires", "20s"]).await;
    let mut observers = Vec::new();
    for client in &clients {
        let mut observer = client.watch().await.unwrap();
        observer.subscribe(&["note/"], None).await.unwrap();
        observers.push(observer);
    }
    for observer in &mut observers {
        let end = loop {
            match observer.next().await {
                Ok(_) => {}
                Err(end) => break end.to_string(),
            }
        };
        assert!(end.contains("4401"), "{end}");
    }
    for (client, node) in clients.iter().zip([&home.one, &home.two]) {
        assert_eq!(
            refused(client, "GET", "/api/v1/devices", &Value::Null).await,
            (401, "token-expired".into())
        );
        let tokens = node.json(&["token", "list"]).await.unwrap();
        let guest =
            tokens["tokens"].as_array().unwrap().iter().find(|token| token["id"] == made["id"]).unwrap();
        assert_eq!(guest["expired"], true);
    }
    let nobody = home.one.cli(&["token", "create", "--role", "node"]).await.unwrap();
    assert!(nobody.stderr.contains("only boards have it"), "{}", nobody.stderr);
}
