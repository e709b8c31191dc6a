//! Where the log goes: to a person on a terminal, to journald under systemd, else as plain lines.
//!
//! What each level means is in CONTRIBUTING.md.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Broken, rules};

/// Why nothing can be logged.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("the log filter {filter:?} {broken}")]
    Filter {
        /// What was given.
        filter: String,
        /// The rule it breaks.
        broken: Broken,
    },
    /// This process logs already.
    #[error("logging was started before: {0}")]
    Started(#[from] TryInitError),
}

/// Our own crates: a bare level speaks of these, so that `--log debug` is about Hearth.
const OWN: [&str; 4] = ["node", "hearth", "mesh_proto", "device_adapters"];

/// Starts logging to stderr or journald. `filter` is what [`rules::log`] accepts. Once a process.
///
/// # Errors
/// [`LoggingError`]; then nothing is logged.
pub fn start(filter: &str) -> Result<(), LoggingError> {
    let broken = |broken| LoggingError::Filter { filter: filter.to_owned(), broken };
    let text = expand(&rules::log(filter).map_err(broken)?);
    // What rules::log accepts keeps its form when bare levels are spread over our crates.
    let filter = EnvFilter::new(text);
    let registry = tracing_subscriber::registry().with(filter);
    if under_journald(std::env::var("JOURNAL_STREAM").ok().as_deref()) {
        // A journal whose socket is gone leaves the plain lines, which systemd takes too.
        if let Ok(journal) = tracing_journald::layer() {
            registry.with(journal.with_syslog_identifier("hearth".into())).try_init()?;
            return Ok(());
        }
    }
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours);
    if io::stderr().is_terminal() {
        registry.with(lines.with_target(false)).try_init()?;
    } else {
        registry.with(lines).try_init()?;
    }
    Ok(())
}

/// A bare level is that level for our crates and `warn`, or less, for everybody else's.
fn expand(filter: &str) -> String {
    let mut text = String::new();
    for part in filter.split(',').map(str::trim) {
        let separator = if text.is_empty() { "" } else { "," };
        if part.contains(['=', '[']) {
            let _ = write!(text, "{separator}{part}");
            continue;
        }
        let level = part.to_ascii_lowercase();
        let others = if matches!(level.as_str(), "off" | "error") { level.as_str() } else { "warn" };
        let _ = write!(text, "{separator}{others}");
        for own in OWN {
            let _ = write!(text, ",{own}={level}");
        }
    }
    text
}

/// Whether stderr is the stream that systemd says it connected to the journal (systemd.exec(5),
/// `$JOURNAL_STREAM`: device and inode in decimal with a colon between). A daemon whose stderr
/// was redirected since then is not under the journal.
fn under_journald(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else { return false };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    let Ok(meta) = File::from(stderr).metadata() else { return false };
    device.parse() == Ok(meta.dev()) && inode.parse() == Ok(meta.ino())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_bare_level_is_about_hearth() {
        assert_eq!(expand("debug"), "warn,node=debug,hearth=debug,mesh_proto=debug,device_adapters=debug");
        assert!(expand("off").starts_with("off,node=off"));
        assert!(expand("INFO,quinn=trace").ends_with("device_adapters=info,quinn=trace"));
        for filter in ["info", "off", "error,node::api=debug", "warn,[span]=trace"] {
            assert!(EnvFilter::try_new(expand(&rules::log(filter).unwrap())).is_ok(), "{filter}");
        }
    }

    #[test]
    fn only_the_stream_that_systemd_made_is_the_journal() {
        let own = File::from(io::stderr().as_fd().try_clone_to_owned().unwrap()).metadata().unwrap();
        assert!(under_journald(Some(&format!("{}:{}", own.dev(), own.ino()))));
        assert!(!under_journald(Some(&format!("{}:{}", own.dev(), own.ino() + 1))));
        for stream in [None, Some(""), Some("x:y"), Some("8")] {
            assert!(!under_journald(stream));
        }
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let error = start("loud").unwrap_err().to_string();
        assert!(error.contains("\"loud\"") && error.contains("must be"), "{error}");
    }
}
