//! The commands about scenes.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Manner;
use crate::cli::values;
use crate::config::duration::parse_duration;

/// What `hearth scene` does.
#[derive(Debug, Subcommand)]
pub enum SceneCommand {
    /// List the scenes, what is in each, and when it was activated
    List,
    /// Show one scene
    Show {
        /// Scene
        name: String,
    },
    /// Store what devices are now as a scene
    ///
    /// A scene of that name is replaced. Lights and switches can be in a scene; what only measures is passed over in an
    /// area. Without devices: those that are in it already, as they are now.
    #[command(
        after_help = "Examples:\n  hearth scene save evening hall 'Desk lamp' --transition 2s\n  hearth scene save evening\n\n\
            Exits with 6 when a device was left out, and says why."
    )]
    Save(SceneSaveArgs),
    /// Make the devices of a scene what it says, all at once
    ///
    /// What they were is kept for `hearth scene undo`.
    #[command(
        after_help = "Exits with 0 when every device confirmed (or took it, where nothing can be read back); else by the first \
            that did not: 7 when its deadline passed, 6 when it is gone or another command overtook this one, 1 when it failed."
    )]
    Activate(SceneActivateArgs),
    /// Put back what the devices of a scene were before it was activated
    ///
    /// Each goes back to what it was before the activation that changed it last.
    Undo(SceneActivateArgs),
    /// Delete a scene; its devices stay as they are
    Remove {
        /// Scene
        name: String,
    },
}

/// `hearth scene save`.
#[derive(Debug, Args)]
pub struct SceneSaveArgs {
    /// Scene: 1 to 64 of a-z, 0-9, - and _
    #[arg(value_parser = values::group)]
    pub name: String,
    /// Devices, groups and areas: their friendly names, or their ids
    #[arg(value_name = "DEVICE")]
    pub devices: Vec<String>,
    /// Time of the change when it is activated, with a unit: 500ms, 2s, 1m [default: as it was, or at once]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub transition: Option<Duration>,
}

/// `hearth scene activate` and `hearth scene undo`.
#[derive(Debug, Args)]
pub struct SceneActivateArgs {
    /// Scene
    pub name: String,
    /// Time of the change, with a unit: 500ms, 2s, 1m [default: the scene's]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub transition: Option<Duration>,
    /// How it is given.
    #[command(flatten)]
    pub manner: Manner,
}
