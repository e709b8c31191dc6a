//! The commands about devices and the adapters that speak to them.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use mesh_proto::FieldName;

use super::super::values::{self, Assignment};
use crate::config::duration::{DurationError, parse_duration};

/// Whether a light or switch is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Power {
    /// Switch it on.
    On,
    /// Switch it off.
    Off,
    /// Switch it to what it is not.
    Toggle,
}

/// How a command is given, whatever it is for.
#[derive(Debug, Args)]
pub struct Manner {
    /// Wait until the device confirms, or the deadline passes (this is the default)
    #[arg(long, overrides_with = "no_wait")]
    pub wait: bool,
    /// Return as soon as the node has accepted the command
    #[arg(long, overrides_with = "wait")]
    pub no_wait: bool,
    /// How long the device may take to confirm, 100ms to 10m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = deadline)]
    pub deadline: Duration,
    /// Idempotency key, 1 to 128 bytes: the same key again is the same command, not a second one
    #[arg(long, value_name = "KEY", value_parser = values::idempotency_key)]
    pub key: Option<String>,
}

/// `hearth light`.
#[derive(Debug, Args)]
pub struct LightArgs {
    /// Light, group or area: its friendly name, or its id as `hearth devices` shows it
    pub name: String,
    /// Switch it on, off, or to what it is not
    #[arg(required_unless_present_any = ["brightness", "kelvin", "color", "effect", "palette", "zones"])]
    pub power: Option<Power>,
    /// Brightness in percent, 0 to 100
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub brightness: Option<f64>,
    /// Colour temperature of white light in kelvin, 1000 to 20000, such as 2700
    #[arg(long, value_name = "KELVIN", value_parser = clap::value_parser!(u32).range(1000..=20000), conflicts_with = "color")]
    pub kelvin: Option<u32>,
    /// Colour: a name such as red, #rrggbb, or CIE 1931 x,y such as 0.45,0.41
    #[arg(long, value_name = "COLOR", value_parser = values::color)]
    pub color: Option<values::Color>,
    /// Effect that the light runs by itself, by its name; `none` ends it
    #[arg(long, value_name = "NAME")]
    pub effect: Option<String>,
    /// Palette for its effects, by its name
    #[arg(long, value_name = "NAME")]
    pub palette: Option<String>,
    /// Zones of a strip from its first one on, such as 10:red@50,6:#0000ff,4:2700K
    #[arg(long, value_name = "ZONES", value_parser = values::zone, value_delimiter = ',', conflicts_with_all = ["brightness", "kelvin", "color"])]
    pub zones: Vec<serde_json::Value>,
    /// Time of the change, with a unit: 500ms, 2s, 1m [default: 0ms, at once]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub transition: Option<Duration>,
    /// How it is given.
    #[command(flatten)]
    pub manner: Manner,
}

/// `hearth switch`.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// Switch, light, group or area: its friendly name, or its id as `hearth devices` shows it
    pub name: String,
    /// Switch it on, off, or to what it is not
    pub power: Power,
    /// How it is given.
    #[command(flatten)]
    pub manner: Manner,
}

/// `hearth press`.
#[derive(Debug, Args)]
pub struct PressArgs {
    /// Button: its friendly name, or its id as `hearth devices` shows it
    pub name: String,
    /// How it is given.
    #[command(flatten)]
    pub manner: Manner,
}

/// `hearth history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Device: its friendly name, or its id as `hearth devices` shows it
    pub name: String,
    /// Since when: how long ago, such as 6h or 7d, or a time such as 2026-11-22T06:00:00Z
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: String,
    /// Until when, in the same ways [default: now]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only this series: a sensor's key as `hearth device show` has it, or on, brightness, availability
    #[arg(long, value_name = "KEY")]
    pub sensor: Option<String>,
    /// Most points of a series, 1 to 2000 [default: as many as fit the terminal; with --json 200]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub points: Option<u16>,
}

/// What `hearth device` does.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Show a device: what it is, what it can do, what it measures
    Show {
        /// Device: its friendly name, or its id as `hearth devices` shows it
        name: String,
    },
    /// Give a device a name
    #[command(after_help = "Example:\n  hearth device rename lifx-d073d5000001 'Desk lamp'")]
    Rename {
        /// Device: its friendly name, or its id
        name: String,
        /// Its new name, 1 to 64 characters; without one it goes by what its hardware says
        new: Option<String>,
    },
    /// Put a device into an area, such as kitchen
    #[command(after_help = "Examples:\n  hearth device move 'Desk lamp' office\n  hearth light office off")]
    Move {
        /// Device: its friendly name, or its id
        name: String,
        /// Area, 1 to 64 characters; without one it is in none
        area: Option<String>,
    },
    /// Forget a device that is gone for good, its name and area with it
    ///
    /// One that is still there is found again as a new one when its adapter looks around next: at once
    /// after `hearth adapter restart`.
    Forget {
        /// Device: its friendly name, or its id
        name: String,
    },
}

/// What `hearth group` does.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List the groups and their members
    List,
    /// Put devices into a group; it is made when it is new
    #[command(
        after_help = "Example:\n  hearth group add evening 'Desk lamp' 'Floor lamp'\n  hearth light evening --brightness 30"
    )]
    Add {
        /// Group: 1 to 64 of a-z, 0-9, - and _
        #[arg(value_parser = values::group)]
        group: String,
        /// Devices: their friendly names, or their ids
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Take devices out of a group; without any: delete the group
    Remove {
        /// Group
        #[arg(value_parser = values::group)]
        group: String,
        /// Devices: their friendly names, or their ids
        devices: Vec<String>,
    },
}

/// What `hearth adapter` does.
#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// List the adapters and where each runs
    List,
    /// Show an adapter, its settings and what each of them means
    Show {
        /// Adapter, such as lifx
        id: String,
    },
    /// Change settings of an adapter, for the whole household
    ///
    /// A node's config file goes before, on that node alone. A secret is sealed for each node and never
    /// shown again; `KEY=-` reads it from stdin, where other users of this machine cannot see it.
    #[command(after_help = "Examples:\n  hearth adapter set wled 'addresses=[\"192.168.1.40\"]'\n  \
        hearth adapter set mqtt broker=mqtt.local username=hearth password=- < password.txt\n  \
        hearth adapter set hue --nodes kitchen,cellar")]
    Set(AdapterSetArgs),
    /// Switch an adapter on, for the whole household
    Enable {
        /// Adapter, such as lifx
        id: String,
    },
    /// Switch an adapter off, for the whole household
    Disable {
        /// Adapter, such as lifx
        id: String,
    },
    /// Start an adapter anew wherever it runs: it looks for devices again
    Restart {
        /// Adapter, such as lifx
        id: String,
    },
    /// Let a bridge in whose button is pressed now
    #[command(after_help = "Example:\n  hearth adapter pair hue    # then press the button of the bridge")]
    Pair {
        /// Adapter, such as hue
        id: String,
        /// How long to wait for the button, up to 5m
        #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
        within: Duration,
    },
    /// Switch an adapter off, and forget its settings and its devices
    Forget {
        /// Adapter, such as lifx
        id: String,
    },
}

/// `hearth adapter set`.
#[derive(Debug, Args)]
pub struct AdapterSetArgs {
    /// Adapter, such as lifx
    pub id: String,
    /// key=value, key:=JSON, or key=- for a text from stdin
    #[arg(value_name = "KEY=VALUE", value_parser = values::assignment, required_unless_present_any = ["unset", "nodes", "all_nodes"])]
    pub settings: Vec<Assignment>,
    /// Take this setting out: its default holds again; may be given several times
    #[arg(long, value_name = "KEY", value_parser = FieldName::new)]
    pub unset: Vec<FieldName>,
    /// Only these nodes may run it, by name or id
    #[arg(long, value_name = "NODES", value_delimiter = ',', conflicts_with = "all_nodes")]
    pub nodes: Vec<String>,
    /// Every node may run it
    #[arg(long)]
    pub all_nodes: bool,
}

fn deadline(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error: DurationError| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(600);
    if allowed.contains(&duration) { Ok(duration) } else { Err("a deadline is from 100ms to 10m".into()) }
}
