//! What stands between the nodes and the authority: it counts, and disturbs by rules.
//!
//! The name by which it was asked is passed on, so the addresses that the authority gives lead through it again.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Listener, Reply, Seen, Step, Trust, seen::challenges_of, web};
use crate::daemon::{PATIENCE, wait_until};

/// An answer that the authority did not give.
#[derive(Debug, Clone)]
pub struct Canned {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

impl Canned {
    /// With this status and body.
    #[must_use]
    pub fn new(status: u16, body: Value) -> Self {
        Self { status, headers: vec![("content-type", "application/json".into())], body }
    }

    /// A problem (RFC 7807) of an ACME type, such as `rateLimited`.
    #[must_use]
    pub fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        let body = json!({ "type": kind, "detail": detail, "status": status });
        Self { status, headers: vec![("content-type", "application/problem+json".into())], body }
    }

    /// It may be asked again after so long.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.headers.push(("retry-after", seconds.to_string()));
        self
    }
}

/// What becomes of a request.
#[derive(Clone)]
pub enum Fault {
    /// The authority never hears of it; it waits until all are let go.
    HoldBefore,
    /// The authority has done it; its answer waits until all are let go.
    HoldAfter,
    /// The authority never hears of it, and the connection ends.
    Cut,
    /// The authority has done it, and the connection ends without the answer.
    Lose,
    /// This is answered instead.
    Answer(Canned),
    /// The body of the answer is changed.
    Rewrite(Arc<dyn Fn(&mut Value) + Send + Sync>),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HoldBefore => "HoldBefore",
            Self::HoldAfter => "HoldAfter",
            Self::Cut => "Cut",
            Self::Lose => "Lose",
            Self::Answer(_) => "Answer",
            Self::Rewrite(_) => "Rewrite",
        })
    }
}

/// To which requests something happens.
#[derive(Debug, Clone)]
pub struct Rule {
    step: Option<Step>,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// To each request of a step.
    #[must_use]
    pub fn on(step: Step, fault: Fault) -> Self {
        Self { step: Some(step), skip: 0, times: usize::MAX, fault }
    }

    /// To each request.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self { step: None, skip: 0, times: usize::MAX, fault }
    }

    /// Not to the first few.
    #[must_use]
    pub fn after(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// To so many only.
    #[must_use]
    pub fn times(mut self, requests: usize) -> Self {
        self.times = requests;
        self
    }

    /// What happens to this one.
    fn take(&mut self, step: Step) -> Option<Fault> {
        if self.step.is_some_and(|wanted| wanted != step) || self.times == 0 {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times = self.times.saturating_sub(1);
        Some(self.fault.clone())
    }
}

/// A running proxy. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    authority: SocketAddr,
    trust: Trust,
    book: Mutex<Book>,
    /// How many are held now.
    held: watch::Sender<usize>,
    /// Counts how often all were let go.
    let_go: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Book {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    /// Whose a challenge is, by its path.
    challenges: BTreeMap<String, String>,
}

impl Proxy {
    pub(super) async fn start(authority: SocketAddr, listener: &Listener) -> Result<Self> {
        let socket = TcpListener::bind((authority.ip(), 0)).await?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared {
            authority,
            trust: listener.trust()?,
            book: Mutex::default(),
            held: watch::Sender::new(0),
            let_go: watch::Sender::new(0),
        });
        let mut task = JoinSet::new();
        task.spawn(accept(socket, TlsAcceptor::from(listener.tls()?), shared.clone()));
        Ok(Self { address, shared, _task: task })
    }

    /// The address of the directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// One more rule. The first that applies to a request counts.
    pub fn rule(&self, rule: Rule) {
        self.shared.book().rules.push(rule);
    }

    /// No rule any more, and what was held goes on.
    pub fn clear(&self) {
        self.shared.book().rules.clear();
        self.shared.let_go.send_modify(|times| *times += 1);
    }

    /// Waits until a request is held: a node that failed waits a minute or so before it asks again.
    ///
    /// # Errors
    /// When none is in time, with what came.
    pub async fn holds(&self) -> Result<()> {
        let held =
            wait_until("a request is held", 3 * PATIENCE, async || Ok(*self.shared.held.borrow() > 0)).await;
        held.with_context(|| format!("{:#?}", self.steps()))
    }

    /// All that was asked so far, in the order in which it came.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.book().seen.clone()
    }

    /// The steps of all that was asked so far, with the status of each answer.
    #[must_use]
    pub fn steps(&self) -> Vec<(Step, Option<u16>)> {
        self.shared.book().seen.iter().map(|seen| (seen.step, seen.status)).collect()
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        self.shared.book().seen.clear();
    }

    /// How often a step was asked for.
    #[must_use]
    pub fn asked(&self, step: Step) -> usize {
        self.shared.book().seen.iter().filter(|seen| seen.step == step).count()
    }

    /// How often a step was done.
    #[must_use]
    pub fn done(&self, step: Step) -> usize {
        self.shared.book().seen.iter().filter(|seen| seen.step == step && seen.went_well()).count()
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request down; answers with its number and what becomes of it.
    fn enter(&self, path: &str, body: &[u8]) -> (usize, Step, Option<Fault>) {
        let mut book = self.book();
        let seen = Seen::of(path, body, &book.challenges);
        let step = seen.step;
        book.seen.push(seen);
        let fault = book.rules.iter_mut().find_map(|rule| rule.take(step));
        (book.seen.len() - 1, step, fault)
    }

    /// Writes down how it was answered.
    fn close(&self, number: usize, step: Step, reply: &Reply) {
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        let mut book = self.book();
        if step == Step::Authorization {
            book.challenges.extend(challenges_of(&body));
        }
        // It may have been forgotten meanwhile.
        if let Some(seen) = book.seen.get_mut(number).filter(|seen| seen.step == step) {
            seen.status = Some(reply.status);
            let is_bad = reply.status >= 400;
            seen.problem = body.get("type").and_then(Value::as_str).filter(|_| is_bad).map(str::to_owned);
        }
    }

    async fn hold(&self) {
        let mut let_go = self.let_go.subscribe();
        let _held = Held::new(self);
        // The proxy may end first.
        let _ = let_go.changed().await;
    }
}

/// Counts a request as long as it is held.
struct Held<'a>(&'a Shared);

impl<'a> Held<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.held.send_modify(|held| *held += 1);
        Self(shared)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), shared.clone());
        // A client that breaks off is no fault.
        tasks.spawn(async move { drop(serve(stream, tls, shared).await) });
        while tasks.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(tls.accept(stream).await?);
    let service = service_fn(|request| answer(request, shared.clone()));
    Ok(http1::Builder::new().serve_connection(stream, service).await?)
}

/// Answers a request. An error ends the connection.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let (number, step, fault) = shared.enter(&path, &body);
    match &fault {
        Some(Fault::Cut) => anyhow::bail!("cut"),
        Some(Fault::HoldBefore) => shared.hold().await,
        Some(Fault::Answer(canned)) => {
            let reply = spoken(canned)?;
            shared.close(number, step, &reply);
            return response(&reply);
        }
        _ => {}
    }
    let mut passed = Request::builder().method(head.method).uri(path);
    for (name, value) in without_framing(&head.headers) {
        passed = passed.header(name, value);
    }
    let passed = passed.body(Full::new(body))?;
    // Goes through whatever becomes of the client meanwhile.
    let through = tokio::spawn({
        let shared = shared.clone();
        async move {
            let reply = web::send(shared.authority, &shared.trust, passed).await?;
            shared.close(number, step, &reply);
            anyhow::Ok(reply)
        }
    });
    let mut reply = through.await??;
    match fault {
        Some(Fault::Lose) => anyhow::bail!("lost"),
        // What it refused it has not done, such as a request with a nonce that it does not like.
        Some(Fault::HoldAfter) if reply.status < 400 => shared.hold().await,
        Some(Fault::Rewrite(change)) => {
            let mut body: Value = serde_json::from_slice(&reply.body)?;
            change(&mut body);
            reply.body = Bytes::from(body.to_string());
        }
        _ => {}
    }
    response(&reply)
}

fn spoken(canned: &Canned) -> Result<Reply> {
    let mut headers = HeaderMap::new();
    for (name, value) in &canned.headers {
        headers.insert(*name, value.parse()?);
    }
    Ok(Reply { status: canned.status, headers, body: Bytes::from(canned.body.to_string()) })
}

fn response(reply: &Reply) -> Result<Response<Full<Bytes>>> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in without_framing(&reply.headers) {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(reply.body.clone()))?)
}

/// The headers that speak of the message and not of the connection.
fn without_framing(
    headers: &HeaderMap,
) -> impl Iterator<Item = (&hyper::header::HeaderName, &hyper::header::HeaderValue)> {
    headers.iter().filter(|(name, _)| ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name))
}
