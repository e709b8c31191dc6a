//! The command line: `hearth run` starts the daemon, every other command is a client of the API
//! over the Unix socket in the state folder. The exit codes are in [`exit`].

pub mod args;
pub mod client;
pub mod exit;
pub mod output;
mod removal;
pub mod table;
pub mod values;

mod adapters;
mod admin;
mod automations;
mod backup;
mod ca;
mod devices;
mod events;
mod history;
mod household;
mod light;
mod local;
mod model;
mod objects;
mod part;
mod program;
mod scenes;
mod schedules;
mod show;
#[cfg(test)]
pub(crate) mod testing;
mod time;
mod transfer;
mod watch;
mod webhooks;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use serde::Serialize;
use serde_json::{Value, json};

use self::args::{Cli, Command};
use self::client::Client;
use self::exit::{Exit, Failure};
use self::output::{Done, Output, Stop};
use crate::config::{Config, Environment, place};

/// What `hearth run` starts. It returns when the daemon has stopped; an error says why it could
/// not start, what of the input was wrong, and the way out.
pub type Daemon = fn(Config, &dyn Fn(&Ready)) -> Result<(), Box<dyn Error>>;

/// What a node tells once it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// The first 16 digits of its key, which name it within the household.
    pub node: String,
    /// Its friendly name.
    pub name: String,
    /// The household's key in hexadecimal.
    pub household: String,
    /// Where its API is: `https://` and an address for which its certificate holds.
    pub api: Vec<String>,
    /// Whether it has founded its household just now and is alone in it.
    pub is_founded: bool,
}

/// What a command speaks to and prints on.
struct Session {
    client: Client,
    out: Output,
}

/// Parses the command line and does what it says.
pub fn main(daemon: Daemon) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    let out = Output::new(cli.global.json, cli.global.quiet);
    match execute(cli, out, &Environment::of_process(), daemon) {
        Ok(exit) => exit.into(),
        Err(Stop::ReaderGone) => Exit::Ok.into(),
        Err(Stop::Failed(failure)) => {
            out.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Help and version are asked for and go to stdout; a mistake goes to stderr.
fn usage(error: &clap::Error) -> Exit {
    let mistake = error.use_stderr();
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    match error.kind() {
        _ if mistake && wants_json => {
            Output::new(true, false).failure(&Failure::new(Exit::Usage, detail(error), "see: hearth help"));
        }
        // A reader that is gone has nobody to be told.
        ErrorKind::DisplayVersion if wants_json => drop(version(Output::new(true, false))),
        _ => drop(error.print()),
    }
    if mistake { Exit::Usage } else { Exit::Ok }
}

/// What is wrong with a command line, on one line.
fn detail(error: &clap::Error) -> String {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    ) {
        // The text would be the whole help.
        return "a command is missing".into();
    }
    let text = error.render().to_string();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

fn version(out: Output) -> Done<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    out.either(&json!({"version": version}), || format!("hearth {version}")).map(|()| Exit::Ok)
}

fn execute(cli: Cli, out: Output, env: &Environment, daemon: Daemon) -> Done<Exit> {
    let flags = cli.flags();
    match cli.command {
        Command::Run(_) => local::run(flags, env, daemon, out),
        Command::Config(command) => local::config(&command, &flags, env, out),
        Command::Completions { shell } => local::completions(shell, out),
        Command::Man { folder } => local::man(&folder, out),
        Command::Version => version(out),
        Command::ExitCodes => out.either(&exit::codes(), || exit::EXIT_CODES.to_owned()).map(|()| Exit::Ok),
        Command::Restore(args) => {
            let state_dir = place::client_state_dir(&flags, env).map_err(local::config_failure)?;
            backup::restore(&args, &state_dir, out)
        }
        command => {
            let state_dir = place::client_state_dir(&flags, env).map_err(local::config_failure)?;
            let session = Session { client: Client::new(state_dir), out };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| {
                let detail = format!("this system gives no resources to run: {error}");
                Failure::new(Exit::Failure, detail, "look at its limits (ulimit -a) and its memory")
            })?;
            runtime.block_on(session.command(command))
        }
    }
}

impl Session {
    /// Tells that something is done which has no result but that.
    fn done(&self, document: Value, note: String) -> Done<Exit> {
        self.out.note(note);
        if self.out.json {
            self.out.document(&document)?;
        }
        Ok(Exit::Ok)
    }

    async fn command(&self, command: Command) -> Done<Exit> {
        match command {
            Command::Invite(args) => self.invite(&args).await,
            Command::Join(args) => self.join(&args).await,
            Command::Leave { force } => self.leave(force).await,
            Command::Nodes(args) => self.nodes(&args).await,
            Command::Status => self.status().await,
            Command::Get { id, field } => self.get(&id, field.as_ref()).await,
            Command::Put(args) => self.put(args).await,
            Command::Delete { id } => self.delete(&id).await,
            Command::List(args) => self.list(&args).await,
            Command::Watch(args) => self.watch(&args).await,
            Command::Devices => self.devices().await,
            Command::Device(command) => self.device(&command).await,
            Command::History(args) => self.history(&args).await,
            Command::Group(command) => self.group(&command).await,
            Command::Adapter(command) => self.adapter(&command).await,
            Command::Switch(args) => self.switch(&args).await,
            Command::Press(args) => self.press(&args).await,
            Command::Light(args) => self.light(&args).await,
            Command::Scene(command) => self.scene(&command).await,
            Command::Schedule(command) => self.schedule(&command).await,
            Command::Automation(command) => self.automation(&command).await,
            Command::Event(command) => self.event(&command).await,
            Command::Home { command } => self.home(command.as_ref()).await,
            Command::Token(command) => self.token(&command).await,
            Command::SetupCode { new } => self.setup_code(new).await,
            Command::Ca { command } => self.ca(command.as_ref()).await,
            Command::Doctor => self.doctor().await,
            Command::Time { command } => self.time(command.as_ref()).await,
            Command::Backup(args) => self.backup(&args).await,
            Command::Export { file } => self.export(file.as_deref()).await,
            Command::Import { file, dry_run } => self.import(&file, dry_run).await,
            // These need no node and have been done before one is looked for.
            Command::Run(_)
            | Command::Config(_)
            | Command::Restore(_)
            | Command::Completions { .. }
            | Command::Man { .. }
            | Command::Version
            | Command::ExitCodes => Ok(Exit::Ok),
        }
    }
}
