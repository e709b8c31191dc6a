//! Runs the simulation: `sim run`, `sim scenarios`, `sim planted`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(hearth_sim::cli::main(std::env::args().skip(1)))
}
