//! What clients ask of the node as a whole: invites, joining, leaving, `hearth doctor`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::{
    FieldName, Key, NodeId, ObjectId, Value,
    kinds::{Author, may_author},
    roster::{Body, NodeName, Roles},
};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{
    doctor::Doctor,
    household::{self, HouseholdError},
};
use crate::{
    api::ports::{ControlRequest, Invite, InviteView, InvitesRequest, Joined, PortError},
    auth::{AdmitRequest, InviteDesk, InviteError, InviteToken, JoinError, Refusal, Secret},
    backup::BackupError,
    service::{ObjectView, Op, OutsideReason, Service, ServiceError, Status},
    state_dir::StateDir,
    store::{StoreError, restored},
    tls::identity::NodeIdentity,
};

/// How one life of the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process ends.
    Stop,
    /// Another life begins: the household changed.
    Again,
}

/// Serves the invites until nobody can ask any more.
pub async fn serve_invites(
    mut requests: mpsc::Receiver<InvitesRequest>,
    desk: InviteDesk,
    service: Service,
    me: NodeId,
    addresses: watch::Receiver<Vec<SocketAddr>>,
) {
    while let Some(request) = requests.recv().await {
        // A client that is gone no longer needs its answer.
        match request {
            InvitesRequest::Create { ttl_s, roles, reply } => {
                let here = addresses.borrow().clone();
                let _ = reply.send(create(&desk, &service, me, ttl_s, roles, here).await);
            }
            InvitesRequest::List(reply) => {
                let _ = reply.send(list(&desk).await);
            }
            InvitesRequest::Revoke(id, reply) => {
                let _ = reply.send(revoke(&desk, &id).await);
            }
        }
    }
}

async fn create(
    desk: &InviteDesk,
    service: &Service,
    me: NodeId,
    ttl_s: u32,
    roles: Roles,
    addresses: Vec<SocketAddr>,
) -> Result<Invite, PortError> {
    let status = service.status().await.map_err(stopping)?;
    let is_admin = status.nodes.iter().any(|node| node.id == me.to_string() && node.roles.contains(&"admin"));
    if !is_admin {
        return Err(PortError::Conflict {
            detail: "this node may not invite: it is no admin of the household".into(),
            fix: "run `hearth invite` on a node whose role in `hearth status` is admin".into(),
        });
    }
    let token = desk.create(u64::from(ttl_s), roles.bits(), addresses).await.map_err(invite_error)?;
    Ok(Invite {
        id: token.id.to_string(),
        expires_ms: token.expires.saturating_mul(1000),
        token: Secret::new(token.to_string()),
    })
}

async fn list(desk: &InviteDesk) -> Result<Vec<InviteView>, PortError> {
    let invites = desk.list().await.map_err(invite_error)?;
    let view = |info: crate::auth::InviteInfo| InviteView {
        id: info.id.to_string(),
        roles: Roles::from_bits(info.roles),
        expires_ms: info.expires.saturating_mul(1000),
        used: info.used_by.is_some(),
    };
    Ok(invites.into_iter().map(view).collect())
}

async fn revoke(desk: &InviteDesk, id: &str) -> Result<(), PortError> {
    let invites = desk.list().await.map_err(invite_error)?;
    let found = invites.into_iter().find(|info| info.id.to_string() == id);
    let info = found.ok_or_else(|| PortError::NotFound(format!("invite `{id}`")))?;
    desk.revoke(info.id).await.map_err(invite_error)
}

fn invite_error(error: InviteError) -> PortError {
    let detail = error.to_string();
    let fix = |fix: &str| fix.to_owned();
    match error {
        InviteError::TooMany => {
            let fix = fix("`hearth invite list` shows them, `hearth invite revoke ID` takes one back");
            PortError::Conflict { detail, fix }
        }
        InviteError::Ttl => PortError::Invalid { detail, fix: fix("give 1 second to 7 days") },
        InviteError::NoSuch => PortError::NotFound("open invite with this id".into()),
        InviteError::Save(_) => PortError::Storage { detail, fix: fix(MEND_DISK) },
        InviteError::NoRandomness => {
            PortError::Failed { detail, fix: fix("try again when the system has finished starting") }
        }
        InviteError::Stopping => PortError::Stopping,
    }
}

fn backup_error(error: &BackupError) -> PortError {
    let detail = error.to_string();
    match error {
        BackupError::Store(StoreError::Closed) => PortError::Stopping,
        BackupError::State(_) | BackupError::Store(_) | BackupError::Disk(_) => {
            PortError::Storage { detail, fix: MEND_DISK.into() }
        }
        _ => PortError::Failed { detail, fix: "see the daemon's log, then repeat the command".into() },
    }
}

fn stopping(_: ServiceError) -> PortError {
    PortError::Stopping
}

/// The way out when this node's disk says no.
const MEND_DISK: &str = "run `hearth doctor`: it says what to free or mend; then try again";
/// The way out when an invite is of no use.
const NEW_INVITE: &str = "ask for a new invite with `hearth invite`";
/// The way out when the issuer was not reached: nothing has been used up.
const REACH_ISSUER: &str = "see that the node which made the invite runs and can be reached from here (one UDP port, `hearth status` there shows it), then repeat the command: the invite still holds";

/// Answers the admissions of [`crate::auth::serve_joins`]: signs the statement, and names the
/// new node.
pub async fn serve_admissions(mut requests: mpsc::Receiver<AdmitRequest>, service: Service) {
    while let Some(request) = requests.recv().await {
        let AdmitRequest { node, name, roles, token_id, reply } = request;
        let admitted = match NodeName::new(&name) {
            Ok(name) => service.admit(node, Roles::from_bits(roles), name, Some(token_id.0)).await,
            Err(error) => Err(ServiceError::Roster(error.to_string())),
        };
        if admitted.is_ok() {
            info!(node = %node.short(), %name, "admitted");
        }
        let _ = reply.send(admitted.map_err(|error| error.to_string()));
    }
}

/// Serves requests about the node as a whole. Sends how the life ends.
pub struct Control {
    /// The state folder.
    pub state: Arc<StateDir>,
    /// The event loop.
    pub service: Service,
    /// This node.
    pub identity: NodeIdentity,
    /// Its friendly name.
    pub name: String,
    /// The checks.
    pub doctor: Doctor,
    /// Told how this life ends.
    pub end: mpsc::Sender<End>,
}

impl Control {
    /// Serves until nobody can ask any more.
    pub async fn run(self, mut requests: mpsc::Receiver<ControlRequest>) {
        while let Some(request) = requests.recv().await {
            match request {
                ControlRequest::Join { token, force, reply } => {
                    let joined = self.join(&token, force).await;
                    let again = joined.is_ok();
                    let _ = reply.send(joined);
                    self.restart_if(again).await;
                }
                ControlRequest::Leave { force, reply } => {
                    let left = self.leave(force).await;
                    let again = left.is_ok();
                    let _ = reply.send(left);
                    self.restart_if(again).await;
                }
                ControlRequest::Doctor(reply) => {
                    let _ = reply.send(self.doctor.checks().await);
                }
                ControlRequest::Backup { with_key, reply } => {
                    let (state, jobs) = (self.state.clone(), self.doctor.jobs.clone());
                    // It takes as long as the home is large; nobody else waits for it.
                    tokio::spawn(async move {
                        let made = crate::backup::make(&state, &jobs, with_key).await;
                        let _ = reply.send(made.map_err(|error| backup_error(&error)));
                    });
                }
            }
        }
    }

    async fn restart_if(&self, again: bool) {
        if again {
            // A life that ends already needs no second reason.
            let _ = self.end.send(End::Again).await;
        }
    }

    async fn join(&self, token: &Secret, force: bool) -> Result<Joined, PortError> {
        // A token that is none is named as such before anything else is looked at.
        let invite: InviteToken =
            token.expose().trim().parse().map_err(|error| refused(&HouseholdError::Token(error)))?;
        let status = self.service.status().await.map_err(stopping)?;
        if invite.household.to_string() == status.household {
            // Joining it again would begin this node's writes anew under a name that has a past.
            return Err(PortError::Conflict {
                detail: "this node belongs to the household of this invite already".into(),
                fix: "use the invite on the node that is to join; to start this one afresh: `hearth leave`, then join with a new invite".into(),
            });
        }
        if !force && is_last_admin(&status) {
            return Err(PortError::Conflict {
                detail: "this node is the only admin of its household: without it nobody there could invite a node or remove one, ever again, and its data would be left behind".into(),
                fix: "let a node join with `hearth invite --role admin` first, or take a copy with `hearth export FILE` and leave the others behind with `hearth join TOKEN --force`".into(),
            });
        }
        let is_free = force || (status.nodes.len() <= 1 && self.holds_nothing().await?);
        if !is_free {
            return Err(PortError::Conflict {
                detail: "this node belongs to a household with other nodes or with data, which joining another would leave behind".into(),
                fix: "take a copy with `hearth export FILE`, then `hearth join TOKEN --force`".into(),
            });
        }
        let joined = household::redeem(&self.identity, &self.name, token.expose())
            .await
            .map_err(|error| refused(&error))?;
        // Written down first: what cannot be carried out must not be announced, for that is final.
        household::prepare(&self.state, &joined, self.identity.id()).map_err(|error| refused(&error))?;
        if status.nodes.len() > 1 {
            self.say_goodbye().await;
        }
        Ok(Joined { household: joined.household.to_string(), node: self.identity.id().to_string() })
    }

    /// Whether there is nothing but what this node wrote about itself and its devices.
    async fn holds_nothing(&self) -> Result<bool, PortError> {
        let mut after = None;
        loop {
            let objects = self.service.list("", after, PAGE, true).await.map_err(stopping)?;
            if objects.iter().any(|object| self.is_data(object)) {
                return Ok(false);
            }
            after = match objects.last() {
                Some(last) => Some(last.id.clone()),
                None => return Ok(true),
            };
        }
    }

    /// Whether somebody would miss the object: API tokens, what the home does by itself, and whatever a client may have written.
    /// Each node names itself, and what a light should show is soon out of date.
    fn is_data(&self, object: &ObjectView) -> bool {
        let by_itself = |field: &FieldName| {
            matches!((object.id.kind(), field.as_str()), ("node", "name") | ("device", "desired"))
        };
        let may_be_a_clients = |field: &FieldName| {
            let key = Key { object: object.id.clone(), field: field.clone() };
            !by_itself(field) && may_author(&key, Author::Client, self.identity.id().short())
        };
        let is_decided =
            matches!(object.id.kind(), "token" | "user" | "issuer" | "schedule" | "scene" | "automation");
        is_decided || object.fields.keys().any(may_be_a_clients)
    }

    async fn leave(&self, force: bool) -> Result<(), PortError> {
        let status = self.service.status().await.map_err(stopping)?;
        let is_copy = status.outside.as_ref().is_some_and(|outside| outside.reason == OutsideReason::Copy);
        if is_copy {
            self.keep_what_is_unshared(force)?;
            // Its key stays in the household with the other board, so nobody is told that it leaves.
            return household::prepare_to_leave(&self.state).map_err(|error| refused(&error));
        }
        if !force && is_last_admin(&status) {
            return Err(PortError::Conflict {
                detail: "this node is the only admin of the household: without it nobody could invite a node or remove one, ever again".into(),
                fix: "let a node join with `hearth invite --role admin` first, or leave the others behind with `hearth leave --force`".into(),
            });
        }
        // Written down first: what cannot be carried out must not be announced, for that is final.
        household::prepare_to_leave(&self.state).map_err(|error| refused(&error))?;
        self.say_goodbye().await;
        Ok(())
    }

    /// What a copy wrote and nobody else has goes with its store: not unless somebody says so.
    fn keep_what_is_unshared(&self, force: bool) -> Result<(), PortError> {
        let files = restored::lost_files(self.state.path()).unwrap_or_default();
        let Some((_, newest)) = files.last().filter(|_| !force) else { return Ok(()) };
        Err(PortError::Conflict {
            detail: format!("this board holds what the household does not have, in {}", newest.display()),
            fix:
                "set again on another node what you miss of it, or copy the file; then `hearth leave --force`"
                    .into(),
        })
    }

    /// Tells the others; one that does not hear it shows this node as dead until it is removed.
    async fn say_goodbye(&self) {
        if let Err(error) = self.service.issue(Body::Leave).await {
            info!(%error, "the others could not be told that this node leaves");
        }
    }
}

/// Objects that are looked at in one go.
const PAGE: usize = 500;

/// Whether others stay behind, none of them an admin.
fn is_last_admin(status: &Status) -> bool {
    let is_admin = |node: &&crate::service::NodeStatus| node.roles.contains(&"admin");
    let mut others = status.nodes.iter().filter(|node| node.id != status.node).peekable();
    let me = status.nodes.iter().find(|node| node.id == status.node);
    me.as_ref().is_some_and(is_admin) && others.peek().is_some() && !others.any(|node| is_admin(&node))
}

fn refused(error: &HouseholdError) -> PortError {
    let detail = error.to_string();
    let conflict = |fix: &str| PortError::Conflict { detail: detail.clone(), fix: fix.into() };
    let unreachable = |fix: &str| PortError::Unreachable { detail: detail.clone(), fix: fix.into() };
    match error {
        HouseholdError::State(_)
        | HouseholdError::File(_)
        | HouseholdError::Io(..)
        | HouseholdError::KeyLost(_)
        | HouseholdError::RosterLost(_) => {
            PortError::Storage { detail, fix: MEND_DISK.into() }
        }
        HouseholdError::Token(_) => conflict("copy the whole token once more, or ask for a new one with `hearth invite`"),
        HouseholdError::Join(error) => match error {
            JoinError::NotReached(_) | JoinError::Broken(_) | JoinError::Deadline => unreachable(REACH_ISSUER),
            JoinError::Refused(refusal) => match refusal {
                Refusal::Busy => unreachable("repeat the command in a minute: the invite still holds"),
                Refusal::NotSaved => PortError::Storage {
                    detail,
                    fix: "free space on the node that made the invite, then repeat the command: the invite still holds".into(),
                },
                Refusal::VersionTooNew | Refusal::Malformed => conflict(UPDATE_BOTH),
                Refusal::BadName => conflict("start this node with another --name, then repeat the command"),
                Refusal::NotIssuer => conflict("start the node that made the invite, or ask for a new invite"),
                Refusal::Rejected(_) => conflict("see the log of the node that made the invite, then ask for a new one with `hearth invite`"),
                _ => conflict(NEW_INVITE),
            },
            JoinError::NewerReply => conflict(UPDATE_BOTH),
            JoinError::Socket(_) | JoinError::Identity(_) => {
                PortError::Failed { detail, fix: "see the daemon's log, then repeat the command".into() }
            }
        },
        HouseholdError::Roster(_) | HouseholdError::NotAdmitted => conflict(UPDATE_BOTH),
        HouseholdError::Identity(_) | HouseholdError::NoRandomness => {
            PortError::Failed { detail, fix: "see the daemon's log, then repeat the command".into() }
        }
    }
}

/// The way out when two versions do not understand each other.
const UPDATE_BOTH: &str = "update Hearth on both nodes, then ask for a new invite";

/// The first pause before what could not be written is tried again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Writes what this node says of itself, where it differs from what is there.
pub async fn introduce(
    service: &Service,
    me: NodeId,
    name: &str,
    is_new: bool,
    mut addresses: watch::Receiver<Vec<SocketAddr>>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let here = addresses.borrow_and_update().clone();
        let again = match write_introduction(service, me, name, is_new, &here).await {
            Ok(()) => {
                pause = FIRST_PAUSE;
                None
            }
            Err(error) => {
                // Said once: a disk that is full for a day must not fill the journal too.
                if pause == FIRST_PAUSE {
                    warn!(%error, "this node's name and addresses could not be written; trying again until they can");
                }
                let now = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                Some(now)
            }
        };
        let retry = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = retry => {}
            changed = addresses.changed() => if changed.is_err() { return },
        }
    }
}

async fn write_introduction(
    service: &Service,
    me: NodeId,
    name: &str,
    is_new: bool,
    addresses: &[SocketAddr],
) -> anyhow::Result<()> {
    let id = ObjectId::new(&format!("node/{}", me.short()))?;
    let present = service.get(id.clone()).await?;
    let listed = addresses.iter().map(|address| Value::from(address.to_string().as_str())).collect();
    let mut wanted =
        vec![("version", Value::from(env!("CARGO_PKG_VERSION"))), ("addresses", Value::List(listed))];
    if is_new {
        wanted.push(("name", Value::from(name)));
    }
    let mut ops = Vec::new();
    for (field, value) in wanted {
        let field = FieldName::new(field)?;
        let known = present.as_ref().and_then(|object| object.fields.get(&field));
        let keep_name = field.as_str() == "name" && known.is_some();
        if !keep_name && known.map(|view| &view.value) != Some(&value) {
            ops.push(Op::Set(id.clone(), field, value));
        }
    }
    if !ops.is_empty() {
        service.write(Author::Node, ops).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
