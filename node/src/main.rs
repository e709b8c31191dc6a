//! The `hearth` binary: the command line, with the daemon behind `hearth run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::cli::main(node::daemon::run)
}
