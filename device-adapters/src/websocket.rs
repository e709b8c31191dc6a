//! WebSocket (RFC 6455) for adapters, as a client: one that is kept open and told from, with a bound on every message
//! and a limit on silence.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::http::Origin;
use crate::net::Route;

/// The longest message, in bytes: a WLED with 32 segments tells some 16 KiB at once, a Shelly with all its components less.
const MOST_MESSAGE: usize = 64 * 1024;
/// What is read at once, in bytes; the library would take 128 KiB for each connection.
const READ_BUFFER: usize = 4 * 1024;
/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// After so long without a word the other side is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(20);
/// After so long without one it is gone.
const SILENCE: Duration = Duration::from_secs(50);
/// How long a message may take to be written.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// What was told and not yet taken in; then the other side has to wait.
const MOST_WAITING: usize = 4;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// It took too long.
    #[error("nothing was heard within {} s", .0.as_secs())]
    Silent(Duration),
    /// The other side takes nothing.
    #[error("a message was not taken within {} s", .0.as_secs())]
    Stuck(Duration),
    /// The handshake, or what came after it, is not the protocol.
    #[error("{0}")]
    Protocol(Box<tungstenite::Error>),
    /// The other side closed it.
    #[error("the device closed it")]
    Closed,
}

/// An open connection.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    heard: Instant,
    ping_at: Instant,
}

impl Socket {
    /// Connects to that path.
    pub(crate) async fn connect(route: &Route, to: &Origin, path: &str) -> Result<Self, SocketError> {
        let open = async {
            let stream = route.connect(&to.host, to.port, CONNECT_WITHIN).await;
            let stream = stream.map_err(SocketError::Connect)?;
            let mut config = WebSocketConfig::default();
            config.read_buffer_size = READ_BUFFER;
            config.write_buffer_size = 0; // each message is written at once
            config.max_message_size = Some(MOST_MESSAGE);
            config.max_frame_size = Some(MOST_MESSAGE);
            config.max_write_buffer_size = MOST_MESSAGE * 2;
            let opened = client_async_with_config(format!("ws://{to}{path}"), stream, Some(config)).await;
            Ok(opened.map_err(protocol)?.0)
        };
        let stream =
            timeout(CONNECT_WITHIN, open).await.unwrap_or(Err(SocketError::Silent(CONNECT_WITHIN)))?;
        let now = Instant::now();
        Ok(Self { stream, heard: now, ping_at: now + PING_EVERY })
    }

    /// Sends a text.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), SocketError> {
        self.write(Message::text(text)).await
    }

    /// The next text. Asks for a sign of life where none comes by itself.
    pub(crate) async fn next(&mut self) -> Result<String, SocketError> {
        loop {
            tokio::select! {
                message = self.stream.next() => {
                    let message = message.ok_or(SocketError::Closed)?.map_err(protocol)?;
                    self.heard = Instant::now();
                    self.ping_at = self.heard + PING_EVERY;
                    match message {
                        Message::Text(text) => return Ok(text.as_str().to_owned()),
                        Message::Close(_) => return Err(SocketError::Closed),
                        _ => {}
                    }
                }
                () = sleep_until(self.ping_at) => {
                    if self.heard + SILENCE <= Instant::now() {
                        return Err(SocketError::Silent(SILENCE));
                    }
                    self.ping_at += PING_EVERY / 2;
                    self.write(Message::Ping(Vec::new().into())).await?;
                }
            }
        }
    }

    async fn write(&mut self, message: Message) -> Result<(), SocketError> {
        let sent = timeout(WRITE_WITHIN, self.stream.send(message)).await;
        sent.map_err(|_| SocketError::Stuck(WRITE_WITHIN))?.map_err(protocol)
    }
}

fn protocol(error: tungstenite::Error) -> SocketError {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => SocketError::Closed,
        other => SocketError::Protocol(Box::new(other)),
    }
}

/// What is said so that the device tells what happens.
pub(crate) trait Greeting: Send + 'static {
    /// The first words after each connection; none where the device speaks first.
    fn open(&mut self) -> Option<String>;

    /// What a text is answered with; none for what is told, which is passed on.
    ///
    /// # Errors
    /// The device refuses to tell anything, and why.
    fn answer(&mut self, text: &str) -> Result<Option<String>, String>;
}

/// What a feed tells.
#[derive(Debug)]
pub(crate) enum FeedEvent {
    /// It is open.
    Open,
    /// The device told something.
    Text(String),
    /// It is not open, and why; it is tried again by itself.
    Closed(String),
}

/// A connection that is kept open by a task of its own, which ends with this.
pub(crate) struct Feed {
    events: mpsc::Receiver<FeedEvent>,
    _task: JoinSet<()>,
}

impl Feed {
    /// Connects, and again `pause` after each end; twice as long after each time that it did not open, up to ten times.
    pub(crate) fn start(
        route: Route,
        to: Origin,
        path: &'static str,
        greeting: impl Greeting,
        pause: Duration,
    ) -> Self {
        let (sender, events) = mpsc::channel(MOST_WAITING);
        let mut task = JoinSet::new();
        task.spawn(keep_open(route, to, path, greeting, pause, sender));
        Self { events, _task: task }
    }

    /// What it tells next. Safe to cancel.
    pub(crate) async fn next(&mut self) -> FeedEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

async fn keep_open(
    route: Route,
    to: Origin,
    path: &'static str,
    mut greeting: impl Greeting,
    pause: Duration,
    events: mpsc::Sender<FeedEvent>,
) {
    let mut wait = pause;
    loop {
        let began = Instant::now();
        let why = match tell(&route, &to, path, &mut greeting, &events).await {
            Ok(()) => return, // nobody listens
            Err(why) => why,
        };
        if events.send(FeedEvent::Closed(why)).await.is_err() {
            return;
        }
        wait = if began.elapsed() > SILENCE { pause } else { wait };
        sleep(wait).await;
        wait = (wait * 2).min(pause * 10);
    }
}

async fn tell(
    route: &Route,
    to: &Origin,
    path: &str,
    greeting: &mut impl Greeting,
    events: &mpsc::Sender<FeedEvent>,
) -> Result<(), String> {
    let text = |error: SocketError| error.to_string();
    let mut socket = Socket::connect(route, to, path).await.map_err(text)?;
    if let Some(first) = greeting.open() {
        socket.send(first).await.map_err(text)?;
    }
    if events.send(FeedEvent::Open).await.is_err() {
        return Ok(());
    }
    loop {
        let told = socket.next().await.map_err(text)?;
        if let Some(answer) = greeting.answer(&told)? {
            socket.send(answer).await.map_err(text)?;
        } else if events.send(FeedEvent::Text(told)).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    /// A device that speaks first.
    struct Speaks;

    impl Greeting for Speaks {
        fn open(&mut self) -> Option<String> {
            None
        }

        fn answer(&mut self, _: &str) -> Result<Option<String>, String> {
            Ok(None)
        }
    }

    async fn listener() -> (TcpListener, Origin) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        (listener, Origin::plain(at.ip(), at.port()))
    }

    #[tokio::test]
    async fn a_message_of_any_device_arrives_and_a_longer_one_ends_the_connection() {
        let (listener, at) = listener().await;
        let mut feed = Feed::start(Route::default(), at, "/ws", Speaks, Duration::from_secs(60));
        let mut device = tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap();
        assert!(matches!(feed.next().await, FeedEvent::Open));
        device.send(Message::text("x".repeat(40 * 1024))).await.unwrap();
        let FeedEvent::Text(text) = feed.next().await else { panic!("a long message did not arrive") };
        assert_eq!(text.len(), 40 * 1024);
        device.send(Message::text("x".repeat(MOST_MESSAGE + 1))).await.unwrap();
        let FeedEvent::Closed(why) = feed.next().await else { panic!("a longer one arrived") };
        assert!(why.contains("too long"), "{why}");
    }

    #[tokio::test]
    async fn a_device_that_takes_nothing_is_given_up() {
        let (listener, at) = listener().await;
        let (route, device) = (Route::default(), async {
            tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap()
        });
        let (socket, _device) = tokio::join!(Socket::connect(&route, &at, "/ws"), device);
        let mut socket = socket.unwrap();
        tokio::time::pause(); // the time passes as soon as nothing moves
        let error = loop {
            if let Err(error) = socket.send("x".repeat(MOST_MESSAGE)).await {
                break error;
            }
        };
        assert!(matches!(error, SocketError::Stuck(_)), "{error}");
    }
}
