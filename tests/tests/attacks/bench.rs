//! A node under attack, a good client beside, and what an attack must get.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use hearth_tests::{
    daemon::{Client, Daemon, Folder, Observer, PATIENCE, Plan, client::trusting},
    hostile::tcp_from,
};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::task::block_in_place;

/// Connections of a flood.
const SIDE_BY_SIDE: usize = 8;

/// What an attack is called, the token that it shows, its method, its target, its body, and how it must be refused.
pub(crate) type Case<'a> = (&'a str, &'a str, &'a str, &'a str, Option<Value>, Refusal);

/// What an attack must get.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    /// A problem document of this status and type.
    Problem(u16, &'static str),
    /// This status: the request was refused before anybody knew who asked for what.
    Status(u16),
    /// An end of the connection without an answer.
    Hangup,
}

pub(crate) use Refusal::{Hangup, Problem, Status};

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }

    /// The last part of the type of its problem document.
    pub(crate) fn problem(&self) -> Option<String> {
        let document: Value = serde_json::from_str(&self.body).ok()?;
        let whole =
            document["status"] == self.status && document["fix"].as_str().is_some_and(|fix| !fix.is_empty());
        let kind = document["type"].as_str()?.strip_prefix("urn:hearth:problem:")?;
        whole.then(|| kind.to_owned())
    }
}

/// A request byte by byte: `Host` and `Connection: close` are added unless they are given.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let given = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !given("host") {
        head.push_str("Host: localhost\r\n");
    }
    if !given("connection") {
        head.push_str("Connection: close\r\n");
    }
    if !body.is_empty() && !given("content-length") && !given("transfer-encoding") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    if !body.is_empty() && !given("content-type") {
        head.push_str("Content-Type: application/json\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// The same with a token and a JSON body.
pub(crate) fn asked(token: &str, method: &str, target: &str, body: Option<&Value>) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let body = body.map(Value::to_string).unwrap_or_default();
    request(method, target, &[("Authorization", &bearer)], body.as_bytes())
}

/// A person of the household, who may do what operators may.
pub(crate) const USER: &str = "ann";
/// What she signs in with.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// Who lives in the household that is attacked.
pub(crate) struct Bench {
    pub(crate) node: Daemon,
    pub(crate) pem: String,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) viewer: String,
    pub(crate) operator: String,
    pub(crate) admin: String,
    /// A token of an admin that was revoked before all attacks.
    pub(crate) revoked: String,
    good: Client,
    watching: Observer,
    written: u64,
    secrets: Vec<String>,
    names: BTreeSet<String>,
    wrong: Vec<String>,
    connections: AtomicU8,
}

impl Bench {
    /// A node that logs as it does by default.
    pub(crate) async fn start() -> Self {
        Self::logging(None).await
    }

    /// A node that logs so much.
    pub(crate) async fn logging(level: Option<&str>) -> Self {
        let mut plan = Plan::new("front").variable("HEARTH_CLOCK", "trusted");
        if let Some(level) = level {
            plan = plan.variable("HEARTH_LOG", level);
        }
        let node = plan.start().await.unwrap();
        let pem = node.cli(&["ca", "export"]).await.unwrap().ok().unwrap().stdout;
        let mut tokens = Vec::new();
        for role in ["viewer", "operator", "admin", "operator"] {
            tokens.push(node.token(role).await.unwrap());
        }
        let made = node.json(&["token", "create", "--role", "admin"]).await.unwrap();
        tokens.push(made["token"].as_str().unwrap().to_owned());
        node.cli(&["token", "revoke", made["id"].as_str().unwrap()]).await.unwrap().ok().unwrap();
        let line = ["user", "add", USER, "--role", "operator", "--password-stdin"];
        node.cli_with(&line, format!("{PASSWORD}\n").as_bytes()).await.unwrap().ok().unwrap();
        let good = node.web(Some(&tokens[3])).await.unwrap();
        let mut watching = good.watch().await.unwrap();
        watching.subscribe(&["note/"], None).await.unwrap();
        Self {
            tls: Arc::new(trusting(&pem).unwrap()),
            pem,
            viewer: tokens[0].clone(),
            operator: tokens[1].clone(),
            admin: tokens[2].clone(),
            revoked: tokens[4].clone(),
            good,
            watching,
            written: 0,
            // No answer, log or export has the hash of a password either.
            secrets: tokens.into_iter().chain([PASSWORD, "argon2id"].map(str::to_owned)).collect(),
            names: BTreeSet::new(),
            wrong: Vec::new(),
            connections: AtomicU8::new(0),
            node,
        }
    }

    /// What must never be in an answer, a log or an export.
    pub(crate) fn secret(&mut self, text: &str) {
        self.secrets.push(text.to_owned());
    }

    /// Sends a request over TLS and checks that it is refused as it must be.
    pub(crate) async fn http(&mut self, name: &str, bytes: &[u8], refusal: Refusal) {
        let reply = block_in_place(|| self.exchange(bytes));
        self.judge(name, reply.as_ref(), refusal).await;
    }

    /// Sends bytes over TLS; what comes back until the node ends the connection or a whole answer is there.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Option<Reply> {
        exchange(self.connect(), bytes)
    }

    /// The same from 127.0.0.NUMBER.
    pub(crate) fn exchange_from(&self, number: u8, bytes: &[u8]) -> Option<Reply> {
        exchange(self.connect_from(number), bytes)
    }

    /// Sends a request again and again from 127.0.0.NUMBER, over some connections side by side; what came back until the node
    /// ended them.
    pub(crate) fn repeated(&self, number: u8, one: &[u8], times: usize) -> Vec<Reply> {
        let streams: Vec<_> = (0..SIDE_BY_SIDE).map(|_| self.connect_from(number)).collect();
        let ask = |mut stream: StreamOwned<ClientConnection, TcpStream>| {
            let mut replies = Vec::new();
            for _ in 0..times / SIDE_BY_SIDE {
                if stream.write_all(one).and_then(|()| stream.flush()).is_err() {
                    break;
                }
                let Some(reply) = read_reply(&mut stream) else { break };
                replies.push(reply);
            }
            replies
        };
        thread::scope(|scope| {
            let asking: Vec<_> = streams.into_iter().map(|stream| scope.spawn(|| ask(stream))).collect();
            asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect()
        })
    }

    /// A connection over TLS.
    pub(crate) fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        self.over(self.tcp())
    }

    /// The same from 127.0.0.NUMBER; the handshake comes with the first bytes.
    pub(crate) fn connect_from(&self, number: u8) -> StreamOwned<ClientConnection, TcpStream> {
        self.over(tcp_from(number, self.node.address()))
    }

    fn over(&self, stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(self.tls.clone(), name).unwrap();
        StreamOwned::new(connection, stream)
    }

    /// A connection without TLS, from one address of many: who comes from one alone is soon told to wait.
    pub(crate) fn tcp(&self) -> TcpStream {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) % 200;
        let stream = tcp_from(2 + number, self.node.address());
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Checks what an attack got, and that the good client is served all the same.
    pub(crate) async fn judge(&mut self, name: &str, reply: Option<&Reply>, refusal: Refusal) {
        let kept = match (refusal, reply) {
            (Problem(status, kind), Some(reply)) => {
                reply.status == status && reply.problem().as_deref() == Some(kind)
            }
            (Status(status), Some(reply)) => reply.status == status,
            (Hangup, None) => true,
            _ => false,
        };
        if !kept {
            let got = reply.map(|reply| (reply.status, reply.problem(), &reply.body));
            self.wrong.push(format!("{name}: expected {refusal:?}, got {got:?}"));
        }
        if let Some(reply) = reply {
            self.holds_no_secret(name, &format!("{}{}", reply.head, reply.body));
        }
        self.passed(name).await;
    }

    /// The same of an attack that is answered in another way than by HTTP.
    pub(crate) async fn must<T: std::fmt::Debug + PartialEq>(&mut self, name: &str, got: T, expected: T) {
        if got != expected {
            self.wrong.push(format!("{name}: expected {expected:?}, got {got:?}"));
        }
        self.passed(name).await;
    }

    /// Counts an attack that was refused, and checks on the good client.
    pub(crate) async fn passed(&mut self, name: &str) {
        assert!(self.names.insert(name.to_owned()), "two attacks are called {name:?}");
        self.good_is_served(name).await;
    }

    /// The good client writes, and sees what it wrote.
    pub(crate) async fn good_is_served(&mut self, after: &str) {
        self.written += 1;
        let written = self.written;
        let body = json!({ "set": { "n": written } });
        let answer = self.good.send("PATCH", "/api/v1/objects/note/alive", Some(&body)).await;
        answer.unwrap().success().unwrap_or_else(|error| panic!("after {after:?}: {error:?}"));
        let seen = |message: &Value| message["object"]["fields"]["n"] == written;
        self.watching.until("the note of the good client", seen).await.unwrap();
    }

    /// What is written to files by hand, the readable part of a backup included.
    async fn exports_hold_no_secret(&self) {
        let folder = Folder::new().unwrap();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (export, backup, objects) = (path("home.ndjson"), path("home.hearth"), path("objects.ndjson"));
        for line in
            [&["export", &export][..], &["backup", &backup], &["restore", &backup, "--objects", &objects]]
        {
            self.node.cli(line).await.unwrap().ok().unwrap();
        }
        for file in [export, objects] {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains("note/alive"), "{file} holds the home");
            self.holds_no_secret(&file, &text);
        }
    }

    fn holds_no_secret(&self, place: &str, text: &str) {
        for secret in &self.secrets {
            assert!(!text.contains(secret.as_str()), "{place} holds a secret: {text}");
        }
    }

    /// Looks for secrets in what is left; answers with how many attacks there were.
    pub(crate) async fn finish(mut self) -> usize {
        self.good_is_served("everything").await;
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        for path in [
            "/metrics",
            "/api/v1/status",
            "/api/v1/doctor",
            "/api/v1/tokens",
            "/api/v1/users",
            "/api/v1/sessions",
            "/api/v1/invites",
            "/api/v1/issuers",
            "/api/v1/audit?limit=1000",
            "/api/v1/objects?incomplete=true&limit=1000",
            "/api/v1/export",
        ] {
            let answer = self.node.client().get(path).await.unwrap();
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            self.holds_no_secret(path, &answer.body);
        }
        self.exports_hold_no_secret().await;
        let mut observer = self.node.client().watch().await.unwrap();
        for told in observer.subscribe(&[""], None).await.unwrap().0 {
            self.holds_no_secret("what an observer is told", &told.to_string());
        }
        // Last, so that it has what all of this made the node say.
        let log = self.node.log();
        self.holds_no_secret("the log", &log);
        assert!(!log.contains("panicked"), "{log}");
        let metrics = self.node.client().get("/metrics").await.unwrap().body;
        assert!(metrics.contains("\nhearth_http_panics_total 0\n"), "a handler panicked");
        self.names.len()
    }
}

/// The resident memory of a node in KiB, from which its peak is counted anew (proc(5), `clear_refs`).
pub(crate) fn rest_kib(node: &Daemon) -> u64 {
    fs::write(format!("/proc/{}/clear_refs", node.pid().unwrap()), "5").expect("the peak can be set back");
    node.rss_kib().unwrap()
}

/// Sends bytes; what comes back until the node ends the connection or a whole answer is there.
pub(crate) fn exchange(mut stream: StreamOwned<ClientConnection, TcpStream>, bytes: &[u8]) -> Option<Reply> {
    // The node may refuse before it has taken all of it.
    let _ = stream.write_all(bytes);
    let _ = stream.flush();
    read_reply(&mut stream)
}

/// Reads one answer, or to the end.
pub(crate) fn read_reply(stream: &mut impl std::io::Read) -> Option<Reply> {
    let (mut all, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the node keeps it open"),
            // Reset, or no goodbye of TLS: the answer may have come before.
            Err(_) => break,
        }
        if is_whole(&all) {
            break;
        }
    }
    Reply::read(&all)
}

/// Whether an answer with a `Content-Length` is all there.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_ascii_lowercase();
    let length =
        length.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}
