//! A board with a web server: HTTP/1.1 and WebSocket on loopback, that can fall silent, come back, and answer wrongly.

mod wrong;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tokio_tungstenite::tungstenite::Message;

pub(super) use wrong::{HUGE, answer_wrongly};
pub use wrong::{WRONG, Wrong};

/// The longest head and the longest body that are read.
const MOST_HEARD: usize = 64 * 1024;
/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body; null where there is none, or none of JSON.
    pub body: Value,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers, without the length of the body.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Value,
}

impl Reply {
    /// A good answer.
    #[must_use]
    pub fn good(body: Value) -> Self {
        Self { status: 200, headers: Vec::new(), body }
    }

    /// Another status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Value::Null }
    }
}

/// What a device is.
pub trait Site: Send + Sync + 'static {
    /// Answers a request.
    fn answer(&self, heard: &Heard) -> Reply;

    /// The path of the WebSocket.
    fn socket(&self) -> &'static str;

    /// The first words of a WebSocket; none where the client has to speak first.
    fn open(&self) -> Option<String>;

    /// What a text on a WebSocket is answered with, and whether news go there from now on.
    fn said(&self, text: &str) -> (Option<String>, bool);

    /// What the last answers changed, for all WebSockets.
    fn news(&self) -> Vec<String>;

    /// The most WebSockets; one more drops the oldest.
    fn most_sockets(&self) -> usize {
        usize::MAX
    }
}

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// Not at all.
    Silent,
    /// Wrongly.
    Wrong(Wrong),
}

/// A running server. It ends when dropped.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    mood: watch::Sender<Mood>,
    asked: Mutex<Vec<(Instant, String)>>,
    /// What is told to all WebSockets.
    news: broadcast::Sender<String>,
    /// The number of the newest WebSocket; those that are too old end.
    sockets: watch::Sender<usize>,
    /// How many WebSockets are open.
    open: watch::Sender<usize>,
    /// How many WebSockets were told news so far, or asked for them.
    listening: watch::Sender<usize>,
    refuses: watch::Sender<bool>,
    /// Told when all connections end.
    cut: watch::Sender<()>,
}

impl Web {
    /// Serves on a free port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(site: Arc<impl Site>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            mood: watch::Sender::new(Mood::Well),
            asked: Mutex::default(),
            news: broadcast::Sender::new(64),
            sockets: watch::Sender::new(0),
            open: watch::Sender::new(0),
            listening: watch::Sender::new(0),
            refuses: watch::Sender::new(false),
            cut: watch::Sender::new(()),
        });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, site, shared.clone()));
        Ok(Self { address, shared, _task: task })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it answers from now on.
    pub fn set(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// Whether it refuses WebSockets from now on; those that are open end.
    pub fn refuse_sockets(&self, refuses: bool) {
        self.shared.refuses.send_replace(refuses);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }

    /// Tells all WebSockets something.
    pub fn tell(&self, text: impl Into<String>) {
        let _ = self.shared.news.send(text.into()); // nobody may be listening
    }

    /// Waits until so many WebSockets are open.
    pub async fn opened(&self, sockets: usize) {
        let mut open = self.shared.open.subscribe();
        let _ = open.wait_for(|open| *open == sockets).await;
    }

    /// Waits until so many WebSockets are told news, or were.
    pub async fn told(&self, sockets: usize) {
        let mut listening = self.shared.listening.subscribe();
        let _ = listening.wait_for(|listening| *listening >= sockets).await;
    }

    /// When each request came.
    #[must_use]
    pub fn asked(&self) -> Vec<Instant> {
        self.log().into_iter().map(|(at, _)| at).collect()
    }

    /// When each request came, and what it asked for: its method and path.
    #[must_use]
    pub fn log(&self) -> Vec<(Instant, String)> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn pass_on(&self, news: Vec<String>) {
        for text in news {
            let _ = self.news.send(text); // nobody may be listening
        }
    }
}

async fn accept(listener: TcpListener, site: Arc<impl Site>, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (site, shared) = (site.clone(), shared.clone());
        tasks.spawn(async move {
            let mut cut = shared.cut.subscribe();
            tokio::select! {
                _ = serve(stream, site, shared) => {} // a client that breaks off is no fault
                _ = cut.changed() => {}
            }
        });
        while tasks.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, site: Arc<impl Site>, shared: Arc<Shared>) -> Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Some(head) = peek(&stream).await? else { return Ok(()) };
        let Some((method, path)) = first_line(&head) else { bail!("no request") };
        let asked = (Instant::now(), format!("{method} {path}"));
        shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let mood = *shared.mood.borrow();
        if mood == Mood::Silent {
            return silent(&shared).await;
        }
        if head.to_ascii_lowercase().contains("upgrade: websocket") {
            if path != site.socket() || *shared.refuses.borrow() {
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await?;
                return Ok(());
            }
            return converse(stream, site, shared).await;
        }
        let heard = read(&mut stream, &head).await?;
        let reply = site.answer(&heard);
        shared.pass_on(site.news());
        match mood {
            Mood::Wrong(wrong) => {
                let mut moods = shared.mood.subscribe();
                let well = when(&mut moods, |now| *now != mood);
                if !answer_wrongly(&mut stream, &reply, wrong, well).await? {
                    return Ok(());
                }
            }
            Mood::Well | Mood::Silent => write(&mut stream, &reply, &text_of(&reply.body)).await?,
        }
    }
}

/// Says nothing until it may again, and closes then: what was asked meanwhile is lost.
async fn silent(shared: &Shared) -> Result<()> {
    let mut mood = shared.mood.subscribe();
    mood.wait_for(|mood| *mood != Mood::Silent).await?;
    Ok(())
}

/// The head of the next request, which stays to be read; none at the end.
async fn peek(stream: &TcpStream) -> Result<Option<String>> {
    let mut buffer = vec![0; MOST_HEARD];
    // Peek does not wait for more than there is.
    let mut pace = interval(Duration::from_millis(1));
    loop {
        let length = stream.peek(&mut buffer).await?;
        if length == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            return Ok(Some(text[..end + 4].to_owned()));
        }
        pace.tick().await;
    }
}

fn first_line(head: &str) -> Option<(String, String)> {
    let mut words = head.lines().next()?.split(' ');
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

async fn read(stream: &mut TcpStream, head: &str) -> Result<Heard> {
    let mut skipped = vec![0; head.len()];
    stream.read_exact(&mut skipped).await?;
    let (method, path) = first_line(head).context("no request")?;
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let headers: BTreeMap<String, String> =
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").map_or(Ok(0), |length| length.parse::<usize>())?;
    if length > MOST_HEARD {
        bail!("a body of {length} bytes");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Heard { method, path, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

fn text_of(body: &Value) -> String {
    if body.is_null() { String::new() } else { body.to_string() }
}

/// Writes a reply with that body instead of its own.
pub(super) async fn write<S: AsyncWrite + Unpin>(stream: &mut S, reply: &Reply, body: &str) -> Result<()> {
    let mut head = format!("HTTP/1.1 {} -\r\ncontent-type: application/json\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.flush().await?;
    Ok(())
}

async fn converse(stream: TcpStream, site: Arc<impl Site>, shared: Arc<Shared>) -> Result<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    shared.sockets.send_modify(|newest| *newest += 1);
    let (mut newest, mut refuses) = (shared.sockets.subscribe(), shared.refuses.subscribe());
    let mine = *newest.borrow_and_update();
    let most = site.most_sockets();
    let mut news = shared.news.subscribe();
    let mut is_told = false;
    let _open = Opened::new(&shared);
    if let Some(first) = site.open() {
        socket.send(Message::text(first)).await?;
        is_told = true;
        shared.listening.send_modify(|listening| *listening += 1);
    }
    loop {
        tokio::select! {
            message = socket.next() => {
                let Message::Text(text) = message.context("closed")?? else { continue };
                if *shared.mood.borrow() == Mood::Silent {
                    continue;
                }
                let (answer, told) = site.said(&text);
                if told && !is_told {
                    is_told = true;
                    shared.listening.send_modify(|listening| *listening += 1);
                }
                if let Some(answer) = answer {
                    socket.send(Message::text(answer)).await?;
                }
                shared.pass_on(site.news());
            }
            told = news.recv() => {
                let told = told?;
                if is_told && *shared.mood.borrow() != Mood::Silent {
                    socket.send(Message::text(told)).await?;
                }
            }
            dropped = when(&mut newest, |newest| *newest >= mine.saturating_add(most)) => {
                dropped?;
                socket.close(None).await?;
                return Ok(());
            }
            refused = when(&mut refuses, |refuses| *refuses) => {
                refused?;
                socket.close(None).await?;
                return Ok(());
            }
        }
    }
}

/// Waits until it is so.
async fn when<T>(watched: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) -> Result<()> {
    watched.wait_for(is_so).await?;
    Ok(())
}

/// Counts a WebSocket as long as it is open.
struct Opened<'a>(&'a Shared);

impl<'a> Opened<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self(shared)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}
