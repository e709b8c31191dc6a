//! The commands about people who sign in.

use clap::{Args, Subcommand, ValueEnum};

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UserRole {
    /// Reads.
    Viewer,
    /// Reads, writes and commands.
    Operator,
    /// Everything, users and invites included.
    Admin,
}

/// To which part of the home somebody is confined.
#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// Confine to the devices of this area; may be given several times
    #[arg(long, value_name = "AREA")]
    pub area: Vec<String>,
    /// Confine to this device, by the name of its object without `device/`; may be given several times
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Confine to objects whose kind/name starts with this, such as note/; may be given several times
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Vec<String>,
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub struct PasswordArgs {
    /// Read the password from the first line of stdin instead of asking for it
    #[arg(long)]
    pub password_stdin: bool,
}

/// What `hearth user` does.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user; the password is asked for
    #[command(after_help = "Examples:\n  hearth user add ann --role admin\n  \
        hearth user add tablet --role operator --area hall --password-stdin < password.txt")]
    Add {
        /// Name: 1 to 32 of a-z, 0-9, `.`, `_`, `-`
        name: String,
        /// What the person may do
        #[arg(long, value_enum)]
        role: UserRole,
        /// Where.
        #[command(flatten)]
        scope: ScopeArgs,
        /// The password.
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List the users
    List,
    /// Show a user with the sessions that count
    Show {
        /// Name
        name: String,
    },
    /// Give a user another role, and another part of the home or all of it; signs out everywhere
    SetRole {
        /// Name
        name: String,
        /// What the person may do from now on
        #[arg(value_enum)]
        role: UserRole,
        /// Where; all of the home without any.
        #[command(flatten)]
        scope: ScopeArgs,
    },
    /// Give a user another password, which is asked for; signs out everywhere
    Password {
        /// Name
        name: String,
        /// The password.
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Let a user sign in no more, and sign out everywhere
    Disable {
        /// Name
        name: String,
    },
    /// Let a disabled user sign in again
    Enable {
        /// Name
        name: String,
    },
    /// Remove a user, and sign out everywhere
    Remove {
        /// Name
        name: String,
    },
    /// End every session of a user, on every board
    SignOut {
        /// Name
        name: String,
        /// End this session alone, by its id as `hearth sessions` shows it
        #[arg(long, value_name = "ID")]
        session: Option<String>,
    },
}
