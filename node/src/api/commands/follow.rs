//! Following commands to their ends.

use std::time::Duration;

use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep, timeout_at},
};

use super::super::ports::{Command, CommandsHandle, PortError};

/// When the owner of the commands has room for questions again.
const ROOM_SOON: Duration = Duration::from_millis(20);

/// Follows commands to their ends, or until then.
pub(crate) async fn follow(
    handle: &CommandsHandle,
    life: &mut Receiver<Command>,
    commands: &mut [Command],
    until: Instant,
) -> Result<(), PortError> {
    while commands.iter().any(|command| !command.state.is_final()) {
        match timeout_at(until, life.recv()).await {
            Ok(Ok(news)) => {
                if let Some(command) = commands.iter_mut().find(|command| command.id == news.id) {
                    *command = news;
                }
            }
            Ok(Err(RecvError::Lagged(_))) => look_again(handle, commands, until).await?,
            Ok(Err(RecvError::Closed)) => return Err(PortError::Stopping),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Asks where the open ones are. All who follow fall behind together: who finds no room asks again.
async fn look_again(
    handle: &CommandsHandle,
    commands: &mut [Command],
    until: Instant,
) -> Result<(), PortError> {
    for command in commands.iter_mut().filter(|command| !command.state.is_final()) {
        let now = loop {
            match handle.get(command.id.clone()).await {
                Err(PortError::Overloaded) if Instant::now() < until => sleep(ROOM_SOON).await,
                answer => break answer?,
            }
        };
        if let Some(now) = now {
            *command = now;
        }
    }
    Ok(())
}
