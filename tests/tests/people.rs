//! People who sign in to real nodes: on every board, at the pace of the door, and out everywhere at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, net::SocketAddr, path::PathBuf, process::Stdio};

use hearth_tests::daemon::{
    Answer, Client, Daemon, Folder, PATIENCE, Plan, clean, discreet, free_port, program, wait_until,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};

const PASSWORD: &str = "correct horse battery";

async fn add(node: &Daemon, name: &str, role: &str, more: &[&str]) {
    let line = ["user", "add", name, "--role", role, "--password-stdin", "--json"];
    let line: Vec<&str> = line.iter().chain(more).copied().collect();
    node.cli_with(&line, format!("{PASSWORD}\n").as_bytes()).await.unwrap().ok().unwrap();
}

async fn login(web: &Client, user: &str, password: &str) -> Answer {
    let body = json!({ "user": user, "password": password });
    web.send("POST", "/api/v1/login", Some(&body)).await.unwrap()
}

/// Signs in; the client of a page of that node.
async fn signed_in(web: &Client, user: &str) -> (Client, String) {
    let answer = login(web, user, PASSWORD).await;
    answer.success().unwrap();
    let cookie = answer.cookie.unwrap();
    (web.with_cookie(&cookie, None), cookie)
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).await.unwrap().status
}

#[tokio::test]
async fn a_person_signs_in_on_one_board_is_known_on_all_and_out_everywhere_at_once() {
    let one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    add(&one, "ann", "operator", &[]).await;
    let (web_one, web_two) = (one.web(None).await.unwrap(), two.web(None).await.unwrap());
    let (here, cookie) = signed_in(&web_one, "ann").await;
    let there = web_two.with_cookie(&cookie, None);
    wait_until("the session has arrived", PATIENCE, async || Ok(status(&there, "/api/v1/me").await == 200))
        .await
        .unwrap();
    let me = there.get("/api/v1/me").await.unwrap().success().unwrap();
    assert_eq!((&me["user"], &me["role"]), (&json!("ann"), &json!("operator")));
    let write = json!({ "set": { "text": "by cookie" } });
    there.send("PATCH", "/api/v1/objects/note/x", Some(&write)).await.unwrap().success().unwrap();

    let mut observer = here.watch().await.unwrap();
    observer.subscribe(&["none/"], None).await.unwrap();
    assert_eq!(there.send("DELETE", "/api/v1/sessions", None).await.unwrap().status, 204);
    let ended = observer.next().await.unwrap_err().to_string();
    assert!(ended.contains("4401"), "{ended}");
    for client in [&here, &there] {
        assert_eq!(client.get("/api/v1/me").await.unwrap().problem().unwrap(), "unauthenticated");
    }

    // Whoever an admin disables, or gives another role, is out as well.
    let (here, _) = signed_in(&web_one, "ann").await;
    let mut observer = here.watch().await.unwrap();
    observer.subscribe(&["none/"], None).await.unwrap();
    two.cli(&["user", "set-role", "ann", "viewer"]).await.unwrap().ok().unwrap();
    assert!(observer.next().await.unwrap_err().to_string().contains("4401"));
    wait_until("the role has arrived", PATIENCE, async || {
        Ok(login(&web_one, "ann", PASSWORD).await.json()?["role"] == "viewer")
    })
    .await
    .unwrap();
    two.cli(&["user", "disable", "ann"]).await.unwrap().ok().unwrap();
    assert_eq!(login(&web_two, "ann", PASSWORD).await.problem().unwrap(), "wrong-password");
    two.cli(&["user", "enable", "ann"]).await.unwrap().ok().unwrap();
    assert_eq!(login(&web_two, "ann", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn wrong_passwords_are_paced_over_a_restart_and_a_kill() {
    let mut node = Daemon::found("one").await.unwrap();
    add(&node, "ann", "viewer", &[]).await;
    let web = node.web(None).await.unwrap();
    let mut tried = 0;
    let paced = loop {
        let answer = login(&web, "ann", "wrong horse").await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.problem().unwrap(), "wrong-password");
        tried += 1;
        assert!(tried < 10, "nobody paces it");
    };
    assert_eq!(paced.problem().unwrap(), "too-many-attempts");
    // On to a wait that outlasts a restart.
    let mut wait = paced.retry_after.unwrap();
    let mut rounds = 0;
    while wait < 16 {
        rounds += 1;
        assert!(rounds < 12, "the wait does not grow: {wait} s");
        wait_until("the next try is let through", PATIENCE, async || {
            Ok(login(&web, "ann", "wrong horse").await.status == 401)
        })
        .await
        .unwrap();
        // None where the wait was over before this came.
        wait = login(&web, "ann", "wrong horse").await.retry_after.unwrap_or_default();
    }
    assert_eq!(node.stop().await.unwrap(), Some(0));
    node.start().await.unwrap();
    let web = node.web(None).await.unwrap();
    let held_up = login(&web, "ann", PASSWORD).await;
    assert_eq!(held_up.status, 429, "not even the right one: {held_up:?}");
    // What is on the disk is not lost by a kill either.
    node.kill().await.unwrap();
    node.start().await.unwrap();
    let web = node.web(None).await.unwrap();
    assert_eq!(login(&web, "ann", PASSWORD).await.status, 429);
    wait_until("the wait is over", PATIENCE, async || Ok(login(&web, "ann", PASSWORD).await.status == 200))
        .await
        .unwrap();
    // Known here by now: what others try elsewhere does not hold her up, nor do her few mistakes.
    assert_eq!(login(&web, "ann", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn the_setup_code_lives_while_it_is_asked_for_and_makes_one_admin() {
    let mut node = Daemon::found("one").await.unwrap();
    let web = node.web(None).await.unwrap();
    let setup = async |web: &Client, code: &str, user: &str| {
        let body = json!({ "code": code, "user": user, "password": PASSWORD });
        web.send("POST", "/api/v1/setup", Some(&body)).await.unwrap()
    };
    assert!(!node.log().contains(SETUP_CODE), "a journal is read by others: {}", node.log());
    let none = setup(&web, "AAAA-AAAA-AAAA", "eve").await;
    assert_eq!((none.status, none.problem().unwrap().as_str()), (404, "no-setup-code"));
    assert!(!node.state_dir().join("setup-code").exists(), "nobody has asked for one");

    let shown = node.json(&["setup-code"]).await.unwrap();
    let left = shown["seconds_left"].as_u64().unwrap();
    assert!((1..=900).contains(&left), "{shown}");
    let code = shown["code"].as_str().unwrap().to_owned();
    node.stop().await.unwrap();
    node.start().await.unwrap();
    let again = node.json(&["setup-code"]).await.unwrap();
    assert_eq!(again["code"], code.as_str(), "a restart keeps it, for the rest of its time");
    assert!(again["seconds_left"].as_u64().unwrap() <= left, "{again}");
    let web = node.web(None).await.unwrap();
    let made = setup(&web, &code.to_lowercase(), "ann").await;
    assert_eq!((made.status, &made.success().unwrap()["role"]), (201, &json!("admin")));
    let ann = web.with_cookie(&made.cookie.unwrap(), None);
    let users = ann.get("/api/v1/users").await.unwrap().success().unwrap();
    assert_eq!(users["users"][0]["name"], "ann");
    assert_eq!(setup(&web, &code, "eve").await.problem().unwrap(), "setup-code-used");
    let log = node.log();
    assert!(log.contains("a person has signed in user=ann") && log.contains("from=\"127.0.0.1\""), "{log}");
    assert!(!log.contains(&code), "the code never goes to the log");

    // The last admin stays, unless somebody on the board insists.
    for body in [json!({ "role": "viewer" }), json!({ "enabled": false })] {
        let last = ann.send("PATCH", "/api/v1/users/ann", Some(&body)).await.unwrap();
        assert_eq!((last.status, last.problem().unwrap().as_str()), (409, "last-admin"));
    }
    assert_eq!(ann.send("DELETE", "/api/v1/users/ann", None).await.unwrap().problem().unwrap(), "last-admin");
    node.cli(&["user", "remove", "ann"]).await.unwrap().ok().unwrap();
    assert_eq!(status(&ann, "/api/v1/me").await, 401);
}

/// How the terminal is told.
const SETUP_CODE: &str = "setup code for the first admin";

/// A node whose standard input and output are a terminal, as `script` of Debian's bsdutils makes one.
struct AtTerminal {
    script: Child,
    state: PathBuf,
    address: SocketAddr,
    seen: String,
}

impl AtTerminal {
    fn start(state: PathBuf, address: SocketAddr) -> Self {
        let config = state.with_extension("toml");
        fs::write(&config, discreet("")).unwrap();
        let hearth = program().unwrap();
        // `script` has a shell run the line. One that stays beside the node hears Ctrl-C as well, and some then answer
        // with a code of their own.
        let (hearth, home) = (hearth.display(), state.display());
        let line = format!("exec {hearth} run --name one --listen {address} --state-dir {home}");
        let mut script = std::process::Command::new("script");
        clean(&mut script);
        // Quiet, each piece at once, with the exit code of what ran, and no other record than what is printed.
        script.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]);
        script
            .env("HEARTH_CONFIG", config)
            .env("HEARTH_DISCOVERY_MDNS", "false")
            .env("HEARTH_CLOCK", "untrusted");
        let mut script = Command::from(script);
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        Self { script: script.spawn().expect("`script`"), state, address, seen: String::new() }
    }

    /// Reads on until it has said so much; answers with all that it has said.
    async fn says(&mut self, what: &str) -> &str {
        let screen = self.script.stdout.as_mut().unwrap();
        let reading = async {
            let mut piece = [0; 1_024];
            while !self.seen.contains(what) {
                let count = screen.read(&mut piece).await.unwrap();
                assert!(count > 0, "it ended without {what:?}: {}", self.seen);
                self.seen.push_str(&String::from_utf8_lossy(&piece[..count]));
            }
        };
        let said = timeout(PATIENCE, reading).await;
        said.unwrap_or_else(|_| panic!("{what:?} never came: {}", self.seen));
        &self.seen
    }

    fn web(&self) -> Client {
        Client::web(self.address, &fs::read_to_string(self.state.join("ca.pem")).unwrap(), None).unwrap()
    }

    /// Ctrl-C.
    async fn interrupted(mut self) {
        self.script.stdin.as_mut().unwrap().write_all(&[3]).await.unwrap();
        let mut rest = Vec::new();
        let ending = async {
            self.script.stdout.as_mut().unwrap().read_to_end(&mut rest).await.unwrap();
            self.script.wait().await.unwrap()
        };
        let ended = timeout(PATIENCE, ending).await.expect("it ends");
        let rest = String::from_utf8_lossy(&rest);
        assert!(ended.success(), "{ended}, after it said {rest}");
    }
}

#[tokio::test]
async fn whoever_founds_a_household_at_a_terminal_sees_the_setup_code_there() {
    let folder = Folder::new().unwrap();
    let state = folder.join("one");
    fs::create_dir(&state).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let mut node = AtTerminal::start(state.clone(), address);
    // The line after it: all of the code is there.
    let screen = node.says("hearth invite").await;
    let line = screen.lines().find(|line| line.contains(SETUP_CODE)).expect(screen);
    let code = line.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(code.len(), "KT4M-9QWZ-H2PC".len(), "{line}");
    let body = json!({ "code": code, "user": "ann", "password": PASSWORD });
    let made = node.web().send("POST", "/api/v1/setup", Some(&body)).await.unwrap();
    assert_eq!((made.status, &made.success().unwrap()["role"]), (201, &json!("admin")));
    node.interrupted().await;

    // A household that is there shows none: whoever has come in makes the others.
    let mut again = AtTerminal::start(state, address);
    let screen = again.says("hearth status").await;
    assert!(screen.contains("is ready") && !screen.contains(SETUP_CODE), "{screen}");
    let ann = login(&again.web(), "ann", PASSWORD).await;
    assert_eq!(ann.status, 200, "{ann:?}");
    again.interrupted().await;
}

#[tokio::test]
async fn another_site_gets_nothing_done_by_a_cookie() {
    let node = Daemon::found("one").await.unwrap();
    add(&node, "ann", "admin", &[]).await;
    let web = node.web(None).await.unwrap();
    let (own, cookie) = signed_in(&web, "ann").await;
    let write = json!({ "set": { "text": "x" } });
    for origin in ["https://evil.example", "null", &format!("http://{}", node.address()), ""] {
        let evil = web.with_cookie(&cookie, Some(origin));
        for (method, path) in [
            ("PATCH", "/api/v1/objects/note/x"),
            ("POST", "/api/v1/logout"),
            ("DELETE", "/api/v1/sessions"),
            ("DELETE", "/api/v1/users/ann"),
        ] {
            let refused = evil.send(method, path, Some(&write)).await.unwrap();
            assert_eq!(
                (refused.status, refused.problem().unwrap().as_str()),
                (403, "foreign-origin"),
                "{origin}"
            );
        }
        assert!(evil.watch().await.is_err(), "no WebSocket for {origin}");
    }
    assert_eq!(node.fields("note/x").await.unwrap(), Value::Null);
    own.send("PATCH", "/api/v1/objects/note/x", Some(&write)).await.unwrap().success().unwrap();
    own.watch().await.unwrap().subscribe(&["note/"], None).await.unwrap();
    // A confined admin there is not.
    let confined = node
        .cli_with(
            &["user", "add", "ben", "--role", "admin", "--area", "hall", "--password-stdin"],
            PASSWORD.as_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(confined.code, 6, "{confined:?}");
}

#[tokio::test]
async fn no_answer_export_or_log_shows_a_password_its_hash_or_a_session() {
    let node = Plan::new("one").variable("HEARTH_LOG", "trace").start().await.unwrap();
    add(&node, "ann", "admin", &[]).await;
    let web = node.web(None).await.unwrap();
    let (ann, cookie) = signed_in(&web, "ann").await;
    login(&web, PASSWORD, "a password in the wrong box").await;
    let secret = cookie.split_once('=').unwrap().1.to_owned();
    let hidden = ["argon2id", PASSWORD, &secret, "a password in the wrong box"];
    let mut shown = String::new();
    for path in [
        "/api/v1/objects?incomplete=true&limit=1000",
        "/api/v1/objects/user/ann?incomplete=true",
        "/api/v1/users",
        "/api/v1/users/ann",
        "/api/v1/sessions",
        "/api/v1/me",
        "/api/v1/status",
        "/api/v1/doctor",
        "/api/v1/tokens",
        "/api/v1/export",
        "/metrics",
    ] {
        let answer = ann.get(path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
        shown.push_str(&answer.body);
    }
    assert!(shown.contains("user/ann") && shown.contains("hearth_sign_in_accepted_total 1"));
    let mut observer = ann.watch().await.unwrap();
    for message in observer.subscribe(&[""], None).await.unwrap().0 {
        shown.push_str(&message.to_string());
    }
    for line in
        [&["user", "list", "--json"][..], &["user", "show", "ann"], &["sessions"], &["get", "user/ann"]]
    {
        shown.push_str(&node.cli(line).await.unwrap().ok().unwrap().stdout);
    }
    let backup = node.state_dir().join("home.hearth");
    node.cli(&["backup", backup.to_str().unwrap()]).await.unwrap().ok().unwrap();
    let objects = node.state_dir().join("objects.ndjson");
    let line = ["restore", backup.to_str().unwrap(), "--objects", objects.to_str().unwrap()];
    node.cli(&line).await.unwrap().ok().unwrap();
    shown.push_str(&std::fs::read_to_string(&objects).unwrap());
    shown.push_str(&node.log());
    for secret in hidden {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}
