#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
//! Observers over a real socket with a real WebSocket client.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::UnixStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use mesh_proto::{FieldName, ObjectId, kinds::Author};

use super::*;
use crate::{api::serve::HttpServer, service::Op};

pub(super) struct Client<S = UnixStream>(WebSocketStream<S>);

impl Client {
    pub(super) async fn open(path: &std::path::Path, token: Option<&str>) -> Result<Self, Error> {
        Self::over(UnixStream::connect(path).await.unwrap(), token).await
    }
}

impl Client<DuplexStream> {
    /// Without a socket of the system, so that the clock may be paused.
    async fn served(bench: &Bench, access: Access) -> Self {
        let metrics = Arc::clone(&bench.context.metrics);
        let server = HttpServer::new(bench.router(access), metrics, bench.context.shutdown.clone());
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move { server.serve_stream(far, None).await });
        Self::over(near, None).await.unwrap()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn over(stream: S, token: Option<&str>) -> Result<Self, Error> {
        let mut request = "ws://localhost/api/v1/watch".into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "hearth.v1".parse().unwrap());
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], "hearth.v1");
        Ok(Self(socket))
    }

    pub(super) async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message that is JSON, or the close code.
    pub(super) async fn hear(&mut self) -> Result<Value, u16> {
        let heard = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(frame))) => {
                        return Err(frame.map_or(1005, |frame| frame.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(1006),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), heard).await.expect("something is heard in time")
    }

    /// Messages up to and with the first of this type.
    pub(super) async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.hear().await.unwrap());
            if heard.last().unwrap()["type"] == kind {
                return heard;
            }
        }
    }

    pub(super) async fn subscribe(&mut self, prefix: &str, resume: Option<&Value>) -> Vec<Value> {
        self.say(json!({ "type": "subscribe", "prefixes": [prefix], "resume": resume })).await;
        self.until("snapshot_end").await
    }
}

pub(super) fn kinds(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["type"].as_str().unwrap()).collect()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_snapshot_then_what_changes_then_resuming() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    bench.fake.put("note/a", "n", Stored::Int(1)).await;
    bench.fake.put("other/b", "n", Stored::Int(1)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    let snapshot = client.subscribe("note/", None).await;
    assert_eq!(kinds(&snapshot), ["snapshot_begin", "object", "snapshot_end"]);
    assert_eq!((&snapshot[0]["reset"], &snapshot[1]["object"]["id"]), (&json!(true), &json!("note/a")));
    bench.fake.put("note/a", "n", Stored::Int(2)).await;
    let delta = client.until("mark").await;
    assert_eq!(delta[0]["object"]["fields"]["n"], 2);
    bench.call(Method::DELETE, "/api/v1/objects/note/a", Value::Null).await;
    let gone = client.until("mark").await;
    assert_eq!((&gone[0]["type"], &gone[0]["id"]), (&json!("gone"), &json!("note/a")));
    client.say(json!({ "type": "ping" })).await;
    assert_eq!(client.hear().await, Ok(json!({ "type": "pong" })));
    let resume = gone[1]["resume"].clone();
    drop(client);
    eventually("the observer is gone", || bench.context.metrics.observers() == 0).await;

    bench.fake.put("note/c", "n", Stored::Int(3)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    let missed = client.subscribe("note/", Some(&resume)).await;
    assert_eq!(kinds(&missed), ["snapshot_begin", "object", "snapshot_end"]);
    assert_eq!((&missed[0]["reset"], &missed[1]["object"]["id"]), (&json!(false), &json!("note/c")));
    for unknown in ["gibberish", "00000000000000ff-1", ""] {
        let reset = client.subscribe("note/", Some(&json!(unknown))).await;
        assert_eq!(reset[0]["reset"], true, "{unknown}");
    }
    bench.fake.put("device/half", "label", Stored::from("no adapter")).await;
    let half = client.subscribe("device/", None).await;
    assert_eq!(kinds(&half), ["snapshot_begin", "snapshot_end"], "an incomplete object reads as absent");
}

#[tokio::test]
async fn what_is_refused_on_a_websocket_is_in_the_trail() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Bearer)).await;
    let mut stranger = Client::open(&path, None).await.unwrap();
    stranger.say(json!({ "type": "auth", "token": "hth_a_very_secret_guess" })).await;
    assert_eq!(stranger.hear().await, Err(4401));
    let viewer = bench.token(Role::Viewer).await;
    let mut viewer = Client::open(&path, Some(&viewer)).await.unwrap();
    viewer.say(json!({ "type": "command", "device": "desk", "change": { "on": true } })).await;
    assert_eq!(viewer.hear().await.unwrap()["type"], "error");
    let trail = bench.call(Method::GET, "/api/v1/audit", Value::Null).await.json();
    let told = |n: usize, name: &str| trail["records"][n][name].as_str().unwrap().to_owned();
    assert_eq!((told(0, "who"), told(0, "what")), ("nobody".into(), "WebSocket auth".into()));
    assert_eq!(told(0, "outcome"), "401");
    assert!(told(1, "who").starts_with("token:"), "{trail}");
    assert_eq!((told(1, "what"), told(1, "outcome")), ("WebSocket command".into(), "403".into()));
    assert!(!trail.to_string().contains("secret"), "{trail}");
}

#[tokio::test]
async fn an_observer_that_is_cut_off_within_a_delta_gets_the_rest_when_it_resumes() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    let mut resume = client.subscribe("note/", None).await.pop().unwrap()["resume"].clone();
    let op = |n: usize| {
        let (id, field) = (ObjectId::new(&format!("note/{n:03}")), FieldName::new("n"));
        Op::Set(id.unwrap(), field.unwrap(), Stored::Int(1))
    };
    bench.context.service.write(Author::Node, (0..600).map(op).collect()).await.unwrap();
    let mut told = std::collections::BTreeSet::new();
    let note = |message: &Value, told: &mut std::collections::BTreeSet<String>| {
        told.extend(message["object"]["id"].as_str().map(str::to_owned));
    };
    // More than one batch of it, then the connection is lost.
    while told.len() < 300 {
        let message = client.hear().await.unwrap();
        note(&message, &mut told);
        if let Some(token) = message.get("resume") {
            resume = token.clone();
        }
    }
    drop(client);
    let mut client = Client::open(&path, None).await.unwrap();
    let missed = client.subscribe("note/", Some(&resume)).await;
    assert_eq!(missed[0]["reset"], false);
    missed.iter().for_each(|message| note(message, &mut told));
    assert_eq!(told.len(), 600, "nothing is passed over");
}

#[tokio::test]
async fn an_observer_whose_names_became_too_many_begins_anew_with_a_snapshot() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    bench.fake.put("note/a", "n", Stored::Int(1)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    client.subscribe("note/", None).await;
    // What the event loop does to an observer that is too far behind.
    bench.fake.forget_observers().await;
    let again = client.until("snapshot_end").await;
    assert_eq!(kinds(&again), ["snapshot_begin", "object", "snapshot_end"]);
    assert_eq!(again[0]["reset"], true);
    bench.fake.put("note/b", "n", Stored::Int(1)).await;
    assert_eq!(client.until("mark").await[0]["object"]["id"], "note/b");
}

#[tokio::test]
async fn ten_thousand_changes_while_nobody_reads_leave_the_latest_and_little_memory() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    client.subscribe("note/", None).await;
    let text = "x".repeat(2_000);
    let mut most = 0;
    for n in 0..10_000i64 {
        let id = format!("note/n{}", n % 10);
        bench.fake.put(&id, "text", Stored::from(format!("{n} {text}").as_str())).await;
        most = most.max(bench.context.metrics.queued_bytes());
    }
    // The socket is full, so something is queued; it stays one flush and one message.
    eventually("the writer waits", || bench.context.metrics.queued_bytes() > 0).await;
    most = most.max(bench.context.metrics.queued_bytes());
    assert!(most <= 32 * 1024 + 4 * 1024, "{most} bytes are queued");
    let mut latest = BTreeMap::new();
    let mut messages = 0;
    while latest.len() < 10 || latest.values().any(|n: &i64| *n < 9_990) {
        let message = client.hear().await.unwrap();
        messages += 1;
        if message["type"] == "object" {
            let object = &message["object"];
            let text = object["fields"]["text"].as_str().unwrap();
            let n: i64 = text.split(' ').next().unwrap().parse().unwrap();
            let before = latest.insert(object["id"].as_str().unwrap().to_owned(), n);
            assert!(before.is_none_or(|before| before < n), "values never go back");
        }
    }
    assert!(messages < 5_000, "{messages} messages: the changes did not coalesce");
    eventually("all is taken", || bench.context.metrics.queued_bytes() == 0).await;
}

#[tokio::test]
async fn commands_and_their_life_come_over_the_same_socket() {
    let bench = Bench::new();
    bench.light("lifx-1", "Kitchen", "", true).await;
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    let change = json!({ "on": true });
    client.say(json!({ "type": "command", "device": "Kitchen", "change": change, "ref": 7 })).await;
    let mut states = Vec::new();
    while states.last() != Some(&json!("confirmed")) {
        let message = client.hear().await.unwrap();
        assert_eq!((&message["type"], &message["ref"]), (&json!("command"), &json!(7)));
        states.push(message["command"]["state"].clone());
    }
    client.say(json!({ "type": "command", "device": "Cellar", "change": change, "ref": "r" })).await;
    let error = client.hear().await.unwrap();
    assert_eq!((&error["type"], &error["ref"]), (&json!("error"), &json!("r")));
    assert_eq!(error["problem"]["type"], "urn:hearth:problem:not-found");
}

#[tokio::test]
async fn a_command_for_a_group_is_one_for_each_of_its_devices_over_the_socket_too() {
    let bench = Bench::new();
    bench.light("lifx-1", "", "", true).await;
    bench.light("lifx-2", "", "", true).await;
    bench.light("white", "", "", false).await;
    for member in ["lifx-1", "lifx-2", "white"] {
        bench.fake.put("group/evening", &format!("member.{member}"), true.into()).await;
    }
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    let change = json!({ "color": "red" });
    client.say(json!({ "type": "command", "device": "evening", "change": change, "ref": 7 })).await;
    let all = client.hear().await.unwrap();
    assert_eq!((&all["type"], &all["group"]), (&json!("commands"), &json!("group/evening")), "{all}");
    assert_eq!(all["refused"][0]["device"], "device/white");
    let mut open = all["commands"].as_array().unwrap().clone();
    let devices: Vec<_> = open.iter().map(|command| &command["device"]).collect();
    assert_eq!(devices, ["device/lifx-1", "device/lifx-2"]);
    while !open.is_empty() {
        let message = client.hear().await.unwrap();
        assert_eq!((&message["type"], &message["ref"]), (&json!("command"), &json!(7)), "{message}");
        let command = &message["command"];
        open.retain(|open| open["id"] != command["id"] || command["state"] != "confirmed");
    }
    client.say(json!({ "type": "command", "device": "evening", "change": change, "wait": true })).await;
    assert_eq!(client.hear().await.unwrap()["problem"]["type"], "urn:hearth:problem:invalid-request");
}

#[tokio::test]
async fn nonsense_is_answered_and_survived() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    let many: Vec<_> = (0..65).map(|n| format!("k{n}/")).collect();
    let deep = format!("{{\"type\":{}{}}}", "[".repeat(20), "]".repeat(20));
    let nonsense = [
        ("{".to_owned(), "not-json"),
        ("[]".to_owned(), "invalid-request"),
        ("{}".to_owned(), "invalid-request"),
        (deep, "too-deep"),
        ("{\"type\":\"dance\"}".to_owned(), "invalid-request"),
        ("{\"type\":\"ping\",\"extra\":1}".to_owned(), "invalid-request"),
        ("{\"type\":\"subscribe\"}".to_owned(), "invalid-request"),
        ("{\"type\":\"subscribe\",\"prefixes\":[]}".to_owned(), "invalid-request"),
        (json!({ "type": "subscribe", "prefixes": many }).to_string(), "invalid-request"),
        (json!({ "type": "subscribe", "prefixes": ["x".repeat(130)] }).to_string(), "invalid-request"),
        (json!({ "type": "ping", "ref": "x".repeat(300) }).to_string(), "invalid-request"),
        (json!({ "type": "auth", "token": "hth_x" }).to_string(), "invalid-request"),
    ];
    for (text, slug) in nonsense {
        client.0.send(Message::text(text.clone())).await.unwrap();
        let error = client.hear().await.unwrap();
        assert_eq!(error["problem"]["type"], format!("urn:hearth:problem:{slug}"), "{text}");
    }
    client.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.hear().await.unwrap()["type"], "error");
    client.say(json!({ "type": "ping" })).await;
    assert_eq!(client.hear().await.unwrap()["type"], "pong");
    // What is larger than a message may be ends the socket, and this one only.
    let mut other = Client::open(&path, None).await.unwrap();
    let _ = client.0.send(Message::text("x".repeat(70_000))).await;
    assert_eq!(client.hear().await, Err(1009));
    other.say(json!({ "type": "ping" })).await;
    assert_eq!(other.hear().await.unwrap()["type"], "pong");
}

#[tokio::test]
async fn bearers_get_in_by_header_or_first_message_and_see_what_they_may() {
    let bench = Bench::new();
    bench.light("lifx-1", "Kitchen", "", true).await;
    let (path, _task) = bench.listen(bench.router(Access::Bearer)).await;
    let (viewer, admin) = (bench.token(Role::Viewer).await, bench.token(Role::Admin).await);

    let Err(Error::Http(refused)) = Client::open(&path, Some("hth_wrong")).await else { panic!("it got in") };
    assert_eq!(refused.status(), 401);

    let mut by_header = Client::open(&path, Some(&viewer)).await.unwrap();
    assert_eq!(kinds(&by_header.subscribe("token/", None).await), ["snapshot_begin", "snapshot_end"]);
    by_header.say(json!({ "type": "command", "device": "Kitchen", "change": { "on": true } })).await;
    assert_eq!(by_header.hear().await.unwrap()["problem"]["status"], 403);

    let mut by_message = Client::open(&path, None).await.unwrap();
    by_message.say(json!({ "type": "auth", "token": admin })).await;
    let seen = by_message.subscribe("token/", None).await;
    assert_eq!(seen.len(), 4);
    assert!(!json!(seen).to_string().contains("hash"));

    for first in [json!({ "type": "auth", "token": "hth_wrong" }), json!({ "type": "ping" }), json!("x")] {
        let mut stranger = Client::open(&path, None).await.unwrap();
        stranger.say(first).await;
        assert_eq!(stranger.hear().await, Err(4401));
    }
}

#[tokio::test]
async fn a_revoked_token_ends_its_observers_and_no_others() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Bearer)).await;
    let (id, token) = bench.tokens.create(Role::Viewer, String::new()).await.unwrap();
    let kept = bench.token(Role::Viewer).await;
    let mut ends = Client::open(&path, Some(token.expose())).await.unwrap();
    let mut stays = Client::open(&path, Some(&kept)).await.unwrap();
    ends.subscribe("note/", None).await;
    bench.tokens.revoke(id).await.unwrap();
    assert_eq!(ends.hear().await, Err(4401));
    stays.say(json!({ "type": "ping" })).await;
    assert_eq!(stays.hear().await.unwrap()["type"], "pong");
}

#[tokio::test]
async fn one_token_has_only_a_part_of_all_observers() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Bearer)).await;
    let (one, other) = (bench.token(Role::Viewer).await, bench.token(Role::Viewer).await);
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(Client::open(&path, Some(&one)).await.unwrap());
    }
    let Err(Error::Http(refused)) = Client::open(&path, Some(&one)).await else { panic!("one too many") };
    assert_eq!(refused.status(), 429);
    let mut late = Client::open(&path, None).await.unwrap();
    late.say(json!({ "type": "auth", "token": one })).await;
    assert_eq!(late.hear().await, Err(1013), "nor by its first message");
    Client::open(&path, Some(&other)).await.unwrap();
    drop(open.pop());
    eventually("a place is free", || bench.context.metrics.observers() < 64).await;
    let mut again = Client::open(&path, None).await.unwrap();
    again.say(json!({ "type": "auth", "token": one })).await;
    assert_eq!(kinds(&again.subscribe("note/", None).await), ["snapshot_begin", "snapshot_end"]);
}

#[tokio::test]
async fn observers_are_bounded_and_told_when_the_node_stops() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    let mut open = Vec::new();
    for _ in 0..crate::api::metrics::MAX_OBSERVERS {
        open.push(Client::open(&path, None).await.unwrap());
    }
    let Err(Error::Http(refused)) = Client::open(&path, None).await else { panic!("one too many") };
    assert_eq!(refused.status(), 503);
    drop(open.pop());
    eventually("a place is free", || bench.context.metrics.observers() < crate::api::metrics::MAX_OBSERVERS)
        .await;
    Client::open(&path, None).await.unwrap();
    bench.stop.send(true).unwrap();
    assert_eq!(open[0].hear().await, Err(1001));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_pauses_survives_and_one_that_vanishes_does_not() {
    let bench = Bench::new();
    let mut client = Client::served(&bench, Access::Socket).await;
    client.subscribe("note/", None).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    bench.fake.put("note/a", "n", Stored::Int(1)).await;
    assert_eq!(kinds(&client.until("mark").await), ["object", "mark"]);
    tokio::time::sleep(Duration::from_secs(200)).await;
    // The reason may be lost to it: it answers the pings it finds on a socket that is closed.
    assert!(matches!(client.hear().await, Err(4408 | 1006)));
    assert_eq!(bench.context.metrics.observers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_says_nothing_is_shown_the_door() {
    let bench = Bench::new();
    let mut client = Client::served(&bench, Access::Bearer).await;
    assert_eq!(client.hear().await, Err(4401));
}

#[tokio::test]
async fn a_client_that_closes_is_answered_with_its_own_code() {
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    let mut client = Client::open(&path, None).await.unwrap();
    client.subscribe("note/", None).await;
    let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    client.0.send(Message::Close(Some(frame))).await.unwrap();
    assert_eq!(client.hear().await, Err(1000));
    eventually("the observer is gone", || bench.context.metrics.observers() == 0).await;
}
