//! Ways of a bridge to answer wrongly.

use anyhow::Result;
use tokio::sync::watch;

use super::web::{Stream, chunk};
use super::{Mood, Reply, server};

/// A way to answer wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// As any web server does.
    Common(server::Wrong),
    /// 429 to everything.
    Busy,
    /// 503 to everything, with a time to wait that nobody waits.
    Away,
    /// 404 to everything.
    Nowhere,
    /// No resources.
    Empty,
    /// Events that are no JSON.
    Events,
    /// An event without an end.
    Endless,
}

const OWN: [Wrong; 6] =
    [Wrong::Busy, Wrong::Away, Wrong::Nowhere, Wrong::Empty, Wrong::Events, Wrong::Endless];

impl Wrong {
    /// Every way to answer wrongly.
    pub fn all() -> impl Iterator<Item = Self> {
        server::WRONG.into_iter().map(Self::Common).chain(OWN)
    }
}

/// Answers; false when the connection is over.
pub(super) async fn answer(
    stream: &mut Stream,
    reply: &Reply,
    wrong: Wrong,
    mood: &watch::Sender<Mood>,
) -> Result<bool> {
    let (reply, body) = match wrong {
        Wrong::Common(common) => {
            let mut moods = mood.subscribe();
            let well = async {
                moods.wait_for(|mood| *mood != Mood::Wrong(wrong)).await?;
                Ok(())
            };
            return server::answer_wrongly(stream, reply, common, well).await;
        }
        Wrong::Busy => (Reply::error(429, "too many requests"), String::new()),
        Wrong::Away => {
            let headers = vec![("retry-after", "99999999999999999999".to_owned())];
            (Reply { headers, ..Reply::error(503, "away") }, String::new())
        }
        Wrong::Nowhere => (Reply::error(404, "Not Found"), "{}".to_owned()),
        Wrong::Empty => (Reply { status: 200, ..reply.clone() }, r#"{"errors":[],"data":[]}"#.to_owned()),
        Wrong::Events | Wrong::Endless => (reply.clone(), reply.body.to_string()),
    };
    server::write(stream, &reply, &body).await?;
    Ok(true)
}

/// What an event stream says first.
pub(super) async fn events(stream: &mut Stream, wrong: Wrong) -> Result<()> {
    match wrong {
        Wrong::Events => {
            for text in ["data: {\n\n", "data: [{\"type\":7}]\n\n", "\u{0}\u{1}\n\n", "data: null\n\n"] {
                chunk(stream, text).await?;
            }
        }
        Wrong::Endless => {
            let block = format!("data: {}", "a".repeat(64 * 1024));
            for _ in 0..server::HUGE / block.len() {
                chunk(stream, &block).await?;
            }
        }
        _ => {}
    }
    Ok(())
}
