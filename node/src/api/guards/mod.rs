//! What stands between the network and the handlers: around every route, in front of everything else.
//!
//! In this order: headers that are there twice or make no sense; who the client is behind a proxy; whether the
//! host is this node; whether a page of somebody else asks; how often an address without credentials asks.
//! Then the handlers, who look whether the client may; then the headers of the answer, and the audit trail.
//! The Unix socket has the audit trail alone: whoever may open it is an admin.

mod forwarded;
mod headers;
mod host;
mod origin;
mod pace;

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use self::{forwarded::Client, host::Place, origin::Page};
pub use self::{
    forwarded::Network,
    host::{Hosts, IsName},
    origin::Origins,
    pace::{Pace, Pacer},
};
use super::{
    ApiContext, OPEN_ROUTES,
    access::{Access, Peer},
    audit::Note,
    cookie,
    problem::Problem,
};
pub(super) use origin::{may_change, only_reads};
pub(super) use pace::Speech;

/// What the guards go by.
pub struct Guards {
    /// The names of this node.
    pub hosts: Hosts,
    /// Whose pages may ask.
    pub origins: Origins,
    /// Whose word counts on who a client is.
    pub proxies: Vec<Network>,
    /// How often a client may ask.
    pub pace: Pace,
    /// Whether a name is public and has a certificate that every browser trusts.
    pub is_public: IsName,
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guards")
            .field("hosts", &self.hosts)
            .field("origins", &self.origins)
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

/// Why a guard refuses, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Headers,
    Forwarded,
    Host,
    Origin,
    Pace,
}

impl Reason {
    /// Every one with its label.
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::Headers, "headers"),
        (Self::Forwarded, "forwarded"),
        (Self::Host, "host"),
        (Self::Origin, "origin"),
        (Self::Pace, "pace"),
    ];
}

/// A request that may go on.
struct Passed {
    page: Page,
    /// Where the client wants to be.
    place: Option<Place>,
}

/// The guard of one way in.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) context: Arc<ApiContext>,
    pub(super) access: Access,
}

/// Around everything.
pub(super) async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let Gate { context, access } = gate;
    if access == Access::Socket {
        let (note, request) = Note::of(request, access).await;
        let response = next.run(request).await;
        note.record(&context.audit, &response);
        return response;
    }
    let guards = &context.guards;
    let mut request = request;
    let client = match guards.resolve(&mut request) {
        Ok(client) => client,
        Err(problem) => return refuse(&context, Reason::Forwarded, problem),
    };
    let (note, request) = Note::of(request, access).await;
    let (parts, body) = request.into_parts();
    let response = match guards.admit(&parts, client).await {
        Ok(Passed { page, place }) => {
            let mut response = match page.preflight(&parts.method, &parts.headers) {
                Some(answer) => answer,
                None => next.run(Request::from_parts(parts, body)).await,
            };
            let headers = response.headers_mut();
            page.permit(headers);
            headers::add(headers, place.is_some_and(|place| (guards.is_public)(&place.host)));
            response
        }
        Err((reason, problem)) => refuse(&context, reason, problem),
    };
    note.record(&context.audit, &response);
    response
}

fn refuse(context: &ApiContext, reason: Reason, problem: Problem) -> Response {
    context.metrics.refused(reason);
    let mut response = problem.into_response();
    super::protect(response.headers_mut());
    headers::add(response.headers_mut(), false);
    response
}

impl Guards {
    /// Finds out who the client is; from here on its own address counts, and not that of a proxy.
    fn resolve(&self, request: &mut Request) -> Result<Option<Client>, Problem> {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else { return Ok(None) };
        let client = Client::of(peer.address, request.headers(), &self.proxies)?;
        let address = SocketAddr::new(client.address, peer.address.port());
        let host = client.host.as_ref().map(Place::authority);
        request.extensions_mut().insert(Peer { address, via: client.via, host, ..peer });
        Ok(Some(client))
    }

    async fn admit(&self, request: &Parts, client: Option<Client>) -> Result<Passed, (Reason, Problem)> {
        let (headers, because) = (&request.headers, |reason| move |problem| (reason, problem));
        headers::check(headers).map_err(because(Reason::Headers))?;
        // Also where a proxy says another: a script can write that header, and `Host` it cannot.
        let asked =
            self.hosts.check(request.version, &request.uri, headers).map_err(because(Reason::Host))?;
        let (address, told) = client.map_or((None, None), |client| {
            let scheme = if client.is_plain { "http" } else { "https" };
            (Some(client.address), Some((client.host, scheme)))
        });
        let (place, scheme) = match told {
            // The proxy may have put its own idea of a host there.
            Some((Some(place), scheme)) => {
                self.hosts.must_know(&place).map_err(because(Reason::Host))?;
                (Some(place), scheme)
            }
            Some((None, scheme)) => (asked, scheme),
            None => (asked, "https"),
        };
        let page = self.origins.check(&request.method, headers, scheme, place.as_ref());
        let page = page.map_err(because(Reason::Origin))?;
        if let Some(address) = address.filter(|_| !is_looked_at(request)) {
            self.pace.address(address).await.map_err(because(Reason::Pace))?;
        }
        Ok(Passed { page, place })
    }
}

/// Whether a request shows credentials, whatever they are worth.
pub(super) fn has_credentials(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION) || cookie::is_in(headers)
}

/// Whether a request has credentials that its route looks at: then it is counted once that is done (see `access`).
/// Where nobody looks at them they are worth nothing.
fn is_looked_at(request: &Parts) -> bool {
    let route = request.extensions.get::<MatchedPath>();
    has_credentials(&request.headers) && route.is_some_and(|route| !OPEN_ROUTES.contains(&route.as_str()))
}
