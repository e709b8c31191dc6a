//! The task that owns the tokens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use mesh_proto::{ObjectId, ShortId, kinds::Author};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Denied, End, Grant, Live, MAX_LABEL_BYTES, MAX_LIFE_S, MAX_TOKENS, Made, PREFIX, Request, Role,
    TokenError, TokenView, TokensHandle, Wanted,
    stored::{Entry, is_remnant, millis, object, set},
};
use crate::{
    auth::{
        Secret, Who,
        attempts::Attempts,
        clock::{Clock, written_ms},
        follower::{Follower, News},
        random,
    },
    devices::ownership::winner,
    service::{Change, HouseholdTime, Op, Service, ServiceError},
};

/// Tokens held in memory at most; those beyond are not honoured.
const MAX_HELD: usize = 4_096;
/// Objects of tokens that are looked through for what is left of some.
const MAX_LISTED: usize = 1_000;
/// How often a node says at most that a token is used: each time is a write that every node gets.
const NOTE_EVERY: Duration = Duration::from_secs(600);
/// How long a token that has ended is still shown, in milliseconds: a week.
const KEPT_MS: u64 = 7 * 24 * 3_600_000;
/// How often is looked whether one has been shown for long enough.
const REMOVE_EVERY: Duration = Duration::from_secs(3_600);
/// How long is slept at most until a token ends: meanwhile somebody may have set the clock.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The owner of the tokens; a task runs it.
pub struct Tokens {
    service: Service,
    requests: mpsc::Receiver<Request>,
    live: watch::Sender<Live>,
    denied: Arc<AtomicU64>,
    entries: BTreeMap<String, Entry>,
    /// Tokens that were revoked here, until it is seen that they are gone: none of them opens anything any more, be the disk full.
    revoked: BTreeSet<String>,
    attempts: Attempts,
    clock: Clock,
    removes_at: Instant,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("held", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// The owner and the way to it. It goes by the clock of this machine.
    pub fn new(service: Service) -> (TokensHandle, Self) {
        let (sender, requests) = mpsc::channel(64);
        let (live, receiver) = watch::channel(Live::default());
        let denied = Arc::new(AtomicU64::new(0));
        let handle = TokensHandle { requests: sender, live: receiver, denied: Arc::clone(&denied) };
        let here = watch::channel(HouseholdTime { ahead_ms: 0, trusted: true }).1;
        let tokens = Self {
            service,
            requests,
            live,
            denied,
            entries: BTreeMap::new(),
            revoked: BTreeSet::new(),
            attempts: Attempts::default(),
            clock: Clock::new(here),
            removes_at: Instant::now(),
        };
        (handle, tokens)
    }

    /// The same by the household's time.
    #[must_use]
    pub fn by(self, time: watch::Receiver<HouseholdTime>) -> Self {
        Self { clock: Clock::new(time), ..self }
    }

    /// Serves until the event loop or every handle is gone. Requests wait until the tokens are
    /// known, so that none is refused because the node has just started.
    pub async fn run(mut self) {
        let mut follower = Follower::new(self.service.clone(), &["token/"]);
        loop {
            let (wait, is_known) = (self.until_next_end(), follower.has_caught_up());
            tokio::select! {
                news = follower.next() => match news {
                    Some(news) => self.take(news),
                    None => return,
                },
                request = self.requests.recv(), if is_known => match request {
                    Some(request) => self.handle(request).await,
                    None => return follower.end().await,
                },
                () = sleep(wait), if is_known => self.look().await,
                () = self.clock.told(), if is_known => self.look().await,
            }
        }
    }

    fn take(&mut self, news: News) {
        for Change { id, object } in news.changes {
            let name = id.name().to_owned();
            object.iter().for_each(|object| self.clock.see(object));
            let read = object.as_ref().and_then(Entry::read);
            if read.is_some() && self.revoked.contains(&name) {
                continue;
            }
            self.revoked.remove(&name);
            match read {
                Some(mut entry) if self.entries.len() < MAX_HELD || self.entries.contains_key(&name) => {
                    entry.noted = self.entries.get(&name).and_then(|known| known.noted);
                    self.entries.insert(name, entry);
                }
                _ => drop(self.entries.remove(&name)),
            }
        }
        if let Some(all) = news.all {
            let is_there = |id: &String| object(id).is_some_and(|object| all.contains(&object));
            self.entries.retain(|id, _| is_there(id));
            self.revoked.retain(is_there);
        }
        if news.is_whole {
            self.publish();
        }
    }

    fn publish(&self) {
        let now = self.clock.now_ms();
        let counts = self.entries.iter().filter(|(_, entry)| !entry.has_ended(now));
        let live: BTreeMap<_, _> = counts.map(|(id, entry)| (id.clone(), entry.view.role)).collect();
        self.live.send_if_modified(|old| {
            let changed = **old != live;
            if changed {
                *old = Arc::new(live);
            }
            changed
        });
    }

    /// How long nothing happens by the clock.
    fn until_next_end(&self) -> Duration {
        let now = self.clock.now_ms();
        let ends = self.entries.values().filter_map(|entry| entry.view.expires_ms).filter(|end| *end > now);
        ends.min().map_or(LOOK_EVERY, |end| Duration::from_millis(end - now).min(LOOK_EVERY))
    }

    /// Follows the clock: tokens end by it, and go a week later.
    async fn look(&mut self) {
        self.publish();
        if let Err(error) = self.delete_revoked().await {
            tracing::warn!(%error, "tokens that were revoked here cannot be removed yet");
        }
        if self.clock.is_trusted()
            && Instant::now() >= self.removes_at
            && let Err(error) = self.remove_old().await
        {
            tracing::debug!(%error, "tokens that ended a week ago stay for another hour");
        }
    }

    /// Removes what has been of no use for a week.
    async fn remove_old(&mut self) -> Result<(), ServiceError> {
        let now = self.clock.now_ms();
        let is_old = |since: u64| since.saturating_add(KEPT_MS) <= now;
        let ended = self.entries.iter().filter(|(_, entry)| entry.view.expires_ms.is_some_and(is_old));
        let mut old: Vec<ObjectId> = ended.filter_map(|(id, _)| object(id)).collect();
        // Of this observers are told nothing.
        let listed = self.service.list("token/", None, MAX_LISTED, true).await?;
        let left = listed.into_iter().filter(|object| is_remnant(object) && is_old(written_ms(object)));
        old.extend(left.map(|object| object.id));
        if old.is_empty() {
            return Ok(());
        }
        self.removes_at = Instant::now() + REMOVE_EVERY;
        self.remove(old).await
    }

    /// Removes tokens for good, on the one node of those alive whose part that is. Should two think so, it is done twice.
    async fn remove(&mut self, old: Vec<ObjectId>) -> Result<(), ServiceError> {
        let status = self.service.status().await?;
        let short = |id: &str| id.get(..16).and_then(|id| id.parse::<ShortId>().ok());
        let living = status.nodes.iter().filter(|node| matches!(node.state, "self" | "alive"));
        if winner(living.filter_map(|node| short(&node.id)), "token/") != short(&status.node) {
            return Ok(());
        }
        let ops = old.into_iter().take(MAX_TOKENS).map(Op::Delete).collect();
        self.service.write(Author::Node, ops).await
    }

    /// A reply that nobody waits for any more is dropped.
    async fn handle(&mut self, request: Request) {
        match request {
            Request::Verify(token, remote, reply) => {
                let _ = reply.send(self.verify(&token, remote));
            }
            Request::Make(wanted, reply) => {
                let _ = reply.send(self.make(*wanted).await);
            }
            Request::List(reply) => {
                let _ = reply.send(self.list());
            }
            Request::Revoke(id, reply) => {
                let _ = reply.send(self.revoke(&id).await);
            }
        }
    }

    fn list(&self) -> Vec<TokenView> {
        let now = self.clock.now_ms();
        let view = |entry: &Entry| TokenView { expired: entry.has_ended(now), ..entry.view.clone() };
        let mut views: Vec<_> = self.entries.values().map(view).collect();
        views.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        views
    }

    fn verify(&mut self, token: &Secret, remote: Option<IpAddr>) -> Result<Grant, Denied> {
        let hash = hash(token);
        let mut found = None;
        // Every hash is compared, each in constant time (blake3::Hash does so), found or not.
        for entry in self.entries.values() {
            if entry.hash == hash {
                found = Some(entry.view.id.clone());
            }
        }
        let outcome = match found.as_ref().and_then(|id| self.entries.get(id)) {
            Some(entry) if entry.has_ended(self.clock.now_ms()) => Err(Denied::Expired),
            Some(entry) => {
                let TokenView { id, role, label, scope, .. } = entry.view.clone();
                Ok(Grant { id, label, role, scope })
            }
            None => {
                let wait = self.attempts.wrong(remote, Instant::now());
                Err(wait.map_or(Denied::Unknown, |retry_after_s| Denied::Paced { retry_after_s }))
            }
        };
        match &outcome {
            Ok(grant) => self.note_use(&grant.id),
            Err(_) => drop(self.denied.fetch_add(1, Ordering::Relaxed)),
        }
        outcome
    }

    /// Says that a token is used, if nobody has said so lately. Nobody waits for it, and nothing rests on it.
    fn note_use(&mut self, id: &str) {
        let now = self.clock.now_ms();
        let Some(entry) = self.entries.get_mut(id).filter(|_| self.clock.is_trusted()) else { return };
        let is_said = entry.view.used_ms.is_some_and(|used| now.abs_diff(used) < millis_of(NOTE_EVERY));
        if is_said || entry.noted.is_some_and(|at| at.elapsed() < NOTE_EVERY) {
            return;
        }
        entry.noted = Some(Instant::now());
        let (service, op) = (self.service.clone(), object(id).and_then(|id| set(&id, "used", millis(now))));
        tokio::spawn(async move {
            if let Err(error) = service.write(Author::Node, op.into_iter().collect()).await {
                tracing::debug!(%error, "nobody learns that a token was used");
            }
        });
    }

    async fn make(&mut self, wanted: Wanted) -> Result<Made, TokenError> {
        let expires_ms = self.check(&wanted)?;
        let (id, bits) = (random::<8>(), random::<32>());
        let id = HEXLOWER.encode(&id.ok_or(TokenError::NoRandomness)?);
        let bits = BASE32_NOPAD.encode(&bits.ok_or(TokenError::NoRandomness)?).to_ascii_lowercase();
        let token = Secret::new(format!("{PREFIX}{bits}"));
        let view = TokenView {
            id: id.clone(),
            role: wanted.role,
            label: wanted.label,
            scope: wanted.scope.tidy(),
            created_ms: self.clock.now_ms(),
            expires_ms,
            expired: false,
            by: wanted.by.map_or_else(|| "setup-code".to_owned(), |who| who.to_string()),
            used_ms: None,
        };
        let entry = Entry { hash: hash(&token), view, noted: None };
        let object = object(&id).ok_or(TokenError::NotFound)?;
        self.service.write(Author::Node, entry.ops(&object)).await?;
        self.entries.insert(id.clone(), entry);
        self.publish();
        Ok(Made { id, token, expires_ms })
    }

    /// Checks what is wanted; answers with when it ends.
    fn check(&self, wanted: &Wanted) -> Result<Option<u64>, TokenError> {
        let Wanted { role, label, scope, end, by, ends_ms } = wanted;
        if label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
            return Err(TokenError::Label);
        }
        scope.check()?;
        if *role == Role::Admin && !scope.is_whole() {
            return Err(TokenError::ConfinedAdmin);
        }
        let expires_ms = end.map(|end| self.moment(end)).transpose()?;
        let maker = match by {
            Some(Who::Token { id, .. }) => {
                // One that was revoked meanwhile leaves nothing behind.
                self.entries.get(id).ok_or(TokenError::Outlives)?.view.expires_ms
            }
            _ => None,
        };
        let maker = [maker, *ends_ms].into_iter().flatten().min();
        if maker.is_some_and(|maker| expires_ms.is_none_or(|end| end > maker)) {
            return Err(TokenError::Outlives);
        }
        if self.entries.len() >= MAX_TOKENS { Err(TokenError::TooMany) } else { Ok(expires_ms) }
    }

    fn moment(&self, end: End) -> Result<u64, TokenError> {
        if !self.clock.is_trusted() {
            return Err(TokenError::NoTime);
        }
        let now = self.clock.now_ms();
        let at = match end {
            End::After(life) => now.saturating_add(millis_of(life)),
            End::At(ms) => ms,
        };
        let is_fit = at > now && at - now <= MAX_LIFE_S.saturating_mul(1_000);
        if is_fit { Ok(at) } else { Err(TokenError::End) }
    }

    /// Ends a token at once. It stays ended when that cannot be written, which is told and tried again.
    async fn revoke(&mut self, id: &str) -> Result<(), TokenError> {
        if self.entries.remove(id).is_none() && !self.revoked.contains(id) {
            return Err(TokenError::NotFound);
        }
        self.revoked.insert(id.to_owned());
        self.publish();
        Ok(self.delete_revoked().await?)
    }

    /// Asked again for what is gone already, it changes nothing.
    async fn delete_revoked(&self) -> Result<(), ServiceError> {
        let ops: Vec<_> =
            self.revoked.iter().filter_map(|id| object(id)).take(MAX_TOKENS).map(Op::Delete).collect();
        if ops.is_empty() { Ok(()) } else { self.service.write(Author::Node, ops).await }
    }
}

fn hash(token: &Secret) -> blake3::Hash {
    blake3::hash(token.expose().as_bytes())
}

fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
