//! One run of an adapter under the live check, and how it ends.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use crate::adapter::{AdapterError, Context, Directive, Handle, Hint, Reading, Registration};

use super::SHUTDOWN_WITHIN;

/// How long an adapter may take to take a directive.
const TAKES_WITHIN: Duration = Duration::from_secs(20);

/// Why a step of the check does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The run ended by itself, and says why. At some steps it may.
    Ended(String),
    /// A rule is broken.
    Broken(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(why) => write!(f, "it ended by itself: {why}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Broken(why)
    }
}

/// For a step at which a run may end by itself; what else goes wrong stays wrong.
pub(super) fn may_end(step: Result<(), Stop>) -> Result<(), Stop> {
    match step {
        Err(Stop::Ended(_)) => Ok(()),
        other => other,
    }
}

/// One run.
pub(super) struct Run {
    pub(super) began: Instant,
    handle: Handle,
    task: JoinHandle<Result<(), AdapterError>>,
    /// Why it ended, once that was asked: a task tells it once.
    ended: Option<String>,
}

impl Run {
    pub(super) fn start(registration: &Registration, settings: &Value) -> Result<Self, String> {
        let adapter = (registration.build)(settings).map_err(|error| error.to_string())?;
        let (context, handle) = Context::channel(64, 64);
        let task = tokio::spawn(async move { adapter.run(context).await });
        Ok(Self { began: Instant::now(), handle, task, ended: None })
    }

    /// The next thing that it says until then; none once it is over, and all that it said was heard.
    pub(super) async fn listen(&mut self, until: Instant) -> Result<Option<Reading>, Elapsed> {
        timeout_at(until, self.handle.readings.recv()).await
    }

    /// Gives it a directive; false when it takes none any more, because it ends.
    pub(super) async fn direct(&self, directive: Directive) -> Result<bool, Stop> {
        match timeout(TAKES_WITHIN, self.handle.commands.send(directive)).await {
            Ok(sent) => Ok(sent.is_ok()),
            Err(_) => Err(Stop::Broken(format!("it took no directive within {TAKES_WITHIN:?}"))),
        }
    }

    /// Gives it a hint, if it takes any.
    pub(super) async fn hint(&self, hint: Hint) -> Result<(), Stop> {
        match timeout(TAKES_WITHIN, self.handle.hints.send(hint)).await {
            Ok(_) => Ok(()), // one that ended says so elsewhere
            Err(_) => Err(Stop::Broken(format!("it took no hint within {TAKES_WITHIN:?}"))),
        }
    }

    /// How it ended by itself: a panic, an end without an error and one without words are faults.
    pub(super) async fn end(&mut self) -> Stop {
        if let Some(why) = &self.ended {
            return Stop::Ended(why.clone());
        }
        match self.outcome(Instant::now() + SHUTDOWN_WITHIN).await {
            Ok(Err(error)) if !words(&error).trim().is_empty() => {
                let why = error.to_string();
                self.ended = Some(why.clone());
                Stop::Ended(why)
            }
            Ok(_) => Stop::Broken("it ended by itself, and does not say why".to_owned()),
            Err(why) => Stop::Broken(why),
        }
    }

    /// Tells it to stop.
    pub(super) fn tell_to_stop(&self) {
        let _ = self.handle.stop.send(true); // one that ended already is found out by its outcome
    }

    /// What the run that says no more returned; it must have done so by then.
    pub(super) async fn outcome(&mut self, by: Instant) -> Result<Result<(), AdapterError>, String> {
        match timeout_at(by, &mut self.task).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(format!("it panicked: {error}")),
            Err(_) => Err("it says no more, and did not end".to_owned()),
        }
    }
}

/// What an adapter says of its end in its own words.
fn words(error: &AdapterError) -> &str {
    match error {
        AdapterError::Unconfigured { what, .. }
        | AdapterError::Refused { what, .. }
        | AdapterError::Unreachable { what, .. }
        | AdapterError::Io { what, .. } => what,
    }
}
