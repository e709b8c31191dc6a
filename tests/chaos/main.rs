//! `chaos`: a household of real daemons on a network that is cut, deaf on one side, flapping and healed,
//! while nodes are stopped for seconds and killed under load. Every acknowledged write must be there: after a
//! kill on the node that acknowledged it, half of the time before anybody could have told it again, and in the
//! end on every node.
//!
//! Needs root for its network namespaces; no packet leaves them. Build with `--release` for the full size:
//! `cargo build --release -p node -p hearth-tests --bins && sudo target/release/chaos`.
#![allow(clippy::indexing_slicing, reason = "only JSON is indexed, which answers null for what is not there")]

mod home;
mod load;
mod network;

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use tokio::time::interval_at;

use home::Home;
use load::Load;
use network::Cut;

const USAGE: &str = "\
Usage: chaos [--rounds N] [--seed N] [--hearth FILE] [--keep]
  --rounds N     rounds of kill -9 under write load (200)
  --seed N       chooses who is killed when (the time)
  --hearth FILE  the daemon (beside this program)
  --keep         keep state folders and logs if something fails
";
const NODES: usize = 5;
const ALL: [usize; NODES] = [0, 1, 2, 3, 4];
/// After so many kills every write is looked for on every node.
const COUNTED_EVERY: usize = 20;
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
    ensure!(
        options.hearth.is_file(),
        "there is no {}: build it first, or name it with --hearth",
        options.hearth.display()
    );
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

async fn timed(what: &str, stage: impl Future<Output = Result<String>>) -> Result<()> {
    let began = Instant::now();
    let outcome = stage.await;
    let (verdict, seen) = match &outcome {
        Ok(seen) => ("ok", seen.as_str()),
        Err(_) => ("FAILED", ""),
    };
    writeln!(std::io::stdout(), "{what:<32} {verdict:>6} {:>7.1} s  {seen}", began.elapsed().as_secs_f64())?;
    outcome.map(drop).with_context(|| what.to_owned())
}

async fn cut(home: &mut Home) -> Result<String> {
    for how in [Cut::Drop, Cut::Reject] {
        home.network.cut(&[0, 1], &[2, 3, 4], how)?;
        for half in [&[0, 1][..], &[2, 3, 4]] {
            home.is_parted(half).await?;
            home.agrees(half).await?;
        }
        home.network.heal()?;
        home.is_whole().await?;
    }
    Ok("dropped and rejected".into())
}

async fn one_way(home: &mut Home) -> Result<String> {
    let mut load = Load::new(NODES);
    load.begin(home, ALL);
    let deaf = [(1, 2), (0, 4)];
    for (who, whom) in deaf {
        home.network.deafen(who, whom)?;
    }
    home.agrees(&ALL).await?;
    for (who, whom) in deaf {
        home.node(who)?.comes_to_go_round(whom).await?;
        home.node(whom)?.comes_to_go_round(who).await?;
    }
    home.agrees(&ALL).await?;
    home.network.heal()?;
    in_the_end(home, &mut load).await
}

async fn flapping(home: &mut Home) -> Result<String> {
    let mut load = Load::new(NODES);
    load.begin(home, ALL);
    let mut pace = tokio::time::interval(Duration::from_millis(700));
    for _ in 0..8 {
        pace.tick().await;
        home.network.cut(&[3], &[0, 1, 2, 4], Cut::Drop)?;
        pace.tick().await;
        home.network.heal()?;
    }
    in_the_end(home, &mut load).await
}

/// The household comes to rest, and nothing is lost.
async fn in_the_end(home: &mut Home, load: &mut Load) -> Result<String> {
    load.end().await?;
    home.is_whole().await?;
    Ok(format!("{} acknowledged writes on every node", load.is_everywhere(home).await?))
}

/// The others see it dead; when it goes on it is at peace with everybody.
async fn stalled(home: &mut Home) -> Result<String> {
    const ACCUSES: &str = "node is down";
    let (awake, sleeper) = ([0, 1, 2, 3], 4);
    let asleep = home.node(sleeper)?;
    let before = asleep.log()?.matches(ACCUSES).count();
    asleep.signal(Signal::STOP)?;
    let mut over = interval_at(tokio::time::Instant::now() + STALL, STALL);
    for node in awake {
        home.node(node)?.comes_to_see(1, "dead").await?;
    }
    home.agrees(&awake).await?;
    over.tick().await;
    home.node(sleeper)?.signal(Signal::CONT)?;
    home.is_whole().await?;
    let accused = home.node(sleeper)?.log()?.matches(ACCUSES).count() - before;
    ensure!(accused == 0, "after its sleep n{sleeper} took {accused} others for dead");
    Ok("seen dead by all, accused nobody".into())
}

async fn killed(home: &mut Home, options: &Options) -> Result<String> {
    let mut chance = ChaCha8Rng::seed_from_u64(options.seed);
    let mut load = Load::new(NODES);
    load.begin(home, ALL);
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
        let alone = chance.next_u64() % 2 == 0;
        kill_once(home, &mut load, chosen, alone)
            .await
            .with_context(|| format!("round {round}, n{chosen}"))?;
        if round % COUNTED_EVERY == COUNTED_EVERY - 1 {
            home.network.heal()?;
            in_the_end(home, &mut load).await.with_context(|| format!("after round {round}"))?;
            load.begin(home, ALL);
        }
    }
    home.network.heal()?;
    in_the_end(home, &mut load).await
}

/// Kills a node while it writes. Half of the time nobody can tell it again what it had acknowledged.
async fn kill_once(home: &mut Home, load: &mut Load, chosen: usize, alone: bool) -> Result<()> {
    home.node_mut(chosen)?.kill().await?;
    load.rest(chosen).await?;
    home.network.seclude(alone.then_some(chosen))?;
    home.node_mut(chosen)?.start(None).await.context("it does not come back")?;
    load.survived_on(home.node(chosen)?).await?;
    home.network.seclude(None)?;
    load.begin(home, [chosen]);
    Ok(())
}
