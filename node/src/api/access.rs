//! Who a client is and what it may do.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;
use tracing::Instrument as _;

use super::{ApiContext, cookie, guards::Reason, ports::By, problem::Problem};
use crate::{
    auth::{
        Scope, Secret, Who,
        jwt::{self, Term},
        people::Recognised,
        tokens::{Grant, Role},
    },
    listener::Place,
};
use mesh_proto::kinds::guards_the_door;

/// How long a request may go on once its credential counts no more: one that ends its own session is still answered.
const GRACE: Duration = Duration::from_secs(1);

/// How clients come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Over the Unix socket: whoever may open it is admin.
    Socket,
    /// Over the network: by bearer token (RFC 6750), or by the cookie of a session.
    Bearer,
}

/// Whom a connection comes from; in the extensions of its requests.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Its own, also when it comes through a proxy that is believed.
    pub(super) address: SocketAddr,
    /// That proxy.
    pub(super) via: Option<IpAddr>,
    /// What the client asked that proxy for, if it says: the host of the origin of its pages.
    pub(super) host: Option<String>,
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
    /// The client by its `Authorization` header, or else by its cookie; `None` when it sends neither.
    pub(super) async fn recognise(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> Result<Option<Principal>, Problem> {
        if self.access == Access::Socket {
            let who = Who::Socket { uid: None };
            return Ok(Some(Principal { who, role: Role::Admin, scope: Scope::default(), term: None }));
        }
        let Some(header) = headers.get(header::AUTHORIZATION) else {
            return self.by_cookie(method, headers, peer).await;
        };
        let token = header.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or_else(Problem::unauthenticated)?;
        self.admit(Secret::new(token.trim()), peer).await.map(Some)
    }

    /// The client by the session in its cookie; `None` also for one that counts no more.
    async fn by_cookie(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> Result<Option<Principal>, Problem> {
        if !cookie::is_in(headers) {
            return Ok(None);
        }
        let host = peer.as_ref().and_then(|peer| peer.host.as_deref());
        cookie::must_be_same_origin(method, headers, host)?;
        let Some(secret) = cookie::read(headers) else { return Ok(None) };
        let Some(found) = self.context.people.recognise(secret).await else { return Ok(None) };
        if let Some(place) = peer.and_then(|peer| peer.place.upgrade()) {
            place.show_token();
        }
        let Recognised { user, session, role, scope } = found;
        let principal = Principal { who: Who::User { name: user, session }, role, scope, term: None };
        Ok(Some(principal))
    }

    /// The client by its token. Whether its role suffices is looked at where it is known who was refused.
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
        Ok(Principal { who, role, scope, term })
    }
}

impl Guard {
    /// The client by its credentials, as often as it may ask; `None` when it sends none.
    pub(super) async fn enter(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: Option<Peer>,
        uid: Option<u32>,
    ) -> Result<Option<Principal>, Problem> {
        let address = peer.as_ref().map(|peer| peer.address.ip());
        let pace = &self.context.guards.pace;
        let paced =
            |paced: Result<(), Problem>| paced.inspect_err(|_| self.context.metrics.refused(Reason::Pace));
        match self.recognise(method, headers, peer).await {
            Ok(Some(mut principal)) => {
                if let Who::Socket { uid: known } = &mut principal.who {
                    *known = uid;
                } else {
                    paced(pace.identity(principal.who.to_string()).await)?;
                }
                Ok(Some(principal))
            }
            Ok(None) => {
                // A cookie that counts no more is none; without it the address has been counted already.
                if let Some(address) = address.filter(|_| cookie::is_in(headers)) {
                    paced(pace.address(address).await)?;
                }
                Ok(None)
            }
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
        let detail = format!("this needs the role {role}; you have {}", self.role);
        Err(Problem::forbidden(
            detail,
            "use a token or a user of that role: an admin makes them with `hearth token create`, `hearth user add`",
        ))
    }

    /// Returns once what it was recognised by counts no more.
    pub(super) async fn ends(&self, context: &ApiContext) {
        match &self.who {
            Who::Token { id, .. } => {
                let mut live = context.tokens.live();
                if live.wait_for(|live| !live.contains_key(id)).await.is_err() {
                    // The node is stopping, which others tell.
                    std::future::pending::<()>().await;
                }
            }
            Who::User { session, .. } => {
                let mut live = context.people.live();
                if live.wait_for(|live| !live.contains(session)).await.is_err() {
                    // The node is stopping, which others tell.
                    std::future::pending::<()>().await;
                }
            }
            Who::Outside { .. } if let Some(term) = &self.term => context.issuers.ends(term).await,
            Who::Socket { .. } | Who::Outside { .. } => std::future::pending().await,
        }
    }

    /// Whether it may see objects of this kind at all.
    pub(super) fn may_see(&self, kind: &str) -> bool {
        !guards_the_door(kind) || self.role == Role::Admin
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
    let (who, admitted) = match guard.enter(request.method(), request.headers(), peer, uid).await {
        Ok(Some(principal)) => {
            let admitted = principal.must_be(guard.role).and_then(|()| principal.may_enter(&request));
            let admitted = admitted.map(|()| principal.clone());
            (Some(principal), admitted)
        }
        Ok(None) => (None, Err(Problem::unauthenticated())),
        Err(problem) => (None, Err(problem)),
    };
    let mut response = match admitted {
        Ok(principal) => {
            let span = tracing::debug_span!("request", by = %principal.who);
            let ended = ended(principal.clone(), Arc::clone(&guard.context));
            request.extensions_mut().insert(principal);
            while_it_counts(next.run(request).instrument(span), ended).await
        }
        Err(problem) => problem.into_response(),
    };
    // For the audit trail.
    if let Some(principal) = who {
        response.extensions_mut().insert(principal.who);
    }
    response
}

/// Returns a moment after the credential counts no more.
async fn ended(principal: Principal, context: Arc<ApiContext>) {
    principal.ends(&context).await;
    sleep(GRACE).await;
}

/// The answer of a handler, if the credential counts until there is one: a body may take long to come. An answer whose length nobody
/// knows yet breaks off when the credential ends before it does.
async fn while_it_counts(
    handler: impl Future<Output = Response>,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Response {
    let mut ended = Box::pin(ended);
    let response = tokio::select! {
        biased;
        response = handler => response,
        () = &mut ended => return Problem::unauthenticated().into_response(),
    };
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let pieces = stream::unfold(Some((body.into_data_stream(), ended)), |left| async move {
            let (mut data, mut ended) = left?;
            tokio::select! {
                piece = data.next() => piece.map(|piece| (piece, Some((data, ended)))),
                () = &mut ended => {
                    let why = std::io::Error::other("the credential of the request counts no more");
                    Some((Err(axum::Error::new(why)), None))
                }
            }
        });
        Body::from_stream(pieces)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::convert::Infallible;

    use tokio::sync::oneshot;

    use super::*;

    fn piece() -> impl stream::Stream<Item = Result<&'static str, Infallible>> {
        stream::iter([Ok("piece")])
    }

    async fn told(body: Body) -> (Response, oneshot::Sender<()>) {
        let (end, ended) = oneshot::channel();
        let ended = async move { ended.await.unwrap() };
        (while_it_counts(async { Response::new(body) }, ended).await, end)
    }

    #[tokio::test]
    async fn an_answer_that_is_still_being_told_breaks_off_when_the_credential_ends() {
        let (response, end) = told(Body::from_stream(piece().chain(stream::pending()))).await;
        let mut pieces = response.into_body().into_data_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap(), "piece");
        end.send(()).unwrap();
        assert!(pieces.next().await.unwrap().is_err(), "nobody takes it for the whole");
        assert!(pieces.next().await.is_none());
        let (response, _end) = told(Body::from_stream(piece())).await;
        let pieces: Vec<_> = response.into_body().into_data_stream().collect().await;
        assert_eq!(pieces.len(), 1, "one that is told in time has all of it");
        assert!(pieces[0].is_ok());
    }
}
