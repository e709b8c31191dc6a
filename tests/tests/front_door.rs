//! The front door of real nodes, knocked at with bytes: whom a request is for, whose page it comes from, who the
//! client is behind a proxy, how often it may ask, what could be read in two ways, who is slow, who is many; and what
//! is remembered of who did what. Beside each attack a good client is served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs, io::Write as _, net::SocketAddr, os::unix::process::ExitStatusExt as _, path::PathBuf,
    process::Stdio, sync::Arc,
};

use hearth_tests::{
    daemon::{Client, Daemon, PATIENCE, Plan, Session, client::trusting, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const BULB: &str = "device/lifx-d073d5000001";
const GOOD: &str = "Host: localhost\r\n";

/// A node, and whoever knocks at it.
struct Door {
    node: Daemon,
    tls: TlsConnector,
    token: String,
    /// A client that behaves, on a connection that it keeps.
    good: Session,
}

impl Door {
    async fn of(config: &str) -> Self {
        let node = Plan::new("door").config(config).start().await.unwrap();
        let pem = fs::read_to_string(node.state_dir().join("ca.pem")).unwrap();
        let tls = TlsConnector::from(Arc::new(trusting(&pem).unwrap()));
        let token = node.token("operator").await.unwrap();
        let good = web(&node, &token).session().await.unwrap();
        Self { node, tls, token, good }
    }

    /// From 127.0.0.NUMBER.
    async fn connect(&self, number: u8) -> TlsStream<TcpStream> {
        let stream = tcp(number, self.node.address()).await;
        let name = ServerName::from(self.node.address().ip());
        timeout(PATIENCE, self.tls.connect(name, stream)).await.unwrap().unwrap()
    }

    /// All that is answered to these bytes until the connection ends.
    async fn answers(&self, number: u8, bytes: &[u8]) -> String {
        let mut stream = self.connect(number).await;
        // Whoever is refused early may find the connection closed before all is written.
        let _ = stream.write_all(bytes).await;
        rest(&mut stream).await
    }

    async fn is_served(&mut self) {
        let answer = self.good.exchange("GET", "/api/v1/home", None::<(&str, &str)>).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// What the trail says, oldest first.
    async fn trail(&self) -> Vec<Value> {
        records(&self.node).await
    }
}

fn web(node: &Daemon, token: &str) -> Client {
    let pem = fs::read_to_string(node.state_dir().join("ca.pem")).unwrap();
    Client::web(node.address(), &pem, Some(token)).unwrap()
}

async fn tcp(number: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, number], 0))).unwrap();
    timeout(PATIENCE, socket.connect(to)).await.unwrap().unwrap()
}

/// All that comes until the end; the end without a close_notify is an end as well.
async fn rest(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn records(node: &Daemon) -> Vec<Value> {
    let answer = node.json(&["audit", "--limit", "1000"]).await.unwrap();
    answer["records"].as_array().unwrap().clone()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_not_for_this_node_or_can_be_read_in_two_ways_is_refused_beside_a_good_client() {
    let mut door = Door::of("[api]\nhosts = [\"lamp.lan\"]\n").await;
    let close = "Connection: close\r\n\r\n";
    let own = format!("https://127.0.0.1:{}", door.node.address().port());
    let here = format!("Host: 127.0.0.1:{}\r\n", door.node.address().port());
    let socket = "Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: hearth.v1\r\n";
    let bearer = format!("Authorization: Bearer {}\r\n", door.token);
    let many = "X-Other: x\r\n".repeat(120);
    let knocks = [
        // Whom it is for.
        (format!("GET /healthz HTTP/1.1\r\n{GOOD}{close}"), 200),
        (format!("GET /healthz HTTP/1.1\r\nHost: Lamp.LAN:7843\r\n{close}"), 200),
        (format!("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n{close}"), 421),
        (format!("GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\n{bearer}{close}"), 421),
        (format!("POST /api/v1/setup HTTP/1.1\r\nHost: localhost.evil.example\r\n{close}"), 421),
        (format!("GET /healthz HTTP/1.1\r\n{close}"), 400),
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200),
        (format!("GET https://evil.example/healthz HTTP/1.1\r\n{GOOD}{close}"), 400),
        (format!("GET https://localhost/healthz HTTP/1.1\r\n{GOOD}{close}"), 200),
        (format!("GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n{close}"), 400),
        // Whose page it comes from.
        (format!("GET /api/v1/watch HTTP/1.1\r\n{here}{socket}Origin: https://evil.example\r\n\r\n"), 403),
        (format!("GET /api/v1/watch HTTP/1.1\r\n{here}{socket}{bearer}Origin: null\r\n\r\n"), 403),
        (
            format!("GET /api/v1/watch HTTP/1.1\r\n{here}{socket}{bearer}Origin: https://127.0.0.1\r\n\r\n"),
            403,
        ),
        (
            format!(
                "PATCH /api/v1/objects/note/x HTTP/1.1\r\n{here}{bearer}Origin: https://evil.example\r\n{close}"
            ),
            403,
        ),
        (format!("POST /api/v1/events HTTP/1.1\r\n{here}{bearer}Sec-Fetch-Site: cross-site\r\n{close}"), 403),
        (format!("OPTIONS /api/v1/status HTTP/1.1\r\n{here}Origin: https://evil.example\r\n{close}"), 403),
        (
            format!(
                "GET /api/v1/home HTTP/1.1\r\n{here}{bearer}Origin: {own}\r\nSec-Fetch-Site: same-origin\r\n{close}"
            ),
            200,
        ),
        // What could be read in two ways.
        (format!("GET /healthz HTTP/1.1\r\n{GOOD}{GOOD}{close}"), 400),
        (format!("GET /healthz HTTP/1.1\r\n{GOOD}{bearer}{bearer}{close}"), 400),
        (format!("GET /healthz HTTP/1.1\r\n{GOOD}X-Other: a\r\n b\r\n{close}"), 400),
        (format!("GET /healthz HTTP/1.1\r\nHost : localhost\r\n{close}"), 400),
        (
            format!("POST /api/v1/setup HTTP/1.1\r\n{GOOD}Content-Length: 1\r\nContent-Length: 2\r\n{close}"),
            400,
        ),
        (format!("POST /api/v1/setup HTTP/1.1\r\n{GOOD}Content-Length: +1\r\n{close}"), 400),
        (format!("POST /api/v1/setup HTTP/1.1\r\n{GOOD}Transfer-Encoding: gzip\r\n{close}"), 400),
        (
            format!("POST /api/v1/setup HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked, identity\r\n{close}"),
            400,
        ),
        (format!("POST /api/v1/setup HTTP/1.0\r\n{GOOD}Transfer-Encoding: chunked\r\n{close}"), 400),
        (format!("POST /api/v1/setup HTTP/1.1\r\n{GOOD}Content-Encoding: gzip\r\n{close}"), 415),
        (format!("POST /api/v1/setup HTTP/1.1\r\n{GOOD}Expect: more\r\n{close}"), 417),
        (format!("GET /healthz HTTP/1.1\r\n{GOOD}{many}{close}"), 431),
    ];
    for (number, (bytes, expected)) in (1..).zip(knocks) {
        let answer = door.answers(number, bytes.as_bytes()).await;
        let shown: String = bytes.chars().take(200).collect();
        assert_eq!(status(&answer), expected, "{shown}\n{answer}");
        let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        assert!(!head.contains("access-control-") && !head.contains("strict-transport"), "{head}");
        door.is_served().await;
    }
    // With both lengths the chunks count, nothing after them is a request, and the connection ends.
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let bytes = format!(
            "POST /api/v1/setup HTTP/1.1\r\n{GOOD}{lengths}\r\n\r\n0\r\n\r\nGET /api/v1/ca HTTP/1.1\r\n{GOOD}\r\n"
        );
        let answer = door.answers(99, bytes.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(!answer.contains("BEGIN CERTIFICATE"), "{answer}");
    }
    door.is_served().await;
    let trail = door.trail().await;
    let refused = |what: &str, outcome: &str| {
        trail.iter().any(|record| record["what"] == what && record["outcome"] == outcome)
    };
    assert!(refused("GET /healthz", "421") && refused("GET /api/v1/watch", "403"), "{trail:?}");
    assert!(!format!("{trail:?}").contains(&door.token));
}

#[tokio::test]
async fn who_asks_too_often_waits_whatever_it_claims_and_a_good_client_does_not() {
    let mut door = Door::of("").await;
    let mut stream = door.connect(1).await;
    let mut seen = String::new();
    // Faster than twenty a second, by any machine.
    for number in 0..10_000 {
        let request = format!(
            "GET /healthz HTTP/1.1\r\n{GOOD}X-Forwarded-For: 198.51.100.{}\r\nForwarded: for=10.0.0.1\r\n\r\n",
            number % 250
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut piece = [0; 4_096];
        let count = timeout(PATIENCE, stream.read(&mut piece)).await.unwrap().unwrap();
        seen = String::from_utf8_lossy(&piece[..count]).into_owned();
        if status(&seen) == 429 {
            break;
        }
    }
    assert_eq!(status(&seen), 429, "{seen}");
    assert!(seen.to_ascii_lowercase().contains("retry-after: 1"), "{seen}");
    assert!(seen.contains("urn:hearth:problem:too-many-requests"), "{seen}");
    // The good client comes from the very same address.
    door.is_served().await;
    let other =
        door.answers(2, format!("GET /healthz HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n").as_bytes()).await;
    assert_eq!(status(&other), 200, "{other}");
    let trail = door.trail().await;
    let paced = trail.iter().find(|record| record["outcome"] == "429").unwrap();
    assert_eq!(
        (&paced["from"], &paced["who"]),
        (&json!("127.0.0.1"), &json!("nobody")),
        "nobody is believed"
    );
}

#[tokio::test]
async fn a_proxy_that_is_configured_is_believed_and_nobody_else() {
    let door = Door::of("[api]\nproxies = [\"127.0.0.9\"]\nhosts = [\"home.example.org\"]\n").await;
    let delete = |headers: &str| {
        format!(
            "DELETE /api/v1/objects/note/x HTTP/1.1\r\n{GOOD}Authorization: Bearer {}\r\n{headers}Connection: close\r\n\r\n",
            door.token
        )
    };
    let forged = "X-Forwarded-For: 127.0.0.1, 198.51.100.7\r\nX-Forwarded-Host: home.example.org\r\n";
    assert_eq!(status(&door.answers(9, delete(forged).as_bytes()).await), 204);
    assert_eq!(status(&door.answers(8, delete(forged).as_bytes()).await), 204);
    let strange = "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Host: evil.example\r\n";
    assert_eq!(status(&door.answers(9, delete(strange).as_bytes()).await), 421);
    let both = "X-Forwarded-For: 198.51.100.7\r\nForwarded: for=127.0.0.1\r\n";
    assert_eq!(status(&door.answers(9, delete(both).as_bytes()).await), 400);
    let page = format!("{forged}Origin: https://home.example.org\r\n");
    assert_eq!(status(&door.answers(9, delete(&page).as_bytes()).await), 204);
    let trail = door.trail().await;
    let from: Vec<_> = trail
        .iter()
        .filter(|record| record["object"] == "note/x" && record["outcome"] == "204")
        .map(|record| (record["from"].as_str().unwrap(), record["via"].as_str()))
        .collect();
    assert_eq!(from[..2], [("198.51.100.7", Some("127.0.0.9")), ("127.0.0.8", None)], "{trail:?}");
}

#[tokio::test]
async fn who_is_slow_is_ended_and_nobody_waits_for_it() {
    let mut door = Door::of("").await;
    let mut silent = door.connect(1).await;
    let mut head = door.connect(2).await;
    head.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").await.unwrap();
    let mut body = door.connect(3).await;
    let begun = format!(
        "POST /api/v1/setup HTTP/1.1\r\n{GOOD}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    body.write_all(begun.as_bytes()).await.unwrap();
    door.is_served().await;
    let answers = tokio::join!(rest(&mut silent), rest(&mut head), rest(&mut body));
    assert!(!answers.0.contains(" 200 ") && !answers.1.contains(" 200 "), "{answers:?}");
    assert_eq!(status(&answers.2), 504, "{answers:?}");
    let mut good = web(&door.node, &door.token).session().await.unwrap();
    let answer = good.exchange("GET", "/api/v1/home", None::<(&str, &str)>).await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn two_thousand_idle_connections_of_many_addresses_starve_nobody() {
    let limits = getrlimit(Resource::Nofile);
    let wanted = limits.maximum.map_or(4_096, |most| most.min(4_096));
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(wanted), maximum: limits.maximum })
        .unwrap();
    let many = usize::try_from(wanted.saturating_sub(200)).unwrap().min(2_000);
    assert!(many >= 500, "this machine lets a test open {wanted} files only: raise `ulimit -n`");
    let mut door = Door::of("").await;
    let (mut secured, mut bare) = (Vec::new(), Vec::new());
    for number in 0..many {
        let address = u8::try_from(1 + number % 250).unwrap();
        // Every fourth comes through the handshake.
        if number % 4 == 0 {
            secured.push(door.connect(address).await);
        } else {
            bare.push(tcp(address, door.node.address()).await);
        }
        if number % 200 == 0 {
            let mut fresh = web(&door.node, &door.token).session().await.unwrap();
            let answer = fresh.exchange("GET", "/api/v1/home", None::<(&str, &str)>).await.unwrap();
            assert_eq!(answer.status, 200, "after {number}");
        }
    }
    let open = fs::read_dir(format!("/proc/{}/fd", door.node.pid().unwrap())).unwrap().count();
    assert!(open < 700, "{open} files are open for {many} connections");
    let answer = door
        .answers(251, format!("GET /healthz HTTP/1.1\r\n{GOOD}Connection: close\r\n\r\n").as_bytes())
        .await;
    assert_eq!(status(&answer), 200, "{answer}");
    drop((secured, bare));
    door.good = web(&door.node, &door.token).session().await.unwrap();
    door.is_served().await;
}

/// The first record that is as asked for, once there is one.
async fn record(node: &Daemon, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    wait_until(what, PATIENCE, async || {
        found = records(node).await.into_iter().find(|record| is_it(record)).unwrap_or_default();
        Ok(found.is_object())
    })
    .await
    .unwrap();
    found
}

/// The files of a ring.
fn newest(node: &Daemon, ring: &str) -> PathBuf {
    let folder = node.state_dir().join("audit");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(ring)).max().unwrap()
}

#[tokio::test]
async fn a_command_names_who_gave_it_on_both_nodes_and_the_trail_outlives_them() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    // Only one of them reaches the bulb: it carries out what the other takes.
    let owner = Plan::new("owner").config(config).variable("HEARTH_LOG", "debug");
    let owner = owner.start().await.unwrap();
    let mut taker = owner.joined("taker").await.unwrap();
    wait_until("the bulb is known", PATIENCE, async || {
        Ok(taker.fields(BULB).await?["availability"]["state"] == "online")
    })
    .await
    .unwrap();
    let (operator, viewer) = (taker.token("operator").await.unwrap(), taker.token("viewer").await.unwrap());
    let body = json!({"device": BULB, "change": {"on": true}, "wait": true, "deadline_ms": 20_000});
    let given = web(&taker, &operator).send("POST", "/api/v1/commands", Some(&body)).await.unwrap();
    let command = given.success().unwrap();
    let (id, by) = (command["id"].as_str().unwrap().to_owned(), command["by"].as_str().unwrap().to_owned());
    assert!(by.starts_with("token:") && !by.contains(&operator), "{by}");
    assert_eq!(command["state"], "confirmed", "{command}");
    let there = owner.client().get(&format!("/api/v1/commands/{id}")).await.unwrap().success().unwrap();
    assert_eq!(there["by"], json!(by));
    assert_eq!(owner.fields(BULB).await.unwrap()["desired"]["by"], json!(by));
    // In the log of whoever carries it out, by the node and by its adapter.
    let log = owner.log();
    for who in ["the command goes to its adapter", "an adapter takes a command in"] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(who) && line.contains(&id)).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(&by)), "{who}: {lines:?}");
    }
    assert!(!log.contains(&operator), "a name, never the token");
    let refused = web(&taker, &viewer).send("POST", "/api/v1/commands", Some(&body)).await.unwrap();
    assert_eq!(refused.status, 403);

    let taken = record(&taker, "it is taken in", |record| record["command"] == json!(id)).await;
    assert_eq!((&taken["what"], &taken["who"]), (&json!("command"), &json!(by)));
    assert_eq!((&taken["from"], &taken["object"]), (&json!("127.0.0.1"), &json!(BULB)));
    let done = record(&owner, "it is carried out", |record| record["command"] == json!(id)).await;
    assert_eq!((&done["what"], &done["outcome"]), (&json!("command carried out"), &json!("confirmed")));
    assert_eq!(
        (&done["who"], &done["from"]),
        (&json!(by), &Value::Null),
        "its address stays where it came in"
    );
    let kept_out = record(&taker, "it is refused", |record| record["outcome"] == "403").await;
    assert_eq!(kept_out["what"], "POST /api/v1/commands");
    assert!(kept_out["who"].as_str().unwrap().starts_with("token:") && kept_out["who"] != json!(by));
    let made = record(&taker, "the tokens were made", |record| record["what"] == "POST /api/v1/tokens").await;
    assert!(made["who"].as_str().unwrap().starts_with("socket:"), "{made}");

    // A scene is named beside who activated it.
    let scene = json!({"devices": {BULB: {"on": false}}});
    owner.client().send("PUT", "/api/v1/scenes/night", Some(&scene)).await.unwrap().success().unwrap();
    let wait = json!({"wait": true});
    let given = owner.client().send("POST", "/api/v1/scenes/night/activate", Some(&wait)).await;
    let given = given.unwrap().success().unwrap();
    let scene_by = given["commands"][0]["by"].as_str().unwrap();
    assert!(scene_by.starts_with("scene:night by socket:"), "{scene_by}");

    // Torn by a power cut.
    let before = records(&taker).await;
    taker.kill().await.unwrap();
    let file = newest(&taker, "deed-");
    let mut torn = fs::OpenOptions::new().append(true).open(&file).unwrap();
    torn.write_all(b"0badc0de {\"seq\":99,\"at\":1,\"wh").unwrap();
    taker.start().await.unwrap();
    let after = records(&taker).await;
    assert_eq!(after[..before.len()], before[..], "what was there is there");
    assert!(fs::read(&file).unwrap().ends_with(b"\n"), "the end is mended");
    assert!(taker.log().contains("torn end"), "and told");
    taker.cli(&["put", "note/after", "text=x"]).await.unwrap().ok().unwrap();
    let next = record(&taker, "it goes on", |record| record["object"] == "note/after").await;
    let last = before.iter().map(|record| record["seq"].as_u64().unwrap()).max().unwrap();
    assert!(next["seq"].as_u64().unwrap() > last);
    let shown = taker.cli(&["audit", "--object", BULB, "--who", &by]).await.unwrap().ok().unwrap();
    assert!(shown.text().contains("accepted") && shown.text().contains("OUTCOME"), "{}", shown.text());
    follows(&taker, last).await;
}

/// `hearth audit --follow` shows what is there, then what comes, a line for each, until it is interrupted.
async fn follows(node: &Daemon, before: u64) {
    let mut command = node.hearth().unwrap();
    command.args(["audit", "--follow", "--json", "--object", "note/"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut follow = command.spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("nothing comes").unwrap();
        line.map(|line| serde_json::from_str::<Value>(&line).unwrap())
    };
    assert_eq!(next().await.unwrap()["object"], "note/after");
    for name in ["note/first", "note/second"] {
        node.cli(&["put", name, "text=x"]).await.unwrap().ok().unwrap();
        let seen = next().await.unwrap();
        assert_eq!((&seen["object"], &seen["outcome"]), (&json!(name), &json!("200")), "{seen}");
        assert!(
            seen["seq"].as_u64().unwrap() > before && seen["who"].as_str().unwrap().starts_with("socket:")
        );
    }
    let pid = Pid::from_raw(follow.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(next().await, None, "no half a line");
    let ended = timeout(PATIENCE, follow.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.signal(), Some(Signal::INT.as_raw()), "as every program that is interrupted");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
