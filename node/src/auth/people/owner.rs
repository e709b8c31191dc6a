//! The task that owns users, sessions and the pace of sign-ins.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use mesh_proto::{ObjectId, kinds::Author};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::info;

use super::{
    Begun, LiveSessions, PeopleHandle, Proven, Recognised, Request, SignInCounters, SignedIn, Then,
    pace::Pace,
};
use crate::{
    auth::{
        Secret,
        clock::Clock,
        follower::{Follower, News},
        passwords::{HashError, Passwords},
        sessions::{self, MAX_PER_USER, MAX_SESSIONS, Session},
        users::{self, Account, User, UserError},
    },
    service::{Change, HouseholdTime, Op, Service, ServiceError},
};

/// How often is looked for sessions that are over.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often is looked for what can be deleted, in looks.
const SWEEP_EVERY: u32 = 60;
/// Changes in one write.
pub(super) const BATCH: usize = 512;

/// What the owner of users and sessions needs.
#[derive(Debug)]
pub struct PeopleParts {
    /// The event loop.
    pub service: Service,
    /// The state folder.
    pub state_dir: PathBuf,
    /// The time of day.
    pub time: watch::Receiver<HouseholdTime>,
    /// `true`, or closed, when the node stops.
    pub shutdown: watch::Receiver<bool>,
}

/// The owner of users and sessions; a task runs it.
pub struct People {
    pub(super) service: Service,
    pub(super) clock: Clock,
    shutdown: watch::Receiver<bool>,
    requests: mpsc::Receiver<Request>,
    pub(super) live: watch::Sender<LiveSessions>,
    pub(super) users: BTreeMap<String, User>,
    pub(super) sessions: BTreeMap<String, Session>,
    /// Writes of what was taken away here and could not be written yet, by object. Until they are, what an observer says of these
    /// objects is not believed.
    pub(super) owed: BTreeMap<ObjectId, Vec<Op>>,
    pace: Pace,
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (users, sessions) = (self.users.len(), self.sessions.len());
        f.debug_struct("People").field("users", &users).field("sessions", &sessions).finish_non_exhaustive()
    }
}

impl People {
    /// The owner and the way to it.
    ///
    /// # Errors
    /// [`HashError::NoRandomness`].
    pub fn open(parts: PeopleParts) -> Result<(PeopleHandle, Self), HashError> {
        let PeopleParts { service, state_dir, time, shutdown } = parts;
        let (sender, requests) = mpsc::channel(64);
        let (live, receiver) = watch::channel(LiveSessions::default());
        let (passwords, counters) = (Passwords::new()?, Arc::new(SignInCounters::default()));
        let handle = PeopleHandle { requests: sender, live: receiver, passwords, counters };
        let (users, sessions, pace) = (BTreeMap::new(), BTreeMap::new(), Pace::open(&state_dir));
        let (owed, clock) = (BTreeMap::new(), Clock::new(time));
        let owner = Self { service, clock, shutdown, requests, live, users, sessions, owed, pace };
        Ok((handle, owner))
    }

    /// Serves until the event loop or every handle is gone. Requests wait until users and sessions are known, so that
    /// nobody is refused because the node has just started.
    pub async fn run(mut self) {
        let mut follower = Follower::new(self.service.clone(), &["user/", "session/"]);
        let mut shutdown = self.shutdown.clone();
        let mut stops = std::pin::pin!(async move {
            let _ = shutdown.wait_for(|stop| *stop).await;
        });
        let mut stopping = false;
        let mut looks = 0u32;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_known = follower.has_caught_up();
            tokio::select! {
                news = follower.next() => match news {
                    Some(news) => self.take(news),
                    None => break,
                },
                request = self.requests.recv(), if is_known => match request {
                    Some(request) => self.handle(request).await,
                    None => {
                        follower.end().await;
                        break;
                    }
                },
                () = self.pace.due() => self.pace.save(),
                _ = look.tick(), if is_known => {
                    self.publish();
                    // What cannot be written now is tried at the next look.
                    let _ = self.settle().await;
                    looks = looks.wrapping_add(1);
                    if looks.is_multiple_of(SWEEP_EVERY) {
                        // What cannot be deleted now is found again.
                        let _ = self.sweep().await;
                    }
                }
                // It serves on: whoever asks now is answered.
                () = &mut stops, if !stopping => {
                    stopping = true;
                    self.pace.save_now().await;
                }
            }
        }
        self.pace.save_now().await;
    }

    fn take(&mut self, news: News) {
        for Change { id, object } in news.changes {
            object.iter().for_each(|object| self.clock.see(object));
            if object.is_none() {
                self.owed.remove(&id);
            } else if self.owed.contains_key(&id) {
                continue;
            }
            let name = id.name();
            match id.kind() {
                "user" => {
                    // Whom this version would not have named so cannot be asked for either.
                    let user =
                        object.as_ref().filter(|_| users::check_name(name).is_ok()).and_then(User::read);
                    hold(&mut self.users, name, user, users::MAX_HELD);
                }
                _ => hold(
                    &mut self.sessions,
                    name,
                    object.as_ref().and_then(Session::read),
                    sessions::MAX_HELD,
                ),
            }
        }
        if let Some(all) = news.all {
            let is_there = |object: Option<ObjectId>| object.is_some_and(|object| all.contains(&object));
            self.users.retain(|name, _| is_there(users::object(name)));
            self.sessions.retain(|id, _| is_there(sessions::object(id)));
            self.owed.retain(|id, _| all.contains(id));
        }
        if news.is_whole {
            self.publish();
        }
    }

    /// A reply that nobody waits for any more is dropped.
    async fn handle(&mut self, request: Request) {
        match request {
            Request::BeginSignIn(user, address, reply) => {
                let _ = reply.send(self.begin_sign_in(&user, address));
            }
            Request::TakeBack(attempt) => self.pace.take_back(&attempt),
            Request::EndSignIn(proven, then, address, reply) => {
                let _ = reply.send(self.end_sign_in(proven, then, address).await);
            }
            Request::BeginSession(user, address, reply) => {
                let _ = reply.send(self.begin_session(&user, address).await);
            }
            Request::Recognise(secret, reply) => {
                let _ = reply.send(self.recognise(&secret));
            }
            Request::SignOut { session, of, reply } => {
                let _ = reply.send(self.sign_out(&session, of.as_deref()).await);
            }
            Request::SignOutEverywhere(user, reply) => {
                let _ = reply.send(self.sign_out_everywhere(&user).await);
            }
            Request::Sessions(user, reply) => {
                let _ = reply.send(self.session_views(user.as_deref()));
            }
            Request::MayCreate(name, reply) => {
                let _ = reply.send(self.may_create(&name));
            }
            Request::Create(new, hash, reply) => {
                let _ = reply.send(self.create(new, hash).await);
            }
            Request::Users(reply) => {
                let _ = reply.send(self.user_views());
            }
            Request::Change { name, change, password, force, reply } => {
                let _ = reply.send(self.change(&name, change, password, force).await);
            }
            Request::Remove { name, force, reply } => {
                let _ = reply.send(self.remove(&name, force).await);
            }
        }
    }

    fn begin_sign_in(&mut self, user: &str, address: Option<IpAddr>) -> Result<Begun, u64> {
        let attempt = self.pace.begin(user, address)?;
        let known = self.users.get(user).filter(|known| known.can_sign_in());
        let (hash, basis) = (known.and_then(User::hash).cloned(), known.and_then(User::basis));
        Ok(Begun { attempt, hash, basis })
    }

    async fn end_sign_in(
        &mut self,
        proven: Proven,
        then: Then,
        address: Option<IpAddr>,
    ) -> Result<SignedIn, UserError> {
        let Proven { user: name, attempt, basis, rehashed } = proven;
        // It may have been changed while the password was looked at.
        let found = self.users.get(&name).filter(|user| basis.is_some() && user.basis() == basis);
        let mut user = found.cloned().ok_or(UserError::Wrong)?;
        self.pace.succeeded(&attempt);
        let mut ops = Vec::new();
        match (then, rehashed) {
            (Then::Change(hash), _) => {
                ops = user.set_password(&name, hash)?;
                ops.extend(self.deletions(&name));
                info!(user = %name, "a person has changed the password");
            }
            (Then::Begin, Some(hash)) => ops = user.rehash(&name, hash),
            (Then::Begin, None) => {}
        }
        if !ops.is_empty() {
            self.settle().await?;
            self.write(ops).await?;
            self.users.insert(name.clone(), user);
            self.publish();
        }
        self.begin_session(&name, address).await
    }

    async fn begin_session(&mut self, name: &str, address: Option<IpAddr>) -> Result<SignedIn, UserError> {
        let user = self.users.get(name).ok_or(UserError::NotFound)?;
        let (role, basis) = (user.account.role, user.basis().ok_or(UserError::NotFound)?);
        let from = address.map_or_else(|| "socket".to_owned(), |address| address.to_canonical().to_string());
        let (id, secret, session) = Session::begin(name, basis, from, self.clock.now_ms())?;
        let mut ops = session.ops(&id);
        let gone = self.room_for(name);
        ops.extend(gone.iter().filter_map(|id| sessions::object(id)).map(Op::Delete));
        self.write(ops).await?;
        // Only now: where nothing was written they count as before.
        for id in &gone {
            self.sessions.remove(id);
        }
        info!(user = %name, session = %id, from = session.from, "a person has signed in");
        let expires_ms = session.expires_ms();
        self.sessions.insert(id.clone(), session);
        self.publish();
        Ok(SignedIn { user: name.to_owned(), role, session: id, secret, expires_ms })
    }

    /// What goes so that one more session of this user finds room: those that were not used for longest.
    fn room_for(&self, name: &str) -> Vec<String> {
        let of_user = self.sessions.iter().filter(|(_, session)| session.user == name);
        let mut of_user: Vec<_> = of_user.map(|(id, session)| (session.seen_ms, id.clone())).collect();
        of_user.sort_unstable();
        let over = (of_user.len() + 1).saturating_sub(MAX_PER_USER);
        let mut gone: Vec<String> = of_user.into_iter().take(over.min(BATCH)).map(|(_, id)| id).collect();
        if gone.is_empty() && self.sessions.len() >= MAX_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.seen_ms);
            gone.extend(oldest.map(|(id, _)| id.clone()));
        }
        gone
    }

    fn recognise(&mut self, secret: &Secret) -> Option<Recognised> {
        let hash = sessions::hash(secret);
        let mut found = None;
        // Every hash is compared, found or not.
        for (id, session) in &self.sessions {
            if session.is_of(&hash) {
                found = Some(id.clone());
            }
        }
        let id = found?;
        let now_ms = self.clock.now_ms();
        let session = self.sessions.get_mut(&id)?;
        let user = self.users.get(&session.user)?;
        if user.basis().as_deref() != Some(session.basis.as_str()) || session.is_over(now_ms) {
            return None;
        }
        if let Some(op) = session.used(&id, now_ms) {
            let service = self.service.clone();
            // What is lost is written ten minutes later.
            drop(tokio::spawn(async move { service.write(Author::Node, vec![op]).await }));
        }
        let (name, Account { role, scope, .. }) = (session.user.clone(), user.account.clone());
        Some(Recognised { user: name, session: id, role, scope })
    }

    /// Deletes what is long over; not while nobody knows the time.
    async fn sweep(&mut self) -> Result<(), ServiceError> {
        if !self.clock.is_trusted() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let over = self.sessions.iter().filter(|(_, session)| session.is_waste(now_ms));
        let mut waste: Vec<_> = over.filter_map(|(id, _)| sessions::object(id)).collect();
        let listed = self.service.list("session/", None, 1_000, true).await?;
        waste.extend(listed.into_iter().filter(|o| sessions::is_leftover(o, now_ms)).map(|object| object.id));
        waste.truncate(BATCH);
        for object in &waste {
            self.sessions.remove(object.name());
        }
        self.write(waste.into_iter().map(Op::Delete).collect()).await
    }
}

fn hold<T>(held: &mut BTreeMap<String, T>, name: &str, found: Option<T>, most: usize) {
    match found {
        Some(found) if held.len() < most || held.contains_key(name) => {
            held.insert(name.to_owned(), found);
        }
        _ => drop(held.remove(name)),
    }
}
