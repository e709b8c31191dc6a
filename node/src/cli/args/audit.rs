//! The arguments of `hearth audit`.

use clap::Args;

/// `hearth audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only what this one did, also by a scene; with a colon at the end, all of a kind: user:ann, token:, schedule:
    #[arg(long, value_name = "WHO")]
    pub who: Option<String>,
    /// Only what was done to this object, or to all whose name begins so: device/lamp, note/
    #[arg(long, value_name = "OBJECT")]
    pub object: Option<String>,
    /// Since when: how long ago, such as 6h or 7d, or a time such as 2026-11-22T06:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// At most so many records, the newest, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Go on and show what comes, until Ctrl-C; with --json a record on each line
    #[arg(long)]
    pub follow: bool,
}
