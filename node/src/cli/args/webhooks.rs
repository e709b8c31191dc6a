//! The command about the paths of automations.

use clap::Args;

/// `hearth automation webhook`.
#[derive(Debug, Args)]
pub struct WebhookArgs {
    /// Automation
    pub name: String,
    /// Take its path away instead
    #[arg(long)]
    pub revoke: bool,
}
