//! `hearth ca`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// What `hearth ca` does.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Show its fingerprint, for what it may vouch, and where it is served
    Show,
    /// Print the CA certificate (PEM) that clients of the API should trust
    Export {
        /// File to write instead of stdout
        file: Option<PathBuf>,
        /// The same as FILE
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        out: Option<PathBuf>,
        /// As DER instead of PEM
        #[arg(long)]
        der: bool,
    },
    /// Explain step by step how to trust it
    Trust {
        /// On this kind of device only
        on: Option<CaTarget>,
    },
}

/// What is to trust the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaTarget {
    /// Phones and tablets with Android
    Android,
    /// iPhone and iPad
    Ios,
    /// Windows
    Windows,
    /// macOS
    Macos,
    /// Debian, Ubuntu, Raspberry Pi OS
    Debian,
    /// Fedora and its relatives
    Fedora,
    /// Firefox on a computer
    Firefox,
    /// Chromium and Chrome on Linux
    Chromium,
}
