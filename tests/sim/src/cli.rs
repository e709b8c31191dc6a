//! The command line of the simulation.

use std::time::Instant;

use mesh_proto::planted::Plant;

use super::{
    Failure,
    figures::{self, Size},
    run::{Report, run},
    scenario::{self, Settings},
    tight::Tally,
};

const USAGE: &str = "\
usage: sim run [--seeds N] [--from N] [--seed N] [--nodes A..B] [--scenario NAME] [--grep TEXT] [--trace-hash] [--verbose]
       sim figures [--quick] [--only deaths|departures|partition|month]
       sim scenarios
       sim planted [BUG]";

/// Runs the command. Returns the exit code.
pub fn main(args: impl Iterator<Item = String>) -> u8 {
    let args: Vec<String> = args.collect();
    match args.first().map(String::as_str) {
        Some("run") => match Options::parse(&args[1..]) {
            Ok(options) => options.run(),
            Err(wrong) => complain(&wrong),
        },
        Some("figures") => figures(&args[1..]).unwrap_or_else(|wrong| complain(&wrong)),
        Some("scenarios") => {
            for settings in scenario::all() {
                println!(
                    "{:<10} {}..{} nodes: {}",
                    settings.name, settings.nodes.0, settings.nodes.1, settings.about
                );
            }
            0
        }
        #[cfg(feature = "planted-bugs")]
        Some("planted") => super::planted::main(args.get(1).map(String::as_str)),
        #[cfg(not(feature = "planted-bugs"))]
        Some("planted") => complain("this build has no planted bugs: add --features planted-bugs"),
        _ => complain("a command is missing"),
    }
}

fn figures(args: &[String]) -> Result<u8, String> {
    let (mut size, mut only) = (Size::FULL, None);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--quick" => size = Size::QUICK,
            "--only" => only = Some(args.next().ok_or("--only wants the name of a part")?),
            other => return Err(format!("{other} is not an option")),
        }
    }
    figures::main(size, only)
}

fn complain(wrong: &str) -> u8 {
    println!("{wrong}\n{USAGE}");
    2
}

#[derive(Default)]
struct Options {
    from: u64,
    seeds: u64,
    nodes: Option<(u64, u64)>,
    scenario: Option<Settings>,
    verbose: bool,
    trace_hash: bool,
    grep: Option<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self { seeds: 1, ..Self::default() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value"));
            let number = |text: &String| text.parse::<u64>().map_err(|_| format!("{text} is not a number"));
            match arg.as_str() {
                "--seeds" => options.seeds = number(value()?)?,
                "--from" => options.from = number(value()?)?,
                "--seed" => (options.from, options.seeds) = (number(value()?)?, 1),
                "--nodes" => {
                    let text = value()?;
                    let (low, high) = text.split_once("..").unwrap_or((text, text));
                    options.nodes = Some((number(&low.into())?.max(3), number(&high.into())?.min(60)));
                }
                "--scenario" => {
                    let name = value()?;
                    options.scenario = Some(scenario::named(name).ok_or(format!("no scenario {name}"))?);
                }
                "--verbose" => options.verbose = true,
                "--grep" => options.grep = Some(value()?.clone()),
                "--trace-hash" => options.trace_hash = true,
                other => return Err(format!("{other} is not an option")),
            }
        }
        Ok(options)
    }

    fn settings(&self, seed: u64) -> Settings {
        let mut settings = self.scenario.clone().unwrap_or_else(|| scenario::of_seed(seed));
        if let Some(nodes) = self.nodes {
            (settings.nodes, settings.crowd) = (nodes, 0);
        }
        settings
    }

    fn run(&self) -> u8 {
        let began = Instant::now();
        let (mut passed, mut tally) = (0, Tally::default());
        for seed in self.from..self.from + self.seeds {
            let settings = self.settings(seed);
            let report = run(seed, &settings, Plant::default(), false);
            if report.outcome.is_err() {
                self.explain(seed, &settings, &report);
                println!("sim: {passed} passed, 1 failed");
                println!("test result: FAILED. {passed} passed; 1 failed");
                return 1;
            }
            if self.trace_hash {
                println!("seed {seed} {} trace {}", settings.name, report.trace.hash());
            }
            // The same seed gives the same trace: looked at again for some of them.
            if seed % 25 == 3 {
                let again = run(seed, &settings, Plant::default(), false);
                if again.trace.hash() != report.trace.hash() {
                    println!("seed {seed} {}: two runs, two traces", settings.name);
                    println!("{}", replay(seed, &settings, self.nodes));
                    println!("test result: FAILED. {passed} passed; 1 failed");
                    return 1;
                }
            }
            passed += 1;
            tally.add(&settings, report.met);
            if self.verbose {
                println!(
                    "seed {seed} {}: {} nodes, {} writes, {} events, equal after {} ms",
                    settings.name, report.nodes, report.writes, report.events, report.settled
                );
            } else if passed % 50 == 0 {
                println!("{passed} of {} seeds, {} s", self.seeds, began.elapsed().as_secs());
            }
        }
        tally.summary().iter().for_each(|line| println!("{line}"));
        if let Some(complaint) = tally.complaint() {
            println!("{complaint}");
            println!("test result: FAILED. {passed} passed; 1 failed");
            return 1;
        }
        println!("sim: {passed} passed, 0 failed in {} s", began.elapsed().as_secs());
        println!("test result: ok. {passed} passed; 0 failed");
        0
    }

    /// Runs a failed seed again, now taking notes, and tells what happened.
    fn explain(&self, seed: u64, settings: &Settings, report: &Report) {
        let Err(failure) = &report.outcome else { return };
        let again = run(seed, settings, Plant::default(), true);
        let grep = self.grep.as_deref();
        let object = grep.or(failure.object.as_ref().map(mesh_proto::ObjectId::as_str));
        let lines = again.trace.last(object, if grep.is_some() { 2_000_000 } else { 60 });
        let cut = lines.iter().map(|line| line.chars().take(400).collect::<String>());
        println!("{}", verdict(seed, settings, report.nodes, failure));
        println!("the last that happened{}:", object.map(|o| format!(" to {o}")).unwrap_or_default());
        cut.for_each(|line| println!("  {line}"));
        println!("{}", replay(seed, settings, self.nodes));
    }
}

/// Which seed broke which law, and how.
fn verdict(seed: u64, settings: &Settings, nodes: usize, failure: &Failure) -> String {
    let Failure { oracle, reason, at, .. } = failure;
    let name = settings.name;
    format!("seed {seed}, scenario {name}, {nodes} nodes: FAILED at {at} ms\nlaw: {oracle}\nseen: {reason}")
}

/// The command that runs a seed again.
pub(crate) fn replay(seed: u64, settings: &Settings, nodes: Option<(u64, u64)>) -> String {
    let name = settings.name;
    let nodes = nodes.map(|(low, high)| format!(" --nodes {low}..{high}")).unwrap_or_default();
    format!("replay: cargo run -p hearth-sim --profile sim -- run --seed {seed} --scenario {name}{nodes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        Options::parse(&args).unwrap()
    }

    #[test]
    fn the_command_that_is_printed_runs_the_same_again() {
        for line in ["--seed 61", "--seed 61 --nodes 4..7", "--seed 61 --nodes 5 --scenario storm"] {
            let first = options(line);
            let settings = first.settings(61);
            let printed = replay(61, &settings, first.nodes);
            let (_, arguments) = printed.split_once(" -- run ").unwrap();
            let again = options(arguments);
            assert_eq!((again.from, again.seeds), (61, 1), "{printed}");
            assert_eq!(format!("{:?}", again.settings(61)), format!("{settings:?}"), "{printed}");
        }
    }

    #[test]
    fn a_failure_names_its_seed_scenario_and_law() {
        let settings = scenario::named("lossy").unwrap();
        let failure = Failure::new("it does not panic", "panicked at here".into()).at(40);
        let told = verdict(3, &settings, 5, &failure);
        assert!(told.starts_with("seed 3, scenario lossy, 5 nodes: FAILED at 40 ms"), "{told}");
        assert!(told.contains("law: it does not panic\nseen: panicked at here"), "{told}");
    }
}
