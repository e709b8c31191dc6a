//! Real daemons for the tests of bad input: started, watched and killed, each in a temp folder.
//!
//! A capability that a test needs and that this machine lacks fails the test with a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod home;
mod launch;
pub mod peer;

pub use home::Home;
pub use launch::Launch;

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value as Json, json};

/// Longer than anything here takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What a daemon's memory may grow by under attack, in KiB: an attacker who could make it grow
/// without bound would pass this in the first second.
pub const RSS_BOUND_KIB: u64 = 64 * 1024;

/// Waits until the condition holds, and fails the test when it does not in time.
#[expect(clippy::disallowed_methods, reason = "the one place that polls")]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// The daemon's binary: built beside this test.
pub fn hearth() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().and_then(Path::parent).expect("the folder of the build");
    let path = folder.join("hearth");
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// A folder that goes away with its owner.
#[derive(Debug)]
pub struct TempFolder(PathBuf);

impl TempFolder {
    /// A new one. Its path is short: a Unix socket must fit below it.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hb-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temp folder");
        Self(path)
    }

    /// A path inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Default for TempFolder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // What stays behind lies in the system's temp folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// No configuration of this machine reaches the tests.
fn clean(command: &mut Command) {
    for variable in ["STATE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"] {
        command.env_remove(variable);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") {
            command.env_remove(name);
        }
    }
}

/// A child that is killed when the test ends early.
#[derive(Debug)]
struct Killed(Option<Child>);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn finish(child: Child, what: &str) -> Output {
    let mut guard = Killed(Some(child));
    wait_until(what, || match &mut guard.0 {
        Some(child) => child.try_wait().expect("its state").is_some(),
        None => true,
    });
    guard.0.take().expect("a child").wait_with_output().expect("its output")
}

/// What a command or daemon that ended said.
#[derive(Debug)]
pub struct Refused {
    /// Its exit code.
    pub code: i32,
    /// All that it printed.
    pub text: String,
}

impl From<Output> for Refused {
    fn from(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self { code: output.status.code().unwrap_or(-1), text: String::from_utf8_lossy(&text).into_owned() }
    }
}

impl Refused {
    /// Asserts the exit code and words of the message.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "`{word}` is missing in: {}", self.text);
        }
        assert!(!self.text.contains("panicked"), "{}", self.text);
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Killed,
    state: PathBuf,
    log: PathBuf,
    /// Where it listens, over TCP and UDP.
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts a daemon and waits until it listens.
    pub fn start(state: &Path, launch: &Launch) -> Self {
        let log = state.with_extension("log");
        let mut command = launch.command(state);
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let before = file.metadata().expect("its size").len();
        command.stdout(file.try_clone().expect("a second handle")).stderr(file);
        let child = Killed(Some(command.spawn().expect("the daemon starts")));
        let address = "127.0.0.1:0".parse().expect("an address");
        let mut daemon = Self { child, state: state.into(), log, address };
        let skip = usize::try_from(before).expect("a short log");
        wait_until("the daemon is ready", || {
            let text = daemon.said();
            if let Some(exit) = daemon.child.0.as_mut().and_then(|child| child.try_wait().expect("its state"))
            {
                panic!("the daemon ended with {exit}: {text}");
            }
            let fresh = text.get(skip..).unwrap_or_default();
            let ready = fresh.lines().find(|line| line.contains("ready") && line.contains("address="));
            let found = ready.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next());
            if let Some(address) = found.and_then(|text| text.parse().ok()) {
                daemon.address = address;
            }
            daemon.address.port() != 0 && UnixStream::connect(daemon.socket()).is_ok()
        });
        daemon
    }

    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.child.0.as_ref().map_or(0, Child::id)
    }

    /// The state folder as the daemon itself sees it, mounts of its own included.
    pub fn state(&self) -> PathBuf {
        let inside = PathBuf::from(format!("/proc/{}/root{}", self.pid(), self.state.display()));
        let socket = inside.join("hearth.sock");
        let is_socket = fs::metadata(&socket).is_ok_and(|about| about.file_type().is_socket());
        if is_socket { inside } else { self.state.clone() }
    }

    fn socket(&self) -> PathBuf {
        self.state().join("hearth.sock")
    }

    /// All that it has logged, over all starts.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command of `hearth` against it; `input` goes to its standard input.
    pub fn cli_with(&self, arguments: &[&str], input: &[u8]) -> Refused {
        let mut command = Command::new(hearth());
        command.arg("--state-dir").arg(self.state()).args(arguments);
        clean(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("hearth starts");
        let mut stdin = child.stdin.take().expect("its input");
        // It may refuse before it has read everything.
        let _ = stdin.write_all(input);
        drop(stdin);
        Refused::from(finish(child, "the command ends"))
    }

    /// Runs a command of `hearth` against it.
    pub fn cli(&self, arguments: &[&str]) -> Refused {
        self.cli_with(arguments, b"")
    }

    /// An invite's token.
    pub fn invite(&self, role: &str, ttl_s: u64) -> String {
        let (status, body) = self.http("POST", "/api/v1/invites", &json!({"roles": [role], "ttl_s": ttl_s}));
        assert!((200..300).contains(&status), "{status} {body}");
        body["token"].as_str().expect("a token").to_owned()
    }

    /// One request over the Unix socket.
    pub fn http(&self, method: &str, path: &str, body: &Json) -> (u16, Json) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = self.http_raw(method, path, body.as_bytes());
        (status, serde_json::from_str(&text).unwrap_or(Json::String(text)))
    }

    /// One request over the Unix socket with a body of any bytes.
    pub fn http_raw(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut stream = UnixStream::connect(self.socket()).expect("the API answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        exchange(&mut stream, method, path, body)
    }

    /// One request over TLS, with the household's local authority as the only root.
    pub fn https(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        exchange(&mut self.tls_client(), method, path, body)
    }

    /// A connection to the API over TLS; the handshake comes with the first bytes.
    pub fn tls_client(&self) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
        let stream = TcpStream::connect(self.address).expect("the port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let pem = fs::read(self.state().join("ca.pem")).expect("the CA");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        rustls::StreamOwned::new(tls, stream)
    }

    /// The status document.
    pub fn status(&self) -> Json {
        let (status, body) = self.http("GET", "/api/v1/status", &Json::Null);
        assert_eq!(status, 200, "{body}");
        body
    }

    /// A counter by its name: of the mesh (`status`) or of the ports (`/metrics`).
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
    pub fn wait_counter(&self, name: &str, at_least: u64) {
        wait_until(&format!("{name} reaches {at_least}"), || self.counter(name) >= at_least);
    }

    /// The short name of the node.
    pub fn short(&self) -> String {
        self.status()["node"].as_str().expect("a key")[..16].to_owned()
    }

    /// One field of an object, if it is there.
    pub fn field(&self, object: &str, field: &str) -> Option<Json> {
        let (status, body) = self.http("GET", &format!("/api/v1/objects/{object}"), &Json::Null);
        (status == 200).then(|| body["fields"].get(field).cloned())?
    }

    /// Writes a field; it must be acknowledged.
    pub fn put(&self, object: &str, field: &str, value: &Json) {
        let body = json!({"set": {field: value}});
        let (status, body) = self.http("PATCH", &format!("/api/v1/objects/{object}"), &body);
        assert_eq!(status, 200, "{body}");
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Stops it in order and waits until it has.
    pub fn stop(mut self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        if let Some(child) = &mut self.child.0 {
            wait_until("the daemon stops", || child.try_wait().expect("its state").is_some());
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.0.as_mut().is_some_and(|child| child.try_wait().expect("its state").is_none())
    }
}

/// HTTP/1.1 as far as a test needs it: one request, one answer, the end.
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
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    // The end without a close_notify is an error of TLS, but the answer is here.
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method} {path}: no HTTP answer in {text:?}"));
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}
