//! What a client sees and does that is confined to a part of the home.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{
        ROUTES,
        scoped::{RULES, Rule},
    },
    observers::{Client, kinds},
    *,
};
use crate::auth::{
    Scope,
    tokens::{End, Wanted},
};

const KITCHEN: &str = "device/lifx-1";
const HALL: &str = "device/lifx-2";

fn scope(areas: &[&str], devices: &[&str], prefixes: &[&str]) -> Scope {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Scope { prefixes: texts(prefixes), areas: texts(areas), devices: texts(devices) }
}

fn path(route: &str) -> String {
    let names = [("{kind}", "note"), ("{name}", "x"), ("{id}", "1"), ("{node}", "n"), ("{device}", "x")];
    names.iter().fold(route.replace("{token}", "t"), |path, (name, value)| path.replace(name, value))
}

impl Bench {
    /// A home with a lamp in the kitchen and one in the hall, a group of both, and a few notes.
    async fn home() -> Self {
        let bench = Self::new();
        bench.light("lifx-1", "Lamp", "", true).await;
        bench.light("lifx-2", "Secret lamp", "", true).await;
        bench.fake.put(KITCHEN, "area", Stored::from("Kitchen")).await;
        bench.fake.put(HALL, "area", Stored::from("hall")).await;
        for member in ["member.lifx-1", "member.lifx-2"] {
            bench.fake.put("group/both", member, Stored::from(true)).await;
        }
        bench.fake.put("group/one", "member.lifx-1", Stored::from(true)).await;
        bench.fake.put("note/shopping", "text", Stored::from("milk")).await;
        bench.fake.put("secret/diary", "text", Stored::from("hidden")).await;
        bench
    }

    async fn confined(&self, role: Role, scope: Scope) -> String {
        let wanted = Wanted { role, label: String::new(), scope, end: None, by: None, ends_ms: None };
        self.tokens.make(wanted).await.unwrap().token.expose().to_owned()
    }

    async fn get(&self, token: &str, path: &str) -> Answer {
        self.bearer(Some(token), Method::GET, path, Value::Null).await
    }

    async fn command(&self, token: &str, device: &str) -> Answer {
        let body = json!({ "device": device, "change": { "on": true } });
        self.bearer(Some(token), Method::POST, "/api/v1/commands", body).await
    }

    async fn ids(&self, token: &str, path: &str, list: &str) -> Vec<String> {
        let answer = self.get(token, path).await.json();
        let ids = answer[list].as_array().unwrap().iter().map(|object| object["id"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn every_route_says_how_it_treats_confined_clients() {
    let bench = Bench::new();
    let mut served = BTreeSet::new();
    for route in ROUTES {
        let answer = bench.call(Method::TRACE, &path(route), Value::Null).await;
        let allowed = answer.headers[header::ALLOW].to_str().unwrap().to_owned();
        let methods = allowed.split(',').map(str::trim).filter(|method| *method != "HEAD");
        served.extend(methods.map(|method| (route.to_owned(), method.to_owned())));
    }
    let ruled: BTreeSet<_> =
        RULES.iter().map(|(method, route, _)| ((*route).to_owned(), method.to_string())).collect();
    assert_eq!(ruled.len(), RULES.len(), "each is ruled once");
    let unruled: Vec<_> = served.difference(&ruled).collect();
    assert!(unruled.is_empty(), "decide in api/scoped.rs what confined clients may do there: {unruled:?}");
    let gone: Vec<_> = ruled.difference(&served).collect();
    assert!(gone.is_empty(), "there are no such routes any more: {gone:?}");
}

#[tokio::test]
async fn what_is_about_all_of_the_home_is_closed_to_confined_clients() {
    let bench = Bench::home().await;
    // A scope that reaches every object confines all the same.
    let wide: Vec<String> = ('a'..='z').map(|_| "note/".to_owned()).collect();
    let wide = Scope { prefixes: wide, ..scope(&["kitchen", "hall"], &[], &["device/", "adapter/"]) };
    let token = bench.confined(Role::Operator, wide).await;
    for (method, route, rule) in RULES {
        let answer = bench.bearer(Some(&token), method.clone(), &path(route), json!({})).await;
        let is_refused = answer.status == StatusCode::FORBIDDEN;
        match rule {
            Rule::Whole => assert!(is_refused, "{method} {route}: {}", answer.status),
            Rule::Open | Rule::Part => {
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{method} {route}");
            }
        }
    }
    for (method, route) in [(Method::GET, "/metrics"), (Method::HEAD, "/metrics")] {
        let answer = bench.bearer(Some(&token), method, route, Value::Null).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(bench.get(&token, "/metrics").await.problem(), "out-of-scope");
}

#[tokio::test]
async fn a_viewer_of_an_area_finds_its_lamp_and_nothing_else() {
    let bench = Bench::home().await;
    let tablet = bench.confined(Role::Viewer, scope(&["kitchen"], &[], &[])).await;
    assert_eq!(bench.ids(&tablet, "/api/v1/devices", "devices").await, [KITCHEN]);
    assert_eq!(bench.ids(&tablet, "/api/v1/objects", "objects").await, [KITCHEN]);
    for name in [KITCHEN, "lifx-1", "Lamp", "lamp"] {
        let path = format!("/api/v1/devices/{}", name.replace('/', "%2F"));
        assert_eq!(bench.get(&tablet, &path).await.json()["id"], KITCHEN, "{name}");
    }
    // What is hidden reads as what is not there, word for word but for the name.
    for (hidden, absent) in [
        ("/api/v1/objects/device/lifx-2", "/api/v1/objects/device/lifx-9"),
        ("/api/v1/objects/secret/diary", "/api/v1/objects/secret/absent"),
        ("/api/v1/objects/group/both", "/api/v1/objects/group/none"),
        ("/api/v1/devices/lifx-2", "/api/v1/devices/lifx-9"),
        ("/api/v1/devices/Secret%20lamp", "/api/v1/devices/Absent%20lamp"),
        ("/api/v1/devices/device%2Flifx-2", "/api/v1/devices/device%2Flifx-9"),
        ("/api/v1/history/lifx-2", "/api/v1/history/lifx-9"),
    ] {
        let (hidden, absent) = (bench.get(&tablet, hidden).await, bench.get(&tablet, absent).await);
        assert_eq!((hidden.status, absent.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
        let text = |answer: &Answer| answer.json().to_string();
        let same = text(&hidden).replace("lifx-2", "lifx-9").replace("Secret", "Absent");
        let same = same.replace("diary", "absent").replace("group/both", "group/none");
        assert_eq!(same, text(&absent));
        assert!(!text(&absent).contains("lifx-2"), "no candidate is hidden: {}", text(&absent));
    }
    let status = bench.get(&tablet, "/api/v1/status").await.json();
    assert_eq!((&status["confined"], &status["nodes"]), (&json!(true), &Value::Null));
    for name in ["attic", "attic.local", "7433", "frames_refused"] {
        assert!(!status.to_string().contains(name), "{status}");
    }
    assert_eq!(
        bench.command(&tablet, KITCHEN).await.status,
        StatusCode::FORBIDDEN,
        "a viewer commands nothing"
    );
}

#[tokio::test]
async fn no_answer_names_what_is_hidden() {
    let bench = Bench::home().await;
    bench.fake.put("scene/hidden-scene", "transition_ms", Stored::Int(0)).await;
    bench.fake.put(HALL, "area", Stored::from("cellar-7")).await;
    let hidden = ["lifx-2", "Secret", "hidden-scene", "cellar-7", "diary", "group/both", "attic"];
    let scopes = [
        scope(&["kitchen"], &[], &["note/"]),
        scope(&[], &["lifx-1"], &[]),
        scope(&[], &[], &["device/lifx-1"]),
    ];
    for scope in scopes {
        let token = bench.confined(Role::Operator, scope).await;
        for (method, route, _) in RULES.iter().filter(|(_, _, rule)| *rule != Rule::Open) {
            for name in ["lifx-1", "lamp", "absent"] {
                let path = route.replace("{kind}", "device").replace("{device}", name);
                let path = path.replace("{name}", name).replace("{id}", name).replace("{node}", name);
                let wanted = json!({ "device": name, "change": { "on": true } });
                for body in
                    [json!({}), json!({"set": {"x": 1}}), wanted, json!({"devices": {name: {"on": true}}})]
                {
                    let answer = bench.bearer(Some(&token), method.clone(), &path, body).await;
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    let told = hidden.iter().find(|hidden| text.contains(**hidden));
                    assert_eq!(told, None, "{method} {path}: {text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn pages_tell_of_nothing_that_is_hidden() {
    let bench = Bench::new();
    for n in 0..30 {
        let kind = if n % 3 == 0 { "note" } else { "other" };
        bench.fake.put(&format!("{kind}/{n:02}"), "n", Stored::Int(n)).await;
    }
    let token = bench.confined(Role::Viewer, scope(&[], &[], &["note/"])).await;
    for limit in [1, 3, 9, 10, 11, 1_000] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = bench.get(&token, &format!("/api/v1/objects?limit={limit}{after}")).await.json();
            let objects = page["objects"].as_array().unwrap();
            seen.extend(objects.iter().map(|object| object["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            assert_eq!((objects.len(), next), (limit, seen.last().unwrap().as_str()), "a page has no gaps");
            after = format!("&after={}", next.replace('/', "%2F"));
        }
        assert_eq!(seen.len(), 10, "by {limit}: {seen:?}");
        assert!(seen.iter().all(|id| id.starts_with("note/")));
    }
}

#[tokio::test]
async fn groups_take_no_name_of_a_hidden_area_and_keep_members_that_are_hidden() {
    let bench = Bench::home().await;
    let token = bench.confined(Role::Operator, scope(&["kitchen"], &[], &["group/", "scene/"])).await;
    let write = async |method, path: &str, set: Value| {
        bench.bearer(Some(&token), method, &format!("/api/v1/objects/{path}"), set).await
    };
    let member = json!({ "set": { "member.lifx-1": true } });
    for (name, expected) in
        [("hall", StatusCode::FORBIDDEN), ("mine", StatusCode::OK), ("kitchen", StatusCode::OK)]
    {
        let answer = write(Method::PATCH, &format!("group/{name}"), member.clone()).await;
        assert_eq!(answer.status, expected, "{name}");
    }
    bench.fake.put("group/hall", "member.lifx-1", Stored::from(true)).await;
    assert_eq!(write(Method::PATCH, "group/hall", member.clone()).await.problem(), "out-of-scope");
    let refused = write(Method::DELETE, "group/both", Value::Null).await;
    assert_eq!(refused.problem(), "out-of-scope");
    assert!(!String::from_utf8_lossy(&refused.body).contains("lifx-2"));
    assert_eq!(write(Method::DELETE, "group/one", Value::Null).await.status, StatusCode::NO_CONTENT);
    let all = bench.token(Role::Operator).await;
    let of_hall = json!({ "devices": { "lifx-2": { "on": true } } });
    let path = "/api/v1/scenes/evening";
    assert_eq!(bench.bearer(Some(&all), Method::PUT, path, of_hall).await.status, StatusCode::OK);
    let refused = bench.bearer(Some(&token), Method::DELETE, path, Value::Null).await;
    assert_eq!(refused.problem(), "out-of-scope", "neither put nor removed");
    assert_eq!(bench.bearer(Some(&all), Method::DELETE, path, Value::Null).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_operator_of_a_device_commands_it_and_not_its_neighbour() {
    let bench = Bench::home().await;
    let token = bench.confined(Role::Operator, scope(&[], &["lifx-1"], &["group/"])).await;
    let own = bench.command(&token, "Lamp").await;
    assert_eq!((own.status, &own.json()["device"]), (StatusCode::ACCEPTED, &json!(KITCHEN)));
    let id = own.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(bench.get(&token, &format!("/api/v1/commands/{id}")).await.status, StatusCode::OK);
    for (neighbour, problem) in [
        (HALL, "not-found"),
        ("lifx-2", "not-found"),
        ("Secret lamp", "not-found"),
        ("hall", "not-found"),
        ("group/both", "out-of-scope"),
        ("both", "out-of-scope"),
    ] {
        let refused = bench.command(&token, neighbour).await;
        assert_eq!(refused.problem(), problem, "{neighbour}");
        let text = refused.json().to_string().replacen(neighbour, "", 1);
        assert!(!text.contains("lifx-2") && !text.contains("Secret"), "{text}");
    }
    for mine in ["group/one", "one", "kitchen"] {
        assert_eq!(bench.command(&token, mine).await.status, StatusCode::ACCEPTED, "{mine}");
    }
    bench.fake.put(HALL, "area", Stored::from("KITCHEN")).await;
    assert_eq!(bench.command(&token, "kitchen").await.problem(), "out-of-scope", "not a part of an area");
    // Of others' commands by their ids, too.
    let all = bench.token(Role::Operator).await;
    let other = bench.command(&all, HALL).await.json()["id"].as_str().unwrap().to_owned();
    let hidden = bench.get(&token, &format!("/api/v1/commands/{other}")).await;
    assert_eq!(hidden.problem(), "not-found");
    assert_eq!(hidden.json(), bench.get(&token, "/api/v1/commands/00").await.json());
    // Whose group it cannot see does not learn that there is one, be it called as its area.
    bench.fake.put(HALL, "area", Stored::from("hall")).await;
    bench.fake.put("group/kitchen", "member.lifx-2", Stored::from(true)).await;
    let blind = bench.confined(Role::Operator, scope(&[], &["lifx-1"], &[])).await;
    assert_eq!(bench.command(&blind, "group/both").await.problem(), "not-found");
    for mine in ["group/one", "kitchen"] {
        assert_eq!(bench.command(&blind, mine).await.status, StatusCode::ACCEPTED, "{mine}");
    }
}

#[tokio::test]
async fn a_confined_operator_cannot_widen_its_scope() {
    let bench = Bench::home().await;
    bench.fake.put("group/mine", "member.lifx-1", Stored::from(true)).await;
    let narrow = scope(&["kitchen"], &[], &["note/", "group/mine", "device/lifx-1"]);
    let token = bench.confined(Role::Operator, narrow).await;
    let set = |fields: Value| json!({ "set": fields });
    for (method, path, body) in [
        // By the area of a device: into the scope, out of another's, of its own.
        ("PATCH", "objects/device/lifx-2", set(json!({"area": "kitchen"}))),
        ("PATCH", "objects/device/lifx-1", set(json!({"area": "hall"}))),
        ("PATCH", "objects/device/lifx-1", json!({"unset": ["area"]})),
        // By a name that others call another device by.
        ("PATCH", "objects/device/lifx-1", set(json!({"name": "Secret lamp"}))),
        ("PATCH", "objects/device/lifx-10", set(json!({"anything": 1}))),
        ("DELETE", "objects/device/lifx-1", Value::Null),
        ("DELETE", "objects/device/lifx-2", Value::Null),
        // By a group, which others command.
        ("PATCH", "objects/group/mine", set(json!({"member.lifx-2": true}))),
        ("PATCH", "objects/group/mine", json!({"unset": ["member.lifx-2"]})),
        ("PATCH", "objects/group/both", json!({"unset": ["member.lifx-2"]})),
        ("DELETE", "objects/group/both", Value::Null),
        // By names of other kinds that begin alike.
        ("PATCH", "objects/notebook/x", set(json!({"a": 1}))),
        ("PATCH", "objects/node/00000000000000ab", set(json!({"name": "kitchen"}))),
        ("PATCH", "objects/secret/diary", set(json!({"text": "x"}))),
        ("DELETE", "objects/secret/absent", Value::Null),
        ("PATCH", "objects/token/aa", set(json!({"role": "admin"}))),
        ("DELETE", "objects/token/aa", Value::Null),
        ("POST", "tokens", json!({"role": "viewer"})),
        ("POST", "events", json!({"topic": "doorbell"})),
        ("PATCH", "nodes/attic", json!({"name": "kitchen"})),
        // By what acts later, or for whoever knows a path.
        (
            "PUT",
            "schedules/x",
            json!({"when": "daily", "do": [{"device": "lifx-2", "change": {"on": true}}]}),
        ),
        ("PUT", "automations/x", json!({"triggers": [], "actions": []})),
        ("POST", "automations/x/start", json!({})),
        ("PATCH", "automations/x", json!({"enabled": false})),
        ("DELETE", "schedules/x", Value::Null),
        ("POST", "automations/x/webhook", json!({})),
        ("PUT", "scenes/x", json!({"devices": {"lifx-1": {"on": true}}})),
        ("DELETE", "scenes/x", Value::Null),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer =
            bench.bearer(Some(&token), method.clone(), &format!("/api/v1/{path}"), body.clone()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path} {body}: {}", answer.json());
        answer.problem();
    }
    // And what it may write, it writes.
    for (path, body) in [
        ("objects/note/shopping", set(json!({"text": "bread"}))),
        ("objects/group/mine", set(json!({"name": "Mine", "member.lifx-1": true}))),
    ] {
        let answer = bench.bearer(Some(&token), Method::PATCH, &format!("/api/v1/{path}"), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
    }
    assert_eq!(bench.ids(&token, "/api/v1/devices", "devices").await, [KITCHEN]);
    let hall = bench.call(Method::GET, "/api/v1/objects/device/lifx-2", Value::Null).await.json();
    assert_eq!(hall["fields"]["area"], "hall");
}

#[tokio::test]
async fn a_scene_is_activated_where_every_device_of_it_is_in_scope() {
    let bench = Bench::home().await;
    let put = async |token: &str, name: &str, devices: Value| {
        let path = format!("/api/v1/scenes/{name}");
        bench.bearer(Some(token), Method::PUT, &path, json!({ "devices": devices })).await
    };
    let all = bench.token(Role::Operator).await;
    let (on, off) = (json!({"on": true}), json!({"on": false}));
    assert_eq!(put(&all, "wide", json!({"lifx-1": on, "lifx-2": on})).await.status, StatusCode::OK);
    assert_eq!(put(&all, "hidden", json!({"lifx-1": on})).await.status, StatusCode::OK);
    let token = bench.confined(Role::Operator, scope(&["kitchen"], &[], &["scene/wide", "scene/mine"])).await;
    assert_eq!(put(&token, "mine", json!({"Lamp": on})).await.status, StatusCode::OK);
    assert_eq!(put(&token, "mine", json!({"lifx-2": on})).await.problem(), "not-found");
    assert_eq!(put(&token, "wide", json!({"lifx-1": off})).await.problem(), "out-of-scope", "nor replaced");
    let saved = json!({"save": []});
    let peek = bench.bearer(Some(&token), Method::PUT, "/api/v1/scenes/wide", saved).await;
    assert_eq!(peek.problem(), "out-of-scope", "nor looked at by saving it anew");
    let go = async |name: &str, what: &str| {
        let path = format!("/api/v1/scenes/{name}/{what}");
        bench.bearer(Some(&token), Method::POST, &path, json!({})).await
    };
    let given = go("mine", "activate").await;
    assert_eq!((given.status, given.json()["commands"].as_array().unwrap().len()), (StatusCode::ACCEPTED, 1));
    for what in ["activate", "undo"] {
        assert_eq!(go("hidden", what).await.problem(), "not-found");
    }
    assert_eq!(go("wide", "activate").await.problem(), "out-of-scope");
    let names = bench.get(&token, "/api/v1/scenes").await.json();
    let names: Vec<_> =
        names["scenes"].as_array().unwrap().iter().map(|scene| scene["name"].clone()).collect();
    assert_eq!(names, [json!("mine"), json!("wide")]);
    let absent = bench.get(&token, "/api/v1/scenes/nothing").await.json().to_string();
    assert!(!absent.contains("hidden"), "{absent}");
    // Once its lamp is elsewhere, the scene of its own is closed to it.
    bench.fake.put(KITCHEN, "area", Stored::from("hall")).await;
    assert_eq!(go("mine", "activate").await.problem(), "out-of-scope");
}

#[tokio::test]
async fn an_event_is_published_under_a_topic_in_scope() {
    let bench = Bench::home().await;
    let token = bench.confined(Role::Operator, scope(&[], &[], &["event/doorbell."])).await;
    for (topic, status) in [
        // The bench has no owner of events: whoever gets through to it hears that the node is stopping.
        ("doorbell.front", StatusCode::SERVICE_UNAVAILABLE),
        ("doorbell", StatusCode::FORBIDDEN),
        ("door", StatusCode::FORBIDDEN),
        ("alarm", StatusCode::FORBIDDEN),
    ] {
        let body = json!({ "topic": topic });
        let answer = bench.bearer(Some(&token), Method::POST, "/api/v1/events", body).await;
        assert_eq!(answer.status, status, "{topic}");
    }
}

#[tokio::test]
async fn an_observer_sees_what_comes_into_its_scope_and_that_what_leaves_it_is_gone() {
    let bench = Bench::home().await;
    let (path, _task) = bench.listen(bench.router(Access::Bearer)).await;
    let token = bench.confined(Role::Operator, scope(&["kitchen"], &[], &["note/"])).await;
    let mut observer = Client::open(&path, Some(&token)).await.unwrap();
    let snapshot = observer.subscribe("", None).await;
    assert_eq!(kinds(&snapshot), ["snapshot_begin", "object", "object", "snapshot_end"]);
    let ids: BTreeSet<_> = snapshot[1..3].iter().map(|told| told["object"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [KITCHEN, "note/shopping"].into());
    assert_eq!(snapshot[3]["resume"], Value::Null, "how much happens elsewhere is not told");

    // What happens elsewhere is no news: the next that is heard is what happens here.
    bench.fake.put("secret/diary", "text", Stored::from("more")).await;
    bench.fake.put(HALL, "name", Stored::from("Still secret")).await;
    bench.call(Method::DELETE, "/api/v1/objects/secret/diary", Value::Null).await;
    bench.fake.put("note/shopping", "text", Stored::from("bread")).await;
    let heard = observer.until("mark").await;
    assert_eq!((heard.len(), &heard[0]["object"]["id"]), (2, &json!("note/shopping")));

    bench.fake.put(KITCHEN, "area", Stored::from("hall")).await;
    let left = observer.until("mark").await;
    assert_eq!(left[0], json!({ "type": "gone", "id": KITCHEN }));
    bench.fake.put(HALL, "area", Stored::from("KITCHEN")).await;
    let came = observer.until("mark").await;
    assert_eq!((&came[0]["type"], &came[0]["object"]["id"]), (&json!("object"), &json!(HALL)));
    let admin = bench.token(Role::Admin).await;
    bench.bearer(Some(&admin), Method::DELETE, "/api/v1/objects/device/lifx-2", Value::Null).await;
    assert_eq!(observer.until("mark").await[0], json!({ "type": "gone", "id": HALL }));

    // Whoever comes back begins anew, for what left meanwhile would not be told.
    let again = observer.subscribe("", Some(&json!("0000000000000007-1"))).await;
    assert_eq!(again[0]["reset"], true);
    assert_eq!(kinds(&again), ["snapshot_begin", "object", "snapshot_end"]);

    observer.say(json!({ "type": "command", "device": KITCHEN, "change": { "on": true }, "ref": 1 })).await;
    let refused = observer.hear().await.unwrap();
    assert_eq!((&refused["ref"], &refused["problem"]["status"]), (&json!(1), &json!(404)));
}

#[tokio::test]
async fn an_observer_ends_with_its_token() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Bearer)).await;
    let end = Some(End::After(Duration::from_secs(2)));
    let scope = scope(&[], &[], &["note/"]);
    let wanted = Wanted { role: Role::Viewer, label: String::new(), scope, end, by: None, ends_ms: None };
    let token = bench.tokens.make(wanted).await.unwrap().token;
    let stays = bench.token(Role::Viewer).await;
    let mut ends = Client::open(&path, Some(token.expose())).await.unwrap();
    let mut other = Client::open(&path, Some(&stays)).await.unwrap();
    assert_eq!(ends.hear().await, Err(4401));
    other.say(json!({ "type": "ping" })).await;
    assert_eq!(other.hear().await.unwrap()["type"], "pong");
    let answer = bench.get(token.expose(), "/api/v1/objects").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "token-expired"));
}

#[tokio::test]
async fn a_token_is_made_for_rooms_and_devices_by_what_people_call_them() {
    let bench = Bench::home().await;
    let scope = json!({ "areas": ["KITCHEN", "kitchen"], "devices": ["secret lamp"], "prefixes": ["note/"] });
    let body = json!({ "role": "operator", "label": "wall", "scope": scope, "expires_s": 7_776_000 });
    let made = bench.call(Method::POST, "/api/v1/tokens", body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let resolved = json!({ "areas": ["Kitchen"], "devices": ["lifx-2"], "prefixes": ["note/"] });
    assert_eq!((&made.json()["scope"], &made.json()["role"]), (&resolved, &json!("operator")));
    let listed = bench.call(Method::GET, "/api/v1/tokens", Value::Null).await.json()["tokens"][0].clone();
    assert_eq!((&listed["scope"], &listed["by"]), (&resolved, &json!("socket")));
    assert_eq!((&listed["expires"], &listed["expired"]), (&made.json()["expires"], &json!(false)));
    assert!(listed["expires"].is_string() && listed["used"].is_null());
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(bench.ids(&token, "/api/v1/devices", "devices").await, [KITCHEN, HALL]);

    let whole = bench.call(Method::POST, "/api/v1/tokens", json!({ "role": "admin", "scope": {} })).await;
    assert_eq!((whole.status, &whole.json()["scope"]), (StatusCode::CREATED, &Value::Null));
}

#[tokio::test]
async fn a_token_that_cannot_be_is_refused_in_words() {
    let bench = Bench::home().await;
    for (body, slug, part) in [
        (json!({"role": "node"}), "invalid-request", "only boards have it"),
        (json!({"role": "king"}), "invalid-request", "viewer, operator and admin"),
        (json!({"role": "admin", "scope": {"areas": ["kitchen"]}}), "invalid-request", "all of the home"),
        (json!({"role": "viewer", "scope": {"areas": ["kitchn"]}}), "not-found", "kitchn"),
        (json!({"role": "viewer", "scope": {"devices": ["lump"]}}), "not-found", "lump"),
        (json!({"role": "viewer", "scope": {"prefixes": [""]}}), "invalid-request", "no prefix"),
        (json!({"role": "viewer", "scope": {"prefixes": ["note"]}}), "invalid-request", "no prefix"),
        (json!({"role": "viewer", "scope": {"floors": ["1"]}}), "invalid-request", "floors"),
        (json!({"role": "viewer", "scope": {"devices": vec!["Lamp"; 65]}}), "invalid-request", "64"),
        (json!({"role": "viewer", "expires_s": 0}), "invalid-request", "in the future"),
        (json!({"role": "viewer", "expires": "2001-01-01T00:00:00Z"}), "invalid-request", "in the future"),
        (json!({"role": "viewer", "expires": "tomorrow"}), "invalid-request", "tomorrow"),
        (
            json!({"role": "viewer", "expires": "2027-01-01T00:00:00Z", "expires_s": 5}),
            "invalid-request",
            "both",
        ),
    ] {
        let refused = bench.call(Method::POST, "/api/v1/tokens", body.clone()).await;
        assert_eq!(refused.problem(), slug, "{body}");
        assert!(refused.json()["detail"].as_str().unwrap().contains(part), "{body}: {}", refused.json());
    }
    let typo = json!({"role": "viewer", "scope": {"areas": ["kitchn"]}});
    let refused = bench.call(Method::POST, "/api/v1/tokens", typo).await;
    assert_eq!(refused.json()["candidates"], json!(["hall", "Kitchen"]), "the areas that there are");
    assert!(bench.tokens.list().await.unwrap().is_empty());
}
