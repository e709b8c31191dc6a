//! HTTP/1.1 as far as a client of the fakes needs it, and some of it wrong on purpose.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval};

use super::{Asked, Mode, Service, State, met_norway, open_meteo};

/// The longest head of a request.
const MOST_HEAD: usize = 16 * 1024;

/// An answer as a service makes it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// Answers one connection until it ends.
pub(super) async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let _ = answer_all(stream, &state).await; // the client may go whenever it likes
}

async fn answer_all(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    while let Some(asked) = read(&mut stream).await? {
        let (mode, answer) = {
            let mut state = state.lock().unwrap();
            state.asked.push(asked.clone());
            (state.mode.clone(), good(&state, &asked))
        };
        if !send(&mut stream, state, mode, answer, &asked).await? {
            return stream.shutdown().await;
        }
    }
    Ok(())
}

/// What is documented for that request.
fn good(state: &State, asked: &Asked) -> Answer {
    let mut answer = match state.service {
        Service::OpenMeteo => open_meteo::answer(asked, state.now(), state.warmer),
        Service::MetNorway => {
            met_norway::answer(asked, state.now(), state.holds, state.modified, state.warmer)
        }
    };
    answer.headers.push(("Date", met_norway::date(state.now())));
    answer
}

/// The head of the next request; none at the end. Nobody sends a body.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Asked>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MOST_HEAD {
            return Err(io::Error::other("a head without an end"));
        }
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Some(Asked { at: Instant::now(), path, headers }))
}

/// Sends what the mode makes of the good answer; false when the connection must end.
async fn send(
    stream: &mut TcpStream,
    state: &Mutex<State>,
    mode: Mode,
    answer: Answer,
    asked: &Asked,
) -> io::Result<bool> {
    let count = |bytes: usize| state.lock().unwrap().sent += u64::try_from(bytes).unwrap();
    let with =
        |status: u16, headers: Vec<(&'static str, String)>, body: String| Answer { status, headers, body };
    let has_moved = asked.path.starts_with("/moved");
    let answer = match mode {
        Mode::Good => answer,
        Mode::Silent => pending().await,
        Mode::Closes => return Ok(false),
        Mode::Status(status, headers, body) => with(status, headers, body),
        Mode::As(status) => Answer { status, ..answer },
        Mode::Moves if has_moved => answer,
        Mode::Moves | Mode::Circles => {
            let path = asked.path.trim_start_matches("/moved");
            with(302, vec![("Location", format!("/moved{path}"))], String::new())
        }
        Mode::Raw(bytes) => {
            stream.write_all(&bytes).await?;
            return Ok(false);
        }
        Mode::Truncated => {
            let bytes = packed(&answer, asked);
            stream.write_all(&bytes[..bytes.len() / 2]).await?;
            return Ok(false);
        }
        Mode::Slow(pause) => {
            let mut pace = interval(pause);
            for byte in packed(&answer, asked) {
                pace.tick().await;
                stream.write_all(&[byte]).await?;
            }
            return Ok(true);
        }
        Mode::Endless(length) => {
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())
                .await?;
            let chunk = [b' '; 4_096];
            let mut left = length;
            while left > 0 {
                let part = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                stream.write_all(&chunk[..part]).await?;
                left -= u64::try_from(part).unwrap();
                count(part);
            }
            return Ok(true);
        }
        Mode::Encoded(encoding, bytes) => {
            let headers = vec![("Content-Encoding", encoding.to_owned())];
            stream.write_all(&whole(&with(200, headers, String::new()), &bytes)).await?;
            return Ok(true);
        }
        Mode::Body(body) => with(200, answer.headers, body),
    };
    let bytes = packed(&answer, asked);
    count(bytes.len());
    stream.write_all(&bytes).await?;
    Ok(true)
}

/// The answer with its head, compressed for who can take that.
fn packed(answer: &Answer, asked: &Asked) -> Vec<u8> {
    let wants = asked.headers.get("accept-encoding").is_some_and(|list| list.contains("gzip"));
    if !wants || answer.body.is_empty() {
        return whole(answer, answer.body.as_bytes());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(answer.body.as_bytes()).unwrap();
    let mut headers = answer.headers.clone();
    headers.push(("Content-Encoding", "gzip".to_owned()));
    whole(&Answer { status: answer.status, headers, body: String::new() }, &encoder.finish().unwrap())
}

fn whole(answer: &Answer, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} As It Is\r\n", answer.status).into_bytes();
    for (name, value) in &answer.headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    if !matches!(answer.status, 204 | 304) {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}
