//! What is sent next to a piece of hardware, of all that is due.

use tokio::time::Instant;

use super::command::Need;
use super::wire::Request;

/// What to send next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// What the command of that part needs.
    Command(usize, Need),
    /// The next question of a read of that part, which has begun.
    Question(usize),
    /// A poll of that part.
    Poll(usize),
    /// A question for what it is.
    Identify(Request),
    /// Is it still there?
    Reach,
}

/// The most urgent one: a command's messages go before everything else that is due. `reach` lies always ahead, and
/// nothing may be sent before `ready`.
pub(crate) fn most_urgent(
    commands: impl Iterator<Item = (Instant, Action)>,
    others: impl Iterator<Item = (Instant, Action)>,
    reach: Instant,
    ready: Instant,
) -> (Instant, Action) {
    // `min_by_key` keeps the first of equals; a command that is due must also beat what has
    // been due for longer, so everything else waits while one is being delivered.
    let others = others.chain([(reach, Action::Reach)]);
    let other = others.min_by_key(|(due, _)| *due).unwrap_or((reach, Action::Reach));
    match commands.min_by_key(|(due, _)| *due) {
        Some(command) if command.0 <= other.0.max(ready) => command,
        _ => other,
    }
}
