//! The web server of the bridge: HTTP/1.1 by TLS, and the event stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Heard, Mood, Reply, Shared, Wrong, server, wrong};

/// The longest head and the longest body that are read.
const MOST_HEARD: usize = 64 * 1024;
/// A client that says nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is spoken over: TLS, or none where a bridge allows it.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) type Stream = BufReader<Box<dyn Duplex>>;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tasks.spawn(async move {
            let _ = serve(stream, shared).await; // a client that breaks off is no fault
        });
        while tasks.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Result<()> {
    stream.set_nodelay(true)?;
    let is_silent = *shared.mood.borrow() == Mood::Silent;
    if is_silent {
        shared.is_busy("(a connection)");
        return until(&shared, |now| now != Mood::Silent).await;
    }
    // A handshake record (RFC 8446, section 5.1); else it is HTTP, as on port 80 of a bridge.
    let mut first = [0; 1];
    stream.peek(&mut first).await?;
    let is_tls = first[0] == 0x16;
    let stream: Box<dyn Duplex> = if is_tls {
        let tls = shared.lock().tls.clone();
        Box::new(tls.accept(stream).await?)
    } else {
        Box::new(stream)
    };
    let mut stream = BufReader::new(stream);
    loop {
        let Some(heard) = timeout(PATIENCE, read(&mut stream)).await?? else { return Ok(()) };
        let is_busy = shared.is_busy(&format!("{} {}", heard.method, heard.path));
        let mood = *shared.mood.borrow();
        if mood == Mood::Silent {
            return until(&shared, |now| now != mood).await;
        }
        ensure!(is_tls || heard.path.starts_with("/api"), "version 2 of the API has TLS only");
        if heard.path == "/eventstream/clip/v2" {
            return tell(stream, &shared, &heard).await;
        }
        let reply = if is_busy { Reply::error(429, "Too Many Requests") } else { shared.answer(&heard) };
        let goes_on = match mood {
            Mood::Wrong(wrong) => wrong::answer(&mut stream, &reply, wrong, &shared.mood).await?,
            Mood::Well | Mood::Silent => {
                server::write(&mut stream, &reply, &reply.body.to_string()).await.map(|()| true)?
            }
        };
        if !goes_on {
            return Ok(());
        }
    }
}

/// Waits for such a mood. Who waits says nothing and closes then: what was asked meanwhile is lost.
async fn until(shared: &Shared, is_so: impl Fn(Mood) -> bool) -> Result<()> {
    let mut mood = shared.mood.subscribe();
    mood.wait_for(|mood| is_so(*mood)).await?;
    Ok(())
}

/// The next request; none at the end.
async fn read(stream: &mut Stream) -> Result<Option<Heard>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        ensure!(head.len() <= MOST_HEARD, "a head of more than {MOST_HEARD} bytes");
        if &head[before..] == "\r\n" {
            break;
        }
    }
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().context("no method")?, first.next().context("no path")?);
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(Ok(0), |length| length.parse::<usize>())?;
    ensure!(length <= MOST_HEARD, "a body of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(Some(Heard { method: method.to_owned(), path: path.to_owned(), headers, body }))
}

/// The event stream, until the client is gone or the bridge falls silent or wrong.
async fn tell(mut stream: Stream, shared: &Shared, heard: &Heard) -> Result<()> {
    let key = heard.headers.get("hue-application-key").cloned().unwrap_or_default();
    let mood = *shared.mood.borrow();
    if !shared.lock().keys.contains(&key) || mood == Mood::Wrong(Wrong::Common(server::Wrong::Locked)) {
        return server::write(&mut stream, &Reply::error(403, "unauthorized user"), "").await;
    }
    let mut events = shared.events.subscribe();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    chunk(&mut stream, ": hi\n\n").await?;
    if let Mood::Wrong(wrong) = mood {
        wrong::events(&mut stream, wrong).await?;
    }
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            event = events.recv() => {
                let is_silent = *shared.mood.borrow() == Mood::Silent;
                if is_silent {
                    continue;
                }
                chunk(&mut stream, &event?).await?;
            }
            // What is open when the bridge falls silent stays open and says nothing.
            changed = until(shared, |now| now != mood && now != Mood::Silent) => return changed,
            read = stream.read(&mut nothing) => {
                read?;
                return Ok(());
            }
        }
    }
}

pub(super) async fn chunk(stream: &mut Stream, text: &str) -> Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await?;
    stream.flush().await?;
    Ok(())
}
