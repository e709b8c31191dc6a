//! Carrying out an occurrence: its commands, all at once, each to its end.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tokio::{
    sync::{
        Semaphore,
        broadcast::{Receiver, error::RecvError},
    },
    time::{Instant, timeout_at},
};

use crate::{
    api::{
        commands::{CommandBody, Taken, hand_in},
        ports::{Command, CommandState, CommandsHandle},
    },
    service::Service,
};

/// How long a device may take where the schedule does not say so, in milliseconds: it may be found only now, after a
/// power cut.
const DEADLINE_MS: u32 = 30_000;
/// How long after its deadline a command may take to be ended by its node.
const GRACE: Duration = Duration::from_secs(10);

/// Commands that are handed in at once: after a jump of the clock everything may be due together.
const AT_ONCE: usize = 16;

/// The way to commands. Cheap to clone; clones share the bound.
#[derive(Clone)]
pub(super) struct Hands {
    pub(super) service: Service,
    commands: CommandsHandle,
    places: Arc<Semaphore>,
}

impl Hands {
    pub(super) fn new(service: Service, commands: CommandsHandle) -> Self {
        Self { service, commands, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Gives the commands of an occurrence and waits for their ends; answers with what failed, for people. Whoever does so
    /// again while the commands are remembered gives none twice.
    pub(super) async fn carry_out(&self, schedule: &str, at: Timestamp, commands: &[Json]) -> Vec<String> {
        let each = commands.iter().enumerate().map(|(index, command)| {
            let key = format!("{schedule}@{}#{index}", at.as_second());
            self.one(command, key)
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    async fn one(&self, command: &Json, key: String) -> Vec<String> {
        let body = match body(command, key) {
            Ok(body) => body,
            Err(rule) => return vec![rule],
        };
        // Listening begins before the command does, so that no step of its life is missed.
        let mut life = self.commands.life();
        let target = command.get("device").and_then(Json::as_str).unwrap_or_default();
        let place = self.places.acquire().await;
        let taken = hand_in(&self.service, &self.commands, body).await;
        drop(place);
        let (given, refused) = match taken {
            Ok(Taken::One(command)) => (vec![command], Vec::new()),
            Ok(Taken::Many(many)) => (many.commands, many.refused),
            Err(problem) => return vec![format!("{target}: {}", problem.detail())],
        };
        let said = |refused: &Json| {
            let of = |member: &str| refused.get(member).and_then(Json::as_str).unwrap_or_default().to_owned();
            format!("{}: {}", of("device"), of("detail"))
        };
        let mut failed: Vec<String> = refused.iter().map(said).collect();
        failed.extend(self.ends(&mut life, given).await);
        failed
    }

    /// What of the commands did not come to its end well.
    async fn ends(&self, life: &mut Receiver<Command>, mut open: Vec<Command>) -> Vec<String> {
        let mut failed = Vec::new();
        let within = open.iter().map(|command| command.deadline_ms.saturating_sub(command.at_ms)).max();
        let until = Instant::now() + Duration::from_millis(within.unwrap_or(0)) + GRACE;
        loop {
            open.retain(|command| {
                if command.state.is_final() {
                    failed.extend(failure(command));
                }
                !command.state.is_final()
            });
            if open.is_empty() {
                return failed;
            }
            match timeout_at(until, life.recv()).await {
                Ok(Ok(news)) => {
                    open.iter_mut()
                        .filter(|command| command.id == news.id)
                        .for_each(|command| *command = news.clone());
                }
                Ok(Err(RecvError::Lagged(_))) => self.look_again(&mut open).await,
                Ok(Err(RecvError::Closed)) | Err(_) => {
                    failed.extend(
                        open.iter().map(|command| format!("{}: its command did not end", command.device)),
                    );
                    return failed;
                }
            }
        }
    }

    async fn look_again(&self, open: &mut [Command]) {
        for command in open {
            // All that wait fall behind together, and the owner of the commands has no room for all their questions.
            let _place = self.places.acquire().await;
            if let Ok(Some(now)) = self.commands.get(command.id.clone()).await {
                *command = now;
            }
        }
    }
}

/// A command of a schedule as the API takes it.
fn body(command: &Json, key: String) -> Result<CommandBody, String> {
    let mut command = command.clone();
    if let Some(map) = command.as_object_mut() {
        map.insert("key".to_owned(), key.into());
        map.entry("deadline_ms").or_insert_with(|| json!(DEADLINE_MS));
    }
    serde_json::from_value(command).map_err(|rule| format!("a command is not understood: {rule}"))
}

/// What a command that has ended failed by. One that another took over from was carried out as far as it could be.
fn failure(command: &Command) -> Option<String> {
    let reason = command.reason.as_deref().unwrap_or("it gave no reason");
    let failed = matches!(command.state, CommandState::TimedOut | CommandState::Failed);
    failed.then(|| format!("{}: {reason}", command.device))
}
