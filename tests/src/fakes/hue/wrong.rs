//! Ways of a bridge to answer wrongly.

use anyhow::Result;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::super::web::twisted;
use super::web::{Stream, chunk, write};
use super::{Mood, Reply};

/// What a huge answer holds, in bytes.
const HUGE: usize = 100 * 1024 * 1024;

/// A way to answer wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// 500 to everything.
    Broken,
    /// 429 to everything.
    Busy,
    /// 503 to everything, with a time to wait that nobody waits.
    Away,
    /// 404 to everything.
    Nowhere,
    /// The head, and then nothing.
    Hangs,
    /// Bytes that are no HTTP.
    Noise,
    /// A page for people.
    Page,
    /// Half of the JSON.
    Cut,
    /// A body that is shorter than promised, and the end of the connection.
    Closes,
    /// 100 MB of JSON.
    Huge,
    /// A list where an object belongs.
    List,
    /// Null where an object belongs.
    Null,
    /// No resources.
    Empty,
    /// Every number is a text, every text a number, every truth an object.
    Types,
    /// A thousand lists in each other.
    Deep,
    /// A head without an end.
    Head,
    /// Numbers that no type holds.
    Numbers,
    /// Events that are no JSON.
    Events,
    /// An event without an end.
    Endless,
    /// 403 to everything.
    Locked,
}

/// Every way to answer wrongly.
pub const WRONG: [Wrong; 20] = [
    Wrong::Broken,
    Wrong::Busy,
    Wrong::Away,
    Wrong::Nowhere,
    Wrong::Hangs,
    Wrong::Noise,
    Wrong::Page,
    Wrong::Cut,
    Wrong::Closes,
    Wrong::Huge,
    Wrong::List,
    Wrong::Null,
    Wrong::Empty,
    Wrong::Types,
    Wrong::Deep,
    Wrong::Head,
    Wrong::Numbers,
    Wrong::Events,
    Wrong::Endless,
    Wrong::Locked,
];

/// Answers; false when the connection is over.
pub(super) async fn answer(
    stream: &mut Stream,
    reply: &Reply,
    wrong: Wrong,
    mood: &watch::Sender<Mood>,
) -> Result<bool> {
    let good = Reply { status: 200, ..reply.clone() };
    let text = reply.body.to_string();
    match wrong {
        Wrong::Broken => write(stream, &Reply::error(500, "internal error"), "out of memory").await?,
        Wrong::Busy => write(stream, &Reply::error(429, "too many requests"), "").await?,
        Wrong::Away => {
            let headers = vec![("retry-after", "99999999999999999999".to_owned())];
            write(stream, &Reply { headers, ..Reply::error(503, "away") }, "").await?;
        }
        Wrong::Nowhere => write(stream, &Reply::error(404, "Not Found"), "{}").await?,
        Wrong::Page => write(stream, &good, "<html>Please log in</html>").await?,
        Wrong::Cut => write(stream, &good, &text[..text.len() / 2]).await?,
        Wrong::List => write(stream, &good, "[]").await?,
        Wrong::Null => write(stream, &good, "null").await?,
        Wrong::Empty => write(stream, &good, r#"{"errors":[],"data":[]}"#).await?,
        Wrong::Types => write(stream, &good, &twisted(&reply.body).to_string()).await?,
        Wrong::Deep => write(stream, &good, &"[".repeat(1_000)).await?,
        Wrong::Numbers => {
            write(stream, &good, &text.replace(":1", ":1e400").replace(":2", ":-2e308")).await?;
        }
        Wrong::Locked => write(stream, &Reply::error(403, "unauthorized user"), "").await?,
        Wrong::Events | Wrong::Endless => write(stream, reply, &text).await?,
        Wrong::Hangs => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await?;
            stream.flush().await?;
            mood.subscribe().wait_for(|mood| *mood != Mood::Wrong(wrong)).await?;
            return Ok(false);
        }
        Wrong::Noise => {
            stream.write_all(&[0xff; 200]).await?;
            stream.flush().await?;
            return Ok(false);
        }
        Wrong::Closes => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"data\":").await?;
            stream.flush().await?;
            return Ok(false);
        }
        Wrong::Head => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for number in 0..100_000 {
                stream.write_all(format!("x-{number}: {number}\r\n").as_bytes()).await?;
            }
            return Ok(false);
        }
        Wrong::Huge => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {HUGE}\r\n\r\n{{\"a\":\"");
            stream.write_all(head.as_bytes()).await?;
            let block = vec![b'a'; 64 * 1024];
            for _ in 0..HUGE / block.len() {
                stream.write_all(&block).await?;
            }
            return Ok(false);
        }
    }
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
            for _ in 0..HUGE / block.len() {
                chunk(stream, &block).await?;
            }
        }
        _ => {}
    }
    Ok(())
}
