//! `chaos`: a household of real daemons on a network that is cut, deaf on one side, flapping and healed,
//! while nodes are stopped for seconds and killed under load. Every acknowledged write must be there in
//! the end, on every node.
//!
//! Needs root for its network namespaces; no packet leaves them. Build with `--release` for the full size:
//! `cargo build --release -p node -p hearth-tests --bins && sudo target/release/chaos`.
#![allow(clippy::indexing_slicing, reason = "only JSON is indexed, which answers null for what is not there")]

mod home;
mod network;

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use tokio::time::interval_at;

use home::Home;
use network::Cut;

const USAGE: &str = "\
Usage: chaos [--rounds N] [--seed N] [--hearth FILE] [--keep]
  --rounds N     rounds of kill -9 under write load (200)
  --seed N       chooses who is killed when (the time)
  --hearth FILE  the daemon (beside this program)
  --keep         keep state folders and logs if something fails
";
const NODES: usize = 5;
/// How long a node is stopped.
const STALL: Duration = Duration::from_secs(10);

struct Options {
    rounds: usize,
    seed: u64,
    hearth: PathBuf,
    keep: bool,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let options = options()?;
        tokio::select! {
            done = chaos(&options) => done,
            // Everything that was started goes with what it is dropped with.
            _ = tokio::signal::ctrl_c() => bail!("stopped"),
        }
    })
}

fn options() -> Result<Options> {
    let beside = std::env::current_exe()?.with_file_name("hearth");
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mut options = Options { rounds: 200, seed: since.as_secs(), hearth: beside, keep: false };
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--rounds" => options.rounds = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--hearth" => options.hearth = value()?.into(),
            "--keep" => options.keep = true,
            "--help" => bail!("{USAGE}"),
            other => bail!("unknown option {other}\n{USAGE}"),
        }
    }
    Ok(options)
}

async fn chaos(options: &Options) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "seed {}, {} rounds, {}", options.seed, options.rounds, options.hearth.display())?;
    let mut home = Home::new(NODES, &options.hearth).await?;
    let outcome = stages(&mut home, options).await;
    if outcome.is_err() && options.keep {
        writeln!(out, "kept in {}", home.keep().display())?;
    }
    match &outcome {
        Ok(passed) => writeln!(out, "{passed} passed, 0 failed")?,
        Err(_) => writeln!(out, "0 passed, 1 failed")?,
    }
    outcome.map(drop)
}

async fn stages(home: &mut Home, options: &Options) -> Result<usize> {
    timed("cut in two, and healed", cut(home)).await?;
    timed("one that does not hear another", one_way(home)).await?;
    timed("a link that flaps", flapping(home)).await?;
    timed("one that stands still for 10 s", stalled(home)).await?;
    timed("kill -9 under load", killed(home, options)).await?;
    Ok(5)
}

async fn timed(what: &str, stage: impl Future<Output = Result<()>>) -> Result<()> {
    let began = Instant::now();
    let outcome = stage.await;
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    writeln!(std::io::stdout(), "{what:<32} {verdict:>6} {:>7.1} s", began.elapsed().as_secs_f64())?;
    outcome.with_context(|| what.to_owned())
}

async fn cut(home: &mut Home) -> Result<()> {
    for how in [Cut::Drop, Cut::Reject] {
        home.network.cut(&[0, 1], &[2, 3, 4], how)?;
        for half in [&[0, 1][..], &[2, 3, 4]] {
            home.is_parted(half).await?;
            home.agrees(half).await?;
        }
        home.network.heal()?;
        home.is_whole().await?;
    }
    Ok(())
}

async fn one_way(home: &mut Home) -> Result<()> {
    home.network.deafen(1, 2)?;
    home.agrees(&[0, 1, 2, 3, 4]).await?;
    home.network.heal()?;
    home.is_whole().await
}

async fn flapping(home: &mut Home) -> Result<()> {
    let mut pace = tokio::time::interval(Duration::from_millis(700));
    for _ in 0..8 {
        pace.tick().await;
        home.network.cut(&[3], &[0, 1, 2, 4], Cut::Drop)?;
        pace.tick().await;
        home.network.heal()?;
    }
    home.is_whole().await
}

async fn stalled(home: &mut Home) -> Result<()> {
    let Some(node) = home.nodes.last() else { bail!("nobody is here") };
    node.signal(Signal::STOP)?;
    let mut over = interval_at(tokio::time::Instant::now() + STALL, STALL);
    home.agrees(&[0, 1, 2, 3]).await?;
    over.tick().await;
    if let Some(node) = home.nodes.last() {
        node.signal(Signal::CONT)?;
    }
    home.is_whole().await
}

async fn killed(home: &mut Home, options: &Options) -> Result<()> {
    let mut chance = ChaCha8Rng::seed_from_u64(options.seed);
    let load = home.write_everywhere();
    for round in 0..options.rounds {
        // Some of the kills happen in a household that is cut in two.
        match round % 10 {
            3 => home.network.cut(&[0, 1], &[2, 3, 4], Cut::Drop)?,
            6 => home.network.heal()?,
            _ => {}
        }
        let pause = Duration::from_millis(20 + chance.next_u64() % 380);
        interval_at(tokio::time::Instant::now() + pause, pause).tick().await;
        let chosen = usize::try_from(chance.next_u64() % u64::try_from(NODES)?)?;
        let Some(node) = home.nodes.get_mut(chosen) else { continue };
        node.kill().await?;
        node.start(None).await.with_context(|| format!("round {round}: n{chosen} does not come back"))?;
    }
    home.network.heal()?;
    let acknowledged = load.end().await?;
    home.is_whole().await?;
    home.holds(&acknowledged).await
}
