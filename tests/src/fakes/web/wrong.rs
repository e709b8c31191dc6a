//! Answers of a web server that are wrong in every way that adapters must survive.

use std::future::Future;

use anyhow::Result;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{Reply, text_of, write};

/// What a huge answer holds.
pub(in super::super) const HUGE: usize = 100 * 1024 * 1024;

/// Ways to answer wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// 500 to everything.
    Broken,
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
    /// Every number is a text, every text a number, every truth an object.
    Types,
    /// A thousand lists in each other.
    Deep,
    /// A head without an end.
    Head,
    /// Numbers that no type holds.
    Numbers,
    /// 401 to everything, without a challenge.
    Locked,
}

/// Every way to answer wrongly.
pub const WRONG: [Wrong; 14] = [
    Wrong::Broken,
    Wrong::Hangs,
    Wrong::Noise,
    Wrong::Page,
    Wrong::Cut,
    Wrong::Closes,
    Wrong::Huge,
    Wrong::List,
    Wrong::Null,
    Wrong::Types,
    Wrong::Deep,
    Wrong::Head,
    Wrong::Numbers,
    Wrong::Locked,
];

/// Answers in that way, which ends with `well` where it is to wait; false when the connection is over.
pub(in super::super) async fn answer_wrongly<S: AsyncWrite + Unpin>(
    stream: &mut S,
    reply: &Reply,
    wrong: Wrong,
    well: impl Future<Output = Result<()>>,
) -> Result<bool> {
    let good = Reply { status: 200, ..reply.clone() };
    let text = text_of(&reply.body);
    match wrong {
        Wrong::Broken => write(stream, &Reply::status(500), "out of memory").await?,
        Wrong::Page => write(stream, &good, "<html>Please log in</html>").await?,
        Wrong::Cut => write(stream, &good, &text[..text.len() / 2]).await?,
        Wrong::List => write(stream, &good, "[]").await?,
        Wrong::Null => write(stream, &good, "null").await?,
        Wrong::Types => write(stream, &good, &twisted(&reply.body).to_string()).await?,
        Wrong::Deep => write(stream, &good, &"[".repeat(1_000)).await?,
        Wrong::Numbers => {
            write(stream, &good, &text.replace(":1", ":1e400").replace(":2", ":-2e308")).await?
        }
        Wrong::Locked => write(stream, &Reply::status(401), "").await?,
        Wrong::Hangs => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await?;
            stream.flush().await?;
            well.await?;
            return Ok(false);
        }
        Wrong::Noise => {
            stream.write_all(&[0xff; 200]).await?;
            stream.flush().await?;
            return Ok(false);
        }
        Wrong::Closes => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"state\":").await?;
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

/// Every value with another type.
fn twisted(value: &Value) -> Value {
    match value {
        Value::Null => Value::Bool(true),
        Value::Bool(_) => serde_json::json!({}),
        Value::Number(number) => Value::String(number.to_string()),
        Value::String(text) => text.len().into(),
        Value::Array(items) => items.iter().map(twisted).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), twisted(value))).collect()
        }
    }
}
