//! Carrying out an occurrence: its commands and scenes, all at once, each command to its end.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tokio::{
    sync::{Semaphore, broadcast::Receiver},
    time::Instant,
};

use super::{program::is_expression, scenes::Scenes};
use crate::{
    api::{
        commands::{CommandBody, Taken, check_later, follow, hand_in},
        devices::find_target,
        ports::{By, Command, CommandState, CommandsHandle},
    },
    auth::scope::WHOLE,
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
            self.one(schedule, command, key)
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    pub(super) async fn one(&self, schedule: &str, command: &Json, key: String) -> Vec<String> {
        // Listening begins before the command does, so that no step of its life is missed.
        let mut life = self.commands.life();
        let place = self.places.acquire().await;
        let taken = self.give(schedule, command, key).await;
        drop(place);
        let (given, refused) = match taken {
            Ok(Taken::One(command)) => (vec![command], Vec::new()),
            Ok(Taken::Many(many)) => (many.commands, many.refused),
            Err(reason) => return vec![reason],
        };
        let said = |refused: &Json| {
            let of = |member: &str| refused.get(member).and_then(Json::as_str).unwrap_or_default().to_owned();
            format!("{}: {}", of("device"), of("detail"))
        };
        let mut failed: Vec<String> = refused.iter().map(said).collect();
        failed.extend(self.ends(&mut life, given).await);
        failed
    }

    /// Looks for whom or what a step names; of what an expression will name nobody knows yet.
    ///
    /// # Errors
    /// That it is not there.
    pub(super) async fn look(&self, step: &Json) -> Result<(), String> {
        let of = |member: &str| step.get(member).filter(|name| !is_expression(name)).and_then(Json::as_str);
        let found = match (of("scene"), of("device")) {
            (Some(scene), _) => Scenes::new(&self.service, &self.commands).find(scene).await.map(drop),
            (None, Some(target)) => find_target(&self.service, &WHOLE, target).await.map(drop),
            (None, None) => Ok(()),
        };
        found.map_err(|problem| problem.detail().to_owned())
    }

    async fn give(&self, schedule: &str, command: &Json, key: String) -> Result<Taken, String> {
        let of = |member: &str| command.get(member).and_then(Json::as_str);
        // `schedule/NAME` and `automation/NAME` are objects; what does something is called as people are.
        let by = By::name(schedule.replacen('/', ":", 1));
        let taken = if let Some(scene) = of("scene") {
            let scenes = Scenes::new(&self.service, &self.commands);
            let given = scenes.carry_out(command, DEADLINE_MS, key, &by).await;
            given.map(|given| Taken::Many(given.many)).map_err(|problem| (scene, problem))
        } else {
            let body = body(command, key)?;
            let target = of("device").unwrap_or_default();
            hand_in(&self.service, &self.commands, &WHOLE, body, &by)
                .await
                .map_err(|problem| (target, problem))
        };
        taken.map_err(|(target, problem)| format!("{target}: {}", problem.detail()))
    }

    /// What of the commands did not come to its end well.
    async fn ends(&self, life: &mut Receiver<Command>, mut given: Vec<Command>) -> Vec<String> {
        let within = given.iter().map(|command| command.deadline_ms.saturating_sub(command.at_ms)).max();
        let until = Instant::now() + Duration::from_millis(within.unwrap_or(0)) + GRACE;
        // At a stop, as at the end of their time, they are what they are.
        let _ = follow(&self.commands, life, &mut given, until).await;
        given.iter().filter_map(failure).collect()
    }
}

/// A command as the API takes it. What an expression came to was not checked before.
fn body(command: &Json, key: String) -> Result<CommandBody, String> {
    check_later(command).map_err(|problem| problem.detail().to_owned())?;
    let mut command = command.clone();
    if let Some(map) = command.as_object_mut() {
        map.insert("key".to_owned(), key.into());
        map.entry("deadline_ms").or_insert_with(|| json!(DEADLINE_MS));
    }
    serde_json::from_value(command).map_err(|rule| format!("a command is not understood: {rule}"))
}

/// What a command failed by. One that another took over from was carried out as far as it could be.
fn failure(command: &Command) -> Option<String> {
    let reason = match command.state {
        CommandState::TimedOut | CommandState::Failed => {
            command.reason.as_deref().unwrap_or("it gave no reason")
        }
        state if state.is_final() => return None,
        _ => "its command did not end",
    };
    Some(format!("{}: {reason}", command.device))
}
