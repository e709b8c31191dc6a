//! Who a client is and what it may do.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use tracing::Instrument as _;

use super::{ApiContext, guards::Reason, ports::By, problem::Problem};
use crate::{
    auth::{
        Scope, Secret, Who,
        tokens::{Grant, Role},
    },
    listener::Place,
};

/// How clients come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Over the Unix socket: whoever may open it is admin.
    Socket,
    /// Over the network: by bearer token (RFC 6750).
    Bearer,
}

/// Whom a connection comes from; in the extensions of its requests.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Its own, also when it comes through a proxy that is believed.
    pub(super) address: SocketAddr,
    /// That proxy.
    pub(super) via: Option<IpAddr>,
    /// Held by the connection, and by a WebSocket until its client has shown a token.
    pub(super) place: Weak<Place>,
}

/// Who opened the Unix socket, by the kernel; in the extensions of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uid(pub(super) u32);

/// A client that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    pub(super) who: Who,
    /// What it may do.
    pub(super) role: Role,
    /// Where.
    pub(super) scope: Scope,
}

/// What a route demands.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) context: Arc<ApiContext>,
    pub(super) access: Access,
    pub(super) role: Role,
}

impl Guard {
    /// The client by its `Authorization` header; `None` when it sends none.
    pub(super) async fn recognise(
        &self,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> Result<Option<Principal>, Problem> {
        if self.access == Access::Socket {
            let who = Who::Socket { uid: None };
            return Ok(Some(Principal { who, role: Role::Admin, scope: Scope::default() }));
        }
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let token = header.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or_else(Problem::unauthenticated)?;
        self.admit(Secret::new(token.trim()), peer).await.map(Some)
    }

    /// The client by its token. Whether its role suffices is looked at where it is known who was refused.
    pub(super) async fn admit(&self, token: Secret, peer: Option<Peer>) -> Result<Principal, Problem> {
        let address = peer.as_ref().map(|peer| peer.address.ip());
        let Grant { id, label, role, scope } = self.context.tokens.verify(token, address).await?;
        if let Some(place) = peer.and_then(|peer| peer.place.upgrade()) {
            place.show_token();
        }
        Ok(Principal { who: Who::Token { id, label }, role, scope })
    }
}

impl Guard {
    /// The client by its credentials, as often as it may ask; `None` when it sends none.
    pub(super) async fn enter(
        &self,
        headers: &HeaderMap,
        peer: Option<Peer>,
        uid: Option<u32>,
    ) -> Result<Option<Principal>, Problem> {
        let address = peer.as_ref().map(|peer| peer.address.ip());
        let pace = &self.context.guards.pace;
        let paced =
            |paced: Result<(), Problem>| paced.inspect_err(|_| self.context.metrics.refused(Reason::Pace));
        match self.recognise(headers, peer).await {
            Ok(Some(mut principal)) => {
                if let Who::Socket { uid: known } = &mut principal.who {
                    *known = uid;
                } else {
                    paced(pace.identity(principal.who.to_string()).await)?;
                }
                Ok(Some(principal))
            }
            Ok(None) => Ok(None),
            Err(refused) => {
                // Wrong credentials are those of anybody.
                if let Some(address) = address {
                    paced(pace.address(address).await)?;
                }
                Err(refused)
            }
        }
    }
}

impl Principal {
    /// Refuses a lower role.
    pub(super) fn must_be(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let detail = format!("this needs the role {role}; the token has {}", self.role);
        Err(Problem::forbidden(
            detail,
            "use a token of that role: an admin makes one with `hearth token create`",
        ))
    }

    /// Returns once what it was recognised by counts no more.
    pub(super) async fn ends(&self, context: &ApiContext) {
        match &self.who {
            Who::Token { id, .. } => {
                let mut live = context.tokens.live();
                // A closed channel means that the node is stopping.
                let _ = live.wait_for(|live| !live.contains_key(id)).await;
            }
            Who::Socket { .. } | Who::User { .. } | Who::Outside { .. } => std::future::pending().await,
        }
    }

    /// Whether it may see objects of this kind at all.
    pub(super) fn may_see(&self, kind: &str) -> bool {
        kind != "token" || self.role == Role::Admin
    }
}

/// Who gives a command by a request that was admitted.
pub(super) struct Giver(pub(super) By);

impl Giver {
    /// The one of a WebSocket.
    pub(super) fn of(principal: &Principal, peer: Option<&Peer>) -> By {
        By { who: principal.who.to_string(), from: peer.map(|peer| peer.address.ip()) }
    }
}

impl<S: Sync> FromRequestParts<S> for Giver {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let principal = parts.extensions.get::<Principal>().ok_or_else(Problem::unauthenticated)?;
        Ok(Self(Self::of(principal, parts.extensions.get::<Peer>())))
    }
}

/// Lets a request pass whose client has the role; the handler finds it as [`Principal`].
pub(super) async fn require(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let uid = request.extensions().get::<Uid>().map(|uid| uid.0);
    let (who, admitted) = match guard.enter(request.headers(), peer, uid).await {
        Ok(Some(principal)) => {
            let admitted = principal.must_be(guard.role).map(|()| principal.clone());
            (Some(principal), admitted)
        }
        Ok(None) => (None, Err(Problem::unauthenticated())),
        Err(problem) => (None, Err(problem)),
    };
    let mut response = match admitted {
        Ok(principal) => {
            let span = tracing::debug_span!("request", by = %principal.who);
            request.extensions_mut().insert(principal);
            next.run(request).instrument(span).await
        }
        Err(problem) => problem.into_response(),
    };
    // For the audit trail.
    if let Some(principal) = who {
        response.extensions_mut().insert(principal);
    }
    response
}
