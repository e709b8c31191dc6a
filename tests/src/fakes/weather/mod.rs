//! The two weather services, as they document themselves, with all that can go wrong between them and a home.
//!
//! They refuse what the real ones refuse: a request without a User-Agent that names somebody, five decimals, a variable
//! that does not exist. Their clock is their own.

mod connection;
pub mod met_norway;
pub mod open_meteo;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// The moment at which the clock of a fake starts, in seconds since 1970: 2020-06-10T13:04:26Z, a Wednesday.
pub const BEGIN: i64 = 1_591_794_266;

/// Which of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The Forecast API of Open-Meteo.
    OpenMeteo,
    /// Locationforecast 2.0 of MET Norway.
    MetNorway,
}

/// What it does with each request.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// What is documented.
    Good,
    /// It takes requests and never answers.
    Silent,
    /// It ends each connection as soon as it was asked.
    Closes,
    /// This status, with these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// The good answer with another status.
    As(u16),
    /// It moves to another path of the same server, from there to the good answer.
    Moves,
    /// It moves in a circle.
    Circles,
    /// Bytes as they are, then the end of the connection.
    Raw(Vec<u8>),
    /// Half of the good answer, then the end of the connection.
    Truncated,
    /// The good answer a byte at a time, with so long between two.
    Slow(Duration),
    /// A body that goes on for so many bytes, made while it is sent.
    Endless(u64),
    /// A good head, and this body with this `Content-Encoding`.
    Encoded(&'static str, Vec<u8>),
    /// A good head, and this body.
    Body(String),
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// When.
    pub at: Instant,
    /// With its query.
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    /// A part of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.path.split_once('?')?;
        query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }
}

/// A running fake; it ends when dropped.
#[derive(Debug)]
pub struct Weather {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

/// What the fake knows; shared with its connections.
#[derive(Debug)]
struct State {
    service: Service,
    mode: Mode,
    asked: Vec<Asked>,
    /// How long an answer holds (`Expires`), in seconds.
    holds: i64,
    /// When the clock of the service showed what.
    clock: (Instant, i64),
    /// Since when the data is as it is, in seconds since 1970.
    modified: i64,
    /// Added to each temperature.
    warmer: f64,
    /// Bytes of bodies that were sent.
    sent: u64,
}

impl State {
    fn now(&self) -> i64 {
        self.clock.1 + i64::try_from(self.clock.0.elapsed().as_secs()).unwrap()
    }
}

impl Weather {
    /// Starts one.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(service: Service) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = State {
            service,
            mode: Mode::Good,
            asked: Vec::new(),
            holds: 0,
            clock: (Instant::now(), BEGIN),
            modified: BEGIN - 60,
            warmer: 0.0,
            sent: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(connection::serve(stream, shared.clone()));
            }
        });
        Ok(Self { address, state, task: task.abort_handle() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for people.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does this.
    pub fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// From now on its answers hold so long.
    pub fn holds(&self, seconds: i64) {
        self.state.lock().unwrap().holds = seconds;
    }

    /// Its clock goes forward.
    pub fn pass(&self, seconds: i64) {
        self.state.lock().unwrap().clock.1 += seconds;
    }

    /// It has new data: everything is so much warmer than in the beginning.
    pub fn renew(&self, warmer: f64) {
        let mut state = self.state.lock().unwrap();
        state.warmer = warmer;
        state.modified = state.now().max(state.modified + 1);
    }

    /// What it was asked, oldest first.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How many bytes of bodies it sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.state.lock().unwrap().sent
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The wrong answers by number, from 0; none when there are no more.
#[must_use]
pub fn misbehaviour(number: usize) -> Option<Mode> {
    let text = |body: &str| Mode::Body(body.to_owned());
    let raw = |bytes: &[u8]| Mode::Raw(bytes.to_vec());
    let json = "Content-Type: application/json\r\n";
    let wrong = [
        Mode::Closes,
        Mode::Truncated,
        Mode::Slow(Duration::from_millis(20)),
        Mode::Endless(100_000_000),
        Mode::Silent,
        Mode::Status(500, vec![], "<html>an error</html>".into()),
        Mode::Status(429, vec![("Retry-After", "1".into())], String::new()),
        Mode::Status(503, vec![("Retry-After", "a while".into())], "x".repeat(10_000)),
        Mode::Status(403, vec![], "<html>no</html>".into()),
        Mode::Status(304, vec![], String::new()),
        Mode::Status(204, vec![], String::new()),
        Mode::Status(302, vec![("Location", "http://elsewhere.example/".into())], String::new()),
        Mode::Circles,
        text(""),
        text("null"),
        text("[]"),
        text("{}"),
        text("<html>Please log in to the network of this hotel</html>"),
        text(r#"{"current":{"temperature_2m":NaN},"properties":{"timeseries":NaN}}"#),
        text(r#"{"current":{"temperature_2m":1e999},"properties":{"timeseries":[1e999]}}"#),
        text(r#"{"current":{"temperature_2m":"warm"},"properties":{"timeseries":"soon"}}"#),
        text(r#"{"hourly":{"time":[9223372036854775807,-9223372036854775808],"temperature_2m":[1e308,-1e308]},
                 "properties":{"timeseries":[{"time":"9999-12-31T23:59:59Z","data":{}}]}}"#),
        text(&"[".repeat(200_000)),
        Mode::Encoded("gzip", b"not gzip".to_vec()),
        Mode::Encoded("br", b"nobody asked for that".to_vec()),
        raw(b"\x16\x03\x01\x02\x00\x01"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n{}"),
        raw(b"HTTP/1.1 999999\r\n\r\n"),
        raw(format!("HTTP/1.1 200 OK\r\n{json}Content-Length: 1000\r\n\r\n{{\"current\":").as_bytes()),
        raw(format!("HTTP/1.1 200 OK\r\n{json}Transfer-Encoding: chunked\r\n\r\nzz\r\n").as_bytes()),
        raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(50_000)).as_bytes()),
        raw(b"HTTP/1.1 200 OK\r\nExpires: never\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\n\r\n{}"),
    ];
    wrong.get(number).cloned()
}
