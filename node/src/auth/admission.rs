//! The issuer's side of an admission: the task that owns the invites, and the exchange with
//! each connection that asks.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use mesh_proto::{HouseholdId, NodeId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout_at,
};
use tracing::{info, warn};

use super::{
    exchange::{
        JoinReply, JoinRequest, MAX_REPLY, MAX_REQUEST, MessageError, Refusal, is_good_name, read_message,
        write_message,
    },
    invite::{Binding, Grant, InviteBook, InviteError, InviteInfo, Moment, RedeemError},
    token::{InviteToken, TokenId},
};
use crate::transport::{
    CloseCode, JoinConnection, clip,
    counters::{bump, counters},
};

/// Requests that wait for the owner of the invites.
const QUEUE: usize = 32;

counters! {
    /// How admissions ended, since the node started.
    JoinCounters {
        /// Nodes admitted, retries included.
        join_accepted,
        /// Invites not known.
        join_refused_unknown,
        /// Invites that had expired.
        join_refused_expired,
        /// Invites that another key had used.
        join_refused_already_used,
        /// Proofs that did not match.
        join_refused_bad_proof,
        /// Invites of another household.
        join_refused_wrong_household,
        /// Invites of another issuer.
        join_refused_not_issuer,
        /// Requests of a newer version.
        join_refused_version,
        /// Requests that could not be read.
        join_refused_malformed,
        /// Names that break their rule.
        join_refused_name,
        /// Admissions that could not be saved.
        join_refused_not_saved,
        /// Nodes that the household did not want, or could not admit.
        join_refused_rejected,
        /// Exchanges that were not over in time.
        join_timeout,
        /// Connections that broke during the exchange.
        join_broken,
    }
}

/// Asks the owner of the roster to admit a node. It answers with the signed statements that
/// the new node needs, all of them saved; asked again for the same node and invite it gives
/// the same ones. An error is told to the joiner in its words.
#[derive(Debug)]
pub struct AdmitRequest {
    /// The key to admit.
    pub node: NodeId,
    /// The friendly name it asks for.
    pub name: String,
    /// The roles that the invite gives: bits, as the roster defines them.
    pub roles: u8,
    /// The invite that was redeemed.
    pub token_id: TokenId,
    /// The answer.
    pub reply: oneshot::Sender<Result<Vec<Vec<u8>>, String>>,
}

/// Saves the bytes of the book durably, readable by the daemon only (mode 0600).
pub type Persist = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;
/// Tells the time.
pub type Clock = Box<dyn Fn() -> Moment + Send>;

/// The way to the task that owns the invites. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InviteDesk {
    commands: mpsc::Sender<Command>,
}

enum Command {
    Create {
        ttl: u64,
        roles: u8,
        addresses: Vec<SocketAddr>,
        reply: oneshot::Sender<Result<InviteToken, InviteError>>,
    },
    List {
        reply: oneshot::Sender<Vec<InviteInfo>>,
    },
    Revoke {
        id: TokenId,
        reply: oneshot::Sender<Result<(), InviteError>>,
    },
    Redeem {
        redemption: Redemption,
        reply: oneshot::Sender<Result<Grant, Refusal>>,
    },
}

/// One use of an invite.
#[derive(Debug, Clone)]
pub(crate) struct Redemption {
    pub(crate) request: JoinRequest,
    pub(crate) joiner: NodeId,
    pub(crate) exporter: [u8; 32],
}

impl InviteDesk {
    /// Starts the task that owns `book`. It ends when every desk is dropped.
    pub fn start(
        book: InviteBook,
        issuer: NodeId,
        household: HouseholdId,
        persist: Persist,
        clock: Clock,
    ) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let owner = Owner { book, issuer, household, persist: Some(persist), clock };
        tokio::spawn(owner.run(queue));
        Self { commands }
    }

    /// Makes an invite for `ttl` seconds; it is saved when this returns.
    ///
    /// # Errors
    /// [`InviteError`]; there is no invite then.
    pub async fn create(
        &self,
        ttl: u64,
        roles: u8,
        addresses: Vec<SocketAddr>,
    ) -> Result<InviteToken, InviteError> {
        self.ask(|reply| Command::Create { ttl, roles, addresses, reply }).await?
    }

    /// All invites that are remembered, without their secrets.
    ///
    /// # Errors
    /// [`InviteError::Stopping`].
    pub async fn list(&self) -> Result<Vec<InviteInfo>, InviteError> {
        self.ask(|reply| Command::List { reply }).await
    }

    /// Takes an open invite back.
    ///
    /// # Errors
    /// [`InviteError`]; the invite holds then.
    pub async fn revoke(&self, id: TokenId) -> Result<(), InviteError> {
        self.ask(|reply| Command::Revoke { id, reply }).await?
    }

    pub(crate) async fn redeem(&self, redemption: Redemption) -> Result<Grant, Refusal> {
        let answer = self.ask(|reply| Command::Redeem { redemption, reply }).await;
        answer.unwrap_or_else(|stopping| Err(Refusal::Rejected(stopping.to_string())))
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, InviteError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| InviteError::Stopping)?;
        answer.await.map_err(|_| InviteError::Stopping)
    }
}

/// The task behind the desks.
struct Owner {
    book: InviteBook,
    issuer: NodeId,
    household: HouseholdId,
    /// Away only while a save runs.
    persist: Option<Persist>,
    clock: Clock,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("book", &self.book).finish_non_exhaustive()
    }
}

impl Owner {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.recv().await {
            // A caller that has gone needs no answer.
            match command {
                Command::Create { ttl, roles, addresses, reply } => {
                    let _ = reply.send(self.create(ttl, roles, addresses).await);
                }
                Command::List { reply } => {
                    self.book.forget((self.clock)());
                    let _ = reply.send(self.book.list());
                }
                Command::Revoke { id, reply } => {
                    let mut next = self.book.clone();
                    let outcome = match next.revoke(id) {
                        Ok(()) => self.commit(next).await.map_err(InviteError::Save),
                        Err(error) => Err(error),
                    };
                    let _ = reply.send(outcome);
                }
                Command::Redeem { redemption, reply } => {
                    let _ = reply.send(self.redeem(&redemption).await);
                }
            }
        }
    }

    async fn create(
        &mut self,
        ttl: u64,
        roles: u8,
        addresses: Vec<SocketAddr>,
    ) -> Result<InviteToken, InviteError> {
        let mut next = self.book.clone();
        let now = (self.clock)();
        let token = next.create(now, ttl, roles, self.household, self.issuer, addresses)?;
        self.commit(next).await?;
        Ok(token)
    }

    async fn redeem(&mut self, redemption: &Redemption) -> Result<Grant, Refusal> {
        let Redemption { request, joiner, exporter } = redemption;
        if request.household != self.household {
            return Err(Refusal::WrongHousehold);
        }
        if request.issuer != self.issuer {
            return Err(Refusal::NotIssuer);
        }
        let binding =
            Binding { exporter: *exporter, joiner: *joiner, issuer: self.issuer, household: self.household };
        let mut next = self.book.clone();
        let grant = next.redeem((self.clock)(), request.token, &binding, &request.proof).map_err(
            |error| match error {
                RedeemError::Unknown => Refusal::Unknown,
                RedeemError::Expired => Refusal::Expired,
                RedeemError::AlreadyUsed => Refusal::AlreadyUsed,
                RedeemError::BadProof => Refusal::BadProof,
            },
        )?;
        if grant.save {
            // Saved before anybody is told, so that a crash cannot make the invite new again.
            self.commit(next).await.map_err(|error| {
                warn!(%error, "a redeemed invite could not be saved, nobody was admitted");
                Refusal::NotSaved
            })?;
        }
        Ok(grant)
    }

    /// Saves the next state, then makes it the present one.
    async fn commit(&mut self, next: InviteBook) -> io::Result<()> {
        let Some(mut persist) = self.persist.take() else {
            return Err(io::Error::other("an earlier save did not return"));
        };
        let bytes = next.to_bytes();
        let (persist, outcome) = spawn_blocking(move || {
            let outcome = persist(&bytes);
            (persist, outcome)
        })
        .await
        .map_err(io::Error::other)?;
        self.persist = Some(persist);
        outcome?;
        self.book = next;
        Ok(())
    }
}

/// Answers every connection that asks for admission, until `joins` ends. `addresses` are
/// those where the new node finds the household.
pub async fn serve_joins(
    mut joins: mpsc::Receiver<JoinConnection>,
    desk: InviteDesk,
    admit: mpsc::Sender<AdmitRequest>,
    addresses: watch::Receiver<Vec<SocketAddr>>,
    counters: Arc<JoinCounters>,
) {
    // The transport bounds how many there are.
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            join = joins.recv() => {
                let Some(join) = join else { break };
                let (desk, admit, counters) = (desk.clone(), admit.clone(), counters.clone());
                let addresses = addresses.borrow().clone();
                running.spawn(async move {
                    Exchange { desk, admit, addresses, counters }.serve(join).await;
                });
            }
            Some(_) = running.join_next() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

/// One connection's exchange.
struct Exchange {
    desk: InviteDesk,
    admit: mpsc::Sender<AdmitRequest>,
    addresses: Vec<SocketAddr>,
    counters: Arc<JoinCounters>,
}

impl Exchange {
    async fn serve(self, mut join: JoinConnection) {
        let closer = join.pipe.closer();
        let close = |code: CloseCode| closer.close(code, "");
        match timeout_at(join.deadline, self.answer(&mut join)).await {
            Ok(Ok(())) => close(CloseCode::Done),
            Ok(Err(error)) => {
                info!(peer = %join.peer, address = %join.address, %error, "a join exchange broke");
                bump(&self.counters.join_broken);
                close(CloseCode::Misuse);
            }
            Err(_elapsed) => {
                bump(&self.counters.join_timeout);
                close(CloseCode::Deadline);
            }
        }
    }

    async fn answer(&self, join: &mut JoinConnection) -> Result<(), MessageError> {
        let request = match read_message(join.pipe.reader(), MAX_REQUEST).await {
            Ok(request) => Ok(request),
            Err(MessageError::Newer(_)) => Err(Refusal::VersionTooNew),
            Err(MessageError::TooLarge(_) | MessageError::Malformed) => Err(Refusal::Malformed),
            Err(error @ MessageError::Io(_)) => return Err(error),
        };
        join.place.has_asked();
        let outcome = match request {
            Ok(request) => self.admit(join, request).await,
            Err(refusal) => Err(refusal),
        };
        let reply = match outcome {
            Ok(statements) => JoinReply::Accepted { statements, addresses: self.addresses.clone() },
            Err(refusal) => JoinReply::Refused(refusal),
        };
        self.count(&reply, join);
        write_message(join.pipe.writer(), &reply, MAX_REPLY).await?;
        // Whether the joiner hears it is not ours to know: a retry gets the same answer.
        join.pipe.finish().await;
        Ok(())
    }

    async fn admit(&self, join: &JoinConnection, request: JoinRequest) -> Result<Vec<Vec<u8>>, Refusal> {
        if !is_good_name(&request.name) {
            return Err(Refusal::BadName);
        }
        let exporter = join.pipe.binding().ok_or(Refusal::BadProof)?;
        let (name, token_id) = (request.name.clone(), request.token);
        let grant = self.desk.redeem(Redemption { request, joiner: join.peer, exporter }).await?;
        let (reply, answer) = oneshot::channel();
        let request = AdmitRequest { node: join.peer, name, roles: grant.roles, token_id, reply };
        let stopping = || Refusal::Rejected("the issuer is stopping: try again when it runs".into());
        self.admit.send(request).await.map_err(|_| stopping())?;
        let statements =
            answer.await.map_err(|_| stopping())?.map_err(|why| Refusal::Rejected(clip(why.as_bytes())))?;
        // Room for the rest of the reply.
        let size: usize = statements.iter().map(|statement| statement.len() + 8).sum();
        if size > MAX_REPLY - 4_096 {
            return Err(Refusal::Rejected("its roster is too large to send".into()));
        }
        Ok(statements)
    }

    fn count(&self, reply: &JoinReply, join: &JoinConnection) {
        let counters = &self.counters;
        let refusal = match reply {
            JoinReply::Accepted { .. } => {
                info!(node = %join.peer, address = %join.address, "admitted a node by invite");
                return bump(&counters.join_accepted);
            }
            JoinReply::Refused(refusal) => refusal,
        };
        info!(node = %join.peer, address = %join.address, reason = %refusal, "refused a node that asked to join");
        bump(match refusal {
            Refusal::Unknown => &counters.join_refused_unknown,
            Refusal::Expired => &counters.join_refused_expired,
            Refusal::AlreadyUsed => &counters.join_refused_already_used,
            Refusal::BadProof => &counters.join_refused_bad_proof,
            Refusal::WrongHousehold => &counters.join_refused_wrong_household,
            Refusal::NotIssuer => &counters.join_refused_not_issuer,
            Refusal::VersionTooNew => &counters.join_refused_version,
            Refusal::Malformed => &counters.join_refused_malformed,
            Refusal::BadName => &counters.join_refused_name,
            Refusal::NotSaved => &counters.join_refused_not_saved,
            Refusal::Busy | Refusal::Rejected(_) => &counters.join_refused_rejected,
        });
    }
}
