//! The commands about what the home does by itself.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::{LightArgs, PressArgs, SceneActivateArgs, SwitchArgs};
use crate::cli::values::{self, Assignment};
use crate::config::duration::parse_duration;

/// What `hearth schedule` does.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List the schedules, when each comes next by the clock of the home, and why then
    List,
    /// Show one schedule
    Show {
        /// Schedule
        name: String,
    },
    /// Make a schedule, or replace it
    ///
    /// A time is `cron 30 7 * * mon-fri`, `sunset - 30m` (sunrise, sunset, dawn, dusk; up to 12 hours before
    /// or after), or once `at '2026-12-24 17:00'`. A time of day that a jump of the clock skips or shows twice comes
    /// once; docs/time.md has the rules.
    #[command(
        visible_alias = "add",
        after_help = "Examples:\n  hearth schedule set evening 'sunset - 30m' -- light hall on --brightness 40\n  \
            hearth schedule set night 'cron 30 23 * * *' -- light hall off -- switch heater off\n  \
            hearth schedule set holidays 'cron 0 18 * * *' --only 12-01..01-06 --missed skip -- light tree on"
    )]
    Set(ScheduleSetArgs),
    /// Switch a schedule on; what came while it was off is not made up for
    Enable {
        /// Schedule
        name: String,
    },
    /// Switch a schedule off
    Disable {
        /// Schedule
        name: String,
    },
    /// Delete a schedule
    Remove {
        /// Schedule
        name: String,
    },
}

/// `hearth schedule set`.
#[derive(Debug, Args)]
pub struct ScheduleSetArgs {
    /// Schedule: 1 to 64 of a-z, 0-9, - and _
    #[arg(value_parser = values::group)]
    pub name: String,
    /// When
    pub when: String,
    /// Only on these dates: 2026-12-24, 2026-12-01..2026-12-26, each year 12-01..01-06, with commas between them
    #[arg(long, value_name = "DATES", default_value = "")]
    pub only: String,
    /// Not on these dates
    #[arg(long, value_name = "DATES", default_value = "")]
    pub except: String,
    /// What becomes of one that was missed, because no node ran or none knew the time: `skip`, `run_once_if_within 30m`, `run_latest`
    #[arg(long, value_name = "POLICY", default_value = "run_once_if_within 10m")]
    pub missed: String,
    /// Keep it switched off for now
    #[arg(long)]
    pub disabled: bool,
    /// What to do, as `hearth` itself takes it: light, switch or press, or `scene NAME`; more than one with `--` between them
    #[arg(last = true, required = true, num_args = 1.., value_name = "COMMAND")]
    pub commands: Vec<String>,
}

/// A command that is given later.
#[derive(Debug, Parser)]
#[command(name = "--", no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
pub struct Later {
    /// What to do.
    #[command(subcommand)]
    pub command: LaterCommand,
}

/// What a schedule can do.
#[derive(Debug, Subcommand)]
pub enum LaterCommand {
    /// `hearth light`.
    Light(LightArgs),
    /// `hearth switch`.
    Switch(SwitchArgs),
    /// `hearth press`.
    Press(PressArgs),
    /// `hearth scene activate`.
    Scene(SceneActivateArgs),
}

/// What `hearth event` does.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Tell every node, and whoever watches, that something happened
    ///
    /// An event is heard within a moment and kept by nobody: after half a minute it is forgotten.
    #[command(
        after_help = "Examples:\n  hearth event publish doorbell.front\n  hearth event publish mail count=2 from=Ada"
    )]
    Publish {
        /// What happened: 1 to 40 of a-z, 0-9, '.', '_' and '-'
        topic: String,
        /// What there is to say about it, as key=value or key:=JSON; 1,024 bytes at most
        #[arg(value_name = "KEY=VALUE", value_parser = values::assignment)]
        data: Vec<Assignment>,
    },
    /// Show events as they come, until Ctrl-C
    #[command(after_help = "Example:\n  hearth event watch doorbell --json | jq .object.fields.data")]
    Watch {
        /// Only topics that begin so
        prefix: Option<String>,
        /// End after so many events
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// End with exit code 7 after this time without --count being reached: 500ms, 10s, 5m
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        timeout: Option<Duration>,
    },
}

/// What `hearth home` does beside showing it.
#[derive(Debug, Subcommand)]
pub enum HomeCommand {
    /// Say where the home is, and whom its automations may call over HTTP
    #[command(after_help = "Examples:\n  hearth home set --zone Europe/Berlin --place 52.52,13.40\n  \
            hearth home set --allow-http 192.168.1.7:8080 --allow-http ntfy.sh\n  hearth home set --deny-http ntfy.sh")]
    Set(HomeSetArgs),
}

/// `hearth home set`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct HomeSetArgs {
    /// Time zone by its name in the IANA database, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Latitude and longitude in degrees, north and east positive; two decimals (one kilometre) are enough
    #[arg(long, value_name = "LATITUDE,LONGITUDE", value_parser = values::place, allow_hyphen_values = true)]
    pub place: Option<(f64, f64)>,
    /// Let automations call this host over HTTP; without a port only 80 and 443. May be given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow_http: Vec<String>,
    /// Let them call it no more, written as `hearth home` shows it
    #[arg(long, value_name = "HOST[:PORT]")]
    pub deny_http: Vec<String>,
}
