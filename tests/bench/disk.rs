//! `bench-disk`: how many bytes a node writes to its disk for 1,000 state changes, for 100 config
//! changes, and in an hour in which nothing happens.
//!
//! The journal in front of the store holds some 450 changes until the store takes them in as one: config is
//! changed so often that this is counted, and the figure is the share of 100.
//!
//! A real daemon with one peer and one emulated bulb, all on loopback. The kernel counts
//! (`write_bytes` of /proc/PID/io, see proc(5)): whole pages of 4,096 bytes that the process made
//! dirty, and what it wrote past the page cache. A file system that is in
//! memory only counts nothing, and is refused.
//!
//! Build with `--release`, `hearth` too: `cargo build --release -p node -p hearth-tests --bins`.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hearth_tests::{
    daemon::{Daemon, PATIENCE, Plan, Session, steady_pace, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

const USAGE: &str = "\
Usage: bench-disk [--state N] [--config N] [--rate N] [--idle SECONDS] [--json]
  --state N       changes of a light, one command each (1000)
  --config N      changes of a note, each acknowledged before the next; told for 100 of them (1500)
  --rate N        commands a second (20): somebody at a slider
  --idle SECONDS  how long nothing happens (3600); what less than an hour writes is scaled to an hour,
                  and the output says so
  --json          print one JSON document
State folders lie in $TMPDIR, which must be on a disk.
";
const LAMP: &str = "device/lifx-d073d5000001";
/// After this nothing of a change is left to be written: state is flushed within 5 s, and the store
/// writes its mark at most every 30 s.
const SETTLED: Duration = Duration::from_secs(45);
const HOUR_S: u64 = 3_600;

struct Options {
    state: u64,
    config: u64,
    rate: u64,
    idle_s: u64,
    json: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = options(&arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bench(&options))
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options { state: 1_000, config: 1_500, rate: 20, idle_s: HOUR_S, json: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = || -> Result<u64> {
            let text = rest.next().with_context(|| format!("{argument} needs a value\n{USAGE}"))?;
            text.parse().with_context(|| format!("{argument} {text}: give a whole number\n{USAGE}"))
        };
        match argument.as_str() {
            "--state" => options.state = number()?,
            "--config" => options.config = number()?,
            "--rate" => options.rate = number()?,
            "--idle" => options.idle_s = number()?,
            "--json" => options.json = true,
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    ensure!(
        options.rate > 0 && options.idle_s > 0 && options.config > 0,
        "--rate, --idle and --config must be above 0\n{USAGE}"
    );
    Ok(options)
}

/// What the kernel counted for a process, in bytes.
#[derive(Clone, Copy)]
struct Written {
    /// Pages made dirty.
    disk: u64,
    /// Given to write(2) and its like, sockets included.
    calls: u64,
}

impl Written {
    fn by(node: &Daemon) -> Result<Self> {
        let pid = node.pid().context("the node does not run")?;
        let text = fs::read_to_string(format!("/proc/{pid}/io")).context("no /proc/PID/io: run as root")?;
        let number = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            Ok(line.context("the kernel counts no input and output")?.trim().parse()?)
        };
        Ok(Self { disk: number("write_bytes:")?, calls: number("wchar:")? })
    }

    fn since(node: &Daemon, before: Self) -> Result<Self> {
        let now = Self::by(node)?;
        Ok(Self { disk: now.disk - before.disk, calls: now.calls - before.calls })
    }
}

async fn bench(options: &Options) -> Result<()> {
    let emulator = Emulator::start(&[COLOR_BULB]).await?;
    let config = format!("[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\n", emulator.address());
    let near = Plan::new("near").config(&config).start().await?;
    let _far = near.joined_by(Plan::new("far")).await?;
    is_on_a_disk(near.state_dir())?;
    wait_until("the bulb is known", PATIENCE, async || Ok(near.fields(LAMP).await? != Value::Null)).await?;
    // The API closes a connection that rests for long: each part gets one of its own.
    let web = near.web(Some(&near.token("operator").await?)).await?;
    pass(SETTLED).await;

    let before = Written::by(&near)?;
    let state_s = change_state(&mut web.session().await?, options).await?;
    pass(SETTLED).await;
    let state = Written::since(&near, before)?;

    let before = Written::by(&near)?;
    let config_s = change_config(&mut web.session().await?, options.config).await?;
    pass(SETTLED).await;
    let config = Written::since(&near, before)?;

    let before = Written::by(&near)?;
    pass(Duration::from_secs(options.idle_s)).await;
    let idle = Written::since(&near, before)?;
    let idle_hour = idle.disk * HOUR_S / options.idle_s;
    let config_100 = config.disk * 100 / options.config;

    let figures = json!({
        "state": { "changes": options.state, "seconds": state_s, "disk_bytes": state.disk, "call_bytes": state.calls, "goal": 200_000 },
        "config": { "changes": options.config, "seconds": config_s, "disk_bytes": config.disk, "call_bytes": config.calls, "a_hundred": config_100, "goal": 400_000 },
        "idle": { "seconds": options.idle_s, "disk_bytes": idle.disk, "an_hour": idle_hour, "is_scaled": options.idle_s != HOUR_S, "goal": 0 },
    });
    show(&figures, options, state, config_100, idle_hour)
}

fn show(figures: &Value, options: &Options, state: Written, config_100: u64, idle_hour: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{figures}")?;
        return Ok(());
    }
    writeln!(out, "{:<40} {:>12} {:>12}", "bytes written to disk", "measured", "goal")?;
    writeln!(out, "{:<40} {:>12} {:>12}", format!("{} state changes", options.state), state.disk, 200_000)?;
    let of = format!("100 config changes, of {}", options.config);
    writeln!(out, "{of:<40} {config_100:>12} {:>12}", 400_000)?;
    writeln!(out, "{:<40} {idle_hour:>12} {:>12}", "an idle hour", 0)?;
    if options.idle_s != HOUR_S {
        writeln!(out, "(the hour is scaled from {} s)", options.idle_s)?;
    }
    Ok(())
}

/// Sends commands to the lamp at a steady pace; answers with how many seconds it took.
async fn change_state(writer: &mut Session, options: &Options) -> Result<f64> {
    let started = Instant::now();
    let mut pace = interval(Duration::from_secs(1) / u32::try_from(options.rate)?);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..options.state {
        pace.tick().await;
        let brightness = 1 + number % 100;
        let body = json!({ "device": LAMP, "change": { "on": true, "brightness": brightness } }).to_string();
        let answer = writer.exchange("POST", "/api/v1/commands", Some(("application/json", body))).await?;
        answer.success()?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Writes notes, each after the one before was acknowledged.
async fn change_config(writer: &mut Session, count: u64) -> Result<f64> {
    let started = Instant::now();
    let mut pace = steady_pace();
    for number in 0..count {
        pace.tick().await;
        let body = json!({ "set": { "text": format!("the {number}th text of this note, as long as such notes are") } });
        let path = format!("/api/v1/objects/note/n{}", number % 10);
        let answer = writer.exchange("PATCH", &path, Some(("application/json", body.to_string()))).await?;
        answer.success()?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Lets time pass.
#[expect(
    clippy::disallowed_methods,
    reason = "what is written while nothing is asked for is what is measured"
)]
async fn pass(time: Duration) {
    sleep(time).await;
}

/// Fails where the kernel counts nothing.
fn is_on_a_disk(folder: &Path) -> Result<()> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let kind = rustix::fs::statfs(folder)?.f_type;
    ensure!(kind != TMPFS_MAGIC, "{} is in memory: set TMPDIR to a folder on a disk", folder.display());
    Ok(())
}
