//! How `hearth` ends, and why it says so.

use std::process::ExitCode;

use serde_json::{Value, json};

/// The exit codes. They are part of the interface: scripts may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It is done.
    Ok = 0,
    /// Something failed that no other code names.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The daemon cannot be reached.
    Unreachable = 3,
    /// This user or role may not do that.
    NotPermitted = 4,
    /// There is no such thing.
    NotFound = 5,
    /// The daemon refuses the input, or it conflicts with what is there.
    Refused = 6,
    /// It did not happen in time, or nobody confirmed it.
    TimedOut = 7,
    /// The daemon cannot start.
    CannotStart = 8,
}

/// The table of the exit codes as help shows it.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for a reason that no other code names
  2  the command line or the configuration is wrong
  3  the daemon cannot be reached
  4  not permitted: the socket may not be opened, or the role may not do that
  5  not found: no such object, device, node, command, token or invite
  6  refused: bad input, a conflict, or a command that another one overtook
  7  not confirmed in time
  8  the daemon cannot start: port in use, state folder not usable";

/// The same table for programs: `{"exit_codes": [{"code": 0, "meaning": "done"}, …]}`.
pub fn codes() -> Value {
    let row = |line: &str| {
        let (code, meaning) = line.trim().split_once("  ")?;
        Some(json!({"code": code.parse::<u8>().ok()?, "meaning": meaning}))
    };
    json!({"exit_codes": EXIT_CODES.lines().filter_map(row).collect::<Vec<_>>()})
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not succeed: what to tell the user, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong, naming the input.
    pub detail: String,
    /// The way out.
    pub fix: Option<String>,
    /// The problem document of the daemon (RFC 9457), if there is one.
    pub problem: Option<Box<Value>>,
}

impl Failure {
    /// A failure with its way out.
    pub fn new(exit: Exit, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { exit, detail: detail.into(), fix: Some(fix.into()), problem: None }
    }

    /// A failure from a problem document (RFC 9457 with our `fix`). Status codes choose the exit code.
    pub fn from_problem(status: u16, problem: Value) -> Self {
        let text = |name: &str| problem.get(name).and_then(Value::as_str).map(str::to_owned);
        let detail = text("detail")
            .or_else(|| text("title"))
            .unwrap_or_else(|| format!("the daemon answered {status}"));
        // What was perhaps meant, or what the word may stand for.
        let listed = problem.get("candidates").and_then(Value::as_array).cloned().unwrap_or_default();
        let meant: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
        let fix = match (text("fix"), meant.as_slice()) {
            (fix, []) => fix,
            (fix, meant) => Some(format!("{}: {}", fix.unwrap_or_default(), meant.join(", "))),
        };
        Self { exit: exit_of_status(status), detail, fix, problem: Some(Box::new(problem)) }
    }

    /// What `--json` prints: the daemon's problem document, or one of our own.
    pub fn to_json(&self) -> Value {
        let mut document = match &self.problem {
            Some(problem) if problem.is_object() => (**problem).clone(),
            _ => {
                json!({"type": format!("urn:hearth:cli:{}", self.slug()), "detail": self.detail, "fix": self.fix})
            }
        };
        if let Some(map) = document.as_object_mut() {
            map.insert("exit".into(), json!(self.exit as u8));
        }
        document
    }

    fn slug(&self) -> &'static str {
        match self.exit {
            Exit::Ok => "ok",
            Exit::Failure => "failure",
            Exit::Usage => "usage",
            Exit::Unreachable => "unreachable",
            Exit::NotPermitted => "not-permitted",
            Exit::NotFound => "not-found",
            Exit::Refused => "refused",
            Exit::TimedOut => "timed-out",
            Exit::CannotStart => "cannot-start",
        }
    }
}

/// The exit code that an HTTP status stands for.
pub fn exit_of_status(status: u16) -> Exit {
    match status {
        200..=299 => Exit::Ok,
        401 | 403 => Exit::NotPermitted,
        404 | 410 => Exit::NotFound,
        408 | 504 => Exit::TimedOut,
        400..=499 => Exit::Refused,
        _ => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_code_is_documented_by_its_number() {
        for exit in [
            Exit::Ok,
            Exit::Failure,
            Exit::Usage,
            Exit::Unreachable,
            Exit::NotPermitted,
            Exit::NotFound,
            Exit::Refused,
            Exit::TimedOut,
            Exit::CannotStart,
        ] {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
        }
        assert_eq!(EXIT_CODES.lines().count(), 10);
    }

    #[test]
    fn problems_keep_their_detail_fix_and_document() {
        let problem =
            json!({"type": "urn:hearth:problem:x", "title": "T", "detail": "D", "fix": "F", "status": 404});
        let failure = Failure::from_problem(404, problem);
        assert_eq!(
            (failure.exit, failure.detail.as_str(), failure.fix.as_deref()),
            (Exit::NotFound, "D", Some("F"))
        );
        assert_eq!(failure.to_json()["type"], "urn:hearth:problem:x");
        assert_eq!(failure.to_json()["exit"], 5);
        assert_eq!(Failure::from_problem(500, json!({"title": "T"})).detail, "T");
        assert_eq!(Failure::from_problem(502, json!("?")).detail, "the daemon answered 502");
        let problem = json!({"detail": "D", "fix": "F", "candidates": ["attic", "cellar"]});
        assert_eq!(Failure::from_problem(404, problem).fix.as_deref(), Some("F: attic, cellar"));
        let own = Failure::new(Exit::Unreachable, "d", "f").to_json();
        assert_eq!(own["type"], "urn:hearth:cli:unreachable");
    }
}
