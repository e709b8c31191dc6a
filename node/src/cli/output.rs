//! What is printed: results on stdout, everything else on stderr. A reader that goes away
//! (`| head`) ends the program quietly and is no error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde_json::Value;

use super::exit::{Exit, Failure};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// Nothing on stderr but errors.
    pub quiet: bool,
    /// Colours on stdout.
    pub colour: bool,
}

/// Why printing stops.
#[derive(Debug)]
pub enum Stop {
    /// The reader went away: the program is done.
    ReaderGone,
    /// A failure to show.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        let detail = format!("the output cannot be written: {error}");
        Self::Failed(Failure::new(Exit::Failure, detail, "free some space, or write somewhere else"))
    }
}

/// What most commands come to.
pub type Done<T = ()> = Result<T, Stop>;

impl Output {
    /// Decides about colours: only on a terminal, and not with `NO_COLOR` (no-color.org).
    pub fn new(json: bool, quiet: bool) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, quiet, colour: allowed && !json && io::stdout().is_terminal() }
    }

    /// Prints a result; a line break is added.
    ///
    /// # Errors
    /// [`Stop`] when stdout cannot be written.
    pub fn line(self, text: impl AsRef<str>) -> Done {
        self.raw(format!("{}\n", text.as_ref()).as_bytes())
    }

    /// Prints bytes as they are, and flushes, so that a reader of a stream sees each at once.
    ///
    /// # Errors
    /// [`Stop`] when stdout cannot be written.
    pub fn raw(self, bytes: &[u8]) -> Done {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Prints a JSON document on one line.
    ///
    /// # Errors
    /// [`Stop`] when stdout cannot be written.
    pub fn document(self, value: &Value) -> Done {
        self.line(value.to_string())
    }

    /// Prints `value` with `--json`, else the text.
    ///
    /// # Errors
    /// [`Stop`] when stdout cannot be written.
    pub fn either(self, value: &Value, text: impl FnOnce() -> String) -> Done {
        if self.json { self.document(value) } else { self.line(text()) }
    }

    /// Tells the user something that is not the result. Not with `--quiet` or `--json`.
    pub fn note(self, text: impl AsRef<str>) {
        if !self.quiet && !self.json {
            tell(text.as_ref());
        }
    }

    /// Shows a failure.
    pub fn failure(self, failure: &Failure) {
        if self.json {
            tell(&failure.to_json().to_string());
            return;
        }
        tell(&format!("error: {}", printable(&failure.detail)));
        if let Some(fix) = &failure.fix {
            tell(&format!("  fix: {}", printable(fix)));
        }
    }
}

/// Text from elsewhere, without what could steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn tell(text: &str) {
    // A stderr that is gone has nobody to be told.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        assert!(matches!(Stop::from(io::Error::from(ErrorKind::BrokenPipe)), Stop::ReaderGone));
        assert!(matches!(Stop::from(io::Error::from(ErrorKind::StorageFull)), Stop::Failed(_)));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\nc");
    }
}
