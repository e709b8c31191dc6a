//! Waits until a value is seen where the certificate authority will look: at every server that keeps the zone.

use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::message::{kind, rcode, rcode_name};
use super::name::Name;
use super::transport::{AskError, Server, ask};

/// The pause after the first round; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How many of the values that a server shows are told.
const MAX_TOLD: usize = 3;

/// Not every server shows the value in time.
#[derive(Debug, Error)]
#[error(
    "{} s after the change the value at {name} is not seen everywhere: {}; check that they are the servers of the \
     zone that is changed, or raise `propagation_s`",
    within.as_secs(),
    list(seen)
)]
pub struct Unseen {
    /// Where it is looked for.
    pub name: Name,
    /// How long.
    pub within: Duration,
    /// What each server showed last, by its name.
    pub seen: Vec<(String, Seen)>,
}

/// What a server shows.
#[derive(Debug)]
pub enum Seen {
    /// The value.
    Value,
    /// Other values, some of them.
    Others(Vec<String>),
    /// No value.
    Nothing,
    /// No answer, or none to the question.
    Unanswered(AskError),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value => f.write_str("shows it"),
            Self::Others(values) => write!(f, "shows only {}", values.join(", ")),
            Self::Nothing => f.write_str("shows no value"),
            Self::Unanswered(error) => write!(f, "cannot be asked ({error})"),
        }
    }
}

fn list(seen: &[(String, Seen)]) -> String {
    seen.iter().map(|(server, seen)| format!("{server} {seen}")).collect::<Vec<_>>().join("; ")
}

/// Asks the servers until each has shown the value. `recursion` asks resolvers, which look for it elsewhere.
///
/// # Errors
/// [`Unseen`] when one has not within that time.
pub(super) async fn wait(
    servers: &[Server],
    name: &Name,
    value: &str,
    within: Duration,
    recursion: bool,
) -> Result<(), Unseen> {
    let end = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    let mut seen: Vec<(&Server, Seen)> = servers.iter().map(|server| (server, Seen::Nothing)).collect();
    loop {
        let round = join_all(
            seen.into_iter().map(|(server, before)| look(server, before, name, value, recursion, end)),
        );
        seen = round.await;
        if seen.iter().all(|(_, seen)| matches!(seen, Seen::Value)) {
            return Ok(());
        }
        debug!(%name, servers = seen.len(), "not every name server shows the value of the challenge yet");
        if Instant::now() + pause >= end {
            let seen = seen.into_iter().map(|(server, seen)| (server.name.clone(), seen)).collect();
            return Err(Unseen { name: name.clone(), within, seen });
        }
        sleep_until(Instant::now() + pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Asks a server that has not shown the value before. At the end, what it showed before counts.
async fn look<'a>(
    server: &'a Server,
    before: Seen,
    name: &Name,
    value: &str,
    recursion: bool,
    end: Instant,
) -> (&'a Server, Seen) {
    if matches!(before, Seen::Value) {
        return (server, before);
    }
    let answer = timeout_at(end, ask(&server.addresses, name, kind::TXT, recursion)).await;
    let seen = match answer {
        Err(_) => before,
        Ok(Err(error)) => Seen::Unanswered(error),
        Ok(Ok(answer)) => match answer.rcode() {
            rcode::NOERROR | rcode::NXDOMAIN => compare(answer.texts(), value),
            code => Seen::Unanswered(AskError::Code(rcode_name(code))),
        },
    };
    (server, seen)
}

fn compare<'a>(texts: impl Iterator<Item = &'a [u8]>, value: &str) -> Seen {
    let mut others = Vec::new();
    for text in texts {
        if text == value.as_bytes() {
            return Seen::Value;
        }
        if others.len() < MAX_TOLD {
            let text: String = String::from_utf8_lossy(text).chars().take(64).collect();
            others.push(format!("{text:?}"));
        }
    }
    if others.is_empty() { Seen::Nothing } else { Seen::Others(others) }
}

/// Whether one of the servers shows other values and not this one.
pub(super) async fn shows_another(servers: &[Server], name: &Name, value: &str) -> bool {
    let end = Instant::now() + LAST_PAUSE;
    let seen =
        join_all(servers.iter().map(|server| look(server, Seen::Nothing, name, value, false, end))).await;
    let is_shown = seen.iter().any(|(_, seen)| matches!(seen, Seen::Value));
    !is_shown && seen.iter().any(|(_, seen)| matches!(seen, Seen::Others(_)))
}
