//! Who a client is and what it may do.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{ApiContext, problem::Problem};
use crate::{
    auth::{
        Scope, Secret, Who,
        jwt::{self, Term},
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
    pub(super) address: SocketAddr,
    /// Held by the connection, and by a WebSocket until its client has shown a token.
    pub(super) place: Weak<Place>,
}

/// A client that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    pub(super) who: Who,
    /// What it may do.
    pub(super) role: Role,
    /// Where.
    pub(super) scope: Scope,
    /// For how long, where an outside issuer vouches.
    pub(super) term: Option<Term>,
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
            return Ok(Some(Principal { who, role: Role::Admin, scope: Scope::default(), term: None }));
        }
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let token = header.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or_else(Problem::unauthenticated)?;
        self.admit(Secret::new(token.trim()), peer).await.map(Some)
    }

    /// The client by its token, if its role suffices.
    pub(super) async fn admit(&self, token: Secret, peer: Option<Peer>) -> Result<Principal, Problem> {
        let address = peer.as_ref().map(|peer| peer.address.ip());
        let (who, role, scope, term) = if jwt::is_jwt(token.expose()) {
            let vouched = self.context.issuers.verify(&token).await?;
            let who = Who::Outside { issuer: vouched.issuer, subject: vouched.subject };
            (who, vouched.role, vouched.scope, Some(vouched.term))
        } else {
            let Grant { id, label, role, scope } = self.context.tokens.verify(token, address).await?;
            (Who::Token { id, label }, role, scope, None)
        };
        if let Some(place) = peer.and_then(|peer| peer.place.upgrade()) {
            place.show_token();
        }
        let principal = Principal { who, role, scope, term };
        principal.must_be(self.role)?;
        Ok(principal)
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
            Who::Outside { .. } if let Some(term) = &self.term => context.issuers.ends(term).await,
            Who::Socket { .. } | Who::User { .. } | Who::Outside { .. } => std::future::pending().await,
        }
    }

    /// Whether it may see objects of this kind at all.
    pub(super) fn may_see(&self, kind: &str) -> bool {
        !matches!(kind, "token" | "issuer") || self.role == Role::Admin
    }
}

/// Lets a request pass whose client has the role; the handler finds it as [`Principal`].
pub(super) async fn require(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let admitted = match guard.recognise(request.headers(), peer).await {
        Ok(Some(principal)) => principal.must_be(guard.role).map(|()| principal),
        Ok(None) => Err(Problem::unauthenticated()),
        Err(problem) => Err(problem),
    };
    match admitted {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}
