//! The owner of the answers that this node gives.
//!
//! One task keeps the table fresh by an observer on `challenge/`. It acknowledges an answer only after those who speak
//! with the authority have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use mesh_proto::{FieldName, ObjectId, ShortId, Value, kinds::Author};
use rustls::sign::CertifiedKey;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use super::{
    Answer,
    object::{self, Entry},
};
use crate::{
    service::{Changes, HouseholdTime, ObjectView, Op, Service, ServiceError},
    tls::alpn_challenge,
};

/// Answers that a node gives at once; more are neither given nor acknowledged.
const MAX_HELD: usize = 256;
/// How often is looked for answers whose time is over.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long after its time another node removes an answer that its maker did not.
const LONG_PAST_MS: u64 = 24 * 3_600_000;
/// Answers that are looked at in one sweep.
const SWEEP: usize = 1_000;

/// Which challenges a gateway answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serves {
    /// HTTP-01: its HTTP port is open.
    pub http: bool,
    /// TLS-ALPN-01: its port for the API is.
    pub tls_alpn: bool,
}

impl Serves {
    pub(super) fn answers(self, answer: &Answer) -> bool {
        match answer {
            Answer::Http { .. } => self.http,
            Answer::TlsAlpn { .. } => self.tls_alpn,
        }
    }

    pub(super) fn read(object: &ObjectView) -> Option<Self> {
        let value = &object.fields.get(&FieldName::new("gateway").ok()?)?.value;
        let is = |name: &str| value.get(name) == Some(&Value::Bool(true));
        Some(Self { http: is("http-01"), tls_alpn: is("tls-alpn-01") })
    }

    fn value(self) -> Value {
        let is = |name: &str, truth| (name.into(), Value::Bool(truth));
        Value::Map([is("http-01", self.http), is("tls-alpn-01", self.tls_alpn)].into())
    }
}

/// What this node answers, for those who speak with the authority.
#[derive(Debug, Default)]
pub struct Served {
    http: BTreeMap<(String, String), String>,
    tls_alpn: BTreeMap<String, Arc<CertifiedKey>>,
}

impl Served {
    /// What the file of the challenge holds for this host, in lower case without a port, and this token.
    pub fn key_authorization(&self, host: &str, token: &str) -> Option<&str> {
        self.http.get(&(host.to_owned(), token.to_owned())).map(String::as_str)
    }

    /// The certificate of the challenge for this name, in lower case.
    pub fn challenge_certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.tls_alpn.get(name).cloned()
    }
}

#[cfg(test)]
impl Served {
    /// How many answers there are.
    pub(crate) fn len(&self) -> usize {
        self.http.len() + self.tls_alpn.len()
    }

    /// Files of challenges, each by its host, token and content.
    pub(crate) fn of_http(files: &[(&str, &str, &str)]) -> Self {
        let file = |(host, token, content): &(&str, &str, &str)| {
            (((*host).to_owned(), (*token).to_owned()), (*content).to_owned())
        };
        Self { http: files.iter().map(file).collect(), ..Self::default() }
    }

    /// Certificates of challenges, each by its name.
    pub(crate) fn of_tls_alpn(name: &str, certificate: Arc<CertifiedKey>) -> Self {
        Self { tls_alpn: BTreeMap::from([(name.to_owned(), certificate)]), ..Self::default() }
    }
}

struct Held {
    entry: Entry,
    certificate: Option<Arc<CertifiedKey>>,
    acknowledged: bool,
}

/// The owner of the table; a task runs it.
pub struct Answers {
    service: Service,
    me: ShortId,
    time: watch::Receiver<HouseholdTime>,
    serves: watch::Receiver<Option<Serves>>,
    /// What was said of this node last.
    announced: Option<Serves>,
    held: BTreeMap<ObjectId, Held>,
    served: watch::Sender<Arc<Served>>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

type Next = Pin<Box<dyn Future<Output = Result<Changes, ServiceError>> + Send>>;

impl Answers {
    /// The owner, and where the answers are read. A node of which `serves` is none is no gateway: it gives no answers
    /// and only helps to clear away old ones.
    pub fn new(
        service: Service,
        me: ShortId,
        time: watch::Receiver<HouseholdTime>,
        serves: watch::Receiver<Option<Serves>>,
    ) -> (watch::Receiver<Arc<Served>>, Self) {
        let (served, receiver) = watch::channel(Arc::default());
        let (announced, held) = (None, BTreeMap::new());
        (receiver, Self { service, me, time, serves, announced, held, served })
    }

    /// Serves until the event loop, or whoever says what is served, is gone.
    pub async fn run(mut self) {
        while let Ok(watching) = self.service.watch(vec![object::ANSWERS.to_owned()], None).await {
            match self.follow(watching.watcher).await {
                Err(ServiceError::NoSuchWatcher) => debug!("observing the answers to challenges anew"),
                Err(ServiceError::Stopping) => return,
                Err(error) => {
                    // Too much waits to be written, mostly: what was not acknowledged is tried again.
                    debug!(%error, "answers to challenges cannot be acknowledged");
                    self.service.unwatch(watching.watcher).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(()) => return self.service.unwatch(watching.watcher).await,
            }
        }
    }

    async fn follow(&mut self, watcher: u64) -> Result<(), ServiceError> {
        let mut seen = BTreeSet::new();
        loop {
            let changes = self.service.next_changes(watcher).await?;
            seen.extend(changes.changes.iter().map(|change| change.id.clone()));
            let caught_up = changes.caught_up;
            self.take(changes);
            if caught_up {
                break;
            }
        }
        self.held.retain(|id, _| seen.contains(id));
        self.serve().await?;
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = self.next(watcher);
        loop {
            // The same future is polled until it ends: dropping it could lose its changes.
            tokio::select! {
                changes = &mut next => {
                    self.take(changes?);
                    self.serve().await?;
                    next = self.next(watcher);
                }
                changed = self.serves.changed() => match changed {
                    Ok(()) => self.serve().await?,
                    Err(_) => return Ok(()),
                },
                _ = sweep.tick() => self.sweep().await?,
            }
        }
    }

    fn next(&self, watcher: u64) -> Next {
        let service = self.service.clone();
        Box::pin(async move { service.next_changes(watcher).await })
    }

    fn take(&mut self, changes: Changes) {
        let now = self.time.borrow().now_ms();
        for change in changes.changes {
            let entry = change.object.as_ref().and_then(Entry::read).filter(|entry| entry.expires_ms > now);
            let Some(entry) = entry else {
                self.held.remove(&change.id);
                continue;
            };
            let is_known = self.held.get(&change.id).map(|held| held.entry == entry);
            if is_known == Some(true) {
                continue;
            }
            if is_known.is_none() && self.held.len() >= MAX_HELD {
                debug!(?entry, "there are {MAX_HELD} answers to challenges already");
                continue;
            }
            let certificate = certificate(&entry);
            self.held.insert(change.id, Held { entry, certificate, acknowledged: false });
        }
    }

    /// Serves what is held, says so of this node, and acknowledges what is new.
    async fn serve(&mut self) -> Result<(), ServiceError> {
        let serves = *self.serves.borrow_and_update();
        let (served, given) = self.table(serves);
        self.served.send_replace(Arc::new(served));
        let mut ops: Vec<Op> = Vec::new();
        if self.announced != serves {
            ops.extend(self.announcement(serves));
        }
        let new = self.held.iter().filter(|(id, held)| !held.acknowledged && given.contains(id));
        ops.extend(new.filter_map(|(id, held)| held.entry.acknowledgement(id, self.me)));
        if ops.is_empty() {
            return Ok(());
        }
        self.service.write(Author::Node, ops).await?;
        self.announced = serves;
        for (_, held) in self.held.iter_mut().filter(|(id, _)| given.contains(id)) {
            held.acknowledged = true;
        }
        Ok(())
    }

    /// What is given, and which of the answers that are. A name has one certificate at a time: the newest wins.
    fn table(&self, serves: Option<Serves>) -> (Served, BTreeSet<ObjectId>) {
        let (mut served, mut given) = (Served::default(), BTreeSet::new());
        let mut newest: BTreeMap<&str, (u64, &ObjectId)> = BTreeMap::new();
        let answered = |held: &Held| serves.is_some_and(|serves| serves.answers(&held.entry.answer));
        for (id, held) in self.held.iter().filter(|(_, held)| answered(held)) {
            match (&held.entry.answer, &held.certificate) {
                (Answer::Http { domain, token, key_authorization }, _) => {
                    let at = (domain.base().to_owned(), token.clone());
                    served.http.insert(at, key_authorization.clone());
                    given.insert(id.clone());
                }
                (Answer::TlsAlpn { domain, .. }, Some(certificate)) => {
                    let this = (held.entry.expires_ms, id);
                    if newest.get(domain.base()).is_none_or(|other| *other < this) {
                        newest.insert(domain.base(), this);
                        served.tls_alpn.insert(domain.base().to_owned(), certificate.clone());
                    }
                }
                (Answer::TlsAlpn { .. }, None) => {}
            }
        }
        given.extend(newest.into_values().map(|(_, id)| id.clone()));
        (served, given)
    }

    fn announcement(&self, serves: Option<Serves>) -> Option<Op> {
        let object = ObjectId::new(&format!("{}{}", object::GATEWAYS, self.me)).ok()?;
        let field = FieldName::new("gateway").ok()?;
        Some(match serves {
            Some(serves) => Op::Set(object, field, serves.value()),
            None => Op::Unset(object, field),
        })
    }

    /// Gives no more what is over, and removes it: its maker at once, others when its maker has not for long.
    async fn sweep(&mut self) -> Result<(), ServiceError> {
        let time = *self.time.borrow();
        let now = time.now_ms();
        let before = self.held.len();
        self.held.retain(|_, held| held.entry.expires_ms > now);
        if self.held.len() < before {
            self.serve().await?;
        }
        if !time.trusted {
            return Ok(());
        }
        let all = self.service.list(object::ANSWERS, None, SWEEP, false).await?;
        let over: Vec<Op> = all
            .iter()
            .filter(|answer| self.is_over(answer, now))
            .map(|answer| Op::Delete(answer.id.clone()))
            .collect();
        if !over.is_empty()
            && let Err(error) = self.service.write(Author::Node, over).await
        {
            debug!(%error, "old answers to challenges stay for now");
        }
        Ok(())
    }

    fn is_over(&self, answer: &ObjectView, now: u64) -> bool {
        let written = answer.fields.values().map(|field| field.at_ms).max().unwrap_or(0);
        match Entry::read(answer) {
            Some(entry) if entry.by == self.me => entry.expires_ms <= now,
            Some(entry) => entry.expires_ms.saturating_add(LONG_PAST_MS) <= now,
            None => written.saturating_add(LONG_PAST_MS) <= now,
        }
    }
}

fn certificate(entry: &Entry) -> Option<Arc<CertifiedKey>> {
    let Answer::TlsAlpn { domain, digest } = &entry.answer else { return None };
    let made = alpn_challenge::certificate(domain, digest);
    made.inspect_err(|error| warn!(%domain, %error, "no certificate for a challenge can be made")).ok()
}
