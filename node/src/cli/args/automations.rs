//! The commands about automations.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::values;

/// What `hearth automation` does.
#[derive(Debug, Subcommand)]
pub enum AutomationCommand {
    /// List the automations, how each is, and its last run
    List,
    /// Show one automation as it is written, and its latest runs with what each did
    #[command(
        after_help = "Example, to change one:\n  hearth automation show hall-light --toml > hall-light.toml\n  \
            hearth automation set hall-light hall-light.toml"
    )]
    Show {
        /// Automation
        name: String,
        /// Print only the file from which `hearth automation set` makes the same again
        #[arg(long)]
        toml: bool,
    },
    /// Make an automation from a file, or replace it
    ///
    /// The file is TOML or JSON with `triggers`, `conditions`, `actions`, and `mode`, `max`, `enabled` where they are needed;
    /// docs/automation.md has the forms. One that is not understood is stored all the same, and nothing comes of it.
    #[command(
        visible_alias = "add",
        after_help = "Examples:\n  hearth automation set hall-light hall-light.toml\n  hearth automation set chime - <<'END'\n  \
            [[triggers]]\n  event = \"doorbell*\"\n  [[actions]]\n  scene = \"bright\"\n  END\n\n\
            Exits with 6 when it is stored and not understood, and says why."
    )]
    Set {
        /// Automation: 1 to 64 of a-z, 0-9, - and _
        #[arg(value_parser = values::group)]
        name: String,
        /// File to read; `-` for stdin
        file: PathBuf,
    },
    /// Say what an automation would do if it were started now, and do nothing
    ///
    /// Every step goes well in that, and every wait lasts to its end.
    Test {
        /// Automation
        name: String,
    },
    /// Start an automation now, if its conditions hold
    Start {
        /// Automation
        name: String,
    },
    /// Switch an automation on, also one that was switched off because it ran away
    Enable {
        /// Automation
        name: String,
    },
    /// Switch an automation off; runs that are under way are ended where they are
    Disable {
        /// Automation
        name: String,
    },
    /// Delete an automation, with its runs
    Remove {
        /// Automation
        name: String,
    },
    /// Make the path by which other programs start an automation; one that was there before is void
    ///
    /// The automation needs the trigger {"webhook": true}. Only the hash of the path is kept: it is shown this once. It is called by POST
    /// or PUT at any board, with up to 1 KiB of JSON or text, ten times at once and fifteen times a minute.
    #[command(
        after_help = "Examples:\n  hearth automation webhook doorbell\n  hearth automation webhook doorbell --revoke"
    )]
    Webhook {
        /// Automation
        name: String,
        /// Take its path away instead
        #[arg(long)]
        revoke: bool,
    },
}
