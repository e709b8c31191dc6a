//! The commands about outside issuers.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::config::duration::parse_duration;

/// What `hearth issuer` does.
#[derive(Debug, Subcommand)]
pub enum IssuerCommand {
    /// List the issuers, and how their keys are
    List,
    /// Show what was said of one issuer, and how its keys are
    Show {
        /// Issuer
        name: String,
    },
    /// Trust an issuer, or change what was said of it
    ///
    /// Its tokens (JWT, RFC 7519) count in this household from now on, for what the roles say. All that was said of it
    /// before is replaced, and whoever came in by it has to come in anew.
    #[command(
        visible_alias = "set",
        after_help = "Examples:\n  hearth issuer add sso --url https://sso.example.org/realms/home --audience hearth \\\n    \
            --algorithm RS256 --claim groups --role parents=admin --role kids=operator\n  \
            hearth issuer add sso --file sso.toml\n\n\
            A file, in TOML or JSON, may confine a role to a part of the home:\n  \
            url = \"https://sso.example.org/realms/home\"\n  audience = \"hearth\"\n  algorithms = [\"RS256\"]\n  \
            [roles]\n  claim = \"realm_access.roles\"\n  [roles.map]\n  parents = \"admin\"\n  \
            guests = { role = \"operator\", scope = { areas = [\"guest room\"] } }"
    )]
    Add(Box<IssuerArgs>),
    /// Say what a token would be here, or why it is none; the token comes from stdin
    #[command(
        after_help = "Example:\n  hearth issuer test sso < token.txt\n\nExits with 6 when it would not be let in."
    )]
    Test {
        /// Issuer
        name: String,
    },
    /// Trust an issuer no more; whoever came in by it is out at once
    Remove {
        /// Issuer
        name: String,
    },
}

/// `hearth issuer add`.
#[derive(Debug, Args)]
pub struct IssuerArgs {
    /// What it is called here: 1 to 32 of a-z, 0-9 and -
    pub name: String,
    /// File with all of the below, in TOML or JSON; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "audience", "algorithm", "claim", "role"])]
    pub file: Option<PathBuf>,
    /// What `iss` in its tokens is, to the byte
    #[arg(long, value_name = "URL", required_unless_present = "file")]
    pub url: Option<String>,
    /// What `aud` in its tokens has to name; may be given several times
    #[arg(long, value_name = "TEXT", required_unless_present = "file")]
    pub audience: Vec<String>,
    /// Algorithms that are accepted, such as RS256,ES256
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required_unless_present = "file")]
    pub algorithm: Vec<String>,
    /// Claim that says what somebody may do: groups, realm_access.roles
    #[arg(long, value_name = "CLAIM", required_unless_present = "file")]
    pub claim: Option<String>,
    /// Role (viewer, operator, admin) of a value of that claim; may be given several times
    #[arg(long, value_name = "VALUE=ROLE", value_parser = mapped, required_unless_present = "file")]
    pub role: Vec<(String, String)>,
    /// Where its keys are [default: as its OpenID discovery document says]
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    pub jwks: Option<String>,
    /// Claim that names somebody [default: sub]
    #[arg(long, value_name = "CLAIM", conflicts_with = "file")]
    pub subject: Option<String>,
    /// File with the certificate (PEM) of a private authority that vouches for its host
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub root: Option<PathBuf>,
    /// How far its clock may differ from ours, at most 2m [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "file")]
    pub leeway: Option<Duration>,
    /// How old its tokens may be by `iat` [default: as old as `exp` says]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "file")]
    pub max_age: Option<Duration>,
}

/// The last `=` divides: a value may have one, a role has none.
fn mapped(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((value, role)) if !value.is_empty() => Ok((value.to_owned(), role.to_owned())),
        _ => Err("it is VALUE=ROLE, such as parents=admin".to_owned()),
    }
}
