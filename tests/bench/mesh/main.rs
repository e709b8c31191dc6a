//! `bench-mesh`: how long a change takes from a client through two nodes to another client, what a
//! node's memory is, and how soon it is ready.
//!
//! The nodes are real processes on loopback; their peers run in turn with them, because only ratios
//! within one run say anything: bare relays from TCP over QUIC to TCP, and two mosquittos with a
//! bridge where mosquitto is installed. The durable plane stands beside a bare `fdatasync` on
//! the same disk. No figure is judged here.
//!
//! Build with `--release`, `hearth` too: `cargo build --release -p node -p hearth-tests --bins`.
#![allow(clippy::indexing_slicing, reason = "only JSON is indexed, which answers null for what is not there")]

mod figures;
mod hearth;
mod mqtt;
mod relay;

use std::{io::Write as _, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use hearth_tests::daemon::{Launch, PATIENCE};
use serde_json::{Value, json};
use tokio::time::timeout;

use figures::{Samples, Way};

const USAGE: &str = "\
Usage: bench-mesh [--rounds N] [--objects N] [--hearth FILE] [--mosquitto FILE] [--json]
  --rounds N        changes to measure on each way (2000)
  --objects N       objects of 200 B for memory and start (10000)
  --hearth FILE     the node (the one that is built beside this program)
  --mosquitto FILE  the broker (/usr/sbin/mosquitto)
  --json            print one JSON document instead of tables
State folders lie in $TMPDIR, whose disk the durable plane measures.
";
/// Ways take turns in this many pieces, so that a slow minute of the machine slows all of them.
const TURNS: usize = 10;
/// What a change of the durable plane, and one of the peers, carries.
const PAYLOAD_BYTES: usize = 64;

struct Options {
    rounds: usize,
    objects: usize,
    hearth: Option<String>,
    mosquitto: PathBuf,
    json: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(role) = arguments.first().filter(|first| relay::is_role(first)) {
        return relay::run(role, &arguments);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bench(options(&arguments)?))
}

fn options(arguments: &[String]) -> Result<Options> {
    let mosquitto = "/usr/sbin/mosquitto".into();
    let mut options = Options { rounds: 2_000, objects: 10_000, hearth: None, mosquitto, json: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--rounds" => options.rounds = value()?.parse()?,
            "--objects" => options.objects = value()?.parse()?,
            "--hearth" => options.hearth = Some(value()?.clone()),
            "--mosquitto" => options.mosquitto = value()?.into(),
            "--json" => options.json = true,
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    Ok(options)
}

async fn bench(options: Options) -> Result<()> {
    let mut relays = within("the relays start", relay::Relays::start()).await?;
    let mut brokers = within("mosquitto starts", mqtt::Brokers::start(&options.mosquitto)).await?;
    let launch = match &options.hearth {
        Some(program) => Launch::new().program(&[program]),
        None => Launch::new(),
    };
    let mut home = hearth::Home::start(&launch).await?;
    let linked_kib = home.rss_kib()?;
    let mut flushes = figures::Flushes::on(&home.folder())?;

    let mut samples = Samples::default();
    for turn in 0..TURNS {
        let rounds = options.rounds.div_ceil(TURNS);
        for round in 0..rounds {
            samples.add(
                Way::Relays,
                within("the relays pass it on", relays.round(payload(turn * rounds + round))).await?,
            );
        }
        for round in 0..rounds {
            let (seen, answered) = home.overlay(turn * rounds + round).await?;
            samples.add(Way::Overlay, seen);
            samples.add(Way::OverlayAnswer, answered);
        }
        for round in 0..rounds {
            let (seen, answered) = home.durable(payload(turn * rounds + round)).await?;
            samples.add(Way::Durable, seen);
            samples.add(Way::DurableAnswer, answered);
            // One for one: many in a row cost another time each.
            samples.add(Way::Flush, flushes.round()?);
        }
        if let Some(brokers) = &mut brokers {
            for round in 0..rounds {
                samples.add(
                    Way::Mosquitto,
                    within("the brokers pass it on", brokers.round(payload(turn * rounds + round))).await?,
                );
            }
        }
    }
    let used_kib = home.rss_kib()?;
    drop(home);
    let node = hearth::alone(&launch, options.objects).await?;

    let document = json!({
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "payload_bytes": PAYLOAD_BYTES,
        "latency": samples.document(),
        "mosquitto": if brokers.is_some() { "ran" } else { "not installed" },
        "memory_kib": {
            "empty": node.empty_kib, "one_peer": linked_kib, "one_peer_after_latency": used_kib,
            "objects_written": node.written_kib, "objects_after_restart": node.restarted_kib,
        },
        "ready_us": { "first": node.first_us, "empty": node.empty_us, "objects": node.objects_us },
        "objects": options.objects,
    });
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{document:#}")?;
    } else {
        write!(out, "{}", samples.table())?;
        if brokers.is_none() {
            writeln!(
                out,
                "mosquitto: {} is not installed; no figures of its bridge",
                options.mosquitto.display()
            )?;
        }
        write!(out, "{}", rest(&document))?;
    }
    Ok(())
}

fn rest(document: &Value) -> String {
    let mib = |name: &str| document["memory_kib"][name].as_f64().unwrap_or(0.0) / 1_024.0;
    let ms = |name: &str| document["ready_us"][name].as_f64().unwrap_or(0.0) / 1_000.0;
    let objects = &document["objects"];
    format!(
        "resident memory, MiB: empty {:.1}, one peer {:.1} (after the changes above {:.1}), {objects} objects \
         {:.1} just written, {:.1} after a restart\n\
         start to ready, ms: the very first {:.1}, empty {:.1}, {objects} objects {:.1}\n",
        mib("empty"),
        mib("one_peer"),
        mib("one_peer_after_latency"),
        mib("objects_written"),
        mib("objects_after_restart"),
        ms("first"),
        ms("empty"),
        ms("objects"),
    )
}

async fn within<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, future).await.with_context(|| format!("waited {PATIENCE:?} until {what}"))?
}

/// A text that no other round has.
fn payload(round: usize) -> String {
    format!("{round:0PAYLOAD_BYTES$}")
}
