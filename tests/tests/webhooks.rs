//! Starts from outside, and calls to outside: two nodes, whoever calls a path of theirs, and a program that they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use hearth_tests::{
    daemon::{Answer, Client, Daemon, Launch, PATIENCE, Plan, wait_until},
    fakes::web::{Heard, Reply, Site, Web},
};
use serde_json::{Value, json};

/// A program that is called and remembers by what.
#[derive(Default)]
struct Called(Mutex<Vec<Heard>>);

impl Called {
    fn heard(&self) -> Vec<Heard> {
        self.0.lock().unwrap().clone()
    }
}

impl Site for Called {
    fn answer(&self, heard: &Heard) -> Reply {
        self.0.lock().unwrap().push(heard.clone());
        Reply::good(Value::Null)
    }

    fn socket(&self) -> &'static str {
        "/nothing"
    }

    fn open(&self) -> Option<String> {
        None
    }

    fn said(&self, _: &str) -> (Option<String>, bool) {
        (None, false)
    }

    fn news(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Two nodes that log everything.
async fn household() -> [Daemon; 2] {
    let plan = |name| {
        let launch = Launch::new().with(&["--log", "debug,node=trace,hyper=trace,axum=trace"]);
        Plan::new(name).launch(launch)
    };
    let one = plan("one").start().await.unwrap();
    let two = one.joined_by(plan("two")).await.unwrap();
    [one, two]
}

/// Stores an automation, and waits until every node shows it.
async fn automate(nodes: &[Daemon], name: &str, program: Value) {
    let path = format!("/api/v1/automations/{name}");
    nodes[0].client().send("PUT", &path, Some(&program)).await.unwrap().success().unwrap();
    for node in nodes {
        let there = wait_until("it is there", PATIENCE, async || {
            Ok(automation(node, name).await?["program"]["triggers"] == program["triggers"])
        });
        there.await.unwrap();
    }
}

async fn automation(node: &Daemon, name: &str) -> anyhow::Result<Value> {
    node.client().get(&format!("/api/v1/automations/{name}")).await?.success()
}

/// The node that starts it, and the other one.
async fn sides<'n>(nodes: &'n [Daemon; 2], name: &str) -> (&'n Daemon, &'n Daemon) {
    let by = automation(&nodes[0], name).await.unwrap()["by"].as_str().unwrap().to_owned();
    if by == nodes[0].name() { (&nodes[0], &nodes[1]) } else { (&nodes[1], &nodes[0]) }
}

/// Makes a fresh path, and waits until every node knows it.
async fn path(nodes: &[Daemon], name: &str) -> String {
    let made = nodes[0].json(&["automation", "webhook", name]).await.unwrap();
    let path = made["path"].as_str().unwrap().to_owned();
    assert_eq!(path.strip_prefix("/hooks/").unwrap().len(), 32);
    assert!(made["urls"][0].as_str().unwrap().ends_with(&path) && made["name"] == name, "{made}");
    for node in nodes {
        let known = wait_until("its path is known", PATIENCE, async || {
            Ok(automation(node, name).await?["webhook"] == true)
        });
        known.await.unwrap();
    }
    path
}

async fn call(client: &Client, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    client.send_as("POST", path, Some(("application/json", body.into()))).await.unwrap()
}

/// A client over the network without a token, as other programs are.
async fn stranger(node: &Daemon) -> Client {
    node.web(None).await.unwrap()
}

/// Waits until the node shows so many runs of it, all ended; the latest first.
async fn runs(node: &Daemon, name: &str, count: usize) -> Vec<Value> {
    let mut runs = Vec::new();
    let ended = wait_until("the runs have ended", PATIENCE, async || {
        runs = automation(node, name).await?["runs"].as_array().unwrap().clone();
        Ok(runs.len() == count && runs.iter().all(|run| !run["ended"].is_null()))
    });
    let ended = ended.await;
    assert!(ended.is_ok(), "{count} runs: {runs:?}");
    runs
}

/// Nothing of a path is where people look who need not know it.
async fn keeps_secret(node: &Daemon, paths: &[&str]) {
    let shown = [
        node.log(),
        node.cli(&["export"]).await.unwrap().ok().unwrap().stdout,
        node.client().get("/metrics").await.unwrap().body,
        node.client().get("/api/v1/automations").await.unwrap().body,
        node.client().get("/api/v1/objects?incomplete=true").await.unwrap().body,
    ];
    assert!(shown.iter().all(|text| !text.is_empty()));
    for path in paths {
        let token = path.strip_prefix("/hooks/").unwrap();
        for (place, text) in shown.iter().enumerate() {
            let line = text.lines().find(|line| line.contains(token));
            assert_eq!(line, None, "place {place} shows it");
        }
    }
}

#[tokio::test]
async fn a_path_starts_its_automation_once_whichever_node_is_called_and_allowed_hosts_alone_are() {
    let called = Arc::new(Called::default());
    let web = Web::start(called.clone()).await.unwrap();
    let host = web.address().to_string();
    let nodes = household().await;
    let program = json!({
        "triggers": [{"webhook": true}], "mode": "parallel",
        "actions": [{"http": {
            "url": format!("http://{host}/rang?key=word"),
            "body": {"kind": "{{ trigger.kind }}", "count": "{{ trigger.data.count }}"}
        }}]
    });
    automate(&nodes, "bell", program).await;
    let view = automation(&nodes[0], "bell").await.unwrap();
    assert_eq!((&view["state"], &view["webhook"]), (&"waiting".into(), &false.into()));
    assert!(view["reason"].as_str().unwrap().contains("hearth automation webhook bell"), "{view}");

    let path = path(&nodes, "bell").await;
    let (starts, other) = sides(&nodes, "bell").await;
    assert_eq!(automation(other, "bell").await.unwrap()["reason"], Value::Null);
    let client = stranger(other).await;
    let answer = call(&client, &path, r#"{"count": 2}"#).await;
    assert_eq!((answer.status, answer.json().unwrap()), (202, json!({"accepted": true})));
    let refused = runs(other, "bell", 1).await.remove(0);
    assert_eq!((&refused["state"], &refused["node"]), (&"failed".into(), &starts.name().into()), "{refused}");
    assert_eq!(refused["why"], "its webhook was called");
    let line = &refused["trace"][0];
    assert_eq!(line["what"], format!("POST {host}"), "{refused}");
    let said = format!("{host} may not be called: hearth home set --allow-http {host}");
    assert_eq!(line["outcome"], said, "{refused}");

    other.cli(&["home", "set", "--allow-http", &host]).await.unwrap().ok().unwrap();
    for node in &nodes {
        let known = wait_until("it may be called", PATIENCE, async || {
            Ok(node.json(&["home"]).await?["allowed_http"] == json!([host]))
        });
        known.await.unwrap();
    }
    assert!(called.heard().is_empty());
    // The task that knows of it may be a moment behind the one that shows it.
    let goes = wait_until("it is called", PATIENCE, async || {
        call(&client, &path, r#"{"count": 3}"#).await;
        Ok(!called.heard().is_empty())
    });
    goes.await.unwrap();
    let heard = called.heard().remove(0);
    assert_eq!((heard.method.as_str(), heard.path.as_str()), ("POST", "/rang?key=word"));
    assert_eq!(heard.body, json!({"kind": "webhook", "count": 3}));

    other.cli(&["home", "set", "--deny-http", &host]).await.unwrap().ok().unwrap();
    let closed = wait_until("it may not be called any more", PATIENCE, async || {
        call(&client, &path, r#"{"count": 4}"#).await;
        let latest = automation(other, "bell").await?["runs"][0].clone();
        Ok(latest["trace"][0]["outcome"].as_str().unwrap_or_default().contains("may not be called"))
    });
    closed.await.unwrap();
    let metrics = other.client().get("/metrics").await.unwrap().body;
    assert!(metrics.contains("/hooks/{token}"), "calls are counted by their route: {metrics}");
    for node in &nodes {
        keeps_secret(node, &[&path]).await;
    }
}

#[tokio::test]
async fn a_path_is_bounded_and_limited_renewed_and_taken_away() {
    let nodes = household().await;
    let program =
        json!({"triggers": [{"webhook": true}], "actions": [{"event": "chime"}], "mode": "parallel"});
    automate(&nodes, "bell", program).await;
    automate(&nodes, "deaf", json!({"triggers": [{"event": "x"}], "actions": [{"event": "chime"}]})).await;
    let deaf = nodes[1].cli(&["automation", "webhook", "deaf"]).await.unwrap();
    assert!(deaf.code != 0 && deaf.stderr.contains("add {\"webhook\": true}"), "{}", deaf.stderr);
    let first = path(&nodes, "bell").await;
    let (starts, other) = sides(&nodes, "bell").await;
    let client = stranger(other).await;

    for (body, status, part) in [
        (vec![b'x'; 1_025], 413, "1024 bytes"),
        (vec![0xff, 0xfe], 422, "neither JSON nor text"),
        (format!("{}{}", "[".repeat(40), "]".repeat(40)).into_bytes(), 422, "deeper than 5"),
        (b"[[[[[[1]]]]]]".to_vec(), 422, "deeper than 5"),
        (b"99999999999999999999".to_vec(), 400, "64 bits"),
        // A text, as long as can be.
        (format!("parcel 99999999999999999999 {}", "[".repeat(994)).into_bytes(), 202, "accepted"),
    ] {
        let answer = call(&client, &first, body).await;
        assert!(answer.status == status && answer.body.contains(part), "{answer:?}");
    }
    let whole = runs(other, "bell", 1).await.remove(0);
    assert_eq!((&whole["state"], &whole["node"]), (&"done".into(), &starts.name().into()), "{whole}");
    let read = client.get(&first).await.unwrap();
    assert_eq!(
        (read.status, read.problem().unwrap().as_str()),
        (405, "method"),
        "to look at it calls nothing"
    );
    let put = client.send_as("PUT", &first, None::<(&str, Vec<u8>)>).await.unwrap();
    assert_eq!(put.status, 202, "{put:?}");

    let mut limited = None;
    for _ in 0..100 {
        let answer = call(&client, &first, "1").await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let limited = limited.unwrap();
    assert_eq!(limited.problem().unwrap(), "too-often");
    assert!(matches!(limited.retry_after, Some(1..=4)), "{limited:?}");

    let second = path(&nodes, "bell").await;
    assert_ne!(first, second);
    // One after the other: what is void counts as a guess, and few are free.
    for node in [other, starts] {
        let client = stranger(node).await;
        let void = wait_until("the first path is void", PATIENCE, async || {
            Ok(call(&client, &first, "1").await.status == 404)
        });
        void.await.unwrap();
    }
    let nowhere = call(&client, "/nowhere", "1").await;
    let guess = call(&stranger(starts).await, "/hooks/guess", "1").await;
    assert_eq!((guess.status, &guess.body), (404, &nowhere.body), "it says no more than of any other path");
    let again = wait_until("the second path counts", PATIENCE, async || {
        Ok(call(&client, &second, "1").await.status == 202)
    });
    again.await.unwrap();

    let body = json!({"enabled": false});
    other.client().send("PATCH", "/api/v1/automations/bell", Some(&body)).await.unwrap().success().unwrap();
    let closed = wait_until("it is off", PATIENCE, async || {
        let answer = call(&client, &second, "1").await;
        Ok(answer.status == 409 && answer.body.contains("its automation is off"))
    });
    closed.await.unwrap();

    other.cli(&["automation", "webhook", "bell", "--revoke"]).await.unwrap().ok().unwrap();
    let gone = wait_until("the second path is void", PATIENCE, async || {
        let void = call(&client, &second, "1").await.status == 404;
        Ok(void && automation(starts, "bell").await?["webhook"] == false)
    });
    gone.await.unwrap();
    let none = starts.cli(&["automation", "webhook", "bell", "--revoke"]).await.unwrap();
    assert!(none.code != 0 && none.stderr.contains("path of automation `bell`"), "{}", none.stderr);
    let paced = wait_until("guesses have to wait", PATIENCE, async || {
        let answer = call(&client, "/hooks/guess", "1").await;
        Ok(answer.status == 429 && answer.retry_after.is_some() && answer.problem()? == "too-many-attempts")
    });
    paced.await.unwrap();
    for node in &nodes {
        keeps_secret(node, &[&first, &second]).await;
    }
}

#[tokio::test]
async fn somebody_starts_one_at_any_node_and_it_runs_once() {
    let nodes = household().await;
    let hall = json!({"triggers": [{"event": "never"}], "actions": [{"event": "chime"}], "mode": "parallel"});
    automate(&nodes, "hall", hall).await;
    automate(&nodes, "all", json!({"triggers": [{"event": "*"}], "actions": [{"delay": "1ms"}]})).await;
    let (starts, other) = sides(&nodes, "hall").await;
    for (count, node) in [(1, other), (2, starts)] {
        let started = node.client().send("POST", "/api/v1/automations/hall/start", None).await.unwrap();
        assert_eq!(started.status, 202, "{started:?}");
        for node in &nodes {
            let runs = runs(node, "hall", count).await;
            for run in &runs {
                let by = run["by"].as_str().unwrap();
                assert!(by.starts_with("socket:"), "{run}");
                let why = format!("{by} started it");
                assert_eq!((&run["why"], &run["node"]), (&why.into(), &starts.name().into()));
            }
        }
        // What each run tells the home is heard, what the nodes tell one another is not.
        let heard = self::runs(other, "all", count).await;
        assert!(heard.iter().all(|run| run["why"] == "event chime" && run["by"].is_null()), "{heard:?}");
    }
    let event = json!({"topic": "hearth.start", "data": {"automation": "hall", "by": "hand"}});
    let refused = other.client().send("POST", "/api/v1/events", Some(&event)).await.unwrap();
    assert!(refused.status == 422 && refused.body.contains("the nodes' own"), "{refused:?}");
    let published = other.cli(&["event", "publish", "hearth.start"]).await.unwrap();
    assert!(published.code != 0 && published.stderr.contains("the nodes' own"), "{}", published.stderr);
    let body = json!({"enabled": false});
    other.client().send("PATCH", "/api/v1/automations/hall", Some(&body)).await.unwrap().success().unwrap();
    let off = wait_until("one that is off is not started", PATIENCE, async || {
        let answer = other.client().send("POST", "/api/v1/automations/hall/start", None).await?;
        Ok(answer.status == 409 && answer.body.contains("hearth automation enable hall"))
    });
    off.await.unwrap();
}

#[tokio::test]
async fn a_home_says_whom_it_may_call_before_it_says_where_it_is() {
    let node = Daemon::found("alone").await.unwrap();
    for (words, part) in [
        (&["home", "set", "--allow-http", "http://example.org/x"][..], "is no host"),
        (&["home", "set", "--allow-http", "me@example.org"], "HOST:PORT"),
        (&["home", "set", "--deny-http", "example.org"], "is not among"),
        (&["home", "set"], "--allow-http"),
    ] {
        let refused = node.cli(words).await.unwrap();
        assert!(refused.code != 0 && refused.stderr.contains(part), "{words:?}: {}", refused.stderr);
    }
    for host in ["Example.org", "[::1]:8080"] {
        node.cli(&["home", "set", "--allow-http", host]).await.unwrap().ok().unwrap();
    }
    let shown = wait_until("it shows both", PATIENCE, async || {
        Ok(node.json(&["home"]).await?["allowed_http"] == json!(["[::1]:8080", "example.org"]))
    });
    shown.await.unwrap();
    let text = node.cli(&["home"]).await.unwrap().ok().unwrap().stdout;
    assert!(text.contains("http   [::1]:8080, example.org"), "{text}");
    let program = json!({
        "triggers": [{"event": "x"}], "actions": [{"http": {"url": "http://me:word@example.org/"}}]
    });
    let stored = node.client().send("PUT", "/api/v1/automations/x", Some(&program)).await.unwrap();
    assert_eq!(stored.status, 200, "{stored:?}");
    let known = wait_until("its fault is named", PATIENCE, async || {
        let view = automation(&node, "x").await?;
        let reason = view["reason"].as_str().unwrap_or_default().to_owned();
        Ok(view["state"] == "invalid" && reason.contains("without a name or a password"))
    });
    known.await.unwrap();
}
