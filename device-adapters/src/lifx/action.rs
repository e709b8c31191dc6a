//! What is sent next to a bulb, of all that is due.

use tokio::time::Instant;

use super::command::Need;
use super::wire::Request;

/// What to send next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// What a command needs.
    Command(Need),
    /// The next question of a read that has begun.
    Part,
    /// A poll.
    Poll,
    /// A question for what it is.
    Identify(Request),
    /// Is it still there?
    Reach,
}

/// The most urgent one: a command's messages go before everything else that is due. `reach` lies always ahead, and
/// nothing may be sent before `ready`.
pub(crate) fn most_urgent(
    command: Option<(Instant, Need)>,
    others: [Option<(Instant, Action)>; 3],
    reach: Instant,
    ready: Instant,
) -> (Instant, Action) {
    // `min_by_key` keeps the first of equals; a command that is due must also beat what has
    // been due for longer, so everything else waits while one is being delivered.
    let others = others.into_iter().flatten().chain([(reach, Action::Reach)]);
    let other = others.min_by_key(|(due, _)| *due).unwrap_or((reach, Action::Reach));
    match command {
        Some((due, need)) if due <= other.0.max(ready) => (due, Action::Command(need)),
        _ => other,
    }
}
