//! Five nodes on a network of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hearth_tests::daemon::{Client, Folder, discreet, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::network::{Network, PORT, address};

/// How long the household may take to come to rest.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A node in its namespace; killed when dropped.
pub(crate) struct Node {
    pub(crate) number: usize,
    namespace: String,
    state: PathBuf,
    program: PathBuf,
    process: Option<Child>,
}

impl Node {
    /// Starts the node, with an invite's token the first time.
    pub(crate) async fn start(&mut self, token: Option<&str>) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.state.with_extension("log"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(&self.program).arg("run");
        command.args(["--name", &format!("n{}", self.number)]);
        command.args(["--listen", &format!("{}:{PORT}", address(self.number))]);
        command.arg("--state-dir").arg(&self.state).env_remove("HEARTH_CONFIG");
        if let Some(token) = token {
            command.env("HEARTH_JOIN", token);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.process = Some(command.spawn().context("cannot start a node")?);
        let client = self.client();
        wait_until(&format!("n{} answers", self.number), PATIENCE, async || {
            Ok(client.get("/healthz").await?.status == 200)
        })
        .await
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.kill().await?;
        Ok(())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.process.as_ref().and_then(Child::id).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Ok(kill_process(pid.context("it does not run")?, signal)?)
    }

    pub(crate) fn client(&self) -> Client {
        Client::socket(&self.state)
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.state.with_extension("log"))?)
    }

    /// The fields of an object, `null` when there is none.
    pub(crate) async fn fields(&self, object: &str) -> Result<Value> {
        let answer = self.client().get(&format!("/api/v1/objects/{object}")).await?;
        if answer.status == 404 { Ok(Value::Null) } else { Ok(answer.success()?["fields"].take()) }
    }

    /// How many others it sees in this state.
    async fn sees(&self, state: &str) -> Result<usize> {
        let status = self.client().get("/api/v1/status").await?.success()?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        Ok(nodes.iter().filter(|node| node["state"] == state).count())
    }

    /// Waits until what it says to another goes by a third.
    pub(crate) async fn comes_to_go_round(&self, other: usize) -> Result<()> {
        let what = format!("n{} reaches n{other} by way of a third", self.number);
        wait_until(&what, PATIENCE, async || {
            let status = self.client().get("/api/v1/status").await?.success()?;
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            Ok(nodes.iter().any(|node| node["name"] == format!("n{other}") && node["hops"] == 2))
        })
        .await
    }

    /// Waits until it sees so many others in this state.
    pub(crate) async fn comes_to_see(&self, count: usize, state: &str) -> Result<()> {
        let what = format!("n{} sees {count} {state}", self.number);
        wait_until(&what, PATIENCE, async || Ok(self.sees(state).await? == count)).await
    }
}

/// Writes a field; returns when it is acknowledged.
pub(crate) async fn put(client: &Client, object: &str, n: u64) -> Result<()> {
    let body = json!({ "set": { "n": n } });
    client.send("PATCH", &format!("/api/v1/objects/{object}"), Some(&body)).await?.success()?;
    Ok(())
}

/// The household.
pub(crate) struct Home {
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    folder: Folder,
    marks: u64,
}

impl Home {
    /// Founds it.
    pub(crate) async fn new(count: usize, program: &Path) -> Result<Self> {
        let network = Network::new(count)?;
        let folder = Folder::new()?;
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..count {
            let state = folder.join(&format!("n{number}"));
            fs::create_dir(&state)?;
            fs::write(state.join("hearth.toml"), discreet(""))?;
            let namespace = network.namespace(number);
            let mut node = Node { number, namespace, state, program: program.to_owned(), process: None };
            let token = match nodes.first() {
                Some(founder) => Some(invite(founder).await?),
                None => None,
            };
            node.start(token.as_deref()).await?;
            nodes.push(node);
        }
        let mut home = Self { nodes, network, folder, marks: 0 };
        home.is_whole().await?;
        Ok(home)
    }

    /// One of its nodes.
    pub(crate) fn node(&self, number: usize) -> Result<&Node> {
        self.nodes.get(number).context("no such node")
    }

    /// The same, to kill and to start.
    pub(crate) fn node_mut(&mut self, number: usize) -> Result<&mut Node> {
        self.nodes.get_mut(number).context("no such node")
    }

    /// Everybody sees everybody alive, and a write on each is read on all.
    pub(crate) async fn is_whole(&mut self) -> Result<()> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for node in &self.nodes {
            node.comes_to_see(self.nodes.len() - 1, "alive").await?;
        }
        self.agrees(&all).await
    }

    /// These see each other alive and nobody else.
    pub(crate) async fn is_parted(&self, among: &[usize]) -> Result<()> {
        for node in among.iter().filter_map(|node| self.nodes.get(*node)) {
            node.comes_to_see(among.len() - 1, "alive").await?;
        }
        Ok(())
    }

    /// A write on each of these is read on all of these.
    pub(crate) async fn agrees(&mut self, among: &[usize]) -> Result<()> {
        for writer in among {
            self.marks += 1;
            let (object, n) = (format!("mark/n{writer}"), self.marks);
            let Some(node) = self.nodes.get(*writer) else { continue };
            put(&node.client(), &object, n).await?;
            for reader in among.iter().filter_map(|reader| self.nodes.get(*reader)) {
                wait_until(
                    &format!("n{} reads mark {n} of n{writer}", reader.number),
                    PATIENCE,
                    async || Ok(reader.fields(&object).await? == json!({ "n": n })),
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Leaves the state folders and logs behind, for somebody to look at.
    pub(crate) fn keep(self) -> PathBuf {
        let kept = std::env::temp_dir().join(format!("hearth-chaos-{}", std::process::id()));
        let Self { nodes, network, folder, .. } = self;
        drop((nodes, network));
        let _ = fs::create_dir(&kept);
        for entry in fs::read_dir(folder.join(".")).into_iter().flatten().flatten() {
            let _ = fs::rename(entry.path(), kept.join(entry.file_name()));
        }
        kept
    }
}

async fn invite(founder: &Node) -> Result<String> {
    let body = json!({ "ttl_s": 900, "roles": ["member"] });
    let answer = founder.client().send("POST", "/api/v1/invites", Some(&body)).await?.success()?;
    Ok(answer["token"].as_str().context("no token")?.to_owned())
}
