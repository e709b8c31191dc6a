//! The commands about tokens.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::config::duration::parse_duration;

/// What a client of the API may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Reads.
    Viewer,
    /// Reads, writes and commands.
    Operator,
    /// Everything, invites and tokens included.
    Admin,
    /// What boards are to one another: asked for, the API says why nobody else is.
    #[value(hide = true)]
    Node,
}

/// When a token ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenEnd {
    /// So long from now.
    After(Duration),
    /// At this moment, in RFC 3339.
    At(String),
}

/// What `hearth token` does.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; it is shown this once
    ///
    /// Without --area, --device and --prefix it is for all of the home. With any of them its client sees, and by its role commands and
    /// writes, what these name together, and nothing else; an admin cannot be confined so. It cannot be changed afterwards.
    #[command(
        after_help = "Examples:\n  hearth token create --role viewer --label 'wall tablet' --area kitchen --device 'Desk lamp' --expires 90d\n  \
            hearth token create --role operator --label 'shopping list' --prefix note/\n  hearth token create --role admin --label phone"
    )]
    Create(TokenCreateArgs),
    /// List the tokens, without their secrets
    List,
    /// Make a token void
    Revoke {
        /// Id, as `hearth token list` shows it
        id: String,
    },
}

/// What a token is made of.
#[derive(Debug, Args)]
pub struct TokenCreateArgs {
    /// What it allows: viewer reads, operator also writes and commands, admin everything
    #[arg(long, value_enum)]
    pub role: TokenRole,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Confine it to the devices of this area, now and later; may be given again
    #[arg(long = "area", value_name = "AREA")]
    pub areas: Vec<String>,
    /// Confine it to this device; may be given again
    #[arg(long = "device", value_name = "DEVICE")]
    pub devices: Vec<String>,
    /// Confine it to objects whose kind/name begins so: note/, scene/evening; may be given again
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// When it ends: 90d, 12h, or a moment such as 2027-02-28T18:00:00+01:00
    #[arg(long, value_name = "TIME", value_parser = token_end)]
    pub expires: Option<TokenEnd>,
}

fn token_end(text: &str) -> Result<TokenEnd, String> {
    match (parse_duration(text), text.parse::<jiff::Timestamp>()) {
        (Ok(life), _) => Ok(TokenEnd::After(life)),
        (_, Ok(_)) => Ok(TokenEnd::At(text.to_owned())),
        (Err(error), Err(_)) => Err(format!("{error}, or a moment such as 2027-02-28T18:00:00+01:00")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_end_is_a_length_of_time_or_a_moment() {
        assert_eq!(token_end("90d"), Ok(TokenEnd::After(Duration::from_secs(90 * 86_400))));
        let moment = "2027-02-28T18:00:00+01:00";
        assert_eq!(token_end(moment), Ok(TokenEnd::At(moment.to_owned())));
        assert!(token_end("soon").unwrap_err().contains("1h30m"), "{:?}", token_end("soon"));
    }
}
