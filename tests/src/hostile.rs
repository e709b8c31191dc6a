//! What the tests of bad input share: a node as an attacker, and a person at its board, see it, for
//! tests that block. The processes are those of [`crate::daemon`].
//!
//! A capability that a test needs and that this machine lacks fails the test with a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod home;
pub mod peer;

pub use crate::daemon::{Cli, Folder, Launch, PATIENCE, discreet};
pub use home::Home;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use anyhow::Result;
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::{Value as Json, json};
use tokio::{
    runtime::{Handle, Runtime},
    task::block_in_place,
};

use crate::daemon::{self, client::trusting};

/// What a daemon's memory may grow by under attack, in KiB: an attacker who could make it grow
/// without bound would pass this in the first second.
pub const RSS_BOUND_KIB: u64 = 64 * 1024;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// Runs to the end, in a test that is a thread and in one that is a task.
fn block<T>(future: impl Future<Output = T>) -> T {
    match Handle::try_current() {
        Ok(_) => block_in_place(|| RUNTIME.block_on(future)),
        Err(_) => RUNTIME.block_on(future),
    }
}

/// The outcome, or the test fails.
#[track_caller]
fn must<T>(future: impl Future<Output = Result<T>>) -> T {
    block(future).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Waits until the condition holds, and fails the test when it does not in time.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    must(daemon::wait_until(what, PATIENCE, async || Ok(holds())));
}

impl Cli {
    /// Asserts the exit code and words of the message.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) {
        let text = self.text();
        assert_eq!(self.code, code, "{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is missing in: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

impl Launch {
    /// Starts a daemon that is expected to end by itself, and returns what it said.
    #[track_caller]
    pub fn fails(&self, state: &Path) -> Cli {
        must(self.ends(state))
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    node: daemon::Daemon,
    /// Where it listens, over TCP and UDP.
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts a daemon and waits until it answers.
    #[track_caller]
    pub fn start(state: &Path, launch: &Launch) -> Self {
        let node = must(daemon::Daemon::on(state, launch));
        Self { address: node.address(), node }
    }

    /// A client on its socket.
    pub fn client(&self) -> daemon::Client {
        self.node.client()
    }

    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.node.pid().expect("it runs")
    }

    /// The state folder as the daemon itself sees it, mounts of its own included.
    pub fn state(&self) -> PathBuf {
        self.node.inner_state_dir()
    }

    /// All that it has logged, over all starts.
    pub fn said(&self) -> String {
        self.node.log()
    }

    /// Runs a command of `hearth` against it; `input` goes to its standard input.
    #[track_caller]
    pub fn cli_with(&self, arguments: &[&str], input: &[u8]) -> Cli {
        must(self.node.cli_with(arguments, input))
    }

    /// Runs a command of `hearth` against it.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Cli {
        self.cli_with(arguments, b"")
    }

    /// An invite's token.
    #[track_caller]
    pub fn invite(&self, role: &str, ttl_s: u64) -> String {
        let (status, body) = self.http("POST", "/api/v1/invites", &json!({"roles": [role], "ttl_s": ttl_s}));
        assert!((200..300).contains(&status), "{status} {body}");
        body["token"].as_str().expect("a token").to_owned()
    }

    /// One request over the Unix socket.
    #[track_caller]
    pub fn http(&self, method: &str, path: &str, body: &Json) -> (u16, Json) {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = must(async { self.node.client().send(method, path, body).await });
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Json::String(answer.body)))
    }

    /// One request over the Unix socket with a body of any bytes.
    #[track_caller]
    pub fn http_raw(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut stream = UnixStream::connect(self.state().join("hearth.sock")).expect("the API answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        exchange(&mut stream, method, path, body)
    }

    /// One request over TLS, with the household's local authority as the only root. It comes from an address of its
    /// own: what the API bounds by address is the crowd at the address of those who attack it.
    #[track_caller]
    pub fn https(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.https_from(ELSEWHERE, method, path, body)
    }

    /// The same from 127.0.0.NUMBER.
    #[track_caller]
    pub fn https_from(&self, number: u8, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        exchange(&mut self.tls_over(tcp_from(number, self.address)), method, path, body)
    }

    /// A connection to the API over TLS; the handshake comes with the first bytes.
    pub fn tls_client(&self) -> StreamOwned<ClientConnection, TcpStream> {
        self.tls_over(TcpStream::connect(self.address).expect("the port is open"))
    }

    /// The same over a connection that is open already.
    pub fn tls_over(&self, stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let pem = fs::read_to_string(self.state().join("ca.pem")).expect("the CA");
        let config = Arc::new(trusting(&pem).expect("a CA"));
        let name = ServerName::try_from("localhost").expect("a name");
        StreamOwned::new(ClientConnection::new(config, name).expect("a client"), stream)
    }

    /// The status document.
    #[track_caller]
    pub fn status(&self) -> Json {
        must(self.node.status())
    }

    /// A counter by its name: of the mesh (`status`) or of the ports (`/metrics`).
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        if let Some(count) = self.status()["counters"][name].as_u64() {
            return count;
        }
        let (status, text) = self.http_raw("GET", "/metrics", b"");
        assert_eq!(status, 200, "{text}");
        let whole = format!("hearth_{name}_total");
        let found = text.lines().find_map(|line| {
            let (known, count) = line.split_once(' ')?;
            (known == whole).then(|| count.parse::<f64>().ok())?
        });
        let count = found.unwrap_or_else(|| panic!("there is no counter `{name}` in:\n{text}"));
        format!("{count:.0}").parse().expect("a count")
    }

    /// Waits until a counter has reached a number.
    #[track_caller]
    pub fn wait_counter(&self, name: &str, at_least: u64) {
        wait_until(&format!("{name} reaches {at_least}"), || self.counter(name) >= at_least);
    }

    /// Requests of a route that ended in this class (`4xx`), as `/metrics` counts them.
    #[track_caller]
    pub fn requests(&self, route: &str, class: &str) -> u64 {
        let (status, text) = self.http_raw("GET", "/metrics", b"");
        assert_eq!(status, 200, "{text}");
        let begins = format!("hearth_http_requests_total{{route=\"{route}");
        let class = format!("class=\"{class}\"");
        let counted = text.lines().filter(|line| line.starts_with(&begins) && line.contains(&class));
        counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// The short name of the node.
    #[track_caller]
    pub fn short(&self) -> String {
        must(self.node.id())[..16].to_owned()
    }

    /// One field of an object, if it is there.
    pub fn field(&self, object: &str, field: &str) -> Option<Json> {
        block(self.node.fields(object)).ok()?.get(field).cloned()
    }

    /// Writes a field; it must be acknowledged.
    #[track_caller]
    pub fn put(&self, object: &str, field: &str, value: &Json) {
        must(self.node.put(object, json!({field: value})));
    }

    /// Resident memory in KiB.
    #[track_caller]
    pub fn rss_kib(&self) -> u64 {
        self.node.rss_kib().expect("it runs")
    }

    /// The most that its resident memory ever was, in KiB.
    #[track_caller]
    pub fn peak_rss_kib(&self) -> u64 {
        self.node.peak_rss_kib().expect("it runs")
    }

    /// Stops it in order and waits until it has.
    #[track_caller]
    pub fn stop(mut self) {
        assert_eq!(must(self.node.stop()), Some(0), "{}", self.said());
    }
}

/// The good client's address on the loopback interface, 127.0.0.NUMBER: nobody who attacks has it.
const ELSEWHERE: u8 = 200;

/// A connection from another of this machine's addresses, 127.0.0.NUMBER.
#[track_caller]
pub fn tcp_from(number: u8, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 0, 0, number], 0))).expect("an address");
    connect(&socket, &to).expect("the port is open");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream
}

/// HTTP/1.1 as far as a test needs it: one request, one answer, the end. Unlike a client that
/// behaves, it reads the answer of a server that refused while it was still sending.
fn exchange(
    stream: &mut (impl std::io::Read + std::io::Write),
    method: &str,
    path: &str,
    body: &[u8],
) -> (u16, String) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses early may close before it has read everything; it has answered then.
    let written = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    // The end without a close_notify is an error of TLS, but the answer is here.
    let read = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| {
        panic!("{method} {path}: no HTTP answer in {text:?}; written {written:?}, read {read:?}")
    });
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}
