//! Boards of three kinds as one household: the programs for ARM under an emulator beside the one for
//! this machine. A stage of its own, for the programs for ARM are built by `cross/build`.
//!
//! Usage: `boards --aarch64 FILE --armv7 FILE`; the last line is `N passed, N failed`.
#![allow(clippy::indexing_slicing, reason = "only JSON is indexed, which answers null for what is not there")]

use std::{
    io::{self, Write as _},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};
use hearth_tests::daemon::{Daemon, PATIENCE, Plan, wait_until};
use serde_json::{Value, json};

/// A kind of board: what runs its programs here, and where their C library is.
struct Board {
    emulator: &'static str,
    libraries: &'static str,
    program: String,
}

impl Board {
    fn words(&self) -> [&str; 4] {
        [self.emulator, "-L", self.libraries, &self.program]
    }

    fn plan(&self, name: &str) -> Plan {
        Plan::new(name).program(&self.words())
    }

    /// A command of the board's own command line against a node.
    fn cli(&self, node: &Daemon, arguments: &[&str]) -> Result<String> {
        let [emulator, rest @ ..] = self.words();
        let mut command = Command::new(emulator);
        command.args(rest).args(arguments).arg("--state-dir").arg(node.state_dir());
        let done = command.output().with_context(|| format!("cannot start {command:?}: run tests/setup"))?;
        ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8(done.stdout)?)
    }
}

/// The household: the smallest board founded it, the others joined by the address in an invite.
struct Home {
    armv7: Daemon,
    aarch64: Daemon,
    here: Daemon,
}

impl Home {
    async fn new(aarch64: &Board, armv7: &Board) -> Result<Self> {
        let founder = armv7.plan("armv7").start().await?;
        let second = founder.joined_by(aarch64.plan("aarch64")).await?;
        let here = founder.joined("x86-64").await?;
        let home = Self { armv7: founder, aarch64: second, here };
        home.all_alive().await?;
        Ok(home)
    }

    fn nodes(&self) -> [&Daemon; 3] {
        [&self.armv7, &self.aarch64, &self.here]
    }

    async fn all_alive(&self) -> Result<()> {
        for node in self.nodes() {
            for other in self.nodes().into_iter().filter(|other| other.name() != node.name()) {
                node.sees(other, "alive").await?;
            }
        }
        Ok(())
    }

    async fn converge(&self, object: &str, fields: &Value) -> Result<()> {
        for node in self.nodes() {
            node.converge(object, fields).await?;
        }
        Ok(())
    }

    /// Values that a word of 32 bits, or another order of bytes, would bend.
    async fn values_cross_unbent(&self) -> Result<()> {
        let fields = json!({
            "large": 9_007_199_254_740_993_i64, "negative": -4_294_967_297_i64, "least": i64::MIN, "small": 1e-300,
            "third": 1.0 / 3.0, "text": "Küche — 厨房", "bytes": {"$bytes": "AAECA/8="}, "list": [true, null, [0.1, 4_294_967_296_i64]],
        });
        for node in self.nodes() {
            let object = format!("note/from-{}", node.name());
            node.put(&object, fields.clone()).await?;
            self.converge(&object, &fields).await?;
        }
        Ok(())
    }

    /// Many objects from every board, each changed by every board at the same time.
    async fn writes_at_once_converge(&self) -> Result<()> {
        const OBJECTS: usize = 40;
        let write = async |node: &Daemon| {
            for number in 0..OBJECTS {
                node.put(&format!("note/shared-{number}"), json!({"last": node.name(), node.name(): number}))
                    .await?;
            }
            anyhow::Ok(())
        };
        let (one, two, three) = tokio::join!(write(&self.armv7), write(&self.aarch64), write(&self.here));
        one.and(two).and(three)?;
        wait_until("three boards show the same forty objects", PATIENCE, async || {
            let mut seen = Vec::new();
            for node in self.nodes() {
                let page =
                    node.client().get("/api/v1/objects?prefix=note/shared-&limit=500").await?.success()?;
                let objects = page["objects"].as_array().context("no objects")?;
                seen.push(
                    objects
                        .iter()
                        .map(|object| (object["id"].clone(), object["fields"].clone()))
                        .collect::<Vec<_>>(),
                );
            }
            let complete = seen
                .iter()
                .flatten()
                .all(|(_, fields)| fields.as_object().is_some_and(|fields| fields.len() == 4));
            Ok(complete && seen.iter().all(|of| of.len() == OBJECTS && *of == seen[0]))
        })
        .await
    }

    /// The power of a board fails: what it acknowledged is there when it is back, and what it missed comes.
    async fn a_board_comes_back(&mut self, which: fn(&mut Self) -> &mut Daemon) -> Result<()> {
        let name = which(self).name().to_owned();
        let (kept, missed) = (format!("note/kept-by-{name}"), format!("note/missed-by-{name}"));
        which(self).put(&kept, json!({"text": "kept"})).await?;
        which(self).kill().await?;
        self.here.put(&missed, json!({"text": "missed"})).await?;
        which(self).start().await?;
        self.all_alive().await?;
        self.converge(&kept, &json!({"text": "kept"})).await?;
        self.converge(&missed, &json!({"text": "missed"})).await
    }

    /// The command line of each board is the same program.
    fn command_lines_work(&self, boards: [(&Board, &Daemon); 2]) -> Result<()> {
        for (board, node) in boards {
            board.cli(node, &["put", "note/by-hand", "text=milk"])?;
            let text = board.cli(node, &["get", "note/by-hand", "text"])?;
            ensure!(text == "milk\n", "{text:?}");
            board.cli(node, &["doctor"])?;
        }
        Ok(())
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag).map(|at| at + 1);
        let file =
            at.and_then(|at| arguments.get(at)).context("usage: boards --aarch64 FILE --armv7 FILE")?;
        ensure!(Path::new(file).is_file(), "no {file}; build it with cross/build");
        Ok(file.clone())
    };
    let aarch64 = Board {
        emulator: "qemu-aarch64-static",
        libraries: "/usr/aarch64-linux-gnu",
        program: file("--aarch64")?,
    };
    let armv7 = Board {
        emulator: "qemu-arm-static",
        libraries: "/usr/arm-linux-gnueabihf",
        program: file("--armv7")?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (passed, failed) = runtime.block_on(prove(&aarch64, &armv7))?;
    writeln!(io::stdout(), "{passed} passed, {failed} failed")?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the proofs in turn on one household; answers how many held and how many did not.
async fn prove(aarch64: &Board, armv7: &Board) -> Result<(u32, u32)> {
    let (mut passed, mut failed) = (0, 0);
    let mut judge = |what: &str, outcome: Result<()>| {
        match &outcome {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
        let verdict = outcome.map_or_else(|error| format!("FAILED: {error:#}"), |()| "ok".to_owned());
        writeln!(io::stdout(), "boards: {what} ... {verdict}")
    };
    let mut home = match Home::new(aarch64, armv7).await {
        Ok(home) => home,
        Err(error) => {
            judge("three kinds of boards form a household by address", Err(error))?;
            bail!("without a household there is nothing to prove");
        }
    };
    judge("three kinds of boards form a household by address", Ok(()))?;
    judge("values cross unbent", home.values_cross_unbent().await)?;
    judge("writes at once converge", home.writes_at_once_converge().await)?;
    judge("an armv7 board comes back", home.a_board_comes_back(|home| &mut home.armv7).await)?;
    judge("an aarch64 board comes back", home.a_board_comes_back(|home| &mut home.aarch64).await)?;
    let boards = [(armv7, &home.armv7), (aarch64, &home.aarch64)];
    judge("the command line of each board works", home.command_lines_work(boards))?;
    Ok((passed, failed))
}
