//! The command line itself: commands, flags and their help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use mesh_proto::{FieldName, ObjectId};

use super::exit::EXIT_CODES;
use super::values::{self, Assignment};
use crate::config::duration::parse_duration;
use crate::config::{Flags, JoinToken, rules};

mod automations;
mod ca;
mod devices;
mod household;
mod scenes;
mod schedules;
pub use automations::*;
pub use ca::*;
pub use devices::*;
pub use household::*;
pub use scenes::*;
pub use schedules::*;

/// The command line of `hearth`.
#[derive(Debug, Parser)]
#[command(
    name = "hearth",
    version,
    about = "Hearth: the boards of a home as one, without a hub",
    long_about = "Hearth: the boards of a home as one, without a hub.\n\n\
        `hearth run` starts a node; every other command speaks to the node that runs on this\n\
        machine, over the socket in its state folder.",
    after_help = "Exit codes: `hearth help exit-codes`",
    after_long_help = EXIT_CODES,
    max_term_width = 100,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// State folder of the node, such as /var/lib/hearth
    ///
    /// Default: $HEARTH_STATE_DIR, `state_dir` in the config file, $STATE_DIRECTORY,
    /// $XDG_STATE_HOME/hearth, ~/.local/state/hearth. A command that finds no node there looks
    /// into /var/lib/hearth as well.
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Config file (TOML), such as /etc/hearth/hearth.toml
    ///
    /// Default: $HEARTH_CONFIG, else hearth.toml in the state folder, else
    /// /etc/hearth/hearth.toml; the first that exists. `hearth config default` prints one with
    /// every setting explained.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON: results on stdout, an error as a problem document (RFC 9457) on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Print nothing but results and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node of the household in the foreground
    #[command(
        after_help = "Examples:\n  hearth run\n  hearth run --state-dir two --listen 127.0.0.1:7844 --join TOKEN"
    )]
    Run(RunArgs),
    /// Make an invite with which one more node can join
    #[command(
        after_help = "Examples:\n  hearth invite\n  hearth invite --ttl 1h --role admin\n  hearth invite list"
    )]
    Invite(InviteArgs),
    /// Join the household of an invite with the node that runs here
    #[command(after_help = "Examples:\n  hearth join TOKEN\n  hearth join - < token.txt")]
    Join(JoinArgs),
    /// Leave the household
    ///
    /// The node forgets its membership and what it holds, and starts a household of its own.
    Leave {
        /// Leave even if no other node is an admin: nobody can then invite or remove nodes
        #[arg(long)]
        force: bool,
    },
    /// List, rename or remove the nodes of the household
    Nodes(NodesArgs),
    /// Show this node, the others, and how they are linked
    Status,
    /// Show an object, or one field of it
    #[command(
        after_help = "Examples:\n  hearth get note/shopping\n  hearth get device/lifx-d073d5000001 reported"
    )]
    Get {
        /// Object, as kind/name
        #[arg(value_parser = ObjectId::new)]
        id: ObjectId,
        /// Print only this field's value: text as it is, everything else as JSON
        #[arg(value_parser = FieldName::new)]
        field: Option<FieldName>,
    },
    /// Write fields of an object
    #[command(after_help = "Examples:\n  hearth put note/shopping text=milk count=3\n  \
        hearth put note/shopping 'text=\"3\"' tags:='[\"a\",\"b\"]' --unset count\n  \
        echo '{\"text\":\"milk\"}' | hearth put note/shopping -")]
    Put(PutArgs),
    /// Delete an object
    Delete {
        /// Object, as kind/name
        #[arg(value_parser = ObjectId::new)]
        id: ObjectId,
    },
    /// List objects
    #[command(after_help = "Examples:\n  hearth list\n  hearth list device/ --limit 10")]
    List(ListArgs),
    /// Show changes as they happen, until Ctrl-C
    #[command(after_help = "Examples:\n  hearth watch\n  hearth watch device/ note/ --json | jq .object.id")]
    Watch(WatchArgs),
    /// List the devices: lights, switches, sensors and what else adapters have found
    Devices,
    /// Show, rename, move or forget a device
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Show what a device measured, and when it was on and off
    ///
    /// One line for each series, with a small plot on the terminal: of a number its height, of a state
    /// a bar where it is on. Each node remembers what it saw itself; where nothing was known the plot is
    /// empty.
    #[command(
        after_help = "Examples:\n  hearth history 'Desk lamp'\n  hearth history heater --sensor power --since 7d\n  \
        hearth history cellar --since 2026-11-22T06:00:00Z --until 2026-11-22T18:00:00Z\n  \
        hearth history heater --json | jq '.series.power.points'"
    )]
    History(HistoryArgs),
    /// Groups of devices that are commanded as one
    #[command(subcommand)]
    Group(GroupCommand),
    /// The adapters that speak to devices: their settings, where they run, pairing
    #[command(subcommand)]
    Adapter(AdapterCommand),
    /// Switch a plug or relay, or anything that is on or off
    #[command(after_help = "Examples:\n  hearth switch heater on\n  hearth switch office off")]
    Switch(SwitchArgs),
    /// Press a button, such as the restart button of a device
    Press(PressArgs),
    /// Switch or adjust a light, and show the life of the command
    #[command(
        after_help = "Examples:\n  hearth light desk on\n  hearth light desk --brightness 40 --kelvin 2700 --transition 500ms\n  \
        hearth light device/lifx-d073d5000001 on --color '#ff8800' --no-wait\n\n\
        Ends with 0 when the light confirms, 7 when it does not in time, 6 when another command\n\
        overtook this one, 1 when it failed."
    )]
    Light(LightArgs),
    /// Scenes: many devices stored and restored as one, and put back
    #[command(subcommand)]
    Scene(SceneCommand),
    /// Schedules: what the home does at a time, whichever boards live then
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Automations: what the home does by its own rules, and goes on with when a board dies
    #[command(subcommand)]
    Automation(AutomationCommand),
    /// Events: tell the whole household that something happened, or listen
    #[command(subcommand)]
    Event(EventCommand),
    /// Show where the home is, and whom its automations may call, or say it
    #[command(
        after_help = "Examples:\n  hearth home\n  hearth home set --zone Europe/Berlin --place 52.52,13.40"
    )]
    Home {
        /// `set`
        #[command(subcommand)]
        command: Option<HomeCommand>,
    },
    /// Tokens for clients of the API: phones, dashboards, scripts
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show the one-time code with which the first client gets its token
    SetupCode {
        /// Make a new code; the old one is void
        #[arg(long)]
        new: bool,
    },
    /// Show the local certificate authority of this node, export it, and how to trust it
    #[command(
        after_help = "Examples:\n  hearth ca\n  hearth ca export hearth-ca.pem\n  hearth ca trust android"
    )]
    Ca {
        /// `show` when none is given
        #[command(subcommand)]
        command: Option<CaCommand>,
    },
    /// Show the time of day of the household and what it rests on, or say it
    ///
    /// A board without a battery clock and without a time server does not know the time after a power
    /// cut. What is due by the time of day waits until it does: from a time program, a battery clock, another
    /// node, or from you.
    #[command(
        after_help = "Examples:\n  hearth time\n  hearth time set '2026-11-29 17:30'\n  hearth time set now"
    )]
    Time {
        /// `set`
        #[command(subcommand)]
        command: Option<TimeCommand>,
    },
    /// Look for what is wrong, with the way out; ends with 1 if a check fails
    Doctor,
    /// Write all objects to a file, one JSON document a line
    #[command(after_help = "Examples:\n  hearth export home.ndjson\n  hearth export | gzip > home.ndjson.gz")]
    Export {
        /// File to write, mode 0600, replaced when all is written; without it or with `-`: stdout
        file: Option<PathBuf>,
    },
    /// Read objects from a file that `hearth export` wrote
    Import {
        /// File to read; `-` for stdin
        file: PathBuf,
        /// Check every line and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write all that this node holds to a file, for `hearth restore`
    ///
    /// Every object, the membership of the household and the node's place in it, whether the node
    /// runs or not. Without --with-key the file cannot make a node of a new card; with it, whoever has
    /// the file can be this node.
    #[command(
        after_help = "Examples:\n  hearth backup home.hearth\n  hearth backup /mnt/usb/home.hearth --with-key --force"
    )]
    Backup(BackupArgs),
    /// Put a backup into the place of what the node holds; the node must not run
    ///
    /// It is never merged: the state of the first other node that is met takes its place, and what has
    /// no place there goes to a lost-and-found file. Alone the node goes on with what was restored.
    #[command(after_help = "Examples, and for the service see /usr/share/doc/hearth/disk.md:\n  \
        hearth restore home.hearth --check\n  hearth restore home.hearth --state-dir ~/.local/state/hearth --force\n  \
        hearth restore home.hearth --objects home.ndjson && hearth import home.ndjson")]
    Restore(RestoreArgs),
    /// The configuration of `hearth run`
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  hearth completions bash > /etc/bash_completion.d/hearth")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a folder
    #[command(after_help = "Example:\n  hearth man /usr/local/share/man/man1")]
    Man {
        /// Folder that is there, for hearth.1, hearth-run.1 and so on
        folder: PathBuf,
    },
    /// Print the version
    Version,
    /// Explain the exit codes
    #[command(after_help = EXIT_CODES)]
    ExitCodes,
}

/// Flags of `hearth run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// IP address and port, for the mesh (UDP) and the API (TCP) [default: 0.0.0.0:7843]
    ///
    /// [::]:7843 takes IPv6 and IPv4; port 0 takes any free one.
    #[arg(long, value_name = "ADDR:PORT", value_parser = rules::listen)]
    pub listen: Option<SocketAddr>,
    /// Friendly name of this node, such as kitchen [default: the host name]
    #[arg(long, value_name = "NAME", value_parser = rules::name)]
    pub name: Option<String>,
    /// Token of `hearth invite`: join that household at the first start; `-` reads it from stdin
    ///
    /// Without it a node that has no household founds one. Other users of this machine can see
    /// a token on the command line; $HEARTH_JOIN and `-` hide it.
    #[arg(long, value_name = "TOKEN", value_parser = rules::join_token)]
    pub join: Option<JoinToken>,
    /// Whether to find other nodes by multicast DNS, UDP port 5353 [default: true]
    #[arg(long, value_name = "true|false", value_parser = rules::truth)]
    pub mdns: Option<bool>,
    /// Network interfaces for that, such as eth0,wlan0 [default: all]
    ///
    /// The addresses of these alone are told to other nodes, too.
    #[arg(long, value_name = "NAMES", value_parser = rules::interface, value_delimiter = ',')]
    pub interfaces: Option<Vec<String>>,
    /// What is logged: error, warn, info, debug, trace, off, or info,node::api=debug [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = rules::log)]
    pub log: Option<String>,
}

/// `hearth put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Object, as kind/name
    #[arg(value_parser = ObjectId::new)]
    pub id: ObjectId,
    /// field=value, field:=JSON, or `-` for a JSON object of fields on stdin
    ///
    /// field=value takes the value as JSON if it is JSON, else as text: count=3 is a number,
    /// text=milk is text, 'text="3"' is the text 3. field:=JSON takes JSON only and refuses
    /// everything else. Bytes are {"$bytes":"BASE64"}.
    #[arg(value_name = "FIELD=VALUE", value_parser = values::assignment, required_unless_present = "unset")]
    pub fields: Vec<Assignment>,
    /// Delete this field; may be given several times
    #[arg(long, value_name = "FIELD", value_parser = FieldName::new, action = ArgAction::Append)]
    pub unset: Vec<FieldName>,
}

/// `hearth list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only objects whose kind/name starts with this, such as device/
    #[arg(default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// At most so many, from 1 [default: all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// List also objects that lack a field which their kind requires
    #[arg(long)]
    pub incomplete: bool,
}

/// `hearth backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// File to write, mode 0600; it appears when all is written
    pub file: PathBuf,
    /// Include the node's key and its certificate authority: needed to be this node on a new card
    #[arg(long)]
    pub with_key: bool,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
}

/// `hearth restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// File that `hearth backup` wrote, or a nightly export of this node
    pub file: PathBuf,
    /// Replace the data that the node holds, or the file of --objects
    #[arg(long)]
    pub force: bool,
    /// Only check the file and show what it is
    #[arg(long, conflicts_with = "objects")]
    pub check: bool,
    /// Only write its objects to a file, as lines for `hearth import`
    #[arg(long, value_name = "FILE")]
    pub objects: Option<PathBuf>,
}

/// `hearth watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only objects whose kind/name starts with one of these; without any: all
    #[arg(value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// Leave out what is there already; show only changes
    #[arg(long)]
    pub changes: bool,
    /// End after so many lines, from 1
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End with exit code 7 after this time without --count being reached: 500ms, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// What is watched passes by: that it is gone is no news.
    #[arg(skip)]
    pub passes_by: bool,
}

/// What a client of the API may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Reads.
    Viewer,
    /// Reads, writes and commands.
    Operator,
    /// Everything, invites and tokens included.
    Admin,
}

/// What `hearth token` does.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; it is shown this once
    #[command(after_help = "Example:\n  hearth token create --role viewer --label 'hall dashboard'")]
    Create {
        /// What it allows: viewer reads, operator also writes and commands, admin everything
        #[arg(long, value_enum)]
        role: TokenRole,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
    },
    /// List the tokens, without their secrets
    List,
    /// Make a token void
    Revoke {
        /// Id, as `hearth token list` shows it
        id: String,
    },
}

/// What `hearth config` does.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show the settings in effect, with where each comes from
    Show,
    /// Print a config file in which every setting is explained
    Default,
}

impl Cli {
    /// What the flags set of the configuration.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags {
            state_dir: self.global.state_dir.clone(),
            config: self.global.config.clone(),
            ..Flags::default()
        };
        if let Command::Run(run) = &self.command {
            flags.listen = run.listen;
            flags.name.clone_from(&run.name);
            flags.log.clone_from(&run.log);
            flags.mdns = run.mdns;
            flags.interfaces.clone_from(&run.interfaces);
            flags.join.clone_from(&run.join);
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_flag_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn flags_of_every_command_may_stand_behind_it() {
        let cli = Cli::try_parse_from(["hearth", "status", "--json", "--state-dir", "/s", "-q"]).unwrap();
        assert!(cli.global.json && cli.global.quiet);
        assert_eq!(cli.flags().state_dir, Some("/s".into()));
    }

    #[test]
    fn invite_has_flags_and_subcommands() {
        let Command::Invite(invite) =
            Cli::try_parse_from(["hearth", "invite", "--ttl", "1h"]).unwrap().command
        else {
            panic!("not an invite")
        };
        assert_eq!(invite.ttl, Some(Duration::from_secs(3_600)));
        for line in [
            &["hearth", "invite", "list"][..],
            &["hearth", "--json", "--state-dir", "/s", "invite", "revoke", "i1"],
            &["hearth", "invite", "--json", "list"],
            &["hearth", "invite", "list", "--json"],
        ] {
            let parsed = Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            assert!(
                matches!(parsed.command, Command::Invite(InviteArgs { command: Some(_), .. })),
                "{line:?}"
            );
        }
    }

    #[test]
    fn wrong_input_is_a_usage_error_that_names_it() {
        for (line, named) in [
            (&["put", "Note", "a=1"][..], "Note"),
            (&["put", "note/x", "A=1"], "A=1"),
            (&["put", "note/x"], "FIELD=VALUE"),
            (&["light", "desk"], "power"),
            (&["light", "desk", "--brightness", "101"], "101"),
            (&["light", "desk", "--kelvin", "1"], "1000"),
            (&["light", "desk", "--color", "red", "--kelvin", "2700"], "--kelvin"),
            (&["light", "desk", "on", "--deadline", "1h"], "10m"),
            (&["light", "desk", "on", "--transition", "5"], "5s"),
            (&["run", "--listen", "7843"], "0.0.0.0:7843"),
            (&["run", "--log", "loud"], "loud"),
            (&["invite", "--ttl", "soon"], "soon"),
            (&["list", "--limit", "0"], "0"),
            (&["statsu"], "status"),
        ] {
            let mut all = vec!["hearth"];
            all.extend(line);
            let error = Cli::try_parse_from(&all).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
            assert!(error.to_string().to_lowercase().contains(&named.to_lowercase()), "{line:?}: {error}");
        }
    }

    #[test]
    fn a_token_never_shows_in_debug_output() {
        let cli = Cli::try_parse_from(["hearth", "join", "s3cret"]).unwrap();
        assert!(!format!("{cli:?}").contains("s3cret"));
    }
}
