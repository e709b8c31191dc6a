//! Every command of the command line answers in JSON to those who ask for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeSet, process::Stdio};

use clap::CommandFactory as _;
use hearth_tests::{
    daemon::{self, Daemon, Folder, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
    fakes::issuer::Issuer,
};
use node::cli::args::Cli;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

const BULB: &str = "device/lifx-d073d5000001";

/// The commands that do something by themselves, by their words: `token create`, and `invite` as well as `invite list`.
fn commands() -> BTreeSet<String> {
    fn walk(command: &clap::Command, words: &str, found: &mut BTreeSet<String>) {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let words = format!("{words} {}", inner.get_name()).trim().to_owned();
            walk(inner, &words, found);
            if !inner.is_subcommand_required_set() {
                found.insert(words);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&Cli::command(), "", &mut found);
    found
}

/// Runs commands with `--json`, and knows which have not been run.
struct Tries {
    all: BTreeSet<String>,
    left: BTreeSet<String>,
}

impl Tries {
    fn new() -> Self {
        let all = commands();
        assert!(["token create", "invite", "invite list", "status"].iter().all(|known| all.contains(*known)));
        Self { left: all.clone(), all }
    }

    fn note(&mut self, args: &[&str]) {
        let mut ways = (1..=args.len()).rev().map(|length| args[..length].join(" "));
        let command = ways.find(|words| self.all.contains(words)).expect("a command");
        self.left.remove(&command);
    }

    /// The documents that a command prints, one a line; it succeeds, and says nothing else.
    async fn documents(&mut self, node: &Daemon, args: &[&str]) -> Vec<Value> {
        self.note(args);
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let ended = node.cli(&args).await.unwrap().ok().unwrap();
        assert_eq!(ended.stderr, "", "{args:?}");
        let read = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{args:?} prints {line}"));
        ended.stdout.lines().map(read).collect()
    }

    /// The one document that a command prints.
    async fn one(&mut self, node: &Daemon, args: &[&str]) -> Value {
        let documents = self.documents(node, args).await;
        let [document] = &documents[..] else { panic!("{args:?} prints {documents:?}") };
        document.clone()
    }
}

#[tokio::test]
async fn every_command_prints_json() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    let mut one = Plan::new("one").config(config).start().await.unwrap();
    let folder = Folder::new().unwrap();
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut tries = Tries::new();

    // Of the program and its configuration.
    assert!(tries.one(&one, &["version"]).await["version"].is_string());
    assert_eq!(tries.one(&one, &["exit-codes"]).await["exit_codes"][0]["code"], 0);
    assert!(tries.one(&one, &["config", "default"]).await["toml"].is_string());
    assert!(tries.one(&one, &["config", "show"]).await["settings"].is_array());
    assert!(tries.one(&one, &["completions", "bash"]).await["script"].is_string());
    assert!(tries.one(&one, &["time"]).await["rests_on"].is_string());
    assert_eq!(tries.one(&one, &["time", "set", "now"]).await["rests_on"], "person");
    assert!(tries.one(&one, &["man", &file("")]).await["pages"].as_u64().unwrap() > 10);

    // Of the household.
    let two = one.joined("two").await.unwrap();
    let three = Daemon::found("three").await.unwrap();
    let invite = tries.one(&one, &["invite"]).await;
    assert!(tries.one(&one, &["invite", "list"]).await["invites"].is_array());
    tries.one(&three, &["join", invite["token"].as_str().unwrap()]).await;
    one.sees(&three, "alive").await.unwrap();
    let spare = tries.one(&one, &["invite"]).await;
    assert_eq!(tries.one(&one, &["invite", "revoke", spare["id"].as_str().unwrap()]).await["revoked"], true);
    assert_eq!(tries.one(&one, &["status"]).await["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(tries.one(&one, &["nodes"]).await["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(tries.one(&one, &["nodes", "list"]).await["nodes"].as_array().unwrap().len(), 3);
    tries.one(&one, &["nodes", "rename", "three", "attic"]).await;
    tries.one(&three, &["leave"]).await;
    tries.one(&one, &["nodes", "remove", &two.id().await.unwrap(), "--yes"]).await;

    // Of objects and devices.
    assert_eq!(tries.one(&one, &["put", "note/x", "text=milk"]).await["fields"]["text"], "milk");
    assert_eq!(tries.one(&one, &["get", "note/x"]).await["id"], "note/x");
    assert_eq!(tries.one(&one, &["get", "note/x", "text"]).await, "milk");
    assert_eq!(tries.one(&one, &["list", "note/"]).await["objects"][0]["id"], "note/x");
    let watched = tries.one(&one, &["watch", "note/", "--count", "1"]).await;
    assert_eq!(watched["object"]["id"], "note/x");
    wait_until("the bulb is there", PATIENCE, async || {
        Ok(one.fields(BULB).await?["availability"]["state"] == "online")
    })
    .await
    .unwrap();
    assert_eq!(tries.one(&one, &["devices"]).await["devices"][0]["id"], BULB);
    assert_eq!(tries.one(&one, &["light", BULB, "on", "--deadline", "20s"]).await["state"], "confirmed");
    assert_eq!(tries.one(&one, &["history", BULB]).await["device"], BULB);

    assert_eq!(tries.one(&one, &["switch", BULB, "off", "--deadline", "20s"]).await["state"], "confirmed");
    tries.note(&["press"]);
    let pressed = one.cli(&["press", BULB, "--json"]).await.unwrap();
    let problem: Value = serde_json::from_str(&pressed.stderr).unwrap();
    assert_eq!(problem["type"], "urn:hearth:problem:not-capable", "{problem}");
    assert_eq!(tries.one(&one, &["home", "set", "--zone", "UTC"]).await["zone"], "UTC");
    assert_eq!(tries.one(&one, &["home"]).await["zone"], "UTC");
    let set = ["schedule", "set", "noon", "cron 0 12 * * *", "--", "light", BULB, "on"];
    tries.note(&set[..2]);
    let made: Value =
        serde_json::from_str(&one.cli(&[&["--json"][..], &set].concat()).await.unwrap().ok().unwrap().stdout)
            .unwrap();
    // It may be held: a node has just gone.
    assert!(made["name"] == "noon" && made["state"].is_string(), "{made}");
    assert_eq!(tries.one(&one, &["schedule", "show", "noon"]).await["next"].as_array().unwrap().len(), 5);
    assert_eq!(tries.one(&one, &["schedule", "list"]).await["schedules"][0]["name"], "noon");
    assert_eq!(tries.one(&one, &["schedule", "disable", "noon"]).await["enabled"], false);
    assert_eq!(tries.one(&one, &["schedule", "enable", "noon"]).await["enabled"], true);
    let listening = one.cli(&["event", "watch", "mail", "--count", "1", "--json"]);
    // Whoever listens by now hears the next.
    let telling = async {
        loop {
            tries.one(&one, &["event", "publish", "mail", "count=2"]).await;
        }
    };
    let heard = tokio::select! {
        heard = listening => heard.unwrap().ok().unwrap().stdout,
        never = telling => never,
    };
    tries.note(&["event", "watch"]);
    assert_eq!(serde_json::from_str::<Value>(&heard).unwrap()["object"]["fields"]["data"]["count"], 2);
    assert_eq!(tries.one(&one, &["schedule", "remove", "noon"]).await["removed"], true);
    assert!(tries.one(&one, &["scene", "save", "now", BULB]).await["devices"][BULB].is_object());
    let given = tries.one(&one, &["scene", "activate", "now", "--deadline", "20s"]).await;
    assert_eq!((&given["scene"], &given["commands"][0]["state"]), (&"now".into(), &"confirmed".into()));
    assert!(tries.one(&one, &["scene", "show", "now"]).await["before"][BULB].is_object());
    assert_eq!(tries.one(&one, &["scene", "list"]).await["scenes"][0]["name"], "now");
    let back = tries.one(&one, &["scene", "undo", "now", "--deadline", "20s"]).await;
    assert_eq!(back["commands"][0]["state"], "confirmed");
    assert_eq!(tries.one(&one, &["scene", "remove", "now"]).await["removed"], true);
    every_command_of_automations(&mut tries, &one, &file("bell.toml")).await;
    assert_eq!(tries.one(&one, &["device", "show", BULB]).await["id"], BULB);
    assert_eq!(tries.one(&one, &["device", "rename", BULB, "Desk"]).await["fields"]["name"], "Desk");
    assert_eq!(tries.one(&one, &["device", "move", "Desk", "office"]).await["fields"]["area"], "office");
    tries.one(&one, &["group", "add", "evening", "Desk"]).await;
    assert_eq!(tries.one(&one, &["group", "list"]).await["objects"][0]["id"], "group/evening");
    let all = tries.one(&one, &["light", "evening", "on", "--deadline", "20s"]).await;
    assert_eq!((&all["group"], &all["commands"][0]["state"]), (&"group/evening".into(), &"confirmed".into()));
    tries.one(&one, &["group", "remove", "evening", "Desk"]).await;
    assert_eq!(tries.one(&one, &["device", "forget", "Desk"]).await["forgotten"], true);

    // Of adapters.
    let adapters = tries.one(&one, &["adapter", "list"]).await["adapters"].as_array().unwrap().clone();
    assert!(adapters.iter().any(|adapter| adapter["id"] == "lifx" && adapter["on"][0]["state"] == "running"));
    assert!(tries.one(&one, &["adapter", "show", "lifx"]).await["schema"]["properties"].is_object());
    let set = tries.one(&one, &["adapter", "set", "lifx", "poll_s=2"]).await;
    assert_eq!(set["settings"]["poll_s"], 2);
    tries.one(&one, &["adapter", "restart", "lifx"]).await;
    assert_eq!(tries.one(&one, &["adapter", "disable", "lifx"]).await["enabled"], false);
    assert_eq!(tries.one(&one, &["adapter", "enable", "lifx"]).await["enabled"], true);
    assert_eq!(tries.one(&one, &["adapter", "pair", "lifx", "--for", "1s"]).await["seconds"], 1);
    assert_eq!(tries.one(&one, &["adapter", "forget", "lifx"]).await["forgotten"], true);

    // Of clients and the node itself.
    let token = tries.one(&one, &["token", "create", "--role", "viewer"]).await;
    assert_eq!(tries.one(&one, &["token", "list"]).await["tokens"][0]["role"], "viewer");
    let revoked = tries.one(&one, &["token", "revoke", token["id"].as_str().unwrap()]).await;
    assert_eq!(revoked["revoked"], true);
    assert!(tries.one(&one, &["setup-code"]).await["code"].is_string());
    every_command_of_people(&mut tries, &one).await;
    every_command_of_issuers(&mut tries, &one).await;
    assert!(tries.one(&one, &["audit"]).await["records"].as_array().is_some_and(|all| !all.is_empty()));
    assert!(tries.one(&one, &["ca", "export"]).await["pem"].is_string());
    assert_eq!(tries.one(&one, &["ca", "export", "--out", &file("ca")]).await["file"], file("ca"));
    assert!(tries.one(&one, &["ca", "export", "--der"]).await["der"].is_string());
    for show in [&["ca"][..], &["ca", "show"], &["ca", "trust"]] {
        assert!(tries.one(&one, show).await["fingerprint_sha256"].is_string());
    }
    assert!(tries.one(&one, &["doctor"]).await["checks"].is_array());
    assert!(tries.documents(&one, &["export"]).await.iter().any(|object| object["id"] == "note/x"));
    assert!(tries.one(&one, &["export", &file("export")]).await["objects"].as_u64().unwrap() > 1);
    assert_eq!(tries.one(&one, &["delete", "note/x"]).await["deleted"], true);
    assert!(tries.one(&one, &["import", &file("export")]).await["written"].as_u64().unwrap() > 0);
    assert_eq!(tries.one(&one, &["backup", &file("backup")]).await["file"], file("backup"));
    assert_eq!(one.stop().await.unwrap(), Some(0));
    let backup = file("backup");
    assert_eq!(tries.one(&one, &["restore", &backup, "--check"]).await["file"], backup);
    assert!(tries.one(&one, &["restore", &backup, "--objects", &file("objects")]).await["objects"].is_u64());
    assert!(tries.one(&one, &["restore", &backup, "--force"]).await["records"].is_u64());

    // The daemon tells once that it is ready; its log goes elsewhere.
    tries.note(&["run"]);
    let mut run = one.hearth().unwrap();
    run.args(["run", "--listen", &one.address().to_string(), "--json"]);
    run.env("HEARTH_DISCOVERY_MDNS", "false").stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut run = run.spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let ready = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert!(ready["node"].is_string() && ready["api"].is_array(), "{ready}");
    let pid = rustix::process::Pid::from_raw(run.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap(), None, "nothing else");

    assert!(tries.left.is_empty(), "nobody has tried these with --json: {:?}", tries.left);
}

async fn every_command_of_people(tries: &mut Tries, one: &Daemon) {
    let password = b"correct horse battery\n";
    for line in [&["user", "add", "ann", "--role", "viewer"][..], &["user", "password", "ann"]] {
        tries.note(line);
        let line: Vec<&str> = line.iter().copied().chain(["--password-stdin", "--json"]).collect();
        let made = one.cli_with(&line, password).await.unwrap().ok().unwrap().json().unwrap();
        assert_eq!((&made["name"], &made["enabled"]), (&"ann".into(), &true.into()));
    }
    assert_eq!(tries.one(one, &["user", "list"]).await["users"][0]["name"], "ann");
    assert_eq!(
        tries.one(one, &["user", "set-role", "ann", "operator", "--area", "hall"]).await["role"],
        "operator"
    );
    assert_eq!(tries.one(one, &["user", "show", "ann"]).await["scope"]["areas"][0], "hall");
    assert_eq!(tries.one(one, &["user", "disable", "ann"]).await["enabled"], false);
    assert_eq!(tries.one(one, &["user", "enable", "ann"]).await["enabled"], true);
    assert!(tries.one(one, &["sessions"]).await["sessions"].is_array());
    assert_eq!(tries.one(one, &["user", "sign-out", "ann"]).await["signed_out"], true);
    assert_eq!(tries.one(one, &["user", "remove", "ann"]).await["removed"], true);
}

async fn every_command_of_issuers(tries: &mut Tries, one: &Daemon) {
    let issuer = Issuer::start().await.unwrap();
    issuer.publish(Some(&json!({ "keys": [] })));
    let url = issuer.url();
    let add = ["issuer", "add", "sso", "--url", &url, "--audience", "hearth", "--algorithm", "RS256"];
    let add = [&add[..], &["--claim", "groups", "--role", "kids=viewer"]].concat();
    assert_eq!(tries.one(one, &add).await["name"], "sso");
    assert_eq!(tries.one(one, &["issuer", "list"]).await["issuers"][0]["url"], url);
    assert_eq!(tries.one(one, &["issuer", "show", "sso"]).await["audience"][0], "hearth");
    tries.note(&["issuer", "test", "sso"]);
    let tested = one.cli_with(&["issuer", "test", "sso", "--json"], b"no token\n").await.unwrap();
    assert_eq!((tested.code, &tested.json().unwrap()["accepted"]), (6, &false.into()));
    assert_eq!(tries.one(one, &["issuer", "remove", "sso"]).await["removed"], true);
}

async fn every_command_of_automations(tries: &mut Tries, one: &Daemon, path: &str) {
    std::fs::write(path, "[[triggers]]\nevent = 'bell'\n[[actions]]\nevent = 'chime'\n").unwrap();
    let made = tries.one(one, &["automation", "set", "bell", path]).await;
    assert_eq!((&made["name"], &made["program"]["triggers"][0]["event"]), (&"bell".into(), &"bell".into()));
    assert_eq!(tries.one(one, &["automation", "list"]).await["automations"][0]["name"], "bell");
    assert_eq!(tries.one(one, &["automation", "test", "bell"]).await["steps"][0], "event chime");
    assert_eq!(tries.one(one, &["automation", "disable", "bell"]).await["state"], "off");
    assert_eq!(tries.one(one, &["automation", "enable", "bell"]).await["enabled"], true);
    // Whoever starts it may just have gone.
    wait_until("it is started", PATIENCE, async || {
        Ok(one.cli(&["automation", "start", "bell"]).await?.code == 0)
    })
    .await
    .unwrap();
    assert_eq!(tries.one(one, &["automation", "start", "bell"]).await["started"], true);
    // One of the two may have found the other under way.
    let done =
        |shown: &Value| shown["runs"].as_array().unwrap().iter().find(|run| run["state"] == "done").cloned();
    wait_until("its run is done", PATIENCE, async || {
        Ok(done(&one.json(&["automation", "show", "bell"]).await?).is_some())
    })
    .await
    .unwrap();
    let shown = tries.one(one, &["automation", "show", "bell"]).await;
    assert_eq!(done(&shown).unwrap()["trace"][0]["outcome"], "ok", "{shown}");
    assert!(one.json(&["automation", "show", "bell", "--toml"]).await.unwrap()["toml"].is_string());
    let called = b"{\"triggers\": [{\"webhook\": true}], \"actions\": [{\"event\": \"chime\"}]}";
    one.cli_with(&["automation", "set", "bell", "-"], called).await.unwrap().ok().unwrap();
    let made = tries.one(one, &["automation", "webhook", "bell"]).await;
    assert!(made["path"].as_str().unwrap().starts_with("/hooks/"), "{made}");
    // What is not understood is stored, and told.
    let wrong = b"{\"triggers\": [{\"event\": \"Bell!\"}], \"actions\": [{\"delay\": \"1s\"}]}";
    let set = one.cli_with(&["automation", "set", "bell", "-", "--json"], wrong).await.unwrap();
    let stored: Value = serde_json::from_str(&set.stdout).unwrap();
    assert_eq!((set.code, &stored["state"]), (6, &"invalid".into()), "{stored}");
    assert!(stored["reason"].as_str().unwrap().starts_with("triggers[0]: `Bell!` is no topic"), "{stored}");
    assert_eq!(tries.one(one, &["automation", "remove", "bell"]).await["removed"], true);
}

#[tokio::test]
async fn a_wrong_command_line_is_told_in_json() {
    for args in [
        &["--json"][..],
        &["--json", "token"],
        &["token", "--json"],
        &["config", "--json"],
        &["statsu", "--json"],
        &["put", "note/x", "--json"],
        &["light", "desk", "--json"],
        &["list", "--limit", "0", "--json"],
    ] {
        let mut command = std::process::Command::new(daemon::program().unwrap());
        daemon::clean(&mut command);
        let ended = Command::from(command).args(args).output().await.unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!((ended.status.code(), &*stdout), (Some(2), ""), "{args:?}");
        let problem: Value = serde_json::from_str(&stderr).unwrap_or_else(|_| panic!("{args:?}: {stderr}"));
        assert_eq!(
            (&problem["type"], &problem["exit"]),
            (&Value::from("urn:hearth:cli:usage"), &Value::from(2))
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && !detail.contains('\n') && problem["fix"].is_string(), "{problem}");
    }
    let mut command = std::process::Command::new(daemon::program().unwrap());
    daemon::clean(&mut command);
    let version = Command::from(command).args(["--version", "--json"]).output().await.unwrap();
    let version: Value = serde_json::from_slice(&version.stdout).unwrap();
    assert!(version["version"].is_string(), "{version}");
}
