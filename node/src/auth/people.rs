//! People who sign in: the way to the task that owns users and sessions.
//!
//! The task keeps what the objects under `user/` and `session/` say, so that a user made on one node signs in on all, and
//! what is ended on one is over on all. Passwords are hashed outside of it: it answers while they are.

mod changes;
mod owner;
mod pace;
mod shown;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

pub use self::owner::{People, PeopleParts};
use super::{
    Scope, Secret,
    backoff::Attempt,
    passwords::{self, MAX_CHARS, PasswordHash, Passwords},
    sessions::SessionView,
    tokens::Role,
    users::{self, UserChange, UserError, UserView},
};
use crate::{
    service::ServiceError,
    transport::counters::{bump, counters},
};

counters! {
    /// How sign-ins ended, since the node started.
    SignInCounters {
        /// The password was right.
        sign_in_accepted,
        /// The name or the password was wrong.
        sign_in_wrong,
        /// It came too early after wrong ones.
        sign_in_paced,
        /// Too many passwords were being hashed.
        sign_in_busy,
    }
}

/// Somebody to be.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The name.
    pub name: String,
    /// What the person may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// The first password.
    pub password: Secret,
}

/// A session that was begun just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// Whose it is.
    pub user: String,
    /// What the person may do.
    pub role: Role,
    /// The session's id, not secret.
    pub session: String,
    /// What goes into the cookie; shown this once.
    pub secret: Secret,
    /// When it is over unless it is used, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// Whom a session shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// Whose it is.
    pub user: String,
    /// The session's id, not secret.
    pub session: String,
    /// What the person may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
}

/// The ids of the sessions that count now.
pub type LiveSessions = Arc<BTreeSet<String>>;

/// What a sign-in begins with.
#[derive(Debug)]
struct Begun {
    attempt: Attempt,
    /// None where nobody may sign in.
    hash: Option<PasswordHash>,
    basis: Option<String>,
}

/// Whose password was right.
#[derive(Debug)]
struct Proven {
    user: String,
    attempt: Attempt,
    /// What the user was when the password was looked up.
    basis: Option<String>,
    /// The password under a stronger hash, if its own was weak.
    rehashed: Option<PasswordHash>,
}

/// What is to be done once a password was right.
#[derive(Debug)]
enum Then {
    Begin,
    Change(PasswordHash),
}

type Reply<T> = oneshot::Sender<Result<T, UserError>>;

#[derive(Debug)]
enum Request {
    BeginSignIn(String, Option<IpAddr>, oneshot::Sender<Result<Begun, u64>>),
    TakeBack(Attempt),
    EndSignIn(Proven, Then, Option<IpAddr>, Reply<SignedIn>),
    /// After the setup code was right.
    BeginSession(String, Option<IpAddr>, Reply<SignedIn>),
    Recognise(Secret, oneshot::Sender<Option<Recognised>>),
    SignOut {
        session: String,
        of: Option<String>,
        reply: Reply<()>,
    },
    SignOutEverywhere(String, Reply<()>),
    Sessions(Option<String>, oneshot::Sender<Vec<SessionView>>),
    MayCreate(String, Reply<()>),
    Create(NewUser, PasswordHash, Reply<UserView>),
    Users(oneshot::Sender<Vec<UserView>>),
    Change {
        name: String,
        change: UserChange,
        password: Option<PasswordHash>,
        force: bool,
        reply: Reply<UserView>,
    },
    Remove {
        name: String,
        force: bool,
        reply: Reply<()>,
    },
}

/// The way to the owner of users and sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeopleHandle {
    requests: mpsc::Sender<Request>,
    live: watch::Receiver<LiveSessions>,
    passwords: Passwords,
    counters: Arc<SignInCounters>,
}

impl PeopleHandle {
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, UserError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || UserError::Service(ServiceError::Stopping);
        self.requests.send(make(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Begins a session for whoever knows the password.
    ///
    /// # Errors
    /// [`UserError::Wrong`], [`UserError::Paced`], [`UserError::Hash`], [`UserError::Service`].
    pub async fn sign_in(
        &self,
        user: &str,
        password: Secret,
        address: Option<IpAddr>,
    ) -> Result<SignedIn, UserError> {
        let proven = self.prove(user, password, address).await?;
        let signed_in = self.ask(|reply| Request::EndSignIn(proven, Then::Begin, address, reply)).await??;
        bump(&self.counters.sign_in_accepted);
        Ok(signed_in)
    }

    /// Changes a person's own password, which ends every session, and begins a new one. A wrong old password counts
    /// like one at a sign-in.
    ///
    /// # Errors
    /// As [`Self::sign_in`], and [`UserError::Password`].
    pub async fn change_password(
        &self,
        user: &str,
        old: Secret,
        new: Secret,
        address: Option<IpAddr>,
    ) -> Result<SignedIn, UserError> {
        passwords::check(&new, user)?;
        let proven = self.prove(user, old, address).await?;
        let hash = match self.passwords.hash(new).await {
            Ok(hash) => hash,
            Err(error) => {
                // The old one was right: that the new one cannot be hashed just now is no wrong try.
                let _ = self.requests.send(Request::TakeBack(proven.attempt)).await;
                return Err(error.into());
            }
        };
        self.ask(|reply| Request::EndSignIn(proven, Then::Change(hash), address, reply)).await?
    }

    /// Whether the password is the user's. The same work is done for a user that does not exist.
    async fn prove(
        &self,
        user: &str,
        password: Secret,
        address: Option<IpAddr>,
    ) -> Result<Proven, UserError> {
        let name = user.to_owned();
        let begun = self.ask(|reply| Request::BeginSignIn(name, address, reply)).await?;
        let Begun { attempt, hash, basis } = begun.map_err(|retry_after_s| {
            bump(&self.counters.sign_in_paced);
            UserError::Paced { retry_after_s }
        })?;
        let is_weak = hash.as_ref().is_some_and(PasswordHash::is_weak);
        // Nobody has one that is so long.
        let hash = hash.filter(|_| password.expose().len() <= 4 * MAX_CHARS);
        match self.passwords.verify(hash, password.clone()).await {
            Ok(true) => {}
            Ok(false) => {
                bump(&self.counters.sign_in_wrong);
                return Err(UserError::Wrong);
            }
            Err(error) => {
                bump(&self.counters.sign_in_busy);
                // An owner that is gone counts nothing any more.
                let _ = self.requests.send(Request::TakeBack(attempt)).await;
                return Err(error.into());
            }
        }
        // One that cannot be hashed anew just now is at the next sign-in.
        let rehashed = if is_weak { self.passwords.hash(password).await.ok() } else { None };
        Ok(Proven { user: user.to_owned(), attempt, basis, rehashed })
    }

    /// Begins a session without a password, for whoever has proved to be on the board.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::Service`].
    pub async fn begin_session(&self, user: &str, address: Option<IpAddr>) -> Result<SignedIn, UserError> {
        let user = user.to_owned();
        self.ask(|reply| Request::BeginSession(user, address, reply)).await?
    }

    /// Whom a session's secret shows; none when it counts no more, or the node is stopping.
    pub async fn recognise(&self, secret: Secret) -> Option<Recognised> {
        self.ask(|reply| Request::Recognise(secret, reply)).await.ok().flatten()
    }

    /// Ends a session, `of` this user if one is named.
    ///
    /// # Errors
    /// [`UserError::NoSession`], [`UserError::Service`].
    pub async fn sign_out(&self, session: &str, of: Option<String>) -> Result<(), UserError> {
        let session = session.to_owned();
        self.ask(|reply| Request::SignOut { session, of, reply }).await?
    }

    /// Ends every session of a user, also those that this node has not heard of.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::Service`].
    pub async fn sign_out_everywhere(&self, user: &str) -> Result<(), UserError> {
        let user = user.to_owned();
        self.ask(|reply| Request::SignOutEverywhere(user, reply)).await?
    }

    /// The sessions that count, of one user or of all, the one that was used last first.
    ///
    /// # Errors
    /// [`UserError::Service`] when the node is stopping.
    pub async fn sessions(&self, user: Option<String>) -> Result<Vec<SessionView>, UserError> {
        self.ask(|reply| Request::Sessions(user, reply)).await
    }

    /// Whether somebody could be made of this.
    ///
    /// # Errors
    /// Why not, as [`Self::create`].
    pub async fn may_create(&self, new: &NewUser) -> Result<(), UserError> {
        users::check_name(&new.name)?;
        users::check_grant(new.role, &new.scope)?;
        passwords::check(&new.password, &new.name)?;
        let name = new.name.clone();
        self.ask(|reply| Request::MayCreate(name, reply)).await?
    }

    /// Makes a user; answers once that is durable.
    ///
    /// # Errors
    /// [`UserError::Name`], [`UserError::Role`], [`UserError::Scope`], [`UserError::Password`],
    /// [`UserError::Taken`], [`UserError::TooMany`], [`UserError::Hash`], [`UserError::Service`].
    pub async fn create(&self, new: NewUser) -> Result<UserView, UserError> {
        self.may_create(&new).await?;
        let hash = self.passwords.hash(new.password.clone()).await?;
        self.ask(|reply| Request::Create(new, hash, reply)).await?
    }

    /// Every user by name.
    ///
    /// # Errors
    /// [`UserError::Service`] when the node is stopping.
    pub async fn users(&self) -> Result<Vec<UserView>, UserError> {
        self.ask(Request::Users).await
    }

    /// One user.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::Service`].
    pub async fn user(&self, name: &str) -> Result<UserView, UserError> {
        self.users().await?.into_iter().find(|user| user.name == name).ok_or(UserError::NotFound)
    }

    /// Changes what a user may do, or the password, as an admin; the sessions of the user end. `force` also where
    /// no admin would be left.
    ///
    /// # Errors
    /// Those of [`Self::create`], [`UserError::NotFound`], [`UserError::LastAdmin`].
    pub async fn change(
        &self,
        name: &str,
        change: UserChange,
        password: Option<Secret>,
        force: bool,
    ) -> Result<UserView, UserError> {
        let name = name.to_owned();
        let password = match password {
            Some(password) => {
                passwords::check(&password, &name)?;
                // A name that nobody has is not worth the work.
                self.user(&name).await?;
                Some(self.passwords.hash(password).await?)
            }
            None => None,
        };
        self.ask(|reply| Request::Change { name, change, password, force, reply }).await?
    }

    /// Removes a user and ends its sessions. `force` also where no admin would be left.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::LastAdmin`], [`UserError::Service`].
    pub async fn remove(&self, name: &str, force: bool) -> Result<(), UserError> {
        let name = name.to_owned();
        self.ask(|reply| Request::Remove { name, force, reply }).await?
    }

    /// The sessions that count, and a notice whenever that changes.
    pub fn live(&self) -> watch::Receiver<LiveSessions> {
        self.live.clone()
    }

    /// How sign-ins ended.
    pub fn counters(&self) -> &Arc<SignInCounters> {
        &self.counters
    }
}
