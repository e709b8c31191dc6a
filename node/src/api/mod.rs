//! The HTTP/JSON and WebSocket API: one router, served over TLS for bearers of tokens and over a
//! Unix socket for whoever may open it.
//!
//! Nothing here owns state that matters: objects belong to the event loop, tokens and the setup
//! code to their tasks, commands, invites and the node's life to whoever holds the other end of
//! the channels in [`ports`].

pub mod access;
mod adapters;
mod admin;
mod audit;
mod automations;
mod backup;
mod color;
pub(crate) mod commands;
mod cookie;
pub(crate) mod devices;
mod events;
mod extract;
#[cfg(test)]
pub(crate) mod fake;
pub mod guards;
mod history;
mod issuers;
pub mod json;
mod linger;
pub mod metrics;
mod objects;
mod openapi;
mod people;
pub mod ports;
pub mod problem;
mod removal;
mod scenes;
mod schedules;
pub(crate) mod scoped;
pub mod serve;
#[cfg(test)]
mod tests;
mod time;
mod tokens;
mod transfer;
mod watch;
mod webhooks;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post, put},
};
use futures_util::FutureExt as _;
use tokio::sync::watch as watch_channel;

pub use self::access::Access;
use self::{
    access::Guard,
    guards::{Gate, Guards},
    metrics::{Metrics, MetricsSource},
    ports::{
        CommandsHandle, ControlHandle, InvitesHandle, adapters::AdaptersHandle,
        automations::AutomationsHandle, events::EventsHandle, history::HistoryHandle,
        schedules::SchedulesHandle,
    },
    problem::Problem,
};
use crate::{
    audit::AuditHandle,
    auth::{
        jwt::IssuersHandle,
        people::PeopleHandle,
        setup::SetupHandle,
        tokens::{Role, TokensHandle},
    },
    automation::webhooks::WebhooksHandle,
    service::Service,
    tls::acme::report::Report,
};

/// A request other than an observer, a backup, an export or an import is answered within so many seconds.
pub const REQUEST_DEADLINE_S: u64 = 30;

/// Where this node can be reached, as `hearth status` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenInfo {
    /// The address and port that it listens on.
    pub listen: String,
    /// The addresses of the API for people, `https://...`.
    pub api: Vec<String>,
    /// The port under which it is reached by the public names.
    pub public_port: u16,
}

/// Everything that the API needs of the rest of the node.
pub struct ApiContext {
    /// The event loop.
    pub service: Service,
    /// The tokens' owner.
    pub tokens: TokensHandle,
    /// The owner of users and sessions.
    pub people: PeopleHandle,
    /// The owner of the outside issuers.
    pub issuers: IssuersHandle,
    /// The setup code's owner.
    pub setup: SetupHandle,
    /// The invites' owner.
    pub invites: InvitesHandle,
    /// The commands' owner.
    pub commands: CommandsHandle,
    /// The adapters' owner.
    pub adapters: AdaptersHandle,
    /// The history's owner.
    pub history: HistoryHandle,
    /// The owner of the automations.
    pub automations: AutomationsHandle,
    /// The owner of the events.
    pub events: EventsHandle,
    /// Who admits the callers of webhooks.
    pub webhooks: WebhooksHandle,
    /// The owner of the schedules.
    pub schedules: SchedulesHandle,
    /// The composition root.
    pub control: ControlHandle,
    /// The certificate of the local CA in PEM.
    pub ca_pem: String,
    /// How it is with the public certificate.
    pub certificate: watch_channel::Receiver<Report>,
    /// Where the API is.
    pub listen: watch_channel::Receiver<ListenInfo>,
    /// What stands before the handlers.
    pub guards: Guards,
    /// What is remembered of who did what.
    pub audit: AuditHandle,
    /// What the API counts about itself.
    pub metrics: Arc<Metrics>,
    /// What others count, for `/metrics`.
    pub metrics_sources: Vec<MetricsSource>,
    /// The parts of the node that show no sign of life, from the supervisor.
    pub stalled: watch_channel::Receiver<Vec<&'static str>>,
    /// `true`, or closed, when the node stops.
    pub shutdown: watch_channel::Receiver<bool>,
}

/// The API for clients that come in this way.
pub fn router(context: &Arc<ApiContext>, access: Access) -> Router {
    let guarded = |routes: Router<Arc<ApiContext>>, role| {
        let guard = Guard { context: Arc::clone(context), access, role };
        routes.route_layer(middleware::from_fn_with_state(guard, access::require))
    };
    let observer = Guard { context: Arc::clone(context), access, role: Role::Viewer };
    let gate = Gate { context: Arc::clone(context), access };
    open_routes()
        .merge(guarded(viewer_routes(), Role::Viewer))
        .merge(guarded(operator_routes(), Role::Operator))
        .merge(guarded(admin_routes(), Role::Admin))
        .route("/api/v1/watch", get(watch::upgrade).layer(axum::Extension(observer)))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(Arc::clone(context), outermost))
        .layer(axum::Extension(access))
        .layer(middleware::from_fn_with_state(gate, guards::guard))
        .with_state(Arc::clone(context))
}

/// The routes of [`open_routes`].
const OPEN_ROUTES: [&str; 7] = [
    "/healthz",
    "/api/v1/ca",
    "/api/v1/openapi.json",
    "/api/v1/login",
    "/api/v1/setup",
    "/api/v1/setup-code",
    "/hooks/{token}",
];

/// What needs no token. The setup code over the socket only is refused by its handler, a webhook that nobody knows by its own.
fn open_routes() -> Router<Arc<ApiContext>> {
    Router::new()
        .route("/healthz", get(admin::health))
        .route("/api/v1/ca", get(admin::ca))
        .route("/api/v1/openapi.json", get(openapi::serve))
        .route("/api/v1/login", post(people::login))
        .route("/api/v1/setup", post(people::setup))
        .route("/api/v1/setup-code", get(people::setup_code).post(people::new_setup_code))
        .route("/hooks/{token}", post(webhooks::call).put(webhooks::call))
}

fn viewer_routes() -> Router<Arc<ApiContext>> {
    Router::new()
        .route("/metrics", get(metrics::exposition))
        .route("/api/v1/status", get(admin::status))
        .route("/api/v1/objects", get(objects::list))
        .route("/api/v1/objects/{kind}/{name}", get(objects::read))
        .route("/api/v1/devices", get(devices::devices))
        .route("/api/v1/devices/{name}", get(devices::device))
        .route("/api/v1/history/{device}", get(history::read))
        .route("/api/v1/adapters/{id}", get(adapters::read))
        .route("/api/v1/commands/{id}", get(commands::read))
        .route("/api/v1/adapters", get(adapters::list))
        .route("/api/v1/time", get(time::read))
        .route("/api/v1/automations", get(automations::list))
        .route("/api/v1/automations/{name}", get(automations::read))
        .route("/api/v1/automations/{name}/test", get(automations::rehearse))
        .route("/api/v1/schedules", get(schedules::list))
        .route("/api/v1/schedules/{name}", get(schedules::read))
        .route("/api/v1/scenes", get(scenes::list))
        .route("/api/v1/scenes/{name}", get(scenes::read))
        .route("/api/v1/home", get(schedules::home))
        .route("/api/v1/logout", post(people::logout))
        .route("/api/v1/me", get(people::me))
        .route("/api/v1/me/password", put(people::change_password))
        .route("/api/v1/sessions", get(people::sessions).delete(people::sign_out_everywhere))
        .route("/api/v1/sessions/{id}", delete(people::end_session))
}

fn operator_routes() -> Router<Arc<ApiContext>> {
    Router::new()
        .route("/api/v1/objects/{kind}/{name}", patch(objects::write).delete(objects::delete))
        .route("/api/v1/commands", post(commands::submit))
        .route("/api/v1/events", post(events::publish))
        .route(
            "/api/v1/automations/{name}",
            put(automations::put).patch(automations::enable).delete(automations::remove),
        )
        .route("/api/v1/automations/{name}/start", post(automations::start))
        .route("/api/v1/automations/{name}/webhook", post(webhooks::make).delete(webhooks::revoke))
        .route(
            "/api/v1/schedules/{name}",
            put(schedules::put).patch(schedules::enable).delete(schedules::remove),
        )
        .route("/api/v1/scenes/{name}", put(scenes::put).delete(scenes::remove))
        .route("/api/v1/scenes/{name}/activate", post(scenes::activate))
        .route("/api/v1/scenes/{name}/undo", post(scenes::undo))
}

fn admin_routes() -> Router<Arc<ApiContext>> {
    Router::new()
        .route(AUDIT, get(audit::list))
        .route("/api/v1/invites", get(admin::invites).post(admin::invite))
        .route("/api/v1/invites/{id}", delete(admin::revoke_invite))
        .route("/api/v1/join", post(admin::join))
        .route("/api/v1/leave", post(admin::leave))
        .route("/api/v1/nodes/{node}", patch(admin::rename).delete(removal::remove))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/api/v1/tokens/{id}", delete(tokens::revoke))
        .route("/api/v1/users", get(people::users).post(people::create_user))
        .route(
            "/api/v1/users/{name}",
            get(people::user).patch(people::change_user).delete(people::remove_user),
        )
        .route("/api/v1/issuers", get(issuers::list))
        .route("/api/v1/issuers/{name}", get(issuers::read).put(issuers::put).delete(issuers::remove))
        .route("/api/v1/issuers/{name}/test", post(issuers::test))
        .route("/api/v1/adapters/{id}", patch(adapters::change).delete(adapters::forget))
        .route("/api/v1/adapters/{id}/pair", post(adapters::pair))
        .route("/api/v1/doctor", get(admin::doctor))
        .route("/api/v1/time", put(time::set))
        .route("/api/v1/home", patch(schedules::set_home))
        .route(BACKUP, get(backup::backup))
        .route("/api/v1/export", get(transfer::export))
        .route("/api/v1/import", post(transfer::import))
}

/// Every route, for the bounded labels of the metrics.
const ROUTES: [&str; 56] = [
    "/healthz",
    "/metrics",
    "/api/v1/ca",
    "/api/v1/openapi.json",
    "/api/v1/setup",
    "/api/v1/setup-code",
    "/api/v1/login",
    "/api/v1/logout",
    "/api/v1/me",
    "/api/v1/me/password",
    "/api/v1/sessions",
    "/api/v1/sessions/{id}",
    "/api/v1/users",
    "/api/v1/users/{name}",
    "/api/v1/status",
    "/api/v1/objects",
    "/api/v1/objects/{kind}/{name}",
    "/api/v1/devices",
    "/api/v1/devices/{name}",
    "/api/v1/history/{device}",
    "/api/v1/commands",
    "/api/v1/commands/{id}",
    "/api/v1/adapters",
    "/api/v1/adapters/{id}",
    "/api/v1/adapters/{id}/pair",
    WATCH,
    "/api/v1/invites",
    "/api/v1/invites/{id}",
    "/api/v1/join",
    "/api/v1/leave",
    "/api/v1/nodes/{node}",
    "/api/v1/tokens",
    "/api/v1/tokens/{id}",
    "/api/v1/issuers",
    "/api/v1/issuers/{name}",
    "/api/v1/issuers/{name}/test",
    "/api/v1/doctor",
    "/api/v1/time",
    "/api/v1/events",
    "/api/v1/automations",
    "/api/v1/automations/{name}",
    "/api/v1/automations/{name}/test",
    "/api/v1/automations/{name}/start",
    "/api/v1/automations/{name}/webhook",
    "/hooks/{token}",
    "/api/v1/schedules",
    "/api/v1/schedules/{name}",
    "/api/v1/scenes",
    "/api/v1/scenes/{name}",
    "/api/v1/scenes/{name}/activate",
    "/api/v1/scenes/{name}/undo",
    "/api/v1/home",
    BACKUP,
    EXPORT,
    IMPORT,
    AUDIT,
];
const WATCH: &str = "/api/v1/watch";
const BACKUP: &str = "/api/v1/backup";
const EXPORT: &str = "/api/v1/export";
const AUDIT: &str = "/api/v1/audit";
const IMPORT: &str = "/api/v1/import";

async fn unknown_route() -> Problem {
    Problem::not_found(
        "such route",
        "the routes are under /api/v1: see the README; objects are at /objects/KIND/NAME",
    )
}

/// Nobody looks at the credentials of such a request: it counts for its address with them as it did without.
async fn unknown_method(
    State(context): State<Arc<ApiContext>>,
    peer: Option<axum::Extension<access::Peer>>,
    headers: HeaderMap,
) -> Problem {
    if let Some(axum::Extension(peer)) = peer
        && guards::has_credentials(&headers)
        && let Err(problem) = context.guards.pace.address(peer.address.ip()).await
    {
        context.metrics.refused(guards::Reason::Pace);
        return problem;
    }
    Problem::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "method",
        "This route has no such method",
        "the route exists, the method does not",
        "use one of the methods in the `Allow` header",
    )
}

/// Around every handler: the deadline, the net under a panic, the count and the headers.
async fn outermost(State(context): State<Arc<ApiContext>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = matched.and_then(|path| ROUTES.iter().position(|known| *known == path));
    let unhurried =
        route.and_then(|n| ROUTES.get(n)).is_some_and(|r| [WATCH, BACKUP, EXPORT, IMPORT].contains(r));
    let limit = if unhurried { Duration::MAX } else { Duration::from_secs(REQUEST_DEADLINE_S) };
    // A panic unwinds through nothing but the future that is dropped with it.
    let handler = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(limit, handler).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            context.metrics.panicked();
            tracing::error!(route = route.and_then(|n| ROUTES.get(n)), "a request handler panicked");
            Problem::internal().into_response()
        }
        Err(_) => Problem::deadline(REQUEST_DEADLINE_S).into_response(),
    };
    context.metrics.answered(route, response.status());
    protect(response.headers_mut());
    response
}

/// No answer is kept, or taken for something else than it says.
fn protect(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
