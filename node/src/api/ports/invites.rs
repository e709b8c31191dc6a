//! Invites, as the API asks for them.

use mesh_proto::roster::Roles;
use tokio::sync::mpsc;

use super::{PortError, QUEUE, Reply, ask};
use crate::auth::Secret;

/// A fresh invite. The token is shown once.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Its id, not secret.
    pub id: String,
    /// The token.
    pub token: Secret,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// An invite as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteView {
    /// Its id.
    pub id: String,
    /// What the joiner will be.
    pub roles: Roles,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Whether it was redeemed.
    pub used: bool,
}

/// A request to the owner of the invites.
#[derive(Debug)]
pub enum InvitesRequest {
    /// Makes one that lives for so many seconds.
    Create {
        /// Seconds, 60 to 604 800.
        ttl_s: u32,
        /// `MEMBER`, perhaps with `ADMIN`.
        roles: Roles,
        /// The answer.
        reply: Reply<Invite>,
    },
    /// Lists those that neither expired nor were revoked.
    List(Reply<Vec<InviteView>>),
    /// Makes one unusable; [`PortError::NotFound`] when there is none.
    Revoke(String, Reply<()>),
}

/// The API's side of the invites.
#[derive(Debug, Clone)]
pub struct InvitesHandle(mpsc::Sender<InvitesRequest>);

impl InvitesHandle {
    /// Both sides.
    pub fn channel() -> (Self, mpsc::Receiver<InvitesRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self(requests), receiver)
    }

    /// Makes an invite.
    ///
    /// # Errors
    /// What the owner says.
    pub async fn create(&self, ttl_s: u32, roles: Roles) -> Result<Invite, PortError> {
        ask(&self.0, |reply| InvitesRequest::Create { ttl_s, roles, reply }).await
    }

    /// Lists invites.
    ///
    /// # Errors
    /// What the owner says.
    pub async fn list(&self) -> Result<Vec<InviteView>, PortError> {
        ask(&self.0, InvitesRequest::List).await
    }

    /// Revokes an invite.
    ///
    /// # Errors
    /// [`PortError::NotFound`] and what else the owner says.
    pub async fn revoke(&self, id: String) -> Result<(), PortError> {
        ask(&self.0, |reply| InvitesRequest::Revoke(id, reply)).await
    }
}
