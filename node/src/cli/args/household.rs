//! The commands about who belongs to the household: invites, joining, nodes.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::config::duration::parse_duration;
use crate::config::{JoinToken, rules};

/// What `hearth time` does beside showing it.
#[derive(Debug, Subcommand)]
pub enum TimeCommand {
    /// Say the time of day, when no clock that is kept right is near
    ///
    /// The node and every other one that knows no better go by it until a right clock is heard. The clock
    /// of the machine itself stays as it is.
    Set {
        /// The time by the clock on your wall, such as '2026-11-29 17:30'; or with its offset,
        /// 2026-11-29T17:30:00+01:00; or `now`, when the clock of this machine is right
        time: String,
    },
}

/// What an invited node may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NodeRole {
    /// Holds the data and drives devices.
    Member,
    /// Invites others, too.
    Admin,
}

/// `hearth invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// `list` or `revoke`.
    #[command(subcommand)]
    pub command: Option<InviteCommand>,
    /// How long the invite holds, with a unit: 90s, 15m, 2h, 1d [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub ttl: Option<Duration>,
    /// What the new node may be: a member, or an admin who invites others too [default: member]
    #[arg(long, value_enum)]
    pub role: Option<NodeRole>,
    /// Draw the QR code even if stderr is no terminal; it holds the secret
    #[arg(long)]
    pub qr: bool,
}

/// What else `hearth invite` does.
#[derive(Debug, Subcommand)]
pub enum InviteCommand {
    /// List the invites that are open, without their secrets
    List,
    /// Make an invite void
    Revoke {
        /// Id, as `hearth invite list` shows it
        id: String,
    },
}

/// `hearth join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Token that `hearth invite` printed on another node; `-` reads it from stdin
    #[arg(value_parser = rules::join_token)]
    pub token: JoinToken,
    /// Join even if this node holds data, which is then lost, or is the only admin of its household
    #[arg(long)]
    pub force: bool,
}

/// `hearth nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// What to do; without it: list.
    #[command(subcommand)]
    pub command: Option<NodesCommand>,
}

/// What `hearth nodes` does.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// List the nodes
    List,
    /// Give a node another friendly name
    #[command(after_help = "Example:\n  hearth nodes rename raspberrypi attic")]
    Rename {
        /// Node: its name, or its key as `hearth status --json` shows it
        node: String,
        /// New name, 1 to 64 bytes
        #[arg(value_parser = rules::name)]
        name: String,
    },
    /// Remove a node for good: lost, stolen, or given away
    ///
    /// Its links end everywhere, and its key never comes back. What the household has from it stays.
    /// A node that is still in your hands leaves better by itself: `hearth leave` on it.
    #[command(after_help = "Example:\n  hearth nodes remove attic --yes")]
    Remove {
        /// Node: its name, or its key or the first 8 or more digits of it
        node: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Remove it even if it is the last admin beside this node
        #[arg(long)]
        force: bool,
    },
}
