//! What clients ask of the node as a whole: invites, joining, leaving, `hearth doctor`.

use std::{net::SocketAddr, sync::Arc};

use mesh_proto::{
    NodeId,
    kinds::Author,
    roster::{Body, NodeName, Roles},
};
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::{
    doctor::Doctor,
    household::{self, HouseholdError},
};
use crate::{
    api::ports::{ControlRequest, Invite, InviteView, InvitesRequest, Joined, PortError},
    auth::{AdmitRequest, InviteDesk, InviteError, InviteToken, Secret},
    service::{Op, Service, ServiceError},
    state_dir::StateDir,
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
    PortError::Conflict { detail: error.to_string(), fix: "see `hearth invite --help`".into() }
}

fn stopping(_: ServiceError) -> PortError {
    PortError::Stopping
}

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
                ControlRequest::Leave(reply) => {
                    let left = self.leave().await;
                    let again = left.is_ok();
                    let _ = reply.send(left);
                    self.restart_if(again).await;
                }
                ControlRequest::Doctor(reply) => {
                    let _ = reply.send(self.doctor.checks().await);
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
        let _: InviteToken =
            token.expose().trim().parse().map_err(|error| refused(HouseholdError::Token(error)))?;
        let status = self.service.status().await.map_err(stopping)?;
        let is_free = force || (status.nodes.len() <= 1 && self.holds_nothing().await?);
        if !is_free {
            return Err(PortError::Conflict {
                detail: "this node belongs to a household with other nodes or with data, which joining another would leave behind".into(),
                fix: "take a copy with `hearth export FILE`, then `hearth join TOKEN --force`".into(),
            });
        }
        let joined = household::redeem(&self.identity, &self.name, token.expose()).await.map_err(refused)?;
        if joined.household.to_string() != status.household && status.nodes.len() > 1 {
            self.say_goodbye().await;
        }
        household::prepare(&self.state, &joined, self.identity.id()).map_err(refused)?;
        Ok(Joined { household: joined.household.to_string(), node: self.identity.id().to_string() })
    }

    /// Whether there is nothing but what this node wrote about itself.
    async fn holds_nothing(&self) -> Result<bool, PortError> {
        let objects = self.service.list("", None, 1000, true).await.map_err(stopping)?;
        Ok(objects.iter().all(|object| matches!(object.id.kind(), "node" | "token" | "device" | "command")))
    }

    async fn leave(&self) -> Result<(), PortError> {
        self.say_goodbye().await;
        household::prepare_to_leave(&self.state).map_err(refused)
    }

    /// Tells the others; one that does not hear it shows this node as dead until it is removed.
    async fn say_goodbye(&self) {
        if let Err(error) = self.service.issue(Body::Leave).await {
            info!(%error, "the others could not be told that this node leaves");
        }
    }
}

fn refused(error: HouseholdError) -> PortError {
    let fix = "ask for a new invite with `hearth invite` if this one is used up or expired".to_owned();
    PortError::Conflict { detail: error.to_string(), fix }
}

/// Writes what this node says of itself, where it differs from what is there.
pub async fn introduce(
    service: &Service,
    me: NodeId,
    name: &str,
    is_new: bool,
    mut addresses: watch::Receiver<Vec<SocketAddr>>,
) {
    loop {
        let here = addresses.borrow_and_update().clone();
        if let Err(error) = write_introduction(service, me, name, is_new, &here).await {
            info!(%error, "this node's addresses could not be written");
        }
        if addresses.changed().await.is_err() {
            return;
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
    use mesh_proto::{FieldName, ObjectId, Value};
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
